"""Offline profiling of many pairs: the efficiency table of a fleet."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from time import monotonic

from hercules_fast.errors import DTypeError, ExecutorError, InputError, InterruptedRun
from hercules_fast.hardware import Server
from hercules_fast.profiling.executors import Found, Request, Task, run_here, run_on
from hercules_fast.profiling.journal import Inputs, Journal
from hercules_fast.profiling.pairs import Pair
from hercules_fast.profiling.settings import (
    Cost,
    Effort,
    Goal,
    Method,
    Objective,
    Progress,
    Tables,
    check_arguments,
    check_tables,
)
from hercules_fast.serving import PowerMode, Terms
from hercules_fast.tables import EfficiencyRow, EfficiencyTable
from hercules_fast.traffic import Workload

__all__ = ["ProfiledTable", "profile"]

COARSE = Effort(
    queries=1024, polish_queries=2048, final_queries=2048, replications=2, precision=1e3, most_replications=2
)
COARSE_EVALUATIONS = 64
"""Most that the first answers of a run with a time budget are worth."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ProfiledTable(EfficiencyTable):
    """The table of a profile, and how this call came to it. What is saved is the table alone."""

    kept: tuple[tuple[str, str], ...] = ()
    """Pairs (server, workload) whose rows were in the journal."""
    changed: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Pairs that were profiled anew though the journal had rows of them, and the inputs that had changed."""


def profile(
    servers: Sequence[Server],
    workloads: Sequence[Workload],
    *,
    search: Method = "gradient",
    objective: Objective = "qps",
    cost: Cost | None = None,
    power_budget_w: float | None = None,
    front: bool = False,
    evaluations: int | None = None,
    tables: Tables | None = None,
    seed: int = 0,
    threads: int | None = None,
    terms: Terms = Terms(),
    power_mode: PowerMode = "component",
    effort: Effort = Effort(),
    progress: Progress | None = None,
    journal: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    time_budget_s: float | None = None,
) -> ProfiledTable:
    """Latency-bounded QPS and power of every workload on every server type.

    Service times come from the descriptors (:func:`hercules_fast.serving.service_table`), each configuration is
    judged by simulation on common random numbers. The same arguments give the same bytes for any ``threads``, on any
    ``executor`` and however often a ``journal`` was resumed; a time budget that was too short does not.

    Args:
        servers, workloads: descriptors; names must be unique.
        search: ``gradient``, or what it is held against: ``exhaustive`` (every configuration that the bounds leave),
            ``hill``, ``deeprecsys``, ``random``.
        objective, cost, power_budget_w, front, evaluations, tables: as in :func:`search`; with ``front`` a pair has a
            row for each point, the best by the objective first.
        seed: seed of arrivals and query sizes, 0 <= seed < 2**63.
        threads: threads of the search; default: ``HERCULES_FAST_NUM_THREADS``, else all that this process may use.
        terms: effects of the service-time model.
        power_mode: ``component`` or ``tdp``, see :mod:`hercules_fast.serving.power`.
        effort: lengths of simulations; of each workload at least what its highest percentile needs.
        progress: called with (finished pairs, all pairs) when a pair is finished.
        journal: file that takes the rows of each pair as soon as it is finished, made if it is not there. A later call
            with the same journal goes on where the earlier one ended. It keeps rows whose service table and workload
            are unchanged, and is refused if anything else differs.
        executor: any ``concurrent.futures.Executor``, whose workers search one pair at a time on one thread.
        time_budget_s: seconds for the whole call. Every pair first gets a coarse answer, however long that takes; then
            full searches follow in order. A row that is not final says so in its ``reason``; ``meta["not_final"]``
            lists the pairs. A journal takes final rows only.

    Raises:
        InputError: an argument is outside what is allowed.
        DTypeError: an argument is no descriptor; the message says where to get one.
        ConfigError: the journal is none, is damaged, or was made with other arguments; all differences by name.
        OutputError: the journal cannot be written, or another process writes to it.
        ExecutorError: a task failed on the executor, or a worker died; ``partial`` as below.
        InterruptedRun: Ctrl-C; ``partial`` is the table of the finished pairs, None without any.
    """
    started = monotonic()
    check_arguments(servers, workloads, search, seed, terms, effort)
    goal = Goal(
        objective=objective,
        cost=cost,
        power_budget_w=power_budget_w,
        power_mode=power_mode,
        evaluations=evaluations,
        front=front,
    )
    for server in servers:
        goal.weights(server.name)
    own = check_tables(tables, servers, workloads) or {}
    _check_engine(threads, executor, time_budget_s)
    if journal is not None and not isinstance(journal, str | os.PathLike):
        raise DTypeError(f"journal: is {journal!r}, {type(journal).__name__}; allowed is a path")
    request = Request(search=search, seed=int(seed), goal=goal, effort=effort, terms=terms)
    tasks = [
        Task(server=server, workload=workload, request=request, table=own.get((server.name, workload.name)))
        for server in servers
        for workload in workloads
    ]
    with nullcontext() if journal is None else Journal(journal, request.header()) as log:
        run = _Run(tasks, threads, executor, log, progress)
        try:
            interrupted = run.to_the_end() if time_budget_s is None else run.until(started + time_budget_s)
        except ExecutorError as error:
            error.partial = run.table()
            raise
    table = run.table()
    if interrupted:
        when = f"after {run.done}" if run.done else "before the first was finished"
        raise InterruptedRun(f"interrupted {when} of {len(tasks)} pairs", table)
    assert table is not None
    return table


def _check_engine(threads: int | None, executor: Executor | None, time_budget_s: float | None) -> None:
    if executor is not None:
        if not isinstance(executor, Executor):
            raise DTypeError(
                f"executor: is of type {type(executor).__name__}; allowed is a concurrent.futures.Executor, such as "
                "ProcessPoolExecutor(mp_context=get_context('spawn')) or the get_executor() of a Dask client"
            )
        if threads is not None:
            raise InputError(
                f"threads: is {threads!r} beside an executor, whose tasks take one thread each; leave it out"
            )
    if time_budget_s is not None and (
        isinstance(time_budget_s, bool) or not isinstance(time_budget_s, Real) or not 0 < time_budget_s < math.inf
    ):
        raise InputError(f"time_budget_s: is {time_budget_s!r}; allowed is a finite number of seconds > 0")


class _Run:
    """The state of one call: which pairs have rows, and from where."""

    def __init__(
        self,
        tasks: Sequence[Task],
        threads: int | None,
        executor: Executor | None,
        log: Journal | None,
        progress: Progress | None,
    ):
        self._tasks = tasks
        self._threads = threads
        self._executor = executor
        self._log = log
        self._progress = progress
        self._final: dict[int, tuple[EfficiencyRow, ...]] = {}
        self._coarse: dict[int, tuple[EfficiencyRow, ...]] = {}
        self._pairs: dict[int, Pair] = {}
        self._kept: list[tuple[str, str]] = []
        self._changed: dict[tuple[str, str], tuple[str, ...]] = {}

    def to_the_end(self) -> bool:
        """Search what the journal does not have; whether Ctrl-C came."""
        return self._recall() or self._search(self._missing())

    def until(self, deadline: float) -> bool:
        """Coarse answers for all, then full ones till ``deadline`` (of ``time.monotonic``); whether Ctrl-C came."""
        if self._recall():
            return True
        coarse = {k: _coarse(task) for k, task in self._missing().items()}
        return self._search(coarse) or self._search(self._missing(), deadline)

    @property
    def done(self) -> int:
        """Pairs with final rows."""
        return len(self._final)

    def table(self) -> ProfiledTable | None:
        """All rows so far, in order; None without any."""
        known = [k for k in range(len(self._tasks)) if k in self._final or k in self._coarse]
        not_final = [list(self._tasks[k].names) for k in known if k not in self._final]
        request = self._tasks[0].request
        longest = request.effort.enough_for([task.workload for task in self._tasks])
        rows = tuple(row for k in known for row in self._final.get(k) or self._coarse[k])
        if not rows:
            return None
        return ProfiledTable(
            rows=rows,
            servers=tuple(dict.fromkeys(task.server.name for task in self._tasks)),
            workloads=tuple(dict.fromkeys(task.workload.name for task in self._tasks)),
            meta=request.header() | {"effort": asdict(longest)} | ({"not_final": not_final} if not_final else {}),
            kept=tuple(self._kept),
            changed=dict(self._changed),
        )

    def _missing(self) -> dict[int, Task]:
        return {k: task for k, task in enumerate(self._tasks) if k not in self._final}

    def _recall(self) -> bool:
        """Take from the journal what still holds; whether Ctrl-C came."""
        if self._log is None:
            return False
        try:
            for k, task in enumerate(self._tasks):
                if task.names not in self._log:
                    continue
                pair = self._pairs[k] = task.pair()
                inputs = _inputs(task, _table_of(task, pair))
                rows = self._log.rows(task.names, inputs)
                if rows is None:
                    self._changed[task.names] = self._log.changes(task.names, inputs)
                else:
                    self._final[k] = rows
                    self._kept.append(task.names)
            self._tell()
        except KeyboardInterrupt:
            return True
        return False

    def _search(self, tasks: Mapping[int, Task], until: float | None = None) -> bool:
        if not tasks:
            return False
        if self._executor is not None:
            return run_on(self._executor, tasks, self._take, until)
        return run_here(tasks, self._pairs, self._threads, self._take, until)

    def _take(self, k: int, found: Found) -> None:
        """Take the rows of a pair; it may be told again after Ctrl-C amid the first time."""
        if k in self._final:
            return
        if not found.final:
            self._coarse.setdefault(k, found.rows)  # what a full search had when it was cut off may be worse
            return
        if self._log is not None:
            task, first = self._tasks[k], found.rows[0]
            self._log.add(task.names, _inputs(task, first.source_digest or first.reason), found.rows)
        self._final[k] = found.rows
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None and self._final:
            self._progress(len(self._final), len(self._tasks))


def _coarse(task: Task) -> Task:
    """A cheap version of a task, whose rows say that they are not final."""
    asked, goal = task.request.effort, task.request.goal
    names = ("queries", "polish_queries", "final_queries")
    effort = replace(
        asked,
        **{name: min(getattr(asked, name), getattr(COARSE, name)) for name in names},
        replications=COARSE.replications,
        most_replications=COARSE.most_replications,
        precision=COARSE.precision,
    )
    goal = replace(goal, evaluations=min(COARSE_EVALUATIONS, goal.evaluations or COARSE_EVALUATIONS), front=False)
    request = replace(task.request, search="gradient", effort=effort, goal=goal)
    return replace(task, request=request, final=False)


def _table_of(task: Task, pair: Pair) -> str:
    """What stands for the service table among the inputs: its digest, or why there is none, as the rows have it."""
    return pair.table.digest() if pair.table is not None else task.found(pair, None).rows[0].reason


def _inputs(task: Task, table: str) -> Inputs:
    """What only the rows of this pair depend on."""
    traffic = asdict(replace(task.workload, model=None))  # type: ignore[arg-type]  # the model is in the service table
    text = json.dumps(traffic, sort_keys=True, default=str)
    return {"service table": table, "workload": hashlib.sha256(text.encode()).hexdigest()}
