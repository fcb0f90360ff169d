"""What the pieces of one matrix do on inputs: live, dead, double, shared; without ground truth."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import losses, moves
from .decomposition import Decomposition
from .lines import LEAST, lines
from .recovery import relative_faithfulness

ON = moves.ON
"""A subcomponent is on where its importance exceeds this, and live if it is on anywhere."""
SURE = 0.9
"""An importance that never reaches this leaves the mask a say even where the piece is needed."""
DUPLICATE, SAME_INPUTS = 0.1, 0.5
"""Two pieces are one if a single rank-one piece misses at most this share of the smaller one, and
this share of the inputs with either on has both on. Measured: at most 0.07 in pairs of which the
truth has one, at least 0.25 in dense mechanisms, whose pieces act together too."""
COMPANY = 0.2
"""A piece that is on together with some other piece of its matrix more often than this belongs to
a larger mechanism, whose pieces serve many inputs each; it is not called shared."""
BESIDE = 0.2
"""Of two lines of inputs, the least that a shared piece reads of each beyond the other, relative to
what it reads of the stronger one. A line on which two inputs are on together has a part of both."""
MOST_ROWS = 4096
"""Rows compared with each other in the search for duplicates and shared pieces."""


@dataclass(frozen=True)
class Matrix:
    """What was seen of one decomposed matrix. Subcomponents are named by their index.

    C: subcomponents. rank: the most that one input could need. faithfulness: ‖W − UV‖/‖W‖.
    live: those important on some input. at_once: mean number that are, on an input. unsure: live
    ones whose importance never reaches 0.9. duplicates: pairs of live ones that one rank-one piece
    could replace. shared: live ones that serve two unrelated lines of inputs.
    """

    C: int
    rank: int
    faithfulness: float
    live: list[int]
    at_once: float
    unsure: list[int]
    duplicates: list[tuple[int, int]]
    shared: list[int]

    @property
    def dead(self) -> int:
        return self.C - len(self.live)


def look(
    d: Decomposition, name: str, a: Tensor, h: Tensor, g: Tensor, weight: Tensor | None
) -> Matrix:
    """What there is to see of one matrix. a: (N, d_in) or tokens (N,); h, g: (..., C)."""
    W, U, V = d.weight[name], d.U[name], d.V[name]
    h, g = h.flatten(0, -2), g.flatten(0, -2)
    on = g > ON
    live = on.any(0).nonzero()[:, 0].tolist()
    some = torch.linspace(0, len(g) - 1, min(len(g), MOST_ROWS), device=g.device).long()
    shared = []
    if a.dim() == 2 and name not in d.wrapped.tied:  # a tied matrix is judged at its source
        shared = shared_pieces(a[some], V, on[some], live)
    return Matrix(
        C=d.C[name],
        rank=min(W.shape),
        faithfulness=relative_faithfulness(W, U, V),
        live=live,
        at_once=float(losses.batch_mean(on.to(g).sum(1), weight)),
        unsure=[c for c in live if on[:, c].sum() >= LEAST and g[:, c].max() < SURE],
        duplicates=duplicate_pairs((h * g)[some], U, on[some], live),
        shared=shared,
    )


def duplicate_pairs(act: Tensor, U: Tensor, on: Tensor, live: list[int]) -> list[tuple[int, int]]:
    """Pairs of live subcomponents that one rank-one piece could replace.

    act: (N, C), m · h with m = g; U: (d_out, C); on: (N, C). Two pieces write A Bᵀ, A = their write
    directions, B = their activations on the inputs. Of its two singular values (those of a 2 × 2
    problem) one rank-one piece keeps the first; the second, squared, is what it misses. That is
    nothing if they read alike on these inputs, or write alike, and all of the smaller piece if they
    do neither.
    """
    if len(live) < 2:
        return []
    U, act, both = U[:, live].double(), act[:, live].double(), on[:, live].double()
    norms = U.norm(dim=0) * act.norm(dim=0)
    s = F.normalize(U, dim=0)
    r = F.normalize(act, dim=0)
    s, r = s.mT @ s, r.mT @ r
    power = norms.square()
    trace = power[:, None] + power + 2 * norms[:, None] * norms * r * s
    det = power[:, None] * power * ((1 - r.square()) * (1 - s.square())).clamp(min=0)
    missed = (trace - (trace.square() - 4 * det).clamp(min=0).sqrt()) / 2
    missed = missed / torch.minimum(power[:, None], power).clamp(min=1e-300)
    together, alone = both.mT @ both, both.sum(0)
    overlap = together / (alone[:, None] + alone - together).clamp(min=1)
    pairs = (missed <= DUPLICATE) & (overlap >= SAME_INPUTS)
    return [(live[i], live[j]) for i, j in pairs.triu(1).nonzero().tolist()]


def shared_pieces(a: Tensor, V: Tensor, on: Tensor, live: list[int]) -> list[int]:
    """Live subcomponents that serve two lines of inputs, as `lines.lines` finds them.

    a: (N, d_in); on: (N, C). Those that are on often, or often in company, belong to a dense
    mechanism and are passed over.
    """
    count = on.sum(0)
    together = on.to(a).mT @ on.to(a)
    company = (together - together.diag().diag()).amax(1) / count.clamp(min=1)
    rare = (count >= 2 * LEAST) & (count < moves.RARE * len(on)) & (company < COMPANY)
    return [c for c in live if rare[c] and _two_lines(a[on[:, c]], V[c])]


def _two_lines(a: Tensor, v: Tensor) -> bool:
    """Whether a read direction v (k,) serves two lines of the inputs a (N, k), each by itself."""
    found = lines(a, v)
    if found is None:
        return False
    pair = torch.stack(found)
    across = pair - (pair[0] @ pair[1]) * pair.flip(0)  # each without its part along the other
    beyond = (F.normalize(across, dim=1) @ v).abs()
    return bool(beyond.min() >= BESIDE * (pair @ v).abs().max())
