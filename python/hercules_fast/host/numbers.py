"""Numbers in and out: arguments checked by name, sizes as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from operator import index
from typing import SupportsIndex

from hercules_fast.errors import InputError

__all__ = ["byte_size", "number", "whole_number", "whole_numbers"]


def number(name: str, given: object, least: float, most: float) -> float:
    """``given`` as a float; else ``InputError``."""
    if isinstance(given, bool) or not isinstance(given, int | float) or math.isnan(given) or not least <= given <= most:
        raise InputError(f"{name}: is {given!r}; allowed is a number from {least:g} to {most:g}")
    return float(given)


def whole_numbers(name: str, given: int | Sequence[int], least: int, most: int) -> tuple[int, ...]:
    """``given``, one number or several different ones (NumPy's too), each within the limits."""
    entries = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    numbers = tuple(whole_number(name, entry, least, most) for entry in entries)
    if not numbers:
        raise InputError(f"{name}: is empty; allowed are whole numbers from {least} to {most}")
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{name}: is {given!r}; each number is allowed once")
    return numbers


def whole_number(name: str, given: object, least: int, most: int) -> int:
    """``given`` as an int; else ``InputError``."""
    if not isinstance(given, bool) and isinstance(given, SupportsIndex):
        with suppress(TypeError):  # an array has the method, and needs to be of one number to use it
            if least <= (value := index(given)) <= most:
                return value
    raise InputError(f"{name}: is {given!r}; allowed is a whole number from {least} to {most}")


def byte_size(size: int) -> str:
    """``size`` bytes as text, such as ``"32 MiB"``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"
