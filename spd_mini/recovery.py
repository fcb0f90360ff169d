"""Did the decomposition find the true mechanisms? Metrics with their nulls, and a verdict.

All patterns are read off causal importances on probe inputs (METHOD, section 3). MMCS alone proves
little in low dimension (20 random directions in the plane score 0.98), so `report` always gives it
beside its null, ML2R and the pattern errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .decomposition import Decomposition

ON, OFF = 0.9, 0.1
"""An importance is 'on' at ≥ 0.9 and 'off' at ≤ 0.1; anything between is an error."""

MIN_R, SLOPES = 0.98, (0.9, 1.1)
"""Bounds on the fit of neuron contributions: Pearson r, and slope."""


@dataclass(frozen=True)
class Identity:
    """n features, one subcomponent each."""

    n: int


@dataclass(frozen=True)
class Dense:
    """k subcomponents, all acting together."""

    k: int


@dataclass(frozen=True)
class Mlp:
    """Where the neurons stand whose contributions are compared.

    embed: (n_features, d_resid), written by the inputs and, transposed, read by the outputs.
    pairs: names of (W_in, W_out), layer by layer.
    """

    embed: Tensor
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Truth:
    """The known mechanisms of a toy target.

    probes: (n, ...) inputs, one feature on in each. patterns: {module: Identity or Dense}; none,
    where it is not known what is to be found, and then there is no verdict either.
    columns_of: the module whose columns MMCS and ML2R compare. ml2r_range: allowed ML2R, or None.
    mlp: where neuron contributions are compared. max_faithfulness: bound on ‖W − UV‖/‖W‖ of every
    matrix.
    """

    probes: Tensor
    patterns: Mapping[str, Identity | Dense]
    columns_of: str | None = None
    ml2r_range: tuple[float, float] | None = None
    mlp: Mlp | None = None
    max_faithfulness: float = 0.01


@dataclass(frozen=True)
class Report:
    """What `report` measured. `reasons` lists what speaks against recovery; empty = recovered.

    `recovered` is None where the truth knows no patterns.
    """

    recovered: bool | None
    reasons: list[str]
    identity_errors: dict[str, int]
    dense_errors: dict[str, int]
    live: dict[str, int]
    mmcs: float | None
    mmcs_null: float | None
    ml2r: float | None
    contribution_r: float | None
    contribution_slope: float | None
    faithfulness_relative: dict[str, float]
    recon: float
    order: dict[str, list[int]] = field(default_factory=dict)
    """{module: subcomponents, matched feature by feature first}, for plots."""


def identity_errors(g: Tensor, n: int) -> tuple[int, list[int]]:
    """Errors of the identity pattern, and the matched subcomponent of each feature.

    g: (n_probes, C). After the best one-to-one matching, every matched g must be ≥ 0.9 and every
    other ≤ 0.1; each entry that is not counts as one error. Raises ValueError if g has not n rows.
    """
    if len(g) != n:
        raise ValueError(f"identity pattern of {n} features needs {n} probes, got {len(g)}")
    if g.shape[1] < n:  # too few subcomponents: pad with ones that never act
        g = torch.cat([g, g.new_zeros(n, n - g.shape[1])], 1)
    rows, cols = linear_sum_assignment(g.cpu().double().numpy(), maximize=True)
    matched = torch.zeros_like(g, dtype=torch.bool)
    matched[rows, cols] = True
    wrong = torch.where(matched, g < ON, g > OFF)
    return int(wrong.sum()), [int(c) for c in cols]


def dense_errors(g: Tensor, k: int) -> int:
    """Errors of the dense pattern of size k. g: (n_probes, C).

    Surplus or missing live columns (any entry > 0.1), plus live columns never reaching 0.9.
    """
    top = g.max(0).values
    live = top > OFF
    return abs(int(live.sum()) - k) + int((live & (top < ON)).sum())


def live(g: Tensor) -> Tensor:
    """Which subcomponents are ever important: (n_probes, C) → bool (C,)."""
    return g.flatten(0, -2).max(0).values > OFF


def match_columns(W: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """For each column j of W: best cosine with any piece's column j, and that column's norm ratio.

    W: (d_out, d_in); pieces: (C, d_out, d_in), of any rank. Returns cosines (d_in,) and ratios
    (d_in,) ‖P_c,j‖ / ‖W_j‖ of the best-matching piece.
    """
    norms = pieces.norm(dim=1)
    target_norms = W.norm(dim=0)
    cosines = (pieces * W).sum(1) / (norms * target_norms).clamp(min=1e-12)
    best, index = cosines.max(0)
    return best, norms.gather(0, index[None])[0] / target_norms.clamp(min=1e-12)


def best_columns(W: Tensor, U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """`match_columns` for subcomponents: U (d_out, C), V (C, d_in); c's column j is U_c V_cj."""
    return match_columns(W, U.mT[:, :, None] * V[:, None, :])


