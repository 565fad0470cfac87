"""Cores and memory that this process may use: made-up control groups of both versions, address-space limits, caps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hercules_fast as hf
from hercules_fast.errors import InputError
from hercules_fast.host import available_memory_bytes, usable_cores
from tests.small_hosts import write_files

GIB = 1 << 30


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8, 16)))
    for name in ("HERCULES_FAST_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def v2(*limits: str, mount: str = "sys/fs/cgroup") -> dict[str, str]:
    """A group three deep; limits from the nearest upwards, the last of the topmost folder."""
    levels = ("/a/b/c", "/a/b", "/a", "")
    files = {f"{mount}{level}/cpu.max": text for level, text in zip(levels, limits, strict=False)}
    return {"proc/self/cgroup": "0::/a/b/c\n", **files}


@pytest.mark.parametrize(
    ("files", "count", "quota", "won"),
    [
        ({}, 8, None, "affinity to 8 CPUs"),
        (v2("max 100000", "max 100000"), 8, None, "affinity to 8 CPUs"),
        (v2("250000 100000"), 2, 2.5, "cgroup quota of 2.5 cores"),
        (v2("50000 100000"), 1, 0.5, "cgroup quota of 0.5 cores"),
        (v2("max 100000", "max 100000", "300000 100000"), 3, 3.0, "cgroup quota of 3 cores"),
        (v2("400000 100000", "200000 100000", "300000 100000"), 2, 2.0, "cgroup quota of 2 cores"),
        (v2("1600000 100000"), 8, 16.0, "affinity to 8 CPUs"),
        (v2("", "", "", "150000 50000"), 3, 3.0, "cgroup quota of 3 cores"),
        # A container may see its own group at the mount, and its path in the host's tree.
        (
            {"proc/self/cgroup": "0::/docker/77\n", "sys/fs/cgroup/cpu.max": "100000 100000"},
            1,
            1.0,
            "cgroup quota of 1 c",
        ),
        (v2("200000 100000", mount="sys/fs/cgroup/unified"), 2, 2.0, "cgroup quota of 2 cores"),
        (v2("many cores"), 8, None, "affinity"),
        (v2("-5 100000"), 8, None, "affinity"),
        (v2("0 0"), 8, None, "affinity"),
        (v2("5"), 8, None, "affinity"),
        ({"proc/self/cgroup": "\x00\xff garbage\n::\n0\n", "sys/fs/cgroup/cpu.max": "1 1"}, 8, None, "affinity"),
        # Version 1.
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/a/b\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            *(1, 0.5, "cgroup quota of 0.5 cores"),
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/docker/77\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            *(4, 4.0, "cgroup quota of 4 cores"),
        ),
        # Both: the tighter one holds.
        (
            {
                **v2("300000 100000", mount="sys/fs/cgroup/unified"),
                "proc/self/cgroup": "1:cpu:/\n0::/a/b/c\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            *(2, 2.0, "cgroup quota of 2 cores"),
        ),
    ],
)
def test_the_least_limit_wins(tmp_path: Path, files: dict[str, str], count: int, quota: float | None, won: str) -> None:
    cores = usable_cores(write_files(tmp_path, files))
    assert (cores.count, cores.cpus, cores.quota, cores.cap) == (count, tuple(range(8, 16)), quota, None)
    assert cores.won.startswith(won)
    assert str(cores) == f"{count} {'core' if count == 1 else 'cores'} (by {cores.won})"


def test_the_cap_of_the_environment_counts_as_the_core_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, v2("400000 100000"))
    monkeypatch.setenv("RAYON_NUM_THREADS", "3")
    cores = usable_cores(tmp_path)
    assert (cores.count, cores.cap, cores.won) == (3, 3, "RAYON_NUM_THREADS=3")
    monkeypatch.setenv("HERCULES_FAST_NUM_THREADS", "6")
    cores = usable_cores(tmp_path)
    assert (cores.count, cores.cap, cores.won) == (4, 6, "cgroup quota of 4 cores")
    monkeypatch.setenv("HERCULES_FAST_NUM_THREADS", "none")
    with pytest.raises(InputError, match='HERCULES_FAST_NUM_THREADS: is "none"'):
        usable_cores(tmp_path)


MEMORY = {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n"}


@pytest.mark.parametrize(
    ("files", "available"),
    [
        (MEMORY, 8_000_000 << 10),
        (
            {
                **MEMORY,
                "proc/self/cgroup": "4:memory:/a/b\n",
                "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "5\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "700000\n",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "300000\n",
                "sys/fs/cgroup/memory/a/memory.stat": "inactive_file 7\ntotal_inactive_file 20000\n",
            },
            420_000,
        ),
        (
            {
                **MEMORY,
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/memory.current": "3000\n",
            },
            0,
        ),
    ],
)
def test_memory_is_what_the_tightest_group_leaves(tmp_path: Path, files: dict[str, str], available: int) -> None:
    assert available_memory_bytes(write_files(tmp_path, files)) == available


def test_memory_is_no_more_than_the_address_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {**MEMORY, "proc/self/statm": "1000 1 1 1 0 1 0\n"})
    monkeypatch.setattr("resource.getrlimit", lambda _: (GIB, GIB))
    assert available_memory_bytes(tmp_path) == GIB - 1000 * os.sysconf("SC_PAGESIZE")


def test_a_real_limit_of_the_address_space_is_heeded() -> None:
    code = (
        "import resource, hercules_fast as hf\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "print(hf.host.available_memory_bytes())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 0 < int(run.stdout) < GIB


def test_this_machine_has_cores() -> None:
    cores = hf.host.usable_cores()
    assert 1 <= cores.count <= len(cores.cpus)
    assert cores.to_dict()["won"] == cores.won
