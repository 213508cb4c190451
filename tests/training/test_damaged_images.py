"""Images that cannot be read: named once, passed over the same way every time, and an error when they are too many."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ofa_deploy.config import DataConfig, TrainRecipe
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.notices import note
from ofa_deploy.training import batches, load_data
from ofa_deploy.training.damage import Damage
from ofa_deploy.training.decoding import decode
from ofa_deploy.training.loading import Reader, stream
from ofa_deploy.training.sampling import train_batches


def write_images(root, count=12, test=4):
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("test", test)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.fromarray(rng.integers(0, 256, (24, 28, 3), np.uint8)).save(folder / f"{i:02}.jpg")
    return root


def bomb(side):
    """A PNG that says it has side × side pixels."""
    chunks = (b"IHDR" + struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0), b"IDAT" + b"no pixels")
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def config(root, **fields):
    plain = {"name": "image_folder", "root": root, "valid": 4, "size": 16, "augment": ["crop", "flip"], "workers": 0}
    return DataConfig(**{**plain, **fields})


def recipe(data, batch_size=5):
    return TrainRecipe(name="t", space="small_32", data=data, epochs=1, batch_size=batch_size)


def take(data, settings, first, count):
    stepwise = train_batches(data.train, recipe(settings), first)
    return [next(stepwise) for _ in range(count)]


pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with a single core


@pytest.fixture(autouse=True)
def nothing_said_yet():
    note.cache_clear()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"these are words", "no known image format"),
        (bomb(12_000), "decompression bomb"),
        (bomb(60_000), "decompression bomb"),
        (bomb(20), "."),
        (None, "truncated"),
        ("missing", "No such file"),
        ("locked", "Permission denied"),
        ("floats", "floating-point"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, monkeypatch, content, reason):
    path = tmp_path / "image.jpg"
    if content is None:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif content == "floats":
        Image.fromarray(np.zeros((8, 8), np.float32)).save(path, format="TIFF")
    elif content == "locked":
        monkeypatch.setattr(Image, "open", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    elif content != "missing":
        path.write_bytes(content)
    with pytest.raises(
        UsageError, match=rf"cannot read .*image\.jpg as an image \(.*{reason}.*\); remove or replace it"
    ) as e:
        decode(path, 3)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_training_image_is_named_once_and_another_stands_in(tmp_path, capsys, workers):
    settings = config(write_images(tmp_path), workers=workers, normalise="imagenet")
    data = load_data(settings)
    broken = tmp_path / os.fsdecode(b"train/" + data.train.names[3])
    broken.write_bytes(broken.read_bytes()[:200])
    steps = take(data, settings, 0, 8)  # two epochs
    assert [len(labels) for _, labels in steps] == [5] * 8
    said = capsys.readouterr().err
    assert said.count(str(broken)) == 1
    assert "until then it is skipped" in said
    for (images, labels), (later, later_labels) in zip(steps[3:], take(data, settings, 3, 5), strict=True):
        assert torch.equal(images, later)
        assert torch.equal(labels, later_labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_damaged_images_out(tmp_path, capsys, workers):
    root = write_images(tmp_path)
    for name in ("test/cat/01.jpg", "test/dog/03.jpg"):
        (root / name).write_bytes(b"")
    data = load_data(config(root, workers=workers, normalise="imagenet"))
    pairs = list(batches(data.test, 12, 3, data.mean, data.std))
    assert torch.cat([labels for _, labels in pairs]).tolist() == [0, 0, 0, 1, 1, 1]
    assert sum(len(images) for images, _ in pairs) == 6
    assert capsys.readouterr().err.count("the file is empty") == 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", [2, 0.1])
def test_too_many_damaged_images_stop_it(tmp_path, workers, limit):
    root = write_images(tmp_path)
    for name in load_data(config(root)).train.names[:4]:
        (root / "train" / os.fsdecode(name)).write_bytes(b"")
    settings = config(root, workers=workers, corrupt_limit=limit, normalise="imagenet")
    with pytest.raises(UsageError, match=r"[34] of 32 images cannot be read, more than .*corrupt_limit.*\([23]\)") as e:
        take(load_data(settings), settings, 0, 8)
    assert str(e.value).count(".jpg") == 3
    assert "\n" not in str(e.value)
    settings = config(root, workers=workers, corrupt_limit=4, normalise="imagenet")
    assert len(take(load_data(settings), settings, 0, 8)) == 8


def test_no_image_at_all_is_an_error_and_no_endless_loop(tmp_path):
    root = write_images(tmp_path)
    for path in (root / "train").glob("*/*.jpg"):
        path.write_bytes(b"")
    settings = config(root, corrupt_limit=100)
    with pytest.raises(UsageError, match="none of the training images can be read"):
        load_data(settings)
    settings = config(root, corrupt_limit=100, normalise="imagenet")
    with pytest.raises(UsageError, match="none of the training images can be read"):
        take(load_data(settings), settings, 0, 1)


def test_damage_counts_a_file_once():
    damage = Damage(limit=2, total=10)
    for _ in range(5):
        damage.add(["a is damaged", "b is damaged"])
    with pytest.raises(UsageError, match="3 of 10 images"):
        damage.add(["c is damaged"])
    assert Damage(limit=0.001, total=5000).limit == 5
    with pytest.raises(UsageError, match="1 of 10 images"):
        Damage(limit=0, total=10).add(["a is damaged"])


class Dying(Reader):
    def __getitem__(self, request):
        os._exit(1)


def test_a_reading_process_that_dies_is_one_line(tmp_path):
    data = load_data(config(write_images(tmp_path), workers=1, normalise="imagenet"))
    with pytest.raises(OfaDeployError, match=r"a process that reads images died .*set data\.workers lower"):
        list(stream(Dying(data.train), [[0], [1]]))


@pytest.mark.parametrize("augment", [["crop", "flip"], ["random_resized_crop", "color_jitter", "random_erasing"]])
def test_batches_are_the_same_whatever_the_number_of_workers(tmp_path, augment):
    root = write_images(tmp_path)
    none, two = (config(root, workers=workers, augment=augment) for workers in (0, 2))
    data, again = load_data(none), load_data(two)
    assert (data.mean, data.std) == (again.mean, again.std)
    for (images, labels), (others, other_labels) in zip(take(data, none, 2, 7), take(again, two, 2, 7), strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


def test_auto_workers_leave_a_core_free(tmp_path, monkeypatch):
    images = load_data(config(write_images(tmp_path), workers="auto")).train
    assert images.workers == 0  # so few are read at once
    monkeypatch.setattr("ofa_deploy.training.loading.FEW_IMAGES", 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert images.workers == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert images.workers == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert images.workers == 0


KILLED = """
import os, sys, time
from pathlib import Path
from ofa_deploy.config import DataConfig
from ofa_deploy.training import load_data
from ofa_deploy.training.loading import Reader, stream

class Slow(Reader):
    def __getitem__(self, request):
        (Path(sys.argv[1]) / f"{os.getpid()}.pid").touch()
        time.sleep(600)

if __name__ == "__main__":
    root = Path(sys.argv[1])
    data = load_data(DataConfig(name="image_folder", root=root, valid=4, size=16, workers=2, normalise="imagenet"))
    list(stream(Slow(data.train), [[0], [1]]))
"""


def test_a_killed_process_leaves_no_reading_ones_behind(tmp_path):
    root, script = write_images(tmp_path / "images"), tmp_path / "killed.py"
    script.write_text(KILLED)
    with subprocess.Popen([sys.executable, str(script), str(root)], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(list(root.glob("*.pid"))) == 2)
        process.kill()
    for path in root.glob("*.pid"):
        wait_until(lambda pid=int(path.stem): not Path(f"/proc/{pid}").exists())


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
