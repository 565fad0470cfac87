"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""

from hercules_fast.measure.accelerator import Accelerator, measure_accelerator
from hercules_fast.measure.engine import Engine, Pooled
from hercules_fast.measure.load import LoadRun, Pool, Spin, Worker, run_load

__all__ = [
    "Accelerator",
    "Engine",
    "LoadRun",
    "Pool",
    "Pooled",
    "Spin",
    "Worker",
    "measure_accelerator",
    "run_load",
]
