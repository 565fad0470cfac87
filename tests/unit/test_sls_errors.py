"""Malformed calls: each must name the argument, what was given and what is allowed, and leave the process alive."""

from __future__ import annotations

import re
import sys
import threading

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import DTypeError, IndexRangeError, InputError, SizeError
from tests.races import check_race

W = np.arange(40, dtype=np.float32).reshape(8, 5)
IDX = np.array([0, 1, 2, 3])
OFF = np.array([0, 2])
READ_ONLY = np.zeros((2, 5), np.float32)
READ_ONLY.flags.writeable = False
MISALIGNED = np.zeros(8 * 4 + 1, np.uint8)[1:].view(np.int64)


def ints(*values, dtype=np.int64):
    return np.array(values, dtype)


BAG_ERRORS = {
    # weight
    "weight is a list": ({"weight": [[1.0]]}, DTypeError, "weight: must be a NumPy array or an EmbeddingTable, not li"),
    "weight is None": (
        {"weight": None},
        DTypeError,
        "weight: must be a NumPy array or an EmbeddingTable, not NoneType",
    ),
    "weight is a scalar": (
        {"weight": np.float32(1)},
        DTypeError,
        "weight: must be a NumPy array or an EmbeddingTable, not float32",
    ),
    "weight int8": (
        {"weight": W.astype("i1")},
        DTypeError,
        "weight: has dtype int8; accepted: float32, float16, float64, or an EmbeddingTable",
    ),
    "weight long double": (
        {"weight": W.astype("g")},
        DTypeError,
        "weight: has dtype float128; accepted: float32, float",
    ),
    "weight float16 swapped": ({"weight": W.astype(">f2")}, DTypeError, "weight: has dtype >f2 in foreign byte order"),
    "weight uint8": ({"weight": W.astype("u1")}, DTypeError, "weight: has dtype uint8; accepted: float32"),
    "weight object": ({"weight": W.astype(object)}, DTypeError, "weight: has dtype object; accepted: float32"),
    "weight complex": ({"weight": W.astype("c8")}, DTypeError, "weight: has dtype complex64; accepted: float32"),
    "weight swapped": ({"weight": W.astype(">f4")}, DTypeError, "weight: has dtype >f4 in foreign byte order"),
    "weight 0-D": ({"weight": np.array(1, "f4")}, InputError, "weight: must be 2-D (rows, columns), not of shape ()"),
    "weight 1-D": ({"weight": W[0]}, InputError, "weight: must be 2-D (rows, columns), not of shape (5,)"),
    "weight 3-D": ({"weight": W[None]}, InputError, "weight: must be 2-D (rows, columns), not of shape (1, 8, 5)"),
    "weight Fortran": ({"weight": np.asfortranarray(W)}, InputError, "weight: must be C-contiguous; pass np.ascontig"),
    "weight strided": ({"weight": W[::2]}, InputError, "weight: must be C-contiguous; pass np.ascontiguousarray"),
    "weight columns": ({"weight": W[:, :3]}, InputError, "weight: must be C-contiguous; pass np.ascontiguousarray"),
    "weight broadcast": (
        {"weight": np.broadcast_to(W[0], (2**40, 5))},
        InputError,
        "weight: must be C-contiguous; pass np.ascontiguousarray",
    ),
    "weight misaligned": (
        {"weight": MISALIGNED.view("f4").reshape(2, 4)},
        InputError,
        "weight: must be aligned to its items; pass a copy",
    ),
    "torch's order": ({"weight": IDX, "indices": W}, DTypeError, "weight: has dtype int64; accepted: float32, float16"),
    # indices
    "indices list": ({"indices": [0, 1]}, DTypeError, "indices: must be a NumPy array, not list"),
    "indices float": ({"indices": IDX.astype("f4")}, DTypeError, "indices: has dtype float32; accepted: int32, int64"),
    "indices int16": ({"indices": IDX.astype("i2")}, DTypeError, "indices: has dtype int16; accepted: int32, int64"),
    "indices uint64": ({"indices": IDX.astype("u8")}, DTypeError, "indices: has dtype uint64; accepted: int32, int64"),
    "indices bool": ({"indices": IDX.astype(bool)}, DTypeError, "indices: has dtype bool; accepted: int32, int64"),
    "indices time": (
        {"indices": IDX.astype("m8[s]")},
        DTypeError,
        "indices: has dtype timedelta64[s]; accepted: int32",
    ),
    "indices swapped": ({"indices": IDX.astype(">i8")}, DTypeError, "indices: has dtype >i8 in foreign byte order"),
    "indices 0-D": ({"indices": np.array(3)}, InputError, "indices: must be 1-D or 2-D, not of shape ()"),
    "indices 3-D": (
        {"indices": IDX.reshape(1, 2, 2)},
        InputError,
        "indices: must be 1-D or 2-D, not of shape (1, 2, 2)",
    ),
    "indices strided": ({"indices": IDX[::2]}, InputError, "indices: must be C-contiguous; pass np.ascontiguousarray"),
    "indices reversed": ({"indices": IDX[::-1]}, InputError, "indices: must be C-contiguous; pass np.ascontiguous"),
    "indices misaligned": ({"indices": MISALIGNED}, InputError, "indices: must be aligned to its items; pass a copy"),
    "index = rows": (
        {"indices": ints(0, 8)},
        IndexRangeError,
        "indices[1] is 8, outside the table's rows 0 <= index < 8",
    ),
    "index < 0": (
        {"indices": ints(0, 1, -1)},
        IndexRangeError,
        "indices[2] is -1, outside the table's rows 0 <= index < 8",
    ),
    "index huge": ({"indices": ints(0, 2**63 - 1)}, IndexRangeError, "indices[1] is 9223372036854775807, outside"),
    "index least": ({"indices": ints(-(2**63), 0)}, IndexRangeError, "indices[0] is -9223372036854775808, outside"),
    "index 32 bits": (
        {"indices": ints(0, -(2**31), dtype="i4")},
        IndexRangeError,
        "indices[1] is -2147483648, outside",
    ),
    "first of two bad": ({"indices": ints(0, 9, -4, 7)}, IndexRangeError, "indices[1] is 9, outside"),
    "no rows": ({"weight": W[:0]}, IndexRangeError, "indices[0] is 0, outside the table's rows 0 <= index < 0"),
    "no columns": (
        {"weight": np.zeros((8, 0), "f4"), "indices": ints(0, 8)},
        IndexRangeError,
        "indices[1] is 8, outside the table's rows 0 <= index < 8",
    ),
    # offsets
    "offsets missing": ({"offsets": None}, InputError, "offsets: are needed for 1-D indices"),
    "offsets list": ({"offsets": [0, 2]}, DTypeError, "offsets: must be a NumPy array, not list"),
    "offsets float": ({"offsets": OFF.astype("f8")}, DTypeError, "offsets: has dtype float64; accepted: int32, int64"),
    "offsets 2-D": ({"offsets": OFF[None]}, InputError, "offsets: must be 1-D, not of shape (1, 2)"),
    "offsets 0-D": ({"offsets": np.array(0)}, InputError, "offsets: must be 1-D, not of shape ()"),
    "offsets swapped": ({"offsets": OFF.astype(">i4")}, DTypeError, "offsets: has dtype >i4 in foreign byte order"),
    "offsets misaligned": ({"offsets": MISALIGNED}, InputError, "offsets: must be aligned to its items; pass a copy"),
    "offsets strided": ({"offsets": ints(0, 9, 2)[::2]}, InputError, "offsets: must be C-contiguous; pass np.ascont"),
    "offsets from 1": ({"offsets": ints(1, 2)}, InputError, "offsets[0]: is 1; the first bag starts at 0"),
    "offsets from -1": ({"offsets": ints(-1, 2)}, InputError, "offsets[0]: is -1; the first bag starts at 0"),
    "offsets fall": ({"offsets": ints(0, 3, 2, 1)}, InputError, "offsets[2]: is 2, less than offsets[1] = 3"),
    "offsets negative": ({"offsets": ints(0, -5, 2)}, InputError, "offsets[1]: is -5, less than offsets[0] = 0"),
    "offsets beyond": ({"offsets": ints(0, 5, 6)}, InputError, "offsets[1]: is 5, beyond the 4 indices"),
    "offsets least": ({"offsets": ints(0, -(2**63))}, InputError, "offsets[1]: is -9223372036854775808, less than"),
    "offsets largest": (
        {"offsets": ints(0, 2**63 - 1)},
        InputError,
        "offsets[1]: is 9223372036854775807, beyond the 4",
    ),
    "last beyond": (
        {"offsets": ints(0, 5), "include_last_offset": True},
        InputError,
        "offsets[1]: is 5, beyond the 4 indices",
    ),
    "last, none at all": (
        {"offsets": ints(), "include_last_offset": True},
        InputError,
        "offsets: is empty; where it includes the last offset it has at least one entry, a leading 0",
    ),
    "offsets with 2-D": ({"indices": IDX.reshape(2, 2)}, InputError, "offsets: must be None for 2-D indices"),
    "last with 2-D": (
        {"indices": IDX.reshape(2, 2), "offsets": None, "include_last_offset": True},
        InputError,
        "include_last_offset: must be False for 2-D indices",
    ),
    # mode, weights, padding, threads
    "mode unknown": ({"mode": "prod"}, InputError, 'mode: is "prod"; allowed are sum, mean, max'),
    "mode number": ({"mode": 1}, DTypeError, "mode: must be 'sum', 'mean' or 'max', not int"),
    "mode None": ({"mode": None}, DTypeError, "mode: must be 'sum', 'mean' or 'max', not NoneType"),
    "weights with max": (
        {"mode": "max", "per_sample_weights": np.ones(4, "f4")},
        InputError,
        "per_sample_weights: go with modes sum and mean, not with max",
    ),
    "weights list": ({"per_sample_weights": [1.0]}, DTypeError, "per_sample_weights: must be a NumPy array, not list"),
    "weights float64": (
        {"per_sample_weights": np.ones(4)},
        DTypeError,
        "per_sample_weights: has dtype float64; accepted: float32",
    ),
    "weights short": (
        {"per_sample_weights": np.ones(3, "f4")},
        InputError,
        "per_sample_weights: has shape (3,); indices have (4,), it must be the same",
    ),
    "weights 2-D": (
        {"per_sample_weights": np.ones((2, 2), "f4")},
        InputError,
        "per_sample_weights: has shape (2, 2); indices have (4,), it must be the same",
    ),
    "weights strided": (
        {"per_sample_weights": np.ones(8, "f4")[::2]},
        InputError,
        "per_sample_weights: must be C-contiguous",
    ),
    "weights misaligned": (
        {"per_sample_weights": MISALIGNED[:2].view("f4")},
        InputError,
        "per_sample_weights: must be aligned to its items; pass a copy",
    ),
    "weights swapped": (
        {"per_sample_weights": np.ones(4, ">f4")},
        DTypeError,
        "per_sample_weights: has dtype >f4 in foreign byte order",
    ),
    "padding above": ({"padding_idx": 8}, InputError, "padding_idx: is 8; allowed is -8 <= padding_idx < 8"),
    "padding below": ({"padding_idx": -9}, InputError, "padding_idx: is -9; allowed is -8 <= padding_idx < 8"),
    "padding huge": ({"padding_idx": 10**30}, InputError, "padding_idx: is 1000000000000000000000000000000, beyond 64"),
    "padding float": ({"padding_idx": 1.0}, DTypeError, "padding_idx: must be a whole number, not float"),
    "threads 0": ({"threads": 0}, InputError, "threads: is 0; allowed is a whole number from 1 to 1024"),
    "threads -1": ({"threads": -1}, InputError, "threads: is -1; allowed is 1 or more"),
    "threads many": ({"threads": 1025}, InputError, "threads: is 1025; allowed is a whole number from 1 to 1024"),
    "threads float": ({"threads": 2.0}, DTypeError, "threads: must be a whole number, not float"),
    "threads NaN": ({"threads": float("nan")}, DTypeError, "threads: must be a whole number, not float"),
    "threads text": ({"threads": "2"}, DTypeError, "threads: must be a whole number, not str"),
    "exact number": ({"exact": 1}, DTypeError, "exact: must be True or False, not int"),
    "last None": ({"include_last_offset": None}, DTypeError, "include_last_offset: must be True or False, not None"),
    # out
    "out list": ({"out": [[0.0] * 5] * 2}, DTypeError, "out: must be a NumPy array, not list"),
    "out float64": ({"out": np.zeros((2, 5))}, DTypeError, "out: has dtype float64; accepted: float32, float16"),
    "out wrong bags": ({"out": np.zeros((3, 5), "f4")}, InputError, "out: has shape (3, 5); the result has (2, 5)"),
    "out wrong dim": ({"out": np.zeros((2, 4), "f4")}, InputError, "out: has shape (2, 4); the result has (2, 5)"),
    "out flat": ({"out": np.zeros(10, "f4")}, InputError, "out: has shape (10,); the result has (2, 5)"),
    "out Fortran": ({"out": np.zeros((2, 5), "f4", order="F")}, InputError, "out: must be C-contiguous"),
    "out read-only": ({"out": READ_ONLY}, InputError, "out: is read-only"),
    "out 0-D": ({"out": np.array(0, "f4")}, InputError, "out: has shape (); the result has (2, 5)"),
    "out swapped": ({"out": np.zeros((2, 5), ">f4")}, DTypeError, "out: has dtype >f4 in foreign byte order"),
    "out misaligned": (
        {"out": np.zeros(41, "u1")[1:].view("f4").reshape(2, 5)},
        InputError,
        "out: must be aligned to its items; pass a copy",
    ),
    "out in weight": ({"out": W[3:5]}, InputError, "out: shares memory with weight"),
}


