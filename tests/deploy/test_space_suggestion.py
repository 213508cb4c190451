"""A space composed for a device: it has what the device runs well, and its networks fit."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ofa_deploy.deploy.block_rates import Choice, Rate, grid, width_within
from ofa_deploy.deploy.space_suggestion import MOST_WIDTHS, best_of_kinds, shapes, thinned
from ofa_deploy.errors import UsageError
from ofa_deploy.space import load_space

NANO = Path(__file__).parents[2] / "profiles" / "jetson_nano.yaml"
COMMAND = ("space", "suggest", "--max-ms")


def device(folder, name, **figures):
    """A profile like the Nano's with some figures changed."""
    profile = yaml.safe_load(NANO.read_text())
    quiet = {"launch_us": 1, "call_us": 20, "ramp_macs": 0, "noise": 0, "spikes": 0, "drift": 0}
    profile["name"], profile["simulation"] = name, {**profile["simulation"], **quiet, **figures}
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "profiles" / f"{name}.yaml").write_text(yaml.safe_dump(profile))
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("suggest")


@pytest.fixture(scope="module")
def suggested(folder, ofa_deploy):
    """For a device that computes dense convolutions fast and depthwise ones slowly."""
    name = device(folder, "dense", dense_share=0.5, depthwise_share=0.01)
    done = ofa_deploy(*COMMAND, "1", "--target", name, "-o", "space.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_the_file_is_a_space_and_tells_the_rates(suggested, folder):
    space, text = load_space(folder / "space.yaml"), (folder / "space.yaml").read_text()
    assert (space.name, space.in_channels, space.num_classes, space.resolutions) == ("space", 1, 10, (28,))
    assert space.size > 1000
    assert text.startswith("# SIMULATED: composed for dense")
    assert suggested.stdout.startswith("SIMULATED")
    for stage, side in zip(space.stages, (14, 7, 4), strict=True):
        after = text.partition(f"# {side} pixels a side:\n")[2]
        assert after.lstrip(" #").startswith(f"{stage.block} "), "the best kind comes first"
        assert all(width % 8 == 0 for width in stage.all_widths)
        assert len(stage.all_widths) <= MOST_WIDTHS


def test_networks_of_the_space_fit_the_budget_and_use_it(suggested, folder, ofa_deploy):
    words = ("space", "compare", "space.yaml", "small_28", "--target", "dense", "--max-ms", "1", "--json")
    answer = json.loads(ofa_deploy(*words, cwd=folder).stdout)
    entry = answer["spaces"][0]
    assert entry["n_near"] > 30
    assert entry["binds"]
    assert answer["verdicts"][0]["order"] == ["space", "small_28"]


def test_each_device_gets_the_kinds_that_it_runs_well(suggested, folder, ofa_deploy):
    name = device(folder, "depthwise", dense_share=0.02, depthwise_share=0.9)
    done = ofa_deploy(*COMMAND, "1", "--target", name, "--json", cwd=folder)
    answer = json.loads(done.stdout)
    assert answer["simulated"]
    blocks = [stage.block for stage in load_space(folder / "space.yaml").stages]
    others = [stage["block"] for stage in answer["space"]["stages"]]
    light = {"mbconv", "uib", "convnext", "shuffle"}
    assert not light & set(blocks)
    assert light & set(others)
    for stage, rows in zip(answer["space"]["stages"], answer["stages"], strict=True):
        assert rows["rates"][0]["block"] == stage["block"]
        rates = [row["macs_per_ms"] for row in rows["rates"]]
        assert rates == sorted(rates, reverse=True)


def test_a_second_run_measures_nothing(suggested, folder, ofa_deploy):
    done = ofa_deploy(*COMMAND, "1", "--target", "dense", cwd=folder)
    assert "measure" not in done.stderr
    named = done.stdout.replace('name: "suggested"', 'name: "space"')
    known, told = (named.splitlines(), (folder / "space.yaml").read_text().splitlines())
    assert [line for line in known if "Predicted" not in line] == [line for line in told if "Predicted" not in line]


def test_what_is_predicted_before_networks_are_measured_is_near_what_they_take(suggested, folder, ofa_deploy):
    """The test before has measured networks of the space since."""
    again = ofa_deploy(*COMMAND, "1", "--target", "dense", cwd=folder).stdout
    for pattern, tolerance in ((r"([\d.]+) ms for its fastest", 0.5), (r"([\d.]+) ms for its largest", 0.25)):
        before, after = (float(re.findall(pattern, text)[0]) for text in ((folder / "space.yaml").read_text(), again))
        assert before == pytest.approx(after, rel=tolerance)


def test_other_images_make_other_stages(suggested, folder, ofa_deploy):
    words = (*COMMAND, "20", "--target", "dense", "--input", "3x64x64", "--classes", "5", "--json")
    space = load_space(json.loads(ofa_deploy(*words, cwd=folder).stdout)["space"])
    assert (space.in_channels, space.num_classes, space.resolutions) == (3, 5, (64,))
    assert [stage.stride for stage in space.stages] == [1, 2, 2, 2]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("0.001",), 3, "ask for more"),
        (("0",), 2, "positive"),
        (("1", "--input", "28x28"), 2, "such as 3x32x32"),
        (("1", "--input", "1x28x32"), 2, "square"),
        (("1", "--input", "1x8x8"), 2, "16 to 1024"),
        (("1", "-o", "space.json"), 2, "must end in .yaml"),
    ],
)
def test_what_cannot_be_composed_is_said_in_one_line(suggested, folder, ofa_deploy, words, code, says):
    done = ofa_deploy(*COMMAND, *words, "--target", "dense", cwd=folder)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_stages_halve_until_images_are_small():
    assert shapes(28) == ([14, 7, 4], [1, 2, 2], 2)
    assert shapes(16) == ([16, 8, 4], [1, 2, 2], 1)
    assert shapes(224)[0] == [112, 56, 28, 14, 7, 4]
    with pytest.raises(UsageError, match="8 pixels"):
        shapes(8)


def test_widths_are_few_multiples_of_8_that_end_with_the_widest():
    assert thinned(8) == [8]
    assert thinned(40) == [8, 16, 24, 32, 40]
    for widest in range(8, 136, 8):
        assert thinned(widest)[-1] == widest
        assert len(thinned(widest)) <= MOST_WIDTHS


def test_the_widest_block_within_a_time_is_interpolated():
    rates = [Rate(Choice("conv", 7, width, 3, 1.0), ms) for width, ms in ((16, 0.01), (64, 0.16))]  # quadratic
    assert width_within(rates, 0.041) == 32
    assert width_within(rates, 1.0) == 64
    assert width_within(rates, 0.001) == 8


def test_a_block_that_takes_more_than_its_share_does_not_count():
    slow, fast = Rate(Choice("conv", 7, 128, 3, 1.0), 1.0), Rate(Choice("mbconv", 7, 16, 3, 2.0), 0.01)
    assert slow.rate > fast.rate or slow.ms > 0.1
    assert [rate.choice.kind for rate in best_of_kinds([slow, fast], 0.1)] == ["mbconv"]
    assert best_of_kinds([slow, fast], 2.0)[0].rate == max(slow.rate, fast.rate)


def test_the_grid_has_every_kind_that_a_stage_of_images_can_have():
    kinds = {choice.kind for choice in grid(14, (16,))}
    assert {"conv", "basic", "bottleneck", "mbconv", "uib", "fused_mbconv", "convnext"} <= kinds
    assert not kinds & {"deep_stem", "mqa", "transformer"}
