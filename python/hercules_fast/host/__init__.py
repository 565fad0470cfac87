"""This machine, as this process may use it: what the system says of it, how quiet it is, how fast its memory is."""

from __future__ import annotations

from hercules_fast.host.cores import Cores, usable_cores
from hercules_fast.host.facts import HostFacts, describe
from hercules_fast.host.files import save_descriptors
from hercules_fast.host.imports import read_lscpu_json, read_nvidia_smi_csv, server_of
from hercules_fast.host.limits import MemoryLimit, MemoryLimits, memory_limits
from hercules_fast.host.noise import LOST_SHARE_LIMIT, Noise, noise_probe, steal_ticks
from hercules_fast.host.power import EnergyMeter, PowerSource, energy_meter, package_limit_w, power_sources
from hercules_fast.host.system import Cache, HugePages, System, available_memory_bytes, read_system

__all__ = [
    "LOST_SHARE_LIMIT",
    "Cache",
    "Cores",
    "EnergyMeter",
    "HostFacts",
    "HugePages",
    "MemoryLimit",
    "MemoryLimits",
    "Noise",
    "PowerSource",
    "System",
    "available_memory_bytes",
    "describe",
    "energy_meter",
    "memory_limits",
    "noise_probe",
    "package_limit_w",
    "power_sources",
    "read_lscpu_json",
    "read_nvidia_smi_csv",
    "read_system",
    "save_descriptors",
    "server_of",
    "steal_ticks",
    "usable_cores",
]
