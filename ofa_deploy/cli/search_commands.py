"""`search`: find the best subnet by prediction. `gate`: check many subnets against constraints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import OUTPUT, SEARCH, command, now_option, option, output_option, space_option
from ofa_deploy.cli.output import emit, picture, progress, shout, slower, write_picture
from ofa_deploy.cli.precision_option import precisions_option
from ofa_deploy.cli.search_options import Asked, Bounded, asked_options, constraint_options, limit_options
from ofa_deploy.terms import STRATEGY_NAMES

if TYPE_CHECKING:
    import numpy as np

    from ofa_deploy.api.searching import Found
    from ofa_deploy.json_types import JSON
    from ofa_deploy.search import Compared, Constraints, Gate, Plan, Verdicts

CHUNK = 4096  # lines that `gate` judges at once
EVALUATIONS = 1000  # subnets that each strategy of a comparison may assess


@command(first=("target", "max_ms", "supernet", "strategies", "precisions", "as_json"))
@asked_options
@option(
    "--strategy",
    "strategies",
    multiple=True,
    group=SEARCH,
    help=f"Search strategy: {', '.join(STRATEGY_NAMES)}. Repeat the option with --compare.  [default: evolution]",
)
@limit_options
@precisions_option
@option(
    "--compare",
    "seeds",
    type=click.IntRange(min=1),
    group=SEARCH,
    help="Compare strategies: run each of them with N random seeds.",
)
@now_option
@output_option("With --compare: write the comparison to a .html, .svg or .json file.", callback=picture)
@click.pass_obj
def search(
    workspace: Path | None,
    asked: Asked,
    strategies: tuple[str, ...],
    plan: Plan,
    precisions: tuple[str, ...],
    seeds: int | None,
    now: bool,
    output: Path | None,
) -> None:
    """Find the best subnet by prediction; measure nothing but, with --now, how fast the device is now.

    With --compare N the command runs every strategy except differentiable, or those that --strategy names, with N
    random seeds. All get the same time if you give --time-limit, else the same number of subnets.

    The strategy differentiable learns on the supernet's images.

    With --precision fp32,int8 the command searches each precision's latency table and takes the best answer. It does
    not predict how much accuracy a precision costs; `extract` measures that.

    \b
    Examples:
      ofa-deploy search --target local --max-ms 2 --json
      ofa-deploy search --target local --max-ms 2 --compare 5 -o strategies.html
    """
    from ofa_deploy.api.searching import answered, question
    from ofa_deploy.search import GRADIENT, STRATEGIES, compare

    if seeds is None and (len(strategies) > 1 or output):
        raise click.UsageError("several --strategy options, and -o, need --compare N")
    if seeds is not None and len(precisions) > 1:
        raise click.UsageError("--compare takes a single --precision")
    with progress() as tell:
        ready = question(
            asked.target,
            asked.constraints,
            **asked.subject,
            precision=precisions,
            strategies=strategies,
            plan=plan,
            now=now,
            workspace=workspace,
            progress=tell,
        )
        if seeds is None:
            found = answered(ready, strategies[0] if strategies else "evolution", plan, asked.seed)
        else:
            (problem,) = ready.problems.values()
            limit = plan.evaluations or (None if plan.time_limit else EVALUATIONS)
            chosen = strategies or [name for name in STRATEGIES if name != GRADIENT]
            runs = range(asked.seed, asked.seed + seeds)
            compared = compare(problem, chosen, runs, limit, plan.time_limit)
            facts = {"space": ready.space.name, "target": asked.target, "simulated": ready.simulated, "seeds": seeds}
            judge = ready.predictor
            facts |= {"predicted": judge is not None, "predictor_error": judge.error.to_json() if judge else None}
            _tell_compared(compared, {**facts, "at": "seconds" if limit is None else "evaluations"}, output, asked)
            return
    _tell_best(found, asked)


def _tell_best(found: Found, asked: Asked) -> None:
    """Print the best of the precisions' answers. Without a predictor, no accuracy."""
    from ofa_deploy.documents.predictor_error import PredictorError
    from ofa_deploy.report.text import predicted

    result, best = found.best, found.best.best
    if asked.as_json:
        emit(found.to_json())
        return
    accuracy = (
        f"accuracy {predicted(best.accuracy, found.judge or PredictorError())}" if found.judged else "accuracy unknown"
    )
    click.echo(
        f"{shout(found.simulated)}predicted in {found.precision}: {accuracy}, latency {best.latency_ms:.4g} ms, with "
        f"{100 * asked.constraints.confidence:g} % confidence below {best.upper_ms:.4g} ms "
        f"({result.evaluations} subnets assessed in {result.seconds:.1f} s)\n"
        f"{json.dumps(best.arch.to_json())}"
    )
    if found.level:
        click.echo(f"the device is {slower(found.level)}")


def _tell_compared(found: list[Compared], facts: dict[str, Any], output: Path | None, asked: Asked) -> None:
    from ofa_deploy.documents.strategies_document import StrategiesFound
    from ofa_deploy.report.strategies import render_strategies, strategies_svg
    from ofa_deploy.report.text import pct, predicted

    answer = {**facts, "strategies": [one.to_json() for one in found]}
    read = StrategiesFound.read(answer)
    if output is not None:
        write_picture(output, answer, lambda: strategies_svg(read), lambda: render_strategies(read))
    if asked.as_json:
        emit(answer)
        return
    for one in sorted(found, key=lambda compared: -compared.best.mean):
        best = predicted(one.best.mean, read.predictor_error)
        interval = f"{best}, mean over seeds {pct(one.best.low)} to {pct(one.best.high)}"
        gain = "" if one.gain is None else "  beats random" if one.beats_random else "  does not beat random"
        volume = "" if one.hypervolume is None else f"  hypervolume {one.hypervolume.mean:.3f}"
        click.echo(f"{one.strategy:17} {interval}{volume}  {one.evaluations:.0f} subnets, {one.seconds:.2f} s{gain}")


