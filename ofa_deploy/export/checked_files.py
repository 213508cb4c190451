"""A bundle's JSON files as ``verify`` reads them: whole, or with what is wrong about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from ofa_deploy.documents.json_document import Place
from ofa_deploy.documents.preprocessing_document import Framing
from ofa_deploy.documents.report_document import Report
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export.evidence import Evidence
from ofa_deploy.json_types import JSON
from ofa_deploy.pixels import MODES

SHOWN = 10  # wrong fields of a file that are told
# What figures are recomputed with, not from evidence alone. The stars are places in lists.
NEEDED = (
    *("subnet", "target", "target.batch", "target.precision"),
    *("budget", "budget.max_ms", "budget.statistic", "budget.confidence"),
    *("latency", "latency.predicted_ms", "latency.measured_ms", "networks", "networks.*.role", "networks.*.key"),
    *("blocks", "finalists.*.arch", "parity", "provenance"),
)
# And what may be missing in reports of earlier versions, but must not be wrong.
OPTIONAL = (
    *("latency.session_std", "finalists", "parity.runtime", "preprocessing"),
    *("provenance.space", "provenance.target", "provenance.supernet_sha256"),
)
Read = TypeVar("Read")


class Damaged(OfaDeployError):
    """A bundle's file lacks something, or holds something that it cannot hold."""


def read_report(folder: Path) -> tuple[Report, JSON]:
    """``report.json``, as a record and as it is.

    Raises:
        Damaged: it cannot be read, or a field that is needed is missing or wrong; names the first few.
    """
    content = _content(folder, "report.json")
    report, wrong = Report.read_noting(content)
    told = {place: message for place, message in wrong.items() if _concerns(place)}
    for pattern in NEEDED:
        for place in _missing(content, pattern.split(".")):
            if not any(place[: len(other)] == other for other in told):
                told[place] = "Field required"
    if not isinstance(content, dict):
        told = {(): "Input should be a valid dictionary"}
    if told:
        raise Damaged(_told("report.json", told.items()))
    return report, content


def read_evidence(folder: Path) -> Evidence:
    """``evidence.json``.

    Raises:
        Damaged: as ``read_report``.
    """
    return _checked(folder, "evidence.json", EVIDENCE)


def read_framing(folder: Path) -> Framing:
    """``preprocessing.json``: what of it ``pixels`` needs, and the rest of it as it is.

    Raises:
        Damaged: as ``read_report``.
    """
    return _checked(folder, "preprocessing.json", FRAMING)


def read_named_arch(folder: Path) -> dict[str, JSON]:
    """``arch.json``.

    Raises:
        Damaged: as ``read_report``.
    """
    return _checked(folder, "arch.json", ARCH)


def _decodable(how: Framing) -> Framing:
    if how["mode"] not in MODES.values():
        raise ValueError(f"mode is none of {', '.join(MODES.values())}")
    return how


EVIDENCE: TypeAdapter[Evidence] = TypeAdapter(Evidence)
FRAMING: TypeAdapter[Framing] = TypeAdapter(Annotated[Framing, AfterValidator(_decodable)])
ARCH: TypeAdapter[dict[str, JSON]] = TypeAdapter(dict[str, Any])


def _checked(folder: Path, name: str, adapter: TypeAdapter[Read]) -> Read:
    """A file's content itself, not pydantic's copy, which has no more than the fields that are checked."""
    content: Any = _content(folder, name)
    try:
        adapter.validate_python(content, strict=True)
    except ValidationError as error:
        raise Damaged(_told(name, ((one["loc"], one["msg"]) for one in error.errors()))) from error
    return content


def _content(folder: Path, name: str) -> JSON:
    try:
        return json.loads((folder / name).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{name} cannot be read: {error}") from error


def _concerns(place: Place) -> bool:
    """Whether a wrong value is, or holds, or lies in one that is needed."""
    path = ["*" if isinstance(key, int) else key for key in place]
    patterns = [pattern.split(".") for pattern in (*NEEDED, *OPTIONAL)]
    return any(path[: len(pattern)] == pattern[: len(path)] for pattern in patterns)


def _missing(content: JSON, pattern: list[str], above: Place = ()) -> Iterator[Place]:
    """Places at which the last key of a pattern is not there, though what should hold it is."""
    key, *below = pattern
    if key == "*":
        for place, one in enumerate(content if isinstance(content, list) else ()):
            yield from _missing(one, below, (*above, place))
    elif isinstance(content, Mapping):
        if key not in content:
            yield from () if below else ((*above, key),)
        elif below:
            yield from _missing(content[key], below, (*above, key))


def _told(name: str, wrong: Iterable[tuple[Place, str]]) -> str:
    lines = [f"{name}: {'.'.join(map(str, place)) or 'document'}: {message}" for place, message in wrong]
    return "; ".join(lines[:SHOWN] + ([f"{name}: and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []))
