"""Data sets, the sandwich training loop with exact resume, batch-norm recalibration and evaluation."""

from ofa_deploy.training.data import Data, batches, load_data
from ofa_deploy.training.distributed import ALONE, TIMEOUT, World, join_world
from ofa_deploy.training.evaluation import Evaluation, evaluate, recalibrate, specialise
from ofa_deploy.training.images import prepare, resize
from ofa_deploy.training.loop import train_supernet

__all__ = [
    "ALONE",
    "TIMEOUT",
    "Data",
    "Evaluation",
    "World",
    "batches",
    "evaluate",
    "join_world",
    "load_data",
    "prepare",
    "recalibrate",
    "resize",
    "specialise",
    "train_supernet",
]
