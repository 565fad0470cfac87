"""Embedding bags gathered near memory (after RecNMP), cycle by cycle, beside the same bags gathered by the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hercules_fast import _core
from hercules_fast.errors import DTypeError, InputError
from hercules_fast.memory.dram import Page, Scheduler, as_standard
from hercules_fast.memory.standards import DramStandard, check_whole

if TYPE_CHECKING:
    import numpy.typing as npt

    _Ints = npt.NDArray[np.int64]

__all__ = ["Dimm", "NmpResult", "NmpTable", "Variant", "simulate_nmp", "variants"]

Mode = Literal["nmp", "column-split", "host"]
Order = Literal["tables", "samples"]
Pooling = Literal["sum", "weighted", "mean"]
RowDType = Literal["float32", "float16", "int8"]

MAPPING = "row bank group rank column"
"""Rows stay whole, then ranks take turns; most significant part first. Tables choose the channel."""

_ROW_BYTES = {"float32": (4, 0), "float16": (2, 0), "int8": (1, 8)}
"""Bytes of a value and of a row's scale and bias."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NmpTable:
    """An embedding table: where it lies and what a row is. Tables of a channel lie one after another."""

    rows: int
    dim: int
    dtype: RowDType = "float32"
    """``"int8"``: codes with a float32 scale and bias per row."""
    channel: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        value, extra = _ROW_BYTES[self.dtype]
        return self.dim * value + extra


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimm:
    """DIMMs with a processing unit in the buffer chip, as many on each channel.

    The energies of cache and arithmetic are recalled from the RecNMP paper, whose text could not be consulted: they are
    assumptions to be overridden, as are ``reduce_cycles`` and the cache's ways.
    """

    standard: str | DramStandard = "DDR4-2400R"
    dimms: int = 1
    """DIMMs of a channel."""
    ranks_per_dimm: int = 2
    fifo: int = 32
    """Instructions that wait before each rank."""
    inst_per_cycle: int = 2
    """Instructions that a channel delivers in a cycle: one on each edge of the clock."""
    cache_kb: float = 0
    """KiB (1024 bytes) of cache at each rank; 0 for none. A line holds one vector."""
    cache_ways: int = 4
    reduce_cycles: int = 4
    """DRAM cycles from the last data of a bag to its sum: four stages of the adders."""
    cache_access_pj: float = 50.0
    add_pj: float = 7.89
    """Addition of two float32."""
    multiply_pj: float = 25.2

    @property
    def ranks(self) -> int:
        """Ranks of a channel."""
        return self.dimms * self.ranks_per_dimm


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A stage of RecNMP: what is switched on."""

    name: str
    cache_kb: float
    order: Order
    hot_threshold: int


def variants(cache_kb: float = 128, hot_threshold: int = 2) -> tuple[Variant, ...]:
    """Return RecNMP's stages: base, cache, cache with table-aware scheduling, and all (bypass of cold rows too)."""
    return (
        Variant(name="base", cache_kb=0, order="samples", hot_threshold=1),
        Variant(name="cache", cache_kb=cache_kb, order="samples", hot_threshold=1),
        Variant(name="cache+schedule", cache_kb=cache_kb, order="tables", hot_threshold=1),
        Variant(name="all", cache_kb=cache_kb, order="tables", hot_threshold=hot_threshold),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NmpResult:
    """What gathering the bags took; cycles are those of the DRAM clock."""

    standard: DramStandard
    mode: Mode
    channels: int
    ranks: int
    lookups: int
    vector_bytes: int
    """Bytes of all rows looked up."""
    total_cycles: int
    """Until the last sum is with the host, on the slowest channel."""
    gather_cycles: int
    """Until the last row is read."""
    latency_cycles: npt.NDArray[np.uint32]
    """Of each DRAM read, rank by rank in order of coming in: from coming in to its data."""
    reads_by_rank: npt.NDArray[np.uint64]
    """DRAM reads of each rank, channel by channel; empty for the host."""
    row_hits: int
    cache_hits: int
    """Answers of caches; a row over the border of two ranks asks both."""
    cache_accesses: int
    packets: int
    transfers: int
    """Bursts on the host's channels."""
    commands: Mapping[str, int]
    energy_nj: Mapping[str, float]
    """By component: those of :class:`DramResult`, cache, arithmetic; empty for a standard without currents."""
    host: NmpResult | None = None
    """The same bags gathered by a host with the same ranks, where asked for."""

    @property
    def seconds(self) -> float:
        """Length of the run."""
        return self.total_cycles * self.standard.tck_ns * 1e-9

    @property
    def bandwidth_gb_s(self) -> float:
        """Bytes of all rows looked up over the length of the run, GB/s."""
        return self.vector_bytes / self.seconds / 1e9

    @property
    def mean_latency_cycles(self) -> float:
        """Mean of ``latency_cycles``; NaN where caches answered all."""
        return float(np.mean(self.latency_cycles)) if self.latency_cycles.size else float("nan")

    def latency_percentile_cycles(self, percentile: float) -> float:
        """Return the latency that ``percentile`` (0 to 100) of the DRAM reads do not exceed."""
        if not 0 <= percentile <= 100:
            raise InputError(f"percentile: is {percentile!r}; allowed is from 0 to 100")
        return float(np.percentile(self.latency_cycles, percentile, method="inverted_cdf"))

    @property
    def hit_rate(self) -> float:
        """Answers of caches for each lookup."""
        return self.cache_hits / self.lookups

    @property
    def total_energy_nj(self) -> float:
        """Sum of ``energy_nj``; NaN for a standard without currents."""
        return sum(self.energy_nj.values()) if self.energy_nj else float("nan")

    @property
    def speedup(self) -> float:
        """Length of the host's run over this one's. Raises ``InputError`` where the host was not asked for."""
        return self._host().total_cycles / self.total_cycles

    @property
    def energy_saving(self) -> float:
        """Share of the host's energy that is saved. Raises as :attr:`speedup`."""
        return 1 - self.total_energy_nj / self._host().total_energy_nj

    def _host(self) -> NmpResult:
        if self.host is None:
            raise InputError("host: the run has no baseline; call simulate_nmp with baseline=True")
        return self.host


def simulate_nmp(
    indices: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    tables: Sequence[NmpTable],
    *,
    dimm: Dimm = Dimm(),
    mode: Mode = "nmp",
    ranks: int | None = None,
    window: int = 32,
    gap: int = 1,
    fifo: int | None = None,
    inst_per_cycle: int | None = None,
    packet: int = 0,
    psum_tags: int = 0,
    cache_kb: float | None = None,
    cache_ways: int | None = None,
    hot_threshold: int = 1,
    order: Order = "tables",
    pooling: Pooling = "sum",
    mapping: str = MAPPING,
    scheduler: Scheduler = "row-hit-first",
    age_limit: int = 1000,
    page: Page = "open",
    refresh: bool = True,
    baseline: bool = True,
    threads: int | None = None,
) -> NmpResult:
    """Gather and add the rows of embedding bags near memory.

    The host sends one instruction for each row, in order; it waits before its rank, which reads the row and adds it.
    When the last row of a bag is there, each DIMM that holds some of it sends its part of the sum over the channel. A
    row of several accesses is one instruction; rows begin at multiples of the standard's access.

    Args:
        indices: Rows ``[n]``, integers, all bags one after another.
        offsets: Where each bag begins ``[tables * bags]``, as in an embedding bag; all bags of table 0 first, then
            those of table 1, and so on, as many of each.
        tables: What the tables are and on which channel they lie.
        dimm: What sits on each channel; ``ranks``, ``fifo``, ``inst_per_cycle``, ``cache_kb`` and ``cache_ways``
            stand in for its values where given. ``ranks`` are those of a channel.
        mode: ``"nmp"``; ``"column-split"``: all ranks read a piece of every row (after TensorDIMM), pieces rounded up
            to an access; ``"host"``: the host reads every row over the channel.
        window, gap, mapping, scheduler, age_limit, page, refresh: As for :func:`simulate_dram`, for the reads of each
            rank; ``mapping`` is that of one channel, without ``channel``.
        fifo: Instructions that wait before a rank; a full queue holds up all that follow.
        inst_per_cycle: Instructions delivered in a cycle.
        packet: Instructions between barriers, at which all reads must be back; 0 for no barrier.
        psum_tags: Bags that one packet may touch (RecNMP: 16); 0 for any number.
        cache_kb: KiB of cache at each rank, in lines of the widest row.
        cache_ways: Its ways.
        hot_threshold: A row goes through the cache where the call looks it up at least so often (the locality bit);
            others bypass it.
        order: ``"tables"``: as given, all bags of a table back to back. ``"samples"``: bag 0 of every table, then
            bag 1 of every table.
        pooling: ``"sum"``, ``"weighted"`` or ``"mean"``: decides the arithmetic's energy.
        baseline: Also run the host, for :attr:`NmpResult.speedup`. The host has no cache.
        threads: Threads for channels and ranks; the result does not depend on it.

    Raises:
        InputError: An argument is outside what is allowed (named), tables do not fit into the memory, an index is
            outside its table, or there is nothing to look up.
        DTypeError: ``indices`` or ``offsets`` are no integers.
        KeyboardInterrupt: Ctrl-C.
    """
    dimm = _overridden(dimm, ranks, fifo, inst_per_cycle, cache_kb, cache_ways)
    standard = as_standard(dimm.standard)
    core = standard.core()
    work = _Work.of(indices, offsets, tables, core, dimm.ranks, order)
    check_whole({"packet": packet, "psum_tags": psum_tags, "hot_threshold": hot_threshold})
    check_whole({"window": window, "gap": gap, "age_limit": age_limit})
    if not 0 <= dimm.cache_kb <= 2**20:
        raise InputError(f"cache_kb: is {dimm.cache_kb}; allowed is from 0 to {2**20}")
    if pooling not in ("sum", "weighted", "mean"):
        raise InputError(f"pooling: is {pooling!r}; allowed are sum, weighted, mean")
    cacheable = work.hot(hot_threshold) if dimm.cache_kb > 0 and hot_threshold > 1 else None

    def run(mode: Mode) -> NmpResult:
        found: dict[str, Any] = _core.simulate_nmp(
            core,
            work.addresses,
            cacheable,
            work.offsets,
            work.accesses,
            work.results,
            work.channels,
            mode,
            dimm.ranks,
            dimm.ranks_per_dimm,
            mapping,
            window,
            gap,
            scheduler,
            age_limit,
            page,
            refresh,
            dimm.fifo,
            dimm.inst_per_cycle,
            packet,
            psum_tags,
            int(dimm.cache_kb * 1024),
            dimm.cache_ways,
            dimm.reduce_cycles,
            threads,
        )
        if mode != "host" and found["energy_nj"]:
            found["energy_nj"]["cache"] = found["cache_accesses"] * dimm.cache_access_pj * 1e-3
            found["energy_nj"]["arithmetic"] = work.arithmetic_pj(dimm, pooling) * 1e-3
        return NmpResult(
            standard=standard,
            mode=mode,
            channels=len(work.channels) - 1,
            ranks=dimm.ranks,
            lookups=work.addresses.size,
            vector_bytes=work.vector_bytes,
            **found,
        )

    result = run(mode)
    return replace(result, host=run("host")) if baseline and mode != "host" else result


def _overridden(
    dimm: Dimm,
    ranks: int | None,
    fifo: int | None,
    inst_per_cycle: int | None,
    cache_kb: float | None,
    cache_ways: int | None,
) -> Dimm:
    if not isinstance(dimm, Dimm):
        raise DTypeError(f"dimm: is {type(dimm).__name__}; allowed is a Dimm")
    check_whole({} if ranks is None else {"ranks": ranks})
    given: dict[str, Any] = {
        "fifo": fifo,
        "inst_per_cycle": inst_per_cycle,
        "cache_kb": cache_kb,
        "cache_ways": cache_ways,
    }
    dimm = replace(dimm, **{name: value for name, value in given.items() if value is not None})
    if ranks is not None:
        if ranks < 1:
            raise InputError(f"ranks: is {ranks}; allowed is a power of two from 1 to 64")
        per_dimm = min(dimm.ranks_per_dimm, ranks)
        if per_dimm < 1 or ranks % per_dimm:
            raise InputError(f"ranks: is {ranks}; allowed is a multiple of ranks_per_dimm = {per_dimm}")
        dimm = replace(dimm, ranks_per_dimm=per_dimm, dimms=ranks // per_dimm)
    numbers = ("dimms", "ranks_per_dimm", "fifo", "inst_per_cycle", "cache_ways", "reduce_cycles")
    check_whole({name: getattr(dimm, name) for name in numbers})
    for name, value in (("dimms", dimm.dimms), ("ranks_per_dimm", dimm.ranks_per_dimm)):
        if value < 1:
            raise InputError(f"dimm.{name}: is {value}; allowed is from 1")
    return dimm


@dataclass(frozen=True, slots=True)
class _Work:
    """The bags as the core takes them: sorted by channel, rows as addresses."""

    addresses: npt.NDArray[np.uint64]
    offsets: npt.NDArray[np.uint64]
    accesses: npt.NDArray[np.uint32]
    """Accesses of a row, by bag."""
    results: npt.NDArray[np.uint32]
    """Accesses of a sum, by bag."""
    channels: list[int]
    vector_bytes: int
    values: int
    """Values added."""
    scaled_values: int
    """Of them in rows with a scale."""

    @classmethod
    def of(
        cls,
        indices: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        tables: Sequence[NmpTable],
        standard: _core.DramStandard,
        ranks: int,
        order: Order,
    ) -> _Work:
        rows, starts = _integers("indices", indices), _integers("offsets", offsets)
        _check_tables(tables)
        if order not in ("tables", "samples"):
            raise InputError(f"order: is {order!r}; allowed are tables, samples")
        if rows.size == 0:
            raise InputError("indices: is empty; allowed is at least one lookup")
        if starts.size == 0 or starts.size % len(tables):
            raise InputError(f"offsets: has {starts.size} bags; allowed is a multiple of the {len(tables)} tables")
        if starts[0] != 0 or (np.diff(starts) < 0).any() or starts[-1] > rows.size:
            raise InputError(f"offsets: must rise from 0 to at most the number of lookups, {rows.size}")
        bags = starts.size // len(tables)
        lengths = np.diff(starts, append=rows.size)
        access, capacity = standard.access_bytes, standard.rank_bytes * ranks
        strides = [-(-table.row_bytes // access) * access for table in tables]
        bases = _bases(tables, strides, capacity)
        table_of = np.repeat(np.arange(len(tables)), bags)
        # Bags by channel, then in the order asked for.
        channel_of = np.array([table.channel for table in tables])[table_of]
        sample_of = np.tile(np.arange(bags), len(tables))
        keys = (table_of, sample_of) if order == "samples" else (sample_of, table_of)
        turn = np.lexsort((*keys, channel_of))
        per_table = np.bincount(table_of, weights=lengths, minlength=len(tables)).astype(np.int64)
        addresses = np.empty(rows.size, np.uint64)
        ends = np.cumsum(per_table)
        for i, (table, end) in enumerate(zip(tables, ends.tolist(), strict=True)):
            begin = end - int(per_table[i])
            own = rows[begin:end].view(np.uint64)  # negative ones become too large
            if own.size and own.max() >= table.rows:
                where = begin + int(np.argmax(own >= table.rows))
                raise InputError(f"indices[{where}]: is {rows[where]}; allowed is 0 <= index < {table.rows}")
            np.multiply(own, np.uint64(strides[i]), out=addresses[begin:end])
            addresses[begin:end] += np.uint64(bases[i])
        if (np.diff(turn) != 1).any():
            source = np.repeat(starts[turn] - np.cumsum(lengths[turn]) + lengths[turn], lengths[turn])
            addresses = addresses[source + np.arange(rows.size)]
        dims = np.array([table.dim for table in tables])
        results = np.array([-(-4 * table.dim // access) for table in tables], np.uint32)
        channels = 1 + int(channel_of.max())
        return cls(
            addresses=addresses,
            offsets=np.concatenate(([0], np.cumsum(lengths[turn]))).astype(np.uint64),
            accesses=(np.array(strides) // access).astype(np.uint32)[table_of[turn]],
            results=results[table_of[turn]],
            channels=np.searchsorted(channel_of[turn], np.arange(channels + 1)).tolist(),
            vector_bytes=int(per_table @ np.array([table.row_bytes for table in tables])),
            values=int(per_table @ dims),
            scaled_values=int(per_table @ (dims * np.array([table.dtype == "int8" for table in tables]))),
        )

    def hot(self, threshold: int) -> npt.NDArray[np.bool_]:
        """Which lookups are of rows that come at least ``threshold`` times (on a channel, an address is one row)."""
        bounds = self.offsets.astype(np.int64)
        lengths = bounds[1:] - bounds[:-1]
        bag = np.repeat(np.arange(lengths.size), lengths)
        channel = np.searchsorted(np.array(self.channels[1:]), bag, side="right")
        keys = self.addresses.astype(np.int64) * len(self.channels) + channel
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        return np.asarray(counts[inverse] >= threshold)

    def arithmetic_pj(self, dimm: Dimm, pooling: Pooling) -> float:
        """An addition for each value; a product for each weight and each scale, and an addition for each bias."""
        adds = self.values + self.scaled_values
        products = self.values * (pooling == "weighted") + self.scaled_values
        means = int(self.results.sum()) * 16 * (pooling == "mean")
        return adds * dimm.add_pj + (products + means) * dimm.multiply_pj


def _integers(field: str, values: npt.NDArray[np.int64]) -> _Ints:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{field}: has dtype {array.dtype}; allowed are integers")
    if array.ndim != 1:
        raise InputError(f"{field}: has shape {array.shape}; allowed is one dimension")
    return array.astype(np.int64, copy=False)


def _check_tables(tables: Sequence[NmpTable]) -> None:
    if not tables:
        raise InputError("tables: is empty; allowed is at least one")
    for i, table in enumerate(tables):
        if not isinstance(table, NmpTable):
            raise DTypeError(f"tables[{i}]: is {type(table).__name__}; allowed is an NmpTable")
        if table.dtype not in _ROW_BYTES:
            raise InputError(f"tables[{i}].dtype: is {table.dtype!r}; allowed are {', '.join(_ROW_BYTES)}")
        for name, value, low, high in (
            ("rows", table.rows, 1, 2**40),
            ("dim", table.dim, 1, 2**16),
            ("channel", table.channel, 0, 63),
        ):
            if not low <= value <= high:
                raise InputError(f"tables[{i}].{name}: is {value}; allowed is from {low} to {high}")


def _bases(tables: Sequence[NmpTable], strides: Sequence[int], capacity: int) -> list[int]:
    """Address of each table in its channel."""
    ends: dict[int, int] = {}
    bases = []
    for i, (table, stride) in enumerate(zip(tables, strides, strict=True)):
        bases.append(ends.get(table.channel, 0))
        ends[table.channel] = bases[-1] + table.rows * stride
        if ends[table.channel] > capacity:
            raise InputError(
                f"tables[{i}]: ends at byte {ends[table.channel]} of channel {table.channel}; "
                f"its capacity is {capacity} bytes"
            )
    return bases
