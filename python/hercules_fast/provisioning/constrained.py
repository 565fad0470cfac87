"""Provisioning under the constraints that break the network: linear optimum, then whole machines, interval by interval.

The linear program is HiGHS' on a pool of columns (:mod:`.master`), its certificate the Lagrangian bound with the
prices of every side row. Whole machines are HiGHS' branch and bound over the columns that those prices like, started
from a rounding; what comes back is checked in the problem's own units, whoever found it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, InternalError, InterruptedRun, SolverError
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.certificate import Duals, certificate, effective_prices
from hercules_fast.provisioning.constraints import Constraint, Rules, resolve, surviving_qps
from hercules_fast.provisioning.highs import power_of_two
from hercules_fast.provisioning.linear import GAP_TOL, as_assignment, assignment_cost, checked_penalty
from hercules_fast.provisioning.master import ALL_COLUMNS, Master, Point, State, TwoStage
from hercules_fast.provisioning.network import solve_network
from hercules_fast.provisioning.parts import Parts
from hercules_fast.provisioning.problem import COVER_TOL, FloatArray, IntArray, Problem, shortfall_qps
from hercules_fast.provisioning.relaxed import LinearSolution, relative_gap, shed_penalties
from hercules_fast.provisioning.rounding import Rounding, pair_keys
from hercules_fast.provisioning.solution import Constrained, Solution, price_dust

__all__ = ["finish", "solve_constrained"]

# Branch and bound ends after so many nodes: at the same place on any machine, which no time limit does.
_MIP_NODES = 2_000
# It sees all columns up to so many, else so many of the cheapest per workload, and of the cheapest with machines to
# spare. Up to so many, a last window is solved in whole machines as one.
_MIP_COLUMNS, _MIP_PER_WORKLOAD, _MIP_SPARE = 1_000, 5, 6
_WINDOW_COLUMNS = 500
# Constraints hold to this part of their limit: the rounding of sums of watts.
_HOLDS = 1e-9
# The fractional answer, which is the solver's own.
_HOLDS_LINEAR = 1e-6


def solve_constrained(
    problem: Problem,
    constraints: Sequence[Constraint],
    *,
    integer: bool = True,
    penalty: npt.ArrayLike | None = None,
    minimum: IntArray | None = None,
    mip_gap: float = 1e-3,
    time_limit_s: float = 10.0,
    progress: Callable[[int, int], object] | None = None,
) -> Solution:
    """The cheapest machines of every interval under ``constraints``.

    Shed load stays a last resort (least weighted shed first, then cost), unless ``penalty`` [W] or [T, W], cost per
    q/s, is given. With ``integer``, whole machines; their distance to the linear bound is ``gap``. The search for them
    ends, per interval, within ``mip_gap`` of the best (relative), after ``time_limit_s``, or after a number of nodes;
    where the time does not end it, the same input gives the same bytes. No answer ever breaks a constraint: what
    cannot be served is shed. ``minimum``: int64 [R, W] machines that are on in every interval, needed or not; they
    count for caps, domains and switching as any other. ``progress(done, total)`` counts intervals.

    Raises :class:`ConfigError` with all faults of the constraints at once, :class:`InputError` for other arguments,
    :class:`SolverError` by interval where rules that were inherited cannot be kept (machines that must stay on and a
    cap below them) or HiGHS ends without an answer, :class:`InterruptedRun` on Ctrl-C with the solution of the
    intervals done.
    """
    rules = resolve(problem, constraints, minimum)
    for name, value, most in (("mip_gap", mip_gap, 1.0), ("time_limit_s", time_limit_s, 1e6)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= most:
            raise InputError(f"{name}: {value!r}; allowed: 0 to {most:g}")
    weight = shed_penalties(problem) if penalty is None else checked_penalty(problem, penalty)
    share = _fair_shares(problem, rules) if rules.fair else np.ones(problem.demand_qps.shape)
    asked = problem
    if (share < 1.0).any():
        asked = dataclasses.replace(problem, demand_qps=problem.demand_qps * share)
    parts = Parts.of(asked, rules) if rules.safe_domains else None
    run = _Run(
        asked if parts is None else parts.problem,
        rules if parts is None else dataclasses.replace(rules, minimum=parts.minimum),
        weight if parts is None else weight[:, parts.workload],
        fixed=penalty is not None,
        integer=integer,
        mip_gap=mip_gap,
        time_limit_s=float(time_limit_s),
    )
    try:
        run.all_intervals(progress)
    except KeyboardInterrupt:
        done = len(run.answers)
        partial = finish(problem.first(done), rules, run.solution(), parts, share[:done]) if done else None
        raise InterruptedRun(f"stopped after {done} of {problem.n_intervals} intervals", partial) from None
    return finish(problem, rules, run.solution(), parts, share)


def finish(
    problem: Problem, rules: Rules, solution: Solution, parts: Parts | None, share: FloatArray | float
) -> Solution:
    """The solution in terms of the problem that was given: its workloads, its demand."""
    solution = solution if parts is None else parts.folded(problem, solution)
    linear, said = solution.linear, solution.constrained
    assert said is not None
    shed, _ = _uncovered(problem, rules, linear.assignment)
    _, exposed = _uncovered(problem, rules, solution.sparse)
    return dataclasses.replace(
        solution,
        problem=problem,
        linear=dataclasses.replace(linear, shed_qps=shed),
        load_qps=problem.demand_qps,
        constrained=dataclasses.replace(said, exposed_qps=exposed, served_share=np.broadcast_to(share, exposed.shape)),
    )


def _uncovered(problem: Problem, rules: Rules, assignment: Assignment) -> tuple[FloatArray, FloatArray]:
    """[T, W] demand that is not covered, now and after the worst failure of k domains."""
    capacity = _by_domain(problem, rules, assignment)
    short = shortfall_qps(problem.demand_qps, capacity.sum(axis=1))
    if not rules.k:
        return short, np.zeros(short.shape)
    return short, shortfall_qps(problem.demand_qps, surviving_qps(capacity, rules.k))


def _by_domain(problem: Problem, rules: Rules, assignment: Assignment) -> FloatArray:
    """[T, F, W] capacity."""
    shape = (assignment.shape[0], rules.n_domains, problem.n_workloads)
    domain = np.zeros(len(assignment.row), np.int64)
    if rules.domain is not None:
        domain = rules.domain[problem.types[assignment.row]]
    place = (assignment.interval * shape[1] + domain) * shape[2] + assignment.workload
    rate = assignment.machines * problem.qps[assignment.row, assignment.workload]
    return np.bincount(place, rate, minlength=shape[0] * shape[1] * shape[2]).astype(np.float64).reshape(shape)


# -- intervals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """One interval: the linear optimum and what is switched on."""

    point: Point
    row: IntArray
    workload: IntArray
    machines: FloatArray
    status: str


class _Run:
    """One pass through time."""

    def __init__(
        self,
        problem: Problem,
        rules: Rules,
        weight: FloatArray,
        *,
        fixed: bool,
        integer: bool,
        mip_gap: float,
        time_limit_s: float,
    ) -> None:
        self.problem, self.rules, self.integer = problem, rules, integer
        self.mip_gap, self.time_limit_s = mip_gap, time_limit_s
        self.weight, self.fixed = weight, fixed
        self.n = rules.horizon if rules.switching else 1
        self.stages = TwoStage(problem, rules, self.n, weight, fixed=fixed)
        self.answers: list[_Answer] = []
        self.on: list[FloatArray] = [] if rules.initial is None else [rules.initial.astype(np.float64)]
        self.switched: list[FloatArray] = []
        self.tiles: list[Duals] = []  # prices of windows laid end to end

    def all_intervals(self, progress: Callable[[int, int], object] | None) -> None:
        """Solve window after window."""
        n_t = self.problem.n_intervals
        while len(self.answers) < n_t:
            t = len(self.answers)
            state = self._state()
            points = self.stages.solve(t, state, None if t else self._first_prices())
            if not self.rules.switching:
                points = [self._certain(t, points[0])]
            # The last window may be the exact plan of all that is left.
            small = self.stages.master.n_eligible * self.n <= _WINDOW_COLUMNS
            last = t + self.n >= n_t and (small or not self.integer)
            keep = n_t - t if last else 1
            if self.rules.switching and t % self.n == 0:
                self.tiles += [p.duals for p in points[: n_t - t]]
            found = self._whole(t, state, points, keep) if self.integer else None
            for i, point in enumerate(points[:keep]):
                answer = _Answer(point, point.row, point.workload, point.machines, "optimal")
                if found is not None:
                    answer = _Answer(point, *found[i])
                if self.rules.hysteresis is not None and self.answers:
                    answer = self._kept(t, answer)
                self._commit(t + i, answer)
            if progress is not None:
                progress(len(self.answers), n_t)

    def _first_prices(self) -> FloatArray | None:
        """[H] stock prices without the constraints, which choose the first columns of a large fleet."""
        master = self.stages.master
        if master.n_eligible * self.n <= ALL_COLUMNS:
            return None
        try:
            free = solve_network(self.problem.interval(0), self.weight[:1] if self.fixed else None, threads=1)
        except SolverError:  # the core's way only; the program has its own
            return None
        prices: FloatArray = free.stock_price_w[0]
        return prices

    def _state(self) -> State | None:
        if not self.rules.switching:
            return None
        recent = np.array(self._recent()).reshape(-1, self.problem.n_servers)
        return State(self.on[-1] if self.on else None, recent)

    def _recent(self) -> list[FloatArray]:
        """Machines switched on in the intervals that a minimum up-time may still reach back to; the last one last."""
        return self.switched[max(0, len(self.switched) - int(self.rules.min_up.max()) + 1) :]

    def _certain(self, t: int, point: Point) -> Point:
        """``point``, solved again without a warm start where its certificate is not met."""
        part, rules = self.problem.interval(t), _at(self.rules, t)
        bound, _, _ = certificate(part, rules, [point.duals], self.stages.penalty[t : t + 1])
        objective = self._objective(part, rules, as_assignment(part, [point]), self.stages.penalty[t : t + 1])
        if abs(float(relative_gap(objective, bound)[0])) <= GAP_TOL:
            return point
        again = TwoStage(part, rules, 1, self.stages.penalty[t : t + 1], fixed=self.fixed)
        point = again.solve(0, None, point.duals.stock)[0]
        self.stages.penalty[t] = again.penalty[0]
        return point

    @staticmethod
    def _objective(problem: Problem, rules: Rules, assignment: Assignment, penalty: FloatArray) -> FloatArray:
        """[T] cost and penalties; not the cost of switching."""
        short, exposed = _uncovered(problem, rules if not rules.safe_domains else _no_failures(rules), assignment)
        cost = assignment_cost(problem, assignment) + (penalty * (short + exposed)).sum(axis=1)
        return np.asarray(cost, dtype=np.float64)

    def _commit(self, t: int, answer: _Answer) -> None:
        problem = self.problem
        on = np.bincount(problem.types[answer.row], answer.machines, minlength=problem.n_servers).astype(np.float64)
        switched = np.maximum(on - self.on[-1], 0.0) if self.on else np.zeros(problem.n_servers)
        faults = self._broken(t, answer, on, switched)
        if faults:
            raise InternalError(f"interval {t}: the plan breaks {'; '.join(faults)}")
        self.on.append(on)
        self.switched.append(switched)
        self.answers.append(answer)

    def _broken(self, t: int, answer: _Answer, on: FloatArray, switched: FloatArray) -> list[str]:
        """The constraints that an answer breaks, in words; in the problem's own units."""
        problem, rules = self.problem, self.rules
        holds = _HOLDS if self.integer else _HOLDS_LINEAR
        room = 1.0 + holds
        faults = []
        for h in np.flatnonzero(on > problem.stocks[t] * room + (0.0 if self.integer else holds)):
            faults.append(f"the stock of {problem.servers[h]!r}: {on[h]:g} of {problem.stocks[t, h]}")
        power = answer.machines * problem.power_w[answer.row, answer.workload]
        drawn = rules.cap_member[:, problem.types[answer.row]] @ power
        for g in np.flatnonzero(drawn > rules.cap_limit_w[t] * room):
            faults.append(f"cap {rules.cap_names[g]!r}: {drawn[g]:g} of {rules.cap_limit_w[t, g]:g} W")
        if rules.switching:
            slack = holds * np.maximum(on if self.integer else problem.stocks.max(axis=0), 1.0)
            for h in np.flatnonzero(switched > rules.ramp + slack):
                faults.append(f"the ramp of {problem.servers[h]!r}: {switched[h]:g} of {rules.ramp[h]:g}")
            lately = switched.copy()
            for back, earlier in enumerate(reversed(self._recent()), 1):
                lately += np.where(back < rules.min_up, earlier, 0.0)
            for h in np.flatnonzero(lately > on + slack):
                faults.append(f"the minimum up-time of {problem.servers[h]!r}: {on[h]:g} on, {lately[h]:g} needed")
        if self.integer and problem.group is not None:
            for i in np.flatnonzero(answer.machines % problem.group[answer.row, answer.workload]):
                faults.append(f"the group of row {answer.row[i]}, {problem.workloads[answer.workload[i]]!r}")
        if rules.minimum is not None:
            there = np.zeros(problem.qps.shape)
            there[answer.row, answer.workload] = answer.machines
            for r, w in np.argwhere(there < rules.minimum * (1.0 - holds)).tolist():
                faults.append(f"the minimum of row {r}, {problem.workloads[w]!r}: {there[r, w]:g} machines")
        return faults

    # -- whole machines ------------------------------------------------------------------------------------------

    def _whole(
        self, t: int, state: State | None, points: list[Point], keep: int
    ) -> list[tuple[IntArray, IntArray, FloatArray, str]]:
        """Whole machines of the ``keep`` intervals from t on, whose window the linear program has solved.

        Rows, workloads, machines, and how good they are. The intervals of the window after those stay fractional.
        """
        row, workload = self._columns(t, points)
        rounded = Rounding(self.problem, self.rules, t, state, points[0], row, workload).machines
        window = list(self.stages.master.windows)
        weight = self.weight[window]
        if self.n == 1:  # alone, so that its rows are scaled to its own demand
            model = Master(self.problem.interval(t), _at(self.rules, t), weight=weight)
            model.place(0, state)
        else:
            model = Master(self.problem, self.rules, self.n, weight=weight)
            model.place(t, state)
        model.penalty = self.stages.penalty[window]
        model.begin(row, workload)
        model.solver.make_integer(model.pool_column[:keep].ravel())
        model.solver.option("mip_rel_gap", float(self.mip_gap))
        model.solver.option("mip_max_nodes", _MIP_NODES)
        model.solver.option("mip_feasibility_tolerance", 1e-9)
        model.solver.option("time_limit", self.time_limit_s)
        what = f"interval {t}, whole machines"
        start = rounded / model.pool_scale

        def search() -> tuple[FloatArray | None, str]:
            if keep == 1:
                model.solver.start_at(model.pool_column[0], start)
            return model.solver.run_integer(what)

        values, status = None, "infeasible"
        if self.fixed:
            values, status = search()
        else:
            uncovered = [self._score(t, row, workload, rounded)[0]]
            uncovered += [float((w * p.shed_qps).sum()) for w, p in zip(weight[1:], points[1:], strict=True)]
            if not any(uncovered):
                model.set_budget(np.zeros(self.n))
                values, status = search()
            if status == "infeasible":
                values, status = self._least_shed(model, search)
        if values is None:
            return [(*_used(row, workload, rounded), "rounded")] if keep == 1 else self._nothing_found(what)
        found = []
        for columns in model.pool_column[:keep]:
            machines = np.round(values[columns]) * model.pool_scale
            found.append((*_used(row, workload, machines), status))
        if self.n == 1 and self._score(t, row, workload, rounded) < self._score(t, *found[0][:3]):
            return [(*_used(row, workload, rounded), "rounded")]
        return found

    def _least_shed(
        self, model: Master, search: Callable[[], tuple[FloatArray | None, str]]
    ) -> tuple[FloatArray | None, str]:
        """Whole machines of least weighted shed, and among those of least cost."""
        assert model.weight is not None
        columns = np.arange(model.solver.n_columns)
        cost = np.asarray(model.solver.highs.getLp().col_cost_, dtype=np.float64)
        shed = np.concatenate([model.shed_column, model.exposed_column] if model.k else [model.shed_column])
        weight = np.concatenate([model.weight] * (2 if model.k else 1)) / model.cover_scale
        only_shed = np.zeros(len(cost))
        only_shed[shed.ravel()] = weight.ravel() / float(power_of_two(weight.max()))
        model.set_budget(np.full(self.n, np.inf))
        model.solver.set_costs(columns, only_shed)
        values, status = search()
        if values is None:
            return values, status
        weighed = (np.maximum(values[shed], 0.0) * weight).sum(axis=1).reshape(-1, self.n).sum(axis=0)
        total = (model.weight * self.problem.demand_qps[list(model.windows)]).sum(axis=1) if self.n > 1 else 0.0
        model.set_budget(weighed * (1.0 + COVER_TOL) + COVER_TOL * total)
        model.solver.set_costs(columns, cost)
        cheaper, better = search()
        return (values, "limit") if cheaper is None else (cheaper, better if status == "optimal" else status)

    @staticmethod
    def _nothing_found(what: str) -> NoReturn:
        raise SolverError(f"{what}: no plan was found within the limits of time and nodes")

    def _columns(self, t: int, points: list[Point]) -> tuple[IntArray, IntArray]:
        """The pairs that whole machines may use: those of the linear optimum, and the cheapest beside them.

        Sorted by workload, then row.
        """
        master = self.stages.master
        n_r = self.problem.n_rows
        if master.n_eligible * self.n <= _MIP_COLUMNS:  # then the pool holds them all
            pairs = np.sort(pair_keys(self.problem, master.pool_row, master.pool_workload))
            return pairs % n_r, pairs // n_r
        after = points[1].duals.on if len(points) > 1 else None
        machine, watt = effective_prices(self.rules, points[0].duals, after)
        limit = np.full((master.n_f, self.problem.n_workloads), np.inf)
        skip = np.zeros(self.problem.qps.shape, dtype=bool)
        row, workload = master.pricing.best(t, machine, watt, limit, _MIP_PER_WORKLOAD, skip)
        # Beside them the cheapest of the types that the linear optimum leaves free: a last resort for every workload.
        used = np.bincount(self.problem.types[points[0].row], points[0].machines, minlength=self.problem.n_servers)
        skip[used[self.problem.types] > self.problem.stocks[t][self.problem.types] - 1.0] = True
        spare_row, spare_workload = master.pricing.best(t, machine, watt, limit, _MIP_SPARE, skip)
        parts = [(row, workload), (spare_row, spare_workload), master.resting_pairs(), self.rules.footprint]
        parts += [(p.row, p.workload) for p in points]
        row, workload = (np.concatenate(part) for part in zip(*parts, strict=True))
        pairs = np.unique(pair_keys(self.problem, row, workload))
        return pairs % n_r, pairs // n_r

    def _score(self, t: int, row: IntArray, workload: IntArray, machines: FloatArray) -> tuple[float, float]:
        """Weighted uncovered load, then cost: the lower the better."""
        part, rules = self.problem.interval(t), _at(self.rules, t)
        table = _table(part, row, workload, machines)
        short, exposed = _uncovered(part, _no_failures(rules) if rules.safe_domains else rules, table)
        cost = float(assignment_cost(part, table)[0])
        weighed = float((self.weight[t] * (short + exposed)).sum())
        if self.fixed:
            return 0.0, cost + weighed
        return weighed, cost

    # -- hysteresis ----------------------------------------------------------------------------------------------

    def _kept(self, t: int, new: _Answer) -> _Answer:
        """The previous plan, mended, if it is good enough; else ``new``.

        Mended means that some workloads take over ``new`` as it is: those that would be short, then those in the way.
        Every pair then stands at its old or its new count, and so the machines newly given to a pair, summed over
        time, are never more than without hysteresis: each step leads towards the plan that would have been taken.
        """
        assert self.rules.hysteresis is not None
        problem, old, n_w = self.problem, self.answers[-1], self.problem.n_workloads
        keys = np.unique(np.concatenate([old.row * n_w + old.workload, new.row * n_w + new.workload]))
        row, workload = keys // n_w, keys % n_w
        was, now = np.zeros(len(keys)), np.zeros(len(keys))
        was[np.searchsorted(keys, old.row * n_w + old.workload)] = old.machines
        now[np.searchsorted(keys, new.row * n_w + new.workload)] = new.machines
        part, rules = problem.interval(t), _at(self.rules, t)
        target = self._score(t, row, workload, now)
        table = _table(part, row, workload, was)
        short, exposed = _uncovered(part, _no_failures(rules) if rules.safe_domains else rules, table)
        fresh = (short + exposed)[0] > 0
        while not fresh.all():
            counts = np.where(fresh[workload], now, was)
            answer = _Answer(new.point, *_used(row, workload, counts), "kept")
            on = np.bincount(problem.types[row], counts, minlength=problem.n_servers).astype(np.float64)
            if self._broken(t, answer, on, np.zeros(len(on))):
                # The workload that holds most machines which the new plan would not give it.
                excess = np.bincount(workload, np.maximum(was - now, 0.0) * ~fresh[workload], minlength=n_w)
                fresh[int(np.where(fresh, -1.0, excess).argmax())] = True
                continue
            penalty = self.stages.penalty[t : t + 1]
            bound, _, _ = certificate(part, rules, [new.point.duals], penalty)
            objective = self._objective(part, rules, _table(part, row, workload, counts), penalty)
            score = self._score(t, row, workload, counts)
            fresh_cost = self._objective(part, rules, _table(part, row, workload, now), penalty)
            good = objective[0] <= max((1.0 + self.rules.hysteresis) * bound[0], fresh_cost[0])
            if good and (self.fixed or score[0] <= target[0] * (1.0 + COVER_TOL)):
                return answer
            return new
        return new

    # -- result --------------------------------------------------------------------------------------------------

    def solution(self) -> Solution:
        """Of the intervals done, in terms of this run's problem."""
        done = len(self.answers)
        problem = self.problem.first(done)
        rules = dataclasses.replace(self.rules, cap_limit_w=self.rules.cap_limit_w[:done])
        penalty = self.stages.penalty[:done]
        points = [a.point for a in self.answers]
        linear = as_assignment(problem, points)
        tables = [_sorted(a.row, a.workload, a.machines) for a in self.answers]
        answer = as_assignment(problem, [Point(*x, p.shed_qps, p.duals) for x, p in zip(tables, points, strict=True)])
        switched = np.stack(self.switched)
        if self.integer:
            answer = dataclasses.replace(answer, machines=answer.machines.astype(np.int64))
            switched = switched.astype(np.int64)
        duals = [p.duals for p in points]
        bound, stock_price, load_price = certificate(problem, rules, duals, penalty)
        if rules.switching:  # two sets of prices, both good for a bound
            tiled = certificate(problem, rules, self.tiles[:done] + duals[len(self.tiles) :], penalty)
            if tiled[0].sum() > bound.sum():
                bound, stock_price, load_price = tiled
        return Solution(
            problem=problem,
            linear=LinearSolution(
                assignment=linear,
                power_w=linear.total(problem.power_w),
                shed_qps=shortfall_qps(problem.demand_qps, linear.per_workload(problem.qps)),
                objective_w=self._objective(problem, rules, linear, penalty),
                penalty_w_per_qps=penalty,
                stock_price_w=stock_price,
                load_price_w=load_price,
                bound_w=bound,
                solver=("highs",) * done,
            ),
            whole=answer if self.integer else None,
            load_qps=problem.demand_qps,
            constrained=Constrained(
                objective_w=self._objective(problem, rules, answer, penalty) + (switched * rules.cost_on).sum(axis=1),
                exposed_qps=np.zeros(problem.demand_qps.shape),
                served_share=np.ones(problem.demand_qps.shape),
                switched_on=switched,
                cap_names=rules.cap_names,
                cap_price=np.stack([d.cap for d in duals]),
                tied=rules.switching,
                status=tuple(a.status for a in self.answers),
                binding=_binding(problem, rules, points, switched, load_price),
            ),
        )