def bag_call(**changes):
    arguments = {"weight": W, "indices": IDX, "offsets": OFF, **changes}
    return hf.embedding_bag(**arguments)


@pytest.mark.parametrize("name", BAG_ERRORS)
def test_malformed_embedding_bag(name):
    changes, kind, message = BAG_ERRORS[name]
    with pytest.raises(kind, match="^" + re.escape(message)) as caught:
        bag_call(**changes)
    assert type(caught.value) is kind
    assert bag_call().shape == (2, 5), "the next call works"


LENGTH_ERRORS = {
    "short": ({"lengths": ints(1, 2)}, InputError, "lengths: sum to 3, but there are 4 indices"),
    "none": ({"lengths": ints()}, InputError, "lengths: sum to 0, but there are 4 indices"),
    "long": ({"lengths": ints(2, 3)}, InputError, "lengths[1]: is 3, but only 2 of the 4 indices are left"),
    "negative": ({"lengths": ints(5, -1)}, InputError, "lengths[0]: is 5, but only 4 of the 4 indices are left"),
    "negative first": ({"lengths": ints(-1, 5)}, InputError, "lengths[0]: is -1; a length is 0 or more"),
    "wrapping": (
        {"lengths": ints(2**63 - 1, 2**63 - 1, 6)},
        InputError,
        "lengths[0]: is 9223372036854775807, but only",
    ),
    "2-D": ({"lengths": ints(4)[None]}, InputError, "lengths: must be 1-D, not of shape (1, 1)"),
    "float": ({"lengths": np.array([4.0])}, DTypeError, "lengths: has dtype float64; accepted: int32, int64"),
    "None": ({"lengths": None}, DTypeError, "lengths: must be a NumPy array, not NoneType"),
    "2-D indices": ({"indices": IDX.reshape(2, 2)}, InputError, "indices: must be 1-D, not of shape (2, 2)"),
    "index": (
        {"indices": ints(0, 1, 2, 8)},
        IndexRangeError,
        "indices[3] is 8, outside the table's rows 0 <= index < 8",
    ),
    "weights": (
        {"weights": np.ones(5, "f4")},
        InputError,
        "weights: has shape (5,); indices have (4,), it must be the same",
    ),
    "weights dtype": ({"weights": np.ones(4)}, DTypeError, "weights: has dtype float64; accepted: float32"),
    "out shape": ({"out": np.zeros((1, 5), "f4")}, InputError, "out: has shape (1, 5); the result has (2, 5)"),
    "threads": ({"threads": 0}, InputError, "threads: is 0; allowed is a whole number from 1 to 1024"),
}


