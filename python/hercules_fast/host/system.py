"""What the system says about the CPU, its caches, and the memory that is left for this process."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hercules_fast import _core
from hercules_fast.host.groups import levels, text_of

__all__ = ["Cache", "HugePages", "System", "available_memory_bytes", "read_system"]


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache that the first usable CPU reads data through."""

    level: int
    """1 is the nearest."""
    size_bytes: int
    shared_by: int
    """CPUs of the system that share it."""


@dataclass(frozen=True, slots=True)
class HugePages:
    """Huge pages of one size that the system sets aside (hugetlbfs)."""

    size_bytes: int
    reserved: int
    free: int


@dataclass(frozen=True, slots=True)
class System:
    """Facts of this machine. Where the system does not tell, text is ``"unknown"``, numbers are 0, tuples empty."""

    cpu: str
    """Name of the CPU's model."""
    cpus: int
    """CPUs that this process may run on."""
    isa: str
    """Instruction set that the kernels use."""
    caches: tuple[Cache, ...]
    """Data caches, nearest first."""
    memory_bytes: int
    """All memory of the machine."""
    page_bytes: int
    """Size of an ordinary page."""
    huge_pages: str
    """Transparent huge pages: ``"always"``, ``"madvise"`` or ``"never"``."""
    huge_page_pools: tuple[HugePages, ...]
    """Pages set aside, smallest first, also where none are."""
    sockets: int
    cores_per_socket: int
    """Physical cores of the first socket."""
    threads_per_core: int
    numa_nodes: int
    """Nodes with memory of their own."""
    frequency_ghz: float
    """Nominal clock, or the next best that is told."""
    frequency_told_by: str
    """Where ``frequency_ghz`` stands: ``"base_frequency"``, ``"model name"``, ``"cpuinfo_max_freq"``, or ``"cpu MHz"``,
    which is the clock of the moment."""
    hypervisor: str
    """``"none seen"``, or ``"seen"`` with the name that the firmware tells, if it does."""
    container: str
    """``"none seen"``, or what shows one."""
    kernel: str

    @property
    def last_level_cache_bytes(self) -> int:
        """Size of the farthest cache; 0 where the system does not tell."""
        return max((cache.size_bytes for cache in self.caches), default=0)

    @property
    def cores(self) -> int:
        """Physical cores of all sockets; 0 where the system does not tell."""
        return self.sockets * self.cores_per_socket


