"""The result: calls, masks, moving, and files that come back as they went."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from spd_mini import Config, Decomposition, load, storage
from spd_mini.decomposition import resolve_device
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


def toy(identity: bool = False) -> Decomposition:
    d = exact_columns(tms(identity=identity))
    d.config = Config(C={"hidden": 2, "*": 5}, p={"*": 2.0})
    d.history = {"step": [1.0, 2.0], "total": [0.5, 0.25]}
    d.info = {"finished": False, "seed": 4}
    return d


def of_tokens() -> Decomposition:
    model = token_model()
    return by_hand(
        model,
        {n: randn(o, 3, seed=o) for n, o in (("embed", 4), ("mix", 4), ("unembed", 6))},
        {n: randn(3, i, seed=i + 1) for n, i in (("embed", 6), ("mix", 4), ("unembed", 4))},
        {n: constant_gates([0.2, 1.4, -0.3]) for n in ("embed", "mix", "unembed")},
        config=Config(C=3, output_loss="kl"),
    )


def of_mlp() -> Decomposition:
    return by_hand(
        mlp(),
        {"body.0": randn(5, 4), "head.out": randn(2, 4)},
        {"body.0": randn(4, 3), "head.out": randn(4, 5)},
        {n: constant_gates([0.2, 0.4, 0.6, 0.8]) for n in ("body.0", "head.out")},
    )


def equal(a: Decomposition, b: Decomposition) -> bool:
    pairs = [(m[n], k[n]) for m, k in ((a.U, b.U), (a.V, b.V), (a.weight, b.weight)) for n in m]
    pairs += [(s, t) for n in a.names for s, t in zip(a.gates[n], b.gates[n], strict=True)]
    same = all(torch.equal(s, t) and s.dtype == t.dtype for s, t in pairs)
    return same and (a.names, a.config, a.history, a.info) == (b.names, b.config, b.history, b.info)


# Calls


def test_exact_columns_rebuild_the_target() -> None:
    """All masks one, or only the important ones on one-hot inputs: the same outputs."""
    d = exact_columns(triangle())
    x = 0.75 * torch.eye(3)
    g = d.causal_importance(x)
    assert torch.allclose(d(x), d.target(x), atol=1e-6)
    assert torch.allclose(d(x, g), d.target(x), atol=1e-6)
    want = torch.cat([torch.eye(3), torch.zeros(3, 1)], 1)
    for n in d.names:
        assert torch.allclose(g[n], want)


def test_values_by_hand() -> None:
    """encoder (1, 2)·x with U = 1, V = (1, 2) and one dead piece; x = (3, 4): h = (11, 0)."""
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.fill_(0.5)
    model = nn.Sequential(layer)
    d = by_hand(
        model,
        {"0": torch.tensor([[1.0, 5.0]])},
        {"0": torch.tensor([[1.0, 2.0], [0.0, 0.0]])},
        {"0": constant_gates([0.25, -3.0])},
    )
    x = torch.tensor([[3.0, 4.0]])
    assert d.inner(x)["0"].tolist() == [[11.0, 0.0]]
    assert d.gate_logits(x)["0"].tolist() == [[0.25, -3.0]]
    assert d.causal_importance(x)["0"].tolist() == [[0.25, 0.0]]
    assert d(x).item() == 11.5
    assert d(x, {"0": torch.tensor([[0.5, 1.0]])}).item() == 6.0
    assert (d.C, d.names, d.finished) == ({"0": 2}, ["0"], True)


@pytest.mark.parametrize("make", [toy, of_tokens, of_mlp])
def test_missing_masks_are_all_ones(make: Any) -> None:
    d = make()
    x = tokens(4, generator()) if make is of_tokens else randn(4, 4 if make is toy else 3)
    ones = {n: torch.ones_like(g) for n, g in d.causal_importance(x).items()}
    plain = d(x)
    assert torch.equal(d(x, None), plain)
    assert torch.equal(d(x, {}), plain)
    assert torch.allclose(d(x, ones), plain, atol=1e-6)
    one = {d.names[-1]: ones[d.names[-1]] * 0.3}
    assert torch.allclose(d(x, one), d(x, {**ones, **one}), atol=1e-6)
    assert not torch.allclose(d(x, one), plain)


def test_sequences_keep_their_shape() -> None:
    d, x = of_tokens(), tokens(2, generator())
    for values in (d.inner(x), d.gate_logits(x), d.causal_importance(x)):
        assert {n: tuple(v.shape) for n, v in values.items()} == dict.fromkeys(d.names, (2, 3, 3))
    assert torch.equal(d.inner(x)["embed"][1, 2], d.V["embed"][:, x[1, 2]])


def test_a_model_that_flattens_its_positions() -> None:
    """Modules may see (B · T, d): importances and masks still start with the batch."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    d = by_hand(
        fill(Flat()), {"a": randn(2, 4)}, {"a": randn(4, 3)}, {"a": constant_gates([0.5] * 4)}
    )
    x = randn(2, 5, 3)
    g = d.causal_importance(x)
    assert g["a"].shape == (2, 5, 4)
    assert d(x, g).shape == (2, 5, 2)


