"""The queue recursions in Numba, as fast as we could make it go: the bar that the simulator is measured against.

Random numbers are a hash of a counter (SplitMix64), turned into exponentials and lognormals by polynomials, a block at
a time, so that LLVM makes vectors of whole loops. PyPI's Numba has no vector library of its own (its ``np.log`` stays
scalar). Three ways to do a pool with them: one line with a binary heap of free times; one line with sorted free times,
branch-free; and ``LANES`` independent lines side by side, one in each lane of a vector, whose sorted free times need no
shuffles. Percentiles come from a histogram over the leading bits of the float, as ``np.partition`` costs more than all
the rest. Times are relative to the block, so that long runs lose no digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial

LANES = 16
STEPS = 512
BLOCK = LANES * STEPS
WARM_UP_BLOCKS = 24  # 12 288 jobs in each lane: 32 relaxation times of M/M/1 at 0.9
KEPT_BITS = 42  # of the 52 of a fraction: buckets 0.1 % wide
FIRST_BUCKET = int(np.float64(2.0**-40).view(np.int64)) >> KEPT_BITS
BUCKETS = (int(np.float64(2.0**24).view(np.int64)) >> KEPT_BITS) - FIRST_BUCKET

ONE_BITS, ROOT_HALF_BITS = int(np.float64(1).view(np.int64)), int(np.float64(0.5**0.5).view(np.int64))
LN2, LOG2_E, HALF_PI = float(np.log(2)), float(1 / np.log(2)), float(np.pi / 2)

fast = njit(fastmath=True, nogil=True)
inline = njit(fastmath=True, inline="always")


@intrinsic
def bits(_, value):
    """The bits of a float64."""
    return types.int64(types.float64), lambda c, b, _, a: b.bitcast(a[0], c.get_value_type(types.int64))


@intrinsic
def real(_, value):
    """The float64 of these bits."""
    return types.float64(types.int64), lambda c, b, _, a: b.bitcast(a[0], c.get_value_type(types.float64))


def compiled(source: str, **names: object) -> Callable:
    """The one function in ``source``, for Numba to put where it is called."""
    exec(source, names)
    return inline(names[source.split("(")[0].removeprefix("def ").strip()])


def polynomial(function: Callable, low: float, high: float, degree: int) -> Callable:
    """Chebyshev interpolant of ``function``, in Horner's form."""
    *rest, source = map(
        repr, Chebyshev.interpolate(function, degree, [low, high]).convert(kind=Polynomial).coef.tolist()
    )
    for coefficient in reversed(rest):
        source = f"({coefficient} + x * {source})"
    return compiled(f"def horner(x): return {source}")


def _ratio(function: Callable, at_zero: float) -> Callable:
    return lambda x: np.where(x == 0, at_zero, function(x) / np.where(x == 0, 1, x))


# Relative errors below 1e-9, which a percentile of simulated times does not feel.
_log1p = polynomial(_ratio(np.log1p, 1.0), 0.5**0.5 - 1, 2**0.5 - 1, 10)
_exp = polynomial(np.exp, -LN2 / 2, LN2 / 2, 7)
_sin = polynomial(lambda y: np.sinc(np.sqrt(y) / np.pi), 0, HALF_PI**2, 5)
_cos = polynomial(lambda y: np.cos(np.sqrt(y)), 0, HALF_PI**2, 6)


@inline
def word(counter):
    """64 random bits: SplitMix64's number ``counter``."""
    z = counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inline
def one_to_two(z):
    """A float in [1, 2) from the 52 leading bits."""
    return real(np.int64(z >> np.uint64(12)) | ONE_BITS)


@inline
def exponential(z):
    of = bits(2.0 - one_to_two(z))
    power = (of - ROOT_HALF_BITS) >> 52
    x = real(of - (power << 52)) - 1.0
    return -(power * LN2 + x * _log1p(x))


@inline
def exp(x):
    power = np.rint(x * LOG2_E)
    return real(bits(_exp(x - power * LN2)) + (np.int64(power) << 52))


