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


def host_gather(memory: Memory, tables: Sequence[TableGroup], items: Array) -> Gathering:
    """Read the rows of ``items`` [I] items by the host, as fast as the memory goes.

    Lines of a row lie on the channels in turn, so a channel reads ``lines / channels`` of them, rounded up, from one
    place; the channels share the work alike.
    """
    standard = as_standard(memory.standard)
    access_bytes = standard.access_bytes
    seconds = energy_j = 0.0
    for group in tables:
        lines = -(-group.row_bytes // access_bytes)
        line_s, line_j = _line(standard, memory.ranks, -(-lines // memory.channels))
        read = group.count * group.pooling * lines
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


def near_gather(memory: Memory, tables: Sequence[TableGroup], items: Array) -> Gathering:
    """Gather and add the rows of batches of ``items`` [I] items near memory, on channels with nothing else to do.

    One table lives on one channel: the heaviest first, each where there is least work so far. The busiest channel
    decides the time. Bags of tables of one shape on one channel are one batch; shapes follow one another.
    """
    standard = as_standard(memory.standard)
    dimm = Dimm(standard=standard, dimms=memory.dimms_per_channel, ranks_per_dimm=memory.ranks_per_dimm)
    access_bytes = standard.access_bytes
    shapes: dict[tuple[int, int], int] = {}  # tables by pooling and accesses of a row
    for group in tables:
        shape = group.pooling, -(-group.row_bytes // access_bytes)
        shapes[shape] = shapes.get(shape, 0) + group.count
    curves = {shape: _curve(dimm, memory.nmp_mode, memory.nmp_packet, *shape) for shape in shapes}
    loads = [0.0] * memory.channels
    placed: list[dict[tuple[int, int], int]] = [{} for _ in loads]
    for shape in sorted(shapes, key=lambda shape: (-curves[shape].bag_s, shape)):
        for _ in range(shapes[shape]):
            channel = loads.index(min(loads))
            loads[channel] += curves[shape].bag_s
            placed[channel][shape] = placed[channel].get(shape, 0) + 1
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
        """Of batches of any size from 1. A short run ends before a refresh comes: ``bag_s`` is the least."""
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
