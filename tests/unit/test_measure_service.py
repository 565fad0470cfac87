"""Measured service times: the table is what the machine does, noise is named, nothing measured is lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import models
from hercules_fast.errors import ConfigError, DTypeError, InputError, InterruptedRun
from hercules_fast.measure import Engine, ServiceMeasurement, measure_service, visits
from hercules_fast.measure.visits import ROUNDS, sizes_of, summed_visit
from tests.small_measures import Machine, SmallEngine, SmallMeter, law


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine().install(monkeypatch)


def measured(**options: Any) -> ServiceMeasurement:
    return measure_service(SmallEngine(), **{"seconds": 5.0, **options})


def arrays_of(table: hf.ServiceTable) -> list[bytes]:
    return [getattr(table, name).tobytes() for name in ("items", "busy", "seconds", "energy_j", "noise_cv")]


def test_the_table_is_what_the_machine_does(machine) -> None:
    machine.jitter = 0.02
    found = measured()
    table = found.table
    assert (found.certified, found.clock, found.cause, found.complete) == (True, "wall", "", True)
    assert table.origin == "measured" and (table.server, table.workload) == ("this-host", "dlrm-rmc1")
    assert table.items.tolist() == [1, 2, 4, 8, 16, 32, 64] and table.busy.tolist() == [1, 2]
    assert [v.name for v in table.variants] == ["cpu-o1", "cpu-o2"]
    for v, o in enumerate((1, 2)):
        for (i, batch), (t, n) in product(enumerate(table.items.tolist()), enumerate((1, 2))):
            if o * n <= 2:
                assert table.seconds[v, 0, i, t] == pytest.approx(law("model", o, n, batch), rel=0.02)
    assert table.noise_cv[0] == pytest.approx(0.02, rel=0.2)
    assert all(p.rounds >= ROUNDS and p.samples >= 5 for p in found.points)
    assert machine.now_s < 8.0


def test_the_grid_can_be_chosen_and_is_completed(monkeypatch) -> None:
    Machine(cores=4).install(monkeypatch)
    found = measured(batches=(8, 64), operator_cores=(1, 2), threads=(3,))
    places = [(p.operator_cores, p.threads, p.batch) for p in found.points]
    assert places == [(o, n, b) for o, n in ((1, 1), (1, 3), (2, 1)) for b in (8, 64)]
    assert measured(batches=(8,), operator_cores=(4,)).points[0].threads == 1
    Machine(cores=1).install(monkeypatch)
    assert {(p.operator_cores, p.threads) for p in measured().points} == {(1, 1)}


def test_a_pipeline(machine) -> None:
    table = measured(stages=("sparse", "dense"), operator_cores=(1,), batches=(4, 64)).table
    assert [s.name for s in table.stages] == ["sparse", "dense"] and len(table.variants) == 1
    assert table.seconds[0, 1, -1, 0] == pytest.approx(law("dense", 1, 1, 64))
    both = measured(stages=("model", "sparse", "dense")).table
    assert {v.kind for v in both.variants} == {"cpu", "cpu-sd"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": (0, 4)}, "batches: has 0; allowed are whole numbers from 1 to 64"),
        ({"batches": (65,)}, "batches: has 65"),
        ({"batches": (1.5,)}, "batches: has 1.5"),
        ({"batches": ()}, "batches: is ()"),
        ({"batches": 8}, "batches: is 8"),
        ({"threads": (1, 1)}, "threads: is (1, 1); allowed are different numbers"),
        ({"operator_cores": (3,)}, "operator_cores: has 3; allowed are whole numbers from 1 to 2"),
        ({"cpus": (0, 9)}, "cpus: is (0, 9); allowed are different ones of [0, 1]"),
        ({"cpus": ()}, "cpus: is ()"),
        ({"stages": ("sparse",)}, "stages: is ('sparse',)"),
        ({"stages": ("sparse", "dense"), "cpus": (0,)}, "need 2 CPUs; there is 1"),
        ({"seconds": float("nan")}, "seconds: is nan"),
        ({"warmup": 1.0}, "warmup: is 1.0"),
        ({"noise_limit": True}, "noise_limit: is True"),
        ({"idle_w": 5.0}, "one is given; allowed are both or neither"),
        ({"idle_w": 5.0, "tdp_w": 4.0}, "tdp_w: is 4.0; allowed is >= idle_w, 5.0"),
        ({"idle_w": -1.0, "tdp_w": 4.0}, "idle_w: is -1.0"),
        ({"idle_w": "5", "tdp_w": 6.0}, "idle_w: is '5'; allowed is a number of W, finite and >= 0"),
        ({"base_w": True}, "base_w: is True"),
        ({"server": ""}, "server: is ''"),
        ({"server": "a\nb"}, "server: is 'a\\nb'; allowed is a name that can be printed"),
    ],
)
def test_what_is_asked_is_checked_before_anything_runs(options, message, machine) -> None:
    with pytest.raises(InputError) as caught:
        measured(**options)
    assert message in str(caught.value) and not machine.visits


def test_only_an_engine_is_measured(machine) -> None:
    with pytest.raises(DTypeError, match="engine: is of type str"):
        measure_service("dlrm-rmc1")


@pytest.mark.parametrize(
    ("noise", "stalls", "causes"),
    [
        ((0.3, 0.0), 0.0, ["before: CPU 0 lost 30%"]),
        ((0.0, 0.3), 0.0, ["after: CPU 0 lost 30%"]),
        ((0.0,), 0.05, ["during: ", "of the time was lost to others; allowed is 1.00%"]),
    ],
)
def test_noise_is_not_certified_and_named(noise, stalls, causes, monkeypatch) -> None:
    Machine(noise=noise, stalls=stalls).install(monkeypatch)
    found = measured()
    assert not found.certified and found.clock == "cpu"
    assert all(cause in found.cause for cause in causes)
    assert found.table.seconds[0, 0, 3, 1] == pytest.approx(law("model", 1, 2, 8))
    assert any(note == f"not certified: {found.cause}" for note in found.table.assumptions)
    assert any("thread-CPU times" in note for note in found.table.assumptions)
    assert "NOT CERTIFIED" in found.explain() and found.to_dict()["certified"] is False


def test_with_helpers_the_threads_own_time_tells_nothing(monkeypatch) -> None:
    machine = Machine(stalls=0.2).install(monkeypatch)
    found = measured(operator_cores=(2,))
    assert found.certified and found.lost_share == 0.0, "a thread that waits for its helpers is not disturbed"
    machine.noise = (0.5,)
    machine.install(monkeypatch)
    found = measured(operator_cores=(2,))
    assert not found.certified and found.table.seconds[0, 0, 0, 0] == pytest.approx(law("model", 2, 1, 1))


def test_places_that_fall_are_measured_again(machine) -> None:
    slow = ("model", 1, 1, 16)
    machine.disturbed = lambda visit, place: 2.5 if place == slow and visit < 21 * (ROUNDS - 1) else 1.0
    found = measured()
    point = next(p for p in found.points if (p.operator_cores, p.threads, p.batch) == (1, 1, 16))
    assert point.rounds == ROUNDS + 2, "three slow rounds need four others"
    assert any("were measured again" in note for note in found.table.assumptions)
    assert not any("pooled" in note for note in found.table.assumptions)
    assert point.wall_ms == pytest.approx(1e3 * law("model", 1, 1, 16)) and point.drift > 0.5


def test_what_falls_for_good_is_pooled_and_said(machine) -> None:
    machine.disturbed = lambda visit, place: 3.0 if place[3] == 16 else 1.0
    found = measured()
    assert any("pooled: " in note and "more than 5%" in note for note in found.table.assumptions)
    assert (found.table.seconds[:, :, 1:] >= found.table.seconds[:, :, :-1]).all()


def test_the_csv_reads_back_to_the_same_table(machine, tmp_path) -> None:
    machine.disturbed = lambda visit, place: 3.0 if place[3] == 16 else 1.0
    machine.jitter = 0.05
    found = measured(idle_w=10.0, tdp_w=20.0)
    path = tmp_path / "points.csv"
    path.write_text(found.to_csv())
    again = hf.ServiceTable.from_csv(path, server="this-host", workload="dlrm-rmc1", idle_w=10.0, tdp_w=20.0)
    assert arrays_of(again) == arrays_of(found.table)
    assert (again.variants, again.stages, again.groups) == (
        found.table.variants,
        found.table.stages,
        found.table.groups,
    )


def test_a_batch_that_takes_minutes_is_named(machine) -> None:
    machine.law = lambda stage, cores, threads, batch: 100.0 if batch == 64 else 1e-3
    with pytest.raises(InputError, match=r"batches: 64 items on 1 threads of 1 cores .* take longer than 60 s"):
        measured()


def test_time_is_bounded_and_long_batches_get_their_least(machine) -> None:
    machine.law = lambda stage, cores, threads, batch: 0.1 * batch
    found = measured(seconds=0.0, batches=(1, 8), operator_cores=(1,), threads=(1,))
    assert all(p.samples >= 5 and p.rounds == 3 for p in found.points)
    assert machine.now_s == pytest.approx(1.0 + (1 + 3 * 2) * 3 * (0.1 + 0.8)), "each place with company of the other"


def test_power_is_measured_given_or_assumed(machine) -> None:
    machine.meter = SmallMeter(machine)
    found = measured()
    assert (
        found.energy.origin == "measured"
        and found.energy.source == "a small meter (package-0), at rest and with all cores busy"
    )
    assert found.table.idle_w == {"cpu": pytest.approx(40.0)} and found.table.tdp_w == {"cpu": pytest.approx(100.0)}
    given = measured(idle_w=7.0, tdp_w=9.0, base_w=3.0)
    assert (given.energy.origin, given.table.base_w) == ("user", 3.0)
    machine.meter = None
    assumed = measured()
    assert assumed.energy.origin == "assumed" and 0 < assumed.energy.idle_w < assumed.energy.tdp_w
    assert any(note.startswith("power assumed: ") for note in assumed.table.assumptions)
    half = measured(threads=(1,), operator_cores=(1,))
    assert half.table.groups[0].capacity == 1 and half.energy.tdp_w == assumed.energy.tdp_w / 2


def test_energy_before_and_after_the_services_is_not_theirs(machine, monkeypatch) -> None:
    """Threads take a while to start and to end; the meter runs on meanwhile."""
    machine.meter = SmallMeter(machine)
    services = visits.time_services

    def with_start_and_end(*given: Any) -> Any:
        machine.now_s += 0.5
        machine.meter.read_j()
        return services(*given)

    monkeypatch.setattr(visits, "time_services", with_start_and_end)
    found = measured()
    assert found.table.idle_w == {"cpu": pytest.approx(40.0)} and found.table.tdp_w == {"cpu": pytest.approx(100.0)}


def test_progress_counts_to_the_end(machine) -> None:
    seen: list[tuple[int, int]] = []
    measured(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (21 * ROUNDS, 21 * ROUNDS) and seen == sorted(seen)


def test_ctrl_c_keeps_what_was_measured(machine) -> None:
    machine.interrupt_after = 10
    with pytest.raises(InterruptedRun) as caught:
        measured()
    assert caught.value.partial is None
    machine.visits.clear()
    machine.interrupt_after = 21 + 10
    with pytest.raises(InterruptedRun) as caught:
        measured()
    some = caught.value.partial
    assert len(some.points) == 10 and not some.certified and "did not come to its end" in some.cause
    machine.visits.clear()
    machine.interrupt_after = 3 * 21
    with pytest.raises(InterruptedRun) as caught:
        measured()
    whole = caught.value.partial
    assert len(whole.points) == 21 and whole.table is not None and not whole.complete


def test_a_partial_without_a_table_says_so(machine, tmp_path) -> None:
    machine.interrupt_after = 21 + 16
    with pytest.raises(InterruptedRun) as caught:
        measured()
    partial = caught.value.partial
    assert partial.table is None and partial.to_csv().count("\n") == 3 + 1 + 16
    assert "no table" in partial.explain() and partial.to_dict()["table_digest"] is None
    with pytest.raises(InputError, match="table: there is none"):
        partial.save(tmp_path / "t.npz")


def test_a_journal_goes_on_where_it_ended(machine, tmp_path) -> None:
    journal = tmp_path / "journal.jsonl"
    machine.interrupt_after = 21 + 50
    with pytest.raises(InterruptedRun):
        measured(journal=journal)
    with journal.open("ab") as file:
        file.write(b'{"sha256":"torn')
    machine.interrupt_after = None
    before = len(machine.visits)
    found = measured(journal=journal)
    assert len(machine.visits) - before == 21 + 21 * ROUNDS - 50
    assert found.complete and all(p.rounds == ROUNDS for p in found.points)
    before = len(machine.visits)
    again = measured(journal=journal)
    assert len(machine.visits) - before == 21 and again.points == found.points


def test_noise_of_an_earlier_call_is_not_forgotten(machine, tmp_path, monkeypatch) -> None:
    journal = tmp_path / "journal.jsonl"
    machine.noise = (0.4,)
    machine.install(monkeypatch)
    measured(journal=journal)
    machine.noise = (0.0,)
    machine.install(monkeypatch)
    found = measured(journal=journal)
    assert not found.certified and found.cause == "in an earlier call: CPU 0 lost 40%"


def test_a_journal_of_something_else_is_refused(machine, tmp_path) -> None:
    journal = tmp_path / "journal.jsonl"
    measured(journal=journal)
    with pytest.raises(ConfigError, match="cpus"):
        measured(journal=journal, cpus=(0,))
    with pytest.raises(ConfigError, match="model: the journal has 'dlrm-rmc1'"):
        measure_service(SmallEngine(model=hf.models.model("wnd")), journal=journal)


def test_from_the_table_to_a_plan(machine, tmp_path) -> None:
    workload = replace(hf.traffic.workload("rmc1"), name="dlrm-rmc1")
    found = measured(idle_w=40.0, tdp_w=90.0)
    result = found.search(workload, seed=1)
    row = result.row
    assert (row.origin, row.status, row.server, row.source_digest) == (
        "measured",
        "ok",
        "this-host",
        found.table.digest(),
    )
    assert 40.0 < row.power_w <= 90.0 and row.config.batch <= 64 and "not certified" not in row.reason
    path = tmp_path / "efficiency.json"
    found.efficiency(result).save(path)
    table = hf.EfficiencyTable.load(path)
    assert table.rows == (row,) and table.meta["measurement"]["certified"] is True
    load = hf.LoadTrace.from_arrays(
        "noon", ["dlrm-rmc1"], start="2026-01-05T12:00", interval_s=900, qps=[[5.5 * row.qps]]
    )
    plan = hf.provision(table, load, {"this-host": 10}, hf.Policy(headroom=0.0))
    assert plan.is_covered and plan.servers_on.tolist() == [[[6]]]
    with pytest.raises(InputError, match="is a table of 'dlrm-rmc1' on 'this-host'"):
        found.search(hf.traffic.workload("rmc1"))


def test_a_row_from_a_noisy_machine_says_so(monkeypatch) -> None:
    Machine(noise=(0.2,)).install(monkeypatch)
    found = measured()
    result = found.search(replace(hf.traffic.workload("rmc1"), name="dlrm-rmc1"))
    assert result.row.reason.endswith("; measured on a noisy machine, not certified")
    assert found.efficiency(result).meta["measurement"]["cause"] == found.cause


def run_of(services: list[tuple[int, float, float, bool]], duration_s: float = 4.5) -> Any:
    """A run of one pool: (thread, start, end, preempted); CPU time is half a second less where it was preempted."""
    thread, start, end, preempted = (np.array(column) for column in zip(*services, strict=True))
    cpu = end - start - 0.5 * preempted
    return SimpleNamespace(
        part_items=np.full(len(services), 8),
        thread=thread[None],
        start_s=start[None],
        end_s=end[None],
        cpu_s=cpu[None],
        preempted=preempted[None],
        duration_s=duration_s,
        steal_share=0.1,
    )


def test_company_of_a_batch_comes_in_turn_and_alike_often() -> None:
    assert sizes_of(4, 3, (), 0).tolist() == [4, 4, 4]
    line = sizes_of(4, 6, (1, 16), 7)
    assert line[0::2].tolist() == [4] * 6 and sorted(line[1::2].tolist()) == [1, 1, 1, 16, 16, 16]
    assert line.tolist() == sizes_of(4, 6, (1, 16), 7).tolist()
    assert any(line.tolist() != sizes_of(4, 6, (1, 16), seed).tolist() for seed in range(3))


def test_only_its_own_batch_counts_in_a_visit() -> None:
    services = [(0, 0.0, 1.0, False), (0, 1.0, 3.0, False), (0, 3.0, 4.0, False), (0, 4.0, 4.5, False)]
    run = run_of(services)
    run.part_items = np.array([8, 2, 8, 2])
    visit = summed_visit(run, ("model", 1, 1, 8), 0.0, None)
    assert (visit.samples, visit.wall_s) == (1, 1.0) and visit.busy_s == pytest.approx(4.5)


def test_what_counts_in_a_visit() -> None:
    services = [
        (0, 0.0, 1.0, False),  # the first of its thread
        (1, 0.0, 1.5, True),  # the first of its thread
        (0, 1.0, 2.0, False),
        (1, 1.5, 3.0, True),
        (0, 2.0, 3.2, False),
        (1, 3.0, 4.5, False),  # thread 0 had no more to do
        (0, 3.2, 4.0, False),
        (1, 4.5, np.nan, False),  # unfinished
    ]
    place = ("model", 1, 2, 8)
    visit = summed_visit(run_of(services), place, 0.0, None)
    assert (visit.samples, visit.preempted) == (4, 1)
    assert visit.median_s == pytest.approx(np.median([1.0, 1.5, 1.2, 0.8]))
    for found, times in (
        ((visit.wall_s, visit.wall_cv), [1.0, 1.5, 1.2, 0.8]),
        ((visit.cpu_s, visit.cpu_cv), [1.0, 1.0, 1.2, 0.8]),
        ((visit.calm_s, visit.calm_cv), [1.0, 1.2, 0.8]),
    ):
        assert found == pytest.approx((np.mean(times), np.std(times, ddof=1) / np.mean(times)))
    assert visit.spread == pytest.approx(1.4826 * np.median([0.1, 0.4, 0.1, 0.3]) / 1.1)
    assert (visit.lost_s, visit.busy_s) == pytest.approx((1.0, 8.5)), "the time lost is that of all services"
    assert visit.stolen_s == pytest.approx(0.45)
    assert summed_visit(run_of(services), place, 0.3, None).samples == 3, "nothing before 1.35 s"
    assert summed_visit(run_of(services), ("model", 2, 2, 8), 0.0, None).busy_s == 0.0
    assert summed_visit(run_of(services[:2]), place, 0.0, None) is None
    assert summed_visit(run_of(services), ("model", 1, 2, 4), 0.0, None) is None, "none of its own batch"
    assert summed_visit(run_of([s for s in services if s[0] == 0]), place, 0.0, None) is None


def test_measuring_again_ends_with_the_time(machine) -> None:
    machine.disturbed = lambda visit, place: 3.0 if place[3] == 16 else 1.0
    found = measured(seconds=0.0)
    assert all(point.rounds == 3 for point in found.points)
    assert any("pooled: " in note for note in found.table.assumptions)


def test_a_journal_of_other_lookups_is_refused(tmp_path) -> None:
    """Times of hot rows are not those of rows that are all alike."""
    path = tmp_path / "j.jsonl"
    hot = hf.traffic.popularity("zipf")

    def engine(popularity: Any) -> Engine:
        small = models.model("dlrm-rmc1")
        return Engine.build(small, rows_scale=1e-4, max_items=8, backend="numpy", popularity=popularity)

    measure_service(engine(None), batches=(8,), seconds=0.0, journal=path)
    with pytest.raises(ConfigError, match=r"engine\.popularity: the journal has 'uniform', the call asks for 'zipf"):
        measure_service(engine(hot), batches=(8,), seconds=0.0, journal=path)
