"""The answer of the linear program: fractional machines, prices, and the bound that certifies them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.problem import FloatArray, Problem

__all__ = ["LinearSolution", "relative_gap", "shed_penalties"]

# A unit of load that is shed costs this many times the worst cost per q/s of its workload.
SHED_FACTOR = 20.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearSolution:
    """The fractional optimum of every interval, its prices and its certificate.

    "Watts" of objective, prices and bound are cost where the problem has ``watt_cost`` or ``machine_cost``.
    """

    assignment: Assignment
    """Machines, fractional."""
    power_w: FloatArray
    """[T] provisioned power; no penalty in it."""
    shed_qps: FloatArray
    """[T, W] demand that the stock cannot cover."""
    objective_w: FloatArray
    """[T] what was minimised: ``cost + sum(penalty * shed_qps)``; without costs, ``cost`` is ``power_w``."""
    penalty_w_per_qps: FloatArray
    """[T, W] cost of shedding; raised until the weighted shed was the least possible."""
    stock_price_w: FloatArray
    """[T, H] u: objective saved per further machine of the type."""
    load_price_w: FloatArray
    """[T, W] v: objective added per further q/s, W per q/s."""
    bound_w: FloatArray
    """[T] certificate g(u), computed apart from the solver: no plan, fractional or whole, has a lower objective."""
    solver: tuple[str, ...]
    """[T] what solved each interval: "network" or "highs"."""
    resolved: tuple[int, ...] = ()
    """Intervals that were solved again without a warm start, because objective and certificate disagreed."""

    @property
    def servers(self) -> FloatArray:
        """[T, R, W] machines, dense."""
        return self.assignment.dense()

    @property
    def gap(self) -> FloatArray:
        """[T] relative distance of objective and certificate: what the solver leaves open."""
        return relative_gap(self.objective_w, self.bound_w)

    def first(self, n: int) -> LinearSolution:
        """The first ``n`` intervals."""
        arrays = {f.name: value[:n] for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray)}
        rest = tuple(t for t in self.resolved if t < n)
        return replace(self, assignment=self.assignment.first(n), solver=self.solver[:n], resolved=rest, **arrays)


def relative_gap(objective_w: FloatArray, bound_w: FloatArray) -> FloatArray:
    """``(objective - bound) / objective``, 0 where the objective is 0."""
    scale = np.where(objective_w > 0, objective_w, 1.0)
    return (objective_w - bound_w) / scale


def shed_penalties(problem: Problem) -> FloatArray:
    """[T, W] cost per q/s that is shed: ``SHED_FACTOR`` times the worst cost per q/s among the eligible types.

    A workload that no type in stock can run gets the largest penalty of the others: its load is shed in any case.
    """
    usable = problem.eligible
    rate = np.where(usable, problem.qps, np.inf)
    varies = problem.watt_cost is not None or problem.machine_cost is not None
    worst = np.stack([(problem.cost(t) / rate).max(axis=0) for t in range(problem.n_intervals if varies else 1)])
    worst = np.broadcast_to(SHED_FACTOR * worst, problem.demand_qps.shape)
    fallback = worst.max(axis=1, keepdims=True)
    return np.where(worst > 0, worst, np.where(fallback > 0, fallback, 1.0))
