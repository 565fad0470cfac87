"""Visits to the places of a grid: every thread busy for a while, all places in turn, in rounds.

A *place* is a stage, operator cores, threads that run at the same time, and a batch. Interleaved rounds let a change of
the machine's mood meet all places. In a visit every thread is always busy: all its batches are there at the start.
What counts lies between the warm-up and the moment when the first thread runs out of work.

Each batch of the place is followed by one of another size of the grid, which does not count: a server meets batches of
all sizes, and after one's own kind the caches are warmer than they will be there (by 4 % on a model of many lookups).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import ConfigError, ExecutorError, Fault, InputError
from hercules_fast.host import EnergyMeter, Noise, noise_probe
from hercules_fast.measure.engine import Pooled
from hercules_fast.measure.load import LoadRun, Pool, Spin, Worker, run_load
from hercules_fast.models import Model
from hercules_fast.queueing import Trace
from hercules_fast.tables import MeasuredPoint, Place, RecordFile, dips

__all__ = [
    "ROUNDS",
    "Clock",
    "EngineLike",
    "Progress",
    "ServicePoint",
    "Visits",
    "measured",
    "summed_visit",
    "time_services",
]

ROUNDS = 5
LEAST_ROUNDS = 3
LEAST_EACH = 3
"""Least services of a thread in a visit: one to warm up, one that counts, one while others may have ended."""
MOST_EACH = 10_000
LEAST_VISIT_S = 0.01
"""Threads start some 100 us apart; a visit is long against that."""
ATTEMPTS = 5
LIMIT_S = 60.0
"""Longest that one batch may take."""
EXTRA_ROUNDS = 3
"""Most visits that a place where times fall gets beside the others."""
REST_S = 1.0
PROBE_S = 0.5
ROBUST = 1.4826
"""Standard deviation of a normal law over its median absolute deviation."""

Clock = Literal["wall", "cpu"]
Progress = Callable[[int, int], object]
WorkerLike = Worker | Spin


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
    """Mean wall time of a batch in one thread. This and the next seven: of each round, and the median over rounds."""
    wall_cv: float
    """Coefficient of variation of single services: standard deviation / mean."""
    cpu_ms: float
    """Mean CPU time of the thread, without that of its helpers."""
    cpu_cv: float
    calm_ms: float
    """Mean wall time of services during which the thread kept its core; of all, where none did."""
    calm_cv: float
    median_ms: float
    """Median wall time."""
    spread: float
    """Robust coefficient of variation of the wall time: 1.4826 MAD / median."""
    drift: float
    """Half the distance between the slowest and the fastest round's medians, as a share of ``median_ms``."""
    samples: int
    """Services that count, all rounds together."""
    rounds: int
    preempted_share: float
    """Share of the services during which the system took the core away."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to a place, summed up; seconds."""

    wall_s: float
    wall_cv: float
    cpu_s: float
    cpu_cv: float
    calm_s: float
    calm_cv: float
    median_s: float
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
    """Of the services: what the machine draws at rest while threads start and end is left out."""


