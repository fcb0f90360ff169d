"""Maximise a function over a box, many rows at once: sign-gradient ascent, and climbs over corners.

It knows nothing of decompositions: `masks` gives it what an attack raises. Sources r are
{name: (S, ...)} in [0, 1]; each of the S rows has a problem of its own.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Sources = dict[str, Tensor]
Function = Callable[[Mapping[str, Tensor]], Tensor]

DRAWS = 16
"""Random corners from which outputs are driven, and which tell what outputs move most."""
ROUNDS = 20
"""Most rounds of a climb over all names; it ends earlier when nothing helps any more."""


class Search:
    """The worst sources found so far, row by row.

    error: sources → (S,), to be raised. outputs: sources → (S, K), what can be driven up or down on
    the way there. best: the worst sources so far, at first those given; best_error: (S,).
    """

    def __init__(self, error: Function, outputs: Function, first: Sources) -> None:
        self.error, self.outputs, self.best = error, outputs, first
        with torch.no_grad():
            self.best_error = error(first)

    def consider(self, r: Sources, error: Tensor) -> None:
        """Keep r in the rows where it is worse than everything before."""
        better = error > self.best_error
        self.best_error = torch.where(better, error, self.best_error)
        self.best = where(better, r, self.best)

    def draw(self, generator: torch.Generator) -> Sources:
        """Random sources, uniform in the box."""
        device = generator.device
        return {
            n: torch.rand(v.shape, generator=generator, device=device).to(v)
            for n, v in self.best.items()
        }

    def ascend(self, r: Sources, steps: int, step_size: float, shrink: float = 1.0) -> None:
        """Sign-gradient steps from r, clipped to the box, each `shrink` times the last one long."""
        for step in range(steps):
            error, slopes = _slopes(self.error, r, list(r))
            self.consider(r, error)
            size = step_size * shrink**step
            r = {n: (v + size * slopes[n].sign()).clamp(0, 1) for n, v in r.items()}
        with torch.no_grad():
            self.consider(r, self.error(r))

    @torch.no_grad()
    def climb(self, r: Sources, function: Function | None = None) -> Sources:
        """From corner to corner, one name at a time, as long as it raises `function` (the error).

        A source goes to 1 where the function rises with it, to 0 where it falls. Where the function
        is convex in the sources of a name, that never loses.
        """
        raised = function or self.error
        value = raised(r)
        for _ in range(ROUNDS):
            before = value
            for n in r:
                slope = _slopes(raised, r, [n])[1][n]
                trial = {**r, n: torch.where(slope == 0, r[n], (slope > 0).to(r[n]))}
                there = raised(trial)
                r = where(there > value, trial, r)
                value = torch.maximum(value, there)
            if bool((value <= before).all()):
                break
        self.consider(r, value if function is None else self.error(r))
        return r

    @torch.no_grad()
    def drive(self, count: int, seed: int) -> None:
        """Drive each of `count` outputs of a row up, and down, alone; from there climb the error.

        They are those that random corners move most. Each is driven on from the corner that moved
        it furthest that way: behind a ReLU it may not react at all elsewhere.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = [{n: r.round() for n, r in self.draw(generator).items()} for _ in range(DRAWS)]
        outs = torch.stack([self.outputs(r) for r in drawn])  # (DRAWS, S, K)
        every = torch.arange(outs.shape[1], device=outs.device)
        spread = outs.amax(0) - outs.amin(0)
        for index in spread.topk(min(count, outs.shape[2])).indices.T:  # (S,)
            for sign in (1, -1):
                best = (sign * outs[:, every, index]).argmax(0)  # which of the draws
                r = {n: torch.stack([one[n] for one in drawn])[best, every] for n in drawn[0]}
                self.climb(self.climb(r, self._output(index, sign)))

    def _output(self, index: Tensor, sign: int) -> Function:
        return lambda r: sign * self.outputs(r).gather(1, index[:, None])[:, 0]


def where(rows: Tensor, yes: Mapping[str, Tensor], no: Mapping[str, Tensor]) -> Sources:
    """Tensors of `yes` in some rows (S,) bool, of `no` in the others."""
    return {n: torch.where(rows.view(-1, *[1] * (v.dim() - 1)), yes[n], v) for n, v in no.items()}


def _slopes(function: Function, r: Sources, names: list[str]) -> tuple[Tensor, Sources]:
    """A function's values (S,) at r, and its gradient in the sources of some names."""
    free = {n: r[n].detach().requires_grad_() for n in names}
    with torch.enable_grad():
        value = function({**r, **free})
        grads = torch.autograd.grad(value.sum(), list(free.values()))
    return value.detach(), dict(zip(free, grads, strict=True))
