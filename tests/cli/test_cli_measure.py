"""``measure``: the table, the points, the row that follows, and what the exit code says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hercules_fast as hf
from hercules_fast.cli import main
from tests.small_measures import Machine, SmallEngine

BASE = ("measure", "--model", "dlrm-rmc1", "--seconds", "3", "--batches", "1,16,64")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``Engine.build`` was asked for; small engines are what it gives."""
    asked: list[dict[str, Any]] = []

    class Engine:
        @staticmethod
        def build(model: hf.models.Model, **options: Any) -> SmallEngine:
            asked.append(options)
            return SmallEngine(max_items=options["max_items"], model=model)

    monkeypatch.setattr("hercules_fast.measure.Engine", Engine, raising=False)
    return asked


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, built: list[dict[str, Any]]) -> Machine:
    return Machine().install(monkeypatch)


def test_it_prints_the_points_and_writes_the_files(machine, built, tmp_path, capsys) -> None:
    table, points = tmp_path / "table.npz", tmp_path / "points.csv"
    files = ("--out", str(table), "--csv", str(points))
    assert main([*BASE, *files, "--rows-scale", "0.5", "--backend", "numpy", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("dlrm-rmc1 on this-host: 9 points in ") and "\ncertified\n" in out
    assert err == f"written to {table}\nwritten to {points}\n"
    assert built == [{"rows_scale": 0.5, "max_bytes": None, "backend": "numpy", "max_items": 64, "seed": 3}]
    saved = hf.ServiceTable.load(table)
    read = hf.ServiceTable.from_csv(points, server="this-host", workload="dlrm-rmc1", idle_w=1, tdp_w=2)
    assert saved.origin == "measured" and saved.seconds.tobytes() == read.seconds.tobytes()
    assert main([*BASE, *files]) == 2 and "it exists" in capsys.readouterr().err
    assert main([*BASE, *files, "--overwrite", "--quiet"]) == 0 and capsys.readouterr().err == ""


def test_json_with_the_search_and_its_row(machine, tmp_path, capsys) -> None:
    row = tmp_path / "row.json"
    watts = ("--idle-w", "40", "--tdp-w", "90")
    assert main([*BASE, *watts, "--json", "--sla", "p95:50ms", "--search", str(row), "--server", "mine"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["certified"] is True and document["energy"]["origin"] == "user"
    found = hf.EfficiencyTable.load(row).rows[0]
    assert (found.server, found.origin, found.sla) == ("mine", "measured", ((95.0, 50.0),))
    assert document["search"]["row"]["qps"] == found.qps > 0
    assert main([*BASE, "--search", "--sla", "p95"]) == 0
    assert "dlrm-rmc1 on this-host, p95 <= " in capsys.readouterr().out
    assert main([*BASE, "--search", "--sla", "p95:0.01ms"]) == 1


def test_a_pipeline_is_searched_too(machine, capsys) -> None:
    assert main([*BASE, "--stages", "pipeline", "--search", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["search"]["row"]["config"]["kind"] == "cpu-sd"


def test_a_noisy_machine_is_exit_code_4(monkeypatch, built, tmp_path, capsys) -> None:
    Machine(noise=(0.3,)).install(monkeypatch)
    assert main([*BASE, "--out", str(tmp_path / "t.npz")]) == 4
    assert "NOT CERTIFIED: before: CPU 0 lost 30%" in capsys.readouterr().out
    assert any(note.startswith("not certified: ") for note in hf.ServiceTable.load(tmp_path / "t.npz").assumptions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sla", "p95:20ms"), "--sla: given without --search"),
        (("--out", "t.csv"), "allowed are .npz"),
        (("--csv", "p.csv", "--journal", "./p.csv"), "--journal: is './p.csv', which another option names, too"),
        (("--csv", "no/such/folder.csv"), "cannot write no/such/folder.csv"),
        (("--journal", "no/such/folder.jsonl"), "cannot write no/such/folder.jsonl"),
        (("--batches", "0,4"), "--batches"),
        (("--idle-w", "4"), "allowed are both or neither"),
        (("--model", "nosuch"), "unknown model 'nosuch'"),
        (("--model", "nosuch.toml"), "nosuch.toml"),
    ],
)
def test_bad_input_is_one_line_before_any_work(options, message, machine, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*BASE, *options]) == 2
    assert message in capsys.readouterr().err and not machine.visits and not list(tmp_path.iterdir())


def test_a_model_file(machine, tmp_path, capsys) -> None:
    path = tmp_path / "tables.json"
    path.write_text(
        json.dumps(
            {
                "tables": {"t": {"num_embeddings": 1000, "embedding_dim": 16, "pooling_factor": 3}},
                "bottom_mlp": [13, 64, 16],
                "top_mlp": [17, 8, 1],
                "interaction_op": "dot",
            }
        )
    )
    assert main([*BASE, "--model", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["workload"] == "tables"
    assert main([*BASE, "--model", str(path), "--search"]) == 2
    assert "has no latency target; allowed is such as p95:20ms" in capsys.readouterr().err


def test_ctrl_c_saves_what_was_measured(machine, tmp_path, capsys) -> None:
    machine.interrupt_after = 9 + 2 * 9 + 4
    points, table, journal = tmp_path / "p.csv", tmp_path / "t.npz", tmp_path / "j.jsonl"
    files = ("--csv", str(points), "--out", str(table), "--journal", str(journal))
    assert main([*BASE, *files]) == 130
    assert f"what was measured is saved in {points}, {table}, {journal}\n" in capsys.readouterr().err
    assert "did not come to its end" in Path(points).read_text() and hf.ServiceTable.load(table).origin == "measured"
    machine.interrupt_after = None
    assert main([*BASE, *files, "--overwrite"]) == 0
    assert machine.visits.count(("model", 1, 1, 16)) == 2 + 5


def test_ctrl_c_with_a_journal_alone_names_it(machine, tmp_path, capsys) -> None:
    machine.interrupt_after = 9 + 4
    assert main([*BASE, "--journal", str(tmp_path / "j.jsonl")]) == 130
    assert f"what was measured is saved in {tmp_path / 'j.jsonl'}\n" in capsys.readouterr().err


def test_too_little_memory_is_one_line(machine, monkeypatch, capsys) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise MemoryError("cannot allocate 7 bytes")

    monkeypatch.setattr("hercules_fast.measure.Engine.build", build)
    assert main([*BASE]) == 2
    assert capsys.readouterr().err == "error: not enough memory: cannot allocate 7 bytes\n"


SMALL = """
import os, resource, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
sys.modules.update(dict.fromkeys(("onnxruntime", "onnx", "pynvml", "rich", "matplotlib")))
from hercules_fast.cli import main
sys.exit(main(["measure", "--model", "dlrm-rmc1", "--seconds", "0.5", "--batches", "1,32", "--json"]))
"""


def test_one_cpu_a_gigabyte_and_no_optional_package() -> None:
    ran = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, timeout=120)
    assert ran.returncode in (0, 4) and ran.stderr == ""
    document = json.loads(ran.stdout)
    assert [(p["threads"], p["batch"]) for p in document["points"]] == [(1, 1), (1, 32)]
    assert document["engine"]["backend"] == "numpy" and document["engine"]["rows_scale"] <= 1.0


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([*BASE, "--device", "cuda"]) == 2
    err = capsys.readouterr().err
    assert "PyTorch is not installed (pip install 'hercules-fast[gpu]')" in err and "Traceback" not in err
    assert main([*BASE, "--device", "cuda", "--backend", "numpy", "--stages", "both"]) == 2
    assert "--backend, --stages: given with --device" in capsys.readouterr().err


def test_on_a_device(capsys) -> None:
    """PyTorch's own CPU device stands for a card."""
    pytest.importorskip("torch", reason="PyTorch is not installed (extra gpu)")
    watts = ("--idle-w", "40", "--tdp-w", "90", "--rows-scale", "0.0001", "--json")
    assert main(["measure", "--model", "ncf", "--device", "cpu", "--batches", "1,8", "--seconds", "0.1", *watts]) in (
        0,
        4,
    )
    document = json.loads(capsys.readouterr().out)
    assert {point["stage"] for point in document["points"]} == {"gpu"}
    assert document["engine"]["backend"] == "torch"
