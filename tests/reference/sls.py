"""The slow twin of the embedding bag: the definition, one lookup and one rounding at a time."""

from __future__ import annotations

from fractions import Fraction
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
    """``out[b] = reduce(w[j] * weight[indices[j]] for j in bags[b])`` in the order of the lookups.

    In float64 over float64 weights, else in float32.
    """
    rows, dim = weight.shape
    kind = np.float64 if weight.dtype == np.float64 else np.float32
    weight = weight.astype(kind)
    padding = None if padding_idx is None else padding_idx % rows
    out = np.zeros((len(bags), dim), kind)
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
        total = np.zeros(dim, kind)
        for value in values:
            total = total + value
        out[b] = total if mode == "sum" else total / kind(len(kept))
    return out


def pooled_side_by_side(pool, indices, offsets, n_tables: int, lookup_weights=None, skip_pruned=False) -> np.ndarray:
    """Many tables: bag ``b`` of table ``t`` holds lookups ``offsets[t * B + b] .. offsets[t * B + b + 1]``.

    ``pool(t, indices, bags, lookup_weights)`` is the pooling of one table, ``[B, dims[t]]``; the result has the tables'
    columns side by side. Lookups of -1 name no row: they are left out of their bags.
    """
    bags = bags_of_offsets(offsets, len(indices), include_last_offset=True)
    n_bags = len(bags) // n_tables
    blocks = []
    for t in range(n_tables):
        kept = [[j for j in bag if not (skip_pruned and indices[j] == -1)] for bag in bags[t * n_bags :][:n_bags]]
        blocks.append(pool(t, indices, kept, lookup_weights))
    return np.concatenate(blocks, axis=1)


PER_BYTE = {"int8": 1, "int4": 2, "int2": 4}


def brain(values) -> np.ndarray:
    """float32 values rounded to bfloat16, ties to even, as uint16 bits."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widen_brain(bits) -> np.ndarray:
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def quantise(array, dtype: str) -> np.ndarray:
    """Fused rows, scale and bias last, as PyTorch's prepack operators make them: uint8 ``[rows, row bytes]``."""
    return np.stack([_quantise_row(row.astype(np.float32), dtype) for row in array])


def _quantise_row(row, dtype: str) -> np.ndarray:
    least, largest = row[np.argmin(row)], row[np.argmax(row)]
    if dtype == "int8":
        scale, bias = (largest - least) / np.float32(255), least
        inverse = np.float32(255) / ((largest - least) + np.float32(1e-8))
        codes = np.rint((row - bias) * inverse)
        return np.concatenate([codes.astype(np.uint8), np.array([scale, bias], np.float32).view(np.uint8)])
    per_byte = PER_BYTE[dtype]
    top = np.float32(2 ** (8 // per_byte) - 1)
    bias = np.float32(np.float16(least))
    spread = largest - bias
    scale = np.float32(np.float16(np.float32(1) if spread == 0 else spread / top))
    scale = np.float32(1) if scale == 0 else scale
    codes = np.clip(np.rint((row - bias) * (np.float32(1) / scale)), 0, top).astype(np.uint8)
    codes = np.concatenate([codes, np.zeros(-len(codes) % per_byte, np.uint8)]).reshape(-1, per_byte)
    packed = np.bitwise_or.reduce(codes << (np.arange(per_byte) * (8 // per_byte)).astype(np.uint8), axis=1)
    return np.concatenate([packed.astype(np.uint8), np.array([scale, bias], np.float16).view(np.uint8)])


def unpack(fused, dtype: str, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes ``[rows, dim]``, scales and biases ``[rows]`` of fused rows, all as float32."""
    per_byte = PER_BYTE[dtype]
    n = -(-dim // per_byte)
    shifts = (np.arange(per_byte) * (8 // per_byte)).astype(np.uint8)
    codes = (fused[:, :n, None] >> shifts & (2 ** (8 // per_byte) - 1)).reshape(len(fused), -1)[:, :dim]
    kind = np.float32 if dtype == "int8" else np.float16
    params = np.ascontiguousarray(fused[:, n:]).view(kind).astype(np.float32)
    return codes.astype(np.float32), params[:, 0], params[:, 1]


def first_layout(fused, dtype: str) -> np.ndarray:
    """From scale and bias last to scale and bias first, as halves."""
    n = fused.shape[1] - (8 if dtype == "int8" else 4)
    params = np.ascontiguousarray(fused[:, n:]).view(np.float32 if dtype == "int8" else np.float16)
    return np.concatenate([params.astype(np.float16).view(np.uint8).reshape(len(fused), 4), fused[:, :n]], axis=1)


def fma(code, scale, addend) -> np.float32:
    """``code * scale + addend``, all float32, rounded once to float32, ties to even: from the exact fraction."""
    if not (np.isfinite(scale) and np.isfinite(addend)):
        return np.float32(float(code) * float(scale) + float(addend))
    exact = Fraction(float(code)) * Fraction(float(scale)) + Fraction(float(addend))
    near = np.float32(float(exact))
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    odd = [int(x.view(np.uint32) & 1) for x in around]
    best = min(range(3), key=lambda i: (abs(Fraction(float(around[i])) - exact), odd[i]))
    return around[best]


def quantised_bag(fused, dtype, dim, indices, bags, mode="mean", lookup_weights=None, padding_idx=None) -> np.ndarray:
    """PyTorch's order: ``acc = fma(code, w * scale, acc + w * bias)``; max: the largest ``fma(code, scale, bias)``."""
    codes, scales, biases = unpack(fused, dtype, dim)
    padding = None if padding_idx is None else padding_idx % len(fused)
    out = np.zeros((len(bags), dim), np.float32)
    for b, bag in enumerate(bags):
        kept = [j for j in bag if indices[j] != padding]
        for c in range(dim if kept else 0):
            acc = np.float32(-np.inf if mode == "max" else 0)
            for j in kept:
                code, scale, bias = codes[indices[j], c], scales[indices[j]], biases[indices[j]]
                if mode == "max":
                    acc = max(acc, fma(code, scale, bias))
                else:
                    w = np.float32(1) if lookup_weights is None else lookup_weights[j]
                    acc = fma(code, w * scale, acc + w * bias)
            out[b, c] = acc / np.float32(len(kept)) if mode == "mean" else acc
    return out


def quantised_magnitude(fused, dtype, dim, indices, bags, lookup_weights=None) -> np.ndarray:
    """``sum(|w * scale * code| + |w * bias|)`` per bag and column, float64: what rounding errors are relative to."""
    codes, scales, biases = (part.astype(np.float64) for part in unpack(fused, dtype, dim))
    out = np.zeros((len(bags), dim))
    for b, bag in enumerate(bags):
        for j in bag:
            w = 1.0 if lookup_weights is None else float(lookup_weights[j])
            out[b] += np.abs(w * scales[indices[j]] * codes[indices[j]]) + abs(w * biases[indices[j]])
    return out
