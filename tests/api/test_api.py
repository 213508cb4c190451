"""The functions for programs and notebooks, on a simulated device: what they return, and that they load lazily."""

import html
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ofa_deploy
from ofa_deploy.api.bundles import Bundle
from ofa_deploy.errors import InfeasibleBudget, UsageError
from ofa_deploy.pixels import read
from ofa_deploy.report.front_plot import REMARK

NANO = "jetson_nano"
SPACE = "tiny_16"
SECONDS = 0.1  # of a processor, in which the package is imported


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def profiled(workspace: Path):
    return ofa_deploy.profile(NANO, space=SPACE, networks=6, workspace=workspace)


@pytest.fixture(scope="module")
def front(workspace: Path, profiled):
    return ofa_deploy.pareto(NANO, points=4, space=SPACE, workspace=workspace)


@pytest.fixture(scope="module")
def bundle(workspace: Path, front) -> Bundle:
    budget = 1.1 * front.points()[-1]["upper_ms"]
    return ofa_deploy.extract(
        NANO, max_ms=budget, space=SPACE, front=front, workspace=workspace, output=workspace / "b"
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; began = time.process_time(); import ofa_deploy; took = time.process_time() - began\n"
        "heavy = {'numpy', 'torch', 'onnx', 'onnxruntime', 'pydantic', 'PIL', 'sqlalchemy', 'scipy', 'click'}\n"
        "print(took); sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(5)]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert min(float(run.stdout) for run in runs) < SECONDS


@pytest.mark.parametrize("name", ofa_deploy.__all__)
def test_every_function_is_documented(name: str) -> None:
    function = inspect.unwrap(getattr(ofa_deploy, name))
    text = inspect.getdoc(function) or ""
    for part in ("Args:", "Returns:", "Raises:", "Example:"):
        assert part in text, f"{name}: {part}"
    for argument in inspect.signature(function).parameters:
        assert f"{argument}: " in text, f"{name}: {argument}"


def test_search_is_a_function_and_still_a_package() -> None:
    code = "from ofa_deploy.search import Plan; import ofa_deploy; print(ofa_deploy.search.Plan is Plan)"
    for before in ("", "import ofa_deploy; ofa_deploy.search; ", "from ofa_deploy import search; "):
        done = subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True)
        assert done.stdout == "True\n", done.stderr
    assert callable(ofa_deploy.search)
    assert "max_ms" in inspect.signature(ofa_deploy.search).parameters
    assert "max_ms" in (ofa_deploy.search.__doc__ or "")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ofa_deploy.nonsense  # noqa: B018
    assert set(ofa_deploy.__all__) <= set(dir(ofa_deploy))


def test_profile_returns_the_table_that_commands_use(profiled, workspace: Path, ofa_deploy) -> None:
    assert profiled.table.simulated
    assert len(profiled.table.networks) == 6
    assert json.loads(profiled.file.read_bytes())["device"] == NANO
    said = ofa_deploy("--workspace", str(workspace), "lut", "show", NANO, "--json", cwd=workspace)
    assert len(json.loads(said.stdout)["rows"]) == len(profiled.table.rows)


def test_an_audit_measures_and_keeps_its_page(profiled, workspace: Path) -> None:
    done = ofa_deploy.audit(NANO, space=SPACE, networks=4, workspace=workspace)
    assert done.answer["n_heldout"] == 4
    assert done.answer["command"].startswith(f"ofa-deploy audit --target {NANO} --space {SPACE}")
    assert json.loads((done.folder / "audit.json").read_bytes()) == done.answer
    assert done._repr_html_().startswith("<iframe")


def test_search_answers_as_the_command_does(profiled, workspace: Path, front, ofa_deploy) -> None:
    budget = front.points()[-1]["upper_ms"]
    found = ofa_deploy_search(workspace, budget)
    words = ["search", "--target", NANO, "--max-ms", str(budget), "--space", SPACE, "--random-weights", "--json"]
    said = json.loads(ofa_deploy("--workspace", str(workspace), *words, cwd=workspace).stdout)
    answer = found.to_json()
    for name in ("arch", "latency_ms", "upper_ms", "accuracy", "evaluations"):
        assert answer[name] == said[name], name
    assert found.accuracy is None, "nobody judges random weights"
    assert found.latency_ms <= found.best.best.upper_ms <= budget
    with pytest.raises(InfeasibleBudget):
        ofa_deploy_search(workspace, 1e-6)


