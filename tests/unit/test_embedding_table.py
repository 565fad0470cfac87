"""EmbeddingTable: memory, files, errors."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import ConfigError, DTypeError, InputError, MissingFileError, OutputError, SizeError

DTYPES = ["float32", "float16", "bfloat16", "int8", "int4", "int2"]
ROW_BYTES = {"float32": 20, "float16": 10, "bfloat16": 10, "int8": 13, "int4": 7, "int2": 6}
W = np.linspace(-1, 2, 40, dtype=np.float32).reshape(8, 5)
T8 = hf.EmbeddingTable.from_array(W, "int8")
FUSED8 = T8.to_fused()
IDX, OFF = np.array([0, 1, 2, 3]), np.array([0, 2])


def with_value(row, column, value):
    changed = W.copy()
    changed[row, column] = value
    return changed


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_table_says_what_it_is(dtype):
    table = hf.EmbeddingTable.from_array(W, dtype)
    assert (table.rows, table.dim, table.shape, len(table)) == (8, 5, (8, 5), 8)
    assert (table.dtype, table.row_bytes, table.nbytes) == (dtype, ROW_BYTES[dtype], 8 * ROW_BYTES[dtype])
    assert not table.mapped
    assert table.huge_page_share == 0.0, "a small table stays on small pages"
    assert repr(table) == f"<EmbeddingTable {dtype} 8 x 5, {table.nbytes} bytes>"
    # Half a step of the row's range, a little more for the rounding of scale and bias, or the roundoff of 8 bits.
    allowed = {"int8": 0.51 / 255, "int4": 0.51 / 15, "int2": 0.51 / 3}
    allowed = allowed[dtype] * np.ptp(W, axis=1).max() + 0.001 if dtype in allowed else 2.0**-9 * np.abs(W).max()
    assert np.abs(table.dequantize() - W).max() <= allowed


def test_a_table_does_not_see_later_changes_of_its_array():
    array = W.copy()
    table = hf.EmbeddingTable.from_array(array)
    array[:] = 7
    assert np.array_equal(table.dequantize(), W)


def test_no_rows():
    for dtype in DTYPES:
        table = hf.EmbeddingTable.from_array(W[:0], dtype)
        assert table.dequantize().shape == (0, 5)
        assert np.array_equal(hf.embedding_bag(table, IDX[:0], np.array([0, 0])), np.zeros((2, 5), "f4"))
        with pytest.raises(IndexError, match="indices\\[0\\] is 0, outside the table's rows 0 <= index < 0"):
            hf.embedding_bag(table, IDX, OFF)


def test_special_floats_are_kept():
    array = np.array([[np.nan, np.inf, -np.inf, -0.0, 2.0**-149]], np.float32)
    table = hf.EmbeddingTable.from_array(array)
    assert table.dequantize().tobytes() == array.tobytes()
    for dtype in ("float16", "bfloat16"):
        values = hf.EmbeddingTable.from_array(array[:, :4], dtype).dequantize()
        assert np.isnan(values[0, 0])
        assert values[0, 1:].tobytes() == array[0, 1:4].tobytes()


def test_rows_on_huge_pages_are_counted():
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    granted = setting.exists() and "[never]" not in setting.read_text()
    tables = [hf.EmbeddingTable.from_array(np.ones((70_000, 32), np.float32)) for _ in range(3)]
    for table in tables:
        assert table._rows.view().ctypes.data % (2 << 20) == 0
        assert 0.0 <= table.huge_page_share <= 1.0
    if not granted or all(table.huge_page_share == 0.0 for table in tables):
        pytest.skip("the system grants no huge pages now")
    assert max(table.huge_page_share for table in tables) > 0.4


def test_memory_is_given_back():
    script = (
        "import resource, numpy as np, hercules_fast as hf\n"
        "array = np.ones((50_000, 64), np.float32)\n"
        "for _ in range(5): hf.EmbeddingTable.from_array(array)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for _ in range(60): hf.EmbeddingTable.from_array(array)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 30_000, "60 tables of 12.8 MB would take 768 MB"


def test_the_view_of_the_rows_is_read_only_and_keeps_them_alive():
    table = hf.EmbeddingTable.from_array(W)
    view = table._rows.view()
    del table
    assert view.view(np.float32).tobytes() == W.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True


def test_a_table_has_one_way_in_and_no_pickle():
    with pytest.raises(TypeError, match=r"^an EmbeddingTable is made by from_array, from_fused or load$"):
        hf.EmbeddingTable()
    for trick in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match=r"^an EmbeddingTable is not pickled; save it"):
            trick(T8)


ARRAY_ERRORS = {
    "list": ([[1.0]], "int8", DTypeError, "array: must be a NumPy array, not list"),
    "float64": (W.astype("f8"), "int8", DTypeError, "array: has dtype float64; accepted: float32, float16"),
    "integers": (W.astype("i4"), "int8", DTypeError, "array: has dtype int32; accepted: float32, float16"),
    "swapped": (W.astype(">f4"), "int8", DTypeError, "array: has dtype >f4 in foreign byte order"),
    "0-D": (np.array(1, "f4"), "int8", InputError, "array: must be 2-D (rows, columns), not of shape ()"),
    "1-D": (W[0], "int8", InputError, "array: must be 2-D (rows, columns), not of shape (5,)"),
    "3-D": (W[None], "int8", InputError, "array: must be 2-D (rows, columns), not of shape (1, 8, 5)"),
    "strided": (W[:, ::2], "int8", InputError, "array: must be C-contiguous; pass np.ascontiguousarray"),
    "Fortran": (np.asfortranarray(W), "int8", InputError, "array: must be C-contiguous"),
    "no columns": (W[:, :0].copy(), "int8", InputError, "array: has no columns; a table has at least one"),
    "dtype unknown": (
        W,
        "int16",
        InputError,
        'dtype: is "int16"; allowed are float32, float16, bfloat16, int8, int4, ',
    ),
    "dtype float64": (W, "float64", InputError, 'dtype: is "float64"; allowed are float32'),
    "dtype a type": (W, np.float16, DTypeError, "dtype: must be a name (str), not type"),
    "dtype None": (W, None, DTypeError, "dtype: must be a name (str), not NoneType"),
    "NaN int8": (with_value(3, 1, np.nan), "int8", InputError, "array[3, 1]: is NaN; rows of int8 hold finite values"),
    "inf int4": (with_value(7, 4, np.inf), "int4", InputError, "array[7, 4]: is inf; rows of int4 hold finite values"),
    "-inf int2": (with_value(0, 0, -np.inf), "int2", InputError, "array[0, 0]: is -inf; rows of int2 hold finite"),
    "beyond float16": (with_value(2, 3, 7e4), "float16", InputError, "array[2, 3]: is 7e4, beyond the largest float16"),
    "beyond bfloat16": (
        with_value(2, 3, 3.4e38),
        "bfloat16",
        InputError,
        "array[2, 3]: is 3.4e38, beyond the largest bfloat16",
    ),
    "bias int4": (with_value(5, 0, -1e5), "int4", InputError, "array[5]: holds values from -1e5 to "),
    "range int8": (
        with_value(1, 0, 3e38) - with_value(1, 1, 3e38),
        "int8",
        InputError,
        "array[1]: holds values from -3e38 to 3e38, a range beyond float32",
    ),
}


@pytest.mark.parametrize("name", ARRAY_ERRORS)
def test_malformed_from_array(name):
    array, dtype, kind, message = ARRAY_ERRORS[name]
    with pytest.raises(kind, match=r"^" + re.escape(message)) as caught:
        hf.EmbeddingTable.from_array(array, dtype)
    assert type(caught.value) is kind


def test_threads_of_from_array_are_checked():
    with pytest.raises(InputError, match=r"^threads: is 0; allowed is a whole number from 1 to 1024"):
        hf.EmbeddingTable.from_array(W, threads=0)
    with pytest.raises(DTypeError, match=r"^threads: must be a whole number, not str"):
        hf.EmbeddingTable.from_array(W, threads="2")


FUSED_ERRORS = {
    "list": ({"array": [[1, 2]]}, DTypeError, "array: must be a NumPy array, not list"),
    "int8 array": ({"array": FUSED8.view("i1")}, DTypeError, "array: has dtype int8; accepted: uint8"),
    "float array": ({"array": W}, DTypeError, "array: has dtype float32; accepted: uint8"),
    "1-D": ({"array": FUSED8[0]}, InputError, "array: must be 2-D (rows, columns), not of shape (13,)"),
    "strided": ({"array": FUSED8[::2]}, InputError, "array: must be C-contiguous"),
    "no codes": (
        {"array": FUSED8[:, :8].copy()},
        InputError,
        "array: has rows of 8 bytes; int8 rows of layout last have 8 and at least one of codes",
    ),
    "no codes first": (
        {"array": FUSED8[:, :3].copy(), "layout": "first", "dtype": "int4"},
        InputError,
        "array: has rows of 3 bytes; int4 rows of layout first have 4 and at least one of codes",
    ),
    "float dtype": ({"dtype": "float16"}, InputError, "dtype: float16 has no fused rows; allowed are int8, int4, int2"),
    "unknown dtype": ({"dtype": "fp8"}, InputError, 'dtype: is "fp8"; allowed are float32'),
    "layout unknown": ({"layout": "middle"}, InputError, 'layout: is "middle"; allowed are last, first'),
    "layout number": ({"layout": 1}, DTypeError, "layout: must be a name (str), not int"),
    "dim small": ({"dim": 4}, InputError, "dim: is 4; rows of 13 bytes hold 5 to 5 columns"),
    "dim large": ({"dim": 6}, InputError, "dim: is 6; rows of 13 bytes hold 5 to 5 columns"),
    "dim zero": ({"dtype": "int2", "dim": 0}, InputError, "dim: is 0; rows of 13 bytes hold 33 to 36 columns"),
    "dim negative": ({"dim": -1}, InputError, "dim: is -1; rows of 13 bytes hold 5 to 5 columns"),
    "dim float": ({"dim": 5.0}, DTypeError, "dim: must be a whole number, not float"),
}


@pytest.mark.parametrize("name", FUSED_ERRORS)
def test_malformed_from_fused(name):
    changes, kind, message = FUSED_ERRORS[name]
    with pytest.raises(kind, match=r"^" + re.escape(message)) as caught:
        hf.EmbeddingTable.from_fused(**{"array": FUSED8, "dtype": "int8", **changes})
    assert type(caught.value) is kind


def test_malformed_to_fused():
    with pytest.raises(
        InputError, match=r"^dtype: float32 has no fused rows; only tables of int8, int4 and int2 have$"
    ):
        hf.EmbeddingTable.from_array(W).to_fused()
    with pytest.raises(InputError, match=r'^layout: is "up"; allowed are last, first$'):
        T8.to_fused("up")
    with pytest.raises(DTypeError, match=r"^layout: must be a name"):
        T8.to_fused(None)
    large = hf.EmbeddingTable.from_array(np.full((3, 2), 1e30, np.float32), "int8")
    with pytest.raises(InputError, match=r'^row 0: has bias 1e30, beyond float16, which layout "first" needs$'):
        large.to_fused("first")


BAG_ERRORS = {
    "index": ({"indices": np.array([0, 8])}, IndexError, "indices[1] is 8, outside the table's rows 0 <= index < 8"),
    "negative": ({"indices": np.array([0, -1])}, IndexError, "indices[1] is -1, outside the table's rows"),
    "out float64": ({"out": np.zeros((2, 5))}, DTypeError, "out: has dtype float64; accepted: float32, float16"),
    "out int8": ({"out": np.zeros((2, 5), "i1")}, DTypeError, "out: has dtype int8; accepted: float32, float16"),
    "out shape": ({"out": np.zeros((2, 4), "f2")}, InputError, "out: has shape (2, 4); the result has (2, 5)"),
    "weights float64": (
        {"per_sample_weights": np.ones(4)},
        DTypeError,
        "per_sample_weights: has dtype float64; accepted: float32",
    ),
    "weights float16": (
        {"per_sample_weights": np.ones(4, "f2")},
        DTypeError,
        "per_sample_weights: has dtype float16; accepted: float32",
    ),
    "weights with max": (
        {"mode": "max", "per_sample_weights": np.ones(4, "f4")},
        InputError,
        "per_sample_weights: go with modes sum and mean, not with max",
    ),
    "padding": ({"padding_idx": 8}, InputError, "padding_idx: is 8; allowed is -8 <= padding_idx < 8"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BAG_ERRORS)
def test_malformed_calls_over_a_table(name, dtype):
    changes, kind, message = BAG_ERRORS[name]
    table = hf.EmbeddingTable.from_array(W, dtype)
    with pytest.raises(kind, match=r"^" + re.escape(message)):
        hf.embedding_bag(table, **{"indices": IDX, "offsets": OFF, **changes})
    assert hf.embedding_bag(table, IDX, OFF).shape == (2, 5), "the next call works"


def test_float64_needs_float64_weights_and_out():
    wide = W.astype("f8")
    assert hf.embedding_bag(wide, IDX, OFF).dtype == np.float64
    with pytest.raises(DTypeError, match=r"^per_sample_weights: has .* float32; accepted: float64, as the table is$"):
        hf.embedding_bag(wide, IDX, OFF, per_sample_weights=np.ones(4, "f4"))
    for kind in ("f4", "f2"):
        with pytest.raises(DTypeError, match=r"^out: has dtype float.*; accepted: float64, as the table is$"):
            hf.embedding_bag(wide, IDX, OFF, out=np.zeros((2, 5), kind))


def test_exact_is_a_flag():
    with pytest.raises(TypeError, match="exact"):
        hf.embedding_bag(T8, IDX, OFF, exact="yes")
    assert np.array_equal(hf.embedding_bag(W, IDX, OFF, exact=True), hf.embedding_bag(W, IDX, OFF))


# Files


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_saved_table_comes_back(tmp_path, dtype, mapped):
    table = hf.EmbeddingTable.from_array(W, dtype)
    path = tmp_path / "table.hft"
    table.save(path)
    assert path.stat().st_size == 4096 + table.nbytes
    again = hf.EmbeddingTable.load(path, mapped=mapped)
    assert (again.shape, again.dtype, again.mapped) == (table.shape, dtype, mapped)
    assert again._rows.view().tobytes() == table._rows.view().tobytes()
    path.unlink()
    assert np.array_equal(again.dequantize(), table.dequantize()), "the rows outlive the name of their file"
    assert np.array_equal(hf.embedding_bag(again, IDX, OFF), hf.embedding_bag(table, IDX, OFF))
    if mapped:
        assert again.huge_page_share == 0.0


@pytest.mark.parametrize("mapped", [False, True])
def test_a_saved_table_without_rows_comes_back(tmp_path, mapped):
    hf.EmbeddingTable.from_array(W[:0], "int4").save(tmp_path / "none")
    assert hf.EmbeddingTable.load(tmp_path / "none", mapped=mapped).shape == (0, 5)


def test_a_file_is_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        T8.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    header = (tmp_path / "a").read_bytes()[:4096]
    assert header.startswith(b'HFTABLE\n{"schema": "hercules_fast.embedding_table/1", "dtype": "int8", "rows": 8, ')
    assert header.endswith(b"   ")


GOOD = {"schema": "hercules_fast.embedding_table/1", "dtype": "int8", "rows": 8, "dim": 5, "row_bytes": 13}
HEADER_ERRORS = {
    "schema": ({**GOOD, "schema": "other/1"}, "schema: must be 'hercules_fast.embedding_table/1'"),
    "a list": ([1], "schema: must be"),
    "deep": ("[" * 4000, "schema: must be"),
    "no JSON": ("rows = 8", "schema: must be"),
    "dtype": ({**GOOD, "dtype": "int3"}, "dtype: is 'int3'; allowed are float32, float16, bfloat16, int8, int4, int2"),
    "dtype a list": ({**GOOD, "dtype": []}, r"dtype: is \[\]; allowed are"),
    "dtype missing": ({"schema": GOOD["schema"], "rows": 8, "dim": 5, "row_bytes": 13}, "dtype: is None; allowed"),
    "rows negative": ({**GOOD, "rows": -1}, "rows: is -1; allowed is a whole number from 0 on"),
    "rows float": ({**GOOD, "rows": 8.0}, "rows: is 8.0; allowed is a whole number from 0 on"),
    "rows true": ({**GOOD, "rows": True}, "rows: is True; allowed is a whole number from 0 on"),
    "rows huge": ({**GOOD, "rows": 10**30}, "rows: is 1000000000000000000000000000000; allowed"),
    "rows many": ({**GOOD, "rows": 2**61}, "has 4200 bytes; its header promises 29975"),
    "dim zero": ({**GOOD, "dim": 0}, "dim: is 0; allowed is a whole number from 1 on"),
    "row_bytes": ({**GOOD, "row_bytes": 12}, "row_bytes: is 12; rows of 5 columns have 13"),
    "too few rows": ({**GOOD, "rows": 7}, "has 4200 bytes; its header promises 4187"),
    "too many rows": ({**GOOD, "rows": 9}, "has 4200 bytes; its header promises 4213"),
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", HEADER_ERRORS)
def test_malformed_headers(tmp_path, name, mapped):
    header, message = HEADER_ERRORS[name]
    text = header if isinstance(header, str) else json.dumps(header)
    path = tmp_path / "table"
    path.write_bytes((b"HFTABLE\n" + text.encode()).ljust(4096) + FUSED8.tobytes())
    with pytest.raises(ConfigError, match=message):
        hf.EmbeddingTable.load(path, mapped=mapped)


def test_malformed_files(tmp_path):
    path = tmp_path / "table"
    T8.save(path)
    whole = path.read_bytes()
    for content, message in [
        (b"", "is not a table that EmbeddingTable.save wrote"),
        (whole[:4095], "is not a table that"),
        (b"PK" + whole[2:], "is not a table that"),
        (whole[:-1], "has 4199 bytes; its header promises 4200"),
        (whole + b"\0", "has 4201 bytes; its header promises 4200"),
    ]:
        path.write_bytes(content)
        for mapped in (False, True):
            with pytest.raises(ConfigError, match=message):
                hf.EmbeddingTable.load(path, mapped=mapped)
    with pytest.raises(MissingFileError, match=r"^cannot read .*nowhere: No such file"):
        hf.EmbeddingTable.load(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match=r"Is a directory"):
        hf.EmbeddingTable.load(tmp_path)
    with pytest.raises(OutputError, match=r"^cannot write .*"):
        T8.save(tmp_path / "nowhere" / "table")


def test_the_core_checks_the_length_of_a_file_itself(tmp_path):
    path = tmp_path / "table"
    T8.save(path)
    with path.open("rb") as file:
        for mapped in (False, True):
            with pytest.raises(InputError, match=r"^path: has 4200 bytes; its header promises 4213$"):
                _core.TableRows.from_file(file.fileno(), 4096, "int8", 9, 5, mapped)
            with pytest.raises(SizeError, match=r"^path: 4611686018427387904 rows of 5 int8 values exceed"):
                _core.TableRows.from_file(file.fileno(), 4096, "int8", 2**62, 5, mapped)
        os.fstat(file.fileno())  # still open: the descriptor was only borrowed
