"""The page computes what PyTorch computes: outputs, importances and worst masks, in a browser."""

import copy
import dataclasses
import itertools
from typing import Any

import pytest
import torch
from explorer.making import (
    Chain,
    decomposition,
    exact_residual,
    memory,
    random_memory,
    resid_mlp,
    residual,
    tms,
)
from playwright.sync_api import Page

import spd_mini as spd
from browsing import OpenPage
from spd_mini import edit, explorer
from spd_mini.explorer import residual as folding
from spd_mini.explorer.export import structure_of
from spd_mini.explorer.html import source
from spd_mini.explorer.switchboard import basis, noises
from spd_mini.targets.facts import Facts
from spd_mini.targets.resid_mlp import RESID_MLP_2

TIES = {"decoder": "encoder"}
TOLERANCE = 1e-5


def trained() -> spd.Decomposition:
    """A small residual MLP of two layers, trained and decomposed for a moment."""
    small = dataclasses.replace(
        RESID_MLP_2, n_features=8, d_mlp=5, d_resid=60, train_steps=200, feature_probability=0.1
    )
    target = small.train(0)
    config = dataclasses.replace(small.config, steps=150, batch_size=128, C=12)
    return spd.decompose(target, small.sampler(), config, device="cpu", progress=False)


CASES = {
    "5-2": lambda: decomposition(tms(5, 2, False, 1), 12, 1, TIES),
    "5-2, untied components": lambda: decomposition(tms(5, 2, False, 2), 7, 2, {}),
    "5-2 with identity": lambda: decomposition(tms(5, 2, True, 3), 20, 3, TIES),
    "1 subcomponent": lambda: decomposition(tms(2, 1, False, 4), 1, 4, TIES),
    "40-10": lambda: decomposition(tms(40, 10, False, 5), 320, 5, TIES),
    "40-10 with identity": lambda: decomposition(tms(40, 10, True, 6), 60, 6, TIES),
    "chain with biases": lambda: decomposition(Chain([4, 6, 3, 5], "relu"), 9, 7, {}),
    "residual, 1 layer": lambda: decomposition(residual(1), 9, 11, {}),
    "residual, 2 layers": lambda: decomposition(residual(2), 9, 12, {}),
    "residual, 3 layers": lambda: decomposition(residual(3, 7, 3), 6, 13, {}),
    "residual, 2 layers, trained": trained,
    "residual by hand": lambda: exact_residual(1, noise=0.02),
    "residual by hand, 2 layers": lambda: exact_residual(2, noise=0.02),
    "chain without activation": lambda: decomposition(Chain([3, 3], "none"), 8, 9, {}),
}

FORWARD = """([root, cases]) => cases.map((one) => {
  const got = document.querySelectorAll(".spd-explorer")[root].spdExplorer.forward(one);
  return Object.fromEntries(Object.entries(got).map(([name, value]) =>
    [name, Array.isArray(value) ? value.map((v) => Array.from(v)) : Array.from(value)]));
})"""


