"""The landscape around a configuration: the rate along each axis of its kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast import _core
from hercules_fast.errors import InterruptedRun
from hercules_fast.profiling.lattice import UNBOUNDED, WHOLE, Space
from hercules_fast.profiling.pairs import Pair, core_problem
from hercules_fast.profiling.settings import Effort, Goal
from hercules_fast.tables import SchedulingConfig

__all__ = ["Slice", "axis_words", "slices_through", "value_words"]

AXES = {"hot_share_ppm": "hot share", "max_wait_us": "longest wait, us"}
"""Axes whose names in words are not their own."""


def axis_words(axis: str) -> str:
    """An axis of the lattice in words, with its unit."""
    return AXES.get(axis, axis.replace("_", " "))


def value_words(axis: str, value: int) -> str:
    """A value on an axis of the lattice in words."""
    if axis == "hot_share_ppm":
        return f"{value / 1e4:.3g}%"
    if axis == "dense_share":
        return f"{value}/{WHOLE}"
    return "unbounded" if axis == "buffer" and value == UNBOUNDED else f"{value}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Highest load within the SLAs against one axis, through the configuration that a search found.

    The other axes stay. Where a value has no such configuration, as when twice the cores leave half of the threads, the
    nearest that differs on one more axis stands for it (not ``exact``); values without one are left out.
    """

    axis: str
    values: tuple[int, ...]
    """Rising; as the lattice counts them, see :mod:`hercules_fast.profiling.lattice`."""
    qps: tuple[float, ...]
    """On the search's short run (``Effort.queries``); 0 where the empty system misses an SLA."""
    configs: tuple[SchedulingConfig, ...]
    exact: tuple[bool, ...]
    """Whether all other axes stayed."""
    at: int
    """Position of the found configuration."""

    @property
    def title(self) -> str:
        """The axis in words."""
        return axis_words(self.axis)

    def label(self, value: int) -> str:
        """A value of the axis in words."""
        return value_words(self.axis, value)


def slices_through(
    pair: Pair, index: int, seed: int, threads: int | None, effort: Effort, goal: Goal
) -> tuple[Slice, ...]:
    """A slice for each axis on which candidate ``index`` has an alternative. Raises InterruptedRun on Ctrl-C."""
    assert pair.table is not None and pair.space is not None
    table, space = pair.table, pair.space
    lines = list(_lines(space, index))
    rows = sorted({row for _, line, _ in lines for row in line})
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
            exact=exact,
            at=line.index(index),
        )
        for axis, line, exact in lines
    )


def _lines(space: Space, index: int) -> Iterator[tuple[str, list[int], tuple[bool, ...]]]:
    """(axis, a candidate for each value, rising, whether exact) through ``index``; axes with one value are left out."""
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
        chosen = order[first]
        if chosen.size > 1:
            yield axis, own[chosen].tolist(), tuple((changed[chosen] == 0).tolist())


def _rank(column: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Position of each entry among the distinct values."""
    return np.unique(column, return_inverse=True)[1]
