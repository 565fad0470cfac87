"""``simulate``, ``sweep`` and ``max_load`` on the core itself: figures as it gives them, laws that results obey."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.queueing import load_curve, load_simulation
from hercules_fast.serving.simulation import core_grid, core_traffic
from hercules_fast.tables import SchedulingConfig, ServiceTable, TableStage, TableVariant
from hercules_fast.traffic import Sla
from tests.differential.test_search_inputs import SIZES
from tests.unit.test_queueing_files import EXAMPLES
from tests.unit.test_tables import make_table

MM1 = hf.System.pool(hf.LawService(mean_s=0.01))
HALF = hf.Queries(qps=50.0)
LAW = hf.Law(kind="lognormal", sigma=0.5)


def test_mm1_within_its_intervals() -> None:
    """The closed form: a sojourn is exponential with mean 1 / (mu - lambda) = 20 ms."""
    result = hf.simulate(MM1, HALF, queries=1_000_000, seed=1)
    wanted = [-20.0 * math.log(1.0 - p / 100.0) for p in result.percentiles]
    for latency_ms, half_ms, exact_ms in zip(result.latency_ms, result.half_width_ms, wanted, strict=True):
        assert abs(latency_ms - exact_ms) < 2 * half_ms < 0.1 * exact_ms
    assert result.mean_latency_ms == pytest.approx(20.0, abs=2 * result.mean_half_width_ms)
    assert result.stations[0].utilisation == pytest.approx(0.5, rel=0.01)
    assert result.throughput_qps == pytest.approx(50.0, rel=0.01)
    assert result.stable and result.loss == 0.0
    json.dumps(result.to_dict(), allow_nan=False)


def test_threads_change_no_figure_and_the_seed_does() -> None:
    one, two = (hf.simulate(MM1, HALF, queries=50_000, threads=threads).to_dict() for threads in (1, 2))
    assert one == two
    assert hf.simulate(MM1, HALF, queries=50_000, seed=1).latency_ms != tuple(one["latency_ms"])


@pytest.mark.parametrize(
    "arrivals",
    [
        hf.Arrivals(kind="deterministic"),
        hf.Arrivals(kind="erlang", k=3),
        hf.Arrivals(kind="gamma", shape=0.7),
        hf.Arrivals(kind="lognormal", sigma=0.8),
        hf.Arrivals(kind="hyperexponential", probabilities=(0.3, 0.7), rates=(0.5, 2.0)),
        hf.Arrivals(kind="deeprecsys-gap", mean_ticks=25.0),
        hf.Arrivals(kind="mmpp", rates=(1.0, 2.0), switch_per_s=((0.0, 1.0), (1.0, 0.0))),
        hf.Arrivals(kind="rates", rates=(1.0, 2.0), end_rates=(2.0, 1.0), durations_s=(3.0, 2.0)),
        hf.Arrivals(kind="diurnal", amplitude=0.5, period_s=20.0),
        hf.Arrivals(kind="poisson", group=(0.5, 0.25, 0.25)),
    ],
    ids=lambda a: a.kind + "-group" * bool(a.group),
)
def test_every_arrival_process_comes_at_its_rate(arrivals: hf.Arrivals) -> None:
    result = hf.simulate(MM1, hf.Queries(qps=30.0, arrivals=arrivals), queries=100_000)
    assert result.throughput_qps == pytest.approx(30.0, rel=0.05)


@pytest.mark.parametrize(
    "system",
    [
        hf.System.pool(hf.LawService(mean_s=0.01, law=LAW)),
        hf.System.pool(hf.LinearService(base_s=0.005, per_item_s=0.005, noise=LAW)),
        hf.System.pool(hf.TableService(items=(1,), busy=(1,), seconds=((0.01,),), noise=LAW)),
    ],
    ids=["law", "linear", "table"],
)
def test_every_service_takes_its_mean(system: hf.System) -> None:
    result = hf.simulate(system, HALF, queries=50_000)
    assert result.stations[0].utilisation == pytest.approx(0.5, rel=0.03)
    assert result.bottleneck_qps == pytest.approx(100.0, rel=1e-6)


@pytest.mark.parametrize(
    ("variant", "threads"), [(0, (2, 0)), (1, (0, 1)), (1, (2, 1))], ids=["pool", "device", "both"]
)
def test_a_table_behaves_as_in_the_engine_of_the_search(variant: int, threads: tuple[int, int]) -> None:
    """Two engines that share no code, on a pool with interference, a device that fuses, and one behind the other."""
    table = make_table()
    config = table.config(variant, threads, batch=4, fuse_items=16, max_wait_us=500)
    grid, traffic = core_grid(table), core_traffic(SIZES, hf.Arrivals(kind="poisson"), 1)
    row = np.array(config.row)
    qps = 0.6 * _core.bottleneck_qps(grid, traffic, row)
    old = _core.simulate(grid, traffic, row, qps, 200_000, 20_000, [0.5, 0.95, 0.99])
    new = hf.simulate(hf.System.from_table(table, config), hf.Queries(qps=qps, sizes=SIZES), queries=200_000)
    assert new.latency_ms == pytest.approx(1e3 * old["percentiles_s"], rel=0.04)
    used = [s for s, count in enumerate(threads) if count]
    assert [s.utilisation for s in new.stations] == pytest.approx(old["utilisation"][used], rel=0.02)
    assert [s.items_per_execution for s in new.stations] == pytest.approx(old["items_per_execution"][used], rel=0.02)
    assert new.bottleneck_qps == pytest.approx(qps / 0.6)


def pipeline(slowed_by: str = "sparse", **changes) -> ServiceTable:
    """Two pools, the second slowed by ``slowed_by``, and a device."""
    items, busy = np.array([1, 8, 64]), np.array([1, 2, 4])
    stages = (
        TableStage(name="sparse", group="cpu", unit="sub_batch", busy_of="sparse"),
        TableStage(name="dense", group="cpu", unit="sub_batch", busy_of=slowed_by),
        TableStage(name="gpu", group="gpu", unit="fused", busy_of="gpu"),
    )
    variant = TableVariant(name="a", kind="cpu-sd", operator_cores=(1, 1, 0), max_instances=2)
    seconds = np.empty((1, 3, 3, 3))
    seconds[0, 0] = 1e-3 * items[:, None] * (1 + 0.2 * busy[None, :])
    seconds[0, 1] = 2e-3 + 5e-4 * items[:, None] * (1 + 0.3 * busy[None, :])
    seconds[0, 2] = 1e-3 + 1e-4 * items[:, None] * busy[None, :]
    fields = {"stages": stages, "variants": (variant,), "seconds": seconds, "energy_j": np.zeros((1, 3, 3))}
    return make_table(**(fields | {"noise_cv": np.zeros(3)} | changes))


CASES = {
    "without places between": ((2, 2, 0), {"buffer": 0}, (0.0, 0.0, 0.0)),
    "few places between": ((3, 1, 0), {"buffer": 2}, (0.0, 0.0, 0.0)),
    # With noise, so that no two queries come to the device at once: the engines let it launch with one or with both.
    "few places, then a device": ((2, 2, 1), {"buffer": 1, "fuse_items": 16, "max_wait_us": 500}, (0.3, 0.2, 0.0)),
    "large queries to the device": ((3, 0, 2), {"offload_items": 5, "fuse_items": 16}, (0.0, 0.0, 0.0)),
    "noise": ((2, 2, 0), {}, (0.3, 0.8, 0.0)),
    "noise and few places": ((2, 2, 0), {"buffer": 1}, (0.3, 0.8, 0.0)),
}


def one_after_another(table: ServiceTable, config: SchedulingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Times and sizes of queries that keep the system busy; no two things happen at once."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 9, 4000)
    traffic = core_traffic(SIZES, hf.Arrivals(kind="poisson"), 1)
    qps = 0.8 * _core.bottleneck_qps(core_grid(table), traffic, np.array(config.row))
    return np.cumsum(rng.exponential(1.0 / qps, sizes.size)), sizes


@pytest.mark.parametrize("case", CASES)
def test_a_table_gives_the_latencies_of_the_engine_of_the_search(case: str) -> None:
    """Query by query: a buffer, an offload and noise mean the same in two engines that share no code."""
    threads, options, noise_cv = CASES[case]
    table = pipeline(noise_cv=np.array(noise_cv))
    config = table.config(0, threads, batch=4, **options)
    arrival_s, sizes = one_after_another(table, config)
    old = _core.simulate_trace(core_grid(table), np.array(config.row), arrival_s, sizes, 7)
    trace = hf.Trace(arrival_s=arrival_s, sizes=sizes)
    system = hf.System.from_table(table, config)
    new = hf.simulate(system, trace, warmup=0, seed=7, keep_latencies=True, allow_unstable=True)
    assert new.latencies_ms == pytest.approx(1e3 * old, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_both_engines_know_the_same_bottleneck(case: str) -> None:
    threads, options, noise_cv = CASES[case]
    table = pipeline(noise_cv=np.array(noise_cv))
    config = table.config(0, threads, batch=4, **options)
    traffic = core_traffic(SIZES, hf.Arrivals(kind="poisson"), 1)
    bound = _core.bottleneck_qps(core_grid(table), traffic, np.array(config.row))
    queries = hf.Queries(qps=0.3 * bound, sizes=SIZES)
    found = hf.simulate(hf.System.from_table(table, config), queries, queries=5000)
    assert found.bottleneck_qps == pytest.approx(bound, rel=1e-9)


def test_a_threshold_of_one_item_sends_all_to_the_device() -> None:
    table = pipeline()
    every, none = (table.config(0, (3, 0, 2), batch=4, offload_items=items) for items in (1, 9))
    gpu, both = (hf.System.from_table(table, config) for config in (every, none))
    assert gpu.station_names == ("gpu",) and both.routes[1].min_size == 9
    queries = hf.Queries(qps=100.0, sizes=SIZES)
    pool = hf.System.from_table(table, table.config(0, (3, 0, 0), batch=4))
    found, expected = (hf.simulate(system, queries, queries=20_000) for system in (both, pool))
    assert found.latency_ms == expected.latency_ms


def test_an_offload_between_stages_that_slow_each_other_is_refused() -> None:
    table = pipeline()
    config = table.config(0, (2, 1, 0), batch=4, offload_items=5)
    with pytest.raises(
        InputError, match=r"config\.offload_items: is 5; allowed is 0, since 'sparse' slows 'dense' down"
    ):
        hf.System.from_table(table, config)
    traffic = core_traffic(SIZES, hf.Arrivals(kind="poisson"), 1)
    with pytest.raises(InputError, match="offload_items: is 5; allowed is 0, since stage 0 slows stage 1 down"):
        _core.bottleneck_qps(core_grid(table), traffic, np.array(config.row))


def test_kept_latencies_give_the_percentiles() -> None:
    result = hf.simulate(MM1, HALF, queries=20_000, keep_latencies=True, warmup=0)
    latencies = result.latencies_ms
    assert latencies is not None and latencies.size == 20_000 and not np.isnan(latencies).any()
    exact = np.quantile(latencies, [p / 100 for p in result.percentiles], method="inverted_cdf")
    assert result.latency_ms == pytest.approx(exact, rel=1e-3)


def test_a_replayed_run_is_the_run(tmp_path) -> None:
    found = load_simulation(EXAMPLES / "pipeline.toml")
    run = hf.simulate(found.system, found.queries, queries=20_000, keep_latencies=True, keep_trace=True)
    assert run.trace is not None
    run.trace.save(tmp_path / "run.npz")
    again = hf.simulate(found.system, hf.Trace.load(tmp_path / "run.npz"), warmup=run.warmup, keep_latencies=True)
    assert np.array_equal(again.latencies_ms, run.latencies_ms, equal_nan=True)
    assert again.latency_ms == run.latency_ms


def test_the_examples_run() -> None:
    for name in ("pipeline.toml", "offload.toml"):
        found = load_simulation(EXAMPLES / name)
        result = hf.simulate(found.system, found.queries, queries=50_000)
        assert result.stable and all(0 < s.utilisation < 1 for s in result.stations), name
    assert result.stations[1].items_per_execution > 256


def test_a_target_precision_is_reached() -> None:
    result = hf.simulate(MM1, HALF, precision=0.02)
    assert result.half_width_ms[2] <= 0.02 * result.latency_ms[2]


def test_refusals_that_need_the_core() -> None:
    with pytest.raises(InputError, match=r"qps: is 120, a utilisation of 120.0% at 'station 0'"):
        hf.simulate(MM1, hf.Queries(qps=120.0))
    assert not hf.simulate(MM1, hf.Queries(qps=120.0), queries=20_000, allow_unstable=True).stable
    lossy = hf.System.pool(hf.LawService(mean_s=0.01), capacity=3)
    assert hf.simulate(lossy, hf.Queries(qps=120.0), queries=20_000).loss > 0.1


def test_a_load_curve_rises() -> None:
    results = load_curve(MM1, HALF, 5, queries=100_000)
    assert [r.qps for r in results] == pytest.approx([19.0, 38.0, 57.0, 76.0, 95.0])
    means = [r.mean_latency_ms for r in results]
    assert means == sorted(means), "on common random numbers more load is never faster in one pool"


def test_a_sweep_gives_what_single_runs_give() -> None:
    loads = [hf.Queries(qps=q) for q in (20.0, 60.0)]
    together = hf.sweep(MM1, loads, queries=20_000, seed=4)
    assert [r.to_dict() for r in together] == [hf.simulate(MM1, q, queries=20_000, seed=4).to_dict() for q in loads]


def test_the_highest_load_of_mm1() -> None:
    """p99 of the sojourn is ln(100) / (mu - lambda): 92.1 ms is reached at lambda = 50."""
    sla = Sla(percentile=99, latency_ms=20.0 * math.log(100.0))
    result = hf.max_load(MM1, HALF, sla=sla)
    assert result.qps == pytest.approx(50.0, rel=0.01)
    assert result.limit == f"sla: {sla}"
    assert result.interval_qps[0] <= result.qps <= result.interval_qps[1]
    nothing = hf.max_load(MM1, HALF, sla=Sla(percentile=99, latency_ms=1.0))
    assert nothing.qps == 0.0 and nothing.limit.startswith("unloaded latency")
    assert hf.max_load(MM1, HALF, sla=Sla(percentile=50, latency_ms=1e6)).limit == "utilisation cap"
