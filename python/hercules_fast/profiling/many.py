"""Offline profiling of many pairs: the efficiency table of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from hercules_fast import _core
from hercules_fast.errors import InputError, InterruptedRun
from hercules_fast.hardware import Server
from hercules_fast.profiling.pairs import make_pair, row_of, run_pairs
from hercules_fast.profiling.settings import Effort, Goal, Method, Progress, check_arguments
from hercules_fast.serving import PowerMode, Terms
from hercules_fast.tables import EfficiencyTable
from hercules_fast.traffic import Workload

__all__ = ["profile"]


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
    check_arguments(servers, workloads, search, seed, terms, effort)
    seed = int(seed)
    if power_mode not in ("component", "tdp"):
        raise InputError(f"power_mode: is {power_mode!r}; allowed are 'component', 'tdp'")
    effort = effort.enough_for(workloads)
    pairs = [make_pair(server, workload, terms) for server in servers for workload in workloads]
    results, interrupted = run_pairs(pairs, search, seed, threads, effort, progress, Goal(power_mode=power_mode))
    rows = [
        row_of(pair, result, seed, power_mode, effort)
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
