"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""

from hercules_fast.measure.accelerator import Accelerator, measure_accelerator
from hercules_fast.measure.blas import cap_blas_threads
from hercules_fast.measure.engine import Engine, Pooled, Worker
from hercules_fast.measure.load import LoadRun, Pool, Server, Spin, run_load
from hercules_fast.measure.network import Network, wire
from hercules_fast.measure.service import Energy, ServiceMeasurement, measure_service
from hercules_fast.measure.visits import ServicePoint

__all__ = [
    "Accelerator",
    "Energy",
    "Engine",
    "LoadRun",
    "Network",
    "Pool",
    "Pooled",
    "Server",
    "ServiceMeasurement",
    "ServicePoint",
    "Spin",
    "Worker",
    "cap_blas_threads",
    "measure_accelerator",
    "measure_service",
    "run_load",
    "wire",
]
