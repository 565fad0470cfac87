"""Which solver answers, and what is done before its answer is believed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import DTypeError, InputError, InternalError, InterruptedRun, SolverError
from hercules_fast.provisioning import linear, network
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.constraints import Constraint, PowerCap, breaking
from hercules_fast.provisioning.linear import GAP_TOL, solve_linear
from hercules_fast.provisioning.network import solve_network
from hercules_fast.provisioning.problem import Problem
from hercules_fast.provisioning.relaxed import LinearSolution

__all__ = ["CrossCheck", "SolverName", "solve_program"]

SolverName = Literal["auto", "highs", "network"]

# Two solvers' optima may differ by this part; HiGHS' own tolerances are wider than ours.
_AGREE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossCheck:
    """HiGHS' answer to the dearest interval, beside the network simplex method's."""

    interval: int
    objective_w: float
    """HiGHS' objective."""
    difference: float
    """(ours - HiGHS') / HiGHS'; 0 where both are 0."""

    def words(self) -> str:
        """One line for a plan's notes."""
        apart = max(abs(self.difference), 1e-15)
        if apart > _AGREE:
            return f"HiGHS' optimum of the dearest interval differs by {apart:.0e}, and one of the two is not certified"
        return f"HiGHS finds the same optimum in the dearest interval (to {apart:.0e})"


def solve_program(
    problem: Problem,
    *,
    solver: SolverName = "auto",
    penalty: npt.ArrayLike | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[LinearSolution, CrossCheck | None]:
    """The linear optimum of every interval, and with ``solver="auto"`` what the referee says.

    "network": the Rust core. "highs": HiGHS, on a pool of columns where the fleet is large. "auto": the core; intervals
    whose certificate is more than 1e-9 (relative) off are solved again without a warm start, and by HiGHS if that does
    not help (they are listed in ``resolved``); then HiGHS solves the dearest interval again as a cross-check. A program
    that the core gives up (:class:`SolverError`) is left to HiGHS, with all its intervals ``resolved``.

    Raises :class:`InputError` for an unknown solver or a penalty, :class:`SolverError`, :class:`InternalError` where
    both optima are certified and yet differ, :class:`InterruptedRun` on Ctrl-C with the intervals done.
    """
    checked_solver(solver)
    if solver == "highs":
        return solve_linear(problem, penalty, progress=progress), None
    if solver == "network":
        return solve_network(problem, penalty, threads=threads, progress=progress), None
    try:
        solution = solve_network(problem, penalty, threads=threads, progress=progress)
    except SolverError:
        solution = solve_linear(problem, penalty, progress=progress)
        return dataclasses.replace(solution, resolved=tuple(range(problem.n_intervals))), None
    doubtful = tuple(np.flatnonzero(np.abs(solution.gap) > GAP_TOL).tolist())
    try:
        for t in doubtful:
            again = _again(problem, solution, t)
            if _doubt(again) < abs(solution.gap[t]):
                solution = _with_interval(solution, t, again)
        solution = dataclasses.replace(solution, resolved=doubtful)
        return solution, _cross_check(problem, solution)
    except KeyboardInterrupt:  # of a check of one interval; all of them are solved
        n = problem.n_intervals
        raise InterruptedRun(f"stopped after {n} of {n} intervals, while they were checked", solution) from None


def checked_solver(solver: str, constraints: Sequence[Constraint] = ()) -> None:
    """Raise :class:`InputError` for a solver that there is not, or that cannot hold the ``constraints``."""
    if solver not in get_args(SolverName):
        raise InputError(f"solver: {solver!r}; allowed: {', '.join(map(repr, get_args(SolverName)))}")
    if isinstance(constraints, str) or not isinstance(constraints, Sequence):
        raise DTypeError(f"constraints: {type(constraints).__name__}; needed: a sequence of constraints")
    if solver == "network" and (broken := breaking(constraints)):
        which = ", ".join(type(c).__name__ + (f" {c.name!r}" if isinstance(c, PowerCap) else "") for c in broken)
        raise InputError(f"solver: 'network', which cannot hold {which}; allowed: 'auto', 'highs'")


def _again(problem: Problem, solution: LinearSolution, t: int) -> LinearSolution:
    """Interval t under the same penalties by the core without a warm start, and by HiGHS if that does not help."""
    alone, penalty = problem.interval(t), solution.penalty_w_per_qps[t : t + 1]
    answers = []
    with contextlib.suppress(SolverError):
        answers.append(network.solve_at(alone, penalty))
    if not answers or _doubt(answers[0]) > GAP_TOL:
        answers.append(linear.solve_at(alone, penalty, solution.stock_price_w[t]))
    return min(answers, key=_doubt)


def _doubt(solution: LinearSolution) -> float:
    return abs(float(solution.gap[0]))


def _cross_check(problem: Problem, solution: LinearSolution) -> CrossCheck:
    t = int(solution.bound_w.argmax())
    # Under one set of penalties both answers are one program's optimum.
    penalty = solution.penalty_w_per_qps[t : t + 1]
    referee = linear.solve_at(problem.interval(t), penalty, solution.stock_price_w[t])
    ours, theirs = float(solution.objective_w[t]), float(referee.objective_w[0])
    difference = (ours - theirs) / theirs if theirs else ours
    if abs(difference) > _AGREE and max(abs(solution.gap[t]), abs(referee.gap[0])) <= GAP_TOL:
        raise InternalError(
            f"interval {t}: the network simplex method finds an optimum of {ours!r}, HiGHS one of {theirs!r}, and each "
            "is certified"
        )
    return CrossCheck(interval=t, objective_w=theirs, difference=difference)


def _with_interval(solution: LinearSolution, t: int, one: LinearSolution) -> LinearSolution:
    """``solution`` with the answer of ``one``, a solution of a single interval, as interval t."""
    old, new = solution.assignment, one.assignment
    before, after = slice(old.starts[t]), slice(old.starts[t + 1], None)
    shift = len(new.row) - int(old.starts[t + 1] - old.starts[t])
    assignment = Assignment(
        shape=old.shape,
        starts=np.concatenate([old.starts[: t + 1], old.starts[t + 1 :] + shift]),
        row=np.concatenate([old.row[before], new.row, old.row[after]]),
        workload=np.concatenate([old.workload[before], new.workload, old.workload[after]]),
        machines=np.concatenate([old.machines[before], new.machines, old.machines[after]]),
    )
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(solution):
        if isinstance(values := getattr(solution, field.name), np.ndarray):
            changed[field.name] = values.copy()
            changed[field.name][t] = getattr(one, field.name)[0]
    solver = (*solution.solver[:t], *one.solver, *solution.solver[t + 1 :])
    return dataclasses.replace(solution, assignment=assignment, solver=solver, **changed)
