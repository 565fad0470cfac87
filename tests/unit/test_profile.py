"""Profiling: rows that make sense, the same bytes for any thread count and instruction set, errors before work."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import fleets
from hercules_fast.errors import DTypeError, InputError, UnknownNameError
from hercules_fast.profiling import Effort, profile, search
from hercules_fast.serving import service_table
from hercules_fast.traffic import Sla

QUICK = Effort(polish_queries=4096, queries=1024, final_queries=2048, replications=3)
ZOO = fleets.fleet("zoo10")
SERVERS = [s for s in ZOO.servers if s.name in ("T1", "T2-NMPx8", "T2-V100")]
WORKLOADS = [w for w in ZOO.workloads if w.name in ("rmc1", "rmc2", "dien")]


@pytest.fixture(scope="module")
def table():
    return profile(SERVERS, WORKLOADS, seed=3, effort=QUICK)


def test_rows_keep_their_promises(table) -> None:
    assert [(r.server, r.workload) for r in table.rows] == [(s.name, w.name) for s in SERVERS for w in WORKLOADS]
    for row in table.rows:
        if row.status != "ok":
            continue
        assert row.qps_lo <= row.qps <= row.qps_hi
        for (_, limit), reached in zip(row.sla, row.achieved_ms, strict=True):
            assert reached <= limit, "the SLA holds at the load that is claimed"
        assert all(0 <= u <= 1 for u in row.utilisation.values())
        server = next(s for s in SERVERS if s.name == row.server)
        assert server.base_w < row.power_w <= server.component_tdp_w + server.base_w
        assert row.energy_j_per_query == pytest.approx(row.power_w / row.qps)


def test_no_throughput_above_the_bottleneck(table) -> None:
    """QPS x mean size cannot exceed what the busiest stage serves with all threads busy."""
    from hercules_fast.traffic import size_mean

    for row in table.rows:
        if row.config is None or row.config.kind != "cpu":
            continue
        server = next(s for s in SERVERS if s.name == row.server)
        workload = next(w for w in WORKLOADS if w.name == row.workload)
        t = service_table(server, workload)
        threads = row.config.threads[0]
        seconds = t.seconds[row.config.variant, 0, :, threads - 1]
        best_rate = threads * float((t.items / seconds).max())  # items per second at the best batch
        assert row.qps * size_mean(workload.sizes) <= best_rate * (1 + 1e-9)


def test_a_model_that_does_not_fit_says_so(table) -> None:
    row = table.best("T1", "rmc2")
    assert (row.status, row.qps, row.config) == ("infeasible", 0.0, None)
    reason = "does not fit: needs 98.3 GB of host memory, 57.6 GB may be used; would fit with 45.2 GB more host memory"
    assert row.reason == reason


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_never_change_a_byte(table, threads) -> None:
    assert profile(SERVERS, WORKLOADS, seed=3, effort=QUICK, threads=threads).to_json() == table.to_json()


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_instruction_sets_never_change_a_byte(table, isa) -> None:
    """Rust and NumPy both held to an older tier, in a fresh process."""
    code = (
        "from tests.unit.test_profile import *; import hashlib\n"
        "print(hashlib.sha256(profile(SERVERS, WORKLOADS, seed=3, effort=QUICK).to_json().encode()).hexdigest())"
    )
    import hashlib

    off = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    off += " AVX2 FMA3" if isa == "portable" else ""
    env = os.environ | {"HERCULES_FAST_ISA": isa, "NPY_DISABLE_CPU_FEATURES": off}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == hashlib.sha256(table.to_json().encode()).hexdigest()


def test_seeds_matter_and_are_recorded(table) -> None:
    other = profile(SERVERS[:1], WORKLOADS[:1], seed=4, effort=QUICK)
    assert other.meta["seed"] == 4
    # At the utilisation cap the load is the same for all seeds; its interval is not.
    assert other.rows[0].qps_lo != table.best("T1", "rmc1").qps_lo


def test_an_sla_below_the_unloaded_latency_is_zero_with_the_reason() -> None:
    hasty = replace(WORKLOADS[0], slas=(Sla(percentile=95, latency_ms=0.01),))
    row = profile(SERVERS[:1], [hasty], effort=QUICK).rows[0]
    assert (row.status, row.qps) == ("infeasible", 0.0)
    assert row.reason.startswith("no configuration meets the SLA: p95 is at best ")
    assert " ms without load, allowed are 0.01 ms (cpu: " in row.reason
    assert "would be met at light load with p95 <= " in row.reason


def test_what_waits_for_the_memory_is_named() -> None:
    wide = hf.hardware.server("T2")
    narrow = replace(wide, memory=replace(wide.memory, channels=1, capacity_gb=512.0))
    (rmc2,) = [w for w in ZOO.workloads if w.name == "rmc2"]
    hasty = replace(rmc2, slas=(Sla(percentile=95, latency_ms=5),))
    reasons = [search(server, hasty, effort=QUICK).row.reason for server in (wide, narrow)]
    assert "memory bandwidth" not in reasons[0]
    assert "slowest in stage 'model', 17.7 ms of it for want of memory bandwidth)" in reasons[1]


def test_a_looser_sla_never_carries_less() -> None:
    rates = []
    for latency in (10.0, 20.0, 40.0):
        loose = replace(WORKLOADS[0], slas=(Sla(percentile=95, latency_ms=latency),))
        rates.append(profile(SERVERS[:1], [loose], effort=QUICK).rows[0].qps)
    assert rates[0] <= rates[1] * 1.02 and rates[1] <= rates[2] * 1.02


def test_tdp_mode_is_the_component_sum() -> None:
    row = profile(SERVERS[:1], WORKLOADS[:1], effort=QUICK, power_mode="tdp").rows[0]
    assert row.power_w == SERVERS[0].component_tdp_w == 114.0


def test_gradient_finds_what_exhaustive_search_finds() -> None:
    for workload in (WORKLOADS[0], WORKLOADS[2]):
        fast = search(SERVERS[0], workload, effort=QUICK)
        slow = search(SERVERS[0], workload, effort=QUICK, method="exhaustive")
        assert fast.row.qps >= 0.99 * slow.row.qps
        assert fast.evaluations < 0.1 * slow.candidates
        assert fast.path and "bound" in fast.explain()


def test_progress_counts_pairs() -> None:
    seen: list[tuple[int, int]] = []
    profile(SERVERS[:1], WORKLOADS[:1], effort=QUICK, progress=lambda done, total: seen.append((done, total)))
    assert seen and seen[-1] == (1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": "magic"}, "search: is 'magic'; allowed are 'gradient', 'exhaustive'"),
        ({"seed": -1}, "seed: is -1; allowed is 0 <= seed"),
        ({"threads": 0}, "threads: is 0; allowed is a whole number from 1 to 1024"),
        ({"power_mode": "x"}, "power_mode: is 'x'; allowed are 'component', 'tdp'"),
        ({"servers": []}, "servers: is empty; at least one is needed"),
        ({"workloads": WORKLOADS[:1] * 2}, "workloads: 'rmc1' is named twice"),
        ({"workloads": [replace(WORKLOADS[0], slas=())]}, "workloads.rmc1.slas: is empty"),
        ({"seed": 1.5}, r"seed: is 1\.5; allowed is a whole number"),
        ({"seed": True}, "seed: is True; allowed is a whole number"),
    ],
)
def test_bad_arguments_are_refused_before_work(changes, message) -> None:
    arguments = {"servers": SERVERS[:1], "workloads": WORKLOADS[:1], "effort": QUICK} | changes
    with pytest.raises(InputError, match=message):
        profile(arguments.pop("servers"), arguments.pop("workloads"), **arguments)


def test_runs_grow_with_the_percentile() -> None:
    """Ten queries must lie above it after the warm-up: 1,113 for p99, 11,113 for p99.9."""
    strict = replace(WORKLOADS[0], slas=(Sla(percentile=99.9, latency_ms=60.0),))
    assert QUICK.enough_for([strict]).queries == 11_114
    assert QUICK.enough_for(WORKLOADS) == QUICK
    table = profile(SERVERS[:1], [strict], effort=QUICK)
    assert table.rows[0].achieved_ms[0] <= 60.0
    assert table.meta["effort"]["final_queries"] == 11_114


def test_an_interval_needs_replications() -> None:
    with pytest.raises(InputError, match=r"effort\.replications: is 1; allowed is a whole number >= 2"):
        Effort(replications=1)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("queries", 99, "a whole number >= 100"),
        ("queries", 4096.0, "a whole number >= 100"),
        ("final_queries", True, "a whole number >= 100"),
        ("replications", "5", "a whole number >= 2"),
        ("utilisation_cap", 0.0, "0.001 <= cap < 1"),
        ("utilisation_cap", 1.5, "0.001 <= cap < 1"),
        ("utilisation_cap", float("nan"), "0.001 <= cap < 1"),
        ("utilisation_cap", "1", "0.001 <= cap < 1"),
    ],
)
def test_efforts_are_checked(name, value, allowed) -> None:
    with pytest.raises(InputError, match=re.escape(f"effort.{name}: is {value!r}; allowed is {allowed}")):
        Effort(**{name: value})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hf.plan("zoo10"), "fleet: is 'zoo10', str; allowed is Fleet, such as hf.fleet('zoo10')"),
        (
            lambda: hf.plan(ZOO, "load.csv"),
            "load_trace: is 'load.csv', str; allowed is LoadTrace, such as hf.read_load",
        ),
        (lambda: hf.plan(ZOO, policy=0.1), "policy: is of type float; allowed is Policy"),
        (lambda: hf.plan(ZOO, table={}), "table: is of type dict; allowed is EfficiencyTable"),
        (lambda: hf.profile("T2", WORKLOADS), "servers: is 'T2', str; allowed is a list of Server, such as hf.fleet("),
        (lambda: hf.profile(ZOO, WORKLOADS), "servers: is of type Fleet; allowed is a list of Server"),
        (
            lambda: hf.profile(["T2"], WORKLOADS),
            "servers[0]: is 'T2', str; allowed is Server, such as hf.hardware.serv",
        ),
        (lambda: hf.profile(SERVERS, ["wnd"]), "workloads[0]: is 'wnd', str; allowed is Workload, such as one of hf."),
        (lambda: hf.search("T2", WORKLOADS[0]), "server: is 'T2', str; allowed is Server"),
        (lambda: hf.search(SERVERS[0], "rmc1"), "workload: is 'rmc1', str; allowed is Workload"),
        (lambda: hf.search(SERVERS[0], WORKLOADS[0], effort=3), "effort: is of type int; allowed is Effort"),
    ],
)
def test_what_is_no_descriptor_is_refused_by_name(call, message) -> None:
    with pytest.raises(DTypeError, match=re.escape(message)):
        call()


def test_a_seed_of_numpy_is_a_seed() -> None:
    rows = [profile(SERVERS[:1], WORKLOADS[:1], effort=QUICK, seed=seed).to_json() for seed in (3, np.int64(3))]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("percentile", [0, 100, -5, float("nan"), "99", True, None])
def test_an_sla_has_a_percentile_within_100(percentile) -> None:
    with pytest.raises(InputError, match=rf"sla\.percentile: is {percentile!r}; allowed is a number"):
        Sla(percentile=percentile, latency_ms=1.0)


@pytest.mark.parametrize("latency_ms", [0, -5, float("nan"), float("inf"), "25ms", True, None])
def test_an_sla_has_a_latency(latency_ms) -> None:
    with pytest.raises(InputError, match=rf"sla\.latency_ms: is {latency_ms!r}; allowed is a finite number > 0"):
        Sla(percentile=95, latency_ms=latency_ms)


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'T2-V100'"):
        hf.hardware.server("T2V100")
    with pytest.raises(UnknownNameError, match="did you mean 'zoo10'"):
        hf.fleet("zoo")


def test_ctrl_c_returns_what_is_finished() -> None:
    code = (
        "import hercules_fast as hf\n"
        "from hercules_fast.errors import InterruptedRun\n"
        "fleet = hf.fleet('zoo10')\n"
        "told = lambda done, total: print(done, flush=True)\n"
        "try:\n"
        "    hf.profile(fleet.servers, fleet.workloads, search='exhaustive', threads=1, progress=told)\n"
        "except InterruptedRun as stop:\n"
        "    print(type(stop).__mro__[1].__name__, 0 < len(stop.partial.rows) < 80)\n"
    )
    # A runner may have started us with SIGINT ignored, which children inherit.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + code
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    first = child.stdout.readline()  # a pair is finished: the search is under way
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert int(first) >= 1
    assert out.splitlines()[-1] == "KeyboardInterrupt True"


def test_a_plan_chooses_among_the_points_of_a_front() -> None:
    """A table with fronts never costs more power than one of the best points alone."""
    servers = [s for s in ZOO.servers if s.name in ("T1", "T1-P100")]
    workloads = [w for w in ZOO.workloads if w.name in ("rmc3", "wnd")]
    table = profile(servers, workloads, effort=QUICK, front=True)
    pairs = [(server.name, workload.name) for server in servers for workload in workloads]
    points = [[row for row in table.rows if (row.server, row.workload) == pair] for pair in pairs]
    assert any(len(rows) > 1 for rows in points)
    for rows in points:
        assert rows[0].qps == max(row.qps for row in rows)
        by_load = sorted(rows, key=lambda row: row.qps)
        assert [row.power_w for row in by_load] == sorted(row.power_w for row in rows), "less load for less power"
    best = replace(table, rows=tuple(rows[0] for rows in points))
    load = hf.LoadTrace.from_arrays(
        "a day", ["rmc3", "wnd"], start="2026-01-05", interval_s=3600, qps=[[5000.0, 9000.0], [9000.0, 20000.0]]
    )
    stock = {"T1": 60, "T1-P100": 16}
    policy = hf.Policy(headroom=0.0)
    plans = [hf.provision(found, load, stock, policy) for found in (best, table)]
    assert np.all(plans[1].power_w <= plans[0].power_w * (1 + 1e-9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": math.inf}, "effort.precision: is inf; allowed is a finite number > 0"),
        ({"queries": 10**30}, "effort.queries: is 1000000000000000000000000000000; allowed is a whole number <= 2"),
        ({"replications": 10_000}, "effort.replications: is 10000; allowed is a whole number <= 4096"),
        ({"utilisation_cap": 1e-4}, "effort.utilisation_cap: is 0.0001; allowed is 0.001 <= cap < 1"),
        ({"most_replications": 5000}, "effort.most_replications: is 5000; allowed is a whole number <= 4096"),
    ],
)
def test_an_effort_beyond_all_measure_is_named(changes, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Effort(**changes)


def test_a_percentile_that_no_run_determines_is_named() -> None:
    workload = replace(WORKLOADS[0], slas=(Sla(percentile=99.999999999, latency_ms=100.0),))
    with pytest.raises(InputError, match=r"sla\.percentile: is 99\.999999999, which takes runs of \d+ queries"):
        profile(SERVERS[:1], [workload])
