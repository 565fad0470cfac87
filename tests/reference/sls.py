"""The slow twin of the embedding bag: the definition, one lookup and one rounding at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def bags_of_offsets(offsets, n_indices: int, include_last_offset: bool = False) -> list[range]:
    """Positions in the indices of each bag."""
    borders = [int(offset) for offset in offsets]
    if not include_last_offset and borders:
        borders.append(n_indices)
    return [range(start, end) for start, end in pairwise(borders)]


def bags_of_lengths(lengths) -> list[range]:
    ends = np.cumsum([int(n) for n in lengths], dtype=np.int64)
    return [range(int(end) - int(n), int(end)) for n, end in zip(lengths, ends, strict=True)]


def embedding_bag(weight, indices, bags, mode="mean", lookup_weights=None, padding_idx=None) -> np.ndarray:
    """``out[b] = reduce(w[j] * weight[indices[j]] for j in bags[b])`` in float32, in the order of the lookups."""
    rows, dim = weight.shape
    padding = None if padding_idx is None else padding_idx % rows
    out = np.zeros((len(bags), dim), np.float32)
    for b, bag in enumerate(bags):
        kept = [j for j in bag if indices[j] != padding]
        if not kept:
            continue
        values = [
            weight[indices[j]] if lookup_weights is None else lookup_weights[j] * weight[indices[j]] for j in kept
        ]
        if mode == "max":
            out[b] = np.maximum.reduce(values)
            continue
        total = np.zeros(dim, np.float32)
        for value in values:
            total = total + value
        out[b] = total if mode == "sum" else total / np.float32(len(kept))
    return out