@fast
def exponentials(counter, out, _sigma):
    for i in range(out.size):
        out[i] = exponential(word(counter + np.uint64(i)))
    return counter + np.uint64(out.size)


@fast
def lognormals(counter, out, sigma):
    """Of mean 1, by Box and Muller: an angle in a half circle, the other half by a random sign."""
    half = out.size // 2
    for i in range(half):
        radius = sigma * np.sqrt(2.0 * exponential(word(counter + np.uint64(2 * i))))
        z = word(counter + np.uint64(2 * i + 1))
        angle = (one_to_two(z) - 1.5) * np.pi
        square = angle * angle
        sine, cosine = angle * _sin(square), real(bits(_cos(square)) ^ np.int64(z << np.uint64(63)))
        out[i] = exp(radius * sine - 0.5 * sigma * sigma)
        out[half + i] = exp(radius * cosine - 0.5 * sigma * sigma)
    return counter + np.uint64(out.size)


@njit
def zeros(size):
    """On a cache line: where Numba's own allocation falls is luck, and worth a third of the time."""
    memory = np.zeros(size + 7)
    start = -(memory.ctypes.data // 8) % 8
    return memory[start : start + size]


@inline
def count(histogram, latency):
    histogram[(bits(latency) >> KEPT_BITS) - FIRST_BUCKET] += 1


EDGES = (np.arange(BUCKETS + 1) + FIRST_BUCKET << KEPT_BITS).view(np.float64)


def mean(histogram: np.ndarray) -> float:
    return float((histogram * (EDGES[1:] + EDGES[:-1])).sum() / 2 / histogram.sum())  # no BLAS: its threads spin on


def percentiles(histogram: np.ndarray, shares: list[float]) -> list[float]:
    """Interpolated within the bucket."""
    below = np.concatenate([[0], np.cumsum(histogram)])
    rank = np.asarray(shares) * below[-1]
    i = np.searchsorted(below, rank) - 1
    return (EDGES[i] + (EDGES[i + 1] - EDGES[i]) * (rank - below[i]) / (below[i + 1] - below[i])).tolist()


# Whoever keeps the free times of a pool's threads has its least first, and puts ``time`` in that one's place. What is
# carried along (``tag``) is the arrival of the job that holds the thread.


@inline
def heap_put(free, tags, servers, time, tag):
    i = 0
    while True:
        child = 2 * i + 1
        if child + 1 < servers and free[child + 1] < free[child]:
            child += 1
        if child >= servers or free[child] >= time:
            break
        free[i], tags[i] = free[child], tags[child]
        i = child
    free[i], tags[i] = time, tag


@inline
def heap_put_untagged(free, servers, time):
    i = 0
    while True:
        child = 2 * i + 1
        if child + 1 < servers and free[child + 1] < free[child]:
            child += 1
        if child >= servers or free[child] >= time:
            break
        free[i] = free[child]
        i = child
    free[i] = time


@inline
def sorted_put(free, tags, servers, time, tag):
    i = 1
    while i < servers and free[i] < time:
        free[i - 1], tags[i - 1] = free[i], tags[i]
        i += 1
    free[i - 1], tags[i - 1] = time, tag


@inline
def sorted_put_untagged(free, servers, time):
    for i in range(servers - 1):
        free[i] = max(free[i], min(time, free[i + 1]))
    free[servers - 1] = max(free[servers - 1], time)


PUTS = {"heap": (heap_put, heap_put_untagged), "sorted": (sorted_put, sorted_put_untagged)}


@lru_cache
def pool(servers: int, draw: Callable, how: str) -> Callable:
    """One line before ``servers`` threads: ``run(blocks, gap_s, mean_s, sigma, seed, histogram)``."""
    put = PUTS[how][1]

    @fast
    def run(blocks, gap_s, mean_s, sigma, seed, histogram):
        gaps, work, free = zeros(BLOCK), zeros(BLOCK), zeros(servers)
        counter = np.uint64(seed)
        for block in range(blocks):
            counter = draw(exponentials(counter, gaps, 0.0), work, sigma)
            now = 0.0
            for i in range(BLOCK):
                now += gap_s * gaps[i]
                end = max(now, free[0]) + mean_s * work[i]
                work[i] = end - now
                put(free, servers, end)
            for j in range(servers):
                free[j] -= now
            if block >= WARM_UP_BLOCKS:
                for i in range(BLOCK):
                    count(histogram, work[i])

    return run


@lru_cache
def pool_plain(servers: int, lognormal: bool) -> Callable:
    """As one writes it without a thought: ``np.random``, sorted free times, every latency kept."""

    @njit
    def run(jobs, gap_s, mean_s, sigma, seed):
        np.random.seed(seed)  # noqa: NPY002 (what Numba has)
        free, sojourn, now = np.zeros(servers), np.empty(jobs), 0.0
        for i in range(jobs):
            now += np.random.exponential(gap_s)  # noqa: NPY002
            work = np.random.exponential(1.0) if not lognormal else np.random.lognormal(-(sigma**2) / 2, sigma)  # noqa: NPY002
            end = max(now, free[0]) + mean_s * work
            sojourn[i] = end - now
            at = 0
            while at + 1 < servers and free[at + 1] < end:
                free[at] = free[at + 1]
                at += 1
            free[at] = end
        return sojourn

    return run


@lru_cache
def tandem(servers: int, then: int, how: str) -> Callable:
    """Two pools in a row, exponential service.

    Whenever a job starts, the job whose end freed its thread is the next to reach the second pool: no later start can
    end before. So the first pool passes on one job for each that comes, in order (the first few are nobody).
    """
    put, put_second = PUTS[how]

    @fast
    def run(blocks, gap_s, mean_s, then_mean_s, seed, histogram):
        gaps, work, more = zeros(BLOCK), zeros(BLOCK), zeros(BLOCK)
        free, came, second = zeros(servers), zeros(servers), zeros(then)
        counter = np.uint64(seed)
        for block in range(blocks):
            counter = exponentials(exponentials(exponentials(counter, gaps, 0.0), work, 0.0), more, 0.0)
            now = 0.0
            for i in range(BLOCK):
                now += gap_s * gaps[i]
                first_end, arrival = free[0], came[0]
                put(free, came, servers, max(now, first_end) + mean_s * work[i], now)
                end = max(first_end, second[0]) + then_mean_s * more[i]
                put_second(second, then, end)
                work[i] = end - arrival
            for j in range(servers):
                free[j] -= now
                came[j] -= now
            for j in range(then):
                second[j] -= now
            if block >= WARM_UP_BLOCKS:
                for i in range(BLOCK):
                    count(histogram, work[i])

    return run


def lanes_put(free: str, servers: int, time: str, tag: str | None = None) -> list[str]:
    """Source: ``time`` takes the place of the least of sorted ``free``, in every lane (``l``) at once.

    Each new value is the old one, the old next or ``time``, whichever is in the middle.
    """
    old = [f"{free}{j}" for j in range(1, servers)]
    lines = [f"{name} = {free}[{j * LANES} + l]" for j, name in enumerate(old, 1)]
    values = [f"min({time}, {old[0]})"] if old else [time]
    values += [f"min({after}, max({name}, {time}))" for name, after in pairwise(old)]
    values += [f"max({old[-1]}, {time})"] if old else []
    lines += [f"{free}[{j * LANES} + l] = {value}" for j, value in enumerate(values)]
    if tag is not None:
        tags = [f"{tag}s{j}" for j in range(1, servers)]
        lines += [f"{name} = {tag}s[{j * LANES} + l]" for j, name in enumerate(tags, 1)]
        for j in range(servers):  # stays, is this one's, or moves down
            value = f"({tag} if {old[j]} >= {time} else {tags[j]})" if j + 1 < servers else tag
            value = f"({tags[j - 1]} if {old[j - 1]} >= {time} else {value})" if j else value
            lines.append(f"{tag}s[{j * LANES} + l] = {value}")
    return lines


def step(arguments: str, lines: list[str]) -> Callable:
    """The next job of every lane."""
    return compiled(f"def step({arguments}):\n for l in range({LANES}):\n  " + "\n  ".join(lines))


@inline
def rebase(times, now):
    for j in range(times.size // LANES):
        for lane in range(LANES):
            times[j * LANES + lane] -= now[lane]


@lru_cache
def pool_lanes(servers: int, draw: Callable) -> Callable:
    """As ``pool``, in lanes."""
    next_jobs = step(
        "now, free, gap_s, gaps, mean_s, work, i",
        [
            "came = now[l] + gap_s * gaps[i + l]",
            "now[l] = came",
            "end = max(came, free[l]) + mean_s * work[i + l]",
            "work[i + l] = end - came",
            *lanes_put("free", servers, "end"),
        ],
    )

    @fast
    def advance(now, free, gap_s, gaps, mean_s, work):
        for i in range(0, BLOCK, LANES):
            next_jobs(now, free, gap_s, gaps, mean_s, work, i)
        rebase(free, now)
        now[:] = 0.0

    @fast
    def run(blocks, gap_s, mean_s, sigma, seed, histogram):
        gaps, work, free, now = zeros(BLOCK), zeros(BLOCK), zeros(servers * LANES), zeros(LANES)
        counter = np.uint64(seed)
        for block in range(blocks):
            counter = draw(exponentials(counter, gaps, 0.0), work, sigma)
            advance(now, free, gap_s, gaps, mean_s, work)
            if block >= WARM_UP_BLOCKS:
                for i in range(BLOCK):
                    count(histogram, work[i])

    return run


@lru_cache
def tandem_lanes(servers: int, then: int) -> Callable:
    """As ``tandem``, in lanes."""
    next_jobs = step(
        "now, free, cames, second, gap_s, gaps, mean_s, work, then_mean_s, more, i",
        [
            "came = now[l] + gap_s * gaps[i + l]",
            "now[l] = came",
            "first_end = free[l]",
            "arrival = cames[l]",
            "end = max(came, first_end) + mean_s * work[i + l]",
            *lanes_put("free", servers, "end", "came"),
            "last = max(first_end, second[l]) + then_mean_s * more[i + l]",
            *lanes_put("second", then, "last"),
            "work[i + l] = last - arrival",
        ],
    )

    @fast
    def advance(now, free, cames, second, gap_s, gaps, mean_s, work, then_mean_s, more):
        for i in range(0, BLOCK, LANES):
            next_jobs(now, free, cames, second, gap_s, gaps, mean_s, work, then_mean_s, more, i)
        rebase(free, now)
        rebase(cames, now)
        rebase(second, now)
        now[:] = 0.0

    @fast
    def run(blocks, gap_s, mean_s, then_mean_s, seed, histogram):
        gaps, work, more = zeros(BLOCK), zeros(BLOCK), zeros(BLOCK)
        free, cames, second = zeros(servers * LANES), zeros(servers * LANES), zeros(then * LANES)
        now, counter = zeros(LANES), np.uint64(seed)
        for block in range(blocks):
            counter = exponentials(exponentials(exponentials(counter, gaps, 0.0), work, 0.0), more, 0.0)
            advance(now, free, cames, second, gap_s, gaps, mean_s, work, then_mean_s, more)
            if block >= WARM_UP_BLOCKS:
                for i in range(BLOCK):
                    count(histogram, work[i])

    return run


@inline
def drawn_size(counter, odds, other):
    """1-based size by Walker's alias method."""
    x = np.float64(word(counter) >> np.uint64(12)) * 2.0**-52 * odds.size
    i = np.int64(x)
    return (i if x - i < odds[i] else other[i]) + 1


def alias_table(pmf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's tables of a distribution: the share that stays, and who gets the rest."""
    odds, other = pmf * len(pmf) / pmf.sum(), np.arange(len(pmf))
    small, large = [list(np.flatnonzero(which)) for which in (odds < 1, odds >= 1)]
    while small and large:
        i, j = small.pop(), large[-1]
        other[i] = j
        odds[j] -= 1 - odds[i]
        if odds[j] < 1:
            small.append(large.pop())
    return odds, other


@lru_cache
def split(servers: int, how: str) -> Callable:
    """Queries cut into sub-batches; service linear in the items of one. ``run`` takes the alias table of the sizes."""
    put = PUTS[how][1]

    @fast
    def run(blocks, gap_s, base_s, per_item_s, batch, odds, other, seed, histogram):
        gaps, latency, free = zeros(BLOCK), zeros(BLOCK), zeros(servers)
        counter, full_s = np.uint64(seed), base_s + per_item_s * batch
        for block in range(blocks):
            counter = exponentials(counter, gaps, 0.0)
            now = 0.0
            for i in range(BLOCK):
                now += gap_s * gaps[i]
                full, rest = divmod(drawn_size(counter + np.uint64(i), odds, other), batch)
                end = 0.0
                for _ in range(full):
                    end = max(now, free[0]) + full_s  # starts never decrease, so the last full one ends last
                    put(free, servers, end)
                if rest:
                    rest_end = max(now, free[0]) + base_s + per_item_s * rest
                    put(free, servers, rest_end)
                    end = max(end, rest_end)
                latency[i] = end - now
            counter += np.uint64(BLOCK)
            for j in range(servers):
                free[j] -= now
            if block >= WARM_UP_BLOCKS:
                for i in range(BLOCK):
                    count(histogram, latency[i])

    return run


@lru_cache
def split_lanes(servers: int) -> Callable:
    """As ``split``, in lanes: each takes its own queries from a store of drawn ones, a sub-batch a step.

    Blocks are of sub-batches; the histogram says how many queries that was.
    """
    next_parts = step(
        "now, free, left, taken, worst, gap_s, gap, size, base_s, per_item_s, batch, latency, i",
        [
            "begins, so_far = left[l] == 0.0, worst[l]",
            "came = now[l] + gap_s * (gap[l] if begins else 0.0)",
            "items = size[l] if begins else left[l]",
            "taken[l] += begins",
            "part = min(items, batch)",
            "left[l] = items - part",
            "end = max(came, free[l]) + base_s + per_item_s * part",
            "longest = max(end - came, 0.0 if begins else so_far)",
            "now[l] = came",
            "worst[l] = longest",
            "latency[i + l] = longest if items <= batch else 0.0",
            *lanes_put("free", servers, "end"),
        ],
    )

    @fast
    def advance(now, free, left, taken, worst, gap_s, gaps, sizes, base_s, per_item_s, batch, latency):
        gap, size = zeros(LANES), zeros(LANES)
        for i in range(0, BLOCK, LANES):
            for lane in range(LANES):  # apart, since LLVM makes no vectors of loops that read anywhere and write
                at = taken[lane] * LANES + lane
                gap[lane], size[lane] = gaps[at], sizes[at]
            next_parts(now, free, left, taken, worst, gap_s, gap, size, base_s, per_item_s, batch, latency, i)
        rebase(free, now)
        now[:] = 0.0

    @fast
    def run(blocks, gap_s, base_s, per_item_s, batch, odds, other, seed, histogram):
        gaps, sizes, latency = zeros(4 * BLOCK), zeros(4 * BLOCK), zeros(BLOCK)
        now, free, worst, left = zeros(LANES), zeros(servers * LANES), zeros(LANES), zeros(LANES)
        taken = np.full(LANES, 4 * STEPS)
        counter = np.uint64(seed)
        for block in range(blocks):
            if taken.max() > 3 * STEPS:  # a block takes STEPS at most
                counter = exponentials(counter, gaps, 0.0)
                for i in range(sizes.size):
                    sizes[i] = drawn_size(counter + np.uint64(i), odds, other)
                counter += np.uint64(sizes.size)
                taken[:] = 0
            advance(now, free, left, taken, worst, gap_s, gaps, sizes, base_s, per_item_s, float(batch), latency)
            if block >= WARM_UP_BLOCKS:
                ended = 0
                for i in range(BLOCK):
                    latency[ended] = latency[i]
                    ended += latency[i] > 0.0
                for i in range(ended):
                    count(histogram, latency[i])

    return run
