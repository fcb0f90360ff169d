"""Atomic safetensors files with a JSON header (no pickle): decompositions and checkpoints."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

KEY = "spd_mini"


def write(path: str | Path, kind: str, tensors: Mapping[str, Tensor], meta: Any) -> None:
    """Write tensors and metadata to `path`, all or nothing (a crash leaves the old file)."""
    path = Path(path)
    header = {KEY: json.dumps({"kind": kind, "format": 1, **meta})}
    data = safetensors.torch.save(
        {k: t.detach().cpu().contiguous() for k, t in tensors.items()}, metadata=header
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write` wrote. Raises FileNotFoundError, or ValueError for any other file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a saved {kind}, or it was truncated: not a readable safetensors file"
        ) from error
    meta = json.loads(header.get(KEY, "{}"))
    if meta.get("kind") != kind:
        raise ValueError(f"{path} is a safetensors file but not a saved {kind} of spd_mini")
    if meta["format"] != 1:
        raise ValueError(f"{path} has format {meta['format']}; this spd_mini reads format 1")
    return tensors, meta
