"""The configuration space of a service table: a lattice of candidates, its coordinates and where a search starts.

One row per candidate, as integers: ``variant, batch, fuse_items, max_wait_us, threads...``. Coordinates place it on a
lattice: column 0 is the kind (a search never steps from one kind to another), the rest depends on the kind:

* ``cpu``: operator cores, model threads, batch;
* ``cpu-sd``: sparse operator cores, dense operator cores, sparse threads, batch (dense threads take all cores left);
* ``gpu``: instances, fused items;
* ``gpu-host-pooling``: sparse operator cores, sparse threads, batch, instances, fused items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.tables import SchedulingConfig, ServiceTable

__all__ = ["BATCHES", "FUSE_ITEMS", "Space", "space"]

BATCHES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Most items of a sub-batch: powers of two and the points half-way."""
FUSE_ITEMS = (1, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Most items of one accelerator launch; 1 = queries are not fused."""
POOLING_BATCHES = (64, 128, 256, 512)
COORDINATES = 6


@dataclass(frozen=True, slots=True)
class Space:
    """``candidates`` int64 [N, 4 + S], ``coords`` int64 [N, 6], ``starts`` int64 [K] rows to start a search from."""

    candidates: npt.NDArray[np.int64]
    coords: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    def config(self, table: ServiceTable, index: int) -> SchedulingConfig:
        """Candidate ``index`` as a configuration of ``table``."""
        variant, batch, fuse, wait, *threads = (int(x) for x in self.candidates[index])
        return table.config(variant, tuple(threads), batch=batch, fuse_items=fuse, max_wait_us=wait)


class _Lattice:
    def __init__(self, table: ServiceTable):
        self.table = table
        self.rows: list[list[int]] = []
        self.coords: list[list[int]] = []
        self.index: dict[tuple[int, ...], int] = {}
        self.starts: list[int] = []

    def add(self, kind: int, place: tuple[int, ...], variant: int, batch: int, fuse: int, threads: list[int]) -> None:
        self.index[(kind, *place)] = len(self.rows)
        self.rows.append([variant, batch, fuse, 0, *threads])
        self.coords.append([kind, *place] + [0] * (COORDINATES - 1 - len(place)))

    def start(self, kind: int, *place: int) -> None:
        """Start from a place if it exists in this lattice."""
        found = self.index.get((kind, *place))
        if found is not None and found not in self.starts:
            self.starts.append(found)


def space(table: ServiceTable) -> Space:
    """All candidates of ``table``, at most about 2,000.

    Raises:
        InputError: no variant of the table leads to a candidate.
    """
    lattice = _Lattice(table)
    builders = {"cpu": _cpu, "cpu-sd": _pipeline, "gpu": _gpu, "gpu-host-pooling": _pooling}
    for kind, (name, build) in enumerate(builders.items()):
        variants = [v for v, variant in enumerate(table.variants) if variant.kind == name]
        if variants:
            build(lattice, kind, variants)
    if not lattice.rows:
        kinds = sorted({v.kind for v in table.variants})
        raise InputError(f"variants: kinds are {kinds}; allowed are {list(builders)}")
    return Space(
        np.array(lattice.rows, dtype=np.int64),
        np.array(lattice.coords, dtype=np.int64),
        np.array(lattice.starts, dtype=np.int64),
    )


def _batches(table: ServiceTable, grid: tuple[int, ...]) -> list[int]:
    return [b for b in grid if b <= table.max_items] or [table.max_items]


def _threads(table: ServiceTable, variant: int, **by_stage: int) -> list[int]:
    """Threads of each stage; near-memory channels that the variant uses are one station."""
    near = {s.name: 1 for k, s in enumerate(table.stages) if s.name == "nmp" and table.uses(variant, k)}
    return [(near | by_stage).get(stage.name, 0) for stage in table.stages]


def _cores(table: ServiceTable) -> int:
    return next(g.capacity for g in table.groups if g.name == "cpu")


def _middle(values: list[int]) -> int:
    return values[len(values) // 2]


def _cpu(lattice: _Lattice, kind: int, variants: list[int]) -> None:
    table = lattice.table
    cores, batches = _cores(table), _batches(table, BATCHES)
    stage = table.stage_index("model")
    widths = []
    for v in variants:
        o = table.variants[v].operator_cores[stage]
        widths.append(o)
        for m in range(1, cores // o + 1):
            for d in batches:
                lattice.add(kind, (o, m, d), v, d, 1, _threads(table, v, model=m))
    narrow, wide = min(widths), max(widths)
    half = _middle(sorted(widths))
    lattice.start(kind, narrow, cores // narrow, _middle(batches))
    lattice.start(kind, wide, cores // wide, batches[-1])
    lattice.start(kind, half, cores // half, _middle(batches))


def _pipeline(lattice: _Lattice, kind: int, variants: list[int]) -> None:
    table = lattice.table
    cores, batches = _cores(table), _batches(table, BATCHES)
    sparse, dense = table.stage_index("sparse"), table.stage_index("dense")
    for v in variants:
        sparse_cores, dense_cores = (table.variants[v].operator_cores[s] for s in (sparse, dense))
        splits = []
        for m_sparse in range(1, cores // sparse_cores + 1):
            m_dense = (cores - m_sparse * sparse_cores) // dense_cores
            if m_dense < 1:
                break
            splits.append(m_sparse)
            for d in batches:
                threads = _threads(table, v, sparse=m_sparse, dense=m_dense)
                lattice.add(kind, (sparse_cores, dense_cores, m_sparse, d), v, d, 1, threads)
        if sparse_cores == 1 and dense_cores in (1, 4) and splits:
            lattice.start(kind, sparse_cores, dense_cores, _middle(splits), _middle(batches))


def _gpu(lattice: _Lattice, kind: int, variants: list[int]) -> None:
    table = lattice.table
    for v in variants:
        fuse = _batches(table, FUSE_ITEMS)
        for k in range(1, table.variants[v].max_instances + 1):
            for f in fuse:
                lattice.add(kind, (k, f), v, table.max_items, f, _threads(table, v, gpu=k))
        lattice.start(kind, 1, _middle(fuse))
        lattice.start(kind, 1, fuse[-1])


def _pooling(lattice: _Lattice, kind: int, variants: list[int]) -> None:
    table = lattice.table
    cores, batches = _cores(table), _batches(table, POOLING_BATCHES)
    fuse = _batches(table, FUSE_ITEMS)[1::2]
    sparse = table.stage_index("sparse")
    for v in variants:
        o = table.variants[v].operator_cores[sparse]
        most = cores // o
        splits = sorted({max(1, most // 4), max(1, most // 2), max(1, 3 * most // 4), most})
        for m in splits:
            for d in batches:
                for k in range(1, min(2, table.variants[v].max_instances) + 1):
                    for f in fuse:
                        threads = _threads(table, v, sparse=m, gpu=k)
                        lattice.add(kind, (o, m, d, k, f), v, d, f, threads)
        lattice.start(kind, o, most, _middle(batches), 1, _middle(fuse))
