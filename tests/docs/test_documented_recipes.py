"""The recipe that the README and the tutorial give for your own images is one that trains."""

import re
from pathlib import Path

import pytest
import yaml

from ofa_deploy.config import TrainRecipe, read_document
from ofa_deploy.space import load_space

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "tutorials" / "own-images.md", ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_recipe_is_valid(page: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    recipe = read_document(TrainRecipe, yaml.safe_load(text))
    assert load_space(recipe.space).largest.resolution == recipe.data.size


def test_the_spaces_of_the_guide_are_valid() -> None:
    page = ROOT / "docs" / "how-to" / "spaces.md"
    blocks = [
        yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]
    spaces = [load_space(block) for block in blocks if "stages" in block]
    assert [space.elastic_stages for space in spaces] == [(), (0, 1)]
    assert any(stage.kinds for stage in spaces[1].stages)
