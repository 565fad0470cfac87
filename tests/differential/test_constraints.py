"""Constrained provisioning against every whole-machine plan, on instances small enough to list them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast.provisioning import Problem, solve_linear
from hercules_fast.provisioning.constrained import solve_constrained
from hercules_fast.provisioning.constraints import FailureDomains, FairShare, PowerCap, Switching
from hercules_fast.provisioning.relaxed import shed_penalties
from tests.reference import constraints as slow

seeds = st.integers(0, 2**32)


def small(seed, n_h=3, n_w=2, n_t=1, most=2):
    """A few machines; a load that they often, not always, cover."""
    rng = np.random.default_rng(seed)
    qps = rng.uniform(5, 60, (n_h, n_w)) * (rng.random((n_h, n_w)) < 0.9)
    stock = rng.integers(1, most + 1, n_h)
    demand = rng.uniform(0.1, 0.6, (n_t, n_w)) * np.maximum((qps * stock[:, None]).sum(axis=0), 10.0)
    power = rng.uniform(100, 500, (n_h, n_w))
    names = tuple("abcdef"[:n_h])
    return Problem(qps=qps, power_w=power, demand_qps=demand, stock=stock, servers=names), rng


def check(problem, constraints, *, penalty=None, minimum=None, **rules):
    """Whole machines are the best of all plans, the linear optimum is certified, and its bound lies below them."""
    weight = shed_penalties(problem)[0].tolist()
    arguments = (problem.qps.tolist(), problem.power_w.tolist(), problem.demand_qps.tolist(), problem.stock.tolist())
    rules |= {"penalty": None if penalty is None else penalty.tolist()}
    rules |= {"minimum": None if minimum is None else minimum.tolist()}
    shed, cost, _ = slow.whole_optimum(*arguments, weight, **rules)
    linear = solve_constrained(problem, constraints, integer=False, penalty=penalty, minimum=minimum)
    assert (np.abs(linear.gap) <= 1e-8).all()
    whole = solve_constrained(problem, constraints, penalty=penalty, minimum=minimum, mip_gap=0.0)
    uncovered = whole.shed_qps + whole.exposed_qps
    if penalty is not None:
        assert whole.objective_w.sum() == pytest.approx(cost, rel=1e-6)
        assert linear.bound_w.sum() <= cost * (1 + 1e-9)
        return linear, whole
    scale = float((np.array(weight) * problem.demand_qps).sum())
    assert float((np.array(weight) * uncovered).sum()) == pytest.approx(shed, abs=1e-6 * scale)
    if shed == 0.0:
        assert whole.objective_w.sum() == pytest.approx(cost, rel=1e-6)
        assert linear.objective_w.sum() <= cost * (1 + 1e-9)
    return linear, whole


@given(seeds, st.sampled_from([0.2, 0.5, 0.9]), st.booleans())
def test_caps(seed, tightness, fixed):
    problem, rng = small(seed, n_t=2)
    penalty = shed_penalties(problem)[0] * rng.uniform(0.05, 2.0) if fixed else None
    free = solve_constrained(problem, [], integer=False)
    drawn = (free.servers * problem.power_w)[:, :2].sum(axis=(1, 2))
    limit = np.maximum(drawn * tightness, 1.0)
    whole_site = float(free.power_w.max()) + 100.0
    caps = [
        PowerCap(name="rack", servers=("a", "b"), limit_w=limit),
        PowerCap(name="site", servers=problem.servers, limit_w=whole_site),
    ]
    check(problem, caps, penalty=penalty, caps=[((0, 1), limit), ((0, 1, 2), [whole_site] * 2)])


@given(seeds, st.integers(1, 2), st.booleans())
def test_failure_domains(seed, k, fixed):
    problem, rng = small(seed, n_h=4)
    problem = Problem(
        qps=problem.qps,
        power_w=problem.power_w,
        demand_qps=problem.demand_qps * rng.uniform(0.2, 0.9),
        stock=problem.stock,
        servers=problem.servers,
    )
    penalty = shed_penalties(problem)[0] * rng.uniform(0.05, 2.0) if fixed else None
    domains = FailureDomains(domain_of={"a": "x", "b": "y", "c": "z", "d": "z"}, k=k)
    check(problem, [domains], penalty=penalty, domain=[0, 1, 2, 2], k=k)


@given(seeds, st.booleans(), st.booleans())
def test_switching(seed, warm, fixed):
    problem, rng = small(seed, n_h=2, n_w=2, n_t=3, most=3)
    penalty = shed_penalties(problem)[0] * rng.uniform(0.05, 2.0) if fixed else None
    rules = {
        "cost_on": rng.uniform(0, 400, 2).tolist(),
        "ramp": rng.integers(0, 4, 2).tolist(),
        "min_up": rng.integers(1, 4, 2).tolist(),
        "initial": np.minimum(rng.integers(0, 3, 2), problem.stock).tolist() if warm else None,
    }
    switching = Switching(
        cost_on=rules["cost_on"],
        ramp=rules["ramp"],
        min_up_intervals=rules["min_up"],
        horizon=3,
        initial=dict(zip("ab", rules["initial"], strict=True)) if warm else None,
    )
    check(problem, [switching], penalty=penalty, switching=rules)


@given(seeds, st.booleans())
def test_all_at_once(seed, fixed):
    problem, rng = small(seed, n_h=3, n_w=1, n_t=2, most=3)
    penalty = shed_penalties(problem)[0] * rng.uniform(0.1, 2.0) if fixed else None
    limit = float(rng.uniform(300, 2000))
    rules = {"cost_on": [100.0] * 3, "ramp": [1, 2, 3], "min_up": [2, 1, 1], "initial": None}
    constraints = [
        PowerCap(name="rack", servers=("a", "c"), limit_w=limit),
        FailureDomains(domain_of={"a": "x", "b": "y", "c": "z"}),
        Switching(cost_on=100.0, ramp=[1, 2, 3], min_up_intervals=[2, 1, 1], horizon=2),
    ]
    given_rules = {"caps": [((0, 2), [limit] * 2)], "domain": [0, 1, 2], "k": 1, "switching": rules}
    check(problem, constraints, penalty=penalty, **given_rules)


@given(seeds, st.sampled_from(["none", "cap", "failures", "switching"]), st.booleans())
def test_minimum_footprints(seed, kind, fixed):
    problem, rng = small(seed, n_h=3, n_w=2, n_t=2 if kind == "switching" else 1)
    problem = dataclasses.replace(problem, demand_qps=problem.demand_qps * rng.uniform(0.05, 1.2))
    penalty = shed_penalties(problem)[0] * rng.uniform(0.05, 2.0) if fixed else None
    minimum = np.zeros((3, 2), dtype=np.int64)
    for h in range(3):
        w = int(rng.integers(2))
        minimum[h, w] = rng.integers(0, problem.stock[h] + 1) * (problem.qps[h, w] > 0)
    constraints, rules = [], {}
    if kind == "cap":
        limit = float((minimum * problem.power_w)[:2].sum() + rng.uniform(0.0, 800.0)) + 1e-3
        constraints = [PowerCap(name="rack", servers=("a", "b"), limit_w=limit)]
        rules = {"caps": [((0, 1), [limit])]}
    elif kind == "failures":
        constraints = [FailureDomains(domain_of={"a": "x", "b": "y", "c": "z"})]
        rules = {"domain": [0, 1, 2], "k": 1}
    elif kind == "switching":
        initial = minimum.sum(axis=1)
        constraints = [
            Switching(
                cost_on=50.0,
                ramp=1,
                min_up_intervals=2,
                horizon=2,
                initial=dict(zip("abc", initial.tolist(), strict=True)),
            )
        ]
        rules = {"switching": {"cost_on": [50.0] * 3, "ramp": [1] * 3, "min_up": [2] * 3, "initial": initial.tolist()}}
    _, whole = check(problem, constraints, penalty=penalty, minimum=minimum, **rules)
    assert (whole.servers >= minimum).all()


@given(seeds)
def test_without_constraints_it_is_the_linear_program(seed):
    problem, _ = small(seed, n_h=4, n_w=3, n_t=3, most=5)
    linear, plain = solve_constrained(problem, [], integer=False), solve_linear(problem)
    assert linear.objective_w == pytest.approx(plain.objective_w, rel=1e-9)
    assert linear.bound_w == pytest.approx(plain.bound_w, rel=1e-9)


@given(seeds)
def test_fair_share_of_one_type_is_proportional(seed):
    """Workloads that compete for the same machines get the same part; one with machines of its own gets all."""
    rng = np.random.default_rng(seed)
    qps = np.array([[*rng.uniform(10, 50, 2), 0.0], [0.0, 0.0, 30.0]])
    demand = np.array([[*rng.uniform(50, 500, 2), 45.0]])
    problem = Problem(qps=qps, power_w=np.full(qps.shape, 200.0), demand_qps=demand, stock=[4, 2])
    answer = solve_constrained(problem, [FairShare()], integer=False)
    part = min(1.0, 4 / float((demand[0, :2] / qps[0, :2]).sum()))
    assert answer.constrained.served_share[0] == pytest.approx([part, part, 1.0], rel=1e-7)
    assert answer.shed_qps[0] == pytest.approx(demand[0] * [1 - part, 1 - part, 0.0], rel=1e-6, abs=1e-6)
