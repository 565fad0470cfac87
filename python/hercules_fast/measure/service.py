"""Service times of a model on this machine, measured: a :class:`ServiceTable` of origin ``measured``.

A *place* of the grid is a stage, operator cores, threads that run at the same time, and a batch. Each is visited in
several rounds, all places in turn, so that a change of the machine's mood meets all of them. In a visit every thread
is always busy: all its batches are there at the start. What counts lies between the warm-up and the moment when the
first thread runs out of work.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hercules_fast import _core
from hercules_fast.errors import ConfigError, DTypeError, InputError, InterruptedRun
from hercules_fast.models import Model
from hercules_fast.queueing import Trace
from hercules_fast.tables import MeasuredPoint, Place, RecordFile, ServiceTable, dips, measured_table, pooled

if TYPE_CHECKING:
    from hercules_fast.host import Noise
    from hercules_fast.measure.load import LoadRun

__all__ = ["Energy", "ServiceMeasurement", "ServicePoint", "measure_service"]

SCHEMA = "hercules_fast.service_journal/1"
ROUNDS = 5
LEAST_ROUNDS = 3
LEAST_EACH = 3
"""Least services of a thread in a visit: one to warm up, one that counts, one while others may have ended."""
MOST_EACH = 10_000
LEAST_VISIT_S = 0.01
"""Threads start some 100 us apart; a visit is long against that."""
LIMIT_S = 60.0
"""Longest that one batch may take."""
EXTRA_ROUNDS = 3
"""Most visits that a place where times fall gets beside the others."""
REST_S = 1.0
PROBE_S = 0.5
ROBUST = 1.4826
"""Standard deviation of a normal law over its median absolute deviation."""
STAGES = (("model",), ("sparse", "dense"), ("model", "sparse", "dense"))

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], object]
WorkerLike = Callable[[int, int, Any], object]


class EngineLike(Protocol):
    """What is measured: :class:`hercules_fast.measure.Engine`, or one of a user's own."""

    @property
    def model(self) -> Model:
        """What it runs."""

    @property
    def max_items(self) -> int:
        """Largest batch."""

    def worker(self, operator_cores: int, *, stage: Any, cpus: Sequence[int] | None) -> WorkerLike:
        """A worker for one thread."""

    def describe(self) -> Mapping[str, Any]:
        """Provenance, plain data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServicePoint:
    """What was measured at one place."""

    stage: str
    operator_cores: int
    threads: int
    """That ran at the same time, this one included."""
    batch: int
    """Items."""
    wall_ms: float
    """Median over the rounds of the median wall time of a batch in one thread."""
    cpu_ms: float
    """The same of the thread's CPU time, without that of its helpers."""
    calm_ms: float
    """The same of the wall time of services during which the thread kept its core; of all, where none did."""
    spread: float
    """Robust coefficient of variation of single services: 1.4826 MAD / median in a round, median over the rounds."""
    drift: float
    """Half the distance of the slowest and the fastest round's medians, as a share of ``wall_ms``."""
    samples: int
    """Services that count, all rounds together."""
    rounds: int
    preempted_share: float
    """Share of the services during which the system took the core away."""


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
    clock: Literal["wall", "cpu"]
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
        """The points as :meth:`ServiceTable.from_csv` reads them, with the times of the table, dips pooled."""
        header = [f"# {line}" for line in self._facts()]
        rows = [
            f"{p.stage},{p.batch},{p.operator_cores},{p.threads},{p.ms!r},{p.cv!r}"
            for p in (pooled(_measured(self.points, self.clock)) if self.table else _measured(self.points, self.clock))
        ]
        return "\n".join([*header, "stage,batch,cores,threads,ms,cv", *rows]) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table (.npz), all or nothing.

        Raises:
            InputError: there is none, see ``table``.
            OutputError: the file cannot be written.
        """
        if self.table is None:
            raise InputError("table: there is none; the points measured so far are not a whole grid")
        self.table.save(path)

    def explain(self) -> str:
        """What was measured, how sure it is, and where the power comes from, in words."""
        clock = "wall" if self.clock == "wall" else "CPU"
        names = ("cores", 6), ("threads", 8), ("batch", 7), ("wall ms", 11), ("CPU ms", 11), ("spread", 8), ("drift", 8)
        head = "stage  " + "".join(f"{name:>{width}}" for name, width in names) + "       n"
        lines = [*self._facts(), f"the table holds {clock} times", "", head]
        lines += [
            f"{p.stage:<7}{p.operator_cores:>6}{p.threads:>8}{p.batch:>7}{p.wall_ms:>11.4g}{p.cpu_ms:>11.4g}"
            f"{p.spread:>8.1%}{p.drift:>8.1%}{p.samples:>8}"
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
        seconds: how long to measure. Every place gets its least, 3 services of each thread in 3 rounds, even so.
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
    started = time.monotonic()
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
        if not (isinstance(text, str) and text):
            raise InputError(f"{name}: is {text!r}; allowed is a name, not empty")
    described = dict(own.describe())
    version = _core.build_info()["version"]
    header = {"model": own.model.name, "engine": described, "cpus": list(usable), "version": version}
    interrupted = True
    with nullcontext() if journal is None else RecordFile(journal, SCHEMA, header) as log:
        run = _Run(own, places, usable, warmup, log, progress)
        meter = None if idle_w is not None else _energy_meter()
        try:
            run.probe("before")
            run.rest(meter)
            run.visit_all(started + seconds)
            run.smooth(noise_limit)
            run.probe("after")
            interrupted = False
        except KeyboardInterrupt as stop:
            if "before" not in run.noise or not run.visits:
                raise InterruptedRun("interrupted before the first visit was over") from stop
        energy = _energy(run, meter, idle_w, tdp_w, base_w)
        result = _result(run, noise_limit, energy, names, described, time.monotonic() - started)
    if interrupted:
        raise InterruptedRun(f"interrupted after {run.done} of {run.total} visits", result)
    return result


# --- arguments --------------------------------------------------------------------------------------------------------


def _engine(given: EngineLike | Model, seed: int) -> EngineLike:
    if isinstance(given, Model):
        from hercules_fast.measure.engine import Engine

        return Engine.build(given, seed=seed)
    if not all(hasattr(given, name) for name in ("worker", "model", "max_items", "describe")):
        raise DTypeError(f"engine: is of type {type(given).__name__}; allowed is an Engine or a Model")
    return given


def _cpus(given: Sequence[int] | None) -> tuple[int, ...]:
    from hercules_fast.host import usable_cores

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
        if watts is not None and not (math.isfinite(watts) and watts >= 0):
            raise InputError(f"{name}: is {watts}; allowed is finite and >= 0")
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


# --- visits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Visit:
    """One visit to a place, summed up; seconds."""

    wall_s: float
    cpu_s: float
    calm_s: float
    spread: float
    samples: int
    preempted: int
    lost_s: float
    """Wall time without CPU time of services that lost their core, of all services; 0 with several operator cores,
    where the thread also waits for its helpers."""
    busy_s: float
    """Wall time of all services that ``lost_s`` may be a part of."""
    stolen_s: float
    seconds: float
    energy_j: float | None = None


class _Run:
    """The visits of one call, and those of the journal."""

    def __init__(
        self,
        engine: EngineLike,
        places: Sequence[Place],
        cpus: tuple[int, ...],
        warmup: float,
        log: RecordFile | None,
        progress: Progress | None,
    ):
        self.places = places
        self.cpus = cpus
        self.capacity = max(o * n for _, o, n, _ in places)
        self.visits: dict[Place, list[_Visit]] = {}
        self.noise: dict[str, Noise] = {}
        """Of this call, ``before`` and ``after``."""
        self.probes: list[tuple[str, float, str]] = []
        """When, worst share, cause; also those of earlier calls, from the journal."""
        self.rest_w: float | None = None
        self.done = 0
        self.total = ROUNDS * len(places)
        self._engine = engine
        self._meter: Any = None
        self._warmup = warmup
        self._log = log
        self._progress = progress
        self._workers: dict[tuple[str, int], list[WorkerLike]] = {}
        self._query = 0
        if log is not None:
            self._recall(log.records)

    def _recall(self, records: Iterable[Mapping[str, Any]]) -> None:
        wanted = set(self.places)
        for k, record in enumerate(records, 2):
            try:
                if "probe" in record:
                    probe = record["probe"]
                    self.probes.append(("in an earlier call", float(probe["worst"]), str(probe["cause"])))
                    continue
                stage, cores, threads, batch = record["place"]
                visit = _Visit(**record["visit"])
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"journal: record {k} does not meet the schema: {error!r}") from error
            if (place := (stage, cores, threads, batch)) in wanted:
                self.visits.setdefault(place, []).append(visit)
                self.done += len(self.visits[place]) <= ROUNDS

    def probe(self, when: str) -> None:
        """Watch how quiet the machine is."""
        noise = self.noise[when] = _probe(self.cpus)
        self.probes.append((when, noise.worst, noise.cause()))
        if self._log is not None:
            self._log.append({"probe": {"worst": noise.worst, "cause": noise.cause()}})

    def rest(self, meter: Any) -> None:
        """Read the power while nothing runs, and from now on that of visits; nothing without a meter."""
        self._meter = meter
        if meter is not None:
            before, start = meter.read_j(), time.monotonic()
            time.sleep(REST_S)
            self.rest_w = _joules(before, meter.read_j()) / (time.monotonic() - start)

    def visit_all(self, deadline: float) -> None:
        """Rounds over all places till ``deadline`` (of ``time.monotonic``), at least ``LEAST_ROUNDS``."""
        batch_s = {place: self._pilot(place) for place in self.places}
        for round_ in range(ROUNDS):
            order = self.places if round_ % 2 == 0 else self.places[::-1]
            for place in order:
                if len(self.visits.get(place, ())) > round_:
                    continue
                left = deadline - time.monotonic()
                if round_ >= LEAST_ROUNDS and left <= 0:
                    return
                self._visit(place, batch_s[place], max(left, 0.0) / max(self.total - self.done, 1))
                self.done += 1
                self._tell()

    def smooth(self, noise_limit: float) -> None:
        """Visit again the places where times fall, a bounded number of times."""
        for _ in range(EXTRA_ROUNDS):
            clock = self.clock(noise_limit)
            falling = {place for pair in dips(_measured(self.points(), clock)) for place in pair}
            for place in self.places:
                if place in falling:
                    visits = self.visits[place]
                    self._visit(place, visits[0].wall_s, float(np.median([v.seconds for v in visits])))
            if not falling:
                return

    def clock(self, noise_limit: float) -> Literal["wall", "cpu"]:
        """Which time tells more, as far as it is known."""
        return "wall" if max(self.lost_share(), *(worst for _, worst, _ in self.probes)) <= noise_limit else "cpu"

    def lost_share(self) -> float:
        """Share of time lost during all visits."""
        visits = list(chain.from_iterable(self.visits.values()))
        busy, seconds = sum(v.busy_s for v in visits), sum(v.seconds for v in visits)
        lost = sum(v.lost_s for v in visits) / busy if busy > 0 else 0.0
        return max(lost, sum(v.stolen_s for v in visits) / seconds if seconds > 0 else 0.0)

    def points(self) -> tuple[ServicePoint, ...]:
        """Of all places visited, in the order of the grid."""
        return tuple(_point(place, self.visits[place]) for place in self.places if place in self.visits)

    def busy_watts(self) -> float | None:
        """Mean power of the visits that used all cores; None where no energy was read."""
        full = [
            visit
            for (_, cores, threads, _), visits in self.visits.items()
            if cores * threads == self.capacity
            for visit in visits
            if visit.energy_j is not None
        ]
        seconds = sum(visit.seconds for visit in full)
        return sum(visit.energy_j or 0.0 for visit in full) / seconds if seconds > 0 else None

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(min(self.done, self.total), self.total)

    def _pilot(self, place: Place) -> float:
        """Seconds of a batch, about; and the place's first warm-up."""
        run, _ = self._load(place, LEAST_EACH, LIMIT_S)
        ended = run.service_s()[0][~np.isnan(run.end_s[0])]
        if not ended.size:
            stage, cores, threads, batch = place
            raise InputError(
                f"batches: {batch} items on {threads} threads of {cores} cores (stage {stage!r}) take longer than "
                f"{LIMIT_S:g} s; leave them out"
            )
        return float(np.median(ended))

    def _visit(self, place: Place, batch_s: float, visit_s: float) -> None:
        """Measure ``place`` for about ``visit_s`` seconds; twice as long where no service counts."""
        each = int(max(visit_s, LEAST_VISIT_S) / max(batch_s, 1e-9))
        for _ in range(3):
            each = min(max(each, LEAST_EACH), MOST_EACH)
            run, energy_j = self._load(place, each, LIMIT_S + 20.0 * each * batch_s)
            visit = _summed(run, place, self._warmup, energy_j)
            if visit is not None:
                break
            each *= 4
        else:
            raise InputError(f"threads: {place[2]} of them never ran at the same time; the machine may be too busy")
        self.visits.setdefault(place, []).append(visit)
        if self._log is not None:
            self._log.append({"place": list(place), "visit": asdict(visit)})

    def _load(self, place: Place, each: int, limit_s: float) -> tuple[LoadRun, float | None]:
        """A closed loop at ``place``: ``each`` batches for each thread, all there at the start; and its joules."""
        stage, cores, threads, batch = place
        sets = tuple(self.cpus[k * cores : (k + 1) * cores] for k in range(threads))
        workers = self._workers_of(stage, cores, threads)
        first, self._query = self._query, self._query + each * threads
        if stage == "dense":
            sparse = self._workers_of("sparse", cores, 1)[0]
            workers = [_Fed(worker, sparse(first, batch, None)) for worker in workers]
        workers = [_From(first, worker) for worker in workers]
        before = None if self._meter is None else self._meter.read_j()
        run = time_services(workers, sets, batch, each, limit_s)
        return run, None if before is None else _joules(before, self._meter.read_j())

    def _workers_of(self, stage: str, cores: int, threads: int) -> list[WorkerLike]:
        known = self._workers.setdefault((stage, cores), [])
        for k in range(len(known), threads):
            known.append(self._engine.worker(cores, stage=stage, cpus=self.cpus[k * cores : (k + 1) * cores]))
        return known[:threads]


