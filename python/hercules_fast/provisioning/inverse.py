"""Inverse questions: what load the stock carries, what to buy for a load, what one more server is worth.

All three ask the linear program of :mod:`hercules_fast.provisioning.linear` backwards. Fractional answers are exact;
whole machines are checked by planning with them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hercules_fast.errors import InputError, SolverError, UnknownNameError
from hercules_fast.provisioning.constraints import Rules
from hercules_fast.provisioning.footprint import without_footprint
from hercules_fast.provisioning.highs import Columns, Solver, power_of_two
from hercules_fast.provisioning.integer import whole_machines
from hercules_fast.provisioning.master import Master
from hercules_fast.provisioning.network import solve_network
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem, shortfall_qps
from hercules_fast.provisioning.relaxed import LinearSolution, shed_penalties

__all__ = ["Growth", "OneMore", "Purchase", "cheapest_purchase", "largest_growth", "one_more_server", "relaxations"]

PRICE_RANGE = (1e-9, 1e12)
# Columns of the largest purchase program: (intervals that matter) x (pairs).
_MOST_COLUMNS = 4_000_000
# ... and of one that is solved unasked, to say what would help.
_MOST_COLUMNS_UNASKED = 200_000
# Plans tried to make a whole purchase cheaper.
_MOST_TRIALS = 400
_TRIALS_UNASKED = 24
# Server types named in a line of text.
_NAMED = 6
# A factor this near 1 is feasible: the solver's own tolerance.
_FEASIBLE = 1.0 - 1e-9


# -- growth ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """The largest factor on the load that fractional machines within the stock carry."""

    workload: str | None
    """The one that grows; None: all alike."""
    factor: float
    """On the demand of every interval. Below 1: the load must shrink; infinite: there is none."""
    rest_fits: bool
    """The load that does not grow can be covered by itself; otherwise ``factor`` is 0 and says nothing."""
    interval: int
    """Where the stock ends first; -1 without load."""
    binding: tuple[str, ...]
    """Server types whose stock ends there."""

    def explain(self, times: Sequence[object] | None = None) -> str:
        """One line of text; ``times`` name the intervals."""
        whose = "all load" if self.workload is None else f"the load of {self.workload}"
        if math.isinf(self.factor):
            return f"{whose} may grow without end: it asks for nothing"
        when = f"interval {self.interval}" if times is None else str(times[self.interval])
        if not self.rest_fits:
            return f"{whose} cannot be made small enough: the rest alone is not covered at {when}"
        names = ", ".join(self.binding[:_NAMED]) + (
            f" and {n - _NAMED} more" if (n := len(self.binding)) > _NAMED else ""
        )
        ends = f", where {names} end{'s' if n == 1 else ''}" if self.binding else ""
        return f"{whose} may be {self.factor:.4g} times what it is; the limit is reached at {when}{ends}"


def largest_growth(problem: Problem, workload: str | None = None, minimum: IntArray | None = None) -> Growth:
    """How far all load, or that of one ``workload``, may grow in all intervals before the stock ends.

    Per interval: maximise f subject to ``sum_r N qps >= f demand`` (of what grows; the rest as it is) and stock.
    Only intervals that no other one exceeds in demand, with no more stock, need solving. ``minimum``: int64 [R, W]
    machines that are on in any case. Raises :class:`UnknownNameError`, :class:`SolverError`.
    """
    if workload is not None and workload not in problem.workloads:
        raise UnknownNameError.of("workload that grows", workload, problem.workloads)
    grows = np.array([workload in (None, name) for name in problem.workloads])
    base, rest = _with_minimum(problem, minimum)
    worst, at, fits, binding = math.inf, -1, True, np.zeros(problem.n_servers, dtype=bool)
    for t in hardest_intervals(problem):
        demand = problem.demand_qps[t]
        held = np.where(grows, 0.0, demand)
        if (held > base).any():
            factor, price = _growth_at(rest, t, np.where(held > base, held, 0.0), held, base)
            if factor < _FEASIBLE:
                worst, at, fits, binding = 0.0, t, False, price > 0
                break
        factor, price = _growth_at(rest, t, demand - held, demand, base)
        if factor < worst:
            worst, at, binding = factor, t, price > 0
    names = tuple(name for name, ends in zip(problem.servers, binding, strict=True) if ends)
    return Growth(workload=workload, factor=worst, rest_fits=fits, interval=at, binding=names)


def _with_minimum(problem: Problem, minimum: IntArray | None) -> tuple[FloatArray, Problem]:
    """Throughput [W] of the machines that are on in any case, and the problem with the stock beside them."""
    if minimum is None or not minimum.any():
        return np.zeros(problem.n_workloads), problem
    left = without_footprint(problem, minimum)
    return problem.capacity_qps(minimum), dataclasses.replace(problem, stock=left.stock)


def _growth_at(
    problem: Problem, t: int, growing: FloatArray, demand: FloatArray, base: FloatArray
) -> tuple[float, FloatArray]:
    """Largest factor on ``growing`` [W] in interval t beside the rest of ``demand``, and the stock prices [H] there.

    ``base`` [W] is there already; what does not grow must be feasible by itself.
    """
    no_price = np.zeros(problem.n_servers)
    asked = growing > 0
    if not asked.any():
        return math.inf, no_price
    fixed = np.where(asked, 0.0, demand)
    used = (demand > 0) | asked
    part = dataclasses.replace(
        problem.interval(t),
        qps=problem.qps[:, used],
        power_w=problem.power_w[:, used],
        demand_qps=demand[None, used],
        group=None,
        workloads=(),
    )
    grow, held, have = growing[used], fixed[used], base[used]
    able = part.eligible.any(axis=0)
    if (~able & (grow > 0)).any():  # only what is there already serves it
        gone = ~able & (grow > 0)
        return float((have[gone] / grow[gone]).min()), no_price
    if part.eligible[:, grow > 0].any():
        # In units of the factor at which each grown workload alone on the whole fleet would fit.
        best = np.zeros((part.n_servers, part.n_workloads))
        np.maximum.at(best, part.types, part.qps)
        alone_qps = (best * part.stocks[0][:, None]).sum(axis=0) + have
        unit = float((alone_qps[grow > 0] / grow[grow > 0]).min())
        master = Master(part, Rules.none(part), goal="share")
        what = f"largest growth, interval {t}"
        share, _, price = master.share(0, grow * unit, held - have, what)
        return share * unit, np.where(price > 1e-9 * price.max(initial=0.0), price, 0.0)
    return 0.0, no_price


def hardest_intervals(problem: Problem) -> list[int]:
    """Intervals that no other one exceeds: in demand of every workload, with no more stock of any type."""
    both = np.concatenate([problem.demand_qps, -problem.stocks.astype(np.float64)], axis=1)
    _, first = np.unique(both, axis=0, return_index=True)
    different = both[first]
    return sorted(t for t in first.tolist() if (different >= both[t]).all(axis=1).sum() == 1)


# -- purchase --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Purchase:
    """Machines to buy so that every interval is covered."""

    machines: Mapping[str, int]
    """Server type -> whole machines to buy; types of which none is bought are left out."""
    cost: float
    """Of them, at the prices given."""
    fractional: Mapping[str, float]
    """The linear optimum: as many machines at least, whatever they are."""
    bound: float
    """Its cost: no purchase costs less."""
    intervals: tuple[int, ...]
    """Intervals that today's stock does not cover and no other one exceeds: those that decide."""

    def explain(self) -> str:
        """One line of text."""
        if not self.machines:
            return "nothing to buy: the stock covers every interval"
        what = ", ".join(f"{count} {name}" for name, count in self.machines.items())
        return f"buy {what}: {self.cost:.6g} (no purchase costs less than {self.bound:.6g})"


