"""`Decomposition`: the result of a run, callable with masks, saved and loaded without pickle."""

import copy
import hashlib
import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from . import storage
from .config import Config
from .importance import Gates, gate_logits, hard_sigmoid
from .losses import DIVERGENCES
from .model import Target

Masks = Mapping[str, Tensor]
TOYS = "spd_mini.targets."


class Decomposition:
    """Rank-one subcomponents of a target's weights, and the importance of each on every input.

    names: decomposed modules. U[name]: (d_out, C) write directions. V[name]: (C, d_in) read
    directions. gates[name]: importance MLPs. weight[name]: (d_out, d_in), the target's own.
    target: the frozen copy of the target model. config, history: settings and loss curves.
    info: facts about the run (seed, restarts and their losses, finished, seconds, device, threads).
    """

    def __init__(
        self,
        wrapped: Target,
        U: Masks,
        V: Masks,
        gates: Mapping[str, Gates],
        config: Config,
        history: dict[str, list[float]] | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.wrapped = wrapped
        self.U, self.V, self.gates = dict(U), dict(V), dict(gates)
        self.config = config
        self.history = history or {}
        self.info = info or {}
        for n in wrapped.names:
            d_out, d_in = wrapped.weight[n].shape
            C = self.U[n].shape[-1]
            want = {"U": (d_out, C), "V": (C, d_in)}
            got = {"U": tuple(self.U[n].shape), "V": tuple(self.V[n].shape)}
            if want != got:
                raise ValueError(f"module '{n}': expected shapes {want}, got {got}")

    @property
    def names(self) -> list[str]:
        return self.wrapped.names

    @property
    def target(self) -> nn.Module:
        return self.wrapped.module

    @property
    def weight(self) -> dict[str, Tensor]:
        return self.wrapped.weight

    @property
    def C(self) -> dict[str, int]:
        return {n: u.shape[-1] for n, u in self.U.items()}

    @property
    def finished(self) -> bool:
        """False when the run was interrupted."""
        return bool(self.info.get("finished", True))

    def inner(self, x: Tensor) -> dict[str, Tensor]:
        """Inner activations h_c = V_c · a on the target's activations: {name: (..., C)}.

        x: (B, ...) inputs. The leading dimensions are those of the module's own input.
        """
        x = self._input(x)
        _, acts = self.wrapped.record(x)
        h = self.wrapped.inner(acts, {n: v[None] for n, v in self.V.items()})
        return {n: v[0].mT.reshape(*self._lead(x, n), self.C[n]) for n, v in h.items()}

    def gate_logits(self, x: Tensor) -> dict[str, Tensor]:
        """γ_c(h_c), before the hard sigmoid: {name: (..., C)}."""
        return {n: gate_logits(h, self.gates[n]) for n, h in self.inner(x).items()}

    def causal_importance(self, x: Tensor) -> dict[str, Tensor]:
        """Causal importances g in [0, 1], the floors of the masks: {name: (..., C)}."""
        return {n: hard_sigmoid(v) for n, v in self.gate_logits(x).items()}

    def __call__(self, x: Tensor, masks: Masks | None = None) -> Tensor:
        """Output with every decomposed W replaced by U diag(m) V.

        x: (B, ...); masks: {name: (..., C)}; a missing name, or None, means all ones. Raises
        ValueError for masks of unknown modules or of the wrong shape.
        """
        x = self._input(x)
        flat: dict[str, Tensor | None] = dict.fromkeys(self.names)
        for n, m in (masks or {}).items():
            if n not in flat:
                raise ValueError(f"mask for unknown module '{n}'; decomposed are {self.names}")
            if m.shape[-1] != self.C[n] or m.dim() < 2 or m.shape[0] != len(x):
                raise ValueError(
                    f"mask of '{n}' has shape {tuple(m.shape)}; expected "
                    f"({len(x)}, ..., {self.C[n]}): one value per row and subcomponent"
                )
            flat[n] = m.to(self.U[n]).reshape(1, -1, m.shape[-1]).mT
        U = {n: u[None] for n, u in self.U.items()}
        V = {n: v[None] for n, v in self.V.items()}
        return self.wrapped.masked(x, U, V, flat)[0]

    def divergence(self, out: Tensor, target_out: Tensor) -> Tensor:
        """The run's output divergence per row: (B, ...), (B, ...) → (B,)."""
        return DIVERGENCES[self.config.output_loss](out[None], target_out[None])[0]

    @property
    def device(self) -> torch.device:
        return self.wrapped.device

    def to(self, device: str | torch.device) -> Self:
        """Move this decomposition to a device, in place. Raises ValueError when it is not there."""
        device = resolve_device(device)
        self.wrapped = copy.deepcopy(self.wrapped)  # snapshots of one run share it
        self.wrapped.module.to(device)
        self.U = {n: t.to(device) for n, t in self.U.items()}
        self.V = {n: t.to(device) for n, t in self.V.items()}
        self.gates = {n: Gates(*(t.to(device) for t in g)) for n, g in self.gates.items()}
        return self

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (atomically). Toy targets of spd_mini travel along."""
        tensors: dict[str, Tensor] = {}
        for n in self.names:
            if n not in self.wrapped.tied:  # a tied module's U, V are its source's, transposed
                tensors |= {f"U/{n}": self.U[n], f"V/{n}": self.V[n]}
            tensors |= {f"gate/{n}/{k}": t for k, t in self.gates[n]._asdict().items()}
        cls = type(self.target)
        toy = None
        if cls.__module__.startswith(TOYS):
            facts = [self.target.init_kwargs, self.target.training_info]
            toy = [cls.__module__, cls.__name__, *facts]
            tensors |= {f"target/{k}": t for k, t in self.target.state_dict().items()}
        storage.write(
            path,
            "decomposition",
            tensors,
            {
                "modules": self.names,
                "tied": self.wrapped.tied,
                "target_sha256": fingerprint(self.target),
                "config": self.config.to_dict(),
                "history": self.history,
                "info": self.info,
                "target": toy,
            },
        )

    def _input(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"inputs must be a tensor, got {type(x).__name__}")
        return x.to(self.device)

    def _lead(self, x: Tensor, name: str) -> tuple[int, ...]:
        """Leading shape of a module's input, batch first even if the model flattens positions."""
        lead = self.wrapped.lead[name]
        return lead if lead[0] == len(x) else (len(x), math.prod(lead) // len(x))


def load(path: str | Path, target: nn.Module | None = None) -> Decomposition:
    """Load a saved decomposition. `target` is needed unless it is a toy target of spd_mini.

    Raises FileNotFoundError; ValueError when the file is something else or truncated, when the
    target is missing, or when its weights are not the ones that were decomposed.
    """
    tensors, meta = storage.read(path, "decomposition")
    if target is None:
        if meta["target"] is None:
            raise ValueError(f"{path} holds no target model; pass it: load(path, target=model)")
        module, name, kwargs, training_info = meta["target"]
        if not module.startswith(TOYS):
            raise ValueError(f"{path} names a target class outside {TOYS}*: {module}.{name}")
        with torch.random.fork_rng(devices=[]):  # building a module draws from the global seed
            target = getattr(importlib.import_module(module), name)(**kwargs)
        assert isinstance(target, nn.Module)
        target.training_info = training_info
        prefix = "target/"
        target.load_state_dict(
            {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        )
    wrapped = Target(target, meta["modules"], meta["tied"])
    if fingerprint(wrapped.module) != meta["target_sha256"]:
        raise ValueError(f"the target's weights are not those of the model that {path} decomposes")
    U = {n: tensors[f"U/{n}"] for n in wrapped.names if n not in wrapped.tied}
    V = {n: tensors[f"V/{n}"] for n in U}
    for n, source in wrapped.tied.items():
        U[n], V[n] = V[source].mT, U[source].mT
    gates = {n: Gates(*(tensors[f"gate/{n}/{k}"] for k in Gates._fields)) for n in wrapped.names}
    config = Config.from_dict(meta["config"])
    d = Decomposition(wrapped, U, V, gates, config, meta["history"], meta["info"])
    return d.to(wrapped.device)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers, names and bytes."""
    digest = hashlib.sha256()
    for name, t in module.state_dict().items():
        digest.update(f"{name}{tuple(t.shape)}{t.dtype}".encode())
        digest.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def resolve_device(device: str | torch.device) -> torch.device:
    """ "auto" = CUDA where there is one, else CPU. Raises ValueError for a device not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError) as error:
        there = "cpu and cuda" if torch.cuda.is_available() else "cpu"
        raise ValueError(f"device '{device}' is not there; this machine has {there}") from error
    return resolved
