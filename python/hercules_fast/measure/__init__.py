"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""

from hercules_fast.measure.load import LoadRun, Pool, Server, Spin, Worker, run_load

__all__ = ["LoadRun", "Pool", "Spin", "Worker", "run_load"]
from hercules_fast.measure.blas import cap_blas_threads
from hercules_fast.measure.engine import Engine, Pooled, Worker
from hercules_fast.measure.network import Network, wire

__all__ = ["Engine", "Network", "Pooled", "Worker", "cap_blas_threads", "wire"]
__all__ = ["LoadRun", "Pool", "Server", "Spin", "Worker", "run_load"]
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
