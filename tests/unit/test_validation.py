"""Predictions laid beside runs: levels, verdicts and gates on machines that are made up, and on this one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast.errors import InputError, InterruptedRun, OutputError
from hercules_fast.measure import LoadPoint, LoadRun, Prediction, Validation, validate, validation
from hercules_fast.measure.comparison import compare, expect, percentiles_ms, speed_change
from hercules_fast.measure.layout import Cpus, as_wanted, parse_config
from hercules_fast.measure.rehearsal import Rehearsal
from hercules_fast.queueing import LinearService, Queries, System, Trace, simulate
from hercules_fast.tables import MeasuredPoint, SchedulingConfig, measured_table
from hercules_fast.traffic import sizes
from tests.small_validations import NOISY, QUIET, SmallHost, synthetic_run

CONFIG = "model 1x1, batch 256"
SERVICE = LinearService(base_s=2e-4, per_item_s=1e-5)


# --- one load ---------------------------------------------------------------------------------------------------------


def test_percentiles_are_order_statistics_after_the_warm_up() -> None:
    latency_s = np.arange(1.0, 2001.0)
    assert percentiles_ms(latency_s, (50, 95, 99)).tolist() == [1100e3, 1910e3, 1982e3]
    latency_s[-100:] = np.nan
    assert percentiles_ms(latency_s, (50, 99)).tolist() == [1100e3, math.inf]
    few = percentiles_ms(np.ones(1000), (50, 95, 99))
    assert few[:2].tolist() == [1000, 1000] and math.isnan(few[2]), "900 queries have nine beyond p99"


def test_what_is_expected_of_a_load() -> None:
    system = System.pool(SERVICE, batch=256)
    source = Queries(qps=250.0, sizes=sizes("kairos"))
    found = expect(system, source, 2500, percentiles=(50, 95, 99), seed=4)
    long = simulate(system, source, seed=4)
    assert found.model_ms == long.latency_ms
    own = simulate(system, found.trace, warmup=0, keep_latencies=True, percentiles=(50,))
    assert own.latencies_ms is not None
    assert found.own_ms == tuple(percentiles_ms(own.latencies_ms / 1e3, (50, 95, 99)))
    assert found.trace.sizes is not None
    busy_s = sum(SERVICE.base_s * -(-int(n) // 256) + SERVICE.per_item_s * int(n) for n in found.trace.sizes)
    assert found.own_busy_s == pytest.approx(busy_s, rel=1e-6)
    fresh = [
        percentiles_ms(run.latencies_ms / 1e3, (95,))[0]
        for seed in range(100, 180)
        if (run := simulate(system, source, queries=2500, warmup=0, seed=seed, keep_latencies=True, percentiles=(50,)))
        and run.latencies_ms is not None
    ]
    low, high = found.chance_ms[1]
    inside = np.mean([low <= ms <= high for ms in fresh])
    assert 0.85 <= inside <= 1.0, "a band of 95 %"
    assert abs(found.own_ms[1] / found.model_ms[1] - 1) < 0.05, "the arrivals are typical ones"


def test_a_short_run_has_a_typical_rate_too() -> None:
    found = expect(System.pool(SERVICE), Queries(qps=200.0, sizes=sizes("kairos")), 60, percentiles=(50, 95, 99))
    assert math.isnan(found.own_ms[2]) and math.isnan(found.chance_ms[2][0])
    assert abs(60 / found.trace.arrival_s[-1] / 200.0 - 1) < 0.1


def test_the_same_seed_expects_the_same() -> None:
    system, source = System.pool(SERVICE), Queries(qps=200.0, sizes=sizes("kairos"))
    one, two, other = (expect(system, source, 1200, percentiles=(50, 95), seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(one.trace.arrival_s, two.trace.arrival_s) and one.chance_ms == two.chance_ms
    assert not np.array_equal(one.trace.arrival_s, other.trace.arrival_s)


def test_a_load_beyond_the_bottleneck_has_no_long_simulation() -> None:
    found = expect(System.pool(SERVICE), Queries(qps=900.0, sizes=sizes("kairos")), 1500, percentiles=(50, 95))
    assert found.model_ms is None and all(0 < low < high for low, high in found.chance_ms)


def test_a_run_of_the_model_itself_agrees_with_it_everywhere() -> None:
    system = System.pool(SERVICE, batch=256)
    expected = expect(system, Queries(qps=250.0, sizes=sizes("kairos")), 2000, percentiles=(50, 95, 99))
    run = synthetic_run(system, expected.trace, batch=256)
    point = compare(run, expected, share=0.7, lost_share_limit=0.01)
    assert point.certified and point.cause == "" and point.unfinished == 0
    assert point.replay_error == pytest.approx((0, 0, 0), abs=1e-9)
    assert point.own_error == pytest.approx((0, 0, 0), abs=1e-9)
    assert point.service_ratio == pytest.approx(1.0, rel=1e-6)
    assert point.handover_us == pytest.approx((0, 0), abs=1e-3)
    assert point.within_chance == (True, True, True)


def test_a_run_that_lost_time_is_not_certified_and_an_unfinished_one_not_replayed() -> None:
    system = System.pool(SERVICE, batch=256)
    expected = expect(system, Queries(qps=250.0, sizes=sizes("kairos")), 2000, percentiles=(50, 95, 99))
    run = synthetic_run(system, expected.trace, batch=256, preempted=0.1)
    latency_s, end_s = run.latency_s.copy(), run.end_s.copy()
    latency_s[-400:], end_s[:, -700:] = np.nan, np.nan
    run = replace(run, latency_s=latency_s, end_s=end_s, complete=False)
    point = compare(run, expected, share=0.7, lost_share_limit=0.01)
    assert not point.certified and "lost to others; allowed are 1%" in point.cause
    assert point.replay_ms is None and point.replay_error is None and point.unfinished == 400
    assert point.measured_ms[1:] == (math.inf, math.inf) and not point.within_chance[1]
    assert math.isnan(point.service_ratio)


def test_a_free_thread_that_starts_late_lost_time_where_it_polls() -> None:
    system = System.pool(SERVICE, batch=256)
    expected = expect(system, Queries(qps=250.0, sizes=sizes("kairos")), 2000, percentiles=(50, 95, 99))
    run = synthetic_run(system, expected.trace, batch=256)
    assert compare(run, expected, share=0.7, lost_share_limit=0.01, polls=True).lost_share == 0.0
    start_s = run.start_s.copy()
    alone = np.flatnonzero(start_s[0][1:] - run.end_s[0][:-1] > 0) + 1
    spread = alone[:: len(alone) // 300][:300]
    start_s[0, spread] += 5e-4
    late = replace(run, start_s=start_s)
    share = 300 * 5e-4 / run.duration_s
    assert compare(late, expected, share=0.7, lost_share_limit=0.01, polls=True).lost_share == pytest.approx(share)
    assert compare(late, expected, share=0.7, lost_share_limit=0.01).certified


def slowed(run: LoadRun, first: int, last: int, times: float) -> LoadRun:
    """The run, but that services from ``first`` to ``last`` took so many times as long (nobody waits longer)."""
    end_s = run.end_s.copy()
    end_s[0, first:last] += (times - 1.0) * run.service_s()[0, first:last]
    return replace(run, end_s=end_s)


def test_a_run_whose_speed_changes_for_a_while_is_not_certified() -> None:
    system = System.pool(SERVICE, batch=256)
    expected = expect(system, Queries(qps=250.0, sizes=sizes("kairos")), 2000, percentiles=(50, 95, 99))
    run = synthetic_run(system, expected.trace, batch=256)
    assert abs(speed_change(run)) < 0.03, "the sizes of a stretch are laid beside such sizes"
    for times in (1.3, 0.7):
        found = speed_change(slowed(run, 1000, 1300, times))
        assert found == pytest.approx(times - 1.0, abs=0.03)
        point = compare(slowed(run, 1000, 1300, times), expected, share=0.7, lost_share_limit=0.01)
        assert not point.certified and f"took {1 + found:.2f} times as long" in point.cause
    assert abs(speed_change(slowed(run, 0, len(run.part_items), 1.3))) < 0.03, "a wrong model is no noise"
    assert compare(slowed(run, 1000, 1300, 1.05), expected, share=0.7, lost_share_limit=0.01).certified
    few = expect(system, Queries(qps=250.0, sizes=sizes("kairos")), 100, percentiles=(50,)).trace
    assert speed_change(synthetic_run(system, few, batch=256)) == 0.0, "too few to tell"
    end_s = run.end_s.copy()
    end_s[:, ::7] = np.nan
    assert abs(speed_change(replace(run, end_s=end_s))) < 0.03


# --- verdicts ---------------------------------------------------------------------------------------------------------

SLA = hf.Sla(percentile=95, latency_ms=20)
POINT = LoadPoint(
    share=0.5,
    qps=100.0,
    offered_qps=100.0,
    throughput_qps=100.0,
    queries=2000,
    unfinished=0,
    seconds=10.0,
    percentiles=(50.0, 95.0, 99.0),
    measured_ms=(2.0, 8.0, 10.0),
    replay_ms=(2.0, 8.0, 10.0),
    model_ms=(2.0, 8.0, 10.0),
    own_ms=(2.0, 8.0, 10.0),
    chance_ms=((1.9, 2.1), (7.0, 9.0), (8.0, 12.0)),
    service_ratio=1.0,
    utilisation=0.5,
    dispatch_lag_us=(5.0, 20.0),
    handover_us=(8.0, 30.0),
    lost_share=0.0,
    speed_change=0.0,
    certified=True,
    cause="",
)


def point(share: float, p95: float = 8.0, **changes: Any) -> LoadPoint:
    """A run at ``share`` of 200 q/s with this p95, everything else in agreement."""
    scale = p95 / 8.0
    figures = {name: tuple(scale * x for x in (2.0, 8.0, 10.0)) for name in ("measured_ms", "replay_ms", "model_ms")}
    return replace(POINT, **{"share": share, "qps": 200.0 * share} | figures | changes)


def found(*points: LoadPoint, **changes: Any) -> Validation:
    config = SchedulingConfig(kind="cpu", variant=0, stages=("model",), threads=(1,), operator_cores=(1,), batch=256)
    prediction = Prediction(
        rehearsal=None,
        unrehearsed_qps=1000.0,
        config=config,
        qps=200.0,
        interval_qps=(199.0, 201.0),
        limit="sla",
        searched=True,
        evaluations=9,
    )
    whole = Validation(
        model="made-up",
        slas=(SLA,),
        loads=(0.5, 0.7, 0.85),
        prediction=prediction,
        points=points,
        noise_before=QUIET,
        noise_after=QUIET,
        service_certified=True,
        service_cause="",
        complete=True,
        notes=(),
        provenance={},
    )
    return replace(whole, **changes)


RISING = (point(0.5), point(0.7, 10.0), point(0.85, 13.0), point(1.0, 20.0), point(1.1, 80.0))


def test_everything_in_agreement() -> None:
    whole = found(*RISING)
    assert whole.certified and whole.causes == ()
    assert [level.verdict for level in whole.levels] == ["passed"] * 3
    assert whole.measured_qps == pytest.approx(200.0)
    assert "1.00x: meets the SLA, p95 20 of 20 ms" in whole.explain()
    assert "1.10x: misses the SLA, p95 80 of 20 ms" in whole.explain()


@pytest.mark.parametrize(("error", "passes"), [(0.0499, True), (-0.0499, True), (0.051, False), (-0.051, False)])
def test_level_a_allows_five_per_cent_at_every_percentile(error: float, passes: bool) -> None:
    for k in range(3):
        replayed = [2.0, 8.0, 10.0]
        replayed[k] *= 1 + error
        whole = found(replace(RISING[0], replay_ms=tuple(replayed)), *RISING[1:])
        assert whole.passed("a") is passes and whole.passed("b") and whole.passed("c")


@pytest.mark.parametrize(
    ("k", "error", "passes"),
    [(0, 0.5, True), (1, 0.099, True), (1, -0.101, False), (2, 0.149, True), (2, -0.151, False)],
)
def test_level_b_allows_ten_and_fifteen_per_cent(k: int, error: float, passes: bool) -> None:
    modelled = [2.0, 8.0, 10.0]
    modelled[k] *= 1 + error
    whole = found(replace(RISING[0], model_ms=tuple(modelled)), *RISING[1:])
    assert whole.passed("b") is passes and whole.passed("a")
    at_max = found(*RISING[:3], replace(RISING[3], model_ms=(9.0, 90.0, 90.0)), RISING[4])
    assert at_max.passed("b"), "the runs at and beyond the predicted max load are judged by level c"


def test_level_b_says_whether_chance_explains_a_deviation() -> None:
    assert "measured 8 ms is within the 7 to 9 ms" in found(*RISING).explain()
    assert "measured 6 ms is outside the 7 to 9 ms" in found(point(0.5, 6.0), *RISING[1:]).explain()


@pytest.mark.parametrize("rho", [0.86, 0.93, 0.999])
def test_between_runs_the_crossing_is_exact_for_an_m_m_1_queue(rho: float) -> None:
    """The q-quantile of the sojourn time of M/M/1 is -ln(1 - q) / (mu - lambda) (any text on queueing theory)."""
    mu, limit_s = 250.0, 0.020
    true_qps = mu + math.log(0.05) / limit_s
    predicted = true_qps / rho

    def at(share: float) -> LoadPoint:
        qps = share * predicted
        p95 = 1e3 * -math.log(0.05) / (mu - qps) if qps < mu else math.inf
        return point(share, p95, qps=qps)

    whole = found(*(at(share) for share in (0.5, 0.7, 0.85, 1.0, 1.1)))
    assert whole.prediction is not None
    whole = replace(whole, prediction=replace(whole.prediction, qps=predicted))
    assert whole.measured_qps == pytest.approx(true_qps)
    assert whole.passed("c") is (rho >= 0.9)


def test_runs_that_never_end_count_as_infinitely_slow() -> None:
    whole = found(*RISING[:4], point(1.1, math.inf))
    assert whole.measured_qps == pytest.approx(200.0) and whole.passed("c")


def test_the_sla_is_crossed_beyond_or_below_all_runs() -> None:
    beyond = found(*(replace(p, measured_ms=(2.0, 8.0, 10.0)) for p in RISING))
    assert beyond.measured_qps == math.inf and beyond.passed("c") is False
    assert "above 220.0 q/s, the highest load with a certified run" in beyond.explain()
    below = found(*(replace(p, measured_ms=(2.0, 28.0, 30.0)) for p in RISING))
    assert below.measured_qps == 0.0 and below.passed("c") is False


def test_an_uncertified_run_shows_nothing() -> None:
    noisy = {"certified": False, "cause": "7% lost", "lost_share": 0.07}
    wrong = replace(RISING[1], replay_ms=(9.0, 9.0, 9.0), model_ms=(9.0, 9.0, 9.0), **noisy)
    whole = found(RISING[0], wrong, *RISING[2:])
    assert not whole.certified and whole.causes == ("run at 0.70x: 7% lost",)
    assert whole.passed("a") and whole.passed("b") and whole.passed("c"), "the certified runs agree"
    assert "left out, not certified: 0.70x" in whole.explain()
    crossing = found(*RISING[:3], replace(RISING[3], **noisy), RISING[4])
    assert crossing.passed("c") is None and math.isnan(crossing.measured_qps)
    assert "the run at 1.00x, where the SLA may be crossed, is not certified" in crossing.explain()
    nothing = found(*(replace(p, **noisy) for p in RISING))
    assert [nothing.passed(level) for level in "abc"] == [None, None, None]


def test_without_the_runs_beyond_it_the_max_load_is_not_shown() -> None:
    assert found(*RISING[:3]).passed("c") is None
    assert found(RISING[3]).passed("c") is None and found(point(1.0, 25.0)).passed("c") is None


def test_each_gate_takes_the_certificate_away() -> None:
    assert found(*RISING, noise_before=NOISY).causes[0].startswith("before the runs: CPU 0 lost 40.00%")
    assert found(*RISING, noise_after=NOISY).causes[0].startswith("after the runs: CPU 0")
    assert found(*RISING, noise_after=None).causes == ("the machine's noise after the runs is not known",)
    times = found(*RISING, service_certified=False, service_cause="a competitor")
    assert times.causes == ("service times: a competitor",)
    assert [times.passed(level) for level in "abc"] == [True, None, None]
    assert found().causes == ("no load was run",)


def test_too_few_queries_are_no_verdict() -> None:
    few = [replace(p, queries=50, measured_ms=(math.nan,) * 3) for p in RISING]
    whole = found(*few)
    assert [whole.passed(level) for level in "abc"] == [None, None, None]
    assert "50 queries are too few" in whole.explain()


def test_a_validation_is_strict_json() -> None:
    whole = found(*RISING[:4], point(1.1, math.inf, model_ms=None, replay_ms=None, unfinished=300))
    document = json.loads(whole.to_json())
    assert document["schema"] == "hercules_fast.validation/1" and document["certified"] is True
    assert [level["passed"] for level in document["levels"]] == [True, True, True]
    assert document["points"][4]["measured_ms"] == [None] * 3 and document["points"][4]["model_error"] is None
    assert document["prediction"]["config"]["batch"] == 256


# --- the steps, on a machine that is made up --------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, host: SmallHost, **options: Any) -> Validation:
    host.install(monkeypatch)
    return validate(**{"config": CONFIG, "seconds": 9.0} | options)


def cut_short(monkeypatch: pytest.MonkeyPatch, host: SmallHost, which: Callable[[Any], bool]) -> None:
    """Install ``host``; of its runs, those that ``which`` tells from their source end before all is served."""
    host.install(monkeypatch)
    load = validation.run_load

    def run(pools: Any, source: Any, **options: Any) -> LoadRun:
        found = load(pools, source, **options)
        return replace(found, complete=not which(source))

    monkeypatch.setattr(validation, "run_load", run)


def test_a_model_that_is_right_passes_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmallHost()
    whole = run(monkeypatch, host)
    assert whole.certified and whole.complete, whole.explain()
    assert [level.verdict for level in whole.levels] == ["passed"] * 3, whole.explain()
    assert [p.share for p in whole.points] == [0.5, 0.7, 0.85, 1.0, 1.1]
    assert whole.points[-1].seconds == pytest.approx(whole.points[0].seconds / 2, rel=0.2)
    assert [(r["generator_cpu"], r["polls"]) for r in host.runs] == [(1, True)] * 5
    assert host.runs[0]["pools"][0].cpus == ((0,),) and host.measured["cpus"] == (0,)
    assert host.measured["batches"] == [1, 4, 16, 64, 128, 256] and host.built["max_items"] == 256
    assert host.built["max_bytes"] <= 1 << 30 and host.built["popularity"].name == "zipf"


def test_a_model_that_is_wrong_by_a_fifth_fails_b_and_c_and_passes_a(monkeypatch: pytest.MonkeyPatch) -> None:
    for slower in (1.2, 1 / 1.2):
        whole = run(monkeypatch, SmallHost(slower=slower))
        assert whole.certified
        assert [whole.passed(level) for level in "abc"] == [True, False, False], whole.explain()
        assert [p.service_ratio for p in whole.points] == pytest.approx([slower] * 5, rel=1e-6)


def test_what_rehearsals_show_is_in_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services that take a quarter longer under load are no surprise to the runs, and lower the max load by a fifth."""
    host = SmallHost(warm=1.25)
    whole = run(monkeypatch, host)
    prediction = whole.prediction
    assert prediction is not None and prediction.rehearsal is not None
    assert prediction.rehearsal.ratios == pytest.approx([1.25], rel=1e-3)
    assert prediction.rehearsal.qps == pytest.approx(0.85 * prediction.unrehearsed_qps)
    assert prediction.qps < 0.82 * prediction.unrehearsed_qps
    assert whole.certified and all(whole.passed(level) for level in "abc")
    assert "over their table: 1.250 at" in whole.explain()
    assert [len(p.rehearsals) for p in whole.points] == [2, 2, 2, 0, 0], "around the runs that level b judges"
    assert [one["source"].qps for one in host.rehearsals[1:]] == pytest.approx(
        [share * prediction.qps for share in (0.5, 0.5, 0.7, 0.7, 0.85, 0.85)]
    )
    seeds = {one["seed"] for one in host.rehearsals}
    assert len(seeds) == 7 and 3 not in seeds, "arrivals of their own"


