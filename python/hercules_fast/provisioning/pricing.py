"""Pricing: what a q/s costs, given the price of a machine and of a watt; one pass over all rows, in chunks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem

__all__ = ["Pricing", "load_price"]

BoolArray = npt.NDArray[np.bool_]

# Elements of a chunk: its three arrays stay in a core's second-level cache.
_CHUNK_ELEMENTS = 1 << 15
# Steps of the rough search for prices: logarithm of the largest change of a machine's cost.
_STEPS = np.geomspace(0.2, 0.02, 30)


class Pricing:
    """Cheapest rows of a problem under given prices.

    The price of a q/s of row r on workload w in interval t is
    ``(cost[r, w] + machine_price[type of r] + watt_price[type of r] * power_w[r, w]) / qps[r, w]``: what a column of
    the linear program costs per q/s that it brings. ``domain`` int64 [H] sorts the types into groups 0..F-1 whose
    minima are kept apart; left out: one group.
    """

    def __init__(self, problem: Problem, domain: IntArray | None = None, *, free: bool = False) -> None:
        """``free``: machines cost nothing themselves; only prices count."""
        self.problem, self.free = problem, free
        self.row_domain = np.zeros(problem.n_rows, np.int64) if domain is None else domain[problem.types]
        self.n_domains = int(self.row_domain.max()) + 1 if domain is None else int(domain.max()) + 1

    def least(self, t: int, machine_price: FloatArray, watt_price: FloatArray | None = None) -> FloatArray:
        """[F, W] least price of a q/s in each domain, infinite where there is no eligible type in stock."""
        least = np.full((self.n_domains, self.problem.n_workloads), np.inf)
        one = self.n_domains == 1
        for rows, price in self._chunks(t, machine_price, watt_price):
            if one:
                np.fmin(least[0], np.fmin.reduce(price, axis=0), out=least[0])  # fmin: 0/0 = NaN is not eligible
            else:
                np.fmin.at(least, self.row_domain[rows], price)
        return least

    def least_machine(self, t: int, machine_price: FloatArray, watt_price: FloatArray | None = None) -> FloatArray:
        """[H] least cost of a machine of each type with its prices, over what it can run; 0 where it runs nothing."""
        least = np.full(self.problem.n_servers, np.inf)
        for rows, cost in self._chunks(t, machine_price, watt_price, divide=False):
            cost = np.where(self.problem.qps[rows] > 0, cost, np.inf).min(axis=1)
            np.minimum.at(least, self.problem.types[rows], cost)
        return np.where(np.isfinite(least), least, 0.0)

    def best(
        self,
        t: int,
        machine_price: FloatArray,
        watt_price: FloatArray | None,
        limit: FloatArray,
        keep: int,
        skip: BoolArray,
    ) -> tuple[IntArray, IntArray]:
        """Rows and workloads of the up to ``keep`` cheapest columns per workload that cost less than ``limit`` [F, W].

        "Cheapest" is farthest below the limit; where that is infinite, least in price. Columns of ``skip`` bool [R, W]
        are left out. Sorted by workload.
        """
        base = np.where(np.isfinite(limit), limit, 0.0)
        top = np.full((keep, limit.shape[1]), np.inf)
        top_row = np.zeros(top.shape, np.int64)
        for rows, price in self._chunks(t, machine_price, watt_price, rows_at_least=4 * keep):
            of_row = self.row_domain[rows]
            good = price < limit[of_row]
            good &= ~skip[rows]
            some = np.flatnonzero(good.any(axis=0))
            if not len(some):
                continue
            worth = np.where(good[:, some], price[:, some] - base[of_row][:, some], np.inf)
            row = np.broadcast_to(np.arange(rows.start, rows.stop)[:, None], worth.shape)
            worth, row = np.concatenate([top[:, some], worth]), np.concatenate([top_row[:, some], row])
            first = np.argsort(worth, axis=0, kind="stable")[:keep]
            top[:, some] = np.take_along_axis(worth, first, axis=0)
            top_row[:, some] = np.take_along_axis(row, first, axis=0)
        workload, place = np.nonzero(np.isfinite(top.T))
        return top_row[place, workload], workload

    def rough(self, t: int, demand_qps: FloatArray) -> FloatArray:
        """[H] stock prices not far from the optimum's, by a few passes: what is over-used gets dearer, and back.

        Every workload goes to its cheapest row, and the cost of a machine with its price follows the use of its stock,
        in steps that shrink. On fleets of 300 x 1000 its bound ends about 1 % below the optimum.
        """
        problem = self.problem
        stock = np.maximum(problem.stocks[t], 1).astype(np.float64)
        base = np.zeros(problem.n_servers)
        if not self.free:
            able = problem.qps > 0
            cost = np.zeros(problem.n_rows)
            for rows, each in self._chunks(t, base, None, divide=False):
                cost[rows] = np.where(able[rows], each, 0.0).sum(axis=1) / np.maximum(able[rows].sum(axis=1), 1)
            np.maximum.at(base, problem.types, np.where(np.isfinite(cost), cost, 0.0))
        price = np.where(base > 0, base, 1.0)
        for step in _STEPS:
            row, found = self._cheapest(t, price)
            workload = np.flatnonzero(found)
            row = row[workload]
            machines = demand_qps[workload] / problem.qps[row, workload]
            use = np.bincount(problem.types[row], machines, minlength=problem.n_servers) / stock
            if self.free:  # only the proportions of prices count
                use /= float((use * stock * price).sum() / (stock * price).sum()) or 1.0
            change = step * np.log(np.clip(use, np.exp(-1.0), np.exp(1.0)))
            price = np.maximum((base + price) * np.exp(change) - base, 0.0)
        return price

    def _cheapest(self, t: int, machine_price: FloatArray) -> tuple[IntArray, BoolArray]:
        """[W] cheapest row of each workload, and whether there is one."""
        row = np.zeros(self.problem.n_workloads, np.int64)
        least = np.full(self.problem.n_workloads, np.inf)
        here = np.arange(self.problem.n_workloads)
        for rows, price in self._chunks(t, machine_price, None):
            np.copyto(price, np.inf, where=np.isnan(price))
            first = price.argmin(axis=0)
            better = price[first, here] < least
            row[better] = first[better] + rows.start
            least[better] = price[first[better], here[better]]
        return row, np.isfinite(least)

    def _chunks(
        self,
        t: int,
        machine_price: FloatArray,
        watt_price: FloatArray | None,
        *,
        rows_at_least: int = 1,
        divide: bool = True,
    ) -> Iterator[tuple[slice, FloatArray]]:
        """Prices [rows, W] of successive rows, per q/s; NaN or infinite where not eligible. Or, undivided, per machine.

        The array is used again for the next rows.
        """
        problem, types = self.problem, self.problem.types
        step = max(rows_at_least, _CHUNK_ELEMENTS // problem.n_workloads)
        per_machine = np.where(problem.stocks[t] > 0, machine_price, np.inf)
        per_watt = np.zeros(problem.n_servers) if watt_price is None else watt_price
        if not self.free:
            if problem.machine_cost is not None:
                per_machine = per_machine + problem.machine_cost[t]
            per_watt = per_watt + (1.0 if problem.watt_cost is None else problem.watt_cost[t])
        below_zero = bool((per_machine < 0.0).any())
        buffer = np.empty((step, problem.n_workloads))
        for start in range(0, problem.n_rows, step):
            rows = slice(start, min(start + step, problem.n_rows))
            price = buffer[: rows.stop - start]
            np.multiply(problem.power_w[rows], per_watt[types[rows], None], out=price)
            price += per_machine[types[rows], None]
            if divide:
                with np.errstate(divide="ignore", invalid="ignore"):
                    price /= problem.qps[rows]
                if below_zero:  # what cannot run is no source of income
                    np.copyto(price, np.inf, where=problem.qps[rows] == 0.0)
            yield rows, price


def load_price(least: FloatArray, penalty: FloatArray, k: int = 0) -> FloatArray:
    """Price of a further q/s of each workload, [W], from the least price in each domain, ``least`` [F, W].

    Without failures (k = 0): the least of all, and at most ``penalty`` [W], the price of shedding it.

    When any k domains may fail, the dual of the workload's own part of the program is: maximise tau = v + w subject to
    ``v <= penalty``, ``w <= penalty`` (load exposed to a failure costs as much as load that is shed),
    ``v + w - z[f] <= least[f]``, ``0 <= z[f] <= w`` and ``sum z <= k w``; its demand counts in both rows. With the
    prices sorted and S[j] the sum of the j least: ``tau = min(2 penalty, least[0] + penalty, min_j (k penalty + S[j])
    / j, min_{j > k} S[j] / (j - k))``. Finite whatever the prices: the penalty bounds it.
    """
    if k == 0:
        return np.asarray(np.minimum(least.min(axis=0), penalty), dtype=np.float64)
    ordered = np.sort(least, axis=0)
    sums = np.cumsum(ordered, axis=0)
    count = np.arange(1, len(least) + 1)[:, None]
    price = np.minimum(2.0 * penalty, ordered[0] + penalty)
    price = np.minimum(price, ((k * penalty + sums) / count).min(axis=0))
    if k < len(least):
        price = np.minimum(price, (sums[k:] / (count[k:] - k)).min(axis=0))
    return np.asarray(price, dtype=np.float64)
