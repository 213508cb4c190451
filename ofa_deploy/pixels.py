"""Pre-processing, from the bytes of an image file to the tensor that a network takes: the one definition of it.

Training, evaluation and calibration import it, and every bundle's ``infer.py`` carries its source, so it needs NumPy
and Pillow alone. What it does is written in ``how``, a JSON object:

mode            ``L``, ``RGB`` or ``RGBA``: what the image is converted to, after its EXIF orientation is applied
shorter_side    the image is resized until its shorter side has so many pixels; null: it is not
crop            then the square of so many pixels in its centre is cut out; null: it is not
height, width   what is left is resized to the network's input, in floating point
mean, std       and normalised: ``(pixel / 255 - mean) / std``, for each channel

All resizing is Pillow's bilinear, which is antialiased where it shrinks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

BILINEAR = Image.Resampling.BILINEAR
LONGEST = 8  # shorter sides in a longer one; what is beyond is cut off first: resized, a line would fill the memory
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names, by the number of channels


def upright(image: Any, mode: str) -> np.ndarray:
    """An opened image as it is meant to be seen, ``uint8[h, w, C]``: turned as its EXIF data say, 8 bits a channel.

    Args:
        image: of Pillow. Grey levels of 16 bits are divided by 257; transparency is dropped, not blended.

    Raises:
        ValueError: its pixels are floating-point numbers, of no known range.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # ``convert`` would clip them instead
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 257).astype(np.uint8))
    pixels = np.array(image.convert(mode))
    return pixels.reshape(pixels.shape[0], pixels.shape[1], -1)


def framed(pixels: np.ndarray, shorter_side: int | None, crop: int) -> np.ndarray:
    """Resize an image by its shorter side and cut out its centre: ``uint8[h, w, C]`` to ``uint8[crop, crop, C]``.

    Sizes are rounded as torchvision's ``Resize`` and ``CenterCrop`` round them. Without a size nothing is done.
    """
    if shorter_side is None:
        return pixels
    height, width = pixels.shape[:2]
    pixels = _centre(pixels, min(height, LONGEST * width), min(width, LONGEST * height))
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = (shorter_side * width // short, shorter_side * height // short)
    if size != (width, height):
        pixels = np.dstack([np.asarray(part.resize(size, BILINEAR)) for part in _parts(pixels)])
    return _centre(pixels, crop, crop)


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image in the size of a network's input: ``uint8[h, w, C]`` to ``float32[height, width, C]``, 0 to 255."""
    values = pixels.astype(np.float32)
    if values.shape[:2] == (height, width):
        return values
    size = (width, height)
    channels = [
        Image.fromarray(np.ascontiguousarray(values[:, :, i])).resize(size, BILINEAR) for i in range(values.shape[2])
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


def normalised(values: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    """``float32[h, w, C]`` from 0 to 255 as a network takes it: ``float32[C, h, w]``."""
    centre, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return np.ascontiguousarray(((values / np.float32(255) - centre) / scale).transpose(2, 0, 1))


def network_input(pixels: np.ndarray, how: Any) -> np.ndarray:
    """An upright image, ``uint8[h, w, C]``, as a network takes it: ``float32[C, height, width]``."""
    frame = framed(pixels, how["shorter_side"], how["crop"])
    return normalised(resized(frame, how["height"], how["width"]), how["mean"], how["std"])


def read(file: Any, how: Any) -> np.ndarray:
    """An image file as a network takes it: ``float32[C, height, width]``.

    Args:
        file: a path, or an open binary file.
        how: what ``preprocessing.json`` holds.
    """
    with Image.open(file) as image:
        return network_input(upright(image, how["mode"]), how)


def _parts(pixels: np.ndarray) -> list[Any]:
    """Pillow's images of the channels: RGB in one, others each alone, so that transparency does not weigh colours."""
    if pixels.shape[2] == 3:
        return [Image.fromarray(pixels)]
    return [Image.fromarray(np.ascontiguousarray(pixels[:, :, i])) for i in range(pixels.shape[2])]


def _centre(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The centre of an image, with black around it where it is too small."""
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    if top < 0 or left < 0:
        around = [(max(0, -top), height), (max(0, -left), width), (0, 0)]
        pixels = np.pad(pixels, around)
        top, left = max(0, top), max(0, left)
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
