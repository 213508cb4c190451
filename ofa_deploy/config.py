"""The YAML documents as pydantic models; an unknown key is an error that names the file and the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ofa_deploy.errors import UsageError

Activation = Literal["relu", "relu6", "hswish", "silu", "gelu"]
OptionalKernel = Literal[0, 3, 5, 7]
Positive = Annotated[int, Field(gt=0)]
Bound = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
ItemT = TypeVar("ItemT")
Some = Annotated[tuple[ItemT, ...], Field(min_length=1)]  # a list that cannot be empty
Relaxation = Literal["binary", "gumbel", "softmax"]  # see ``search.GradientSettings``
Augmentation = Literal[
    "crop", "flip", "random_resized_crop", "color_jitter", "randaugment", "trivial", "random_erasing", "cutout"
]


PUBLISHED: Final = "published"  # the runtime of a table that was imported: nothing here measures under its condition
BROWSER: Final = "ort-web-"  # how the runtimes begin whose agent is a web page
LOCAL: Final = "local"  # the target that is this machine, and needs no registration
SIMULATED: Final = "simulated"  # the runtime of a device that is made of its profile's figures


class Document(BaseModel):
    """Base of every document: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StageDocument(Document):
    """One stage of a space: a run of blocks of equal width.

    Attributes:
        width: output channels at width multiplier 1.0.
        widths: channels that the stage may have instead; ``width`` must be the largest of them. By default there is no
            choice.
        kinds: kinds that each block may have instead; ``block`` must be one of them. By default there is no choice.
        stride: of the stage's first block.
        act: activation inside the blocks.
        se: whether the blocks have squeeze-excitation.
        depths: how many blocks the stage may have.
        kernels: kernel sizes a block may have; for ``uib`` blocks pairs ``[before, after]``, 0 for no convolution.
        expands: expansion ratios a block may have.
        block: kind of the blocks; see "Kinds of blocks".
        key_width: channels of an attention head; 0 for 16.
        squeeze: squeeze-excitation keeps a quarter of the ``expanded`` channels (MobileNetV3) or of the block's
            ``input`` channels (EfficientNet).
    """

    width: Positive
    stride: Literal[1, 2, 4] = 1
    act: Activation = "relu"
    se: bool = False
    depths: Some[Positive] = (2, 3, 4)
    kernels: Some[OptionalKernel | tuple[OptionalKernel, OptionalKernel]] = (3, 5, 7)
    expands: Some[Bound] = (3, 4, 6)
    block: str = "mbconv"
    squeeze: Literal["expanded", "input"] = "expanded"
    widths: tuple[Positive, ...] = ()
    kinds: tuple[str, ...] = ()
    key_width: Annotated[int, Field(ge=0)] = 0


class ElasticDocument(Document):
    """The choices that a supernet gets around a base network. A key that is left out stays as the base has it.

    Attributes:
        depth: blocks per stage relative to the base: 0 keeps the base's depth, -1 also allows one block fewer.
        kernel: kernel sizes; each stage takes those up to its own.
        expand: expansion ratios; each stage takes those up to its own.
        width: channel multipliers, at most 1.
        resolution: input sizes in pixels, at most the base's.
    """

    depth: Some[Annotated[int, Field(le=0)]] | None = None
    kernel: Some[Literal[3, 5, 7]] | None = None
    expand: Some[Bound] | None = None
    width: Some[Annotated[float, Field(gt=0, le=1)]] | None = None
    resolution: Some[Annotated[int, Field(ge=16, le=1024)]] | None = None


