import pytest

from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import known_targets, resolve_target

YAML = "name: {name}\ndescription: a test\nruntime: onnxruntime\nthreads: {threads}\n"


def test_local_is_always_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_target("local").name == "local"
    assert "local" in known_targets()


def test_where_you_stand_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "local.yaml").write_text(YAML.format(name="local", threads=2))
    (tmp_path / "mine.yaml").write_text(YAML.format(name="mine", threads=3))
    assert resolve_target("local").threads == 2
    assert resolve_target("mine").threads == resolve_target(str(tmp_path / "mine.yaml")).threads == 3


@pytest.mark.parametrize("name", ["nope", "", "../local", "a/b", "\x00", "x" * 5000])
def test_an_unknown_target_lists_the_known(name):
    with pytest.raises(UsageError, match=r"known: .*local") as error:
        resolve_target(name)
    assert "\n" not in str(error.value)


def test_a_profile_file_that_is_missing(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        resolve_target(str(tmp_path / "none.yaml"))
