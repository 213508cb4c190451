"""A target's artefacts and their proof: running what was exported, parity with torch, bundles that verify offline."""

from ofa_deploy.export.bundle import verify_bundle, write_bundle
from ofa_deploy.export.runtime import parity, run_onnx
from ofa_deploy.export.tensorrt import tensorrt_files

__all__ = ["parity", "run_onnx", "tensorrt_files", "verify_bundle", "write_bundle"]
