"""From subcomponents to components: which rank-one pieces act together, found without labels.

What is seen: k subcomponents of all layers, N inputs, and one bit for each pair of them, whether
the importance g_c(x) exceeds a threshold. Rissanen's minimum description length chooses the
groups: the best partition is the one with which these N k bits are told most briefly. A group of
m is told like this, S(x) of its members being on at input x and n_s inputs having S(x) = s:

- how often each count occurs: one of the C(N + m, m) ways to divide N among the counts 0 … m;
- at which inputs it occurs: one of the N! / (n_0! … n_m!) arrangements;
- at each input, which s of the m members are on: one of C(m, s).

The logarithms (base 2) of these numbers add up to bits, to which every join adds log2 C(k, 2), to
say which two of k pieces are one: what a chance agreement among that many pairs must be dearer
than. Two pieces with equal columns are told for the price of one. Two that share nothing but their
rate cost what they cost apart. Two of unlike rate cost more, because members are treated as
interchangeable: so a piece that serves many features does not join any one of them. And a dense
block, whose basis is arbitrary and whose members are used in changing selections, is one group:
many are on, or none.

Groups are joined greedily, always the pair that saves most, until no join saves anything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from .decomposition import Decomposition

Leaf = tuple[str, int]
"""(module, index of the subcomponent)."""

THRESHOLD = 0.3
"""An importance above it counts as on. Importances are trained towards 0 and 1; far below the
middle, interference counts as acting, far above it, a piece's own weak inputs are lost."""

CUT = 1.0
"""The height below which joins shorten the description."""

MIN_INPUTS = 100
CHUNK = 4096


@dataclass(frozen=True)
class Components:
    """Groups of subcomponents, and the tree of joins they were cut from.

    groups: the components, largest first. labels: (k,) each leaf's group. leaves: the k
    subcomponents that are ever on. dead: those that never are. frequency: for each group the share
    of inputs with any member on. linkage: (k − 1, 4), as scipy's: two nodes, height, leaves.
    bits: (k,) description length after that many joins of the linkage. threshold: of importance.

    The height of a join is the share of the cheaper side's own bits that the join does not save: 0
    = told for nothing, 1 = nothing saved, above 1 = the description grows (never below the height
    of the two sides). It does not grow with the number of inputs.
    """

    groups: list[list[Leaf]]
    labels: np.ndarray
    leaves: list[Leaf]
    dead: list[Leaf]
    frequency: list[float]
    linkage: np.ndarray
    bits: np.ndarray
    threshold: float

    def groups_at(self, height: float) -> list[list[Leaf]]:
        """The groups of all joins below a height; `CUT` gives `groups`. Raises for nan."""
        if np.isnan(height):
            raise ValueError("the height of a cut must be a number, got nan")
        nodes = [[i] for i in range(len(self.leaves))]
        top = set(range(len(nodes)))
        for a, b, h, _ in self.linkage:
            nodes.append(sorted(nodes[int(a)] + nodes[int(b)]))
            if h < height:
                top = (top - {int(a), int(b)}) | {len(nodes) - 1}
        ordered = sorted((nodes[i] for i in top), key=lambda g: (-len(g), g))
        return [[self.leaves[c] for c in group] for group in ordered]


def components(d: Decomposition, x: Tensor, threshold: float = THRESHOLD) -> Components:
    """Group the subcomponents of a decomposition by how they act together on inputs x (B, ...).

    x: 4,000 to 20,000 inputs as the target meets them. Sparse ones, or every piece is on with
    every other; silent ones included, since being silent together is evidence too. Raises
    ValueError for fewer than 100 inputs (sequence positions count), a threshold outside (0, 1),
    or when nothing is on.
    """
    return sweep(d, x, [threshold])[threshold]


def sweep(d: Decomposition, x: Tensor, thresholds: Iterable[float]) -> dict[float, Components]:
    """`components` for each threshold of importance. Arguments and errors as there.

    Too low, and interference glues features to each other; too high, and blocks fall apart.
    """
    parts = [d.causal_importance(rows) for rows in x.split(CHUNK)] if len(x) else []
    g = {n: torch.cat([p[n].flatten(0, -2) for p in parts]) for n in d.names if parts}
    if (inputs := min(map(len, g.values()), default=0)) < MIN_INPUTS:
        raise ValueError(f"{inputs} inputs say too little; at least {MIN_INPUTS} are needed")
    return {t: from_importance(g, t) for t in thresholds}


