"""What the functions for programs share."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ofa_deploy.documents.json_document import Document
from ofa_deploy.errors import UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.json_types import JSON
from ofa_deploy.store import Workspace

if TYPE_CHECKING:
    from ofa_deploy.config import TargetProfile

Where = Workspace | Path | str | None  # a workspace, or its folder
DocumentT = TypeVar("DocumentT", bound=Document)
PAGE_HEIGHT = 720  # pixels of a page in a notebook


def opened(workspace: Where) -> Workspace:
    """The workspace: itself, the one in a folder, or by default the one that commands use here."""
    return workspace if isinstance(workspace, Workspace) else Workspace.open(Path(workspace) if workspace else None)


def targets_in(
    target: str, precision: str | Sequence[str] | None, workspace: Workspace, measure: bool = False
) -> list[TargetProfile]:
    """A device, once for each precision.

    Args:
        measure: whether something is to be measured on it.
    """
    from ofa_deploy.fleet import in_precision, resolve_target

    found = resolve_target(target, workspace, measure=measure)
    names = [precision] if isinstance(precision, str) else precision or []
    return [in_precision(found, name) for name in names] or [found]


def in_frame(page: str) -> str:
    """A whole HTML page for a notebook: in a frame, so that neither changes the other's style."""
    style = f"width: 100%; height: {PAGE_HEIGHT}px; border: 1px solid #ccc"
    return f'<iframe srcdoc="{html.escape(page)}" style="{style}"></iframe>'


def save_figures(
    file: str | Path,
    answer: dict[str, JSON],
    document: type[DocumentT],
    svg: Callable[[DocumentT], str],
    page: Callable[[DocumentT], str],
) -> None:
    """Write an answer as its figures (``.json``), as a plot (``.svg``) or as a page (``.html``).

    Args:
        document: reads the answer for the plot and the page.

    Raises:
        UsageError: the name ends otherwise.
    """
    path = Path(file)
    render: dict[str, Callable[[], str]] = {
        ".json": lambda: json.dumps(answer, indent=1),
        ".svg": lambda: svg(document.read(answer)),
        ".html": lambda: page(document.read(answer)),
    }
    if path.suffix not in render:
        raise UsageError(f"{path}: the file name must end in {', '.join(render)}")
    write_atomic(path, render[path.suffix]().encode())
