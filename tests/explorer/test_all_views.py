"""What holds for every view: every control moves something, is named, legible, and fits."""

import itertools

import pytest
import torch
from explorer.making import (
    cancelling,
    covered,
    cube_cases,
    decomposition,
    dialled,
    exact,
    exact_residual,
    memory,
    pentagon,
    snapshots,
    tms,
    unit_columns,
)
from playwright.sync_api import Locator, Page

import spd_mini as spd
from browsing import OpenPage
from spd_mini import edit, explorer
from spd_mini.explorer.switchboard import noises
from spd_mini.targets import facts

pytestmark = pytest.mark.slow  # every view in a real browser

ROOT = ".spd-explorer"
Groups = list[list[tuple[str, int]]]
ADVERSARY = [("exact", pentagon()), ("with a pair", cancelling())]
CONTRIBUTIONS = [("too low", exact_residual(1, noise=0.1)), ("right", exact_residual(1))]


def tree() -> tuple[torch.Tensor, list[tuple[str, int]], torch.Tensor, float, Groups]:
    """Six features, two W_in that serve them together, and a W_out that serves all."""
    leaves = [("in.0", c) for c in range(6)] + [("in.1", c) for c in range(6)]
    leaves += [("out", c) for c in range(4)]
    joins = [[c, 6 + c, 0.1 + 0.05 * c, 2] for c in range(6)]
    joins += [[12, 13, 0.5, 2], [22, 14, 0.6, 3], [23, 15, 0.7, 4]]
    joins += [[16, 17, 1.2, 4], [25, 18, 1.3, 6], [26, 19, 1.35, 8], [27, 20, 1.4, 10]]
    joins += [[28, 21, 1.45, 12], [29, 24, 1.6, 16]]
    g = torch.cat([torch.eye(6), torch.eye(6), torch.ones(6, 4)], 1)
    groups = [[leaves[c], leaves[6 + c]] for c in range(6)] + [leaves[12:]]
    return torch.tensor(joins), leaves, g, 1.0, groups


def dialled_settings() -> list[tuple[str, list[dict[str, object]]]]:
    """Three settings of two runs each: the first shares a piece, the last has none in use."""
    shared = torch.eye(3)[:, [0, 1, 1]]
    wrong = {"pattern": False, "strict": False}
    table = [("0.5", shared, wrong), ("1.0", torch.eye(3), {}), ("2.0", torch.zeros(3, 3), wrong)]
    return [(value, [dialled(n, g) | how for n in ("one", "two")]) for value, g, how in table]


VIEWS = {
    "masks": lambda: spd.explore(pentagon()),
    "masks, three layers": lambda: spd.explore(
        decomposition(tms(5, 2, True, 0), 6, 0, {"decoder": "encoder"})
    ),
    "columns": lambda: explorer.columns(pentagon().target),
    "cube": lambda: explorer.cube(cube_cases()),
    "scrubber": lambda: explorer.scrubber(*snapshots()),
    "gate": lambda: explorer.gate(pentagon(), "encoder", 1),
    "masks, many": lambda: spd.explore(exact(unit_columns(10, 40), 44)),
    "masks, residual": lambda: spd.explore(exact_residual(2, features=16, C_in=18)),
    "sizes": lambda: explorer.sizes([exact(torch.eye(5), C) for C in (6, 7, 9)]),
    "contributions": lambda: explorer.contributions(CONTRIBUTIONS),
    "contributions, three layers": lambda: explorer.contributions([("one", exact_residual(3))]),
    "dendrogram": lambda: explorer.dendrogram(*tree()),
    "adversary": lambda: explorer.adversary(ADVERSARY),
    "dial": lambda: explorer.dial(
        "k", dialled_settings(), torch.tensor([[1.0, 0, -1], [0, 1, -1]])
    ),
    "coverage": lambda: explorer.coverage("β₃", ["x₀ in A", "x₁ in A", "x₀ in B"], covered()),
    "switchboard": lambda: explorer.switchboard(memory()),
    "switchboard, two pathways": lambda: explorer.switchboard(memory(n_paths=2)),
    "columns, 40 features": lambda: explorer.columns(tms(40, 10, False, 0)),
}
every_view = pytest.mark.parametrize("view", VIEWS)


def settle(page: Page) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def redraws(root: Locator) -> int:
    return int(root.get_attribute("data-redraws") or -1)


def opened(view: str, open_page: OpenPage, **how: object) -> tuple[Page, Locator]:
    page = open_page(html=VIEWS[view]()._repr_html_(), **how)  # type: ignore[arg-type]
    return page, page.locator(ROOT)


