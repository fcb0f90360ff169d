"""The wrapped target: which weights are decomposed, and forward passes with masks in their place.

Any `nn.Module` that returns a tensor works, provided its first dimension is the batch and rows of
the batch do not talk to each other. Decomposed modules are `nn.Linear` or `nn.Embedding`, each
called once per forward pass. The target itself is never touched: a frozen copy in evaluation mode
is used.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from . import components
from .data import describe

Forward = Callable[[Tensor], Tensor]


class Target:
    """A frozen copy of a model, with the matched modules open to masking.

    names: the decomposed modules in the order given by `named_modules`.
    weight: {name: (d_out, d_in)} (an embedding counts as the matrix (d_model, vocabulary)).
    tied: {name: source}, whose weight is the transpose of the source's.
    Raises ValueError for patterns that match nothing and for ties that do not hold.
    """

    def __init__(
        self,
        module: nn.Module,
        patterns: Sequence[str] | None = None,
        tied: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(patterns, str):
            raise ValueError(f"modules must be a list of names or patterns: ['{patterns}']")
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        available = {
            n: m
            for n, m in self.module.named_modules()
            if isinstance(m, nn.Linear | nn.Embedding) and n
        }
        for pattern in patterns or []:
            if not any(fnmatchcase(n, pattern) for n in available):
                raise ValueError(
                    f"modules pattern '{pattern}' matches no nn.Linear or nn.Embedding of the "
                    f"target; it has {list(available)}"
                )
        self.sites = {
            n: m
            for n, m in available.items()
            if patterns is None or any(fnmatchcase(n, pattern) for pattern in patterns)
        }
        if not self.sites:
            raise ValueError(
                "modules is empty; None decomposes all of them"
                if available
                else "the target has no nn.Linear or nn.Embedding submodule to decompose"
            )
        self.tied = dict(tied or {})
        for name, source in self.tied.items():
            self._check_tie(name, source)

    def _check_tie(self, name: str, source: str) -> None:
        for n in (name, source):
            if n not in self.sites:
                raise ValueError(
                    f"tied names '{n}', which is not decomposed; decomposed are {list(self.sites)}"
                )
        if source in self.tied:
            raise ValueError(f"tied source '{source}' is itself tied; tie both to one source")
        a, b = self.weight[name], self.weight[source].mT
        if a.shape != b.shape or not torch.allclose(a, b):
            raise ValueError(f"the weight of '{name}' is not the transpose of that of '{source}'")

    @property
    def names(self) -> list[str]:
        return list(self.sites)

    @property
    def weight(self) -> dict[str, Tensor]:
        return {
            n: m.weight.mT if isinstance(m, nn.Embedding) else m.weight
            for n, m in self.sites.items()
        }

    @property
    def device(self) -> torch.device:
        return next(iter(self.sites.values())).weight.device

    def __call__(self, x: Tensor) -> Tensor:
        """The target's own output. Raises TypeError when it is not a tensor."""
        out = self.module(x)
        if not isinstance(out, Tensor):
            raise TypeError(
                f"the target must return a tensor, got {type(out).__name__}; wrap it in a module "
                "that returns the tensor to be preserved"
            )
        return out

    @contextmanager
    def _replaced(self, forwards: Mapping[str, Forward]) -> Iterator[None]:
        """Run with other `forward` methods (instance attributes shadow the class's)."""
        saved: dict[str, Forward | None] = {
            n: self.sites[n].__dict__.get("forward") for n in forwards
        }
        for n, forward in forwards.items():
            self.sites[n].__dict__["forward"] = forward
        try:
            yield
        finally:
            for n, previous in saved.items():
                if previous is None:
                    del self.sites[n].__dict__["forward"]
                else:
                    self.sites[n].__dict__["forward"] = previous

    @torch.no_grad()
    def record(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Output and the input a^l of each decomposed module: {name: (N, d_in)}, tokens (N,).

        Raises ValueError when a module is called more than once, or not at all.
        """
        acts: dict[str, Tensor] = {}
        self.lead: dict[str, tuple[int, ...]] = {}

        def recorder(name: str, forward: Forward) -> Forward:
            def run(a: Tensor) -> Tensor:
                if name in acts:
                    raise ValueError(
                        f"module '{name}' is called more than once in a forward pass; causal "
                        "importances need one call each. Exclude it, or unroll the model so that "
                        "every call has a module of its own"
                    )
                embedding = isinstance(self.sites[name], nn.Embedding)
                self.lead[name] = tuple(a.shape if embedding else a.shape[:-1])
                acts[name] = a.reshape(-1) if embedding else a.reshape(-1, a.shape[-1])
                return forward(a)

            return run

        with self._replaced({n: recorder(n, m.forward) for n, m in self.sites.items()}):
            out = self(x)
        if unused := [n for n in self.names if n not in acts]:
            raise ValueError(f"modules {unused} match but are not called in the forward pass")
        self.first = next(iter(acts))
        return out, {n: acts[n] for n in self.names}

    def check(self, x: Tensor) -> dict[str, int]:
        """Rows that each module reads for inputs x; raises ValueError where x does not fit."""
        try:
            out, acts = self.record(x)
            rows, twice = ({n: len(a) for n, a in acts.items()}, torch.cat([x, x]))
            rows_twice = {n: len(a) for n, a in self.record(twice)[1].items()}
        except RuntimeError as error:
            raise ValueError(f"the target fails on {describe(x)} from sample: {error}") from error
        if out.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"the target's output must be batch first; inputs of shape {tuple(x.shape)} gave "
                f"outputs of shape {tuple(out.shape)}"
            )
        if odd := [n for n in rows if rows_twice[n] != 2 * rows[n]]:
            raise ValueError(
                f"the inputs of modules {odd} do not have the batch as a dimension (positions?); "
                "leave them out of `modules`"
            )
        return rows

    def inner(self, acts: Mapping[str, Tensor], V: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inner activations h = V a of recorded inputs: {name: (R, C, N)}."""
        return {n: _inner(self.sites[n], a, V[n]) for n, a in acts.items()}

    def masked(
        self,
        x: Tensor,
        U: Mapping[str, Tensor],
        V: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None],
        known: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Forward pass with W replaced by U diag(m) V in the modules that `masks` names.

        x: (B, ...); U: {name: (R, d_out, C)}; V: {name: (R, C, d_in)}; masks: {name: (R, C, N) or
        None for all ones}. Modules that are not named keep W. Returns (R, B, ...).

        `known` may give m · h (R, C, N), inner activations with the mask applied, of modules whose
        input is the target's own; it saves computing them again.
        """
        R = len(next(iter(U.values())))

        def masked_forward(name: str) -> Forward:
            site, u, v, mask = self.sites[name], U[name], V[name], masks[name]

            def run(a: Tensor) -> Tensor:
                shape = a.shape if isinstance(site, nn.Embedding) else a.shape[:-1]
                if known is not None and name in known:
                    out = components.write(known[name], u)
                else:
                    # tokens are the same in every restart, activations are not
                    embedding = isinstance(site, nn.Embedding)
                    rows = a.reshape(R, -1)[0] if embedding else a.reshape(R, -1, a.shape[-1])
                    h = _inner(site, rows, v)
                    check_mask(name, mask, h)
                    out = components.write(h, u, mask)
                bias = getattr(site, "bias", None)
                out = out if bias is None else out + bias
                return out.reshape(*shape, out.shape[-1])

            return run

        rows = x if R == 1 else x.repeat(R, *[1] * (x.dim() - 1))
        with self._replaced({n: masked_forward(n) for n in masks}):
            out = self(rows)
        return out.reshape(R, len(x), *out.shape[1:])

    def passes(self, shortcuts: bool = True) -> "PassesOf":
        """What makes the passes of a training step: the target's own shortcut, or the plain ones.

        A target module may offer `shortcut(names)`: something that, called like `Passes` without
        its first argument, gives the same numbers faster, or None where it does not apply.
        """
        own = getattr(self.module, "shortcut", None) if shortcuts else None
        made: PassesOf | None = own(self.names) if own else None
        return made or functools.partial(Passes, self)


class Passes:
    """The forward passes of one training step on one batch x (B, ...), the readable form.

    target_out: (B, ...); h: {name: (R, C, N)}, inner activations on the target's own activations.
    """

    def __init__(
        self, target: Target, x: Tensor, U: Mapping[str, Tensor], V: Mapping[str, Tensor]
    ) -> None:
        self.target, self.x, self.U, self.V = target, x, U, V
        self.target_out, acts = target.record(x)
        self.h = target.inner(acts, V)

    def joint(self, m: Mapping[str, Tensor], mh: Mapping[str, Tensor]) -> Tensor:
        """Output with all modules masked: (R, B, ...). m, mh: masks, and masks times h."""
        first = self.target.first
        return self.target.masked(self.x, self.U, self.V, m, known={first: mh[first]})

    def alone(self, m: Mapping[str, Tensor], mh: Mapping[str, Tensor]) -> list[Tensor]:
        """Outputs with one module masked at a time and W in the others: (R, B, ...) each."""
        target = self.target
        return [target.masked(self.x, self.U, self.V, {n: m[n]}, known=mh) for n in target.names]


PassesOf = Callable[[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], Any]


def check_mask(name: str, mask: Tensor | None, h: Tensor) -> None:
    """Raises ValueError when a mask (R, C, N) does not fit inner activations (R, C, N)."""
    if mask is not None and mask.shape[1:] != h.shape[1:]:
        raise ValueError(
            f"the masks of '{name}' are for {mask.shape[-1]} rows of {mask.shape[-2]} "
            f"subcomponents; expected {h.shape[-1]} rows of {h.shape[-2]}, one for each vector the "
            "module reads"
        )


def _inner(site: nn.Module, a: Tensor, V: Tensor) -> Tensor:
    if isinstance(site, nn.Embedding):
        return components.inner_embedding(a, V)
    return components.inner(a, V)
