"""Profiles within a time budget: an answer for every pair, and honest about which are final."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hercules_fast.errors import InputError, InterruptedRun
from tests.small_profiles import PAIRS, small_profile

FITTING = [pair for pair in PAIRS if pair != ("T1", "rmc2")]


@pytest.fixture(scope="module")
def final():
    return small_profile()


def test_enough_time_changes_no_byte(final) -> None:
    assert small_profile(time_budget_s=3600).to_json() == final.to_json()
    with ThreadPoolExecutor(2) as pool:
        assert small_profile(time_budget_s=3600.0, executor=pool).to_json() == final.to_json()


@pytest.mark.parametrize("engine", ["core", "executor"])
def test_no_time_gives_a_coarse_row_for_every_pair(final, engine) -> None:
    if engine == "core":
        table = small_profile(time_budget_s=1e-3)
    else:
        with ThreadPoolExecutor(1) as pool:
            table = small_profile(time_budget_s=1e-3, executor=pool)
    assert [(r.server, r.workload) for r in table.rows] == PAIRS
    coarse = [tuple(pair) for pair in table.meta["not_final"]]
    assert coarse == FITTING
    for row, best in zip(table.rows, final.rows, strict=True):
        assert row.reason.startswith("not final, for want of time: ") == ((row.server, row.workload) in coarse)
        assert row.qps == pytest.approx(best.qps, rel=0.2)


def test_a_journal_takes_final_rows_only_and_makes_the_table_whole(final, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    first = small_profile(time_budget_s=1e-3, journal=path)
    assert first.meta["not_final"] == [list(pair) for pair in FITTING]
    resumed = small_profile(time_budget_s=3600, journal=path)
    assert resumed.kept == (("T1", "rmc2"),)
    assert resumed.to_json() == final.to_json()
    assert small_profile(time_budget_s=1e-3, journal=path).to_json() == final.to_json()


def test_ctrl_c_keeps_the_coarse_rows_too() -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun) as stopped:
        small_profile(time_budget_s=3600, progress=interrupt, threads=1)
    table = stopped.value.partial
    assert [(r.server, r.workload) for r in table.rows] == PAIRS
    assert 0 < len(table.meta["not_final"]) < len(PAIRS)


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), float("inf"), True, "60"])
def test_a_budget_is_a_positive_number_of_seconds(budget) -> None:
    with pytest.raises(InputError, match=r"time_budget_s: is .*; allowed is a finite number of seconds > 0"):
        small_profile(time_budget_s=budget)


def test_evaluations_are_bounded(final, tmp_path) -> None:
    table = small_profile(evaluations=3, journal=tmp_path / "journal.jsonl")
    assert all(0 < row.evaluations <= 3 for row in table.rows if row.config)
    assert max(row.evaluations for row in final.rows) > 3
    with pytest.raises(InputError, match="evaluations: the journal has 3, the call asks for none"):
        small_profile(journal=tmp_path / "journal.jsonl")
    for bad in (0, -1, 2.0, True, 2**63):
        with pytest.raises(InputError, match=r"evaluations: is .*; allowed is a whole number >= 1"):
            small_profile(evaluations=bad)
