"""Blocks that were not measured, devices that are new: what is guessed, and whether the guess knows how good it is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ofa_deploy.blocks import OpSpec, Unit
from ofa_deploy.errors import OpNotProfiled, UsageError
from ofa_deploy.latency import LatencyModel, LatencyTable, Row
from ofa_deploy.latency.priors import (
    BlockPrior,
    OtherDevice,
    costs,
    interpolate,
    prior_from_devices,
    table_prior,
    traits,
)
from ofa_deploy.space import PopulationCodec, load_space

SPACE = load_space("ofa_mbv3_w1.0").with_resolutions((160,))
CODEC = PopulationCodec(SPACE)
BLOCKS = dict(zip(CODEC.op_keys, CODEC.units, strict=True))
KEYS = list(BLOCKS)


def a_device(seed: int, kind: float = 0.0) -> dict[str, float]:
    """Block latencies in ms: a roofline of MACs and traffic with its own balance, and a peculiarity of every block."""
    rng = np.random.default_rng(seed)
    speed = np.array([1e-8, 1e-6, 2e-8, 0.005]) * rng.lognormal(kind, 0.4, 4)
    return {key: float(np.array(costs(op)) @ speed * rng.lognormal(0, 0.05)) for key, op in BLOCKS.items()}


def a_row(key: str, ms: float, ops: tuple[str, ...] = (), when: str = "") -> Row:
    return Row(key, ops or (key,), ms, ms, ms, 72, 0.01, 0.005, measured_at=when)


def networks_of(device: dict[str, float], count: int, seed: int) -> dict[str, Row]:
    rng = np.random.default_rng(seed)
    found = {}
    for arch in CODEC.decode(CODEC.sample(count, rng)):
        network = SPACE.network(arch)
        ops = tuple(op.key for op in network.ops)
        found[network.key] = a_row(network.key, sum(device[key] for key in ops) * rng.normal(1, 0.01), ops)
    return found


def counts(networks: dict[str, Row]) -> np.ndarray:
    return np.array([[row.ops.count(key) for key in KEYS] for row in networks.values()], float)


def test_a_block_between_measured_ones_is_interpolated_and_knows_its_error() -> None:
    device, rng = a_device(0), np.random.default_rng(1)
    errors, claimed = [], []
    for _ in range(4):
        hidden = sorted(rng.choice([key for key in KEYS if key.startswith("mbconv")], 20, replace=False))
        rows = [a_row(key, ms) for key, ms in device.items() if key not in hidden]
        guess, std = interpolate(rows, {key: BLOCKS[key] for key in hidden})
        errors += list(np.log(guess / [device[key] for key in hidden]))
        claimed += list(std)
    assert np.mean(np.abs(errors)) < 0.1
    assert 0.5 < np.std(np.array(errors) / claimed) < 2.0


def test_a_block_far_from_all_others_is_less_sure() -> None:
    rows = [a_row(key, ms) for key, ms in a_device(0).items()]
    near, far = CODEC.ops[40], OpSpec("mbconv", 224, 224, 512, 3072, 640, 7, 1, "relu")
    _, (sure, unsure) = interpolate(
        [row for row in rows if row.key != near.key], {near.key: Unit(near), far.key: Unit(far)}
    )
    assert unsure > 2 * sure


def test_blocks_of_other_kinds_are_far_and_guessed_with_doubt() -> None:
    ops = {op.kind: op for op in PopulationCodec(load_space("mnv4_hybrid_28")).ops if op.cin == op.cout == 48}
    assert np.linalg.norm(np.subtract(traits(ops["uib"]), traits(ops["mqa"]))) > 3
    same = replace(ops["uib"], start=0, kernel=3)
    assert traits(same) == traits(replace(same, kind="mbconv")), "an inverted bottleneck is one, whatever its kind"
    rows = [a_row(key, ms) for key, ms in a_device(0).items() if key != CODEC.ops[40].key]
    _, (near, far) = interpolate(rows, {op.key: Unit(op) for op in (CODEC.ops[40], ops["mqa"])})
    assert far > 2 * near


@pytest.mark.parametrize("kind", ["global_pool", "avg_pool", "add"])
def test_blocks_without_weights_or_macs_do_not_break_the_trend(kind: str) -> None:
    pooled = OpSpec(kind, 8, 8, 16, 0, 16, 1, 1, "none")
    rows = [a_row(key, ms) for key, ms in a_device(0).items()]
    row = replace(a_row(pooled.key, 0.01), specs=(pooled,))
    missing = {CODEC.ops[40].key: CODEC.units[40]}
    others = [one for one in rows if one.key not in missing]
    assert interpolate([row, *others], missing) == interpolate(others, missing)
    guess, std = interpolate(others, {**missing, pooled.key: Unit(pooled)})
    assert np.isfinite([*guess, *std]).all()


def test_other_devices_help_to_interpolate() -> None:
    rng = np.random.default_rng(2)
    quirk = {key: rng.lognormal(0, 0.3) for key in KEYS}  # of blocks, on whatever device of a kind
    device, other = ({key: ms * quirk[key] for key, ms in a_device(seed).items()} for seed in (0, 1))
    hidden = KEYS[10:30]
    rows = [a_row(key, ms) for key, ms in device.items() if key not in hidden]
    truth = np.array([device[key] for key in hidden])
    alone, helped = (
        np.abs(np.log(interpolate(rows, {key: BLOCKS[key] for key in hidden}, others)[0] / truth)).mean()
        for others in ([], [OtherDevice("a sibling", other)])
    )
    assert helped < 0.6 * alone


def test_a_model_over_a_table_with_gaps_predicts_with_more_doubt() -> None:
    device = a_device(3)
    networks = networks_of(device, 10, 3)
    whole = LatencyTable("d", {}, {key: a_row(key, ms) for key, ms in device.items()}, networks)
    gaps = replace(whole, rows={key: row for key, row in whole.rows.items() if key not in KEYS[20:40]})
    fresh = [SPACE.network(arch) for arch in CODEC.decode(CODEC.sample(30, np.random.default_rng(9)))]
    truth = np.array([sum(device[op.key] for op in network.ops) for network in fresh])
    guessing, knowing = LatencyModel(gaps, blocks=table_prior(gaps, BLOCKS)), LatencyModel(whole)
    assert np.abs(guessing.predict(fresh)[0] / truth - 1).mean() < 0.03
    doubt = [
        {block.op: block.std_ms for block in model.explain(SPACE.network(SPACE.largest))}
        for model in (guessing, knowing)
    ]
    hidden = doubt[0].keys() & set(KEYS[20:40])
    assert hidden
    assert np.mean([doubt[0][key] > doubt[1][key] for key in hidden]) > 0.9
    with pytest.raises(OpNotProfiled, match="never measured"):
        LatencyModel(gaps).predict(fresh)


def test_a_new_device_is_predicted_from_few_networks_and_other_devices() -> None:
    others = [OtherDevice(f"d{seed}", a_device(seed, kind=0.5 * seed)) for seed in range(1, 7)]
    device = a_device(20, kind=1.0)
    typical = counts(networks_of(device, 200, 5))
    blocks = prior_from_devices(BLOCKS, others, typical)
    assert blocks.devices == ("d1", "d2", "d3", "d4", "d5", "d6")
    heldout = networks_of(device, 100, 6)
    truth = np.array([sum(device[key] for key in row.ops) for row in heldout.values()])
    errors, spreads, covered = [], [], []
    for few in (0, 3, 20):
        table = LatencyTable("new", {}, {}, networks_of(device, few, 7))
        mean, std = LatencyModel(table, blocks=blocks).predict_ops([row.ops for row in heldout.values()])
        errors.append(np.abs(mean / truth - 1).mean())
        spreads.append((std / mean).mean())
        covered.append((truth <= mean + 1.645 * std).mean())
    assert spreads[0] > 0.8, "nothing was measured: it must be unsure"
    assert errors[2] < 0.02
    assert spreads[0] > spreads[1] > spreads[2]
    assert min(covered) > 0.85


def test_without_other_devices_the_prior_counts_work() -> None:
    device = a_device(30)
    networks, heldout = networks_of(device, 20, 1), networks_of(device, 50, 2)
    blocks = prior_from_devices(BLOCKS, [], counts(heldout))
    assert blocks.source == "MACs, traffic, weights and launches"
    mean, _ = LatencyModel(LatencyTable("new", {}, {}, networks), blocks=blocks).predict_ops(
        [row.ops for row in heldout.values()]
    )
    truth = np.array([sum(device[key] for key in row.ops) for row in heldout.values()])
    assert np.abs(mean / truth - 1).mean() < 0.03


def test_a_model_comes_back_from_its_file_with_the_same_predictions(tmp_path) -> None:
    device = a_device(4)
    networks = networks_of(device, 6, 4)
    rows = {key: a_row(key, ms) for key, ms in device.items() if key not in KEYS[50:60]}
    table = LatencyTable("d", {"runtime": "r"}, rows, networks)
    few = LatencyTable("d", {"runtime": "r"}, {}, networks)
    asked = [row.ops for row in networks_of(device, 5, 8).values()]
    for model in (
        LatencyModel(table, blocks=table_prior(table, BLOCKS), statistic="p90"),
        LatencyModel(few, blocks=prior_from_devices(BLOCKS, [OtherDevice("o", device)], counts(networks))),
    ):
        model.save(tmp_path / "model.json")
        read = LatencyModel.load(tmp_path / "model.json")
        assert read.blocks.origin == model.blocks.origin
        assert np.array(read.predict_ops(asked)) == pytest.approx(np.array(model.predict_ops(asked)), rel=1e-9)
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text[: len(text) // 2])
    with pytest.raises(UsageError, match="truncated"):
        LatencyModel.load(tmp_path / "model.json")
    with pytest.raises(UsageError, match="cannot read"):
        LatencyModel.load(tmp_path / "none.json")


def test_a_prior_survives_json() -> None:
    blocks = prior_from_devices(BLOCKS, [OtherDevice("o", a_device(1))], np.ones((3, len(KEYS))))
    read = BlockPrior.from_json(json.loads(json.dumps(blocks.to_json())))
    assert (read.keys, read.origin, read.devices, read.level) == (
        blocks.keys,
        blocks.origin,
        blocks.devices,
        blocks.level,
    )
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(read.prior.terms, blocks.prior.terms, strict=True))


def test_an_explanation_adds_up_to_the_prediction() -> None:
    device = a_device(5)
    rows = {key: a_row(key, ms) for key, ms in device.items() if key not in KEYS[:1]}
    table = LatencyTable("d", {}, rows, networks_of(device, 6, 4))
    model = LatencyModel(table, blocks=table_prior(table, BLOCKS))
    network = SPACE.network(SPACE.largest)
    blocks = model.explain(network)
    assert sum(block.posterior_ms for block in blocks) == pytest.approx(model.predict([network])[0][0])
    assert sum(block.share for block in blocks) == pytest.approx(1)
    assert [block.name for block in blocks] == list(network.names)
    assert all(block.std_ms > 0 for block in blocks)
    guessed = {block.op: block.table_ms for block in blocks if block.origin == "interpolated"}
    assert set(guessed) == set(KEYS[:1])
    assert all(ms is None for ms in guessed.values())
