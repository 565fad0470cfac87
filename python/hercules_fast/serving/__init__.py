"""Serving one model on one server: service times, power."""

from hercules_fast.serving.power import PowerMode, ServerPower, core_power, server_power
from hercules_fast.serving.service import Fit, fits, lone_seconds, service_table
from hercules_fast.serving.terms import ASSUMPTIONS, SWITCHES, Terms

__all__ = [
    "ASSUMPTIONS",
    "SWITCHES",
    "Fit",
    "PowerMode",
    "ServerPower",
    "Terms",
    "core_power",
    "fits",
    "lone_seconds",
    "server_power",
    "service_table",
]
