"""Provisioning on arrays: from rates, powers, demand and stock to machines, prices and a certificate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, InternalError, InterruptedRun
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.constrained import finish, solve_constrained
from hercules_fast.provisioning.constraints import Constraint, breaking, resolve
from hercules_fast.provisioning.footprint import footprint_cost, with_footprint, without_footprint
from hercules_fast.provisioning.integer import whole_machines
from hercules_fast.provisioning.linear import checked_penalty
from hercules_fast.provisioning.parts import Parts
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem
from hercules_fast.provisioning.relaxed import LinearSolution
from hercules_fast.provisioning.solution import Constrained, Solution
from hercules_fast.provisioning.solvers import SolverName, checked_solver, solve_program

__all__ = ["solve", "solve_problem"]

# Stock holds to this part for fractional machines, whose solver has a tolerance.
_HOLDS = 1e-7


def solve(
    qps: npt.ArrayLike,
    power_w: npt.ArrayLike,
    demand_qps: npt.ArrayLike,
    stock: npt.ArrayLike,
    *,
    solver: SolverName = "auto",
    integer: bool = True,
    shed_penalty: npt.ArrayLike | None = None,
    headroom: npt.ArrayLike = 0.0,
    constraints: Sequence[Constraint] = (),
    row_type: npt.ArrayLike | None = None,
    watt_cost: npt.ArrayLike | None = None,
    machine_cost: npt.ArrayLike | None = None,
    group: npt.ArrayLike | None = None,
    servers: Sequence[str] = (),
    workloads: Sequence[str] = (),
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Solution:
    """The cheapest machines that cover the demand of every interval, with a proof.

    Args:
        qps: float64 [H, W], latency-bounded throughput of one server of each type on each workload; 0 = not eligible.
            [C, H, W] where a type has up to C configurations to mix (0 = there is none).
        power_w: the same shape, provisioned power of that server.
        demand_qps: float64 [W] or [T, W], q/s to cover, headroom included.
        stock: int64 [H] or [T, H], machines there are.
        solver: "auto", "network" or "highs", see :func:`solve_program`; constraints that break the network
            need HiGHS.
        integer: whole machines (the default) or the fractional optimum.
        shed_penalty: float64, [W] or [T, W], cost per q/s that is shed. Left out: the least load that the stock allows
            is shed (weighed by its dearest cost per q/s), and then cost is minimised.
        headroom: share, one or [W], that the demand has above the load: ``load = demand / (1 + headroom)``. It tells
            missing load (``shed_qps``) from missing headroom, and changes no machine.
        constraints: caps on power, failure domains, switching ..., see :func:`solve_constrained`.
        row_type: int64 [R], the type of each row, where ``qps`` is [R, W] with several rows of one type.
        watt_cost, machine_cost, group, servers, workloads: see :class:`Problem`.
        threads: worker threads; None: as set by the environment, else all CPUs. It never changes a byte.
        progress: called with (intervals done, intervals).

    Raises :class:`InputError` (field, place, value, what is allowed), :class:`DTypeError`, :class:`ConfigError` with
    all faults of the constraints, :class:`SolverError`; :class:`InterruptedRun` on Ctrl-C, its ``partial`` the solution
    of the intervals done, from the first.
    """
    demand = np.asarray(demand_qps)
    single = demand.ndim == 1
    rates, powers = np.asarray(qps), np.asarray(power_w)
    choices = None
    if rates.ndim == 3:
        if row_type is not None:
            raise InputError("row_type: with qps [C, H, W] each of the C has a row per type; leave it out")
        if powers.shape != rates.shape:
            raise InputError(f"power_w: shape {powers.shape}; needed: {rates.shape} = that of qps")
        choices, n_types, n_workloads = rates.shape
        row_type = np.tile(np.arange(n_types), choices)
        rates, powers = (array.reshape(choices * n_types, n_workloads) for array in (rates, powers))
        if group is not None:
            groups = np.asarray(group)
            if groups.shape != (choices, n_types, n_workloads):
                needed = (choices, n_types, n_workloads)
                raise InputError(f"group: shape {groups.shape}; needed: {needed} = that of qps")
            group = groups.reshape(rates.shape)
    problem = Problem(
        qps=rates,
        power_w=powers,
        demand_qps=demand[None] if single else demand,
        stock=np.asarray(stock),
        row_type=None if row_type is None else np.asarray(row_type),
        watt_cost=None if watt_cost is None else np.asarray(watt_cost),
        machine_cost=None if machine_cost is None else np.asarray(machine_cost),
        group=None if group is None else np.asarray(group),
        servers=tuple(servers),
        workloads=tuple(workloads),
    )
    penalty = shed_penalty
    if penalty is not None and np.ndim(penalty) == 0:
        penalty = np.full(problem.n_workloads, penalty)
    if penalty is not None:
        penalty = checked_penalty(problem, penalty, "shed_penalty")
    load = problem.demand_qps / (1.0 + _headroom(problem, headroom))

    def in_shape(solution: Solution) -> Solution:
        return replace(solution, load_qps=load[: len(solution.load_qps)], single=single, choices=choices)

    try:
        return in_shape(
            solve_problem(
                problem,
                constraints,
                solver=solver,
                integer=integer,
                penalty=penalty,
                threads=threads,
                progress=progress,
            )
        )
    except InterruptedRun as stop:
        raise InterruptedRun(str(stop), stop.partial and in_shape(stop.partial)) from None


def solve_problem(
    problem: Problem,
    constraints: Sequence[Constraint] = (),
    *,
    solver: SolverName = "auto",
    integer: bool = True,
    penalty: npt.ArrayLike | None = None,
    minimum: IntArray | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Solution:
    """As :func:`solve`, for a :class:`Problem`; ``load_qps`` of the answer is the demand.

    ``minimum``: int64 [R, W] machines that are on in every interval, needed or not.
    """
    checked_solver(solver, constraints)
    if constraints and (solver == "highs" or breaking(constraints)):
        return solve_constrained(
            problem, constraints, integer=integer, penalty=penalty, minimum=minimum, progress=progress
        )
    if constraints:
        return _solve_safe(problem, constraints, solver, integer, penalty, minimum, threads, progress)
    minimum = np.zeros(problem.qps.shape, dtype=np.int64) if minimum is None else minimum
    rest = without_footprint(problem, minimum)
    stopped = check = whole = None
    try:
        linear, check = solve_program(rest, solver=solver, penalty=penalty, threads=threads, progress=progress)
    except InterruptedRun as stop:
        if stop.partial is None:
            raise
        stopped, linear = stop, stop.partial
    if integer:
        # Whole machines leave as little uncovered as they can: with a penalty of the caller's, of what is worth it.
        part = rest.first(len(linear.bound_w))
        part = part if penalty is None else part.less(linear.shed_qps)
        try:
            whole = whole_machines(part, linear, threads=threads)
        except InterruptedRun as stop:
            if stop.partial is None:
                raise
            stopped, whole = stop, stop.partial
            linear = linear.first(whole.shape[0])
    problem = problem.first(len(linear.bound_w))
    if minimum.any():
        linear = _with_minimum(problem, linear, minimum)
        whole = None if whole is None else with_footprint(whole, minimum)
    verify(problem, linear.assignment, "fractional")
    if whole is not None:
        verify(problem, whole, "whole")
    solution = Solution(problem=problem, linear=linear, whole=whole, load_qps=problem.demand_qps, cross_check=check)
    if stopped is not None:
        raise InterruptedRun(str(stopped), solution) from None
    return solution


def _solve_safe(
    problem: Problem,
    constraints: Sequence[Constraint],
    solver: SolverName,
    integer: bool,
    penalty: npt.ArrayLike | None,
    minimum: IntArray | None,
    threads: int | None,
    progress: Callable[[int, int], object] | None,
) -> Solution:
    """Safe failure domains alone: a plain problem whose workloads are parts of those that were given."""
    rules = resolve(problem, constraints, minimum)
    parts = Parts.of(problem, rules)
    weight = None if penalty is None else checked_penalty(problem, penalty)[:, parts.workload]

    def whole(found: Solution) -> Solution:
        n = found.problem.n_intervals
        said = Constrained(
            objective_w=found.objective_w,
            exposed_qps=found.exposed_qps,
            served_share=np.ones(found.load_qps.shape),
            switched_on=found.switched_on,
            cap_names=(),
            cap_price=np.zeros((n, 0)),
            tied=False,
            status=("rounded" if integer else "optimal",) * n,
            binding=(),
        )
        return finish(problem.first(n), rules, replace(found, constrained=said), parts, 1.0)

    try:
        return whole(
            solve_problem(
                parts.problem,
                solver=solver,
                integer=integer,
                penalty=weight,
                minimum=parts.minimum,
                threads=threads,
                progress=progress,
            )
        )
    except InterruptedRun as stop:
        raise InterruptedRun(str(stop), stop.partial and whole(stop.partial)) from None


def _with_minimum(problem: Problem, linear: LinearSolution, minimum: IntArray) -> LinearSolution:
    """The solution of the rest as that of the whole problem."""
    assignment, cost = with_footprint(linear.assignment, minimum), footprint_cost(problem, minimum)
    return replace(
        linear,
        assignment=assignment,
        power_w=assignment.total(problem.power_w),
        objective_w=linear.objective_w + cost,
        bound_w=linear.bound_w + cost,
    )


def verify(problem: Problem, assignment: Assignment, name: str) -> None:
    """Stock and eligibility in the problem's own units; what fails here is a fault of this library."""
    machines = assignment.machines
    if not (machines >= 0).all() or not (problem.qps[assignment.row, assignment.workload] > 0).all():
        raise InternalError(f"{name} plan: a count that is negative or not a number, or a pair that is not eligible")
    holds = 0.0 if name == "whole" else _HOLDS
    over = assignment.per_type(problem.types, problem.n_servers) - problem.stocks * (1.0 + holds)
    if (over > holds).any():
        t, h = np.argwhere(over > holds)[0].tolist()
        raise InternalError(
            f"{name} plan, interval {t}: more {problem.servers[h]!r} than its stock of {problem.stocks[t, h]}"
        )
    group = problem.group if name == "whole" else None
    if group is not None and (machines % group[assignment.row, assignment.workload]).any():
        raise InternalError("whole plan: a count that is no multiple of its group")


def _headroom(problem: Problem, headroom: npt.ArrayLike) -> FloatArray:
    share = np.asarray(headroom)
    if share.dtype.kind not in "fiu" or share.shape not in ((), (problem.n_workloads,)):
        raise InputError(
            f"headroom: {headroom!r}; allowed: a number, or one for each of {problem.n_workloads} workloads"
        )
    if not ((share >= 0) & (share <= 1000)).all():
        raise InputError(f"headroom: {headroom!r}; allowed: 0 to 1000")
    return share.astype(np.float64)
