"""Every figure of the hardware catalogue with its mark: a slip of a digit in a TOML file is a failing test.

Sources stand in the files. The marks: stated in the Hercules slides, vendor's, derived, simulated, assumed.
"""

from __future__ import annotations

from dataclasses import fields

import pytest

import hercules_fast as hf
from hercules_fast import hardware
from hercules_fast.hardware import MARKS

CPU = {
    "xeon-d-2191": {
        "cores": 18,
        "frequency_ghz": 1.6,
        "simd_frequency_ghz": 1.6,
        "fp32_flop_per_cycle": 32,
        "tdp_w": 86,
    },
    "xeon-gold-6138": {
        "cores": 20,
        "frequency_ghz": 2.0,
        "simd_frequency_ghz": 1.9,
        "fp32_flop_per_cycle": 64,
        "tdp_w": 125,
    },
}
CPU_BOTH = {
    "idle_fraction": 0.4,
    "operator_overhead_us": 12,
    "gather_core_gb_s": 6,
    "llc_core_gb_s": 10,
    "gemm_efficiency": 0.95,
    "l2_kb": 1024,
}
MEMORY = {
    "ddr4-t1": {"dimms_per_channel": 1, "ranks_per_dimm": 1, "capacity_gb": 64, "tdp_w": 28},
    "ddr4-t2": {"dimms_per_channel": 1, "ranks_per_dimm": 2, "capacity_gb": 128, "tdp_w": 50},
    "nmp-x2": {"dimms_per_channel": 1, "ranks_per_dimm": 2, "capacity_gb": 128, "tdp_w": 50},
    "nmp-x4": {"dimms_per_channel": 2, "ranks_per_dimm": 2, "capacity_gb": 256, "tdp_w": 100},
    "nmp-x8": {"dimms_per_channel": 4, "ranks_per_dimm": 2, "capacity_gb": 512, "tdp_w": 200},
}
GPU = {
    "p100": {"fp32_tflop_s": 10.6, "memory_gb_s": 720},
    "v100": {"fp32_tflop_s": 15.7, "memory_gb_s": 900},
}
GPU_BOTH = {
    "memory_gb": 16,
    "memory_reserve": 0.1,
    "link_gb_s": 10,
    "tdp_w": 300,
    "idle_fraction": 0.4,
    "operator_overhead_us": 21,
    "compute_efficiency": 0.35,
    "gather_efficiency": 0.37,
    "max_instances": 4,
}


def check(descriptor, figures) -> None:
    for name, value in figures.items():
        assert getattr(descriptor, name) == value, f"{descriptor.name}.{name}"


def marks(descriptor) -> dict[str, str]:
    """Field -> mark; a source may cover several fields."""
    return {
        name.strip(): text.split(":")[0].split()[0]
        for key, text in descriptor.sources.items()
        for name in key.split(",")
    }


@pytest.mark.parametrize("name", CPU)
def test_cpus(name) -> None:
    check(hardware.cpu(name), CPU[name] | CPU_BOTH)
    found = marks(hardware.cpu(name))
    assert {found[f] for f in ("cores", "frequency_ghz", "tdp_w", "llc_mb")} == {"stated"}
    assert {found[f] for f in ("simd_frequency_ghz", "llc_core_gb_s", "idle_fraction")} == {"assumed"}


@pytest.mark.parametrize("name", MEMORY)
def test_memories(name) -> None:
    memory = hardware.memory(name)
    check(memory, MEMORY[name] | {"channels": 4, "idle_fraction": 0.4})
    assert memory.standard == hf.memory.standard("DDR4-2400R-x4")
    assert memory.ranks == memory.dimms_per_channel * memory.ranks_per_dimm
    held_gib = memory.channels * memory.ranks * memory.standard.rank_bytes / 2**30
    assert held_gib == memory.capacity_gb, "the chips are those that make up the stated capacity"
    found = marks(memory)
    assert found["capacity_gb"] == found["tdp_w"] == "stated"
    assert found["standard"] == "assumed"
    near = {"nmp_mode": "nmp", "nmp_packet": 640, "nmp_issue_ns": 2} if memory.kind == "nmp" else {"nmp_packet": 0}
    check(memory, near)
    assert memory.kind == ("nmp" if name.startswith("nmp") else "ddr4")
    if memory.kind == "nmp":
        assert found["nmp_packet"] == found["nmp_issue_ns"] == "assumed"


@pytest.mark.parametrize("name", GPU)
def test_gpus(name) -> None:
    check(hardware.gpu(name), GPU[name] | GPU_BOTH)
    assert marks(hardware.gpu(name))["link_gb_s"] == "assumed"


def test_servers() -> None:
    for name in hardware.server_names():
        check(hardware.server(name), {"base_w": 40, "memory_reserve": 0.1})


def test_every_figure_has_a_known_mark() -> None:
    for kind, names in (
        (hardware.cpu, hardware.cpu_names()),
        (hardware.memory, hardware.memory_names()),
        (hardware.gpu, hardware.gpu_names()),
    ):
        for name in names:
            found = marks(kind(name))
            assert set(found.values()) <= set(MARKS)
            figures = {f.name for f in fields(kind(name)) if f.type in ("int", "float", "tuple[float, ...]")}
            missing = {f for f in figures if getattr(kind(name), f)} - set(found)
            assert not missing, f"{name}: no source for {missing}"
