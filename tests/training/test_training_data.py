"""Data sets from files that the tests make: formats, places, splits, damage."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import types

import numpy as np
import pytest
import torch

from ofa_deploy.config import DataConfig
from ofa_deploy.errors import UsageError
from ofa_deploy.training import load_data, sources, trained_data
from ofa_deploy.training.torchvision_shim import torchvision_module

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder, packed=True, train=40, test=10):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        images, labels = RNG.integers(0, 256, (count, 28, 28), np.uint8), RNG.integers(0, 10, count).astype(np.uint8)
        arrays[part] = images, labels
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx(array)
            (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return arrays


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """No test sees this machine's data sets, and none downloads."""
    monkeypatch.setenv("OFA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(sources, "_DEBIAN", tmp_path / "debian")


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise RuntimeError("no\nnetwork")

    stand_in = types.SimpleNamespace(FashionMNIST=refuse, MNIST=refuse, download_url=refuse)
    monkeypatch.setattr(sources, "torchvision_module", lambda _: stand_in)


def fashion(**fields):
    return DataConfig(name="fashion_mnist", valid=8, **fields)


@pytest.mark.parametrize(
    ("place", "packed"),
    [("data/FashionMNIST/raw", False), ("torch/vision/FashionMNIST/raw", True), ("debian/fashion-mnist", True)],
)
def test_fashion_mnist_is_found_in_its_places(tmp_path, place, packed):
    arrays = write_mnist(tmp_path / place, packed)
    data = load_data(fashion())
    assert (len(data.train), len(data.valid), len(data.test)) == (32, 8, 10)
    assert (data.num_classes, data.in_channels, data.name) == (10, 1, "fashion_mnist")
    assert np.array_equal(data.test.images[:, 0].numpy(), arrays["t10k"][0])
    assert np.array_equal(data.test.labels.numpy(), arrays["t10k"][1])
    image, label = data.test[3]
    assert (image.shape, image.dtype, label) == ((1, 28, 28), torch.uint8, arrays["t10k"][1][3])


def test_train_and_valid_share_nothing_and_never_change(tmp_path):
    images, _ = write_mnist(tmp_path / "here")["train"]
    first, second = load_data(fashion(root=tmp_path / "here")), load_data(fashion(root=tmp_path / "here"))
    assert torch.equal(first.valid.images, second.valid.images)
    parts = [image.numpy().tobytes() for split in (first.train, first.valid) for image in split.images]
    assert sorted(parts) == sorted(image.tobytes() for image in images)
    pixels = first.train.images.double() / 255
    assert first.mean == pytest.approx([pixels.mean().item()])
    assert first.std == pytest.approx([pixels.std(correction=0).item()])


@pytest.mark.usefixtures("offline")
def test_a_missing_fashion_mnist_names_all_three_places(tmp_path):
    with pytest.raises(UsageError) as raised:
        load_data(fashion())
    message = str(raised.value)
    assert str(tmp_path / "data") in message
    assert "dataset-fashion-mnist" in message
    assert "download failed (no network)" in message
    assert "\n" not in message


@pytest.mark.usefixtures("offline")
def test_a_given_root_is_the_only_place(tmp_path):
    write_mnist(tmp_path / "debian" / "fashion-mnist")
    with pytest.raises(UsageError, match="typo"):
        load_data(fashion(root=tmp_path / "typo"))
    write_mnist(tmp_path / "given" / "MNIST" / "raw")
    data = load_data(DataConfig(name="mnist", root=tmp_path / "given", valid=8))
    assert data.name == "mnist"
    assert len(data.train) == 32


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_damaged_files_are_named(tmp_path, kept):
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        load_data(fashion(root=tmp_path))


def test_idx_files_of_wrong_size_or_kind_are_refused(tmp_path):
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    with pytest.raises(UsageError, match="40 images but 3 labels"):
        load_data(fashion(root=tmp_path))
    labels.write_bytes(gzip.compress(idx(np.zeros((3, 3), np.uint8))))
    with pytest.raises(UsageError, match="wrong magic number"):
        load_data(fashion(root=tmp_path))


def test_holding_out_everything_is_refused():
    with pytest.raises(UsageError, match=r"data\.valid: holding out 5000 of 1437"):
        load_data(DataConfig(name="digits"))


def test_labels_are_named(tmp_path):
    write_mnist(tmp_path)
    assert load_data(fashion(root=tmp_path)).classes[9] == "Ankle boot"
    assert load_data(DataConfig(name="digits", valid=237)).classes == tuple("0123456789")


def test_the_fingerprint_tells_data_apart(tmp_path):
    write_mnist(tmp_path)
    config = fashion(root=tmp_path)
    first, again = load_data(config).fingerprint, load_data(config).fingerprint
    assert first == again
    assert (first["images"], first["test"]) == (40, 10)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(10, np.uint8))))
    assert load_data(config).fingerprint["sha256"] != first["sha256"]


