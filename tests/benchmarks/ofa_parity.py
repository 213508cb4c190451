"""How far subnets of imported supernets are from those that the package ``ofa`` extracts from the same checkpoint.

    python -m tests.benchmarks.ofa_parity [--count 50]

Checkpoints of all four with random weights, batch statistics and kernel transforms; random subnets at random
resolutions, and the same two images in both. Every difference is relative to the subnet's largest logit: of the
supernet run with the subnet's choices, of the extracted module, and of its ONNX graph in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from ofa_deploy.export import run_onnx
from ofa_deploy.fleet import resolve_target
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.supernet.once_for_all import import_checkpoint
from tests.supernet.ofa_checkpoints import NAMES, state, their_choices, their_supernet


def pair(width: float, seed: int):
    """The package's network and our supernet with the same random weights."""
    weights = state(width, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ofa.pth"
        torch.save({"state_dict": weights}, path)
        ours, _ = import_checkpoint(path, load_space(NAMES[width]))
    return their_supernet(width, weights), ours


@torch.no_grad()
def differences(width: float, count: int, seed: int) -> dict[str, list[float]]:
    """Largest relative difference of every subnet's logits, for each way to run it."""
    theirs, ours = pair(width, seed)
    codec, target = PopulationCodec(ours.space), resolve_target("local")
    found: dict[str, list[float]] = {"supernet": [], "extracted": [], "onnx": []}
    for i, arch in enumerate(codec.decode(codec.sample(count, np.random.default_rng(seed)))):
        x = torch.randn(2, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(i))
        theirs.set_active_subnet(**their_choices(arch, ours.space))
        want, subnet = theirs.get_active_subnet().eval()(x), ours.extract(arch)
        model = onnx_bytes(write_onnx(ours.space.network(arch), subnet.weights(), target))
        onnx = torch.from_numpy(run_onnx(model, [x[:1].numpy(), x[1:].numpy()]))
        for way, logits in (("supernet", ours(x, arch)), ("extracted", subnet(x)), ("onnx", onnx)):
            found[way].append(float((logits - want).abs().max() / want.abs().max()))
    return found


def main() -> None:
    """Compare all four, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50, help="Subnets of each.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = {name: differences(width, options.count, options.seed) for width, name in NAMES.items()}
    largest = {name: {way: max(values) for way, values in ways.items()} for name, ways in found.items()}
    print(json.dumps({"subnets": options.count, "largest_relative": largest}, indent=2))


if __name__ == "__main__":
    main()
