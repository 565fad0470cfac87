"""``solve``: shapes, every figure on instances done by hand, refusals, and which answers are not believed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast.errors import ConfigError, DTypeError, InputError, InternalError, InterruptedRun, SolverError
from hercules_fast.provisioning import (
    Constrained,
    FailureDomains,
    FairShare,
    Hysteresis,
    PowerCap,
    Solution,
    Switching,
    linear,
    network,
    solve,
    solvers,
    solving,
)

# old: 100 q/s of ads for 200 W, 10 of feed for 100 W; new: 300 of ads for 300 W, 100 of feed for 250 W.
QPS = [[100.0, 10.0], [300.0, 100.0]]
POWER = [[200.0, 100.0], [300.0, 250.0]]
STOCK = [10, 4]
NAMES = {"servers": ("old", "new"), "workloads": ("ads", "feed")}
SOLVERS = ("auto", "network", "highs")


def ask(demand=(900.0, 100.0), stock=STOCK, **more) -> Solution:
    return solve(QPS, POWER, demand, stock, **NAMES | more)


# -- shapes and figures -----------------------------------------------------------------------------------------------


def test_one_interval_has_no_axis_of_time() -> None:
    answer = ask()
    assert answer.servers.tolist() == [[0, 0], [3, 1]]
    assert answer.servers.dtype == np.int64
    assert (answer.power_w, answer.objective_w, answer.bound_w, answer.gap) == (1150.0, 1150.0, 1150.0, 0.0)
    assert answer.status == "optimal"
    for name in ("shed_qps", "headroom_short_qps", "surplus_qps", "exposed_qps"):
        assert getattr(answer, name).tolist() == [0.0, 0.0], name
    assert answer.free_stock.tolist() == [10, 0]
    assert answer.switched_on.tolist() == [0, 0]
    assert answer.load_price_w == pytest.approx([1.0, 2.5])
    assert answer.stock_price_w.shape == (2,)
    assert answer.sparse.machines.tolist() == [3, 1]
    assert answer.constrained is None


def test_a_timeline_has_one() -> None:
    answer = ask([[900.0, 100.0], [300.0, 0.0], [850.0, 90.0]])
    assert answer.servers.tolist() == [[[0, 0], [3, 1]], [[0, 0], [1, 0]], [[0, 0], [3, 1]]]
    assert answer.power_w.tolist() == [1150.0, 300.0, 1150.0]
    assert answer.bound_w == pytest.approx([1150.0, 300.0, 850.0 + 225.0])
    assert answer.gap == pytest.approx([0.0, 0.0, 75.0 / 1150.0])
    assert answer.surplus_qps.tolist() == [[0.0, 0.0], [0.0, 0.0], [50.0, 10.0]]
    assert answer.free_stock.tolist() == [[10, 0], [10, 3], [10, 0]]
    assert answer.switched_on.tolist() == [[0, 0], [0, 0], [0, 3]]
    assert answer.status == ("optimal",) * 3


def test_fractional_machines() -> None:
    answer = ask((850.0, 90.0), integer=False)
    assert answer.servers.dtype == np.float64
    assert answer.servers == pytest.approx(np.array([[0.0, 0.0], [850 / 300, 0.9]]))
    assert answer.power_w == pytest.approx(1075.0)
    assert abs(answer.gap) <= 1e-12
    assert answer.free_stock == pytest.approx([10.0, 4.0 - 850 / 300 - 0.9])


def test_prices_are_what_one_more_unit_is_worth() -> None:
    """1200 q/s of ads and 100 of feed: new ends; the last 100 q/s of ads cost old's 2 W each."""
    answer = ask((1200.0, 100.0), integer=False)
    assert answer.load_price_w[0] == pytest.approx(2.0)
    assert answer.stock_price_w == pytest.approx([0.0, 300.0])  # one more new serves 300 q/s at 1 W instead of 2
    more = ask((1200.0, 100.0), [10, 5], integer=False)
    assert answer.power_w - more.power_w == pytest.approx(300.0)


