"""Memory traffic on cycle-level DRAM: addresses in, cycles, latencies, commands and energy out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hercules_fast import _core
from hercules_fast.errors import DTypeError, InputError
from hercules_fast.memory.standards import DramStandard, check_whole, standard

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DEFAULT_MAPPING", "DramResult", "earliest_cycles", "simulate_dram"]

Scheduler = Literal["row-hit-first", "fr-fcfs"]
Page = Literal["open", "closed"]

DEFAULT_MAPPING = "row bank group rank column channel"
"""Most significant part first; accesses that follow each other go to the channels in turn, then along a row."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DramResult:
    """What a run of a memory system gave; cycles are those of the DRAM clock, of which the first counts as one."""

    standard: DramStandard
    channels: int
    ranks: int
    total_cycles: int
    """Until the last data moved, on the slowest channel."""
    latency_cycles: npt.NDArray[np.uint32]
    """By access, in the order of the addresses: from coming in to its last data."""
    row_hits: int
    """Accesses that found their row open."""
    forwarded: int
    """Reads answered by a write that was still queued."""
    commands: Mapping[str, int]
    """Commands by name: activate, precharge (those inside reads and writes too), read, write, refresh."""
    energy_nj: Mapping[str, float]
    """By component: activate, read, write, io, refresh, background; empty for a standard without currents."""

    @property
    def requests(self) -> int:
        """Accesses served."""
        return len(self.latency_cycles)

    @property
    def seconds(self) -> float:
        """Length of the run."""
        return self.total_cycles * self.standard.tck_ns * 1e-9

    @property
    def bandwidth_gb_s(self) -> float:
        """Bytes of all accesses over the length of the run, GB/s."""
        return self.requests * self.standard.access_bytes / self.seconds / 1e9

    @property
    def mean_latency_cycles(self) -> float:
        """Mean of ``latency_cycles``."""
        return float(np.mean(self.latency_cycles))

    @property
    def total_energy_nj(self) -> float:
        """Sum of ``energy_nj``; NaN for a standard without currents."""
        return sum(self.energy_nj.values()) if self.energy_nj else float("nan")

    def latency_percentile_cycles(self, percentile: float) -> float:
        """Return the latency that ``percentile`` (0 to 100) of the accesses do not exceed."""
        if not 0 <= percentile <= 100:
            raise InputError(f"percentile: is {percentile!r}; allowed is from 0 to 100")
        return float(np.percentile(self.latency_cycles, percentile, method="inverted_cdf"))


def simulate_dram(
    addresses: npt.ArrayLike,
    *,
    standard: str | DramStandard = "DDR4-2400R",
    channels: int = 1,
    ranks: int = 1,
    mapping: str = DEFAULT_MAPPING,
    writes: npt.NDArray[np.bool_] | None = None,
    window: int = 32,
    gap: int = 1,
    write_queue: int = 32,
    scheduler: Scheduler = "row-hit-first",
    age_limit: int = 1000,
    page: Page = "open",
    refresh: bool = True,
    threads: int | None = None,
) -> DramResult:
    """Serve accesses in order on DRAM that keeps every timing constraint of its standard.

    Channels are independent: each takes its accesses with a window of its own. Refreshes of the ranks of a channel are
    spread over the interval; while one is waited for, the channel serves only rows that were opened already.

    Args:
        addresses: Byte addresses ``[n]``, integers, multiples of the standard's access (64 bytes for DDR4).
        standard: Name in the catalogue, or a standard of your own (:func:`load_standard`).
        channels: Channels, a power of two.
        ranks: Ranks of each channel, a power of two.
        mapping: Parts of an address, most significant first, of ``channel rank group bank row column``. A part may
            carry its bits (``column:3``) and then stand more than once. XOR hashes are not modelled.
        writes: Bool ``[n]``, which accesses write. Default: none.
        window: Most reads of a channel that are queued or on their way back.
        gap: Least cycles between two accesses that come in.
        write_queue: Most writes that wait; they are sent when three quarters are full or no read is queued, until a
            quarter is left. A read of what a queued write holds is answered from there.
        scheduler: ``"fr-fcfs"``: the oldest request whose next command can be issued. ``"row-hit-first"``: the same,
            and a row is not closed while queued requests hit it. In both, a request that opened its row is served
            before that row is closed.
        age_limit: Cycles after which a request holds back younger ones that hit the open row of its bank.
        page: ``"open"``: rows stay open until another is wanted. ``"closed"``: the last queued access closes its row.
        refresh: Whether there are refreshes.
        threads: Threads for channels; the result does not depend on it.

    Raises:
        InputError: An argument is outside what is allowed (named), an address is beyond the capacity or not a multiple
            of the access, the mapping's bits do not add up, or there is nothing to serve.
        DTypeError: ``addresses`` are no integers, or ``writes`` no bools.
        KeyboardInterrupt: Ctrl-C.
    """
    chosen = as_standard(standard)
    check_whole({"channels": channels, "ranks": ranks, "window": window, "gap": gap})
    check_whole({"write_queue": write_queue, "age_limit": age_limit})
    if writes is not None and np.asarray(writes).dtype != np.bool_:
        raise DTypeError(f"writes: has dtype {np.asarray(writes).dtype}; allowed is bool")
    found: dict[str, Any] = _core.simulate_dram(
        chosen.core(),
        as_addresses("addresses", addresses),
        None if writes is None else np.asarray(writes),
        channels,
        ranks,
        mapping,
        window,
        gap,
        write_queue,
        scheduler,
        age_limit,
        page,
        refresh,
        threads,
    )
    return DramResult(standard=chosen, channels=channels, ranks=ranks, **found)


def earliest_cycles(
    commands: Sequence[tuple[str, int, int]], *, standard: str | DramStandard = "DDR4-2400R", ranks: int = 1
) -> npt.NDArray[np.uint64]:
    """Return for each command the first cycle that breaks no timing constraint, given the ones before it.

    A command trace of another simulator keeps the standard where no command comes before its earliest cycle.

    Args:
        commands: ``(name, bank, cycle)`` in order of time. Names: activate, precharge, read, write, read-precharge,
            write-precharge, and for whole ranks precharge-all, refresh. Banks of a channel are numbered
            ``(rank * groups + group) * banks_per_group + bank``; a rank goes by any of its banks.
        standard: As for :func:`simulate_dram`.
        ranks: Ranks of the channel.

    Raises:
        InputError: A command is unknown or does not fit the state of its bank, a bank does not exist, or cycles fall.
    """
    return _core.dram_earliest(as_standard(standard).core(), ranks, commands)


def as_standard(chosen: str | DramStandard) -> DramStandard:
    """Return the standard behind an argument."""
    if isinstance(chosen, DramStandard):
        return chosen
    if isinstance(chosen, str):
        return standard(chosen)
    raise DTypeError(f"standard: is {type(chosen).__name__}; allowed is a name or a DramStandard")


def as_addresses(field: str, values: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Return byte addresses as the core takes them."""
    array = np.asarray(values)
    if array.size == 0 and array.dtype == np.float64:
        array = array.astype(np.int64)  # an empty list
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{field}: has dtype {array.dtype}; allowed are integers")
    if array.ndim != 1:
        raise InputError(f"{field}: has shape {array.shape}; allowed is one dimension")
    if array.dtype.kind == "i" and (negative := array < 0).any():
        position = int(np.argmax(negative))
        raise InputError(f"{field}[{position}]: is {array[position]}; allowed is from 0")
    return array.astype(np.uint64, copy=False)
