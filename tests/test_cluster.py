"""Clusters: bits worked out by hand and by an oracle, known groups found, chance not believed."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.linalg import hadamard
from torch import Tensor

import spd_mini as spd
from spd_mini import Decomposition, cluster
from spd_mini.cluster import Components
from spd_mini.targets.sparse import SparseFeatures
from spd_mini.targets.tms import TMS, TMS_5_2_ID
from zoo import (
    by_hand,
    constant_gates,
    exact_columns,
    generator,
    randn,
    threshold_gates,
    token_model,
    triangle,
)

Names = set[frozenset[tuple[str, int]]]


def as_sets(groups: list[list[tuple[str, int]]]) -> Names:
    return {frozenset(group) for group in groups}


def columns(*texts: str) -> np.ndarray:
    """One column of bits for each text of zeros and ones."""
    return np.array([[c == "1" for c in text] for text in texts]).T


def of_bits(on: np.ndarray) -> Components:
    return cluster.from_importance({"m": torch.from_numpy(on).float()})


# Bits


@pytest.mark.parametrize(
    ("on", "labels", "messages"),
    [
        # one piece: 4 places for its one
        (columns("0100"), [0], 4),
        # each alone: 6 arrangements of 2 ones
        (columns("1100", "1100"), [0, 1], 6**2),
        # together: on at 2, 3 or 4 inputs; 6 ways to choose the 2; all 4 pieces of them are on
        (columns("1100", "1100"), [0, 0], 3 * 6),
        # on at 3 inputs, 4 ways to choose them; 4 of 6 pieces are on
        (columns("1100", "1010"), [0, 0], 3 * 4 * 15),
        # three pieces: one join, worth saying which of 3 pairs
        (columns("1100", "1100", "0001"), [0, 0, 1], 3 * 6 * 3 * 4),
        # always on: nothing to say, joined without being named
        (columns("1111", "1111", "0001"), [0, 0, 1], 4),
        # all in one: 9 of 12 pieces are on; one join named
        (columns("1111", "1111", "0001"), [0, 0, 0], 220 * 3),
    ],
)
def test_bits_by_hand(on: np.ndarray, labels: list[int], messages: int) -> None:
    """A description of b bits tells one of 2^b messages; these were counted on paper."""
    assert cluster.description_length(on, np.array(labels)) == pytest.approx(math.log2(messages))


def naive(on: np.ndarray, labels: Sequence[int]) -> float:
    """The same by counting in whole numbers, one input and one piece at a time."""
    N, k = on.shape
    messages, joins = 1, 0
    for label in set(labels):
        members = [c for c in range(k) if labels[c] == label]
        ones = [sum(bool(on[x, c]) for x in range(N)) for c in members]
        inputs = sum(any(on[x, c] for c in members) for x in range(N))
        messages *= min(N, sum(ones)) - max(ones) + 1
        messages *= math.comb(N, inputs) * math.comb(len(members) * inputs, sum(ones))
        joins += len(members) - 1 - max(ones.count(N) - 1, 0)
    return math.log2(messages) + joins * math.log2(max(math.comb(k, 2), 1))


@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 1000), st.booleans())
@settings(max_examples=50)
def test_bits_against_whole_numbers(N: int, k: int, seed: int, always: bool) -> None:
    rng = np.random.default_rng(seed)
    on = rng.random((N, k)) < rng.random(k)
    on[:, : k // 2] |= always
    labels = rng.integers(0, 3, k)
    want = naive(on, labels.tolist())
    assert cluster.description_length(on, labels) == pytest.approx(want, abs=1e-9)


@dataclasses.dataclass(frozen=True)
class Tree:
    members: frozenset[int]
    parts: list["Tree"] = dataclasses.field(compare=False, hash=False)


def sparse(N: int, k: int, seed: int) -> np.ndarray:
    """Columns that agree more or less with one of three causes, at rates of their own."""
    rng = np.random.default_rng(seed)
    cause = rng.random((N, 3)) < rng.uniform(0.05, 0.4, 3)
    on: np.ndarray = cause[:, rng.integers(0, 3, k)] & (rng.random((N, k)) < rng.uniform(0.6, 1, k))
    on[0] |= ~on.any(0)
    return on


def cut_in_pieces(tree: Tree) -> list[list[frozenset[int]]]:
    """Every grouping that cuts a tree somewhere."""
    if len(tree.members) == 1:
        return [[tree.members]]
    halves = [cut_in_pieces(part) for part in tree.parts]
    return [[tree.members]] + [a + b for a in halves[0] for b in halves[1]]


def naive_tree(on: np.ndarray) -> Tree:
    """Greedy joins, every pair tried and every description length taken anew."""
    trees = [Tree(frozenset([c]), []) for c in range(on.shape[1])]
    while len(trees) > 1:
        options = []
        for a, b in itertools.combinations(trees, 2):
            after = [t for t in trees if t not in (a, b)]
            after.append(Tree(a.members | b.members, [a, b]))
            options.append((bits_of(on, [t.members for t in after]), after))
        trees = min(options, key=lambda option: option[0])[1]
    return trees[0]


def bits_of(on: np.ndarray, groups: list[frozenset[int]]) -> float:
    """Bits of a grouping of some columns; the others are left out."""
    columns = sorted(frozenset().union(*groups))
    label = {c: g for g, group in enumerate(groups) for c in group}
    pairs = math.log2(math.comb(on.shape[1], 2)) - math.log2(max(1, math.comb(len(columns), 2)))
    always = [sum(all(on[:, c]) for c in group) for group in groups]
    joins = sum(len(g) - 1 - max(a - 1, 0) for g, a in zip(groups, always, strict=True))
    return naive(on[:, columns], [label[c] for c in columns]) + joins * pairs


@pytest.mark.parametrize("seed", range(10))
def test_tree_and_cut_against_trying_everything(seed: int) -> None:
    """The joins are the best pairs; heights are what they say; no cut of the tree is shorter."""
    on = sparse(N=60 + seed, k=3 + seed % 4, seed=seed)
    found = of_bits(on)
    root = naive_tree(on)
    nodes = [root]
    for node in nodes:
        nodes += node.parts
    best = {t: min(bits_of(on, cut) for cut in cut_in_pieces(t)) for t in nodes}
    height: dict[frozenset[int], float] = {}
    above = {part: node for node in nodes for part in node.parts}
    for node in nodes:  # from the root down
        if node.parts:
            saves = sum(best[t] for t in node.parts) - bits_of(on, [node.members])
            own = max(0.0, 1 - saves / min(best[t] for t in node.parts))
            height[node.members] = min(own, height[above[node].members] if node != root else own)
    joins = members_of_joins(found.linkage)
    assert dict(zip(joins, found.linkage[:, 2], strict=True)) == pytest.approx(height)
    shortest = min(bits_of(on, cut) for cut in cut_in_pieces(root))
    assert cluster.description_length(on, found.labels) == pytest.approx(shortest)
    assert found.bits.min() == pytest.approx(shortest)


def members_of_joins(linkage: np.ndarray) -> list[frozenset[int]]:
    nodes = [frozenset([c]) for c in range(len(linkage) + 1)]
    for a, b, _, m in linkage:
        nodes.append(nodes[int(a)] | nodes[int(b)])
        assert len(nodes[-1]) == m
    return nodes[len(linkage) + 1 :]


@given(st.integers(2, 9), st.integers(0, 1000))
@settings(max_examples=50)
def test_bits_along_the_linkage_are_those_of_its_cuts(k: int, seed: int) -> None:
    on = sparse(80, k, seed)
    found = of_bits(on)
    labels = np.arange(k)
    assert found.bits[0] == pytest.approx(cluster.description_length(on, labels))
    for members, told in zip(members_of_joins(found.linkage), found.bits[1:], strict=True):
        labels[list(members)] = min(members)
        assert told == pytest.approx(cluster.description_length(on, labels))
    assert found.bits[k - len(found.groups)] == pytest.approx(found.bits.min())


# Known components


def layered(
    n: int = 30,
    layers: int = 2,
    neurons: int = 10,
    share: float = 1.0,
    noise: float = 0.0,
    inputs: int = 4000,
    seed: int = 0,
) -> tuple[dict[str, Tensor], Names]:
    """Importances as of a residual MLP of known parts, and the true components.

    A feature (on with probability 0.02, value in [−1, 1]) is read by one piece in every layer,
    each with its own least |x|; every second piece of the last layer of several overlooks negative
    values. Each piece of W_out is used by a random `share` of the features. `noise`: the part of
    its inputs that a piece overlooks; it is on at a hundredth of that part of all others.
    """
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((inputs, n)) < 0.02, rng.uniform(-1, 1, (inputs, n)), 0.0)
    g: dict[str, np.ndarray] = {}
    for layer in range(layers):
        g[f"{layer}.W_in"] = np.abs(x) > rng.uniform(0.02, 0.2, n)
        uses = rng.permuted(np.arange(n)[:, None].repeat(neurons, 1), axis=0) < share * n
        g[f"{layer}.W_out"] = (np.abs(x) > 0.1).astype(float) @ uses > 0
    if layers > 1:
        g[f"{layers - 1}.W_in"][:, ::2] &= x[:, ::2] > 0
    for name, on in g.items():
        luck = rng.random(on.shape)
        g[name] = np.where(on, luck >= noise, luck < noise / 100)
    truth = {frozenset((f"{la}.W_in", i) for la in range(layers)) for i in range(n)}
    truth |= {frozenset((f"{la}.W_out", c) for la in range(layers) for c in range(neurons))}
    return {name: torch.from_numpy(on).float() for name, on in g.items()}, truth


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("layers", [2, 3])
def test_features_across_layers_and_one_dense_block(
    layers: int, share: float, noise: float, seed: int
) -> None:
    g, truth = layered(layers=layers, share=share, noise=noise, seed=seed)
    found = cluster.from_importance(g)
    assert as_sets(found.groups) == truth
    assert len(found.groups[0]) == 10 * layers, "largest first"
    assert found.frequency[0] == max(found.frequency)


def test_one_layer_keeps_features_apart_and_its_block_together() -> None:
    g, truth = layered(layers=1, share=0.3)
    assert as_sets(cluster.from_importance(g).groups) == truth


def test_the_number_of_inputs_does_not_decide() -> None:
    for inputs in (2000, 8000, 32000):
        g, truth = layered(inputs=inputs, share=0.3, noise=0.05)
        assert as_sets(cluster.from_importance(g).groups) == truth


@pytest.mark.parametrize("seed", range(20))
def test_chance_agreement_joins_nothing(seed: int) -> None:
    """Independent pieces, of one rate or of many: hardly a pair in 435 agrees by more than luck."""
    rng = np.random.default_rng(seed)
    rate = 0.02 if seed % 2 else rng.uniform(0.01, 0.5, 30)
    on = rng.random((2000, 30)) < rate
    assert len(of_bits(on).groups) == 30


def test_a_piece_that_serves_many_features_joins_none_of_them() -> None:
    """Twenty features; a further piece is on whenever one of the first five is."""
    rng = np.random.default_rng(0)
    on = rng.random((4000, 20)) < 0.02
    hub = on[:, :5].any(1, keepdims=True)
    assert len(of_bits(np.concatenate([on, hub], 1)).groups) == 21


def test_disjoint_halves_of_a_feature_are_two_groups() -> None:
    """One piece for x > 0 and another for x < 0 never act together: no evidence, no group."""
    x = randn(2000, 1, seed=1)[:, 0]
    halves = {"up": (x > 1.5)[:, None].float(), "down": (x < -1.5)[:, None].float()}
    assert len(cluster.from_importance(halves).groups) == 2


def test_pieces_that_are_always_on_are_one_group() -> None:
    on = np.ones((200, 6), bool)
    on[:, 4:] = np.random.default_rng(0).random((200, 2)) < 0.1
    found = of_bits(on)
    assert as_sets(found.groups) == {
        frozenset(("m", c) for c in range(4)),
        frozenset([("m", 4)]),
        frozenset([("m", 5)]),
    }
    assert found.frequency[0] == 1


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_order_does_not_matter(seed: int) -> None:
    """Subcomponents, modules and inputs in any order: the same groups, bits and heights."""
    g, _ = layered(n=4, neurons=3, share=0.5, noise=0.3, inputs=500, seed=seed)
    here = cluster.from_importance(g)
    order = {n: torch.randperm(v.shape[1], generator=generator(seed)) for n, v in g.items()}
    inputs = torch.randperm(500, generator=generator(seed + 1))
    shuffled = {n: g[n][inputs][:, order[n]] for n in reversed(list(g))}
    there = cluster.from_importance(shuffled)
    back = [[(n, int(order[n][c])) for n, c in group] for group in there.groups]
    assert as_sets(back) == as_sets(here.groups)
    assert there.bits.min() == pytest.approx(here.bits.min())
    assert there.linkage[:, 2] == pytest.approx(here.linkage[:, 2])


# The result


def test_dead_labels_and_frequency() -> None:
    on = columns("110000", "000000", "110000", "000011")
    found = cluster.from_importance(
        {"a": torch.from_numpy(on[:, :2]).float(), "b": torch.from_numpy(on[:, 2:]).float()}
    )
    assert found.leaves == [("a", 0), ("b", 0), ("b", 1)]
    assert found.dead == [("a", 1)]
    assert found.groups == [[("a", 0), ("b", 0)], [("b", 1)]]
    assert found.labels.tolist() == [0, 0, 1]
    assert found.frequency == pytest.approx([1 / 3, 1 / 3])
    assert found.threshold == cluster.THRESHOLD


def test_one_live_piece_is_one_group() -> None:
    found = of_bits(columns("0100"))
    assert found.groups == [[("m", 0)]]
    assert found.linkage.shape == (0, 4)
    assert found.bits == pytest.approx([2.0])
    assert found.groups_at(math.inf) == found.groups


def test_linkage_is_scipys() -> None:
    found = cluster.from_importance(layered(share=0.5, noise=0.2)[0])
    linkage = found.linkage
    assert hierarchy.is_valid_linkage(linkage)
    assert hierarchy.is_monotonic(linkage)
    drawn = hierarchy.dendrogram(linkage, no_plot=True)
    assert sorted(drawn["leaves"]) == list(range(len(found.leaves)))
    for height in (0.2, 0.5, 0.9, 1.2):
        flat = hierarchy.fcluster(linkage, height, "distance")
        want = {frozenset(np.flatnonzero(flat == f).tolist()) for f in set(flat)}
        place = {leaf: i for i, leaf in enumerate(found.leaves)}
        assert {frozenset(place[le] for le in g) for g in found.groups_at(height)} == want


def test_cutting_elsewhere() -> None:
    found = cluster.from_importance(layered(share=0.3)[0])
    assert found.groups_at(cluster.CUT) == found.groups
    assert len(found.groups_at(0.0)) == len(found.leaves)
    assert len(found.groups_at(math.inf)) == 1
    sizes = [len(found.groups_at(h)) for h in np.linspace(0, 2, 41)]
    assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(ValueError, match="the height of a cut must be a number, got nan"):
        found.groups_at(math.nan)


def test_the_threshold_of_importance_too_low_and_too_high() -> None:
    """Interference of 0.05 on every piece glues all; above a piece's values it is dead."""
    g, truth = layered(share=0.3)
    x = torch.rand(4000, 1, generator=generator(1))
    weak = {n: torch.where(v > 0, 0.8, 0.0) + 0.05 * (x < 0.5) for n, v in g.items()}
    assert as_sets(cluster.from_importance(weak, 0.3).groups) == truth
    assert len(cluster.from_importance(weak, 0.01).groups) < len(truth)
    too_high = weak | {"1.W_out": weak["1.W_out"] * 0.9}
    assert len(cluster.from_importance(too_high, 0.8).dead) == 10


