"""Every figure of a bundle's report, computed again from the files beside it.

Hashes show that a file was changed after the bundle was written; this shows a report that never agreed with its
evidence, or one whose hashes were rewritten along with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from scipy.special import ndtri

from device_agents.summary import summarise
from ofa_deploy.accuracy import Predictor, objective
from ofa_deploy.accuracy.belief import Validation, belief_in, posterior
from ofa_deploy.blocks import counts
from ofa_deploy.documents.audit_document import AuditFigures, TimedNetwork
from ofa_deploy.documents.baselines_document import HandPicked, ReportBaselines, placed
from ofa_deploy.documents.report_document import (
    Accuracy,
    BlockRow,
    FinalistRow,
    Latency,
    Measured,
    Parity,
    Report,
    ReportVerdict,
    SubnetFacts,
)
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export.answers import bundle_answers
from ofa_deploy.export.checked_files import Damaged
from ofa_deploy.export.compared_figures import differences
from ofa_deploy.export.opened_bundle import Bundle
from ofa_deploy.export.runtime import compare
from ofa_deploy.json_types import read_record
from ofa_deploy.latency import (
    AuditedNetwork,
    LatencyModel,
    Measurement,
    Row,
    audit_summary,
    confidence_interval,
    left_out,
)
from ofa_deploy.latency.level import Curve
from ofa_deploy.space import (
    Arch,
    PopulationCodec,
    network_macs,
    network_memory,
    network_params,
)

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
Value = TypeVar("Value")


def wrong_figures(folder: Path) -> list[str]:
    """Figures in ``report.json`` that its evidence does not give, and evidence that is missing or cannot be read.

    An error that no file's content explains is raised as it is.
    """
    missing = [f"{name} is missing: figures cannot be recomputed" for name in NEEDED if not (folder / name).is_file()]
    if missing:
        return missing
    bundle = Bundle(folder)
    try:
        document, _ = bundle.document, bundle.evidence
    except Damaged as damage:
        return [f"figures cannot be recomputed: {damage}"]
    problems = []
    for part in PARTS:
        try:
            problems += differences(document, {path: value for one in part(bundle) for path, value in one.leaves()})
        except BY_DATA as error:
            problems.append(f"cannot recompute {part.__name__[1:]}: {error}")
    return problems


# Each part of the report is computed again as a record with the fields that the evidence gives, and no others. Fields
# that earlier versions did not write are compared where the report says them.


def _subnet(bundle: Bundle) -> Iterator[Report]:
    network, ran = bundle.network, bundle.report.target
    macs, params = network_macs(network), network_params(network)
    yield Report(subnet=SubnetFacts(key=bundle.arch.key, arch=bundle.arch.to_json(), macs=macs, params=params))
    if bundle.report.subnet.says("memory_mb"):
        memory = network_memory(network, _needed(ran.batch), _needed(ran.precision)) / 1e6
        yield Report(subnet=SubnetFacts(memory_mb=memory))


def _model(bundle: Bundle) -> Iterator[Report]:
    """The file's size; that it is a valid graph and obeys the target's rules; and that it holds as many weights as the
    network: batch norm leaves one bias a channel."""
    weights = [c for c in bundle.model.graph.initializer if c.dims and c.data_type != onnx.TensorProto.INT64]  # places
    held = sum(prod(c.dims) for c in weights if not c.name.endswith(NO_WEIGHTS))
    needed = sum(counts.shipped_weights(op.block) for op in bundle.network.ops)
    if held != needed:
        raise Damaged(f"model.onnx holds {held} weights, the network of arch.json needs {needed}")
    yield Report(size_bytes=(bundle.folder / "model.onnx").stat().st_size)


def _measurement(bundle: Bundle) -> Iterator[Report]:
    measured, latency, budget = bundle.measured, bundle.report.latency, bundle.report.budget
    record = bundle.evidence["measurement"]
    if record is None:
        yield Report(latency=Latency(measured_ms=None, error_pct=None, fits=None))
        return
    if record["ops"] != bundle.network.unit_keys:
        raise Damaged("the network that was measured is not the one of arch.json")
    reported = latency.measured_ms or Measured()
    names = ("p50", "p90", "n", "cov", *(name for name in ("p99", "se") if reported.says(name)))
    statistic = measured[budget.statistic]
    fits = None if budget.max_ms is None else statistic <= budget.max_ms
    error = None if latency.predicted_ms is None else 100 * (latency.predicted_ms / statistic - 1)
    again = Measured.model_validate({name: measured[name] for name in names})
    yield Report(latency=Latency(measured_ms=again, fits=fits, error_pct=error))
    if latency.says("session_std"):
        if "timings" not in record:
            raise Damaged("evidence.json has no measurement.timings")
        low, high = confidence_interval(record["timings"], budget.statistic, _needed(latency.session_std))
        yield Report(latency=Latency(interval_ms=[low, high]))
    if fits is not None:
        yield Report(verdict=ReportVerdict(status="fits" if fits else "over"))


def _prediction(bundle: Bundle) -> Iterator[Report]:
    model = bundle.latency_model
    if model is None:
        yield Report(latency=Latency(predicted_ms=None, std_ms=None, upper_ms=None))
        return
    (mean,), (std,) = (values.tolist() for values in model.predict([bundle.network]))
    upper = mean + float(ndtri(_needed(bundle.report.budget.confidence))) * std
    total = model.table.known_total(bundle.network, model.statistic)
    yield Report(latency=Latency(predicted_ms=mean, std_ms=std, upper_ms=upper, table_ms=total))
    if bundle.report.latency.says("as_profiled_ms"):
        kept = bundle.evidence.get("level")
        now, then = (
            float(model.at_curve(curve).predict([bundle.network])[0][0])
            for curve in (Curve.from_json(kept) if kept else None, None)
        )
        yield Report(latency=Latency(as_measured_ms=now, as_profiled_ms=then))


def _audit(bundle: Bundle) -> Iterator[Report]:
    """The audit's statistics, from the networks that it measured, and these networks as the report shows them."""
    kept = bundle.evidence.get("audit")
    if kept is None:
        yield Report(audit=None)
        return
    networks = [read_record(AuditedNetwork, one) for one in kept["networks"]]
    found = audit_summary(networks, kept["n_fit"]).to_json()
    words = {"verdict"} | ({"table_only"} if found["table_only"] is None else set())  # words may change
    yield Report(audit=AuditFigures.model_validate({k: v for k, v in found.items() if k not in words}))
    measured = {one["key"]: one for one in kept["networks"]}
    rows = []
    for shown in bundle.report.networks:
        row = TimedNetwork()
        if shown.role == "audit":
            one = _entry(measured, shown.key, "the audit's networks")
            row = TimedNetwork(
                predicted_ms=one["predicted_ms"],
                std_ms=one["std_ms"],
                table_ms=one["table_ms"],
                measured_ms=one["measured_ms"],
            )
        rows.append(row)
    yield Report(networks=rows)


