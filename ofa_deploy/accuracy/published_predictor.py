"""The accuracy predictor that once-for-all published (Cai et al., ICLR 2020, §3.4) for its space of width 1.2.

A network of three hidden layers whose input is one-hot genes: every slot's kernel, every slot's expand ratio, and the
resolution from 112 to 224 in steps of 16; slots that a subnet does not have are zeros.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from ofa_deploy.accuracy.predictor import read_card, space_card
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.errors import UsageError
from ofa_deploy.space import GENE, Population, PopulationCodec, SearchSpace, load_space

KIND = "one-hot network"
SPACE = "ofa_mbv3_w1.2"
RESOLUTIONS = tuple(range(112, 225, 16))
LAYERS = (128, 400, 400, 400, 1)
BLOCK = 256  # rows in each matrix product, always this number; predict says why
DECIMALS = 7  # of a predicted accuracy: single precision, in which the network was trained, has no more
CARD = {
    "what": "once-for-all's published accuracy predictor for ImageNet",
    "note": "its predictions are about 4.8 points above ImageNet's validation accuracy, by its authors' own notebook",
}


def one_hot(codec: PopulationCodec, population: Population) -> np.ndarray:
    """The predictor's input: ``float32[N, 128]``."""
    active = codec.active(population)[:, :, None]
    slots = active.shape[1]
    kernels, expands = population[:, -2 * slots : -slots, None], population[:, -slots:, None]
    known = np.array([RESOLUTIONS.index(r) for r in codec.space.resolutions])
    shape = (len(population), 3 * slots)
    parts = [((genes == np.arange(3, dtype=GENE)) & active).reshape(shape) for genes in (kernels, expands)]
    resolution = known[population[:, :1]] == np.arange(len(RESOLUTIONS))
    return np.concatenate([*parts, resolution], axis=1).astype(np.float32)


@dataclass(frozen=True)
class PublishedPredictor:
    """The published network with its weights.

    Attributes:
        codec: the space that it knows.
        arrays: ``N.weight[in, out]`` and ``N.bias[out]`` of every layer, in float32.
        error: what is known of its error: where it comes from, and how it errs. Never measured here.
    """

    codec: PopulationCodec
    arrays: dict[str, np.ndarray]
    error: PredictorError

    def predict(self, population: Population) -> tuple[np.ndarray, np.ndarray]:
        """ImageNet accuracy as the network predicts it, a fraction, and its unknown deviation as NaN: ``float64[N]``.

        BLAS adds up in another order for another number of rows, or another place among them, and a subnet would be
        worth a little more in one population than in another. So rows are multiplied in blocks of one size, in double
        precision, and what is left of the difference is rounded away.
        """
        x = np.zeros((-(-len(population) // BLOCK) * BLOCK, LAYERS[0]), dtype=np.float64)
        x[: len(population)] = one_hot(self.codec, population)
        blocks = [self._forward(x[start : start + BLOCK]) for start in range(0, len(x), BLOCK)]
        mean = np.concatenate([*blocks, np.empty(0)])[: len(population)]
        return mean, np.full(len(population), np.nan)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        for layer in range(len(LAYERS) - 1):
            if layer:
                np.maximum(x, 0, out=x)
            x = x @ self.arrays[f"{layer}.weight"].astype(np.float64)
            x += self.arrays[f"{layer}.bias"]
        return np.round(x[:, 0], DECIMALS)

    def summary(self) -> str:
        """What it is and how it errs, in one line."""
        return f"accuracy predictor: {self.error.what}; {self.error.note}"

    def to_bytes(self) -> bytes:
        """The predictor as a safetensors file; deterministic."""
        card = {"kind": KIND, "space": space_card(self.codec.space), "error": self.error.to_json()}
        return save(self.arrays, {"card": json.dumps(card, sort_keys=True)})

    @classmethod
    def from_bytes(cls, content: bytes) -> PublishedPredictor:
        """Read what ``to_bytes`` wrote.

        Raises:
            UsageError: the content is truncated, or something else.
        """
        card = read_card(content)
        if card.kind != KIND:
            raise UsageError("this is no imported accuracy predictor; import it again")
        arrays = {name: np.array(array) for name, array in load(content).items()}
        if {name: array.shape for name, array in arrays.items()} != shapes():
            raise UsageError("the accuracy predictor's weights have the wrong shapes; import it again")
        return cls(PopulationCodec(load_space(card.space)), arrays, card.error)


def shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of the predictor's weights."""
    sizes = list(enumerate(pairwise(LAYERS)))
    weights: dict[str, tuple[int, ...]] = {f"{layer}.weight": size for layer, size in sizes}
    return weights | {f"{layer}.bias": (size[1],) for layer, size in sizes}


def import_predictor(path: Path, space: SearchSpace) -> PublishedPredictor:
    """Read once-for-all's ``acc_predictor.pth``.

    Args:
        space: which subnets it should judge: those of the space that it was published for, or fewer resolutions.

    Raises:
        UsageError: the file is missing, damaged, or another network; or the space is another.
    """
    published = load_space(SPACE)
    if (space.stages, space.widths) != (published.stages, published.widths) or set(space.resolutions) - {*RESOLUTIONS}:
        raise UsageError(
            f"once-for-all published this predictor for {SPACE}, not for {space.name}; give --space {SPACE}"
        )
    from ofa_deploy.supernet.once_for_all import check_finite, check_shapes, read_tensor_file, source_of

    state = read_tensor_file(path)
    names = {name: f"{2 * int(name[0])}{name[1:]}" for name in shapes()}  # activations between the layers count, there
    check_shapes(path, state, {names[name]: shape[::-1] for name, shape in shapes().items()})
    check_finite(path, state)
    arrays = {name: np.ascontiguousarray(state[theirs].float().numpy().T) for name, theirs in names.items()}
    return PublishedPredictor(
        PopulationCodec(space), arrays, PredictorError.read({**CARD, **source_of(path, CARD["what"])})
    )