def test_the_service_model_of_a_run_is_half_way_between_its_rehearsals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down steadily, 2 % from rehearsal to run and 2 % from run to rehearsal, is foreseen."""
    host = SmallHost(drifts=(1.0, *(0.98, 1.02) * 3))
    whole = run(monkeypatch, host)
    assert whole.certified and whole.passed("b"), whole.explain()
    assert [p.service_ratio for p in whole.points] == pytest.approx([1.0] * 5, rel=1e-3)
    assert np.ravel([[r.ratios for r in p.rehearsals] for p in whole.points[:3]]) == pytest.approx(
        [0.98, 1.02] * 3, rel=1e-3
    )


@pytest.mark.parametrize(("later", "certified"), [(1.045, True), (0.955, True), (1.055, False), (0.945, False)])
def test_services_that_change_around_a_run_take_its_model_away(
    monkeypatch: pytest.MonkeyPatch, later: float, certified: bool
) -> None:
    whole = run(monkeypatch, SmallHost(drifts=(1.0, 1.0, later, 1.0)), time_budget_s=55.0)
    assert (
        whole.certified is certified
        and whole.points[0].certified
        and bool(whole.points[0].rehearsal_cause) != certified
    )
    if not certified:
        assert f"services took {later:.3f} times as long" in whole.points[0].rehearsal_cause
        assert whole.causes[0].startswith("service times at 0.50x: the machine's speed changed")
        level = next(one for one in whole.levels if one.name == "b")
        assert level.passed and level.facts[-1] == "left out, not certified: 0.50x"
        assert whole.passed("a") and whole.passed("c"), "which do not rest on it"


def test_rehearsals_know_each_stage() -> None:
    stages = ("sparse", "dense")
    told = [
        MeasuredPoint(stage=s, operator_cores=1, threads=n, batch=b, ms=float(b), cv=0.0)
        for s in stages
        for n in (1, 2)
        for b in (1, 8)
    ]
    table = measured_table(told, server="s", workload="w", idle_w=1.0, tdp_w=2.0, base_w=0.0)
    one = Rehearsal(stages=stages, qps=100.0, ratios=(1.2, 1.0), lost_share=0.0)
    two = replace(one, ratios=(1.3, 0.8), lost_share=0.5)
    assert one.stretched(table).seconds[0, :, :, 0] == pytest.approx(table.seconds[0, :, :, 0] * [[1.2], [1.0]])
    assert one.mean(two) == replace(one, ratios=(1.25, 0.9), lost_share=0.5)
    assert one.change(two) == 0.8 and one.change(one) == 1.0
    assert str(one) == "sparse 1.200, dense 1.000"


def test_a_rehearsal_that_loses_time_is_repeated_once_and_takes_the_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = SmallHost(rehearsal_preempted=(0.5, 0.0))
    assert run(monkeypatch, host).certified and len(host.rehearsals) == 8
    host = SmallHost(rehearsal_preempted=(0.5, 0.5, 0.0))
    whole = run(monkeypatch, host)
    assert not whole.certified and len(host.rehearsals) == 8
    assert whole.service_cause.startswith("in the rehearsal before the prediction ")
    assert whole.passed("a") and whole.passed("b") is None


def test_a_rehearsal_beside_a_run_that_loses_time_takes_its_model_away(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(monkeypatch, SmallHost(rehearsal_preempted=(0.0, 0.0, 0.0, 0.0, 0.5, 0.0)), time_budget_s=55.0)
    assert [bool(p.rehearsal_cause) for p in whole.points] == [False, True, False, False, False]
    assert whole.points[1].rehearsal_cause.startswith("in the rehearsal after the run ")
    assert not whole.certified and all(p.certified for p in whole.points) and whole.passed("b")


def test_rehearsals_that_do_not_end_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmallHost()
    cut_short(monkeypatch, host, lambda _: len(host.rehearsals) == 3 and len(host.runs) == 1)
    whole = validate(config=CONFIG, seconds=9.0, time_budget_s=55.0)
    assert whole.causes == ("service times at 0.50x: the rehearsal after the run did not end in time",)
    assert whole.notes[0].startswith("load-0.50-after does not count: ")


@pytest.mark.parametrize(("slowed", "certified"), [(1.04, True), (0.96, True), (1.06, False), (0.94, False)])
def test_a_machine_whose_speed_changes_is_not_certified(
    monkeypatch: pytest.MonkeyPatch, slowed: float, certified: bool
) -> None:
    whole = run(monkeypatch, SmallHost(slowed=slowed))
    assert whole.certified == certified and whole.passed("a")
    assert (whole.passed("b") is None) != certified
    if not certified:
        assert (
            f"took {slowed:.3f} times as long after the runs as before; allowed is 0.95 to 1.05" in whole.service_cause
        )


def test_a_speed_that_is_not_known_takes_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full batches that do not end in time leave a run that is not complete."""
    cut_short(monkeypatch, SmallHost(), lambda source: isinstance(source, Trace) and not source.arrival_s.any())
    whole = validate(config=CONFIG, seconds=9.0)
    assert not whole.certified and "speed changed is not known" in whole.service_cause
    assert whole.passed("a") and whole.passed("b") is None


