"""The other ways to sum bags on a CPU, each over the same rows as ours where it can take them.

A rival that is not installed is left out, and named at the end of the bench.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

# Idle OpenMP threads spin for a while, which slows whoever comes next in the turn. Read when the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import numpy as np
from sls_points import LONG, Point, Rows, fill

import hercules_fast as hf
from hercules_fast.host.limits import paged_memory

_OPERATORS = {"int8": "byte", "int4": "4bit"}
MISSING: set[str] = set()


@dataclass(frozen=True)
class Contender:
    name: str
    call: Callable[[int], object]
    """Sum the bags of one set of lookups, ``[batch, tables * dim]``."""
    values: np.ndarray
    """What its rows mean, ``[pattern rows, dim]``."""
    rounding: float = 0.0
    """Relative error of its result's type."""


def ours(point: Point, rows: Rows, sets: list[np.ndarray]) -> Contender:
    if point.tables > 1:
        collection = hf.EmbeddingBagCollection(rows.tables)
        offsets = np.arange(0, point.lookups + 1, point.pooling)
        return Contender("ours", lambda i: collection(sets[i], offsets, threads=point.threads), rows.values)
    (table,), offsets = rows.tables, np.arange(0, point.lookups, point.pooling)
    bag = hf.embedding_bag
    return Contender("ours", lambda i: bag(table, sets[i], offsets, mode="sum", threads=point.threads), rows.values)


def rivals(point: Point, rows: Rows, sets: list[np.ndarray]) -> list[Contender]:
    """All rivals that can do this point here."""
    found = [made for make in (_torch, _tbe, _numba, _numpy) if (made := make(point, rows, sets)) is not None]
    if (torch := _load("torch")) is not None:
        torch.set_num_threads(point.threads)  # when all are there: starting Numba's threads sets PyTorch's number, too
    return found


def _load(name: str):
    import importlib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (ImportError, OSError):
        MISSING.add(name)
        return None


def _tensor(torch, array: np.ndarray):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows are read-only, which torch cannot express
        return torch.from_numpy(array)


def _torch(point: Point, rows: Rows, sets: list[np.ndarray]) -> Contender | None:
    if (torch := _load("torch")) is None:
        return None
    offsets = _tensor(torch, np.arange(0, point.batch * point.pooling, point.pooling))
    indices = [_tensor(torch, one.reshape(point.tables, -1)) for one in sets]
    if point.dtype in _OPERATORS:
        bag = getattr(torch.ops.quantized, f"embedding_bag_{_OPERATORS[point.dtype]}_rowwise_offsets")
        tables = [_tensor(torch, table.view()) for table in (table._rows for table in rows.tables)]

        def one(t: int, i: int):
            return bag(tables[t], indices[i][t], offsets, False, 0, False, None)
    else:
        bag = torch.nn.functional.embedding_bag
        kind = getattr(torch, LONG[point.dtype])
        raw = [table._rows.view() if isinstance(table, hf.EmbeddingTable) else table for table in rows.tables]
        tables = [_tensor(torch, table).view(kind) for table in raw]

        def one(t: int, i: int):
            return bag(indices[i][t], tables[t], offsets, mode="sum")

    rounding = {"fp16": 2.0**-11, "bf16": 2.0**-8}.get(point.dtype, 0.0)  # its results are of the table's type
    if point.tables == 1:
        flat = [one_set[0] for one_set in indices]
        if point.dtype in _OPERATORS:
            return Contender("torch", lambda i: bag(tables[0], flat[i], offsets, False, 0, False, None), rows.values)
        return Contender("torch", lambda i: bag(flat[i], tables[0], offsets, mode="sum"), rows.values, rounding)

    def each(i: int):
        return torch.cat([one(t, i) for t in range(point.tables)], 1)

    return Contender("torch", each, rows.values, rounding)


