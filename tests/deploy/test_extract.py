"""Extraction against a made-up device that is slower than its table says: the promise must be kept or refused."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.accuracy.belief import Belief, Validation
from ofa_deploy.api.front_search import pareto
from ofa_deploy.blocks import counts
from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy import bundling
from ofa_deploy.deploy.budgets import Spread
from ofa_deploy.deploy.cell_networks import family_subject
from ofa_deploy.deploy.choosing import ranked, worth_measuring
from ofa_deploy.deploy.earlier_answers import Earlier, earlier_answers
from ofa_deploy.deploy.extract import extract as extract_order
from ofa_deploy.deploy.order import Order
from ofa_deploy.deploy.precisions import extract_best
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.deploy.remember import remember_bundle
from ofa_deploy.deploy.subject import random_subject
from ofa_deploy.differentiable import random_genotype
from ofa_deploy.errors import GateFailed, InfeasibleBudget, OpNotProfiled
from ofa_deploy.export import verify_bundle
from ofa_deploy.fleet.auditing import audit
from ofa_deploy.fleet.gauge import FRESH_S, Gauge, fresh_session
from ofa_deploy.fleet.profiling import block_item, profile
from ofa_deploy.latency import LatencyModel, Measurement
from ofa_deploy.latency_models import load_table
from ofa_deploy.search import Constraints
from ofa_deploy.space import PRESETS, CellSpace, PopulationCodec, load_space
from ofa_deploy.store import Workspace


def build_bundle(*args):
    """Write a bundle; its report as JSON."""
    return bundling.build_bundle(*args).to_json()


SPACE = load_space({"name": "narrow", "base": "tiny_16", "resolutions": (16,), "widths": (1.0,)})
TARGET = TargetProfile(name="made-up", description="a test", runtime="onnxruntime", opset=17)


def extract(fleet, workspace, subject, target, constraints, **more):
    """The answer to an order."""
    return extract_order(fleet, workspace, Order(subject, target, constraints, **more))


class MadeUpFleet:
    """Answers like a fleet: blocks take what they take, networks a factor more than their blocks together."""

    def __init__(self, workspace: Workspace, factor: float) -> None:
        self._store, self.factor, self.jobs = workspace.store, factor, []
        self.changed = {}  # in the condition, since then
        self.factors = iter(())  # of the next jobs
        self.facts = {"cpu": "made-up"}
        self.slower = lambda item: 1.0
        self.quicker = {}  # what share of the time a precision takes

    def fetch(self, device):
        pass

    def measure(self, target, items, protocol=None, progress=None):
        records = []
        self.factor = next(self.factors, self.factor)
        for item in items:
            blocks = self.quicker.get(target.precision, 1.0) * sum(
                0.01 + counts.macs(op.block) / 1e7 for op in item.network.ops
            )
            ms = blocks if item.kind == "op" else self.factor * blocks * self.slower(item)
            records.append(
                {
                    "device": target.name,
                    "kind": item.kind,
                    "key": item.key,
                    "ops": item.network.unit_keys,
                    "specs": [unit.op.to_json() for unit in item.network.units],
                    "arch": item.arch.to_json() if item.arch else None,
                    "condition": {
                        "runtime": "onnxruntime",
                        "runtime_version": "1",
                        "provider": target.provider,
                        "precision": target.precision,
                        "batch": 1,
                        "threads": 1,
                        "simulated": False,
                        **self.changed,
                    },
                    "facts": self.facts,
                    "settings": {},
                    "rounds": [ms] * 12,
                    "timings": [[ms] * 6] * 12,
                    **dict.fromkeys(("p50", "p90", "p99"), ms),
                    "n": 72,
                    "cov": 0.0,
                    "se": 0.0,
                    "burst": 1,
                    "sentinel_ms": 0.02,
                    "flags": [],
                    "started_at": "2026-01-01T00:00:00Z",
                    "measured_at": f"2026-01-01T00:00:{len(self.jobs):02}Z",
                    "run": f"{len(self.jobs)}",
                    "item": f"{item.kind} {item.key}",
                }
            )
        self.jobs.append(records)
        self._store.add_measurements(records)
        return [Measurement.from_json(record) for record in records]


@pytest.fixture
def workspace(tmp_path: Path):
    opened = Workspace.open(tmp_path / "ws")
    yield opened
    opened.store.close()


def test_a_device_slower_than_its_table_still_gets_a_subnet_that_fits(workspace: Workspace, tmp_path: Path) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    fleet.factor = 1.25  # the device got slower after it was profiled
    budget = 0.2
    result = extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=budget))
    assert all(finalist.measured_ms <= budget for finalist in result.finalists), "the anchor said how slow it is"
    assert result.chosen.measured_ms <= budget
    assert result.chosen.predicted_ms == pytest.approx(result.chosen.measured_ms, rel=0.03)
    report = build_bundle(result, tmp_path / "bundle", "ofa-deploy extract …")
    assert report["latency"]["fits"] is True
    level = report["level"]
    assert level["factor"] == pytest.approx(1.25, rel=0.01)
    assert level["low"] < 1.25 < level["high"]
    assert [factor for _, factor in level["curve"]] == pytest.approx([1.25] * len(level["curve"]), rel=0.01)
    assert (level["profiled_at"], level["measured_at"]) == ("2026-01-01T00:00:00Z", result.chosen.record.measured_at)
    assert report["latency"]["as_measured_ms"] == pytest.approx(1.25 * report["latency"]["as_profiled_ms"], rel=0.02)
    assert report["latency"]["predicted_ms"] == pytest.approx(result.chosen.point.latency_ms)
    assert len(result.chosen.records) == 2, "what is promised was measured in two sessions"
    low, high = report["latency"]["interval_ms"]
    assert low < report["latency"]["measured_ms"]["p50"] < high
    assert verify_bundle(tmp_path / "bundle") == []


def test_a_budget_that_held_in_a_quiet_hour_fails_with_the_reason_and_one_that_holds_now(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    quiet = extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.08)).chosen.measured_ms
    fleet.factor, fleet.facts = 1.8, {"load": [3.0, 4.2], "cores": 2, "cores_busy_pct": 98.0}
    with pytest.raises(InfeasibleBudget) as raised:
        extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.08))
    said = str(raised.value)
    assert "1.80 times as slow now as when it was profiled at 2026-01-01T00:00:00Z" in said
    assert "load 4.2 on 2 cores; cores 98 % busy" in said
    assert "which met the budget" in said
    assert quiet <= 0.08
    holds = float(said.split("a budget that holds now is ")[1].split(" ms")[0])
    assert (
        extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=holds)).chosen.measured_ms <= holds
    )


def test_the_anchor_is_of_the_networks_that_are_asked_about(workspace: Workspace) -> None:
    """A table may hold networks of other resolutions and spaces."""
    fleet = MadeUpFleet(workspace, factor=1.0)
    wide = load_space({"name": "narrow", "base": "tiny_16", "resolutions": (16, 20), "widths": (1.0,)})
    profile(fleet, workspace, TARGET, wide, networks=12)
    table = load_table(workspace, TARGET)
    model = LatencyModel(table)
    for space, some in ((wide, True), (wide.with_resolutions((16,)), True), (PRESETS["small_28"], False)):
        gauge = Gauge(workspace, TARGET, space, model)
        assert bool(gauge) is some
        assert all(item.key in table.networks for item in gauge.items)
    assert not Gauge(workspace, TARGET.model_copy(update={"runtime": "simulated"}), wide, model)


def test_a_session_of_the_last_seconds_tells_the_level(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    measured = datetime(2026, 1, 1, tzinfo=UTC)
    after_profile = fresh_session(workspace, TARGET.name, measured + timedelta(seconds=FRESH_S))
    assert {record.kind for record in after_profile} == {"op", "network"}
    gauge = Gauge(workspace, TARGET, SPACE, LatencyModel(load_table(workspace, TARGET)))
    assert gauge.seen_in(after_profile).factor(0.1)[0] == pytest.approx(1.0, rel=0.01)
    fleet.factor, asked = 1.3, (TARGET, Constraints(max_ms=0.2))
    extract(fleet, workspace, random_subject(SPACE), *asked)
    assert {record["kind"] for record in fleet.jobs[1]} == {"anchor"}, "a look comes first"
    stored, jobs = workspace.store.newest_session(TARGET.name), len(fleet.jobs)
    last = [Measurement.from_json(record) for record in stored]
    assert [record.key for record in last] == [record["key"] for record in fleet.jobs[-1]]
    again = extract(fleet, workspace, random_subject(SPACE), *asked, session=last)
    assert all({record["kind"] for record in job} == {"network", "anchor"} for job in fleet.jobs[jobs:]), "no look"
    assert again.chosen.predicted_ms == pytest.approx(again.chosen.measured_ms, rel=0.03)
    assert gauge.seen_in([record for record in last if record.kind == "network"]) is None, "without the anchor"


def test_a_session_of_a_minute_ago_tells_nothing(workspace: Workspace) -> None:
    MadeUpFleet(workspace, factor=1.0).measure(TARGET, [block_item(SPACE.network(SPACE.smallest).ops[0], TARGET)])
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert fresh_session(workspace, TARGET.name, at + timedelta(seconds=FRESH_S))
    assert fresh_session(workspace, TARGET.name, at + timedelta(seconds=FRESH_S + 1)) == []
    assert fresh_session(workspace, TARGET.name) == []
    assert fresh_session(workspace, "another") == []


def test_networks_of_cells_are_judged_at_the_level_of_now(workspace: Workspace, tmp_path: Path) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    genotype = random_genotype(2, np.random.default_rng(0))
    subject = family_subject(CellSpace("cells", genotype, (16,), (4, 8, 12, 16, 20, 24), (3, 5), 1, 10))
    usual = extract(fleet, workspace, subject, TARGET, Constraints(max_ms=100)).chosen.measured_ms
    fleet.factor = 1.4
    slower = extract(fleet, workspace, subject, TARGET, Constraints(max_ms=100))
    assert slower.chosen.measured_ms == pytest.approx(1.4 * usual)
    report = build_bundle(slower, tmp_path / "bundle", "ofa-deploy extract …")
    assert report["level"]["factor"] == pytest.approx(1.4, rel=0.01)
    with pytest.raises(
        InfeasibleBudget, match=r"1\.40 times as slow now.*a budget that holds now is ([0-9.]+) ms"
    ) as no:
        extract(fleet, workspace, subject, TARGET, Constraints(max_ms=0.001))
    holds = float(str(no.value).split("a budget that holds now is ")[1].split(" ms")[0])
    assert extract(fleet, workspace, subject, TARGET, Constraints(max_ms=holds)).chosen.measured_ms <= holds


def test_an_audit_of_cells_judges_at_the_level_of_its_rounds(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    space = CellSpace(
        "cells", random_genotype(2, np.random.default_rng(0)), (16,), tuple(range(4, 24, 2)), (3, 5), 1, 10
    )
    ready_model(fleet, workspace, TARGET, space)
    fleet.factor = 1.4
    found = audit(fleet, workspace, TARGET, space)
    assert found.level.factor == pytest.approx(1.4, rel=0.01)
    assert found.summary.model.errors.mape < 0.02 < 0.25 < found.as_profiled.mape


def test_a_front_of_now_is_as_much_slower_as_the_device(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    fleet.factor = 1.5
    monkeypatch.setattr("ofa_deploy.fleet.gauge.Fleet.open", lambda workspace: nullcontext(fleet))
    monkeypatch.setattr("ofa_deploy.api.front_search.resolve_target", lambda name, workspace: TARGET)
    monkeypatch.setattr("ofa_deploy.api.front_search.question_of", lambda *_: (SPACE, None, "random"))
    then, now = (pareto("made-up", points=3, now=now, workspace=workspace) for now in (False, True))
    assert now.points()[0]["latency_ms"] == pytest.approx(1.5 * then.points()[0]["latency_ms"], rel=0.02)
    assert now.answer["targets"]["made-up"]["level"]["factor"] == pytest.approx(1.5, rel=0.01)
    assert "level" not in then.answer["targets"]["made-up"]


def test_finalists_over_the_budget_say_the_same(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    fleet.factors = iter([1.0, *[1.6] * 20])  # it gets slower after the anchor was measured
    with pytest.raises(GateFailed, match=r"1\.60 times as slow now.*a budget that holds now is [0-9.]+ ms"):
        extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.08))


@pytest.mark.parametrize("factors", [(1.0,), (1.0, 3.0), (2.0, 1.0), (1.0, 1.5, 2.5, 4.0, 1.0), (1.0, 5.0, 1.0, 5.0)])
def test_derived_budgets_are_met_however_the_level_moves(workspace: Workspace, factors: tuple[float, ...]) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    fleet.factors = (factors[i // 2 % len(factors)] for i in range(1000))
    above = 0.0
    for place in range(3):
        subject = random_subject(SPACE)
        found = extract(fleet, workspace, subject, TARGET, Constraints(), spread=Spread(place, 3, above))
        budget = found.constraints.max_ms
        assert budget is not None
        assert above < budget
        assert found.chosen.measured_ms <= budget
        above = budget


def test_a_subnet_that_fits_with_room_for_other_sessions_comes_first(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    found = extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.2)).finalists[:2]
    better, roomy = (
        replace(finalist, valid=Validation(accuracy, 500), records=(finalist.record.model_copy(update={"p50": ms}),))
        for finalist, accuracy, ms in zip(found, (0.9, 0.8), (0.19, 0.17), strict=True)
    )
    assert ranked([roomy, better], Constraints(max_ms=0.2), session_std=0.01) == [better, roomy]
    assert ranked([roomy, better], Constraints(max_ms=0.2), session_std=0.05) == [roomy, better]
    assert ranked([roomy, better], Constraints(max_ms=0.2, confidence=0.5), session_std=0.05) == [better, roomy]
    assert ranked([roomy, better], Constraints(max_ms=None), session_std=0.05) == [better, roomy]
    proven = replace(better, earlier_ms=0.199)
    assert ranked([roomy, proven], Constraints(max_ms=0.2), session_std=0.05) == [proven, roomy], "it fitted before"


def test_a_larger_derived_budget_gets_no_worse_network_when_the_device_gets_slower(workspace: Workspace) -> None:
    """The smaller budget's answer no longer fits the larger one: the derived budget follows it."""
    fleet, subject = MadeUpFleet(workspace, factor=1.0), random_subject(SPACE)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    first = extract(fleet, workspace, subject, TARGET, Constraints(), spread=Spread(0, 3))
    answer, budget = first.chosen, first.constraints.max_ms
    assert budget is not None
    known = [Earlier(answer.point.arch, None, answer.measured_ms)]
    fleet.factors = iter([1.0, *[1.4] * 50])  # after the anchor was measured
    second = extract(
        fleet, workspace, subject, TARGET, Constraints(), spread=Spread(1, 3, budget), earlier=known, seed=1
    )
    assert second.constraints.max_ms is not None
    assert second.chosen.measured_ms <= second.constraints.max_ms
    assert second.chosen.worth >= answer.worth
    assert second.constraints.max_ms > budget


