"""Whole pipelines on simulated devices: resumed, changed in part, failing in part."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ofa_deploy.deploy import extract as extracting_one
from ofa_deploy.deploy import fulfil
from ofa_deploy.errors import InfeasibleBudget
from ofa_deploy.pipeline.outcome import Outcome
from ofa_deploy.pipeline.question import read_pipeline
from ofa_deploy.pipeline.remembered import Memory, digest
from ofa_deploy.pipeline.runner import run_pipeline
from ofa_deploy.store import Workspace

DOCUMENT: dict[str, Any] = {
    "name": "ci",
    "targets": {"jetson_nano": None, "pi": {"profile": "raspberry_pi_4"}},
    "stages": [
        {"stage": "import", "supernet": "digits"},
        {"stage": "profile", "networks": 4},
        {"stage": "audit", "networks": 4},
        {"stage": "extract", "target": "jetson_nano", "max_ms": [1.3]},
        {"stage": "extract", "target": "pi", "spread": 1},
        {"stage": "verify"},
        {"stage": "compare", "title": "Two", "cross": True},
    ],
    "gates": ["latency.p50 <= budget", "size_mb <= 8"],
}


class Killed(BaseException):
    """As good as SIGKILL at that moment: nothing after it is done."""


def run(folder: Path, document: dict[str, Any], kill_at: str | None = None, dry: bool = False) -> Outcome:
    file = folder / "ci.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))

    def tell(what: str, _: dict[str, Any]) -> None:
        if kill_at is not None and what.startswith(kill_at):
            raise Killed

    with Workspace.open(folder / ".ofa") as workspace:
        return run_pipeline(read_pipeline(file), workspace, tell, dry)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("ci")
    return folder, run(folder, DOCUMENT)


def states(outcome: Outcome) -> dict[str, str]:
    return {unit.name: unit.status for unit in outcome.units}


def test_all_is_done_and_judged(done: tuple[Path, Outcome]) -> None:
    folder, outcome = done
    assert outcome.error is None, outcome.error
    assert set(states(outcome).values()) == {"done"}
    assert [verdict.passed for verdict in outcome.verdicts] == [True] * 4
    assert [report["target"]["name"] for report in outcome.reports] == ["jetson_nano", "pi"]
    assert all(report["audit"]["n_heldout"] == 4 for report in outcome.reports)
    written = {path.name for path in (folder / ".ofa" / "bundles" / "ci").iterdir()}
    assert {"summary.json", "summary.md", "junit.xml", "index.html"} <= written
    page = (folder / ".ofa" / "bundles" / "ci" / "index.html").read_text()
    assert "Every subnet on every device" in page


def test_again_skips_all_and_a_dry_run_says_so(done: tuple[Path, Outcome]) -> None:
    folder, _ = done
    planned = states(run(folder, DOCUMENT, dry=True))
    again = states(run(folder, DOCUMENT))
    assert {state for name, state in again.items() if not name.startswith("verify")} == {"skipped"}
    assert planned.items() <= {**again, **{n: "done" for n in again if n.startswith("verify")}}.items()


def test_a_changed_budget_redoes_what_it_must(done: tuple[Path, Outcome]) -> None:
    folder, first = done
    changed = json.loads(json.dumps(DOCUMENT))
    changed["stages"][3]["max_ms"] = [1.4]
    found = states(run(folder, changed))
    redone = {name for name, state in found.items() if state == "done" and not name.startswith("verify")}
    assert redone - {"compare on jetson_nano", "compare on pi"} == {"extract jetson_nano-ms1.4"}
    run(folder, DOCUMENT)  # as it was for the others
    assert first.reports[0]["folder"] == "jetson_nano-ms1.3"


def test_what_fails_on_one_target_leaves_the_others(tmp_path: Path) -> None:
    broken = json.loads(json.dumps(DOCUMENT))
    broken["stages"][3]["max_ms"] = [1e-3]
    outcome = run(tmp_path, broken)
    assert isinstance(outcome.error, InfeasibleBudget)
    assert [report["target"]["name"] for report in outcome.reports] == ["pi"]
    found = states(outcome)
    assert found["extract jetson_nano-ms0.001"] == "failed"
    assert found["compare on jetson_nano"] == "not run"
    assert "FAILED" in (tmp_path / ".ofa" / "bundles" / "ci" / "summary.md").read_text()
    assert run(tmp_path, DOCUMENT).error is None  # and it goes on from there


def test_a_larger_budget_gets_no_worse_network_and_a_killed_run_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    document["targets"] = {"jetson_nano": None}
    document["stages"] = [*DOCUMENT["stages"][:2], {"stage": "extract", "max_ms": [1.6, 1.3]}]
    del document["gates"]
    found, larger = extracting_one._search, 1.6

    def unlucky(*args: Any) -> Any:
        result = found(*args)
        if args[1].max_ms < larger:
            return result
        worst = min(result.front, key=lambda point: point.accuracy)
        return replace(result, best=worst, finalists=[worst])

    monkeypatch.setattr(extracting_one, "_search", unlucky)
    alone, whole, killed = (tmp_path / name for name in ("alone", "whole", "killed"))
    for folder in (alone, whole, killed):
        folder.mkdir()
    outcome = run(alone, {**document, "stages": [*document["stages"][:2], {"stage": "extract", "max_ms": [larger]}]})
    worse = outcome.reports[0]["accuracy"]["posterior"]
    outcome = run(whole, document)
    assert outcome.error is None, outcome.error
    assert [report["budget"]["max_ms"] for report in outcome.reports] == [1.3, larger]
    small, large = outcome.reports
    assert large["accuracy"]["posterior"] == small["accuracy"]["posterior"] > worse
    assert large["subnet"]["key"] == small["subnet"]["key"]
    assert set(states(run(whole, document)).values()) == {"skipped"}
    with pytest.raises(Killed):
        run(killed, document, kill_at=f"measure on jetson_nano for ms{larger}")
    assert run(killed, document).error is None
    for report in outcome.reports:
        expected, again = (root / ".ofa" / "bundles" / "ci" / report["folder"] for root in (whole, killed))
        names = sorted(path.name for path in expected.iterdir())
        assert [name for name in names if (expected / name).read_bytes() != (again / name).read_bytes()] == []


@pytest.mark.parametrize(
    "moment",
    [
        "measure blocks and networks on pi",
        "audit predictions on jetson",
        "measure on",
        "bundle",
        "measure every network on pi",
    ],
)
def test_a_killed_run_goes_on_to_the_same_bundles(
    done: tuple[Path, Outcome], tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = done

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if moment == "bundle":  # when its finalists are measured
            patched.setattr(fulfil, "build_bundle", killed)
        with pytest.raises(Killed):
            run(tmp_path, DOCUMENT, moment)
    assert run(tmp_path, DOCUMENT).error is None
    assert len(first.reports) == 2
    for report in first.reports:
        expected, found = (root / ".ofa" / "bundles" / "ci" / report["folder"] for root in (folder, tmp_path))
        names = sorted(path.name for path in expected.iterdir())
        assert sorted(path.name for path in found.iterdir()) == names
        assert [name for name in names if (expected / name).read_bytes() != (found / name).read_bytes()] == []


def test_a_unit_that_begins_again_begins_when_it_did_first(tmp_path: Path) -> None:
    first = Memory(tmp_path / "pipeline.json").begin("extract", {"budget": 1}, 7)
    assert Memory(tmp_path / "pipeline.json").begin("extract", {"budget": 1}, 9) == first
    Memory(tmp_path / "pipeline.json").keep("extract", {"budget": 1}, "bundle")
    assert Memory(tmp_path / "pipeline.json").begin("extract", {"budget": 1}, 9) == first, "its bundle was lost, say"
    other = Memory(tmp_path / "pipeline.json").begin("extract", {"budget": 2}, 9)
    assert (other.newest, other.at > first.at) == (9, True)
    (tmp_path / "older.json").write_text(json.dumps({"extract": {"inputs": digest(1), "since": 5}}))
    assert Memory(tmp_path / "older.json").begin("extract", 1, 9).newest == 5
