"""What the face makes of the core's answers, with a core that answers as told: units, refusals, the stopping rule."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import DTypeError, InputError
from hercules_fast.plotting import plot_load_curve
from hercules_fast.queueing import load_curve
from hercules_fast.report import load_curve_text, simulation_text
from hercules_fast.traffic import Sla

POOL = hf.System.pool(hf.LawService(mean_s=0.01), 2)
LOAD = hf.Queries(qps=100.0)
BOTTLENECK = 200.0


class Core:
    """Stands in for the extension: notes what it is asked; ``answer`` changes what it says."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answer: dict[str, Any] = {}
        self.half_width: Callable[[int], float] = lambda queries: 0.05

    def station_capacities(self, system: dict[str, Any], size_pmf: np.ndarray) -> np.ndarray:
        return np.array([BOTTLENECK for route in system["routes"] for _ in route["stations"]])

    def draw_queries(self, *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        _, _, qps, queries, _, segment, _ = arguments
        return np.arange(queries) / qps + segment, np.ones(queries, np.int64)

    def simulate_system(self, *arguments: Any) -> dict[str, Any]:
        self.calls.append(arguments)
        system, _, _, qps, queries, warmup, _, percentiles, *_ = arguments
        some = np.linspace(0.02, 0.04, len(percentiles))
        station = {"utilisation": 0.5, "blocked_share": 0.0, "mean_wait_s": 0.01, "wait_percentiles_s": some}
        station |= {"mean_queue": 1.0, "executions_per_query": 1.0, "items_per_execution": 1.0, "mean_busy": 1.5}
        found = {
            "percentiles_s": some,
            "half_width_s": some * self.half_width(queries),
            "effective_samples": some * 1e5,
            "mean_latency_s": 0.02,
            "mean_half_width_s": 0.001,
            "throughput_qps": 99.0,
            "offered_qps": qps or 50.0,
            "refused": 0,
            "dropped": 0,
            "counted": queries - (warmup or 0),
            "queries": queries,
            "warmup": warmup or 0,
            "segments": 1,
            "batches": 20,
            "interval_queries": 700,
            "warmup_cut": 5,
            "growth": 0.0,
            "falls_behind": False,
            "engine": "recursion",
            "mean_in_system": math.nan,
            "stations": [station for route in system["routes"] for _ in route["stations"]],
            "latencies_s": np.full(queries, 0.5),
        }
        return found | self.answer

    def sweep_systems(self, calls: list[tuple[Any, ...]], threads: int | None, engine: str) -> list[dict[str, Any]]:
        return [self.simulate_system(*call, threads, engine) for call in calls]

    def max_load_system(self, *arguments: Any) -> dict[str, Any]:
        self.calls.append(arguments)
        some = np.array([0.02] * len(arguments[3]))
        found = {"qps": 80.0, "qps_low": 79.0, "qps_high": 81.0, "limit": "sla", "limit_target": 0, "bound_qps": 190.0}
        found |= {
            "collapse_qps": 120.0,
            "unloaded_s": some / 2,
            "run": {"percentiles_s": some, "half_width_s": some / 10},
        }
        return found | {"probes": 9, "simulated_queries": 1000} | self.answer


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    stand_in = Core()
    for name in ("station_capacities", "draw_queries", "simulate_system", "sweep_systems", "max_load_system"):
        monkeypatch.setattr(_core, name, getattr(stand_in, name), raising=False)
    return stand_in


def test_figures_come_in_milliseconds(core: Core) -> None:
    result = hf.simulate(POOL, LOAD, queries=20_000, percentiles=(50, 99), keep_latencies=True, station_waits=True)
    assert result.latency_ms == (20.0, 40.0)
    assert result.half_width_ms == pytest.approx((1.0, 2.0))
    assert result.intervals_ms[1] == pytest.approx((38.0, 42.0))
    assert (result.mean_latency_ms, result.bottleneck_qps) == (20.0, BOTTLENECK)
    assert result.latencies_ms is not None and result.latencies_ms[0] == 500.0
    assert result.exact
    assert result.stations[0].name == "station 0" and result.stations[0].wait_ms == (20.0, 40.0)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["mean_in_system"] is None and plain["stations"][0]["mean_wait_ms"] == 10.0
    assert "latencies_ms" not in plain and plain["intervals_ms"][0] == pytest.approx([19.0, 21.0])


def test_latencies_are_not_copied(core: Core) -> None:
    theirs = np.full(20_000, 0.5)
    core.answer = {"latencies_s": theirs}
    assert hf.simulate(POOL, LOAD, queries=20_000, keep_latencies=True).latencies_ms is theirs
    assert hf.simulate(POOL, LOAD, queries=20_000).latencies_ms is None


def test_the_queries_of_a_run_come_as_parts(core: Core) -> None:
    core.answer = {"segments": 4}
    trace = hf.simulate(POOL, LOAD, queries=8000, keep_trace=True).trace
    assert trace is not None
    assert (trace.queries, trace.starts.tolist()) == (8000, [0, 2000, 4000, 6000])
    assert trace.arrival_s[[0, 2000, 7999]] == pytest.approx([0.0, 1.0, 3.0 + 19.99])
    assert hf.simulate(POOL, trace, keep_trace=True).trace is trace


def test_losses_and_warmup(core: Core) -> None:
    core.answer = {"refused": 30, "dropped": 10, "counted": 1960, "warmup": 100, "warmup_cut": 400}
    system = hf.System.pool(hf.LawService(mean_s=0.01), capacity=5)
    result = hf.simulate(system, hf.Queries(qps=900.0), queries=2000)  # overloaded, but bounded
    assert (result.loss, result.warmup_suffices) == (0.02, False)
    core.answer = {"warmup_cut": None}
    assert hf.simulate(POOL, LOAD, queries=2000).warmup_suffices is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"queries": 0}, "queries: is 0; allowed is a whole number from 1"),
    ({"queries": 2.5}, "queries: is 2.5"),
    ({"duration_s": -1.0}, "duration_s: is -1.0"),
    ({"queries": 10, "duration_s": 1.0}, "queries, duration_s: both are given"),
    ({"queries": 10, "precision": 0.01}, "precision: is given; allowed is one of queries, duration_s and precision"),
    ({"precision": 0.0}, "precision: is 0.0"),
    ({"precision": 0.1, "max_queries": 0}, "max_queries: is 0"),
    ({"seed": -1}, "seed: is -1; allowed is a whole number from 0"),
    ({"seed": 2**63}, "seed: is 9223372036854775808"),
    ({"warmup": -1}, "warmup: is -1"),
    ({"queries": 50_000, "warmup": 50_000}, "warmup: is 50000; allowed is 0 <= warmup < queries = 50000"),
    ({"percentiles": ()}, r"percentiles: is \(\); allowed is a sequence of at least one"),
    ({"percentiles": 99}, "percentiles: is 99; allowed is a sequence of at least one"),
    ({"percentiles": (0.0, 50.0)}, r"percentiles\[0\]: is 0.0; allowed is a number, finite > 0 and < 100"),
    ({"percentiles": (50.0, 100.0)}, r"percentiles\[1\]: is 100.0"),
    ({"percentiles": (math.nan,)}, r"percentiles\[0\]: is nan"),
    ({"percentiles": ("p99",)}, r"percentiles\[0\]: is 'p99'"),
    (
        {"queries": 5000, "percentiles": (99.9,)},
        r"percentiles\[0\]: is 99.9, but only 5000 .* least 10000 are needed",
    ),
    ({"queries": 1050, "warmup": 100}, r"percentiles\[2\]: is 99, but only 950 .*at least 1000 are needed"),
    ({"threads": 0}, "threads: is 0; allowed is a whole number from 1 to 1024"),
    ({"engine": "fast"}, "engine: is 'fast'; allowed is one of auto, recursion, events"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals_before_any_work(core: Core, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hf.simulate(POOL, LOAD, **options)
    assert core.calls == []


def test_what_is_no_system_and_no_source(core: Core) -> None:
    with pytest.raises(DTypeError, match="system: is LawService; allowed is a System"):
        hf.simulate(hf.LawService(mean_s=1.0), LOAD)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="arrivals: is float; allowed is Queries or a Trace"):
        hf.simulate(POOL, 100.0)  # type: ignore[arg-type]


def test_too_much_load_is_refused_with_its_utilisation(core: Core) -> None:
    busy = hf.Queries(qps=250.0)
    with pytest.raises(InputError, match=r"qps: is 250, a utilisation of 125.0% at 'station 0'; allowed is less than"):
        hf.simulate(POOL, busy)
    assert core.calls == []
    core.answer = {"falls_behind": True, "growth": 0.2}
    assert not hf.simulate(POOL, busy, allow_unstable=True).stable
    with pytest.raises(InputError, match=r"qps: is 100; the system falls behind by 20.0% of elapsed time"):
        hf.simulate(POOL, LOAD)  # stations that block each other carry less than the slowest of them


def test_a_percentile_without_enough_completions_is_refused(core: Core) -> None:
    core.answer = {"counted": 700, "percentiles_s": np.array([0.01, 0.02, math.nan])}
    with pytest.raises(InputError, match=r"percentiles\[2\]: is 99, but only 700 queries complete .*1000 are needed"):
        hf.simulate(POOL, LOAD, queries=2000)


def test_length_of_a_run(core: Core) -> None:
    hf.simulate(POOL, LOAD)
    hf.simulate(POOL, LOAD, duration_s=60.0)
    trace = hf.Trace(arrival_s=np.arange(1000) / 90.0, cycles=2, cycle_s=12.0)
    hf.simulate(POOL, trace)
    assert [(qps, queries) for _, _, _, qps, queries, *_ in core.calls] == [
        *((100.0, 1_000_000), (100.0, 6000), (None, 2000)),
    ]
    for options in ({"queries": 10}, {"duration_s": 1.0}, {"precision": 0.1}):
        with pytest.raises(InputError, match="Trace"):
            hf.simulate(POOL, trace, **options)  # type: ignore[arg-type]


def test_the_stopping_rule_projects_the_length_from_the_pilot(core: Core) -> None:
    core.half_width = lambda queries: 10.0 / math.sqrt(queries)
    result = hf.simulate(POOL, LOAD, precision=0.01)
    lengths = [call[4] for call in core.calls]
    assert lengths == [200_000, 1_200_000]  # 10 / sqrt(200000) misses 1 % by a factor whose square is 5
    assert result.half_width_ms[2] <= 0.01 * result.latency_ms[2]


def test_the_stopping_rule_repeats_and_ends(core: Core) -> None:
    core.half_width = lambda queries: math.nan if queries < 500_000 else 0.02
    result = hf.simulate(POOL, LOAD, precision=0.01, max_queries=5_000_000)
    assert [call[4] for call in core.calls] == [200_000, 800_000, 3_840_000, 5_000_000]
    assert result.queries == 5_000_000
    core.calls.clear()
    core.half_width = lambda queries: 0.0
    hf.simulate(POOL, LOAD, precision=0.01, percentiles=(99.9, 50))
    assert [call[4] for call in core.calls] == [2_000_000], "the pilot is long enough for the highest percentile"


def test_a_sweep_pairs_systems_with_loads(core: Core) -> None:
    other = hf.System.pool(hf.LawService(mean_s=0.02), 3)
    loads = [hf.Queries(qps=q) for q in (10.0, 20.0)]
    results = hf.sweep([POOL, other], loads, queries=5000, seed=3)
    assert [result.qps for result in results] == [10.0, 20.0]
    assert [call[0]["routes"][0]["stations"][0]["threads"] for call in core.calls] == [2, 3]
    assert {call[8] for call in core.calls} == {3}, "common random numbers"
    assert len(hf.sweep(POOL, loads, queries=5000)) == len(hf.sweep([POOL, other], LOAD, queries=5000)) == 2
    with pytest.raises(DTypeError, match="systems: is int; allowed is one, or a sequence"):
        hf.sweep(5, LOAD)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="arrivals: is float"):
        hf.sweep(POOL, 100.0)  # type: ignore[arg-type]
    for systems, sources in (([POOL] * 2, loads * 2), ([], loads), (POOL, [])):
        with pytest.raises(InputError, match="arrivals: has"):
            hf.sweep(systems, sources)


