"""Everything that can be said of this machine without long work, in one object."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hercules_fast.host.cores import Cores, usable_cores
from hercules_fast.host.noise import Noise, noise_probe
from hercules_fast.host.numbers import byte_size
from hercules_fast.host.power import PowerSource, power_sources
from hercules_fast.host.system import System, available_memory_bytes, read_system

__all__ = ["HostFacts", "describe"]

SCHEMA = "hercules_fast.host/1"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What :func:`describe` found. ``str()`` is a page."""

    system: System
    cores: Cores
    available_memory_bytes: int
    """Memory that this process can still take."""
    power: tuple[PowerSource, ...]
    noise: Noise | None
    """How quiet the CPUs are; None where it was not asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "schema": SCHEMA,
            "system": asdict(self.system),
            "cores": self.cores.to_dict(),
            "available_memory_bytes": self.available_memory_bytes,
            "power": [source.to_dict() for source in self.power],
            "noise": self.noise.to_dict() if self.noise else None,
        }

    def __str__(self) -> str:
        return "\n".join(f"{name:<14}{value}" for name, value in self._lines())

    def _lines(self) -> list[tuple[str, str]]:
        system = self.system
        clock = f"{system.frequency_ghz:.3g} GHz (by {system.frequency_told_by})" if system.frequency_ghz else "unknown"
        shape = (
            f"{system.sockets}; cores of each: {system.cores_per_socket}; threads of a core: {system.threads_per_core}"
            if system.sockets
            else "unknown"
        )
        caches = ", ".join(f"L{c.level} {byte_size(c.size_bytes)} for {c.shared_by}" for c in system.caches)
        pools = [f"{p.reserved} of {byte_size(p.size_bytes)} set aside" for p in system.huge_page_pools if p.reserved]
        lines = [
            ("CPU", f"{system.cpu}; kernels for {system.isa}"),
            ("clock", clock),
            ("sockets", shape),
            ("usable", f"{self.cores}; CPUs {_ranges(self.cores.cpus)}"),
            ("caches", caches or "unknown"),
            ("NUMA nodes", str(system.numa_nodes) if system.numa_nodes else "unknown"),
            ("memory", f"{byte_size(system.memory_bytes)}, {byte_size(self.available_memory_bytes)} available"),
            ("huge pages", ", ".join([f"transparent: {system.huge_pages}", *pools])),
            ("hypervisor", system.hypervisor),
            ("container", system.container),
            ("kernel", system.kernel),
            *(("power", str(source)) for source in self.power),
        ]
        return [*lines, ("noise", str(self.noise))] if self.noise else lines


def describe(*, noise_s: float | None = None, root: Path = Path("/")) -> HostFacts:
    """Say what this machine is, as this process may use it.

    Args:
        noise_s: Seconds to watch the usable CPUs for noise (see :func:`noise_probe`). Default: not at all.
        root: Where ``/proc`` and ``/sys`` lie.

    Raises:
        InputError: ``noise_s`` is outside 0.001 to 60, or a variable of the environment says nonsense.
    """
    cores = usable_cores(root)
    return HostFacts(
        system=read_system(root),
        cores=cores,
        available_memory_bytes=available_memory_bytes(root),
        power=power_sources(root),
        noise=None if noise_s is None else noise_probe(cores.cpus[: cores.count], seconds=noise_s),
    )


def _ranges(numbers: tuple[int, ...]) -> str:
    """``(0, 1, 2, 5)`` as ``"0-2,5"``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
