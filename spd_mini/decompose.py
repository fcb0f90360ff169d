"""The training loop: `decompose` turns a target model and inputs into a `Decomposition`."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .checkpoint import restore, save
from .config import Config
from .data import Sample
from .decomposition import Decomposition, resolve_device
from .run import Run


def decompose(
    target: nn.Module,
    sample: Sample | Iterable[Any],
    config: Config | None = None,
    modules: Sequence[str] | None = None,
    tied: Mapping[str, str] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool | Callable[[str], object] = True,
    callback: Callable[[int, Decomposition], object] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: str | Path | None = None,
) -> Decomposition:
    """Decompose the weights of `target` into rank-one subcomponents (arXiv 2506.20790).

    target: any module returning a tensor, batch first; it is left exactly as it was found.
    sample: `sample(n, generator)` → inputs (n, ...), or a pair (inputs, row weights summing to 1);
        or an iterable of batches, such as a DataLoader (the first entry of a tuple is the input).
    modules: names or glob patterns of nn.Linear or nn.Embedding submodules; None = all.
    tied: {"decoder": "encoder"} where one weight is the other's transpose.
    seed: fixes everything: same seed, machine and thread count give the same bits on CPU.
    progress: True prints about ten lines; a function receives them instead.
    callback: called as callback(step, decomposition) every `config.log_every` steps.
    checkpoint: file to write every `checkpoint_every` steps; `resume` continues from such a file
        to the same result as an uninterrupted run.

    Ctrl-C returns what there is so far, with `finished` False. Raises ValueError for bad input and
    FloatingPointError, naming step and loss term, when a loss is not finite.
    """
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be ≥ 1, got {checkpoint_every}")
    run = Run(target, sample, config or Config(), modules, tied, seed, resolve_device(device))
    if resume is not None:
        restore(run, resume)

    def after(step: int, at_log: bool) -> None:
        if checkpoint is not None and step % checkpoint_every == 0:
            run.flush()
            save(run, checkpoint)
        if at_log and callback is not None:
            callback(step, run.result(finished=step == run.config.steps))

    return _train(run, progress, after)[0]


def sweep(
    target: nn.Module,
    sample: Sample | Iterable[Any],
    config: Config | None = None,
    seeds: Iterable[int] = range(10),
    modules: Sequence[str] | None = None,
    tied: Mapping[str, str] | None = None,
    device: str | torch.device = "auto",
    progress: bool | Callable[[str], object] = True,
) -> list[Decomposition]:
    """Decompose one target from many seeds side by side, in one process: a list, seed by seed.

    Each seed starts exactly as `decompose(…, seed=seed)` would, with its own restarts; the batches
    are shared and mask draws come from one stream, so that results differ from single runs in
    chance only. On small models, where a step is mostly overhead, this is several times faster
    than one run after the other. Arguments, errors and Ctrl-C as in `decompose`; raises ValueError
    for no seeds or one that occurs twice.
    """
    seeds = list(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"sweep needs one or more different seeds, got {seeds}")
    run = Run(target, sample, config or Config(), modules, tied, seeds, resolve_device(device))
    return _train(run, progress)


def _train(
    run: Run,
    progress: bool | Callable[[str], object],
    after: Callable[[int, bool], None] = lambda step, at_log: None,
) -> list[Decomposition]:
    """Train to the end, or to Ctrl-C. `after` is called after each step."""
    say = progress if callable(progress) else _print if progress else None
    started, last_said, steps = time.perf_counter(), -1, run.config.steps
    finished = False
    try:
        run.warm_up()
        while run.step < steps:
            run.train_step()
            at_log = run.step % run.config.log_every == 0 or run.step == steps
            if at_log:
                run.flush()
            if at_log and say and (10 * run.step // steps > last_said):
                last_said = 10 * run.step // steps
                say(_progress(run, time.perf_counter() - started))
            after(run.step, at_log)
        finished = True
    except KeyboardInterrupt:
        run.flush()
        if say:
            say(f"interrupted at step {run.step}/{steps}; returning the decomposition so far")
    results = [run.result(finished, which=which) for which in range(len(run.seeds))]
    for d in results:
        d.info["seconds"] = time.perf_counter() - started
    return results


def _progress(run: Run, seconds: float) -> str:
    recent = run.log[-run.config.log_every :, :, int(run.scores().argmin())].mean(0)
    total, faith, recon, layer, imp, *hostile = recent
    return (
        f"step {run.step:>5}/{run.config.steps} loss {total:.2e} faith {faith:.0e} "
        f"recon {recon:.0e} layer {layer:.0e} imp {imp:.2f} "
        + "".join(f"adversary {loss:.0e} " for loss in hostile)
        + f"{seconds:4.0f} s"
    )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
