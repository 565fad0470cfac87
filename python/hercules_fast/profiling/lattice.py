"""The configuration space of a service table: a lattice of candidates, its coordinates and where a search starts.

:data:`KINDS` describes it: for each kind of variant its axes, and blocks of values whose products are the candidates.
What does not fit is left out before anything is simulated: threads times their cores beyond the cores, instances beyond
those that the accelerator's memory holds, batches beyond the table's grid. (Variants exist only where the model fits
the memories, see :func:`hercules_fast.serving.fits`.)

Axes that count threads hold shares, in 24ths, of the threads that the cores left allow: every number of threads up to
24 cores, and no more points on larger sockets. Each number appears once, however many shares lead to it. Why the values
are not finer: ``benches/bench_space.py`` compares them with a lattice about three times as large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.tables import SchedulingConfig, ServiceTable

__all__ = ["ANY", "DEEPRECSYS_BATCHES", "DEEPRECSYS_THRESHOLDS", "KINDS", "UNBOUNDED", "Block", "Space", "space"]

Block = Mapping[str, tuple[int, ...]]
"""Axis -> values. All blocks of a kind name its axes in one order."""

ANY: tuple[int, ...] = ()
"""For axes of a variant: whatever the variants of the table have."""
WHOLE = 24
"""Shares of threads are multiples of 1 / WHOLE."""
UNBOUNDED = 1_000_000
"""Coordinate of a pipeline whose buffer has no bound."""

BATCHES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Most items of a sub-batch: powers of two and the points half-way."""
EACH = tuple(range(1, WHOLE + 1))
QUARTERS = (6, 12, 18, 24)
DEEPRECSYS_BATCHES = (512, 384, 256, 192, 128, 96, 64, 48, 32)
DEEPRECSYS_THRESHOLDS = (96, 128, 192, 256, 384, 512)
"""Batches and offload thresholds in the order in which DeepRecSys tries them: GitHub harvard-acc/DeepRecSys, the
experiments' configurations."""

KINDS: Mapping[str, tuple[Block, ...]] = {
    "cpu": ({"operator_cores": ANY, "threads": EACH, "batch": BATCHES},),
    "cpu-sd": (
        {
            "sparse_cores": ANY,
            "dense_cores": ANY,
            "sparse_threads": EACH,
            "dense_share": (24,),
            "batch": (16, 32, 64, 96, 128, 192, 256, 512),
            "buffer": (UNBOUNDED,),
        },
        {
            "sparse_cores": (1,),
            "dense_cores": ANY,
            "sparse_threads": QUARTERS,
            "dense_share": (12, 24),
            "batch": (64, 128, 256),
            "buffer": (2, 8),
        },
    ),
    "gpu": (
        {"instances": (1, 2, 3, 4), "fuse_items": (1,), "max_wait_us": (0,)},
        {
            "instances": (1, 2, 3, 4),
            "fuse_items": (256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192),
            "max_wait_us": (0, 500, 1000, 2000, 5000),
        },
    ),
    "gpu-host-pooling": (
        {
            "sparse_cores": ANY,
            "sparse_threads": QUARTERS,
            "batch": (64, 128, 256, 512),
            "instances": (1, 2),
            "fuse_items": (256, 1024, 2048, 4096),
        },
    ),
    "gpu-hot-rows": (
        {
            "hot_share_ppm": ANY,
            "sparse_cores": ANY,
            "sparse_threads": QUARTERS,
            "batch": (64, 128, 256, 512),
            "instances": (1, 2, 4),
            "fuse_items": (256, 1024, 4096),
        },
    ),
    "cpu-gpu-offload": (
        {
            "operator_cores": ANY,
            "threads": (WHOLE,),
            "batch": (32, 64, 128, 256),
            "offload_items": (32, 96, 192, 256, 384, 512),
            "instances": (1, 2),
            "fuse_items": (512, 2048, 8192),
        },
        {
            "operator_cores": (1,),
            "threads": (WHOLE,),
            "batch": DEEPRECSYS_BATCHES,
            "offload_items": DEEPRECSYS_THRESHOLDS,
            "instances": (1,),
            "fuse_items": (1,),
        },
    ),
}
"""The committed lattice. A search never steps from one kind to another."""

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


