"""``extract``: from a budget to a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.api.bundles import Bundle, load_bundle
from ofa_deploy.api.common import Where, opened
from ofa_deploy.config import Constraints, Plan
from ofa_deploy.deploy.fulfil import fulfil
from ofa_deploy.deploy.request import KnownFront, Request, Source
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.deploy.weight_sources import load_source
from ofa_deploy.fleet import Fleet, Protocol, resolve_target
from ofa_deploy.notices import Tell, silent
from ofa_deploy.store import Workspace

if TYPE_CHECKING:
    from ofa_deploy.api.front_search import Front


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
    front: Front | None = None,
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
        options: further words of the command that repeats the extraction.
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
    given = supernet if isinstance(supernet, Subject) else None
    path = Path(supernet) if isinstance(supernet, (str, Path)) else None
    where = opened(workspace)
    request = Request(
        target=resolve_target(target, where, measure=True),
        constraints=Constraints.model_validate({"max_ms": max_ms, **bounds}),
        precisions=(precision,) if isinstance(precision, str) else tuple(precision or ()),
        source=Source(path, None if given else space, accuracy),
        plan=(plan or Plan()).following(strategy),
        seed=seed,
        front=KnownFront(front.answer) if front else None,
        finetune=finetune,
        finetune_epochs=finetune_epochs,
        may_profile=may_profile,
        protocol=Protocol(se=se, cap_s=cap_s),
        embed_preprocessing=embed_preprocessing,
        baselines=baselines,
        output=Path(output) if output else None,
        options=tuple(options),
    )
    return deliver(request, where, progress, given)


def deliver(request: Request, workspace: Workspace, progress: Tell = silent, subject: Subject | None = None) -> Bundle:
    """The bundle that a request asks for.

    Args:
        subject: what the request's source stands for, if it is loaded already.
    """
    with Fleet.open(workspace) as fleet:
        chosen = subject or load_source(request.source, workspace, request.seed, progress)
        return load_bundle(fulfil(request, chosen, fleet, workspace, progress).folder)
