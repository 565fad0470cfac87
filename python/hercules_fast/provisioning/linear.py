"""The linear program of provisioning, solved by HiGHS, warm-started from interval to interval.

Minimise ``sum N[r,w] cost[r,w] + sum penalty[w] shed[w]`` subject to
coverage ``sum_r N[r,w] qps[r,w] + shed[w] >= demand[w]`` for each workload w, and
stock ``sum_w N[h,w] <= stock[h]`` for each server type h, over all its rows; N, shed >= 0.

The first line without shed, and both constraints, are equations 1-3 of the Hercules paper. Shed is a last resort that
keeps the program feasible, so that an overload is answered by *which* workload is short and by how much.

A large fleet enters as a pool of columns: the cheapest of each workload first, then those that the prices of the last
answer show to be better, until there are none. The answer is the optimum over all columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, InterruptedRun
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.certificate import certificate
from hercules_fast.provisioning.constraints import Rules
from hercules_fast.provisioning.master import Point, TwoStage
from hercules_fast.provisioning.problem import FloatArray, Problem, shortfall_qps
from hercules_fast.provisioning.relaxed import LinearSolution, shed_penalties

__all__ = ["GAP_TOL", "as_assignment", "assignment_cost", "checked_penalty", "solve_at", "solve_linear"]

# Objective against certificate, relative, above which an interval is solved again without a warm start.
GAP_TOL = 1e-9
PENALTY_RANGE = (1e-15, 1e15)


def solve_linear(
    problem: Problem,
    penalty: npt.ArrayLike | None = None,
    *,
    prices: FloatArray | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> LinearSolution:
    """Solve every interval of ``problem``; HiGHS on one thread, the basis carried through time.

    ``penalty``: float64 [W] or [T, W], cost per q/s of shed load; left out: no load is shed that can be served, for
    least weighted shed (:func:`shed_penalties`) goes before cost. ``prices``: float64 [H] or [T, H], stock prices that
    are near the optimum's; they choose the first columns of a large fleet and never change the answer's optimality.
    ``progress(done, total)`` counts intervals.

    The same problem gives the same bytes. Raises :class:`InputError` for a penalty, :class:`SolverError` naming
    interval and status when HiGHS ends anywhere but at an optimum, :class:`InterruptedRun` on Ctrl-C with the solution
    of the intervals done.
    """
    if penalty is None:
        return _solve(problem, shed_penalties(problem), prices, fixed=False, progress=progress)
    return _solve(problem, checked_penalty(problem, penalty), prices, fixed=True, progress=progress)


def solve_at(problem: Problem, penalty: FloatArray, prices: FloatArray) -> LinearSolution:
    """The same under the penalties [T, W] of another solution, which may have been raised, from its stock prices."""
    return _solve(problem, penalty, prices, fixed=True)


def _solve(
    problem: Problem,
    weight: FloatArray,
    prices: FloatArray | None,
    *,
    fixed: bool,
    progress: Callable[[int, int], object] | None = None,
) -> LinearSolution:
    start = None if prices is None else np.broadcast_to(prices, (problem.n_intervals, problem.n_servers))
    rules = Rules.none(problem)
    stages = TwoStage(problem, rules, 1, weight, fixed=fixed)
    points: list[Point] = []
    try:
        for t in range(problem.n_intervals):
            points += stages.solve(t, None, None if start is None else start[t])
            if progress is not None:
                progress(t + 1, problem.n_intervals)
    except KeyboardInterrupt:
        done = len(points)
        part = problem.first(done) if done else None
        partial = None if part is None else _assemble(part, Rules.none(part), points, stages.penalty[:done])
        raise InterruptedRun(f"stopped after {done} of {problem.n_intervals} intervals", partial) from None
    solution = _assemble(problem, rules, points, stages.penalty)
    doubtful = tuple(int(t) for t in np.flatnonzero(np.abs(solution.gap) > GAP_TOL))
    if not doubtful:
        return solution
    used = stages.penalty.copy()
    try:
        for t in doubtful:  # a warm start can end beside the optimum: start afresh
            again = TwoStage(problem, rules, 1, used, fixed=fixed)
            points[t] = again.solve(t, None, points[t].duals.stock)[0]
            used[t] = again.penalty[t]
    except KeyboardInterrupt:
        n = problem.n_intervals
        raise InterruptedRun(f"stopped after {n} of {n} intervals, while they were checked", solution) from None
    return _assemble(problem, rules, points, used, doubtful)


def _assemble(
    problem: Problem, rules: Rules, points: Sequence[Point], penalty: FloatArray, resolved: tuple[int, ...] = ()
) -> LinearSolution:
    """The solution in the problem's units, with its certificate; shed as the machines leave it."""
    assignment = as_assignment(problem, points)
    bound, stock_price, load_price = certificate(problem, rules, [p.duals for p in points], penalty)
    shed_qps = shortfall_qps(problem.demand_qps, assignment.per_workload(problem.qps))
    cost = assignment_cost(problem, assignment)
    return LinearSolution(
        assignment=assignment,
        power_w=assignment.total(problem.power_w),
        shed_qps=shed_qps,
        objective_w=cost + (penalty * shed_qps).sum(axis=1),
        penalty_w_per_qps=penalty,
        stock_price_w=stock_price,
        load_price_w=load_price,
        bound_w=bound,
        solver=("highs",) * len(points),
        resolved=resolved,
    )


def as_assignment(problem: Problem, points: Sequence[Point]) -> Assignment:
    """The machines of successive intervals as one sparse table."""
    counts = [len(p.row) for p in points]
    return Assignment(
        shape=(len(points), problem.n_rows, problem.n_workloads),
        starts=np.cumsum([0, *counts], dtype=np.int64),
        row=np.concatenate([p.row for p in points]).astype(np.int32),
        workload=np.concatenate([p.workload for p in points]).astype(np.int32),
        machines=np.concatenate([p.machines for p in points]),
    )


def assignment_cost(problem: Problem, assignment: Assignment) -> FloatArray:
    """[T] what is minimised, without penalties."""
    t = assignment.interval
    cost = problem.pair_cost(t, assignment.row, assignment.workload)
    sums = np.bincount(t, assignment.machines * cost, minlength=assignment.shape[0])
    return np.asarray(sums, dtype=np.float64)


def checked_penalty(problem: Problem, penalty: npt.ArrayLike, field: str = "penalty") -> FloatArray:
    """[T, W], checked."""
    given = np.asarray(penalty)
    shape = problem.demand_qps.shape
    if given.dtype.kind not in "fiu" or given.shape not in (shape, shape[1:]):
        raise InputError(f"{field}: shape {given.shape}, dtype {given.dtype}; needed: numbers, {shape[1:]} or {shape}")
    given = np.broadcast_to(given.astype(np.float64), shape)
    bad = np.argwhere(~((given >= PENALTY_RANGE[0]) & (given <= PENALTY_RANGE[1])))
    if len(bad):
        t, w = bad[0].tolist()
        raise InputError(
            f"{field}: interval {t}, workload {problem.workloads[w]!r} is {given[t, w]:g}; "
            f"allowed: {PENALTY_RANGE[0]:g} to {PENALTY_RANGE[1]:g} per q/s"
        )
    return given
