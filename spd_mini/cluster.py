"""From subcomponents to components: which rank-one pieces act together, found without labels.

What is seen: N inputs, k subcomponents of all layers, and whether the importance g_c(x) of each on
each input exceeds a threshold. Which groups? Those with which these N k bits are told most briefly
(minimum description length; Rissanen 1978). That piece c is on at n_c inputs is told first, at the
same price for every grouping, and left out below. A group is on wherever any of its m members is,
since SPD needs a mechanism wherever it needs a piece of it. Of every group is then told

- at how many inputs n it is on, one of min(N, K) − max n_c + 1 possible numbers, K = Σ n_c;
- at which: one of C(N, n) choices;
- which of its m n pieces of these inputs are on: one of C(m n, K) choices;

and of every join which two of k pieces are one, out of C(k, 2), so that one lucky pair among so
many is not believed. Bits are the logarithms to base 2, added up. A piece alone costs log2 C(N, n).
Pieces that are on at the same inputs tell these once for all of them. Independent ones are dearer
together: the group is on more often, with half of its members. In the block of a dense matrix each
piece is used by many features, in changing selections; its members are equally often on and
together far less often silent than each alone, so they are told as one group. A piece that is on
whenever some feature is, and elsewhere too, does not join that feature.

Groups are joined greedily, always the pair that saves most or loses least, until one is left. Of
all groupings that cut this tree somewhere, the one of the shortest description is chosen.
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
"""The height up to which joins shorten the description."""

MIN_INPUTS = 100
CHUNK = 4096


@dataclass(frozen=True)
class Components:
    """Groups of subcomponents, and the tree of joins they were cut from.

    groups: the components, largest first. labels: (k,) each leaf's group. leaves: the k
    subcomponents that are ever on. dead: those that never are. frequency: for each group the share
    of inputs with any member on. linkage: (k − 1, 4), as scipy's: two nodes, height, leaves.
    bits: (k,) description length after that many joins of the linkage. threshold: of importance.

    The height of a join is what it leaves of the bits of its cheaper side (told as briefly as the
    tree allows): 0 = that side is told for nothing, 1 = nothing saved, above 1 = a loss. A join
    within a larger one that stands lower is as low as that. Heights hardly depend on N.
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
        """The groups of all joins up to a height; `CUT` gives `groups`. Raises for nan."""
        if np.isnan(height):
            raise ValueError("the height of a cut must be a number, got nan")
        nodes = [[i] for i in range(len(self.leaves))]
        top = set(range(len(nodes)))
        for a, b, h, _ in self.linkage:
            nodes.append(sorted(nodes[int(a)] + nodes[int(b)]))
            if h <= height:
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
    live = np.flatnonzero(on.any(0))
    if not len(live):
        raise ValueError(f"no importance exceeds {threshold} on these {len(on)} inputs")
    leaves, on = [named[c] for c in live], on[:, live]
    linkage, bits = agglomerate(on)
    found = Components(
        groups=[],
        labels=np.zeros(len(leaves), int),
        leaves=leaves,
        dead=[leaf for leaf in named if leaf not in set(leaves)],
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
    groups = [on[:, labels == label] for label in np.unique(labels)]
    ones = np.array([g.sum(0).max() for g in groups])
    told = _told(
        on.shape,
        np.array([g.any(1).sum() for g in groups]),
        np.array([g.sum() for g in groups]),
        ones,
        np.array([g.shape[1] for g in groups]),
        np.array([g.all(0).sum() for g in groups]),
    )
    return float(told.sum())


def agglomerate(on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greedy joins of the columns of on (N, k) bool: linkage (k − 1, 4), bits (k,) along it.

    Ties go to the earlier columns.
    """
    N, k = on.shape
    active = on.astype(np.float32)  # of each group, in the column of its first member
    n = on.sum(0)
    total, most, m, always = n.copy(), n.copy(), np.ones(k, int), (n == N).astype(int)
    cost = _told(on.shape, n, total, most, m, always)

    def saved(i: int, both: np.ndarray) -> np.ndarray:
        """Bits saved by joining group i with each group, on together at `both` (k,) inputs."""
        together = _told(
            on.shape,
            n[i] + n - both.astype(int),
            total[i] + total,
            np.maximum(most[i], most),
            m[i] + m,
            always[i] + always,
        )
        return cost[i] + cost - together

    gain = np.full((k, k), -np.inf)  # above the diagonal, of groups that are still apart
    for i, both in enumerate(active.T @ active):
        gain[i, i + 1 :] = saved(i, both)[i + 1 :]
    told, node, apart = list(cost), np.arange(k), np.ones(k, bool)
    joins: list[tuple[int, int]] = []
    for step in range(k - 1):
        i, j = (int(a) for a in np.unravel_index(gain.argmax(), gain.shape))
        joins.append((int(node[i]), int(node[j])))
        cost[i] += cost[j] - gain[i, j]
        told.append(float(cost[i]))
        for fact in (total, m, always):
            fact[i] += fact[j]
        most[i] = max(most[i], most[j])
        active[:, i] = np.maximum(active[:, i], active[:, j])
        n[i] = active[:, i].sum()
        node[i], apart[j] = k + step, False
        gain[j, :] = gain[:, j] = -np.inf
        others = np.flatnonzero(apart & (np.arange(k) != i))
        gain[np.minimum(i, others), np.maximum(i, others)] = saved(i, active[:, i] @ active)[others]
    return _linkage(joins, np.array(told))


def _linkage(joins: list[tuple[int, int]], told: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights of a tree (see `Components`), its joins in their order, and the bits along them.

    joins: the two nodes of each, leaves being 0 … k − 1. told: (2 k − 1,) bits of every node.
    """
    k = len(joins) + 1
    best, size, height = told.copy(), np.ones(2 * k - 1, int), np.zeros(2 * k - 1)
    for new, (a, b) in enumerate(joins, k):
        apart = best[a] + best[b]
        height[new] = max(0.0, 1 - (apart - told[new]) / max(1.0, min(best[a], best[b])))
        best[new], size[new] = min(told[new], apart), size[a] + size[b]
    for new, pair in reversed(list(enumerate(joins, k))):
        for part in pair:
            height[part] = min(height[part], height[new])
    # Lowest first; equal heights in the order of joining, so that parts come before their whole.
    order = sorted(range(k, 2 * k - 1), key=lambda new: height[new])
    place = {c: c for c in range(k)} | {new: k + row for row, new in enumerate(order)}
    rows, change = [], []
    for new in order:
        a, b = joins[new - k]
        first, second = sorted((place[a], place[b]))
        rows.append((first, second, height[new], size[new]))
        change.append(told[new] - told[a] - told[b])
    return np.array(rows).reshape(-1, 4), told[:k].sum() + np.cumsum([0.0, *change])


def _told(
    shape: tuple[int, ...],
    n: np.ndarray,
    total: np.ndarray,
    most: np.ndarray,
    m: np.ndarray,
    always: np.ndarray,
) -> np.ndarray:
    """Bits of groups, each argument (G,): inputs on, Σ n_c, max n_c, members, members always on.

    Members that are on at every input are joined for nothing: no input tells them apart.
    """
    N, k = shape
    how_many = np.log2(np.minimum(N, total) - most + 1)
    joins = m - 1 - np.maximum(always - 1, 0)
    naming = joins * np.log2(max(1, k * (k - 1) / 2))
    return how_many + _log2_choose(N, n) + _log2_choose(m * n, total) + naming


def _log2_choose(n: np.ndarray | int, k: np.ndarray) -> np.ndarray:
    n = np.asarray(n, float)
    return (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)) / np.log(2)
