"""What a TensorRT bundle carries beside its ONNX file: how its engine is built; for RTX GPUs, the engine itself.

A TensorRT engine fits the TensorRT and the GPU that it was built with, and executes what it holds: it is built on the
device, by its agent or by the recipe's command. TensorRT-RTX's builder compiles for desktop GPUs on any machine.
"""

from __future__ import annotations

import hashlib
import importlib
import json

import onnx

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.tensorrt import build_plan, make_log
from device_agents.runtimes.trtexec import WORKSPACE_MIB, build_flags
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.latency.condition import StoredCondition

RECIPE, RTX_ENGINE = "tensorrt.json", "model.rtx.engine"
VERSIONS = ((8, 2), (8, 4), (8, 6), (10, 0), (11, 0))  # from each of these on, the flags are others, or stay
RTX = "TensorRT-RTX"
CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")
TURING = "SM75"  # for which it compiles no fp32 matrix product


def tensorrt_files(target: TargetProfile, model: bytes, condition: StoredCondition) -> dict[str, bytes]:
    """Of a target that runs TensorRT: the build recipe, and for TensorRT-RTX the engine; nothing for other targets.

    Args:
        condition: under which the model was measured.

    Raises:
        OfaDeployError: TensorRT-RTX is installed, and cannot compile the model.
    """
    if target.provider not in ("TensorRT", RTX):
        return {}
    engine = rtx_engine(model, target.precision) if target.provider == RTX else None
    recipe = build_recipe(target, model, condition) | {"engine": RTX_ENGINE if engine else None}
    files = {RECIPE: (json.dumps(recipe, indent=1, sort_keys=True) + "\n").encode()}
    return files | ({RTX_ENGINE: engine} if engine else {})


def build_recipe(target: TargetProfile, model: bytes, condition: StoredCondition) -> dict[str, object]:
    """How the agent builds the engine of an ONNX file, and how to do it by hand, by TensorRT's version.

    Returns:
        ``onnx`` (``file``, ``sha256``, ``opset``), ``precision``, ``workspace_mib``, ``tensorrt`` (the version that the
        model was measured with on the target, None where that was simulated), and by the version from which they hold
        ``flags`` and ``commands``.
    """
    opset = next(entry.version for entry in onnx.load_from_string(model).opset_import if entry.domain == "")
    flags = {".".join(map(str, version)): build_flags(version, target.precision) for version in VERSIONS}
    return {
        "onnx": {"file": "model.onnx", "sha256": hashlib.sha256(model).hexdigest(), "opset": opset},
        "target": target.name,
        "precision": target.precision,
        "workspace_mib": WORKSPACE_MIB,
        "tensorrt": None if condition["simulated"] else condition["runtime_version"],
        "rules": {
            "opset": target.opset,
            "forbidden_ops": list(target.forbidden_ops),
            "checked_for": target.description,
        },
        "flags": flags,
        "commands": {
            since: " ".join(["trtexec --onnx=model.onnx --saveEngine=model.engine", *these])
            for since, these in flags.items()
        },
    }


def rtx_engine(model: bytes, precision: str) -> bytes | None:
    """One engine for desktop GPUs of several compute capabilities, compiled here without a GPU.

    Returns:
        None where TensorRT-RTX is not installed.

    Raises:
        OfaDeployError: it cannot read or compile the model; in its own words.
    """
    try:
        rtx = importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError):
        return None
    try:
        names = CAPABILITIES if precision == "fp32" else (TURING, *CAPABILITIES)
        kinds = [getattr(rtx.ComputeCapability, name) for name in names]
        return bytes(build_plan(rtx, make_log(rtx), model, precision, *kinds))
    except RuntimeRefused as error:
        raise OfaDeployError(f"TensorRT-RTX {rtx.__version__} compiles no engine: {error}") from error
