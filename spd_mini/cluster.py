"""From subcomponents to components: which rank-one pieces act together, found without labels.

What is seen: N inputs, k subcomponents of all layers, and whether the importance g_c(x) of each on
each input exceeds a threshold. Which groups? Those with which these N k bits are told most briefly
(minimum description length; Rissanen 1978). At how many inputs n_c each piece is on is told first;
that costs the same for every grouping and is left out. A group is on wherever any of its m members
is, since a mechanism is needed wherever a piece of it is. Of each group is then told

- at how many inputs n it is on: one of min(N, K) − max n_c + 1 possible numbers, K = Σ n_c;
- at which: one of C(N, n) choices;
- which of its m n pieces at these inputs are on: one of C(m n, K) choices;

and of each join which two of k pieces are one, out of C(k, 2): a lucky pair among so many is not
believed. The bits are the logarithms to base 2, added up; a piece alone costs log2 C(N, n_c).

Pieces of one feature are told once for all of them. Independent pieces are dearer together: the
group is on more often, each time with half of its members. So is a feature with a piece that many
features use. The pieces of a dense matrix are used by many features each, in changing selections;
what they share is that all are silent on the same inputs, which is worth saying once.

Groups are joined greedily, each time the pair that saves most or loses least, until one is left.
Of all groupings that cut this tree somewhere, the one with the shortest description is chosen.
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

THRESHOLD = 0.5
"""An importance above it counts as on. Importances are trained towards 0 and 1. Far below the
middle, interference counts as acting; far above it, a piece's own weaker inputs are lost."""

CUT = 1.0
"""The height up to which joins shorten the description."""

MIN_INPUTS = 100
CHUNK = 4096
"""Inputs whose importances are computed at a time; the result does not depend on it."""


@dataclass(frozen=True)
class Components:
    """Groups of subcomponents, and the tree of joins they were cut from.

    groups: the components, largest first. labels: (k,) each leaf's group. leaves: the k
    subcomponents that are ever on. dead: those that never are. frequency: for each group the share
    of inputs with any member on. linkage: (k − 1, 4) as scipy's: two nodes, height, leaves.
    bits: (k,) description length after so many joins of the linkage. threshold: of importance.

    The height of a join is what it leaves of the bits of its cheaper side (told as briefly as the
    tree allows): 0 = that side is told for nothing, 1 = nothing is saved, above 1 = a loss. A join
    inside a larger one that stands lower is as low as that. Heights hardly depend on N.
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
        """The groups of all joins up to a height; `CUT` gives `groups`. ValueError for nan."""
        if np.isnan(height):
            raise ValueError("the height of a cut must be a number, got nan")
        return [[self.leaves[c] for c in group] for group in cut(self.linkage, height)]


def components(d: Decomposition, x: Tensor, threshold: float = THRESHOLD) -> Components:
    """Group the subcomponents of a decomposition by how they act together on inputs x (B, ...).

    x: 4,000 to 20,000 inputs as the decomposition was trained on. Sparse ones, or every piece is
    on with every other; silent ones included, for being silent together is evidence too. Raises
    ValueError for fewer than 100 inputs (positions of a sequence count), a threshold outside
    (0, 1), or when nothing is on.
    """
    return sweep(d, x, [threshold])[threshold]


def sweep(d: Decomposition, x: Tensor, thresholds: Iterable[float]) -> dict[float, Components]:
    """`components` for each threshold of importance. Arguments and errors as there.

    Too low, and interference adds groups or glues features together; too high, and dense blocks
    fall apart.
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
    members = cut(linkage, CUT)
    labels = np.zeros(len(leaves), int)
    for label, group in enumerate(members):
        labels[group] = label
    return Components(
        groups=[[leaves[c] for c in group] for group in members],
        labels=labels,
        leaves=leaves,
        dead=[leaf for leaf in named if leaf not in set(leaves)],
        frequency=[float(on[:, group].any(1).mean()) for group in members],
        linkage=linkage,
        bits=bits,
        threshold=threshold,
    )