def random_case(d: spd.Decomposition, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One input in the sliders' range, and masks of which some lie outside [g, 1] and [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    low, high = structure_of(d.target)["input"]
    n = structure_of(d.target)["features"]
    x = low + (high - low) * torch.rand(1, n, generator=generator)
    x = x * (torch.rand(1, n, generator=generator) < 0.7)
    masks = {k: 1.2 * torch.rand(1, C, generator=generator) - 0.1 for k, C in d.C.items()}
    return x, masks


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_importances_equal_pytorch(case: str, open_page: OpenPage) -> None:
    d = CASES[case]()
    if case.endswith("trained"):
        first, last = d.history["total"][0], d.history["total"][-1]
        assert last < 0.9 * first, "nothing was learnt"
    names = structure_of(d.target)["layers"]
    page = open_page(html=spd.explore(d)._repr_html_())
    drawn = [random_case(d, seed) for seed in range(8)]
    sent: list[dict[str, Any]] = [
        {"x": x[0].tolist(), "masks": [masks[n][0].tolist() for n in names]} for x, masks in drawn
    ]
    sent[-1].pop("masks")  # no masks: all ones, as in Decomposition.__call__
    got = page.evaluate(FORWARD, [0, sent])
    spread = set()
    for (x, masks), entry, answer in zip(drawn, sent, got, strict=True):
        g, gamma, h = d.causal_importance(x), d.gate_logits(x), d.inner(x)
        close(answer["target"], d.target(x)[0])
        close(answer["output"], d(x, masks if "masks" in entry else None)[0])
        for i, name in enumerate(names):
            close(answer["g"][i], g[name][0])
            close(answer["h"][i], h[name][0])
            close(answer["gamma"][i], gamma[name][0])
            spread |= {"floor" if v == 0 else "ceiling" if v == 1 else "inside" for v in g[name][0]}
    assert spread == {"floor", "ceiling", "inside"} or min(d.C.values()) == 1


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_residual_with_live_pieces_only_equals_edited_weights(
    n_layers: int, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not shown stays on: the plain target with W minus the parts switched off."""
    d = decomposition(residual(n_layers, 7, 3), 6, 20 + n_layers, {})
    names = structure_of(d.target)["layers"]
    monkeypatch.setattr(folding, "MOST", 0)
    shown = spd.explore(d)
    ids = [layer["ids"] for layer in shown.payload["layers"]]
    assert any(len(own) < 6 for own in ids) and all(own == sorted(own) for own in ids)
    page = open_page(html=shown._repr_html_())
    words = shown.description.rsplit(" ", 1)[1].rstrip(".")
    assert f"Largest change {words} " in page.locator(".spd-figures").inner_text()
    generator = torch.Generator().manual_seed(0)
    for seed in range(4):
        x, _ = random_case(d, seed)
        masks = [torch.rand(len(own), generator=generator) for own in ids]
        edited = copy.deepcopy(d.target)
        with torch.no_grad():
            for name, own, m in zip(names, ids, masks, strict=True):
                weight = edited.get_parameter(f"{name}.weight")
                for c, strength in zip(own, m.tolist(), strict=True):
                    weight.sub_((1 - strength) * torch.outer(d.U[name][:, c], d.V[name][c]))
        entry = {"x": x[0].tolist(), "masks": [m.tolist() for m in masks]}
        [answer] = page.evaluate(FORWARD, [0, [entry]])
        close(answer["target"], d.target(x)[0])
        close(answer["output"], edited(x)[0])
        g = d.causal_importance(x)
        for i, (name, own) in enumerate(zip(names, ids, strict=True)):
            close(answer["g"][i], g[name][0, own])


@pytest.mark.slow
def test_residual_mlp_of_the_books_size_equals_pytorch(open_page: OpenPage) -> None:
    """100 features, C 130 and 60: with the digits that fit, on inputs as the data has them."""
    d = resid_mlp(1, noise=0.002)
    names = structure_of(d.target)["layers"]
    page = open_page(html=spd.explore(d)._repr_html_())
    generator = torch.Generator().manual_seed(0)
    for on in (1, 2, 3, 5):
        x = torch.zeros(1, 100)
        x[0, torch.randperm(100, generator=generator)[:on]] = 2 * torch.rand(on) - 1
        masks = {n: torch.rand(1, C, generator=generator) for n, C in d.C.items()}
        entry = {"x": x[0].tolist(), "masks": [masks[n][0].tolist() for n in names]}
        [answer] = page.evaluate(FORWARD, [0, [entry]])
        close(answer["target"], d.target(x)[0])
        close(answer["output"], d(x, masks)[0])
        g, h = d.causal_importance(x), d.inner(x)
        for i, name in enumerate(names):
            close(answer["h"][i], h[name][0])
            close(answer["g"][i], g[name][0])


def span(d: spd.Decomposition) -> torch.Tensor:
    """The basis in which inputs travel: orthonormal, and all keys and their noise lie in it."""
    assert isinstance(d.target, Facts)
    keys, noise = d.target.keys, noises(d.target.keys.shape[1])
    Q = basis(keys, noise)
    torch.testing.assert_close(Q.mT @ Q, torch.eye(Q.shape[1], dtype=Q.dtype))
    both = torch.cat([keys, noise]).double()
    torch.testing.assert_close(both @ Q @ Q.mT, both)
    return Q


def asked(d: spd.Decomposition, page: Page, ids: list[list[int]], seed: int) -> None:
    """One random input and random factors, of which some are 0 and 1: the page against `edit`."""
    generator = torch.Generator().manual_seed(seed)
    Q = span(d)
    z = torch.randn(Q.shape[1], generator=generator) / Q.shape[1] ** 0.5
    x = (Q @ z.double()).float()
    factors = []
    for own in ids:
        drawn = 3 * torch.rand(len(own), generator=generator) - 1
        kind = torch.randint(3, (len(own),), generator=generator)
        factors.append(torch.where(kind == 0, drawn, (kind == 1).float()))
    asks = {
        (name, c): float(f)
        for name, own, values in zip(d.names, ids, factors, strict=True)
        for c, f in zip(own, values, strict=True)
    }
    entry = {"x": z.tolist(), "masks": [values.tolist() for values in factors]}
    [answer] = page.evaluate(FORWARD, [0, [entry]])
    want = edit.apply(d, edit.Edit(factors=asks))(x)
    assert float((want - d.target(x)).detach().abs().max()) > 0.01, "the factors change nothing"
    close(answer["target"], d.target(x))
    close(answer["output"], want)
    close(answer["edited"], want)


@pytest.mark.parametrize("n_paths", [1, 2, 3])
def test_edited_facts_equal_pytorch(n_paths: int, open_page: OpenPage) -> None:
    """Unedited, and with pieces scaled: in the pass that keeps pieces, and folded into weights."""
    d = random_memory(n_paths, n_paths)
    shown = explorer.switchboard(d)
    assert [layer["name"] for layer in shown.payload["layers"]] == d.names
    ids = [layer["ids"] for layer in shown.payload["layers"]]
    assert all(ids) and any(len(own) < 8 for own in ids), "some pieces matter nowhere"
    page = open_page(html=shown._repr_html_())
    for seed in range(8):
        asked(d, page, ids, seed)


@pytest.mark.slow
@pytest.mark.parametrize(("d_mlp", "n_paths"), [(96, 1), (64, 2)])
def test_facts_of_the_books_size_equal_pytorch(
    d_mlp: int, n_paths: int, open_page: OpenPage
) -> None:
    """48 facts, keys of 128: with the digits that fit."""
    d = memory(48, 4, 128, d_mlp, n_paths, spare=16, noise=0.01)
    shown = explorer.switchboard(d)
    page = open_page(html=shown._repr_html_())
    for seed in range(4):
        asked(d, page, [layer["ids"] for layer in shown.payload["layers"]], seed)


ASKED = """([factor, noise]) => {
  const { state, asked } = document.querySelector(".spd-explorer").spdExplorer;
  Object.assign(state, { factor, noise });
  const { before, after, extents } = asked();
  return [Array.from(before.p), Array.from(after.p), after.says, extents];
}"""


@pytest.mark.parametrize(("n_paths", "noise"), [(1, 0.0), (2, 0.0), (1, 0.7), (2, 1.5)])
def test_probabilities_equal_pytorch(n_paths: int, noise: float, open_page: OpenPage) -> None:
    """Means over paraphrases with the page's own noise, before and after an edit."""
    d = random_memory(n_paths, 7)
    facts = d.target
    assert isinstance(facts, Facts)
    shown = explorer.switchboard(d, fact=2, threshold=0.3)
    page = open_page(html=shown._repr_html_())
    before, after, says, extents = page.evaluate(ASKED, [-0.4, noise])
    g = d.causal_importance(facts.keys)
    parts = {n: (g[n][2] > 0.3).nonzero()[:, 0].tolist() for n in d.names}
    assert any(parts.values())
    x = facts.keys + noise * noises(9)[:, None]
    for page_says, model in ((before, facts), (after, edit.scale(d, parts, -0.4))):
        mean = model(x).softmax(-1).mean(0)
        close(page_says, mean[torch.arange(7), facts.answers])
    assert says == mean.argmax(-1).tolist()
    deltas = edit.change(d, edit.scaling(parts, -0.4))
    for name, extent in zip(d.names, extents, strict=True):
        delta = deltas.get(name, torch.zeros(1, 1))
        assert extent["rank"] == int(torch.linalg.matrix_rank(delta))
        assert extent["norm"] == pytest.approx(float(delta.norm()), rel=1e-4, abs=1e-9)


def close(page_says: list[float], torch_says: torch.Tensor) -> None:
    """Within 1e-5 (relative to the value where that exceeds 1)."""
    got = torch.tensor(page_says, dtype=torch.float64)
    torch.testing.assert_close(got, torch_says.detach().double(), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.slow
def test_erf_and_sigmoids_equal_pytorch(open_page: OpenPage) -> None:
    """Over the whole range of arguments, not only those that a model happens to produce."""
    page = open_page(html="<p>module under test</p>")
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    got = page.evaluate(
        """async ([text, zs]) => {
          const address = "data:text/javascript," + encodeURIComponent(text);
          const { erf, gelu, lowerLeaky, upperLeaky, clamp01 } = await import(address);
          return zs.map((z) => [erf(z), gelu(z), lowerLeaky(z), upperLeaky(z), clamp01(z)]);
        }""",
        [source("model.js"), z.tolist()],
    )
    want = torch.stack(
        [
            torch.erf(z),
            torch.nn.functional.gelu(z),
            spd.importance.lower_leaky(z),
            spd.importance.upper_leaky(z),
            spd.importance.hard_sigmoid(z),
        ],
        dim=1,
    )
    torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), want, atol=1e-12, rtol=0)


SEARCH = """(x) => {
  const found = document.querySelector(".spd-explorer").spdExplorer.search(x);
  return { max: found.max, exact: found.exact, masks: found.masks.map((m) => Array.from(m)) };
}"""


def brute_force(d: spd.Decomposition, x: torch.Tensor) -> float:
    """Largest output change over every corner and, as a check on the corners, random masks."""
    names = structure_of(d.target)["layers"]
    g = d.causal_importance(x)
    sizes = [d.C[n] for n in names]
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=sum(sizes))))
    inside = torch.rand(20_000, sum(sizes), generator=torch.Generator().manual_seed(0))
    worst = []
    for r in (bits, inside):
        parts = dict(zip(names, r.split(sizes, dim=1), strict=True))
        masks = {n: g[n] + (1 - g[n]) * parts[n] for n in names}
        out = d(x.expand(len(r), -1), masks)
        worst.append(float((out - d.target(x)).abs().max()))
    assert worst[1] <= worst[0] + TOLERANCE, "a mask inside beat every corner"
    return worst[0]