@dataclass(frozen=True, slots=True)
class _From:
    """A worker whose queries are numbered from ``first``, so that no visit repeats another's inputs."""

    first: int
    worker: WorkerLike

    def __call__(self, query: int, items: int, payload: Any) -> object:
        return self.worker(self.first + query, items, payload)


@dataclass(frozen=True, slots=True)
class _Fed:
    """A dense worker that is handed the same pooled rows again and again."""

    worker: WorkerLike
    rows: object

    def __call__(self, query: int, items: int, payload: Any) -> object:
        return self.worker(query, items, self.rows)


def time_services(
    workers: Sequence[WorkerLike], cpus: tuple[tuple[int, ...], ...], batch: int, each: int, limit_s: float
) -> LoadRun:
    """Run ``each`` services of ``batch`` items per worker, every worker always busy; its thread bound to its CPUs."""
    from hercules_fast.measure.load import Pool, run_load

    queries = each * len(workers)
    line = Trace(arrival_s=np.zeros(queries), sizes=np.full(queries, batch, dtype=np.int64))
    return run_load([Pool(name="service", workers=tuple(workers), cpus=cpus)], line, drain_s=limit_s)


def _summed(run: LoadRun, place: Place, warmup: float, energy_j: float | None) -> _Visit | None:
    """A visit's figures; None where no service counts."""
    start, end, cpu, thread = run.start_s[0], run.end_s[0], run.cpu_s[0], run.thread[0]
    ended = ~np.isnan(end)
    last = [end[ended & (thread == k)] for k in range(place[2])]
    if not all(own.size for own in last):
        return None
    first = np.zeros(end.size, dtype=bool)
    for k in range(place[2]):
        own = np.flatnonzero(ended & (thread == k))
        first[own[np.argmin(start[own])]] = True
    until = min(float(own.max()) for own in last)
    counts = ended & ~first & (end <= until) & (start >= warmup * run.duration_s)
    if not counts.any():
        return None
    wall = (end - start)[counts]
    calm = wall[~run.preempted[0][counts]]
    middle = float(np.median(wall))
    one_core = place[1] == 1
    all_wall = (end - start)[ended]
    lost = np.where(run.preempted[0], end - start - cpu, 0.0)[ended]
    return _Visit(
        wall_s=middle,
        cpu_s=float(np.median(cpu[counts])),
        calm_s=float(np.median(calm)) if calm.size else middle,
        spread=ROBUST * float(np.median(np.abs(wall - middle))) / middle,
        samples=int(wall.size),
        preempted=int(run.preempted[0][counts].sum()),
        lost_s=float(np.maximum(lost, 0.0).sum()) if one_core else 0.0,
        busy_s=float(all_wall.sum()) if one_core else 0.0,
        stolen_s=(run.steal_share or 0.0) * run.duration_s,
        seconds=float(run.duration_s),
        energy_j=energy_j,
    )


