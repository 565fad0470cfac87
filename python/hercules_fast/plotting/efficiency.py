"""What each server type does for each workload, per watt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hercules_fast.plotting.style import figure, save
from hercules_fast.tables import EfficiencyRow, EfficiencyTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_efficiency"]


def plot_efficiency(table: EfficiencyTable, path: str | os.PathLike[str]) -> Path:
    """Draw QPS per watt by server and workload: the best server of a workload is framed, pairs that cannot are hatched.

    Raises:
        PlotsUnavailableError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    servers, workloads = table.servers, table.workloads
    width_in = 3.4 + 0.95 * max(len(workloads), 3)
    with figure(width_in, 1.7 + 0.42 * max(len(servers), 3)) as drawing:
        axes = drawing.subplots()
        cells = {(h, w): table.best(s, m) for h, s in enumerate(servers) for w, m in enumerate(workloads)}
        _draw_cells(axes, table, cells)
        axes.set_xticks(range(len(workloads)), workloads, rotation=30, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(servers)), servers)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title("Queries per second and watt, at the highest load that meets the SLA", pad=12)
        axes.set_xlabel("framed: best server of the workload    hatched: cannot serve it    blank: not profiled")
        return save(drawing, path)


def _draw_cells(axes: Axes, table: EfficiencyTable, cells: dict[tuple[int, int], EfficiencyRow | None]) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import StrMethodFormatter

    shape = (len(table.servers), len(table.workloads))
    values = np.full(shape, np.nan)
    for (h, w), row in cells.items():
        if row is not None and row.status == "ok":
            values[h, w] = row.qps_per_watt
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (1.0, 1.0)
    norm = LogNorm(low, high if high > low else low * 1.001)
    image = axes.imshow(np.ma.masked_invalid(values), cmap="YlGnBu", norm=norm, aspect="auto")
    for (h, w), row in cells.items():
        if row is not None and row.status == "ok":
            dark = norm(values[h, w]) > 0.55
            figure_text = f"{row.qps_per_watt:#.3g}".rstrip(".")
            axes.text(w, h, figure_text, ha="center", va="center", color="white" if dark else "black")
        elif row is not None:
            corner = (w - 0.5, h - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="#F2F2F2", edgecolor="#AAAAAA", hatch="////", linewidth=0))
    for w, workload in enumerate(table.workloads):
        best = table.ranking(workload)[:1]
        for row in best:
            h = table.servers.index(row.server)
            axes.add_patch(Rectangle((w - 0.46, h - 0.44), 0.92, 0.88, fill=False, edgecolor="#D55E00", linewidth=2))
    if known.size:
        bar = axes.figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
        bar.set_label("queries/s per W (log scale)")
        bar.formatter = StrMethodFormatter("{x:g}")
        bar.minorticks_off()
        bar.outline.set_visible(False)
