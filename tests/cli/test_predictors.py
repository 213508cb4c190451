"""`predictor` as a user types it, on an untrained supernet of digits."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from ofa_deploy import cli as command_line
from ofa_deploy.accuracy import AccuracyPredictor, keep_predictor, proxy_gate
from ofa_deploy.accuracy.campaign import Campaign
from ofa_deploy.cli import cli
from ofa_deploy.config import TrainRecipe
from ofa_deploy.deploy.subject import fit_predictor, open_subject
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Supernet, initialise, save_supernet
from ofa_deploy.training import load_data

RECIPE = TrainRecipe(
    name="small",
    space="tiny_16",
    data={"name": "digits", "valid": 297},
    epochs=1,
    accuracy={"subnets": 14, "heldout": 5, "round": 3, "recalibration_images": 64, "images": 100},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor")
    supernet, data = Supernet(load_space("tiny_16")).eval(), load_data(RECIPE.data)
    initialise(supernet, 0)
    summary = {"recipe": RECIPE.model_dump(mode="json"), "mean": data.mean, "std": data.std}
    path = folder / "ws" / "supernets" / "small" / "supernet.safetensors"
    path.parent.mkdir(parents=True)
    save_supernet(path, supernet, {**summary, "fingerprint": data.fingerprint})
    return folder


def run(folder, *words):
    return CliRunner().invoke(cli, ["--workspace", str(folder / "ws"), *words], catch_exceptions=False)


def refused(folder, monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["ofa-deploy", "--workspace", str(folder / "ws"), *words])
    with pytest.raises(SystemExit) as stopped:
        command_line.main()
    return stopped.value.code, capsys.readouterr().err


def test_fit_then_show_then_more_without_evaluating_again(folder, monkeypatch):
    first = json.loads(run(folder, "predictor", "fit", "--json").stdout)
    assert first["file"].endswith("supernets/small/predictor.safetensors")
    assert [one["n_fit"] for one in first["error"]["rounds"]] == [6, 9]
    assert first["error"]["n_heldout"] == 5
    assert {"repeat_kendall", "bias_before", "bias_after", "within_1_std"} <= first["error"].keys()
    shown = run(folder, "predictor", "show").stdout
    assert "round 2: 9 subnets" in shown
    assert "within 1 predicted standard deviation" in shown
    assert json.loads(run(folder, "predictor", "show", "--json").stdout) == first

    evaluated, accuracies = [], Campaign.accuracies

    def counted(self, archs, roles, split):
        known = {row.key for row in self._store.evaluations(self.supernet_id, split)}
        evaluated.extend(arch for arch in archs if arch.key not in known)
        return accuracies(self, archs, roles, split)

    monkeypatch.setattr(Campaign, "accuracies", counted)
    assert json.loads(run(folder, "predictor", "fit", "--json").stdout) == first
    assert evaluated == []
    more = json.loads(run(folder, "predictor", "fit", "--subnets", "17", "--name", "more", "--json").stdout)
    assert more["error"]["rounds"][:2] == first["error"]["rounds"]
    assert len(evaluated) == more["error"]["n_fit"] - 9 == 3
    assert json.loads(run(folder, "predictor", "show", "--accuracy", "more", "--json").stdout) == more
    assert json.loads(run(folder, "predictor", "show", "--json").stdout) == first


def test_a_recipes_proxies_keep_subnets_from_being_evaluated(folder, monkeypatch):
    monkeypatch.setattr(proxy_gate, "COMPARED", 8)
    workspace = Workspace.open(folder / "gated")
    subject = open_subject(workspace, folder / "ws" / "supernets" / "small" / "supernet.safetensors")
    config = RECIPE.accuracy.model_copy(update={"min_proxy": {"synflow": 0.4}, "subnets": 17, "round": 6})
    error = fit_predictor(subject, config).error
    assert error.min_proxy == {"synflow": 0.4}
    rows = workspace.store.evaluations(subject.sha256, "fit")
    evaluated = {role: [row.arch for row in rows if row.role == role] for role in ("fit", "heldout")}
    gate = proxy_gate.ProxyGate(subject.codec, subject.data, config.min_proxy)
    passes = {role: gate.passes([subject.space.canonical(arch) for arch in archs]) for role, archs in evaluated.items()}
    assert passes["fit"].all()
    assert not passes["heldout"].all()
    assert len(evaluated["fit"]) == error.n_fit


def test_what_cannot_be_fitted_or_shown_is_one_line(folder, tmp_path, monkeypatch, capsys):
    code, said = refused(tmp_path, monkeypatch, capsys, "predictor", "fit")
    assert code == 2
    assert "is part of the package: give --name" in said
    code, said = refused(folder, monkeypatch, capsys, "predictor", "fit", "--subnets", "12", "--heldout", "10")
    assert code == 2
    assert "leave fewer than 5 to fit on" in said
    code, said = refused(folder, monkeypatch, capsys, "predictor", "fit", "--name", "../x")
    assert (code, "is not a name" in said) == (2, True)
    code, said = refused(folder, monkeypatch, capsys, "predictor", "show", "--accuracy", "none")
    assert (code, "unknown accuracy predictor 'none'" in said) == (2, True)
    code, said = refused(folder, monkeypatch, capsys, "predictor", "show", "--supernet", str(tmp_path))
    assert (code, "there is no supernet" in said) == (2, True)
    other = tmp_path / "supernet.safetensors"
    supernet = Supernet(load_space("tiny_16")).eval()
    initialise(supernet, 1)
    save_supernet(other, supernet, {})
    code, said = refused(folder, monkeypatch, capsys, "predictor", "show", "--supernet", str(other))
    assert (code, "has no accuracy predictor yet; fit one with" in said) == (2, True)
    code, said = refused(folder, monkeypatch, capsys, "predictor", "fit", "--supernet", str(other))
    assert (code, "no subnet can be evaluated" in said) == (2, True)


def test_show_of_an_unmeasured_one(tmp_path):
    codec = PopulationCodec(load_space("tiny_16"))
    population = codec.sample(12, np.random.default_rng(0))
    accuracy = codec.macs(population) / 1e8
    fitted = AccuracyPredictor.fit(codec, population[:8], accuracy[:8], population[8:], accuracy[8:])
    keep_predictor(Workspace.open(tmp_path / "ws"), "plain", fitted)
    shown = run(tmp_path, "predictor", "show", "--accuracy", "plain").stdout
    assert "fitted on 8 subnets; on 4 held-out ones" in shown
    assert "round" not in shown
