"""DRAM standards as data: one TOML file each, read and checked as every descriptor is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hercules_fast import _core
from hercules_fast.descriptors import FILE_RULES, Bound, Catalog, FileKind, load
from hercules_fast.errors import DTypeError, Fault, InputError

__all__ = ["KINDS", "Currents", "DramStandard", "Organisation", "Timing", "load_standard", "standard", "standard_names"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Organisation:
    """What one rank is made of; every count is a power of two."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    groups: int
    """Bank groups."""
    banks_per_group: int
    rows: int
    """Rows of a bank."""
    row_bytes: int
    """Bytes that one row holds over all chips of the rank."""
    bus_bits: int
    """Width of the channel's data bus."""
    device_bits: int
    """Width of one chip; ``bus_bits / device_bits`` chips make a rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Cycles of the DRAM clock between commands, in the names of JEDEC without their t or n."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    bl: int
    """Cycles that a burst keeps the data bus: half its beats."""
    cl: int
    """Read command to first data."""
    cwl: int
    """Write command to first data."""
    rcd: int
    """Activate to read or write."""
    rp: int
    """Precharge to activate."""
    ras: int
    """Activate to precharge."""
    rc: int
    """Activate to activate, same bank."""
    ccd_s: int
    """Read to read and write to write, other bank group; the burst keeps them ``bl`` apart at least."""
    ccd_l: int
    """Read to read, same bank group."""
    ccd_l_wr: int
    """Write to write, same bank group."""
    rrd_s: int
    """Activate to activate, other bank group."""
    rrd_l: int
    """Activate to activate, same bank group."""
    faw: int
    """Window in which a rank takes at most four activates."""
    rtp: int
    """Read to precharge."""
    wr: int
    """End of write data to precharge."""
    wtr_s: int
    """End of write data to read, other bank group."""
    wtr_l: int
    """End of write data to read, same bank group."""
    rtw: int
    """Gap on the data bus from a read to a write of the same rank."""
    rank_switch: int
    """Gap on the data bus between bursts of different ranks."""
    rfc: int
    """Refresh to any command of the rank."""
    refi: int
    """Mean time between refreshes of a rank."""
    row_command: int
    """Cycles of the command bus that an activate takes."""
    column_command: int
    """Cycles of the command bus that a read or write takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Currents:
    """Supply voltage (V) and currents (mA) of one chip, and the energy of a bit on the channel."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    vdd_v: float
    idd0_ma: float
    """One bank opened and closed again and again."""
    idd2n_ma: float
    """All banks closed."""
    idd3n_ma: float
    """A bank open."""
    idd4r_ma: float
    """Reading without pause."""
    idd4w_ma: float
    """Writing without pause."""
    idd5_ma: float
    """Refreshing without pause."""
    io_pj_per_bit: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DramStandard:
    """One speed grade of one kind of DRAM. Without ``currents`` no energy is told."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    label: str = ""
    tck_ns: float
    """Length of a clock cycle."""
    organisation: Organisation
    timing: Timing
    currents: Currents | None = None
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)

    def core(self) -> _core.DramStandard:
        """The standard as the core takes it. Raises :class:`InputError` where parameters do not fit each other."""
        currents = None if self.currents is None else asdict(self.currents)
        organisation, timing = asdict(self.organisation), asdict(self.timing)
        check_whole({f"organisation.{name}": value for name, value in organisation.items()})
        check_whole({f"timing.{name}": value for name, value in timing.items()})
        return _core.DramStandard(organisation, timing, self.tck_ns, currents)

    @property
    def access_bytes(self) -> int:
        """Bytes that one read or write moves."""
        return self.core().access_bytes

    @property
    def rank_bytes(self) -> int:
        """Capacity of one rank."""
        return self.core().rank_bytes

    @property
    def peak_gb_s(self) -> float:
        """Most that one channel moves, GB/s."""
        return self.core().peak_gb_s


def check_whole(values: Mapping[str, int]) -> None:
    """Refuse what is no whole number that the core can take; the core knows the ranges."""
    for name, value in values.items():
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise DTypeError(f"{name}: is {value!r}; allowed is a whole number")
        if not 0 <= value < 2**32:
            raise InputError(f"{name}: is {value}; allowed is a whole number from 0 to 2**32 - 1")


def _faults(form: DramStandard) -> Iterator[Fault]:
    try:
        form.core()
    except InputError as error:
        path, _, message = str(error).partition(": ")
        yield Fault(path, message)


def _as_read(form: DramStandard, _resolve: Callable[[str, str], Any]) -> DramStandard:
    return form


_COUNTS = Bound(1, 2**31)
_CYCLES = Bound(0, 2**20)
_CURRENT = Bound(0.0, 1e5)

DRAM: FileKind[DramStandard] = FileKind(
    name="dram",
    form=DramStandard,
    catalog=Path(__file__).parent / "catalog" / "dram",
    build=_as_read,
    bounds={
        "tck_ns": Bound(0.0, 1000.0, low_open=True),
        "organisation{}": _COUNTS,
        "timing{}": _CYCLES,
        "currents{}": _CURRENT,
    },
    rules=_faults,
)

KINDS: tuple[FileKind[Any], ...] = (DRAM,)

_STANDARDS = Catalog(DRAM)


def standard(name: str) -> DramStandard:
    """Return the catalogue's DRAM standard ``name`` in any case; else ``UnknownNameError`` with the nearest."""
    return _STANDARDS.get(name)


def standard_names() -> tuple[str, ...]:
    """Return the DRAM standards of the catalogue."""
    return _STANDARDS.names()


def load_standard(path: str | Path) -> DramStandard:
    """Read a standard from a TOML file; raises ``ConfigError`` with all of its faults, or ``MissingFileError``."""
    return load(path, DRAM)
