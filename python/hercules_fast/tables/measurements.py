"""Service tables from a user's own measurements: a CSV with the columns ``batch, cores, threads, ms``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import Fault, InputError
from hercules_fast.tables.rows import CsvRows, read_csv_rows
from hercules_fast.tables.service import ServiceTable, TableGroupSpec, TableStage, TableVariant

__all__ = ["DIP", "PLAUSIBLE_MS", "read_service_csv"]

Array = npt.NDArray[np.float64]

COLUMNS = ("batch", "cores", "threads", "ms")
OPTIONAL = ("stage", "cv")
STAGES = ("model", "sparse", "dense")
DIP = 0.05
"""Largest share by which a larger batch, or more threads, may seem faster: noise, which is pooled."""
PLAUSIBLE_MS = (1e-3, 1e5)
"""Times outside are of another unit: a dispatch alone takes longer, and no query waits minutes."""

_Place = tuple[str, int, int, int]
"""Stage, operator cores, threads, batch."""


@dataclass(frozen=True, slots=True)
class _Point:
    ms: float
    line: int


def read_service_csv(
    path: str | Path, *, server: str, workload: str, idle_w: float, tdp_w: float, base_w: float = 0.0
) -> ServiceTable:
    """A :class:`ServiceTable` of origin ``measured`` from a CSV file.

    Columns: ``batch`` (items), ``cores`` (operator cores of a model thread), ``threads`` (model threads that ran at the
    same time, this one included), ``ms`` (time of one batch in one of them); optional ``stage`` (``model``, or
    ``sparse`` and ``dense`` of a pipeline) and ``cv`` (coefficient of variation of the time). Lines that begin
    with ``#`` are comments.

    Between measured batches time is linear in items, between numbers of threads linear in threads; below the smallest
    batch it stays as it is there. Nothing is extrapolated upwards: the largest batch is the table's last, and every
    number of cores must be measured with one thread and with as many as the most cores in use hold. Dips of up to
    :data:`DIP` are pooled (isotonic regression over batches, then the running maximum over threads); larger ones are
    refused. Both repairs are noted in ``assumptions``.

    Args:
        path: the file.
        server, workload: names for the table.
        idle_w, tdp_w: watts of the server at rest and with all its cores busy, its memory included, without ``base_w``.
        base_w: watts that are always drawn beside.

    Raises:
        MissingFileError: the file cannot be read.
        InputError: watts that are not finite and >= 0, or ``tdp_w`` below ``idle_w``.
        ConfigError: with all faults and their lines: columns, ragged rows, numbers that are not finite and > 0, other
            units, duplicates, stages without their other half, every missing combination, larger dips.
    """
    for name, value in (("idle_w", idle_w), ("tdp_w", tdp_w), ("base_w", base_w)):
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"{name}: is {value}; allowed is finite and >= 0")
    if tdp_w < idle_w:
        raise InputError(f"tdp_w: is {tdp_w}; allowed is >= idle_w, {idle_w}")
    table = read_csv_rows(path, required=COLUMNS, optional=OPTIONAL)
    faults = list(table.faults)
    points, noise = _points(table, faults)
    table.raise_if_any(faults)
    grid = _Grid(points)
    table.raise_if_any([*grid.missing(), *grid.dips()])
    notes = [f"measured: {Path(path).name}, {len(points)} points", *grid.notes()]
    if noise:
        notes.append("cv: the median of each stage's rows")
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


def _points(table: CsvRows, faults: list[Fault]) -> tuple[dict[_Place, _Point], dict[str, float]]:
    """Time of every place, and the median noise of each stage; what is wrong goes to ``faults``."""
    points: dict[_Place, _Point] = {}
    noise: dict[str, list[float]] = {}
    for line, row in table.rows:
        stage = row.get("stage") or "model"
        if stage not in STAGES:
            faults.append(Fault(f"line {line}", f"stage is {stage!r}; allowed are {', '.join(STAGES)}"))
        batch, cores, threads = (table.whole(row, name, line, faults) for name in COLUMNS[:3])
        ms = table.positive(row, "ms", line, faults)
        if row.get("cv"):
            cv = table.positive(row, "cv", line, faults, zero=True)
            noise.setdefault(stage, []).append(cv or 0.0)
        low, high = PLAUSIBLE_MS
        if ms is not None and not low <= ms <= high:
            unit = "seconds" if ms < low else "microseconds"
            message = f"ms is {ms:g}; allowed is {low:g} to {high:g} milliseconds, are these {unit}?"
            faults.append(Fault(f"line {line}", message))
        if stage not in STAGES or batch is None or cores is None or threads is None or ms is None:
            continue
        place = stage, cores, threads, batch
        if place in points:
            faults.append(Fault(f"line {line}", f"{_words(place)} already stands on line {points[place].line}"))
        else:
            points[place] = _Point(ms, line)
    if not table.rows and not faults:
        faults.append(Fault("", "no rows below the header"))
    return points, {stage: float(np.median(values)) for stage, values in noise.items()}


def _words(place: _Place) -> str:
    stage, cores, threads, batch = place
    return f"{stage}, batch {batch}, cores {cores}, threads {threads}"


class _Grid:
    """The measured places as a grid, and what it lacks."""

    def __init__(self, points: Mapping[_Place, _Point]):
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

    def dips(self) -> Iterator[Fault]:
        """Places clearly faster than one with a smaller batch or fewer threads."""
        for stage, cores in self.threads:
            own = self._measured(stage, cores)
            if np.isnan(own).any():
                continue  # reported as missing
            for axis, what in ((0, "smaller batch"), (1, "fewer threads")):
                before = np.maximum.accumulate(own, axis=axis)
                for i, t in np.argwhere(own < (1 - DIP) * before):
                    place = stage, cores, self.threads[stage, cores][t], int(self.batches[i])
                    line = self.points[place].line
                    slower = np.argmax(own[: i + 1, t]) if axis == 0 else np.argmax(own[i, : t + 1])
                    where = (slower, t) if axis == 0 else (i, slower)
                    other = stage, cores, self.threads[stage, cores][where[1]], int(self.batches[where[0]])
                    yield Fault(
                        f"line {line}",
                        f"{_words(place)}: {own[i, t]:g} ms is below {own[where]:g} ms of a {what} on line "
                        f"{self.points[other].line}; allowed are dips of {DIP:.0%}, measure both again",
                    )

    def notes(self) -> Iterator[str]:
        """What was done to the figures, in words."""
        if self.batches[0] > 1:
            yield f"below {self.batches[0]} items, the smallest batch measured, a batch takes as long as that one"
        if "sparse" in self.stages:
            yield "a stage of a pipeline is slowed by its own threads only, as it was measured"
        raised = [
            int((self._monotone(stage, cores) != self._measured(stage, cores)).sum()) for stage, cores in self.threads
        ]
        if sum(raised):
            yield (
                f"pooled: {sum(raised)} points that dip by up to {DIP:.0%} (isotonic regression over batches, running "
                "maximum over threads)"
            )

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

    def _measured(self, stage: str, cores: int) -> Array:
        own = self.threads[stage, cores]
        values = np.full((self.batches.size, len(own)), np.nan)
        for i, batch in enumerate(self.batches.tolist()):
            for t, threads in enumerate(own):
                point = self.points.get((stage, cores, threads, batch))
                if point is not None:
                    values[i, t] = point.ms
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
