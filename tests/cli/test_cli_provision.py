"""``provision``: what it answers, what it refuses, and that a refusal writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hercules_fast.cli import main
from hercules_fast.provisioning import Plan
from tests import small_plans

STOCK = ",".join(f"{name}={count}" for name, count in small_plans.STOCK.items())
HEADER = "timestamp,rank,=feed\n"


def csv_of(scale: float = 1.0) -> str:
    load = small_plans.load(scale)
    rows = [f"{t}Z,{','.join(map(repr, q.tolist()))}" for t, q in zip(load.times, load.qps, strict=True)]
    return HEADER + "\n".join(rows) + "\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a table and a load."""
    small_plans.table().save(tmp_path / "table.json")
    (tmp_path / "load.csv").write_text(csv_of())
    return tmp_path


def provision(files: Path, *more: str, load: str = "load.csv", stock: str = STOCK) -> int:
    return main(["provision", str(files / "table.json"), "--load", str(files / load), "--stock", stock, *more])


def test_text_and_json(files, capfd) -> None:
    """By the files themselves, so that what a solver prints past Python shows."""
    assert provision(files) == 0
    out, err = capfd.readouterr()
    assert out.startswith("Plan for load load\n")
    assert err == ""
    assert provision(files, "--json", "--headroom", "0.1") == 0
    document = json.loads(capfd.readouterr().out)
    plan = Plan.from_dict(document)
    assert plan.headroom.tolist() == [0.1, 0.1]
    assert plan.is_covered
    assert plan.servers_on.tolist() == small_plans.plan().servers_on.tolist()


def test_the_plan_is_saved(files, capsys) -> None:
    assert provision(files, "--out", str(files / "plan.json"), "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert Plan.load(files / "plan.json").is_covered
    assert provision(files, "--out", str(files / "plan.csv")) == 0
    assert (files / "plan.csv").read_text().startswith("timestamp,server,workload")
    assert str(files / "plan.csv") in capsys.readouterr().err


def test_load_beyond_the_stock_is_1_and_says_who_is_short(files, capsys) -> None:
    (files / "much.csv").write_text(csv_of(3.0))
    assert provision(files, load="much.csv") == 1
    out, _ = capsys.readouterr()
    assert "LOAD THAT IS NOT SERVED" in out
    assert "short in" in out
    assert "the stock would cover" in " ".join(out.split())


def test_stock_from_a_fleet(files, capsys) -> None:
    """The fleet's servers are not in this table: refused by name."""
    argv = ["provision", str(files / "table.json"), "--load", str(files / "load.csv"), "--fleet", "zoo10"]
    assert main(argv) == 2
    assert "'T1'" in capsys.readouterr().err


def test_zero_load_is_fine(files, capsys) -> None:
    (files / "zero.csv").write_text(csv_of(0.0))
    assert provision(files, load="zero.csv") == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEADER + "2026-01-05T00:00Z,1,-2\n2026-01-05T01:00Z,1,2\n", "-2"),
        (HEADER + "2026-01-05T00:00Z,nan,2\n2026-01-05T01:00Z,1,2\n", "nan"),
        (HEADER + "2026-01-05T00:00Z,1,2\n2026-01-05T01:00Z,inf,2\n", "inf"),
        (HEADER + "2026-01-05T00:00Z,1,2\n2026-01-05T00:00Z,1,2\n", "line 3"),
        (HEADER + "2026-01-05T01:00Z,1,2\n2026-01-05T00:00Z,1,2\n", "line 3"),
        (HEADER + "".join(f"2026-01-{d:02}T00:00Z,1,2\n" for d in (1, 2, 3, 9)), "5 steps of 86400 s are missing"),
        ("timestamp,rank,=feed,rnak\n2026-01-05T00:00Z,1,2,3\n2026-01-05T01:00Z,1,2,3\n", "rnak"),
        ("timestamp,rank\n2026-01-05T00:00Z,1\n2026-01-05T01:00Z,1\n", "=feed"),
        ("", "empty"),
        (HEADER, "no rows"),
    ],
    ids=["negative", "nan", "inf", "duplicate", "unordered", "gap", "unknown", "missing", "empty", "header-only"],
)
def test_bad_loads_are_refused_and_nothing_is_written(files, text, says, capsys) -> None:
    (files / "bad.csv").write_text(text)
    before = sorted(p.name for p in files.iterdir())
    assert provision(files, "--out", str(files / "plan.json"), load="bad.csv") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "bad.csv" in err
    assert sorted(p.name for p in files.iterdir()) == before


