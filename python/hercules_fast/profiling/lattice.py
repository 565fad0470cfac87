"""The configuration space of a service table: a lattice of candidates, its coordinates and where a search starts.

The tables :data:`KINDS` and :data:`PLAIN_KINDS` describe it: for each kind of variant its axes, and blocks of values
whose products are the candidates. What does not fit is left out before anything is simulated: threads times their cores
beyond the cores, instances beyond those that the accelerator's memory holds, batches beyond the table's grid. (Variants
exist only where the model fits the memories, see :func:`hercules_fast.serving.fits`.)

Axes that count threads hold shares, in 24ths, of the threads that the cores left allow: every number of threads up to
24 cores, and no more points on larger sockets. Each number appears once, however many shares lead to it. Why the values
are not finer: ``benches/bench_space.py`` compares them with a lattice several times as large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.tables import SchedulingConfig, ServiceTable

__all__ = [
    "ANY",
    "DEEPRECSYS_BATCHES",
    "DEEPRECSYS_THRESHOLDS",
    "KINDS",
    "PLAIN_KINDS",
    "UNBOUNDED",
    "Block",
    "Space",
    "space",
]

Block = Mapping[str, tuple[int, ...]]
"""Axis -> values. All blocks of a kind name its axes in one order."""

ANY: tuple[int, ...] = ()
"""For axes of a variant: whatever the variants of the table have."""
WHOLE = 24
"""Shares of threads are multiples of 1 / WHOLE."""
UNBOUNDED = 1_000_000
"""Coordinate of a pipeline whose buffer has no bound."""

FINE_BATCHES = (
    *(16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256),
    *(320, 384, 448, 512, 640, 768, 1024),
)
"""Most items of a sub-batch. With all cores at work the best one of 1.5 times the next would lose up to 3 %."""
BATCHES = (16, 32, 64, 96, 128, 192, 256, 384, 512, 1024)
EACH = tuple(range(1, WHOLE + 1))
QUARTERS = (6, 12, 18, 24)
INSTANCES = (1, 2, 3, 4, 6, 8)
THRESHOLDS = (32, 64, 96, 112, 120, 128, 136, 144, 152, 160, 176, 192, 224, 256, 320, 384, 512)
"""Items from which on queries go to the accelerator; close together where most queries are: each step moves load."""
DEEPRECSYS_BATCHES = (512, 384, 256, 192, 128, 96, 64, 48, 32)
DEEPRECSYS_THRESHOLDS = (96, 128, 192, 256, 384, 512)
"""Batches and offload thresholds in the order in which DeepRecSys tries them: GitHub harvard-acc/DeepRecSys, the
experiments' configurations."""

KINDS: Mapping[str, tuple[Block, ...]] = {
    "cpu": (
        {"operator_cores": ANY, "threads": (24,), "batch": FINE_BATCHES},
        {"operator_cores": ANY, "threads": (12, 18, 22), "batch": BATCHES},
    ),
    "cpu-sd": (
        {
            "sparse_cores": ANY,
            "dense_cores": (1,),
            "sparse_threads": EACH,
            "dense_share": (24,),
            "batch": BATCHES,
            "buffer": (UNBOUNDED,),
        },
        {
            "sparse_cores": ANY,
            "dense_cores": (2, 4),
            "sparse_threads": (3, 6, 9, 12, 15, 18, 21),
            "dense_share": (24,),
            "batch": (32, 64, 128, 256, 512),
            "buffer": (UNBOUNDED,),
        },
        {
            "sparse_cores": (1,),
            "dense_cores": (1, 2),
            "sparse_threads": QUARTERS,
            "dense_share": (24,),
            "batch": (64, 256),
            "buffer": (2, 8),
        },
        {
            "sparse_cores": (1,),
            "dense_cores": (1, 2),
            "sparse_threads": QUARTERS,
            "dense_share": (12,),
            "batch": (64, 256),
            "buffer": (2, 8, UNBOUNDED),
        },
    ),
    "gpu": (
        {"instances": INSTANCES, "fuse_items": (1,), "max_wait_us": (0,)},
        {
            "instances": INSTANCES,
            "fuse_items": (256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192),
            "max_wait_us": (0, 500, 1000, 2000, 5000),
        },
    ),
    "gpu-host-pooling": (
        {
            "sparse_cores": (1,),
            "sparse_threads": (3, 6, 12, 18, 24),
            "batch": (64, 192, 512),
            "instances": INSTANCES,
            "fuse_items": (512, 1024, 2048, 4096, 8192),
        },
        {
            "sparse_cores": (2,),
            "sparse_threads": (6, 12, 24),
            "batch": (64, 256),
            "instances": (1, 2, 4),
            "fuse_items": (2048, 8192),
        },
    ),
    "gpu-hot-rows": (
        {
            "hot_share_ppm": ANY,
            "sparse_cores": (1,),
            "sparse_threads": (3, 6, 12, 24),
            "batch": (64, 192, 1024),
            "instances": INSTANCES,
            "fuse_items": (256, 1536, 4096, 8192),
        },
        {
            "hot_share_ppm": ANY,
            "sparse_cores": (2,),
            "sparse_threads": (12, 24),
            "batch": (64, 256),
            "instances": (1, 2, 4),
            "fuse_items": (1536, 8192),
        },
    ),
    "cpu-gpu-offload": (
        {
            "operator_cores": (1,),
            "threads": (24,),
            "batch": (64, 256),
            "offload_items": THRESHOLDS,
            "instances": INSTANCES,
            "fuse_items": (4096, 6144, 8192),
        },
        {
            "operator_cores": (2,),
            "threads": (24,),
            "batch": (128, 512),
            "offload_items": (96, 128, 160, 256, 512),
            "instances": (1, 2, 4),
            "fuse_items": (8192,),
        },
        {
            "operator_cores": (1,),
            "threads": (24,),
            "batch": DEEPRECSYS_BATCHES,
            "offload_items": DEEPRECSYS_THRESHOLDS,
            "instances": (1,),
            "fuse_items": (1,),
        },
    ),
}
"""The committed lattice. A search never steps from one kind to another."""

