"""What must hold of every plan: duality, stock, coverage, the order of bounds and answers, same bytes twice."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast.provisioning import (
    Assignment,
    LinearSolution,
    Plan,
    Policy,
    Problem,
    greedy,
    headroom_from_trace,
    largest_scale,
    oblivious,
    price_bound,
    provision,
    solve_linear,
    whole_machines,
)
from hercules_fast.provisioning.scale import scale_load
from hercules_fast.tables import EfficiencyTable
from hercules_fast.traffic import LoadTrace


@st.composite
def problems(draw, qps_decades=(0, 2), max_stock=200):
    """Up to 6 x 5 x 4, the values of a seeded generator: some pairs not eligible, some loads and stocks zero."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_h, n_w, n_t = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    qps = 10.0 ** rng.uniform(*qps_decades, (n_h, n_w)) * (rng.random((n_h, n_w)) < 0.8)
    stock = rng.integers(0, max_stock + 1, n_h) * (rng.random(n_h) < 0.9)
    share = draw(st.sampled_from([0.0, 0.1, 0.6, 0.95, 1.0, 1.3, 10.0]))
    demand = (qps * stock[:, None]).sum(axis=0) / n_w * share * rng.uniform(0.2, 1.0, (n_t, n_w))
    demand[demand < 1e-6] = 0.0
    demand = np.minimum(demand, 1e12)
    if draw(st.booleans()):  # exact ties: every server alike
        qps[:] = np.where(qps > 0, 8.0, 0.0)
        return Problem(qps=qps, power_w=np.full((n_h, n_w), 250.0), demand_qps=np.ceil(demand), stock=stock)
    return Problem(qps=qps, power_w=rng.uniform(50, 900, (n_h, n_w)), demand_qps=demand, stock=stock)


def check_linear(problem, answer):
    """Optimality without trusting the solver: a feasible point and a bound that meet."""
    assert (answer.servers >= 0).all()
    assert not answer.servers[:, ~problem.eligible].any()
    assert (answer.servers.sum(axis=2) <= problem.stock * (1 + 1e-7) + 1e-9).all()
    capacity = problem.capacity_qps(answer.servers)
    assert (capacity + answer.shed_qps >= problem.demand_qps * (1 - 1e-7)).all()
    assert (answer.shed_qps <= problem.demand_qps).all()
    assert (answer.stock_price_w >= 0).all()
    assert (answer.load_price_w >= 0).all()
    scale = answer.objective_w + 1e-9
    assert (np.abs(answer.objective_w - answer.bound_w) <= 1e-6 * scale).all()
    # The dual objective, from the prices alone: sum d v - sum A u.
    dual = (problem.demand_qps * answer.load_price_w).sum(axis=1) - (problem.stock * answer.stock_price_w).sum(axis=1)
    assert dual == pytest.approx(answer.objective_w, rel=1e-6, abs=1e-6)


def check_whole(problem, linear, plan):
    assert plan.dtype == np.int64
    assert (plan >= 0).all()
    assert not plan[:, ~problem.eligible].any()
    assert (plan.sum(axis=2) <= problem.stock).all()
    short = problem.shortfall_qps(plan)
    watts = problem.total_power_w(plan)
    objective = watts + (linear.penalty_w_per_qps * short).sum(axis=1)
    assert (objective >= linear.bound_w * (1 - 1e-6) - 1e-6).all()
    dearest = problem.power_w.max(initial=0.0) * (problem.n_servers + problem.n_workloads)
    # A promise only where rounding up fits the stock: else one missing machine may take any number of worse ones.
    covered = (np.ceil(linear.servers - 1e-6).sum(axis=2) <= problem.stock).all(axis=1) & ~linear.shed_qps.any(axis=1)
    assert not short[covered].any()
    assert (watts[covered] <= linear.objective_w[covered] * (1 + 1e-9) + dearest + 1e-6).all()


@given(problems())
def test_linear_and_whole_answers(problem):
    linear = solve_linear(problem)
    check_linear(problem, linear)
    check_whole(problem, linear, whole_machines(problem, linear).dense())


@given(problems(qps_decades=(-3, 9), max_stock=1_000_000))
def test_wide_scales(problem):
    """Rates of 1e-3..1e9 q/s beside each other, a million machines: no wrong answer."""
    linear = solve_linear(problem)
    check_linear(problem, linear)
    check_whole(problem, linear, whole_machines(problem, linear).dense())