def _networks(bundle: Bundle) -> Iterator[Report]:
    """The whole networks that the model was fitted on, each predicted without itself."""
    model, rows = bundle.latency_model, []
    if model is None:
        return
    predicted = dict(zip(model.evidence, zip(*(v.tolist() for v in left_out(model)), strict=True), strict=True))
    for shown in bundle.report.networks:
        row = TimedNetwork()
        if shown.role == "evidence":
            mean, std = _entry(predicted, shown.key, "the latency model's networks")
            seen = model.table.networks[_needed(shown.key)]
            total = model.table.known_total(seen.ops, model.statistic)
            took = getattr(seen, model.statistic)
            row = TimedNetwork(measured_ms=took, predicted_ms=mean, std_ms=std, table_ms=total)
        rows.append(row)
    yield Report(networks=rows)


def _blocks(bundle: Bundle) -> Iterator[Report]:
    model, units = bundle.latency_model, bundle.network.units
    if model is None or not bundle.report.blocks:
        return
    model.require(bundle.network.unit_keys)
    effects, learned = model.effects, _learned(bundle, model)
    total, rows = sum(effects[unit.op.key] for unit in units), model.table.rows
    yield Report(
        blocks=[
            BlockRow(
                name=unit.name,
                op=unit.op.key,
                table_ms=getattr(rows[unit.op.key], model.statistic) if unit.op.key in rows else None,
                posterior_ms=effects[unit.op.key],
                residual_ms=learned[unit.op.key] - effects[unit.op.key] if learned else None,
                share=effects[unit.op.key] / total,
            )
            for unit in units
        ]
    )


def _learned(bundle: Bundle, model: LatencyModel) -> dict[str, float] | None:
    """The blocks' effects once the model has seen the chosen network's own measurement; None without one."""
    record = bundle.evidence["measurement"]
    if record is None:
        return None
    statistics = {name: bundle.measured[name] for name in ("p50", "p90", "p99")}
    return model.learned(Row.of(Measurement.from_json({**record, **statistics}))).effects


def _accuracy(bundle: Bundle) -> Iterator[Report]:
    test = bundle.evidence["test"]
    if test is None:
        yield Report(accuracy=Accuracy(measured=None))
    else:
        measured = _share(test["labels"], test["predicted"])
        yield Report(accuracy=Accuracy(measured=measured, n=len(test["labels"])))
        if "torch" in test:  # bundles of older versions have none
            of_torch = _share(test["labels"], test["torch"])
            yield Report(accuracy=Accuracy(torch=of_torch, drop=of_torch - measured))
    if bundle.predictor:
        yield Report(accuracy=Accuracy(predicted=_predicted(bundle, bundle.predictor, bundle.arch)))


def _share(labels: list[int], answers: list[int]) -> float:
    return float(np.mean(np.equal(labels, answers)))


def _predicted(bundle: Bundle, predictor: Predictor, arch: Arch) -> float:
    codec = PopulationCodec(bundle.space)
    return float(objective(codec, predictor)(codec.encode([arch]))[0])


