"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""

from hercules_fast.measure.load import LoadRun, Pool, Spin, Worker, run_load
from hercules_fast.measure.service import Energy, ServiceMeasurement, measure_service
from hercules_fast.measure.visits import ServicePoint

__all__ = [
    "Energy",
    "LoadRun",
    "Pool",
    "ServiceMeasurement",
    "ServicePoint",
    "Spin",
    "Worker",
    "measure_service",
    "run_load",
]
