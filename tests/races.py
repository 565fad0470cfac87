"""A call whose integers another thread writes meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from hercules_fast.errors import HerculesError

SECONDS = 0.7


def check_race(
    indices: np.ndarray, offsets: np.ndarray, spoil: Callable[[], None], call: Callable[[int], np.ndarray], most: float
) -> None:
    """Repeat ``call(threads)``, maxima from 0 to ``most``, while garbage and right values alternate with ``spoil()``.

    The worst that may come of a race is an error of ours or a mixture of rows; never a crash or a wild value.
    """
    good, bounds = indices.copy(), offsets.copy()
    limits = np.iinfo(indices.dtype)
    garbage = np.random.default_rng(2).integers(limits.min, limits.max, len(indices), dtype=indices.dtype)
    stop = threading.Event()

    def vandal() -> None:
        while not stop.is_set():
            np.copyto(indices, garbage)
            np.copyto(offsets, garbage[: len(offsets)])
            np.copyto(indices, good)
            np.copyto(offsets, bounds)
            spoil()
            np.copyto(indices, good)

    writer = threading.Thread(target=vandal)
    writer.start()
    outcomes = {"result": 0, "error": 0}
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for threads in (1, 2):
                try:
                    out = call(threads)
                except HerculesError:
                    outcomes["error"] += 1
                else:
                    outcomes["result"] += 1
                    assert out.min() >= 0.0
                    assert out.max() <= most
    finally:
        stop.set()
        writer.join()
    assert outcomes["error"] > 0, "the race never happened: the test shows nothing"
