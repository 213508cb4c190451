"""What rows were measured under. Rows of different conditions never mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, TypedDict, cast


class Condition(TypedDict, total=False):
    """A condition, as it is stored and sent: earlier versions wrote fewer keys, imported tables know less.

    Attributes:
        runtime, runtime_version, provider: what executed the model.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        batch, threads: counts; ``unknown`` of imported tables.
        simulated: whether the numbers come from a simulation.
        power_mode: of the device, by its own name.
        per_resolution: whether a block has a row for every resolution of the network around it, as some published
            tables have.
        statistic: what the single value of a row is, where a table came with one.
    """

    runtime: str
    runtime_version: str
    provider: str
    precision: str
    batch: int | str
    threads: int | str
    simulated: bool
    power_mode: str
    per_resolution: bool
    statistic: str


if TYPE_CHECKING:
    StoredCondition: TypeAlias = Condition
else:  # a record keeps what it came with, in its order
    StoredCondition = dict[str, object]

ABSENT = {"power_mode": "unknown"}  # what it means where a condition lacks a key that is younger than its record


def full_condition(condition: Mapping[str, object]) -> Condition:
    """A condition with all of its keys, however old the record is."""
    full = {**condition, **{key: condition.get(key, meant) for key, meant in ABSENT.items()}}
    return cast("Condition", full)


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """In what two conditions differ: by key, the value of each; None where it has none."""
    first: Mapping[str, object] = full_condition(one)
    second: Mapping[str, object] = full_condition(other)
    return {key: (first.get(key), second.get(key)) for key in {**first, **second} if first.get(key) != second.get(key)}
