"""The noise probe, slowly: read the clock, keep every reading, then look at the gaps."""

from __future__ import annotations

import os
import time
from itertools import pairwise


def gaps(readings_s: list[float], least_s: float) -> tuple[float, float]:
    """(share of the time in gaps above ``least_s``, longest gap) of clock readings in order, in seconds."""
    between = [later - earlier for earlier, later in pairwise(readings_s)]
    return sum(gap for gap in between if gap > least_s) / sum(between), max(between)


def spin(cpu: int, seconds: float, least_s: float) -> tuple[float, float]:
    """Spin on ``cpu`` and say what :func:`gaps` says."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        readings = [time.perf_counter()]
        while readings[-1] - readings[0] < seconds:
            readings.append(time.perf_counter())
    finally:
        os.sched_setaffinity(0, allowed)
    return gaps(readings, least_s)
