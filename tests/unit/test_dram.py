"""DRAM: every constraint of every standard is tight, curves meet closed forms, bad input is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import memory
from hercules_fast.errors import ConfigError, DTypeError, InputError, UnknownNameError
from hercules_fast.memory import DramStandard, earliest_cycles, simulate_dram

STANDARDS = memory.standard_names()

# --- one command ------------------------------------------------------------------------------------------------------

# first, second, where the second goes, least distance in the standard's own names
PAIRS = [
    ("activate", "read", "bank", "rcd"),
    ("activate", "write", "bank", "rcd"),
    ("activate", "precharge", "bank", "ras"),
    ("activate", "activate", "group", "rrd_l"),
    ("activate", "activate", "rank", "rrd_s"),
    ("activate", "activate", "away", "row_command"),
    ("precharge", "activate", "bank", "rp"),
    ("read", "precharge", "bank", "rtp"),
    ("read", "read", "bank", "max(ccd_l, bl)"),
    ("read", "read", "group", "max(ccd_l, bl)"),
    ("read", "read", "rank", "max(ccd_s, bl)"),
    ("read", "read", "away", "bl + rank_switch"),
    ("read", "write", "group", "cl + bl + rtw - cwl"),
    ("read", "write", "away", "cl + bl + rank_switch - cwl"),
    ("read", "precharge", "rank", "column_command"),
    ("write", "precharge", "bank", "cwl + bl + wr"),
    ("write", "write", "group", "max(ccd_l_wr, bl)"),
    ("write", "write", "rank", "max(ccd_s, bl)"),
    ("write", "write", "away", "bl + rank_switch"),
    ("write", "read", "group", "cwl + bl + wtr_l"),
    ("write", "read", "rank", "cwl + bl + wtr_s"),
    ("write", "read", "away", "max(cwl + bl + rank_switch - cl, column_command)"),
    ("read-precharge", "activate", "bank", "rtp + rp"),
    ("write-precharge", "activate", "bank", "cwl + bl + wr + rp"),
    ("refresh", "activate", "bank", "rfc"),
    ("refresh", "activate", "away", "1"),
    ("precharge-all", "refresh", "bank", "rp"),
]


def cycles_of(standard: DramStandard, formula: str) -> int:
    names = {name: getattr(standard.timing, name) for name in standard.timing.__slots__}
    return int(eval(formula, {"max": max}, names))


def bank_at(standard: DramStandard, where: str) -> int:
    o = standard.organisation
    return {"bank": 0, "group": 1, "rank": o.banks_per_group, "away": o.groups * o.banks_per_group}[where]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0]}>{p[1]}-{p[2]}")
@pytest.mark.parametrize("name", STANDARDS)
def test_constraint_is_tight(name: str, pair: tuple[str, str, str, str]) -> None:
    """The second command is refused one cycle before the formula's and accepted at it, not later."""
    first, second, where, formula = pair
    standard, bank, start = memory.standard(name), bank_at(memory.standard(name), where), 100_000
    needs_open = [(0, first)] + [(bank, second)] * (bank != 0)
    needs_open = [b for b, command in needs_open if command not in ("activate", "refresh")]
    script = [("activate", b, 1000 * (i + 1)) for i, b in enumerate(needs_open)]
    script += [(first, 0, start), (second, bank, start + 50_000)]
    earliest = earliest_cycles(script, standard=standard, ranks=2)
    assert earliest[-1] == start + cycles_of(standard, formula)
    assert all(line[2] >= cycle for line, cycle in zip(script, earliest, strict=True)), "the script keeps the standard"


@pytest.mark.parametrize("name", STANDARDS)
def test_the_row_cycle_and_the_window_of_four_are_tight(name: str) -> None:
    standard = memory.standard(name)
    t, banks = standard.timing, standard.organisation.banks_per_group
    # A bank again, with a precharge as early as may be.
    script = [("activate", 0, 100), ("precharge", 0, 100 + t.ras), ("activate", 0, 10_000)]
    assert earliest_cycles(script, standard=standard)[-1] == 100 + max(t.rc, t.ras + t.rp)
    # The fifth activate of a rank, over all of its groups.
    order = [0, banks, 1, banks + 1, 2]
    cycles = [100]
    for k in range(1, 5):
        script = [("activate", b, c) for b, c in zip(order[:k], cycles, strict=True)] + [("activate", order[k], 10_000)]
        cycles.append(int(earliest_cycles(script, standard=standard)[-1]))
    assert cycles[:4] == [100, 100 + t.rrd_s, 100 + max(2 * t.rrd_s, t.rrd_l), cycles[3]]
    assert cycles[4] == max(100 + t.faw, cycles[3] + t.rrd_s, cycles[2] + t.rrd_l)


