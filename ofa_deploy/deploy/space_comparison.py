"""Which of several spaces promises more on a device within a budget, before anything is trained.

After TinyNAS (MCUNet, Lin et al., NeurIPS 2020, §3.1): the better space is the one whose networks that fit can do more.
Here a network fits if the device's latency model says so. The networks are compared that use the budget
(``search.edge_of``), because a search ends there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_deploy.config import PUBLISHED, TargetProfile
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.deploy.space_evidence import Evidence
from ofa_deploy.deploy.space_verdict import verdict
from ofa_deploy.errors import InfeasibleBudget, UsageError
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.latency import LatencyModel
from ofa_deploy.latency_models import load_table
from ofa_deploy.notices import Tell
from ofa_deploy.search import Constraints, Problem, edge_of, fastest
from ofa_deploy.space import PopulationCodec, SearchSpace
from ofa_deploy.store import Workspace

NETWORKS = 8  # whole networks that are measured of a space that was not profiled
CAP_S = 20.0  # seconds that measuring a chunk of a space may take
QUANTILES = 21  # of the multiply-accumulates, for the plot: from the least to the most


@dataclass(frozen=True)
class Contest:
    """What is compared.

    Attributes:
        spaces: at least two, of different names.
        limits: what a network must meet, for each latency budget.
        seed: of the choice of networks.

    Raises:
        UsageError: there are fewer than two spaces, or no budget.
    """

    spaces: tuple[SearchSpace, ...]
    limits: tuple[Constraints, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        names = [space.name for space in self.spaces]
        if len(names) < 2 or len(set(names)) < len(names):
            raise UsageError(f"name two different spaces to compare, not {', '.join(names) or 'none'}")
        if not self.limits or any(limit.max_ms is None for limit in self.limits):
            raise UsageError("no budget: give one or more with --max-ms, such as --max-ms 0.1,0.2")

    @property
    def budgets(self) -> list[float]:
        """The latency budgets in ms."""
        return [limit.max_ms for limit in self.limits if limit.max_ms is not None]


def compare_spaces(
    fleet: Callable[[], Fleet] | None,
    workspace: Workspace,
    target: TargetProfile,
    contest: Contest,
    evidence: Evidence,
    tell: Tell,
) -> dict[str, Any]:
    """Compare spaces on a device.

    Args:
        fleet: opens what measures; called where a space's blocks were not profiled. None forbids to measure.
        evidence: scores and trains networks that use a budget.
        tell: called with what is going on, and ``done`` and ``total``.

    Returns:
        A JSON object: ``target``, ``spaces`` (an entry for each space and budget) and ``verdicts``, one a budget.

    Raises:
        OpNotProfiled: a space was not profiled, and measuring is forbidden.
        InfeasibleBudget: no network of any space meets any budget.
    """
    if fleet is not None and (few := _incomplete(workspace, target, contest)):
        with fleet() as opened:
            for space in few:
                _profile(opened, workspace, target, space, tell)
    entries, simulated = list[dict[str, Any]](), target.simulated
    for space in contest.spaces:
        model, codec = ready_model(None, workspace, target, space, contest.limits[0].statistic)
        simulated = simulated or model.table.simulated
        entries += [_entry(model, codec, space, limit, contest.seed, evidence, tell) for limit in contest.limits]
    if not any(entry["n_near"] for entry in entries):
        raise InfeasibleBudget("; ".join(dict.fromkeys(entry["why"] for entry in entries)))
    return {
        "target": target.name,
        "precision": target.precision,
        "statistic": contest.limits[0].statistic,
        "confidence": contest.limits[0].confidence,
        "simulated": simulated,
        **evidence.facts,
        "spaces": entries,
        "verdicts": [verdict(budget, [e for e in entries if e["budget_ms"] == budget]) for budget in contest.budgets],
    }


def _incomplete(workspace: Workspace, target: TargetProfile, contest: Contest) -> list[SearchSpace]:
    """The spaces of which blocks or whole networks are still to be measured."""
    if target.runtime == PUBLISHED:
        return []
    table = load_table(workspace, target)
    known = [set(row.ops) for row in table.networks.values()]

    def lacks(space: SearchSpace) -> bool:
        keys = PopulationCodec(space, table.per_resolution).op_keys
        return bool(table.missing(keys)) or sum(ops <= set(keys) for ops in known) < min(NETWORKS, space.size)

    return [space for space in contest.spaces if lacks(space)]


def _profile(fleet: Fleet, workspace: Workspace, target: TargetProfile, space: SearchSpace, tell: Tell) -> None:
    from ofa_deploy.fleet.profiling import profile  # and with it ONNX

    protocol = Protocol(cap_s=CAP_S)
    what = f"profile {space.name}"
    profile(fleet, workspace, target, space, NETWORKS, protocol=protocol, progress=lambda p: tell(what, p))


def _entry(
    model: LatencyModel,
    codec: PopulationCodec,
    space: SearchSpace,
    limit: Constraints,
    seed: int,
    evidence: Evidence,
    tell: Tell,
) -> dict[str, Any]:
    """What is known of one space at one budget."""
    problem = Problem(codec, codec.macs, model.bind(codec).predict, limit)
    entry: dict[str, Any] = {"name": space.name, "budget_ms": limit.max_ms}
    entry["resolutions"] = list(codec.space.resolutions)
    try:
        edge = edge_of(problem, seed)
    except InfeasibleBudget as error:
        empty = dict.fromkeys(("macs", "params", "upper_ms", "proxy"))
        counts = {"n_sampled": 0, "n_fit": 0, "n_near": 0, "binds": True}
        return {**entry, **counts, **empty, "trained": [], "fastest_ms": fastest(problem)[1], "why": str(error)}
    macs, params = codec.macs(edge.rows), codec.params(edge.rows)
    scored, best = (_spread(macs, count, start) for count, start in ((evidence.scored, 0.0), (evidence.trained, 0.5)))
    where = f"{space.name} at {limit.max_ms:g} ms"
    trained = evidence.train(space, codec.decode(edge.rows[best]), f"train {where}", tell)
    proxies = evidence.proxies(space, codec.decode(edge.rows[scored]), f"score {where}", tell)
    return {
        **entry,
        "n_sampled": edge.sampled,
        "n_fit": edge.fit,
        "n_near": len(edge.rows),
        "binds": edge.binds,
        "macs": {**percentiles(macs), "quantiles": np.quantile(macs, np.linspace(0, 1, QUANTILES)).tolist()},
        "params": percentiles(params),
        "upper_ms": percentiles(edge.upper),
        "proxy": {name: percentiles(np.array(values)) for name, values in proxies.items()},
        "trained": [{**row, "upper_ms": float(edge.upper[i])} for row, i in zip(trained, best, strict=True)],
    }


def _spread(macs: np.ndarray, count: int, start: float) -> np.ndarray:
    """Places of so many different networks, at equal distances in the order of their multiply-accumulates; the first
    ``start`` of them, a share, is left out. From the median on a search's answer is among them."""
    order = np.argsort(macs, kind="stable")
    last = len(order) - 1
    return order[np.unique(np.linspace(start * last, last, count + 2)[1:-1].round().astype(int))]


def percentiles(values: np.ndarray) -> dict[str, float | None]:
    """``p50`` and ``p90`` of some numbers; None for what is not finite."""
    with np.errstate(invalid="ignore"):
        found = {"p50": float(np.quantile(values, 0.5)), "p90": float(np.quantile(values, 0.9))}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
