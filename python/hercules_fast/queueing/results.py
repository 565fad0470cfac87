"""What a simulation found, in milliseconds, with how far each figure can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hercules_fast.queueing.sources import Trace
    from hercules_fast.traffic import Sla

__all__ = ["MaxLoadResult", "SimulationResult", "StationResult"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StationResult:
    """What one station did after the warm-up; NaN where the engine does not measure it."""

    name: str
    utilisation: float
    """Share of the threads' time in service."""
    blocked_share: float
    """Share of the threads' time with a finished result that the next station cannot take."""
    mean_wait_ms: float
    """Entering the line to start of service, a job's mean."""
    wait_ms: tuple[float, ...] | None
    """The same at each percentile of the result, if asked for."""
    mean_queue: float
    """Jobs in line, mean over time."""
    executions_per_query: float
    items_per_execution: float
    mean_busy: float
    """Busy threads, mean over time."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SimulationResult:
    """What one simulated load did. Percentiles are in percent; tuples run over ``percentiles``.

    Latency runs from a query's arrival to the end of its last part. Intervals are 95 % confidence intervals, a figure
    plus and minus its half-width; a half-width is NaN where the run was too short for one: see ``interval_queries``.
    """

    qps: float
    """Offered load."""
    percentiles: tuple[float, ...]
    latency_ms: tuple[float, ...]
    """The smallest x such that at least that share of the queries took x or less."""
    half_width_ms: tuple[float, ...]
    effective_samples: tuple[float, ...]
    """Independent queries that would be worth as much: those of one busy spell resemble each other."""
    exact: bool
    """Whether percentiles are order statistics (True) or read from a histogram."""
    mean_latency_ms: float
    mean_half_width_ms: float
    throughput_qps: float
    """Completed queries per simulated second after the warm-up."""
    bottleneck_qps: float
    """Rate at which the busiest station would never rest."""
    counted: int
    """Queries after the warm-up that completed; the figures rest on them."""
    refused: int
    """After the warm-up, by the capacity of the system."""
    dropped: int
    """After the warm-up, since they would have started too late."""
    stable: bool
    """Whether the backlog stopped growing."""
    backlog_growth: float
    """Growth of the backlog as a share of elapsed time."""
    mean_in_system: float
    """Queries inside, mean over time, counted at the events themselves; NaN where the engine has no events."""
    stations: tuple[StationResult, ...]
    queries: int
    """Simulated queries, warm-up included."""
    warmup: int
    """Queries dropped from the front of each segment, since it starts empty."""
    warmup_cut: int | None
    """How many the rule MSER, looking at the whole run, would have dropped; None: it cannot tell."""
    segments: int
    """Independent parts of the run; their number depends on the job only, so threads never change a figure."""
    batches: int
    """Contiguous batches behind each interval."""
    interval_queries: int
    """Queries after the warm-up that every half-width needs; in shorter runs it would be too narrow."""
    engine: str
    seed: int
    random_stream_version: int
    latencies_ms: npt.NDArray[np.float64] | None = None
    """Latency of every query after the warm-up, in order of arrival, segment after segment, if asked for; NaN: refused
    or dropped."""
    trace: Trace | None = None
    """The queries themselves, if asked for; replayed with the same ``warmup`` they give this result again."""

    @property
    def intervals_ms(self) -> tuple[tuple[float, float], ...]:
        """95 % interval of each percentile, (low, high)."""
        return tuple((x - h, x + h) for x, h in zip(self.latency_ms, self.half_width_ms, strict=True))

    @property
    def loss(self) -> float:
        """Share of queries that were refused or dropped."""
        lost = self.refused + self.dropped
        return lost / (lost + self.counted) if lost else 0.0

    @property
    def warmup_suffices(self) -> bool | None:
        """Whether MSER would drop no more than was dropped; None: it cannot tell."""
        return None if self.warmup_cut is None else self.warmup_cut <= self.warmup

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without single queries; an unknown figure is None."""
        extra = {"intervals_ms": self.intervals_ms, "loss": self.loss, "warmup_suffices": self.warmup_suffices}
        return {**_fields(self, drop=("latencies_ms", "trace")), **{k: _known(v) for k, v in extra.items()}}


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxLoadResult:
    """The highest load that meets every SLA, and what stands in the way of more. Tuples run over the SLAs."""

    qps: float
    """0 if no load meets the SLAs."""
    interval_qps: tuple[float, float]
    """95 % interval: between them the verdict is not decided."""
    limit: str
    """``sla``, ``unloaded latency``, ``utilisation cap``, ``growing backlog`` or ``loss``; an SLA is named with it."""
    bound_qps: float
    """The utilisation cap times the bottleneck rate: no load can be higher."""
    margin: float
    """How much more load the system takes before it falls behind, as a share of ``qps``; NaN if ``qps`` is 0."""
    slas: tuple[Sla, ...]
    latency_ms: tuple[float, ...]
    """Reached at ``qps``; NaN if ``qps`` is 0."""
    half_width_ms: tuple[float, ...]
    """95 % half-width of the same."""
    unloaded_ms: tuple[float, ...]
    """The same percentiles of a query that finds the system empty."""
    probes: int
    """Loads that were simulated."""
    simulated_queries: int
    seed: int
    random_stream_version: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an unknown figure is None."""
        slas = [{"percentile": sla.percentile, "latency_ms": sla.latency_ms} for sla in self.slas]
        return {**_fields(self, drop=("slas",)), "slas": slas}


def _fields(result: Any, drop: tuple[str, ...] = ()) -> dict[str, Any]:
    return {spec.name: _known(getattr(result, spec.name)) for spec in fields(result) if spec.name not in drop}


def _known(value: Any) -> Any:
    """Plain data; NaN and infinity, which JSON does not have, become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _known(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    return _fields(value) if isinstance(value, StationResult) else value