def test_scripts_that_make_no_sense_are_named() -> None:
    for script, message in [
        ([("read", 0, 5)], r"commands\[0\]: is Read to bank 0, which is closed"),
        ([("activate", 0, 5), ("activate", 0, 9)], r"commands\[1\]: is Activate to bank 0, which is open"),
        ([("activate", 0, 5), ("refresh", 0, 9)], "has an open bank"),
        ([("activate", 16, 5)], "bank is 16; allowed is from 0 to 15"),
        ([("activate", 0, 5), ("activate", 1, 4)], "cycle is 4; allowed is from 5"),
        ([("open", 0, 5)], "allowed are activate, precharge"),
    ]:
        with pytest.raises(InputError, match=message):
            earliest_cycles(script)


# --- one controller ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STANDARDS)
def test_idle_latencies_are_sums_of_commands(name: str) -> None:
    """Closed row, open row, other row; a command goes out in the cycle after its request came in."""
    standard = memory.standard(name)
    t, row = standard.timing, standard.organisation.row_bytes * standard.organisation.groups * 64
    found = simulate_dram([0, standard.access_bytes, row], standard=standard, window=1).latency_cycles
    assert found.tolist() == [1 + t.rcd + t.cl + t.bl, 1 + t.cl + t.bl, 1 + t.rp + t.rcd + t.cl + t.bl]


def test_a_read_is_answered_by_the_write_before_it() -> None:
    found = simulate_dram([0, 0], writes=np.array([True, False]))
    assert (found.forwarded, found.commands["read"], found.commands["write"]) == (1, 0, 1)
    assert found.latency_cycles[1] == 1


def test_writes_go_in_batches() -> None:
    """Turning the bus round for each write costs much more."""
    rng = np.random.default_rng(1)
    addresses = rng.integers(0, 2**33, 20_000) & ~63
    writes = rng.random(20_000) < 0.3
    batched = simulate_dram(addresses, writes=writes).total_cycles
    single = simulate_dram(addresses, writes=writes, write_queue=1).total_cycles
    assert batched < 0.8 * single
    assert batched > simulate_dram(addresses).total_cycles


def test_closed_pages_suit_random_rows_and_open_pages_rows_in_order() -> None:
    scattered = np.random.default_rng(2).integers(0, 2**33, 5_000) & ~63
    paced = {"gap": 100, "refresh": False}
    opened, closed = (simulate_dram(scattered, page=page, **paced) for page in ("open", "closed"))
    assert closed.mean_latency_cycles < opened.mean_latency_cycles - 10
    in_order = np.arange(0, 64 * 5000, 64)
    opened, closed = (simulate_dram(in_order, page=page, **paced) for page in ("open", "closed"))
    assert opened.mean_latency_cycles < closed.mean_latency_cycles - 10


def test_an_age_limit_bounds_how_long_hits_keep_others_waiting() -> None:
    """One access to another row of a bank among a stream of hits."""
    hits = np.arange(4000) % 128 * 64
    addresses = np.insert(hits, 100, 1 << 17)
    waited = [
        int(simulate_dram(addresses, age_limit=limit, refresh=False).latency_cycles[100]) for limit in (300, 3000)
    ]
    assert 300 <= waited[0] <= 300 + 100
    assert 3000 <= waited[1] <= 3000 + 100


# --- throughput and latency against closed forms ----------------------------------------------------------------------


