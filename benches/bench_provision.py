"""Provisioning a week: the whole plan, its baselines, and whole machines against branch and bound.

Run: ``make bench ARGS="-k bench_provision -s"``. Every case checks its answer: no baseline that covers lies below the
linear bound, the plan covers and costs less than the greedy one, and no plan lies below what branch and bound proves.
What else is found is recorded with the timing (``extra_info``) or printed.
"""

from __future__ import annotations

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast.provisioning import (
    Policy,
    Problem,
    greedy,
    largest_scale,
    oblivious,
    provision,
    solve_linear,
    solve_network,
    whole_bound,
)
from hercules_fast.tables import EfficiencyTable
from hercules_fast.traffic import LoadTrace

INTERVALS = 168
SIZES = {"10x8": (10, 8), "30x20": (30, 20)}
STOCK_10 = np.array([100, 100, 15, 10, 5, 10, 5, 6, 4, 2])


def fleet(n_servers: int, n_workloads: int, share: float = 0.7, seed: int = 0) -> Problem:
    """Many plain servers and few fast ones, one daily phase, the peak at ``share`` of what the stock can serve."""
    rng = np.random.default_rng(seed)
    speed = np.concatenate([rng.uniform(0.5, 1.2, (2, n_workloads)), rng.uniform(1, 7, (n_servers - 2, n_workloads))])
    qps = rng.uniform(100, 3000, n_workloads) * speed
    power = np.linspace(125, 700, n_servers)[:, None] * rng.uniform(0.6, 1.0, qps.shape)
    stock = STOCK_10 if n_servers == 10 else rng.integers(5, 120, n_servers)
    hour = np.arange(INTERVALS)
    day = 0.7 - 0.3 * np.cos(2 * np.pi * hour / 24) + 0.02 * np.sin(hour)
    shape = day[:, None] * qps[1]
    demand = shape * (share * largest_scale(qps, shape, stock))
    return Problem(qps=qps, power_w=power, demand_qps=demand, stock=stock)


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys(), scope="module")
def problem(request: pytest.FixtureRequest) -> Problem:
    return fleet(*request.param)


@pytest.mark.benchmark(group="week, baselines")
@pytest.mark.parametrize("rule", [greedy, oblivious])
def test_baselines(benchmark, problem, rule):
    base = benchmark(rule, problem)
    optimum = solve_linear(problem)
    covered = base.covers
    assert (base.power_w[covered] >= optimum.bound_w[covered] * (1 - 1e-6)).all()
    benchmark.extra_info["power_over_linear"] = float(base.power_w[covered].sum() / optimum.power_w[covered].sum())
    benchmark.extra_info["intervals_covered"] = int(covered.sum())


@pytest.mark.benchmark(group="week, whole plan")
def test_plan(benchmark, problem):
    servers = tuple(f"type-{h}" for h in range(problem.n_servers))
    workloads = tuple(f"workload-{w}" for w in range(problem.n_workloads))
    table = EfficiencyTable.from_matrices(servers, workloads, problem.qps, problem.power_w)
    times = np.datetime64("2024-03-04T00:00:00", "s") + 3600 * np.arange(INTERVALS)
    load = LoadTrace(name="week", workloads=workloads, times=times, interval_s=3600.0, qps=problem.demand_qps)
    stock = dict(zip(servers, problem.stock.tolist(), strict=True))
    plan = benchmark(provision, table, load, stock, Policy(headroom=0.0))
    assert plan.is_covered
    greedy_base = plan.baselines["greedy"]
    assert plan.power_w.sum() < greedy_base.power_w.sum()
    benchmark.extra_info["mean_gap"] = float(plan.gap.mean())
    benchmark.extra_info["power_over_greedy"] = float(plan.power_w.sum() / greedy_base.power_w.sum())


def branch_and_bound(plan: hf.Plan, t: int, limit_s: float = 10.0) -> tuple[float, float]:
    """Watts of HiGHS' integer program for interval ``t`` and its own bound, in ``limit_s`` seconds."""
    import highspy

    pairs = [(h, w) for w in range(len(plan.workloads)) for h in range(len(plan.servers)) if plan.qps[h, w] > 0]
    n, n_w, n_h = len(pairs), len(plan.workloads), len(plan.servers)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = n, n_w + n_h
    lp.col_cost_ = np.array([plan.server_power_w[pair] for pair in pairs])
    lp.col_lower_ = np.zeros(n)
    lp.col_upper_ = np.array([float(plan.stock[t, h]) for h, _ in pairs])
    lp.row_lower_ = np.concatenate([np.ones(n_w), np.full(n_h, -highspy.kHighsInf)])
    lp.row_upper_ = np.concatenate([np.full(n_w, highspy.kHighsInf), plan.stock[t].astype(np.float64)])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.arange(0, 2 * n + 1, 2, dtype=np.int32)
    lp.a_matrix_.index_ = np.array([row for h, w in pairs for row in (w, n_w + h)], dtype=np.int32)
    demand = plan.demand_qps[t]
    lp.a_matrix_.value_ = np.array([x for h, w in pairs for x in (plan.qps[h, w] / demand[w], 1.0)])
    lp.integrality_ = [highspy.HighsVarType.kInteger] * n
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", limit_s)
    solver.setOptionValue("mip_rel_gap", 1e-3)
    solver.passModel(lp)
    solver.run()
    info = solver.getInfo()
    return float(info.objective_function_value), float(info.mip_dual_bound)


def test_whole_machines_against_branch_and_bound(benchmark) -> None:
    """The built-in week: watts of the rounding against HiGHS' integer program, at peak, trough and every 24th hour."""
    built_in = hf.fleet("zoo10")
    table = hf.profile(built_in.servers, built_in.workloads)
    run = benchmark.pedantic(hf.plan, args=(built_in,), kwargs={"table": table}, rounds=3)
    plan = run.plan
    print("\ninterval        plan W   integer program W (its bound)   plan over it   over the LP bound")
    for t in sorted({plan.peak, plan.trough, *range(12, 168, 24)}):
        exact, bound = branch_and_bound(plan, t)
        assert plan.power_w[t] >= bound * (1 - 1e-3), "nothing is cheaper than the proven bound"
        mark = "peak" if t == plan.peak else "trough" if t == plan.trough else ""
        over_exact, over_bound = (100 * (plan.power_w[t] / w - 1) for w in (exact, plan.bound_w[t]))
        print(
            f"{t:4} {mark:7} {plan.power_w[t]:10.0f}   {exact:10.0f} ({bound:10.0f})"
            f"       {over_exact:6.2f} %   {over_bound:6.2f} %"
        )
    problem = plan.problem()
    over = 100 * (plan.power_w / whole_bound(problem, solve_network(problem)) - 1)
    assert (over > -1e-6).all()
    print(f"over the bound of whole machines, all intervals: mean {over.mean():.2f} %, at most {over.max():.2f} %")
