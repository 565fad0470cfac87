"""Laws that the search relies on: they hold on any common run of queries, one query at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast import _core

ITEMS = np.array([1, 16, 64, 256])
BUSY = np.array([1])


def pool(per_call_s: float, per_item_s: float) -> _core.ServiceGrid:
    """One FCFS pool of whole queries without interference."""
    seconds = (per_call_s + per_item_s * ITEMS).reshape(1, 1, -1, 1)
    return _core.ServiceGrid(ITEMS, BUSY, seconds, np.zeros((1, 1, len(ITEMS))), ["query"], [0])


def traffic(seed: int) -> _core.Traffic:
    pmf = 1.0 / (10.0 + np.arange(256.0)) ** 2
    return _core.Traffic("poisson", [], pmf / pmf.sum(), seed)


def run(grid: _core.ServiceGrid, seed: int, threads: int, qps: float) -> dict:
    return _core.simulate(grid, traffic(seed), np.array([0, 1, 1, 0, -1, 0, threads]), qps, 3000, 300, [0.99])


grids = st.builds(pool, st.floats(1e-4, 1e-2), st.floats(1e-6, 1e-4))
seeds = st.integers(0, 2**32)


@given(grids, seeds, st.integers(1, 8), st.floats(0.1, 1.2), st.floats(1.0, 2.0))
def test_every_latency_grows_with_load(grid, seed, threads, load, factor) -> None:
    """Not only p99: on common numbers, each single query waits at least as long."""
    bottleneck = _core.bottleneck_qps(grid, traffic(seed), np.array([0, 1, 1, 0, -1, 0, threads]))
    low, high = (run(grid, seed, threads, load * bottleneck * f) for f in (1.0, factor))
    assert (high["latencies_s"] >= low["latencies_s"] * (1 - 1e-9)).all()
    assert high["percentiles_s"][0] >= low["percentiles_s"][0] * (1 - 1e-9)


@given(grids, seeds, st.integers(1, 8), st.floats(0.2, 1.5))
def test_every_latency_falls_with_more_threads(grid, seed, threads, load) -> None:
    qps = load * _core.bottleneck_qps(grid, traffic(seed), np.array([0, 1, 1, 0, -1, 0, threads]))
    few, more = (run(grid, seed, m, qps) for m in (threads, threads + 1))
    assert (more["latencies_s"] <= few["latencies_s"] + 1e-12).all()


@given(grids, seeds, st.integers(1, 8))
def test_no_throughput_above_the_bottleneck(grid, seed, threads) -> None:
    bottleneck = _core.bottleneck_qps(grid, traffic(seed), np.array([0, 1, 1, 0, -1, 0, threads]))
    found = run(grid, seed, threads, 3.0 * bottleneck)
    assert found["utilisation"][0] <= 1.0 + 1e-12
    # The bottleneck is in expectation; a run of 3000 sizes may be cheaper than the mean by some standard errors.
    assert found["throughput_qps"] <= 1.1 * bottleneck
    assert found["falls_behind"]


@given(st.floats(1e-4, 1e-2), st.floats(1e-6, 1e-4), seeds, st.integers(1, 6), st.integers(-3, 3))
def test_time_has_no_unit(per_call_s, per_item_s, seed, threads, power) -> None:
    """All times times 2^k: all latencies times 2^k, bit for bit."""
    scale = 2.0**power
    qps = 0.5 / per_call_s
    plain = run(pool(per_call_s, per_item_s), seed, threads, qps)["latencies_s"]
    other = run(pool(scale * per_call_s, scale * per_item_s), seed, threads, qps / scale)["latencies_s"]
    assert (other == plain * scale).all()


def tandem(first_s: float, second_s: float, noise_cv: float) -> _core.ServiceGrid:
    """Two pools of sub-batches without interference."""
    seconds = np.stack([first_s * ITEMS, second_s * ITEMS])[None, :, :, None]
    units = ["sub_batch", "sub_batch"]
    return _core.ServiceGrid(ITEMS, BUSY, seconds, np.zeros((1, 2, len(ITEMS))), units, [0, 1], [noise_cv] * 2)


def tandem_latencies(
    grid: _core.ServiceGrid, seed: int, load: float, buffer: int, threads: tuple[int, int]
) -> np.ndarray:
    bottleneck = _core.bottleneck_qps(grid, traffic(seed), np.array([0, 32, 1, 0, -1, 0, *threads]))
    config = np.array([0, 32, 1, 0, buffer, 0, *threads])
    return _core.simulate(grid, traffic(seed), config, load * bottleneck, 3000, 0, [0.99])["latencies_s"]


tandems = st.builds(tandem, st.floats(1e-5, 1e-3), st.floats(1e-5, 1e-3), st.sampled_from([0.0, 0.5, 1.5]))


@given(tandems, seeds, st.floats(0.1, 1.2), st.integers(0, 5), st.integers(1, 3))
def test_no_latency_grows_with_places_between_single_threads(grid, seed, load, buffer, more) -> None:
    """Single threads keep the order of the parts, so whoever moves on earlier lets all others move on earlier too."""
    few, many, unbounded = (tandem_latencies(grid, seed, load, b, (1, 1)) for b in (buffer, buffer + more, -1))
    assert (many <= few + 1e-9).all()
    assert (unbounded <= many + 1e-9).all()


@given(tandems, seeds, st.integers(0, 3), st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_pools_that_block_carry_no_more_than_the_bottleneck(grid, seed, buffer, threads) -> None:
    bottleneck = _core.bottleneck_qps(grid, traffic(seed), np.array([0, 32, 1, 0, buffer, 0, *threads]))
    config = np.array([0, 32, 1, 0, buffer, 0, *threads])
    found = _core.simulate(grid, traffic(seed), config, 3.0 * bottleneck, 3000, 0, [0.99])
    assert (found["utilisation"] <= 1.0 + 1e-12).all()
    assert found["throughput_qps"] <= 1.25 * bottleneck  # sizes and noise of 3000 queries vary
