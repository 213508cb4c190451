"""The command line without a trained supernet: answers, errors in one line, exit codes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ofa_deploy.cli import cli
from ofa_deploy.cli.options import FEW, GROUPS
from ofa_deploy.terms import STRATEGY_NAMES


def test_space_show_json(ofa_deploy, tmp_path: Path) -> None:
    done = ofa_deploy("space", "show", "ofa_mbv3_w1.0", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (answer["space"], answer["supernet_params"]) == ("ofa_mbv3_w1.0", 7_678_880)
    assert answer["largest"]["params"] == 7_664_760
    assert answer["largest"]["memory_mb"] > 4e-6 * 7_664_760
    arch = tmp_path / "arch.json"
    arch.write_text(json.dumps({"resolution": 16, "depths": [2] * 5, "kernels": [3] * 20, "expands": [3] * 20}))
    done = ofa_deploy("space", "show", "ofa_mbv3_w1.0", "--arch", str(arch), "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["arch"]["params"] == 3_410_792


BAD = [
    (["extract", "--max-ms", "0"], 2, "max-ms must be a positive number"),
    (["extract", "--max-ms", "-1"], 2, "max-ms must be a positive number"),
    (["extract", "--max-ms", "nan"], 2, "max-ms must be a positive number"),
    (["extract", "--max-ms", "soon"], 2, "not a valid float"),
    (["extract"], 2, "give a budget"),
    (["search", "--max-memory-mb", "0"], 2, "max-memory-mb must be a positive number"),
    (["search", "--max-energy-mj", "3"], 2, "no runtime here measures energy; bound the time with --max-ms"),
    (["extract", "--max-ms", "2", "--max-energy-mj", "3"], 2, "no runtime here measures energy"),
    (["extract", "--max-ms", "2", "--target", "toaster"], 2, "toaster"),
    (["extract", "--max-ms", "2", "--supernet", "none.safetensors"], 2, "there is no supernet at none.safetensors"),
    (["extract", "--max-ms", "2", "--space", "small_28"], 2, "go together"),
    (["search", "--max-ms", "2", "--space", "tiny_16", "--random-weights"], 2, "ofa-deploy profile --target local"),
    (["search", "--max-ms", "2", "--strategy", "luck"], 2, "no strategy 'luck'; there are evolution"),
    (["search", "--max-ms", "2", "--strategy", "random", "--strategy", "exact"], 2, "need --compare"),
    (
        ["search", "--max-ms", "2", "--space", "tiny_16", "--random-weights", "--strategy", "differentiable"],
        2,
        "differentiable learns on a supernet's images",
    ),
    (
        ["extract", "--max-ms", "2", "--space", "tiny_16", "--random-weights", "--strategy", "differentiable"],
        2,
        "tiny_16 (random weights) has none: give --supernet",
    ),
    (["extract", "--max-ms", "2", "--strategy", "luck"], 2, "no strategy 'luck'; there are evolution"),
    (["extract", "--max-ms", "2", "--relaxation", "hard"], 2, "relaxation"),
    (["gate", "none.jsonl", "--max-macs", "1e6"], 2, "none.jsonl"),
    (["gate", "/dev/null"], 2, "give a budget"),
    (["profile", "--target", "toaster"], 2, "toaster"),
    (["profile", "--space", "nonsense"], 2, "unknown space 'nonsense'"),
    (["train-supernet", "-c", "none.yaml"], 2, "there is no file none.yaml"),
    (["space", "show", "nonsense"], 2, "unknown space"),
    (["predict", "none.json"], 2, "cannot read none.json"),
    (["report", "none"], 2, "cannot read"),
    (["lut", "show", "none.json"], 2, "cannot read the table"),
    (["nonsense"], 2, "No such command"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_input_is_one_clear_line(ofa_deploy, tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    done = ofa_deploy(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.lower().startswith(("ofa-deploy: error", "error:"))]
    assert len(errors) == 1


STAGES = [
    ("max_ms: [1], max_energy_mj: 2", "no runtime here measures energy"),
    ("confidence: 0.9", "extract for all targets: give max_ms, spread, max_macs, max_params or max_memory_mb"),
    ("max_memory_mb: 0", "max_memory_mb: Input should be greater than 0"),
    ("max_memory_mb: .inf", "max_memory_mb: Input should be a finite number"),
]


@pytest.mark.parametrize(("bounds", "says"), STAGES)
def test_a_pipeline_with_senseless_bounds_ends_before_it_trains(ofa_deploy, tmp_path: Path, bounds, says) -> None:
    stages = f"  - {{stage: train, recipe: none.yaml}}\n  - {{stage: extract, {bounds}}}\n"
    (tmp_path / "p.yaml").write_text(f"name: p\nstages:\n{stages}")
    done = ofa_deploy("run", "p.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "none.yaml" not in done.stderr


def test_the_common_options_arrive_as_one_checked_request() -> None:
    from click.testing import CliRunner

    from ofa_deploy.cli.search_options import Asked, asked_options

    seen: list[Asked] = []

    @click.command()
    @asked_options
    @click.option("--more", default=1)
    def command(asked: Asked, more: int) -> None:
        seen.append(asked)

    runner = CliRunner()
    words = ["--max-ms", "2", "--max-memory-mb", "1.5", "--statistic", "p90", "--space", "s", "--random-weights"]
    assert runner.invoke(command, [*words, "--seed", "3", "--more", "2"]).exit_code == 0
    (asked,) = seen
    assert (asked.constraints.bounds, asked.seed) == ({"max_ms": 2.0, "max_memory_mb": 1.5}, 3)
    for option in ("--max-ms", "--max-macs", "--max-params", "--max-memory-mb", "--max-energy-mj", "--confidence"):
        assert option in runner.invoke(command, ["--help"]).output


def test_unknown_yaml_key_names_file_and_line(ofa_deploy, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nspace: tiny_16\ndata: {name: digits}\nepochs: 1\nlearning_rate: 1\n")
    done = ofa_deploy("train-supernet", "-c", str(recipe), cwd=tmp_path)
    assert done.returncode == 2
    assert "mine.yaml:5: learning_rate: unknown key" in done.stderr


def test_truncated_files_are_named_and_left_alone(ofa_deploy, tmp_path: Path) -> None:
    broken = tmp_path / "supernet.safetensors"
    broken.write_bytes(b'\x10\x00\x00\x00\x00\x00\x00\x00{"__meta')
    done = ofa_deploy("extract", "--max-ms", "2", "--supernet", str(broken), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "supernet.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(broken.read_bytes()) == 16
    arch = tmp_path / "arch.json"
    arch.write_text('{"resolution": 2')
    done = ofa_deploy("predict", str(arch), cwd=tmp_path)
    assert done.returncode == 2
    assert "is not JSON (truncated?)" in done.stderr


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


COMMANDS = dict(commands(cli))


def shown_help(path: tuple[str, ...]) -> str:
    """What `--help` prints into a pipe, from a terminal of 80 columns."""
    context = click.Context(COMMANDS[path], info_name=" ".join(["ofa-deploy", *path]), terminal_width=80)
    return COMMANDS[path].get_help(context)


def test_there_are_commands_to_look_at() -> None:
    assert {("extract",), ("lut", "diff"), ("darts",)} <= set(COMMANDS)
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_readable_and_has_an_example(path: tuple[str, ...]) -> None:
    text = shown_help(path)
    examples = re.search(r"^  Examples?:\n((?:    .*\n?)+)", text, re.MULTILINE)
    assert examples, f"{path}: help without an example"
    assert f"ofa-deploy {' '.join(path)}".strip() in examples[1]
    assert max(map(len, text.splitlines())) <= 80, "nothing is wider than a terminal"
    assert COMMANDS[path].get_short_help_str(100)[-1] == ".", "the list of commands shows a whole sentence"
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            assert re.match(r"[A-Za-z0-9+].{9,}", option.help or ""), f"{path}: {option.opts} is not explained"
            assert len((option.help or "").split(".")[0].split()) >= 2, f"{path}: {option.opts} is no sentence"


LONG = [path for path, command in COMMANDS.items() if sum(isinstance(p, click.Option) for p in command.params) > FEW]


@pytest.mark.parametrize("path", LONG, ids=" ".join)
def test_many_options_are_grouped_with_those_that_matter_first(path: tuple[str, ...]) -> None:
    command, text = COMMANDS[path], shown_help(path)
    headings = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    assert headings == [title for title in GROUPS if title in headings], "one order everywhere"
    assert headings[0] == GROUPS[0]
    assert len(headings) >= 3
    first = re.split(r"^\w.*:$", text, flags=re.MULTILINE)[1]
    assert 3 <= len(command.first) <= 6
    assert len(re.findall(r"^  -", first, re.MULTILINE)) == len(command.first), "every one of them exists"
    listed = text[text.index(GROUPS[0]) :]
    for option in command.params:
        if isinstance(option, click.Option):
            assert len(re.findall(rf"^  (?:-[-\w]+, )*{option.opts[-1]}\b(?!-)", listed, re.MULTILINE)) == 1, (
                option.opts
            )


def test_extracts_options_are_in_the_groups_that_a_user_looks_for() -> None:
    text = shown_help(("extract",))
    groups = dict(zip(re.findall(r"^(\w.*):$", text, re.M), re.split(r"^\w.*:$", text, flags=re.M)[1:], strict=True))
    for title, option in (
        ("Most used options", "--max-ms"),
        ("Target and budget", "--max-params"),
        ("Search", "--strategy"),
        ("Measuring", "--cap-s"),
        ("Fine-tuning", "--finetune-epochs"),
        ("Output", "--json"),
    ):
        assert option in groups[title], title


def test_the_strategies_that_help_names_are_all_there_are() -> None:
    from ofa_deploy.search import STRATEGIES

    assert set(STRATEGY_NAMES) == set(STRATEGIES)


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'pydantic', 'rich', 'onnx', 'sqlalchemy'}"
    code = (
        "import sys; from ofa_deploy.cli import cli; cli(['extract', '--help'], standalone_mode=False); "
        f"sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def completed(*words: str) -> list[str]:
    """What bash offers when the tab key is pressed after some words; click's script asks in this way."""
    asked = {"_OFA_DEPLOY_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "ofa_deploy"], capture_output=True, text=True, env={**os.environ, **asked}
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_the_shell_completes_commands_options_and_choices() -> None:
    assert completed("ofa-deploy", "ex") == ["export", "extract"]
    assert {"--max-ms", "--max-macs"} <= set(completed("ofa-deploy", "extract", "--max"))
    assert completed("ofa-deploy", "extract", "--statistic", "p9") == ["p90", "p99"]
    assert completed("ofa-deploy", "lut", "d") == ["diff"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shells_script_calls_the_program_by_its_name(shell: str) -> None:
    asked = {**os.environ, "_OFA_DEPLOY_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-m", "ofa_deploy"], capture_output=True, text=True, env=asked)
    assert f"_OFA_DEPLOY_COMPLETE={shell}_complete" in done.stdout
    assert re.search(r"\bofa-deploy\b", done.stdout)
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "shell-completion.md").read_text()
    assert f"_OFA_DEPLOY_COMPLETE={shell}_source ofa-deploy" in page
