"""Result objects as text: they are formatted, sorted and picked from; nothing is computed here.

Everything is plain ASCII apart from the names that users chose, and fits 100 columns.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hercules_fast.tables import EfficiencyRow, EfficiencyTable

if TYPE_CHECKING:
    import numpy.typing as npt

    from hercules_fast.measure import LoadPoint, Validation
    from hercules_fast.memory import MemorySweep
    from hercules_fast.planning import PlanRun
    from hercules_fast.profiling import Calibration, SearchResult, Slice
    from hercules_fast.provisioning import Plan
    from hercules_fast.provisioning.baselines import OrderSpread
    from hercules_fast.queueing import SimulationResult
    from hercules_fast.traffic import Sla

__all__ = [
    "calibration_text",
    "load_curve_text",
    "mapping_text",
    "memory_text",
    "plan_text",
    "provision_text",
    "search_text",
    "simulation_text",
    "table_text",
    "text_table",
    "validation_text",
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
    blocks = [_workload_block(table, workload) for workload in table.workloads]
    return "\n\n".join([*blocks, *_goal_lines(table)])


def _goal_lines(table: EfficiencyTable) -> list[str]:
    """What the table was searched for, where it says so."""
    meta = table.meta
    if not {"objective", "power_budget_w", "power_mode"} <= meta.keys():
        return []
    budget = "" if meta["power_budget_w"] is None else f", at most {meta['power_budget_w']:g} W"
    return [f"objective: {meta['objective']}{budget}; power mode {meta['power_mode']}"]


def search_text(result: SearchResult, *, explain: bool = False) -> str:
    """The answer of a search and its cost; with ``explain`` also its path and the slices that it holds."""
    row = result.row
    parts = [f"{row.workload} on {row.server}, {_slas_text(row.sla)}: {result.method} search"]
    if explain:
        parts += _path_lines(result)
        parts += [_slice_text(piece) for piece in result.slices]
    parts += [_wrapped(fact) for fact in result.facts()]
    return "\n".join(parts)


def _path_lines(result: SearchResult) -> Iterator[str]:
    """A line for each step: QPS, score where that is something else, configuration, why."""
    scored = result.objective != "qps"
    if result.path:
        yield f"  step         QPS{'       score' if scored else ''}  configuration: why"
    for number, step in enumerate(result.path, start=1):
        lead = f"  {number:>4}  {step.qps:>10,.1f}" + (f"  {step.score:>10.5g}" if scored else "") + "  "
        text = f"{step.config.describe()}: {step.why}"
        yield textwrap.fill(
            text, WIDTH, initial_indent=lead, subsequent_indent=" " * (len(lead) + 2), break_on_hyphens=False
        )


VALUES = 10
"""Values of a slice side by side."""


def _slice_text(piece: Slice) -> str:
    """Values of an axis with the QPS below them, the found one framed, those with another axis changed marked."""
    near = "" if all(piece.exact) else "; ~ the nearest that differs on one more axis"
    lines = [f"  QPS against {piece.title} ([found]{near})"]
    for first in range(0, len(piece.values), VALUES):
        shown = range(first, min(first + VALUES, len(piece.values)))
        lines.append(
            text_table(
                [_slice_label(piece, k) for k in shown],
                [[_qps(piece.qps[k]) for k in shown]],
                align=">" * len(shown),
                indent=4,
            )
        )
    return "\n".join(lines)


def _slice_label(piece: Slice, k: int) -> str:
    label = piece.label(piece.values[k])
    return f"[{label}]" if k == piece.at else label if piece.exact[k] else f"~{label}"


def simulation_text(result: SimulationResult, title: str, *, slas: Sequence[Sla] = ()) -> str:
    """Latencies with their intervals, throughput and stations of a simulated load, with the promises beside them."""
    promised = {sla.percentile: sla.latency_ms for sla in sorted(slas, key=lambda sla: -sla.latency_ms)}
    rows = []
    for percentile, latency_ms, half_ms in zip(
        result.percentiles, result.latency_ms, result.half_width_ms, strict=True
    ):
        limit = promised.get(percentile)
        verdict = ("", "")
        if limit is not None:
            words = "met" if latency_ms <= limit else "missed"
            verdict = (f"{limit:g}", words if abs(latency_ms - limit) > half_ms else f"{words}, within the interval")
        rows.append((f"p{percentile:g}", f"{latency_ms:.3f}", _half_width(half_ms), *verdict))
    rows.append(("mean", f"{result.mean_latency_ms:.3f}", _half_width(result.mean_half_width_ms), "", ""))
    stations = [
        (
            *(
                s.name,
                _percent(s.utilisation),
                _percent(s.blocked_share),
                f"{s.mean_wait_ms:.3f}",
                f"{s.mean_queue:.3g}",
            ),
            *(f"{s.executions_per_query:.3g}", f"{s.items_per_execution:.4g}"),
        )
        for s in result.stations
    ]
    header = ("station", "busy", "blocked", "wait ms", "queue", "executions per query", "items per execution")
    lost = f"; lost {result.loss:.2%} (refused {result.refused:,}, late {result.dropped:,})" if result.loss else ""
    notes = [
        f"  completed {_qps(result.throughput_qps)} q/s{lost}; the bottleneck is at {_qps(result.bottleneck_qps)} q/s",
        f"  {result.queries:,} queries in {result.segments} segments, the first {result.warmup:,} of each dropped as "
        f"warm-up; seed {result.seed}; engine {result.engine}",
    ]
    if result.counted < result.interval_queries:
        notes.append(
            f"  too short for intervals: they need {result.interval_queries:,} queries after the warm-up at this load"
        )
    if result.warmup_suffices is False:
        notes.append(f"  the warm-up may be too short: MSER would drop {result.warmup_cut:,} queries of a segment")
    if not result.stable:
        notes.append("  the backlog grows: these figures depend on the length of the run")
    return "\n".join(
        [
            f"{title} at {_qps(result.qps)} q/s",
            text_table(("latency", "ms", "+-", "allowed", ""), rows, align="<>>><"),
            text_table(header, stations),
            *notes,
        ]
    )


def load_curve_text(results: Sequence[SimulationResult], title: str) -> str:
    """A line for every load: its share of the bottleneck, and each percentile with its interval."""
    rows = []
    for r in results:
        cells = [
            cell for x, h in zip(r.latency_ms, r.half_width_ms, strict=True) for cell in (f"{x:.3f}", _half_width(h))
        ]
        state = "" if r.stable else "backlog grows"
        lost = f"lost {r.loss:.2%}" if r.loss else ""
        rows.append((_qps(r.qps), _percent(r.qps / r.bottleneck_qps), *cells, ", ".join(filter(None, (state, lost)))))
    names = [cell for p in results[0].percentiles for cell in (f"p{p:g} ms", "+-")]
    align = ">>" + ">>" * len(results[0].percentiles) + "<"
    return "\n".join([f"{title}, load curve", text_table(("q/s", "load", *names, ""), rows, align=align)])


def _half_width(half_ms: float) -> str:
    return "?" if math.isnan(half_ms) else f"{half_ms:.3f}"


# --- calibration ---------------------------------------------------------------------------------------------------


def calibration_text(found: Calibration) -> str:
    """The fitted constants of every host, and each curve's errors in sample, by batch and by model left out."""
    constants = [
        (host.server.name, host.part.name, name, f"{value:g}")
        for host in found.hosts
        for name, value in host.constants.items()
    ]
    rows = [
        (
            *(curve.model, curve.host),
            *(_error(curve.median), f"{_error(curve.worst)} at {curve.worst_batch}"),
            *(_error(curve.batch_out), _error(curve.batch_out_worst)),
            *(_error(curve.model_out), _error(curve.model_out_worst), _error(curve.model_out_bias, "+")),
        )
        for curve in found.curves
    ]
    header = ("model", "host", "fit", "worst", "batch out", "worst", "model out", "worst", "bias")
    causes = [_wrapped(f"{curve.model} on {curve.host}: {curve.cause}") for curve in found.curves if curve.cause]
    return "\n".join(
        [
            f"Calibrated on {found.source}",
            text_table(("host", "part", "constant", ""), constants, align="<<<>"),
            "",
            "Relative errors of predicted run times, median and worst size",
            text_table(header, rows, align="<<>>>>>>>"),
            f"  all points: {_error(found.median)}; each batch left out {_error(found.batch_out)}; each model left out "
            f"{_error(found.model_out)}",
            *(["", "What the other models of the host misjudge most", *causes] if causes else []),
        ]
    )