@given(problems())
def test_baselines_hold_stock_and_never_beat_the_bound(problem):
    linear = solve_linear(problem)
    for base in (greedy(problem), greedy(problem, "largest", "qps"), oblivious(problem, seed=3)):
        assert (base.capacity <= problem.stock.sum()).all()
        assert (base.unmet_qps >= 0).all()
        assert (base.power_w[base.covers] >= linear.bound_w[base.covers] * (1 - 1e-6) - 1e-6).all()


@given(problems(), st.floats(0.0, 1e4))
def test_any_prices_bound_any_plan(problem, price):
    linear = solve_linear(problem)
    u = np.full((problem.n_intervals, problem.n_servers), price)
    bound = price_bound(problem, u, linear.penalty_w_per_qps)
    assert (bound <= linear.objective_w * (1 + 1e-6) + 1e-6).all()


@given(problems())
def test_an_answer_does_not_depend_on_its_neighbours(problem):
    """Whole machines of an interval are a function of that interval's linear answer alone."""
    linear = solve_linear(problem)
    together = whole_machines(problem, linear).dense()
    for t in range(problem.n_intervals):
        alone = dataclasses.replace(problem, demand_qps=problem.demand_qps[t : t + 1])
        fields = {f.name: getattr(linear, f.name) for f in dataclasses.fields(linear)}
        part = {name: v[t : t + 1] if isinstance(v, np.ndarray) else v for name, v in fields.items()}
        part["assignment"] = Assignment.from_dense(linear.servers[t : t + 1])
        assert np.array_equal(whole_machines(alone, LinearSolution(**part)).dense()[0], together[t])


@given(problems())
def test_more_stock_never_costs_power_or_load(problem):
    more = dataclasses.replace(problem, stock=problem.stock + 1)
    before, after = solve_linear(problem), solve_linear(more)
    covered = ~before.shed_qps.any(axis=1)
    assert not after.shed_qps[covered].any()
    assert (after.power_w[covered] <= before.power_w[covered] * (1 + 1e-6) + 1e-6).all()


# -- edge cases, one by one ---------------------------------------------------------------------------------------


def one(qps, power_w, demand_qps, stock):
    problem = Problem(qps=qps, power_w=power_w, demand_qps=demand_qps, stock=stock)
    linear = solve_linear(problem)
    check_linear(problem, linear)
    plan = whole_machines(problem, linear).dense()
    check_whole(problem, linear, plan)
    return problem, linear, plan


def test_one_server_type_one_workload():
    _, linear, plan = one([[100.0]], [[200.0]], [[250.0]], [5])
    assert linear.servers[0, 0, 0] == pytest.approx(2.5)
    assert linear.power_w[0] == pytest.approx(500.0)
    assert linear.load_price_w[0, 0] == pytest.approx(2.0)
    assert plan.tolist() == [[[3]]]


def test_a_workload_that_no_server_can_run_is_shed_whole():
    problem, linear, plan = one([[100.0, 0.0]], [[200.0, 0.0]], [[100.0, 40.0]], [5])
    assert linear.shed_qps.tolist() == [[0.0, 40.0]]
    assert problem.shortfall_qps(plan).tolist() == [[0.0, 40.0]]
    assert linear.power_w[0] == pytest.approx(200.0)


def test_no_load_switches_nothing_on():
    _, linear, plan = one([[10.0, 20.0]], [[100.0, 100.0]], [[0.0, 0.0], [10.0, 0.0]], [5])
    assert linear.power_w[0] == 0.0
    assert plan[0].sum() == 0
    assert plan[1].tolist() == [[1, 0]]


def test_no_stock_sheds_everything():
    problem, linear, plan = one([[10.0], [20.0]], [[100.0], [100.0]], [[50.0]], [0, 0])
    assert plan.sum() == 0
    assert linear.shed_qps[0, 0] == 50.0
    assert problem.shortfall_qps(plan)[0, 0] == 50.0


def test_a_type_without_stock_is_priced():
    _, linear, _ = one([[10.0], [40.0]], [[100.0], [100.0]], [[50.0]], [9, 0])
    # One machine of the second type replaces 4 of the first: it saves 4 * 100 - 100 W.
    assert linear.stock_price_w[0].tolist() == pytest.approx([0.0, 300.0])


def test_exact_ties_everywhere():
    _, linear, plan = one(np.full((6, 6), 10.0), np.full((6, 6), 100.0), np.full((2, 6), 25.0), np.full(6, 3))
    assert linear.power_w.tolist() == pytest.approx([1500.0, 1500.0])
    assert plan.sum(axis=(1, 2)).tolist() == [18, 18]


