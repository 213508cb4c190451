"""Supernet files: round trip, damage, foreign files, disks that refuse."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.space import load_space
from ofa_deploy.supernet import Supernet, load_supernet, read_summary, save_supernet, write_tensors

SPACE = load_space("tiny_16")


@pytest.fixture
def saved(tmp_path):
    supernet = Supernet(SPACE).eval()
    path = tmp_path / "deep" / "supernet.safetensors"
    save_supernet(path, supernet, {"epochs": 3, "train": {"loss": 0.5}})
    return supernet, path


def test_round_trip(saved):
    supernet, path = saved
    loaded, summary = load_supernet(path)
    assert summary == {"epochs": 3, "train": {"loss": 0.5}}
    assert loaded.space == SPACE
    assert not loaded.training
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in supernet.state_dict().items())
    assert read_summary(path) == (SPACE, summary)
    assert [p.name for p in path.parent.iterdir()] == ["supernet.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_one_line(saved, share):
    _, path = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for read in (load_supernet, read_summary):
        with pytest.raises(UsageError, match=r"supernet\.safetensors is damaged") as raised:
            read(path)
        assert "\n" not in str(raised.value)


def test_files_of_others_are_refused(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(3)}, foreign)
    with pytest.raises(UsageError, match="not a supernet written by ofa-deploy"):
        load_supernet(foreign)
    text = tmp_path / "text.safetensors"
    text.write_text("not tensors at all, but long enough for a header")
    with pytest.raises(UsageError, match="damaged or no safetensors file"):
        load_supernet(text)
    with pytest.raises(UsageError, match="there is no supernet file"):
        load_supernet(tmp_path / "absent.safetensors")


def test_weights_that_do_not_fit_the_space_are_refused(tmp_path):
    supernet = Supernet(SPACE)
    state = {k: v for k, v in supernet.state_dict().items() if k != "head.conv.weight"}
    path = tmp_path / "short.safetensors"
    header = {"kind": "supernet", "space": SPACE.to_json(), "summary": {}}
    write_tensors(path, state, header)
    with pytest.raises(UsageError, match=r"head\.conv\.weight|num_batches_tracked"):
        load_supernet(path)
    write_tensors(path, state, {**header, "space": {"name": "x", "colour": 1}})
    with pytest.raises(UsageError, match="no valid search space"):
        read_summary(path)


def test_a_failed_write_keeps_what_was_there(saved, monkeypatch):
    supernet, path = saved
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ofa_deploy.supernet.checkpoint.save_file", full)
    with pytest.raises(OfaDeployError, match="No space left on device; free space"):
        save_supernet(path, supernet, {})
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1
