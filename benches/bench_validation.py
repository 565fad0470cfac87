"""Figures of the validation page: what effects and assumptions of the service-time model are worth, what the search
gains over its predecessors and what its intervals hold, what the provisioner saves. Prints rows of the page's tables.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import pytest
from tests.landscapes import nine

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.models import TableGroup
from hercules_fast.profiling.pairs import Pair, core_problem, make_pair, row_of, run_pairs
from hercules_fast.serving import ASSUMPTIONS, SWITCHES
from hercules_fast.serving.gather import host_gather, near_gather
from hercules_fast.tables import EfficiencyRow

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


# -- the search: gains, spreads, rankings, time and intervals ---------------------------------------------------------


def fitting() -> list[Pair]:
    """The pairs of `zoo10` and the nine models that fit."""
    made = [make_pair(server, workload, hf.Terms()) for server in hf.fleet("zoo10").servers for workload in nine()]
    return [pair for pair in made if pair.space is not None]


FINE = 65_536
"""Queries of the run on which found configurations are compared."""


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios)))


@pytest.mark.timeout(1200)
def test_gains() -> None:
    """QPS of what the search finds over that of two predecessors' ways, all three on one run of 65,536 queries.

    DeepRecSys: one core per copy on all cores, the batch, then the offload threshold; the first worse one stops.
    Baymax: whole queries one by one on copies that share the card, as many copies as carry most.
    """
    pairs = fitting()
    problems = [core_problem(pair, seed=0) for pair in pairs]
    found, _ = _core.search(problems)
    tuned, _ = _core.search(problems, method="deeprecsys", replications=2, most_replications=2)
    gains: dict[str, list[float]] = {"DeepRecSys": [], "Baymax": []}
    print("\n| server, workload | found | q/s | DeepRecSys-style | Baymax-style |\n| --- | --- | --- | --- | --- |")
    for pair, problem, ours, line in zip(pairs, problems, found, tuned, strict=True):
        space = pair.space
        kinds = space.coords[:, 0] == space.kinds.index("gpu")
        rivals = {
            "DeepRecSys": [line["best"]],
            "Baymax": np.flatnonzero(kinds & (space.candidates[:, 2] == 1)).tolist(),
        }
        (best,) = _core.candidate_rates(problem, [ours["best"]], queries=FINE)
        cells = []
        for name, candidates in rivals.items():
            rates = (
                _core.candidate_rates(problem, candidates, queries=FINE) if candidates and candidates[0] >= 0 else []
            )
            rate = max(rates, default=0.0)
            if rate > 0:
                gains[name].append(best / rate)
            cells.append(f"{rate:,.0f}, {best / rate:.2f}x" if rate > 0 else "none" if candidates else "")
        config = space.config(pair.table, ours["best"]).describe()
        print(f"| {pair.server.name}, {pair.workload.name} | {config} | {best:,.0f} | {' | '.join(cells)} |")
    for name, ratios in gains.items():
        print(
            f"over {name}: {len(ratios)} pairs, geometric mean {geometric_mean(ratios):.2f}x, most {max(ratios):.2f}x"
        )
        assert min(ratios) >= 0.99, "what they found is a configuration of ours too"


@pytest.fixture(scope="module")
def nine_models() -> hf.EfficiencyTable:
    return hf.profile(hf.fleet("zoo10").servers, nine())


def served(table: hf.EfficiencyTable, workload: str) -> list[EfficiencyRow]:
    return [row for row in table.rows if row.workload == workload and row.qps > 0]


SCORES: dict[str, Callable[[EfficiencyRow], float]] = {
    "q/s": lambda row: row.qps,
    "q/s per watt": lambda row: row.qps / row.power_w,
}


def halved(workload: hf.Workload) -> hf.Workload:
    slas = tuple(replace(sla, latency_ms=sla.latency_ms / 2) for sla in workload.slas)
    return replace(workload, slas=slas)


@pytest.mark.parametrize("latencies", ["as given", "halved"])
def test_spread(request, latencies) -> None:
    """Best over worst server type of each model, of those that serve it."""
    if latencies == "as given":
        table = request.getfixturevalue("nine_models")
    else:
        table = hf.profile(hf.fleet("zoo10").servers, [halved(workload) for workload in nine()], effort=QUICK)
    print(f"\nlatencies {latencies}\n| model | server types | " + " | ".join(SCORES) + " |\n| --- | --- | --- | --- |")
    for workload in table.workloads:
        rows = served(table, workload)
        cells = []
        for score in SCORES.values():
            best, worst = max(rows, key=score), min(rows, key=score)
            cells.append(f"{score(best) / score(worst):.1f}x, {best.server} over {worst.server}")
        print(f"| {workload} | {len(rows)} | {' | '.join(cells)} |")


@pytest.mark.timeout(1200)
def test_ranking(nine_models) -> None:
    """Server types of each model from best to worst: `>` where the intervals of neighbours lie apart, `~` where not.

    A position is firm where its interval meets that of no other server type.
    """
    again = hf.profile(hf.fleet("zoo10").servers, nine(), seed=1)
    print("\n| model | by | order |\n| --- | --- | --- |")
    for by, score in SCORES.items():
        firm = positions = moved = 0
        moved_firm: list[str] = []
        for workload in nine_models.workloads:
            rows = sorted(served(nine_models, workload), key=score, reverse=True)
            ends = [(score(row) * row.qps_lo / row.qps, score(row) * row.qps_hi / row.qps) for row in rows]
            apart = [
                [lo > other_hi or hi < other_lo for j, (other_lo, other_hi) in enumerate(ends) if j != k]
                for k, (lo, hi) in enumerate(ends)
            ]
            order = rows[0].server
            for (above, below), row in zip(pairwise(ends), rows[1:], strict=True):
                order += (" > " if above[0] > below[1] else " ~ ") + row.server
            other = [row.server for row in sorted(served(again, workload), key=score, reverse=True)]
            places = [row.server != name for row, name in zip(rows, other, strict=True)]
            positions += len(rows)
            firm += sum(map(all, apart))
            moved += sum(places)
            moved_firm += [
                f"{workload} on {row.server}" for row, m, a in zip(rows, places, apart, strict=True) if m and all(a)
            ]
            print(f"| {workload} | {by} | {order} |")
        print(
            f"by {by}: {firm} of {positions} positions firm; another seed moves {moved}, of the firm ones {moved_firm}"
        )


IN_RUST = ("search", "SearchProblem", "ServiceGrid", "Traffic", "simulate_dram", "simulate_nmp")
"""What a profile calls of the core."""


def timed_profile() -> tuple[float, float, dict[str, float], hf.EfficiencyTable]:
    """The table in a fresh process: wall and CPU seconds, CPU seconds of each call into the core, and the table.

    CPU seconds are those of all threads of the process while a call lasts; what the search's own thread does meanwhile
    to tell of finished pairs, in Python, is taken off.
    """
    spent = dict.fromkeys(IN_RUST, 0.0)

    def timed(name: str) -> Callable:
        call = getattr(_core, name)

        def told(finished: Callable, *what: object) -> None:
            at = time.thread_time()
            finished(*what)
            spent[name] -= time.thread_time() - at

        def wrapped(*args: object, **kwargs: object) -> object:
            if kwargs.get("finished"):
                kwargs["finished"] = partial(told, kwargs["finished"])
            at = time.process_time()
            answer = call(*args, **kwargs)
            spent[name] += time.process_time() - at
            return answer

        return wrapped

    for name in IN_RUST:
        setattr(_core, name, timed(name))
    wall, cpu = time.perf_counter(), time.process_time()
    table = hf.profile(hf.fleet("zoo10").servers, nine())
    return time.perf_counter() - wall, time.process_time() - cpu, spent, table


@pytest.mark.timeout(1200)
def test_table() -> None:
    """The whole 10 x 9 table with the default effort: its time, the share outside Rust, its intervals, its growth."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        wall, cpu, spent, table = pool.submit(timed_profile).result()
    rows = [row for row in table.rows if row.qps > 0]
    outside = cpu - sum(spent.values())
    widest = max(((row.qps_hi - row.qps_lo) / 2 / row.qps, row.server, row.workload) for row in rows)
    print(f"\n{len(table.rows)} pairs, {len(rows)} served: {wall:.1f} s, target 30, aim 10; {cpu:.1f} s of CPU")
    print(f"CPU outside the search {1 - spent['search'] / cpu:.1%}, outside Rust {outside / cpu:.1%}, target 5 %")
    print(f"widest interval: +-{widest[0]:.2%}, {widest[2]} on {widest[1]}, target 1 %")
    assert widest[0] <= 0.01
    assert outside / cpu < 0.05

    pairs = fitting()
    order = np.random.default_rng(0).permutation(len(pairs))
    for size in (5, 10, 20, 40, len(pairs)):
        at = time.process_time()
        for first in range(0, len(pairs), size):
            call = [pairs[k] for k in order[first : first + size]]
            for pair, result in zip(call, run_pairs(call, "gradient", 0, None, hf.Effort())[0], strict=True):
                row_of(pair, result, 0)
        print(f"the table in calls of {size} pairs: {(time.process_time() - at) / len(pairs):.3f} s of CPU per pair")


