"""What commands print: answers on standard output, progress on standard error. Only a terminal gets bars."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.notices import Numbers, Tell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

SIMULATED = "SIMULATED  "  # before every latency that no device took
PICTURES = (".json", ".svg", ".html")  # suffixes of files with figures, a plot, and a page
IN_METRICS = ("lr", "distill", "images_per_second")  # figures that a line has no room for; metrics.jsonl keeps them
LINE_SECONDS = 10.0  # between two progress lines where there is no terminal


def emit(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def picture(_: click.Context, __: click.Parameter, output: Path | None) -> Path | None:
    """Check the suffix of an output file before anything is computed for it."""
    if output is not None and output.suffix not in PICTURES:
        raise click.UsageError(f"-o {output}: the file name must end in {', '.join(PICTURES)}")
    return output


def write_picture(output: Path, found: Mapping[str, object], svg: Callable[[], str], html: Callable[[], str]) -> None:
    """Write figures as JSON, as a plot or as a page, as the file's suffix says."""
    from ofa_deploy.files import write_atomic

    render = {".json": lambda: json.dumps(found, indent=1), ".svg": svg, ".html": html}
    write_atomic(output, render[output.suffix]().encode())


def shout(simulated: bool) -> str:
    """The prefix of an answer, so that nobody takes a simulation for a device."""
    return SIMULATED if simulated else ""


def slower(level: Mapping[str, Any]) -> str:
    """How fast a device is now, as a level says it."""
    return f"{level['factor']:.2f} times as slow as when it was profiled ({level['low']:.2f} to {level['high']:.2f})"


@contextmanager
def progress() -> Iterator[Tell]:
    """A function that shows progress: ``tell("train", {"done": 3, "total": 10})``. It shows other numbers too."""
    if sys.stderr.isatty():
        with _bars() as tell:
            yield tell
    else:
        yield _lines()


def _split(numbers: Numbers) -> tuple[float, float | None, str]:
    """Done, total, and the rest as text."""
    rest = {k: v for k, v in numbers.items() if k not in ("done", "total", *IN_METRICS)}
    text = "  ".join(
        f"{k.replace('_', ' ')} {v:.4g}" if isinstance(v, float) else f"{k.replace('_', ' ')} {v}"
        for k, v in rest.items()
    )
    done, total = (None if isinstance(n, str) else n for n in (numbers.get("done"), numbers.get("total")))
    return done or 0, total, text


@contextmanager
def _bars(console: Console | None = None) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("[dim]{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )
    with Progress(*columns, console=console or Console(stderr=True), expand=True) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, numbers: Numbers) -> None:
            if not numbers:  # a remark, no progress
                bars.console.print(what, highlight=False, soft_wrap=True)
                return
            done, total, text = _split(numbers)
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, text=text)
            bars.update(tasks[what], completed=done, total=total, text=text)

        yield tell


def _lines() -> Tell:
    last: dict[str, float] = {}
    begun: dict[str, tuple[float, float]] = {}  # when, and how much was done then

    def tell(what: str, numbers: Numbers) -> None:
        done, total, text = _split(numbers)
        finished = total is not None and done >= total
        if what in last and not finished and time.monotonic() - last[what] < LINE_SECONDS:
            return
        last[what] = time.monotonic()
        since, before = begun.setdefault(what, (last[what], done))
        count = f" {done:g}/{total:g}" if total else ""
        left = _left((last[what] - since) / (done - before) * (total - done)) if total and total > done > before else ""
        click.echo(f"{what}{count}  {left}{text}".rstrip(), err=True)

    return tell


def _left(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} left  "