@pytest.mark.parametrize("name", LENGTH_ERRORS)
def test_malformed_sparse_lengths_sum(name):
    changes, kind, message = LENGTH_ERRORS[name]
    arguments = {"weight": W, "indices": IDX, "lengths": ints(1, 3), **changes}
    with pytest.raises(kind, match="^" + re.escape(message)):
        hf.sparse_lengths_sum(**arguments)


@pytest.mark.parametrize("name", ["indices", "offsets", "per_sample_weights"])
def test_out_must_not_share_memory_with_any_input(name):
    memory = np.zeros(64, np.float32)
    out = memory[:10].reshape(2, 5)
    inputs = {
        "indices": memory[8:16].view(np.int64),
        "offsets": memory[8:12].view(np.int64),
        "per_sample_weights": memory[9:13],
    }
    with pytest.raises(InputError, match=f"^out: shares memory with {name}$"):
        bag_call(**{name: inputs[name]}, mode="sum", out=out)
    assert bag_call(indices=memory[10:18].view(np.int64), out=out) is out, "adjacent memory is not shared"


def test_errors_are_also_the_builtins_that_callers_expect():
    with pytest.raises(IndexError):
        bag_call(indices=ints(0, 99))
    with pytest.raises(ValueError):
        bag_call(offsets=ints(1))
    with pytest.raises(TypeError):
        bag_call(weight=W.astype("i4"))