class Visits:
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
        self.visits: dict[Place, list[Visit]] = {}
        self.noise: dict[str, Noise] = {}
        """Of this call, ``before`` and ``after``."""
        self.probes: list[tuple[str, float, str]] = []
        """When, worst share, cause; also those of earlier calls, from the journal."""
        self.rest_w: float | None = None
        self.energy_source = ""
        self.done = 0
        self.total = ROUNDS * len(places)
        self._engine = engine
        self._meter: EnergyMeter | None = None
        self._warmup = warmup
        self._log = log
        self._progress = progress
        self._workers: dict[tuple[str, int], list[WorkerLike]] = {}
        self._query = 0
        self._batch_s: dict[Place, float] = {}
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
                visit = Visit(**record["visit"])
            except (KeyError, TypeError, ValueError) as error:
                fault = Fault(f"line {k}", f"does not meet the schema: {error!r}")
                raise ConfigError("journal", [fault]) from error
            if (place := (stage, cores, threads, batch)) in wanted:
                self.visits.setdefault(place, []).append(visit)
                self.done += len(self.visits[place]) <= ROUNDS

    def probe(self, when: str) -> None:
        """Watch how quiet the machine is."""
        noise = self.noise[when] = noise_probe(self.cpus, seconds=PROBE_S)
        self.probes.append((when, noise.worst, noise.cause()))
        if self._log is not None:
            self._log.append({"probe": {"worst": noise.worst, "cause": noise.cause()}})

    def meter(self, meter: EnergyMeter | None) -> None:
        """Read the power while nothing runs, and from now on that of visits; nothing without a meter of CPUs."""
        self._meter = meter
        before, start = self._joules(), time.monotonic()
        if before is not None and meter is not None:
            time.sleep(REST_S)
            self.rest_w = ((self._joules() or before) - before) / (time.monotonic() - start)
            self.energy_source = f"{meter.source} ({', '.join(part for part in meter.parts if _is_cpu(part))})"

    def _joules(self) -> float | None:
        """What packages and memory have used so far; None where that cannot be read, or no longer."""
        if self._meter is None:
            return None
        try:
            parts = {part: joules for part, joules in self._meter.read_j().items() if _is_cpu(part)}
        except OSError:
            parts = {}
        if not parts:
            self._meter = None
            return None
        return sum(parts.values())

    def visit_all(self, deadline: float) -> None:
        """Rounds over all places till ``deadline`` (of ``time.monotonic``), at least ``LEAST_ROUNDS``."""
        self._batch_s = {place: self._pilot(place) for place in self.places}
        for round_ in range(ROUNDS):
            order = self.places if round_ % 2 == 0 else self.places[::-1]
            for place in order:
                if len(self.visits.get(place, ())) > round_:
                    continue
                left = deadline - time.monotonic()
                if round_ >= LEAST_ROUNDS and left <= 0:
                    return
                self._visit(place, max(left, 0.0) / max(self.total - self.done, 1))
                self.done += 1
                self._tell()

    def smooth(self, noise_limit: float, deadline: float) -> None:
        """Visit again the places where times fall, a bounded number of times, till ``deadline``."""
        for _ in range(EXTRA_ROUNDS):
            falling = {place for pair in dips(measured(self.points(), self.clock(noise_limit))) for place in pair}
            for place in self.places:
                if place in falling and time.monotonic() < deadline:
                    self._visit(place, float(np.median([visit.seconds for visit in self.visits[place]])))

    def clock(self, noise_limit: float) -> Clock:
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
        try:
            run, _ = self._load(place, LEAST_EACH, LIMIT_S, company=())
            ended = run.service_s()[0][~np.isnan(run.end_s[0])]
        except ExecutorError:  # a worker that did not come back
            ended = np.empty(0)
        if not ended.size:
            stage, cores, threads, batch = place
            raise InputError(
                f"batches: {batch} items on {threads} threads of {cores} cores (stage {stage!r}) take longer than "
                f"{LIMIT_S:g} s; leave them out"
            )
        return float(np.median(ended))

    def _visit(self, place: Place, visit_s: float) -> None:
        """Measure ``place`` for about ``visit_s`` seconds; 4 times as long, and again, while no service counts."""
        company = tuple(other for other in self.places if other[:3] == place[:3] and other != place)
        batch_s = self._batch_s[place]
        if company:
            batch_s += float(np.mean([self._batch_s[other] for other in company]))
        each = int(max(visit_s, LEAST_VISIT_S) / max(batch_s, 1e-9))
        for _ in range(ATTEMPTS):
            each = min(max(each, LEAST_EACH), MOST_EACH)
            batches = tuple(batch for _, _, _, batch in company)
            run, energy_j = self._load(place, each, LIMIT_S + 20.0 * each * batch_s, company=batches)
            visit = summed_visit(run, place, self._warmup, energy_j)
            if visit is not None:
                break
            each *= 4
        else:
            raise InputError(f"threads: {place[2]} of them never ran at the same time; the machine may be too busy")
        self.visits.setdefault(place, []).append(visit)
        if self._log is not None:
            self._log.append({"place": list(place), "visit": asdict(visit)})

    def _load(
        self, place: Place, each: int, limit_s: float, *, company: tuple[int, ...]
    ) -> tuple[LoadRun, float | None]:
        """A closed loop at ``place``: ``each`` batches for each thread, all there at the start; and its joules."""
        stage, cores, threads, batch = place
        sets = tuple(self.cpus[k * cores : (k + 1) * cores] for k in range(threads))
        workers = self._workers_of(stage, cores, threads)
        sizes = sizes_of(batch, each * threads, company, first := self._query)
        self._query += len(sizes)
        sparse = self._workers_of("sparse", cores, 1)[0] if stage == "dense" else None
        rows = {items: sparse(first, items, None) for items in (batch, *company)} if callable(sparse) else {}
        workers = [_Numbered(worker, first, rows) if callable(worker) else worker for worker in workers]
        before, began = self._joules(), time.monotonic()
        run = time_services(workers, sets, sizes, limit_s)
        after, elapsed_s = self._joules(), time.monotonic() - began
        if before is None or after is None or self.rest_w is None:
            return run, None
        around_s = max(0.0, elapsed_s - run.duration_s)  # threads start and end
        return run, max(0.0, after - before - self.rest_w * around_s)

    def _workers_of(self, stage: str, cores: int, threads: int) -> list[WorkerLike]:
        known = self._workers.setdefault((stage, cores), [])
        for k in range(len(known), threads):
            known.append(self._engine.worker(cores, stage=stage, cpus=self.cpus[k * cores : (k + 1) * cores]))
        return known[:threads]


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A worker whose queries count from ``first``, so that no visit repeats another's inputs; a dense one is handed the
    same pooled ``rows`` of a batch, by its items, again and again."""

    worker: Worker
    first: int
    rows: Mapping[int, object]

    def __call__(self, query: int, items: int, payload: Any) -> object:
        rows = self.rows.get(items)
        return self.worker(self.first + query, items, rows.again() if isinstance(rows, Pooled) else rows)


def sizes_of(batch: int, count: int, company: Sequence[int], seed: int) -> npt.NDArray[np.int64]:
    """A line of ``count`` times ``batch`` items, each followed by a batch of ``company`` if there is any: all of them
    alike often, in an order drawn from ``seed``."""
    if not company:
        return np.full(count, batch, dtype=np.int64)
    line = np.empty(2 * count, dtype=np.int64)
    line[0::2] = batch
    line[1::2] = np.random.default_rng(seed).permutation(np.resize(np.array(company, dtype=np.int64), count))
    return line


def time_services(
    workers: Sequence[WorkerLike], cpus: tuple[tuple[int, ...], ...], sizes: npt.NDArray[np.int64], limit_s: float
) -> LoadRun:
    """Serve a line of batches of ``sizes`` items, every worker always busy; its thread bound to its CPUs."""
    line = Trace(arrival_s=np.zeros(len(sizes)), sizes=sizes)
    return run_load([Pool(name="service", workers=tuple(workers), cpus=cpus)], line, drain_s=limit_s)


def summed_visit(run: LoadRun, place: Place, warmup: float, energy_j: float | None) -> Visit | None:
    """A visit's figures, of the place's own batch; None where no service counts."""
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
    counts = ended & ~first & (run.part_items == place[3]) & (end <= until) & (start >= warmup * run.duration_s)
    if not counts.any():
        return None
    wall = (end - start)[counts]
    kept = wall[~run.preempted[0][counts]]
    (wall_s, wall_cv), (cpu_s, cpu_cv), (calm_s, calm_cv) = map(
        _mean_cv, (wall, cpu[counts], kept if kept.size else wall)
    )
    median_s = float(np.median(wall))
    one_core = place[1] == 1
    all_wall = (end - start)[ended]
    lost = np.where(run.preempted[0], end - start - cpu, 0.0)[ended]
    return Visit(
        wall_s=wall_s,
        wall_cv=wall_cv,
        cpu_s=cpu_s,
        cpu_cv=cpu_cv,
        calm_s=calm_s,
        calm_cv=calm_cv,
        median_s=median_s,
        spread=ROBUST * float(np.median(np.abs(wall - median_s))) / median_s,
        samples=int(wall.size),
        preempted=int(run.preempted[0][counts].sum()),
        lost_s=float(np.maximum(lost, 0.0).sum()) if one_core else 0.0,
        busy_s=float(all_wall.sum()) if one_core else 0.0,
        stolen_s=(run.steal_share or 0.0) * run.duration_s,
        seconds=float(run.duration_s),
        energy_j=energy_j,
    )


def _mean_cv(seconds: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and coefficient of variation; of one service the latter is taken to be 0."""
    mean = float(seconds.mean())
    return mean, float(seconds.std(ddof=1)) / mean if seconds.size > 1 and mean > 0 else 0.0


