"""Every tier, thread count and integer type against the slow twin, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hercules_fast as hf
from hercules_fast import _core
from tests.reference import sls as twin

TIERS = _core.capabilities()["isa_available"]
INTS = st.sampled_from([np.int32, np.int64])


def same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@st.composite
def cases(draw):
    """A table with values of mixed size, lookups, and their bags as lengths."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, dim = draw(st.integers(1, 40)), draw(st.integers(0, 140))
    lengths = draw(st.lists(st.integers(0, 25), max_size=8))
    n = sum(lengths)
    weight = (rng.standard_normal((rows, dim)) * 10.0 ** rng.integers(-3, 4, (rows, dim))).astype(np.float32)
    indices = rng.integers(0, rows, n).astype(draw(INTS))
    factors = rng.standard_normal(n).astype(np.float32)
    padding = draw(st.none() | st.integers(-rows, rows - 1))
    return weight, indices, np.array(lengths, draw(INTS)), factors, padding


@given(cases(), st.sampled_from(["sum", "mean", "max"]), st.booleans(), st.booleans())
def test_offsets_are_bit_equal_to_the_twin(case, mode, weighted, include_last):
    weight, indices, lengths, factors, padding = case
    starts = np.concatenate([[0], np.cumsum(lengths)])
    offsets = (starts if include_last else starts[:-1]).astype(lengths.dtype)
    factors = factors if weighted and mode != "max" else None
    bags = twin.bags_of_offsets(offsets, len(indices), include_last)
    right = twin.embedding_bag(weight, indices, bags, mode, factors, padding)
    for isa in TIERS:
        for threads in (1, 2, 3):
            ours = _core.embedding_bag(
                weight, indices, offsets, mode, factors, include_last, padding, None, threads, False, isa=isa
            )
            assert same_bytes(ours, right), (isa, threads)
    out = np.full_like(right, np.nan)
    ours = hf.embedding_bag(
        weight,
        indices,
        offsets,
        mode=mode,
        per_sample_weights=factors,
        include_last_offset=include_last,
        padding_idx=padding,
        out=out,
    )
    assert ours is out
    assert same_bytes(out, right)


@given(cases(), st.booleans())
def test_lengths_are_bit_equal_to_the_twin(case, weighted):
    weight, indices, lengths, factors, _ = case
    factors = factors if weighted else None
    right = twin.embedding_bag(weight, indices, twin.bags_of_lengths(lengths), "sum", factors)
    for isa in TIERS:
        for threads in (1, 2, 3):
            assert same_bytes(
                _core.sparse_lengths_sum(weight, indices, lengths, factors, None, threads, False, isa=isa), right
            )
    assert same_bytes(hf.sparse_lengths_sum(weight, indices, lengths, weights=factors), right)


@given(cases(), st.integers(0, 6), st.integers(0, 6), st.sampled_from(["sum", "mean"]))
def test_rows_of_2d_indices_are_bags(case, bags, lookups, mode):
    weight, indices, _, _, padding = case
    indices = np.resize(indices, (bags, lookups)) if len(indices) else np.zeros((bags, lookups), indices.dtype)
    factors = np.linspace(-1, 2, bags * lookups, dtype=np.float32).reshape(bags, lookups)
    ranges = [range(b * lookups, (b + 1) * lookups) for b in range(bags)]
    right = twin.embedding_bag(weight, indices.ravel(), ranges, mode, factors.ravel(), padding)
    ours = hf.embedding_bag(weight, indices, mode=mode, per_sample_weights=factors, padding_idx=padding)
    assert same_bytes(ours, right)


@pytest.mark.parametrize("isa", TIERS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_large_skewed_calls_are_shared_without_a_change(isa, mode):
    rng = np.random.default_rng(5)
    lengths = rng.geometric(0.02, 700)
    lengths[::97] = 0
    lengths[350] = 9000
    weight = rng.standard_normal((3000, 37)).astype(np.float32)
    indices = rng.integers(0, 3000, lengths.sum())
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    results = [
        _core.embedding_bag(weight, indices, offsets, mode, None, False, 7, None, threads, False, isa=isa)
        for threads in (1, 2, 3, 8)
    ]
    assert all(same_bytes(result, results[0]) for result in results)
    some = [0, 97, 349, 350, 351, 699]
    bags = twin.bags_of_offsets(offsets, len(indices))
    assert same_bytes(results[0][some], twin.embedding_bag(weight, indices, [bags[b] for b in some], mode, None, 7))


def test_read_only_and_mapped_tables_are_used_in_place(tmp_path):
    weight = np.arange(60, dtype=np.float32).reshape(12, 5)
    path = tmp_path / "table.bin"
    weight.tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=(12, 5))
    indices = np.array([3, 11, 0])
    indices.flags.writeable = False
    right = weight[indices].sum(0, keepdims=True)
    assert same_bytes(hf.embedding_bag(mapped, indices, np.array([0]), mode="sum"), right)
