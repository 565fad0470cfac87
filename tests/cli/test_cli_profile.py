"""``profile`` with a journal and a time budget, and ``compare`` as a gate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hercules_fast.cli import main
from hercules_fast.tables import EfficiencyTable


def profile(fleet_file: Path, *more: str) -> int:
    return main(["profile", "--fleet", str(fleet_file), "--workloads", "wnd", *more])


def test_a_journal_goes_on(fleet_file, tmp_path, capsys) -> None:
    journal = ("--journal", str(tmp_path / "journal.jsonl"))
    assert profile(fleet_file, *journal, "--servers", "T1", "--json") == 0
    capsys.readouterr()
    assert profile(fleet_file, *journal, "--json") == 0
    out, err = capsys.readouterr()
    assert err == "1 of 2 pairs are from the journal\n"
    assert profile(fleet_file, "--json") == 0
    assert capsys.readouterr().out == out
    assert profile(fleet_file, *journal, "--sla", "p95:40ms", "--json") == 0
    assert capsys.readouterr().err.splitlines() == [
        "profiled anew: wnd on T1 (workload changed)",
        "profiled anew: wnd on T2 (workload changed)",
    ]
    assert profile(fleet_file, *journal, "--seed", "1") == 2
    assert "seed: the journal has 0, the call asks for 1" in capsys.readouterr().err


def test_a_journal_is_never_the_table(fleet_file, tmp_path, capsys) -> None:
    path = str(tmp_path / "t.json")
    assert profile(fleet_file, "--journal", path, "--servers", "T1") == 0
    assert profile(fleet_file, "--journal", path, "--out", path, "--overwrite") == 2
    assert "is an input of this run" in capsys.readouterr().err
    assert profile(fleet_file, "--journal", str(fleet_file)) == 2
    assert "does not begin a journal" in capsys.readouterr().err


def test_a_time_budget_says_what_is_not_final(fleet_file, capsys) -> None:
    assert profile(fleet_file, "--time-budget", "0.001", "--json") == 0
    out, err = capsys.readouterr()
    assert err == "not final, the time was used up: wnd on T1, wnd on T2\n"
    assert json.loads(out)["meta"]["not_final"] == [["T1", "wnd"], ["T2", "wnd"]]


@pytest.fixture
def tables(tmp_path) -> tuple[str, str]:
    """A table, and one in which a pair lost 10 % of its QPS."""
    good = EfficiencyTable.from_matrices(["A"], ["v", "w"], [[100.0, 100.0]], [[50.0, 50.0]])
    slower = replace(good.rows[1], qps=90.0, qps_lo=90.0, qps_hi=90.0)
    bad = EfficiencyTable(rows=(good.rows[0], slower), servers=good.servers, workloads=good.workloads)
    paths = tmp_path / "good.json", tmp_path / "bad.json"
    good.save(paths[0])
    bad.save(paths[1])
    return str(paths[0]), str(paths[1])


def test_compare_fails_over_its_threshold(tables, capsys) -> None:
    good, bad = tables
    assert main(["compare", good, bad]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "worse: w on A",
        "    QPS 100 -> 90 (-10.0%), and the intervals do not touch",
        "    QPS per watt 2 -> 1.8 (-10.0%), and the intervals do not touch",
        "2 pairs: 1 worse, 0 removed, 0 better, 0 added; fails over 0.05 of QPS or QPS per watt",
    ]
    assert err == ""
    assert main(["compare", bad, good, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"][1]["verdict"] == "better"
    for threshold in ("11%", "0.11"):
        assert main(["compare", good, bad, "--fail-over", threshold]) == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--fail-over", "100%"), "--fail-over: is '100%'; allowed is a share below 1, such as 5% or 0.05"),
        (("--fail-over", "nan"), "--fail-over: is 'nan'; allowed"),
        (("--fail-over", "much"), "--fail-over: is 'much'; allowed"),
    ],
)
def test_compare_names_a_bad_threshold(tables, more, says, capsys) -> None:
    assert main(["compare", *tables, *more]) == 2
    assert says in capsys.readouterr().err


def test_compare_names_a_missing_file(tables, tmp_path, capsys) -> None:
    assert main(["compare", tables[0], str(tmp_path / "none.json")]) == 2
    assert "none.json: no such file" in capsys.readouterr().err