def mmcs(W: Tensor, U: Tensor, V: Tensor) -> float:
    """Mean over columns of W of the best cosine similarity (paper, section 3.1)."""
    return float(best_columns(W, U, V)[0].mean())


def ml2r(W: Tensor, U: Tensor, V: Tensor, live: Tensor) -> float:
    """Mean norm ratio of the best-matching columns, over live subcomponents only (C,) bool.

    A near-dead subcomponent can happen to align best and would drag the ratio down. 0.0 if none
    is live.
    """
    if not live.any():
        return 0.0
    return float(best_columns(W, U[:, live], V[live])[1].mean())


def mmcs_null(W: Tensor, C: int, draws: int = 20, seed: int = 0) -> float:
    """MMCS that C random subcomponents would score against W (mean over draws)."""
    generator = torch.Generator().manual_seed(seed)
    d_out, d_in = W.shape
    W = W.cpu()
    scores = [
        mmcs(
            W,
            torch.randn(d_out, C, generator=generator, dtype=W.dtype),
            torch.randn(C, d_in, generator=generator, dtype=W.dtype),
        )
        for _ in range(draws)
    ]
    return sum(scores) / draws


def neuron_contributions(embed: Tensor, W_in: Tensor, W_out: Tensor) -> Tensor:
    """(W_U[i,:] W_out) ⊙ (W_in W_E[:,i]): what each neuron adds to output i per unit of input i.

    embed: (n, d_resid) = W_Eᵀ = W_U; W_in: (d_mlp, d_resid); W_out: (d_resid, d_mlp). Returns
    (n, d_mlp) (paper, section 3.3). A subcomponent has the same with its U_c V_c as W_in.
    """
    return (embed @ W_out) * (embed @ W_in.mT)


def best_contributions(embed: Tensor, U: Tensor, V: Tensor, W_out: Tensor) -> tuple[Tensor, Tensor]:
    """For each feature the contributions of the subcomponent of W_in with the largest single one.

    embed: (n, d_resid); U: (d_mlp, C); V: (C, d_resid); W_out: (d_resid, d_mlp), the sum of its
    subcomponents. Returns contributions (n, d_mlp) and the subcomponents' indices (n,).
    """
    read = embed @ V.mT  # (n, C)
    per_neuron = (embed @ W_out)[:, None, :] * U.mT  # (n, C, d_mlp), before the reading
    best = (per_neuron * read[..., None]).amax(2).argmax(1)
    rows = torch.arange(len(embed), device=embed.device)
    return per_neuron[rows, best] * read[rows, best, None], best


