"""Folders of images: layouts, splits, channels, and whatever else lies in them."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from ofa_deploy.config import DataConfig
from ofa_deploy.errors import UsageError
from ofa_deploy.training import batches, load_data
from ofa_deploy.training.folders import list_images
from ofa_deploy.training.splits import stratified


def grey(value, height=20, width=30):
    return Image.fromarray(np.full((height, width, 3), value, np.uint8))


def write_class(folder, count, value=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        grey(value + i, 20 + i).save(folder / f"{i}.png")


def write_folder(root, held="test"):
    for split, count in (("train", 6), (held, 2)):
        for c, name in enumerate(("cat", "dog")):
            write_class(root / split / name, count, 40 * c)


def config(root, **fields):
    return DataConfig(**{"name": "image_folder", "root": root, "valid": 4, "size": 16, **fields})


def file_names(images):
    return {os.fsdecode(name) for name in images.names}


def test_train_and_val(tmp_path):
    write_folder(tmp_path, "val")
    data = load_data(config(tmp_path))
    assert (len(data.train), len(data.valid), len(data.test)) == (8, 4, 4)
    assert (data.classes, data.num_classes, data.in_channels) == (("cat", "dog"), 2, 3)
    image, label = data.test[3]
    assert (image.shape, image.dtype, label, int(image.float().mean())) == ((3, 16, 16), torch.uint8, 1, 41)
    pairs = list(batches(data.test, 12, 3, data.mean, data.std))  # four images: two batches of two
    assert [y.tolist() for _, y in pairs] == [[0, 0], [1, 1]]
    assert {(x.shape, x.dtype) for x, _ in pairs} == {((2, 3, 12, 12), torch.float32)}


@pytest.mark.parametrize("below", ["", "train"])
def test_without_test_images_a_share_is_held_out_and_that_is_said(tmp_path, capsys, below):
    for name, count in (("cat", 40), ("dog", 20)):
        write_class(tmp_path / below / name, count)
    data = load_data(config(tmp_path, valid=0.25, test=0.2))
    assert [np.bincount(part.labels).tolist() for part in (data.test, data.valid, data.train)] == [
        [8, 4],
        [8, 4],
        [24, 12],
    ]
    assert len(file_names(data.test) | file_names(data.valid) | file_names(data.train)) == 60
    assert "no test images, so 12 of 60 are held out" in capsys.readouterr().err
    again = load_data(config(tmp_path, valid=0.25, test=0.2))
    assert file_names(again.test) == file_names(data.test)
    assert file_names(again.valid) == file_names(data.valid)


def test_every_beginning_of_a_stratified_order_has_the_classes_in_their_shares():
    labels = np.repeat([0, 1, 3], [50, 30, 20])
    order = stratified(labels)
    assert sorted(order) == list(range(100))
    for count in (10, 33, 50, 90):
        counts = np.bincount(labels[order[:count]], minlength=4)
        assert np.abs(counts - count * np.array([0.5, 0.3, 0, 0.2])).max() <= 1


def test_the_order_of_the_file_system_means_nothing(tmp_path, monkeypatch):
    write_folder(tmp_path)
    expected = load_data(config(tmp_path))
    walk = os.walk

    def backwards(*arguments, **options):
        for place, folders, files in walk(*arguments, **options):
            folders.reverse()
            yield place, folders, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    data = load_data(config(tmp_path))
    assert data.fingerprint == expected.fingerprint
    assert data.valid.names.tolist() == expected.valid.names.tolist()


def test_hidden_and_other_files_are_left_out_and_nested_ones_found(tmp_path):
    write_folder(tmp_path)
    cat = tmp_path / "train" / "cat"
    for name in ("._0.png", "notes.txt", "Thumbs.db"):
        (cat / name).write_bytes(b"no image")
    os.mkfifo(cat / "pipe.png")
    write_class(cat / "more" / "deep", 2)
    write_class(tmp_path / "train" / ".hidden", 2)
    (tmp_path / "train" / "readme.png").write_bytes(b"no class")
    listing = list_images(tmp_path / "train")
    assert listing.classes == ("cat", "dog")
    assert np.bincount(listing.labels).tolist() == [8, 6]
    assert b"cat/more/deep/1.png" in listing.names


def test_links_that_lead_back_are_not_followed_and_others_are(tmp_path):
    write_folder(tmp_path)
    write_class(tmp_path / "elsewhere", 3)
    cat = tmp_path / "train" / "cat"
    (cat / "self").symlink_to(cat)
    (cat / "up").symlink_to(tmp_path / "train")
    (cat / "top").symlink_to(tmp_path)
    (cat / "loop").symlink_to("loop")
    (cat / "elsewhere").symlink_to(tmp_path / "elsewhere")
    assert np.bincount(list_images(tmp_path / "train").labels).tolist() == [9, 6]


def test_a_wrong_folder_is_one_line(tmp_path):
    def refused(match, **fields):
        with pytest.raises(UsageError, match=match) as raised:
            load_data(config(**{"root": tmp_path, **fields}))
        assert "\n" not in str(raised.value)

    refused(r"data\.root must name the folder", root=None)
    refused("there is no folder .*nowhere", root=tmp_path / "nowhere")
    refused("at least two classes")
    write_class(tmp_path / "test" / "cat", 1)
    refused("needs the folders train/<class>/")
    write_class(tmp_path / "train" / "cat", 3)
    refused("at least two classes")
    (tmp_path / "train" / "dog").mkdir()
    refused("train: no images of dog; add some")
    write_class(tmp_path / "train" / "dog", 3)
    refused("test has other classes than the training split: dog missing")
    write_class(tmp_path / "test" / "dgo", 1)
    refused("dog missing, dgo unknown")
    (tmp_path / "test" / "dgo").rename(tmp_path / "test" / "dog")
    refused(r"data\.valid: holding out 6 of 6 training images would leave none to train on", valid=6)
    refused(r"data\.valid: holding out 0 of 6 training images would be none", valid=0.01)
    refused("2 means and 2 stds for images of 3 channels", normalise={"mean": [0, 0], "std": [1, 1]})
    refused("3 means and 3 stds for images of 1 channels", normalise="imagenet", channels=1)


def test_a_folder_that_fails_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path)

    def failing(_folder, onerror, **_options):
        onerror(PermissionError(13, "Permission denied", "train/cat/closed"))
        return iter(())

    monkeypatch.setattr(os, "walk", failing)
    with pytest.raises(UsageError, match=r"train/cat/closed cannot be read \(Permission denied\); make it readable"):
        load_data(config(tmp_path))


@pytest.mark.parametrize(("channels", "expected"), [(1, [120]), (3, [200, 100, 50]), (4, [200, 100, 50, 255])])
def test_channels(tmp_path, channels, expected):
    pixels = np.broadcast_to(np.array([200, 100, 50], np.uint8), (20, 24, 3))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / name / f"{i}.png")
    data = load_data(config(tmp_path, channels=channels, valid=2))
    assert data.in_channels == channels
    assert np.array(data.mean) * 255 == pytest.approx(expected, abs=5)
    assert data.train[0][0].shape == (channels, 16, 16)


@pytest.mark.parametrize("mode", ["I;16", "L", "P", "1", "LA", "CMYK"])
def test_every_kind_of_pixels_becomes_bytes(tmp_path, mode):
    kind = "tif" if mode == "CMYK" else "png"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            if mode == "I;16":
                image = Image.fromarray(np.full((16, 16), 128 * 257, np.uint16))
            else:
                image = grey(128 if mode != "1" else 255).convert(mode)
            image.save(tmp_path / name / f"{i}.{kind}")
    data = load_data(config(tmp_path, channels=1, valid=2))
    assert data.mean[0] * 255 == pytest.approx(255 if mode == "1" else 128, abs=1)


def test_normalisation_can_be_given(tmp_path):
    write_folder(tmp_path)
    measured, imagenet, given = (
        load_data(config(tmp_path, normalise=how))
        for how in ("measured", "imagenet", {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]})
    )
    pixels = torch.stack([measured.train[i][0] for i in range(8)]).double() / 255
    assert measured.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert measured.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    assert imagenet.mean == (0.485, 0.456, 0.406)
    assert (given.mean, given.std) == ((0.1, 0.2, 0.3), (1, 2, 3))


def test_an_image_is_resized_by_its_shorter_side_and_cropped(tmp_path):
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, 30:50] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(stripes).save(tmp_path / name / f"{i}.png")
        Image.fromarray(np.full((1, 9000, 3), 7, np.uint8)).save(tmp_path / name / "line.png")
    data, wider = (load_data(config(tmp_path, valid=2, resize=resize)) for resize in (None, 32))
    index = next(i for i, name in enumerate(data.train.names) if b"line" not in name)
    assert data.train[index][0].float().mean() == pytest.approx(255 / 2, abs=3)
    assert wider.train[index][0].float().mean() == pytest.approx(255, abs=3)
    lines = [i for i, name in enumerate(data.train.names) if b"line" in name]
    assert lines
    assert all(data.train[i][0].shape == (3, 16, 16) for i in lines)
