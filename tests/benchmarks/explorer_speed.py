"""Frame time and payload of two explorers: `python tests/benchmarks/explorer_speed.py`.

For mask boards and switchboards: bytes of one explorer's HTML (style, data, module), compressed;
and the time from a slider's event to the finished redraw, style and layout included, in a headless
browser on this machine. One frame is 16 ms.
"""

import gzip
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from explorer.making import decomposition, exact, memory, resid_mlp, tms, unit_columns

import spd_mini as spd
from browsing import ARGUMENTS, find_browser
from spd_mini import explorer

# Event, recomputation, DOM writes, then a forced style and layout pass. `forced` is read last.
MOVE = """(kind) => {
  const root = document.querySelector(".spd-explorer");
  const sliders = [...root.querySelectorAll(`.spd-${kind} input`)];
  const times = [];
  for (let k = 0; k < MOVES; k++) {
    const slider = sliders[k % sliders.length];
    slider.value = (k * 0.37) % 1;
    const began = performance.now();
    slider.dispatchEvent(new Event("input"));
    root.spdExplorer.draw();
    root.getBoundingClientRect();
    times.push(performance.now() - began);
  }
  return times;
}"""
MOVES = 200
TIES = {"decoder": "encoder"}
CASES = {
    "tms-5-2, C 40": lambda: exact(unit_columns(2, 5), 40, 8),
    # as recovered: 40 live subcomponents a layer, the rest folded away
    "tms-40-10, C 320": lambda: exact(unit_columns(10, 40), 320, 8),
    "resid-mlp-1, C 130 and 60": lambda: resid_mlp(1, 0.005),
    "resid-mlp-2, C 120 and 32": lambda: resid_mlp(2, 0.005),
    # every subcomponent live, every byte random: heavier than anything that is ever shown
    "tms-40-10, C 320, all live": lambda: decomposition(tms(40, 10, False, 0), 320, 0, TIES, 8),
}


SWITCHBOARDS = {
    "facts, 96 neurons": lambda: memory(48, 4, 128, 96, 1, 80, 0.01),
    "facts, two pathways of 64": lambda: memory(48, 4, 128, 64, 2, 80, 0.01),
}


def measure(page: Page, kind: str) -> str:
    """Time of a redraw after one kind of slider moved.

    First the page's own processor time, which does not count what other programs take; then the
    wall clock, which does.
    """
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
        return float(metrics["TaskDuration"])

    before = spent()
    times = page.evaluate(MOVE.replace("MOVES", str(MOVES)), kind)
    processor = 1000 * (spent() - before) / MOVES
    session.detach()
    late = statistics.quantiles(times, n=20)[-1]
    return f"{processor:.1f} ms (wall clock median {statistics.median(times):.1f}, 95 % {late:.1f})"


def main() -> None:
    """Print one line a size."""
    torch.set_num_threads(1)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(ARGUMENTS))
        path = Path(folder) / "page.html"
        for name, make in CASES.items():
            html = spd.explore(make())._repr_html_()
            path.write_text(html, encoding="utf-8")
            page = browser.new_page()
            page.goto(path.as_uri())
            masks, inputs = measure(page, "mask"), measure(page, "in")
            kilobytes = len(gzip.compress(html.encode(), mtime=0)) / 1024
            live = page.locator(".spd-mask").count()
            print(
                f"{name}: {kilobytes:.0f} KiB compressed; {live} mask sliders; redraw after a mask "
                f"{masks}; after an input {inputs}"
            )
            page.close()
        for name, make in SWITCHBOARDS.items():
            html = explorer.switchboard(make())._repr_html_()
            path.write_text(html, encoding="utf-8")
            page = browser.new_page()
            page.goto(path.as_uri())
            page.get_by_role("button", name="Its whole subject").click()
            kilobytes = len(gzip.compress(html.encode(), mtime=0)) / 1024
            moves = measure(page, "in")
            print(f"{name}: {kilobytes:.0f} KiB compressed; redraw after any slider {moves}")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