def test_stock_costs_and_names_over_time() -> None:
    answer = ask([[600.0, 0.0]] * 2, [[10, 4], [10, 1]])
    assert answer.servers[:, :, 0].tolist() == [[0, 2], [3, 1]]
    dear = ask([[300.0, 0.0]] * 2, watt_cost=[[1.0, 1.0], [1.0, 3.0]], machine_cost=[[0.0, 0.0], [5.0, 0.0]])
    assert dear.servers[:, :, 0].tolist() == [[0, 1], [3, 0]]
    assert dear.objective_w.tolist() == [300.0, 3 * 205.0]
    assert dear.power_w.tolist() == [300.0, 600.0]
    grouped = ask((300.0, 0.0), group=[[1, 1], [2, 1]])
    assert grouped.servers[:, 0].tolist() in ([0, 2], [3, 0])  # 600 W either way
    plain = solve(QPS, POWER, (900.0, 100.0), STOCK)
    assert plain.problem.servers == ("0", "1")


def test_several_configurations_of_a_type() -> None:
    """A second way to run new: slower for half the power; the stock is shared."""
    qps = np.array([QPS, [[0.0, 0.0], [200.0, 0.0]]])
    power = np.array([POWER, [[0.0, 0.0], [150.0, 0.0]]])
    answer = solve(qps, power, (900.0, 0.0), STOCK, **NAMES)
    assert answer.servers.shape == (2, 2, 2)
    assert answer.servers[:, 1, 0].tolist() == [1, 3]
    assert answer.power_w == 750.0
    rows = solve(qps.reshape(4, 2), power.reshape(4, 2), [[900.0, 0.0]], STOCK, row_type=[0, 1, 0, 1], **NAMES)
    assert rows.servers.shape == (1, 4, 2)
    assert rows.power_w.tolist() == [750.0]


def test_arrays_may_lie_in_memory_as_they_like() -> None:
    """Transposed views of every matrix give the same answer."""
    given = fleet(7) | {"group": np.random.default_rng(7).integers(1, 4, (6, 5))}
    given["stock"] = np.random.default_rng(8).integers(20, 60, (4, 6))
    given["watt_cost"] = np.random.default_rng(9).uniform(0.5, 2.0, (4, 6))
    plain, turned = solve(**given), solve(**{name: np.asfortranarray(array) for name, array in given.items()})
    assert np.array_equal(plain.servers, turned.servers)
    assert np.array_equal(plain.bound_w, turned.bound_w)
    assert not (turned.servers % given["group"]).any()


def test_shed_load_and_missing_headroom_are_told_apart() -> None:
    """All serves 2200 q/s of ads: 2420 = 2200 and 10 % headroom misses the headroom, 3300 misses 800 of 3000 too."""
    answer = ask([[2420.0, 0.0], [3300.0, 0.0]], headroom=0.1)
    assert answer.load_qps[:, 0] == pytest.approx([2200.0, 3000.0])
    assert answer.shed_qps[:, 0] == pytest.approx([0.0, 800.0])
    assert answer.headroom_short_qps[:, 0] == pytest.approx([220.0, 300.0])
    assert answer.status == ("short", "short")
    by_workload = ask([[2420.0, 0.0], [3300.0, 0.0]], headroom=[0.0, 0.5])
    assert by_workload.shed_qps[:, 0] == pytest.approx([220.0, 1100.0])
    assert np.array_equal(by_workload.servers, answer.servers)


def test_a_penalty_weighs_shed_against_cost() -> None:
    assert ask((300.0, 0.0), shed_penalty=0.5).servers.sum() == 0
    assert ask((300.0, 0.0), shed_penalty=[1.5, 1.0]).servers.tolist() == [[0, 0], [1, 0]]
    both = ask([[300.0, 0.0]] * 2, shed_penalty=[[0.5, 1.0], [1.5, 1.0]])
    assert both.power_w.tolist() == [0.0, 300.0]
    assert both.objective_w.tolist() == [150.0, 300.0]


# -- infeasible load --------------------------------------------------------------------------------------------------


