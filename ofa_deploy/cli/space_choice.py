"""`space compare` and `space suggest`: the search space for a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ofa_deploy.cli.options import (
    BUDGET,
    MEASURING,
    SEARCH,
    SUBJECT,
    TRAINING,
    command,
    json_option,
    option,
    output_option,
    term_option,
)
from ofa_deploy.cli.output import emit, picture, progress, shout
from ofa_deploy.cli.precision_option import precision_option


def numbers(_: click.Context, __: click.Parameter, text: str) -> tuple[float, ...]:
    """Budgets from a list such as ``0.1,0.2``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"--max-ms {text}: give numbers of milliseconds, such as 0.1 or 0.05,0.1") from None


budgets_option = option(
    "--max-ms",
    "budgets",
    required=True,
    metavar="MS[,MS…]",
    callback=numbers,
    group=BUDGET,
    help="Latency budget in milliseconds, or several with commas between them.",
)


@command("compare", first=("target", "budgets", "trained", "output", "as_json"))
@click.argument("names", nargs=-1, required=True, metavar="SPACE…")
@option("--target", default="local", show_default=True, group=BUDGET, help="Device that must meet the budget.")
@budgets_option
@term_option("statistic", BUDGET)
@term_option("confidence", BUDGET)
@precision_option
@option(
    "--train",
    "trained",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    group=TRAINING,
    help="Number of networks of each space and budget to train alone.",
)
@option(
    "--epochs",
    type=click.IntRange(1),
    group=TRAINING,
    help="Epochs of each training.  [default: 1 on Fashion-MNIST, 10 on the digits, a quarter of the recipe's]",
)
@option(
    "-c",
    "--config",
    "recipe",
    metavar="FILE",
    group=TRAINING,
    help="Training recipe whose images and settings count.  [default: Fashion-MNIST if it is here, or the digits]",
)
@option(
    "--no-profile",
    is_flag=True,
    group=MEASURING,
    help="Fail if the target's latency table lacks blocks, instead of measuring them first.",
)
@option("--seed", default=0, show_default=True, group=SEARCH, help="Random seed of the choice of networks.")
@output_option("File to write: .html for a page, .svg for a plot, .json for the figures.", callback=picture)
@json_option
@click.pass_obj
def compare(
    workspace: Path | None,
    names: tuple[str, ...],
    target: str,
    budgets: tuple[float, ...],
    statistic: str,
    confidence: float,
    precision: str | None,
    trained: int,
    epochs: int | None,
    recipe: str | None,
    no_profile: bool,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare search spaces on a device, before anything is trained.

    SPACE is a preset or a YAML file. The command measures the blocks that the target's latency table lacks. It then
    draws random networks of each space and compares those that use the budget: their multiply-accumulates and
    parameters, and zero-cost proxies on a batch of images. Sizes are a hint only: different blocks make different
    use of a multiply-accumulate. --train N trains N of these networks of each space and budget for a few epochs.

    A second run repeats no measurement and no training.

    \b
    Examples:
      ofa-deploy space compare small_28 resnet_28 --max-ms 0.1
      ofa-deploy space compare small_28 mine.yaml --max-ms 0.05,0.1 --train 3
    """
    from ofa_deploy.api.space_study import compare_spaces

    with progress() as tell:
        found = compare_spaces(
            names,
            target,
            max_ms=budgets,
            train=trained,
            epochs=epochs,
            recipe=recipe,
            statistic=statistic,
            confidence=confidence,
            precision=precision,
            profile=not no_profile,
            seed=seed,
            workspace=workspace,
            progress=tell,
        )
    if output is not None:
        found.save(output)
    if as_json:
        emit(found.answer)
        return
    for line in _lines(found.answer):
        click.echo(line)
    if output is not None:
        click.echo(str(output))


def _lines(answer: dict[str, Any]) -> list[str]:
    """A table of all entries, what its columns are of, and a verdict for each budget."""
    from ofa_deploy.documents.spaces_document import SpacesCompared
    from ofa_deploy.report.spaces_page import fit_words, space_rows

    read = SpacesCompared.read(answer)
    header, *rows = space_rows(read)
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    table = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    verdicts = [f"{one['budget_ms']:g} ms: {one['text']}" for one in answer["verdicts"]]
    first, prefix = table[0], shout(answer["simulated"])
    return [f"{prefix}{answer['target']}, {answer['statistic']}", first, *table[1:], fit_words(read), *verdicts]


def shape(_: click.Context, __: click.Parameter, text: str) -> tuple[int, int, int]:
    """Channels, height and width from a text such as ``1x28x28``."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.UsageError(f"--input {text}: give channels, height and width, such as 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width


@command("suggest")
@option("--target", default="local", show_default=True, group=BUDGET, help="Device that must meet the budget.")
@option("--max-ms", type=float, required=True, group=BUDGET, help="Latency budget in milliseconds.")
@option(
    "--input",
    "image",
    default="1x28x28",
    show_default=True,
    metavar="CxHxW",
    callback=shape,
    group=SUBJECT,
    help="Channels, height and width of the images.",
)
@option("--classes", type=click.IntRange(2), default=10, show_default=True, group=SUBJECT, help="Number of classes.")
@precision_option
@output_option("YAML file to write; its name becomes the space's.  [default: print it]")
@json_option
@click.pass_obj
def suggest(
    workspace: Path | None,
    target: str,
    max_ms: float,
    image: tuple[int, int, int],
    classes: int,
    precision: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compose a search space of the blocks that a device runs best.

    The command measures a small grid of blocks on the target: kinds, widths and kernels at the shape of each stage. A
    stage gets the kinds with the most multiply-accumulates per millisecond among blocks that run in its share of the
    budget, and widths, depths, kernels and expand ratios to choose from. The YAML file tells the measured rates.

    \b
    Example:
      ofa-deploy space suggest --max-ms 0.1 --input 1x28x28 -o space.yaml
    """
    from ofa_deploy.api.space_study import suggest_space

    if output is not None and output.suffix not in (".yaml", ".yml"):
        raise click.UsageError(f"-o {output}: the file name must end in .yaml, so that commands take it as a space")
    with progress() as tell:
        found = suggest_space(
            target,
            max_ms=max_ms,
            image=image,
            classes=classes,
            name=output.stem if output else "suggested",
            precision=precision,
            output=output,
            workspace=workspace,
            progress=tell,
        )
    if as_json:
        emit({**found.to_json(), "file": str(output) if output else None})
        return
    if output is None:
        click.echo(found.text, nl=False)
        return
    range_ms = f"{found.fastest_ms:.3g} to {found.largest_ms:.3g} ms"
    click.echo(f"{shout(found.simulated)}{found.space.size:,} networks, predicted {range_ms}")
    line = f"ofa-deploy space compare {output} small_28 --target {target} --max-ms {max_ms:g}"
    click.echo(f"{output}; compare it with a preset: {line}")
