"""Speedup of near-memory processing over the host, by ranks, row size and stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hercules_fast.plotting.style import figure, legend_outside, save

if TYPE_CHECKING:
    from hercules_fast.memory import MemorySweep

__all__ = ["plot_memory"]


def plot_memory(sweep: MemorySweep, path: str | os.PathLike[str]) -> Path:
    """Draw speedup against ranks, one panel for each row size and one line for each stage.

    Raises:
        PlotsUnavailableError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    sizes = list(dict.fromkeys(point.vector_bytes for point in sweep.points))
    stages = list(dict.fromkeys(point.stage for point in sweep.points))
    with figure(3.2 * len(sizes) + 2.0, 3.6) as drawing:
        panels = drawing.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for axes, size in zip(panels, sizes, strict=True):
            for stage in stages:
                line = [p for p in sweep.points if (p.vector_bytes, p.stage) == (size, stage)]
                axes.plot([p.ranks for p in line], [p.speedup for p in line], marker="o", label=stage)
            axes.set_xscale("log", base=2)
            ticks = sorted({p.ranks for p in sweep.points})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xlabel("ranks of a channel")
            axes.set_title(f"rows of {size} bytes")
            axes.set_ylim(bottom=0)
        panels[0].set_ylabel("speedup over the host")
        legend_outside(panels[-1])
        return save(drawing, path)
