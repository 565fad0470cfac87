"""What the rows of a model's lookups cost a memory: seconds and joules out of the cycle-level model of its standard.

Every row of the memory is equally likely, so no row buffer and no cache helps, and runs are long enough for refreshes
to count in full. Runs are made once per process for each shape of table; they do not depend on threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from hercules_fast.hardware import Memory
from hercules_fast.memory import Dimm, DramStandard, gather_table, simulate_dram, uniform_rows, vector_addresses
from hercules_fast.memory.dram import as_standard
from hercules_fast.models import TableGroup

__all__ = ["Gathering", "host_gather", "near_gather"]

Array = npt.NDArray[np.float64]
NmpMode = Literal["nmp", "column-split"]

HOST_READS = 1 << 15
"""Accesses of the run that tells a host's rate: about 15 refreshes of each rank, within 0.5 % of longer runs."""
RANK_READS = 1 << 14
"""Accesses of each rank in the longest near-memory run: about 8 refreshes of each, within 1.5 % of longer runs."""
BATCH_STEP = 8
"""Factor between the batches that are simulated near memory, from the longest down."""
MAX_ROWS = 1 << 31

STATIC = ("background", "refresh")
"""Components of energy that a memory takes whether it is read or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Gathering:
    """Time that a memory is busy, and energy that it takes above standing by, for each entry of a batch axis.

    Energy is NaN where the standard has no currents.
    """

    seconds: Array
    energy_j: Array


def host_gather(
    memory: Memory, tables: Sequence[TableGroup], items: Array, shares: Sequence[float] | None = None
) -> Gathering:
    """Read the rows of ``items`` [I] items by the host, as fast as the memory goes; ``shares`` of each group's lookups.

    Lines of a row lie on the channels in turn, so a channel reads ``lines / channels`` of them, rounded up, from one
    place; the channels share the work alike.
    """
    standard = as_standard(memory.standard)
    access_bytes = standard.access_bytes
    seconds = energy_j = 0.0
    for group, share in zip(tables, shares or [1.0] * len(tables), strict=True):
        lines = -(-group.row_bytes // access_bytes)
        line_s, line_j = _line(standard, memory.ranks, -(-lines // memory.channels))
        read = share * group.count * group.pooling * lines
        seconds += read * line_s / memory.channels
        energy_j += read * line_j
    return Gathering(items * seconds, items * energy_j)


@cache
def _line(standard: DramStandard, ranks: int, run: int) -> tuple[float, float]:
    """Seconds of one channel, and joules, for a line out of ``run`` that lie together."""
    stride = run * standard.access_bytes
    places = min(MAX_ROWS, ranks * standard.rank_bytes // stride)
    rows = uniform_rows(-(-HOST_READS // run), places)
    reads = vector_addresses(rows, row_bytes=stride, access_bytes=standard.access_bytes)
    found = simulate_dram(reads, standard=standard, ranks=ranks)
    spent = [nj for part, nj in found.energy_nj.items() if part not in STATIC]
    return found.seconds / reads.size, (sum(spent) * 1e-9 if spent else np.nan) / reads.size


def near_gather(
    memory: Memory, tables: Sequence[TableGroup], items: Array, shares: Sequence[float] | None = None
) -> Gathering:
    """Gather and add the rows of batches of ``items`` [I] items near memory, on channels with nothing else to do.

    One table lives on one channel: the heaviest first, each where there is least work so far. The busiest channel
    decides the time. Bags of tables of one shape on one channel are one batch; shapes follow one another. With
    ``shares`` of each group's lookups, that share of its bags is gathered whole.
    """
    standard = as_standard(memory.standard)
    dimm = Dimm(standard=standard, dimms=memory.dimms_per_channel, ranks_per_dimm=memory.ranks_per_dimm)
    access_bytes = standard.access_bytes
    bags: dict[tuple[int, int, float], int] = {}  # tables by pooling, accesses of a row and share of their bags
    for group, share in zip(tables, shares or [1.0] * len(tables), strict=True):
        if share > 0:
            kind = group.pooling, -(-group.row_bytes // access_bytes), share
            bags[kind] = bags.get(kind, 0) + group.count
    curves = {kind[:2]: _curve(dimm, memory.nmp_mode, memory.nmp_packet, *kind[:2]) for kind in bags}
    work = {kind: curves[kind[:2]].bag_s * kind[2] for kind in bags}
    loads = [0.0] * memory.channels
    placed: list[dict[tuple[int, int], float]] = [{} for _ in loads]
    for kind in sorted(bags, key=lambda kind: (-work[kind], kind)):
        shape, share = kind[:2], kind[2]
        for _ in range(bags[kind]):
            channel = loads.index(min(loads))
            loads[channel] += work[kind]
            placed[channel][shape] = placed[channel].get(shape, 0.0) + share
    seconds, energy_j = np.zeros(items.size), np.zeros(items.size)
    for here in placed:
        busy = np.zeros(items.size)
        for shape, count in here.items():
            found = curves[shape].at(count * items)
            busy += found.seconds
            energy_j += found.energy_j
        seconds = np.maximum(seconds, busy)
    return Gathering(seconds, energy_j)


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """Bags of one shape on one channel: simulated batches, linear between them, in proportion beyond the last."""

    bags: Array
    """From 0, increasing."""
    seconds: Array
    energy_j: Array

    @property
    def bag_s(self) -> float:
        """Seconds of a bag among many."""
        return float(self.seconds[-1] / self.bags[-1])

    def at(self, bags: Array) -> Gathering:
        """Of batches of any size. A short run ends before a refresh comes: ``bag_s`` is the least."""
        known = np.minimum(bags, self.bags[-1])
        right = np.searchsorted(self.bags, known)
        left = right - 1
        share = (known - self.bags[left]) / (self.bags[right] - self.bags[left])
        beyond = bags / known

        def value(of: Array) -> Array:
            known_value: Array = (of[left] + (of[right] - of[left]) * share) * beyond
            return known_value

        return Gathering(np.maximum(value(self.seconds), bags * self.bag_s), value(self.energy_j))


@cache
def _curve(dimm: Dimm, mode: NmpMode, packet: int, pooling: int, lines: int) -> _Curve:
    standard = as_standard(dimm.standard)
    most_reads = RANK_READS * dimm.ranks
    longest = max(1, most_reads // (pooling * lines))
    stride = lines * standard.access_bytes
    batches = [longest]
    while batches[0] > 1:
        batches.insert(0, max(1, batches[0] // BATCH_STEP))
    found = gather_table(
        dimm,
        batches=batches,
        poolings=(pooling,),
        vector_bytes=(stride,),
        ranks=(dimm.ranks,),
        rows=min(MAX_ROWS, dimm.ranks * standard.rank_bytes // stride),
        mode=mode,
        packet=packet,
        most_reads=most_reads,
    )
    return _Curve(
        np.array([0, *batches], np.float64),
        np.concatenate(([0.0], found.seconds[:, 0, 0, 0])),
        np.concatenate(([0.0], found.energy_j[:, 0, 0, 0])),
    )
