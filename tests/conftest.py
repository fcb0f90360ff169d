"""Shared by all tests: hypothesis' profile, a browser, and pages that may not misbehave."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, sync_playwright

from browsing import ARGUMENTS, MISSING, OpenPage, find_browser

# Tests run side by side, one thread each; read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples at every run and no deadline: machines are shared, failures must repeat.
hypothesis.settings.register_profile("spd", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("spd")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless browser a worker; no browser is a failure, never a skip."""
    path = find_browser()
    if path is None:
        pytest.fail(MISSING, pytrace=False)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield running
        running.close()


def is_outside(url: str) -> bool:
    """Whether a request for this address would leave the machine."""
    parts = urlsplit(url)
    network = parts.scheme in {"http", "https", "ws", "wss", "ftp"}
    return network and parts.hostname not in {"localhost", "127.0.0.1"}


def watch(page: Page, faults: list[str]) -> None:
    """Records a page's faults; an outside request is refused before it leaves the machine."""

    def refuse(route: Route, request: Request) -> None:
        faults.append(f"outside request: {request.url}")
        route.abort()

    page.route(is_outside, refuse)
    page.on("pageerror", lambda error: faults.append(f"exception: {error}"))
    page.on(
        "console",
        lambda said: faults.append(f"console: {said.text}") if said.type == "error" else None,
    )
    page.on(
        "response",
        lambda got: faults.append(f"status {got.status}: {got.url}") if got.status >= 400 else None,
    )


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens pages and fails the test, at its end, on anything that a reader's console would show.

    Faults: a console error, an uncaught exception, a request to another host, an answer of 400
    or above.
    """
    faults: list[str] = []
    contexts: list[BrowserContext] = []

    def open_(
        address: str | Path | None = None,
        *,
        html: str | None = None,
        dark: bool = False,
        width: int = 1280,
        height: int = 900,
        reduced_motion: bool = False,
    ) -> Page:
        if (address is None) == (html is None):
            raise ValueError("open_page takes either an address or html")
        if html is not None:
            address = tmp_path / f"page-{len(contexts)}.html"
            address.write_text(html, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce" if reduced_motion else "no-preference",
        )
        contexts.append(context)
        page = context.new_page()
        watch(page, faults)
        page.goto(address.resolve().as_uri() if isinstance(address, Path) else str(address))
        return page

    yield open_
    for context in contexts:
        context.close()
    if faults:
        pytest.fail("the page misbehaved:\n" + "\n".join(dict.fromkeys(faults)), pytrace=False)
