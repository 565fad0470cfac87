"""Embedding bags: ours, the best that others offer on a CPU, and what the machine's memory allows.

    make bench-sls                       (all points, some minutes)
    make bench-sls ARGS="-k 'fp32 and t2'"

A point's name says what it is: ``int8-d64-r1e7-p80-b4096-t2`` is int8 rows of 64 columns, 1e7 of them, 80 lookups per
bag, 4096 bags, two threads; ``-zipf``: exponent 1.05, else uniform; ``-x32``: 32 tables in one call; ``-4K``: 4 KiB
pages.

Contenders take turns in one run, each call on lookups of its own, and medians are compared. Each answer is checked
before it is timed. The limit is a bare read of the same rows in the same order at the best prefetch of its own
(``hf.host``): one byte per cache line, nothing summed, threads that start together. It is a measurement too: on a
shared machine ours may come out above it by its noise. Idle OpenMP threads (PyTorch's, Numba's) are told to sleep,
since their spinning would slow the next in the turn; that costs them the time to wake where they are given two threads.
With benchmarks disabled only the answers are checked, on small tables.
"""

from __future__ import annotations

import itertools
import time
from functools import lru_cache
from statistics import median

import numpy as np
import pytest
import sls_rivals
from sls_points import POINTS, Point, Rows, lookups
from sls_rivals import Contender
from sls_timing import Account, Result, interleaved_medians, quietest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.host.limits import best_prefetch
from hercules_fast.host.system import available_memory_bytes

ROUNDS = 61
SMALL_CALL_BYTES = 1 << 20
SMALL_CALL_ROUNDS = 1001
has_collection = "EmbeddingBagCollection" in hf.__all__


@pytest.fixture(scope="module")
def account():
    """Where results are kept; printed when all points are done."""
    kept = Account()
    yield kept
    if sls_rivals.MISSING:
        kept.notes.append(f"not installed, so not compared: {', '.join(sorted(sls_rivals.MISSING))}")
    if kept.results or kept.modes:
        print(kept.summary())


@lru_cache(maxsize=1)
def _rows(key: tuple) -> Rows:
    return Rows(next(point for point in (*POINTS, *map(Point.small, POINTS), *MODES) if point.table_key == key))


def rows_of(point: Point) -> Rows:
    """The point's tables; those of the point before are let go first."""
    if _rows.cache_info().currsize and _held[0] != point.table_key:
        _rows.cache_clear()
        sls_rivals.forget()
    _held[0] = point.table_key
    return _rows(point.table_key)


_held: list[tuple] = [()]


def check(contender: Contender, point: Point, indices: np.ndarray) -> None:
    """The contender's answer for one set against float64."""
    answer = contender.call(0)
    if not isinstance(answer, np.ndarray):
        answer = answer.float().numpy()  # NumPy does not know PyTorch's bfloat16
    answer = answer.reshape(point.batch, point.tables, point.dim)
    bags = np.arange(0, point.batch * point.pooling, point.pooling)
    for t, one in enumerate(indices.reshape(point.tables, -1)):
        rows = contender.values[one % len(contender.values)]
        right = np.add.reduceat(rows, bags, axis=0, dtype=np.float64)
        size = np.abs(right).max() + np.sqrt(point.pooling) * np.abs(contender.values).max()
        # Codes may be summed apart from the bias, which is the least value and so several times the values' size.
        np.testing.assert_allclose(
            answer[:, t].astype(np.float64), right, rtol=contender.rounding, atol=1e-5 * size, err_msg=contender.name
        )


def limit(point: Point, rows: Rows, sets: list[np.ndarray]):
    """A bare read of the same rows, at its best prefetch: seconds of set ``i``."""
    raw = rows.raw().reshape(-1)
    turns = itertools.cycle(sets)

    def seconds(prefetch, indices) -> float:
        return _core.read_seconds(raw, point.row_bytes, indices, *prefetch, point.threads)

    best = best_prefetch(lambda prefetch: seconds(prefetch, next(turns)))
    return lambda i: seconds(best, sets[i])


def possible(point: Point):
    """The point, to be skipped where it cannot be had: rows of ours, of a rival, and those that they are made of."""
    most = 3 * point.tables * point.rows * point.row_bytes
    marks = [
        pytest.mark.skipif(point.tables > 1 and not has_collection, reason="this build has no EmbeddingBagCollection"),
        pytest.mark.skipif(most > available_memory_bytes(), reason=f"no {most / 2**30:.1f} GiB of memory available"),
    ]
    return pytest.param(point, id=str(point), marks=marks)


