"""Rows that embedding lookups ask for: uniform, Zipf, or with a given distribution of reuse distances.

Draws come from SplitMix64, of which lookup ``i`` takes the ``i``-th output of ``seed`` (two each with reuse): the same
seed gives the same rows on every machine, and a longer trace begins like a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hercules_fast.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["reuse_rows", "uniform_rows", "vector_addresses", "zipf_rows"]

_MAX_LOOKUPS = 1 << 30
_MAX_ROWS = 1 << 31


def _splitmix64(seed: int, lookups: int) -> npt.NDArray[np.uint64]:
    """Outputs 0 to ``lookups - 1`` (Steele, Lea & Flood 2014)."""
    if not 0 <= seed < 2**64:
        raise InputError(f"seed: is {seed}; allowed is from 0 to 2**64 - 1")
    if not 1 <= lookups <= _MAX_LOOKUPS:
        raise InputError(f"lookups: is {lookups}; allowed is from 1 to {_MAX_LOOKUPS}")
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, lookups + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _uniform(seed: int, lookups: int) -> npt.NDArray[np.float64]:
    """Uniform in [0, 1), 53 bits."""
    return np.asarray((_splitmix64(seed, lookups) >> np.uint64(11)) * 2.0**-53, np.float64)


def _check_rows(rows: int) -> None:
    if not 1 <= rows <= _MAX_ROWS:
        raise InputError(f"rows: is {rows}; allowed is from 1 to {_MAX_ROWS}")


def uniform_rows(lookups: int, rows: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return int64 ``[lookups]``, every row of ``rows`` equally likely. Raises ``InputError`` for sizes below 1."""
    _check_rows(rows)
    return (_uniform(seed, lookups) * rows).astype(np.int64)


def zipf_rows(lookups: int, rows: int, *, exponent: float = 1.0, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return int64 ``[lookups]``: the r-th most popular row comes with a chance proportional to ``r ** -exponent``.

    Popular rows are scattered over the table (a multiplicative permutation), as hashing of features does.
    Raises ``InputError`` for sizes below 1 or an exponent outside 0 to 10.
    """
    _check_rows(rows)
    if not 0 <= exponent <= 10:
        raise InputError(f"exponent: is {exponent!r}; allowed is from 0 to 10")
    sums = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -exponent)
    rank = np.searchsorted(sums, _uniform(seed, lookups) * sums[-1], side="right")
    return _scattered(np.minimum(rank, rows - 1), rows)


def _scattered(rank: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    step = 0x9E3779B1
    while np.gcd(step, rows) != 1:
        step += 2 if rows % 2 == 0 else 1
    return np.asarray(rank * (step % rows) % rows, np.int64)


def reuse_rows(
    lookups: int, rows: int, *, distances: Sequence[int], shares: Sequence[float], seed: int = 0
) -> npt.NDArray[np.int64]:
    """Return int64 ``[lookups]`` with a given histogram of reuse distances.

    A lookup repeats, with chance ``shares[i]``, the lookup ``distances[i]`` places before it (a row anew where the
    trace is shorter), and takes a row at random with the chance that is left. A distance counts lookups, repeats too.

    Raises:
        InputError: Sizes below 1, distances below 1, negative shares, or shares that add up to more than 1.
    """
    _check_rows(rows)
    if len(distances) != len(shares):
        raise InputError(f"shares: has {len(shares)} entries for {len(distances)} distances")
    for i, (distance, share) in enumerate(zip(distances, shares, strict=True)):
        if not 1 <= distance <= _MAX_LOOKUPS:
            raise InputError(f"distances[{i}]: is {distance}; allowed is from 1 to {_MAX_LOOKUPS}")
        if not 0 <= share <= 1:
            raise InputError(f"shares[{i}]: is {share}; allowed is from 0 to 1")
    if sum(shares) > 1 + 1e-9:
        raise InputError(f"shares: add up to {sum(shares)}; allowed is at most 1")
    draws = _uniform(seed, 2 * lookups)
    which = np.searchsorted(np.cumsum(np.asarray(shares, np.float64)), draws[::2], side="right")
    back = np.array([*distances, 0], np.int64)[which]
    place = np.arange(lookups)
    source = np.where((back > 0) & (back <= place), place - back, place)
    while True:  # follow repeats of repeats to the row they began with; each round halves the way
        further = source[source]
        if np.array_equal(further, source):
            break
        source = further
    fresh = (draws[1::2] * rows).astype(np.int64)
    return np.asarray(fresh[source])


def vector_addresses(
    rows: npt.NDArray[np.int64], *, row_bytes: int, base: int = 0, access_bytes: int = 64
) -> npt.NDArray[np.uint64]:
    """Return the byte address of every access that reads the vectors of ``rows``, one after another.

    Args:
        rows: Integers ``[n]`` from 0.
        row_bytes: Bytes of one row; rows lie ``row_bytes`` rounded up to ``access_bytes`` apart.
        base: Address of row 0, a multiple of ``access_bytes``.
        access_bytes: Bytes of one access.

    Raises:
        InputError: A size below 1, a negative row, or a base that is no multiple.
    """
    for name, value in (("row_bytes", row_bytes), ("access_bytes", access_bytes)):
        if value < 1:
            raise InputError(f"{name}: is {value}; allowed is from 1")
    if base < 0 or base % access_bytes:
        raise InputError(f"base: is {base}; allowed is a multiple of {access_bytes} from 0")
    array = np.asarray(rows, np.int64)
    if array.size and array.min() < 0:
        raise InputError(f"rows[{int(array.argmin())}]: is {array.min()}; allowed is from 0")
    stride = -(-row_bytes // access_bytes) * access_bytes
    return (array[:, None] * stride + np.arange(base, base + stride, access_bytes)).ravel().astype(np.uint64)