def space(table: ServiceTable, kinds: Mapping[str, tuple[Block, ...]] = KINDS) -> Space:
    """All candidates of ``table``, about 2,000 at most with the committed ``kinds``.

    Raises:
        InputError: no variant of the table leads to a candidate, or two variants of a kind have the same coordinates.
    """
    rows, places = [], []
    for number, (kind, blocks) in enumerate(kinds.items()):
        variants = _variants(table, kind, tuple(blocks[0]))
        if not len(variants):
            continue
        for block in blocks:
            row, place = _products(table, block, variants)
            rows.append(row)
            places.append(np.pad(place, ((0, 0), (1, COORDINATES - 1 - place.shape[1])), constant_values=0))
            places[-1][:, 0] = number
    if not sum(map(len, rows)):
        found = sorted({v.kind for v in table.variants})
        raise InputError(f"variants: kinds are {found}; allowed are {list(kinds)}, with threads that fit")
    candidates, coords = np.concatenate(rows), np.concatenate(places)
    names = tuple(kinds)
    starts = _starts(coords, names, kinds)
    return Space(candidates, coords, starts, names, _lines(table, candidates, coords, names))


# -- products of values ------------------------------------------------------------------------------------------------

VARIANT_AXES = {"operator_cores": "model", "sparse_cores": "sparse", "dense_cores": "dense", "hot_share_ppm": ""}
"""Axes that choose a variant, and the stage whose cores they are."""
THREAD_AXES = {"threads": "model", "sparse_threads": "sparse", "instances": "gpu"}


def _variants(table: ServiceTable, kind: str, axes: tuple[str, ...]) -> Ints:
    """Variants of a kind, [V, 1 + axes of variants]: number, then coordinates."""
    stages = {stage.name: k for k, stage in enumerate(table.stages)}
    found: dict[tuple[int, ...], int] = {}
    for v, variant in enumerate(table.variants):
        if variant.kind != kind:
            continue
        place = tuple(
            variant.operator_cores[stages[VARIANT_AXES[axis]]] if VARIANT_AXES[axis] else round(variant.hot_share * 1e6)
            for axis in axes
            if axis in VARIANT_AXES
        )
        if place in found:
            raise InputError(f"variants[{v}]: {variant.name!r} has the cores and hot share of variants[{found[place]}]")
        found[place] = v
    return np.array([[v, *place] for place, v in found.items()], dtype=np.int64)


def _products(table: ServiceTable, block: Block, variants: Ints) -> tuple[Ints, Ints]:
    """Candidates and coordinates of all values of a block that fit."""
    of_variant = [axis for axis in block if axis in VARIANT_AXES]
    wanted = np.ones(len(variants), dtype=bool)
    for k, axis in enumerate(of_variant):
        wanted &= not block[axis] or np.isin(variants[:, 1 + k], block[axis])
    variants = variants[wanted]
    others = [axis for axis in block if axis not in VARIANT_AXES]
    sizes = [len(variants), *(len(block[axis]) for axis in others)]
    index = np.indices(sizes).reshape(len(sizes), -1)
    value: dict[str, Ints] = {axis: variants[index[0], 1 + k] for k, axis in enumerate(of_variant)}
    before: dict[str, Ints] = {}  # the next lower value of an axis of the block, 0 below the first
    for axis, at in zip(others, index[1:], strict=True):
        values = np.array(block[axis], dtype=np.int64)
        value[axis], before[axis] = values[at], np.concatenate(([0], values[:-1]))[at]
    number = variants[index[0], 0]
    threads, fits = _threads(table, value, before, number)
    columns = {name: np.zeros_like(number) for name in ("batch", "fuse_items", "max_wait_us", "buffer", "offload_items")}
    columns |= {name: value[name] for name in columns if name in value}
    if "batch" in value:
        fits &= columns["batch"] <= table.max_items
    else:
        columns["batch"][:] = table.max_items
    if "fuse_items" in value:
        fits &= columns["fuse_items"] <= table.max_items
    else:
        columns["fuse_items"][:] = 1
    columns["buffer"] = np.where(columns["buffer"] % UNBOUNDED == 0, -1, columns["buffer"])
    row = np.stack([number, *columns.values(), *threads], axis=1)
    place = np.stack([value[axis] for axis in block], axis=1)
    return row[fits], place[fits]


