"""Every command line of the README and of the docs is one that the program understands: its names and options exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from device_agents.__main__ import parse
from ofa_deploy.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACEHOLDER = re.compile(r"\[[^\]]*\]")  # what may be left out


def command_lines(text: str) -> list[str]:
    """What is typed: in blocks, a line that begins with it; in sentences, between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    typed = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    typed += [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)]
    return [line.split("#")[0].strip() for line in typed]


CASES = [(page, line) for page in PAGES for line in command_lines(page.read_text())]
OURS = [(page, line) for page, line in CASES if line.startswith("ofa-deploy ")]
AGENTS = [(page, line) for page, line in CASES if "ofa-agent.pyz --" in line]


def check_agent(words: list[str]) -> None:
    parse(words, "ofa-agent")


@pytest.mark.parametrize(("page", "line"), OURS, ids=lambda value: value if isinstance(value, str) else value.stem)
def test_names_and_options_exist(page: Path, line: str) -> None:
    words = shlex.split(PLACEHOLDER.sub(lambda found: found.group()[1:-1], line))[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    if command.name == "run" and "--server" in words:
        check_agent(words)
        return
    known = {name for option in command.params for name in [*option.opts, *option.secondary_opts]}
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known | {"--help"}]
    assert not unknown, f"{page.name}: {line}"


@pytest.mark.parametrize(("page", "line"), AGENTS, ids=lambda value: value if isinstance(value, str) else value.stem)
def test_the_agents_options_exist(page: Path, line: str) -> None:
    words = shlex.split(line.split("ofa-agent.pyz ")[1])
    if "--help" not in words:
        check_agent(words)


def test_there_are_commands_to_check() -> None:
    assert len(OURS) > 40
    assert len(AGENTS) >= 4
    with pytest.raises(SystemExit):
        check_agent(["--no-such-option"])