PLAIN_KINDS: Mapping[str, tuple[Block, ...]] = {
    "cpu": ({"operator_cores": ANY, "threads": EACH, "batch": FINE_BATCHES},),
    "cpu-sd": ({**KINDS["cpu-sd"][0], "dense_cores": ANY}, *KINDS["cpu-sd"][2:]),
}
"""The committed lattice of a socket of up to ``WHOLE`` cores without accelerator: the points of the other kinds go to
fewer threads at every batch and to every split of wide pipelines."""

COORDINATES = 1 + max(len(block) for blocks in KINDS.values() for block in blocks)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Space:
    """Candidates of a service table, as data for the core.

    Attributes:
        candidates: int64 [N, 6 + S], rows of :attr:`hercules_fast.tables.SchedulingConfig.row`.
        coords: int64 [N, A], column 0 the position of the kind in ``kinds``, then the coordinates on its axes, then 0.
        starts: int64 [K] rows to start a search from; the first of each kind come first.
        kinds: names of the kinds.
        lines: rows in the order in which DeepRecSys tries them: ``lines[0]`` whole model, one core per thread on all
            cores, from large to small batches; ``lines[1 + k]`` with the batch of ``lines[0][k]``, queries from a
            threshold on go to the accelerator one by one, thresholds ascending (empty where that cannot be).
    """

    candidates: Ints
    coords: Ints
    starts: Ints
    kinds: tuple[str, ...]
    lines: tuple[tuple[int, ...], ...]

    def axes(self, kind: str) -> tuple[str, ...]:
        """Names of the axes of ``kind``: columns 1, 2, ... of ``coords``."""
        if kind not in KINDS:
            raise InputError(f"kind: is {kind!r}; allowed are {', '.join(map(repr, KINDS))}")
        return tuple(KINDS[kind][0])

    def place(self, index: int) -> dict[str, int]:
        """Coordinates of candidate ``index`` by the axes of its kind."""
        kind, *coords = self.coords[index].tolist()
        return dict(zip(self.axes(self.kinds[kind]), coords, strict=False))  # kinds with fewer axes end in zeros

    def config(self, table: ServiceTable, index: int) -> SchedulingConfig:
        """Candidate ``index`` as a configuration of ``table``."""
        variant, batch, fuse, wait, buffer, offload, *threads = (int(x) for x in self.candidates[index])
        return table.config(
            variant,
            tuple(threads),
            batch=batch,
            fuse_items=fuse,
            max_wait_us=wait,
            buffer=None if buffer < 0 else buffer,
            offload_items=offload,
        )


