"""Made-up machines: the files that a system would show, and memory speeds, without the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hercules_fast.host import MemoryLimit, MemoryLimits, read_system


def write_files(root: Path, files: Mapping[str, str]) -> Path:
    """Write each text to its path below ``root``."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def memory_speed(gb_s: Mapping[int, float]) -> MemoryLimits:
    """Limits of this machine with rows of 256 bytes read at these rates, by number of threads."""
    found = tuple(MemoryLimit("gather", "2 MiB", n, 256, rate, 5, 16, 4, "L1") for n, rate in gb_s.items())
    return MemoryLimits(read_system(), 1 << 30, 0, 1.0, found)
