"""Explorers: the decomposed model recomputed in the page, at every move of a slider.

Python exports the numbers (export.py), one small ES module does the mathematics (model.js) and draws
(ui.js, view_*.js), and html.py joins the two into self-contained HTML. The core of the package knows
nothing of this.
"""

from collections.abc import Sequence

from torch import Tensor

from ..decomposition import Decomposition
from .compare import contributions, dendrogram, dial, sizes
from .coverage import coverage
from .export import describe, model_payload
from .html import Explorer
from .switchboard import switchboard
from .views import adversary, columns, cube, gate, scrubber, snapshot


def explore(
    d: Decomposition, x: Tensor | Sequence[float] | None = None, title: str | None = None
) -> Explorer:
    """The mask board: input, what each subcomponent detects, its mask, what it writes, the output.

    d: a decomposition of a target with a `structure()` (the toy models have one). x: the input to
    start from, (n_features,), by default the first feature at 0.75. Returns an object that notebooks
    display and that `.save(path)` writes as a page. Raises ValueError for targets, values or inputs
    that cannot be shown.
    """
    return Explorer("masks", model_payload(d, x), title or "Move the masks", describe(d, x))


__all__ = [
    "Explorer",
    "adversary",
    "columns",
    "contributions",
    "coverage",
    "cube",
    "dendrogram",
    "dial",
    "explore",
    "gate",
    "scrubber",
    "sizes",
    "snapshot",
    "switchboard",
]