def cheapest_purchase(
    problem: Problem, price: Mapping[str, float] | None = None, minimum: IntArray | None = None
) -> Purchase:
    """The cheapest machines to add to the stock, the same in all intervals, so that all demand is covered.

    ``price``: server type -> price of a machine, any currency; types not named are not for sale. None: every type at
    1, the fewest machines. ``minimum`` as in :func:`largest_growth`.

    Minimise ``sum price y`` subject to ``sum_r N_t qps >= demand_t`` and ``sum_w N_t <= stock_t + y`` over all
    intervals that matter, as one linear program; then whole machines: rounded up, planned with, repaired where whole
    machines are short of what fractional ones do, and those given back that turn out not to be needed.

    Raises :class:`UnknownNameError`, :class:`InputError` for prices, for a workload that no type in stock or for sale
    can run, and for a program of more than 4,000,000 columns; :class:`SolverError`.
    """
    rest = problem if minimum is None else without_footprint(problem, minimum)
    return _purchase(rest, _prices(problem, price), _MOST_TRIALS)


def _purchase(rest: Problem, cost: FloatArray, trials: int) -> Purchase:
    """:func:`cheapest_purchase`, with at most ``trials`` plans to make the whole machines cheaper."""
    _sellable(rest, cost)
    hard = [t for t in hardest_intervals(rest) if rest.demand_qps[t].any()]
    none = np.zeros(rest.n_workloads)
    short = [t for t in hard if _growth_at(rest, t, rest.demand_qps[t], rest.demand_qps[t], none)[0] < _FEASIBLE]
    bought = np.zeros(rest.n_servers)
    if short:
        bought = _purchase_program(rest, cost, short)
    machines = np.ceil(bought - 1e-7).astype(np.int64)
    if hard:
        machines = _whole_purchase(rest, cost, machines, hard, trials)
    prices = np.where(np.isfinite(cost), cost, 0.0)
    return Purchase(
        machines={name: int(n) for name, n in zip(rest.servers, machines, strict=True) if n},
        cost=float((prices * machines).sum()),
        fractional={name: float(y) for name, y in zip(rest.servers, bought, strict=True) if y > 0},
        bound=float((prices * bought).sum()),
        intervals=tuple(short),
    )


