"""How far the torch runtime's outputs are from ONNX Runtime's, on random networks of the spaces that ship.

    python tests/benchmarks/torch_parity.py [--count 100] [--runtime torch] [--provider cpu]

Networks take turns among the spaces and the two ways in which hard-swish is written (opset 13 and the target's own);
their weights are random, and so are their inputs, equal in both runtimes.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from device_agents.runtimes import open_runtime
from ofa_deploy.fleet import resolve_target
from ofa_deploy.fleet.profiling import network_item
from ofa_deploy.space import PRESETS, PopulationCodec

CPU = {"runtime": "onnxruntime", "provider": "CPUExecutionProvider", "precision": "fp32", "batch": 1, "threads": 1}


def models(count: int) -> list[bytes]:
    """Random networks as ONNX."""
    target = resolve_target("local")
    targets = [target, target.model_copy(update={"opset": 13})]
    codecs, rng = [PopulationCodec(space) for space in PRESETS.values()], np.random.default_rng(0)
    made = []
    for i in range(count):
        codec = codecs[i % len(codecs)]
        arch = codec.decode(codec.sample(1, rng))[0]
        made.append(network_item(codec.space.network(arch), arch, targets[i % 2]).model)
    return made


def differences(asked: dict, count: int) -> list[float]:
    """Largest absolute difference of any logit, by network."""
    runtimes, found = [open_runtime(one, 0) for one in (CPU, asked)], []
    for i, model in enumerate(models(count)):
        one, other = (runtime.load({"item": str(i)}, lambda model=model: model).outputs()[0] for runtime in runtimes)
        found.append(float(np.abs(one - other).max()))
    return found


def main() -> None:
    """Compare, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--provider", default="cpu")
    options = parser.parse_args()
    found = differences(dict(CPU, runtime=options.runtime, provider=options.provider), options.count)
    print(json.dumps({"networks": len(found), "max_abs": max(found), "median_abs": float(np.median(found))}, indent=2))


if __name__ == "__main__":
    main()
