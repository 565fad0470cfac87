"""The load generator beside its slow twin, and both beside the simulator: the same rules, kept by real threads.

No time is tight here, for other work may have the cores. What binds from below does so surely: a service that sleeps
never ends early, and in a first-come line no latency falls when a service takes longer. So no query may be faster than
the simulator's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hercules_fast import _core
from hercules_fast.measure import Pool, Spin, run_load
from hercules_fast.queueing import LinearService, Queries, Route, Station, System, Trace, simulate
from hercules_fast.traffic import SizeComponent, SizeLaw
from tests.reference import load as twin

Run = Callable[..., dict[str, Any]]


def core(*arguments: Any, **named: Any) -> dict[str, Any]:
    found, stuck, interrupted = _core.run_load(*arguments, **named)
    assert not stuck and not interrupted
    return found


def slow(*arguments: Any, **named: Any) -> dict[str, Any]:
    found, interrupted = twin.run(*arguments, **named)
    assert not interrupted
    return found


def polling(*arguments: Any, **named: Any) -> dict[str, Any]:
    return core(*arguments, **named, polls=True)


both = pytest.mark.parametrize("run", [core, slow, polling], ids=["core", "twin", "core, polling"])


def nap(base_s: float, per_item_s: float) -> Callable[[int, int, object], object]:
    def serve(query: int, items: int, payload: object) -> object:
        time.sleep(base_s + per_item_s * items)
        return [*(payload or []), (query, items)]  # type: ignore[misc]

    return serve


def queries(count: int, gap_s: float, most: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.exponential(gap_s, count)), rng.integers(1, most + 1, count)


@both
@pytest.mark.parametrize("batch", [None, 1, 3, 100])
def test_queries_are_cut_into_full_parts_and_a_rest(run: Run, batch: int | None) -> None:
    arrival_s, sizes = queries(40, 1e-4, 9)
    found = run([([(0.0, 0.0)] * 2, None, None)], arrival_s, sizes, batch)
    for query, size in enumerate(sizes):
        mine = found["part_items"][found["part_query"] == query]
        whole, rest = divmod(size, batch or size)
        assert mine.tolist() == [batch or size] * whole + ([rest] if rest else [])
    assert (np.diff(found["part_query"]) >= 0).all()


@both
@pytest.mark.parametrize("threads", [(1, 1), (3, 2), (2, 4)])
@pytest.mark.parametrize("buffer", [None, 0, 1])
def test_each_part_goes_once_through_each_pool_in_turn(run: Run, threads: tuple[int, int], buffer: int | None) -> None:
    arrival_s, sizes = queries(60, 5e-4, 6)
    seen: list[Any] = []

    def last(query: int, items: int, payload: Any) -> None:
        seen.append((payload, query, items))

    pools = [([nap(1e-3, 0.0)] * threads[0], None, None), ([last] * threads[1], None, buffer)]
    found = run(pools, arrival_s, sizes, 4, drain_s=60.0)
    parts = list(zip(found["part_query"].tolist(), found["part_items"].tolist(), strict=True))
    assert sorted((query, items) for _, query, items in seen) == sorted(parts)
    assert all(payload == [(query, items)] for payload, query, items in seen)
    start_s, end_s = found["start_s"], found["end_s"]
    assert (start_s <= end_s).all() and (end_s[0] <= start_s[1]).all()
    assert (np.diff(start_s[0]) >= 0).all(), "first come, first served"
    for pool, count in enumerate(threads):
        assert set(found["thread"][pool]) <= set(range(count))
        for thread in range(count):
            mine = np.flatnonzero(found["thread"][pool] == thread)
            mine = mine[np.argsort(start_s[pool, mine])]
            assert (start_s[pool, mine[1:]] >= end_s[pool, mine[:-1]]).all(), "one service at a time"
    last_end = np.zeros(len(sizes))
    np.maximum.at(last_end, found["part_query"], end_s[-1])
    np.testing.assert_allclose(found["latency_s"], last_end - arrival_s, rtol=0, atol=2e-9)
    assert (found["dispatch_lag_s"] >= 0).all()
    first_start = np.full(len(sizes), np.inf)
    np.minimum.at(first_start, found["part_query"], start_s[0])
    assert (first_start >= arrival_s - 1e-9).all(), "nobody is served before he has come"


@both
@pytest.mark.parametrize("buffer", [0, 1, 4])
def test_a_thread_whose_result_finds_no_room_starts_nothing(run: Run, buffer: int) -> None:
    pools = [([nap(0.0, 0.0)], None, None), ([nap(3e-3, 0.0)], None, buffer)]
    found = run(pools, np.zeros(15), np.ones(15, np.int64), drain_s=60.0)
    entered = buffer + 1
    # Part k finds room when part k - buffer - 1 has left; only then is part k + 1 begun.
    begun, left = found["start_s"][0, entered + 1 :], found["end_s"][1, : -entered - 1]
    assert (begun >= left - 1e-9).all()


CHAINS = {  # one thread before the last pool: two that end at nearly the same time could change places
    "one thread": [(1, 2e-3, 1e-4, None)],
    "three threads": [(3, 4e-3, 5e-4, None)],
    "two stations": [(1, 2e-3, 0.0, None), (2, 3e-3, 1e-4, None)],
    "no waiting place": [(1, 1e-3, 0.0, None), (1, 2e-3, 0.0, 0)],
    "one waiting place": [(1, 1e-3, 0.0, None), (2, 3e-3, 2e-4, 1)],
}


@both
@pytest.mark.parametrize("chain", CHAINS)
def test_no_query_is_faster_than_the_simulator_says(run: Run, chain: str) -> None:
    stations = CHAINS[chain]
    arrival_s, sizes = queries(120, 2.5e-3, 8)
    described = [
        Station(service=LinearService(base_s=base_s, per_item_s=per_item_s), threads=threads, buffer=buffer)
        for threads, base_s, per_item_s, buffer in stations
    ]
    system = System(routes=(Route(stations=tuple(described), batch=5),))
    trace = Trace(arrival_s=arrival_s, sizes=sizes)
    simulated = simulate(system, trace, warmup=0, percentiles=(50.0,), keep_latencies=True, allow_unstable=True)
    assert simulated.latencies_ms is not None
    pools = [([nap(base_s, per_item_s)] * threads, None, buffer) for threads, base_s, per_item_s, buffer in stations]
    found = run(pools, arrival_s, sizes, 5, drain_s=60.0)
    above_ms = 1e3 * found["latency_s"] - simulated.latencies_ms
    assert above_ms.min() > -1e-3
    assert np.median(above_ms) < 250.0


def test_the_schedule_is_that_of_the_simulator() -> None:
    """The same seed gives the same queries to a run and to a simulation."""
    few = SizeComponent(weight=1.0, kind="uniform", low=1, high=9)
    source = Queries(qps=2000.0, sizes=SizeLaw(name="few", max_items=9, components=(few,)))
    run = run_load([Pool("all", (Spin(),))], source, queries=300, seed=11)
    arrival_s, sizes = _core.draw_queries(source.to_core(), source.size_pmf(), source.qps, 300, 11)
    assert (run.arrival_s == arrival_s).all() and (run.sizes == sizes).all()
    short = run_load([Pool("all", (Spin(),))], source, duration_s=0.1, seed=11)
    assert (short.arrival_s == arrival_s[arrival_s <= 0.1]).all() and len(short.sizes) == len(short.arrival_s)