def test_too_few_queries_for_a_rehearsal_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmallHost()
    monkeypatch.setattr(validation, "LEAST_REHEARSED", 10_000)
    whole = run(monkeypatch, host)
    assert host.rehearsals == [] and whole.prediction is not None and whole.prediction.rehearsal is None
    assert whole.prediction.qps == whole.prediction.unrehearsed_qps and "not rehearsed under load" in whole.explain()


def test_a_run_with_too_few_queries_does_not_miss_the_sla() -> None:
    nothing = (math.nan,) * 3
    whole = found(point(1.0, measured_ms=nothing), point(1.1))
    facts = next(level.facts for level in whole.levels if level.name == "c")
    assert facts[0].startswith("1.00x: left out, ") and "nan" not in " ".join(facts)


def test_runs_that_lose_time_are_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(monkeypatch, SmallHost(preempted=(0.0, 0.1, 0.0, 0.0, 0.0, 0.1)))
    assert not whole.certified and [p.certified for p in whole.points] == [True, False, True, True, True]
    assert whole.causes[0].startswith("run at 0.70x: ") and "lost to others" in whole.causes[0]
    assert run(monkeypatch, SmallHost(noise=(NOISY, QUIET))).causes[0].startswith("before the runs")
    assert run(monkeypatch, SmallHost(noise=(QUIET, NOISY))).causes[0].startswith("after the runs")
    times = run(monkeypatch, SmallHost(service_cause="a competitor"))
    assert times.passed("a") and times.passed("b") is None and times.passed("c") is None and not times.certified


