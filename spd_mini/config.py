"""`Config`: every setting of a run, documented and checked."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """A coefficient that moves from `start` to `end` over the first `until` of the run, then holds.

    `log=True` moves geometrically (both ends must be positive). `until` is a fraction in (0, 1].
    """

    start: float
    end: float
    until: float = 1.0
    log: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise ValueError(f"Schedule.until must be in (0, 1], got {self.until}")
        ends = (self.start, self.end)
        if not all(0 <= e < math.inf for e in ends) or (self.log and not all(ends)):
            raise ValueError(
                "Schedule ends must be finite and ≥ 0, and > 0 when log=True; "
                f"got start={self.start}, end={self.end}"
            )

    def at(self, progress: float) -> float:
        """Value at `progress` in [0, 1], the fraction of training steps done."""
        t = min(progress / self.until, 1.0)
        if self.log:
            return float(self.start * (self.end / self.start) ** t)
        return self.start + (self.end - self.start) * t


Scalar = float | Schedule
"""A number, or a number that changes during the run."""


def value_at(value: Scalar, progress: float) -> float:
    """The number that a constant or a Schedule has at `progress` in [0, 1]."""
    return value.at(progress) if isinstance(value, Schedule) else value


@dataclass(frozen=True)
class Config:
    """Settings of a decomposition run. Symbols are the paper's (arXiv 2506.20790, section 2).

    Where a field takes a mapping, the keys are module names or glob patterns; the first that
    matches wins, and "*" makes a default. Raises ValueError for values that make no sense.
    """

    C: int | Mapping[str, int] = 20
    """Subcomponents per matrix (C); may exceed the rank; may differ per module."""
    steps: int = 2000
    """Training steps, not counting `faithfulness_warmup_steps`."""
    batch_size: int = 1024
    """Rows asked of `sample` at each step (ignored for an iterable of batches)."""
    lr: float = 1e-3
    """Peak Adam learning rate of U and V."""
    gate_lr: float | None = None
    """Peak learning rate of the importance MLPs; None = `lr`, as in the paper."""
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    """Decay of both learning rates: cosine to 0, or none."""
    lr_warmup_steps: int = 0
    """Steps of linear learning-rate warm-up."""
    importance_coeff: Scalar = 3e-3
    """Importance-minimality coefficient (β3)."""
    p: Scalar | Mapping[str, Scalar] = 1.0
    """Exponent of the importance-minimality loss (p); may differ per module."""
    importance_scale: Mapping[str, float] = field(default_factory=dict)
    """Factor on β3 for some modules; 1 where nothing matches."""
    faithfulness_coeff: Scalar = 1.0
    """Weight of the faithfulness loss (1 in the paper)."""
    recon_coeff: Scalar = 1.0
    """Stochastic-reconstruction coefficient (β1)."""
    layerwise_coeff: Scalar = 1.0
    """Layerwise-reconstruction coefficient (β2)."""
    frequency_coeff: Scalar | Mapping[str, Scalar] = 0.0
    """Weight of the frequency penalty, relative to β3; may differ per module. 0 = off (paper)."""
    adversary_coeff: Scalar = 0.0
    """Weight of the reconstruction loss under masks whose sources climb against it, one for each
    subcomponent, from step to step (see `adversary`). 0 = off (paper)."""
    adversary_step: float = 0.1
    """Length of each of their steps, in r."""
    mask_samples: int = 1
    """Mask draws per step (S)."""
    layerwise_masks: Literal["fresh", "shared"] = "fresh"
    """Draw new masks for the layerwise loss (released code) or share them (pseudocode)."""
    faithfulness_warmup_steps: int = 0
    """Steps that fit W = UV alone before training starts (not in the paper)."""
    faithfulness_warmup_lr: float = 1e-2
    """Adam learning rate of that warm-up."""
    gate_hidden: int = 16
    """Hidden width of the importance MLPs (d_gate)."""
    output_loss: Literal["mse", "kl"] = "mse"
    """Divergence D of outputs: squared error, or KL of logits over the last dimension."""
    restarts: int = 1
    """Independent random starts, trained side by side; the lowest loss is kept (label-free)."""
    restarts_until: float = 1.0
    """Fraction of the steps after which only the restart with the lowest loss goes on."""
    split_every: int | Mapping[str, int] = 0
    """Steps between searches for shared subcomponents to split, a discrete move (see `moves`); may
    differ per module. 0 = never: gradient descent alone, as in the paper."""
    split_until: float = 0.5
    """Fraction of the steps after which nothing is split any more."""
    prune_at: float | Mapping[str, float] = 0.0
    """Fraction of the steps at which dead subcomponents are removed, the second discrete move (see
    `moves`); may differ per module. 0 = never. Dense ones become as many as the directions they
    read. Then, and at later searches of `split_every`, those that are on only where another one is
    are merged into it, the third."""
    birth_from: float = 0.0
    """Fraction of the steps from which the searches of `split_every` also give inputs that nothing
    serves to a dead subcomponent, the fourth discrete move (see `moves`). 0 = never."""
    shortcuts: bool = True
    """Let a target that offers exact shortcuts of its own use them in the training step."""
    log_every: int = 50
    """Steps between history entries, progress, callbacks and checks for non-finite losses."""

    def __post_init__(self) -> None:
        counts = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "mask_samples": self.mask_samples,
            "gate_hidden": self.gate_hidden,
            "restarts": self.restarts,
            "log_every": self.log_every,
        }
        counts |= (
            {f"C['{k}']": n for k, n in self.C.items()}
            if isinstance(self.C, Mapping)
            else {"C": self.C}
        )
        for name, n in counts.items():
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise ValueError(f"Config.{name} must be an integer ≥ 1, got {n!r}")
        waits = {n: getattr(self, n) for n in ("lr_warmup_steps", "faithfulness_warmup_steps")}
        waits |= (
            {f"split_every['{k}']": n for k, n in self.split_every.items()}
            if isinstance(self.split_every, Mapping)
            else {"split_every": self.split_every}
        )
        for name, n in waits.items():
            if not isinstance(n, int) or n < 0:
                raise ValueError(f"Config.{name} must be an integer ≥ 0, got {n!r}")
        for name in ("lr", "gate_lr", "faithfulness_warmup_lr"):
            lr = getattr(self, name)
            if lr is not None and not (lr > 0 and math.isfinite(lr)):
                raise ValueError(f"Config.{name} must be a positive number, got {lr}")
        for name in ("restarts_until", "split_until", "adversary_step"):
            fraction = getattr(self, name)
            if not 0 < fraction <= 1:
                raise ValueError(f"Config.{name} must be in (0, 1], got {fraction}")
        times = self.prune_at if isinstance(self.prune_at, Mapping) else {"": self.prune_at}
        for key, fraction in times.items():
            if not 0 <= fraction < 1:
                name = f"prune_at['{key}']" if key else "prune_at"
                raise ValueError(f"Config.{name} must be in [0, 1), got {fraction}")
        if not 0 <= self.birth_from < 1:
            raise ValueError(f"Config.birth_from must be in [0, 1), got {self.birth_from}")
        if self.birth_from and not self.split_every:
            raise ValueError("Config.birth_from needs split_every > 0: births go with its searches")
        exponents = list(self.p.values()) if isinstance(self.p, Mapping) else [self.p]
        for e in exponents:
            ends = (e.start, e.end) if isinstance(e, Schedule) else (e,)
            if not all(0 < end < math.inf for end in ends):
                raise ValueError(f"Config.p must be > 0, got {e}")
        coeffs = {
            name: getattr(self, f"{name}_coeff")
            for name in ("importance", "faithfulness", "recon", "layerwise", "adversary")
        }
        numbers = {f"{k}_coeff": c for k, c in coeffs.items() if not isinstance(c, Schedule)}
        numbers |= {f"importance_scale['{k}']": c for k, c in self.importance_scale.items()}
        frequency = self.frequency_coeff
        table = frequency if isinstance(frequency, Mapping) else {"": frequency}
        numbers |= {
            f"frequency_coeff['{k}']" if k else "frequency_coeff": c
            for k, c in table.items()
            if not isinstance(c, Schedule)
        }
        for name, c in numbers.items():
            if isinstance(c, Schedule) or not 0 <= c < math.inf:
                raise ValueError(f"Config.{name} must be a number ≥ 0, got {c}")
        for name, allowed in (
            ("output_loss", ("mse", "kl")),
            ("layerwise_masks", ("fresh", "shared")),
            ("lr_schedule", ("cosine", "constant")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Config.{name} must be one of {allowed}, got {getattr(self, name)!r}"
                )

    def check_patterns(self, modules: Sequence[str]) -> None:
        """Raises ValueError for a pattern of a per-module field that matches no module."""
        fields = ("C", "p", "importance_scale", "frequency_coeff", "split_every", "prune_at")
        for field_name in fields:
            table = getattr(self, field_name)
            for pattern in table if isinstance(table, Mapping) else ():
                if pattern != "*" and not any(fnmatchcase(m, pattern) for m in modules):
                    raise ValueError(
                        f"Config.{field_name} has a pattern '{pattern}' that matches none of the "
                        f"decomposed modules {list(modules)}"
                    )

    def C_of(self, module: str) -> int:
        """Subcomponents of one module. Raises ValueError when no pattern of `C` matches it."""
        if isinstance(self.C, int):
            return self.C
        C = lookup(self.C, module, None)
        if C is None:
            raise ValueError(f"Config.C has no entry for module '{module}'; it has {list(self.C)}")
        return C

    @property
    def has_adversary(self) -> bool:
        """Whether sources climb against the run at any time."""
        c = self.adversary_coeff
        return bool(c.start or c.end if isinstance(c, Schedule) else c)

    def frequency_of(self, module: str, progress: float) -> float:
        """Weight of a module's frequency penalty at `progress`; 0 where no pattern matches."""
        coeff = self.frequency_coeff
        return value_at(
            lookup(coeff, module, 0.0) if isinstance(coeff, Mapping) else coeff, progress
        )

    def p_of(self, module: str, progress: float) -> float:
        """Exponent p of one module at `progress` in [0, 1]."""
        p = lookup(self.p, module, 1.0) if isinstance(self.p, Mapping) else self.p
        return value_at(p, progress)

    def splits_at(self, step: int, module: str) -> bool:
        """Whether shared subcomponents of a module are split before this step."""
        every = self.split_every
        every = lookup(every, module, 0) if isinstance(every, Mapping) else every
        return bool(every and step and step % every == 0 and step <= self.split_until * self.steps)

    def births_at(self, step: int, module: str) -> bool:
        """Whether inputs of a module that nothing serves are given away before this step."""
        begun = self.birth_from > 0 and step >= self.birth_from * self.steps
        return begun and self.splits_at(step, module)

    def prunes_at(self, step: int, module: str) -> bool:
        """Whether dead subcomponents of a module are removed before this step."""
        at = self.prune_at
        at = lookup(at, module, 0.0) if isinstance(at, Mapping) else at
        return bool(at) and step == int(at * self.steps)

    def lr_factor(self, step: int) -> float:
        """Factor on both learning rates at a step: linear warm-up times the decay."""
        warmup = min((step + 1) / (self.lr_warmup_steps + 1), 1.0)
        if self.lr_schedule == "constant":
            return warmup
        span = max(self.steps - self.lr_warmup_steps, 1)
        done = max(step - self.lr_warmup_steps, 0) / span
        return warmup * 0.5 * (1 + math.cos(math.pi * done))

    def merges_at(self, step: int, module: str) -> bool:
        """Whether doubles of a module are merged before this step."""
        at = self.prune_at
        at = lookup(at, module, 0.0) if isinstance(at, Mapping) else at
        later = self.splits_at(step, module) and step > at * self.steps
        return self.prunes_at(step, module) or (bool(at) and later)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Rebuild a Config from `to_dict`. Raises ValueError for unknown fields."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown Config fields {unknown}; known are {sorted(known)}")
        return cls(**{k: _revive(v) for k, v in values.items()})


def _revive(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"start", "end", "until", "log"}:
            return Schedule(**value)
        return {k: _revive(v) for k, v in value.items()}
    return value


def lookup(table: Mapping[str, T], module: str, default: Any) -> Any:
    """First entry of `table` whose key is the module's name or a glob pattern matching it."""
    for pattern, value in table.items():
        if fnmatchcase(module, pattern):
            return value
    return default
