"""Slow twin of the search's simulator, in plain Python: one instant after the other.

At each instant everything that ends now ends; then, station by station along the chain, what arrives there now is put
in line and free threads take work. A fusing device looks at its line before each arrival (it may just have fallen
free, or its timer may fire) and after it.
"""

from __future__ import annotations

import math
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


def latencies_s(grid: Grid, config: list[int], arrival_s: list[float], sizes: list[int]) -> list[float]:
    """Latency of each query. ``config``: the row of a SchedulingConfig, without buffer and offload."""
    variant, batch, fuse_items, max_wait_us, buffer, offload_items, *threads = config
    assert (buffer, offload_items) == (-1, 0), "not yet"
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
        station.running.append((now + grid.service_s(variant, station.stage, items, busy), jobs))

    def launch(station: Station, now: float) -> None:
        while station.line and len(station.running) < station.threads:
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
            while station.line and len(station.running) < station.threads:
                start(station, [station.line.pop(0)], now)

    def instants() -> list[float]:
        times = [end for station in stations for end, _ in station.running]
        times += arrival_s[arrived : arrived + 1]
        for station in stations:
            if station.unit == "fused" and station.line and len(station.running) < station.threads:
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
        for place, station in enumerate(stations):
            coming: list[Job] = []
            if place == 0:
                while arrived < len(sizes) and arrival_s[arrived] == now:
                    coming += jobs_of(station, arrived, now)
                    arrived += 1
            elif station.unit == stations[place - 1].unit == "sub_batch":
                coming = [Job(job.number, job.query, job.items, now) for job in finished[place - 1]]
            else:
                coming = [job for query in complete[place - 1] for job in jobs_of(station, query, now)]
            admit(station, coming, now)
        for query in complete[-1]:
            latency[query] = now - arrival_s[query]
    return latency
