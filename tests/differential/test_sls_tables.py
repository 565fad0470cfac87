"""Tables of every format against the slow twin and against stored answers of PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import DTypeError
from tests.differential.test_sls import TIERS, cases, same_bytes
from tests.reference import sls as twin

QUANTISED = ["int8", "int4", "int2"]
FLOATS = ["float32", "float16", "bfloat16"]
MODES = st.sampled_from(["sum", "mean", "max"])
STORED = json.loads((Path(__file__).parents[1] / "oracle" / "torch-bags.json").read_text())["cases"]
U = 2.0**-24


def floats_of(table: hf.EmbeddingTable, weight: np.ndarray) -> np.ndarray:
    """What the rows of a table of floats should hold, as float32."""
    if table.dtype == "bfloat16":
        return twin.widen_brain(twin.brain(weight))
    return weight.astype(table.dtype).astype(np.float32)


def small(weight: np.ndarray) -> np.ndarray:
    """Values that float16 can hold, scale and bias included."""
    return weight / np.float32(64)


def every_way(table, indices, bags, mode, factors, padding, exact=False):
    """(tier, result) for all tiers and for one and two threads."""
    weight = table._rows if isinstance(table, hf.EmbeddingTable) else table
    lengths = [len(bag) for bag in bags]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return [
        (isa, _core.embedding_bag(weight, indices, offsets, mode, factors, True, padding, None, n, exact, isa=isa))
        for isa in TIERS
        for n in (1, 2)
    ]


@given(cases(), MODES, st.booleans(), st.sampled_from(FLOATS))
def test_tables_of_floats_are_bit_equal_to_the_twin(case, mode, weighted, dtype):
    weight, indices, lengths, factors, padding = case
    weight = small(weight)
    if weight.shape[1] == 0:
        return
    table = hf.EmbeddingTable.from_array(weight, dtype)
    right_rows = floats_of(table, weight)
    assert same_bytes(table.dequantize(), right_rows)
    factors = factors if weighted and mode != "max" else None
    bags = twin.bags_of_lengths(lengths)
    right = twin.embedding_bag(right_rows, indices, bags, mode, factors, padding)
    for isa, ours in every_way(table, indices, bags, mode, factors, padding):
        assert same_bytes(ours, right), isa
    assert same_bytes(
        hf.sparse_lengths_sum(table, indices, lengths), twin.embedding_bag(right_rows, indices, bags, "sum")
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_values_below_the_normal_range_are_kept(dtype, mode):
    rng = np.random.default_rng(4)
    least = 2.0**-24 if dtype == "float16" else 2.0**-133  # the smallest half; the smallest bfloat16
    weight = (rng.integers(-30, 31, (20, 37)) * least).astype(np.float32)
    table = hf.EmbeddingTable.from_array(weight, dtype)
    assert same_bytes(table.dequantize(), weight)
    indices, bags = rng.integers(0, 20, 30), [range(12), range(12, 12), range(12, 30)]
    right = twin.embedding_bag(weight, indices, bags, mode)
    assert (right != 0).any()
    for isa, ours in every_way(table, indices, bags, mode, None, None):
        assert same_bytes(ours, right), isa


@given(cases(), MODES, st.booleans(), st.sampled_from([np.float16, np.float64]))
def test_arrays_of_other_floats_are_bit_equal_to_the_twin(case, mode, weighted, dtype):
    weight, indices, lengths, factors, padding = case
    weight = (small(weight) / np.float32(3)).astype(dtype)
    factors = factors.astype(np.float64 if dtype == np.float64 else np.float32) if weighted and mode != "max" else None
    bags = twin.bags_of_lengths(lengths)
    right = twin.embedding_bag(weight, indices, bags, mode, factors, padding)
    assert right.dtype == (np.float64 if dtype == np.float64 else np.float32)
    for isa, ours in every_way(weight, indices, bags, mode, factors, padding):
        assert same_bytes(ours, right), isa


@given(cases(), MODES, st.sampled_from(["array", "float16", "int4"]))
def test_results_in_float16_are_rounded_once(case, mode, kind):
    weight, indices, lengths, _, padding = case
    if weight.shape[1] == 0:
        return
    weight = small(weight)
    table = weight if kind == "array" else hf.EmbeddingTable.from_array(weight, kind)
    offsets = (np.cumsum(lengths) - lengths).astype(np.int64)
    arguments = {"mode": mode, "padding_idx": padding}
    with np.errstate(over="ignore"):
        right = hf.embedding_bag(table, indices, offsets, **arguments).astype(np.float16)
    out = np.full(right.shape, np.nan, np.float16)
    assert hf.embedding_bag(table, indices, offsets, out=out, **arguments) is out
    assert same_bytes(out, right)


@settings(max_examples=12)
@given(cases(), MODES, st.booleans(), st.sampled_from(QUANTISED))
def test_quantised_tables_match_the_twin(case, mode, weighted, dtype):
    weight, indices, lengths, factors, padding = case
    weight = np.ascontiguousarray(small(weight)[:, :21])
    dim = weight.shape[1]
    if dim == 0:
        return
    lengths = lengths[:3]
    indices, factors = indices[: sum(lengths)], factors[: sum(lengths)]
    table = hf.EmbeddingTable.from_array(weight, dtype)
    fused = twin.quantise(weight, dtype)
    assert same_bytes(table.to_fused(), fused)
    factors = factors if weighted and mode != "max" else None
    bags = twin.bags_of_lengths(lengths)
    right = twin.quantised_bag(fused, dtype, dim, indices, bags, mode, factors, padding)
    for isa, ours in every_way(table, indices, bags, mode, factors, padding, exact=True):
        assert same_bytes(ours, right), isa
    # The fast order: within its own bound plus that of the exact order, whatever the tier; equal for all threads.
    kept = [[j for j in bag if padding is None or indices[j] != padding % len(weight)] for bag in bags]
    n = np.array([[max(len(bag), 1)] for bag in kept]).reshape(-1, 1)
    magnitude = twin.quantised_magnitude(fused, dtype, dim, indices, kept, factors) / (n if mode == "mean" else 1)
    bound = ((n + 3) + (2 * n + 2)) * U * 1.001 * magnitude
    fast = every_way(table, indices, bags, mode, factors, padding)
    for isa, ours in fast:
        assert np.all(np.abs(ours.astype(np.float64) - right) <= bound), isa
    for (isa, one), (_, two) in zip(fast[::2], fast[1::2], strict=True):
        assert same_bytes(one, two), isa
    if mode == "max":
        assert all(same_bytes(ours, right) for _, ours in fast)


@given(st.integers(0, 2**32 - 1), st.sampled_from(QUANTISED))
def test_quantisers_are_those_of_the_twin(seed, dtype):
    """Rows of all sizes of values, constant ones, tiny ranges (where halves round to zero), zeros of both signs."""
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(1, 40))
    weight = rng.standard_normal((12, dim)) * 10.0 ** rng.integers(-9, 4, (12, 1)) + rng.integers(-3, 4, (12, 1))
    weight = weight.astype(np.float32)
    weight[0], weight[1] = 0, rng.standard_normal()
    weight[2] = rng.choice(np.array([-0.0, 0.0], np.float32), dim)
    weight[3] = 1 + rng.integers(0, 3, dim) * np.float32(1e-7)
    weight[4] = rng.standard_normal(dim).astype(np.float16)
    table = hf.EmbeddingTable.from_array(weight, dtype)
    assert same_bytes(table.to_fused(), twin.quantise(weight, dtype))
    halves = weight[4:5].astype(np.float16)
    assert same_bytes(hf.EmbeddingTable.from_array(halves, dtype).to_fused(), twin.quantise(halves, dtype))


@pytest.mark.parametrize("dtype", QUANTISED)
def test_large_tables_are_encoded_alike_by_any_number_of_threads(dtype):
    weight = np.random.default_rng(0).standard_normal((60_000, 33)).astype(np.float32)
    one, three = (hf.EmbeddingTable.from_array(weight, dtype, threads=n).to_fused() for n in (1, 3))
    assert same_bytes(one, three)
    some = [0, 1, 7777, 31_000, 59_999]
    assert same_bytes(one[some], twin.quantise(weight[some], dtype))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from(QUANTISED))
def test_layouts_are_those_of_the_twin(seed, dim, dtype):
    weight = np.random.default_rng(seed).standard_normal((5, dim)).astype(np.float32)
    table = hf.EmbeddingTable.from_array(weight, dtype)
    last, first = table.to_fused(), table.to_fused("first")
    assert same_bytes(first, twin.first_layout(last, dtype))
    again = hf.EmbeddingTable.from_fused(last, dtype, dim=dim)
    assert again.shape == table.shape
    assert same_bytes(again.to_fused(), last)
    turned = hf.EmbeddingTable.from_fused(first, dtype, layout="first", dim=dim)
    assert same_bytes(turned.to_fused("first"), first)
    codes, scales, biases = twin.unpack(last, dtype, dim)
    if dtype == "int8":
        scales, biases = scales.astype(np.float16), biases.astype(np.float16)
    right = np.array([[twin.fma(codes[r, c], scales[r], biases[r]) for c in range(dim)] for r in range(5)], np.float32)
    assert same_bytes(turned.dequantize(), right)


def numbers(text: str, dtype) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), dtype)


@pytest.mark.parametrize("case", STORED, ids=lambda case: f"dim{case['dim']}")
def test_stored_answers_of_pytorch(case):
    dim, lengths = case["dim"], np.array(case["lengths"])
    weight = numbers(case["weight"], np.float32).reshape(-1, dim)
    indices, factors = np.array(case["indices"]), numbers(case["factors"], np.float32)
    offsets = np.cumsum(lengths) - lengths
    for dtype in QUANTISED:
        stored = case[dtype]
        table = hf.EmbeddingTable.from_array(weight, dtype)
        assert table.to_fused().tobytes().hex() == stored["packed"]
        assert table.dequantize().tobytes().hex() == stored["unpacked"]
        for isa in TIERS:
            for name, weights in (("sum", None), ("weighted_sum", factors)):
                ours = _core.sparse_lengths_sum(table._rows, indices, lengths, weights, None, 1, True, isa=isa)
                assert ours.tobytes().hex() == stored[name], (dtype, isa, name)
    for dtype in FLOATS:
        stored = case[dtype]
        table = hf.EmbeddingTable.from_array(weight, dtype)
        assert table._rows.view().tobytes().hex() == stored["table"]
        for mode in ("sum", "mean", "max"):
            ours = hf.embedding_bag(table, indices, offsets, mode=mode)
            theirs = numbers(stored[mode], np.float32).reshape(ours.shape)
            if dtype == "float32":
                assert same_bytes(ours, theirs), mode
            elif dtype == "float16":
                out = np.empty(ours.shape, np.float16)
                hf.embedding_bag(table, indices, offsets, mode=mode, out=out)
                if mode == "mean":
                    # PyTorch rounds twice where it divides: half a unit in the last place of its sum more.
                    assert np.allclose(out.astype(np.float32), theirs, rtol=2**-10, atol=2**-24), mode
                else:
                    assert same_bytes(out.astype(np.float32), theirs), mode
            else:
                # One rounding to eight bits, twice for a mean: relative to the sums of absolute values.
                bound = 2.0**-7 * twin.embedding_bag(
                    np.abs(twin.widen_brain(twin.brain(weight))), indices, twin.bags_of_lengths(lengths), mode
                )
                assert np.all(np.abs(ours - theirs) <= bound), mode


def test_results_in_bfloat16_are_rounded_once() -> None:
    """NumPy has no bfloat16; any package's dtype of that name and size will do."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(100, 37)).astype(np.float32)
    indices, offsets = rng.integers(0, 100, 400), np.arange(0, 400, 8)
    for table in (weight, hf.EmbeddingTable.from_array(weight, dtype="int8")):
        exact = hf.embedding_bag(table, indices, offsets, mode="mean")
        for threads in (1, 2):
            out = np.empty(exact.shape, ml_dtypes.bfloat16)
            assert hf.embedding_bag(table, indices, offsets, mode="mean", out=out, threads=threads) is out
            assert out.tobytes() == exact.astype(ml_dtypes.bfloat16).tobytes()
    with pytest.raises(DTypeError, match=r"out: has dtype .*accepted: float32, float16, bfloat16"):
        hf.embedding_bag(weight, indices, offsets, out=np.empty((50, 37), "V2"))
    with pytest.raises(DTypeError, match="accepted: float64"):
        hf.embedding_bag(weight.astype(np.float64), indices, offsets, out=np.empty((50, 37), ml_dtypes.bfloat16))
