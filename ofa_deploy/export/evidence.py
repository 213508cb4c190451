"""``evidence.json``: what of it must be there so that a report's figures can be recomputed, its types and ranges. It is
checked here, once; whoever reads it afterwards takes it as given.

The file may hold more than that. What older versions did not write is not required.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, NotRequired, TypeVar

from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic cannot take that of Python 3.11

from ofa_deploy.blocks import OpSpec
from ofa_deploy.documents.json_document import FreeObject
from ofa_deploy.errors import UsageError
from ofa_deploy.latency.table import block_key
from ofa_deploy.terms import Statistic

Item = TypeVar("Item")


def _even(rows: list[list[Item]]) -> list[list[Item]]:
    if len({len(row) for row in rows}) > 1:
        raise ValueError("the rows are not of one length")
    return rows


Finite = Annotated[float, Field(allow_inf_nan=False)]
Ms = Annotated[float, Field(gt=1e-9, lt=1e9)]
Share = Annotated[float, Field(ge=0, lt=1e9)]
Count = Annotated[int, Field(ge=1)]
Timings = Annotated[list[Annotated[list[Ms], Field(min_length=1)]], Field(min_length=1), AfterValidator(_even)]
Logits = Annotated[list[Annotated[list[Finite], Field(min_length=1)]], Field(min_length=1), AfterValidator(_even)]


def _block(spec: FreeObject) -> FreeObject:
    try:
        OpSpec.from_json(spec)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return spec


_Spec = Annotated[FreeObject, AfterValidator(_block)]


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


def _specified(table: _Table) -> _Table:
    """A table says of all of its blocks what they are, or of none, as those of earlier versions."""
    if "specs" in table:
        keys = {block_key(key) for row in [*table["rows"], *table["networks"]] for key in row["ops"]}
        if missing := keys - table["specs"].keys():
            raise ValueError(f"specs lacks {min(missing)}")
    return table


class _Table(TypedDict):
    schema: int
    device: str
    condition: FreeObject
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


def _alike(blocks: _Blocks) -> _Blocks:
    count, prior = len(blocks["keys"]), blocks["prior"]
    rows = [row for term in prior["terms"] for row in term["rows"]]
    lengths = {len(blocks["origin"]), len(prior["mean"]), *map(len, rows)}
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


def _ascending(curve: _Curve) -> _Curve:
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


def _both_of_table(audited: _Audited) -> _Audited:
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


def _each_answered(test: Test) -> Test:
    if len({len(test["labels"]), len(test["predicted"]), len(test.get("torch", test["labels"]))}) > 1:
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


def _of_all(counted: _Counted) -> _Counted:
    if counted["correct"] > counted["n"]:
        raise ValueError("more answers are correct than there are")
    return counted


class _Counted(TypedDict):
    correct: Annotated[int, Field(ge=0)]
    n: Count


def _same_shape(logits: _Logits) -> _Logits:
    if len({(len(rows), len(rows[0])) for rows in (logits["torch"], logits["onnx"])}) > 1:
        raise ValueError("torch and onnx have not as many logits")
    return logits


class _Logits(TypedDict):
    torch: Logits
    onnx: Logits


class _Timed(_Row):
    timings: Timings


def _each_counted(beside: _Beside) -> _Beside:
    if len(beside["networks"]) != len(beside["test"]):
        raise ValueError("there are not as many counts as networks")
    return beside


class _Beside(TypedDict):
    networks: list[_Timed]
    ours: _Timed
    test: list[Annotated[_Counted, AfterValidator(_of_all)]]


class Evidence(TypedDict):
    """The whole file."""

    measurement: _Measurement | None
    test: Annotated[Test, AfterValidator(_each_answered)] | None
    validation: NotRequired[dict[str, Annotated[_Counted, AfterValidator(_of_all)]]]
    samples: NotRequired[dict[str, int] | None]
    level: NotRequired[Curve | None]
    parity: Annotated[_Logits, AfterValidator(_same_shape)]
    latency_model: NotRequired[_Model | None]
    audit: NotRequired[_Audit | None]
    baselines: NotRequired[Annotated[_Beside, AfterValidator(_each_counted)]]
