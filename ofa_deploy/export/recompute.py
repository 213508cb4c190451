"""Every figure of a bundle's report, computed again from the files beside it.

Hashes show that a file was changed after the bundle was written; this shows a report that never agreed with its
evidence, or one whose hashes were rewritten along with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from scipy.special import ndtri

from device_agents.summary import summarise
from ofa_deploy.accuracy import Predictor, objective, read_predictor
from ofa_deploy.accuracy.belief import Validation, belief_in, posterior
from ofa_deploy.blocks import Network, counts
from ofa_deploy.config import TargetProfile, read_document
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export.answers import bundle_answers
from ofa_deploy.export.evidence import Damaged, read_checked
from ofa_deploy.export.runtime import compare
from ofa_deploy.graph import check_graph
from ofa_deploy.latency import LatencyModel, Measurement, Row, audit_summary, confidence_interval, left_out
from ofa_deploy.latency.level import Curve
from ofa_deploy.space import (
    Arch,
    CellSpace,
    Family,
    PopulationCodec,
    load_space,
    network_macs,
    network_memory,
    network_params,
)

# How far a figure may be from its recomputation, relative and absolute: records round latencies to seven digits, which
# shows in differences of them, and searches compute upper bounds in fp32.
TOLERANCE = (1e-5, 1e-12)
TOLERANCES = {
    "cov": (1e-3, 1e-6),
    "se": (1e-3, 1e-6),
    "error_pct": (1e-5, 1e-3),
    "upper_ms": (1e-3, 1e-12),
    "residual_ms": (1e-3, 1e-6),
}
PREDICTOR = "accuracy_predictor.safetensors"
# What files can provoke whose fields are right, which is a finding. Any other error is one of this program.
BY_DATA = (
    OfaDeployError,
    ArithmeticError,
    np.linalg.LinAlgError,
    OSError,
    DecodeError,
    onnx.checker.ValidationError,
)
NEEDED = ("model.onnx", "arch.json", "report.json", "evidence.json")
NO_WEIGHTS = ("_scale", "_zero_point")  # how a quantised graph's other constants end
Figures = dict[str, Any]  # values by their dotted path in report.json


@dataclass
class Bundle:
    """A bundle's files, parsed where they are needed; each raises ``Damaged`` where it is not as ``evidence`` says."""

    folder: Path

    @cached_property
    def report(self) -> Any:
        """``report.json``."""
        return read_checked(self.folder, "report.json")

    @cached_property
    def evidence(self) -> Any:
        """``evidence.json``."""
        return read_checked(self.folder, "evidence.json")

    @cached_property
    def preprocessing(self) -> Any:
        """``preprocessing.json``."""
        return read_checked(self.folder, "preprocessing.json")

    @cached_property
    def model(self) -> onnx.ModelProto:
        """``model.onnx``, a valid graph that obeys the target's rules."""
        model = onnx.load(self.folder / "model.onnx")
        if rules := self.report["provenance"].get("target"):
            check_graph(model, read_document(TargetProfile, rules))
        return model

    @cached_property
    def space(self) -> Family:
        """The space as the report's provenance describes it, or the preset that the arch names."""
        described = self.report["provenance"].get("space")
        if described and "genotype" in described:
            return CellSpace.from_json(described)
        return load_space(described or str(self._named.get("space")))

    @cached_property
    def arch(self) -> Arch:
        """``arch.json``."""
        return self.space.canonical(self._named)

    @cached_property
    def network(self) -> Network:
        """What the arch is built of."""
        return self.space.network(self.arch)

    @cached_property
    def latency_model(self) -> LatencyModel | None:
        """The model that predicted, fitted again on its evidence."""
        data = self.evidence.get("latency_model")
        return LatencyModel.from_json(data) if data else None

    @cached_property
    def predictor(self) -> Predictor | None:
        """The accuracy predictor beside the report; None where there is none."""
        file = self.folder / PREDICTOR
        return read_predictor(PopulationCodec(self.space), file.read_bytes()) if file.is_file() else None

    @cached_property
    def measured(self) -> dict[str, Any]:
        """Statistics of the chosen network's measurement, from its raw values; empty if it was not measured."""
        record = self.evidence["measurement"]
        if not record:
            return {}
        timings = record.get("timings") or [[value] for value in record["rounds"]]
        return summarise(timings, range(len(timings)))

    @cached_property
    def _named(self) -> Any:
        return read_checked(self.folder, "arch.json")


