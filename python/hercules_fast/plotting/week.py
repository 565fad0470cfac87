"""Load, and the servers that are switched on for it, through the planned time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hercules_fast.plotting.style import COLOURS, edges, figure, legend_outside, save, time_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hercules_fast.provisioning import Plan

__all__ = ["plot_week"]


def plot_week(plan: Plan, path: str | os.PathLike[str]) -> Path:
    """Draw the load of each workload, and below it the servers on, stacked by type.

    Raises:
        PlotsUnavailableError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    with figure(10.0, 6.4) as drawing:
        load, servers = drawing.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        _draw_load(load, plan)
        _draw_servers(servers, plan)
        time_axis(load, edges(plan))
        time_axis(servers, edges(plan))
        servers.set_xlabel("time (UTC)")
        return save(drawing, path)


def _draw_load(axes: Axes, plan: Plan) -> None:
    bounds = edges(plan)
    peaks = plan.load_qps.max(axis=0, initial=0.0)
    scale = 1000.0 if peaks.max(initial=0.0) >= 10_000 else 1.0
    for w in sorted(range(len(plan.workloads)), key=lambda w: -peaks[w]):  # the legend then lists them from the top
        axes.stairs(
            plan.load_qps[:, w] / scale,
            bounds,
            baseline=None,
            color=COLOURS[w % len(COLOURS)],
            linewidth=1.3,
            label=f"{plan.workloads[w]} (peak {peaks[w]:,.0f}/s)",
        )
    axes.set_ylim(bottom=0)
    exposed = plan.exposed_qps.any(axis=1) & plan.covered
    for there, colour, label in (
        (~plan.covered, "#CC3311", "load is shed"),
        (exposed, "#EE7733", "exposed to a failure"),
    ):
        if there.any():
            top = np.where(there, axes.get_ylim()[1], np.nan)
            axes.stairs(top, bounds, fill=True, color=colour, alpha=0.18, linewidth=0, label=label)
    axes.set_ylabel("load (thousand queries/s)" if scale > 1 else "load (queries/s)")
    axes.set_title("Load of each workload")
    legend_outside(axes)


def _draw_servers(axes: Axes, plan: Plan) -> None:
    bounds = edges(plan)
    on = plan.per_type
    base = np.zeros(len(plan.times))
    used = [h for h in range(len(plan.servers)) if on[:, h].any()]
    for h in used:
        top = base + on[:, h]
        axes.stairs(
            top,
            bounds,
            baseline=base,
            fill=True,
            facecolor=COLOURS[h % len(COLOURS)],
            hatch="///" if h >= len(COLOURS) else None,
            edgecolor="white",
            linewidth=0.25,
            label=f"{plan.servers[h]} (stock {plan.stock[:, h].max()})",
        )
        base = top
    axes.set_ylim(bottom=0)
    axes.set_ylabel("servers on")
    axes.set_title("Servers switched on, by type")
    legend_outside(axes, reverse=True)  # from top to bottom, as the bands lie
