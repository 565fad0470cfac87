"""Plans under constraints on named tables: what they keep, what they say, how they are saved; files of constraints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hercules_fast.errors import ConfigError, InputError, InterruptedRun, MissingFileError
from hercules_fast.provisioning import (
    FailureDomains,
    FairShare,
    Hysteresis,
    Maintenance,
    Plan,
    Policy,
    PowerCap,
    Prices,
    SiteEnergy,
    Switching,
    Window,
    load_constraints,
    provision,
)
from tests.unit.test_provision_operators import STOCK, load, table

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "constraints.toml"
HALLS = FailureDomains(domain_of={"old": "hall 1", "new": "hall 2"})
ROW = PowerCap(name="row 4", servers=["new"], limit_w=700.0)


def plan(*constraints, trace=None, **changes) -> Plan:
    policy = Policy(**{"headroom": 0.0, "order_samples": 0, "baselines": ()} | changes)
    return provision(table(), trace or load(), STOCK, policy, constraints=constraints)


def ads(made: Plan) -> list[list[int]]:
    """[T][H] machines of ads."""
    return made.servers_on[:, :, 0].tolist()


def day(*ads_qps: float):
    return load(ads=ads_qps, feed=(0.0,) * len(ads_qps))


# -- what a plan keeps and says --------------------------------------------------------------------------------------


def test_a_cap_is_kept_and_named() -> None:
    made = plan(ROW, trace=day(600.0, 900.0))
    assert ads(made) == [[0, 2], [3, 2]]
    assert made.power_w.tolist() == [600.0, 1200.0]
    words = made.explain()
    assert (
        "constraint: power cap 'row 4' binds in 1 of 2 intervals; one more W would save 1 at 2026-01-05T01:00" in words
    )
    assert made.gap == pytest.approx([0.0, 1.0 - 1100.0 / 1200.0])
    assert "switched on" not in words
    free = plan(trace=day(600.0, 900.0))
    assert free.constrained is None
    assert free.binding_constraints() == ()
    assert free.switched_on.tolist() == [[0, 0], [0, 1]]


def test_a_failure_is_survived_or_the_plan_says_what_is_exposed() -> None:
    made = plan(HALLS, trace=day(600.0, 1100.0))
    assert ads(made)[0] == [6, 2]
    assert made.exposed_qps[0].tolist() == [0.0, 0.0]
    assert made.covered.all()
    assert not made.is_covered
    assert made.exposed_qps[1, 0] == pytest.approx(100.0)
    assert made.shortfall() == (
        "ads: exposed to the worst failure in 1 of 2 intervals, at worst 100 q/s (9.09 % of its demand) at "
        "2026-01-05T01:00:00",
    )
    assert plan(HALLS, trace=day(600.0, 600.0)).is_covered


def test_switching_is_counted_and_its_gap_is_of_all_time() -> None:
    dip = day(900.0, 300.0, 900.0)
    stays, goes = (plan(Switching(cost_on=c, horizon=3), trace=dip) for c in (400.0, 10.0))
    assert stays.per_type.tolist() == [[0, 3]] * 3  # two rest on feed, where they draw least
    assert stays.power_w.tolist() == [900.0, 800.0, 900.0]
    assert ads(goes) == [[0, 3], [0, 1], [0, 3]]
    assert goes.switched_on.tolist() == [[0, 0], [0, 0], [0, 2]]
    assert goes.objective_w.tolist() == [900.0, 300.0, 920.0]
    assert goes.objective_w.sum() == pytest.approx(goes.bound_w.sum())
    assert goes.gap == pytest.approx([0.0] * 3, abs=1e-9)
    assert "constraint: servers are switched on 2 times" in goes.explain()
    assert "gap 0.00 % over all intervals" in goes.explain()
    kept = plan(Hysteresis(tolerance=0.5), trace=day(900.0, 850.0, 600.0))
    assert "2 of 3 intervals keep the plan of the one before" in kept.explain()


def test_fair_shares_are_told() -> None:
    """1900 q/s of ads beside all feed: as it is, one workload gives way; shared, both get the same part."""
    trace = load(ads=(2400.0,), feed=(400.0,))
    made = plan(FairShare(), trace=trace)
    share = (made.demand_qps - made.unmet_qps) / made.demand_qps
    assert share.min() > 0.9 * share.max() - 0.1
    assert "load is shared in 1 of 1 intervals; the smallest share is" in made.explain()


def test_a_shortage_by_constraints_is_no_shortage_of_stock() -> None:
    made = plan(PowerCap(name="site", servers=["old", "new"], limit_w=900.0), trace=day(1000.0))
    assert made.shed_qps[0, 0] == pytest.approx(100.0)
    assert made.fit_scale is None
    assert made.shortfall()[-1] == (
        "the stock alone would cover all of it (fractional machines); constraints stand in the way"
    )


def test_prices_and_maintenance_count() -> None:
    dear = Prices(energy=(SiteEnergy(site="here", price_per_kwh=(0.5,)),), currency="CHF")
    out = Maintenance(windows=(Window(server="new", machines=3, start="2026-01-05T01:00", end="2026-01-05T02:00"),))
    made = plan(ROW, trace=day(600.0, 600.0), prices=dear, maintenance=out)
    assert ads(made) == [[0, 2], [3, 1]]
    assert made.objective_w == pytest.approx([0.3, 0.45])
    assert made.money == pytest.approx([0.3, 0.45])


def test_a_broken_off_plan_is_one_of_the_intervals_done(monkeypatch) -> None:
    from hercules_fast.provisioning import constrained

    trace, commit = day(600.0, 900.0, 600.0), constrained._Run._commit

    def two(self, t, answer):
        if t == 2:
            raise KeyboardInterrupt
        commit(self, t, answer)

    whole = plan(ROW, trace=trace)
    monkeypatch.setattr(constrained._Run, "_commit", two)
    with pytest.raises(InterruptedRun, match="stopped after 2 of 3 intervals") as caught:
        plan(ROW, trace=trace)
    assert ads(caught.value.partial) == ads(whole)[:2]
    assert Plan.from_json(caught.value.partial.to_json()).switched_on.shape == (2, 2)


# -- minimum footprints ----------------------------------------------------------------------------------------------


def test_a_footprint_draws_power_under_the_cap() -> None:
    """Two new that feed takes anyway leave room for no third: ads goes to old."""
    made = plan(ROW, trace=day(600.0), minimum={("new", "feed"): 2})
    assert made.servers_on[0].tolist() == [[6, 0], [0, 2]]
    assert "minimum of 2 'new' for 'feed' binds in 1 of 1 intervals; it costs" in made.explain()
    assert made.bound_w[0] <= made.objective_w[0]
    assert made.gap[0] == pytest.approx((1700.0 - 1500.0) / 1700.0)  # fractional: 200 W of new are left for ads
    with pytest.raises(
        ConfigError, match=r"PowerCap 'row 4'\.limit_w: is 700 W in interval 0; allowed: at least the 750"
    ):
        plan(ROW, trace=day(600.0), minimum={("new", "feed"): 3})


@pytest.mark.parametrize("mode", ["exact", "safe"])
def test_a_footprint_is_capacity_of_its_hall(mode) -> None:
    """Six old are on anyway: with them 600 q/s survive the loss of hall 2, and hall 2 needs two new."""
    halls = FailureDomains(domain_of=HALLS.domain_of, mode=mode)
    made = plan(halls, trace=day(600.0), minimum={("old", "ads"): 6})
    assert ads(made) == [[6, 2]]
    assert made.is_covered
    assert made.gap[0] == pytest.approx(0.0, abs=1e-6)
    more = plan(halls, trace=day(600.0), minimum={("old", "ads"): 8})
    assert ads(more) == [[8, 2]]
    assert more.is_covered
    assert more.bound_w[0] <= more.objective_w[0]


def test_a_footprint_is_on_before_and_after() -> None:
    rule = Switching(cost_on=50.0, horizon=2, ramp={"new": 1}, initial={"new": 1})
    made = plan(rule, trace=day(300.0, 600.0), minimum={("new", "feed"): 1})
    assert made.servers_on[:, 1].tolist() == [[1, 1], [2, 1]]
    assert made.switched_on.tolist() == [[0, 1], [0, 1]]
    assert made.objective_w.tolist() == [600.0, 900.0]
    with pytest.raises(ConfigError, match=r"initial\['new'\]: is 1, with a ramp of 1; needed: 3 machines in the first"):
        plan(rule, trace=day(300.0, 600.0), minimum={("new", "feed"): 3})


def test_a_footprint_that_the_stock_does_not_hold_is_refused() -> None:
    with pytest.raises(InputError, match="minimum: 5 'new' in all; allowed: up to its stock, 4"):
        plan(ROW, minimum={("new", "feed"): 5})


# -- files -----------------------------------------------------------------------------------------------------------


def every_rule() -> Plan:
    return plan(ROW, HALLS, Switching(cost_on=5.0, horizon=2), FairShare(), trace=day(600.0, 900.0))


def test_a_plan_is_saved_with_what_its_constraints_say(tmp_path) -> None:
    made = every_rule()
    made.save(tmp_path / "plan.json")
    back = Plan.load(tmp_path / "plan.json")
    assert back.to_json() == made.to_json()
    assert back.explain() == made.explain()
    assert back.gap.tolist() == made.gap.tolist()
    document = json.loads(made.to_json())
    assert document["figures"]["switched_on"] == made.switched_on.tolist()
    del document["constrained"]  # as plans before constraints were written
    old = Plan.from_dict(document)
    assert old.constrained is None
    assert old.servers_on.tolist() == made.servers_on.tolist()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tied", "yes", "constrained: does not meet the schema: tied is 'yes', not true or false"),
        ("status", ["optimal"], "constrained.status: has 1 entries; allowed are 2"),
        ("cap_price", [[1.0, 2.0]] * 2, r"constrained.cap_price: has shape \(2, 2\); allowed is \(2, 1\)"),
        ("exposed_qps", [[0.0, float("nan")]] * 2, "constrained: does not meet the schema: holds a value that is not"),
        ("switched_on", [[-1, 0]] * 2, "constrained: does not meet the schema: holds a negative count"),
        ("binding", None, "constrained: does not meet the schema: is not a list of texts"),
    ],
)
def test_a_spoilt_file_is_refused_by_field(field, value, message) -> None:
    document = every_rule().to_dict()
    document["constrained"][field] = value
    with pytest.raises(ConfigError, match=message):
        Plan.from_dict(document)
    del document["constrained"][field]
    with pytest.raises(ConfigError, match="constrained: does not meet the schema"):
        Plan.from_dict(document)


def test_constraints_from_a_file(tmp_path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("""
schema = "hercules_fast.constraints/1"
name = "rules"
fair_share = true

