"""What every YAML document is made of: its base class, the values that several have, and how a file is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ofa_deploy.errors import UsageError

Positive = Annotated[int, Field(gt=0)]
Bound = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
ItemT = TypeVar("ItemT")
Some = Annotated[tuple[ItemT, ...], Field(min_length=1)]  # a list that cannot be empty


class Document(BaseModel):
    """Base of every document: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


DocumentT = TypeVar("DocumentT", bound=Document)


def read_document(
    model: type[DocumentT],
    source: str | Path | Mapping[str, Any],
    edit: Callable[[dict[str, Any]], dict[str, Any]] = lambda data: data,
) -> DocumentT:
    """Validate a YAML file, or a mapping that was read already, as a document.

    Args:
        edit: what is done to the content first; keys stay where they are.

    Raises:
        UsageError: the file is missing or not YAML, or a key is unknown or has a wrong value; names file, line, key.
    """
    if isinstance(source, Mapping):
        where, data, lines = model.__name__, dict(source), {}
    else:
        where, data, lines = str(source), *_read_yaml(Path(source))
    try:
        return model.model_validate(edit(data))
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        at = f"{where}:{line}" if (line := _nearest(lines, path)) else where
        known_types = {"extra_forbidden": "unknown key", "too_short": "the list is empty; give at least one value"}
        what = known_types.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise UsageError(f"{at}: {'.'.join(path) or 'document'}: {what}") from error


def _nearest(lines: Mapping[tuple[str, ...], int], path: tuple[str, ...]) -> int | None:
    """The line of the key where an error is, or of the innermost key around it. A path also names the kinds of
    documents that it leads through."""
    here: tuple[str, ...] = ()
    for part in path:
        here = (*here, part) if (*here, part) in lines else here
    return lines.get(here)


def line_of(source: str | Path | Mapping[str, Any], *key: str) -> str:
    """``FILE:LINE`` of a key of a document that was read; of a mapping that was no file, nothing."""
    return "" if isinstance(source, Mapping) else f"{source}:{_read_yaml(Path(source))[1][key]}"


def key_lines(path: Path) -> dict[tuple[str, ...], int]:
    """The line of every key of a YAML file.

    Raises:
        UsageError: the file is missing or not YAML.
    """
    return _read_yaml(path)[1]


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """A YAML file's mapping, and the line of every key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}") from error
    try:
        tree, data = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: a mapping of keys to values is expected")
    return data, dict(_key_lines(tree, ()))


def _key_lines(node: yaml.Node | None, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], int]]:
    found: list[tuple[tuple[str, ...], int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            found += [(here, key.start_mark.line + 1), *_key_lines(value, here)]
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            here = (*path, str(i))
            found += [(here, item.start_mark.line + 1), *_key_lines(item, here)]
    return found
