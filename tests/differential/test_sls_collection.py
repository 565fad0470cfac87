"""Many tables in one call, against the slow twin and against one call per table, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hercules_fast as hf
from hercules_fast import _core
from tests.differential.test_sls import INTS, TIERS, same_bytes
from tests.differential.test_sls_tables import FLOATS, MODES, QUANTISED, floats_of, small
from tests.reference import sls as twin


@st.composite
def collections(draw, kinds, most_columns=70, longest=25):
    """Tables of random kinds, their values as the twin takes them, and lookups; some are -1 where those are skipped.

    Sizes come from the seed, so that most examples are full ones.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tables, values = [], []
    for kind in rng.choice(kinds, rng.integers(1, 6)):
        rows, dim = rng.choice([1, 2, 40]), rng.integers(1, most_columns)
        weight = rng.standard_normal((rows, dim)) * 10.0 ** rng.integers(-3, 4, (rows, dim))
        weight = small(weight.astype(np.float32))
        if kind.startswith("array "):
            tables.append(weight.astype(kind.removeprefix("array ")))
            values.append(tables[-1])
        else:
            tables.append(hf.EmbeddingTable.from_array(weight, str(kind)))
            values.append(twin.quantise(weight, kind) if kind in QUANTISED else floats_of(tables[-1], weight))
    n_bags = draw(st.sampled_from([3, 1, 8, 0]))
    lengths = rng.integers(0, longest + 1, (len(tables), n_bags))
    lengths[rng.random(lengths.shape) < 0.2] = 0
    lengths[rng.random(len(tables)) < 0.2] = 0  # tables without lookups
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(draw(INTS))
    looked_up = [rng.integers(0, table.shape[0], n) for table, n in zip(tables, lengths.sum(1), strict=True)]
    indices = np.concatenate(looked_up).astype(draw(INTS))
    skip_pruned = draw(st.booleans())
    if skip_pruned:
        indices[rng.random(len(indices)) < rng.choice([0.1, 0.5, 1.0])] = -1
    factors = rng.standard_normal(len(indices)).astype(np.float64 if kinds == ["array float64"] else np.float32)
    return tables, values, indices, offsets, factors, skip_pruned


def every_way(bags, indices, offsets, mode, factors, skip_pruned, exact):
    """(tier, result) for all tiers and for one to three threads."""
    call = (bags._rows, indices, offsets, mode, factors, skip_pruned, None)
    return [(isa, _core.embedding_bag_collection(*call, n, exact, isa)) for isa in TIERS for n in (1, 2, 3)]


def one_by_one(tables, indices, offsets, mode, factors, exact, isa):
    """A call of :func:`embedding_bag` per table; lookups of -1 are left out by hand."""
    n_bags = (len(offsets) - 1) // len(tables)
    kept = np.concatenate([[0], np.cumsum(indices[: offsets[-1]] != -1)])
    blocks = []
    for t, table in enumerate(tables):
        borders = kept[offsets[t * n_bags : (t + 1) * n_bags + 1]]
        mine = slice(offsets[t * n_bags], offsets[(t + 1) * n_bags])
        rows, weights = indices[mine], None if factors is None else factors[mine][indices[mine] != -1]
        weight = table._rows if isinstance(table, hf.EmbeddingTable) else table
        rows, borders = rows[rows != -1], borders - borders[0]
        blocks.append(_core.embedding_bag(weight, rows, borders, mode, weights, True, None, None, 1, exact, isa))
    return np.concatenate(blocks, axis=1)


FLOAT_KINDS = [*FLOATS, "array float32", "array float16"]


