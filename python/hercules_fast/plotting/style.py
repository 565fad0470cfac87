"""What the figures share: colours, time axes, labels beside lines, and files with repeatable bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, OutputError
from hercules_fast.tables import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hercules_fast.provisioning import Plan

__all__ = [
    "COLOURS",
    "FORMATS",
    "PlotsUnavailableError",
    "edges",
    "figure",
    "legend_outside",
    "require_matplotlib",
    "save",
    "time_axis",
]

FORMATS = ("svg", "png")

COLOURS = (
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
    "#BBBBBB",
)
"""Ten hues that people with any common colour blindness can tell apart (Paul Tol's "muted" scheme)."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that files do not depend on the machine's fonts
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "hercules-fast",
    "svg.fonttype": "path",
}


class PlotsUnavailableError(OutputError):
    """Figures cannot be drawn here, since matplotlib is not installed."""


def require_matplotlib() -> None:
    """Raise PlotsUnavailableError where matplotlib cannot be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PlotsUnavailableError(
            "plots skipped: matplotlib is not installed (pip install 'hercules-fast[plot]')"
        ) from error


@contextmanager
def figure(width_in: float, height_in: float) -> Iterator[Figure]:
    """A figure in the house style. It belongs to no window and no global list of figures.

    Raises:
        PlotsUnavailableError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()  # a matplotlibrc of the user would change the bytes
        mpl.rcParams.update(_STYLE)
        drawing = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasAgg(drawing)
        yield drawing


def save(drawing: Figure, path: str | os.PathLike[str]) -> Path:
    """Write ``drawing`` as SVG or PNG by the ending of ``path``, all or nothing.

    Raises:
        InputError: another ending.
        OutputError: the file cannot be written.
    """
    target = Path(path)
    kind = target.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise InputError(f"path: ends in {target.suffix!r}; allowed are {', '.join('.' + f for f in FORMATS)}")
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    drawing.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    write_atomically(target, buffer.getvalue())
    return target


def edges(plan: Plan) -> npt.NDArray[np.datetime64]:
    """The starts of the plan's intervals and the end of the last one, datetime64[s] [T + 1]."""
    length = np.timedelta64(round(plan.interval_s), "s")
    return np.append(plan.times, plan.times[-1] + length)


def time_axis(axes: Axes, bounds: npt.NDArray[np.datetime64]) -> None:
    """Ticks at midnight with the names of the days for two days to two weeks; otherwise matplotlib's choice."""
    import matplotlib.dates

    dates: Any = matplotlib.dates  # not annotated by matplotlib
    axes.set_xlim(bounds[0], bounds[-1])
    span_days = float((bounds[-1] - bounds[0]) / np.timedelta64(86_400, "s"))
    if 2 <= span_days <= 14.5:
        midnights = np.arange(bounds[0].astype("datetime64[D]"), bounds[-1], np.timedelta64(1, "D"))
        axes.set_xticks(midnights[midnights >= bounds[0]])
        axes.xaxis.set_major_formatter(dates.DateFormatter("%a %d %b" if span_days <= 8 else "%a\n%d %b"))
        axes.xaxis.set_minor_locator(dates.HourLocator(byhour=(6, 12, 18)))
    else:
        locator = dates.AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.grid(True, axis="both", which="major")
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("left")


def legend_outside(axes: Axes, *, reverse: bool = False) -> None:
    """The legend to the right of the axes, where it covers no data; ``reverse`` lists the last drawn first."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, reverse=reverse)
