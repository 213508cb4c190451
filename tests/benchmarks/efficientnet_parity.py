"""How far EfficientNet's logits are from torchvision's with the same random weights and batch-norm statistics.

    python -m tests.benchmarks.efficientnet_parity [--side 128]

All eight networks, in evaluation mode, at one resolution: they are fully convolutional. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from ofa_deploy.space import load_space, network_params
from ofa_deploy.supernet.torchvision_weights import import_torchvision
from tests.supernet.torchvision_models import distance, random_efficientnet


def compare(phi: int, side: int, folder: Path) -> dict[str, float]:
    """Parameters, and the largest difference of a logit, relative to the largest logit."""
    model = random_efficientnet(phi, side)
    torch.save(model.state_dict(), folder / "weights.pth")
    space = load_space(f"efficientnet_b{phi}")
    supernet = import_torchvision(folder / "weights.pth", space)[0]
    images = torch.randn(2, 3, side, side)
    arch = space.canonical({**space.largest.to_json(), "resolution": side})
    with torch.inference_mode():
        expected, found = model(images), supernet.extract(arch).eval()(images)
    params = sum(value.numel() for value in model.parameters())
    if params != network_params(space.network(space.largest)):
        raise SystemExit(f"{space.name} has other parameters than torchvision's")
    return {"params": params, "distance": distance(found, expected)}


def main() -> None:
    """Compare all eight."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {f"b{phi}": compare(phi, options.side, Path(folder)) for phi in range(8)}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
