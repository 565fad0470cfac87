"""How fast this machine's memory is: rows read in order, and rows read at random.

A random gather is bound by the cache lines that a core keeps in flight and by the page walks before them, so by how
rows are prefetched. Several prefetches are tried for each figure and the best is kept: nothing here depends on how a
kernel of ours is tuned. Every line of every wanted row is read once and nothing is made of it.
"""

from __future__ import annotations

import json
import mmap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hercules_fast import _core
from hercules_fast.errors import InputError, InterruptedRun
from hercules_fast.host.numbers import byte_size, number, whole_number, whole_numbers
from hercules_fast.host.system import System, available_memory_bytes, read_system

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

__all__ = ["MemoryLimit", "MemoryLimits", "Prefetch", "best_prefetch", "memory_limits", "paged_memory", "random_rows"]

Pages = Literal["2 MiB", "4 KiB"]

SCHEMA = "hercules_fast.memory_limits/1"
PASS_BYTES = 32 << 20
"""Bytes read between two looks at the clock."""
SEQUENTIAL_ROW_BYTES = 4096
LEAST_REPEATS = 5
MOST_ROW_BYTES = 65_536

_HUGE_PAGE_BYTES = 2 << 20
_LEAST_TABLE_BYTES = 2 << 30
_CACHES_PER_TABLE = 8


class Prefetch(NamedTuple):
    """How rows are asked for before they are read."""

    rows_ahead: int
    """Rows between the one asked for and the one read; 0: the CPU is left alone."""
    burst: int
    """Rows asked for at a time, then as many read. Requests that stand close together overlap their page walks."""
    level: str
    """Cache to bring them to: ``"L1"`` or ``"L2"``."""


PREFETCHES = (
    Prefetch(0, 1, "L1"),
    *(
        Prefetch(ahead, burst, level)
        for ahead in (4, 8, 16, 32, 64, 128, 256)
        for burst in (1, 4, 8, 16, 32)
        for level in ("L1", "L2")
        if burst <= ahead
    ),
)


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One figure: the rate at which rows reach the cores, and how it was measured."""

    access: Literal["sequential", "gather"]
    pages: Pages
    threads: int
    row_bytes: int
    """Width of a row. Those of a sequential read are a convenience of the probe."""
    gb_s: float
    """Rows' own bytes per second / 1e9, median of the repeats."""
    repeats: int
    rows_ahead: int
    """The best prefetch: rows ahead (0: none), rows at a time, cache to fill."""
    burst: int
    level: str


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """What :func:`memory_limits` measured, and where. ``str()`` is a table."""

    system: System
    table_bytes: int
    seed: int
    huge_page_share: float
    """Share of the table "on 2 MiB pages" that the system did grant such pages, 0 to 1."""
    limits: tuple[MemoryLimit, ...]

    def sequential_gb_s(self, *, threads: int = 1, pages: Pages = "2 MiB") -> float:
        """GB/s of rows in order.

        Raises:
            InputError: It was not measured for these ``threads`` and ``pages``.
        """
        return self._find(("sequential", pages, threads, SEQUENTIAL_ROW_BYTES)).gb_s

    def gather_gb_s(self, row_bytes: int, *, threads: int = 1, pages: Pages = "2 MiB") -> float:
        """GB/s of random rows of ``row_bytes`` bytes.

        Raises:
            InputError: It was not measured for this width, these ``threads`` and ``pages``.
        """
        return self._find(("gather", pages, threads, row_bytes)).gb_s

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: everything that the object holds."""
        return {"schema": SCHEMA, **asdict(self)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_dict` as JSON, all or nothing.

        Raises:
            OutputError: The file cannot be written; an old one stays as it was.
        """
        from hercules_fast.tables.files import write_atomically

        write_atomically(Path(path), json.dumps(self.to_dict(), indent=1).encode() + b"\n")

    def _find(self, key: tuple[str, str, int, int]) -> MemoryLimit:
        measured = {(x.access, x.pages, x.threads, x.row_bytes): x for x in self.limits}
        if key not in measured:
            known = ", ".join(f"{width} B {kind} on {size}, {n} thr." for kind, size, n, width in measured)
            raise InputError(
                f"limits: no {key[0]} of {key[3]} B rows on {key[1]} pages, {key[2]} threads; have {known}"
            )
        return measured[key]

    def __str__(self) -> str:
        caches = ", ".join(f"L{c.level} {byte_size(c.size_bytes)} for {c.shared_by}" for c in self.system.caches)
        lines = [
            f"{self.system.cpu}, {self.system.cpus} CPUs, {self.system.isa}; {caches or 'caches unknown'}",
            f"table of {byte_size(self.table_bytes)}, {self.huge_page_share:.0%} on 2 MiB pages where asked;"
            f" seed {self.seed}",
            "",
            f"{'access':<11}{'row B':>6}  {'pages':<6}{'threads':>8}{'GB/s':>8}  best prefetch",
        ]
        for x in self.limits:
            how = f"{x.rows_ahead} rows ahead, {x.burst} at a time, to {x.level}" if x.rows_ahead else "the CPU's own"
            lines.append(f"{x.access:<11}{x.row_bytes:>6}  {x.pages:<6}{x.threads:>8}{x.gb_s:>8.2f}  {how}")
        return "\n".join(lines)


