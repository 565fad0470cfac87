"""Constraints by example, on instances that can be followed by hand; bad ones refused by name; Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from hercules_fast.errors import ConfigError, InputError, InternalError, InterruptedRun, SolverError
from hercules_fast.provisioning import (
    FailureDomains,
    FairShare,
    Hysteresis,
    PowerCap,
    Problem,
    Switching,
    constrained,
    highs,
    master,
    solve_constrained,
    solve_linear,
)


def two(demand_qps, stock=(10, 10), **more):
    """Type "old" serves 100 q/s for 200 W, "new" 100 q/s for 100 W; one workload."""
    return Problem(
        qps=[[100.0], [100.0]],
        power_w=[[200.0], [100.0]],
        demand_qps=np.reshape(demand_qps, (-1, 1)),
        stock=stock,
        servers=("old", "new"),
        workloads=("ads",),
        **more,
    )


def on(answer):
    """[T][H] machines of the only workload."""
    return answer.servers[:, :, 0].tolist()


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_a_cap_sends_load_to_dearer_servers_and_says_what_it_costs():
    cap = PowerCap(name="rack 7", servers=("new",), limit_w=250.0)
    answer = solve_constrained(two([500.0]), [cap])
    assert on(answer) == [[3, 2]]
    assert answer.objective_w.tolist() == [800.0]
    linear = solve_constrained(two([500.0]), [cap], integer=False)
    assert on(linear) == pytest.approx(np.array([[2.5, 2.5]]))
    assert linear.constrained.cap_price[0, 0] == pytest.approx(1.0)  # a watt more moves 1 q/s from 2 W to 1 W
    assert linear.binding == ("power cap 'rack 7' binds in 1 of 1 intervals; one more W would save 1 in interval 0",)


def test_a_cap_may_change_over_time_and_caps_may_nest():
    caps = [
        PowerCap(name="rack", servers=("new",), limit_w=[1000.0, 200.0]),
        PowerCap(name="site", servers=("old", "new"), limit_w=[400.0, 700.0]),
    ]
    answer = solve_constrained(two([500.0, 500.0]), caps)
    assert on(answer) == [[0, 4], [2, 2]]
    assert answer.shed_qps[:, 0].tolist() == [100.0, 100.0]


def test_a_failure_domain_is_covered_twice():
    rule = FailureDomains(domain_of={"old": "north", "new": "south"})
    answer = solve_constrained(two([500.0]), [rule])
    assert on(answer) == [[5, 5]]
    assert not answer.exposed_qps.any()
    short = solve_constrained(two([500.0], stock=(3, 10)), [rule])
    assert on(short) == [[3, 3]]  # more of the new ones would only be lost with their domain
    assert short.shed_qps.tolist() == [[0.0]]
    assert short.exposed_qps.tolist() == [[200.0]]


def test_exact_failures_know_how_load_is_spread_and_safe_ones_do_not():
    """Three domains with 1, 4 and 4 machines: safe asks each for half the load, exact takes what is there."""
    problem = Problem(
        qps=np.full((3, 1), 100.0),
        power_w=np.full((3, 1), 100.0),
        demand_qps=[[400.0]],
        stock=[1, 4, 4],
        servers=("a", "b", "c"),
    )
    domains = {"a": "x", "b": "y", "c": "z"}
    exact = solve_constrained(problem, [FailureDomains(domain_of=domains)])
    assert not exact.exposed_qps.any()
    assert exact.power_w.tolist() == [700.0]
    safe = solve_constrained(problem, [FailureDomains(domain_of=domains, mode="safe")])
    assert on(safe) == [[1, 2, 2]]
    assert safe.exposed_qps.tolist() == [[100.0]]
    enough = Problem(
        qps=problem.qps, power_w=problem.power_w, demand_qps=[[400.0]], stock=[2, 4, 4], servers=("a", "b", "c")
    )
    safe = solve_constrained(enough, [FailureDomains(domain_of=domains, mode="safe")])
    assert on(safe) == [[2, 2, 2]]
    assert not safe.exposed_qps.any()


def test_a_workload_that_nothing_can_protect_is_still_served():
    problem = Problem(
        qps=[[100.0, 100.0], [100.0, 0.0]],
        power_w=np.full((2, 2), 100.0),
        demand_qps=[[100.0, 100.0]],
        stock=[5, 5],
        servers=("a", "b"),
    )
    for mode in ("exact", "safe"):
        answer = solve_constrained(problem, [FailureDomains(domain_of={"a": "x", "b": "y"}, mode=mode)])
        assert answer.servers[0].tolist() == [[1, 1], [1, 0]]
        assert not answer.shed_qps.any()
        assert answer.exposed_qps.tolist() == [[0.0, 100.0]]


def test_switching_cost_keeps_machines_on_through_a_dip():
    problem = two([500.0, 100.0, 500.0])
    dear = solve_constrained(problem, [Switching(cost_on=150.0, horizon=3)])
    cheap = solve_constrained(problem, [Switching(cost_on=50.0, horizon=3)])
    assert on(dear) == [[0, 5], [0, 5], [0, 5]]
    assert on(cheap) == [[0, 5], [0, 1], [0, 5]]
    assert cheap.objective_w.tolist() == [500.0, 100.0, 700.0]
    assert cheap.switched_on.tolist() == [[0, 0], [0, 0], [0, 4]]
    short_sighted = solve_constrained(problem, [Switching(cost_on=150.0, horizon=1)])
    assert on(short_sighted) == [[0, 5], [0, 1], [0, 5]]


def test_a_ramp_is_climbed_in_time():
    answer = solve_constrained(two([100.0, 100.0, 500.0]), [Switching(ramp=2, horizon=3, initial={"new": 1})])
    before = {"new": 1, "old": 0}
    for now in on(answer):
        assert now[0] - before["old"] <= 2
        assert now[1] - before["new"] <= 2
        before = {"old": now[0], "new": now[1]}
    assert not answer.shed_qps.any()
    # Seen too late, the climb is not made.
    late = solve_constrained(two([100.0, 100.0, 900.0]), [Switching(ramp=1, horizon=1, initial={"new": 1})])
    assert late.shed_qps[2, 0] == pytest.approx(900.0 - 100.0 * sum(on(late)[2]))
    assert late.shed_qps[2, 0] > 0


def test_a_machine_stays_on_for_its_minimum_up_time():
    problem = two([100.0, 500.0, 100.0, 100.0, 100.0])
    rule = Switching(min_up_intervals=3, horizon=3, initial={"new": 1})
    assert on(solve_constrained(problem, [rule])) == [[0, 1], [0, 5], [0, 4], [0, 4], [0, 1]]


def test_no_machine_is_switched_on_that_a_later_cap_forbids_to_keep():
    """The window is as long as the minimum up-time, so the cap is seen in time."""
    problem = two([500.0, 500.0, 500.0])
    cap = PowerCap(name="rack", servers=("old", "new"), limit_w=[1000.0, 1000.0, 300.0])
    answer = solve_constrained(problem, [Switching(min_up_intervals=2, horizon=2, initial={}), cap])
    assert on(answer) == [[0, 5], [0, 5], [0, 3]]
    late = solve_constrained(two([0.0, 500.0, 500.0]), [Switching(min_up_intervals=2, horizon=2, initial={}), cap])
    assert on(late) == [[0, 0], [0, 3], [0, 3]]


def test_hysteresis_keeps_a_plan_that_is_good_enough():
    problem = two([500.0, 490.0, 380.0, 520.0])
    kept = solve_constrained(problem, [Hysteresis(tolerance=0.1)])
    assert on(kept) == [[0, 5], [0, 5], [0, 4], [0, 6]]
    assert kept.status == ("optimal", "kept", "optimal", "optimal")
    slack = solve_constrained(problem, [Hysteresis(tolerance=0.4)])
    assert on(slack) == [[0, 5], [0, 5], [0, 5], [0, 6]]


def test_fair_share_divides_what_there_is():
    problem = Problem(
        qps=[[100.0, 10.0]], power_w=[[100.0, 100.0]], demand_qps=[[1000.0, 100.0]], stock=[10], workloads=("a", "b")
    )
    fair = solve_constrained(problem, [FairShare()], integer=False)
    assert fair.constrained.served_share[0] == pytest.approx([0.5, 0.5])
    assert fair.servers[0] == pytest.approx(np.array([[5.0, 5.0]]))
    whole = solve_constrained(problem, [FairShare()])
    assert whole.servers[0].tolist() == [[5, 5]]


def test_groups_come_whole():
    problem = two([250.0], group=[[1], [4]])
    answer = solve_constrained(problem, [])
    assert on(answer) == [[0, 4]]
    dear = solve_constrained(problem, [PowerCap(name="rack", servers=("new",), limit_w=399.0)])
    assert on(dear) == [[3, 0]]


def test_a_penalty_of_the_caller_weighs_shed_against_cost():
    for price, machines in ((1.5, 5), (0.5, 0)):
        answer = solve_constrained(two([500.0]), [], penalty=[price])
        assert on(answer) == [[0, machines]]
        assert answer.objective_w.tolist() == [min(500.0, 500.0 * price)]


# -- bad input --------------------------------------------------------------------------------------------------------


def test_machines_on_before_are_told_by_type():
    with pytest.raises(ConfigError, match=r"Switching\.initial: is \[1, 2\]; needed: a mapping by server type"):
        solve_constrained(two([1.0]), [Switching(initial=[1, 2])])


def test_all_faults_at_once():
    constraints = [
        PowerCap(name="r", servers=("old", "odd"), limit_w=-1.0),
        PowerCap(name="r", servers=(), limit_w=[1.0]),
        FailureDomains(domain_of={"old": "x", "newt": "y"}, k=2, mode="fast"),
        Switching(cost_on=float("nan"), ramp=1.5, min_up_intervals=[1, 9], horizon=2, initial={"odd": 1, "old": -1}),
        Hysteresis(tolerance=-0.1),
        FairShare(),
        FairShare(),
        "cap",
    ]
    with pytest.raises(ConfigError) as caught:
        solve_constrained(two([1.0, 2.0]), constraints)
    text = str(caught.value)
    for part in (
        "constraints[0] PowerCap 'r'.servers: unknown server 'odd' (known: old, new)",
        "PowerCap 'r'.limit_w: is -1.0; allowed: 1e-06 to 1e+15",
        "constraints[1] PowerCap 'r'.servers: is (); needed",
        "constraints[1] PowerCap 'r'.name: stands there twice",
        "PowerCap 'r'.limit_w: has 1 figures; needed: one, or 2 = intervals",
        "server 'new' has no domain",
        "unknown server 'newt'",
        "constraints[2] FailureDomains.k: is 2; allowed: whole numbers from 1 to 1",
        "constraints[2] FailureDomains.mode: is 'fast'; allowed: 'exact', 'safe'",
        "constraints[3] Switching.cost_on: is nan; allowed: 0 to 1e+12",
        "constraints[3] Switching.ramp: is 1.5; allowed: whole numbers",
        "constraints[3] Switching.horizon: is 2 intervals; allowed: at least the longest min_up_intervals, 9",
        "constraints[3] Switching.initial: unknown server 'odd'",
        "constraints[3] Switching.initial['old']: is -1",
        "constraints[4] Hysteresis.tolerance: is -0.1; allowed: 0 to 10",
        "constraints[6] FairShare: is the second of its kind, after constraints[5]",
        "constraints[7]: is a str; allowed: PowerCap",
        "constraints: Switching and Hysteresis are two answers to one question",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_limit_s": -1.0}, "time_limit_s: -1.0; allowed: 0 to 1e"),
        ({"mip_gap": float("nan")}, "mip_gap: nan; allowed: 0 to 1"),
        ({"penalty": [1.0, 2.0]}, r"penalty: shape \(2,\), dtype float64; needed: numbers, \(1,\) or \(2, 1\)"),
        ({"penalty": [float("inf")]}, "penalty: interval 0, workload 'ads' is inf; allowed: 1e-15 to 1e"),
        ({"penalty": [[1.0], [-1.0]]}, "penalty: interval 1, workload 'ads' is -1; allowed"),
        ({"penalty": ["dear"]}, "penalty: shape .* dtype <U4; needed: numbers"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        solve_constrained(two([1.0, 2.0]), [], **arguments)


def test_a_plan_that_breaks_a_constraint_is_never_returned(monkeypatch):
    def one_more(self, what):
        values, status = found(self, what)
        return values + 3.0, status

    found = highs.Solver.run_integer
    monkeypatch.setattr(highs.Solver, "run_integer", one_more)
    monkeypatch.setattr(constrained._Run, "_score", lambda *_: (0.0, 0.0))
    cap = PowerCap(name="rack", servers=("new",), limit_w=250.0)
    with pytest.raises(InternalError, match=r"interval 0: the plan breaks cap 'rack': 500 of 250 W"):
        solve_constrained(two([500.0]), [cap])


# -- the solver -------------------------------------------------------------------------------------------------------


def test_a_status_that_is_no_answer_is_named(monkeypatch):
    original = highs.Solver.run_integer

    def no_time(self, what):
        self.highs.setOptionValue("objective_bound", -1e30)
        self.highs.passModel(type(self.highs.getLp())())
        return original(self, what)

    monkeypatch.setattr(highs.Solver, "run_integer", no_time)
    with pytest.raises(SolverError, match="interval 0, whole machines: HiGHS ended with status 'Empty'"):
        solve_constrained(two([500.0]), [])


def test_without_time_the_rounding_is_the_answer():
    answer = solve_constrained(two([500.0, 250.0]), [], time_limit_s=0.0)
    assert on(answer) == [[0, 5], [0, 3]]
    assert not answer.shed_qps.any()


def test_a_start_that_presolve_improves_on_does_not_come_back():
    """An instance on which HiGHS 1.16.0 returns the start beside the objective of a better answer."""
    problem = Problem(
        qps=[[28.26841816, 13.09999838], [54.8404542, 35.12806458], [42.09899477, 15.52481417]],
        power_w=[[374.88634231, 352.12328815], [218.11032363, 305.12442787], [242.07162327, 274.35325276]],
        demand_qps=[[89.83250147, 63.66316205]],
        stock=[1, 2, 2],
        servers=("a", "b", "c"),
    )
    caps = [
        PowerCap(name="rack", servers=("a", "b"), limit_w=296.95886091),
        PowerCap(name="site", servers=("a", "b", "c"), limit_w=1151.2763370450211),
    ]
    answer = solve_constrained(problem, caps, penalty=[153.71489141, 311.55974342])
    assert answer.servers[0].tolist() == [[0, 0], [1, 0], [1, 1]]


def test_another_user_of_the_solver_in_the_process_is_no_error():
    """The number of threads is the process's, fixed by whoever solves first."""
    program = """
import highspy
first = highspy.Highs()
first.setOptionValue("output_flag", False)
first.setOptionValue("threads", 2)
first.addVar(0.0, 1.0)
first.run()
from tests.unit.test_provision_constraints import on, solve_constrained, two
print(on(solve_constrained(two([500.0]), [])))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[[0, 5]]\n")


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solve", [solve_linear, lambda problem: solve_constrained(problem, [Hysteresis()])])
def test_ctrl_c_keeps_the_intervals_done(solve, monkeypatch):
    problem = two([500.0, 300.0, 100.0, 200.0])
    original = master.TwoStage.solve

    def interrupted(self, start, state, *more):
        if start == 2:
            raise KeyboardInterrupt
        return original(self, start, state, *more)

    whole = solve(problem)
    monkeypatch.setattr(master.TwoStage, "solve", interrupted)
    with pytest.raises(InterruptedRun, match="stopped after 2 of 4 intervals") as caught:
        solve(problem)
    partial = caught.value.partial
    assert np.array_equal(partial.servers, whole.servers[:2])
    assert np.array_equal(partial.bound_w, whole.bound_w[:2])


def test_ctrl_c_before_the_first_interval_leaves_nothing(monkeypatch):
    monkeypatch.setattr(master.TwoStage, "solve", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(InterruptedRun, match="stopped after 0 of 1 intervals") as caught:
        solve_linear(two([500.0]))
    assert caught.value.partial is None


def test_ctrl_c_is_heard_inside_a_long_search():
    """Branch and bound that would take its 1000 s: a real signal ends it, and the solver works on."""
    rng = np.random.default_rng(0)
    problem = Problem(
        qps=rng.uniform(100, 1000, (40, 40)),
        power_w=rng.uniform(100, 700, (40, 40)),
        demand_qps=rng.uniform(2e4, 4e4, (1, 40)),
        stock=np.full(40, 60),
    )
    domains = FailureDomains(domain_of={str(h): str(h % 5) for h in range(40)})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner may have it ignored
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(InterruptedRun, match="stopped after 0 of 1 intervals"):
            solve_constrained(problem, [domains], mip_gap=0.0, time_limit_s=1000.0)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert on(solve_constrained(two([500.0]), [])) == [[0, 5]]
