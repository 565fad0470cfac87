"""Objectives of the search: power against its slow twin, scores and fronts against every configuration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.profiling import Cost, Effort, search
from hercules_fast.profiling.pairs import make_pair
from hercules_fast.serving import Terms, core_power, server_power, service_table
from hercules_fast.serving.simulation import core_grid, core_traffic

QUICK = Effort(queries=1024, final_queries=2048, replications=3, precision=0.05)
ZOO = hf.fleet("zoo10")
SERVERS = {server.name: server for server in ZOO.servers}
WORKLOADS = {workload.name: workload for workload in ZOO.workloads}


@pytest.mark.parametrize("mode", ["component", "tdp"])
@pytest.mark.parametrize("names", [("T1", "rmc1"), ("T2-NMPx8", "rmc2"), ("T2-V100", "dien")], ids="-".join)
def test_power_of_the_core_is_that_of_its_slow_twin(names: tuple[str, str], mode: str) -> None:
    pair = make_pair(SERVERS[names[0]], WORKLOADS[names[1]], Terms())
    assert pair.table is not None and pair.space is not None
    model = core_power(pair.table, mode)
    rng = np.random.default_rng(5)
    for index in rng.integers(len(pair.space.candidates), size=60):
        config = pair.space.config(pair.table, int(index))
        used = rng.uniform(0, 1.2, len(config.threads)).tolist()
        energy = rng.uniform(0, 0.05, len(config.threads))
        energy[rng.uniform(size=energy.size) < 0.1] = np.nan
        qps = float(rng.uniform(1, 2000))
        total = sum(e for e, t in zip(energy.tolist(), config.threads, strict=True) if t)
        slow = server_power(
            pair.table, config, qps=qps, stage_utilisation=used, energy_j_per_query=total, mode=mode
        ).power_w
        assert model.power_w(np.array(config.row), qps, used, energy.tolist()) == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "qps_per_watt"},
        {"objective": "qps_per_cost", "cost": Cost(server_per_hour=0.02, energy_per_kwh=0.2)},
        {"power_budget_w": 115.0},
    ],
    ids=["watt", "cost", "budget"],
)
def test_gradient_finds_the_best_of_every_configuration(changes: dict) -> None:
    found = search(SERVERS["T1"], WORKLOADS["rmc3"], effort=QUICK, exhaustive=True, **changes)
    assert found.optimum is not None

    def score(row: hf.tables.EfficiencyRow) -> float:
        if "power_budget_w" in changes:
            return row.qps
        cost = changes.get("cost")
        return row.qps / (cost.server_per_hour + cost.energy_per_kwh / 1e3 * row.power_w if cost else row.power_w)

    assert score(found.row) >= 0.97 * score(found.optimum), "both are judged on short runs here"
    assert found.evaluations < 0.25 * found.candidates
    if "power_budget_w" in changes:
        assert found.row.power_w <= 115.0 and "power budget" in found.row.reason


def test_a_front_holds_no_row_that_another_makes_useless() -> None:
    found = search(SERVERS["T2-V100"], WORKLOADS["rmc3"], effort=QUICK, front=True, top=3)
    assert found.front and found.row in found.front
    for a, b in zip(found.front, found.front[1:], strict=False):
        assert a.qps > b.qps and a.power_w > b.power_w
    assert len(found.top) == 3 and found.top[0] == found.row
    assert [row.qps for row in found.top] == sorted((row.qps for row in found.top), reverse=True)


@pytest.mark.parametrize("name", ["rmc1", "dien"])
def test_a_front_is_within_a_percent_of_every_configuration_at_its_own_highest_load(name: str) -> None:
    """For the power of each row of the front, no configuration that draws no more carries 1 % more."""
    pair = make_pair(SERVERS["T1"], WORKLOADS[name], Terms())
    assert pair.table is not None and pair.space is not None
    keep = np.arange(0, len(pair.space.candidates), 11)
    problem = _core.SearchProblem(
        core_grid(pair.table),
        core_traffic(pair.workload.sizes, pair.workload.arrivals, 0),
        pair.space.candidates[keep],
        pair.space.coords[keep],
        np.array([0, keep.size // 2]),
        [(sla.percentile / 100, sla.latency_ms / 1e3) for sla in pair.workload.slas],
        power=core_power(pair.table),
    )
    effort = {"queries": 4096, "final_queries": 4096, "replications": 3, "precision": 1.0}
    (every,), _ = _core.search([problem], method="exhaustive-unpruned", top=keep.size, **effort)
    (found,), _ = _core.search([problem], method="exhaustive", front=True, **effort)
    for row in found["front"]:
        best = max((one["qps"] for one in every["top"] if one["power_w"] <= row["power_w"]), default=0.0)
        assert row["qps"] >= 0.99 * best


def test_evaluations_are_at_most_what_was_allowed() -> None:
    found = search(SERVERS["T1"], WORKLOADS["rmc1"], effort=QUICK, evaluations=10)
    assert found.evaluations == 10 and found.row.status == "ok" and found.complete


def test_a_table_of_ones_own_takes_the_place_of_the_modelled_one() -> None:
    server, workload = SERVERS["T1"], WORKLOADS["rmc1"]
    table = service_table(server, workload)
    own = replace(table, origin="measured", seconds=2 * table.seconds)
    plain, slow = (search(server, workload, effort=QUICK, tables=tables) for tables in (None, {("T1", "rmc1"): own}))
    assert slow.row.origin == "measured" and slow.row.qps < plain.row.qps
    with pytest.raises(InputError, match=r"tables\[\('T1', 'rmc2'\)\]: is no pair of the call"):
        search(server, workload, tables={("T1", "rmc2"): own})
    with pytest.raises(InputError, match=r"tables.*: is a table of 'rmc1' on 'T1'; allowed is one of this pair"):
        search(SERVERS["T2"], workload, tables={("T2", "rmc1"): own})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "speed"}, "objective: is 'speed'; allowed are 'qps'"),
        ({"objective": "qps_per_cost"}, "cost: is None"),
        ({"cost": Cost(server_per_hour=1.0, energy_per_kwh=0.1)}, "cost: is given with objective 'qps'"),
        ({"power_budget_w": 0.0}, r"power_budget_w: is 0\.0; allowed is a finite number > 0"),
        ({"power_budget_w": float("nan")}, "power_budget_w: is nan"),
        ({"power_budget_w": float("inf")}, "power_budget_w: is inf; allowed is a finite number > 0"),
        ({"evaluations": 0}, "evaluations: is 0; allowed is a whole number >= 1"),
        ({"top": 0}, "top: is 0; allowed is a whole number >= 1"),
    ],
)
def test_what_is_not_allowed_is_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(SERVERS["T1"], WORKLOADS["rmc1"], **changes)


def test_an_unreachable_goal_says_what_would_have_to_change() -> None:
    found = search(SERVERS["T1"], WORKLOADS["rmc1"], effort=QUICK, power_budget_w=10.0)
    assert found.row.status == "infeasible"
    assert found.row.reason.endswith("a budget above 85.6 W would be met")


def test_a_budget_that_leaves_next_to_nothing_is_named() -> None:
    found = search(SERVERS["T2"], WORKLOADS["rmc1"], effort=QUICK, power_budget_w=110.001)
    assert found.row.status == "infeasible"
    assert "keeps all of it and the power budget of 110.001 W under load" in found.row.reason
    assert found.row.reason.endswith("would be met with a longer latency or a larger budget")
