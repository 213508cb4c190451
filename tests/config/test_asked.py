"""What a search is asked: one set of terms, from which documents and options are made."""

import click
import pytest

from ofa_deploy.cli import cli
from ofa_deploy.config import Constraints, OtherConstraints, Plan, PlanTerms, read_document
from ofa_deploy.errors import UsageError
from ofa_deploy.pipeline.document import ExtractStage, PipelineDocument
from ofa_deploy.terms import CONSTRAINTS, PLAN, TERMS


def test_the_documents_have_every_term_and_the_commands_an_option_for_each():
    assert set(Constraints.model_fields) == set(CONSTRAINTS)
    assert set(Plan.model_fields) == set(PLAN)
    assert set(TERMS) <= set(ExtractStage.model_fields)
    options = {option.name: option for option in cli.commands["extract"].params if isinstance(option, click.Option)}
    for name, term in TERMS.items():
        assert options[name].help == term.meaning
        assert options[name].to_info_dict()["default"] == (term.default or (False if term.kind is bool else None)), name


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_key_takes_what_its_term_says_and_nothing_else(name):
    term, model = TERMS[name], Constraints if name in CONSTRAINTS else Plan
    least = term.default if term.default is not None else term.least or 0.5
    if name != "max_energy_mj":
        kept = getattr(model.model_validate({name: least}), name)
        assert (kept, type(kept)) == (least, term.kind)
    wrong = {float: [-1.0, float("nan"), float("inf")], int: [(term.least or 0) - 1], str: ["luck"], bool: ["perhaps"]}
    for value in wrong[term.kind]:
        with pytest.raises(UsageError, match=name.replace("_", "[-_]")):
            model.model_validate({name: value})


def test_a_misspelt_constraint_names_those_there_are():
    with pytest.raises(UsageError, match=r"there is no max_mac; there are .*max_macs"):
        Constraints.model_validate({"max_mac": 1e6})


def test_a_stage_gives_its_constraints_and_its_plan():
    stage = ExtractStage(stage="extract", max_ms=(2,), max_macs=1e6, statistic="p90", strategy="random", evaluations=9)
    assert stage.constraints(2.0) == Constraints(max_ms=2.0, max_macs=1e6, statistic="p90")
    assert stage.plan == Plan(strategy="random", evaluations=9)
    assert isinstance(stage, (OtherConstraints, PlanTerms))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("strategy: luck", "there is no strategy 'luck'; there are evolution"),
        ("time_limit: -1", "time_limit: Input should be greater than 0"),
        ("max_energy_mj: 3", "no runtime here measures energy"),
    ],
)
def test_a_wrong_value_in_a_file_names_its_line(tmp_path, key, said):
    file = tmp_path / "p.yaml"
    file.write_text(f"name: p\nstages:\n  - stage: extract\n    max_ms: 1\n    {key}\n")
    with pytest.raises(UsageError, match=rf"p\.yaml:5: stages.*{said}"):
        read_document(PipelineDocument, file)
