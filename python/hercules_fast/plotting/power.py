"""Power and machines of a plan beside what the baselines need and what no plan can beat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hercules_fast.plotting.style import edges, figure, legend_outside, save, time_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hercules_fast.provisioning import Plan

__all__ = ["plot_power"]

_OURS = "#0072B2"
_BASELINES = {"greedy": "#D55E00", "oblivious": "#009E73"}
_OTHER = "#CC79A7"


def plot_power(plan: Plan, path: str | os.PathLike[str]) -> Path:
    """Draw provisioned power and servers on: the plan, its lower bound, and both baselines.

    Where a baseline leaves load uncovered its line is dotted: what it spends there buys less.

    Raises:
        PlotsUnavailableError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    with figure(10.0, 6.0) as drawing:
        power, capacity = drawing.subplots(2, 1, sharex=True)
        _draw_power(power, plan)
        _draw_capacity(capacity, plan)
        time_axis(power, edges(plan))
        time_axis(capacity, edges(plan))
        capacity.set_xlabel("time (UTC)")
        return save(drawing, path)


def _draw_power(axes: Axes, plan: Plan) -> None:
    bounds = edges(plan)
    for name, baseline in plan.baselines.items():
        _draw_baseline(axes, name, baseline.power_w / 1000, baseline.covers, bounds)
    axes.stairs(plan.power_w / 1000, bounds, baseline=None, color=_OURS, linewidth=2.0, label="plan (whole machines)")
    axes.stairs(
        plan.bound_w / 1000, bounds, baseline=None, color="black", linewidth=0.9, linestyle="--", label="LP lower bound"
    )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("provisioned power (kW)")
    axes.set_title("Provisioned power")
    legend_outside(axes)


def _draw_capacity(axes: Axes, plan: Plan) -> None:
    bounds = edges(plan)
    for name, baseline in plan.baselines.items():
        _draw_baseline(axes, name, baseline.capacity, baseline.covers, bounds)
    on = plan.capacity
    axes.stairs(on, bounds, baseline=None, color=_OURS, linewidth=2.0, label="plan (whole machines)")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("servers on")
    axes.set_title("Capacity")


def _draw_baseline(
    axes: Axes,
    name: str,
    values: npt.NDArray[np.float64] | npt.NDArray[np.int64],
    covers: npt.NDArray[np.bool_],
    bounds: npt.NDArray[np.datetime64],
) -> None:
    colour = _BASELINES.get(name, _OTHER)
    curve = np.asarray(values, dtype=np.float64)
    if not covers.all():  # dotted all the way, solid over it where the load is covered: no gaps at the steps between
        axes.stairs(
            curve, bounds, baseline=None, color=colour, linewidth=1.3, linestyle=":", label=f"{name}, load not covered"
        )
    axes.stairs(np.where(covers, curve, np.nan), bounds, baseline=None, color=colour, linewidth=1.3, label=name)