def test_a_load_that_does_not_fit_is_explained() -> None:
    """By hand: 10 old and 3.33 new serve 2000 q/s of ads, which leaves 66.7 of 900 q/s of feed; 9 more new serve it."""
    answer = ask([[900.0, 100.0], [2000.0, 900.0]], integer=False)
    assert (answer.linear.penalty_w_per_qps[1] * answer.shed_qps[1]).sum() > 0
    words = answer.explain()
    for part in (
        "stock of 'new' binds in 1 of 2 intervals; one more would serve load that is not covered in interval 1",
        "stock of 'old' binds in 1 of 2 intervals",
        "not served in 1 of 2 intervals, at worst",
        "would be covered with 9 more new (the fewest machines)",
        "would be covered with 92.6 % less load of feed (fractional machines)",
    ):
        assert part in words, part
    assert "SHORT" not in ask().explain()


def test_constraints_that_stand_in_the_way_are_not_mistaken_for_stock() -> None:
    cap = PowerCap(name="row", servers=["new"], limit_w=299.0)
    words = ask((1300.0, 0.0), constraints=[cap]).explain()
    assert "power cap 'row' binds in 1 of 1 intervals" in words
    assert "workload 'ads': not served 300 q/s (23.1 %)" in words
    assert "the stock alone would cover all of it (fractional machines); constraints stand in the way" in words
    short = ask((2300.0, 0.0), constraints=[cap]).explain()
    assert "without the constraints: would be covered with 1 more" in short


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"qps": [[1.0, np.nan], [1.0, 1.0]]}, InputError, "qps: server 'old', workload 'feed' is nan; allowed: 0, or"),
        ({"qps": [[-1.0, 1.0], [1.0, 1.0]]}, InputError, "qps: server 'old', workload 'ads' is -1"),
        ({"qps": [1.0, 1.0]}, InputError, "qps: has 1 dimensions"),
        ({"power_w": [[1.0, 1.0], [np.inf, 1.0]]}, InputError, "power_w: server 'new', workload 'ads' is inf"),
        ({"power_w": [[1.0, 1.0]]}, InputError, r"power_w: shape \(1, 2\); needed: \(2, 2\)"),
        ({"qps": np.ones((2, 2, 2))}, InputError, r"power_w: shape \(2, 2\); needed: \(2, 2, 2\) = that of qps"),
        (
            {"qps": np.ones((1, 2, 2)), "power_w": np.ones((1, 2, 2)), "row_type": [0, 1]},
            InputError,
            "row_type: with qps",
        ),
        ({"demand_qps": [[1.0, 1.0], [1.0, np.nan]]}, InputError, "demand_qps: interval 1, workload 'feed' is nan"),
        ({"demand_qps": [1.0]}, InputError, r"demand_qps: shape \(1, 1\); needed: \(1, 2\)"),
        ({"demand_qps": 1.0}, InputError, "demand_qps: has 0 dimensions"),
        ({"demand_qps": ["much", "more"]}, DTypeError, "demand_qps: dtype <U4 is not numeric"),
        ({"stock": [1, -1]}, InputError, "stock: server 'new' has -1; allowed: 0 to 10000000"),
        ({"stock": [[1, 1], [1, 1]]}, InputError, r"stock: shape \(2, 2\); needed: \(1, 2\)"),
        ({"stock": [1.5, 1.0]}, DTypeError, "stock: dtype float64 does not count machines"),
        ({"watt_cost": [[1.0, 0.0]]}, InputError, "watt_cost: interval 0, server 'new' is 0"),
        ({"group": [[0, 1], [1, 1]]}, InputError, r"group: \[0, 0\] is 0; allowed: 1 to"),
        ({"servers": ("a", "a")}, InputError, "servers: 'a' stands there twice"),
        ({"solver": "simplex"}, InputError, "solver: 'simplex'; allowed: 'auto', 'highs', 'network'"),
        ({"shed_penalty": [1.0, -1.0]}, InputError, "penalty: interval 0, workload 'feed' is -1"),
        ({"headroom": -0.1}, InputError, "headroom: -0.1; allowed: 0 to 1000"),
        ({"headroom": [0.1]}, InputError, r"headroom: \[0.1\]; allowed: a number, or one for each of 2 workloads"),
        ({"threads": 0}, InputError, "threads"),
        (
            {"constraints": PowerCap(name="c", servers=["old"], limit_w=1.0)},
            DTypeError,
            "constraints: PowerCap; needed",
        ),
        ({"constraints": ["cap"]}, ConfigError, r"constraints\[0\]: is a str; allowed: PowerCap"),
    ],
)
def test_refusals_name_field_and_place_before_any_solve(changes, error, message, monkeypatch) -> None:
    if "shed_penalty" not in changes and "threads" not in changes:  # seen at the door of the solver
        for name in ("solve_network", "solve_linear"):
            monkeypatch.setattr(solvers, name, lambda *_, **__: pytest.fail("a solver was called"))
    given = {"qps": QPS, "power_w": POWER, "demand_qps": [900.0, 100.0], "stock": STOCK} | NAMES | changes
    with pytest.raises(error, match=message):
        solve(**given)


