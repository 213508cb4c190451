"""Once-for-all's checkpoints: parity with its own package, every spelling, and files that are something else."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ofa_deploy.errors import UsageError
from ofa_deploy.export import run_onnx
from ofa_deploy.fleet import resolve_target
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.supernet import load_supernet, save_supernet
from ofa_deploy.supernet.once_for_all import import_checkpoint
from tests.supernet.ofa_checkpoints import (
    NAMES,
    SPELLINGS,
    legacy,
    state,
    their_choices,
    their_supernet,
    written_by_package,
)

SPACES = {width: load_space(name) for width, name in NAMES.items()}
RELATIVE = 1e-4  # of the largest logit


@pytest.fixture(scope="module", params=list(NAMES))
def published(request, tmp_path_factory):
    """A width's space, a checkpoint's state, and our supernet of it."""
    width = request.param
    path = tmp_path_factory.mktemp("published") / "ofa.pth"
    found = state(width)
    torch.save({"state_dict": found}, path)
    return width, found, import_checkpoint(path, SPACES[width])[0]


def close(ours: Tensor | np.ndarray, theirs: Tensor) -> bool:
    """Whether the largest difference is small against the largest logit, and against what another image changes."""
    difference, other_image = (torch.as_tensor(ours) - theirs).abs().max(), (theirs[0] - theirs[1]).abs().max()
    return bool(difference < RELATIVE * theirs.abs().max() and difference < 0.01 * other_image)


@torch.no_grad()
def test_logits_are_those_of_its_own_package(published):
    pytest.importorskip("ofa", reason="the package ofa is no extra; .ci/run installs it")
    width, found, supernet = published
    theirs = their_supernet(width, found)
    assert theirs.state_dict().keys() == state(width, written_by_package(width)).keys()
    codec, target = PopulationCodec(supernet.space), resolve_target("local")
    archs = codec.decode(codec.sample(4, np.random.default_rng(int(10 * width))))
    for arch in [supernet.space.largest, supernet.space.smallest, *archs]:
        x = torch.randn(2, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(1))
        theirs.set_active_subnet(**their_choices(arch, supernet.space))
        want, subnet = theirs.get_active_subnet().eval()(x), supernet.extract(arch)
        assert close(supernet(x, arch), want)
        assert close(subnet(x), want)
        model = onnx_bytes(write_onnx(supernet.space.network(arch), subnet.weights(), target))
        assert close(run_onnx(model, [x[:1].numpy(), x[1:].numpy()]), want)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_supernet(published, tmp_path, spelling):
    width, _, supernet = published
    path = tmp_path / "ofa.pth"
    torch.save(state(width, spelling), path)  # the bare state
    again, summary = import_checkpoint(path, SPACES[width])
    want = supernet.state_dict()
    assert all(torch.equal(value, want[name]) for name, value in again.state_dict().items())
    assert summary["source"]["file"] == "ofa.pth"
    assert len(summary["source"]["sha256"]) == 64


def test_what_was_imported_is_a_supernet_file_like_any_other(published, tmp_path):
    _, _, supernet = published
    save_supernet(tmp_path / "s.safetensors", supernet, {"source": {"file": "ofa.pth"}})
    loaded, summary = load_supernet(tmp_path / "s.safetensors")
    assert summary["source"] == {"file": "ofa.pth"}
    state_dict = loaded.state_dict()
    assert all(torch.equal(value, state_dict[name]) for name, value in supernet.state_dict().items())


def test_the_number_of_classes_is_the_files(tmp_path):
    path = tmp_path / "ofa.pth"
    torch.save(state(1.0, classes=10), path)
    supernet, _ = import_checkpoint(path, SPACES[1.0])
    assert supernet.space.num_classes == 10
    assert supernet(torch.zeros(1, 3, 128, 128), supernet.space.smallest).shape == (1, 10)
    with pytest.raises(UsageError, match=r"of ofa_mbv3_w1\.0, not of ofa_mbv3_w1\.2; give --space ofa_mbv3_w1\.0"):
        import_checkpoint(path, SPACES[1.2])


def refused(tmp_path, content: object, match: str) -> None:
    path = tmp_path / "ofa.pth"
    torch.save(content, path)
    with pytest.raises(UsageError, match=match) as raised:
        import_checkpoint(path, SPACES[1.0])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1500


KEY = "blocks.3.mobile_inverted_conv.depth_conv.conv.5to3_matrix"
PLAIN = "blocks.3.conv.depth_conv.conv.5to3_matrix"
LIST = "holds no state of a network"
CHANGES = [
    ({KEY: None}, rf"1 keys: missing {PLAIN}$"),
    ({"extra.weight": torch.zeros(3)}, r"1 keys: unknown extra\.weight$"),
    ({KEY: torch.zeros(9, 8)}, rf"1 keys: {PLAIN} is \[9, 8\], not \[9, 9\]$"),
    ({KEY: torch.full((9, 9), torch.nan)}, "has values that are not finite"),
    ({PLAIN: torch.eye(9)}, "twice, in two spellings"),
    ({KEY: "text"}, LIST),
    ({3: torch.eye(9)}, LIST),
    ({KEY: torch.eye(9).to_sparse()}, LIST),
    ({"classifier.linear.bias": torch.zeros(7)}, r"classifier\.linear\.weight is \[1000, 1280\], not \[7, 1280\]"),
    ({"classifier.linear.bias": torch.zeros(())}, r"classifier\.linear\.bias is \[\], not \[1000\]"),
]


@pytest.mark.parametrize(("change", "match"), CHANGES)
def test_a_state_that_does_not_fit_is_one_line_that_says_where(tmp_path, change, match):
    changed = {name: value for name, value in (state(1.0) | change).items() if value is not None}
    refused(tmp_path, {"state_dict": changed}, match)


def test_many_wrong_keys_are_counted(tmp_path):
    short = {name: value for name, value in state(1.0).items() if "blocks.7" not in name}
    refused(tmp_path, short, r"damaged: \d+ keys: missing blocks\.7\..*; and \d+ more$")
    for nothing in ({}, {"state_dict": {}}, {"state_dict": [1]}, [1, 2], torch.zeros(3)):
        refused(tmp_path, nothing, LIST)


class Hostile:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_that_a_file_holds_is_run(tmp_path):
    victim = tmp_path / "victim"
    refused(tmp_path, {"state_dict": Hostile(str(victim))}, "no torch file of plain tensors.*nothing of it was run")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Hostile(str(victim))))
    with pytest.raises(UsageError, match="nothing of it was run"):
        import_checkpoint(tmp_path / "bare.pth", SPACES[1.0])
    assert not victim.exists()


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "ofa.pth"
    torch.save(state(1.0), path)
    whole = path.read_bytes()
    save_file({"x": torch.zeros(3)}, tmp_path / "foreign")
    others = (
        (tmp_path / "foreign").read_bytes(),
        b"",
        b"text",
        os.urandom(1000),
        b"\x80\x02}",
        b"PK\x03\x04" + b"x" * 99,
    )
    for content in (*(whole[: int(len(whole) * share)] for share in (0.001, 0.5, 0.999)), *others):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"ofa\.pth (is no torch file|holds no state)") as raised:
            import_checkpoint(path, SPACES[1.0])
        assert "\n" not in str(raised.value)
    for missing in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(UsageError, match="there is no file"):
            import_checkpoint(missing, SPACES[1.0])


def test_as_a_user_types_it(ofa_deploy, tmp_path):
    torch.save({"state_dict": state(1.2, legacy, classes=5)}, tmp_path / "ofa.pth")
    words = ["import", "ofa-checkpoint", "ofa.pth", "-o", "deep/s.safetensors"]
    done = ofa_deploy(*words, "--space", "ofa_mbv3_w1.0", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "give --space ofa_mbv3_w1.2" in done.stderr
    assert not (tmp_path / "deep").exists()
    done = ofa_deploy(*words, "--space", "ofa_mbv3_w1.2", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (answer["space"], answer["classes"], answer["source"]["file"]) == ("ofa_mbv3_w1.2", 5, "ofa.pth")
    space = load_supernet(tmp_path / "deep/s.safetensors")[0].space
    (tmp_path / "arch.json").write_text(json.dumps(space.smallest.to_json()))
    words = ["export", "--arch", "arch.json", "--supernet", "deep/s.safetensors", "-o", "model.onnx"]
    done = ofa_deploy(*words, cwd=tmp_path)
    assert (done.returncode, "logits differ from PyTorch's by at most" in done.stdout) == (0, True)
    assert "Batch norm was not recalibrated" in done.stderr
