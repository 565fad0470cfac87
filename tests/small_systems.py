"""Small queueing systems for tests: the plain description with its defaults, and one call for a recorded run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hercules_fast import _core
from tests.reference import queueing as reference

EXPONENTIAL = {"kind": "law", "law": "exponential", "params": [], "mean_s": 1.0}


def linear(base_s: float, per_item_s: float, noise: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"kind": "linear", "base_s": base_s, "per_item_s": per_item_s, "noise": noise}


def station(unit: str, threads: int, service: dict[str, Any], **changes: Any) -> dict[str, Any]:
    defaults = {
        "buffer": None,
        "interference": "none",
        "slowed_by": 0,
        "speed": [],
        "max_queries": None,
        "max_items": None,
        "max_wait_s": 0.0,
    }
    return {"unit": unit, "threads": threads, "service": service} | defaults | changes


def chain(*stations: dict[str, Any], batch: int | None = None, min_size: int = 1) -> dict[str, Any]:
    return {"min_size": min_size, "batch": batch, "stations": list(stations)}


def system(*routes: dict[str, Any], capacity: int | None = None, drop_after_s: float | None = None) -> dict[str, Any]:
    return {"capacity": capacity, "drop_after_s": drop_after_s, "routes": list(routes)}


def trace(arrival_s: Sequence[float], sizes: Sequence[int], **changes: Any) -> dict[str, Any]:
    """Source of a recorded run."""
    times, items = np.array(arrival_s, dtype=np.float64), np.array(sizes, dtype=np.int64)
    plain = {"kind": "trace", "arrival_s": times, "sizes": items, "starts": [0], "cycles": 1, "cycle_s": None}
    return plain | {"rate_scale": 1.0} | changes


def replay(described: dict[str, Any], source: dict[str, Any], engine: str = "events", **changes: Any) -> dict[str, Any]:
    """All of a recorded run through the core, nothing dropped as warm-up."""
    sizes = source["sizes"]
    arguments = {"size_pmf": np.bincount(sizes)[1:] / len(sizes), "queries": len(sizes) * source["cycles"]}
    return _run(described, source, None, segments=None, engine=engine, **(arguments | changes))


def generate(described: dict[str, Any], source: dict[str, Any], qps: float, **changes: Any) -> dict[str, Any]:
    """A drawn run of queries of one item, unless the changes say otherwise."""
    return _run(described, source, qps, **({"size_pmf": np.array([1.0]), "queries": 400, "segments": 1} | changes))


def _run(described: dict[str, Any], source: dict[str, Any], qps: float | None, **changes: Any) -> dict[str, Any]:
    arguments = {"warmup": 0, "percentiles": [0.5], "seed": 0, "threads": 1, "keep_latencies": True}
    return _core.simulate_system(described, source, qps=qps, **(arguments | changes))


def exported(
    source: dict[str, Any], size_pmf: np.ndarray, qps: float, queries: int, seed: int, segments: int = 1
) -> dict[str, Any]:
    """The queries of a drawn run of so many queries in each segment, as the source of a recorded run."""
    parts = [_core.draw_queries(source, size_pmf, qps, queries, seed, segment, segments) for segment in range(segments)]
    times, sizes = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return trace(times, sizes, starts=[queries * segment for segment in range(segments)])


def law_of(described: dict[str, Any], number: int) -> tuple[str, list[float]]:
    """(name, parameters) of the draws of a station, numbered over all routes."""
    service = [s for route in described["routes"] for s in route["stations"]][number]["service"]
    law = service if service["kind"] == "law" else service["noise"]
    return law["law"], law["params"]


def variate(described: dict[str, Any], seed: int = 0, segment: int = 0) -> reference.Variate:
    """The draws that the core makes in a segment, for the twin."""

    def draw(number: int, index: int) -> float:
        name, params = law_of(described, number)
        query, part = np.array([index % reference.PART]), np.array([index // reference.PART])
        return float(_core.service_draws(name, params, seed, segment, number, query, part)[0])

    return draw
