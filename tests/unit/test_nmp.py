"""Near-memory processing: laws, the parts of RecNMP, layout of tables, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hercules_fast import memory
from hercules_fast.errors import DTypeError, InputError
from hercules_fast.memory import Dimm, NmpResult, NmpTable, simulate_nmp

ROWS = 1 << 20


def bags(tables: int = 4, per_table: int = 40, pooling: int = 40, rows: int = ROWS, skew: float = 0.0) -> Any:
    """Return indices and offsets, popularity ``r ** -skew``."""
    n = tables * per_table * pooling
    draw = memory.zipf_rows(n, rows, exponent=skew, seed=3) if skew else memory.uniform_rows(n, rows, seed=3)
    return draw, np.arange(0, n, pooling)


def run(dim: int = 16, tables: int = 4, rows: int = ROWS, skew: float = 0.0, **changes: Any) -> NmpResult:
    work = bags(tables=tables, rows=rows, skew=skew)
    return simulate_nmp(*work, [NmpTable(rows=rows, dim=dim)] * tables, **{"baseline": False, **changes})


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [16, 32, 64])
@pytest.mark.parametrize("packet", [0, 640])
def test_more_ranks_never_slow_a_uniform_stream(dim: int, packet: int) -> None:
    cycles = [run(dim=dim, ranks=ranks, packet=packet).gather_cycles for ranks in (1, 2, 4, 8, 16)]
    assert cycles == sorted(cycles, reverse=True)


def test_free_running_ranks_share_a_uniform_stream() -> None:
    one, four = (run(ranks=ranks).gather_cycles for ranks in (1, 4))
    assert one / four == pytest.approx(4, rel=0.05)


def test_a_bigger_fully_associative_cache_never_hits_less() -> None:
    hits = []
    for cache_kb in (1, 4, 16, 64):
        found = run(skew=1.0, rows=1 << 14, cache_kb=cache_kb, cache_ways=cache_kb * 1024 // 64)
        assert found.cache_hits + found.commands["read"] == found.lookups
        hits.append(found.cache_hits)
    assert hits == sorted(hits)
    assert hits[0] < hits[-1]


def test_energy_adds_up_over_channels() -> None:
    rows, offsets = bags(tables=2)
    table = NmpTable(rows=ROWS, dim=16)
    half = rows[: rows.size // 2], offsets[: offsets.size // 2]
    one = simulate_nmp(*half, [table], ranks=2)
    twice = np.concatenate((half[0], half[0])), np.concatenate((half[1], half[1] + half[0].size))
    both = simulate_nmp(*twice, [table, NmpTable(rows=ROWS, dim=16, channel=1)], ranks=2)
    assert both.channels == 2
    assert both.total_cycles == one.total_cycles
    for part, nj in one.energy_nj.items():
        assert both.energy_nj[part] == pytest.approx(2 * nj), part
    assert both.host is not None
    assert both.host.total_cycles == one.host.total_cycles  # type: ignore[union-attr]


def test_threads_change_nothing() -> None:
    first, *others = (run(skew=1.0, ranks=8, cache_kb=32, packet=160, threads=threads) for threads in (1, 2, 3))
    for other in others:
        assert other.latency_cycles.tobytes() == first.latency_cycles.tobytes()
        assert (other.total_cycles, other.commands, other.energy_nj) == (
            first.total_cycles,
            first.commands,
            first.energy_nj,
        )


def test_no_lookup_is_lost() -> None:
    found = run(dim=32, ranks=4, cache_kb=8, skew=0.8, packet=100)
    assert found.reads_by_rank.sum() == found.commands["read"] == found.latency_cycles.size
    assert found.commands["read"] + 2 * found.cache_hits == 2 * found.lookups
    assert found.latency_cycles.min() > 0


# --- the parts of RecNMP ----------------------------------------------------------------------------------------------


def test_speedup_is_what_its_parts_explain() -> None:
    """Without cache 64-byte rows are held back by the window of four activates, longer rows by the bus of a rank."""
    small, large = (run(dim=dim, ranks=8, baseline=True) for dim in (16, 64))
    assert 4.5 < small.speedup < 6.2
    assert 7.5 < large.speedup < 9.5
    assert small.energy_saving > 0.3
    # Each bag's sum goes over the channel once per DIMM that holds some of it.
    assert small.transfers == 4 * 40 * 4
    assert small.host is not None
    assert small.host.transfers == small.lookups


def test_each_stage_of_recnmp_helps_where_rows_repeat() -> None:
    """A cache that two tables share in turn keeps more of one table at a time."""
    rows = 1 << 12
    n, tables, pooling = 32_000, 8, 40
    draw = memory.zipf_rows(n, rows, exponent=0.9, seed=1)
    offsets = np.arange(0, n, pooling)
    found = {
        variant.name: simulate_nmp(
            draw,
            offsets,
            [NmpTable(rows=rows, dim=16)] * tables,
            ranks=4,
            packet=320,
            cache_kb=variant.cache_kb,
            order=variant.order,
            hot_threshold=variant.hot_threshold,
            baseline=False,
        )
        for variant in memory.variants(cache_kb=16)
    }
    assert found["base"].cache_hits == 0
    assert found["cache"].hit_rate < found["cache+schedule"].hit_rate
    assert found["cache+schedule"].total_cycles < found["cache"].total_cycles < found["base"].total_cycles
    # Rows that come once do not push others out.
    assert found["all"].hit_rate >= found["cache+schedule"].hit_rate
    assert found["all"].cache_accesses < found["cache"].cache_accesses


def test_barriers_cost_time_and_tags_shorten_packets() -> None:
    free, whole, tagged = (run(ranks=8, **plan) for plan in ({}, {"packet": 640}, {"packet": 640, "psum_tags": 4}))
    assert (free.packets, whole.packets, tagged.packets) == (1, 10, 40)
    assert free.total_cycles < whole.total_cycles < tagged.total_cycles


def test_delivery_binds_where_every_row_is_cached() -> None:
    """All of a tiny table fits: two instructions go out in each cycle."""
    found = run(rows=64, ranks=8, cache_kb=128)
    assert found.gather_cycles == pytest.approx(found.lookups / 2, rel=0.2)
    assert run(rows=64, ranks=8, cache_kb=128, inst_per_cycle=1).gather_cycles >= found.lookups


def test_a_column_split_reads_less_of_every_open_row() -> None:
    whole, split = (run(dim=64, ranks=4, mode=mode) for mode in ("nmp", "column-split"))
    assert split.commands["activate"] > 3 * whole.commands["activate"]
    assert split.total_cycles > whole.total_cycles


def test_arithmetic_follows_pooling_and_rows() -> None:
    plain, weighted = (run(pooling=pooling).energy_nj["arithmetic"] for pooling in ("sum", "weighted"))
    assert plain == pytest.approx(4 * 40 * 40 * 16 * 7.89e-3)
    assert weighted - plain == pytest.approx(4 * 40 * 40 * 16 * 25.2e-3)
    assert plain < run(pooling="mean").energy_nj["arithmetic"] < weighted
    rows, offsets = bags()
    int8 = simulate_nmp(rows, offsets, [NmpTable(rows=ROWS, dim=16, dtype="int8")] * 4, baseline=False)
    assert int8.energy_nj["arithmetic"] == pytest.approx(4 * 40 * 40 * 16 * (2 * 7.89e-3 + 25.2e-3))


@pytest.mark.parametrize(
    ("table", "reads"),
    [
        (NmpTable(rows=ROWS, dim=16), 1),
        (NmpTable(rows=ROWS, dim=32, dtype="float16"), 1),
        (NmpTable(rows=ROWS, dim=56, dtype="int8"), 1),
        (NmpTable(rows=ROWS, dim=57, dtype="int8"), 2),
        (NmpTable(rows=ROWS, dim=50), 4),
    ],
)
def test_rows_of_any_bytes_begin_at_whole_accesses(table: NmpTable, reads: int) -> None:
    rows, offsets = bags(tables=1)
    found = simulate_nmp(rows, offsets, [table], ranks=2, baseline=False)
    assert found.commands["read"] == reads * found.lookups


def test_rows_over_the_border_of_a_rank_are_read_in_both() -> None:
    """Rows of three accesses do not divide a row of DRAM: row 42 has two accesses in rank 0 and one in rank 1."""
    found = simulate_nmp(np.array([42]), np.array([0]), [NmpTable(rows=100, dim=48)], ranks=2, baseline=False)
    assert found.reads_by_rank.tolist() == [2, 1]


def test_empty_bags_cost_nothing() -> None:
    rows = np.array([5, 6, 7])
    one = simulate_nmp(rows, np.array([0]), [NmpTable(rows=10, dim=16)], ranks=2)
    more = simulate_nmp(rows, np.array([0, 0, 3]), [NmpTable(rows=10, dim=16)], ranks=2)
    assert (
        one.total_cycles
        == more.total_cycles
        == simulate_nmp(rows, np.array([0, 3]), [NmpTable(rows=10, dim=16)], ranks=2).total_cycles
    )


def test_an_order_by_samples_takes_tables_in_turn() -> None:
    """Two tables of one bag each, and the other way round: the same bags in the same turn."""
    a, b = NmpTable(rows=100, dim=16), NmpTable(rows=100, dim=32)
    rows = np.arange(8)
    by_sample = simulate_nmp(rows, np.array([0, 2, 4, 6]), [a, b], order="samples", ranks=2, baseline=False)
    by_table = simulate_nmp(rows, np.array([0, 2, 4, 6]), [a, b], order="tables", ranks=2, baseline=False)
    assert by_sample.commands["read"] == by_table.commands["read"] == 4 + 8
    assert by_sample.lookups == by_table.lookups == 8


# --- tables of times --------------------------------------------------------------------------------------------------


def test_a_gather_table_holds_what_runs_of_their_own_give() -> None:
    table = memory.gather_table(
        batches=(1, 8, 64), poolings=(20, 80), vector_bytes=(64, 256), ranks=(1, 8), most_reads=10_000, seed=5
    )
    assert table.seconds.shape == table.energy_j.shape == table.simulated.shape == (3, 2, 2, 2)
    assert table.simulated[:2].all()
    assert table.simulated[2].tolist() == [[[True, True], [True, True]], [[True, True], [False, False]]]
    assert (np.diff(table.seconds, axis=0) > 0).all()
    rows = memory.uniform_rows(64 * 80, ROWS, seed=5)
    for p, pooling in enumerate((20, 80)):
        for v, size in enumerate((64, 256)):
            lookups = 64 * pooling
            found = simulate_nmp(
                rows[:lookups],
                np.arange(0, lookups, pooling),
                [NmpTable(rows=ROWS, dim=size // 4)],
                ranks=8,
                packet=640,
                baseline=False,
            )
            exact = table.simulated[2, p, v, 1]
            assert table.seconds[2, p, v, 1] == pytest.approx(found.seconds, rel=1e-12 if exact else 0.25)
            spent = found.total_energy_nj - found.energy_nj["background"] - found.energy_nj["refresh"]
            assert table.energy_j[2, p, v, 1] == pytest.approx(spent * 1e-9, rel=1e-9 if exact else 0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": ()}, "batches: are"),
        ({"batches": (2, 2)}, "batches: are"),
        ({"poolings": ()}, "poolings: is empty"),
        ({"poolings": (0,)}, r"poolings\[0\]: is 0"),
        ({"vector_bytes": (6,)}, r"vector_bytes\[0\]: is 6; allowed is a multiple of 4"),
        ({"ranks": (3,)}, "ranks: is 3"),
        ({"packet": -1}, "packet: is -1"),
    ],
)
def test_bad_axes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        memory.gather_table(**arguments)


# --- bad input --------------------------------------------------------------------------------------------------------

TABLE = NmpTable(rows=10, dim=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": np.array([], np.int64)}, "indices: is empty"),
        ({"indices": np.array([3, 10])}, r"indices\[1\]: is 10; allowed is 0 <= index < 10"),
        ({"indices": np.array([-1, 3])}, r"indices\[0\]: is -1"),
        ({"offsets": np.array([], np.int64)}, "offsets: has 0 bags"),
        ({"offsets": np.array([1])}, "offsets: must rise from 0"),
        ({"offsets": np.array([0, 3])}, "offsets: must rise from 0 to at most the number of lookups, 2"),
        ({"offsets": np.array([0, 1]), "tables": [TABLE] * 3}, "offsets: has 2 bags; allowed is a multiple of the 3"),
        ({"tables": []}, "tables: is empty"),
        ({"tables": [NmpTable(rows=0, dim=16)]}, r"tables\[0\].rows: is 0"),
        ({"tables": [NmpTable(rows=10, dim=0)]}, r"tables\[0\].dim: is 0"),
        ({"tables": [NmpTable(rows=10, dim=4, channel=-1)]}, r"tables\[0\].channel: is -1"),
        ({"tables": [NmpTable(rows=10, dim=4, dtype="int3")]}, r"tables\[0\].dtype: is 'int3'"),  # type: ignore[arg-type]
        ({"tables": [NmpTable(rows=1 << 28, dim=16)]}, r"tables\[0\]: ends at byte 17179869184 of channel 0"),
        ({"ranks": 0}, "ranks: is 0"),
        ({"ranks": 3}, "ranks: is 3"),
        ({"dimm": Dimm(dimms=0)}, "dimm.dimms: is 0"),
        ({"dimm": Dimm(dimms=3)}, "ranks: is 6; allowed is a power of two"),
        ({"fifo": 0}, "fifo: is 0"),
        ({"fifo": -1}, "fifo: is -1"),
        ({"ranks": -1}, "ranks: is -1"),
        ({"inst_per_cycle": 0}, "inst_per_cycle: is 0"),
        ({"packet": -1}, "packet: is -1"),
        ({"psum_tags": -1}, "psum_tags: is -1"),
        ({"cache_kb": -1}, "cache_kb: is -1"),
        ({"cache_kb": 1, "cache_ways": 99}, "cache_ways: is 99; allowed is from 1 to the cache's 16 lines"),
        ({"hot_threshold": -1}, "hot_threshold: is -1"),
        ({"mode": "far"}, "mode: is .far.; allowed are nmp, column-split, host"),
        ({"order": "random"}, "order: is 'random'"),
        ({"pooling": "max"}, "pooling: is 'max'"),
        ({"mapping": "row rank"}, "mapping: gives 0 bits to group"),
        ({"window": 0}, "window: is 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    good = {"indices": np.array([1, 2]), "offsets": np.array([0]), "tables": [TABLE], "ranks": 1}
    if "dimm" in arguments:
        del good["ranks"]
    with pytest.raises(InputError, match=message):
        simulate_nmp(**{**good, **arguments})


def test_wrong_types_are_named() -> None:
    with pytest.raises(DTypeError, match="indices: has dtype float64"):
        simulate_nmp(np.array([1.5]), np.array([0]), [TABLE])
    with pytest.raises(DTypeError, match=r"tables\[0\]: is int"):
        simulate_nmp(np.array([1]), np.array([0]), [4])  # type: ignore[list-item]
    with pytest.raises(DTypeError, match="dimm: is str"):
        simulate_nmp(np.array([1]), np.array([0]), [TABLE], dimm="x4")  # type: ignore[arg-type]


def test_a_result_without_baseline_says_so() -> None:
    found = run()
    with pytest.raises(InputError, match="baseline=True"):
        _ = found.speedup
    with pytest.raises(InputError, match="percentile: is 101"):
        found.latency_percentile_cycles(101)