@pytest.mark.parametrize("name", STANDARDS)
def test_random_rows_of_one_rank_reach_their_bound(name: str) -> None:
    """Bus or window of four activates, whichever binds, between refreshes. Banks cost a little where they are few."""
    standard = memory.standard(name)
    t = standard.timing
    addresses = memory.uniform_rows(40_000, standard.rank_bytes // standard.access_bytes) * standard.access_bytes
    found = simulate_dram(addresses, standard=standard, window=64)
    bound = max(t.bl, t.faw / 4, t.rrd_s) / (1 - t.rfc / t.refi)
    assert 1.0 <= found.total_cycles / found.requests / bound < 1.2


@pytest.mark.parametrize("name", STANDARDS)
def test_rows_over_all_groups_reach_the_peak(name: str) -> None:
    standard = memory.standard(name)
    addresses = np.arange(40_000) * standard.access_bytes
    mapping = "row bank column rank group channel"
    found = simulate_dram(addresses, standard=standard, mapping=mapping, window=64)
    share = 1 - standard.timing.rfc / standard.timing.refi
    assert 0.95 * share < found.bandwidth_gb_s / standard.peak_gb_s <= share


def test_latency_rises_with_load_to_the_bound_of_the_window() -> None:
    addresses = memory.uniform_rows(20_000, 2**27, seed=3) * 64
    latencies = [simulate_dram(addresses, gap=gap).mean_latency_cycles for gap in (200, 50, 20, 10, 7, 1)]
    assert latencies == sorted(latencies)
    # Little: 32 reads on their way, one done every 6.5 / 0.955 cycles.
    assert latencies[-1] == pytest.approx(32 * 6.5 / 0.955, rel=0.02)


def test_channels_multiply_and_threads_change_nothing() -> None:
    addresses = memory.uniform_rows(40_000, 2**28, seed=4) * 64
    one, four = (simulate_dram(addresses, channels=channels, ranks=2, threads=1) for channels in (1, 4))
    assert one.total_cycles / four.total_cycles == pytest.approx(4, rel=0.03)
    for threads in (2, 3):
        again = simulate_dram(addresses, channels=4, ranks=2, threads=threads)
        assert again.latency_cycles.tobytes() == four.latency_cycles.tobytes()
        assert (again.total_cycles, again.commands, again.energy_nj) == (
            four.total_cycles,
            four.commands,
            four.energy_nj,
        )


# --- laws -------------------------------------------------------------------------------------------------------------


def test_energy_adds_up_over_channels() -> None:
    """Two channels that do the same take twice the energy of one."""
    rows = memory.uniform_rows(5000, 2**20, seed=5)
    one = simulate_dram(rows * 64)
    both = simulate_dram(np.repeat(rows * 128, 2) + np.tile([0, 64], 5000), channels=2)
    assert both.total_cycles == pytest.approx(one.total_cycles, abs=2)
    for part, nj in one.energy_nj.items():
        assert both.energy_nj[part] == pytest.approx(2 * nj, rel=1e-4)


def test_a_standard_without_currents_tells_no_energy() -> None:
    found = simulate_dram([0], standard="DDR5-3200AN")
    assert found.energy_nj == {}
    assert np.isnan(found.total_energy_nj)


def test_smoke() -> None:
    found = simulate_dram(memory.zipf_rows(3000, 2**20) * 64, ranks=4)
    assert found.requests == 3000
    assert found.latency_percentile_cycles(50) <= found.latency_percentile_cycles(99) <= found.latency_cycles.max()
    assert found.seconds == pytest.approx(found.total_cycles * 0.833e-9)
    assert hf.memory.standard("ddr4-2400r").peak_gb_s == pytest.approx(19.2, rel=1e-3)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"addresses": []}, "addresses: is empty"),
        ({"addresses": [0, 1 << 33]}, r"addresses\[1\]: is 8589934592; allowed are multiples of 64 below the capacity"),
        ({"addresses": [32]}, r"addresses\[0\]: is 32"),
        ({"addresses": [64, -64]}, r"addresses\[1\]: is -64; allowed is from 0"),
        ({"addresses": [[0]]}, "addresses: has shape"),
        ({"ranks": 0}, "ranks: is 0"),
        ({"ranks": 3}, "ranks: is 3; allowed is a power of two"),
        ({"channels": 0}, "channels: is 0"),
        ({"window": 0}, "window: is 0"),
        ({"window": -1}, "window: is -1"),
        ({"gap": 2**40}, "gap: is"),
        ({"gap": 0}, "gap: is 0"),
        ({"write_queue": 0}, "write_queue: is 0"),
        ({"age_limit": 2**40}, "age_limit: is"),
        ({"threads": 0}, "threads: is 0"),
        ({"scheduler": "fcfs"}, "scheduler: is .fcfs.; allowed are fr-fcfs, row-hit-first"),
        ({"page": "half"}, "page: is .half.; allowed are open, closed"),
        ({"mapping": "row bank group column:6"}, "mapping: gives 6 bits to column; it must be 7"),
        ({"mapping": "row bank column group group"}, "stands more than once"),
        ({"mapping": "row bank colum group"}, "names .colum."),
        ({"writes": np.array([True, False])}, "writes: has 2 entries for 1 addresses"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate_dram(**{"addresses": [0], **arguments})


def test_wrong_types_are_named() -> None:
    with pytest.raises(DTypeError, match="addresses: has dtype float64"):
        simulate_dram([1.5])
    with pytest.raises(DTypeError, match="writes: has dtype int64"):
        simulate_dram([0], writes=np.array([1]))
    with pytest.raises(DTypeError, match=r"window: is 1\.5"):
        simulate_dram([0], window=1.5)
    with pytest.raises(DTypeError, match="standard: is int"):
        simulate_dram([0], standard=4)
    with pytest.raises(UnknownNameError, match="did you mean 'DDR4-2400R'"):
        simulate_dram([0], standard="DDR4-2400")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ras": 10}, "timing.ras: is 10; allowed is at least rcd = 16"),
        ({"ccd_l": 3}, "timing.ccd_l: is 3; allowed is at least ccd_s = 4"),
        ({"faw": 2}, "timing.faw: is 2"),
        ({"refi": 430}, "timing.refi: is 430"),
        ({"cl": 0}, "timing.cl: is 0; allowed is a whole number from 1"),
        ({"cl": -1}, "timing.cl: is -1"),
        ({"bl": 3}, "timing.bl: makes bursts of 48 bytes"),
    ],
)
def test_timing_that_does_not_fit_is_named(change: dict[str, int], message: str) -> None:
    whole = memory.standard("DDR4-2400R")
    broken = replace(whole, timing=replace(whole.timing, **change))
    with pytest.raises(InputError, match=message):
        simulate_dram([0], standard=broken)


