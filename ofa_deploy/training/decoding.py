"""One image file becomes bytes; whatever is wrong with it becomes one line."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ofa_deploy.errors import UsageError
from ofa_deploy.pixels import MODES, upright


def decode(path: Path, channels: int) -> np.ndarray:
    """The first picture of an image file as ``pixels.upright`` gives it, ``uint8[h, w, channels]``.

    Raises:
        UsageError: the file cannot be read, is damaged, or is larger than Pillow thinks safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which nobody could act on
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return upright(image, MODES[channels])
    except Exception as error:  # the decoders of damaged files raise nearly anything
        raise UsageError(f"cannot read {path} as an image ({_reason(path, error)}); remove or replace it") from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known image format" if path.stat().st_size else "the file is empty"
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())[:120]
