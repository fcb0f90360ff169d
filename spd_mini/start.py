"""Where a run starts: random parameters of one seed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from . import components, importance
from .config import Config
from .data import stream
from .model import Target


def initial(target: Target, C: Mapping[str, int], config: Config, seed: int) -> dict[str, Tensor]:
    """Random parameters of one seed, by name, restarts leading."""
    generator = torch.Generator().manual_seed(stream(seed, 0))
    params: dict[str, Tensor] = {}
    for n, W in target.weight.items():
        if n not in target.tied:
            U, V = components.init_components(W, C[n], config.restarts, generator)
            params |= {f"U/{n}": U, f"V/{n}": V}
    gates = importance.init_gates(sum(C.values()), config.gate_hidden, config.restarts, generator)
    dtype = next(iter(target.weight.values())).dtype
    return params | {f"gate/{k}": w.to(target.device, dtype) for k, w in gates._asdict().items()}
