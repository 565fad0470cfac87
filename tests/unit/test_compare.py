"""Comparing two tables: worse only beyond the threshold and the noise of both, and nothing goes missing unseen."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hercules_fast as hf
from hercules_fast.errors import DTypeError, InputError, MissingFileError

BASE = hf.EfficiencyTable.from_matrices(["A", "B"], ["w"], [[100.0], [0.0]], [[50.0], [0.0]])


def table(**changes: float) -> hf.EfficiencyTable:
    """One pair at 100 QPS, 98 to 102, and 50 W, changed."""
    row = replace(BASE.rows[0], **({"qps": 100.0, "qps_lo": 98.0, "qps_hi": 102.0} | changes))
    return hf.EfficiencyTable(rows=(row,), servers=("A",), workloads=("w",))


def verdict(after: hf.EfficiencyTable, **options: float) -> str:
    (change,) = hf.compare(table(), after, **options).changes
    return change.verdict


def test_a_table_is_the_same_as_itself() -> None:
    comparison = hf.compare(BASE, BASE, fail_over=0)
    assert [change.verdict for change in comparison.changes] == ["same", "same"]
    assert not comparison.regressions and not comparison.improvements
    assert comparison.explain() == (
        "2 pairs: 0 worse, 0 removed, 0 better, 0 added; fails over 0 of QPS or QPS per watt"
    )


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (table(qps=94, qps_lo=93, qps_hi=95), "worse"),
        (table(qps=96, qps_lo=95, qps_hi=97), "same"),  # beyond the noise, within the threshold
        (table(qps=90, qps_lo=80, qps_hi=99), "same"),  # beyond the threshold, within the noise
        (table(qps=106, qps_lo=105, qps_hi=107), "better"),
        (table(power_w=56.0), "worse"),  # the same QPS for more power
        (table(power_w=44.0), "better"),
        (table(qps=110, qps_lo=109, qps_hi=111, power_w=70.0), "worse"),  # more QPS, fewer of them per watt
    ],
)
def test_the_rule(after, expected) -> None:
    assert verdict(after) == expected


def test_reasons_name_both_figures() -> None:
    (change,) = hf.compare(table(), table(qps=90, qps_lo=89, qps_hi=91, reason="limited by sla")).regressions
    assert change.why == (
        "QPS 100 -> 90 (-10.0%), and the intervals do not touch",
        "QPS per watt 2 -> 1.8 (-10.0%), and the intervals do not touch",
    )
    assert change.differences == ("reason:  -> limited by sla",)
    assert (change.qps, change.qps_per_watt, change.power) == pytest.approx((-0.1, -0.1, 0.0))


@given(st.floats(50, 200), st.floats(0, 20), st.floats(50, 200), st.floats(0, 20), st.floats(0, 0.5))
def test_worse_one_way_is_better_the_other(qps, noise, other, other_noise, fail_over) -> None:
    a = table(qps=qps, qps_lo=qps - noise, qps_hi=qps + noise)
    b = table(qps=other, qps_lo=other - other_noise, qps_hi=other + other_noise)
    there, back = hf.compare(a, b, fail_over=fail_over), hf.compare(b, a, fail_over=fail_over)
    assert len(there.regressions) == len(back.improvements)
    worse = other < qps * (1 - fail_over) and other + other_noise < qps - noise
    if abs(other / qps - 1 + fail_over) > 1e-9:
        assert bool(there.regressions) == worse


def test_what_is_no_longer_served_is_a_regression() -> None:
    gone = hf.EfficiencyTable.from_matrices(["A", "B"], ["w"], [[0.0], [0.0]], [[0.0], [0.0]])
    (change,) = hf.compare(BASE, gone).regressions
    assert change.why == ("it was ok and is infeasible: given as not eligible",)
    assert math.isnan(change.qps)
    assert [c.verdict for c in hf.compare(gone, BASE).improvements] == ["better"]


def test_rows_that_come_and_go() -> None:
    small = hf.EfficiencyTable(rows=BASE.rows[:1], servers=("A",), workloads=("w",))
    other = hf.EfficiencyTable.from_matrices(["C"], ["w"], [[7.0]], [[1.0]])
    comparison = hf.compare(BASE, other)
    assert [(c.server, c.verdict) for c in comparison.changes] == [("C", "added"), ("A", "removed"), ("B", "removed")]
    assert [c.server for c in comparison.regressions] == ["A"], "B was served by no one"
    assert not hf.compare(small, BASE).regressions


def test_the_first_of_several_rows_counts() -> None:
    (best,) = table().rows
    slower = replace(best, qps=60.0, qps_lo=59.0, qps_hi=61.0, power_w=20.0)
    front = hf.EfficiencyTable(rows=(best, slower), servers=("A",), workloads=("w",))
    assert [c.verdict for c in hf.compare(table(), front).changes] == ["same"]


def test_dictionaries_are_json() -> None:
    data = hf.compare(BASE, table()).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["changes"][1]["before"]["status"] == "infeasible" and data["changes"][1]["qps"] is None


def test_paths_are_tables(tmp_path) -> None:
    BASE.save(tmp_path / "a.json")
    assert not hf.compare(tmp_path / "a.json", str(tmp_path / "a.json")).regressions
    with pytest.raises(MissingFileError):
        hf.compare(BASE, tmp_path / "b.json")


@pytest.mark.parametrize("fail_over", [-0.1, 1, 5, float("nan"), "5%", True, None])
def test_a_threshold_is_a_share(fail_over) -> None:
    with pytest.raises(InputError, match=r"fail_over: is .*; allowed is 0 <= fail_over < 1, such as 0\.05 for 5 %"):
        hf.compare(BASE, BASE, fail_over=fail_over)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(DTypeError, match="b: is of type dict; allowed is an EfficiencyTable or a path"):
        hf.compare(BASE, {})
