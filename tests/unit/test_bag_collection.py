"""Calls over many tables: what is refused and how, and how a collection behaves as an object."""

from __future__ import annotations

import copy
import pickle
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast.errors import DTypeError, IndexRangeError, InputError, SizeError
from tests.races import check_race
from tests.unit.test_sls_errors import MISALIGNED, W, ints

T8 = hf.EmbeddingTable.from_array(np.ones((4, 3), np.float32), "int8")
V = np.ones((10, 2), np.float16)
BAGS = hf.EmbeddingBagCollection([W, T8, V])  # 8, 4 and 10 rows; 5, 3 and 2 columns
IDX = ints(0, 7, 1, 3, 0, 5)
OFF = ints(0, 1, 2, 4, 4, 5, 6)  # two bags per table
READ_ONLY = np.zeros((2, 10), np.float32)
READ_ONLY.flags.writeable = False

TABLE_ERRORS = {
    "none": ([], InputError, "tables: is empty; at least one is needed"),
    "no sequence": (5, DTypeError, "tables: must be several tables, not int"),
    "one table": (T8, DTypeError, "tables: must be several tables, not EmbeddingTable"),
    "one array": (W, InputError, "tables[0]: must be 2-D (rows, columns), not of shape (5,)"),
    "list": ([W, [[1.0]]], DTypeError, "tables[1]: must be a NumPy array or an EmbeddingTable, not list"),
    "None": ([None], DTypeError, "tables[0]: must be a NumPy array or an EmbeddingTable, not NoneType"),
    "collection": (
        [W, BAGS],
        DTypeError,
        "tables[1]: must be a NumPy array or an EmbeddingTable, not EmbeddingBag",
    ),
    "uint8": (
        [W, T8, V.astype("u1")],
        DTypeError,
        "tables[2]: has dtype uint8; accepted: float32, float16, float64, or an EmbeddingTable",
    ),
    "long double": ([W.astype("g")], DTypeError, "tables[0]: has dtype float128; accepted: float32"),
    "swapped": (
        [W, W.astype(">f4")],
        DTypeError,
        "tables[1]: has dtype >f4 in foreign byte order; convert it with .astype(tables[1].dtype.newbyteorder('='))",
    ),
    "1-D": ([W, W[0]], InputError, "tables[1]: must be 2-D (rows, columns), not of shape (5,)"),
    "3-D": ([W[None]], InputError, "tables[0]: must be 2-D (rows, columns), not of shape (1, 8, 5)"),
    "Fortran": ([W, np.asfortranarray(W)], InputError, "tables[1]: must be C-contiguous; pass np.ascontiguousarray"),
    "strided": ([W, T8, W[::2]], InputError, "tables[2]: must be C-contiguous; pass np.ascontiguousarray"),
    "misaligned": (
        [MISALIGNED.view(np.float32).reshape(2, 4)],
        InputError,
        "tables[0]: must be aligned to its items; pass a copy",
    ),
    "float64 among others": (
        [W, V, W.astype("f8")],
        InputError,
        "tables[2]: is float64 and tables[0] is not float64; all tables are, or none is",
    ),
    "others among float64": (
        [W.astype("f8"), T8],
        InputError,
        "tables[1]: is not float64 and tables[0] is float64; all tables are, or none is",
    ),
    "columns overflow": (
        [np.empty((0, 2**60), "f4")] * 2,
        SizeError,
        "out: 1 x 2305843009213693952 values of 4 bytes exceed the address space",
    ),
}


@pytest.mark.parametrize("name", TABLE_ERRORS)
def test_tables_are_checked_when_the_collection_is_made(name):
    tables, kind, message = TABLE_ERRORS[name]
    with pytest.raises(kind, match="^" + re.escape(message)) as caught:
        hf.EmbeddingBagCollection(tables)
    assert type(caught.value) is kind


