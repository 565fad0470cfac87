"""Service times of a model on this machine, measured: a :class:`ServiceTable` of origin ``measured``."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from hercules_fast import _core
from hercules_fast.errors import ConfigError, DTypeError, InputError, InterruptedRun
from hercules_fast.hardware import server as catalogue_server
from hercules_fast.host import Noise, energy_meter, usable_cores
from hercules_fast.measure.engine import Engine
from hercules_fast.measure.visits import ROUNDS, Clock, EngineLike, Progress, ServicePoint, Visits, measured
from hercules_fast.models import Model
from hercules_fast.profiling import SearchResult, search
from hercules_fast.tables import (
    EfficiencyRow,
    EfficiencyTable,
    Place,
    RecordFile,
    ServiceTable,
    measured_table,
    pooled,
)
from hercules_fast.traffic import Workload

__all__ = ["Energy", "ServiceMeasurement", "measure_service"]

SCHEMA = "hercules_fast.service_journal/1"
FLEETING = frozenset({"huge_page_share", "input_pool_bytes"})
"""What an engine says of itself that may differ when it is built again; a journal goes on all the same."""
MOST_TIMES = 1.5
"""Times ``seconds`` till which places are measured again."""
LIKE = "T2"
"""Server of the catalogue whose watts are assumed, core by core, where there is no meter."""
STAGES = (("model",), ("sparse", "dense"), ("model", "sparse", "dense"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """Power of the table, and where it comes from."""

    origin: Literal["measured", "user", "assumed"]
    source: str
    """In words."""
    idle_w: float
    tdp_w: float
    base_w: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ServiceMeasurement:
    """Measured service times: the table, what it was made from, and whether the machine was quiet."""

    table: ServiceTable | None
    """None only in the ``partial`` of an interrupted run whose points do not make one."""
    points: tuple[ServicePoint, ...]
    clock: Clock
    """What the table holds: ``wall_ms``; or, not certified, ``cpu_ms`` (``calm_ms`` with several operator cores)."""
    noise_before: Noise
    noise_after: Noise | None
    lost_share: float
    """Share of time lost during the visits: of services that lost their core, wall time without CPU time, over all wall
    time; or what the hypervisor took, if more."""
    noise_limit: float
    certified: bool
    cause: str
    """Why not, in words; empty where certified."""
    energy: Energy
    engine: Mapping[str, Any]
    """What was measured, as the engine describes itself."""
    cpus: tuple[int, ...]
    """CPUs that threads were bound to."""
    seconds: float
    """How long it took, of this call."""
    complete: bool

    def to_csv(self) -> str:
        """The points as :meth:`ServiceTable.from_csv` reads them, with the times of the table, dips pooled.

        Those of an accelerator have the stage ``gpu``, which is not read back: its table is kept by :meth:`save`.
        """
        header = [f"# {line}" for line in self._facts()]
        rows = [
            f"{p.stage},{p.batch},{p.operator_cores},{p.threads},{p.ms!r},{p.cv!r}"
            for p in (pooled(measured(self.points, self.clock)) if self.table else measured(self.points, self.clock))
        ]
        return "\n".join([*header, "stage,batch,cores,threads,ms,cv", *rows]) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table (.npz), all or nothing.

        Raises:
            InputError: there is none, see ``table``.
            OutputError: the file cannot be written.
        """
        self._whole().save(path)

    def _whole(self) -> ServiceTable:
        if self.table is None:
            raise InputError("table: there is none; the points measured so far are not a whole grid")
        return self.table

    def search(self, workload: Workload, **options: Any) -> SearchResult:
        """Search the best configuration of ``workload`` on the measured table, by :func:`hercules_fast.search`.

        ``workload`` must have the table's name; its model is not looked at. ``options`` as there, but for ``tables``.

        Raises:
            InputError: there is no table, it is of another workload, or an argument is outside what is allowed.
            InterruptedRun: Ctrl-C.
        """
        table = self._whole()
        here = replace(catalogue_server(LIKE), name=table.server)  # the table stands for all that it says of times
        found = search(here, workload, **options, tables={(table.server, workload.name): table})
        return found if self.certified else replace(found, row=_marked(found.row))

    def efficiency(self, found: SearchResult) -> EfficiencyTable:
        """The row of a :meth:`search` as an efficiency table, whose ``meta`` says how it was measured."""
        facts = {name: value for name, value in self.to_dict().items() if name != "points"}
        return EfficiencyTable(
            rows=(found.row,),
            servers=(found.row.server,),
            workloads=(found.row.workload,),
            meta={"version": _core.build_info()["version"], "measurement": facts},
        )

    def explain(self) -> str:
        """What was measured, how sure it is, and where the power comes from, in words."""
        clock = "wall" if self.clock == "wall" else "CPU"
        columns = (
            ("cores", 6),
            ("threads", 8),
            ("batch", 7),
            ("wall ms", 11),
            ("median", 11),
            ("CPU ms", 11),
            ("spread", 8),
        )
        head = "stage  " + "".join(f"{name:>{width}}" for name, width in (*columns, ("drift", 8), ("n", 8)))
        lines = [*self._facts(), f"the table holds {clock} times", "", head]
        lines += [
            f"{p.stage:<7}{p.operator_cores:>6}{p.threads:>8}{p.batch:>7}{p.wall_ms:>11.4g}{p.median_ms:>11.4g}"
            f"{p.cpu_ms:>11.4g}{p.spread:>8.1%}{p.drift:>8.1%}{p.samples:>8}"
            for p in self.points
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the table by its digest."""
        return {
            "server": self.table.server if self.table else None,
            "workload": self.table.workload if self.table else None,
            "table_digest": self.table.digest() if self.table else None,
            "assumptions": list(self.table.assumptions) if self.table else [],
            "points": [asdict(point) for point in self.points],
            "clock": self.clock,
            "noise_before": self.noise_before.to_dict(),
            "noise_after": self.noise_after.to_dict() if self.noise_after else None,
            "lost_share": self.lost_share,
            "noise_limit": self.noise_limit,
            "certified": self.certified,
            "cause": self.cause,
            "energy": asdict(self.energy),
            "engine": dict(self.engine),
            "cpus": list(self.cpus),
            "seconds": self.seconds,
            "complete": self.complete,
        }

    def _facts(self) -> Iterator[str]:
        name = f"{self.table.workload} on {self.table.server}" if self.table else "no table"
        yield f"{name}: {len(self.points)} points in {self.seconds:.1f} s, on CPU {', '.join(map(str, self.cpus))}"
        yield "certified" if self.certified else f"NOT CERTIFIED: {self.cause}"
        yield f"power {self.energy.idle_w:.4g} to {self.energy.tdp_w:.4g} W, {self.energy.origin}: {self.energy.source}"


def measure_service(
    engine: EngineLike | Model,
    *,
    batches: Sequence[int] | None = None,
    operator_cores: Sequence[int] | None = None,
    threads: Sequence[int] | None = None,
    stages: Sequence[str] = ("model",),
    cpus: Sequence[int] | None = None,
    seconds: float = 30.0,
    warmup: float = 0.1,
    seed: int = 0,
    server: str = "this-host",
    workload: str | None = None,
    idle_w: float | None = None,
    tdp_w: float | None = None,
    base_w: float | None = None,
    noise_limit: float = 0.01,
    journal: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ServiceMeasurement:
    """Measure how long a batch takes, by batch, operator cores and threads that run at the same time.

    The table holds wall time. Where more than ``noise_limit`` of the time was lost before, during or after, it holds
    the threads' CPU time instead and is not certified. Places that come out faster than one with a smaller batch
    or fewer threads are visited again, both of them; what still falls is pooled. Both are noted in ``assumptions``.

    Args:
        engine: what is measured; a :class:`Model` is built with ``Engine.build(model, seed=seed)``.
        batches: items; default: 1, 2, 4, ... and the engine's largest.
        operator_cores: cores inside one thread; default: 1, 2, 4, ... up to the CPUs.
        threads: threads at the same time; default: 1, 2, 4, ... For each number of operator cores those that fit are
            measured, and always 1 and as many as the most cores in use hold.
        stages: ``("model",)``, ``("sparse", "dense")`` for a pipeline of two pools, or all three.
        cpus: those to bind threads to; default: the first of those that this process may use, as many as it may use.
        seconds: how long to measure; half as long once more for places that fall. Every place gets its least, 3
            services of each thread in 3 rounds, even so.
        warmup: share of each visit, from its start, that does not count; the first service of each thread never does.
        seed: of an engine that is built here.
        server, workload: names for the table; ``workload`` defaults to the model's.
        idle_w, tdp_w: watts at rest and with all cores busy, both or neither. Default: measured where the machine has
            a meter (RAPL), else assumed; ``energy`` says which.
        base_w: watts that are always drawn beside.
        noise_limit: most lost time that is certified, as a share.
        journal: file that takes each visit as soon as it is over, made if it is not there; a later call with the same
            journal goes on where this one ended.
        progress: called with (visits done, all visits).

    Raises:
        InputError: an argument is outside what is allowed, or a batch takes longer than a minute.
        ConfigError, OutputError: the journal cannot be used, see :class:`hercules_fast.tables.RecordFile`.
        InterruptedRun: Ctrl-C; ``partial`` is a :class:`ServiceMeasurement` of what was visited, None without any.
    """
    usable = _cpus(cpus)
    _check_numbers(seconds, warmup, noise_limit, idle_w, tdp_w, base_w)
    if tuple(stages) not in STAGES:
        raise InputError(f"stages: is {stages!r}; allowed are {', '.join(map(str, STAGES))}")
    if len(stages) > 1 and len(usable) < 2:
        raise InputError(f"stages: {tuple(stages)} need 2 CPUs; there is {len(usable)}")
    own = _engine(engine, seed)
    items = _lattice("batches", batches, own.max_items)
    widths = _lattice("operator_cores", operator_cores, len(usable), power_of_two=True)
    counts = _lattice("threads", threads, len(usable))
    places = list(_places(stages, widths, counts, items, len(usable)))
    names = {"server": server, "workload": own.model.name if workload is None else workload}
    for name, text in names.items():
        if not (isinstance(text, str) and text and text.isprintable()):
            raise InputError(f"{name}: is {text!r}; allowed is a name that can be printed, not empty")
    described = dict(own.describe())
    version = _core.build_info()["version"]
    same = {name: value for name, value in described.items() if name not in FLEETING}
    header = {"model": own.model.name, "engine": same, "cpus": list(usable), "version": version}
    interrupted = True
    started = time.monotonic()
    with nullcontext() if journal is None else RecordFile(journal, SCHEMA, header) as log:
        run = Visits(own, places, usable, warmup, log, progress)
        try:
            run.probe("before")
            if idle_w is None:
                run.meter(energy_meter())
            run.visit_all(started + seconds)
            run.smooth(noise_limit, started + MOST_TIMES * seconds)
            run.probe("after")
            interrupted = False
        except KeyboardInterrupt as stop:
            if "before" not in run.noise or not run.visits:
                raise InterruptedRun("interrupted before the first visit was over") from stop
        energy = _energy(run, idle_w, tdp_w, base_w)
        result = _result(run, noise_limit, energy, names, described, time.monotonic() - started)
    if interrupted:
        raise InterruptedRun(f"interrupted after {run.done} of {run.total} visits", result)
    return result


# --- arguments --------------------------------------------------------------------------------------------------------


def _engine(given: EngineLike | Model, seed: int) -> EngineLike:
    if isinstance(given, Model):
        return Engine.build(given, seed=seed)
    if not all(hasattr(given, name) for name in ("worker", "model", "max_items", "describe")):
        raise DTypeError(f"engine: is of type {type(given).__name__}; allowed is an Engine or a Model")
    return given


def _cpus(given: Sequence[int] | None) -> tuple[int, ...]:
    cores = usable_cores()
    if given is None:
        return tuple(cores.cpus[: cores.count])
    found = tuple(given) if isinstance(given, Iterable) else ()
    if not found or len(set(found)) < len(found) or not set(found) <= set(cores.cpus):
        raise InputError(f"cpus: is {given!r}; allowed are different ones of {list(cores.cpus)}")
    return found


def _check_numbers(
    seconds: float,
    warmup: float,
    noise_limit: float,
    idle_w: float | None,
    tdp_w: float | None,
    base_w: float | None,
) -> None:
    for name, value, most in (("seconds", seconds, 1e6), ("warmup", warmup, 0.9), ("noise_limit", noise_limit, 1.0)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise InputError(f"{name}: is {value!r}; allowed is a number from 0 to {most:g}")
    if (idle_w is None) != (tdp_w is None):
        raise InputError("idle_w, tdp_w: one is given; allowed are both or neither")
    for name, watts in (("idle_w", idle_w), ("tdp_w", tdp_w), ("base_w", base_w)):
        is_number = isinstance(watts, int | float) and not isinstance(watts, bool)
        if watts is not None and not (is_number and math.isfinite(watts) and watts >= 0):
            raise InputError(f"{name}: is {watts!r}; allowed is a number of W, finite and >= 0")
    if idle_w is not None and tdp_w is not None and tdp_w < idle_w:
        raise InputError(f"tdp_w: is {tdp_w}; allowed is >= idle_w, {idle_w}")


def _lattice(name: str, given: Sequence[int] | None, most: int, *, power_of_two: bool = False) -> tuple[int, ...]:
    """``given``, sorted and checked, or 1, 2, 4, ... up to ``most`` (and that, unless ``power_of_two``)."""
    if given is None:
        doubling = [1 << k for k in range(most.bit_length())]
        return tuple(doubling if power_of_two else sorted({*doubling, most}))
    numbers = tuple(given) if isinstance(given, Iterable) else ()
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError(f"{name}: is {given!r}; allowed are different numbers, at least one")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 1 <= number <= most:
            raise InputError(f"{name}: has {number!r}; allowed are whole numbers from 1 to {most}")
    return tuple(sorted(int(number) for number in numbers))


def _places(
    stages: Sequence[str], widths: Sequence[int], counts: Sequence[int], batches: Sequence[int], cores: int
) -> Iterator[Place]:
    """All places, as a service table needs them."""
    fitting = {o: {n for n in (1, *counts) if o * n <= cores} for o in widths}
    most = max(o * n for o, own in fitting.items() for n in own)
    for stage in stages:
        for o, own in fitting.items():
            for n in sorted({*own, most // o}):
                for batch in batches:
                    yield stage, o, n, batch


# --- noise, energy, result --------------------------------------------------------------------------------------------


def _energy(run: Visits, idle_w: float | None, tdp_w: float | None, base_w: float | None) -> Energy:
    if idle_w is not None and tdp_w is not None:
        return Energy(origin="user", source="as given", idle_w=idle_w, tdp_w=tdp_w, base_w=base_w or 0.0)
    rest_w, busy_w = run.rest_w, run.busy_watts()
    if rest_w is not None and busy_w is not None:
        source = f"{run.energy_source}, at rest and with all cores busy"
        return Energy(origin="measured", source=source, idle_w=rest_w, tdp_w=max(busy_w, rest_w), base_w=base_w or 0.0)
    idle, tdp, source = _assumed_watts(run.capacity)
    return Energy(origin="assumed", source=source, idle_w=idle, tdp_w=tdp, base_w=base_w or 0.0)


def _marked(row: EfficiencyRow) -> EfficiencyRow:
    """The row with the warning that it deserves."""
    return replace(row, reason=f"{row.reason}; measured on a noisy machine, not certified")


def _assumed_watts(cores: int) -> tuple[float, float, str]:
    """Watts at rest and at full use of so many cores of the catalogue's server :data:`LIKE`."""
    like = catalogue_server(LIKE)
    share = cores / like.cpu.cores
    idle = like.cpu.idle_fraction * like.cpu.tdp_w + like.memory.idle_fraction * like.memory.tdp_w
    source = f"no meter; {cores} of {like.cpu.cores} cores of server {like.name} of the catalogue"
    return share * idle, share * like.component_tdp_w, source


def _result(
    run: Visits,
    noise_limit: float,
    energy: Energy,
    names: Mapping[str, str],
    engine: Mapping[str, Any],
    seconds: float,
) -> ServiceMeasurement:
    cause = "; ".join(_causes(run, noise_limit))
    complete = "after" in run.noise
    clock: Clock = "cpu" if cause else "wall"
    points = run.points()
    notes = [f"measured on this machine: {len(points)} points, {run.done} visits, engine {engine.get('backend', '')}"]
    if cause:
        notes.append(f"not certified: {cause}")
        notes.append("thread-CPU times; with several operator cores wall times of services that kept their core")
    extra = sum(len(visits) > ROUNDS for visits in run.visits.values())
    if extra:
        notes.append(f"{extra} points were measured again, because times fell there")
    notes.append(f"power {energy.origin}: {energy.source}")
    try:
        table = measured_table(
            measured(points, clock),
            **names,
            idle_w=energy.idle_w,
            tdp_w=energy.tdp_w,
            base_w=energy.base_w,
            large_dips="pool",
            notes=notes,
        )
    except ConfigError:
        if complete:
            raise
        table = None
    return ServiceMeasurement(
        table=table,
        points=points,
        clock=clock,
        noise_before=run.noise["before"],
        noise_after=run.noise.get("after"),
        lost_share=run.lost_share(),
        noise_limit=noise_limit,
        certified=not cause,
        cause=cause,
        energy=energy,
        engine=engine,
        cpus=run.cpus,
        seconds=seconds,
        complete=complete,
    )


def _causes(run: Visits, noise_limit: float) -> Iterator[str]:
    """Why the figures are not certified."""
    noisy = {when: cause for when, worst, cause in run.probes if worst > noise_limit}
    yield from (f"{when}: {cause}" for when, cause in noisy.items())
    if (lost := run.lost_share()) > noise_limit:
        yield f"during: {lost:.2%} of the time was lost to others; allowed is {noise_limit:.2%}"
    if "after" not in run.noise:
        yield "it did not come to its end"
