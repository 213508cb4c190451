"""Fixtures that start the real server and the real agent on loopback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import pytest

if TYPE_CHECKING:
    from ofa_deploy.config import TargetProfile
    from ofa_deploy.fleet import Fleet, MeasureItem, Protocol
    from ofa_deploy.store import Workspace


pytest_plugins = ["tests.postgres"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; OpenMP and OpenBLAS read it when they load


class Done(NamedTuple):
    """What a command left: its exit code and output."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*arguments: str, cwd: Path) -> Done:
    """Run ``ofa-deploy`` in this process, which has torch loaded already: most of a command's time is importing."""
    from ofa_deploy.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["ofa-deploy", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as done:
            code = done.code
    return Done(int(code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def ofa_deploy() -> Callable[..., Done]:
    """``ofa_deploy("search", "--max-ms", "2", cwd=folder)``: a command as a user types it."""
    return run_command


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

    return Protocol(rounds_min=3, rounds_max=3, min_s=0, timings=2, burst_ms=0.05, warmup_ms=0, warmup_calls=1)


@pytest.fixture
def make_items(target: TargetProfile) -> Callable[[int], list[MeasureItem]]:
    """``make_items(n)``: n different small blocks."""
    from ofa_deploy.blocks import OpSpec
    from ofa_deploy.fleet.profiling import block_item

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
