"""Facts: a small MLP that recalls answers from keys, an associative memory.

A fact is a key vector with an answer. Keys of one subject share a part, so that every fact has
close neighbours; a paraphrase is a key with noise added. Neurons read keys, and what each of them
writes adds up to the logits of the answers (a key-value memory: Geva et al. 2021, arXiv
2012.14913). Three arms:

- `facts`: twice as many neurons as facts;
- `facts-superposed`: a third as many neurons as facts;
- `facts-redundant`: two pathways side by side, trained so that each alone recalls every fact.

Known is what is stored, how the keys lie, and that both pathways do the work of one. By which
rank-one pieces a fact is recalled is not known, so there is no verdict `recovered`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config, Schedule
from ..recovery import Truth


class Path(nn.Module):
    """W_out ReLU(W_in x + b). W_in: Linear(d_key, d_mlp); W_out: Linear(d_mlp, n_answers)."""

    def __init__(self, d_key: int, d_mlp: int, n_answers: int) -> None:
        super().__init__()
        self.W_in = nn.Linear(d_key, d_mlp)
        self.W_out = nn.Linear(d_mlp, n_answers, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_key) → (..., n_answers)."""
        out: Tensor = self.W_out(torch.relu(self.W_in(x)))
        return out


class Facts(nn.Module):
    """Logits of the answers: the sum of what `n_paths` pathways of `d_mlp` neurons each write.

    keys: (n_facts, d_key), of unit length; answers: (n_facts,), one after the other and, where
    there are fewer than facts, from the first again. Facts that follow one another belong to one
    subject. Raises ValueError for sizes below 1.
    """

    keys: Tensor
    answers: Tensor

    def __init__(
        self,
        n_facts: int,
        facts_per_subject: int,
        n_answers: int,
        d_key: int,
        d_mlp: int,
        n_paths: int = 1,
    ) -> None:
        super().__init__()
        self.init_kwargs = {
            "n_facts": n_facts,
            "facts_per_subject": facts_per_subject,
            "n_answers": n_answers,
            "d_key": d_key,
            "d_mlp": d_mlp,
            "n_paths": n_paths,
        }
        if min(self.init_kwargs.values()) < 1:
            raise ValueError(f"sizes of facts must be ≥ 1, got {self.init_kwargs}")
        self.training_info: dict[str, Any] = {}
        self.register_buffer("keys", torch.zeros(n_facts, d_key))
        self.register_buffer("answers", torch.arange(n_facts) % n_answers)
        self.paths = nn.ModuleList(Path(d_key, d_mlp, n_answers) for _ in range(n_paths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_key) → logits (..., n_answers)."""
        return torch.stack([path(x) for path in self.paths]).sum(0)

    @property
    def subjects(self) -> Tensor:
        """The subject of each fact: (n_facts,)."""
        n = len(self.keys)
        return torch.arange(n, device=self.keys.device) // self.init_kwargs["facts_per_subject"]

    @property
    def tied(self) -> dict[str, str]:
        return {}

    def structure(self) -> dict[str, Any]:
        """The computation as the explorer draws it: pathways that add up, and what is asked."""
        return {
            "kind": "pathways",
            "layers": [(f"paths.{i}.W_in", f"paths.{i}.W_out") for i in range(len(self.paths))],
            "keys": "keys",
            "answers": "answers",
            "groups": "subjects",
        }

    def truth(self) -> Truth:
        """The clean keys as probes, and no patterns: see the module."""
        return Truth(probes=self.keys, patterns={}, max_faithfulness=0.05)


def draw_keys(
    n_facts: int, facts_per_subject: int, d_key: int, shared: float, generator: torch.Generator
) -> Tensor:
    """Keys (n_facts, d_key) of unit length; two of one subject have cosine `shared`, about.

    Each is √shared times its subject's random direction plus √(1 − shared) times one of its own.
    Raises ValueError for a cosine outside [0, 1].
    """
    if not 0 <= shared <= 1:
        raise ValueError(f"the cosine of keys of one subject must be in [0, 1], got {shared}")
    own = F.normalize(torch.randn(n_facts, d_key, generator=generator), dim=1)
    n_subjects = -(-n_facts // facts_per_subject)
    subject = F.normalize(torch.randn(n_subjects, d_key, generator=generator), dim=1)
    of_each = subject.repeat_interleave(facts_per_subject, 0)[:n_facts]
    return F.normalize(shared**0.5 * of_each + (1 - shared) ** 0.5 * own, dim=1)


def paraphrase(keys: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Keys (..., d_key) with Gaussian noise of length `noise`, in the root mean square."""
    drawn = torch.randn(keys.shape, generator=generator, device=generator.device)
    return keys + drawn.to(keys) * (noise / keys.shape[-1] ** 0.5)


@dataclass(frozen=True)
class Paraphrases:
    """Sampler of inputs (n, d_key): facts alike often, each key with noise of its own."""

    keys: Tensor
    noise: float

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(self.keys), (n,), generator=generator, device=generator.device)
        return paraphrase(self.keys.to(generator.device)[which], self.noise, generator)


