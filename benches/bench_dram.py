"""Memory requests simulated in a second, on cases of the DRAM oracle, and the scaling of channels and ranks.

Each bench checks its answer. The rivals, two well-known C++ simulators, are no Python packages: on these cases the
faster of them served 0.24 to 0.50 million requests a second on one core, where the oracle was made. The limit is that
commands follow each other: a random read takes three, each found by one pass over the wishes of the banks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import numpy as np
import pytest
from tests.oracle.test_dram_oracle import CASES, EXPECTED, trace
from tests.reference import dram_traces

from hercules_fast import _core
from hercules_fast.memory import NmpResult, NmpTable, gather_table, simulate_dram, simulate_nmp, uniform_rows

pytestmark = pytest.mark.skipif(_core.build_info()["debug_assertions"], reason="a debug build is not worth timing")


def rate(benchmark: Callable, requests: int) -> None:
    benchmark.extra_info["million_requests_per_s"] = requests / benchmark.stats.stats.min / 1e6


@pytest.mark.parametrize("name", ["O01", "O03", "O04", "O06"])
def test_host(benchmark: Callable, name: str) -> None:
    case, reads = CASES[name], trace(name)
    found = benchmark(
        lambda: simulate_dram(reads, ranks=case["ranks"], window=case["window"], gap=case["gap"], threads=1)
    )
    assert found.total_cycles == pytest.approx(EXPECTED[name]["ramulator21_rowhit_first"]["total_cycles"], rel=0.02)
    rate(benchmark, reads.size)


def near_memory(name: str) -> Callable[[int], NmpResult]:
    """The case as a function of the number of threads."""
    case = CASES[name]
    shape = case["trace"]
    _, rows = dram_traces.vector_rows(shape)
    work = rows.astype(np.int64), np.arange(0, rows.size, shape["pooling"])
    tables = [NmpTable(rows=1 << shape["log2_rows"], dim=shape["vec_bytes"] // 4)] * shape["tables"]
    settings = {"ranks": case["ranks"], "packet": case["packet"], "cache_kb": case.get("cache_kb", 0)}
    return lambda threads: simulate_nmp(*work, tables, baseline=False, threads=threads, **settings)


@pytest.mark.parametrize("name", ["O10", "O11", "O12"])
def test_near_memory(benchmark: Callable, name: str) -> None:
    job = near_memory(name)
    found = benchmark(job, 1)
    assert found.total_cycles == pytest.approx(EXPECTED[name]["ramulator21_rowhit_first"]["total_cycles"], rel=0.02)
    rate(benchmark, EXPECTED[name]["requests"])


@pytest.mark.parametrize("name", ["O10", "O11", "O12"])
def test_ranks_on_two_threads(benchmark: Callable, name: str) -> None:
    """Medians of runs that take turns; the limit is what two whole jobs at once, of a thread each, gain here."""
    job, alone, both = near_memory(name), list[float](), list[float]()
    expected = job(1)

    def seconds(work: Callable[[], object]) -> float:
        start = perf_counter()
        work()
        return perf_counter() - start

    with ThreadPoolExecutor(2) as two:

        def others() -> None:
            both.append(seconds(lambda: list(two.map(job, [1, 1]))))
            alone.append(seconds(lambda: job(1)))

        found = benchmark.pedantic(job, args=(2,), setup=others, rounds=25, warmup_rounds=2)
    assert found.total_cycles == expected.total_cycles
    assert np.array_equal(found.latency_cycles, expected.latency_cycles)
    benchmark.extra_info["times_one_thread"] = median(alone) / benchmark.stats.stats.median
    benchmark.extra_info["limit"] = 2 * median(alone) / median(both)


@pytest.mark.parametrize("threads", [1, 2])
def test_four_channels(benchmark: Callable, threads: int) -> None:
    reads = uniform_rows(400_000, 1 << 28) * 64
    found = benchmark.pedantic(lambda: simulate_dram(reads, channels=4, ranks=2, threads=threads), rounds=5)
    assert found.commands["read"] == reads.size
    rate(benchmark, reads.size)


def test_gather_table(benchmark: Callable) -> None:
    """The table of one DIMM type: 11 batches, 6 poolings, 3 row sizes, 3 numbers of ranks."""
    found = benchmark.pedantic(lambda: gather_table(threads=1), rounds=3)
    assert found.seconds.shape == (11, 6, 3, 3)
    assert (np.diff(found.seconds, axis=0) > 0).all()
