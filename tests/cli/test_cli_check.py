"""``check``: every fault of every file, with its field path."""

from __future__ import annotations

import json

from hercules_fast import fleets
from hercules_fast.cli import main
from tests import small_plans

BAD_CPU = """
schema = "hercules_fast.cpu/1"
name = "wrong"
cores = "many"
frequency_ghz = -2.0
colour = "red"
"""


def test_built_in_files_are_fine(capsys) -> None:
    paths = sorted(str(p) for p in fleets.FLEET.catalog.glob("*.toml"))
    assert paths
    assert main(["check", *paths]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{path}: ok" for path in paths]


def test_every_fault_is_named(tmp_path, capsys) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(BAD_CPU)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    absent = tmp_path / "absent.toml"
    assert main(["check", str(bad), str(empty), str(absent)]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    for words in ("cores", "frequency_ghz", "colour", f"{empty}: 1 fault", f"{absent}: 1 fault"):
        assert words in out
    assert main(["check", "--json", str(bad)]) == 2
    faults = json.loads(capsys.readouterr().out)[str(bad)]
    assert {"cores", "frequency_ghz", "colour"} <= {fault["path"].split(":")[-1].strip() for fault in faults}


def test_efficiency_tables_are_checked_too(tmp_path, capsys) -> None:
    good = tmp_path / "table.json"
    small_plans.table().save(good)
    bad = tmp_path / "bad.json"
    bad.write_text(good.read_text().replace('"qps": 100.0', '"qps": -100.0'))
    assert main(["check", str(good)]) == 0
    assert main(["check", str(good), str(bad)]) == 2
    out = capsys.readouterr().out
    assert f"{good}: ok" in out
    assert "rows[0].qps: is -100.0" in out
    assert main(["check"]) == 2


def test_loads_are_checked_by_plan(tmp_path, capsys) -> None:
    load = tmp_path / "Load.CSV"
    load.write_text("timestamp,a\n2024-01-01,1\n")
    assert main(["check", str(load)]) == 2
    out, err = capsys.readouterr()
    assert f"plan --fleet FLEET --load {load}" in out
    assert err == ""
