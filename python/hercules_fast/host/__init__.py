"""This machine, as this process may use it: what the system says of it, and how fast its memory is."""

from __future__ import annotations

from hercules_fast.host.limits import MemoryLimit, MemoryLimits, memory_limits
from hercules_fast.host.system import Cache, System, read_system

__all__ = ["Cache", "MemoryLimit", "MemoryLimits", "System", "memory_limits", "read_system"]
