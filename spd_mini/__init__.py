"""Stochastic Parameter Decomposition (SPD) in a package small enough to read in an afternoon.

`decompose` splits the weights of a trained network into rank-one subcomponents and learns, for
every input, how important each one is (Bushnaq, Braun, Sharkey 2025, arXiv 2506.20790).

Deliberately not supported: convolutions and fused attention weights (only `nn.Linear` and
`nn.Embedding`), decomposed biases, modules called more than once in a forward pass, models whose
batch rows interact, mixed precision.
"""

from typing import Any

from . import cluster, edit, importance, losses, masks, prices, recovery
from .config import Config, Schedule
from .decompose import decompose, sweep
from .decomposition import Decomposition, load
from .diagnose import diagnose

__version__ = "0.1.0"
__all__ = [
    "Config",
    "Decomposition",
    "Schedule",
    "cluster",
    "decompose",
    "diagnose",
    "edit",
    "explore",
    "importance",
    "live",
    "load",
    "losses",
    "masks",
    "prices",
    "recovery",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """`explore` and `live` are loaded on first use: the core does not depend on them."""
    if name == "explore":
        from .explorer import explore

        return explore
    if name == "live":
        from .explorer.live import live

        return live
    raise AttributeError(f"module 'spd_mini' has no attribute '{name}'")
