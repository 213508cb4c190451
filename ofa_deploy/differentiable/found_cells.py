"""Cells as a search left them: a recipe by its file's name, a genotype, and the search that found it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ofa_deploy.config import find_file, read_document
from ofa_deploy.differentiable.recipe import DartsRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.space import Genotype

SHOWN = ("nodes", "history", "candidates", "acted")  # of a search, what a report shows


def read_recipe(config: str) -> DartsRecipe:
    """Read a recipe by its file's name.

    Raises:
        UsageError: as ``find_file`` and ``read_document``.
    """
    return read_document(DartsRecipe, find_file(config, "pipelines"))


def read_cells(path: Path) -> dict[str, Any]:
    """The JSON of a file that ``derive`` or ``search`` wrote, or of the search in a folder.

    Raises:
        UsageError: it cannot be read, or is no JSON object.
    """
    file = path / "search.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read cells from {file}: {error}; find cells with: ofa-deploy darts search") from error
    if not isinstance(data, dict):
        raise UsageError(f"{file} holds no cells; find cells with: ofa-deploy darts search")
    return data


def read_genotype(path: Path) -> Genotype:
    """The genotype in such a file or folder.

    Raises:
        UsageError: as ``read_cells``; or it holds no genotype.
    """
    data = read_cells(path)
    try:
        return Genotype.of(data.get("genotype", data))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def search_course(path: Path) -> dict[str, Any] | None:
    """The search that found a genotype, as a report shows it: nodes, weights and figures; None without a search."""
    data = read_cells(path)
    return {name: data[name] for name in SHOWN} if all(name in data for name in SHOWN) else None