def test_a_load_whose_gate_did_not_pass_is_run_again_where_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmallHost(preempted=(0.0, 0.1, 0.0))
    whole = run(monkeypatch, host)
    assert whole.certified and len(host.runs) == 6 and [p.share for p in whole.points] == [0.5, 0.7, 0.85, 1.0, 1.1]
    assert host.runs[5]["trace"] is host.runs[1]["trace"], "the same arrivals"
    host = SmallHost(drifts=(1.0, 1.0, 1.2, 1.0))
    assert run(monkeypatch, host).certified and len(host.runs) == 6 and len(host.rehearsals) == 9
    hurried = SmallHost(preempted=(0.0, 0.1, 0.0))
    assert not run(monkeypatch, hurried, time_budget_s=55.0).certified and len(hurried.runs) == 5


def test_the_search_chooses_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmallHost()
    whole = run(monkeypatch, host, config=None)
    assert whole.prediction is not None and whole.prediction.searched and whole.prediction.evaluations > 1
    assert host.measured["batches"] == validation.BATCHES and host.built["max_items"] == 1024
    assert whole.passed("a") and whole.passed("c"), whole.explain()


def test_a_pipeline_takes_every_core_and_the_generator_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmallHost()
    whole = run(monkeypatch, host, config="sparse 1x1, dense 1x1, batch 128, buffer 2")
    assert [(r["generator_cpu"], r["polls"]) for r in host.runs] == [(None, False)] * 5
    sparse, dense = host.runs[0]["pools"]
    assert (sparse.name, sparse.cpus, sparse.buffer) == ("sparse", ((0,),), None)
    assert (dense.name, dense.cpus, dense.buffer) == ("dense", ((1,),), 2)
    assert host.measured["stages"] == ("sparse", "dense")
    assert [whole.passed(level) for level in "abc"] == [True, True, True], whole.explain()


