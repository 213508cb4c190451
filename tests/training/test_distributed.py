"""Many processes train what one trains, and when one is lost the others say so and nothing else is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.supernet import Supernet, initialise, load_supernet, synchronised
from ofa_deploy.training import (
    ALONE,
    World,
    batches,
    evaluate,
    join_world,
    load_data,
    specialise,
    train_supernet,
)
from ofa_deploy.training.sampling import train_batches
from tests.training.processes import command, finish, run, start
from tests.training.test_training_loop import (
    RECIPE,
    SPACE,
    Stop,
    assert_same_result,
    metrics,
    recipe,
    stop_after,
)

ACCURACY = {"recalibration_images": 600, "subnets": 8, "heldout": 3, "images": 200}


def save(folder, name, value):
    torch.save(value, folder / f"{name}.{os.environ.get('RANK', 0)}")


def saved(folder, name):
    return [torch.load(path, weights_only=False) for path in sorted(folder.glob(f"{name}.*"))]


def gradients(world):
    """Of a loss over 13 images and several subnets, in double precision."""
    space = load_space(SPACE)
    supernet = Supernet(space)
    initialise(supernet, 3)
    supernet.train().double()
    for parameter in supernet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(13, 1, 20, 20, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 10, (13,), generator=generator)
    codec, part = PopulationCodec(space), world.part(13)
    with synchronised(world.group):
        for arch in [space.largest, space.smallest, *codec.decode(codec.sample(2, np.random.default_rng(0)))]:
            loss = F.cross_entropy(supernet(images[part], arch), labels[part], reduction="sum") / 13
            loss.backward()
    world.sum_gradients(supernet.parameters())
    return {name: parameter.grad for name, parameter in supernet.named_parameters()}


def talk(folder):
    with join_world(30) as world:
        save(folder, "gradients", gradients(world))
        own = [torch.full((3 + i,), float(i)) for i in range(5)][world.rank :: world.size]
        copied = [torch.full((2,), float(world.rank)), torch.full((1, 3), world.rank)]
        world.copy_from_main(copied)
        said = {
            "joined": world.interleave(own, torch.zeros(0)),
            "nothing": world.interleave([], torch.zeros(0)),
            "answer": world.ask_main(lambda: {"rank": world.rank}),
            "total": world.total({"a": 1.5, "b": world.rank}),
            "copied": copied,
            "threads": torch.get_num_threads(),
        }
        save(folder, "said", said)


@pytest.fixture(scope="module", params=[2, 3])
def conversation(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    run(request.param, talk, folder, folder=folder)
    return request.param, folder


def test_gradients_are_those_of_one_process_over_the_whole_batch(conversation):
    expected = gradients(ALONE)
    size, folder = conversation
    each = saved(folder, "gradients")
    assert len(each) == size
    for found in each:
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_what_processes_tell_each_other(conversation):
    size, folder = conversation
    each = saved(folder, "said")
    assert len(each) == size
    for said in each:
        assert [(len(value), float(value[0])) for value in said["joined"]] == [(3 + i, i) for i in range(5)]
        assert said["nothing"] == []
        assert said["answer"] == {"rank": 0}
        assert said["total"] == {"a": 1.5 * size, "b": sum(range(size))}
        assert all((value == 0).all() for value in said["copied"])
        assert said["threads"] == max(1, len(os.sched_getaffinity(0)) // size)


def test_parts_of_a_batch_cover_it():
    parts = [World(rank, 3, group=None).part(200) for rank in range(3)]
    assert np.concatenate([np.arange(200)[part] for part in parts]).tolist() == list(range(200))
    assert {part.stop - part.start for part in parts} == {66, 67}
    with pytest.raises(
        UsageError, match="a batch of 2 images is too small for 3 processes; raise batch_size, or start fewer"
    ):
        World(0, 3).part(2)


def test_every_process_sees_its_part_of_the_same_augmented_batches():
    data = load_data(recipe().data).train
    streams = [train_batches(data, recipe(), 7, world) for world in (ALONE, World(0, 2), World(1, 2))]
    for _ in range(3):
        whole, *parts = [next(stream) for stream in streams]
        for one, *halves in zip(whole, *parts, strict=True):
            assert torch.equal(one, torch.cat(halves))


def train(folder, resume=False, **changes):
    with join_world(30) as world:
        reported = []
        train_supernet(recipe(**changes), folder, resume, report=reported.append, world=world)
        assert bool(reported) == world.is_main


FIRST_STEPS = {"batch_size": 397, "epochs": 1}  # 3 steps; odd, so that parts are unequal
WAYS = [
    {"largest_epochs": 0.2, "distill": "alpha", "clip_norm": 1.0},
    {"schedule": "progressive", "ema": 0.9, "evaluate_every": 1, "patience": 1},
]


@pytest.mark.parametrize("way", WAYS, ids=["sandwich", "progressive"])
def test_one_process_and_two_train_the_same_over_the_first_steps(tmp_path, way):
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, **FIRST_STEPS, **way)
    run(2, partial(train, **FIRST_STEPS, **way), two, folder=tmp_path)
    assert [line["distill"] > 0 for line in metrics(one) if "loss" in line][-1]
    for found, reference in zip(metrics(two), metrics(one), strict=True):
        assert found == pytest.approx(reference, abs=1e-5)
    found, reference = (load_supernet(folder / "supernet.safetensors")[0] for folder in (two, one))
    for (name, value), expected in zip(found.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5, msg=name)


def shares(folder):
    with join_world(30) as world:
        torch.set_num_threads(1)
        space = load_space(SPACE)
        supernet = Supernet(space)
        initialise(supernet, 3)
        data = load_data(recipe().data)
        subnet = specialise(supernet, space.largest, data, 600, world)
        held_out = batches(data.valid, 20, 50, data.mean, data.std, world=world)
        result = evaluate(subnet, held_out, world)
        save(folder, "statistics", {k: v for k, v in subnet.named_buffers() if "running" in k})
        save(folder, "predicted", (result.labels, result.predicted))


def test_recalibration_and_evaluation_are_shared_without_changing_a_bit(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    before = torch.get_num_threads()
    shares(one)
    torch.set_num_threads(before)
    run(2, shares, two, folder=two)
    (statistics,), ((labels, predicted),) = saved(one, "statistics"), saved(one, "predicted")
    assert len(labels) == 237
    for rank in range(2):
        found = saved(two, "statistics")[rank]
        assert [name for name, value in statistics.items() if not torch.equal(value, found[name])] == []
        assert np.array_equal(saved(two, "predicted")[rank][0], labels)
        assert np.array_equal(saved(two, "predicted")[rank][1], predicted)


SHORT = {"batch_size": 400, "epochs": 2, "random_subnets": 1}  # 6 steps


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """An uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("pair")
    run(2, partial(train, **SHORT), folder / "run", folder=folder)
    return folder / "run"


