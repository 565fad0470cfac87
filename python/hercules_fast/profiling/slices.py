"""The landscape around a configuration: the rate along each axis of its kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast import _core
from hercules_fast.errors import InterruptedRun
from hercules_fast.profiling.lattice import Space
from hercules_fast.profiling.pairs import Pair, core_problem
from hercules_fast.profiling.settings import Effort, Goal
from hercules_fast.tables import SchedulingConfig

__all__ = ["Slice", "slices_through"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Highest load within the SLAs against one axis, through the configuration that a search found.

    The other axes stay. Where a value has no such configuration, as when twice the cores leave half of the threads, the
    nearest that differs on one more axis stands for it; values without one are left out. ``configs`` says which.
    """

    axis: str
    values: tuple[int, ...]
    """Rising; as the lattice counts them, see :mod:`hercules_fast.profiling.lattice`."""
    qps: tuple[float, ...]
    """On the search's short run (``Effort.queries``); 0 where the empty system misses an SLA."""
    configs: tuple[SchedulingConfig, ...]
    at: int
    """Position of the found configuration."""


def slices_through(
    pair: Pair, index: int, seed: int, threads: int | None, effort: Effort, goal: Goal
) -> tuple[Slice, ...]:
    """A slice for each axis on which candidate ``index`` has an alternative. Raises InterruptedRun on Ctrl-C."""
    assert pair.table is not None and pair.space is not None
    table, space = pair.table, pair.space
    lines = dict(_lines(space, index))
    rows = sorted({int(row) for line in lines.values() for row in line})
    if not rows:
        return ()
    try:
        rates = _core.candidate_rates(
            core_problem(pair, seed, goal), rows, queries=effort.queries, cap=effort.utilisation_cap, threads=threads
        )
    except KeyboardInterrupt:
        raise InterruptedRun("interrupted before the slices were measured") from None
    qps = dict(zip(rows, rates.tolist(), strict=True))
    return tuple(
        Slice(
            axis=axis,
            values=tuple(space.place(row)[axis] for row in line),
            qps=tuple(qps[row] for row in line),
            configs=tuple(space.config(table, row) for row in line),
            at=line.index(index),
        )
        for axis, line in lines.items()
    )


def _lines(space: Space, index: int) -> Iterator[tuple[str, list[int]]]:
    """(axis, one candidate for each value, rising) through candidate ``index``; axes with one value are left out."""
    here = space.coords[index]
    own = np.flatnonzero(space.coords[:, 0] == here[0])
    coords = space.coords[own]
    steps = np.stack([_rank(column) for column in coords.T], axis=1)
    steps = np.abs(steps - steps[own == index])
    for column, axis in enumerate(space.axes(space.kinds[here[0]]), start=1):
        elsewhere = np.delete(steps, column, axis=1)
        changed = (elsewhere > 0).sum(axis=1)
        order = np.lexsort((elsewhere.sum(axis=1), changed, coords[:, column]))
        order = order[changed[order] <= 1]
        _, first = np.unique(coords[order, column], return_index=True)
        if first.size > 1:
            yield axis, own[order[first]].tolist()


def _rank(column: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Position of each entry among the distinct values."""
    return np.unique(column, return_inverse=True)[1]
