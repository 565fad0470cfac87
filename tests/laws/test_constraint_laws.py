"""What must hold of every plan under constraints: they hold, they cost, and the bound lies below whatever was found."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast.provisioning import Problem, master, solve_linear
from hercules_fast.provisioning.certificate import Duals, certificate
from hercules_fast.provisioning.constrained import solve_constrained
from hercules_fast.provisioning.constraints import (
    FailureDomains,
    FairShare,
    Hysteresis,
    PowerCap,
    Switching,
    resolve,
    surviving_qps,
)
from hercules_fast.provisioning.relaxed import shed_penalties

seeds = st.integers(0, 2**32)
NAMES = tuple("abcdef")
DOMAINS = dict(zip(NAMES, "xxyyzz", strict=True))


def day(seed, n_h=4, n_w=3, n_t=6, share=0.5, most=30, rows=1, vary=False):
    """A load that rises and falls; some pairs not eligible. ``vary``: stock, watts and machines change in price."""
    rng = np.random.default_rng(seed)
    n_r = n_h * rows
    qps = rng.uniform(10, 100, (n_r, n_w)) * (rng.random((n_r, n_w)) < 0.85)
    stock = rng.integers(1, most, n_h)
    best = qps.reshape(rows, n_h, n_w).max(axis=0)
    wave = 0.6 + 0.4 * np.sin(np.arange(n_t)[:, None] + rng.uniform(0, 6, n_w))
    demand = share * wave * (best * stock[:, None]).sum(axis=0) / n_w
    more = {}
    if vary:
        more = {
            "stock": np.maximum(stock - rng.integers(0, 3, (n_t, n_h)), 0),
            "watt_cost": rng.uniform(0.1, 5.0, (n_t, n_h)),
            "machine_cost": rng.uniform(0.0, 300.0, (n_t, n_h)),
        }
    return Problem(
        **{
            "qps": qps,
            "power_w": rng.uniform(100, 500, (n_r, n_w)),
            "demand_qps": demand,
            "stock": stock,
            "servers": NAMES[:n_h],
            "row_type": np.tile(np.arange(n_h), rows) if rows > 1 else None,
        }
        | more
    )


def bound_by_hand(problem, t, u, penalty):
    """g(u) of one interval, one pair after the other."""
    total = -sum(float(problem.stocks[t, h]) * u[h] for h in range(problem.n_servers))
    for w in range(problem.n_workloads):
        price = penalty[w]
        for r in range(problem.n_rows):
            h = problem.types[r]
            if problem.qps[r, w] > 0 and problem.stocks[t, h] > 0:
                cost = problem.power_w[r, w]
                cost = cost * (1.0 if problem.watt_cost is None else problem.watt_cost[t, h])
                cost = cost + (0.0 if problem.machine_cost is None else problem.machine_cost[t, h])
                price = min(price, (cost + u[h]) / problem.qps[r, w])
        total += problem.demand_qps[t, w] * price
    return total


@given(seeds, st.integers(1, 3), st.booleans(), st.booleans(), st.sampled_from([0.5, 0.9, 2.0]))
def test_the_linear_program_is_certified_by_hand(seed, rows, vary, fixed, share):
    """Rows that share a stock, stock and prices that change, penalties of the caller: feasible, and bounds meet."""
    problem = day(seed, rows=rows, vary=vary, share=share)
    penalty = shed_penalties(problem) * np.random.default_rng(seed).uniform(0.01, 3.0) if fixed else None
    answer = solve_linear(problem, penalty)
    if fixed:
        assert np.array_equal(answer.penalty_w_per_qps, penalty)
    on = answer.assignment.per_type(problem.types, problem.n_servers)
    assert (on <= problem.stocks * (1 + 1e-9) + 1e-9).all()
    short = problem.demand_qps - answer.assignment.per_workload(problem.qps) - answer.shed_qps
    assert (short <= 2e-9 * problem.demand_qps).all()
    for t in range(problem.n_intervals):
        cost = float((answer.servers[t] * problem.cost(t)).sum())
        objective = cost + float((answer.penalty_w_per_qps[t] * answer.shed_qps[t]).sum())
        assert answer.objective_w[t] == pytest.approx(objective, rel=1e-12)
        bound = bound_by_hand(problem, t, answer.stock_price_w[t], answer.penalty_w_per_qps[t])
        assert answer.bound_w[t] == pytest.approx(bound, rel=1e-9, abs=1e-9 * objective)
        assert bound == pytest.approx(objective, rel=1e-8)


@given(seeds, st.booleans(), st.sampled_from([0.5, 0.95, 1.5]))
def test_a_pool_of_columns_is_as_good_as_all(seed, vary, share):
    problem = day(seed, n_h=6, n_w=4, n_t=3, rows=3, vary=vary, share=share)
    constraints = [
        PowerCap(name="rack", servers=("a", "b"), limit_w=2000.0),
        FailureDomains(domain_of=DOMAINS),
        Switching(cost_on=50.0, horizon=3),
    ]
    every, tied = solve_linear(problem), solve_constrained(problem, constraints, integer=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(master, "ALL_COLUMNS", 0)
        patch.setattr(master, "FIRST_COLUMNS", 1)
        patch.setattr(master, "MORE_COLUMNS", 1)
        pool, pool_tied = solve_linear(problem), solve_constrained(problem, constraints, integer=False)
    assert np.abs(pool.gap).max() <= 1e-9
    assert pool.objective_w == pytest.approx(every.objective_w, rel=1e-8)
    assert pool_tied.objective_w.sum() == pytest.approx(tied.objective_w.sum(), rel=1e-8)
    assert np.abs(pool_tied.gap).max() <= 1e-8


@given(seeds, st.integers(1, 2))
def test_interior_points_at_the_start_end_at_the_same_optimum(seed, k):
    problem = day(seed, n_h=6, n_t=2, rows=2)
    rule = FailureDomains(domain_of=DOMAINS, k=k)
    plain = solve_constrained(problem, [rule], integer=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(master, "ALL_COLUMNS", 0)
        patch.setattr(master, "_INTERIOR_ROWS", 0)
        interior = solve_constrained(problem, [rule], integer=False)
    assert np.abs(interior.gap).max() <= 1e-8
    assert interior.objective_w == pytest.approx(plain.objective_w, rel=1e-8)


@given(seeds)
def test_prices_that_choose_the_pool_do_not_change_the_optimum(seed):
    problem = day(seed, n_h=6, n_w=4, n_t=2)
    rough = np.random.default_rng(seed).uniform(0, 1000, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(master, "ALL_COLUMNS", 0)
        patch.setattr(master, "FIRST_COLUMNS", 1)
        pool = solve_linear(problem, prices=rough)
    assert pool.objective_w == pytest.approx(solve_linear(problem).objective_w, rel=1e-9)


# -- each constraint costs ----------------------------------------------------------------------------------------


@given(seeds, st.floats(0.2, 1.5), st.sampled_from([0.5, 1.2]))
def test_a_cap_never_lowers_cost(seed, part, share):
    problem = day(seed, share=share)
    penalty = shed_penalties(problem)
    free = solve_constrained(problem, [], integer=False, penalty=penalty)
    limit = np.maximum(part * (free.servers * problem.power_w)[:, :2].sum(axis=(1, 2)), 1.0)
    cap = PowerCap(name="rack", servers=("a", "b"), limit_w=limit)
    capped = solve_constrained(problem, [cap], integer=False, penalty=penalty)
    assert (capped.objective_w >= free.objective_w * (1 - 1e-9)).all()
    drawn = (capped.servers * problem.power_w)[:, :2].sum(axis=(1, 2))
    assert (drawn <= limit * (1 + 1e-7)).all()
    if part >= 1.0:
        assert capped.objective_w == pytest.approx(free.objective_w, rel=1e-9)
        assert not any("power cap" in words for words in capped.binding if part > 1.01)


@given(seeds)
def test_the_price_of_a_cap_is_what_a_watt_more_saves(seed):
    problem = day(seed, n_t=1)
    penalty = shed_penalties(problem)
    free = solve_constrained(problem, [], integer=False, penalty=penalty)
    limit = max(1.0, 0.7 * float((free.servers * problem.power_w)[0, :2].sum()))

    def capped(watts):
        cap = PowerCap(name="rack", servers=("a", "b"), limit_w=watts)
        return solve_constrained(problem, [cap], integer=False, penalty=penalty)

    less, here, more = (capped(limit + step) for step in (-0.5, 0.0, 0.5))
    price = float(here.constrained.cap_price[0, 0])
    assert float(here.objective_w[0] - more.objective_w[0]) <= 0.5 * price + 1e-6 * float(here.objective_w[0])
    assert float(less.objective_w[0] - here.objective_w[0]) >= 0.5 * price - 1e-6 * float(here.objective_w[0])


@given(seeds, st.sampled_from([0.2, 0.5]))
def test_more_failures_never_cost_less_and_safe_costs_most(seed, share):
    problem = day(seed, n_h=6, share=share)
    penalty = shed_penalties(problem)
    costs = [solve_constrained(problem, [], integer=False, penalty=penalty)]
    costs += [
        solve_constrained(problem, [FailureDomains(domain_of=DOMAINS, k=k)], integer=False, penalty=penalty)
        for k in (1, 2)
    ]
    for fewer, more in itertools.pairwise(costs):
        assert (more.objective_w >= fewer.objective_w * (1 - 1e-9)).all()
    for k, exact in enumerate(costs[1:], 1):
        rule = FailureDomains(domain_of=DOMAINS, k=k, mode="safe")
        safe = solve_constrained(problem, [rule], integer=False, penalty=penalty)
        covered = ~(safe.shed_qps + safe.exposed_qps).any(axis=1)
        assert (safe.power_w[covered] >= exact.objective_w[covered] * (1 - 1e-9)).all()
        capacity = np.zeros((problem.n_intervals, 3, problem.n_workloads))
        for f in range(3):
            part = slice(2 * f, 2 * f + 2)
            capacity[:, f] = (exact.servers * problem.qps)[:, part].sum(axis=1)
        missing = np.maximum(problem.demand_qps - surviving_qps(capacity, k), 0.0)
        assert exact.exposed_qps == pytest.approx(missing, abs=1e-6 * float(problem.demand_qps.max()))


@given(seeds, st.floats(1.0, 300.0), st.floats(1.1, 10.0))
def test_a_higher_switching_cost_never_raises_switches(seed, cost, factor):
    """Exactly so where the whole day is one window."""
    problem = day(seed)
    penalty = shed_penalties(problem)
    switches = [
        solve_constrained(problem, [Switching(cost_on=c, horizon=6)], integer=False, penalty=penalty).switched_on.sum()
        for c in (0.0, cost, cost * factor)
    ]
    assert switches[1] <= switches[0] * (1 + 1e-6) + 1e-6
    assert switches[2] <= switches[1] * (1 + 1e-6) + 1e-6


@given(seeds, st.booleans(), st.integers(2, 4), st.sampled_from([0.4, 1.1]))
def test_ramp_and_minimum_up_time_hold_over_a_rolling_horizon(seed, integer, horizon, share):
    problem = day(seed, n_h=3, n_w=2, n_t=8, most=8, share=share)
    rng = np.random.default_rng(seed)
    ramp, min_up = rng.integers(0, 4, 3), rng.integers(1, horizon + 1, 3)
    initial = np.minimum(rng.integers(0, 5, 3), problem.stock)
    switching = Switching(
        cost_on=20.0,
        ramp=ramp.tolist(),
        min_up_intervals=min_up.tolist(),
        horizon=horizon,
        initial=dict(zip("abc", initial.tolist(), strict=True)),
    )
    cap = PowerCap(name="site", servers=("a", "b", "c"), limit_w=3000.0)
    answer = solve_constrained(problem, [switching, cap], integer=integer)
    on = answer.servers.sum(axis=2)
    before = np.vstack([initial, on[:-1]])
    switched = np.maximum(on - before, 0)
    slack = 0 if integer else 1e-6
    assert answer.switched_on == pytest.approx(switched, abs=1e-9)
    assert (switched <= ramp + slack).all()
    assert (on <= problem.stock + slack).all()
    for t in range(8):
        for h in range(3):
            assert switched[max(0, t - min_up[h] + 1) : t + 1, h].sum() <= on[t, h] + slack
    assert (answer.power_w <= 3000.0 * (1 + 1e-6)).all()
    assert answer.objective_w.sum() >= answer.bound_w.sum() * (1 - 1e-9)


@given(seeds, st.sampled_from([0.3, 0.8, 1.3]), st.booleans())
def test_rounding_alone_keeps_every_rule(seed, share, grouped):
    """Without time for a search the rounding is the answer: within all limits, by hand, and above the bound."""
    problem = day(seed, n_h=6, n_t=2, share=share, rows=2)
    rng = np.random.default_rng(seed)
    if grouped:
        problem = dataclasses.replace(problem, group=rng.integers(1, 4, problem.qps.shape))
    limit = rng.uniform(500.0, 5000.0, 2)
    constraints = [
        PowerCap(name="rack", servers=("a", "b"), limit_w=limit),
        FailureDomains(domain_of=DOMAINS, k=1),
    ]
    answer = solve_constrained(problem, constraints, time_limit_s=0.0)
    servers = answer.servers
    assert (answer.sparse.per_type(problem.types, 6) <= problem.stock).all()
    under = np.isin(problem.types, [0, 1])
    assert ((servers * problem.power_w)[:, under].sum(axis=(1, 2)) <= limit * (1 + 1e-9)).all()
    if grouped:
        assert not (servers % problem.group).any()
    assert (answer.objective_w >= answer.bound_w * (1 - 1e-9)).all()
    searched = solve_constrained(problem, constraints)
    weight = shed_penalties(problem)
    ours, best = ((weight * (a.shed_qps + a.exposed_qps)).sum(axis=1) for a in (answer, searched))
    assert (best <= ours * (1 + 1e-6) + 1e-6).all()


def moves(servers):
    """Machines newly given to a pair, over time."""
    return np.maximum(np.diff(servers, axis=0), 0).sum()


@given(seeds, st.floats(0.0, 0.5), st.sampled_from([0.3, 0.7, 1.3]))
def test_hysteresis_never_moves_more_and_stays_near_the_bound(seed, tolerance, share):
    problem = day(seed, n_h=3, n_w=2, n_t=8, share=share)
    plain = solve_constrained(problem, [])
    kept = solve_constrained(problem, [Hysteresis(tolerance=tolerance)])
    assert moves(kept.servers) <= moves(plain.servers)
    assert (kept.servers.sum(axis=2) <= problem.stock).all()
    limit = np.maximum((1 + tolerance) * kept.bound_w, plain.objective_w)
    near = kept.objective_w <= limit * (1 + 1e-9)
    assert (near | (np.array(kept.status) != "kept")).all()
    weight = shed_penalties(problem)
    assert ((weight * kept.shed_qps).sum(axis=1) <= (weight * plain.shed_qps).sum(axis=1) * (1 + 1e-6) + 1e-6).all()


def test_hysteresis_keeps_something():
    problem = day(3, n_h=3, n_w=2, n_t=12, share=0.5)
    calm = 0.9 + 0.02 * np.sin(np.arange(12))[:, None]
    problem = dataclasses.replace(problem, demand_qps=problem.demand_qps[:1] * calm)
    kept = solve_constrained(problem, [Hysteresis(tolerance=0.5)])
    plain = solve_constrained(problem, [])
    assert kept.status.count("kept") >= 6
    assert kept.status[0] != "kept"
    assert moves(kept.servers) < moves(plain.servers)


@given(seeds, st.floats(1.2, 4.0))
def test_fair_share_raises_the_smallest_share(seed, share):
    problem = day(seed, share=share, n_t=2)
    fair = solve_constrained(problem, [FairShare()], integer=False)
    plain = solve_linear(problem)
    asked = problem.demand_qps > 0
    able = asked & problem.eligible.any(axis=0)
    worst = np.where(able, 1 - plain.shed_qps / np.where(asked, problem.demand_qps, 1.0), 1.0).min(axis=1)
    smallest = np.where(able, fair.constrained.served_share, 1.0).min(axis=1)
    assert (smallest >= worst - 1e-7).all()
    served = problem.demand_qps - fair.shed_qps
    assert (served >= fair.constrained.served_share * problem.demand_qps * (1 - 1e-6)).all()
    # Nobody who gets less than all can get more without another who gets no more than he losing.
    more = np.where(
        able & (fair.constrained.served_share < 1.0),
        np.minimum(1.0, fair.constrained.served_share * (1 + 1e-5)),
        fair.constrained.served_share,
    )
    for t in range(2):
        if (fair.constrained.served_share[t][able[t]] < 1.0).any():
            tight = dataclasses.replace(problem.interval(t), demand_qps=problem.demand_qps[t : t + 1] * more[t])
            assert solve_linear(tight).shed_qps.any()


# -- the certificate ----------------------------------------------------------------------------------------------


@given(seeds, st.floats(0.0, 3.0), st.booleans())
def test_any_prices_bound_any_plan_under_all_constraints(seed, size, warm):
    problem = day(seed, n_h=3, n_w=2, n_t=4, most=6)
    penalty = shed_penalties(problem)
    constraints = [
        PowerCap(name="rack", servers=("a", "b"), limit_w=1500.0),
        FailureDomains(domain_of={"a": "x", "b": "y", "c": "z"}),
        Switching(
            cost_on=40.0, ramp=3, min_up_intervals=2, horizon=4, initial={"a": 1, "b": 1, "c": 1} if warm else None
        ),
    ]
    answer = solve_constrained(problem, constraints, integer=False, penalty=penalty)
    assert answer.gap == pytest.approx(0.0, abs=1e-8)
    rng = np.random.default_rng(seed)
    duals = []
    for t in range(4):
        on = rng.uniform(0, 100 * size, 3) * (warm or t > 0)
        free = rng.uniform(0, 100 * size, 3), rng.uniform(0, size, 1), on, rng.uniform(0, 100 * size, 3)
        duals.append(Duals(*free, np.zeros(2), np.zeros(2)))
    bound, _, _ = certificate(problem, resolve(problem, constraints), duals, penalty)
    assert bound.sum() <= answer.objective_w.sum() * (1 + 1e-9)


def test_the_same_problem_gives_the_same_bytes():
    problem = day(5)
    constraints = [FailureDomains(domain_of={n: DOMAINS[n] for n in "abcd"}), Switching(cost_on=10.0, horizon=2)]
    first, second = solve_constrained(problem, constraints), solve_constrained(problem, constraints)
    assert np.array_equal(first.servers, second.servers)
    assert np.array_equal(first.bound_w, second.bound_w)


@pytest.mark.parametrize("seed", [1645, 2441, 8747])
def test_rates_of_one_workload_may_differ_by_a_billion(seed, monkeypatch):
    """Penalties then stand a billion times above the least cost, where HiGHS' simplex method may give up."""
    rng = np.random.default_rng(seed)
    n_h, n_w, n_t = rng.integers(1, 9), rng.integers(1, 9), rng.integers(1, 4)
    assert rng.random() < 0.3
    qps = 10.0 ** rng.uniform(-3, 9, (n_h, n_w)) * (rng.random((n_h, n_w)) < 0.8)
    power = rng.uniform(50, 900, (n_h, n_w))
    if rng.random() < 0.2:
        qps[:], power[:] = np.where(qps > 0, 8.0, 0.0), 250.0
    if rng.random() < 0.2 and n_h > 1:
        qps[1], power[1] = qps[0], power[0]
    stock = rng.integers(0, 10**6, n_h) * (rng.random(n_h) < 0.9)
    share = rng.choice([0, 0.1, 0.6, 0.95, 1, 1.3, 10]) * rng.uniform(0.2, 1, (n_t, n_w))
    demand = (qps * stock[:, None]).sum(axis=0) / n_w * share
    demand = np.minimum(np.where(demand < 1e-6, 0.0, demand), 1e12)
    problem = Problem(qps=qps, power_w=power, demand_qps=demand, stock=stock)
    monkeypatch.setattr(master, "ALL_COLUMNS", 0)
    monkeypatch.setattr(master, "FIRST_COLUMNS", 1)
    assert np.abs(solve_linear(problem).gap).max() <= 1e-9


