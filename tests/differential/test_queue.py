"""The search's simulator against its twin in plain Python, on random tables, configurations and traces."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hercules_fast import _core
from hercules_fast.errors import InputError
from tests.reference import queue as reference

STAGES = 3
ITEMS = np.array([1, 2, 5, 64])
BUSY = np.array([1, 3])


UNITS = ("sub_batch", "query", "fused")


@st.composite
def grids(draw: st.DrawFn, units: tuple[str, ...] = UNITS, alone: bool = False) -> reference.Grid:
    """Times in quarters of a second make ties common; other times test the interpolation.

    ``alone``: no stage slows another down.
    """
    quarters = draw(st.booleans())
    cell = st.integers(1, 9).map(lambda n: n / 4) if quarters else st.floats(0.01, 3.0)
    shape = (2, STAGES, len(ITEMS), len(BUSY))
    cells = draw(st.lists(cell, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    kinds = draw(st.lists(st.sampled_from(units), min_size=STAGES, max_size=STAGES))
    busy_of = [0, 1, 2] if alone else [0, draw(st.integers(0, 1)), draw(st.integers(0, 2))]
    return reference.Grid(ITEMS, BUSY, np.array(cells).reshape(shape), kinds, busy_of)


def rows(buffer: st.SearchStrategy[int], offload: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    waits = st.sampled_from([0, 250_000, 600_000, 1_000_000])
    leading = (st.integers(0, 1), st.integers(1, 6), st.integers(1, 15), waits, buffer, offload)
    return st.tuples(*leading, *[st.integers(0, 3)] * STAGES).filter(lambda row: any(row[6:]))


configs = rows(st.just(-1), st.just(0))
traces = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), min_size=1, max_size=40)


def core_grid(grid: reference.Grid, noise_cv: list[float] | None = None) -> _core.ServiceGrid:
    energy_j = np.ones(grid.seconds.shape[:3])
    return _core.ServiceGrid(grid.items, grid.busy, grid.seconds, energy_j, grid.units, grid.busy_of, noise_cv)


def assert_equal_to_the_twin(grid: reference.Grid, config: tuple[int, ...], trace: list[tuple[int, int]]) -> None:
    arrival_s = np.cumsum([gap / 4 for gap, _ in trace])
    sizes = [size for _, size in trace]
    found = _core.simulate_trace(core_grid(grid), np.array(config), arrival_s, np.array(sizes))
    expected = reference.latencies_s(grid, list(config), arrival_s.tolist(), sizes)
    assert found.tolist() == expected


@given(grids(), configs, traces)
def test_engine_equals_the_plain_python_twin(grid: reference.Grid, config: tuple, trace: list) -> None:
    assert_equal_to_the_twin(grid, config, trace)


def has_pipeline(grid: reference.Grid, config: tuple[int, ...]) -> bool:
    units = [grid.units[s] for s, count in enumerate(config[6:]) if count]
    return any(a == b == "sub_batch" for a, b in pairwise(units))


@given(
    grids(units=("sub_batch", "sub_batch", "sub_batch", "fused", "query")), rows(st.integers(0, 3), st.just(0)), traces
)
def test_bounded_pipelines_equal_the_twin(grid: reference.Grid, config: tuple, trace: list) -> None:
    assume(has_pipeline(grid, config))
    assert_equal_to_the_twin(grid, config, trace)


@given(grids(units=("sub_batch",)), rows(st.just(-1), st.just(0)), traces)
def test_a_buffer_that_never_fills_is_none(grid: reference.Grid, config: tuple, trace: list) -> None:
    """Two implementations of the same pipeline: from event to event, and station after station."""
    assume(has_pipeline(grid, config))
    arrival_s = np.cumsum([gap / 4 for gap, _ in trace])
    sizes = np.array([size for _, size in trace])
    wide = (*config[:4], 10_000, *config[5:])
    for noise_cv in (None, [0.0, 0.3, 0.7]):
        core = core_grid(grid, noise_cv)
        unbounded, bounded = (_core.simulate_trace(core, np.array(row), arrival_s, sizes) for row in (config, wide))
        assert bounded.tolist() == unbounded.tolist()


@given(grids(alone=True), rows(st.just(-1), st.integers(1, 14)), traces)
def test_offload_equals_the_twin(grid: reference.Grid, config: tuple, trace: list) -> None:
    assume(sum(count > 0 for count in config[6:]) == 2)
    assert_equal_to_the_twin(grid, config, trace)


@given(grids(alone=True), rows(st.just(-1), st.just(0)), traces)
def test_thresholds_at_the_ends_leave_one_stage(grid: reference.Grid, config: tuple, trace: list) -> None:
    used = [s for s, count in enumerate(config[6:]) if count]
    assume(len(used) == 2)
    arrival_s = np.cumsum([gap / 4 for gap, _ in trace])
    sizes = np.array([size for _, size in trace])
    core = core_grid(grid, [0.2, 0.0, 0.5])
    for threshold, left in ((1, used[1]), (13, used[0])):
        alone = [count if s == left else 0 for s, count in enumerate(config[6:])]
        both = (*config[:5], threshold, *config[6:])
        one = (*config[:6], *alone)
        found, expected = (_core.simulate_trace(core, np.array(row), arrival_s, sizes) for row in (both, one))
        assert found.tolist() == expected.tolist()


@given(grids(), rows(st.integers(-1, 2), st.just(0)), traces, st.integers(0, 2**64 - 1))
def test_noise_equals_the_twin(grid: reference.Grid, config: tuple, trace: list, seed: int) -> None:
    """Each part of a query has a draw of its own at each stage, a launch that of its first query."""
    assume(config[4] < 0 or has_pipeline(grid, config))
    arrival_s = np.cumsum([gap / 4 for gap, _ in trace])
    sizes = [size for _, size in trace]
    noise_cv = [0.5, 0.0, 0.1]

    def factor(query: int, part: int, stage: int) -> float:
        if noise_cv[stage] == 0:
            return 1.0
        sigma = math.sqrt(math.log1p(noise_cv[stage] ** 2))
        return float(_core.service_draws("lognormal", [sigma], seed, 0, stage, np.array([query]), np.array([part]))[0])

    core = core_grid(grid, noise_cv)
    found = _core.simulate_trace(core, np.array(config), arrival_s, np.array(sizes), seed)
    expected = reference.latencies_s(grid, list(config), arrival_s.tolist(), sizes, factor)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def one_stage() -> tuple[_core.ServiceGrid, _core.Traffic]:
    seconds = np.array([[[[0.001], [0.004]]]])
    energy_j = np.array([[[0.1, 0.4]]])
    grid = _core.ServiceGrid(np.array([1, 64]), np.array([1]), seconds, energy_j, ["sub_batch"], [0])
    return grid, _core.Traffic("poisson", [], np.full(64, 1 / 64), 7)


def test_the_drawn_run_equals_its_replay_as_a_trace() -> None:
    """Figures of a drawn run follow from its latencies; energy and executions from the split of its sizes."""
    grid, traffic = one_stage()
    config = np.array([0, 16, 1, 0, -1, 0, 4])
    found = _core.simulate(grid, traffic, config, 400.0, 5000, 500, [0.5, 0.95])
    kept = np.sort(found["latencies_s"])
    assert len(kept) == 4500
    assert found["percentiles_s"].tolist() == [kept[2249], kept[4274]]
    # E[ceil(size / 16)] over 1..64 is 2.5; energy 0.1 + 0.3 (items - 1) / 63 for each sub-batch.
    assert found["executions_per_query"][0] == pytest.approx(2.5, rel=0.05)
    per_query = 0.1 * 2.5 + 0.3 * (32.5 - 2.5) / 63
    assert found["energy_j_per_query"][0] == pytest.approx(per_query, rel=0.05)
    work_s = 0.001 * 2.5 + 0.003 * (32.5 - 2.5) / 63
    assert found["utilisation"][0] == pytest.approx(400 * work_s / 4, rel=0.05)
    assert _core.bottleneck_qps(grid, traffic, config) == pytest.approx(4 / work_s, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qps": 0.0}, "qps: is 0"),
        ({"qps": float("nan")}, "qps: is NaN"),
        ({"queries": 0}, "queries: is 0"),
        ({"warmup": 100}, "warmup: is 100"),
        ({"percentiles": [1.0]}, r"percentiles\[0\]: is 1"),
        ({"config": np.array([1, 16, 1, 0, -1, 0, 4])}, "variant: is 1"),
        ({"config": np.array([0, 0, 1, 0, -1, 0, 4])}, "batch: is 0"),
        ({"config": np.array([0, 16, 1, -1, -1, 0, 4])}, "max_wait_us: is -1"),
        ({"config": np.array([0, 16, 1, 0, -1, 0, 0])}, "threads: are all 0"),
        ({"config": np.array([0, 16, 1, 0])}, "config: has 4 entries"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    grid, traffic = one_stage()
    config = np.array([0, 16, 1, 0, -1, 0, 4])
    arguments = {"config": config, "qps": 100.0, "queries": 100, "warmup": 0, "percentiles": [0.5]}
    with pytest.raises(InputError, match=message):
        _core.simulate(grid, traffic, **(arguments | change))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("poisson", [], np.array([0.5, 0.4]), 0), "size_pmf: sums to 0.9"),
        (("poisson", [], np.array([1.5, -0.5]), 0), r"size_pmf\[1\]: is -0.5"),
        (("bursty", [], np.array([1.0]), 0), 'arrivals: is "bursty"'),
        (("erlang", [0.5], np.array([1.0]), 0), "arrivals_params: erlang"),
    ],
)
def test_bad_traffic_is_named(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _core.Traffic(*arguments)


def test_unsorted_and_missing_times_of_a_trace_are_named() -> None:
    grid, _ = one_stage()
    config = np.array([0, 16, 1, 0, -1, 0, 4])
    with pytest.raises(InputError, match=r"arrival_s\[2\]: is 0.5 after 1"):
        _core.simulate_trace(grid, config, np.array([0.0, 1.0, 0.5]), np.array([1, 1, 1]))
    with pytest.raises(InputError, match=r"arrival_s\[1\]: is NaN"):
        _core.simulate_trace(grid, config, np.array([0.0, np.nan]), np.array([1, 1]))
    with pytest.raises(InputError, match="batch: stage 0 could run 65 items"):
        _core.simulate_trace(grid, np.array([0, 99, 1, 0, -1, 0, 4]), np.array([0.0]), np.array([65]))