def test_a_load_curve_ends_near_the_bottleneck(core: Core) -> None:
    results = load_curve(POOL, LOAD, 4, queries=5000)
    assert [result.qps for result in results] == pytest.approx([47.5, 95.0, 142.5, 190.0])
    with pytest.raises(InputError, match="points: is 0"):
        load_curve(POOL, LOAD, 0)


def test_the_highest_load(core: Core) -> None:
    slas = (Sla(percentile=99, latency_ms=25), Sla(percentile=50, latency_ms=30))
    result = hf.max_load(POOL, LOAD, sla=slas, utilisation_cap=0.9)
    assert core.calls[0][3:6] == ([(0.99, 0.025), (0.5, 0.03)], 0.9, 0.003)
    assert (result.qps, result.interval_qps, result.limit) == (80.0, (79.0, 81.0), "sla: p99 <= 25 ms")
    assert result.margin == pytest.approx(0.5)
    assert (result.latency_ms, result.unloaded_ms) == ((20.0, 20.0), (10.0, 10.0))
    core.answer = {"qps": 0.0, "limit": "unloaded latency", "run": None}
    nothing = json.loads(json.dumps(hf.max_load(POOL, LOAD, sla=slas[0]).to_dict(), allow_nan=False))
    assert (nothing["limit"], nothing["margin"], nothing["latency_ms"]) == (
        "unloaded latency: p99 <= 25 ms",
        None,
        [None],
    )