def test_one_core_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmallHost(cores=1)
    assert run(monkeypatch, host).certified
    assert host.runs[0]["generator_cpu"] is None and host.runs[0]["pools"][0].cpus == ((0,),)


def test_a_workload_with_its_own_slas(monkeypatch: pytest.MonkeyPatch) -> None:
    sla = hf.Sla(percentile=90, latency_ms=15)
    whole = run(monkeypatch, SmallHost(), sla=sla)
    assert whole.slas == (sla,) and whole.points[0].percentiles == (50.0, 90.0, 95.0, 99.0)
    assert whole.passed("c"), whole.explain()


def test_the_budget_sizes_the_runs_and_leaves_out_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(monkeypatch, SmallHost(), seconds=None, time_budget_s=90.0)
    lengths = [p.queries / p.offered_qps for p in whole.points]
    # Of 90 s measuring takes 1, seven rehearsals of 3 s and full batches 28 with what lies around them, runs 1 each
    # beside their own length; a quarter of what is left before them is kept for another try.
    assert 28.0 < sum(lengths) < 45.0 and whole.complete, "what is left after measuring, simulating and probing"
    assert lengths[:4] == pytest.approx([lengths[0]] * 4, rel=0.4) and lengths[4] < 0.8 * lengths[3]
    tight = run(monkeypatch, SmallHost(), seconds=None, time_budget_s=38.0)
    assert tight.complete and tight.points[0].seconds > 1.0, "what is kept for second tries goes to first ones"
    short = run(monkeypatch, SmallHost(), seconds=None, time_budget_s=2.0)
    assert short.points == () and not short.complete and not short.certified
    assert short.notes[0] == "no run at 0.50x: the time budget was over"


