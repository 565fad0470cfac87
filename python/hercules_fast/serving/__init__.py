"""Serving one model on one server: service times, simulation, power."""

from hercules_fast.serving.power import PowerMode, ServerPower, server_power
from hercules_fast.serving.service import Fit, fits, service_table
from hercules_fast.serving.simulation import MaxLoadResult, SimulationResult, max_load, simulate
from hercules_fast.serving.terms import ASSUMPTIONS, SWITCHES, Terms

__all__ = [
    "ASSUMPTIONS",
    "SWITCHES",
    "Fit",
    "MaxLoadResult",
    "PowerMode",
    "ServerPower",
    "SimulationResult",
    "Terms",
    "fits",
    "max_load",
    "server_power",
    "service_table",
    "simulate",
]