@pytest.mark.parametrize("point", [possible(point) for point in POINTS])
def test_sls(benchmark, account: Account, point: Point) -> None:
    if benchmark.disabled:
        point = point.small()
    rounds = SMALL_CALL_ROUNDS if point.useful_bytes < SMALL_CALL_BYTES else ROUNDS
    rows, sets = rows_of(point), lookups(point, 8 * rounds)
    ours = sls_rivals.ours(point, rows, sets)
    others = sls_rivals.rivals(point, rows, sets)
    for contender in (ours, *others):
        check(contender, point, sets[0])
    if not benchmark.disabled:
        calls = {contender.name: contender.call for contender in (ours, *others)}
        if point.tables == 1 and point.batch > 16:
            calls["limit"] = limit(point, rows, sets)
        medians, busy = quietest(lambda: interleaved_medians(calls, len(sets), rounds))
        result = Result(point, medians.pop("ours"), medians, medians.pop("limit", None), rows.huge_page_share, busy)
        account.results.append(result)
        print(f"\n{result}", end="", flush=True)
        benchmark.extra_info.update(ours_s=result.ours_s, rivals_s=medians, limit_s=result.limit_s)
    turns = itertools.cycle(range(len(sets)))
    benchmark.pedantic(lambda: ours.call(next(turns)), rounds=3)


MODES = [
    Point("fp32", 64, 10**7, 80, 256),
    Point("fp32", 64, 2000, 80, 256),
    Point("int8", 64, 10**7, 80, 256),
    Point("int8", 64, 2000, 80, 256),
]


@pytest.mark.parametrize("point", MODES, ids=str)
def test_modes(benchmark, account: Account, point: Point) -> None:
    """What mean, max, padding, weights and pruned rows cost over our own plain sum of the same lookups."""
    if benchmark.disabled:
        point = point.small()
    rows, sets = rows_of(point), lookups(point, 8 * ROUNDS)
    (table,), offsets = rows.tables, np.arange(0, point.lookups, point.pooling)
    weights = np.random.default_rng(5).random(point.lookups, dtype=np.float32)

    def call(**more):
        return lambda i: hf.embedding_bag(table, sets[i], offsets, threads=point.threads, **more)

    calls = {
        "sum": call(mode="sum"),
        "mean": call(mode="mean"),
        "max": call(mode="max"),
        "padding_idx": call(mode="sum", padding_idx=0),
        "weights": call(mode="sum", per_sample_weights=weights),
    }
    if has_collection:
        collection = hf.EmbeddingBagCollection(rows.tables)
        ends = np.append(offsets, point.lookups)
        pruned = [np.where(np.arange(point.lookups) % 20 == 7, -1, one) for one in sets]
        calls["sum through a collection"] = lambda i: collection(sets[i], ends, threads=point.threads)
        kept = (pruned[0] >= 0).astype(np.float32)
        right = hf.embedding_bag(table, sets[0], offsets, mode="sum", per_sample_weights=kept)
        np.testing.assert_allclose(collection(pruned[0], ends, skip_pruned=True), right, rtol=1e-4, atol=1e-3)
        calls["a twentieth pruned"] = lambda i: collection(pruned[i], ends, threads=point.threads, skip_pruned=True)
    expected = np.asarray(calls["sum"](0))
    np.testing.assert_allclose(np.asarray(calls["mean"](0)) * point.pooling, expected, rtol=1e-5, atol=1e-5)
    if not benchmark.disabled:
        medians, _ = quietest(lambda: interleaved_medians(calls, len(sets), ROUNDS))
        for name, seconds in medians.items():
            if name != "sum":
                ratio = seconds / medians["sum"]
                account.modes.append((f"{name}, {point}", ratio, 1.3 if name == "max" else 1.1))
        benchmark.extra_info.update(medians_s=medians)
    turns = itertools.cycle(range(len(sets)))
    benchmark.pedantic(lambda: calls["sum"](next(turns)), rounds=3)


def test_one_small_call(benchmark, account: Account) -> None:
    """A whole Python call of 20 lookups in the cache."""
    rng, calls = np.random.default_rng(1), 100 if benchmark.disabled else 20_000
    table = hf.EmbeddingTable.from_array(rng.standard_normal((1000, 64), dtype=np.float32))
    sets, offsets, out = list(rng.integers(0, 1000, (1000, 20))), np.array([0]), np.empty((1, 64), np.float32)
    bag = hf.embedding_bag
    times: dict[str, list[float]] = {"a new result": [], "out=": []}
    for block in range(calls // 100):
        for name, given in (("a new result", None), ("out=", out)):
            start = time.perf_counter()
            for i in range(100):
                bag(table, sets[(block * 100 + i) % 1000], offsets, mode="sum", out=given)
            times[name].append((time.perf_counter() - start) / 100)
    if not benchmark.disabled:
        for name, seconds in times.items():
            account.notes.append(f"one call, 20 cached lookups, {name}: {median(seconds) * 1e6:.2f} us (allowed 3)")
    benchmark.pedantic(lambda: bag(table, sets[0], offsets, mode="sum"), rounds=100)
