"""What any method of the search is judged by: the load of the configurations of a pair, and the highest of all.

Configurations are compared on the search's own runs: all of them on the short one, and those within 5 % of the best
there again on the long one, where loads that differ by half a percent can be told apart (`search/exhaustive.rs`). What
a method found is worth its load on the long run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.profiling.lattice import Space
from hercules_fast.profiling.pairs import Pair, core_problem, make_pair
from hercules_fast.traffic import Sla, Workload


def nine() -> tuple[Workload, ...]:
    """The nine models of the catalogue: the workloads of the built-in fleet, and NCF."""
    return (*hf.fleet("zoo10").workloads, hf.traffic.workload("ncf"))


def at_percentile(workload: Workload, percentile: float) -> Workload:
    """The workload with its latency target at another percentile."""
    slas = tuple(Sla(percentile=percentile, latency_ms=sla.latency_ms) for sla in workload.slas)
    return replace(workload, slas=slas)


@dataclass(frozen=True)
class Landscape:
    """One pair: its problem, its best configuration, and the loads of whichever are asked for."""

    pair: Pair
    space: Space
    problem: _core.SearchProblem
    short: int
    """Queries of the run to walk by."""
    long: int
    """Queries of the run to choose by."""
    best: int
    """The best of all configurations; -1: none meets the target."""
    looked_at: int
    """Configurations that were simulated to know it; the bounds exclude the others."""
    known: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Configurations."""
        return len(self.space.candidates)

    def qps(self, candidate: int, queries: int) -> float:
        """Highest load of a configuration on a run of so many queries."""
        if (candidate, queries) not in self.known:
            found = _core.candidate_rates(self.problem, [candidate], queries=queries)
            self.known[candidate, queries] = float(found[0])
        return self.known[candidate, queries]

    def worth(self, candidate: int) -> float:
        """Share of the highest load of all that a configuration carries; 0 for none."""
        return self.qps(candidate, self.long) / self.qps(self.best, self.long) if candidate >= 0 else 0.0

    def found_by(self, method: str, evaluations: int | None = None) -> tuple[int, int]:
        """Configuration that a method finds, -1 for none, and how many it simulates."""
        effort = {"queries": self.short, "polish_queries": self.long, "precision": 1.0}
        (result,), _ = _core.search([self.problem], method=method, evaluations=evaluations, **effort)
        return result["best"], result["evaluations"]


def landscape(
    server: hf.Server, workload: Workload, *, short: int = 4096, long: int = 32768, prune: bool = True
) -> Landscape | None:
    """The landscape of a pair; None where the model does not fit the server. Without ``prune`` no bound is trusted."""
    pair = make_pair(server, workload, hf.Terms())
    if pair.space is None:
        return None
    at = Landscape(pair, pair.space, core_problem(pair, seed=0), short, long, -1, 0)
    best, looked_at = at.found_by("exhaustive" if prune else "exhaustive-unpruned")
    return replace(at, best=best, looked_at=looked_at)
