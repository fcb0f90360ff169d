"""The residual MLP: its computation and training; its exact shortcut against the plain path."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spd_mini import Config, recovery
from spd_mini.run import Run
from spd_mini.targets import resid_mlp
from spd_mini.targets.resid_mlp import ResidualMLP, labels
from spd_mini.targets.sparse import SparseFeatures
from zoo import generator

BRIEF = dataclasses.replace(resid_mlp.RESID_MLP_2, train_steps=3, d_resid=60, n_features=9, d_mlp=4)


def by_hand() -> ResidualMLP:
    """Two features on the axes of a plane; two layers of one neuron each."""
    model = ResidualMLP(n_features=2, d_resid=2, d_mlp=1, n_layers=2)
    values = {
        "W_E": [[1.0, 0.0], [0.0, 1.0]],
        "layers.0.W_in.weight": [[1.0, -1.0]],
        "layers.0.W_out.weight": [[0.5], [2.0]],
        "layers.1.W_in.weight": [[0.0, 1.0]],
        "layers.1.W_out.weight": [[1.0], [0.0]],
    }
    model.load_state_dict({k: torch.tensor(v) for k, v in values.items()})
    return model


def test_forward_by_hand() -> None:
    """x = (1, ¼): neuron 0 reads ¾; stream (1.375, 1.75); neuron 1 reads 1.75; out (3.125, 1.75).

    x = (0, 1): neuron 0 reads −1 and is silent; neuron 1 reads 1: out (1, 1).
    """
    out = by_hand()(torch.tensor([[1.0, 0.25], [0.0, 1.0]]))
    assert out.tolist() == [[3.125, 1.75], [1.0, 1.0]]
    folded = resid_mlp.folded(by_hand(), torch.tensor([[1.0, 0.25], [0.0, 1.0]]))
    assert folded.tolist() == [[3.125, 1.75], [1.0, 1.0]]


def test_neuron_contributions_by_hand() -> None:
    """Neuron 0: (½·1, 2·(−1)) for features 0 and 1; then two pieces that halve the work."""
    model = by_hand()
    W_in, W_out = (model.get_parameter(f"layers.0.{n}.weight").detach() for n in ("W_in", "W_out"))
    model_contributions = recovery.neuron_contributions(model.W_E, W_in, W_out)
    assert model_contributions.tolist() == [[0.5], [-2.0]]
    U, V = torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, -1.0], [0.1, 0.1]])
    best, which = recovery.best_contributions(model.W_E, U, V, W_out)
    # Piece 0: (½, −2). Piece 1: ½·3·0.1 = 0.15 and 2·3·0.1 = 0.6. Largest: 0 for x₀, 1 for x₁.
    assert which.tolist() == [0, 1]
    assert best.flatten().tolist() == pytest.approx([0.5, 0.6])


def test_correlation_and_slope_by_hand() -> None:
    """y = 2x + 1 exactly; then x = (0, 1, 2), y = (0, 1, 0): covariance 0."""
    x = torch.tensor([0.0, 1.0, 2.0])
    assert recovery.correlation_and_slope(x, 2 * x + 1) == pytest.approx((1.0, 2.0))
    assert recovery.correlation_and_slope(x, torch.tensor([0.0, 1.0, 0.0])) == (0.0, 0.0)
    assert recovery.correlation_and_slope(x, torch.zeros(3)) == (0.0, 0.0)


def test_labels() -> None:
    assert labels(torch.tensor([-1.0, 0.0, 0.5])).tolist() == [-1.0, 0.0, 1.0]


def test_truth_names_every_matrix() -> None:
    truth = ResidualMLP(7, 30, 3, 2).truth()
    assert truth.patterns == {
        "layers.0.W_in": recovery.Identity(7),
        "layers.0.W_out": recovery.Dense(3),
        "layers.1.W_in": recovery.Identity(7),
        "layers.1.W_out": recovery.Dense(3),
    }
    assert torch.equal(truth.probes, 0.75 * torch.eye(7))
    assert (truth.max_faithfulness, truth.ml2r_range, truth.columns_of) == (0.02, None, None)


def test_the_embedding_is_unit_and_fixed() -> None:
    model = BRIEF.train(3)
    assert torch.allclose(model.W_E.norm(dim=1), torch.ones(9))
    assert "W_E" not in dict(model.named_parameters())
    torch.manual_seed(3)
    assert torch.equal(model.W_E, ResidualMLP(9, 60, 4, 2).W_E)


def test_training_repeats_and_leaves_the_global_seed_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = (BRIEF.train(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name])
        assert not torch.equal(value, c.state_dict()[name])


@pytest.mark.slow
def test_training_learns_the_labels() -> None:
    """From y ≈ x (loss E[relu(x)²] = p/6) to well below a third of it."""
    small = dataclasses.replace(BRIEF, n_features=6, d_mlp=6, train_steps=300, train_rows=64)
    model = small.train(0)
    assert model.training_info["losses"][0] < 0.3 * small.feature_probability / 6
    out = model(0.75 * torch.eye(6)).detach().diagonal()
    assert float(out.min()) > 1.2, "x + relu(x) is 1.5 there, x alone 0.75"


def test_folded_output_equals_the_plain_one() -> None:
    model = BRIEF.train(0).double()
    x = torch.randn(11, 9, generator=generator(), dtype=torch.float64)
    assert torch.allclose(resid_mlp.folded(model, x), model(x), atol=1e-12)


@settings(max_examples=12, deadline=None)
@given(
    layers=st.integers(1, 3),
    restarts=st.integers(1, 2),
    samples=st.integers(1, 2),
    shared=st.booleans(),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_shortcut_equals_the_plain_path(
    layers: int, restarts: int, samples: int, shared: bool, seed: int, dtype: torch.dtype
) -> None:
    """Losses and gradients, to 1e-5 in float32 and 1e-10 in float64."""
    torch.manual_seed(seed)
    target = ResidualMLP(n_features=7, d_resid=40, d_mlp=5, n_layers=layers).to(dtype)
    data = SparseFeatures(7, 0.2, low=-1.0, stratified=True)

    def sample(n: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = data(n, g)
        assert isinstance(x, torch.Tensor)
        return x.to(dtype), weight.to(dtype)

    config = Config(
        C={"*W_in": 9, "*W_out": 6},
        steps=5,
        batch_size=17,
        p={"*W_in": 2.0, "*W_out": 0.7},
        importance_coeff=1e-2,
        mask_samples=samples,
        restarts=restarts,
        layerwise_masks="shared" if shared else "fresh",
    )
    results = []
    for shortcuts in (True, False):
        settings_ = dataclasses.replace(config, shortcuts=shortcuts)
        run = Run(target, sample, settings_, None, None, seed, torch.device("cpu"))
        x, weight = run.batches.next()
        terms = run.losses(x, weight)
        grads = torch.autograd.grad(terms.sum(), list(run.params.values()))
        results.append((terms, grads))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    (a, a_grads), (b, b_grads) = results
    assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    for g, h in zip(a_grads, b_grads, strict=True):
        assert float((g - h).abs().max()) <= tolerance * max(float(h.abs().max()), 1.0)


def test_the_shortcut_is_used_only_where_it_applies() -> None:
    target = BRIEF.train(0)
    assert target.shortcut(["layers.0.W_in"]) is None
    assert target.shortcut([n for pair in target.pairs for n in pair]) is not None
    config = Config(C=4, steps=2, batch_size=8)
    for modules in (None, ["layers.0.*"]):
        run = Run(target, BRIEF.sampler(), config, modules, None, 0, torch.device("cpu"))
        run.train_step()
        run.flush()
        assert run.log.shape == (1, 5, 1)
