"""Transcoders and sparse autoencoders: sparse dictionaries for the activations around one layer.

    z = ReLU(E a + b), or the k highest entries of it;    ŷ = D z + c
    loss = ‖ŷ − y‖² + λ Σ_s z_s in the mean over inputs (no λ with top-k); columns of D of length 1

a is what the layer reads, y what it writes (Dunefsky et al. 2024, arXiv 2406.11944). With y = a it
is a sparse autoencoder (Bricken et al. 2023), and on an identity layer the two are the same. The
top-k variant follows Gao et al. 2024 (arXiv 2406.04093). Dead latents are not brought back to life.

Shapes. R = sizes × seeds dictionaries are trained side by side and never meet: E (R, S, d_in),
b (R, S, 1), D (R, d_out, S), c (R, d_out, 1), with S the largest size. A smaller one is filled up
with zeros: such a latent is 0 on every input, gets no gradient and stays 0.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..allocator import keep_freed_memory
from ..data import Batches, Sample, stream
from ..decomposition import resolve_device
from ..losses import batch_mean
from ..model import Target


@dataclass(frozen=True)
class TranscoderConfig:
    """Settings of a run. Raises ValueError for values that make no sense."""

    sparsity_coeff: float = 1e-2
    """Weight of the L1 penalty (λ); without effect when `topk` is set."""
    topk: int | None = None
    """Latents kept on each input (k); None = all that are positive, with the L1 penalty."""
    steps: int = 3000
    """Training steps."""
    batch_size: int = 256
    """Rows asked of `sample` at each step."""
    lr: float = 3e-3
    """Peak Adam learning rate; it falls linearly to 0 over the last fifth of the steps."""

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "batch_size": self.batch_size}
        for name, n in (counts if self.topk is None else counts | {"topk": self.topk}).items():
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise ValueError(f"TranscoderConfig.{name} must be an integer ≥ 1, got {n!r}")
        if not 0 <= self.sparsity_coeff < math.inf:
            got = self.sparsity_coeff
            raise ValueError(f"TranscoderConfig.sparsity_coeff must be ≥ 0, got {got}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"TranscoderConfig.lr must be > 0, got {self.lr}")


class Weights(NamedTuple):
    """E (R, S, d_in), b (R, S, 1), D (R, d_out, S), c (R, d_out, 1)."""

    E: Tensor
    b: Tensor
    D: Tensor
    c: Tensor


def encode(weights: Weights, a: Tensor, topk: int | None = None) -> Tensor:
    """Latents of inputs a (N, d_in): (R, S, N), all ≥ 0, at most `topk` of them > 0 on each."""
    z = torch.relu(weights.E @ a.mT + weights.b)
    if topk is None or topk >= z.shape[1]:
        return z
    values, which = z.topk(topk, 1)
    return torch.zeros_like(z).scatter(1, which, values)


def decode(weights: Weights, z: Tensor) -> Tensor:
    """Outputs ŷ (R, N, d_out) of latents z (R, S, N)."""
    return (torch.bmm(weights.D, z) + weights.c).mT


def loss_terms(
    weights: Weights, a: Tensor, y: Tensor, topk: int | None, row_weight: Tensor | None
) -> Tensor:
    """‖ŷ − y‖² and Σ_s z_s, in the mean over rows: (2, R). a: (N, d_in); y: (N, d_out)."""
    z = encode(weights, a, topk)
    error = (decode(weights, z) - y).square().sum(2)
    return torch.stack([batch_mean(error, row_weight), batch_mean(z.sum(1), row_weight)])


def unit_columns(D: Tensor) -> Tensor:
    """D (..., d_out, S) with columns of length 1; columns of zeros stay."""
    return D / D.norm(dim=-2, keepdim=True).clamp(min=1e-12)


class Transcoder:
    """One trained dictionary. E (S, d_in), b (S,), D (d_out, S), c (d_out,).

    info: seed, seconds, and the loss terms "error" and "l1", mean of the last tenth of the steps.
    """

    def __init__(self, weights: Weights, config: TranscoderConfig, info: dict[str, Any]) -> None:
        self.weights, self.config, self.info = weights, config, info
        self.E, self.b, self.D, self.c = (w[0].squeeze(-1) for w in weights)

    @torch.no_grad()
    def latents(self, a: Tensor) -> Tensor:
        """z (N, S) on inputs a (N, d_in) of the layer."""
        return encode(self.weights, a, self.config.topk)[0].mT

    @torch.no_grad()
    def __call__(self, a: Tensor) -> Tensor:
        """ŷ (N, d_out) for inputs a (N, d_in) of the layer."""
        return decode(self.weights, encode(self.weights, a, self.config.topk))[0]

    def live(self, a: Tensor, share: float = 1e-3) -> Tensor:
        """Which latents are > 0 on at least that share of the inputs a (N, d_in): bool (S,)."""
        return (self.latents(a) > 0).double().mean(0) >= share

    def distinct(self, a: Tensor, share: float = 1e-3, cosine: float = 0.98) -> Tensor:
        """Which of `live(a, share)` write in a direction of their own: bool (S,).

        From the largest mean of z downwards, a latent counts unless its column of D has at least
        that cosine with one counted before.
        """
        own = torch.zeros(len(self.b), dtype=torch.bool, device=self.b.device)
        live, D = self.live(a, share), unit_columns(self.D)
        for s in self.latents(a).mean(0).argsort(descending=True).tolist():
            own[s] = live[s] and not (D[:, own].mT @ D[:, s] >= cosine).any()
        return own

    def unexplained(self, a: Tensor, y: Tensor) -> float:
        """Share of the variance of y (N, d_out) that ŷ leaves: Σ‖ŷ − y‖² / Σ‖y − mean y‖²."""
        return float((self(a) - y).square().sum() / (y - y.mean(0)).square().sum())


@torch.no_grad()
def tally(trained: Sequence[Transcoder], a: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Four numbers of each dictionary on inputs a (N, d_in) and outputs y (N, d_out): (len, 4).

    How many latents are live, how many distinct, how many columns of `directions` (d_out, n) have
    a cosine of at least 0.98 with a distinct one's column of D, and the share `unexplained`.
    """
    rows, wanted = [], unit_columns(directions)
    for t in trained:
        own = t.distinct(a)
        met = (wanted.mT @ unit_columns(t.D[:, own]) >= 0.98).any(1)
        rows.append([*(int(v.sum()) for v in (t.live(a), own, met)), t.unexplained(a, y)])
    return torch.tensor(rows)


