"""A supernet that is given away with a sample of its images works where the data set is not."""

import json

import numpy as np
import pytest
import torch

from ofa_deploy.accuracy import campaign
from ofa_deploy.config import TrainRecipe
from ofa_deploy.deploy.finetuning import Tuning, check_trainable
from ofa_deploy.deploy.giving_away import pack
from ofa_deploy.deploy.subject import load_subject
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.store import Workspace
from ofa_deploy.training import train_supernet

SPACE = {
    "name": "pack_16",
    "base": "tiny_16",
    "resolutions": [16],
    "widths": [1.0],
    "stages": [{"width": 8, "stride": 2, "depths": [1, 2], "kernels": [3, 5], "expands": [2, 3]}],
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A workspace with a supernet, its packed folder, and its images' file."""
    folder = tmp_path_factory.mktemp("packing")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (300, 16, 16), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(300) % 10)
    accuracy = {"subnets": 8, "heldout": 3, "recalibration_images": 64, "images": 60}
    data = {"name": "npz", "root": str(folder / "images.npz"), "valid": 60, "test": 0.2}
    recipe = TrainRecipe.model_validate(
        {"name": "packing", "space": SPACE, "data": data, "epochs": 1, "batch_size": 60, "accuracy": accuracy}
    )
    workspace = Workspace.open(folder / "ws")
    subject = load_subject(workspace, train_supernet(recipe, workspace.supernets / "packing"))
    pack(subject, folder / "box", random=3)
    return workspace, subject, folder


@pytest.fixture
def elsewhere(packed, tmp_path):
    """The packed supernet where its images are not."""
    _, _, folder = packed
    hidden = folder / "hidden.npz"
    (folder / "images.npz").rename(hidden)
    yield load_subject(Workspace.open(tmp_path), folder / "box" / "supernet.safetensors")
    hidden.rename(folder / "images.npz")


def test_the_card_says_what_is_measured(packed):
    _, subject, folder = packed
    card = json.loads((folder / "box" / "card.json").read_text())
    assert card["supernet_sha256"] == subject.sha256
    assert card["test"]["images"] == len(subject.data.test) == 60
    assert card["test"]["random"]["n"] == 3
    assert card["test"]["random"]["least"] <= card["test"]["random"]["mean"] <= card["test"]["random"]["most"]
    assert card["predictor"]["supernet"] == subject.sha256
    assert card["test"]["random"]["predictor"]["rmse"] >= abs(card["test"]["random"]["predictor"]["bias"])


def test_an_accuracy_is_measured_once(packed, tmp_path, monkeypatch):
    _, subject, folder = packed
    monkeypatch.setattr(campaign, "evaluate_all", None)  # that would fail
    pack(subject, tmp_path, random=3)
    assert (tmp_path / "card.json").read_bytes() == (folder / "box" / "card.json").read_bytes()


def test_subnets_are_the_same_without_the_data_set(packed, elsewhere):
    _, subject, _ = packed
    assert elsewhere.data.sampled
    assert elsewhere.predictor.error == subject.predictor.error
    arch = subject.space.smallest
    here, there = subject.subnet(arch).state_dict(), elsewhere.subnet(arch).state_dict()
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=1e-4, atol=1e-5)  # the same images, in another place
    found = elsewhere.test(lambda batches: np.concatenate([x.reshape(len(x), -1)[:, :10] for x in batches]), arch)
    assert len(set(map(len, found.values()))) == 1


def test_evaluations_on_the_sample_are_kept_apart(elsewhere):
    arch = elsewhere.space.smallest
    value = elsewhere.campaign.accuracy(arch)
    store = elsewhere.campaign._store
    assert [row.accuracy for row in store.evaluations(elsewhere.sha256, "valid-sample")] == [value]
    assert not store.evaluations(elsewhere.sha256, "valid")


def test_a_sample_is_not_trained_on(elsewhere, tmp_path):
    with pytest.raises(UsageError, match="images"):
        check_trainable(elsewhere, Tuning(epochs=1))
    with pytest.raises(OfaDeployError, match="no more of its images"):
        pack(elsewhere, tmp_path / "again")


def test_the_same_images_give_the_same_bytes(packed, tmp_path):
    _, subject, folder = packed
    pack(subject, tmp_path, random=1)
    assert (tmp_path / "sample.npz").read_bytes() == (folder / "box" / "sample.npz").read_bytes()


def test_a_damaged_sample_is_named(packed, elsewhere, tmp_path):
    _, _, folder = packed
    for name in ("supernet.safetensors", "predictor.safetensors"):
        (tmp_path / name).write_bytes((folder / "box" / name).read_bytes())
    (tmp_path / "sample.npz").write_bytes((folder / "box" / "sample.npz").read_bytes()[:900])
    subject = load_subject(Workspace.open(tmp_path), tmp_path / "supernet.safetensors")
    assert subject.data is None
    assert "sample.npz" in subject.data_error