def _point(place: Place, visits: Sequence[_Visit]) -> ServicePoint:
    stage, cores, threads, batch = place
    wall = np.array([v.wall_s for v in visits])
    middle = float(np.median(wall))
    samples = sum(v.samples for v in visits)
    return ServicePoint(
        stage=stage,
        operator_cores=cores,
        threads=threads,
        batch=batch,
        wall_ms=1e3 * middle,
        cpu_ms=1e3 * float(np.median([v.cpu_s for v in visits])),
        calm_ms=1e3 * float(np.median([v.calm_s for v in visits])),
        spread=float(np.median([v.spread for v in visits])),
        drift=float(wall.max() - wall.min()) / 2 / middle,
        samples=samples,
        rounds=len(visits),
        preempted_share=sum(v.preempted for v in visits) / samples,
    )


def _measured(points: Sequence[ServicePoint], clock: Literal["wall", "cpu"]) -> list[MeasuredPoint]:
    """The points as the table takes them."""
    return [
        MeasuredPoint(
            stage=p.stage,
            operator_cores=p.operator_cores,
            threads=p.threads,
            batch=p.batch,
            ms=p.wall_ms if clock == "wall" else p.cpu_ms if p.operator_cores == 1 else p.calm_ms,
            cv=p.spread,
        )
        for p in points
    ]


