"""Small fleets for the tests of provisioning's solvers, drawn from a seed: ordinary and degenerate ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MOST_DEMAND_QPS = 1e12
LEAST_DEMAND_QPS = 1e-6


class SmallFleet(NamedTuple):
    """R rows, H types, W workloads, T intervals."""

    name: str
    qps: np.ndarray
    """float64 [R, W], q/s of one machine; 0 = not eligible."""
    power_w: np.ndarray
    """float64 [R, W]."""
    demand_qps: np.ndarray
    """float64 [T, W]."""
    stock: np.ndarray
    """int64 [H]."""
    row_type: np.ndarray
    """int64 [R], type of each row."""

    def interval(self, t: int) -> SmallFleet:
        """The same fleet with the demand of interval ``t`` only."""
        return self._replace(demand_qps=self.demand_qps[t : t + 1])

    @property
    def usable(self) -> np.ndarray:
        """bool [R, W]: eligible, and in stock."""
        return (self.qps > 0) & (self.stock[self.row_type] > 0)[:, None]


def ordinary(seed: int, intervals: int = 1, most: int = 12) -> SmallFleet:
    """Up to ``most`` types and a few more workloads; anything between idle and five times too much load.

    A third has several rows per type. Rates lie around 1e3 q/s, or anywhere in 1e-3..1e9 by workload, some of these
    with three decades more between the pairs of a workload: beyond that HiGHS' tolerances decide the answer.
    """
    rng = np.random.default_rng([seed, 0])
    n_types, n_workloads = rng.integers(1, most + 1), rng.integers(1, most + most // 2 + 1)
    row_type = np.arange(n_types)
    if rng.random() < 1 / 3:
        row_type = np.sort(np.concatenate([row_type, rng.integers(0, n_types, rng.integers(1, n_types + 1))]))
    shape = (len(row_type), n_workloads)
    spread = rng.choice(["plain", "by workload", "by pair"], p=[0.5, 0.4, 0.1])
    scale = 10 ** (rng.uniform(2, 4, n_workloads) if spread == "plain" else rng.uniform(-2, 8, n_workloads))
    qps = scale * rng.uniform(0.5, 8, (len(row_type), 1)) * rng.lognormal(0.0, 0.5, shape)
    if spread == "by pair":
        qps *= 10 ** rng.uniform(-1.5, 1.5, shape)
    power_w = rng.uniform(120, 700, (len(row_type), 1)) * rng.uniform(0.6, 1.0, shape)
    qps = np.where(rng.random(shape) < rng.choice([1.0, 0.6, 0.2]), np.clip(qps, 1e-3, 1e9), 0.0)
    stock = rng.integers(1, rng.choice([5, 50, 400]) + 1, n_types)
    stock[rng.random(n_types) < rng.choice([0.0, 0.2])] = 0
    level = rng.choice([0.2, 0.6, 1.0, 1.5, 5.0])
    demand = _even_demand(qps, stock, row_type) * level * rng.lognormal(0.0, 1.0, n_workloads)
    demand[rng.random(n_workloads) < rng.choice([0.0, 0.2])] = 0.0
    hour = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(intervals)[:, None] / 24
    day = 1.0 + (0.5 * np.cos(hour) if intervals > 1 else 0.0 * hour)
    noise = rng.lognormal(0.0, 0.02, (intervals, n_workloads))
    name = f"ordinary({seed}, intervals={intervals}, most={most}): rates {spread}, load {level}"
    return SmallFleet(name, qps, power_w, _demand(demand * day * noise), stock, row_type)


def in_and_out_of_shortage(seed: int, intervals: int = 24, most: int = 12) -> SmallFleet:
    """A day whose load swings through the edge of what the stock carries, twice."""
    fleet = ordinary(seed, intervals, most)
    rng = np.random.default_rng([seed, 1])
    swing = 10 ** (0.6 * np.sin(4 * np.pi * (np.arange(intervals) + rng.uniform(0, 6)) / intervals))
    even = _even_demand(fleet.qps, fleet.stock, fleet.row_type) * rng.lognormal(0.0, 0.5, fleet.qps.shape[1])
    return fleet._replace(
        name=f"in_and_out_of_shortage({seed}, {intervals}, {most})", demand_qps=_demand(even * swing[:, None])
    )


DEGENERATE = (
    "all equal",
    "ties",
    "repeated types",
    "one type",
    "one workload",
    "nothing eligible",
    "no stock",
    "no load",
    "just enough",
    "one machine short",
    "single machines",
    "extreme rates",
)


def degenerate(seed: int) -> SmallFleet:
    """A fleet of the kind ``DEGENERATE[seed % 12]``: ties, emptiness, and edges.

    "extreme rates" go from 1e-3 to 1e9 within a workload, on few types, for a referee without rounding.
    """
    rng = np.random.default_rng([seed, 2])
    kind = DEGENERATE[seed % len(DEGENERATE)]
    n_types = 1 if kind == "one type" else int(rng.integers(2, 9))
    n_workloads = 1 if kind == "one workload" else int(rng.integers(2, 9))
    shape = (n_types, n_workloads)
    qps, power_w = np.full(shape, 100.0), np.full(shape, 200.0)
    stock = np.full(n_types, int(rng.integers(1, 20)))
    level = rng.choice([0.5, 1.0, 2.0])
    if kind == "ties":
        qps, power_w = rng.choice([50.0, 100.0, 200.0], shape), rng.choice([100.0, 200.0, 400.0], shape)
        stock = rng.integers(1, 4, n_types)
    elif kind in ("repeated types", "one type", "one workload", "no stock", "no load", "nothing eligible"):
        qps, power_w = rng.uniform(50, 500, shape), rng.uniform(100, 700, shape)
        stock = rng.integers(1, 30, n_types)
    elif kind == "single machines":
        qps, stock = rng.choice([10.0, 20.0, 30.0], shape), np.ones(n_types, dtype=np.int64)
    elif kind == "extreme rates":
        shape = (n_types, n_workloads) = rng.integers(1, 5, 2).tolist()
        qps, power_w = 10 ** rng.uniform(-3, 9, shape), 10 ** rng.uniform(-3, 6, shape)
        qps[rng.random(shape) < 0.3] = 1e-3
        qps[rng.random(shape) < 0.3] = 1e9
        stock = rng.integers(1, 100, n_types)
    if kind == "repeated types":
        twin = rng.integers(0, (n_types + 1) // 2, n_types)
        qps, power_w = qps[twin], power_w[twin]
    if kind == "nothing eligible":
        qps[:, rng.random(n_workloads) < 0.6] = 0.0
    if kind == "no stock":
        stock[rng.random(n_types) < 0.6] = 0
    if kind in ("just enough", "one machine short"):
        # Type h serves workload h % W best, or nothing else; the demand is what all serve so, to the bit.
        alone = rng.random() < 0.5
        own = np.arange(n_types)[:, None] % n_workloads == np.arange(n_workloads)
        qps = np.where(own, 128.0, 0.0 if alone else 64.0)
        demand = (np.where(own, 128.0, 0.0) * stock[:, None]).sum(axis=0)
        if kind == "one machine short":
            demand[0] += 128.0
    else:
        demand = _even_demand(qps, stock, np.arange(n_types)) * level
        if kind != "all equal":
            demand *= rng.choice([0.5, 1.0, 1.5], n_workloads)
        if kind == "no load":
            demand[rng.random(n_workloads) < 0.7] = 0.0
    return SmallFleet(f"degenerate({seed}): {kind}", qps, power_w, _demand(demand[None]), stock, np.arange(n_types))


def _even_demand(qps: np.ndarray, stock: np.ndarray, row_type: np.ndarray) -> np.ndarray:
    """[W] q/s of each workload on an even share of every type, on each type's first row; 1 where none runs it."""
    first = np.unique(row_type, return_index=True)[1]
    even = (qps[first] * stock[row_type[first], None]).sum(axis=0) / qps.shape[1]
    return np.where(even > 0, even, 1.0)


def _demand(qps: np.ndarray) -> np.ndarray:
    """``qps`` within the range that a problem may ask for; 0 stays 0."""
    return np.where(qps > 0, np.clip(qps, LEAST_DEMAND_QPS, MOST_DEMAND_QPS), 0.0)