def test_masks_of_any_number_type() -> None:
    d, x = of_mlp(), randn(2, 3)
    keep = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1]])
    want = d(x, {"head.out": keep.float()})
    for mask in (keep, keep.bool(), keep.double()):
        assert torch.equal(d(x, {"head.out": mask}), want)


def test_gradients_flow_to_masks() -> None:
    d, x = of_mlp(), randn(2, 3)
    m = torch.full((2, 4), 0.5, requires_grad=True)
    d.divergence(d(x, {"head.out": m}), d.target(x)).sum().backward()
    assert m.grad is not None
    assert bool((m.grad != 0).all())


def test_divergence_is_per_row() -> None:
    d = of_mlp()
    out, target = torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    assert d.divergence(out, target).tolist() == [5.0, 0.0]
    t = of_tokens()
    x = tokens(3, generator())
    assert t.divergence(t(x), t.target(x)).shape == (3,)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"hed": torch.ones(2, 4)},
            r"unknown module 'hed'; decomposed are \['body.0', 'head.out'\]",
        ),
        ({"head.out": torch.ones(2, 3)}, r"has shape \(2, 3\); expected \(2, \.\.\., 4\)"),
        ({"head.out": torch.ones(3, 4)}, r"has shape \(3, 4\); expected \(2, \.\.\., 4\)"),
        ({"head.out": torch.ones(4)}, r"has shape \(4,\); expected \(2, \.\.\., 4\)"),
        ({"head.out": torch.ones(2, 5, 4)}, "'head.out' are for 10 rows .* expected 2 rows"),
    ],
)
def test_wrong_masks(masks: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_mlp()(randn(2, 3), masks)


def test_masks_need_every_position() -> None:
    with pytest.raises(ValueError, match="'mix' are for 2 rows .* expected 6 rows"):
        of_tokens()(tokens(2, generator()), {"mix": torch.ones(2, 3)})


@pytest.mark.parametrize("call", ["inner", "causal_importance", "__call__"])
def test_inputs_must_be_tensors(call: str) -> None:
    with pytest.raises(TypeError, match="inputs must be a tensor, got list"):
        getattr(of_mlp(), call)([[1.0, 2.0, 3.0]])


def test_shapes_must_fit_the_weights() -> None:
    with pytest.raises(ValueError, match=r"module '0': expected shapes .*\(2, 4\).*\(4, 3\)"):
        by_hand(
            nn.Sequential(nn.Linear(3, 2)),
            {"0": randn(2, 4)},
            {"0": randn(5, 3)},
            {"0": constant_gates([1.0] * 4)},
        )


def test_devices() -> None:
    d = of_mlp()
    assert d.to("cpu") is d
    assert d.device.type == "cpu"
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    with pytest.raises(ValueError, match="device 'cuda:99' is not there; this machine has cpu"):
        d.to("cuda:99")
    with pytest.raises(ValueError, match="device 'abacus' is not there"):
        resolve_device("abacus")


# Files


@pytest.mark.parametrize("identity", [False, True])
def test_toys_travel_along(identity: bool, tmp_path: Path) -> None:
    d, path = toy(identity), tmp_path / "new" / "folder" / "d.safetensors"
    d.save(path)
    before = torch.get_rng_state()
    back = load(path)
    assert equal(d, back)
    assert not back.finished
    assert torch.equal(torch.get_rng_state(), before), "loading draws random numbers"
    x = torch.rand(3, 4, generator=generator())
    assert torch.equal(back(x), d(x))
    assert torch.equal(back.target(x), d.target(x))
    assert all(
        torch.equal(back.causal_importance(x)[n], g) for n, g in d.causal_importance(x).items()
    )
    assert back.wrapped.tied == {"decoder": "encoder"}
    assert os.listdir(path.parent) == [path.name], "no temporary file is left"


def test_own_models_are_brought_along(tmp_path: Path) -> None:
    for make, x in ((of_mlp, randn(2, 3)), (of_tokens, tokens(2, generator()))):
        d, path = make(), tmp_path / make.__name__
        d.save(path)
        model = mlp() if make is of_mlp else token_model()
        back = load(path, target=model.train())
        assert equal(d, back)
        assert torch.equal(back(x), d(x))
        assert model.training
        assert all(p.requires_grad for p in model.parameters())
        with pytest.raises(ValueError, match=r"holds no target model; pass it: load\(path, target"):
            load(path)


def test_saving_again_gives_the_same_file(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    toy().save(a)
    load(a).save(b)
    assert a.read_bytes() == b.read_bytes()


def test_float64_stays_float64(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2)).double()
    f64 = torch.float64
    d = by_hand(
        model,
        {"0": randn(2, 2, dtype=f64)},
        {"0": randn(2, 3, dtype=f64)},
        {"0": constant_gates([0.1, 0.2], dtype=f64)},
    )
    d.save(tmp_path / "d")
    assert equal(d, load(tmp_path / "d", target=model))


def test_the_wrong_target(tmp_path: Path) -> None:
    path = tmp_path / "d"
    of_mlp().save(path)
    with pytest.raises(
        ValueError, match="the target's weights are not those of the model that .* decomposes"
    ):
        load(path, target=mlp(seed=1))
    other_bias = mlp()
    with torch.no_grad():
        next(p for n, p in other_bias.named_parameters() if n.endswith("bias")).add_(0.1)
    with pytest.raises(ValueError, match="are not those of the model"):
        load(path, target=other_bias)
    with pytest.raises(ValueError, match="'body.0' matches no nn.Linear"):
        load(path, target=token_model())


def test_no_file(tmp_path: Path) -> None:
    for missing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match="no file at"):
            load(missing)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 60, 0.3, 0.6, 0.99, -1])
