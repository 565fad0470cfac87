"""Whole machines and their bound: laws on fleets of every kind, and how good they are beside the slow twins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hercules_fast import _core
from hercules_fast.provisioning import (
    Assignment,
    LinearSolution,
    Problem,
    largest_scale,
    solve_linear,
    whole_bound,
    whole_machines,
)
from tests.reference import provisioning as slow


@st.composite
def fleets(draw, max_rows=6, max_workloads=5, max_stock=60):
    """Several rows per type, stock over time, costs, groups, ties, overload, types and workloads without use."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_r, n_w, n_t = draw(st.integers(1, max_rows)), draw(st.integers(1, max_workloads)), draw(st.integers(1, 3))
    n_h = draw(st.integers(1, n_r))
    qps = rng.uniform(5, 100, (n_r, n_w)) * (rng.random((n_r, n_w)) < 0.85)
    if draw(st.booleans()):
        qps = np.where(qps > 0, 8.0, 0.0)
    row_type = np.concatenate([np.arange(n_h), rng.integers(0, n_h, n_r - n_h)])
    stock = rng.integers(0, max_stock + 1, (n_t, n_h)) * (rng.random((n_t, n_h)) < 0.9)
    share = draw(st.sampled_from([0.0, 0.2, 0.6, 0.9, 1.0, 1.3, 5.0]))
    demand = (qps * stock[0, row_type][:, None]).sum(axis=0) / n_w * share * rng.uniform(0.2, 1.0, (n_t, n_w))
    demand[demand < 1e-6] = 0.0
    costs, groups = draw(st.booleans()), draw(st.booleans())
    return Problem(
        qps=qps,
        power_w=np.full(qps.shape, 250.0) if draw(st.booleans()) else rng.uniform(50, 900, qps.shape),
        demand_qps=demand,
        stock=stock if draw(st.booleans()) else stock[0],
        row_type=row_type,
        watt_cost=rng.uniform(0.1, 3.0, (n_t, n_h)) if costs else None,
        machine_cost=rng.uniform(0.0, 200.0, (n_t, n_h)) if costs else None,
        group=rng.integers(1, 4, qps.shape) if groups else None,
    )


def network(problem):
    """The linear optimum by the core, which knows rows, costs and stock over time."""
    columns, _ = _core.provision_linear(
        problem.qps,
        problem.power_w,
        problem.types,
        problem.n_servers,
        problem.demand_qps,
        np.atleast_2d(problem.stock),
        None,
        problem.watt_cost,
        problem.machine_cost,
    )
    shape = (problem.n_intervals, problem.n_rows, problem.n_workloads)
    places = Assignment(shape=shape, **{k: columns[k] for k in ("starts", "row", "workload", "machines")})
    return LinearSolution(
        assignment=places,
        power_w=places.total(problem.power_w),
        shed_qps=columns["shed"],
        objective_w=columns["objective"],
        penalty_w_per_qps=columns["penalty"],
        stock_price_w=columns["stock_price"],
        load_price_w=columns["load_price"],
        bound_w=columns["bound"],
        solver=("network",) * problem.n_intervals,
    )


def costs_of(problem, plan):
    """[T] cost of dense ``plan``."""
    return np.array([(plan[t] * problem.cost(t)).sum() for t in range(problem.n_intervals)])


@given(fleets())
def test_a_plan_keeps_every_rule(problem):
    linear = network(problem)
    answer = whole_machines(problem, linear)
    plan = answer.dense()
    assert plan.dtype == np.int64 and (answer.machines > 0).all()
    assert not plan[:, problem.qps <= 0].any()
    used = answer.per_type(problem.types, problem.n_servers)
    assert (used <= problem.stock).all()
    if problem.group is not None:
        assert not (plan % problem.group).any()
    short = problem.shortfall_qps(plan)
    objective = costs_of(problem, plan) + (linear.penalty_w_per_qps * short).sum(axis=1)
    scale = objective + (problem.stock * linear.stock_price_w).sum(axis=1) + 1e-9
    bound = whole_bound(problem, linear)
    assert (objective >= bound - 1e-9 * scale).all()
    assert (bound >= linear.bound_w - 2e-9 * scale).all()
    if problem.group is None:  # the promise: the fractional places at most, where all of them fit rounded up
        up = np.ceil(linear.servers - 1e-7)
        types = np.zeros((problem.n_servers, problem.n_rows))
        types[problem.types, np.arange(problem.n_rows)] = 1.0
        fits = (np.einsum("hr,trw->th", types, up) <= problem.stock).all(axis=1) & ~linear.shed_qps.any(axis=1)
        most = np.maximum(costs_of(problem, up), costs_of(problem, linear.servers)) * (1 + 1e-6) + 1e-6
        assert not short[fits].any()
        assert (costs_of(problem, plan) <= most)[fits].all()