def _prices(problem: Problem, price: Mapping[str, float] | None) -> FloatArray:
    """[H], infinite where a type is not for sale."""
    if price is None:
        return np.ones(problem.n_servers)
    cost = np.full(problem.n_servers, np.inf)
    for name, value in price.items():
        if name not in problem.servers:
            raise UnknownNameError.of("server with a price", name, problem.servers)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not PRICE_RANGE[0] <= value <= PRICE_RANGE[1]
        ):
            raise InputError(f"price: {name!r} is {value!r}; allowed: {PRICE_RANGE[0]:g} to {PRICE_RANGE[1]:g}")
        cost[problem.servers.index(name)] = value
    if not np.isfinite(cost).any():
        raise InputError("price: no server named; at least one type must be for sale")
    return cost


def _sellable(problem: Problem, cost: FloatArray) -> None:
    """Refuse demand that no machine in stock or for sale can serve."""
    there = (np.isfinite(cost) | (problem.stocks > 0))[:, problem.types]  # [T, R]
    runs = there.astype(np.int64) @ (problem.qps > 0).astype(np.int64) > 0
    lost = np.argwhere((problem.demand_qps > 0) & ~runs)
    if len(lost):
        t, w = lost[0].tolist()
        raise InputError(
            f"price: no server in stock or for sale can run workload {problem.workloads[w]!r}, which asks for load in "
            f"interval {t}; allowed: prices that name one that can"
        )


def _best_rows(problem: Problem) -> FloatArray:
    """[H, W] most q/s of a machine of each type: watts play no part in what can be covered."""
    best = np.zeros((problem.n_servers, problem.n_workloads))
    np.maximum.at(best, problem.types, problem.qps)
    return best


def _columns_of(problem: Problem, intervals: Sequence[int]) -> int:
    return int((_best_rows(problem) > 0).sum()) * len(intervals)


