"""Subnets fine-tuned after the search: their file is taken by other commands, and a kill costs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from ofa_deploy.accuracy.belief import Belief, Validation, posterior
from ofa_deploy.deploy import bundling
from ofa_deploy.deploy.extract import extract as extract_order
from ofa_deploy.deploy.finetuning import Tuning
from ofa_deploy.deploy.order import Order
from ofa_deploy.deploy.subject import load_subject, random_subject
from ofa_deploy.errors import UsageError
from ofa_deploy.export import verify_bundle, write_bundle
from ofa_deploy.intervals import level_error
from ofa_deploy.search import Constraints
from ofa_deploy.space import load_space
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import load_supernet, save_supernet
from ofa_deploy.training import train_supernet
from tests.deploy.test_extract import TARGET, MadeUpFleet
from tests.training.test_training_loop import SPACE, recipe


def build_bundle(*args):
    """Write a bundle; its report as JSON."""
    return bundling.build_bundle(*args).to_json()


ACCURACY = {"subnets": 8, "heldout": 3, "recalibration_images": 100, "images": 100}
ARCH = load_space(SPACE).smallest


def extract(fleet, workspace, subject, target, constraints, **more):
    """The answer to an order."""
    return extract_order(fleet, workspace, Order(subject, target, constraints, **more))


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    return train_supernet(recipe(accuracy=ACCURACY), tmp_path_factory.mktemp("supernet"))


@pytest.fixture(scope="module")
def command(supernet, tmp_path_factory):
    file = tmp_path_factory.mktemp("arch") / "arch.json"
    file.write_text(json.dumps(ARCH.to_json()))
    return ("finetune", str(file), "--supernet", str(supernet), "--epochs", "3", "-o", "tuned.safetensors", "--json")


@pytest.fixture(scope="module")
def finetuned(command, tmp_path_factory, ofa_deploy):
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finetuned")
    done = ofa_deploy(*command, "--lr", "0.05", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_training_on_says_what_it_brought(finetuned):
    folder, answer = finetuned
    assert (answer["state"], answer["key"], answer["epochs"], answer["lr"]) == ("fine-tuned", ARCH.key, 3, 0.05)
    assert answer["after"]["valid"] > answer["before"]["valid"]
    assert answer["after"]["test"] > answer["before"]["test"]
    summary = load_supernet(folder / "tuned.safetensors")[1]
    assert summary["alone"] == {key: value for key, value in answer.items() if key != "supernet"}
    assert summary["valid"]["largest"] == answer["after"]["valid"]


def test_other_commands_take_the_file(finetuned, supernet, ofa_deploy):
    folder, _ = finetuned
    done = ofa_deploy("export", "--supernet", "tuned.safetensors", "-o", "model.onnx", cwd=folder)
    assert done.returncode == 0, done.stderr
    several = ofa_deploy("export", "--supernet", str(supernet), "-o", "model.onnx", cwd=folder)
    assert several.returncode == 2
    assert "dwarf has more than one subnet: choose one with --arch" in several.stderr


def test_a_killed_training_goes_on_to_the_same_weights(finetuned, command, tmp_path, ofa_deploy):
    words = [*command, "--lr", "0.05"]
    process = subprocess.Popen([sys.executable, "-m", "ofa_deploy", *words], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".ofa/finetuned/*/checkpoint.safetensors")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "tuned.safetensors").exists()
    done = ofa_deploy(*words, cwd=tmp_path)
    assert json.loads(done.stdout) == finetuned[1]
    (again, summary), (expected, expected_summary) = (
        load_supernet(folder / "tuned.safetensors") for folder in (tmp_path, finetuned[0])
    )
    state = expected.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert {**summary, "seconds": 0} == {**expected_summary, "seconds": 0}


def test_from_scratch_nothing_is_inherited(finetuned, command, ofa_deploy):
    folder, tuned = finetuned
    one = [*command[:4], "--epochs", "1", "--scratch", "--no-teacher", "--json"]
    answer = json.loads(ofa_deploy(*one, cwd=folder).stdout)
    assert (answer["state"], answer["teacher"], answer["lr"]) == ("scratch", False, 0.1)
    assert answer["before"] == tuned["before"]
    assert answer["after"] != tuned["after"]


def test_the_architecture_remembers_how_it_came_to_its_weights(finetuned):
    folder, answer = finetuned
    with Workspace.open(folder / ".ofa") as opened:
        known = opened.store.architectures.one(ARCH.key).evaluations
    tuned = [one for one in known if one.state == "fine-tuned"]
    assert {one.split: one.accuracy for one in tuned} == answer["after"]
    assert {one.supernet for one in tuned} == {answer["supernet_sha256"]}
    assert all(one.weights != one.supernet for one in tuned)


def test_the_best_of_the_trained_finalists_is_the_answer(workspace, supernet, tmp_path):
    fleet, subject = MadeUpFleet(workspace, 1.0), load_subject(workspace, supernet)
    constraints, tuning = Constraints(max_ms=0.5), Tuning(epochs=1, lr=0.02)
    found = extract(fleet, workspace, subject, TARGET, constraints, tuning=tuning, tuned=2)
    trained = [finalist for finalist in found.finalists if finalist.tuned]
    assert len(trained) == 2
    assert found.chosen.valid == max(finalist.valid for finalist in trained)
    tuned = found.chosen.valid
    assert found.chosen.worth == pytest.approx((0.5 + tuned.accuracy * tuned.n) / (1 + tuned.n)), (
        "it is all that is known"
    )
    assert found.chosen.tuned is not None
    assert found.chosen.measured_ms <= 0.5
    report = build_bundle(found, tmp_path / "bundle", "a test")
    assert verify_bundle(tmp_path / "bundle") == []
    facts = found.chosen.tuned.facts
    assert (report["accuracy"]["valid"], report["accuracy"]["before_tuning"]) == (
        facts.after.valid,
        facts.before.to_json(),
    )
    assert report["accuracy"]["measured"] == facts.after.test
    assert report["provenance"]["weights"]["state"] == "fine-tuned"
    assert any("2 finalists were trained on for 1 epochs" in note for note in report["notes"])


def test_what_is_believed_of_every_finalist_is_recomputed(workspace, supernet, tmp_path):
    fleet, subject = MadeUpFleet(workspace, 1.0), load_subject(workspace, supernet)
    found = extract(fleet, workspace, subject, TARGET, Constraints(max_ms=0.5))
    report = build_bundle(found, tmp_path / "bundle", "a test")
    accuracy = report["accuracy"]
    error = subject.predictor.error
    level = level_error(error.bias_after_std, error.bias_corrected != 0)
    belief = Belief(accuracy["predicted"], error.rmse, level)
    expected = posterior(belief, Validation(accuracy["valid"], accuracy["valid_n"]))
    assert (accuracy["posterior"], accuracy["low"], accuracy["high"]) == pytest.approx(expected)
    assert accuracy["valid_n"] == subject.campaign.images("valid")
    files = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    files = {name: content for name, content in files.items() if not name.startswith("manifest")}
    lies = [("accuracy", name) for name in ("posterior", "low", "high", "valid", "valid_n")]
    lies += [(f"finalists.{len(found.finalists) - 1}", name) for name in ("posterior", "low", "high", "valid_accuracy")]
    for number, (place, name) in enumerate(lies):
        told = json.loads(files["report.json"])
        part, _, index = place.partition(".")
        (told[part][int(index)] if index else told[part])[name] = 0.99
        folder = write_bundle(tmp_path / str(number), {**files, "report.json": json.dumps(told).encode()}, {})
        assert any(f"report.json says {place}.{name} is" in problem for problem in verify_bundle(folder))
    evidence = json.loads(files["evidence.json"])
    del evidence["validation"]
    older = write_bundle(tmp_path / "older", {**files, "evidence.json": json.dumps(evidence).encode()}, {})
    assert not any("posterior" in problem for problem in verify_bundle(older)), "bundles of older versions have none"


def test_an_imported_supernet_is_trained_on_by_a_recipe(supernet, command, tmp_path, ofa_deploy):
    imported, config = tmp_path / "imported.safetensors", tmp_path / "recipe.yaml"
    save_supernet(imported, load_supernet(supernet)[0], {"source": {"file": "published.pth"}})
    words = [*command[:2], "--supernet", str(imported), "--epochs", "1", "--json"]
    without = ofa_deploy(*words, cwd=tmp_path)
    assert without.returncode == 2
    assert "does not say how it was trained: name a recipe with -c" in without.stderr
    config.write_text(yaml.safe_dump(recipe(accuracy=ACCURACY).model_dump(mode="json", exclude_none=True)))
    done = ofa_deploy(*words, "-c", str(config), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["after"]["valid"] > 0


def test_random_weights_cannot_be_trained_on(workspace):
    subject = random_subject(load_space(SPACE))
    fleet = MadeUpFleet(workspace, 1.0)
    with pytest.raises(UsageError, match="there are no weights to fine-tune"):
        extract(fleet, workspace, subject, TARGET, Constraints(max_ms=1), tuning=Tuning(epochs=1), tuned=1)
    assert fleet.jobs == []
