"""Inverse questions against enumeration and against asking the question forwards."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.provisioning import (
    Problem,
    cheapest_purchase,
    largest_growth,
    one_more_server,
    solve_linear,
    whole_machines,
)
from hercules_fast.provisioning.inverse import hardest_intervals, relaxations
from hercules_fast.provisioning.problem import shortfall_qps

DUO = Problem(
    qps=[[100.0, 0.0], [300.0, 100.0]],
    power_w=[[200.0, 1.0], [300.0, 250.0]],
    demand_qps=[[600.0, 100.0], [900.0, 300.0], [100.0, 350.0]],
    stock=[3, 4],
    servers=("old", "new"),
    workloads=("ads", "feed"),
)


@st.composite
def problems(draw, max_intervals=3, max_stock=4):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_h, n_w, n_t = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, max_intervals))
    qps = rng.uniform(5, 60, (n_h, n_w)) * (rng.random((n_h, n_w)) < 0.8)
    return Problem(
        qps=qps,
        power_w=rng.uniform(100, 500, (n_h, n_w)),
        demand_qps=rng.uniform(1, 120, (n_t, n_w)) * (rng.random((n_t, n_w)) < 0.8),
        stock=rng.integers(0, max_stock + 1, n_h)
        if draw(st.booleans())
        else rng.integers(0, max_stock + 1, (n_t, n_h)),
    )


def coverable(problem: Problem) -> bool:
    """Whether every asking workload has a type that can run it, in stock or not."""
    return bool(((problem.qps > 0).any(axis=0) | ~(problem.demand_qps > 0).any(axis=0)).all())


def is_covered(problem: Problem) -> bool:
    """In whole machines, as the planner finds them."""
    capacity = whole_machines(problem, solve_linear(problem)).per_workload(problem.qps)
    return not shortfall_qps(problem.demand_qps, capacity).any()


# -- growth ----------------------------------------------------------------------------------------------------------


def test_growth_by_hand() -> None:
    """Interval 1: feed takes 3 new of 4; 3 old and 1 new carry 600 of the 900 ads. All alike: f (900 - 300) ..."""
    growth = largest_growth(DUO)
    # new: 3 f for feed, the rest 4 - 3 f for ads at 300 beside 300 from old: 300 + 300 (4 - 3 f) = 900 f.
    assert growth.factor == pytest.approx(1500 / 1800)
    assert growth.interval == 1
    assert growth.binding == ("old", "new")
    assert (
        growth.explain()
        == "all load may be 0.8333 times what it is; the limit is reached at interval 1, where old, new end"
    )
    ads = largest_growth(DUO, "ads")
    assert ads.factor == pytest.approx(600 / 900)
    feed = largest_growth(DUO, "feed")
    assert feed.factor == pytest.approx(2 / 3), "ads need 2 of the 4 new; 200 of 300 feed are left"
    with pytest.raises(UnknownNameError, match="workload that grows 'fed'; did you mean 'feed'"):
        largest_growth(DUO, "fed")


def test_growth_where_the_rest_does_not_fit() -> None:
    crowded = dataclasses.replace(DUO, demand_qps=np.array([[2000.0, 10.0]]))
    growth = largest_growth(crowded, "feed")
    assert not growth.rest_fits
    assert growth.factor == 0.0
    assert "the rest alone is not covered" in growth.explain()
    idle = largest_growth(dataclasses.replace(DUO, demand_qps=np.zeros((1, 2))))
    assert math.isinf(idle.factor)
    assert "without end" in idle.explain()


def test_growth_beside_a_minimum_footprint() -> None:
    """Two old and one new are on for ads whatever happens: 500 q/s; one old and three new are free."""
    minimum = np.array([[2, 0], [1, 0]])
    growth = largest_growth(dataclasses.replace(DUO, demand_qps=np.array([[100.0, 300.0]])), minimum=minimum)
    assert growth.factor == pytest.approx(1.0), "feed needs all three new that are left"


@given(problems(), st.booleans())
def test_growth_is_where_shedding_starts(problem, one) -> None:
    name = problem.workloads[0] if one else None
    growth = largest_growth(problem, name)
    grows = np.arange(problem.n_workloads) == 0 if one else np.ones(problem.n_workloads, dtype=bool)
    if not growth.rest_fits:
        rest = dataclasses.replace(problem, demand_qps=np.where(grows, 0.0, problem.demand_qps))
        assert solve_linear(rest).shed_qps.any()
        return
    if math.isinf(growth.factor):
        assert not problem.demand_qps[:, grows].any()
        return
    for factor, sheds in ((growth.factor * (1 - 1e-6), False), (growth.factor * (1 + 1e-6) + 1e-6, True)):
        demand = np.where(grows, factor, 1.0) * problem.demand_qps
        assert bool(solve_linear(dataclasses.replace(problem, demand_qps=demand)).shed_qps.any()) == sheds


@given(problems(max_intervals=6))
def test_the_hardest_intervals_decide(problem) -> None:
    hard = hardest_intervals(problem)
    assert hard
    for t in range(problem.n_intervals):
        assert any(
            (problem.demand_qps[s] >= problem.demand_qps[t]).all() and (problem.stocks[s] <= problem.stocks[t]).all()
            for s in hard
        )
    each = [largest_growth(problem.interval(t)).factor for t in range(problem.n_intervals)]
    assert largest_growth(problem).factor == pytest.approx(min(each), rel=1e-7)


# -- purchase --------------------------------------------------------------------------------------------------------


def test_purchase_by_hand() -> None:
    """Interval 1 decides: 900 ads and 300 feed; interval 2 needs 3.5 new for feed and its ads fit on old."""
    bought = cheapest_purchase(DUO, {"old": 1.0, "new": 2.0})
    # 3 new for feed, 1 new and 3 old for ads: 300 q/s of ads are missing: one new at 2, or three old at 3.
    assert bought.machines == {"new": 1}
    assert bought.cost == 2.0
    assert bought.bound == pytest.approx(2.0)
    assert bought.intervals == (1,)
    assert bought.explain() == "buy 1 new: 2 (no purchase costs less than 2)"
    assert cheapest_purchase(DUO, {"old": 1.0, "new": 4.0}).machines == {"old": 3}
    assert cheapest_purchase(DUO, {"old": 7.0}).machines == {"old": 3}, "new is not for sale"
    rich = dataclasses.replace(DUO, stock=np.array([9, 9]))
    assert cheapest_purchase(rich).explain() == "nothing to buy: the stock covers every interval"


def test_purchase_refuses_by_name() -> None:
    for price, error, says in (
        ({"odl": 1.0}, UnknownNameError, "server with a price 'odl'; did you mean 'old'"),
        ({"old": 0.0}, InputError, "price: 'old' is 0.0; allowed: 1e-09 to 1e"),
        ({"old": float("nan")}, InputError, "price: 'old' is nan"),
        ({}, InputError, "price: no server named"),
    ):
        with pytest.raises(error, match=says):
            cheapest_purchase(DUO, price)
    none = dataclasses.replace(DUO, stock=np.array([3, 0]))
    with pytest.raises(InputError, match="no server in stock or for sale can run workload 'feed'"):
        cheapest_purchase(none, {"old": 1.0})


def plain_purchase(problem: Problem, price) -> float:
    """Cost of the cheapest fractional purchase: every interval, every pair, no scaling, straight to HiGHS."""
    import highspy

    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    n_h, n_w, n_t = problem.n_servers, problem.n_workloads, problem.n_intervals
    for cost in price:
        highs.addVar(0.0, highspy.kHighsInf)
        highs.changeColCost(highs.numVariables - 1, cost)
    for t in range(n_t):
        first = highs.numVariables
        highs.addVars(n_h * n_w, np.zeros(n_h * n_w), np.where(problem.qps > 0, highspy.kHighsInf, 0.0).ravel())
        for w in range(n_w):
            at = (first + np.arange(n_h) * n_w + w).astype(np.int32)
            highs.addRow(problem.demand_qps[t, w], highspy.kHighsInf, n_h, at, problem.qps[:, w].copy())
        for h in range(n_h):
            at = np.append(first + h * n_w + np.arange(n_w), h).astype(np.int32)
            values = np.append(np.ones(n_w), -1.0)
            highs.addRow(-highspy.kHighsInf, float(problem.stocks[t, h]), n_w + 1, at, values)
    highs.run()
    assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return highs.getInfo().objective_function_value


@given(problems(max_intervals=5), st.integers(0, 2**32))
def test_the_bound_of_a_purchase_is_the_linear_optimum_over_all_intervals(problem, seed) -> None:
    if not coverable(problem):
        return
    price = np.random.default_rng(seed).uniform(1, 9, problem.n_servers)
    bought = cheapest_purchase(problem, dict(zip(problem.servers, price.tolist(), strict=True)))
    assert bought.bound == pytest.approx(plain_purchase(problem, price), rel=1e-6, abs=1e-6)


def enumerated(problem: Problem, price, most: int) -> float:
    """Cost of the cheapest whole purchase by trying all of up to ``most`` machines per type, exactly covered or not."""
    best = math.inf
    for extra in itertools.product(range(most + 1), repeat=problem.n_servers):
        cost = float(np.dot(price, extra))
        if cost < best and all(
            fits(problem, t, problem.stocks[t] + np.array(extra)) for t in range(problem.n_intervals)
        ):
            best = cost
    return best


def fits(problem: Problem, t: int, stock) -> bool:
    """Whether whole machines of ``stock`` cover interval t, by trying every assignment."""
    short = list(problem.demand_qps[t])

    def place(h: int, short) -> bool:
        if all(s <= 1e-9 for s in short):
            return True
        if h == problem.n_servers:
            return False
        for counts in itertools.product(range(int(stock[h]) + 1), repeat=problem.n_workloads):
            if sum(counts) <= stock[h] and place(
                h + 1, [s - c * q for s, c, q in zip(short, counts, problem.qps[h], strict=True)]
            ):
                return True
        return False

    return place(0, short)


def test_whole_purchases_against_enumeration() -> None:
    """Over fixed instances: never below the optimum, the bound never above, and mostly the optimum itself."""
    rng = np.random.default_rng(5)
    optimal = 0
    for _ in range(25):
        problem = Problem(
            qps=rng.uniform(20, 60, (2, 2)),
            power_w=rng.uniform(100, 500, (2, 2)),
            demand_qps=rng.uniform(20, 110, (2, 2)),
            stock=rng.integers(0, 3, 2),
        )
        price = rng.uniform(1, 5, 2)
        bought = cheapest_purchase(problem, dict(zip(problem.servers, price.tolist(), strict=True)))
        exact = enumerated(problem, price, 8)
        assert bought.bound <= exact * (1 + 1e-9)
        assert bought.cost >= exact * (1 - 1e-9)
        optimal += bought.cost <= exact * (1 + 1e-9)
    assert optimal >= 23


@given(problems())
def test_a_purchase_covers_and_none_costs_less_than_its_bound(problem) -> None:
    if not coverable(problem):
        with pytest.raises(InputError, match="can run workload"):
            cheapest_purchase(problem)
        return
    bought = cheapest_purchase(problem)
    more = np.array([bought.machines.get(name, 0) for name in problem.servers])
    assert is_covered(dataclasses.replace(problem, stock=problem.stock + more))
    assert bought.bound <= bought.cost * (1 + 1e-9) + 1e-9
    fractional = np.array([bought.fractional.get(name, 0.0) for name in problem.servers])
    if fractional.any():  # a little less of the optimum, and something is short; the optimum itself is not
        less = dataclasses.replace(problem, stock=problem.stock + np.floor(fractional * (1 - 1e-6)).astype(np.int64))
        assert solve_linear(less).shed_qps.any()
    for h in np.flatnonzero(more):  # each machine is needed
        fewer = more - (np.arange(len(more)) == h)
        assert not is_covered(dataclasses.replace(problem, stock=problem.stock + fewer))


# -- one more --------------------------------------------------------------------------------------------------------


def test_one_more_by_hand() -> None:
    """4 new: feed takes 1, ads 900 of 3; with 3 of stock one new is missing, and one more saves 3 * 200 - 300 W."""
    tight = dataclasses.replace(DUO, demand_qps=np.array([[900.0, 100.0], [300.0, 0.0]]), stock=np.array([9, 3]))
    old, new = one_more_server(tight)
    assert new.price == pytest.approx([300.0, 0.0])
    assert new.saved == pytest.approx([300.0, 0.0])
    assert not old.saved.any()
    assert new.explain(0, 2.0) == (
        "new: saves 300 W at peak (price 300); saves 0.6 kWh over the intervals without shed load"
    )
    assert new.explain(0, 2.0, "EUR") == (
        "new: saves 300 EUR an interval at peak (price 300); saves 300 EUR over the intervals without shed load"
    )


def test_one_more_serves_what_is_shed() -> None:
    short = dataclasses.replace(DUO, demand_qps=np.array([[0.0, 500.0]]))
    old, new = one_more_server(short)
    assert new.served_qps.tolist() == [[0.0, 100.0]]
    assert not new.saved.any()
    assert not old.served_qps.any()
    assert new.explain(0, 1.0).startswith("new: serves 100 q/s at peak that are shed without it; saves 0 kWh")


@given(problems(max_stock=8))
def test_one_more_never_saves_more_than_its_price(problem) -> None:
    """The objective is convex in the stock, so the price at hand bounds what a whole machine saves."""
    linear = solve_linear(problem)
    for more in one_more_server(problem, linear):
        scale = 1e-6 * (1.0 + linear.objective_w)
        assert (more.saved >= 0).all()
        assert (more.saved <= more.price + scale).all()
        assert (more.served_qps.sum(axis=1) >= -1e-6 * (1 + problem.demand_qps.sum(axis=1))).all()


# -- relaxations -----------------------------------------------------------------------------------------------------


def test_relaxations_by_hand() -> None:
    words = relaxations(dataclasses.replace(DUO, demand_qps=DUO.demand_qps[1:2]))
    assert words[0] == "would be covered with 1 more new (the fewest machines)"
    # Least load: feed less by a third (100 q/s at 250 W per 100), ads less by a third (300 at 200 W per 100), or all
    # less by a sixth (50 feed and 150 ads).
    assert words[1] == "would be covered with 33.3 % less load of feed (fractional machines)"


def test_a_workload_that_nothing_can_run_is_no_matter_of_machines() -> None:
    lost = Problem(qps=[[10.0, 0.0]], power_w=[[100.0, 1.0]], demand_qps=[[5.0, 7.0]], stock=[3], workloads=("a", "b"))
    assert relaxations(lost) == ("no server of this plan can run b: neither machines nor less of other load help",)


@given(problems())
def test_relaxations_are_said_where_something_is_short(problem) -> None:
    words = relaxations(problem)
    if solve_linear(problem).shed_qps.any():
        assert words
        assert any("less load" in line for line in words) or not coverable(problem)
    if not words:
        assert is_covered(problem)
