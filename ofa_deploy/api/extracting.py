"""``extract``: from a budget to a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.api.bundles import Bundle, load_bundle
from ofa_deploy.api.common import Where, opened, silent, targets_in
from ofa_deploy.api.supernets import subject_of
from ofa_deploy.deploy.orders import Order
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.notices import Tell
from ofa_deploy.search import Constraints, Plan
from ofa_deploy.search.strategies import find_strategy
from ofa_deploy.space import Arch


def extract(
    target: str = "local",
    *,
    max_ms: float | None = None,
    supernet: Subject | str | Path | None = None,
    space: str | None = None,
    accuracy: str | None = None,
    precision: str | Sequence[str] | None = None,
    strategy: str = "evolution",
    plan: Plan | None = None,
    front: Any = None,
    finetune: int = 0,
    finetune_epochs: int | None = None,
    may_profile: bool = True,
    se: float = 0.01,
    cap_s: float = 120.0,
    embed_preprocessing: bool = False,
    baselines: bool = False,
    seed: int = 0,
    output: str | Path | None = None,
    workspace: Where = None,
    progress: Tell = silent,
    options: Sequence[str] = (),
    **bounds: Any,
) -> Bundle:
    """Extract the most accurate subnet that meets a budget, as a bundle.

    The function searches by prediction, measures the best candidates (the finalists) on the device, chooses, exports
    the network as ONNX, and writes a folder with the model, a report and the evidence behind it.

    Args:
        target: the device: ``local``, or a registered one.
        max_ms: the latency budget in milliseconds.
        supernet: what ``load_supernet`` returned, or a path. By default the newest one in the workspace, or the one in
            the package.
        space: use a space with random weights instead of a supernet: a preset's name or a YAML file.
        accuracy: the name of an imported accuracy predictor.
        precision: one of ``fp32``, ``fp16``, ``bf16`` and ``int8``, or several, of which the best network counts.
        strategy: the search strategy, as in ``search``.
        plan: limits of the search, ``ofa_deploy.search.Plan``; its strategy is not used.
        front: what ``pareto`` returned. The finalists are taken from it, without another search.
        finetune: fine-tune so many of the best finalists before the choice.
        finetune_epochs: for how many epochs; by default a quarter of the recipe's.
        may_profile: whether a device without a latency table is profiled first.
        se: measure until the relative standard error is this small, a fraction.
        cap_s: stop measuring an item after this many seconds.
        embed_preprocessing: also write a model that takes images as they are read.
        baselines: measure the answer beside the hand-picked networks that ``baseline`` trained.
        seed: random seed of the search.
        output: the folder to write; by default ``bundles/…`` in the workspace.
        workspace: the workspace or its folder.
        progress: called with a description and a dictionary of numbers.
        options: words of the command that repeats the extraction, beside those that follow from the arguments.
        bounds: other constraints, as in ``search``: ``max_macs``, ``max_params``, ``statistic`` and others.

    Returns:
        The bundle. In a notebook it shows its report.

    Raises:
        InfeasibleBudget: no subnet meets the constraints.
        GateFailed: every finalist was measured over the budget.
        DeviceUnavailable: the device does not answer.
        UsageError: there is no such device, supernet, space or strategy.

    Example:
        >>> bundle = ofa_deploy.extract("local", max_ms=2)
        >>> bundle.report["verdict"]["text"]
        >>> bundle.predict("shirt.png").label
    """
    find_strategy(strategy)
    constraints = Constraints(max_ms=max_ms, **bounds)
    where = opened(workspace)
    targets = targets_in(target, precision, where, measure=True)
    names = [precision] if isinstance(precision, str) else [*(precision or ())]
    folder = Path(output) if output else where.bundles / "-".join([targets[0].name, *constraints.names, *names])
    words = ["--accuracy", accuracy] if accuracy else []
    words += ["--space", space, "--random-weights"] if space else []
    words += ["--se", f"{se:g}", "--cap-s", f"{cap_s:g}"]
    words += ["--precision", ",".join(names)] if names else []

    def tell(p: dict[str, Any]) -> None:
        progress("fine-tune" if "loss" in p else f"measure on {targets[0].name}", p)

    with Fleet.open(where) as fleet:
        subject = subject_of(supernet, space, accuracy, seed, where, progress)
        order = Order(
            subject=subject,
            targets=tuple(targets),
            constraints=constraints,
            seed=seed,
            plan=(plan or Plan()).model_copy(update={"strategy": strategy}),
            protocol=Protocol(se=se, cap_s=cap_s),
            finetune=finetune,
            finetune_epochs=finetune_epochs,
            front=tuple(finalists_of(front.answer, subject, targets[0].name, accuracy, constraints)) if front else (),
            embed_preprocessing=embed_preprocessing,
            baselines=baselines,
            options=(*words, *options),
        )
        extraction = order.extraction(fleet, where, may_profile, tell)
    progress("verify and report", {})
    order.deliver(extraction, where, folder)
    return load_bundle(folder)


def finalists_of(
    found: dict[str, Any], subject: Subject, target: str, accuracy: str | None, constraints: Constraints
) -> list[Arch]:
    """The subnets of a front. The front must be of the same supernet, target, predictor and percentile."""
    asked = {
        "space": subject.space.name,
        "supernet_sha256": found.get("supernet_sha256") and subject.sha256,
        "accuracy": accuracy,
        "statistic": constraints.statistic,
    }
    other = next((name for name, value in asked.items() if found.get(name) != value), None)
    if other is not None or target not in found["fronts"]:
        what = f"{other} {found.get(other)}" if other else ", ".join(found["fronts"])
        raise UsageError(f"the front is of {what}, not of what is asked for; make one with: ofa-deploy pareto")
    return [subject.space.canonical(point["arch"]) for point in found["fronts"][target]]