def test_the_first_bad_index_is_named_for_any_thread_count():
    weight = np.zeros((100, 64), np.float32)
    indices = np.zeros(50_000, np.int64)
    indices[[20_011, 48_000]] = [100, -1]
    offsets = np.arange(0, 50_000, 10)
    for threads in (1, 2, 3):
        with pytest.raises(IndexRangeError, match=r"^indices\[20011\] is 100, "):
            hf.embedding_bag(weight, indices, offsets, threads=threads)


def test_no_memory_is_a_memory_error():
    many = np.empty((2**42, 0), np.int32)  # bags without lookups cost nothing, their result would be 80 TiB
    with pytest.raises(MemoryError):
        hf.embedding_bag(W, many)


def test_a_result_beyond_the_address_space_is_refused():
    wide, bags = np.empty((0, 2**60), np.float32), np.empty((4, 0), np.int32)
    with pytest.raises(SizeError, match=r"^out: 4 x 1152921504606846976 values of 4 bytes exceed the address space$"):
        hf.embedding_bag(wide, bags)
    with pytest.raises(MemoryError, match=r"^cannot allocate 9223372036854775808 bytes$"):
        hf.embedding_bag(W, np.empty((2**60, 0), np.int32))


def test_empty_shapes():
    none = ints()
    assert hf.embedding_bag(W, IDX, none).shape == (0, 5)
    assert hf.embedding_bag(W, none, none).shape == (0, 5)
    assert np.array_equal(hf.embedding_bag(W, none, ints(0, 0)), np.zeros((2, 5), "f4"))
    assert np.array_equal(hf.embedding_bag(W[:0], none, ints(0)), np.zeros((1, 5), "f4"))
    assert hf.embedding_bag(W, none, ints(0), include_last_offset=True).shape == (0, 5)
    assert hf.embedding_bag(W[:, :0].copy(), IDX, OFF).shape == (2, 0)
    assert hf.embedding_bag(W, np.empty((0, 4), np.int64)).shape == (0, 5)
    assert np.array_equal(hf.embedding_bag(W, np.empty((3, 0), np.int64)), np.zeros((3, 5), "f4"))
    assert hf.sparse_lengths_sum(W, none, none).shape == (0, 5)


