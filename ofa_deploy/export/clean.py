"""Running what was exported in a process that has its runtime and nothing of ours: neither this package nor torch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ofa_deploy.errors import GateFailed

ALONE = "import sys\nfor name in ('torch', 'torchvision', 'ofa_deploy', 'device_agents'): sys.modules[name] = None\n"
LOAD = {
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
run = lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]
shape, version = session.get_inputs()[0].shape, onnxruntime.__version__
""",
    "openvino": """
import openvino
how = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
model = openvino.Core().compile_model(sys.argv[1], "CPU", how)
run = lambda images: model([images])[0]
shape, version = list(model.input(0).shape), openvino.__version__
""",
}
SERVE = """
import json
import numpy as np
source, sink = sys.stdin.buffer, sys.stdout.buffer
sink.write(version.encode() + b"\\n")
sink.flush()
for line in source:
    dims = json.loads(line)
    images = np.frombuffer(source.read(4 * int(np.prod(dims))), np.float32).reshape(dims)
    step = shape[0] if isinstance(shape[0], int) else len(images)
    parts = []
    for start in range(0, len(images), step):
        chunk = images[start:start + step]
        missing = step - len(chunk)
        parts.append(run(np.pad(chunk, [(0, missing)] + [(0, 0)] * (chunk.ndim - 1)))[:len(chunk)])
    answer = np.ascontiguousarray(np.concatenate(parts), np.float32)
    sink.write(json.dumps(answer.shape).encode() + b"\\n" + answer.tobytes())
    sink.flush()
"""
SMOKE_S = 120.0  # in which a program answers, on the slowest machine
STAND_IN = "onnxruntime"  # for runtimes that do not run here


def runtime_here(runtime: str) -> str:
    """The runtime that stands for a target's on this machine: its own where that runs on any CPU."""
    return runtime if runtime in LOAD else STAND_IN


class CleanRuntime:
    """A model in a process of its own. Calling it maps ``float32[N, …]`` to logits; a context manager.

    Attributes:
        version: of the runtime, with its name.

    Raises:
        GateFailed: the runtime cannot load or run the model; with its last words.
    """

    def __init__(self, model: bytes, runtime: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "model.onnx"
        file.write_bytes(model)
        self._log = (Path(self._folder.name) / "stderr").open("w+b")
        command = [sys.executable, "-I", "-c", ALONE + LOAD[runtime] + SERVE, str(file)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log)
        self._in, self._out = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        version = self._out.readline().decode().strip()
        if not version:
            raise self._dead()
        self.version = f"{runtime} {version}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The logits of some images."""
        try:
            content = np.ascontiguousarray(images, np.float32).tobytes()
            self._in.write(json.dumps(images.shape).encode() + b"\n" + content)
            self._in.flush()
            dims = json.loads(self._out.readline())
            return np.frombuffer(self._out.read(4 * math.prod(dims)), np.float32).reshape(dims)
        except (OSError, ValueError) as error:
            raise self._dead() from error

    def _dead(self) -> GateFailed:
        self._process.wait()
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        self.__exit__()
        return GateFailed(f"the exported model does not run in a clean process: {words[-1] if words else 'no message'}")

    def __enter__(self) -> CleanRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()
        self._folder.cleanup()


def smoke(files: Mapping[str, bytes], image: np.ndarray) -> dict[str, Any]:
    """Run a bundle's ``infer.py`` on one image, in a folder that has the files that it needs and nothing else.

    Args:
        image: bytes ``[C, H, W]``.

    Returns:
        ``label`` and ``share``: the class that it printed, and its probability.

    Raises:
        GateFailed: it does not end well in two minutes; with its last words.
    """
    from PIL import Image

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("model.onnx", "infer.py", "labels.json", "preprocessing.json"):
            (folder / file).write_bytes(files[file])
        pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
        Image.fromarray(pixels).save(folder / "image.png")
        program = ALONE + "import runpy\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
        command = [sys.executable, "-I", "-c", program, "infer.py", "image.png"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SMOKE_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise GateFailed(f"infer.py gives no answer in {SMOKE_S:g} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines or not lines[-1].startswith("image.png: "):
        words = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise GateFailed(f"infer.py does not run where only the runtime is: {words}")
    label, share = lines[-1].removeprefix("image.png: ").rsplit(" ", 1)
    return {"label": label, "share": float(share)}
