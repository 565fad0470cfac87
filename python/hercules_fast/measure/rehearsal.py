"""Services under load, beside those that were measured with every thread always busy.

A thread that has waited finds caches that others have used meanwhile, so its next service takes longer; how much, the
load decides. A rehearsal is a short run under open-loop load, with arrivals of its own, at a low and at a high load. It
says how many times the table's seconds services really take there; between the two loads the factor is linear.
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
    """Loads that were run before the prediction, by rising load."""

    stages: tuple[str, ...]
    """Of the configuration."""
    qps: tuple[float, ...]
    ratios: tuple[tuple[float, ...], ...]
    """By load and stage: seconds of service over those of the table."""
    lost_share: tuple[float, ...]
    """By load: share of the time that the machine took away."""

    def __str__(self) -> str:
        def one(qps: float, ratios: tuple[float, ...]) -> str:
            named = zip(self.stages, ratios, strict=True)
            told = ", ".join(f"{stage} {ratio:.3f}" if len(ratios) > 1 else f"{ratio:.3f}" for stage, ratio in named)
            return f"{told} at {qps:,.1f} q/s"

        return ", ".join(map(one, self.qps, self.ratios))

    def stretched(self, table: ServiceTable, qps: float) -> ServiceTable:
        """``table`` with the seconds of each stage as they are at a load of ``qps`` queries per second."""
        seconds = table.seconds.copy()
        for k, stage in enumerate(self.stages):
            seconds[:, table.stage_index(stage)] *= np.interp(qps, self.qps, [at_load[k] for at_load in self.ratios])
        return replace(table, seconds=seconds)


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
