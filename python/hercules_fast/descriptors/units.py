"""Quantities written with their unit (``"25ms"``, ``"1.5GB/s"``), brought to the unit that stands in the key."""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["parse_quantity", "unit_of_key", "units_like"]

_Scales = dict[str, int | Fraction]

_TIME: _Scales = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": 1,
    "min": 60,
    "h": 3600,
}
_BYTES: _Scales = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_BYTE_RATE: _Scales = {f"{unit}/s": size for unit, size in _BYTES.items()}
_POWER: _Scales = {"mW": Fraction(1, 1000), "W": 1, "kW": 1000}
_FREQUENCY: _Scales = {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9}
_FLOP_RATE: _Scales = {"GFLOP/s": 10**9, "TFLOP/s": 10**12}

# Longest first: "_gb_s" is a rate, not a time.
_SUFFIXES: tuple[tuple[str, str, _Scales], ...] = (
    ("_tflop_s", "TFLOP/s", _FLOP_RATE),
    ("_gb_s", "GB/s", _BYTE_RATE),
    ("_ghz", "GHz", _FREQUENCY),
    ("_kb", "kB", _BYTES),
    ("_mb", "MB", _BYTES),
    ("_gb", "GB", _BYTES),
    ("_ns", "ns", _TIME),
    ("_us", "us", _TIME),
    ("_ms", "ms", _TIME),
    ("_s", "s", _TIME),
    ("_w", "W", _POWER),
)
# Bounded lengths: an exact fraction of 1e999999999 would take all memory.
_QUANTITY = re.compile(r"\s*([+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?)\s*([A-Za-z/]{1,8})\s*")


def unit_of_key(key: str) -> str | None:
    """Return the unit that a key's name ends in (``"latency_ms"`` -> ``"ms"``), or None."""
    return next((unit for suffix, unit, _ in _SUFFIXES if key.endswith(suffix)), None)


def units_like(unit: str) -> tuple[str, ...]:
    """Return the units that can be converted to ``unit``."""
    return next(tuple(scales) for _, own, scales in _SUFFIXES if own == unit)


def parse_quantity(text: str, unit: str) -> float | None:
    """Return ``text`` in ``unit``, correctly rounded, or None where it is no quantity of that dimension."""
    scales = next(scales for _, own, scales in _SUFFIXES if own == unit)
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in scales:
        return None
    return float(Fraction(match[1]) * scales[match[2]] / scales[unit])
