"""What a bundle's JSON files must hold so that their figures can be recomputed: the fields that are read, their types
and ranges. They are checked here, once; whoever reads them afterwards takes them as given.

Files may hold more than that. What older versions did not write is not required.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic cannot take that of Python 3.11

from ofa_deploy.blocks import OpSpec
from ofa_deploy.documents.preprocessing_document import Framing
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.latency.table import block_key
from ofa_deploy.pixels import MODES

SHOWN = 10  # wrong fields of a file that are told


class Damaged(OfaDeployError):
    """A bundle's file lacks something, or holds something that it cannot hold."""


def _even(rows: list[list[Any]]) -> list[list[Any]]:
    if len({len(row) for row in rows}) > 1:
        raise ValueError("the rows are not of one length")
    return rows


Finite = Annotated[float, Field(allow_inf_nan=False)]
Ms = Annotated[float, Field(gt=1e-9, lt=1e9)]
Share = Annotated[float, Field(ge=0, lt=1e9)]
Count = Annotated[int, Field(ge=1)]
Statistic = Literal["p50", "p90", "p99"]
Timings = Annotated[list[Annotated[list[Ms], Field(min_length=1)]], Field(min_length=1), AfterValidator(_even)]
Logits = Annotated[list[Annotated[list[Finite], Field(min_length=1)]], Field(min_length=1), AfterValidator(_even)]


class _Budget(TypedDict):
    max_ms: Ms | None
    statistic: Statistic
    confidence: Annotated[float, Field(gt=0, lt=1)]


class _Target(TypedDict):
    batch: Count
    precision: Literal["fp32", "fp16", "bf16", "int8"]


class _Latency(TypedDict):
    predicted_ms: Ms | None
    measured_ms: dict[str, Any] | None
    session_std: NotRequired[Share]


class _Shown(TypedDict):
    role: str
    key: str


class _Finalist(TypedDict):
    arch: dict[str, Any]
    tuned: NotRequired[bool]


class _Parity(TypedDict):
    runtime: NotRequired[Literal["onnxruntime", "openvino"]]


class _Provenance(TypedDict):
    space: NotRequired[dict[str, Any] | None]
    target: NotRequired[dict[str, Any] | None]
    supernet_sha256: NotRequired[str | None]


class _Report(TypedDict):
    subnet: dict[str, Any]
    target: _Target
    budget: _Budget
    latency: _Latency
    networks: list[_Shown]
    blocks: list[Any]
    finalists: NotRequired[list[_Finalist]]
    parity: _Parity
    provenance: _Provenance
    preprocessing: NotRequired[dict[str, Any]]


def _block(spec: dict[str, Any]) -> dict[str, Any]:
    try:
        OpSpec.from_json(spec)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return spec


_Spec = Annotated[dict[str, Any], AfterValidator(_block)]


class _Row(TypedDict):
    key: str
    ops: list[str]
    p50: Ms
    p90: Ms
    p99: Ms
    n: int
    cov: Share
    se: Annotated[float, Field(ge=0)]  # of one or two rounds it is infinite
    measured_at: str
    flags: list[str]
    best: NotRequired[Annotated[float, Field(ge=0, lt=1e9)]]  # 0 for one that is not known
    best_se: NotRequired[Share]
    energy_mj: NotRequired[float | None]


class _TableRow(_Row):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]


class _Measurement(_Row):
    rounds: Annotated[list[Ms], Field(min_length=1)]
    timings: NotRequired[Timings]
    specs: NotRequired[list[_Spec]]


def _specified(table: dict[str, Any]) -> dict[str, Any]:
    """A table says of all of its blocks what they are, or of none, as those of earlier versions."""
    if "specs" in table:
        keys = {block_key(key) for part in ("rows", "networks") for row in table[part] for key in row["ops"]}
        if missing := keys - table["specs"].keys():
            raise ValueError(f"specs lacks {min(missing)}")
    return table


class _Table(TypedDict):
    schema: int
    device: str
    condition: dict[str, Any]
    rows: list[_TableRow]
    networks: list[_TableRow]
    specs: NotRequired[dict[str, _Spec]]
    sha256: str


class _Term(TypedDict):
    rows: Annotated[list[list[Finite]], AfterValidator(_even)]
    low: Finite
    high: Finite


class _Prior(TypedDict):
    mean: list[Finite]
    terms: list[_Term]
    noise: Annotated[list[Finite], Field(min_length=2, max_length=2)]


def _alike(blocks: dict[str, Any]) -> dict[str, Any]:
    count, prior = len(blocks["keys"]), blocks["prior"]
    rows = [row for term in prior["terms"] for row in term["rows"]]
    lengths = {len(values) for values in (blocks["origin"], prior["mean"], *rows)}
    if lengths - {count}:
        raise ValueError(f"{count} blocks have {sorted(lengths - {count})[0]} values")
    return blocks


