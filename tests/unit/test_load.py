"""The load generator's promises at its edges: errors, interrupts, threads that hang, few CPUs. No time is tight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hercules_fast.errors import ConfigError, ExecutorError, InputError, MissingFileError, OutputError
from hercules_fast.measure import LoadRun, Pool, Server, Spin, run_load
from hercules_fast.queueing import Queries, Trace

SPIN = Pool("all", (Spin(),))
AT_ONCE = Trace(arrival_s=np.zeros(20), sizes=np.full(20, 3))


def napping(seconds: float, threads: int = 1, **named: Any) -> Pool:
    return Pool("naps", (lambda query, items, payload: time.sleep(seconds),) * threads, **named)


def test_a_run_is_told_in_the_units_of_its_fields(tmp_path: Path) -> None:
    run = run_load([SPIN], Queries(qps=2000.0), queries=400, seed=5)
    assert run.complete and run.unfinished == 0 and run.threads == (1,) and run.pools == ("all",)
    assert run.offered_qps == pytest.approx(400 / run.arrival_s[-1])
    assert run.throughput_qps == pytest.approx(400 / run.duration_s)
    counted = np.sort(run.latency_s[40:])
    assert run.latency_ms([50.0, 100.0]) == (1e3 * counted[179], 1e3 * counted[-1])
    assert run.latency_ms([100.0], warmup=0.0)[0] == 1e3 * run.latency_s.max()
    assert run.dispatch_lag_us(100.0) == 1e6 * run.dispatch_lag_s.max()
    assert 0.0 < run.utilisation()[0] <= 1.0 and 0.0 <= run.lost_share <= 1.0
    assert not run.latency_s.flags.writeable and not run.end_s.flags.writeable
    told = run.to_dict()
    assert told["queries"] == 400 and told["latency_ms"]["p50"] == run.latency_ms()[0]

    run.save(tmp_path / "run.npz")
    again = LoadRun.load(tmp_path / "run.npz")
    assert again.to_dict() == told
    for name in ("latency_s", "start_s", "thread", "preempted", "part_items"):
        np.testing.assert_array_equal(getattr(again, name), getattr(run, name))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        LoadRun.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ConfigError, match="is not a load run"):
        LoadRun.load(tmp_path / "text.npz")
    run = run_load([SPIN], AT_ONCE)
    with pytest.raises(OutputError):
        run.save(tmp_path / "no such folder" / "run.npz")
    run.save(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as data:
        arrays = dict(data)
    header = json.loads(arrays["header"].tobytes())
    for change, message in [
        ({"latency_s": np.zeros(3)}, r"latency_s: is float64 \(3,\); allowed is float64 \(20,\)"),
        ({"thread": np.zeros((1, 20))}, "thread: is float64"),
        ({"header": header | {"duration_s": "long"}}, "duration_s: is 'long'"),
        ({"header": header | {"threads": [1, 2]}}, "its arrays have no shape"),
        ({"header": np.frombuffer(b'{"schema": "hercules_fast.load_run/1"}', np.uint8)}, "header: has"),
    ]:
        if isinstance(change.get("header"), dict):
            change["header"] = np.frombuffer(json.dumps(change["header"]).encode(), np.uint8)
        np.savez(tmp_path / "bad.npz", **arrays | change)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=message):
            LoadRun.load(tmp_path / "bad.npz")


def test_a_trace_is_replayed_with_its_cycles_and_scale() -> None:
    trace = Trace(
        arrival_s=np.array([0.0, 0.01, 0.03]), sizes=np.array([4, 1, 9]), rate_scale=2.0, cycles=3, cycle_s=0.04
    )
    run = run_load([SPIN], trace, batch=4)
    np.testing.assert_allclose(run.arrival_s, [0.0, 0.005, 0.015, 0.02, 0.025, 0.035, 0.04, 0.045, 0.055])
    assert run.sizes.tolist() == [4, 1, 9] * 3
    assert run.part_items.tolist() == [4, 1, 4, 4, 1] * 3
    assert run_load([SPIN], trace, queries=4).sizes.tolist() == [4, 1, 9, 4]
    assert run_load([SPIN], trace, duration_s=0.02).sizes.tolist() == [4, 1, 9, 4]


def test_an_overload_ends_at_the_drain_limit_and_counts_what_is_left() -> None:
    start = time.monotonic()
    run = run_load([napping(0.02, 2)], Queries(qps=5000.0), queries=1000, drain_s=0.2)
    assert time.monotonic() - start < 30.0
    assert not run.complete and 900 < run.unfinished < 1000
    assert run.latency_ms([99.0])[0] == np.inf
    assert (np.isnan(run.latency_s) == np.isnan(run.end_s[0])).all()
    assert not np.isnan(run.dispatch_lag_s).any(), "an open loop: everybody was put in line"
    assert run.throughput_qps < 500.0
    assert json.loads(json.dumps(run.to_dict(), allow_nan=False))["latency_ms"]["p99"] is None


def test_what_a_worker_raises_ends_the_run() -> None:
    def fails(query: int, items: int, payload: object) -> None:
        if query == 3:
            raise LookupError("no such row")

    with pytest.raises(LookupError, match="no such row"):
        run_load([Pool("all", (fails,))], Queries(qps=1000.0), queries=100_000)
    assert run_load([Pool("all", (fails,))], AT_ONCE, queries=3).complete


def test_a_worker_that_never_returns_is_named_and_left_behind() -> None:
    release = threading.Event()

    def hangs(query: int, items: int, payload: object) -> None:
        if query == 5:
            release.wait()

    start = time.monotonic()
    with pytest.raises(ExecutorError, match="of pool 'slow' did not return") as caught:
        run_load([SPIN, Pool("slow", (hangs, hangs))], AT_ONCE, drain_s=0.1)
    assert time.monotonic() - start < 30.0
    partial = caught.value.partial
    assert (
        isinstance(partial, LoadRun)
        and "did not return" in partial.notes[0]
        and partial.unfinished == 1
        and np.isnan(partial.latency_s[5])
    )
    release.set()


def test_a_pool_keeps_its_threads_and_python_its_thread_state() -> None:
    """Each worker has one thread for the run, and what it keeps by thread stays."""
    kept = threading.local()
    seen: list[tuple[int, int]] = []

    def serve(query: int, items: int, payload: object) -> None:
        kept.count = getattr(kept, "count", 0) + 1
        seen.append((threading.get_ident(), kept.count))
        time.sleep(0.001)

    run_load([Pool("all", (serve,) * 3)], AT_ONCE)
    for thread in {thread for thread, _ in seen}:
        counts = [count for one, count in seen if one == thread]
        assert counts == list(range(1, len(counts) + 1))
    assert len(seen) == 20


def test_pinned_threads_stay_where_they_were_put() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    seen: list[set[int]] = []
    pool = Pool("all", (lambda *_: seen.append(os.sched_getaffinity(0)),), cpus=((cpus[-1],),))
    run = run_load([pool], AT_ONCE, generator_cpu=cpus[0])
    assert seen == [{cpus[-1]}] * 20 and run.notes == ()
    assert run.generator_lost_share is not None and 0.0 <= run.generator_lost_share <= 1.0
    assert os.sched_getaffinity(0) == set(cpus), "the caller may still run where it could"


def test_a_cpu_that_cannot_be_had_is_said_and_no_more() -> None:
    run = run_load([Pool("all", (Spin(),), cpus=((1023,),))], AT_ONCE, generator_cpu=1022)
    assert run.complete and run.generator_lost_share is None
    assert run.notes[0].startswith("thread 0 of pool 0 could not be pinned to CPUs [1023]")
    assert run.notes[1].startswith("the generator could not be pinned to CPUs [1022]")


def test_one_cpu_is_enough() -> None:
    cpu = min(os.sched_getaffinity(0))
    program = f"""