def test_trained_data_is_normalised_as_then_and_refused_when_it_has_changed(tmp_path):
    write_mnist(tmp_path)
    config = fashion(root=tmp_path)
    summary = {"mean": [0.3], "std": [0.2], "fingerprint": load_data(config).fingerprint}
    data = trained_data(config, summary)
    assert (data.mean, data.std) == ((0.3,), (0.2,))
    assert trained_data(config, {"mean": [0.3], "std": [0.2]}).mean == (0.3,)
    write_mnist(tmp_path, train=41)
    with pytest.raises(
        UsageError, match=r"have changed since .*\(then 40 training and 10 test images, now 41 training"
    ):
        trained_data(config, summary)


def test_a_share_can_be_held_out(tmp_path):
    write_mnist(tmp_path)
    data = load_data(DataConfig(name="mnist", root=tmp_path, valid=0.25))
    assert (len(data.train), len(data.valid)) == (30, 10)


@pytest.mark.parametrize("labels", [np.full(40, 10, np.uint8), np.zeros(0, np.uint8)])
def test_labels_of_no_class_are_refused(tmp_path, labels):
    write_mnist(tmp_path, train=len(labels))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(UsageError, match="train is damaged"):
        load_data(fashion(root=tmp_path))


def test_digits_need_no_files():
    data = load_data(DataConfig(name="digits", valid=237))
    assert (len(data.train), len(data.valid), len(data.test)) == (1200, 237, 360)
    assert data.train.images.shape[1:] == (1, 8, 8)
    assert int(data.train.images.max()) == 255
    assert sorted(set(data.test.labels.tolist())) == list(range(10))


def cifar_record(classes: int, count: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    images, labels = RNG.integers(0, 256, (count, 3, 32, 32), np.uint8), RNG.integers(0, classes, count)
    coarse = b"" if classes == 10 else b"\x05"
    content = b"".join(coarse + bytes([y]) + x.tobytes() for x, y in zip(images, labels, strict=True))
    return content, images, labels


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar_is_read_from_its_binary_version(tmp_path, classes, packed):
    folder = "cifar-10-batches-bin" if classes == 10 else "cifar-100-binary"
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if classes == 10 else ["train.bin"]
    test_name = "test_batch.bin" if classes == 10 else "test.bin"
    parts = {name: cifar_record(classes, 6) for name in [*names, test_name]}
    if packed:
        with tarfile.open(tmp_path / f"cifar-{classes}-binary.tar.gz", "w:gz") as tar:
            for name, (content, _, _) in parts.items():
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    else:
        (tmp_path / folder).mkdir()
        for name, (content, _, _) in parts.items():
            (tmp_path / folder / name).write_bytes(content)
    data = load_data(DataConfig(name=f"cifar{classes}", root=tmp_path, valid=2))
    assert (len(data.train), data.num_classes, data.in_channels) == (6 * len(names) - 2, classes, 3)
    assert np.array_equal(data.test.images.numpy(), parts[test_name][1])
    assert np.array_equal(data.test.labels.numpy(), parts[test_name][2])
    assert data.classes == tuple(str(i) for i in range(classes))
    if packed:
        archive = tmp_path / f"cifar-{classes}-binary.tar.gz"
        archive.write_bytes(archive.read_bytes()[:5000])
    else:
        (tmp_path / folder / test_name).write_bytes(parts[test_name][0][:-1])
    with pytest.raises(UsageError, match=r"damaged or incomplete|truncated"):
        load_data(DataConfig(name=f"cifar{classes}", root=tmp_path, valid=2))


def test_cifar_names_its_classes_and_refuses_labels_of_none(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(cifar_record(100, 6)[0])
    (folder / "fine_label_names.txt").write_text("\n".join(f"name_{i}" for i in range(100)) + "\n\n")
    config = DataConfig(name="cifar100", root=tmp_path, valid=2)
    assert load_data(config).classes[99] == "name_99"
    (folder / "test.bin").write_bytes(b"\x01\x64" + bytes(3072))
    with pytest.raises(UsageError, match=r"test\.bin is damaged \(label 100 of 100 classes\)"):
        load_data(config)


@pytest.mark.usefixtures("offline")
def test_a_missing_cifar_says_what_is_looked_for(tmp_path):
    with pytest.raises(UsageError, match=r"cifar-10-binary\.tar\.gz"):
        load_data(DataConfig(name="cifar10", root=tmp_path))


def test_torchvision_imports_here():
    assert torchvision_module("transforms.v2").Compose
    assert torchvision_module("datasets").FashionMNIST
