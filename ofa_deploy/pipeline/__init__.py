"""Runs a YAML pipeline stage by stage; a stage whose inputs and outputs did not change is skipped."""

from ofa_deploy.pipeline.question import Question, read_pipeline
from ofa_deploy.pipeline.runner import PipelineResult, run_pipeline

__all__ = ["PipelineResult", "Question", "read_pipeline", "run_pipeline"]
