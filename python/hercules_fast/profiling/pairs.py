"""Offline profiling: for every (server, workload) the configuration with the highest latency-bounded throughput."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from typing import Any, Literal

from hercules_fast import _core
from hercules_fast.errors import DTypeError, InputError, InterruptedRun
from hercules_fast.hardware import Server
from hercules_fast.profiling.lattice import Space, space
from hercules_fast.serving import PowerMode, Terms, fits, server_power, service_table
from hercules_fast.serving.simulation import TAIL_QUERIES, WARMUP_SHARE, core_grid, core_traffic
from hercules_fast.tables import EfficiencyRow, EfficiencyTable, SchedulingConfig, ServiceTable
from hercules_fast.traffic import Workload

__all__ = ["Effort", "Method", "SearchResult", "SearchStep", "profile", "search"]

Method = Literal["gradient", "exhaustive"]
Progress = Callable[[int, int], None]
METHODS = ("gradient", "exhaustive")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much simulation an answer is worth.

    ``queries`` per probe of the search; the winner is then measured with ``replications`` independent runs of
    ``final_queries`` each, from which the interval of its QPS comes. Both grow to what the highest percentile of the
    SLAs needs (ten queries above it, after a tenth of the run is dropped as warm-up). A probe passes only if every CPU
    stage is busy for at most ``utilisation_cap`` of the time: a loose SLA would otherwise be met at loads that no
    operator runs.
    """

    queries: int = 4096
    final_queries: int = 16384
    replications: int = 5
    utilisation_cap: float = 0.95

    def __post_init__(self) -> None:
        for name, least, why in (
            ("queries", 100, ""),
            ("final_queries", 100, ""),
            ("replications", 2, ", for there to be an interval"),
        ):
            count = getattr(self, name)
            if type(count) is not int or count < least:
                raise InputError(f"effort.{name}: is {count!r}; allowed is a whole number >= {least}{why}")
        cap = self.utilisation_cap
        if isinstance(cap, bool) or not isinstance(cap, int | float) or not 0 < cap <= 1:
            raise InputError(f"effort.utilisation_cap: is {cap!r}; allowed is 0 < cap <= 1")

    def enough_for(self, workloads: Sequence[Workload]) -> Effort:
        """This effort, or the least longer one that determines every percentile of the workloads' SLAs."""
        highest = max((sla.percentile for w in workloads for sla in w.slas), default=0.0)
        needed = math.ceil(TAIL_QUERIES / (1 - highest / 100) / (1 - WARMUP_SHARE)) + 2
        return replace(self, queries=max(self.queries, needed), final_queries=max(self.final_queries, needed))


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchStep:
    """One step of a search: the configuration it moved to, the QPS there (of the search's own short runs), and why."""

    config: SchedulingConfig
    qps: float
    move: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """What a search found and what it cost."""

    row: EfficiencyRow
    method: Method
    path: tuple[SearchStep, ...]
    candidates: int
    """Configurations of the space."""
    evaluations: int
    """Configurations that were simulated."""
    probes: int
    """Simulated loads."""
    simulated_queries: int

    def explain(self) -> str:
        """Where the search went and why it stopped, in words."""
        row = self.row
        lines = [f"{row.workload} on {row.server}: {self.method} search over {self.candidates} configurations"]
        lines += [f"  {step.qps:10.1f} qps  {step.move:<24} {step.config.describe()}" for step in self.path]
        if row.status == "ok" and row.config is not None:
            lines.append(f"  best: {row.config.describe()}")
            lines.append(f"  {row.qps:.1f} qps (95 % interval {row.qps_lo:.1f} to {row.qps_hi:.1f}), {row.reason}")
        else:
            lines.append(f"  infeasible: {row.reason}")
        lines.append(
            f"  evaluated {self.evaluations} of {self.candidates} configurations, {self.probes} loads, "
            f"{self.simulated_queries} queries"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = asdict(self)
        if math.isnan(self.row.energy_j_per_query):
            data["row"]["energy_j_per_query"] = None
        return data


@dataclass(frozen=True, slots=True)
class _Pair:
    """One pair on its way through a search; without a table where the model does not fit."""

    server: Server
    workload: Workload
    table: ServiceTable | None
    space: Space | None


def profile(
    servers: Sequence[Server],
    workloads: Sequence[Workload],
    *,
    search: Method = "gradient",
    seed: int = 0,
    threads: int | None = None,
    terms: Terms = Terms(),
    power_mode: PowerMode = "component",
    effort: Effort = Effort(),
    progress: Progress | None = None,
) -> EfficiencyTable:
    """Latency-bounded QPS and power of every workload on every server type.

    Service times come from the descriptors (:func:`hercules_fast.serving.service_table`), each configuration is
    judged by simulation on common random numbers. The same arguments give the same bytes for any ``threads``.

    Args:
        servers, workloads: descriptors; names must be unique.
        search: ``gradient`` or ``exhaustive`` (every configuration, its slow twin).
        seed: seed of arrivals and query sizes, 0 <= seed < 2**63.
        threads: threads of the search; default: ``HERCULES_FAST_NUM_THREADS``, else all that this process may use.
        terms: effects of the service-time model.
        power_mode: ``component`` or ``tdp``, see :mod:`hercules_fast.serving.power`.
        effort: lengths of simulations.
        progress: called with (finished pairs, all pairs) now and then.

    Raises:
        InputError: an argument is outside what is allowed.
        DTypeError: an argument is no descriptor; the message says where to get one.
        InterruptedRun: Ctrl-C; ``partial`` is the table of the finished pairs, None without any.
    """
    _check(servers, workloads, search, seed, terms, effort)
    seed = int(seed)
    if power_mode not in ("component", "tdp"):
        raise InputError(f"power_mode: is {power_mode!r}; allowed are 'component', 'tdp'")
    effort = effort.enough_for(workloads)
    pairs = [_pair(server, workload, terms) for server in servers for workload in workloads]
    results, interrupted = _run(pairs, search, seed, threads, effort, progress)
    rows = [
        _row(pair, result, seed, power_mode)
        for pair, result in zip(pairs, results, strict=True)
        if pair.table is None or result is not None
    ]
    if interrupted and not rows:
        raise InterruptedRun(f"interrupted before the first of {len(pairs)} pairs was finished")
    table = EfficiencyTable(
        rows=tuple(rows),
        servers=tuple(s.name for s in servers),
        workloads=tuple(w.name for w in workloads),
        meta={
            "seed": seed,
            "search": search,
            "power_mode": power_mode,
            "effort": asdict(effort),
            "terms": asdict(terms),
            "version": _core.build_info()["version"],
            "random_stream_version": _core.build_info()["random_stream_version"],
        },
    )
    if interrupted:
        raise InterruptedRun(f"interrupted after {len(rows)} of {len(pairs)} pairs", table)
    return table


def search(
    server: Server,
    workload: Workload,
    *,
    method: Method = "gradient",
    seed: int = 0,
    threads: int | None = None,
    terms: Terms = Terms(),
    power_mode: PowerMode = "component",
    effort: Effort = Effort(),
    progress: Progress | None = None,
) -> SearchResult:
    """Search the scheduling configurations of one workload on one server, and show the path.

    Arguments and errors as in :func:`profile`. Where the model does not fit, the result says so; it does not raise.
    """
    _check_type("server", server, Server, _A_SERVER)
    _check_type("workload", workload, Workload, _A_WORKLOAD)
    _check([server], [workload], method, seed, terms, effort)
    seed = int(seed)
    effort = effort.enough_for([workload])
    pair = _pair(server, workload, terms)
    (result,), interrupted = _run([pair], method, seed, threads, effort, progress)
    if interrupted:
        raise InterruptedRun("interrupted before the search ended")
    row = _row(pair, result, seed, power_mode)
    if result is None or pair.table is None or pair.space is None:
        return SearchResult(row=row, method=method, path=(), candidates=0, evaluations=0, probes=0, simulated_queries=0)
    path = tuple(
        SearchStep(config=pair.space.config(pair.table, index), qps=qps, move=move)
        for index, qps, move in result["path"]
    )
    return SearchResult(
        row=row,
        method=method,
        path=path,
        candidates=len(pair.space.candidates),
        evaluations=result["evaluations"],
        probes=result["probes"],
        simulated_queries=result["simulated_queries"],
    )


_A_SERVER = "hf.hardware.server('T2') or one of hf.fleet('zoo10').servers"
_A_WORKLOAD = "one of hf.fleet('zoo10').workloads"


def _check_type(name: str, value: object, wanted: type, source: str) -> None:
    if not isinstance(value, wanted):
        shown = f"{value!r}, " if isinstance(value, str) else "of type "
        raise DTypeError(f"{name}: is {shown}{type(value).__name__}; allowed is {wanted.__name__}, such as {source}")


def _check(
    servers: Sequence[Server], workloads: Sequence[Workload], method: str, seed: int, terms: Terms, effort: Effort
) -> None:
    for what, items, kind, source in (
        ("servers", servers, Server, _A_SERVER),
        ("workloads", workloads, Workload, _A_WORKLOAD),
    ):
        if isinstance(items, str) or not isinstance(items, Sequence):
            shown = f"{items!r}, " if isinstance(items, str) else "of type "
            raise DTypeError(
                f"{what}: is {shown}{type(items).__name__}; allowed is a list of {kind.__name__}, "
                f"such as hf.fleet('zoo10').{what}"
            )
        for k, item in enumerate(items):
            _check_type(f"{what}[{k}]", item, kind, source)
    _check_type("terms", terms, Terms, "hf.Terms()")
    _check_type("effort", effort, Effort, "hf.Effort()")
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise InputError(f"seed: is {seed!r}; allowed is a whole number, 0 <= seed < 2**63")
    if method not in METHODS:
        raise InputError(f"search: is {method!r}; allowed are {', '.join(map(repr, METHODS))}")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: is {seed}; allowed is 0 <= seed < 2**63")
    for what, names in (("servers", [s.name for s in servers]), ("workloads", [w.name for w in workloads])):
        if not names:
            raise InputError(f"{what}: is empty; at least one is needed")
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{what}: {name!r} is named twice")
    for workload in workloads:
        if not workload.slas:
            raise InputError(f"workloads.{workload.name}.slas: is empty; at least one SLA is needed")


def _pair(server: Server, workload: Workload, terms: Terms) -> _Pair:
    if not fits(server, workload.model).anywhere:
        return _Pair(server, workload, None, None)
    table = service_table(server, workload, terms)
    return _Pair(server, workload, table, space(table))


def _run(
    pairs: Sequence[_Pair],
    method: Method,
    seed: int,
    threads: int | None,
    effort: Effort,
    progress: Progress | None,
) -> tuple[list[Mapping[str, Any] | None], bool]:
    """Search all pairs that fit in one call of the core; None where a pair does not fit or was not finished."""
    fitting = [k for k, pair in enumerate(pairs) if pair.table is not None]
    problems = []
    for k in fitting:
        pair = pairs[k]
        assert pair.table is not None and pair.space is not None
        problems.append(
            _core.SearchProblem(
                core_grid(pair.table),
                core_traffic(pair.workload.sizes, pair.workload.arrivals, seed),
                pair.space.candidates,
                pair.space.coords,
                pair.space.starts,
                [(sla.percentile / 100, sla.latency_ms / 1e3) for sla in pair.workload.slas],
            )
        )
    found, interrupted = _core.search(
        problems,
        method=method,
        queries=effort.queries,
        final_queries=effort.final_queries,
        replications=effort.replications,
        cap=effort.utilisation_cap,
        threads=threads,
        progress=progress,
    )
    results: list[Mapping[str, Any] | None] = [None] * len(pairs)
    for k, result in zip(fitting, found, strict=True):
        results[k] = result
    return results, interrupted


def _row(pair: _Pair, result: Mapping[str, Any] | None, seed: int, power_mode: PowerMode) -> EfficiencyRow:
    sla = tuple((s.percentile, s.latency_ms) for s in pair.workload.slas)
    digest = pair.table.digest() if pair.table else ""

    def infeasible(reason: str) -> EfficiencyRow:
        return EfficiencyRow(
            server=pair.server.name,
            workload=pair.workload.name,
            sla=sla,
            qps=0.0,
            qps_lo=0.0,
            qps_hi=0.0,
            achieved_ms=(),
            power_w=0.0,
            power_mode=power_mode,
            energy_j_per_query=math.nan,
            utilisation={},
            memory_bytes={},
            config=None,
            status="infeasible",
            reason=reason,
            origin="modelled",
            seed=seed,
            source_digest=digest,
            evaluations=result["evaluations"] if result else 0,
        )

    if pair.table is None or pair.space is None or result is None:
        return infeasible(fits(pair.server, pair.workload.model).reason())
    if result["best"] < 0:
        unloaded = ", ".join(
            f"p{p:g} is at best {1e3 * seconds:.3g} ms without load, allowed are {ms:g} ms"
            for (p, ms), seconds in zip(sla, result["unloaded_s"], strict=True)
            if seconds * 1e3 > ms
        )
        otherwise = "none meets all of its percentiles at once, or the best did not on independent runs"
        return infeasible(f"no configuration meets the SLA: {unloaded or otherwise}")
    config = pair.space.config(pair.table, result["best"])
    power = server_power(
        pair.table,
        config,
        qps=result["qps"],
        stage_utilisation=[float(u) for u in result["utilisation"]],
        energy_j_per_query=sum(
            float(e) for e, t in zip(result["energy_j_per_query"], config.threads, strict=True) if t
        ),
        mode=power_mode,
    )
    variant = pair.table.variants[config.variant]
    return EfficiencyRow(
        server=pair.server.name,
        workload=pair.workload.name,
        sla=sla,
        qps=result["qps"],
        qps_lo=result["qps_lo"],
        qps_hi=result["qps_hi"],
        achieved_ms=tuple(1e3 * float(s) for s in result["achieved_s"]),
        power_w=power.power_w,
        power_mode=power_mode,
        energy_j_per_query=power.power_w / result["qps"],
        utilisation=dict(power.utilisation),
        memory_bytes=dict(variant.memory_bytes),
        config=config,
        status="ok",
        reason=f"limited by {result['limit']}",
        origin="modelled",
        seed=seed,
        source_digest=digest,
        evaluations=result["evaluations"],
    )
