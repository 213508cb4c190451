"""What a file was trained with, and whether that is what is asked for now."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.space import load_space
from ofa_deploy.supernet import Header

# what may change between a kill and its resume without changing the weights
_FREE = {
    *("accuracy", "checkpoint_seconds", "device", "parallel_subnets"),
    *("data.corrupt_limit", "data.licence", "data.root", "data.workers"),
}
SHOWN = 100  # characters of a value


def check_same(path: Path, before: Header, now: Header) -> None:
    """Compare what a file was trained with to what is asked for now.

    Args:
        before: a header; keys that ``now`` lacks mean nothing.

    Raises:
        UsageError: names the first key that differs, with both values.
    """
    then, asked = _flat({key: before.get(key, {}) for key in now}), _flat(now)
    for key in sorted(asked.keys() | then.keys()):
        if asked.get(key) != then.get(key) and key.removeprefix("recipe.") not in _FREE:
            raise UsageError(
                f"{path} was trained with another recipe: {key.removeprefix('recipe.')} was {_shown(then.get(key))}, "
                f"is now {_shown(asked.get(key))}; restore it, or give the recipe another name"
            )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def recipe_json(recipe: TrainRecipe) -> Header:
    """The recipe as a JSON object."""
    return recipe.model_dump(mode="json")


def identity(recipe: TrainRecipe) -> Header:
    """What must be equal for a resume: the recipe, with its space spelled out, since a space's file may change."""
    return {"recipe": recipe_json(recipe), "space": load_space(recipe.space).to_json()}


def completed(header: Header) -> Header:
    """The identity in a header; later versions' settings are at their defaults in it, which change nothing."""
    try:
        recipe = recipe_json(TrainRecipe.model_validate(header["recipe"]))
        return {"recipe": recipe, "space": load_space(header["space"]).to_json()}
    except (KeyError, ValidationError, UsageError):  # of no version known here: it differs in any case
        return header


def _flat(tree: Header, prefix: str = "") -> Header:
    """Dotted keys; the keys in ``_FREE`` and the space's name in the recipe stay whole."""
    flat: Header = {}
    for key, value in tree.items():
        here = f"{prefix}{key}"
        if here == "recipe.space":
            continue
        nested = isinstance(value, dict) and here.removeprefix("recipe.") not in _FREE
        flat |= _flat(value, f"{here}.") if nested else {here: value}
    return flat
