"""The documents of a search space: its stages, and the choices around a base network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ofa_deploy.config.yaml_document import Bound, Document, Positive, Some

Activation = Literal["relu", "relu6", "hswish", "silu", "gelu"]
OptionalKernel = Literal[0, 3, 5, 7]


class StageDocument(Document):
    """One stage of a space: a run of blocks of equal width.

    Attributes:
        width: output channels at width multiplier 1.0.
        widths: channels that the stage may have instead; ``width`` must be the largest of them. By default there is no
            choice.
        kinds: kinds that all blocks of the stage may have instead; ``block`` must be one of them. By default there is
            no choice.
        stride: of the stage's first block.
        act: activation inside the blocks.
        se: whether the blocks have squeeze-excitation.
        depths: how many blocks the stage may have.
        kernels: kernel sizes a block may have; for ``uib`` blocks pairs ``[before, after]``, 0 for no convolution.
        expands: expansion ratios a block may have.
        block: kind of the blocks; see "Kinds of blocks".
        key_width: channels of an attention head; 0 for 16.
        heads: numbers of attention heads that a block may have. By default the kind of block gives the number.
        key_widths: channels of a head that a block may have, beside ``heads`` and instead of ``key_width``.
        squeeze: squeeze-excitation keeps a quarter of the ``expanded`` channels (MobileNetV3) or of the block's
            ``input`` channels (EfficientNet).
    """

    width: Positive
    stride: Literal[1, 2, 4] = 1
    act: Activation = "relu"
    se: bool = False
    depths: Some[Positive] = (2, 3, 4)
    kernels: Some[OptionalKernel | tuple[OptionalKernel, OptionalKernel]] = (3, 5, 7)
    expands: Some[Bound] = (3, 4, 6)
    block: str = "mbconv"
    squeeze: Literal["expanded", "input"] = "expanded"
    widths: tuple[Positive, ...] = ()
    kinds: tuple[str, ...] = ()
    key_width: Annotated[int, Field(ge=0)] = 0
    heads: tuple[Positive, ...] = ()
    key_widths: tuple[Positive, ...] = ()


class ElasticDocument(Document):
    """The choices that a supernet gets around a base network. A key that is left out stays as the base has it.

    Attributes:
        depth: blocks per stage relative to the base: 0 keeps the base's depth, -1 also allows one block fewer.
        kernel: kernel sizes; each stage takes those up to its own.
        expand: expansion ratios; each stage takes those up to its own.
        width: channel multipliers, at most 1.
        resolution: input sizes in pixels, at most the base's.
    """

    depth: Some[Annotated[int, Field(le=0)]] | None = None
    kernel: Some[Literal[3, 5, 7]] | None = None
    expand: Some[Bound] | None = None
    width: Some[Annotated[float, Field(gt=0, le=1)]] | None = None
    resolution: Some[Annotated[int, Field(ge=16, le=1024)]] | None = None


class SpaceDocument(Document):
    """A search space: everything that one supernet contains.

    Attributes:
        name: name of the space.
        base: a preset or a YAML file to start from; the other keys replace its fields.
        elastic: choices around a base that is one network; see ``ElasticDocument``.
        stages: the stages, from the image to the head.
        resolutions: input sizes in pixels.
        widths: channel multipliers.
        in_channels: channels of the images.
        num_classes: classes of the classifier.
        stem_width: channels of the first convolution; 0 for none: the first stage then reads the images.
        stem_stride: stride of the first convolution.
        stem_act: activation of the first convolution.
        first_block: whether a fixed MBConv block (kernel 3, stride 1, no expansion) follows the stem.
        head_width: channels of the last 1×1 convolution before pooling; 0 for pooling alone.
        feature_width: width of the linear layer before the classifier; 0 for none.
        head_act: activation of the head.
        bn_eps: what batch norm adds to the variance.
        same_padding: whether convolutions are padded as TensorFlow's ``SAME`` is, and not by half of their kernels.
    """

    name: str
    base: str | None = None
    elastic: ElasticDocument | None = None
    stages: Some[StageDocument] | None = None
    resolutions: Some[Annotated[int, Field(ge=16, le=1024)]] | None = None
    widths: Some[Annotated[float, Field(gt=0)]] | None = None
    in_channels: Positive | None = None
    num_classes: Positive | None = None
    stem_width: Annotated[int, Field(ge=0)] | None = None
    stem_stride: Literal[1, 2] | None = None
    stem_act: Activation | None = None
    first_block: bool | None = None
    head_width: Annotated[int, Field(ge=0)] | None = None
    feature_width: Annotated[int, Field(ge=0)] | None = None
    head_act: Activation | None = None
    bn_eps: Annotated[float, Field(gt=0, lt=1)] | None = None
    same_padding: bool | None = None
