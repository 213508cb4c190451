"""Finding a target by name: first where you stand, then in the package."""

from __future__ import annotations

import re
from pathlib import Path

from ofa_deploy.config import TargetProfile, read_document, shipped_folder
from ofa_deploy.errors import UsageError

FOLDERS = (Path("profiles"), shipped_folder("profiles"))  # where you stand, and what ships


def resolve_target(name: str) -> TargetProfile:
    """The profile of a target: ``profiles/NAME.yaml`` where you stand, a path to a YAML file, or one of the package.

    Raises:
        UsageError: there is none; lists those there are. Or its file is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        return read_document(TargetProfile, Path(name))
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        for path in (FOLDERS[0] / f"{name}.yaml", Path(f"{name}.yaml"), *(f / f"{name}.yaml" for f in FOLDERS[1:])):
            if path.is_file():
                return read_document(TargetProfile, path)
    raise UsageError(f"unknown target {name!r}; known: {', '.join(known_targets())}, or a path that ends in .yaml")


def known_targets() -> list[str]:
    """Names of all profiles that are found from here."""
    return sorted({path.stem for folder in FOLDERS if folder.is_dir() for path in folder.glob("*.yaml")})