@pytest.mark.parametrize("seed", range(6))
def test_worst_case_equals_brute_force(seed: int, open_page: OpenPage) -> None:
    d = decomposition(tms(4, 2, False, seed), 6, seed, TIES if seed % 2 else {})
    x, _ = random_case(d, seed)
    page = open_page(html=spd.explore(d)._repr_html_())
    found = page.evaluate(SEARCH, x[0].tolist())
    assert found["max"] == pytest.approx(brute_force(d, x), abs=TOLERANCE)
    masks = dict(zip(structure_of(d.target)["layers"], found["masks"], strict=True))
    for name, g in d.causal_importance(x).items():
        m = torch.tensor(masks[name])
        assert (m >= g[0] - 1e-6).all() and (m <= 1).all(), "a worst mask is not allowed"


def test_worst_case_of_a_large_model_beats_random_masks(open_page: OpenPage) -> None:
    """No certificate at 60 × 2 masks, but far above what 2,000 random draws find."""
    d = decomposition(Chain([12, 6, 12], "none"), 60, 10, {})
    x, _ = random_case(d, 0)
    page = open_page(html=spd.explore(d)._repr_html_())
    found = page.evaluate(SEARCH, x[0].tolist())
    rows = x.expand(2000, -1)
    masks = spd.masks.random(d.causal_importance(rows), torch.Generator().manual_seed(0))
    assert not found["exact"]
    assert found["max"] > 1.2 * float((d(rows, masks) - d.target(x)).abs().max())


