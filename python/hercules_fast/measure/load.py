"""Open-loop load on pools of threads on this machine: a schedule drawn ahead, latency from the scheduled arrival."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hercules_fast import _core, host
from hercules_fast.descriptors import Bound
from hercules_fast.errors import ConfigError, ExecutorError, Fault, InputError, InterruptedRun
from hercules_fast.queueing import Queries, Source, Trace
from hercules_fast.queueing.checks import Checks, as_tuple, is_whole
from hercules_fast.tables import read_arrays, write_atomically

__all__ = ["LoadRun", "Pool", "Server", "Spin", "Worker", "run_load"]

SCHEMA = "hercules_fast.load_run/1"
MAX_BYTES = 1 << 36
MAX_PARTS = 1 << 27
"""Most services that one run records: parts of all queries, in all pools."""
SERVICE_BYTES = 200
"""Memory that the record of a service takes at the most, copies and all (measured)."""
SECONDS = Bound(0.0, 1e6)
MAX_CPU = 8191

Worker: TypeAlias = Callable[[int, int, Any], object]
"""``worker(query, items, payload)``: one service. ``payload``: what the pool before returned for this part, or None."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spin:
    """A service that keeps its core busy for ``base_s + per_item_s * items`` seconds, without the interpreter.

    Raises:
        ConfigError: a time is not a number from 0 to 1e6 seconds.
    """

    base_s: float = 0.0
    per_item_s: float = 0.0

    def __post_init__(self) -> None:
        checks = Checks("spin")
        checks.number("base_s", self.base_s, SECONDS)
        checks.number("per_item_s", self.per_item_s, SECONDS)
        checks.done()


