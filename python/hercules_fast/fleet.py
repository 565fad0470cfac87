"""A fleet: server types, how many of each are in stock, and the workloads to serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hercules_fast.hardware import Server
from hercules_fast.traffic import Workload

__all__ = ["Fleet"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """``stock`` maps each server's name to the number of machines that may be switched on."""

    name: str
    label: str
    servers: tuple[Server, ...]
    stock: Mapping[str, int]
    workloads: tuple[Workload, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
