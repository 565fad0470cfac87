"""``validate``: exit codes, files and words on machines that are made up, and the real thing on this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hercules_fast.cli import main
from tests.small_validations import NOISY, QUIET, SmallHost

ROOT = Path(__file__).resolve().parents[2]
MADE_UP = ("validate", "--config", "model 1x1, batch 256", "--seconds", "9", "--quiet")
TINY = """
schema = "hercules_fast.model/1"
name = "tiny"
family = "dlrm"
label = "for tests"
dense_input_dim = 16

[[tables]]
count = 4
rows = 20_000
dim = 16
pooling = 20

[[stages]]
name = "bottom_mlp"
kind = "mlp"
dims = [16, 32, 16]

[[stages]]
name = "interaction"
kind = "concat"
out_dim = 80

[[stages]]
name = "predict_mlp"
kind = "mlp"
dims = [80, 32, 1]

[[latency_targets]]
percentile = 95
latency_ms = 10
status = "user"
source = "made up"

[sources]
"dense_input_dim, tables, stages" = "assumed: for tests"
"""


def test_passed_and_certified(monkeypatch, tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    SmallHost().install(monkeypatch)
    out, plot = tmp_path / "out", tmp_path / "latency.svg"
    assert main([*MADE_UP, "--out", str(out), "--plot", str(plot)]) == 0
    text, err = capsys.readouterr()
    assert err == "" and text.isascii() and max(map(len, text.splitlines())) <= 110
    assert text.startswith("Predicted and run on this machine\n  dlrm-rmc1, p95 <= 20 ms\n")
    assert text.count(": passed") >= 3 and "certified: every noise gate passed" in text
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    loads = [f"runs/load-{share:.2f}.npz" for share in (0.5, 0.7, 0.85, 1.0, 1.1)]
    beside = [f"runs/load-{share:.2f}-{when}.npz" for share in (0.5, 0.7, 0.85) for when in ("before", "after")]
    before = ["runs/rehearsal-0.85.npz", "runs/speed-after.npz", "runs/speed-before.npz"]
    rest = ["plots/latency.svg", "report.md", "service.csv", "validation.json"]
    assert names == sorted([*loads, *beside, *before, *rest])
    assert json.loads((out / "validation.json").read_text())["complete"] is True
    assert text.strip() in (out / "report.md").read_text()
    assert plot.read_bytes().startswith(b"<?xml")
    assert main([*MADE_UP, "--out", str(out)]) == 2 and "not empty" in capsys.readouterr().err
    assert main([*MADE_UP, "--plot", str(plot)]) == 2 and "it exists" in capsys.readouterr().err


def test_a_level_missed(monkeypatch, capsys) -> None:
    SmallHost(slower=1.2).install(monkeypatch)
    assert main([*MADE_UP, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["certified"] and [level["passed"] for level in document["levels"]] == [True, False, False]


@pytest.mark.parametrize(
    ("host", "cause"),
    [
        (SmallHost(noise=(NOISY,)), "before the runs: CPU 0 lost 40.00%"),
        (SmallHost(preempted=(0.1,)), "run at 0.50x: "),
        (SmallHost(service_cause="a competitor"), "service times: a competitor"),
    ],
)
def test_too_noisy_to_certify(monkeypatch, capsys, host, cause) -> None:
    host.install(monkeypatch)
    assert main(list(MADE_UP)) == 4
    text = capsys.readouterr().out
    assert "NOT CERTIFIED" in text and cause in text


def test_ctrl_c_saves_what_was_run(monkeypatch, tmp_path, capsys) -> None:
    SmallHost(interrupt_run=2).install(monkeypatch)
    out = tmp_path / "out"
    assert main([*MADE_UP, "--out", str(out)]) == 130
    assert f"what was run is saved in {out}" in capsys.readouterr().err
    assert len(json.loads((out / "validation.json").read_text())["points"]) == 2
    assert "the validation ended early" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dlrm-rmc9"], "unknown model"),
        (["--model", "nowhere.toml"], "No such file"),
        (["--sla", "95"], "sla: is '95'"),
        (["--sla", "p95:0.001ms"], "sla: is p95 <= 0.001 ms"),
        (["--loads", "0.5,x"], "--loads"),
        (["--loads", "1.5"], "loads[0]: is 1.5"),
        (["--config", "model 9x9, batch 3"], "config: takes 81 cores"),
        (["--seconds", "-1"], "--seconds"),
        (["--out", "/proc/nowhere"], "cannot write"),
    ],
)
def test_bad_input(monkeypatch, capsys, arguments, message) -> None:
    SmallHost(noise=(QUIET,)).install(monkeypatch)
    assert main([*MADE_UP, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_hollow_points_for_what_is_not_certified(monkeypatch, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    from hercules_fast.measure import validate
    from hercules_fast.plotting import plot_validation

    SmallHost(preempted=(0.0, 0.1, 0.0, 0.0, 0.0, 0.1)).install(monkeypatch)
    found = validate(config="model 1x1, batch 256", seconds=9.0)
    one, two = (plot_validation(found, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == two
    drawn: list[tuple[str, str]] = []
    from matplotlib.axes import Axes

    def plot(self, *data, **style):
        if "markerfacecolor" in style:
            drawn.append((style["markerfacecolor"], style["label"]))
        return original(self, *data, **style)

    original = Axes.plot
    monkeypatch.setattr(Axes, "plot", plot)
    plot_validation(found, tmp_path / "c.svg")
    hollow = [label for colour, label in drawn if colour == "white"]
    assert set(hollow) == {"measured, not certified"} and len(hollow) < len(drawn)


# --- for real --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def command(tiny: str, out: Path, *more: str) -> list[str]:
    short = ("--config", "model 1x1, batch 64", "--seconds", "0.6", "--budget", "10", "--loads", "0.5")
    return [sys.executable, "-m", "hercules_fast", "validate", "--model", tiny, *short, "--out", str(out), *more]


def checked(tiny: str, out: Path, before: str = "", *more: str) -> tuple[int, dict, str]:
    """Run it in a process of its own, after the Python code ``before``; exit code, document and stderr."""
    code = f"import sys\n{before}\nfrom hercules_fast.cli import main\nsys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, *command(tiny, out, *more)[3:]]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in run.stderr, run.stderr
    document = out / "validation.json"
    return run.returncode, json.loads(document.read_text()) if document.is_file() else {}, run.stderr


def agrees_with_itself(code: int, document: dict) -> None:
    """Whatever the machine did: certified only where it was quiet, and figures that make sense."""
    quiet = all(document[when]["worst"] <= 0.01 for when in ("noise_before", "noise_after"))
    quiet = quiet and document["service_certified"] and all(p["certified"] for p in document["points"])
    quiet = quiet and not any(p["rehearsal_cause"] for p in document["points"])
    assert document["certified"] == quiet and (code == 4) == (not quiet)
    assert len(document["points"]) == 3 and document["complete"]
    for point in document["points"]:
        assert point["certified"] == (point["lost_share"] <= 0.01 and abs(point["speed_change"]) <= 0.1)
        assert point["queries"] > 0 and point["service_ratio"] > 0.1
        if quiet and point["replay_ms"] is not None and point["replay_ms"][0] is not None:
            assert 0.2 < point["replay_ms"][0] / point["measured_ms"][0] < 1.5
    if not quiet:
        assert document["causes"]


def test_the_real_thing(tiny, tmp_path) -> None:
    started = time.monotonic()
    code, document, _ = checked(tiny, tmp_path / "out")
    agrees_with_itself(code, document)
    assert time.monotonic() - started < 90
    assert document["prediction"]["qps"] > 1 and document["model"] == "tiny"


@pytest.mark.parametrize(
    "before",
    [
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))",
        "sys.modules['onnxruntime'] = None; sys.modules['onnx'] = None; sys.modules['matplotlib'] = None",
    ],
    ids=["one CPU", "3 GiB of addresses", "no optional package"],
)
def test_drills(tiny, tmp_path, before) -> None:
    code, document, err = checked(tiny, tmp_path / "out", before)
    if "RLIMIT_AS" in before and code == 2:
        assert err.startswith("error: ") and len(err.splitlines()) == 1
        return
    agrees_with_itself(code, document)
    if "onnx" in before:
        assert document["provenance"]["engine"]["backend"] == "numpy"
    if "affinity" in before:
        assert document["provenance"]["generator_cpu"] is None


def test_a_competitor_on_the_models_cpu_takes_the_certificate_away(tiny, tmp_path) -> None:
    cpu = min(os.sched_getaffinity(0))
    spin = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nprint('spinning', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as competitor:
        try:
            assert competitor.stdout is not None and competitor.stdout.readline() == b"spinning\n"
            code, document, _ = checked(tiny, tmp_path / "out")
        finally:
            competitor.kill()
    assert code == 4 and not document["certified"]
    assert any(f"CPU {cpu} lost" in cause or "lost to others" in cause for cause in document["causes"])
    assert max(document["noise_before"]["worst"], document["noise_after"]["worst"]) > 0.1


def test_ctrl_c_in_the_middle_saves(tiny, tmp_path) -> None:
    out = tmp_path / "out"
    argv = command(tiny, out, "--seconds", "30", "--quiet")
    run = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    while not (out / "service.csv").is_file() and time.monotonic() < limit and run.poll() is None:
        time.sleep(0.05)
    time.sleep(3.0)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in err and f"what was run is saved in {out}" in err
    document = json.loads((out / "validation.json").read_text())
    assert document["complete"] is False and (out / "report.md").is_file()