@given(fleets())
def test_threads_never_change_an_answer(problem):
    linear = network(problem)
    one = whole_machines(problem, linear, threads=1)
    for threads in (2, 3):
        again = whole_machines(problem, linear, threads=threads)
        for name in ("starts", "row", "workload", "machines"):
            assert getattr(one, name).tobytes() == getattr(again, name).tobytes()
        assert (
            whole_bound(problem, linear, threads=1).tobytes() == whole_bound(problem, linear, threads=threads).tobytes()
        )


@given(fleets(max_rows=4, max_workloads=3, max_stock=6))
def test_the_bound_is_every_workload_by_itself(problem):
    # More counts are too many for the twin.
    assume((problem.demand_qps / np.where(problem.qps > 0, problem.qps, 1e9).min(axis=0)).max() <= 9)
    linear = network(problem)
    bound = whole_bound(problem, linear)
    for t, demand in enumerate(problem.demand_qps):
        stock = np.atleast_2d(problem.stock)[t if problem.stock.ndim == 2 else 0]
        expected = slow.whole_bound(
            problem.qps.tolist(),
            problem.cost(t).tolist(),
            demand.tolist(),
            stock[problem.types].tolist(),
            linear.stock_price_w[t][problem.types].tolist(),
            linear.penalty_w_per_qps[t].tolist(),
            None if problem.group is None else problem.group.tolist(),
        )
        # The twin counts the worth of the stock once per row.
        worth = (stock * linear.stock_price_w[t]).sum()
        per_row = (stock * linear.stock_price_w[t])[problem.types].sum()
        assert bound[t] == pytest.approx(expected + per_row - worth, rel=1e-9, abs=1e-6 * (1.0 + worth))


def test_nearly_all_tiny_fleets_are_answered_at_their_optimum():
    """Every plan enumerated, loads that fit and loads that do not: 99 in 100 optimal in shed and then in power."""
    rng = np.random.default_rng(5)
    worst, optimal, n = 0.0, 0, 250
    for _ in range(n):
        shape = [(1, 3), (2, 2), (2, 3), (3, 2), (3, 1)][rng.integers(5)]
        problem = Problem(
            qps=rng.uniform(5, 60, shape) * (rng.random(shape) < 0.85),
            power_w=rng.uniform(100, 500, shape),
            demand_qps=rng.uniform(5, rng.choice([60, 110, 200]), (1, shape[1])),
            stock=rng.integers(0, 4, shape[0]),
        )
        linear = solve_linear(problem)
        weight = linear.penalty_w_per_qps[0].tolist()
        arguments = (problem.qps.tolist(), problem.power_w.tolist(), problem.demand_qps[0].tolist())
        shed, power = slow.whole_optimum(*arguments, problem.stock.tolist(), weight)
        ours = slow.plan_cost(whole_machines(problem, linear).dense()[0].tolist(), *arguments, weight)
        assert ours >= (shed * (1 - 1e-12), power * (1 - 1e-12)) or ours[0] > shed
        if ours[0] <= shed * (1 + 1e-9) and ours[1] <= power * (1 + 1e-9):
            optimal += 1
        elif ours[0] <= shed * (1 + 1e-9):
            worst = max(worst, ours[1] / power - 1.0)
    assert optimal >= 0.99 * n
    assert worst < 0.05


