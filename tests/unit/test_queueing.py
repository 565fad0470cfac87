"""The description of a simulation: what it refuses, what the core is told, and MLPerf's rule."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast.errors import ConfigError, DTypeError, InputError, MissingFileError, OutputError
from hercules_fast.queueing.mlperf import _binomial_below
from hercules_fast.traffic import SizeComponent, SizeLaw
from tests.unit.test_tables import make_table

EXPONENTIAL = hf.LawService(mean_s=0.01)
SIZES = SizeLaw(name="two", max_items=4, components=(SizeComponent(weight=1.0, kind="uniform", low=1, high=2),))


def station(**changes: Any) -> hf.Station:
    return hf.Station(**({"service": EXPONENTIAL} | changes))


def route(*stations: hf.Station, **changes: Any) -> hf.Route:
    return hf.Route(stations=stations or (station(),), **changes)


# --- what is refused --------------------------------------------------------------------------------------------------

TABLE = {"items": (1, 4), "busy": (1, 2), "seconds": ((0.1, 0.2), (0.3, 0.4))}
FUSED = {"unit": "fused", "max_queries": 4}

REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: hf.Law(kind="normal"), "kind: is 'normal'; allowed is one of exponential, deterministic"),
    (lambda: hf.Law(kind="erlang"), "k: is None; allowed is a whole number from 1"),
    (lambda: hf.Law(kind="erlang", k=2.5), "k: is 2.5; allowed is a whole number"),
    (lambda: hf.Law(kind="lognormal", sigma=-1.0), "sigma: is -1.0; allowed is a number, finite > 0 and <= 5"),
    (lambda: hf.Law(kind="gamma", shape=math.nan), "shape: is nan"),
    (lambda: hf.Law(kind="exponential", sigma=0.5), "sigma: is 0.5; allowed is nothing, it does not apply to kind"),
    (lambda: hf.Law(kind="uniform", low=2.0, high=1.0), "low: is 2.0; allowed is below high = 1.0"),
    (lambda: hf.Law(kind="empirical", values=[1, 2], probabilities=[1.0]), "probabilities: is .*2 numbers whose sum"),
    (lambda: hf.Law(kind="hyperexponential", rates=[1, 2], probabilities=[0.5, 0.4]), "whose sum is 1"),
    (lambda: hf.Law(kind="replay", values=[0.0, 0.0]), "values: is .*; allowed is at least one number above 0"),
    (lambda: hf.LawService(mean_s=0.0), "mean_s: is 0.0; allowed is a number, finite >= 1e-12"),
    (lambda: hf.LawService(mean_s="1ms"), "mean_s: is '1ms'"),
    (lambda: hf.LawService(mean_s=1.0, law="exponential"), "law: is 'exponential'; allowed is a Law"),
    (lambda: hf.LinearService(), r"base_s \+ per_item_s: is 0.0"),
    (lambda: hf.LinearService(base_s=-1.0), "base_s: is -1.0"),
    (lambda: hf.LinearService(base_s=1.0, noise=0.3), "noise: is 0.3; allowed is a Law or None"),
    (lambda: hf.TableService(**{**TABLE, "items": (2, 4)}), r"items: is \(2, 4\); allowed is whole numbers that start"),
    (lambda: hf.TableService(**{**TABLE, "seconds": ((0.1, 0.2),)}), r"seconds: is \[2\]; allowed is \[2, 2\] numbers"),
    (lambda: hf.TableService(**{**TABLE, "seconds": ((0.1, 0.2), (0.3, -1))}), r"seconds\[1\]\[1\]: is -1"),
    (lambda: station(threads=0), "threads: is 0; allowed is a whole number from 1"),
    (lambda: station(threads=True), "threads: is True"),
    (lambda: station(unit="batch"), "unit: is 'batch'; allowed is one of sub_batch, query, fused"),
    (lambda: station(service=0.1), "service: is 0.1; allowed is a LawService"),
    (lambda: station(buffer=-1), "buffer: is -1; allowed is a whole number from 0 .* or None"),
    (lambda: station(speed=[1.0]), r"speed: is \(1.0,\); allowed is nothing without interference"),
    (lambda: station(slowed_by=0), "slowed_by: is 0; allowed is None without interference"),
    (lambda: station(interference="at_start"), r"speed: is \(\); allowed is the speed while 1, 2"),
    (lambda: station(interference="at_start", speed=[0.9, 0.8]), r"speed\[0\]: is 0.9; allowed is 1"),
    (lambda: station(interference="at_start", speed=[1.0, 0.0]), r"speed\[1\]: is 0.0"),
    (lambda: station(service=hf.TableService(**TABLE), interference="at_start", speed=[1.0]), "busy axis says it"),
    (lambda: station(unit="fused"), "max_queries: is None; allowed is a limit of a launch"),
    (lambda: station(**FUSED, max_wait_s=-1.0), "max_wait_s: is -1.0"),
    (lambda: station(max_items=8), "max_items: is 8; allowed is nothing, only fused"),
    (lambda: hf.Route(stations=()), r"stations: is \(\); allowed is 1 to 64 Stations"),
    (lambda: hf.Route(stations=(EXPONENTIAL,)), r"stations\[0\]: is LawService.*; allowed is a Station"),
    (lambda: route(batch=0), "batch: is 0; allowed is a whole number from 1"),
    (lambda: route(station(buffer=2)), r"stations\[0\].buffer: is 2; allowed is None"),
    (
        lambda: route(station(interference="at_start", speed=[1.0], slowed_by=1)),
        r"stations\[0\].slowed_by: is 1; allowed is a station up to this one, 0",
    ),
    (lambda: hf.System(routes=()), "routes: is .*; allowed is 1 to 64 Routes"),
    (lambda: hf.System(routes=(route(min_size=2),)), r"routes\[0\].min_size: is 2; allowed is 1 in the first"),
    (lambda: hf.System(routes=(route(), route())), r"routes\[1\].min_size: is 1; allowed is more than .* before, 1"),
    (lambda: hf.System.pool(EXPONENTIAL, capacity=0), "capacity: is 0; allowed is a whole number from 1"),
    (lambda: hf.System.pool(EXPONENTIAL, drop_after_s=math.inf), "drop_after_s: is inf"),
    (lambda: hf.Queries(qps=0.0), "qps: is 0.0; allowed is a number, finite >= 1e-12"),
    (lambda: hf.Queries(qps=1.0, arrivals="poisson"), "arrivals: is 'poisson'; allowed is an Arrivals"),
    (lambda: hf.Queries(qps=1.0, sizes=3), "sizes: is 3; allowed is a SizeLaw or None"),
    (lambda: hf.Queries(qps=1.0, arrivals=hf.Arrivals(kind="gamma")), "shape: 0.0 is outside what is allowed"),
    (
        lambda: hf.Queries(qps=1.0, arrivals=hf.Arrivals(kind="poisson", group=(0.5, 0.4))),
        "group: sum to 0.9; allowed: 1",
    ),
    (
        lambda: hf.Queries(qps=1.0, arrivals=hf.Arrivals(kind="mmpp", rates=(1.0, 2.0), switch_per_s=((0.0, 1.0),))),
        "switch_per_s: is not square; allowed is 2 rows",
    ),
    (
        lambda: hf.Queries(qps=1.0, arrivals=hf.Arrivals(kind="mmpp", rates=(1.0,), switch_per_s=((0.0,),))),
        "rates: 1 states; allowed are 2 to 64",
    ),
    (
        lambda: hf.Queries(
            qps=1.0, arrivals=hf.Arrivals(kind="mmpp", rates=(1.0, 2.0), switch_per_s=((0.0, 1.0), (0.0, 0.0)))
        ),
        "switch_per_s: state 1 never leads to state 0",
    ),
    (
        lambda: hf.Queries(qps=1.0, arrivals=hf.Arrivals(kind="rates", rates=(1.0, 2.0), durations_s=(1.0,))),
        "durations_s: 1 durations for 2 rates",
    ),
    (
        lambda: hf.Queries(qps=1.0, arrivals=hf.Arrivals(kind="diurnal", amplitude=1.5, period_s=10.0)),
        "amplitude: 1.5 is outside what is allowed",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=range(len(REFUSED)))
def test_bad_descriptions_are_refused_by_field_and_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        station(threads=0, unit="pool", buffer=-1, interference="some")
    assert [fault.path for fault in raised.value.faults] == ["threads", "unit", "buffer", "interference"]


# --- what the core is told --------------------------------------------------------------------------------------------


def test_a_system_as_the_core_takes_it() -> None:
    first = station(
        threads=np.int64(3), interference="dynamic_rate", speed=[1, 0.5], service=hf.LinearService(base_s=0.001)
    )
    last = station(buffer=2, unit="fused", max_items=64, max_wait_s=0.002)
    system = hf.System.chain(first, last, batch=8, capacity=9, drop_after_s=0.5)
    told = system.to_core()
    assert (told["capacity"], told["drop_after_s"]) == (9, 0.5)
    ((head, tail),) = [route["stations"] for route in told["routes"]]
    assert {"min_size": 1, "batch": 8}.items() <= told["routes"][0].items()
    assert head == {
        "unit": "sub_batch",
        "threads": 3,
        "service": {"kind": "linear", "base_s": 0.001, "per_item_s": 0.0, "noise": None},
        "buffer": None,
        "interference": "dynamic_rate",
        "slowed_by": 0,
        "speed": [1.0, 0.5],
        "max_queries": None,
        "max_items": None,
        "max_wait_s": 0.0,
    }
    assert tail["service"] == {"kind": "law", "law": "exponential", "params": [], "mean_s": 0.01}
    assert (tail["buffer"], tail["slowed_by"], tail["max_items"], tail["max_wait_s"]) == (2, 1, 64, 0.002)


@pytest.mark.parametrize(
    ("law", "params"),
    [
        (hf.Law(kind="erlang", k=3), [3.0]),
        (hf.Law(kind="uniform", low=1, high=3), [1.0, 3.0]),
        (hf.Law(kind="hyperexponential", probabilities=[0.25, 0.75], rates=[1, 2]), [0.25, 0.75, 1.0, 2.0]),
        (hf.Law(kind="empirical", values=np.array([1.0, 4.0]), probabilities=(0.5, 0.5)), [1.0, 4.0, 0.5, 0.5]),
        (hf.Law(kind="replay", values=[2, 3, 5]), [2.0, 3.0, 5.0]),
    ],
    ids=lambda x: x.kind if isinstance(x, hf.Law) else "",
)
def test_parameters_of_a_law_in_the_order_of_the_core(law: hf.Law, params: list[float]) -> None:
    told = hf.LawService(mean_s=2.0, law=law).to_core()
    assert told == {"kind": "law", "law": law.kind, "params": params, "mean_s": 2.0}
    assert hash(law) == hash(dataclasses.replace(law))


@pytest.mark.parametrize(
    ("arrivals", "told"),
    [
        (hf.Arrivals(kind="poisson"), {"kind": "law", "law": "exponential", "params": [], "group": None}),
        (
            hf.Arrivals(kind="gamma", shape=0.5, group=(0.5, 0.5)),
            {"kind": "law", "law": "gamma", "params": [0.5], "group": [0.5, 0.5]},
        ),
        (
            hf.Arrivals(kind="mmpp", rates=(1.0, 0.0), switch_per_s=((0.0, 2.0), (3.0, 0.0))),
            {"kind": "mmpp", "rates": [1.0, 0.0], "switch": [[0.0, 2.0], [3.0, 0.0]], "group": None},
        ),
        (
            hf.Arrivals(kind="rates", rates=(1.0, 2.0), durations_s=(5.0, 6.0)),
            {"kind": "rates", "durations_s": [5.0, 6.0], "from": [1.0, 2.0], "to": [1.0, 2.0], "group": None},
        ),
        (
            hf.Arrivals(kind="diurnal", amplitude=0.5, period_s=86400.0),
            {"kind": "diurnal", "amplitude": 0.5, "period_s": 86400.0, "group": None},
        ),
    ],
    ids=lambda x: x.kind if isinstance(x, hf.Arrivals) else "",
)
def test_arrivals_as_the_core_takes_them(arrivals: hf.Arrivals, told: dict[str, Any]) -> None:
    assert hf.Queries(qps=1.0, arrivals=arrivals).to_core() == told


def test_arrivals_come_from_files_too(tmp_path) -> None:
    path = tmp_path / "bursts.toml"
    text = 'schema = "hercules_fast.arrivals/1"\nname = "bursts"\nkind = "mmpp"\nrates = [1.0, 4.0]\n'
    text += "switch_per_s = [[0.0, 0.1], [0.9, 0.0]]\ngroup = [0.9, 0.1]\n"
    path.write_text(text + '[sources]\n"rates, switch_per_s, group" = "user: guessed"\n')
    found = hf.traffic.load_arrivals(path)
    assert hf.Queries(qps=1.0, arrivals=found).to_core()["switch"] == [[0.0, 0.1], [0.9, 0.0]]
    path.write_text(text.replace("rates", "shape = 2.0\nrates"))
    with pytest.raises(ConfigError, match="shape: does not apply to kind = 'mmpp'"):
        hf.traffic.load_arrivals(path)


def test_sizes_of_queries() -> None:
    assert hf.Queries(qps=1.0).size_pmf().tolist() == [1.0]
    assert hf.Queries(qps=1.0, sizes=SIZES).size_pmf().tolist() == [0.5, 0.5, 0.0, 0.0]


def test_stations_have_different_names() -> None:
    system = hf.System(routes=(route(station(name="cpu"), station()), route(station(name="cpu"), min_size=9)))
    assert system.station_names == ("cpu", "route 0 station 1", "cpu (route 1 station 0)")
    assert hf.System.pool(EXPONENTIAL).station_names == ("station 0",)


# --- a table and a configuration ----------------------------------------------------------------------------------


def test_a_table_becomes_stations() -> None:
    table = make_table(noise_cv=np.array([0.0, 0.5]))
    both = table.config(1, (2, 1), batch=8, fuse_items=16, max_wait_us=250)
    cpu, gpu = hf.System.from_table(table, both).stations
    assert (cpu.name, cpu.threads, cpu.unit, cpu.interference, cpu.slowed_by) == (
        "model",
        2,
        "sub_batch",
        "at_start",
        0,
    )
    assert cpu.service == hf.TableService(items=table.items, busy=table.busy, seconds=table.seconds[1, 0])
    assert (gpu.unit, gpu.max_items, gpu.max_queries, gpu.slowed_by) == ("fused", 16, None, 1)
    assert gpu.max_wait_s == pytest.approx(250e-6)
    noise = gpu.service.noise
    assert noise.kind == "lognormal"
    assert math.sqrt(math.expm1(noise.sigma**2)) == pytest.approx(0.5), "the coefficient of variation"
    assert hf.System.from_table(table, both).routes[0].batch == 8


def test_without_interference_a_service_takes_the_time_of_a_thread_alone() -> None:
    groups = tuple(dataclasses.replace(group, interference="none") for group in make_table().groups)
    table = make_table(groups=groups)
    (cpu,) = hf.System.from_table(table, table.config(0, (2, 0), batch=8)).stations
    assert (cpu.interference, cpu.slowed_by) == ("none", None)
    assert cpu.service == hf.TableService(items=table.items, seconds=table.seconds[0, 0, :, :1])


def test_a_stage_slowed_by_one_that_is_not_used_is_alone() -> None:
    stages = (make_table().stages[0], dataclasses.replace(make_table().stages[1], busy_of="model"))
    table = make_table(stages=stages)
    (gpu,) = hf.System.from_table(table, table.config(1, (0, 1), batch=8)).stations
    assert (gpu.interference, gpu.service.busy) == ("none", (1,))
    _, after = hf.System.from_table(table, table.config(1, (1, 1), batch=8)).stations
    assert (after.interference, after.slowed_by) == ("at_start", 0)


def test_a_rate_that_changes_during_a_service_is_passed_on() -> None:
    groups = tuple(dataclasses.replace(group, interference="dynamic_rate") for group in make_table().groups)
    table = make_table(groups=groups)
    (cpu,) = hf.System.from_table(table, table.config(0, (2, 0), batch=8)).stations
    assert cpu.interference == "dynamic_rate"


def test_a_configuration_of_another_table_is_refused() -> None:
    table = make_table()
    config = table.config(0, (2, 0), batch=8)
    with pytest.raises(InputError, match=r"config: is of stages \('a',\)"):
        hf.System.from_table(table, dataclasses.replace(config, stages=("a",)))
    with pytest.raises(InputError, match=r"config.threads\[1\]: is 1; variant 'a' does not use 'gpu'"):
        hf.System.from_table(table, dataclasses.replace(config, threads=(1, 1)))


# --- traces -----------------------------------------------------------------------------------------------------------

TIMES = np.array([0.0, 0.5, 0.5, 2.0])
ONES = np.ones(4, np.int64)


def test_a_trace_copies_nothing_and_leaves_the_arrays_writable() -> None:
    times, sizes = TIMES.copy(), np.array([1, 2, 2, 7])
    trace = hf.Trace(arrival_s=times, sizes=sizes)
    told = trace.to_core()
    assert np.shares_memory(told["arrival_s"], times) and np.shares_memory(told["sizes"], sizes)
    assert not trace.arrival_s.flags.writeable and times.flags.writeable
    assert {name: told[name] for name in ("kind", "starts", "cycles", "cycle_s", "rate_scale")} == {
        "kind": "trace",
        "starts": [0],
        "cycles": 1,
        "cycle_s": None,
        "rate_scale": 1.0,
    }
    assert trace.size_pmf().tolist() == [0.25, 0.5, 0, 0, 0, 0, 0.25]
    assert (trace.queries, trace.qps) == (4, 2.0)
    assert dataclasses.replace(trace, rate_scale=3.0).qps == 6.0


def test_parts_and_cycles_of_a_trace() -> None:
    parts = hf.Trace(arrival_s=np.array([1.0, 2.0, 0.5, 2.0]), starts=np.array([0, 2]))
    assert parts.qps == 1.0
    again = hf.Trace(arrival_s=TIMES, cycles=5, cycle_s=4.0)
    assert (again.queries, again.qps) == (20, 1.0)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"arrival_s": [0.0, 1.0]}, DTypeError, r"arrival_s: is list; allowed is a NumPy array of float64 \[N\]"),
        ({"arrival_s": np.zeros((2, 2))}, DTypeError, r"arrival_s: is float64 \(2, 2\)"),
        ({"arrival_s": np.zeros(3, np.float32)}, DTypeError, "arrival_s: is float32"),
        ({"arrival_s": np.zeros(0)}, InputError, "arrival_s: is empty"),
        ({"arrival_s": np.array([0.0, np.nan, -1.0])}, InputError, r"arrival_s\[1\]: is nan; allowed is 0 to 1e\+10"),
        ({"arrival_s": np.array([0.0, 1.0, -1.0])}, InputError, r"arrival_s\[2\]: is -1.0"),
        ({"arrival_s": np.array([0.0, 2.0, 1.0])}, InputError, r"arrival_s\[2\]: is 1.0, before arrival_s\[1\] = 2.0"),
        ({"arrival_s": TIMES, "sizes": ONES[:3]}, InputError, "sizes: has 3 entries; allowed is one per arrival, 4"),
        ({"arrival_s": TIMES, "sizes": ONES - 1}, InputError, r"sizes\[0\]: is 0; allowed is 1 to"),
        ({"arrival_s": TIMES, "sizes": np.ones(4)}, DTypeError, "sizes: is float64"),
        ({"arrival_s": TIMES, "sizes": ONES, "size_law": SIZES}, InputError, "size_law: .*None beside sizes"),
        ({"arrival_s": TIMES, "starts": np.array([1])}, InputError, "starts: is .*; allowed are positions below 4"),
        ({"arrival_s": TIMES, "rate_scale": 0.0}, InputError, "rate_scale: is 0.0"),
        ({"arrival_s": TIMES, "cycles": 0}, InputError, "cycles: is 0"),
        ({"arrival_s": TIMES, "cycles": 2}, InputError, "cycle_s: is None; allowed is a number, finite >= 2"),
        ({"arrival_s": TIMES, "cycles": 2, "cycle_s": 1.0}, InputError, "cycle_s: is 1.0"),
        ({"arrival_s": TIMES, "cycle_s": 3.0}, InputError, "cycle_s: is 3.0; allowed is None"),
    ],
)
def test_bad_traces_are_refused(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hf.Trace(**fields)


def test_a_trace_comes_back_from_its_file(tmp_path) -> None:
    path = tmp_path / "day.npz"
    hf.Trace(arrival_s=TIMES, sizes=ONES, rate_scale=2.0, cycles=3, cycle_s=2.5).save(path)
    found = hf.Trace.load(path)
    assert np.array_equal(found.arrival_s, TIMES) and np.array_equal(found.sizes, ONES)
    assert (found.rate_scale, found.cycles, found.cycle_s, found.starts.tolist()) == (2.0, 3, 2.5, [0])
    hf.Trace(arrival_s=TIMES, starts=np.array([0, 3])).save(path)
    found = hf.Trace.load(path)
    assert found.sizes is None and found.starts.tolist() == [0, 3]


def test_traces_that_cannot_be_saved_or_loaded(tmp_path) -> None:
    trace = hf.Trace(arrival_s=TIMES, size_law=SIZES)
    with pytest.raises(InputError, match="size_law: is given"):
        trace.save(tmp_path / "t.npz")
    with pytest.raises(OutputError):
        hf.Trace(arrival_s=TIMES).save(tmp_path / "none" / "t.npz")
    with pytest.raises(MissingFileError):
        hf.Trace.load(tmp_path / "t.npz")
    (tmp_path / "t.npz").write_text("no archive")
    with pytest.raises(ConfigError, match="is not a query trace"):
        hf.Trace.load(tmp_path / "t.npz")
    make_table().save(tmp_path / "t.npz")
    with pytest.raises(ConfigError, match="arrival_s: array is missing"):
        hf.Trace.load(tmp_path / "t.npz")
    header = b'{"schema": "hercules_fast.query_trace/1"}'
    falling = {"arrival_s": TIMES[::-1], "sizes": ONES, "starts": np.zeros(1, np.int64)}
    np.savez(tmp_path / "t.npz", header=np.frombuffer(header, np.uint8), **falling)
    with pytest.raises(ConfigError, match=re.escape("arrival_s[1]: is 0.5, before arrival_s[0] = 2.0")):
        hf.Trace.load(tmp_path / "t.npz")


# --- MLPerf -----------------------------------------------------------------------------------------------------------

LEAST_QUERIES = {  # late queries 0, 1, 10, 100, 1000
    0.9: (44, 64, 197, 1246, 10722),
    0.95: (90, 130, 398, 2504, 21483),
    0.99: (459, 662, 2010, 12571, 107569),
    0.999: (4603, 6636, 20140, 125826, 1076032),
}


@pytest.mark.parametrize("p", LEAST_QUERIES)
def test_mlperf_asks_for_as_many_queries_as_its_table_says(p: float) -> None:
    for late, least in zip((0, 1, 10, 100, 1000), LEAST_QUERIES[p], strict=True):
        latencies = np.full(least, 0.03)
        latencies[:late] = 0.031
        assert hf.mlperf_server_valid(latencies, 0.03, p=p)
        assert not hf.mlperf_server_valid(latencies[:-1], 0.03, p=p)


def test_binomial_sums_are_exact() -> None:
    for n, t, q in ((1, 0, 0.5), (7, 3, 0.25), (60, 59, 0.9), (200, 0, 0.01), (200, 30, 0.125), (333, 333, 0.5)):
        share = Fraction(q)
        exact = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(t + 1))
        assert _binomial_below(t, n, q) == pytest.approx(float(exact), rel=1e-12)
    # Far beyond any run: the parts on both sides of t, each summed by itself, make one.
    n, q = 10**9, 0.01
    for t in (9_992_000, 10_000_000, 10_004_000):
        both = _binomial_below(t, n, q) + _binomial_below(n - t - 1, n, 1.0 - q)
        assert both == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1.0), r"latencies: is float64 \(0,\)"),
        ((["1"], 1.0), "latencies: is <U1"),
        (([1.0, np.nan], 1.0), r"latencies\[1\]: is nan"),
        (([1.0], 0.0), "target: is 0.0"),
        (([1.0], 1.0, 1.0), "p: is 1.0"),
        (([1.0], 1.0, 0.99, 0.0), "c: is 0.0"),
    ],
)
def test_mlperf_refusals(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hf.mlperf_server_valid(*arguments)