def space(table: ServiceTable, kinds: Mapping[str, tuple[Block, ...]] | None = None) -> Space:
    """All candidates of ``table``, about 2,000 at most.

    ``kinds``: other values than the committed ones, for comparisons; kinds and axes are those of :data:`KINDS`.

    Raises:
        InputError: no variant of the table leads to a candidate, two variants of a kind have the same coordinates, or
            one does not use a stage that its kind has.
    """
    products = _Products(table)
    if kinds is None:
        plain = products.cores <= WHOLE and not products.instances.any()
        kinds = {**KINDS, **PLAIN_KINDS} if plain else KINDS
    names = tuple(kinds)
    found = [
        (number, *products.of(block, variants))
        for number, (kind, blocks) in enumerate(kinds.items())
        if len(variants := products.variants(kind, tuple(blocks[0])))
        for block in blocks
    ]
    if not any(len(rows) for _, rows, _ in found):
        given = sorted({v.kind for v in table.variants})
        raise InputError(f"variants: kinds are {given}; allowed are {list(names)}, with threads that fit")
    for number, _, places in found:
        places[:, 0] = number
    candidates = np.concatenate([rows for _, rows, _ in found])
    coords = np.concatenate([places for _, _, places in found])
    return Space(candidates, coords, _starts(coords, names), names, _lines(table, coords, names))


# -- products of values ------------------------------------------------------------------------------------------------

STAGE_OF = {"threads": "model", "sparse_threads": "sparse", "dense_share": "dense", "instances": "gpu"}
"""Axes that count threads, and the stage whose they are."""
VARIANT_AXES = {"operator_cores": "model", "sparse_cores": "sparse", "dense_cores": "dense", "hot_share_ppm": ""}
"""Axes that choose a variant, and the stage whose cores they are."""
COLUMNS = {"batch": 0, "fuse_items": 1, "max_wait_us": 0, "buffer": UNBOUNDED, "offload_items": 0}
"""Columns of a candidate after its variant, and their values where a kind has no such axis (batch: the largest)."""


class _Products:
    """Products of values on one service table."""

    def __init__(self, table: ServiceTable):
        self.table = table
        self.cores = _cores(table)
        self.instances = np.array([variant.max_instances for variant in table.variants])
        self.stages = [stage.name for stage in table.stages]
        self.uses = ~np.isnan(table.seconds[:, :, 0, 0])

    def variants(self, kind: str, axes: Sequence[str]) -> Ints:
        """Variants of a kind, [V, 1 + axes of variants]: number, then coordinates."""
        needed = [STAGE_OF[axis] for axis in axes if axis in STAGE_OF]
        found: dict[tuple[int, ...], int] = {}
        for v, variant in enumerate(self.table.variants):
            if variant.kind != kind:
                continue
            missing = [s for s in needed if s not in self.stages or not self.uses[v, self.stages.index(s)]]
            if missing:
                raise InputError(f"variants[{v}]: {variant.name!r} of kind {kind!r} does not use stage {missing[0]!r}")
            place = tuple(
                max(1, variant.operator_cores[self.stages.index(VARIANT_AXES[axis])])
                if VARIANT_AXES[axis]
                else round(variant.hot_share * 1e6)
                for axis in axes
                if axis in VARIANT_AXES
            )
            if place in found:
                same = found[place]
                raise InputError(f"variants[{v}]: {variant.name!r} has the cores and hot share of variants[{same}]")
            found[place] = v
        return np.array([[v, *place] for place, v in found.items()], dtype=np.int64)

    def of(self, block: Block, variants: Ints) -> tuple[Ints, Ints]:
        """Candidates and coordinates of all values of a block that fit."""
        if "batch" in block and min(block["batch"]) > self.table.max_items:
            block = {**block, "batch": (self.table.max_items,)}  # a table of one's own may end early
        of_variant = [axis for axis in block if axis in VARIANT_AXES]
        for k, axis in enumerate(of_variant, start=1):
            if block[axis]:
                variants = variants[np.isin(variants[:, k], block[axis])]
        others = [axis for axis in block if axis not in VARIANT_AXES]
        sizes = [len(variants), *(len(block[axis]) for axis in others)]
        index = np.indices(sizes).reshape(len(sizes), -1)
        number = variants[index[0], 0]
        value: dict[str, Ints] = {axis: variants[index[0], k] for k, axis in enumerate(of_variant, start=1)}
        before: dict[str, Ints] = {}  # the next lower value of an axis of the block, 0 below the first
        for axis, at in zip(others, index[1:], strict=True):
            value[axis] = np.array(block[axis])[at]
            before[axis] = np.array((0, *block[axis][:-1]))[at]
        threads, fits = self._threads(value, before, number)
        columns = {name: value.get(name, np.full_like(number, other)) for name, other in COLUMNS.items()}
        if "batch" not in value:
            columns["batch"][:] = self.table.max_items
        fits &= np.maximum(columns["batch"], columns["fuse_items"]) <= self.table.max_items
        columns["buffer"] = np.where(columns["buffer"] == UNBOUNDED, -1, columns["buffer"])
        rows = np.stack([number, *columns.values(), *threads], axis=1)
        places = np.zeros((number.size, COORDINATES), dtype=np.int64)
        for k, axis in enumerate(block, start=1):
            places[:, k] = value[axis]
        return rows[fits], places[fits]

    def _threads(
        self, value: dict[str, Ints], before: Mapping[str, Ints], number: Ints
    ) -> tuple[list[Ints], npt.NDArray[np.bool_]]:
        """Threads of each stage, and which candidates fit. Shares of threads in ``value`` become their numbers."""
        threads = {name: np.zeros_like(number) for name in self.stages}
        fits = np.ones(number.size, dtype=bool)
        left = np.full_like(number, self.cores)
        for axis, cores in (("threads", "operator_cores"), ("sparse_threads", "sparse_cores")):
            stage = STAGE_OF[axis]
            if axis in value:
                most = left // value[cores]
                threads[stage] = most * value[axis] // WHOLE
                fits &= threads[stage] > most * before[axis] // WHOLE
                left = left - threads[stage] * value[cores]
                value[axis] = threads[stage]
        if "dense_share" in value:
            threads["dense"] = left * value["dense_share"] // (WHOLE * value["dense_cores"])
            fits &= threads["dense"] > left * before["dense_share"] // (WHOLE * value["dense_cores"])
        if "instances" in value:
            threads["gpu"] = value["instances"]
            fits &= value["instances"] <= self.instances[number]
        if "nmp" in threads:  # near-memory channels that a variant uses are one station
            threads["nmp"] = self.uses[number, self.stages.index("nmp")].astype(np.int64)
        return list(threads.values()), fits


