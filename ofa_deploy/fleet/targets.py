"""Finding a target by name: first where you stand, then in the package, then among the tables in the workspace."""

from __future__ import annotations

import re
from pathlib import Path

from ofa_deploy.config import PUBLISHED, TargetProfile, read_document, shipped_folder
from ofa_deploy.errors import DeviceUnavailable, UsageError
from ofa_deploy.store import Workspace

FOLDERS = (Path("profiles"), shipped_folder("profiles"))  # where you stand, and what ships
FILES = (".yaml", ".yml", ".json", ".csv")  # what a command takes for a file, not for a target
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def resolve_target(name: str, workspace: Workspace | None = None, measure: bool = False) -> TargetProfile:
    """The profile of a target: ``profiles/NAME.yaml`` where you stand, a path to a YAML file, or one of the package.

    A name without a profile that has a table in the workspace is a target too: its runtime is ``published``.

    Args:
        workspace: whose tables count.
        measure: whether it is to be measured.

    Raises:
        UsageError: there is none; lists those there are. Or its file is wrong.
        DeviceUnavailable: it is to be measured, and nothing is known of it but a table.
    """
    found = _profile(name)
    if found is None and workspace and re.fullmatch(NAME, name) and workspace.store.has_measurements(name):
        found = TargetProfile(name=name, description="known from a table that was imported", runtime=PUBLISHED)
    if found is None:
        known = ", ".join(known_targets(workspace))
        raise UsageError(f"unknown target {name!r}; known: {known}, or a path that ends in .yaml")
    if measure and found.runtime == PUBLISHED:
        raise DeviceUnavailable(
            f"{name} cannot be measured: its table was imported, and no profile says how to reach the device; use it "
            "with `search`, `predict` and `lut show`, or measure another with: --target local"
        )
    return found


def _profile(name: str) -> TargetProfile | None:
    if name.endswith((".yaml", ".yml")):
        return read_document(TargetProfile, Path(name))
    if re.fullmatch(NAME, name):
        for path in (FOLDERS[0] / f"{name}.yaml", Path(f"{name}.yaml"), *(f / f"{name}.yaml" for f in FOLDERS[1:])):
            if path.is_file():
                return read_document(TargetProfile, path)
    return None


def known_targets(workspace: Workspace | None = None) -> list[str]:
    """Names of all profiles that are found from here, and of all devices with a table in the workspace."""
    profiles = {path.stem for folder in FOLDERS if folder.is_dir() for path in folder.glob("*.yaml")}
    return sorted(profiles | set(workspace.store.measured_devices() if workspace else ()))


def new_table_name(name: str, workspace: Workspace) -> str:
    """Check a name for a table that is to be imported.

    Raises:
        UsageError: it is no name, or that of a device that is measured here: its rows and imported ones do not mix.
    """
    if not re.fullmatch(NAME, name) or name.endswith(FILES):
        allowed = f"letters, digits, '.', '_' and '-', 100 at most, none of {', '.join(FILES)} at the end"
        raise UsageError(f"{name[:100]!r} is not a name for a target: {allowed}")
    profile = _profile(name)
    if (profile and profile.runtime != PUBLISHED) or workspace.store.device(name):
        raise UsageError(
            f"{name} is a target that is measured, and imported rows do not mix with its own; choose another name"
        )
    return name
