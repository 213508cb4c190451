"""Random subnets, brought to feasibility: the baseline that every other strategy must beat."""

from __future__ import annotations

from collections.abc import Iterator

from ofa_deploy.search.setting import Setting
from ofa_deploy.space import Population

BATCH = 64


def sampling(setting: Setting) -> Iterator[Population]:
    """Random search."""
    while True:
        yield setting.random(setting.population or BATCH)
