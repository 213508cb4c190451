import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_deploy.blocks import counts
from ofa_deploy.errors import OpNotProfiled, UsageError
from ofa_deploy.latency import (
    AuditedNetwork,
    LatencyModel,
    LatencyTable,
    Measurement,
    Row,
    audit_statistics,
    audit_summary,
    differences,
    leave_one_out,
    left_out,
)
from ofa_deploy.latency.model import Level
from ofa_deploy.latency.posterior import fit
from ofa_deploy.space import PopulationCodec, load_space

CODEC = PopulationCodec(load_space("small_28"))
CONDITION = {"runtime": "onnxruntime", "runtime_version": "1", "threads": 1}


def a_row(key: str, ms: float, ops: tuple[str, ...] = (), se: float = 0.01) -> Row:
    return Row(key, ops or (key,), ms, ms, ms, 72, 0.02, se)


def a_device(seed: int, networks: int, scale: float = 1.07, boundary: float = -0.002):
    """A made-up device: true block times, a table with errors, networks that are not quite the sum of blocks."""
    rng = np.random.default_rng(seed)
    true = {op.key: (0.005 + counts.macs(op.block) / 4e6) * rng.lognormal(0, 0.2) for op in CODEC.ops}
    rows = {key: a_row(key, ms * rng.normal(1, 0.02)) for key, ms in true.items()}
    population = CODEC.sample(networks, rng)
    measured = {}
    for arch in CODEC.decode(population):
        network = CODEC.space.network(arch)
        ops = tuple(op.key for op in network.ops)
        ms = (scale * sum(true[key] for key in ops) + boundary * len(ops)) * rng.normal(1, 0.01)
        measured[network.key] = a_row(network.key, ms, ops)
    return rows, measured


def a_model(rows: dict, networks: dict) -> LatencyModel:
    return LatencyModel(LatencyTable("made-up", CONDITION, rows, networks))


def test_without_networks_the_mean_is_the_tables_sum() -> None:
    rows, networks = a_device(0, 5)
    model = a_model(rows, {})
    total = [model.table.total(row.ops) for row in networks.values()]
    mean, std = model.predict_ops([row.ops for row in networks.values()])
    assert mean == pytest.approx(total)
    assert (std / mean > 0.1).all(), "nothing whole was measured: it must be unsure"


def test_networks_correct_the_table_and_the_bound_covers() -> None:
    before, after, covered = [], [], []
    for seed in range(8):
        rows, networks = a_device(seed, 60)
        keys = list(networks)
        model = a_model(rows, {key: networks[key] for key in keys[:10]})
        rest = [networks[key] for key in keys[10:]]
        measured = np.array([row.p50 for row in rest])
        mean, std = model.predict_ops([row.ops for row in rest])
        table = np.array([model.table.total(row.ops) for row in rest])
        after.append(audit_statistics(mean, std, measured))
        before.append(audit_statistics(table, std, measured))
        covered.append(after[-1].coverage_95)
    assert np.mean([a.mape for a in after]) < 0.6 * np.mean([b.mape for b in before])
    assert np.mean([a.mape for a in after]) < 0.02
    assert 0.9 <= np.mean(covered) <= 1.0


def test_population_predictions_equal_network_predictions() -> None:
    rows, networks = a_device(1, 10)
    model = a_model(rows, networks)
    population = CODEC.sample(300, np.random.default_rng(9))
    mean, std = model.bind(CODEC).predict(population)
    expected_mean, expected_std = model.predict([CODEC.space.network(arch) for arch in CODEC.decode(population)])
    assert mean == pytest.approx(expected_mean)
    assert std == pytest.approx(expected_std, rel=1e-3)
    assert model.bind(CODEC).mean(population) == pytest.approx(expected_mean)
    assert model.bind(CODEC).predict(population[:0])[0].shape == (0,)


def test_a_block_that_was_never_measured_is_named_with_the_remedy() -> None:
    rows, _ = a_device(0, 1)
    gone = next(iter(rows))
    del rows[gone]
    with pytest.raises(OpNotProfiled, match=rf"{gone}.*ofa-deploy profile --target made-up"):
        a_model(rows, {}).bind(CODEC)


def test_leave_one_out() -> None:
    rows, networks = a_device(2, 12)
    got = leave_one_out(a_model(rows, networks))
    assert got is not None
    assert got.mape < 0.03
    assert leave_one_out(a_model(rows, {})) is None


