"""Checkpoints of a run: written atomically, resumed to the same result."""

import json
from pathlib import Path
from typing import Any

import torch

from . import storage
from .decomposition import fingerprint
from .run import Run


def identity(run: Run) -> dict[str, Any]:
    """What a checkpoint must agree with to be resumed."""
    return {
        "config": json.loads(json.dumps(run.config.to_dict())),
        "seed": list(run.seeds),
        "target": fingerprint(run.target.module),
        "modules": run.target.names,
        "tied": run.target.tied,
    }


def save(run: Run, path: str | Path) -> None:
    """Write parameters, Adam's moments, generators and the losses so far."""
    tensors = dict(run.params)
    for name, param in run.params.items():
        tensors |= {f"adam/{k}/{name}": v for k, v in run.optimizer.state[param].items()}
    tensors["noise"], tensors["data"] = run.noise.get_state(), run.batches.state()
    if run.adversary:
        tensors["sources"] = run.adversary.r
    tensors["log"] = torch.from_numpy(run.log)
    counts = {
        "step": run.step,
        "drawn": run.batches.drawn,
        "moves": run.moves,
    }
    meta = {**counts, "chosen": run.chosen, **identity(run)}
    storage.write(path, "checkpoint", tensors, meta)


def restore(run: Run, path: str | Path) -> None:
    """Continue from a checkpoint. Raises ValueError when it belongs to another run."""
    tensors, meta = storage.read(path, "checkpoint")
    for key, value in identity(run).items():
        if meta[key] != value:
            raise ValueError(f"checkpoint {path} belongs to another run: its {key} differs")
    device = run.target.device
    params = {k: tensors[k].to(device) for k in run.params}
    adam = {
        name: {
            # the fused optimiser keeps its step count on the parameters' device, too
            k: tensors[f"adam/{k}/{name}"].to(device)
            for k in ("step", "exp_avg", "exp_avg_sq")
        }
        for name in params
    }
    run.set_parameters(params, adam)
    if run.adversary:
        run.adversary.take(tensors["sources"].to(device))
    run.noise.set_state(tensors["noise"])
    run.batches.skip(meta["drawn"], tensors["data"])
    run.log, run.step, run.warmed_up = tensors["log"].numpy(), meta["step"], True
    run.moves = meta["moves"]
    run.chosen = [(best, losses) for best, losses in meta["chosen"]] if meta["chosen"] else None