def from_importance(g: Mapping[str, Tensor], threshold: float = THRESHOLD) -> Components:
    """`components` of importances {module: (..., C)} with equal leading shapes: the inputs.

    Raises ValueError for a threshold outside (0, 1), unlike numbers of inputs, or nothing on.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold of importance must be in (0, 1), got {threshold}")
    rows = {n: v.flatten(0, -2) for n, v in g.items()}
    if len({len(v) for v in rows.values()}) != 1:
        raise ValueError(f"unlike numbers of inputs: { {n: len(v) for n, v in rows.items()} }")
    on = torch.cat([v > threshold for v in rows.values()], 1).cpu().numpy()
    named = [(n, c) for n, v in rows.items() for c in range(v.shape[1])]
    live = on.any(0)
    if not live.any():
        raise ValueError(f"no importance exceeds {threshold} on these {len(on)} inputs")
    leaves, on = [leaf for leaf, a in zip(named, live, strict=True) if a], on[:, live]
    linkage, bits = agglomerate(on)
    found = Components(
        groups=[],
        labels=np.zeros(len(leaves), int),
        leaves=leaves,
        dead=[leaf for leaf, a in zip(named, live, strict=True) if not a],
        frequency=[],
        linkage=linkage,
        bits=bits,
        threshold=threshold,
    )
    position = {leaf: i for i, leaf in enumerate(leaves)}
    for group in found.groups_at(CUT):
        members = [position[leaf] for leaf in group]
        found.labels[members] = len(found.groups)
        found.groups.append(group)
        found.frequency.append(float(on[:, members].any(1).mean()))
    return found


def description_length(on: np.ndarray, labels: np.ndarray) -> float:
    """Bits that tell on (N, k) bool when its columns are grouped by labels (k,). See the module."""
    k = on.shape[1]
    total = 0.0
    for label in np.unique(labels):
        member = on[:, labels == label]
        m = member.shape[1]
        total += float(_bits(np.bincount(member.sum(1), minlength=m + 1)[None], np.array([m]))[0])
        always = int(member.all(0).sum())  # joined for nothing: no input tells them apart
        total += (m - 1 - max(always - 1, 0)) * float(_log2_choose(k, 2))
    return total


def agglomerate(on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greedy joins of the columns of on (N, k) bool: linkage (k − 1, 4), bits (k,) along it.

    Ties go to the earlier columns.
    """
    N, k = on.shape
    count = on.astype(np.int16)  # S(x) of each group, in the column of its first member
    size, node, height = np.ones(k, int), np.arange(k), np.zeros(k)
    apart, always = np.ones(k, bool), on.all(0)
    spread = np.zeros((k, k + 1), int)  # of each group: inputs with S(x) = 0 … k
    spread[:, 1] = on.sum(0)
    spread[:, 0] = N - spread[:, 1]
    cost = _bits(spread, size)
    start, price = float(cost.sum()), float(_log2_choose(k, 2))

    def saved(i: int) -> np.ndarray:
        """Bits saved by joining group i with each group: (k,)."""
        rows = np.flatnonzero(count[:, i])
        near, mine = count[rows], count[rows, i]
        near[:, i] = 0
        row, group = np.divmod(np.flatnonzero(near > 0), k)
        its, own = near[row, group], mine[row]
        width = min(k, int(size[i] + size.max())) + 1

        def inputs_with(s: np.ndarray) -> np.ndarray:
            return np.bincount(group * width + s, minlength=k * width).reshape(k, width)

        # The counts add up. Where one of the two is silent the sum is the other's count; the inputs
        # where neither is are moved from there to their sum.
        both = spread[i, :width] + spread[:, :width]
        both += inputs_with(its + own) - inputs_with(its) - inputs_with(own)
        both[:, 0] = N - both[:, 1:].sum(1)
        paid = np.where(always[i] & always, 0.0, price)
        return cost[i] + cost - _bits(both, size[i] + size) - paid

    gain = np.full((k, k), -np.inf)  # above the diagonal, of groups that are still apart
    for i in range(k - 1):
        gain[i, i + 1 :] = saved(i)[i + 1 :]
    joins: list[tuple[float, float, int, int, int]] = []
    for step in range(k - 1):
        i, j = (int(a) for a in np.unravel_index(gain.argmax(), gain.shape))
        net = float(gain[i, j])
        height[i] = max(0.0, height[i], height[j], 1 - net / min(cost[i], cost[j]))
        count[:, i] += count[:, j]
        size[i] += size[j]
        spread[i] = np.bincount(count[:, i], minlength=k + 1)
        cost[i] = _bits(spread[i : i + 1], size[i : i + 1])[0]
        always[i] |= always[j]
        joins.append((float(height[i]), net, int(node[i]), int(node[j]), int(size[i])))
        node[i] = k + step
        apart[j], count[:, j], size[j], spread[j] = False, 0, 0, 0
        gain[j, :] = gain[:, j] = -np.inf
        others = np.flatnonzero(apart & (np.arange(k) != i))
        gain[np.minimum(i, others), np.maximum(i, others)] = saved(i)[others]
    # Lowest first; a join never comes before those it builds on, whose heights are not above it.
    order = sorted(range(k - 1), key=lambda s: joins[s][0])
    renamed = {c: c for c in range(k)} | {k + s: k + r for r, s in enumerate(order)}
    rows = [(renamed[a], renamed[b], h, m) for h, _, a, b, m in (joins[s] for s in order)]
    linkage = np.array([(min(a, b), max(a, b), h, m) for a, b, h, m in rows]).reshape(-1, 4)
    return linkage, start - np.cumsum([0.0, *(joins[s][1] for s in order)])


def _bits(histogram: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Bits of groups of `size` (G,) members; histogram (G, ≥ m + 1): inputs with s members on."""
    s, m = np.arange(histogram.shape[1]), size[:, None]
    N = histogram[0].sum()
    which = np.where(s <= m, _log2_choose(m, np.minimum(s, m)), 0.0)
    where = _log2_factorial(N) - _log2_factorial(histogram).sum(1)
    how_often = _log2_choose(N + size, size)
    return how_often + where + (histogram * which).sum(1)


def _log2_factorial(n: np.ndarray | int) -> np.ndarray:
    return gammaln(np.asarray(n, float) + 1) / np.log(2)


def _log2_choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
    n, k = np.asarray(n), np.asarray(k)
    return _log2_factorial(n) - _log2_factorial(k) - _log2_factorial(n - k)
