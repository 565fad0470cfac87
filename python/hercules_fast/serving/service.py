"""Service times: from descriptors to a ServiceTable, in vectorised NumPy.

Only ``+ - * / min max`` and comparisons are used: NumPy's exp, log and pow change their last bits with the
instruction set, and the same descriptors must give the same bytes everywhere. Times are seconds, rates per second.

The formulas, for a batch of b items (each is a term of :class:`~hercules_fast.serving.terms.Terms`):

* *overhead* of n independent operators on o cores: ``max(t_op, n t_op / o)``; operators of a chain add up.
* *gather* of R bytes per item by one of n gathering threads of o cores:
  ``b R / min(o b_core, B / n)``, with B the random-read bandwidth of the memory.
* *GEMM* of F operations per item: ``b F / (peak eff speedup(p))`` with
  ``eff = max(0.15, wide w / (w + 64)) b / (b + 8)`` and ``speedup(p) = p / (1 + 0.05 (p - 1))``,
  at least ``weight bytes / (p llc_core)``; c independent copies spread over the o cores.
* *pollution*: dense time times ``1 + chi (gathering cores / cores)``.
* *near-memory gather*: see :func:`near_memory_item_s`.
* *GPU* with n busy instances: ``n_ops t_op + b max(w + l, n w, n l)`` with ``w = max(F / (eff peak), R / (eff HBM))``
  and ``l = input / link``. Instances share the card and the link, and one's transfer overlaps another's work: the
  asymptotic bound of n customers that visit two servers in turn. One instance alone does not overlap its own transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.hardware import Cpu, Gpu, Memory, Server
from hercules_fast.models import Model, Operator, TableGroup
from hercules_fast.serving.terms import ASSUMPTIONS, SWITCHES, Terms
from hercules_fast.tables import ServiceTable, TableGroupSpec, TableStage, TableVariant
from hercules_fast.traffic import Workload

__all__ = ["Fit", "fits", "near_memory_item_s", "service_table"]

Array = npt.NDArray[np.float64]

CPU_ITEMS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Grid of batch sizes of the CPU stages; service times are close to affine between the points."""
FUSED_ITEMS = (1536, 2048, 3072, 4096, 6144, 8192)
"""Further points for the accelerator, which may fuse several queries."""
PIPELINE_CORES = tuple((sparse, dense) for sparse in (1, 2) for dense in (1, 2, 4))
"""Operator cores (sparse, dense) of the sparse-dense pipelines that are offered."""
SHARE_ROUNDS = 200
"""Most rounds of the fixed point for the number of gathering threads; about 20 are needed."""
SHARE_SETTLED = 1e-10
"""Largest last step, in threads, of a fixed point that has settled."""

GIGA = 1e9
MICRO = 1e-6
NANO = 1e-9
KINDS = ("cpu", "cpu-sd", "gpu", "gpu-host-pooling")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """Whether a model fits a server's memories. ``gpu_instances`` is how many copies fit the accelerator."""

    host_bytes: float
    host_limit_bytes: float
    gpu_bytes: float
    gpu_dense_bytes: float
    gpu_limit_bytes: float
    gpu_instances: int
    gpu_dense_instances: int

    @property
    def on_host(self) -> bool:
        """The whole model fits the host's memory."""
        return self.host_bytes <= self.host_limit_bytes

    @property
    def anywhere(self) -> bool:
        """Some way to run the model fits."""
        return self.on_host or self.gpu_instances > 0

    def reason(self) -> str:
        """Why the model does not fit, in words."""
        text = (
            f"does not fit: needs {self.host_bytes / GIGA:.1f} GB of host memory, "
            f"{self.host_limit_bytes / GIGA:.1f} GB may be used"
        )
        if self.gpu_limit_bytes:
            text += (
                f"; needs {self.gpu_bytes / GIGA:.1f} GB of accelerator memory, "
                f"{self.gpu_limit_bytes / GIGA:.1f} GB may be used"
            )
        return text


