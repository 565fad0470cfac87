"""Service tables from measurements: points in memory, or a CSV with the columns ``batch, cores, threads, ms``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import Fault, InputError
from hercules_fast.tables.rows import MAX_WHOLE, CsvRows, raise_faults, read_csv_rows
from hercules_fast.tables.service import ServiceTable, TableGroupSpec, TableStage, TableVariant

__all__ = [
    "DIP",
    "PLAUSIBLE_MS",
    "STAGES",
    "MeasuredPoint",
    "Place",
    "dips",
    "measured_table",
    "pooled",
    "read_service_csv",
]

Array = npt.NDArray[np.float64]

COLUMNS = ("batch", "cores", "threads", "ms")
OPTIONAL = ("stage", "cv")
STAGES = ("model", "sparse", "dense")
DIP = 0.05
"""Largest share by which a larger batch, or more threads, may seem faster: noise, which is pooled."""
PLAUSIBLE_MS = (1e-3, 1e5)
"""Times outside are of another unit: a dispatch alone takes longer, and no query waits minutes."""

Place = tuple[str, int, int, int]
"""Stage, operator cores, threads, batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredPoint:
    """How long one batch takes at one place of the grid."""

    stage: str = "model"
    """``model``, or ``sparse`` and ``dense`` of a pipeline."""
    operator_cores: int
    """Of a model thread."""
    threads: int
    """Model threads that ran at the same time, this one included."""
    batch: int
    """Items."""
    ms: float
    """Time of one batch in one of the threads."""
    cv: float | None = None
    """Coefficient of variation of the time; None: not known."""

    @property
    def place(self) -> Place:
        """Where it stands in the grid."""
        return self.stage, self.operator_cores, self.threads, self.batch


def measured_table(
    points: Sequence[MeasuredPoint],
    *,
    server: str,
    workload: str,
    idle_w: float,
    tdp_w: float,
    base_w: float = 0.0,
    large_dips: Literal["refuse", "pool"] = "refuse",
    notes: Sequence[str] = (),
) -> ServiceTable:
    """A :class:`ServiceTable` of origin ``measured``.

    Between measured batches time is linear in items, between numbers of threads linear in threads; below the smallest
    batch it stays as it is there. Nothing is extrapolated upwards: the largest batch is the table's last, and every
    number of cores must be measured with one thread and with as many as the most cores in use hold. Dips of up to
    :data:`DIP` are pooled (isotonic regression over batches, then the running maximum over threads). Repairs are noted
    in ``assumptions``.

    Args:
        points: one for each place.
        server, workload: names for the table.
        idle_w, tdp_w: watts of the server at rest and with all its cores busy, its memory included, without ``base_w``.
        base_w: watts that are always drawn beside.
        large_dips: what is done with dips beyond :data:`DIP`.
        notes: further ``assumptions``, in front of those made here.

    Raises:
        InputError: watts that are not finite and >= 0, or ``tdp_w`` below ``idle_w``.
        ConfigError: with all faults: numbers that are not finite and > 0, other units, duplicates, stages without their
            other half, every missing combination, larger dips where they are refused.
    """
    _check_watts(idle_w, tdp_w, base_w)
    if large_dips not in ("refuse", "pool"):
        raise InputError(f"large_dips: is {large_dips!r}; allowed are 'refuse', 'pool'")
    source = "measured points"
    found = _Points()
    for k, point in enumerate(points):
        found.add(f"points[{k}]", point)
    if not found.points and not found.faults:
        found.faults.append(Fault("", "there are none"))
    raise_faults(source, found.faults)
    grid = _Grid(found.points)
    raise_faults(source, [*grid.missing(), *(grid.dips() if large_dips == "refuse" else ())])
    return _table(grid, [*notes, *grid.notes()], server, workload, idle_w, tdp_w, base_w)


def dips(points: Sequence[MeasuredPoint]) -> list[tuple[Place, Place]]:
    """Places that are faster, by more than :data:`DIP`, than one with a smaller batch or fewer threads, each with that.

    Where both directions hold, both are listed. The points must be a whole grid without faults.
    """
    return [(place, slower) for place, slower, _ in _Grid({p.place: _Point(p, "") for p in points}).falls()]


