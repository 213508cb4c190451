"""A network asked for in one YAML becomes the pipeline that answers it, and the options of search and extract."""

import json

import pytest

from ofa_deploy.errors import UsageError
from ofa_deploy.pipeline.document import ExtractStage, ProfileStage, TrainStage
from ofa_deploy.pipeline.question import SpaceQuestion, read_pipeline, space_of
from ofa_deploy.space import PRESETS

QUESTION = """
name: answer
search_space:
  backbone: {type: tiny_16}
  head: classifier
data: {name: digits, valid: 297}
constraints:
  latency: {target_device: jetson_nano, max_ms: 2, statistic: p90, confidence: 0.9}
  size: {max_params_m: 0.05}
  compute: {max_macs_m: 1.5, max_large_kernels: 0}
strategy: {algorithm: regularized, supernet_epochs: 2, finetune_epochs: 1, population_size: 32, evaluations: 300,
           seed: 4}
recipe: {batch_size: 64}
"""


def written(folder, text):
    path = folder / "question.yaml"
    path.write_text(text)
    return path


def test_the_pipeline_has_what_was_asked_for(tmp_path):
    train, profile, extract = read_pipeline(written(tmp_path, QUESTION)).stages
    assert [type(stage) for stage in (train, profile, extract)] == [TrainStage, ProfileStage, ExtractStage]
    assert (train.recipe.space["name"], train.recipe.epochs, train.recipe.batch_size) == ("tiny_16", 2, 64)
    assert profile.target == extract.target == "jetson_nano"
    assert (extract.max_ms, extract.statistic, extract.confidence) == ((2.0,), "p90", 0.9)
    assert (extract.max_params, extract.max_macs, extract.max_large_kernels) == (50_000, 1_500_000, 0)
    assert (extract.strategy, extract.population, extract.evaluations) == ("regularized", 32, 300)
    assert (extract.finetune, extract.finetune_epochs, extract.seed) == (1, 1, 4)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("head: classifier", "head: {type: fpn}", "question.yaml:5: search_space.head.type: there is no head 'fpn'"),
        (
            "regularized",
            "dna",
            "question.yaml:11: strategy.algorithm: there is no algorithm 'dna'; there are evolution",
        ),
        ("tiny_16", "resnet50", "question.yaml:4: search_space.backbone.type: there is no backbone 'resnet50'"),
        ("max_params_m", "max_parms_m", "question.yaml:9: constraints.size.max_parms_m: unknown key"),
        ("max_ms: 2", "max_ms: -2", "question.yaml:8: constraints.latency.max_ms"),
        ("supernet_epochs: 2, ", "", "give search_space, data and strategy.supernet_epochs"),
    ],
)
def test_what_there_is_not_is_refused_by_name(tmp_path, was, now, said):
    with pytest.raises(UsageError) as refused:
        read_pipeline(written(tmp_path, QUESTION.replace(was, now)))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("backbone", "name", "stem"),
    [
        ({"type": "ofa_mbv3", "width_mult": 1.2}, "ofa_mbv3_w1.2", 24),
        ({"type": "ofa_mbv3"}, "ofa_mbv3_w1.0", 16),
        ({"type": "ofa_mbv3", "width_mult": 2}, "ofa_mbv3_w1.0-w2-d1", 32),
        ({"type": "efficientnet_b0", "depth_mult": 1.5}, "efficientnet_b0-w1-d1.5", 32),
        ({"type": "ofa_proxyless", "width_mult": 1.3}, "ofa_proxyless_w1.3", 40),
        ({"type": "mobilenet_v2", "width_mult": 0.75}, "mobilenet_v2-w0.75-d1", 24),
    ],
)
def test_multiplied_backbones(backbone, name, stem):
    space = space_of(SpaceQuestion.model_validate({"backbone": backbone}))
    assert (space.name, space.stem_width) == (name, stem)
    depths = [stage.depths[-1] for stage in space.stages]
    base = [stage.depths[-1] for stage in PRESETS[name.partition("-")[0]].stages]
    assert (depths > base) == ("depth_mult" in backbone)


def test_the_number_of_classes_is_the_heads():
    asked = {"backbone": {"type": "ofa_mbv3"}, "head": {"type": "classifier", "num_classes": 37}}
    assert space_of(SpaceQuestion.model_validate(asked)).num_classes == 37


def test_search_takes_constraints_and_strategy_and_options_count_more(tmp_path, ofa_deploy):
    written(tmp_path, QUESTION)
    study = ("search", "--question", "question.yaml", "--space", "tiny_16", "--random-weights", "--target", "local")
    bounds = ("--max-macs", "1e6", "--statistic", "p50")
    assert (
        ofa_deploy("profile", "--target", "local", "--space", "tiny_16", "--cap-s", "2", cwd=tmp_path).returncode == 0
    )
    done = ofa_deploy(*study, *bounds, "--max-ms", "5", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["strategy"], found["evaluations"]) == ("regularized", 300)
    refused = ofa_deploy("search", "--question", "missing.yaml", cwd=tmp_path)
    assert refused.returncode == 2
    assert "missing.yaml" in refused.stderr
    assert "Traceback" not in refused.stderr