def around(wrapped: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the one open layer of a target reads (N, d_in) and writes (N, d_out), on inputs x."""
    (name,) = wrapped.names
    a = wrapped.record(x)[1][name]
    with torch.no_grad():
        return a, wrapped.sites[name](a)


def initial(d_in: int, d_out: int, size: int, seed: int) -> Weights:
    """Random unit columns for D; E = s Dᵀ, or rows of its own where d_in ≠ d_out; biases 0.

    s = min(1, 2 d_in / size), so that a large dictionary starts near ŷ = a and not far beyond: half
    of its latents are positive on an input.
    """
    generator = torch.Generator().manual_seed(stream(seed, 0))
    D = unit_columns(torch.randn(1, d_out, size, generator=generator))
    E = D if d_in == d_out else unit_columns(torch.randn(1, d_in, size, generator=generator))
    E = min(1.0, 2 * d_in / size) * E.mT
    return Weights(E, torch.zeros(1, size, 1), D, torch.zeros(1, d_out, 1))


def filled_up(weights: Weights, size: int) -> Weights:
    """The same with latents of zeros, `size` in all."""
    more = size - weights.D.shape[2]
    E, b, D, c = weights
    pad = nn.functional.pad
    return Weights(pad(E, (0, 0, 0, more)), pad(b, (0, 0, 0, more)), pad(D, (0, more)), c)


def train(
    target: nn.Module,
    layer: str,
    sample: Sample | Iterable[Any],
    sizes: Iterable[int],
    config: TranscoderConfig | None = None,
    seeds: Iterable[int] = (0,),
    device: str | torch.device = "auto",
) -> list[Transcoder]:
    """Train dictionaries of several sizes from several seeds for one nn.Linear of a frozen target.

    sample: as for `spd_mini.decompose`; row weights are used. Returns them size by size, and seed
    by seed within. All see the same batches; a seed gives the initialisation, and the same result
    in any company (up to the rounding of batched products). Raises ValueError for bad input and
    FloatingPointError when a loss is not finite.
    """
    config, sizes, seeds = config or TranscoderConfig(), list(sizes), list(seeds)
    runs = [(size, seed) for size in sizes for seed in seeds]
    if not runs or len(set(runs)) < len(runs) or min(sizes) < 1:
        raise ValueError(
            "train needs one or more different sizes ≥ 1 and different seeds; "
            f"got {sizes} and {seeds}"
        )
    started, on = time.perf_counter(), resolve_device(device)
    if on.type == "cpu":
        keep_freed_memory()
    wrapped = Target(target, [layer])
    if len(wrapped.names) != 1 or not isinstance(wrapped.sites[wrapped.names[0]], nn.Linear):
        raise ValueError(f"layer must name one nn.Linear; '{layer}' matches {wrapped.names}")
    wrapped.module.to(on)
    batches = Batches(sample, config.batch_size, 0, on)
    wrapped.check(batches.probe())
    d_out, d_in = wrapped.weight[wrapped.names[0]].shape
    drawn = [filled_up(initial(d_in, d_out, size, seed), max(sizes)) for size, seed in runs]
    weights = Weights(*(torch.cat(w).to(on).requires_grad_() for w in zip(*drawn, strict=True)))
    adam = torch.optim.Adam(list(weights), lr=config.lr, fused=True)
    losses = torch.zeros(config.steps, 2, len(runs), device=on)
    for step in range(config.steps):
        x, row_weight = batches.next()
        terms = loss_terms(weights, *around(wrapped, x), config.topk, row_weight)
        error, l1 = terms
        total = error if config.topk else error + config.sparsity_coeff * l1
        adam.zero_grad()
        total.sum().backward()
        adam.param_groups[0]["lr"] = config.lr * min(1.0, 5 * (1 - step / config.steps))
        adam.step()
        with torch.no_grad():
            weights.D.copy_(unit_columns(weights.D))
        losses[step] = terms.detach()
    if len(bad := (~torch.isfinite(losses)).nonzero()):
        raise FloatingPointError(
            f"the loss is not finite at step {int(bad[0, 0])}; lower the learning rate, or check "
            "the inputs' range"
        )
    last = losses[-max(config.steps // 10, 1) :].mean(0).tolist()
    results = []
    for r, (size, seed) in enumerate(runs):
        E, b, D, c = (w[r : r + 1].detach() for w in weights)
        own = Weights(E[:, :size], b[:, :size], D[..., :size], c)
        info = {"seed": seed, "error": last[0][r], "l1": last[1][r]}
        info["seconds"] = time.perf_counter() - started
        results.append(Transcoder(Weights(*(w.clone() for w in own)), config, info))
    return results
