"""What operators decide: each on an instance whose answer can be worked out on paper."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast.errors import ConfigError, InputError, MissingFileError, UnknownNameError
from hercules_fast.provisioning import (
    Maintenance,
    Plan,
    Policy,
    Prices,
    Problem,
    SiteEnergy,
    Window,
    headroom_from_errors,
    load_maintenance,
    load_prices,
    provision,
)
from hercules_fast.provisioning.footprint import without_footprint
from hercules_fast.tables import EfficiencyTable
from hercules_fast.traffic import LoadTrace

# old: 100 q/s of ads at 200 W; new: 300 q/s of ads at 300 W, 100 q/s of feed at 250 W.
SERVERS, WORKLOADS = ("old", "new"), ("ads", "feed")
STOCK = {"old": 10, "new": 4}


def table(lower: float = 1.0, **changes) -> EfficiencyTable:
    made = EfficiencyTable.from_matrices(SERVERS, WORKLOADS, [[100, 0], [300, 100]], [[200, 0], [300, 250]])
    return replace(made, rows=tuple(replace(r, qps_lo=lower * r.qps) for r in made.rows), **changes)


def load(ads=(600.0, 900.0), feed=(100.0, 100.0), interval_s=3600) -> LoadTrace:
    qps = np.stack([ads, feed], axis=1)
    return LoadTrace.from_arrays("day", WORKLOADS, start="2026-01-05", interval_s=interval_s, qps=qps)


def plan(policy: Policy | None = None, trace: LoadTrace | None = None, **changes) -> Plan:
    base = Policy(headroom=0.0, order_samples=0)
    given = replace(base, **changes) if policy is None else policy
    return provision(table(), trace or load(), STOCK, given)


def on(made: Plan, t: int = 0) -> list[list[int]]:
    return made.servers_on[t].tolist()


def test_without_wishes_the_new_servers_come_first() -> None:
    made = plan()
    assert on(made, 0) == [[0, 0], [2, 1]]
    assert on(made, 1) == [[0, 0], [3, 1]]
    assert made.power_w.tolist() == [850.0, 1150.0]
    assert made.is_covered


# -- headroom --------------------------------------------------------------------------------------------------------


def test_headroom_by_workload() -> None:
    made = plan(headroom={"feed": 0.5})
    assert made.headroom.tolist() == [0.0, 0.5]
    assert made.demand_qps[0].tolist() == [600.0, 150.0]
    assert on(made, 0) == [[0, 0], [2, 2]]
    assert "headroom 0 to 50 %" in made.explain()
    with pytest.raises(UnknownNameError, match="workload with a headroom 'fed'; did you mean 'feed'"):
        plan(headroom={"fed": 0.1})
    with pytest.raises(InputError, match=r"policy\.headroom\['feed'\]: -1; allowed: 0 to 1000"):
        Policy(headroom={"feed": -1})


def test_missing_load_and_missing_headroom_are_told_apart() -> None:
    """1900 q/s of ads and 100 of feed are served at most: beyond that headroom goes first, then load."""
    made = plan(headroom=0.25, trace=load(ads=(1600.0, 2000.0)))
    assert made.demand_qps[:, 0].tolist() == [2000.0, 2500.0]
    missing = made.shed_qps + made.headroom_short_qps
    assert missing == pytest.approx(made.unmet_qps)
    assert made.headroom_short_qps[0].any()
    assert not made.shed_qps[0].any()
    assert made.shed_qps[1].any()
    assert not made.is_covered
    words = "\n".join(made.shortfall())
    assert "headroom is short in" in words
    assert "instead of 25 %" in words
    assert "load is shed in 1 of 2 intervals" in words


def test_headroom_from_errors_is_mean_and_spread() -> None:
    forecast = np.array([[100.0, 10.0], [200.0, 10.0], [100.0, 10.0]])
    actual = np.array([[110.0, 10.0], [180.0, 10.0], [100.0, 10.0]])
    # Errors of the first: +10 %, -10 %, 0: mean 0, sample deviation 10 %.
    assert headroom_from_errors(forecast, actual, z=2.0) == pytest.approx([0.2, 0.0])
    assert headroom_from_errors(forecast, 1.5 * forecast, z=2.0) == pytest.approx([0.5, 0.5])
    assert headroom_from_errors(forecast, 0.5 * forecast).tolist() == [0.0, 0.0], "never below the forecast"
    assert headroom_from_errors(forecast[:1], actual[:1]).tolist() == [0.05, 0.05]
    with pytest.raises(InputError, match=r"actual_qps: shape \(1, 2\); needed: that of forecast_qps, \(3, 2\)"):
        headroom_from_errors(forecast, actual[:1])
    with pytest.raises(InputError, match=r"actual_qps: \[1, 0\] is -5"):
        headroom_from_errors(forecast, [[1.0, 1.0], [-5.0, 1.0], [1.0, 1.0]])


def test_day_over_day_headroom() -> None:
    """Two days of two intervals; the second day is 10 % above the first for ads, equal for feed."""
    trace = load(ads=(100.0, 200.0, 110.0, 220.0), feed=(50.0,) * 4, interval_s=43_200)
    made = plan(headroom="day-over-day", trace=trace)
    assert made.headroom == pytest.approx([0.1, 0.0])
    assert any("of the load over that of the day before" in note for note in made.notes)
    wide = load(ads=(100.0, 200.0, 120.0, 200.0), feed=(50.0,) * 4, interval_s=43_200)
    # Errors 20 % and 0: mean 10 %, sample deviation 14.14 %.
    assert plan(headroom="day-over-day", headroom_z=1.0, trace=wide).headroom[0] == pytest.approx(0.1 + 0.02**0.5)
    short = plan(headroom="day-over-day")
    assert short.headroom.tolist() == [0.05, 0.05]
    assert any("no two days to compare" in note for note in short.notes)
    with pytest.raises(InputError, match="ads differs so much from the day before"):
        plan(headroom="day-over-day", trace=load(ads=(10.0, 10.0, 30.0, 30.0), feed=(50.0,) * 4, interval_s=43_200))


# -- estimates -------------------------------------------------------------------------------------------------------


def test_the_lower_end_is_planned_for_or_told() -> None:
    half = table(lower=0.5)
    made = provision(half, load(), STOCK, Policy(headroom=0.0, order_samples=0))
    assert on(made, 0) == [[0, 0], [2, 1]]
    lines = made.lower_end()
    assert any(line.startswith("ads: load is shed in 2 of 2 intervals, at worst 450 q/s (50 %") for line in lines)
    assert any(line.startswith("feed: load is shed in 2 of 2 intervals") for line in lines)
    safe = provision(half, load(ads=(600.0,), feed=(50.0,)), STOCK, Policy(headroom=0.0, estimate="lower"))
    assert safe.is_covered
    assert (safe.assignment.per_workload(half.choices(SERVERS, WORKLOADS).qps_lo) >= safe.demand_qps).all()
    assert safe.lower_end() == ()
    assert "QPS are the lower ends of their intervals" in safe.notes
    with pytest.raises(InputError, match=r"policy\.estimate: 'upper'; allowed: 'value', 'lower'"):
        Policy(estimate="upper")


def test_headroom_that_covers_the_lower_end_is_not_told_as_shed() -> None:
    made = provision(table(lower=0.9), load(feed=(90.0, 90.0)), STOCK, Policy(headroom=0.1, order_samples=0))
    lines = made.lower_end()
    assert not any("load is shed" in line for line in lines)
    assert lines[-1].startswith("headroom of ")
    assert "instead of 10 %" in lines[-1]


# -- what may not, what must -----------------------------------------------------------------------------------------


def test_draining_a_pair_and_a_type() -> None:
    made = plan(drain=[("new", "ads")])
    assert on(made, 0) == [[6, 0], [0, 1]]
    assert made.drained == ("new does not run ads",)
    assert "drained: new does not run ads" in made.explain()
    gone = plan(drain=["new"])
    assert on(gone, 0) == [[6, 0], [0, 0]]
    assert gone.shed_qps[0].tolist() == [0.0, 100.0]
    for wrong, says in ((["nwe"], "server to drain 'nwe'; did you mean 'new'"), ([("new", "fed")], "'fed'")):
        with pytest.raises(UnknownNameError, match=says):
            plan(drain=wrong)
    with pytest.raises(InputError, match=r"policy\.drain: 'new'; allowed: a list"):
        Policy(drain="new")


def test_a_minimum_footprint_is_on_needed_or_not() -> None:
    made = plan(minimum={("old", "ads"): 2})
    assert on(made, 0) == [[3, 0], [1, 1]], "400 q/s are left: one of each at 500 W, not two new ones at 600"
    assert made.lp_servers[0, 1, 0] == pytest.approx(400 / 300)
    assert made.lp_power_w[0] == pytest.approx(2 * 200 + 400 / 300 * 300 + 250)
    assert made.bound_w == pytest.approx(made.lp_power_w)
    # Each old machine costs 200 W and carries what new ones carry for 100 W.
    assert made.binding_minimum()[0].startswith("2 old for ads at least: costs up to 200 W more than need be")
    greedy = made.baselines["greedy"]  # under the same rule: 2 old at 200 W, then 2 new for ads and 1 for feed
    assert greedy.power_w[0] == 2 * 200 + 2 * 300 + 250
    assert greedy.capacity[0] == 5
    spread = plan(minimum={("old", "ads"): 2}, order_samples=10).greedy_order_spread
    assert spread.power_w == (1550.0,) * 3, "at the peak, 700 q/s of ads are left: 3 new, whoever comes first"
    idle = plan(minimum={("old", "ads"): 2}, trace=load(ads=(0.0,), feed=(0.0,)))
    assert on(idle) == [[2, 0], [0, 0]]
    assert idle.gap.tolist() == [0.0]


@pytest.mark.parametrize(
    ("minimum", "error", "says"),
    [
        ({("old", "feed"): 1}, InputError, "minimum: 1 'old' for 'feed'; allowed: 0, this server cannot run it"),
        ({("new", "ads"): 3, ("new", "feed"): 2}, InputError, "minimum: 5 'new' in all; allowed: up to its stock, 4"),
        ({("nwe", "ads"): 3}, UnknownNameError, "server with a minimum 'nwe'; did you mean 'new'"),
        ({("new", "adds"): 3}, UnknownNameError, "workload with a minimum 'adds'; did you mean 'ads'"),
        ({"new": 3}, InputError, "policy.minimum: 'new'; allowed"),
        ({("new", "ads"): -1}, InputError, "whole numbers from 0"),
        ({("new", "ads"): 1.5}, InputError, "whole numbers from 0"),
    ],
)
def test_minimums_that_cannot_be(minimum, error, says) -> None:
    with pytest.raises(error, match=says):
        plan(minimum=minimum)


@pytest.mark.parametrize(
    ("field", "value"),
    [("minimum", 3), ("drain", 3), ("drain", [3]), ("drain", [("a", "b", "c")]), ("greedy_order", 3)],
)
def test_choices_of_another_kind_are_refused_by_name(field, value) -> None:
    with pytest.raises(InputError, match=rf"policy\.{field}: .*3|policy\.{field}: \('a', 'b', 'c'\)"):
        Policy(**{field: value})


def test_a_refused_minimum_names_any_server() -> None:
    problem = Problem(qps=[[0.0]], power_w=[[1.0]], demand_qps=[[1.0]], stock=[1], servers=("rack {a}",))
    with pytest.raises(InputError, match=r"minimum: 1 'rack \{a\}' for '0'; allowed: 0"):
        without_footprint(problem, np.array([[1]]))


# -- maintenance -----------------------------------------------------------------------------------------------------


def test_maintenance_takes_machines_out_of_the_intervals_it_touches() -> None:
    window = Window(server="new", machines=3, start="2026-01-05T00:30", end="2026-01-05T01:00")
    made = plan(maintenance=Maintenance(windows=(window,)))
    assert made.stock.tolist() == [[10, 1], [10, 4]]
    assert on(made, 0) == [[6, 0], [0, 1]]
    assert on(made, 1) == [[0, 0], [3, 1]]
    assert "all that are there (1 to 4, maintenance)" in made.binding_stock()[0]
    abroad = replace(window, start="2026-01-05T02:30+02:00", end="2026-01-05T03:00+02:00")
    assert plan(maintenance=Maintenance(windows=(abroad,))).stock.tolist() == made.stock.tolist()
    twice = Maintenance(windows=(window, replace(window, machines=2)), name="racks")
    with pytest.raises(InputError, match="'racks': interval 2026-01-05T00:00:00 takes 5 new; allowed: up to its stock"):
        plan(maintenance=twice)
    with pytest.raises(UnknownNameError, match="server of 'maintenance' 'nwe'; did you mean 'new'"):
        plan(maintenance=Maintenance(windows=(replace(window, server="nwe"),)))


def test_maintenance_files(tmp_path) -> None:
    path = tmp_path / "racks.toml"
    path.write_text(
        """
