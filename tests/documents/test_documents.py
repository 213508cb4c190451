"""Documents keep what they read, and read what is damaged."""

import pytest

from ofa_deploy.documents.audit_document import Audit, DeviceLevel, TimedNetwork
from ofa_deploy.documents.report_document import Budget, Latency, Measured, Report

JSON = {
    "schema": 1,
    "target": {"name": "bench", "batch": 1, "from a later version": [1]},
    "budget": {"max_ms": 2, "statistic": "p90"},
    "subnet": {"arch": {"depths": [1, 2], "width": 1.0}},
    "networks": [{"key": "a", "role": "audit", "measured_ms": 1.5}, {"key": "b", "role": "chosen", "table_ms": None}],
    "a later key": {"x": 1},
}


def test_what_is_read_is_written_again_with_its_kinds_of_numbers():
    written = Report.read(JSON).to_json()
    assert written == JSON
    assert type(written["budget"]["max_ms"]) is int
    assert type(written["subnet"]["arch"]["width"]) is float


@pytest.mark.parametrize("data", [None, [], "text", 3, {}])
def test_what_is_no_object_has_the_defaults(data):
    assert Report.read(data) == Report()


def test_wrong_values_have_their_defaults_and_are_told():
    damaged = {
        "budget": {"max_ms": "fast", "statistic": "p42", "confidence": 1.0},
        "latency": {"interval_ms": [1.0, None, "x", 2.0], "measured_ms": 5, "fits": 1},
        "networks": [3, {"key": 7, "measured_ms": True, "table_ms": 1e999}, None, {"key": "kept"}],
        "level": {"factor": 1.1, "reasons": "load"},
        "notes": None,
        "schema": "one",
    }
    report, wrong = Report.read_noting(damaged)
    assert report.budget == Budget()
    assert report.latency == Latency(interval_ms=[1.0, 2.0])
    assert report.networks == [TimedNetwork(), TimedNetwork(key="kept")]
    assert report.level == DeviceLevel(factor=1.1)
    assert report.notes == []
    assert set(wrong) == {
        *(("budget", name) for name in ("max_ms", "statistic", "confidence")),
        *(("latency", "interval_ms", place) for place in (1, 2)),
        *(("latency", name) for name in ("measured_ms", "fits")),
        *(("networks", place) for place in (0, 2)),
        *(("networks", 1, name) for name in ("key", "measured_ms", "table_ms")),
        *(("level", "reasons"), ("notes",), ("schema",)),
    }
    assert damaged["networks"][0] == 3, "what was read is not changed"


def test_leaves_are_what_was_set_by_dotted_paths():
    report = Report(
        latency=Latency(measured_ms=Measured(p50=1.0), interval_ms=[0.9, 1.1]),
        networks=[TimedNetwork(), TimedNetwork(std_ms=None)],
        audit=None,
    )
    assert dict(report.leaves()) == {
        "latency.measured_ms.p50": 1.0,
        "latency.interval_ms.0": 0.9,
        "latency.interval_ms.1": 1.1,
        "networks.1.std_ms": None,
        "audit": None,
    }


def test_a_report_shows_an_audit_without_its_networks():
    audit = Audit.read({"mape": 0.1, "target": "x", "networks": [{"key": "a"}], "facts": {"cpu": "y"}, "more": 1})
    assert audit.figures.to_json() == {"mape": 0.1, "target": "x", "more": 1}
