"""Random networks of every kind through the exporter: written, checked, run against torch, compiled by TensorRT-RTX.

    python -m tests.benchmarks.exports FILE [--kind ofa_mbv3_w1.0 …] [--count N] [--opset 13 17]

Each case is a network at one of its space's resolutions, with random weights, written for one opset: 13 by the rules of
the ``jetson_nano`` profile, 17 by those of ``local``. The exporter checks the graph itself (ONNX's checker, shape
inference, the target's rules). FILE gets one JSON line a case, and a later run goes on after those; failures are tried
again. TensorRT-RTX compiles where its wheels are installed (for SM 86, fp32); the summary says how many it did.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.tensorrt import build_plan, make_log
from ofa_deploy.blocks import Network, random_weights
from ofa_deploy.config import TargetProfile
from ofa_deploy.differentiable import random_genotype
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export import parity
from ofa_deploy.fleet import resolve_target
from ofa_deploy.graph import model_file
from ofa_deploy.space import CellSpace, PopulationCodec, load_space
from ofa_deploy.supernet import Subnet

KINDS = {  # how many networks of each
    "efficientnet_b7": 1,
    "uib_28": 5,
    "darts": 5,
    "efficientnet_b0": 5,
    "efficientnet_b1": 5,
    "efficientnet_b2": 5,
    "efficientnet_lite0": 5,
    "efficientnet_lite1": 5,
    "mobilenet_v2": 5,
    "ofa_proxyless_w1.3": 5,
    "ofa_resnet50": 5,
    "network_level_28": 5,
    "mnv4_hybrid_28": 5,
    "resnet_28": 5,
    "ofa_mbv3_w1.0": 100,
}
RULES = {13: "jetson_nano", 17: "local"}
NODES = 4  # of a DARTS cell
SMALLER = 32  # pixels between two EfficientNets of one kind, which differ in nothing else
APART = 1e-4  # of the largest logit: more is a failure


def networks(kind: str, count: int) -> Iterator[Network]:
    """The first random networks of a kind: always the same ones."""
    for i in range(count):
        rng = np.random.default_rng(i)
        if kind == "darts":
            cells = CellSpace(f"darts-{i}", random_genotype(NODES, rng), (32,), (8,), (5,))
            yield cells.network(cells.largest)
            continue
        space = load_space(kind)
        if kind.startswith("efficientnet"):
            resolution = space.largest.resolution - SMALLER * i
            yield space.network({**space.largest.to_json(), "resolution": resolution})
        else:
            codec = PopulationCodec(space)
            yield space.network(codec.decode(codec.sample(1, rng))[0])


def cases(kinds: dict[str, int]) -> Iterator[tuple[str, int, Network]]:
    """Kind, number and network; the kinds take turns."""
    turns = zip_longest(*([(kind, i, one) for i, one in enumerate(networks(kind, n))] for kind, n in kinds.items()))
    return (case for turn in turns for case in turn if case)


def target_of(opset: int) -> TargetProfile:
    """The rules that a case is written by."""
    return resolve_target(RULES[opset]).model_copy(update={"opset": opset, "precision": "fp32"})


def examine(network: Network, seed: int, target: TargetProfile) -> dict[str, Any]:
    """Write, run and compile one network; ``failed`` says at which of these and why."""
    found: dict[str, Any] = {"resolution": network.input_shape[1]}
    step = "written"
    try:
        weights = random_weights(network, seed)
        model = model_file(network, weights, target)
        step = "run"
        found |= compared(network, weights, model, seed)
        if found["relative"] > APART:
            return found | {"failed": f"run: {found['relative']:.1g} of the largest logit from torch's"}
        step = "compiled"
        found |= compiled(model)
    except (OfaDeployError, RuntimeRefused) as error:
        return found | {"failed": f"{step}: {error}"}
    return found


def compared(network: Network, weights: dict[str, np.ndarray], model: bytes, seed: int) -> dict[str, float]:
    """Largest difference of a logit between torch and ONNX Runtime, and its share of the largest logit."""
    subnet = Subnet(network)
    subnet.load_weights(weights)
    image = np.random.default_rng(seed).standard_normal((1, *network.input_shape)).astype(np.float32)
    checked = parity(subnet, model, image)
    return {"max_abs": checked.max_abs, "relative": checked.max_abs / float(np.abs(checked.torch).max())}


def compiled(model: bytes) -> dict[str, Any]:
    """Size of TensorRT-RTX's engine and the seconds that it took; nothing where it is not installed."""
    if not find_spec("tensorrt_rtx"):
        return {}
    rtx, start = importlib.import_module("tensorrt_rtx"), time.perf_counter()
    plan = build_plan(rtx, make_log(rtx), model, "fp32", rtx.ComputeCapability.SM86)
    return {"engine_bytes": plan.nbytes, "compile_seconds": round(time.perf_counter() - start, 2)}


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by kind and opset, the largest differences, and failures by reason; the last line of a case counts."""
    last = list({(line["kind"], line["network"], line["opset"]): line for line in lines}.values())
    good = [line for line in last if "failed" not in line]
    seconds = [line["compile_seconds"] for line in good if "engine_bytes" in line]
    return {
        "cases": len(last),
        "good": dict(Counter(f"{line['kind']} opset {line['opset']}" for line in good)),
        "compiled": len(seconds),
        "compile_seconds": {"median": float(np.median(seconds)), "max": max(seconds)} if seconds else None,
        "max_abs": max((line["max_abs"] for line in last if "max_abs" in line), default=None),
        "relative": max((line["relative"] for line in last if "relative" in line), default=None),
        "failed": dict(Counter(line["failed"] for line in last if "failed" in line)),
    }


def read(file: Path) -> list[dict[str, Any]]:
    """The lines that were written whole."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines(True) if line.endswith("\n")]


def main() -> None:
    """Examine what the file lacks, then print its summary as one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--count", type=int, help="of each kind, at most")
    parser.add_argument("--opset", type=int, nargs="+", choices=RULES, default=list(RULES))
    options = parser.parse_args()
    lines = read(options.file)
    options.file.write_text("".join(json.dumps(line) + "\n" for line in lines))  # without half a line at the end
    done = {(line["kind"], line["network"], line["opset"]) for line in lines if "failed" not in line}
    asked = {kind: min(KINDS[kind], options.count or KINDS[kind]) for kind in options.kind}
    targets = {opset: target_of(opset) for opset in options.opset}
    with options.file.open("a") as file:
        for kind, i, network in cases(asked):
            for opset in options.opset:
                if (kind, i, opset) in done:
                    continue
                found = examine(network, i, targets[opset])
                lines.append({"kind": kind, "network": i, "opset": opset, **found})
                file.write(json.dumps(lines[-1]) + "\n")
                file.flush()
    print(json.dumps(summary(lines), indent=1))


if __name__ == "__main__":
    main()
