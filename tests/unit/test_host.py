"""What this machine is and how fast its memory is: the object's shape, refusals, the rows that are read, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import DTypeError, IndexRangeError, InputError, OutputError
from hercules_fast.host import limits as host_limits
from hercules_fast.host.cores import physical_cores
from hercules_fast.host.system import available_memory_bytes
from tests.small_hosts import write_files

SMALL = 64 << 20


def measure(**changes: Any) -> hf.host.MemoryLimits:
    return hf.host.memory_limits(**{"threads": 1, "row_bytes": (64,), "table_bytes": SMALL, "seconds": 0, **changes})


def test_each_figure_is_there_once_with_its_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_limits, "PASS_BYTES", 1 << 20)  # a test of counts, not of times
    told: list[tuple[int, int]] = []
    found = measure(
        threads=(1, np.int64(2)),
        row_bytes=np.array([72, 256]),
        small_pages=True,
        seed=3,
        progress=lambda *done: told.append(done),
    )
    wanted = [
        (access, pages, threads, row_bytes)
        for pages in ("2 MiB", "4 KiB")
        for threads in (1, 2)
        for access, row_bytes in (("sequential", 4096), ("gather", 72), ("gather", 256))
    ]
    assert [(x.access, x.pages, x.threads, x.row_bytes) for x in found.limits] == wanted
    assert told == [(i + 1, 12) for i in range(12)]
    for x in found.limits:
        assert 0.01 < x.gb_s < 10_000
        assert x.repeats >= host_limits.LEAST_REPEATS
        assert (x.rows_ahead, x.burst, x.level) in host_limits.PREFETCHES
    assert (found.table_bytes, found.seed) == (SMALL, 3)
    assert 0 <= found.huge_page_share <= 1
    assert found.gather_gb_s(256, threads=2, pages="4 KiB") == found.limits[-1].gb_s
    assert found.sequential_gb_s() == found.limits[0].gb_s
    with pytest.raises(InputError, match=r"no gather of 64 B rows on 2 MiB pages, 1 threads; have .*72 B gather"):
        found.gather_gb_s(64)
    text = str(found)
    assert len(text.splitlines()) == 4 + len(wanted)
    assert found.system.cpu in text

    found.save(tmp_path / "limits.json")
    saved = json.loads((tmp_path / "limits.json").read_text())
    assert saved["schema"] == host_limits.SCHEMA
    assert saved == json.loads(json.dumps(found.to_dict()))
    assert saved["limits"][1]["gb_s"] == found.limits[1].gb_s
    assert saved["system"]["cpu"] == found.system.cpu
    with pytest.raises(OutputError):
        found.save(tmp_path / "nowhere" / "limits.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 0}, "threads: is 0; allowed is a whole number from 1 to 1024"),
        ({"threads": (1, 1025)}, "threads: is 1025"),
        ({"threads": ()}, "threads: is empty"),
        ({"threads": (2, 2)}, r"threads: is \(2, 2\); each number is allowed once"),
        ({"threads": 1.5}, "threads: is 1.5"),
        ({"threads": True}, "threads: is True"),
        ({"row_bytes": (64, 0)}, "row_bytes: is 0; allowed is a whole number from 1 to 65536"),
        ({"row_bytes": (65_537,)}, "row_bytes: is 65537"),
        ({"row_bytes": "64"}, "row_bytes: is '64'"),
        ({"row_bytes": np.array([[64]])}, r"row_bytes: is array\(\[64\]\)"),
        ({"row_bytes": None}, "row_bytes: is None"),
        ({"table_bytes": 1 << 20}, "table_bytes: is 1048576; allowed is a whole number from 67108864"),
        ({"table_bytes": "64 MiB"}, "table_bytes: is '64 MiB'"),
        ({"table_bytes": (SMALL,)}, r"table_bytes: is \(67108864,\)"),
        ({"table_bytes": 1e9}, "table_bytes: is 1000000000.0"),
        ({"seconds": -1}, "seconds: is -1; allowed is a number from 0 to 60"),
        ({"seconds": float("nan")}, "seconds: is nan"),
        ({"seconds": "1"}, "seconds: is '1'"),
        ({"seed": -1}, "seed: is -1"),
        ({"seed": 2**64}, "seed: is 18446744073709551616"),
    ],
)
def test_odd_arguments_are_refused_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(**changes)


def test_memory_is_bounded_by_what_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    system = hf.host.read_system()
    with pytest.raises(MemoryError, match=r"table_bytes: is \d+; allowed is half of the memory that is available"):
        measure(table_bytes=available_memory_bytes())
    monkeypatch.setattr(host_limits, "available_memory_bytes", lambda: 8 << 30)
    assert host_limits._table_bytes(None, system) <= 2 << 30
    monkeypatch.setattr(host_limits, "available_memory_bytes", lambda: 100 << 20)
    with pytest.raises(MemoryError, match=r"table_bytes: a table well beyond the caches takes \d+ bytes"):
        measure(table_bytes=None)


def test_memory_that_the_system_does_not_have_is_refused() -> None:
    with pytest.raises(MemoryError, match="cannot allocate 1152921504606846976 bytes"):
        host_limits.paged_memory(1 << 60, "2 MiB")


def test_pages_are_of_the_kind_that_was_asked_for() -> None:
    small = host_limits.paged_memory(8 << 20, "4 KiB")
    assert host_limits._huge_share(small) == 0
    large = host_limits.paged_memory(8 << 20, "2 MiB")
    assert large.ctypes.data % (2 << 20) == 0 and large.all()
    if hf.host.read_system().huge_pages in {"always", "madvise"}:
        assert host_limits._huge_share(large) > 0.5  # the system may be short of them, but hardly of four


def test_random_rows_depend_on_seed_and_draw_alone() -> None:
    rows = host_limits.random_rows(7, 5, 10_000_000)
    assert rows.tolist() == [8_720_734, 2_953_653, 4_200_976, 4_053_922, 828_426]
    assert np.array_equal(host_limits.random_rows(7, 3, 10_000_000), rows[:3])
    assert not np.array_equal(host_limits.random_rows(8, 5, 10_000_000), rows)
    assert not np.array_equal(host_limits.random_rows(7, 5, 10_000_000, draw=1), rows)
    assert host_limits.random_rows(0, 1000, 1 << 32).max() > 0.99 * 2**32
    many = host_limits.random_rows(0, 100_000, 1000)
    assert many.min() == 0 and many.max() == 999
    counts = np.bincount(many, minlength=1000)
    # Chi-square of 999 degrees of freedom: mean 999, standard deviation 45; six of them.
    assert abs(((counts - 100) ** 2 / 100).sum() - 999) < 6 * 45


def test_the_best_prefetch_is_found() -> None:
    best = host_limits.PREFETCHES[17]
    assert host_limits.best_prefetch(lambda prefetch: 1.0 if prefetch == best else 1.1) == best


def test_reads_of_what_is_not_there_are_refused() -> None:
    memory, rows = np.ones(640, np.uint8), np.array([0, 9])
    assert _core.read_seconds(memory, 64, rows, 4, 2, "L1", 1) >= 0
    with pytest.raises(IndexRangeError, match=r"indices\[1\] is 10, outside"):
        _core.read_seconds(memory, 64, np.array([0, 10]), 4, 2, "L1", 1)
    with pytest.raises(InputError, match='level: is "L3"; allowed are L1, L2'):
        _core.read_seconds(memory, 64, rows, 4, 2, "L3", 1)
    with pytest.raises(InputError, match="memory: must be contiguous"):
        _core.read_seconds(memory[::2], 64, rows, 4, 2, "L1", 1)
    with pytest.raises(DTypeError, match="rows: must be a 1-D NumPy array of int64"):
        _core.read_seconds(memory, 64, rows.astype(np.int32), 4, 2, "L1", 1)


def test_threads_that_wait_for_each_other_do_so_in_company_of_other_work() -> None:
    """Readers start together: calls at once, on more threads than there are CPUs, must neither hang nor fail."""
    memory, rows, table = np.ones(1 << 20, np.uint8), np.arange(16_384) * 7919 % 16_384, np.ones((100, 8), np.float32)

    def read() -> None:
        for _ in range(50):
            assert _core.read_seconds(memory, 64, rows, 16, 4, "L1", 2) > 0

    def pool() -> None:
        for _ in range(50):
            hf.embedding_bag(table, np.zeros(20_000, np.int64), np.arange(0, 20_000, 5), mode="sum", threads=2)

    with ThreadPoolExecutor(4) as workers:
        for done in [workers.submit(work) for work in (read, pool, read, pool)]:
            done.result()


def test_facts_of_a_system_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: fpu hypervisor sse\n"
        "processor\t: 1\nmodel name\t: other\ncpu MHz\t: 1234.5\n",
        "proc/sys/kernel/osrelease": "6.1.0\n",
        "run/.containerenv": "",
        "sys/class/dmi/id/product_name": "KVM\n",
        "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "2\n",
        "sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages": "1\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
        "sys/devices/system/node/node0/meminfo": "",
        "sys/devices/system/node/node1/meminfo": "",
        "sys/devices/system/node/node2/cpumap": "",
        **{  # two sockets of two cores, two threads each
            f"sys/devices/system/cpu/cpu{cpu}/topology/{name}": f"{value}\n"
            for cpu in range(8)
            for name, value in (("physical_package_id", cpu // 4), ("core_id", cpu % 2))
        },
        "proc/meminfo": "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  800 kB\n",
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": "600000\n",
        "sys/fs/cgroup/a/memory.current": "200000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 5\ninactive_file 30000\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        **{
            f"sys/devices/system/cpu/cpu3/cache/index{i}/{name}": value
            for i, (level, kind, size, shared) in enumerate(
                [
                    ("1", "Data", "48K", "008"),
                    ("1", "Instruction", "32K", "8"),
                    ("3", "Unified", "32768K", "ff,ffffffff"),
                ]
            )
            for name, value in (("level", level), ("type", kind), ("size", size), ("shared_cpu_map", shared))
        },
    }
    write_files(tmp_path, files)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5})
    system = hf.host.read_system(tmp_path)
    assert (system.cpu, system.cpus, system.huge_pages) == ("Some CPU @ 2 GHz", 2, "madvise")
    assert system.caches == (hf.host.Cache(1, 48 << 10, 1), hf.host.Cache(3, 32 << 20, 40))
    assert system.last_level_cache_bytes == 32 << 20
    assert (system.sockets, system.cores_per_socket, system.threads_per_core, system.cores) == (2, 2, 2, 4)
    assert (system.numa_nodes, system.kernel) == (2, "6.1.0")
    assert (system.frequency_ghz, system.frequency_told_by) == (2.0, "model name")
    assert system.huge_page_pools == (hf.host.HugePages(2 << 20, 0, 0), hf.host.HugePages(1 << 30, 2, 1))
    assert (system.hypervisor, system.container) == ("seen (KVM)", "/run/.containerenv")
    assert physical_cores((0, 1, 2, 3), tmp_path) == 2 and physical_cores((1, 5, 99), tmp_path) == 3
    write_files(tmp_path, {"sys/devices/system/cpu/cpu3/cpufreq/base_frequency": "2500000\n"})
    assert hf.host.read_system(tmp_path).frequency_ghz == 2.5
    assert system.memory_bytes == 1000 << 10
    assert available_memory_bytes(tmp_path) == 430_000
    (tmp_path / "sys/fs/cgroup/a/memory.max").write_text("max\n")
    assert available_memory_bytes(tmp_path) == 800 << 10
    # A system that tells nothing.
    bare = hf.host.read_system(tmp_path / "nothing")
    assert (bare.cpu, bare.caches, bare.huge_pages, bare.last_level_cache_bytes) == ("unknown", (), "unknown", 0)
    assert (bare.sockets, bare.cores, bare.numa_nodes, bare.frequency_ghz, bare.kernel) == (0, 0, 0, 0, "unknown")
    assert (bare.frequency_told_by, bare.huge_page_pools) == ("unknown", ())
    assert (bare.hypervisor, bare.container) == ("none seen", "none seen")
    assert physical_cores((3, 5), tmp_path / "nothing") == 2


def test_everything_said_of_a_machine_is_one_object(tmp_path: Path) -> None:
    facts = hf.host.describe(noise_s=0.01)
    found = json.loads(json.dumps(facts.to_dict()))
    assert found["schema"] == "hercules_fast.host/1"
    assert found["system"]["cpu"] == facts.system.cpu and found["cores"]["count"] == facts.cores.count
    assert found["noise"]["cpus"] == list(facts.noise.cpus) if facts.noise else False
    text = str(facts)
    assert facts.system.cpu in text and str(facts.cores) in text and "lost" in text
    bare = hf.host.describe(root=tmp_path)
    assert bare.noise is None and bare.to_dict()["noise"] is None and bare.available_memory_bytes == 0
    assert "clock         unknown" in str(bare) and "noise" not in str(bare)


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner may have started us with SIGINT ignored
import hercules_fast as hf
from hercules_fast.errors import InterruptedRun
try:
    hf.host.memory_limits(threads=1, row_bytes=(64, 128), table_bytes=64 << 20, seconds=3,
                          progress=lambda done, total: print("done", done, flush=True))
except InterruptedRun as stop:
    print("stopped", len(stop.partial.limits), stop.partial.sequential_gb_s() > 0, stop)
"""


def test_ctrl_c_keeps_what_is_measured() -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "done 1\n"
        time.sleep(0.3)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        last = child.stdout.read().strip().splitlines()[-1]
        elapsed_s = time.monotonic() - began
    assert child.returncode == 0
    assert last == "stopped 1 True interrupted after 1 of 3 figures"
    assert elapsed_s < 1.0, f"{elapsed_s:.2f} s from Ctrl-C to the end of the process"
