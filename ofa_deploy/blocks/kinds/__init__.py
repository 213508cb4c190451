"""The kinds of blocks: each file beside this one defines some. A new kind is a new file here, and nothing else."""

from importlib import import_module
from pkgutil import iter_modules

from ofa_deploy.blocks.kinds.kind import CELL, ROLES, Kernel, Kind, StageKind, by_name, make_divisible
from ofa_deploy.errors import UsageError


def _defined(module: str) -> list[Kind]:
    return list(getattr(import_module(f"{__name__}.{module}"), "KINDS", ()))


_ALL = [kind for module in iter_modules(__path__) for kind in _defined(module.name)]
KINDS = by_name(sorted(_ALL, key=lambda kind: ROLES.index(kind.role)))  # those of networks' beginnings first


def stage_kind(name: str) -> StageKind:
    """A kind that stages can be made of.

    Raises:
        UsageError: there is none of this name; lists those that there are.
    """
    if not isinstance(kind := KINDS.get(name), StageKind):
        known = ", ".join(name for name, kind in KINDS.items() if isinstance(kind, StageKind))
        raise UsageError(f"unknown block {name!r}; known: {known}")
    return kind


__all__ = ["CELL", "KINDS", "Kernel", "Kind", "StageKind", "make_divisible", "stage_kind"]