def test_files_are_written_as_they_come_and_kept_on_ctrl_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "out"
    with pytest.raises(InterruptedRun) as stop:
        run(monkeypatch, SmallHost(interrupt_run=2), out=place)
    partial = stop.value.partial
    assert isinstance(partial, Validation) and not partial.complete and not partial.certified
    assert [p.share for p in partial.points] == [0.5, 0.7]
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    runs = ["runs/load-0.50.npz", "runs/load-0.70.npz", "runs/load-0.85-interrupted.npz"]
    beside = [f"runs/load-{share}-{when}.npz" for share in ("0.50", "0.70", "0.85") for when in ("before", "after")]
    before = ["runs/rehearsal-0.85.npz", "runs/speed-before.npz"]
    assert names == sorted([*runs, *beside[:-1], *before, "service.csv", "validation.json"])
    document = json.loads((place / "validation.json").read_text())
    assert document["complete"] is False and len(document["points"]) == 2
    assert LoadRun.load(place / runs[0]).throughput_qps == partial.points[0].throughput_qps
    assert (
        hf.ServiceTable.from_csv(place / "service.csv", server="x", workload="y", idle_w=1, tdp_w=2).origin
        == "measured"
    )
    with pytest.raises(OutputError, match="not empty"):
        run(monkeypatch, SmallHost(), out=place)


