"""What queries bring along, drawn ahead: slices of long pools of random rows and features, so that nothing is drawn
or copied while a clock runs.

The inputs of a query are a pure function of (seed, query, items) and the length of the pools: query ``q`` starts at a
place of each pool that is a hash of (seed, q). Pools are larger than the last-level cache where memory allows, so
indices come from memory as those of a server do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.measure.weights import FEATURES, ROWS, random_bits, uniform
from hercules_fast.models import Model
from hercules_fast.traffic import Popularity
from hercules_fast.traffic.popularity_law import popular_rows

__all__ = ["InputPool", "QueryInputs", "item_bytes"]

Ints = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, eq=False)
class QueryInputs:
    """Inputs of one query of ``items`` items: views of the pools, read-only."""

    items: int
    dense: npt.NDArray[np.float32] | None
    """float32 ``[items, dense_input_dim]``; None for a model without dense features."""
    indices: tuple[Ints, ...]
    """Per table group, ``[count * items * pooling]``: rows of its first table, item by item, then of the next."""
    offsets: tuple[Ints, ...]
    """Per table group, ``[count * items + 1]``: where each bag starts, and the end."""


def item_bytes(model: Model) -> int:
    """Bytes of indices and dense features that one item brings along."""
    indices = sum(group.count * group.pooling * _whole_numbers(group.rows).itemsize for group in model.tables)
    return indices + 4 * model.dense_input_dim


def _whole_numbers(limit: int) -> np.dtype[Any]:
    """The narrower type that holds 0 to ``limit - 1``."""
    return np.dtype(np.int32 if limit <= 1 << 31 else np.int64)


def start_hash(seed: int, query: int) -> int:
    """64 bits of (seed, query): SplitMix64 (Steele, Lea & Flood 2014)."""
    z = (seed * 0xD1342543DE82EF95 + query * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class InputPool:
    """Pools of rows per table group and of dense features, for queries of up to ``max_items`` items.

    Args:
        model: Whose tables and features.
        max_items: Largest query.
        seed: Of all draws.
        popularity: How often each row is looked up; None: every row alike.
        pool_bytes: Bytes to aim at for all pools together; a query of ``max_items`` fits twice in any case.
    """

    def __init__(
        self, model: Model, *, max_items: int, seed: int, popularity: Popularity | None, pool_bytes: int
    ) -> None:
        self.seed = seed
        self.popularity = "uniform" if popularity is None else popularity.name
        items = max(2 * max_items, pool_bytes // max(1, item_bytes(model)))
        self._rows = []
        for g, group in enumerate(model.tables):
            lookups = group.count * group.pooling
            rows: Ints = np.empty(items * lookups, _whole_numbers(group.rows))
            for start, bits in random_bits(seed, ROWS, g, len(rows)):
                shares = (bits >> np.uint64(11)) * np.float64(2.0**-53)
                drawn = shares * group.rows if popularity is None else popular_rows(popularity, group.rows, shares)
                rows[start : start + len(bits)] = drawn
            rows.flags.writeable = False
            span = len(rows) - max_items * lookups + 1
            bags = group.count * max_items
            ends: Ints = np.arange(bags + 1, dtype=_whole_numbers(bags * group.pooling + 1)) * group.pooling
            ends.flags.writeable = False
            self._rows.append((rows, span, lookups, ends, group.count))
        self._dense: tuple[npt.NDArray[np.float32], int] | None = None
        if model.dense_input_dim:
            values = uniform(seed, FEATURES, 0, items * model.dense_input_dim, 1.0)
            features = values.reshape(items, model.dense_input_dim)
            features.flags.writeable = False
            self._dense = features, items - max_items + 1

    @property
    def nbytes(self) -> int:
        """Bytes of all pools."""
        return sum(entry[0].nbytes for entry in self._rows) + (self._dense[0].nbytes if self._dense else 0)

    def features(self, place: int, items: int) -> npt.NDArray[np.float32] | None:
        """Dense features, float32 ``[items, dense_input_dim]``, of the query whose :func:`start_hash` is ``place``."""
        if self._dense is None:
            return None
        pool, span = self._dense
        start = place * span >> 64
        return pool[start : start + items]

    def slices(self, items: int) -> list[tuple[Ints, int, int, Ints]]:
        """Per table group (pool, span, lookups, offsets): a query of ``items`` items takes ``lookups`` rows of the pool
        from ``place * span >> 64`` on, ``place`` being its :func:`start_hash`."""
        return [
            (rows, span, items * lookups, ends[: count * items + 1]) for rows, span, lookups, ends, count in self._rows
        ]

    def of(self, query: int, items: int) -> QueryInputs:
        """All inputs of a query."""
        place = start_hash(self.seed, query)
        slices = self.slices(items)
        indices = tuple(rows[(start := place * span >> 64) : start + n] for rows, span, n, _ in slices)
        return QueryInputs(items, self.features(place, items), indices, tuple(ends for *_, ends in slices))