class SpaceDocument(Document):
    """A search space: everything that one supernet contains.

    Attributes:
        name: name of the space.
        base: a preset or a YAML file to start from; the other keys replace its fields.
        elastic: choices around a base that is one network; see ``ElasticDocument``.
        stages: the stages, from the image to the head.
        resolutions: input sizes in pixels.
        widths: channel multipliers.
        in_channels: channels of the images.
        num_classes: classes of the classifier.
        stem_width: channels of the first convolution; 0 for none: the first stage then reads the images.
        stem_stride: stride of the first convolution.
        stem_act: activation of the first convolution.
        first_block: whether a fixed MBConv block (kernel 3, stride 1, no expansion) follows the stem.
        head_width: channels of the last 1×1 convolution before pooling; 0 for pooling alone.
        feature_width: width of the linear layer before the classifier; 0 for none.
        head_act: activation of the head.
        bn_eps: what batch norm adds to the variance.
        same_padding: whether convolutions are padded as TensorFlow's ``SAME`` is, and not by half of their kernels.
    """

    name: str
    base: str | None = None
    elastic: ElasticDocument | None = None
    stages: Some[StageDocument] | None = None
    resolutions: Some[Annotated[int, Field(ge=16, le=1024)]] | None = None
    widths: Some[Annotated[float, Field(gt=0)]] | None = None
    in_channels: Positive | None = None
    num_classes: Positive | None = None
    stem_width: Annotated[int, Field(ge=0)] | None = None
    stem_stride: Literal[1, 2] | None = None
    stem_act: Activation | None = None
    first_block: bool | None = None
    head_width: Annotated[int, Field(ge=0)] | None = None
    feature_width: Annotated[int, Field(ge=0)] | None = None
    head_act: Activation | None = None
    bn_eps: Annotated[float, Field(gt=0, lt=1)] | None = None
    same_padding: bool | None = None


class Normalisation(Document):
    """Mean and standard deviation of every channel, for pixels scaled to 0…1.

    Attributes:
        mean: one number for each channel.
        std: one number for each channel.
    """

    mean: Some[float]
    std: Some[Bound]


class DataConfig(Document):
    """Images: which data set, where it is, how it is split, read and augmented.

    Attributes:
        name: the data set; ``image_folder`` and ``npz`` are for your own images.
        root: where the data set is. An ``image_folder`` has ``train/CLASS/…`` and, if there is one, ``test/CLASS/…``
            or ``val/CLASS/…``; or just ``CLASS/…``. An ``npz`` is a file with the arrays ``images`` (uint8, NHW or
            NHWC) and ``labels``.
        valid: images held out of the training split, as a number or a share. Subnets are compared on them.
        test: the share held out as test images where an ``image_folder`` or ``npz`` has none, class by class.
        augment: random augmentations of the training images, applied in a fixed order.
        normalise: ``measured`` uses the mean and standard deviation of the training images, ``imagenet`` the published
            ones; or give ``mean`` and ``std``.
        channels: channels of an ``image_folder``: 1 for grey, 3 for RGB, 4 for RGBA.
        size: side in pixels of the crops taken from an ``image_folder``; smaller resolutions shrink them.
        resize: shorter side of an ``image_folder``'s image before its centre is cropped; default: ``size``.
        workers: processes that read an ``image_folder``; ``auto`` is one for each core but one.
        licence: of the images, as SPDX names it, if it allows redistribution; bundles then carry a few test images.
        corrupt_limit: how many unreadable images (a number or a share) are skipped, with a message, before an error.
    """

    name: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder", "npz"]
    root: Path | None = None
    valid: Positive | Share = 5000
    test: Share = 0.2
    augment: tuple[Augmentation, ...] = ()
    normalise: Literal["measured", "imagenet"] | Normalisation = "measured"
    channels: Literal[1, 3, 4] = 3
    size: Positive = 224
    resize: Positive | None = None
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = "auto"
    licence: Annotated[str, Field(min_length=2, max_length=64)] | None = None
    corrupt_limit: Annotated[int, Field(ge=0)] | Share = 10


Proxy = Literal["synflow", "grad_norm", "fisher", "naswot"]


