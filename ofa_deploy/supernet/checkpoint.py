"""One safetensors file holds a supernet: its weights, and in the header its space and a summary of its training."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.space import SearchSpace, load_space
from ofa_deploy.supernet.supernet import Supernet

Header = dict[str, Any]


def save_supernet(path: Path, supernet: Supernet, summary: Mapping[str, object]) -> None:
    """Write a supernet and a JSON summary of how it came to be; the file appears whole or not at all."""
    header = {"kind": "supernet", "space": supernet.space.to_json(), "summary": dict(summary)}
    write_tensors(path, _state(supernet), header)


def load_supernet(path: Path) -> tuple[Supernet, Header]:
    """Read a supernet, in evaluation mode, and its summary.

    Raises:
        UsageError: the file is missing, truncated or foreign, or its weights are not those of its space.
    """
    header, tensors = read_tensors(path, "supernet")
    supernet = Supernet(_space(path, header))
    expected = {name: tuple(value.shape) for name, value in _state(supernet).items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if wrong := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        raise UsageError(f"{path}: {len(wrong)} weights do not fit its space, the first is {wrong[0]}; train it anew")
    supernet.load_state_dict(tensors, strict=False)
    return supernet.eval(), header["summary"]


def read_summary(path: Path) -> tuple[SearchSpace, Header]:
    """A supernet's space and summary, from the file's header alone.

    Raises:
        UsageError: the file is missing, truncated or foreign.
    """
    header = read_tensors(path, "supernet", names=())[0]
    return _space(path, header), header["summary"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically.

    Raises:
        OfaDeployError: the file cannot be written; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(whole, temporary, metadata={"ofa_deploy": json.dumps(header)})
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OfaDeployError(f"cannot write {path}: {reason}; free space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path, kind: str, names: tuple[str, ...] | None = None) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors (all of them by default) of a file that ``write_tensors`` wrote.

    Raises:
        UsageError: the file is missing, truncated, or not of this kind.
    """
    if not path.is_file():
        raise UsageError(f"there is no {kind} file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("ofa_deploy", "{}"))
            wanted = file.keys() if names is None else names
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged or no safetensors file ({error}); copy or make it again") from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise UsageError(f"{path} is a safetensors file, but not a {kind} written by ofa-deploy")
    return header, tensors


def _space(path: Path, header: Header) -> SearchSpace:
    try:
        return load_space(header["space"])
    except (KeyError, UsageError) as error:
        raise UsageError(f"{path} describes no valid search space: {error}") from error


def _state(supernet: Supernet) -> dict[str, Tensor]:
    return {k: v for k, v in supernet.state_dict().items() if not k.endswith("num_batches_tracked")}
