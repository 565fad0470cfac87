"""Whole machines from the fractional optimum: the Rust core's `provision::whole`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hercules_fast import _core
from hercules_fast.errors import InterruptedRun
from hercules_fast.provisioning.assignment import Assignment, intervals_done
from hercules_fast.provisioning.problem import FloatArray, Problem
from hercules_fast.provisioning.relaxed import LinearSolution

__all__ = ["whole_bound", "whole_machines"]


def whole_machines(
    problem: Problem,
    linear: LinearSolution,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Assignment:
    """Whole machines (int64, sparse) close to ``linear``: stock always holds; what stays uncovered is the least found.

    Counts are multiples of ``problem.group``. Weighted shortfall (``linear.penalty_w_per_qps`` times q/s) goes first,
    cost second. Where the counts of ``linear``, all rounded up, fit into the stock, the cost above the bound is at most
    that of its fractional places, of which a basic optimum has at most W + H. Where they do not, whole machines may
    have to be replaced by any number of worse ones, and there is no such bound.

    The answer of an interval is a function of that interval alone: the same bytes for any ``threads``.
    ``progress(done, total)`` counts intervals. Raises :class:`InterruptedRun` on Ctrl-C, with the assignment of the
    intervals that were done from the first.
    """
    columns, interrupted = _solve(problem, linear, False, threads, progress)
    if not interrupted:
        return Assignment.from_columns(columns, problem.n_intervals, problem.n_rows, problem.n_workloads)
    done = intervals_done(columns)
    partial = Assignment.from_columns(columns, done, problem.n_rows, problem.n_workloads) if done else None
    raise InterruptedRun(f"stopped after {done} of {problem.n_intervals} intervals", partial)


def whole_bound(problem: Problem, linear: LinearSolution, *, threads: int | None = None) -> FloatArray:
    """Lower bound [T], in the units of ``linear.bound_w``, on the objective of any plan in whole machines.

    At the stock prices of ``linear`` every workload is a covering knapsack in whole units; the sum of their optima,
    less the worth of the stock, is the bound (Lagrangean relaxation; Geoffrion, 1974). It lies above ``linear.bound_w``
    by what the granularity of the single workloads costs, and tells how near to the best a plan is.

    Raises :class:`KeyboardInterrupt` on Ctrl-C.
    """
    columns, interrupted = _solve(problem, linear, True, threads, None)
    if interrupted:
        raise KeyboardInterrupt
    bound: FloatArray = columns["bound"]
    return bound


def _solve(
    problem: Problem,
    linear: LinearSolution,
    bound: bool,
    threads: int | None,
    progress: Callable[[int, int], object] | None,
) -> tuple[dict[str, Any], bool]:
    places = linear.assignment
    return _core.provision_whole(
        problem.qps,
        problem.power_w,
        problem.types,
        problem.n_servers,
        problem.demand_qps,
        np.atleast_2d(problem.stock),
        linear.penalty_w_per_qps,
        places.starts,
        places.row,
        places.workload,
        places.machines,
        linear.stock_price_w,
        problem.watt_cost,
        problem.machine_cost,
        problem.group,
        bound,
        threads,
        progress,
    )
