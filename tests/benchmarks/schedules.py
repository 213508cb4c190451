"""The sandwich and the progressive schedule at equal compute: accuracies of subnets on the test split.

Compute is counted in multiply-accumulates of all steps: three times a subnet's forward pass for each that is trained
(backward costs two), once for a teacher that only looks. The second recipe's epochs are set so that it has the first
one's. An interrupted run goes on where it stopped.

python tests/benchmarks/schedules.py [--epochs 10] [--random 20] [-o .ofa/schedules]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.config import TrainRecipe, find_file, read_document
from ofa_deploy.space import Arch, PopulationCodec, load_space
from ofa_deploy.supernet import load_supernet
from ofa_deploy.training import Data, batches, evaluate, load_data, specialise_all, train_supernet
from ofa_deploy.training.sampling import step_archs, steps_per_epoch
from ofa_deploy.training.schedules import plan

RECIPES = ("fashion_mnist.yaml", "fashion_mnist_progressive.yaml")


def compute(recipe: TrainRecipe, data: Data) -> float:
    """Multiply-accumulates for each image of a batch, over all steps of a recipe."""
    space = load_space(recipe.space)
    codec = PopulationCodec(space)
    trained: list[Arch] = []
    looking: list[Arch] = []
    for phase in plan(recipe, space, steps_per_epoch(recipe, data.train)):
        opened = PopulationCodec(phase.space)
        for step in range(phase.first, phase.end):
            archs = step_archs(opened, recipe, step, phase.subnets)
            if recipe.schedule == "sandwich":
                archs += [space.largest] + ([space.smallest] if phase.name == "sandwich" else [])
            elif phase.name != "largest":
                looking.append(replace(space.largest, resolution=archs[0].resolution))
            trained += archs
    return float(3 * codec.macs(codec.encode(trained)).sum() + codec.macs(codec.encode(looking)).sum())


def equalise(recipe: TrainRecipe, wanted: float, data: Data) -> TrainRecipe:
    """The recipe with the number of epochs whose compute is nearest."""
    per_epoch = compute(recipe, data) / recipe.epochs
    guess = max(1, round(wanted / per_epoch))
    candidates = [recipe.model_copy(update={"epochs": epochs}) for epochs in range(max(1, guess - 1), guess + 2)]
    return min(candidates, key=lambda candidate: abs(compute(candidate, data) - wanted))


def measure(path: Path, recipe: TrainRecipe, data: Data, count: int) -> dict[str, float]:
    """Test accuracies of the largest, the smallest, and over ``count`` random subnets the mean and the least."""
    supernet, summary = load_supernet(path)
    space, codec = supernet.space, PopulationCodec(supernet.space)
    archs = [space.largest, space.smallest, *codec.decode(codec.sample(count, np.random.default_rng(1)))]
    found = []
    for arch, subnet in zip(
        archs, specialise_all(supernet, archs, data, recipe.accuracy.recalibration_images), strict=True
    ):
        images = batches(data.test, arch.resolution, 256, data.mean, data.std)
        found.append(evaluate(subnet, images).accuracy)
    largest, smallest, *others = found
    return {
        "epochs": recipe.epochs,
        "minutes": summary["seconds"] / 60,
        "largest": largest,
        "smallest": smallest,
        "random_mean": float(np.mean(others)),
        "random_least": min(others),
    }


def main() -> None:
    """Train both, and print one JSON document on stdout and the table on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, help="of the sandwich; as its recipe says by default")
    parser.add_argument("--random", type=int, default=20, help="subnets")
    parser.add_argument("-o", "--output", type=Path, default=Path(".ofa/schedules"))
    options = parser.parse_args()
    first, second = (read_document(TrainRecipe, find_file(name, "pipelines")) for name in RECIPES)
    data = load_data(first.data)
    if options.epochs:
        first = first.model_copy(update={"epochs": options.epochs})
    wanted = compute(first, data)
    table: dict[str, Any] = {}
    for recipe in (first, equalise(second, wanted, data)):
        folder = options.output / f"{recipe.schedule}_{recipe.epochs}"
        path = train_supernet(recipe, folder, resume=True, report=teller(recipe.schedule))
        compared = {"compute": compute(recipe, data) / wanted}
        table[recipe.schedule] = {**compared, **measure(path, recipe, data, options.random)}
    print(json.dumps(table, indent=2))
    columns = list(table["sandwich"])
    print(f"| schedule | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}", file=sys.stderr)
    for name, row in table.items():
        print(f"| {name} | {' | '.join(f'{value:.4g}' for value in row.values())} |", file=sys.stderr)


def teller(name: str) -> Any:
    """A line on stderr every half a minute."""
    last = 0.0

    def tell(line: dict[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last > 30:
            last = time.monotonic()
            print(f"{name}: step {line['done']} of {line['total']}, loss {line['loss']:.3f}", file=sys.stderr)

    return tell


if __name__ == "__main__":
    main()
