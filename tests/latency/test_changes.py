from dataclasses import replace

import numpy as np
import pytest
from test_latency import CONDITION, a_record, a_row

from ofa_deploy.errors import UsageError
from ofa_deploy.latency import LatencyTable, aligned, difference, difference_in_time
from ofa_deploy.latency.changes import ConditionChange


def a_table(rows, **condition):
    return LatencyTable("d", {**CONDITION, **condition}, {key: a_row(key, ms) for key, ms in rows.items()})


def test_noise_alone_is_called_noise_and_a_change_is_found():
    rng = np.random.default_rng(0)
    old = {f"b{i}": 1.0 + i for i in range(200)}
    false = 0
    for _ in range(50):
        new = {key: ms * rng.normal(1, 0.01 * 2**0.5) for key, ms in old.items()}
        false += any(row.beyond_noise for row in difference(a_table(old), a_table(new)).rows)
    assert false <= 8, "of 50 comparisons, 5 % may call anything changed"
    got = difference(a_table(old), a_table({**old, "b7": 1.08 * old["b7"]}))
    assert [row.key for row in got.rows if row.beyond_noise] == ["b7"]
    assert (got.changed, got.median_change) == (pytest.approx(1 / 200), pytest.approx(0.0))
    assert 3.5 < got.threshold_sigmas < 4


def test_a_slower_device_is_a_level_shift():
    old = {f"b{i}": 1.0 + i for i in range(9)}
    got = difference(a_table(old), a_table({key: 1.2 * ms for key, ms in old.items()}, threads=2, governor="x"))
    assert got.median_change == pytest.approx(0.2)
    assert got.changed == 1.0
    assert got.conditions == {
        "threads": ConditionChange([1], [2]),
        "governor": ConditionChange([None], ["x"]),
    }


def test_rows_that_do_not_say_how_exact_they_are_are_not_judged():
    old, new = a_table({"a": 1.0, "b": 2.0}), a_table({"a": 1.0, "b": 4.0, "c": 1.0})
    new = replace(new, rows={key: replace(row, n=0, se=0.0) for key, row in new.rows.items()})
    got = difference(old, new)
    assert [row.beyond_noise for row in got.rows] == [None, None]
    assert (got.changed, got.only_old, got.only_new) == (None, (), ("c",))
    with pytest.raises(UsageError, match="no row in common"):
        difference(old, a_table({"z": 1.0}))


def test_in_time_the_last_measurement_of_every_row_is_compared_with_the_one_before():
    records = [a_record("a", 9.0), a_record("a", 1.0), a_record("b", 5.0), a_record("a", 2.0, threads=4)]
    got = difference_in_time("d", records)
    assert [(row.key, row.old_ms, row.new_ms) for row in got.rows] == [("a", 1.0, 2.0)]
    assert got.conditions == {"threads": ConditionChange([1], [4])}
    assert got.only_new == ("b",)
    with pytest.raises(UsageError, match=r"no row of d was measured twice.*profile --target d --refresh"):
        difference_in_time("d", records[1:3])


def test_a_table_with_resolutions_beside_one_without():
    plain, apart = a_table({"a": 1.0, "b": 2.0}), a_table({"a@24": 3.0, "a@28": 4.0}, per_resolution=True)
    got = {key: [row and row.p50 for row in rows] for key, rows in aligned([plain, apart]).items()}
    assert got == {"b": [2.0, None], "a@24": [1.0, 3.0], "a@28": [1.0, 4.0]}
