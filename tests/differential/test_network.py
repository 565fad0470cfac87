"""The solvers of provisioning's linear program against plain HiGHS, on random, degenerate and overloaded fleets.

``two_stages`` is the referee: least weighted shed first, then least power at that shed, HiGHS both times, on a model of
its own; rates of twelve decades are judged by the simplex over fractions. Where all load is served, weak duality judges
the answer too, without any solver. A few hundred fleets run with all tests; ``make check-lp`` runs ten thousand random
ones and a thousand degenerate ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import highspy
import numpy as np
import pytest

from hercules_fast import provisioning
from hercules_fast.errors import HerculesError, SolverError
from hercules_fast.provisioning import solvers
from hercules_fast.provisioning.linear import PENALTY_RANGE, assignment_cost, solve_linear
from hercules_fast.provisioning.network import solve_network
from hercules_fast.provisioning.problem import Problem
from hercules_fast.provisioning.relaxed import shed_penalties
from hercules_fast.provisioning.solving import verify
from tests.reference.provisioning import linear_optimum
from tests.small_fleets import DEGENERATE, SmallFleet, degenerate, in_and_out_of_shortage, ordinary

OBJECTIVE_TOL, SHED_TOL, GAP_TOL = 1e-7, 1e-9, 1e-9
ROUNDING = 1e-15  # of the terms of a certificate
BLOCK = 100
SHED_FACTOR = 20.0  # as documented: default weight of a q/s, in terms of the dearest watts per q/s of its workload


def solved(fleet: SmallFleet, solver: str = "network", threads: int = 1, **more):
    arrays = (fleet.qps, fleet.power_w, fleet.demand_qps, fleet.stock)
    return provisioning.solve(*arrays, row_type=fleet.row_type, solver=solver, integer=False, threads=threads, **more)


def weights(fleet: SmallFleet) -> np.ndarray:
    """[W] watts per q/s that is shed."""
    per_qps = np.divide(fleet.power_w, fleet.qps, out=np.zeros_like(fleet.qps), where=fleet.usable)
    worst = SHED_FACTOR * per_qps.max(axis=0)
    return np.where(worst > 0, worst, worst.max() if worst.max() > 0 else 1.0)


class Referee:
    """One interval for HiGHS. A machine column counts in what can be of use of its row, shed in parts of the demand."""

    def __init__(self, fleet: SmallFleet) -> None:
        (demand,) = fleet.demand_qps
        self.asked = np.flatnonzero(demand)
        self.demand = demand[self.asked]
        usable = fleet.usable[:, self.asked]
        row, w = np.nonzero(usable)
        h, rate = fleet.row_type[row], fleet.qps[row, self.asked[w]]
        useful = np.minimum(fleet.stock[h], self.demand[w] / rate)
        self.power_w = fleet.power_w[row, self.asked[w]] * useful
        n, n_w, n_h = len(row), len(self.asked), len(fleet.stock)
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = n + n_w, n_w + n_h
        lp.col_cost_, lp.col_lower_ = np.zeros(n + n_w), np.zeros(n + n_w)
        lp.col_upper_ = np.concatenate([np.full(n, np.inf), np.ones(n_w)])
        lp.row_lower_ = np.concatenate([np.ones(n_w), np.full(n_h, -np.inf)])
        lp.row_upper_ = np.concatenate([np.full(n_w, np.inf), np.ones(n_h)])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.concatenate([np.arange(0, 2 * n, 2), np.arange(2 * n, 2 * n + n_w + 1)]).astype(
            np.int32
        )
        pairs = np.stack([w, n_w + h], axis=1).ravel()
        entries = np.stack([rate * useful / self.demand[w], useful / fleet.stock[h]], axis=1).ravel()
        lp.a_matrix_.index_ = np.concatenate([pairs, np.arange(n_w)]).astype(np.int32)
        lp.a_matrix_.value_ = np.concatenate([entries, np.ones(n_w)])
        self.highs = highspy.Highs()
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("primal_feasibility_tolerance", 1e-10),
            ("dual_feasibility_tolerance", 1e-10),
            ("small_matrix_value", 1e-12),
        ):
            self.highs.setOptionValue(option, value)
        self.highs.passModel(lp)
        self.n = n

    def least(self, machines: np.ndarray | float, shed: np.ndarray | float) -> np.ndarray | None:
        """The columns that minimise these costs of the machine columns, and of the parts of demand that are shed.

        None where HiGHS ends elsewhere than at an optimum.
        """
        cost = np.zeros(self.n + len(self.asked))
        cost[: self.n], cost[self.n :] = machines, shed
        cost /= max(1e-300, float((cost[self.n :]).sum()) or float(cost.max(initial=0.0)))
        self.highs.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost)
        self.highs.run()
        good = (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kModelEmpty)
        if self.highs.getModelStatus() not in good:
            return None
        return np.asarray(self.highs.getSolution().col_value)

    def figures(self, columns: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
        """(weighted shed, watts)."""
        shed = float(weight[self.asked] * self.demand @ columns[self.n :])
        return shed, float(self.power_w @ columns[: self.n])


def two_stages(fleet: SmallFleet, weight: np.ndarray) -> tuple[float, float]:
    """(least weighted shed, least watts at that shed) of a fleet's only interval."""
    referee = Referee(fleet)
    if not len(referee.asked):
        return 0.0, 0.0
    lost = weight[referee.asked] * referee.demand
    shed, _ = referee.figures(referee.least(0.0, lost), weight)
    scale = lost.sum()
    index = np.arange(referee.n, referee.n + len(lost), dtype=np.int32)
    referee.highs.addRow(-np.inf, np.inf, len(lost), index, lost / scale)
    for slack in (0.0, 1e-11, 1e-10):  # its own optimum can be out of its own reach, by rounding
        referee.highs.changeRowBounds(referee.highs.getNumRow() - 1, -np.inf, shed / scale + slack)
        referee.highs.clearSolver()
        if (columns := referee.least(referee.power_w, 0.0)) is not None:
            return shed, referee.figures(columns, weight)[1]
    raise AssertionError("the referee has no answer")


