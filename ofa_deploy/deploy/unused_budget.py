"""Why an answer takes less than its budget allows: what a report says of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ofa_deploy.deploy.extraction import Extraction, Finalist
from ofa_deploy.errors import OpNotProfiled
from ofa_deploy.report.text import ms

USED = 0.9  # the share of a budget from which on there is nothing to explain
TOO_LOW = 1.05  # times as long as predicted, from which on predictions are to blame


def unused_notes(extraction: Extraction, chosen: Finalist) -> list[str]:
    """What of the budget the answer leaves, why, and what would use it; nothing where it uses almost all."""
    budget = extraction.constraints.max_ms
    if budget is None:
        return []
    if slack := _slack(extraction, chosen, budget):
        return [slack]
    share = chosen.measured_ms / budget
    if share >= USED:
        return []
    return [" ".join([f"The answer uses {100 * share:.0f} % of the budget.", *_reasons(extraction, chosen, budget)])]


def _slack(extraction: Extraction, chosen: Finalist, budget: float) -> str:
    """Whether the budget binds at all."""
    space = extraction.subject.space
    try:
        (largest,), _ = chosen.predictor.predict([space.network(space.largest)])
    except OpNotProfiled:  # measured at lower resolutions only
        return ""
    if largest > budget:
        return ""
    return (
        f"The budget does not bind: the largest subnet of {space.name} takes {largest:.3g} ms of {budget:g} ms "
        "(predicted). The slack is for a larger supernet."
    )


def _reasons(extraction: Extraction, chosen: Finalist, budget: float) -> list[str]:
    """What became of the finalists that are expected to be more accurate, or that there were none."""
    alike = (f for f in extraction.finalists if (f.tuned is None) == (chosen.tuned is None))
    better = [finalist for finalist in alike if finalist.worth > chosen.worth]
    over = [finalist for finalist in better if finalist.measured_ms > budget]
    close = [finalist for finalist in better if finalist.measured_ms <= budget]
    reasons = [_over(extraction, over)] if over else []
    if close:
        reasons.append(
            f"{_counted(close)} took {_range([f.measured_ms for f in close])}: that leaves no room for another "
            f"session, of which one differs from the next by {100 * extraction.session_std:.1f} %."
        )
    return reasons or [_none(chosen, budget, extraction.constraints.confidence)]


def _over(extraction: Extraction, over: Sequence[Finalist]) -> str:
    took, said = _range([f.measured_ms for f in over]), _range([f.predicted_ms for f in over])
    told = f"{_counted(over)} took {took} (predicted {said})."
    if median(f.measured_ms / f.predicted_ms for f in over) < TOO_LOW:
        return told
    target = extraction.target
    again = f"ofa-deploy profile --target {target.name} --precision {target.precision} --refresh"
    return f"{told} The predictions are too low; measure the device again with: {again}"


def _none(chosen: Finalist, budget: float, confidence: float) -> str:
    """The search found nothing better: up to which prediction it looks, and what would give more."""
    said = "The search found no subnet that fits and is expected to be more accurate."
    mean, upper = chosen.point.latency_ms, chosen.point.upper_ms
    if mean and upper:
        said += (
            f" With {100 * confidence:.0f} % confidence it takes subnets that are predicted to need up to "
            f"{ms(budget * mean / upper)}; a lower --confidence, or more measured networks (ofa-deploy profile "
            "--networks), raise that."
        )
    return f"{said} A larger or longer trained supernet uses the rest."


def _counted(finalists: Sequence[Finalist]) -> str:
    if len(finalists) == 1:
        return "One finalist that is expected to be more accurate"
    return f"{len(finalists)} finalists that are expected to be more accurate"


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:.4g}" for value in (min(values), max(values)))
    return f"{low} ms" if low == high else f"{low} to {high} ms"
