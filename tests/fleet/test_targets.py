import pytest

from ofa_deploy.errors import DeviceUnavailable, UsageError
from ofa_deploy.fleet import known_targets, resolve_target
from ofa_deploy.fleet.targets import new_table_name

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


def test_a_device_with_a_table_and_no_profile_is_a_target_that_is_not_measured(workspace):
    workspace.store.add_measurements(
        [{"device": "phone", "kind": "op", "key": "a", "condition": {}, "measured_at": ""}]
    )
    assert resolve_target("phone", workspace).runtime == "published"
    assert known_targets(workspace) == sorted([*known_targets(), "phone"])
    with pytest.raises(DeviceUnavailable, match="phone cannot be measured: its table was imported"):
        resolve_target("phone", workspace, measure=True)
    with pytest.raises(UsageError, match="unknown target 'phone'"):
        resolve_target("phone")
    assert resolve_target("local", workspace, measure=True).runtime == "onnxruntime"
    for name in ("nope", "\x00", "x" * 5000):
        with pytest.raises(UsageError, match=r"known: local, phone"):
            resolve_target(name, workspace)


def test_an_imported_table_takes_no_name_of_a_measured_device(workspace):
    assert new_table_name("phone", workspace) == "phone"
    workspace.store.touch_device("phone", {})
    for name in ("phone", "local"):
        with pytest.raises(UsageError, match="choose another name"):
            new_table_name(name, workspace)
