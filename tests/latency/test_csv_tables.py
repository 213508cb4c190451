import numpy as np
import pytest

from ofa_deploy.blocks import counts
from ofa_deploy.errors import UsageError
from ofa_deploy.latency import LatencyTable, Row, read_csv, write_csv
from ofa_deploy.latency.csv_tables import COLUMNS
from ofa_deploy.space import PopulationCodec, load_space

HEADER = "hardware_id,op_type,input_h,input_w,channels_in,channels_out,kernel,expand,stride,latency_micros,energy_mj"
SPACE = load_space("small_28")


def a_table(space=SPACE, resolution=None, energy=None):
    rng = np.random.default_rng(0)
    rows = {}
    for op in PopulationCodec(space).ops:
        key, ms = op.key_at(resolution), (0.005 + counts.macs(op.block) / 4e7) * rng.lognormal(0, 0.1)
        rows[key] = Row(key, (key,), ms, 1.1 * ms, 1.2 * ms, 72, 0.02, 0.01, energy_mj=energy, specs=(op,))
    return LatencyTable("phone", {"per_resolution": True} if resolution else {}, rows)


def lines(text):
    return text.splitlines()


def a_file(tmp_path, *rows):
    file = tmp_path / "t.csv"
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    return file


@pytest.mark.parametrize(
    "space",
    ["tiny_16", "small_28", "small_32", "uib_28", "resnet_28", "mnv4_hybrid_28", "ofa_mbv3_w1.0", "ofa_mbv3_w1.2"],
)
def test_what_was_written_is_read(space, tmp_path):
    table, file = a_table(load_space(space), energy=0.25), tmp_path / "t.csv"
    file.write_text(write_csv(table))
    read = read_csv(file, "other", load_space(space))
    assert (read.device, list(read.rows)) == ("other", list(table.rows))
    for key, row in read.rows.items():
        assert row.p50 == row.p90 == pytest.approx(table.rows[key].p50, rel=1e-12)
        assert (row.n, row.se, row.energy_mj) == (0, 0.0, 0.25)


def test_columns_and_units():
    first, second = lines(write_csv(a_table()))[:2]
    assert first == HEADER == ",".join(COLUMNS)
    micros = 1000 * next(iter(a_table().rows.values())).p50
    values = second.split(",")
    assert values[:9] == ["phone", "stem", "20", "20", "1", "16", "3", "0", "2"]
    assert (float(values[9]), values[10]) == (pytest.approx(micros), "")


def test_a_table_with_resolutions_is_written_one_at_a_time(tmp_path):
    both = {**a_table(SPACE.with_resolutions((24,)), 24).rows, **a_table(SPACE.with_resolutions((28,)), 28).rows}
    table, file = LatencyTable("phone", {"per_resolution": True}, both), tmp_path / "t.csv"
    with pytest.raises(UsageError, match=r"--resolution \(24, 28\)"):
        write_csv(table)
    file.write_text(write_csv(table, 24))
    read = read_csv(file, "phone", SPACE, 24)
    assert read.per_resolution
    assert list(read.rows) == [key for key in both if key.endswith("@24")]
    with pytest.raises(UsageError, match="no blocks at 20"):
        write_csv(table, 20)
    with pytest.raises(UsageError, match="one latency a block"):
        write_csv(a_table(), 24)


def test_a_ratio_may_be_the_space_s_own(tmp_path):
    """20 channels times 3 are 64 in a space that rounds to multiples of 8: written as 3.2, and 3 is understood."""
    space = load_space({"name": "odd", "base": "tiny_16", "stem_width": 24, "widths": (1.0,), "resolutions": (16,)})
    op = next(op for op in PopulationCodec(space).ops if op.kind == "mbconv" and op.mid == 3 * op.cin)
    numbers = (op.h, op.w, op.cin, op.cout, op.kernel)
    row = f"x,mbconv,{','.join(map(str, numbers))},3.0,{op.stride},20,"
    assert list(read_csv(a_file(tmp_path, row), "x", space).rows) == [op.key]


