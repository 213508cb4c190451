"""The recipe that the guide to your own images gives is one that trains."""

import re
from pathlib import Path

import yaml

from ofa_deploy.config import TrainRecipe, read_document
from ofa_deploy.space import load_space

PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"


def test_the_guides_recipe_is_valid() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    recipe = read_document(TrainRecipe, yaml.safe_load(text))
    assert load_space(recipe.space).largest.resolution == recipe.data.size
