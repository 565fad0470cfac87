"""Laws of pooling that hold for any table, each with the bound that rounding leaves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import hercules_fast as hf

# Unit roundoff of float32. A sum of n products in order errs by at most gamma(n) * sum|w x| per column, gamma(n) =
# n u / (1 - n u): each product is rounded once and passes through at most n - 1 further roundings that count (the
# first addition, to zero, is exact). Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
U = 2.0**-24
# Products below the normal range lose up to this much absolutely instead; the values used here stay above it.


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


def bag(n: int, rows: int, dim: int, seed: int):
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((rows, dim)) * 10.0 ** rng.integers(-4, 5, (rows, dim))).astype(np.float32)
    factors = rng.standard_normal((2, n)).astype(np.float32)
    return weight, rng.integers(0, rows, n), factors


def pooled(weight, indices, factors=None):
    return hf.sparse_lengths_sum(weight, indices, np.array([len(indices)]), weights=factors)[0].astype(np.float64)


def magnitude(weight, indices, factors):
    """Sum of absolute values of the products, per column, in float64."""
    return (np.abs(factors).astype(np.float64)[:, None] * np.abs(weight[indices].astype(np.float64))).sum(0)


sizes = {"n": st.integers(1, 400), "rows": st.integers(1, 50), "dim": st.integers(1, 70), "seed": st.integers(0, 10**9)}


@given(**sizes)
def test_sum_is_within_highams_bound_of_the_exact_one(n, rows, dim, seed):
    weight, indices, (factors, _) = bag(n, rows, dim, seed)
    exact = (factors.astype(np.float64)[:, None] * weight[indices].astype(np.float64)).sum(0)
    # The float64 sum is not exact either; its own error is n * 2**-53 relative to the same magnitude.
    bound = (gamma(n) + n * 2.0**-53) * magnitude(weight, indices, factors)
    assert np.all(np.abs(pooled(weight, indices, factors) - exact) <= bound)


@given(a=st.floats(-8, 8, width=32), b=st.floats(-8, 8, width=32), **sizes)
def test_pooling_is_linear_in_the_weights(a, b, n, rows, dim, seed):
    weight, indices, (p, q) = bag(n, rows, dim, seed)
    mixed = np.float32(a) * p + np.float32(b) * q
    joint = pooled(weight, indices, mixed)
    apart = a * pooled(weight, indices, p) + b * pooled(weight, indices, q)
    # Forming `mixed` rounds each product and their sum: at most gamma(2) of |a p| + |b q|. All three pooled sums err
    # by gamma(n) of their magnitudes, |mixed| <= (1 + gamma(2)) (|a p| + |b q|). The rest is float64 noise.
    both = abs(a) * magnitude(weight, indices, p) + abs(b) * magnitude(weight, indices, q)
    bound = (gamma(2) + gamma(n) * (1 + gamma(2)) + gamma(n) + (n + 4) * 2.0**-53) * both
    # Weights that underflow err absolutely: by 2**-149 at most, once per product and sum.
    tiny = 3 * 2.0**-149 * magnitude(weight, indices, np.ones(n, np.float32))
    assert np.all(np.abs(joint - apart) <= bound + tiny)


@given(cut=st.integers(0, 400), **sizes)
def test_a_bag_is_the_sum_of_its_parts(cut, n, rows, dim, seed):
    weight, indices, (factors, _) = bag(n, rows, dim, seed)
    cut = min(cut, n)
    lengths = np.array([cut, n - cut])
    parts = hf.sparse_lengths_sum(weight, indices, lengths, weights=factors).astype(np.float64)
    bound = (2 * gamma(n) + 2.0**-53) * magnitude(weight, indices, factors)
    assert np.all(np.abs(parts.sum(0) - pooled(weight, indices, factors)) <= bound)


@given(**sizes)
def test_order_within_a_bag_changes_only_rounding_and_max_not_at_all(n, rows, dim, seed):
    weight, indices, (factors, _) = bag(n, rows, dim, seed)
    order = np.random.default_rng(seed + 1).permutation(n)
    moved = pooled(weight, indices[order], factors[order])
    bound = 2 * gamma(n) * magnitude(weight, indices, factors)
    assert np.all(np.abs(moved - pooled(weight, indices, factors)) <= bound)
    offsets = np.array([0])
    largest = hf.embedding_bag(weight, indices, offsets, mode="max")
    assert np.array_equal(largest, hf.embedding_bag(weight, indices[order], offsets, mode="max"))
    assert np.array_equal(largest[0], weight[indices].max(0))


@given(**sizes)
def test_mean_is_the_sum_divided_by_the_count_and_padding_is_as_if_absent(n, rows, dim, seed):
    weight, indices, _ = bag(n, rows, dim, seed)
    offsets = np.array([0])
    total = hf.embedding_bag(weight, indices, offsets, mode="sum")
    assert np.array_equal(hf.embedding_bag(weight, indices, offsets), total / np.float32(n))
    padding = int(indices[0])
    kept = indices[indices != padding]
    without = hf.embedding_bag(weight, kept, offsets)
    assert np.array_equal(hf.embedding_bag(weight, indices, offsets, padding_idx=padding), without)


@given(**sizes)
def test_bags_do_not_see_each_other(n, rows, dim, seed):
    weight, indices, _ = bag(n, rows, dim, seed)
    offsets = np.unique(np.concatenate([[0], np.random.default_rng(seed).integers(0, n, 5)]))
    together = hf.embedding_bag(weight, indices, offsets)
    for bag_indices, row in zip(np.split(indices, offsets[1:]), together, strict=True):
        assert np.array_equal(hf.embedding_bag(weight, bag_indices, np.array([0]))[0], row)
