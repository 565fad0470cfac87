"""Machines on (row, workload) pairs over time, kept sparse: an optimum uses few of the pairs of a large fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError

__all__ = ["Assignment", "intervals_done"]

# Entries of the largest dense array that is made on request: 1 GiB.
_DENSE_ENTRIES = 1 << 27


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Assignment:
    """Machines switched on in T intervals; sorted by interval, row and workload, without zeros."""

    shape: tuple[int, int, int]
    """T intervals, R rows (server types, or their configurations), W workloads."""
    starts: npt.NDArray[np.int64]
    """int64 [T + 1]: the entries of interval t are ``starts[t] : starts[t + 1]``."""
    row: npt.NDArray[np.int32]
    """int32 [K]."""
    workload: npt.NDArray[np.int32]
    """int32 [K]."""
    machines: npt.NDArray[Any]
    """[K] float64 (fractional) or int64 (whole machines)."""

    @classmethod
    def from_dense(cls, machines: npt.NDArray[Any]) -> Assignment:
        """From an array [T, R, W]."""
        interval, row, workload = np.nonzero(machines)
        starts = np.searchsorted(interval, np.arange(len(machines) + 1))
        return cls(
            shape=(machines.shape[0], machines.shape[1], machines.shape[2]),
            starts=starts.astype(np.int64),
            row=row.astype(np.int32),
            workload=workload.astype(np.int32),
            machines=machines[interval, row, workload],
        )

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], n: int, n_rows: int, n_workloads: int) -> Assignment:
        """The first ``n`` intervals of what the core returns."""
        starts = columns["starts"][: n + 1]
        places = slice(int(starts[-1]))
        parts = {name: columns[name][places] for name in ("row", "workload", "machines")}
        return cls(shape=(n, n_rows, n_workloads), starts=starts, **parts)

    @property
    def interval(self) -> npt.NDArray[np.int64]:
        """int64 [K], the interval of each entry."""
        if self.shape[0] == 1:
            return np.zeros(len(self.row), dtype=np.int64)
        return np.repeat(np.arange(self.shape[0]), np.diff(self.starts))

    def first(self, n: int) -> Assignment:
        """The first ``n`` intervals."""
        places = slice(int(self.starts[n]))
        return Assignment(
            shape=(n, *self.shape[1:]),
            starts=self.starts[: n + 1],
            row=self.row[places],
            workload=self.workload[places],
            machines=self.machines[places],
        )

    def dense(self) -> npt.NDArray[Any]:
        """Array [T, R, W]. Raises :class:`InputError` where it would have more than 2**27 entries."""
        entries = self.shape[0] * self.shape[1] * self.shape[2]
        if entries > _DENSE_ENTRIES:
            raise InputError(
                f"servers: {self.shape} = {entries} entries as a dense array; allowed: up to {_DENSE_ENTRIES}; "
                "use the sparse form"
            )
        full = np.zeros(self.shape, dtype=self.machines.dtype)
        full[self.interval, self.row, self.workload] = self.machines
        return full

    def per_workload(self, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[T, W] sums of ``machines * weight[row, workload]``, such as the capacity for ``weight`` = q/s."""
        place = self.interval * self.shape[2] + self.workload
        values = self.machines * weight[self.row, self.workload]
        sums = np.bincount(place, values, minlength=self.shape[0] * self.shape[2]).astype(np.float64)
        return sums.reshape(self.shape[0], self.shape[2])

    def per_type(self, row_type: npt.NDArray[np.int64], n_types: int) -> npt.NDArray[Any]:
        """[T, H] machines on, by server type; the dtype of ``machines``."""
        place = self.interval * n_types + row_type[self.row]
        sums = np.bincount(place, self.machines, minlength=self.shape[0] * n_types).reshape(self.shape[0], n_types)
        return sums.astype(self.machines.dtype)  # exact: counts stay far below 2**53

    def total(self, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[T] sums of ``machines * weight[row, workload]``, such as the power for ``weight`` = W."""
        values = self.machines * weight[self.row, self.workload]
        return np.bincount(self.interval, values, minlength=self.shape[0]).astype(np.float64)


def intervals_done(columns: Mapping[str, Any]) -> int:
    """How many intervals the core has solved without a gap from the first; later ones may be solved too."""
    solved = columns["solved"]
    return int((solved == np.arange(len(solved))).sum())
