"""What is known of a target, from its own measurements and those of other devices in the workspace."""

import numpy as np
import pytest

from ofa_deploy.blocks import Network, counts
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OpNotProfiled
from ofa_deploy.fleet.profiling import to_measure
from ofa_deploy.latency import LatencyTable
from ofa_deploy.latency.priors import table_prior
from ofa_deploy.latency_models import (
    export_table,
    has_blocks,
    load_model,
    load_table,
    other_devices,
    predict_archs,
)
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.store import Workspace

SPACE = load_space({"name": "narrow", "base": "tiny_16", "resolutions": (16,), "widths": (1.0,)})
CODEC = PopulationCodec(SPACE)
CONDITION = {
    "runtime": "onnxruntime",
    "runtime_version": "1",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "batch": 1,
    "threads": 1,
    "simulated": False,
}


def a_target(name: str) -> TargetProfile:
    return TargetProfile(name=name, description="a test", runtime="onnxruntime")


def a_record(device: str, network: Network, ms: float, kind: str) -> dict:
    key = network.ops[0].key if kind == "op" else network.key
    return {
        "device": device,
        "kind": kind,
        "key": key,
        "ops": [op.key for op in network.ops],
        "condition": CONDITION,
        **dict.fromkeys(("p50", "p90", "p99", "best"), ms),
        "n": 72,
        **dict.fromkeys(("cov", "se", "best_se"), 0.01),
        "flags": [],
        "measured_at": "2026-01-01T00:00:00Z",
        "run": f"{device}-{kind}",
        "item": key,
    }


def block_ms(op, speed: float) -> float:
    return speed * (0.01 + counts.macs(op.block) / 1e7)


def measure(workspace: Workspace, device: str, speed: float, networks: int = 8, without: int = 0) -> None:
    """A device of which all blocks but the first ``without`` were measured, and some networks."""
    ops = [a_record(device, Network.single(op), block_ms(op, speed), "op") for op in CODEC.ops[without:]]
    nets = [SPACE.network(arch) for arch in CODEC.decode(CODEC.sample(networks, np.random.default_rng(0)))]
    whole = [a_record(device, net, sum(block_ms(op, speed) for op in net.ops), "network") for net in nets]
    workspace.store.add_measurements(ops + whole if without < len(CODEC.ops) else whole)


@pytest.fixture
def workspace(tmp_path):
    opened = Workspace.open(tmp_path / "ws")
    yield opened
    opened.store.close()


def mean_of_largest(workspace: Workspace, name: str, **options) -> tuple[float, float]:
    (mean,), (std,) = load_model(workspace, a_target(name), SPACE, **options).predict([SPACE.network(SPACE.largest)])
    return mean, std / mean


TRUTH = sum(block_ms(op, 1.0) for op in SPACE.network(SPACE.largest).ops)


def test_a_whole_table_is_all_that_is_needed(workspace) -> None:
    measure(workspace, "a", 1.0)
    measure(workspace, "b", 5.0)
    model = load_model(workspace, a_target("a"), SPACE, strict=True)
    assert set(model.blocks.origin) == {"measured"}
    assert mean_of_largest(workspace, "a")[0] == pytest.approx(TRUTH, rel=0.01)


def test_gaps_are_guessed_unless_that_is_forbidden(workspace) -> None:
    measure(workspace, "a", 1.0, without=3)
    with pytest.raises(OpNotProfiled, match=r"3 such blocks.*ofa-deploy profile --target a"):
        load_model(workspace, a_target("a"), SPACE, strict=True)
    model = load_model(workspace, a_target("a"), SPACE)
    assert model.blocks.origin.count("interpolated") == 3
    assert "3 blocks of it interpolated" in model.blocks.source
    assert mean_of_largest(workspace, "a")[0] == pytest.approx(TRUTH, rel=0.1)


def test_a_device_of_which_nothing_is_known_is_like_the_others_but_unsure(workspace) -> None:
    with pytest.raises(OpNotProfiled, match="never measured on new"):
        load_model(workspace, a_target("new"), SPACE)
    measure(workspace, "b", 2.0)
    mean, spread = mean_of_largest(workspace, "new")
    assert mean == pytest.approx(2 * TRUTH, rel=0.1)
    assert spread > 0.8
    assert load_model(workspace, a_target("new"), SPACE).blocks.devices == ("b",)


def test_a_few_networks_tell_how_fast_a_new_device_is(workspace) -> None:
    measure(workspace, "b", 2.0)
    measure(workspace, "new", 0.5, networks=5, without=len(CODEC.ops))
    assert not has_blocks(workspace, a_target("new"))
    assert has_blocks(workspace, a_target("b"))
    mean, spread = mean_of_largest(workspace, "new")
    assert mean == pytest.approx(0.5 * TRUTH, rel=0.05)
    assert spread < 0.2