def two_stages_exactly(fleet: SmallFleet, weight: np.ndarray) -> tuple[float, float]:
    """The same by the simplex over fractions, for tiny fleets with a row per type."""
    arrays = (np.where(fleet.usable, fleet.qps, 0.0), fleet.power_w, fleet.demand_qps[0], fleet.stock, weight)
    return linear_optimum(*(array.tolist() for array in arrays))


def one_stage(fleet: SmallFleet, penalty: np.ndarray) -> float:
    """Least watts and penalties together."""
    referee = Referee(fleet)
    if not len(referee.asked):
        return 0.0
    return sum(referee.figures(referee.least(referee.power_w, penalty[referee.asked] * referee.demand), penalty))


def verified(fleet: SmallFleet, answer, t: int) -> tuple[np.ndarray, float]:
    """(shed [W], watts) of interval ``t`` from its machines alone, which must be a plan that the fleet can run."""
    machines, demand = np.asarray(answer.servers[t], dtype=np.float64), fleet.demand_qps[t]
    assert np.isfinite(machines).all(), "a count is not finite"
    assert machines.min() >= 0.0, f"{machines.min()} machines"
    assert not machines[~fleet.usable].any(), "machines on a pair that cannot run"
    used = np.bincount(fleet.row_type, machines.sum(axis=1), minlength=len(fleet.stock))
    assert (used <= fleet.stock * (1 + 1e-9)).all(), f"stock {fleet.stock} exceeded: {used}"
    shed = np.maximum(demand - (machines * fleet.qps).sum(axis=0), 0.0)
    power_w = float((machines * np.where(fleet.usable, fleet.power_w, 0.0)).sum())
    assert np.abs(answer.shed_qps[t] - shed).max() <= 2e-9 * demand.max(), "shed is not what the machines leave"
    assert answer.power_w[t] == pytest.approx(power_w, rel=1e-12), "power is not that of the machines"
    return shed, power_w


