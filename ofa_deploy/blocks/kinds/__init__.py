"""The kinds of blocks: each file beside this one defines some. A new kind is a new file here, and nothing else."""

from importlib import import_module
from pkgutil import iter_modules

from ofa_deploy.blocks.kinds.kind import CELL, ROLES, STAGE, Kind, by_name


def _defined(module: str) -> list[Kind]:
    return list(getattr(import_module(f"{__name__}.{module}"), "KINDS", ()))


_ALL = [kind for module in iter_modules(__path__) for kind in _defined(module.name)]
KINDS = by_name(sorted(_ALL, key=lambda kind: ROLES.index(kind.role)))  # those of networks' beginnings first

__all__ = ["CELL", "KINDS", "STAGE", "Kind"]
