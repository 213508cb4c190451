"""What a table knows of its blocks: their fields, whatever their kind; in tables of earlier versions, their keys."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.blocks import OpSpec, counts
from ofa_deploy.blocks.kinds import KINDS
from ofa_deploy.blocks.kinds.kind import StageKind
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.heatmap import heat_map
from ofa_deploy.fleet.targets import resolve_target
from ofa_deploy.latency import LatencyModel, LatencyTable, Row, as_records, read_csv, read_table, write_csv
from ofa_deploy.latency.priors import interpolate
from ofa_deploy.latency_models import blocks_by_key, load_model, other_devices
from ofa_deploy.space import PopulationCodec, SearchSpace, StageSpec
from ofa_deploy.store import NewestRow

KEPT = Path(__file__).parent / "kept" / "table.json"
CONDITION = {
    "runtime": "onnxruntime",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "batch": 1,
    "threads": 1,
}


class Plain(StageKind):
    """Two convolutions. No field but its channels is in its key."""

    name = "plain"

    def build(self, b, op):
        x = b.conv_bn(-1, "one.", op.mid, op.kernel, op.stride, act=op.act, elastic=True)
        b.conv(x, "two", op.cout, bias=True)


@pytest.fixture
def space(monkeypatch):
    """A space whose stages are of a kind that the package does not know."""
    monkeypatch.setitem(KINDS, Plain.name, Plain())
    stages = (StageSpec(8, 2, "relu", False, (1, 2), (3, 5), (1, 2), block="plain"),)
    return SearchSpace("new", stages, (16, 20), num_classes=5, stem_width=8, head_width=16, feature_width=0)


def a_table(space, blocks=True):
    codec, rng = PopulationCodec(space), np.random.default_rng(0)
    cost = {op.key: (0.005 + counts.macs(op.block) / 4e6) * rng.lognormal(0, 0.05) for op in codec.ops}
    rows = {op.key: a_row(op.key, cost[op.key], (op,)) for op in codec.ops if blocks}
    networks = {}
    for arch in codec.decode(codec.sample(8, rng)):
        network = space.network(arch)
        networks[network.key] = a_row(network.key, sum(cost[op.key] for op in network.ops), network.ops)
    return LatencyTable("d", CONDITION, rows, networks)


def a_row(key, ms, specs):
    ops = tuple(op.key for op in specs)
    return Row(key, ops, ms, 1.1 * ms, 1.2 * ms, 72, 0.02, 0.01, measured_at="2026-01-01T00:00:00Z", specs=specs)


@pytest.mark.parametrize("blocks", [True, False], ids=["blocks", "networks alone"])
def test_a_table_of_a_new_kind_moves_as_json_and_as_records(space, blocks, tmp_path):
    table = a_table(space, blocks)
    table.save(tmp_path / "d.json")
    for read in (read_table(tmp_path / "d.json"), LatencyTable.from_records("d", as_records(table, "d"))):
        assert (read.rows, read.networks) == (table.rows, table.networks)
        for part in ("rows", "networks"):
            for key, row in getattr(read, part).items():
                assert row.blocks == getattr(table, part)[key].specs
    assert json.loads((tmp_path / "d.json").read_text())["specs"].keys() >= {
        op for r in table.networks.values() for op in r.ops
    }


def test_blocks_of_a_new_kind_are_interpolated_and_predicted(space):
    table, blocks = a_table(space), blocks_by_key(PopulationCodec(space))
    hidden = dict([(key, unit) for key, unit in blocks.items() if unit.op.kind == "plain"][3:6])
    rows = [row for key, row in table.rows.items() if key not in hidden]
    guess, _ = interpolate(rows, hidden)
    assert np.abs(np.log(guess / [table.rows[key].best for key in hidden])).max() < 0.7
    network = space.network(space.largest)
    assert LatencyModel(table).predict([network])[0][0] == pytest.approx(table.total(network), rel=0.1)


def test_a_new_device_learns_of_a_new_kind_from_another(space, workspace):
    workspace.store.add_measurements([record.to_json() for record in as_records(a_table(space), "d")])
    target = replace_name(resolve_target("local", workspace), "new")
    (other,) = other_devices(workspace, target, space)
    assert other.effects.keys() == blocks_by_key(PopulationCodec(space)).keys()
    assert load_model(workspace, target, space).blocks.devices == ("d",)


def replace_name(target, name):
    return target.model_copy(update={"name": name})


def test_csv_has_a_column_for_what_the_others_cannot_tell(space, tmp_path):
    table, file = a_table(space), tmp_path / "t.csv"
    file.write_text(write_csv(table))
    header, *lines = file.read_text().splitlines()
    assert header.endswith(",energy_mj,spec")
    assert [line.startswith("d,plain") for line in lines] == ["{" in line for line in lines]
    read = read_csv(file, "d", space)
    assert list(read.rows) == list(table.rows)
    assert all(row.blocks == table.rows[key].blocks for key, row in read.rows.items())
    other = replace(space, resolutions=(32,))
    with pytest.raises(UsageError, match=r"t\.csv:2: new has no such block"):
        read_csv(file, "d", other)
    file.write_text("\n".join([header, *(line for line in lines if "plain" in line)]).replace('"kind"', '"kin"'))
    with pytest.raises(UsageError, match=r"t\.csv:2: spec is not a block's fields as JSON"):
        read_csv(file, "d", space)
    file.write_text(file.read_text().replace("{", "["))
    with pytest.raises(UsageError, match=r"t\.csv:2: spec is not a block's fields as JSON"):
        read_csv(file, "d", space)


def test_a_heat_map_shows_a_new_kind(space, monkeypatch):
    monkeypatch.setattr("ofa_deploy.fleet.heatmap.BLOCKS", ("mbconv", "uib", "plain"))
    rows = [
        NewestRow("op", key, "", row.p50, row.p50, row.p50, row.se, row.n, [], None, row.block.to_json())
        for key, row in a_table(space).rows.items()
    ]
    found = heat_map(rows).to_json()
    assert found["others"] == []
    _, own, ends = found["tables"]
    assert {line["kind"] for line in own["lines"]} == {"plain"}
    assert {line["kind"] for line in ends["lines"]} == {"stem", "head", "classifier"}
    assert {cell["key"]: cell["p50"] for part in found["tables"] for cell in part["cells"]} == {
        row.key: row.p50 for row in rows
    }
    assert "spec" not in own["cells"][0]
    unknown = [replace(row, spec=None) for row in rows if row.key.startswith("plain")]
    assert heat_map(unknown).others == unknown


def test_a_table_of_an_earlier_version_is_read_and_written_as_it_was(tmp_path):
    table = read_table(KEPT)
    kinds = ["stem", "mbconv", "uib", "head", "classifier", "cell"]
    assert [row.block.kind for row in table.rows.values()] == kinds
    assert [row.block.key for row in table.rows.values()] == list(table.rows)
    (network,) = table.networks.values()
    assert [op.key for op in network.blocks] == list(network.ops)
    table.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == KEPT.read_bytes()
    (mean,), (std,) = LatencyModel(table).predict_ops([network.ops])
    assert (mean, std) == (pytest.approx(0.16882714), pytest.approx(0.01698225))  # as the version that wrote it said


@pytest.mark.parametrize(
    "fields",
    [{"h": 0}, {"cin": 10**9}, {"cout": "8"}, {"stride": True}, {"mid": -1}, {"act": 3}, {"skip": 1}, {"eps": "small"}],
    ids=lambda fields: next(iter(fields)),
)
def test_fields_that_no_block_has_are_refused(fields):
    with pytest.raises(UsageError, match=f"not an op: {next(iter(fields))} is"):
        OpSpec.from_json({**OpSpec("mbconv", 8, 8, 8, 16, 8).to_json(), **fields})
