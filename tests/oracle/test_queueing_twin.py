"""The slow twin itself: exact traces of the oracle, and rules too small for the oracle worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.reference import queueing as reference
from tests.small_systems import chain, linear, station, system

CASES = {c["name"]: c for c in json.loads((Path(__file__).parent / "queue-oracle.json").read_text())["cases"]}
TRACES = [name for name, case in CASES.items() if case["model"] == "trace"]


def described(trace: dict[str, Any]) -> dict[str, Any]:
    """The system of a trace of the oracle."""
    routes = []
    if "cpu" in trace:
        cpu, second = trace["cpu"], trace.get("stage2")
        stations = [station("sub_batch", cpu["threads"], linear(cpu["base"], cpu["per_item"]))]
        if second:
            service = linear(second["base"], second["per_item"])
            stations.append(station("query", second["threads"], service, buffer=second["buffer"]))
        routes.append(chain(*stations, batch=cpu["batch"]))
    if "accel" in trace:
        accel = trace["accel"]
        service, limits = linear(accel["base"], accel["per_item"]), (accel["max_batch"], accel["max_wait"])
        device = station("fused", 1, service, max_queries=limits[0], max_wait_s=limits[1])
        routes.append(chain(device, min_size=trace.get("threshold", 1)))
    return system(*routes)


def no_draws(number: int, index: int) -> float:
    raise AssertionError("a deterministic system draws nothing")


@pytest.mark.parametrize("name", TRACES)
def test_traces_of_the_oracle(name: str) -> None:
    trace, expected = CASES[name]["trace"], CASES[name]["expect"]
    run = reference.simulate(described(trace), trace["arrivals"], trace["sizes"], no_draws)
    assert run.latency_s == pytest.approx(expected["latency"], abs=1e-9)
    assert run.outcome == ["done"] * len(trace["sizes"])
    if "sub_batch_starts" in expected:
        first = run.stations[0]
        starts = [
            (jobs[0][0], items, begin) for (begin, _, jobs), items in zip(first.services, first.items, strict=True)
        ]
        for found, exact in zip(starts, sorted(expected["sub_batch_starts"], key=lambda row: row[2]), strict=True):
            assert found == pytest.approx(tuple(exact), abs=1e-9)
    if "batches" in expected:
        launches = [(begin, [query for query, _ in jobs]) for begin, _, jobs in run.stations[-1].services]
        assert [queries for _, queries in launches] == [queries for _, queries in expected["batches"]]
        assert [begin for begin, _ in launches] == pytest.approx([begin for begin, _ in expected["batches"]], abs=1e-9)


def simulate(described: dict[str, Any], arrival_s: list[float], sizes: list[int] | None = None) -> reference.Run:
    return reference.simulate(described, arrival_s, sizes or [1] * len(arrival_s), no_draws)


def test_a_query_above_capacity_is_refused_and_one_that_leaves_makes_room_at_once() -> None:
    run = simulate(system(chain(station("query", 1, linear(1.0, 0.0))), capacity=2), [0.0, 0.0, 0.5, 1.0, 1.5])
    assert run.outcome == ["done", "done", "refused", "done", "refused"]
    assert run.latency_s[:2] == [1.0, 2.0] and run.latency_s[3] == 2.0
    assert run.seconds == 1.5 and run.mean_in_system == 5.0 / 1.5


def test_a_query_is_dropped_only_if_it_would_start_strictly_too_late() -> None:
    pool = station("sub_batch", 1, linear(0.0, 1.0))
    run = simulate(system(chain(pool, batch=2), drop_after_s=2.0), [0.0, 0.0, 0.0, 1.0], [2, 1, 4, 1])
    # 0 runs to 2; 1 starts at 2, not late; 2 (two parts) would start at 3 and leaves whole; 3 starts at 3.
    assert run.outcome == ["done", "done", "dropped", "done"]
    assert [run.latency_s[q] for q in (0, 1, 3)] == [2.0, 3.0, 3.0]
    assert run.stations[0].waits_s == [0.0, 2.0, 2.0]


def test_without_a_waiting_place_a_thread_keeps_its_result() -> None:
    pools = [station("query", 2, linear(1.0, 0.0)), station("query", 1, linear(3.0, 0.0), buffer=0)]
    run = simulate(system(chain(*pools)), [0.0, 0.0, 0.0])
    # 0 moves on at 1; 1 is blocked from 1 to 4; 2 starts at 1 and is blocked from 2 to 7.
    assert run.latency_s == [4.0, 7.0, 10.0]
    assert [begin for begin, _, _ in run.stations[0].services] == [0.0, 0.0, 1.0]
    assert (run.stations[0].busy_s, run.stations[0].blocked_s, run.stations[1].busy_s) == (3.0, 3.0 + 5.0, 9.0)
    assert run.stations[1].waits_s == [0.0, 0.0, 0.0]


def test_a_query_larger_than_a_batch_goes_alone() -> None:
    device = station("fused", 1, linear(1.0, 0.0), max_items=4, max_wait_s=10.0)
    run = simulate(system(chain(device)), [0.0, 0.0, 0.0, 0.25], [2, 9, 3, 2])
    # The line holds 2 and 9: 4 are reached, 2 goes. Then 9 alone at 1; 3 and 2 together are too many.
    assert [(begin, [query for query, _ in jobs]) for begin, _, jobs in run.stations[0].services] == [
        (0.0, [0]),
        (1.0, [1]),
        (2.0, [2]),
        (10.25, [3]),
    ]


def test_results_of_one_instant_are_fused() -> None:
    """Timers come after completions: two queries that come from a pool together are one batch even without a wait."""
    device = station("fused", 2, linear(1.0, 0.0), max_queries=4)
    run = simulate(system(chain(station("query", 2, linear(1.0, 0.0)), device)), [0.0, 0.0])
    assert [begin for begin, _, _ in run.stations[1].services] == [1.0]


def test_interference_at_the_start_stays() -> None:
    pool = station("query", 2, linear(1.0, 0.0), interference="at_start", speed=[1.0, 0.5])
    run = simulate(system(chain(pool)), [0.0, 0.5, 1.5])
    # 0 alone: 1 s. 1 with 0: 2 s, to 2.5. 2 with 1: 2 s.
    assert run.latency_s == [1.0, 2.0, 2.0]


def test_interference_by_rate_changes_what_runs() -> None:
    pool = station("query", 2, linear(1.0, 0.0), interference="dynamic_rate", speed=[1.0, 0.5])
    run = simulate(system(chain(pool)), [0.0, 0.5])
    # Half of 0 is done at 0.5, the rest takes 1 s beside 1, which then has half left and is alone.
    assert run.latency_s == [1.5, 1.5]


def test_blocked_threads_slow_nobody_down() -> None:
    pools = [station("query", 3, linear(1.0, 0.0)), station("query", 1, linear(2.0, 0.0), buffer=0)]
    pools[1] |= {"interference": "dynamic_rate", "slowed_by": 0, "speed": [1.0, 0.5]}
    run = simulate(system(chain(*pools)), [0.0, 0.0, 0.0, 4.0, 4.0])
    # From 1 on, 1 and 2 are blocked and 0 goes at full speed, to 3. Then 1, of which half is done at 4, when 3 and 4
    # start beside the blocked 2: half speed until 5 leaves a quarter. 5.5, 7.5, 9.5, 11.5.
    assert run.latency_s == [3.0, 5.5, 7.5, 5.5, 7.5]