def test_worst_case_of_a_residual_mlp_beats_random_masks(open_page: OpenPage) -> None:
    """With a ReLU inside corners are no certificate, and the page does not claim one."""
    d = decomposition(residual(2, 8, 5), 10, 3, {})
    page = open_page(html=spd.explore(d)._repr_html_())
    for seed in range(3):
        x, _ = random_case(d, seed)
        found = page.evaluate(SEARCH, x[0].tolist())
        rows = x.expand(2000, -1)
        masks = spd.masks.random(d.causal_importance(rows), torch.Generator().manual_seed(0))
        assert not found["exact"]
        assert found["max"] > 1.2 * float((d(rows, masks) - d.target(x)).abs().max())
        own = {n: torch.tensor([m]) for n, m in zip(d.names, found["masks"], strict=True)}
        assert float((d(x, own) - d.target(x)).abs().max()) == pytest.approx(found["max"], abs=1e-5)
        for name, g in d.causal_importance(x).items():
            assert (own[name] >= g - 1e-5).all() and (own[name] <= 1).all()


ATTACK = """(x) => document.querySelector(".spd-explorer").spdExplorer.attack(0, x)
  .rungs.map(({ max, masks }) => [max, masks.map((m) => Array.from(m))])"""


def one_by_one(d: spd.Decomposition, x: torch.Tensor) -> list[float]:
    """For k = 0, 1, …: the largest output change after at most k masks were switched to their
    floor, each the one that pushes one output furthest one way; every switch is tried out.
    """
    g, want = d.causal_importance(x), d.target(x)
    bias = d.target.get_parameter(f"{d.names[-1]}.bias")
    best: list[float] = []

    def before_relu(masks: dict[str, torch.Tensor]) -> torch.Tensor:
        a = x
        for n in d.names:
            a = (masks[n] * (a @ d.V[n].mT)) @ d.U[n].mT
        return (a + bias)[0]

    for output, sign in itertools.product(range(want.shape[1]), (1, -1)):
        masks = {n: torch.ones(1, C) for n, C in d.C.items()}
        for k in itertools.count():
            change = float((d(x, masks) - want).abs().max())
            best[k:] = [max([change, *best[k : k + 1]]), *best[k + 1 :]]
            now, trials = before_relu(masks)[output], []
            for n in d.names:
                for c in (masks[n][0] > g[n][0]).nonzero()[:, 0].tolist():
                    trial = {m: t.clone() for m, t in masks.items()}
                    trial[n][0, c] = g[n][0, c]
                    push = sign * (before_relu(trial)[output] - now)
                    trials.append((float(push), trial))
            gain, masks = max(trials, key=lambda pair: pair[0], default=(0.0, masks))
            if gain <= 1e-7:
                break
    return list(itertools.accumulate(best, max))


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_adversary_switches_the_masks_that_push_most(seed: int, open_page: OpenPage) -> None:
    """Against a search that tries every switch; the last rung is the worst of all corners."""
    d = decomposition(tms(4, 2, False, seed), 6, seed, TIES if seed % 2 else {})
    x, _ = random_case(d, seed)
    g = d.causal_importance(x)
    page = open_page(html=explorer.adversary([("random", d)])._repr_html_())
    found = page.evaluate(ATTACK, x[0].tolist())
    want = one_by_one(d, x)
    assert len(found) == 1 + sum(int((v < 1).sum()) for v in g.values())
    want += want[-1:] * (len(found) - len(want))
    want[-1] = max(want[-1], brute_force(d, x))
    assert [change for change, _ in found] == pytest.approx(want, abs=TOLERANCE)
    assert want[-1] > want[0] + 1e-3, "masks do harm"
    for k, (change, masks) in enumerate(found):
        own = {n: torch.tensor([m]) for n, m in zip(d.names, masks, strict=True)}
        assert float((d(x, own) - d.target(x)).abs().max()) == pytest.approx(change, abs=TOLERANCE)
        assert all(bool(((own[n] - g[n]).abs() < 1e-6)[own[n] < 1].all()) for n in d.names)
        assert sum(int((m < 1).sum()) for m in own.values()) <= k


