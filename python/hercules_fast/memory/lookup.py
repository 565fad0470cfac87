"""How long a batch of embedding bags keeps one channel of near-memory DIMMs, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from hercules_fast.errors import InputError
from hercules_fast.memory.dram import as_standard
from hercules_fast.memory.nmp import Dimm, NmpTable, simulate_nmp
from hercules_fast.memory.traces import uniform_rows, zipf_rows

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["GatherTable", "gather_table"]

_STATIC = ("background", "refresh")
"""Components of energy that a memory takes whether it gathers or not."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GatherTable:
    """Seconds and joules of gathering ``batches`` bags on one channel."""

    batches: tuple[int, ...]
    poolings: tuple[int, ...]
    vector_bytes: tuple[int, ...]
    ranks: tuple[int, ...]
    seconds: npt.NDArray[np.float64]
    """``[batches, poolings, vector_bytes, ranks]``, from the first instruction to the last sum at the host."""
    energy_j: npt.NDArray[np.float64]
    """The same shape: what gathering takes above standing by and refreshing; NaN for a standard without currents."""
    simulated: npt.NDArray[np.bool_]
    """The same shape: cells that were simulated. The others are in proportion to the largest batch that was."""


def gather_table(
    dimm: Dimm = Dimm(),
    *,
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    poolings: Sequence[int] = (1, 10, 20, 40, 80, 120),
    vector_bytes: Sequence[int] = (64, 128, 256),
    ranks: Sequence[int] = (2, 4, 8),
    rows: int = 1 << 20,
    exponent: float = 0.0,
    mode: Literal["nmp", "column-split"] = "nmp",
    packet: int = 640,
    most_reads: int = 1 << 16,
    seed: int = 0,
    threads: int | None = None,
) -> GatherTable:
    """Simulate batches of bags on one channel, over four axes.

    Batches beyond ``most_reads`` accesses (but the smallest always) are not simulated: time and energy go on in
    proportion, for a channel that is busy takes the same for each further bag.

    Args:
        dimm: What sits on the channel; ``ranks`` stands in for its number of DIMMs.
        batches: Bags of a batch, increasing.
        poolings: Lookups of a bag.
        vector_bytes: Bytes of a row of float32, multiples of 4.
        ranks: Ranks of the channel.
        rows, exponent, seed: As for :func:`sweep_memory`.
        mode: As for :func:`simulate_nmp`.
        packet: Instructions between barriers, 0 for none.
        most_reads: Accesses up to which a batch is simulated.
        threads: As for :func:`simulate_nmp`.

    Raises:
        InputError: As :func:`simulate_nmp`; an axis is empty, batches do not increase, a size is below 1.
    """
    for name, axis in (("poolings", poolings), ("vector_bytes", vector_bytes), ("ranks", ranks)):
        if not axis:
            raise InputError(f"{name}: is empty; allowed is at least one")
        for i, value in enumerate(axis):
            if value < 1:
                raise InputError(f"{name}[{i}]: is {value}; allowed is from 1")
    if not batches or batches[0] < 1 or any(a >= b for a, b in pairwise(batches)):
        raise InputError(f"batches: are {tuple(batches)}; allowed are one or more, from 1, increasing")
    for i, size in enumerate(vector_bytes):
        if size % 4:
            raise InputError(f"vector_bytes[{i}]: is {size}; allowed is a multiple of 4 from 4")
    shape = (len(batches), len(poolings), len(vector_bytes), len(ranks))
    seconds, energy_j, simulated = np.empty(shape), np.empty(shape), np.zeros(shape, np.bool_)
    count = max(batches[0] * max(poolings), most_reads)
    draw = zipf_rows(count, rows, exponent=exponent, seed=seed) if exponent else uniform_rows(count, rows, seed=seed)
    access_bytes = as_standard(dimm.standard).access_bytes
    for r, number in enumerate(ranks):
        ours = replace(dimm, ranks_per_dimm=min(dimm.ranks_per_dimm, number))
        for v, size in enumerate(vector_bytes):
            table = NmpTable(rows=rows, dim=size // 4)
            for p, pooling in enumerate(poolings):
                cell = (slice(None), p, v, r)
                accesses = pooling * -(-size // access_bytes)
                run = [b for b, batch in enumerate(batches) if b == 0 or batch * accesses <= most_reads]
                for b in run:
                    lookups = batches[b] * pooling
                    found = simulate_nmp(
                        draw[:lookups],
                        np.arange(0, lookups, pooling),
                        [table],
                        dimm=ours,
                        mode=mode,
                        ranks=number,
                        packet=packet,
                        baseline=False,
                        threads=threads,
                    )
                    spent = {part: nj for part, nj in found.energy_nj.items() if part not in _STATIC}
                    seconds[b, p, v, r] = found.seconds
                    energy_j[b, p, v, r] = sum(spent.values()) * 1e-9 if spent else np.nan
                    simulated[b, p, v, r] = True
                for values in (seconds[cell], energy_j[cell]):
                    _go_on(np.array(batches, np.float64), values, len(run))
    return GatherTable(
        batches=tuple(batches),
        poolings=tuple(poolings),
        vector_bytes=tuple(vector_bytes),
        ranks=tuple(ranks),
        seconds=seconds,
        energy_j=energy_j,
        simulated=simulated,
    )


def _go_on(batches: npt.NDArray[np.float64], values: npt.NDArray[np.float64], known: int) -> None:
    """Fill ``values[known:]`` in proportion to the last known one."""
    values[known:] = values[known - 1] * batches[known:] / batches[known - 1]
