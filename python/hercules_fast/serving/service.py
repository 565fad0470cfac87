"""Service times: from descriptors to a ServiceTable, in vectorised NumPy.

Only ``+ - * / min max`` and comparisons are used: NumPy's exp, log and pow change their last bits with the
instruction set, and the same descriptors must give the same bytes everywhere. Times are seconds, rates per second.

The formulas, for a batch of b items (each is a term of :class:`~hercules_fast.serving.terms.Terms`):

* *overhead* of n independent operators on o cores: ``max(t_op, n t_op / o)``; operators of a chain add up.
* *gather* of R bytes per item by one of n gathering threads of o cores: ``b max(R / (o b_core), n h)``, with h the
  seconds that the memory needs for the rows of an item (:func:`~hercules_fast.serving.gather.host_gather`).
* *GEMM* of F operations per item: ``b F / (peak eff speedup(p))`` with
  ``eff = max(0.15, wide w / (w + 256)) b / (b + 8)`` and ``speedup(p) = p / (1 + 0.05 (p - 1))``,
  at least ``weight bytes / (p llc_core)``; c independent copies spread over the o cores.
* *activations*: an elementwise operator of width w reads and writes its values, ``b 8 w / (p llc_core)``.
* *pollution*: dense time times ``1 + chi (gathering cores / cores)``.
* *near-memory gather* of L lookups per item: a thread issues for ``b L t_issue / o``, then the channels gather for
  ``near(b)`` (:func:`~hercules_fast.serving.gather.near_gather`). In a pipeline they are a stage of their own, which
  takes one batch after another; a whole-model thread waits for its sums while n threads share the channels,
  ``n near(b)``. Rows that are gathered near memory do not pass the cores, so they pollute nothing.
* *GPU* with n busy instances: ``n_ops t_op + b max(w + l, n w, n l)`` with ``l = input / link`` and w the sum over the
  operators, which follow one another, of ``F / (eff peak max(0.15, width / (width + 256)))`` and of
  ``bytes / (eff HBM)``, rows and activations. Instances share the card and the link, and one's transfer overlaps
  another's work: the asymptotic bound of n customers that visit two servers in turn. One instance alone does not
  overlap its own transfer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.hardware import Cpu, Gpu, Memory, Server
from hercules_fast.models import Model, Operator
from hercules_fast.serving.gather import Gathering, host_gather, near_gather
from hercules_fast.serving.terms import ASSUMPTIONS, SWITCHES, Terms
from hercules_fast.tables import ServiceTable, TableGroupSpec, TableStage, TableVariant
from hercules_fast.traffic import Workload

__all__ = ["Fit", "fits", "lone_seconds", "service_table"]

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

READ_AND_WRITE = 8.0
"""Bytes that an elementwise operator moves for an fp32 value: it reads one and writes one."""

GIGA = 1e9
MICRO = 1e-6
NANO = 1e-9


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Use:
    """What one stage of a variant takes."""

    seconds: Array
    """[I, B], or [I, 1] where the number of busy threads does not matter."""
    cores: int = 0
    """Operator cores of a thread."""
    energy_j: Array | float = 0.0
    """[I], dynamic energy of the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """One way to run the model, and what its stages take."""

    kind: str
    uses: Mapping[str, _Use]
    memory_bytes: Mapping[str, float]
    max_instances: int = 0

    def variant(self, stages: Sequence[TableStage]) -> TableVariant:
        """The variant of a table with these stages."""
        cores = tuple(self.uses[stage.name].cores if stage.name in self.uses else 0 for stage in stages)
        used = "-".join(str(c) for c in cores if c)
        return TableVariant(
            name=f"{self.kind}-o{used}" if used else self.kind,
            kind=self.kind,
            operator_cores=cores,
            max_instances=self.max_instances,
            memory_bytes=dict(self.memory_bytes),
            pool_on_host=self.kind == "gpu-host-pooling",
        )


