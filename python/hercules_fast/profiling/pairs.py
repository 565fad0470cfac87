"""A (server, workload) pair on its way through the core's search, and the efficiency row that it ends in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hercules_fast import _core
from hercules_fast.hardware import Server
from hercules_fast.profiling.lattice import Space, space
from hercules_fast.profiling.settings import Effort, Goal, Progress, Tables
from hercules_fast.serving import PowerMode, Terms, core_power, fits, server_power, service_table
from hercules_fast.serving.simulation import core_grid, core_traffic
from hercules_fast.tables import EfficiencyRow, SchedulingConfig, ServiceTable
from hercules_fast.traffic import Workload

LIGHT_QPS = 1e-6
LIGHT_QUERIES = 1 << 14
"""A run in which no query meets another."""

__all__ = ["Pair", "core_problem", "make_pair", "row_of", "rows_of", "run_pairs", "top_rows"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair on its way through a search; without a table where the model does not fit."""

    server: Server
    workload: Workload
    table: ServiceTable | None
    space: Space | None
    terms: Terms


def make_pair(server: Server, workload: Workload, terms: Terms, tables: Tables | None = None) -> Pair:
    """The pair with its table (a user's own, or modelled) and space, or without where the model does not fit."""
    table = (tables or {}).get((server.name, workload.name))
    if table is None:
        if not fits(server, workload.model).anywhere:
            return Pair(server, workload, None, None, terms)
        table = service_table(server, workload, terms)
    return Pair(server, workload, table, space(table), terms)


def core_problem(pair: Pair, seed: int, goal: Goal = Goal()) -> _core.SearchProblem:
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
        power=core_power(pair.table, goal.power_mode),
        objective=goal.weights(pair.server.name),
        power_budget_w=goal.power_budget_w,
    )


def run_pairs(
    pairs: Sequence[Pair],
    method: str,
    seed: int,
    threads: int | None,
    effort: Effort,
    progress: Progress | None = None,
    goal: Goal = Goal(),
    finished: Callable[[int, Mapping[str, Any]], object] | None = None,
    deadline_s: float | None = None,
) -> tuple[list[Mapping[str, Any] | None], bool]:
    """Search all pairs that fit in one call of the core; None where a pair does not fit or was not finished.

    ``finished(k, result)`` is called for pair ``k`` soon after its end; after ``deadline_s`` seconds the rest is left.
    """
    fitting = [k for k, pair in enumerate(pairs) if pair.table is not None]
    problems = [core_problem(pairs[k], seed, goal) for k in fitting]
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
        evaluations=goal.evaluations,
        precision=effort.precision,
        most_replications=max(effort.most_replications, effort.replications),
        polish_queries=effort.polish_queries,
        top=goal.top,
        front=goal.front,
    )
    results: list[Mapping[str, Any] | None] = [None] * len(pairs)
    for k, result in zip(fitting, found, strict=True):
        results[k] = result
    return results, interrupted


def row_of(
    pair: Pair,
    result: Mapping[str, Any] | None,
    seed: int,
    effort: Effort = Effort(),
    goal: Goal = Goal(),
) -> EfficiencyRow:
    """The row of a pair; ``result`` is what the core found, None where the model does not fit."""
    if pair.table is None or pair.space is None or result is None:
        return _infeasible(pair, result, seed, goal.power_mode, _does_not_fit(pair))
    if result["best"] < 0:
        return _infeasible(pair, result, seed, goal.power_mode, _misses_sla(pair, pair.table, pair.space, result, goal))
    return _found(pair, pair.table, pair.space, result, result, seed, goal.power_mode, effort)


def rows_of(
    pair: Pair, result: Mapping[str, Any] | None, seed: int, effort: Effort, goal: Goal
) -> tuple[EfficiencyRow, ...]:
    """The best row of a pair and, where a front was asked for, the rest of it by falling QPS."""
    best = row_of(pair, result, seed, effort, goal)
    if best.status != "ok" or pair.table is None or pair.space is None or result is None:
        return (best,)
    others = [
        answer for answer in result["front"] if (answer["best"], answer["qps"]) != (result["best"], result["qps"])
    ]
    rows = [_found(pair, pair.table, pair.space, a, result, seed, goal.power_mode, effort) for a in others]
    return (best, *rows)


def top_rows(pair: Pair, result: Mapping[str, Any], seed: int, effort: Effort, goal: Goal) -> tuple[EfficiencyRow, ...]:
    """The best rows that were asked for, best first."""
    assert pair.table is not None and pair.space is not None
    return tuple(
        _found(pair, pair.table, pair.space, answer, result, seed, goal.power_mode, effort) for answer in result["top"]
    )


def _found(
    pair: Pair,
    table: ServiceTable,
    space: Space,
    answer: Mapping[str, Any],
    result: Mapping[str, Any],
    seed: int,
    power_mode: PowerMode,
    effort: Effort,
) -> EfficiencyRow:
    """The row of one ``answer`` of the ``result`` of a search."""
    config = space.config(table, answer["best"])
    power = server_power(
        table,
        config,
        qps=answer["qps"],
        stage_utilisation=[float(u) for u in answer["utilisation"]],
        energy_j_per_query=sum(
            float(e) for e, t in zip(answer["energy_j_per_query"], config.threads, strict=True) if t
        ),
        mode=power_mode,
    )
    return EfficiencyRow(
        server=pair.server.name,
        workload=pair.workload.name,
        sla=_sla(pair),
        qps=answer["qps"],
        qps_lo=answer["qps_lo"],
        qps_hi=answer["qps_hi"],
        achieved_ms=tuple(1e3 * float(s) for s in answer["achieved_s"]),
        power_w=power.power_w,
        power_mode=power_mode,
        energy_j_per_query=power.power_w / answer["qps"],
        utilisation=dict(power.utilisation),
        memory_bytes=dict(table.variants[config.variant].memory_bytes),
        config=config,
        status="ok",
        reason=_limit(table, answer, result, effort),
        origin=table.origin,
        seed=seed,
        source_digest=table.digest(),
        evaluations=result["evaluations"],
    )