def test_a_device_that_lacks_most_blocks_is_no_help(workspace) -> None:
    measure(workspace, "b", 2.0, without=len(CODEC.ops) * 2 // 3)
    assert other_devices(workspace, a_target("new"), SPACE) == []
    measure(workspace, "c", 2.0, without=len(CODEC.ops) // 4)
    (other,) = other_devices(workspace, a_target("new"), SPACE)
    assert other.name == "c"
    assert other.effects.keys() == set(CODEC.op_keys)


def test_predictions_of_archs_say_which_blocks_carry_them(workspace) -> None:
    measure(workspace, "a", 1.0)
    pairs = [(SPACE, SPACE.largest), (SPACE, SPACE.smallest)]
    rows = predict_archs(workspace, a_target("a"), pairs, 0.95, explain=True)
    assert [row.key for row in rows] == [SPACE.largest.key, SPACE.smallest.key]
    for row in rows:
        assert sum(block.posterior_ms for block in row.blocks) == pytest.approx(row.mean_ms)
        assert row.upper_ms == pytest.approx(row.mean_ms + 1.645 * row.std_ms, rel=1e-3)
    assert predict_archs(workspace, a_target("a"), pairs, 0.95)[0].blocks is None


def test_networks_to_measure_are_the_ends_and_the_most_instructive(workspace) -> None:
    measure(workspace, "a", 1.0, networks=0)
    table = load_table(workspace, a_target("a"))
    blocks = table_prior(table)
    chosen = to_measure(CODEC, blocks, {}, 8)
    assert chosen[:2] == [SPACE.smallest, SPACE.largest]
    assert len({SPACE.network(arch).key for arch in chosen}) == 8
    design = np.array([[SPACE.network(arch).ops.count(op) for op in CODEC.ops] for arch in chosen], float)
    stratified = CODEC.decode(CODEC.stratified(8, np.random.default_rng(0)))
    other = np.array([[SPACE.network(arch).ops.count(op) for op in CODEC.ops] for arch in stratified], float)
    assert left_over(blocks, design) < left_over(blocks, other)


def left_over(blocks, x: np.ndarray) -> float:
    """Mean relative variance of random networks once those of ``x`` were measured."""
    asked = [SPACE.network(arch).ops for arch in CODEC.decode(CODEC.sample(200, np.random.default_rng(5)))]
    fresh = np.array([[ops.count(op) for op in CODEC.ops] for ops in asked], float)
    both = np.vstack([x, fresh])
    both /= (both @ blocks.prior.mean)[:, None]
    scales = np.array([np.sqrt(term.low * term.high) for term in blocks.prior.terms])
    covariance, k = blocks.prior.covariance(both, scales), len(x)
    inverse = np.linalg.inv(covariance[:k, :k] + 3e-4 * np.eye(k))
    return float(np.diag(covariance[k:, k:] - covariance[k:, :k] @ inverse @ covariance[:k, k:]).mean())


def test_networks_that_are_known_are_not_measured_again(workspace) -> None:
    measure(workspace, "a", 1.0, networks=6)
    table = load_table(workspace, a_target("a"))
    blocks, known = table_prior(table), table.networks
    assert to_measure(CODEC, blocks, known, len(known)) == []
    more = to_measure(CODEC, blocks, known, len(known) + 3)
    assert len(more) == 3
    assert not {SPACE.network(arch).key for arch in more} & known.keys()


def test_a_table_is_the_newest_of_everything_under_the_newest_condition(workspace) -> None:
    old, power = {**CONDITION, "runtime_version": "0"}, {**CONDITION, "power_mode": "unknown"}
    networks = [Network.single(op) for op in CODEC.ops[:3]]
    records = [
        {**a_record("a", network, ms, "op"), "condition": condition, "run": str(i)}
        for i, (network, ms, condition) in enumerate(
            [
                (networks[2], 9.0, old),
                (networks[1], 1.0, CONDITION),
                (networks[0], 2.0, CONDITION),
                (networks[1], 3.0, power),  # the same as none
                (networks[0], 4.0, {**CONDITION, "threads": 4}),  # another target's
            ]
        )
    ]
    workspace.store.add_measurements(records)
    table = load_table(workspace, a_target("a"))
    assert [(row.key, row.p50) for row in table.rows.values()] == [
        (networks[1].ops[0].key, 3.0),
        (networks[0].ops[0].key, 2.0),
    ]
    assert load_table(workspace, a_target("nobody")).rows == {}


def test_devices_that_are_no_help_are_not_read(workspace, monkeypatch) -> None:
    measure(workspace, "lacking", 2.0, without=len(CODEC.ops) * 2 // 3)
    measure(workspace, "new", 2.0)
    read = []
    newest = type(workspace.store).newest_records
    monkeypatch.setattr(
        type(workspace.store), "newest_records", lambda self, name, of: read.append(name) or newest(self, name, of)
    )
    assert other_devices(workspace, a_target("new"), SPACE) == []
    assert has_blocks(workspace, a_target("new"))
    assert read == []


def test_each_precision_has_a_file_of_its_own(workspace) -> None:
    workspace.tables.mkdir(exist_ok=True)
    (workspace.tables / "phone.json").write_text("of any precision, from an older release")
    tables = [LatencyTable("phone", {**CONDITION, "precision": precision}, {}) for precision in ("fp32", "int8")]
    files = [export_table(workspace, table) for table in tables]
    assert [LatencyTable.load(file) for file in files] == tables
    assert sorted(file.name for file in workspace.tables.iterdir()) == ["phone-fp32.json", "phone-int8.json"]
