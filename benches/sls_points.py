"""The points of the embedding-bag bench: what is looked up, in which tables, and what must be reached there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

import numpy as np

import hercules_fast as hf
from hercules_fast.host.limits import paged_memory

LONG = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8", "int4": "int4"}
_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8, "int4": 4}
_PARAMS = {"int8": 8, "int4": 4}
# Every call gets lookups of its own, and they come round again only after this many bytes of rows: else a table in
# memory would be served from the cache, by grace of the contender before.
BYTES_BETWEEN_REPEATS = 1 << 28
_PATTERN = 1 << 16
_CACHE_BYTES = hf.host.read_system().last_level_cache_bytes or 32 << 20


@dataclass(frozen=True)
class Point:
    dtype: str
    dim: int
    rows: int
    pooling: int
    batch: int
    threads: int = 1
    zipf: bool = False
    tables: int = 1
    small_pages: bool = False

    def __str__(self) -> str:
        rows = f"{self.rows:.0e}".replace("e+0", "e")
        what = f"{self.dtype}-d{self.dim}-r{rows}-p{self.pooling}-b{self.batch}-t{self.threads}"
        return what + "-zipf" * self.zipf + f"-x{self.tables}" * (self.tables > 1) + "-4K" * self.small_pages

    @property
    def row_bytes(self) -> int:
        return self.dim * _BITS[self.dtype] // 8 + _PARAMS.get(self.dtype, 0)

    @property
    def lookups(self) -> int:
        return self.tables * self.batch * self.pooling

    @property
    def useful_bytes(self) -> int:
        return self.lookups * self.row_bytes

    @property
    def cached(self) -> bool:
        return self.tables * self.rows * self.row_bytes <= _CACHE_BYTES // 2

    @property
    def table_key(self) -> tuple:
        return self.dtype, self.dim, self.rows, self.tables, self.small_pages

    @property
    def target(self) -> Target:
        if self.tables > 1:
            return Target("32 tables, fp32", 1.8) if self.dtype == "fp32" else Target("32 tables, int8 and int4", 3.0)
        if self.batch in (1, 16):
            return Target(f"batch {self.batch}", {1: 2.0, 16: 1.4}[self.batch])
        if self.cached:
            return Target(f"cache, {self.dtype}", {"int8": 1.15, "int4": 1.5}.get(self.dtype, 1.0))
        if self.row_bytes <= 140:
            return Target(f"memory, rows <= 140 B, {self.dtype}", {"int8": 1.8, "int4": 3.0}.get(self.dtype, 1.5), 85)
        if self.row_bytes <= 300:
            return Target(f"memory, 256 B, {self.threads} thr.", 1.15 if self.threads == 1 else 1.05, 80)
        return Target("memory, rows >= 512 B", 1.03, 88)

    def small(self) -> Point:
        """The same in seconds, for a check without times."""
        fewer = {"rows": min(self.rows, 5000), "batch": min(self.batch, 16), "tables": min(self.tables, 3)}
        return replace(self, **fewer)


@dataclass(frozen=True)
class Target:
    name: str
    ratio: float
    percent: float | None = None
    """Of the gather limit; None where that is not asked for."""


def _points() -> list[Point]:
    both = (1, 2)
    memory = [
        # dtype, dim, pooling, rows, batch, thread counts, more
        *(("fp32", 16, 80, 10**7, 4096, both, {}), ("fp32", 16, 1, 10**7, 4096, (1,), {})),
        *(("fp32", 16, 120, 10**7, 256, both, {"small_pages": True}), ("fp32", 32, 80, 10**7, 4096, both, {})),
        *(("fp32", 32, 20, 10**7, 4096, (1,), {"zipf": True}), ("fp16", 64, 80, 10**7, 4096, both, {})),
        *(("fp16", 32, 20, 10**7, 4096, (1,), {}), ("bf16", 64, 80, 10**7, 4096, both, {})),
        *(("int8", 64, 80, 10**7, 4096, both, {}), ("int8", 128, 80, 10**7, 256, both, {})),
        *(("int8", 32, 20, 10**7, 4096, (1,), {"zipf": True}), ("int4", 64, 80, 10**7, 4096, both, {})),
        *(("int4", 128, 80, 10**7, 256, (1,), {}), ("int4", 128, 1, 10**7, 4096, (2,), {})),
        *(("fp32", 64, 80, 10**7, 256, both, {}), ("fp32", 64, 20, 10**7, 4096, (1,), {"zipf": True})),
        *(("fp32", 64, 120, 10**6, 256, both, {"small_pages": True}), ("fp16", 128, 80, 10**7, 256, (1,), {})),
        *(("int8", 256, 80, 10**6, 256, (1,), {}), ("fp32", 128, 80, 10**6, 256, both, {})),
        *(("fp32", 256, 20, 10**6, 256, both, {}), ("fp16", 256, 80, 10**6, 256, (1,), {})),
    ]
    cached = [
        *(("fp32", 64, 80, 2000, 256, both, {}), ("fp32", 16, 20, 10**4, 256, (1,), {})),
        *(("fp32", 128, 20, 10**4, 4096, (1,), {}), ("fp32", 16, 1, 10**5, 4096, (1,), {})),
        *(("fp16", 64, 80, 2000, 256, (1,), {}), ("bf16", 64, 80, 2000, 256, (1,), {})),
        *(("int8", 64, 80, 2000, 256, both, {}), ("int8", 128, 80, 10**5, 256, (1,), {})),
        *(("int4", 128, 80, 2000, 256, both, {}), ("int4", 64, 20, 10**4, 4096, (1,), {})),
    ]
    small = [
        *(("fp32", 64, 20, 10**7, 1, (1,), {}), ("fp32", 64, 20, 2000, 1, (1,), {})),
        *(("int8", 64, 80, 10**7, 1, (1,), {}), ("fp32", 64, 20, 10**7, 16, (1,), {})),
        *(("fp16", 64, 20, 10**7, 16, (1,), {}), ("int4", 128, 80, 10**7, 16, (1,), {})),
    ]
    many = [
        *(("fp32", 64, 20, 10**5, 256, both, {"tables": 32}), ("fp32", 64, 20, 10**5, 16, (1,), {"tables": 32})),
        *(("int8", 64, 20, 10**6, 256, both, {"tables": 32}), ("int4", 64, 20, 10**6, 256, both, {"tables": 32})),
    ]
    points = [
        Point(dtype, dim, rows, pooling, batch, threads, **more)
        for dtype, dim, pooling, rows, batch, counts, more in (*memory, *cached, *small, *many)
        for threads in counts
    ]
    return sorted(points, key=lambda point: (str(point.table_key), point.batch, point.pooling, point.threads))


POINTS = _points()
"""Points of one table stand together, so that one table at a time is in memory."""


class Rows:
    """The tables of a point, all of one kind. Row ``r`` of each holds what row ``r % 65536`` holds.

    On 2 MiB pages they are :class:`hf.EmbeddingTable`; on 4 KiB pages one NumPy array.
    """

    def __init__(self, point: Point) -> None:
        dtype, dim, rows, count, small_pages = point.table_key
        self.key, self.count, self.rows = point.table_key, count, rows
        values = np.random.default_rng(3).standard_normal((min(_PATTERN, rows), dim), dtype=np.float32)
        pattern = hf.EmbeddingTable.from_array(values, LONG[dtype])
        self.pattern, self.values = pattern, pattern.dequantize()
        if small_pages:
            memory = paged_memory(rows * point.row_bytes, "4 KiB")
            array = memory.view(LONG[dtype]).reshape(rows, dim)
            fill(array, pattern._rows.view().view(LONG[dtype]))
            self.tables = [array]
            return
        if dtype in _PARAMS:
            array = np.empty((rows, point.row_bytes), np.uint8)
            fill(array, pattern.to_fused())
            self.tables = [hf.EmbeddingTable.from_fused(array, LONG[dtype]) for _ in range(count)]
        else:
            array = np.empty((rows, dim), np.float16 if dtype == "fp16" else np.float32)
            fill(array, self.values.astype(array.dtype))
            self.tables = [hf.EmbeddingTable.from_array(array, LONG[dtype]) for _ in range(count)]

    @property
    def huge_page_share(self) -> float:
        """Share of the first table that the system put on 2 MiB pages."""
        table = self.tables[0]
        return table.huge_page_share if isinstance(table, hf.EmbeddingTable) else 0.0

    def raw(self) -> np.ndarray:
        """The bytes of the first table, ``[rows, row bytes]``."""
        table = self.tables[0]
        rows = table._rows.view() if isinstance(table, hf.EmbeddingTable) else table
        return rows.view(np.uint8).reshape(self.rows, -1)


def fill(array: np.ndarray, pattern: np.ndarray) -> None:
    """Repeat ``pattern`` over the rows of ``array``."""
    for start in range(0, len(array), len(pattern)):
        part = array[start : start + len(pattern)]
        part[:] = pattern[: len(part)]


def lookups(point: Point, calls: int) -> list[np.ndarray]:
    """Sets of lookups, table by table, bag by bag, to be taken in turn: as many as are needed, ``calls`` at most."""
    count = min(calls, max(4, BYTES_BETWEEN_REPEATS // point.useful_bytes))
    rng = np.random.default_rng(7)
    if not point.zipf:
        return list(rng.integers(0, point.rows, (count, point.lookups)))
    # Bounded Zipf by the inverse of its continuous distribution, and ranks scattered over the rows.
    exponent, scatter = 1.05, 2_654_435_761
    while gcd(scatter, point.rows) > 1:
        scatter += 1
    most = (point.rows + 1.0) ** (1 - exponent) - 1
    ranks = (1 + rng.random((count, point.lookups)) * most) ** (1 / (1 - exponent))
    return list(np.minimum(ranks.astype(np.int64) - 1, point.rows - 1) * scatter % point.rows)
