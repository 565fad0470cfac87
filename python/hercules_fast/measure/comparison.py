"""One load, predicted and run: what the model says of it, the arrivals that it is tried with, and how the two agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hercules_fast import _core
from hercules_fast.measure.rehearsal import Rehearsal, busy_s
from hercules_fast.measure.replaying import replay
from hercules_fast.queueing import Queries, System, Trace, simulate

if TYPE_CHECKING:
    from hercules_fast.measure.load import LoadRun

__all__ = ["WARMUP", "Expected", "LoadPoint", "compare", "expect", "percentiles_ms"]

WARMUP = 0.1
"""Share of the queries dropped from the front of a run, since it starts empty."""
TAIL_QUERIES = 10
"""Queries that must lie beyond a percentile before it is judged; the simulator's rule."""
LATE_S = 50e-6
"""A start later than this was held up: as for the gaps of the noise probe."""
STRETCHES = 30
"""Most stretches of a run whose speeds are compared."""
STRETCH_PARTS = 100
"""Fewest services in one: their own spread is then a few per cent of its speed."""
SPEED_LIMIT = 0.10
"""Most that services of one stretch may be faster or slower than those of the whole run: 0.02 is seen on a quiet
machine, 0.1 to 0.3 where others take caches and memory for a second."""
SHORT_RUNS = (40, 200)
"""Fewest and most replications behind the band of chance: 40 have one beyond either end of a 95 % band."""
SIMULATED_QUERIES = 2_000_000
"""Of all replications together, unless the fewest of them are more."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Expected:
    """What the model says of a load. Tuples run over ``percentiles``."""

    qps: float
    percentiles: tuple[float, ...]
    model_ms: tuple[float, ...] | None
    """Of a long simulation with arrivals of its own; None where the model falls behind."""
    chance_ms: tuple[tuple[float, float], ...]
    """Where 95 % of the model's own runs of this length lie."""
    own_ms: tuple[float, ...]
    """The model on the arrivals of the run."""
    own_busy_s: float
    """Seconds of service of all threads there, the whole run."""
    trace: Trace
    """The arrivals of the run: of the replications, the one whose percentiles and rate are nearest to the long
    simulation's, so that the run is a typical one. Chosen before anything is run."""


