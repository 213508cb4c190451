"""Import torchvision also where its compiled operators do not load, as when torch is a CPU-only build.

Then ``import torchvision`` fails with "operator torchvision::nms does not exist", because it registers fake kernels for
two operators whose schemas the compiled part would have defined. Data sets and transforms need neither.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_defined: list[torch.library.Library] = []  # a schema lives as long as its library object


def torchvision_module(name: str) -> ModuleType:
    """``torchvision.<name>``, with the missing schemas defined where the first import fails for want of them."""
    try:
        return importlib.import_module(f"torchvision.{name}")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _defined.append(library)
        return importlib.import_module(f"torchvision.{name}")
