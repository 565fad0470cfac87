"""Service tables from measurements: values, interpolation, refusals, every fault with its line."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hercules_fast as hf
from hercules_fast.errors import ConfigError, InputError
from hercules_fast.profiling import space
from hercules_fast.tables import MeasuredPoint, dips, measured_table, pooled
from hercules_fast.tables.measurements import DIP

WATTS = {"server": "mine", "workload": "wnd", "idle_w": 60.0, "tdp_w": 150.0, "base_w": 20.0}


def time_ms(batch: int, cores: int, threads: int) -> float:
    return (0.4 + 0.03 * batch / cores) * (1 + 0.05 * (threads - 1))


def grid(batches=(1, 16, 64, 256, 1024), cores=((1, (1, 2, 4)), (2, (1, 2)), (4, (1,)))):
    return [(b, o, n, time_ms(b, o, n)) for o, threads in cores for n, b in product(threads, batches)]


def table_of(tmp_path, rows, header="batch,cores,threads,ms", **watts):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return hf.ServiceTable.from_csv(path, **{**WATTS, **watts})


def faults_of(tmp_path, rows, **options) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        table_of(tmp_path, rows, **options)
    return [str(fault) for fault in caught.value.faults]


def test_the_table_holds_the_measurements(tmp_path) -> None:
    table = table_of(tmp_path, grid())
    assert (table.origin, table.items.tolist(), table.busy.tolist()) == ("measured", [1, 16, 64, 256, 1024], [1, 2, 4])
    assert [v.name for v in table.variants] == ["cpu-o1", "cpu-o2", "cpu-o4"]
    for v, o in enumerate((1, 2, 4)):
        for (i, b), (t, n) in product(enumerate(table.items.tolist()), enumerate(table.busy.tolist())):
            if o * n <= 4:
                assert table.seconds[v, 0, i, t] * 1e3 == pytest.approx(time_ms(b, o, n))
    assert table.groups[0].capacity == 4 and table.idle_w == {"cpu": 60.0} and table.base_w == 20.0
    assert not any("pooled" in note for note in table.assumptions)


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    table = table_of(tmp_path, grid())
    table.save(tmp_path / "t.npz")
    again = hf.ServiceTable.load(tmp_path / "t.npz")
    assert again.digest() == table.digest() and again.origin == "measured"


def test_the_lattice_offers_only_what_was_measured(tmp_path) -> None:
    table = table_of(tmp_path, grid())
    found = space(table)
    for k in range(len(found.candidates)):
        config = found.config(table, k)
        cores = config.operator_cores[0]
        assert config.batch <= 1024 and config.threads[0] in range(1, 4 // cores + 1)
    with pytest.raises(InputError, match="ends at 1024 items and is not extrapolated"):
        table.config(0, (1,), batch=1025)
    with pytest.raises(InputError, match="allowed is <= 4"):
        table.config(0, (5,), batch=64)


def test_a_short_table_still_makes_a_lattice(tmp_path) -> None:
    table = table_of(tmp_path, [(1, 1, 1, 1.0), (8, 1, 1, 2.0)])
    assert {int(row[1]) for row in space(table).candidates} == {8}


def test_a_pipeline_and_its_noise(tmp_path) -> None:
    rows = [
        (stage, b, o, n, time_ms(b, o, n), 0.1 if stage == "sparse" else 0.3)
        for stage in ("sparse", "dense")
        for o, threads in ((1, (1, 2, 4)), (2, (1, 2)))
        for n, b in product(threads, (1, 64, 256))
    ]
    table = table_of(tmp_path, rows, header="stage,batch,cores,threads,ms,cv")
    assert [s.name for s in table.stages] == ["sparse", "dense"] and table.noise_cv.tolist() == [0.1, 0.3]
    assert [v.operator_cores for v in table.variants] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert len(space(table).candidates) > 0


def test_it_runs_in_the_simulator(tmp_path) -> None:
    table = table_of(tmp_path, grid())
    config = table.config(1, (2,), batch=256)
    system = hf.System.from_table(table, config)
    sizes = hf.fleet("zoo10").workloads[0].sizes
    result = hf.simulate(system, hf.Queries(qps=20.0, sizes=sizes), queries=20_000, seed=1)
    assert result.latency_ms[0] > 1e3 * table.seconds[1, 0, 0, 0]


def test_below_the_first_batch_it_stays_and_says_so(tmp_path) -> None:
    table = table_of(tmp_path, grid(batches=(10, 100)))
    assert table.items.tolist() == [1, 10, 100] and np.all(table.seconds[:, :, 0] == table.seconds[:, :, 1])
    assert any("below 10 items" in note for note in table.assumptions)


def test_small_dips_are_pooled_and_noted(tmp_path) -> None:
    rows = [(b, 1, 1, ms) for b, ms in ((1, 1.0), (16, 2.0), (64, 1.96), (256, 5.0))]
    table = table_of(tmp_path, rows)
    assert table.seconds[0, 0, :, 0] * 1e3 == pytest.approx([1.0, 1.98, 1.98, 5.0])
    assert any(note.startswith("pooled: 2 points") for note in table.assumptions)


def test_larger_dips_are_refused_with_both_lines(tmp_path) -> None:
    rows = [(b, 1, 1, ms) for b, ms in ((1, 1.0), (16, 2.0), (64, 1.5), (256, 5.0))]
    (fault,) = faults_of(tmp_path, rows)
    assert fault.startswith("line 4: model, batch 64, cores 1, threads 1: 1.5 ms is below 2 ms of a smaller batch")
    assert "on line 3" in fault
    rows = [(b, 1, n, ms) for b in (1, 16) for n, ms in ((1, 2.0 * b), (2, 1.0 * b))]
    assert len(faults_of(tmp_path, rows)) == 2 and "fewer threads" in faults_of(tmp_path, rows)[0]


def test_every_missing_combination_is_listed(tmp_path) -> None:
    rows = [row for row in grid() if row[:3] not in {(64, 1, 2), (1, 2, 1)}]
    found = faults_of(tmp_path, rows)
    assert [f.split(";")[0] for f in found] == [
        "missing: model, batch 64, cores 1, threads 2",
        "missing: model, batch 1, cores 2, threads 1",
    ]
    rows = [row for row in grid() if row[:2] != (0, 0) and not (row[1] == 2 and row[2] == 2)]
    found = faults_of(tmp_path, rows)
    assert len(found) == 5 and all("4 cores hold 2 such threads; measure it" in f for f in found)
    found = faults_of(tmp_path, [("sparse", 1, 1, 1, 1.0)], header="stage,batch,cores,threads,ms")
    assert found == ["stage: sparse is measured and dense is not; measure both stages of a pipeline"]


def test_all_faults_of_rows_at_once(tmp_path) -> None:
    rows = [
        (1, 1, 1, 1.0),
        (1, 1, 1, 1.1),
        (2, 1, 1, "nan"),
        (3, 1, 1, 0),
        (4, 0, 1, 1.0),
        (5, 1, 1.5, 1.0),
        (6, 1, 1, 0.0002),
        (7, 1, 1, 2e6),
        (8, 1),
        ("x", 1, 1, "inf"),
    ]
    found = faults_of(tmp_path, rows)
    assert [f.partition(":")[0] for f in found] == [f"line {k}" for k in (3, 4, 5, 6, 7, 8, 9, 10, 11, 11)]
    assert "already stands on line 2" in found[0]
    assert "are these seconds?" in found[5] and "are these microseconds?" in found[6]


@pytest.mark.parametrize("column", ["us", "s", "time"])
def test_the_header_must_say_ms(tmp_path, column) -> None:
    found = faults_of(tmp_path, grid(), header=f"batch,cores,threads,{column}")
    assert found[0].startswith("line 1: no column 'ms'") and f"unknown column '{column}'" in found[1]


def test_watts(tmp_path) -> None:
    with pytest.raises(InputError, match="tdp_w: is 10"):
        table_of(tmp_path, grid(), tdp_w=10.0)
    with pytest.raises(InputError, match="idle_w: is nan"):
        table_of(tmp_path, grid(), idle_w=float("nan"))


@given(noise=st.lists(st.floats(0.9, 1.1), min_size=12, max_size=12))
def test_whatever_is_accepted_is_monotone_and_near(tmp_path_factory, noise) -> None:
    batches, threads = (1, 16, 64, 256), (1, 2, 3)
    rows = [(b, 1, n, time_ms(b, 1, n) * f) for (b, n), f in zip(product(batches, threads), noise, strict=True)]
    given_ms = np.array([row[3] for row in rows]).reshape(4, 3)
    falls = max((np.maximum.accumulate(given_ms, axis=a) / given_ms).max() for a in (0, 1))
    folder = tmp_path_factory.mktemp("t")
    if falls * (1 - DIP) > 1:
        with pytest.raises(ConfigError, match="allowed are dips"):
            table_of(folder, rows)
        return
    seconds = table_of(folder, rows).seconds[0, 0]
    assert np.all(np.diff(seconds, axis=0) >= 0) and np.all(np.diff(seconds, axis=1) >= 0)
    assert np.all(np.abs(seconds * 1e3 / given_ms - 1) <= 0.11)


@given(rows=st.lists(st.tuples(*[st.sampled_from(["1", "2", "16", "0", "-1", "nan", "x", "", "1e9"])] * 4), max_size=6))
def test_any_rows_are_a_table_or_a_list_of_faults(tmp_path_factory, rows) -> None:
    try:
        table = table_of(tmp_path_factory.mktemp("t"), rows)
    except ConfigError as error:
        assert error.faults
    else:
        assert table.origin == "measured"


def points(rows, stage="model", cv=None) -> list[MeasuredPoint]:
    return [MeasuredPoint(stage=stage, batch=b, operator_cores=o, threads=n, ms=ms, cv=cv) for b, o, n, ms in rows]


def arrays_of(table) -> list[bytes]:
    return [getattr(table, name).tobytes() for name in ("items", "busy", "seconds", "energy_j", "noise_cv")]


def test_points_in_memory_make_the_table_of_the_file(tmp_path) -> None:
    rows = [(*row, 0.2) for row in grid(batches=(10, 100))]
    read = table_of(tmp_path, rows, header="batch,cores,threads,ms,cv")
    made = measured_table(points([row[:4] for row in rows], cv=0.2), **WATTS, notes=["of tests"])
    assert arrays_of(made) == arrays_of(read)
    assert made.assumptions[0] == "of tests" and made.assumptions[1:] == read.assumptions[1:]
    assert (made.variants, made.stages, made.groups) == (read.variants, read.stages, read.groups)


def test_faults_of_points_name_them() -> None:
    rows = points([(1, 1, 1, 1.0), (1, 1, 1, 1.0), (2, 1, 1, float("nan")), (0, 1, 1, 1.0), (4, 1, 1, 1e6)])
    rows += [replace(rows[0], stage="both", cv=-1.0)]
    with pytest.raises(ConfigError) as caught:
        measured_table(rows, **WATTS)
    found = [str(fault) for fault in caught.value.faults]
    assert [f.partition(":")[0] for f in found] == [f"points[{k}]" for k in (1, 2, 3, 4, 5, 5)]
    assert "already stands on points[0]" in found[0] and "are these microseconds?" in found[3]
    with pytest.raises(ConfigError, match="there are none"):
        measured_table([], **WATTS)
    with pytest.raises(ConfigError, match="missing: model, batch 2, cores 1, threads 2; measure it"):
        measured_table(points([(1, 1, 1, 1.0), (2, 1, 1, 1.0), (1, 1, 2, 1.0)]), **WATTS)
    with pytest.raises(InputError, match="large_dips: is 'no'"):
        measured_table(points([(1, 1, 1, 1.0)]), **WATTS, large_dips="no")


def test_large_dips_are_named_and_pooled_where_allowed() -> None:
    rows = points([(1, 1, 1, 1.0), (16, 1, 1, 2.0), (64, 1, 1, 1.5), (256, 1, 1, 5.0)])
    assert dips(rows) == [(("model", 1, 1, 64), ("model", 1, 1, 16))]
    with pytest.raises(ConfigError, match=r"points\[2\]: model, batch 64.* on points\[1\]"):
        measured_table(rows, **WATTS)
    table = measured_table(rows, **WATTS, large_dips="pool")
    assert table.seconds[0, 0, :, 0] * 1e3 == pytest.approx([1.0, 1.75, 1.75, 5.0])
    assert any("2 points that dip (1 by more than 5%)" in note for note in table.assumptions)
    again = measured_table(pooled(rows), **WATTS)
    assert arrays_of(again) == arrays_of(table) and dips(pooled(rows)) == []
