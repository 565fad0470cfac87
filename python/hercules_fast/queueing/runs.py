"""Simulate a system under a load, or many in one call of the core."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hercules_fast import _core
from hercules_fast.descriptors import Bound
from hercules_fast.errors import DTypeError, InputError
from hercules_fast.queueing.checks import Checks, as_tuple
from hercules_fast.queueing.results import MaxLoadResult, SimulationResult, StationResult
from hercules_fast.queueing.sources import Queries, Source, Trace
from hercules_fast.queueing.systems import System
from hercules_fast.traffic import Sla

__all__ = ["Engine", "load_curve", "max_load", "simulate", "sweep"]

Engine = Literal["auto", "recursion", "events"]

QUERIES = 1_000_000
"""Length of a run where nothing else is said."""
MAX_QUERIES = 2**31
"""Where a run for a precision ends, unless something else is said."""
MOST_QUERIES = 2**40
MAX_THREADS = 1024
TAIL_QUERIES = 10
"""Queries that must lie beyond a percentile before it is worth printing; the core has the same number."""
_PERCENT = Bound(0.0, 100.0, low_open=True, high_open=True)
_PRECISION = Bound(1e-5, 0.5)
_SHARED = 9
"""Arguments of a run that a sweep gives for each: system to seed."""


def simulate(
    system: System,
    arrivals: Source,
    *,
    queries: int | None = None,
    duration_s: float | None = None,
    precision: float | None = None,
    seed: int = 0,
    warmup: int | None = None,
    percentiles: Sequence[float] = (50.0, 95.0, 99.0),
    threads: int | None = None,
    keep_latencies: bool = False,
    keep_trace: bool = False,
    station_waits: bool = False,
    engine: Engine = "auto",
    allow_unstable: bool = False,
    max_queries: int = MAX_QUERIES,
) -> SimulationResult:
    """Simulate queries of ``arrivals`` in ``system``. Memory does not grow with their number unless they are kept.

    The same seed gives the same queries (gaps scaled by the rate) to every system, and the same bytes for any number of
    threads and any instruction set.

    Args:
        system: what serves.
        arrivals: :class:`Queries` at a rate, or a :class:`Trace`, which is always replayed as a whole.
        queries: how many queries (default: 1,000,000); or
        duration_s: as many as arrive in this time on average; or
        precision: as many as it takes, at most ``max_queries``, until the 95 % half-width of the highest percentile is
            within this share of its value: a pilot run, then runs of the projected length until one holds.
        seed: 0 <= seed < 2**63.
        warmup: queries dropped from the front of each segment; None: a rule that depends on the job only.
        percentiles: in percent, between 0 and 100.
        threads: to work with, 1 to 1024; None: all.
        keep_latencies: also return every latency.
        keep_trace: also return the queries, to be replayed.
        station_waits: also return percentiles of the waits at each station.
        engine: ``recursion`` for pools and tandems, ``events`` for everything, ``auto`` for the faster that fits.
        allow_unstable: return figures of a system whose backlog grows, with ``stable=False``. They depend on the length
            of the run. A system with a ``capacity`` or ``drop_after_s`` may be overloaded without it.

    Raises:
        InputError: an argument is outside what is allowed; too few queries for a percentile (the message says how many
            are needed); or the load is more than the system can carry (the message names the utilisation).
    """
    job = _Job(
        system=system,
        source=arrivals,
        seed=seed,
        warmup=warmup,
        percentiles=percentiles,
        engine=engine,
        allow_unstable=allow_unstable,
        keep_latencies=keep_latencies,
        keep_trace=keep_trace,
        station_waits=station_waits,
    )
    _check_threads(threads)
    if precision is None:
        n = _length(job, queries, duration_s)
        return job.result(_core.simulate_system(*job.arguments(n, threads)))
    if isinstance(arrivals, Trace) or queries is not None or duration_s is not None:
        raise InputError("precision: is given; allowed is one of queries, duration_s and precision, none with a Trace")
    checks = Checks("simulation")
    checks.number("precision", precision, _PRECISION)
    checks.whole("max_queries", max_queries, 1, MOST_QUERIES)
    checks.done()
    n = min(max_queries, _pilot(job.percentiles))
    while True:
        result = job.result(_core.simulate_system(*job.arguments(n, threads)))
        top = int(np.argmax(result.percentiles))
        missed = result.half_width_ms[top] / result.latency_ms[top] / precision
        if missed <= 1.0 or n == max_queries:
            return result
        n = min(max_queries, math.ceil(n * (4.0 if math.isnan(missed) else 1.2 * missed * missed)))


def sweep(
    systems: System | Sequence[System],
    arrivals: Source | Sequence[Source],
    *,
    queries: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    warmup: int | None = None,
    percentiles: Sequence[float] = (50.0, 95.0, 99.0),
    threads: int | None = None,
    engine: Engine = "auto",
    allow_unstable: bool = False,
) -> list[SimulationResult]:
    """Simulate many systems, or one system under many loads, or pairs of both, in one call on all cores.

    All see the same random numbers, so that differences between them are far better known than levels.

    Args:
        systems, arrivals: one, or as many as of the other.

    The other arguments and the errors are those of :func:`simulate`.
    """
    for name, given, one in (("systems", systems, System), ("arrivals", arrivals, Queries | Trace)):
        if not (isinstance(given, one) or _is_list(given)):
            raise DTypeError(f"{name}: is {type(given).__name__}; allowed is one, or a sequence")
    left = [systems] if isinstance(systems, System) else list(systems)
    right = [arrivals] if isinstance(arrivals, Queries | Trace) else list(arrivals)
    count = max(len(left), len(right))
    if not left or not right or {len(left), len(right)} - {1, count}:
        raise InputError(f"arrivals: has {len(right)} entries for {len(left)} systems; allowed is one, or as many")
    pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
    _check_threads(threads)
    jobs = [
        _Job(
            system=system,
            source=source,
            seed=seed,
            warmup=warmup,
            percentiles=percentiles,
            engine=engine,
            allow_unstable=allow_unstable,
        )
        for system, source in pairs
    ]
    calls = [job.arguments(_length(job, queries, duration_s))[:_SHARED] for job in jobs]
    answers = _core.sweep_systems(calls, threads, engine)
    return [job.result(found) for job, found in zip(jobs, answers, strict=True)]


def max_load(
    system: System,
    arrivals: Queries,
    *,
    sla: Sla | Sequence[Sla],
    utilisation_cap: float = 0.95,
    precision: float = 0.003,
    loss: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    max_queries: int = MAX_QUERIES,
) -> MaxLoadResult:
    """Find the highest load that meets every SLA: the last crossing from pass to fail on a grid of loads, closed in on.

    Every load sees the same queries, so that only the rate differs; runs grow longer as it comes nearer, until
    the 95 % interval of the answer is as narrow as asked for. A load passes if every percentile holds, no more
    than ``loss`` of the queries is lost, the backlog does not grow, and the load is at most ``utilisation_cap`` of the
    bottleneck.

    Args:
        system: what serves.
        arrivals: their laws; ``qps`` does not matter.
        sla: one or more.
        utilisation_cap: 0.001 or more, below 1.
        precision: relative half-width of the answer's 95 % interval, 1e-5 to 0.5.
        loss: largest share of refused and dropped queries, from 0, below 1.
        seed, threads: as in :func:`simulate`.
        max_queries: most queries of one probe; where they end the search, ``interval_qps`` tells.

    Raises:
        InputError: an argument is outside what is allowed, or ``max_queries`` too few for a percentile.
    """
    if not isinstance(system, System):
        raise DTypeError(f"system: is {type(system).__name__}; allowed is a System (System.from_table makes one)")
    if not isinstance(arrivals, Queries):
        raise DTypeError(f"arrivals: is {type(arrivals).__name__}; allowed is Queries")
    if not (isinstance(sla, Sla) or _is_list(sla)):
        raise InputError(f"sla: is {sla!r}; allowed is an Sla, or a sequence of them")
    slas = (sla,) if isinstance(sla, Sla) else tuple(sla)
    checks = Checks("max load")
    checks.need(bool(slas) and all(isinstance(s, Sla) for s in slas), "sla", slas, "at least one Sla")
    checks.number("utilisation_cap", utilisation_cap, Bound(1e-3, 1.0, high_open=True))
    checks.number("precision", precision, _PRECISION)
    checks.number("loss", loss, Bound(0.0, 1.0, high_open=True))
    checks.whole("seed", seed, 0, 2**63 - 1)
    checks.whole("max_queries", max_queries, 1, MOST_QUERIES)
    checks.done()
    _check_threads(threads)
    found = _core.max_load_system(
        system.to_core(),
        arrivals.to_core(),
        arrivals.size_pmf(),
        [(s.percentile / 100.0, s.latency_ms / 1e3) for s in slas],
        utilisation_cap,
        precision,
        seed,
        threads,
        max_queries,
        loss,
    )
    target, run = found["limit_target"], found["run"]
    unknown = np.full(len(slas), math.nan)
    qps = float(found["qps"])
    return MaxLoadResult(
        qps=qps,
        interval_qps=(float(found["qps_low"]), float(found["qps_high"])),
        limit=found["limit"] if target is None else f"{found['limit']}: {slas[target]}",
        bound_qps=found["bound_qps"],
        margin=found["collapse_qps"] / qps - 1.0 if qps > 0.0 else math.nan,
        slas=slas,
        latency_ms=_milliseconds(run["percentiles_s"] if run else unknown),
        half_width_ms=_milliseconds(run["half_width_s"] if run else unknown),
        unloaded_ms=_milliseconds(found["unloaded_s"]),
        probes=found["probes"],
        simulated_queries=found["simulated_queries"],
        seed=seed,
        random_stream_version=int(_core.build_info()["random_stream_version"]),
    )


def load_curve(
    system: System, arrivals: Queries, points: int, *, cap: float = 0.95, **options: Any
) -> list[SimulationResult]:
    """Simulate ``points`` loads, evenly spaced up to ``cap`` of the bottleneck; ``arrivals.qps`` does not matter.

    A load at which the backlog grows, since stations block each other say, is returned with ``stable=False``. The other
    arguments and the errors are those of :func:`sweep`.
    """
    checks = Checks("load curve")
    checks.whole("points", points, 1, 10_000)
    checks.number("cap", cap, Bound(0.0, 1.0, low_open=True, high_open=True))
    checks.done()
    top = cap * float(_core.station_capacities(system.to_core(), arrivals.size_pmf()).min())
    loads = [replace(arrivals, qps=top * (k + 1) / points) for k in range(points)]
    return sweep(system, loads, allow_unstable=True, **options)


@dataclass(kw_only=True, slots=True)
class _Job:
    """One simulation, checked."""

    system: System
    source: Source
    seed: int
    warmup: int | None
    percentiles: Sequence[float]
    engine: Engine
    allow_unstable: bool
    keep_latencies: bool = False
    keep_trace: bool = False
    station_waits: bool = False
    pmf: npt.NDArray[np.float64] = field(init=False)
    bottleneck_qps: float = field(init=False)

    def __post_init__(self) -> None:
        system, source = self.system, self.source
        if not isinstance(system, System):
            raise DTypeError(f"system: is {type(system).__name__}; allowed is a System (System.from_table makes one)")
        if not isinstance(source, Queries | Trace):
            raise DTypeError(f"arrivals: is {type(source).__name__}; allowed is Queries or a Trace")
        if not _is_list(self.percentiles) or not len(self.percentiles):
            raise InputError(f"percentiles: is {self.percentiles!r}; allowed is a sequence of at least one number")
        as_tuple(self, "percentiles")
        checks = Checks("simulation")
        checks.whole("seed", self.seed, 0, 2**63 - 1)
        checks.whole("warmup", self.warmup, 0, optional=True)
        checks.numbers("percentiles", self.percentiles, _PERCENT)
        checks.choice("engine", self.engine, ("auto", "recursion", "events"))
        checks.done()
        self.pmf = source.size_pmf()
        capacities = _core.station_capacities(system.to_core(), self.pmf)
        self.bottleneck_qps = float(capacities.min())
        if not (self.allow_unstable or system.capacity is not None or system.drop_after_s is not None):
            _check_load(system, source.qps, capacities)

    def arguments(self, queries: int, threads: int | None = None) -> tuple[Any, ...]:
        """What the core takes."""
        if self.warmup is not None and self.warmup >= queries:
            raise InputError(f"warmup: is {self.warmup}; allowed is 0 <= warmup < queries = {queries}")
        most = queries - (self.warmup or 0)
        for k, percentile in enumerate(self.percentiles):
            if most < _least_queries(percentile):
                raise _too_few(k, percentile, most)
        return (
            *(self.system.to_core(), self.source.to_core(), self.pmf),
            *(None if isinstance(self.source, Trace) else float(self.source.qps), queries, self.warmup, None),
            *([p / 100.0 for p in self.percentiles], self.seed, threads),
            *(self.engine, self.keep_latencies, self.station_waits),
        )

    def trace(self, queries: int, segments: int) -> Trace:
        """The queries of a run of so many segments, all of one length."""
        if isinstance(self.source, Trace):
            return self.source
        told, each = self.source.to_core(), queries // segments
        parts = [
            _core.draw_queries(told, self.pmf, self.source.qps, each, self.seed, segment, segments)
            for segment in range(segments)
        ]
        arrival_s, sizes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Trace(arrival_s=arrival_s, sizes=sizes, starts=np.arange(0, queries, each))

    def result(self, found: Mapping[str, Any]) -> SimulationResult:
        """The core's answer in the units of the face; refused where it has no answer."""
        if found["falls_behind"] and not self.allow_unstable:
            raise InputError(
                f"qps: is {self.source.qps:g}; the system falls behind by {found['growth']:.1%} of elapsed time, so "
                "the latencies have no limit; lower the load, or set allow_unstable=True"
            )
        for k, percentile in enumerate(self.percentiles):
            if math.isnan(found["percentiles_s"][k]):
                raise _too_few(k, percentile, found["counted"])
        latencies = found["latencies_s"] if self.keep_latencies else None
        if latencies is not None:
            np.multiply(latencies, 1e3, out=latencies)  # in place: the array is ours, and may be most of the memory
        stations = zip(self.system.station_names, found["stations"], strict=True)
        return SimulationResult(
            qps=float(found["offered_qps"]),
            percentiles=tuple(map(float, self.percentiles)),
            latency_ms=_milliseconds(found["percentiles_s"]),
            half_width_ms=_milliseconds(found["half_width_s"]),
            effective_samples=tuple(map(float, found["effective_samples"])),
            exact=self.keep_latencies,
            mean_latency_ms=1e3 * found["mean_latency_s"],
            mean_half_width_ms=1e3 * found["mean_half_width_s"],
            throughput_qps=found["throughput_qps"],
            bottleneck_qps=self.bottleneck_qps,
            counted=found["counted"],
            refused=found["refused"],
            dropped=found["dropped"],
            stable=not found["falls_behind"],
            backlog_growth=found["growth"],
            mean_in_system=found["mean_in_system"],
            stations=tuple(_station(name, s, self.station_waits) for name, s in stations),
            queries=found["queries"],
            warmup=found["warmup"],
            warmup_cut=found["warmup_cut"],
            segments=found["segments"],
            batches=found["batches"],
            interval_queries=found["interval_queries"],
            engine=found["engine"],
            seed=self.seed,
            random_stream_version=int(_core.build_info()["random_stream_version"]),
            latencies_ms=latencies,
            trace=self.trace(found["queries"], found["segments"]) if self.keep_trace else None,
        )


