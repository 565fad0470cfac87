"""Load traces, slowly: every interval asks every step whether it touches it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low


def largest_per_interval(
    starts_s: Sequence[float], rates: Sequence[Sequence[float]], interval_s: int
) -> dict[int, list[float]]:
    """Start of interval (seconds) -> largest rate of each workload among the steps that touch it."""
    lengths = [b - a for a, b in pairwise(starts_s)]
    usual = median_low(lengths) if lengths else interval_s
    ends = [*starts_s[1:], starts_s[-1] + usual]
    result = {}
    first = int(starts_s[0] // interval_s) * interval_s
    for begin in range(first, int(ends[-1]) + 1, interval_s):
        touching = [
            row
            for start, end, row in zip(starts_s, ends, rates, strict=True)
            if start < begin + interval_s and end > begin
        ]
        if touching:
            result[begin] = [max(column) for column in zip(*touching, strict=True)]
    return result
