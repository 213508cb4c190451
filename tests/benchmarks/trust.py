"""How far predictions hold against an independent measurement, and what the usual way of measuring would have given.

    ofa-deploy profile --target local --space ofa_mbv3_w1.0 --resolution 160
    python tests/benchmarks/trust.py --space ofa_mbv3_w1.0 --resolution 160 [--networks 60] [--seconds 240] [--json]

Measures fresh random networks with ONNX Runtime in this process, one thread, in shuffled rounds, without any of the
project's measuring code, and compares: the latency model's predictions, the sum of the table's blocks, and the naive
protocol: every block warmed up and timed one after another, for as long as the table took, then summed.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ofa_deploy.blocks import Network
from ofa_deploy.fleet import resolve_target
from ofa_deploy.fleet.profiling import block_item, network_item
from ofa_deploy.latency import audit_statistics
from ofa_deploy.latency.audit_statistics import repeatability
from ofa_deploy.latency_models import load_model, measurements
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.store import Workspace

CALLS = 6  # timings of a network in a round
WARM_UP = 10  # calls before the naive protocol times a block


def opened(model: bytes) -> Callable[[], object]:
    """A model that can be called, on one thread and random inputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    feeds = {node.name: draw.standard_normal(node.shape).astype(np.float32) for node in session.get_inputs()}
    return lambda: session.run(None, feeds)


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - begin)


def in_rounds(calls: Sequence[Callable[[], object]], seconds: float) -> np.ndarray:
    """Medians of every round: ``[rounds, N]`` ms."""
    end, rounds, order = time.monotonic() + seconds, [], list(range(len(calls)))
    while time.monotonic() < end or len(rounds) < 4:
        row = np.empty(len(calls))
        random.shuffle(order)
        for i in order:
            row[i] = np.median([timed(calls[i]) for _ in range(CALLS)])
        rounds.append(row)
    return np.array(rounds)


def one_after_another(calls: Sequence[Callable[[], object]], seconds: float) -> np.ndarray:
    """The naive protocol: each is warmed up and timed for its share of the time; medians ``[N]`` in ms."""
    found = []
    for call in calls:
        end = time.monotonic() + seconds / len(calls)
        for _ in range(WARM_UP):
            call()
        timings = [timed(call)]
        while time.monotonic() < end:
            timings.append(timed(call))
        found.append(float(np.median(timings)))
    return np.array(found)


def seconds_measured(workspace: Workspace, target: Any) -> float:
    """How long the runs took in which a target's blocks were measured."""
    spans = {(r.started_at, r.measured_at) for r in measurements(workspace, target) if r.kind == "op"}
    return sum((datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds() for begin, end in spans)


def fresh_networks(codec: PopulationCodec, known: set[str], count: int, seed: int) -> list[tuple[Any, Network]]:
    """Random subnets that were never measured, each with its network."""
    archs = codec.decode(np.unique(codec.sample(4 * count, np.random.default_rng(seed)), axis=0))
    random.Random(seed).shuffle(archs)
    pairs = [(arch, codec.space.network(arch)) for arch in archs]
    return [pair for pair in pairs if pair[1].key not in known][:count]


def benchmark(folder: Path | None, name: str, resolution: int, count: int, seconds: float, seed: int) -> dict[str, Any]:
    """Statistics of the three ways to predict, against the same measurement."""
    workspace, target = Workspace.open(folder), resolve_target("local")
    space = load_space(name).with_resolutions((resolution,))
    codec, model = PopulationCodec(space), load_model(workspace, target, space)
    pairs = fresh_networks(codec, set(model.table.networks), count, seed)
    networks = [network for _, network in pairs]
    mean, std = model.predict(networks)
    table = np.array([model.table.total(network) for network in networks])
    rounds = in_rounds([opened(network_item(net, arch, target).model) for arch, net in pairs], seconds)
    measured = np.median(rounds, axis=0)
    budget = seconds_measured(workspace, target)
    naive = one_after_another([opened(block_item(op, target).model) for op in codec.ops], budget)
    cost = dict(zip((op.key for op in codec.ops), naive, strict=True))
    summed = np.array([sum(cost[op.key] for op in network.ops) for network in networks])
    halves = np.stack([np.median(rounds[::2], axis=0), np.median(rounds[1::2], axis=0)], axis=1)
    ways = {"model": (mean, std), "sum_of_blocks": (table, std), "naive": (summed, std)}
    return {
        "networks": len(networks),
        "n_fit": len(model.evidence),
        "rounds": len(rounds),
        "profile_seconds": budget,
        "repeatability": repeatability(halves.tolist()),
        **{way: vars(audit_statistics(predicted, deviation, measured)) for way, (predicted, deviation) in ways.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--space", default="ofa_mbv3_w1.0")
    parser.add_argument("--resolution", type=int, default=160)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    options = (asked.workspace, asked.space, asked.resolution, asked.networks, asked.seconds, asked.seed)
    found = benchmark(*options)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['networks']} networks, repeatability {100 * found['repeatability']:.1f} %")
    for way in ("model", "sum_of_blocks", "naive"):
        part = found[way]
        print(
            f"{way:14} mean error {100 * part['mape']:5.1f} %  bias {100 * part['bias']:+5.1f} %  "
            f"±5 %: {100 * part['within_5']:3.0f} %  ±10 %: {100 * part['within_10']:3.0f} %  "
            f"Spearman {part['spearman']:.3f}  95 % bound held: {100 * part['coverage_95']:.0f} %"
        )


if __name__ == "__main__":
    main()