def test_infeasible_by_one_machine_names_the_workload():
    problem, linear, plan = one([[10.0, 10.0]], [[100.0, 100.0]], [[20.0, 20.0]], [3])
    assert linear.shed_qps.sum() == pytest.approx(10.0)
    assert sorted(problem.shortfall_qps(plan)[0].tolist()) == [0.0, 10.0]


def test_a_scarce_type_moves_to_where_only_it_can_serve():
    # Workload 0 prefers the type that workload 1 cannot do without.
    _, _, plan = one([[10.0, 0.0], [12.0, 10.0]], [[100.0, 0.0], [90.0, 100.0]], [[20.0, 20.0]], [2, 2])
    assert plan[0].tolist() == [[2, 0], [0, 2]]


def test_load_is_shed_only_where_stock_ends():
    """The watts of the only plan that covers are far above the first penalty: it must be taken all the same."""
    # Type 0 is a little better for workload 0 than for workload 1, which has a hopelessly inefficient substitute.
    problem = Problem(
        qps=[[100.0, 100.0], [0.01, 0.0]],
        power_w=[[100.0, 1.0], [100.0, 0.0]],
        demand_qps=[[100.0, 100.0]],
        stock=[1, 10_000],
    )
    linear = solve_linear(problem)
    assert not linear.shed_qps.any()
    check_linear(problem, linear)


# -- the plan -----------------------------------------------------------------------------------------------------

SERVERS = ("cpu", "cpu-nmp", "gpu")
WORKLOADS = ("ads", "feed", "video")


def fleet(seed=1, n_intervals=24, share=0.6):
    rng = np.random.default_rng(seed)
    qps = rng.uniform(100, 400, (3, 3)) * np.array([[1.0], [2.5], [6.0]])
    qps[0, 2] = 0.0
    power = rng.uniform(0.7, 1.0, (3, 3)) * np.array([[200.0], [320.0], [700.0]])
    stock = np.array([40, 10, 6])
    day = 0.6 - 0.4 * np.cos(2 * np.pi * np.arange(n_intervals) / n_intervals)
    shape = day[:, None] * np.array([3000.0, 2000.0, 1000.0])
    load_qps = shape * (share * largest_scale(qps, shape, stock))
    times = np.datetime64("2024-03-04T00:00:00", "s") + 3600 * np.arange(n_intervals)
    load = LoadTrace(name="day", workloads=WORKLOADS, times=times, interval_s=3600.0, qps=load_qps)
    return EfficiencyTable.from_matrices(SERVERS, WORKLOADS, qps, power), load, dict(zip(SERVERS, stock, strict=True))


def test_a_plan_covers_and_accounts_for_every_server():
    table, load, stock = fleet()
    plan = provision(table, load, stock, Policy(headroom=0.1))
    assert plan.is_covered
    assert plan.shortfall() == ()
    assert np.array_equal(plan.demand_qps, load.qps * 1.1)
    assert plan.stock.tolist() == [list(stock.values())] * 24
    assert np.array_equal(plan.free_stock + plan.servers_on.sum(axis=2), plan.stock)
    carried = (plan.servers_on * plan.qps).sum(axis=1)
    assert carried - plan.demand_qps == pytest.approx(plan.surplus_qps, abs=1e-6)
    assert (plan.lp_power_w <= plan.power_w * (1 + 1e-9)).all()
    assert (plan.gap >= -1e-9).all()
    assert plan.peak == 12
    assert plan.trough == 0
    assert "binding" not in plan.explain()  # the text speaks of stock and watts, not of solvers
    for saving in plan.savings().values():
        assert saving.peak_power == pytest.approx(
            1 - plan.power_w.max() / plan.baselines[saving.baseline].power_w.max()
        )


def test_greedy_beats_oblivious_on_average_over_seeds():
    table, load, stock = fleet()
    plans = [provision(table, load, stock, Policy(seed=seed, order_samples=0)) for seed in range(5)]
    compared = [(p.baselines["greedy"], p.baselines["oblivious"]) for p in plans]
    covered = np.all([g.covers & o.covers for g, o in compared], axis=0)
    assert covered.sum() >= 12
    assert sum(g.power_w[covered].sum() for g, _ in compared) < sum(o.power_w[covered].sum() for _, o in compared)


