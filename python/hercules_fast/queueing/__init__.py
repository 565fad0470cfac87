"""Queue simulation of any inference server: a system as data, queries, latencies with their intervals."""

from hercules_fast.queueing.files import Simulation, load_simulation
from hercules_fast.queueing.laws import Law, LawService, LinearService, TableService
from hercules_fast.queueing.mlperf import mlperf_server_valid
from hercules_fast.queueing.results import MaxLoadResult, SimulationResult, StationResult
from hercules_fast.queueing.runs import load_curve, max_load, simulate, sweep
from hercules_fast.queueing.sources import Queries, Source, Trace
from hercules_fast.queueing.systems import Route, Station, System

__all__ = [
    "Law",
    "LawService",
    "LinearService",
    "MaxLoadResult",
    "Queries",
    "Route",
    "Simulation",
    "SimulationResult",
    "Source",
    "Station",
    "StationResult",
    "System",
    "TableService",
    "Trace",
    "load_curve",
    "load_simulation",
    "max_load",
    "mlperf_server_valid",
    "simulate",
    "sweep",
]
