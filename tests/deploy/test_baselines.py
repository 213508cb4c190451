"""Hand-picked networks beside ours: trained, measured in the same rounds, compared."""

import copy
import json
from pathlib import Path

import pytest

from ofa_deploy.config import TrainRecipe, shipped_folder
from ofa_deploy.deploy.baseline_training import OWN, PLAIN, baseline_recipes
from ofa_deploy.documents.baselines_document import AnswerBeside, Beside, HandPicked, best_within
from ofa_deploy.documents.report_document import Report
from ofa_deploy.export.recompute import wrong_figures
from ofa_deploy.report.baseline_verdict import compared
from ofa_deploy.report.comparison import Entry, render_comparison
from ofa_deploy.space import handpicked
from ofa_deploy.supernet import load_supernet

SUPERNET = shipped_folder("supernets") / "digits"
ON = ("--target", "raspberry_pi_4", "--supernet", str(SUPERNET))


@pytest.fixture(scope="module")
def answered(tmp_path_factory, ofa_deploy):
    """A workspace with an answer on a simulated device, and its budget in ms."""
    folder = tmp_path_factory.mktemp("answered")
    done = ofa_deploy("extract", *ON, "--max-ms", "1", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="module")
def compared_here(answered, ofa_deploy):
    """The comparison with two networks that need no budget to be chosen."""
    names = ("resnet-8-16", "mobilenet_v2@0.1")
    done = ofa_deploy("baseline", *names, *ON, "--epochs", "4", "--json", cwd=answered[0])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_networks_are_trained_by_both_recipes_and_the_better_counts(compared_here):
    assert [row["name"] for row in compared_here["networks"]] == ["mobilenet_v2@0.1", "resnet-8-16"], "by their work"
    for row in compared_here["networks"]:
        assert set(row["valid"]) == {OWN, PLAIN}
        assert row["valid"][row["recipe"]] == max(row["valid"].values())
        assert row["epochs"] == 4
    assert compared_here["networks"][1]["accuracy"] > 0.2, "a few epochs on digits are enough to see that it learns"


def test_they_are_measured_in_the_same_rounds_as_the_answers(compared_here, answered):
    (ours,) = compared_here["answers"]
    _, report = answered
    assert ours["bundle"] == report["bundle"]
    assert ours["accuracy"] == report["accuracy"]["measured"]
    assert ours["budget_ms"] == pytest.approx(ours["measured_ms"] / ours["answered_ms"])
    assert compared_here["target"]["simulated"]
    best = best_within([HandPicked(**one) for one in compared_here["networks"]], ours["budget_ms"])
    assert ours["best"] == (best and best.name)
    assert all(row["low_ms"] <= row["measured_ms"] <= row["high_ms"] for row in compared_here["networks"])


def test_what_is_trained_is_kept(compared_here, answered, ofa_deploy):
    folder, _ = answered
    again = ofa_deploy("baseline", "resnet-8-16", *ON, "--epochs", "4", "--json", cwd=folder)
    assert "train resnet" not in again.stderr
    (row,) = json.loads(again.stdout)["networks"]
    assert row["accuracy"] == compared_here["networks"][1]["accuracy"]
    listed = json.loads(ofa_deploy("baseline", "list", "--json", cwd=folder).stdout)["networks"]
    assert {one["name"]: one["test"]["accuracy"] for one in listed}["resnet-8-16"] == row["accuracy"]
    assert all(one["measurements"] for one in listed)
    shown = ofa_deploy("baseline", "list", cwd=folder).stdout
    assert "resnet-8-16 " in shown
    assert "SIMULATED" in shown
    known = json.loads(ofa_deploy("arch", "list", "--json", cwd=folder).stdout)
    assert row["key"] in json.dumps(known)


