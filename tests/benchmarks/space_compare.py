"""Whether the order that `space compare` gives without training is the order that trained networks give.

    python tests/benchmarks/space_compare.py [SPACE…] [--max-ms 0.1] [--train 3] [--epochs 1] [--json]

Compares the spaces on this machine with ONNX Runtime and with OpenVINO, and trains networks that use each budget. For
every two spaces whose accuracies differ by more than chance explains, each column of the comparison orders them rightly
or not. Takes hours; the workspace keeps measurements and trainings, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import combinations
from math import hypot
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ofa_deploy import compare_spaces
from ofa_deploy.deploy.space_verdict import accuracy
from ofa_deploy.intervals import Z95

SPACES = ("tiny_16", "small_28", "resnet_28")
OPENVINO = "name: openvino_here\ndescription: this machine\nruntime: openvino\nprovider: CPU\nloopback: true\n"
Entry = dict[str, Any]


def main() -> None:
    """Compare on both devices, and print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spaces", nargs="*", default=SPACES)
    parser.add_argument("--max-ms", type=float, nargs="+", default=[0.1])
    parser.add_argument("--train", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workspace", type=Path, help="keeps measurements and trainings  [default: .ofa here]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        profile = Path(folder) / "openvino_here.yaml"
        profile.write_text(OPENVINO)
        answers = [
            compare_spaces(
                options.spaces,
                target,
                max_ms=options.max_ms,
                train=options.train,
                epochs=options.epochs,
                workspace=options.workspace,
                progress=lambda what, numbers: print(what, numbers, file=sys.stderr, flush=True),
            ).answer
            for target in ("local", str(profile))
        ]
    rows = [row for answer in answers for row in judged(answer)]
    answer = {"comparisons": answers, "pairs": rows, "agreement": agreement(rows)}
    print(json.dumps(answer, indent=2) if options.json else table(answer))


def judged(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every two spaces at every budget: by how much the first is more accurate, and what each column says of it."""
    for verdict in answer["verdicts"]:
        entries = [e for e in answer["spaces"] if e["budget_ms"] == verdict["budget_ms"] and e["trained"]]
        for one, other in combinations(entries, 2):
            (mean, error), (second, second_error) = accuracy(one), accuracy(other)
            difference, chance = mean - second, Z95 * hypot(error, second_error)
            columns = {name: value - columns_of(other)[name] for name, value in columns_of(one).items()}
            yield {
                "target": answer["target"],
                "budget_ms": verdict["budget_ms"],
                "spaces": [one["name"], other["name"]],
                "difference": difference,
                "chance": chance,
                "clear": abs(difference) > chance,
                "right": {name: value * difference > 0 for name, value in columns.items()},
            }


def columns_of(entry: Entry) -> dict[str, float]:
    """What a comparison says of a space before anything is trained, by name."""
    sizes = {f"{what} {share}": entry[what][share] for what in ("macs", "params") for share in ("p50", "p90")}
    return {**sizes, **{name: scores["p50"] for name, scores in entry["proxy"].items()}}


def agreement(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many pairs each column orders rightly, of those that differ clearly."""
    clear = [row for row in rows if row["clear"]]
    names = rows[0]["right"] if rows else ()
    return {"pairs": len(rows), "clear": len(clear), **{name: sum(r["right"][name] for r in clear) for name in names}}


def table(answer: dict[str, Any]) -> str:
    """For people, as Markdown."""
    lines = ["| device | budget | spaces | difference of the accuracies | 95 % |", "|---|---|---|---|---|"]
    for row in answer["pairs"]:
        first, second = row["spaces"]
        values = f"{100 * row['difference']:+.2f} % | ±{100 * row['chance']:.2f}"
        lines.append(f"| {row['target']} | {row['budget_ms']:g} ms | {first}, {second} | {values} |")
    counts = dict(answer["agreement"])
    total, clear = counts.pop("pairs"), counts.pop("clear")
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    return "\n".join([*lines, "", f"{clear} of {total} pairs differ clearly; of these are ordered rightly by: {said}"])


if __name__ == "__main__":
    main()