def _point(place: Place, visits: Sequence[Visit]) -> ServicePoint:
    stage, cores, threads, batch = place
    samples = sum(v.samples for v in visits)
    medians = [v.median_s for v in visits]

    def over_rounds(name: str) -> float:
        return float(np.median([getattr(v, name) for v in visits]))

    return ServicePoint(
        stage=stage,
        operator_cores=cores,
        threads=threads,
        batch=batch,
        wall_ms=1e3 * over_rounds("wall_s"),
        wall_cv=over_rounds("wall_cv"),
        cpu_ms=1e3 * over_rounds("cpu_s"),
        cpu_cv=over_rounds("cpu_cv"),
        calm_ms=1e3 * over_rounds("calm_s"),
        calm_cv=over_rounds("calm_cv"),
        median_ms=1e3 * over_rounds("median_s"),
        spread=over_rounds("spread"),
        drift=(max(medians) - min(medians)) / 2 / over_rounds("median_s"),
        samples=samples,
        rounds=len(visits),
        preempted_share=sum(v.preempted for v in visits) / samples,
    )


def measured(points: Sequence[ServicePoint], clock: Clock) -> list[MeasuredPoint]:
    """The points as the table takes them: means, as the simulator's noise has mean 1."""
    found = []
    for p in points:
        if clock == "wall":
            ms, cv = p.wall_ms, p.wall_cv
        elif p.operator_cores == 1:
            ms, cv = p.cpu_ms, p.cpu_cv
        else:
            ms, cv = p.calm_ms, p.calm_cv
        stage, cores = p.stage, p.operator_cores
        found.append(MeasuredPoint(stage=stage, operator_cores=cores, threads=p.threads, batch=p.batch, ms=ms, cv=cv))
    return found


def _is_cpu(part: str) -> bool:
    """Whether a part of a meter is a package or memory, not a card."""
    return not part.startswith("gpu")
