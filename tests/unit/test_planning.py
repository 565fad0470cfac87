"""The whole road: from a fleet to a plan that an independent check agrees with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import fleets
from hercules_fast.errors import InputError, OutputError, UnknownNameError
from hercules_fast.planning import CASES, parse_sla, plan, with_sla
from hercules_fast.profiling import Effort
from hercules_fast.provisioning import Policy
from hercules_fast.traffic import Sla, read_load_csv

QUICK = Effort(queries=1024, final_queries=2048, replications=2)
ZOO = fleets.fleet("zoo10")
NAMES = ("T1", "T2", "T2-NMPx4", "T2-V100")
SMALL = replace(
    ZOO,
    servers=tuple(s for s in ZOO.servers if s.name in NAMES),
    stock={n: ZOO.stock[n] for n in NAMES},
    workloads=tuple(w for w in ZOO.workloads if w.name in ("rmc1", "rmc3", "wnd")),
)


@pytest.fixture(scope="module")
def run():
    return plan(SMALL, effort=QUICK, seed=5)


def test_the_plan_holds_stock_and_load_in_every_interval(run) -> None:
    """Nothing of the solver is used: the arrays are checked in their own units."""
    p = run.plan
    qps, power_w = run.table.matrices(p.servers, p.workloads)
    assert np.array_equal(p.qps, qps) and np.array_equal(p.server_power_w, power_w)
    assert p.stock.tolist() == [[SMALL.stock[name] for name in p.servers]] * len(p.times)
    assert p.servers_on.shape == (168, 4, 3) and p.is_covered and run.requirements_met
    assert np.all(p.servers_on.sum(axis=2) <= p.stock)
    served = (p.servers_on * p.qps).sum(axis=1)
    assert np.all(served >= p.demand_qps * (1 - 1e-9))
    assert np.allclose(p.demand_qps, run.load.qps * (1 + p.headroom), rtol=1e-12)
    assert np.allclose(p.power_w, (p.servers_on * p.server_power_w).sum(axis=(1, 2)), rtol=1e-12)


def test_objective_equals_an_independent_highs_solve(run) -> None:
    """A fresh HiGHS object per interval, model built row by row, presolve on, no warm start."""
    import highspy

    p = run.plan
    for t in sorted({p.peak, p.trough, *range(3, 168, 19)}):
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        n = {
            (h, w): solver.addVariable(lb=0, obj=float(p.server_power_w[h, w]))
            for h in range(4)
            for w in range(3)
            if p.qps[h, w] > 0
        }
        for w in range(3):
            terms = [n[h, w] * float(p.qps[h, w]) for h in range(4) if (h, w) in n]
            solver.addConstr(sum(terms[1:], terms[0]) >= float(p.demand_qps[t, w]))
        for h in range(4):
            terms = [n[h, w] for w in range(3) if (h, w) in n]
            solver.addConstr(sum(terms[1:], terms[0]) <= float(p.stock[t, h]))
        solver.minimize()
        assert p.lp_power_w[t] == pytest.approx(solver.getObjectiveValue(), rel=1e-6)


def test_bound_linear_whole_and_greedy_are_in_order(run) -> None:
    p = run.plan
    assert np.all(p.bound_w <= p.lp_power_w * (1 + 1e-6))
    assert np.allclose(p.bound_w, p.lp_power_w, rtol=1e-6), "the certificate proves the optimum"
    assert np.all(p.lp_power_w <= p.power_w * (1 + 1e-9))
    greedy = p.baselines["greedy"]
    assert np.all(p.lp_power_w[greedy.covers] <= greedy.power_w[greedy.covers] * (1 + 1e-9))


def test_the_built_in_week_peaks_where_it_should(run) -> None:
    """Peak with headroom = 0.70 of the largest load that the LP serves; equal shares in reference servers."""
    assert CASES == {"today": 0.70, "growth": 0.85}
    assert run.largest_scale == pytest.approx(1 / 0.70, rel=1e-6)
    reference = [s.name for s in SMALL.servers].index("T2")
    equivalents = run.load.qps / run.plan.qps[reference]
    assert np.allclose(equivalents, equivalents[:, :1], rtol=1e-12)
    growth = plan(SMALL, table=run.table, case="growth")
    assert growth.largest_scale == pytest.approx(1 / 0.85, rel=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_seed_same_files(run, threads) -> None:
    again = plan(SMALL, effort=QUICK, seed=5, threads=threads)
    assert again.files() == run.files()


def test_run_directory(run, tmp_path: Path) -> None:
    written = run.save(tmp_path / "a" / "b")
    assert {p.name for p in written} == {
        *("run.json", "efficiency.json", "efficiency.csv", "load.csv", "plan.json", "plan.csv")
    }
    resolved = json.loads((tmp_path / "a" / "b" / "run.json").read_text())
    assert resolved["seed"] == 5
    assert resolved["fleet"]["stock"]["T1"] == 100
    assert {"fleet", "efficiency table", "load", "latency targets"} <= set(resolved["inputs"])
    back = hf.EfficiencyTable.load(tmp_path / "a" / "b" / "efficiency.json")
    load = read_load_csv(tmp_path / "a" / "b" / "load.csv", workloads=["rmc1", "rmc3", "wnd"])
    assert np.array_equal(load.qps, run.load.qps), "the saved load is the load, to the bit"
    same = Policy(headroom=dict(zip(run.plan.workloads, run.plan.headroom.tolist(), strict=True)))
    assert plan(SMALL, load, table=back, policy=same).plan.power_w.tolist() == run.plan.power_w.tolist()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        run.save(tmp_path / "file" / "sub")


def test_a_workload_that_nobody_can_serve_is_named(run) -> None:
    hasty = replace(SMALL.workloads[0], slas=(Sla(percentile=95, latency_ms=0.001),))
    fleet = replace(SMALL, workloads=(hasty, *SMALL.workloads[1:]))
    result = plan(fleet, effort=QUICK)
    assert result.unserved == ("rmc1",)
    assert not result.requirements_met
    assert result.plan.is_covered, "the others are served all the same"


def test_an_unknown_workload_in_the_load_is_refused_before_work() -> None:
    load = hf.LoadTrace(
        name="x",
        workloads=("rmc9",),
        times=np.array(["2026-01-01"], dtype="M8[s]"),
        interval_s=60.0,
        qps=np.ones((1, 1)),
    )
    with pytest.raises(UnknownNameError, match="unknown workload in the load 'rmc9'; did you mean 'rmc"):
        plan(SMALL, load)


@pytest.mark.parametrize(
    ("text", "want"), [("p95", (95.0, None)), ("p99:25ms", (99.0, 25.0)), ("P99.9:1.5s", (99.9, 1500.0))]
)
def test_slas_are_read(text, want) -> None:
    assert parse_sla(text) == want


@pytest.mark.parametrize(
    "text", ["", "95", "p", "p0", "p0.99", "p100", "p95:", "p95:25", "p95:0ms", "p95:-1ms", "p95:nanms"]
)
def test_slas_that_are_none(text) -> None:
    """A bare latency is refused too: milliseconds and seconds are both common."""
    with pytest.raises(InputError, match="sla: "):
        parse_sla(text)


def test_an_sla_for_all_keeps_each_latency() -> None:
    changed = with_sla(SMALL.workloads[0], "p99")
    assert [(s.percentile, s.latency_ms) for s in changed.slas] == [(99.0, SMALL.workloads[0].slas[0].latency_ms)]
    assert with_sla(SMALL.workloads[0], None) is SMALL.workloads[0]


def test_unknown_case() -> None:
    with pytest.raises(UnknownNameError, match="unknown case 'grow'; did you mean 'growth'"):
        plan(SMALL, case="grow")


def test_a_raw_two_week_trace_goes_the_whole_road(shared: Path, tmp_path: Path) -> None:
    """Irregular steps, bursts and all, as it was recorded; scaled to q/s, the same shape for three workloads."""
    raw = (shared / "load-traces" / "elb_request_count_5min.csv").read_text().splitlines()[1:]
    path = tmp_path / "load.csv"
    lines = ["timestamp,rmc1,rmc3,wnd"]
    for line in raw:
        time, value = line.split(",")
        lines.append(f"{time},{float(value) * 60},{float(value) * 25},{float(value) * 90}")
    path.write_text("\n".join(lines) + "\n")
    load = read_load_csv(path, workloads=["rmc1", "rmc3", "wnd"], interval_s=900)
    assert load.repairs.rows == 4032
    assert load.repairs.carried_steps == 8, "eight of the steps are ten minutes"
    assert load.times[0] == np.datetime64("2014-04-10T00:00:00")
    values = np.array([float(line.split(",")[1]) for line in raw])
    assert load.qps[:, 0].max() == values.max() * 60, "intervals take the largest mean rate inside them"
    result = plan(SMALL, load, effort=QUICK, policy=Policy(headroom=0.05))
    p = result.plan
    assert len(p.times) == len(load.times) >= 14 * 96
    served = (p.servers_on * p.qps).sum(axis=1)
    assert np.all(served + p.shed_qps >= p.demand_qps * (1 - 1e-9))
    assert np.all(p.servers_on.sum(axis=2) <= p.stock)
    assert "8 missing steps carried forward" in result.inputs["load repairs"]