def read_system(root: Path = Path("/")) -> System:
    """Read the facts of this machine.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """
    usable = sorted(os.sched_getaffinity(0))
    devices = root / "sys/devices/system"
    cpuinfo = text_of(root / "proc/cpuinfo")
    modes = re.search(r"\[(\w+)\]", text_of(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    name = re.search(r"^(?:model name|Processor)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    cpu = name.group(1).strip() if name else "unknown"
    sockets, cores_per_socket, threads_per_core = _topology(devices / "cpu")
    frequency_ghz, told_by = _frequency(devices / f"cpu/cpu{usable[0]}/cpufreq", cpu, cpuinfo)
    return System(
        cpu=cpu,
        cpus=len(usable),
        isa=_core.capabilities()["isa_used"],
        caches=tuple(sorted(_caches(devices / f"cpu/cpu{usable[0]}/cache"), key=lambda c: c.level)),
        memory_bytes=_meminfo(root, "MemTotal"),
        page_bytes=os.sysconf("SC_PAGESIZE"),
        huge_pages=modes.group(1) if modes else "unknown",
        huge_page_pools=tuple(sorted(_huge_pages(root), key=lambda pool: pool.size_bytes)),
        sockets=sockets,
        cores_per_socket=cores_per_socket,
        threads_per_core=threads_per_core,
        numa_nodes=sum(1 for node in (devices / "node").glob("node[0-9]*") if (node / "meminfo").exists()),
        frequency_ghz=frequency_ghz,
        frequency_told_by=told_by,
        hypervisor=_hypervisor(root, cpuinfo),
        container=_container(root),
        kernel=text_of(root / "proc/sys/kernel/osrelease") or "unknown",
    )


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: of the machine, of its control groups, of its address space (ulimit -v).

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """
    return max(0, min([_meminfo(root, "MemAvailable"), *_group_bytes(root), *_address_space_bytes(root)]))


def _group_bytes(root: Path) -> Iterator[int]:
    """What each control group above this process has left. Cached files count as used, but are given back."""
    for version, limit_file, used_file, cached in (
        (2, "memory.max", "memory.current", "inactive_file"),
        (1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for level in levels(root, "memory", version):
            limit, used = text_of(level / limit_file), text_of(level / used_file)
            if limit.isdigit() and used.isdigit():
                found = re.search(rf"^{cached} (\d+)$", text_of(level / "memory.stat"), re.MULTILINE)
                yield int(limit) - int(used) + (int(found.group(1)) if found else 0)


def _address_space_bytes(root: Path) -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield limit - _count(text_of(root / "proc/self/statm").partition(" ")[0]) * os.sysconf("SC_PAGESIZE")


def _topology(folder: Path) -> tuple[int, int, int]:
    """(sockets, cores of the first of them, hardware threads of a core); zeros where the system does not tell."""
    cores: dict[str, dict[str, int]] = {}  # threads by socket and core
    for cpu in folder.glob("cpu[0-9]*"):
        socket, core = text_of(cpu / "topology/physical_package_id"), text_of(cpu / "topology/core_id")
        die = text_of(cpu / "topology/die_id")  # cores may be counted anew on each die
        if socket and core:
            threads = cores.setdefault(socket, {})
            threads[f"{die}/{core}"] = threads.get(f"{die}/{core}", 0) + 1
    if not cores:
        return 0, 0, 0
    first = cores[min(cores)]
    return len(cores), len(first), max(first.values())


def _frequency(folder: Path, cpu: str, cpuinfo: str) -> tuple[float, str]:
    """(GHz, where it stands); (0, "unknown") where the system does not tell."""
    named = re.search(r"@ ?(\d+(?:\.\d+)?) ?GHz", cpu)
    shown = re.search(r"^cpu MHz\s*:\s*(\d+(?:\.\d+)?)$", cpuinfo, re.MULTILINE)
    told = (
        (_count(text_of(folder / "base_frequency")) / 1e6, "base_frequency"),
        (float(named.group(1)) if named else 0.0, "model name"),
        (_count(text_of(folder / "cpuinfo_max_freq")) / 1e6, "cpuinfo_max_freq"),
        (float(shown.group(1)) / 1e3 if shown else 0.0, "cpu MHz"),
    )
    return next(((ghz, where) for ghz, where in told if ghz > 0), (0.0, "unknown"))


def _huge_pages(root: Path) -> Iterator[HugePages]:
    for folder in (root / "sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        size = _count(folder.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
        if size:
            yield HugePages(size, _count(text_of(folder / "nr_hugepages")), _count(text_of(folder / "free_hugepages")))


def _hypervisor(root: Path, cpuinfo: str) -> str:
    name = text_of(root / "sys/hypervisor/type") or text_of(root / "sys/class/dmi/id/product_name")
    if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) or (root / "sys/hypervisor/type").exists():
        return f"seen ({name})" if name else "seen"
    return "none seen"


def _container(root: Path) -> str:
    for mark in (".dockerenv", "run/.containerenv"):
        if (root / mark).exists():
            return f"/{mark}"
    group = re.search(r"docker|kubepods|containerd|libpod|lxc", text_of(root / "proc/self/cgroup"))
    return f"control group of {group.group(0)}" if group else "none seen"


def _caches(folder: Path) -> Iterator[Cache]:
    for index in sorted(folder.glob("index[0-9]*")):
        size = re.fullmatch(r"(\d+)K", text_of(index / "size"))
        level = text_of(index / "level")
        if size and level.isdigit() and text_of(index / "type") in {"Data", "Unified"}:
            sharing = text_of(index / "shared_cpu_map").replace(",", "")
            shared_by = int(sharing, 16).bit_count() if re.fullmatch(r"[0-9a-f]+", sharing) else 1
            yield Cache(level=int(level), size_bytes=int(size.group(1)) * 1024, shared_by=shared_by)


def _meminfo(root: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text_of(root / "proc/meminfo"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _count(text: str) -> int:
    """The number that ``text`` is; 0 where it is none."""
    return int(text) if text.isascii() and text.isdigit() else 0
