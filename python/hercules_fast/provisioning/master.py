"""The linear program over a window of intervals, on a pool of columns that grows until no other column would help.

Columns of an interval: machines of (row, workload) pairs, load that is shed, and what the constraints need. Rows:
coverage per workload, stock per type, then caps, failure domains, and those that tie an interval to the one before.
All scales are powers of two, so the data stays exact and 1e-3..1e9 q/s meet 1..1e6 machines without an entry so small
that HiGHS would drop it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hercules_fast.provisioning.certificate import Duals, effective_prices
from hercules_fast.provisioning.constraints import Rules, surviving_qps
from hercules_fast.provisioning.highs import Columns, Solver, power_of_two
from hercules_fast.provisioning.pricing import Pricing
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem, shortfall_qps

__all__ = ["Master", "Point", "State", "TwoStage", "owed_machines"]

# Up to so many columns all go into the program: pricing would cost more than it saves.
ALL_COLUMNS = 2_000
# Columns per workload at the start (under failure domains at least two of each), and per workload and round afterwards.
FIRST_COLUMNS = 4
MORE_COLUMNS = 3
# Programs with failure domains begin with interior points from so many rows on.
_INTERIOR_ROWS = 2_000
# A column that lies below its workload's price by less than this part is not worth a round.
_PRICE_TOL = 1e-12
# Stage one against stage two: weighted shed, relative to itself and to all demand, that counts as equal.
_SHED_TOL = 1e-9
# Machines that a window has switched on are its solver's, to its tolerance (a part of the stock): owed in full, they
# may not fit again.
_OWED_SLACK = 1e-8
# A penalty that bought too little is raised by this factor, so many times at most.
_RAISE_PENALTY = 16.0
_MAX_RAISES = 5

INF = np.inf


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a window inherits: machines on in the interval before it, and how many were switched on lately."""

    on: FloatArray | None
    """[H]; None: the window's first interval is free."""
    switched_on: FloatArray
    """[L, H], the last in the interval just before the window."""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """What one interval of a solved window says."""

    row: IntArray
    """[K] rows of the machines; sorted by row, then workload, without zeros."""
    workload: IntArray
    machines: FloatArray
    shed_qps: FloatArray
    """[W], the solver's own."""
    duals: Duals