CALL_ERRORS = {
    # offsets
    "uneven bags": (
        {"offsets": OFF[:-1].copy()},
        InputError,
        "offsets: make 5 bags for 3 tables; B bags of each take 3 * B + 1 entries",
    ),
    "starts only": (
        {"offsets": ints(0, 1, 2)},
        InputError,
        "offsets: make 2 bags for 3 tables; B bags of each take 3 * B + 1 entries",
    ),
    "offsets empty": (
        {"offsets": ints()},
        InputError,
        "offsets: is empty; where it includes the last offset it has at least one entry, a leading 0",
    ),
    "offsets from 1": ({"offsets": OFF + 1}, InputError, "offsets[0]: is 1; the first bag starts at 0"),
    "offsets fall": ({"offsets": ints(0, 1, 4, 3, 4, 5, 6)}, InputError, "offsets[3]: is 3, less than offsets[2] = 4"),
    "offsets negative": ({"offsets": ints(0, -1, 2, 4, 4, 5, 6)}, InputError, "offsets[1]: is -1, less than offsets"),
    "offsets beyond": ({"offsets": ints(0, 1, 2, 4, 4, 5, 7)}, InputError, "offsets[6]: is 7, beyond the 6 indices"),
    "offsets largest": (
        {"offsets": ints(0, 1, 2, 4, 4, 5, 2**63 - 1)},
        InputError,
        "offsets[6]: is 9223372036854775807, beyond the 6 indices",
    ),
    "offsets None": ({"offsets": None}, DTypeError, "offsets: must be a NumPy array, not NoneType"),
    "offsets list": ({"offsets": OFF.tolist()}, DTypeError, "offsets: must be a NumPy array, not list"),
    "offsets float": ({"offsets": OFF.astype("f8")}, DTypeError, "offsets: has dtype float64; accepted: int32, int64"),
    "offsets uint64": ({"offsets": OFF.astype("u8")}, DTypeError, "offsets: has dtype uint64; accepted: int32, int64"),
    "offsets 2-D": ({"offsets": OFF[None]}, InputError, "offsets: must be 1-D, not of shape (1, 7)"),
    "offsets 0-D": ({"offsets": np.array(0)}, InputError, "offsets: must be 1-D, not of shape ()"),
    "offsets strided": ({"offsets": np.repeat(OFF, 2)[::2]}, InputError, "offsets: must be C-contiguous"),
    "offsets misaligned": ({"offsets": MISALIGNED}, InputError, "offsets: must be aligned to its items; pass a copy"),
    # indices
    "indices 2-D": ({"indices": IDX.reshape(3, 2)}, InputError, "indices: must be 1-D, not of shape (3, 2)"),
    "indices 0-D": ({"indices": np.array(3)}, InputError, "indices: must be 1-D, not of shape ()"),
    "indices list": ({"indices": IDX.tolist()}, DTypeError, "indices: must be a NumPy array, not list"),
    "indices per table": ({"indices": [IDX[:2], IDX[2:4]]}, DTypeError, "indices: must be a NumPy array, not list"),
    "indices float": ({"indices": IDX.astype("f4")}, DTypeError, "indices: has dtype float32; accepted: int32, int64"),
    "indices int16": ({"indices": IDX.astype("i2")}, DTypeError, "indices: has dtype int16; accepted: int32, int64"),
    "indices swapped": ({"indices": IDX.astype(">i4")}, DTypeError, "indices: has dtype >i4 in foreign byte order"),
    "indices strided": ({"indices": np.repeat(IDX, 2)[::2]}, InputError, "indices: must be C-contiguous"),
    "indices misaligned": ({"indices": MISALIGNED}, InputError, "indices: must be aligned to its items; pass a copy"),
    "index = rows": (
        {"indices": ints(0, 8, 1, 3, 0, 5)},
        IndexRangeError,
        "indices[1] is 8, outside tables[0]'s rows 0 <= index < 8",
    ),
    "index of the next table": (
        {"indices": ints(0, 7, 1, 4, 0, 5)},
        IndexRangeError,
        "indices[3] is 4, outside tables[1]'s rows 0 <= index < 4",
    ),
    "index of the last table": (
        {"indices": ints(0, 7, 1, 3, 0, 2**63 - 1)},
        IndexRangeError,
        "indices[5] is 9223372036854775807, outside tables[2]'s rows 0 <= index < 10",
    ),
    "index 32 bits": (
        {"indices": ints(0, 7, 1, 3, -(2**31), 0, dtype="i4")},
        IndexRangeError,
        "indices[4] is -2147483648, outside tables[2]'s rows 0 <= index < 10",
    ),
    "first of two bad": ({"indices": ints(0, 7, 1, 9, 9, 9)}, IndexRangeError, "indices[3] is 9, outside tables[1]'s"),
    "-1 without skip_pruned": (
        {"indices": ints(0, 7, -1, 3, 0, 5)},
        IndexRangeError,
        "indices[2] is -1, outside tables[1]'s rows 0 <= index < 4",
    ),
    "-2 with skip_pruned": (
        {"indices": ints(0, -1, -1, -2, 0, 5), "skip_pruned": True},
        IndexRangeError,
        "indices[3] is -2, outside tables[1]'s rows 0 <= index < 4",
    ),
    # mode, weights, flags, threads
    "mode unknown": ({"mode": "prod"}, InputError, 'mode: is "prod"; allowed are sum, mean, max'),
    "mode number": ({"mode": 0}, DTypeError, "mode: must be 'sum', 'mean' or 'max', not int"),
    "weights with max": (
        {"mode": "max", "per_sample_weights": np.ones(6, "f4")},
        InputError,
        "per_sample_weights: go with modes sum and mean, not with max",
    ),
    "weights short": (
        {"per_sample_weights": np.ones(5, "f4")},
        InputError,
        "per_sample_weights: has shape (5,); indices have (6,), it must be the same",
    ),
    "weights per bag": (
        {"per_sample_weights": np.ones((3, 2), "f4")},
        InputError,
        "per_sample_weights: has shape (3, 2); indices have (6,), it must be the same",
    ),
    "weights list": ({"per_sample_weights": [1.0] * 6}, DTypeError, "per_sample_weights: must be a NumPy array, not l"),
    "weights float64": (
        {"per_sample_weights": np.ones(6)},
        DTypeError,
        "per_sample_weights: has dtype float64; accepted: float32",
    ),
    "weights strided": (
        {"per_sample_weights": np.ones(12, "f4")[::2]},
        InputError,
        "per_sample_weights: must be C-contiguous",
    ),
    "threads 0": ({"threads": 0}, InputError, "threads: is 0; allowed is a whole number from 1 to 1024"),
    "threads -1": ({"threads": -1}, InputError, "threads: is -1; allowed is 1 or more"),
    "threads many": ({"threads": 1025}, InputError, "threads: is 1025; allowed is a whole number from 1 to 1024"),
    "threads float": ({"threads": 2.0}, DTypeError, "threads: must be a whole number, not float"),
    # out
    "out one table's": ({"out": np.zeros((2, 5), "f4")}, InputError, "out: has shape (2, 5); the result has (2, 10)"),
    "out all bags": ({"out": np.zeros((6, 10), "f4")}, InputError, "out: has shape (6, 10); the result has (2, 10)"),
    "out 3-D": ({"out": np.zeros((2, 10, 1), "f4")}, InputError, "out: has shape (2, 10, 1); the result has (2, 10)"),
    "out list": ({"out": [[0.0] * 10] * 2}, DTypeError, "out: must be a NumPy array, not list"),
    "out float64": ({"out": np.zeros((2, 10))}, DTypeError, "out: has dtype float64; accepted: float32, float16"),
    "out int": ({"out": np.zeros((2, 10), "i4")}, DTypeError, "out: has dtype int32; accepted: float32, float16"),
    "out Fortran": ({"out": np.zeros((2, 10), "f4", order="F")}, InputError, "out: must be C-contiguous"),
    "out read-only": ({"out": READ_ONLY}, InputError, "out: is read-only"),
    "out in a table": ({"out": W[2:6].reshape(2, 10)}, InputError, "out: shares memory with tables[0]"),
    "out in the last table": ({"out": V.reshape(2, 10)}, InputError, "out: shares memory with tables[2]"),
}


