"""A bundle's ``infer.py`` in a clean process that has only the runtime: what a user's machine will do."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ofa_deploy.errors import GateFailed

SECONDS = 120
REFUSED = ("torch", "torchvision", "ofa_deploy", "device_agents", "onnx", "scipy", "sklearn", "safetensors")
STUB = f"""
import runpy, sys
for name in {REFUSED!r}:
    sys.modules[name] = None  # importing it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def noise_image(height: int, width: int, channels: int) -> np.ndarray:
    """An image of the network's own size, ``uint8[height, width, channels]``: nothing of it is lost by resizing."""
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smoke_run(files: Mapping[str, bytes], images: Mapping[str, bytes]) -> list[str]:
    """Run a bundle's program on images, in a process that cannot import what is not the runtime's.

    Args:
        images: the contents of image files, by name.

    Returns:
        The labels that it prints.

    Raises:
        GateFailed: it fails or takes longer than two minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**files, **images}.items():
            (Path(folder) / name).write_bytes(content)
        command = [sys.executable, "-I", "-c", STUB, "infer.py", *images]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise GateFailed(f"infer.py did not answer within {SECONDS} s; no bundle was written") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise GateFailed(f"infer.py fails in a process that has only the runtime: {last}; no bundle was written")
    lines = done.stdout.strip().splitlines()
    return [line.removeprefix(f"{name}: ").rpartition(" ")[0] for name, line in zip(images, lines, strict=True)]
