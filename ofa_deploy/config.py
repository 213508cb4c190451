"""The YAML documents as pydantic models; an unknown key is an error that names the file and the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ofa_deploy.errors import UsageError

Activation = Literal["relu", "relu6", "hswish", "silu"]
OptionalKernel = Literal[0, 3, 5, 7]
Positive = Annotated[int, Field(gt=0)]
Bound = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
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
    """One stage of a space; see ``space.StageSpec``."""

    width: Positive
    stride: Literal[1, 2] = 1
    act: Activation = "relu"
    se: bool = False
    depths: tuple[Positive, ...] = (2, 3, 4)
    kernels: tuple[Literal[3, 5, 7] | tuple[OptionalKernel, OptionalKernel], ...] = (3, 5, 7)
    expands: tuple[Annotated[float, Field(ge=1)], ...] = (3, 4, 6)
    block: Literal["mbconv", "uib"] = "mbconv"
    squeeze: Literal["expanded", "input"] = "expanded"


class ElasticDocument(Document):
    """Choices up to those of a base; ``space.make_elastic`` says what they mean."""

    depth: tuple[Annotated[int, Field(le=0)], ...] | None = None
    kernel: tuple[Literal[3, 5, 7], ...] | None = None
    expand: tuple[Annotated[float, Field(ge=1)], ...] | None = None
    width: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None
    resolution: tuple[Annotated[int, Field(ge=16, le=1024)], ...] | None = None


class SpaceDocument(Document):
    """A search space; ``base`` names a preset or a file whose fields it starts from, ``elastic`` gives it choices."""

    name: str
    base: str | None = None
    elastic: ElasticDocument | None = None
    stages: tuple[StageDocument, ...] | None = None
    resolutions: tuple[Annotated[int, Field(ge=16, le=1024)], ...] | None = None
    widths: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    in_channels: Positive | None = None
    num_classes: Positive | None = None
    stem_width: Positive | None = None
    stem_stride: Literal[1, 2] | None = None
    stem_act: Activation | None = None
    first_block: bool | None = None
    head_width: Positive | None = None
    feature_width: Annotated[int, Field(ge=0)] | None = None
    head_act: Activation | None = None
    bn_eps: Annotated[float, Field(gt=0, lt=1)] | None = None


class Normalisation(Document):
    """Mean and standard deviation of every channel, of pixels scaled to 0…1."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[Bound, ...], Field(min_length=1)]


class DataConfig(Document):
    """Images: which data set, where, and how they are split, read and varied.

    Attributes:
        root: where it lies; an ``image_folder``'s has ``train/CLASS/…`` and, where published, ``test/CLASS/…`` (or
            ``val``), or just ``CLASS/…``; an ``npz``'s is the file.
        valid: images held out of the training split, a number or a share: accuracies are estimated on them.
        test: the share held out as test images of an ``image_folder`` or ``npz`` without any.
        augment: how training images are varied; ``training/augmentation.py`` says what each word means.
        normalise: by what was ``measured`` on training images, by ``imagenet``'s published figures, or by those given.
        channels: of an ``image_folder``: grey, RGB, or RGBA.
        size: side of an ``image_folder``'s items in pixels; the other data sets have one size.
        resize: the shorter side of an ``image_folder``'s image before its centre is cropped to ``size``.
        workers: processes that read an ``image_folder``; ``auto``: one for each core but one.
        corrupt_limit: so many of an ``image_folder``'s images (a number or a share) may be unreadable.
    """

    name: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder", "npz"]
    root: Path | None = None
    valid: Positive | Share = 5000
    test: Share = 0.2
    augment: tuple[Augmentation, ...] = ()
    normalise: Literal["measured", "imagenet"] | Normalisation = "measured"
    channels: Literal[1, 3, 4] = 3
    size: Positive = 224
    resize: Positive | None = None  # default: size
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = "auto"
    corrupt_limit: Annotated[int, Field(ge=0)] | Share = 10


Proxy = Literal["synflow", "grad_norm", "fisher", "naswot"]