def _tbe(point: Point, rows: Rows, sets: list[np.ndarray]) -> Contender | None:
    """FBGEMM's table-batched embeddings. Over floats it takes our rows; quantised ones it wants in its own layout."""
    if point.dtype == "bf16":
        return None
    torch = _load("torch")
    if torch is None or _load("fbgemm_gpu") is None:
        return None
    inference = _load("fbgemm_gpu.split_table_batched_embeddings_ops_inference")
    common = _load("fbgemm_gpu.split_table_batched_embeddings_ops_common")
    types = _load("fbgemm_gpu.split_embedding_configs").SparseType
    kind = {"fp32": types.FP32, "fp16": types.FP16, "int8": types.INT8, "int4": types.INT4}[point.dtype]
    bags = inference.IntNBitTableBatchedEmbeddingBagsCodegen(
        [("", point.rows, point.dim, kind, common.EmbeddingLocation.HOST)] * point.tables,
        device="cpu",
        output_dtype=types.FP32,
        bounds_check_mode=common.BoundsCheckMode.NONE,
    )
    # What `initialize_weights` does, without memory of its own: the rows are ours.
    bags.weight_initialized = True
    bags.initialize_logical_weights_placements_and_offsets()
    first, values = _tbe_rows(rows)
    bags.weights_host = _tensor(torch, first)
    offsets = _tensor(torch, np.arange(0, point.lookups + 1, point.pooling))
    indices = [_tensor(torch, one) for one in sets]
    return Contender("fbgemm", lambda i: bags(indices[i], offsets), values)


_TBE_ROWS: dict[str, object] = {}


def forget() -> None:
    """Let go of rows that were made for a rival."""
    _TBE_ROWS.clear()


def _tbe_rows(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of all tables on 2 MiB pages in FBGEMM's layout, each from a multiple of 128 on, and what they mean."""
    if _TBE_ROWS.get("rows") is not rows:
        _TBE_ROWS.clear()
        quantised = rows.key[0] in _OPERATORS
        if rows.count == 1 and not quantised:
            made = rows.raw().reshape(-1), rows.values
        else:
            pattern, values = rows.pattern._rows.view().view(np.uint8), rows.values
            if quantised:
                pattern = rows.pattern.to_fused("first")
                values = hf.EmbeddingTable.from_fused(pattern, rows.key[0], layout="first").dequantize()
            table_bytes = -(-rows.rows * pattern.shape[1] // 128) * 128
            memory = paged_memory(rows.count * table_bytes, "2 MiB")
            for t in range(rows.count):
                table = memory[t * table_bytes : t * table_bytes + rows.rows * pattern.shape[1]]
                fill(table.reshape(rows.rows, -1), pattern)
            made = memory, values
        _TBE_ROWS.update(rows=rows, made=made)
    return _TBE_ROWS["made"]


@cache
def _numba_kernels(parallel: bool) -> tuple:
    from numba import njit, prange

    @njit(parallel=parallel)
    def floats(weight, indices, pooling, out):
        for b in prange(out.shape[0]):
            for c in range(out.shape[1]):
                out[b, c] = 0.0
            for j in range(b * pooling, (b + 1) * pooling):
                row = indices[j]
                for c in range(out.shape[1]):
                    out[b, c] += weight[row, c]

    @njit(parallel=parallel)
    def bytes_(codes, params, indices, pooling, out):
        last = params.shape[1] - 2
        for b in prange(out.shape[0]):
            for c in range(out.shape[1]):
                out[b, c] = 0.0
            for j in range(b * pooling, (b + 1) * pooling):
                row = indices[j]
                scale, bias = params[row, last], params[row, last + 1]
                for c in range(out.shape[1]):
                    out[b, c] += scale * np.float32(codes[row, c]) + bias

    return floats, bytes_


def _numba(point: Point, rows: Rows, sets: list[np.ndarray]) -> Contender | None:
    """A loop that a Python user would write. Numba has no 16-bit floats on CPUs."""
    if point.dtype not in ("fp32", "int8") or point.tables > 1 or (numba := _load("numba")) is None:
        return None
    numba.set_num_threads(point.threads)
    floats, bytes_ = _numba_kernels(point.threads > 1)
    raw = rows.raw()
    numbers = raw.view(np.float32)

    def call(i: int) -> np.ndarray:
        out = np.empty((point.batch, point.dim), np.float32)
        if point.dtype == "fp32":
            floats(numbers, sets[i], point.pooling, out)
        else:
            bytes_(raw, numbers, sets[i], point.pooling, out)
        return out

    return Contender("numba", call, rows.values)


def _numpy(point: Point, rows: Rows, sets: list[np.ndarray]) -> Contender | None:
    if point.dtype not in ("fp32", "fp16") or point.tables > 1:
        return None
    weight, offsets = rows.raw().view(LONG[point.dtype]), np.arange(0, point.lookups, point.pooling)

    def call(i: int) -> np.ndarray:
        return np.add.reduceat(weight[sets[i]], offsets, axis=0, dtype=np.float32)

    return Contender("numpy", call, rows.values)
