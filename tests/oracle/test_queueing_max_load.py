"""The highest load against theory, and on systems whose verdict jumps, stays or comes back with the load."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hercules_fast import _core
from tests.small_systems import EXPONENTIAL, chain, station, system

POISSON = {"kind": "law", "law": "exponential", "params": [], "group": None}
ONE = np.array([1.0])
MILLISECOND = {"kind": "law", "law": "deterministic", "params": [], "mean_s": 1e-3}


def highest(one: dict[str, Any], targets: list[tuple[float, float]], seed: int = 1, **options: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"cap": 0.95, "precision": 0.005, "seed": seed, "threads": 1} | options
    return _core.max_load_system(one, POISSON, ONE, targets, **asked)


def pool(threads: int, service: dict[str, Any] = EXPONENTIAL, **more: Any) -> dict[str, Any]:
    return system(chain(station("query", threads, service, **more)))


def mm1_load(p99_s: float) -> float:
    """Sojourns of M/M/1 are exponential of rate 1 - load."""
    return 1.0 - math.log(100.0) / p99_s


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pool_of_sixteen(seed: int) -> None:
    """p99 of M/M/16 at 14.4 arrivals per mean service is 5.2698346."""
    found = highest(pool(16), [(0.99, 5.26983460108)], seed, precision=0.003)
    assert (found["limit"], found["limit_target"]) == ("sla", 0)
    assert found["qps"] == pytest.approx(14.4, rel=0.006)  # four standard errors
    assert found["qps_low"] < found["qps"] < found["qps_high"] < found["bound_qps"] == pytest.approx(15.2)
    assert found["run"]["percentiles_s"][0] == pytest.approx(5.27, rel=0.02)


@pytest.mark.parametrize("p99_s", [30.0, 70.0])
def test_a_single_thread_below_and_near_the_cap(p99_s: float) -> None:
    found = highest(pool(1), [(0.99, p99_s)])
    assert found["limit"] == "sla" and found["qps"] == pytest.approx(mm1_load(p99_s), rel=0.005)


def test_the_cap_is_believed_only_from_a_run_that_can_tell() -> None:
    """The target breaks at 0.954: a short run at 0.95 may see nobody late by chance."""
    for seed in range(4):
        found = highest(pool(1), [(0.99, 100.0)], seed)
        assert found["qps"] == pytest.approx(0.95, rel=0.005)
        assert found["simulated_queries"] > 10_000_000


def test_the_tightest_of_several_targets_limits() -> None:
    loose, tight = (0.99, 46.05), (0.5, 2.0 * math.log(2.0))  # at 0.9 and at 0.5
    found = highest(pool(1), [loose, tight])
    assert found["limit_target"] == 1 and found["qps"] == pytest.approx(0.5, rel=0.01)


def test_nobody_meets_a_target_below_the_service_time() -> None:
    found = highest(pool(2), [(0.99, 4.0)])
    assert (found["qps"], found["limit"], found["limit_target"], found["run"]) == (0.0, "unloaded latency", 0, None)


def test_load_that_helps_is_found() -> None:
    """A device that waits 50 ms for eight queries is too slow when it is alone, and quick when they come."""
    device = station("fused", 1, MILLISECOND, max_queries=8, max_wait_s=0.05)
    found = highest(system(chain(device)), [(0.99, 0.02)], precision=0.02, max_queries=1 << 21)
    assert found["unloaded_s"][0] > 0.05
    assert found["qps"] == pytest.approx(0.95 * 8000.0, rel=0.01)


def test_lost_queries_limit() -> None:
    """M/M/16/32 loses a thousandth at 12.426: the birth-death chain."""
    weights = [1.0]
    for n in range(1, 33):
        weights.append(weights[-1] * 12.426 / min(n, 16))
    assert weights[-1] / sum(weights) == pytest.approx(1e-3, rel=2e-3)
    limited = pool(16) | {"capacity": 32}
    found = highest(limited, [(0.99, 100.0)], loss=1e-3, precision=0.02, max_queries=1 << 22)
    assert found["limit"] == "loss" and found["qps"] == pytest.approx(12.426, rel=0.015)


def test_a_blocked_pipeline_falls_behind_before_its_bottleneck() -> None:
    """Two exponential threads without a place between them carry two thirds of one."""
    pipeline = system(chain(station("query", 1, EXPONENTIAL), station("query", 1, EXPONENTIAL, buffer=0)))
    found = highest(pipeline, [(0.99, 1e5)], precision=0.02, max_queries=1 << 21)
    assert found["limit"] == "growing backlog" and found["qps"] == pytest.approx(2 / 3, rel=0.07)
    assert found["collapse_qps"] == pytest.approx(1.0)


def test_a_jump_of_the_percentile_is_one_load() -> None:
    """Beyond eight busy threads service takes four times as long: the median jumps from 1 s to 4 s."""
    jumps = pool(64, MILLISECOND | {"mean_s": 1.0}, interference="at_start", speed=[1.0] * 8 + [0.25])
    found = [highest(jumps, [(0.5, 2.0)], seed) for seed in (1, 2)]
    assert abs(found[0]["qps"] / found[1]["qps"] - 1.0) < 0.01


def test_the_same_answer_for_any_number_of_threads() -> None:
    one, three = (highest(pool(16), [(0.99, 5.27)], precision=0.02, threads=n) for n in (1, 3))
    assert {k: v for k, v in one.items() if k not in ("run", "unloaded_s")} == {
        k: v for k, v in three.items() if k not in ("run", "unloaded_s")
    }
