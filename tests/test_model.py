"""The wrapped target: which modules, what it records, masked passes, and leaving no trace."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import oracles
from spd_mini.model import Target
from zoo import (
    Spare,
    Twice,
    fill,
    generator,
    mlp,
    randn,
    rows,
    state_of,
    tms,
    token_model,
    tokens,
)

UVs = tuple[dict[str, Tensor], dict[str, Tensor]]
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int, torch.Generator], Tensor]]] = {
    "tms": (tms, rows(4)),
    "tms with identity": (lambda: tms(identity=True), rows(4)),
    "biased MLP": (mlp, rows(3)),
    "tokens": (token_model, tokens),
}


def random_UV(target: Target, R: int, C: int = 4) -> UVs:
    U = {n: randn(R, W.shape[0], C + k, seed=k) for k, (n, W) in enumerate(target.weight.items())}
    V = {
        n: randn(R, C + k, W.shape[1], seed=k + 9) for k, (n, W) in enumerate(target.weight.items())
    }
    return U, V


def faithful_UV(target: Target, R: int = 1) -> UVs:
    """W = UV exactly: U = W, V = 1."""
    U = {n: W[None].repeat(R, 1, 1) for n, W in target.weight.items()}
    V = {n: torch.eye(W.shape[1])[None].repeat(R, 1, 1) for n, W in target.weight.items()}
    return U, V


def random_masks(target: Target, U: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    _, acts = target.record(x)
    return {
        n: torch.rand(*U[n].shape[::2], len(a), generator=generator(k))
        for k, (n, a) in enumerate(acts.items())
    }


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, sample = CASES[request.param]
    return make(), sample(5, generator(1))


# Which modules


def test_all_modules_by_default_in_the_targets_order() -> None:
    assert Target(tms(identity=True)).names == ["encoder", "hidden", "decoder"]
    assert Target(mlp()).names == ["body.0", "head.out"]
    assert Target(token_model()).names == ["embed", "mix", "unembed"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["head.out"], ["head.out"]),
        (["body.*"], ["body.0"]),
        (["head.out", "body.0"], ["body.0", "head.out"]),
        (["*"], ["body.0", "head.out"]),
        (["*o*"], ["body.0", "head.out"]),
        (["h??d.*"], ["head.out"]),
        (["body.[01]"], ["body.0"]),
    ],
)
def test_nested_names_and_globs(patterns: list[str], names: list[str]) -> None:
    assert Target(mlp(), patterns).names == names


def test_weights_are_d_out_by_d_in_and_an_embedding_is_transposed() -> None:
    model = token_model()
    weight = Target(model).weight
    assert {n: tuple(w.shape) for n, w in weight.items()} == {
        "embed": (4, 6),
        "mix": (4, 4),
        "unembed": (6, 4),
    }
    assert torch.equal(weight["embed"], model.embed.weight.mT)


def test_a_pattern_that_matches_nothing_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'encodr' matches no nn.Linear or nn.Embedding") as error:
        Target(tms(), ["encoder", "encodr"])
    assert "['encoder', 'decoder']" in str(error.value)


def test_a_pattern_for_another_kind_of_module_matches_nothing() -> None:
    with pytest.raises(ValueError, match=r"'body.1' matches no nn.Linear"):  # a LayerNorm
        Target(mlp(), ["body.1"])


def test_a_string_is_not_a_list_of_patterns() -> None:
    with pytest.raises(ValueError, match=r"must be a list of names or patterns: \['encoder'\]"):
        Target(tms(), "encoder")


def test_an_empty_list_of_patterns() -> None:
    with pytest.raises(ValueError, match="modules is empty; None decomposes all"):
        Target(tms(), [])


def test_a_target_with_nothing_to_decompose() -> None:
    with pytest.raises(ValueError, match=r"has no nn.Linear or nn.Embedding submodule"):
        Target(nn.Sequential(nn.ReLU()))


def test_ties() -> None:
    assert Target(tms(), tied={"decoder": "encoder"}).tied == {"decoder": "encoder"}
    model = token_model()
    with torch.no_grad():
        model.unembed.weight.copy_(model.embed.weight)
    assert Target(model, tied={"unembed": "embed"}).tied == {"unembed": "embed"}


@pytest.mark.parametrize(
    ("tied", "patterns", "message"),
    [
        ({"decoder": "encodr"}, None, "tied names 'encodr', which is not decomposed"),
        ({"decodr": "encoder"}, None, "tied names 'decodr', which is not decomposed"),
        ({"decoder": "encoder"}, ["decoder"], "tied names 'encoder', which is not decomposed"),
        ({"hidden": "encoder"}, None, "'hidden' is not the transpose of that of 'encoder'"),
        (
            {"decoder": "encoder", "encoder": "decoder"},
            None,
            "source 'encoder' is itself tied; tie both to one source",
        ),
    ],
)
def test_ties_that_do_not_hold(
    tied: dict[str, str], patterns: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Target(tms(identity=True), patterns, tied)


def test_a_tie_must_hold_in_numbers_not_only_in_shape() -> None:
    model = tms()
    with torch.no_grad():
        model.decoder.weight[1, 1] += 0.5
    with pytest.raises(ValueError, match="not the transpose"):
        Target(model, tied={"decoder": "encoder"})


# Recording


def test_record_gives_output_and_each_modules_input(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    inputs: dict[str, Tensor] = {}
    for n, m in module.named_modules():
        if isinstance(m, nn.Linear | nn.Embedding):
            m.register_forward_pre_hook(lambda _, a, n=n: inputs.__setitem__(n, a[0]))
    want = module(x).detach()
    target = Target(module)
    out, acts = target.record(x)
    assert torch.equal(out, want)
    assert list(acts) == target.names
    for n, a in acts.items():
        width = [] if isinstance(target.sites[n], nn.Embedding) else [inputs[n].shape[-1]]
        assert torch.equal(a, inputs[n].reshape(-1, *width))
        assert not a.requires_grad


def test_a_module_called_twice_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="'shared' is called more than once") as error:
        Target(fill(Twice())).record(randn(2, 3))
    assert "Exclude it, or unroll the model" in str(error.value)


def test_the_rest_of_a_model_with_a_module_called_twice_can_be_decomposed() -> None:
    model = fill(Twice())
    out, acts = Target(model, ["out"]).record(randn(2, 3))
    assert torch.equal(out, model(randn(2, 3)))
    assert list(acts) == ["out"]


def test_a_module_that_matches_but_is_never_called() -> None:
    with pytest.raises(ValueError, match=r"\['spare'\] match but are not called"):
        Target(fill(Spare())).record(randn(2, 3))
    _, acts = Target(fill(Spare()), ["used"]).record(randn(2, 3))
    assert list(acts) == ["used"]


def test_a_target_that_returns_no_tensor() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(x), x

    with pytest.raises(TypeError, match="must return a tensor, got tuple; wrap it in a module"):
        Target(Pair()).record(randn(2, 2))


# Masked passes


def test_faithful_and_unmasked_gives_the_target(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    target = Target(module)
    U, V = faithful_UV(target, R=2)
    out = target.masked(x, U, V, dict.fromkeys(target.names))
    assert out.shape == (2, *module(x).shape)
    for r in range(2):
        assert torch.allclose(out[r], module(x), atol=1e-5)


def test_masks_of_one_equal_no_masks(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    target = Target(module)
    U, V = random_UV(target, R=2)
    ones = {n: torch.ones_like(m) for n, m in random_masks(target, U, x).items()}
    plain = target.masked(x, U, V, dict.fromkeys(target.names))
    assert torch.allclose(target.masked(x, U, V, ones), plain, atol=1e-5)


def test_unmasked_equals_UV_written_into_the_weights(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    target = Target(module)
    U, V = random_UV(target, R=1)
    edited = copy.deepcopy(module)
    with torch.no_grad():
        for n in target.names:
            site = edited.get_submodule(n)
            UV = U[n][0] @ V[n][0]
            assert isinstance(site.weight, Tensor)
            site.weight.copy_(UV.mT if isinstance(site, nn.Embedding) else UV)
    out = target.masked(x, U, V, dict.fromkeys(target.names))[0]
    assert torch.allclose(out, edited(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["tms", "tms with identity", "biased MLP"])
def test_masked_pass_against_masked_weights_row_by_row(name: str) -> None:
    make, sample = CASES[name]
    module, x = make(), sample(4, generator(2))
    target = Target(module)
    U, V = random_UV(target, R=2)
    masks = random_masks(target, U, x)
    out = target.masked(x, U, V, masks)
    for r in range(2):
        want = oracles.masked_rows(
            target.module,
            x,
            {n: u[r] for n, u in U.items()},
            {n: v[r] for n, v in V.items()},
            {n: m[r].mT for n, m in masks.items()},
        )
        assert torch.allclose(out[r], want, rtol=1e-4, atol=1e-5)


def test_masked_sequences_position_by_position() -> None:
    """Each token has masks of its own: the same as one-token sequences taken one at a time."""
    target, x = Target(token_model()), tokens(2, generator(3))
    U, V = random_UV(target, R=1)
    masks = random_masks(target, U, x)
    out = target.masked(x, U, V, masks)[0]
    for b in range(2):
        for t in range(3):
            k = b * 3 + t
            one = {n: m[:, :, k : k + 1] for n, m in masks.items()}
            alone = target.masked(x[b : b + 1, t : t + 1], U, V, one)[0]
            assert torch.allclose(out[b, t], alone[0, 0], atol=1e-5)


def test_restarts_side_by_side_equal_each_alone(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    target = Target(module)
    U, V = random_UV(target, R=3)
    masks = random_masks(target, U, x)
    together = target.masked(x, U, V, masks)
    for r in range(3):
        only = [{n: t[r : r + 1] for n, t in ts.items()} for ts in (U, V, masks)]
        assert torch.allclose(target.masked(x, *only)[0], together[r], atol=1e-5)


def test_known_inner_activations_equal_the_plain_pass(case: tuple[nn.Module, Tensor]) -> None:
    """The shortcuts of the training step, against the pass that computes everything."""
    module, x = case
    target = Target(module)
    U, V = random_UV(target, R=2)
    masks = random_masks(target, U, x)
    _, acts = target.record(x)
    mh = {n: masks[n] * h for n, h in target.inner(acts, V).items()}
    first = {target.first: mh[target.first]}
    full = target.masked(x, U, V, masks)
    assert torch.allclose(target.masked(x, U, V, masks, known=first), full, atol=1e-5)
    for n in target.names:
        one: dict[str, Tensor | None] = {n: masks[n]}
        plain = target.masked(x, U, V, one)
        assert torch.allclose(target.masked(x, U, V, one, known=mh), plain, atol=1e-5)
        assert not torch.allclose(plain, full, atol=1e-5)


def test_the_first_module_is_the_first_called_not_the_first_defined() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late = nn.Linear(3, 2)
            self.early = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.late(torch.relu(self.early(x)))

    target = Target(fill(Backwards()))
    target.record(randn(2, 3))
    assert target.names == ["late", "early"]
    assert target.first == "early"


def test_order_of_subcomponents_changes_nothing(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    target = Target(module)
    U, V = random_UV(target, R=1)
    masks = random_masks(target, U, x)
    p = {n: torch.randperm(u.shape[-1], generator=generator(5)) for n, u in U.items()}
    out = target.masked(
        x,
        {n: u[..., p[n]] for n, u in U.items()},
        {n: v[:, p[n]] for n, v in V.items()},
        {n: m[:, p[n]] for n, m in masks.items()},
    )
    assert torch.allclose(out, target.masked(x, U, V, masks), atol=1e-5)


def test_masks_for_another_number_of_rows() -> None:
    target, x = Target(token_model()), tokens(2, generator(3))
    U, V = random_UV(target, R=1)
    masks = {**random_masks(target, U, x), "mix": torch.ones(1, 5, 2)}
    with pytest.raises(ValueError, match="'mix' are for 2 rows of 5 .* expected 6 rows of 5"):
        target.masked(x, U, V, masks)


# No trace


def test_wrapping_and_running_leave_the_target_as_found(case: tuple[nn.Module, Tensor]) -> None:
    module, x = case
    module.train()
    module(x).square().mean().backward()
    next(module.parameters()).requires_grad_(False)
    module.register_forward_hook(lambda *_: None)
    before = state_of(module)
    target = Target(module)
    U, V = random_UV(target, R=1)
    target.record(x)
    target.masked(x, U, V, random_masks(target, U, x))
    assert state_of(module) == before
    assert not target.module.training
    assert not any(p.requires_grad for p in target.module.parameters())
    assert all("forward" not in vars(m) for m in target.module.modules())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_pass_puts_every_forward_back(error: type[BaseException]) -> None:
    model = mlp()

    def fail(*_: object) -> None:
        raise error

    model.body[1].register_forward_hook(fail)
    target = Target(model)
    U, V = random_UV(target, R=1)
    x = randn(2, 3)
    for attempt in (lambda: target.record(x), lambda: target.masked(x, U, V, dict.fromkeys(U))):
        with pytest.raises(error):
            attempt()
        assert all("forward" not in vars(m) for m in target.module.modules())


def test_a_forward_of_the_users_own_survives() -> None:
    """A module whose `forward` was replaced on the instance keeps that replacement."""
    model = mlp()
    own = model.head["out"].forward
    model.head["out"].forward = lambda a: 2 * own(a)
    x = randn(2, 3)
    want = model(x)
    target = Target(model)
    mine = target.sites["head.out"].__dict__["forward"]
    out, _ = target.record(x)
    assert torch.allclose(out, want)
    assert target.sites["head.out"].__dict__["forward"] is mine
