"""Splits, pruning and births: made where they are due, and nothing computed changes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spd_mini import Config, moves
from spd_mini.checkpoint import restore, save
from spd_mini.lines import lines, rays
from spd_mini.run import Run
from spd_mini.targets.sparse import SparseFeatures
from spd_mini.targets.tms import TMS
from zoo import generator, tms

N_FEATURES, C = 8, 6
CONFIG = Config(C=C, steps=40, batch_size=256, gate_hidden=4, split_every=4, split_until=0.5)


class Wide(nn.Module):
    """One matrix (3, 8) on sparse features."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(N_FEATURES, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.map(x)
        return out


def sample(n: int, g: torch.Generator) -> Tensor:
    x = SparseFeatures(N_FEATURES, 0.06, low=-1.0)(n, g)
    assert isinstance(x, Tensor)
    return x


def planted(reads: dict[int, dict[int, float]], restarts: int = 1, pieces: int = C) -> Run:
    """A run in which piece c reads the features reads[c] and is on above |h| = 0.18; others off."""
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, restarts=restarts, C=pieces)
    run = Run(Wide(), sample, config, None, None, 0, torch.device("cpu"))
    with torch.no_grad():
        for w in run.gates:
            w.zero_()
        run.gates.b_out.fill_(-1.0)
        run.params["V/map"].mul_(1e-3)
        for c, row in reads.items():
            run.params["V/map"][:, c] = 0.0
            for feature, value in row.items():
                run.params["V/map"][:, c, feature] = value
            # gelu(20 (h − 0.1)) + gelu(20 (−h − 0.1)) − 1: above ½ once |h| passes 0.18
            run.gates.w_in[:, c, :2] = torch.tensor([20.0, -20.0])
            run.gates.b_in[:, c, :2] = -2.0
            run.gates.w_out[:, c, :2] = 1.0
    return run


def product(run: Run) -> Tensor:
    U, V = run.UV()
    return U["map"].detach() @ V["map"].detach()