@command(first=("target", "max_ms", "max_macs", "max_params", "space_name", "as_json"))
@click.argument("archs", metavar="FILE", type=click.File("r", encoding="utf-8", errors="replace"))
@space_option("the one that the first subnet names")
@constraint_options
@option(
    "--json", "as_json", is_flag=True, group=OUTPUT, help="Print one JSON document instead of a line for each subnet."
)
@click.pass_obj
def gate(
    workspace: Path | None,
    archs: IO[str],
    space_name: str | None,
    bounded: Bounded,
    as_json: bool,
) -> None:
    """Check many subnets against constraints.

    FILE holds one subnet per line, each a JSON object; - reads standard input. The command writes one verdict per
    line, in the same order: the predictions, whether the subnet meets all constraints, and by which fraction it
    exceeds each bound that it misses. For a line that holds no subnet of the space it writes an error.

    \b
    Example:
      ofa-deploy gate archs.jsonl --target local --max-ms 2 --max-params 2e6
    """
    judge = _Judge(workspace, bounded.target, bounded.constraints, space_name)
    counts: dict[str, int] = {"subnets": 0, "feasible": 0, "errors": 0}
    answers: list[dict[str, JSON]] = []
    lines = ((number, line) for number, line in enumerate(archs, 1) if line.strip())
    while chunk := list(islice(lines, CHUNK)):
        for verdict in judge.verdicts(chunk):
            _count(counts, verdict)
            if as_json:
                answers.append(verdict.to_json())
            else:
                click.echo(json.dumps(verdict.to_json(), allow_nan=False))
    if as_json:
        emit({"counts": counts, "simulated": judge.simulated, "verdicts": answers})
    else:
        click.echo("  ".join(f"{name} {count}" for name, count in counts.items()), err=True)


@dataclass(frozen=True)
class Assessed:
    """What constraints make of a subnet: predictions, and by which fraction it exceeds each bound that it misses."""

    feasible: bool
    values: dict[str, float]
    reasons: dict[str, float]
    simulated: bool


@dataclass(frozen=True)
class LineVerdict:
    """A line of the file: its subnet, or why it holds none."""

    line: int
    found: Assessed | str

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        if isinstance(self.found, str):
            return {"line": self.line, "error": self.found}
        simulated: dict[str, JSON] = {"simulated": True} if self.found.simulated else {}
        judged: dict[str, JSON] = {"feasible": self.found.feasible, **self.found.values, "reasons": self.found.reasons}
        return {"line": self.line, **judged, **simulated}


def _count(counts: dict[str, int], verdict: LineVerdict) -> None:
    counts["subnets"] += 1
    if isinstance(verdict.found, str):
        counts["errors"] += 1
        return
    counts["feasible"] += verdict.found.feasible
    for name in verdict.found.reasons:
        counts[name] = counts.get(name, 0) + 1


class _Judge:
    """The gate. It is built when the first subnet names the space."""

    def __init__(self, workspace: Path | None, target: str, constraints: Constraints, space: str | None) -> None:
        self._workspace, self._target, self._constraints = workspace, target, constraints
        self._space, self.simulated = space, False
        self._gate: Gate | None = None

    def verdicts(self, chunk: list[tuple[int, str]]) -> Iterator[LineVerdict]:
        """One answer for each line."""
        parsed = [self._row(line) for _, line in chunk]
        rows = [row for row in parsed if not isinstance(row, str)]
        found = iter(self._answers(rows))
        for (number, _), row in zip(chunk, parsed, strict=True):
            yield LineVerdict(number, row if isinstance(row, str) else next(found))

    def _row(self, line: str) -> np.ndarray | str:
        """A line's subnet as a row of genes, or an error message."""
        from ofa_deploy.errors import UsageError

        try:
            arch = json.loads(line)
        except ValueError as error:
            return f"not JSON: {error}"
        if not isinstance(arch, dict):
            return "not a JSON object"
        try:
            return self._ready(arch).problem.codec.encode([arch])[0]
        except (UsageError, TypeError) as error:
            return " ".join(str(error).split())

    def _ready(self, arch: Mapping[str, JSON]) -> Gate:
        if self._gate is None:
            from ofa_deploy.errors import UsageError

            name = self._space or arch.get("space")
            if not isinstance(name, str):
                raise UsageError("the first subnet does not name its space: give it with --space")
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

    def _answers(self, rows: list[np.ndarray]) -> list[Assessed]:
        if self._gate is None or not rows:
            return []
        import numpy as np

        verdicts = self._gate.check(np.array(rows), deviations=True)
        return [self._answer(verdicts, i) for i in range(len(rows))]

    def _answer(self, verdicts: Verdicts, i: int) -> Assessed:
        values = {name: float(values[i]) for name, values in verdicts.values.items()}
        return Assessed(bool(verdicts.feasible[i]), values, verdicts.reasons(i), self.simulated)


COMMANDS = (search, gate)
