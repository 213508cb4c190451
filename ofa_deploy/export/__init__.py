"""A target's artefacts and their proof: running what was exported, parity with torch, bundles that verify offline."""

from ofa_deploy.export.answers import repeat_answers
from ofa_deploy.export.bundle import changed_files, verify_bundle, write_bundle
from ofa_deploy.export.preprocessing import described, embed, preprocessing
from ofa_deploy.export.provenance import PROVENANCE, git_commit, statement
from ofa_deploy.export.runtime import parity, run_onnx, runner
from ofa_deploy.export.smoke import noise_image, smoke_run
from ofa_deploy.export.standalone import program
from ofa_deploy.export.tensorrt_files import tensorrt_files

__all__ = [
    "PROVENANCE",
    "changed_files",
    "described",
    "embed",
    "git_commit",
    "noise_image",
    "parity",
    "preprocessing",
    "program",
    "repeat_answers",
    "run_onnx",
    "runner",
    "smoke_run",
    "statement",
    "tensorrt_files",
    "verify_bundle",
    "write_bundle",
]
