"""Cores that this process may really use: the least of affinity, control groups' quota, and the user's cap."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from math import floor
from pathlib import Path
from typing import Any

from hercules_fast import _core
from hercules_fast.host.groups import levels, text_of

__all__ = ["Cores", "physical_cores", "usable_cores"]

CAP_VARIABLES = ("HERCULES_FAST_NUM_THREADS", "RAYON_NUM_THREADS")
"""Variables that cap the library's threads, in the order in which the core reads them."""


@dataclass(frozen=True, slots=True)
class Cores:
    """What :func:`usable_cores` found."""

    count: int
    """Cores to plan with, 1 or more; a part of a core counts as one, and more is rounded down."""
    cpus: tuple[int, ...]
    """CPUs that the scheduler may run this process on."""
    quota: float | None
    """Cores' worth of time that the control groups allow; None: no limit."""
    cap: int | None
    """Threads that the environment allows the library; None: it does not say."""
    won: str
    """Which of them decided, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.count} {'core' if self.count == 1 else 'cores'} (by {self.won})"


def usable_cores(root: Path = Path("/")) -> Cores:
    """Cores that this process may really use, and what decided.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.

    Raises:
        InputError: A variable of the environment that caps threads is no whole number from 1 to 1024.
    """
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    quota = min(_quotas(root), default=None)
    variable = next((name for name in CAP_VARIABLES if os.environ.get(name, "").strip()), None)
    cap = _core.capabilities()["threads_used"] if variable else None
    count, won = len(cpus), f"affinity to {len(cpus)} {'CPU' if len(cpus) == 1 else 'CPUs'}"
    if quota is not None and quota < count:
        count, won = max(1, floor(quota)), f"cgroup quota of {quota:g} cores"
    if cap is not None and cap < count:
        count, won = cap, f"{variable}={cap}"
    return Cores(count, cpus, quota, cap, won)


def physical_cores(cpus: Iterable[int], root: Path = Path("/")) -> int:
    """Cores that these CPUs are threads of; a CPU of which the system tells nothing is a core.

    Args:
        cpus: Numbers of CPUs.
        root: Where ``/sys`` lies.
    """
    found = set()
    for cpu in cpus:
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        place = tuple(text_of(folder / name) for name in ("physical_package_id", "die_id", "core_id"))
        found.add(place if place[2] else cpu)
    return len(found)


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group above this process allows, where it says so."""
    for level in levels(root, "cpu", 2):
        yield from _quotient(*text_of(level / "cpu.max").split())
    for level in levels(root, "cpu", 1):
        yield from _quotient(text_of(level / "cpu.cfs_quota_us"), text_of(level / "cpu.cfs_period_us"))


def _quotient(*parts: str) -> Iterator[float]:
    """Quota over period, both in microseconds; "max" and -1 are no limit."""
    if len(parts) == 2 and all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        yield int(parts[0]) / int(parts[1])
