"""What ships parses."""

from pathlib import Path

import pytest

from ofa_deploy.config import TargetProfile, TrainRecipe, read_document, shipped_folder
from ofa_deploy.differentiable import DartsRecipe
from ofa_deploy.pipeline.question import read_pipeline
from ofa_deploy.space import load_space

PIPELINES = sorted(shipped_folder("pipelines").glob("*.yaml"))


def test_every_kind_of_document_ships() -> None:
    pipelines = [path for path in PIPELINES if "stages:" in path.read_text() and not path.stem.startswith("darts_")]
    trains = [path for path in pipelines if "stage: train" in path.read_text()]
    assert trains
    assert set(PIPELINES) > set(pipelines)
    assert any(path.stem.startswith("darts_") for path in PIPELINES)


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_pipelines_and_recipes(path: Path) -> None:
    if path.stem.startswith("darts_"):
        assert read_document(DartsRecipe, path).name == path.stem
    elif "stages:" in path.read_text():
        document = read_pipeline(path)
        recipes = [stage.recipe for stage in document.stages if stage.stage == "train"]
        assert all((path.parent / recipe).is_file() for recipe in recipes)
    else:
        assert load_space(read_document(TrainRecipe, path).space).stages


@pytest.mark.parametrize("path", sorted(shipped_folder("profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_profiles(path: Path) -> None:
    assert read_document(TargetProfile, path).name == path.stem
