"""Tail latency of one scheduling configuration: simulate a load, or find the highest load that meets the SLAs.

A thin layer over the core's queue simulator: laws and tables become arrays, arrays become result objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.tables import SchedulingConfig, ServiceTable
from hercules_fast.traffic import Arrivals, SizeLaw, Sla, size_pmf

__all__ = ["MaxLoadResult", "SimulationResult", "core_grid", "core_traffic", "max_load", "simulate"]

TAIL_QUERIES = 10
"""Queries that must lie above a percentile before it is worth printing."""
WARMUP_SHARE = 0.1
"""Share of the queries dropped from the front, since a run starts empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationResult:
    """What one simulated load did. Percentiles are in percent; mappings run over the stages that the chain uses."""

    config: SchedulingConfig
    qps: float
    """Offered load."""
    percentiles: tuple[float, ...]
    latency_ms: tuple[float, ...]
    """Latency at each percentile: the smallest x such that at least that share of queries took x or less."""
    mean_latency_ms: float
    throughput_qps: float
    """Completed queries per second from the first arrival to the last completion."""
    bottleneck_qps: float
    """Rate at which the busiest stage would never rest."""
    utilisation: Mapping[str, float]
    executions_per_query: Mapping[str, float]
    items_per_execution: Mapping[str, float]
    energy_j_per_query: Mapping[str, float]
    """Dynamic energy of the stage; NaN where the table does not know it."""
    queries: int
    """Simulated queries, warm-up included."""
    warmup: int
    seed: int
    random_stream_version: int
    latencies_ms: npt.NDArray[np.float64] | None = None
    """Latency of every query after the warm-up, in order of arrival, if it was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the single latencies; an unknown figure is None."""
        return _plain(self, drop="latencies_ms")


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxLoadResult:
    """The highest load that meets every SLA, and what stands in the way of more."""

    config: SchedulingConfig
    qps: float
    """0 if no load meets the SLAs."""
    limit: str
    """``sla``, ``unloaded latency``, ``utilisation cap`` or ``growing backlog``; an SLA is named with it."""
    bound_qps: float
    """The utilisation cap times the bottleneck rate: no load can be higher."""
    percentiles: tuple[float, ...]
    """Of the SLAs, in percent."""
    latency_ms: tuple[float, ...]
    """Reached at ``qps``; NaN if ``qps`` is 0."""
    unloaded_ms: tuple[float, ...]
    """The same percentiles of a query that finds the server empty."""
    mean_latency_ms: float
    throughput_qps: float
    utilisation: Mapping[str, float]
    executions_per_query: Mapping[str, float]
    items_per_execution: Mapping[str, float]
    energy_j_per_query: Mapping[str, float]
    probes: int
    """Loads that were simulated."""
    simulated_queries: int
    seed: int
    random_stream_version: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an unknown figure is None."""
        return _plain(self)


def simulate(
    table: ServiceTable,
    config: SchedulingConfig,
    *,
    sizes: SizeLaw,
    arrivals: Arrivals,
    qps: float,
    queries: int = 65536,
    warmup: int | None = None,
    percentiles: Sequence[float] = (50.0, 95.0, 99.0),
    seed: int = 0,
    replication: int = 0,
    keep_latencies: bool = False,
) -> SimulationResult:
    """Simulate ``queries`` queries at ``qps``.

    Latency runs from the arrival of a query to the completion of its last part. The same seed gives the same
    arrivals (scaled by the rate) and sizes for every configuration.

    Args:
        table: service times of the workload on the server.
        config: a configuration of ``table``.
        sizes: law of the items per query.
        arrivals: arrival process.
        qps: offered load, queries per second, above 0.
        queries: 1 to 2**28.
        warmup: queries dropped from the front; default: a tenth.
        percentiles: in percent, between 0 and 100.
        seed: 0 <= seed < 2**63.
        replication: number of the independent copy of the run, from 0.
        keep_latencies: also return every latency.

    Raises:
        InputError: an argument is outside what is allowed; too few queries for a percentile (the message says how many
            are needed); or the load is more than the configuration can carry, so that no percentile exists.
    """
    warmup = int(queries * WARMUP_SHARE) if warmup is None else warmup
    _check_run(queries, warmup, seed)
    for k, percentile in enumerate(percentiles):
        _check_percentile(f"percentiles[{k}]", percentile, queries - warmup)
    if not (math.isfinite(qps) and qps > 0.0):
        raise InputError(f"qps: is {qps}; allowed is a finite number above 0")
    grid, traffic = core_grid(table), core_traffic(sizes, arrivals, seed)
    row = np.array(config.row, dtype=np.int64)
    bottleneck_qps = _core.bottleneck_qps(grid, traffic, row)
    if qps >= bottleneck_qps:
        raise InputError(
            f"qps: is {qps:g}; allowed is less than the bottleneck, {bottleneck_qps:.6g} queries per second"
        )
    shares = [p / 100.0 for p in percentiles]
    found = _core.simulate(grid, traffic, row, qps, queries, warmup, shares, replication, keep_latencies)
    if found["falls_behind"]:
        raise InputError(
            f"qps: is {qps:g}; the server falls behind by {found['backlog_growth']:.1%} of elapsed time, "
            "so the latencies have no limit; lower the load"
        )
    return SimulationResult(
        config=config,
        qps=qps,
        percentiles=tuple(float(p) for p in percentiles),
        latency_ms=_milliseconds(found["percentiles_s"]),
        mean_latency_ms=1e3 * found["mean_latency_s"],
        throughput_qps=found["throughput_qps"],
        bottleneck_qps=bottleneck_qps,
        **_by_stage(config, found),
        queries=queries,
        warmup=warmup,
        seed=seed,
        random_stream_version=_stream_version(),
        latencies_ms=1e3 * found["latencies_s"] if keep_latencies else None,
    )


def max_load(
    table: ServiceTable,
    config: SchedulingConfig,
    *,
    sizes: SizeLaw,
    arrivals: Arrivals,
    slas: Sequence[Sla],
    queries: int = 65536,
    warmup: int | None = None,
    utilisation_cap: float = 0.95,
    tolerance: float = 0.005,
    seed: int = 0,
    replication: int = 0,
) -> MaxLoadResult:
    """Find the highest load that meets every SLA, by bisection on one fixed run of queries.

    A load passes if every percentile holds, the server does not fall behind, no pool of threads is busy for more than
    ``utilisation_cap`` of the time, and the load is at most that share of the bottleneck.

    Args:
        table, config, sizes, arrivals, queries, warmup, seed, replication: as in :func:`simulate`.
        slas: at least one.
        utilisation_cap: between 0 and 1.
        tolerance: relative width at which the bisection stops.

    Raises:
        InputError: an argument is outside what is allowed, or too few queries for a percentile of an SLA.
    """
    warmup = int(queries * WARMUP_SHARE) if warmup is None else warmup
    _check_run(queries, warmup, seed)
    if not slas:
        raise InputError("slas: is empty; at least one SLA is needed")
    for k, sla in enumerate(slas):
        _check_percentile(f"slas[{k}].percentile", sla.percentile, queries - warmup)
    found = _core.max_load(
        core_grid(table),
        core_traffic(sizes, arrivals, seed),
        np.array(config.row, dtype=np.int64),
        [(sla.percentile / 100.0, sla.latency_ms / 1e3) for sla in slas],
        queries,
        warmup,
        utilisation_cap,
        tolerance,
        replication,
    )
    target = found["limit_target"]
    return MaxLoadResult(
        config=config,
        qps=found["qps"],
        limit=found["limit"] if target is None else f"{found['limit']}: {slas[target]}",
        bound_qps=found["bound_qps"],
        percentiles=tuple(float(sla.percentile) for sla in slas),
        latency_ms=_milliseconds(found["percentiles_s"]),
        unloaded_ms=_milliseconds(found["unloaded_s"]),
        mean_latency_ms=1e3 * found["mean_latency_s"],
        throughput_qps=found["throughput_qps"],
        **_by_stage(config, found),
        probes=found["probes"],
        simulated_queries=found["simulated_queries"],
        seed=seed,
        random_stream_version=_stream_version(),
    )


def core_grid(table: ServiceTable) -> _core.ServiceGrid:
    """The core's copy of a service table. What the simulator cannot do yet is refused, not passed over.

    Raises:
        InputError: the table has noise, or a group whose interference changes during a service.
    """
    for stage, cv in zip(table.stages, table.noise_cv, strict=True):
        if cv > 0:
            raise InputError(f"noise_cv of stage {stage.name!r}: is {cv:g}; allowed is 0, noise is not simulated yet")
    groups = {group.name: group for group in table.groups}
    seconds = table.seconds
    for s, stage in enumerate(table.stages):
        interference = groups[stage.group].interference
        if interference == "dynamic_rate":
            raise InputError(
                f"interference of group {stage.group!r}: is 'dynamic_rate'; allowed are 'none' and 'at_start', rates "
                "that change during a service are not simulated yet"
            )
        if interference == "none":  # the time of a thread alone, whoever else is busy
            seconds = seconds.copy() if seconds is table.seconds else seconds
            seconds[:, s] = seconds[:, s, :, :1]
    return _core.ServiceGrid(
        table.items,
        table.busy,
        seconds,
        table.energy_j,
        [stage.unit for stage in table.stages],
        [table.stage_index(stage.busy_of) for stage in table.stages],
    )


def core_traffic(sizes: SizeLaw, arrivals: Arrivals, seed: int) -> _core.Traffic:
    """The core's copy of the laws of a workload."""
    params: dict[str, tuple[float, ...]] = {
        "erlang": (arrivals.k,),
        "hyperexponential": (*arrivals.probabilities, *arrivals.rates),
        "deeprecsys-gap": (arrivals.mean_ticks,),
    }
    return _core.Traffic(arrivals.kind, list(params.get(arrivals.kind, ())), size_pmf(sizes), seed)


