"""Energy counters of this machine: RAPL for packages and DRAM, NVML for NVIDIA cards; and why there are none.

RAPL (``/sys/class/powercap``) counts microjoules and wraps at ``max_energy_range_uj``. Packages and DRAM are read and
no other zone: cores and uncore are part of a package, and ``psys`` holds all of them. NVML counts millijoules since
the driver was loaded (cards from Volta on).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hercules_fast.host.groups import text_of

__all__ = ["EnergyMeter", "PowerSource", "card_of", "energy_meter", "package_limit_w", "power_sources"]


@dataclass(frozen=True, slots=True)
class PowerSource:
    """One kind of energy counter, and whether it can be used here."""

    name: str
    """``"RAPL"`` or ``"NVML"``."""
    parts: tuple[str, ...]
    """What it counts: ``"package-0"``, ``"dram-0"``, ``"gpu-0"``; empty where it cannot be used."""
    words: str
    """What was found, or why it cannot be used."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


@dataclass(slots=True)
class _Counter:
    """A counter that may wrap, summed up from its first reading on."""

    read_uj: Callable[[], int]
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def joules(self) -> float:
        now = self.read_uj()
        passed = now - self.last_uj
        if passed < 0:  # it wrapped; more than once would need minutes without a reading
            passed += self.range_uj
        self.last_uj = now
        self.total_uj += passed
        return self.total_uj * 1e-6


class EnergyMeter:
    """Joules used since the meter was made, by part. Read it at least once a minute: counters wrap."""

    def __init__(self, source: str, counters: Mapping[str, _Counter]):
        self.source = source
        """Where the figures come from: ``"RAPL"``, ``"NVML"`` or ``"RAPL and NVML"``."""
        self._counters = dict(counters)

    @property
    def parts(self) -> tuple[str, ...]:
        """What is counted, such as ``"package-0"``, ``"dram-0"``, ``"gpu-0"``."""
        return tuple(self._counters)

    def read_j(self) -> Mapping[str, float]:
        """Joules of each part since the meter was made.

        Raises:
            OSError: A counter can no longer be read.
        """
        return {name: counter.joules() for name, counter in self._counters.items()}


def energy_meter(root: Path = Path("/")) -> EnergyMeter | None:
    """A meter over every counter that can be read here, or None; :func:`power_sources` says why.

    Args:
        root: Where ``/sys`` lies.
    """
    found = [(name, counters) for name, counters, _ in (_rapl(root), _nvml()) if counters]
    if not found:
        return None
    counters = {part: counter for _, parts in found for part, counter in parts.items()}
    return EnergyMeter(" and ".join(name for name, _ in found), counters)


def card_of(uuid: str) -> str:
    """Part of a meter (``"gpu-2"``) that counts the card with this UUID, with or without ``GPU-``; empty for none."""
    try:
        import pynvml
    except ImportError:
        return ""
    try:
        pynvml.nvmlInit()
        for i in range(pynvml.nvmlDeviceGetCount()):
            own = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i))
            own = own.decode() if isinstance(own, bytes) else own  # as versions of pynvml have it
            if own.removeprefix("GPU-") == uuid.removeprefix("GPU-"):
                return f"gpu-{i}"
    except pynvml.NVMLError:
        pass
    return ""


def package_limit_w(root: Path = Path("/")) -> float | None:
    """Long-term power limit of all packages, which is their TDP unless someone changed it; None where RAPL is silent.

    Args:
        root: Where ``/sys`` lies.
    """
    limits = []
    for part, zone in _zones(root / "sys/class/powercap"):
        text = text_of(zone / "constraint_0_max_power_uw") or text_of(zone / "constraint_0_power_limit_uw")
        if part.startswith("package") and text.isdigit() and int(text) > 0:
            limits.append(int(text) * 1e-6)
    return sum(limits) if limits else None


def power_sources(root: Path = Path("/")) -> tuple[PowerSource, ...]:
    """The kinds of energy counters, each found here or not, and why.

    Args:
        root: Where ``/sys`` lies.
    """
    return tuple(PowerSource(name, tuple(counters), words) for name, counters, words in (_rapl(root), _nvml()))


_Found = tuple[str, dict[str, _Counter], str]
"""Name of the kind, its counters by part, what was found in words."""


def _rapl(root: Path) -> _Found:
    folder = root / "sys/class/powercap"
    zones = dict(_zones(folder))
    if not zones:
        return "RAPL", {}, f"not found: no package in {folder}"
    counters: dict[str, _Counter] = {}
    closed = []
    for part, zone in zones.items():
        try:
            counters[part] = _rapl_counter(zone)
        except PermissionError:
            closed.append(f"{part} (no permission to read {zone / 'energy_uj'})")
        except (OSError, ValueError) as error:
            closed.append(f"{part} ({error})")
    return "RAPL", counters, _words(counters, closed)


def _words(counters: Mapping[str, _Counter], closed: list[str]) -> str:
    """What was found, with the parts that are there and closed."""
    if not counters:
        return f"found but not readable: {'; '.join(closed)}"
    return f"counts {', '.join(counters)}" + (f", but not {'; '.join(closed)}" if closed else "")


def _zones(folder: Path) -> Iterator[tuple[str, Path]]:
    """Packages and DRAM by name. A DRAM zone lies in its package's, ``intel-rapl:0:1`` in ``intel-rapl:0``."""
    for zone in sorted(folder.glob("intel-rapl:*")):
        place = re.fullmatch(r"intel-rapl:(\d+)(?::\d+)?", zone.name)
        name = text_of(zone / "name")
        if place and re.fullmatch(r"package-\d+(-die-\d+)?", name):
            yield name, zone
        elif place and name == "dram":
            yield f"dram-{place.group(1)}", zone


def _rapl_counter(zone: Path) -> _Counter:
    def read_uj() -> int:
        return int((zone / "energy_uj").read_text())

    return _Counter(read_uj, int((zone / "max_energy_range_uj").read_text()), read_uj())


def _nvml() -> _Found:
    try:
        import pynvml
    except ImportError:
        return "NVML", {}, "not found: pynvml is not installed (pip install 'hercules-fast[gpu]')"
    try:
        pynvml.nvmlInit()
        cards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return "NVML", {}, f"not found: {error}"
    counters: dict[str, _Counter] = {}
    closed = []
    for i, card in enumerate(cards):

        def read_uj(card: Any = card) -> int:
            try:
                return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(card)) * 1000
            except pynvml.NVMLError as error:
                raise OSError(f"NVML: {error}") from error

        try:
            counters[f"gpu-{i}"] = _Counter(read_uj, 1000 << 64, read_uj())
        except OSError as error:
            closed.append(f"gpu-{i} ({error})")
    if not cards:
        return "NVML", {}, "not found: no card"
    return "NVML", counters, _words(counters, closed)