def wrong_figures(folder: Path) -> list[str]:
    """Figures in ``report.json`` that its evidence does not give, and evidence that is missing or cannot be read.

    An error that no file's content explains is raised as it is.
    """
    missing = [f"{name} is missing: figures cannot be recomputed" for name in NEEDED if not (folder / name).is_file()]
    if missing:
        return missing
    bundle = Bundle(folder)
    try:
        report, _ = bundle.report, bundle.evidence
    except Damaged as damage:
        return [f"figures cannot be recomputed: {damage}"]
    problems = []
    for part in PARTS:
        try:
            problems += _differences(report, part(bundle))
        except BY_DATA as error:
            problems.append(f"cannot recompute {part.__name__[1:]}: {error}")
    return problems


def _subnet(bundle: Bundle) -> Figures:
    network = bundle.network
    figures = {
        "subnet.key": bundle.arch.key,
        "subnet.arch": bundle.arch.to_json(),
        "subnet.macs": network_macs(network),
        "subnet.params": network_params(network),
    }
    if "memory_mb" in bundle.report["subnet"]:  # bundles of older versions have none
        ran = bundle.report["target"]
        figures["subnet.memory_mb"] = network_memory(network, ran["batch"], ran["precision"]) / 1e6
    return figures


def _model(bundle: Bundle) -> Figures:
    """The file's size; that it is a valid graph and obeys the target's rules; and that it holds as many weights as the
    network: batch norm leaves one bias a channel."""
    weights = [c for c in bundle.model.graph.initializer if c.dims and c.data_type != onnx.TensorProto.INT64]  # places
    held = sum(prod(c.dims) for c in weights if not c.name.endswith(NO_WEIGHTS))
    needed = sum(counts.shipped_weights(op.block) for op in bundle.network.ops)
    if held != needed:
        raise Damaged(f"model.onnx holds {held} weights, the network of arch.json needs {needed}")
    return {"size_bytes": (bundle.folder / "model.onnx").stat().st_size}


def _measurement(bundle: Bundle) -> Figures:
    measured, report = bundle.measured, bundle.report
    if not measured:
        return {"latency.measured_ms": None, "latency.error_pct": None, "latency.fits": None}
    if bundle.evidence["measurement"]["ops"] != bundle.network.unit_keys:
        raise Damaged("the network that was measured is not the one of arch.json")
    shown = {"p50", "p90", "n", "cov"} | measured.keys() & (report["latency"]["measured_ms"] or {}).keys()
    figures = {f"latency.measured_ms.{name}": measured[name] for name in shown}
    budget, predicted = report["budget"]["max_ms"], report["latency"]["predicted_ms"]
    statistic = measured[report["budget"]["statistic"]]
    figures["latency.fits"] = None if budget is None else statistic <= budget
    figures["latency.error_pct"] = None if predicted is None else 100 * (predicted / statistic - 1)
    if "session_std" in report["latency"]:
        if "timings" not in bundle.evidence["measurement"]:
            raise Damaged("evidence.json has no measurement.timings")
        timings, session_std = bundle.evidence["measurement"]["timings"], report["latency"]["session_std"]
        low, high = confidence_interval(timings, report["budget"]["statistic"], session_std)
        figures |= {"latency.interval_ms.0": low, "latency.interval_ms.1": high}
    if budget is not None:
        figures["verdict.status"] = "fits" if statistic <= budget else "over"
    return figures


