"""The one place where a measurement's JSON is read and written."""

import json
from typing import Any

import pytest

from ofa_deploy.errors import UsageError
from ofa_deploy.latency import Measurement, Row

OLD: dict[str, Any] = {  # of a version without an undisturbed latency, energy and processor time
    "device": "d",
    "kind": "op",
    "key": "stem-16x16-c1-m0-o8-k3-s2-hswish",
    "ops": ["stem-16x16-c1-m0-o8-k3-s2-hswish"],
    "arch": None,
    "condition": {"runtime": "onnxruntime", "threads": 1},
    "p50": 1.5,
    "p90": 1.75,
    "p99": 2.0,
    "n": 72,
    "cov": 0.02,
    "se": 0.01,
    "flags": ["noisy"],
    "measured_at": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"energy_mj": None, "id": 7, "facts": {"cpu": "x", "load": [0, 1]}},
        {"se": float("inf"), "timings": [[1.5, 1.25]], "switches": [[0, 3]], "details": {"layers": [1, None, "ü"]}},
        {"added_later": {"by": "a newer version"}},
    ],
    ids=["old", "nulls", "rounds", "newer"],
)
def test_what_was_read_is_written_to_the_byte(more: dict[str, Any]) -> None:
    text = json.dumps({**OLD, **more}, sort_keys=True)
    read = Measurement.from_json(json.loads(text))
    assert json.dumps(read.to_json(), sort_keys=True) == text
    assert json.dumps(read.without("id").to_json(), sort_keys=True) == json.dumps(
        {name: value for name, value in json.loads(text).items() if name != "id"}, sort_keys=True
    )


def test_a_record_of_an_earlier_version_is_a_row() -> None:
    row = Row.of(Measurement.from_json(OLD))
    assert (row.best, row.best_se, row.energy_mj) == (1.5, 0.01, None), "its median stands for the undisturbed latency"
    assert Row.of(Measurement.from_json({**OLD, "best": 1.0})).best == 1.5, "an older protocol's best is another"
    assert Row.of(Measurement.from_json({**OLD, "best": 1.25, "best_se": 0.02})).best == 1.25
    assert row.block.kind == "stem"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("p50", "fast", "p50"), ("kind", "cell", "kind"), ("timings", [["soon"]], "timings.0.0"), ("key", None, "key")],
)
def test_a_damaged_record_is_named(name: str, value: object, says: str) -> None:
    with pytest.raises(UsageError, match=rf"is damaged: {says}: "):
        Measurement.from_json({**OLD, name: value})
    with pytest.raises(UsageError, match="is damaged: ops: Field required"):
        Measurement.from_json({key: value for key, value in OLD.items() if key != "ops"})


def test_a_record_says_what_each_of_its_blocks_is_or_of_none() -> None:
    with pytest.raises(UsageError, match="has 1 blocks and 2 specs"):
        Row.of(
            Measurement.from_json(
                {**OLD, "specs": 2 * [{"kind": "stem", "h": 16, "w": 16, "cin": 1, "mid": 0, "cout": 8}]}
            )
        )
