"""The store's contract holds for both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa_deploy.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ofa.db'}"
    return request.getfixturevalue("new_postgres_database")()


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """An empty store."""
    opened = Store(database)
    yield opened
    opened.close()
