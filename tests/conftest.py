"""Fixtures that start the real server and the real agent on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ofa_deploy.config import TargetProfile
    from ofa_deploy.fleet import Fleet, MeasureItem, Protocol
    from ofa_deploy.store import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace."""
    from ofa_deploy.store import Workspace

    with Workspace.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def target() -> TargetProfile:
    """This machine."""
    from ofa_deploy.fleet import resolve_target

    return resolve_target("local")


@pytest.fixture
def quick_protocol() -> Protocol:
    """Measuring as it is done, but no longer than a test needs."""
    from ofa_deploy.fleet import Protocol

    return Protocol(rounds_min=3, rounds_max=3, timings=2, burst_ms=0.05, warmup_ms=0, warmup_calls=1)


@pytest.fixture
def make_items(target: TargetProfile) -> Callable[[int], list[MeasureItem]]:
    """``make_items(n)``: n different small blocks."""
    from ofa_deploy.fleet.profiling import block_item
    from ofa_deploy.space import OpSpec

    def make(count: int) -> list[MeasureItem]:
        specs = [OpSpec("mbconv", 8, 8, 8, 16 + 8 * i, 8, 3, 1, "relu", skip=True) for i in range(count)]
        return [block_item(spec, target) for spec in specs]

    return make


@pytest.fixture
def fleet(workspace: Workspace) -> Iterator[Fleet]:
    """The server inside this process; measuring on ``local`` starts a real agent process."""
    from ofa_deploy.fleet import Fleet

    with Fleet.open(workspace) as opened:
        yield opened
