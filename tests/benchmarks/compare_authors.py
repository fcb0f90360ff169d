"""CPU time of one training step: the authors' released code against spd_mini, in one run.

Both decompose the same target with the paper's settings (batch, C, d_gate), in turns, on the same
number of threads. The authors' code is imported from a checkout that you give (the release of the
paper is tag `v1` of github.com/goodfire-ai/spd; it needs einops, jaxtyping, pydantic, dotenv,
matplotlib, pyyaml and tqdm); packages that their import chain names but a training step never uses
are replaced by empty stand-ins. Nothing of theirs is copied.

    python tests/benchmarks/compare_authors.py --authors PATH [tms-5-2 …] [--json FILE]
"""

import argparse
import copy
import dataclasses
import importlib
import json
import statistics
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spd_mini.run import Run
from spd_mini.targets import EXPERIMENTS

UNUSED = ["wandb", "wandb.apis", "wandb.apis.public", "transformers", "datasets"]
UNUSED += ["datasets.distributed", "streamlit", "dotenv", "fire"]
ROUNDS, WARM = 5, 2


class StandIn(types.ModuleType):
    """An empty package: every name in it is an empty class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_authors(path: Path) -> dict[str, Any]:
    """The authors' modules, by short name. Raises SystemExit with one line where that fails."""
    if not (path / "spd" / "run_spd.py").is_file():
        raise SystemExit(f"error: {path} is not a checkout of the authors' code: no spd/run_spd.py")
    sys.path.insert(0, str(path))
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = StandIn(name)
    try:
        names = ("spd.run_spd", "spd.configs", "spd.data_utils")
        return {n.split(".")[-1]: importlib.import_module(n) for n in names}
    except ImportError as error:
        raise SystemExit(f"error: the authors' code needs a package: {error}") from error


class Clock:
    """Stands in for their progress bar: notes the CPU time at the start of every step."""

    def __init__(self, steps: range, **_: Any) -> None:
        self.steps = steps
        Clock.times = []

    times: list[float]

    def __iter__(self) -> Iterator[int]:
        for step in self.steps:
            Clock.times.append(time.process_time())
            yield step

    write = staticmethod(lambda _: None)


def their_steps(theirs: dict[str, Any], target: nn.Module, preset: Any, steps: int) -> list[float]:
    """Milliseconds of CPU time of each of `steps` training steps of the authors' `optimize`."""
    c = preset.paper_config
    config = theirs["configs"].Config(
        C=c.C,
        n_mask_samples=c.mask_samples,
        n_ci_mlp_neurons=c.gate_hidden,
        target_module_patterns=["encoder", "hidden", "decoder"][:: 1 if preset.identity else 2],
        stochastic_recon_coeff=1.0,
        stochastic_recon_layerwise_coeff=1.0,
        importance_minimality_coeff=c.importance_coeff,
        pnorm=c.p,
        output_loss_type="mse",
        lr=c.lr,
        steps=steps + WARM,
        batch_size=c.batch_size,
        lr_schedule="cosine",
        n_eval_steps=1,
        print_freq=10**9,
        pretrained_model_class="spd.experiments.tms.models.TMSModel",
        task_config={
            "task_name": "tms",
            "feature_probability": preset.feature_probability,
            "data_generation_type": "at_least_zero_active",
        },
    )
    data = theirs["data_utils"]
    dataset = data.SparseFeatureDataset(
        n_features=preset.n_features,
        feature_probability=preset.feature_probability,
        device="cpu",
        data_generation_type="at_least_zero_active",
        value_range=(0.0, 1.0),
        synced_inputs=None,
    )
    loader = data.DatasetGeneratedDataLoader(dataset, batch_size=c.batch_size, shuffle=False)
    theirs["run_spd"].tqdm = Clock
    theirs["run_spd"].optimize(
        target_model=target,
        config=config,
        device="cpu",
        train_loader=loader,
        eval_loader=loader,
        n_eval_steps=1,
        out_dir=None,
        tied_weights=[("encoder", "decoder")],
    )
    pairs = zip(Clock.times[WARM:-1], Clock.times[WARM + 1 :], strict=True)
    return [1e3 * (b - a) for a, b in pairs]


def our_steps(run: Run, steps: int) -> list[float]:
    """Milliseconds of CPU time of each of `steps` of our training steps."""
    times = []
    for _ in range(steps):
        start = time.process_time()
        run.train_step()
        times.append(1e3 * (time.process_time() - start))
    return times


def compare(theirs: dict[str, Any], preset: Any, steps: int) -> dict[str, Any]:
    """Medians over all steps of ROUNDS alternating rounds, and the ratio round by round."""
    cpu, target, config = torch.device("cpu"), preset.train(0), preset.paper_config
    # As many non-zero rows as the plain batch holds on average; one zero row stands for the rest.
    nonzero = dataclasses.replace(preset.sampler(True), stratified=True)
    fewer = dataclasses.replace(config, batch_size=round(config.batch_size * (1 - nonzero.p_zero)))
    runs = {
        "plain": Run(target, preset.sampler(True), config, None, target.tied, 0, cpu),
        "no_zero_rows": Run(target, nonzero, fewer, None, target.tied, 0, cpu),
    }
    for run in runs.values():
        our_steps(run, WARM)
    times: dict[str, list[list[float]]] = {"authors": [], **{k: [] for k in runs}}
    for _ in range(ROUNDS):
        times["authors"].append(their_steps(theirs, copy.deepcopy(target), preset, steps))
        for name, run in runs.items():
            times[name].append(our_steps(run, steps))
    medians = {k: [statistics.median(r) for r in v] for k, v in times.items()}
    ratios = {
        k: statistics.median(a / b for a, b in zip(medians["authors"], medians[k], strict=True))
        for k in runs
    }
    return {
        "experiment": preset.name,
        "threads": torch.get_num_threads(),
        "ms_per_step": {k: statistics.median(v) for k, v in medians.items()},
        "authors_over_ours": ratios,
    }


def main() -> None:
    """Print one line for each experiment, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiments", nargs="*", default=list(EXPERIMENTS))
    parser.add_argument("--authors", type=Path, required=True, help="their checkout")
    parser.add_argument("--steps", type=int, default=15, help="timed steps a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    theirs, rows = import_authors(args.authors), []
    for name in args.experiments:
        rows.append(compare(theirs, EXPERIMENTS[name], args.steps))
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
