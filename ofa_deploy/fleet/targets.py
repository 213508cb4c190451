"""Finding a target by name: a registered device, a profile (where you stand, then in the package), or a table that was
imported. A profile of which one device is registered means that device; one of which none is, a simulation."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from ofa_deploy.config import LOCAL, PUBLISHED, SIMULATED, TargetProfile, read_document, shipped_folder
from ofa_deploy.errors import DeviceUnavailable, UsageError
from ofa_deploy.fleet.local import server_elsewhere
from ofa_deploy.fleet.service import unavailable
from ofa_deploy.json_types import JSON
from ofa_deploy.store import Device, Workspace

FOLDERS = (Path("profiles"), shipped_folder("profiles"))  # where you stand, and what ships
FILES = (".yaml", ".yml", ".json", ".csv")  # what a command takes for a file, not for a target
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def resolve_target(name: str, workspace: Workspace | None = None, measure: bool = False) -> TargetProfile:
    """The target of a name: a registered device with the profile that it was registered with; ``profiles/NAME.yaml``
    where you stand, a path to a YAML file, or one of the package; or one that a pipeline in the workspace declared.

    A profile stands for the only device that is registered with it. Where none is, and the profile has figures to
    simulate one, the runtime is ``simulated``. A name without a profile that has a table in the workspace is a target
    too: its runtime is ``published``.

    Args:
        workspace: whose devices and tables count.
        measure: whether it is to be measured.

    Raises:
        UsageError: there is none; lists those there are. Or its file is wrong, or several devices have that profile.
        DeviceUnavailable: it is to be measured, and nothing is known of it but a table.
    """
    devices = _registered(workspace) if workspace and name != LOCAL else {}
    if name in devices:
        return _as_registered(name, devices[name])
    found = _profile(name, workspace)
    if found is not None and not found.here:
        return _instead_of(found, devices)
    if found is None and workspace and re.fullmatch(NAME, name) and workspace.store.has_measurements(name):
        found = TargetProfile(name=name, description="known from a table that was imported", runtime=PUBLISHED)
    if found is None:
        known = ", ".join(known_targets(workspace))
        raise UsageError(f"unknown target {name!r}; known: {known}, or a path that ends in .yaml")
    if measure and found.runtime == PUBLISHED:
        there = [device for device in _devices(workspace) if device.name == name] if workspace else []
        if there:
            raise DeviceUnavailable(unavailable(name, there[0]) or f"{name} was registered without a profile")
        raise DeviceUnavailable(
            f"{name} cannot be measured: its table was imported, and no profile says how to reach the device; use it "
            "with `search`, `predict` and `lut show`, or measure another with: --target local"
        )
    return found


def in_precision(target: TargetProfile, precision: str | None) -> TargetProfile:
    """A target as it computes in a precision; None is the target's own.

    Raises:
        UsageError: what is known of it is an imported table, which has one condition.
    """
    if precision is None:
        return target
    if target.runtime == PUBLISHED:
        raise UsageError(f"the table of {target.name} was imported as it is; leave --precision out")
    return target.model_copy(update={"precision": precision})


def _registered(workspace: Workspace) -> dict[str, dict[str, JSON]]:
    """The profiles of the devices that were registered with one, by the device's name."""
    return {device.name: device.profile for device in _devices(workspace) if device.profile and not device.revoked_at}


def _devices(workspace: Workspace) -> Sequence[Device]:
    """All devices of the server that commands use, or of the workspace where there is none."""
    client = server_elsewhere(workspace)
    if client is None:
        return workspace.store.devices()
    with contextlib.closing(client):
        return client.devices()


def _as_registered(name: str, profile: dict[str, JSON]) -> TargetProfile:
    """A device's target: its own name, and what its profile said when it was registered."""
    return read_document(TargetProfile, {**profile, "name": name, "loopback": False})


def _instead_of(profile: TargetProfile, devices: dict[str, dict[str, JSON]]) -> TargetProfile:
    """The device that a profile means, or a simulated one, or the profile as it is."""
    same = sorted(name for name, known in devices.items() if known.get("name") == profile.name)
    if len(same) > 1:
        raise UsageError(f"{profile.name} is the profile of {len(same)} devices: {', '.join(same)}; name one of them")
    if same:
        return _as_registered(same[0], devices[same[0]])
    return simulated(profile) if profile.simulation else profile


def simulated(profile: TargetProfile) -> TargetProfile:
    """A stand-in for a kind of device, made of its profile's figures.

    Raises:
        UsageError: it has none.
    """
    if not profile.simulation:
        raise UsageError(f"the profile {profile.name} has no figures to simulate such a device")
    return profile.model_copy(update={"runtime": SIMULATED})


def read_profile(name: str) -> TargetProfile:
    """A kind of device as its file says: ``profiles/NAME.yaml`` where you stand, a path, or one of the package.

    Raises:
        UsageError: there is none; lists those there are. Or its file is wrong.
    """
    found = _profile(name)
    if found is None:
        raise UsageError(f"unknown profile {name!r}; known: {', '.join(known_targets())}, or a path that ends in .yaml")
    return found


def _profile(name: str, workspace: Workspace | None = None) -> TargetProfile | None:
    if name.endswith((".yaml", ".yml")):
        return read_document(TargetProfile, Path(name))
    declared = (workspace.targets,) if workspace else ()
    if re.fullmatch(NAME, name):
        for folder in (FOLDERS[0], Path(), *FOLDERS[1:], *declared):
            path = folder / f"{name}.yaml"
            if path.is_file():
                return read_document(TargetProfile, path)
    return None


def known_targets(workspace: Workspace | None = None) -> list[str]:
    """Names of all profiles that are found from here, and of all devices with a table in the workspace."""
    profiles = {path.stem for folder in FOLDERS if folder.is_dir() for path in folder.glob("*.yaml")}
    return sorted(profiles | set(workspace.store.measured_devices() if workspace else ()))


def new_table_name(name: str, workspace: Workspace) -> str:
    """Check a name for a table that is to be imported.

    Raises:
        UsageError: it is no name, or that of a device that is measured here: its rows and imported ones do not mix.
    """
    if not re.fullmatch(NAME, name) or name.endswith(FILES):
        allowed = f"letters, digits, '.', '_' and '-', 100 at most, none of {', '.join(FILES)} at the end"
        raise UsageError(f"{name[:100]!r} is not a name for a target: {allowed}")
    profile = _profile(name)
    if (profile and profile.runtime != PUBLISHED) or workspace.store.device(name):
        raise UsageError(
            f"{name} is a target that is measured, and imported rows do not mix with its own; choose another name"
        )
    return name
