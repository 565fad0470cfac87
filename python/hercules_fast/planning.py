"""The whole road: a fleet and its load in, the week's plan out, with everything that it rests on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hercules_fast import _core
from hercules_fast.errors import DTypeError, InputError, OutputError, UnknownNameError
from hercules_fast.fleets import Fleet
from hercules_fast.profiling import Effort, profile
from hercules_fast.profiling.settings import Method
from hercules_fast.provisioning import Plan, Policy, largest_growth, provision
from hercules_fast.serving import PowerMode, Terms
from hercules_fast.tables import EfficiencyTable, write_atomically
from hercules_fast.traffic import LoadTrace, Sla, Workload, load

__all__ = ["CASES", "PlanRun", "parse_sla", "plan", "with_sla"]

CASES = {"today": 0.70, "growth": 0.85}
"""Peak of a relative load, headroom included, as a share of the largest load that the LP can serve."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanRun:
    """A plan and all that it was made from. ``inputs`` says where each input came from, in words."""

    fleet: Fleet
    table: EfficiencyTable
    load: LoadTrace
    plan: Plan
    policy: Policy
    seed: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    scaled: bool
    """The load was relative: its q/s were chosen from what the stock can serve under these SLAs and this headroom."""
    largest_scale: float
    """Factor by which this load, headroom included, could grow before the LP sheds (infinite without load)."""

    @property
    def unserved(self) -> tuple[str, ...]:
        """Workloads that no server type of the fleet can serve within their SLA."""
        qps, _ = self.table.matrices()
        return tuple(w for k, w in enumerate(self.table.workloads) if not qps[:, k].any())

    @property
    def requirements_met(self) -> bool:
        """All load is served, by servers that meet the SLAs."""
        return self.plan.is_covered and not self.unserved

    def resolved(self) -> dict[str, Any]:
        """Inputs as they were used, for the run directory."""
        return {
            "schema": "hercules_fast.run/1",
            "version": _core.build_info()["version"],
            "seed": self.seed,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "policy": _plain(asdict(self.policy)),
            "largest_scale": None if math.isinf(self.largest_scale) else self.largest_scale,
            "fleet": _plain(asdict(self.fleet)),
            "load": {
                "name": self.load.name,
                "origin": self.load.origin,
                "workloads": list(self.load.workloads),
                "interval_s": self.load.interval_s,
                "start": str(self.load.times[0]),
                "intervals": len(self.load.times),
                "repairs": asdict(self.load.repairs),
            },
        }

    def files(self) -> dict[str, str]:
        """Name and content of each file of the run directory. Same run, same bytes."""
        return {
            "run.json": json.dumps(self.resolved(), indent=1, sort_keys=True, allow_nan=False) + "\n",
            "efficiency.json": self.table.to_json(),
            "efficiency.csv": self.table.to_csv(),
            "load.csv": _load_csv(self.load),
            "plan.json": self.plan.to_json(),
            "plan.csv": self.plan.to_csv(),
        }

    def save(self, directory: str | Path) -> list[Path]:
        """Write the run directory; each file is there as a whole or not at all.

        Raises:
            OutputError: the directory cannot be made or written.
        """
        folder = Path(directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {folder}: {error.strerror or error}") from error
        written = []
        for name, content in self.files().items():
            write_atomically(folder / name, content.encode())
            written.append(folder / name)
        return written


def plan(
    fleet: Fleet,
    load_trace: LoadTrace | None = None,
    *,
    policy: Policy = Policy(),
    sla: str | None = None,
    case: str | None = None,
    search: Method = "gradient",
    seed: int = 0,
    threads: int | None = None,
    terms: Terms = Terms(),
    power_mode: PowerMode = "component",
    effort: Effort = Effort(),
    table: EfficiencyTable | None = None,
    progress: Progress | None = None,
) -> PlanRun:
    """Profile every workload of ``fleet`` on every server type, then provision ``load_trace``.

    Args:
        fleet: servers, stock and workloads.
        load_trace: load per workload and interval; default: the built-in week. A relative one is scaled so that every
            workload asks for the same number of reference servers and the peak, headroom included, is the share
            ``policy.peak_share`` (0.70) of the largest load that the LP can serve: it depends on SLAs and headroom.
        policy: headroom, rounding, baselines.
        sla: ``"p99"`` (other percentile, same latency) or ``"p99:25ms"`` for every workload; default: the fleet's.
        case: ``"today"`` (0.70) or ``"growth"`` (0.85) in place of ``policy.peak_share``; for a relative load only.
        table: an efficiency table of this fleet, to plan without profiling again.
        search, seed, threads, terms, power_mode, effort, progress: as in :func:`hercules_fast.profile`.

    Raises:
        InputError: an argument is outside what is allowed; UnknownNameError for names.
        DTypeError: an argument is of another type; the message says where to get the right one.
        InterruptedRun: Ctrl-C while profiling; ``partial`` is the table of the finished pairs.
    """
    _check_types(fleet, load_trace, policy, table)
    if case is not None and case not in CASES:
        raise UnknownNameError.of("case", case, CASES)
    workloads = tuple(with_sla(w, sla) for w in fleet.workloads)
    fleet = replace(fleet, workloads=workloads)
    names = [w.name for w in workloads]
    trace = load("week", workloads=names) if load_trace is None else load_trace
    if not trace.relative:
        for name in trace.workloads:
            if name not in names:
                raise UnknownNameError.of("workload in the load", name, names)
    if table is None:
        table = profile(
            fleet.servers,
            workloads,
            search=search,
            seed=seed,
            threads=threads,
            terms=terms,
            power_mode=power_mode,
            effort=effort,
            progress=progress,
        )
    scaled = trace.relative
    if not scaled and case is not None:
        raise InputError(f"case: is {case!r}, but the load is given in q/s; a case scales a relative load only")
    if scaled:
        policy = replace(
            policy,
            peak_share=policy.peak_share if case is None else CASES[case],
            reference_server=policy.reference_server or fleet.reference_server,
        )
    result = provision(table, trace, fleet.stock, policy)
    if scaled:
        trace = replace(trace, qps=result.load_qps, relative=False)
    return PlanRun(
        fleet=fleet,
        table=table,
        load=trace,
        plan=result,
        policy=policy,
        seed=seed,
        settings={
            "sla": sla or "as the fleet says",
            "peak_share": policy.peak_share if scaled else "as the load says",
            "search": table.meta.get("search", "given table"),
            "power_mode": table.meta.get("power_mode", "given table"),
            "terms": asdict(terms),
            "effort": asdict(effort),
        },
        inputs=_provenance(fleet, trace, table, result),
        scaled=scaled,
        largest_scale=largest_growth(result.problem(), minimum=result.minimum).factor,
    )


def _check_types(fleet: Any, load_trace: Any, policy: Any, table: Any) -> None:
    for name, value, wanted, source in (
        ("fleet", fleet, Fleet, "hf.fleet('zoo10') or hf.load_fleet(path)"),
        ("load_trace", load_trace, LoadTrace, "hf.read_load_csv(path, workloads=...) or LoadTrace.from_arrays(...)"),
        ("policy", policy, Policy, "hf.Policy(headroom=0.1)"),
        ("table", table, EfficiencyTable, "hf.EfficiencyTable.load(path) or hf.profile(...)"),
    ):
        if not isinstance(value, wanted) and not (value is None and name in ("load_trace", "table")):
            shown = f"{value!r}, " if isinstance(value, str) else "of type "
            raise DTypeError(
                f"{name}: is {shown}{type(value).__name__}; allowed is {wanted.__name__}, such as {source}"
            )


_SLA = re.compile(r"p(?P<percentile>\d{1,2}(?:\.\d+)?)(?::(?P<latency>\d+(?:\.\d+)?)\s*(?P<unit>ms|s))?\Z")


def parse_sla(text: str) -> tuple[float, float | None]:
    """``"p95"`` -> (95, None); ``"p99:25ms"`` -> (99, 25).

    Raises:
        InputError: the text is neither, or a number is out of range.
    """
    found = _SLA.match(text.strip().lower())
    if not found:
        raise InputError(f"sla: is {text!r}; allowed are a percentile such as 'p95', or 'p99:25ms'")
    percentile = float(found["percentile"])
    latency = float(found["latency"]) * (1e3 if found["unit"] == "s" else 1.0) if found["latency"] else None
    if not 1 <= percentile < 100:
        raise InputError(f"sla: percentile is {percentile:g}; allowed is 1 <= percentile < 100, in percent")
    if latency is not None and latency <= 0:
        raise InputError(f"sla: latency is {latency:g} ms; allowed is > 0")
    return percentile, latency


def with_sla(workload: Workload, sla: str | None) -> Workload:
    """``workload`` with the percentile (and latency, if given) of ``sla`` in place of its own."""
    if sla is None:
        return workload
    percentile, latency = parse_sla(sla)
    slas = tuple(
        Sla(percentile=percentile, latency_ms=latency if latency is not None else old.latency_ms, status="as asked")
        for old in workload.slas
    )
    return replace(workload, slas=tuple(dict.fromkeys(slas)))


def _provenance(fleet: Fleet, trace: LoadTrace, table: EfficiencyTable, result: Plan) -> dict[str, str]:
    origins = sorted({row.origin for row in table.rows})
    seed = table.meta.get("seed")
    repairs = trace.repairs
    lines = {
        "fleet": f"{fleet.name}: {fleet.label}",
        "efficiency table": f"{', '.join(origins)}; {len(table.rows)} rows"
        + (f"; seed {seed}, {table.meta.get('search')} search" if seed is not None else ""),
        "power": f"mode {table.meta.get('power_mode', 'given')}",
        "latency targets": "; ".join(
            f"{w.name} {' and '.join(map(str, w.slas))} ({w.slas[0].status})" for w in fleet.workloads
        ),
        "query sizes": ", ".join(sorted({w.sizes.name for w in fleet.workloads})),
        "arrivals": ", ".join(sorted({w.arrivals.name for w in fleet.workloads})),
        "popularity of rows": ", ".join(sorted({w.popularity.name for w in fleet.workloads})),
        "load": trace.origin or trace.name,
        "provisioning": "; ".join(result.notes) or f"headroom {result.headroom_words()} as given",
    }
    if repairs.rows:
        lines["load repairs"] = (
            f"{repairs.rows} rows read, {repairs.irregular_steps} irregular steps, "
            f"{repairs.carried_steps} missing steps carried forward"
        )
    return lines


def _load_csv(trace: LoadTrace) -> str:
    rows = ["timestamp," + ",".join(trace.workloads)]
    for time, values in zip(trace.times, trace.qps, strict=True):
        rows.append(f"{time}Z," + ",".join(repr(float(x)) for x in values))
    return "\n".join(rows) + "\n"


def _plain(value: Any) -> Any:
    """Tuples to lists and mappings to dicts, all the way down, so that the result is JSON."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value
