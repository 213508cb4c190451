"""Search by gradient on a supernet: expectations, derivation, the mixture, the course of learning and its guards."""

import numpy as np
import pytest
import torch

from ofa_deploy.blocks import counts
from ofa_deploy.config import DataConfig, TrainRecipe
from ofa_deploy.differentiable.choices import Choices, Drawn, SumTable
from ofa_deploy.differentiable.learning import Learning
from ofa_deploy.differentiable.on_images import gradient_on_images
from ofa_deploy.differentiable.paths import MixedSupernet
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.latency import LatencyModel, LatencyTable, Row
from ofa_deploy.search import Constraints, Plan, Problem, search
from ofa_deploy.search.branch_and_bound import solve
from ofa_deploy.search.separable import Slots, separate
from ofa_deploy.space import Population, PopulationCodec, load_space
from ofa_deploy.supernet import Supernet, initialise
from ofa_deploy.training import load_data

CODEC = PopulationCodec(load_space("tiny_16"))
SLOTS = Slots(CODEC)
WORTH = np.random.default_rng(1).uniform(0, 0.05, (len(SLOTS.all), SLOTS.C + 1)) * ([1.0] * SLOTS.C + [0.0])
SIZES = np.sort(np.random.default_rng(2).uniform(0, 0.1, SLOTS.sizes))
MACS = CODEC.macs(CODEC.encode([CODEC.space.smallest, CODEC.space.largest]))
RELAXATIONS = ("binary", "gumbel", "softmax")


def worth(population: Population) -> np.ndarray:
    return SIZES[SLOTS.size(population)] + WORTH[np.arange(len(SLOTS.all)), SLOTS.picks(population)].sum(axis=1)


def a_latency() -> LatencyModel:
    rows = {op.key: 0.005 + counts.macs(op.block) / 4e6 for op in CODEC.ops}
    table = {key: Row(key, (key,), ms, ms, ms, 72, 0.02, 0.01) for key, ms in rows.items()}
    return LatencyModel(LatencyTable("made-up", {"runtime": "onnxruntime"}, table, {}))


def decided(row: np.ndarray) -> Choices:
    """Choices that have chosen one subnet."""
    choices = Choices(SLOTS)
    picks = SLOTS.picks(row[None])[0]
    chosen = [int(SLOTS.size(row[None])[0]), *row[SLOTS.depth0 : SLOTS.kernel0], *np.where(picks == SLOTS.C, 0, picks)]
    with torch.no_grad():
        for logits, choice in zip(choices.parameters(), chosen, strict=True):
            logits[int(choice)] = 200.0
    return choices


def undecided(seed: int = 0) -> Choices:
    choices, generator = Choices(SLOTS), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for logits in choices.parameters():
            logits.copy_(torch.randn(len(logits), generator=generator))
    return choices


def test_expected_latency_of_decided_choices_is_the_latency_models() -> None:
    latency = a_latency().bind(CODEC).predict
    table = SumTable(separate(SLOTS, lambda population: latency(population)[0][:, None]))
    rows = CODEC.sample(40, np.random.default_rng(0))
    found = [decided(row).expected(table).item() for row in rows]
    assert found == pytest.approx(latency(rows)[0], rel=1e-5)
    assert all((decided(row).argmax() == row).all() for row in rows)


def test_expected_latency_is_the_mean_over_drawn_subnets_and_has_a_gradient() -> None:
    latency = a_latency().bind(CODEC).predict
    table, choices = SumTable(separate(SLOTS, lambda p: latency(p)[0][:, None])), undecided()
    drawn = choices.drawn(20_000, torch.Generator().manual_seed(0))
    expected = choices.expected(table)
    assert expected.item() == pytest.approx(latency(drawn)[0].mean(), rel=0.01)
    expected.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in choices.groups())


def test_what_choices_are_worth_adds_up() -> None:
    choices = undecided()
    rows = np.unique(CODEC.sample(200, np.random.default_rng(0)), axis=0)
    logits = [p.detach().numpy() for p in choices.parameters()]
    picks, depths = SLOTS.picks(rows), rows[:, SLOTS.depth0 : SLOTS.kernel0]
    expected = logits[0][SLOTS.size(rows)]
    for stage in range(depths.shape[1]):
        expected = expected + logits[1 + stage][depths[:, stage]]
    for slot, found in enumerate(logits[1 + depths.shape[1] :]):
        expected = expected + np.append(found, [0.0] * (SLOTS.C + 1 - len(found)))[picks[:, slot]]
    assert choices.worth()(rows)[:, 0] == pytest.approx(expected, abs=1e-5)


def toy(share: float, seed: int = 0, steps: int = 300):
    """Learning on a task that is a sum over blocks itself: its beliefs, the constraints, and its proven optimum."""
    score = separate(SLOTS, lambda population: worth(population)[:, None])
    bound = MACS[0] + share * (MACS[1] - MACS[0])
    problem = Problem(CODEC, worth, None, Constraints(max_macs=bound))
    cost, table = separate(SLOTS, problem.additive), SumTable(score)
    task = Learning(cost, lambda c, _: -c.expected(table)[0], Plan(gradient_steps=steps), seed)
    return list(task.beliefs()), cost, search(problem, strategy="exact").best


def test_derivation_is_exact_without_a_binding_constraint() -> None:
    beliefs, _, best = toy(2.0)
    assert CODEC.decode(beliefs[-1].argmax) == [best.arch]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_under_a_budget_what_is_derived_is_the_optimum_and_the_expectation_keeps_it(share: float) -> None:
    beliefs, cost, best = toy(share)
    rows = solve(beliefs[-1].worth, cost, 64).rows
    assert worth(rows).max() == pytest.approx(best.accuracy)
    assert beliefs[-1].figures["excess"][0] <= 1e-6
    assert [belief.figures["step"] for belief in beliefs] == list(range(10, 301, 10))