def _error(share: float, sign: str = "") -> str:
    return "-" if math.isnan(share) else f"{share:{sign}.1%}"


# --- a model on this machine -----------------------------------------------------------------------------------------


def validation_text(found: Validation) -> str:
    """Verdicts and what they rest on, then every run: measured latencies beside the three that were simulated."""
    blocks = ["\n".join(["Predicted and run on this machine", *map(_wrapped, found.facts())])]
    blocks += [
        _lines(f"Level {level.name}, {level.title}: {level.verdict}", level.facts)
        for level in found.levels
        if level.facts
    ]
    if found.points:
        lag = [
            (
                *(f"{p.share:.2f}x", _qps(p.qps), _qps(p.offered_qps), _qps(p.throughput_qps), f"{p.queries:,}"),
                *(
                    _percent(p.utilisation),
                    "/".join(f"{max(r.ratios):.2f}" for r in p.rehearsals) or "-",
                    _ratio(p.service_ratio),
                ),
                *(_pair_us(p.dispatch_lag_us), _pair_us(p.handover_us)),
                *(
                    f"{100 * p.lost_share:.2f}%",
                    f"{p.speed_change:+.1%}",
                    "ok" if p.counts_for_model else "NO",
                ),
            )
            for p in found.points
        ]
        header = (
            *("load", "q/s", "offered", "served", "queries", "busy"),
            *("rehearsed", "service", "lag us", "hand-over us", "lost", "speed", "gates"),
        )
        blocks.append("\n".join(["Runs", text_table(header, lag, align=">" * (len(header) - 1) + "<")]))
        rows = [row for point in found.points for row in _latency_rows(point)]
        titles = ("load", "", "measured ms", "replay", "", "model", "", "own arrivals", "", "by chance")
        blocks.append("\n".join(["Latencies", text_table(titles, rows, align="><>>>>>>>>")]))
        blocks.append("\n".join(_wrapped(line) for line in _VALIDATION_WORDS))
    return "\n\n".join(blocks)


