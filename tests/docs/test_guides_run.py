"""The commands of the README and of the docs are run in their order; a page marks what cannot be run, and says why.

What a guide has its reader make (images, a recipe, a profile) is made here, small: commands run as they are typed.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARK = "# not run by the tests: "
MINE = """
name: mine
space:
  name: mine
  base: tiny_16
  resolutions: [16]
  widths: [1.0]
  num_classes: 2
  in_channels: 3
  stages:
    - {width: 16, stride: 1, depths: [1, 2], kernels: [3, 5], expands: [2, 3]}
    - {width: 32, stride: 2, depths: [1, 2], kernels: [3], expands: [2, 3]}
data: {name: image_folder, root: photos, test: 0.2, valid: 0.1, channels: 3, size: 16}
epochs: 1
accuracy: {subnets: 8, heldout: 3, images: 16}
"""
REASONS = {
    "add-device": ["the board measures", "needs a server elsewhere"],
    "agent-service": ["needs root"],
    "audit": ["minutes", "hours"],
    "baselines": ["trains networks", "needs trained networks"],
    "busy": ["ARCH.json is yours"],
    "bounds": ["a minute each", "minutes", "ARCHS.jsonl is yours"],
    "cells": ["minutes", "minutes", "minutes"],
    "choose-space": ["measures for a minute", "trains networks", "measures for a minute", "measures for a minute"],
    "docker": ["needs Docker", "needs Docker"],
    "finetune": ["trains"],
    "fleet": ["two shells", "needs a certificate"],
    "fronts": ["minutes", "KEY is one of yours", "arch.json is one of yours"],
    "gpu": ["on the GPU's machine", "the GPU measures", "packages are fetched"],
    "precision": ["minutes", "minutes"],
    "published": ["the files are published elsewhere", "needs a package"],
    "raspberry-pi": ["on the Pi"],
    "simulate": ["half a minute each"],
    "spaces": ["trains networks"],
    "tables": ["the files are yours", "measures first"],
    "train": ["half an hour", "needs several GPUs", "hundreds of subnets are evaluated", "subnets are evaluated"],
    "index": ["installs"],
    "ci": ["minutes, and OpenVINO"],
    "own-jetson": ["on the Jetson", "the Jetson measures"],
    "own-phone": [
        "npm, a certificate, and the phone measures",
        "needs a phone and adb",
        "on the phone",
    ],
}


def blocks(page: Path) -> list[list[str]]:
    """The lines of each block of commands: one that names no language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text.splitlines() for language, text in found if not language]


def commands(page: Path) -> list[str]:
    """What is to be run of a page."""
    return [line for block in blocks(page) if not block[0].startswith(MARK) for line in block]


def prepare(folder: Path) -> None:
    """What the guides have their reader make."""
    rng = np.random.default_rng(0)
    for i in range(60):
        file = folder / "photos" / "train" / ("dark", "light")[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(100 * (i % 2), 100 * (i % 2) + 100, (16, 16, 3), np.uint8)).save(file)
    (folder / "mine.yaml").write_text(MINE)
    phone = (ROOT / "profiles" / "android_phone.yaml").read_text()
    phone = phone.replace("name: android_phone", "name: my_phone").replace("adb-onnxruntime", "onnxruntime")
    (folder / "my_phone.yaml").write_text(phone)
    board = (ROOT / "profiles" / "raspberry_pi_5.yaml").read_text().replace("name: raspberry_pi_5", "name: my_board")
    (folder / "profiles").mkdir()
    (folder / "profiles" / "my_board.yaml").write_text(board)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_a_guides_commands_run(ofa_deploy, tmp_path: Path, page: Path) -> None:
    prepare(tmp_path)
    for line in commands(page):
        words = shlex.split(line, comments=True)
        assert words[0] == "ofa-deploy", f"{page.name}: mark the block of {line!r} as not run, and say why"
        done = ofa_deploy(*words[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{page.name}: {line}: {done.stderr}"
    if page.stem == "own-images":
        check_formats(tmp_path / "bundle")


def check_formats(bundle: Path) -> None:
    """The reference tells of every file of a bundle and of every key of its report and its pre-processing."""
    text = (ROOT / "docs" / "reference" / "files.md").read_text()
    report, preprocessing = (json.loads((bundle / name).read_text()) for name in ("report.json", "preprocessing.json"))
    parts = [
        report,
        *(report[part] for part in ("latency", "accuracy", "parity", "subnet", "level") if report.get(part)),
    ]
    names = {path.name for path in bundle.iterdir() if path.is_file()} | set(preprocessing)
    names |= {key for part in parts for key in part}
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_what_is_not_run_is_known() -> None:
    found = {page.stem: [b[0].removeprefix(MARK) for b in blocks(page) if b[0].startswith(MARK)] for page in PAGES}
    assert {page: reasons for page, reasons in found.items() if reasons} == REASONS