def test_ctrl_c_before_anything_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmallHost().install(monkeypatch)

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    for step in ("noise_probe", "measure_service"):
        with monkeypatch.context() as patch:
            patch.setattr(validation, step, stop)
            with pytest.raises(InterruptedRun) as interrupted:
                validate(config=CONFIG)
        assert interrupted.value.partial.prediction is None and interrupted.value.partial.points == ()
    assert host.runs == []


def test_provenance_says_what_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(monkeypatch, SmallHost(), seed=3)
    told = whole.provenance
    assert told["inputs"]["seed"] == 3 and told["inputs"]["config"] == CONFIG
    assert told["versions"]["hercules-fast"] == hf.build_info()["version"]
    assert told["model_cpus"] == [0] and told["generator_cpu"] == 1
    assert set(told["seconds"]) >= {"engine", "service times", "prediction", "run at 1.10x", "noise after"}
    import platform

    assert platform.node() not in json.dumps(whole.to_dict()) or len(platform.node()) < 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "dlrm-rmc9"}, "unknown model"),
        ({"model": 3}, "model: is 3"),
        ({"loads": ()}, r"loads: is \(\)"),
        ({"loads": (0.5, 1.0)}, r"loads\[1\]: is 1.0"),
        ({"loads": "0.5"}, "loads: is '0.5'"),
        ({"seconds": 0}, "seconds: is 0"),
        ({"time_budget_s": math.nan}, "time_budget_s: is nan"),
        ({"seed": -1}, "seed: is -1"),
        ({"sla": ()}, r"sla: is \(\)"),
        ({"sla": "p95"}, "sla: is 'p95'"),
        ({"cpus": (5,)}, r"cpus: is \(5,\)"),
        ({"cpus": ()}, r"cpus: is \(\)"),
        ({"config": "model 3x1, batch 8"}, "config: takes 3 cores; allowed are the 2"),
        ({"config": "model 1x1"}, "config: is 'model 1x1'; allowed is text such as"),
        ({"config": 7}, "config: is 7"),
        ({"sla": hf.Sla(percentile=95, latency_ms=0.01)}, "sla: is p95 <= 0.01 ms; a query alone takes p95"),
        ({"config": None, "sla": hf.Sla(percentile=95, latency_ms=0.01)}, "sla: is p95 <= 0.01 ms; no configuration"),
    ],
)
def test_bad_input_names_the_field(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, TypeError), match=message):
        run(monkeypatch, SmallHost(), **options)