def test_finalists_of_another_condition_do_not_mix_with_the_table(workspace: Workspace, tmp_path: Path) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    known = load_table(workspace, TARGET)
    fleet.factor, fleet.changed = 1.25, {"runtime_version": "2", "power_mode": "powersave"}
    result = extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.2))
    assert result.chosen.measured_ms <= 0.2
    tables = [finalist.predictor.table for finalist in result.finalists]
    assert tables[0].condition == known.condition
    assert tables[0].networks.keys() == known.networks.keys()
    assert tables[-1].condition["runtime_version"] == "2", "the device as it is now was profiled"
    again = known.networks.keys() & tables[-1].networks.keys()
    assert again, "some networks were measured under both conditions"
    assert all(tables[-1].networks[key].p50 > known.networks[key].p50 for key in again)
    report = build_bundle(result, tmp_path / "bundle", "ofa-deploy extract …")
    assert report["target"]["power_mode"] == "powersave"
    assert verify_bundle(tmp_path / "bundle") == []


def test_a_table_of_another_condition_is_named_where_profiling_is_forbidden(
    workspace: Workspace, tmp_path: Path
) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    fleet.changed = {"runtime_version": "2", "power_mode": "powersave"}
    result = extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.2), may_profile=False)
    report = build_bundle(result, tmp_path / "bundle", "ofa-deploy extract …")
    assert any("runtime_version was 1, is 2" in n and "power_mode was unknown" in n for n in report["notes"])


