"""Near-memory processing over ranks, row sizes and stages, each beside a host with the same ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hercules_fast.errors import InputError
from hercules_fast.memory.dram import as_standard
from hercules_fast.memory.nmp import Dimm, NmpResult, NmpTable, Variant, simulate_nmp, variants
from hercules_fast.memory.standards import DramStandard
from hercules_fast.memory.traces import uniform_rows, zipf_rows

__all__ = ["MemorySweep", "SweepRow", "sweep_memory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRow:
    """One point of a sweep."""

    vector_bytes: int
    ranks: int
    """Ranks of the channel."""
    stage: str
    cache_kb: float
    total_cycles: int
    host_cycles: int
    """The same bags gathered by a host with the same ranks."""
    host_gb_s: float
    bandwidth_gb_s: float
    speedup: float
    hit_rate: float
    energy_saving: float
    """Share of the host's memory energy; NaN for a standard without currents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySweep:
    """Rows by vector size, ranks and stage, and what they were made with."""

    standard: str
    tables: int
    rows: int
    pooling: int
    bags: int
    packet: int
    exponent: float
    seed: int
    points: tuple[SweepRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def sweep_memory(
    *,
    standard: str | DramStandard = "DDR4-2400R",
    ranks: Sequence[int] = (2, 4, 8),
    vector_bytes: Sequence[int] = (64, 128, 256),
    stages: Sequence[Variant] | None = None,
    tables: int = 8,
    rows: int = 1 << 20,
    pooling: int = 80,
    bags: int = 32,
    packet: int = 640,
    exponent: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MemorySweep:
    """Gather the same bags near memory and on the host, on one channel, for every combination.

    Args:
        standard: As for :func:`simulate_dram`.
        ranks: Ranks of the channel, powers of two, two on a DIMM.
        vector_bytes: Bytes of a row of float32, multiples of 4.
        stages: What is switched on; default: the four of :func:`variants`.
        tables, rows: Tables and their rows.
        pooling, bags: Lookups of a bag, and bags of each table.
        packet: Instructions between barriers, 0 for none.
        exponent: Popularity ``r ** -exponent`` of the r-th row; 0: all rows alike.
        seed: Of the rows drawn.
        threads: As for :func:`simulate_nmp`.
        progress: Called with (points done, points).

    Raises:
        InputError: As :func:`simulate_nmp`; a list is empty, or a vector is no multiple of 4 bytes.
    """
    stages = variants() if stages is None else tuple(stages)
    for name, values in (("ranks", ranks), ("vector_bytes", vector_bytes), ("stages", stages)):
        if not values:
            raise InputError(f"{name}: is empty; allowed is at least one")
    for name, value in (("tables", tables), ("pooling", pooling), ("bags", bags)):
        if value < 1:
            raise InputError(f"{name}: is {value}; allowed is from 1")
    for i, size in enumerate(vector_bytes):
        if size < 4 or size % 4:
            raise InputError(f"vector_bytes[{i}]: is {size}; allowed is a multiple of 4 from 4")
    lookups = tables * bags * pooling
    draw = (
        zipf_rows(lookups, rows, exponent=exponent, seed=seed) if exponent else uniform_rows(lookups, rows, seed=seed)
    )
    offsets = np.arange(0, lookups, pooling)
    chosen = as_standard(standard)
    points = []
    total = len(vector_bytes) * len(ranks) * len(stages)
    for size in vector_bytes:
        table = NmpTable(rows=rows, dim=size // 4)
        for count in ranks:
            hosts: dict[str, NmpResult | None] = {}  # by order: nothing else of a stage concerns the host
            for stage in stages:
                found = simulate_nmp(
                    draw,
                    offsets,
                    [table] * tables,
                    dimm=Dimm(standard=chosen),
                    ranks=count,
                    packet=packet,
                    cache_kb=stage.cache_kb,
                    order=stage.order,
                    hot_threshold=stage.hot_threshold,
                    baseline=stage.order not in hosts,
                    threads=threads,
                )
                found = replace(found, host=hosts.setdefault(stage.order, found.host))
                assert found.host is not None
                point = SweepRow(
                    vector_bytes=size,
                    ranks=count,
                    stage=stage.name,
                    cache_kb=stage.cache_kb,
                    total_cycles=found.total_cycles,
                    host_cycles=found.host.total_cycles,
                    host_gb_s=found.host.bandwidth_gb_s,
                    bandwidth_gb_s=found.bandwidth_gb_s,
                    speedup=found.speedup,
                    hit_rate=found.hit_rate,
                    energy_saving=found.energy_saving,
                )
                points.append(point)
                if progress is not None:
                    progress(len(points), total)
    return MemorySweep(
        standard=chosen.name,
        tables=tables,
        rows=rows,
        pooling=pooling,
        bags=bags,
        packet=packet,
        exponent=exponent,
        seed=seed,
        points=tuple(points),
    )
