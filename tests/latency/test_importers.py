"""Tables from files, and the sums that come out of them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from ofa_deploy.blocks import OpSpec
from ofa_deploy.errors import OpNotProfiled, UsageError
from ofa_deploy.latency import LatencyModel, LatencyTable, Measurement, Row, as_records, read_ofa_tables, read_table
from ofa_deploy.latency.importers import ofa_entries
from ofa_deploy.space import PopulationCodec, load_space

NOTE10 = Path(__file__).parents[2] / ".." / "shared" / "anchors" / "ofa" / "note10"
PUBLISHED = pytest.mark.skipif(not NOTE10.is_dir(), reason="the published tables are not at hand")
SPACE = load_space("ofa_mbv3_w1.2")


@pytest.fixture
def folder(tmp_path):
    """Tables like the published ones: what two resolutions share has another latency in each."""
    rng = np.random.default_rng(0)
    for resolution in (208, 224):
        entries = {}
        for op in PopulationCodec(SPACE.with_resolutions((resolution,))).ops:
            for key, (macs, moved) in ofa_entries(op).items():
                mean = (0.02 + macs / 1e7 + moved / 1e6) * rng.lognormal(0, 0.1)
                entries[key] = {"count": 400, "mean": float(mean), "std": float(0.04 * mean)}
        (tmp_path / f"{resolution}_lookup_table.yaml").write_text(yaml.safe_dump(entries))
    return tmp_path


def plain_sum(entries, network):
    """As once-for-all estimates: the sum of the means."""
    return sum(entries[key]["mean"] for op in network.ops for key in ofa_entries(op))


def check_sums(folder, count):
    table = read_ofa_tables(folder, "phone", SPACE)
    files = {int(path.name[:3]): yaml.safe_load(path.read_text()) for path in folder.glob("*_lookup_table.yaml")}
    model, rng = LatencyModel(table), np.random.default_rng(1)
    space = SPACE.with_resolutions(tuple(files))
    for codec in (PopulationCodec(space), PopulationCodec(space, per_resolution=True)):
        population = codec.sample(count, rng)
        archs = codec.decode(population)
        networks = [space.network(arch) for arch in archs]
        theirs = [plain_sum(files[arch.resolution], network) for arch, network in zip(archs, networks, strict=True)]
        assert {arch.resolution for arch in archs} == set(files)
        bound = model.bind(codec)
        sums = ([table.total(n) for n in networks], model.predict(networks)[0], bound.mean(population))
        for ours in (*sums, bound.predict(population)[0]):
            assert np.abs(np.array(ours) - theirs).max() < 1e-6
    return files


def test_sums_are_those_of_the_files(folder):
    check_sums(folder, 100)


@PUBLISHED
def test_sums_are_those_of_the_published_files():
    assert set(check_sums(NOTE10, 500)) == {160, 176, 192, 208, 224}
    table = read_ofa_tables(NOTE10, "note10", SPACE)
    part = SPACE.with_resolutions((224,))
    ends = [table.total(part.network(arch)) for arch in (part.smallest, part.largest)]
    assert ends == pytest.approx([17.8, 92.4], abs=0.05)


@PUBLISHED
def test_every_published_entry_is_used():
    for path in NOTE10.glob("*_lookup_table.yaml"):
        codec = PopulationCodec(SPACE.with_resolutions((int(path.name[:3]),)))
        assert {key for op in codec.ops for key in ofa_entries(op)} == set(yaml.safe_load(path.read_text()))


def test_blocks_that_resolutions_share_keep_the_latency_of_each(folder):
    table = read_ofa_tables(folder, "phone", SPACE)
    classifiers = [row.p50 for key, row in table.rows.items() if key.startswith("classifier")]
    assert len(set(classifiers)) == 2
    row = next(iter(table.rows.values()))
    assert (row.n, row.cov, row.se) == (400, pytest.approx(0.04), pytest.approx(0.002))
    with pytest.raises(OpNotProfiled, match=r"@192 was never measured on phone .*its table was imported"):
        table.total(SPACE.network({**SPACE.smallest.to_json(), "resolution": 192}))


def test_records_make_the_same_table_again(folder):
    table = read_ofa_tables(folder, "phone", SPACE)
    stored = json.loads(json.dumps([record.to_json() for record in as_records(table, "phone")]))
    records = [Measurement.from_json(record) for record in stored]
    assert LatencyTable.from_records("phone", records) == table
    assert {OpSpec.from_json(record.specs[0]).key for record in records} == {k.split("@")[0] for k in table.rows}
    assert len({(record.run, record.item) for record in records}) == len(records)


GARBAGE = [
    (r"mean: \S+", "mean: .nan", "latency nan is not a number"),
    (r"mean: \S+", "mean: -1.5", "latency -1.5 ms"),
    (r"mean: \S+", "mean: 0", "latency 0 ms"),
    (r"mean: \S+", "mean: 1.0e+12", r"latency 1e\+12 ms"),
    (r"mean: (\S+)", lambda found: f"mean: {float(found[1]) * 1000}", "times more than the file's other rows"),
    (r"mean: (\S+)", lambda found: f"mean: {float(found[1]) / 1000}", "wrong unit|not from"),
    (r"mean: \S+", "mean: soon", "three numbers"),
    (r"mean: \S+", "means: 1", "three numbers"),
    (r"std: \S+", "std: -1", "cov"),
    (r"std: \S+", "std: .nan", "cov nan"),
    (r"count: \S+", "count: -3", "n -3"),
    (r"count: \S+", "count: .inf", "three numbers"),
]


@pytest.mark.parametrize(("old", "new", "says"), GARBAGE)
@pytest.mark.parametrize("entry", ["AvgPool2D", "Conv_2", "expanded_conv-input:14"])
def test_garbage_in_a_published_table_is_named_with_its_line(folder, entry, old, new, says):
    file = folder / "224_lookup_table.yaml"
    text = file.read_text()
    start = re.search(f"^{entry}", text, re.MULTILINE).start()
    changed, count = re.subn(old, new, text[start:], count=1)
    assert count == 1
    file.write_text(text[:start] + changed)
    line = text[:start].count("\n") + 1
    with pytest.raises(UsageError, match=rf"224_lookup_table\.yaml:{line}: {entry}\S*: .*({says})"):
        read_ofa_tables(folder, "phone", SPACE)


def test_folders_that_hold_no_whole_table(folder, tmp_path):
    with pytest.raises(UsageError, match=r"has no entry Conv-.*another space"):
        read_ofa_tables(folder, "phone", load_space("ofa_mbv3_w1.0"))
    with pytest.raises(UsageError, match=r"there is no RESOLUTION_lookup_table.yaml"):
        read_ofa_tables(tmp_path / "none", "phone", SPACE)
    for text in ("a: [", "- 1\n- 2\n", "\x00"):
        (folder / "224_lookup_table.yaml").write_text(text)
        with pytest.raises(UsageError, match=r"224_lookup_table.yaml"):
            read_ofa_tables(folder, "phone", SPACE)


@pytest.fixture
def table():
    codec = PopulationCodec(load_space("tiny_16"))
    rows = {op.key: a_row(op.key, (op.key,), 0.01 + 1e-5 * i) for i, op in enumerate(codec.ops)}
    network = codec.space.network(codec.space.largest)
    ops = tuple(op.key for op in network.ops)
    condition = {
        "runtime": "onnxruntime",
        "runtime_version": "1",
        "threads": 1,
        "simulated": False,
        "power_mode": "unknown",
    }
    return LatencyTable("d", condition, rows, {network.key: a_row(network.key, ops, sum(rows[key].p50 for key in ops))})


def a_row(key, ops, ms, **changes):
    fields = {"p50": ms, "p90": 1.1 * ms, "p99": 1.3 * ms, "n": 72, "cov": 0.02, "se": 0.01, "flags": ("noisy",)}
    return Row(key, ops, **{**fields, "measured_at": "2026-01-01T00:00:00Z", "energy_mj": 0.5, **changes})


def test_json_tables_come_back_without_loss(table, tmp_path):
    table.save(tmp_path / "d.json")
    read = read_table(tmp_path / "d.json")
    assert read == LatencyTable.from_records("d", as_records(read, "d")) == table


@pytest.mark.parametrize("part", ["rows", "networks"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"p50": float("nan")}, "latency nan is not a number"),
        ({"p50": -1.0}, "latency -1 ms"),
        ({"p50": 1e-3 / 72}, "times less|not from"),
        ({"p50": 50.0, "p90": 60.0, "p99": 70.0}, "times more"),
        ({"n": None}, "n None is not a count"),
    ],
)
def test_garbage_in_a_json_table_is_named_with_its_line(table, tmp_path, part, changes, says):
    key, row = list(getattr(table, part).items())[-1]
    getattr(table, part)[key] = Row(**{**vars(row), **changes})
    table.save(tmp_path / "d.json")
    line = next(
        i for i, text in enumerate((tmp_path / "d.json").read_text().splitlines(), 1) if f'"key": "{key}"' in text
    )
    with pytest.raises(UsageError, match=rf"d\.json:{line}: {key}: .*({says})"):
        read_table(tmp_path / "d.json")


def test_json_tables_of_other_things(table, tmp_path):
    LatencyTable("d", {}, {}).save(tmp_path / "d.json")
    with pytest.raises(UsageError, match="no rows"):
        read_table(tmp_path / "d.json")
    for key in ("edge-4x4", "stem-0x0-c1-m0-o8-k3-s2-relu", f"stem-{'9' * 5000}x1-c1-m0-o8-k3-s2-relu"):
        LatencyTable("d", {}, {key: a_row(key, (key,), 1.0)}).save(tmp_path / "d.json")
        with pytest.raises(UsageError, match="is not the key of a block"):
            read_table(tmp_path / "d.json")
    LatencyTable("d", {"threads": float("nan")}, dict(table.rows)).save(tmp_path / "d.json")
    with pytest.raises(UsageError, match="condition"):
        read_table(tmp_path / "d.json")