# --- noise, energy, result --------------------------------------------------------------------------------------------


def _probe(cpus: tuple[int, ...]) -> Noise:
    from hercules_fast.host import noise_probe

    return noise_probe(cpus, seconds=PROBE_S)


def _energy_meter() -> Any:
    from hercules_fast.host import energy_meter

    return energy_meter()


def _joules(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    return sum(after[name] - before[name] for name in before)


def _energy(run: _Run, meter: Any, idle_w: float | None, tdp_w: float | None, base_w: float | None) -> Energy:
    if idle_w is not None and tdp_w is not None:
        return Energy(origin="user", source="as given", idle_w=idle_w, tdp_w=tdp_w, base_w=base_w or 0.0)
    rest_w, busy_w = run.rest_w, run.busy_watts()
    if rest_w is not None and busy_w is not None:
        source = f"{meter.source}, at rest and with all cores busy"
        return Energy(origin="measured", source=source, idle_w=rest_w, tdp_w=max(busy_w, rest_w), base_w=base_w or 0.0)
    idle, tdp, source = _assumed_watts(len(run.cpus))
    return Energy(origin="assumed", source=source, idle_w=idle, tdp_w=tdp, base_w=base_w or 0.0)


def _assumed_watts(cores: int) -> tuple[float, float, str]:
    """Watts at rest and at full use of so many cores of the catalogue's server T2."""
    from hercules_fast.hardware import server

    like = server("T2")
    share = cores / like.cpu.cores
    idle = like.cpu.idle_fraction * like.cpu.tdp_w + like.memory.idle_fraction * like.memory.tdp_w
    source = f"no meter found; {cores} of {like.cpu.cores} cores of {like.cpu.name} with {like.memory.name}"
    return share * idle, share * like.component_tdp_w, source


def _result(
    run: _Run,
    noise_limit: float,
    energy: Energy,
    names: Mapping[str, str],
    engine: Mapping[str, Any],
    seconds: float,
) -> ServiceMeasurement:
    cause = "; ".join(_causes(run, noise_limit))
    complete = "after" in run.noise
    clock: Literal["wall", "cpu"] = "cpu" if cause else "wall"
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
            _measured(points, clock),
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


def _causes(run: _Run, noise_limit: float) -> Iterator[str]:
    """Why the figures are not certified."""
    noisy = {when: cause for when, worst, cause in run.probes if worst > noise_limit}
    yield from (f"{when}: {cause}" for when, cause in noisy.items())
    if (lost := run.lost_share()) > noise_limit:
        yield f"during: {lost:.2%} of the time was lost to others; allowed is {noise_limit:.2%}"
    if "after" not in run.noise:
        yield "it did not come to its end"
