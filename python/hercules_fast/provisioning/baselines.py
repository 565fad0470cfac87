"""What the plan is compared with: greedy by ranked type, and the heterogeneity-oblivious random pick.

The literature names both baselines without a rule that could be repeated; these are this library's rules. Both take
whole machines, start every interval from an empty fleet, and may fail to cover a load that the plan covers: then the
rest is reported as unmet. All intervals (or orders) advance in lock-step, as lanes of one array.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.provisioning.problem import COVER_TOL, FloatArray, IntArray, Problem
from hercules_fast.provisioning.streams import below, order, random_bits

__all__ = ["Baseline", "OrderSpread", "greedy", "greedy_order_spread", "oblivious"]

# Purposes of the random streams.
_ROUND_ROBIN, _PICK, _ORDERS = 1, 2, 3
# Above this many draws per interval, oblivious takes several machines per draw.
_MAX_DRAWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Baseline:
    """What a baseline switches on in each interval."""

    name: str
    rule: str
    capacity: IntArray
    """[T] machines switched on."""
    power_w: FloatArray
    """[T] their provisioned power."""
    unmet_qps: FloatArray
    """[T, W] demand that it leaves uncovered."""

    @property
    def covers(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """bool [T]: the demand of the interval is covered, so that its machines and watts can be compared."""
        return np.asarray(~(self.unmet_qps > 0).any(axis=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderSpread:
    """Greedy at one interval over many workload orders. Figures are of the orders that cover; None if none does."""

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


def greedy(problem: Problem, order: str | Sequence[str] = "given", rank: str = "efficiency") -> Baseline:
    """Each workload in turn takes whole machines of its best-ranked type with stock left, until it is covered.

    ``order``: "given" · "largest" (demand of the interval, first) · the workload names in order.
    ``rank``: "efficiency" (qps / power_w) · "qps". Ties go to the lower index.
    Raises :class:`InputError` for an unknown rank or order, or an order that is not a permutation.
    """
    orders, order_words = _workload_orders(problem, order)
    servers = greedy_servers(problem, problem.demand_qps, orders, rank)
    measure = "q/s per watt" if rank == "efficiency" else "q/s"
    rule = (
        f"workloads {order_words}, each takes whole servers of the type with most {measure} first; "
        "every interval from scratch"
    )
    return _baseline(problem, servers, "greedy", rule)


def greedy_servers(problem: Problem, demand_qps: FloatArray, orders: IntArray, rank: str) -> IntArray:
    """Machines [L, H, W] that greedy takes for ``demand_qps`` [L, W], serving workloads in ``orders`` [L, W]."""
    ranked = _ranked_types(problem, rank)
    n_lanes = len(demand_qps)
    lanes = np.arange(n_lanes)
    free = np.repeat(problem.stock[None, :], n_lanes, axis=0)
    servers = np.zeros((n_lanes, problem.n_servers, problem.n_workloads), dtype=np.int64)
    for w in orders.T:
        demand = demand_qps[lanes, w]
        short = demand.copy()
        for place in range(problem.n_servers):
            if not (short > 0).any():
                break
            h = ranked[w, place]
            qps = problem.qps[h, w]
            able = qps > 0
            needed = np.where(able, np.ceil(short / np.where(able, qps, 1.0) - COVER_TOL), 0.0)
            take = np.minimum(free[lanes, h], np.maximum(needed, 0.0).astype(np.int64))
            servers[lanes, h, w] += take
            free[lanes, h] -= take
            short -= take * qps
            short[short <= COVER_TOL * demand] = 0.0
    return servers


def greedy_order_spread(problem: Problem, interval: int, rank: str, samples: int, seed: int) -> OrderSpread:
    """Greedy at ``interval`` over all workload orders, or over ``samples`` random ones where there are more."""
    n_w = problem.n_workloads
    if n_w <= 8 and math.factorial(n_w) <= samples:
        orders = np.array(list(itertools.permutations(range(n_w))), dtype=np.int64)
    else:
        orders = order(seed, _ORDERS, max(samples, 1), n_w)
    demand = np.repeat(problem.demand_qps[interval : interval + 1], len(orders), axis=0)
    servers = greedy_servers(problem, demand, orders, rank)
    one = Problem(qps=problem.qps, power_w=problem.power_w, demand_qps=demand, stock=problem.stock)
    covers = ~(one.shortfall_qps(servers) > 0).any(axis=1)
    return OrderSpread(
        interval=interval,
        orders=len(orders),
        covering=int(covers.sum()),
        power_w=_low_middle_high(problem.total_power_w(servers)[covers]),
        capacity=_low_middle_high(servers.sum(axis=(1, 2))[covers].astype(np.float64)),
    )


def oblivious(problem: Problem, seed: int = 0) -> Baseline:
    """Server types at random: machine by machine, the workloads in round robin over a random order.

    Each draw takes a machine for the next workload that is still short, of an eligible type with probability
    proportional to the machines of it that are free. Streams depend on ``seed``, interval and draw only. Where the
    stock is above 8192 machines, a draw takes several at once (the rule of the result says how many).
    """
    total = int(problem.stock.sum())
    block = max(1, -(-total // _MAX_DRAWS))
    servers = _oblivious_servers(problem, seed, block)
    unit = "one server" if block == 1 else f"up to {block} servers"
    rule = (
        f"{unit} per draw, workloads in round robin over a random order, type drawn among eligible ones with "
        f"probability proportional to free servers (seed {seed}); every interval from scratch"
    )
    return _baseline(problem, servers, "oblivious", rule)


def _oblivious_servers(problem: Problem, seed: int, block: int) -> IntArray:
    n_lanes, n_w = problem.demand_qps.shape
    orders = order(seed, _ROUND_ROBIN, n_lanes, n_w)
    short = np.take_along_axis(problem.demand_qps, orders, axis=1)  # by place in the round robin
    dust = COVER_TOL * short
    free = np.repeat(problem.stock[None, :], n_lanes, axis=0)
    servers = np.zeros((n_lanes, problem.n_servers, n_w), dtype=np.int64)
    able = problem.qps > 0
    at = np.zeros(n_lanes, dtype=np.int64)  # place in the round robin
    for draw in itertools.count():
        lanes = np.flatnonzero((short > 0).any(axis=1))
        if not len(lanes):
            return servers
        place = _next_short(short[lanes], at[lanes])
        w = orders[lanes, place]
        choice = np.where(able[:, w].T, free[lanes], 0)
        total = choice.sum(axis=1)
        drawn = below(random_bits(seed, _PICK, lanes, draw), total)
        h = (choice.cumsum(axis=1) <= drawn[:, None]).sum(axis=1)
        stuck = total == 0
        short[lanes[stuck], place[stuck]] = 0.0  # nothing left for it: what is missing shows in the result
        lanes, place, w, h = lanes[~stuck], place[~stuck], w[~stuck], h[~stuck]
        needed = np.ceil(short[lanes, place] / problem.qps[h, w]).astype(np.int64)
        take = np.minimum(np.minimum(free[lanes, h], block), np.maximum(needed, 1))
        servers[lanes, h, w] += take
        free[lanes, h] -= take
        left = short[lanes, place] - take * problem.qps[h, w]
        short[lanes, place] = np.where(left > dust[lanes, place], left, 0.0)
        at[lanes] = (place + 1) % n_w
    raise AssertionError("unreachable")


def _next_short(short: FloatArray, at: IntArray) -> IntArray:
    """First place at or after ``at``, cyclically, that is still short; [L]."""
    n = short.shape[1]
    distance = (np.arange(n) - at[:, None]) % n
    return np.asarray(np.where(short > 0, distance, n).argmin(axis=1))


def _ranked_types(problem: Problem, rank: str) -> IntArray:
    """[W, H] server types of each workload, best first."""
    if rank == "efficiency":
        score = np.where(problem.qps > 0, problem.qps / np.where(problem.qps > 0, problem.power_w, 1.0), 0.0)
    elif rank == "qps":
        score = problem.qps
    else:
        raise InputError(f"rank: {rank!r}; allowed: 'efficiency', 'qps'")
    return np.argsort(-score.T, axis=1, kind="stable")


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


def _baseline(problem: Problem, servers: IntArray, name: str, rule: str) -> Baseline:
    return Baseline(
        name=name,
        rule=rule,
        capacity=servers.sum(axis=(1, 2)),
        power_w=problem.total_power_w(servers),
        unmet_qps=problem.shortfall_qps(servers),
    )


def _low_middle_high(values: FloatArray) -> tuple[float, float, float] | None:
    if not len(values):
        return None
    ordered = np.sort(values)
    return float(ordered[0]), float(ordered[(len(ordered) - 1) // 2]), float(ordered[-1])
