"""A small ensemble of MLPs that predicts a subnet's accuracy from its genes (Once-for-All §3.4), with its error.

Every member is fitted without one part of the pairs, and its error on that part says how far a prediction is off: the
stated deviation is the members' spread and, added in quadrature, what the spread leaves unexplained of those errors.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save

from ofa_deploy.accuracy.rank_agreement import agreement
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.space import PRESETS, Family, Population, PopulationCodec

HIDDEN = (24,)
MEMBERS = 5
HELDOUT = 3  # subnets that it is tested on, at least
FEWEST = MEMBERS + HELDOUT  # subnets of a space that a predictor can be fitted for
DECAY = 5.0  # L2 penalty; of supernets for digits and Fashion-MNIST, with 45 to 250 pairs, 3 to 10 rank alike


def features(codec: PopulationCodec, population: Population, scores: np.ndarray | None = None) -> np.ndarray:
    """One-hot genes (zeros for absent slots), the logarithms of MACs and parameters, and scores: ``float32[N, F]``."""
    present = codec.meant(population)
    parts = [
        (population[:, gene, None] == np.arange(count)) & present[:, gene, None]
        for gene, count in enumerate(codec.choices)
    ]
    size = np.log(np.stack([codec.macs(population), codec.params(population)], axis=1))
    extra = np.empty((len(population), 0)) if scores is None else scores
    return np.concatenate([*parts, size, extra], axis=1).astype(np.float32)


@dataclass(frozen=True)
class AccuracyPredictor:
    """Ensemble of one-hidden-layer MLPs on standardised features.

    Attributes:
        codec: the space it was fitted on.
        arrays: ``x_mean`` and ``x_scale[F]``; ``y``: mean and scale of the target; ``noise``: the deviation that the
            spread leaves unexplained; ``bias``, which is subtracted; and the members' weights, by name.
        error: of held-out subnets; a collection adds to it.
    """

    codec: PopulationCodec
    arrays: dict[str, np.ndarray]
    error: PredictorError

    @classmethod
    def fit(
        cls,
        codec: PopulationCodec,
        population: Population,
        accuracy: np.ndarray,
        heldout: Population,
        heldout_accuracy: np.ndarray,
        seed: int = 0,
        scores: np.ndarray | None = None,
        heldout_scores: np.ndarray | None = None,
    ) -> AccuracyPredictor:
        """Fit on evaluated subnets and measure the error on others.

        Args:
            population, accuracy: the pairs to fit on, ``int16[N, G]`` and fractions ``[N]``; N at least ``MEMBERS``.
            heldout, heldout_accuracy: pairs that take no part in fitting.
            scores, heldout_scores: what else is known of the subnets, such as zero-cost proxies: ``float[N, S]``. The
                predictor then needs it of every subnet that it is asked about.

        Raises:
            UsageError: there are too few pairs to fit on, or none to test on.
        """
        if len(population) < MEMBERS or len(heldout) < HELDOUT:
            raise UsageError(
                f"an accuracy predictor needs {MEMBERS} subnets to fit on and {HELDOUT} to test it on; there are "
                f"{len(population)} and {len(heldout)} of {codec.space.name}, which has {codec.space.size}"
            )
        x = features(codec, population, scores)
        arrays = {"x_mean": x.mean(0), "x_scale": np.maximum(x.std(0), 1e-3), "bias": np.zeros(1)}
        arrays["y"] = np.array([accuracy.mean(), max(accuracy.std(), 1e-6)])
        inputs, targets = (x - arrays["x_mean"]) / arrays["x_scale"], (accuracy - arrays["y"][0]) / arrays["y"][1]
        left_out = np.random.default_rng(seed).permutation(len(x)) % MEMBERS
        for member in range(MEMBERS):
            keep = left_out != member
            arrays |= _member(member, inputs[keep], targets[keep], seed + member)
        arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        fitted = cls(codec, arrays | {"noise": np.zeros(1, dtype=np.float32)}, PredictorError())
        outputs = fitted.outputs(population, scores)
        unseen = outputs[left_out, np.arange(len(x))] - accuracy
        noise = math.sqrt(max(float((unseen**2).mean() - outputs.var(0).mean()), 1e-12))
        fitted.arrays["noise"] = np.array([noise], dtype=np.float32)
        error = prediction_error(*fitted.predict(heldout, heldout_scores), heldout_accuracy, seed)
        return replace(fitted, error=error.model_copy(update={"n_fit": len(x), "n_heldout": len(heldout)}))

    def outputs(self, population: Population, scores: np.ndarray | None = None) -> np.ndarray:
        """What every member predicts, fractions, before the bias is subtracted: ``float64[MEMBERS, N]``."""
        a = self.arrays
        x = features(self.codec, population, scores)
        if x.shape[1] != len(a["x_mean"]):
            raise UsageError("the accuracy predictor was fitted with other zero-cost scores; give it the same ones")
        x = (x - a["x_mean"]) / a["x_scale"]
        outputs = []
        for member in range(MEMBERS):
            hidden = np.maximum(x @ a[f"{member}.0.weight"] + a[f"{member}.0.bias"], 0)
            outputs.append((hidden @ a[f"{member}.1.weight"] + a[f"{member}.1.bias"])[:, 0])
        mean, scale = (float(v) for v in a["y"])
        return mean + scale * np.stack(outputs).astype(float)

    def predict(self, population: Population, scores: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the accuracy that an evaluation would measure, fractions, ``float64[N]``.

        Raises:
            UsageError: it was fitted with scores, and they are missing; or the other way round.
        """
        outputs = self.outputs(population, scores)
        deviation = np.hypot(outputs.std(0), float(self.arrays["noise"][0]))
        return outputs.mean(0) - float(self.arrays["bias"][0]), deviation

    def corrected(self, bias: float, known: Mapping[str, object] = MappingProxyType({})) -> AccuracyPredictor:
        """The same predictor, lowered by a bias, with more known of its error."""
        arrays = {**self.arrays, "bias": np.array([bias], dtype=np.float32)}
        return replace(self, arrays=arrays, error=self.error.model_copy(update=known))

    def summary(self) -> str:
        """Its held-out error in one line."""
        error = self.error
        tau = "unknown" if error.kendall is None else f"{error.kendall:.2f}"
        if error.kendall_low is not None:
            tau += f" (95 %: {error.kendall_low:.2f} to {error.kendall_high:.2f})"
        if error.repeat_kendall is not None:
            tau += f", where two evaluations of the same subnets agree by {error.repeat_kendall:.2f}"
        return (
            f"accuracy predictor: fitted on {error.n_fit} subnets; on {error.n_heldout} held-out ones RMSE "
            f"{100 * (error.rmse or 0):.2f} points, Kendall τ {tau}; {_bias_of(error)}"
        )

    def to_bytes(self) -> bytes:
        """The predictor as a safetensors file; deterministic."""
        card = {"space": space_card(self.codec.space), "error": self.error.to_json()}
        return save(self.arrays, {"card": json.dumps(card, sort_keys=True)})  # several keys would come in any order

    @classmethod
    def from_bytes(cls, codec: PopulationCodec, content: bytes) -> AccuracyPredictor:
        """Read what ``to_bytes`` wrote.

        Raises:
            UsageError: the content is truncated, or was fitted on another space.
        """
        card = read_card(content)
        its = card.space if isinstance(card.space, str) else card.space["name"]
        if its != codec.space.name:
            raise UsageError(f"the accuracy predictor was fitted on {its}, not on {codec.space.name}")
        arrays = {name: np.array(array) for name, array in load(content).items()}
        unknown = {"noise": np.zeros(1), "bias": np.zeros(1)}  # those of the first version did not have
        return cls(codec, {**unknown, **arrays}, card.error)


