"""The choices that the baselines' names leave open, each by hand; and what must hold of all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast.errors import InputError
from hercules_fast.provisioning import Policy, Problem, greedy, oblivious, solve_linear
from hercules_fast.provisioning.baselines import oblivious_spread
from tests import small_plans

# a: 10 q/s of x at 100 W; b: 40 q/s of x at 200 W (better), 10 of y at 100 W.
TWO = Problem(
    qps=[[10.0, 0.0], [40.0, 10.0]],
    power_w=[[100.0, 1.0], [200.0, 100.0]],
    demand_qps=[[50.0, 10.0], [45.0, 20.0], [0.0, 20.0]],
    stock=[9, 3],
    workloads=("x", "y"),
)


def test_the_last_machine_whole_or_in_part() -> None:
    assert greedy(TWO).capacity.tolist() == [3, 3, 2]
    part = greedy(TWO, last="fractional")
    assert part.capacity.tolist() == pytest.approx([1.25 + 1, 1.125 + 1.875, 2.0])
    assert part.power_w[0] == pytest.approx(1.25 * 200 + 100)
    assert "the last one in part" in part.rule
    assert part.unmet_qps[1].tolist() == pytest.approx([0.0, 1.25]), "1.875 of b are left for y"


def test_from_scratch_or_from_the_previous_interval() -> None:
    """Interval 1 needs 45 of x: from scratch 2 of b; y then gets 1 of the 2 that it needs either way."""
    kept = greedy(TWO, start="previous")
    scratch = greedy(TWO)
    assert kept.capacity.tolist() == scratch.capacity.tolist() == [3, 3, 2]
    order = Problem(qps=TWO.qps, power_w=TWO.power_w, demand_qps=[[20.0, 30.0], [20.0, 10.0]], stock=[9, 3])
    # Order y, x: all b go to y, x takes 2 of a; then y gives 2 of b back, but x keeps its 2 of a.
    assert greedy(order, order=("1", "0")).power_w.tolist() == [500.0, 300.0]
    assert greedy(order, order=("1", "0"), start="previous").power_w.tolist() == [500.0, 300.0]
    assert greedy(order, order=("1", "0"), start="previous").capacity.tolist() == [5, 3]
    assert greedy(order, order=("1", "0")).capacity.tolist() == [5, 2]


def test_oblivious_in_proportion() -> None:
    """x asks for 50 of the 9 * 10 + 3 * 40 = 210 q/s of the whole fleet: 5/21 of every type."""
    exact = oblivious(TWO, draw="proportional", last="fractional")
    assert exact.capacity[0] == pytest.approx(12 * 50 / 210 + 3 * 10 / 30)
    assert exact.power_w[0] == pytest.approx(9 * 50 / 210 * 100 + 3 * 50 / 210 * 200 + 100)
    assert exact.covers[0]
    whole = oblivious(TWO, draw="proportional")
    # Floors: 2 of a, 0 of b, 1 of b for y; 30 q/s short: the largest rest is b's 0.71.
    assert whole.capacity[0] == 2 + 1 + 1
    assert whole.covers[0]
    assert "in proportion to the stock" in whole.rule


def test_oblivious_in_proportion_shrinks_alike_where_the_fleet_is_short() -> None:
    short = Problem(qps=[[10.0, 10.0]], power_w=[[1.0, 1.0]], demand_qps=[[60.0, 40.0]], stock=[5])
    base = oblivious(short, draw="proportional", last="fractional")
    assert base.unmet_qps[0].tolist() == pytest.approx([30.0, 20.0])


def test_machines_that_cannot_serve_are_on_for_nothing() -> None:
    """y draws from both types: machines of a serve it nothing and take the mean power of a's uses, 100 W."""
    only_y = Problem(qps=TWO.qps, power_w=TWO.power_w, demand_qps=[[0.0, 30.0]], stock=[9, 3])
    able, every = oblivious(only_y), oblivious(only_y, types="all")
    assert able.capacity.tolist() == [3]
    assert every.capacity[0] > 3
    assert every.covers.all(), "it goes on until the three of b are drawn"
    assert every.power_w[0] == pytest.approx(100.0 * every.capacity[0])
    share = oblivious(only_y, draw="proportional", types="all", last="fractional")
    assert share.capacity.tolist() == [12.0], "all of a for nothing beside all of b"


