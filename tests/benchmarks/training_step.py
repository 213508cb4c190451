"""What a step of a recipe costs: with freed memory kept or not, and with several subnets at the same time.

    python -m tests.benchmarks.training_step --recipe digits.yaml --space tiny_16 --batch 64

For each variant, in a process of its own, milliseconds of a step: those that passed, and those of the processor.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ofa_deploy.config import TrainRecipe, find_file, read_document
from ofa_deploy.training import loop
from ofa_deploy.training.distributed import ALONE
from ofa_deploy.training.sampling import train_batches
from ofa_deploy.training.steps import backward_of

WARMING, TIMED = 5, 40  # steps
VARIANTS = [(False, 1), (True, 1), (False, 2), (True, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="digits.yaml")
    parser.add_argument("--space", help="instead of the recipe's")
    parser.add_argument("--batch", type=int, help="instead of the recipe's")
    parser.add_argument("--keep", type=int)
    parser.add_argument("--parallel", type=int)
    options = parser.parse_args()
    if options.parallel is None:
        for keep, parallel in VARIANTS:
            more = ["--keep", str(int(keep)), "--parallel", str(parallel)]
            command = [sys.executable, "-m", "tests.benchmarks.training_step", *sys.argv[1:], *more]
            subprocess.run(command, check=True)
        return
    if not options.keep:
        loop.keep_freed_memory = lambda: None
    changes = {"parallel_subnets": options.parallel, "threads": 1}
    changes |= {name: value for name, value in (("space", options.space), ("batch_size", options.batch)) if value}
    recipe = read_document(TrainRecipe, find_file(options.recipe, "pipelines")).model_copy(update=changes)
    passed, spent = measure(recipe)
    print(
        f"freed memory {'kept' if options.keep else 'returned'}, subnets at the same time: {options.parallel}: "
        f"{passed:.1f} ms, of the processor {spent:.1f} ms",
        flush=True,
    )


def measure(recipe: TrainRecipe) -> tuple[float, float]:
    """Milliseconds of a step: passed, and of the processor."""
    with tempfile.TemporaryDirectory() as folder, loop.torch_settings(recipe.threads):
        run = loop._Run(recipe, Path(folder), None, ALONE, fresh=True)
        run.state.supernet.train()
        batches = train_batches(run.data.train, recipe, 0)
        with backward_of(recipe, list(run.state.supernet.parameters()), ALONE) as backward:
            for step in range(WARMING + TIMED):
                if step == WARMING:
                    began, spent = time.perf_counter(), time.process_time()
                run._step(*next(batches), backward)
        return 1000 * (time.perf_counter() - began) / TIMED, 1000 * (time.process_time() - spent) / TIMED


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