def call(**changes):
    return BAGS(**{"indices": IDX, "offsets": OFF, **changes})


@pytest.mark.parametrize("name", CALL_ERRORS)
def test_malformed_calls(name):
    changes, kind, message = CALL_ERRORS[name]
    with pytest.raises(kind, match="^" + re.escape(message)) as caught:
        call(**changes)
    assert type(caught.value) is kind
    assert call().shape == (2, 10), "the next call works"


@pytest.mark.parametrize("name", ["indices", "offsets", "per_sample_weights"])
def test_out_must_not_share_memory_with_any_input(name):
    memory = np.zeros(64, np.float32)
    out = memory[:20].reshape(2, 10)
    inputs = {
        "indices": memory[18:30].view(np.int64),
        "offsets": memory[18:32].view(np.int64),
        "per_sample_weights": memory[19:25],
    }
    with pytest.raises(InputError, match=f"^out: shares memory with {name}$"):
        call(**{name: inputs[name]}, out=out)
    assert call(indices=memory[20:32].view(np.int64), out=out) is out, "adjacent memory is not shared"


def test_flags_are_flags():
    for name in ("skip_pruned", "exact"):
        with pytest.raises(DTypeError, match=f"^{name}: must be True or False, not str$"):
            call(**{name: "yes"})


def test_float64_tables_take_float64_weights_and_give_float64():
    wide = hf.EmbeddingBagCollection([W.astype("f8"), W[:, :2].astype("f8")])
    offsets = ints(0, 2, 4)
    out = np.empty((1, 7))
    assert wide(IDX[:4], offsets, out=out) is out
    assert np.array_equal(out, [[*(W[0] + W[7]), *(W[1, :2] + W[3, :2])]])
    with pytest.raises(DTypeError, match=r"^per_sample_weights: has .* float32; accepted: float64, as the table is$"):
        wide(IDX[:4], offsets, per_sample_weights=np.ones(4, "f4"))
    with pytest.raises(DTypeError, match=r"^out: has dtype float32; accepted: float64, as the table is$"):
        wide(IDX[:4], offsets, out=np.zeros((1, 7), "f4"))


def test_no_memory_is_a_memory_error():
    columns = np.empty((0, 2**40), np.float32)
    with pytest.raises(MemoryError):
        hf.EmbeddingBagCollection([columns, columns])(ints(), np.zeros(2**12 + 1, np.int64))


