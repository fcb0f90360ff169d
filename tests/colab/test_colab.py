"""Chapter 3 in an environment like Colab's: the bootstrap cell installs, and touches nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = ROOT / "book" / "ch03_spd_from_scratch.ipynb"
KEPT = ("torch", "numpy", "matplotlib", "ipywidgets")
# What an ipywidgets 7 panel and a kernel need; the notebook server that its own dependencies
# would bring along is Colab's business.
WIDGETS = ("ipywidgets==7.7.1", "ipython_genutils==0.2.0")


def pinned(name: str) -> str:
    """The requirement of that name as requirements.txt has it."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = re.search(rf"(?m)^{name}==\S+$", lines)
    assert found, f"{name} is not pinned"
    return found[0]


def run(command: list[str], environment: Mapping[str, str], folder: Path) -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def source_alone(target: Path) -> Path:
    """Copies what the package is built from, so that a build leaves nothing in the checkout."""
    shutil.copytree(
        ROOT / "spd_mini", target / "spd_mini", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    return target


def test_chapter_3_runs_where_only_colab_packages_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SPD_"))}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    here = tmp_path / "content"
    here.mkdir()
    run([sys.executable, "-m", "venv", str(tmp_path / "venv")], environment, here)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q"]
    run([*install, *map(pinned, ("torch", "numpy", "matplotlib", "ipykernel"))], environment, here)
    run([*install, "--no-deps", *WIDGETS], environment, here)

    def versions() -> dict[str, str]:
        listed = json.loads(run([python, "-m", "pip", "list", "--format=json"], environment, here))
        return {package["name"]: package["version"] for package in listed}

    before = versions()
    assert "spd-mini" not in before
    assert set(KEPT) <= set(before)

    kernel = tmp_path / "share" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    start = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    described = {"argv": start, "display_name": "Colab", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(described))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    environment["SPD_MINI_SOURCE"] = str(source_alone(tmp_path / "source"))

    notebook = nbformat.read(CHAPTER, as_version=4)
    proof = "import spd_mini; print(spd_mini.__file__)"
    notebook.cells.append(nbformat.v4.new_code_cell(proof))
    client = NotebookClient(
        notebook, timeout=900, kernel_name="colab", resources={"metadata": {"path": str(here)}}
    )
    client.execute(env=environment)

    assert str(tmp_path / "venv") in notebook.cells[-1].outputs[0].text
    after = versions()
    assert set(after) - set(before) == {"spd-mini", "scipy", "safetensors"}
    assert {name: after[name] for name in before} == before
