"""What JSON can hold: the type of values that are passed on as they came, and how records are read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias, TypeVar

JSON: TypeAlias = "Mapping[str, JSON] | Sequence[JSON] | str | int | float | bool | None"
RecordT = TypeVar("RecordT")


def objects(value: JSON) -> list[Mapping[str, JSON]]:
    """The objects in a list; none if it is not a list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def read_record(kind: type[RecordT], data: Mapping[str, Any], **more: object) -> RecordT:
    """A dataclass from an object that was written from one.

    Keys that this version does not know are left out, and a missing one is the field's default.

    Args:
        more: the fields that are no JSON.

    Raises:
        TypeError: a field without a default is missing.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # no type says that it is a dataclass
    return kind(**{name: value for name, value in data.items() if name in names}, **more)
