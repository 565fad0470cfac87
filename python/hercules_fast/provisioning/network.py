"""The linear program of provisioning, solved by the network simplex method of the Rust core (``provision``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast import _core
from hercules_fast.errors import InterruptedRun
from hercules_fast.provisioning.assignment import Assignment, intervals_done
from hercules_fast.provisioning.linear import checked_penalty
from hercules_fast.provisioning.problem import FloatArray, Problem
from hercules_fast.provisioning.relaxed import LinearSolution

__all__ = ["solve_network"]


def solve_network(
    problem: Problem,
    penalty: npt.ArrayLike | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> LinearSolution:
    """Solve every interval of ``problem`` as what it is: a generalised transportation problem.

    ``penalty``: float64 [W] or [T, W], cost per q/s of shed load; left out: least weighted shed goes before cost.
    ``progress(done, total)`` counts intervals. The same problem gives the same bytes for any ``threads``.

    Raises :class:`InputError` for a penalty; :class:`SolverError` where rates, costs or loads are too far apart for the
    method's rounding; :class:`InterruptedRun` on Ctrl-C with the solution of the intervals that were done one after the
    other from the first.
    """
    given = None if penalty is None else np.ascontiguousarray(checked_penalty(problem, penalty))
    return _solve(problem, given, threads, progress)


def solve_at(problem: Problem, penalty: FloatArray) -> LinearSolution:
    """The same under the penalties [T, W] of another solution, which may have been raised; on one thread."""
    return _solve(problem, penalty, 1, None)


def _solve(
    problem: Problem, penalty: FloatArray | None, threads: int | None, progress: Callable[[int, int], object] | None
) -> LinearSolution:
    columns, interrupted = _core.provision_linear(
        problem.qps,
        problem.power_w,
        problem.types,
        problem.n_servers,
        problem.demand_qps,
        np.atleast_2d(problem.stock),
        penalty,
        problem.watt_cost,
        problem.machine_cost,
        threads,
        progress,
    )
    if not interrupted:
        return _solution(problem, columns, problem.n_intervals)
    done = intervals_done(columns)
    partial = _solution(problem.first(done), columns, done) if done else None
    raise InterruptedRun(f"stopped after {done} of {problem.n_intervals} intervals", partial)


def _solution(problem: Problem, columns: dict[str, Any], n: int) -> LinearSolution:
    assignment = Assignment.from_columns(columns, n, problem.n_rows, problem.n_workloads)
    return LinearSolution(
        assignment=assignment,
        power_w=assignment.total(problem.power_w),
        shed_qps=columns["shed"][:n],
        objective_w=columns["objective"][:n],
        penalty_w_per_qps=columns["penalty"][:n],
        stock_price_w=columns["stock_price"][:n],
        load_price_w=columns["load_price"][:n],
        bound_w=columns["bound"][:n],
        solver=("network",) * n,
    )
