"""From an efficiency table, a load trace and a stock to a plan."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from hercules_fast.errors import DTypeError, InputError, InternalError, UnknownNameError
from hercules_fast.provisioning.baselines import greedy, greedy_order_spread, oblivious
from hercules_fast.provisioning.integer import whole_machines
from hercules_fast.provisioning.linear import solve_linear
from hercules_fast.provisioning.plan import Plan
from hercules_fast.provisioning.policy import MOST_HEADROOM, Policy, steepest_growth
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem
from hercules_fast.provisioning.relaxed import LinearSolution, relative_gap
from hercules_fast.provisioning.scale import fleet_scale, scale_load
from hercules_fast.traffic import LoadTrace

__all__ = ["EfficiencySource", "provision"]


class EfficiencySource(Protocol):
    """What provisioning asks of an efficiency table; :class:`hercules_fast.tables.EfficiencyTable` is one."""

    @property
    def servers(self) -> tuple[str, ...]:
        """Names of the server types."""

    @property
    def workloads(self) -> tuple[str, ...]:
        """Names of the workloads."""

    def matrices(
        self, servers: Sequence[str] | None = None, workloads: Sequence[str] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """QPS and power, float64 [H, W]; 0 QPS = not eligible."""


def provision(table: EfficiencySource, load: LoadTrace, stock: Mapping[str, int], policy: Policy | None = None) -> Plan:
    """Choose, for every interval of ``load``, how many servers of each type run each workload, at the least power.

    Each interval is solved as a linear program (equations 1-3 of the Hercules paper) and rounded to whole machines.
    The answer is checked apart from the solver before it is returned: stock and coverage in the original units.

    Args:
        table: QPS and power of each (server type, workload).
        load: q/s of each workload in each interval; a relative trace is scaled first, see ``policy.peak_share``.
        stock: server type -> machines that may be switched on. Types of the table that are not named here stay off.
        policy: headroom and the rules of the baselines; None: the defaults of :class:`Policy`.

    Returns:
        A :class:`Plan`, also when the stock cannot cover the load: then ``plan.is_covered`` is false and
        ``plan.shortfall()`` names what is short. The same arguments give the same bytes.

    Raises:
        UnknownNameError: a workload of the load or a server of the stock that the table has no row for.
        InputError: a count, load or table entry that is out of range; the message names it.
        SolverError: the linear-programming solver ended without an answer.
    """
    policy = policy or Policy()
    servers, counts = _checked_stock(stock, table.servers)
    for name in load.workloads:
        if name not in table.workloads:
            raise UnknownNameError.of(
                f"workload of load {load.name!r}, without any row in the efficiency table:", name, table.workloads
            )
    qps, power_w = table.matrices(servers, load.workloads)
    notes = []
    _check_load(load)
    headroom = policy.headroom
    if headroom is None:
        headroom, words = _headroom_of(load)
        notes.append(words)
    if load.relative:
        load, words = scale_load(load, qps, counts, servers, policy.peak_share, headroom, policy.reference_server)
        notes.append(words)
    load_qps = np.array(load.qps, dtype=np.float64)
    problem = Problem(
        qps=qps,
        power_w=power_w,
        demand_qps=load_qps * (1.0 + headroom),
        stock=counts,
        servers=servers,
        workloads=load.workloads,
    )

    linear = solve_linear(problem)
    servers_on = whole_machines(problem, linear).dense()
    if linear.resolved:
        worst = float(np.abs(linear.gap).max())
        notes.append(f"{len(linear.resolved)} intervals were solved without a warm start; worst gap left {worst:.1e}")
    _verify(problem, linear, servers_on)
    return _plan(problem, linear, servers_on, load, load_qps, headroom, policy, tuple(notes))


def _headroom_of(load: LoadTrace) -> tuple[float, str]:
    """Headroom from the load's own growth, and where it comes from. A growth that no fleet would buy is an error."""
    headroom, t, w = steepest_growth(load.qps)
    if t < 0:
        return headroom, f"headroom {100 * headroom:.3g} %, the default: the load has no two intervals to compare"
    where = f"{load.workloads[w]} from {load.times[t - 1]} to {load.times[t]}"
    if headroom > MOST_HEADROOM:
        raise InputError(
            f"load {load.name!r}: its largest growth over one interval is {100 * headroom:.3g} % ({where}), too much "
            f"for a headroom (allowed without asking: {100 * MOST_HEADROOM:g} %); give one, such as headroom 0.1"
        )
    return headroom, f"headroom {100 * headroom:.3g} % = the largest growth over one interval of the load ({where})"