def test_the_trained_file_is_a_supernet_that_other_commands_take(compared_here, tmp_path, ofa_deploy):
    file = compared_here["networks"][1]["file"]
    supernet, summary = load_supernet(Path(file))
    assert supernet.space.size == 1
    assert summary["valid"]["largest"] in compared_here["networks"][1]["valid"].values()
    done = ofa_deploy("export", "--supernet", file, "-o", "model.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def beside(compared_here, answered, ofa_deploy):
    """A bundle whose report has the hand-picked networks beside its subnet."""
    done = ofa_deploy("extract", *ON, "--max-ms", "1", "--baselines", "-o", "beside", cwd=answered[0])
    assert done.returncode == 0, done.stderr
    return answered[0] / "beside", done.stdout


def test_extract_says_which_is_better(beside, compared_here):
    folder, said = beside
    report = json.loads((folder / "report.json").read_text())
    found = report["baselines"]
    assert {one["name"] for one in found["networks"]} == {"mobilenet_v2@0.1", "resnet-8-16"}
    assert f"hand-picked: {found['text']}" in said
    assert "--baselines" in report["command"]
    assert found["accuracy"] == report["accuracy"]["measured"]
    assert found["budget_ms"] == pytest.approx(found["measured_ms"] / found["answered_ms"])
    page, text = ((folder / f"report.{suffix}").read_text() for suffix in ("html", "md"))
    assert "hand-picked networks, measured" in page, "the plot's legend"
    for one in found["networks"]:
        assert f"<td>{one['name']}</td>" in page
        assert f"<title>{one['name']}: " in page, "its point in the plot"
    assert "## Hand-picked networks, measured in the same rounds" in text
    assert "hand-picked network" in text.split("##")[0], "the verdict says so"


def test_the_comparison_is_recomputed(beside):
    folder, _ = beside
    assert wrong_figures(folder) == []
    report = json.loads((folder / "report.json").read_text())
    better = copy.deepcopy(report)
    better["baselines"]["networks"][0]["accuracy"] += 0.1
    better["baselines"]["difference"] = 0.9
    (folder / "report.json").write_text(json.dumps(better))
    problems = " ".join(wrong_figures(folder))
    (folder / "report.json").write_text(json.dumps(report))
    assert "baselines.networks.0.accuracy is" in problems
    assert "baselines.difference is 0.9" in problems


def test_a_page_that_compares_bundles_shows_them(beside):
    report = Report.read(json.loads((beside[0] / "report.json").read_text()))
    page = render_comparison([Entry(report)], "all")
    assert "<title>resnet-8-16: " in page
    assert "Rings are hand-picked networks" in page
    without = report.model_copy(update={"baselines": None})
    assert "Rings are" not in render_comparison([Entry(without)], "all")


def test_the_front_of_a_device_shows_them(compared_here, answered, ofa_deploy):
    folder, _ = answered
    for suffix in ("json", "html"):
        done = ofa_deploy("pareto", *ON, "--points", "3", "-o", f"front.{suffix}", cwd=folder)
        assert done.returncode == 0, done.stderr
    found = json.loads((folder / "front.json").read_text())["baselines"]["raspberry_pi_4"]
    assert {one["name"] for one in found} >= {one["name"] for one in compared_here["networks"]}
    assert {one["measured_ms"] for one in found} >= {one["measured_ms"] for one in compared_here["networks"]}
    page = (folder / "front.html").read_text()
    assert all(f"<title>{one['name']}: " in page for one in found)
    assert "hand-picked networks, measured" in page


def test_without_hand_picked_networks_extract_says_what_to_do(tmp_path, ofa_deploy):
    done = ofa_deploy("extract", *ON, "--max-ms", "1", "--baselines", cwd=tmp_path)
    assert done.returncode == 2
    assert "train some first with ofa-deploy baseline --target raspberry_pi_4" in done.stderr


def test_with_a_budget_the_widest_that_fits_is_trained(answered, ofa_deploy):
    folder, _ = answered
    asked = ("mobilenet_v2", "resnet-512-512", "--max-ms", "2", "--epochs", "1")
    done = ofa_deploy("baseline", *asked, *ON, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "resnet-512-512 was not trained: it takes SIMULATED" in done.stdout
    assert "\nthe best hand-picked network within 2 ms is mobilenet_v2@0." in done.stdout
    assert "ours, " in done.stdout
    none = ofa_deploy("baseline", "resnet-512-512", "--max-ms", "0.5", *ON, cwd=folder)
    assert none.returncode == 3
    assert "no hand-picked network fits 0.5 ms: the fastest, resnet-512-512, takes " in none.stderr


def test_a_subnet_of_the_supernet_can_be_picked(answered, ofa_deploy):
    folder, report = answered
    file = str(Path(report["bundle"]) / "arch.json")
    done = ofa_deploy("baseline", file, *ON, "--epochs", "1", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["networks"]
    assert row["macs"] == report["subnet"]["macs"]


def test_without_a_budget_the_command_asks_for_one(tmp_path, ofa_deploy):
    done = ofa_deploy("baseline", *ON, cwd=tmp_path)
    assert done.returncode == 2
    assert "give --max-ms" in done.stderr
    wrong = ofa_deploy("baseline", "vgg", *ON, cwd=tmp_path)
    assert wrong.returncode == 2
    assert "unknown network 'vgg'" in wrong.stderr


def test_recipes_differ_in_what_they_say():
    recipe = TrainRecipe.model_validate(
        {
            "name": "r",
            "space": "tiny_16",
            "data": {"name": "digits", "augment": ["crop", "flip"]},
            "epochs": 20,
            "ema": 0.99,
            "accuracy": {"images": 100},
        }
    )
    found = baseline_recipes(recipe, handpicked("resnet-8-16", 16, 1, 10), None, 3)
    assert (found[OWN].epochs, found[OWN].ema, found[OWN].data.augment) == (20, 0.99, ("crop", "flip"))
    assert (found[PLAIN].epochs, found[PLAIN].ema, found[PLAIN].data.augment) == (15, 0.0, ("flip",))
    assert {one.accuracy.images for one in found.values()} == {100}
    assert {one.seed for one in found.values()} == {3}
    assert found[OWN].teacher is None


def row(name, ms, share, valid):
    known = {"name": name, "measured_ms": ms, "accuracy": share, "n": 10000}
    return HandPicked(**known, recipe=PLAIN, valid={PLAIN: valid})


ROWS = [row("small", 0.1, 0.90, 0.91), row("lucky", 0.18, 0.95, 0.92), row("good", 0.19, 0.93, 0.93)]


@pytest.mark.parametrize(
    ("budget", "share", "text"),
    [
        (0.2, 0.95, "2.0 points ±0.7 above the best hand-picked network that fits (good, 93.00 % ±0.5"),
        (0.15, 0.88, "2.0 points ±0.9 below the best hand-picked network that fits (small, "),
        (0.2, 0.931, "within ±0.7 points of the best hand-picked network that fits (good, "),
        (0.05, 0.8, "no hand-picked network fits within 0.05 ms; the fastest, small, takes 0.1 ms"),
        (None, 0.95, "2.0 points ±0.7 above"),
    ],
)
def test_verdicts(budget, share, text):
    found = compared(ROWS, AnswerBeside(budget_ms=budget, accuracy=share, n=10000))
    assert found.text.startswith(text)
    assert ("--finetune" in found.text) == ("below" in text)
    if found.best:
        best = next(one for one in ROWS if one.name == found.best)
        assert found.difference == pytest.approx(share - best.accuracy)
    alone = compared(ROWS, Beside(budget_ms=budget))
    assert (alone.best, alone.difference) == (found.best, None)
