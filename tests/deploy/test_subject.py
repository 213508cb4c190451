"""Supernets without their images: an imported one is used as it is, one that was trained here is not."""

import numpy as np
import pytest
import torch

from ofa_deploy.deploy.subject import load_subject, subject_facts
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import load_space
from ofa_deploy.supernet import Supernet, initialise, save_supernet

SPACE = load_space("tiny_16")
SOURCE = {"what": "a supernet of others", "file": "others.pth", "sha256": "0" * 64}


def saved(tmp_path, summary):
    supernet = Supernet(SPACE).eval()
    initialise(supernet, 0)
    save_supernet(tmp_path / "supernet.safetensors", supernet, summary)
    return supernet, tmp_path / "supernet.safetensors"


def test_an_imported_supernets_subnets_inherit_its_statistics(workspace, tmp_path):
    supernet, path = saved(tmp_path, {"source": SOURCE})
    subject = load_subject(workspace, path)
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(subject.subnet(SPACE.smallest)(x), supernet.extract(SPACE.smallest)(x))
    assert subject.data_error == "the supernet was imported from others.pth, without its images"
    assert subject_facts(subject)["source"] == SOURCE
    assert (subject.predictor, subject.test(lambda images: images, SPACE.smallest)) == (None, None)
    assert subject.images(SPACE.smallest, 3).shape == (3, 1, 16, 16)
    score = subject.accuracy(subject.codec)(subject.codec.encode([SPACE.smallest, SPACE.largest]))
    assert np.all(np.diff(score) > 0)


def test_a_supernet_of_ours_needs_its_images(workspace, tmp_path):
    subject = load_subject(workspace, saved(tmp_path, {})[1])
    with pytest.raises(OfaDeployError, match="cannot be recalibrated without its data"):
        subject.subnet(SPACE.smallest)
