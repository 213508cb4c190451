"""The document of a kind of device: how models run there, and the figures of a simulated one."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from ofa_deploy.config.yaml_document import Bound, Document, Fraction, Positive

PUBLISHED: Final = "published"  # the runtime of a table that was imported: nothing here measures under its condition
BROWSER: Final = "ort-web-"  # how the runtimes begin whose agent is a web page
LOCAL: Final = "local"  # the target that is this machine, and needs no registration
SIMULATED: Final = "simulated"  # the runtime of a device that is made of its profile's figures

Precision = Literal["fp32", "fp16", "bf16", "int8"]


class Fact(Document):
    """What is publicly known of a device.

    Attributes:
        value: the fact.
        source: where it is published.
    """

    value: str | float
    source: str


class Simulation(Document):
    """The figures of a simulated device; ``device_agents/runtimes/simulated.py`` computes latencies from them.

    Attributes:
        gflops: peak by precision, counting two operations for each multiply-accumulate.
        dense_share: the share of that peak that large dense convolutions reach.
        depthwise_share: the share of that peak that large depthwise convolutions reach.
        ramp_macs: a dense kernel with this many multiply-accumulates reaches half of its share.
        memory_gbs: bandwidth of the memory in GB/s.
        memory_share: the share of that bandwidth that is reached.
        cache_kb: size of the cache in KiB.
        cache_gbs: bandwidth of the cache in GB/s.
        memory_mb: memory available to a model and its activations, in MB.
        launch_us: overhead of a kernel in µs.
        call_us: overhead of an inference in µs.
        noise: relative standard deviation of a timing.
        spikes: the share of timings that are spikes.
        spike: a spike takes this many times as long.
        drift: by which share a warm device is slower.
        drift_s: seconds of work that warm the device by two thirds.
        faults: what happens when a block or network is loaded whose key begins so.
        real_time: whether the device really takes the time that it reports.
    """

    gflops: dict[Literal["fp32", "fp16", "int8"], Bound]
    dense_share: Annotated[float, Field(gt=0, le=1)]
    depthwise_share: Annotated[float, Field(gt=0, le=1)]
    ramp_macs: Annotated[float, Field(ge=0)]
    memory_gbs: Bound
    memory_share: Annotated[float, Field(gt=0, le=1)]
    cache_kb: Annotated[float, Field(ge=0)]
    cache_gbs: Bound
    memory_mb: Bound
    launch_us: Annotated[float, Field(ge=0)]
    call_us: Bound
    noise: Annotated[float, Field(ge=0, lt=0.2)] = 0.01
    spikes: Fraction = 0.002
    spike: Annotated[float, Field(ge=1)] = 2.0
    drift: Annotated[float, Field(ge=0)] = 0.0
    drift_s: Bound = 60.0
    faults: dict[str, Literal["failed", "out-of-memory", "hang", "crash"]] = Field(default_factory=dict)
    real_time: bool = False


class TargetProfile(Document):
    """A kind of device: how models run there. ``profiles/*.yaml``.

    Attributes:
        name: name of the kind; ``--profile NAME`` and ``--target NAME`` refer to it.
        description: one line for lists and reports.
        runtime: what runs the models there. ``simulated`` computes latencies from ``simulation``; ``published`` marks
            an imported table, on which nothing can be measured.
        provider: the runtime's provider or device.
        precision: precision in which the device computes.
        batch: images per inference.
        threads: CPU threads of an inference.
        opset: ONNX opset of its models.
        forbidden_ops: ONNX ops that its models must not have.
        loopback: whether it is this machine; commands then start the agent themselves.
        allowed_ops: the only ONNX ops that its models may have; empty for any.
        allowed_types: the only tensor types, by ONNX's names, that its models may have; empty for any.
        facts: what is publicly known of it, by name.
        simulation: figures that stand in for a device; without them it can only be measured.
    """

    name: str
    description: str
    runtime: Literal[
        "adb-onnxruntime",
        "onnxruntime",
        "openvino",
        "ort-web-wasm",
        "ort-web-webgpu",
        "tensorrt",
        "torch",
        "trtexec",
        "simulated",
        "published",
    ]
    provider: str = "CPUExecutionProvider"
    precision: Precision = "fp32"
    batch: Positive = 1
    threads: Positive = 1
    opset: Annotated[int, Field(ge=11, le=21)] = 17
    forbidden_ops: tuple[str, ...] = ()
    loopback: bool = False
    allowed_ops: tuple[str, ...] = ()
    allowed_types: tuple[str, ...] = ()
    facts: dict[str, Fact] = Field(default_factory=dict)
    simulation: Simulation | None = None

    @property
    def here(self) -> bool:
        """Whether it is this machine, whose agent a command starts itself."""
        return self.loopback or self.name == LOCAL

    @property
    def fp16_in_graph(self) -> bool:
        """Whether an fp16 model's file is fp16: elsewhere the device's builder makes fp16 of an fp32 file."""
        return self.runtime in ("onnxruntime", "adb-onnxruntime") and self.provider == "CPUExecutionProvider"

    def allows(self, op_type: str) -> bool:
        """Whether its models may have an op."""
        return op_type not in self.forbidden_ops and (not self.allowed_ops or op_type in self.allowed_ops)

    @property
    def simulated(self) -> bool:
        """Whether its latencies come from a simulation."""
        return self.runtime == SIMULATED

    @property
    def browser(self) -> bool:
        """Whether its agent is a web page, opened by a link."""
        return self.runtime.startswith(BROWSER)