def test_machines_that_must_stay_on_have_a_column_in_every_pool(monkeypatch):
    """Shed keeps coverage feasible; what must stay on under a cap needs the column of its least power as well.

    In the second window, whose last interval sheds, type a owes 3 machines to an interval whose cap only holds them at
    the 90 W of a workload that a would never be chosen for.
    """
    monkeypatch.setattr(master, "ALL_COLUMNS", 0)
    monkeypatch.setattr(master, "FIRST_COLUMNS", 1)
    problem = Problem(
        qps=[[100.0, 1.0], [0.0, 100.0]],
        power_w=[[200.0, 90.0], [0.0, 100.0]],
        demand_qps=[[300.0, 50.0], [300.0, 50.0], [0.0, 50.0], [1000.0, 50.0], [0.0, 50.0]],
        stock=[3, 3],
        servers=("a", "b"),
    )
    constraints = [
        PowerCap(name="a", servers=("a",), limit_w=[1e6, 1e6, 270.0, 1e6, 1e6]),
        Switching(min_up_intervals=3, horizon=3, initial={}),
    ]
    answer = solve_constrained(problem, constraints)
    assert answer.servers[:, 0].tolist() == [[3, 0], [3, 0], [0, 3], [3, 0], [0, 0]]
    assert answer.shed_qps[:, 0].tolist() == [0.0, 0.0, 0.0, 700.0, 0.0]