@pytest.mark.parametrize("count", [1, 5, 9, 30, 60])
def test_leaving_out_equals_a_refit(count: int) -> None:
    """Two sessions, of which the second is slower, and a p50 that lies above what a network takes undisturbed."""
    rows, networks = a_device(3, count)
    for i, (key, row) in enumerate(networks.items()):
        late, ratio = i % 3 == 0, 1.04 + 0.01 * (i % 5)
        slow = row.p50 * (1.02 if late else 1.0)
        networks[key] = replace(row, measured_at=f"2026-01-0{1 + late}", best=slow, best_se=0.01, p50=ratio * slow)
    model = a_model(rows, networks)
    mean, std = left_out(model)
    refits = [model.without(key).predict_ops([networks[key].ops]) for key in model.evidence]
    expected, spread = np.array(refits)[:, :, 0].T
    assert (np.abs(mean - expected) < 0.1 * spread).all()
    assert std == pytest.approx(spread, rel=0.1)
    assert count > 8 or (mean == expected).all()


def test_a_model_of_an_earlier_version_predicts_as_it_did() -> None:
    """Its file says nothing of the way of fitting; what leaves a network out is a refit."""
    rows, networks = a_device(4, 40)
    written = a_model(rows, networks).to_json()
    assert written.pop("fit") == 2
    old = LatencyModel.from_json(written)
    assert old.fit == 1
    assert old.without(old.evidence[0]).fit == old.learned(networks[old.evidence[0]]).fit == 1
    rows = [networks[key] for key in old.evidence]
    x, y = old.counts([row.ops for row in rows]), np.array([row.best for row in rows])
    shared = (x @ old.blocks.prior.mean)[:, None]
    posterior = fit(old.blocks.prior.widened(1, 0.002, 0.05), np.hstack([x, shared]), y, 0.01, thorough=True)
    assert old.posterior.mean == pytest.approx(posterior.mean[:-1])
    with pytest.raises(UsageError, match="newer version"):
        LatencyModel.from_json({**written, "fit": 3})


def test_the_level_of_sessions_by_hand() -> None:
    rows = [
        replace(a_row("n", ms), measured_at=at, best=1.0)
        for at, values in (("a", (1.1, 1.2, 1.4)), ("b", (1.3, 1.5)), ("c", (1.2,)))
        for ms in values
    ]
    level = Level.of(rows, "p50")
    middles = [np.log(1.2), (np.log(1.3) + np.log(1.5)) / 2, np.log(1.2)]
    assert level.factor == pytest.approx(np.exp(np.mean(middles)))
    spread = ((np.array(middles) - np.mean(middles)) ** 2).sum() + (np.mean(middles) / 2) ** 2
    assert level.unsure == pytest.approx(np.sqrt(spread / 3 * (1 + 1 / 3)))
    expected = [Level.of(rows[:i] + rows[i + 1 :], "p50") for i in range(len(rows))]
    for without, level in zip(Level.without_each(rows, "p50"), expected, strict=True):
        assert vars(without) == pytest.approx(vars(level))


def a_record(key: str, ms: float, threads: int = 1, kind: str = "op", **condition: object) -> Measurement:
    fields = {
        "device": "d",
        "kind": kind,
        "key": key,
        "ops": [key],
        "condition": {**CONDITION, "threads": threads, **condition},
        **dict.fromkeys(("p50", "p90", "p99"), ms),
        "n": 3,
        "cov": 0.1,
        "se": 0.01,
        "flags": [],
        "measured_at": "2026-01-01T00:00:00Z",
    }
    return Measurement.from_json(fields)


def test_the_newest_record_counts_and_conditions_do_not_mix() -> None:
    table = LatencyTable.from_records("d", [a_record("a", 1.0), a_record("a", 2.0), a_record("n", 9.0, kind="network")])
    assert (table.rows["a"].p50, table.networks["n"].p50) == (2.0, 9.0)
    with pytest.raises(UsageError, match="threads is 1 and 2"):
        LatencyTable.from_records("d", [a_record("a", 1.0), a_record("b", 1.0, threads=2)])


def test_all_that_differs_is_named_and_an_old_record_ran_in_an_unknown_power_mode() -> None:
    old, new = a_record("a", 1.0), a_record("b", 1.0, power_mode="unknown")
    table = LatencyTable.from_records("d", [old, new])
    assert (list(table.rows), table.condition["power_mode"]) == (["a", "b"], "unknown")
    other = a_record("c", 1.0, threads=2, power_mode="performance")
    with pytest.raises(UsageError, match="threads is 1 and 2; power_mode is 'unknown' and 'performance'"):
        LatencyTable.from_records("d", [old, other])
    assert differences(old.condition, new.condition) == {}
    assert differences({}, {"a": 1}) == {"a": (None, 1)}