def _check_run(queries: int, warmup: int, seed: int) -> None:
    if queries < 1:
        raise InputError(f"queries: is {queries}; allowed is 1 or more")
    if not 0 <= warmup < queries:
        raise InputError(f"warmup: is {warmup}; allowed is 0 <= warmup < queries = {queries}")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: is {seed}; allowed is 0 <= seed < 2**63")


def _check_percentile(field: str, percentile: float, counted: int) -> None:
    if not 0.0 < percentile < 100.0:
        raise InputError(f"{field}: is {percentile}; allowed is 0 < percentile < 100")
    needed = math.ceil(TAIL_QUERIES / (1.0 - percentile / 100.0) - 1e-6)
    if counted < needed:
        raise InputError(
            f"{field}: is {percentile:g}, but only {counted} queries are left after the warm-up; "
            f"at least {needed} are needed"
        )


def _milliseconds(seconds: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(1e3 * float(s) for s in seconds)


def _by_stage(config: SchedulingConfig, found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The per-stage arrays as mappings over the stages that the configuration uses."""
    used = [(k, name) for k, name in enumerate(config.stages) if config.threads[k]]
    fields = ("utilisation", "executions_per_query", "items_per_execution", "energy_j_per_query")
    return {field: {name: float(found[field][k]) for k, name in used} for field in fields}


def _stream_version() -> int:
    return int(_core.build_info()["random_stream_version"])


def _plain(result: SimulationResult | MaxLoadResult, drop: str = "") -> dict[str, Any]:
    data = {name: value for name, value in asdict(result).items() if name != drop}
    return {name: _known(value) for name, value in data.items()}


def _known(value: Any) -> Any:
    """NaN, which JSON does not have, becomes None."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {name: _known(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    return value