_VALIDATION_WORDS = (
    "served: queries that ended, per second; rehearsed: seconds of service over the table's, in the rehearsals before "
    "and after the run, of the slowest stage; service: the run's over those of the model, which is half-way between; "
    "lag: the generator's, p50 and p99; hand-over: what a query took beyond its replay, p50 and p99; lost: share of "
    "the time that the machine took away; speed: how much longer the same services took in the stretch of the run that "
    "differs most; gates: whether all passed, those of the rehearsals too",
    "replay: the simulator with the run's own service times; model: a long simulation with fresh arrivals; own "
    "arrivals: the model with those of the run; by chance: where 95 % of the model's own runs of this length lie "
    "(* the measured figure does not); beside each its distance from the measured figure",
)


def _latency_rows(point: LoadPoint) -> Iterator[tuple[str, ...]]:
    """A line for each percentile of a run."""
    sources = (
        (point.replay_ms, point.replay_error),
        (point.model_ms, point.model_error),
        (point.own_ms, point.own_error),
    )
    for k, percentile in enumerate(point.percentiles):
        cells = []
        for figures, errors in sources:
            if figures is None or errors is None:
                cells += ["-", ""]
            else:
                cells += [_ms(figures[k]), f"{errors[k]:+.1%}" if math.isfinite(errors[k]) else ""]
        low, high = point.chance_ms[k]
        chance = "-" if math.isnan(low) else f"{_ms(low)}-{_ms(high)}{'' if point.within_chance[k] else ' *'}"
        yield (f"{point.share:.2f}x" if k == 0 else "", f"p{percentile:g}", _ms(point.measured_ms[k]), *cells, chance)


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else "never" if math.isinf(value) else f"{value:#.4g}".rstrip(".")


def _pair_us(pair: tuple[float, float]) -> str:
    return "-" if math.isnan(pair[0]) else f"{pair[0]:.0f}/{pair[1]:.0f}"


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


# --- plans ---------------------------------------------------------------------------------------------------------


def memory_text(sweep: MemorySweep) -> str:
    """What was gathered, and a line for every point of the sweep."""
    law = f"Zipf {sweep.exponent:g}" if sweep.exponent else "uniform"
    barrier = f"packets of {sweep.packet}" if sweep.packet else "no barriers"
    rows = [
        (
            str(point.vector_bytes),
            str(point.ranks),
            point.stage,
            f"{point.host_gb_s:.1f}",
            f"{point.bandwidth_gb_s:.1f}",
            f"{point.speedup:.2f}",
            _percent(point.hit_rate),
            "-" if math.isnan(point.energy_saving) else _percent(point.energy_saving),
        )
        for point in sweep.points
    ]
    header = ("row bytes", "ranks", "stage", "host GB/s", "near GB/s", "speedup", "cache hits", "energy saved")
    return "\n".join(
        (
            f"{sweep.standard}, one channel: {sweep.tables} tables of {sweep.rows:,} rows, {law}; "
            f"{sweep.bags} bags of {sweep.pooling} each; {barrier}",
            text_table(header, rows, align=">><>>>>>"),
            "speedup and energy saved: against a host with the same ranks and no cache",
        )
    )