# M/M/c, sojourns longer than t: e^-t + P(wait) (e^-t - e^-(c - a)t) / (c - a - 1); one service is the unit of time.
UNIT = 100
"""Items of a mean service: exponential services as sizes, each counted at its middle."""
QUEUES = [(1, 0.99, 20.0), (8, 0.99, 6.0), (4, 0.95, 12.0), (18, 0.95, 3.3)]


def tail(servers: int, load: float, target: float) -> float:
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    waits = blocked / (1 - (load / servers) * (1 - blocked))
    spare = servers - load
    return math.exp(-target) + waits * (math.exp(-target) - math.exp(-spare * target)) / (spare - 1)


def highest_load(servers: int, percentile: float, target: float) -> float:
    low, high = 0.0, float(servers)
    while high - low > 1e-9:
        middle = (low + high) / 2 + 1e-12
        low, high = (middle, high) if tail(servers, middle, target) <= 1 - percentile else (low, middle)
    return low


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("servers", "percentile", "target"), QUEUES)
def test_coverage(servers: int, percentile: float, target: float) -> None:
    """Share of answers whose interval holds the exact highest load of M/M/c: one configuration, 200 seeds."""
    largest = 16 * UNIT
    pmf = np.diff(-np.expm1(-np.arange(largest + 1) / UNIT))
    items = np.array([1, largest])
    seconds = ((items - 0.5) / UNIT)[None, None, :, None]
    grid = _core.ServiceGrid(items, np.array([1]), seconds, np.zeros((1, 1, 2)), ["query"], [0])
    candidate = np.array([[0, largest, 1, 0, -1, 0, servers]])
    problems = [
        _core.SearchProblem(
            grid,
            _core.Traffic("poisson", [], pmf / pmf.sum(), seed),
            candidate,
            np.array([[0, 0]]),
            np.array([0]),
            [(percentile, target)],
        )
        for seed in range(200)
    ]
    exact = highest_load(servers, percentile, target)
    answers, _ = _core.search(problems, cap=0.999)
    qps, low, high = (np.array([a[name] for a in answers]) for name in ("qps", "qps_lo", "qps_hi"))
    held = np.mean((low <= exact) & (exact <= high))
    half, spread = np.mean((high - low) / 2) / exact, 1.96 * np.std(qps, ddof=1) / exact
    print(
        f"\n| M/M/{servers}, p{100 * percentile:g} within {target:g} services | {exact / servers:.3f} | {held:.1%} "
        f"| {np.mean(qps) / exact - 1:+.2%} | {half:.2%} | {spread:.2%} | {sum(not a['precise'] for a in answers)} |"
    )
    assert held >= 0.88


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
