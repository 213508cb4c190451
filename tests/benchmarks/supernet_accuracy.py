"""Test accuracy of a trained supernet's largest, smallest and some random subnets, with recalibrated batch norm.

python tests/benchmarks/supernet_accuracy.py .ofa/supernets/fashion_mnist/supernet.safetensors [--random 5]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ofa_deploy.config import TrainRecipe, read_document
from ofa_deploy.space import PopulationCodec, network_macs
from ofa_deploy.supernet import load_supernet
from ofa_deploy.training import batches, evaluate, load_data, specialise


def main() -> None:
    """Evaluate and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", type=Path)
    parser.add_argument("--random", type=int, default=5)
    options = parser.parse_args()
    supernet, summary = load_supernet(options.supernet)
    recipe = read_document(TrainRecipe, summary["recipe"])
    data, space = load_data(recipe.data), supernet.space
    codec = PopulationCodec(space)
    drawn = codec.decode(codec.sample(options.random, np.random.default_rng(1)))
    named = {"largest": space.largest, "smallest": space.smallest} | {f"random {i}": a for i, a in enumerate(drawn)}
    answer = {}
    for name, arch in named.items():
        subnet = specialise(supernet, arch, data, recipe.accuracy.recalibration_images)
        result = evaluate(subnet, batches(data.test, arch.resolution, 256, data.mean, data.std))
        answer[name] = {"accuracy": result.accuracy, "n": result.n, "macs": network_macs(space.network(arch))}
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
