"""What holds across files: one address, one version, small modules, honest chapters."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS: str = PROJECT["urls"]["Repository"]
MODULES = sorted((ROOT / "spd_mini").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if re.match(r"ch\d\d_", path.name)]

# The core knows none of what stands on it. (The package's front page, __init__, may.)
CORE = "components importance masks model losses config data run decompose decomposition"
CORE += " checkpoint storage moves prices"
ABOVE = {
    "plots",
    "explorer",
    "live",
    "exercises",
    "targets",
    "baselines",
    "cluster",
    "edit",
    "records",
    "__main__",
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def notebook_cells(path: Path) -> list[Any]:
    return list(nbformat.read(path, as_version=4).cells)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


# One address, one version, one list of dependencies


@pytest.mark.parametrize(
    "name", ["README.md", "_config.yml", "CITATION.cff", "book/bootstrap.py", "pyproject.toml"]
)
def test_every_mention_of_the_repository_is_the_same(name: str) -> None:
    owner, project = ADDRESS.removeprefix("https://github.com/").split("/")
    text = read(name)
    mentions = re.findall(r"github(?:\.com|/)/?([\w.-]+)/([\w.-]+?)(?=\.git\b|[^\w.-]|$)", text)
    assert mentions, f"{name} does not say where the project lives"
    assert set(mentions) == {(owner, project)}


def test_book_configuration_agrees_with_the_project() -> None:
    assert yaml.safe_load(read("_config.yml"))["repository"]["url"] == ADDRESS


def test_citation_agrees_with_the_project() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["repository-code"] == ADDRESS
    assert citation["version"] == PROJECT["version"]


def test_bootstrap_installs_this_version_and_what_colab_lacks() -> None:
    text = read("book/bootstrap.py")
    assert f'"git+{ADDRESS}@v{PROJECT["version"]}"' in text
    listed = re.search(r"for name in \(([^)]*)\)", text)
    assert listed
    lacking = set(re.findall(r'"(\w+)"', listed[1]))
    declared = {re.split(r"[<>=]", name)[0] for name in PROJECT["dependencies"]}
    assert lacking == declared - {"torch", "numpy"}


def test_torch_is_pinned_for_the_book_and_bounded_for_the_package() -> None:
    assert re.search(r"(?m)^torch==[\d.]+$", read("requirements.txt"))
    assert [name for name in PROJECT["dependencies"] if name.startswith("torch")] == ["torch>=2.4"]


def test_requirements_are_all_pinned() -> None:
    lines = [line for line in read("requirements.txt").splitlines() if line.strip()]
    for line in lines:
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_explorer_programs_travel_with_the_package() -> None:
    """Every file of the explorer that is not Python is declared as package data."""
    patterns = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]["package-data"]
    folder = ROOT / "spd_mini" / "explorer"
    others = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in {".py", ".pyc"}}
    declared = {p for glob in patterns["spd_mini.explorer"] for p in folder.glob(glob)}
    assert others
    assert others == declared


# Small modules, arrows one way


@pytest.mark.parametrize("name", names(MODULES))
def test_a_module_is_read_in_one_sitting(name: str) -> None:
    assert len(read(name).splitlines()) <= 300


def imported(name: str) -> set[str]:
    """Names of the package's own modules that a module imports, at any depth of nesting."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(read(name))):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("spd_mini." if node.level else "") + (node.module or "")
            paths = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {part for path in paths if "spd_mini" in path for part in path.split(".")[1:]}
    return found


@pytest.mark.parametrize("module", CORE.split())
def test_the_core_knows_nothing_above_it(module: str) -> None:
    assert not imported(f"spd_mini/{module}.py") & ABOVE


def test_plots_and_explorer_stand_on_the_core_only() -> None:
    for path in names([p for p in MODULES if p.parent.name == "explorer" or p.stem == "plots"]):
        assert not imported(path) & {"targets", "__main__", "baselines"}, path


def test_importing_the_package_imports_no_figures() -> None:
    """Matplotlib and ipywidgets are optional; `import spd_mini` must do without them."""
    code = "import sys, spd_mini; print({'matplotlib', 'ipywidgets', 'IPython'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


# Chapters