class _Blocks(TypedDict):
    prior: _Prior
    keys: list[str]
    origin: list[str]
    devices: list[str]
    relative: bool
    level: Finite


def _ascending(curve: dict[str, Any]) -> dict[str, Any]:
    if not len(curve["ms"]) == len(curve["factor"]) == len(curve["unsure"]) > 0:
        raise ValueError("ms, factor and unsure are not of one length")
    if any(one >= other for one, other in pairwise(curve["ms"])):
        raise ValueError("ms does not ascend")
    return curve


class _Curve(TypedDict):
    ms: list[Ms]
    factor: list[Ms]
    unsure: list[Share]
    noise: Share


Curve = Annotated[_Curve, AfterValidator(_ascending)]


class _Model(TypedDict):
    table: Annotated[_Table, AfterValidator(_specified)]
    evidence: list[str]
    statistic: Statistic
    fit: NotRequired[int]
    blocks: NotRequired[Annotated[_Blocks, AfterValidator(_alike)] | None]
    now: NotRequired[Curve | None]


def _both_of_table(audited: dict[str, Any]) -> dict[str, Any]:
    if (audited["table_ms"] is None) != (audited["table_std_ms"] is None):
        raise ValueError("one of table_ms and table_std_ms is missing")
    return audited


class _Audited(TypedDict):
    key: str
    predicted_ms: Ms
    std_ms: Share
    table_ms: Ms | None
    table_std_ms: Share | None
    measured_ms: Ms
    halves_ms: Annotated[list[Ms], Field(min_length=2, max_length=2)]


class _Audit(TypedDict):
    n_fit: int
    networks: Annotated[list[Annotated[_Audited, AfterValidator(_both_of_table)]], Field(min_length=1)]


def _each_answered(test: dict[str, Any]) -> dict[str, Any]:
    if len({len(test[name]) for name in ("labels", "predicted", "torch") if name in test}) > 1:
        raise ValueError("there are not as many answers as labels")
    return test


class Test(TypedDict):
    """Labels of a split, and the classes that the file and the torch module found; of a folder of images ``files`` are
    their paths below it, and ``sha256`` the first 32 digits of their hashes."""

    labels: Annotated[list[int], Field(min_length=1)]
    predicted: list[int]
    torch: NotRequired[list[int]]
    files: NotRequired[list[str]]
    sha256: NotRequired[list[str]]


def _of_all(counted: dict[str, int]) -> dict[str, int]:
    if counted["correct"] > counted["n"]:
        raise ValueError("more answers are correct than there are")
    return counted


class _Counted(TypedDict):
    correct: Annotated[int, Field(ge=0)]
    n: Count


def _same_shape(logits: dict[str, Any]) -> dict[str, Any]:
    shapes = {(len(rows), len(rows[0])) for rows in logits.values()}
    if len(shapes) > 1:
        raise ValueError("torch and onnx have not as many logits")
    return logits


class _Logits(TypedDict):
    torch: Logits
    onnx: Logits


class _Evidence(TypedDict):
    measurement: _Measurement | None
    test: Annotated[Test, AfterValidator(_each_answered)] | None
    validation: NotRequired[dict[str, Annotated[_Counted, AfterValidator(_of_all)]]]
    samples: NotRequired[dict[str, int] | None]
    level: NotRequired[Curve | None]
    parity: Annotated[_Logits, AfterValidator(_same_shape)]
    latency_model: NotRequired[_Model | None]
    audit: NotRequired[_Audit | None]


def _decodable(how: Framing) -> Framing:
    if how["mode"] not in MODES.values():
        raise ValueError(f"mode is none of {', '.join(MODES.values())}")
    return how


DOCUMENTS: dict[str, TypeAdapter[Any]] = {
    "arch.json": TypeAdapter(dict[str, Any]),
    "report.json": TypeAdapter(_Report),
    "evidence.json": TypeAdapter(_Evidence),
    "preprocessing.json": TypeAdapter(Annotated[Framing, AfterValidator(_decodable)]),
}


def read_checked(folder: Path, name: str) -> Any:
    """One of a bundle's JSON files, whole.

    Raises:
        Damaged: it cannot be read, or a field that is needed is missing or wrong; names the first few.
    """
    try:
        content = json.loads((folder / name).read_bytes())
        DOCUMENTS[name].validate_python(content, strict=True)
    except ValidationError as error:
        raise Damaged("; ".join(f"{name}: {one}" for one in _told(error.errors()))) from error
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{name} cannot be read: {error}") from error
    return content


def _told(errors: Sequence[Any]) -> list[str]:
    lines = [f"{'.'.join(map(str, one['loc'])) or 'document'}: {one['msg']}" for one in errors]
    return lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
