"""Latency against load on this machine, measured and simulated."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hercules_fast.errors import InputError
from hercules_fast.plotting.style import COLOURS, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hercules_fast.measure import LoadPoint, Validation

__all__ = ["plot_validation"]

MEASURED, MODEL, REPLAY, LIMIT = COLOURS[6], COLOURS[0], COLOURS[2], "#666666"


def plot_validation(found: Validation, path: str | os.PathLike[str]) -> Path:
    """Draw a panel for each percentile: runs, the model with what chance allows, replays, SLA and predicted max load.

    Runs whose noise gate did not pass are hollow and say so. Figures that are not known are left out.

    Raises:
        InputError: nothing was run.
        PlotsUnavailableError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    if not found.points:
        raise InputError("validation: has no runs; a run is drawn for each load")
    percentiles = found.points[0].percentiles
    with figure(3.3 * len(percentiles), 3.9) as drawing:
        panels = drawing.subplots(1, len(percentiles), squeeze=False)[0]
        for k, (axes, percentile) in enumerate(zip(panels, percentiles, strict=True)):
            _draw_panel(axes, found, k)
            axes.set_title(f"p{percentile:g}")
            axes.set_xlabel("load, queries per second")
        panels[0].set_ylabel("latency, ms")
        verdict = "certified" if found.certified else "NOT CERTIFIED"
        config = found.prediction.config.describe() if found.prediction else ""
        drawing.suptitle(f"{found.model}, {config}: {verdict}")
        labels = {
            label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        drawing.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=4, frameon=False)
        return save(drawing, path)


def _draw_panel(axes: Axes, found: Validation, k: int) -> None:
    """Percentile number ``k``."""
    from matplotlib.ticker import LogFormatter

    points = found.points
    loads = [point.qps for point in points]
    bands = [point.chance_ms[k] for point in points]
    axes.fill_between(
        loads, [low for low, _ in bands], [high for _, high in bands], color=MODEL, alpha=0.15, label="by chance, 95 %"
    )
    _draw_known(axes, loads, [p.model_ms[k] if p.model_ms else math.nan for p in points], "-", MODEL, "model")
    _draw_known(axes, loads, [p.replay_ms[k] if p.replay_ms else math.nan for p in points], "x", REPLAY, "replay")
    for point in points:
        _draw_run(axes, point, k)
    for sla in found.slas:
        if sla.percentile == points[0].percentiles[k]:
            axes.axhline(sla.latency_ms, color=LIMIT, linestyle=":", label="SLA")
    if found.prediction is not None:
        axes.axvline(found.prediction.qps, color=LIMIT, linestyle="--", label="predicted max load")
    axes.set_yscale("log")
    for of_ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        of_ticks(LogFormatter(minor_thresholds=(2.0, 0.5)))  # plain numbers instead of powers of ten
    axes.set_xlim(left=0)
    axes.grid(True)


def _draw_known(
    axes: Axes, loads: Sequence[float], values: Sequence[float], style: str, colour: str, label: str
) -> None:
    known = [(x, y) for x, y in zip(loads, values, strict=True) if math.isfinite(y)]
    if known:
        axes.plot([x for x, _ in known], [y for _, y in known], style, color=colour, label=label)


def _draw_run(axes: Axes, point: LoadPoint, k: int) -> None:
    value = point.measured_ms[k]
    if not math.isfinite(value):
        return
    inside, label = (MEASURED, "measured") if point.certified else ("white", "measured, not certified")
    axes.plot(point.qps, value, "o", color=MEASURED, markerfacecolor=inside, markersize=5.5, label=label)
    if not point.certified:
        axes.annotate(
            f"{point.lost_share:.0%} lost", (point.qps, value), (4, -9), textcoords="offset points", fontsize=6.5
        )
