"""Slow twins of provisioning: exact rational simplex, every integer plan, one-machine-at-a-time baselines.

Read these first: each is the rule itself, one scalar step after the other. The fast versions must agree.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

COVER_TOL = 1e-9
MASK = (1 << 64) - 1


def linear_optimum(qps, power_w, demand, stock, weight):
    """(least weighted shed, least power at that shed) of the fractional problem, exact.

    Tableau simplex over fractions with Bland's rule. Shed columns are the first basis, so no phase one is needed;
    their cost outweighs any power, which makes the optimum lexicographic.
    """
    n_h, n_w = len(stock), len(demand)
    pairs = [(h, w) for h in range(n_h) for w in range(n_w) if qps[h][w] > 0]
    dear = Fraction(10) ** 30
    n = len(pairs)
    # Columns: pairs, shed per workload, surplus per workload, idle machines per type, right-hand side.
    rows = []
    for w in range(n_w):
        row = [Fraction(qps[h][w]) if v == w else Fraction(0) for h, v in pairs]
        row += [Fraction(int(i == w)) for i in range(n_w)] + [Fraction(-int(i == w)) for i in range(n_w)]
        rows.append(row + [Fraction(0)] * n_h + [Fraction(demand[w])])
    for h in range(n_h):
        row = [Fraction(int(g == h)) for g, _ in pairs] + [Fraction(0)] * (2 * n_w)
        rows.append(row + [Fraction(int(i == h)) for i in range(n_h)] + [Fraction(int(stock[h]))])
    cost = [Fraction(power_w[h][w]) for h, w in pairs] + [dear * Fraction(x) for x in weight]
    cost += [Fraction(0)] * (n_w + n_h)
    basis = [n + w for w in range(n_w)] + [n + 2 * n_w + h for h in range(n_h)]
    while True:
        reduced = [c - sum(cost[b] * r[j] for b, r in zip(basis, rows, strict=True)) for j, c in enumerate(cost)]
        enter = next((j for j, r in enumerate(reduced) if r < 0), None)
        if enter is None:
            break
        _, _, leave = min((r[-1] / r[enter], basis[i], i) for i, r in enumerate(rows) if r[enter] > 0)
        pivot = rows[leave][enter]
        rows[leave] = [x / pivot for x in rows[leave]]
        for i, row in enumerate(rows):
            if i != leave and row[enter]:
                factor = row[enter]
                rows[i] = [x - factor * y for x, y in zip(row, rows[leave], strict=True)]
        basis[leave] = enter
    value = {b: r[-1] for b, r in zip(basis, rows, strict=True)}
    shed = sum(Fraction(weight[w]) * value.get(n + w, 0) for w in range(n_w))
    power = sum(Fraction(power_w[h][w]) * value.get(j, 0) for j, (h, w) in enumerate(pairs))
    return float(shed), float(power)


def whole_optimum(qps, power_w, demand, stock, weight):
    """(least weighted shed, least power at that shed) over every whole-machine plan; tiny instances only."""
    n_w = len(demand)
    per_type = [[c for c in itertools.product(range(s + 1), repeat=n_w) if sum(c) <= s] for s in stock]
    best = (math.inf, math.inf)
    for plan in itertools.product(*per_type):
        best = min(best, plan_cost(plan, qps, power_w, demand, weight))
    return best


def plan_cost(plan, qps, power_w, demand, weight):
    """(weighted shed, power) of whole machines ``plan[h][w]``."""
    shed = power = 0.0
    for w, asked in enumerate(demand):
        capacity = sum(plan[h][w] * qps[h][w] for h in range(len(plan)))
        missing = asked - capacity
        shed += weight[w] * missing if missing > COVER_TOL * asked else 0.0
        power += sum(plan[h][w] * power_w[h][w] for h in range(len(plan)))
    return shed, power


def bound(qps, power_w, demand, stock, u, penalty):
    """g(u) = sum_w d_w min(penalty_w, min_h (P + u) / Q) - sum_h A_h u_h, for one interval."""
    total = 0.0
    for w, asked in enumerate(demand):
        prices = [(power_w[h][w] + u[h]) / qps[h][w] for h in range(len(stock)) if qps[h][w] > 0 and stock[h] > 0]
        total += asked * min([penalty[w], *prices])
    return total - sum(a * x for a, x in zip(stock, u, strict=True))


def greedy(qps, power_w, demand, stock, order, rank, before=None):
    """Machines ``plan[h][w]``: each workload in turn takes one machine at a time of its best type with stock left.

    ``before``: the plan of the interval before; a workload first gives back, worst type first and one at a time, what
    its demand can spare, and what the stock no longer holds is taken from the last workload first.
    """
    n_h = len(stock)
    plan = [[0] * len(demand) for _ in stock] if before is None else [list(row) for row in before]
    score = {
        w: [
            -(q[w] / p[w] if rank == "efficiency" else q[w]) if q[w] else math.inf
            for q, p in zip(qps, power_w, strict=True)
        ]
        for w in order
    }
    for w in order:
        for h in sorted(range(n_h), key=lambda h: score[w][h])[::-1]:
            while plan[h][w]:
                left = sum(plan[g][w] * qps[g][w] for g in range(n_h)) - qps[h][w]
                if left < demand[w] * (1 - COVER_TOL):
                    break
                plan[h][w] -= 1
    for h in range(n_h):
        for w in list(order)[::-1]:
            while plan[h][w] and sum(plan[h]) > stock[h]:
                plan[h][w] -= 1
    free = [a - sum(row) for a, row in zip(stock, plan, strict=True)]
    for w in order:
        able = [h for h in range(n_h) if qps[h][w] > 0]
        able.sort(key=lambda h: score[w][h])
        short = demand[w] - sum(plan[h][w] * qps[h][w] for h in range(n_h))
        for h in able:
            while free[h] and short > COVER_TOL * demand[w]:
                plan[h][w] += 1
                free[h] -= 1
                short -= qps[h][w]
    return plan


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def random_bits(seed, *counters):
    state = mix(seed)
    for counter in counters:
        state = mix((state + (counter + 1) * 0x9E3779B97F4A7C15) & MASK)
    return state


def oblivious(qps, demand, stock, seed, lane, all_types=False):
    """Machines ``plan[h][w]``: round robin over a random order, type drawn in proportion to its free machines.

    ``all_types``: also such as cannot serve the workload, of those that can serve any, while one that can is free.
    """
    n_h, n_w = len(stock), len(demand)
    order = sorted(range(n_w), key=lambda i: random_bits(seed, 1, lane, i))
    free, short = list(stock), list(demand)
    plan = [[0] * n_w for _ in stock]
    place = draw = 0
    while any(s > 0 for s in short):
        while short[order[place]] <= 0:
            place = (place + 1) % n_w
        w = order[place]
        urn = [h for h in range(n_h) if (any(qps[h]) if all_types else qps[h][w] > 0) for _ in range(free[h])]
        if any(qps[h][w] > 0 for h in urn):
            h = urn[((random_bits(seed, 2, lane, draw) >> 32) * len(urn)) >> 32]
            plan[h][w] += 1
            free[h] -= 1
            short[w] -= qps[h][w]
            if short[w] <= COVER_TOL * demand[w]:
                short[w] = 0.0
            place = (place + 1) % n_w
        else:
            short[w] = 0.0
        draw += 1
    return plan


def round_and_repair(fractional, qps, power_w, demand, stock, u):
    """Whole machines ``plan[h][w]``: round down, then one machine at a time, then drop what the surplus covers.

    The workload that misses the largest part of its demand is next; it takes the free type with the least
    (power + u) per q/s of shortfall covered. Stock is looked at before every step.
    """
    n_h, n_w = len(stock), len(demand)
    plan = [[math.floor(fractional[h][w] + 1e-7) for w in range(n_w)] for h in range(n_h)]

    def missing(w):
        short = demand[w] - sum(plan[h][w] * qps[h][w] for h in range(n_h))
        return short if short > COVER_TOL * demand[w] else 0.0

    open_ = set(range(n_w))
    while waiting := [w for w in open_ if missing(w) > 0]:
        w = max(waiting, key=lambda w: (missing(w) / demand[w], -w))
        able = [h for h in range(n_h) if qps[h][w] > 0 and sum(plan[h]) < stock[h]]
        if able:
            plan[min(able, key=lambda h: (power_w[h][w] + u[h]) / min(qps[h][w], missing(w)))][w] += 1
        else:
            open_.discard(w)
    for w in range(n_w):
        for h in sorted(range(n_h), key=lambda h: -power_w[h][w]):
            while plan[h][w] and not missing(w):
                plan[h][w] -= 1
                if missing(w):
                    plan[h][w] += 1
                    break
    return plan


def whole_bound(qps, cost, demand, stock, u, penalty, group=None):
    """Bound on plans in whole machines: the best of all counts for each workload alone, less the worth of the stock.

    ``stock`` counts what is there; a type without any is not used. For demands of few machines only.
    """
    total = -sum(a * x for a, x in zip(stock, u, strict=True))
    for w, asked in enumerate(demand):
        needed = asked * (1.0 - COVER_TOL)
        able = [h for h in range(len(stock)) if qps[h][w] > 0 and stock[h] > 0]
        size = {h: group[h][w] if group else 1 for h in able}
        counts = [range(0, size[h] * math.ceil(needed / (size[h] * qps[h][w])) + 1, size[h]) for h in able]
        total += min(
            sum(n * (cost[h][w] + u[h]) for n, h in zip(c, able, strict=True))
            + penalty[w] * max(0.0, needed - sum(n * qps[h][w] for n, h in zip(c, able, strict=True)))
            for c in itertools.product(*counts)
        )
    return total
