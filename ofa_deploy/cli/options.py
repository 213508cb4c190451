"""Options as `--help` shows them: in groups, where a command has many, with those that most people need first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ofa_deploy.terms import TERMS

FEW = 8  # a command with no more options than this shows them in one list

MOST_USED = "Most used options"
BUDGET = "Target and budget"
SUBJECT = "Supernet and search space"
SEARCH = "Search"
MEASURING = "Measuring"
FINETUNING = "Fine-tuning"
TRAINING = "Short trainings"
CELLS = "Networks of cells (--family darts)"
RANKING = "Audit of the accuracy ranking (--ranking)"
GRID = "Grid search (--grid)"
NETWORK = "Address and encryption"
OUTPUT = "Output"
OTHER = "Other options"
GROUPS = (
    MOST_USED,
    BUDGET,
    SUBJECT,
    SEARCH,
    MEASURING,
    FINETUNING,
    TRAINING,
    CELLS,
    RANKING,
    GRID,
    NETWORK,
    OUTPUT,
    OTHER,
)

PLACEHOLDERS: dict[type[click.ParamType], str] = {
    click.IntRange: "N",
    click.FloatRange: "NUMBER",
    type(click.INT): "N",
    type(click.FLOAT): "NUMBER",
    type(click.STRING): "NAME",
}


class Option(click.Option):
    """An option that belongs to a group.

    Attributes:
        group: the heading under which `--help` lists it.
    """

    def __init__(self, *arguments: Any, group: str = OTHER, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group

    def make_metavar(self, ctx: click.Context) -> str:
        """What stands for the value: shorter than click's INTEGER RANGE."""
        return self.metavar or PLACEHOLDERS.get(type(self.type)) or super().make_metavar(ctx)

    def get_help_extra(self, ctx: click.Context) -> Any:
        """The default and the range, but for a range that only says what any reader expects: a positive number."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.type, (click.IntRange, click.FloatRange)) and self.type.max is None:
            extra.pop("range", None)
        return extra


class Command(click.Command):
    """A command whose `--help` groups its options.

    Attributes:
        first: names of the options that most people need; they come before all others.
    """

    def __init__(self, *arguments: Any, first: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.first = first

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list for each group."""
        options = [o for o in self.get_params(ctx) if isinstance(o, click.Option) and not o.hidden]
        if len(options) <= FEW + 1:  # with --help
            super().format_options(ctx, formatter)
            return
        for title in GROUPS:
            if rows := [option.get_help_record(ctx) for option in self._in_group(title, options)]:
                with formatter.section(title):
                    formatter.write_dl([row for row in rows if row])

    def _in_group(self, title: str, options: list[click.Option]) -> list[click.Option]:
        if title == MOST_USED:
            return sorted((o for o in options if o.name in self.first), key=lambda o: self.first.index(o.name or ""))
        return [o for o in options if o.name not in self.first and getattr(o, "group", OTHER) == title]


def option(*names: str, group: str = OTHER, **settings: Any) -> Callable[[Any], Any]:
    """``click.option`` with the group under which `--help` shows it."""
    return click.option(*names, cls=Option, group=group, **settings)


def command(name: str | None = None, first: tuple[str, ...] = (), **settings: Any) -> Callable[[Any], Any]:
    """``click.command`` whose `--help` shows the options ``first`` before the groups of the others."""
    return click.command(name, cls=Command, first=first, **settings)


def gathered(
    argument: str, options: Sequence[Callable[[Any], Any]], make: Callable[[dict[str, Any]], Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add options to a command, which gets them as one argument.

    Args:
        argument: its name.
        options: in the order in which `--help` lists them.
        make: from the options' values, by name, to the argument's.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        names: list[str] = []

        @wraps(command)
        def collected(*arguments: Any, **values: Any) -> Any:
            made = make({name: values.pop(name) for name in names})
            return command(*arguments, **{argument: made}, **values)

        others, whole = parameters(command), collected
        for one in reversed(options):
            whole = one(whole)
        names += [one.name for one in parameters(whole) if one.expose_value and one.name and one not in others]
        return whole

    return add


def parameters(command: Callable[..., Any]) -> list[click.Parameter]:
    """The options and arguments that were added to a command's function so far."""
    return [*getattr(command, "__click_params__", ())]


def term_option(name: str, group: str, meaning: str | None = None) -> Callable[[Any], Any]:
    """The option of a term that can be asked for; with a ``meaning`` of its own for `--help`."""
    term = TERMS[name]
    ranges: dict[type, click.ParamType] = {int: click.IntRange(min=term.least), float: click.FLOAT, str: click.STRING}
    settings: dict[str, Any] = {"type": click.Choice(term.choices) if term.choices else ranges.get(term.kind)}
    if term.kind is bool:
        settings = {"is_flag": True}
    elif term.default is not None:
        settings |= {"default": term.default, "show_default": True}
    return option(f"--{name.replace('_', '-')}", group=group, help=meaning or term.meaning, **settings)


def output_option(text: str, **settings: Any) -> Callable[[Any], Any]:
    """``-o``: where a command writes."""
    settings = {"type": click.Path(path_type=Path), "group": OUTPUT, "help": text, **settings}
    return option("-o", "--output", **settings)


def space_option(default: str) -> Callable[[Any], Any]:
    """``--space`` of a command that otherwise takes another one, which ``default`` names."""
    text = f"Search space: preset or YAML file.  [default: {default}]"
    return option("--space", "space_name", group=SUBJECT, help=text)


def supernet_option(group: str = SUBJECT) -> Callable[[Any], Any]:
    """``--supernet``, as every command that works on a supernet has it."""
    text = "Supernet's file or folder.  [default: the newest in the workspace, or the one in the package]"
    return option("--supernet", type=click.Path(path_type=Path), group=group, help=text)


now_option = option(
    "--now",
    is_flag=True,
    group=BUDGET,
    help="Measure for two seconds how fast the device is now, and predict for now.",
)


json_option = option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print one JSON document.")