[[power_caps]]
name = "row 4"
servers = ["new"]
limit_w = [700]

[[power_caps]]
name = "site"
servers = ["old", "new"]
limit_w = [9000.0, 800.0]

[failure_domains]
domain_of = { old = "hall 1", new = "hall 2" }
mode = "safe"

[hysteresis]
tolerance = 0.1
""")
    row, site, halls, keep, fair = load_constraints(path)
    assert (row.name, tuple(row.servers), row.limit_w) == ("row 4", ("new",), 700.0)
    assert tuple(site.limit_w) == (9000.0, 800.0)
    assert (dict(halls.domain_of), halls.k, halls.mode) == ({"old": "hall 1", "new": "hall 2"}, 1, "safe")
    assert keep.tolerance == 0.1
    assert isinstance(fair, FairShare)
    made = plan(row, site, halls, keep, fair, trace=day(300.0, 300.0))
    assert made.power_w.tolist() == [900.0, 700.0]  # 2 old and 1 new: a third old would not fit
    with pytest.raises(MissingFileError):
        load_constraints(tmp_path / "none.toml")


def test_a_file_names_all_its_faults_at_once(tmp_path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("""
schema = "hercules_fast.constraints/1"
name = "rules"
fairshare = true

[[power_caps]]
name = "row 4"
servers = []
limit_w = [-1.0]