def memory_limits(
    *,
    threads: int | Sequence[int] | None = None,
    row_bytes: Sequence[int] = (64, 128, 256, 512, 1024),
    table_bytes: int | None = None,
    small_pages: bool = False,
    seconds: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> MemoryLimits:
    """Measure how fast rows come from this machine's memory: in order, and at random.

    A figure takes about a second: each of some sixty prefetches once, the better half of them again, and so on to
    the best, which is repeated and whose median is reported. Which rows are read depends on ``seed`` alone; times are
    times. Figures are those of an idle machine only if it is idle.

    Args:
        threads: Thread counts to measure with. Default: 1, and all that this process uses (see ``capabilities()``).
        row_bytes: Widths of rows for the gather, 1 to 65 536. Every cache line that a row touches is read. Loops are
            made for rows of up to 1 KiB, and of 2 KiB; on others the CPU's own prefetcher reads too much.
        table_bytes: Memory to read from, up to half of what is available. Default: 2 GiB or 8 times the last-level
            cache, whichever is more, but at most a quarter of what is available.
        small_pages: Measure on 4 KiB pages, too.
        seconds: How long to repeat the best prefetch of each figure, 0 to 60; five times at least.
        seed: Of the random rows.
        progress: Called with (figures done, figures in all).

    Returns:
        Sequential and gather rates for each number of threads and size of pages.

    Raises:
        InputError: An argument is outside what is said above.
        MemoryError: There is too little memory for a table well beyond the cache, or for ``table_bytes``.
        InterruptedRun: Ctrl-C; ``partial`` holds the figures so far.
    """
    widths = whole_numbers("row_bytes", row_bytes, 1, MOST_ROW_BYTES)
    all_threads = _core.capabilities()["threads_used"]
    counts = whole_numbers("threads", sorted({1, all_threads}) if threads is None else threads, 1, 1024)
    seconds = number("seconds", seconds, 0, 60)
    seed = whole_number("seed", seed, 0, 2**64 - 1)
    system = read_system()
    size = _table_bytes(table_bytes, system)
    kinds: tuple[Pages, ...] = ("2 MiB", "4 KiB") if small_pages else ("2 MiB",)
    limits: list[MemoryLimit] = []
    share = 0.0
    total = len(kinds) * len(counts) * (1 + len(widths))
    try:
        for kind in kinds:
            memory = paged_memory(size, kind)
            if kind == "2 MiB":
                share = _huge_share(memory)
            for n in counts:
                for access, width in (("sequential", SEQUENTIAL_ROW_BYTES), *(("gather", w) for w in widths)):
                    limits.append(_measure(access, memory, kind, width, n, seconds, seed))
                    if progress is not None:
                        progress(len(limits), total)
            del memory
    except KeyboardInterrupt as stop:
        partial = MemoryLimits(system, size, seed, share, tuple(limits))
        raise InterruptedRun(f"interrupted after {len(limits)} of {total} figures", partial) from stop
    return MemoryLimits(system, size, seed, share, tuple(limits))


def paged_memory(size: int, kind: Pages) -> npt.NDArray[np.uint8]:
    """Private memory, ``size`` bytes, written once, on pages of the kind where the system grants them.

    The system may grant 2 MiB pages to any memory unless told not to, and never to shared memory or files.

    Raises:
        MemoryError: There is no memory.
    """
    import numpy as np

    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        reserved = mmap.mmap(-1, size + _HUGE_PAGE_BYTES, flags=flags)
    except OSError as error:
        raise MemoryError(f"cannot allocate {size} bytes: {error.strerror}") from error
    with suppress(OSError):  # a system without huge pages refuses the advice; its pages are all small
        reserved.madvise(mmap.MADV_HUGEPAGE if kind == "2 MiB" else mmap.MADV_NOHUGEPAGE)
    everything = np.frombuffer(reserved, np.uint8)
    skip = -everything.ctypes.data % _HUGE_PAGE_BYTES
    memory = everything[skip : skip + size]
    for start in range(0, size, 1 << 26):  # in steps, so that Ctrl-C is heard
        memory[start : start + (1 << 26)] = 1  # untouched pages would all be one page of zeros
    return memory


def random_rows(seed: int, lookups: int, rows: int, draw: int = 0) -> npt.NDArray[np.int64]:
    """Random rows ``[lookups]``, 0 <= row < ``rows`` <= 2**32, a pure function of the arguments.

    The upper 32 bits of NumPy's Philox generator, whose raw numbers are the same in every version, scaled by ``rows``.
    ``draw`` counts on: each has numbers of its own.
    """
    import numpy as np

    bits = np.random.Philox(key=seed, counter=[0, draw, 0, 0]).random_raw(lookups)
    return ((bits >> np.uint64(32)) * np.uint64(rows) >> np.uint64(32)).astype(np.int64)


def best_prefetch(seconds_of: Callable[[Prefetch], float]) -> Prefetch:
    """The fastest prefetch: all are timed, the better half again, and so on; by the median of their times."""
    times: dict[Prefetch, list[float]] = {prefetch: [] for prefetch in PREFETCHES}
    while True:
        for candidate, so_far in times.items():
            so_far.append(seconds_of(candidate))
        ranked = sorted(times, key=lambda candidate: median(times[candidate]))
        if len(ranked) == 1:
            return ranked[0]
        times = {candidate: times[candidate] for candidate in ranked[: ceil(len(ranked) / 2)]}


def _measure(
    access: str, memory: npt.NDArray[np.uint8], kind: Pages, width: int, threads: int, seconds: float, seed: int
) -> MemoryLimit:
    import numpy as np

    rows = min(len(memory) // width, 1 << 32)
    lookups = min(PASS_BYTES // width, 1 << 20)

    def sets() -> Iterator[npt.NDArray[np.int64]]:
        draw = 0
        while True:  # rows of its own for each pass: none is in the cache by grace of the one before
            if access == "gather":
                yield random_rows(seed, lookups, rows, draw)
            else:
                start = draw * lookups % (rows - lookups + 1)
                yield np.arange(start, start + lookups)
            draw += 1

    passes = sets()

    def once(prefetch: Prefetch) -> float:
        return _core.read_seconds(memory, width, next(passes), *prefetch, threads)

    best = best_prefetch(once)
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < LEAST_REPEATS or time.monotonic() < end:
        times.append(once(best))
    rate = lookups * width / median(times) / 1e9
    return MemoryLimit("gather" if access == "gather" else "sequential", kind, threads, width, rate, len(times), *best)


def _table_bytes(asked: int | None, system: System) -> int:
    available = available_memory_bytes()
    least = max(2 * system.last_level_cache_bytes, 2 * PASS_BYTES)
    if asked is None:
        wanted = max(_LEAST_TABLE_BYTES, _CACHES_PER_TABLE * system.last_level_cache_bytes)
        size = min(wanted, available // 4)
        if size < least:
            raise MemoryError(
                f"table_bytes: a table well beyond the caches takes {least} bytes, a quarter of the memory that is"
                f" available is {available // 4}"
            )
    else:
        size = whole_number("table_bytes", asked, 2 * PASS_BYTES, 1 << 46)
        if size > available // 2:
            raise MemoryError(
                f"table_bytes: is {size}; allowed is half of the memory that is available, {available // 2}"
            )
    return size // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES


def _huge_share(memory: npt.NDArray[np.uint8]) -> float:
    """Share of the memory on huge pages, by the regions of ``/proc/self/smaps`` that hold it."""
    start, end = memory.ctypes.data, memory.ctypes.data + memory.nbytes
    inside, huge = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            low, high = (int(address, 16) for address in first.split("-"))
            inside = low < end and start < high
        elif inside and first == "AnonHugePages:":
            huge += int(rest[0]) * 1024
    return min(1.0, huge / memory.nbytes)
