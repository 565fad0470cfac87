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

__all__ = ["Cache", "System", "available_memory_bytes", "read_system"]


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache that the first usable CPU reads data through."""

    level: int
    """1 is the nearest."""
    size_bytes: int
    shared_by: int
    """CPUs of the system that share it."""


@dataclass(frozen=True, slots=True)
class System:
    """Facts of this machine. Where the system does not tell, text is ``"unknown"`` and tuples are empty."""

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

    @property
    def last_level_cache_bytes(self) -> int:
        """Size of the farthest cache; 0 where the system does not tell."""
        return max((cache.size_bytes for cache in self.caches), default=0)


def read_system(root: Path = Path("/")) -> System:
    """Read the facts of this machine.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """
    usable = sorted(os.sched_getaffinity(0))
    modes = re.search(r"\[(\w+)\]", text_of(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    name = re.search(r"^(?:model name|Processor)\s*:\s*(.+)$", text_of(root / "proc/cpuinfo"), re.MULTILINE)
    return System(
        cpu=name.group(1).strip() if name else "unknown",
        cpus=len(usable),
        isa=_core.capabilities()["isa_used"],
        caches=tuple(sorted(_caches(root / f"sys/devices/system/cpu/cpu{usable[0]}/cache"), key=lambda c: c.level)),
        memory_bytes=_meminfo(root, "MemTotal"),
        page_bytes=os.sysconf("SC_PAGESIZE"),
        huge_pages=modes.group(1) if modes else "unknown",
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
        pages = text_of(root / "proc/self/statm").partition(" ")[0]
        yield limit - (int(pages) if pages.isdigit() else 0) * os.sysconf("SC_PAGESIZE")


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