def _is_list(value: object) -> bool:
    """Whether ``value`` is a sequence or a one-dimensional array."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, str)


def _too_few(k: int, percentile: float, counted: int) -> InputError:
    return InputError(
        f"percentiles[{k}]: is {percentile:g}, but only {counted} queries complete after the warm-up; at least "
        f"{_least_queries(percentile)} are needed"
    )


def _least_queries(percentile: float) -> int:
    return math.ceil(TAIL_QUERIES / (min(percentile, 100.0 - percentile) / 100.0) - 1e-6)


def _check_load(system: System, qps: float, capacities: npt.NDArray[np.float64]) -> None:
    top = capacities.min()
    if qps >= top:
        name = system.station_names[int(np.argmin(capacities))]
        raise InputError(
            f"qps: is {qps:g}, a utilisation of {qps / top:.1%} at {name!r}; allowed is less than the "
            f"bottleneck, {top:.6g} queries per second, or allow_unstable=True"
        )


def _length(job: _Job, queries: int | None, duration_s: float | None) -> int:
    """Number of queries of a run without target precision."""
    if queries is not None and duration_s is not None:
        raise InputError("queries, duration_s: both are given; allowed is one of them")
    if isinstance(job.source, Trace):
        if queries is not None or duration_s is not None:
            raise InputError("queries: a Trace is replayed as a whole; leave queries and duration_s out")
        return job.source.queries
    checks = Checks("simulation")
    if duration_s is None:
        queries = QUERIES if queries is None else queries
        checks.whole("queries", queries, 1, MOST_QUERIES)
        checks.done()
        return queries
    checks.number("duration_s", duration_s, Bound(0.0, MOST_QUERIES / job.source.qps, low_open=True))
    checks.done()
    return math.ceil(duration_s * job.source.qps)


def _pilot(percentiles: Sequence[float]) -> int:
    """Queries that give a first interval: 20 batches of 100 queries beyond the highest percentile each."""
    return max(100_000, math.ceil(2000.0 / (1.0 - max(percentiles) / 100.0) - 1e-3))


def _check_threads(threads: int | None) -> None:
    checks = Checks("simulation")
    checks.whole("threads", threads, 1, MAX_THREADS, optional=True)
    checks.done()


def _milliseconds(seconds: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(1e3 * float(s) for s in seconds)


def _station(name: str, found: Mapping[str, Any], waits: bool) -> StationResult:
    same = ("utilisation", "blocked_share", "mean_queue", "executions_per_query", "items_per_execution", "mean_busy")
    return StationResult(
        name=name,
        mean_wait_ms=1e3 * found["mean_wait_s"],
        wait_ms=_milliseconds(found["wait_percentiles_s"]) if waits else None,
        **{field: float(found[field]) for field in same},
    )
