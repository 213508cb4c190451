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
from contextlib import suppress
from pathlib import Path

import torch

from ofa_deploy.config import TrainRecipe, find_file, read_document
from ofa_deploy.notices import Numbers
from ofa_deploy.training import devices, train_supernet

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
        devices.keep_freed_memory = lambda: None
    changes = {"parallel_subnets": options.parallel, "threads": 1}
    changes |= {name: value for name, value in (("space", options.space), ("batch_size", options.batch)) if value}
    recipe = read_document(TrainRecipe, find_file(options.recipe, "pipelines")).model_copy(update=changes)
    passed, spent = measure(recipe)
    print(
        f"freed memory {'kept' if options.keep else 'returned'}, subnets at the same time: {options.parallel}: "
        f"{passed:.1f} ms, of the processor {spent:.1f} ms",
        flush=True,
    )


class _TimedError(Exception):
    """Enough steps were timed."""


def measure(recipe: TrainRecipe) -> tuple[float, float]:
    """Milliseconds of a step, with all that the trainer does around it: passed, and of the processor."""
    times: list[tuple[float, float]] = []

    def report(_: Numbers) -> None:
        times.append((time.perf_counter(), time.process_time()))
        if len(times) > WARMING + TIMED:
            raise _TimedError

    with tempfile.TemporaryDirectory() as folder, suppress(_TimedError):
        train_supernet(
            recipe.model_copy(update={"checkpoint_seconds": 1e9, "epochs": 1000}), Path(folder), report=report
        )
    passed, spent = (1000 * (end - begin) / TIMED for begin, end in zip(times[WARMING], times[-1], strict=True))
    return passed, spent


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
