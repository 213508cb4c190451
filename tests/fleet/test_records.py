from datetime import UTC, datetime, timedelta

import pytest

from ofa_deploy.fleet import Protocol
from ofa_deploy.fleet.records import make_records
from ofa_deploy.fleet.schemas import RunResult
from ofa_deploy.store import Run, RunItem

RUNTIME = {"runtime": "onnxruntime", "provider": "CPUExecutionProvider", "precision": "fp32", "batch": 1, "threads": 1}
SHA = "0" * 64
CLAIMED = datetime.now(UTC) - timedelta(minutes=10)


def moment(after_s):
    return (CLAIMED + timedelta(seconds=after_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def measured(
    timings,
    sentinel,
    reference=None,
    began=None,
    ended=None,
    simulated=False,
    told=False,
    spent=None,
    beside=(),
    **settings,
):
    """Record of one item ``i`` from its timings and the sentinel's level in every round; of ``beside`` other items."""
    runtime = {**RUNTIME, "runtime": "simulated"} if simulated else RUNTIME
    payload = {"kind": "op", "key": "k", "ops": ["k"], "specs": [], "arch": None}
    run = Run(
        run="r",
        attempt=1,
        state="running",
        device="d",
        claimed_at=CLAIMED.isoformat(),
        job="j",
        queue="",
        chunk=0,
        run_s=3600.0,
        request={"runtime": runtime, "settings": settings, "sentinels": []},
        reference=reference,
        items=tuple(RunItem(name, 0, SHA, payload) for name in ("i", *(item["item"] for item in beside))),
    )
    result = RunResult(
        condition={**runtime, "runtime_version": "1", "simulated": told},
        facts={},
        settings=Protocol(**settings),
        started_at=began or moment(60),
        finished_at=ended or moment(120),
        stopped="settled",
        sentinel={"blob": SHA, "burst": 1, "visits": [[[level, level]] * 3 for level in sentinel]},
        items=[{"item": "i", "burst": 1, "timings": timings, **(spent or {})}, *beside],
    )
    records, errors, level = make_records(run, result)
    assert errors == {}
    return records["i"], level


def test_a_calm_measurement_has_no_flags():
    record, level = measured([[2.0, 2.2]] * 12, [1.0] * 12)
    assert (record.p50, record.flags, record.scale, record.excluded) == (2.1, [], 1.0, [])
    assert (record.sentinel_ms, level.sentinel_ms) == (1.0, 1.0)
    assert (record.device, record.run, record.item, record.key) == ("d", "r", "i", "k")
    assert (record.started_at, record.measured_at) == (moment(60), moment(120))


def test_slow_rounds_are_kept_apart():
    record, _ = measured([[2.0, 2.0]] * 9 + [[3.0, 3.0]] * 3, [1.0] * 9 + [1.5] * 3)
    assert record.p50 == 2.0
    assert record.excluded == [[3.0, 3.0]] * 3
    assert record.n == 18
    assert record.flags == ["short"]


def test_throttled_and_noisy_rows_are_marked():
    record, _ = measured([[2.0, 2.0]] * 5 + [[3.0, 3.0]] * 7, [1.0] * 5 + [1.5] * 7)
    assert record.flags == ["throttled"]
    assert record.p50 == 3.0
    record, _ = measured([[2.0, 2.0], [2.5, 2.5], [3.0, 3.0]] * 4, [1.0] * 12)
    assert record.flags == ["noisy"]


def test_a_later_chunk_is_put_on_the_first_ones_level_beyond_noise_only():
    first = {"blob": SHA, "sentinel_ms": 1.0, "se": 0.01, "best_ms": 1.125, "best_se": 0.01}
    record, _ = measured([[2.0, 2.0]] * 12, [1.25] * 12, first)
    assert record.scale == pytest.approx(0.8)
    assert record.p50 == record.timings[0][0] == record.rounds[0] == pytest.approx(1.6)
    assert record.sentinel_ms == 1.25
    record, _ = measured([[2.0, 2.0]] * 12, [1.015] * 12, first)
    assert (record.scale, record.p50) == (1.0, 2.0)
    record, _ = measured([[2.0, 2.0]] * 12, [1.25] * 12, {**first, "blob": "1" * 64})
    assert record.scale == 1.0


@pytest.mark.parametrize(
    ("began", "ended", "stored"),
    [
        ("1970-01-01T00:00:10Z", "1970-01-01T00:01:10Z", (0, 60)),  # a board whose clock starts anew at every boot
        (moment(-3600), moment(-3540), (0, 60)),
        (moment(-2), moment(30), (-2, 30)),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", (0, 600)),
        (moment(60), moment(30), (0, 600)),
        ("1970-01-01T00:00:10Z", moment(60), (0, 600)),  # it learnt the time meanwhile
    ],
    ids=["boot", "an hour ago", "right", "all times", "backwards", "learnt"],
)
def test_a_clock_that_is_wrong_is_replaced_by_the_servers(began, ended, stored):
    record, _ = measured([[2.0, 2.0]] * 12, [1.0] * 12, began=began, ended=ended)
    for name, after in zip(("started_at", "measured_at"), stored, strict=True):
        found = (datetime.fromisoformat(getattr(record, name)) - CLAIMED).total_seconds()
        wanted = (datetime.now(UTC) - CLAIMED).total_seconds() if after == 600 else after  # "now" is later by now
        assert found == pytest.approx(wanted, abs=5), name


@pytest.mark.parametrize("told", [True, False])
def test_the_job_says_whether_a_record_is_simulated(told):
    record, _ = measured([[2.0, 2.0]] * 12, [1.0] * 12, simulated=True, told=told)
    assert record.simulated is True
    assert record.measured_at == "1970-01-01T00:00:00Z", "what it says holds at every time"


def test_host_and_agent_agree_on_the_settings():
    from device_agents.protocol import Settings

    assert Protocol().model_dump() == Settings()._asdict()


def test_what_a_switch_costs_is_learned_from_items_that_mostly_keep_their_core():
    small = {"item": "small", "burst": 10, "timings": [[0.1, 0.1, 0.5]] * 12}
    small |= {"cpu": [[0.1, 0.1, 0.12]] * 12, "switches": [[0, 0, 1]] * 12}
    large = {"cpu": [[10.4, 10.4]] * 12, "switches": [[2, 2]] * 12}
    alone, _ = measured([[18.0, 18.0]] * 12, [1.0] * 12, spent=large)
    record, _ = measured([[18.0, 18.0]] * 12, [1.0] * 12, spent=large, beside=[small])
    assert (alone.best, record.best) == (pytest.approx(10.4), pytest.approx(10.0))
    assert (record.p50, record.cpu[0]) == (18.0, [10.4, 10.4]), "what was measured stays as it was"
