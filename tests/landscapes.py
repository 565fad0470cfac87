"""Landscapes of the search: the highest load of every configuration of a pair, against which any method is judged.

The first look is at every configuration on the run that the search itself walks on; those within :data:`CONTENDERS` of
the best are measured again on a run of :data:`FINE` queries, where two loads that differ by half a percent can be told
apart. What a method found is worth its load there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.profiling.lattice import Space
from hercules_fast.profiling.pairs import Pair, core_problem, make_pair
from hercules_fast.traffic import Sla, Workload

CONTENDERS = 0.05
FINE = 1 << 15


def nine() -> tuple[Workload, ...]:
    """The nine models of the catalogue: the workloads of the built-in fleet, and NCF."""
    return (*hf.fleet("zoo10").workloads, hf.traffic.workload("ncf"))


def at_percentile(workload: Workload, percentile: float) -> Workload:
    """The workload with its latency target at another percentile."""
    slas = tuple(Sla(percentile=percentile, latency_ms=sla.latency_ms) for sla in workload.slas)
    return replace(workload, slas=slas)


@dataclass(frozen=True)
class Landscape:
    """Loads of every configuration of one pair: coarse float64 [N]; fine float64 [N], NaN where not measured."""

    pair: Pair
    problem: _core.SearchProblem
    space: Space
    coarse: npt.NDArray[np.float64]
    fine: npt.NDArray[np.float64]

    def worth(self, candidates: Sequence[int]) -> npt.NDArray[np.float64]:
        """Loads of ``candidates`` on the fine run."""
        missing = sorted({c for c in candidates if np.isnan(self.fine[c])})
        if missing:
            self.fine[missing] = _core.candidate_rates(self.problem, missing, queries=FINE)
        found: npt.NDArray[np.float64] = self.fine[list(candidates)]
        return found

    @property
    def optimum(self) -> float:
        """The highest load of all."""
        return float(np.nanmax(self.fine))


def landscape(server: hf.Server, workload: Workload, *, queries: int = 4096, fine: int = FINE) -> Landscape | None:
    """Every configuration of a pair measured; None where the model does not fit the server."""
    pair = make_pair(server, workload, hf.Terms())
    if pair.space is None:
        return None
    problem = core_problem(pair, seed=0)
    coarse = _core.candidate_rates(problem, queries=queries)
    contenders = np.flatnonzero(coarse >= (1 - CONTENDERS) * coarse.max()) if coarse.max() > 0 else np.arange(0)
    finer = np.full(coarse.size, np.nan)
    if contenders.size:
        finer[contenders] = _core.candidate_rates(problem, contenders.tolist(), queries=fine)
    return Landscape(pair, problem, pair.space, coarse, finer)