class AccuracyConfig(Document):
    """How many subnets are evaluated to fit and to test the accuracy predictor, and on how many images.

    Attributes:
        subnets: at most so many are evaluated; it ends sooner where more of them no longer help.
        heldout: so many of them test the predictor, and take no part in fitting.
        round: of the others, so many are evaluated before the predictor is fitted anew and asked which ones it would
            learn from; the first round has twice as many.
        recalibration_images: training images for the batch-norm statistics of a subnet.
        images: held-out images at most; half of them are for fitting, the others for a second look.
        min_proxy: zero-cost proxies that a subnet must pass before it is evaluated to fit on: by name, the share of
            random subnets that score less.
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
    """One phase of the progressive schedule; the lists have an entry for each sub-phase, the last one for all others.

    Attributes:
        share: of the recipe's epochs, in proportion to the shares of all (sub-)phases.
        lr: peak learning rate, as a multiple of the recipe's.
        subnets: random subnets of a step.
    """

    share: Annotated[tuple[Bound, ...], Field(min_length=1)]
    lr: Annotated[tuple[Bound, ...], Field(min_length=1)]
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
    """The phases of ``schedule: progressive``, in their order; what a phase leaves out is as published.

    Attributes:
        distill_ratio: weight of the teacher's soft labels, beside the true labels' 1.
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
    """``train-supernet -c FILE``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    space: str | dict[str, Any]
    init: Path | None = None  # a supernet's file: the largest subnet starts from its largest one's weights
    teacher: Path | None = None  # a supernet's file: its largest subnet, frozen, teaches from the first step on
    data: DataConfig
    epochs: Positive
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 0.1  # peak learning rate of SGD with Nesterov momentum
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.5
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 4e-5
    label_smoothing: Fraction = 0.1
    random_subnets: Annotated[int, Field(ge=0)] = 2
    largest_epochs: Annotated[float, Field(ge=0)] = 0  # the largest subnet alone at first, then its channels are sorted
    schedule: Literal["sandwich", "progressive"] = "sandwich"
    progressive: ProgressiveConfig = ProgressiveConfig.model_validate({})
    distill: Literal["kl", "alpha"] = "kl"  # how far a student is from its teacher; see training.distillation
    alpha: tuple[Annotated[float, Field(lt=0)], Bound] = (-1.0, 1.0)  # of the α-divergence: the worse of the two counts
    alpha_clip: Annotated[float, Field(gt=1)] = 5.0  # bound of its importance ratios
    clip_norm: Bound | None = None  # of a step's whole gradient
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the averaged weights that are evaluated; 0 for none
    evaluate_every: Annotated[int, Field(ge=0)] = 0  # epochs between evaluations of largest and smallest; 0 for none
    patience: Annotated[int, Field(ge=0)] = 0  # epochs without a better one until training ends early; 0 for never
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    precision: Literal["fp32", "bf16"] = "fp32"  # of the layers in training; weights and evaluations are fp32
    compile: bool = False  # by torch.compile: resumed runs then agree but for rounding
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Positive | None = None  # default: all cores
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30
    accuracy: AccuracyConfig = AccuracyConfig()

    @model_validator(mode="after")
    def _fits(self) -> TrainRecipe:
        if self.patience and not self.evaluate_every:
            raise ValueError("patience needs evaluate_every: 1 or more, the epochs between two evaluations")
        if self.teacher and self.schedule != "progressive":
            raise ValueError("teacher needs schedule: progressive; in a sandwich the largest subnet teaches")
        return self


class Fact(Document):
    """What is publicly known of a device, and where it is written."""

    value: str | float
    source: str


class Simulation(Document):
    """The figures of a simulated device; ``device_agents/runtimes/simulated.py`` says what is made of them.

    Attributes:
        gflops: peak by precision, two operations for each multiply-accumulate.
        dense_share, depthwise_share: of that peak, which large dense and depthwise convolutions reach.
        ramp_macs: a dense kernel of so many multiply-accumulates reaches half of its share.
        memory_gbs, memory_share: bandwidth of the memory in GB/s, and the share of it that is reached.
        cache_kb, cache_gbs: size of the cache in KiB, its bandwidth in GB/s.
        memory_mb: what a model and its activations may take, in MB.
        launch_us, call_us: overhead of a kernel, and of an inference.
        noise: relative standard deviation of a timing.
        spikes, spike: share of timings that take ``spike`` times as long.
        drift, drift_s: by which share a warm device is slower, and the seconds of work that warm it by two thirds.
        faults: by the beginning of a block's or network's key: what happens where it is loaded.
        real_time: whether it takes the time that it says.
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

    A runtime ``published`` is that of a device that is known from an imported table only, and never measured on;
    ``simulated`` that of a kind of device of which none is at hand.

    Attributes:
        opset, forbidden_ops: rules that its models obey.
        allowed_ops, allowed_types: the only ops, and types of tensors by ONNX's names, that its models may have; any
            where none are named.
        precision: in which it computes; see ``fp16_in_graph``.
        loopback: whether it is this machine: a command that measures it starts the agent by itself.
        facts: by name, each with its public source.
        simulation: figures that stand in for a device; None where it cannot be simulated.
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
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
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