def test_truncated_files(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "d"
    toy().save(path)
    data = path.read_bytes()
    length = int(keep * len(data)) if isinstance(keep, float) else keep
    path.write_bytes(data[:length])
    with pytest.raises(ValueError, match=r"is not a saved decomposition, or it was truncated"):
        load(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_text("a text\n" * 50)
    with pytest.raises(ValueError, match="is not a saved decomposition, or it was truncated"):
        load(path)
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}))
    with pytest.raises(ValueError, match="safetensors file but not a saved decomposition"):
        load(path)
    storage.write(path, "checkpoint", {"a": torch.ones(2)}, {})
    with pytest.raises(ValueError, match="safetensors file but not a saved decomposition"):
        load(path)


def edit_header(path: Path, **changes: Any) -> None:
    tensors, meta = storage.read(path, "decomposition")
    header = {storage.KEY: json.dumps({**meta, **changes})}
    path.write_bytes(safetensors.torch.save(tensors, metadata=header))


def test_a_later_format(tmp_path: Path) -> None:
    path = tmp_path / "d"
    toy().save(path)
    edit_header(path, format=2)
    with pytest.raises(ValueError, match="has format 2; this spd_mini reads format 1"):
        load(path)


def test_a_file_may_not_name_any_class_it_likes(tmp_path: Path) -> None:
    path = tmp_path / "d"
    toy().save(path)
    edit_header(path, target=["os", "system", {}, {}])
    with pytest.raises(ValueError, match=r"a target class outside spd_mini.targets.\*: os.system"):
        load(path)


def test_there_is_no_pickle_inside(tmp_path: Path) -> None:
    path = tmp_path / "d"
    toy().save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()[storage.KEY])
    assert (meta["kind"], meta["format"]) == ("decomposition", 1)
    assert Config.from_dict(meta["config"]) == toy().config


@pytest.mark.parametrize("stage", ["write", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_old_file(
    stage: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d"
    d = toy()
    d.save(path)
    old = path.read_bytes()
    d.history = {"step": [9.0]}

    class Broken:
        def __init__(self, handle: int) -> None:
            os.close(handle)

        def __enter__(self) -> "Broken":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, data: bytes) -> None:
            raise error

    def broken_replace(*_: object) -> None:
        raise error

    if stage == "write":
        monkeypatch.setattr(os, "fdopen", lambda handle, mode: Broken(handle))
    else:
        monkeypatch.setattr(os, "replace", broken_replace)
    with pytest.raises(type(error)):
        d.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["d"], "a temporary file was left behind"


def test_files_can_be_moved(tmp_path: Path) -> None:
    toy().save(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert equal(load(tmp_path / "b"), toy())


def test_zoo_models_are_not_toys(tmp_path: Path) -> None:
    """Only the package's own targets are rebuilt from a file; others must be passed."""
    of_tokens().save(tmp_path / "d")
    assert isinstance(load(tmp_path / "d", token_model()).target, TokenModel)