def plan_text(run: PlanRun) -> str:
    """The week in a page: servers and watts, savings, what binds, who serves what best, where each input came from."""
    plan = run.plan
    blocks = [
        _headline(run),
        *_plan_blocks(plan),
        _unserved_block(run),
        _ranking_block(run.table),
        _inputs_block(run),
    ]
    return "\n\n".join(block for block in blocks if block)


def provision_text(plan: Plan) -> str:
    """A plan that was made from a table: as :func:`plan_text`, without what only a whole run knows."""
    blocks = [
        "\n".join([f"Plan for load {plan.load_name}", _scope_line(plan), f"  headroom {_headroom(plan)}"]),
        *_plan_blocks(plan),
        f"How it was made\n{mapping_text(_rules(plan) | ({'notes': '; '.join(plan.notes)} if plan.notes else {}))}",
    ]
    return "\n\n".join(block for block in blocks if block)


def _headline(run: PlanRun) -> str:
    plan, fleet = run.plan, run.fleet
    how = "as asked" if run.policy.headroom is not None else "the largest growth over one interval of the load"
    lines = [
        f"Plan for fleet {fleet.name}" + (f" ({fleet.label})" if fleet.label else ""),
        _scope_line(plan),
        f"  headroom {_headroom(plan)} ({how}), seed {run.seed}",
    ]
    if math.isfinite(run.largest_scale):
        lines.append(f"  the stock can serve {run.largest_scale:.3g} times this load, headroom included")
    peaks = (f"{name} {_qps(plan.load_qps[plan.peak, w])}" for w, name in enumerate(plan.workloads))
    lines.append(_wrapped(f"load at the peak, q/s: {', '.join(peaks)}"))
    if run.scaled:
        lines.append(
            _wrapped(
                "the load is scaled to what this stock serves within these SLAs with this headroom: plans for other "
                "SLAs or headrooms carry another load"
            )
        )
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _scope_line(plan: Plan) -> str:
    return (
        f"  {len(plan.times)} intervals of {_duration(plan.interval_s)} from {_moment(plan.times[0])} UTC, "
        f"{_count(len(plan.workloads), 'workload')}, {_count(len(plan.servers), 'server type')}"
    )


def _plan_blocks(plan: Plan) -> list[str]:
    return [
        _servers_block(plan),
        _power_block(plan),
        _savings_block(plan),
        _lines("Constraints", plan.binding_constraints()),
        _lines("Stock that binds", plan.binding_stock() or ("none: every type has servers left in every interval",)),
        _lines("Not to be used", plan.drained),
        _lines("Minimum footprints that cost something", plan.binding_minimum()),
        _lines(_short_title(plan), plan.shortfall()),
        _lines("Short if every server did only the lower end of its QPS interval", plan.lower_end()),
    ]


def _short_title(plan: Plan) -> str:
    if plan.shed_qps.any():
        return "LOAD THAT IS NOT SERVED"
    if plan.headroom_short_qps.any():
        return "HEADROOM THAT IS NOT THERE (all load is served)"
    return "LOAD THAT A FAILURE WOULD LEAVE UNSERVED (all demand is covered now)"


def _servers_block(plan: Plan) -> str:
    peak, trough = plan.peak, plan.trough
    on = plan.per_type
    rows = []
    for h, name in enumerate(plan.servers):
        stock = int(plan.stock[:, h].max())
        rows.append((name, f"{stock}", *_share_of(on[peak, h], stock), *_share_of(on[trough, h], stock)))
    total = int(plan.stock.sum(axis=1).max())
    rows.append(("all", f"{total}", *_share_of(plan.capacity[peak], total), *_share_of(plan.capacity[trough], total)))
    title = f"Servers on, at the peak ({_moment(plan.times[peak])}) and the trough ({_moment(plan.times[trough])})"
    header = ("type", "in stock", "peak", "share", "trough", "share")
    return f"{title}\n{text_table(header, rows)}"


def _headroom(plan: Plan) -> str:
    low, high = float(plan.headroom.min()), float(plan.headroom.max())
    return _percent(low) if low == high else f"{_percent(low)} to {_percent(high)} by workload"