def test_finalists_are_ranked_by_what_is_believed_not_by_a_lucky_validation(workspace: Workspace) -> None:
    fleet, free = MadeUpFleet(workspace, factor=1.0), Constraints(max_ms=0.2)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    found = extract(fleet, workspace, random_subject(SPACE), TARGET, free).finalists[:2]
    lucky, better = (
        replace(finalist, belief=Belief(mean, 0.003), valid=Validation(share, 500))
        for finalist, mean, share in zip(found, (0.90, 0.91), (0.915, 0.905), strict=True)
    )
    assert ranked([lucky, better], free, session_std=0.0) == [better, lucky]
    assert better.worth == better.posterior.mean == pytest.approx(0.9098, abs=2e-4)
    sure = [replace(one, belief=Belief(one.belief.mean, 0.05)) for one in (lucky, better)]
    assert ranked(sure[::-1], free, session_std=0.0) == sure, "a predictor that errs by 5 points says little"
    zero = replace(better, belief=None, valid=Validation(0.0, 500))
    assert zero.worth < 0.01, "no right answer is a result, not an unknown accuracy"
    ahead = replace(found[0].point, accuracy=0.9095, arch=SPACE.smallest)
    assert worth_measuring([ahead], [lucky], free) == [ahead]
    assert worth_measuring([ahead], [lucky, better], free) == []