@dataclass(frozen=True, slots=True)
class Pool:
    """One station of a run: threads, one per worker, that serve one line, first come, first served.

    Raises:
        ConfigError: with every fault, each with its field, value and what is allowed.
    """

    name: str
    workers: tuple[Worker | Spin, ...]
    """Each is used by one thread only."""
    cpus: tuple[tuple[int, ...] | None, ...] | None = None
    """CPUs of each worker's thread, None: wherever the system puts it; None for the whole: none is pinned."""
    buffer: int | None = None
    """Waiting places; None: no limit. A thread of the pool before whose result finds no place keeps it and stays
    blocked. Not for the first pool."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", tuple(self.workers))
        as_tuple(self, "cpus")
        checks = Checks("pool")
        checks.need(isinstance(self.name, str) and bool(self.name), "name", self.name, "text")
        checks.need(1 <= len(self.workers) <= 1024, "workers", self.workers, "1 to 1024 workers")
        for i, worker in enumerate(self.workers):
            allowed = "a Spin, or a function of query, items and payload"
            checks.need(isinstance(worker, Spin) or callable(worker), f"workers[{i}]", worker, allowed)
        if self.cpus is not None:
            allowed = f"one entry per worker, {len(self.workers)}"
            checks.need(
                isinstance(self.cpus, tuple) and len(self.cpus) == len(self.workers), "cpus", self.cpus, allowed
            )
            for i, cpus in enumerate(self.cpus):
                holds = cpus is None or (
                    isinstance(cpus, tuple) and bool(cpus) and all(is_whole(c) and 0 <= c <= MAX_CPU for c in cpus)
                )
                checks.need(holds, f"cpus[{i}]", cpus, f"numbers of CPUs from 0 to {MAX_CPU}, or None")
        checks.whole("buffer", self.buffer, 0, optional=True)
        checks.done()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadRun:
    """What one run recorded. Times are seconds from the start of the run; arrays cannot be written.

    N queries, P parts (sub-batches) in the order of the line. What had not happened when the run ended is NaN, or -1.
    """

    arrival_s: _Floats
    """[N] Scheduled arrivals."""
    sizes: npt.NDArray[np.int64]
    """[N] Items of each query."""
    dispatch_lag_s: _Floats
    """[N] How much later than scheduled the generator put the query in line."""
    latency_s: _Floats
    """[N] Scheduled arrival to the end of the last part in the last pool."""
    part_query: npt.NDArray[np.int64]
    """[P] Query of each part."""
    part_items: npt.NDArray[np.int64]
    """[P] Items of each part."""
    start_s: _Floats
    """[pools, P] Start of service."""
    end_s: _Floats
    """[pools, P] End of service."""
    cpu_s: _Floats
    """[pools, P] CPU time of the thread during the service (not of helpers that it may have)."""
    thread: npt.NDArray[np.int32]
    """[pools, P] Which of the pool's workers served it."""
    preempted: npt.NDArray[np.bool_]
    """[pools, P] Whether the system took the core away from the thread during the service."""
    batch: int | None
    """Most items of a part; None: queries were not split."""
    pools: tuple[str, ...]
    """Names of the pools."""
    threads: tuple[int, ...]
    """Threads of each pool."""
    duration_s: float
    """Start of the run to the end of the last service, or to where it was given up."""
    complete: bool
    """Whether the whole schedule was played and every query ended."""
    steal_share: float | None
    """Share of the CPUs' time that the hypervisor gave to others; None where the system does not tell."""
    generator_lost_share: float | None
    """Share of the run in which the generator was kept from its CPU: late wakings, and gaps above 50 us while it spun.
    None where it had no CPU for itself."""
    notes: tuple[str, ...] = ()
    """What was asked for and could not be had, say a thread that could not be pinned."""

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            getattr(self, name).setflags(write=False)

    @property
    def unfinished(self) -> int:
        """Queries that had not ended when the run did."""
        return int(np.count_nonzero(np.isnan(self.latency_s)))

    @property
    def offered_qps(self) -> float:
        """Queries over the time to the last scheduled arrival; infinite where all arrive at the start."""
        last_s = float(self.arrival_s[-1])
        return len(self.arrival_s) / last_s if last_s > 0 else math.inf

    @property
    def throughput_qps(self) -> float:
        """Finished queries per second of the run."""
        return (len(self.latency_s) - self.unfinished) / self.duration_s if self.duration_s > 0 else math.nan

    def latency_ms(self, percentiles: Sequence[float] = (50.0, 95.0, 99.0), warmup: float = 0.1) -> tuple[float, ...]:
        """Latency at each percentile (in percent), in milliseconds.

        It is the smallest x such that at least that share of the queries took x or less; a query that had not ended
        counts as infinitely slow.

        Args:
            percentiles: above 0, to 100.
            warmup: share of the queries, the first, that is not counted.

        Raises:
            InputError: an argument is outside what is allowed.
        """
        if not 0.0 <= warmup < 1.0:
            raise InputError(f"warmup: is {warmup!r}; allowed is a share from 0 to below 1")
        counted = self.latency_s[int(warmup * len(self.latency_s)) :]
        return tuple(1e3 * x for x in _order_statistics(counted, percentiles))

    def dispatch_lag_us(self, percentile: float) -> float:
        """The generator's lag at ``percentile`` (in percent), in microseconds, of the queries that it put in line."""
        put = self.dispatch_lag_s[~np.isnan(self.dispatch_lag_s)]
        return 1e6 * _order_statistics(put, [percentile])[0]

    def service_s(self) -> _Floats:
        """[pools, P] Wall time of each service."""
        return self.end_s - self.start_s

    def utilisation(self) -> tuple[float, ...]:
        """Of each pool, share of its threads' time in service."""
        busy_s = np.nansum(self.service_s(), axis=1)
        return tuple(float(s / (m * self.duration_s)) for s, m in zip(busy_s, self.threads, strict=True))

    @property
    def lost_share(self) -> float:
        """Share of time that this run lost to others, the largest of what was seen.

        Of the services during which the core was taken away, wall time without CPU time, over the wall time of all
        services; what the hypervisor took; and how long a generator with a CPU of its own was kept
        from it.
        """
        wall_s = self.service_s()
        lost_s = np.where(self.preempted, wall_s - self.cpu_s, 0.0)
        total_s = float(np.nansum(wall_s))
        services = float(np.nansum(np.maximum(lost_s, 0.0))) / total_s if total_s > 0 else 0.0
        return max(services, self.steal_share or 0.0, self.generator_lost_share or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """The figures of the run as plain data for JSON, without the arrays; None where a figure is not finite."""
        p50, p95, p99 = map(_finite, self.latency_ms((50.0, 95.0, 99.0)))
        return {
            "queries": len(self.arrival_s),
            "parts": len(self.part_query),
            "batch": self.batch,
            "pools": [{"name": n, "threads": m} for n, m in zip(self.pools, self.threads, strict=True)],
            "offered_qps": _finite(self.offered_qps),
            "throughput_qps": _finite(self.throughput_qps),
            "duration_s": self.duration_s,
            "complete": self.complete,
            "unfinished": self.unfinished,
            "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
            "dispatch_lag_us": {f"p{p:g}": _finite(self.dispatch_lag_us(p)) for p in (50.0, 99.0)},
            "utilisation": list(self.utilisation()),
            "lost_share": self.lost_share,
            "steal_share": self.steal_share,
            "generator_lost_share": self.generator_lost_share,
            "notes": list(self.notes),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run to ``path`` (.npz with a JSON header, no pickle), all or nothing.

        Raises:
            OutputError: the file cannot be written; what stood there is untouched.
        """
        header = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _ARRAYS}
        text = json.dumps({"schema": SCHEMA, **header}, sort_keys=True).encode()
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(buffer, header=np.frombuffer(text, np.uint8), **arrays)
        write_atomically(Path(path), buffer.getbuffer())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LoadRun:
        """Read a run that :meth:`save` wrote.

        Raises:
            MissingFileError: there is no such file.
            ConfigError: the file holds no such run.
        """
        source = os.fspath(path)
        header, arrays = read_arrays(source, SCHEMA, _ARRAYS, MAX_BYTES)
        faults = list(_faults(header, arrays))
        if faults:
            raise ConfigError(source, faults)
        return cls(**header | {name: tuple(header[name]) for name in ("pools", "threads", "notes")} | arrays)


_SHAPES: Mapping[str, tuple[str, type]] = {
    "arrival_s": ("N", np.float64),
    "sizes": ("N", np.int64),
    "dispatch_lag_s": ("N", np.float64),
    "latency_s": ("N", np.float64),
    "part_query": ("P", np.int64),
    "part_items": ("P", np.int64),
    "start_s": ("pools, P", np.float64),
    "end_s": ("pools, P", np.float64),
    "cpu_s": ("pools, P", np.float64),
    "thread": ("pools, P", np.int32),
    "preempted": ("pools, P", np.bool_),
}
_ARRAYS = tuple(_SHAPES)
_KINDS: Mapping[str, tuple[type, ...]] = {
    "batch": (int, type(None)),
    "pools": (list,),
    "threads": (list,),
    "duration_s": (float,),
    "complete": (bool,),
    "steal_share": (float, type(None)),
    "generator_lost_share": (float, type(None)),
    "notes": (list,),
}


def _faults(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> list[Fault]:
    """What is wrong with a file's content."""
    names = {f.name for f in fields(LoadRun)} - set(_ARRAYS)
    if set(header) != names:
        return [Fault("header", f"has {sorted(header)}; allowed are {sorted(names)}")]
    wrong = [name for name, kinds in _KINDS.items() if not isinstance(header[name], kinds)]
    if wrong:
        return [Fault(name, f"is {header[name]!r}; allowed is what a load run writes") for name in wrong]
    n, parts, pools = arrays["arrival_s"].shape, arrays["part_query"].shape, header["pools"]
    if len(n) != 1 or len(parts) != 1 or not n[0] or len(header["threads"]) != len(pools):
        return [Fault("", "is not a load run: its arrays have no shape of queries, parts and pools")]
    shapes = {"N": n, "P": parts, "pools, P": (len(pools), *parts)}
    return [
        Fault(name, f"is {arrays[name].dtype} {arrays[name].shape}; allowed is {np.dtype(dtype)} {shapes[shape]}")
        for name, (shape, dtype) in _SHAPES.items()
        if arrays[name].dtype != dtype or arrays[name].shape != shapes[shape]
    ]


def run_load(
    pools: Sequence[Pool],
    source: Source,
    *,
    queries: int | None = None,
    duration_s: float | None = None,
    batch: int | None = None,
    seed: int = 0,
    generator_cpu: int | None = None,
    drain_s: float = 5.0,
    polls: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> LoadRun:
    """Put queries in line at the times of a schedule, whatever happens to them, and record what does.

    The schedule is drawn ahead, from the streams that the simulator uses: the same seed gives the same queries. A
    query of n items enters as ceil(n / batch) sub-batches, full ones first; threads of the first pool take them first
    come, first served, and hand them on to the next pool's line. Each worker has a thread of its own.

    Args:
        pools: the stations in order; two for an S-D pipeline.
        source: Laws at a rate, or a recorded trace of one part, with its cycles and its scale of rates.
        queries: how many; for a trace None is all of them.
        duration_s: seconds of schedule, instead of a number of queries.
        batch: most items of a sub-batch; None: queries are not split.
        seed: of the schedule.
        generator_cpu: CPU that the generator has for itself: it wakes 100 us before each arrival, spins, and counts
            late wakings and gaps above 50 us. None: it sleeps until each arrival.
        drain_s: seconds after the last scheduled arrival at which the run ends at the latest.
        polls: idle threads look at their line without end, instead of sleeping until they are woken: for threads that
            have their CPUs for themselves. Waking one takes some 50 us on a virtual machine.
        progress: called with (queries put in line, all queries).

    Raises:
        InputError: an argument is outside what is allowed.
        InterruptedRun: Ctrl-C; ``partial`` holds the run so far.
        ExecutorError: a worker did not return in time; its thread is left behind. ``partial`` holds the run.
        Exception: what a worker raised.
    """
    pools = tuple(pools)
    _check(pools, source, queries, duration_s, batch, seed, generator_cpu, drain_s, polls)
    arrival_s, sizes = _schedule(source, queries, duration_s, seed)
    _check_memory("queries", int((-(-sizes // (batch or sizes))).sum()) * len(pools))
    told = [_told(pool) for pool in pools]
    steal = _Steal(pools, generator_cpu)
    ended = _core.run_load(told, arrival_s, sizes, batch, generator_cpu, float(drain_s), progress, polls)
    return _recorded(pools, batch, steal, ended, arrival_s=arrival_s, sizes=sizes)


class Server:
    """Pools that serve the queries of another load generator, and record them as :func:`run_load` does.

    Use it as a context manager; when it closes it waits for what was submitted, and :attr:`run` holds the record. There
    the scheduled arrival of a query is the moment at which it was submitted.

    Args:
        pools: the stations in order.
        batch: most items of a sub-batch; None: queries are not split.
        done: called as ``done(query)`` on the thread that has just ended the last part of a query. The thread serves
            again when it has returned; the time that it takes is no part of any service.
        capacity: most sub-batches, of all queries together.
        drain_s: how long what was submitted is waited for, at the close.

    Raises:
        ConfigError: an argument is outside what is allowed.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        *,
        batch: int | None = None,
        done: Callable[[int], object] | None = None,
        capacity: int = 1_000_000,
        drain_s: float = 5.0,
    ):
        self._pools = tuple(pools)
        checks = Checks("server")
        _check_stations(checks, self._pools, batch, drain_s)
        checks.need(done is None or callable(done), "done", done, "a function of a query's number, or None")
        checks.whole("capacity", capacity, 1)
        checks.done()
        _check_memory("capacity", capacity * len(self._pools))
        self._batch, self._drain_s = batch, float(drain_s)
        self._steal = _Steal(self._pools)
        self._core = _core.LoadServer([_told(pool) for pool in self._pools], capacity, batch, done)
        self._closed = False
        self._run: LoadRun | None = None

    def submit(self, query: int, items: int) -> None:
        """Put a query of so many items in line, as arrived now. From any thread.

        Args:
            query: the number by which workers and ``done`` know it, 0 to 2**64 - 1.
            items: 1 to 1,000,000.

        Raises:
            InputError: ``items`` is outside what is allowed, the capacity is used up, or the server is closed.
        """
        self._core.submit(query, items)

    @property
    def run(self) -> LoadRun:
        """What was recorded.

        Raises:
            InputError: the server is not closed, or no query was submitted.
        """
        if self._run is None:
            raise InputError("server: is open or took no query; allowed is a closed one")
        return self._run

    def close(self) -> None:
        """Wait for what was submitted, and send the threads home. A second call does nothing.

        Raises:
            InterruptedRun: Ctrl-C; ``partial`` holds the record so far.
            ExecutorError: a worker did not return in time; ``partial`` holds the record.
            Exception: what a worker or ``done`` raised.
        """
        if self._closed:
            return
        self._closed = True
        found, stuck, interrupted = self._core.finish(self._drain_s)
        if len(found["arrival_s"]):
            queries = len(found["arrival_s"])
            sizes = np.bincount(found["part_query"], found["part_items"], queries).astype(np.int64)
            arrival_s = found["arrival_s"]
            ended = (found, stuck, interrupted)
            self._run = _recorded(self._pools, self._batch, self._steal, ended, arrival_s=arrival_s, sizes=sizes)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _told(pool: Pool) -> tuple[Any, ...]:
    """A pool as the core takes it."""
    workers = [(float(w.base_s), float(w.per_item_s)) if isinstance(w, Spin) else w for w in pool.workers]
    return workers, pool.cpus, pool.buffer


def _recorded(
    pools: Sequence[Pool],
    batch: int | None,
    steal: _Steal,
    ended: tuple[dict[str, Any], list[tuple[int, int]], bool],
    *,
    arrival_s: _Floats,
    sizes: npt.NDArray[np.int64],
) -> LoadRun:
    """What the core found, as a run; raised where it is no whole one."""
    found, stuck, interrupted = ended
    left = [f"thread {thread} of pool {pools[pool].name!r} did not return and is left behind" for pool, thread in stuck]
    run = LoadRun(
        **found
        | {
            "arrival_s": arrival_s,
            "sizes": sizes,
            "batch": batch,
            "pools": tuple(pool.name for pool in pools),
            "threads": tuple(len(pool.workers) for pool in pools),
            "complete": not (interrupted or np.isnan(found["latency_s"]).any()),
            "steal_share": steal.share(),
            "notes": (*found["notes"], *left),
        }
    )
    if interrupted:
        raise InterruptedRun("interrupted; partial holds the run so far", run)
    if stuck:
        raise ExecutorError(f"{'; '.join(left)}: no service may take 2 s longer than the run", run)
    return run


def _check(
    pools: tuple[Pool, ...],
    source: Source,
    queries: int | None,
    duration_s: float | None,
    batch: int | None,
    seed: int,
    generator_cpu: int | None,
    drain_s: float,
    polls: bool,
) -> None:
    checks = Checks("load")
    _check_stations(checks, pools, batch, drain_s)
    checks.need(isinstance(polls, bool), "polls", polls, "True or False")
    if checks.need(isinstance(source, Queries | Trace), "source", source, "a Queries or a Trace"):
        one = isinstance(source, Queries) or len(source.starts) == 1
        checks.need(one, "source.starts", getattr(source, "starts", None), "one part")
        either = (queries is None) != (duration_s is None)
        whole_trace = isinstance(source, Trace) and queries is None and duration_s is None
        allowed = "a number of queries or duration_s, not both" + (
            "" if isinstance(source, Queries) else ", or neither"
        )
        checks.need(either or whole_trace, "queries", queries, allowed)
        checks.whole("queries", queries, 1, MAX_PARTS, optional=True)
        if isinstance(source, Trace) and is_whole(queries):
            checks.need(queries <= source.queries, "queries", queries, f"at most the trace's {source.queries}")  # type: ignore[operator]
    if duration_s is not None:
        checks.number("duration_s", duration_s, Bound(1e-9, 1e6))
    checks.whole("seed", seed, 0, 2**63 - 1)
    checks.whole("generator_cpu", generator_cpu, 0, MAX_CPU, optional=True)
    checks.done()


def _check_memory(field: str, services: int) -> None:
    """Refuse more services than one run may have, or than there is memory to record."""
    if services > MAX_PARTS:
        raise InputError(f"{field}: make {services} services; allowed are {MAX_PARTS} in one run")
    needed, available = services * SERVICE_BYTES, host.available_memory_bytes()
    if needed > available:
        raise InputError(
            f"{field}: make {services} services, and their record {needed} bytes; available are {available}"
        )


def _check_stations(checks: Checks, pools: tuple[Pool, ...], batch: int | None, drain_s: float) -> None:
    if checks.need(1 <= len(pools) <= 16, "pools", pools, "1 to 16 pools"):
        for k, pool in enumerate(pools):
            checks.need(isinstance(pool, Pool), f"pools[{k}]", pool, "a Pool")
        buffer = getattr(pools[0], "buffer", None)
        checks.need(buffer is None, "pools[0].buffer", buffer, "None, nothing stands before the first pool")
    checks.whole("batch", batch, 1, optional=True)
    checks.number("drain_s", drain_s, SECONDS)


def _schedule(
    source: Source, queries: int | None, duration_s: float | None, seed: int
) -> tuple[_Floats, npt.NDArray[np.int64]]:
    """Arrivals and sizes: so many, or all of the first ``duration_s`` seconds."""

    def draw(count: int) -> tuple[_Floats, npt.NDArray[np.int64]]:
        qps = source.qps if isinstance(source, Queries) else None
        return _core.draw_queries(source.to_core(), source.size_pmf(), qps, count, seed)

    most = source.queries if isinstance(source, Trace) else MAX_PARTS
    if duration_s is None:
        return draw(queries if queries is not None else most)
    expected = min(source.qps * duration_s, float(most))
    if isinstance(source, Queries) and expected == most:
        raise _too_long(duration_s)
    count = min(most, int(expected + 4.0 * math.sqrt(expected)) + 16)
    while True:
        arrival_s, sizes = draw(count)
        if arrival_s[-1] > duration_s or count == most:
            break
        count = min(most, 2 * count)  # the same first queries, and more
    if arrival_s[-1] <= duration_s and isinstance(source, Queries):
        raise InputError(
            f"duration_s: is {duration_s}, of more than {MAX_PARTS} queries; allowed are as many in one run"
        )
    kept = int(np.searchsorted(arrival_s, duration_s, side="right"))
    if not kept:
        raise InputError(f"duration_s: is {duration_s}, and no query arrives in it; the first comes at {arrival_s[0]}")
    return arrival_s[:kept].copy(), sizes[:kept].copy()


def _too_long(duration_s: float) -> InputError:
    return InputError(f"duration_s: is {duration_s}, of more than {MAX_PARTS} queries; allowed are fewer")


class _Steal:
    """What the hypervisor takes, from here on, of the CPUs that a run may use."""

    def __init__(self, pools: Sequence[Pool], generator_cpu: int | None = None):
        bound = [cpus for pool in pools for cpus in pool.cpus or (None,)]
        own = () if generator_cpu is None else (generator_cpu,)
        anywhere = None in bound
        named = (*own, *(cpu for cpus in bound for cpu in cpus or ()))
        self._cpus = sorted(os.sched_getaffinity(0) if anywhere else set(named))
        self._before = host.steal_ticks(self._cpus)

    def share(self) -> float | None:
        """Share of their time; one tick of each CPU is left out, for they are coarse."""
        after = host.steal_ticks(self._cpus)
        if self._before is None or after is None:
            return None
        stolen, passed = after[0] - self._before[0], after[1] - self._before[1]
        return max(0, stolen - len(self._cpus)) / max(passed, 1)


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


def _order_statistics(values: _Floats, percentiles: Sequence[float]) -> list[float]:
    """The smallest value that at least each share of ``values`` does not exceed; NaN counts as infinite."""
    for k, p in enumerate(percentiles):
        if not 0.0 < p <= 100.0:
            raise InputError(f"percentiles[{k}]: is {p!r}; allowed is above 0 to 100")
    if not len(values):
        return [math.nan] * len(percentiles)
    ordered = np.sort(values)  # NaN last
    ordered[np.isnan(ordered)] = np.inf
    return [float(ordered[max(math.ceil(p / 100.0 * len(ordered)), 1) - 1]) for p in percentiles]
