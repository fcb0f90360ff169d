"""Every page of the built site, in a browser, as a reader meets it."""

import gzip
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from playwright.sync_api import Page

from browsing import OpenPage

PAYLOAD = 150 * 1024  # bytes of one explorer, compressed: data, module and style together

# What a contrast check needs: the colours as drawn, and the relative luminance of sRGB (WCAG 2).
CONTRAST = """() => {
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const numbers = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const text = document.querySelector(".bd-article p, .bd-article h1");
  const ink = luminance(numbers(getComputedStyle(text).color));
  const paper = luminance(numbers(getComputedStyle(document.body).backgroundColor));
  return [(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), paper];
}"""

# What stands out of the window sideways, named for the message; scrollers may hold wider things.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("body *")]
    .filter((node) => node.getBoundingClientRect().right > width + 1)
    .slice(0, 5)
    .map((node) => node.tagName + "." + String(node.className).slice(0, 60));
}"""

# How often each explorer of the page has redrawn itself.
REDRAWS = """() =>
  [...document.querySelectorAll(".spd-explorer")].map((root) => Number(root.dataset.redraws ?? 0))
"""

# The explorer's picture and words without its sliders' own read-outs.
PICTURE = """(root) => {
  const copy = root.cloneNode(true);
  copy.querySelectorAll("input, output, script, style").forEach((node) => node.remove());
  return copy.innerHTML;
}"""


def check_images(page: Page) -> None:
    """Every image is there and says in words what it shows; no file name or hash stands for it."""
    for image in page.locator("article img").all():
        alt = image.get_attribute("alt") or ""
        assert len(alt.split()) >= 3, f"alt text of {image.get_attribute('src')}: {alt!r}"
        assert not alt.startswith(("../", "_images", "/"))
        assert not re.search(r"\.(png|svg|jpe?g)$|[0-9a-f]{32}", alt), alt
        assert image.evaluate("(node) => node.decode().then(() => node.naturalWidth > 0)")


# Resolves when what a new width or scheme sets off has been drawn.
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.mark.parametrize(
    "looks",
    [
        [("light", 1280), ("light", 1100)],  # below 1200 the right margin is gone
        [("dark", 390), ("light", 390), ("dark", 1280)],
    ],
    ids=["wide", "phone"],
)
def test_page_shows_well(
    page_name: str, looks: list[tuple[str, int]], site_url: str, open_page: OpenPage
) -> None:
    """As it is loaded, and then as the reader turns the system's scheme or the window's width."""
    scheme, width = looks[0]
    page = open_page(site_url + page_name, dark=scheme == "dark", width=width)
    if page.locator(".math").count():
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise.then(() => true)")
        assert page.locator("mjx-container").count() > 0
        assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    check_images(page)
    for scheme, width in looks:
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(DRAWN)
        assert page.locator("h1:visible").count() == 1
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        ratio, paper = page.evaluate(CONTRAST)
        assert ratio >= 4.5
        assert (paper < 0.2) == (scheme == "dark")
        assert page.evaluate(OVERFLOW) == []
        assert page.locator("input[type=search]:visible").count() <= 1


def test_links_within_the_site_resolve(page_name: str, site: Path) -> None:
    text = (site / page_name).read_text(encoding="utf-8")
    for href in re.findall(r'<a\b[^>]*?\shref="([^"]*)"', text):
        target, fragment = urldefrag(urljoin(f"http://site/{page_name}", unescape(href)))
        parts = urlsplit(target)
        if parts.netloc != "site":
            continue
        file = site / unquote(parts.path).lstrip("/")
        assert file.is_file(), f"{href} leads nowhere"
        if fragment and file.suffix == ".html":
            names = re.findall(r'\b(?:id|name)="([^"]*)"', file.read_text(encoding="utf-8"))
            assert unquote(fragment) in names, f"{href}: no such place on that page"


def test_nothing_dead_on_the_page(page_name: str, site: Path) -> None:
    text = (site / page_name).read_text(encoding="utf-8")
    assert "application/vnd.jupyter.widget" not in text
    assert "THEBE_JS_URL" not in text
    assert "Traceback (most recent call last)" not in text
    warned = re.findall(r'<div class="output stderr[^"]*">(.*?)</div>', text, flags=re.DOTALL)
    assert not [said for said in warned if "Warning" in said]


def test_notebooks_and_only_they_open_in_colab(page_name: str, site: Path) -> None:
    links = re.findall(
        r'href="(https://colab[^"]*)"', (site / page_name).read_text(encoding="utf-8")
    )
    notebook = f"{page_name.removesuffix('.html')}.ipynb"
    assert bool(links) == (Path(__file__).parents[2] / notebook).exists()
    assert all(link.endswith(f"/blob/main/{notebook}") for link in links)


def test_every_explorer_moves(page_name: str, site_url: str, open_page: OpenPage) -> None:
    """Each slider, moved by key, redraws its explorer and no other; some change the picture."""
    page = open_page(site_url + page_name, reduced_motion=True)
    for mine, root in enumerate(page.locator(".spd-explorer").all()):
        root.evaluate("(node) => node.querySelectorAll('details').forEach((d) => (d.open = true))")
        sliders = root.locator("input[type=range]:enabled:visible").all()
        assert sliders, "an explorer without a slider"
        changed = False
        for slider in sliders:
            before = "" if changed else root.evaluate(PICTURE)
            counts: list[int] = page.evaluate(REDRAWS)
            value = slider.input_value()
            slider.focus()
            page.keyboard.press("ArrowRight")
            if slider.input_value() == value:
                page.keyboard.press("ArrowLeft")
            assert slider.input_value() != value, slider.get_attribute("aria-label")
            page.wait_for_function(
                f"([i, count]) => ({REDRAWS})()[i] > count", arg=[mine, counts[mine]]
            )
            counts_after: list[int] = page.evaluate(REDRAWS)
            assert counts_after[:mine] == counts[:mine]
            assert counts_after[mine + 1 :] == counts[mine + 1 :]
            changed = changed or root.evaluate(PICTURE) != before
        assert changed, "no slider changes what the explorer shows"


def test_explorers_are_light(page_name: str, site: Path, open_page: OpenPage) -> None:
    """The compressed size of what each explorer adds to the page, as written in the file."""
    text = (site / page_name).read_text(encoding="utf-8")
    page = open_page(html="<!doctype html><title>ruler</title>")
    outputs: list[str] = page.evaluate(
        """(text) => [...new DOMParser().parseFromString(text, "text/html")
          .querySelectorAll(".spd-explorer")]
          .map((root) => (root.closest(".output") ?? root.parentElement).outerHTML)""",
        text,
    )
    for output in outputs:
        assert "<script" in output, "the explorer's program is not in its own output"
        assert len(gzip.compress(output.encode())) <= PAYLOAD


def test_front_door_leads_to_the_book(site_url: str, open_page: OpenPage) -> None:
    page = open_page(site_url)
    page.wait_for_url(re.compile(r"/book/[a-z0-9_]+\.html$"))
    assert page.locator("h1:visible").count() == 1


def test_search_finds(site_url: str, open_page: OpenPage) -> None:
    page = open_page(site_url + "search.html?q=decomposition")
    page.wait_for_selector("#search-results li a")


def test_nothing_refers_to_another_host(site: Path) -> None:
    """Scripts, styles, fonts and images of every page come from the site itself."""
    loads = re.compile(
        r"<(?:script|img|iframe|source|audio|video)\b[^>]*?\bsrc=[\"'](https?:)?//"
        r"|<link\b[^>]*?\brel=[\"'](?:stylesheet|preload|icon)[\"'][^>]*?href=[\"'](https?:)?//"
    )
    for path in site.rglob("*.html"):
        assert not loads.search(path.read_text(encoding="utf-8")), path.name
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(url\([\"']?|@import [\"'])(https?:)?//", text), path.name
