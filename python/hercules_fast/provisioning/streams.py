"""Counter-based random numbers: SplitMix64 of (seed, purpose, counter). Same bytes with any NumPy and any platform."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["below", "order", "random_bits"]

UIntArray = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def random_bits(seed: int, purpose: int, *counters: npt.ArrayLike) -> UIntArray:
    """64 random bits for each (broadcast) tuple of counters; ``seed`` and ``purpose`` name the stream."""
    state = _mix(np.array([seed & _MASK], dtype=np.uint64))
    for counter in (purpose, *counters):
        state = _mix(state + (np.atleast_1d(counter).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return state


def below(bits: UIntArray, limit: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """A whole number in 0..limit-1 from each 64 bits, for limits below 2**32; 0 where the limit is 0."""
    high = bits >> np.uint64(32)
    return ((high * np.asarray(limit).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def order(seed: int, purpose: int, n_lanes: int, n: int) -> npt.NDArray[np.int64]:
    """[n_lanes, n] one random permutation of 0..n-1 per lane."""
    return np.argsort(random_bits(seed, purpose, np.arange(n_lanes)[:, None], np.arange(n)), axis=1, kind="stable")


def _mix(z: UIntArray) -> UIntArray:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