schema = "hercules_fast.maintenance/1"
name = "racks"
[[windows]]
server = "new"
machines = 3
start = "2026-01-05T00:30"
end = "2026-01-05T01:00"
"""
    )
    read = load_maintenance(path)
    assert read.windows[0].machines == 3
    assert plan(maintenance=read).stock.tolist() == [[10, 1], [10, 4]]
    path.write_text(
        """
schema = "hercules_fast.maintenance/1"
name = "racks"
[[windows]]
server = "new"
machines = 0
start = "soon"
end = "2026-01-05T01:00"
[[windows]]
server = "new"
machines = 1
start = "2026-01-05T01:00"
end = "2026-01-05T01:00"
"""
    )
    with pytest.raises(ConfigError) as caught:
        load_maintenance(path)
    assert {f.path for f in caught.value.faults} == {"windows[0].machines", "windows[0].start", "windows[1].end"}
    with pytest.raises(MissingFileError):
        load_maintenance(tmp_path / "none.toml")


# -- prices ----------------------------------------------------------------------------------------------------------

CHEAP_OLD = Prices(
    sites={"old": "north", "new": "south"},
    energy=(
        SiteEnergy(site="north", price_per_kwh=(0.1,), carbon_g_per_kwh=(400.0,)),
        SiteEnergy(site="south", price_per_kwh=(0.1, 0.4), carbon_g_per_kwh=(100.0, 100.0)),
    ),
)


def test_energy_prices_move_load_to_where_it_is_cheap() -> None:
    """A q/s of ads takes 2 W on old and 1 W on new: new is dearer only while its kWh costs more than twice as much."""
    made = plan(prices=CHEAP_OLD)
    assert on(made, 0) == [[0, 0], [2, 1]]
    assert on(made, 1) == [[9, 0], [0, 1]]
    assert made.cost == pytest.approx([0.85 * 0.1, 1.8 * 0.1 + 0.25 * 0.4])
    assert made.money == pytest.approx(made.cost)
    assert made.energy_kwh.tolist() == [0.85, 2.05]
    assert made.carbon_kg == pytest.approx([0.085, 1.8 * 0.4 + 0.025])
    assert (made.bound_w <= made.objective_w * (1 + 1e-9)).all()
    assert made.cost_words() == "3 kWh, 0.37 EUR, 0.8 kg CO2"
    assert "in all: 3 kWh, 0.37 EUR, 0.8 kg CO2" in made.explain()
    again = Plan.from_json(made.to_json())
    assert again.to_json() == made.to_json()
    assert again.cost == pytest.approx(made.cost)


def test_carbon_and_embodied_cost_weigh_in() -> None:
    """At 1 EUR/kg the dirty north costs 0.5 EUR/kWh, as much as the dear south at 0.5: new wins again."""
    dear = replace(CHEAP_OLD, carbon_price_per_kg=1.0)
    assert on(plan(prices=dear), 1) == [[0, 0], [3, 1]]
    # 0.2 EUR an hour for a new machine that is on make it dearer than the three old ones at 0.06 that replace it.
    owned = replace(CHEAP_OLD, machine_cost_per_hour={"new": 0.2})
    made = plan(prices=owned)
    assert on(made, 0) == [[6, 0], [0, 1]]
    assert made.cost[0] == pytest.approx(6 * 0.02 + 0.025 + 0.2)
    assert made.money == pytest.approx(made.cost)
    green = replace(CHEAP_OLD, carbon_price_per_kg=1.0, embodied_carbon_g_per_hour={"new": 100.0})
    made = plan(prices=green)
    assert on(made, 0) == [[0, 0], [2, 1]], "old: 0.1 EUR a machine for 100 q/s; new: 0.06 + 0.1 for 300"
    assert made.carbon_kg[0] == pytest.approx(0.085 + 3 * 0.1)
    assert made.money[0] == pytest.approx(0.085)
    assert made.cost[0] == pytest.approx(0.085 + 0.085 + 0.3)


def test_steps_are_averaged_over_the_interval_and_may_repeat() -> None:
    times = np.datetime64("2026-01-05T00:00:00", "s") + 3600 * np.arange(4)
    half_hours = SiteEnergy(site="x", price_per_kwh=(1.0, 3.0, 5.0, 7.0), interval_s=1800.0, repeat=True)
    costs = Prices(energy=(half_hours,)).over(("a",), times, 3600.0)
    assert costs.price_per_kwh[:, 0] == pytest.approx([2.0, 6.0, 2.0, 6.0])
    shifted = replace(half_hours, start="2026-01-04T23:30")
    costs = Prices(energy=(shifted,)).over(("a",), times, 3600.0)
    assert costs.price_per_kwh[:, 0] == pytest.approx([4.0, 4.0, 4.0, 4.0])
    with pytest.raises(InputError, match="energy of site 'x': its 4 steps last from 2026-01-05T00:00:00 to"):
        Prices(energy=(replace(half_hours, repeat=False),)).over(("a",), times, 3600.0)


def test_prices_that_make_no_sense() -> None:
    with pytest.raises(UnknownNameError, match="server in sites of 'prices' 'odl'; did you mean 'old'"):
        plan(prices=replace(CHEAP_OLD, sites={"odl": "north"}))
    with pytest.raises(UnknownNameError, match="site in 'prices' of server 'new'"):
        plan(prices=replace(CHEAP_OLD, sites={"old": "north"}))
    with pytest.raises(UnknownNameError, match="site in 'prices' of server 'old': 'noth'; did you mean 'north'"):
        plan(prices=replace(CHEAP_OLD, sites={"old": "noth", "new": "south"}))
    free = SiteEnergy(site="x", price_per_kwh=(0.1, -0.2))
    with pytest.raises(InputError, match=r"energy for old costs -0\.2 EUR per kWh, carbon included, at 2026-01-05T01"):
        plan(prices=Prices(energy=(free,)))
    with pytest.raises(
        ConfigError, match=r"energy\[0\].carbon_g_per_kwh: has 1 entries; allowed are as many as prices"
    ):
        plan(prices=Prices(energy=(replace(free, carbon_g_per_kwh=(1.0,)),)))


def test_price_files(tmp_path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        """
schema = "hercules_fast.prices/1"
name = "prices"
currency = "EUR"
[sites]
old = "north"
new = "south"
[[energy]]
site = "north"
price_per_kwh = [0.1]
carbon_g_per_kwh = [400.0]
[[energy]]
site = "south"
price_per_kwh = [0.1, 0.4]
carbon_g_per_kwh = [100.0, 100.0]
"""
    )
    assert load_prices(path) == CHEAP_OLD
    path.write_text(path.read_text().replace("[0.1, 0.4]", "[nan, 0.4]").replace("old =", "odl ="))
    with pytest.raises(ConfigError, match=r"energy\[1\].price_per_kwh\[0\]: nan is outside"):
        load_prices(path)


# -- several rows of a pair, and models over several servers ---------------------------------------------------------


def two_ways(group: int = 1) -> EfficiencyTable:
    """One type that does 100 q/s at 100 W, or 150 q/s at 180 W; and a row that is never worth having."""
    made = EfficiencyTable.from_matrices(["a"], ["x"], [[100.0]], [[100.0]])
    row = replace(made.rows[0], group=group)
    fast = replace(row, qps=150.0, qps_lo=150.0, qps_hi=150.0, power_w=180.0)
    bad = replace(row, qps=90.0, qps_lo=90.0, qps_hi=90.0, power_w=170.0)
    return replace(made, rows=(row, fast, bad))


def test_choices_leave_out_rows_that_are_never_worth_having() -> None:
    choices = two_ways().choices()
    assert choices.qps[:, 0].tolist() == [150.0, 100.0]
    assert choices.power_w[:, 0].tolist() == [180.0, 100.0]
    assert choices.row_type.tolist() == [0, 0]
    with pytest.raises(InputError, match="estimate: is 'best'; allowed are 'value', 'lower'"):
        two_ways().choices(estimate="best")


def one_type(asked: float) -> LoadTrace:
    return LoadTrace.from_arrays("day", ["x"], start="2026-01-05", interval_s=3600, qps=[[asked], [asked / 2]])


def test_a_scarce_type_runs_in_two_ways_at_once() -> None:
    """450 q/s on four machines: one at 150 and three at 100; 225 on one of each."""
    made = provision(two_ways(), one_type(450.0), {"a": 4}, Policy(headroom=0.0))
    assert made.is_covered
    assert made.power_w.tolist() == [480.0, 280.0]
    assert made.servers_on.tolist() == [[[4]], [[2]]]
    assert made.lp_power_w == pytest.approx([180.0 + 300.0, 225.0])
    lines = [line.split(",") for line in made.to_csv().splitlines()]
    assert [(line[3], line[-1]) for line in lines[1:]] == [("1", "0"), ("3", "1"), ("1", "0"), ("1", "1")]
    assert Plan.from_json(made.to_json()).to_json() == made.to_json()
    assert made.baselines["greedy"].unmet_qps[0].tolist() == [50.0], "all machines the efficient way"


def test_models_over_several_servers_come_in_groups() -> None:
    pair = replace(two_ways(), rows=tuple(replace(r, group=2) for r in two_ways().rows[:1]))
    made = provision(pair, one_type(250.0), {"a": 5}, Policy(headroom=0.0))
    assert made.servers_on[:, 0, 0].tolist() == [4, 2]
    assert made.group.tolist() == [[2]]
    assert made.is_covered
    odd = provision(pair, one_type(450.0), {"a": 5}, Policy(headroom=0.0))
    assert odd.servers_on[0, 0, 0] == 4, "the fifth is of no use"
    assert odd.shed_qps[0].tolist() == [50.0]
    with pytest.raises(InputError, match="minimum: 3 'a' for 'x'; allowed: multiples of 2"):
        provision(pair, one_type(250.0), {"a": 5}, Policy(headroom=0.0, minimum={("a", "x"): 3}))
    assert EfficiencyTable.from_dict(json.loads(pair.to_json())).rows == pair.rows
    with pytest.raises(ConfigError, match=r"rows\[0\].group: is 0; allowed is a whole number from 1"):
        replace(pair, rows=(replace(pair.rows[0], group=0),))


# -- laws ------------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    """A table, a load of four hours and a stock, of seeded figures."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_h, n_w = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    servers, workloads = [f"s{h}" for h in range(n_h)], [f"w{w}" for w in range(n_w)]
    qps = rng.uniform(10, 400, (n_h, n_w)) * (rng.random((n_h, n_w)) < 0.85)
    made = EfficiencyTable.from_matrices(servers, workloads, qps, rng.uniform(100, 500, (n_h, n_w)))
    made = replace(made, rows=tuple(replace(r, qps_lo=r.qps * float(rng.uniform(0.7, 1))) for r in made.rows))
    stock = {name: int(n) for name, n in zip(servers, rng.integers(1, 30, n_h), strict=True)}
    asked = rng.uniform(0, 1500, (4, n_w))
    trace = LoadTrace.from_arrays("day", workloads, start="2026-01-05", interval_s=3600, qps=asked)
    return made, trace, stock, rng