def expect(
    system: System,
    arrivals: Queries,
    queries: int,
    *,
    percentiles: Sequence[float],
    seed: int = 0,
    trace: Trace | None = None,
) -> Expected:
    """Simulate a load at length and many times at the length of a run of ``queries``, and draw the run's arrivals.

    ``trace``: those of the run, where it has them already.
    """
    percentiles = tuple(map(float, percentiles))
    options: dict[str, Any] = {"seed": seed, "allow_unstable": True, "threads": 1}  # none stays beside the run
    long = simulate(system, arrivals, percentiles=percentiles, **options)
    fewest, most = SHORT_RUNS
    runs = min(max(SIMULATED_QUERIES // queries, fewest), most)
    told, pmf = arrivals.to_core(), arrivals.size_pmf()
    drawn = [_core.draw_queries(told, pmf, float(arrivals.qps), queries, seed, k, runs) for k in range(runs)]
    arrival_s, sizes = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
    options |= {"warmup": 0, "percentiles": (50.0,), "keep_latencies": True}
    many = Trace(arrival_s=arrival_s, sizes=sizes, starts=np.arange(0, runs * queries, queries))
    latencies_ms = simulate(system, many, **options).latencies_ms
    assert latencies_ms is not None
    found = percentiles_ms(latencies_ms.reshape(runs, queries) * 1e-3, percentiles)
    keeps_up = long.stable and arrivals.qps < long.bottleneck_qps
    target = np.array(long.latency_ms) if keeps_up else np.median(found, axis=0)
    if trace is None:
        rates = np.array([queries / arrival_s[-1] for arrival_s, _ in drawn])
        off = np.column_stack([found / target, rates / arrivals.qps])
        typical = int(np.argmin(np.nanmax(np.abs(np.log(off)), axis=1)))
        trace = Trace(arrival_s=drawn[typical][0], sizes=drawn[typical][1])
    own = simulate(system, trace, **options)
    assert own.latencies_ms is not None
    low, high = np.percentile(found, (2.5, 97.5), axis=0)
    return Expected(
        qps=float(arrivals.qps),
        percentiles=percentiles,
        model_ms=long.latency_ms if keeps_up else None,
        chance_ms=tuple(zip(low.tolist(), high.tolist(), strict=True)),
        own_ms=_floats(percentiles_ms(own.latencies_ms * 1e-3, percentiles)),
        own_busy_s=sum(busy_s(system, own)),
        trace=trace,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPoint:
    """One load that was run, beside what was predicted for it. Tuples run over ``percentiles``; latencies from arrival.

    A figure of fewer than ten queries beyond its percentile is NaN; of queries that did not end, infinite.
    """

    share: float
    """Of the predicted max load."""
    qps: float
    """Load of the laws; the run's own arrivals came at ``offered_qps``."""
    offered_qps: float
    throughput_qps: float
    """Queries that ended, per second."""
    queries: int
    unfinished: int
    """Queries that had not ended when the run's time was over."""
    seconds: float
    percentiles: tuple[float, ...]
    measured_ms: tuple[float, ...]
    replay_ms: tuple[float, ...] | None
    """The simulator with this run's own service times; None where the run did not end."""
    model_ms: tuple[float, ...] | None
    """The service model with fresh arrivals, a long simulation; None where it falls behind."""
    own_ms: tuple[float, ...]
    """The service model with the arrivals of this run."""
    chance_ms: tuple[tuple[float, float], ...]
    """95 % band: where the model's own runs of this length lie."""
    service_ratio: float
    """Seconds of service in this run over those of the service model with the same arrivals."""
    utilisation: float
    """Busy share of the busiest pool."""
    dispatch_lag_us: tuple[float, float]
    """How much later than scheduled the generator handed a query in, p50 and p99; part of the latency."""
    handover_us: tuple[float, float]
    """What a query took beyond its replay, p50 and p99: generator's lag, waking threads, passing results on."""
    lost_share: float
    """Share of the run's time that the machine took away."""
    speed_change: float
    """Seconds of service in the stretch of the run that differs most, over what they are in the whole run, less 1."""
    certified: bool
    """Whether the run's noise gate passed, little time lost at a steady speed; else the run shows nothing."""
    cause: str
    """Why not, in words."""
    rehearsals: tuple[Rehearsal, ...] = ()
    """Before the run and after it, at its load; the service model is half-way between them."""
    rehearsal_cause: str = ""
    """Why the service model is not certified here, in words; empty where it is."""

    @property
    def counts_for_model(self) -> bool:
        """Whether the gates of the run, and of the rehearsals beside it, passed."""
        return self.certified and not self.rehearsal_cause

    @property
    def replay_error(self) -> tuple[float, ...] | None:
        """Replayed over measured, less 1."""
        return _errors(self.replay_ms, self.measured_ms)

    @property
    def model_error(self) -> tuple[float, ...] | None:
        """The long simulation over measured, less 1."""
        return _errors(self.model_ms, self.measured_ms)

    @property
    def own_error(self) -> tuple[float, ...] | None:
        """The model on the run's arrivals over measured, less 1."""
        return _errors(self.own_ms, self.measured_ms)

    @property
    def within_chance(self) -> tuple[bool, ...]:
        """Whether the measured figure lies where the model's own runs of this length do; true of an unknown one."""
        pairs = zip(self.measured_ms, self.chance_ms, strict=True)
        return tuple(not (x < low or x > high) for x, (low, high) in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        errors = {name: getattr(self, name) for name in ("replay_error", "model_error", "own_error", "within_chance")}
        return {**asdict(self), **errors}


def compare(
    run: LoadRun,
    expected: Expected,
    *,
    share: float,
    buffer: int | None = None,
    lost_share_limit: float,
    polls: bool = False,
) -> LoadPoint:
    """Lay a run of ``expected.trace`` beside what was expected; ``share`` is its load over the predicted max load.

    ``buffer``: waiting places of each pool after the first. ``polls``: idle threads did, so late starts are lost time.
    """
    percentiles = expected.percentiles
    replayed, handover_us = None, (math.nan, math.nan)
    if run.complete:
        alone_s = replay(run, buffer=buffer)
        replayed = _floats(percentiles_ms(alone_s, percentiles))
        p50, p99 = np.percentile(run.latency_s - alone_s, (50, 99)) * 1e6
        handover_us = (float(p50), float(p99))
    busy_s = float(np.nansum(run.service_s()))
    lost_share = share_lost(run, polls=polls)
    change = speed_change(run)
    causes = []
    if lost_share > lost_share_limit:
        causes.append(f"{lost_share:.2%} of the run's time was lost to others; allowed are {lost_share_limit:.0%}")
    if abs(change) > SPEED_LIMIT:
        causes.append(
            f"for a while the same services took {1 + change:.2f} times as long as in the whole run; allowed is "
            f"{1 - SPEED_LIMIT:g} to {1 + SPEED_LIMIT:g}"
        )
    return LoadPoint(
        share=share,
        qps=expected.qps,
        offered_qps=run.offered_qps,
        throughput_qps=run.throughput_qps,
        queries=len(run.arrival_s),
        unfinished=int(run.unfinished),
        seconds=run.duration_s,
        percentiles=percentiles,
        measured_ms=_floats(percentiles_ms(run.latency_s, percentiles)),
        replay_ms=replayed,
        model_ms=expected.model_ms,
        own_ms=expected.own_ms,
        chance_ms=expected.chance_ms,
        service_ratio=busy_s / expected.own_busy_s if run.complete else math.nan,
        utilisation=float(max(run.utilisation())),
        dispatch_lag_us=(run.dispatch_lag_us(50.0), run.dispatch_lag_us(99.0)),
        handover_us=handover_us,
        lost_share=lost_share,
        speed_change=change,
        certified=not causes,
        cause="; ".join(causes),
    )


def share_lost(run: LoadRun, *, polls: bool) -> float:
    """Share of a run's time that the machine took away; late starts of threads that poll are part of it."""
    return float(max(run.lost_share, late_share(run) if polls else 0.0))


def late_share(run: LoadRun) -> float:
    """Share of the first pool's time in which a thread that was free, and polled, did not start what stood in line.

    Starts up to 50 us late do not count. Only of a run with one pool; 0 otherwise.
    """
    if len(run.pools) != 1:
        return 0.0
    ready_s = (run.arrival_s + run.dispatch_lag_s)[run.part_query]
    start_s, end_s, thread = run.start_s[0], run.end_s[0], run.thread[0]
    for number in range(run.threads[0]):
        own = np.flatnonzero(thread == number)
        ready_s[own[1:]] = np.maximum(ready_s[own[1:]], end_s[own[:-1]])
    late_s = start_s - ready_s
    return float(late_s[late_s > LATE_S].sum() / (run.threads[0] * run.duration_s))


def speed_change(run: LoadRun) -> float:
    """How services of the stretch of ``run`` that differs most compare with those of the whole run, less 1.

    Others on a host slow caches and memory down for a second or two without taking a core. A service is laid beside the
    median of the run's own services of such a size, so that a wrong model of them is no excuse. 0 where services are
    too few to tell.
    """
    found = [0.0]
    for start_s, service_s in zip(run.start_s, run.service_s(), strict=True):
        ended = np.flatnonzero(~np.isnan(service_s))
        order = ended[np.argsort(start_s[ended], kind="stable")]
        stretches = min(len(order) // STRETCH_PARTS, STRETCHES)
        if stretches < 3:
            continue
        items, seconds = run.part_items[order], service_s[order]
        by_size = np.array_split(np.argsort(items, kind="stable"), stretches)
        sizes = [items[group].mean() for group in by_size]
        usual_s = np.interp(items, sizes, [np.median(seconds[group]) for group in by_size])
        places = np.array_split(np.arange(len(order)), stretches)
        speeds = np.array([seconds[own].sum() / usual_s[own].sum() for own in places])
        found.append(float(max(speeds / np.median(speeds) - 1.0, key=abs)))
    return max(found, key=abs)


def percentiles_ms(latency_s: Floats, percentiles: Sequence[float]) -> Floats:
    """Order statistics of latencies [..., N] in seconds, a tenth dropped from the front; milliseconds [..., P].

    The smallest x such that at least that share of the queries took x or less; queries that did not end (NaN) took
    for ever. NaN where fewer than ten queries lie beyond a percentile.
    """
    kept = latency_s[..., int(WARMUP * latency_s.shape[-1]) :]
    ordered = np.sort(np.where(np.isnan(kept), np.inf, kept), axis=-1) * 1e3
    count = ordered.shape[-1]
    found = np.full((*ordered.shape[:-1], len(percentiles)), np.nan)
    for k, percentile in enumerate(percentiles):
        if count * min(percentile, 100.0 - percentile) / 100.0 >= TAIL_QUERIES - 1e-6:
            found[..., k] = ordered[..., math.ceil(percentile / 100.0 * count - 1e-9) - 1]
    return found


def _errors(simulated: tuple[float, ...] | None, measured: tuple[float, ...]) -> tuple[float, ...] | None:
    if simulated is None:
        return None
    return tuple(s / m - 1.0 for s, m in zip(simulated, measured, strict=True))


def _floats(values: Floats) -> tuple[float, ...]:
    return tuple(map(float, values))