def ofa_deploy_search(workspace: Path, budget: float):
    return ofa_deploy.search(NANO, max_ms=budget, space=SPACE, workspace=workspace)


def test_a_front_is_drawn_and_kept(front, tmp_path: Path) -> None:
    bounds = [point["upper_ms"] for point in front.points(NANO)]
    assert bounds == sorted(bounds)
    assert len(bounds) > 1
    assert front.points() == front.points(NANO)
    for suffix, begins in ((".json", "{"), (".svg", "<svg"), (".html", "<!doctype html>")):
        front.save(tmp_path / f"front{suffix}")
        assert (tmp_path / f"front{suffix}").read_text().startswith(begins)
    assert REMARK in html.unescape(html.unescape(front._repr_html_()))
    with pytest.raises(UsageError, match=r"must end in \.json, \.svg, \.html"):
        front.save(tmp_path / "front.png")


def test_a_front_of_another_space_is_refused(front, workspace: Path) -> None:
    with pytest.raises(UsageError, match=f"the front is of space {SPACE}, not of what is asked for"):
        ofa_deploy.extract(NANO, max_ms=50, space="small_28", front=front, workspace=workspace)


def test_the_command_in_the_report_is_one_that_the_program_takes(bundle) -> None:
    words = bundle.report["command"].split()
    assert words[:2] == ["ofa-deploy", "extract"]
    assert {"--random-weights", "--space", "--max-ms"} <= set(words)


def image_files(folder: Path) -> list[Path]:
    noise, names = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8), []
    for name, pixels in (("rgb.png", noise), ("grey.png", noise[:, :, 0]), ("tall.jpg", noise.transpose(1, 0, 2))):
        names.append(folder / name)
        Image.fromarray(np.ascontiguousarray(pixels)).save(names[-1])
    return names


def test_a_bundle_predicts_on_paths_images_and_arrays_alike(bundle, tmp_path: Path) -> None:
    for file in image_files(tmp_path):
        predicted = bundle.predict(file)
        with Image.open(file) as image:
            assert bundle.predict(image) == predicted
            assert bundle.predict(np.asarray(image)) == predicted
        assert bundle.predict(str(file)) == predicted
        assert predicted.label == next(iter(predicted.probabilities))
        assert predicted.probability == max(predicted.probabilities.values())
        assert set(predicted.probabilities) == set(bundle.labels)
        assert sum(predicted.probabilities.values()) == pytest.approx(1)


def test_it_predicts_as_the_bundles_own_program_does(bundle, tmp_path: Path) -> None:
    for file in image_files(tmp_path):
        done = subprocess.run(
            [sys.executable, str(bundle.path / "infer.py"), str(file)], capture_output=True, text=True, check=True
        )
        predicted = bundle.predict(file)
        label, probability = done.stdout.split()[-2:]
        assert label == predicted.label
        assert float(probability) == pytest.approx(predicted.probability, abs=1e-3)


def test_a_bundle_of_the_schema_before_resizes_the_whole_image(bundle, tmp_path: Path) -> None:
    old = shutil.copytree(bundle.path, tmp_path / "old")
    kept = (
        "batch",
        "height",
        "input",
        "layout",
        "mean",
        "mode",
        "model",
        "normalised_by",
        "range",
        "std",
        "type",
        "width",
    )
    found = {name: bundle.preprocessing[name] for name in kept}
    (old / "preprocessing.json").write_text(json.dumps(found))
    opened = ofa_deploy.load_bundle(old)
    (file, *_) = image_files(tmp_path)
    how = {**found, "shorter_side": None, "crop": None}
    assert np.array_equal(opened._input(file), read(file, how))
    assert opened.predict(file).probability > 0


def test_a_bundle_shows_its_report(bundle) -> None:
    assert str(bundle).startswith("SIMULATED")
    shown = bundle._repr_html_()
    assert shown.startswith("<iframe")
    assert "SIMULATED" in shown
    assert bundle.report["target"]["name"] == NANO


def test_what_is_no_bundle_or_no_image_is_said(bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a bundle, or damaged"):
        ofa_deploy.load_bundle(tmp_path)
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(UsageError, match="cannot read the image"):
        bundle.predict(tmp_path / "note.png")
    with pytest.raises(UsageError, match="cannot use an array of float64 with 2 dimensions"):
        bundle.predict(np.zeros((4, 4)))
    with pytest.raises(UsageError, match="not both"):
        ofa_deploy.load_supernet(tmp_path, space=SPACE)
