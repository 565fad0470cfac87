"""Bad input to provisioning is refused by name, with what was seen and what is allowed, before any solving."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from hercules_fast import _core
from hercules_fast.errors import (
    ConfigError,
    DTypeError,
    InputError,
    InternalError,
    MissingFileError,
    SolverError,
    UnknownNameError,
)
from hercules_fast.provisioning import (
    Assignment,
    Plan,
    Policy,
    Problem,
    greedy,
    highs,
    largest_scale,
    linear,
    provision,
    solving,
)
from hercules_fast.tables import EfficiencyTable
from hercules_fast.traffic import LoadTrace

GOOD = {
    "qps": [[100.0, 0.0], [300.0, 50.0]],
    "power_w": [[120.0, 0.0], [400.0, 380.0]],
    "demand_qps": [[500.0, 60.0], [200.0, 0.0]],
    "stock": [4, 3],
    "servers": ("cpu", "gpu"),
    "workloads": ("ads", "feed"),
}


def changed(field, place, value):
    array = np.array(GOOD[field])
    array[place] = value
    return GOOD | {field: array}


@pytest.mark.parametrize(
    ("field", "place", "value", "message"),
    [
        ("qps", (0, 0), np.nan, r"qps: server 'cpu', workload 'ads' is nan; allowed: 0, or 0.0001 to 1e\+10 q/s"),
        ("qps", (1, 1), -1.0, "qps: server 'gpu', workload 'feed' is -1; allowed"),
        ("qps", (1, 0), np.inf, "qps: server 'gpu', workload 'ads' is inf; allowed"),
        ("qps", (1, 0), 1e-5, "qps: server 'gpu', workload 'ads' is 1e-05; allowed"),
        ("power_w", (0, 0), 0.0, r"power_w: server 'cpu', workload 'ads' is 0; allowed: 1e-06 to 1e\+09 W"),
        ("power_w", (1, 1), np.nan, "power_w: server 'gpu', workload 'feed' is nan; allowed"),
        ("power_w", (1, 1), -5.0, "power_w: server 'gpu', workload 'feed' is -5; allowed"),
        ("demand_qps", (1, 1), -2.0, "demand_qps: interval 1, workload 'feed' is -2; allowed"),
        ("demand_qps", (0, 1), np.inf, "demand_qps: interval 0, workload 'feed' is inf; allowed"),
        ("demand_qps", (0, 1), 1e13, r"demand_qps: interval 0, workload 'feed' is 1e\+13; allowed"),
        ("stock", 1, -1, "stock: server 'gpu' has -1; allowed: 0 to 10000000 machines"),
        ("stock", 0, 10_000_001, "stock: server 'cpu' has 10000001; allowed"),
    ],
)
def test_values_out_of_range(field, place, value, message):
    with pytest.raises(InputError, match=message):
        Problem(**changed(field, place, value))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"qps": [["fast", "slow"]]}, DTypeError, "qps: dtype <U4 is not numeric"),
        ({"stock": [1.5, 2.0]}, DTypeError, "stock: dtype float64 does not count machines"),
        ({"qps": [1.0, 2.0]}, InputError, r"qps: has 1 dimensions, shape \(2,\); 2 are needed"),
        ({"power_w": [[1.0, 1.0]]}, InputError, r"power_w: shape \(1, 2\); needed: \(2, 2\)"),
        ({"demand_qps": [[1.0]]}, InputError, r"demand_qps: shape \(1, 1\); needed: \(1, 2\)"),
        ({"stock": [1]}, InputError, r"stock: shape \(1,\); needed: \(2,\)"),
        ({"demand_qps": np.zeros((0, 2))}, InputError, "at least one server type, workload and interval"),
        ({"servers": ("cpu",)}, InputError, "servers: 1 names for 2"),
        ({"workloads": ("ads", "ads")}, InputError, "workloads: 'ads' stands there twice"),
    ],
)
def test_shapes_and_names(change, error, message):
    with pytest.raises(error, match=message):
        Problem(**(GOOD | change))


def test_power_is_not_read_where_a_server_is_not_eligible():
    problem = Problem(**changed("power_w", (0, 1), np.nan))
    assert problem.power_w[0, 1] == 0.0


def table():
    return EfficiencyTable.from_matrices(GOOD["servers"], GOOD["workloads"], GOOD["qps"], GOOD["power_w"])


def trace(qps=((500.0, 60.0), (200.0, 0.0)), workloads=("ads", "feed"), **more):
    times = np.datetime64("2024-03-04T00:00:00", "s") + 900 * np.arange(len(qps))
    return LoadTrace(name="day", workloads=workloads, times=times, interval_s=900.0, qps=np.array(qps), **more)


@pytest.mark.parametrize(
    ("stock", "error", "message"),
    [
        ({"cpu": 4, "gpuu": 1}, UnknownNameError, "unknown server of the stock.* 'gpuu'; did you mean 'gpu'"),
        ({"cpu": -1}, InputError, "stock: 'cpu' has -1; allowed: whole numbers"),
        ({"cpu": 1.5}, InputError, "stock: 'cpu' has 1.5; allowed: whole numbers"),
        ({"cpu": True}, InputError, "stock: 'cpu' has True; allowed: whole numbers"),
        ({"cpu": float("nan")}, InputError, "stock: 'cpu' has nan; allowed: whole numbers"),
        ({}, InputError, "stock: no server named"),
        ([4, 3], DTypeError, "stock: list; needed: a mapping"),
    ],
)
def test_stock(stock, error, message):
    with pytest.raises(error, match=message):
        provision(table(), trace(), stock)


def test_workload_without_a_profile():
    with pytest.raises(
        UnknownNameError, match=r"unknown workload of load 'day', without any row.*'fed'; did you mean 'feed'"
    ):
        provision(table(), trace(workloads=("ads", "fed")), {"cpu": 4})


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (trace(((1.0, np.nan), (1.0, 1.0))), r"load 'day': interval 0 \(2024-03-04T00:00:00\), workload 'feed' is nan"),
        (trace(((1.0, 1.0), (-3.0, 1.0))), r"interval 1 \(2024-03-04T00:15:00\), workload 'ads' is -3.0; allowed"),
        (trace(((1.0,), (2.0,))), r"load 'day': qps has shape \(2, 1\); needed: \(2, 2\)"),
        (trace(np.zeros((0, 2))), "load 'day': 0 intervals of 2 workloads"),
        (trace(((0.0, 0.0),), relative=True), "is relative and cannot be scaled: it asks for nothing"),
    ],
)
def test_loads(load, message):
    with pytest.raises(InputError, match=message):
        provision(table(), load, {"cpu": 4, "gpu": 3})


def test_a_relative_load_that_no_server_can_run_asks_for_nothing():
    plan = provision(table(), trace(((1.0, 2.0),), relative=True), {"cpu": 0, "gpu": 0})
    assert not plan.load_qps.any()
    assert any("no server in stock can run any" in note for note in plan.notes)


def test_unknown_reference_server():
    with pytest.raises(UnknownNameError, match="unknown reference server 'tpu'"):
        provision(table(), trace(relative=True), {"cpu": 4, "gpu": 3}, Policy(reference_server="tpu"))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("headroom", -0.1, "0 to 1000"),
        ("headroom", float("nan"), "0 to 1000"),
        ("headroom", "5 %", "0 to 1000"),
        ("peak_share", 0.0, "1e-06 to 1000"),
        ("seed", -1, "whole numbers from 0"),
        ("seed", 1.0, "whole numbers from 0"),
        ("greedy_rank", "power", "'efficiency', 'qps'"),
        ("greedy_order", "smallest", "'given', 'largest', or a tuple"),
        ("order_samples", -1, "whole numbers from 0 to 100000"),
    ],
)
def test_policy(field, value, allowed):
    with pytest.raises(InputError, match=f"policy.{field}: .*; allowed: {allowed}"):
        Policy(**{field: value})


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ("smallest", InputError, "order: 'smallest'; allowed"),
        (("ads", "fead"), UnknownNameError, "unknown workload in the greedy order 'fead'; did you mean 'feed'"),
        (("ads", "ads"), InputError, "is not a permutation of the workloads"),
    ],
)
def test_greedy_orders(order, error, message):
    with pytest.raises(error, match=message):
        greedy(Problem(**GOOD), order=order)


def test_greedy_rank():
    with pytest.raises(InputError, match="rank: 'watts'; allowed: 'efficiency', 'qps'"):
        greedy(Problem(**GOOD), rank="watts")


def test_largest_scale_refuses_by_name():
    with pytest.raises(InputError, match="qps: server '0', workload '1' is nan"):
        largest_scale([[1.0, np.nan]], [1.0, 1.0], [3])


def test_a_solver_that_does_not_end_at_an_optimum_is_an_error(monkeypatch):
    original = highs.Solver.run

    def cut_short(self, what, **how):
        self.highs.setOptionValue("simplex_iteration_limit", 0)
        return original(self, what, **how)

    monkeypatch.setattr(highs.Solver, "run", cut_short)
    with pytest.raises(SolverError, match=r"interval 0: HiGHS .*(Iteration limit|kWarning)"):
        linear.solve_linear(Problem(**GOOD))


def test_a_broken_plan_is_never_returned(monkeypatch):
    def too_many(problem, solution, **options):
        return Assignment.from_dense(np.full(solution.servers.shape, 9, dtype=np.int64) * (problem.qps > 0))

    monkeypatch.setattr(solving, "whole_machines", too_many)
    with pytest.raises(InternalError, match="whole plan, interval 0: more 'cpu' than its stock of 4"):
        provision(table(), trace(), {"cpu": 4, "gpu": 3})


@pytest.mark.parametrize("solver", ["auto", "network", "highs"])
def test_progress_counts_the_intervals(solver):
    seen = []
    provision(table(), trace(), {"cpu": 4, "gpu": 3}, solver=solver, progress=lambda *at: seen.append(at))
    assert seen[-1] == (2, 2)
    assert seen == sorted(seen)


def test_plan_files(tmp_path):
    plan = provision(table(), trace(), {"cpu": 4, "gpu": 3})
    with pytest.raises(MissingFileError, match="no such file"):
        Plan.load(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="is not JSON"):
        Plan.from_json("{")
    with pytest.raises(ConfigError, match=r"schema: is None; allowed are 'hercules_fast\.plan/2' and"):
        Plan.from_json("{}")
    data = plan.to_dict()
    data["bound_w"][0] = "much"
    data["assignment"]["machines"][0] = -1
    del data["times"]
    with pytest.raises(ConfigError) as caught:
        Plan.from_dict(data)
    assert {fault.path for fault in caught.value.faults} == {"bound_w", "assignment", "times"}
    data = plan.to_dict()
    data["bound_w"] = data["bound_w"][:1]
    with pytest.raises(ConfigError, match=r"bound_w: has shape \(1,\); allowed is \(2,\)"):
        Plan.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["assignment"].update(row=[9] * len(d["assignment"]["row"])),
            r"assignment\.row: allowed are \d+ positions",
        ),
        (
            lambda d: d["assignment"]["starts"].reverse(),
            r"assignment\.starts: allowed are 3 rising positions from 0 to",
        ),
        (lambda d: d["lp_assignment"]["workload"].pop(), r"lp_assignment\.workload: allowed are \d+ positions"),
        (lambda d: d["assignment"].update(machines=3), "assignment: does not meet the schema: machines is not a list"),
        (lambda d: d.update(row_type=[1, 0]), "row_type: allowed are 0 to 1, in order"),
    ],
)
def test_plan_files_whose_parts_do_not_match(change, message):
    data = provision(table(), trace(), {"cpu": 4, "gpu": 3}).to_dict()
    change(data)
    with pytest.raises(ConfigError, match=message):
        Plan.from_dict(data)


def test_plans_of_schema_1_are_still_read():
    """The file was written by the release before: same counts, same power, same words about what is short."""
    text = (Path(__file__).parents[1] / "oracle" / "plan-1.json").read_text()
    old, plan = json.loads(text), Plan.from_json(text)
    assert plan.servers_on.tolist() == old["servers_on"]
    assert plan.power_w == pytest.approx(old["power_w"], rel=1e-12)
    assert plan.gap == pytest.approx(old["gap"], rel=1e-9)
    assert (plan.shed_qps + plan.headroom_short_qps).tolist() == old["shed_qps"]
    assert plan.free_stock.tolist() == old["free_stock"]
    assert plan.headroom.tolist() == [old["headroom"]] * 2
    assert plan.costs is None
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()
    del old["servers_on"]
    with pytest.raises(ConfigError, match="servers_on: is missing"):
        Plan.from_dict(old)


def test_results_cannot_be_written_to():
    plan = provision(table(), trace(), {"cpu": 4, "gpu": 3})
    with pytest.raises(ValueError, match="read-only"):
        plan.demand_qps[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.headroom = 0.0


def test_the_core_takes_matrices_in_c_order_only():
    """Fortran's order is contiguous too: read as it lies it would be another matrix."""
    fleet = [np.full((2, 3), 9.0), np.full((2, 3), 5.0), np.array([0, 1]), 2, np.full((2, 3), 20.0)]
    fleet += [np.array([[5, 5], [6, 7]]), None]
    for place, name in ((0, "qps"), (1, "power_w"), (4, "demand"), (5, "stock")):
        turned = [*fleet]
        turned[place] = np.asfortranarray(turned[place])
        with pytest.raises(InputError, match=f"{name}: must be C-ordered"):
            _core.provision_linear(*turned)


def test_the_core_takes_powers_of_the_shape_of_the_rates_only():
    """As many entries in another shape would be read as another matrix."""
    with pytest.raises(InputError, match="power_w: has 2 columns; must have 3"):
        _core.provision_linear(
            np.full((2, 3), 9.0), np.full((3, 2), 5.0), np.array([0, 1]), 2, np.full((1, 3), 20.0), np.array([[5, 5]])
        )
