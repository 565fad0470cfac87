"""A child forked after the parent used its threads must be able to use threads of its own."""

from __future__ import annotations

import os
import signal
import time
import warnings

import numpy as np
import pytest

import hercules_fast as hf


def parallel_call() -> np.ndarray:
    """Two calls large enough to be shared between threads, one over many tables."""
    weight = np.ones((1000, 64), np.float32)
    indices = np.arange(40_000) % 1000
    one = hf.embedding_bag(weight, indices, np.arange(0, 40_000, 10), mode="sum", threads=2)
    many = hf.EmbeddingBagCollection([weight, weight])(indices, np.arange(0, 40_001, 10), threads=2)
    return np.concatenate([one.reshape(-1), many.reshape(-1)])


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


def test_parallel_calls_work_in_a_child_forked_after_use():
    right = parallel_call()
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
    assert np.array_equal(parallel_call(), right), "the parent's threads still work"