def test_the_network_solver_refuses_what_breaks_the_network() -> None:
    rules = [PowerCap(name="row 4", servers=["old"], limit_w=1.0), FairShare()]
    with pytest.raises(InputError, match="solver: 'network', which cannot hold PowerCap 'row 4', FairShare; allowed"):
        ask(constraints=rules, solver="network")
    assert ask(constraints=rules, solver="highs").servers.tolist() == ask(constraints=rules).servers.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_safe_domains_alone_are_a_network(seed) -> None:
    """All solvers find the linear optimum; whole machines keep stock and survive any one failure."""
    given = fleet(seed) | {
        "constraints": [FailureDomains(domain_of={str(h): "abc"[h % 3] for h in range(6)}, mode="safe")]
    }
    given["demand_qps"] = given["demand_qps"] * (0.1 if seed % 2 else 1.2)  # with and without shortage
    loose = [solve(**given, solver=name, integer=False) for name in SOLVERS]
    full = ~(loose[0].shed_qps + loose[0].exposed_qps).any(axis=1)  # elsewhere parts have weights of their own
    assert full.any() or seed % 2 == 0
    for answer in loose:
        assert np.abs(answer.gap).max() <= 1e-9
        assert answer.objective_w[full] == pytest.approx(loose[0].objective_w[full], rel=1e-8)
    assert loose[0].cross_check is not None
    assert loose[0].linear.solver == ("network",) * 4
    whole = solve(**given)
    assert (whole.objective_w >= whole.bound_w * (1 - 1e-9)).all()
    assert (whole.servers.sum(axis=2) <= whole.problem.stocks).all()
    rate = whole.servers * whole.problem.qps
    for f in range(3):
        left = rate.sum(axis=1) - rate[:, f::3].sum(axis=1)
        assert (left >= whole.problem.demand_qps * (1 - 1e-9) - whole.exposed_qps).all()


# -- solvers ----------------------------------------------------------------------------------------------------------