# Decompositions


def orthogonal() -> Decomposition:
    """Eight features in eight dimensions, the identity between them as eight dense directions."""
    model = TMS(8, 8, identity=True)
    with torch.no_grad():
        for weight in (model.encoder.weight, model.decoder.weight):
            weight.copy_(torch.eye(8))
        assert model.hidden is not None
        model.hidden.weight.copy_(torch.eye(8))
        model.decoder.bias.zero_()
    spare = torch.cat([torch.eye(8), torch.zeros(1, 8)])  # a ninth that is never on
    dense = torch.from_numpy(hadamard(8)).float() / 8**0.5
    return by_hand(
        model,
        {"encoder": spare.mT, "hidden": dense.mT, "decoder": spare.mT},
        {"encoder": spare, "hidden": dense, "decoder": spare},
        {"encoder": threshold_gates(9), "hidden": threshold_gates(8, 0.03),
         "decoder": threshold_gates(9, 0.2)},
        tied={"decoder": "encoder"},
    )  # fmt: skip


def test_components_of_an_exact_decomposition() -> None:
    """The features' pairs, and the identity as one."""
    x = SparseFeatures(8, 0.05)(6000, generator())
    assert isinstance(x, Tensor)
    found = cluster.components(orthogonal(), x)
    truth = {frozenset([("encoder", i), ("decoder", i)]) for i in range(8)}
    assert as_sets(found.groups) == truth | {frozenset(("hidden", c) for c in range(8))}
    assert as_sets([found.dead]) == {frozenset([("encoder", 8), ("decoder", 8)])}


