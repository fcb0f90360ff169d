"""The mask board under a reader's hands: shake, pull, presets, keyboard, colours, two on a page."""

from typing import Any

import pytest
import torch
from explorer.making import (
    decomposition,
    exact,
    exact_residual,
    pentagon,
    residual,
    tms,
)
from playwright.sync_api import Locator, Page

import spd_mini as spd
from browsing import OpenPage
from spd_mini.explorer import residual as folding

pytestmark = pytest.mark.slow  # every view in a real browser

ROOT = ".spd-explorer"
HTML = spd.explore(pentagon())._repr_html_()
STATE = """root => {
  const { state, ideal } = root.spdExplorer;
  return { preset: state.preset, x: [...state.x], masks: state.masks.map((m) => [...m]),
           g: ideal().g.map((g) => [...g]) };
}"""


def state(root: Locator) -> Any:
    return root.evaluate(STATE)


def redraws(root: Locator) -> int:
    return int(root.get_attribute("data-redraws") or -1)


def settle(page: Page) -> None:
    """Until the browser has drawn a frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def pull(slider: Locator, value: float) -> None:
    slider.evaluate(
        "(node, v) => { node.value = v; node.dispatchEvent(new Event('input')); }", value
    )


def mask(root: Locator, layer: str, c: int) -> Locator:
    return root.get_by_label(f"mask of subcomponent {c} in {layer}", exact=True)


def test_opens_with_its_story(open_page: OpenPage) -> None:
    """Before anything is touched: random allowed masks, and an output that stands still."""
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    now = state(root)
    assert now["preset"] == "random"
    assert now["x"] == [0.75, 0, 0, 0, 0]
    for m, g in zip(now["masks"], now["g"], strict=True):
        assert g == [1, 0, 0, 0, 0, 0, 0]
        assert all(v >= floor for v, floor in zip(m, g, strict=True))
        assert len(set(m)) == 7
    assert root.locator("strong").inner_text() == "The output stands still."
    assert root.locator(".spd-mask").count() == 10
    note = root.locator(".spd-note").first.inner_text()
    assert note.startswith("g 1.00 · alone breaks below 0.8")
    assert root.locator(".spd-note").nth(1).inner_text() == "g 0.00 · alone cannot break it"


def test_shake_then_pull_breaks(open_page: OpenPage) -> None:
    """The contrast the explorer is built around."""
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    root.get_by_role("button", name="Shake").click()
    before, seen = redraws(root), state(root)
    page.wait_for_function(
        "n => +document.querySelector('.spd-explorer').dataset.redraws >= n", arg=before + 6
    )
    assert state(root)["masks"] != seen["masks"]
    assert root.locator("strong").inner_text() == "The output stands still."
    assert float(root.locator(".spd-out .spd-numbers").first.inner_text().split(" | ")[1]) == 0.45
    pull(mask(root, "encoder", 0), 0.2)
    held = redraws(root)
    page.wait_for_function(
        "n => +document.querySelector('.spd-explorer').dataset.redraws >= n", arg=held + 4
    )
    assert root.locator("strong").inner_text() == "The output breaks."
    assert state(root)["masks"][0][0] == 0.2, "a mask that was moved is shaken"
    assert "below its floor" in root.locator(".spd-figures").inner_text()
    root.get_by_role("button", name="Shake").click()
    settle(page)
    still = redraws(root)
    page.wait_for_timeout(400)
    assert redraws(root) == still, "shaking does not stop"
    root.get_by_role("button", name="Reset").click()
    settle(page)
    assert root.locator("strong").inner_text() == "The output stands still."


def test_presets(open_page: OpenPage) -> None:
    page = open_page(html=HTML)
    root = page.locator(ROOT)

    def press(name: str) -> Any:
        button = root.get_by_role("button", name=name, exact=True)
        button.click()
        settle(page)
        assert button.get_attribute("aria-pressed") in ("true", None)
        return state(root)

    assert press("All on")["masks"] == [[1] * 7] * 2
    now = press("Only the important")
    assert now["masks"] == now["g"]
    for name in ("Random, as in training", "Worst case"):
        now = press(name)
        assert all(
            floor <= m <= 1
            for ms, gs in zip(now["masks"], now["g"], strict=True)
            for m, floor in zip(ms, gs, strict=True)
        )
    again = press("Random, as in training")["masks"]
    assert press("Random, as in training")["masks"] != again


def test_try_to_break_it_says_what_it_found(open_page: OpenPage) -> None:
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    root.get_by_role("button", name="Try to break it").click()
    settle(page)
    assert (
        root.locator(".spd-message").inner_text().startswith("Cannot break it: the worst allowed")
    )
    broken = decomposition(tms(5, 2, False, 1), 6, 1, {})
    root = open_page(html=spd.explore(broken)._repr_html_()).locator(ROOT)
    root.get_by_role("button", name="Try to break it").click()
    root.page.wait_for_timeout(100)
    assert root.locator(".spd-message").inner_text().startswith("Broken within the rules")


def test_masks_follow_the_input(open_page: OpenPage) -> None:
    """With a preset on, importances move with the input, and the masks with them."""
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    root.get_by_role("button", name="Only the important").click()
    pull(root.get_by_label("input x₂"), 0.6)
    settle(page)
    now = state(root)
    assert now["g"][0][2] == 1
    assert now["masks"] == now["g"]
    root.get_by_label("only x₄ on").click()
    settle(page)
    now = state(root)
    assert now["x"] == [0, 0, 0, 0, 0.75]
    assert now["g"][0] == [0, 0, 0, 0, 1, 0, 0]


def test_unused_subcomponents_are_folded_but_movable(open_page: OpenPage) -> None:
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    assert mask(root, "encoder", 5).count() == 0
    summary = root.locator("summary").first
    assert summary.inner_text() == "2 unused subcomponents"
    summary.click()
    settle(page)
    slider = mask(root, "encoder", 5)
    pull(slider, 0.3)
    settle(page)
    assert state(root)["masks"][0][5] == 0.3


def test_pointing_at_a_subcomponent_lights_it_everywhere(open_page: OpenPage) -> None:
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    root.locator(".spd-mask").nth(2).hover()
    lit = root.locator(".is-lit")
    assert lit.count() == 4, "a row and an arrow in each of the two layers"
    assert {n.get_attribute("data-key") for n in lit.all()} == {"s2"}
    page.mouse.move(0, 0)
    assert root.locator(".is-lit").count() == 0
    mask(root, "decoder", 1).focus()
    assert root.locator(".is-lit").first.get_attribute("data-key") == "s1"


def test_arrows_scale_with_the_mask(open_page: OpenPage) -> None:
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    root.get_by_role("button", name="All on").click()
    settle(page)
    arrow = root.locator(".spd-piece").first
    length = "node => { const b = node.getBBox(); return Math.hypot(b.width, b.height); }"
    full = arrow.evaluate(length)
    pull(mask(root, "encoder", 0), 0.5)
    settle(page)
    assert arrow.evaluate(length) == pytest.approx(full / 2, rel=0.1)


def test_two_explorers_on_a_page_do_not_interfere(open_page: OpenPage) -> None:
    """Even two copies of the very same one."""
    other = spd.explore(decomposition(tms(4, 2, False, 2), 5, 2, {}))._repr_html_()
    page = open_page(html=HTML + HTML + other)
    roots = [page.locator(ROOT).nth(i) for i in range(3)]
    before = [(state(r), redraws(r)) for r in roots]
    pull(mask(roots[1], "encoder", 0), 0.1)
    settle(page)
    assert state(roots[1])["masks"][0][0] == 0.1
    for i in (0, 2):
        assert (state(roots[i]), redraws(roots[i])) == before[i]
    globals_ = "Object.keys(window).sort()"
    blank = open_page(html="<p>nothing</p>")
    assert page.evaluate(globals_) == blank.evaluate(globals_)


def test_keyboard_alone(open_page: OpenPage) -> None:
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Shake"
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    settle(page)
    assert state(root)["masks"] == [[1] * 7] * 2
    slider = mask(root, "encoder", 0)
    slider.focus()
    before = redraws(root)
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert redraws(root) == before + 1
    assert state(root)["masks"][0][0] == 0.99
    assert slider.get_attribute("aria-valuetext") == "0.99"
    page.keyboard.press("Home")
    settle(page)
    assert root.locator("strong").inner_text() == "The output breaks."


def test_reduced_motion_shakes_once_a_press(open_page: OpenPage) -> None:
    page = open_page(html=HTML, reduced_motion=True)
    root = page.locator(ROOT)
    before = redraws(root)
    root.get_by_role("button", name="Shake").click()
    page.wait_for_timeout(500)
    assert redraws(root) == before + 1
    assert root.get_by_role("button", name="Shake").get_attribute("aria-pressed") == "false"


def test_the_verdict_is_spoken_at_rest_and_silent_while_shaking(open_page: OpenPage) -> None:
    page = open_page(html=HTML)
    root = page.locator(ROOT)
    spoken = root.locator(".spd-spoken")
    assert spoken.get_attribute("aria-live") == "polite"
    page.wait_for_timeout(1300)
    assert spoken.text_content().startswith("The output stands still.")  # type: ignore[union-attr]
    root.get_by_role("button", name="Shake").click()
    page.wait_for_timeout(300)
    said = spoken.text_content()
    pull(mask(root, "encoder", 0), 0.0)
    page.wait_for_timeout(1300)
    assert spoken.text_content() == said


def test_the_description_is_of_what_is_shown(open_page: OpenPage) -> None:
    """The words for those who listen give the number that the page shows."""
    shown = spd.explore(decomposition(tms(5, 2, True, 0), 8, 0, {"decoder": "encoder"}))
    root = open_page(html=shown._repr_html_()).locator(ROOT)
    words = shown.description.rsplit(" ", 1)[1].rstrip(".")
    assert f"Largest change {words} " in root.locator(".spd-figures").inner_text()


def test_worst_masks_stay_allowed_when_the_input_moves(open_page: OpenPage) -> None:
    page = open_page(html=spd.explore(decomposition(tms(5, 2, False, 1), 6, 1, {}))._repr_html_())
    root = page.locator(ROOT)
    root.get_by_role("button", name="Worst case").click()
    settle(page)
    pull(root.get_by_label("input x₃"), 0.9)
    settle(page)
    now = state(root)
    pairs = [
        p for ms, gs in zip(now["masks"], now["g"], strict=True) for p in zip(ms, gs, strict=True)
    ]
    assert all(m in (g, 1) for m, g in pairs)
    assert "the input before" in root.locator(".spd-message").inner_text()


# Many subcomponents: the board

MANY = spd.explore(exact(torch.eye(40), 44))._repr_html_()


def hand(root: Locator, layer: int) -> str:
    return root.locator(".spd-panel > .spd-hand").nth(layer).inner_text()


def test_a_board_of_40_fits_on_a_screen(open_page: OpenPage) -> None:
    page = open_page(html=MANY, width=900, height=1000)
    root = page.locator(ROOT)
    assert root.locator(".spd-mask").count() == 80
    assert root.evaluate("n => n.getBoundingClientRect().height") < 1250
    for width, rows in ((900, 7), (390, 11)):
        page.set_viewport_size({"width": width, "height": 900})
        tops = root.locator(".spd-mask").evaluate_all(
            "all => all.slice(0, 40).map((n) => Math.round(n.getBoundingClientRect().top))"
        )
        assert len(set(tops)) <= rows, width


def test_features_are_switched_on_by_buttons(open_page: OpenPage) -> None:
    """A slider for each that is on; it stays while it is dragged through 0."""
    page = open_page(html=MANY)
    root = page.locator(ROOT)
    sliders = root.locator(".spd-in input:visible")
    assert sliders.count() == 1
    root.get_by_label("x₁₇ on").click()
    settle(page)
    assert state(root)["x"][17] == 0.75
    assert root.get_by_label("x₁₇ on").get_attribute("aria-pressed") == "true"
    assert sliders.count() == 2
    pull(root.get_by_label("input x₁₇"), 0.0)
    settle(page)
    assert sliders.count() == 2
    root.get_by_label("x₁₇ on").click()
    root.get_by_label("x₀ on").click()
    settle(page)
    assert sliders.count() == 0
    assert state(root)["x"] == [0] * 40
    assert hand(root, 0).endswith("important on this input: none")
    root.get_by_role("button", name="Draw an input").click()
    settle(page)
    drawn = state(root)["x"]
    assert sliders.count() == sum(v != 0 for v in drawn) > 0
    root.get_by_role("button", name="Reset").click()
    settle(page)
    assert sliders.count() == 1
    assert state(root)["x"][0] == 0.75


def test_one_line_tells_of_the_mask_under_the_hand(open_page: OpenPage) -> None:
    """Of both layers at once, as tied subcomponents are lit together; else it sums up."""
    page = open_page(html=MANY)
    root = page.locator(ROOT)
    assert hand(root, 0) == "40 live; important on this input: 0 (g 1.00)"
    mask(root, "encoder", 0).focus()
    assert hand(root, 0).startswith("0: m 1.00 · reads +0.75 · g 1.00 · alone breaks below 0.")
    assert hand(root, 1).startswith("0: m 1.00 · reads +0.75 · g 1.00 · alone breaks below 0.")
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert hand(root, 0).startswith("0: m 0.99 ·")
    mask(root, "decoder", 7).focus()
    assert hand(root, 1).startswith("7: m ")
    assert hand(root, 1).endswith("g 0.00 · alone cannot break it")
    page.keyboard.press("Home")
    settle(page)
    assert root.locator("strong").inner_text() == "The output stands still."


def test_outputs_of_a_board_are_told_in_numbers(open_page: OpenPage) -> None:
    page = open_page(html=MANY)
    root = page.locator(ROOT)
    assert root.locator(".spd-out").count() == 40
    now = "target | masked: y₀ 0.45 | 0.45; all others within ±0.0"
    assert root.locator(".is-outputs .spd-hand").inner_text().startswith(now)
    pull(mask(root, "encoder", 0), 0.0)
    settle(page)
    assert root.locator("strong").inner_text() == "The output breaks."
    assert root.locator(".spd-out.is-off").count() == 1
    now = "target | masked: y₀ 0.45 | 0.00; all others within ±0.0"
    assert root.locator(".is-outputs .spd-hand").inner_text().startswith(now)


RESIDUAL = spd.explore(exact_residual(1, features=16, C_in=20))._repr_html_()


def test_board_of_a_residual_mlp(open_page: OpenPage) -> None:
    """One W_in piece matters, several of W_out; shaking leaves the output alone; pulling breaks."""
    page = open_page(html=RESIDUAL)
    root = page.locator(ROOT)
    now = state(root)
    assert now["x"][0] == 0.75
    assert now["g"][0] == [1] + [0] * 19
    assert sum(now["g"][1]) >= 2
    assert root.locator("strong").inner_text() == "The output stands still."
    assert [h.inner_text() for h in root.locator(".spd-panel h4").all()] == [
        "input",
        "layers.0.W_in 6 × 30",
        "layers.0.W_out 30 × 6",
        "output",
    ]
    first = mask(root, "layers.0.W_in", 0)
    root.get_by_role("button", name="Try to break it").click()
    settle(page)
    assert root.locator(".spd-message").inner_text().startswith("Cannot break it")
    root.get_by_role("button", name="All on").click()
    pull(first, 0.0)
    settle(page)
    assert root.locator("strong").inner_text() == "The output breaks."
    assert "below its floor" in root.locator(".spd-figures").inner_text()


def test_a_mask_before_a_relu_is_searched_when_pointed_at(open_page: OpenPage) -> None:
    """What matters is searched at once; of the others nothing is said before."""
    page = open_page(html=RESIDUAL)
    root = page.locator(ROOT)
    quiet = mask(root, "layers.0.W_in", 5)
    assert "lone" not in (quiet.get_attribute("aria-description") or "")
    assert "Alone it breaks below" in (
        mask(root, "layers.0.W_in", 0).get_attribute("aria-description") or ""
    )
    quiet.focus()
    assert hand(root, 0).endswith("g 0.00 · alone cannot break it")
    assert "Alone it cannot break it" in (quiet.get_attribute("aria-description") or "")


def test_what_is_not_shown_is_counted(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "MOST", 0)
    d = exact_residual(2, features=16, C_in=20)
    root = open_page(html=spd.explore(d)._repr_html_()).locator(ROOT)
    notes = [n.inner_text() for n in root.get_by_text("Not shown").all()]
    assert notes == [
        f"Not shown: {n} subcomponents never important, and what UV leaves of W. They stay on."
        for n in (4, 2, 4, 2)
    ]
    root.get_by_role("button", name="All on").click()
    settle(root.page)
    assert "Largest change 0.000" in root.locator(".spd-figures").inner_text()


def test_chips_carry_the_packages_indices(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only some subcomponents travel."""
    monkeypatch.setattr(folding, "MOST", 0)
    shown = spd.explore(decomposition(residual(1, 7, 3), 9, 21, {}))
    root = open_page(html=shown._repr_html_()).locator(ROOT)
    for layer in shown.payload["layers"]:
        panel = root.get_by_label(f"layer {layer['name']}", exact=True)
        want = [str(layer["ids"][i]) for i in layer["live"]]
        assert panel.locator(".spd-chip").all_inner_texts() == want
        assert mask(root, layer["name"], layer["ids"][0]).count() == 1
