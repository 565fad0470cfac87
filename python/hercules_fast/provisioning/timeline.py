"""From an efficiency table, a load trace, a stock and an operator's policy to a plan."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hercules_fast.errors import DTypeError, InputError, InternalError, InterruptedRun, UnknownNameError
from hercules_fast.provisioning.baselines import greedy, greedy_order_spread, oblivious, oblivious_spread
from hercules_fast.provisioning.constraints import Constraint
from hercules_fast.provisioning.footprint import without_footprint
from hercules_fast.provisioning.inverse import largest_growth, relaxations
from hercules_fast.provisioning.operations import Costs
from hercules_fast.provisioning.plan import Plan
from hercules_fast.provisioning.policy import DEFAULT_HEADROOM, MOST_HEADROOM, Policy, day_over_day, steepest_growth
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem, shortfall_qps
from hercules_fast.provisioning.scale import scale_load
from hercules_fast.provisioning.solution import Solution
from hercules_fast.provisioning.solvers import SolverName
from hercules_fast.provisioning.solving import solve_problem
from hercules_fast.tables import Choices, Estimate
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

    def choices(
        self,
        servers: Sequence[str] | None = None,
        workloads: Sequence[str] | None = None,
        estimate: Estimate = "value",
    ) -> Choices:
        """QPS, power and groups of the ways to use each server; 0 QPS = not eligible."""


def provision(
    table: EfficiencySource,
    load: LoadTrace,
    stock: Mapping[str, int],
    policy: Policy | None = None,
    *,
    constraints: Sequence[Constraint] = (),
    solver: SolverName = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Plan:
    """Choose, for every interval of ``load``, how many servers of each type run each workload, at the least power.

    Each interval is solved as a linear program (equations 1-3 of the Hercules paper) and rounded to whole machines.
    The answer is checked apart from the solver before it is returned: stock and coverage in the original units.

    Args:
        table: QPS and power of each (server type, workload); pairs that do not fit a server's memory are not eligible
            in it. Several rows of a pair are choices; rows of a group are used in multiples of it.
        load: q/s of each workload in each interval; a relative trace is scaled first, see ``policy.peak_share``.
        stock: server type -> machines that may be switched on. Types of the table that are not named here stay off.
        policy: headroom, what is drained, what must be on, maintenance, prices and the rules of the baselines; None:
            the defaults of :class:`Policy`.
        constraints: caps on power, failure domains, switching ..., see :func:`solve_constrained`.
        solver: of the linear program, see :func:`solve_program`: "auto", "network" or "highs".
        threads: worker threads; None: as set by the environment, else all CPUs. It never changes a byte.
        progress: called with (intervals done, intervals) while the linear program is solved.

    Returns:
        A :class:`Plan`, also when the stock cannot cover the demand: then ``plan.is_covered`` is false and
        ``plan.shortfall()`` names what is short and what would help. The same arguments give the same bytes.

    Raises:
        UnknownNameError: a workload of the load, or a server or workload of stock or policy, that is not known.
        ConfigError: with all faults of the constraints.
        InputError: a count, load, price or table entry that is out of range; the message names it.
        SolverError: the linear-programming solver ended without an answer.
        InterruptedRun: Ctrl-C; ``partial`` is the plan of the intervals done, without baselines.
    """
    policy = policy or Policy()
    servers, counts = _checked_stock(stock, table.servers)
    for name in load.workloads:
        if name not in table.workloads:
            raise UnknownNameError.of(
                f"workload of load {load.name!r}, without any row in the efficiency table:", name, table.workloads
            )
    _check_load(load)
    choices = table.choices(servers, load.workloads, policy.estimate)
    choices, drained = _drained(choices, policy, servers, load.workloads)
    notes = ["QPS are the lower ends of their intervals"] if policy.estimate == "lower" else []
    headroom, words = _headroom_of(load, policy)
    notes += words
    if load.relative:
        best = choices.qps[: len(servers)]
        load, scaling = scale_load(load, best, counts, servers, policy.peak_share, headroom, policy.reference_server)
        notes.append(scaling)
    case = _Case.of(choices, load, servers, counts, headroom, policy)
    stopped = None
    try:
        found = solve_problem(
            case.problem, constraints, solver=solver, minimum=case.minimum, threads=threads, progress=progress
        )
    except InterruptedRun as stop:
        if stop.partial is None:
            raise
        stopped, found = stop, stop.partial
        case = case.first(found.problem.n_intervals)
        notes.append(f"{stop}: the intervals after that are not planned")
    if found.linear.resolved:
        worst = float(np.abs(found.linear.gap).max())
        notes.append(
            f"{len(found.linear.resolved)} intervals were solved without a warm start; worst gap left {worst:.1e}"
        )
    if found.cross_check is not None:
        notes.append(found.cross_check.words())
    if case.costs is not None:
        notes.append("cost is minimised, so that the plan may take more watts than a baseline")
    if constraints and policy.baselines:
        notes.append("the baselines know no constraints")
    _verify_bound(found)
    plan = _plan(case, found, drained, tuple(notes))
    if stopped is not None:
        raise InterruptedRun(str(stopped), plan)
    return _with_baselines(plan, case, policy)


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """What is solved, and what it was made from."""

    problem: Problem
    minimum: IntArray
    """[R, W] machines that are on in any case."""
    choices: Choices
    load: LoadTrace
    headroom: FloatArray
    """[W]."""
    costs: Costs | None
    estimate: str

    @classmethod
    def of(
        cls,
        choices: Choices,
        load: LoadTrace,
        servers: tuple[str, ...],
        counts: IntArray,
        headroom: FloatArray,
        policy: Policy,
    ) -> _Case:
        hours = load.interval_s / 3600.0
        costs = None if policy.prices is None else policy.prices.over(servers, load.times, load.interval_s)
        stock = counts
        if policy.maintenance is not None:
            stock = policy.maintenance.stock_over(counts, servers, load.times, load.interval_s)
        problem = Problem(
            qps=choices.qps,
            power_w=choices.power_w,
            demand_qps=np.asarray(load.qps, dtype=np.float64) * (1.0 + headroom),
            stock=stock,
            row_type=choices.row_type if len(choices.row_type) > len(servers) else None,
            watt_cost=None if costs is None else costs.watt_cost(hours),
            machine_cost=None if costs is None else costs.machine_cost(hours),
            group=choices.group if (choices.group > 1).any() else None,
            servers=servers,
            workloads=load.workloads,
        )
        minimum = _minimum_of(policy, problem)
        return cls(problem, minimum, choices, load, headroom, costs, policy.estimate)

    def first(self, n: int) -> _Case:
        """The first ``n`` intervals."""
        part = np.arange(n)
        return dataclasses.replace(
            self,
            problem=self.problem.at(part),
            load=dataclasses.replace(self.load, times=self.load.times[:n], qps=np.asarray(self.load.qps)[:n]),
            costs=None if self.costs is None else self.costs.at(part),
        )


def _drained(
    choices: Choices, policy: Policy, servers: tuple[str, ...], workloads: tuple[str, ...]
) -> tuple[Choices, tuple[str, ...]]:
    """``choices`` without what is drained, and that in words."""
    if not policy.drain:
        return choices, ()
    qps, words = choices.qps.copy(), []
    for item in policy.drain:
        server, workload = (item, None) if isinstance(item, str) else item
        if server not in servers:
            raise UnknownNameError.of("server to drain", server, servers)
        if workload is not None and workload not in workloads:
            raise UnknownNameError.of("workload to drain a server of:", workload, workloads)
        rows = np.flatnonzero(choices.row_type == servers.index(server))
        qps[rows, slice(None) if workload is None else workloads.index(workload)] = 0.0
        words.append(f"{server} runs nothing" if workload is None else f"{server} does not run {workload}")
    return dataclasses.replace(choices, qps=qps), tuple(dict.fromkeys(words))


def _minimum_of(policy: Policy, problem: Problem) -> IntArray:
    """[R, W] machines that must be on; of several rows of a pair, on the one with most QPS."""
    minimum = np.zeros((problem.n_rows, problem.n_workloads), dtype=np.int64)
    for (server, workload), count in policy.minimum.items():
        if server not in problem.servers:
            raise UnknownNameError.of("server with a minimum", server, problem.servers)
        if workload not in problem.workloads:
            raise UnknownNameError.of("workload with a minimum", workload, problem.workloads)
        minimum[problem.servers.index(server), problem.workloads.index(workload)] = count
    return minimum


def _headroom_of(load: LoadTrace, policy: Policy) -> tuple[FloatArray, list[str]]:
    """Headroom [W], and where it comes from if that was not said. One that no fleet would buy is an error."""
    asked, n_w = policy.headroom, len(load.workloads)
    if isinstance(asked, Mapping):
        for name in asked:
            if name not in load.workloads:
                raise UnknownNameError.of("workload with a headroom", name, load.workloads)
        return np.array([float(asked.get(name, 0.0)) for name in load.workloads]), []
    if isinstance(asked, str):
        return _headroom_of_errors(load, policy.headroom_z)
    if asked is not None:
        return np.full(n_w, float(asked)), []
    growth, t, w = steepest_growth(load.qps)
    if t < 0:
        return np.full(n_w, growth), [
            f"headroom {100 * growth:.3g} %, the default: the load has no two intervals to compare"
        ]
    where = f"{load.workloads[w]} from {load.times[t - 1]} to {load.times[t]}"
    if growth > MOST_HEADROOM:
        raise InputError(
            f"load {load.name!r}: its largest growth over one interval is {100 * growth:.3g} % ({where}), too much "
            f"for a headroom (allowed without asking: {100 * MOST_HEADROOM:g} %); give one, such as headroom 0.1"
        )
    return np.full(n_w, growth), [
        f"headroom {100 * growth:.3g} % = the largest growth over one interval of the load ({where})"
    ]


def _headroom_of_errors(load: LoadTrace, z: float) -> tuple[FloatArray, list[str]]:
    headroom = day_over_day(np.asarray(load.qps, dtype=np.float64), load.interval_s, z)
    if headroom is None:
        words = f"headroom {100 * DEFAULT_HEADROOM:.3g} %, the default: the load has no two days to compare"
        return np.full(len(load.workloads), DEFAULT_HEADROOM), [words]
    worst = int(headroom.argmax())
    if headroom[worst] > MOST_HEADROOM:
        raise InputError(
            f"load {load.name!r}: {load.workloads[worst]} differs so much from the day before that it asks for "
            f"{100 * headroom[worst]:.3g} % headroom (allowed without asking: {100 * MOST_HEADROOM:g} %); give one"
        )
    each = ", ".join(f"{name} {100 * x:.3g} %" for name, x in zip(load.workloads, headroom, strict=True))
    words = f"headroom = mean + {z:g} standard deviations of the load over that of the day before, less 1: {each}"
    return headroom, [words]


def _plan(case: _Case, found: Solution, drained: tuple[str, ...], notes: tuple[str, ...]) -> Plan:
    """The plan without baselines."""
    problem, minimum, linear = case.problem, case.minimum, found.linear
    short = shortfall_qps(problem.demand_qps, found.sparse.per_workload(problem.qps)).any()
    said = found.constrained
    if said is not None:
        said = dataclasses.replace(said, binding=tuple(_with_times(words, case.load) for words in said.binding))
    return Plan(
        load_name=case.load.name,
        times=np.array(case.load.times, dtype="datetime64[s]"),
        interval_s=float(case.load.interval_s),
        servers=problem.servers,
        workloads=problem.workloads,
        load_qps=np.array(case.load.qps, dtype=np.float64),
        demand_qps=problem.demand_qps,
        headroom=case.headroom,
        estimate=case.estimate,
        qps=problem.qps,
        qps_lo=np.where(problem.qps > 0, case.choices.qps_lo, 0.0),
        server_power_w=problem.power_w,
        row_type=problem.types.copy(),
        group=np.ones(problem.qps.shape, dtype=np.int64) if problem.group is None else problem.group,
        stock=problem.stocks.copy(),
        minimum=minimum,
        drained=drained,
        costs=case.costs,
        assignment=found.sparse,
        lp_assignment=linear.assignment,
        bound_w=linear.bound_w,
        stock_price_w=linear.stock_price_w,
        load_price_w=linear.load_price_w,
        penalty_w_per_qps=linear.penalty_w_per_qps,
        fit_scale=largest_growth(problem, minimum=minimum).factor if short and said is None else None,
        relaxations=relaxations(problem, minimum, rules=said is not None) if short else (),
        baselines={},
        greedy_order_spread=None,
        oblivious_spread=None,
        notes=notes,
        constrained=said,
    )


def _with_times(words: str, load: LoadTrace) -> str:
    """``words`` with the intervals' times in place of their numbers."""
    return re.sub(r"in interval (\d+)", lambda found: f"at {load.times[int(found[1])]}", words)


