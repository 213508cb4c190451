"""Strategies against the proven optimum of an accuracy that is a sum over genes, at several budgets.

    python tests/benchmarks/strategies.py [--space ofa_mbv3_w1.0] [--seeds 20] [--strategy evolution …]

`exact` sees the sum itself and proves its optimum. The others see it through a bend that keeps the order of subnets but
is no sum any more, or they would be handed the proof too. Prints one JSON document; a line a strategy on stderr.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from ofa_deploy.search import STRATEGIES, Constraints, Problem, search
from ofa_deploy.space import Population, PopulationCodec, load_space

BUDGETS = (0.2, 0.4, 0.6, 0.8)  # of the way from the smallest subnet's MACs to the largest's


def main() -> None:
    """Search every budget with every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_w1.0")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--strategy", nargs="*", default=[name for name in STRATEGIES if name != "exact"])
    options = parser.parse_args()
    codec = PopulationCodec(load_space(options.space))
    worth = np.sort(np.random.default_rng(7).random((len(codec.choices), int(codec.choices.max()))), axis=1)

    def total(population: Population) -> np.ndarray:
        active = np.ones(population.shape, dtype=bool)
        slots = codec.active(population)
        active[:, -2 * slots.shape[1] :] = np.concatenate([slots, slots], axis=1)
        return (worth[np.arange(population.shape[1]), population] * active).sum(axis=1) / population.shape[1]

    space = codec.space
    low, high = codec.macs(codec.encode([space.smallest, space.largest])).astype(float)
    answer: dict[str, list[dict[str, float]]] = {}
    for share in BUDGETS:
        bounds = Constraints(max_macs=low + share * (high - low))
        best = search(Problem(codec, total, None, bounds), strategy="exact")
        if not best.proven:
            raise SystemExit(f"exact did not prove its answer at {share:g}")
        bent = Problem(codec, lambda population: 1 - np.exp(-2 * total(population)), None, bounds)
        for name in options.strategy:
            runs = [search(bent, seed, name) for seed in range(options.seeds)]
            found = total(codec.encode([run.best.arch for run in runs])) / best.best.accuracy
            row = {
                "budget": share,
                "least": float(found.min()),
                "mean": float(found.mean()),
                "optimal": int((found > 1 - 1e-9).sum()),
                "seconds": float(np.mean([run.seconds for run in runs])),
            }
            answer.setdefault(name, []).append(row)
            print(name, json.dumps(row), file=sys.stderr, flush=True)
    print(json.dumps({"seeds": options.seeds, "space": options.space, "strategies": answer}, indent=2))


if __name__ == "__main__":
    main()
