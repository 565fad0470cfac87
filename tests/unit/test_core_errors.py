"""Malformed arguments of the core: each is refused by a named error, and none ends or hangs the process."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
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


CONFIG = np.array([0, 1, 1, 0, -1, 0, 2])


def dram_parts() -> tuple[dict[str, int], dict[str, int], float, dict[str, float]]:
    standard = hf.memory.standard("DDR4-2400R")
    assert standard.currents is not None
    return asdict(standard.organisation), asdict(standard.timing), standard.tck_ns, asdict(standard.currents)


TRACE = np.array([0.0])

POISSON = {"kind": "law", "law": "exponential", "params": []}
ONE_ITEM = np.array([1.0])


def station(**changes: Any) -> dict[str, Any]:
    law = {"kind": "law", "law": "exponential", "params": [], "mean_s": 0.01}
    plain = {"unit": "query", "threads": 2, "service": law, "buffer": None, "interference": "none", "slowed_by": 0}
    limits = {"speed": [], "max_queries": None, "max_items": None, "max_wait_s": 0.0}
    return plain | limits | changes


def system(*stations: dict[str, Any]) -> dict[str, Any]:
    route = {"min_size": 1, "batch": None, "stations": list(stations or [station()])}
    return {"capacity": None, "drop_after_s": None, "routes": [route]}


def table(items: int, busy: int, rows: object = None) -> dict[str, Any]:
    """A table of few or, where `rows` are claims, of very many cells."""
    rows = [[0.01] * busy] * items if rows is None else rows
    return {"kind": "table", "items": range(1, items + 1), "busy": range(1, busy + 1), "seconds": rows, "noise": None}


def simulate(
    system: dict[str, Any], source: dict[str, Any] = POISSON, queries: int = 200, *, keep: bool = False
) -> dict[str, Any]:
    """The call that descriptions go through."""
    return _core.simulate_system(system, source, ONE_ITEM, 10.0, queries, 10, 1, [0.5], 0, 1, "auto", keep)


FLICKER = {"kind": "mmpp", "rates": [1.0, 2.0], "switch": [[0.0, 1e12], [1e12, 0.0]], "group": None}
RIPPLE = {"kind": "rates", "durations_s": [5.0], "from": [1.0], "to": [2.0], "group": None}


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
        # A rate that changes a million million times between two queries was walked through change by change.
        (lambda: simulate(system(), FLICKER), "switch: changes phase 1.000e11 times a query; at most 1e4"),
        (lambda: _core.draw_queries(FLICKER, ONE_ITEM, 10.0, 5, 0), "switch: changes phase"),
        (lambda: simulate(system(), {**RIPPLE, "durations_s": [1e-9]}), "queries in a cycle of"),
        # Draws of one query were those of another.
        (lambda: _core.service_draws("erlang", [3], 0, 0, 0, np.array([-1]), np.array([0])), r"queries\[0\]: is -1"),
        (lambda: _core.service_draws("erlang", [3], 0, 0, 0, np.array([0]), np.array([2**20])), r"parts\[0\]"),
    ],
)
def test_numbers_that_arithmetic_does_not_survive_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(system(*[station()] * 65)), r"routes\[0\].stations: has 65 entries; the limit is 64"),
        (lambda: simulate({**system(), "routes": [{}] * 2**24}), "routes: has 16777216 entries; the limit is 64"),
        (lambda: simulate({**system(), "routes": range(2**60)}), "routes: a list: has 1152921504606846976 entries"),
        (
            lambda: simulate(system(station(threads=4096, interference="at_start", service=table(2**20, 1)))),
            "seconds: has 1048576 item counts for 4096 busy threads",
        ),
        (
            lambda: simulate(system(station(service=table(2**20, 2**10)))),
            r"stations\[0\].service.seconds: has 1073741824 entries",
        ),
        (lambda: simulate(system(station(service=table(2, 2**10, [range(2**60)] * 2)))), "must have 2 rows of 1024"),
        (lambda: simulate(system(station(service=table(2, 1, range(2**60))))), "service.seconds: a list: has"),
        (lambda: simulate(system(), {**FLICKER, "switch": [range(2**60)] * 2}), "switch: must have 2 rows of 2"),
        (lambda: simulate(system(), {"kind": "trace", "arrival_s": np.broadcast_to(1.0, 2**50)}), "arrival_s: has"),
        (
            lambda: simulate(system(), {"kind": "trace", "arrival_s": TRACE, "sizes": np.broadcast_to(1, 2**50)}),
            "sizes: has 1125899906842624 entries",
        ),
        (lambda: simulate(system(), queries=2**40, keep=True), "queries: are too many to keep a latency of each"),
        (lambda: simulate(system(), queries=2**40 + 1), "queries: is 1099511627777; allowed are 1 to 1099511627776"),
        (
            lambda: _core.simulate_system(system(), POISSON, np.broadcast_to(1.0, 2**50), 1.0, 9, 0, 1, [0.5], 0),
            "size_pmf: has 1125899906842624 entries",
        ),
        (
            lambda: _core.simulate_system(system(), POISSON, ONE_ITEM, 1.0, 9, 0, 1, [0.5] * 2**20, 0),
            "percentiles: has 1048576 entries; the limit is 1024",
        ),
        (
            lambda: _core.max_load_system(system(), POISSON, ONE_ITEM, [(0.5, 1.0)] * 2**20, 0.9, 0.1, 0),
            "percentiles: has 1048576 entries",
        ),
        (lambda: _core.draw_queries(POISSON, ONE_ITEM, 10.0, 2**40, 0), "queries: has 1099511627776 entries"),
    ],
)
def test_descriptions_that_claim_too_much_are_refused(call: Callable[[], object], message: str) -> None:
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
    power = _core.PowerModel(10.0, [20.0], [30.0], [0], [4], [0], np.array([[1]]), 0)
    problem = _core.SearchProblem(grid(), traffic(), CONFIG[None], np.array([[0, 0]]), np.array([0]), [(0.9, 0.1)])
    calls: list[tuple[Callable[..., object], list[Any]]] = [
        (_core.ServiceGrid, [one, one, ones, ones[0], ["query"], [0]]),
        (_core.Traffic, ["poisson", [], np.array([1.0]), 0]),
        (_core.bottleneck_qps, [grid(), traffic(), CONFIG]),
        (_core.simulate, [grid(), traffic(), CONFIG, 10.0, 50, 5, [0.5]]),
        (_core.simulate_trace, [grid(), CONFIG, TRACE, one]),
        (
            _core.SearchProblem,
            [
                *(grid(), traffic(), CONFIG[None], np.array([[0, 0]]), np.array([0]), [(0.9, 0.1)]),
                *([[0], [0]], power, (1.0, 0.0), 50.0),
            ],
        ),
        (_core.candidate_rates, [problem, [0, 0], 200, 0.95, 1]),
        (_core.PowerModel, [10.0, [20.0], [30.0], [0], [4], [0], np.array([[1]]), 0]),
        (power.power_w, [CONFIG, 10.0, [0.5], [0.1]]),
        (
            _core.search,
            [
                *([problem], "gradient", 200, 200, 2, 0.95, 0.01, 9, 1, None, None, 9.0),
                *(0.5, 4, 1, False, 200),
            ],
        ),
        (
            _core.simulate_system,
            [system(), POISSON, ONE_ITEM, 10.0, 500, 10, 1, [0.5], 0, 1, "auto", True, True, "portable"],
        ),
        (_core.sweep_systems, [[(system(), POISSON, ONE_ITEM, 10.0, 500, 10, 1, [0.5], 0)], 1, "events", True, None]),
        (_core.max_load_system, [system(), POISSON, ONE_ITEM, [(0.5, 1.0)], 0.9, 0.1, 0, 1, 2**17, 0.0, "auto"]),
        (_core.station_capacities, [system(), ONE_ITEM]),
        (_core.service_draws, ["erlang", [3], 0, 1, 2, lookups, lookups]),
        (_core.draw_queries, [POISSON, ONE_ITEM, 10.0, 50, 0, 0, 1]),
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
        (
            _core.provision_whole,
            [
                *(np.full((2, 3), 9.0), np.full((2, 3), 5.0), np.array([0, 1]), 2, np.full((1, 3), 20.0)),
                *(np.array([[5, 5]]), np.ones((1, 3)), np.array([0, 3]), np.array([0, 1, 1], np.int32)),
                *(np.array([0, 1, 2], np.int32), np.full(3, 20 / 9), np.zeros((1, 2)), np.ones((1, 2))),
                *(np.ones((1, 2)), np.ones((2, 3), np.int64), True, 1),
            ],
        ),
        (
            _core.run_load,
            [[([(0.0, 1e-9), slice], [[0], None], None), ([(0.0, 0.0)], None, 0)], TRACE, one, 1, 0, 0.1, max],
        ),
        (_core.LoadServer, [[([(0.0, 0.0)], None, None)], 10, 2, abs]),
        (_core.LoadServer([([(0.0, 0.0)], None, None)], 10).submit, [1, 1]),
        (_core.LoadServer([([(0.0, 0.0)], None, None)], 10).finish, [1.0]),
        (_core.read_seconds, [np.ones(640, np.uint8), 64, lookups, 2, 1, "L2", 1]),
        (_core.spin_gaps, [[0], 0.001, 5e-5]),
        (_core.clock_ghz, [0.001]),
        (_core.TableRows.encode, [table, "int4", 1]),
        (_core.TableRows.import_fused, [np.zeros((2, 9), np.uint8), "int2", "first", 19]),
        (rows.export_fused, ["last"]),
        (_core.TableRows.from_file, [file.fileno(), 4096, "int8", 5, 3, True]),
        (_core.TableRows.from_file, [file.fileno(), 4096, "int8", 5, 3, False]),
        (
            _core.provision_linear,
            [
                *(np.full((2, 3), 9.0), np.full((2, 3), 5.0), np.array([0, 1]), 2, np.full((1, 3), 20.0)),
                *(np.array([[5, 5]]), np.ones((1, 3)), np.ones((1, 2)), np.ones((1, 2)), 1),
            ],
        ),
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
                if function is _core.simulate_system and isinstance(changed[4], int) and changed[4] == 2**31:
                    continue  # right, and a long run
                try:
                    function(*changed)
                except REFUSALS:
                    refused += 1
    assert refused > 2300


def rich() -> dict[str, Any]:
    """Two routes and every kind of station."""
    noise = {"law": "lognormal", "params": [0.5]}
    linear = {"kind": "linear", "base_s": 0.01, "per_item_s": 0.001, "noise": noise}
    hyper = {"kind": "law", "law": "hyperexponential", "params": [0.5, 0.5, 1.0, 2.0], "mean_s": 0.01}
    pool = station(unit="sub_batch", service=linear, interference="dynamic_rate", speed=[1.0, 0.5])
    tabled = station(service=table(4, 2) | {"noise": noise}, buffer=2, interference="at_start")
    device = station(unit="fused", service=hyper, max_queries=3, max_items=8, max_wait_s=0.001)
    routes = [
        {"min_size": 1, "batch": 1, "stations": [pool, tabled]},
        {"min_size": 2, "batch": None, "stations": [device]},
    ]
    return {"capacity": 20, "drop_after_s": 1.0, "routes": routes}


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything inside a description."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*path, key)
        yield from places(part, (*path, key))


def put(value: Any, path: tuple[Any, ...], odd: object) -> Any:
    """A copy with `odd` at `path`."""
    if not path:
        return odd
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], odd)
    return changed


SOURCES: list[dict[str, Any]] = [
    {"kind": "law", "law": "uniform", "params": [1.0, 2.0], "group": [0.5, 0.5]},
    {"kind": "mmpp", "rates": [1.0, 2.0], "switch": [[0.0, 1.0], [1.0, 0.0]], "group": None},
    {"kind": "rates", "durations_s": [1.0, 2.0], "from": [1.0, 2.0], "to": [2.0, 1.0], "group": None},
    {"kind": "diurnal", "amplitude": 0.5, "period_s": 5.0, "group": None},
    {"kind": "trace", "arrival_s": np.arange(9.0), "sizes": np.ones(9, np.int64), "starts": [0, 5]}
    | {"rate_scale": 2.0, "cycles": 2, "cycle_s": 10.0},
]


def test_any_part_of_a_description_may_be_odd() -> None:
    pmf, refused, passed = np.array([0.5, 0.5]), 0, 0

    def attempt(system: dict[str, Any], source: dict[str, Any]) -> None:
        nonlocal refused, passed
        qps = None if "arrival_s" in source else 10.0
        try:
            _core.simulate_system(system, source, pmf, qps, 100, None, None, [0.5], 0, 1)
        except REFUSALS:
            refused += 1
        else:
            passed += 1

    described = rich()
    for source in SOURCES:
        attempt(described, source)
    assert refused == 0, "as they stand, they are right"
    for path in places(described):
        for odd in ODD:
            attempt(put(described, path, odd), POISSON)
    for source in SOURCES:
        for path in places(source):
            for odd in ODD:
                if path != ("cycles",) or not isinstance(odd, int) or odd != 2**31:  # right, and a long run
                    attempt(system(), put(source, path, odd))
    assert refused > 1500 and passed > 100
