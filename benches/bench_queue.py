"""The queue simulator against what a Python user would write or install, and the cost of a search.

Every bench checks its answer; rivals that are not installed are skipped by name. The limit is one dependent chain per
job: compare, add, insert.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hercules_fast import _core
from tests.differential.test_search import cpu_problem
from tests.reference.queue import pool_latencies_s

JOBS = 200_000
LOAD = 0.8

pytestmark = pytest.mark.skipif(_core.build_info()["debug_assertions"], reason="a debug build is not worth timing")


def grid() -> _core.ServiceGrid:
    """One FCFS pool, service linear in the items of the query, mean 1 s over sizes 1..64."""
    seconds = np.array([[[[0.2], [0.2 + 63 * 0.8 / 31.5]]]])
    return _core.ServiceGrid(np.array([1, 64]), np.array([1]), seconds, np.zeros((1, 1, 2)), ["query"], [0])


def drawn(threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    arrival_s = np.cumsum(rng.exponential(1 / (LOAD * threads), JOBS))
    sizes = rng.integers(1, 65, JOBS)
    return arrival_s, sizes, 0.2 + (sizes - 1) * 0.8 / 31.5


@pytest.mark.parametrize("threads", [1, 16])
def bench_pool_of_recorded_queries(benchmark: Callable, threads: int) -> None:
    arrival_s, sizes, service_s = drawn(threads)
    config, table = np.array([0, 64, 1, 0, threads]), grid()
    found = benchmark(lambda: _core.simulate_trace(table, config, arrival_s, sizes)["latency_s"])
    assert found == pytest.approx(pool_latencies_s(arrival_s.tolist(), service_s.tolist(), threads), rel=1e-9)


@pytest.mark.parametrize("threads", [1, 16])
def bench_rival_python_heap(benchmark: Callable, threads: int) -> None:
    arrival_s, _, service_s = drawn(threads)
    arguments = arrival_s.tolist(), service_s.tolist(), threads
    assert len(benchmark(lambda: pool_latencies_s(*arguments))) == JOBS


@pytest.mark.parametrize("threads", [1, 16])
def bench_rival_simpy(benchmark: Callable, threads: int) -> None:
    """A tenth of the jobs: multiply its time by ten."""
    simpy = pytest.importorskip("simpy", reason="simpy is not installed")
    arrival_s, _, service_s = (x[: JOBS // 10].tolist() for x in drawn(threads))

    def run() -> list[float]:
        env = simpy.Environment()
        pool = simpy.Resource(env, threads)
        latency = [0.0] * len(arrival_s)

        def job(i: int):
            yield env.timeout(arrival_s[i])
            with pool.request() as turn:
                yield turn
                yield env.timeout(service_s[i])
            latency[i] = env.now - arrival_s[i]

        for i in range(len(arrival_s)):
            env.process(job(i))
        env.run()
        return latency

    found = benchmark.pedantic(run, rounds=2)
    assert found == pytest.approx(pool_latencies_s(arrival_s, service_s, threads), rel=1e-6)


def bench_rival_ciw(benchmark: Callable) -> None:
    """A tenth of the jobs, one thread, drawn by ciw itself."""
    ciw = pytest.importorskip("ciw", reason="ciw is not installed")

    def run() -> int:
        network = ciw.create_network(
            arrival_distributions=[ciw.dists.Exponential(LOAD)],
            service_distributions=[ciw.dists.Uniform(0.2, 1.8)],
            number_of_servers=[1],
        )
        simulation = ciw.Simulation(network)
        simulation.simulate_until_max_customers(JOBS // 10)
        return len(simulation.get_all_records())

    assert benchmark.pedantic(run, rounds=2) >= JOBS // 10


@pytest.mark.parametrize("threads", [1, 16])
def bench_drawn_queries(benchmark: Callable, threads: int) -> None:
    """Arrivals and sizes drawn too: what a call of ``simulate`` costs."""
    traffic = _core.Traffic("poisson", [], np.full(64, 1 / 64), 1)
    config, table = np.array([0, 64, 1, 0, threads]), grid()
    found = benchmark(lambda: _core.simulate(table, traffic, config, LOAD * threads, JOBS, 0, [0.99]))
    assert found["utilisation"][0] == pytest.approx(LOAD, rel=0.05)


@pytest.mark.parametrize("method", ["gradient", "exhaustive", "exhaustive-unpruned"])
def bench_search_of_one_pair(benchmark: Callable, method: str) -> None:
    """175 configurations of a CPU at the default effort, final answer included, on one thread."""
    problem = cpu_problem(1, 0.004)
    (found,), _ = benchmark.pedantic(lambda: _core.search([problem], method=method, threads=1), rounds=3)
    (truth,), _ = _core.search([problem], method="exhaustive", threads=1)
    assert found["search_qps"] >= 0.99 * truth["search_qps"]
