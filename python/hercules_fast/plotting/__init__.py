"""Figures of result objects. They show what the objects hold and compute nothing; matplotlib is loaded on first use.

Same object, same bytes: SVG files carry no date and no random identifiers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hercules_fast.errors import InputError
from hercules_fast.plotting.efficiency import plot_efficiency
from hercules_fast.plotting.load import plot_load_curve
from hercules_fast.plotting.memory import plot_memory
from hercules_fast.plotting.power import plot_power
from hercules_fast.plotting.search import plot_search
from hercules_fast.plotting.style import FORMATS, PlotsUnavailableError, require_matplotlib
from hercules_fast.plotting.validation import plot_validation
from hercules_fast.plotting.week import plot_week

if TYPE_CHECKING:
    from hercules_fast.planning import PlanRun

__all__ = [
    "FORMATS",
    "PlotsUnavailableError",
    "plot_efficiency",
    "plot_load_curve",
    "plot_memory",
    "plot_power",
    "plot_search",
    "plot_validation",
    "plot_week",
    "save_plots",
]


def save_plots(run: PlanRun, directory: str | os.PathLike[str], formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write ``week``, ``power`` and ``efficiency`` figures of a planning run in every format; returns the paths.

    Raises:
        PlotsUnavailableError: matplotlib is not installed; nothing was written.
        InputError: a format that is not one of :data:`FORMATS`.
        OutputError: a file cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"formats: names {name!r}; allowed are {', '.join(FORMATS)}")
    require_matplotlib()
    figures: dict[str, Callable[[Path], Path]] = {
        "week": lambda path: plot_week(run.plan, path),
        "power": lambda path: plot_power(run.plan, path),
        "efficiency": lambda path: plot_efficiency(run.table, path),
    }
    return [draw(Path(directory) / f"{stem}.{suffix}") for stem, draw in figures.items() for suffix in formats]
