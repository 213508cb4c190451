"""Earlier answers: networks that were measured for another budget, and so are candidates for every one that they fit.

A search knows predictions only, and a larger space of candidates is harder to search. Without the earlier answers, a
larger budget could get a network that is expected to be less accurate than the one for a smaller budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.documents.answer_document import Answered
from ofa_deploy.documents.report_document import Report, Target
from ofa_deploy.documents.tuning_document import TunedAs
from ofa_deploy.latency import full_condition
from ofa_deploy.latency.condition import StoredCondition
from ofa_deploy.latency_models import load_table
from ofa_deploy.search import Constraints
from ofa_deploy.space import Arch
from ofa_deploy.store import Workspace


@dataclass(frozen=True)
class Earlier:
    """A network that was an answer before, or a finalist beside it.

    Attributes:
        tuned: how it was fine-tuned; None for inherited weights.
        measured_ms: what it took then.
    """

    arch: Arch
    tuned: TunedAs | None = None
    measured_ms: float = field(default=inf, compare=False)


def ran_under(name: str, condition: StoredCondition) -> Target:
    """A device and a measurement's condition as a report shows them, without the device's facts."""
    full = full_condition(condition)
    return Target.read(
        {
            "name": name,
            "runtime": f"{full['runtime']} {full['runtime_version']}",
            "provider": full["provider"],
            "precision": full["precision"],
            "batch": full["batch"],
            "threads": full["threads"],
            "power_mode": full["power_mode"],
            "simulated": full["simulated"],
        }
    )


def answers_of(report: Report, supernet: str | None) -> list[Answered]:
    """What later extractions have to know of a bundle: its network, and the finalists beside it.

    Args:
        supernet: sha256 of the supernet, or of what stands in for it.
    """
    target = {name: value for name, value in report.target.to_json().items() if name != "facts"}
    weights = report.provenance.weights
    tuned = TunedAs.model_validate({name: weights[name] for name in TunedAs.model_fields}) if weights else None
    chosen = (report.subnet.arch, report.latency.measured(report.budget.statistic), tuned)
    beside = [(row.arch, row.measured_ms, None) for row in report.finalists if row.arch != report.subnet.arch]
    return [
        Answered(
            supernet=supernet,
            target=target,
            statistic=report.budget.statistic,
            arch=arch,
            measured_ms=took,
            tuned=how,
        )
        for arch, took, how in (chosen, *beside)
        if took is not None
    ]


def earlier_answers(
    workspace: Workspace,
    subject: Subject,
    target: TargetProfile,
    constraints: Constraints,
    answers: Iterable[Answered] | None = None,
) -> list[Earlier]:
    """The networks that were measured to fit on this target under its present condition.

    Args:
        answers: as ``answers_of`` gives them; those that the workspace remembers by default.
    """
    condition = load_table(workspace, target).condition
    if not condition:
        return []
    asked = ran_under(target.name, condition).to_json()
    found: dict[str, Earlier] = {}
    for answer in remembered(workspace) if answers is None else answers:
        alike = (answer.supernet, answer.statistic) == (subject.sha256, constraints.statistic)
        fits = constraints.max_ms is None or answer.measured_ms <= constraints.max_ms
        if alike and fits and answer.target == asked:
            earlier = Earlier(subject.space.canonical(answer.arch), answer.tuned, answer.measured_ms)
            found.setdefault(f"{earlier.arch.key} {earlier.tuned}", earlier)
    return list(found.values())


def remembered(workspace: Workspace) -> list[Answered]:
    """The answers of a workspace, oldest first; earlier versions kept none."""
    bundles = workspace.store.artefacts("bundle")
    return [Answered.model_validate(one) for bundle in bundles for one in bundle.meta.get("answers", ())]
