"""Slow twin of the queueing simulator, in plain Python: one instant after the other.

At each instant all that ends now ends. Then comes the sweep: each station, from the first to the last, takes what the
one before holds; then each, from the first to the last, starts what it can; again and again until nothing moves. Then
queries arrive one by one, each followed by the same sweep. A batch that has waited long enough is launched by the
sweep: after the completions, before the arrivals.

Rules that are easily read in two ways:

- A thread that has finished is free only when the next station has taken its result.
- All results that came together are in line before a waiting time is looked at, so they can be one batch; a device
  launches as soon as it is full. Arrivals of one instant come one by one: without a waiting time, the first goes alone.
- A line of a pool has room while it is shorter than its waiting places and the idle threads together; the line of an
  idle device always has. A result that is cut again needs one place and enters with all its parts. The queries of a
  batch enter one by one, and the device is blocked until the last is taken.
- A query is late when it would start: for a fused station, when a launch is due. After it is dropped the rest of the
  line is looked at anew.
- Results of one instant move on in the order of (query, part), also those of a batch.

`simulate` takes the plain description of a system (a dict, as `_core.simulate_system` takes it) and one recorded run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Variate = Callable[[int, int], float]
"""(station number over all routes, index) -> draw of mean 1."""

PART = 1 << 44
"""Index of a draw in a pool: query + part * PART. In a fused station: number of the launch."""


@dataclass(eq=False)
class Job:
    """What stands in a line: a sub-batch, or a whole query (part 0)."""

    query: int
    part: int
    items: int
    entered: float


@dataclass(eq=False)
class Execution:
    """Jobs that one thread (or device) runs together; it is blocked until the next station has taken its results."""

    jobs: list[Job]
    start: float
    end: float
    left_s: float
    """Work left at `since`, in seconds of a thread that nobody slows down (dynamic rate only)."""
    since: float
    rate: float
    results: int = 0
    """Not yet taken."""
    gone: float = math.nan
    """When the thread was free again."""


@dataclass(eq=False)
class Station:
    number: int
    description: dict[str, Any]
    line: list[Job] = field(default_factory=list)
    running: list[Execution] = field(default_factory=list)
    blocked: list[Execution] = field(default_factory=list)
    results: list[tuple[Job, Execution]] = field(default_factory=list)
    """That the next station has not taken, of the executions that are blocked; longest blocked first."""
    parts_left: dict[int, int] = field(default_factory=dict)
    """Sub-batches of a query that have not ended here."""
    executions: list[Execution] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    waiting_s: float = 0.0
    """Integral of the number in line."""

    @property
    def unit(self) -> str:
        return self.description["unit"]

    @property
    def free(self) -> int:
        return self.description["threads"] - len(self.running) - len(self.blocked)

    def has_room(self) -> bool:
        """For one result more."""
        buffer = self.description["buffer"]
        if buffer is None or (self.unit == "fused" and self.free > 0):
            return True
        return len(self.line) < buffer + (0 if self.unit == "fused" else self.free)

    def is_full_batch(self) -> bool:
        most_queries, most_items = self.description["max_queries"], self.description["max_items"]
        return (most_queries is not None and len(self.line) >= most_queries) or (
            most_items is not None and sum(job.items for job in self.line) >= most_items
        )

    def timer(self) -> float:
        return self.line[0].entered + self.description["max_wait_s"]

    def takes(self, now: float, timers: bool) -> list[Job]:
        """Head of the line that a free thread starts now, still in line; empty if it starts nothing."""
        if not self.line or self.free == 0:
            return []
        if self.unit != "fused":
            return self.line[:1]
        if not self.is_full_batch() and not (timers and now >= self.timer()):
            return []
        most_queries, most_items = self.description["max_queries"], self.description["max_items"]
        count = 1
        while (
            count < len(self.line)
            and (most_queries is None or count < most_queries)
            and (most_items is None or sum(job.items for job in self.line[: count + 1]) <= most_items)
        ):
            count += 1
        return self.line[:count]


@dataclass
class StationRun:
    """What a station did. ``services``: (start, end, [(query, part), ...]) in order of their starts."""

    services: list[tuple[float, float, list[tuple[int, int]]]]
    items: list[int]
    """Of each service."""
    waits_s: list[float]
    """From entering this line to the start, of each job started."""
    mean_queue: float
    busy_s: float
    blocked_s: float


@dataclass
class Run:
    latency_s: list[float]
    """NaN: refused or dropped."""
    outcome: list[str]
    """done, refused or dropped."""
    stations: list[StationRun]
    """Over all routes."""
    mean_in_system: float
    seconds: float
    """From the first arrival to the last, or until the last query left where all came at once; means are over it."""


def table_s(service: dict[str, Any], items: int, busy: int) -> float:
    """Linear in busy (constant beyond the last) at the two item counts around, then linear in items."""
    at = bisect_right(service["items"], items) - 1
    low = _at_busy(service, at, busy)
    if service["items"][at] == items:
        return low
    high = _at_busy(service, at + 1, busy)
    return low + (high - low) * ((items - service["items"][at]) / (service["items"][at + 1] - service["items"][at]))


def _at_busy(service: dict[str, Any], row: int, busy: int) -> float:
    counts, cells = service["busy"], service["seconds"][row]
    at = bisect_right(counts, busy) - 1
    if at == len(counts) - 1 or counts[at] == busy:
        return cells[at]
    return cells[at] + (cells[at + 1] - cells[at]) * ((busy - counts[at]) / (counts[at + 1] - counts[at]))


def is_random(station: Station) -> bool:
    service = station.description["service"]
    return service["kind"] == "law" or service["noise"] is not None


def service_s(station: Station, items: int, busy: int, draw: float) -> float:
    """Seconds of an execution from whose start to end `busy` threads are busy."""
    service = station.description["service"]
    if service["kind"] == "table":
        return table_s(service, items, busy) * draw
    undisturbed_s = service["mean_s"] if service["kind"] == "law" else service["base_s"] + service["per_item_s"] * items
    return undisturbed_s * draw / speed(station, items, busy)


def speed(station: Station, items: int, busy: int) -> float:
    """Of a thread of `station` while `busy` threads are busy, relative to one busy thread."""
    service, speeds = station.description["service"], station.description["speed"]
    if service["kind"] == "table":
        return table_s(service, items, 1) / table_s(service, items, busy)
    return speeds[min(busy, len(speeds)) - 1] if speeds else 1.0


def simulate(system: dict[str, Any], arrival_s: Sequence[float], sizes: Sequence[int], variate: Variate) -> Run:
    """Send query q of ``sizes[q]`` items into ``system`` at ``arrival_s[q]`` (not decreasing), until all have left."""
    routes: list[list[Station]] = []
    for route in system["routes"]:
        first = sum(len(stations) for stations in routes)
        routes.append([Station(first + k, description) for k, description in enumerate(route["stations"])])
    all_stations = [station for stations in routes for station in stations]
    latency_s = [math.nan] * len(sizes)
    outcome = ["waiting"] * len(sizes)
    inside, inside_s, end_s = 0, 0.0, 0.0

    def route_of(query: int) -> int:
        return max(r for r, route in enumerate(system["routes"]) if route["min_size"] <= sizes[query])

    def cuts(station: Station, query: int) -> list[int]:
        """Items of the parts that `query` has at `station`."""
        batch = system["routes"][route_of(query)]["batch"]
        if station.unit != "sub_batch" or batch is None:
            return [sizes[query]]
        return [batch] * (sizes[query] // batch) + [sizes[query] % batch] * (sizes[query] % batch > 0)

    def jobs_for(station: Station, query: int, now: float) -> list[Job]:
        return [Job(query, part, items, now) for part, items in enumerate(cuts(station, query))]

    def leave(query: int, how: str, now: float) -> None:
        nonlocal inside, end_s
        outcome[query] = how
        inside, end_s = inside - 1, now
        if how == "done":
            latency_s[query] = now - arrival_s[query]

    def busy(station: Station) -> int:
        """Busy threads of the station that slows `station` down; blocked ones are not busy."""
        stations = next(stations for stations in routes if station in stations)
        return max(1, len(stations[station.description["slowed_by"]].running))

    def complete(stations: list[Station], place: int, now: float) -> None:
        """What ends now at a station: last parts leave the system or become results for the next station."""
        station = stations[place]
        following = stations[place + 1] if place + 1 < len(stations) else None
        ended = [execution for execution in station.running if execution.end == now]
        station.running = [execution for execution in station.running if execution.end != now]
        parts = [(job, execution) for execution in ended for job in execution.jobs]
        for job, execution in sorted(parts, key=lambda pair: (pair[0].query, pair[0].part)):
            station.parts_left.setdefault(job.query, len(cuts(station, job.query)))
            station.parts_left[job.query] -= 1
            last = station.parts_left[job.query] == 0
            if following is None:
                if last:
                    leave(job.query, "done", now)
            elif last or station.unit == following.unit == "sub_batch":
                station.results.append((job, execution))
                execution.results += 1
        for execution in ended:
            if execution.results > 0:
                station.blocked.append(execution)
            else:
                execution.gone = now

    def take(before: Station, station: Station, now: float) -> None:
        """The first result of the longest blocked thread moves into the line of `station`."""
        job, execution = before.results.pop(0)
        if before.unit == station.unit == "sub_batch":
            station.line.append(Job(job.query, job.part, job.items, now))
        else:
            station.line += jobs_for(station, job.query, now)
        execution.results -= 1
        if execution.results == 0:
            execution.gone = now
            before.blocked.remove(execution)

    def start(stations: list[Station], station: Station, now: float, timers: bool) -> bool:
        """Free threads take heads of the line; true if anything left the line."""
        moved = False
        while jobs := station.takes(now, timers):
            moved = True
            head, drop_after_s = jobs[0], system["drop_after_s"]
            first_of_all = station is stations[0] and head.part == 0
            if first_of_all and drop_after_s is not None and now - arrival_s[head.query] > drop_after_s:
                station.line = [job for job in station.line if job.query != head.query]
                leave(head.query, "dropped", now)
                continue
            station.line = station.line[len(jobs) :]
            station.waits_s += [now - job.entered for job in jobs]
            items = sum(job.items for job in jobs)
            index = len(station.executions) if station.unit == "fused" else head.query + head.part * PART
            draw = variate(station.number, index) if is_random(station) else 1.0
            work_s = service_s(station, items, 1, draw)
            execution = Execution(jobs, now, now + work_s, work_s, now, 1.0)
            station.running.append(execution)
            station.executions.append(execution)
            if station.description["interference"] == "at_start":
                execution.end = now + service_s(station, items, busy(station), draw)
        return moved

    def sweep(stations: list[Station], now: float) -> None:
        """Batches launch as they are full; one that waited long enough launches when no result can join it any more."""
        moved = True
        while moved:
            moved = False
            for before, station in reversed(list(pairwise(stations))):  # what moves on makes room behind it
                while before.results and station.has_room():
                    take(before, station, now)
                    moved = True
                    if station.unit == "fused":
                        start(stations, station, now, timers=False)
            for station in stations:
                moved |= start(stations, station, now, timers=True)

    def retime(now: float) -> None:
        """Dynamic rate: all that runs goes on at the speed of the present number of busy threads."""
        for station in all_stations:
            if station.description["interference"] == "dynamic_rate":
                for execution in station.running:
                    rate = speed(station, sum(job.items for job in execution.jobs), busy(station))
                    if rate != execution.rate:
                        execution.left_s -= (now - execution.since) * execution.rate
                        execution.since, execution.rate = now, rate
                        execution.end = now + max(0.0, execution.left_s) / rate

    def instants() -> list[float]:
        times = [execution.end for station in all_stations for execution in station.running]
        times += arrival_s[arrived : arrived + 1]
        times += [s.timer() for s in all_stations if s.unit == "fused" and s.line and s.free > 0]
        return times

    arrived, before = 0, 0.0
    while times := instants():
        now = min(times)
        inside_s += inside * (now - before)
        for station in all_stations:
            station.waiting_s += len(station.line) * (now - before)
        before = now
        for stations in routes:
            for place in range(len(stations)):
                complete(stations, place, now)
        for stations in routes:
            sweep(stations, now)
        while arrived < len(sizes) and arrival_s[arrived] == now:
            query, arrived = arrived, arrived + 1
            if system["capacity"] is not None and inside >= system["capacity"]:
                outcome[query] = "refused"
                continue
            inside += 1
            stations = routes[route_of(query)]
            stations[0].line += jobs_for(stations[0], query, now)
            sweep(stations, now)
        retime(now)

    seconds = arrival_s[-1] - arrival_s[0] or end_s - arrival_s[0]

    def figures(station: Station) -> StationRun:
        return StationRun(
            services=[(e.start, e.end, [(job.query, job.part) for job in e.jobs]) for e in station.executions],
            items=[sum(job.items for job in e.jobs) for e in station.executions],
            waits_s=station.waits_s,
            mean_queue=station.waiting_s / seconds,
            busy_s=sum(e.end - e.start for e in station.executions),
            blocked_s=sum(e.gone - e.end for e in station.executions),
        )

    return Run(latency_s, outcome, [figures(station) for station in all_stations], inside_s / seconds, seconds)
