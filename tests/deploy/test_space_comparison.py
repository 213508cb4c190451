"""Spaces compared on a simulated device: what is measured, scored, trained and said."""

import json
import re

import numpy as np
import pytest
import yaml

from ofa_deploy.config import TrainRecipe
from ofa_deploy.deploy import space_evidence
from ofa_deploy.deploy.space_verdict import verdict
from ofa_deploy.notices import silent
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.store import Workspace
from tests.training.test_training_loop import SPACE

WIDER = {**SPACE, "name": "giant", "stages": [{**stage, "width": 4 * stage["width"]} for stage in SPACE["stages"]]}
RECIPE = {"name": "short", "space": "tiny_16", "data": {"name": "digits", "valid": 237}, "epochs": 4, "threads": 1}
COMMAND = ("space", "compare", "dwarf.yaml", "giant.yaml", "--target", "jetson_nano", "--max-ms")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    files = {"dwarf": SPACE, "giant": WIDER, "colour": {**SPACE, "name": "colour", "in_channels": 3}, "recipe": RECIPE}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def compared(folder, ofa_deploy):
    """Two budgets: both spaces have networks within the second alone."""
    done = ofa_deploy(*COMMAND, "0.001,100", "--json", "-o", "page.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_there_is_an_entry_for_each_space_and_budget(compared):
    answer, said = compared
    entries = {(entry["name"], entry["budget_ms"]): entry for entry in answer["spaces"]}
    assert set(entries) == {(name, ms) for name in ("dwarf", "giant") for ms in (0.001, 100.0)}
    assert (answer["target"], answer["simulated"]) == ("jetson_nano", True)
    for name in ("dwarf", "giant"):
        assert f"profile {name}" in said
        none, all_of_them = entries[name, 0.001], entries[name, 100.0]
        assert (none["n_fit"], none["macs"]) == (0, None)
        assert none["fastest_ms"] > 0.001
        assert all_of_them["n_fit"] == all_of_them["n_sampled"]
        codec = PopulationCodec(load_space(SPACE if name == "dwarf" else WIDER))
        macs = codec.macs(codec.sample(1000, np.random.default_rng(0)))
        assert np.median(macs) < all_of_them["macs"]["p50"] <= all_of_them["macs"]["p90"] <= macs.max()
        assert set(all_of_them["proxy"]) == {"synflow", "grad_norm", "fisher", "naswot"}
        assert all_of_them["trained"] == []
    assert [one["order"] for one in answer["verdicts"]] == [[], ["giant", "dwarf"]]


def test_the_page_stands_alone_and_says_simulated(compared, folder):
    page = (folder / "page.html").read_text()
    assert "SIMULATED" in page
    assert "<svg" in page
    assert not re.search(r"@import|url\((?!#)|https?:", page)
    assert compared[0]["verdicts"][1]["text"] in page


def test_a_second_run_measures_nothing_and_answers_the_same(compared, folder, ofa_deploy):
    done = ofa_deploy(*COMMAND, "0.001,100", "--json", "--no-profile", cwd=folder)
    assert json.loads(done.stdout) == compared[0]
    assert "profile" not in done.stderr


def test_people_get_a_table_and_a_last_line(compared, folder, ofa_deploy):
    lines = ofa_deploy(*COMMAND, "100", cwd=folder).stdout.splitlines()
    assert lines[0].startswith("SIMULATED")
    assert sum(line.startswith("100 ms") for line in lines) == 3
    assert lines[-1].startswith("100 ms: giant promises more")


def test_networks_are_trained_once(compared, folder, ofa_deploy, monkeypatch):
    words = (*COMMAND, "100", "--train", "2", "--epochs", "1", "-c", "recipe.yaml", "--json")
    first = json.loads(ofa_deploy(*words, cwd=folder).stdout)
    for entry in first["spaces"]:
        assert len({row["key"] for row in entry["trained"]}) == 2
        assert all(row["n"] == 237 and 0 < row["accuracy"] < 1 for row in entry["trained"])
        assert all(row["macs"] >= entry["macs"]["quantiles"][9] for row in entry["trained"])
        assert all(row["upper_ms"] <= 100 for row in entry["trained"])
    assert first["verdicts"][0]["by"] == "trained"
    assert (first["data"], first["epochs"]) == ("digits", 1)
    assert not list((folder / ".ofa/alone").iterdir())
    monkeypatch.setattr(space_evidence, "train_supernet", None)
    assert json.loads(ofa_deploy(*words, cwd=folder).stdout) == first


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("dwarf.yaml", "--max-ms", "1"), 2, "two different spaces"),
        (("dwarf.yaml", "dwarf.yaml", "--max-ms", "1"), 2, "two different spaces"),
        (("dwarf.yaml", "colour.yaml", "--max-ms", "1"), 2, "different images"),
        (("dwarf.yaml", "giant.yaml", "--max-ms", "1,x"), 2, "give numbers"),
        (("dwarf.yaml", "giant.yaml", "--max-ms", "0"), 2, "positive"),
        (("dwarf.yaml", "giant.yaml", "--max-ms", "0.001"), 3, "the fastest needs"),
        (
            ("dwarf.yaml", "giant.yaml", "--max-ms", "1", "--no-profile", "--target", "local"),
            2,
            "profile --target local",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(compared, folder, ofa_deploy, words, code, says):
    target = () if "--target" in words else ("--target", "jetson_nano")
    done = ofa_deploy("space", "compare", *words, *target, cwd=folder)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_other_images_than_those_at_hand_are_noise(tmp_path):
    spaces = [load_space({**SPACE, "name": name, "in_channels": 3, "num_classes": 7}) for name in ("a", "b")]
    with Workspace.open(tmp_path) as workspace:
        evidence = space_evidence.gather(workspace, spaces)
        assert evidence.facts["data"] == space_evidence.NOISE
        scores = evidence.proxies(spaces[0], [spaces[0].smallest, spaces[0].largest], "", lambda *_: None)
        assert scores["naswot"][0] < scores["naswot"][1]
        with pytest.raises(space_evidence.UsageError, match="-c RECIPE"):
            space_evidence.gather(workspace, spaces, trained=1)


def entry(name, macs=1e6, trained=(), near=10):
    rows = [{"accuracy": accuracy, "n": 1000} for accuracy in trained]
    return {"name": name, "n_near": near, "fastest_ms": 3.0, "macs": {"p50": macs}, "trained": rows}


def test_trainings_decide_before_sizes():
    found = verdict(1.0, [entry("large", 9e6, (0.80, 0.81)), entry("good", 1e6, (0.90, 0.91))])
    assert (found["order"], found["by"], found["clear"]) == (["good", "large"], "trained", True)
    assert "90.5 %" in found["text"]


def test_what_differs_by_chance_is_called_no_clear_difference():
    found = verdict(1.0, [entry("one", trained=(0.90, 0.86)), entry("other", trained=(0.89, 0.88))])
    assert not found["clear"]
    assert found["text"].startswith("no clear difference between other and one")


def test_only_one_space_may_fit_or_none():
    one = verdict(1.0, [entry("one"), entry("other", near=0)])
    assert (one["order"], one["by"]) == (["one"], "fits")
    none = verdict(1.0, [entry("one", near=0), {**entry("other", near=0), "fastest_ms": 2.0}])
    assert (none["order"], none["by"]) == ([], None)
    assert "of other and needs 2 ms" in none["text"]


@pytest.mark.parametrize(("macs", "clear"), [(1.05e6, False), (2e6, True)])
def test_sizes_are_a_hint_where_they_differ(macs, clear):
    found = verdict(1.0, [entry("one", 1e6), entry("other", macs)])
    assert (found["order"], found["by"], found["clear"]) == (["other", "one"], "macs", clear)
    assert found["text"].startswith("other promises more" if clear else "no clear difference between other and one")
    assert "--train" in found["text"]


def test_an_accuracy_counts_the_images_that_it_is_of(tmp_path):
    recipe = TrainRecipe.model_validate({**RECIPE, "epochs": 1, "accuracy": {"images": 100}})
    space = load_space(SPACE)
    evidence = space_evidence.gather(Workspace.open(tmp_path), [space], recipe, trained=1)
    (row,) = evidence.train(space, [space.smallest], "train", silent)
    assert row["n"] == 100
    assert round(row["accuracy"] * 100, 6).is_integer()
