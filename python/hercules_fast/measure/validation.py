"""Predict what a model does on this machine, run it, and lay the two side by side."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hercules_fast import _core
from hercules_fast.descriptors import Bound
from hercules_fast.errors import DTypeError, InputError, InterruptedRun, OutputError
from hercules_fast.host import LOST_SHARE_LIMIT, Noise, available_memory_bytes, noise_probe, read_system, usable_cores
from hercules_fast.measure.comparison import Expected, LoadPoint, compare, expect, share_lost
from hercules_fast.measure.engine import Engine
from hercules_fast.measure.layout import Cpus, Wanted, as_wanted
from hercules_fast.measure.load import LoadRun, Pool, run_load
from hercules_fast.measure.rehearsal import Rehearsal, service_ratios
from hercules_fast.measure.replaying import MOST_PARTS
from hercules_fast.measure.service import ServiceMeasurement, measure_service
from hercules_fast.measure.verdicts import Prediction, Validation
from hercules_fast.models import Model
from hercules_fast.models import model as model_of
from hercules_fast.queueing import Queries, System, Trace, max_load
from hercules_fast.queueing.checks import Checks
from hercules_fast.tables import SchedulingConfig, ServiceTable, write_atomically
from hercules_fast.traffic import Sla, Workload, workload_of

__all__ = ["validate"]

Progress = Callable[[int, int], None]

PERCENTILES = (50.0, 95.0, 99.0)
OVERLOAD = 1.1
"""Of the predicted max load: where the SLA must be missed."""
BATCHES = (1, 4, 16, 64, 128, 256, 512, 1024)
"""Measured where the search chooses; in between, service times are close to linear."""

SERVER = "this-host"
MOST_BYTES = 1 << 30
"""Of all tables, unless something else is said: far beyond any cache, and soon filled."""
PROBE_S = 1.0
"""Long enough that one gap of some milliseconds does not decide."""
SERVICE_SHARE = 0.2
"""Of the time budget, for service times."""
REHEARSAL_S = 3.0
REHEARSAL_SHARE = 0.04
"""Of the time that is left, for one rehearsal."""
REHEARSALS = 2
"""Most of them before the prediction: another where the gate did not pass."""
LEAST_REHEARSED = 50
"""Queries."""
SPEED_S = 1.0
"""Of full batches, before the runs and after."""
LEAST_TIMED = 3
"""Full batches."""
DRIFT_LIMIT = 0.05
"""Most change of services' time between two rehearsals of a load, and of full batches': others on the host slow caches
and memory down without taking a core. A service half of it off moves the tail of a queue that is busy for three
quarters of the time by four times as much, which is what level b allows."""
LONGEST_RUN_S = 30.0
SHORTEST_RUN_S = 1.0
OVERLOAD_LENGTH = 0.5
"""An overloaded run is so much shorter: its backlog grows as long as it lasts."""
AGAIN_SHARE = 0.25
"""Of the time for runs, kept for those whose gates did not pass: enough for one between two rehearsals."""
AROUND_RUN_S = 1.5
"""Kept free for the simulations of each run, and for its end; another half for each rehearsal beside it."""
DRAIN_S = 5.0
PRECISION = 0.01
"""Relative half-width of the predicted max load's 95 % interval."""
MOST_SIMULATED = 1 << 21
"""Queries of one probe of it: an SLA that is met up to saturation would take a thousand million otherwise."""
MOST_QUERIES = 100_000
"""In one run; percentiles of as many are known well."""