@pytest.mark.parametrize("name", names(NOTEBOOKS))
def test_notebook_is_committed_clean(name: str) -> None:
    notebook = nbformat.read(ROOT / name, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    assert all(cell.get("execution_count") is None for cell in notebook.cells)


@pytest.mark.parametrize("name", names(NOTEBOOKS))
def test_first_code_cell_is_the_bootstrap(name: str) -> None:
    first = next(cell for cell in notebook_cells(ROOT / name) if cell.cell_type == "code")
    assert first.source.strip() == read("book/bootstrap.py").strip()
    assert {"bootstrap", "hide-input"} <= set(first.metadata.get("tags", []))


def code_lines(source: str) -> int:
    """Lines that are neither empty nor only a comment."""
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") for line in source.split("\n")
    )


def words(source: str) -> int:
    """Words of prose: without code, mathematics, markup directives and addresses."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", " ", source, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|\{[\w:,-]+\}|https?://\S+|^:\w+:.*$", " ", text, flags=re.MULTILINE)
    return len(re.findall(r"[^\W\d_][\w’'-]*", text))


def test_counting() -> None:
    assert code_lines("a = 1\n\n# why\nb = 2  # so\n") == 2
    assert words("The $x^2$ of `code` is\n\n$$ a b $$\n\n[not](http://x.y) {cite:p}`k` twice.") == 5


@pytest.mark.parametrize("name", names(CHAPTERS))
def test_chapter_keeps_its_budget(name: str) -> None:
    cells = notebook_cells(ROOT / name)
    code = [cell for cell in cells if cell.cell_type == "code"]
    own = [code_lines(c.source) for c in code if "bootstrap" not in c.metadata.get("tags", [])]
    assert sum(own) <= 200
    assert max(own) <= 15, "at most 15 lines of code at a time"
    assert sum(words(c.source) for c in cells if c.cell_type == "markdown") <= 2500


def test_table_of_contents_lists_exactly_what_there_is() -> None:
    toc = yaml.safe_load(read("_toc.yml"))
    parts = toc.get("parts", [])
    listed = [entry["file"] for part in parts for entry in part["chapters"]]
    pages = [*NOTEBOOKS, *(ROOT / "book").glob("*.md")]
    there = {str(path.relative_to(ROOT).with_suffix("")) for path in pages}
    assert sorted([toc["root"], *listed]) == sorted(there)


def test_every_code_name_of_the_notation_table_exists() -> None:
    """The preface's table promises names; the package must have each of them."""
    rows = [line.split("|") for line in read("book/intro.md").splitlines() if line.startswith("|")]
    headings = next(row for row in rows if "code name" in [cell.strip() for cell in row])
    column = [cell.strip() for cell in headings].index("code name")
    promised = {
        name
        for row in rows[rows.index(headings) + 2 :]
        for name in re.findall(r"`([^`]+)`", row[column])
    }
    assert len(promised) >= 8
    known: set[str] = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for field in ("id", "attr", "arg", "name"):
                if isinstance(value := getattr(node, field, None), str):
                    known.add(value)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                known.add(node.value)  # a key, as those of the history
    for name in promised:
        assert set(name.split(".")) <= known, f"`{name}` is no name of the package"


# README


def test_commands_of_the_readme_are_commands_of_the_makefile() -> None:
    commands = set(re.findall(r"\bmake ([a-z]+)", read("README.md")))
    assert {"book", "test"} <= commands
    assert commands <= set(re.findall(r"(?m)^([a-z]+):", read("Makefile")))


@pytest.mark.slow
def test_the_readme_example_runs(tmp_path: Path) -> None:
    """The ten lines under "your own model", as they stand, in a fresh process."""
    section = re.split(r"(?im)^#+ .*your own model.*$", read("README.md"))[1]
    block = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert block
    assert code_lines(block[1]) <= 10
    script = tmp_path / "example.py"
    script.write_text(block[1], encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["README.md", "book/intro.md"])
def test_pictures_are_there_and_described(name: str) -> None:
    for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", read(name)):
        assert len(alt.split()) >= 3, f"{target}: {alt!r}"
        assert target.startswith("https://") or ((ROOT / name).parent / target).is_file()
    if name == "README.md":
        assert "![" in read(name), "the README shows the explorer"


# The machinery itself


def make(*arguments: str) -> Any:
    """Runs make with a bare environment; returns the finished process."""
    bare = {"PATH": os.environ["PATH"], "HOME": ""}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=bare, capture_output=True, text=True)


