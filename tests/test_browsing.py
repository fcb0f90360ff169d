"""The browser harness finds browsers, and its pages cannot misbehave unseen."""

from pathlib import Path

import pytest

import browsing
from browsing import OpenPage

pytest_plugins = ["pytester"]


def executable(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wished, other = executable(tmp_path, "mine"), executable(tmp_path, "chromium")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SPD_BROWSER", wished)
    assert browsing.find_browser() == wished
    monkeypatch.delenv("SPD_BROWSER")
    assert browsing.find_browser() == other


def test_names_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SPD_BROWSER", raising=False)
    monkeypatch.setattr(browsing, "playwright_browser", lambda: "theirs")
    assert browsing.find_browser() == "theirs"
    chrome = executable(tmp_path, "google-chrome")
    assert browsing.find_browser() == chrome


def test_a_wrong_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPD_BROWSER", "no-such-browser")
    with pytest.raises(FileNotFoundError, match="'no-such-browser', which is not an executable"):
        browsing.find_browser()


def test_no_browser_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browsing, "find_browser", lambda: None)
    monkeypatch.setattr("sys.argv", ["browsing.py"])
    assert browsing.main() == 1
    assert capsys.readouterr().err == browsing.MISSING + "\n"


def test_install_is_tried_once_then_searched_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([None, "/there/now"])
    tried = []
    monkeypatch.setattr(browsing, "find_browser", lambda: next(answers))
    monkeypatch.setattr(browsing, "install", lambda: tried.append(True))
    monkeypatch.setattr("sys.argv", ["browsing.py", "--install"])
    assert browsing.main() == 0
    assert tried == [True]
    assert capsys.readouterr().out == "browser: /there/now\n"


@pytest.mark.parametrize("root", [True, False], ids=["root", "sudo"])
def test_install_asks_apt_and_nobody_else(
    root: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt-get and sudo are stand-ins that write down how they were called."""
    log = tmp_path / "log"
    for name in ("apt-get", "sudo"):
        Path(executable(tmp_path, name)).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    browsing.install()
    prefix = "" if root else "sudo -n "
    called = [f"{prefix}apt-get update -q", f"{prefix}apt-get install -y -q chromium"]
    assert log.read_text().splitlines() == called


@pytest.mark.parametrize("there", [(), ("apt-get",)], ids=["no apt-get", "no sudo"])
def test_install_does_nothing_where_it_may_not(
    there: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in there:
        executable(tmp_path, name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("something was started"))
    browsing.install()


MISBEHAVING = {
    "console: oh": "<script>console.error('oh')</script>",
    "exception: undefined is not": "<script>throw new Error('undefined is not')</script>",
    "outside request: https://example.com/x.js": "<script src='https://example.com/x.js'></script>",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", MISBEHAVING)
def test_a_fault_fails_the_test(fault: str, pytester: pytest.Pytester) -> None:
    """The fixture itself, in a test run of its own: each kind of fault fails at the end."""
    here = Path(__file__).parent
    pytester.makeconftest((here / "conftest.py").read_text())
    pytester.makepyfile(f"def test_it(open_page): open_page(html={MISBEHAVING[fault]!r})")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", f"-opythonpath={here}")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*{fault}*"])


def test_a_good_page_opens(open_page: OpenPage) -> None:
    page = open_page(html="<!doctype html><title>t</title><p>hello</p>", dark=True, width=390)
    assert page.locator("p").inner_text() == "hello"
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert page.evaluate("innerWidth") == 390
