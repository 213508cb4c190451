"""What an extract stage may ask for beside budgets: precisions, a front, networks of cells."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ofa_deploy.api.front_search import pareto
from ofa_deploy.config import read_document, shipped_folder
from ofa_deploy.differentiable import random_genotype
from ofa_deploy.errors import UsageError
from ofa_deploy.export import verify_bundle
from ofa_deploy.pipeline.context import shared
from ofa_deploy.pipeline.document import ExtractStage
from ofa_deploy.pipeline.question import read_pipeline
from ofa_deploy.pipeline.runner import run_pipeline
from ofa_deploy.store import Workspace

BEGIN = [{"stage": "import", "supernet": "digits"}, {"stage": "profile", "networks": 4}]


def run(folder: Path, *stages: dict):
    file = folder / "ci.yaml"
    file.write_text(yaml.safe_dump({"name": "ci", "targets": {"jetson_nano": None}, "stages": [*BEGIN, *stages]}))
    with Workspace.open(folder / ".ofa") as workspace:
        return run_pipeline(read_pipeline(file), workspace, lambda *_: None)


def test_the_best_of_several_precisions_and_of_a_front_and_of_cells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run(tmp_path, {"stage": "extract", "max_ms": 1.4, "precision": ["fp32", "fp16"]})
    assert outcome.error is None, outcome.error
    (report,) = outcome.reports
    assert report["folder"] == "jetson_nano-ms1.4-fp32-fp16"
    assert [offer["precision"] for offer in report["precisions"]] == ["fp32", "fp16"]
    assert "--precision fp32,fp16" in report["command"]
    assert verify_bundle(Path(report["bundle"])) == []
    again = run(tmp_path, {"stage": "extract", "max_ms": 1.4, "precision": ["fp32", "fp16"]})
    assert {unit.name: unit.status for unit in again.units}["extract jetson_nano-ms1.4-fp32-fp16"] == "skipped"

    with Workspace.open(tmp_path / ".ofa") as workspace:
        front = pareto("jetson_nano", points=3, supernet=shipped_folder("supernets") / "digits", workspace=workspace)
    front.save(tmp_path / "front.json")
    outcome = run(tmp_path, {"stage": "extract", "max_ms": 1.4, "front": "front.json"})
    assert outcome.error is None, outcome.error
    assert outcome.reports[0]["subnet"]["key"] in {point["key"] for point in front.points()}

    recipe = {"name": "cells", "resolution": 16, "nodes": 2, "threads": 1, "data": {"name": "digits", "valid": 297}}
    recipe["train"] = {"cells": 3, "channels": 4, "epochs": 1, "batch_size": 256, "lr": 0.05}
    (tmp_path / "cells.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "genotype.json").write_text(json.dumps(random_genotype(2, np.random.default_rng(3)).to_json()))
    cells = {"config": "cells.yaml", "genotype": "genotype.json", "channels": [4, 8]}
    outcome = run(tmp_path, {"stage": "extract", "max_ms": 5, "darts": cells})
    assert outcome.error is None, outcome.error
    (report,) = outcome.reports
    assert report["folder"] == "jetson_nano-ms5-darts"
    assert report["accuracy"]["measured"] is not None, "the network that fits was trained"
    assert "--family darts --config cells.yaml --genotype genotype.json" in report["command"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"precision": ["fp32", "int8"], "darts": {"config": "c.yaml"}}, "takes a single --precision"),
        ({"finetune": 1, "darts": {"config": "c.yaml"}}, "not with --family darts"),
        ({"finetune_epochs": 2}, "--finetune-epochs needs --finetune"),
        ({"precision": "fp64"}, "precision"),
    ],
)
def test_what_does_not_go_together_ends_before_anything_slow(tmp_path, asked, said):
    with pytest.raises(UsageError, match=said):
        run(tmp_path, {"stage": "extract", "max_ms": 1, **asked})


def test_a_stage_without_new_keys_is_what_it_was():
    stage = read_document(ExtractStage, {"stage": "extract", "max_ms": 1, "strategy": "exact"})
    assert not {"precision", "front", "darts"} & set(shared(stage))
    assert "precision" in shared(stage.model_copy(update={"precision": ("int8",)}))