def correlation_and_slope(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Pearson correlation of two tensors of equal shape, and the least-squares slope of y on x."""
    dx, dy = x.double() - x.double().mean(), y.double() - y.double().mean()
    covariance = (dx * dy).sum()
    r = covariance / (dx.square().sum() * dy.square().sum()).sqrt().clamp(min=1e-300)
    return float(r), float(covariance / dx.square().sum().clamp(min=1e-300))


def contribution_fit(d: Decomposition, mlp: Mlp) -> tuple[float, float]:
    """r and slope of subcomponent against model neuron contributions, over all layers."""
    embed = mlp.embed.to(d.device)
    model, pieces = [], []
    for w_in, w_out in mlp.pairs:
        model.append(neuron_contributions(embed, d.weight[w_in], d.weight[w_out]))
        W_out = d.U[w_out] @ d.V[w_out]
        pieces.append(best_contributions(embed, d.U[w_in], d.V[w_in], W_out)[0])
    return correlation_and_slope(torch.stack(model), torch.stack(pieces))


def relative_faithfulness(W: Tensor, U: Tensor, V: Tensor) -> float:
    """‖W − UV‖ / ‖W‖ (Frobenius)."""
    return float((W - U @ V).norm() / W.norm())


def report(d: Decomposition, truth: Truth) -> Report:
    """Compare a decomposition with the known mechanisms of its target.

    `recovered` is METHOD section 3 word for word: no pattern errors, ML2R over live subcomponents
    in range, every matrix faithful; None if the truth knows no pattern. `recon` is the mean
    divergence with only the important kept (m = g) on the probes. Raises ValueError when a module
    of the truth was not decomposed.
    """
    spoken_of = [*truth.patterns, *([truth.columns_of] if truth.columns_of else [])]
    if missing := [n for n in spoken_of if n not in d.names]:
        raise ValueError(f"truth speaks of {missing}, but decomposed are {d.names}")
    probes = truth.probes.to(d.device)
    g = d.causal_importance(probes)
    reasons: list[str] = []
    identity: dict[str, int] = {}
    dense: dict[str, int] = {}
    order: dict[str, list[int]] = {}
    for n, pattern in truth.patterns.items():
        gn = g[n].reshape(-1, d.C[n])
        by_strength = gn.max(0).values.argsort(descending=True).tolist()
        if isinstance(pattern, Identity):
            identity[n], matched = identity_errors(gn, pattern.n)
            matched = [c for c in matched if c < d.C[n]]
            order[n] = matched + [c for c in by_strength if c not in set(matched)]
            if identity[n]:
                reasons.append(f"{n}: {identity[n]} wrong entries in the identity pattern")
        else:
            dense[n], order[n] = dense_errors(gn, pattern.k), by_strength
            if dense[n]:
                reasons.append(f"{n}: {dense[n]} errors in the dense pattern of {pattern.k}")
    faithful = {n: relative_faithfulness(W, d.U[n], d.V[n]) for n, W in d.weight.items()}
    for n, f in faithful.items():
        if not f <= truth.max_faithfulness:
            reasons.append(f"{n}: ‖W − UV‖/‖W‖ = {f:.4f} > {truth.max_faithfulness}")
    match = null = ratio = r = slope = None
    if column := truth.columns_of:
        W, U, V = d.weight[column], d.U[column], d.V[column]
        match, null = mmcs(W, U, V), mmcs_null(W, d.C[column])
        ratio = ml2r(W, U, V, live(g[column]))
        if truth.ml2r_range and not truth.ml2r_range[0] <= ratio <= truth.ml2r_range[1]:
            reasons.append(f"{column}: ML2R {ratio:.3f} outside {list(truth.ml2r_range)}")
    if truth.mlp:
        r, slope = contribution_fit(d, truth.mlp)
        if not r >= MIN_R:
            reasons.append(f"neuron contributions: r {r:.4f} < {MIN_R}")
        if not SLOPES[0] <= slope <= SLOPES[1]:
            reasons.append(f"neuron contributions: slope {slope:.3f} outside {list(SLOPES)}")
    return Report(
        recovered=not reasons if truth.patterns else None,
        reasons=reasons,
        identity_errors=identity,
        dense_errors=dense,
        live={m: int(live(v).sum()) for m, v in g.items()},
        mmcs=match,
        mmcs_null=null,
        ml2r=ratio,
        contribution_r=r,
        contribution_slope=slope,
        faithfulness_relative=faithful,
        recon=float(d.divergence(d(probes, g), d.target(probes)).mean()),
        order=order,
    )
