"""Embedding bag over float32 arrays and over tables of every format: ours, PyTorch's, and what a bare gather reaches.

    pytest benches/bench_sls.py --benchmark-enable -s

Contenders take turns on the same table and the same lookups, and medians are compared. The limit is
``_core.gather_limit``: the same rows in the same order with the same prefetches, one byte read per cache line and
nothing summed. It is a measurement too, so on a shared machine ours may come out above it by its noise. Each answer is
checked before it is timed. With benchmarks disabled only the check runs.
"""

from __future__ import annotations

import itertools
import statistics
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core

ROUNDS = 41
# Every call gets lookups of its own, and they come round again only after this many bytes of rows: else a table in
# memory would be served from the cache, by grace of the contender before.
BYTES_BETWEEN_REPEATS = 1 << 28


@dataclass(frozen=True)
class Case:
    name: str
    rows: int
    dim: int
    lookups_per_bag: int
    bags: int
    dtype: str = "float32"

    @property
    def useful_bytes(self) -> int:
        params = {"int8": 8, "int4": 4, "int2": 4}.get(self.dtype, 0)
        bits = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4, "int2": 2}[self.dtype]
        return self.bags * self.lookups_per_bag * (self.dim * bits // 8 + params)


CASES = [
    Case("memory, 64 B rows", 10_000_000, 16, 80, 1024),
    Case("memory, 128 B rows", 10_000_000, 32, 80, 1024),
    Case("memory, 256 B rows", 6_000_000, 64, 80, 512),
    Case("memory, 512 B rows", 3_000_000, 128, 80, 256),
    Case("memory, 1 KiB rows", 1_500_000, 256, 40, 256),
    Case("memory, one bag", 6_000_000, 64, 80, 1),
    Case("memory, batch of 16", 6_000_000, 64, 20, 16),
    Case("memory, one lookup per bag", 6_000_000, 64, 1, 20_000),
    Case("in cache, 64 B rows", 1_000, 16, 80, 256),
    Case("in cache, 256 B rows", 1_000, 64, 80, 256),
    Case("in cache, one lookup per bag", 1_000, 64, 1, 20_000),
    Case("in cache, 4 KiB rows", 100, 1024, 80, 32),
]

TABLES = [
    Case("memory, float16 64 B rows", 8_000_000, 32, 80, 1024, "float16"),
    Case("memory, float16 128 B rows", 4_000_000, 64, 80, 1024, "float16"),
    Case("memory, bfloat16 128 B rows", 4_000_000, 64, 80, 1024, "bfloat16"),
    Case("memory, int8 72 B rows", 7_000_000, 64, 80, 1024, "int8"),
    Case("memory, int8 136 B rows", 4_000_000, 128, 80, 1024, "int8"),
    Case("memory, int4 36 B rows", 12_000_000, 64, 80, 1024, "int4"),
    Case("memory, int4 68 B rows", 7_000_000, 128, 80, 1024, "int4"),
    Case("memory, int2 36 B rows", 12_000_000, 128, 80, 1024, "int2"),
    Case("memory, int8 one bag", 7_000_000, 64, 80, 1, "int8"),
    Case("memory, int4 batch of 16", 7_000_000, 128, 20, 16, "int4"),
    Case("in cache, float16 128 B rows", 1_000, 64, 80, 256, "float16"),
    Case("in cache, bfloat16 128 B rows", 1_000, 64, 80, 256, "bfloat16"),
    Case("in cache, int8 72 B rows", 1_000, 64, 80, 256, "int8"),
    Case("in cache, int4 68 B rows", 1_000, 128, 80, 256, "int4"),
    Case("in cache, int2 36 B rows", 1_000, 128, 80, 256, "int2"),
]
PATTERN = 1 << 16
"""Different rows in a table of a format of its own; it repeats them."""
RIVALS = {"int8": "byte", "int4": "4bit", "int2": "2bit"}


@pytest.fixture(scope="module", autouse=True)
def _release_build() -> None:
    if _core.build_info()["profile"] != "release":
        pytest.exit("this extension is a debug build; times would mean nothing: build with --release", returncode=2)


def lookups(case: Case) -> tuple[list[np.ndarray], np.ndarray]:
    """Sets of lookups, to be taken in turn, and the offsets that go with each."""
    n = case.bags * case.lookups_per_bag
    sets = np.random.default_rng(7).integers(0, case.rows, (max(4, BYTES_BETWEEN_REPEATS // case.useful_bytes), n))
    return list(sets), np.arange(0, n, case.lookups_per_bag)


def table(case: Case) -> np.ndarray:
    """Rows on cache-line borders, as PyTorch allocates them, filled block by block."""
    values = np.empty(case.rows * case.dim + 16, np.float32)
    skip = -(values.ctypes.data // 4) % 16
    weight = values[skip : skip + case.rows * case.dim].reshape(case.rows, case.dim)
    for start in range(0, case.rows, 1 << 20):
        part = weight[start : start + (1 << 20)]
        part[:] = (np.arange(start, start + len(part)) % 1021)[:, None]
        part += np.arange(case.dim, dtype=np.float32) / 64
    return weight


def interleaved_medians(contenders: dict, sets: int, rounds: int) -> dict[str, float]:
    """Median seconds of each contender, taking turns, each call on the next set; a float given is its own time."""
    times = {name: [] for name in contenders}
    next_set = itertools.cycle(range(sets))
    for turn in range(rounds + 2):
        for name, call in contenders.items():
            i = next(next_set)
            start = time.perf_counter()
            own = call(i)
            elapsed = time.perf_counter() - start
            if turn >= 2:  # the first two turns warm up
                times[name].append(own if isinstance(own, float) else elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def report(benchmark, case: Case, threads: int, contenders: dict, weight, sets: list[np.ndarray]) -> None:
    """Time the contenders and a bare gather in turns, print one line, keep the figures."""
    small = case.useful_bytes < 1 << 20
    gather = {"gather": lambda i: case.useful_bytes / 1e9 / _core.gather_limit(weight, sets[i], threads)}
    medians = interleaved_medians(contenders | gather, len(sets), ROUNDS * (20 if small else 1))
    limit = case.useful_bytes / medians["gather"] / 1e9
    reached = case.useful_bytes / medians["ours"] / 1e9
    rivals = [f"{name}/ours {medians[name] / medians['ours']:5.2f}" for name in contenders if name != "ours"]
    print(
        f"\n{case.name:<30} threads {threads}: ours {medians['ours'] * 1e6:9.1f} us, {reached:6.1f} GB/s; "
        f"{'; '.join(rivals) or 'torch is not installed'}; "
        f"gather limit {limit:6.1f} GB/s, ours/limit {reached / limit:4.2f}"
    )
    benchmark.extra_info.update(medians_s=medians, gather_limit_gb_s=limit, useful_gb_s=reached, threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_embedding_bag(benchmark, case, threads):
    if benchmark.disabled:
        case = Case(case.name, min(case.rows, 10_000), case.dim, case.lookups_per_bag, 32)
    weight = table(case)
    sets, offsets = lookups(case)
    contenders = {"ours": lambda i: hf.embedding_bag(weight, sets[i], offsets, mode="sum", threads=threads)}
    rows = weight[sets[0]].reshape(case.bags, case.lookups_per_bag, case.dim)
    right = rows.sum(1, dtype=np.float64)
    np.testing.assert_allclose(contenders["ours"](0), right, rtol=1e-5)
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None:
        torch.set_num_threads(threads)
        tensors = [torch.from_numpy(indices) for indices in sets]
        their_weight, their_offsets = torch.from_numpy(weight), torch.from_numpy(offsets)
        contenders["torch"] = lambda i: torch.nn.functional.embedding_bag(
            tensors[i], their_weight, their_offsets, mode="sum"
        )
        np.testing.assert_allclose(contenders["torch"](0).numpy(), right, rtol=1e-5)
    if not benchmark.disabled:
        report(benchmark, case, threads, contenders, weight, sets)
    benchmark(contenders["ours"], 0)


def own_table(case: Case) -> tuple[hf.EmbeddingTable, np.ndarray]:
    """A table of the case's format, and the values of its first rows, which the others repeat."""
    pattern = np.random.default_rng(3).standard_normal((min(PATTERN, case.rows), case.dim), dtype=np.float32)
    first = hf.EmbeddingTable.from_array(pattern, case.dtype)
    times = -(-case.rows // first.rows)
    if case.dtype in RIVALS:
        rows = np.tile(first.to_fused(), (times, 1))[: case.rows]
        return hf.EmbeddingTable.from_fused(rows, case.dtype), first.dequantize()
    rows = np.tile(pattern.astype(np.float16 if case.dtype == "float16" else np.float32), (times, 1))[: case.rows]
    return hf.EmbeddingTable.from_array(rows, case.dtype), first.dequantize()


def torch_call(torch, case: Case, table: hf.EmbeddingTable, sets: list[np.ndarray], offsets: np.ndarray):
    """PyTorch's operator for the format, over the same memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the memory is read-only, which torch cannot express
        rows = torch.from_numpy(table._rows.view())
        tensors, starts = [torch.from_numpy(indices) for indices in sets], torch.from_numpy(offsets)
    if case.dtype in RIVALS:
        bag = getattr(torch.ops.quantized, f"embedding_bag_{RIVALS[case.dtype]}_rowwise_offsets")
        return lambda i: bag(rows, tensors[i], starts, False, 0, False, None)
    weight = rows.view(getattr(torch, case.dtype))
    return lambda i: torch.nn.functional.embedding_bag(tensors[i], weight, starts, mode="sum")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.name)
def test_tables(benchmark, case, threads):
    if benchmark.disabled:
        case = Case(case.name, min(case.rows, 100_000), case.dim, case.lookups_per_bag, 32, case.dtype)
    table, values = own_table(case)
    sets, offsets = lookups(case)
    contenders = {"ours": lambda i: hf.embedding_bag(table, sets[i], offsets, mode="sum", threads=threads)}
    rows = values[sets[0] % len(values)].reshape(case.bags, case.lookups_per_bag, case.dim)
    right, size = rows.sum(1, dtype=np.float64), np.abs(rows).sum(1, dtype=np.float64).max()
    # Codes are summed apart from the bias, which is the least value and so several times the values' size.
    np.testing.assert_allclose(contenders["ours"](0), right, rtol=0, atol=1e-5 * size)
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None:
        torch.set_num_threads(threads)
        contenders["torch"] = torch_call(torch, case, table, sets, offsets)
        # PyTorch's results over narrow floats are as narrow: one rounding, of 8 bits for bfloat16.
        rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(case.dtype, 0.0)
        np.testing.assert_allclose(contenders["torch"](0).float().numpy(), right, rtol=rounding, atol=1e-5 * size)
    if not benchmark.disabled:
        report(benchmark, case, threads, contenders, table._rows, sets)
    benchmark(contenders["ours"], 0)
