"""Both engines of the queueing simulator against the slow twin, and against each other, on random systems and runs.

Two kinds of numbers. *Dyadic*: all times are small multiples of a quarter and all factors powers of two, so ties are
common, every sum is exact and answers must be equal bit for bit. *Continuous*: every service is random, so that no two
events meet by accident; answers must be equal to 1e-9, since the engines keep other clocks than the twin.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from hercules_fast import _core
from tests.reference import queueing as reference
from tests.small_systems import chain, generate, linear, replay, station, system, trace, variate

MAX_SIZE = 12
ITEMS = [1, 2, 4, 8, 16, 32, 64]
Trace = tuple[list[float], list[int]]

quarters = st.integers(1, 8).map(lambda n: n / 4)
means = st.floats(0.05, 2.0)
random_laws = st.sampled_from(
    [
        {"law": "exponential", "params": []},
        {"law": "erlang", "params": [3]},
        {"law": "gamma", "params": [0.7]},
        {"law": "hyperexponential", "params": [0.9, 0.1, 2.0, 0.2]},
        {"law": "lognormal", "params": [0.5]},
        {"law": "uniform", "params": [0.5, 1.5]},
    ]
)
exact_laws = st.sampled_from([{"law": "deterministic", "params": []}, {"law": "replay", "params": [1.0, 3.0]}])


@st.composite
def tables(draw: st.DrawFn, dyadic: bool, noise: dict[str, Any] | None, rates: bool) -> dict[str, Any]:
    """A service table. ``rates``: its rows differ by the same power of two in each column, so that speeds are exact."""
    busy = draw(st.sampled_from([[1], [1, 2], [1, 2, 3], [1, 3]]))
    cell = quarters if dyadic else means
    column = st.lists(cell, min_size=len(ITEMS), max_size=len(ITEMS))
    if dyadic and rates:
        busy, alone = [1, 2, 3], draw(column)
        columns = [[seconds * factor for seconds in alone] for factor in (1, *draw(slowdowns))]
    else:
        columns = [draw(column) for _ in busy]
    return {"kind": "table", "items": ITEMS, "busy": busy, "seconds": np.transpose(columns).tolist(), "noise": noise}


slowdowns = st.sampled_from([(1, 2), (2, 2), (1, 1)])
speeds = {
    True: st.sampled_from([[1.0], [1.0, 0.5], [1.0, 1.0, 0.5], [1.0, 2.0]]),
    False: st.lists(st.floats(0.3, 1.2), max_size=3).map(lambda rest: [1.0, *rest]),
}


@st.composite
def stations(draw: st.DrawFn, dyadic: bool, place: int, interferences: list[str]) -> dict[str, Any]:
    interference = draw(st.sampled_from(interferences))
    noise = draw(st.none() | exact_laws) if dyadic else draw(random_laws)
    kind = draw(st.sampled_from(["law", "linear", "table"]))
    if kind == "law":
        law = noise or {"law": "deterministic", "params": []}
        service = {"kind": "law", "mean_s": draw(quarters if dyadic else means)} | law
    elif kind == "linear":
        cost = st.integers(1, 4).map(lambda n: n / 4) if dyadic else st.floats(0.05, 1.0)
        service = linear(draw(cost), draw(cost), noise)
    else:
        service = draw(tables(dyadic, noise, interference == "dynamic_rate"))
    plain = station(
        draw(st.sampled_from(["sub_batch", "query", "fused"])),
        draw(st.integers(1, 3)),
        service,
        buffer=draw(st.none() | st.integers(0, 3)) if place > 0 else None,
        interference=interference,
        slowed_by=0 if interference == "none" else draw(st.integers(0, place)),
        speed=[] if interference == "none" or kind == "table" else draw(speeds[dyadic]),
    )
    if plain["unit"] == "fused":
        limits = st.sampled_from([(1, None), (3, None), (5, None), (None, 6), (None, 15), (2, 8)])
        plain["max_queries"], plain["max_items"] = draw(limits)
        plain["max_wait_s"] = draw(st.sampled_from([0.0, 0.5, 1.25] if dyadic else [0.0, 0.61, 1.17]))
    return plain


@st.composite
def systems(draw: st.DrawFn, dyadic: bool, interferences: list[str]) -> dict[str, Any]:
    """One or two routes of one to three stations; all features."""
    routes = []
    for min_size in [1, draw(st.integers(2, MAX_SIZE))][: draw(st.integers(1, 2))]:
        length = draw(st.integers(1, 3))
        chained = [draw(stations(dyadic, place, interferences)) for place in range(length)]
        routes.append(chain(*chained, batch=draw(st.none() | st.integers(1, 6)), min_size=min_size))
    # Continuous runs must not sit on the edge of a drop: no drop time equals a wait for company.
    drop_after_s = st.sampled_from([0.0, 0.5, 1.0, 3.0] if dyadic else [0.43, 2.9])
    return system(*routes, capacity=draw(st.none() | st.integers(1, 8)), drop_after_s=draw(st.none() | drop_after_s))


@st.composite
def pools_and_tandems(draw: st.DrawFn, dyadic: bool) -> dict[str, Any]:
    """What the recursions can do: one pool, split or not, or a tandem of pools of whole queries."""
    length = draw(st.integers(1, 3))
    chained = []
    for place in range(length):
        plain = draw(stations(dyadic, place, ["none"]))
        unit = draw(st.sampled_from(["sub_batch", "query"])) if length == 1 else "query"
        kept = {key: plain[key] for key in ("threads", "service")}
        chained.append(station(unit, kept["threads"], kept["service"]))
    return system(chain(*chained, batch=draw(st.none() | st.integers(1, 6))))


@st.composite
def traces(draw: st.DrawFn, dyadic: bool) -> Trace:
    gap = st.integers(0, 6).map(lambda n: n / 4) if dyadic else st.floats(0.001, 2.0)
    queries = draw(st.lists(st.tuples(gap, st.integers(1, MAX_SIZE)), min_size=1, max_size=30))
    return np.cumsum([gap for gap, _ in queries]).tolist(), [size for _, size in queries]


def twin(described: dict[str, Any], run: Trace, segment: int = 0) -> reference.Run:
    return reference.simulate(described, *run, variate(described, segment=segment))


def equal(found: float | np.ndarray, expected: Any, exact: bool) -> None:
    if exact:
        assert np.array_equal(found, expected, equal_nan=True), (found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def compare(found: dict[str, Any], expected: reference.Run, described: dict[str, Any], exact: bool) -> None:
    """Latencies, outcomes and the figures of each station."""
    equal(found["latencies_s"], expected.latency_s, exact)
    outcomes = [expected.outcome.count(outcome) for outcome in ("done", "refused", "dropped")]
    assert [found["counted"], found["refused"], found["dropped"]] == outcomes
    done = sorted(seconds for seconds in expected.latency_s if not math.isnan(seconds))
    if not done:
        return
    equal(found["mean_latency_s"], np.mean(done), False)
    if not math.isnan(found["percentiles_s"][0]):
        equal(found["percentiles_s"][0], done[math.ceil(0.5 * len(done)) - 1], exact)
    equal(found["throughput_qps"], len(done) / expected.seconds, False)
    if found["engine"] == "events":
        equal(found["mean_in_system"], expected.mean_in_system, False)
    plain = [s for route in described["routes"] for s in route["stations"]]
    for figures, did, one in zip(found["stations"], expected.stations, plain, strict=True):
        thread_s = one["threads"] * expected.seconds
        equal(figures["utilisation"], did.busy_s / thread_s, False)
        equal(figures["mean_busy"], did.busy_s / expected.seconds, False)
        equal(figures["blocked_share"], did.blocked_s / thread_s, False)
        equal(figures["mean_queue"], did.mean_queue, False)
        if did.services:
            equal(figures["mean_wait_s"], np.mean(did.waits_s), False)
            equal(figures["items_per_execution"], np.mean(did.items), False)
        if len(described["routes"]) == 1 and len(done) == len(expected.outcome):
            equal(figures["executions_per_query"], len(did.services) / len(done), False)


EVERY_WAY = ["none", "at_start", "dynamic_rate"]


@given(systems(True, ["none", "at_start"]), traces(True))
def test_events_equal_the_twin_bit_for_bit(described: dict[str, Any], run: Trace) -> None:
    compare(replay(described, trace(*run)), twin(described, run), described, exact=True)


@given(systems(True, EVERY_WAY), traces(True))
def test_events_equal_the_twin_among_ties_and_rates(described: dict[str, Any], run: Trace) -> None:
    compare(replay(described, trace(*run)), twin(described, run), described, exact=False)


@given(systems(False, EVERY_WAY), traces(False))
def test_events_equal_the_twin_on_continuous_times(described: dict[str, Any], run: Trace) -> None:
    compare(replay(described, trace(*run)), twin(described, run), described, exact=False)


@given(st.booleans(), st.data())
def test_recursion_equals_events_and_the_twin(dyadic: bool, data: st.DataObject) -> None:
    described, run = data.draw(pools_and_tandems(dyadic)), data.draw(traces(dyadic))
    recursion, events = (replay(described, trace(*run), engine) for engine in ("recursion", "events"))
    assert (recursion["engine"], events["engine"]) == ("recursion", "events")
    expected = twin(described, run)
    compare(recursion, expected, described, dyadic)
    compare(events, expected, described, dyadic)
    assert replay(described, trace(*run), "auto")["engine"] == "recursion"


@given(systems(True, EVERY_WAY), traces(True), st.integers(1, 29))
def test_parts_of_a_trace_are_independent(described: dict[str, Any], run: Trace, cut: int) -> None:
    """Each part begins at time 0 in an empty system; its queries are numbered from 0 and draw from its own segment."""
    arrival_s, sizes = run
    assume(cut < len(sizes))
    parts = [(arrival_s[:cut], sizes[:cut]), ([t - arrival_s[cut] for t in arrival_s[cut:]], sizes[cut:])]
    source = trace(parts[0][0] + parts[1][0], sizes, starts=[0, cut])
    found = replay(described, source)["latencies_s"]
    expected = [x for segment, part in enumerate(parts) for x in twin(described, part, segment).latency_s]
    equal(found, expected, False)


@given(systems(True, ["none", "at_start"]), traces(True), st.integers(0, 4))
def test_a_repeated_and_compressed_trace(described: dict[str, Any], run: Trace, pause: int) -> None:
    """Cycles follow each other without a break in the system; ``rate_scale`` divides times, of cycles too."""
    arrival_s, sizes = run
    cycle_s = arrival_s[-1] + pause / 4
    assume(cycle_s > 0)
    found = replay(described, trace(arrival_s, sizes, cycles=3, cycle_s=cycle_s, rate_scale=2.0))
    times = [(t + k * cycle_s) / 2.0 for k in range(3) for t in arrival_s]
    equal(found["latencies_s"], twin(described, (times, sizes * 3)).latency_s, True)


SOURCES = [
    {"kind": "law", "law": "exponential", "params": [], "group": None},
    {"kind": "law", "law": "gamma", "params": [2.5], "group": [0.5, 0.25, 0.25]},
    {"kind": "mmpp", "rates": [3.0, 0.5], "switch": [[0.0, 0.2], [0.1, 0.0]], "group": None},
    {"kind": "rates", "durations_s": [10.0, 5.0], "from": [1.0, 2.0], "to": [2.0, 2.0], "group": None},
    {"kind": "diurnal", "amplitude": 0.5, "period_s": 30.0, "group": None},
]


@given(st.sampled_from(SOURCES), systems(False, EVERY_WAY), st.floats(0.2, 2.0), st.integers(0, 2**32), st.data())
def test_a_drawn_run_equals_the_twin_on_what_it_exports(
    source: dict[str, Any], described: dict[str, Any], qps: float, seed: int, data: st.DataObject
) -> None:
    """Segments draw their own gaps, sizes and services, and each drops its own warm-up."""
    segments, warmup = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 5))
    sized = {"size_pmf": np.full(MAX_SIZE, 1 / MAX_SIZE), "engine": "events", "seed": seed}
    sized |= {"queries": 20 * segments, "segments": segments, "warmup": warmup}
    found = generate(described, source, qps, **sized)
    assert (found["queries"], found["segments"], found["warmup"]) == (20 * segments, segments, warmup)
    latencies, outcomes = [], []
    for segment in range(segments):
        times, sizes = _core.draw_queries(source, sized["size_pmf"], qps, 20, seed, segment, segments)
        assert ((sizes >= 1) & (sizes <= MAX_SIZE)).all() and (np.diff(times) >= 0).all()
        run = reference.simulate(described, times.tolist(), sizes.tolist(), variate(described, seed, segment))
        latencies += run.latency_s[warmup:]
        outcomes += run.outcome[warmup:]
    equal(found["latencies_s"], latencies, False)
    for name, outcome in (("counted", "done"), ("refused", "refused"), ("dropped", "dropped")):
        assert found[name] == outcomes.count(outcome), name