def test_empty_shapes():
    none, no_bags = ints(), ints(0)
    assert call(offsets=no_bags).shape == (0, 10), "indices after the last offset are not read"
    assert call(indices=none, offsets=no_bags).shape == (0, 10)
    assert np.array_equal(call(indices=none, offsets=np.zeros(7, np.int64)), np.zeros((2, 10)))
    hollow = hf.EmbeddingBagCollection([W[:, :0].copy(), W[:0], W])
    assert np.array_equal(hollow(ints(7, 2), ints(0, 1, 1, 2)), np.concatenate([np.zeros(5), W[2]])[None])
    with pytest.raises(IndexRangeError, match=r"^indices\[0\] is 8, outside tables\[0\]'s rows 0 <= index < 8$"):
        hollow(ints(8, 2), ints(0, 1, 1, 2))
    with pytest.raises(IndexRangeError, match=r"^indices\[1\] is 0, outside tables\[1\]'s rows 0 <= index < 0$"):
        hollow(ints(7, 0), ints(0, 1, 2, 2))


def test_a_result_of_float16_that_is_too_small_for_float32_scratch_is_written_whole():
    wide = np.ones((2, 40_000), np.float32)
    out = np.full((3, 80_000), np.nan, np.float16)
    hf.EmbeddingBagCollection([wide, wide])(ints(0, 1, 1), ints(0, 1, 1, 1, 1, 3, 3), out=out)
    assert np.array_equal(out.reshape(3, 2, -1).mean(2), [[1, 0], [0, 2], [0, 0]])
    assert np.isfinite(out).all()


# As an object


def test_what_it_says_of_itself():
    assert repr(BAGS) == "<EmbeddingBagCollection of 3 tables, 10 columns>"
    assert BAGS.dims == (5, 3, 2)
    assert BAGS.tables[0] is W
    assert BAGS.tables[1] is T8
    with pytest.raises(AttributeError):
        BAGS.tables = ()


def test_tables_may_come_from_any_iterable_once():
    bags = hf.EmbeddingBagCollection(table for table in (W, T8))
    for _ in range(2):
        assert bags(ints(7, 3), ints(0, 1, 2)).shape == (1, 8)


def test_arrays_are_used_where_they_lie():
    weight = np.zeros((2, 3), np.float32)
    bags = hf.EmbeddingBagCollection([weight])
    weight[1] = 7
    assert np.array_equal(bags(ints(1), ints(0, 1)), [[7, 7, 7]])


def test_collections_of_arrays_are_copied_and_pickled_and_tables_are_saved_instead():
    arrays = hf.EmbeddingBagCollection([W, V])
    arguments = (IDX[:2], ints(0, 1, 2))
    for again in (copy.copy(arrays), copy.deepcopy(arrays), pickle.loads(pickle.dumps(arrays))):
        assert np.array_equal(again(*arguments), arrays(*arguments))
    with pytest.raises(TypeError, match=r"^an EmbeddingTable is not pickled; save it, and load it where it is needed$"):
        pickle.dumps(BAGS)


# Beside other threads, and interrupted


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_another_thread_may_write_the_integers_meanwhile(dtype):
    rng = np.random.default_rng(1)
    tables = [rng.random((rows, 32), dtype=np.float32) for rows in (1000, 1, 300)]
    bags = hf.EmbeddingBagCollection([tables[0], tables[1], hf.EmbeddingTable.from_array(tables[2], "float16")])
    indices = np.concatenate([rng.integers(0, len(table), 15_000) for table in tables]).astype(dtype)
    offsets = np.linspace(0, 45_000, 601).astype(dtype)

    def spoil() -> None:
        indices[::3] = -1

    def call(threads: int) -> np.ndarray:
        return bags(indices, offsets, mode="max", skip_pruned=threads == 1, threads=threads)

    check_race(indices, offsets, spoil, call, most=1.0)  # a half may be rounded up to it


LONG = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner may have started us with SIGINT ignored
import numpy as np
from hercules_fast import _core
# A fused multiply-add per column in software: minutes.
table = _core.TableRows.encode(np.ones((2, 1024), np.float32), "int8", 1)
indices = np.zeros(20_000_000, np.int32)
offsets = np.arange(0, 20_000_001, 1_000_000)
print("ready", flush=True)
try:
    _core.embedding_bag_collection(
        (table, table), indices, offsets, "sum", None, False, None, {threads}, True, isa="portable"
    )
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_long_call(threads):
    program = [sys.executable, "-c", LONG.format(threads=threads)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        assert child.poll() is None, "the call must be long enough to be interrupted"
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted\n"
        elapsed_s = time.monotonic() - began
    assert elapsed_s < 1.0, f"{elapsed_s:.2f} s from Ctrl-C to the exception"
