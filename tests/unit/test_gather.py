"""What gathering takes in a memory: the tables of the service model against direct runs of the memory simulators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import fleets, hardware
from hercules_fast.memory import Dimm, NmpTable, simulate_dram, simulate_nmp, uniform_rows, vector_addresses
from hercules_fast.models import TableGroup
from hercules_fast.serving import gather
from hercules_fast.serving.gather import STATIC, host_gather, near_gather

ZOO = {w.name: w.model for w in fleets.fleet("zoo10").workloads}
MEMORIES = [hardware.memory(name) for name in hardware.memory_names()]
NEAR = [memory for memory in MEMORIES if memory.kind == "nmp"]
BY_NAME = {"ids": lambda memory: memory.name}


def one(items: float) -> np.ndarray:
    return np.array([items])


def dynamic_j(found) -> float:
    return sum(nj for part, nj in found.energy_nj.items() if part not in STATIC) * 1e-9


@pytest.mark.parametrize("row_bytes", [64, 100, 128, 256, 512])
@pytest.mark.parametrize("memory", MEMORIES, **BY_NAME)
def test_host_rate_is_that_of_all_channels_simulated_together(memory, row_bytes) -> None:
    lookups = 30_000
    stride = -(-row_bytes // 64) * 64
    rows = uniform_rows(
        lookups, min(2**31, memory.channels * memory.ranks * memory.standard.rank_bytes // stride), seed=5
    )
    reads = vector_addresses(rows, row_bytes=row_bytes)
    found = simulate_dram(reads, standard=memory.standard, channels=memory.channels, ranks=memory.ranks)
    table = TableGroup(count=1, rows=1000, dim=row_bytes // 4, pooling=lookups)
    ours = host_gather(memory, [table], one(1.0))
    assert ours.seconds[0] == pytest.approx(found.seconds, rel=0.025)  # the slowest of four channels has some more
    assert ours.energy_j[0] == pytest.approx(dynamic_j(found), rel=0.01)


@pytest.mark.parametrize(("name", "items"), [("rmc1", 64), ("rmc2", 16), ("rmc3", 64), ("din", 16), ("mt-wnd", 64)])
@pytest.mark.parametrize("memory", NEAR, **BY_NAME)
def test_near_memory_table_agrees_with_a_run_of_the_whole_model(memory, name, items) -> None:
    """All tables on their channels in one run: what the sum over shapes and the lines between batches leave out."""
    groups = ZOO[name].tables
    shapes = [(g.pooling, g.dim) for g in groups for _ in range(g.count)]
    assert len(set(shapes)) == 1, "so any even placement is the one of the table"
    pooling, dim = shapes[0]
    tables = [NmpTable(rows=1 << 17, dim=dim, channel=k % memory.channels) for k in range(len(shapes))]
    lookups = len(shapes) * items * pooling
    dimm = Dimm(standard=memory.standard, dimms=memory.dimms_per_channel, ranks_per_dimm=memory.ranks_per_dimm)
    found = simulate_nmp(
        uniform_rows(lookups, 1 << 17, seed=3),
        np.arange(0, lookups, pooling),
        tables,
        dimm=dimm,
        packet=memory.nmp_packet,
        baseline=False,
    )
    ours = near_gather(memory, groups, one(items))
    assert ours.seconds[0] == pytest.approx(found.seconds, rel=0.05)
    assert ours.energy_j[0] == pytest.approx(dynamic_j(found), rel=0.03)


def test_more_ranks_and_fewer_items_are_never_slower() -> None:
    items = np.arange(1.0, 2000.0)
    for model in ZOO.values():
        x2, x4, x8 = (near_gather(memory, model.tables, items) for memory in NEAR)
        assert (np.diff(x8.seconds) > 0).all()
        if all(group.pooling >= 20 for group in model.tables):  # fewer lookups are bound by the sums that return
            assert (x4.seconds < x2.seconds).all() and (x8.seconds < x4.seconds).all()


def test_a_channel_with_one_table_holds_the_others_up() -> None:
    """Five tables on four channels: the channel with two decides."""
    (memory, *_), table = NEAR, TableGroup(count=4, rows=1000, dim=32, pooling=80)
    even, odd = (near_gather(memory, [replace(table, count=count)], one(1024)) for count in (4, 5))
    assert odd.seconds[0] == pytest.approx(2 * even.seconds[0], rel=0.01)
    assert odd.energy_j[0] == pytest.approx(1.25 * even.energy_j[0], rel=0.01)


def test_the_same_bytes_for_any_number_of_threads(monkeypatch) -> None:
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("HERCULES_FAST_NUM_THREADS", threads)
        gather._curve.cache_clear()
        gather._line.cache_clear()
        near = near_gather(NEAR[-1], ZOO["rmc3"].tables, np.arange(1.0, 200.0))
        host = host_gather(NEAR[-1], ZOO["rmc3"].tables, one(1.0))
        found.append([x.tobytes() for x in (near.seconds, near.energy_j, host.seconds, host.energy_j)])
    assert found[0] == found[1] == found[2]


def test_a_standard_of_ones_own_and_one_without_currents() -> None:
    memory = hardware.memory("nmp-x2")
    slow = replace(memory, standard=replace(memory.standard, tck_ns=2 * memory.standard.tck_ns))
    bare = replace(memory, standard=replace(memory.standard, currents=None))
    named = replace(memory, standard="ddr4-2400r-x4")
    for do in (host_gather, near_gather):
        plain, slower, unknown, by_name = (do(m, ZOO["rmc3"].tables, one(64)) for m in (memory, slow, bare, named))
        assert slower.seconds[0] == pytest.approx(2 * plain.seconds[0], rel=1e-12)
        assert unknown.seconds[0] == plain.seconds[0] and np.isnan(unknown.energy_j[0])
        assert by_name.seconds[0] == plain.seconds[0]


def test_rows_cut_over_the_ranks_suit_long_rows() -> None:
    """A piece below an access is a whole one: rows of 128 bytes lose at eight ranks, rows of 1 KiB do not."""
    memory = hardware.memory("nmp-x8")
    for dim, low, high in ((32, 2.0, 9.0), (256, 0.5, 1.5)):
        table = [TableGroup(count=4, rows=1000, dim=dim, pooling=80)]
        cut = near_gather(replace(memory, nmp_mode="column-split"), table, one(256))
        whole = near_gather(memory, table, one(256))
        assert low < cut.seconds[0] / whole.seconds[0] < high


def test_near_memory_channels_are_one_shared_station() -> None:
    workload = next(w for w in fleets.fleet("zoo10").workloads if w.name == "rmc2")
    table = hf.service_table(hardware.server("NMPx8-V100"), workload)
    near = table.stage_index("nmp")
    group = next(g for g in table.groups if g.name == "nmp")
    assert (group.capacity, group.component, group.interference) == (1, "memory", "none")
    used = [k for k in range(len(table.variants)) if table.uses(k, near)]
    assert {table.variants[k].kind for k in used} == {"cpu-sd", "gpu-host-pooling", "gpu-hot-rows"}
    expected = near_gather(hardware.memory("nmp-x8"), workload.model.tables, table.items.astype(np.float64))
    for k in used:
        if table.variants[k].kind == "gpu-hot-rows":
            assert (table.seconds[k, near] < expected.seconds[:, None]).all(), "the host has fewer rows to gather"
            assert (table.energy_j[k, near] < expected.energy_j).all()
        else:
            assert (table.seconds[k, near] == expected.seconds[:, None]).all()
            assert (table.energy_j[k, near] == expected.energy_j).all()
        assert (table.energy_j[k, table.stage_index("sparse")] == 0).all(), "the energy counts once"
    sparse = table.stage_index("sparse")
    threads = tuple({sparse: 2, near: 2, table.stage_index("dense"): 2}.get(s, 0) for s in range(len(table.stages)))
    pipeline = next(k for k in used if table.variants[k].kind == "cpu-sd")
    with pytest.raises(hf.errors.InputError, match="use 2 of group 'nmp'; allowed is <= 1"):
        table.config(pipeline, threads, batch=64)
    one_station = tuple(min(count, 1) if s == near else count for s, count in enumerate(threads))
    assert table.config(pipeline, one_station, batch=64).describe() == "cpu-sd: sparse 2x1, nmp x1, dense 2x1, batch 64"
    plain = hf.service_table(hardware.server("T2"), workload)
    assert "nmp" not in [s.name for s in plain.stages]
