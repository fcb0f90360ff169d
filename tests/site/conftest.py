"""The built site, served on this machine."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


def site_folder() -> Path:
    """The folder that the variable SPD_SITE names; without a site these tests cannot start."""
    folder = Path(os.environ.get("SPD_SITE", "")).resolve()
    if not os.environ.get("SPD_SITE") or not (folder / "index.html").exists():
        raise pytest.UsageError("these tests look at a built site: make book, then set SPD_SITE")
    return folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each page; the redirect at the root and the search form have their own."""
    if "page_name" in metafunc.fixturenames:
        folder = site_folder()
        names = sorted(str(path.relative_to(folder)) for path in (folder / "book").rglob("*.html"))
        metafunc.parametrize("page_name", names)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line on the terminal for each."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Path:
    """The site's folder."""
    return site_folder()


@pytest.fixture(scope="session")
def site_url(site: Path) -> Iterator[str]:
    """The site's address while the tests run, ending in a slash."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