def _share_of(count: int, stock: int) -> tuple[str, str]:
    return f"{int(count)}", f"{count / stock:.0%}" if stock else "-"


def _power_block(plan: Plan) -> str:
    def row(name: str, values: npt.NDArray[Any], form: str, scale: float = 1.0) -> tuple[str, str, str, str]:
        picked = (values[plan.peak], values[plan.trough], values.mean())
        at_peak, at_trough, mean = (format(value / scale, form) for value in picked)
        return name, at_peak, at_trough, mean

    rows = [
        row("servers on", plan.capacity, ",.0f"),
        row("power, whole servers (kW)", plan.power_w, ",.2f", 1000.0),
        row("power, linear program (kW)", plan.lp_power_w, ",.2f", 1000.0),
    ]
    if plan.is_covered:  # with shed load, bound and gap are of watts plus penalties
        if plan.costs is None:
            rows.append(row("lower bound of any plan (kW)", plan.bound_w, ",.2f", 1000.0))
        else:
            rows.append(row(f"cost of an interval ({plan.costs.currency})", plan.cost, ",.4g"))
            rows.append(row(f"lower bound of any plan ({plan.costs.currency})", plan.bound_w, ",.4g"))
        rows.append(row("gap, (plan - bound) / plan", plan.gap, ".2%"))
    parts = ["Capacity and power", text_table(("", "peak", "trough", "mean"), rows)]
    parts.append(_wrapped(f"in all: {plan.cost_words()}"))
    return "\n".join(parts)


def _savings_block(plan: Plan) -> str:
    savings = plan.savings()
    if not savings:
        return ""
    rows = [
        (
            f"against {name}",
            *(_saved(x) for x in (saving.peak_capacity, saving.peak_power, saving.mean_capacity, saving.mean_power)),
        )
        for name, saving in savings.items()
    ]
    header = ("", "servers, own peak", "power, own peak", "servers, mean", "power, mean")
    parts = ["Saved (negative: the plan needs more)", text_table(header, rows)]
    tops = [("this plan", plan.capacity, plan.power_w)]
    tops += [(name, base.capacity, base.power_w) for name, base in plan.baselines.items()]
    told = (f"{name} {int(on.max())} servers and {watts.max() / 1000:,.2f} kW" for name, on, watts in tops)
    parts.append(_wrapped(f"own peak: the largest of the week for each: {', '.join(told)}"))
    parts += [_wrapped(line) for name in savings for line in _uncovered_lines(plan, name)]
    parts += [_wrapped(line) for line in _spread_lines("greedy", "orders of the workloads", plan.greedy_order_spread)]
    parts += [_wrapped(line) for line in _spread_lines("oblivious", "draws", plan.oblivious_spread)]
    return "\n".join(parts)


def _uncovered_lines(plan: Plan, name: str) -> list[str]:
    """Say where a baseline buys less than the plan does, so that nobody compares the two unawares."""
    baseline = plan.baselines[name]
    if baseline.covers.all():
        return []
    t, w = np.unravel_index(baseline.unmet_qps.argmax(), baseline.unmet_qps.shape)
    count = int((~baseline.covers).sum())
    share = _percent(baseline.unmet_qps[t, w] / plan.demand_qps[t, w])
    return [
        f"note: {name} does not cover the load in {count} of {len(plan.times)} intervals, at worst {plan.workloads[w]} "
        f"by {_qps(baseline.unmet_qps[t, w])} q/s ({share}) at {_moment(plan.times[t])}; its peak "
        "is of an answer that drops load, so saving at the peak is understated; the means leave those intervals out"
    ]


def _spread_lines(name: str, what: str, spread: OrderSpread | None) -> list[str]:
    if spread is None:
        return []
    text = f"{name} at the peak over {spread.orders} {what}"
    if spread.power_w is None or spread.capacity is None:
        return [f"{text}: none covers the load"]
    least, median, most = (f"{watts / 1000:.2f}" for watts in spread.power_w)
    fewest, middle, largest = (f"{count:.0f}" for count in spread.capacity)
    return [
        f"{text}: {least} kW at best, {median} median, {most} at worst; {fewest}, {middle}, {largest} servers; "
        f"{_percent(spread.failing_share)} of them do not cover the load"
    ]


def _unserved_block(run: PlanRun) -> str:
    return _lines(
        "SLA OUT OF REACH",
        [f"{name}: no server of the fleet serves it within its SLA; it is not in the plan" for name in run.unserved],
    )


RANKED = ("best", "second", "third")
"""Servers listed per workload."""