def _purchase_program(problem: Problem, cost: FloatArray, intervals: Sequence[int]) -> FloatArray:
    """Machines [H] of the cheapest fractional purchase that covers ``intervals``."""
    if _columns_of(problem, intervals) > _MOST_COLUMNS:
        raise InputError(
            f"purchase: {len(intervals)} intervals that matter make {_columns_of(problem, intervals)} columns; "
            f"allowed: up to {_MOST_COLUMNS}; ask for fewer intervals or a part of the fleet"
        )
    best, n_w, n_h = _best_rows(problem), problem.n_workloads, problem.n_servers
    w, h = np.nonzero(best.T)
    qps = best[h, w]
    demand, stock = problem.demand_qps[list(intervals)], problem.stocks[list(intervals)]
    peak = demand.max(axis=0)
    cover = 1.0 / power_of_two(np.where(peak > 0, peak, 1.0))
    # A machine bought counts in all intervals; its row is scaled by what would be needed of the type alone.
    needed = np.where(best > 0, peak / np.where(best > 0, best, 1.0), 0.0).max(axis=1)
    hold = 1.0 / power_of_two(np.maximum(np.maximum(stock.max(axis=0), needed), 1.0))
    scale = 1.0 / power_of_two(np.sqrt(qps * cover[w] * hold[h]))

    block = n_w + n_h
    lower = np.concatenate([np.concatenate([d * cover, np.full(n_h, -np.inf)]) for d in demand])
    upper = np.concatenate([np.concatenate([np.full(n_w, np.inf), s * hold]) for s in stock])
    solver = Solver(lower, upper)
    sold = np.flatnonzero(np.isfinite(cost))
    price = cost[sold] / hold[sold]
    offset = block * np.arange(len(intervals))
    columns = np.tile(np.arange(len(sold)), len(intervals))
    rows = (offset[:, None] + n_w + sold).ravel()
    unit = float(power_of_two(np.asarray(price.max())))
    solver.add(Columns(price / unit, np.full(len(sold), np.inf), columns, rows, np.full(len(rows), -1.0)))
    count = len(w)
    for start in offset:
        entries = np.concatenate([qps * cover[w] * scale, hold[h] * scale])
        rows = np.concatenate([start + w, start + n_w + h])
        solver.add(Columns(np.zeros(count), np.full(count, np.inf), np.tile(np.arange(count), 2), rows, entries))
    values, _ = solver.run("cheapest purchase")
    bought = np.zeros(n_h)
    bought[sold] = np.maximum(values[: len(sold)], 0.0) / hold[sold]
    bought[bought < 1e-9] = 0.0
    return bought


def _whole_purchase(
    problem: Problem, cost: FloatArray, machines: IntArray, hard: Sequence[int], trials: int
) -> IntArray:
    """``machines`` [H] and what whole machines need beside them, made cheaper where that covers, too."""
    machines = machines.copy()
    pending = list(hard)
    for _ in range(10_000):
        short = _first_short(problem, machines, pending)
        if short is None:
            if pending == list(range(problem.n_intervals)):
                break
            pending = list(range(problem.n_intervals))
            continue
        w, missing = short
        best = _best_rows(problem)[:, w]
        worth = np.where((best > 0) & np.isfinite(cost), np.minimum(best, missing) / cost, 0.0)
        if not worth.any():
            raise InputError(
                f"price: whole machines are {missing:g} q/s short of workload {problem.workloads[w]!r} and no server "
                "for sale can run it; allowed: prices that name one that can"
            )
        machines[worth.argmax()] += _group_of(problem, int(worth.argmax()), w)
    else:
        raise SolverError("cheapest purchase: whole machines stay short after 10000 repairs")
    return _trimmed(problem, cost, machines, hard, trials)


