"""Service tables from descriptors: the ways to lay a model out on a server, and what its stages take in each.

The formulas of the stages stand in :mod:`hercules_fast.serving.stages`, the memories' limits in :func:`fits`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.hardware import Cpu, Gpu, Memory, Server
from hercules_fast.models import Model
from hercules_fast.serving.stages import Stages, Use
from hercules_fast.serving.terms import ASSUMPTIONS, SWITCHES, Terms
from hercules_fast.tables import ServiceTable, TableGroupSpec, TableStage, TableVariant
from hercules_fast.traffic import HotRows, Popularity, Workload, hot_rows

__all__ = ["Fit", "fits", "lone_seconds", "service_table"]

Array = npt.NDArray[np.float64]

CPU_ITEMS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Grid of batch sizes of the CPU stages; service times are close to affine between the points."""
FUSED_ITEMS = (1536, 2048, 3072, 4096, 6144, 8192)
"""Further points for the accelerator, which may fuse several queries."""
PIPELINE_CORES = tuple((sparse, dense) for sparse in (1, 2) for dense in (1, 2, 4))
"""Operator cores (sparse, dense) of the sparse-dense pipelines that are offered."""
WHOLE_MODEL_THREADS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Threads whose widest operator cores are offered; steps beyond 6 of a half or a third."""
SPARSE_CORES = (1, 2)
"""Operator cores of the threads that gather for an accelerator."""
OFFLOAD_WIDTHS = 3
"""How many of the whole model's operator cores, the narrowest, are offered beside an accelerator."""
HOT_COPIES = (1, 2, 4)
"""Instances for whose hot rows the accelerator is divided."""
UNIFORM = Popularity(name="uniform", kind="uniform")
GIGA = 1e9


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
    gpu_hot_bytes: float
    """Rows that one instance holds at least, beside the dense weights, when as many as fit are kept."""

    @property
    def on_host(self) -> bool:
        """The whole model fits the host's memory."""
        return self.host_bytes <= self.host_limit_bytes

    @property
    def anywhere(self) -> bool:
        """Some way to run the model fits."""
        return self.on_host or self.gpu_instances > 0 or self.on_both

    @property
    def on_both(self) -> bool:
        """Hot rows and dense weights on the accelerator leave no more rows than the host's memory holds."""
        cold_bytes = self.host_bytes - self.gpu_dense_bytes - self.gpu_hot_bytes
        return self.gpu_hot_bytes > 0 and cold_bytes <= self.host_limit_bytes

    def reason(self) -> str:
        """Why the model does not fit, in words."""
        text = (
            f"does not fit: needs {self.host_bytes / GIGA:.1f} GB of host memory, "
            f"{self.host_limit_bytes / GIGA:.1f} GB may be used"
        )
        if self.gpu_limit_bytes:
            text += (
                f"; needs {self.gpu_bytes / GIGA:.1f} GB of accelerator memory, "
                f"{self.gpu_limit_bytes / GIGA:.1f} GB may be used; nor do both hold it together"
            )
        return text


