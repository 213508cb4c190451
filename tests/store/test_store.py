import threading

import pytest
from sqlalchemy import text

from ofa_deploy.store import condition_hash
from ofa_deploy.store.database import writing
from ofa_deploy.store.schema import MeasurementRow


def record(key="k", run=None, item=None, **changes):
    base = {"device": "local", "kind": "op", "key": key, "condition": {"threads": 1}, "p50": 1.5, "rounds": [1.0, 2.0]}
    return {**base, "measured_at": "2025-01-01T00:00:00Z", "run": run, "item": item, **changes}


def test_measurements_come_back_as_they_went_in_oldest_first(store):
    records = [record("b"), record("a"), record("c", nested={"x": [1, None, "ü"]})]
    store.add_measurements(records)
    found = store.measurements("local")
    assert [{k: v for k, v in r.items() if k != "id"} for r in found] == records
    assert [r["id"] for r in found] == sorted(r["id"] for r in found)


def test_measurements_of_other_devices_conditions_and_keys_stay_out(store):
    store.add_measurements(
        [record("a"), record("b"), record("a", condition={"threads": 2}), record("a", device="phone")]
    )
    assert len(store.measurements("local")) == 3
    assert [r["key"] for r in store.measurements("local", {"threads": 1}, ["a"])] == ["a"]
    assert store.measurements("local", {"threads": 3}) == []
    assert store.measurements("local", keys=[]) == []


def test_many_keys(store):
    store.add_measurements([record(f"k{i}") for i in range(50)])
    assert len(store.measurements("local", keys=[f"k{i}" for i in range(40_000)])) == 50


def test_a_record_of_the_same_run_and_item_is_stored_once(store):
    for _ in range(2):
        store.add_measurements([record("a", "run", "1"), record("b", "run", "2")])
    store.add_measurements([record("a", "other", "1")])
    assert [r["key"] for r in store.measurements("local")] == ["a", "b", "a"]


def test_what_a_run_says_of_its_device_is_stored_once_and_older_records_are_read(store):
    facts = {"cpu": "x" * 1000}
    older = record("old", "old run", "0", facts={"cpu": "y"})
    row = {**{name: older[name] for name in ("device", "kind", "key", "measured_at", "run", "item")}, "record": older}
    with writing(store._engine) as session:
        session.add(MeasurementRow(**row, condition_hash=condition_hash(older["condition"])))
    imported = record("imported", facts={"file": "z"})
    store.add_measurements([record(str(i), "run", str(i), facts=facts) for i in range(50)] + [imported])
    store.add_measurements([record("more", "run", "50", facts=facts)])
    found = store.measurements("local")
    assert found == store.measurements_after("local", 0, 100)
    assert [r["facts"] for r in found] == [{"cpu": "y"}, *[facts] * 50, {"file": "z"}, facts]
    store.touch_device("local")
    assert store.overview.devices()[0].measured_facts == facts
    with store._engine.connect() as connection:
        assert connection.execute(text("SELECT sum(length(CAST(record AS TEXT))) FROM measurements")).scalar() < 20_000
        assert connection.execute(text("SELECT run FROM run_facts")).scalars().all() == ["run"]


def test_nan_is_never_stored_nor_what_came_with_it(store):
    with pytest.raises(ValueError, match="JSON"):
        store.add_measurements([record("a"), record("b", p50=float("nan"))])
    assert store.measurements("local") == []


def test_evaluation_replaces_the_same_subnet_on_the_same_split(store):
    for accuracy in (0.5, 0.75):
        store.add_evaluation("net", {"depths": [2]}, "key", accuracy, 100, "valid", "fit")
    store.add_evaluation("net", {"depths": [2]}, "key", 0.9, 100, "test", "fit")
    store.add_evaluation("net", {"depths": [3]}, "other", 0.6, 100, "valid", "heldout")
    found = store.evaluations("net", "valid")
    assert [(e.key, e.accuracy, e.role, e.arch) for e in found] == [
        ("key", 0.75, "fit", {"depths": [2]}),
        ("other", 0.6, "heldout", {"depths": [3]}),
    ]
    assert store.evaluations("another", "valid") == []


def test_artefacts_newest_last(store):
    store.add_artefact("supernet", "a", "0" * 64, {"x": 1})
    store.add_artefact("supernet", "b", "1" * 64, {})
    store.add_artefact("bundle", "c", "2" * 64, {})
    assert [(a.path, a.meta) for a in store.artefacts("supernet")] == [("a", {"x": 1}), ("b", {})]


def test_devices_remember_what_they_said(store):
    assert store.device("phone") is None
    store.touch_device("phone", {"cpu": "x"})
    first = store.device("phone")
    store.touch_device("phone", {})
    again = store.device("phone")
    assert again.facts == {"cpu": "x"}
    assert again.seen_at >= first.seen_at
    assert again.created_at == first.created_at


def test_many_threads_write_at_once(store):
    def write(number):
        for i in range(10):
            store.add_measurements([record(f"{number}-{i}", f"r{number}", str(i))])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.measurements("local")) == 60


