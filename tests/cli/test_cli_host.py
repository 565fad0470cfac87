"""``host``: text, JSON, files; and drills: whatever the machine lacks, an answer or one clear line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import hercules_fast as hf
from hercules_fast import hardware
from hercules_fast.cli import host as verb
from hercules_fast.cli import main
from hercules_fast.host import read_system
from tests.small_hosts import memory_speed

ROOT = Path(__file__).resolve().parents[2]
LSCPU = {
    "lscpu": [
        {"field": "Core(s) per socket:", "data": "20"},
        {"field": "Socket(s):", "data": "2"},
        {"field": "Model name:", "data": "Some CPU @ 2.40GHz"},
    ]
}
CARDS = "name, memory.total [MiB], power.max_limit [W]\nNVIDIA H200, 143771 MiB, 700.00 W\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured: times would be those of a busy machine, and take their time."""
    monkeypatch.setattr(hf.host, "memory_limits", lambda **_: memory_speed({1: 5.0}))
    monkeypatch.setattr(hf.measure, "server_descriptor", lambda **options: described(**options))
    monkeypatch.setattr(verb, "NOISE_S", 0.01)


def described(*, name: str, like: str, limits: hf.host.MemoryLimits, **_: Any) -> hardware.Server:
    from dataclasses import replace

    assert limits.gather_gb_s(256) == 5.0
    return replace(hardware.server(like), name=name)


