"""Descriptors of machines of which only some figures are known: the others are those of a known one, and say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

from hercules_fast.errors import InputError
from hercules_fast.hardware import Cpu, Gpu, Memory

__all__ = ["FMA_LANES", "Known", "alike", "check_name", "flop_per_cycle"]

Part = TypeVar("Part", Cpu, Gpu, Memory)

FMA_LANES = {"avx512": 16, "avx2": 8, "neon": 4, "portable": 4}
"""fp32 lanes of the widest vectors of an instruction set; the portable one of x86-64 is SSE2."""


class Known(NamedTuple):
    """A figure and where it comes from, in the words of a descriptor's sources."""

    value: Any
    source: str


def alike(like: Part, name: str, known: Mapping[str, Known], *, size: str | None = None) -> Part:
    """A part called ``name`` with the ``known`` figures; the others are those of ``like``, marked as assumed.

    Args:
        like: The part that stands in where nothing is known.
        name: Of the new part.
        known: By field.
        size: A field that ``tdp_w`` is taken in proportion to: cores of a CPU, capacity of a memory.
    """
    values: dict[str, object] = {"name": name}
    sources = {}
    for field in (spec.name for spec in fields(like) if spec.name not in {"name", "sources"}):
        if field in known:
            values[field], sources[field] = known[field]
        elif field == "tdp_w" and size is not None and size in known:
            share = float(known[size].value) / getattr(like, size)
            values[field] = float(f"{like.tdp_w * share:.4g}")
            sources[field] = f"assumed: the {like.tdp_w:g} W of {like.name}, in proportion to {size}"
        else:
            values[field] = getattr(like, field)
            if field in like.sources:
                sources[field] = f"assumed: as {like.name} has it, for want of a figure"
    return type(like)(**values, sources=sources)  # type: ignore[arg-type]


def flop_per_cycle(isa: str) -> Known:
    """Peak fp32 operations of a core per cycle: lanes, times two for a fused multiply-add, times two units."""
    lanes = FMA_LANES[isa]
    if isa == "portable":
        return Known(2.0 * lanes, f"derived: {lanes} lanes of SSE2, one addition and one multiplication a cycle")
    return Known(4.0 * lanes, f"derived: {lanes} lanes of {isa}, fused multiply-add; two units a core are assumed")


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a server in a file.

    Raises:
        InputError: It is blank, has a comma, or cannot be printed.
    """
    if not (isinstance(name, str) and name.strip() and name.isprintable() and "," not in name):
        raise InputError(f"name: is {name!r}; allowed is text that can be printed, without comma")
