"""What a recipe can ask for beyond the plain sandwich: each option does what it says, and resumes to the bit."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.supernet import Supernet, initialise, load_supernet, read_summary, read_tensors, write_tensors
from ofa_deploy.training import devices, guards, supernet_training, train_supernet, trainer
from ofa_deploy.training.distributed import ALONE
from ofa_deploy.training.optimiser import Optimiser, update_average
from ofa_deploy.training.sampling import step_archs
from ofa_deploy.training.schedules import plan
from tests.training import test_training_loop
from tests.training.test_training_loop import RECIPE, SPACE, STEPS, Stop, assert_same_result, metrics, stop_after

PHASES = {"largest": {"share": [4]}, "kernel": {"share": [4]}, "depth": {"share": [5]}, "expand": {"share": [5]}}
PROGRESSIVE = {"schedule": "progressive", "progressive": PHASES, "ema": 0.9, "clip_norm": 1.0}
VARIANTS = {
    "progressive": PROGRESSIVE,
    "alpha": {"distill": "alpha", "ema": 0.9, "evaluate_every": 1, "patience": 3},
    "bf16": {"precision": "bf16"},
}


def recipe(**changes):
    """The loop's recipe, with as many steps but fewer images."""
    small = {"data": {**RECIPE["data"], "valid": 1077}, "batch_size": 60}
    return test_training_loop.recipe(**{**small, "accuracy": {"recalibration_images": 100, "images": 100}, **changes})


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    """The name of a recipe, its changes, and the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp(request.param)
    train_supernet(recipe(**VARIANTS[request.param]), folder)
    return request.param, VARIANTS[request.param], folder


@pytest.mark.parametrize("step", [4, 6, 13])
def test_every_variant_resumes_to_the_same_bits(variant, tmp_path, step):
    _, changes, reference = variant
    with pytest.raises(Stop):
        train_supernet(recipe(**changes), tmp_path, report=stop_after(step))
    train_supernet(recipe(**changes), tmp_path, resume=True)
    assert_same_result(tmp_path, reference)


def test_every_variant_learns(variant):
    name, _, folder = variant
    lines = [line for line in metrics(folder) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    ends = slice(0, 3), slice(3, 4) if name == "progressive" else slice(-3, None)
    first, last = (np.mean([line["loss"] for line in lines[end]]) for end in ends)
    assert last < first
    if name == "progressive":
        phases = [line["phase"] for line in lines]
        assert phases == ["largest"] * 4 + ["kernel"] * 4 + ["depth"] * 5 + ["expand"] * 5
        assert [line["distill"] > 0 for line in lines] == [phase != "largest" for phase in phases]


@pytest.mark.parametrize(
    "variant", [{}, {"distill": "alpha", "ema": 0.9}, PROGRESSIVE], ids=["kl", "alpha", "progressive"]
)
def test_subnets_side_by_side_learn_the_same_bits(variant, tmp_path, monkeypatch):
    one, several = tmp_path / "one", tmp_path / "several"
    train_supernet(recipe(**variant), one)
    threads = []
    forward = Supernet.forward
    monkeypatch.setattr(Supernet, "forward", lambda *args: threads.append(threading.get_ident()) or forward(*args))
    with pytest.raises(Stop):
        train_supernet(recipe(**variant, parallel_subnets=3), several, report=stop_after(13))
    assert len(set(threads)) > 2  # the largest subnet of a sandwich, or the teacher, runs in the main thread
    train_supernet(recipe(**variant, parallel_subnets=2), several, resume=True)
    (trained, _), (expected, _) = (load_supernet(folder / "supernet.safetensors") for folder in (several, one))
    assert all(map(torch.equal, trained.state_dict().values(), expected.state_dict().values()))
    assert metrics(several) == metrics(one)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"compile": True}])
def test_subnets_side_by_side_are_fp32_and_not_compiled(changes):
    with pytest.raises(ValidationError, match="parallel_subnets needs precision: fp32, without compile"):
        recipe(**changes, parallel_subnets=2)


def test_the_teacher_is_the_largest_subnet_as_it_was_trained_first(tmp_path):
    plain = {**PROGRESSIVE, "ema": 0}
    states = []
    for step in (4, 16):
        with pytest.raises(Stop):
            train_supernet(recipe(**plain), tmp_path / str(step), report=stop_after(step))
        states.append(read_tensors(tmp_path / str(step) / "checkpoint.safetensors", "training checkpoint")[1])
    teacher = {name: value for name, value in states[1].items() if name.startswith("teacher.")}
    assert teacher
    assert all(torch.equal(value, states[0][name.replace("teacher", "model")]) for name, value in teacher.items())


def make(seed):
    supernet = Supernet(load_space(SPACE))
    initialise(supernet, seed)
    return supernet


def test_the_average_of_the_weights_is_its_formula():
    average, expected = make(0), make(0).state_dict()
    for done in range(30):
        supernet = make(done + 1)
        update_average(average, supernet, 0.7, done)
        decay = min(0.7, (1 + done) / (10 + done))
        for name, value in supernet.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach()
    for name, value in average.named_parameters():
        torch.testing.assert_close(value, expected[name])


def test_the_averaged_weights_are_those_that_are_saved(tmp_path):
    with pytest.raises(Stop):
        train_supernet(recipe(ema=0.9), tmp_path, report=stop_after(STEPS))
    _, state = read_tensors(tmp_path / "checkpoint.safetensors", "training checkpoint")
    train_supernet(recipe(ema=0.9), tmp_path, resume=True)
    supernet, _ = load_supernet(tmp_path / "supernet.safetensors")
    for name, value in supernet.named_parameters():
        assert torch.equal(value, state[f"average.{name}"])
    assert not torch.equal(supernet.stem.conv.weight, state["model.stem.conv.weight"])


def momentum_after_a_step(folder, **changes):
    with pytest.raises(Stop):
        train_supernet(recipe(weight_decay=0, largest_epochs=0, **changes), folder, report=stop_after(1))
    state = read_tensors(folder / "checkpoint.safetensors", "training checkpoint")[1]
    return {
        name: value for name, value in state.items() if name.startswith("momentum.")
    }  # after one step: the gradient


def size(tensors):
    return math.sqrt(sum(float(value.double().square().sum()) for value in tensors.values()))


OF_A_SUPERNET = {"nesterov": True, "all_decay": False, "all_move": True}


@pytest.mark.parametrize(("momentum", "clip"), [(0.9, None), (0.0, None), (0.9, 2.0)])
def test_the_optimiser_is_torchs_sgd_to_the_bit(momentum, clip):
    ours, theirs = (Supernet(load_space(SPACE)) for _ in range(2))
    for supernet in (ours, theirs):
        initialise(supernet, 0)
    settings = recipe(momentum=momentum, weight_decay=0.1, clip_norm=clip)
    optimiser = Optimiser(dict(ours.named_parameters()), settings, **OF_A_SUPERNET)
    named = list(theirs.named_parameters())
    decayed = [p for name, p in named if name.endswith("weight") and p.ndim > 1]
    free = [p for name, p in named if not (name.endswith("weight") and p.ndim > 1)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}]
    expected = torch.optim.SGD(groups, lr=1.0, momentum=momentum, nesterov=momentum > 0)
    generator = torch.Generator().manual_seed(0)
    for rate in (0.1, 0.2, 0.05):
        optimiser.zero_grad()
        for (_, p), q in zip(named, ours.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad += p.grad
        for group in expected.param_groups:
            group["lr"] = rate
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        expected.step()
        optimiser.step(rate)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_a_plain_optimiser_is_torchs_sgd_and_lets_unused_parameters_rest():
    ours, theirs = (Supernet(load_space(SPACE)) for _ in range(2))
    for supernet in (ours, theirs):
        initialise(supernet, 0)
    optimiser = Optimiser(dict(ours.named_parameters()), recipe(weight_decay=0.1, clip_norm=None))
    expected = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=recipe().momentum, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    for used in ([True, False, True], [False, True, True], [True, True, False]):
        optimiser.zero_grad()
        expected.zero_grad()
        for i, (p, q) in enumerate(zip(theirs.parameters(), ours.parameters(), strict=True)):
            if used[i % 3]:
                p.grad = torch.randn(p.shape, generator=generator)
                q.grad = p.grad.clone()
        expected.step()
        optimiser.step(0.1)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_training_does_not_load_what_it_does_not_use(tmp_path):
    config = tmp_path / "recipe.json"
    config.write_text(json.dumps({**RECIPE, "epochs": 1}))
    program = (
        "import sys, pathlib\n"
        "from ofa_deploy.config import TrainRecipe\n"
        "from ofa_deploy.training import train_supernet\n"
        "recipe = TrainRecipe.model_validate_json(pathlib.Path(sys.argv[1]).read_text())\n"
        "train_supernet(recipe, pathlib.Path(sys.argv[2]))\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'torchvision') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(config), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_clipping_shortens_the_gradient_and_keeps_its_direction(tmp_path):
    free = momentum_after_a_step(tmp_path / "free")
    clipped = momentum_after_a_step(tmp_path / "clipped", clip_norm=size(free) / 8)
    assert size(clipped) == pytest.approx(size(free) / 8, rel=1e-4)
    for name, value in free.items():
        torch.testing.assert_close(8 * clipped[name], value, rtol=1e-3, atol=1e-5)
    loose = momentum_after_a_step(tmp_path / "loose", clip_norm=8 * size(free))
    assert all(torch.equal(value, loose[name]) for name, value in free.items())


def test_low_precision_is_used_and_is_close(tmp_path):
    full, low = (momentum_after_a_step(tmp_path / p, precision=p) for p in ("fp32", "bf16"))
    gap = size({name: value - low[name] for name, value in full.items()}) / size(full)
    assert 1e-4 < gap < 0.2


def test_compiling_changes_nothing_but_rounding(tmp_path):
    eager = momentum_after_a_step(tmp_path / "eager")
    found = momentum_after_a_step(tmp_path / "compiled", compile=True)
    for name, value in eager.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_a_compiler_that_fails_is_done_without(tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        def run(*_):
            raise RuntimeError("no C++ compiler\nwas found")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    eager = momentum_after_a_step(tmp_path / "eager")
    found = momentum_after_a_step(tmp_path / "compiled", compile=True)
    assert all(torch.equal(value, found[name]) for name, value in eager.items())
    assert capsys.readouterr().err == (
        "ofa-deploy: torch.compile does not work here (no C++ compiler); training continues without it\n"
    )


def test_progress_tells_held_out_accuracies(tmp_path):
    seen = []
    train_supernet(recipe(evaluate_every=2), tmp_path, report=seen.append)
    evaluated = [line for line in metrics(tmp_path) if "valid_largest" in line]
    assert [line["step"] for line in evaluated] == [12, STEPS]
    assert [("valid_smallest" in line) for line in seen] == [False] * 11 + [True] * 7
    _, summary = read_summary(tmp_path / "supernet.safetensors")
    assert summary["valid"] == {name: evaluated[-1][f"valid_{name}"] for name in ("largest", "smallest")}


def test_training_ends_early_and_keeps_the_best(tmp_path, monkeypatch):
    told = iter([(0.5, 0.2), (0.6, 0.3), (0.55, 0.31), (0.5, 0.2), (0.4, 0.31)])

    def accuracies(run, supernet):
        return dict(zip(("largest", "smallest"), next(told, (0, 0)), strict=True))

    monkeypatch.setattr(supernet_training._SupernetLoop, "_accuracies", accuracies)
    changes = {"epochs": 9, "evaluate_every": 1, "patience": 2, "largest_epochs": 0}
    with pytest.raises(Stop):
        train_supernet(recipe(**changes), tmp_path, report=stop_after(12))
    best = read_tensors(tmp_path / "checkpoint.safetensors", "training checkpoint")[1]
    train_supernet(recipe(**changes), tmp_path, resume=True)
    supernet, summary = load_supernet(tmp_path / "supernet.safetensors")
    assert summary["steps"] == 5 * 6  # the smallest was better after the third epoch
    assert all(torch.equal(value, best[f"model.{name}"]) for name, value in supernet.named_parameters())


def refuse(changes, folder, message):
    with pytest.raises(OfaDeployError, match=message) as caught:
        train_supernet(recipe(**changes), folder)
    assert "\n" not in str(caught.value)
    assert "the last good checkpoint is kept" in str(caught.value)
    assert not (folder / "supernet.safetensors").exists()
    return read_tensors(folder / "checkpoint.safetensors", "training checkpoint")


def test_a_learning_rate_of_a_million_is_stopped(tmp_path):
    header, state = refuse(
        {"lr": 1e6, "epochs": 12, "largest_epochs": 9}, tmp_path, "diverges: the loss is|the loss is not finite"
    )
    assert header["step"] < 10
    assert all(value.isfinite().all() for value in state.values())


def test_a_collapse_is_stopped(tmp_path, monkeypatch):
    real = Supernet.forward

    def forward(self, x, arch):
        return real(self, x, arch) * (arch == self.space.largest) + torch.eye(10)[3]

    monkeypatch.setattr(Supernet, "forward", forward)
    monkeypatch.setattr(guards, "COLLAPSED", 20)
    changes = {"epochs": 5, "warmup_epochs": 0, "largest_epochs": 0}
    header, _ = refuse(changes, tmp_path, "the smallest subnet has seen one class in every image for 20 steps")
    assert header["step"] == 6 + 20 // 4  # from the second epoch on it is watched, and soon suspicious


def test_images_that_are_no_numbers_are_stopped(tmp_path, monkeypatch):
    real = trainer.train_batches

    def broken(*arguments):
        for i, (images, labels) in enumerate(real(*arguments)):
            yield (images.float() * math.nan if i == 7 else images), labels

    monkeypatch.setattr(trainer, "train_batches", broken)
    header, state = refuse({}, tmp_path, "the loss is not finite at step 8")
    assert header["step"] == 7
    assert all(value.isfinite().all() for value in state.values())
    monkeypatch.undo()
    train_supernet(recipe(), tmp_path, resume=True)
    assert len(metrics(tmp_path)) == STEPS


def test_a_supernet_of_an_older_recipe_is_still_that_recipes(tmp_path):
    changes = {"epochs": 1}
    path = train_supernet(recipe(**changes), tmp_path)
    header, tensors = read_tensors(path, "supernet")
    older = header["summary"]["recipe"]
    for key in ("schedule", "progressive", "distill", "alpha", "alpha_clip", "clip_norm", "ema", "device", "compile"):
        del older[key]
    write_tensors(path, tensors, header)
    assert train_supernet(recipe(**changes), tmp_path) == path
    with pytest.raises(UsageError, match="distill was 'kl', is now 'alpha'"):
        train_supernet(recipe(**changes, distill="alpha"), tmp_path)


def test_a_training_that_an_older_version_began_goes_on(tmp_path):
    with pytest.raises(Stop):
        train_supernet(recipe(), tmp_path, report=stop_after(3))
    header, tensors = read_tensors(tmp_path / "checkpoint.safetensors", "training checkpoint")
    del header["space"]["bn_eps"], header["space"]["stages"][0]["squeeze"]
    write_tensors(tmp_path / "checkpoint.safetensors", tensors, header)
    train_supernet(recipe(), tmp_path, resume=True)
    assert len(metrics(tmp_path)) == STEPS


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="torch finds no GPU here; set device: auto or cpu"):
        train_supernet(recipe(device="cuda"), tmp_path)
    assert devices.choose_device("auto", ALONE) == torch.device("cpu")


def test_spread_subnets_are_of_another_size_in_every_step():
    codec = PopulationCodec(load_space("tiny_16"))
    drawn = [arch for step in range(40) for arch in step_archs(codec, recipe(sampling="spread"), step, 2)]
    macs = codec.macs(codec.encode(drawn))
    uniform = codec.macs(codec.encode([a for step in range(40) for a in step_archs(codec, recipe(), step, 2)]))
    assert macs.min() < uniform.min()
    assert macs.max() > uniform.max()


def test_subnets_of_a_progressive_step_share_a_resolution_and_are_open():
    space = load_space(SPACE)
    for phase in plan(recipe(**PROGRESSIVE), space, STEPS // 3):
        codec = PopulationCodec(phase.space)
        for step in range(phase.first, phase.end):
            archs = step_archs(codec, recipe(**PROGRESSIVE), step, 4)
            assert len({arch.resolution for arch in archs}) == 1
            assert all(space.canonical(arch).resolution in (16, 20) for arch in archs)
            assert phase.name != "largest" or {arch.depths for arch in archs} == {space.largest.depths}