def proved(fleet: SmallFleet, u: np.ndarray) -> float:
    """g(u) of a fleet's only interval, with no price on shed: a bound for every plan that serves all load.

    It is the difference of two sums that can be far larger: its own rounding is not held against the prices.
    """
    assert u.min() >= 0.0, f"stock price {u.min()}"
    (demand,) = fleet.demand_qps
    price = np.divide(
        fleet.power_w + u[fleet.row_type, None], fleet.qps, out=np.full_like(fleet.qps, np.inf), where=fleet.usable
    ).min(axis=0)
    worth = float(demand[demand > 0] @ price[demand > 0])
    return worth * (1 + ROUNDING) - float(fleet.stock @ u)


def check(fleet: SmallFleet, answer, t: int = 0, referee=two_stages) -> None:
    """Interval ``t`` of an answer against the referee."""
    alone, weight = fleet.interval(t), weights(fleet)
    shed, power_w = verified(fleet, answer, t)
    least_shed, least_w = referee(alone, weight)
    asked, weighted = float(weight @ alone.demand_qps[0]), float(weight @ shed)
    assert abs(weighted - least_shed) <= SHED_TOL * asked, f"weighted shed {weighted!r}, least {least_shed!r}"
    scale = least_w + (least_shed if least_shed > SHED_TOL * asked else 0.0)
    assert abs(power_w - least_w) <= OBJECTIVE_TOL * scale, f"{power_w!r} W, least {least_w!r} W"
    rounding = ROUNDING * float(alone.demand_qps[0] @ answer.load_price_w[t]) / (power_w or 1.0)
    assert abs(answer.gap[t]) <= GAP_TOL + rounding, f"gap {answer.gap[t]!r}"
    if not shed.any() and fleet.demand_qps[t].any():
        bound_w = proved(alone, np.asarray(answer.stock_price_w[t]))
        assert power_w - bound_w <= GAP_TOL * power_w, f"{power_w!r} W, proved {bound_w!r} W"