import os
os.sched_setaffinity(0, {{{cpu}}})
from hercules_fast.measure import Pool, Spin, run_load
from hercules_fast.queueing import Queries
run = run_load([Pool("a", (Spin(1e-4),) * 2), Pool("b", (lambda *_: None,), buffer=0)], Queries(qps=500.0), queries=200)
assert run.complete, run.to_dict()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_ctrl_c_gives_what_was_recorded() -> None:
    program = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from hercules_fast.errors import InterruptedRun
from hercules_fast.measure import Pool, Spin, run_load
from hercules_fast.queueing import Queries
import time
print("ready", flush=True)
begin = time.monotonic()
try:
    run_load([Pool("a", (Spin(), lambda *_: time.sleep(1e-4)))], Queries(qps=200.0), queries=200_000)
except InterruptedRun as stopped:
    run = stopped.partial
    print("stopped", not run.complete, 0 < len(run.latency_s) - run.unfinished < 10_000, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(1.0)
        child.send_signal(signal.SIGINT)
        try:
            said, _ = child.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            child.kill()
            pytest.fail("it did not stop within a minute")
    assert (child.returncode, said) == (0, "stopped True True\n")


def test_memory_is_that_of_the_record() -> None:
    """A backlog takes no memory of its own: 400,000 parts stand in line at once, and each costs a few numbers."""
    program = """
import resource
import numpy as np
from hercules_fast import _core
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
small = ([([(0.0, 0.0)], None, None)] * 2, np.zeros(100), np.ones(100, np.int64))
_core.run_load(*small)
arrival_s, sizes = np.zeros(400_000), np.ones(400_000, np.int64)
before = peak()
found, _, _ = _core.run_load(small[0], arrival_s, sizes, drain_s=60.0)
print((peak() - before) / 400_000)
assert not np.isnan(found["latency_s"]).any()
"""
    out = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=120, capture_output=True, text=True
    ).stdout
    assert float(out) < 500.0, "bytes for each part of two pools"