class Master:
    """One HiGHS program over ``n`` intervals; window, right-hand side and costs change, model and basis stay.

    ``goal``: "cost" minimises cost and penalties; "shed" weighted shed alone; "share" maximises the part of ``demand``
    that all workloads with load get alike.
    """

    def __init__(
        self, problem: Problem, rules: Rules, n: int = 1, goal: str = "cost", *, weight: FloatArray | None = None
    ) -> None:
        """``weight`` [n, W]: for whole machines; a row per interval then bounds the weighted shed, see set_budget."""
        self.problem, self.rules, self.n, self.goal, self.weight = problem, rules, n, goal, weight
        self.k = 0 if rules.safe_domains else rules.k
        self.pricing = Pricing(problem, rules.domain if self.k else None, free=goal != "cost")
        self.n_f = self.pricing.n_domains
        n_h, n_w, n_g = problem.n_servers, problem.n_workloads, len(rules.cap_names)
        peak = problem.demand_qps.max(axis=0)
        self.cover_scale = 1.0 / power_of_two(np.where(peak > 0, peak, problem.qps.max(axis=0) + (peak == 0)))
        self.stock_scale = 1.0 / power_of_two(np.maximum(problem.stocks.max(axis=0), 1).astype(np.float64))
        self.cap_scale = 1.0 / power_of_two(rules.cap_limit_w.max(axis=0, initial=1e-300))

        # Rows of an interval, one kind after the other.
        kinds = {"cover": n_w, "stock": n_h, "cap": n_g}
        if self.k:
            kinds |= {"survive": n_w, "domain": self.n_f * n_w}
        if rules.switching:
            kinds |= {"on": n_h, "up": n_h}
        if weight is not None:
            kinds |= {"budget": 1}
        ends = np.cumsum([0, *kinds.values()])
        self.rows = {name: slice(int(a), int(b)) for name, a, b in zip(kinds, ends[:-1], ends[1:], strict=True)}
        self.block = int(ends[-1])
        scale = {"cover": self.cover_scale, "stock": self.stock_scale, "cap": self.cap_scale}
        scale |= {"survive": self.cover_scale, "domain": np.tile(self.cover_scale, self.n_f)}
        scale |= {"on": self.stock_scale, "up": self.stock_scale}
        if weight is not None:
            scale["budget"] = 1.0 / power_of_two(np.array([float((weight * peak).sum()) or 1.0]))
        self.row_scale = np.concatenate([scale[name] for name in kinds])

        free = np.full(self.block * n, INF)
        self.solver = Solver(-free, free)
        self.cost_scale, self.solved = 1.0, False
        self.penalty = np.zeros((n, n_w))
        self.windows = (0,) * n
        self.pool_row, self.pool_workload = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.pool_scale = np.zeros(0)
        self.pool_column = np.zeros((n, 0), np.int64)
        self.in_pool = np.zeros(problem.qps.shape, dtype=bool)
        self.n_eligible, self.servable = int(np.count_nonzero(problem.eligible)), problem.eligible.any(axis=0)
        self._add_helpers()

    # -- model ---------------------------------------------------------------------------------------------------

    def _at(self, i: int, kind: str) -> IntArray:
        part = self.rows[kind]
        return np.arange(part.start, part.stop) + i * self.block

    def _add_helpers(self) -> None:
        """Columns beside the machines: shed, loss to failures, machines switched on, the common share."""
        n_w, n_h = self.problem.n_workloads, self.problem.n_servers
        self.shed_column = np.zeros((self.n, n_w), np.int64)
        self.exposed_column = np.zeros((self.n, n_w), np.int64)
        self.on_column = np.zeros((self.n, n_h), np.int64)
        one_w, zero_w = np.ones(n_w), np.zeros(n_w)
        for i in range(self.n):
            if self.goal != "share":
                self.shed_column[i] = self._add(zero_w, [(self._at(i, "cover"), one_w), *self._budget(i)])
            if self.k:
                survive, domain = self._at(i, "survive"), self._at(i, "domain").reshape(self.n_f, n_w)
                if self.goal != "share":
                    self.exposed_column[i] = self._add(zero_w, [(survive, one_w), *self._budget(i)])
                # The k largest losses of a workload are the least of k theta + sum of what exceeds theta.
                self._add(zero_w, [(survive, np.full(n_w, -float(self.k))), *((row, one_w) for row in domain)])
                for row in domain:
                    self._add(zero_w, [(survive, -one_w), (row, one_w)])
            if self.rules.switching:
                entries = [(self._at(i, "on"), np.ones(n_h))]
                for j in range(i, min(self.n, i + int(self.rules.min_up.max()))):
                    entries.append((self._at(j, "up"), np.where(j < i + self.rules.min_up, -1.0, 0.0)))
                self.on_column[i] = self._add(np.zeros(n_h), entries, self.rules.ramp)
        if self.goal == "share":
            self.share_column = self.solver.n_columns
            covers = np.concatenate([self._at(0, kind) for kind in ("cover", "survive") if kind in self.rows])
            self.share_entries = np.full(n_w, -1.0)  # until share sets them
            entry = np.full(len(covers), -1.0)
            self.solver.add(Columns(np.array([-1.0]), np.array([INF]), covers * 0, covers, entry))

    def _budget(self, i: int) -> list[tuple[IntArray, FloatArray]]:
        """Entries of shed in the row that bounds it, where there is one."""
        if self.weight is None:
            return []
        return [(np.repeat(self._at(i, "budget"), self.problem.n_workloads), self.weight[i])]

    def _add(
        self, cost: FloatArray, entries: list[tuple[IntArray, FloatArray]], upper: FloatArray | float = INF
    ) -> IntArray:
        """Columns one beside the other, each with one entry in each group of rows; all in the units of the first."""
        count = len(cost)
        unit = 1.0 / self.row_scale[entries[0][0] % self.block]
        column = np.tile(np.arange(count), len(entries))
        row = np.concatenate([rows for rows, _ in entries])
        value = np.concatenate([v * unit for _, v in entries]) * self.row_scale[row % self.block]
        some = value != 0.0
        limit = np.broadcast_to(np.asarray(upper, dtype=np.float64), (count,)) / unit
        self.solver.add(Columns(cost * unit, limit, column[some], row[some], value[some]))
        return np.arange(self.solver.n_columns - count, self.solver.n_columns)

    def add_pairs(self, row: IntArray, workload: IntArray) -> None:
        """Take the pairs into the pool, for all intervals of the window."""
        problem, rules, count = self.problem, self.rules, len(row)
        if not count:
            return
        h, qps, power = problem.types[row], problem.qps[row, workload], problem.power_w[row, workload]
        if self.weight is not None:
            scale = np.ones(count) if problem.group is None else problem.group[row, workload].astype(np.float64)
        else:
            scale = 1.0 / power_of_two(np.sqrt(qps * self.cover_scale[workload] * self.stock_scale[h]))
        here = np.arange(count)
        parts: list[tuple[IntArray, IntArray, FloatArray]] = []
        for i in range(self.n):
            column = here + i * count
            parts.append((column, self._at(i, "cover")[workload], qps))
            parts.append((column, self._at(i, "stock")[h], np.ones(count)))
            for g, member in enumerate(rules.cap_member):
                inside = np.flatnonzero(member[h])
                parts.append((column[inside], np.full(len(inside), self._at(i, "cap")[g]), power[inside]))
            if self.k:
                assert rules.domain is not None
                place = rules.domain[h] * problem.n_workloads + workload
                parts.append((column, self._at(i, "survive")[workload], qps))
                parts.append((column, self._at(i, "domain")[place], -qps))
            if rules.switching:
                parts.append((column, self._at(i, "on")[h], np.full(count, -1.0)))
                parts.append((column, self._at(i, "up")[h], np.ones(count)))
                if i + 1 < self.n:
                    parts.append((column, self._at(i + 1, "on")[h], np.ones(count)))
        column, rows, value = (np.concatenate(x) for x in zip(*parts, strict=True))
        value = value * self.row_scale[rows % self.block] * scale[column % count]
        first = self.solver.n_columns
        total = count * self.n
        least = 0.0 if rules.minimum is None else np.tile(rules.minimum[row, workload] / scale, self.n)
        self.solver.add(Columns(np.zeros(total), np.full(total, INF), column, rows, value, least))
        self.pool_row = np.concatenate([self.pool_row, row])
        self.pool_workload = np.concatenate([self.pool_workload, workload])
        self.pool_scale = np.concatenate([self.pool_scale, scale])
        added = first + np.arange(total).reshape(self.n, count)
        self.pool_column = np.concatenate([self.pool_column, added], axis=1)
        self.in_pool[row, workload] = True
        self._set_pair_costs(slice(len(self.pool_row) - count, None))

    def fill_pool(self, prices: FloatArray | None = None) -> None:
        """The first columns: all, or where there are many the cheapest under stock ``prices`` [H]."""
        if self.n_eligible * self.n <= ALL_COLUMNS:
            workload, row = np.nonzero(self.problem.eligible.T)
        else:
            t = self.windows[0]
            # What may fail is served by others as well: so much more of all machines.
            demand = self.problem.demand_qps[t] * (self.n_f / max(1, self.n_f - self.k))
            start = self.pricing.rough(t, demand) if prices is None else prices
            each = -(-FIRST_COLUMNS // self.n_f) + (self.n_f > 1)
            found = []
            for f in range(self.n_f):
                limit = np.where(np.arange(self.n_f) == f, INF, -INF)[:, None].repeat(self.problem.n_workloads, axis=1)
                found.append(self.pricing.best(t, start, None, limit, each, self.in_pool))
            found.append(self.rules.footprint)
            if self.rules.switching:
                found.append(self.resting_pairs())
            pairs = np.concatenate([w * self.problem.n_rows + r for r, w in found])
            workload, row = np.divmod(np.unique(pairs), self.problem.n_rows)
        self.begin(row, workload)

    def resting_pairs(self) -> tuple[IntArray, IntArray]:
        """Rows and workloads of the least power that each type can draw.

        Machines that must stay on fit under the caps there if anywhere: with these columns a pool has a plan if all
        columns together have one.
        """
        problem = self.problem
        least = np.full(problem.n_servers, INF)
        row, workload = np.zeros(problem.n_servers, np.int64), np.zeros(problem.n_servers, np.int64)
        for r, h in enumerate(problem.types.tolist()):
            power = np.where(problem.qps[r] > 0, problem.power_w[r], INF)
            w = int(power.argmin())
            if power[w] < least[h]:
                least[h], row[h], workload[h] = power[w], r, w
        some = np.isfinite(least) & (problem.stocks.max(axis=0) > 0)
        return row[some], workload[some]

    def begin(self, row: IntArray, workload: IntArray) -> None:
        """The first columns, and with them the scale of costs."""
        if self.goal == "cost":
            h = self.problem.types[row]
            scale = 1.0 / np.sqrt(self.problem.qps[row, workload] * self.cover_scale[workload] * self.stock_scale[h])
            dearest = float((self.problem.pair_cost(self.windows[0], row, workload) * scale).max(initial=0.0))
            self.cost_scale = 1.0 / float(power_of_two(np.asarray(dearest or 1.0)))
        elif self.goal == "shed":
            heaviest = (np.where(self.servable, self.penalty, 0.0) / self.cover_scale).max()
            self.cost_scale = 1.0 / float(power_of_two(np.asarray(heaviest or 1.0)))
        self.add_pairs(row, workload)
        self.set_penalty(self.penalty)

    def _set_pair_costs(self, part: slice = slice(None)) -> None:
        if self.goal != "cost":
            return
        row, workload = self.pool_row[part], self.pool_workload[part]
        cost = [self.problem.pair_cost(t, row, workload) * self.pool_scale[part] for t in self.windows]
        self.solver.set_costs(self.pool_column[:, part].ravel(), np.concatenate(cost) * self.cost_scale)
        if self.rules.switching:
            on_cost = np.tile(self.rules.cost_on / self.stock_scale, self.n) * self.cost_scale
            self.solver.set_costs(self.on_column.ravel(), on_cost)

    def set_penalty(self, penalty: FloatArray) -> None:
        """``penalty`` [n, W]: cost of a q/s that is shed; in the goal "shed" its weight."""
        self.penalty = penalty
        if self.goal == "share":
            return
        # What nothing can serve is shed at any price; its scale is its own, and would spoil the program's.
        cost = (np.where(self.servable, penalty, 0.0) / self.cover_scale).ravel() * self.cost_scale
        self.solver.set_costs(self.shed_column.ravel(), cost)
        if self.k:
            self.solver.set_costs(self.exposed_column.ravel(), cost)

    def set_budget(self, weighted_shed: FloatArray) -> None:
        """Most weighted shed [n] of each interval; infinite = any."""
        for i, most in enumerate(weighted_shed.tolist()):
            row = self._at(i, "budget")
            self.solver.set_rows(int(row[0]), np.array([-INF]), most * self.row_scale[self.rows["budget"]])

    # -- window --------------------------------------------------------------------------------------------------

    def place(self, start: int, state: State | None = None, demand_qps: FloatArray | None = None) -> None:
        """Put the window at interval ``start``. Intervals past the last one ask for nothing and bind nothing."""
        problem, rules = self.problem, self.rules
        last = problem.n_intervals - 1
        before = self.windows
        self.windows = tuple(min(start + i, last) for i in range(self.n))
        for i, t in enumerate(self.windows):
            real = start + i <= last
            lower, upper = np.zeros(self.block), np.full(self.block, INF)
            demand = (problem.demand_qps[t] if demand_qps is None else demand_qps) if real else 0.0
            lower[self.rows["cover"]] = demand
            lower[self.rows["stock"]] = -INF
            upper[self.rows["stock"]] = problem.stocks[t]
            lower[self.rows["cap"]] = -INF
            upper[self.rows["cap"]] = rules.cap_limit_w[t]
            if self.k:
                lower[self.rows["survive"]] = demand
            if rules.switching:
                if i == 0:
                    lower[self.rows["on"]] = -INF if state is None or state.on is None else -state.on
                if state is not None:
                    lower[self.rows["up"]] = np.maximum(
                        owed_machines(rules, state, i) - _OWED_SLACK / self.stock_scale, 0.0
                    )
                if not real:
                    lower[self.rows["up"]] = -INF
            self.solver.set_rows(i * self.block, lower * self.row_scale, upper * self.row_scale)
        if rules.switching:
            free = state is None or state.on is None
            ramp = rules.ramp * self.stock_scale
            # Nothing is switched on in an interval that is free: the machines are on already.
            self.solver.set_upper(self.on_column[0], np.zeros(len(ramp)) if free else ramp)
        varies = problem.watt_cost is not None or problem.machine_cost is not None
        if varies and before != self.windows and len(self.pool_row):
            self._set_pair_costs()

    # -- solve ---------------------------------------------------------------------------------------------------

    def solve(self, what: str, *, warm_costs: bool = False) -> list[Point]:
        """The optimum over all columns, interval by interval. Raises :class:`SolverError` naming ``what``."""
        values, prices = self._run(what, warm_costs)
        duals, _ = self._duals(prices)
        return [self._point(i, values, duals[i]) for i in range(self.n)]

    def _run(self, what: str, primal: bool) -> tuple[FloatArray, FloatArray]:
        """Solve, price all columns, take in those that would help, until none would."""
        complete = len(self.pool_row) == self.n_eligible
        # With failure domains the way from nothing is long for the simplex method: 25 s where interior points and
        # their vertex take 1 s (300 x 1000 in 5 domains). Rows that tie intervals show the opposite.
        far = not self.solved and self.k > 0 and self.n == 1 and self.solver.n_rows >= _INTERIOR_ROWS
        values, prices = self.solver.run(what, primal=primal, interior=far)
        self.solved = True
        while not complete:
            before = self.solver.n_columns
            duals, limits = self._duals(prices)
            for i, t in enumerate(self.windows):
                if i and t == self.windows[i - 1]:
                    continue  # past the last interval
                machine, watt = effective_prices(self.rules, duals[i], duals[i + 1].on if i + 1 < self.n else None)
                below = limits[i] * (1.0 - _PRICE_TOL)
                row, workload = self.pricing.best(t, machine, watt, below, MORE_COLUMNS, self.in_pool)
                self.add_pairs(row, workload)
            if self.solver.n_columns == before:
                break
            values, prices = self.solver.run(what, primal=True)
        return values, prices

    def share(
        self, t: int, growing_qps: FloatArray, fixed_qps: FloatArray, what: str
    ) -> tuple[float, FloatArray, FloatArray]:
        """For the goal "share": the largest f such that ``fixed_qps + f growing_qps`` [W] can be covered in interval t.

        Also which workloads f is short of, as prices [W]: of those above 0 no optimum covers more. And stock prices
        [H]: what f gains by one more machine.
        """
        self.place(t, None, fixed_qps)
        entries = -growing_qps * self.cover_scale
        for kind in ("cover", "survive"):
            if kind in self.rows:
                rows = self._at(0, kind)
                for w in np.flatnonzero(entries != self.share_entries).tolist():
                    self.solver.set_entry(int(rows[w]), self.share_column, float(entries[w]))
        self.share_entries = entries
        if not len(self.pool_row):
            self.fill_pool()
        values, prices = self._run(what, False)
        duals, limits = self._duals(prices)
        return float(values[self.share_column]), limits[0].max(axis=0) * growing_qps, duals[0].stock

    def _duals(self, prices: FloatArray) -> tuple[list[Duals], list[FloatArray]]:
        """Prices of each interval and the price [F, W] of a q/s in each domain, back in the problem's units."""
        scaled = prices.reshape(self.n, self.block) * self.row_scale / self.cost_scale

        def of(kind: str, sign: float, width: int = self.problem.n_servers) -> FloatArray:
            if kind not in self.rows:
                return np.zeros((self.n, width))
            return np.asarray(np.maximum(sign * scaled[:, self.rows[kind]], 0.0), dtype=np.float64)

        survive = of("survive", 1.0, self.problem.n_workloads)
        kinds = of("stock", -1.0), of("cap", -1.0), of("on", 1.0), of("up", 1.0), survive, of("cover", 1.0)
        duals = [Duals(*row) for row in zip(*kinds, strict=True)]
        limit = np.repeat(of("cover", 1.0)[:, None], self.n_f, axis=1)  # [n, F, W]
        if self.k:
            limit += survive[:, None] - of("domain", 1.0).reshape(self.n, self.n_f, -1)
        return duals, [np.asarray(x, dtype=np.float64) for x in limit]

    def _point(self, i: int, values: FloatArray, duals: Duals) -> Point:
        machines = np.maximum(values[self.pool_column[i]], 0.0) * self.pool_scale
        used = np.flatnonzero(machines)
        used = used[np.lexsort((self.pool_workload[used], self.pool_row[used]))]
        shed = np.zeros(self.problem.n_workloads)
        if self.goal != "share":
            shed = np.maximum(values[self.shed_column[i]], 0.0) / self.cover_scale
            if self.k:
                shed = shed + np.maximum(values[self.exposed_column[i]], 0.0) / self.cover_scale
        return Point(self.pool_row[used], self.pool_workload[used], machines[used], shed, duals)


def owed_machines(rules: Rules, state: State, i: int) -> FloatArray:
    """[H] machines that interval i of a window must have on, from what was switched on before the window."""
    owed = np.zeros(len(rules.min_up))
    for back in range(1, len(state.switched_on) + 1):
        owed += np.where(i + back < rules.min_up, state.switched_on[-back], 0.0)
    return owed


def _uncovered(problem: Problem, rules: Rules, t: int, point: Point) -> FloatArray:
    """[W] demand of interval t that ``point`` leaves uncovered, and once more what it leaves so after failures."""
    n_f, n_w = rules.n_domains, problem.n_workloads
    h = problem.types[point.row]
    domain = np.zeros(len(h), np.int64) if rules.domain is None else rules.domain[h]
    rate = point.machines * problem.qps[point.row, point.workload]
    capacity = np.bincount(domain * n_w + point.workload, rate, minlength=n_f * n_w).astype(np.float64)
    demand = problem.demand_qps[t]
    short = shortfall_qps(demand, capacity.reshape(n_f, n_w).sum(axis=0))
    if not rules.k or rules.safe_domains:
        return short
    return short + shortfall_qps(demand, surviving_qps(capacity.reshape(n_f, n_w), rules.k))


class TwoStage:
    """Least weighted shed first, cost second; or, with penalties that the caller fixes, both at once."""

    def __init__(self, problem: Problem, rules: Rules, n: int, penalty: FloatArray, *, fixed: bool) -> None:
        """``penalty`` [T, W]: the weights of shed, raised where they do not buy the least possible one."""
        self.problem, self.rules, self.n, self.fixed = problem, rules, n, fixed
        self.weight, self.penalty = penalty, penalty.copy()
        self.factor = 1.0
        self.master = Master(problem, rules, n)
        self.least: Master | None = None

    def solve(self, start: int, state: State | None, prices: FloatArray | None = None) -> list[Point]:
        """The optimum of the window at ``start``; its penalties are then in ``penalty``."""
        master, what = self.master, f"interval {start}"
        master.place(start, state)
        window = list(master.windows)
        if not len(master.pool_row):
            master.penalty = self.weight[window]
            master.fill_pool(prices)
        elif not (self.penalty[window] * self.factor == master.penalty).all():
            master.set_penalty(self.weight[window] * self.factor)
        points = master.solve(what)
        if not self.fixed:
            for _ in range(_MAX_RAISES):
                if not self._sheds_too_much(start, state, points):
                    break
                self.factor *= _RAISE_PENALTY
                master.set_penalty(self.weight[window] * self.factor)
                points = master.solve(what, warm_costs=True)
        self.penalty[window] = self.weight[window] * self.factor
        return points

    def _sheds_too_much(self, start: int, state: State | None, points: list[Point]) -> bool:
        """Whether the weighted shed of ``points`` is more than the window cannot avoid."""
        window = range(start, min(start + self.n, self.problem.n_intervals))
        shed = np.stack([_uncovered(self.problem, self.rules, t, p) for t, p in zip(window, points, strict=False)])
        if not shed.any():
            return False
        weight = self.weight[list(window)]
        if self.least is None:
            self.least = Master(self.problem, self.rules, self.n, "shed")
        least = self.least
        least.place(start, state)
        if not len(least.pool_row):
            least.penalty = self.weight[list(least.windows)]
            least.fill_pool()
        elif not (least.penalty == self.weight[list(least.windows)]).all():
            least.set_penalty(self.weight[list(least.windows)])
        best = least.solve(f"interval {start}, least shed")
        least_shed = sum(float((w * p.shed_qps).sum()) for w, p in zip(weight, best, strict=False))
        rounding = _SHED_TOL * float((weight * self.problem.demand_qps[list(window)]).sum())
        return float((weight * shed).sum()) > (1.0 + _SHED_TOL) * least_shed + 2.0 * rounding
