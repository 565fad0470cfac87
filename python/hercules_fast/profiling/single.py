"""The search over the scheduling configurations of one pair, with its path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hercules_fast import _core
from hercules_fast.errors import InterruptedRun
from hercules_fast.hardware import Server
from hercules_fast.profiling.lattice import Space
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
from hercules_fast.profiling.slices import Slice, axis_words, slices_through, value_words
from hercules_fast.serving import PowerMode, Terms
from hercules_fast.serving.simulation import core_grid, core_traffic
from hercules_fast.tables import EfficiencyRow, SchedulingConfig, ServiceTable
from hercules_fast.traffic import Workload

__all__ = ["SearchResult", "SearchStep", "search"]


MOVES = {
    "start": "a start",
    "bound": "among the highest guesses and bounds",
    "axis": "step",
    "diagonal": "diagonal step",
    "far": "far step",
    "race": "beat the best so far",
    "sharpen": "leads on the long run",
    "polish": "a small gain",
    "feasibility": "less late without load",
}
"""Why a search went to a configuration, in words."""
FROM_THE_STEP_BEFORE = frozenset({"axis", "diagonal", "far", "feasibility"})

UNITS = {"qps": "qps", "qps_per_watt": "qps/W", "qps_per_cost": "queries/s per cost of an hour"}
"""Of the score, by objective."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchStep:
    """One step of a search: the configuration it moved to, QPS and score there (of its own short runs), and why."""

    config: SchedulingConfig
    qps: float
    score: float
    move: str
    """``start``, ``bound``, ``axis``, ``diagonal``, ``far``, ``race``, ``sharpen``, ``polish`` or ``feasibility``."""
    why: str
    """The move in words; where it leads on from the step before, with the axes that it changed."""
    place: Mapping[str, int]
    """Coordinates by axis, as in :class:`Slice`."""


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
    score: float
    """What ``objective`` counts, of ``row``; 0 where it is infeasible."""
    power_budget_w: float | None
    path: tuple[SearchStep, ...]
    slices: tuple[Slice, ...]
    """Where asked for: QPS against each axis through the configuration of ``row``."""
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
        """Where the search went, what it found and what limits that, in words."""
        row = self.row
        lines = [f"{row.workload} on {row.server}: {self.method} search over {self.candidates} configurations"]
        lines += [f"  {step.qps:10.1f} qps  {step.config.describe()}: {step.why}" for step in self.path]
        return "\n".join([*lines, *(f"  {fact}" for fact in self.facts())])

    def facts(self) -> list[str]:
        """The answer without the path: a sentence for each thing to know."""
        return [
            f"objective: {self.objective}"
            + ("" if self.power_budget_w is None else f", at most {self.power_budget_w:g} W"),
            *self._found(),
            *(f"next: {_figures(row)}" for row in self.top[1:]),
            *(f"front: {_figures(row)}" for row in self.front),
            *([] if self.optimum is None else [f"exhaustive optimum: {_figures(self.optimum)}"]),
            f"cost: {self.evaluations:,} of {self.candidates:,} configurations simulated, {self.probes:,} loads, "
            f"{self.simulated_queries:,} queries",
        ]

    def _found(self) -> list[str]:
        row = self.row
        if row.status != "ok" or row.config is None:
            return [f"infeasible: {row.reason}"]
        reached = ", ".join(f"p{p:g} {ms:.3g} ms" for (p, _), ms in zip(row.sla, row.achieved_ms, strict=True))
        busy = ", ".join(f"{name} {share:.0%}" for name, share in row.utilisation.items())
        return [
            f"best: {row.config.describe()}",
            f"{row.qps:,.1f} qps (95 % interval {row.qps_lo:,.1f} to {row.qps_hi:,.1f}), {row.reason}",
            *([] if self.objective == "qps" else [f"score: {self.score:.5g} {UNITS[self.objective]}"]),
            f"{row.power_w:.1f} W (power mode {row.power_mode}), {row.qps_per_watt:.4g} qps/W",
            f"reached there: {reached}; busy: {busy}",
            f"load step: {row.qps / self.bottleneck_qps:.0%} of the {self.bottleneck_qps:,.1f} qps "
            "at which the busiest stage never rests",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = _no_nan(asdict(self))
        return data


def _figures(row: EfficiencyRow) -> str:
    if row.config is None:
        return row.reason
    return f"{row.qps:,.1f} qps, {row.power_w:.1f} W, {row.config.describe()}"


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
    slices: bool = False,
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
        slices: also QPS against each axis, through the configuration found.
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
    lines: tuple[Slice, ...] = ()
    score = 0.0
    if result is not None and pair.table is not None and pair.space is not None:
        path = tuple(_steps(pair.table, pair.space, result["path"]))
        top_of = top_rows(pair, result, seed, effort, goal)
        if best.status == "ok":
            score = float(result["score"])
            if slices:
                lines = slices_through(pair, result["best"], seed, threads, effort, goal)
    is_ok = best.status == "ok"
    return SearchResult(
        row=best,
        top=top_of,
        front=tuple(sorted((best, *others), key=lambda row: -row.qps)) if front and is_ok else (),
        optimum=optimum,
        bottleneck_qps=_bottleneck_qps(pair, best, seed),
        method=method,
        objective=objective,
        score=score,
        power_budget_w=None if power_budget_w is None else float(power_budget_w),
        path=path,
        slices=lines,
        candidates=len(pair.space.candidates) if pair.space else 0,
        evaluations=result["evaluations"] if result else 0,
        probes=result["probes"] if result else 0,
        simulated_queries=result["simulated_queries"] if result else 0,
        complete=bool(result["complete"]) if result else True,
    )


def _steps(table: ServiceTable, space: Space, path: Sequence[tuple[int, float, str, float]]) -> Iterator[SearchStep]:
    """The steps of the core's path, each with why it was taken."""
    before: Mapping[str, int] = {}
    for index, qps, move, score in path:
        place = space.place(index)
        why = MOVES[move]
        if move in FROM_THE_STEP_BEFORE and before.keys() == place.keys():
            changes = (
                f"{axis_words(axis)} {value_words(axis, before[axis])} to {value_words(axis, value)}"
                for axis, value in place.items()
                if value != before[axis]
            )
            why = f"{why}: {', '.join(changes)}"
        yield SearchStep(config=space.config(table, index), qps=qps, score=score, move=move, why=why, place=place)
        before = place


def _bottleneck_qps(pair: Pair, row: EfficiencyRow, seed: int) -> float:
    """Load at which the busiest stage of the row's configuration never rests; 0 without one."""
    if pair.table is None or row.config is None:
        return 0.0
    traffic = core_traffic(pair.workload.sizes, pair.workload.arrivals, seed)
    return _core.bottleneck_qps(core_grid(pair.table), traffic, np.array(row.config.row))