def test_overload_is_answered_with_names_and_the_load_that_fits():
    table, load, stock = fleet(share=1.25)
    plan = provision(table, load, stock, Policy(headroom=0.0))
    assert not plan.is_covered
    assert plan.fit_scale == pytest.approx(1 / 1.25, rel=1e-6)
    words = "\n".join(plan.shortfall())
    short = [w for i, w in enumerate(WORKLOADS) if plan.shed_qps[:, i].any()]
    assert all(name in words for name in short)
    assert "0.8 times the demand" in words
    assert not plan.savings()["greedy"].comparable
    assert plan.covered.sum() < 24


def test_binding_stock_is_worth_what_one_more_machine_saves():
    table, load, stock = fleet()
    plan = provision(table, load, stock, Policy(headroom=0.0))
    gpu = SERVERS.index("gpu")
    assert plan.stock_price_w[plan.peak, gpu] > 1.0
    more = provision(table, load, stock | {"gpu": stock["gpu"] + 1}, Policy(headroom=0.0))
    saved = plan.lp_power_w[plan.peak] - more.lp_power_w[plan.peak]
    assert 0.0 < saved <= plan.stock_price_w[plan.peak, gpu] * (1 + 1e-6)
    assert plan.binding_stock()[0].startswith("gpu: all 6 in use in ")


def test_servers_outside_the_stock_stay_off():
    table, load, _ = fleet(share=0.1)
    plan = provision(table, load, {"gpu": 6, "cpu": 40})
    assert plan.servers == ("gpu", "cpu")


def test_plan_survives_its_own_files(tmp_path):
    table, load, stock = fleet(share=1.1)
    plan = provision(table, load, stock)
    text = plan.to_json()
    again = Plan.from_json(text)
    assert again.to_json() == text
    assert again.explain() == plan.explain()
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json").to_json() == text
    plan.save(tmp_path / "plan.csv")
    lines = (tmp_path / "plan.csv").read_text().splitlines()
    assert lines[0] == "timestamp,server,workload,servers,lp_servers,capacity_qps,power_w,configuration"
    assert sum(int(line.split(",")[3]) for line in lines[1:]) == plan.servers_on.sum()
    assert lines[1].startswith("2024-03-04T00:00:00Z,cpu")


def test_relative_load_peaks_at_its_share_of_the_fleet():
    table, load, stock = fleet()
    shape = dataclasses.replace(load, qps=load.qps / load.qps.max(axis=0), relative=True)
    plan = provision(table, shape, stock, Policy(headroom=0.0, peak_share=0.7))
    counts = np.array([stock[s] for s in SERVERS])
    assert largest_scale(plan.qps, plan.load_qps, counts) == pytest.approx(1 / 0.7, rel=1e-6)
    reference = plan.qps[SERVERS.index("cpu-nmp")]  # runs every workload, and more of them are in stock than of gpu
    assert plan.load_qps[12] / reference == pytest.approx(np.full(3, plan.load_qps[12, 0] / reference[0]))
    scaled, words = scale_load(shape, plan.qps, counts, SERVERS, 0.7, headroom=0.0)
    assert np.array_equal(scaled.qps, plan.load_qps)
    assert "equally many cpu-nmp servers" in words


def test_headroom_from_trace():
    assert headroom_from_trace([[100.0, 10.0], [110.0, 12.0], [90.0, 0.0], [95.0, 30.0]]) == pytest.approx(0.2)
    assert headroom_from_trace([[100.0], [90.0]]) == 0.0
    assert headroom_from_trace([[100.0]]) == 0.05
    assert headroom_from_trace([[0.0], [0.0]]) == 0.05


BYTES = """
import hashlib, sys
from tests.laws.test_provision_laws import fleet
from hercules_fast.provisioning import provision
table, load, stock = fleet(share=float(sys.argv[1]))
print(hashlib.sha256(provision(table, load, stock).to_json().encode()).hexdigest())
"""


@pytest.mark.parametrize("share", ["0.6", "1.1"])
def test_same_arguments_same_bytes(share):
    """Twice in one process and in fresh ones with another hash seed and no SIMD dispatch in NumPy."""
    table, load, stock = fleet(share=float(share))
    assert provision(table, load, stock).to_json() == provision(table, load, stock).to_json()
    plain = {"PYTHONHASHSEED": "7", "NPY_DISABLE_CPU_FEATURES": _simd_features()}
    digests = set()
    for extra in ({}, plain):
        command = [sys.executable, "-W", "ignore", "-c", BYTES, share]
        done = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


def _simd_features():
    """The features that NumPy would dispatch to here, for it to leave out."""
    return " ".join(np._core._multiarray_umath.__cpu_dispatch__)


@pytest.fixture(autouse=True, scope="module")
def _children_find_this_package():
    """Subprocesses import the same package and the tests as this process does."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
