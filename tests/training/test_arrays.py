"""The user's own arrays in a .npz file."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_deploy.config import DataConfig
from ofa_deploy.errors import UsageError
from ofa_deploy.training import load_data

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 6, 5), np.uint8)
LABELS = np.arange(60) % 3


def load(tmp_path, valid=0.25, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    return load_data(DataConfig(name="npz", root=tmp_path / "mine.npz", valid=valid))


@pytest.mark.parametrize("channels", [None, 1, 3, 5])
def test_any_number_of_channels(tmp_path, channels):
    images = IMAGES if channels is None else np.stack([IMAGES // (c + 1) for c in range(channels)], axis=-1)
    data = load(tmp_path, images=images, labels=LABELS)
    assert (data.in_channels, data.num_classes, data.classes) == (channels or 1, 3, ("0", "1", "2"))
    assert [np.bincount(part.labels).tolist() for part in (data.test, data.valid, data.train)] == [
        [4, 4, 4],
        [4, 4, 4],
        [12, 12, 12],
    ]
    held = {image.numpy().tobytes() for image, _ in (data.test[i] for i in range(12))}
    assert held <= {np.moveaxis(np.atleast_3d(image), -1, 0).tobytes() for image in images}


def test_test_images_and_names(tmp_path):
    named = {"classes": np.array(["ant", "bee", "cow"])}
    data = load(tmp_path, images=IMAGES, labels=LABELS, test_images=IMAGES[:9], test_labels=LABELS[:9], **named)
    assert data.classes == ("ant", "bee", "cow")
    assert np.array_equal(data.test.images[:, 0].numpy(), IMAGES[:9])
    assert len(data.train) + len(data.valid) == 60


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"images": IMAGES}, "needs the arrays images and labels, but has images"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"must be uint8 .*not float64 \[60, 6, 5\]"),
        ({"images": IMAGES[0], "labels": LABELS}, r"must be uint8 \[N, H, W\]"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "must be uint8"),
        ({"images": IMAGES, "labels": LABELS[:5]}, r"must be 60 integers from 0 on, not int64 \[5\]"),
        ({"images": IMAGES, "labels": LABELS - 1}, "integers from 0 on"),
        ({"images": IMAGES, "labels": LABELS * 0.5}, "integers from 0 on, not float64"),
        ({"images": IMAGES, "labels": LABELS + 1}, "no image has class 0"),
        ({"images": IMAGES, "labels": LABELS * 0}, "at least two classes"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a"])}, "1 class names for 3 classes"),
        ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "needs the arrays test_images and test_labels"),
        ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES, "test_labels": LABELS + 1}, "in channels or"),
        ({"images": IMAGES, "labels": np.array([{}] * 60)}, "as an .npz file"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, match):
    with pytest.raises(UsageError, match=match) as raised:
        load(tmp_path, **arrays)
    assert "mine.npz" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"words", None])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "mine.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read .*mine\.npz as an \.npz file"):
        load_data(DataConfig(name="npz", root=path))
    with pytest.raises(UsageError, match=r"data\.root must name"):
        load_data(DataConfig(name="npz"))
