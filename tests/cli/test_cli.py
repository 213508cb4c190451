"""The command line without a trained supernet: answers, errors in one line, exit codes."""

import json
from pathlib import Path

import pytest


def test_space_show_json(ofa_deploy, tmp_path: Path) -> None:
    done = ofa_deploy("space", "show", "ofa_mbv3_w1.0", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (answer["space"], answer["supernet_params"]) == ("ofa_mbv3_w1.0", 7_678_880)
    assert answer["largest"]["params"] == 7_664_760
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
    (["extract", "--max-ms", "2", "--target", "toaster"], 2, "toaster"),
    (["extract", "--max-ms", "2"], 2, "there is no supernet"),
    (["extract", "--max-ms", "2", "--supernet", "none.safetensors"], 2, "there is no supernet at none.safetensors"),
    (["extract", "--max-ms", "2", "--space", "small_28"], 2, "go together"),
    (["search", "--max-ms", "2", "--space", "tiny_16", "--random-weights"], 2, "ofa-deploy profile --target local"),
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


def test_every_command_has_help_with_an_example(tmp_path: Path) -> None:
    import click

    from ofa_deploy.cli import cli

    def leaves(command: click.Command, path: tuple[str, ...]):
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from leaves(child, (*path, name))
        else:
            yield path, command

    found = dict(leaves(cli, ()))
    assert ("extract",) in found
    for path, command in found.items():
        assert command.help, path
        assert f"ofa-deploy {' '.join(path)}" in command.help, f"{path}: help without an example"