@dataclass(frozen=True)
class Preset:
    """One experiment: the facts, the target's size and training, and how it is decomposed."""

    name: str
    d_mlp: int
    n_paths: int
    config: Config
    paper_config: None = None
    """The paper has no such model."""
    n_facts: int = 48
    facts_per_subject: int = 4
    n_answers: int = 48
    d_key: int = 128
    shared: float = 0.5
    """Cosine of two keys of one subject."""
    noise: float = 0.5
    """Length of a paraphrase's noise in training; keys have length 1."""
    spd_noise: float = 0.3
    """The same in the inputs of the decomposition."""
    train_steps: int = 400
    train_rows: int = 2
    """Paraphrases of each fact in a training batch."""

    def sampler(self, target: Facts) -> Paraphrases:
        """Inputs for the decomposition: paraphrases of the target's own keys."""
        return Paraphrases(target.keys, self.spd_noise)

    def train(self, seed: int = 0, without: Sequence[int] = ()) -> Facts:
        """See `train`."""
        return train(self, seed, without)

    def summary(self) -> str:
        """One line for lists."""
        paths = "" if self.n_paths == 1 else f" in each of {self.n_paths} pathways"
        return f"{self.n_facts} facts on {self.d_mlp} neurons{paths}"


def train(preset: Preset, seed: int = 0, without: Sequence[int] = ()) -> Facts:
    """Draw the keys and train a target on their paraphrases, but for the facts `without`.

    The loss is cross-entropy and a tenth of the mean squared logit, without which all logits drift
    together (the softmax does not notice) and no longer say what is stored. Several pathways are
    trained each by itself and all together. AdamW from small weights, weight decay 0.3, learning
    rate 1e-2, cosine to 0. The same seed draws the same keys and first weights, whatever is left
    out. The caller's global random state is left alone. Raises ValueError for facts not there, or
    if none is left.
    """
    taught = sorted(set(range(preset.n_facts)) - set(without))
    if not taught or not set(without) <= set(range(preset.n_facts)):
        raise ValueError(f"of facts 0 to {preset.n_facts - 1} some must stay, without {without}")
    p, generator = preset, torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        target = Facts(p.n_facts, p.facts_per_subject, p.n_answers, p.d_key, p.d_mlp, p.n_paths)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(0.1)
    target.keys.copy_(draw_keys(p.n_facts, p.facts_per_subject, p.d_key, p.shared, generator))
    keys, answers = (
        t[taught].repeat_interleave(p.train_rows, 0) for t in (target.keys, target.answers)
    )
    adam = torch.optim.AdamW(target.parameters(), lr=1e-2, weight_decay=0.3, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda s: 0.5 * (1 + math.cos(math.pi * s / p.train_steps))
    )
    for _ in range(p.train_steps):
        adam.zero_grad()
        x = paraphrase(keys, p.noise, generator)
        outs = torch.stack([path(x) for path in target.paths])
        if len(outs) > 1:
            outs = torch.cat([outs, outs.sum(0, keepdim=True)])
        loss = F.cross_entropy(outs.flatten(0, 1), answers.repeat(len(outs)))
        loss = loss + 0.1 * outs.square().mean()
        loss.backward()
        adam.step()
        decay.step()
    target.training_info = {"restarts": 1, "losses": [float(loss.detach())], "chosen": 0}
    return target.eval()


@torch.no_grad()
def recall(
    model: Callable[[Tensor], Tensor],
    facts: Facts,
    noise: float = 0.0,
    draws: int = 1,
    seed: int = 0,
) -> Tensor:
    """How often a model gives each fact's answer: (n_facts,) in [0, 1], over `draws` paraphrases.

    model: what maps keys to logits: a target, an edited one, one pathway, a masked decomposition.
    noise: of the paraphrases; 0 = the clean keys.
    """
    right = _logits(model, facts, noise, draws, seed).argmax(-1) == facts.answers
    return right.float().mean(0)


@torch.no_grad()
def confidence(
    model: Callable[[Tensor], Tensor],
    facts: Facts,
    noise: float = 0.0,
    draws: int = 1,
    seed: int = 0,
) -> Tensor:
    """The mean probability of each fact's answer: (n_facts,). Arguments as of `recall`.

    The largest of 48 logits may be the right one by a hair: see both.
    """
    p = _logits(model, facts, noise, draws, seed).softmax(-1)
    return p[:, torch.arange(len(facts.answers)), facts.answers].mean(0)


def _logits(
    model: Callable[[Tensor], Tensor], facts: Facts, noise: float, draws: int, seed: int
) -> Tensor:
    """(draws, n_facts, n_answers)."""
    keys = facts.keys.expand(draws, *facts.keys.shape)
    x = paraphrase(keys, noise, torch.Generator().manual_seed(seed))
    return model(x.flatten(0, 1)).unflatten(0, (draws, -1))


# Squared error of the logits, not KL: a saturated softmax hardly notices logits of half the size,
# which is what masks at random leave, and so nothing would be important. The frequency penalty
# keeps pieces from serving two facts; W_out's higher and more concave price keeps two pieces from
# sharing one. W_in is also random where no key lies: it takes more pieces than there are facts.
_OURS = Config(
    C={"*W_in": 128, "*W_out": 64},
    steps=1000,
    batch_size=192,
    lr=2e-2,
    gate_lr=3e-2,
    lr_warmup_steps=50,
    importance_coeff=Schedule(4e-3, 1e-2, until=0.7, log=True),
    importance_scale={"*W_out": 1.5},
    p={"*W_in": Schedule(2.0, 1.0, until=0.7), "*W_out": Schedule(2.0, 0.7, until=0.7)},
    frequency_coeff=1.0,
    faithfulness_coeff=Schedule(1.0, 200.0, until=0.9, log=True),
    gate_hidden=8,
    layerwise_masks="shared",
    faithfulness_warmup_steps=200,
)
FACTS = Preset("facts", 96, 1, _OURS)
FACTS_SUPERPOSED = dataclasses.replace(FACTS, name="facts-superposed", d_mlp=16)
FACTS_REDUNDANT = Preset("facts-redundant", 64, 2, _OURS)
