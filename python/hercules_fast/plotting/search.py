"""Where a search went, and how the rate changes along each axis."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hercules_fast.errors import InputError
from hercules_fast.plotting.style import COLOURS, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hercules_fast.profiling import SearchResult, Slice

__all__ = ["plot_search"]

COLUMNS = 3
PATH, RATE, FOUND = COLOURS[4], COLOURS[0], COLOURS[6]


def plot_search(result: SearchResult, path: str | os.PathLike[str]) -> Path:
    """Draw a panel per axis: QPS through the found configuration, and the steps of the path in its kind.

    Raises:
        InputError: the result has no slices.
        PlotsUnavailableError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    if not result.slices:
        raise InputError("result.slices: is empty; a panel is drawn for each slice of search(..., slices=True)")
    columns = min(COLUMNS, len(result.slices))
    rows = -(-len(result.slices) // columns)
    with figure(3.4 * columns, 0.9 + 2.4 * rows) as drawing:
        panels = drawing.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for axes, piece in zip(panels, result.slices, strict=False):
            _draw_slice(axes, result, piece)
        for axes in panels[len(result.slices) :]:
            axes.set_visible(False)
        panels[0].set_ylim(bottom=0)
        for axes in panels[::columns]:
            axes.set_ylabel("queries per second")
        row, found = result.row, result.slices[0].configs[result.slices[0].at]
        drawing.suptitle(f"{row.workload} on {row.server}, best {result.objective}: {found.describe()}")
        handles, labels = panels[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        return save(drawing, path)


def _draw_slice(axes: Axes, result: SearchResult, piece: Slice) -> None:
    """One panel. Values stand at equal distances, as the lattice has them."""
    kind = piece.configs[piece.at].kind
    steps = [step for step in result.path if step.config.kind == kind]
    values = sorted({*piece.values, *(step.place[piece.axis] for step in steps)})
    x = {value: k for k, value in enumerate(values)}
    at = [x[step.place[piece.axis]] for step in steps]
    axes.plot(at, [step.qps for step in steps], "o", color=PATH, markersize=4.0, label="steps of the path")
    places = [x[value] for value in piece.values]
    axes.plot(places, piece.qps, color=RATE, label="QPS, the other axes as found")
    other = [k for k, exact in enumerate(piece.exact) if not exact]
    axes.plot(
        [places[k] for k in other],
        [piece.qps[k] for k in other],
        "o",
        color=RATE,
        markerfacecolor="white",
        markersize=4.5,
        label="one more axis differs",
    )
    axes.plot(places[piece.at], piece.qps[piece.at], "D", color=FOUND, markersize=6.0, label="found")
    each = max(1, -(-len(values) // 8))  # as many labels as fit side by side
    axes.set_xticks(range(0, len(values), each), [piece.label(value) for value in values[::each]])
    axes.set_xlabel(piece.title)
    axes.grid(True)
