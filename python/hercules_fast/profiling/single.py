"""The search over the scheduling configurations of one pair, with its path."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from hercules_fast.errors import InterruptedRun
from hercules_fast.hardware import Server
from hercules_fast.profiling.pairs import make_pair, row_of, run_pairs
from hercules_fast.profiling.settings import (
    A_SERVER,
    A_WORKLOAD,
    Effort,
    Method,
    Progress,
    check_arguments,
    check_type,
)
from hercules_fast.serving import PowerMode, Terms
from hercules_fast.tables import EfficiencyRow, SchedulingConfig
from hercules_fast.traffic import Workload

__all__ = ["SearchResult", "SearchStep", "search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchStep:
    """One step of a search: the configuration it moved to, the QPS there (of the search's own short runs), and why."""

    config: SchedulingConfig
    qps: float
    move: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """What a search found and what it cost."""

    row: EfficiencyRow
    method: Method
    path: tuple[SearchStep, ...]
    candidates: int
    """Configurations of the space."""
    evaluations: int
    """Configurations that were simulated."""
    probes: int
    """Simulated loads."""
    simulated_queries: int

    def explain(self) -> str:
        """Where the search went and why it stopped, in words."""
        row = self.row
        lines = [f"{row.workload} on {row.server}: {self.method} search over {self.candidates} configurations"]
        lines += [f"  {step.qps:10.1f} qps  {step.move:<24} {step.config.describe()}" for step in self.path]
        if row.status == "ok" and row.config is not None:
            lines.append(f"  best: {row.config.describe()}")
            lines.append(f"  {row.qps:.1f} qps (95 % interval {row.qps_lo:.1f} to {row.qps_hi:.1f}), {row.reason}")
        else:
            lines.append(f"  infeasible: {row.reason}")
        lines.append(
            f"  evaluated {self.evaluations} of {self.candidates} configurations, {self.probes} loads, "
            f"{self.simulated_queries} queries"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = asdict(self)
        if math.isnan(self.row.energy_j_per_query):
            data["row"]["energy_j_per_query"] = None
        return data


def search(
    server: Server,
    workload: Workload,
    *,
    method: Method = "gradient",
    seed: int = 0,
    threads: int | None = None,
    terms: Terms = Terms(),
    power_mode: PowerMode = "component",
    effort: Effort = Effort(),
    progress: Progress | None = None,
) -> SearchResult:
    """Search the scheduling configurations of one workload on one server, and show the path.

    Arguments and errors as in :func:`profile`. Where the model does not fit, the result says so; it does not raise.
    """
    check_type("server", server, Server, A_SERVER)
    check_type("workload", workload, Workload, A_WORKLOAD)
    check_arguments([server], [workload], method, seed, terms, effort)
    seed = int(seed)
    effort = effort.enough_for([workload])
    pair = make_pair(server, workload, terms)
    (result,), interrupted = run_pairs([pair], method, seed, threads, effort, progress)
    if interrupted:
        raise InterruptedRun("interrupted before the search ended")
    row = row_of(pair, result, seed, power_mode)
    if result is None or pair.table is None or pair.space is None:
        return SearchResult(row=row, method=method, path=(), candidates=0, evaluations=0, probes=0, simulated_queries=0)
    path = tuple(
        SearchStep(config=pair.space.config(pair.table, index), qps=qps, move=move)
        for index, qps, move, _ in result["path"]
    )
    return SearchResult(
        row=row,
        method=method,
        path=path,
        candidates=len(pair.space.candidates),
        evaluations=result["evaluations"],
        probes=result["probes"],
        simulated_queries=result["simulated_queries"],
    )