def test_all_faults_of_a_load_come_at_once(files, capsys) -> None:
    (files / "bad.csv").write_text(HEADER + "2026-01-05T00:00Z,-1,nan\n2026-01-05T01:00Z,x,2\n")
    assert provision(files, load="bad.csv") == 2
    err = capsys.readouterr().err
    assert "line 2" in err
    assert "line 3" in err


@pytest.mark.parametrize(
    ("stock", "says"),
    [
        ("old=1,nwe=2", "did you mean 'new'?"),
        ("old", "NAME=N"),
        ("old=-1", "NAME=N"),
        ("old=1.5,new=x", "'new=x'"),
        ("old=1,old=2", "old is given twice"),
        ("old=nan", "NAME=N"),
    ],
)
def test_bad_stocks_are_refused(files, stock, says, capsys) -> None:
    assert provision(files, stock=stock) == 2
    assert says in capsys.readouterr().err


def test_bad_tables_are_refused(files, capsys) -> None:
    table = json.loads((files / "table.json").read_text())
    table["rows"][0]["qps"] = -5.0
    table["rows"][1]["power_w"] = "much"
    (files / "table.json").write_text(json.dumps(table))
    assert provision(files) == 2
    err = capsys.readouterr().err
    assert "rows[0].qps" in err
    assert "rows[1].power_w" in err
    (files / "table.json").write_text("")
    assert provision(files) == 2
    assert "is not JSON" in capsys.readouterr().err
    (files / "table.json").unlink()
    assert provision(files) == 2
    assert "no such file" in capsys.readouterr().err


def test_places_that_cannot_be_written_are_refused_before_the_work(files, monkeypatch, capsys) -> None:
    monkeypatch.setattr("hercules_fast.provisioning.provision", lambda *_, **__: pytest.fail("work was started"))
    for place in ("load.csv/plan.json", "absent/plan.json", ".", "plan.txt"):
        assert provision(files, "--out", str(files / place)) == 2
        err = capsys.readouterr().err
        assert "--out" in err or "cannot write" in err
    assert sorted(p.name for p in files.iterdir()) == ["load.csv", "table.json"]


def test_out_never_replaces_an_input_and_other_files_only_when_told(files, capsys) -> None:
    (files / "old.json").write_text("mine")
    (files / "alias.json").symlink_to("table.json")
    (files / "load-alias.csv").symlink_to("load.csv")
    kept = {p.name: p.read_bytes() for p in files.iterdir()}
    assert provision(files, "--out", str(files / "old.json")) == 2
    assert "old.json: it exists; give another name, or --overwrite" in capsys.readouterr().err
    for name in ("table.json", "alias.json", "load.csv", "load-alias.csv"):
        assert provision(files, "--out", str(files / name), "--overwrite") == 2
        assert f"{name}: it is an input of this run" in capsys.readouterr().err
    assert provision(files, "--out", str(files / "load.csv"), "--overwrite", load="load-alias.csv") == 2
    assert {p.name: p.read_bytes() for p in files.iterdir()} == kept
    assert provision(files, "--out", str(files / "old.json"), "--overwrite") == 0
    assert Plan.load(files / "old.json").is_covered


@pytest.mark.parametrize("text", ["-0.1", "1000.5", "nan", "inf", "much"])
def test_headroom_has_one_range(files, text, capsys) -> None:
    assert provision(files, "--headroom", text) == 2
    assert f"is {text!r}; allowed is a number from 0 to 1000" in capsys.readouterr().err