def cut(linkage: np.ndarray, height: float) -> list[list[int]]:
    """Leaves of each group of a linkage's joins up to a height; largest, then earliest, first."""
    groups = {c: [c] for c in range(len(linkage) + 1)}
    for node, (a, b, h, _) in enumerate(linkage, len(groups)):
        if h <= height:
            groups[node] = sorted(groups.pop(int(a)) + groups.pop(int(b)))
    return sorted(groups.values(), key=lambda group: (-len(group), group))


def description_length(on: np.ndarray, labels: np.ndarray) -> float:
    """Bits that tell on (N, k) bool when its columns are grouped by labels (k,). See the module."""
    groups = [on[:, labels == label] for label in np.unique(labels)]
    facts = [(g.any(1).sum(), g.sum(), g.sum(0).max(), g.shape[1], g.all(0).sum()) for g in groups]
    return float(_told(on.shape, np.array(facts).T).sum())


def agglomerate(on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greedy joins of the columns of on (N, k) bool: linkage (k − 1, 4), bits (k,) along it.

    Every column must be on somewhere. Ties go to the earlier columns.
    """
    k = on.shape[1]
    active = on.astype(np.float32)  # of each group, in the column of its first member
    ones = on.sum(0)
    facts = np.stack([ones, ones, ones, np.ones(k, int), on.all(0)])
    cost = _told(on.shape, facts)

    def joined(i: int, both: np.ndarray) -> np.ndarray:
        """Facts of group i with each group; they are on together at `both` (k,) inputs."""
        together = facts + facts[:, i : i + 1]
        together[0] -= both.astype(int)
        together[2] = np.maximum(facts[2], facts[2, i])
        return together

    gain = np.full((k, k), -np.inf)  # bits saved; above the diagonal, of groups still apart
    for i, both in enumerate(active.T @ active):
        gain[i, i + 1 :] = (cost[i] + cost - _told(on.shape, joined(i, both)))[i + 1 :]
    told, node, apart = list(cost), np.arange(k), np.ones(k, bool)
    joins: list[tuple[int, int]] = []
    for step in range(k - 1):
        i, j = (int(a) for a in np.unravel_index(gain.argmax(), gain.shape))
        joins.append((int(node[i]), int(node[j])))
        facts[:, i] = joined(i, active[:, i] @ active)[:, j]
        active[:, i] = np.maximum(active[:, i], active[:, j])
        cost[i] = _told(on.shape, facts[:, i : i + 1])[0]
        told.append(cost[i])
        node[i], apart[j] = k + step, False
        gain[j, :] = gain[:, j] = -np.inf
        others = np.flatnonzero(apart & (np.arange(k) != i))
        saved = cost[i] + cost - _told(on.shape, joined(i, active[:, i] @ active))
        gain[np.minimum(i, others), np.maximum(i, others)] = saved[others]
    return _linkage(joins, np.array(told))


def _told(shape: tuple[int, ...], facts: np.ndarray) -> np.ndarray:
    """Bits of groups (G,); facts (5, G): inputs on, Σ n_c, max n_c, members, members always on.

    Members that are on at every input are joined for nothing: no input tells them apart.
    """
    N, k = shape
    n, total, most, m, always = facts
    how_many = np.log2(np.minimum(N, total) - most + 1)
    named = np.log2(max(1, k * (k - 1) / 2)) * (m - 1 - np.maximum(always - 1, 0))
    return how_many + _log2_choose(N, n) + _log2_choose(m * n, total) + named


def _log2_choose(n: np.ndarray | int, k: np.ndarray) -> np.ndarray:
    n = np.asarray(n, float)
    return (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)) / np.log(2)


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
    rows, change = [], [0.0]
    for new in order:
        a, b = joins[new - k]
        rows.append((*sorted((place[a], place[b])), height[new], size[new]))
        change.append(told[new] - told[a] - told[b])
    return np.array(rows).reshape(-1, 4), told[:k].sum() + np.cumsum(change)
