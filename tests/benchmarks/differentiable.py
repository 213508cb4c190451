"""Search by gradient beside evolution on a trained supernet, at equal latency budgets and equal evaluations.

    python tests/benchmarks/differentiable.py [SUPERNET] [--target jetson_nano] [--seeds 3] [--relaxation binary]

Accuracies are predicted, by the supernet's own predictor; the budgets lie between the fastest and the largest subnet of
the target, which is profiled first if it was not. `gradient` is the best subnet that the gradient alone gave, repaired
into the budget, before any local move. Without SUPERNET it takes the one that ships. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.deploy.subject import find_supernet, load_subject
from ofa_deploy.deploy.subject_gradient import gradient_of
from ofa_deploy.fleet import Fleet, resolve_target
from ofa_deploy.search import Constraints, Plan, Problem, fastest, search
from ofa_deploy.store import Workspace

SHARES = (0.15, 0.35, 0.6)  # of the way from the fastest subnet's upper bound to the largest's


def main() -> None:
    """Search every budget with every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", nargs="?", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--target", default="jetson_nano", help="simulated, unless it is a device that is here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--relaxation", default="binary")
    parser.add_argument("--steps", type=int, default=Plan().gradient_steps)
    parser.add_argument("--train-weights", action="store_true")
    options = parser.parse_args()
    workspace = Workspace.open(options.workspace)
    subject = load_subject(workspace, find_supernet(workspace, options.supernet))
    target = resolve_target(options.target, workspace)
    with Fleet.open(workspace) as fleet:
        model, codec = ready_model(fleet, workspace, target, subject.space, "p50")
    settings = Plan(relaxation=options.relaxation, gradient_steps=options.steps, train_weights=options.train_weights)
    given = (codec, subject.accuracy(codec), model.bind(codec).predict)
    low = fastest(Problem(*given, Constraints(confidence=0.95)))[1]
    high = float(Problem(*given, Constraints(confidence=0.95)).upper(codec.encode([codec.space.largest]))[0])
    rows = []
    for budget in (low + share * (high - low) for share in SHARES):
        problem = Problem(*given, Constraints(max_ms=budget), gradient=gradient_of(subject, settings))
        rows.append(_row(problem, budget, options.seeds, options.evaluations))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    facts = {"supernet": subject.name, "target": target.name, "simulated": model.table.simulated, **vars(settings)}
    print(json.dumps({**facts, "seeds": options.seeds, "evaluations": options.evaluations, "budgets": rows}, indent=1))


def _row(problem: Problem, budget: float, seeds: int, evaluations: int) -> dict[str, Any]:
    found = {
        name: [search(problem, seed, name, evaluations) for seed in range(seeds)]
        for name in ("differentiable", "evolution")
    }
    ours, theirs = found.values()
    best = {name: np.array([run.best.accuracy for run in runs]) for name, runs in found.items()}
    lag = best["evolution"] - best["differentiable"]
    return {
        "budget_ms": budget,
        **{name: float(values.mean()) for name, values in best.items()},
        "gradient": float(np.mean([max(point["accuracy"] for point in run.course) for run in ours])),
        "lag_points": float(100 * lag.mean()),
        "most_lag_points": float(100 * lag.max()),
        "most_of_budget": max(p.upper_ms or 0.0 for run in ours for p in run.finalists) / budget,
        "expected_of_budget": max(run.course[-1]["expected_ms"] for run in ours) / budget,
        "evaluations": float(np.mean([run.evaluations for run in ours])),
        "seconds": float(np.mean([run.seconds for run in ours])),
        "evolution_seconds": float(np.mean([run.seconds for run in theirs])),
        "guards": sorted({record["guard"] for run in ours for record in run.acted}),
    }


if __name__ == "__main__":
    main()
