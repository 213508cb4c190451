"""How fast latencies of a million subnets are predicted: mean alone, and mean with standard deviation.

    python tests/benchmarks/predict_million.py [--space ofa_mbv3_w1.0] [--count 1000000]

The table is made up (its values do not change the work); 10 whole networks are its evidence.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from ofa_deploy.blocks import counts
from ofa_deploy.latency import LatencyModel, LatencyTable, Row
from ofa_deploy.space import PopulationCodec, load_space


def made_up_table(codec: PopulationCodec, networks: int) -> LatencyTable:
    """A table with a row for every block, and measured networks near their sums."""
    rng = np.random.default_rng(0)
    rows = {
        op.key: Row(op.key, (op.key,), *[0.01 + counts.macs(op.block) / 1e7] * 3, 72, 0.02, 0.01) for op in codec.ops
    }
    measured = {}
    for arch in codec.decode(codec.sample(networks, rng)):
        network = codec.space.network(arch)
        ops = tuple(op.key for op in network.ops)
        ms = sum(rows[key].p50 for key in ops) * rng.normal(1.03, 0.01)
        measured[network.key] = Row(network.key, ops, ms, ms, ms, 72, 0.02, 0.01)
    return LatencyTable("made-up", {}, rows, measured)


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def main() -> None:
    """Time it and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_w1.0")
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    codec = PopulationCodec(load_space(options.space))
    latency = LatencyModel(made_up_table(codec, 10)).bind(codec)
    population = codec.sample(options.count, np.random.default_rng(1))
    answer = {
        "space": options.space,
        "blocks": len(codec.ops),
        "subnets": options.count,
        "mean_s": seconds(lambda: latency.mean(population)),
        "mean_and_std_s": seconds(lambda: latency.predict(population)),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
