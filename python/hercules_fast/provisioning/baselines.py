"""What the plan is compared with: greedy by ranked type, and the heterogeneity-oblivious pick.

The literature names both baselines without a rule that could be repeated; these are this library's rules, and every
choice that the names leave open is an argument. Both hold the stock and may fail to cover a load that the plan covers:
then the rest is reported as unmet. All intervals (or orders) advance in lock-step, as lanes of one array.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.provisioning.problem import COVER_TOL, FloatArray, IntArray, Problem, shortfall_qps
from hercules_fast.provisioning.streams import below, order, random_bits

__all__ = ["Baseline", "OrderSpread", "greedy", "greedy_order_spread", "oblivious", "oblivious_spread"]

BoolArray = npt.NDArray[np.bool_]
Machines = npt.NDArray[Any]
"""Whole (int64) or, where a last machine may be a part of one, float64."""

# Purposes of the random streams.
_ROUND_ROBIN, _PICK, _ORDERS = 1, 2, 3
# Above this many draws per interval, oblivious takes several machines per draw.
_MAX_DRAWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Baseline:
    """What a baseline switches on in each interval."""

    name: str
    rule: str
    capacity: Machines
    """[T] machines switched on; int64, or float64 where the last machine of a workload may be a part of one."""
    power_w: FloatArray
    """[T] their provisioned power."""
    unmet_qps: FloatArray
    """[T, W] demand that it leaves uncovered."""

    @property
    def covers(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """bool [T]: the demand of the interval is covered, so that its machines and watts can be compared."""
        return np.asarray(~(self.unmet_qps > 0).any(axis=1))

    def beside(self, machines: int, power_w: float) -> Baseline:
        """This baseline beside ``machines`` that are on in any case and take ``power_w``."""
        return replace(self, capacity=self.capacity + machines, power_w=self.power_w + power_w)


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderSpread:
    """A baseline at one interval over many workload orders (greedy) or draws (oblivious).

    Figures are of those that cover; None if none does.
    """

    interval: int
    orders: int
    covering: int
    power_w: tuple[float, float, float] | None
    """Least, median, largest."""
    capacity: tuple[float, float, float] | None
    """Least, median, largest number of machines."""

    @property
    def failing_share(self) -> float:
        """Share of the orders that do not cover the load."""
        return 1.0 - self.covering / self.orders

    def beside(self, machines: int, power_w: float) -> OrderSpread:
        """As :meth:`Baseline.beside`."""

        def raised(figures: tuple[float, float, float] | None, by: float) -> tuple[float, float, float] | None:
            return figures and (figures[0] + by, figures[1] + by, figures[2] + by)

        return replace(self, power_w=raised(self.power_w, power_w), capacity=raised(self.capacity, machines))


# -- greedy ----------------------------------------------------------------------------------------------------------


def greedy(
    problem: Problem,
    order: str | Sequence[str] = "given",
    rank: str = "efficiency",
    *,
    start: str = "scratch",
    last: str = "whole",
) -> Baseline:
    """Each workload in turn takes machines of its best-ranked type with stock left, until it is covered.

    ``order``: "given" · "largest" (demand of the interval, first) · the workload names in order.
    ``rank``: "efficiency" (qps / power_w) · "qps". Ties go to the lower index.
    ``start``: every interval from "scratch", or from the machines of the "previous" one: a workload gives back what it
    no longer needs, worst-ranked first, and takes more where it is short.
    ``last``: the last machine of a workload is "whole" or "fractional".
    Raises :class:`InputError` for another value, or an order that is not a permutation.
    """
    _one_of("start", start, ("scratch", "previous"))
    _one_of("last", last, ("whole", "fractional"))
    orders, order_words = _workload_orders(problem, order)
    if start == "scratch":
        servers = greedy_servers(problem, problem.demand_qps, orders, rank, problem.stocks, last == "whole")
    else:
        servers = _greedy_in_turn(problem, orders, rank, last == "whole")
    measure = "q/s per watt" if rank == "efficiency" else "q/s"
    rule = (
        f"workloads {order_words}, each takes {'whole ' if last == 'whole' else ''}servers of the type with most "
        f"{measure} first{'' if last == 'whole' else ', the last one in part'}; "
        + ("every interval from scratch" if start == "scratch" else "every interval from the one before")
    )
    return _baseline(problem, servers, "greedy", rule)


def greedy_servers(
    problem: Problem,
    demand_qps: FloatArray,
    orders: IntArray,
    rank: str,
    stock: IntArray,
    whole: bool = True,
    kept: Machines | None = None,
) -> Machines:
    """Machines [L, R, W] that greedy takes for ``demand_qps`` [L, W] from ``stock`` [L, H], workloads in ``orders``.

    ``kept`` [L, R, W] are machines already on, within the stock; only what is short beside them is taken.
    """
    ranked, types = _ranked_rows(problem, rank), problem.types
    lanes = np.arange(len(demand_qps))
    shape = (len(demand_qps), problem.n_rows, problem.n_workloads)
    servers = np.zeros(shape, dtype=np.int64 if whole else np.float64) if kept is None else kept.copy()
    free = stock - _per_type(servers, problem)
    for w in orders.T:
        demand = demand_qps[lanes, w]
        short = demand - (servers[lanes, :, w] * problem.qps[:, w].T).sum(axis=1)
        short[short <= COVER_TOL * demand] = 0.0
        for place in range(problem.n_rows):
            if not (short > 0).any():
                break
            r = ranked[w, place]
            qps, group = problem.qps[r, w], _group(problem, r, w)
            take = _taken(short, qps, group, free[lanes, types[r]], whole)
            servers[lanes, r, w] += take
            free[lanes, types[r]] -= take
            short -= take * qps
            short[short <= COVER_TOL * demand] = 0.0
    return servers


def _taken(short: FloatArray, qps: FloatArray, group: IntArray, free: Machines, whole: bool) -> Machines:
    """Machines that cover ``short`` as far as ``free`` ones go, in multiples of ``group``; 0 where ``qps`` is 0."""
    rate = np.where(qps > 0, qps, 1.0)
    needed = np.where(qps > 0, np.maximum(short, 0.0) / rate, 0.0)
    if not whole:
        return np.asarray(np.minimum(free, needed))
    copies = np.maximum(np.ceil(needed / group - COVER_TOL), 0.0).astype(np.int64)
    return np.asarray(np.minimum(free // group, copies) * group)


def _greedy_in_turn(problem: Problem, orders: IntArray, rank: str, whole: bool) -> Machines:
    """Greedy that keeps what it can use of the interval before; [T, R, W]."""
    ranked = _ranked_rows(problem, rank)
    answers: list[Machines] = []
    kept: Machines | None = None
    for t in range(problem.n_intervals):
        one = slice(t, t + 1)
        if kept is not None:
            kept = _given_back(problem, kept, t, orders[t], ranked, whole)
        kept = greedy_servers(problem, problem.demand_qps[one], orders[one], rank, problem.stocks[one], whole, kept)
        answers.append(kept)
    return np.concatenate(answers)


def _given_back(
    problem: Problem, before: Machines, t: int, workloads: IntArray, ranked: IntArray, whole: bool
) -> Machines:
    """``before`` [1, R, W] without what its workloads no longer need and what the stock no longer holds."""
    servers = before.copy()
    for w in workloads:
        for r in ranked[w, ::-1]:
            qps = problem.qps[r, w]
            if servers[0, r, w] > 0:
                surplus = (servers[0, :, w] * problem.qps[:, w]).sum() - problem.demand_qps[t, w] * (1.0 - COVER_TOL)
                drop = max(surplus / qps, 0.0)
                if whole:
                    group = int(_group(problem, r, w))
                    drop = math.floor(drop / group) * group
                servers[0, r, w] -= min(drop, servers[0, r, w])
    over = (_per_type(servers, problem) - problem.stocks[t])[0]
    for h in np.flatnonzero(over > 0):
        for w in workloads[::-1]:
            for r in np.flatnonzero(problem.types == h):
                group = int(_group(problem, r, w)) if whole else 1
                drop = min(servers[0, r, w], -(-over[h] // group) * group if whole else over[h])
                if over[h] > 0:
                    servers[0, r, w] -= drop
                    over[h] -= drop
    return servers


def greedy_order_spread(
    problem: Problem, interval: int, rank: str, samples: int, seed: int, last: str = "whole"
) -> OrderSpread:
    """Greedy at ``interval`` over all workload orders, or over ``samples`` random ones where there are more."""
    n_w = problem.n_workloads
    if n_w <= 8 and math.factorial(n_w) <= samples:
        orders = np.array(list(itertools.permutations(range(n_w))), dtype=np.int64)
    else:
        orders = order(seed, _ORDERS, max(samples, 1), n_w)
    demand = np.repeat(problem.demand_qps[interval : interval + 1], len(orders), axis=0)
    stock = np.repeat(problem.stocks[interval : interval + 1], len(orders), axis=0)
    servers = greedy_servers(problem, demand, orders, rank, stock, last == "whole")
    unmet = shortfall_qps(demand, problem.capacity_qps(servers))
    return _spread(interval, unmet, problem.total_power_w(servers), servers.sum(axis=(1, 2)))


# -- oblivious -------------------------------------------------------------------------------------------------------


def oblivious(
    problem: Problem, seed: int = 0, *, draw: str = "random", types: str = "eligible", last: str = "whole"
) -> Baseline:
    """Servers whatever their type: at random machine by machine, or every workload a share of every type.

    ``draw``: "random": the workloads in round robin over a random order; each draw takes a machine for the next
    workload that is still short, of a type with probability proportional to the machines of it that are free. Streams
    depend on ``seed``, interval and draw only. Where the stock is above 8192 machines, a draw takes several at once
    (the rule of the result says how many). "proportional": workload w gets ``stock[h] * demand[w] / sum_h stock[h]
    qps[h, w]`` machines of each type h; where that is more than there are, all shares shrink alike.
    ``types``: "eligible" types only, or "all": then a machine that cannot serve its workload is on for nothing, at the
    mean power of its type, as long as some machine that can is free.
    ``last``: the last machine of a workload is "whole" or "fractional".
    Of a type with several rows for a workload, the one with most q/s is used.
    Raises :class:`InputError` for another value.
    """
    _one_of("draw", draw, ("random", "proportional"))
    _one_of("types", types, ("eligible", "all"))
    _one_of("last", last, ("whole", "fractional"))
    drawn = _Drawn.of(problem, types == "all", last == "whole")
    whose = "eligible ones" if types == "eligible" else "all, also those that cannot serve the workload"
    if draw == "random":
        block = _block(problem)
        servers = _oblivious_servers(problem, seed, block, drawn)
        unit = "one server" if block == 1 else f"up to {block} servers"
        rule = (
            f"{unit} per draw, workloads in round robin over a random order, type drawn among {whose} with "
            f"probability proportional to free servers (seed {seed}); every interval from scratch"
        )
    else:
        servers = _proportional_servers(problem, drawn)
        rule = f"every workload takes servers of every type ({whose}) in proportion to the stock; from scratch"
    if last == "fractional":
        rule += "; the last server in part"
    return Baseline(
        name="oblivious",
        rule=rule,
        capacity=servers.sum(axis=(1, 2)),
        power_w=np.asarray((servers * drawn.power_w).sum(axis=(1, 2))),
        unmet_qps=shortfall_qps(problem.demand_qps, np.asarray((servers * drawn.qps).sum(axis=1), dtype=np.float64)),
    )


def oblivious_spread(
    problem: Problem, interval: int, samples: int, seed: int, *, types: str = "eligible", last: str = "whole"
) -> OrderSpread:
    """Random :func:`oblivious` at ``interval`` over ``samples`` draws of its order and its machines."""
    one = problem.interval(interval)
    lanes = Problem(
        qps=problem.qps,
        power_w=problem.power_w,
        demand_qps=np.repeat(one.demand_qps, samples, axis=0),
        stock=one.stocks[0],
        row_type=problem.row_type,
        group=problem.group,
    )
    base = oblivious(lanes, seed, types=types, last=last)
    return _spread(interval, base.unmet_qps, base.power_w, base.capacity)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """The problem as oblivious sees it: one row per type. All arrays [H, W]."""

    qps: FloatArray
    power_w: FloatArray
    """Also of machines that are on for nothing."""
    group: IntArray
    able: BoolArray
    """May be drawn."""
    whole: bool

    @classmethod
    def of(cls, problem: Problem, all_types: bool, whole: bool) -> _Drawn:
        n_h, n_w = problem.n_servers, problem.n_workloads
        qps, power_w = np.zeros((n_h, n_w)), np.zeros((n_h, n_w))
        group = np.ones((n_h, n_w), dtype=np.int64)
        for r, h in enumerate(problem.types):
            better = problem.qps[r] > qps[h]
            qps[h, better], power_w[h, better] = problem.qps[r, better], problem.power_w[r, better]
            group[h, better] = _group(problem, np.intp(r), np.arange(n_w))[better]
        able = qps > 0
        if all_types:
            runs_some = np.asarray(able.any(axis=1))
            mean = power_w.sum(axis=1) / np.maximum(able.sum(axis=1), 1)
            power_w = np.where(able, power_w, mean[:, None])
            able = able | runs_some[:, None]
        return cls(qps, power_w, group, able, whole)


def _block(problem: Problem) -> int:
    return max(1, -(-int(problem.stocks.sum(axis=1).max()) // _MAX_DRAWS))


def _oblivious_servers(problem: Problem, seed: int, block: int, drawn: _Drawn | None = None) -> Machines:
    """Machines [T, H, W] of the random draw."""
    drawn = _Drawn.of(problem, all_types=False, whole=True) if drawn is None else drawn
    n_lanes, n_w = problem.demand_qps.shape
    orders = order(seed, _ROUND_ROBIN, n_lanes, n_w)
    short = np.take_along_axis(problem.demand_qps, orders, axis=1)  # by place in the round robin
    dust = COVER_TOL * short
    free = problem.stocks.astype(np.int64 if drawn.whole else np.float64)
    servers = np.zeros((n_lanes, problem.n_servers, n_w), dtype=free.dtype)
    at = np.zeros(n_lanes, dtype=np.int64)  # place in the round robin
    for turn in itertools.count():
        lanes = np.flatnonzero((short > 0).any(axis=1))
        if not len(lanes):
            return servers
        place = _next_short(short[lanes], at[lanes])
        w = orders[lanes, place]
        room = free[lanes] >= (drawn.group[:, w].T if drawn.whole else 1e-9)
        stuck = ~(room & (drawn.qps[:, w].T > 0)).any(axis=1)
        choice = np.where(drawn.able[:, w].T & room, np.ceil(free[lanes]), 0).astype(np.int64)
        total = choice.sum(axis=1)
        pick = below(random_bits(seed, _PICK, lanes, turn), total)
        h = (choice.cumsum(axis=1) <= pick[:, None]).sum(axis=1)
        short[lanes[stuck], place[stuck]] = 0.0  # nothing left for it: what is missing shows in the result
        lanes, place, w, h = lanes[~stuck], place[~stuck], w[~stuck], h[~stuck]
        qps, group = drawn.qps[h, w], drawn.group[h, w]
        rate = np.where(qps > 0, qps, np.inf)  # one that cannot serve is taken alone
        if drawn.whole:
            copies = np.maximum(np.ceil(short[lanes, place] / (rate * group)), 1.0).astype(np.int64)
            most = np.minimum(free[lanes, h], np.maximum(block, group)) // group
            take = np.minimum(most, copies) * group
        else:
            needed = np.where(qps > 0, short[lanes, place] / rate, 1.0)
            take = np.minimum(np.minimum(free[lanes, h], block), np.minimum(needed, float(block)))
        servers[lanes, h, w] += take
        free[lanes, h] -= take
        left = short[lanes, place] - take * qps
        short[lanes, place] = np.where(left > dust[lanes, place], left, 0.0)
        at[lanes] = (place + 1) % n_w
    raise AssertionError("unreachable")


def _next_short(short: FloatArray, at: IntArray) -> IntArray:
    """First place at or after ``at``, cyclically, that is still short; [L]."""
    n = short.shape[1]
    distance = (np.arange(n) - at[:, None]) % n
    return np.asarray(np.where(short > 0, distance, n).argmin(axis=1))


def _proportional_servers(problem: Problem, drawn: _Drawn) -> Machines:
    """Machines [T, H, W] of the proportional rule; whole ones are topped up from the types with the largest rest."""
    stock = problem.stocks.astype(np.float64)
    full = stock @ drawn.qps  # [T, W] what the whole fleet would serve
    share = np.where(full > 0, problem.demand_qps / np.where(full > 0, full, 1.0), 0.0)
    asked = (share[:, None, :] * drawn.able).sum(axis=2).max(axis=1)  # of the type most in demand
    share = share / np.maximum(asked, 1.0)[:, None]
    exact = stock[:, :, None] * share[:, None, :] * drawn.able
    if not drawn.whole:
        return np.asarray(exact)
    servers = np.asarray(np.floor(exact / drawn.group + COVER_TOL).astype(np.int64) * drawn.group)
    free = problem.stocks - servers.sum(axis=2)
    rest = exact - servers
    for w in range(problem.n_workloads):
        while True:
            short = shortfall_qps(problem.demand_qps[:, w], (servers[:, :, w] * drawn.qps[:, w]).sum(axis=1))
            can = (free >= drawn.group[:, w]) & (drawn.qps[:, w] > 0)
            lanes = np.flatnonzero((short > 0) & can.any(axis=1))
            if not len(lanes):
                break
            h = np.where(can[lanes], rest[lanes, :, w], -np.inf).argmax(axis=1)
            take = drawn.group[h, w]
            servers[lanes, h, w] += take
            free[lanes, h] -= take
            rest[lanes, h, w] -= take
    return servers


# -- shared ----------------------------------------------------------------------------------------------------------


def _ranked_rows(problem: Problem, rank: str) -> IntArray:
    """[W, R] rows of each workload, best first."""
    if rank == "efficiency":
        score = np.where(problem.qps > 0, problem.qps / np.where(problem.qps > 0, problem.power_w, 1.0), 0.0)
    elif rank == "qps":
        score = problem.qps
    else:
        raise InputError(f"rank: {rank!r}; allowed: 'efficiency', 'qps'")
    return np.argsort(-score.T, axis=1, kind="stable")


def _group(problem: Problem, row: Any, workload: Any) -> IntArray:
    if problem.group is None:
        return np.ones(np.broadcast(row, workload).shape, dtype=np.int64)
    return np.asarray(problem.group[row, workload])


def _per_type(servers: Machines, problem: Problem) -> Machines:
    """[L, H] machines of each type."""
    per_row = servers.sum(axis=2)
    if problem.row_type is None:
        return np.asarray(per_row)
    used = np.zeros((len(servers), problem.n_servers), dtype=servers.dtype)
    for r, h in enumerate(problem.row_type):
        used[:, h] += per_row[:, r]
    return used


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name}: {value!r}; allowed: {', '.join(map(repr, allowed))}")


def _workload_orders(problem: Problem, order: str | Sequence[str]) -> tuple[IntArray, str]:
    shape = problem.demand_qps.shape
    if isinstance(order, str):
        if order == "given":
            return np.broadcast_to(np.arange(shape[1]), shape), "in the order given"
        if order == "largest":
            return np.argsort(-problem.demand_qps, axis=1, kind="stable"), "by demand, largest first"
        raise InputError(f"order: {order!r}; allowed: 'given', 'largest', or the workload names in order")
    names = tuple(order)
    for name in names:
        if name not in problem.workloads:
            raise UnknownNameError.of("workload in the greedy order", str(name), problem.workloads)
    if sorted(names) != sorted(problem.workloads):
        missing = [w for w in problem.workloads if w not in names]
        raise InputError(
            f"order: {names} is not a permutation of the workloads (missing: {missing or 'none, but repeated'})"
        )
    return np.broadcast_to(
        np.array([problem.workloads.index(n) for n in names]), shape
    ), f"in the order {', '.join(names)}"


def _baseline(problem: Problem, servers: Machines, name: str, rule: str) -> Baseline:
    return Baseline(
        name=name,
        rule=rule,
        capacity=servers.sum(axis=(1, 2)),
        power_w=problem.total_power_w(servers),
        unmet_qps=problem.shortfall_qps(servers),
    )


def _spread(interval: int, unmet_qps: FloatArray, power_w: FloatArray, capacity: Machines) -> OrderSpread:
    covers = np.asarray(~(unmet_qps > 0).any(axis=1))
    return OrderSpread(
        interval=interval,
        orders=len(covers),
        covering=int(covers.sum()),
        power_w=_low_middle_high(power_w[covers]),
        capacity=_low_middle_high(capacity[covers].astype(np.float64)),
    )


def _low_middle_high(values: FloatArray) -> tuple[float, float, float] | None:
    if not len(values):
        return None
    ordered = np.sort(values)
    return float(ordered[0]), float(ordered[(len(ordered) - 1) // 2]), float(ordered[-1])
