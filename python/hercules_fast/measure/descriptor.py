"""This machine as a server type: a descriptor whose figures are measured here, as far as a process can measure them.

- *gather_core_gb_s*: random 256-byte rows by one thread, as :func:`hercules_fast.host.memory_limits` finds them.
- *channels*: the least number of them, a power of two, at which the cycle-level model of the memory's standard
  gathers no slower than all threads did here.
- *operator_overhead_us*, *llc_core_gb_s*, *gemm_efficiency*: dense networks of narrow, of many and of wide layers, run
  by the engine that runs the models, on one thread. Times are CPU times of that thread, and the difference between a
  deep and a shallow network is taken, so what a call costs by itself drops out. Overhead is per operator as the
  service-time model counts them, streaming at batch 1, efficiency against the model's own formula at a large batch.
- *frequency_ghz*: as the system tells, else by additions that wait for each other.

What cannot be measured (power, unless RAPL tells; the rest of the server) is that of a server type of the catalogue,
and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.hardware import Cpu, Memory, Server, server
from hercules_fast.hardware.files import MAX_RANKS
from hercules_fast.host import (
    MemoryLimits,
    System,
    energy_meter,
    memory_limits,
    noise_probe,
    package_limit_w,
    read_system,
    usable_cores,
)
from hercules_fast.host.alike import Known, alike, check_name, flop_per_cycle
from hercules_fast.host.cores import physical_cores
from hercules_fast.memory import DramStandard
from hercules_fast.memory import standard as dram_standard
from hercules_fast.models import Model, Stage, TableGroup
from hercules_fast.serving import Terms
from hercules_fast.serving.gather import host_gather
from hercules_fast.serving.stages import READ_AND_WRITE

if TYPE_CHECKING:
    from hercules_fast.measure.engine import Backend, Engine

__all__ = ["known_parts", "server_descriptor"]

ROW_BYTES = 256
"""Rows of the gathers: 64 fp32 values."""
NARROW, WIDE = 8, 1024
"""Widths of layers: all dispatch, and all multiplication."""
STREAMED = 512
"""Width of layers that stream their weights: 1 MiB each."""
LARGE_BATCH = 256
OPERATORS = 2
"""Operators of a layer, as the service-time model counts: the product and its activation."""
TRIES = 5
LEAST_CALLS = 9
MAX_CHANNELS = 64
IDLE_S = 1.0


def server_descriptor(
    *,
    name: str = "this-host",
    like: str = "T2",
    standard: str | None = None,
    tdp_w: float | None = None,
    base_w: float | None = None,
    backend: Backend = "auto",
    limits: MemoryLimits | None = None,
    seconds: float = 0.1,
    progress: Callable[[int, int], object] | None = None,
) -> Server:
    """Measure this machine and describe it as a server type. Takes about ten seconds.

    All figures are those of an idle machine only if it is idle; where the noise probe says otherwise, the source of
    each measured figure does, too.

    Args:
        name: Of the server, its CPU and its memory.
        like: Server type of the catalogue that stands in for what cannot be measured; its memory is ordinary DRAM.
        standard: DRAM standard of the catalogue. Default: that of ``like``.
        tdp_w: TDP of the CPU. Default: what RAPL tells, else that of ``like`` in proportion to the cores.
        base_w: Power of the rest of the server. Default: that of ``like``.
        backend: Of the dense networks, as :meth:`Engine.build` takes it.
        limits: Memory limits measured before, with 1 thread and all, rows of 256 bytes. Default: they are measured.
        seconds: How long to repeat each measurement at least.
        progress: Called with (steps done, steps in all).

    Raises:
        InputError: An argument is outside what is said above.
        MemoryError: There is too little memory to measure its speed.
        InterruptedRun, KeyboardInterrupt: Ctrl-C.
    """
    stand_in, chips = known_parts(like, standard)
    check_name(name)
    for field, value in (("tdp_w", tdp_w), ("base_w", base_w)):
        if value is not None and not (isinstance(value, int | float) and 0 < value < 1e6):
            raise InputError(f"{field}: is {value!r}; allowed is a number of W, above 0 and below 1e6")
    steps = _Steps(progress, 6)
    system, usable = read_system(), usable_cores()
    threads = _core.capabilities()["threads_used"]
    dense = _Dense(backend, seconds)
    before = noise_probe()
    steps.done()
    limits = limits or memory_limits(threads=sorted({1, threads}), row_bytes=(ROW_BYTES,), seconds=seconds)
    steps.done()
    clock_ghz = _core.clock_ghz(max(seconds, 0.05))
    overhead_s = dense.overhead_s()
    known_overhead_s = stand_in.cpu.operator_overhead_us * 1e-6 if overhead_s is None else overhead_s
    streamed_gb_s = dense.streamed_gb_s(system, known_overhead_s)
    steps.done()
    gflop_s = dense.gflop_s(known_overhead_s, streamed_gb_s or stand_in.cpu.llc_core_gb_s)
    steps.done()
    noise = max(before, noise_probe(), key=lambda probe: probe.worst)
    said = "" if noise.quiet else f"; noisy, up to {noise.worst:.0%} of the time was lost to others"

    def measured(value: float, text: str) -> Known:
        return Known(float(f"{value:.4g}"), f"measured: {text}{said}")

    known = {
        "cores": Known(
            min(usable.count, physical_cores(usable.cpus)), f"measured: cores that a process may use, by {usable.won}"
        ),
        **_clocks(system, clock_ghz, measured),
        "gather_core_gb_s": measured(
            limits.gather_gb_s(ROW_BYTES), f"random rows of {ROW_BYTES} bytes by one thread, best of many prefetches"
        ),
        **_caches(system),
    }
    if overhead_s is not None:
        text = f"layers of width {NARROW} at batch 1, {dense.backend}"
        known["operator_overhead_us"] = measured(overhead_s * 1e6, text)
    if streamed_gb_s is not None:
        text = f"weights of layers of width {STREAMED} at batch 1, together half of the cache, {dense.backend}"
        known["llc_core_gb_s"] = measured(streamed_gb_s, text)
    known |= _peak(gflop_s, known, stand_in.cpu, dense.backend, measured)
    steps.done()
    known |= _power(tdp_w, stand_in.cpu, measured)
    cpu = alike(stand_in.cpu, name, known, size="cores")
    chosen = Known(chips, "user: given" if standard else f"assumed: as {stand_in.memory.name} has it")
    memory = _memory(stand_in.memory, name, chosen, system, limits, threads, said)
    steps.done()
    assumed = f"assumed: as {stand_in.name} has it"
    return Server(
        name=name,
        cpu=cpu,
        memory=memory,
        base_w=stand_in.base_w if base_w is None else base_w,
        memory_reserve=stand_in.memory_reserve,
        sources={"base_w": assumed if base_w is None else "user: given", "memory_reserve": assumed},
    )


def known_parts(like: str, standard: str | None) -> tuple[Server, DramStandard]:
    """The server that stands in for what cannot be measured, and the memory's standard.

    Raises:
        InputError: ``like`` has near-memory processing, or a name is not in the catalogue.
    """
    found = server(like)
    if found.memory.kind != "ddr4":
        raise InputError(f"like: {found.name} has near-memory processing; allowed is a server with ordinary DRAM")
    return found, found.memory.standard if standard is None else dram_standard(standard)


class _Steps:
    """Tells ``progress`` of each step once."""

    def __init__(self, progress: Callable[[int, int], object] | None, total: int):
        self._progress, self._count, self._total = progress, 0, total

    def done(self) -> None:
        self._count += 1
        if self._progress is not None:
            self._progress(self._count, self._total)


Measured = Callable[[float, str], Known]


def _clocks(system: System, clock_ghz: float | None, measured: Measured) -> dict[str, Known]:
    """Nominal clock where the system tells it, else the one that additions reach."""
    known: dict[str, Known] = {}
    if clock_ghz is not None:
        known["frequency_ghz"] = measured(clock_ghz, "additions that wait for each other")
        text = "assumed: the clock of dependent additions; only its product with gemm_efficiency was measured"
        known["simd_frequency_ghz"] = Known(known["frequency_ghz"].value, text)
    if system.frequency_told_by in {"base_frequency", "model name"}:
        known["frequency_ghz"] = Known(system.frequency_ghz, f"vendor: the system's {system.frequency_told_by}")
    return known


def _caches(system: System) -> dict[str, Known]:
    level_2 = next((cache for cache in system.caches if cache.level == 2), None)
    known = {}
    if level_2:
        known["l2_kb"] = Known(level_2.size_bytes / 1000 / level_2.shared_by, "vendor: the system's cache sizes")
    if system.last_level_cache_bytes:
        known["llc_mb"] = Known(system.last_level_cache_bytes / 1e6, "vendor: the system's cache sizes")
    return known


def _peak(
    gflop_s: float | None, known: Mapping[str, Known], like: Cpu, backend: str, measured: Measured
) -> dict[str, Known]:
    """Operations per cycle by instruction set, and the share of them that the measured rate is."""
    isa = _core.capabilities()["isa_detected"]
    if _core.build_info()["target_arch"] == "aarch64":
        isa = "neon"
    peak = flop_per_cycle(isa)
    if gflop_s is None:
        return {"fp32_flop_per_cycle": peak}
    clock = known.get("simd_frequency_ghz", Known(like.simd_frequency_ghz, ""))
    share = gflop_s / (float(clock.value) * float(peak.value))
    text = f"{gflop_s:.4g} GFLOP/s on layers of width {WIDE} at batch {LARGE_BATCH}, {backend}, as the model counts"
    return {
        "fp32_flop_per_cycle": peak,
        "gemm_efficiency": measured(min(1.0, share), text + ("" if share <= 1 else "; held at 1")),
    }


def _power(tdp_w: float | None, like: Cpu, measured: Measured) -> dict[str, Known]:
    """TDP as given or as RAPL tells, and the share of it that is drawn while nothing of ours runs."""
    limit_w = package_limit_w()
    if tdp_w is not None:
        known = {"tdp_w": Known(float(tdp_w), "user: given")}
    elif limit_w is not None:
        known = {"tdp_w": Known(limit_w, "vendor: RAPL, limit of the packages")}
    else:
        return {}
    meter = energy_meter()
    packages = [part for part in meter.parts if part.startswith("package")] if meter else []
    if meter and packages:
        began, before = time.monotonic(), meter.read_j()
        time.sleep(IDLE_S)
        after, elapsed_s = meter.read_j(), time.monotonic() - began
        idle_w = sum(after[part] - before[part] for part in packages) / elapsed_s
        share = min(1.0, idle_w / float(known["tdp_w"].value))
        known["idle_fraction"] = measured(share, f"RAPL, {IDLE_S:g} s in which nothing of ours ran")
    return known


def _memory(
    like: Memory, name: str, standard: Known, system: System, limits: MemoryLimits, threads: int, said: str
) -> Memory:
    """The least memory of the standard that holds this machine's and gathers no slower than it did."""
    chips = standard.value
    capacity_gb = float(f"{system.memory_bytes / 1e9:.6g}")
    gb_s = limits.gather_gb_s(ROW_BYTES, threads=threads)
    channels = 1
    while True:
        ranks = 1
        while channels * ranks * chips.rank_bytes / 1e9 < capacity_gb:
            ranks *= 2
        why = (
            f"derived: the fewest channels of {chips.name} that hold the capacity and gather no slower than the"
            f" {gb_s:.4g} GB/s measured with {threads} {'thread' if threads == 1 else 'threads'}{said}"
        )
        known = {
            "standard": standard,
            "channels": Known(channels, why),
            "dimms_per_channel": Known(1, "assumed: only the ranks of a channel matter"),
            "ranks_per_dimm": Known(ranks, why),
            "capacity_gb": Known(capacity_gb, "measured: memory that the system has"),
        }
        memory = alike(like, name, known, size="capacity_gb")
        if channels == MAX_CHANNELS or (ranks <= MAX_RANKS and _model_gb_s(memory) >= gb_s):
            return memory
        channels *= 2