def test_a_budget_that_steps_leave_exceeded_is_met_in_the_end() -> None:
    beliefs, _, _ = toy(0.02, steps=3)
    assert beliefs[-1].figures["excess"][0] <= 1e-6


def first_act(loss, guard: str) -> dict:
    cost = separate(SLOTS, Problem(CODEC, worth, None, Constraints(max_macs=2 * MACS[1])).additive)
    beliefs = Learning(cost, loss, Plan(gradient_steps=400), 0).beliefs()
    acted = [record for _, belief in zip(range(20), beliefs, strict=False) for record in belief.acted]
    return next(record for record in acted if record["guard"] == guard)


def test_guards_act_and_are_told() -> None:
    def hasty(choices: Choices, drawn: Drawn) -> torch.Tensor:
        return -torch.stack([logits.log_softmax(0)[-1] for logits in choices.parameters()]).sum()

    assert "with an entropy of 0." in first_act(hasty, "entropy")["why"]
    assert "though the constraints had room" in first_act(lambda c, _: -c.skipped(), "skips")["why"]


def test_the_guard_against_skips_leaves_a_tight_budget_alone() -> None:
    beliefs, _, _ = toy(0.02, steps=60)
    assert beliefs[-1].figures["skipped"] > 0.5
    assert not any(record["guard"] == "skips" for belief in beliefs[1:] for record in belief.acted)


def test_a_loss_that_is_not_finite_is_one_clear_error() -> None:
    cost = separate(SLOTS, Problem(CODEC, worth, None, Constraints(max_macs=MACS[1])).additive)
    learning = Learning(cost, lambda c, _: c.entropy() * float("nan"), Plan(), 0)
    with pytest.raises(OfaDeployError, match="the loss is not finite in step 1"):
        next(learning.beliefs())


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    built = Supernet(CODEC.space)
    initialise(built, 0)
    return built


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_a_decided_mixture_is_the_subnet(relaxation: str, supernet: Supernet) -> None:
    images, labels = torch.randn(8, 1, 16, 16), torch.arange(8)
    generator = torch.Generator().manual_seed(0)
    for row in CODEC.sample(4, np.random.default_rng(0)):
        arch = CODEC.decode(row[None])[0]

        def at(resolution: int) -> torch.Tensor:
            return torch.nn.functional.interpolate(images, (resolution, resolution))

        drawn = Drawn(decided(row), relaxation, 0.1, generator)
        found = MixedSupernet(supernet, SLOTS).loss((at, labels), drawn)
        alone = torch.nn.functional.cross_entropy(supernet.train()(at(arch.resolution), arch), labels)
        assert found.item() == pytest.approx(alone.item(), rel=1e-4)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_choice_that_is_drawn_gets_a_gradient(relaxation: str, supernet: Supernet) -> None:
    choices = undecided()
    batch = (lambda r: torch.randn(8, 1, r, r, generator=torch.Generator().manual_seed(r)), torch.arange(8))
    for seed in range(6 if relaxation == "binary" else 1):
        drawn = Drawn(choices, relaxation, 1.0, torch.Generator().manual_seed(seed))
        MixedSupernet(supernet, SLOTS).loss(batch, drawn).backward(inputs=list(choices.parameters()))
    assert all(logits.grad.abs().sum() > 0 for logits in choices.groups())
    if relaxation == "binary":
        assert all(abs(float(logits.grad.sum())) < 1e-4 * float(logits.grad.abs().max()) for logits in choices.groups())


@pytest.fixture(scope="module")
def digits():
    recipe = TrainRecipe(name="t", space="tiny_16", data=DataConfig(name="digits", valid=200), epochs=1)
    return load_data(recipe.data), recipe


@pytest.mark.parametrize("train_weights", [False, True])
def test_on_images_seeds_repeat_the_budget_holds_and_the_supernet_is_not_changed(
    train_weights: bool, supernet: Supernet, digits
) -> None:
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    settings = Plan(gradient_steps=12, train_weights=train_weights)
    gradient = gradient_on_images(supernet, *digits, settings)
    bounds = Constraints(max_ms=0.3)
    latency = a_latency().bind(CODEC).predict
    problem = Problem(CODEC, lambda rows: 1 - np.exp(-worth(rows)), latency, bounds, gradient=gradient)
    one, two = (search(problem, 1, "differentiable", evaluations=500) for _ in range(2))
    assert one.course == two.course
    assert [p.arch for p in one.finalists] == [p.arch for p in two.finalists]
    assert one.finalists
    assert all(point.upper_ms <= 0.3 for point in one.finalists)
    assert [point["step"] for point in one.course] == [10, 12]
    assert one.course[-1]["expected_ms"] <= 0.3
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    other = search(problem, 2, "differentiable", evaluations=500)
    assert other.course != one.course


def test_the_course_stops_where_time_is_over(supernet: Supernet, digits) -> None:
    gradient = gradient_on_images(supernet, *digits, Plan(gradient_steps=100_000))
    bounds = Constraints(max_macs=MACS.mean())
    problem = Problem(CODEC, lambda rows: 1 - np.exp(-worth(rows)), None, bounds, gradient=gradient)
    found = search(problem, 0, "differentiable", time_limit=0.5)
    assert len(found.course) < 5000
    assert CODEC.macs(CODEC.encode([found.best.arch]))[0] <= MACS.mean()
