"""Files that ship with the package: profiles, pipelines and supernets."""

from __future__ import annotations

from pathlib import Path

from ofa_deploy.errors import UsageError


def find_file(name: str | Path, folder: str) -> Path:
    """A file where you stand, in ``folder`` there, or among those that ship with the package.

    Raises:
        UsageError: it is in none of them; lists what ships.
    """
    shipped = shipped_folder(folder)
    for candidate in (Path(name), Path(folder) / name, shipped / name, shipped / Path(name).name):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.name for path in shipped.glob("*.yaml")))
    raise UsageError(f"there is no file {name} here or in {shipped}; shipped {folder}: {known}")


def shipped_folder(folder: str) -> Path:
    """Where ``profiles``, ``pipelines`` or ``supernets`` lie: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "data" / folder
    return installed if installed.is_dir() else package.parent / folder
