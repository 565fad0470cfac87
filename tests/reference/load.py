"""Slow twin of the load generator: plain Python threads, one lock, one condition.

Rules, which are the simulator's (see `queueing.py` here):

- One line, first come, first served. A query of n items enters as ceil(n / batch) sub-batches, full ones first.
- Each pool has its own line; what one pool hands on stands in the next one's line in the order of hand-over.
- A line has room while it is shorter than its waiting places and the idle threads together. A thread whose result
  finds no room keeps it and starts nothing until the result has entered.
- Latency runs from the scheduled arrival to the end of the last part. What has not ended when the time is up is NaN.

`run` takes what `_core.run_load` takes and answers alike.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PoolParts = tuple[Sequence[Any], Sequence[tuple[int, ...] | None] | None, int | None]
"""Workers (functions of query, items, payload, or a pair of seconds: base, per item), their CPUs, waiting places."""


def split(sizes: npt.NDArray[np.int64], batch: int | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(query, items) of each part, in line order."""
    parts = [
        (query, min(batch or size, size - first))
        for query, size in enumerate(sizes.tolist())
        for first in range(0, size, batch or size)
    ]
    return np.array([q for q, _ in parts], np.int64), np.array([n for _, n in parts], np.int64)


def call(worker: Any, query: int, items: int, payload: object) -> object:
    """One service; a pair of seconds is a thread that keeps its core busy so long."""
    if callable(worker):
        return worker(query, items, payload)
    end = time.monotonic() + worker[0] + worker[1] * items
    while time.monotonic() < end:
        pass
    return None


def run(
    pools: Sequence[PoolParts],
    arrival_s: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.int64],
    batch: int | None = None,
    generator_cpu: int | None = None,
    drain_s: float = 5.0,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[dict[str, Any], bool]:
    """One run: its figures, and whether Ctrl-C cut it short."""
    part_query, part_items = split(sizes, batch)
    shape = (len(pools), len(part_query))
    start_s, end_s, cpu_s = (np.full(shape, np.nan) for _ in range(3))
    thread = np.full(shape, -1, np.int32)
    lag_s = np.full(len(sizes), np.nan)

    moved = threading.Condition()
    lines: list[list[tuple[int, object]]] = [[] for _ in pools]
    taken, left = [0] * len(pools), [0] * len(pools)
    failures: list[BaseException] = []
    stopped = False
    began = time.monotonic()

    def now() -> float:
        return time.monotonic() - began

    def serve(pool: int, number: int, worker: Any) -> None:
        following = pools[pool + 1] if pool + 1 < len(pools) else None
        room = float("inf") if following is None or following[2] is None else following[2] + len(following[0])
        while True:
            with moved:
                moved.wait_for(lambda: stopped or len(lines[pool]) > taken[pool])
                if stopped:
                    return
                part, payload = lines[pool][taken[pool]]
                taken[pool] += 1
                start_s[pool, part] = now()
                thread[pool, part] = number
            before = time.thread_time()
            try:
                payload = call(worker, int(part_query[part]), int(part_items[part]), payload)
            except BaseException as error:
                with moved:
                    failures.append(error)
                    moved.notify_all()
                return
            cpu_s[pool, part] = time.thread_time() - before
            with moved:
                end_s[pool, part] = now()
                if pool + 1 < len(pools):
                    place = len(lines[pool + 1])
                    lines[pool + 1].append((part, payload))
                    moved.notify_all()
                    moved.wait_for(lambda: stopped or place < left[pool + 1] + room)  # noqa: B023
                left[pool] += 1
                moved.notify_all()

    threads = [
        threading.Thread(target=serve, args=(pool, number, worker), daemon=True)
        for pool, (workers, _, _) in enumerate(pools)
        for number, worker in enumerate(workers)
    ]
    for one in threads:
        one.start()
    interrupted = False
    try:
        first = 0
        for query, due in enumerate(arrival_s.tolist()):
            with moved:
                moved.wait_for(lambda: failures, timeout=max(0.0, due - now()))
                if failures:
                    break
                lag_s[query] = now() - due
                count = -(-int(sizes[query]) // (batch or int(sizes[query])))
                lines[0] += [(part, None) for part in range(first, first + count)]
                first += count
                moved.notify_all()
        with moved:
            limit = float(arrival_s[-1]) + drain_s - now()
            moved.wait_for(lambda: failures or left[-1] == shape[1], timeout=max(0.0, limit))
    except KeyboardInterrupt:
        interrupted = True
    with moved:
        stopped = True
        ended = np.nanmax(end_s, initial=0.0) if left[-1] == shape[1] else now()
        moved.notify_all()
    for one in threads:
        one.join(timeout=2.0)
    if failures:
        raise failures[0]

    last = np.full(len(sizes), -np.inf)
    np.maximum.at(last, part_query, np.where(np.isnan(end_s[-1]), np.inf, end_s[-1]))
    found = {
        "dispatch_lag_s": lag_s,
        "latency_s": np.where(np.isinf(last), np.nan, last - arrival_s),
        "part_query": part_query,
        "part_items": part_items,
        "start_s": start_s,
        "end_s": end_s,
        "cpu_s": cpu_s,
        "thread": thread,
        "preempted": np.zeros(shape, bool),
        "duration_s": float(ended),
        "generator_lost_share": None,
        "notes": [],
    }
    return found, interrupted
