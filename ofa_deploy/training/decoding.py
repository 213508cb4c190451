"""One image file becomes bytes; whatever is wrong with it becomes one line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ofa_deploy.errors import UsageError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode(path: Path, channels: int) -> np.ndarray:
    """The first picture of an image file, ``uint8[h, w, channels]``.

    Sixteen bits a pixel are scaled down to eight; fewer channels are spread, more are merged, as Pillow converts them.

    Raises:
        UsageError: the file cannot be read, is damaged, or is larger than Pillow thinks safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which nobody could act on
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = np.array(_eight_bits(image).convert(_MODES[channels]))
    except Exception as error:  # the decoders of damaged files raise nearly anything
        raise UsageError(f"{path} is no readable image ({_reason(path, error)}); remove or replace it") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _eight_bits(image: Any) -> Any:
    """A grey image of 16 bits with 8, which ``convert`` would saturate instead; any other as it is."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 257).astype(np.uint8))


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known image format" if path.stat().st_size else "the file is empty"
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())[:120]