def test_a_device_that_tells_nothing_new_is_not_written_again_and_again(store):
    store.touch_device("phone", {"cpu": "x"})
    first = store.device("phone")
    store.touch_device("phone", pause_s=60)
    assert store.device("phone") == first
    store.touch_device("phone", {"cpu": "y"}, pause_s=60)
    assert store.device("phone").facts == {"cpu": "y"}


def test_pages_of_measurements(store):
    store.add_measurements([record(str(i)) for i in range(5)] + [record(device="other")])
    first = store.measurements_after("local", 0, 3)
    rest = store.measurements_after("local", first[-1]["id"], 3)
    assert [r["key"] for r in first + rest] == list("01234")
    assert store.newest_measurement("local") == rest[-1]["id"]
    assert store.newest_measurement("nobody") == 0


def test_the_store_as_it_was_when_a_device_had_fewer_measurements(store):
    store.add_measurements(
        [record(str(i)) for i in range(3)] + [record("x", device="later"), record("y", device="other")]
    )
    third = store.measurements("local")[2]["id"]
    view = store.as_of("local", third - 1).as_of("later", third)
    assert [r["key"] for r in view.measurements("local")] == ["0", "1"]
    assert [r["key"] for r in view.measurements("local", keys=["1", "2"])] == ["1"]
    assert [r["key"] for r in view.measurements_after("local", 0, 10)] == ["0", "1"]
    assert view.newest_measurement("local") == third - 1
    assert (view.measured_devices(), store.measured_devices()) == (["local", "other"], ["later", "local", "other"])
    assert [view.has_measurements(name) for name in ("local", "later", "other")] == [True, False, True]
    assert view.newest_measurement("other") == store.newest_measurement("other") > 0
    assert len(store.measurements("local")) == 3


def test_the_newest_of_everything_in_the_order_of_the_first(store):
    two, three = {"threads": 2}, {"threads": 3}
    store.add_measurements([record("a", p50=1), record("n", p50=2, kind="network"), record("b", p50=3)])
    store.add_measurements([record("a", p50=4, condition=two), record("a", p50=5, kind="network", condition=two)])
    store.add_measurements([record("c", p50=6, condition=three), record("a", p50=7, device="phone")])
    one, other = condition_hash({"threads": 1}), condition_hash(two)
    assert store.conditions("local") == [(condition_hash(three), three), (other, two), (one, {"threads": 1})]
    assert [r["p50"] for r in store.newest_records("local", [one, other])] == [4, 2, 3, 5]
    assert [r["p50"] for r in store.newest_records("local", [one])] == [1, 2, 3]
    assert store.newest_records("local", []) == []
    assert store.blocks("local") == {"a", "b", "c"}
    assert store.blocks("local", [one]) == {"a", "b"}


def test_a_view_of_the_past_answers_every_question_of_then(store):
    store.add_measurements([record("n", kind="network")])
    until = store.newest_measurement("local")
    store.add_measurements([record("a", condition={"threads": 2}), record("a", device="phone")])
    assert store.has_measurements("local", "op")
    then, never = store.as_of("local", until), store.as_of("phone", until)
    assert [r["key"] for r in then.measurements("local")] == ["n"]
    assert [r["key"] for r in then.measurements_after("local", 0, 9)] == ["n"]
    assert [condition for _, condition in then.conditions("local")] == [{"threads": 1}]
    assert then.newest_records("local", [condition_hash({"threads": 2})]) == []
    assert then.blocks("local") == set()
    assert then.newest_measurement("local") == until
    assert then.has_measurements("local")
    assert not then.has_measurements("local", "op")
    assert then.measured_devices() == ["local", "phone"]
    assert never.measured_devices() == ["local"]


def test_a_cursor_moves(store):
    assert store.cursor("http://x", "phone") == 0
    for position in (3, 7):
        store.move_cursor("http://x", "phone", position)
    assert (store.cursor("http://x", "phone"), store.cursor("http://y", "phone")) == (7, 0)


def test_the_view_has_the_newest_latency_of_every_block_and_condition(store):
    spec = {"kind": "mbconv", "h": 28, "w": 14, "cin": 16, "mid": 96, "cout": 24, "kernel": 5, "stride": 2}
    fast = {"threads": 4, "simulated": True}
    store.add_measurements(
        [
            record("a", p50=1.0, specs=[spec]),
            record("a", p50=2.5, specs=[spec], energy_mj=7.0),
            record("a", p50=0.5, specs=[spec], condition=fast),
            record("a", p50=9.0, specs=[spec], device="phone"),
            record("net", p50=99.0, specs=[spec, spec], kind="network"),
        ]
    )
    query = text("SELECT * FROM latency_lookup ORDER BY hardware_id, latency_micros")
    with store._engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    shape = {"op_type": "mbconv", "input_h": 28, "input_w": 14, "channels_in": 16, "channels_out": 24, "stride": 2}
    assert all({key: row[key] for key in shape} == shape for row in rows)
    assert all((row["op_key"], row["kernel"], row["expand"]) == ("a", 5, 6.0) for row in rows)
    assert [(row["hardware_id"], row["latency_micros"], row["energy_mj"], bool(row["simulated"])) for row in rows] == [
        ("local", 500.0, None, True),
        ("local", 2500.0, 7.0, False),
        ("phone", 9000.0, None, False),
    ]
    assert rows[0]["condition_hash"] == condition_hash(fast)
