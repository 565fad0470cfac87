"""Provisioning on arrays: from rates, powers, demand and stock to machines, prices and a certificate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, InternalError, InterruptedRun
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.integer import whole_machines
from hercules_fast.provisioning.linear import assignment_cost
from hercules_fast.provisioning.problem import FloatArray, Problem, shortfall_qps
from hercules_fast.provisioning.relaxed import LinearSolution, relative_gap
from hercules_fast.provisioning.solvers import CrossCheck, SolverName, solve_program

__all__ = ["Solution", "solve"]

# Stock and coverage of fractional machines hold to this part.
_HOLDS = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Solution:
    """Machines for every interval, their prices and their certificate.

    Arrays have a leading axis of T intervals where the demand had one, and none where it was [W]. "Watts" of objective,
    bound and prices are cost where ``watt_cost`` or ``machine_cost`` was given.
    """

    problem: Problem
    linear: LinearSolution
    """The fractional optimum."""
    whole: Assignment | None
    """Whole machines, where they were asked for."""
    load_qps: FloatArray
    """[T, W] demand without its headroom."""
    cross_check: CrossCheck | None
    """What HiGHS says of the dearest interval; None unless ``solver="auto"``."""
    single: bool
    """Whether the demand was that of one interval."""
    choices: int | None = None
    """C where rates were given as [C, H, W]."""

    def _cut(self, values: Any) -> Any:
        return values[0] if self.single else values

    @property
    def sparse(self) -> Assignment:
        """The machines as a table of the pairs in use."""
        return self.linear.assignment if self.whole is None else self.whole

    @property
    def servers(self) -> npt.NDArray[Any]:
        """[H, W], [T, H, W] or, for rates [C, H, W], [(T,) C, H, W]: machines; int64 where whole, else float64.

        Raises :class:`InputError` where that would have more than 2**27 entries.
        """
        dense = self.sparse.dense()
        if self.choices is not None:
            dense = dense.reshape(len(dense), self.choices, -1, dense.shape[2])
        return np.asarray(self._cut(dense))

    @property
    def power_w(self) -> Any:
        """[T] provisioned power; a float for one interval."""
        return self._cut(self.sparse.total(self.problem.power_w))

    @property
    def _short_qps(self) -> FloatArray:
        if self.whole is None:
            return self.linear.shed_qps
        return shortfall_qps(self.problem.demand_qps, self.whole.per_workload(self.problem.qps))

    @property
    def objective_w(self) -> Any:
        """[T] what is minimised: cost and the penalties of all demand that is not covered."""
        if self.whole is None:
            return self._cut(self.linear.objective_w)
        penalty = (self.linear.penalty_w_per_qps * self._short_qps).sum(axis=1)
        return self._cut(assignment_cost(self.problem, self.whole) + penalty)

    @property
    def bound_w(self) -> Any:
        """[T] certificate g(u): no plan, fractional or whole, has a lower objective."""
        return self._cut(self.linear.bound_w)

    @property
    def gap(self) -> Any:
        """[T] (objective - bound) / objective: the price of whole machines, or what the solver leaves open."""
        return self._cut(relative_gap(np.atleast_1d(self.objective_w), self.linear.bound_w))

    @property
    def shed_qps(self) -> FloatArray:
        """[T, W] load that is not served; headroom does not count."""
        short = self._short_qps
        return np.asarray(self._cut(np.maximum(short - (self.problem.demand_qps - self.load_qps), 0.0)))

    @property
    def headroom_short_qps(self) -> FloatArray:
        """[T, W] headroom that is not there: demand that is not covered, less the load in it."""
        short = self._short_qps
        return np.asarray(self._cut(np.minimum(short, self.problem.demand_qps - self.load_qps)))

    @property
    def surplus_qps(self) -> FloatArray:
        """[T, W] capacity above demand."""
        capacity = self.sparse.per_workload(self.problem.qps)
        return np.asarray(self._cut(np.maximum(capacity - self.problem.demand_qps, 0.0)))

    @property
    def free_stock(self) -> npt.NDArray[Any]:
        """[T, H] machines left off; int64 where whole, else float64."""
        used = self.sparse.per_type(self.problem.types, self.problem.n_servers)
        return np.asarray(self._cut(np.maximum(self.problem.stocks - used, 0)))

    @property
    def stock_price_w(self) -> FloatArray:
        """[T, H] u: objective saved per further machine of the type, at the fractional optimum."""
        return np.asarray(self._cut(self.linear.stock_price_w))

    @property
    def load_price_w(self) -> FloatArray:
        """[T, W] v: objective added per further q/s, at the fractional optimum."""
        return np.asarray(self._cut(self.linear.load_price_w))

    @property
    def status(self) -> Any:
        """[T] texts: "optimal" (all demand is covered), "short" (some is not, and it is the least that can be)."""
        short = np.asarray(self._short_qps.any(axis=1))
        return self._cut(tuple("short" if s else "optimal" for s in short))


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
        solver: "auto", "network" or "highs", see :func:`solve_program`.
        integer: whole machines (the default) or the fractional optimum.
        shed_penalty: float64, [W] or [T, W], cost per q/s that is shed. Left out: the least load that the stock allows
            is shed (weighed by its dearest cost per q/s), and then cost is minimised.
        headroom: share, one or [W], that the demand has above the load: ``load = demand / (1 + headroom)``. It tells
            missing load (``shed_qps``) from missing headroom, and changes no machine.
        row_type: int64 [R], the type of each row, where ``qps`` is [R, W] with several rows of one type.
        watt_cost, machine_cost, group, servers, workloads: see :class:`Problem`.
        threads: worker threads; None: as set by the environment, else all CPUs. It never changes a byte.
        progress: called with (intervals done, intervals).

    Raises :class:`InputError` (field, place, value, what is allowed), :class:`DTypeError`, :class:`SolverError`;
    :class:`InterruptedRun` on Ctrl-C, its ``partial`` the solution of the intervals done, from the first.
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
        group = None if group is None else np.asarray(group).reshape(rates.shape)
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
    load = problem.demand_qps / (1.0 + _headroom(problem, headroom))
    stopped = check = whole = None
    try:
        linear, check = solve_program(problem, solver=solver, penalty=penalty, threads=threads, progress=progress)
    except InterruptedRun as stop:
        if stop.partial is None:
            raise
        stopped, linear = stop, stop.partial
        problem = problem.part(slice(len(linear.bound_w)))
    if integer:
        try:
            whole = whole_machines(problem, linear, threads=threads)
        except InterruptedRun as stop:
            if stop.partial is None:
                raise
            stopped, whole = stop, stop.partial
            problem = problem.part(slice(whole.shape[0]))
            linear = linear.first(whole.shape[0])
    verify(problem, linear.assignment, "fractional")
    if whole is not None:
        verify(problem, whole, "whole")
    solution = Solution(
        problem=problem,
        linear=linear,
        whole=whole,
        load_qps=load[: problem.n_intervals],
        cross_check=check,
        single=single,
        choices=choices,
    )
    if stopped is not None:
        raise InterruptedRun(str(stopped), solution) from None
    return solution


def verify(problem: Problem, assignment: Assignment, name: str) -> None:
    """Stock and eligibility in the problem's own units; what fails here is a fault of this library."""
    machines = assignment.machines
    if not (machines >= 0).all() or not (problem.qps[assignment.row, assignment.workload] > 0).all():
        raise InternalError(f"{name} plan: a count that is negative or not a number, or a pair that is not eligible")
    over = assignment.per_type(problem.types, problem.n_servers) - problem.stocks * (1.0 + _HOLDS)
    if (over > _HOLDS).any():
        t, h = np.argwhere(over > _HOLDS)[0].tolist()
        raise InternalError(
            f"{name} plan, interval {t}: more {problem.servers[h]!r} than its stock of {problem.stocks[t, h]}"
        )


def _headroom(problem: Problem, headroom: npt.ArrayLike) -> FloatArray:
    share = np.asarray(headroom)
    if share.dtype.kind not in "fiu" or share.shape not in ((), (problem.n_workloads,)):
        raise InputError(
            f"headroom: {headroom!r}; allowed: a number, or one for each of {problem.n_workloads} workloads"
        )
    if not ((share >= 0) & (share <= 1000)).all():
        raise InputError(f"headroom: {headroom!r}; allowed: 0 to 1000")
    return share.astype(np.float64)
