"""Data sets, training by schedules with exact resume, batch-norm recalibration and evaluation."""

from ofa_deploy.training.alone import alone_recipe, expected_seconds, training_id
from ofa_deploy.training.data import Data, batches, load_data, trained_data
from ofa_deploy.training.distributed import ALONE, TIMEOUT, World, join_world
from ofa_deploy.training.evaluation import Evaluation, evaluate, evaluate_all
from ofa_deploy.training.images import cpu_threads, prepare, resize
from ofa_deploy.training.recalibration import RecalibrationCache, recalibrate, specialise, specialise_all
from ofa_deploy.training.sample import read_sample, write_sample
from ofa_deploy.training.supernet_training import train_supernet

__all__ = [
    "ALONE",
    "TIMEOUT",
    "Data",
    "Evaluation",
    "RecalibrationCache",
    "World",
    "alone_recipe",
    "batches",
    "cpu_threads",
    "evaluate",
    "evaluate_all",
    "expected_seconds",
    "join_world",
    "load_data",
    "prepare",
    "read_sample",
    "recalibrate",
    "resize",
    "specialise",
    "specialise_all",
    "train_supernet",
    "trained_data",
    "training_id",
    "write_sample",
]
