"""What servers are made of: frozen data, every figure with its source.

``sources`` maps a field's name to a text that begins with the figure's mark, one of :data:`MARKS`. Files without a
source for a figure are refused, so no number of a catalogue is anonymous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hercules_fast.descriptors.schema import FILE_RULES, MARKS

__all__ = ["MARKS", "Cpu", "Gpu", "Memory", "Server"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """A processor socket as the service-time model sees it."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    cores: int
    frequency_ghz: float
    """Nominal clock."""
    simd_frequency_ghz: float
    """All-core clock while the widest vector units are busy; what dense layers run at."""
    fp32_flop_per_cycle: float
    """Peak floating-point operations per cycle and core (a fused multiply-add counts as two)."""
    l2_kb: float
    llc_mb: float
    tdp_w: float
    idle_fraction: float
    """Power at idle over ``tdp_w``."""
    operator_overhead_us: float
    """Framework time to dispatch one operator."""
    gather_core_gb_s: float
    """Rate at which one core alone reads random embedding rows from DRAM."""
    llc_core_gb_s: float
    """Rate at which one core streams dense weights from the last-level cache."""
    gemm_efficiency: float
    """Share of peak that a wide matrix multiplication reaches."""
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def core_gflop_s(self) -> float:
        """Peak fp32 rate of one core, GFLOP/s."""
        return self.simd_frequency_ghz * self.fp32_flop_per_cycle


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """The DRAM of a server; ``kind="nmp"`` adds near-memory processing on every rank (after RecNMP).

    How fast it gathers rows, and at what energy, is no figure of its own: a cycle-level model of its standard tells.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    kind: Literal["ddr4", "nmp"]
    standard: Any
    """What its ranks are: a :class:`hercules_fast.memory.DramStandard`, or the name of one in the catalogue."""
    channels: int
    dimms_per_channel: int
    ranks_per_dimm: int
    capacity_gb: float
    """Decimal gigabytes."""
    tdp_w: float
    idle_fraction: float
    nmp_mode: Literal["nmp", "column-split"] = "nmp"
    """Each rank gathers whole rows (after RecNMP), or its piece of every row (after TensorDIMM)."""
    nmp_packet: int = 0
    """Lookups between two barriers of a channel; 0 for none."""
    nmp_issue_ns: float = 0.0
    """Host time to issue one near-memory lookup."""
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranks(self) -> int:
        """Ranks of a channel."""
        return self.dimms_per_channel * self.ranks_per_dimm


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """An accelerator card."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    fp32_tflop_s: float
    memory_gb: float
    memory_gb_s: float
    memory_reserve: float
    """Share of ``memory_gb`` that a model may not use."""
    link_gb_s: float
    """Rate at which inputs really arrive over the host link."""
    tdp_w: float
    idle_fraction: float
    operator_overhead_us: float
    """Time to launch one operator."""
    compute_efficiency: float
    gather_efficiency: float
    """Share of ``memory_gb_s`` that random row reads reach."""
    max_instances: int
    """Most model copies that the scheduler may co-locate on the card."""
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server type: one socket, its memory, at most one accelerator."""

    name: str
    cpu: Cpu
    memory: Memory
    gpu: Gpu | None = None
    base_w: float
    """Power of everything that is neither CPU, memory nor accelerator, always drawn."""
    memory_reserve: float
    """Share of the memory's capacity that a model may not use."""
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def component_tdp_w(self) -> float:
        """Sum of the components' TDPs (what the paper's tables list), without ``base_w``."""
        return self.cpu.tdp_w + self.memory.tdp_w + (self.gpu.tdp_w if self.gpu else 0.0)
