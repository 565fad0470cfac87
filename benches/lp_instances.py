"""Fleets and loads of any size for the benches of provisioning: fixed by a seed, feasible, tight at the peak."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

INTERVALS_A_DAY = 288
SHARE = 0.75
"""Load of the peak interval, as a part of the largest that the stock can carry; 0.72 to 0.75 come out."""
LEAST_TYPES = 4
"""Types that every workload can run on at least, where there are so many."""


class Instance(NamedTuple):
    qps: np.ndarray
    """float64 [H, W], q/s of one machine; 0 = not eligible."""
    power_w: np.ndarray
    """float64 [H, W], watts of one machine."""
    demand_qps: np.ndarray
    """float64 [T, W], q/s."""
    stock: np.ndarray
    """int64 [H], machines."""


def instance(n_types: int, n_workloads: int, eligible: float = 1.0, intervals: int = 1, seed: int = 0) -> Instance:
    """A fleet of ``n_types`` with 20 to 400 machines of each type and a load of ``n_workloads``, tight at its peak.

    Rates are workload scale (1e2 to 1e4 q/s) x speed of the type (0.5 to 8) x affinity of the pair (lognormal, sigma
    0.5); a machine draws 60 to 100 % of the 120 to 700 W of its type. A pair is eligible with probability ``eligible``.
    Shares of the load are lognormal. Over several intervals, of 5 minutes each, every workload follows a day of its
    own phase, within hours of the others, with 2 % of noise; one interval is the peak itself.
    """
    rng = np.random.default_rng([seed, n_types, n_workloads, round(1000 * eligible)])
    stock = rng.integers(20, 401, n_types)
    scale = 10 ** rng.uniform(2, 4, n_workloads)
    speed = np.exp(rng.uniform(np.log(0.5), np.log(8.0), n_types))
    qps = scale * speed[:, None] * rng.lognormal(0.0, 0.5, (n_types, n_workloads))
    power_w = rng.uniform(120, 700, n_types)[:, None] * rng.uniform(0.6, 1.0, qps.shape)
    runs = rng.random(qps.shape) < eligible
    for w in np.flatnonzero(runs.sum(axis=0) < LEAST_TYPES):
        runs[rng.choice(n_types, min(LEAST_TYPES, n_types), replace=False), w] = True
    qps[~runs] = 0.0
    demand = scale * rng.lognormal(0.0, 0.7, n_workloads) * _days(intervals, n_workloads, rng)
    peak = demand[np.argmax((demand / scale).sum(axis=1))]
    fit = largest_scale(qps, peak, stock)
    return Instance(qps, power_w, demand * float(f"{SHARE * fit:.2e}"), stock)


def perturbed(demand_qps: np.ndarray, seed: int, sigma: float = 0.02) -> np.ndarray:
    """The same load a few minutes later: lognormal noise on every workload."""
    return demand_qps * np.random.default_rng([seed, 1]).lognormal(0.0, sigma, demand_qps.shape)


def _days(intervals: int, n_workloads: int, rng: np.random.Generator) -> np.ndarray:
    """Diurnal curves [intervals, n_workloads] between 0.4 and 1, peaks spread by two hours around 20:00."""
    if intervals == 1:
        return np.ones((1, n_workloads))
    hour = np.arange(intervals)[:, None] * (24 / INTERVALS_A_DAY)
    peak_hour = rng.normal(20.0, 2.0, n_workloads)
    day = 0.7 + 0.3 * np.cos(2 * np.pi * (hour - peak_hour) / 24)
    return day * rng.lognormal(0.0, 0.02, day.shape)


def largest_scale(qps: np.ndarray, demand_qps: np.ndarray, stock: np.ndarray, sharpness: float = 40.0) -> float:
    """Factor by which ``demand_qps`` [W] may grow before the stock [H] is full, or a little less.

    Each workload spreads itself over its types by (rate / price) ** sharpness, and each price follows the use of its
    type; that is Sinkhorn's scaling, two products of a matrix and a vector a step. A spread that uses at most 1 / f of
    each type carries f times the load. No factor exceeds sum(stock u) / sum(demand min_h(u / rate)) with any prices u,
    by the duality of linear programs: the search ends within 4 % of that, or after a thousand steps.
    """
    kernel = (qps / qps.max(axis=0)) ** sharpness
    kernel[kernel < 1e-50] = 0.0  # products with numbers below the normal ones are slow
    work = np.divide(kernel * demand_qps, qps, out=np.zeros_like(qps), where=qps > 0)
    weight = np.ones(len(stock))  # price ** -sharpness
    carried, most = 0.0, np.inf
    for step in range(1000):
        use = weight * (work @ (1.0 / (weight @ kernel))) / stock
        carried = max(carried, 1.0 / use.max())
        weight *= np.maximum(use / use.max(), 0.01) ** -0.5
        weight = np.minimum(weight / weight.min(), 1e200)  # what nobody needs has no price
        if step % 20 == 19:
            price = weight ** (-1.0 / sharpness)
            with np.errstate(divide="ignore"):
                load_price = (price[:, None] / qps).min(axis=0)
            most = min(most, float(stock @ price / (demand_qps @ load_price)))
            if most <= 1.04 * carried:
                break
    return float(carried)
