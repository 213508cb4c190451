"""The ranking audit: labels are made once, kept as they are made, and found again after a kill."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from ofa_deploy.accuracy.proxies import PROXIES
from ofa_deploy.store import Workspace
from ofa_deploy.training import train_supernet
from tests.training.test_training_loop import recipe

ACCURACY = {"subnets": 8, "heldout": 3, "recalibration_images": 100, "images": 100}
COMMAND = ("audit", "--ranking", "--networks", "4", "--epochs", "1", "--repeat", "3", "--json")


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    """Trained a little, with its predictor beside it."""
    folder = tmp_path_factory.mktemp("supernet")
    return train_supernet(recipe(epochs=2, accuracy=ACCURACY), folder)


@pytest.fixture(scope="module")
def audited(supernet, tmp_path_factory, ofa_deploy):
    """An audit that nothing interrupted, and its workspace's folder."""
    folder = tmp_path_factory.mktemp("audited")
    done = ofa_deploy(*COMMAND, "--supernet", str(supernet), "-o", "ranking.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def timeless(answer):
    rows = [{**row, "alone_seconds": len(row["alone_seconds"])} for row in answer["rows"]]
    scores = {name: {**score, "ms": 0} for name, score in answer["scores"].items()}
    return {**answer, "rows": rows, "scores": scores, "seconds": 0}


def test_every_score_is_compared_with_training_alone(audited):
    folder, answer, _ = audited
    assert json.loads((folder / "ranking.json").read_text()) == answer
    kept = folder / ".ofa/audits/ranking-tiny"
    assert json.loads((kept / "ranking.json").read_text()) == answer
    assert all(answer["rows"][0]["key"][:10] in (kept / f"ranking.{kind}").read_text() for kind in ("md", "html"))
    proxies = {f"{proxy} ({kind})" for proxy in PROXIES for kind in ("inherited", "untrained")}
    assert set(answer["scores"]) == {"inherited", "predictor", "macs", "params", *proxies}
    assert (answer["networks"], answer["seeds"], answer["repeated"], answer["epochs"]) == (4, 1, 3, 1)
    assert sorted(len(row["alone"]) for row in answer["rows"]) == [1, 2, 2, 2]
    assert all(0 < accuracy < 1 for row in answer["rows"] for accuracy in row["alone"])
    assert answer["ceiling"]["tau"] is None or -1 <= answer["ceiling"]["tau"] <= 1
    assert answer["scores"]["macs"]["tau"] is not None
    macs = [row["scores"]["macs"] for row in answer["rows"]]
    assert min(macs) < max(macs)
    assert answer["command"].startswith(
        "ofa-deploy audit --ranking --networks 4 --epochs 1 --seeds 2 --seed 0 --repeat 3"
    )
    assert not list((folder / ".ofa/alone").iterdir())


def test_what_was_trained_alone_is_known_of_the_architecture(audited):
    folder, answer, _ = audited
    with Workspace.open(folder / ".ofa") as opened:
        known = {row.key: row.evaluations for row in opened.store.architectures.find(state="scratch")}
    assert len(answer["rows"]) == 4
    for row in answer["rows"]:
        scratch = [one.accuracy for one in known[row["key"]] if one.state == "scratch"]
        assert sorted(scratch) == sorted(row["alone"])


def test_the_time_is_told_before_it_is_spent(audited):
    assert "4 networks, 7 trainings of 1 epochs, about" in audited[2]


def test_labels_are_kept_and_a_larger_audit_needs_only_the_others(audited, supernet, ofa_deploy):
    folder, answer, _ = audited
    again = ofa_deploy(*COMMAND, "--supernet", str(supernet), cwd=folder)
    assert timeless(json.loads(again.stdout)) == timeless(answer)
    assert "0 are left, which take about 0.0 min" in again.stderr
    whole = [word for word in COMMAND if word not in ("--repeat", "3")]
    planned = ofa_deploy(*whole, "--dry-run", "--supernet", str(supernet), cwd=folder)
    assert len(json.loads(planned.stdout)["missing"]) == 1
    assert len(json.loads(planned.stdout)["labels"]) == 8


def test_a_killed_audit_goes_on_to_the_same_answer(audited, supernet, tmp_path, ofa_deploy):
    assert recipe().checkpoint_seconds == 0  # a checkpoint at every step: it goes on inside a training
    words = [sys.executable, "-m", "ofa_deploy", *COMMAND, "--supernet", str(supernet)]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and (made(tmp_path) < 2 or not inside_a_training(tmp_path)):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 2 <= made(tmp_path) < 7
    done = ofa_deploy(*COMMAND, "--supernet", str(supernet), cwd=tmp_path)
    assert timeless(json.loads(done.stdout)) == timeless(audited[1])


def inside_a_training(folder):
    return bool(list(folder.glob(".ofa/alone/*/checkpoint.safetensors")))


def made(folder):
    """How many labels are kept."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/.ofa/ofa.db?mode=ro", uri=True)) as database:
            return database.execute("SELECT count(*) FROM artefacts WHERE kind = 'label'").fetchone()[0]
    except sqlite3.OperationalError:  # not yet there
        return 0


def test_what_does_not_fit_is_said_in_one_line(tmp_path, ofa_deploy):
    alone = ofa_deploy("audit", "--repeat", "3", cwd=tmp_path)
    assert alone.returncode == 2
    assert "--repeat needs --ranking" in alone.stderr
    missing = ofa_deploy("audit", "--ranking", "--supernet", "none.safetensors", cwd=tmp_path)
    assert missing.returncode == 2
    assert "there is no supernet at none.safetensors" in missing.stderr