def pooled(points: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    """The points with the times that :func:`measured_table` takes, none below one of a smaller batch or fewer threads.

    The points must be a whole grid without faults.
    """
    ms = _Grid({p.place: _Point(p, "") for p in points}).monotone_ms()
    return [replace(point, ms=ms[point.place]) for point in points]


def read_service_csv(
    path: str | Path, *, server: str, workload: str, idle_w: float, tdp_w: float, base_w: float = 0.0
) -> ServiceTable:
    """A :class:`ServiceTable` of origin ``measured`` from a CSV file, by the rules of :func:`measured_table`.

    Columns: ``batch`` (items), ``cores`` (operator cores of a model thread), ``threads`` (model threads that ran at the
    same time, this one included), ``ms`` (time of one batch in one of them); optional ``stage`` (``model``, or
    ``sparse`` and ``dense`` of a pipeline) and ``cv`` (coefficient of variation of the time). Lines that begin
    with ``#`` are comments. Dips beyond :data:`DIP` are refused.

    Args:
        path: the file.
        server, workload, idle_w, tdp_w, base_w: as in :func:`measured_table`.

    Raises:
        MissingFileError: the file cannot be read.
        InputError: as :func:`measured_table`.
        ConfigError: as :func:`measured_table`, with their lines; and other columns, ragged rows.
    """
    _check_watts(idle_w, tdp_w, base_w)
    table = read_csv_rows(path, required=COLUMNS, optional=OPTIONAL)
    found = _Points(table.faults)
    for line, row in table.rows:
        _read_row(table, line, row, found)
    if not table.rows and not found.faults:
        found.faults.append(Fault("", "no rows below the header"))
    table.raise_if_any(found.faults)
    grid = _Grid(found.points)
    table.raise_if_any([*grid.missing(), *grid.dips()])
    notes = [f"measured: {Path(path).name}, {len(found.points)} points", *grid.notes()]
    return _table(grid, notes, server, workload, idle_w, tdp_w, base_w)


def _check_watts(idle_w: float, tdp_w: float, base_w: float) -> None:
    for name, value in (("idle_w", idle_w), ("tdp_w", tdp_w), ("base_w", base_w)):
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"{name}: is {value}; allowed is finite and >= 0")
    if tdp_w < idle_w:
        raise InputError(f"tdp_w: is {tdp_w}; allowed is >= idle_w, {idle_w}")


def _table(
    grid: _Grid, notes: Sequence[str], server: str, workload: str, idle_w: float, tdp_w: float, base_w: float
) -> ServiceTable:
    noise = grid.noise()
    layouts = grid.layouts()
    stages = tuple(
        TableStage(name=s, group="cpu", unit="sub_batch", busy_of=s, after=("sparse",) if s == "dense" else ())
        for s in STAGES
        if s in grid.stages
    )
    shape = len(layouts), len(stages), grid.items.size, grid.busy.size
    seconds = np.full(shape, np.nan)
    variants = []
    for v, layout in enumerate(layouts):
        for s, stage in enumerate(stages):
            if stage.name in layout:
                seconds[v, s] = grid.seconds(stage.name, layout[stage.name])
        kind = "cpu" if "model" in layout else "cpu-sd"
        cores = tuple(layout.get(stage.name, 0) for stage in stages)
        name = f"{kind}-o{'-'.join(str(c) for c in cores if c)}"
        variants.append(TableVariant(name=name, kind=kind, operator_cores=cores, max_instances=0))
    return ServiceTable(
        server=server,
        workload=workload,
        origin="measured",
        assumptions=tuple(notes),
        items=grid.items,
        busy=grid.busy,
        variants=tuple(variants),
        stages=stages,
        groups=(TableGroupSpec(name="cpu", component="cpu", capacity=grid.capacity, interference="at_start"),),
        seconds=seconds,
        energy_j=np.zeros(shape[:3]),
        noise_cv=np.array([noise.get(stage.name, 0.0) for stage in stages]),
        idle_w={"cpu": float(idle_w)},
        tdp_w={"cpu": float(tdp_w)},
        base_w=float(base_w),
    )


@dataclass(frozen=True, slots=True)
class _Point:
    point: MeasuredPoint
    where: str