def test_a_larger_budget_gets_no_worse_network_than_a_smaller_one_got(workspace: Workspace, tmp_path: Path) -> None:
    fleet, subject = MadeUpFleet(workspace, factor=1.0), random_subject(SPACE)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    assert earlier_answers(workspace, subject, TARGET, Constraints(max_ms=0.2)) == []
    small = extract(fleet, workspace, subject, TARGET, Constraints(max_ms=0.16))
    report = bundling.build_bundle(small, tmp_path / "small", "ofa-deploy extract …")
    remember_bundle(workspace, small, report, tmp_path / "small")
    known, asked, front = Earlier(small.chosen.point.arch), Constraints(max_ms=0.2), [SPACE.smallest]
    assert earlier_answers(workspace, subject, TARGET, asked)[0] == known
    alone = extract(fleet, workspace, subject, TARGET, asked, front=front)
    assert alone.chosen.worth < small.chosen.worth, "what is searched here is worse"
    both = extract(fleet, workspace, subject, TARGET, asked, front=front, earlier=[known, known])
    assert both.chosen.point.arch == small.chosen.point.arch
    assert len(both.chosen.records) == 2, "measured again, and confirmed, as every finalist is"
    assert both.recalled == {known.arch.key}
    report = build_bundle(both, tmp_path / "large", "ofa-deploy extract …")
    assert any("was measured for an earlier question" in note for note in report["notes"])
    assert verify_bundle(tmp_path / "large") == []
    fleet.factor = 1.5  # in this hour the earlier answer does not fit
    slow = extract(fleet, workspace, subject, TARGET, asked, front=front, earlier=[known])
    assert slow.chosen.point.arch == SPACE.smallest