def _trimmed(problem: Problem, cost: FloatArray, machines: IntArray, hard: Sequence[int], trials: int) -> IntArray:
    """``machines`` [H], made cheaper while that covers: one or two less, with one of another type in their place."""
    while True:
        for _, change in _changes(machines, cost):
            if not trials:
                return machines
            trials -= 1
            fewer = machines + change
            if not (_first_short(problem, fewer, hard) or _first_short(problem, fewer, range(problem.n_intervals))):
                machines = fewer
                break
        else:
            return machines


def _changes(machines: IntArray, cost: FloatArray) -> list[tuple[float, IntArray]]:
    """Ways to buy less, by falling saving: (saving, change of ``machines``)."""
    one = np.eye(len(machines), dtype=np.int64)
    owned, sold = np.flatnonzero(machines), np.flatnonzero(np.isfinite(cost))
    drops = [one[h] for h in owned]
    drops += [one[h] + one[g] for h in owned for g in owned if h < g or (h == g and machines[h] > 1)]
    changes = []
    for drop in drops:
        worth = float(cost[drop > 0] @ drop[drop > 0])
        changes.append((worth, -drop))
        changes += [(worth - cost[g], one[g] - drop) for g in sold if cost[g] < worth * (1.0 - 1e-12) and not drop[g]]
    return sorted(changes, key=lambda item: (-item[0], item[1].tolist()))


def _group_of(problem: Problem, h: int, w: int) -> int:
    """Machines of type h over which workload w is spread, in its row of most q/s."""
    if problem.group is None:
        return 1
    rows = np.flatnonzero(problem.types == h)
    return int(problem.group[rows[problem.qps[rows, w].argmax()], w])


def _first_short(problem: Problem, machines: IntArray, intervals: Sequence[int]) -> tuple[int, float] | None:
    """The workload that misses most of its demand in whole machines, as a part of it, and how many q/s; None: none."""
    part = _with_more(problem.at(np.asarray(intervals, dtype=np.int64)), machines)
    short = shortfall_qps(part.demand_qps, whole_machines(part, solve_network(part)).per_workload(part.qps))
    if not short.any():
        return None
    share = short / np.where(part.demand_qps > 0, part.demand_qps, 1.0)
    t, w = np.unravel_index(share.argmax(), share.shape)
    return int(w), float(short[t, w])


def _with_more(problem: Problem, machines: IntArray) -> Problem:
    """``problem`` with ``machines`` [H] more of each type."""
    return dataclasses.replace(problem, stock=problem.stock + machines)


# -- one more --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OneMore:
    """What one more server of a type is worth, by solving again with it; fractional machines."""

    server: str
    price: FloatArray
    """[T] u, the price that the linear optimum puts on it: at least what it saves."""
    saved: FloatArray
    """[T] what it saves of the objective, in intervals that are covered with and without it; else 0."""
    served_qps: FloatArray
    """[T, W] load that it lets be served."""

    def explain(self, peak: int, hours: float, currency: str | None = None) -> str:
        """One line of text; ``peak`` is the interval that counts most, ``hours`` the length of one.

        ``currency`` is that of the prices under which was planned; None: watts were minimised.
        """
        unit = "W" if currency is None else f"{currency} an interval"
        total = (
            f"{self.saved.sum() * hours / 1000:.6g} kWh" if currency is None else f"{self.saved.sum():.6g} {currency}"
        )
        served = self.served_qps.sum(axis=1)
        if served[peak] > 0:
            words = f"{self.server}: serves {served[peak]:.6g} q/s at peak that are shed without it"
        else:
            words = f"{self.server}: saves {self.saved[peak]:.6g} {unit} at peak (price {self.price[peak]:.6g})"
        return f"{words}; saves {total} over the intervals without shed load"