def test_a_result_as_text(core: Core) -> None:
    slas = [Sla(percentile=95, latency_ms=30.5), Sla(percentile=99, latency_ms=35)]
    text = simulation_text(hf.simulate(POOL, LOAD, queries=20_000), "two threads", slas=slas)
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("two threads at 100 q/s\n")
    assert ["p95", "30.000", "1.500", "30.5", "met,", "within", "the", "interval"] in lines
    assert ["p99", "40.000", "2.000", "35", "missed"] in lines
    assert "MSER would drop 5 queries" in text, "the warm-up was 0"
    assert "backlog" not in text and "lost" not in text
    core.answer = {"falls_behind": True, "refused": 500, "half_width_s": np.full(3, math.nan), "warmup_cut": None}
    text = simulation_text(hf.simulate(POOL, LOAD, queries=19_500, allow_unstable=True), "two threads")
    assert "the backlog grows" in text and "lost 2.50% (refused 500, late 0)" in text and "MSER" not in text
    assert ["p50", "20.000", "?"] in [line.split() for line in text.splitlines()]


def test_a_load_curve_as_text_and_picture(core: Core, tmp_path) -> None:
    results = load_curve(POOL, LOAD, 2, queries=5000)
    core.answer = {"falls_behind": True}
    results += load_curve(POOL, LOAD, 1, queries=5000)
    first, _, last = load_curve_text(results, "pool").splitlines()[2:]
    assert first.split() == ["95", "47.5%", "20.000", "1.000", "30.000", "1.500", "40.000", "2.000"]
    assert last.endswith("backlog grows")
    pytest.importorskip("matplotlib")
    drawn = [plot_load_curve(results, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg")]
    assert drawn[0] == drawn[1] and b"<!-- p99 -->" in drawn[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sla": ()}, r"sla: is \(\); allowed is at least one Sla"),
        ({"sla": [99.0]}, "sla: is"),
        ({"sla": 99.0}, "sla: is 99.0; allowed is an Sla, or a sequence of them"),
        ({"utilisation_cap": 0.0}, "utilisation_cap: is 0.0"),
        ({"precision": 0.0}, "precision: is 0.0"),
        ({"loss": 1.0}, "loss: is 1.0"),
        ({"seed": -1}, "seed: is -1"),
        ({"threads": 0}, "threads: is 0"),
    ],
)
def test_refusals_of_max_load(core: Core, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hf.max_load(POOL, LOAD, **({"sla": Sla(percentile=99, latency_ms=25)} | options))
    assert core.calls == []