def test_two_lines_by_hand() -> None:
    """Rows along e₀ and e₁, read alike: half each. Read as 1 : 0.03, the second carries 0.1 %."""
    a = torch.cat([torch.eye(4)[:1] * t for t in (0.5, 0.7, 0.9, 1.0, 0.8)] * 2)
    b = torch.cat([torch.eye(4)[1:2] * t for t in (0.5, 0.7, 0.9, 1.0, 0.8)] * 2)
    found = lines(torch.cat([a, b]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert found is not None
    assert sorted(int(line.abs().argmax()) for line in found) == [0, 1]
    for line in found:
        assert float(line.norm()) == pytest.approx(1)
    assert lines(torch.cat([a, b]), torch.tensor([1.0, 0.03, 0.0, 0.0])) is None
    assert lines(a, torch.tensor([1.0, 0.0, 0.0, 0.0])) is None


@pytest.mark.parametrize(("features", "clear"), [(2, True), (3, True), (4, True), (6, False)])
def test_a_few_lines_are_told_apart_and_many_are_not(features: int, clear: bool) -> None:
    """Read alike, each carries 1/n: four of six are two thirds, and the third line counts."""
    t = torch.linspace(0.5, 1, 5)
    a = torch.einsum("t,ij->tij", t, torch.eye(8)[:features]).flatten(0, 1)
    found = lines(a, torch.ones(8))
    assert (found is not None) is clear
    if found:
        assert len({int(line.argmax()) for line in found}) == 2


def test_too_few_rows_of_one_sign_decide_nothing() -> None:
    a = torch.eye(2).repeat(3, 1)
    assert lines(a, torch.ones(2)) is None
    assert lines(a.repeat(2, 1), torch.ones(2)) is not None
    few = torch.cat([torch.eye(2)[:1].repeat(30, 1), torch.eye(2)[1:].repeat(3, 1)])
    assert lines(few, torch.ones(2)) is None, "three rows make no line"


def test_a_feature_that_looks_different_when_negative_is_one_feature() -> None:
    """Positive inputs along (1, 1), negative ones along −(1, 0): one sign at a time, one line."""
    t = torch.linspace(0.2, 1, 20)[:, None]
    a = torch.cat([t * torch.tensor([1.0, 1.0]), -t * torch.tensor([1.0, 0.0])])
    assert lines(a, torch.tensor([1.0, 0.5])) is None


def test_two_features_of_opposite_sign_are_two_when_they_are_far_apart() -> None:
    """Read as 1 and −1: orthogonal inputs are two lines, inputs 60° apart (cosine ½) are one."""
    t = torch.linspace(0.2, 1, 20)[:, None]
    first, v = t * torch.tensor([1.0, 0.0]), torch.tensor([1.0, -1.0])
    found = lines(torch.cat([first, t * torch.tensor([0.0, 1.0])]), v)
    assert found is not None
    assert sorted(line.abs().tolist() for line in found) == [[0, 1], [1, 0]]
    leaning = -t * torch.tensor([0.5, 0.75**0.5])
    assert lines(torch.cat([first, leaning]), torch.tensor([1.0, 0.2])) is None


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_shared_piece_is_split_and_nothing_computed_changes(restarts: int) -> None:
    run = planted({0: {2: 1.0, 5: 0.9}, 1: {7: 1.0}}, restarts)
    before, U_before = product(run), run.params["U/map"].detach().clone()
    assert moves.split_shared(run, ["map"]) == restarts
    assert torch.allclose(product(run), before - stray(before, run, U_before), atol=1e-5)
    V = run.params["V/map"].detach()
    for r in range(restarts):
        served = {int(row.abs().argmax()) for row in V[r] if float(row.abs().max()) > 0.5}
        assert served == {2, 5, 7}
        halves = [row for row in V[r] if float(row[[2, 5]].abs().max()) > 0.5]
        assert len(halves) == 2
        assert all(float(row[[2, 5]].abs().min()) < 0.15 for row in halves)
        pieces = [c for c in range(C) if float(V[r, c, [2, 5]].abs().max()) > 0.5]
        U = run.params["U/map"].detach()[r]
        assert torch.equal(U[:, pieces[0]], U[:, pieces[1]])
        for w in run.gates:
            assert torch.equal(w[r, pieces[0]], w[r, pieces[1]])
    assert moves.split_shared(run, ["map"]) == 0, "there is nothing left to split"


def stray(product_before: Tensor, run: Run, U_before: Tensor) -> Tensor:
    """What the dead piece that was taken over had contributed: U_d V_d, about 1e-3."""
    U = run.params["U/map"].detach()
    out = torch.zeros_like(product_before)
    for r in range(len(U)):
        taken = [c for c in range(C) if not torch.equal(U[r, :, c], U_before[r, :, c])]
        assert len(taken) == 1
        torch.manual_seed(0)
        fresh = Run(Wide(), sample, run.config, None, None, 0, torch.device("cpu"))
        d = taken[0]
        V_d = fresh.params["V/map"].detach()[r, d] * 1e-3
        out[r] = torch.outer(U_before[r, :, d], V_d)
    return out


def test_single_and_dense_pieces_stay_whole() -> None:
    everything = {c: dict.fromkeys(range(N_FEATURES), 1.0) for c in (1, 2)}
    run = planted({0: {3: 1.0}, **everything})
    before = {k: v.detach().clone() for k, v in run.params.items()}
    assert moves.split_shared(run, ["map"]) == 0
    for name, value in run.params.items():
        assert torch.equal(value, before[name])


def test_without_dead_pieces_nothing_is_split() -> None:
    singles = {c: {c: 1.0} for c in range(1, C)}
    assert moves.split_shared(planted({0: {0: 1.0, 7: 1.0}, **singles}), ["map"]) == 0


def test_a_copy_takes_gates_of_tied_modules_and_moments_along() -> None:
    run = Run(tms(), sparse(4), CONFIG, None, {"decoder": "encoder"}, 0, torch.device("cpu"))
    for _ in range(3):
        run.train_step()
    with torch.no_grad():
        moves.copy(run, "encoder", 0, 1, 4)
    for name, axis in (("U/encoder", 1), ("V/encoder", 0)):
        param = run.params[name]
        tensors = [
            param.detach(),
            *(run.optimizer.state[param][k] for k in ("exp_avg", "exp_avg_sq")),
        ]
        for t in tensors:
            assert torch.equal(t[0].select(axis, 1), t[0].select(axis, 4))
            assert not torch.equal(t[0].select(axis, 1), t[0].select(axis, 2))
    for module in ("encoder", "decoder"):
        start = run.columns[module].start
        for w in run.gates:
            assert torch.equal(w[0, start + 1], w[0, start + 4])


def sparse(n: int) -> SparseFeatures:
    return SparseFeatures(n, 0.3, stratified=True)


@pytest.mark.slow
def test_steps_with_splits_repeat_and_resume(tmp_path: Path) -> None:
    """The moves are part of the run: counted, repeatable, resumed to the same bits."""
    path = tmp_path / "run.ckpt"

    def fresh(source: object = None) -> Run:
        target = TMS(N_FEATURES, 3)
        torch.manual_seed(1)
        with torch.no_grad():
            for p in target.parameters():
                p.copy_(torch.randn(p.shape))
        config = dataclasses.replace(
            CONFIG, C=20, lr=1e-2, gate_lr=3e-2, prune_at=0.3, birth_from=0.3
        )
        batches = source if source is not None else sparse(N_FEATURES)
        return Run(target, batches, config, ["encoder"], None, 0, torch.device("cpu"))  # type: ignore[arg-type]

    for stored in (None, [torch.rand(256, N_FEATURES, generator=generator(i)) for i in range(5)]):
        whole, part, rest = fresh(stored), fresh(stored), fresh(stored)
        for _ in range(14):
            whole.train_step()
        for _ in range(9):
            part.train_step()
        part.flush()
        save(part, path)
        restore(rest, path)
        for _ in range(5):
            rest.train_step()
        assert rest.moves == whole.moves
        assert whole.moves["pruned"] > 0
        for name, value in whole.params.items():
            assert torch.equal(value, rest.params[name]), name


def test_when_splits_happen() -> None:
    config = Config(steps=40, split_every=4, split_until=0.5)
    assert [s for s in range(40) if config.splits_at(s, "a")] == [4, 8, 12, 16, 20]
    assert not any(Config(steps=40).splits_at(s, "a") for s in range(40))
    some = Config(steps=40, split_every={"a*": 10})
    assert [s for s in range(40) if some.splits_at(s, "a1")] == [10, 20]
    assert not any(some.splits_at(s, "b") for s in range(40))
    with pytest.raises(ValueError, match=r"split_every\['a'\] must be an integer ≥ 0, got -1"):
        Config(split_every={"a": -1})
    with pytest.raises(ValueError, match=r"split_every has a pattern 'b' that matches none"):
        Config(split_every={"b": 3}).check_patterns(["a"])


def test_pruning_removes_what_is_dead_and_nothing_else() -> None:
    run = planted({0: {2: 1.0, 5: 0.9}, 1: {7: 1.0}}, restarts=2)
    with torch.no_grad():
        run.params["V/map"][1, 4] = 0.0  # in the second restart piece 4 lives, on every input
        run.gates.b_out[1, 4] = 2.0
    before = {k: v.detach().clone() for k, v in run.params.items()}
    assert moves.prune_dead(run, ["map"]) == 2 * (C - 2) - 1
    U, V = run.params["U/map"], run.params["V/map"]
    for r, live in enumerate(({0, 1}, {0, 1, 4})):
        for c in range(C):
            if c in live:
                assert torch.equal(U[r, :, c], before["U/map"][r, :, c])
                assert torch.equal(V[r, c], before["V/map"][r, c])
            else:
                assert not bool(U[r, :, c].any())
                assert not bool(V[r, c].any())
    for name in ("w_in", "b_in", "w_out", "b_out"):
        assert torch.equal(run.params[f"gate/{name}"], before[f"gate/{name}"])


def test_what_was_pruned_stays_so_until_a_split_needs_it() -> None:
    run = planted({0: {2: 1.0, 5: 0.9}, 1: {7: 1.0}})
    for _ in range(3):
        run.train_step()  # Adam has moments now
    before = run.params["V/map"].detach().clone()
    pruned = moves.prune_dead(run, ["map"])
    dead = (run.params["V/map"] == 0).all(2)
    assert int(dead.sum()) == pruned > 0
    assert not torch.equal(before, run.params["V/map"])
    while run.step % 4:
        run.train_step()
        assert torch.equal((run.params["V/map"] == 0).all(2), dead)
    assert moves.split_shared(run, ["map"]) == 1
    assert int((run.params["V/map"] == 0).all(2).sum()) == pruned - 1


def test_a_piece_that_a_tied_module_needs_is_not_dead() -> None:
    run = Run(tms(), sparse(4), CONFIG, None, {"decoder": "encoder"}, 0, torch.device("cpu"))
    with torch.no_grad():
        for w in run.gates:
            w.zero_()
        run.gates.b_out.fill_(-1.0)
        run.gates.b_out[0, run.columns["decoder"].start + 3] = 2.0
    assert moves.prune_dead(run, ["encoder"]) == C - 1
    assert run.params["V/encoder"][0].any(1).tolist() == [c == 3 for c in range(C)]


def dense(reads: Tensor, silent: Tensor, restarts: int = 1) -> Run:
    """A run whose first pieces, on at every input, read the rows `reads`; the next ones are off."""
    run = planted({}, restarts)
    both = torch.cat([reads, silent])
    with torch.no_grad():
        run.params["V/map"].zero_()
        run.params["V/map"][:, : len(both)] = both
        run.gates.b_out[:, : len(reads)] = 2.0
    return run


@pytest.mark.parametrize("restarts", [1, 2])
def test_dense_pieces_are_as_many_as_the_directions_they_read(restarts: int) -> None:
    a, b = torch.eye(N_FEATURES)[:2]
    run = dense(torch.stack([a + b, a - b, 3 * a]), torch.stack([a, 2 * b]), restarts)
    before = product(run)
    assert moves.prune_dead(run, ["map"]) == (C - 2) * restarts  # one too many, and all silent ones
    torch.testing.assert_close(product(run), before)
    assert (run.params["V/map"] != 0).any(2).sum(1).tolist() == [2] * restarts


def test_what_silent_pieces_hold_of_a_further_direction_goes_to_one_of_them() -> None:
    a, b, c = torch.eye(N_FEATURES)[:3]
    run = dense(torch.stack([a + b, a - b]), torch.stack([0.5 * c + a, 0.4 * c, 0.6 * c]))
    with torch.no_grad():
        run.params["U/map"][0, :, 2:] = run.params["U/map"][0, :, [2]]
    before = product(run)
    assert moves.prune_dead(run, ["map"]) == C - 3
    torch.testing.assert_close(product(run), before)
    (born,) = (run.params["V/map"][0, 2:] != 0).any(1).nonzero()[:, 0].tolist()
    read = run.params["V/map"][0, 2 + born]
    torch.testing.assert_close((read / read.norm()).abs(), c, atol=1e-5, rtol=0)
    assert run.gates.b_out[0, 2 + born] == 2.0  # on as its model is
    with torch.no_grad():  # held only a little, it is no mechanism
        run = dense(torch.stack([a + b, a - b]), 0.01 * torch.stack([c, c]))
    assert moves.prune_dead(run, ["map"]) == C - 2


def test_when_pruning_happens() -> None:
    config = Config(steps=40, prune_at=0.6)
    assert [s for s in range(40) if config.prunes_at(s, "a")] == [24]
    assert not any(Config(steps=40).prunes_at(s, "a") for s in range(40))
    some = Config(steps=40, prune_at={"a*": 0.5})
    assert [s for s in range(40) if some.prunes_at(s, "a1")] == [20]
    assert not any(some.prunes_at(s, "b") for s in range(40))
    with pytest.raises(ValueError, match=r"prune_at must be in \[0, 1\), got 1"):
        Config(prune_at=1)
    with pytest.raises(ValueError, match=r"prune_at\['a'\] must be in \[0, 1\), got -0.1"):
        Config(prune_at={"a": -0.1})
    with pytest.raises(ValueError, match=r"prune_at has a pattern 'b' that matches none"):
        Config(prune_at={"b": 0.3}).check_patterns(["a"])


def test_rays_by_hand() -> None:
    """Weight 5 × 2 on ±e₁ (its negative side the heavier), 4 × 1 on e₀, too few rows on e₂."""
    e = torch.eye(3)
    a = torch.cat(
        [e[:1].repeat(4, 1), -e[1:2].repeat(3, 1), e[1:2].repeat(2, 1), e[2:].repeat(3, 1)]
    )
    a = torch.cat([a * torch.linspace(0.5, 2, 12)[:, None], 7 * e[:1]])
    weight = torch.tensor([1.0] * 4 + [2.0] * 5 + [9.0] * 3 + [0.0])
    found = list(rays(a, weight))
    assert [q.tolist() for q, _ in found] == [[0, -1, 0], [1, 0, 0]]
    assert [rows.tolist() for _, rows in found] == [[4, 5, 6, 7, 8], [0, 1, 2, 3]]
    assert list(rays(a, torch.zeros(13))) == []


SINGLES = {0: {2: 1.0}, 1: {7: 0.4}, 2: {0: -1.0}, 3: {1: 1.0}}
"""Pieces 0 to 3 serve features 2, 7, 0 and 1; nothing serves 3, 4, 5 and 6."""


@pytest.mark.parametrize("restarts", [1, 2])
def test_unserved_inputs_get_a_dead_piece_and_nothing_computed_changes(restarts: int) -> None:
    run = planted(SINGLES, restarts, pieces=10)
    with torch.no_grad():
        run.params["V/map"][:, 8:] = 0.0  # what is taken over holds nothing: U V stays exactly
        run.params["V/map"][:, 4:6, 3:7] = 0.3  # silent, with a part of the unserved columns
        run.params["V/map"][:, 6:8] = 0.0
        run.gates.b_out[:, 4:6] = -1.0
        run.gates.w_in[:, 4:6], run.gates.w_out[:, 4:6] = 0.0, 0.0
        run.gates.b_in[:, 4:6] = 0.0
    before, old = product(run), {k: v.detach().clone() for k, v in run.params.items()}
    assert moves.give_birth(run, ["map"]) == 4 * restarts
    assert torch.allclose(product(run), before, atol=1e-6)
    V = run.params["V/map"].detach()
    for r in range(restarts):
        read = [int(V[r, c].abs().argmax()) for c in range(6, 10)]
        assert sorted(read) == [3, 4, 5, 6]
        assert float(V[r, 4:6, 3:7].abs().max()) < 0.05, "handed over"
        assert torch.equal(V[r, :4].abs() > 0.3, old["V/map"][r, :4].abs() > 0.3)
        for c in range(6, 10):
            assert any(torch.equal(run.gates.w_in[r, c], run.gates.w_in[r, k]) for k in range(4))
    assert moves.give_birth(run, ["map"]) == 0, "everything is served now, in either sign"


def test_births_end_with_the_dead_and_begin_with_the_dearest() -> None:
    run = planted(SINGLES)
    norms = run.target.weight["map"].norm(dim=0)
    assert moves.give_birth(run, ["map"]) == C - 4
    read = {int(row.abs().argmax()) for row in run.params["V/map"][0].detach()[4:]}
    assert read == set(sorted((3, 4, 5, 6), key=lambda f: -float(norms[f]))[:2])
    assert moves.give_birth(run, ["map"]) == 0, "two features are unserved and nothing is dead"


def test_what_serves_one_sign_serves_the_other() -> None:
    """On for h > 0.18 only: small and negative values of a feature that has a piece are no gap."""
    run = planted({c: {c: 1.0} for c in range(N_FEATURES)}, pieces=12)
    with torch.no_grad():
        run.gates.w_out[:, :, 1] = 0.0
    assert moves.give_birth(run, ["map"]) == 0


def test_dense_pieces_serve_nobody_and_teach_nobody() -> None:
    run = planted({c: {c: 1.0} for c in range(N_FEATURES)}, pieces=12)
    with torch.no_grad():
        run.gates.w_out[:, 5] = 0.0
        run.gates.b_out[:, 5] = 2.0  # on for every input
    assert moves.give_birth(run, ["map"]) == 1
    V = run.params["V/map"][0].detach()
    assert [int(row.abs().argmax()) for row in V[8:] if float(row.abs().max()) > 0.1] == [5]
    with torch.no_grad():
        run.gates.w_out.zero_()
        run.gates.b_out.fill_(-1.0)
    assert moves.give_birth(run, ["map"]) == 0, "no importance function to copy"


def test_when_births_happen() -> None:
    config = Config(steps=40, split_every={"a*": 4}, split_until=0.8, birth_from=0.6)
    assert [s for s in range(40) if config.births_at(s, "a")] == [24, 28, 32]
    assert not any(config.births_at(s, "b") for s in range(40))
    assert not any(Config(steps=40, split_every=4).births_at(s, "a") for s in range(40))
    with pytest.raises(ValueError, match=r"birth_from must be in \[0, 1\), got 1.2"):
        Config(birth_from=1.2)
    with pytest.raises(ValueError, match="birth_from needs split_every > 0"):
        Config(birth_from=0.5)


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_double_is_merged_into_the_one_that_is_on_wherever_it_is(restarts: int) -> None:
    """Piece 3 reads half as much of feature 2 as piece 0: on less often, and only there."""
    run = planted({0: {2: 1.0}, 1: {7: 1.0}, 3: {2: 0.5}}, restarts)
    U_before, V_before = (run.params[f"{k}/map"].detach().clone() for k in "UV")
    before = product(run)[:, :, 2]
    assert moves.merge_doubles(run, ["map"]) == restarts
    U, V = (run.params[f"{k}/map"].detach() for k in "UV")
    assert torch.allclose(product(run)[:, :, 2], before, atol=1e-5), "W's column stays"
    assert torch.allclose(U[:, :, 0], U_before[:, :, 0] + 0.5 * U_before[:, :, 3], atol=1e-5)
    assert not bool(V[:, 3].any() | U[:, :, 3].any())
    others = [0, 1, 2, 4, 5]
    assert torch.equal(V[:, others], V_before[:, others])
    assert moves.merge_doubles(run, ["map"]) == 0


def test_equal_doubles_leave_one_and_strangers_stay() -> None:
    run = planted({0: {2: 1.0}, 1: {7: 1.0}, 3: {2: 1.0}, 4: {2: -1.0}})
    before = product(run)[0, :, 2]
    assert moves.merge_doubles(run, ["map"]) == 2
    V = run.params["V/map"][0].detach()
    assert sum(bool(V[c].any()) for c in (0, 3, 4)) == 1
    assert bool(V[1].any())
    assert torch.allclose(product(run)[0, :, 2], before, atol=1e-5)
    everything = dict.fromkeys(range(N_FEATURES), 1.0)
    assert moves.merge_doubles(planted({0: {2: 1.0}, 1: everything}), ["map"]) == 0, "dense"
    assert moves.merge_doubles(planted({0: {2: 1.0}, 1: {2: 1.0, 5: 1.0}}), ["map"]) == 1


def test_a_double_must_be_one_in_tied_modules_too() -> None:
    """Both encoder pieces are on wherever x₀ > 0.2; in the decoder they go apart, or do not."""

    def fresh(apart: bool) -> Run:
        run = Run(tms(), sparse(4), CONFIG, None, {"decoder": "encoder"}, 0, torch.device("cpu"))
        with torch.no_grad():
            for w in run.gates:
                w.zero_()
            run.gates.b_out.fill_(-1.0)
            run.params["V/encoder"][:, :2] = torch.tensor([1.0, 0.0, 0.0, 0.0])
            for c in (0, 1):
                at = run.columns["encoder"].start + c
                run.gates.w_in[:, at, 0], run.gates.b_in[:, at, 0] = 20.0, -16.0  # x₀ above 0.8
                run.gates.w_out[:, at, 0] = 2.0
                at = run.columns["decoder"].start + c
                run.gates.w_in[:, at, 0] = 50.0 * (-1.0 if apart and c else 1.0)
                run.gates.w_out[:, at, 0] = 1.0
            run.params["U/encoder"][:, :, 1] = run.params["U/encoder"][:, :, 0]
        return run

    assert moves.merge_doubles(fresh(apart=True), ["encoder"]) == 0
    assert moves.merge_doubles(fresh(apart=False), ["encoder"]) == 1


def test_when_doubles_are_merged() -> None:
    config = Config(steps=40, split_every={"a*": 10}, split_until=0.8, prune_at={"a1": 0.6})
    assert [s for s in range(40) if config.merges_at(s, "a1")] == [24, 30]
    assert not any(config.merges_at(s, "a2") or config.merges_at(s, "b") for s in range(40))
