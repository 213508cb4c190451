"""The tutorial notebook runs from its first cell to its last, on this machine, in an empty folder."""

import ast
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra [test] is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra [test] is not installed")
NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorials" / "notebook.ipynb"
SECONDS = 600  # for a cell, on a machine that does much else
FUNCTIONS = ("load_supernet", "profile", "audit", "search", "pareto", "extract")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    return folder, client.execute()


def shown(notebook, words: str) -> dict[str, str]:
    """What the cell that contains some words shows, by MIME type."""
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and words in cell.source)
    return next(output.data for output in cell.outputs if output.output_type == "execute_result")


def test_it_is_kept_without_output_and_uses_every_function() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    source = "\n".join(cell.source for cell in cells)
    assert all(f"ofa_deploy.{name}(" in source for name in FUNCTIONS)
    assert "bundle.predict(" in source


def test_every_cell_runs_and_a_bundle_is_left(ran) -> None:
    folder, notebook = ran
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    (report,) = (folder / ".ofa" / "bundles").glob("*/report.json")
    assert report.is_file()


def test_pages_show_in_their_cells(ran) -> None:
    for words, says in (("front = ", "pareto"), ("bundle  #", "budget")):
        page = shown(ran[1], words)["text/html"]
        assert page.startswith("<iframe")
        assert says in page
    assert "image/png" in shown(ran[1], "image.resize")


def test_the_last_cell_names_the_class_of_the_image(ran) -> None:
    text = shown(ran[1], "bundle.predict(")["text/plain"]
    label, probability, truth = ast.literal_eval(re.sub(r"\s+", " ", text))
    labels = ast.literal_eval(shown(ran[1], "ofa_deploy.load_supernet()")["text/plain"])[2]
    assert {label, truth} <= set(labels)
    assert 0.1 < probability <= 1, "the most probable of ten classes"