def _with_baselines(plan: Plan, case: _Case, policy: Policy) -> Plan:
    """``plan`` beside what other schedulers do with the same stock, the same demand and the same minimum footprint."""
    rest, last, samples = without_footprint(case.problem, case.minimum), policy.last_machine, policy.order_samples
    bases, by_order, by_draw = [], None, None
    if "greedy" in policy.baselines:
        bases.append(greedy(rest, policy.greedy_order, policy.greedy_rank, start=policy.greedy_start, last=last))
        if samples:
            by_order = greedy_order_spread(rest, plan.peak, policy.greedy_rank, samples, policy.seed, last)
    if "oblivious" in policy.baselines:
        types = policy.oblivious_types
        bases.append(oblivious(rest, policy.seed, draw=policy.oblivious_draw, types=types, last=last))
        if samples and policy.oblivious_draw == "random":
            by_draw = oblivious_spread(rest, plan.peak, samples, policy.seed, types=types, last=last)
    machines, watts = int(case.minimum.sum()), float((case.minimum * case.problem.power_w).sum())
    return dataclasses.replace(
        plan,
        baselines={base.name: base.beside(machines, watts) for base in bases},
        greedy_order_spread=by_order and by_order.beside(machines, watts),
        oblivious_spread=by_draw and by_draw.beside(machines, watts),
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


def _verify_bound(found: Solution) -> None:
    """No answer lies below its own bound; what fails here is a fault of this library."""
    objective, bound = found.objective_w, found.bound_w
    if found.constrained is not None and found.constrained.tied:
        objective, bound = objective.sum(keepdims=True), bound.sum(keepdims=True)
    below = bound - objective
    if (below > 1e-5 * objective + 1e-6).any():
        t = int(below.argmax())
        raise InternalError(f"interval {t}: objective {objective[t]} lies below its own bound {bound[t]}")
