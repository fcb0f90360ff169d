"""Finds a browser on this machine; `python tests/browsing.py --install` sees to it there is one."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no browser found: apt-get install -y chromium (or set SPD_BROWSER to one's path)"

# Headless, and silent on the network: a browser of its own accord looks for updates at each start.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class OpenPage(Protocol):
    """Opens an address (URL or file) or a piece of HTML in a fresh browser context."""

    def __call__(
        self,
        address: str | Path | None = None,
        *,
        html: str | None = None,
        dark: bool = False,
        width: int = 1280,
        height: int = 900,
        reduced_motion: bool = False,
    ) -> Page: ...


def find_browser() -> str | None:
    """Path of a Chromium-like browser, or None.

    In order: the environment variable SPD_BROWSER, the names of NAMES on the search path, the one
    that playwright downloaded. A SPD_BROWSER that is not an executable raises FileNotFoundError:
    whoever sets it means that browser and no other.
    """
    wished = os.environ.get("SPD_BROWSER")
    if wished:
        found = shutil.which(wished)
        if found is None:
            raise FileNotFoundError(f"SPD_BROWSER is {wished!r}, which is not an executable")
        return found
    for name in NAMES:
        if found := shutil.which(name):
            return found
    return playwright_browser()


def playwright_browser() -> str | None:
    """Path of the Chromium that `playwright install chromium` downloaded, or None."""
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if path and Path(path).exists() else None


def install() -> None:
    """Installs Debian's chromium where that is possible without asking anybody.

    As root directly, else through a sudo that wants no password; where there is no apt-get it
    does nothing. apt-get's own messages are shown.
    """
    if shutil.which("apt-get") is None:
        return
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            return
        prefix = ["sudo", "-n"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-y", "-q", "chromium"]):
        result = subprocess.run(
            [*prefix, "apt-get", *command], env=environment, stdin=subprocess.DEVNULL
        )
        if result.returncode != 0:
            return


def main() -> int:
    """Prints the browser's path; exit status 1 and one line when there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="install one if none is found")
    arguments = parser.parse_args()
    try:
        found = find_browser()
        if found is None and arguments.install:
            install()
            found = find_browser()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    if found is None:
        print(MISSING, file=sys.stderr)
        return 1
    print(f"browser: {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
