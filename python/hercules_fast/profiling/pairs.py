"""A (server, workload) pair on its way through the core's search, and the efficiency row that it ends in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hercules_fast import _core
from hercules_fast.hardware import Server
from hercules_fast.profiling.lattice import Space, space
from hercules_fast.profiling.settings import Effort, Method, Progress
from hercules_fast.serving import PowerMode, Terms, fits, server_power, service_table
from hercules_fast.serving.simulation import core_grid, core_traffic
from hercules_fast.tables import EfficiencyRow, ServiceTable
from hercules_fast.traffic import Workload

__all__ = ["Pair", "core_problem", "make_pair", "row_of", "run_pairs"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair on its way through a search; without a table where the model does not fit."""

    server: Server
    workload: Workload
    table: ServiceTable | None
    space: Space | None


def make_pair(server: Server, workload: Workload, terms: Terms) -> Pair:
    """The pair with its service table and space, or without where the model does not fit."""
    if not fits(server, workload.model).anywhere:
        return Pair(server, workload, None, None)
    table = service_table(server, workload, terms)
    return Pair(server, workload, table, space(table))


def core_problem(pair: Pair, seed: int) -> _core.SearchProblem:
    """The pair as the core's search takes it. The model must fit the server."""
    assert pair.table is not None and pair.space is not None
    return _core.SearchProblem(
        core_grid(pair.table),
        core_traffic(pair.workload.sizes, pair.workload.arrivals, seed),
        pair.space.candidates,
        pair.space.coords,
        pair.space.starts,
        [(sla.percentile / 100, sla.latency_ms / 1e3) for sla in pair.workload.slas],
        pair.space.lines,
    )


def run_pairs(
    pairs: Sequence[Pair],
    method: Method,
    seed: int,
    threads: int | None,
    effort: Effort,
    progress: Progress | None = None,
    finished: Callable[[int, Mapping[str, Any]], object] | None = None,
    deadline_s: float | None = None,
    evaluations: int | None = None,
) -> tuple[list[Mapping[str, Any] | None], bool]:
    """Search all pairs that fit in one call of the core; None where a pair does not fit or was not finished.

    ``finished(k, result)`` is called for pair ``k`` soon after its end; after ``deadline_s`` seconds the rest is left.
    """
    fitting = [k for k, pair in enumerate(pairs) if pair.table is not None]
    problems = [core_problem(pairs[k], seed) for k in fitting]
    found, interrupted = _core.search(
        problems,
        method=method,
        queries=effort.queries,
        final_queries=effort.final_queries,
        replications=effort.replications,
        cap=effort.utilisation_cap,
        threads=threads,
        progress=progress,
        finished=None if finished is None else lambda k, result: finished(fitting[k], result),
        deadline_s=deadline_s,
        evaluations=evaluations,
    )
    results: list[Mapping[str, Any] | None] = [None] * len(pairs)
    for k, result in zip(fitting, found, strict=True):
        results[k] = result
    return results, interrupted


def row_of(pair: Pair, result: Mapping[str, Any] | None, seed: int, power_mode: PowerMode) -> EfficiencyRow:
    """The row of a pair; ``result`` is what the core found, None where the model does not fit."""
    sla = tuple((s.percentile, s.latency_ms) for s in pair.workload.slas)
    digest = pair.table.digest() if pair.table else ""

    def infeasible(reason: str) -> EfficiencyRow:
        return EfficiencyRow(
            server=pair.server.name,
            workload=pair.workload.name,
            sla=sla,
            qps=0.0,
            qps_lo=0.0,
            qps_hi=0.0,
            achieved_ms=(),
            power_w=0.0,
            power_mode=power_mode,
            energy_j_per_query=math.nan,
            utilisation={},
            memory_bytes={},
            config=None,
            status="infeasible",
            reason=reason,
            origin="modelled",
            seed=seed,
            source_digest=digest,
            evaluations=result["evaluations"] if result else 0,
        )

    if pair.table is None or pair.space is None or result is None:
        return infeasible(fits(pair.server, pair.workload.model).reason())
    if result["best"] < 0:
        unloaded = ", ".join(
            f"p{p:g} is at best {1e3 * seconds:.3g} ms without load, allowed are {ms:g} ms"
            for (p, ms), seconds in zip(sla, result["unloaded_s"], strict=True)
            if seconds * 1e3 > ms
        )
        otherwise = "none meets all of its percentiles at once, or the best did not on independent runs"
        return infeasible(f"no configuration meets the SLA: {unloaded or otherwise}")
    config = pair.space.config(pair.table, result["best"])
    power = server_power(
        pair.table,
        config,
        qps=result["qps"],
        stage_utilisation=[float(u) for u in result["utilisation"]],
        energy_j_per_query=sum(
            float(e) for e, t in zip(result["energy_j_per_query"], config.threads, strict=True) if t
        ),
        mode=power_mode,
    )
    variant = pair.table.variants[config.variant]
    return EfficiencyRow(
        server=pair.server.name,
        workload=pair.workload.name,
        sla=sla,
        qps=result["qps"],
        qps_lo=result["qps_lo"],
        qps_hi=result["qps_hi"],
        achieved_ms=tuple(1e3 * float(s) for s in result["achieved_s"]),
        power_w=power.power_w,
        power_mode=power_mode,
        energy_j_per_query=power.power_w / result["qps"],
        utilisation=dict(power.utilisation),
        memory_bytes=dict(variant.memory_bytes),
        config=config,
        status="ok",
        reason=f"limited by {result['limit']}",
        origin="modelled",
        seed=seed,
        source_digest=digest,
        evaluations=result["evaluations"],
    )
