"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""

from hercules_fast.measure.comparison import LoadPoint
from hercules_fast.measure.load import LoadRun, Pool, Spin, Worker, run_load
from hercules_fast.measure.replaying import replay
from hercules_fast.measure.validation import validate
from hercules_fast.measure.verdicts import Level, Prediction, Validation

__all__ = [
    "Level",
    "LoadPoint",
    "LoadRun",
    "Pool",
    "Prediction",
    "Spin",
    "Validation",
    "Worker",
    "replay",
    "run_load",
    "validate",
]
