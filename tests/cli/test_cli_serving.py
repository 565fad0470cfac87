"""``profile``, ``search`` and ``simulate`` on a small fleet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from hercules_fast.cli import main
from hercules_fast.tables import EfficiencyTable


def verb(name: str, fleet_file: Path, *more: str) -> int:
    return main([name, "--fleet", str(fleet_file), *more])


PAIR = ("--server", "t2", "--workload", "WND")


def test_profile_prints_text_csv_and_json(fleet_file, tmp_path, capsys) -> None:
    part = ("--servers", "T2", "--workloads", "wnd")
    assert verb("profile", fleet_file, *part, "--out", str(tmp_path / "t.json")) == 0
    out, err = capsys.readouterr()
    table = EfficiencyTable.load(tmp_path / "t.json")
    row = table.best("T2", "wnd")
    assert row is not None
    assert out.startswith("wnd, p95 <= 25 ms\n")
    assert row.config is not None
    assert row.config.describe() in out
    assert err == f"written to {tmp_path / 't.json'}\n"
    assert verb("profile", fleet_file, *part, "--csv", "--threads", "1") == 0
    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(line["qps"]) == row.qps
    assert verb("profile", fleet_file, *part, "--json", "--threads", "2") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(table.to_json())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["profile", "--servers", "T3"], "did you mean"),
        (["profile", "--workloads", "wnd,dnn"], "unknown workload of the fleet 'dnn'"),
        (["search", "--server", "T9", "--workload", "wnd"], "unknown server of the fleet 'T9'"),
        (["search", "--server", "T1", "--workload", "wdn"], "did you mean 'wnd'?"),
        (["search", *PAIR, "--sla", "fast"], "sla"),
        (["simulate", *PAIR, "--qps", "100", "--threads", "1", "--kind", "tpu"], "--kind: is 'tpu'; allowed"),
        (["simulate", *PAIR, "--qps", "100", "--threads", "1,2"], "--threads: has 2 numbers"),
        (["simulate", *PAIR, "--qps", "100", "--threads", "1", "--cores", "77"], "--cores: is 77; allowed"),
        (["simulate", *PAIR, "--qps", "100", "--threads", "21"], "use 21 of group 'cpu'"),
        (["simulate", *PAIR, "--qps", "100", "--threads", "1", "--fuse-items", "9"], "no accelerator"),
        (["simulate", "--server", "T2"], "--workload, --threads, --qps: not given"),
        (["simulate", *PAIR, "--threads", "1", "--qps", "9", "--plot", "c.svg"], "--plot: draws the curve of --load"),
        (["simulate", *PAIR, "--threads", "1", "--load-curve", "2", "--plot", "c.pdf"], "allowed are .svg, .png"),
        (["simulate", "--config", "none.toml", "--batch", "3"], "--batch: given beside --config"),
        (["simulate", "--config", "none.toml"], "cannot read 'none.toml'"),
        (["simulate", "--config", "none.toml", "--load-curve", "0"], "--load-curve: is 0"),
        (["profile", "--out", "/dev/null/t.json"], "cannot write"),
        (["profile", "--out", "t.csv"], "--out: 't.csv' ends in '.csv'; allowed are .json"),
        (["profile", "--time-budget", "0"], "--time-budget: is 0; allowed is finite and > 0"),
        (["profile", "--journal", "/no/such/folder/j"], "cannot write the journal /no/such/folder/j: No such file"),
        (["profile", "--csv", "--json"], "--csv, --json: both are given"),
        (["profile", "--threads", "1025"], "is 1025; allowed is a whole number from 1 to 1024"),
    ],
)
def test_bad_input_is_2(fleet_file, argv, says, capsys) -> None:
    assert verb(argv[0], fleet_file, *argv[1:]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_search_without_an_answer_is_1(fleet_file, capsys) -> None:
    assert verb("search", fleet_file, "--server", "T1", "--workload", "rmc2") == 1
    assert "does not fit" in capsys.readouterr().out
    assert verb("search", fleet_file, *PAIR, "--sla", "p95:0.001ms") == 1
    assert "without load" in capsys.readouterr().out


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def simulate(fleet_file: Path, *more: str) -> int:
    return verb("simulate", fleet_file, *PAIR, "--threads", "20", "--queries", "8000", *more)


def test_simulate_prints_latencies_and_judges_the_sla(fleet_file, capsys) -> None:
    assert simulate(fleet_file, "--qps", "50") == 0
    out, _ = capsys.readouterr()
    assert "cpu: model 20x1, batch 64" in out
    assert "p95" in out
    assert simulate(fleet_file, "--qps", "50", "--json") == 0
    first = capsys.readouterr().out
    assert simulate(fleet_file, "--qps", "50", "--json") == 0
    assert capsys.readouterr().out == first
    json.loads(first)
    assert simulate(fleet_file, "--qps", "50", "--sla", "p95:0.01ms") == 1
    assert "missed" in capsys.readouterr().out


def test_simulate_a_pipeline(fleet_file, capsys) -> None:
    options = ("--kind", "cpu-sd", "--threads", "6,7", "--cores", "1,2", "--queries", "8000", "--qps", "50")
    assert verb("simulate", fleet_file, *PAIR, *options) == 0
    assert "cpu-sd: sparse 6x1, dense 7x2" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pipeline.toml", "offload.toml"])
def test_simulate_what_a_file_describes(name: str, capsys) -> None:
    file = ("--config", str(EXAMPLES / name), "--queries", "20000")
    assert main(["simulate", *file]) in (0, 1)
    assert "p99" in capsys.readouterr().out
    assert main(["simulate", *file, "--qps", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["qps"] == pytest.approx(50.0, rel=0.1)
    assert len(document["stations"]) == 2


def test_simulate_draws_a_load_curve(fleet_file, tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    options = ("--load-curve", "3", "--plot", str(tmp_path / "curve.svg"))
    assert simulate(fleet_file, *options) == 0
    out, err = capsys.readouterr()
    assert "load curve" in out and len(out.splitlines()) == 5
    assert err == f"written to {tmp_path / 'curve.svg'}\n"
    assert (tmp_path / "curve.svg").read_bytes().startswith(b"<?xml")
    assert simulate(fleet_file, *options) == 2
    assert "it exists" in capsys.readouterr().err
    assert simulate(fleet_file, "--load-curve", "2", "--json") == 0
    loads = json.loads(capsys.readouterr().out)
    assert loads[0]["qps"] < loads[1]["qps"] < loads[1]["bottleneck_qps"]


def test_profile_replaces_no_file_unasked_and_never_an_input(fleet_file, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "old.json").write_text("mine")
    part = ("--servers", "T2", "--workloads", "wnd", "--out")
    with monkeypatch.context() as patch:
        patch.setattr("hercules_fast.profiling.profile", lambda *_, **__: pytest.fail("work was started"))
        assert verb("profile", fleet_file, *part, str(tmp_path / "old.json")) == 2
        assert "it exists" in capsys.readouterr().err
        (tmp_path / "fleet.json").symlink_to(fleet_file)
        assert verb("profile", fleet_file, *part, str(tmp_path / "fleet.json"), "--overwrite") == 2
        assert "is an input of this run" in capsys.readouterr().err
    assert (tmp_path / "old.json").read_text() == "mine"
    assert verb("profile", fleet_file, *part, str(tmp_path / "old.json"), "--overwrite") == 0
    assert EfficiencyTable.load(tmp_path / "old.json").best("T2", "wnd")