def wrong(fleets: Iterable[SmallFleet], judge: Callable[[SmallFleet], None]) -> list[str]:
    """What ``judge`` found wrong, by the name of the fleet."""
    found = []
    for fleet in fleets:
        try:
            judge(fleet)
        except (AssertionError, HerculesError) as error:
            found.append(f"{fleet.name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    return found


def random_fleet(seed: int) -> SmallFleet:
    return ordinary(seed, most=40 if seed % 10 == 0 else 12)


def in_block(block: int) -> range:
    return range(BLOCK * block, BLOCK * (block + 1))


def judge_one(fleet: SmallFleet) -> None:
    check(fleet, solved(fleet), referee=two_stages_exactly if fleet.name.endswith("extreme rates") else two_stages)


@pytest.mark.parametrize("block", range(3))
def test_random_fleets(block: int) -> None:
    assert wrong(map(random_fleet, in_block(block)), judge_one) == []


@pytest.mark.parametrize("kind", range(len(DEGENERATE)), ids=DEGENERATE)
def test_degenerate_fleets(kind: int) -> None:
    seeds = range(kind, 20 * len(DEGENERATE), len(DEGENERATE))
    assert wrong(map(degenerate, seeds), judge_one) == []


@pytest.mark.long
@pytest.mark.parametrize("block", range(100))
def test_ten_thousand_random_fleets(block: int) -> None:
    assert wrong(map(random_fleet, in_block(block)), judge_one) == []


@pytest.mark.long
@pytest.mark.parametrize("block", range(10))
def test_a_thousand_degenerate_fleets(block: int) -> None:
    assert wrong(map(degenerate, in_block(block)), judge_one) == []


def test_our_own_model_of_highs() -> None:
    def judge(fleet: SmallFleet) -> None:
        check(fleet, solved(fleet, solver="highs"))

    assert wrong(map(ordinary, range(60)), judge) == []


def test_the_referee_knows_the_rules() -> None:
    """Against the simplex over fractions."""

    def judge(fleet: SmallFleet) -> None:
        weight = weights(fleet)
        shed, power_w = two_stages_exactly(fleet, weight)
        least_shed, least_w = two_stages(fleet, weight)
        asked = float(weight @ fleet.demand_qps[0])
        assert abs(shed - least_shed) <= SHED_TOL / 10 * asked, f"shed {least_shed!r}, {shed!r}"
        assert abs(power_w - least_w) <= OBJECTIVE_TOL / 10 * (power_w + shed), f"{least_w!r} W, {power_w!r} W"

    tiny = (ordinary(seed, most=4) for seed in range(150))
    assert wrong((fleet for fleet in tiny if len(fleet.qps) == len(fleet.stock)), judge) == []
    edges = (degenerate(seed) for seed in range(3 * len(DEGENERATE)))
    assert wrong((fleet for fleet in edges if not fleet.name.endswith("extreme rates")), judge) == []


def test_a_given_penalty_is_one_program() -> None:
    """Shed and power in one objective: a low price of shed makes it cheaper than machines."""
    sheds = 0

    def judge(fleet: SmallFleet) -> None:
        nonlocal sheds
        penalty = weights(fleet) * np.random.default_rng(len(fleet.name)).choice([0.01, 0.05, 1.0], fleet.qps.shape[1])
        answer = solved(fleet, shed_penalty=penalty)
        shed, power_w = verified(fleet, answer, 0)
        least, ours = one_stage(fleet, penalty), power_w + float(penalty @ shed)
        assert abs(ours - least) <= OBJECTIVE_TOL * least, f"objective {ours!r}, least {least!r}"
        sheds += shed.any()

    assert wrong(map(ordinary, range(100)), judge) == []
    assert sheds > 20


def test_a_timeline_is_its_intervals() -> None:
    def judge(fleet: SmallFleet) -> None:
        answer, weight = solved(fleet), weights(fleet)
        for t in range(len(fleet.demand_qps)):
            shed, power_w = verified(fleet, answer, t)
            alone = fleet.interval(t)
            alone_shed, alone_w = verified(alone, solved(alone), 0)
            asked = float(weight @ alone.demand_qps[0])
            assert abs(float(weight @ (shed - alone_shed))) <= SHED_TOL * asked, f"interval {t}: other shed"
            scale = alone_w + float(weight @ alone_shed)
            assert abs(power_w - alone_w) <= 1e-9 * scale, f"interval {t}: {power_w!r} W, alone {alone_w!r} W"

    assert wrong((ordinary(seed, intervals=30) for seed in range(40)), judge) == []


def test_days_in_and_out_of_shortage() -> None:
    """Every interval is at its two-stage optimum, and most days have both kinds of interval."""
    both = 0

    def judge(fleet: SmallFleet) -> None:
        nonlocal both
        answer = solved(fleet)
        for t in range(len(fleet.demand_qps)):
            check(fleet, answer, t)
        short = np.asarray(answer.shed_qps).any(axis=1)
        both += short.any() and not short.all()

    assert wrong(map(in_and_out_of_shortage, range(30)), judge) == []
    assert both >= 10


def with_costs(fleet: SmallFleet, seed: int) -> Problem:
    """Energy prices over twelve decades or one, machines that cost beside their watts, stock that comes and goes."""
    rng = np.random.default_rng([seed, 3])
    shape = (len(fleet.demand_qps), len(fleet.stock))
    level = rng.uniform(-6, 6, (shape[0], 1)) if rng.random() < 0.4 else rng.uniform(-0.5, 0.5, (shape[0], 1))
    watt_cost = 10**level * rng.uniform(0.3, 3, shape)
    machine_cost = rng.choice([0.0, 1.0], shape) * 10 ** rng.uniform(0, 4, shape)
    return Problem(
        qps=fleet.qps,
        power_w=fleet.power_w,
        demand_qps=fleet.demand_qps,
        stock=fleet.stock if rng.random() < 0.5 else rng.binomial(fleet.stock, rng.uniform(0.3, 1.0), shape),
        row_type=fleet.row_type,
        watt_cost=watt_cost if rng.random() < 0.8 else None,
        machine_cost=machine_cost if rng.random() < 0.6 else None,
    )


def test_costs_and_stock_that_vary_in_time() -> None:
    """Against our own model of HiGHS; the other tests judge that one, too."""

    def judge(fleet: SmallFleet) -> None:
        problem = with_costs(fleet, len(fleet.name) + int(fleet.stock.sum()))
        ours, theirs, weight = solve_network(problem, threads=1), solve_linear(problem), shed_penalties(problem)
        verify(problem, ours.assignment, "fractional")
        raised = ours.penalty_w_per_qps / weight
        assert np.allclose(raised, raised[:, :1], rtol=1e-12), "other weights"
        assert (raised > 1 - 1e-12).all(), "weights below those of the least"
        assert np.abs(ours.gap).max() <= GAP_TOL, f"gap {ours.gap}"
        asked = (weight * fleet.demand_qps).sum(axis=1)
        shed, least = ((weight * one.shed_qps).sum(axis=1) for one in (ours, theirs))
        assert (np.abs(shed - least) <= 2 * SHED_TOL * asked).all(), f"weighted shed {shed}, HiGHS {least}"
        cost, least_cost = (assignment_cost(problem, one.assignment) for one in (ours, theirs))
        assert (np.abs(cost - least_cost) <= OBJECTIVE_TOL * (least_cost + least)).all(), f"{cost}, HiGHS {least_cost}"

    days = [ordinary(seed, intervals=6, most=10) for seed in range(60)]
    assert wrong([*days, *(in_and_out_of_shortage(seed, 6, 8) for seed in range(60))], judge) == []


def test_rates_of_twelve_decades_are_judged_by_their_certificate() -> None:
    """Programs on which the simplex method went on for ever: each ends, and "auto" has an answer of a small gap."""
    for seed in (700079, 700475, 711971, 712451, 713939, 714203, 719267, 721883):
        fleet = degenerate(seed)
        answer = solved(fleet, solver="auto")
        verified(fleet, answer, 0)
        assert abs(answer.gap[0]) <= OBJECTIVE_TOL, f"{fleet.name}: gap {answer.gap[0]}"


def test_what_the_core_gives_up_is_left_to_highs(monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(*_: object, **__: object) -> None:
        raise SolverError("interval 0: goes on and on")

    fleet = in_and_out_of_shortage(5, 6)
    monkeypatch.setattr(solvers, "solve_network", gives_up)
    answer = solved(fleet, solver="auto")
    assert set(answer.linear.solver) == {"highs"}
    assert answer.linear.resolved == tuple(range(6))
    assert answer.cross_check is None
    for t in range(6):
        check(fleet, answer, t)
    with pytest.raises(SolverError, match="goes on and on"):
        solved(fleet, solver="network")


def test_penalties_beyond_those_a_caller_may_give_are_cross_checked() -> None:
    """Dear, slow machines: the chosen penalty of 2e18 a q/s is above what may be given."""
    problem = {"qps": [[1e-3, 5.0], [4.0, 1e-3]], "power_w": [[1e8, 9e7], [1e8, 8e7]]}
    answer = provisioning.solve(
        **problem, demand_qps=[40.0, 9.0], stock=[3, 4], watt_cost=np.full((1, 2), 1e6), solver="auto", integer=False
    )
    assert answer.cross_check is not None
    assert abs(answer.cross_check.difference) <= OBJECTIVE_TOL
    assert answer.linear.penalty_w_per_qps.max() > PENALTY_RANGE[1]


@pytest.mark.parametrize("fleet", [ordinary(3, 70, 40), in_and_out_of_shortage(5, 70)], ids=lambda fleet: fleet.name)
def test_the_same_bytes_on_any_number_of_threads(fleet: SmallFleet) -> None:
    fields = ("servers", "power_w", "shed_qps", "stock_price_w", "load_price_w", "bound_w", "gap")
    one, *others = (solved(fleet, threads=threads) for threads in (1, 2, 3))
    for other in others:
        for name in fields:
            assert np.asarray(getattr(other, name)).tobytes() == np.asarray(getattr(one, name)).tobytes(), name
