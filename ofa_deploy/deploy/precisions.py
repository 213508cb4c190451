"""The best of several precisions: each gives its answer, and what the files lose is measured before one is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.extraction import Extraction
from ofa_deploy.deploy.finetuning import VALID
from ofa_deploy.deploy.verification import allowed_drop, share_of, tested
from ofa_deploy.documents.report_document import PrecisionOffer
from ofa_deploy.errors import GateFailed, InfeasibleBudget
from ofa_deploy.export import runner


def extract_best(targets: Sequence[TargetProfile], one: Callable[[TargetProfile], Extraction]) -> Extraction:
    """Extract for one target in several precisions, and take the file that is expected to be the most accurate.

    That is its network's expected accuracy, by which finalists are compared, less what the file loses on held-out
    images: a loss on the same images is known far better than an accuracy. Of equally accurate files the faster is
    taken; without images the predicted accuracy decides. A file that loses more than its precision explains is not
    taken.

    Args:
        targets: the same target, once for each precision.
        one: extracts for one of them.

    Returns:
        The answer; with several targets its ``precisions`` say what each had to offer.

    Raises:
        InfeasibleBudget, GateFailed: no precision has an answer; what the first of them said.
    """
    if len(targets) == 1:
        return one(targets[0])
    answers: list[tuple[Extraction, PrecisionOffer]] = []
    refused: list[PrecisionOffer] = []
    errors: list[InfeasibleBudget | GateFailed] = []
    for target in targets:
        try:
            extraction = one(target)
            answers.append((extraction, _offer(extraction)))
        except (InfeasibleBudget, GateFailed) as error:
            errors.append(error)
            refused.append(PrecisionOffer(precision=target.precision, refused=str(error)))
    if not answers:
        raise errors[0]
    best = max(answers, key=_worth)[0]
    return replace(best, precisions=[offer for _, offer in answers] + refused)


def _worth(answer: tuple[Extraction, PrecisionOffer]) -> tuple[float, float]:
    extraction, offer = answer
    chosen = extraction.chosen
    worth = chosen.worth - (offer.drop or 0.0)
    return offer.valid if chosen.posterior is None and offer.valid is not None else worth, -chosen.measured_ms


def _offer(extraction: Extraction) -> PrecisionOffer:
    """What the best subnet of a precision takes, and the accuracy of its file on held-out images; None without any."""
    chosen, precision = extraction.chosen, extraction.target.precision
    key, took = chosen.point.arch.key, chosen.measured_ms
    seen = tested(extraction.subject, chosen, runner(extraction.target)[1], VALID)
    if seen is None:
        return PrecisionOffer(precision=precision, key=key, measured_ms=took, valid=None, n=0, drop=None)
    file, of_torch = share_of(seen["labels"], seen["predicted"]), share_of(seen["labels"], seen["torch"])
    if abs(of_torch - file) > allowed_drop(precision, len(seen["labels"])):
        raise GateFailed(
            f"the {precision} file of {chosen.point.arch.key[:12]} has {100 * file:.2f} % on held-out images, torch "
            f"{100 * of_torch:.2f} %; ask for another --precision"
        )
    n, drop = len(seen["labels"]), of_torch - file
    return PrecisionOffer(precision=precision, key=key, measured_ms=took, valid=file, n=n, drop=drop)
