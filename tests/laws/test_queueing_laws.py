"""Laws of queues, as properties of the queueing simulator."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast import _core
from hercules_fast.errors import InputError
from tests.small_systems import EXPONENTIAL, chain, exported, generate, linear, replay, station, system, trace

MAX_SIZE = 12
SIZES = np.full(MAX_SIZE, 1 / MAX_SIZE)
POISSON = {"kind": "law", "law": "exponential", "params": [], "group": None}
LAWS = [("exponential", []), ("lognormal", [1.0]), ("gamma", [0.5]), ("uniform", [0.2, 1.8]), ("deterministic", [])]

laws = st.sampled_from(LAWS).map(lambda law: {"kind": "law", "law": law[0], "params": law[1], "mean_s": 1.0})
seeds = st.integers(0, 2**32)
threads = st.integers(1, 8)
engines = st.sampled_from(["recursion", "events"])
gaps = st.lists(st.floats(0.0, 3.0), min_size=2, max_size=60)
quarter_gaps = st.lists(st.integers(0, 6).map(lambda n: n / 4), min_size=2, max_size=60)


def sizes_for(gaps: list[float], seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(1, MAX_SIZE + 1, len(gaps)).tolist()


def everything() -> list[dict[str, Any]]:
    """Systems that together have every feature."""
    noise = {"law": "lognormal", "params": [0.3]}
    table = {"kind": "table", "items": [1, 64], "busy": [1, 2], "seconds": [[0.1, 0.15], [2.0, 3.0]], "noise": noise}
    sparse = station("sub_batch", 3, linear(0.25, 0.0625, noise), interference="at_start", speed=[1.0, 0.75])
    dense = station("query", 2, table, buffer=1, interference="dynamic_rate")
    device = station("fused", 1, linear(0.5, 0.03125, noise), max_queries=4, max_wait_s=1.5)
    bounded = device | {"buffer": 2, "max_items": 20, "interference": "dynamic_rate", "speed": [1.0, 0.5]}
    return [
        system(chain(station("query", 2, EXPONENTIAL))),
        system(chain(station("query", 1, EXPONENTIAL), station("query", 5, EXPONENTIAL | {"mean_s": 2.5}))),
        system(chain(station("sub_batch", 4, linear(0.25, 0.0625, noise)), batch=4)),
        system(chain(sparse, batch=4)),
        system(chain(sparse, dense | {"slowed_by": 1}, batch=4)),
        system(chain(sparse, dense, bounded, batch=3), capacity=9),
        system(chain(sparse, batch=4), chain(device, min_size=8), drop_after_s=2.0),
    ]


def identical(a: dict[str, Any], b: dict[str, Any]) -> None:
    """The same bytes in every figure."""
    assert a.keys() == b.keys()
    for key, value in a.items():
        if key == "stations":
            for one, other in zip(value, b[key], strict=True):
                identical(one, other)
        else:
            assert np.asarray(value).tobytes() == np.asarray(b[key]).tobytes(), key


@given(st.sampled_from(everything()), st.floats(0.1, 3.0), seeds)
def test_littles_law(described: dict[str, Any], qps: float, seed: int) -> None:
    """Number in the system, counted by the events, = throughput * mean latency, in a run that ends empty."""
    kept = described | {"drop_after_s": None}  # a dropped query is inside for a while and has no latency
    found = generate(kept, POISSON, qps, size_pmf=SIZES, seed=seed, engine="events")
    assert found["mean_in_system"] == pytest.approx(found["throughput_qps"] * found["mean_latency_s"], rel=1e-9)


@given(quarter_gaps, threads, engines, seeds)
def test_work_is_conserved(gaps: list[float], threads: int, engine: str, seed: int) -> None:
    """A pool is never idle while somebody waits, and does each job once."""
    arrival_s, size = np.cumsum(gaps), sizes_for(gaps, seed)
    found = replay(system(chain(station("query", threads, linear(0.5, 0.25)))), trace(arrival_s, size), engine)
    seconds = 0.5 + 0.25 * np.array(size)
    end = arrival_s + found["latencies_s"]
    start = end - seconds
    assert (start >= arrival_s).all()
    instants = np.unique(np.concatenate([arrival_s, start, end]))
    for now in (instants[:-1] + instants[1:]) / 2:
        inside, busy = (((begin < now) & (now < end)).sum() for begin in (arrival_s, start))
        assert busy == min(inside, threads)
    busy_s = found["stations"][0]["utilisation"] * threads * len(size) / found["throughput_qps"]
    assert busy_s == pytest.approx(seconds.sum(), rel=1e-9)


@given(laws, threads, engines, seeds, st.floats(0.1, 1.2), st.floats(1.0, 2.0))
def test_every_latency_grows_with_load(law, threads, engine, seed, load, factor) -> None:
    """Not only p99: on common numbers each single query waits at least as long."""
    described = system(chain(station("sub_batch", threads, law), batch=4))
    qps = load * threads / 2.0
    low, high = (
        generate(described, POISSON, rate, size_pmf=SIZES, engine=engine, seed=seed)["latencies_s"]
        for rate in (qps, qps * factor)
    )
    assert (high >= low * (1 - 1e-9)).all()


@given(laws, threads, engines, seeds, st.floats(0.2, 1.5))
def test_every_latency_falls_with_more_threads(law, threads, engine, seed, load) -> None:
    few, more = (
        generate(
            system(chain(station("sub_batch", m, law), batch=4)),
            POISSON,
            load * threads / 2.0,
            size_pmf=SIZES,
            engine=engine,
            seed=seed,
        )["latencies_s"]
        for m in (threads, threads + 1)
    )
    assert (more <= few + 1e-9).all()


def stretched(described: dict[str, Any], factor: float) -> dict[str, Any]:
    """The same system with all its times multiplied."""
    other = copy.deepcopy(described)
    if other["drop_after_s"] is not None:
        other["drop_after_s"] *= factor
    for one in (one for route in other["routes"] for one in route["stations"]):
        service = one["service"]
        one["max_wait_s"] *= factor
        for name in ("mean_s", "base_s", "per_item_s"):
            if name in service:
                service[name] *= factor
        if service["kind"] == "table":
            service["seconds"] = [[seconds * factor for seconds in row] for row in service["seconds"]]
    return other


@given(st.sampled_from(everything()), st.floats(0.1, 3.0), seeds, st.integers(-6, 6))
def test_time_has_no_unit(described: dict[str, Any], qps: float, seed: int, power: int) -> None:
    """All times times 2^k: all latencies times 2^k, bit for bit."""
    factor = 2.0**power
    runs = [
        generate(stretched(described, f), POISSON, qps / f, size_pmf=SIZES, seed=seed)["latencies_s"]
        for f in (1.0, factor)
    ]
    assert (runs[0] * factor).tobytes() == runs[1].tobytes()


@given(gaps, laws, seeds)
def test_one_thread_is_lindleys_recursion_bit_for_bit(gaps: list[float], law: dict[str, Any], seed: int) -> None:
    arrival_s = np.cumsum(gaps)
    described = system(chain(station("query", 1, law)))
    found = replay(described, trace(arrival_s, [1] * len(gaps)), "recursion", seed=seed)
    queries = np.arange(len(gaps))
    service_s = _core.service_draws(law["law"], law["params"], seed, 0, 0, queries, 0 * queries)
    wait, latencies = 0.0, []
    for index, seconds in enumerate(service_s):
        latencies.append(wait + seconds)
        if index + 1 < len(gaps):
            wait = max(0.0, (wait + seconds) - (arrival_s[index + 1] - arrival_s[index]))
    assert found["latencies_s"].tolist() == latencies


@given(gaps, laws, threads, engines, st.integers(MAX_SIZE, 40), seeds)
def test_a_batch_as_large_as_any_query_splits_nothing(gaps, law, threads, engine, batch, seed) -> None:
    source = trace(np.cumsum(gaps), sizes_for(gaps, seed))
    pools = [
        chain(station("sub_batch", threads, law), batch=batch),
        chain(station("sub_batch", threads, law), batch=None),
        chain(station("query", threads, law), batch=None),
    ]
    runs = [replay(system(pool), source, engine, seed=seed) for pool in pools]
    identical(runs[0], runs[1])
    identical(runs[0], runs[2])


@given(quarter_gaps, threads, threads, seeds)
def test_without_a_limit_a_bounded_pipeline_is_a_tandem(gaps, first, second, seed) -> None:
    source = trace(np.cumsum(gaps), sizes_for(gaps, seed))
    latencies = []
    for buffer, engine in ((None, "recursion"), (None, "events"), (10**6, "events")):
        pools = [station("query", first, linear(0.5, 0.25)), station("query", second, linear(1.0, 0.25))]
        pools[1]["buffer"] = buffer
        latencies.append(replay(system(chain(*pools)), source, engine)["latencies_s"].tobytes())
    assert latencies[0] == latencies[1] == latencies[2]


@given(gaps, laws, threads, st.sampled_from([0.0, 1.0]), seeds)
def test_batches_of_one_query_are_a_pool(gaps, law, devices, max_wait_s, seed) -> None:
    source = trace(np.cumsum(gaps), sizes_for(gaps, seed))
    fused = station("fused", devices, law, max_queries=1, max_wait_s=max_wait_s)
    pool = station("query", devices, law)
    runs = [replay(system(chain(one)), source, "events", seed=seed)["latencies_s"].tobytes() for one in (fused, pool)]
    assert runs[0] == runs[1]


def check_replay(described: dict[str, Any], segments: int, queries: int, qps: float, seed: int) -> None:
    drawn = {"queries": queries * segments, "segments": segments, "size_pmf": SIZES, "seed": seed}
    run = generate(described, POISSON, qps, **drawn)
    again = replay(described, exported(POISSON, SIZES, qps, queries, seed, segments), "auto", seed=seed)
    assert run["offered_qps"] == qps
    for found in (run, again):
        # The rate of a recorded run is that of its times. Tandems give the mean of the law of sizes, or of the trace.
        found["offered_qps"] = found["growth"] = found["interval_queries"] = 0.0  # by the rate as measured
        if found["engine"] == "recursion" and described["routes"][0]["stations"][0]["unit"] == "query":
            for station in found["stations"]:
                assert station.pop("items_per_execution") == pytest.approx(6.5, rel=0.2)
    identical(run, again)


@given(st.sampled_from(everything()), st.integers(1, 3), st.floats(0.1, 3.0), seeds)
def test_the_replay_of_an_exported_run_is_the_run(described, segments, qps, seed) -> None:
    check_replay(described, segments, 100, qps, seed)


@pytest.mark.parametrize("described", everything())
def test_the_replay_of_a_long_run_is_the_run(described) -> None:
    """3e5 s: the clock of the event engine begins anew several times, whatever rate the times of a trace make."""
    check_replay(described, 1, 20_000, 0.0625, 5)


CLOCKS = [("auto", one) for one in everything()] + [("events", everything()[1])]


@pytest.mark.parametrize(("engine", "described"), CLOCKS)
def test_a_clock_that_began_long_ago_loses_nothing(engine, described) -> None:
    """A run that begins after 2^30 s is the run that begins at 0, bit for bit; after 1e9 s, but for the last bits."""
    gaps = np.random.default_rng(3).exponential(0.6, 5000)
    arrival_s = np.cumsum(np.round(gaps * 2.0**20) / 2.0**20)
    size = sizes_for(gaps, 4)
    now, later, odd = (
        replay(described, trace(arrival_s + begin, size), engine)["latencies_s"] for begin in (0.0, 2.0**30, 1e9)
    )
    assert now.tobytes() == later.tobytes()
    np.testing.assert_allclose(odd, now, rtol=1e-9, atol=1e-9)


def test_ties_are_ties_however_often_the_clock_begins_anew() -> None:
    """All times are quarters, so every sum is exact. Each cycle finds the system empty and the clock elsewhere."""
    pools = [station("query", 2, linear(0.5, 0.25)), station("query", 2, linear(1.0, 0.25))]
    device = station("fused", 1, linear(0.5, 0.25), max_queries=3, max_wait_s=1.5)
    described = system(chain(*pools, device), drop_after_s=2.0)
    arrival_s = np.cumsum(np.random.default_rng(5).integers(0, 8, 200) / 4)
    size = sizes_for(arrival_s.tolist(), 6)
    cycle_s = 149_796.25
    found = replay(described, trace(arrival_s, size, cycles=64, cycle_s=cycle_s))["latencies_s"].reshape(64, -1)
    assert all(again.tobytes() == found[0].tobytes() for again in found)


@pytest.mark.parametrize("described", everything())
def test_neither_threads_nor_instructions_change_a_byte(described) -> None:
    """Whole groups of queries, and lanes that are not all in use."""
    drawn = {"size_pmf": SIZES, "seed": 8, "queries": 11 * 2000, "segments": 11, "warmup": 200}
    drawn |= {"keep_latencies": False, "waits": True}
    first = generate(described, POISSON, 0.5, **drawn, isa="portable")
    for isa in ("portable", "avx2", "avx512"):
        for threads in (1, 2, 3):
            identical(generate(described, POISSON, 0.5, **drawn, isa=isa, threads=threads), first)


PEAK = """
import resource, sys
sys.path[:0] = {path!r}
from tests.laws.test_queueing_laws import POISSON, SIZES, everything
from tests.small_systems import generate
for described in everything():
    drawn = dict(size_pmf=SIZES, segments=1, keep_latencies=False, waits=True)
    generate(described, POISSON, 0.5, queries=int(sys.argv[1]) // 10, **drawn)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_queries() -> None:
    code = PEAK.format(path=sys.path)
    few, many = (
        int(subprocess.run([sys.executable, "-c", code, n], check=True, capture_output=True, text=True).stdout)
        for n in ("100000", "20000000")
    )
    assert many - few < 4096  # KiB; a latency for each query would be 15 MB


@given(st.sampled_from(everything()), st.sampled_from([None, 5]), st.floats(0.1, 3.0), seeds)
def test_threads_never_change_a_byte(described, segments, qps, seed) -> None:
    runs = [
        generate(described, POISSON, qps, size_pmf=SIZES, seed=seed, queries=1000, segments=segments, threads=threads)
        for threads in (1, 2, 3)
    ]
    identical(runs[0], runs[1])
    identical(runs[0], runs[2])


@pytest.mark.parametrize("threads", [(16, 16), (128, 3), (28, 100), (200, 1, 3)])
@pytest.mark.parametrize("queries", [1024, 1000])
def test_a_tandem_lets_go_of_all_that_its_threads_hold(threads: tuple[int, ...], queries: int) -> None:
    # Threads as many as the rows of a block, and a last block longer than others.
    stations = [station("query", n, EXPONENTIAL | {"mean_s": 0.7 * n}) for n in threads]
    runs = {
        (engine, keep): generate(
            system(chain(*stations)), POISSON, 1.0, queries=queries, engine=engine, keep_latencies=keep
        )
        for engine in ("recursion", "events")
        for keep in (True, False)
    }
    latencies = runs["recursion", True]["latencies_s"]
    assert np.allclose(latencies, runs["events", True]["latencies_s"], rtol=1e-9)
    for keep in (True, False):
        assert runs["recursion", keep]["mean_latency_s"] == pytest.approx(latencies.mean(), rel=1e-9)


def test_stations_that_split_nothing_are_a_tandem_whatever_their_unit() -> None:
    parts, whole = (chain(*[station(unit, 2, EXPONENTIAL)] * 2) for unit in ("sub_batch", "query"))
    runs = [generate(system(route), POISSON, 1.5, engine="recursion") for route in (parts, whole)]
    identical(*runs)


def test_no_station_carries_more_than_its_capacity_nor_is_told_less() -> None:
    rng, n = np.random.default_rng(0), 40_000
    halves = np.zeros(6)
    halves[[3, 5]] = 0.5
    once = {"kind": "law", "law": "deterministic", "params": [], "mean_s": 1.0}
    fused = system(chain(station("fused", 1, once, max_items=10)))
    # 6 and 4 fill a batch, though two of 6 do not: the backlog does not grow at 1.5.
    source = trace(np.cumsum(rng.exponential(1 / 1.5, n)), rng.choice([4, 6], n))
    assert not replay(fused, source)["falls_behind"]
    assert _core.station_capacities(fused, halves) == pytest.approx([2.0])
    # A batch as large as the table's end is not to be had.
    table = {"kind": "table", "items": [1, 8, 1024], "busy": [1], "seconds": [[1.0], [1.5], [3.0]], "noise": None}
    limited = system(chain(station("fused", 1, table, max_items=6)))
    assert _core.station_capacities(limited, np.ones(1)) == pytest.approx([6 / (1.0 + 0.5 * 5 / 7)])
    # Slowed by a station that is mostly idle.
    slowed = station("query", 1, EXPONENTIAL | {"mean_s": 0.01}, interference="at_start", slowed_by=0, speed=[1.0, 0.1])
    pipeline = system(chain(station("query", 16, EXPONENTIAL | {"mean_s": 0.1}), slowed))
    assert not generate(pipeline, POISSON, 15.0, queries=20_000)["falls_behind"]
    assert min(_core.station_capacities(pipeline, np.ones(1))) >= 15.0


def test_a_queue_of_groups_is_given_longer_to_forget_that_it_began_empty() -> None:
    pool = system(chain(station("query", 1, EXPONENTIAL)))
    single, grouped = (
        generate(pool, POISSON | {"group": group}, 0.9, queries=1_000_000, segments=None, warmup=None)
        for group in (None, [0.0] * 99 + [1.0])
    )
    # The backlog forgets in 0.9 (1 + 100) / 2 / (1 - sqrt 0.9)^2 = 17,000 queries.
    assert single["warmup"] * single["segments"] < grouped["warmup"] * grouped["segments"]
    assert grouped["warmup"] >= 170_000


BY_RULE = {"segments": None, "warmup": None, "keep_latencies": False, "threads": 2}


def test_a_slow_collapse_is_told_from_slow_bursts() -> None:
    """Two stations without a place between them carry 1 / E max(S, S') = 2/3; the verdict is sure within 2 %."""
    stations = [station("query", 1, EXPONENTIAL), station("query", 1, EXPONENTIAL, buffer=0)]
    blocking = {
        qps: generate(system(chain(*stations)), POISSON, qps, queries=1_000_000, **BY_RULE)
        for qps in (0.6, 0.65, 0.68, 0.69)
    }
    assert [found["falls_behind"] for found in blocking.values()] == [False, False, True, True]
    assert 0.005 < blocking[0.68]["growth"] < 0.05
    # Phases of 100 s at half and at one and a half times 85 % load: a run of ten ends somewhere.
    bursts = {"kind": "mmpp", "rates": [0.5, 1.5], "switch": [[0.0, 0.01], [0.01, 0.0]], "group": None}
    pool = system(chain(station("query", 1000, EXPONENTIAL)))
    runs = [generate(pool, bursts, 850.0, queries=1_000_000, seed=seed, **BY_RULE) for seed in range(6)]
    assert max(found["growth"] for found in runs) > 0.05
    assert not any(found["falls_behind"] for found in runs)
    assert {found["interval_queries"] for found in runs} == {100 * 200 * 850}
    assert all(found["warmup"] * found["segments"] >= 200 * 850 for found in runs)
    assert generate(pool, bursts, 1100.0, queries=1_000_000, **BY_RULE)["falls_behind"]


@pytest.mark.parametrize("described", everything()[:3])
@pytest.mark.parametrize("engine", ["recursion", "events"])
def test_time_is_that_of_arrivals(described: dict[str, Any], engine: str) -> None:
    """One long service at the end is work, but not a time in which others could have come."""
    arrival_s = np.arange(1, 1001) / 4.0
    size = [1] * 1000
    found = replay(described, trace(arrival_s, size), engine)
    assert found["throughput_qps"] == pytest.approx(1000 / (999 / 4.0), rel=1e-12)
    heavy = system(chain(station("query", 512, EXPONENTIAL | {"law": "lognormal", "params": [3.0]})))
    drawn = generate(heavy, POISSON, 200.0, queries=20_000, segments=1, engine=engine, keep_latencies=False)
    assert drawn["throughput_qps"] == pytest.approx(200.0, rel=0.03)
    # All at once: until the last has left.
    at_once = replay(described, trace([5.0, 5.0], [1, 1]), engine)
    assert at_once["throughput_qps"] == pytest.approx(2 / at_once["latencies_s"].max(), rel=1e-12)


def test_queues_follow_littles_law_per_second_of_arrivals() -> None:
    tandem = everything()[1]
    for engine in ("recursion", "events"):
        found = generate(tandem, POISSON, 0.9, queries=5000, engine=engine)
        for one in found["stations"]:
            assert one["mean_queue"] == pytest.approx(one["mean_wait_s"] * found["throughput_qps"], rel=1e-9)


def test_the_times_of_a_trace_may_count_from_long_ago() -> None:
    pool = everything()[0]
    arrival_s, size = np.cumsum(np.random.default_rng(7).exponential(1.0, 2000)), np.ones(2000, np.int64)
    for engine in ("recursion", "events"):
        now, unix = (replay(pool, trace(arrival_s + begin, size), engine) for begin in (0.0, 1.7e9))
        assert unix["offered_qps"] == pytest.approx(2000 / (arrival_s[-1] - arrival_s[0]), rel=1e-6)
        assert unix["throughput_qps"] == pytest.approx(unix["offered_qps"], rel=1e-9)
        assert unix["stations"][0]["utilisation"] == pytest.approx(now["stations"][0]["utilisation"], rel=1e-6)
    rates = [replay(pool, trace(times, [1] * len(times)))["offered_qps"] for times in ([4.0], [0.0], [2.0, 2.0])]
    assert rates == [0.25, 1.0, 1.0]
    parts = replay(pool, trace([100.0, 101.0, 7.0, 9.0], [1] * 4, starts=[0, 2]))
    assert parts["offered_qps"] == pytest.approx(4 / 3.0)


def test_a_cycle_longer_than_the_run_is_seen_as_a_whole() -> None:
    day = {"kind": "diurnal", "amplitude": 0.5, "period_s": 1e6, "group": None}
    pool = system(chain(station("query", 16, EXPONENTIAL)))
    run = BY_RULE | {"queries": 1_000_000, "percentiles": [0.99]}
    assert generate(pool, day, 12.0, **run)["throughput_qps"] == pytest.approx(12.0, rel=0.01)
    found = generate(pool, day, 9.0, **run)
    assert (found["segments"], found["falls_behind"]) == (64, False)
    assert found["throughput_qps"] == pytest.approx(9.0, rel=0.01)
    assert found["interval_queries"] >= 100 * 1e6 * 9.0 and np.isnan(found["half_width_s"][0])
    # The rate barely changes while a query is inside: latencies are those of constant rates, by queries.
    rates = 9.0 * (1.0 + 0.5 * np.sin(2 * np.pi * (np.arange(24) + 0.5) / 24))
    latencies = [generate(pool, POISSON, rate, queries=100_000, warmup=5000, seed=9)["latencies_s"] for rate in rates]
    weights = np.repeat(rates, 95_000)
    every = np.concatenate(latencies)
    order = np.argsort(every)
    share = np.cumsum(weights[order]) / weights.sum()
    assert found["percentiles_s"][0] == pytest.approx(every[order][np.searchsorted(share, 0.99)], rel=0.01)


def test_fast_modulation_is_skipped_or_refused() -> None:
    pool = everything()[0]
    flicker = {"kind": "diurnal", "amplitude": 0.9, "period_s": 2.5e-4, "group": None}
    # 8000 cycles of 1024 pieces a query: gone through one by one they would take longer than any test may.
    times, _ = _core.draw_queries(flicker, np.ones(1), 0.5, 50_000, 3)
    plain, _ = _core.draw_queries(POISSON, np.ones(1), 0.5, 50_000, 3)
    np.testing.assert_allclose(times, plain, atol=1e-3)
    phases = {"kind": "mmpp", "rates": [1.0, 3.0], "switch": [[0.0, 1e4], [1e4, 0.0]], "group": None}
    assert generate(pool, phases, 1.5, queries=100)["queries"] == 100
    for run in (generate, lambda *job: _core.draw_queries(job[1], np.ones(1), job[2], 10, 0)):
        with pytest.raises(InputError, match=r"switch: changes phase 2.000e4 times a query; at most 1e4"):
            run(pool, phases, 0.5)


def test_a_shift_of_the_clock_costs_no_more_than_the_queries_between_two() -> None:
    """A service of one item takes next to nothing, those that come a second each: the clock begins anew often.

    At each of them over all that wait, it would take longer than any test may.
    """
    n = 1_000_000
    table = {"kind": "table", "items": [1, 8], "busy": [1], "seconds": [[1e-11], [1.0]], "noise": None}
    found = replay(system(chain(station("query", 1, table))), trace(np.zeros(n), [8] * n))
    assert (found["latencies_s"] == 1.0 + np.arange(n)).all()


SWEEP = """
import resource, sys
sys.path[:0] = {path!r}
import numpy as np
from hercules_fast import _core
from hercules_fast.errors import InputError
from tests.laws.test_queueing_laws import POISSON, everything
call = (everything()[0], POISSON, np.ones(1), 1.5, 500_000, None, None, [0.99], 1)
_core.sweep_systems([call] * int(sys.argv[1]), threads=int(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_of_a_sweep_does_not_grow_with_its_jobs(threads: int) -> None:
    code = SWEEP.format(path=sys.path)
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", code, n, str(threads)], check=True, capture_output=True, text=True
            ).stdout
        )
        for n in ("4", "64")
    )
    assert many - few < 32 * 1024, (few, many)  # KiB; every record until the end would be some MiB a job


def test_the_jobs_of_a_sweep_are_the_same_beside_each_other_as_alone() -> None:
    calls = [
        (described, POISSON, SIZES, 0.1 + 0.2 * k, 300_000 if k < 2 else 3000, None, None, [0.9], k)
        for k, described in enumerate(everything()[:4])
    ]
    swept = [_core.sweep_systems(calls, threads=threads) for threads in (1, 2, 3)]
    for k, call in enumerate(calls):
        alone = _core.simulate_system(*call, threads=1)
        for found in swept:
            identical(found[k], alone)