def _beliefs(bundle: Bundle) -> Iterator[Report]:
    """What is believed of the accuracies of the chosen network and the other finalists, and what that rests on."""
    kept, report, rows = bundle.evidence.get("validation"), bundle.report, []
    if kept is None or not report.says("finalists"):  # bundles of older versions
        return
    for shown in report.finalists:
        arch, belief = bundle.space.canonical(shown.arch), None
        found = kept.get(arch.key)
        valid = Validation(found["correct"] / found["n"], found["n"]) if found else None
        if bundle.predictor and not shown.tuned:
            said = _predicted(bundle, bundle.predictor, arch)
            belief = belief_in(said, bundle.predictor.error, report.provenance.supernet_sha256)
        mean, low, high = posterior(belief, valid) or (None, None, None)
        seen, n = valid or (None, 0)
        rows.append(FinalistRow(key=arch.key, posterior=mean, low=low, high=high, valid_accuracy=seen, valid_n=n))
        if arch.key == bundle.arch.key:
            yield Report(accuracy=Accuracy(posterior=mean, low=low, high=high, valid=seen, valid_n=n))
    yield Report(finalists=rows)


def _parity(bundle: Bundle) -> Iterator[Report]:
    logits, reported = bundle.evidence["parity"], bundle.report.parity
    found = compare(*(np.array(values, dtype=np.float32) for values in (logits["torch"], logits["onnx"])))
    yield Report(parity=Parity(max_abs=found.max_abs, top1_agreement=found.top1_agreement))
    if reported.says("psnr_db"):
        yield Report(parity=Parity(psnr_db=found.psnr_db))
    if reported.says("n"):
        yield Report(parity=Parity(n=found.n))


def _answers(bundle: Bundle) -> Iterator[Report]:
    """The pre-processing that ships, and the answers to the test images that travel in the bundle."""
    expected, report = bundle.evidence.get("samples"), bundle.report
    if expected is None:  # bundles of older versions have none
        return
    if report.preprocessing is None or report.preprocessing.to_json() != bundle.preprocessing:
        raise Damaged("preprocessing.json is not what report.json says")
    if not bundle.model.graph.input:
        raise Damaged("model.onnx takes no input")
    found = bundle_answers(bundle.folder, report.parity.runtime, [bundle.folder / name for name in sorted(expected)])
    for name, answer in zip(sorted(expected), found or (), strict=found is not None):
        if answer != expected[name]:
            raise Damaged(f"the model answers class {answer} to {name}, its evidence says {expected[name]}")
    yield from ()


def _baselines(bundle: Bundle) -> Iterator[Report]:
    """Hand-picked networks and the subnet, from their measurements in the same rounds and their counts."""
    kept, shown, budget = bundle.evidence.get("baselines"), bundle.report.baselines, bundle.report.budget
    if kept is None or shown is None:  # they were not asked for
        return
    if len(shown.networks) != len(kept["networks"]):
        raise Damaged("report.json shows other hand-picked networks than evidence.json has")
    again = []
    for record, counted in zip(kept["networks"], kept["test"], strict=True):
        took, low, high = _took(record["timings"])
        share, n = counted["correct"] / counted["n"], counted["n"]
        again.append(HandPicked(accuracy=share, n=n, measured_ms=took, low_ms=low, high_ms=high))
    told = [HandPicked(**{**one.to_json(), **new.to_json()}) for one, new in zip(shown.networks, again, strict=True)]
    timings, then, test = kept["ours"]["timings"], bundle.measured[budget.statistic], bundle.evidence["test"]
    took, low, high = _took(timings)
    now = summarise(timings, range(len(timings)))[budget.statistic]
    ours = ReportBaselines(
        budget_ms=None if budget.max_ms is None else budget.max_ms * now / then,
        accuracy=None if test is None else _share(test["labels"], test["predicted"]),
        n=0 if test is None else len(test["labels"]),
        measured_ms=took,
        low_ms=low,
        high_ms=high,
    )
    yield Report(baselines=placed(told, ours).model_copy(update={"networks": again}))


def _took(timings: list[list[float]]) -> tuple[float, float, float]:
    """The median of a measurement in ms, with its 95 % interval."""
    return summarise(timings, range(len(timings)))["p50"], *confidence_interval(timings, "p50", 0.0)


def _needed(value: Value | None) -> Value:
    """A value without which nothing can be computed.

    Raises:
        Damaged: it is null.
    """
    if value is None:
        raise Damaged("report.json has null where a value is needed")
    return value


def _entry(found: Mapping[str, Value], key: str | None, where: str) -> Value:
    if key is None or key not in found:
        raise Damaged(f"report.json shows the network {(key or '')[:12]}, which is not one of {where} in evidence.json")
    return found[key]


PARTS = (
    *(_subnet, _model, _measurement, _prediction, _audit, _networks, _blocks),
    *(_accuracy, _beliefs, _parity, _answers, _baselines),
)
