"""What `quickstart` and `run` print: a line for each stage while they run, and at the end where to go on."""

import io
import shlex
from pathlib import Path

import click
import pytest
import rich.console

from ofa_deploy.cli import cli
from ofa_deploy.cli.output import _bars, _lines
from ofa_deploy.cli.pipelines import _print, next_steps
from ofa_deploy.pipeline.outcome import Outcome
from tests.report.test_report import REPORT

WIDTH = 80
STAGES = (
    ("train supernet digits", {"done": 340, "total": 340, "epoch": 20, "phase": "sandwich", "lr": 0.1, "loss": 0.5}),
    ("evaluate subnets", {"done": 34, "total": 60, "kendall": 0.52}),
    ("measure blocks and networks on local", {"done": 110, "total": 132, "phase": "rounds", "round": 10}),
    ("measure finalists for local-ms0.0625", {"done": 1, "total": 4, "phase": "starting"}),
)


def outcome(folder: Path, budgets: tuple[float | None, ...] = (0.046, 0.0625)) -> Outcome:
    reports = [
        {
            **REPORT,
            "budget": {**REPORT["budget"], "max_ms": budget},
            "bundle": str(folder / ".ofa" / "bundles" / f"local-ms{budget}"),
            "target": {**REPORT["target"], "name": "local"},
        }
        for budget in budgets
    ]
    return Outcome("quickstart", folder, reports=reports, page=folder / "index.html")


def test_a_terminal_shows_one_line_for_each_stage() -> None:
    screen = io.StringIO()
    shown = rich.console.Console(file=screen, force_terminal=True, width=WIDTH, color_system=None)
    with _bars(shown) as tell:
        tell("supernet: digits", {})
        for what, numbers in STAGES:
            tell(what, numbers)
            tell(what, numbers)
    last = screen.getvalue().rsplit("\x1b[2K", 1)[-1]
    lines = [line for line in last.splitlines() if "/" in line]
    assert len(lines) == len(STAGES)
    for line, (what, numbers) in zip(lines, STAGES, strict=True):
        assert what in line
        assert f"{numbers['done']}/{numbers['total']}" in line
        assert len(line.rstrip()) <= WIDTH
    assert "✓" in lines[0], "what is finished is ticked off"
    assert "supernet: digits" in screen.getvalue(), "a remark is a line above"


def test_a_pipe_gets_lines_without_the_figures_that_only_metrics_need(capsys: pytest.CaptureFixture[str]) -> None:
    tell = _lines()
    for what, numbers in STAGES:
        tell(what, numbers)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"{what} {n['done']}/{n['total']}" for what, n in STAGES]
    assert "loss 0.5" in lines[0]
    assert "lr" not in lines[0]


def test_the_page_is_an_address_that_a_terminal_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _print(outcome(tmp_path))
    assert f"page: {(tmp_path / 'index.html').as_uri()}\n" in capsys.readouterr().out


@pytest.mark.parametrize("workspace", [None, Path("/some where/.ofa")])
def test_the_next_commands_work_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspace: Path | None
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = next_steps(outcome(tmp_path), workspace)
    assert len(lines) == 2
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "ofa-deploy"
        if workspace:
            assert words[:2] == ["--workspace", str(workspace)]
            words = words[2:]
        command = cli.commands[words[0]]
        command.make_context(words[0], words[1:], parent=click.Context(cli))
    assert shlex.split(lines[0])[-1] == str(Path(".ofa/bundles/local-ms0.046")), "seen from where the user stands"
    assert shlex.split(lines[1])[-2:] == ["--max-ms", "0.12"], "twice the largest budget: it holds in a slower hour"
    (tmp_path.parent / "elsewhere").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path.parent / "elsewhere")
    assert shlex.split(next_steps(outcome(tmp_path), None)[0])[-1] == str(tmp_path / ".ofa/bundles/local-ms0.046")
