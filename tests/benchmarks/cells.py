"""Cells on a small part of Fashion-MNIST: what a search is worth beside chance, and its guards beside none.

python tests/benchmarks/cells.py -o FOLDER [--random 10] [--json]

Two searches from one seed: a plain one, and one with guards. The cells of both, and for each of them random ones whose
networks have as many parameters (within 10 %), are trained alike from scratch. The setting is small, so that a
core bears it: see ``RECIPE`` and ``TRAIN``. What is done is kept in FOLDER: after an interruption it goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.config import DataConfig, read_document
from ofa_deploy.differentiable import DartsRecipe, random_genotype, search_cells, train_network
from ofa_deploy.files import write_atomic
from ofa_deploy.space import Genotype, network_params
from ofa_deploy.training import load_data

TRAIN, VALID, TEST = 6000, 2000, 4000  # images; half of those to train on teach the architecture in a search
RECIPE: dict[str, Any] = {
    "resolution": 16,
    "nodes": 3,
    "threads": 1,
    "search": {"epochs": 12, "cells": 3, "channels": 8, "batch_size": 64, "lr": 0.05, "arch_lr": 0.01, "partial": 2},
    "train": {"epochs": 6, "cells": 4, "channels": 8, "batch_size": 64, "lr": 0.05, "warmup_epochs": 0.5}
    | {"auxiliary": 0.0, "drop_path": 0.0},
}
GUARDS = {"frozen_epochs": 2, "max_skips": 1, "stop_eigenvalue": 0.75, "window": 2}
CHANCE = {"guarded": "random", "unguarded": "random-unguarded"}  # how the random cells of equal size are named
CLOSE = 0.1  # by how much parameters may differ


def main() -> None:
    """Search, train, compare; print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder that keeps what is done")
    parser.add_argument("--random", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    answer = study(options.output, options.random)
    write_atomic(options.output / "result.json", (json.dumps(answer, indent=1) + "\n").encode())
    print(json.dumps(answer, indent=1) if options.json else table(answer))


def study(folder: Path, count: int) -> dict[str, Any]:
    """Accuracies on test images of the cells that were found, and of random ones."""
    images = subset(folder)
    found: dict[str, Any] = {}
    genotypes: dict[str, Genotype] = {}
    for name, guards in (("guarded", GUARDS), ("unguarded", {})):
        searched = search_cells(recipe(name, images, guards), folder / name, resume=True)
        genotypes[name] = Genotype.of(searched["genotype"])
        free = [Genotype.of(searched["genotype"]).skips, searched["epoch"], searched["acted"], searched["seconds"]]
        found[name] = dict(zip(("skips", "epoch", "acted", "search_seconds"), free, strict=True))
    for name, chance in CHANCE.items():
        genotypes |= {f"{chance}-{i}": g for i, g in enumerate(equals(genotypes[name], images, count))}
    for name, genotype in genotypes.items():
        trained = train_network(recipe(name, images, {}), genotype, folder / f"{name}-network", resume=True)
        figures = {key: trained.summary[key] for key in ("valid", "test", "seconds")}
        found[name] = found.get(name, {}) | {"params": network_params(trained.subnet.network), **figures}
    setting = {"images": {"train": TRAIN, "valid": VALID, "test": TEST}, **RECIPE, "guards": GUARDS}
    medians = {}
    for name, chance in CHANCE.items() if count else ():
        medians[name] = float(np.median([found[f"{chance}-{i}"]["test"] for i in range(count)]))
    return {"setting": setting, "found": found, "median_random": medians}


def subset(folder: Path) -> Path:
    """The first images of Fashion-MNIST as a file."""
    file = folder / "images.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = load_data(DataConfig(name="fashion_mnist"))
        arrays = {}
        for prefix, part, size in (("", data.train, TRAIN + VALID), ("test_", data.test, TEST)):
            pairs = [part[i] for i in range(size)]
            arrays[f"{prefix}images"] = np.stack([image.numpy()[0] for image, _ in pairs])
            arrays[f"{prefix}labels"] = np.array([label for _, label in pairs])
        np.savez(file, **arrays)
    return file


def recipe(name: str, images: Path, search: dict[str, Any]) -> DartsRecipe:
    """The recipe of one of the searches or trainings."""
    data = {"name": "npz", "root": str(images), "valid": VALID, "augment": ["crop", "flip"]}
    whole = {**RECIPE, "name": name, "data": data, "search": {**RECIPE["search"], **search}}
    return read_document(DartsRecipe, whole)


def equals(genotype: Genotype, images: Path, count: int) -> list[Genotype]:
    """Random cells whose network has about as many parameters as that of a genotype."""
    rng, found, base = np.random.default_rng(0), list[Genotype](), recipe("random", images, {})

    def size(one: Genotype) -> int:
        space = base.space(one, 1, 10)
        return network_params(space.network(space.largest))

    wanted = size(genotype)
    while len(found) < count:
        drawn = random_genotype(base.nodes, rng)
        if abs(size(drawn) / wanted - 1) <= CLOSE and drawn not in found:
            found.append(drawn)
    return found


def table(answer: dict[str, Any]) -> str:
    """The answer for people."""
    lines = ["cells                test %   valid %   parameters  skips  seconds"]
    for name, row in answer["found"].items():
        skips = row.get("skips", "")
        figures = f"{100 * row['test']:7.2f}  {100 * row['valid']:8.2f}  {row['params']:11,}  {skips!s:>5}"
        lines.append(f"{name:19} {figures}  {row['seconds']:7.0f}")
        lines += [f"            guard {guard['guard']}: {guard['why']}" for guard in row.get("acted", ())]
    for name, median in answer["median_random"].items():
        lines.append(f"median of the random ones as large as {name}'s: {100 * median:.2f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
