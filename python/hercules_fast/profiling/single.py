"""The search over the scheduling configurations of one pair, with its path."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hercules_fast import _core
from hercules_fast.errors import InterruptedRun
from hercules_fast.hardware import Server
from hercules_fast.profiling.pairs import Pair, make_pair, row_of, rows_of, run_pairs, top_rows
from hercules_fast.profiling.settings import (
    A_SERVER,
    A_WORKLOAD,
    Cost,
    Effort,
    Goal,
    Method,
    Objective,
    Progress,
    Tables,
    check_arguments,
    check_tables,
    check_type,
)
from hercules_fast.serving import PowerMode, Terms
from hercules_fast.serving.simulation import core_grid, core_traffic
from hercules_fast.tables import EfficiencyRow, SchedulingConfig
from hercules_fast.traffic import Workload

__all__ = ["SearchResult", "SearchStep", "search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchStep:
    """One step of a search: the configuration it moved to, QPS and score there (of its own short runs), and why."""

    config: SchedulingConfig
    qps: float
    move: str
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """What a search found and what it cost."""

    row: EfficiencyRow
    """The best configuration by the objective."""
    top: tuple[EfficiencyRow, ...]
    """The best of the search's own runs, as many as asked for, by falling score of their final ones; ``row`` leads."""
    front: tuple[EfficiencyRow, ...]
    """Where asked for: rows of which none has more QPS and less power than another, by falling QPS."""
    optimum: EfficiencyRow | None
    """Where asked for: the best of every configuration."""
    bottleneck_qps: float
    """Load at which the busiest stage of ``row`` never rests: QPS above the row's, up to it, break the SLA only."""
    method: Method
    objective: Objective
    path: tuple[SearchStep, ...]
    candidates: int
    """Configurations of the space."""
    evaluations: int
    """Configurations that were simulated."""
    probes: int
    """Simulated loads."""
    simulated_queries: int
    complete: bool
    """False if the time was over before the search was through."""

    def explain(self) -> str:
        """Where the search went and why it stopped, in words."""
        row = self.row
        lines = [f"{row.workload} on {row.server}: {self.method} search over {self.candidates} configurations"]
        lines += [f"  {step.qps:10.1f} qps  {step.move:<24} {step.config.describe()}" for step in self.path]
        if row.status == "ok" and row.config is not None:
            lines.append(f"  best: {row.config.describe()}")
            lines.append(f"  {row.qps:.1f} qps (95 % interval {row.qps_lo:.1f} to {row.qps_hi:.1f}), {row.reason}")
            lines.append(
                f"  {row.power_w:.1f} W, {row.qps_per_watt:.3f} qps/W; collapses at {self.bottleneck_qps:.1f} qps"
            )
            lines += [f"  next: {r.qps:10.1f} qps {r.power_w:8.1f} W  {_words(r)}" for r in self.top[1:]]
            lines += [f"  front: {r.qps:9.1f} qps {r.power_w:8.1f} W  {_words(r)}" for r in self.front]
        else:
            lines.append(f"  infeasible: {row.reason}")
        if self.optimum is not None:
            lines.append(f"  exhaustive optimum: {self.optimum.qps:.1f} qps  {_words(self.optimum)}")
        lines.append(
            f"  evaluated {self.evaluations} of {self.candidates} configurations, {self.probes} loads, "
            f"{self.simulated_queries} queries"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = _no_nan(asdict(self))
        return data


def _words(row: EfficiencyRow) -> str:
    return row.config.describe() if row.config else row.reason


def _no_nan(value: Any) -> Any:
    """NaN is not JSON: what is not known becomes null."""
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_no_nan(item) for item in value)
    return None if isinstance(value, float) and math.isnan(value) else value


