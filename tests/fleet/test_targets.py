from dataclasses import replace

import pytest

from ofa_deploy.errors import DeviceUnavailable, UsageError
from ofa_deploy.fleet import known_targets, resolve_target
from ofa_deploy.fleet.targets import new_table_name
from ofa_deploy.store import Device

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
        with pytest.raises(UsageError, match=r"known: .*jetson_nano, .*local, phone"):
            resolve_target(name, workspace)


NANO = {**resolve_target("jetson_nano").model_dump(mode="json"), "runtime": "tensorrt"}


def with_devices(workspace, monkeypatch, **profiles):
    devices = [Device(name, profile, {}, "", None, None) for name, profile in profiles.items()]
    monkeypatch.setattr(workspace.store, "devices", lambda: devices)
    return devices


def test_a_profile_of_which_no_device_is_registered_is_simulated(workspace, monkeypatch):
    found = resolve_target("jetson_nano", workspace, measure=True)
    assert (found.name, found.runtime, found.simulated) == ("jetson_nano", "simulated", True)
    gone = with_devices(workspace, monkeypatch, nano1=NANO)
    gone[0] = replace(gone[0], revoked_at="2026-01-01T00:00:00Z")
    assert resolve_target("jetson_nano", workspace).simulated


def test_a_profile_with_one_device_means_that_device(workspace, monkeypatch):
    with_devices(workspace, monkeypatch, nano1=NANO, other=resolve_target("local").model_dump(mode="json"))
    for name in ("jetson_nano", "nano1"):
        found = resolve_target(name, workspace, measure=True)
        assert (found.name, found.runtime, found.precision) == ("nano1", "tensorrt", "fp16")
    assert resolve_target("local", workspace).name == "local"


def test_a_profile_with_several_devices_lists_them(workspace, monkeypatch):
    with_devices(workspace, monkeypatch, nano2=NANO, nano1=NANO)
    with pytest.raises(UsageError, match="jetson_nano is the profile of 2 devices: nano1, nano2; name one of them"):
        resolve_target("jetson_nano", workspace)
    assert resolve_target("nano2", workspace).name == "nano2"


def test_a_kind_of_device_without_figures_has_to_be_registered(fleet, workspace, tmp_path, make_items):
    (tmp_path / "board.yaml").write_text(YAML.format(name="board", threads=1))
    found = resolve_target(str(tmp_path / "board.yaml"), workspace, measure=True)
    with pytest.raises(DeviceUnavailable, match="ofa-deploy device register board --profile"):
        fleet.measure(found, make_items(1))


def test_every_fact_of_a_shipped_profile_has_its_source():
    facts = resolve_target("jetson_nano").facts
    assert len(facts) >= 5
    assert all(len(fact.source) > 10 for fact in facts.values())


def test_an_imported_table_takes_no_name_of_a_measured_device(workspace):
    assert new_table_name("phone", workspace) == "phone"
    workspace.store.touch_device("phone", {})
    for name in ("phone", "local"):
        with pytest.raises(UsageError, match="choose another name"):
            new_table_name(name, workspace)


def test_a_revoked_device_that_has_a_table_is_said_to_be_revoked(workspace):
    workspace.store.access.register("nano-1", {"name": "none", "runtime": "onnxruntime"}, "hash", "9999")
    workspace.store.access.revoke("nano-1")
    row = {"device": "nano-1", "kind": "op", "key": "k", "condition": {}, "measured_at": "2026-01-01T00:00:00Z"}
    workspace.store.add_measurements([row])
    with pytest.raises(DeviceUnavailable, match=r"'nano-1' was revoked at 20.*let it in again"):
        resolve_target("nano-1", workspace, measure=True)
