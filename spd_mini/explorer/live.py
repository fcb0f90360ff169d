"""`live`: sliders over the real PyTorch model, for a notebook with a running kernel.

A kernel's widgets are dead in a static page (they move, nothing recomputes). So without a front end,
when a notebook is executed to be published, the panel is one sentence and no widget is ever made.
The explorer (`spd_mini.explore`) is the one that works everywhere.
"""

import html
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import masks as mask_functions
from ..decomposition import Decomposition
from .export import (
    LIMIT,
    checked_input,
    feature_labels,
    importances,
    layer_order,
    live_order,
    probes,
)

SENTENCE = (
    "This panel drives the real PyTorch model and needs a running kernel: "
    "open this chapter live to use it."
)
PRESETS = {
    "All on": lambda panel, g: mask_functions.fixed(g, 1.0),
    "Only the important": lambda panel, g: mask_functions.fixed(g, 0.0),
    "Random, as in training": lambda panel, g: mask_functions.random(g, panel.generator),
    "Worst case": lambda panel, g: mask_functions.worst_case(panel.d, panel.x[None]),
}


def is_static() -> bool:
    """Whether nobody is there to move a slider.

    The environment variable SPD_STATIC decides where it is set ("1" static, "0" live). Else: no
    IPython kernel, or one whose client said that it cannot ask a reader for input, as the programs
    that execute notebooks unattended do.
    """
    told = os.environ.get("SPD_STATIC")
    if told is not None:
        return told != "0"
    try:
        from IPython import get_ipython
    except ImportError:
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is None or not getattr(kernel, "_allow_stdin", True)


class LivePanel:
    """State of the panel: an input, masks for every layer, and what the model makes of them.

    Shown with widgets where there is a front end, as one plain sentence where there is none.
    """

    def __init__(self, d: Decomposition, x: Tensor | Sequence[float] | None = None) -> None:
        structure, self.layers = layer_order(d)
        self.d, self.limits = d, structure["input"]
        self.x = checked_input(x, structure).clone()
        g = importances(d, probes(len(self.x)))
        self.live = {name: live_order(g[name]) for name in self.layers}
        self.generator = torch.Generator().manual_seed(0)
        self.preset = "Random, as in training"
        self.apply_preset()

    def importance(self) -> dict[str, Tensor]:
        """Importances on the current input: {name: (1, C)}, on the CPU."""
        return importances(self.d, self.x[None])

    def apply_preset(self) -> None:
        """Set every mask from the current preset; masks are {name: (1, C)}."""
        masks = PRESETS[self.preset](self, self.importance())
        self.masks = {n: m.detach().cpu().clone() for n, m in masks.items()}

    @torch.no_grad()
    def outputs(self) -> tuple[Tensor, Tensor]:
        """Output of the target and of the masked model on the current input, (n_out,) each."""
        want = self.d.target(self.x[None].to(self.d.device))
        return want[0].cpu(), self.d(self.x[None], self.masks)[0].cpu()

    def table(self) -> str:
        """The outputs side by side and their largest difference, as HTML."""
        want, have = self.outputs()
        change = float((want - have).abs().max())
        verdict = "The output breaks." if change > LIMIT else "The output stands still."
        rows = "".join(
            f"<tr><td>{label.replace('x', 'y')}</td><td>{a:.3f}</td><td>{b:.3f}</td></tr>"
            for label, a, b in zip(feature_labels(len(want)), want, have, strict=True)
        )
        return (
            f"<b>{verdict}</b> Largest change {change:.3f} (limit {LIMIT}).<table>"
            f"<tr><th></th><th>target</th><th>masked</th></tr>{rows}</table>"
        )

    def __repr__(self) -> str:
        return SENTENCE

    def _repr_html_(self) -> str:
        return f'<p class="spd-live-fallback">{html.escape(SENTENCE)}</p>'

    def _ipython_display_(self) -> None:
        """Show widgets, or, in a static run, the sentence. No widget is made before this."""
        from IPython.display import HTML, display

        display(HTML(self._repr_html_()) if is_static() else self.widget())

    def widget(self) -> Any:
        """The panel as an ipywidgets box (version 7 or 8)."""
        import ipywidgets as widgets

        low, high = self.limits
        result = widgets.HTML()
        wide = widgets.Layout(width="320px")
        quiet = False  # true while sliders are being set by the program

        def slider(label: str, value: float, lo: float, hi: float) -> Any:
            return widgets.FloatSlider(
                value=value, min=lo, max=hi, step=0.01, description=label, layout=wide
            )

        labels = feature_labels(len(self.x))
        inputs = [slider(f, float(v), low, high) for f, v in zip(labels, self.x, strict=True)]
        masks = {(n, c): slider(f"{c}", 1.0, 0.0, 1.0) for n in self.layers for c in self.live[n]}
        preset = widgets.Dropdown(options=list(PRESETS), value=self.preset, description="masks")
        again = widgets.Button(description="Draw again")

        def show() -> None:
            nonlocal quiet
            quiet = True
            g = self.importance()
            for (name, c), control in masks.items():
                control.value = float(self.masks[name][0, c])
                control.description = f"{c} (g {g[name][0, c]:.2f})"
            quiet = False
            result.value = self.table()

        def on_input(j: int) -> Callable[[Any], None]:
            def changed(change: Any) -> None:
                self.x[j] = change["new"]
                self.apply_preset()
                show()

            return changed

        def on_mask(name: str, c: int) -> Callable[[Any], None]:
            def changed(change: Any) -> None:
                if not quiet:
                    self.masks[name][0, c] = change["new"]
                    result.value = self.table()

            return changed

        def on_preset(_: Any) -> None:
            self.preset = preset.value
            self.apply_preset()
            show()

        for j, control in enumerate(inputs):
            control.observe(on_input(j), names="value")
        for (name, c), control in masks.items():
            control.observe(on_mask(name, c), names="value")
        preset.observe(on_preset, names="value")
        again.on_click(on_preset)
        columns = [widgets.VBox([widgets.HTML("<b>input</b>"), *inputs])]
        for name in self.layers:
            controls = [masks[name, c] for c in self.live[name]]
            columns.append(widgets.VBox([widgets.HTML(f"<b>{html.escape(name)}</b>"), *controls]))
        columns.append(widgets.VBox([widgets.HTML("<b>output</b>"), result]))
        show()
        row = widgets.HBox(columns, layout=widgets.Layout(flex_flow="row wrap"))
        return widgets.VBox([widgets.HBox([preset, again]), row])


def live(d: Decomposition, x: Tensor | Sequence[float] | None = None) -> LivePanel:
    """A panel of sliders over the real model: inputs, masks of live subcomponents, presets.

    d: a decomposition of a target with a `structure()`; x: starting input (n_features,), by default
    the first feature at 0.75. Same errors as `explore`.
    """
    return LivePanel(d, x)