@pytest.mark.parametrize("kinds", [FLOAT_KINDS, ["array float64"]], ids=["float32", "float64"])
@given(data=st.data(), mode=MODES, weighted=st.booleans())
def test_tables_of_floats_are_bit_equal_to_the_twin(kinds, data, mode, weighted):
    tables, values, indices, offsets, factors, skip_pruned = data.draw(collections(kinds))
    factors = factors if weighted and mode != "max" else None

    def pool(t, indices, bags, factors):
        return twin.embedding_bag(values[t], indices, bags, mode, factors)

    right = twin.pooled_side_by_side(pool, indices, offsets, len(tables), factors, skip_pruned)
    bags = hf.EmbeddingBagCollection(tables)
    for isa, ours in every_way(bags, indices, offsets, mode, factors, skip_pruned, exact=False):
        assert same_bytes(ours, right), isa
        assert same_bytes(one_by_one(tables, indices, offsets, mode, factors, False, isa), right), isa
    arguments = {"mode": mode, "per_sample_weights": factors, "skip_pruned": skip_pruned}
    out = np.full_like(right, np.nan)
    assert bags(indices, offsets, out=out, **arguments) is out
    assert same_bytes(out, right)
    assert bags.dims == tuple(table.shape[1] for table in tables)


@settings(max_examples=12)
@given(collections([*QUANTISED, *FLOAT_KINDS], most_columns=21, longest=6), MODES, st.booleans())
def test_quantised_tables_in_the_exact_order_are_bit_equal_to_the_twin(case, mode, weighted):
    tables, values, indices, offsets, factors, skip_pruned = case
    factors = factors if weighted and mode != "max" else None

    def pool(t, indices, bags, factors):
        kind = getattr(tables[t], "dtype", None)
        if kind in QUANTISED:
            return twin.quantised_bag(values[t], kind, tables[t].dim, indices, bags, mode, factors)
        return twin.embedding_bag(values[t], indices, bags, mode, factors)

    right = twin.pooled_side_by_side(pool, indices, offsets, len(tables), factors, skip_pruned)
    bags = hf.EmbeddingBagCollection(tables)
    for isa, ours in every_way(bags, indices, offsets, mode, factors, skip_pruned, exact=True):
        assert same_bytes(ours, right), isa


@given(collections([*QUANTISED, *FLOAT_KINDS]), MODES, st.booleans(), st.booleans())
def test_each_block_has_the_bytes_of_a_call_for_its_table(case, mode, weighted, exact):
    tables, _, indices, offsets, factors, skip_pruned = case
    factors = factors if weighted and mode != "max" else None
    bags = hf.EmbeddingBagCollection(tables)
    for isa, ours in every_way(bags, indices, offsets, mode, factors, skip_pruned, exact):
        assert same_bytes(ours, one_by_one(tables, indices, offsets, mode, factors, exact, isa)), isa


@given(collections([*QUANTISED, *FLOAT_KINDS]), MODES)
def test_results_in_float16_are_rounded_once(case, mode):
    tables, _, indices, offsets, _, skip_pruned = case
    bags = hf.EmbeddingBagCollection(tables)
    arguments = {"mode": mode, "skip_pruned": skip_pruned}
    with np.errstate(over="ignore"):
        right = bags(indices, offsets, **arguments).astype(np.float16)
    out = np.full(right.shape, np.nan, np.float16)
    assert bags(indices, offsets, out=out, **arguments) is out
    assert same_bytes(out, right)


@pytest.mark.parametrize("isa", TIERS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_large_skewed_calls_are_shared_without_a_change(isa, mode):
    """Tables in memory and in the cache, wide and narrow, enough lookups for several threads."""
    rng = np.random.default_rng(5)
    shapes = [("float32", 9000, 64), ("int4", 20, 16), ("float16", 30_000, 33), ("int8", 5000, 400), ("int2", 1, 7)]
    floats = [rng.standard_normal((rows, dim)).astype(np.float32) for _, rows, dim in shapes]
    tables = [hf.EmbeddingTable.from_array(x, kind) for x, (kind, _, _) in zip(floats, shapes, strict=True)]
    lengths = rng.geometric(0.05, (5, 300))
    lengths[:, ::97] = 0
    lengths[2, 150] = 9000
    lengths[3, 151] = 2000
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.concatenate([rng.integers(0, len(x), n) for x, n in zip(floats, lengths.sum(1), strict=True)])
    indices[::11] = -1
    bags = hf.EmbeddingBagCollection(tables)
    right = one_by_one(tables, indices, offsets, mode, None, False, isa)
    for threads in (1, 2, 3, 8):
        for kind in (np.int32, np.int64):
            ours = _core.embedding_bag_collection(
                bags._rows, indices.astype(kind), offsets, mode, None, True, None, threads, False, isa
            )
            assert same_bytes(ours, right), threads
