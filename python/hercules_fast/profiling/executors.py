"""Where the searches of a profile run: on threads of the core, or on an executor that the user hands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from time import monotonic
from typing import Any

from hercules_fast import _core
from hercules_fast.errors import ExecutorError, InputError
from hercules_fast.hardware import Server
from hercules_fast.profiling.pairs import Pair, make_pair, rows_of, run_pairs
from hercules_fast.profiling.settings import Effort, Goal, Method
from hercules_fast.serving import Terms
from hercules_fast.tables import EfficiencyRow, ServiceTable
from hercules_fast.traffic import Workload

__all__ = ["Finished", "Found", "Request", "Task", "run_here", "run_on", "run_task"]

NOT_FINAL = "not final, for want of time: "
"""How the reason of a row begins that a time budget left unfinished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The rows of one pair; not ``final`` where a fuller search should follow, which the rows then say."""

    rows: tuple[EfficiencyRow, ...]
    final: bool


Finished = Callable[[int, Found], object]
"""Called with the key of a task and what it found."""


def _versions() -> dict[str, Any]:
    info = _core.build_info()
    return {name: info[name] for name in ("version", "random_stream_version")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked of every pair of a profile, beside the pair: all that its rows depend on."""

    search: Method
    seed: int
    goal: Goal
    effort: Effort
    terms: Terms
    versions: Mapping[str, Any] = field(default_factory=_versions)
    """Of the package and its random streams: rows of two versions do not belong into one table."""

    def header(self) -> dict[str, Any]:
        """Plain data: what a journal and a table say that they were made with."""
        data = asdict(self)
        data |= data.pop("goal") | data.pop("versions")
        return data


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One pair and what is asked of it: plain data, which may travel to another process or host."""

    server: Server
    workload: Workload
    request: Request
    table: ServiceTable | None = None
    """The user's own in place of a modelled one."""
    final: bool = True
    """False for a first, coarse answer."""

    @property
    def names(self) -> tuple[str, str]:
        """Server and workload."""
        return self.server.name, self.workload.name

    @property
    def effort(self) -> Effort:
        """Of this pair alone: what other workloads need does not change its rows."""
        return self.request.effort.enough_for([self.workload])

    def pair(self) -> Pair:
        """The pair with its service table and space."""
        tables = None if self.table is None else {self.names: self.table}
        return make_pair(self.server, self.workload, self.request.terms, tables)

    def found(self, pair: Pair, result: Mapping[str, Any] | None) -> Found:
        """Rows of what the core found; None where the model does not fit, to which no search can add."""
        rows = rows_of(pair, result, self.request.seed, self.effort, self.request.goal)
        final = result is None or (self.final and result["complete"])
        if not final:
            rows = tuple(replace(row, reason=f"{NOT_FINAL}{row.reason}") for row in rows)
        return Found(rows=rows, final=final)


def run_task(task: Task) -> Found:
    """Search one pair on one thread: what an executor's worker does.

    Raises:
        InputError: the worker has another version of this package than the caller.
    """
    if task.request.versions != _versions():
        raise InputError(f"versions: are {dict(task.request.versions)} at the caller, {_versions()} at this worker")
    answers: list[Found] = []
    if run_here({0: task}, {}, 1, lambda _, found: answers.append(found)):
        raise KeyboardInterrupt
    return answers[0]


def run_here(
    tasks: Mapping[int, Task],
    pairs: dict[int, Pair],
    threads: int | None,
    finished: Finished,
    until: float | None = None,
) -> bool:
    """Search on ``threads`` of the core, and tell each pair on this thread soon after its end.

    ``pairs`` holds those that were made already, and takes the others. Returns whether Ctrl-C came. At the time
    ``until`` (of ``time.monotonic``) the pairs that are not finished are left.
    """
    told: set[int] = set()

    def tell(k: int, pair: Pair, result: Mapping[str, Any] | None) -> None:
        if k not in told:
            finished(k, tasks[k].found(pair, result))
            told.add(k)

    try:
        alike: dict[Effort, list[int]] = {}
        for k, task in tasks.items():
            if k not in pairs:
                pairs[k] = task.pair()
            if pairs[k].table is None:
                tell(k, pairs[k], None)
            else:
                alike.setdefault(task.effort, []).append(k)
        for effort, keys in alike.items():
            if _run_alike(tasks, pairs, keys, effort, threads, tell, until):
                return True
    except KeyboardInterrupt:
        return True
    return False


def _run_alike(
    tasks: Mapping[int, Task],
    pairs: Mapping[int, Pair],
    keys: Sequence[int],
    effort: Effort,
    threads: int | None,
    tell: Callable[[int, Pair, Mapping[str, Any] | None], None],
    until: float | None,
) -> bool:
    """Search the pairs of one effort, in one call of the core."""
    request = tasks[keys[0]].request
    results, interrupted = run_pairs(
        [pairs[k] for k in keys],
        request.search,
        request.seed,
        threads,
        effort,
        goal=request.goal,
        finished=lambda at, result: tell(keys[at], pairs[keys[at]], result),
        deadline_s=_left(until),
    )
    for k, result in zip(keys, results, strict=True):
        if result is not None:  # told above, unless Ctrl-C came while it was being told
            tell(k, pairs[k], result)
    return interrupted


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - monotonic())


def run_on(executor: Executor, tasks: Mapping[int, Task], finished: Finished, until: float | None = None) -> bool:
    """Search on the workers of ``executor``, a task per pair; otherwise as :func:`run_here`.

    What has not begun when this ends early is cancelled. The executor stays the user's to close.

    Raises:
        ExecutorError: a task failed, which is named, or a worker died. What was finished by then has been told.
    """
    if _left(until) == 0:
        return False
    futures: dict[Future[Found], int] = {}
    told: set[int] = set()

    def tell(future: Future[Found]) -> None:
        k = futures[future]
        if k not in told:
            finished(k, future.result())
            told.add(k)

    def rescue() -> None:
        for future in futures:
            if future.done() and not future.cancelled() and future.exception() is None:
                tell(future)

    try:
        try:
            for k, task in tasks.items():
                futures[executor.submit(run_task, task)] = k
        except RuntimeError as refusal:  # it is closed, or broke meanwhile
            rescue()
            raise _explained(refusal, None, len(told), len(tasks)) from refusal
        with suppress(TimeoutError):  # of as_completed; those of tasks are told apart below
            for future in as_completed(futures, timeout=_left(until)):
                error = _error_of(future)
                if isinstance(error, KeyboardInterrupt):
                    raise error
                if error is not None:
                    rescue()
                    raise _explained(error, tasks[futures[future]], len(told), len(tasks)) from error
                tell(future)
    except KeyboardInterrupt:
        rescue()
        return True
    finally:
        for future in futures:
            future.cancel()
    return False


def _error_of(future: Future[Found]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _explained(error: BaseException, task: Task | None, done: int, total: int) -> ExecutorError:
    if isinstance(error, BrokenExecutor):
        what = f"a worker of the executor died, and the executor with it ({error})"
    elif task is None:
        what = f"the executor takes no task: {error}"
    else:
        server, workload = task.names
        cause = "its task was cancelled" if isinstance(error, CancelledError) else f"{type(error).__name__}: {error}"
        what = f"{workload} on {server}: {cause}"
    return ExecutorError(f"{what}; {done} of {total} pairs were finished")
