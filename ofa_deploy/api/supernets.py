"""``load_supernet``: what a search chooses from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.accuracy import Predictor, load_predictor
from ofa_deploy.api.common import Where, opened
from ofa_deploy.notices import Tell, silent
from ofa_deploy.space import Family, load_space
from ofa_deploy.store import Workspace

if TYPE_CHECKING:  # it loads torch
    from ofa_deploy.deploy.subject import Subject


def load_supernet(
    path: str | Path | None = None,
    *,
    space: str | None = None,
    accuracy: str | None = None,
    seed: int = 0,
    workspace: Where = None,
    progress: Tell = silent,
) -> Subject:
    """Load a trained supernet with its images and its accuracy predictor.

    If the supernet has no predictor yet, the function evaluates subnets and fits one, which can take minutes.

    Args:
        path: the supernet's file or folder. By default it is the newest supernet in the workspace, or else the small
            one in the package.
        space: a preset's name or a YAML file. The result then has random weights instead of a supernet's, which is
            enough to study latency.
        accuracy: the name of an imported accuracy predictor, which replaces the supernet's own.
        seed: random seed of the random weights.
        workspace: the workspace or its folder. The default is the one that commands use: ``$OFA_WORKSPACE``, or
            ``.ofa`` in the current folder.
        progress: called with a description and a dictionary of numbers such as ``done`` and ``total``.

    Returns:
        The supernet: its ``space``, ``predictor``, ``data`` and ``labels``, and ``subnet(arch)``, which extracts a
        subnet as a torch module.

    Raises:
        UsageError: there is no such file, space or predictor, or the file is damaged.

    Example:
        >>> supernet = ofa_deploy.load_supernet()
        >>> supernet.space.name
        'small_28'
    """
    from ofa_deploy.deploy.request import Source
    from ofa_deploy.deploy.weight_sources import load_source

    source = Source(Path(path) if path else None, space, accuracy)
    return load_source(source, opened(workspace), seed, progress)


def subject_of(
    supernet: Subject | str | Path | None,
    space: str | None,
    accuracy: str | None,
    seed: int,
    workspace: Workspace,
    progress: Tell,
) -> Subject:
    """The supernet that a function was given, loaded if it is a path."""
    if supernet is None or isinstance(supernet, (str, Path)):
        return load_supernet(
            supernet, space=space, accuracy=accuracy, seed=seed, workspace=workspace, progress=progress
        )
    return supernet


def question_of(
    supernet: Subject | str | Path | None,
    space: str | None,
    accuracy: str | None,
    seed: int,
    workspace: Workspace,
    progress: Tell,
) -> tuple[Family, Predictor | None, str | None]:
    """The space to search, its predictor, and the supernet's sha256 if there is one.

    A named predictor brings its own space if nothing else is named; torch is not loaded then.
    """
    if accuracy and supernet is None and space is None:
        predictor = load_predictor(workspace, accuracy)
        progress(predictor.summary(), {})
        return predictor.codec.space, predictor, None
    subject = subject_of(supernet, space, accuracy, seed, workspace, progress)
    return subject.space, subject.predictor, subject.sha256


def space_of(space: str | Family | None, resolutions: tuple[int, ...], workspace: Workspace, progress: Tell) -> Family:
    """A space by name or file, or that of the newest supernet; with ``resolutions``, restricted to these."""
    found: Family
    if isinstance(space, (str, Path)):
        found = load_space(space)
    elif space:
        found = space
    else:
        from ofa_deploy.deploy.subject import find_supernet
        from ofa_deploy.supernet import read_summary

        path = find_supernet(workspace, None)
        progress(f"supernet: {path}", {})
        found = read_summary(path)[0]
    return found.with_resolutions(resolutions) if resolutions else found
