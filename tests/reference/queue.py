"""Slow twin of the search's simulator, in plain Python: one instant after the other.

At each instant everything that ends now ends; results move on to where there is room, which frees the threads that
kept them; then, station by station along the chain, what arrives there now is put in line and free threads take work. A
fusing device looks at its line before each arrival (it may just have fallen free, or its timer may fire) and after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Grid:
    """The service table as the binding takes it; ``seconds`` [V, S, I, B]."""

    items: np.ndarray
    busy: np.ndarray
    seconds: np.ndarray
    units: list[str]
    busy_of: list[int]

    def service_s(self, variant: int, stage: int, items: int, busy: int) -> float:
        """Linear in busy (constant beyond the last) at the two item counts around, then linear in items."""
        rows = self.seconds[variant, stage]
        at = int(np.searchsorted(self.items, items, side="right")) - 1
        low = self._at_busy(rows[at], busy)
        if self.items[at] == items:
            return low
        high = self._at_busy(rows[at + 1], busy)
        fraction = float(items - self.items[at]) / float(self.items[at + 1] - self.items[at])
        return low + (high - low) * fraction

    def _at_busy(self, cells: np.ndarray, busy: int) -> float:
        at = int(np.searchsorted(self.busy, busy, side="right")) - 1
        if at == len(self.busy) - 1 or self.busy[at] == busy:
            return float(cells[at])
        fraction = float(busy - self.busy[at]) / float(self.busy[at + 1] - self.busy[at])
        return float(cells[at] + (cells[at + 1] - cells[at]) * fraction)


@dataclass
class Job:
    number: int
    query: int
    items: int
    ready: float


@dataclass
class Station:
    stage: int
    unit: str
    threads: int
    line: list[Job] = field(default_factory=list)
    running: list[tuple[float, list[Job]]] = field(default_factory=list)
    parts_left: list[int] = field(default_factory=list)
    held: list[Job] = field(default_factory=list)
    """Results that the next pool has no room for, longest first; each blocks a thread, which is not busy."""

    @property
    def free(self) -> int:
        return self.threads - len(self.running) - len(self.held)


Factor = Callable[[int, int, int], float]
"""(query, part, stage) -> what the time in the table is multiplied by; a fused launch is that of its first query."""


def latencies_s(
    grid: Grid,
    config: list[int],
    arrival_s: list[float],
    sizes: list[int],
    factor: Factor = lambda query, part, stage: 1.0,
) -> list[float]:
    """Latency of each query. ``config``: the row of a SchedulingConfig."""
    variant, batch, fuse_items, max_wait_us, buffer, offload_items, *threads = config
    max_wait_s = max_wait_us * 1e-6
    parts = [math.ceil(size / batch) for size in sizes]
    first = [sum(parts[:q]) for q in range(len(sizes))]
    stations = [Station(s, grid.units[s], m) for s, m in enumerate(threads) if m]
    for station in stations:
        station.parts_left = list(parts) if station.unit == "sub_batch" else [1] * len(sizes)
    latency = [math.nan] * len(sizes)
    arrived = 0

    def jobs_of(station: Station, query: int, now: float) -> list[Job]:
        if station.unit != "sub_batch":
            return [Job(query, query, sizes[query], now)]
        cuts = [batch] * (sizes[query] // batch) + [sizes[query] % batch] * (sizes[query] % batch > 0)
        return [Job(first[query] + k, query, items, now) for k, items in enumerate(cuts)]

    def start(station: Station, jobs: list[Job], now: float) -> None:
        other = next((t for t in stations if t.stage == grid.busy_of[station.stage]), None)
        busy = 1 if other is None else max(1, len(other.running) + (other is station))
        items = sum(job.items for job in jobs)
        part = jobs[0].number - first[jobs[0].query] if station.unit == "sub_batch" else 0
        seconds = grid.service_s(variant, station.stage, items, busy) * factor(jobs[0].query, part, station.stage)
        station.running.append((now + seconds, jobs))

    def launch(station: Station, now: float) -> None:
        while station.line and station.free > 0:
            full = sum(job.items for job in station.line) >= fuse_items
            if not full and now < station.line[0].ready + max_wait_s:
                return
            taken = [station.line.pop(0)]
            while station.line and sum(j.items for j in taken) + station.line[0].items <= fuse_items:
                taken.append(station.line.pop(0))
            start(station, taken, now)

    def admit(station: Station, jobs: list[Job], now: float) -> None:
        if station.unit == "fused":
            launch(station, now)
            for job in jobs:
                station.line.append(job)
                launch(station, now)
        else:
            station.line += jobs
            while station.line and station.free > 0:
                start(station, [station.line.pop(0)], now)

    def hands_on(place: int) -> bool:
        """Whether the station's sub-batches go on one by one."""
        following = stations[place + 1 :][:1] if not offload_items else []
        return stations[place].unit == "sub_batch" and [s.unit for s in following] == ["sub_batch"]

    def move(place: int) -> list[Job]:
        """Results that find room at the next pool, from the last pair to the first: leaving makes room before it."""
        station, moved = stations[place + 1], 0
        while len(stations[place].held) > moved and (buffer < 0 or len(station.line) + moved < buffer + station.free):
            moved += 1
        taken, stations[place].held = stations[place].held[:moved], stations[place].held[moved:]
        return taken

    def visits(place: int, query: int) -> bool:
        return not offload_items or (sizes[query] >= offload_items) == (place == 1)

    def instants() -> list[float]:
        times = [end for station in stations for end, _ in station.running]
        times += arrival_s[arrived : arrived + 1]
        for station in stations:
            if station.unit == "fused" and station.line and station.free > 0:
                times.append(station.line[0].ready + max_wait_s)
        return times

    while times := instants():
        now = min(times)
        finished = []
        for station in stations:
            ended = [job for end, jobs in station.running if end == now for job in jobs]
            station.running = [(end, jobs) for end, jobs in station.running if end != now]
            finished.append(sorted(ended, key=lambda job: job.number))
        complete: list[list[int]] = []
        for station, ended in zip(stations, finished, strict=True):
            for job in ended:
                station.parts_left[job.query] -= 1
            queries = sorted({job.query for job in ended})
            complete.append([query for query in queries if station.parts_left[query] == 0])
        arriving = [query for query in range(arrived, len(sizes)) if arrival_s[query] == now]
        arrived += len(arriving)
        moved: dict[int, list[Job]] = {}
        for place in reversed(range(len(stations))):
            if hands_on(place):
                stations[place].held += finished[place]
                moved[place] = move(place)
        for place, station in enumerate(stations):
            if place == 0 or offload_items:
                queries = [query for query in arriving if visits(place, query)]
                coming = [job for query in queries for job in jobs_of(station, query, now)]
            elif place - 1 in moved:
                coming = [Job(job.number, job.query, job.items, now) for job in moved[place - 1]]
            else:
                coming = [job for query in complete[place - 1] for job in jobs_of(station, query, now)]
            admit(station, coming, now)
        for query in [query for queries in (complete if offload_items else complete[-1:]) for query in queries]:
            latency[query] = now - arrival_s[query]
    return latency
