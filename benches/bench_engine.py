"""The engine beside the same model in PyTorch eager and in ONNX Runtime end to end: samples per second.

    make bench ARGS="-k engine -s"                       (all points, some minutes)
    make bench ARGS="-k 'engine and rmc2 and t1' -s"

A point's name says what it is: ``dlrm-rmc1-b64-t1`` is RMC1, 64 items per query, one thread. Weights, rows and inputs
are the same for all; tables are scaled to ``TABLE_BYTES``, so that rows come from memory; no query comes twice until
the rows of all others would have filled the last-level cache several times. Contenders take turns of ``TURN_ITEMS``
items and medians are compared: of the thread's CPU time for one thread, which others on the machine lengthen least, of
wall time for two, in the quietest of three attempts. Answers are compared before the clock runs. Of PyTorch and of ONNX
Runtime the best form counts, see ``engine_rivals``: indices, offsets and bindings are prepared for them beforehand,
while ours looks its inputs up inside the clock.

With benchmarks disabled only the answers are checked, on small tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from statistics import geometric_mean

import engine_rivals
import numpy as np
import pytest
from engine_rivals import Answer, Rows, Sets
from sls_timing import BUSY, Others, interleaved_medians, quietest

from hercules_fast import models
from hercules_fast.host.system import available_memory_bytes
from hercules_fast.measure import Engine

MODELS = ("dlrm-rmc1", "dlrm-rmc2", "dlrm-rmc3", "mt-wnd", "din", "dien")
BATCHES = (16, 64, 256)
TABLE_BYTES = 1 << 30
SMALL_BYTES = 1 << 22
TOUCHED_BYTES = 512 << 20
"""Rows read before a query comes again."""
INDEX_BYTES = 512 << 20
"""Most bytes of indices, which the rivals hold in three forms."""
ROUNDS = 31
TURN_ITEMS = 512
MOST_SETS = 2048


@dataclass(frozen=True)
class Point:
    model: str
    items: int
    threads: int

    def __str__(self) -> str:
        return f"{self.model}-b{self.items}-t{self.threads}"


POINTS = [Point(model, items, threads) for model in MODELS for items in BATCHES for threads in (1, 2)]


@dataclass
class Result:
    point: Point
    seconds: dict[str, float]
    """Of each contender, ``"ours"`` among them."""
    others_cpus: float

    def best(self, library: str) -> tuple[str, float] | None:
        """Its best form and our speed over it; None where it was not there."""
        own = {name: s for name, s in self.seconds.items() if name.startswith(library)}
        if not own:
            return None
        name = min(own, key=lambda name: own[name])
        return name.partition(", ")[2], own[name] / self.seconds["ours"]

    def __str__(self) -> str:
        line = f"{self.point!s:<22}{self.point.items / self.seconds['ours']:>12,.0f} samples/s"
        for library in ("PyTorch", "ONNX Runtime"):
            best = self.best(library)
            line += f"  {library} {best[1]:>6.2f} ({best[0]})" if best else f"  {library}: not there"
        return line + (f"  others took {self.others_cpus:.1f} CPUs" if self.others_cpus >= BUSY else "")


def summary(results: list[Result]) -> str:
    """Our speed over each library's, per model and over all."""
    lines = [f"\n{'ours over theirs':<22}{'points':>7}   PyTorch: worst, mean   ONNX Runtime: worst, mean"]
    for what in (*MODELS, "all"):
        group = [r for r in results if what in ("all", r.point.model)]
        if not group:
            continue
        line = f"{what:<22}{len(group):>7}"
        for library, width in (("PyTorch", 15), ("ONNX Runtime", 20)):
            ratios = [best[1] for r in group if (best := r.best(library))]
            line += f"{min(ratios):>{width}.2f}{geometric_mean(ratios):>8.2f}" if ratios else f"{'-':>{width + 8}}"
        lines.append(line)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def results():
    """Where results are kept; printed when all points are done."""
    kept: list[Result] = []
    yield kept
    if kept:
        print(summary(kept))
    if engine_rivals.MISSING:
        print(f"not installed, so not compared: {', '.join(sorted(engine_rivals.MISSING))}")


@lru_cache(maxsize=1)
def built(model: str, table_bytes: int) -> tuple[Engine, Rows]:
    engine = Engine.build(models.model(model), max_bytes=table_bytes, max_items=max(BATCHES))
    return engine, Rows.of(engine)


def set_count(engine: Engine, items: int) -> int:
    """Different queries: enough that none is found in a cache."""
    model = engine.model
    touched = TOUCHED_BYTES // (items * model.embedding_read_bytes_per_item) + 2
    room = INDEX_BYTES // (items * model.index_bytes_per_item)
    return max(2, min(touched, room, MOST_SETS))


def check(name: str, answer: np.ndarray, right: np.ndarray) -> None:
    """Sums of other orders: float32 through up to 40 steps and 1,900 terms."""
    assert answer.shape == right.shape, name
    np.testing.assert_allclose(answer, right, rtol=2e-3, atol=2e-4 * float(np.abs(right).max()), err_msg=name)


def turn(call: Answer, point: Point, count: int) -> Callable[[int], float]:
    """A turn of ``TURN_ITEMS`` items, one query after another as a server has them; tells seconds per query."""
    queries = max(1, TURN_ITEMS // point.items)
    clock = time.thread_time if point.threads == 1 else time.perf_counter

    def run(i: int) -> float:
        first = i * queries
        start = clock()
        for query in range(first, first + queries):
            call(query % count)
        return (clock() - start) / queries

    return run


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_engine(benchmark, results: list[Result], point: Point) -> None:
    table_bytes = SMALL_BYTES if benchmark.disabled else TABLE_BYTES
    if 3 * table_bytes > available_memory_bytes():
        pytest.skip(f"no {3 * table_bytes / 2**30:.1f} GiB of memory available")
    engine, rows = built(point.model, table_bytes)
    count = 2 if benchmark.disabled else set_count(engine, point.items)
    sets = Sets.of(engine, count, point.items)
    worker = engine.worker(point.threads)
    contenders: dict[str, Answer] = {
        "ours": lambda i: worker(i, point.items),
        **engine_rivals.rivals(rows, sets, point.items, point.threads),
    }
    for i in range(2):
        right = np.array(worker(i, point.items))
        for name, call in contenders.items():
            check(name, call(i), right)
    if not benchmark.disabled:
        turns = {name: turn(call, point, count) for name, call in contenders.items()}
        measure = partial(interleaved_medians, turns, 1 << 20, ROUNDS)
        others = Others()
        seconds, busy = quietest(measure) if point.threads > 1 else (measure(), others.cpus())
        results.append(Result(point, seconds, busy))
        print(f"\n{results[-1]}", end="")
    queries = iter(range(1 << 30))
    benchmark.pedantic(lambda: worker(next(queries) % count, point.items), rounds=5, warmup_rounds=1)