def test_earlier_answers_are_those_to_the_same_question(workspace: Workspace, tmp_path: Path) -> None:
    fleet, subject, asked = MadeUpFleet(workspace, factor=1.0), random_subject(SPACE), Constraints(max_ms=0.2)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    result = extract(fleet, workspace, subject, TARGET, Constraints(max_ms=0.16))
    remember_bundle(workspace, result, bundling.build_bundle(result, tmp_path / "b", "…"), tmp_path / "b")
    fitting = [one for one in result.finalists if one.measured_ms <= 0.16]
    beside = [one for one in result.finalists if one is not result.chosen]
    known = [Earlier(one.point.arch) for one in (result.chosen, *beside)]
    fastest = min(result.finalists, key=lambda one: one.measured_ms)

    def found(bounds: Constraints = asked, subject=subject, target: TargetProfile = TARGET) -> list[Earlier]:
        return earlier_answers(workspace, subject, target, bounds)

    assert found(Constraints(max_macs=1e9)) == known, "no bound on the latency"
    assert found(Constraints(max_ms=0.16)) == [one for one in known if one.arch in [f.point.arch for f in fitting]]
    assert found(Constraints(max_ms=fastest.measured_ms)) == [Earlier(fastest.point.arch)]
    assert found(Constraints(max_ms=0.999 * fastest.measured_ms)) == []
    assert found(asked.model_copy(update={"statistic": "p90"})) == []
    assert found(subject=random_subject(SPACE, seed=1)) == [], "another supernet"
    assert found(target=TARGET.model_copy(update={"name": "another"})) == []
    smallest_only = Constraints(max_ms=0.2, max_macs=1.0 + op_macs_of(SPACE.smallest))
    roomless = extract(fleet, workspace, subject, TARGET, smallest_only, earlier=known)
    assert roomless.chosen.point.arch == SPACE.smallest, "an earlier answer meets the other bounds too"
    fleet.changed = {"runtime_version": "2"}
    profile(fleet, workspace, TARGET, SPACE, networks=6, refresh=True)
    assert found() == [], "another condition"


