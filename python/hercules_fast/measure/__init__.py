"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""

from hercules_fast.measure.accelerator import Accelerator, measure_accelerator
from hercules_fast.measure.blas import cap_blas_threads
from hercules_fast.measure.comparison import LoadPoint
from hercules_fast.measure.descriptor import server_descriptor
from hercules_fast.measure.engine import Engine, Pooled, Worker
from hercules_fast.measure.load import LoadRun, Pool, Server, Spin, run_load
from hercules_fast.measure.network import Network, wire
from hercules_fast.measure.replaying import replay
from hercules_fast.measure.service import Energy, ServiceMeasurement, measure_service
from hercules_fast.measure.validation import validate
from hercules_fast.measure.verdicts import Level, Prediction, Validation
from hercules_fast.measure.visits import ServicePoint

__all__ = [
    "Accelerator",
    "Energy",
    "Engine",
    "Level",
    "LoadPoint",
    "LoadRun",
    "Network",
    "Pool",
    "Pooled",
    "Prediction",
    "Server",
    "ServiceMeasurement",
    "ServicePoint",
    "Spin",
    "Validation",
    "Worker",
    "cap_blas_threads",
    "measure_accelerator",
    "measure_service",
    "replay",
    "run_load",
    "server_descriptor",
    "validate",
    "wire",
]