def fleet(seed: int, n_t: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    qps = rng.uniform(10, 1000, (6, 5)) * (rng.random((6, 5)) < 0.8)
    stock = rng.integers(1, 60, 6)
    demand = rng.uniform(0.02, 0.4, (n_t, 5)) * (qps * stock[:, None]).sum(axis=0)
    return {"qps": qps, "power_w": rng.uniform(100, 700, (6, 5)), "demand_qps": demand, "stock": stock}


@pytest.mark.parametrize("seed", range(12))
def test_all_solvers_agree(seed) -> None:
    answers = [solve(**fleet(seed), solver=name, integer=False) for name in SOLVERS]
    for answer in answers:
        assert answer.objective_w == pytest.approx(answers[0].objective_w, rel=1e-8)
        assert answer.shed_qps.sum(axis=1) == pytest.approx(answers[0].shed_qps.sum(axis=1), rel=1e-6, abs=1e-6)
        assert np.abs(answer.gap).max() <= 1e-9
    whole = [solve(**fleet(seed), solver=name) for name in SOLVERS]
    for answer, loose in zip(whole, answers, strict=True):
        assert (answer.objective_w >= loose.bound_w * (1 - 1e-9)).all()
        assert ((answer.servers.sum(axis=2) + answer.free_stock) == answer.problem.stocks).all()


def test_the_same_bytes_on_any_number_of_threads() -> None:
    ours = [solve(**fleet(3, 40), threads=n) for n in (1, 2, 3)]
    for other in ours[1:]:
        assert np.array_equal(ours[0].servers, other.servers)
        assert np.array_equal(ours[0].bound_w, other.bound_w)


def test_auto_is_checked_by_highs_and_the_others_are_not() -> None:
    check = ask([[300.0, 0.0], [900.0, 100.0]]).cross_check
    assert check is not None
    assert (check.interval, check.objective_w) == (1, pytest.approx(1150.0))
    assert abs(check.difference) <= 1e-9
    assert "HiGHS finds the same optimum in the dearest interval" in check.words()
    apart = dataclasses.replace(check, difference=-2e-5)
    assert "differs by 2e-05" in apart.words()
    assert ask(solver="network").cross_check is ask(solver="highs").cross_check is None
    assert ask(constraints=[FairShare()]).cross_check is None


def broken(monkeypatch, *, times: int) -> list[int]:
    """The core's answer to interval 1 of a timeline, and to it alone ``times - 1`` times more, is 1 % off its bound."""
    asked: list[int] = []

    def off(original):
        def answer(problem, *more, **options):
            right = original(problem, *more, **options)
            asked.append(problem.n_intervals)
            if len(asked) > times:
                return right
            bound = right.bound_w.copy()
            bound[-1 if problem.n_intervals == 1 else 1] *= 0.99
            return dataclasses.replace(right, bound_w=bound)

        return answer

    monkeypatch.setattr(solvers, "solve_network", off(network.solve_network))
    monkeypatch.setattr(network, "solve_at", off(network.solve_at))
    return asked


@pytest.mark.parametrize("penalty", [None, [[3.0, 5.0]] * 3])
@pytest.mark.parametrize(("times", "solver"), [(1, "network"), (2, "highs")])
def test_an_answer_off_its_certificate_is_solved_again(times, solver, penalty, monkeypatch) -> None:
    """Cold first, then by HiGHS; the rest of the timeline stays."""
    demand = [[900.0, 100.0], [1250.0, 90.0], [600.0, 0.0]]
    right = ask(demand, integer=False, shed_penalty=penalty)
    assert right.linear.resolved == ()
    asked = broken(monkeypatch, times=times)
    answer = ask(demand, integer=False, shed_penalty=penalty)
    assert asked == [3, 1]
    assert answer.linear.resolved == (1,)
    assert answer.linear.solver == ("network", solver, "network")
    assert np.abs(answer.gap).max() <= 1e-9
    assert answer.servers == pytest.approx(right.servers)
    assert answer.bound_w == pytest.approx(right.bound_w)
    broken(monkeypatch, times=1)
    assert ask(demand, integer=False, solver="network").gap[1] == pytest.approx(0.01, rel=1e-3), "asked for as it is"


def test_two_certified_optima_that_differ_are_a_fault(monkeypatch) -> None:
    original = linear.solve_at

    def cheaper(*given):
        answer = original(*given)
        return dataclasses.replace(answer, objective_w=0.9 * answer.objective_w, bound_w=0.9 * answer.bound_w)

    monkeypatch.setattr(linear, "solve_at", cheaper)
    with pytest.raises(InternalError, match=r"interval 0: the network simplex method finds .* and each is certified"):
        ask()


def test_ctrl_c_while_the_answer_is_checked_keeps_the_answer(monkeypatch) -> None:
    right = ask([[900.0, 100.0], [300.0, 0.0]])

    def interrupted(*_):
        raise InterruptedRun("stopped after 0 of 1 intervals")

    monkeypatch.setattr(linear, "solve_at", interrupted)
    with pytest.raises(InterruptedRun, match="after 2 of 2 intervals, while they were checked") as stopped:
        ask([[900.0, 100.0], [300.0, 0.0]])
    assert stopped.value.partial.servers.tolist() == right.servers.tolist()


def test_groups_of_choices_have_the_shape_of_their_rates() -> None:
    rates = [[[100.0], [300.0]], [[120.0], [0.0]]]  # [C, H, W]
    given = {"power_w": [[[200.0], [300.0]], [[260.0], [300.0]]], "demand_qps": [900.0], "stock": [10, 4]}
    with pytest.raises(InputError, match=r"group: shape \(4, 1\); needed: \(2, 2, 1\) = that of qps"):
        hf.provisioning.solve(rates, **given, group=[[1], [1], [2], [1]])
    answer = hf.provisioning.solve(rates, **given, group=[[[2], [1]], [[2], [1]]])
    assert not (answer.servers[:, 0] % 2).any()


def test_a_cap_that_binds_is_named_in_any_currency() -> None:
    """Five minutes at 0.005 a kWh: a watt costs 4e-7."""
    cap = hf.provisioning.PowerCap(name="row", servers=("new",), limit_w=600.0)
    given = {"qps": [[100.0], [300.0]], "power_w": [[200.0], [300.0]], "demand_qps": [[900.0]], "stock": [10, 4]}
    answer = hf.provisioning.solve(
        **given, watt_cost=[[4e-7, 4e-7]], servers=("old", "new"), constraints=[cap], integer=False
    )
    assert any("power cap 'row' binds" in line for line in answer.binding)


def test_what_the_core_gives_up_is_left_to_highs(monkeypatch) -> None:
    right = ask([[900.0, 100.0], [300.0, 0.0]])

    def gives_up(*_, **__):
        raise SolverError("rates too far apart")

    monkeypatch.setattr(solvers, "solve_network", gives_up)
    answer = ask([[900.0, 100.0], [300.0, 0.0]])
    assert answer.linear.resolved == (0, 1)
    assert answer.linear.solver == ("highs", "highs")
    assert answer.servers.tolist() == right.servers.tolist()
    with pytest.raises(SolverError, match="too far apart"):
        ask(solver="network")


def test_an_answer_above_the_stock_is_never_returned(monkeypatch) -> None:
    original = solving.whole_machines

    def more(problem, linear, **options):
        whole = original(problem, linear, **options)
        return dataclasses.replace(whole, machines=whole.machines + 4)

    monkeypatch.setattr(solving, "whole_machines", more)
    with pytest.raises(InternalError, match="whole plan, interval 0: more 'new' than its stock of 4"):
        ask()


# -- constraints ------------------------------------------------------------------------------------------------------


def test_constraints_are_part_of_the_same_answer() -> None:
    demand = [[600.0, 0.0], [900.0, 0.0], [300.0, 0.0]]
    rules = [
        PowerCap(name="row", servers=["new"], limit_w=700.0),
        FailureDomains(domain_of={"old": "a", "new": "b"}),
        Switching(cost_on={"old": 10.0}, horizon=3),
    ]
    answer = ask(demand, constraints=rules)
    said = answer.constrained
    assert isinstance(said, Constrained)
    assert answer.servers[:, :, 0].tolist() == [[6, 2], [6, 2], [3, 1]]
    assert answer.exposed_qps[:, 0].tolist() == [0.0, 300.0, 0.0]  # two new are all that the cap allows
    assert answer.switched_on.tolist() == said.switched_on.tolist()
    assert said.cap_price.shape == (3, 1)
    assert said.tied
    assert len(set(answer.gap.tolist())) == 1
    assert any("power cap 'row'" in line for line in answer.binding)
    single = ask(constraints=[FairShare()])
    assert single.servers.tolist() == ask().servers.tolist()
    assert (single.power_w, single.status) == (1150.0, "optimal")
    assert single.gap == pytest.approx(0.0, abs=1e-9)


def test_figures_by_type_may_be_named() -> None:
    demand = [[300.0, 0.0], [900.0, 0.0], [300.0, 0.0]]
    for rule, same in (
        (Switching(cost_on={"new": 50.0}, horizon=3), Switching(cost_on=[0.0, 50.0], horizon=3)),
        (Switching(ramp={"new": 1}, horizon=3), Switching(ramp=[10, 1], horizon=3)),
        (Switching(min_up_intervals={"new": 2}), Switching(min_up_intervals=[1, 2])),
    ):
        named, listed = ask(demand, constraints=[rule]), ask(demand, constraints=[same])
        assert np.array_equal(named.servers, listed.servers)
        assert np.array_equal(named.bound_w, listed.bound_w)
    with pytest.raises(ConfigError, match=r"Switching\.ramp: unknown server 'newt' \(known: old, new\)"):
        ask(demand, constraints=[Switching(ramp={"newt": 1})])
    with pytest.raises(ConfigError, match=r"Switching\.ramp\['new'\]: is -1; allowed: whole numbers from 0"):
        ask(demand, constraints=[Switching(ramp={"new": -1})])


def test_penalty_and_headroom_under_constraints() -> None:
    cap = PowerCap(name="row", servers=["new"], limit_w=299.0)
    answer = ask((1100.0, 0.0), constraints=[cap], headroom=0.1)
    assert answer.shed_qps[0] == 0.0
    assert answer.headroom_short_qps[0] == pytest.approx(100.0)
    assert ask((1000.0, 0.0), constraints=[cap], shed_penalty=1.9).servers.sum() == 0


# -- Ctrl-C and progress ----------------------------------------------------------------------------------------------


def test_ctrl_c_returns_the_intervals_done(monkeypatch) -> None:
    """In the linear program, in whole machines, and under constraints."""
    demand = [[900.0, 100.0], [300.0, 0.0], [850.0, 90.0]]
    whole = ask(demand, headroom=0.25)
    network, rounding = solving.solve_program, solving.whole_machines

    def first_two(problem, **options):
        raise InterruptedRun("stopped after 2 of 3 intervals", network(problem.first(2), **options)[0])

    def first_one(problem, linear, **options):
        raise InterruptedRun("stopped after 1 of 3 intervals", rounding(problem.first(1), linear.first(1), **options))

    for name, stop, done in (("solve_program", first_two, 2), ("whole_machines", first_one, 1)):
        with monkeypatch.context() as patch:
            patch.setattr(solving, name, stop)
            with pytest.raises(InterruptedRun, match=f"stopped after {done} of 3 intervals") as caught:
                ask(demand, headroom=0.25)
        partial = caught.value.partial
        assert isinstance(partial, Solution)
        assert np.array_equal(partial.servers, whole.servers[:done])
        assert np.array_equal(partial.load_qps, whole.load_qps[:done])
        assert len(partial.gap) == done

    def enough(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun, match="stopped after 2 of 3 intervals") as caught:
        ask(demand, headroom=0.25, constraints=[Hysteresis()], progress=enough)
    assert caught.value.partial.servers.shape == (2, 2, 2)
    assert caught.value.partial.load_qps == pytest.approx(whole.load_qps[:2])


def test_ctrl_c_before_the_first_interval_leaves_nothing(monkeypatch) -> None:
    def none(*_, **__):
        raise InterruptedRun("stopped after 0 of 1 intervals", None)

    monkeypatch.setattr(solving, "solve_program", none)
    with pytest.raises(InterruptedRun) as caught:
        ask()
    assert caught.value.partial is None


@pytest.mark.parametrize("constraints", [(), (FairShare(),)])
def test_progress_counts_intervals(constraints) -> None:
    seen = []
    ask([[900.0, 100.0]] * 5, constraints=constraints, progress=lambda *at: seen.append(at), threads=1)
    assert seen[-1] == (5, 5)
    assert [at[0] for at in seen] == sorted(at[0] for at in seen)


def test_the_name_is_where_it_is_looked_for() -> None:
    assert hf.provisioning.solve is solve