def test_a_standard_of_the_users_own(tmp_path: Path) -> None:
    text = (Path(memory.__file__).parent / "catalog" / "dram" / "ddr4-2400r.toml").read_text()
    path = tmp_path / "ours.toml"
    path.write_text(text.replace('"DDR4-2400R"', '"ours"').replace("faw = 26", "faw = 16"))
    ours = memory.load_standard(path)
    rows = memory.uniform_rows(5000, 2**20) * 64
    assert simulate_dram(rows, standard=ours).total_cycles < simulate_dram(rows).total_cycles
    path.write_text(text.replace("rcd = 16", "rcd = 60").replace("cl = 16", "kl = 16"))
    with pytest.raises(ConfigError, match=r"timing.kl: unknown key.*") as caught:
        memory.load_standard(path)
    assert "timing.cl: missing" in str(caught.value)
    path.write_text(text.replace("rcd = 16", "rcd = 60"))
    with pytest.raises(ConfigError, match=r"timing\.ras: is 39; allowed is at least rcd = 60"):
        memory.load_standard(path)


# --- traces -----------------------------------------------------------------------------------------------------------


def test_traces_are_the_laws_they_claim() -> None:
    n, rows = 200_000, 1000
    uniform = np.bincount(memory.uniform_rows(n, rows, seed=1), minlength=rows)
    assert uniform.size == rows
    # Chi-square with 999 degrees of freedom: mean 999, deviation 45.
    assert abs(((uniform - n / rows) ** 2 / (n / rows)).sum() - 999) < 5 * 45
    drawn = memory.zipf_rows(n, rows, exponent=1.1, seed=2)
    law = np.arange(1, rows + 1.0) ** -1.1
    counts = np.sort(np.bincount(drawn, minlength=rows))[::-1]
    expected = n * law / law.sum()
    assert counts[:20] == pytest.approx(expected[:20], abs=5 * np.sqrt(expected[0]), rel=0.1)


def test_reuse_distances_are_those_asked_for() -> None:
    rows = memory.reuse_rows(100_000, 2**30, distances=[1, 50], shares=[0.2, 0.3], seed=3)
    assert np.mean(rows[1:] == rows[:-1]) == pytest.approx(0.22, abs=0.02)  # some repeat a repeat
    assert np.mean(rows[50:] == rows[:-50]) == pytest.approx(0.3, abs=0.02)
    assert np.unique(rows).size == pytest.approx(50_000, rel=0.02)


def test_longer_traces_begin_like_shorter_ones() -> None:
    assert np.array_equal(memory.uniform_rows(100, 50, seed=9), memory.uniform_rows(1000, 50, seed=9)[:100])
    reuse = {"distances": [1, 9], "shares": [0.3, 0.3], "seed": 9}
    assert np.array_equal(memory.reuse_rows(100, 50, **reuse), memory.reuse_rows(1000, 50, **reuse)[:100])
    assert np.array_equal(memory.zipf_rows(100, 50, seed=9), memory.zipf_rows(1000, 50, seed=9)[:100])


def test_vectors_lie_on_whole_accesses() -> None:
    found = memory.vector_addresses(np.array([0, 2]), row_bytes=72, base=256)
    assert found.tolist() == [256, 320, 256 + 256, 320 + 256]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memory.uniform_rows(0, 5), "lookups: is 0"),
        (lambda: memory.uniform_rows(5, 0), "rows: is 0"),
        (lambda: memory.uniform_rows(5, 5, seed=-1), "seed: is -1"),
        (lambda: memory.zipf_rows(5, 5, exponent=-1), "exponent: is -1"),
        (lambda: memory.reuse_rows(5, 5, distances=[1], shares=[]), "shares: has 0 entries for 1"),
        (lambda: memory.reuse_rows(5, 5, distances=[0], shares=[0.5]), r"distances\[0\]: is 0"),
        (lambda: memory.reuse_rows(5, 5, distances=[1, 2], shares=[0.7, 0.7]), "shares: add up to 1.4"),
        (lambda: memory.vector_addresses(np.array([-1]), row_bytes=64), r"rows\[0\]: is -1"),
        (lambda: memory.vector_addresses(np.array([1]), row_bytes=0), "row_bytes: is 0"),
        (lambda: memory.vector_addresses(np.array([1]), row_bytes=64, base=3), "base: is 3"),
    ],
)
def test_bad_traces_are_named(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