def _at(rules: Rules, t: int) -> Rules:
    return dataclasses.replace(rules, cap_limit_w=rules.cap_limit_w[t : t + 1])


def _no_failures(rules: Rules) -> Rules:
    return dataclasses.replace(rules, k=0)


def _used(row: IntArray, workload: IntArray, machines: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    some = machines > 0
    return row[some], workload[some], machines[some]


def _sorted(row: IntArray, workload: IntArray, machines: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    order = np.lexsort((workload, row))
    return row[order], workload[order], machines[order]


def _table(problem: Problem, row: IntArray, workload: IntArray, machines: FloatArray) -> Assignment:
    """One interval as an assignment."""
    return Assignment(
        shape=(1, problem.n_rows, problem.n_workloads),
        starts=np.array([0, len(row)]),
        row=row.astype(np.int32),
        workload=workload.astype(np.int32),
        machines=machines,
    )


# -- fair share -------------------------------------------------------------------------------------------------------


def _fair_shares(problem: Problem, rules: Rules) -> FloatArray:
    """[T, W] part of the demand that each workload gets: the smallest as large as possible, then the next smallest.

    Round by round all workloads that are still free grow alike; those whose price shows that they cannot grow further
    keep what they have. Every round settles one at least, for their prices times demand sum to 1.
    """
    shares = np.ones(problem.demand_qps.shape)
    master = Master(problem, rules, goal="share")
    for t, demand in enumerate(problem.demand_qps):
        in_stock = (problem.qps > 0) & (problem.stocks[t] > 0)[problem.types][:, None]
        able = in_stock.any(axis=0)
        free = (demand > 0) & able
        share = np.where((demand > 0) & ~able, 0.0, 1.0)
        settled = np.zeros(demand.shape)
        for _ in range(problem.n_workloads):
            if not free.any():
                break
            what = f"interval {t}, fair share"
            largest, price, _ = master.share(t, np.where(free, demand, 0.0), settled * demand, what)
            if largest >= 1.0:
                break
            tight = free & (price > 1e-9 * price.sum())
            share[tight] = max(0.0, largest * (1.0 - COVER_TOL))
            settled[tight] = share[tight] * (1.0 - COVER_TOL)
            free &= ~tight
        shares[t] = share
    return shares


# -- words ------------------------------------------------------------------------------------------------------------


def _binding(
    problem: Problem, rules: Rules, points: Sequence[Point], switched: npt.NDArray[np.float64], load_price: FloatArray
) -> tuple[str, ...]:
    """What binds beside the stock, the dearest first within each kind."""
    watt_dust, dust = price_dust(problem)
    n_t = len(points)
    words = []

    def often(times: npt.NDArray[np.bool_]) -> str:
        return f"binds in {np.count_nonzero(times)} of {n_t} intervals"

    cap = np.stack([p.duals.cap for p in points])
    for name, price in sorted(zip(rules.cap_names, cap.T, strict=True), key=lambda x: -x[1].max()):
        t = int(price.argmax())
        if price[t] > watt_dust:
            worth = f"one more W would save {price[t]:.3g} in interval {t}"
            words.append(f"power cap {name!r} {often(price > watt_dust)}; {worth}")
    if rules.k and not rules.safe_domains:
        survive = np.stack([p.duals.survive for p in points]) * problem.demand_qps
        for w in np.flatnonzero((survive > dust).any(axis=0)):
            times = survive[:, w] > dust
            words.append(f"workload {problem.workloads[w]!r}: its failure rule (k = {rules.k}) {often(times)}")
    if rules.switching:
        for h in np.flatnonzero((switched >= np.maximum(rules.ramp, 1e-9)).any(axis=0)):
            times = switched[:, h] >= rules.ramp[h]
            words.append(f"ramp of {problem.servers[h]!r} ({rules.ramp[h]:g} machines) {often(times)}")
        up = np.stack([p.duals.up for p in points])
        for h in np.flatnonzero((up > dust).any(axis=0)):
            words.append(f"minimum up-time of {problem.servers[h]!r} {often(up[:, h] > dust)}")
    if rules.minimum is not None:
        for row, load in np.argwhere(rules.minimum > 0).tolist():
            extra = rules.minimum[row, load] * _worth(problem, rules, points, load_price, row, load)
            t = int(extra.argmax())
            if extra[t] > dust:
                worth = f"it costs {extra[t]:.3g} more than need be in interval {t}"
                pair = f"{problem.servers[problem.types[row]]!r} for {problem.workloads[load]!r}"
                words.append(f"minimum of {rules.minimum[row, load]} {pair} {often(extra > dust)}; {worth}")
    return tuple(words)


def _worth(
    problem: Problem, rules: Rules, points: Sequence[Point], load_price: FloatArray, r: int, w: int
) -> FloatArray:
    """[T] what one machine of the pair costs, all prices counted, beyond the load that it serves."""
    extra = np.zeros(len(points))
    for t, point in enumerate(points):
        after = points[t + 1].duals.on if rules.switching and t + 1 < len(points) else None
        machine, watt = effective_prices(rules, point.duals, after)
        h = problem.types[r]
        own = problem.cost(t)[r, w] + machine[h] + watt[h] * problem.power_w[r, w]
        extra[t] = own - load_price[t, w] * problem.qps[r, w]
    return extra
