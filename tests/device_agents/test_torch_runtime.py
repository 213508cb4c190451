"""The torch runtime against ONNX Runtime on a few networks; ``tests/benchmarks/torch_parity.py`` takes 100."""

import os

import numpy as np
import pytest

from device_agents.runtimes import open_runtime
from ofa_deploy.fleet import resolve_target
from ofa_deploy.fleet.profiling import network_item
from ofa_deploy.space import PopulationCodec, load_space

ASKED = {"precision": "fp32", "batch": 1, "threads": 1}
TWO = [("torch", "cpu"), ("onnxruntime", "CPUExecutionProvider")]


@pytest.mark.parametrize(("opset", "space"), [(13, "small_28"), (17, "small_28"), (17, "uib_28")])
def test_logits_equal_onnx_runtimes_on_random_networks(opset, space):
    before = os.sched_getaffinity(0)
    runtimes = [open_runtime({"runtime": name, "provider": provider, **ASKED}, 0) for name, provider in TWO]
    os.sched_setaffinity(0, before)
    target, codec = resolve_target("local").model_copy(update={"opset": opset}), PopulationCodec(load_space(space))
    for arch in codec.decode(codec.sample(5, np.random.default_rng(opset))):
        model = network_item(codec.space.network(arch), arch, target).model
        ours, theirs = (runtime.load({}, lambda model=model: model).outputs()[0] for runtime in runtimes)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
