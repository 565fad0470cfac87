"""Profiles on executors: the same bytes on every engine, and what is said and kept when a worker fails or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest

from hercules_fast.errors import DTypeError, ExecutorError, InputError, InterruptedRun
from hercules_fast.profiling.executors import Request, Task, run_task
from hercules_fast.profiling.settings import Goal
from hercules_fast.serving import Terms
from tests.small_profiles import PAIRS, SERVERS, TINY, WORKLOADS, small_profile


@pytest.fixture(scope="module")
def serial() -> str:
    return small_profile(threads=1).to_json()


class Backwards(Executor):
    """Runs its tasks in the caller's thread, the last one first, when the first result is asked for."""

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None):
        self._queue: list = []
        self._fail_at = fail_at
        self._error = error

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        self._queue.append((future, function, args))
        if len(self._queue) == len(PAIRS):
            self._run()
        return future

    def _run(self) -> None:
        for k, (future, function, args) in reversed(list(enumerate(self._queue))):
            if k == self._fail_at and isinstance(self._error, CancelledError):
                future.cancel()
                future.set_running_or_notify_cancel()
            elif k == self._fail_at:
                future.set_exception(self._error)
            else:
                future.set_result(function(*args))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_of_the_core_change_no_byte(serial, threads) -> None:
    assert small_profile(threads=threads).to_json() == serial


def test_threads_of_python_change_no_byte(serial) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert small_profile(executor=pool).to_json() == serial


def test_processes_change_no_byte(serial, tmp_path) -> None:
    told: list[tuple[int, int]] = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        table = small_profile(executor=pool, progress=lambda done, total: told.append((done, total)))
        assert table.to_json() == serial
        path = tmp_path / "journal.jsonl"
        assert small_profile(executor=pool, journal=path).to_json() == serial
    assert told == [(k + 1, len(PAIRS)) for k in range(len(PAIRS))]
    assert small_profile(journal=path).kept == tuple(PAIRS)


def test_the_order_of_results_changes_no_byte(serial) -> None:
    assert small_profile(executor=Backwards()).to_json() == serial


def test_a_failed_task_is_named_and_the_rest_is_kept(serial, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    with pytest.raises(ExecutorError, match="rmc2 on T2: MemoryError: too much; 5 of 6 pairs were finished") as failed:
        small_profile(executor=Backwards(4, MemoryError("too much")), journal=path)
    assert [(r.server, r.workload) for r in failed.value.partial.rows] == [p for p in PAIRS if p != ("T2", "rmc2")]
    table = small_profile(journal=path)
    assert table.to_json() == serial
    assert len(table.kept) == len(PAIRS) - 1


def test_a_cancelled_task_is_named(serial) -> None:
    with pytest.raises(ExecutorError, match="rmc1 on T1: its task was cancelled"):
        small_profile(executor=Backwards(0, CancelledError()))


def test_ctrl_c_in_a_worker_is_ctrl_c() -> None:
    with pytest.raises(InterruptedRun, match="interrupted after 5 of 6 pairs") as stopped:
        small_profile(executor=Backwards(0, KeyboardInterrupt()))
    assert len(stopped.value.partial.rows) == 5


def test_ctrl_c_keeps_what_an_executor_had_finished(serial) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool, pytest.raises(InterruptedRun) as stopped:
        small_profile(executor=pool, progress=interrupt)
    assert 2 <= len(stopped.value.partial.rows) <= len(PAIRS)


def test_a_process_that_dies_is_named_and_the_rest_is_kept(serial, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:

        def kill(done: int, total: int) -> None:
            if done == 2:
                for process in list(pool._processes.values()):
                    process.kill()

        with pytest.raises(ExecutorError, match=r"a worker of the executor died, .*; \d of 6 pairs") as failed:
            small_profile(executor=pool, journal=path, progress=kill)
        kept = len(failed.value.partial.rows)
        assert 2 <= kept < len(PAIRS)
        with pytest.raises(ExecutorError, match="a worker of the executor died"):  # as the pool says, when asked again
            small_profile(executor=pool)
    table = small_profile(journal=path)
    assert len(table.kept) == kept
    assert table.to_json() == serial


def test_an_executor_that_is_closed_says_so() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(ExecutorError, match="the executor takes no task: cannot schedule new futures"):
        small_profile(executor=pool)


@pytest.fixture(scope="module")
def dask():
    """A cluster of two worker processes on this host, each with a nanny that starts it anew."""
    distributed = pytest.importorskip("distributed", reason="the `test` dependency group brings dask[distributed]")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.filterwarnings("ignore")  # of the engine's own, when it starts and when a worker of it is killed
def test_dask_changes_no_byte(dask, serial) -> None:
    assert small_profile(executor=dask.get_executor()).to_json() == serial


@pytest.mark.filterwarnings("ignore")
def test_dask_does_the_work_of_a_killed_worker_again(dask, serial, tmp_path) -> None:
    workers = dask.run(os.getpid)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if not killed:
            killed.append(next(iter(workers.values())))
            os.kill(killed[0], signal.SIGKILL)

    path = tmp_path / "journal.jsonl"
    table = small_profile(executor=dask.get_executor(pure=False), journal=path, progress=kill)
    assert table.to_json() == serial
    assert killed[0] not in dask.run(os.getpid).values()
    assert small_profile(journal=path).kept == tuple(PAIRS)


def test_the_package_imports_no_engine() -> None:
    code = "import sys, hercules_fast.profiling; print({'dask', 'distributed', 'multiprocessing'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "set()", run.stderr


def test_a_worker_of_another_version_refuses() -> None:
    request = Request(search="gradient", seed=0, goal=Goal(power_mode="tdp"), effort=TINY, terms=Terms())
    task = Task(server=SERVERS[0], workload=WORKLOADS[0], request=request)
    assert run_task(task).rows[0].status == "ok"
    other = replace(task, request=replace(request, versions=dict(request.versions) | {"version": "99.0"}))
    with pytest.raises(InputError, match=r"versions: are .*99\.0.* at the caller, .* at this worker"):
        run_task(other)


@pytest.mark.parametrize("engine", ["processes", 4, ThreadPoolExecutor])
def test_what_is_no_executor_is_refused(engine) -> None:
    with pytest.raises(
        DTypeError, match=r"executor: is of type .*; allowed is a concurrent\.futures\.Executor, such as"
    ):
        small_profile(executor=engine)


def test_threads_and_an_executor_exclude_each_other() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="threads: is 2 beside an executor"):
        small_profile(executor=pool, threads=2)
