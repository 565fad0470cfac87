"""Machines that must be on whatever the load: taken out of a problem before it is solved, put back into its answer.

Covering ``d`` with at least ``n`` machines of a pair is covering ``max(0, d - n qps)`` with any number of further ones
from a stock that is smaller by ``n``: the two problems have the same answers, and bounds differ by the cost of ``n``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hercules_fast.errors import InputError
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem

__all__ = ["footprint_cost", "with_footprint", "without_footprint"]


def without_footprint(problem: Problem, minimum: IntArray) -> Problem:
    """What is left to solve beside ``minimum`` [R, W] machines.

    Raises :class:`InputError` where the minimum is on a pair that cannot run, no multiple of the pair's group, or above
    the stock of some interval.
    """
    if not minimum.any():
        return problem
    for r, w in np.argwhere(minimum > 0).tolist():
        pair = f"{problem.servers[problem.types[r]]!r} for {problem.workloads[w]!r}"
        if problem.qps[r, w] <= 0:
            raise InputError(f"minimum: {minimum[r, w]} {pair}; allowed: 0, this server cannot run it, or is drained")
        if problem.group is not None and minimum[r, w] % problem.group[r, w]:
            raise InputError(
                f"minimum: {minimum[r, w]} {pair}; allowed: multiples of {problem.group[r, w]}, over which it is spread"
            )
    taken = np.bincount(problem.types, minimum.sum(axis=1), minlength=problem.n_servers).astype(np.int64)
    left = problem.stocks - taken
    if (left < 0).any():
        t, h = np.argwhere(left < 0)[0].tolist()
        raise InputError(
            f"minimum: {taken[h]} {problem.servers[h]!r} in all; allowed: up to its stock, "
            f"{problem.stocks[t, h]} in interval {t}"
        )
    rest = problem.less(problem.capacity_qps(minimum))
    return replace(rest, stock=left if problem.stock.ndim == 2 else problem.stock - taken)


def with_footprint(assignment: Assignment, minimum: IntArray) -> Assignment:
    """``assignment`` with ``minimum`` [R, W] machines more in every interval."""
    if not minimum.any():
        return assignment
    n_t, n_r, n_w = assignment.shape
    rows, workloads = np.nonzero(minimum)
    key = (assignment.interval * n_r + assignment.row) * n_w + assignment.workload
    more = (np.repeat(np.arange(n_t), len(rows)) * n_r + np.tile(rows, n_t)) * n_w + np.tile(workloads, n_t)
    keys, place = np.unique(np.concatenate([key, more]), return_inverse=True)
    machines: Any = np.zeros(len(keys), dtype=assignment.machines.dtype)
    np.add.at(machines, place, np.concatenate([assignment.machines, np.tile(minimum[rows, workloads], n_t)]))
    interval, pair = np.divmod(keys, n_r * n_w)
    return Assignment(
        shape=assignment.shape,
        starts=np.searchsorted(interval, np.arange(n_t + 1)).astype(np.int64),
        row=(pair // n_w).astype(np.int32),
        workload=(pair % n_w).astype(np.int32),
        machines=machines,
    )


def footprint_cost(problem: Problem, minimum: IntArray) -> FloatArray:
    """[T] cost of ``minimum`` [R, W] machines, as it stands in the objective."""
    return np.array([(problem.cost(t) * minimum).sum() for t in range(problem.n_intervals)])
