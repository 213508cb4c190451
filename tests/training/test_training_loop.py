"""Training: it learns, it resumes to the bit, it refuses what does not fit, it loses nothing."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.supernet import load_supernet, read_summary
from ofa_deploy.training import devices, train_supernet
from ofa_deploy.training.devices import torch_settings

SPACE = {
    "name": "dwarf",
    "stages": [
        {"width": 8, "depths": [1, 2], "kernels": [3, 5], "expands": [2, 3]},
        {"width": 16, "stride": 2, "act": "hswish", "se": True, "depths": [1, 2], "kernels": [3], "expands": [2, 3]},
    ],
    "resolutions": [16, 20],
    "widths": [1.0],
    "in_channels": 1,
    "num_classes": 10,
    "first_block": False,
    "head_width": 32,
    "feature_width": 0,
}
RECIPE = {
    "name": "tiny",
    "space": SPACE,
    "data": {"name": "digits", "valid": 237, "augment": ["crop"]},
    "epochs": 3,
    "batch_size": 200,
    "largest_epochs": 0.5,
    "threads": 1,
    "checkpoint_seconds": 0,
    "accuracy": {"recalibration_images": 200},
}
STEPS = 18


def recipe(**changes):
    return TrainRecipe.model_validate({**RECIPE, **changes})


def metrics(folder, timeless=True):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines] if timeless else lines


def assert_same_result(folder, reference):
    (supernet, summary), (expected, expected_summary) = (
        load_supernet(f / "supernet.safetensors") for f in (folder, reference)
    )
    state = expected.state_dict()
    assert [name for name, value in supernet.state_dict().items() if not torch.equal(value, state[name])] == []
    assert metrics(folder) == metrics(reference)
    assert {**summary, "seconds": 0} == {**expected_summary, "seconds": 0}


class Stop(Exception):
    pass


def stop_after(step):
    def report(progress):
        if progress["done"] == step:
            raise Stop

    return report


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference")
    seen = []
    train_supernet(recipe(), folder, resume=False, report=seen.append)
    return folder, seen


def test_a_run_leaves_a_supernet_its_metrics_and_its_summary(reference):
    folder, seen = reference
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.jsonl", "supernet.safetensors"]
    lines = metrics(folder, timeless=False)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in lines] == [1 + i // 6 for i in range(STEPS)]
    assert [line["distill"] > 0 for line in lines] == [i >= 3 for i in range(STEPS)]
    assert np.mean([line["loss"] for line in lines[-3:]]) < np.mean([line["loss"] for line in lines[:3]])
    assert seen[-1].items() >= {"epoch": 3, "done": STEPS, "total": STEPS}.items()
    assert all(line["images_per_second"] > 0 for line in seen)
    space, summary = read_summary(folder / "supernet.safetensors")
    assert space.name == "dwarf"
    assert summary["recipe"] == recipe().model_dump(mode="json")
    assert (summary["data"], summary["epochs"], summary["steps"]) == ("digits", 3, STEPS)
    assert summary["train"]["loss"] == pytest.approx(np.mean([line["loss"] for line in lines[-6:]]))
    assert 0 < summary["valid"]["largest"] <= 1
    assert summary["seconds"] > 0


@pytest.mark.parametrize("step", [1, 3, 6, 11, STEPS])
def test_an_interrupted_run_resumes_to_the_same_bits(reference, tmp_path, step):
    with pytest.raises(Stop):
        train_supernet(recipe(), tmp_path, resume=False, report=stop_after(step))
    with (tmp_path / "metrics.jsonl").open("a") as log:  # steps after the checkpoint, the last cut short by the kill
        log.write(json.dumps({"step": step + 1, "loss": 0.0}) + "\n" + '{"step": 99, "lo')
    train_supernet(recipe(), tmp_path, resume=True, report=None)
    assert_same_result(tmp_path, reference[0])


def test_resume_without_a_checkpoint_starts_from_the_beginning(reference, tmp_path):
    with pytest.raises(Stop):
        train_supernet(recipe(checkpoint_seconds=1e9), tmp_path, resume=False, report=stop_after(4))
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
    train_supernet(recipe(), tmp_path, resume=True, report=None)
    assert_same_result(tmp_path, reference[0])


def test_a_killed_process_resumes_to_the_same_bits(reference, tmp_path):
    config = tmp_path / "recipe.json"
    config.write_text(json.dumps(RECIPE))
    program = (
        "import sys, pathlib\n"
        "from ofa_deploy.config import TrainRecipe\n"
        "from ofa_deploy.training import train_supernet\n"
        "train_supernet(TrainRecipe.model_validate_json(pathlib.Path(sys.argv[1]).read_text()),"
        "pathlib.Path(sys.argv[2]), resume=True, report=None)"
    )
    folder = tmp_path / "run"
    lines = folder / "metrics.jsonl"
    rng = np.random.default_rng(os.getpid())
    for kill_at in sorted(rng.choice(np.arange(2, STEPS - 2), 2, replace=False)):
        process = subprocess.Popen([sys.executable, "-c", program, str(config), str(folder)])
        while process.poll() is None and (not lines.exists() or lines.read_text().count("\n") < kill_at):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
    train_supernet(recipe(), folder, resume=True, report=None)
    assert_same_result(folder, reference[0])


def test_an_unfinished_run_is_not_overwritten(tmp_path):
    with pytest.raises(Stop):
        train_supernet(recipe(), tmp_path, resume=False, report=stop_after(4))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="pass --resume to continue it, or remove"):
        train_supernet(recipe(), tmp_path, resume=False, report=None)
    with pytest.raises(UsageError, match=r"lr was 0\.1, is now 0\.05"):
        train_supernet(recipe(lr=0.05), tmp_path, resume=True, report=None)
    with pytest.raises(UsageError, match=r"space\.head_width was 32, is now 40"):
        train_supernet(recipe(space={**SPACE, "head_width": 40}), tmp_path, resume=True, report=None)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    (tmp_path / "checkpoint.safetensors").write_bytes(before["checkpoint.safetensors"][:-9])
    with pytest.raises(UsageError, match="damaged"):
        train_supernet(recipe(), tmp_path, resume=True, report=None)


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_is_returned_as_it_is(reference, resume):
    path = reference[0] / "supernet.safetensors"
    before = path.stat().st_mtime_ns
    free = recipe(checkpoint_seconds=7, accuracy={"subnets": 30})
    assert train_supernet(free, reference[0], resume=resume, report=None) == path
    assert path.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"data\.augment was \['crop'\], is now \[\]"):
        train_supernet(recipe(data={**RECIPE["data"], "augment": []}), reference[0], resume=resume, report=None)


def test_an_exploding_loss_stops_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(OfaDeployError, match=r"not finite at step \d+: lower lr"):
        train_supernet(recipe(lr=1e18, warmup_epochs=0), tmp_path, resume=False, report=None)
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert not (tmp_path / "supernet.safetensors").exists()


def test_space_and_data_must_fit(tmp_path):
    with pytest.raises(UsageError, match="space dwarf: num_classes is 12, but digits needs 10"):
        train_supernet(recipe(space={**SPACE, "num_classes": 12}), tmp_path, resume=False, report=None)


def test_settings_of_torch_are_put_back(reference):
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_training_does_not_fill_memory_that_a_kernel_overwrites():
    with torch_settings(1):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_not_fetched_page_by_page_again():
    program = (
        "import resource, torch\n"
        "from ofa_deploy.training.devices import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(3):\n"
        "        [torch.ones(2**20) for _ in range(80)]\n"  # 320 MB at the same time: more than holes that others left
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "usual = faults(), faults()\n"
        "keep_freed_memory()\n"
        "print(max(usual), faults(), faults())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    usual, _, kept = map(int, done.stdout.split())
    assert kept < usual / 10


def test_training_keeps_freed_memory(monkeypatch):
    kept = []
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: kept.append(True))
    with torch_settings(threads=1):
        assert kept


def test_a_folder_of_images_resumes_to_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (24, 28, 3), np.uint8)).save(folder / f"{i}.png")
    data = {"name": "image_folder", "root": str(tmp_path / "images"), "valid": 2, "size": 20}
    changes = {
        "space": {**SPACE, "in_channels": 3, "num_classes": 2},
        "data": {**data, "augment": ["crop", "flip"]},
        "batch_size": 4,
        "epochs": 2,
    }
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_supernet(recipe(**changes), whole, resume=False, report=None)
    with pytest.raises(Stop):
        train_supernet(recipe(**changes), stopped, resume=False, report=stop_after(6))
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "train" / "cat" / "new.png")
    with pytest.raises(UsageError, match=r"have changed since .*then 18 training and 4 test images, now 19"):
        train_supernet(recipe(**changes), stopped, resume=True, report=None)
    (tmp_path / "images" / "train" / "cat" / "new.png").unlink()
    train_supernet(recipe(**changes), stopped, resume=True, report=None)
    assert_same_result(stopped, whole)
    summary = read_summary(whole / "supernet.safetensors")[1]
    assert summary["labels"] == ["cat", "dog"]
    assert summary["fingerprint"]["images"] == 18