def fits(server: Server, model: Model) -> Fit:
    """Memory needs of ``model`` against what ``server`` offers less its reserves.

    CPU threads share one copy of the tables. Each accelerator instance holds its own copy (tables or hot rows, and
    dense weights); the host need not hold rows that the accelerator does.
    """
    dense = sum(op.copies * op.weight_bytes for op in model.operators())
    whole = model.embedding_bytes + dense
    gpu = server.gpu
    limit = gpu.memory_gb * GIGA * (1 - gpu.memory_reserve) if gpu else 0.0
    row_of_each = max((group.count * group.row_bytes for group in model.tables), default=0)
    return Fit(
        host_bytes=whole,
        host_limit_bytes=server.memory.capacity_gb * GIGA * (1 - server.memory_reserve),
        gpu_bytes=whole,
        gpu_dense_bytes=dense,
        gpu_limit_bytes=limit,
        gpu_instances=min(gpu.max_instances, int(limit // whole)) if gpu else 0,
        gpu_dense_instances=min(gpu.max_instances, int(limit // max(1.0, dense))) if gpu else 0,
        gpu_hot_bytes=max(0.0, min(float(model.embedding_bytes), limit - dense - row_of_each)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """One way to run the model, and what its stages take."""

    kind: str
    uses: Mapping[str, Use]
    memory_bytes: Mapping[str, float]
    max_instances: int = 0
    hot_share: float = 0.0

    def variant(self, stages: Sequence[TableStage]) -> TableVariant:
        """The variant of a table with these stages."""
        cores = tuple(self.uses[stage.name].cores if stage.name in self.uses else 0 for stage in stages)
        used = "-".join(str(c) for c in cores if c)
        name = f"{self.kind}-o{used}" if used else self.kind
        return TableVariant(
            name=f"{name}-h{self.hot_share:.4f}" if self.kind == "gpu-hot-rows" else name,
            kind=self.kind,
            operator_cores=cores,
            max_instances=self.max_instances,
            memory_bytes=dict(self.memory_bytes),
            pool_on_host=self.kind in ("gpu-host-pooling", "gpu-hot-rows"),
            hot_share=self.hot_share,
        )


def service_table(server: Server, workload: Workload, terms: Terms = Terms()) -> ServiceTable:
    """Service times of ``workload`` on ``server`` for every way to lay it out that fits.

    Stages: ``model`` (whole model on CPU), ``sparse`` then ``dense`` (pipeline), ``gpu``; on a server with near-memory
    processing ``nmp`` after ``sparse``, where that is faster than reading the rows. Kinds of variants: ``cpu``, the
    whole model with o operator cores; ``cpu-sd``, pipelines; ``gpu``, the whole model on the accelerator;
    ``gpu-host-pooling``, sparse part on the host and dense part on the accelerator; ``gpu-hot-rows``, the most popular
    rows on the accelerator, the rest on the host; ``cpu-gpu-offload``, the whole model on both.

    Raises:
        InputError: no way to run the model fits the host and the accelerator (with the sizes).
    """
    model = workload.model
    fit = fits(server, model)
    if not fit.anywhere:
        raise InputError(f"{workload.name} on {server.name}: {fit.reason()}")
    items = np.array(CPU_ITEMS + (FUSED_ITEMS if server.gpu else ()), dtype=np.int64)
    busy = np.arange(1, server.cpu.cores + 1, dtype=np.int64)
    n = busy.astype(np.float64)
    stages = Stages(server, model, terms, items.astype(np.float64))
    layouts: list[_Layout] = []
    whole: dict[int, Use] = {}
    if fit.on_host:
        widths = operator_cores(server.cpu.cores)
        seconds = stages.whole_model(n, widths)
        whole = {o: Use(seconds=s, cores=o, energy_j=stages.gather_j) for o, s in zip(widths, seconds, strict=True)}
        layouts += _on_host(server, fit, stages, n, whole)
    if server.gpu:
        layouts += _on_gpu(server, server.gpu, workload, fit, stages, n, whole)
    return _assemble(server, workload, terms, items, busy, layouts)


def lone_seconds(
    server: Server, model: Model, items: Sequence[float] | npt.NDArray[Any], terms: Terms = Terms()
) -> Array:
    """Seconds of ``model`` for batches of ``items`` [I] items with nothing beside it, float64 [I].

    The whole model by one thread of one core; on a server with an accelerator, by one instance there. These are the
    entries of :func:`service_table` for one operator core and one busy thread, at any batch.
    """
    stages = Stages(server, model, terms, np.asarray(items, dtype=np.float64))
    alone = np.ones(1)
    if server.gpu:
        return np.ascontiguousarray(stages.gpu(server.gpu, alone, stages.all_hot)[:, 0])
    return np.ascontiguousarray(stages.whole_model(alone, [1])[0, :, 0])


def operator_cores(cores: int) -> tuple[int, ...]:
    """Operator cores of a whole-model thread that are offered on ``cores`` cores, ascending.

    For each of a few numbers of threads the widest that fits: a narrower one would leave cores idle.
    """
    return tuple(sorted({cores // threads for threads in WHOLE_MODEL_THREADS if threads <= cores} | {1}))


def _on_host(server: Server, fit: Fit, stages: Stages, n: Array, whole: Mapping[int, Use]) -> Iterator[_Layout]:
    host = {"host": fit.host_bytes}
    for use in whole.values():
        yield _Layout(kind="cpu", uses={"model": use}, memory_bytes=host)
    pipelines = [pair for pair in PIPELINE_CORES if sum(pair) <= server.cpu.cores]
    widths = sorted({dense for _, dense in pipelines})
    alone = dict(zip(widths, stages.dense_alone(np.array(widths, dtype=np.float64)).T, strict=True))
    sparse = {cores: stages.sparse(n, cores) for cores in {sparse for sparse, _ in pipelines}}
    for sparse_cores, dense_cores in pipelines:
        dense = Use(seconds=stages.dense(n, sparse_cores, alone[dense_cores]), cores=dense_cores)
        yield _Layout(kind="cpu-sd", uses={**sparse[sparse_cores], "dense": dense}, memory_bytes=host)


def _on_gpu(
    server: Server, gpu: Gpu, workload: Workload, fit: Fit, stages: Stages, n: Array, whole: Mapping[int, Use]
) -> Iterator[_Layout]:
    """Layouts with an accelerator. Each of its instances holds copies of its rows and of the dense weights."""
    widths = [cores for cores in SPARSE_CORES if cores <= server.cpu.cores]
    if fit.gpu_instances:
        on_card = Use(seconds=stages.gpu(gpu, n, stages.all_hot))
        card = {"gpu": fit.gpu_bytes}
        k = fit.gpu_instances
        yield _Layout(kind="gpu", uses={"gpu": on_card}, memory_bytes=card, max_instances=k, hot_share=1.0)
    if fit.on_host and fit.gpu_dense_instances:
        pooled = Use(seconds=stages.gpu(gpu, n, stages.nothing_hot))
        memory = {"host": fit.host_bytes, "gpu": fit.gpu_dense_bytes}
        for cores in widths:
            uses = {**stages.sparse(n, cores), "gpu": pooled}
            yield _Layout(
                kind="gpu-host-pooling", uses=uses, memory_bytes=memory, max_instances=fit.gpu_dense_instances
            )
    law = workload.popularity if stages.terms.popularity else UNIFORM
    for hot in _partitions(law, workload.model, fit, gpu.max_instances):
        kept = hot.bytes + fit.gpu_dense_bytes
        memory = {"host": fit.host_bytes - kept, "gpu": kept}
        added = Use(seconds=stages.gpu(gpu, n, hot.shares))
        for cores in widths:
            yield _Layout(
                kind="gpu-hot-rows",
                uses={**stages.sparse(n, cores, hot.shares), "gpu": added},
                memory_bytes=memory,
                max_instances=min(gpu.max_instances, int(fit.gpu_limit_bytes // kept)),
                hot_share=hot.share,
            )
    if fit.gpu_instances and fit.on_host:
        memory = {"host": fit.host_bytes, "gpu": fit.gpu_bytes}
        for use in list(whole.values())[:OFFLOAD_WIDTHS]:
            yield _Layout(
                kind="cpu-gpu-offload",
                uses={"model": use, "gpu": on_card},
                memory_bytes=memory,
                max_instances=fit.gpu_instances,
                hot_share=1.0,
            )


def _partitions(law: Popularity, model: Model, fit: Fit, most: int) -> Iterator[HotRows]:
    """Rows that fit the accelerator beside the dense weights, for one instance, two, four, up to ``most``."""
    for copies in HOT_COPIES:
        room = fit.gpu_limit_bytes / copies - fit.gpu_dense_bytes
        if copies > most or room <= 0 or fit.gpu_bytes * copies <= fit.gpu_limit_bytes:
            continue
        hot = hot_rows(law, model.tables, room)
        on_host = fit.host_bytes - fit.gpu_dense_bytes - hot.bytes <= fit.host_limit_bytes
        if 0 < hot.share < 1 and on_host:
            yield hot


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