@every_view
def test_every_slider_moves_something(view: str, open_page: OpenPage) -> None:
    page, root = opened(view, open_page)
    sliders = root.locator("input[type=range]:visible")
    assert sliders.count() > 0
    for i in range(min(sliders.count(), 16)):
        slider = sliders.nth(i)
        before, count, value = root.inner_html(), redraws(root), slider.input_value()
        slider.focus()
        keys = ("ArrowLeft", "ArrowRight") if float(value) > 0 else ("ArrowRight", "ArrowLeft")
        page.keyboard.press(keys[0])
        settle(page)
        assert redraws(root) > count
        assert root.inner_html() != before
        page.keyboard.press(keys[1])
        settle(page)


@every_view
def test_every_button_and_choice_does_something(view: str, open_page: OpenPage) -> None:
    page, root = opened(view, open_page, reduced_motion=True)
    buttons = root.get_by_role("button")
    for i in range(min(buttons.count(), 14)):
        count = redraws(root)
        buttons.nth(i).click()
        settle(page)
        assert redraws(root) > count, buttons.nth(i).inner_text()
    for select in root.locator("select").all():
        options = select.locator("option")
        count = redraws(root)
        select.select_option(index=options.count() - 1)
        settle(page)
        assert redraws(root) > count


@every_view
def test_every_control_is_named_and_shows_its_value(view: str, open_page: OpenPage) -> None:
    _, root = opened(view, open_page)
    assert root.get_attribute("data-view") == view.split(",")[0]
    assert root.get_attribute("aria-label")
    assert root.get_attribute("aria-description")
    for slider in root.locator("input[type=range]:visible").all():
        assert slider.get_attribute("aria-label")
        text = slider.get_attribute("aria-valuetext")
        assert text
        assert slider.locator("xpath=../..").locator("output").inner_text() == text
    for other in root.locator("select, svg[role=img], section").all():
        assert other.get_attribute("aria-label")
    for button in root.get_by_role("button").all():
        assert button.inner_text()


CONTRASTS = """root => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour, under = [255, 255, 255]) => {
    canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const share = [0.2126, 0.7152, 0.0722];
  const light = (c) => c.reduce((sum, v, i) => sum + linear(v / 255) * share[i], 0);
  const ground = (node) => node
    ? rgb(getComputedStyle(node).backgroundColor, ground(node.parentElement)) : [255, 255, 255];
  const out = [];
  for (const node of root.querySelectorAll("*")) {
    const own = [...node.childNodes].filter((n) => n.nodeType === 3);
    const text = own.map((n) => n.data.trim()).join("");
    const shown = !node.matches("style, script, noscript") && node.getClientRects().length;
    if (!text || !shown) continue;
    const style = getComputedStyle(node);
    const ink = rgb(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(node))].sort((p, q) => q - p);
    out.push([(a + 0.05) / (b + 0.05), text]);
  }
  return out;
}"""


