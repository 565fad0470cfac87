"""Services under load, beside those that were measured with every thread always busy.

A thread that has waited finds caches that others have used meanwhile, so its next service takes longer; how much, the
load decides, and whoever else is on the host. A rehearsal is a short run under open-loop load, with arrivals of its
own. It says how many times the table's seconds services really take there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hercules_fast.queueing import SimulationResult, System, Trace, simulate
from hercules_fast.tables import ServiceTable

if TYPE_CHECKING:
    from hercules_fast.measure.load import LoadRun

__all__ = ["Rehearsal", "busy_s", "service_ratios"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """What a short run under load showed of the services."""

    stages: tuple[str, ...]
    """Of the configuration."""
    qps: float
    ratios: tuple[float, ...]
    """By stage: seconds of service over those of the table."""
    lost_share: float
    """Share of the time that the machine took away."""

    def __str__(self) -> str:
        if len(self.ratios) == 1:
            return f"{self.ratios[0]:.3f}"
        return ", ".join(f"{stage} {ratio:.3f}" for stage, ratio in zip(self.stages, self.ratios, strict=True))

    def stretched(self, table: ServiceTable) -> ServiceTable:
        """``table`` with the seconds of each stage as they were in the rehearsal."""
        seconds = table.seconds.copy()
        for stage, ratio in zip(self.stages, self.ratios, strict=True):
            seconds[:, table.stage_index(stage)] *= ratio
        return replace(table, seconds=seconds)

    def mean(self, other: Rehearsal) -> Rehearsal:
        """Services half-way between the two."""
        ratios = tuple(float(r) for r in np.mean((self.ratios, other.ratios), axis=0))
        return replace(self, ratios=ratios, lost_share=max(self.lost_share, other.lost_share))

    def change(self, later: Rehearsal) -> float:
        """How many times as long services took later; of the stage that changed most."""
        ratios = (after / before for before, after in zip(self.ratios, later.ratios, strict=True))
        return max(ratios, key=lambda ratio: abs(ratio - 1.0))


def service_ratios(run: LoadRun, system: System) -> tuple[float, ...]:
    """Seconds of service of each pool over those that ``system`` needs for the same queries; of a complete run."""
    trace = Trace(arrival_s=run.arrival_s, sizes=run.sizes)
    found = simulate(system, trace, warmup=0, percentiles=(50.0,), allow_unstable=True, threads=1)
    expected = busy_s(system, found)
    return tuple(float(ours / theirs) for ours, theirs in zip(run.service_s().sum(axis=1), expected, strict=True))


def busy_s(system: System, found: SimulationResult) -> Sequence[float]:
    """Seconds of service at each station, all threads together, of a run without warm-up."""
    elapsed_s = found.counted / found.throughput_qps
    threads = (station.threads for station in system.stations)
    return [s.utilisation * n * elapsed_s for s, n in zip(found.stations, threads, strict=True)]
