"""A run, replayed: the public simulator with the service times that the run itself measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.queueing import Station, System, TableService, Trace, simulate
from hercules_fast.queueing.sources import MAX_ITEMS

if TYPE_CHECKING:
    from hercules_fast.measure.load import LoadRun

__all__ = ["MOST_PARTS", "replay"]

MOST_PARTS = MAX_ITEMS
"""Sub-batches of the longest run that can be replayed: each is a size of its own."""
_LEAST_S = 1e-9


def replay(run: LoadRun, *, buffer: int | None = None) -> npt.NDArray[np.float64]:
    """Latency that each query of ``run`` would have if nothing but its queue and its own service times mattered.

    Each sub-batch arrives as a query of its own, whose size is its place in the line; each pool is a station whose
    table says how long that sub-batch took there. So arrivals, order and service times are the run's own, and only the
    discipline of the line is the simulator's. What the run took beyond it is hand-over: waking threads, passing results
    on.

    Args:
        run: a complete run.
        buffer: waiting places of each pool after the first; None: no limit.

    Returns:
        Seconds, float64 [queries].

    Raises:
        InputError: the run did not end, or has more than :data:`MOST_PARTS` sub-batches.
    """
    service_s = run.service_s()
    parts = service_s.shape[1]
    if np.isnan(service_s).any():
        unfinished = int(np.isnan(service_s).any(axis=0).sum())
        raise InputError(f"run: {unfinished} of {parts} sub-batches did not end; allowed is a complete run")
    if parts > MOST_PARTS:
        raise InputError(f"run: has {parts} sub-batches; allowed are at most {MOST_PARTS}")
    places = np.arange(1, parts + 1)
    items = tuple(places.tolist())
    stations = [
        Station(
            service=TableService(items=items, seconds=tuple((s,) for s in np.maximum(own, _LEAST_S).tolist())),
            threads=count,
            buffer=buffer if k else None,
        )
        for k, (own, count) in enumerate(zip(service_s, run.threads, strict=True))
    ]
    arrival_s = run.arrival_s[run.part_query]
    found = simulate(
        System.chain(*stations),
        Trace(arrival_s=arrival_s, sizes=places),
        warmup=0,
        percentiles=(50.0,),
        keep_latencies=True,
        allow_unstable=True,
        threads=1,
    )
    assert found.latencies_ms is not None
    latency_s = np.zeros(len(run.arrival_s))
    np.maximum.at(latency_s, run.part_query, found.latencies_ms * 1e-3)
    return latency_s
