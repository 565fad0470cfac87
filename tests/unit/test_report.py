"""Reports say what the objects hold: figures are looked up in the object, never typed in again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hercules_fast.provisioning import Policy, provision
from hercules_fast.report import (
    WIDTH,
    mapping_text,
    plan_text,
    provision_text,
    table_text,
    text_table,
)
from hercules_fast.tables import EfficiencyTable
from tests import small_plans


def line_with(text: str, *words: str) -> str:
    found = [line for line in text.splitlines() if all(word in line for word in words)]
    assert found, f"no line with {words} in:\n{text}"
    return found[0]


def test_text_table_aligns_columns() -> None:
    assert text_table(("name", "n"), [("a", "1"), ("long", "1000")]).splitlines() == [
        "  name     n",
        "  a        1",
        "  long  1000",
    ]
    assert text_table(("n", "name"), [("1", "a")], align="><", indent=0).splitlines() == ["n  name", "1  a"]


def test_mapping_text_wraps_under_the_first_word() -> None:
    text = mapping_text({"a": "word " * 40, "longer": ["x", "y"]})
    first, second, *_, last = text.splitlines()
    assert first.startswith("  a       word")
    assert second.startswith(" " * 10 + "word")
    assert last == "  longer  x, y"
    assert mapping_text({}) == ""


def test_the_week_on_one_page() -> None:
    run = small_plans.run()
    plan = run.plan
    text = plan_text(run)
    assert len(text.splitlines()) <= 70
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.isascii()
    assert text.startswith("Plan for fleet toy (not the paper's)\n")
    assert "48 intervals of 1 h from Mon 2026-01-05 00:00 UTC" in text
    assert "headroom 10% (as asked), seed 7" in text
    assert "1.25 times this load" in text
    order = ["Servers on,", "Capacity and power", "Saved", "Stock that binds", "Best servers", "Where the inputs"]
    assert [text.index(title) for title in order] == sorted(text.index(title) for title in order)
    assert "made up for this test" in text
    assert "2 missing steps carried forward" in text
    on = plan.servers_on.sum(axis=2)
    for h, name in enumerate(plan.servers):
        words = line_with(text, f"  {name} ", "%").split()
        assert words[:3] == [name, str(plan.stock[0, h]), str(on[plan.peak, h])]
        assert words[4] == str(on[plan.trough, h])
    whole = line_with(text, "power, whole servers").split()
    assert whole[-3:] == [f"{w / 1000:.2f}" for w in (*plan.power_w[[plan.peak, plan.trough]], plan.power_w.mean())]
    for name, saving in plan.savings().items():
        words = line_with(text, f"against {name}").split()
        parts = (saving.peak_capacity, saving.peak_power, saving.mean_capacity, saving.mean_power)
        assert words[-4:] == [f"{100 * part:.1f}%" for part in parts]
    for line in plan.binding_stock():
        assert line in text
    for baseline in plan.baselines.values():
        assert baseline.rule in " ".join(text.split())


def test_headroom_says_how_it_was_found() -> None:
    run = small_plans.run()
    run.policy = replace(run.policy, headroom=None)
    assert "the largest growth over one interval" in line_with(plan_text(run), "seed 7")


def test_shed_load_and_uncovered_baselines_are_named() -> None:
    run = small_plans.run(scale=3.0)
    text = " ".join(plan_text(run).split())
    assert not run.plan.is_covered
    assert "LOAD THAT IS NOT SERVED" in text
    for line in run.plan.shortfall():
        assert line in text
    for name, baseline in run.plan.baselines.items():
        assert f"{name} does not cover the load in {int((~baseline.covers).sum())} of 48 intervals" in text
    assert "LOAD THAT IS NOT SERVED" not in plan_text(small_plans.run())


def test_missing_headroom_is_not_called_missing_load() -> None:
    """88 % more load than in the small plan eats headroom only."""
    plan = provision(small_plans.table(), small_plans.load(1.88), small_plans.STOCK, Policy(headroom=0.1))
    assert plan.headroom_short_qps.any()
    assert not plan.shed_qps.any()
    text = provision_text(plan)
    assert "HEADROOM THAT IS NOT THERE (all load is served)" in text
    assert "NOT SERVED" not in text


def test_workloads_out_of_reach_are_named() -> None:
    text = plan_text(small_plans.run(unserved=("=feed",)))
    assert "=feed: no server of the fleet serves it within its SLA" in text
    assert "SLA OUT OF REACH" not in plan_text(small_plans.run())


def test_negative_savings_are_printed_as_they_are() -> None:
    run = small_plans.run()
    saving = replace(run.plan.savings()["greedy"], peak_capacity=-0.123, mean_power=None)
    run.plan = Wrapped(run.plan, savings=lambda: {"greedy": saving})
    words = line_with(plan_text(run), "against greedy").split()
    assert words[2] == "-12.3%"
    assert words[-1] == "-"


class Wrapped:
    """An object with some attributes replaced."""

    def __init__(self, inner: object, **changes: object):
        self._inner, self._changes = inner, changes

    def __getattr__(self, name: str) -> object:
        return self._changes[name] if name in self._changes else getattr(self._inner, name)


def test_provision_text_needs_the_plan_only() -> None:
    plan = small_plans.plan()
    text = provision_text(plan)
    assert text.startswith("Plan for load two days\n")
    assert "Capacity and power" in text
    assert plan.baselines["greedy"].rule in " ".join(text.split())


def test_one_interval_and_no_load_at_all() -> None:
    for plan in (small_plans.plan(hours=1), small_plans.plan(scale=0.0)):
        text = provision_text(plan)
        assert "nan" not in text
        assert "none: every type has servers left" in text or plan.binding_stock()


@pytest.mark.parametrize(
    ("seconds", "words"), [(900.0, "15 min"), (86400.0, "1 d"), (90.0, "90 s"), (5400.0, "90 min")]
)
def test_interval_lengths(seconds, words) -> None:
    assert f"48 intervals of {words} from" in provision_text(replace(small_plans.plan(), interval_s=seconds))


def test_days_of_the_week() -> None:
    times = np.array(["1969-12-31T23:00", "2024-02-29T05:30", "2026-01-05T00:00"], dtype="datetime64[s]")
    names = ["Wed 1969-12-31 23:00", "Thu 2024-02-29 05:30", "Mon 2026-01-05 00:00"]
    for time, name in zip(times, names, strict=True):
        plan = replace(small_plans.plan(hours=1), times=np.array([time]))
        assert f"from {name} UTC" in provision_text(plan)


def test_table_text_ranks_and_says_who_cannot() -> None:
    text = table_text(small_plans.table())
    rank, feed = text.split("\n\n")
    assert [line.split()[0] for line in rank.splitlines()[2:]] == ["gpu", "new", "old"]
    assert rank.startswith("rank, p95 <= 25 ms")
    assert line_with(rank, "gpu").split() == ["gpu", "900", "at", "the", "cap", "500", "1.80"]
    assert "cannot: gpu: does not fit: needs 90.0 GB" in feed


def test_table_text_without_any_server_or_profile() -> None:
    table = EfficiencyTable.from_matrices(["a", "b"], ["w"], [[0.0], [0.0]], [[0.0], [0.0]])
    assert "no server can serve it" in table_text(table)
    partial = replace(table, rows=table.rows[:1])
    assert "not profiled: b" in table_text(partial)


def test_table_text_shows_every_point_of_a_front_and_the_goal() -> None:
    table = small_plans.table()
    best = next(row for row in table.rows if (row.server, row.workload) == ("new", "rank"))
    frugal = replace(best, qps=best.qps / 2, qps_lo=best.qps / 2, qps_hi=best.qps / 2, power_w=best.power_w / 3)
    meta = {"objective": "qps_per_watt", "power_budget_w": 150.0, "power_mode": "tdp"}
    text = table_text(replace(table, rows=(*table.rows, frugal), meta=meta))
    lines = text.splitlines()
    second = lines[lines.index(line_with(text, "new", f"{best.qps:,.0f}")) + 1]
    assert second.startswith("       ") and f"{frugal.qps:,.0f}" in second and f"{frugal.power_w:.0f}" in second
    assert lines[-1] == "objective: qps_per_watt, at most 150 W; power mode tdp"
    assert "objective" not in table_text(table)
