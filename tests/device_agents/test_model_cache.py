import hashlib

import pytest

from device_agents.model_cache import Models

CONTENTS = {hashlib.sha256(data).hexdigest(): data for data in (bytes([i]) * 100 for i in range(5))}


@pytest.fixture
def fetched():
    return []


@pytest.fixture
def models(tmp_path, fetched):
    def fetch(sha256):
        fetched.append(sha256)
        return CONTENTS[sha256]

    return Models(str(tmp_path / "models"), fetch, limit=250)


def test_a_model_is_fetched_once(models, fetched):
    name = min(CONTENTS)
    assert models.get(name) == models.get(name) == CONTENTS[name]
    assert fetched == [name]


def test_the_folder_is_bounded(models, tmp_path):
    for name, data in CONTENTS.items():
        assert models.get(name) == data
    assert len(list((tmp_path / "models").iterdir())) == 2


def test_a_damaged_file_is_fetched_again(models, fetched, tmp_path):
    name = min(CONTENTS)
    models.get(name)
    (tmp_path / "models" / name).write_bytes(b"half of i")
    assert models.get(name) == CONTENTS[name]
    assert fetched == [name, name]


def test_a_folder_that_cannot_be_written_only_costs_the_cache(models, tmp_path, capsys):
    (tmp_path / "models").write_text("not a folder")
    name = min(CONTENTS)
    assert models.get(name) == CONTENTS[name]
    assert "going on without" in capsys.readouterr().err