def service_table(server: Server, workload: Workload, terms: Terms = Terms()) -> ServiceTable:
    """Service times of ``workload`` on ``server`` for every way to lay it out that fits.

    Stages: ``model`` (whole model on CPU), ``sparse`` then ``dense`` (pipeline), ``gpu``; on a server with near-memory
    processing ``nmp`` after ``sparse``, where that is faster than reading the rows. Variants: whole model with o
    operator cores; pipelines; the whole model on the GPU; sparse part on the host and dense part on the GPU.

    Raises:
        InputError: the model fits neither the host nor the accelerator (with the sizes).
    """
    model = workload.model
    fit = fits(server, model)
    if not fit.anywhere:
        raise InputError(f"{workload.name} on {server.name}: {fit.reason()}")
    cpu, gpu = server.cpu, server.gpu
    items = np.array(CPU_ITEMS + (FUSED_ITEMS if gpu else ()), dtype=np.int64)
    busy = np.arange(1, cpu.cores + 1, dtype=np.int64)
    b, n = items.astype(np.float64), busy.astype(np.float64)
    parts = _Parts(server, model, terms, b)
    layouts: list[_Layout] = []
    host = {"host": fit.host_bytes}

    if fit.on_host:
        for cores in range(1, cpu.cores + 1):
            uses = {"model": _Use(seconds=parts.whole_model(n, cores), cores=cores, energy_j=parts.gather_j)}
            layouts.append(_Layout(kind="cpu", uses=uses, memory_bytes=host))
        for sparse_cores, dense_cores in PIPELINE_CORES:
            if sparse_cores + dense_cores > cpu.cores:
                continue
            dense = _Use(seconds=parts.dense(n, sparse_cores, dense_cores), cores=dense_cores)
            uses = {**parts.sparse(n, sparse_cores), "dense": dense}
            layouts.append(_Layout(kind="cpu-sd", uses=uses, memory_bytes=host))
    if gpu and fit.gpu_instances:
        uses = {"gpu": _Use(seconds=parts.gpu(gpu, n, pooled=False))}
        memory = {"gpu": fit.gpu_bytes}
        layouts.append(_Layout(kind="gpu", uses=uses, memory_bytes=memory, max_instances=fit.gpu_instances))
    if gpu and fit.on_host and fit.gpu_dense_instances:
        for sparse_cores in (1, 2):
            uses = {**parts.sparse(n, sparse_cores), "gpu": _Use(seconds=parts.gpu(gpu, n, pooled=True))}
            memory = host | {"gpu": fit.gpu_dense_bytes}
            instances = fit.gpu_dense_instances
            layouts.append(_Layout(kind="gpu-host-pooling", uses=uses, memory_bytes=memory, max_instances=instances))
    return _assemble(server, workload, terms, items, busy, layouts)


def lone_seconds(
    server: Server, model: Model, items: Sequence[float] | npt.NDArray[Any], terms: Terms = Terms()
) -> Array:
    """Seconds of ``model`` for batches of ``items`` [I] items with nothing beside it, float64 [I].

    The whole model by one thread of one core; on a server with an accelerator, by one instance there. These are the
    entries of :func:`service_table` for one operator core and one busy thread, at any batch.
    """
    b = np.asarray(items, dtype=np.float64)
    parts = _Parts(server, model, terms, b)
    alone = np.ones(1)
    seconds = parts.gpu(server.gpu, alone, pooled=False) if server.gpu else parts.whole_model(alone, 1)
    return np.ascontiguousarray(seconds[:, 0])


