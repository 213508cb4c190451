"""An agent is one folder that runs on an old device: its syntax is Python 3.6, its imports the standard library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "device_agents"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_syntax_and_library_of_python_3_6():
    pytest.importorskip("vermin")
    command = [
        sys.executable,
        "-c",
        "import vermin; vermin.main()",
        "-t=3.6-",
        "--no-tips",
        str(FOLDER),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_imports_only_the_standard_library(path):
    assert set(imports(path)) <= sys.stdlib_module_names | {"device_agents"}


def test_runs_without_any_installed_package():
    command = [sys.executable, "-I", "-S", "-c", "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); "]
    command[-1] += "runpy.run_module('device_agents', run_name='__main__')"
    done = subprocess.run([*command, str(FOLDER.parent), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--server" in done.stdout