def prediction_error(mean: np.ndarray, std: np.ndarray, accuracy: np.ndarray, seed: int = 0) -> PredictorError:
    """How far predictions are from what was measured."""
    off = mean - accuracy
    return PredictorError.model_validate(
        {
            "rmse": float(np.sqrt((off**2).mean())),
            "bias": float(off.mean()),
            **kendall_of("kendall", mean, accuracy, seed),
            "within_1_std": float((np.abs(off) <= std).mean()),
            "within_2_std": float((np.abs(off) <= 1.96 * std).mean()),
        }
    )


def kendall_of(name: str, one: np.ndarray, other: np.ndarray, seed: int = 0) -> dict[str, float | None]:
    """Kendall's τ of two scores as entries of a card: ``NAME``, ``NAME_low``, ``NAME_high``; None where undefined."""
    found = agreement(one, other[None], seed)
    names = {"tau": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {names[key]: None if math.isnan(value) else value for key, value in found.items()}


def _bias_of(error: PredictorError) -> str:
    """In points; where other images were looked at, before and after the decision whether to correct it."""
    if error.bias_before is None:
        return f"bias {100 * (error.bias or 0):+.2f} points"
    before = f"{100 * error.bias_before:+.2f} ± {100 * error.bias_before_std:.2f}"
    after = f"{100 * error.bias_after:+.2f} ± {100 * (error.bias_after_std or 0):.2f}"
    if error.bias_corrected:
        return f"bias on new images {before} points, now corrected: {after} on further ones"
    return f"bias on new images {before} points, too small against its noise to correct; {after} on further ones"


def _member(member: int, inputs: np.ndarray, targets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    net = MLPRegressor(hidden_layer_sizes=HIDDEN, solver="lbfgs", alpha=DECAY, max_iter=400, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(inputs, targets)
    layers = list(enumerate(zip(net.coefs_, net.intercepts_, strict=True)))
    weights = {f"{member}.{layer}.weight": weight for layer, (weight, _) in layers}
    return weights | {f"{member}.{layer}.bias": bias for layer, (_, bias) in layers}


class Card(NamedTuple):
    """What a predictor's file says of itself.

    Attributes:
        space: as ``space_card`` names it.
        kind: of the predictor; None for ours.
    """

    space: str | dict[str, JSON]
    error: PredictorError
    kind: str | None


def space_card(space: Family) -> str | dict[str, JSON]:
    """A space as a predictor's file names it: a preset by its name, another one in full; ``load_space`` reads both."""
    return space.name if PRESETS.get(space.name) == space else space.to_json()


def read_card(content: bytes) -> Card:
    """What a predictor's file says of itself; its weights are whole when this returns.

    Raises:
        UsageError: the content is truncated, or no predictor.
    """
    try:
        deserialize(content)
        size = int.from_bytes(content[:8], "little")
        card = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["card"])
        return Card(card["space"], PredictorError.read(card["error"]), card.get("kind"))
    except (SafetensorError, ValueError, KeyError, TypeError) as broken:
        raise UsageError(
            "the accuracy predictor's file is truncated, or holds something else; fit or import it again"
        ) from broken