@given(cases())
def test_wishes_only_take_away(case) -> None:
    """Draining, minimums, maintenance and lower ends never make the linear optimum cheaper, and are kept."""
    made, trace, stock, rng = case
    base = Policy(headroom=0.1, order_samples=0)
    free = provision(made, trace, stock, base)
    server, workload = trace_name(rng, made.servers), trace_name(rng, made.workloads)
    window = Window(server=server, machines=1, start="2026-01-05T01:00", end="2026-01-05T02:30")
    wishes = [
        {"drain": [(server, workload)]},
        {"maintenance": Maintenance(windows=(window,))},
        {"estimate": "lower"},
    ]
    able = free.qps[made.servers.index(server), made.workloads.index(workload)] > 0
    if able:
        wishes.append({"minimum": {(server, workload): 1}})
    for wish in wishes:
        plan = provision(made, trace, stock, replace(base, **wish))
        covered = plan.covered & free.covered & ~(plan.lp_unmet_qps > 0).any(axis=1)
        assert (plan.lp_power_w[covered] >= free.lp_power_w[covered] * (1 - 1e-9) - 1e-9).all()
        assert ((plan.lp_unmet_qps > 0).any(axis=1) >= (free.lp_unmet_qps > 0).any(axis=1)).all()
        assert (plan.per_type <= plan.stock).all()
        assert (plan.gap >= -1e-9).all()
        h, w = made.servers.index(server), made.workloads.index(workload)
        if "drain" in wish:
            assert not plan.servers_on[:, h, w].any()
        if "minimum" in wish:
            assert (plan.servers_on[:, h, w] >= 1).all()
        if "maintenance" in wish:
            assert plan.stock[:, h].tolist() == [stock[server] - (1 <= t <= 2) for t in range(4)]
        assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def trace_name(rng, names) -> str:
    return names[int(rng.integers(len(names)))]