def _threads(
    table: ServiceTable, value: dict[str, Ints], before: Mapping[str, Ints], number: Ints
) -> tuple[list[Ints], npt.NDArray[np.bool_]]:
    """Threads of each stage and which candidates fit. Shares of threads in ``value`` become their numbers."""
    by_stage: dict[str, Ints] = {}
    fits = np.ones(number.size, dtype=bool)
    left = np.full(number.size, next((g.capacity for g in table.groups if g.name == "cpu"), 0))
    for axis, cores in (("threads", "operator_cores"), ("sparse_threads", "sparse_cores")):
        if axis in value:
            most = left // value[cores]
            count, fewer = (most * share // WHOLE for share in (value[axis], before[axis]))
            fits &= count > fewer
            left = left - count * value[cores]
            by_stage[THREAD_AXES[axis]] = value[axis] = count
    if "dense_share" in value:
        count, fewer = (left * share // WHOLE // value["dense_cores"] for share in (value["dense_share"], before["dense_share"]))
        fits &= count > fewer
        by_stage["dense"] = count
    if "instances" in value:
        most = np.array([variant.max_instances for variant in table.variants])
        fits &= value["instances"] <= most[number]
        by_stage["gpu"] = value["instances"]
    threads = []
    for k, stage in enumerate(table.stages):
        if stage.name == "nmp":  # near-memory channels that a variant uses are one station
            uses = np.array([table.uses(v, k) for v in range(len(table.variants))])
            by_stage["nmp"] = uses[number].astype(np.int64)
        threads.append(by_stage.get(stage.name, np.zeros_like(number)))
    return threads, fits


# -- where to start, and baselines' lines ------------------------------------------------------------------------------

STARTS: Mapping[str, tuple[tuple[float, ...], ...]] = {
    "cpu": ((0, 1, 0.5), (1, 1, 1), (0.5, 1, 0.5)),
    "cpu-sd": ((0, 0, 0.5, 1, 0.5, 1), (0, 1, 0.5, 1, 0.5, 1)),
    "gpu": ((0, 0.5, 0), (1, 1, 0)),
    "gpu-host-pooling": ((0, 1, 0.5, 0, 0.5), (1, 1, 0.5, 0, 0.5)),
    "gpu-hot-rows": ((1, 0, 1, 0.5, 0, 0.5), (0, 0, 0.5, 0.5, 1, 0.5)),
    "cpu-gpu-offload": ((0, 1, 0.5, 0.5, 0, 0.5), (1, 1, 0.5, 0, 0, 1)),
}
"""Where searches start in each kind: the quantile of each axis in turn, among the points that are left after those
before it. So the axes of a start are free of what the server offers, and the start exists wherever the kind does."""


def _starts(coords: Ints, names: tuple[str, ...], kinds: Mapping[str, tuple[Block, ...]]) -> Ints:
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


def _lines(table: ServiceTable, candidates: Ints, coords: Ints, names: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    cores = next((g.capacity for g in table.groups if g.name == "cpu"), 0)

    def at(kind: str, *place: int) -> tuple[int, ...]:
        """The candidate at a place, or nothing."""
        if kind not in names:
            return ()
        wanted = np.array([names.index(kind), *place])
        return tuple(np.flatnonzero((coords[:, : wanted.size] == wanted).all(axis=1)).tolist())

    lines: list[tuple[int, ...]] = [()]
    for batch in DEEPRECSYS_BATCHES:
        first = at("cpu", 1, cores, batch)
        if first:
            lines[0] += first
            steps = (at("cpu-gpu-offload", 1, cores, batch, items, 1, 1) for items in DEEPRECSYS_THRESHOLDS)
            lines.append(tuple(row for step in steps for row in step))
    return tuple(lines)