def test_indices_after_the_last_csr_offset_are_not_read():
    indices = ints(1, 2, 10**12)
    out = hf.embedding_bag(W, indices, ints(0, 2), mode="sum", include_last_offset=True)
    assert np.array_equal(out, (W[1] + W[2])[None])


def test_values_that_are_not_finite_pass_through():
    weight = np.array([[np.nan, 1], [np.inf, 2], [1, -np.inf]], np.float32)
    total = hf.embedding_bag(weight, ints(1, 2), ints(0), mode="sum")
    assert np.array_equal(total, [[np.inf, -np.inf]])
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        largest = hf.embedding_bag(weight, np.array(order), ints(0), mode="max")
        assert np.array_equal(largest, [[np.nan, 2]], equal_nan=True)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_another_thread_may_write_the_integers_meanwhile(dtype):
    rng = np.random.default_rng(1)
    weight = rng.random((1000, 64), dtype=np.float32)
    indices, offsets = rng.integers(0, 1000, 40_000).astype(dtype), np.linspace(0, 40_000, 501).astype(dtype)
    others = np.roll(indices, 1)[::3]

    def spoil() -> None:
        indices[::3] = others

    def call(threads: int) -> np.ndarray:
        return hf.embedding_bag(weight, indices, offsets, mode="max", threads=threads)

    check_race(indices, offsets, spoil, call, most=np.nextafter(np.float32(1), np.float32(0)))


def test_other_threads_run_during_a_call():
    """The interpreter is let go: with a switch interval of minutes, another thread gets a turn only if it is."""
    weight, indices, offsets = np.ones((1000, 64), np.float32), np.zeros(1_000_000, np.int64), np.array([0])
    interval, order = sys.getswitchinterval(), []
    sys.setswitchinterval(300)
    try:
        for _ in range(20):  # a busy machine may give the other thread no CPU within a call
            order.clear()
            gate = threading.Lock()
            with gate:
                other = threading.Thread(target=lambda gate=gate: (gate.acquire(), order.append("other")))
                other.start()
            hf.embedding_bag(weight, indices, offsets, mode="sum", threads=1)
            order.append("caller")
            other.join()
            if order == ["other", "caller"]:
                return
    finally:
        sys.setswitchinterval(interval)
    pytest.fail("no other thread ran during any of 20 calls")


def test_unknown_isa_is_refused():
    with pytest.raises(InputError, match="allowed are portable, avx2, avx512"):
        _core.embedding_bag(W, IDX, OFF, "sum", None, False, None, None, None, False, isa="sse9")
