"""The base of the JSON documents that are written for people and programs to read: one class says what a document
holds, makes it, and reads it again."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from ofa_deploy.json_types import JSON

if TYPE_CHECKING:
    Free: TypeAlias = JSON
    FreeObject: TypeAlias = Mapping[str, JSON]
else:  # what is passed on is not looked into
    Free, FreeObject = Any, dict[str, Any]

Words = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[int, Strict()] | Annotated[float, Field(strict=True, allow_inf_nan=False)]
Place = tuple[int | str, ...]  # keys and positions that lead to a value


class Document(BaseModel):
    """A JSON object, or a part of one.

    Latencies are in ms; accuracies, shares and errors are fractions from 0 to 1; a key that ends in ``_pct`` is in
    percent. What is read again has a default in every field, since earlier versions wrote less; keys of later versions
    are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    @classmethod
    def read(cls, data: object) -> Self:
        """A document from JSON, however damaged: a value that cannot be what it should has its default."""
        return cls.read_noting(data)[0]

    @classmethod
    def read_noting(cls, data: object) -> tuple[Self, dict[Place, str]]:
        """The same, with what is wrong by where it lies."""
        try:
            return cls.model_validate(data if isinstance(data, dict) else {}), {}
        except ValidationError as error:
            wrong: dict[Place, str] = {}
            for one in error.errors():
                wrong.setdefault(_within(data, one["loc"]), one["msg"])
        made, more = cls.read_noting(_without(data, wrong))
        return made, {**more, **wrong}

    def to_json(self) -> dict[str, Any]:
        """The fields that it was made with, as a JSON object."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def says(self, name: str) -> bool:
        """Whether it was made with a field, be it with None.

        Raises:
            AttributeError: there is no such field.
        """
        if name not in type(self).model_fields:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return name in self.model_fields_set

    def leaves(self) -> Iterator[tuple[str, JSON]]:
        """Every value that it was made with, by its dotted path; places in lists are numbers."""
        for name in self.model_fields_set:
            yield from _leaves(name, getattr(self, name))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, JSON]]:
    if isinstance(value, Document):
        yield from ((f"{path}.{below}", leaf) for below, leaf in value.leaves())
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from _leaves(f"{path}.{place}", one)
    else:
        yield path, value


def _within(data: object, location: Place) -> Place:
    """The part of an error's location that leads through the data; what follows names alternatives of a type."""
    for length, key in enumerate(location):
        inside = key in data if isinstance(data, dict) else isinstance(data, list) and isinstance(key, int)
        if not inside:
            return location[:length]
        data = data[key]  # type: ignore[index]
    return location


def _without(data: object, paths: Collection[Place]) -> object:
    """The data without some values; the last of a list's go first, so that places stay what they are."""
    kept: Any = copy.deepcopy(data)
    for path in sorted(paths, key=lambda path: [(isinstance(key, str), key) for key in path], reverse=True):
        at = kept
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
    return kept
