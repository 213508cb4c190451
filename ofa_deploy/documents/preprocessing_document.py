"""``preprocessing.json``: from the bytes of an image file to what the network takes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict  # pydantic cannot take that of Python 3.11

from ofa_deploy.documents.json_document import Document, Number, Whole, Words

Pixels = Annotated[int, Field(ge=1)]


class Framing(TypedDict):
    """What ``pixels`` does to an image: ``how`` there. JSON, since that module travels without this project.

    Attributes:
        mode: how the image is decoded: ``L``, ``RGB`` or ``RGBA``; a number of channels that no file has.
        shorter_side: pixels that the shorter side is resized to; None for images that have one size.
        crop: side of the square that is cut out of the centre, in pixels.
        height, width: of the input tensor, in pixels.
        mean, std: per channel, of values from 0 to 1.
    """

    mode: str
    shorter_side: Pixels | None
    crop: Pixels | None
    height: Pixels
    width: Pixels
    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0)]]


class Embedded(Document):
    """What the model file takes that has the pre-processing inside, NHWC.

    Attributes:
        height, width: pixels; None where any size is taken.
        left_to_the_program: steps that are not inside.
    """

    model: Words | None = None
    input: Words | None = None
    type: Words | None = None
    layout: Words | None = None
    batch: Whole | None = None
    range: list[Number] = []
    mode: Words | None = None
    height: Whole | None = None
    width: Whole | None = None
    left_to_the_program: list[Words] = []


class Preprocessing(Document):
    """What a program needs to feed ``model.onnx``.

    Attributes:
        range: pixels are scaled to it, and normalised by ``normalised_by``; see ``Framing`` for the other steps.
        steps: all of it in words, in order.
    """

    version: Whole | None = Field(default=None, alias="schema")
    model: Words | None = None
    input: Words | None = None
    type: Words | None = None
    layout: Words | None = None
    batch: Whole | None = None
    range: list[Number] = []
    normalised_by: Words | None = None
    mode: Words | None = None
    shorter_side: Whole | None = None
    crop: Whole | None = None
    height: Whole | None = None
    width: Whole | None = None
    mean: list[Number] = []
    std: list[Number] = []
    steps: list[Words] = []
    embedded: Embedded | None = None