def test_spread_over_draws() -> None:
    spread = oblivious_spread(TWO, 0, 50, seed=3)
    assert spread.orders == 50
    assert spread.capacity[0] < spread.capacity[2]
    assert spread.capacity[0] <= spread.capacity[1] <= spread.capacity[2]
    plan = small_plans.plan()
    assert plan.oblivious_spread.orders == 200
    assert plan.oblivious_spread.power_w[0] <= plan.oblivious_spread.power_w[1]
    assert "oblivious at peak over 200 draws" in plan.explain()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: greedy(TWO, start="later"), "start: 'later'; allowed: 'scratch', 'previous'"),
        (lambda: greedy(TWO, last="half"), "last: 'half'; allowed: 'whole', 'fractional'"),
        (lambda: oblivious(TWO, draw="all"), "draw: 'all'; allowed: 'random', 'proportional'"),
        (lambda: oblivious(TWO, types="some"), "types: 'some'; allowed: 'eligible', 'all'"),
        (lambda: Policy(greedy_start="later"), "policy.greedy_start: 'later'; allowed: 'scratch', 'previous'"),
        (lambda: Policy(baselines="greedy"), "policy.baselines: 'greedy'; allowed: any of 'greedy', 'oblivious'"),
        (lambda: Policy(baselines=("random",)), "allowed: any of 'greedy', 'oblivious'"),
        (lambda: Policy(oblivious_draw=3), "policy.oblivious_draw: 3; allowed: 'random', 'proportional'"),
    ],
)
def test_unknown_choices(call, says) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_models_over_several_servers_are_taken_whole() -> None:
    spread = Problem(qps=[[10.0, 10.0]], power_w=[[1.0, 1.0]], demand_qps=[[25.0, 10.0]], stock=[5], group=[[2, 1]])
    for base in (greedy(spread), oblivious(spread), oblivious(spread, draw="proportional")):
        assert base.capacity.tolist() == [5], "4 for 25 q/s in pairs, 1 beside them"
        assert base.covers.all()


def test_several_rows_of_a_type_share_its_stock() -> None:
    rows = Problem(qps=[[10.0], [15.0]], power_w=[[100.0], [250.0]], demand_qps=[[45.0]], stock=[4], row_type=[0, 0])
    assert greedy(rows).capacity.tolist() == [4]
    assert greedy(rows).unmet_qps.tolist() == [[5.0]]
    assert greedy(rows, rank="qps").power_w.tolist() == [750.0]
    assert oblivious(rows).power_w.tolist() == [750.0], "the row of most q/s"


CHOICES = [
    *(
        ("greedy", {"start": s, "last": k})
        for s, k in itertools.product(("scratch", "previous"), ("whole", "fractional"))
    ),
    *(
        ("oblivious", {"draw": d, "types": k, "last": e})
        for d, k, e in itertools.product(("random", "proportional"), ("eligible", "all"), ("whole", "fractional"))
    ),
]


@given(st.integers(0, 2**32), st.sampled_from(CHOICES))
def test_every_baseline_holds_the_stock_and_none_beats_the_bound(seed, choice) -> None:
    rng = np.random.default_rng(seed)
    n_h, n_w, n_t = rng.integers(1, 5, 3)
    problem = Problem(
        qps=rng.uniform(5, 60, (n_h, n_w)) * (rng.random((n_h, n_w)) < 0.8),
        power_w=rng.uniform(100, 500, (n_h, n_w)),
        demand_qps=rng.uniform(1, 200, (n_t, n_w)) * (rng.random((n_t, n_w)) < 0.8),
        stock=rng.integers(0, 12, (n_t, n_h)),
        group=rng.integers(1, 3, (n_h, n_w)) if rng.random() < 0.3 else None,
    )
    name, how = choice
    base = greedy(problem, **how) if name == "greedy" else oblivious(problem, seed=seed, **how)
    assert (base.capacity <= problem.stocks.sum(axis=1) * (1 + 1e-9)).all()
    assert (base.capacity >= 0).all()
    linear = solve_linear(problem)
    assert (base.power_w[base.covers] >= linear.bound_w[base.covers] * (1 - 1e-6) - 1e-6).all()
    if how["last"] == "whole":
        assert base.capacity.dtype == np.int64
