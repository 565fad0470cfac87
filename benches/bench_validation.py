"""What effects and assumptions of the service-time model are worth: QPS of the fleet `envelope` with and without them.

Prints rows of the tables on the validation page.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast.models import TableGroup
from hercules_fast.serving import ASSUMPTIONS, SWITCHES
from hercules_fast.serving.gather import host_gather, near_gather

QUICK = hf.Effort(queries=2048, final_queries=4096, replications=2)
PARAMETERS = {
    "operator_overhead": "12 us per operator on a CPU, 21 us on a GPU (derived)",
    "operator_parallelism": "a GEMM on p cores gains p / (1 + 0.05 (p - 1))",
    "memory_bandwidth": "6 GB/s per core (derived); rate of the memory (simulated)",
    "gemm_batch": "half at 8 items",
    "gemm_width": "half at width 256 (fitted); at least 0.15",
    "simd_clock": "1.6 and 1.9 GHz",
    "weight_streaming": "10 GB/s per core",
    "activations": "10 GB/s per core; HBM (vendor) at the efficiency of gathers",
    "pollution": "chi = 0.2",
    "near_memory": "channels (simulated), packets of 640 lookups, 2 ns issue",
    "gpu_sharing": "overlap of transfer and work",
    "gpu_input": "10 GB/s",
    "popularity": "Zipf, exponent 0.9",
    "hot_bags": "none",
}


@pytest.fixture(scope="module")
def scaled() -> hf.EfficiencyTable:
    fleet = hf.fleet("zoo10")
    return hf.profile(fleet.servers, fleet.workloads, effort=QUICK)


@pytest.fixture(scope="module")
def full() -> hf.EfficiencyTable:
    fleet = hf.fleet("envelope")
    return hf.profile(fleet.servers, fleet.workloads, effort=QUICK)


SCALED = ("popularity", "hot_bags")
"""Effects that need models which do not fit an accelerator: they are looked at on the fleet `zoo10`."""


@pytest.mark.parametrize("effect", SWITCHES)
def test_worth(benchmark, request, effect) -> None:
    name = "zoo10" if effect in SCALED else "envelope"
    full, fleet = request.getfixturevalue("scaled" if effect in SCALED else "full"), hf.fleet(name)
    terms = hf.Terms().without(effect)
    off = benchmark.pedantic(
        hf.profile, args=(fleet.servers, fleet.workloads), kwargs={"effort": QUICK, "terms": terms}, rounds=1
    )
    changes = [
        (b.qps / a.qps, f"{a.workload} on {a.server}") for a, b in zip(full.rows, off.rows, strict=True) if a.qps > 0
    ]
    ratio, where = max(changes, key=lambda c: max(c[0], 1 / c[0]))
    assert ratio > 0
    print(f"\n| {effect} | {ASSUMPTIONS[effect]} | {PARAMETERS[effect]} | {ratio:.2f}x, {where} |")


PUBLISHED = {8192: 0.284, 65_536: 0.468}
"""Hits of an LRU cache of so many rows on a Criteo trace: GitHub harvard-acc/RecPipe, embedding study."""


@pytest.mark.parametrize("exponent", [0.8, 0.85, 0.9, 0.95, 1.0])
def test_popularity(exponent) -> None:
    """What the law of Zipf answers from the most popular rows, and by an LRU cache (Che's approximation)."""
    law = hf.traffic.Popularity(name="zipf", kind="zipf", exponent=exponent)
    weights = np.arange(1, 4_000_001, dtype=np.float64) ** -exponent
    shares = weights / weights.sum()
    cells = []
    for rows, hit in PUBLISHED.items():
        low, high = 1.0, 1e10  # lookups that a row stays for
        while high / low > 1 + 1e-6:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if -np.expm1(-shares * middle).sum() < rows else (low, middle)
        lru = float(-(shares * np.expm1(-shares * low)).sum())
        best = hf.traffic.hit_share(law, 33_762_577, rows)
        cells += [f"{lru:.1%}", f"{best:.1%}"]
        if exponent == 0.9:
            assert abs(lru - hit) < 0.02 and abs(best - hit) < 0.04
    print(f"\n| {exponent} | " + " | ".join(cells) + " |")


PARAMETER_CHANGES = {
    "half_batch 4": {"half_batch": 4.0},
    "half_batch 16": {"half_batch": 16.0},
    "half_width 128": {"half_width": 128.0},
    "half_width 512": {"half_width": 512.0},
    "narrow_efficiency 0.3": {"narrow_efficiency": 0.3},
    "split_loss 0.1": {"split_loss": 0.1},
    "pollution_chi 0.1": {"pollution_chi": 0.1},
    "pollution_chi 0.4": {"pollution_chi": 0.4},
    "utilisation_cap 0.99": {},
}


@pytest.mark.parametrize("change", PARAMETER_CHANGES)
def test_worth_of_parameter(benchmark, full, change) -> None:
    """Least and largest change of QPS over the pairs of `envelope` when a parameter of the terms is another."""
    fleet = hf.fleet("envelope")
    settings = {
        "terms": hf.Terms(**PARAMETER_CHANGES[change]),
        "effort": replace(QUICK, utilisation_cap=0.99) if change == "utilisation_cap 0.99" else QUICK,
    }
    other = benchmark.pedantic(hf.profile, args=(fleet.servers, fleet.workloads), kwargs=settings, rounds=1)
    rows = [(b.qps / a.qps, f"{a.workload} on {a.server}") for a, b in zip(full.rows, other.rows, strict=True)]
    (least, at_least), (most, at_most) = min(rows), max(rows)
    assert least > 0
    print(f"\n| {change} | {least:.2f}x, {at_least} | {most:.2f}x, {at_most} |")


@pytest.mark.parametrize("row_bytes", [64, 128, 256, 512])
def test_memories(row_bytes) -> None:
    """GB/s of random rows of the catalogue's memories: hosts, then near memory with bags of 80 rows."""
    memories = [hf.hardware.memory(name) for name in ("ddr4-t1", "ddr4-t2", "nmp-x2", "nmp-x4", "nmp-x8")]
    table = TableGroup(count=4, rows=1, dim=row_bytes // 4, pooling=80)
    items = np.array([4096.0])
    rates = []
    for memory in memories:
        gather = near_gather if memory.kind == "nmp" else host_gather
        rates.append(4096 * table.count * table.pooling * row_bytes / gather(memory, [table], items).seconds[0] / 1e9)
    assert rates[0] < 76.84 and rates[1] < 76.84, "hosts read over the channels"
    assert rates[1] < rates[2] < rates[3] < rates[4]
    print(f"\n| {row_bytes} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |")


MEMORY_CHANGES = {
    "chips of 8 bits": lambda memory: replace(memory, standard="DDR4-2400R"),
    "packets of 160": lambda memory: replace(memory, nmp_packet=160),
    "packets of 2,560": lambda memory: replace(memory, nmp_packet=2560),
    "5 ns to issue": lambda memory: replace(memory, nmp_issue_ns=5.0),
    "rows cut over the ranks": lambda memory: replace(memory, nmp_mode="column-split"),
}


@pytest.mark.parametrize("change", MEMORY_CHANGES)
def test_memory_assumption(benchmark, full, change) -> None:
    fleet = hf.fleet("envelope")
    servers = [replace(s, memory=MEMORY_CHANGES[change](s.memory)) for s in fleet.servers]
    other = benchmark.pedantic(hf.profile, args=(servers, fleet.workloads), kwargs={"effort": QUICK}, rounds=1)
    rows = [(b.qps / a.qps, f"{a.workload} on {a.server}") for a, b in zip(full.rows, other.rows, strict=True)]
    moved = sorted((r for r in rows if abs(r[0] - 1) > 0.05), key=lambda r: r[0])
    assert all(ratio > 0 for ratio, _ in rows)
    print(f"\n| {change} | " + ("; ".join(f"{ratio:.2f}x {where}" for ratio, where in moved) or "none by 5 %") + " |")


# -- provisioning ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoo() -> hf.EfficiencyTable:
    fleet = hf.fleet("zoo10")
    return hf.profile(fleet.servers, fleet.workloads)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


GREEDY = {
    "as given, by q/s per watt": {},
    "largest demand first": {"greedy_order": "largest"},
    "by q/s": {"greedy_rank": "qps"},
    "from the previous interval": {"greedy_start": "previous"},
    "last machine in part": {"last_machine": "fractional"},
}
OBLIVIOUS = {
    "at random, eligible types": {},
    "at random, all types": {"oblivious_types": "all"},
    "in proportion, eligible types": {"oblivious_draw": "proportional"},
    "in proportion, all types": {"oblivious_draw": "proportional", "oblivious_types": "all"},
}


@pytest.mark.parametrize(
    ("who", "words"), [("greedy", name) for name in GREEDY] + [("oblivious", name) for name in OBLIVIOUS]
)
def test_savings(zoo, who, words) -> None:
    """The built-in week: what the plan saves over greedy, and greedy over oblivious, by what the names leave open."""
    choice = (GREEDY if who == "greedy" else OBLIVIOUS)[words]
    fleet = hf.fleet("zoo10")
    plan = hf.plan(fleet, table=zoo, policy=hf.Policy(order_samples=0, **choice)).plan
    greedy, oblivious = plan.baselines["greedy"], plan.baselines["oblivious"]
    if who == "greedy":
        saving = plan.savings()["greedy"]
        peak, mean = (saving.peak_capacity, saving.peak_power), (saving.mean_capacity, saving.mean_power)
        short = int((~greedy.covers).sum())
    else:
        both = greedy.covers & oblivious.covers
        pairs = ((greedy.capacity, oblivious.capacity), (greedy.power_w, oblivious.power_w))
        peak = tuple(1 - a.max() / b.max() for a, b in pairs)
        mean = tuple(1 - a[both].sum() / b[both].sum() for a, b in pairs)
        short = int((~oblivious.covers).sum())
    assert plan.is_covered
    figures = " | ".join(percent(x) for x in (*peak, *mean))
    print(f"\n| {who} | {words} | {figures} | {short} |")


def test_evolution(zoo) -> None:
    """From rmc1-3 to mt-wnd, din and dien on the fleet's two plain CPU servers."""
    stock = {name: hf.fleet("zoo10").stock[name] for name in ("T1", "T2")}
    change = hf.provisioning.workload_evolution(zoo, stock, ("rmc1", "rmc2", "rmc3"), ("mt-wnd", "din", "dien"))
    assert change.plan.is_covered
    print(f"\n{change.explain()}")