@pytest.mark.parametrize(
    "case",
    [
        "5-2, untied components",
        "chain without activation",
        "residual by hand",
        "residual by hand, 2 layers",
    ],
)
def test_break_points_equal_a_scan(case: str, open_page: OpenPage) -> None:
    """Where pulling one mask alone first breaks the output, against 2,001 steps in PyTorch.

    The subcomponents are made faithful first: with all masks at 1 nothing is broken yet.
    """
    d = CASES[case]()
    for name, W in d.weight.items():
        if name not in d.wrapped.tied:
            d.U[name] = d.U[name] + (W - d.U[name] @ d.V[name]) @ torch.linalg.pinv(d.V[name])
    for name, source_ in d.wrapped.tied.items():
        d.U[name], d.V[name] = d.V[source_].mT, d.U[source_].mT
    page = open_page(html=spd.explore(d)._repr_html_())
    x = random_case(d, 1)[0]
    found = page.evaluate(
        "(x) => document.querySelector('.spd-explorer').spdExplorer.breaks(x)", x[0].tolist()
    )
    pulled = torch.linspace(1, 0, 2001)
    kinds = set()
    for name, says in zip(structure_of(d.target)["layers"], found, strict=True):
        for c, point in enumerate(says):
            masks = torch.ones(2001, d.C[name])
            masks[:, c] = pulled
            off = (d(x.expand(2001, -1), {name: masks}) - d.target(x)).abs().amax(1) > 0.1
            kinds.add(point is None)
            if point is None:
                assert not off.any()
            else:
                assert float(pulled[off.float().argmax()]) == pytest.approx(point, abs=1e-3)
    assert kinds == {True, False}
