"""Result objects as text: they are formatted, sorted and picked from; nothing is computed here.

Everything is plain ASCII apart from the names that users chose, and fits 100 columns.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hercules_fast.tables import EfficiencyRow, EfficiencyTable

if TYPE_CHECKING:
    from hercules_fast.planning import PlanRun
    from hercules_fast.profiling import SearchResult
    from hercules_fast.provisioning import Plan
    from hercules_fast.serving import SimulationResult
    from hercules_fast.traffic import Sla

__all__ = [
    "mapping_text",
    "plan_text",
    "provision_text",
    "search_text",
    "simulation_text",
    "table_text",
    "text_table",
]

WIDTH = 100
"""Columns of a report."""


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, align: str = "", indent: int = 2) -> str:
    """Columns of text: ``align`` has ``<`` or ``>`` per column (default: the first left, the others right)."""
    body = [list(header), *(list(row) for row in rows)]
    align = align or "<" + ">" * (len(header) - 1)
    widths = [max(len(row[k]) for row in body) for k in range(len(header))]
    lines = []
    for row in body:
        cells = (f"{cell:{way}{width}}" for cell, way, width in zip(row, align, widths, strict=True))
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def mapping_text(values: Mapping[str, Any], *, indent: int = 2) -> str:
    """One line per entry, names in a column; long values are wrapped under their first word."""
    width = max((len(name) for name in values), default=0)
    return "\n".join(_entry(name, _plain(value), width, indent) for name, value in values.items())


def table_text(table: EfficiencyTable) -> str:
    """QPS, power and QPS per watt of every pair: a matrix per workload, best server first, then who cannot and why."""
    return "\n\n".join(_workload_block(table, workload) for workload in table.workloads)


def search_text(result: SearchResult) -> str:
    """The path of a search, its result and its cost."""
    row = result.row
    steps = [(f"{step.qps:,.1f}", step.move, step.config.describe()) for step in result.path]
    parts = [f"{row.workload} on {row.server}, {_slas_text(row.sla)}: {result.method} search"]
    if steps:
        parts.append(text_table(("QPS", "step", "configuration"), steps, align="><<"))
    parts.append(_row_text(row))
    parts.append(
        f"  cost: {result.evaluations:,} of {result.candidates:,} configurations simulated, "
        f"{result.probes:,} loads, {result.simulated_queries:,} queries"
    )
    return "\n".join(parts)


def simulation_text(result: SimulationResult, *, slas: Sequence[Sla] = ()) -> str:
    """Latencies, throughput and utilisation of a simulated load, with the promises beside the percentiles."""
    raise NotImplementedError


# --- efficiency ----------------------------------------------------------------------------------------------------


def _workload_block(table: EfficiencyTable, workload: str) -> str:
    able = table.ranking(workload)
    rows = [(*_figures(row), row.config.describe() if row.config else "", row.reason) for row in able]
    found = [table.best(server, workload) for server in table.servers]
    slas = next((_slas_text(row.sla) for row in found if row is not None and row.sla), "SLA not recorded")
    parts = [f"{workload}, {slas}"]
    if rows:
        header = ("server", "QPS", "95 % interval", "W", "QPS/W", "configuration", "binds")
        parts.append(text_table(header, rows, align="<>>>><<"))
    else:
        parts.append("  no server can serve it within its SLA")
    parts += [
        _wrapped(f"cannot: {row.server}: {row.reason}")
        for row in found
        if row is not None and row.status == "infeasible"
    ]
    missing = [server for server, row in zip(table.servers, found, strict=True) if row is None]
    if missing:
        parts.append(_wrapped(f"not profiled: {', '.join(missing)}"))
    return "\n".join(parts)


def _figures(row: EfficiencyRow) -> tuple[str, str, str, str, str]:
    interval = f"{_qps(row.qps_lo)}-{_qps(row.qps_hi)}" if row.qps_lo != row.qps_hi else "not given"
    return (row.server, _qps(row.qps), interval, f"{row.power_w:.0f}", f"{row.qps_per_watt:.3g}")


def _row_text(row: EfficiencyRow) -> str:
    if row.status != "ok":
        return _wrapped(f"infeasible: {row.reason}")
    config = row.config.describe() if row.config else "not recorded"
    reached = ", ".join(f"p{p:g} {ms:.3g} ms" for (p, _), ms in zip(row.sla, row.achieved_ms, strict=False))
    busy = ", ".join(f"{name} {share:.0%}" for name, share in row.utilisation.items())
    lines = [
        f"  best: {config}",
        f"  {_qps(row.qps)} QPS (95 % interval {_qps(row.qps_lo)} to {_qps(row.qps_hi)}), {row.power_w:.0f} W, "
        f"{row.qps_per_watt:.3g} QPS/W; {row.reason}",
    ]
    if reached:
        lines.append(f"  reached there: {reached}")
    if busy:
        lines.append(f"  busy: {busy}")
    return "\n".join(lines)


# --- formats -------------------------------------------------------------------------------------------------------


def _qps(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _slas_text(slas: Sequence[tuple[float, float]]) -> str:
    return " and ".join(f"p{p:g} <= {ms:g} ms" for p, ms in slas) or "SLA not recorded"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _entry(name: str, value: str, width: int, indent: int) -> str:
    lead = " " * indent + f"{name:<{width}}  "
    return textwrap.fill(value, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False)


def _wrapped(text: str, *, indent: int = 2, hang: int = 2) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_on_hyphens=False,
    )