def _prediction(bundle: Bundle) -> Figures:
    model = bundle.latency_model
    if model is None:
        return {f"latency.{name}": None for name in ("predicted_ms", "std_ms", "upper_ms")}
    (mean,), (std,) = model.predict([bundle.network])
    figures = Figures()
    if "as_profiled_ms" in bundle.report["latency"]:  # bundles of older versions have none
        kept = bundle.evidence.get("level")
        levels = {"as_measured_ms": Curve.from_json(kept) if kept else None, "as_profiled_ms": None}
        figures |= {name: model.at_curve(curve).predict([bundle.network])[0][0] for name, curve in levels.items()}
    upper = mean + ndtri(bundle.report["budget"]["confidence"]) * std
    figures |= {
        "predicted_ms": mean,
        "std_ms": std,
        "upper_ms": upper,
        "table_ms": model.table.known_total(bundle.network, model.statistic),
    }
    return {f"latency.{name}": None if value is None else float(value) for name, value in figures.items()}


def _audit(bundle: Bundle) -> Figures:
    """The audit's statistics, from the networks that it measured, and these networks as the report shows them."""
    kept = bundle.evidence.get("audit")
    if kept is None:
        return {"audit": None}
    found, figures = audit_summary(kept["networks"], kept["n_fit"]), Figures()
    alone = found.pop("table_only")
    figures |= {f"audit.{name}": value for name, value in found.items() if name != "verdict"}  # words may change
    figures |= {f"audit.table_only.{name}": value for name, value in alone.items()} if alone else {}
    measured = {one["key"]: one for one in kept["networks"]}
    for i, shown in enumerate(bundle.report["networks"]):
        if shown["role"] == "audit":
            names = ("predicted_ms", "std_ms", "table_ms", "measured_ms")
            one = _entry(measured, shown["key"], "the audit's networks")
            figures |= {f"networks.{i}.{name}": one[name] for name in names}
    return figures


def _networks(bundle: Bundle) -> Figures:
    """The whole networks that the model was fitted on, each predicted without itself."""
    model, figures = bundle.latency_model, Figures()
    if model is None:
        return figures
    predicted = {
        key: (float(mean), float(std)) for key, mean, std in zip(model.evidence, *left_out(model), strict=True)
    }
    for i, shown in enumerate(bundle.report["networks"]):
        if shown["role"] != "evidence":
            continue
        mean, std = _entry(predicted, shown["key"], "the latency model's networks")
        row = model.table.networks[shown["key"]]
        total = model.table.known_total(row.ops, model.statistic)
        found = {"measured_ms": getattr(row, model.statistic), "predicted_ms": mean, "std_ms": std, "table_ms": total}
        figures |= {f"networks.{i}.{name}": value for name, value in found.items()}
    return figures


def _blocks(bundle: Bundle) -> Figures:
    model = bundle.latency_model
    if model is None or not bundle.report["blocks"]:
        return {}
    model.require(bundle.network.unit_keys)
    figures, effects, learned = Figures(), model.effects, _learned(bundle, model)
    total = sum(effects[unit.op.key] for unit in bundle.network.units)
    for i, unit in enumerate(bundle.network.units):
        name, key = unit.name, unit.op.key
        effect, row = effects[key], model.table.rows.get(key)
        block = {
            "name": name,
            "op": key,
            "table_ms": getattr(row, model.statistic) if row else None,
            "posterior_ms": effect,
            "residual_ms": learned[key] - effect if learned else None,
            "share": effect / total,
        }
        figures |= {f"blocks.{i}.{key}": value for key, value in block.items()}
    return figures


def _learned(bundle: Bundle, model: LatencyModel) -> dict[str, float] | None:
    """The blocks' effects once the model has seen the chosen network's own measurement; None without one."""
    if not bundle.measured:
        return None
    statistics = {name: bundle.measured[name] for name in ("p50", "p90", "p99")}
    measured = Measurement.from_json({**bundle.evidence["measurement"], **statistics})
    return model.learned(Row.of(measured)).effects


def _accuracy(bundle: Bundle) -> Figures:
    test = bundle.evidence["test"]
    figures = Figures()
    if test is None:
        figures["accuracy.measured"] = None
    else:
        figures["accuracy.measured"] = float(np.mean(np.equal(test["labels"], test["predicted"])))
        figures["accuracy.n"] = len(test["labels"])
        if "torch" in test:  # bundles of older versions have none
            figures["accuracy.torch"] = float(np.mean(np.equal(test["labels"], test["torch"])))
            figures["accuracy.drop"] = figures["accuracy.torch"] - figures["accuracy.measured"]
    if bundle.predictor:
        figures["accuracy.predicted"] = _predicted(bundle, bundle.arch)
    return figures