def one_more_server(
    problem: Problem, linear: LinearSolution | None = None, minimum: IntArray | None = None
) -> tuple[OneMore, ...]:
    """For each server type, what one more machine of it in every interval would save; types in order.

    Solved again with ``stock + 1`` wherever the price u is above 0: elsewhere it saves nothing. The objective is
    convex in the stock, so ``0 <= saved <= u`` must hold. ``linear`` is the answer of this problem (less ``minimum``),
    if it is at hand.
    """
    rest = problem if minimum is None else without_footprint(problem, minimum)
    linear = solve_network(rest) if linear is None else linear
    answers = []
    for h, name in enumerate(rest.servers):
        u = linear.stock_price_w[:, h]
        saved, served = np.zeros(rest.n_intervals), np.zeros(rest.demand_qps.shape)
        at = np.flatnonzero(u > 0)
        if len(at):
            more = solve_network(_with_more(rest.at(at), (np.arange(rest.n_servers) == h).astype(np.int64)))
            both = np.asarray(~linear.shed_qps[at].any(axis=1) & ~more.shed_qps.any(axis=1))
            saved[at] = np.where(both, np.maximum(linear.objective_w[at] - more.objective_w, 0.0), 0.0)
            served[at] = np.where(both[:, None], 0.0, linear.shed_qps[at] - more.shed_qps)
        answers.append(OneMore(server=name, price=u, saved=saved, served_qps=served))
    return tuple(answers)


# -- relaxations -----------------------------------------------------------------------------------------------------


def relaxations(problem: Problem, minimum: IntArray | None = None, *, rules: bool = False) -> tuple[str, ...]:
    """In words, two ways to cover all demand after all: the fewest machines more, and the least load less.

    Only where asking is quick: for large fleets that are short in many ways, ask :func:`cheapest_purchase` and
    :func:`largest_growth`.

    Load less is that of one workload, or of all alike where no single one will do; the least by the weights of shed
    load (:func:`hercules_fast.provisioning.relaxed.shed_penalties`), under which a unit of any workload counts what
    serving it costs at worst. ``rules``: constraints are in force, of which this knows nothing; the words say so.
    """
    if rules:
        if largest_growth(problem, minimum=minimum).factor >= _FEASIBLE:
            return ("the stock alone would cover all of it (fractional machines); constraints stand in the way",)
        return tuple(f"without the constraints: {words}" for words in relaxations(problem, minimum))
    words = []
    asked = problem.demand_qps.any(axis=0)
    lost = np.asarray(asked & ~(problem.qps > 0).any(axis=0))
    if lost.any():
        which = ", ".join(name for name, gone in zip(problem.workloads, lost, strict=True) if gone)
        words.append(f"no server of this plan can run {which}: neither machines nor less of other load help")
        problem = dataclasses.replace(problem, demand_qps=np.where(lost, 0.0, problem.demand_qps))
    rest = problem if minimum is None else without_footprint(problem, minimum)
    columns = _columns_of(rest, hardest_intervals(rest))
    if columns <= _MOST_COLUMNS_UNASKED:
        bought = _purchase(rest, np.ones(rest.n_servers), _TRIALS_UNASKED).machines
        if bought:
            which = ", ".join(f"{count} more {name}" for name, count in bought.items())
            words.append(f"would be covered with {which} (the fewest machines)")
    if columns * problem.n_workloads <= _MOST_COLUMNS_UNASKED:  # one program per workload and interval
        least = _least_cut(problem, minimum)
        words += [] if least is None else [least]
    return tuple(words)


def _least_cut(problem: Problem, minimum: IntArray | None) -> str | None:
    weight = shed_penalties(problem)
    cuts: list[tuple[float, str]] = []
    for name in (*problem.workloads, None):
        if name is None and cuts:
            break
        growth = largest_growth(problem, name, minimum)
        if not growth.rest_fits or growth.factor >= _FEASIBLE:
            continue
        grows = np.array([name in (None, other) for other in problem.workloads])
        lost = float((weight * problem.demand_qps * grows).sum(axis=1).max()) * (1.0 - growth.factor)
        whose = "of every workload" if name is None else f"of {name}"
        cuts.append(
            (lost, f"would be covered with {100 * (1.0 - growth.factor):.3g} % less load {whose} (fractional machines)")
        )
    return min(cuts)[1] if cuts else None