# --- layouts ----------------------------------------------------------------------------------------------------------


def test_configurations_are_read_as_they_are_printed() -> None:
    for text in ("cpu: model 2x1, batch 64", "cpu-sd: sparse 2x1, dense 1x2, batch 128, buffer 0"):
        wanted = parse_config(text)
        stages, threads, cores = zip(*wanted.pools, strict=True)
        config = SchedulingConfig(
            kind=text.split(":")[0],
            variant=0,
            stages=stages,
            threads=threads,
            operator_cores=cores,
            batch=wanted.batch,
            buffer=wanted.buffer,
        )
        assert config.describe() == text and as_wanted(config) == wanted
    assert parse_config(" Model  2, batch 8 ").pools == (("model", 2, 1),)


@pytest.mark.parametrize(
    "text",
    ["", "model 1x1", "model 0x1, batch 8", "dense 1x1, batch 8", "model 1x1, batch 8, buffer 2", "gpu x1, batch 8"],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="config: is"):
        parse_config(text)


def test_who_runs_where() -> None:
    assert Cpus.share((0, 1, 2, 3), 4, None) == Cpus((0, 1, 2), 3)
    assert Cpus.share((0, 1, 2, 3), 2, None) == Cpus((0,), 1), "a quota of two cores"
    assert Cpus.share((4, 7), 2, 1) == Cpus((4,), 7)
    assert Cpus.share((4, 7), 2, 2) == Cpus((4, 7), None)
    assert Cpus.share((4,), 1, None) == Cpus((4,), None)
    wanted = parse_config("sparse 2x1, dense 1x2, batch 8")
    assert Cpus((0, 1, 2, 3), None).deal(wanted) == [[(0,), (1,)], [(2, 3)]]
    with pytest.raises(InputError, match="takes 2 cores; allowed are the 1"):
        Cpus.share((4,), 1, 2)