class _Points:
    """Points by place; what is wrong with them goes to ``faults``."""

    def __init__(self, faults: Sequence[Fault] = ()):
        self.faults = list(faults)
        self.points: dict[Place, _Point] = {}

    def add(self, where: str, point: MeasuredPoint) -> None:
        """Take a point in, found ``where``."""
        before = len(self.faults)
        for name, number in (("batch", point.batch), ("cores", point.operator_cores), ("threads", point.threads)):
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_WHOLE:
                message = f"{name} is {number!r}; allowed is a whole number from 1 to {MAX_WHOLE}"
                self.faults.append(Fault(where, message))
        is_time = bool(np.isfinite(point.ms) and point.ms > 0)
        if not is_time:
            self.faults.append(Fault(where, f"ms is {point.ms!r}; allowed is finite and > 0"))
        if point.cv is not None and not (np.isfinite(point.cv) and point.cv >= 0):
            self.faults.append(Fault(where, f"cv is {point.cv!r}; allowed is finite and >= 0"))
        self.check(where, point.stage, point.ms if is_time else None)
        if len(self.faults) > before:
            return
        if point.place in self.points:
            words = f"{_words(point.place)} already stands on {self.points[point.place].where}"
            self.faults.append(Fault(where, words))
        else:
            self.points[point.place] = _Point(point, where)

    def check(self, where: str, stage: str, ms: float | None) -> None:
        """What can be wrong with a row of which other numbers may be missing."""
        if stage not in STAGES:
            self.faults.append(Fault(where, f"stage is {stage!r}; allowed are {', '.join(STAGES)}"))
        low, high = PLAUSIBLE_MS
        if ms is not None and not low <= ms <= high:
            unit = "seconds" if ms < low else "microseconds"
            message = f"ms is {ms:g}; allowed is {low:g} to {high:g} milliseconds, are these {unit}?"
            self.faults.append(Fault(where, message))


def _read_row(table: CsvRows, line: int, row: Mapping[str, str], found: _Points) -> None:
    """A row as a point; what is no number goes to the faults."""
    stage = row.get("stage") or "model"
    batch, cores, threads = (table.whole(row, name, line, found.faults) for name in COLUMNS[:3])
    ms = table.positive(row, "ms", line, found.faults)
    known = table.positive(row, "cv", line, found.faults, zero=True) if row.get("cv") else None
    where = f"line {line}"
    if batch is None or cores is None or threads is None or ms is None:
        found.check(where, stage, ms)
        return
    found.add(where, MeasuredPoint(stage=stage, operator_cores=cores, threads=threads, batch=batch, ms=ms, cv=known))


def _words(place: Place) -> str:
    stage, cores, threads, batch = place
    return f"{stage}, batch {batch}, cores {cores}, threads {threads}"


