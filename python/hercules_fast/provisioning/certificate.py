"""A lower bound on the cost of any plan, from prices alone: it certifies an answer whatever produced it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hercules_fast.provisioning.constraints import Rules
from hercules_fast.provisioning.pricing import Pricing, load_price
from hercules_fast.provisioning.problem import FloatArray, Problem

__all__ = ["Duals", "certificate", "effective_prices", "price_bound"]

# Part by which the prices of a linear program may miss their own limits.
_ROUNDING = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Duals:
    """Prices of one interval, all at least 0, in cost per unit."""

    stock: FloatArray
    """[H] u."""
    cap: FloatArray
    """[G] y, per W."""
    on: FloatArray
    """[H] of "switched on >= machines now - machines before"."""
    up: FloatArray
    """[H] of "machines >= those switched on within the minimum up-time"."""
    survive: FloatArray
    """[W] of coverage after failures; what the failures add to the price of a q/s."""
    cover: FloatArray
    """[W] of coverage."""


def price_bound(problem: Problem, stock_price_w: FloatArray, penalty: FloatArray) -> FloatArray:
    """Lower bound [T] on ``cost + penalty . shed`` of every plan of every interval, fractional or whole.

    With stock prices u >= 0 the workloads decouple, and weak duality gives ``g(u) = sum_w demand[w] v[w] - sum_h
    stock[h] u[h]`` with ``v[w] = min(penalty[w], min_r (cost[r, w] + u[type of r]) / qps[r, w])``, for *any* u.

    ``stock_price_w``: float64 [T, H], cost per machine, negative entries are read as 0; ``penalty``: [T, W], cost per
    q/s that is shed.
    """
    n_h, n_w = problem.n_servers, problem.n_workloads
    per_type, per_load = np.zeros(n_h), np.zeros(n_w)
    none = Duals(stock=per_type, cap=np.zeros(0), on=per_type, up=per_type, survive=per_load, cover=per_load)
    duals = [replace(none, stock=u) for u in np.maximum(stock_price_w, 0.0)]
    return certificate(problem, Rules.none(problem), duals, penalty)[0]


def effective_prices(rules: Rules, duals: Duals, on_after: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """[H] what a machine and a watt cost beside their own cost: stock, caps, and the ties to other intervals."""
    machine = duals.stock + duals.on - duals.up
    if on_after is not None:
        machine = machine - on_after
    return machine, duals.cap @ rules.cap_member


def certificate(
    problem: Problem, rules: Rules, duals: list[Duals], penalty: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lower bound [T], stock price u [T, H] and load price [T, W] from prices, apart from the solver.

    The Lagrangian bound of every plan that keeps the rules, for *any* prices that are at least 0. With stock, caps and
    the ties between intervals priced, workloads decouple: ``sum_w demand price - sum_h stock u - sum_g limit y``, and
    what switching adds. Where intervals are tied (:class:`Switching`) only the sum over time is a bound.
    """
    k = 0 if rules.safe_domains else rules.k
    pricing = Pricing(problem, rules.domain if k else None)
    n_t = problem.n_intervals
    bound = np.zeros(n_t)
    stock_price = np.zeros((n_t, problem.n_servers))
    prices = np.zeros((n_t, problem.n_workloads))
    for t in range(n_t):
        after = duals[t + 1].on if t + 1 < n_t and rules.switching else None
        machine, watt = effective_prices(rules, duals[t], after)
        # A price below what any use of the machine costs would make idle machines a source of income.
        missing = np.maximum(-pricing.least_machine(t, machine, watt), 0.0) if rules.switching else 0.0
        least = pricing.least(t, machine + missing, watt)
        prices[t] = load_price(least, penalty[t], k)
        stock_price[t] = duals[t].stock + missing
        if rules.minimum is None:
            bound[t] = float((problem.demand_qps[t] * prices[t]).sum())
        else:
            bound[t], prices[t] = _with_minimum(
                problem, rules, t, machine + missing, watt, least, prices[t], duals[t], penalty[t], k
            )
        bound[t] -= float((problem.stocks[t] * stock_price[t]).sum())
        bound[t] -= float((rules.cap_limit_w[t] * duals[t].cap).sum())
        if rules.switching:
            up = np.zeros(problem.n_servers)
            for j in range(t, min(n_t, t + int(rules.min_up.max()))):
                up += np.where(j < t + rules.min_up, duals[j].up, 0.0)
            gain = np.minimum(rules.cost_on - duals[t].on + up, 0.0)
            most = np.minimum(rules.ramp, problem.stocks[t])
            if t or rules.initial is not None:
                bound[t] += float((gain * most).sum())
            if t == 0 and rules.initial is not None:
                bound[t] -= float((rules.initial * duals[t].on).sum())
        stock_price[t] += _worth_of_missing(problem, rules, t, machine, watt, prices[t], k)
    return bound, stock_price, prices


