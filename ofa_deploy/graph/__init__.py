"""The one place that writes ONNX: a Network and a dict of numpy weights become a graph under a target's rules."""

from ofa_deploy.graph.precision import CALIBRATION_IMAGES, model_file
from ofa_deploy.graph.rules import check_graph
from ofa_deploy.graph.writer import onnx_bytes, write_onnx

__all__ = ["CALIBRATION_IMAGES", "check_graph", "model_file", "onnx_bytes", "write_onnx"]