def test_every_position_of_a_sequence_is_an_input() -> None:
    model = token_model()
    C = {"embed": 4, "unembed": 4}
    U = {"embed": randn(4, 4), "unembed": randn(6, 4)}
    V = {"embed": randn(4, 6), "unembed": randn(4, 4)}
    d = by_hand(model, U, V, {n: threshold_gates(c, at=0.8) for n, c in C.items()})
    x = torch.randint(6, (50, 3), generator=generator())
    found = cluster.components(d, x)
    g = {n: v.reshape(150, -1) for n, v in d.causal_importance(x).items()}
    assert found.bits == pytest.approx(cluster.from_importance(g).bits)
    with pytest.raises(ValueError, match="99 inputs say too little; at least 100 are needed"):
        cluster.components(d, x[:33])


def test_sweep_is_one_result_for_each_threshold() -> None:
    d = exact_columns(triangle())
    x = 0.75 * torch.eye(3).repeat(40, 1)
    swept = cluster.sweep(d, x, [0.2, 0.6])
    assert list(swept) == [0.2, 0.6]
    for threshold, found in swept.items():
        assert found.threshold == threshold
        assert found.groups == cluster.components(d, x, threshold).groups


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 1.5, math.nan])
def test_impossible_thresholds(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold of importance must be in \(0, 1\), got"):
        cluster.from_importance({"m": torch.ones(3, 2)}, threshold)


def test_unlike_inputs() -> None:
    with pytest.raises(ValueError, match="unlike numbers of inputs: {'a': 3, 'b': 4}"):
        cluster.from_importance({"a": torch.ones(3, 2), "b": torch.ones(4, 2)})


def test_nothing_on() -> None:
    model = triangle()
    silent = by_hand(
        model,
        {"encoder": torch.eye(2)},
        {"encoder": model.encoder.weight.detach()},
        {"encoder": constant_gates([0.2, -1.0])},
    )
    with pytest.raises(ValueError, match=r"no importance exceeds 0.5 on these 120 inputs"):
        cluster.components(silent, torch.rand(120, 3, generator=generator()))


@pytest.mark.parametrize("rows", [0, 99])
def test_too_few_inputs(rows: int) -> None:
    d = exact_columns(triangle())
    with pytest.raises(ValueError, match=f"{rows} inputs say too little; at least 100 are needed"):
        cluster.components(d, torch.zeros(rows, 3))


@pytest.mark.slow
def test_trained_tms_with_identity_gives_a_component_for_each_feature_and_one_more() -> None:
    preset = TMS_5_2_ID
    target = preset.train(0)
    d = spd.decompose(
        target, preset.sampler(), preset.config, tied=target.tied, seed=0, progress=False
    )
    x = preset.sampler(paper=True)(10_000, generator(1))
    assert isinstance(x, Tensor)
    swept = cluster.sweep(d, x, [0.1, 0.3, 0.5, 0.95])
    block = frozenset((n, c) for n, c in swept[0.5].leaves if n == "hidden")
    assert len(block) == 2
    for threshold in (0.1, 0.3, 0.5):
        groups = as_sets(swept[threshold].groups)
        assert block in groups
        for pair in groups - {block}:
            ((one, c), (other, same)) = pair
            assert {one, other} == {"encoder", "decoder"} and c == same
        assert len(groups) == 6
    assert block not in as_sets(swept[0.95].groups), "too high: its two pieces seldom agree"