def _ranking_block(table: EfficiencyTable) -> str:
    rankings = [table.ranking(workload) for workload in table.workloads]
    columns = [["workload", *table.workloads]]
    for place, title in enumerate(RANKED):
        placed = [ranking[place] if place < len(ranking) else None for ranking in rankings]
        columns.append(_ranked_column(title, placed))
    header, *body = zip(*columns, strict=True)
    parts = [
        "Best servers of each workload, each at the highest load within the SLA and the utilisation cap",
        text_table(header, body, align="<" * len(header)),
    ]
    rows = [row for row in table.rows if row.status == "ok"]
    capped = sum("cap" in row.reason for row in rows)
    parts.append(_wrapped(f"{capped} of {len(rows)} pairs reach the cap before the SLA (reasons in efficiency.csv)"))
    parts += [_wrapped(line) for workload in table.workloads for line in _cannot_lines(table, workload)]
    return "\n".join(parts)


def _ranked_column(title: str, rows: Sequence[EfficiencyRow | None]) -> list[str]:
    """Server, QPS, W and QPS/W side by side in one column, so that three of them fit a page."""
    cells = [(title, "QPS", "W", "QPS/W")]
    for row in rows:
        figures = (row.server, _qps(row.qps), f"{row.power_w:.0f}", _efficiency(row)) if row else ("",) * 4
        cells.append(figures)
    server, *numbers = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        " ".join([f"{name:<{server}}", *(f"{x:>{width}}" for x, width in zip(figures, numbers, strict=True))])
        for name, *figures in cells
    ]


def _cannot_lines(table: EfficiencyTable, workload: str) -> list[str]:
    """Why servers cannot, those with one (first) reason together; the table holds the whole reasons."""
    servers: dict[str, list[str]] = {}
    for server in table.servers:
        row = table.best(server, workload)
        if row is not None and row.status == "infeasible":
            servers.setdefault(row.reason.partition(";")[0], []).append(server)
    return [f"{workload} not on {', '.join(names)}: {reason}" for reason, names in servers.items()]


def _inputs_block(run: PlanRun) -> str:
    told = {name: words for name, words in run.inputs.items() if name != "fleet"}  # that is the headline
    return f"Where the inputs came from\n{mapping_text(told | _rules(run.plan))}"


def _rules(plan: Plan) -> dict[str, str]:
    return {name: baseline.rule for name, baseline in plan.baselines.items()}


def _lines(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *map(_wrapped, lines)]) if lines else ""


# --- efficiency ----------------------------------------------------------------------------------------------------


def _workload_block(table: EfficiencyTable, workload: str) -> str:
    able = table.ranking(workload)
    rows = [
        ("" if k else row.server, *_figures(point), point.config.describe() if point.config else "")
        for row in able
        for k, point in enumerate(_points(table, row))
    ]
    found = [table.best(server, workload) for server in table.servers]
    slas = next((_slas_text(row.sla) for row in found if row is not None and row.sla), "SLA not recorded")
    parts = [f"{workload}, {slas}"]
    if rows:
        header = ("server", "QPS", "95 % interval", "W", "QPS/W", "configuration")
        parts.append(text_table(header, rows, align="<>>>><"))
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


def _points(table: EfficiencyTable, best: EfficiencyRow) -> list[EfficiencyRow]:
    """All rows of a pair, by falling QPS."""
    own = [row for row in table.rows if (row.server, row.workload) == (best.server, best.workload)]
    return sorted(own, key=lambda row: -row.qps)


def _figures(row: EfficiencyRow) -> tuple[str, str, str, str]:
    interval = f"{_qps(row.qps_lo)}-{_qps(row.qps_hi)}" if row.qps_lo != row.qps_hi else "at the cap"
    return (_qps(row.qps), interval, f"{row.power_w:.0f}", _efficiency(row))


# --- formats -------------------------------------------------------------------------------------------------------


def _percent(share: float) -> str:
    return "<0.01%" if 0.0 < share < 1e-4 else f"{100 * share:.3g}%"


def _saved(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _duration(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def _moment(time: np.datetime64) -> str:
    """Day of the week, date, hour and minute, in English whatever the locale."""
    days = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")  # 1970-01-01 was a Thursday
    day = time.astype("datetime64[D]")
    return f"{days[int(day.astype(np.int64)) % 7]} {str(time.astype('datetime64[m]')).replace('T', ' ')}"


def _qps(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _efficiency(row: EfficiencyRow) -> str:
    return f"{row.qps_per_watt:#.3g}".rstrip(".")


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
