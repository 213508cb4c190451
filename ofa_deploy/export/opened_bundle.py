"""A bundle opened to be verified: what its files say, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

from device_agents.summary import summarise
from ofa_deploy.accuracy import Predictor, read_predictor
from ofa_deploy.blocks import Network
from ofa_deploy.config import TargetProfile, read_document
from ofa_deploy.documents.preprocessing_document import Framing
from ofa_deploy.documents.report_document import Report
from ofa_deploy.export.checked_files import read_evidence, read_framing, read_named_arch, read_report
from ofa_deploy.export.evidence import Evidence
from ofa_deploy.graph import check_graph
from ofa_deploy.json_types import JSON
from ofa_deploy.latency import LatencyModel
from ofa_deploy.space import Arch, CellSpace, Family, PopulationCodec, load_space

PREDICTOR = "accuracy_predictor.safetensors"


@dataclass
class Bundle:
    """A bundle's files, parsed where they are needed; each raises ``Damaged`` where ``checked_files`` refuses it."""

    folder: Path

    @cached_property
    def report(self) -> Report:
        """``report.json``."""
        return self._read[0]

    @cached_property
    def document(self) -> JSON:
        """``report.json`` as it is."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Report, JSON]:
        return read_report(self.folder)

    @cached_property
    def evidence(self) -> Evidence:
        """``evidence.json``."""
        return read_evidence(self.folder)

    @cached_property
    def preprocessing(self) -> Framing:
        """``preprocessing.json``."""
        return read_framing(self.folder)

    @cached_property
    def model(self) -> onnx.ModelProto:
        """``model.onnx``, a valid graph that obeys the target's rules."""
        model = onnx.load(self.folder / "model.onnx")
        if rules := self.report.provenance.target:
            check_graph(model, read_document(TargetProfile, rules))
        return model

    @cached_property
    def space(self) -> Family:
        """The space as the report's provenance describes it, or the preset that the arch names."""
        described = self.report.provenance.space
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
    def measured(self) -> dict[str, float]:
        """Statistics of the chosen network's measurement, from its raw values; empty if it was not measured."""
        record = self.evidence["measurement"]
        if not record:
            return {}
        timings = record.get("timings") or [[value] for value in record["rounds"]]
        return summarise(timings, range(len(timings)))

    @cached_property
    def _named(self) -> Mapping[str, JSON]:
        return read_named_arch(self.folder)
