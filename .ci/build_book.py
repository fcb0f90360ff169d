"""Runs every chapter once and builds the site from those executed copies.

The chapters in the repository carry no outputs. They are copied to a scratch folder, executed
there, and the site is built there with execution off and warnings as errors, always from a clean
state: an incremental build can hide a failure, and so can the execution cache.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = ROOT / "build" / "book"  # not under _build, where nbmake sees nothing
CELL_TIMEOUT = 1800  # seconds; the longest cell decomposes three layers, a quarter of that


def copy_sources() -> list[Path]:
    """Copies the book's sources into an empty scratch folder; returns the notebooks there."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    shutil.copytree(ROOT / "book", SCRATCH / "book", ignore=shutil.ignore_patterns(".*", "_build"))
    shutil.copy(ROOT / "_toc.yml", SCRATCH)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"]["execute_notebooks"] = "off"
    (SCRATCH / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True))
    # Chapter 8 takes about as long as all others together. Started first, it runs beside them; its
    # worker keeps one more for afterwards, the second: a short one.
    first = ("ch08", "ch01")
    return sorted(
        (SCRATCH / "book").glob("*.ipynb"),
        key=lambda path: (path.name[:4] not in first, path.name[:4] == "ch01", path.name),
    )


def environment() -> dict[str, str]:
    """The environment chapters run in: this Python's kernel, nobody's personal settings."""
    env = dict(os.environ)
    env.pop("MPLBACKEND", None)  # it would replace the notebook's inline figures
    env |= {
        "SPD_STATIC": "1",  # no kernel widgets: they would be dead in a page
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(SCRATCH / ".ipython"),
        "OMP_NUM_THREADS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    return env


def execute(notebooks: list[Path], jobs: int) -> None:
    """Runs the notebooks in place; a failing cell's traceback is shown and ends the build."""
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "-p", "no:cacheprovider"]
    command += [f"--nbmake-timeout={CELL_TIMEOUT}", "--dist=worksteal", f"-n{jobs}"]
    command += ["--durations=0", "--durations-min=0.5", *map(str, notebooks)]
    run(command)
    for path in notebooks:
        cells = nbformat.read(path, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
        if not all(cell.execution_count for cell in code):
            sys.exit(f"{path.name}: not every cell was executed")


def run(command: list[str]) -> None:
    """Runs a command in the scratch folder; a failure ends the build with its exit status."""
    result = subprocess.run(command, cwd=SCRATCH, env=environment(), stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        sys.exit(result.returncode)


def main() -> None:
    """Command line: --jobs notebooks at a time, --site where the finished pages go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="notebooks run at a time")
    parser.add_argument("--site", type=Path, default=ROOT / "build" / "site")
    arguments = parser.parse_args()
    site = arguments.site.resolve()
    shutil.rmtree(site, ignore_errors=True)  # a failed build leaves no old site behind

    started = time.perf_counter()
    notebooks = copy_sources()
    if notebooks:
        execute(notebooks, arguments.jobs)
    executed = time.perf_counter()
    jupyter_book = str(Path(sys.executable).with_name("jupyter-book"))
    run([jupyter_book, "build", ".", "--all", "-q", "-n", "-W", "--keep-going"])
    shutil.move(SCRATCH / "_build" / "html", site)
    print(
        f"chapters {executed - started:.0f} s, site {time.perf_counter() - executed:.0f} s: "
        f"{site / 'index.html'}"
    )


if __name__ == "__main__":
    main()