[[power_caps]]
name = "row 4"
servers = ["new"]
limit_w = []

[failure_domains]
domain_of = { old = "hall 1" }
mode = "fast"
k = 0

[switching]
ramp = { new = 1.5 }
horizon = 0
cost_on = { new = -2.0 }

[hysteresis]
tolerance = 11
""")
    with pytest.raises(ConfigError) as caught:
        load_constraints(path)
    words = str(caught.value)
    for part in (
        "fairshare: unknown key; did you mean 'fair_share'?",
        "power_caps[0].servers",
        "power_caps[0].limit_w[0]: -1.0 is outside what is allowed: finite >= 1e-06",
        "power_caps[1].limit_w",
        "failure_domains.mode: is 'fast'; allowed is one of exact, safe",
        "failure_domains.k: 0 is outside what is allowed: finite >= 1",
        "switching.ramp.new: is 1.5; allowed is a whole number",
        "switching.horizon: 0 is outside",
        "switching.cost_on.new: -2.0 is outside",
        "hysteresis.tolerance: 11 is outside",
    ):
        assert part in words, f"{part}\n{words}"
    path.write_text("""
schema = "hercules_fast.constraints/1"
name = "rules"

[[power_caps]]
name = "a"
servers = ["new"]
limit_w = [1.0]

[[power_caps]]
name = "a"
servers = ["new"]
limit_w = [1.0]

[switching]
[hysteresis]
""")
    with pytest.raises(ConfigError, match=r"(?s)power_caps\[1\].name: repeats 'a'.*hysteresis: .* after switching"):
        load_constraints(path)


def test_names_are_checked_against_the_table() -> None:
    with pytest.raises(ConfigError, match=r"(?s)PowerCap 'row'.servers: unknown server 'newt'.*unknown server 'odl'"):
        plan(PowerCap(name="row", servers=["newt"], limit_w=1.0), Switching(ramp={"odl": 1}))
    with pytest.raises(ConfigError, match="limit_w: has 3 figures; needed: one, or 2 = intervals"):
        plan(PowerCap(name="row", servers=["new"], limit_w=[1.0, 2.0, 3.0]))


def test_the_example_is_a_plan_that_holds() -> None:
    """On a day of two halls: one may fail, breakers and switching are kept."""
    rules = load_constraints(EXAMPLE)
    made = plan(*rules, trace=day(*(300.0 + 50.0 * min(h, 12 - h) for h in range(12))))
    assert made.is_covered
    assert {type(rule).__name__ for rule in rules} == {"PowerCap", "FailureDomains", "Switching"}
    on = made.servers_on[:, :, 0]
    assert (on * np.array([200.0, 300.0])).sum(axis=1).max() <= 12_000.0
    assert (100.0 * on[:, 0] >= made.demand_qps[:, 0]).all()
    assert (300.0 * on[:, 1] >= made.demand_qps[:, 0]).all()