def op_macs_of(arch) -> int:
    return sum(counts.macs(op.block) for op in SPACE.network(arch).ops)


def test_a_changed_condition_is_profiled_whole(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    blocks = profile(fleet, workspace, TARGET, SPACE, networks=6).rows.keys()
    wider = load_space({**SPACE.to_json(), "resolutions": (16, 24)})
    fleet.changed = {"runtime_version": "2"}
    table = profile(fleet, workspace, TARGET, wider, networks=6)
    assert table.condition["runtime_version"] == "2"
    assert blocks < table.rows.keys()
    assert len(table.networks) == 6


def test_memory_bounds_what_is_extracted(workspace: Workspace, tmp_path: Path) -> None:
    fleet, subject, target = MadeUpFleet(workspace, 1.0), random_subject(SPACE), TARGET.model_copy(update={"batch": 4})
    sizes = PopulationCodec(SPACE).memory(PopulationCodec(SPACE).sample(500, np.random.default_rng(0)), batch=4) / 1e6
    bound = float(np.quantile(sizes, 0.2))
    fleet.changed = {"batch": 4}
    result = extract(fleet, workspace, subject, target, Constraints(max_memory_mb=bound))
    report = build_bundle(result, tmp_path / "bundle", "ofa-deploy extract …")
    assert 0.9 * bound < report["subnet"]["memory_mb"] <= bound
    assert report["constraints"]["max_memory_mb"] == bound
    assert verify_bundle(tmp_path / "bundle") == []


def test_equal_measurements_give_equal_bytes(workspace: Workspace, tmp_path: Path) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    result = extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.2))
    for name in ("a", "b"):
        build_bundle(result, tmp_path / name, "the same command")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) >= 7
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_a_promise_that_cannot_be_kept_is_refused(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    fleet.factor = 5.0
    with pytest.raises((GateFailed, InfeasibleBudget)) as error:
        extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.2))
    assert error.value.exit_code in (3, 4)
    assert " ms" in str(error.value)