def _cores(table: ServiceTable) -> int:
    return next((group.capacity for group in table.groups if group.name == "cpu"), 0)


# -- where to start, and baselines' lines ------------------------------------------------------------------------------

STARTS: Mapping[str, tuple[tuple[float, ...], ...]] = {
    "cpu": ((0, 1, 0.5), (1, 1, 1), (0.5, 1, 0.5)),
    "cpu-sd": ((0, 0, 0.5, 1, 0.5, 1), (0, 1, 0.5, 1, 0.5, 1)),
    "gpu": ((1, 1, 0), (0, 0.5, 0)),
    "gpu-host-pooling": ((0, 0.5, 0.5, 1, 1), (0, 1, 0.5, 0, 0.5)),
    "gpu-hot-rows": ((0, 0, 0.5, 0.5, 1, 1), (1, 0, 1, 0.5, 0, 0.5)),
    "cpu-gpu-offload": ((0, 1, 0.5, 0.5, 1, 1), (1, 1, 0.5, 0.5, 0, 1)),
}
"""Where searches start in each kind: the quantile of each axis in turn, among the points that are left after those
before it. So a start exists wherever its kind does. An accelerator's first has many instances and fuses much."""


def _starts(coords: Ints, names: tuple[str, ...]) -> Ints:
    found: list[list[int]] = []
    for number, kind in enumerate(names):
        own = np.flatnonzero(coords[:, 0] == number)
        if not own.size:
            continue
        starts = []
        for quantiles in STARTS[kind]:
            left = own
            for axis, quantile in enumerate(quantiles, start=1):
                values = np.unique(coords[left, axis])
                left = left[coords[left, axis] == values[int(quantile * (values.size - 1))]]
            starts.append(int(left[0]))
        found.append(list(dict.fromkeys(starts)))
    rounds = range(max(map(len, found)))
    return np.array([starts[k] for k in rounds for starts in found if k < len(starts)], dtype=np.int64)


def _lines(table: ServiceTable, coords: Ints, names: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    def points(kind: str, **place: int) -> dict[tuple[int, ...], int]:
        """Candidates of a kind with these coordinates on all cores, by the coordinates that are left."""
        axes = tuple(KINDS[kind][0])
        at = {"operator_cores": 1, "threads": _cores(table), **place}
        here = coords[:, 0] == (names.index(kind) if kind in names else -1)
        for axis, wanted in at.items():
            here &= coords[:, 1 + axes.index(axis)] == wanted
        free = [1 + k for k, axis in enumerate(axes) if axis not in at]
        return {tuple(coords[row, free].tolist()): int(row) for row in np.flatnonzero(here)}

    whole = points("cpu")
    offload = points("cpu-gpu-offload", instances=1, fuse_items=1)
    batches = [batch for batch in DEEPRECSYS_BATCHES if (batch,) in whole]
    steps = [[(batch, items) for items in DEEPRECSYS_THRESHOLDS if (batch, items) in offload] for batch in batches]
    return (
        tuple(whole[(batch,)] for batch in batches),
        *(tuple(offload[step] for step in of_batch) for of_batch in steps),
    )