class AccuracyConfig(Document):
    """How the accuracy predictor is fitted and tested.

    Attributes:
        subnets: subnets evaluated at most, the held-out ones included; evaluation stops earlier when more do not help.
        heldout: subnets that test the predictor and take no part in fitting it.
        round: subnets evaluated between two fits of the predictor; the first round has twice as many.
        recalibration_images: training images for the batch-norm statistics of each subnet.
        images: held-out images used at most; half to fit on, half for the second look.
        min_proxy: skips candidates that score low on a zero-cost proxy, by name: the share of random subnets that must
            score less.
    """

    subnets: Annotated[int, Field(ge=8)] = 60
    heldout: Annotated[int, Field(ge=3)] = 15
    round: Positive = 32
    recalibration_images: Positive = 1024
    images: Positive = 5000
    min_proxy: dict[Proxy, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _enough_to_fit(self) -> AccuracyConfig:
        if self.subnets - self.heldout < 5:
            raise ValueError(f"subnets: {self.subnets} leave fewer than 5 to fit on beside {self.heldout} heldout ones")
        return self


class PhaseConfig(Document):
    """One phase of the progressive schedule. Lists have an entry for each sub-phase; the last entry serves all others.

    Attributes:
        share: the phase's part of the recipe's epochs, relative to the shares of the other phases.
        lr: peak learning rate, as a multiple of the recipe's ``lr``.
        subnets: random subnets trained in each step.
    """

    share: Some[Bound]
    lr: Some[Bound]
    subnets: Positive = 1


# the epochs and learning rates with which once-for-all's authors trained theirs (their train_ofa_net.py; ICLR 2020, §4)
_PUBLISHED_PHASES: Final[dict[str, dict[str, Any]]] = {
    "largest": {"share": (180,), "lr": (1.0,)},
    "kernel": {"share": (125,), "lr": (0.37,)},
    "depth": {"share": (25, 125), "lr": (0.03, 0.09), "subnets": 2},
    "expand": {"share": (25, 125), "lr": (0.03, 0.09), "subnets": 4},
    "width": {"share": (25, 125), "lr": (0.03, 0.09), "subnets": 4},
}


class ProgressiveConfig(Document):
    """The phases of ``schedule: progressive``, in order. What you leave out is as once-for-all published it.

    Attributes:
        largest: trains the largest subnet alone.
        kernel: adds smaller kernels.
        depth: adds smaller depths.
        expand: adds smaller expansion ratios.
        width: adds smaller widths.
        distill_ratio: weight of the teacher's soft labels, where the true labels weigh 1.
    """

    largest: PhaseConfig
    kernel: PhaseConfig
    depth: PhaseConfig
    expand: PhaseConfig
    width: PhaseConfig
    distill_ratio: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Fill in what is published, phase by phase."""
        if not isinstance(given, dict):
            return given
        partial = {name: given.get(name, {}) for name in _PUBLISHED_PHASES}
        filled = {n: {**_PUBLISHED_PHASES[n], **phase} for n, phase in partial.items() if isinstance(phase, dict)}
        return {**given, **filled}


class TrainRecipe(Document):
    """A recipe for ``train-supernet -c FILE``.

    Attributes:
        name: names the supernet in the workspace.
        space: the search space: a preset's name, or keys as in "A search space".
        init: a supernet's file; the largest subnet starts from the weights of the file's largest subnet.
        teacher: a supernet's file whose largest subnet, frozen, teaches from the first step; needs
            ``schedule: progressive``.
        data: the images.
        epochs: passes over the training images.
        batch_size: images per step, over all processes together.
        lr: peak learning rate of SGD with Nesterov momentum.
        warmup_epochs: epochs over which the learning rate rises to its peak.
        momentum: of SGD.
        weight_decay: of SGD.
        label_smoothing: probability spread over the other classes.
        random_subnets: random subnets trained in each step, beside the largest and the smallest.
        largest_epochs: epochs that train the largest subnet alone at the start; its channels are then sorted by
            importance.
        schedule: ``sandwich`` trains the largest, the smallest and random subnets in each step; ``progressive`` is
            once-for-all's sequence of phases.
        progressive: the phases of ``schedule: progressive``.
        distill: loss between student and teacher: ``kl``, or AlphaNet's α-divergence (``alpha``).
        alpha: the two values of α; the worse of the two counts.
        alpha_clip: bound on the importance ratios of the α-divergence.
        clip_norm: bound on the norm of a step's whole gradient.
        ema: decay of the averaged weights, which are the ones that are evaluated and kept; 0 for none.
        evaluate_every: epochs between evaluations of the largest and the smallest subnet; 0 for none.
        patience: epochs without improvement after which training ends early; 0 for never.
        device: ``auto`` takes a GPU if there is one.
        precision: of the layers in training; weights and evaluations stay fp32.
        compile: uses ``torch.compile``; resumed runs then agree only up to rounding.
        seed: of everything that is random.
        threads: CPU threads, also of evaluations; default: all cores.
        parallel_subnets: subnets of a step that are computed at the same time, each by ``threads`` threads; for images
            so small that more threads of one subnet only wait. On one CPU machine and in one process only; it does not
            change the weights.
        checkpoint_seconds: seconds between checkpoints.
        accuracy: the accuracy predictor.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    space: str | dict[str, Any]
    init: Path | None = None
    teacher: Path | None = None
    data: DataConfig
    epochs: Positive
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.5
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 4e-5
    label_smoothing: Fraction = 0.1
    random_subnets: Annotated[int, Field(ge=0)] = 2
    largest_epochs: Annotated[float, Field(ge=0)] = 0
    schedule: Literal["sandwich", "progressive"] = "sandwich"
    progressive: ProgressiveConfig = ProgressiveConfig.model_validate({})
    distill: Literal["kl", "alpha"] = "kl"
    alpha: tuple[Annotated[float, Field(lt=0)], Bound] = (-1.0, 1.0)
    alpha_clip: Annotated[float, Field(gt=1)] = 5.0
    clip_norm: Bound | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Positive | None = None
    parallel_subnets: Positive = 1
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30
    accuracy: AccuracyConfig = AccuracyConfig()

    @model_validator(mode="after")
    def _fits(self) -> TrainRecipe:
        if self.patience and not self.evaluate_every:
            raise ValueError("patience needs evaluate_every: 1 or more, the epochs between two evaluations")
        if self.parallel_subnets > 1 and (self.compile or self.precision != "fp32"):
            raise ValueError("parallel_subnets needs precision: fp32, without compile")
        if self.teacher and self.schedule != "progressive":
            raise ValueError("teacher needs schedule: progressive; in a sandwich the largest subnet teaches")
        return self


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
    faults: dict[str, Literal["failed", "out-of-memory", "hang", "crash"]] = {}
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
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    batch: Positive = 1
    threads: Positive = 1
    opset: Annotated[int, Field(ge=11, le=21)] = 17
    forbidden_ops: tuple[str, ...] = ()
    loopback: bool = False
    allowed_ops: tuple[str, ...] = ()
    allowed_types: tuple[str, ...] = ()
    facts: dict[str, Fact] = {}
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


DocumentT = TypeVar("DocumentT", bound=Document)


def read_document(
    model: type[DocumentT],
    source: str | Path | Mapping[str, Any],
    edit: Callable[[dict[str, Any]], dict[str, Any]] = lambda data: data,
) -> DocumentT:
    """Validate a YAML file, or a mapping that was read already, as one of the models above.

    Args:
        edit: what is done to the content first; keys stay where they are.

    Raises:
        UsageError: the file is missing or not YAML, or a key is unknown or has a wrong value; names file, line, key.
    """
    if isinstance(source, Mapping):
        where, data, lines = model.__name__, dict(source), {}
    else:
        where, data, lines = str(source), *_read_yaml(Path(source))
    try:
        return model.model_validate(edit(data))
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        known = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
        at = f"{where}:{known}" if known else where
        known_types = {"extra_forbidden": "unknown key", "too_short": "the list is empty; give at least one value"}
        what = known_types.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise UsageError(f"{at}: {'.'.join(path) or 'document'}: {what}") from error


def find_file(name: str | Path, folder: str) -> Path:
    """A file where you stand, in ``folder`` there, or among those that ship with the package.

    Raises:
        UsageError: it is in none of them; lists what ships.
    """
    shipped = shipped_folder(folder)
    for candidate in (Path(name), Path(folder) / name, shipped / name, shipped / Path(name).name):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.name for path in shipped.glob("*.yaml")))
    raise UsageError(f"there is no file {name} here or in {shipped}; shipped {folder}: {known}")


def shipped_folder(folder: str) -> Path:
    """Where ``profiles``, ``pipelines`` or ``supernets`` lie: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "data" / folder
    return installed if installed.is_dir() else package.parent / folder


def line_of(source: str | Path | Mapping[str, Any], *key: str) -> str:
    """``FILE:LINE`` of a key of a document that was read; of a mapping that was no file, nothing."""
    return "" if isinstance(source, Mapping) else f"{source}:{_read_yaml(Path(source))[1][key]}"


def key_lines(path: Path) -> dict[tuple[str, ...], int]:
    """The line of every key of a YAML file.

    Raises:
        UsageError: the file is missing or not YAML.
    """
    return _read_yaml(path)[1]


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """A YAML file's mapping, and the line of every key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}") from error
    try:
        tree, data = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: a mapping of keys to values is expected")
    return data, dict(_key_lines(tree, ()))


def _key_lines(node: yaml.Node | None, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], int]]:
    found: list[tuple[tuple[str, ...], int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            found += [(here, key.start_mark.line + 1), *_key_lines(value, here)]
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            here = (*path, str(i))
            found += [(here, item.start_mark.line + 1), *_key_lines(item, here)]
    return found
