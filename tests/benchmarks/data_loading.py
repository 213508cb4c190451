"""Images per second read from a folder of JPEGs, by the number of worker processes: alone, and while training.

    python tests/benchmarks/data_loading.py [--workers 0 1 2] [--images 600] [--rounds 3]

The images are made for this, 500 × 375 pixels like an average one of ImageNet; they are read, cropped at random,
resized to 224 pixels and mirrored. "Training" is a forward and backward pass of the smallest subnet of ofa_mbv3_w1.0 at
128 pixels, on all cores: what reading takes away from it counts. Rounds take turns among the numbers of workers; a
figure is the median of the rounds, after the first batch of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ofa_deploy.config import DataConfig, TrainRecipe
from ofa_deploy.space import load_space
from ofa_deploy.supernet import Supernet
from ofa_deploy.training import load_data, prepare
from ofa_deploy.training.sampling import train_batches

BATCH = 32


def write_images(root: Path, count: int) -> None:
    """Smooth noise, which takes about as much space as photographs."""
    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        rough = Image.fromarray(rng.integers(0, 256, (75, 100, 3), np.uint8))
        rough.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)


def recipe(root: Path, workers: int) -> TrainRecipe:
    """Reading with so many workers."""
    augment = ("random_resized_crop", "flip")
    data = DataConfig(
        name="image_folder", root=root, valid=BATCH, workers=workers, augment=augment, normalise="imagenet"
    )
    return TrainRecipe(name="loading", space="ofa_mbv3_w1.0", data=data, epochs=1, batch_size=BATCH)


def trainer() -> Callable[[torch.Tensor], None]:
    """One step of the smallest subnet."""
    supernet = Supernet(load_space("ofa_mbv3_w1.0")).train()
    smallest = supernet.space.smallest

    def step(images: torch.Tensor) -> None:
        supernet(prepare(images, smallest.resolution, (0.5,) * 3, (0.25,) * 3), smallest).square().mean().backward()

    return step


def images_per_second(settings: TrainRecipe, steps: int, use: Callable[[torch.Tensor], None]) -> float:
    """Of all steps after the first, in which workers start."""
    stream = train_batches(load_data(settings.data).train, settings, 0)
    use(next(stream)[0])
    started = time.perf_counter()
    for images, _ in islice(stream, steps):
        use(images)
    return steps * BATCH / (time.perf_counter() - started)


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    uses = {"alone": lambda _: None, "while training": trainer()}
    found: dict[str, dict[int, list[float]]] = {use: {n: [] for n in options.workers} for use in uses}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.images)
        for _ in range(options.rounds):
            for name, use in uses.items():
                for workers in options.workers:
                    steps = options.images // BATCH - 2
                    found[name][workers].append(images_per_second(recipe(Path(folder), workers), steps, use))
    medians = {use: {n: round(statistics.median(rates), 1) for n, rates in by.items()} for use, by in found.items()}
    print(json.dumps({"threads": torch.get_num_threads(), "images_per_second": medians}, indent=2))


if __name__ == "__main__":
    main()
