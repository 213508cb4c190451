import math

import numpy as np
import pytest

from ofa_deploy.blocks import counts
from ofa_deploy.errors import UsageError
from ofa_deploy.latency import Row
from ofa_deploy.latency.plausible import Claim, moved_values, refuse_implausible
from ofa_deploy.space import PopulationCodec, load_space


def honest_ms(op, device, rng):
    """Made-up devices: a phone, a CPU on which tiny blocks cost little but the call, a GPU on which all cost that."""
    call, macs, values = {"phone": (0.02, 1e7, 1e6), "cpu": (0.004, 4e7, 4e6), "gpu": (0.03, 1e9, 1e8)}[device]
    return (call + counts.macs(op.block) / macs + moved_values(op) / values) * rng.lognormal(0, 0.2)


def a_row(key, ms, **changes):
    return Row(
        **{"key": key, "ops": (key,), **dict.fromkeys(("p50", "p90", "p99"), ms), "n": 9, "cov": 0.1, "se": 0.01}
        | changes
    )


def claims(space="small_28", device="cpu", count=None, **changes):
    rng = np.random.default_rng(0)
    ops = PopulationCodec(load_space(space)).ops
    ops = ops if count is None else [ops[i] for i in rng.choice(len(ops), count, replace=False)]
    return [
        Claim.of(f"f.csv:{i}", a_row(op.key, honest_ms(op, device, rng), **changes), [op])
        for i, op in enumerate(ops, 2)
    ]


def spoil(found, i, ms):
    one = found[i]
    return [*found[:i], Claim(one.where, a_row(one.row.key, ms), one.macs, one.moved, one.blocks), *found[i + 1 :]]


@pytest.mark.parametrize("device", ["phone", "cpu", "gpu"])
@pytest.mark.parametrize("space", ["tiny_16", "small_28", "uib_28", "ofa_mbv3_w1.2"])
def test_honest_tables_pass_and_so_do_their_parts(space, device):
    refuse_implausible(claims(space, device))
    for count in (1, 2, 3, 8, 20):
        refuse_implausible(claims(space, device, count))
    refuse_implausible([])


def test_networks_pass_beside_their_blocks():
    codec, rng = PopulationCodec(load_space("small_28")), np.random.default_rng(1)
    found = claims()
    ms = {claim.row.key: claim.row.p50 for claim in found}
    for arch in codec.decode(codec.stratified(10, rng)):
        ops = codec.space.network(arch).ops
        row = a_row("net", sum(ms[op.key] for op in ops), ops=tuple(op.key for op in ops))
        found.append(Claim.of("f.json", row, ops))
    refuse_implausible(found)
    with pytest.raises(UsageError, match=r"net: .* times more"):
        refuse_implausible([*found[:-1], Claim.of("f.json", a_row("net", 1000 * row.p50), ops)])


@pytest.mark.parametrize(
    ("ms", "says"),
    [
        (math.nan, "latency nan is not a number"),
        (math.inf, "latency inf is not a number"),
        (None, "latency None is not a number"),
        ("3", "latency '3' is not a number"),
        (True, "latency True is not a number"),
        (0.0, "latency 0 ms is not from 0.0001 to"),
        (-1.0, "latency -1 ms is not from"),
        (1e12, r"latency 1e\+12 ms is not from"),
        (1e-9, "latency 1e-09 ms is not from"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_place(ms, says):
    found = spoil(claims(), 5, ms)
    key = found[5].row.key
    with pytest.raises(UsageError, match=rf"^f\.csv:7: {key}: {says}.*; nothing of the file was stored$"):
        refuse_implausible(found)


@pytest.mark.parametrize("factor", [300, 1000, 1 / 300, 1 / 1000])
@pytest.mark.parametrize(("space", "device"), [("small_28", "cpu"), ("ofa_mbv3_w1.2", "phone"), ("tiny_16", "gpu")])
def test_any_row_in_a_wrong_unit_is_refused(space, device, factor):
    found = claims(space, device)
    for i in range(0, len(found), max(1, len(found) // 60)):
        with pytest.raises(UsageError, match=rf"^f\.csv:{i + 2}: {found[i].row.key}: .*wrong unit|is not from"):
            refuse_implausible(spoil(found, i, found[i].row.p50 * factor))


def test_a_third_of_the_rows_in_a_wrong_unit_is_still_told_from_the_others():
    found = claims()
    for i in range(0, len(found), 3):
        found = spoil(found, i, found[i].row.p50 * 1000)
    with pytest.raises(UsageError, match=rf"^f\.csv:2: .* times more .*\({math.ceil(len(found) / 3) - 1} more rows"):
        refuse_implausible(found)


def test_a_whole_table_of_milliseconds_read_as_microseconds_would_need_an_impossible_device():
    found = claims("ofa_mbv3_w1.2", "phone")
    wrong = [Claim(c.where, a_row(c.row.key, c.row.p50 / 1000), c.macs, c.moved) for c in found]
    with pytest.raises(UsageError, match=r"multiply-accumulates a second|is not from"):
        refuse_implausible(wrong)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"p90": 1e-3}, "are not in this order"),
        ({"p99": math.nan}, "latency nan is not a number"),
        ({"cov": -0.1}, "cov -0.1 is not a fraction"),
        ({"se": math.nan}, "se nan is not a fraction"),
        ({"se": 1000.0}, "se 1000.0 is not a fraction"),
        ({"n": -1}, "n -1 is not a count"),
        ({"n": 2.5}, "n 2.5 is not a count"),
        ({"energy_mj": -1.0}, "energy -1.0 mJ"),
        ({"energy_mj": math.nan}, "energy nan mJ"),
        ({"measured_at": None}, "are not texts"),
    ],
)
def test_what_else_a_row_says_must_make_sense(changes, says):
    with pytest.raises(UsageError, match=says):
        refuse_implausible(claims(count=4, **changes))
