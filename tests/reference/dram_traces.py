"""Traces of the DRAM oracle (tests/oracle/dram/README.md), which name every bit of their generation."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]


def splitmix64(seed: int, n: int) -> Words:
    """Return the first ``n`` outputs of SplitMix64 started at ``seed``."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def vector_rows(trace: dict[str, Any]) -> tuple[Words, Words]:
    """Return (table, row) of every lookup."""
    rows = 1 << trace["log2_rows"]
    per_table = trace["bags_per_table"] * trace["pooling"]
    n = trace["tables"] * per_table
    table = np.arange(n, dtype=np.uint64) // np.uint64(per_table)
    if trace["dist"] == "sequential":
        return table, np.arange(n, dtype=np.uint64) % np.uint64(rows)
    z = splitmix64(trace["seed"], n)
    if trace["dist"] == "uniform":
        return table, z >> np.uint64(64 - trace["log2_rows"])
    sums, total = [], 0
    for r in range(1, rows + 1):
        total += int((1 << 40) * r ** -trace["zipf_s"])
        sums.append(total)
    # floor(z * total / 2**64), by halves of 32 bits
    low, high = z & np.uint64(0xFFFFFFFF), z >> np.uint64(32)
    total_low, total_high = total & 0xFFFFFFFF, total >> 32
    middle = (low * np.uint64(total_low) >> np.uint64(32)) + low * np.uint64(total_high) % np.uint64(2**32)
    middle += high * np.uint64(total_low) % np.uint64(2**32)
    x = high * np.uint64(total_high) + (low * np.uint64(total_high) >> np.uint64(32))
    x += (high * np.uint64(total_low) >> np.uint64(32)) + (middle >> np.uint64(32))
    rank = np.searchsorted(np.array(sums, np.uint64), x, side="right").astype(np.uint64)
    row = (rank * np.uint64(0x9E3779B1) + np.uint64(0x7F4A7C15)) % np.uint64(rows)
    return table, row ^ (table * np.uint64(0x85EBCA6B) % np.uint64(rows))


def addresses(trace: dict[str, Any]) -> Words:
    """Return the byte address of every 64-byte read, in order."""
    table, row = vector_rows(trace)
    vec = trace["vec_bytes"]
    start = (table * np.uint64(1 << trace["log2_rows"]) + row) * np.uint64(vec)
    return (start[:, None] + np.arange(0, vec, 64, dtype=np.uint64)).ravel()


def sha256(reads: Words) -> str:
    """Return the fingerprint that the oracle gives for ``addresses``."""
    return hashlib.sha256(reads.astype("<u8").tobytes()).hexdigest()