def test_profiling_can_be_refused_and_is_not_repeated(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    subject = random_subject(SPACE)
    with pytest.raises(OpNotProfiled, match="ofa-deploy profile --target made-up"):
        extract(fleet, workspace, subject, TARGET, Constraints(max_ms=0.2), may_profile=False)
    assert not fleet.jobs
    extract(fleet, workspace, subject, TARGET, Constraints(max_ms=0.2))
    jobs = len(fleet.jobs)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    assert len(fleet.jobs) == jobs, "everything was measured already"
    profile(fleet, workspace, TARGET, SPACE, networks=6, refresh=True)
    assert len(fleet.jobs) == jobs + 1
    assert len(fleet.jobs[-1]) == len(load_table(workspace, TARGET).rows) + 6


def test_networks_reach_from_the_smallest_to_the_largest(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    table = profile(fleet, workspace, TARGET, SPACE, networks=8)
    measured = np.array([row.p50 for row in table.networks.values()])
    assert len(measured) == 8
    ends = [
        sum(0.01 + counts.macs(op.block) / 1e7 for op in SPACE.network(arch).ops)
        for arch in (SPACE.smallest, SPACE.largest)
    ]
    assert [measured.min(), measured.max()] == pytest.approx(ends)


def test_an_audit_measures_networks_that_were_not_fitted(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    fitted = set(load_table(workspace, TARGET).networks)
    answer = audit(fleet, workspace, TARGET, SPACE, networks=12)
    assert (answer.summary.model.n_fit, answer.summary.model.n_heldout) == (6, 12)
    assert not fitted & {network.key for network in answer.networks}
    assert answer.summary.model.errors.mape < 0.01, "this device is the sum of its blocks"
    assert answer.summary.model.repeatability == 0
    assert "trust it" in answer.summary.verdict
    fleet.factor = 1.3
    slower = audit(fleet, workspace, TARGET, SPACE, networks=12, seed=1)
    assert slower.level.factor == pytest.approx(1.3, rel=0.01)
    assert slower.summary.model.errors.mape < 0.01, "judged at the level of its rounds"
    assert slower.as_profiled.bias == pytest.approx(1 / 1.3 - 1, abs=0.02), "both ways are told"


def test_an_audit_finds_a_level_that_differs_over_latency(workspace: Workspace) -> None:
    """Beside others a large network loses its caches, too, so that even its undisturbed latency seems to be longer."""
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=12)
    largest = sum(counts.macs(op.block) for op in SPACE.network(SPACE.largest).ops)
    fleet.slower = lambda item: 1.0 + 0.5 * sum(counts.macs(op.block) for op in item.network.ops) / largest
    answer = audit(fleet, workspace, TARGET, SPACE, networks=20, seed=1)
    assert abs(answer.summary.model.errors.bias) < 0.01
    assert answer.summary.model.errors.mape < 0.02


def test_the_anchor_stays_that_of_the_profile_after_a_larger_audit(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    profiled = set(load_table(workspace, TARGET).networks)
    fleet.factor = 2.0
    audit(fleet, workspace, TARGET, SPACE, networks=20)
    model = LatencyModel(load_table(workspace, TARGET))
    gauge = Gauge(workspace, TARGET, SPACE, model)
    assert {row.key for row in gauge.rows} <= profiled
    quiet = model.undisturbed([SPACE.network(item.arch) for item in gauge.items])
    assert np.median([row.best for row in gauge.rows] / quiet) == pytest.approx(1.0, rel=1e-3), "on the model's level"
    answer = audit(fleet, workspace, TARGET, SPACE, networks=10, seed=2)
    assert answer.level.factor == pytest.approx(2.0, rel=0.01)
    assert answer.summary.model.errors.mape < 0.02


def test_an_audit_finds_a_wrong_model_at_every_level(workspace: Workspace) -> None:
    """A level must not hide that networks are predicted wrongly."""
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    known = set(load_table(workspace, TARGET).networks)
    fleet.slower = lambda item: 1.0 if item.network.key in known else 1.3
    answer = audit(fleet, workspace, TARGET, SPACE, networks=12, seed=1)
    assert answer.summary.model.errors.bias < -0.1
    assert "do not trust it" in answer.summary.verdict


PRECISIONS = [TARGET.model_copy(update={"precision": precision}) for precision in ("fp32", "int8")]


def answer(fleet: MadeUpFleet, workspace: Workspace, target: TargetProfile, max_ms: float):
    profile(fleet, workspace, target, SPACE, networks=6)
    return extract(fleet, workspace, random_subject(SPACE), target, Constraints(max_ms=max_ms))


def test_the_precision_with_the_larger_network_is_taken(workspace: Workspace, tmp_path: Path) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    fleet.quicker = {"int8": 0.6}
    result = extract_best(PRECISIONS, lambda target: answer(fleet, workspace, target, 0.2))
    report = build_bundle(result, tmp_path / "bundle", "ofa-deploy extract …")
    assert report["target"]["precision"] == "int8"
    assert [offer["precision"] for offer in report["precisions"]] == ["fp32", "int8"]
    assert any(note.startswith("int8 was taken, of these: fp32 ") for note in report["notes"])
    assert verify_bundle(tmp_path / "bundle") == []


def test_a_precision_without_an_answer_is_named(workspace: Workspace) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    fleet.quicker = {"int8": 3.0}
    result = extract_best(PRECISIONS, lambda target: answer(fleet, workspace, target, 0.15))
    assert result.target.precision == "fp32"
    assert "no subnet of narrow" in result.precisions[-1].refused
    with pytest.raises(InfeasibleBudget):
        extract_best(PRECISIONS, lambda target: answer(fleet, workspace, target, 0.001))


def test_what_int8_loses_on_held_out_images_decides(workspace: Workspace, monkeypatch) -> None:
    fleet = MadeUpFleet(workspace, factor=1.0)
    fleet.quicker = {"int8": 0.9}
    answers = {target.precision: answer(fleet, workspace, target, 0.2) for target in PRECISIONS}
    labels, lost = [0] * 100, 0

    def tested(subject, chosen, run, split):
        assert split == "valid", "the test split chooses nothing"
        wrong = lost if chosen.record.condition["precision"] == "int8" else 0
        return {"labels": labels, "predicted": [1] * wrong + labels[wrong:], "torch": labels}

    monkeypatch.setattr("ofa_deploy.deploy.precisions.tested", tested)
    for lost, taken in ((0, "int8"), (1, "fp32"), (3, "fp32")):
        result = extract_best(PRECISIONS, lambda target: answers[target.precision])
        assert result.target.precision == taken
        refused = [offer for offer in result.precisions if offer.refused]
        assert len(refused) == (lost > 1), "more than int8 explains"