def _assemble(
    server: Server,
    workload: Workload,
    terms: Terms,
    items: npt.NDArray[np.int64],
    busy: npt.NDArray[np.int64],
    layouts: Sequence[_Layout],
) -> ServiceTable:
    """Put the layouts into one table; what a variant does not use is NaN seconds and no energy."""
    cpu, memory, gpu = server.cpu, server.memory, server.gpu
    stages = [
        TableStage(name="model", group="cpu", unit="sub_batch", busy_of="model"),
        TableStage(name="sparse", group="cpu", unit="sub_batch", busy_of="sparse"),
    ]
    groups = [TableGroupSpec(name="cpu", component="cpu", capacity=cpu.cores, interference="at_start")]
    components: dict[str, Cpu | Memory | Gpu] = {"cpu": cpu, "memory": memory}
    pooled: tuple[str, ...] = ("sparse",)
    if memory.kind == "nmp":
        # All channels together take one batch after another: its tables lie on all of them.
        stages.append(TableStage(name="nmp", group="nmp", unit="sub_batch", busy_of="nmp", after=pooled))
        groups.append(TableGroupSpec(name="nmp", component="memory", capacity=1, interference="none"))
        pooled = ("sparse", "nmp")
    stages.append(TableStage(name="dense", group="cpu", unit="sub_batch", busy_of="sparse", after=pooled))
    if gpu:
        stages.append(TableStage(name="gpu", group="gpu", unit="fused", busy_of="gpu", after=pooled))
        groups.append(TableGroupSpec(name="gpu", component="gpu", capacity=gpu.max_instances, interference="at_start"))
        components["gpu"] = gpu
    seconds = np.full((len(layouts), len(stages), items.size, busy.size), np.nan)
    energy = np.zeros((len(layouts), len(stages), items.size))
    for v, layout in enumerate(layouts):
        for s, stage in enumerate(stages):
            if stage.name in layout.uses:
                seconds[v, s] = layout.uses[stage.name].seconds
                energy[v, s] = layout.uses[stage.name].energy_j
    notes = [f"{name}: {ASSUMPTIONS[name]}" for name in SWITCHES if getattr(terms, name)]
    notes += [f"{name}: switched off" for name in SWITCHES if not getattr(terms, name)]
    return ServiceTable(
        server=server.name,
        workload=workload.name,
        origin="modelled",
        assumptions=tuple(notes),
        items=items,
        busy=busy,
        variants=tuple(layout.variant(stages) for layout in layouts),
        stages=tuple(stages),
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

    def __init__(self, server: Server, model: Model, terms: Terms, b: Array):
        self.cpu: Cpu = server.cpu
        self.memory: Memory = server.memory
        self.model = model
        self.terms = terms
        self.b = b
        operators = model.operators()
        self.sls = [op for op in operators if op.kind == "sls"]
        self.chain = [op for op in operators if op.kind != "sls"]
        self.gather_bytes = float(model.embedding_read_bytes_per_item)
        self.issue_s = model.lookups_per_item * self.memory.nmp_issue_ns * NANO
        self.host = host_gather(self.memory, model.tables, b)
        self.near = self._near_memory() if self.memory.kind == "nmp" and terms.near_memory else None
        self.gather_j = (self.near or self.host).energy_j

    def _near_memory(self) -> Gathering | None:
        """Gathering near memory, where large batches are never slower so, however many cores gather.

        Hardest is the number of cores that just fills the host's bandwidth: there the host takes ``R / b_core`` for an
        item of each core, and near memory the same share of its channels' time, and the issue.
        """
        near = near_gather(self.memory, self.model.tables, self.b)
        alone = self.gather_bytes / (self.cpu.gather_core_gb_s * GIGA)
        share = near.seconds[-1] / self.host.seconds[-1]
        return near if share + self.issue_s / alone <= 1 else None

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

    def _gather(self, gathering: Array, cores: int) -> Array:
        """Seconds to gather the rows of a batch by one thread while ``gathering`` threads do so, [I, B]."""
        if self.near is not None:
            return gathering * self.near.seconds[:, None] + self._issue(cores)
        own = cores if self.terms.operator_parallelism else 1
        alone = (self.b * self.gather_bytes / (own * self.cpu.gather_core_gb_s * GIGA))[:, None]
        shared = gathering * self.host.seconds[:, None]
        return np.maximum(alone, shared) if self.terms.memory_bandwidth else np.broadcast_to(alone, shared.shape)

    def _issue(self, cores: int) -> Array:
        """Seconds of one thread to issue the lookups of a batch, [I, 1]."""
        own = cores if self.terms.operator_parallelism else 1
        return (self.b * self.issue_s / own)[:, None]

    def sparse(self, n: Array, cores: int) -> dict[str, _Use]:
        """The sparse stage while n of its threads are busy; near memory it only issues, and the channels gather."""
        overhead = self._sls_overhead(cores)
        if self.near is None:
            seconds = overhead + self._gather(n[None, :], cores)
            return {"sparse": _Use(seconds=seconds, cores=cores, energy_j=self.gather_j)}
        return {
            "sparse": _Use(seconds=overhead + self._issue(cores), cores=cores),
            "nmp": _Use(seconds=self.near.seconds[:, None], energy_j=self.gather_j),
        }

    # -- dense part --------------------------------------------------------------------------------------------

    def _gemm_rate(self, op: Operator) -> Array:
        """FLOP/s of one core on ``op``, [I]."""
        cpu, terms, b = self.cpu, self.terms, self.b
        clock = cpu.simd_frequency_ghz if terms.simd_clock else cpu.frequency_ghz
        efficiency = cpu.gemm_efficiency
        if terms.gemm_width:
            efficiency = max(terms.narrow_efficiency, efficiency * op.width / (op.width + terms.half_width))
        rate: Array = np.full_like(b, clock * GIGA * cpu.fp32_flop_per_cycle * efficiency)
        return rate * (b / (b + terms.half_batch)) if terms.gemm_batch else rate

    def _moved_bytes(self, op: Operator) -> float:
        """Bytes of activations that a copy of ``op`` reads and writes per item and step."""
        return READ_AND_WRITE * op.width if self.terms.activations and op.kind == "elementwise" else 0.0

    def _operator_s(self, op: Operator, cores: int) -> Array:
        """Seconds of all copies and steps of ``op`` on ``cores`` cores, without its dispatch, [I]."""
        own = cores if self.terms.operator_parallelism else 1

        def one_copy(p: float) -> Array:
            flop_s = self._gemm_rate(op) * (p / (1 + self.terms.split_loss * (p - 1)))
            seconds: Array = self.b * op.flop_per_item / flop_s
            streamed = self.b * self._moved_bytes(op)
            if self.terms.weight_streaming:
                streamed = streamed + op.weight_bytes
            return np.maximum(seconds, streamed / (p * self.cpu.llc_core_gb_s * GIGA))

        critical = op.steps * one_copy(max(1.0, own / op.copies))
        work = op.steps * op.copies * one_copy(1.0) / own
        return np.maximum(critical, work) if op.copies > 1 else critical

    def dense_alone(self, cores: int) -> Array:
        """Dense chain without other threads, [I]."""
        total = np.full_like(self.b, self._overhead(self.chain, cores))
        for op in self.chain:
            total = total + self._operator_s(op, cores)
        return total

    def _slowdown(self, gathering_cores: Array) -> Array:
        chi = self.terms.pollution_chi if self.terms.pollution and self.near is None else 0.0
        return 1 + chi * np.minimum(1.0, gathering_cores / self.cpu.cores)

    def dense(self, n: Array, sparse_cores: int, dense_cores: int) -> Array:
        """Dense stage of a pipeline, [I, B]: slowed by n busy sparse threads."""
        return self.dense_alone(dense_cores)[:, None] * self._slowdown(n * sparse_cores)[None, :]

    # -- whole model -------------------------------------------------------------------------------------------

    def whole_model(self, n: Array, cores: int) -> Array:
        """Whole model in one thread, [I, B], while n threads run it.

        The others are somewhere in their service, so the number that gather at one time is taken as its mean:
        ``g = 1 + (n - 1) s`` with s the sparse share of the service time, which depends on g. The fixed point is
        found by iteration from no others (tested against bisection).
        """
        threads = n[None, :]
        overhead = self._sls_overhead(cores)
        alone = self.dense_alone(cores)[:, None]
        others = np.zeros((self.b.size, n.size))
        for _ in range(SHARE_ROUNDS):
            sparse = overhead + self._gather(1 + others, cores)
            dense = alone * self._slowdown(others * cores)
            before, others = others, (threads - 1) * (sparse / (sparse + dense))
            if np.abs(others - before).max() <= SHARE_SETTLED:
                break
        total: Array = sparse + dense
        return total

    # -- accelerator -------------------------------------------------------------------------------------------

    def _gpu_width(self, op: Operator) -> float:
        """Share of its efficiency that the card reaches on a layer of this width."""
        if not self.terms.gemm_width or op.kind != "gemm":
            return 1.0
        return max(self.terms.narrow_efficiency, op.width / (op.width + self.terms.half_width))

    def gpu(self, gpu: Gpu, n: Array, *, pooled: bool) -> Array:
        """Accelerator stage, [I, B], with n busy instances; ``pooled``: the host sends pooled vectors."""
        terms = self.terms
        operators = self.chain if pooled else self.sls + self.chain
        launches = sum(op.dispatches for op in operators) if terms.operator_overhead else 0
        flop = sum(op.dispatches * op.flop_per_item / self._gpu_width(op) for op in operators)
        moved = sum(op.dispatches * self._moved_bytes(op) for op in operators)
        moved += 0.0 if pooled else self.gather_bytes
        compute = flop / (gpu.compute_efficiency * gpu.fp32_tflop_s * 1e12)
        memory = moved / (gpu.gather_efficiency * gpu.memory_gb_s * GIGA)
        arrived = self.model.pooled_bytes_per_item if pooled else self.model.input_bytes_per_item
        link = arrived / (gpu.link_gb_s * GIGA) if terms.gpu_input else 0.0
        work = compute + memory
        sharers = n if terms.gpu_sharing else np.ones_like(n)
        per_item = np.maximum(work + link, sharers * max(work, link))
        return launches * gpu.operator_overhead_us * MICRO + self.b[:, None] * per_item[None, :]