@given(cases())
def test_missing_load_and_missing_headroom_add_up(case) -> None:
    made, trace, stock, _ = case
    plan = provision(made, replace(trace, qps=3 * trace.qps), stock, Policy(headroom=0.3, order_samples=0))
    assert plan.shed_qps + plan.headroom_short_qps == pytest.approx(plan.unmet_qps, rel=1e-9, abs=1e-6)
    assert (plan.shed_qps <= plan.load_qps).all()
    assert (plan.headroom_short_qps <= plan.demand_qps - plan.load_qps + 1e-6).all()


@given(cases(), st.floats(0.01, 1.0), st.floats(0.0, 0.5))
def test_one_price_everywhere_is_watts(case, price, carbon) -> None:
    """With one constant price the linear optimum is the same; costs are watts times it."""
    made, trace, stock, _ = case
    base = Policy(headroom=0.0, order_samples=0)
    energy = SiteEnergy(site="here", price_per_kwh=(price,), carbon_g_per_kwh=(1000 * carbon,))
    watts = provision(made, trace, stock, base)
    money = provision(made, trace, stock, replace(base, prices=Prices(energy=(energy,), carbon_price_per_kg=1.0)))
    assert money.lp_power_w[money.covered] == pytest.approx(watts.lp_power_w[money.covered], rel=1e-6)
    assert money.cost == pytest.approx(money.power_w * (price + carbon) / 1000)
    assert money.carbon_kg == pytest.approx(money.energy_kwh * carbon)
    assert money.money == pytest.approx(money.energy_kwh * price)