def fits(server: Server, model: Model) -> Fit:
    """Memory needs of ``model`` against what ``server`` offers less its reserves.

    CPU threads share one copy of the tables. Each accelerator instance holds its own copy (tables and dense weights).
    """
    dense = sum(op.copies * op.weight_bytes for op in model.operators())
    whole = model.embedding_bytes + dense
    gpu = server.gpu
    limit = gpu.memory_gb * GIGA * (1 - gpu.memory_reserve) if gpu else 0.0
    return Fit(
        host_bytes=whole,
        host_limit_bytes=server.memory.capacity_gb * GIGA * (1 - server.memory_reserve),
        gpu_bytes=whole,
        gpu_dense_bytes=dense,
        gpu_limit_bytes=limit,
        gpu_instances=min(gpu.max_instances, int(limit // whole)) if gpu else 0,
        gpu_dense_instances=min(gpu.max_instances, int(limit // max(1.0, dense))) if gpu else 0,
    )


def service_table(server: Server, workload: Workload, terms: Terms = Terms()) -> ServiceTable:
    """Service times of ``workload`` on ``server`` for every way to lay it out that fits.

    Stages: ``model`` (whole model on CPU), ``sparse`` then ``dense`` (pipeline), ``gpu``. Variants: whole model with
    o operator cores; pipelines; the whole model on the GPU; sparse part on the host and dense part on the GPU.

    Raises:
        InputError: the model fits neither the host nor the accelerator (with the sizes).
    """
    model = workload.model
    fit = fits(server, model)
    if not fit.anywhere:
        raise InputError(f"{workload.name} on {server.name}: {fit.reason()}")
    parts = _Parts(server, model, terms)
    cpu = server.cpu
    items = np.array(CPU_ITEMS + (FUSED_ITEMS if server.gpu else ()), dtype=np.int64)
    busy = np.arange(1, cpu.cores + 1, dtype=np.int64)
    blocks: list[tuple[TableVariant, list[Array | None], list[Array | None]]] = []
    host = {"host": fit.host_bytes}
    b, n = items.astype(np.float64), busy.astype(np.float64)

    if fit.on_host:
        for cores in range(1, cpu.cores + 1):
            whole = parts.whole_model(b, n, cores)
            blocks.append((_variant("cpu", (cores, 0, 0, 0), host), [whole, None, None, None], [parts.gather_j(b)]))
        for sparse_cores, dense_cores in PIPELINE_CORES:
            if sparse_cores + dense_cores > cpu.cores:
                continue
            seconds = [None, parts.sparse(b, n, sparse_cores), parts.dense(b, n, sparse_cores, dense_cores), None]
            blocks.append(
                (_variant("cpu-sd", (0, sparse_cores, dense_cores, 0), host), seconds, [None, parts.gather_j(b)])
            )
    if server.gpu and fit.gpu_instances:
        seconds = [None, None, None, parts.gpu(server.gpu, b, n, pooled=False)]
        memory = {"gpu": fit.gpu_bytes}
        blocks.append((_variant("gpu", (0, 0, 0, 0), memory, fit.gpu_instances), seconds, []))
    if server.gpu and fit.on_host and fit.gpu_dense_instances:
        for sparse_cores in (1, 2):
            seconds = [None, parts.sparse(b, n, sparse_cores), None, parts.gpu(server.gpu, b, n, pooled=True)]
            memory = host | {"gpu": fit.gpu_dense_bytes}
            variant = _variant("gpu-host-pooling", (0, sparse_cores, 0, 0), memory, fit.gpu_dense_instances)
            blocks.append((variant, seconds, [None, parts.gather_j(b)]))

    return _assemble(server, workload, terms, items, busy, blocks)


def _variant(kind: str, cores: tuple[int, ...], memory: dict[str, float], instances: int = 0) -> TableVariant:
    used = "-".join(str(c) for c in cores if c)
    return TableVariant(
        name=f"{kind}-o{used}" if used else kind,
        kind=kind,
        operator_cores=cores,
        max_instances=instances,
        memory_bytes=memory,
        pool_on_host=kind == "gpu-host-pooling",
    )


def _assemble(
    server: Server,
    workload: Workload,
    terms: Terms,
    items: npt.NDArray[np.int64],
    busy: npt.NDArray[np.int64],
    blocks: list[tuple[TableVariant, list[Array | None], list[Array | None]]],
) -> ServiceTable:
    """Put the computed blocks into one table; what a variant does not use is NaN seconds and no energy."""
    stages: tuple[TableStage, ...] = (
        TableStage(name="model", group="cpu", unit="sub_batch", busy_of="model"),
        TableStage(name="sparse", group="cpu", unit="sub_batch", busy_of="sparse"),
        TableStage(name="dense", group="cpu", unit="sub_batch", busy_of="sparse", after=("sparse",)),
        TableStage(name="gpu", group="gpu", unit="fused", busy_of="gpu", after=("sparse",)),
    )
    gpu = server.gpu
    groups = [TableGroupSpec(name="cpu", component="cpu", capacity=server.cpu.cores, interference="at_start")]
    if gpu:
        groups.append(TableGroupSpec(name="gpu", component="gpu", capacity=gpu.max_instances, interference="at_start"))
    else:
        stages = stages[:3]
    components: dict[str, Cpu | Memory | Gpu] = {"cpu": server.cpu, "memory": server.memory}
    if gpu:
        components["gpu"] = gpu
    seconds = np.full((len(blocks), len(stages), items.size, busy.size), np.nan)
    energy = np.zeros((len(blocks), len(stages), items.size))
    variants = []
    for v, (variant, stage_seconds, stage_energy) in enumerate(blocks):
        variants.append(
            TableVariant(
                name=variant.name,
                kind=variant.kind,
                operator_cores=variant.operator_cores[: len(stages)],
                max_instances=variant.max_instances,
                memory_bytes=variant.memory_bytes,
                pool_on_host=variant.pool_on_host,
            )
        )
        for s, block in enumerate(stage_seconds):
            if block is not None:
                seconds[v, s] = block
        for s, joules in enumerate(stage_energy):
            if joules is not None:
                energy[v, s] = joules
    notes = [f"{name}: {ASSUMPTIONS[name]}" for name in SWITCHES if getattr(terms, name)]
    notes += [f"{name}: switched off" for name in SWITCHES if not getattr(terms, name)]
    if server.memory.kind == "nmp":
        notes.append("near-memory rank rates are simulated with 640-lookup packets, without rank cache")
    return ServiceTable(
        server=server.name,
        workload=workload.name,
        origin="modelled",
        assumptions=tuple(notes),
        items=items,
        busy=busy,
        variants=tuple(variants),
        stages=stages,
        groups=tuple(groups),
        seconds=seconds,
        energy_j=energy,
        noise_cv=np.zeros(len(stages)),
        idle_w={name: c.tdp_w * c.idle_fraction for name, c in components.items()},
        tdp_w={name: c.tdp_w for name, c in components.items()},
        base_w=server.base_w,
    )


class _Parts:
    """The terms of the model for one (server, model), over batches ``b`` [I] and busy threads ``n`` [B]."""

    def __init__(self, server: Server, model: Model, terms: Terms):
        self.cpu: Cpu = server.cpu
        self.memory: Memory = server.memory
        self.model = model
        self.terms = terms
        operators = model.operators()
        self.sls = [op for op in operators if op.kind == "sls"]
        self.chain = [op for op in operators if op.kind != "sls"]
        self.gather_bytes = float(model.embedding_read_bytes_per_item)
        self.lookups = float(model.lookups_per_item)
        self.bandwidth = self.memory.peak_gb_s * GIGA * self.memory.gather_efficiency
        self.nmp_item_s = (
            near_memory_item_s(self.memory, model.tables) if self.memory.kind == "nmp" and terms.near_memory else None
        )

    # -- sparse part -------------------------------------------------------------------------------------------

    def _overhead(self, operators: Sequence[Operator], cores: int) -> float:
        """Dispatch time of a chain of operators: each waits for the one before, its copies spread over the cores."""
        if not self.terms.operator_overhead:
            return 0.0
        spread = cores if self.terms.operator_parallelism else 1
        total = sum(op.steps * max(1.0, op.copies / spread) for op in operators)
        return total * self.cpu.operator_overhead_us * MICRO

    def _sls_overhead(self, cores: int) -> float:
        """SLS operators are independent of each other, whatever their shapes."""
        if not self.terms.operator_overhead:
            return 0.0
        spread = cores if self.terms.operator_parallelism else 1
        count = sum(op.dispatches for op in self.sls)
        return max(1.0, count / spread) * self.cpu.operator_overhead_us * MICRO

    def _gather(self, b: Array, gathering: Array, cores: int) -> Array:
        """Seconds to gather the rows of ``b`` items by one thread while ``gathering`` threads do so (broadcast)."""
        own = cores if self.terms.operator_parallelism else 1
        alone = own * self.cpu.gather_core_gb_s * GIGA
        shared = self.bandwidth / gathering if self.terms.memory_bandwidth else np.full_like(gathering, np.inf)
        host: Array = b * self.gather_bytes / np.minimum(alone, shared)
        if self.nmp_item_s is None:
            return host
        issue = self.lookups * self.memory.nmp_issue_ns * NANO / own
        near = b * (gathering * self.nmp_item_s + issue)
        return np.minimum(near, host)  # ranks with processing units still serve plain reads

    def sparse(self, b: Array, n: Array, cores: int) -> Array:
        """Sparse stage, [I, B]: dispatch and gather while n threads of the stage are busy."""
        return self._sls_overhead(cores) + self._gather(b[:, None], n[None, :], cores)

    def gather_j(self, b: Array) -> Array:
        """Dynamic energy of the memory, [I]: the time that it is fully used, at its dynamic power."""
        exclusive = self.gather_bytes / self.bandwidth
        if self.nmp_item_s is not None:
            exclusive = min(exclusive, self.nmp_item_s)
        return b * exclusive * self.memory.tdp_w * (1 - self.memory.idle_fraction)

    # -- dense part --------------------------------------------------------------------------------------------

    def _gemm_rate(self, op: Operator, b: Array) -> Array:
        """FLOP/s of one core on ``op``."""
        cpu, terms = self.cpu, self.terms
        clock = cpu.simd_frequency_ghz if terms.simd_clock else cpu.frequency_ghz
        efficiency = cpu.gemm_efficiency
        if terms.gemm_width:
            efficiency = max(terms.narrow_efficiency, efficiency * op.width / (op.width + terms.half_width))
        rate: Array = np.full_like(b, clock * GIGA * cpu.fp32_flop_per_cycle * efficiency)
        return rate * (b / (b + terms.half_batch)) if terms.gemm_batch else rate

    def _operator_s(self, op: Operator, b: Array, cores: int) -> Array:
        """Seconds of all copies and steps of ``op`` on ``cores`` cores, without its dispatch, [I]."""
        own = cores if self.terms.operator_parallelism else 1

        def one_copy(p: float) -> Array:
            flop_s = self._gemm_rate(op, b) * (p / (1 + self.terms.split_loss * (p - 1)))
            seconds: Array = b * op.flop_per_item / flop_s
            if self.terms.weight_streaming:
                seconds = np.maximum(seconds, op.weight_bytes / (p * self.cpu.llc_core_gb_s * GIGA))
            return seconds

        critical = op.steps * one_copy(max(1.0, own / op.copies))
        work = op.steps * op.copies * one_copy(1.0) / own
        return np.maximum(critical, work) if op.copies > 1 else critical

    def dense_alone(self, b: Array, cores: int) -> Array:
        """Dense chain without other threads, [I]."""
        total = np.full_like(b, self._overhead(self.chain, cores))
        for op in self.chain:
            total = total + self._operator_s(op, b, cores)
        return total

    def _slowdown(self, gathering_cores: Array) -> Array:
        chi = self.terms.pollution_chi if self.terms.pollution else 0.0
        return 1 + chi * np.minimum(1.0, gathering_cores / self.cpu.cores)

    def dense(self, b: Array, n: Array, sparse_cores: int, dense_cores: int) -> Array:
        """Dense stage of a pipeline, [I, B]: slowed by n busy sparse threads."""
        return self.dense_alone(b, dense_cores)[:, None] * self._slowdown(n * sparse_cores)[None, :]

    # -- whole model -------------------------------------------------------------------------------------------

    def whole_model(self, b: Array, n: Array, cores: int) -> Array:
        """Whole model in one thread, [I, B], while n threads run it.

        The others are somewhere in their service, so the number that gather at one time is taken as its mean:
        ``g = 1 + (n - 1) s`` with s the sparse share of the service time, which depends on g. The fixed point is
        found by iteration from no others (tested against bisection).
        """
        batch, threads = b[:, None], n[None, :]
        overhead = self._sls_overhead(cores)
        alone = self.dense_alone(b, cores)[:, None]
        others = np.zeros((b.size, n.size))
        for _ in range(SHARE_ROUNDS):
            sparse = overhead + self._gather(batch, 1 + others, cores)
            dense = alone * self._slowdown(others * cores)
            before, others = others, (threads - 1) * (sparse / (sparse + dense))
            if np.abs(others - before).max() <= SHARE_SETTLED:
                break
        total: Array = sparse + dense
        return total

    # -- accelerator -------------------------------------------------------------------------------------------

    def gpu(self, gpu: Gpu, b: Array, n: Array, *, pooled: bool) -> Array:
        """Accelerator stage, [I, B], with n busy instances; ``pooled``: the host sends pooled vectors."""
        terms = self.terms
        operators = self.chain if pooled else self.sls + self.chain
        launches = sum(op.dispatches for op in operators) if terms.operator_overhead else 0
        flop = sum(op.dispatches * op.flop_per_item for op in operators)
        gathered = 0.0 if pooled else self.gather_bytes
        compute = flop / (gpu.compute_efficiency * gpu.fp32_tflop_s * 1e12)
        memory = gathered / (gpu.gather_efficiency * gpu.memory_gb_s * GIGA)
        arrived = self.model.pooled_bytes_per_item if pooled else self.model.input_bytes_per_item
        link = arrived / (gpu.link_gb_s * GIGA) if terms.gpu_input else 0.0
        work = max(compute, memory)
        sharers = n if terms.gpu_sharing else np.ones_like(n)
        per_item = np.maximum(work + link, sharers * max(work, link))
        return launches * gpu.operator_overhead_us * MICRO + b[:, None] * per_item[None, :]


def near_memory_item_s(memory: Memory, tables: Sequence[TableGroup]) -> float:
    """Seconds that near-memory ranks need for one item's lookups when no other thread uses them.

    One table lives on one channel (the heaviest tables first, each on the channel with the least work so far); the
    busiest channel decides. Per bag of P lookups of V bytes (rows occupy whole 64-byte bursts) with D DIMMs on the
    channel, the longer of gathering in the ranks, ``P (V/64) c(V)`` cycles with the simulated rank rate c, and
    returning the DIMMs' partial sums over the channel, ``4 (V/64) D (1 - (1 - 1/D)^P)`` cycles.
    """
    bags: list[float] = []
    for group in tables:
        bursts = -(-group.row_bytes // 64)
        gather = group.pooling * bursts * _rank_cycles(memory, 64.0 * bursts)
        dimms = memory.dimms_per_channel
        missed = 1.0
        for _ in range(group.pooling):  # (1 - 1/D)^P by multiplication: the same bits everywhere
            missed *= 1 - 1 / dimms
        returned = 4.0 * bursts * dimms * (1 - missed)
        bags += [max(gather, returned)] * group.count
    channels = [0.0] * memory.channels
    for cycles in sorted(bags, reverse=True):
        channels[channels.index(min(channels))] += cycles
    return max(channels) * memory.cycle_ns * NANO


def _rank_cycles(memory: Memory, vector_bytes: float) -> float:
    """Cycles per 64 bytes at ``vector_bytes``: linear between the given row sizes, constant outside."""
    xs, ys = memory.nmp_vector_bytes, memory.nmp_cycles_per_64b
    if vector_bytes <= xs[0]:
        return ys[0]
    for x0, x1, y0, y1 in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if vector_bytes <= x1:
            return y0 + (y1 - y0) * (vector_bytes - x0) / (x1 - x0)
    return ys[-1]
