"""Runs first: if this fails, nothing else matters."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "sklearn", "numpy", "fastapi", "sqlalchemy")
SLOW = ("torch", "onnx", "onnxruntime", "sklearn", "fastapi", "uvicorn", "scipy")


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["space", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from ofa_deploy.cli import main\n"
        f"sys.argv = ['ofa-deploy', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit as e: assert e.code in (0, None), e.code\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]; assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, ofa_deploy; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_search_imports_nothing_that_trains_exports_or_serves() -> None:
    code = (
        "import sys, ofa_deploy.accuracy, ofa_deploy.deploy.ready, ofa_deploy.search, ofa_deploy.store\n"
        f"loaded = [m for m in {SLOW!r} if m in sys.modules]; assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
