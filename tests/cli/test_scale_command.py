"""`scale` and the imports of published bases as a user types them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from ofa_deploy.cli import cli
from ofa_deploy.deploy.subject import open_subject
from ofa_deploy.errors import UsageError
from ofa_deploy.pixels import network_input
from ofa_deploy.space import load_space
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Supernet
from ofa_deploy.supernet.pretrained import efficientnet_pytorch_names
from ofa_deploy.training.torchvision_shim import torchvision_module

RECIPE = {
    "name": "grid",
    "space": {
        "name": "small",
        "in_channels": 1,
        "num_classes": 10,
        "first_block": False,
        "feature_width": 0,
        "head_width": 16,
        "stem_width": 8,
        "resolutions": [16],
        "stages": [{"width": 8, "stride": 2, "depths": [1], "kernels": [3], "expands": [1, 2]}],
    },
    "data": {"name": "digits", "valid": 1200},
    "epochs": 1,
}


def run(*words):
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_scale_prints_and_writes_a_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = json.loads(run("scale", "--phi", "1", "-o", "one.yaml", "--json").stdout)
    assert answer["published"]["params"] == 7794184
    assert answer["depths"] == [2, 3, 3, 4, 4, 5, 2]
    assert answer["resolution"] == 258
    assert load_space("one.yaml").to_json() == answer["space"]
    assert "9,109,994 parameters" in run("scale", "--phi", "1").stdout
    again = json.loads(run("scale", "--base", "one.yaml", "--phi", "0", "--json").stdout)
    assert (again["params"], again["published"]) == (answer["params"], None)


def test_the_grid_trains_each_network_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    words = ("scale", "--grid", "-c", "recipe.yaml", "--step", "0.5", "--tolerance", "0.3", "--json")
    first = json.loads(run(*words).stdout)
    networks, folder = first["networks"], tmp_path / ".ofa" / "scaling" / "grid"
    assert len(networks) > 1
    assert networks[0]["accuracy"] == max(network["accuracy"] for network in networks)
    assert all(abs(n["alpha"] * n["beta"] ** 2 * n["gamma"] ** 2 - 2) <= 0.3 for n in networks)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("supernet.safetensors")}
    assert len(times) == len(networks)
    assert json.loads(run(*words).stdout) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (folder / "grid.html").read_text().count("<title>") > len(networks)


@pytest.mark.parametrize("words", [(), ("--phi", "1", "--grid"), ("--grid",), ("--phi", "1", "-c", "x.yaml")])
def test_scale_needs_one_task(words):
    with pytest.raises(UsageError, match="give either --phi, or --grid"):
        run("scale", *words)


def test_a_torchvision_checkpoint_becomes_a_supernet_to_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = torchvision_module("models").efficientnet_b0(weights=None)
    torch.save(model.state_dict(), "b0.pth")
    words = ("import", "torchvision-checkpoint", "b0.pth", "--space", "efficientnet_b0", "-o", "b0.safetensors")
    answer = json.loads(run(*words, "--json").stdout)
    assert (answer["params"], answer["classes"]) == (5288548, 1000)
    (tmp_path / "arch.json").write_text(json.dumps(load_space("efficientnet_b0").largest.to_json()))
    run("export", "--arch", "arch.json", "--supernet", "b0.safetensors", "-o", "b0.onnx")
    assert (tmp_path / "b0.onnx").stat().st_size > 20e6
    with pytest.raises(UsageError, match="another network's"):
        run("import", "torchvision-checkpoint", "b0.pth", "--space", "efficientnet_b3", "-o", "b3.safetensors")
    assert not (tmp_path / "b3.safetensors").exists()


def test_an_efficientnet_lite_becomes_a_bundle_that_says_how_images_are_normalised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = Supernet(space := load_space("efficientnet_lite0")).state_dict()
    torch.save({theirs: state[ours] for ours, theirs in efficientnet_pytorch_names(space).items()}, "lite0.pth")
    words = ("efficientnet-pytorch-checkpoint", "lite0.pth", "--space", "efficientnet_lite0", "-o", "lite0.safetensors")
    answer = json.loads(run("import", *words, "--json").stdout)
    assert (answer["params"], answer["classes"]) == (4652008, 1000)
    subject = open_subject(Workspace.open(tmp_path), tmp_path / "lite0.safetensors")
    how = subject.preprocessing(space.largest)
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    expected = (image[16:240, 16:240].astype(np.float32) - 127) / 128
    assert np.allclose(network_input(image, how), expected.transpose(2, 0, 1), atol=1e-5)