def _predicted(bundle: Bundle, arch: Arch) -> float:
    codec = PopulationCodec(bundle.space)
    return float(objective(codec, bundle.predictor)(codec.encode([arch]))[0])


def _beliefs(bundle: Bundle) -> Figures:
    """What is believed of the accuracies of the chosen network and the other finalists, and what that rests on."""
    counts, report, figures = bundle.evidence.get("validation"), bundle.report, Figures()
    if counts is None or "finalists" not in report:  # bundles of older versions
        return figures
    weights = report["provenance"].get("supernet_sha256")
    for place, row in enumerate(report["finalists"]):
        arch = bundle.space.canonical(row["arch"])
        found = counts.get(arch.key)
        valid = Validation(found["correct"] / found["n"], found["n"]) if found else None
        belief = None
        if bundle.predictor and not row.get("tuned"):
            belief = belief_in(_predicted(bundle, arch), bundle.predictor.error, weights)
        known = dict(zip(("posterior", "low", "high"), posterior(belief, valid) or [None] * 3, strict=True))
        accuracy, n = (valid.accuracy, valid.n) if valid else (None, 0)
        named = {"key": arch.key, **known, "valid_accuracy": accuracy, "valid_n": n}
        figures |= {f"finalists.{place}.{name}": value for name, value in named.items()}
        if arch.key == bundle.arch.key:
            chosen = {**known, "valid": accuracy, "valid_n": n}
            figures |= {f"accuracy.{name}": value for name, value in chosen.items()}
    return figures


def _parity(bundle: Bundle) -> Figures:
    logits = (np.array(bundle.evidence["parity"][name], dtype=np.float32) for name in ("torch", "onnx"))
    figures = compare(*logits).to_json()
    shown = {"max_abs", "top1_agreement"} | figures.keys() & bundle.report["parity"].keys()
    return {f"parity.{name}": figures[name] for name in shown}


def _answers(bundle: Bundle) -> Figures:
    """The pre-processing that ships, and the answers to the test images that travel in the bundle."""
    expected = bundle.evidence.get("samples")
    if expected is None:  # bundles of older versions have none
        return {}
    if bundle.report.get("preprocessing") != bundle.preprocessing:
        raise Damaged("preprocessing.json is not what report.json says")
    if not bundle.model.graph.input:
        raise Damaged("model.onnx takes no input")
    found = bundle_answers(bundle.folder, bundle.report, [bundle.folder / name for name in sorted(expected)])
    for name, answer in zip(sorted(expected), found or (), strict=found is not None):
        if answer != expected[name]:
            raise Damaged(f"the model answers class {answer} to {name}, its evidence says {expected[name]}")
    return {}


def _entry(found: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in found:
        raise Damaged(f"report.json shows the network {key[:12]}, which is not one of {where} in evidence.json")
    return found[key]


PARTS = (
    *(_subnet, _model, _measurement, _prediction, _audit, _networks, _blocks),
    *(_accuracy, _beliefs, _parity, _answers),
)


def _differences(report: Mapping[str, Any], figures: Figures) -> list[str]:
    problems = []
    for path, value in sorted(figures.items()):
        try:
            reported = _lookup(report, path)
        except (LookupError, TypeError, ValueError):  # not even what should hold it is there
            problems.append(f"report.json has no {path}; its evidence gives {_shown(value)}")
            continue
        if not _same(reported, value, TOLERANCES.get(path.rsplit(".", 1)[-1], TOLERANCE)):
            problems.append(f"report.json says {path} is {_shown(reported)}, its evidence gives {_shown(value)}")
    return problems


def _lookup(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


def _same(reported: Any, value: Any, tolerance: tuple[float, float]) -> bool:
    if any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in (reported, value)):
        return reported == value
    return math.isclose(reported, value, rel_tol=tolerance[0], abs_tol=tolerance[1])


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
