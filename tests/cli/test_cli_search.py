"""``search``, and what ``profile`` shares with it: methods, objectives, budgets, fronts, tables of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import hercules_fast as hf
from hercules_fast.cli import inputs, main
from hercules_fast.profiling import settings
from hercules_fast.tables import EfficiencyTable

PAIR = ("--server", "t2", "--workload", "WND", "--precision", "1")
"""With an interval that the first runs reach."""
PART = ("--servers", "T2", "--workloads", "wnd", "--precision", "1")


def search(fleet_file: Path, *more: str) -> int:
    return main(["search", "--fleet", str(fleet_file), *PAIR, *more])


def searched(fleet_file: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert search(fleet_file, "--json", *more) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def pair(fleet_file: Path) -> tuple[hf.hardware.Server, hf.Workload]:
    fleet = hf.load_fleet(fleet_file)
    return next(s for s in fleet.servers if s.name == "T2"), next(w for w in fleet.workloads if w.name == "wnd")


def test_the_choices_are_those_of_the_library() -> None:
    assert inputs.METHODS == settings.METHODS and inputs.OBJECTIVES == settings.OBJECTIVES


def test_without_explain_only_the_answer(fleet_file, capsys) -> None:
    assert search(fleet_file) == 0
    out, err = capsys.readouterr()
    assert out.startswith("wnd on T2, p95 <= 25 ms: gradient search\n  objective: qps\n  best: cpu")
    assert "QPS against" not in out and err == ""
    document = searched(fleet_file, capsys)
    assert document["row"]["status"] == "ok" and document["slices"] == []
    assert 0 < document["evaluations"] <= document["candidates"]


def test_explain_shows_the_path_and_draws_the_slices(fleet_file, tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "axes.svg"
    assert search(fleet_file, "--explain", "--plot", str(figure)) == 0
    out, err = capsys.readouterr()
    assert "configuration: why" in out and "QPS against batch ([found]" in out
    assert err == f"written to {figure}\n"
    assert figure.read_bytes().startswith(b"<?xml")
    assert search(fleet_file, "--explain", "--plot", str(figure)) == 2
    assert "it exists" in capsys.readouterr().err
    assert search(fleet_file, "--explain", "--plot", str(figure), "--overwrite", "--sla", "p95:0.001ms") == 1
    out, err = capsys.readouterr()
    assert "without load" in out and "is not written: there is no axis to draw" in err
    document = searched(fleet_file, capsys, "--explain")
    assert {"axis", "values", "qps", "at", "exact", "configs"} == set(document["slices"][0])
    assert document["path"][0]["why"] and document["path"][0]["place"]


@pytest.mark.parametrize("method", settings.METHODS)
def test_every_method(method: str, fleet_file, capsys) -> None:
    document = searched(fleet_file, capsys, "--method", method, "--evaluations", "12", "--threads", "1")
    assert document["method"] == method and 0 < document["evaluations"] <= 12


def test_objectives_reach_the_search(fleet_file, capsys) -> None:
    watts = searched(fleet_file, capsys, "--objective", "qps_per_watt")
    assert watts["score"] == pytest.approx(watts["row"]["qps"] / watts["row"]["power_w"])
    money = ("--objective", "qps_per_cost", "--energy-price", "0.2", "--server-cost")
    one = searched(fleet_file, capsys, *money, "1.5")
    assert one["score"] == pytest.approx(one["row"]["qps"] / (1.5 + 0.2e-3 * one["row"]["power_w"]))
    assert searched(fleet_file, capsys, *money, "t2=1.5") == one


def test_budget_top_front_and_optimum(fleet_file, capsys) -> None:
    options = ("--power-budget", "150", "--top", "2", "--front", "--exhaustive")
    document = searched(fleet_file, capsys, *options)
    best, optimum = document["row"], document["optimum"]
    assert document["power_budget_w"] == 150 and best["power_w"] <= 150
    assert best["qps"] >= 0.97 * optimum["qps"]
    assert len(document["top"]) == 2 and document["top"][0] == best
    front = document["front"]
    assert front and all(a["power_w"] > b["power_w"] for a, b in pairwise(front))
    assert search(fleet_file, "--power-budget", "20") == 1
    assert "no load within the power budget" in capsys.readouterr().out


def test_a_saved_table_takes_the_place_of_the_model(fleet_file, tmp_path, capsys) -> None:
    table = hf.service_table(*pair(fleet_file))
    replace(table, origin="measured", seconds=2 * table.seconds).save(tmp_path / "own.npz")
    own = searched(fleet_file, capsys, "--table", str(tmp_path / "own.npz"))
    assert own["row"]["origin"] == "measured"
    assert own["row"]["qps"] < searched(fleet_file, capsys)["row"]["qps"]
    replace(table, server="T9").save(tmp_path / "other.npz")
    assert search(fleet_file, "--table", str(tmp_path / "other.npz")) == 2
    assert "is a table of 'wnd' on 'T9'" in capsys.readouterr().err


def test_measurements_take_the_place_of_the_model(fleet_file, tmp_path, capsys) -> None:
    rows = [f"{batch},1,{threads},{0.3 + 0.01 * batch}" for batch in (1, 64, 1024) for threads in (1, 4)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["batch,cores,threads,ms", *rows]))
    table = ("--table", str(path))
    row = searched(fleet_file, capsys, *table, "--idle-w", "40", "--tdp-w", "90")["row"]
    assert row["origin"] == "measured" and 40 < row["power_w"] <= 90
    assert row["config"]["threads"] == [4]
    for given, missing in ((("--idle-w", "40"), "--tdp-w"), ((), "--idle-w, --tdp-w")):
        assert search(fleet_file, *table, *given) == 2
        assert f"error: {missing}: not given; a --table of measurements" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--method", "magic"), "invalid choice: 'magic'"),
        (("--objective", "speed"), "invalid choice: 'speed'"),
        (("--server-cost", "1"), "--server-cost: given with --objective qps; allowed with qps_per_cost only"),
        (("--objective", "qps_per_cost"), "--server-cost, --energy-price: not given"),
        (("--objective", "qps_per_cost", "--server-cost", "1"), "--energy-price: not given"),
        (
            ("--objective", "qps_per_cost", "--server-cost", "T9=1", "--energy-price", "1"),
            "unknown server of the fleet",
        ),
        (("--objective", "qps_per_cost", "--server-cost", "0", "--energy-price", "0"), "cost: of 'T2' is 0"),
        (("--server-cost", "T2=-1"), "is -1; allowed is finite and >= 0"),
        (("--server-cost", "T2=1,T2=2"), "names T2 twice"),
        (("--energy-price", "nan"), "is nan; allowed is finite and >= 0"),
        (("--power-budget", "0"), "is 0; allowed is finite and > 0"),
        (("--top", "0"), "is 0; allowed is a whole number from 1"),
        (("--evaluations", "x"), "is 'x'; allowed is a whole number from 1"),
        (("--precision", "0"), "is 0; allowed is finite and > 0"),
        (("--plot", "a.svg"), "--plot: draws what --explain measures"),
        (("--explain", "--plot", "a.pdf"), "allowed are .svg, .png"),
        (("--table", "none.npz"), "none.npz"),
        (("--tdp-w", "9"), "--tdp-w: given without a --table of measurements"),
    ],
)
def test_bad_input_is_2(fleet_file, more, says, capsys) -> None:
    assert search(fleet_file, *more) == 2
    out, err = capsys.readouterr()
    assert out == "" and says in err


def profile(fleet_file: Path, *more: str) -> int:
    return main(["profile", "--fleet", str(fleet_file), *PART, *more])


def test_profile_takes_the_same_options(fleet_file, tmp_path, capsys) -> None:
    options = ("--objective", "qps_per_watt", "--power-budget", "150", "--front", "--evaluations", "200")
    assert profile(fleet_file, *options, "--out", str(tmp_path / "t.json")) == 0
    out, _ = capsys.readouterr()
    assert out.endswith("\nobjective: qps_per_watt, at most 150 W; power mode component\n")
    table = EfficiencyTable.load(tmp_path / "t.json")
    assert all(row.power_w <= 150 and row.evaluations <= 200 for row in table.rows)
    for row in table.rows:
        assert row.config is not None and row.config.describe() in out
    assert table.meta["front"] is True and table.meta["effort"]["precision"] == 1.0
    document = searched(fleet_file, capsys, *options)
    assert [row.qps for row in sorted(table.rows, key=lambda row: -row.qps)] == [
        row["qps"] for row in document["front"]
    ]


@pytest.mark.parametrize("method", settings.METHODS)
def test_profile_takes_every_method(method: str, fleet_file, capsys) -> None:
    assert profile(fleet_file, "--search", method, "--evaluations", "12", "--json") == 0
    assert json.loads(capsys.readouterr().out)["meta"]["search"] == method


def test_profile_knows_the_costs_of_all_its_servers(fleet_file, capsys) -> None:
    more = ("--objective", "qps_per_cost", "--energy-price", "0.1", "--servers", "T1,T2", "--server-cost")
    assert profile(fleet_file, *more, "T1=1") == 2
    assert "cost.server_per_hour: has no 'T2'" in capsys.readouterr().err
    assert profile(fleet_file, *more, "T1=1,T2=2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["meta"]["cost"] == {
        "server_per_hour": {"T1": 1.0, "T2": 2.0},
        "energy_per_kwh": 0.1,
    }
