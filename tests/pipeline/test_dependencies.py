"""What the core asks pip for, it uses."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}


def imported() -> set[str]:
    """Top-level modules that the core imports anywhere."""
    found = set()
    for path in (ROOT / "ofa_deploy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))  # importlib.import_module("…"), files("…")
    return found


def test_every_core_dependency_is_imported_by_the_core() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[^A-Za-z0-9_-]", wanted)[0].lower() for wanted in project["dependencies"]]
    modules = {name: MODULES.get(name, name.replace("-", "_")) for name in names}
    known = {module.lower() for module in imported()}
    assert [name for name, module in modules.items() if module.lower() not in known] == []
    assert len(names) > 10
