"""``plan``: the run directory, the exit codes, and what happens when it is refused, short, out of reach or stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hercules_fast.cli import main
from hercules_fast.errors import InterruptedRun
from hercules_fast.provisioning import Plan
from hercules_fast.tables import EfficiencyTable

FILES = {"run.json", "efficiency.json", "efficiency.csv", "load.csv", "plan.json", "plan.csv", "report.txt"}
FIGURES = {f"{stem}.{suffix}" for stem in ("week", "power", "efficiency") for suffix in ("svg", "png")}


def load_file(folder: Path, wnd: float, rmc2: float) -> Path:
    path = folder / "load.csv"
    rows = [f"2026-01-05T{h:02}:00Z,{wnd * (1 + h % 3)},{rmc2}" for h in range(6)]
    path.write_text("timestamp,wnd,rmc2\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def table(fleet_file, tmp_path_factory) -> EfficiencyTable:
    """The small fleet, profiled once through the command line."""
    out = tmp_path_factory.mktemp("table") / "table.json"
    assert main(["profile", "--fleet", str(fleet_file), "--out", str(out), "--quiet"]) == 0
    return EfficiencyTable.load(out)


@pytest.fixture
def profiled(table, monkeypatch) -> EfficiencyTable:
    """Planning takes the table that is there already; searching is tested elsewhere."""
    monkeypatch.setattr("hercules_fast.planning.profile", lambda *_, **__: table)
    return table


def plan(fleet_file: Path, *more: str) -> int:
    return main(["plan", "--fleet", str(fleet_file), "--quiet", *more])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_numbered_run_directory(fleet_file, profiled, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert plan(fleet_file, "--no-plots") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("Plan for fleet duo (two types, for tests)\n")
    assert out.rstrip().endswith("written to runs/plan-0001")
    first = tmp_path / "runs" / "plan-0001"
    assert names(first) == FILES
    assert (first / "report.txt").read_text().rstrip() in out
    assert Plan.load(first / "plan.json").is_covered
    assert plan(fleet_file, "--no-plots") == 0
    second = tmp_path / "runs" / "plan-0002"
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_json_is_one_document_and_figures_are_written(fleet_file, profiled, tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert plan(fleet_file, "--out", str(tmp_path / "a" / "b"), "--json", "--seed", "3", "--headroom", "0.2") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert document["requirements_met"] is True
    assert document["run"]["seed"] == 3
    assert document["plan"]["headroom"] == [0.2, 0.2]
    assert document["directory"] == str(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == FILES | FIGURES


def test_without_matplotlib_one_line_says_so(fleet_file, profiled, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plan", "--fleet", str(fleet_file), "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "plots skipped: matplotlib is not installed (pip install 'hercules-fast[plot]')"
    ]
    assert names(tmp_path / "run") == FILES


def test_a_path_that_is_not_utf_8(fleet_file, profiled, tmp_path, capfd) -> None:
    folder = tmp_path / os.fsdecode(b"run\xff")
    assert plan(fleet_file, "--out", str(folder), "--no-plots") == 0
    assert names(folder) == FILES
    assert capfd.readouterr().out.rstrip().endswith("run\\udcff")


def test_earlier_results_are_never_lost_unasked(fleet_file, profiled, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "plan.json").write_text("mine")
    assert plan(fleet_file, "--out", str(out), "--no-plots") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert {p.name: p.read_text() for p in out.iterdir()} == {"plan.json": "mine"}
    assert plan(fleet_file, "--out", str(out), "--no-plots", "--overwrite") == 0
    assert names(out) == FILES


def test_load_beyond_the_stock_is_1_and_says_who_is_short(fleet_file, profiled, tmp_path, capsys) -> None:
    load = load_file(tmp_path, wnd=10.0, rmc2=1e6)
    assert plan(fleet_file, "--load", str(load), "--out", str(tmp_path / "run"), "--no-plots") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "LOAD THAT IS NOT SERVED rmc2: load is shed in 6 of 6 intervals" in text
    saved = Plan.load(tmp_path / "run" / "plan.json")
    assert np.all(saved.shed_qps[:, 1] > 0)
    assert np.all(saved.shed_qps[:, 0] == 0)


def test_zero_load_is_fine(fleet_file, profiled, tmp_path, capsys) -> None:
    load = load_file(tmp_path, wnd=0.0, rmc2=0.0)
    assert plan(fleet_file, "--load", str(load), "--out", str(tmp_path / "run"), "--no-plots") == 0
    assert Plan.load(tmp_path / "run" / "plan.json").servers_on.sum() == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--fleet", "zoo1"], "did you mean 'zoo10'?"),
        (["--fleet", "absent.toml"], "absent.toml"),
        (["--load", "absent.csv"], "absent.csv"),
        (["--load", "bad.csv"], "line 3"),
        (["--load", "other.csv"], "did you mean"),
        (["--sla", "p99:-3ms"], "sla: is 'p99:-3ms'"),
        (["--sla", "p100"], "sla"),
        (["--out", "bad.csv"], "is a file"),
        (["--out", "bad.csv/sub"], "cannot write to bad.csv/sub"),
        (["--fleet", "empty.toml"], "schema"),
        (["--fleet", "faults.toml"], "stock.T1"),
    ],
)
def test_bad_input_is_refused_before_the_work_and_nothing_is_written(
    fleet_file, options, says, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("hercules_fast.planning.profile", lambda *_, **__: pytest.fail("work was started"))
    monkeypatch.chdir(tmp_path)
    Path("bad.csv").write_text("timestamp,wnd,rmc2\n2026-01-05T00:00Z,1,1\n2026-01-05T00:00Z,-1,nan\n")
    Path("other.csv").write_text("timestamp,wnd,rmc3\n2026-01-05T00:00Z,1,1\n2026-01-05T01:00Z,1,1\n")
    Path("empty.toml").write_text("")
    Path("faults.toml").write_text(fleet_file.read_text().replace("T1 = 60", 'T1 = "six"').replace("24", "-24"))
    before = names(tmp_path)
    fleet = [] if "--fleet" in options else ["--fleet", str(fleet_file)]
    assert main(["plan", *fleet, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert names(tmp_path) == before


def test_all_faults_of_a_fleet_come_at_once(fleet_file, tmp_path, capsys) -> None:
    bad = tmp_path / "bad.toml"
    text = fleet_file.read_text().replace("T1 = 60", 'T1 = "six"').replace("24", "-24").replace('"wnd"', '"wdn"')
    bad.write_text(text + 'colour = "red"\n')
    assert main(["plan", "--fleet", str(bad), "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    for words in ("stock.T1", "workloads[1].rows_scale", "workloads[0].model", "colour"):
        assert words in err
    assert not (tmp_path / "run").exists()


def test_an_sla_below_every_unloaded_latency_is_1_with_the_reason(fleet_file, tmp_path, capsys) -> None:
    out = tmp_path / "table.json"
    argv = ["--fleet", str(fleet_file), "--quiet", "--sla", "p95:0.001ms"]
    assert main(["profile", *argv, "--out", str(out)]) == 1
    assert all(row.qps == 0 and row.status == "infeasible" for row in EfficiencyTable.load(out).rows)
    assert "without load" in capsys.readouterr().out
    load = load_file(tmp_path, wnd=10.0, rmc2=1.0)
    for more in ([], ["--load", str(load)]):
        assert main(["plan", *argv, *more, "--out", str(tmp_path / f"run{len(more)}"), "--no-plots"]) == 1
        text = capsys.readouterr().out
        assert "SLA OUT OF REACH" in text
        assert "wnd: no server of the fleet serves it within its SLA" in text
        assert "without load" in text


def test_ctrl_c_saves_what_was_finished(fleet_file, table, tmp_path, monkeypatch, capsys) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise InterruptedRun("interrupted after 1 of 4 pairs", table)

    monkeypatch.setattr("hercules_fast.planning.profile", stopped)
    monkeypatch.chdir(tmp_path)
    for options, folder in (([], Path("runs/plan-0001")), (["--out", "run"], Path("run"))):
        assert plan(fleet_file, *options) == 130
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines() == [f"what was finished is saved in {folder}/efficiency.partial.json", "interrupted"]
        assert names(folder) == {"efficiency.partial.json"}
        assert len(EfficiencyTable.load(folder / "efficiency.partial.json").rows) == len(table.rows)


def test_ctrl_c_in_a_real_run(fleet_file, tmp_path) -> None:
    out = tmp_path / "run"
    # A runner may have started us with SIGINT ignored, which children inherit.
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "from hercules_fast.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", start, "plan", "--fleet", str(fleet_file), "--search", "exhaustive"]
    command += ["--threads", "1", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not out.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.8)  # past the service tables, into the search
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.endswith("interrupted\n")
    assert "Traceback" not in stderr
    # On a slow machine the signal may come before anything is finished: then nothing is left behind.
    assert not out.exists() or names(out) == {"efficiency.partial.json"}
