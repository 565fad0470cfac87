"""Cycle-level memory: DRAM standards as data, traffic served by a memory controller, traces of embedding lookups."""

from hercules_fast.memory.dram import DEFAULT_MAPPING, DramResult, earliest_cycles, simulate_dram
from hercules_fast.memory.lookup import GatherTable, gather_table
from hercules_fast.memory.nmp import Dimm, NmpResult, NmpTable, Variant, simulate_nmp, variants
from hercules_fast.memory.standards import (
    Currents,
    DramStandard,
    Organisation,
    Timing,
    load_standard,
    standard,
    standard_names,
)
from hercules_fast.memory.sweep import MemorySweep, SweepRow, sweep_memory
from hercules_fast.memory.traces import reuse_rows, uniform_rows, vector_addresses, zipf_rows

__all__ = [
    "DEFAULT_MAPPING",
    "Currents",
    "Dimm",
    "DramResult",
    "DramStandard",
    "GatherTable",
    "MemorySweep",
    "NmpResult",
    "NmpTable",
    "Organisation",
    "SweepRow",
    "Timing",
    "Variant",
    "earliest_cycles",
    "gather_table",
    "load_standard",
    "reuse_rows",
    "simulate_dram",
    "simulate_nmp",
    "standard",
    "standard_names",
    "sweep_memory",
    "uniform_rows",
    "variants",
    "vector_addresses",
    "zipf_rows",
]