def test_progress_is_told_and_may_stop_the_run() -> None:
    told: list[tuple[int, int]] = []
    run_load([SPIN], Queries(qps=1000.0), queries=300, progress=lambda *p: told.append(p))
    assert told == sorted(told) and told[-1] == (300, 300)

    def enough(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run_load([SPIN], Queries(qps=100.0), queries=100_000, progress=enough)


def test_a_server_serves_what_others_hand_in() -> None:
    ended: list[int] = []
    seen: list[tuple[int, int]] = []
    pools = [
        Pool("a", (lambda query, items, payload: seen.append((query, items)),)),
        Pool("b", (Spin(), Spin()), buffer=0),
    ]
    with Server(pools, batch=4, done=ended.append) as server:
        names = [7, 2**64 - 1, 3]
        for name in names:
            server.submit(name, 10)
        with pytest.raises(InputError, match="server: is open"):
            _ = server.run
    assert sorted(ended) == sorted(names)
    assert seen == [(name, items) for name in names for items in (4, 4, 2)]
    run = server.run
    assert run.complete and run.sizes.tolist() == [10] * 3 and (run.latency_s > 0).all()
    assert (np.diff(run.arrival_s) >= 0).all() and not run.dispatch_lag_s.any()
    server.close()
    with pytest.raises(InputError, match="closed"):
        server.submit(1, 1)


def test_a_server_says_what_goes_wrong() -> None:
    def bad(query: int) -> None:
        raise LookupError(f"query {query}")

    with pytest.raises(LookupError, match="query 9"), Server([SPIN], done=bad) as server:
        server.submit(9, 1)
    with Server([SPIN], capacity=2) as server:
        for refused in (0, -1, 10**7):
            with pytest.raises(InputError, match=f"items: is {refused}"):
                server.submit(1, refused)
        server.submit(1, 1)
        server.submit(2, 1)
        with pytest.raises(InputError, match="capacity: is 2"):
            server.submit(3, 1)
    assert server.run.complete
    release = threading.Event()
    with (
        pytest.raises(ExecutorError, match="did not return") as caught,
        Server([Pool("all", (lambda *_: release.wait(),))], drain_s=0.1) as server,
    ):
        server.submit(1, 1)
    assert caught.value.partial.unfinished == 1
    release.set()
    Server([SPIN]).close()


ODD = [
    (lambda: Spin(-1.0), "base_s: is -1.0"),
    (lambda: Spin(0.0, float("nan")), "per_item_s: is nan"),
    (lambda: Pool("", (Spin(),)), "name: is ''"),
    (lambda: Pool("a", ()), "workers: is"),
    (lambda: Pool("a", (3,)), r"workers\[0\]: is 3"),  # type: ignore[arg-type]
    (lambda: Pool("a", (Spin(),), cpus=((0,), (1,))), "cpus: is"),
    (lambda: Pool("a", (Spin(),), cpus=((-1,),)), r"cpus\[0\]: is \(-1,\)"),
    (lambda: Pool("a", (Spin(),), buffer=-1), "buffer: is -1"),
    (lambda: run_load([], AT_ONCE), "pools: is"),
    (lambda: run_load([Pool("a", (Spin(),), buffer=1)], AT_ONCE), r"pools\[0\].buffer: is 1"),
    (lambda: run_load([SPIN], Queries(qps=1.0)), "queries: is None"),
    (lambda: run_load([SPIN], Queries(qps=1.0), queries=1, duration_s=1.0), "queries: is 1"),
    (lambda: run_load([SPIN], AT_ONCE, queries=21), "at most the trace's 20"),
    (lambda: run_load([SPIN], AT_ONCE, batch=0), "batch: is 0"),
    (lambda: run_load([SPIN], AT_ONCE, drain_s=float("inf")), "drain_s: is inf"),
    (lambda: run_load([SPIN], AT_ONCE, generator_cpu=-1), "generator_cpu: is -1"),
    (lambda: run_load([SPIN], AT_ONCE, seed=-1), "seed: is -1"),
    (lambda: run_load([SPIN], Trace(arrival_s=np.zeros(2), starts=np.array([0, 1]))), "source.starts"),
    (lambda: run_load([SPIN], Queries(qps=1e-3), duration_s=1e-6), "no query arrives"),
    (lambda: run_load([SPIN], Queries(qps=1e12), duration_s=1e3), "duration_s: is"),
    (lambda: run_load([SPIN] * 2, Trace(arrival_s=np.zeros(100), sizes=np.full(100, 10**6)), batch=1), "queries: make"),
    (lambda: Server([SPIN] * 2, capacity=10**8), "capacity: make 200000000 services"),
    (lambda: Server([SPIN], capacity=0), "capacity: is 0"),
    (lambda: Server([SPIN], done=3), "done: is 3"),  # type: ignore[arg-type]
    (lambda: run_load([SPIN], AT_ONCE).latency_ms([0.0]), r"percentiles\[0\]: is 0.0"),
    (lambda: run_load([SPIN], AT_ONCE).latency_ms(warmup=1.0), "warmup: is 1.0"),
]


@pytest.mark.parametrize(("call", "message"), ODD)
def test_odd_arguments_are_refused_before_any_work(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
