"""Edits folded into plain models: by hand, against masks, in any order, taken back; choosing."""

import copy
import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spd_mini as spd
from spd_mini import Decomposition, edit
from spd_mini.targets.tms import TMS
from zoo import (
    TokenModel,
    by_hand,
    constant_gates,
    exact_columns,
    fill,
    generator,
    mlp,
    randn,
    tms,
    token_model,
    tokens,
    triangle,
)

NAMES = ("body.0", "head.out")


def unlike(module: nn.Module, names: tuple[str, ...], C: int = 4) -> Decomposition:
    """Random pieces that do not add up to the weights: W − UV is large."""
    sites = dict(module.named_modules())
    U, V = {}, {}
    for i, n in enumerate(names):
        W = sites[n].weight
        assert isinstance(W, Tensor)
        d_out, d_in = W.T.shape if isinstance(sites[n], nn.Embedding) else W.shape
        U[n], V[n] = randn(d_out, C, seed=2 * i), randn(C, d_in, seed=2 * i + 1)
    return by_hand(module, U, V, {n: constant_gates([1.0] * C) for n in names})


def weights(model: nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


def same(a: nn.Module, b: nn.Module) -> bool:
    """Bit for bit, the signs of zeros included."""
    bits = [[t.detach().numpy().tobytes() for t in m.state_dict().values()] for m in (a, b)]
    return bits[0] == bits[1]


# What an edit does


def test_edits_by_hand() -> None:
    """W = 1; pieces (1, 0)ᵀ(1, 2) and (0, 3)ᵀ(1, 0), which leave over (0, −1; −2, 1)."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(1.0)
    U, V = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 2.0], [1.0, 0.0]])
    d = by_hand(model, {"0": U}, {"0": V}, {"0": constant_gates([1.0, 1.0])})

    def of(edited: nn.Module) -> Any:
        return weights(edited)["0.weight"].tolist()

    assert of(edit.delete(d, {"0": [0]})) == [[0, -1], [1, 1]]
    assert of(edit.delete(d, {"0": [0, 1]})) == [[0, -1], [-2, 1]]
    assert of(edit.scale(d, {"0": [1]}, 2.0)) == [[1, 1], [4, 1]]
    # (1, 0)ᵀ becomes (5, 1)ᵀ: what is added is (4, 1)ᵀ(1, 2)
    new = {"0": {0: torch.tensor([5.0, 1.0])}}
    assert of(edit.rewrite(d, new)) == [[5, 9], [2, 3]]
    # rewritten and halved: (2.5, 0.5)ᵀ, so (1.5, 0.5)ᵀ(1, 2) is added
    both = edit.apply(d, edit.rewriting(new), edit.scaling({"0": [0]}, 0.5))
    assert of(both) == [[2.5, 4], [1.5, 2]]
    assert of(model) == [[1, 1], [1, 1]]


def test_deleting_is_masking_where_the_pieces_are_the_weights() -> None:
    model = tms(4, 2)
    d = exact_columns(model)
    x = torch.rand(6, 4, generator=generator())
    masks = {n: torch.ones(6, 5) for n in d.names}
    for m in masks.values():
        m[:, [1, 3]] = 0
    edited = edit.delete(d, {"encoder": [1, 3]})
    torch.testing.assert_close(edited(x), d(x, masks))
    torch.testing.assert_close(edited(x)[:, [1, 3]], model.decoder.bias[[1, 3]].relu().expand(6, 2))


def test_the_result_is_a_plain_model() -> None:
    """Same class, keys, mode; trainable; stored and loaded; nothing of the edit clings to it."""
    model = tms(4, 2)
    d = exact_columns(model)
    edited = edit.delete(d, {"encoder": [2]})
    assert type(edited) is TMS
    assert list(weights(edited)) == list(weights(model))
    assert not edited.training
    assert all(p.requires_grad for p in edited.parameters())
    assert not any(m._forward_hooks or "forward" in vars(m) for m in edited.modules())
    file = io.BytesIO()
    torch.save(weights(edited), file)
    file.seek(0)
    fresh = TMS(4, 2)
    fresh.load_state_dict(torch.load(file))
    assert same(fresh, edited)
    edited(torch.rand(2, 4, generator=generator())).sum().backward()
    assert edited.decoder.bias.grad is not None
    assert same(d.target, model), "the decomposition's own target stays"


def test_an_edited_model_can_be_decomposed_again() -> None:
    edited = edit.delete(exact_columns(tms(4, 2)), {"encoder": [0]})
    config = spd.Config(C=3, steps=2, batch_size=4)
    again = spd.decompose(
        edited, lambda n, g: torch.rand(n, 4, generator=g), config, tied={"decoder": "encoder"},
        device="cpu", progress=False,
    )  # fmt: skip
    assert again.names == ["encoder", "decoder"]


@pytest.mark.parametrize("empty", [{}, [], {"body.0": []}])
def test_no_edit_leaves_every_bit(empty: Any) -> None:
    d = unlike(mlp(), NAMES)
    assert same(edit.apply(d), d.target)
    assert same(edit.delete(d, empty), d.target)


def test_what_is_not_edited_keeps_every_bit() -> None:
    d = unlike(mlp(), NAMES)
    before, after = weights(d.target), weights(edit.delete(d, {"head.out": [1]}))
    assert [n for n in before if not torch.equal(before[n], after[n])] == ["head.out.weight"]


def test_what_the_pieces_leave_over_is_kept() -> None:
    """All pieces deleted, W − UV is what remains."""
    d = unlike(mlp(), NAMES)
    after = weights(edit.delete(d, {n: range(4) for n in NAMES}))
    for n in NAMES:
        torch.testing.assert_close(after[f"{n}.weight"], d.weight[n] - d.U[n] @ d.V[n])


def test_groups_of_pieces() -> None:
    """A component of `cluster` is a list of (module, index)."""
    d = unlike(mlp(), NAMES)
    group = [("head.out", 3), ("body.0", 1), ("head.out", 3)]
    assert same(edit.delete(d, group), edit.delete(d, {"body.0": [1], "head.out": [3]}))
    assert same(edit.scale(d, iter(group), 2.0), edit.scale(d, group, 2.0))
    assert edit.leaves({"a": torch.tensor([2, 0])}) == [("a", 2), ("a", 0)]


# Embeddings, tied weights, shared parameters


def test_an_embedding_is_the_matrix_of_its_columns() -> None:
    d = unlike(token_model(), ("embed", "unembed"))
    edited = edit.delete(d, {"embed": [2]})
    change = d.V["embed"][2][:, None] * d.U["embed"][:, 2]  # (vocabulary, d_model)
    torch.testing.assert_close(weights(edited)["embed.weight"], d.weight["embed"].T - change)


@pytest.mark.parametrize(
    "pieces", [{"encoder": [1]}, {"decoder": [1]}, {"encoder": [1], "decoder": [1]}]
)
def test_a_tied_weight_is_edited_once_by_either_name(pieces: dict[str, list[int]]) -> None:
    d = exact_columns(tms(4, 2))
    edited = edit.scale(d, pieces, 3.0)
    W = d.weight["encoder"].clone()
    W[:, 1] *= 3
    torch.testing.assert_close(edited.get_parameter("encoder.weight"), W)
    assert torch.equal(
        edited.get_parameter("decoder.weight"), edited.get_parameter("encoder.weight").T
    )


def test_rewriting_a_tied_piece_by_either_name() -> None:
    """What the encoder writes the decoder reads, and the other way round."""
    d = exact_columns(tms(4, 2))
    W, u, v = d.weight["encoder"], torch.tensor([5.0, 7.0]), randn(4)
    column = torch.outer(W[:, 2], torch.eye(4)[2])
    for writes, piece in (
        ({"encoder": {2: u}}, torch.outer(u, torch.eye(4)[2])),
        ({"decoder": {2: v}}, torch.outer(W[:, 2], v)),
    ):
        edited = edit.rewrite(d, writes)
        torch.testing.assert_close(edited.get_parameter("encoder.weight"), W - column + piece)
        torch.testing.assert_close(edited.get_parameter("decoder.weight"), (W - column + piece).T)


def shared_embedding() -> TokenModel:
    """One parameter, read by the embedding and by the unembedding."""
    model = fill(TokenModel())
    model.unembed.weight = model.embed.weight
    return model


def test_a_shared_parameter_is_changed_once() -> None:
    model = shared_embedding()
    tied = {"unembed": "embed"}
    U, V = {"embed": randn(4, 3)}, {"embed": randn(3, 6, seed=1)}
    U["unembed"], V["unembed"] = V["embed"].T, U["embed"].T
    d = by_hand(model, U, V, {n: constant_gates([1.0] * 3) for n in U}, tied)
    edited = edit.delete(d, {"embed": [0]})
    assert edited.get_parameter("embed.weight") is edited.get_parameter("unembed.weight")
    want = model.embed.weight - torch.outer(V["embed"][0], U["embed"][:, 0])
    torch.testing.assert_close(edited.get_parameter("embed.weight"), want)
    assert edited(tokens(2, generator())).shape == (2, 3, 6)


# Several edits


def some_edits(draw: Any, d: Decomposition) -> list[edit.Edit]:
    """Deletions, scalings and rewritings that may meet on a piece, each rewritten once at most."""
    leaf = st.tuples(st.sampled_from(NAMES), st.integers(0, 3))
    pieces = st.lists(leaf, min_size=1, max_size=3)
    edits = [
        edit.scaling(some, factor)
        for some, factor in draw(st.lists(st.tuples(pieces, st.sampled_from([0.0, 0.5, -2.0]))))
    ]
    for i, (n, c) in enumerate(draw(st.lists(leaf, max_size=3, unique=True))):
        edits.append(edit.rewriting({n: {c: randn(len(d.U[n]), seed=i)}}))
    return edits


@settings(max_examples=25)
@given(st.data())
def test_edits_in_any_order_give_the_same_weights(data: st.DataObject) -> None:
    d = unlike(mlp(), NAMES)
    edits = some_edits(data.draw, d)
    other = data.draw(st.permutations(edits))
    a, b = (weights(edit.apply(d, *order)) for order in (edits, other))
    for n in a:
        torch.testing.assert_close(a[n], b[n])


@settings(max_examples=25)
@given(st.data())
def test_edits_are_taken_back(data: st.DataObject) -> None:
    """All of them up to rounding, one of them by leaving it out; and after further training."""
    d = unlike(mlp(), NAMES)
    edits = some_edits(data.draw, d)
    edited = edit.apply(d, *edits)
    with torch.no_grad():
        for p in edited.parameters():
            p.add_(0.5)
    back, was = weights(edit.undo(d, edited, *edits)), weights(d.target)
    for n in was:
        torch.testing.assert_close(back[n], was[n] + 0.5, rtol=1e-5, atol=1e-4)
    if edits:
        oracle = copy.deepcopy(d.target)
        for n in NAMES:  # piece by piece, from what each edit says
            W = oracle.get_parameter(f"{n}.weight")
            for c in range(4):
                factor, u = 1.0, d.U[n][:, c]
                for e in edits[1:]:
                    factor *= e.factors.get((n, c), 1.0)
                    u = e.writes.get((n, c), u)
                W.add_(torch.outer(factor * u - d.U[n][:, c], d.V[n][c]))
        without = weights(edit.apply(d, *edits[1:]))
        for n, want in weights(oracle).items():
            torch.testing.assert_close(without[n], want, rtol=1e-5, atol=1e-4)


def test_disjoint_edits_one_after_the_other_are_the_edits_together() -> None:
    d = unlike(mlp(), NAMES)
    a, b = edit.scaling({"body.0": [1]}, 0.0), edit.scaling({"body.0": [2], "head.out": [0]}, 3.0)
    after, together = edit.apply(d, b, to=edit.apply(d, a)), edit.apply(d, a, b)
    for n, W in weights(together).items():
        torch.testing.assert_close(weights(after)[n], W)


# Choosing


def test_choices_on_a_model_whose_pieces_are_known() -> None:
    """Feature i on: piece i is the important one, and the one whose loss is felt most."""
    d = exact_columns(triangle())
    for i in range(3):
        x = torch.eye(3)[[i]] * torch.tensor([[0.5], [1.0]])
        important, felt = edit.by_importance(d, x), edit.by_effect(d, x)
        assert list(important) == list(felt) == ["encoder"], "a tied piece is one piece"
        assert important["encoder"].tolist() == [float(c == i) for c in range(4)]
        # Without its column a feature of ½ or 1 comes out as 0: squared errors ¼ and 1, over three
        # outputs and two rows. Without another column nothing changes here: it would read < 0.
        want = [5 / 24 if c == i else 0.0 for c in range(4)]
        assert felt["encoder"].tolist() == pytest.approx(want, abs=1e-6)
        assert edit.top(important, 1) == edit.top(felt, 1) == [("encoder", i)]
        assert edit.agreement(important, felt, 1) == 1.0
        assert float(edit.effect(d, x, {"encoder": [i]})) == pytest.approx(5 / 24)


def test_top_and_agreement_by_hand() -> None:
    """Equal scores go by name and index."""
    a = {"n": torch.tensor([0.5, 3.0]), "m": torch.tensor([0.5, 1.0, 0.0])}
    assert edit.top(a, 4) == [("n", 1), ("m", 1), ("m", 0), ("n", 0)]
    b = {"n": torch.tensor([2.0, 3.0]), "m": torch.tensor([0.0, 0.0, 0.0])}
    assert edit.agreement(a, b, 2) == 0.5
    assert edit.agreement(a, b, 1) == edit.agreement(a, b, 5) == 1.0


# Errors


def shared_but_apart() -> Decomposition:
    """One parameter, decomposed twice as if there were two."""
    return unlike(shared_embedding(), ("embed", "unembed"))


BAD_PIECES = "pieces are {module: [index, …]} or a list of (module, index), got "
FACTOR = "the factor of an edit must be finite, got nan"
DIRECTION = "a write direction of 'encoder' is a finite tensor of shape (2,), got "
TWICE = "('encoder', 3) is rewritten twice, in different directions"
TIED = "two uses of 'encoder' (tied) disagree on subcomponent 1"
SHARED = "'embed' and 'unembed' share one parameter; change both alike"
NONE = "choosing pieces needs at least one example"
ERRORS = [
    (lambda d: edit.delete(d, {"enc": [0]}), "no subcomponent 0 of 'enc'; there are {'encoder': 5"),
    (lambda d: edit.delete(d, {"encoder": [5]}), "no subcomponent 5 of 'encoder'; there are"),
    (lambda d: edit.delete(d, {"encoder": [-1]}), "no subcomponent -1 of 'encoder'; there are"),
    (lambda d: edit.scale(d, {"encoder": [0]}, float("nan")), FACTOR),
    (
        lambda d: edit.rewrite(d, {"encoder": {0: torch.ones(3)}}),
        DIRECTION + "a tensor of shape (3,), torch.float32",
    ),
    (
        lambda d: edit.rewrite(d, {"encoder": {0: torch.tensor([1.0, float("inf")])}}),
        DIRECTION + "a tensor of shape (2,)",
    ),
    (lambda d: edit.rewrite(d, {"encoder": {0: [1.0, 2.0]}}), DIRECTION + "list"),  # type: ignore[dict-item]
    (
        lambda d: edit.apply(
            d, *(edit.rewriting({"encoder": {3: randn(2, seed=s)}}) for s in (0, 1))
        ),
        TWICE,
    ),
    (
        lambda d: edit.apply(
            d, edit.scaling([("encoder", 1)], 2.0), edit.scaling([("decoder", 1)], 0)
        ),
        TIED,
    ),
    (
        lambda d: edit.fold(d.target, {"hidden": torch.ones(2, 2)}),
        "TMS has no linear layer or embedding 'hidden'",
    ),
    (
        lambda d: edit.fold(d.target, {"encoder": torch.ones(4, 2)}),
        "a change of 'encoder' is (2, 4), got (4, 2)",
    ),
    (lambda _: edit.delete(shared_but_apart(), {"embed": [0], "unembed": [0]}), SHARED),
    (lambda d: edit.by_importance(d, torch.ones(0, 4)), NONE),
    (lambda d: edit.by_effect(d, torch.ones(0, 4)), NONE),
    (
        lambda _: edit.top({"m": torch.ones(3)}, 4),
        "k must be from 1 to the 3 pieces there are, got 4",
    ),
    (
        lambda _: edit.top({"m": torch.ones(3)}, 0),
        "k must be from 1 to the 3 pieces there are, got 0",
    ),
]


@pytest.mark.parametrize(("act", "message"), ERRORS, ids=[message[:40] for _, message in ERRORS])
def test_errors(act: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared below)
        act(exact_columns(tms(4, 2)))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "pieces", [{"encoder": 3}, {"encoder": [0.5]}, ["encoder"], 7, [("encoder",)]]
)
def test_pieces_that_are_none(pieces: Any) -> None:
    with pytest.raises(TypeError) as caught:
        edit.delete(exact_columns(tms(4, 2)), pieces)
    assert str(caught.value) == f"{BAD_PIECES}{pieces!r}"
