"""A child forked after the parent used its threads must be able to use threads of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast.measure import Pool, Spin, run_load


def parallel_call() -> np.ndarray:
    """Calls that use threads: bags over one table and over many, both engines of the queue, and load on this host."""
    weight = np.ones((1000, 64), np.float32)
    indices = np.arange(40_000) % 1000
    one = hf.embedding_bag(weight, indices, np.arange(0, 40_000, 10), mode="sum", threads=2)
    many = hf.EmbeddingBagCollection([weight, weight])(indices, np.arange(0, 40_001, 10), threads=2)
    queries = hf.Queries(qps=50.0)
    pools = [hf.System.pool(hf.LawService(mean_s=0.01)), hf.System.pool(hf.LawService(mean_s=0.01), capacity=9)]
    latencies = [hf.simulate(pool, queries, queries=900_000, threads=2).latency_ms for pool in pools]
    run = run_load([Pool("all", (Spin(),) * 2)], hf.Queries(qps=20_000.0), queries=500)
    return np.concatenate([one.reshape(-1), many.reshape(-1), *latencies, np.isnan(run.latency_s)])


def wait(pid: int, seconds: float) -> int:
    """The child's wait status; a child that does not end in time is killed and fails the test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail(f"the forked child hung for {seconds} s in a parallel call")


def fork_ten_times(right: np.ndarray) -> None:
    for _ in range(10):
        with warnings.catch_warnings():
            # Python 3.12 and later warn about fork in a process with threads: that is what is tried here.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if np.array_equal(parallel_call(), right) else 2
            finally:
                os._exit(code)
        assert wait(pid, 20) == 0


def test_parallel_calls_work_in_a_child_forked_after_use():
    right = parallel_call()
    fork_ten_times(right)
    assert np.array_equal(parallel_call(), right), "the parent's threads still work"


def test_calls_of_several_threads_at_once_and_a_fork_meanwhile():
    right, stop = parallel_call(), threading.Event()

    def caller() -> int:
        calls = 0
        while not stop.is_set():
            assert np.array_equal(parallel_call(), right)
            calls += 1
        return calls

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(caller) for _ in range(3)]
        try:
            fork_ten_times(right)
        finally:
            stop.set()
        assert all(one.result() > 0 for one in callers)