class _Grid:
    """The measured places as a grid, and what it lacks."""

    def __init__(self, points: Mapping[Place, _Point]):
        self.points = points
        self.stages = {stage for stage, _, _, _ in points}
        batches = sorted({batch for _, _, _, batch in points})
        self.batches = np.array(batches, dtype=np.int64)
        self.items = self.batches if batches[0] == 1 else np.array([1, *batches], dtype=np.int64)
        self.busy = np.array(sorted({1, *(threads for _, _, threads, _ in points)}), dtype=np.int64)
        self.capacity = max(cores * threads for _, cores, threads, _ in points)
        self.threads: dict[tuple[str, int], list[int]] = {}
        for stage, cores in sorted({(stage, cores) for stage, cores, _, _ in points}):
            own = {threads for s, c, threads, _ in points if (s, c) == (stage, cores)}
            self.threads[stage, cores] = sorted(own)

    def missing(self) -> Iterator[Fault]:
        """Every combination that must be measured and is not."""
        for one, other in (("sparse", "dense"), ("dense", "sparse")):
            if one in self.stages and other not in self.stages:
                yield Fault("stage", f"{one} is measured and {other} is not; measure both stages of a pipeline")
        for (stage, cores), own in self.threads.items():
            most = self.capacity // cores
            for threads in sorted({1, most, *own}):
                for batch in self.batches.tolist():
                    place = stage, cores, threads, batch
                    if place not in self.points:
                        why = f"; {self.capacity} cores hold {most} such threads" if threads not in own else ""
                        yield Fault("", f"missing: {_words(place)}{why}; measure it")

    def falls(self) -> Iterator[tuple[Place, Place, str]]:
        """Places clearly faster than one with a smaller batch or fewer threads, that one, and which of the two."""
        for stage, cores in self.threads:
            own = self._measured(stage, cores)
            if np.isnan(own).any():
                continue  # reported as missing
            for axis, what in ((0, "smaller batch"), (1, "fewer threads")):
                before = np.maximum.accumulate(own, axis=axis)
                for i, t in np.argwhere(own < (1 - DIP) * before):
                    slower = np.argmax(own[: i + 1, t]) if axis == 0 else np.argmax(own[i, : t + 1])
                    where = (slower, t) if axis == 0 else (i, slower)
                    yield self._place(stage, cores, i, t), self._place(stage, cores, *where), what

    def dips(self) -> Iterator[Fault]:
        """The faults of :meth:`falls`."""
        for place, slower, what in self.falls():
            fast, slow = self.points[place], self.points[slower]
            yield Fault(
                fast.where,
                f"{_words(place)}: {fast.point.ms:g} ms is below {slow.point.ms:g} ms of a {what} on {slow.where}; "
                f"allowed are dips of {DIP:.0%}, measure both again",
            )

    def notes(self) -> Iterator[str]:
        """What was done to the figures, in words."""
        if self.batches[0] > 1:
            yield f"below {self.batches[0]} items, the smallest batch measured, a batch takes as long as that one"
        if "sparse" in self.stages:
            yield "a stage of a pipeline is slowed by its own threads only, as it was measured"
        raised = {place for place, ms in self.monotone_ms().items() if ms != self.points[place].point.ms}
        if raised:
            large = len({place for place, _, _ in self.falls()})
            most = f"by up to {DIP:.0%}" if not large else f"({large} by more than {DIP:.0%})"
            yield (
                f"pooled: {len(raised)} points that dip {most} (isotonic regression over batches, running maximum over "
                "threads)"
            )
        if self.noise():
            yield "cv: the median of each stage's rows"

    def noise(self) -> dict[str, float]:
        """The median coefficient of variation of each stage."""
        known: dict[str, list[float]] = {}
        for item in self.points.values():
            if item.point.cv is not None:
                known.setdefault(item.point.stage, []).append(item.point.cv)
        return {stage: float(np.median(values)) for stage, values in known.items()}

    def layouts(self) -> list[dict[str, int]]:
        """Operator cores by stage, of every variant: whole models, then pipelines that fit the cores."""
        cores = {stage: [c for s, c in self.threads if s == stage] for stage in STAGES}
        whole = [{"model": c} for c in cores["model"]]
        pipes = [{"sparse": s, "dense": d} for s, d in product(cores["sparse"], cores["dense"])]
        return whole + [pipe for pipe in pipes if sum(pipe.values()) <= self.capacity]

    def seconds(self, stage: str, cores: int) -> Array:
        """Times on the whole grid, [I, B]; beyond the threads that fit, which nobody asks for, the last."""
        known = self._monotone(stage, cores)
        own = np.array(self.threads[stage, cores], dtype=np.float64)
        spread = np.stack([np.interp(self.busy.astype(np.float64), own, row) for row in known])
        if self.items.size > self.batches.size:
            spread = np.concatenate((spread[:1], spread))
        return spread * 1e-3

    def monotone_ms(self) -> dict[Place, float]:
        """Times by place, none below one of a smaller batch or fewer threads."""
        return {
            self._place(stage, cores, i, t): float(ms)
            for stage, cores in self.threads
            for (i, t), ms in np.ndenumerate(self._monotone(stage, cores))
        }

    def _place(self, stage: str, cores: int, i: int, t: int) -> Place:
        return stage, cores, self.threads[stage, cores][t], int(self.batches[i])

    def _measured(self, stage: str, cores: int) -> Array:
        values = np.full((self.batches.size, len(self.threads[stage, cores])), np.nan)
        for i, t in np.ndindex(values.shape):
            found = self.points.get(self._place(stage, cores, i, t))
            if found is not None:
                values[i, t] = found.point.ms
        return values

    def _monotone(self, stage: str, cores: int) -> Array:
        values = self._measured(stage, cores)
        pooled = np.stack([_isotonic(column) for column in values.T], axis=1)
        monotone: Array = np.maximum.accumulate(pooled, axis=1)
        return monotone


def _isotonic(values: Array) -> Array:
    """The nearest series in squares that never falls: neighbours that fall are pooled to their mean."""
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            before, weight = blocks.pop()
            mean, count = (before * weight + mean * count) / (weight + count), weight + count
        blocks.append((mean, count))
    return np.array([mean for mean, count in blocks for _ in range(count)])