def mixed_fleet(n_h, n_w, seed, share=0.75):
    """Types of unlike speed and power, workloads of unlike scale; demand at ``share`` of what the stock can carry."""
    rng = np.random.default_rng(seed)
    stock = rng.integers(20, 401, n_h)
    scale, speed = 10.0 ** rng.uniform(2, 4, n_w), np.exp(rng.uniform(np.log(0.5), np.log(8.0), n_h))
    qps = scale * speed[:, None] * rng.lognormal(0.0, 0.5, (n_h, n_w))
    power = rng.uniform(120, 700, n_h)[:, None] * rng.uniform(0.6, 1.0, (n_h, n_w))
    shape = rng.lognormal(0.0, 0.5, n_w) * qps.mean(axis=0)
    demand = shape * (share * largest_scale(qps, shape, stock))
    return Problem(qps=qps, power_w=power, demand_qps=demand[None], stock=stock)


@pytest.mark.parametrize(("size", "seeds", "within"), [((10, 6), 8, 0.004), ((30, 20), 4, 0.003), ((60, 80), 2, 0.003)])
def test_plans_are_near_their_bound_and_far_below_greedy_repair(size, seeds, within):
    ours, theirs = [], []
    for seed in range(seeds):
        problem = mixed_fleet(*size, seed)
        linear = solve_linear(problem)
        plan = whole_machines(problem, linear).dense()
        assert not problem.shortfall_qps(plan).any()
        repaired = slow.round_and_repair(
            linear.servers[0].tolist(),
            problem.qps.tolist(),
            problem.power_w.tolist(),
            problem.demand_qps[0].tolist(),
            problem.stock.tolist(),
            linear.stock_price_w[0].tolist(),
        )
        bound = whole_bound(problem, linear)[0]
        ours.append(problem.total_power_w(plan)[0] / bound - 1.0)
        theirs.append(problem.total_power_w(np.array(repaired)) / bound - 1.0)
    assert np.mean(ours) < within
    assert np.mean(ours) < 0.4 * np.mean(theirs)


def test_overload_sheds_what_must_be_shed():
    """Three tenths more load than the stock carries: whole machines serve nearly as much of it as fractional ones."""
    problem = mixed_fleet(12, 10, 3, share=1.3)
    linear = solve_linear(problem)
    plan = whole_machines(problem, linear).dense()
    weight = linear.penalty_w_per_qps[0]
    shed, least = (weight * problem.shortfall_qps(plan)[0]).sum(), (weight * linear.shed_qps[0]).sum()
    served = (weight * problem.demand_qps[0]).sum() - least
    assert least * (1 - 1e-9) <= shed <= least + 0.005 * served


def test_an_interrupt_returns_the_intervals_that_are_done():
    problem = mixed_fleet(40, 60, 0)
    linear = solve_linear(problem)
    n, places = 400, linear.assignment

    def stop(done, total):
        assert 0 < done <= total == n
        raise KeyboardInterrupt

    columns, interrupted = _core.provision_whole(
        problem.qps,
        problem.power_w,
        problem.types,
        problem.n_servers,
        np.repeat(problem.demand_qps, n, axis=0),
        problem.stock[None],
        np.repeat(linear.penalty_w_per_qps, n, axis=0),
        np.arange(n + 1) * len(places.row),
        np.tile(places.row, n),
        np.tile(places.workload, n),
        np.tile(places.machines, n),
        np.repeat(linear.stock_price_w, n, axis=0),
        threads=1,
        progress=stop,
    )
    assert interrupted
    done = len(columns["solved"])
    assert 0 < done < n
    assert len(columns["starts"]) == done + 1
    whole = whole_machines(problem, linear)
    first = slice(columns["starts"][0], columns["starts"][1])
    assert np.array_equal(columns["machines"][first], whole.machines)

    with pytest.raises(KeyboardInterrupt):
        many = dataclasses.replace(problem, demand_qps=np.repeat(problem.demand_qps, 50, axis=0))
        whole_machines(many, solve_linear(many), progress=stop_at_once)


def stop_at_once(done, total):
    raise KeyboardInterrupt
