"""`gate`: the constraints on many subnets at once, from a stream to a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from ofa_deploy.cli.output import emit
from ofa_deploy.cli.request import constraint_options

if TYPE_CHECKING:
    from ofa_deploy.search import Constraints, Gate, Verdicts

CHUNK = 4096  # lines that are judged at once


@click.command()
@click.argument("archs", type=click.File("r", encoding="utf-8", errors="replace"))
@click.option("--space", "space_name", help="Preset or YAML file.  [default: the one that the first subnet names]")
@constraint_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document, instead of a line for every subnet.")
@click.pass_obj
def gate(
    workspace: Path | None,
    archs: IO[str],
    space_name: str | None,
    target: str,
    constraints: Constraints,
    as_json: bool,
) -> None:
    """Judge subnets, one JSON object a line, against constraints; FILE or - for standard input.

    Writes one verdict a line, in the same order: predictions, whether all constraints hold, and for each that does not,
    by what share of its bound it is exceeded. A line that is no subnet of the space gets an error in its place.

    Example: ofa-deploy gate archs.jsonl --target local --max-ms 2 --max-params 2e6
    """
    judge = _Judge(workspace, target, constraints, space_name)
    counts: dict[str, int] = {"subnets": 0, "feasible": 0, "errors": 0}
    answers: list[dict[str, Any]] = []
    lines = ((number, line) for number, line in enumerate(archs, 1) if line.strip())
    while chunk := list(islice(lines, CHUNK)):
        for verdict in judge.verdicts(chunk):
            _count(counts, verdict)
            if as_json:
                answers.append(verdict)
            else:
                click.echo(json.dumps(verdict, allow_nan=False))
    if as_json:
        emit({"counts": counts, "simulated": judge.simulated, "verdicts": answers})
    else:
        click.echo("  ".join(f"{name} {count}" for name, count in counts.items()), err=True)


def _count(counts: dict[str, int], verdict: dict[str, Any]) -> None:
    counts["subnets"] += 1
    counts["errors"] += "error" in verdict
    counts["feasible"] += verdict.get("feasible", False)
    for name in verdict.get("reasons", {}):
        counts[name] = counts.get(name, 0) + 1


class _Judge:
    """The gate, made when the first subnet says which space it is."""

    def __init__(self, workspace: Path | None, target: str, constraints: Constraints, space: str | None) -> None:
        self._workspace, self._target, self._constraints = workspace, target, constraints
        self._space, self.simulated = space, False
        self._gate: Gate | None = None

    def verdicts(self, chunk: list[tuple[int, str]]) -> Iterator[dict[str, Any]]:
        """One answer for every line."""
        parsed = [self._row(line) for _, line in chunk]
        rows = [row for row in parsed if not isinstance(row, str)]
        found = iter(self._answers(rows))
        for (number, _), row in zip(chunk, parsed, strict=True):
            yield {"line": number, **({"error": row} if isinstance(row, str) else next(found))}

    def _row(self, line: str) -> Any:
        """A line's subnet as a row, or what is wrong with it."""
        from ofa_deploy.errors import UsageError

        try:
            arch = json.loads(line)
        except ValueError as error:
            return f"no JSON: {error}"
        if not isinstance(arch, dict):
            return "no JSON object"
        try:
            return self._ready(arch).problem.codec.encode([arch])[0]
        except (UsageError, TypeError) as error:
            return " ".join(str(error).split())

    def _ready(self, arch: dict[str, Any]) -> Gate:
        if self._gate is None:
            from ofa_deploy.errors import UsageError

            name = self._space or arch.get("space")
            if not isinstance(name, str):
                raise UsageError("the subnet does not name its space; give it with --space")
            self._gate = self._open(name)
        return self._gate

    def _open(self, name: str) -> Gate:
        from ofa_deploy.deploy.ready import ready_model
        from ofa_deploy.fleet import resolve_target
        from ofa_deploy.search import Gate, Problem
        from ofa_deploy.space import PopulationCodec, load_space
        from ofa_deploy.store import Workspace

        opened, space = Workspace.open(self._workspace), load_space(name)
        found = resolve_target(self._target, opened)
        codec, latency = PopulationCodec(space), None
        if self._constraints.max_ms is not None:
            model, codec = ready_model(None, opened, found, space, self._constraints.statistic)
            latency, self.simulated = model.bind(codec).predict, model.table.simulated
        return Gate(Problem(codec, codec.macs, latency, self._constraints, found.batch, found.precision))

    def _answers(self, rows: list[Any]) -> list[dict[str, Any]]:
        if self._gate is None or not rows:
            return []
        import numpy as np

        verdicts = self._gate.check(np.array(rows), deviations=True)
        return [self._answer(verdicts, i) for i in range(len(rows))]

    def _answer(self, verdicts: Verdicts, i: int) -> dict[str, Any]:
        values = {name: float(values[i]) for name, values in verdicts.values.items()}
        simulated = {"simulated": True} if self.simulated else {}
        return {"feasible": bool(verdicts.feasible[i]), **values, "reasons": verdicts.reasons(i), **simulated}


COMMANDS = (gate,)