def _with_minimum(
    problem: Problem,
    rules: Rules,
    t: int,
    machine: FloatArray,
    watt: FloatArray,
    least: FloatArray,
    price: FloatArray,
    duals: Duals,
    penalty: FloatArray,
    k: int,
) -> tuple[float, FloatArray]:
    """Worth of all demand where some machines are on in any case, and the price of a q/s [W].

    A pair's machines cost ``own - qps v`` more than they serve, which is at least 0: times their minimum it adds to the
    bound. Then the largest v is not always best: where the minimum alone covers the demand, v = 0 is. With failures the
    prices of the linear program are tried too, of which any make a bound.
    """
    assert rules.minimum is not None
    row, workload = rules.footprint
    h, count = problem.types[row], rules.minimum[row, workload]
    own = problem.pair_cost(t, row, workload) + machine[h] + watt[h] * problem.power_w[row, workload]
    base = np.zeros(least.shape)  # [F, W] q/s of the minimum
    domain = rules.domain[h] if k and rules.domain is not None else np.zeros(len(h), np.int64)
    np.add.at(base, (domain, workload), count * problem.qps[row, workload])

    def worth(v: FloatArray, lost: FloatArray) -> FloatArray:
        return np.asarray(v * problem.demand_qps[t] - (base * (v - lost)).sum(axis=0), dtype=np.float64)

    gain = worth(price, np.maximum(price - least, 0.0))
    best, v = np.maximum(gain, 0.0), np.where(gain > 0.0, price, 0.0)
    ordered = np.sort(least, axis=0)
    sums, n = np.cumsum(ordered, axis=0), np.arange(1, len(least) + 1)[:, None]
    for part in (1.0, 1.0 - _ROUNDING) if k else ():  # a little less where the solver's own rounding is in the way
        survive = part * np.minimum(duals.survive, penalty)
        most = np.minimum(survive + np.minimum(penalty, ordered[0]), ((k * survive + sums) / n).min(axis=0))
        both = np.minimum(np.minimum(duals.cover, penalty) + survive, most)
        lost = np.maximum(both - least, 0.0)
        for f in np.argsort(-base, axis=0, kind="stable"):  # what the minimum loses in its largest domains counts
            here = np.arange(len(f))
            room = np.maximum(k * survive - lost.sum(axis=0), 0.0)
            lost[f, here] = np.minimum(lost[f, here] + room, np.maximum(survive, lost[f, here]))
        gain = np.where(both >= survive, worth(both, lost), -np.inf)
        best, v = np.maximum(best, gain), np.where(gain > best, both, v)
    return float(best.sum() + (count * own).sum()), v


def _worth_of_missing(
    problem: Problem, rules: Rules, t: int, machine: FloatArray, watt: FloatArray, price: FloatArray, k: int
) -> FloatArray:
    """[H] for types without stock, whose rows say nothing: what the first machine would save."""
    worth = np.zeros(problem.n_servers)
    gone = problem.stocks[t] == 0
    if k or not gone.any():
        return worth
    for r in np.flatnonzero(gone[problem.types]):
        h = problem.types[r]
        able = np.flatnonzero(problem.qps[r] > 0)
        cost = problem.pair_cost(t, np.full(len(able), r), able) + watt[h] * problem.power_w[r, able] + machine[h]
        saved = (problem.qps[r, able] * price[able] - cost).max(initial=0.0)
        worth[h] = max(worth[h], float(saved))
    return worth