def _model_gb_s(memory: Memory) -> float:
    """Rate at which the service-time model has the whole memory gather rows of :data:`ROW_BYTES`."""
    items = np.array([1.0])
    row = TableGroup(count=1, rows=1, dim=ROW_BYTES // 4, pooling=1)
    return float(ROW_BYTES / host_gather(memory, [row], items).seconds[0] / 1e9)


class _Dense:
    """Times of dense networks on the engine that runs the models. Each figure is None where noise drowned it."""

    def __init__(self, backend: Backend, seconds: float):
        self._asked, self._seconds = backend, seconds
        self.backend = self._engine(NARROW, 1, 1).backend

    def overhead_s(self) -> float | None:
        """Seconds to dispatch one operator, of which a layer is two: the product and its activation."""
        layer_s = self._layer_s(NARROW, 1, 4, 68)
        return layer_s and layer_s / OPERATORS

    def streamed_gb_s(self, system: System, overhead_s: float) -> float | None:
        """GB/s of weights out of the last-level cache; None where the caches are unknown or too small to tell apart."""
        layer_bytes = 4 * STREAMED * STREAMED
        layers = system.last_level_cache_bytes // 2 // layer_bytes
        nearer = max((cache.size_bytes for cache in system.caches if cache.level == 2), default=0)
        if layers // 2 * layer_bytes <= 2 * nearer or layers < 4:
            return None
        layer_s = self._layer_s(STREAMED, 1, layers // 2, layers)
        if layer_s is None or layer_s <= OPERATORS * overhead_s:
            return None
        return layer_bytes / (layer_s - OPERATORS * overhead_s) / 1e9

    def gflop_s(self, overhead_s: float, streamed_gb_s: float) -> float | None:
        """GFLOP/s at which layers would run that are wide and large without end, as the model's formula has it."""
        layer_s = self._layer_s(WIDE, LARGE_BATCH, 1, 4)
        if layer_s is None:
            return None
        terms = Terms()
        activation_s = READ_AND_WRITE * LARGE_BATCH * WIDE / (streamed_gb_s * 1e9)
        product_s = layer_s - OPERATORS * overhead_s - activation_s
        if product_s <= 0:
            return None
        reached = WIDE / (WIDE + terms.half_width) * LARGE_BATCH / (LARGE_BATCH + terms.half_batch)
        return 2e-9 * LARGE_BATCH * WIDE * WIDE / product_s / reached

    def _layer_s(self, width: int, items: int, shallow: int, deep: int) -> float | None:
        """CPU seconds of one layer more."""
        for _ in range(TRIES):
            more = self._call_s(width, items, deep) - self._call_s(width, items, shallow)
            if more > 0:
                return more / (deep - shallow)
        return None

    def _call_s(self, width: int, items: int, layers: int) -> float:
        """CPU seconds of one query, median of calls in about ``seconds``."""
        worker = self._engine(width, layers, items).worker()
        worker(0, items)  # memory is touched, kernels are chosen
        times: list[int] = []
        end = time.monotonic() + self._seconds
        while len(times) < LEAST_CALLS or time.monotonic() < end:
            began = time.thread_time_ns()
            worker(0, items)
            times.append(time.thread_time_ns() - began)
        return median(times) * 1e-9

    def _engine(self, width: int, layers: int, items: int) -> Engine:
        from hercules_fast.measure.engine import Engine

        tower = Model(
            name=f"{layers} layers of {width}",
            family="probe",
            label="measures layers",
            dense_input_dim=width,
            tables=(TableGroup(count=1, rows=1, dim=NARROW, pooling=1),),
            stages=(
                Stage(name="layers", kind="mlp", dims=(width,) * (layers + 1)),
                Stage(name="join", kind="concat", out_dim=width + NARROW),
                Stage(name="score", kind="mlp", dims=(width + NARROW, 1)),
            ),
            latency_targets=(),
        )
        return Engine.build(tower, backend=self._asked, max_items=items, threads=1)