def test_host_prints_facts_as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host"]) == 0
    out, err = capsys.readouterr()
    assert read_system().cpu in out and "usable" in out and "RAPL: " in out and err == ""
    assert "noise" not in out, "nothing is measured unasked"
    assert main(["host", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "hercules_fast.host/1" and found["noise"] is None and found["files"] == []
    assert "memory_limits" not in found


@pytest.mark.usefixtures("quick")
def test_host_probes_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host", "--probe"]) == 0
    out = capsys.readouterr().out
    assert "noise" in out and "gather" in out and "best prefetch" in out
    assert main(["host", "--probe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["noise"]["seconds"] == 0.01 and found["memory_limits"]["limits"][0]["gb_s"] == 5.0


@pytest.mark.usefixtures("quick")
def test_host_writes_a_server_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "ours"
    assert main(["host", "--emit", str(folder), "--name", "ours", "--like", "T1", "--json"]) == 0
    out, err = capsys.readouterr()
    written = str(folder / "server-ours.toml")
    assert json.loads(out)["files"] == [written] and err == f"written to {written}\n"
    assert main(["check", written]) == 0
    capsys.readouterr()
    assert main(["host", "--emit", str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["host", "--emit", str(folder), "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_other_machines_are_described_by_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lscpu.json").write_text(json.dumps(LSCPU))
    (tmp_path / "cards.csv").write_text(CARDS)
    files = ["--lscpu", str(tmp_path / "lscpu.json"), "--nvidia-smi", str(tmp_path / "cards.csv")]
    out_dir = tmp_path / "out"
    assert main(["host", *files, "--name", "node-7", "--base-w", "90", "--emit", str(out_dir)]) == 0
    out = capsys.readouterr().out
    server = hardware.load_server(out_dir / "server-node-7.toml")
    assert (server.name, server.cpu.cores, server.base_w) == ("node-7", 20, 90)
    assert server.gpu is not None and server.gpu.name == "NVIDIA H200" and server.gpu.tdp_w == 700
    assert server.memory == hardware.memory("ddr4-t2")
    assert hardware.toml_text(server) in out
    assert sorted(path.name for path in out_dir.iterdir()) == [
        *("cpu-node-7.toml", "gpu-nvidia-h200.toml", "server-node-7.toml"),
    ]
    assert main(["check", *map(str, out_dir.iterdir())]) == 0
    capsys.readouterr()
    assert main(["host", *files[2:], "--json", "--like", "T1-P100"]) == 0
    (text,) = json.loads(capsys.readouterr().out)["parts"]
    assert 'link_gb_s = "assumed: as P100 has it' in text


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--lscpu", "none.json"], "cannot read 'none.json'"),
        (["--lscpu", "none.json", "--probe"], "--probe: given with files of another machine"),
        (["--nvidia-smi", "none.csv", "--name", "x"], "--name: given without --lscpu"),
        (["--name", "x", "--like", "T1"], "--like, --name: given without --emit"),
        (["--emit", "d", "--like", "T9"], "unknown server 'T9'"),
        (["--emit", "d", "--like", "T2-NMPx2"], "near-memory processing"),
        (["--emit", "d", "--standard", "DDR9"], "unknown dram 'DDR9'"),
        (["--emit", "d", "--name", "a,b"], "name: is 'a,b'"),
        (["--emit", "d", "--tdp-w", "-1"], "is -1; allowed is finite and > 0"),
        (["--emit", "/proc/none"], "cannot write to /proc/none"),
    ],
)
def test_bad_options_are_named_before_any_work(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hf.host, "describe", lambda **_: pytest.fail("worked"))
    assert main(["host", *argv]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- drills --------------------------------------------------------------------------------------------------------


def run(
    argv: list[str], *, before: str = "", env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, after some Python that takes something away from it."""
    code = f"import os, resource, sys\n{before}\nfrom hercules_fast.cli import main\nsys.exit(main({argv!r}))"
    full = {**os.environ, **(env or {})}
    full = {name: value for name, value in full.items() if value != ""}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=full, check=False
    )
    assert "Traceback" not in found.stderr, found.stderr
    return found


def test_one_cpu_by_affinity() -> None:
    cpu = max(os.sched_getaffinity(0))
    found = run(["host", "--json"], before=f"os.sched_setaffinity(0, {{{cpu}}})")
    assert found.returncode == 0, found.stderr
    cores = json.loads(found.stdout)["cores"]
    assert (cores["count"], cores["cpus"], cores["won"]) == (1, [cpu], "affinity to 1 CPU")


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A real control group of this machine with a quota of half a core, removed again."""
    for top, quota in (("/sys/fs/cgroup", "cpu.max"), ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us")):
        folder = Path(top) / f"hercules-fast-test-{os.getpid()}"
        if not (Path(top) / "cgroup.procs").exists():
            continue
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / quota).write_text("50000 100000" if quota == "cpu.max" else "50000")
            yield folder
        except OSError:
            continue
        else:
            return
        finally:
            folder.rmdir()
    pytest.skip("no control group can be made here")


def test_half_a_core_by_a_real_control_group(half_a_core: Path) -> None:
    join = f"open({str(half_a_core / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    found = run(["host", "--json"], before=join)
    assert found.returncode == 0, found.stderr
    cores = json.loads(found.stdout)["cores"]
    assert (cores["count"], cores["quota"], cores["won"]) == (1, 0.5, "cgroup quota of 0.5 cores")


def test_a_machine_that_shows_nothing(tmp_path: Path) -> None:
    """No powercap, no huge pages, no topology, no caches, no frequency."""
    facts = hf.host.describe(root=tmp_path)
    assert "RAPL: not found" in str(facts) and "transparent: unknown" in str(facts)
    assert facts.cores.count == len(os.sched_getaffinity(0)) or facts.cores.cap


LIMIT = "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))"


def test_an_address_space_of_1_gib() -> None:
    found = run(["host", "--probe", "--json"], before=LIMIT)
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert 0 < document["available_memory_bytes"] < 1 << 30
    assert document["memory_limits"] is not None or "table" in document["memory_limits_trouble"]


def test_an_address_space_too_small_for_a_table(tmp_path: Path) -> None:
    before = "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))"
    found = run(["host", "--probe"], before=before)
    if found.returncode == 0:
        assert "not measured" in found.stdout or "best prefetch" in found.stdout
    else:  # NumPy itself may not fit
        assert len(found.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "env",
    [
        {"HOME": ""},
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"TMPDIR": "/nowhere"},
        {"HERCULES_FAST_NUM_THREADS": "1"},
    ],
    ids=lambda env: next(iter(env)),
)
def test_environments_that_lack_something(env: dict[str, str]) -> None:
    found = run(["host"], env=env)
    assert found.returncode == 0, found.stderr
    assert read_system().cpu in found.stdout and found.stderr == ""


def test_a_nonsense_cap_is_one_clear_line() -> None:
    found = run(["host"], env={"HERCULES_FAST_NUM_THREADS": "many"})
    assert found.returncode == 2
    assert found.stderr.strip().splitlines() == [
        'error: HERCULES_FAST_NUM_THREADS: is "many"; allowed is a whole number from 1 to 1024'
    ]


def test_ctrl_c_during_a_probe_keeps_what_was_measured(tmp_path: Path) -> None:
    code = (
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from hercules_fast.cli import main\n"
        f"sys.exit(main(['host', '--emit', {str(tmp_path / 'ours')!r}]))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        time.sleep(8)  # the first figures take a second each, on a quiet machine
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    if child.returncode == 0:
        pytest.skip("this machine was faster than the test")
    assert child.returncode == 130 and b"Traceback" not in err
    partial = tmp_path / "ours" / "memory-limits.partial.json"
    assert json.loads(partial.read_text())["schema"] == "hercules_fast.memory_limits/1"
