"""APD, Attribution-based Parameter Decomposition (Braun et al. 2025, arXiv 2501.14926).

A component c is one low-rank factor per matrix, across all of them: P_c^l = U_c^l V_c^l of rank
≤ m. How much c matters on x is its gradient attribution; over a whole batch the components with
the highest attributions are active (batch top-k). Trained is

    β1 Σ_l ‖W^l − Σ_c P_c^l‖² / N                                            (faithfulness)
  + β2 D(f(x | active components), f(x)), mean over batch and outputs        (reconstruction)
  + β3 Σ_active c Σ_l Σ_r (‖U_cr^l‖² ‖V_cr^l‖²)^(p/2) / N, mean over batch   (simplicity)

with N the number of decomposed weights; a tied matrix counts each time it is decomposed.
"""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .. import losses, recovery
from ..data import Sample
from ..decomposition import resolve_device
from .apd_losses import attributions, batch_topk, gradients, simplicity
from .apd_run import APD, TERMS, APDConfig, Run

__all__ = [
    "APD",
    "PAPER",
    "APDConfig",
    "attributions",
    "batch_topk",
    "decompose",
    "gradients",
    "report",
    "simplicity",
]

_TMS_40_10 = APDConfig(
    C=50,
    rank=11,
    topk=1.0,
    recon_coeff=10.0,
    simplicity_coeff=20.0,
    p=0.9,
    lr=1e-3,
    lr_schedule="cosine",
)
PAPER: Mapping[str, APDConfig] = {
    "tms-5-2": APDConfig(),
    "tms-40-10": _TMS_40_10,
    "tms-40-10-code": dataclasses.replace(_TMS_40_10, C=40, topk=2.0, simplicity_coeff=15.0),
}
"""The authors' settings. For TMS 40-10 the paper and the released code differ: both are here."""


def decompose(
    target: nn.Module,
    sample: Sample | Iterable[Any],
    config: APDConfig | Sequence[APDConfig] | None = None,
    seeds: Iterable[int] = (0,),
    modules: Sequence[str] | None = None,
    tied: Mapping[str, str] | None = None,
    device: str | torch.device = "auto",
) -> list[APD]:
    """Decompose one target from many seeds, with one or more settings, side by side.

    target, modules, tied, device: as for `spd_mini.decompose`; nn.Linear only, one row an example.
    sample: draws inputs (n, d) without row weights, all-zero ones included (batch top-k counts
        examples). Zero rows are left out of the arithmetic where that is exact: where they reach
        every matrix as zeros. They still count, in top-k's budget and in every mean.
    config: by default the authors' for TMS 5-2. Settings that stand side by side, in a list, may
        differ in `topk` and in the losses' weights.

    Returns the results setting by setting, and seed by seed within. All runs see the same batches,
    whatever the seeds; a seed gives its initialisation, and the same result in any company (up to
    the rounding of batched products). Raises ValueError for bad input and FloatingPointError,
    naming step and loss term, when a loss is not finite.
    """
    config = APDConfig() if config is None else config
    configs = [config] if isinstance(config, APDConfig) else list(config)
    seeds = list(seeds)
    if not configs or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"decompose needs settings and one or more different seeds; got {len(configs)} "
            f"settings, seeds {seeds}"
        )
    for c in configs:
        same = {k: getattr(c, k) for k in ("topk", *(f"{term}_coeff" for term in TERMS))}
        if dataclasses.replace(configs[0], **same) != c:
            raise ValueError(
                "settings that run side by side may differ in topk, faithfulness_coeff, "
                f"recon_coeff and simplicity_coeff only; got {configs[0]} and {c}"
            )
    started = time.perf_counter()
    runs = [(c, seed) for c in configs for seed in seeds]
    run = Run(target, sample, runs, modules, tied, resolve_device(device))
    while run.step < run.config.steps:
        run.train_step()
    results = run.results()
    for d in results:
        d.info["seconds"] = time.perf_counter() - started
    return results


def report(d: APD, truth: recovery.Truth) -> recovery.Report:
    """Compare APD's components with the known mechanisms: METHOD section 3 as far as it carries.

    A component is active or not (0 or 1 in place of an importance), and it is the same component
    in every matrix: one pattern, counted for each matrix the truth names. Active on a probe means
    an attribution at or above the run's own cutoff, so that a wrong top-k shows. MMCS, ML2R (over
    live components), faithfulness and all bounds are those of `recovery.report`; `recovered` is the
    same verdict, and `identity_errors` alone, which shrunk norms do not touch, the lenient one.
    Raises ValueError for a dense pattern: in APD a matrix has no pieces of its own.
    """
    dense = [n for n, pattern in truth.patterns.items() if isinstance(pattern, recovery.Dense)]
    if dense or truth.mlp:
        raise ValueError(
            f"APD's components span all matrices; a truth with dense patterns ({dense}) or neuron "
            "contributions has no counterpart"
        )
    spoken_of = [*truth.patterns, *([truth.columns_of] if truth.columns_of else [])]
    if missing := [n for n in spoken_of if n not in d.U]:
        raise ValueError(f"truth speaks of {missing}, but decomposed are {list(d.U)}")
    probes = truth.probes.to(d.wrapped.device)
    active = d.active(probes)
    g, weight = active.float(), d.wrapped.weight
    errors: dict[str, int] = {}
    order: dict[str, list[int]] = {}
    reasons: list[str] = []
    for n, pattern in truth.patterns.items():
        assert isinstance(pattern, recovery.Identity)
        errors[n], matched = recovery.identity_errors(g, pattern.n)
        matched = [c for c in matched if c < d.config.C]
        order[n] = matched + [c for c in range(d.config.C) if c not in set(matched)]
        if errors[n]:
            reasons.append(f"{n}: {errors[n]} wrong entries in the identity pattern")
    faithful = {n: recovery.relative_faithfulness(W, d.U[n], d.V[n]) for n, W in weight.items()}
    reasons += [
        f"{n}: ‖W − ΣP‖/‖W‖ = {f:.4f} > {truth.max_faithfulness}"
        for n, f in faithful.items()
        if not f <= truth.max_faithfulness
    ]
    live, match, null, ratio = recovery.live(g), None, None, None
    if column := truth.columns_of:
        pieces = d.pieces[column]
        match = float(recovery.match_columns(weight[column], pieces)[0].mean())
        null = recovery.mmcs_null(weight[column], d.config.C)
        ratio = 0.0
        if live.any():
            ratio = float(recovery.match_columns(weight[column], pieces[live])[1].mean())
        if truth.ml2r_range and not truth.ml2r_range[0] <= ratio <= truth.ml2r_range[1]:
            reasons.append(f"{column}: ML2R {ratio:.3f} outside {list(truth.ml2r_range)}")
    return recovery.Report(
        recovered=not reasons,
        reasons=reasons,
        identity_errors=errors,
        dense_errors={},
        live={n: int(live.sum()) for n in truth.patterns},
        mmcs=match,
        mmcs_null=null,
        ml2r=ratio,
        contribution_r=None,
        contribution_slope=None,
        faithfulness_relative=faithful,
        recon=float(losses.mse(d(probes, active)[None], d.wrapped(probes)[None]).mean()),
        order=order,
    )
