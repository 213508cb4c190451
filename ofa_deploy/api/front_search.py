"""``pareto``: the best subnet at every latency by prediction, in one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.accuracy import objective
from ofa_deploy.api.common import Where, in_frame, opened, save_figures
from ofa_deploy.api.searching import level_now, level_told
from ofa_deploy.api.supernets import question_of, subject_of
from ofa_deploy.deploy.kept_baselines import measured_baselines
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.documents.fronts_document import FrontsFound
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import resolve_target
from ofa_deploy.latency import LatencyModel
from ofa_deploy.latency.level import LevelNow
from ofa_deploy.notices import Tell, silent
from ofa_deploy.search import Constraints, FrontPoint, Fronts, find_fronts
from ofa_deploy.space import Family, PopulationCodec
from ofa_deploy.store import Workspace

if TYPE_CHECKING:  # it loads torch
    from ofa_deploy.deploy.subject import Subject


@dataclass(frozen=True)
class Front:
    """The best subnets at every latency, of one device or several.

    Attributes:
        answer: what ``ofa-deploy pareto --json`` prints: ``fronts`` by device, and ``joint``, the subnets that meet the
            budgets of all devices; ``targets`` says of each device whether it is ``simulated``, and with ``now`` its
            ``level`` in the middle of its front, if that is known.
    """

    answer: dict[str, Any]

    def points(self, target: str | None = None) -> list[dict[str, Any]]:
        """A device's front by rising ``upper_ms``; its points have ``arch``, ``accuracy`` and ``latency_ms``, too."""
        return self.answer["fronts"][target or next(iter(self.answer["fronts"]))]

    def save(self, file: str | Path) -> None:
        """Write the front: as figures (.json), as a plot (.svg) or as a page (.html)."""
        from ofa_deploy.report.front_plot import front_svg, render_fronts

        save_figures(file, self.answer, FrontsFound, front_svg, render_fronts)

    def _repr_html_(self) -> str:
        from ofa_deploy.report.front_plot import render_fronts

        return in_frame(render_fronts(FrontsFound.read(self.answer)))


def pareto(
    targets: str | Sequence[str] = "local",
    *,
    points: int = 12,
    supernet: Subject | str | Path | None = None,
    space: str | None = None,
    accuracy: str | None = None,
    seed: int = 0,
    now: bool = False,
    workspace: Where = None,
    progress: Tell = silent,
    **bounds: Any,
) -> Front:
    """Find the best subnet at every latency, by prediction, in one search.

    Args:
        targets: a device or several, which must be profiled.
        points: the number of latency budgets for each device.
        supernet: what ``load_supernet`` returned, or a path; by default as in ``search``.
        space: search a space with random weights instead of a supernet.
        accuracy: the name of an imported accuracy predictor.
        seed: random seed of the search.
        now: measure for two seconds how fast each device is now, and predict for now.
        workspace: the workspace or its folder.
        progress: called with a description and a dictionary of numbers.
        bounds: other constraints than the latency, as in ``search``.

    Returns:
        The fronts. In a notebook they show as a page.

    Raises:
        OpNotProfiled: a device was not profiled for this space.
        UsageError: the devices have no input size in common, or there is no such device, supernet or space.

    Example:
        >>> front = ofa_deploy.pareto("local", points=8)
        >>> [(point["latency_ms"], point["accuracy"]) for point in front.points()]
    """
    where, constraints = opened(workspace), Constraints(**bounds)
    names = (targets,) if isinstance(targets, str) else tuple(dict.fromkeys(targets))
    # a predictor that is named alone answers without torch
    if not accuracy or supernet is not None or space is not None:
        supernet, space = subject_of(supernet, space, accuracy, seed, where, progress), None
    chosen, predictor, digest = question_of(supernet, space, accuracy, seed, where, progress)
    codec, models = _devices(where, constraints.statistic, names, chosen)
    levels = dict[str, LevelNow]()
    for name in names if now else ():
        if level := level_now(where, resolve_target(name, where), codec, models[name], progress):
            levels[name], models[name] = level, models[name].at(level)
    found = find_fronts(
        codec,
        objective(codec, predictor),
        {name: model.bind(codec).predict for name, model in models.items()},
        constraints,
        points,
        seed,
        lambda p: progress("search", p),
    )
    return Front(
        {
            "kind": "front",
            "space": chosen.name,
            "supernet_sha256": digest,
            "accuracy": accuracy,
            "predicted": predictor is not None,
            "predictor_error": None if predictor is None else predictor.error.to_json(),
            "statistic": constraints.statistic,
            "confidence": constraints.confidence,
            "constraints": constraints.bounds,
            "seed": seed,
            "targets": {
                name: {
                    "simulated": model.table.simulated,
                    **_level_of(model, levels.get(name), found.fronts[name], codec),
                }
                for name, model in models.items()
            },
            **_figures(codec, found),
            **_beside(where, names, supernet),
        }
    )


def _beside(workspace: Workspace, names: Sequence[str], supernet: object) -> dict[str, Any]:
    """By device, the hand-picked networks of the same images that were measured there; nothing where there are none."""
    data = getattr(supernet, "data", None)
    if data is None:
        return {}
    rows = {name: measured_baselines(workspace, resolve_target(name, workspace), data.fingerprint) for name in names}
    return (
        {"baselines": {n: [one.to_json() for one in found] for n, found in rows.items()}} if any(rows.values()) else {}
    )


def _devices(
    workspace: Workspace, statistic: str, names: tuple[str, ...], space: Family
) -> tuple[PopulationCodec, dict[str, LatencyModel]]:
    """The part of a space that every device's table covers, and the latency models."""
    ready = {name: ready_model(None, workspace, resolve_target(name, workspace), space, statistic) for name in names}
    common = tuple(r for r in space.resolutions if all(r in codec.space.resolutions for _, codec in ready.values()))
    if not common:
        raise UsageError(
            f"the devices have no resolution in common: profile the same one on each of {', '.join(names)} "
            "with: ofa-deploy profile --resolution"
        )
    return PopulationCodec(space.with_resolutions(common)), {name: model for name, (model, _) in ready.items()}


def _level_of(
    model: LatencyModel, level: LevelNow | None, front: Sequence[FrontPoint], codec: PopulationCodec
) -> dict[str, Any]:
    """The level in the middle of a front."""
    return {"level": level_told(model, level, codec.space, front[len(front) // 2].arch)} if level else {}


def _figures(codec: PopulationCodec, found: Fronts) -> dict[str, Any]:
    def told(point: Any) -> dict[str, Any]:
        return {"key": point.arch.key, "arch": point.arch.to_json(), "accuracy": point.accuracy}

    return {
        "fronts": {
            name: [{**told(p), "latency_ms": p.latency_ms[name], "upper_ms": p.upper_ms[name]} for p in front]
            for name, front in found.fronts.items()
        },
        "joint": [
            {
                "budgets_ms": row.budgets_ms,
                **told(row.best),
                "latency_ms": row.best.latency_ms,
                "upper_ms": row.best.upper_ms,
                "macs": float(codec.macs(codec.encode([row.best.arch]))[0]),
            }
            for row in found.joint
        ],
        "evaluations": found.evaluations,
        "seconds": found.seconds,
    }