def search(
    server: Server,
    workload: Workload,
    *,
    method: Method = "gradient",
    objective: Objective = "qps",
    cost: Cost | None = None,
    power_budget_w: float | None = None,
    top: int = 1,
    front: bool = False,
    exhaustive: bool = False,
    evaluations: int | None = None,
    tables: Tables | None = None,
    seed: int = 0,
    threads: int | None = None,
    terms: Terms = Terms(),
    power_mode: PowerMode = "component",
    effort: Effort = Effort(),
    progress: Progress | None = None,
) -> SearchResult:
    """Search the scheduling configurations of one workload on one server, and show the path.

    Where the model does not fit, or no configuration meets the SLA, the result says why; it does not raise.

    Args:
        server, workload: descriptors.
        method: how configurations are chosen.
        objective: ``qps``, ``qps_per_watt`` or ``qps_per_cost``, see :class:`hercules_fast.profiling.Goal`.
        cost: what a server and its energy cost; for ``qps_per_cost``.
        power_budget_w: loads that draw more do not count, watts.
        top: how many of the best configurations are measured finally.
        front: also the Pareto set of QPS against power.
        exhaustive: also the best of every configuration.
        evaluations: most configurations that are simulated under load.
        tables: a user's own service table, by (server name, workload name).
        seed, threads, terms, power_mode, effort, progress: as in :func:`profile`.

    Raises:
        InputError, DTypeError: an argument is outside what is allowed.
        InterruptedRun: Ctrl-C.
    """
    check_type("server", server, Server, A_SERVER)
    check_type("workload", workload, Workload, A_WORKLOAD)
    check_arguments([server], [workload], method, seed, terms, effort)
    goal = Goal(
        objective=objective,
        cost=cost,
        power_budget_w=power_budget_w,
        power_mode=power_mode,
        evaluations=evaluations,
        top=top,
        front=front,
    )
    goal.weights(server.name)
    seed = int(seed)
    effort = effort.enough_for([workload])
    pair = make_pair(server, workload, terms, check_tables(tables, [server], [workload]))
    (result,), interrupted = run_pairs([pair], method, seed, threads, effort, progress, goal)
    optimum = None
    if exhaustive and not interrupted:
        all_of_them = replace(goal, evaluations=None, top=1, front=False)
        (truth,), interrupted = run_pairs([pair], "exhaustive", seed, threads, effort, None, all_of_them)
        optimum = row_of(pair, truth, seed, effort, goal)
    if interrupted:
        raise InterruptedRun("interrupted before the search ended")
    best, *others = rows_of(pair, result, seed, effort, goal)
    path: tuple[SearchStep, ...] = ()
    top_of: tuple[EfficiencyRow, ...] = ()
    if result is not None and pair.table is not None and pair.space is not None:
        table, space = pair.table, pair.space
        path = tuple(
            SearchStep(config=space.config(table, index), qps=qps, move=move, score=score)
            for index, qps, move, score in result["path"]
        )
        top_of = top_rows(pair, result, seed, effort, goal)
    is_ok = best.status == "ok"
    return SearchResult(
        row=best,
        top=top_of,
        front=tuple(sorted((best, *others), key=lambda row: -row.qps)) if front and is_ok else (),
        optimum=optimum,
        bottleneck_qps=_bottleneck_qps(pair, best, seed),
        method=method,
        objective=objective,
        path=path,
        candidates=len(pair.space.candidates) if pair.space else 0,
        evaluations=result["evaluations"] if result else 0,
        probes=result["probes"] if result else 0,
        simulated_queries=result["simulated_queries"] if result else 0,
        complete=bool(result["complete"]) if result else True,
    )


def _bottleneck_qps(pair: Pair, row: EfficiencyRow, seed: int) -> float:
    """Load at which the busiest stage of the row's configuration never rests; 0 without one."""
    if pair.table is None or row.config is None:
        return 0.0
    traffic = core_traffic(pair.workload.sizes, pair.workload.arrivals, seed)
    return _core.bottleneck_qps(core_grid(pair.table), traffic, np.array(row.config.row))