def _sla(pair: Pair) -> tuple[tuple[float, float], ...]:
    return tuple((s.percentile, s.latency_ms) for s in pair.workload.slas)


def _infeasible(
    pair: Pair, result: Mapping[str, Any] | None, seed: int, power_mode: PowerMode, reason: str
) -> EfficiencyRow:
    return EfficiencyRow(
        server=pair.server.name,
        workload=pair.workload.name,
        sla=_sla(pair),
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
        origin=pair.table.origin if pair.table else "modelled",
        seed=seed,
        source_digest=pair.table.digest() if pair.table else "",
        evaluations=result["evaluations"] if result else 0,
    )


def _limit(table: ServiceTable, answer: Mapping[str, Any], result: Mapping[str, Any], effort: Effort) -> str:
    """What keeps the load from being higher, and what the figure lacks."""
    text = f"limited by {answer['limit']}"
    if answer["limit"] == "utilisation cap":
        busiest = max(range(len(table.stages)), key=lambda s: float(answer["utilisation"][s]))
        text += f" of stage {table.stages[busiest].name!r}"
    if not answer["precise"]:
        text += f"; interval wider than {100 * effort.precision:g} % after {answer['replications']} replications"
    if not result["complete"]:
        text += "; the search ended early, its time was over"
    return text


def _does_not_fit(pair: Pair) -> str:
    """Why the model does not fit, and what would have to change."""
    fit = fits(pair.server, pair.workload.model)
    more_gb = (fit.host_bytes - fit.host_limit_bytes) / (1 - pair.server.memory_reserve) / 1e9
    return f"{fit.reason()}; would fit with {more_gb:.1f} GB more host memory"


def _misses_sla(pair: Pair, table: ServiceTable, space: Space, result: Mapping[str, Any], goal: Goal) -> str:
    """Why no configuration counts, and what would have to change."""
    if not result["complete"]:
        return "the time was over before any configuration was measured; a longer one may find one"
    idle_w = sum(table.idle_w.values()) + table.base_w if goal.power_mode == "component" else sum(table.tdp_w.values())
    if goal.power_budget_w is not None and goal.power_budget_w <= idle_w:
        return (
            f"no load within the power budget: the server draws {idle_w:.1f} W at rest, allowed are "
            f"{goal.power_budget_w:g} W; a budget above {idle_w:.1f} W would be met"
        )
    late = [
        (p, ms, 1e3 * float(seconds), int(index))
        for (p, ms), seconds, index in zip(_sla(pair), result["unloaded_s"], result["unloaded_candidates"], strict=True)
        if seconds * 1e3 > ms
    ]
    if not late:
        budget = "" if goal.power_budget_w is None else f" and the power budget of {goal.power_budget_w:g} W"
        tried = f"none of the {result['evaluations']:,} that were simulated, of {len(space.candidates):,},"
        return (
            f"no configuration meets the SLA: {tried} keeps all of it{budget} under load, on independent runs too; "
            f"would be met with a longer latency{' or a larger budget' if budget else ''}"
        )
    missed = ", ".join(
        f"p{p:g} is at best {best:.3g} ms without load, allowed are {ms:g} ms" for p, ms, best, _ in late
    )
    percentile, _, best_ms, index = max(late, key=lambda entry: entry[2] / entry[1])
    config = space.config(table, index)
    needed = ", ".join(f"p{p:g} <= {_rounded_up(best):g} ms" for p, _, best, _ in late)
    slowest = f"slowest in stage {_slowest_stage(table, config)!r}{_bandwidth(pair, config, percentile, best_ms)}"
    return (
        f"no configuration meets the SLA: {missed} ({config.describe()}; {slowest}); would be met at light load with "
        f"{needed}"
    )


LEAST_WAIT = 0.1
"""Share of the latency that waiting for the memory must make up to be worth words."""


def _bandwidth(pair: Pair, config: SchedulingConfig, percentile: float, best_ms: float) -> str:
    """How much of an unloaded latency is for want of memory bandwidth, in words; nothing where it is little."""
    if pair.table is None or pair.table.origin != "modelled" or not pair.terms.memory_bandwidth:
        return ""
    ample = service_table(pair.server, pair.workload, pair.terms.without("memory_bandwidth"))
    traffic = core_traffic(pair.workload.sizes, pair.workload.arrivals, 0)
    found = _core.simulate(
        core_grid(ample), traffic, np.array(config.row), LIGHT_QPS, LIGHT_QUERIES, 0, [percentile / 100]
    )
    waited_ms = best_ms - 1e3 * float(found["percentiles_s"][0])
    return f", {waited_ms:.3g} ms of it for want of memory bandwidth" if waited_ms > LEAST_WAIT * best_ms else ""


def _rounded_up(value: float) -> float:
    """Three digits, never less than ``value``."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / unit) * unit


def _slowest_stage(table: ServiceTable, config: SchedulingConfig) -> str:
    """The stage of a configuration in which one full sub-batch takes longest, alone on the server."""

    def seconds(stage: int) -> float:
        return float(np.interp(config.batch, table.items, table.seconds[config.variant, stage, :, 0]))

    used = [s for s, threads in enumerate(config.threads) if threads]
    return table.stages[max(used, key=seconds)].name
