"""Running an exported file in ONNX Runtime, and comparing it with the torch module that it was written from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import nn

from device_agents.runtimes.openvino import the_core
from ofa_deploy.config import TargetProfile
from ofa_deploy.documents.report_document import Parity
from ofa_deploy.errors import OfaDeployError, UsageError

TORCH_BATCH = 64  # images at once: bounds memory
ERRORS_ONLY = 3  # ONNX Runtime's log level
Runner = Literal["onnxruntime", "openvino"]  # packages that run a file here


def run_onnx(model: bytes | Path, batches: Iterable[np.ndarray], threads: int = 1) -> np.ndarray:
    """What an ONNX file answers in ONNX Runtime on this machine's CPU.

    Args:
        model: the file or its content; one input, one output, any fixed or free batch size.
        batches: images ``float32[n, channels, height, width]``; a graph of batch b gets them b at a time, the last
            chunk padded.
        threads: within an op.

    Returns:
        ``float32[N, classes]``, in the order of the images.

    Raises:
        UsageError: ONNX Runtime cannot load the file, or the images do not have the shape that it takes.
    """
    session = _session(model, threads)
    wanted = session.get_inputs()[0]
    size = wanted.shape[0] if isinstance(wanted.shape[0], int) else None
    answers = []
    for images in batches:
        if list(images.shape[1:]) != wanted.shape[1:]:
            raise UsageError(f"the model takes images of shape {wanted.shape[1:]}, not {list(images.shape[1:])}")
        parts = [session.run(None, {wanted.name: chunk})[0] for chunk in _chunks(images, size)]
        answers += [np.concatenate(parts)[: len(images)]] if parts else []
    classes = session.get_outputs()[0].shape[1:]
    return np.concatenate(answers) if answers else np.empty((0, *classes), np.float32)


def run_openvino(model: bytes, batches: Iterable[np.ndarray]) -> np.ndarray:
    """What an ONNX file of a fixed batch size answers in OpenVINO on this machine's CPU; else as ``run_onnx``."""
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    core = the_core(openvino)
    compiled = core.compile_model(core.read_model(model), "CPU", exact)
    size = compiled.inputs[0].get_partial_shape()[0].get_length()
    answers = [
        np.concatenate([compiled({"input": chunk})[0] for chunk in _chunks(images, size)])[: len(images)]
        for images in batches
    ]
    return np.concatenate(answers)


def runner(target: TargetProfile) -> tuple[Runner, Callable[[bytes, Iterable[np.ndarray]], np.ndarray]]:
    """The name of what answers for a target's runtime on this machine, and how: the runtime itself where it is
    OpenVINO and installed, else ONNX Runtime."""
    if target.runtime == "openvino" and find_spec("openvino"):
        return "openvino", run_openvino
    return "onnxruntime", run_onnx


def _session(model: bytes | Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = ERRORS_ONLY
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but this
        name = "the model" if isinstance(model, bytes) else str(model)
        raise UsageError(f"ONNX Runtime cannot load {name}: {' '.join(str(error).split())}") from error


def _chunks(images: np.ndarray, size: int | None) -> Iterator[np.ndarray]:
    """Images ``size`` at a time; the last chunk is filled up with zeros."""
    step = size or max(len(images), 1)
    for start in range(0, len(images), step):
        chunk = np.asarray(images[start : start + step], dtype=np.float32)
        missing = step - len(chunk)
        yield np.pad(chunk, [(0, missing), *[(0, 0)] * (chunk.ndim - 1)]) if missing else chunk


class Checked(NamedTuple):
    """An exported file's logits beside those of the torch module, ``float32[N, classes]`` each."""

    figures: Parity
    torch: np.ndarray
    onnx: np.ndarray

    @property
    def max_abs(self) -> float:
        """The largest absolute difference."""
        return _max_abs(self.torch, self.onnx)


def parity(
    subnet: nn.Module,
    model: bytes,
    images: np.ndarray,
    run: Callable[[bytes, Iterable[np.ndarray]], np.ndarray] = run_onnx,
) -> Checked:
    """How far an exported file's logits are from those of the torch module.

    Args:
        subnet: in any mode; it is run in eval mode and left as it was.
        images: ``float32[N, channels, height, width]``.

    Raises:
        OfaDeployError: a logit is NaN or infinite.
    """
    logits = {"torch": run_torch(subnet, images), "onnx": run(model, [images])}
    for name, values in logits.items():
        if not np.isfinite(values).all():
            raise OfaDeployError(f"the subnet's logits in {name} are not finite; recalibrate or train it again")
    return Checked(compare(logits["torch"], logits["onnx"]), **logits)


def compare(one: np.ndarray, other: np.ndarray) -> Parity:
    """How far two sets of logits ``[N, classes]`` are apart; ``psnr_db`` is None where they are not."""
    rms = float(np.sqrt(np.mean(np.square(one.astype(np.float64) - other))))
    return Parity(
        max_abs=_max_abs(one, other),
        psnr_db=20 * float(np.log10(np.ptp(one) / rms)) if rms else None,
        top1_agreement=float((one.argmax(1) == other.argmax(1)).mean()),
        n=len(one),
    )


def _max_abs(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def run_torch(subnet: nn.Module, images: np.ndarray) -> np.ndarray:
    """What a torch module answers in eval mode, in which it is not left: logits ``float32[N, classes]``."""
    training = subnet.training
    subnet.eval()
    try:
        with torch.inference_mode():
            parts = [subnet(part) for part in torch.from_numpy(images).split(TORCH_BATCH)]
        return torch.cat(parts).float().cpu().numpy()
    finally:
        subnet.train(training)
