"""A small ensemble of MLPs that predicts a subnet's accuracy from its genes (Once-for-All §3.4), with its error."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save
from scipy import stats

from ofa_deploy.errors import UsageError
from ofa_deploy.space import Population, PopulationCodec

HIDDEN = (24,)
MEMBERS = 5


def features(codec: PopulationCodec, population: Population) -> np.ndarray:
    """One-hot genes (zeros for absent slots), and the logarithms of MACs and parameters: ``float32[N, F]``."""
    active = codec.active(population)
    present = np.ones(population.shape, dtype=bool)
    present[:, -2 * active.shape[1] :] = np.concatenate([active, active], axis=1)
    parts = [
        (population[:, gene, None] == np.arange(count)) & present[:, gene, None]
        for gene, count in enumerate(codec.choices)
    ]
    size = np.log(np.stack([codec.macs(population), codec.params(population)], axis=1))
    return np.concatenate([*parts, size], axis=1).astype(np.float32)


@dataclass(frozen=True)
class AccuracyPredictor:
    """Ensemble of one-hidden-layer MLPs on standardised features.

    Attributes:
        codec: the space it was fitted on.
        arrays: input and target scaling and the members' weights, by name.
        error: held-out ``rmse``, ``bias`` (fractions), ``kendall``, and the counts ``n_fit``, ``n_heldout``.
    """

    codec: PopulationCodec
    arrays: dict[str, np.ndarray]
    error: dict[str, Any]

    @classmethod
    def fit(
        cls,
        codec: PopulationCodec,
        population: Population,
        accuracy: np.ndarray,
        heldout: Population,
        heldout_accuracy: np.ndarray,
        seed: int = 0,
    ) -> AccuracyPredictor:
        """Fit on evaluated subnets and measure the error on others.

        Args:
            population, accuracy: the pairs to fit on, ``int8[N, G]`` and fractions ``[N]``.
            heldout, heldout_accuracy: pairs that take no part in fitting.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        x = features(codec, population)
        arrays = {"x_mean": x.mean(0), "x_scale": np.maximum(x.std(0), 1e-3)}
        arrays["y"] = np.array([accuracy.mean(), max(accuracy.std(), 1e-6)], dtype=np.float32)
        inputs, targets = (x - arrays["x_mean"]) / arrays["x_scale"], (accuracy - arrays["y"][0]) / arrays["y"][1]
        for member in range(MEMBERS):
            net = MLPRegressor(
                hidden_layer_sizes=HIDDEN, solver="lbfgs", alpha=3.0, max_iter=400, random_state=seed + member
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                net.fit(inputs, targets)
            for layer, (weight, bias) in enumerate(zip(net.coefs_, net.intercepts_, strict=True)):
                arrays[f"{member}.{layer}.weight"] = weight.astype(np.float32)
                arrays[f"{member}.{layer}.bias"] = bias.astype(np.float32)
        fitted = cls(codec, {name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}, {})
        predicted = fitted.predict(heldout)[0] - heldout_accuracy
        error = {
            "n_fit": len(population),
            "n_heldout": len(heldout),
            "rmse": float(np.sqrt((predicted**2).mean())),
            "bias": float(predicted.mean()),
            "kendall": float(stats.kendalltau(predicted + heldout_accuracy, heldout_accuracy).statistic),
        }
        return cls(codec, fitted.arrays, error)

    def predict(self, population: Population) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the ensemble, fractions, ``float64[N]`` each."""
        a = self.arrays
        x = (features(self.codec, population) - a["x_mean"]) / a["x_scale"]
        outputs = []
        for member in range(MEMBERS):
            hidden = np.maximum(x @ a[f"{member}.0.weight"] + a[f"{member}.0.bias"], 0)
            outputs.append((hidden @ a[f"{member}.1.weight"] + a[f"{member}.1.bias"])[:, 0])
        mean, scale = (float(v) for v in a["y"])
        stacked = np.stack(outputs).astype(float)
        return mean + scale * stacked.mean(0), scale * stacked.std(0)

    def summary(self) -> str:
        """Its held-out error in one line."""
        error = self.error
        return (
            f"accuracy predictor: fitted on {error['n_fit']} subnets; on {error['n_heldout']} others RMSE "
            f"{100 * error['rmse']:.2f} points, bias {100 * error['bias']:+.2f}, Kendall τ {error['kendall']:.2f}"
        )

    def to_bytes(self) -> bytes:
        """The predictor as a safetensors file; deterministic."""
        card = {"space": self.codec.space.name, "error": self.error}
        return save(self.arrays, {"card": json.dumps(card, sort_keys=True)})  # several keys would come in any order

    @classmethod
    def from_bytes(cls, codec: PopulationCodec, content: bytes) -> AccuracyPredictor:
        """Read what ``to_bytes`` wrote.

        Raises:
            UsageError: the content is truncated, or was fitted on another space.
        """
        card = read_card(content)
        if card["space"] != codec.space.name:
            raise UsageError(f"the accuracy predictor was fitted on {card['space']}, not on {codec.space.name}")
        return cls(codec, {name: np.array(array) for name, array in load(content).items()}, card["error"])


def read_card(content: bytes) -> dict[str, Any]:
    """What a predictor's file says of itself; its weights are whole when this returns.

    Raises:
        UsageError: the content is truncated, or no predictor.
    """
    try:
        deserialize(content)
        size = int.from_bytes(content[:8], "little")
        card = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["card"])
        return {"space": card["space"], "error": card["error"], **card}
    except (SafetensorError, ValueError, KeyError, TypeError) as broken:
        raise UsageError("the accuracy predictor is truncated or not one; fit or import it again") from broken
