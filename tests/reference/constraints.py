"""Slow twin of provisioning under constraints: every whole-machine plan of every interval, in every order.

The rules are written out one scalar after the other. Instances of a few machines only.
"""

from __future__ import annotations

import itertools
import math

from tests.reference.provisioning import COVER_TOL

ROOM = 1.0 + 1e-9


def whole_optimum(
    qps, power_w, demand, stock, weight, *, caps=(), domain=None, k=0, switching=None, penalty=None, minimum=None
):
    """(least weighted uncovered load, least cost at that) over all plans of all intervals, and the best plan.

    ``demand[t][w]``; ``caps``: (types, watts [T]); ``domain[h]`` and ``k``: uncovered load counts once as it is and
    once after the worst failure of k domains; ``switching``: dict of cost_on[h], ramp[h], min_up[h] and initial[h] or
    None; ``minimum[h][w]`` machines that are on in any case. With ``penalty[w]`` both are one figure: (0, cost +
    penalty . uncovered).
    """
    n_w = len(demand[0])
    per_type = []
    for rates, machines in zip(qps, stock, strict=True):
        most = [range(machines + 1) if rate > 0 else range(1) for rate in rates]
        per_type.append([c for c in itertools.product(*most) if sum(c) <= machines])
    plans = list(itertools.product(*per_type))
    options = []
    for t, asked in enumerate(demand):
        options.append([])
        for plan in plans:
            if not keeps_caps(plan, power_w, caps, t):
                continue
            if minimum is not None and any(
                a < b for x, y in zip(plan, minimum, strict=True) for a, b in zip(x, y, strict=True)
            ):
                continue
            missing = uncovered(plan, qps, asked, domain, k)
            watts = sum(plan[h][w] * power_w[h][w] for h in range(len(stock)) for w in range(n_w))
            if penalty is None:
                options[t].append((sum(a * b for a, b in zip(weight, missing, strict=True)), watts, plan))
            else:
                options[t].append((0.0, watts + sum(a * b for a, b in zip(penalty, missing, strict=True)), plan))
    if switching is None:
        best = [min(o) for o in options]
        return sum(b[0] for b in best), sum(b[1] for b in best), [b[2] for b in best]
    # Of plans with the same machines on per type only the best can be part of an answer.
    for t, option in enumerate(options):
        by_count = {}
        for shed, watts, plan in option:
            count = tuple(sum(counts) for counts in plan)
            by_count[count] = min(by_count.get(count, (math.inf, math.inf, None)), (shed, watts, plan))
        options[t] = list(by_count.values())
    best = (math.inf, math.inf, None)
    for path in itertools.product(*options):
        cost = switching_cost([p[2] for p in path], **switching)
        if cost < math.inf:
            best = min(best, (sum(p[0] for p in path), sum(p[1] for p in path) + cost, [p[2] for p in path]))
    return best


def keeps_caps(plan, power_w, caps, t):
    for types, limit in caps:
        if sum(plan[h][w] * power_w[h][w] for h in types for w in range(len(plan[h]))) > limit[t] * ROOM:
            return False
    return True


def uncovered(plan, qps, asked, domain=None, k=0):
    """Load [W] that is missing, plus what is missing when those k domains fail that hurt the workload most."""
    missing = []
    for w, wanted in enumerate(asked):
        served = [plan[h][w] * qps[h][w] for h in range(len(plan))]
        total = lack(wanted, sum(served))
        if k:
            lost = itertools.combinations(sorted(set(domain)), k)
            total += max(lack(wanted, sum(s for h, s in enumerate(served) if domain[h] not in f)) for f in lost)
        missing.append(total)
    return missing


def lack(wanted, served):
    return wanted - served if wanted - served > COVER_TOL * wanted else 0.0


def switching_cost(path, cost_on, ramp, min_up, initial):
    """Cost of switching machines on along a path of plans; infinite where it breaks ramp or minimum up-time."""
    on = [[sum(counts) for counts in plan] for plan in path]
    before = on[0] if initial is None else initial
    switched, cost = [], 0.0
    for t, now in enumerate(on):
        switched.append([max(0, a - b) for a, b in zip(now, before, strict=True)])
        for h, count in enumerate(switched[-1]):
            if count > ramp[h] or now[h] < sum(s[h] for s in switched[max(0, t - min_up[h] + 1) :]):
                return math.inf
            cost += cost_on[h] * count
        before = now
    return cost
