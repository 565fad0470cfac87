"""The load generator: how well it holds a rate, how late it and its threads are, and MLPerf LoadGen as referee.

The referee runs its Server scenario on our pools and times each query itself, to the call that reports its end. Ours
runs from where the query was handed in, LoadGen's from where it was due; how late LoadGen issued each query stands in
its own trace, and is added to ours before the two are compared. What is left is the way through the interpreter.
Both are 5 % apart at most, or the bench fails; on a machine with other work it may, and says by how much.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hercules_fast.measure import Engine, LoadRun, Pool, Server, Spin, run_load
from hercules_fast.models import model
from hercules_fast.queueing import Queries

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
CPUS = sorted(os.sched_getaffinity(0))
SAMPLES = 1024


def told(benchmark: Callable, what: str, **figures: float) -> None:
    benchmark.extra_info.update(figures)
    print(f"\n{what}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


@pytest.mark.parametrize("qps", [100.0, 1_000.0, 5_000.0, 20_000.0])
@pytest.mark.parametrize("generator", ["spins", "sleeps"])
def test_rate_held(benchmark: Callable, generator: str, qps: float) -> None:
    """A trivial model; where the generator spins, the model's thread polls. The limit: the schedule itself."""
    own = CPUS[-1] if generator == "spins" and len(CPUS) > 1 else None
    pool = Pool("trivial", (Spin(),), cpus=((CPUS[0],),))

    def play() -> LoadRun:
        return run_load([pool], Queries(qps=qps), duration_s=4.0, generator_cpu=own, polls=own is not None, seed=1)

    run = benchmark.pedantic(play, rounds=1, warmup_rounds=0)
    at_s = run.arrival_s + run.dispatch_lag_s
    error = (run.arrival_s[-1] - run.arrival_s[0]) / (at_s[-1] - at_s[0]) - 1.0
    wake_us = 1e6 * (run.start_s[0] - at_s)
    told(
        benchmark,
        f"{qps:g} queries/s, the generator {generator}",
        rate_error_percent=100 * error,
        lag_p50_us=run.dispatch_lag_us(50.0),
        lag_p99_us=run.dispatch_lag_us(99.0),
        wake_p50_us=float(np.percentile(wake_us, 50)),
        wake_p99_us=float(np.percentile(wake_us, 99)),
        lost_share=run.lost_share,
    )
    assert run.complete
    assert abs(error) < 0.01


def judged(pool: Pool, items: int, qps: float, seconds: float, folder: Path) -> tuple[LoadRun, str, str]:
    """Our record of a run of LoadGen's Server scenario, its summary and its trace."""
    lg = pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen (bench group) is not installed")
    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.Server, lg.TestMode.PerformanceOnly
    settings.server_target_qps, settings.server_target_latency_ns = qps, 10**9
    settings.min_duration_ms, settings.min_query_count = int(1e3 * seconds), 1
    log = lg.LogSettings()
    log.log_output.outdir, log.log_output.copy_summary_to_stdout, log.enable_trace = str(folder), False, True

    def done(query: int) -> None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(query, 0, 0)])

    with Server([pool], done=done) as server:
        sut = lg.ConstructSUT(lambda samples: [server.submit(s.id, items) for s in samples], lambda: None)
        qsl = lg.ConstructQSL(SAMPLES, SAMPLES, lambda _: None, lambda _: None)
        lg.StartTestWithLogSettings(sut, qsl, settings, log, "")
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    return server.run, (folder / "mlperf_log_summary.txt").read_text(), (folder / "mlperf_log_trace.json").read_text()


def nap(query: int, items: int, payload: object) -> None:
    """A service that needs no core, so that threads of a small machine do not wait for each other's."""
    time.sleep(0.002)


def ranking_pool() -> Pool:
    engine = Engine.build(model("dlrm-rmc1"), rows_scale=0.01, max_items=256)
    return Pool("rmc1", (engine.worker(),))


@pytest.mark.parametrize(
    ("service", "items", "qps"),
    [("nap", 1, 100.0), ("nap", 1, 1_000.0), ("nap", 1, 5_000.0), ("rmc1", 256, 100.0)],
)
def test_mlperf_loadgen_agrees(benchmark: Callable, service: str, items: int, qps: float, tmp_path: Path) -> None:
    pool = ranking_pool() if service == "rmc1" else Pool("naps", (nap,) * max(8, int(0.006 * qps)))
    run, summary, trace = benchmark.pedantic(lambda: judged(pool, items, qps, 4.0, tmp_path), rounds=1, warmup_rounds=0)
    found = re.findall(r'"query_seq":(\d+),"sample_idx":\d+,"issue_start_ns":(\d+),"complete_ns":(\d+)', trace)
    theirs = np.array(sorted((int(query), int(issued), int(ended)) for query, issued, ended in found))
    assert len(theirs) == len(run.latency_s), "every query is counted once by both"
    assert run.complete
    delay_s = 1e-9 * theirs[:, 1]
    ours_ms = 1e3 * np.percentile(run.latency_s + delay_s, PERCENTILES, method="higher")
    theirs_ms = 1e-6 * np.percentile(theirs[:, 2], PERCENTILES, method="higher")
    said_ms = {
        float(p): 1e-6 * float(ns) for p, ns in re.findall(r"(\d+\.\d+) percentile latency \(ns\)\s*: (\d+)", summary)
    }
    np.testing.assert_allclose([said_ms[p] for p in PERCENTILES], theirs_ms, rtol=0.01)  # we read its trace right
    apart = theirs_ms / ours_ms - 1.0
    told(
        benchmark,
        f"{service} at {qps:g} queries/s",
        queries=len(theirs),
        **{f"p{p:g}_ms": x for p, x in zip(PERCENTILES, ours_ms, strict=True)},
        **{f"loadgen_p{p:g}_percent": 100 * x for p, x in zip(PERCENTILES, apart, strict=True)},
        loadgen_delay_p99_us=1e6 * float(np.percentile(delay_s, 99)),
    )
    assert np.abs(apart).max() < 0.05
