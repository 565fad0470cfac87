"""Latency percentiles against load, with their intervals."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hercules_fast.plotting.style import COLOURS, figure, legend_outside, save

if TYPE_CHECKING:
    from hercules_fast.queueing import SimulationResult

__all__ = ["plot_load_curve"]


def plot_load_curve(results: Sequence[SimulationResult], path: str | os.PathLike[str]) -> Path:
    """Draw each percentile against the load, its 95 % interval as a band; loads with a growing backlog are left out.

    Raises:
        PlotsUnavailableError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    steady = [result for result in results if result.stable]
    loads = [result.qps for result in steady]
    with figure(6.4, 3.8) as drawing:
        axes = drawing.subplots()
        for k, percentile in enumerate(results[0].percentiles):
            colour = COLOURS[k % len(COLOURS)]
            axes.plot(loads, [r.latency_ms[k] for r in steady], marker="o", color=colour, label=f"p{percentile:g}")
            bands = [r.intervals_ms[k] for r in steady]
            axes.fill_between(loads, [low for low, _ in bands], [high for _, high in bands], color=colour, alpha=0.2)
        axes.axvline(results[0].bottleneck_qps, color="#666666", linestyle="--", label="bottleneck")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("load, queries per second")
        axes.set_ylabel("latency, ms")
        axes.grid(True)
        legend_outside(axes)
        return save(drawing, path)