def test_setup_says_what_to_install_without_a_python(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "setup", tmp_path / ".ci")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname"):
        os.symlink(shutil.which(name) or name, tools / name)
    result = subprocess.run(
        [str(tools / "bash"), str(tmp_path / ".ci" / "setup")],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    wanted = "Python 3.11 or newer with venv is needed: apt-get install -y python3 python3-venv\n"
    assert result.stderr == wanted
    assert not (tmp_path / ".venv").exists()


def test_serve_says_what_to_build(tmp_path: Path) -> None:
    """With the environment in place and no site, one line and a failure."""
    result = make("serve", "-o", "setup", f"SITE={tmp_path}")
    assert result.returncode != 0
    assert "nothing to serve yet: run make book" in result.stderr


def test_stages_of_the_test_command_come_in_order() -> None:
    """What `make test` would run, every stage there and the one with the last word last."""
    lines = make("test", "-n", "-o", "setup").stdout.splitlines()
    stages = ["ruff check", "ruff format", "mypy", "nbstripout", "browsing.py --install"]
    stages += ["pytest", "build_book.py", "tests/colab tests/site"]
    found = [next(i for i, line in enumerate(lines) if stage in line) for stage in stages]
    assert found == sorted(found)
    assert found[-1] == len(lines) - 1
    assert "exec make test" in read(".ci/run")


@pytest.mark.slow
def test_a_missing_site_is_an_error_not_a_skip(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/site"],
        cwd=ROOT,
        env={**os.environ, "SPD_SITE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "make book, then set SPD_SITE" in result.stdout + result.stderr


def load(name: str) -> Any:
    """A Python file that is not part of the package, as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_book(folder: Path, code: str, prose: str = "# One page") -> Path:
    """A project with one notebook and the real configuration."""
    (folder / "book").mkdir(parents=True)
    for name in ("_config.yml", "book/references.bib"):
        (folder / name).write_text(read(name))
    os.symlink(ROOT / "book" / "_ext", folder / "book" / "_ext")
    os.symlink(ROOT / "book" / "_static", folder / "book" / "_static")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/one\n")
    cells = [nbformat.v4.new_markdown_cell(prose), nbformat.v4.new_code_cell(code)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, folder / "book" / "one.ipynb")
    return folder


def build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    builder = load(".ci/build_book.py")
    monkeypatch.setattr(builder, "ROOT", folder)
    monkeypatch.setattr(builder, "SCRATCH", folder / "build" / "book")
    site = folder / "site"
    monkeypatch.setattr(sys, "argv", ["build_book.py", "--jobs", "1", "--site", str(site)])
    builder.main()
    return site


@pytest.mark.slow
def test_a_good_book_builds_from_executed_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_book(tmp_path, "print('six times', 7, '=', 6 * 7)")
    site = build(folder, monkeypatch)
    assert "six times 7 = 42" in (site / "book" / "one.html").read_text()
    assert '"outputs": []' in (folder / "book" / "one.ipynb").read_text()


@pytest.mark.slow
def test_a_failing_cell_stops_the_build_and_shows_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_book(tmp_path, "unfounded = 1 / 0")
    (folder / "site").mkdir()
    with pytest.raises(SystemExit) as stopped:
        build(folder, monkeypatch)
    assert stopped.value.code == 1
    shown = capfd.readouterr().out
    assert "ZeroDivisionError" in shown
    assert "unfounded = 1 / 0" in shown
    assert not (folder / "site").exists()


def test_a_cell_left_out_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that reports success but skipped a cell (here: it ran nothing at all)."""
    builder = load(".ci/build_book.py")
    monkeypatch.setattr(builder, "run", lambda command: None)
    notebook = tiny_book(tmp_path, "1 + 1") / "book" / "one.ipynb"
    with pytest.raises(SystemExit, match=r"one\.ipynb: not every cell was executed"):
        builder.execute([notebook], jobs=1)


def test_mathjax_is_found_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = load("book/_ext/spd_book.py")
    assert all((extension.mathjax_folder() / part).exists() for part in extension.MATHJAX_PARTS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExtensionError, match="MathJax is missing: pip install"):
        extension.mathjax_folder()


@pytest.mark.slow
def test_a_warning_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_book(tmp_path, "1 + 1", prose="# One page\n\n[nowhere](missing.md)")
    with pytest.raises(SystemExit) as stopped:
        build(folder, monkeypatch)
    assert stopped.value.code not in (0, None)
    assert not (folder / "site").exists()