def _plan(
    problem: Problem,
    linear: LinearSolution,
    servers_on: IntArray,
    load: LoadTrace,
    load_qps: FloatArray,
    headroom: float,
    policy: Policy,
    notes: tuple[str, ...],
) -> Plan:
    power_w = problem.total_power_w(servers_on)
    shed_qps = problem.shortfall_qps(servers_on)
    objective_w = power_w + (linear.penalty_w_per_qps * shed_qps).sum(axis=1)
    spread = None
    if policy.order_samples:
        peak = int(linear.bound_w.argmax())
        spread = greedy_order_spread(problem, peak, policy.greedy_rank, policy.order_samples, policy.seed)
    return Plan(
        load_name=load.name,
        times=np.array(load.times, dtype="datetime64[s]"),
        interval_s=float(load.interval_s),
        servers=problem.servers,
        workloads=problem.workloads,
        load_qps=load_qps,
        demand_qps=problem.demand_qps,
        headroom=float(headroom),
        qps=problem.qps,
        server_power_w=problem.power_w,
        stock=problem.stock,
        servers_on=servers_on,
        lp_servers=linear.servers,
        power_w=power_w,
        lp_power_w=linear.power_w,
        bound_w=linear.bound_w,
        gap=relative_gap(objective_w, linear.bound_w),
        shed_qps=shed_qps,
        lp_shed_qps=linear.shed_qps,
        surplus_qps=np.maximum(problem.capacity_qps(servers_on) - problem.demand_qps, 0.0),
        free_stock=problem.stock - servers_on.sum(axis=2),
        stock_price_w=linear.stock_price_w,
        load_price_w=linear.load_price_w,
        penalty_w_per_qps=linear.penalty_w_per_qps,
        fit_scale=fleet_scale(problem) if shed_qps.any() else None,
        baselines={
            "greedy": greedy(problem, policy.greedy_order, policy.greedy_rank),
            "oblivious": oblivious(problem, policy.seed),
        },
        greedy_order_spread=spread,
        notes=notes,
    )


def _checked_stock(stock: Mapping[str, int], known: Sequence[str]) -> tuple[tuple[str, ...], IntArray]:
    if not isinstance(stock, Mapping):
        raise DTypeError(f"stock: {type(stock).__name__}; needed: a mapping from server name to count")
    if not stock:
        raise InputError("stock: no server named; at least one is needed")
    counts = []
    for name, count in stock.items():
        if name not in known:
            raise UnknownNameError.of("server of the stock, without any row in the efficiency table:", str(name), known)
        try:
            whole = operator.index(count)
        except TypeError:
            raise InputError(f"stock: {name!r} has {count!r}; allowed: whole numbers of machines, 0 or more") from None
        if isinstance(count, bool) or whole < 0:
            raise InputError(f"stock: {name!r} has {count!r}; allowed: whole numbers of machines, 0 or more")
        counts.append(whole)
    return tuple(stock), np.array(counts, dtype=np.int64)


def _check_load(load: LoadTrace) -> None:
    shape = (len(load.times), len(load.workloads))
    if np.shape(load.qps) != shape:
        raise InputError(
            f"load {load.name!r}: qps has shape {np.shape(load.qps)}; needed: {shape} = [times, workloads]"
        )
    if not all(shape):
        raise InputError(
            f"load {load.name!r}: {shape[0]} intervals of {shape[1]} workloads; at least one of each is needed"
        )
    values = np.asarray(load.qps, dtype=np.float64)
    bad = np.argwhere(~(np.isfinite(values) & (values >= 0.0)))
    if len(bad):
        t, w = bad[0].tolist()
        place = f"interval {t} ({load.times[t]}), workload {load.workloads[w]!r}"
        raise InputError(f"load {load.name!r}: {place} is {values[t, w]}; allowed: finite, 0 or more q/s")


def _verify(problem: Problem, linear: LinearSolution, servers_on: IntArray) -> None:
    """Check the answer against the inputs, in their own units; what fails here is a fault of this library."""
    for name, counts in (("whole", servers_on), ("fractional", linear.servers)):
        if (counts < 0).any() or counts[:, problem.qps <= 0].any():
            raise InternalError(f"{name} plan: a negative count, or servers on a pair that is not eligible")
        over = counts.sum(axis=2) - problem.stock * (1.0 + 1e-7)
        if (over > 1e-9).any():
            t, h = np.argwhere(over > 1e-9)[0].tolist()
            raise InternalError(
                f"{name} plan, interval {t}: more {problem.servers[h]!r} than its stock of {problem.stock[h]}"
            )
    capacity = np.einsum("thw,hw->tw", servers_on.astype(np.float64), problem.qps)
    missing = problem.demand_qps - capacity - problem.shortfall_qps(servers_on)
    if (missing > 1e-7 * problem.demand_qps).any():
        t, w = np.argwhere(missing > 1e-7 * problem.demand_qps)[0].tolist()
        raise InternalError(f"interval {t}: workload {problem.workloads[w]!r} is short and the plan does not say so")
    below = linear.bound_w - linear.objective_w
    if (below > 1e-5 * linear.objective_w + 1e-6).any():
        t = int(below.argmax())
        raise InternalError(
            f"interval {t}: objective {linear.objective_w[t]} W lies below its own bound {linear.bound_w[t]} W"
        )