def validate(
    model: str | Model | Workload = "dlrm-rmc1",
    *,
    config: SchedulingConfig | str | None = None,
    sla: Sla | Sequence[Sla] | None = None,
    loads: Sequence[float] = (0.5, 0.7, 0.85),
    seconds: float | None = None,
    time_budget_s: float = 114.0,
    seed: int = 0,
    rows_scale: float | None = None,
    max_bytes: int | None = None,
    backend: Literal["auto", "onnxruntime", "numpy"] = "auto",
    cpus: Sequence[int] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Validation:
    """Predict the max load of a model on this machine, run it at several loads, and compare.

    In order: the machine's noise; the model with random weights; its service times; the best configuration of the
    search on them; a rehearsal, a short run that says how long services take under load, and the max load by it; runs
    under open-loop load at ``loads``, each between two rehearsals, and at 1.0 and 1.1 of the max load; noise again.
    Full batches are timed before the runs and after them: where the machine's speed changed, nothing is certified. A
    load whose gates did not pass is run again where time is left.

    Three levels are judged, on the runs whose noise gate passed: (a) each run against the simulator with that run's
    own service times, (b) the runs at ``loads`` against the service model, as rehearsed around them, with fresh
    arrivals, (c) the measured max load against the predicted one. See ``docs/this-host.md``.

    Where a machine has two cores or more, the generator has the last one and the model the others, whose idle threads
    poll; with one core, or where ``config`` takes them all, all sleep where there is nothing to do.

    Args:
        model: name of the catalogue, a model, or a workload with its own sizes, arrivals and SLAs. A model alone gets
            the query sizes ``kairos``, Poisson arrivals and its own latency targets.
        config: what to run; as text, ``"model 1x1, batch 64"`` (threads x cores) or ``"sparse 1x1, dense 1x1, batch 64,
            buffer 8"``. Default: what the search finds.
        sla: one or more, instead of the model's.
        loads: shares of the predicted max load, above 0 and below 1.
        seconds: length of each run, the overloaded one half of it; default: what the budget leaves.
        time_budget_s: for everything; runs for which no time is left are not made. Ignored by ``seconds``.
        seed: of weights, inputs, arrivals and simulations.
        rows_scale, max_bytes, backend: as in :meth:`Engine.build`, but that the tables take at most 1 GiB (and a
            quarter of the memory) where neither is given: prediction and runs are of the model at this scale.
        cpus: those to use; default: all that this process may.
        out: new directory for the figures as they come: ``validation.json``, ``service.csv``, ``runs/*.npz``.
        progress: called with (steps done, all steps).

    Raises:
        InputError, DTypeError: an argument is outside what is allowed, or no load meets the SLA here.
        OutputError: ``out`` is not empty or cannot be written.
        InterruptedRun: Ctrl-C; ``partial`` is a :class:`Validation` of what was run.
    """
    started = time.monotonic()
    workload = _workload(model, sla)
    loads = _loads(loads)
    _check(workload, seconds, time_budget_s, seed)
    wanted = None if config is None else as_wanted(config)
    usable = usable_cores()
    shared = Cpus.share(_cpus(cpus, usable.cpus), usable.count, None if wanted is None else wanted.cores)
    session = _Session(
        workload=workload,
        loads=loads,
        cpus=shared,
        wanted=wanted,
        seconds=seconds,
        deadline=started + time_budget_s,
        seed=seed,
        folder=None if out is None else _Folder(Path(out)),
        progress=progress,
        inputs={
            "model": workload.model.name,
            "label": workload.model.label,
            "sizes": workload.sizes.name,
            "arrivals": workload.arrivals.name,
            "popularity": workload.popularity.name,
            "config": None if config is None else str(config if isinstance(config, str) else config.describe()),
            "loads": list(loads),
            "seconds": seconds,
            "time_budget_s": time_budget_s,
            "seed": seed,
            "rows_scale": rows_scale,
            "max_bytes": max_bytes,
            "backend": backend,
            "cores": usable.to_dict(),
        },
    )
    if rows_scale is None and max_bytes is None:
        max_bytes = max(min(available_memory_bytes() // 4, MOST_BYTES), 1)
    try:
        session.run(rows_scale, max_bytes, backend)
    except KeyboardInterrupt as stop:
        session.interrupted(stop)
        raise InterruptedRun("interrupted; partial holds what was run", session.result(complete=False)) from stop
    return session.result(complete=session.complete)


# --- arguments --------------------------------------------------------------------------------------------------------


def _workload(model: str | Model | Workload, sla: Sla | Sequence[Sla] | None) -> Workload:
    if isinstance(model, str):
        model = model_of(model)
    if isinstance(model, Model):
        model = workload_of(model)
    if not isinstance(model, Workload):
        raise DTypeError(f"model: is {model!r}; allowed is a name of the catalogue, a Model or a Workload")
    if sla is not None:
        given = (sla,) if isinstance(sla, Sla) else tuple(sla)
        if not given or not all(isinstance(one, Sla) for one in given):
            raise InputError(f"sla: is {sla!r}; allowed is an Sla, or a sequence of them")
        model = replace(model, slas=given)
    if not model.slas:
        raise InputError(f"sla: is None, and {model.name!r} has no latency target; allowed is an Sla")
    return model


def _loads(loads: Sequence[float]) -> tuple[float, ...]:
    checks = Checks("validation")
    found = tuple(loads) if isinstance(loads, Sequence) and not isinstance(loads, str) else ()
    if checks.need(bool(found), "loads", loads, "shares of the predicted max load, at least one"):
        for k, share in enumerate(found):
            checks.number(f"loads[{k}]", share, Bound(0.0, 1.0, low_open=True, high_open=True))
    checks.done()
    return tuple(sorted({float(share) for share in found}))


def _check(workload: Workload, seconds: float | None, time_budget_s: float, seed: int) -> None:
    checks = Checks("validation")
    if seconds is not None:
        checks.number("seconds", seconds, Bound(0.1, 3600.0))
    checks.number("time_budget_s", time_budget_s, Bound(1.0, 86_400.0))
    checks.whole("seed", seed, 0, 2**63 - 1)
    checks.done()


def _cpus(given: Sequence[int] | None, usable: tuple[int, ...]) -> tuple[int, ...]:
    if given is None:
        return usable
    found = tuple(given)
    if not found or len(set(found)) < len(found) or not set(found) <= set(usable):
        raise InputError(f"cpus: is {given!r}; allowed are different ones of {list(usable)}")
    return found


# --- the steps --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Session:
    """A validation under way: what is known so far, written down as it comes."""

    workload: Workload
    loads: tuple[float, ...]
    cpus: Cpus
    wanted: Wanted | None
    seconds: float | None
    deadline: float
    """Of ``time.monotonic``."""
    first_run: float = 0.0
    """The clock when the first load is begun."""
    seed: int
    folder: _Folder | None
    progress: Progress | None
    inputs: Mapping[str, Any]
    complete: bool = True
    notes: list[str] = field(default_factory=list)
    took_s: dict[str, float] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    noise_before: Noise | None = None
    noise_after: Noise | None = None
    service: ServiceMeasurement | None = None
    prediction: Prediction | None = None
    speed_before_s: tuple[float, ...] = ()
    """Mean seconds of a full batch by pool, all threads busy; empty where it is not known."""
    speed_after_s: tuple[float, ...] = ()
    rehearsal_s: float = 0.0
    """Length of one."""
    rehearsed: int = 0
    """Rehearsals so far; each has arrivals of its own."""
    expected: dict[float, Expected] = field(default_factory=dict)
    """By share of the predicted max load: by the rehearsal before the prediction, with the arrivals of the run."""
    points: list[LoadPoint] = field(default_factory=list)

    @property
    def shares(self) -> tuple[float, ...]:
        """Loads to run, of the predicted max load, rising."""
        return (*self.loads, 1.0, OVERLOAD)

    def run(self, rows_scale: float | None, max_bytes: int | None, backend: Any) -> None:
        """All steps; what is known stays with the session whatever happens."""
        with self._step("noise before"):
            self.noise_before = noise_probe(self.cpus.all, seconds=PROBE_S)
        with self._step("engine"):
            engine = Engine.build(
                self.workload.model,
                rows_scale=rows_scale,
                max_bytes=max_bytes,
                backend=backend,
                max_items=max(BATCHES) if self.wanted is None else self.wanted.batch,
                seed=self.seed,
                popularity=self.workload.popularity,
            )
            self.engine = engine.describe()
        with self._step("service times"):
            self.service = self._measure(engine)
        table = self.service.table
        assert table is not None, "a measurement that was not interrupted has one"
        with self._step("prediction"):
            self.prediction = self._choose(self.service, table)
        pools = self._pools(engine, self.prediction.config)
        with self._step("rehearsal"):
            self.prediction = self._rehearse_prediction(self.prediction, pools, table)
            self.speed_before_s = self._speed("before", pools, table)
        self.first_run = time.monotonic()
        for share in self.shares:
            with self._step(f"run at {share:.2f}x"):
                self._run_at(share, pools, table)
        for share in [point.share for point in self.points if not point.counts_for_model]:
            with self._step(f"run at {share:.2f}x again"):
                self._run_again(share, pools, table)
        with self._step("noise after"):
            self.speed_after_s = self._speed("after", pools, table)
            self.noise_after = noise_probe(self.cpus.all, seconds=PROBE_S)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.took_s[name] = time.monotonic() - began
        if self.folder is not None:
            self.folder.write("validation.json", self.result(complete=False).to_json().encode())
        if self.progress is not None:
            self.progress(len(self.took_s), max(5 + len(self.shares), len(self.took_s)))

    def _measure(self, engine: Engine) -> ServiceMeasurement:
        left_s = max(self.deadline - time.monotonic(), 0.0)
        options: dict[str, Any] = {"batches": BATCHES}
        if self.wanted is not None:
            batch = self.wanted.batch
            options["batches"] = sorted({b for b in BATCHES if b < batch} | {batch})
            options["operator_cores"] = sorted({cores for _, _, cores in self.wanted.pools})
            options["stages"] = self.wanted.stages
        found = measure_service(
            engine,
            **options,
            cpus=self.cpus.model,
            seconds=SERVICE_SHARE * left_s,
            seed=self.seed,
            server=SERVER,
            workload=self.workload.name,
            noise_limit=LOST_SHARE_LIMIT,
        )
        if self.folder is not None:
            self.folder.write("service.csv", found.to_csv().encode())
        return found

    def _choose(self, service: ServiceMeasurement, table: ServiceTable) -> Prediction:
        """The best configuration of the search and its max load, or that of the one that was given."""
        if self.wanted is not None:
            config = self.wanted.of(table)
            qps, interval, limit = self._max_load(table, config)
            searched, evaluations = False, 1
        else:
            result = service.search(self.workload, seed=self.seed, threads=1)
            row = result.row
            if row.config is None:
                raise InputError(f"sla: is {_words(self.workload.slas)}; {row.reason}")
            config, qps, interval = row.config, row.qps, (row.qps_lo, row.qps_hi)
            limit = row.reason.removeprefix("limited by ")
            searched, evaluations = True, result.evaluations
        return Prediction(
            config=config,
            rehearsal=None,
            unrehearsed_qps=qps,
            qps=qps,
            interval_qps=interval,
            limit=limit,
            searched=searched,
            evaluations=evaluations,
        )

    def _max_load(self, table: ServiceTable, config: SchedulingConfig) -> tuple[float, tuple[float, float], str]:
        """The highest load of ``config`` that meets the SLA, its interval, and what limits it."""
        work = self.workload
        arrivals = Queries(qps=1.0, arrivals=work.arrivals, sizes=work.sizes)
        found = max_load(
            System.from_table(table, config),
            arrivals,
            sla=work.slas,
            precision=PRECISION,
            seed=self.seed,
            max_queries=MOST_SIMULATED,
            threads=1,
        )
        if found.qps <= 0.0:
            reached = ", ".join(
                f"p{s.percentile:g} {ms:.3g} ms" for s, ms in zip(work.slas, found.unloaded_ms, strict=True)
            )
            raise InputError(f"sla: is {_words(work.slas)}; a query alone takes {reached} in {config.describe()}")
        return found.qps, found.interval_qps, found.limit

    def _rehearse_prediction(self, chosen: Prediction, pools: tuple[Pool, ...], table: ServiceTable) -> Prediction:
        """A short run at the highest of the loads, and the max load with services as they were there."""
        length_s = REHEARSAL_S if self.seconds is None else min(REHEARSAL_S, self.seconds)
        self.rehearsal_s = min(length_s, REHEARSAL_SHARE * max(self.deadline - time.monotonic(), 0.0))
        share, found = self.loads[-1], None
        for attempt in range(REHEARSALS):
            name = f"rehearsal-{share:.2f}" + ("-again" if attempt else "")
            tried = self._rehearse(name, share * chosen.qps, pools, table, chosen.config)
            if tried is not None and (found is None or tried.lost_share < found.lost_share):
                found = tried
            if tried is None or tried.lost_share <= LOST_SHARE_LIMIT:
                break
        if found is None:
            return chosen
        qps, interval, limit = self._max_load(found.stretched(table), chosen.config)
        return replace(chosen, rehearsal=found, qps=qps, interval_qps=interval, limit=limit)

    def _rehearse(
        self, name: str, qps: float, pools: tuple[Pool, ...], table: ServiceTable, config: SchedulingConfig
    ) -> Rehearsal | None:
        """One short run under a load of ``qps``; None where too few queries would come to tell, or they did not end."""
        queries = min(round(qps * self.rehearsal_s), MOST_QUERIES)
        if queries < LEAST_REHEARSED:
            return None  # more of them would take too long
        source = Queries(qps=qps, arrivals=self.workload.arrivals, sizes=self.workload.sizes)
        seed = _other(self.seed, self.rehearsed)
        self.rehearsed += 1
        run = self._loaded(name, pools, source, config.batch, queries=queries, seed=seed)
        if not run.complete:
            self.notes.append(f"{name} does not count: {run.unfinished} queries had not ended")
            return None
        return Rehearsal(
            stages=tuple(pool.name for pool in pools),
            qps=qps,
            ratios=service_ratios(run, System.from_table(table, config)),
            lost_share=share_lost(run, polls=self.cpus.generator is not None),
        )

    def _pools(self, engine: Engine, config: SchedulingConfig) -> tuple[Pool, ...]:
        """The configuration's threads, each on CPUs of its own."""
        wanted = as_wanted(config)
        pools: list[Pool] = []
        for (stage, _, cores), own in zip(wanted.pools, self.cpus.deal(wanted), strict=True):
            workers = tuple(engine.worker(cores, stage=stage, cpus=cpus) for cpus in own)
            pools.append(Pool(stage, workers, cpus=tuple(own), buffer=wanted.buffer if pools else None))
        return tuple(pools)

    def _speed(self, when: str, pools: tuple[Pool, ...], table: ServiceTable) -> tuple[float, ...]:
        """How long full batches take with every thread busy: whether the machine's speed stays what it was."""
        assert self.prediction is not None
        config = self.prediction.config
        place = np.searchsorted(table.items, config.batch)
        batch_s = float(np.nansum(table.seconds[config.variant, :, place, 0]))
        count = min(max(round(SPEED_S / max(batch_s, 1e-6)), LEAST_TIMED), MOST_QUERIES)
        line = Trace(arrival_s=np.zeros(count), sizes=np.full(count, config.batch))
        run = self._loaded(f"speed-{when}", pools, line, config.batch)
        return tuple(float(np.mean(own)) for own in run.service_s()) if run.complete else ()

    def _run_at(self, share: float, pools: tuple[Pool, ...], table: ServiceTable) -> None:
        """One load: draw its arrivals, run, compare; left out, with a note, where the time is over."""
        assert self.prediction is not None
        qps, config, work = share * self.prediction.qps, self.prediction.config, self.workload
        length_s = self._length_s(share)
        if length_s < SHORTEST_RUN_S and self.seconds is None:
            self.complete = False
            self.notes.append(f"no run at {share:.2f}x: the time budget was over")
            return
        most = min(MOST_QUERIES, MOST_PARTS // -(-work.sizes.max_items // config.batch))
        queries = min(max(round(qps * length_s), 1), most)
        self.expected[share] = self._expect(share, queries, table, self.prediction.rehearsal)
        self.points.append(self._load(f"load-{share:.2f}", share, pools, table))

    def _run_again(self, share: float, pools: tuple[Pool, ...], table: ServiceTable) -> None:
        """A load whose gates did not pass, once more where there is time; the new run counts where its gates do."""
        place = [point.share for point in self.points].index(share)
        if self.deadline - time.monotonic() < self.points[place].seconds + self._around_s(share) + PROBE_S + SPEED_S:
            return
        point = self._load(f"load-{share:.2f}-again", share, pools, table)
        if point.counts_for_model:
            self.points[place] = point

    def _expect(
        self,
        share: float,
        queries: int,
        table: ServiceTable,
        rehearsal: Rehearsal | None,
        trace: Trace | None = None,
    ) -> Expected:
        """What the model says of a run at ``share``, with services as they were in ``rehearsal``."""
        assert self.prediction is not None
        work = self.workload
        percentiles = sorted({*PERCENTILES, *(float(sla.percentile) for sla in work.slas)})
        source = Queries(qps=share * self.prediction.qps, arrivals=work.arrivals, sizes=work.sizes)
        stretched = table if rehearsal is None else rehearsal.stretched(table)
        system = System.from_table(stretched, self.prediction.config)
        return expect(system, source, queries, percentiles=percentiles, seed=self.seed, trace=trace)

    def _load(self, name: str, share: float, pools: tuple[Pool, ...], table: ServiceTable) -> LoadPoint:
        """Run the arrivals at ``share``, between two rehearsals where level b judges it, and compare."""
        assert self.prediction is not None
        qps, config = share * self.prediction.qps, self.prediction.config
        expected, before, after = self.expected[share], None, None
        if share in self.loads:
            before = self._rehearse(f"{name}-before", qps, pools, table, config)
        run = self._loaded(name, pools, expected.trace, config.batch)
        if before is not None:
            after = self._rehearse(f"{name}-after", qps, pools, table, config)
        if before is not None and after is not None:
            expected = self._expect(share, len(run.arrival_s), table, before.mean(after), expected.trace)
        point = compare(
            run,
            expected,
            share=share,
            buffer=config.buffer,
            lost_share_limit=LOST_SHARE_LIMIT,
            polls=self.cpus.generator is not None,
        )
        rehearsals = tuple(one for one in (before, after) if one is not None)
        return replace(point, rehearsals=rehearsals, rehearsal_cause=_rehearsal_cause(rehearsals))

    def _loaded(
        self, name: str, pools: tuple[Pool, ...], source: Queries | Trace, batch: int, **options: Any
    ) -> LoadRun:
        """Run ``source`` and keep the record as ``name``."""
        try:
            run = run_load(
                pools,
                source,
                batch=batch,
                generator_cpu=self.cpus.generator,
                drain_s=DRAIN_S,
                polls=self.cpus.generator is not None,
                **options,
            )
        except InterruptedRun as stop:
            if isinstance(stop.partial, LoadRun):
                self._save_run(f"{name}-interrupted", stop.partial)
            raise
        self._save_run(name, run)
        self.notes += [note for note in run.notes if note not in self.notes]
        return run

    def _save_run(self, name: str, run: LoadRun) -> None:
        if self.folder is not None:
            run.save(self.folder.place(f"runs/{name}.npz"))

    def _length_s(self, share: float) -> float:
        """Length of the run at ``share``: its part of the time that is left."""
        part = {s: OVERLOAD_LENGTH if s > 1.0 else 1.0 for s in self.shares}
        if self.seconds is not None:
            return self.seconds * part[share]
        coming = [s for s in self.shares if s >= share]
        left_s = self.deadline - time.monotonic() - PROBE_S - SPEED_S - sum(map(self._around_s, coming))
        parts = sum(part[s] for s in coming)
        least_s = SHORTEST_RUN_S / OVERLOAD_LENGTH * parts  # first tries come before second ones
        left_s -= min(AGAIN_SHARE * (self.deadline - self.first_run), max(left_s - least_s, 0.0))
        return min(left_s / parts, LONGEST_RUN_S) * part[share]

    def _around_s(self, share: float) -> float:
        """Time that the run at ``share`` needs beside its own length."""
        beside = 2 * (self.rehearsal_s + AROUND_RUN_S / 2) if share in self.loads else 0.0
        return AROUND_RUN_S + beside

    def interrupted(self, stop: KeyboardInterrupt) -> None:
        """Keep what an interrupted step had finished."""
        self.complete = False
        partial = getattr(stop, "partial", None)
        if self.service is None and isinstance(partial, ServiceMeasurement) and self.folder is not None:
            self.folder.write("service-interrupted.csv", partial.to_csv().encode())

    def result(self, *, complete: bool) -> Validation:
        """What is known so far."""
        service = self.service
        causes = [] if service is None or service.certified else [service.cause]
        rehearsal = None if self.prediction is None else self.prediction.rehearsal
        if rehearsal is not None and rehearsal.lost_share > LOST_SHARE_LIMIT:
            causes.append(_lost("before the prediction", rehearsal))
        speed = list(zip(self.speed_before_s, self.speed_after_s, strict=False))
        if self.noise_after is not None and not speed:
            causes.append("whether the machine's speed changed is not known: full batches did not end in time")
        drift = max((after / before - 1.0 for before, after in speed), key=abs, default=0.0)
        causes += _changed(1.0 + drift, "a full batch", "after the runs as before")
        return Validation(
            model=self.workload.name,
            slas=self.workload.slas,
            loads=self.loads,
            prediction=self.prediction,
            points=tuple(self.points),
            noise_before=self.noise_before,
            noise_after=self.noise_after,
            service_certified=service is not None and not causes,
            service_cause="; ".join(causes),
            complete=complete,
            notes=tuple(self.notes),
            provenance={
                "inputs": self.inputs,
                "engine": dict(self.engine),
                "service": None if service is None else service.to_dict(),
                "machine": asdict(read_system()),
                "model_cpus": list(self.cpus.model),
                "generator_cpu": self.cpus.generator,
                "versions": {
                    "hercules-fast": _core.build_info()["version"],
                    "numpy": np.__version__,
                    "python": sys.version.split()[0],
                },
                "random_stream_version": _core.build_info()["random_stream_version"],
                "full_batch_s": {"before": self.speed_before_s, "after": self.speed_after_s},
                "seconds": dict(self.took_s),
            },
        )


class _Folder:
    """The directory of a validation; each file is there as a whole or not at all."""

    def __init__(self, path: Path):
        try:
            path.mkdir(parents=True, exist_ok=True)
            taken = any(path.iterdir())
        except OSError as error:
            raise OutputError(f"cannot write to {path}: {error.strerror or error}") from error
        if taken:
            raise OutputError(f"cannot write to {path}: it is not empty; give another directory")
        self._path = path

    def place(self, name: str) -> Path:
        """Where the file ``name`` belongs; its folder is made."""
        target = self._path / name
        try:
            target.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {target.parent}: {error.strerror or error}") from error
        return target

    def write(self, name: str, content: bytes) -> None:
        """Write one file, all or nothing."""
        write_atomically(self.place(name), content)


def _rehearsal_cause(around: Sequence[Rehearsal]) -> str:
    """Why the service model of a run is not certified, by the rehearsals beside it; empty where it is."""
    if not around:
        return ""
    if len(around) < 2:
        return "the rehearsal after the run did not end in time"
    before, after = around
    found = ((when, one) for when, one in (("before", before), ("after", after)) if one.lost_share > LOST_SHARE_LIMIT)
    causes = [_lost(f"{when} the run", one) for when, one in found]
    causes += _changed(before.change(after), "services", "in the rehearsal after the run as before it")
    return "; ".join(causes)


def _changed(times: float, what: str, where: str) -> list[str]:
    """The cause, if ``what`` took so many ``times`` as long that it is not the same machine any more."""
    if abs(times - 1.0) <= DRIFT_LIMIT:
        return []
    allowed = f"allowed is {1 - DRIFT_LIMIT:g} to {1 + DRIFT_LIMIT:g}"
    return [f"the machine's speed changed: {what} took {times:.3f} times as long {where}; {allowed}"]


def _lost(when: str, rehearsal: Rehearsal) -> str:
    return f"in the rehearsal {when} {rehearsal.lost_share:.2%} of the time was lost to others"


def _other(seed: int, draw: int) -> int:
    """A seed that no run has."""
    return (seed + 0x9E3779B97F4A7C15 * (draw + 1)) % 2**63


def _words(slas: Sequence[Sla]) -> str:
    return " and ".join(map(str, slas))
