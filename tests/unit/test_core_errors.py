"""Malformed arguments of the core: each is refused by a named error, and none ends or hangs the process."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import DTypeError, IndexRangeError, InputError, SizeError

REFUSALS = (InputError, IndexRangeError, DTypeError, SizeError, TypeError, OverflowError, MemoryError)


def grid(seconds: float = 0.001, energy_j: float = 1.0) -> _core.ServiceGrid:
    one = np.array([1])
    return _core.ServiceGrid(one, one, np.full((1, 1, 1, 1), seconds), np.full((1, 1, 1), energy_j), ["sub_batch"], [0])


def traffic(arrivals: str = "poisson", params: tuple[float, ...] = ()) -> _core.Traffic:
    return _core.Traffic(arrivals, params, np.array([1.0]), 0)


CONFIG = np.array([0, 1, 1, 0, 2])


def dram_parts() -> tuple[dict[str, int], dict[str, int], float, dict[str, float]]:
    standard = hf.memory.standard("DDR4-2400R")
    assert standard.currents is not None
    return asdict(standard.organisation), asdict(standard.timing), standard.tck_ns, asdict(standard.currents)


TRACE = np.array([0.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        # The bound of the load became infinite, and the search for it ran for ever.
        (lambda: grid(seconds=5e-324), r"seconds\[0\].*allowed are 1e-12 to 1e9"),
        (lambda: grid(seconds=1e308), r"seconds\[0\]"),
        (lambda: grid(energy_j=1e308), r"energy_j\[0\]"),
        # Times of 0 * infinity: percentiles were NaN.
        (lambda: _core.simulate(grid(), traffic(), CONFIG, 1e-320, 10, 0, [0.5]), "qps: is .*allowed are 1e-12"),
        (lambda: _core.simulate(grid(), traffic(), CONFIG, 1e308, 10, 0, [0.5]), "qps: is .*to 1e15"),
        (lambda: traffic("hyperexponential", (0.5, 0.5, 5e-324, 2.0)), r"arrivals_params\[2\]"),
        (lambda: traffic("replay", (1e308, 1e308)), r"arrivals_params\[0\]"),
        (
            lambda: _core.ServiceGrid(
                np.array([1]),
                np.array([1]),
                np.broadcast_to(1.0, (2**50, 1, 1, 1)),
                np.broadcast_to(1.0, (2**50, 1, 1)),
                ["query"],
                [0],
            ),
            r"seconds: has 1125899906842624 entries",
        ),
        # Two thousand million sub-batches were made before anybody asked how many.
        (lambda: _core.simulate_trace(grid(), CONFIG, TRACE, np.array([2**31])), r"sizes\[0\]: is 2147483648"),
        (lambda: _core.simulate_trace(grid(), CONFIG, np.array([1e300]), np.array([1])), r"arrival_s\[0\]"),
    ],
)
def test_numbers_that_arithmetic_does_not_survive_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


ODD: list[Any] = [
    *(
        None,
        "x",
        b"y",
        [],
        {},
        float("nan"),
        float("inf"),
        -1,
        0,
        2**31,
        2**63,
        2**70,
        -(2**70),
        1e-320,
        3.5,
        range(2**60),
    ),
    *(np.array([]), np.zeros((0, 3)), np.zeros((2, 2), "O"), np.ones(3, bool), np.ones((2, 3))[:, ::2]),
    *(np.array([-1, 2**62]), np.array([np.nan]), np.zeros((2**40, 0), np.float32), np.arange(3, dtype=">i8")),
    # More entries than any memory holds, in no memory at all.
    *(np.zeros((2**40, 0), np.int64), np.broadcast_to(1.0, 2**50), np.broadcast_to(1, 2**50)),
    *(np.broadcast_to(1, (2**50, 5)), np.broadcast_to(0, (2**50, 2)), np.broadcast_to(1.0, (2**50, 1, 1, 1))),
]


def test_any_argument_may_be_odd(tmp_path: Path) -> None:
    table, lookups = np.ones((5, 3), np.float32), np.array([0, 4, 2])
    rows = _core.TableRows.encode(table, "int8", 1)
    hf.EmbeddingTable.from_array(table, "int8").save(tmp_path / "table")
    with (tmp_path / "table").open("rb") as file:
        try_odd_arguments(table, lookups, rows, file)


def try_odd_arguments(table: np.ndarray, lookups: np.ndarray, rows: _core.TableRows, file: BinaryIO) -> None:
    one, ones, halves = np.array([1]), np.ones((1, 1, 1, 1)), np.zeros((1, 3), np.float16)
    problem = _core.SearchProblem(grid(), traffic(), CONFIG[None], np.array([[0, 0]]), np.array([0]), [(0.9, 0.1)])
    calls: list[tuple[Callable[..., object], list[Any]]] = [
        (_core.ServiceGrid, [one, one, ones, ones[0], ["query"], [0]]),
        (_core.Traffic, ["poisson", [], np.array([1.0]), 0]),
        (_core.bottleneck_qps, [grid(), traffic(), CONFIG]),
        (_core.simulate, [grid(), traffic(), CONFIG, 10.0, 50, 5, [0.5]]),
        (_core.simulate_trace, [grid(), CONFIG, TRACE, one]),
        (
            _core.SearchProblem,
            [grid(), traffic(), CONFIG[None], np.array([[0, 0]]), np.array([0]), [(0.9, 0.1)]],
        ),
        (_core.search, [[problem], "gradient", 200, 200, 2, 0.95, 0.01, 1]),
        (_core.embedding_bag, [table, lookups, np.array([0, 2]), "sum", None, False, None, None, 1, False, "portable"]),
        (_core.sparse_lengths_sum, [table, lookups, np.array([1, 2]), None, None, 1, True, "avx512"]),
        (_core.DramStandard, [*dram_parts()]),
        (
            _core.simulate_dram,
            [
                *(_core.DramStandard(*dram_parts()), np.array([0, 64], np.uint64), np.array([True, False]), 1, 2),
                *("row bank group rank column", 8, 1, 8, "fr-fcfs", 100, "closed", True, 1),
            ],
        ),
        (
            _core.simulate_nmp,
            [
                *(_core.DramStandard(*dram_parts()), np.array([0, 64], np.uint64), np.array([True, False])),
                *(np.array([0, 2], np.uint64), np.array([1], np.uint32), np.array([1], np.uint32), [0, 1], "nmp"),
                *(2, 2, "row bank group rank column", 8, 1, "fr-fcfs", 100, "open", True, 4, 2, 1, 1, 1024, 4, 4, 1),
            ],
        ),
        (_core.dram_earliest, [_core.DramStandard(*dram_parts()), 1, [("activate", 0, 5)]]),
        (
            _core.embedding_bag_collection,
            [(table, rows), lookups, np.array([0, 2, 3]), "mean", None, True, None, 1, True, "portable"],
        ),
        (
            _core.embedding_bag_collection,
            [(table,), lookups, np.array([0, 2]), "sum", np.ones(3, np.float32), False, halves, 1, False, "avx2"],
        ),
        (_core.read_seconds, [np.ones(640, np.uint8), 64, lookups, 2, 1, "L2", 1]),
        (_core.TableRows.encode, [table, "int4", 1]),
        (_core.TableRows.import_fused, [np.zeros((2, 9), np.uint8), "int2", "first", 19]),
        (rows.export_fused, ["last"]),
        (_core.TableRows.from_file, [file.fileno(), 4096, "int8", 5, 3, True]),
        (_core.TableRows.from_file, [file.fileno(), 4096, "int8", 5, 3, False]),
    ]
    dice, refused = random.Random(1), 0
    for function, arguments in calls:
        function(*arguments)  # as they stand, they are right
        for place in range(len(arguments)):
            for odd in ODD:
                changed = [*arguments]
                changed[place] = odd
                if dice.random() < 0.2:
                    changed[dice.randrange(len(changed))] = dice.choice(ODD)
                try:
                    function(*changed)
                except REFUSALS:
                    refused += 1
    assert refused > 1500
