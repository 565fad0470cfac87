"""Service times measured for real, with services of known length: right where it is quiet, refused where it is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hercules_fast import models
from hercules_fast.measure import Engine, measure_service
from tests.small_measures import SpinEngine, law

ROOT = Path(__file__).resolve().parents[2]
CPU = min(os.sched_getaffinity(0))


def test_wall_times_are_those_of_the_services() -> None:
    """Generous bounds: these machines are shared. A service that is interrupted is longer, never shorter."""
    found = measure_service(SpinEngine(), batches=(1, 16), cpus=(CPU,), seconds=1.0, noise_limit=1.0)
    assert found.certified and found.clock == "wall"
    for point in found.points:
        asked_ms = 1e3 * law("model", 1, 1, point.batch)
        assert 0.99 * asked_ms <= point.median_ms <= 1.5 * asked_ms and point.wall_ms >= 0.99 * asked_ms
        assert point.cpu_ms <= 1.05 * point.wall_ms and point.samples >= 15


def test_all_cores_at_once() -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("one CPU")
    found = measure_service(SpinEngine(), batches=(4,), cpus=cpus, operator_cores=(1,), seconds=0.5, noise_limit=1.0)
    assert [(p.threads, p.operator_cores) for p in found.points] == [(1, 1), (2, 1)]
    assert np.all(np.diff(found.table.seconds[0, 0], axis=1) >= 0)


def test_noise_made_on_purpose_is_not_certified() -> None:
    busy = f"import os\nos.sched_setaffinity(0, {{{CPU}}})\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as competitor:
        try:
            assert competitor.stdout is not None
            competitor.stdout.readline()
            found = measure_service(SpinEngine(), batches=(1, 16), cpus=(CPU,), seconds=0.5)
        finally:
            competitor.kill()
    assert not found.certified and found.clock == "cpu"
    assert f"before: CPU {CPU} lost" in found.cause and "during: " in found.cause and "after: " in found.cause
    assert found.noise_before.worst > 0.1 and found.lost_share > 0.1
    assert found.table.assumptions[1] == f"not certified: {found.cause}"


CHILD = """
import sys
from hercules_fast import models
from hercules_fast.measure import Engine, measure_service
from tests.small_measures import SpinEngine
measure_service(SpinEngine(), batches=(1, 4, 16), cpus=({cpu},), seconds=5.0, journal={journal!r})
"""


def test_a_killed_run_goes_on_from_its_journal(tmp_path) -> None:
    journal = tmp_path / "journal.jsonl"
    code = CHILD.format(cpu=CPU, journal=str(journal))
    paths = os.pathsep.join([str(ROOT), str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}) as child:
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b'"place"') < 2:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    before = journal.read_bytes()
    found = measure_service(
        SpinEngine(), batches=(1, 4, 16), cpus=(CPU,), seconds=0.5, journal=journal, noise_limit=1.0
    )
    whole = before[: before.rfind(b"\n") + 1]
    assert journal.read_bytes().startswith(whole) and found.complete
    assert [p.batch for p in found.points] == [1, 4, 16] and all(p.rounds >= 3 for p in found.points)


@pytest.mark.parametrize("name", ["dlrm-rmc1", "ncf"])
@pytest.mark.parametrize("backend", ["numpy", "onnxruntime"])
def test_a_real_model(name, backend, tmp_path) -> None:
    """A smoke test: tables of a few MB, seconds of work."""
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    engine = Engine.build(models.model(name), max_bytes=4_000_000, max_items=64, backend=backend)
    found = measure_service(engine, batches=(1, 64), cpus=(CPU,), seconds=0.5, journal=tmp_path / "journal.jsonl")
    assert found.engine["backend"] == backend and found.complete
    one, many = found.table.seconds[0, 0, :, 0].tolist()
    assert 1e-6 < one < many < 1.0
    again = Engine.build(models.model(name), max_bytes=4_000_000, max_items=64, backend=backend)
    found = measure_service(again, batches=(1, 64), cpus=(CPU,), seconds=0.5, journal=tmp_path / "journal.jsonl")
    assert all(point.rounds >= 3 for point in found.points)


def test_a_real_pipeline() -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("one CPU")
    engine = Engine.build(models.model("ncf"), max_bytes=4_000_000, max_items=16, backend="numpy")
    found = measure_service(
        engine, batches=(16,), stages=("model", "sparse", "dense"), operator_cores=(1,), cpus=cpus, seconds=0.5
    )
    assert {v.kind for v in found.table.variants} == {"cpu", "cpu-sd"}
    assert {(p.stage, p.threads) for p in found.points} == {
        (s, n) for s in ("model", "sparse", "dense") for n in (1, 2)
    }