GOOD = "x,stem,20,20,1,16,3,0,2,9,"
BAD = [
    (GOOD.replace(",9,", ",nan,"), "t.csv:2: stem.*latency nan"),
    (GOOD.replace(",9,", ",-9,"), "t.csv:2: stem.*latency -0.009 ms"),
    (GOOD.replace(",9,", ",0,"), "t.csv:2: stem.*latency 0 ms"),
    (GOOD.replace(",9,", ",1e12,"), r"t.csv:2: stem.*latency 1e\+09 ms"),
    (GOOD.replace(",9,", ",fast,"), "t.csv:2: latency_micros is 'fast', not a number"),
    (GOOD + "-2", "t.csv:2: stem.*energy -2.0"),
    (GOOD + "much", "t.csv:2: energy_mj is 'much'"),
    (GOOD.replace(",20,20,", ",20,21,"), "t.csv:2: small_28 has no such block: op_type stem input_h 20 input_w 21"),
    (GOOD.replace("stem", "lstm"), "t.csv:2: small_28 has no such block: op_type lstm"),
    (GOOD.replace(",16,", ",16.5,"), "t.csv:2: channels_out is '16.5', not a whole number"),
    (GOOD.replace(",0,2", ",inf,2"), "t.csv:2: expand is 'inf'"),
    (GOOD.replace(",0,2", ",nan,2"), "t.csv:2: expand is 'nan'"),
    (GOOD + ",more", "t.csv:2: a line has 11 values"),
    ("x,stem", "t.csv:2: a line has 11 values"),
    (f"{GOOD}\n{GOOD}", "t.csv:3: stem.* has a latency already, from .*t.csv:2"),
    (f"{GOOD}\ny{GOOD[1:].replace('20,20', '24,24')}", "t.csv:3: rows of several devices do not mix: x, y"),
    ("", "has no rows"),
    ('x,"stem', "is not a CSV file"),
]


@pytest.mark.parametrize(("row", "says"), BAD)
def test_bad_lines_are_named(row, says, tmp_path):
    with pytest.raises(UsageError, match=says) as error:
        read_csv(a_file(tmp_path, row), "x", SPACE)
    assert "\n" not in str(error.value)


def test_one_wrong_unit_among_many_lines(tmp_path):
    text = lines(write_csv(a_table()))
    values = text[40].split(",")
    text[40] = ",".join([*values[:9], str(float(values[9]) * 1000), ""])
    with pytest.raises(UsageError, match=r"t\.csv:41: mbconv.*times more than the file's other rows suggest"):
        read_csv(a_file(tmp_path, *text[1:]), "x", SPACE)


def test_a_line_that_two_blocks_fit_is_ambiguous(tmp_path):
    """A stage that ends as it began, once with and once without squeeze-excitation."""
    stages = [
        {"width": 16, "stride": 1, "se": se, "depths": (2,), "kernels": (3,), "expands": (2,)} for se in (False, True)
    ]
    space = load_space({"name": "twins", "base": "tiny_16", "stages": stages, "widths": (1.0,), "resolutions": (16,)})
    with pytest.raises(UsageError, match=r"t\.csv:2: twins has 2 blocks with op_type mbconv .*, mbconv.*-se8-skip"):
        read_csv(a_file(tmp_path, "x,mbconv,8,8,16,16,3,2,1,20,"), "x", space)


def test_files_that_are_not_tables(tmp_path):
    file = tmp_path / "t.csv"
    with pytest.raises(UsageError, match="cannot read"):
        read_csv(file, "x", SPACE)
    for content in (b"", b"a,b\n1,2\n", b"\xff\xfe\x00", HEADER.replace("energy_mj", "power").encode(), b"\x00\x00"):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=r"t\.csv"):
            read_csv(file, "x", SPACE)
