"""Train one once-for-all supernet, measure real devices, and ship each the subnet that fits its latency budget.

Everything below is loaded when it is first used, so that ``import ofa_deploy`` takes no time:

``load_supernet``  a trained supernet with its images and accuracy predictor
``profile``        measure a device
``audit``          check its predictions
``search``         find the best subnet by prediction
``pareto``         find the best subnet at every latency, by prediction
``extract``        search, measure, choose and export: a bundle
``baseline``       train hand-picked networks, and measure them beside ours
``load_bundle``    open a bundle: its report, and predictions on images
``compare_spaces`` compare search spaces on a device, before anything is trained
``suggest_space``  compose a search space of the blocks that a device runs best
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa_deploy.api.bundles import load_bundle as load_bundle
    from ofa_deploy.api.comparing import baseline as baseline
    from ofa_deploy.api.extracting import extract as extract
    from ofa_deploy.api.front_search import pareto as pareto
    from ofa_deploy.api.measuring import audit as audit
    from ofa_deploy.api.measuring import profile as profile
    from ofa_deploy.api.searching import search as search
    from ofa_deploy.api.space_study import compare_spaces as compare_spaces
    from ofa_deploy.api.space_study import suggest_space as suggest_space
    from ofa_deploy.api.supernets import load_supernet as load_supernet

__version__ = "0.1.0"
__all__ = [
    "audit",
    "baseline",
    "compare_spaces",
    "extract",
    "load_bundle",
    "load_supernet",
    "pareto",
    "profile",
    "search",
    "suggest_space",
]

_WHERE = {
    "load_supernet": "ofa_deploy.api.supernets",
    "profile": "ofa_deploy.api.measuring",
    "audit": "ofa_deploy.api.measuring",
    "search": "ofa_deploy.api.searching",
    "pareto": "ofa_deploy.api.front_search",
    "extract": "ofa_deploy.api.extracting",
    "baseline": "ofa_deploy.api.comparing",
    "load_bundle": "ofa_deploy.api.bundles",
    "compare_spaces": "ofa_deploy.api.space_study",
    "suggest_space": "ofa_deploy.api.space_study",
}


def settle_threads() -> None:
    """Set what torch reads when it is loaded, unless the user has set it."""
    # OpenMP threads that wait for each other by spinning for long starve as soon as another process wants a core;
    # training then all but stops
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    # a lost connection is one line of ours; torch's own adds a page of stack frames
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settle_threads()
    found = getattr(import_module(_WHERE[name]), name)
    if name in sys.modules[__name__].__dict__:  # the import has set it: ``search`` is a package, too
        return sys.modules[__name__].__dict__[name]
    setattr(sys.modules[__name__], name, found)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Search(ModuleType):
    """The package ``ofa_deploy.search``, which can be called as the function ``search``."""

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.__wrapped__.__doc__

    @property
    def __wrapped__(self) -> Any:  # what ``help`` and ``inspect.signature`` look at
        return import_module(_WHERE["search"]).search

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.__wrapped__(*arguments, **options)


class _Package(ModuleType):
    """This package. Importing ``ofa_deploy.search`` puts that package in the place of the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "search" and isinstance(value, ModuleType):
            value.__class__ = _Search
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