@every_view
def test_text_is_legible_in_light_and_dark(view: str, open_page: OpenPage) -> None:
    """WCAG's 4.5 for every piece of text on the ground it stands on."""
    page, root = opened(view, open_page)
    if view.startswith("masks"):  # so that the warning colour shows, too
        root.locator(".spd-mask input").first.fill("0")
        settle(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = root.evaluate(CONTRASTS)
        assert len(found) > 5
        assert min(found)[0] >= 4.5, (scheme, min(found))


def test_dark_mode_follows_the_reader_and_the_page(open_page: OpenPage) -> None:
    """The system's wish; but the switch of the book's theme, of JupyterLab and Colab wins."""
    colour = "node => getComputedStyle(node).backgroundColor"
    page, root = opened("masks", open_page)
    light = root.evaluate(colour)
    dark = opened("masks", open_page, dark=True)[1].evaluate(colour)
    assert light != dark
    for name, value, want in (
        ("html", 'data-theme="dark"', dark),
        ("html", 'theme="dark"', dark),
        ("body", 'data-jp-theme-light="false"', dark),
    ):
        key, text = value.split("=")
        script = "([n, k, v]) => document.querySelector(n).setAttribute(k, v)"
        page.evaluate(script, [name, key, text.strip('"')])
        assert root.evaluate(colour) == want, value
        page.evaluate("([n, k]) => document.querySelector(n).removeAttribute(k)", [name, key])
    page, root = opened("masks", open_page, dark=True)
    for name, key, text in (
        ("html", "data-theme", "light"),
        ("body", "data-jp-theme-light", "true"),
    ):
        page.evaluate(
            "([n, k, v]) => document.querySelector(n).setAttribute(k, v)", [name, key, text]
        )
        assert root.evaluate(colour) == light, key
        page.evaluate("([n, k]) => document.querySelector(n).removeAttribute(k)", [name, key])


OVERFLOWING = """root => [...root.querySelectorAll(".spd-panel, .spd-row, .spd-controls")]
  .filter((n) => n.scrollWidth > n.clientWidth + 1).map((n) => n.textContent)"""
LEFTS = """root => [...root.querySelectorAll(".spd-panel")]
  .map((n) => Math.round(n.getBoundingClientRect().left))"""


@every_view
def test_nothing_overflows(view: str, open_page: OpenPage) -> None:
    page, root = opened(view, open_page)
    for width in (1280, 760, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert root.evaluate(OVERFLOWING) == [], width
    assert len(set(root.evaluate(LEFTS))) == 1, "panels stand side by side on a phone"


def test_columns_counts_what_is_used(open_page: OpenPage) -> None:
    page, root = opened("columns", open_page)
    text = root.locator(".spd-text")
    assert text.inner_text().startswith(
        "1 column of 5 used (W₀): 2 of the matrix's 10 entries, 20 %."
    )
    x = [0.75, 0, 0.5, 0, 0]
    root.get_by_label("x₂").fill("0.5")
    settle(page)
    assert text.inner_text().startswith("2 columns of 5 used (W₀, W₂): 4 of")
    want = pentagon().target(torch.tensor([x]))[0]
    shown = [row.split(" | ")[1] for row in root.locator(".spd-numbers").all_inner_texts()]
    assert shown == [f"{v:.2f}" for v in want.tolist()]
    got = root.evaluate("(root, x) => [...root.spdExplorer.forward({ x }).output]", x)
    torch.testing.assert_close(torch.tensor(got), want.detach(), atol=1e-5, rtol=0)


def test_cube_tells_the_cases_apart(open_page: OpenPage) -> None:
    page, root = opened("cube", open_page)
    tests = root.locator(".spd-test .spd-numbers")
    assert tests.all_inner_texts() == ["0.000"] * 3
    root.get_by_role("button", name="cancelling pair").click()
    settle(page)
    assert root.locator("strong").inner_text() == "The output stands still."
    numbers = [float(t) for t in tests.all_inner_texts()]
    U, V = (torch.as_tensor(cube_cases()[1]["layers"][0][k]) for k in "UV")  # type: ignore[index]
    x = torch.tensor([1.0, 0.0])
    corners = torch.tensor([(1.0, *c) for c in itertools.product((0.0, 1.0), repeat=3)])
    change = ((corners * (V @ x)) @ U.T - x).abs().max(1).values
    assert numbers[2] == pytest.approx(float(change.max()), abs=1e-3)
    assert 0.2 < numbers[1] < numbers[2]
    root.get_by_role("button", name="Worst case").click()
    settle(page)
    assert root.locator("strong").inner_text() == "The output breaks."
    assert "All masks are allowed" in root.locator(".spd-figures").inner_text()
    masks = [t.get_attribute("aria-valuetext") for t in root.locator("input[type=range]").all()]
    root.get_by_role("button", name="Random, as in training").click()
    settle(page)
    now = [t.get_attribute("aria-valuetext") for t in root.locator("input[type=range]").all()]
    assert now[0] == masks[0] == "1.00", "the important one stays on"
    assert now[1:] != masks[1:]


def test_cube_opens_the_map_on_the_pair_asked_for(open_page: OpenPage) -> None:
    """With masks that matter, the map is coloured; on the default pair it is not."""
    cases = cube_cases()
    cases[1]["pair"] = [2, 3]
    for pair, expected in (([0, 1], cube_cases()), ([2, 3], cases)):
        page = open_page(html=explorer.cube(expected)._repr_html_())
        root = page.locator(ROOT)
        root.get_by_role("button", name="cancelling pair").click()
        settle(page)
        shown = [select.input_value() for select in root.locator("select").all()]
        assert shown == [str(i) for i in pair]
        # one on, the other off: the corners of a cancelling pair, at the map's lower right
        right = root.locator(".spd-map rect").nth(20).evaluate("n => Number(n.style.opacity)")
        assert right == (1 if pair == [2, 3] else 0)


def test_cube_tells_more_than_five_pieces_apart(open_page: OpenPage) -> None:
    """Ten pieces: no two look the same, and neither by colour alone."""
    twice = torch.cat([torch.eye(6), torch.eye(6)])
    layer = {"name": "W", "W": torch.eye(6), "U": twice.T / 2, "V": twice}
    inputs = [{"label": "x0 on", "x": [1.0] + [0.0] * 5, "g": [[1.0] + [0.0] * 11]}]
    case = {"name": "halves", "why": "Everything twice.", "layers": [layer], "inputs": inputs}
    page = open_page(html=explorer.cube([case])._repr_html_())
    looks = page.locator(".spd-mask .spd-chip").evaluate_all(
        "all => all.map((n) => getComputedStyle(n).borderTopColor)"
    )
    assert len(set(looks)) == 12
    styles = page.locator(".spd-mask .spd-chip").evaluate_all(
        "all => all.map((n) => getComputedStyle(n).borderTopStyle)"
    )
    assert styles == ["solid"] * 5 + ["dashed"] * 5 + ["dotted"] * 2


EDGES = """map => {
  const left = map.getBoundingClientRect().left;
  return [...map.querySelectorAll("rect")].map((n) => n.getBoundingClientRect())
    .map((box) => [box.left - left, box.width, box.height]);
}"""


def test_cells_of_the_cubes_map_are_whole_pixels(open_page: OpenPage) -> None:
    """Neighbours share an edge that lies between pixels: no gap, no overlap."""
    page, root = opened("cube", open_page)
    for width in (1280, 760, 390):
        page.set_viewport_size({"width": width, "height": 900})
        boxes = root.locator(".spd-map").evaluate(EDGES)
        assert len(boxes) == 21 * 21
        size = round(boxes[0][1])
        assert size >= 5
        for k, (left, wide, high) in enumerate(boxes):
            assert wide == pytest.approx(size, abs=1e-3)
            assert high == pytest.approx(size, abs=1e-3)
            assert left == pytest.approx(1 + size * (k % 21), abs=1e-3)  # after the border


def test_scrubber_shows_each_step(open_page: OpenPage) -> None:
    page, root = opened("scrubber", open_page)
    assert root.locator(".spd-text").inner_text().startswith("Step 100: encoder has 5 live")
    length = "n => Math.hypot(n.getBBox().width, n.getBBox().height)"
    arrow = root.locator(".spd-piece").first
    full = arrow.evaluate(length)
    slider = root.get_by_label("step")
    slider.focus()
    page.keyboard.press("Home")
    settle(page)
    assert root.locator(".spd-text").inner_text().startswith("Step 0:")
    assert root.locator("dd").all_inner_texts() == ["0.820", "0.050"]
    assert arrow.evaluate(length) < 0.4 * full
    root.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "() => document.querySelector('.spd-text').textContent.startsWith('Step 100')"
    )
    assert root.get_by_role("button").inner_text() in ("Play", "Pause")


def test_gate_draws_the_packages_own_functions(open_page: OpenPage) -> None:
    page, root = opened("gate", open_page)
    assert root.locator("select").input_value() == "1", "starts at the one asked for"
    d = pentagon()
    for h in (-0.05, 0.0, 0.05, 0.1, 0.5):
        got = root.evaluate("(root, h) => root.spdExplorer.logit(1, h)", h)
        gates = type(d.gates["encoder"])(*(t[1] for t in d.gates["encoder"]))
        want = spd.importance.gate_logits(torch.tensor(h), gates)
        assert got == pytest.approx(float(want), abs=1e-5)
    root.get_by_label("h", exact=True).fill("0")
    settle(page)
    assert "Importance 0" in root.locator(".spd-text").inner_text()
    root.get_by_label("m", exact=True).fill("0.3")
    settle(page)
    assert root.locator("dd").last.inner_text() == "g + (1 − g)·r = 0.00 + 1.00 × 0.30 = 0.300"


def marks(root: Locator, layer: int, strip: int) -> list[str]:
    """Paths of one strip that have marks on them."""
    board = root.locator(".spd-panel").nth(layer).locator(".spd-plot").nth(strip)
    return [d for d in board.locator(".spd-marks path").evaluate_all(PATHS) if d]


PATHS = "all => all.map((n) => n.getAttribute('d'))"


def test_sizes_follows_its_slider(open_page: OpenPage) -> None:
    page, root = opened("sizes", open_page)
    text = root.locator(".spd-text")
    assert text.inner_text() == (
        "C = 9: encoder uses 5 of 9 subcomponents, decoder uses 5 of 9 subcomponents."
    )
    root.get_by_label("C", exact=True).fill("0")
    settle(page)
    assert text.inner_text().startswith("C = 6: encoder uses 5 of 6")
    assert root.locator("dd").all_inner_texts() == ["5 of 6", "0.000"] * 2
    assert root.locator(".spd-heat").first.locator("g").count() == 5
    cells = root.locator(".spd-heat").first.locator("g rect:not(.spd-catch)")
    assert cells.evaluate_all("all => all.map((n) => n.getAttribute('x'))") == list("01234")
    points = root.locator("circle").evaluate_all("all => all.map((n) => n.getAttribute('cx'))")
    root.get_by_label("C", exact=True).fill("2")
    settle(page)
    after = root.locator("circle").evaluate_all("all => all.map((n) => n.getAttribute('cx'))")
    assert all(float(b) > float(a) for a, b in zip(points, after, strict=True))


def test_sizes_without_a_live_subcomponent(open_page: OpenPage) -> None:
    """On inputs that switch nothing on there is nothing to draw, and that is said."""
    cases = [exact(torch.eye(5), C) for C in (6, 7)]
    page = open_page(html=explorer.sizes(cases, x=torch.zeros(3, 5))._repr_html_())
    assert page.get_by_text("no live subcomponent").count() == 2


def test_dial_shows_the_run_of_its_setting(open_page: OpenPage) -> None:
    page, root = opened("dial", open_page)
    text = root.locator(".spd-text")
    assert text.inner_text() == "k 1.0, one: 3 pieces in use. Said of it."
    arrows = root.locator(".spd-plane .spd-piece")
    assert arrows.count() == 3
    dashes = "all => all.map((n) => n.querySelector('path').getAttribute('stroke-dasharray'))"
    keys = root.locator(".spd-keyed .spd-key")
    assert keys.evaluate_all(dashes) == ["none"] * 3, "one key beside each row, its arrow's line"
    root.get_by_label("k", exact=True).fill("0")
    root.get_by_role("button", name="two").click()
    settle(page)
    assert text.inner_text().startswith("k 0.5, two: ")
    assert root.evaluate("root => root.spdExplorer.state") == {"at": 0, "run": 1}
    root.get_by_label("k", exact=True).fill("2")
    settle(page)
    assert text.inner_text().startswith("k 2.0, two: 0 pieces in use.")
    assert arrows.count() == 0
    assert page.get_by_text("no piece in use").count() == 1


def test_coverage_follows_its_slider_and_its_arm(open_page: OpenPage) -> None:
    page, root = opened("coverage", open_page)
    text, cells = root.locator(".spd-text"), root.locator("tbody td")
    assert text.inner_text() == (
        "plain, β₃ mid: of 6 mechanisms in 2 runs, 4 found, 2 skipped, 0 in between. Near-perfect "
        "(error at most 2.0 %): 2 of 2."
    )
    assert cells.all_inner_texts() == [*["1.00"] * 2, *["0.90"] * 2, *["×"] * 2, *["0.2 %"] * 2]
    assert root.locator("td.is-skipped").count() == 2
    assert root.locator("td.is-off").count() == 0
    chart = root.locator(".spd-plot path:not(.spd-axis)")
    before = chart.first.get_attribute("d")
    root.get_by_label("β₃", exact=True).fill("2")
    settle(page)
    assert "0 found, 6 skipped, 0 in between" in text.inner_text()
    assert cells.all_inner_texts()[-2:] == ["120 %"] * 2
    assert root.locator("td.is-off").count() == 2
    root.get_by_label("β₃", exact=True).fill("0")
    settle(page)
    assert "4 found, 0 skipped, 2 in between" in text.inner_text()
    root.get_by_role("button", name="a remedy").click()
    settle(page)
    assert text.inner_text().startswith("a remedy, β₃ low: of 6 mechanisms in 2 runs, 6 found, 0")
    assert text.inner_text().endswith("0 of 2.")
    assert chart.first.get_attribute("d") != before
    root.get_by_role("button", name="Reset").click()
    settle(page)
    assert text.inner_text().startswith("plain, β₃ mid")
    assert chart.first.get_attribute("d") == before
    assert root.evaluate("root => root.spdExplorer.state") == {"at": 1, "arm": 0}


def test_contributions_brushes_features_and_lights_a_neuron(open_page: OpenPage) -> None:
    page, root = opened("contributions", open_page)
    text = root.locator(".spd-text")
    assert text.inner_text().startswith("too low: r 0.")
    everything = marks(root, 0, 0)
    root.get_by_label("features", exact=True).fill("2")
    root.get_by_label("from", exact=True).fill("3")
    settle(page)
    state = root.evaluate("root => root.spdExplorer.state")
    assert (state["first"], state["count"]) == (3, 2)
    few, pieces = marks(root, 0, 0), marks(root, 0, 1)
    assert 0 < sum(d.count("M") for d in few) < sum(d.count("M") for d in everything)
    names = root.locator(".spd-plot").first.locator("g:last-child text").all_text_contents()
    assert names == ["y₃", "y₄"]
    root.get_by_label("neuron", exact=True).fill("2")
    settle(page)
    assert root.locator(".is-lit.spd-marks").count() == 2, "in the model and in the subcomponents"
    assert root.locator(".spd-hand").inner_text().startswith("Neuron 2 of layers.0.W_in adds most")
    root.get_by_role("button", name="right").click()
    settle(page)
    assert text.inner_text().startswith("right: r 1.000, slope 1.00")
    assert "W_in 12 of 14, layers.0.W_out 6 of 8" in text.inner_text()
    assert marks(root, 0, 0) == few, "the target is the same"
    assert marks(root, 0, 1) != pieces
    root.get_by_role("button", name="Reset").click()
    settle(page)
    assert root.locator(".is-lit").count() == 0
    assert marks(root, 0, 0) == everything


def test_contributions_shows_equal_strips_where_everything_is_recovered(
    open_page: OpenPage,
) -> None:
    """Exact subcomponents: the same marks below as above, in every layer; hand-checked places."""
    _, root = opened("contributions, three layers", open_page)
    data = root.evaluate("root => root.spdExplorer.data[0].map((l) => [[...l.model], [...l.best]])")
    for layer, (model, best) in enumerate(data):
        torch.testing.assert_close(torch.tensor(model), torch.tensor(best), atol=2e-3, rtol=0)
        seen = 0.03 * max(abs(v) for m, b in data for v in (*m, *b))
        for strip, values in enumerate((model, best)):
            count = sum(d.count("M") for d in marks(root, layer, strip))
            assert count == sum(abs(v) >= seen for v in values)


def test_dendrogram_cuts_where_the_reader_says(open_page: OpenPage) -> None:
    page, root = opened("dendrogram", open_page)
    text, height = root.locator(".spd-text"), root.get_by_label("height", exact=True)
    assert text.inner_text() == (
        "7 groups, by size: 1 of 4, 6 of 2. Of the 7 that ought to be found, 7 are, member for "
        "member."
    )
    fills = "all => all.map((n) => n.style.fill)"
    cells = root.locator(".spd-served rect")
    shown = cells.evaluate_all(fills)
    assert shown[:6] == shown[6:12], "one colour down a column"
    assert len(set(shown[12:])) == 1
    for value, start in (
        ("0.12", "15 groups, by size: 1 of 2, 14 of 1. Of the 7 that ought to be found, 1 are"),
        ("0.65", "8 groups, by size: 1 of 3, 6 of 2, 1 of 1."),
        ("1.25", "6 groups, by size: 2 of 4, 4 of 2."),
        ("1.68", "1 group, by size: 1 of 16."),
    ):
        height.fill(value)
        settle(page)
        assert text.inner_text().startswith(start)
    root.get_by_role("button", name="The criterion's own height").click()
    settle(page)
    assert text.inner_text().startswith("7 groups")
    groups = root.evaluate("root => root.spdExplorer.groups()")
    assert sorted(sorted(group) for group in groups) == [
        *([c, 6 + c] for c in range(6)),
        [*range(12, 16)],
    ]


def test_dendrogram_tells_who_is_in_a_group(open_page: OpenPage) -> None:
    page, root = opened("dendrogram", open_page)
    hand = root.locator(".spd-hand").last
    assert hand.inner_text().startswith("Point at a group")
    root.get_by_label("group", exact=True).fill("0")
    settle(page)
    assert hand.inner_text() == "Group 0, 4 members: out 0, 1, 2, 3. Serves every feature."
    root.locator(".spd-served rect").nth(3).hover()
    assert hand.inner_text() == "Group 4, 2 members: in.0 3; in.1 3. Serves x₃."
    lit = root.locator(".spd-served rect.is-lit")
    assert lit.evaluate_all("all => all.map((n) => n.getAttribute('x'))") == ["3", "3"]
    page.mouse.move(0, 0)
    assert hand.inner_text().startswith("Group 0"), "the chosen one stays lit"


def test_adversary_tells_how_many_masks_it_takes(open_page: OpenPage) -> None:
    """Exact pieces withstand any number; of a cancelling pair one mask is enough."""
    page, root = opened("adversary", open_page)
    text = root.locator(".spd-text")
    assert text.inner_text() == (
        "exact, x₀ on: allowed at most 6 of the 12 masks that are free, the adversary sets 0 and "
        "moves an output by 0.000. "
        "No number of masks found breaks the limit 0.1; 99 of 100 random draws stay below 0.000."
    )
    root.get_by_role("button", name="with a pair").click()
    root.get_by_label("at most", exact=True).fill("1")
    settle(page)
    # x₀ = 0.75: the pair adds ±0.75 · 0.4 to the hidden vector's first entry, with W₀ = (1, 0).
    assert "at most 1 of the 12 masks that are free, the adversary sets 1 and" in text.inner_text()
    assert "moves an output by 0.300. 1 mask is enough" in text.inner_text()
    slider = root.get_by_label("at most", exact=True)
    assert slider.get_attribute("max") == "12", "no position beyond the free masks"
    assert root.locator(".spd-numbers").first.inner_text() in ("0.45 | 0.75", "0.45 | 0.15")
    counts = [f"{k} of 7, 0 of them live on some feature" for k in (0, 1)]
    assert sorted(root.locator("dd").all_inner_texts()) == counts
    root.get_by_role("button", name="x₂").click()
    settle(page)
    assert text.inner_text().startswith("with a pair, x₂ on: ")
    root.get_by_role("button", name="Reset").click()
    settle(page)
    assert text.inner_text().startswith("exact, x₀ on: allowed at most 6 ")


KNEW, LOST = torch.tensor([6.0] + [0.0] * 11).softmax(0)[0].item(), 1 / 12


def say(root: Locator, name: str) -> str:
    """Press a button and read what is told."""
    root.get_by_role("button", name=name, exact=True).click()
    settle(root.page)
    return root.locator(".spd-text").inner_text()


def test_switchboard_tells_its_story_at_once(open_page: OpenPage) -> None:
    """Logits of 6 and eleven zeros; without the pieces, twelve zeros."""
    _, root = opened("switchboard", open_page)
    assert (round(KNEW, 3), round(LOST, 3)) == (0.973, 0.083)
    assert root.locator(".spd-text").inner_text() == (
        "2 pieces deleted (1 of W_in, 1 of W_out) to forget fact 0. The probability of its answer "
        "was 0.973 and is 0.083. Of the 11 other facts known before, 11 are still known; none "
        "loses 0.001."
    )
    cells = root.locator(".spd-cell-of").all_inner_texts()
    assert [text.split("\n")[0] for text in cells] == ["0 –", *map(str, range(1, 12))]
    assert root.locator(".spd-subjects > div").count() == 4
    assert root.locator(".spd-hurt:visible").count() == 0
    assert root.get_by_text("11 of 11 facts lose less than 0.001.").count() == 1
    d = memory()
    for row, name in zip(root.locator("dd").all_inner_texts(), d.names, strict=True):
        delta = edit.change(d, edit.scaling({name: [0]}, 0.0))[name]
        share = float(delta.norm() / d.weight[name].norm())
        assert row == f"1 of 14 pieces: rank 1, ‖ΔW‖ = {share:.3f} ‖W‖"


def test_switchboard_deletes_what_it_is_told(open_page: OpenPage) -> None:
    """Each button, and the same edit in Python: the code shown gives the probabilities shown."""
    page, root = opened("switchboard", open_page)
    d = memory()
    target = d.target
    assert isinstance(target, facts.Facts)

    def agree() -> list[float]:
        code = root.locator("code").inner_text()
        model = eval(code, {"edit": edit, "d": d})  # the page's own line
        want = facts.confidence(model, target).tolist()
        got: list[float] = root.evaluate("root => [...root.spdExplorer.asked().after.p]")
        assert got == pytest.approx(want, abs=1e-5)
        return got

    assert sum(p < 0.5 for p in agree()) == 1
    root.get_by_label("fact", exact=True).fill("4")
    settle(page)
    assert "to forget fact 0." in root.locator(".spd-text").inner_text(), "only chosen yet"
    assert "to forget facts 0, 4. The probability of their answers was 0.973 in the mean" in say(
        root, "Delete it too"
    )
    assert [f for f, p in enumerate(agree()) if p < 0.5] == [0, 4]
    assert say(root, "Delete this fact").startswith("2 pieces deleted")
    assert [f for f, p in enumerate(agree()) if p < 0.5] == [4]
    assert say(root, "Its whole subject").startswith("6 pieces deleted (3 of W_in, 3 of W_out)")
    assert [f for f, p in enumerate(agree()) if p < 0.5] == [3, 4, 5]
    assert "rank 3" in root.locator("dd").first.inner_text()
    assert say(root, "W_out").startswith("3 pieces deleted (3 of W_out)")
    assert root.locator("dd").first.inner_text() == "untouched"
    assert [f for f, p in enumerate(agree()) if p < 0.5] == [3, 4, 5]
    told = say(root, "As many at random")
    assert told.startswith("3 pieces deleted (3 of W_out). Of the 12 facts known before, 9 are")
    assert "hurt most: fact " in told and root.locator(".spd-hurt:visible").count() == 3
    assert root.locator(".spd-cell-of b", has_text="×").count() == 3
    agree()
    assert say(root, "Nothing deleted") == (
        "Nothing is deleted: the model as trained knows 12 of 12 facts."
    )
    assert agree() == pytest.approx([KNEW] * 12, abs=1e-5)
    assert "to forget fact 0. " in say(root, "Reset")
    assert agree()[0] == pytest.approx(LOST, abs=1e-5)


def test_switchboard_by_hand(open_page: OpenPage) -> None:
    """A piece clicked away and back, its factor, and what the code says of it."""
    page, root = opened("switchboard", open_page)
    say(root, "Nothing deleted")
    switch = root.get_by_role("group", name="pieces of W_out").get_by_role("button").nth(7)
    switch.click()
    settle(page)
    text, code = root.locator(".spd-text"), root.locator("code")
    assert code.inner_text() == 'edit.delete(d, {"paths.0.W_out": [7]})'
    assert switch.get_attribute("aria-pressed") == "true"
    assert "hurt most: fact 7, 0.973 → 0.083." in text.inner_text()
    for factor, logit in (("-0.5", -3.0), ("2", 12.0)):
        root.get_by_label("factor (0 deletes)").fill(factor)
        settle(page)
        assert code.inner_text() == f'edit.scale(d, {{"paths.0.W_out": [7]}}, {factor})'
        p = torch.tensor([logit] + [0.0] * 11).softmax(0)[0].item()
        got = root.evaluate("root => root.spdExplorer.asked().after.p[7]")
        assert got == pytest.approx(p, abs=1e-5)
    root.get_by_label("factor (0 deletes)").fill("1")
    settle(page)
    assert "multiplied by 1, which changes nothing" in text.inner_text()
    assert root.locator("dd").all_inner_texts() == ["untouched"] * 2
    switch.click()
    settle(page)
    assert text.inner_text().startswith("Nothing is deleted")


def test_switchboard_with_noise_says_so(open_page: OpenPage) -> None:
    page, root = opened("switchboard", open_page)
    root.get_by_label("noise of paraphrases").fill("0.5")
    settle(page)
    told = root.locator(".spd-text").inner_text()
    assert "in 8 paraphrases with noise 0.50 and is " in told
    target = memory().target
    assert isinstance(target, facts.Facts)
    x = target.keys + 0.5 * noises(24)[:, None]
    want = target(x).softmax(-1).mean(0).diagonal().tolist()
    before = root.evaluate("root => [...root.spdExplorer.asked().before.p]")
    assert before == pytest.approx(want, abs=1e-5)
    assert before != pytest.approx([KNEW] * 12, abs=0.01)
    assert f"was {want[0]:.3f} in 8" in told


def test_switchboard_where_a_second_pathway_remembers(open_page: OpenPage) -> None:
    """Deleted from one of two pathways a fact is still known, and that is marked."""
    _, root = opened("switchboard, two pathways", open_page)
    text = root.locator(".spd-text").inner_text()
    assert text.startswith("4 pieces deleted (1 of W_in of path 0, 1 of W_out of path 0, 1 of W_in")
    told = say(root, "pathway 0")
    assert "was 1.000 and is 0.973." in told
    cell = root.locator(".spd-cell-of").first
    assert cell.inner_text().split("\n")[0] == "0 !"
    assert "still known, though meant" in (cell.get_attribute("aria-label") or "")
    assert "is 0.083." in say(root, "every pathway")


def test_switchboard_points_from_facts_to_pieces_and_back(open_page: OpenPage) -> None:
    page, root = opened("switchboard", open_page)
    hands = root.locator(".spd-hand")
    root.locator(".spd-cell-of").nth(5).hover()
    assert hands.first.inner_text() == (
        "Fact 5 of subject 1: its answer, 5, had probability 0.973 and has 0.973."
    )
    assert hands.last.inner_text() == (
        "What matters on the key of fact 5: W_in: 5 (g 1.00); W_out: 5 (g 1.00)."
    )
    assert root.locator(".is-with").all_inner_texts() == ["5", "5"]
    root.locator(".spd-switch").nth(3).hover()
    assert hands.last.inner_text() == (
        "Piece 3 of W_in matters on the key of fact 3 (g 1.00, probability now 0.973). It is "
        "untouched."
    )
    assert [t.split("\n")[0] for t in root.locator(".is-with").all_inner_texts()] == ["3"]
    page.mouse.move(0, 0)
    cell = root.locator(".spd-cell-of").first
    cell.focus()
    for key, fact in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", 11)):
        page.keyboard.press(key)
        settle(page)
        assert root.evaluate("root => root.spdExplorer.state.fact") == fact
        assert root.locator(".spd-cell-of[tabindex='0']").inner_text().split("\n")[0] == str(fact)
    page.keyboard.press("ArrowRight")
    assert root.locator(".spd-cell-of:focus").count() == 1, "the last one stays"


def test_switchboards_beside_each_other(open_page: OpenPage) -> None:
    one, two = (VIEWS[v]()._repr_html_() for v in ("switchboard", "switchboard, two pathways"))
    page = open_page(html=one + two + one)
    roots = page.locator(ROOT)
    before = [roots.nth(i).inner_text() for i in range(3)]
    assert before[0] == before[2] != before[1]
    say(roots.nth(0), "Its whole subject")
    say(roots.nth(2), "Nothing deleted")
    now = [roots.nth(i).inner_text() for i in range(3)]
    assert now[1] == before[1]
    assert len({before[0], now[0], now[2]}) == 3


def test_a_switchboard_without_pieces_deletes_nothing(open_page: OpenPage) -> None:
    """No piece matters on any key: the board is shown, and that is said."""
    d = memory()
    for gates in d.gates.values():
        gates.b_out.fill_(-100.0)
    page = open_page(html=explorer.switchboard(d)._repr_html_())
    assert page.locator(".spd-text").inner_text() == (
        "Nothing is deleted: the model as trained knows 12 of 12 facts. No piece matters on the "
        "key of what was to be deleted."
    )
    assert page.locator(".spd-switch").count() == 0


def test_marks_on_a_phone_keep_their_size(open_page: OpenPage) -> None:
    """Strips are made for the width there is: text is not scaled down."""
    page = open_page(html=VIEWS["contributions"]()._repr_html_(), width=390)
    size = "n => n.getBoundingClientRect().width / n.viewBox.baseVal.width"
    assert page.locator(".spd-plot").first.evaluate(size) == pytest.approx(1, abs=0.05)
