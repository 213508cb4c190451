"""The metrics of a training: a line of JSON for each step and each evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import write_atomic


def keep_metrics(path: Path, steps: int) -> None:
    """Drop the lines beyond a checkpoint's step, and one that a kill cut short.

    Raises:
        OfaDeployError: the file cannot be written.
    """
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] > steps:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line + "\n")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OfaDeployError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    write_atomic(path, "".join(kept).encode())


def last_epoch(path: Path) -> dict[str, float]:
    """Means of the last epoch's training metrics."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if "loss" in line and line["epoch"] == lines[-1]["epoch"]]
    return {key: sum(line[key] for line in last) / len(last) for key in ("loss", "distill", "accuracy")}
