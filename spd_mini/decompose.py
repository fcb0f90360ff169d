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
    say = progress if callable(progress) else _print if progress else None
    started, last_said, steps = time.perf_counter(), -1, run.config.steps
    finished = False
    try:
        run.warm_up()
        while run.step < steps:
            run.train_step()
            at_log = run.step % run.config.log_every == 0 or run.step == steps
            at_checkpoint = checkpoint is not None and run.step % checkpoint_every == 0
            if at_log or at_checkpoint:
                run.flush()
            if at_checkpoint and checkpoint is not None:
                save(run, checkpoint)
            if at_log and say and (10 * run.step // steps > last_said):
                last_said = 10 * run.step // steps
                say(_progress(run, time.perf_counter() - started))
            if at_log and callback is not None:
                callback(run.step, run.result(finished=run.step == steps))
        finished = True
    except KeyboardInterrupt:
        run.flush()
        if say:
            say(f"interrupted at step {run.step}/{steps}; returning the decomposition so far")
    result = run.result(finished)
    result.info["seconds"] = time.perf_counter() - started
    return result


def _progress(run: Run, seconds: float) -> str:
    recent = run.log[-run.config.log_every :, :, int(run.scores().argmin())].mean(0)
    total, faith, recon, layer, imp = recent
    return (
        f"step {run.step:>5}/{run.config.steps} loss {total:.2e} faith {faith:.0e} "
        f"recon {recon:.0e} layer {layer:.0e} imp {imp:.2f} {seconds:4.0f} s"
    )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