def kill_at(step, folder, victims, logs):
    """Two processes; those named are killed as soon as the step is done, or a moment later."""
    processes = start(2, partial(train, **SHORT), folder, True, folder=logs)
    lines = folder / "metrics.jsonl"
    while all(p.is_alive() for p in processes) and (not lines.exists() or lines.read_text().count("\n") < step):
        time.sleep(0.005)
    time.sleep(np.random.default_rng(os.getpid() + step).uniform(0, 0.05))
    for victim in victims:
        processes[victim].kill()
    return finish(processes, 20)


def test_killed_processes_resume_to_the_same_bits(pair, tmp_path):
    for step, victims in ((2, [0]), (3, [1]), (5, [0, 1])):
        codes = kill_at(step, tmp_path / "run", victims, tmp_path / "logs")
        assert [codes[v] for v in victims] == [-signal.SIGKILL] * len(victims)
        assert [code for v, code in enumerate(codes) if v not in victims] == [1] * (2 - len(victims))
    run(2, partial(train, **SHORT), tmp_path / "run", True, folder=tmp_path / "logs")
    assert_same_result(tmp_path / "run", pair)


@pytest.mark.parametrize("first", [1, 2])
def test_another_number_of_processes_goes_on_from_the_checkpoint(pair, tmp_path, first):
    folder = tmp_path / "run"
    if first == 1:
        with pytest.raises(Stop):
            train_supernet(recipe(**SHORT), folder, report=stop_after(3))
        run(2, partial(train, **SHORT), folder, True, folder=tmp_path / "logs")
    else:
        kill_at(3, folder, [0, 1], tmp_path / "logs")
        train_supernet(recipe(**SHORT), folder, resume=True)
    assert not (folder / "checkpoint.safetensors").exists()
    assert [line["step"] for line in metrics(folder)] == list(range(1, 7))
    for line, reference in zip(metrics(folder), metrics(pair), strict=True):
        assert line == pytest.approx(reference, abs=2e-3)