def test_table_files_round_trip_and_damage_is_found(tmp_path: Path) -> None:
    rows, networks = a_device(0, 3)
    table, file = LatencyTable("d", CONDITION, rows, networks), tmp_path / "d.json"
    table.save(file)
    assert LatencyTable.load(file) == table
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    with pytest.raises(UsageError, match="truncated or edited"):
        LatencyTable.load(file)
    file.write_text(text.replace('"p50": 0.0', '"p50": 0.1', 1))
    with pytest.raises(UsageError, match="truncated or edited"):
        LatencyTable.load(file)
    with pytest.raises(UsageError, match="cannot read"):
        LatencyTable.load(tmp_path / "none.json")


def test_model_json_gives_the_same_predictions() -> None:
    rows, networks = a_device(4, 6)
    model = a_model(rows, networks)
    again = LatencyModel.from_json(json.loads(json.dumps(model.to_json())))
    assert again.effects == model.effects


def test_audit_statistics_by_hand() -> None:
    got = audit_statistics(np.array([1.0, 2.2, 2.7]), np.array([0.1, 0.01, 0.3]), np.array([1.0, 2.0, 3.0]))
    assert got.mape == pytest.approx((0 + 0.1 + 0.1) / 3)
    assert got.bias == pytest.approx(0.0)
    assert (got.within_5, got.spearman, got.coverage_95) == (pytest.approx(1 / 3), 1.0, 1.0)
    assert audit_statistics(np.ones(2), np.ones(2), np.ones(2)).spearman is None
    assert audit_statistics(np.ones(3), np.ones(3), np.array([1.0, 2.0, 3.0])).kendall is None


def audited(errors: list[float], noise: float, std: float = 0.1) -> dict[str, Any]:
    """The summary of an audit whose predictions are off by the given fractions; the table says twice as much."""
    networks = [
        AuditedNetwork(
            key=f"{i}",
            predicted_ms=(1 + error) * (1 + i),
            std_ms=std * (1 + i),
            table_ms=2.0 * (1 + i),
            table_std_ms=0.0,
            measured_ms=1.0 + i,
            halves_ms=[(1 + noise) * (1 + i), 1.0 + i],
        )
        for i, error in enumerate(errors)
    ]
    return audit_summary(networks, 7).to_json()


def test_an_audit_says_the_same_of_the_model_and_of_the_sum_of_blocks() -> None:
    got = audited([0.01, -0.01, 0.01, -0.03], 0.02)
    assert (got["n_fit"], got["n_heldout"]) == (7, 4)
    assert got["mape"] == pytest.approx(0.015)
    assert got["bias"] == pytest.approx(-0.005)
    assert got["repeatability"] == pytest.approx(0.02)
    alone = got["table_only"]
    assert alone.keys() == got.keys() - {"status", "verdict", "table_only"}
    assert (alone["n_fit"], alone["n_heldout"], alone["mape"], alone["coverage_95"]) == (0, 4, 1.0, 1.0)
    assert alone["repeatability"] == got["repeatability"]


@pytest.mark.parametrize(
    ("errors", "noise", "status", "says"),
    [
        ([0.01, -0.02, 0.015, -0.01], 0.01, "trusted", "trust it"),
        ([0.06, -0.06, 0.02, -0.01], 0.01, "usable", "finalists are measured anyway"),
        ([-0.3, -0.25, -0.3, -0.28], 0.01, "not trusted", "slower than when it was profiled"),
        ([0.3, 0.25, 0.3, 0.28], 0.01, "not trusted", "faster than when it was profiled"),
        ([0.3, -0.25, 0.3, -0.28], 0.2, "not trusted", "quieter machine"),
        ([0.3, -0.25, 0.3, -0.28], 0.01, "not trusted", "more whole networks"),
    ],
)
def test_the_verdict_says_what_to_do(errors: list[float], noise: float, status: str, says: str) -> None:
    got = audited(errors, noise)
    assert got["status"] == status
    assert says in got["verdict"]
    assert f"mean error {100 * got['mape']:.1f} %" in got["verdict"]


def test_the_verdict_says_that_the_bound_did_not_hold() -> None:
    assert "held for only 50 %" in audited([0.01, -0.02, 0.01, -0.02], 0.01, std=0.0)["verdict"]


def test_a_measurement_moves_the_blocks_of_its_network_towards_itself() -> None:
    rows, networks = a_device(4, 6)
    model = a_model(rows, networks)
    row = next(iter(model.table.networks.values()))
    slower = model.learned(replace(row, p50=1.1 * row.p50, best=1.1 * row.best))
    before, after = (sum(m.effects[key] for key in row.ops) for m in (model, slower))
    assert before < after < 1.1 * row.p50
    assert model.learned(row).effects == pytest.approx(model.effects)
    assert slower.evidence == model.evidence
