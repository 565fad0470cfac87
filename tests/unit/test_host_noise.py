"""The noise probe: its figures, the gate under noise made on purpose, Ctrl-C, fork. Never that the host is quiet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast.errors import InputError
from tests.reference import noise as slow
from tests.small_hosts import write_files
from tests.unit.test_fork import wait

BUSY = """
import os
os.sched_setaffinity(0, {%d})
print(flush=True)
while True:
    pass
"""


@pytest.fixture
def contended_cpu() -> Iterator[int]:
    """A CPU on which another process is always busy, with the same right to it."""
    cpu = max(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", BUSY % cpu], stdout=subprocess.PIPE) as competitor:
        assert competitor.stdout is not None
        competitor.stdout.readline()
        yield cpu
        competitor.kill()


def test_the_gate_fires_where_another_process_wants_the_cpu(contended_cpu: int) -> None:
    """A fair scheduler gives each of two threads half; a third process moves that, but hardly below a tenth."""
    noise = hf.host.noise_probe([contended_cpu], seconds=0.6)
    assert noise.cpus == (contended_cpu,) and not noise.unpinned
    assert 0.1 < noise.lost_share[0] <= 1
    assert noise.longest_gap_us[0] > hf.host.noise.GAP_US
    assert not noise.quiet and noise.worst >= noise.lost_share[0]
    assert f"CPU {contended_cpu} lost" in noise.cause() and str(noise).startswith("noisy: CPU")
    slowly, longest_s = slow.spin(contended_cpu, 0.6, hf.host.noise.GAP_US * 1e-6)
    assert 0.1 < slowly <= 1 and longest_s > 50e-6


def test_gaps_of_readings() -> None:
    assert slow.gaps([0.0, 1.0, 3.0, 3.5], 0.9) == (3 / 3.5, 2.0)
    assert slow.gaps([0.0, 1.0, 3.0, 3.5], 1.0) == (2 / 3.5, 2.0)


def test_figures_agree_with_each_other() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    noise = hf.host.noise_probe(np.array(cpus), seconds=0.05)
    assert noise.cpus == tuple(cpus) and noise.seconds == 0.05
    assert len(noise.lost_share) == len(noise.longest_gap_us) == len(cpus)
    for lost, longest in zip(noise.lost_share, noise.longest_gap_us, strict=True):
        assert 0 <= lost <= 1 and longest > 0
        assert (lost > 0) == (longest > hf.host.noise.GAP_US)
    assert noise.steal_share is None or 0 <= noise.steal_share <= 1
    assert noise.quiet == (noise.worst <= hf.host.LOST_SHARE_LIMIT)
    assert noise.to_dict()["worst"] == noise.worst and noise.to_dict()["lost_share"] == noise.lost_share


def test_the_gate_and_its_words() -> None:
    noise = hf.host.Noise((0, 3), 0.5, (0.001, 0.02), (60.0, 8100.0), None)
    assert not noise.quiet
    assert noise.cause() == (
        "CPU 3 lost 2.00% of 0.5 s in gaps over 50 us (longest 8,100 us); a quiet machine loses at most 1%"
    )
    assert hf.host.Noise((0,), 0.5, (0.01,), (60.0,), 0.01).quiet, "the limit itself is quiet"
    stolen = hf.host.Noise((0,), 0.5, (0.0,), (40.0,), 0.05, (0,))
    assert stolen.worst == 0.05 and not stolen.quiet
    assert "5.00% stolen by the hypervisor; no thread could be bound to CPU 0" in stolen.cause()
    assert str(hf.host.Noise((0,), 0.5, (0.0,), (40.0,), None)).startswith("quiet: CPU 0 lost 0.00%")


def test_a_cpu_that_nobody_has_is_measured_unbound_and_named() -> None:
    noise = hf.host.noise_probe([8191], seconds=0.01)
    assert noise.unpinned == (8191,)
    assert "no thread could be bound to CPU 8191" in noise.cause()


def test_by_default_as_many_cpus_are_watched_as_may_be_used() -> None:
    cores = hf.host.usable_cores()
    assert hf.host.noise_probe(seconds=0.01).cpus == cores.cpus[: cores.count]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpus": ()}, "cpus: is empty"),
        ({"cpus": (0, 0)}, r"cpus: is \(0, 0\); each number is allowed once"),
        ({"cpus": -1}, "cpus: is -1; allowed is a whole number from 0 to 8191"),
        ({"cpus": range(2**60)}, "cpus: is 8192"),
        ({"cpus": range(2000)}, "cpus: names 2000; allowed are 1 to 1024"),
        ({"seconds": 0}, "seconds: is 0; allowed is a number from 0.001 to 60"),
        ({"seconds": 61}, "seconds: is 61"),
        ({"seconds": float("nan")}, "seconds: is nan"),
        ({"seconds": True}, "seconds: is True"),
    ],
)
def test_odd_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hf.host.noise_probe(**changes)


def test_stolen_ticks_are_those_of_the_cpus_asked_for(tmp_path: Path) -> None:
    stat = "cpu  99 0 0 0 0 0 0 99 0 0\ncpu0 1 2 3 4 5 6 7 8 1 2\ncpu1 10 0 0 0 0 0 0 5 0 0\ncpu12 1 1 1 1 1 1 1 1\n"
    write_files(tmp_path, {"proc/stat": stat})
    assert hf.host.steal_ticks([0], tmp_path) == (8, 36)
    assert hf.host.steal_ticks([0, 1], tmp_path) == (13, 51)
    assert hf.host.steal_ticks([2], tmp_path) is None
    write_files(tmp_path, {"proc/stat": "cpu0 1 2 3 4\n"})  # as old kernels write it
    assert hf.host.steal_ticks([0], tmp_path) is None
    assert hf.host.steal_ticks([0], tmp_path / "nowhere") is None


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner may have started us with SIGINT ignored
from hercules_fast.host import noise_probe
print("begins", flush=True)
try:
    noise_probe(seconds=30)
except KeyboardInterrupt:
    print("stopped")
"""


def test_ctrl_c_ends_the_probe() -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begins\n"
        time.sleep(0.3)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.stdout.read() == "stopped\n"
        elapsed_s = time.monotonic() - began
    assert elapsed_s < 1.0, f"{elapsed_s:.2f} s from Ctrl-C to the end of the process"


def test_the_probe_works_in_a_forked_child() -> None:
    hf.host.noise_probe(seconds=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if hf.host.noise_probe(seconds=0.01).cpus else 2
        finally:
            os._exit(code)
    assert wait(pid, 20) == 0