def spoken(logs, rank):
    """What a process says on stderr, but for its progress and what torch's own C++ code writes there."""
    lines = (logs / f"{rank}.err").read_text().splitlines()
    assert not any(line.startswith("Traceback") for line in lines)
    return [line for line in lines if line.startswith("ofa-deploy: ")]


@pytest.fixture
def config(tmp_path):
    def write(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps({**RECIPE, "epochs": 1, "accuracy": ACCURACY, **changes}))
        return str(path)

    return write


def begin(config, tmp_path, *options):
    arguments = ["--workspace", str(tmp_path / "ws"), "train-supernet", "-c", config, *options]
    return start(2, command, *arguments, folder=tmp_path / "logs")


def test_the_command_shares_the_campaign_and_answers_once(config, tmp_path):
    processes = begin(config(), tmp_path, "--json")
    assert finish(processes) == [0, 0]
    answer = json.loads((tmp_path / "logs" / "0.out").read_text())
    assert answer["predictor"]["n_fit"] == 5
    assert (tmp_path / "logs" / "1.out").read_text() == (tmp_path / "logs" / "1.err").read_text() == ""
    assert Path(answer["supernet"]).with_name("predictor.safetensors").exists()
    assert finish(begin(config(), tmp_path, "--json")) == [0, 0]  # all is there already
    assert json.loads((tmp_path / "logs" / "0.out").read_text()) == answer


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"epoks": 3}, 2, "epoks: unknown key"),
        ({"compile": True}, 2, "compile: true works in a single process only"),
        ({"batch_size": 1}, 2, "a batch of 1 images is too small for 2 processes"),
        ({"data": {"name": "mnist", "root": "/nowhere"}}, 2, "data set mnist is not in /nowhere"),
        ({"lr": 1e18, "warmup_epochs": 0}, 1, "not finite"),
    ],
)
def test_an_error_of_all_is_said_once(config, tmp_path, changes, code, message):
    codes = finish(begin(config(**changes), tmp_path))
    assert code in codes
    assert set(codes) <= {code, 1}  # 1 is that of a process that lost the other before it failed itself
    said = spoken(tmp_path / "logs", 0) + spoken(tmp_path / "logs", 1)
    assert len(said) == 1
    assert said[0].startswith("ofa-deploy: error: ")
    assert message in said[0]


def wait_for_steps(tmp_path, count):
    lines, until = tmp_path / "ws" / "supernets" / "tiny" / "metrics.jsonl", time.monotonic() + 120
    while not lines.exists() or lines.read_text().count("\n") < count:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_stops_the_other_with_one_line(config, tmp_path, victim):
    processes = begin(config(epochs=500), tmp_path)
    wait_for_steps(tmp_path, 3)
    processes[victim].kill()
    codes = finish(processes, 20)
    assert (codes[victim], codes[1 - victim]) == (-signal.SIGKILL, 1)
    (line,) = spoken(tmp_path / "logs", 1 - victim)
    assert "another process of this training died or did not answer in time" in line
    assert "with --resume" in line
    assert (tmp_path / "ws" / "supernets" / "tiny" / "checkpoint.safetensors").exists()


def test_a_process_that_hangs_is_given_up(config, tmp_path):
    processes = begin(config(epochs=500), tmp_path, "--timeout", "3")
    wait_for_steps(tmp_path, 3)
    os.kill(processes[1].pid, signal.SIGSTOP)
    processes[0].join(20)
    processes[1].kill()
    assert finish(processes) == [1, -signal.SIGKILL]
    (line,) = spoken(tmp_path / "logs", 0)
    assert "Timed out waiting" in line


def test_others_that_never_come_are_not_waited_for_without_end(monkeypatch):
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 9}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(OfaDeployError, match="the other processes cannot be reached"), join_world(1):
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="must be numbers, as torchrun sets them"), join_world(1):
        pass


def test_a_training_ends_when_torchrun_is_gone():
    with pytest.raises(OfaDeployError, match="torchrun, which supervises this training, has died"):
        World(agent=os.getppid() + 1).total({"loss": 1.0})
