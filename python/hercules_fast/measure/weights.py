"""Random weights and tables of a model: a pure function of the seed, the same bytes on every machine.

Values are uniform around 0 and scaled so that activations stay about 1: no denormals, no overflow, nothing that a
CPU treats specially. What they are does not matter for time; that they are not zeros does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.measure.network import Network
from hercules_fast.models import Model, TableGroup
from hercules_fast.sls import EmbeddingBagCollection, EmbeddingTable, TableDType

__all__ = ["dense_weights", "embedding_bytes", "row_formats", "table_values", "tables", "uniform"]

Floats = npt.NDArray[np.float32]

BLOCK = 1_048_573
"""Values that the rows of a table repeat: a prime, so that no two of so many rows are the same."""

_PIECE = 1 << 18
"""Random numbers that are made at a time."""

# Purposes of random numbers: a stream each.
TABLES, WEIGHTS, FEATURES, ROWS = range(4)

_ROW_BITS = {
    "float32": (32, 0),
    "float16": (16, 0),
    "bfloat16": (16, 0),
    "int8": (8, 8),
    "int4": (4, 4),
    "int2": (2, 4),
}
"""Bits of a value, and bytes beside the values of a row."""
_BY_BYTES: Mapping[int, TableDType] = {4: "float32", 2: "float16", 1: "int8"}


def random_bits(seed: int, purpose: int, index: int, size: int) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """The stream (seed, purpose, index) in pieces, uint64, each with its start, ``size`` numbers in all.

    NumPy's Philox generator, whose raw numbers are the same in every version.
    """
    stream = np.random.Philox(key=seed, counter=[0, 0, index, purpose])
    for start in range(0, size, _PIECE):
        yield start, stream.random_raw(min(_PIECE, size - start))


def uniform(seed: int, purpose: int, index: int, size: int, std: float) -> Floats:
    """float32 ``[size]``, uniform around 0 with standard deviation ``std``."""
    values = np.empty(size, np.float32)
    for start, bits in random_bits(seed, purpose, index, size):
        piece = values[start : start + len(bits)]
        piece[:] = bits >> np.uint64(40)
        piece -= np.float32((1 << 23) - 0.5)
        piece *= np.float32(std * sqrt(12.0) / (1 << 24))
    return values


def dense_weights(network: Network, seed: int) -> Mapping[str, Floats]:
    """All weights of the dense network, float32, C-contiguous, in the shapes of ``network.weights``."""
    return {
        name: uniform(seed, WEIGHTS, index, spec.size, spec.std).reshape(spec.shape)
        for index, (name, spec) in enumerate(network.weights.items())
    }


def row_formats(model: Model, dtype: TableDType | None) -> tuple[TableDType, ...]:
    """Format of the rows of each table group: ``dtype``, or by its ``dtype_bytes``.

    Raises:
        InputError: There is no such format, or none of a group's ``dtype_bytes``.
    """
    if dtype is not None:
        if dtype not in _ROW_BITS:
            raise InputError(f"dtype: is {dtype!r}; allowed are {', '.join(_ROW_BITS)}")
        return (dtype,) * len(model.tables)
    for g, group in enumerate(model.tables):
        if group.dtype_bytes not in _BY_BYTES:
            raise InputError(
                f"tables[{g}].dtype_bytes: is {group.dtype_bytes}; allowed are 4 (float32), 2 (float16) and 1 (int8),"
                " or give dtype"
            )
    return tuple(_BY_BYTES[group.dtype_bytes] for group in model.tables)


def embedding_bytes(model: Model, dtype: TableDType | None) -> int:
    """Bytes of all tables of ``model`` with rows of ``dtype``, see :func:`row_formats`."""
    total = 0
    for group, name in zip(model.tables, row_formats(model, dtype), strict=True):
        bits, extra = _ROW_BITS[name]
        total += group.count * group.rows * ((group.dim * bits + 7) // 8 + extra)
    return total


def table_values(group: TableGroup, number: int, block: Floats) -> Floats:
    """Rows of table ``number`` of the model, float32 ``[rows, dim]``: ``block`` over and over, from a place of its own.

    Scaled so that a sum of ``pooling`` rows is about 1.
    """
    flat = np.empty(group.rows * group.dim, np.float32)
    scaled = np.roll(block, -(number * 7919) % len(block)) * np.float32(1.0 / sqrt(group.pooling))
    for start in range(0, len(flat), len(scaled)):
        part = flat[start : start + len(scaled)]
        part[:] = scaled[: len(part)]
    return flat.reshape(group.rows, group.dim)


def tables(
    model: Model, dtype: TableDType | None, seed: int, threads: int | None
) -> tuple[EmbeddingBagCollection, ...]:
    """One collection per table group, on 2 MiB pages where the system grants them."""
    block = uniform(seed, TABLES, 0, BLOCK, 1.0)
    collections = []
    number = 0
    for group, name in zip(model.tables, row_formats(model, dtype), strict=True):
        rows = []
        for _ in range(group.count):
            rows.append(EmbeddingTable.from_array(table_values(group, number, block), name, threads=threads))
            number += 1
        collections.append(EmbeddingBagCollection(rows))
    return tuple(collections)
