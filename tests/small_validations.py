"""Runs that nobody ran: what real threads would record if services took exactly so long, and a machine made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hercules_fast import _core
from hercules_fast.errors import InterruptedRun
from hercules_fast.host import Cores, Noise
from hercules_fast.measure import LoadRun, Pool, ServiceMeasurement, ServicePoint, comparison, validation
from hercules_fast.measure.service import Energy
from hercules_fast.queueing import Law, LinearService, Queries, Station, System, Trace
from hercules_fast.tables import MeasuredPoint, measured_table
from tests.reference import queueing as twin

LINES: Mapping[str, tuple[float, float]] = {"model": (2e-4, 1e-5), "sparse": (1e-4, 7e-6), "dense": (1e-4, 5e-6)}
"""Seconds of a batch by stage: at no items, and for each."""
QUIET = Noise(cpus=(0,), seconds=0.5, lost_share=(0.001,), longest_gap_us=(80.0,), steal_share=0.0)
NOISY = Noise(cpus=(0,), seconds=0.5, lost_share=(0.4,), longest_gap_us=(9000.0,), steal_share=0.0)


def synthetic_run(
    system: System, trace: Trace, *, batch: int | None, seed: int = 0, preempted: float = 0.0, lag_s: float = 0.0
) -> LoadRun:
    """A run of ``trace`` by the simulator's slow twin; ``preempted``: share of services that lost half their time."""
    rng = np.random.default_rng(seed)
    draws: dict[tuple[int, int], float] = {}

    def variate(station: int, index: int) -> float:
        return draws.setdefault((station, index), float(rng.lognormal(0.0, 0.2)))

    assert trace.sizes is not None
    sizes = trace.sizes.tolist()
    found = twin.simulate(system.to_core(), trace.arrival_s.tolist(), sizes, variate)
    parts = [(q, k) for q, size in enumerate(sizes) for k in range(-(-size // (batch or size)))]
    place = {part: line for line, part in enumerate(parts)}
    start_s, end_s = np.full((2, len(found.stations), len(parts)), np.nan)
    for s, station in enumerate(found.stations):
        for start, end, jobs in station.services:
            for job in jobs:
                start_s[s, place[job]], end_s[s, place[job]] = start, end
    wall_s = end_s - start_s
    lost = rng.random(wall_s.shape) < preempted
    last = [sizes[q] - k * (batch or sizes[q]) for q, k in parts]
    return LoadRun(
        arrival_s=trace.arrival_s.copy(),
        sizes=trace.sizes.copy(),
        dispatch_lag_s=np.full(len(sizes), lag_s),
        latency_s=np.array(found.latency_s),
        part_query=np.array([q for q, _ in parts]),
        part_items=np.minimum(last, batch or max(sizes)),
        start_s=start_s,
        end_s=end_s,
        cpu_s=np.where(lost, wall_s / 2, wall_s),
        thread=np.zeros(wall_s.shape, np.int32),
        preempted=lost,
        batch=batch,
        pools=system.station_names,
        threads=tuple(station.threads for station in system.stations),
        duration_s=float(np.nanmax(end_s)),
        complete=True,
        steal_share=0.0,
        generator_lost_share=0.0,
    )


@dataclass
class SmallHost:
    """A machine whose services take ``warm`` times as long under load, rehearsals and runs, as when they were measured,
    and in runs ``slower`` times as long as in rehearsals."""

    cores: int = 2
    warm: float = 1.0
    slower: float = 1.0
    slowed: float = 1.0
    """How many times as long full batches take after the runs as before."""
    spread: float = 0.0
    preempted: Sequence[float] = (0.0,)
    """Share of services that lose half their time, by run; the last for good."""
    rehearsal_preempted: Sequence[float] = (0.0,)
    """The same, by rehearsal: the first is before the prediction, then two are around each run that level b judges."""
    drifts: Sequence[float] = (1.0,)
    """How many times as long services take in each rehearsal, as in the run beside it; the last for good."""
    noise: Sequence[Noise] = (QUIET,)
    """What the probes see, the last for good."""
    service_cause: str = ""
    interrupt_run: int | None = None
    """Ctrl-C comes during this run, from 0."""
    now_s: float = 0.0
    """Time passes in runs, a second around each, half a second around a rehearsal, and a second in measuring."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    rehearsals: list[dict[str, Any]] = field(default_factory=list)
    built: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> SmallHost:
        """Make it this machine, as far as ``validate`` sees."""
        cores = Cores(self.cores, tuple(range(self.cores)), None, None, "made up")
        monkeypatch.setattr(validation, "usable_cores", lambda: cores)
        monkeypatch.setattr(validation, "noise_probe", self._probe)
        monkeypatch.setattr(validation, "Engine", SimpleNamespace(build=self._build))
        monkeypatch.setattr(validation, "measure_service", self._measure)
        monkeypatch.setattr(validation, "run_load", self._run)
        monkeypatch.setattr(validation, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(comparison, "SIMULATED_QUERIES", 100_000)
        monkeypatch.setattr(validation, "MOST_SIMULATED", 1 << 17)
        self._probes = list(self.noise)
        return self

    def _probe(self, cpus: Any, *, seconds: float) -> Noise:
        return self._probes.pop(0) if len(self._probes) > 1 else self._probes[0]

    def _build(self, model: Any, **options: Any) -> Any:
        self.built = {"model": model, **options}

        def worker(cores: int, *, stage: str, cpus: Any) -> Any:
            assert len(cpus) == cores
            return lambda query, items, payload: (stage, cores, cpus)

        return SimpleNamespace(model=model, worker=worker, describe=lambda: {"backend": "small"})

    def _measure(self, engine: Any, **options: Any) -> ServiceMeasurement:
        self.measured = options
        cores = len(options["cpus"])
        points = [
            (s, t, b, 1e3 * (base + each * b))
            for s in options.get("stages", ("model",))
            for t in sorted({1, cores})
            for b in options["batches"]
            for base, each in [LINES[s]]
        ]
        names = {"server": options["server"], "workload": options["workload"]}
        told = [MeasuredPoint(stage=s, operator_cores=1, threads=t, batch=b, ms=ms, cv=0.0) for s, t, b, ms in points]
        self.now_s += 1.0
        return ServiceMeasurement(
            table=measured_table(told, **names, idle_w=1.0, tdp_w=2.0, base_w=0.0),
            points=tuple(_point(*point) for point in points),
            clock="wall",
            noise_before=QUIET,
            noise_after=QUIET,
            lost_share=0.0,
            noise_limit=0.01,
            certified=not self.service_cause,
            cause=self.service_cause,
            energy=Energy(origin="user", source="made up", idle_w=1.0, tdp_w=2.0, base_w=0.0),
            engine={"backend": "small"},
            cpus=options["cpus"],
            seconds=1.0,
            complete=True,
        )

    def _run(self, pools: Sequence[Pool], source: Queries | Trace, **options: Any) -> LoadRun:
        """A rehearsal, whose source is a law; full batches, all there at the start; or a run."""
        number, slower, trace = len(self.runs), self.warm, source
        if isinstance(source, Queries):
            number = -1 - len(self.rehearsals)
            slower *= self.drifts[min(~number, len(self.drifts) - 1)]
            self.rehearsals.append({"source": source, **options})
            drawn = source.to_core(), source.size_pmf(), source.qps, options["queries"], options["seed"], 0, 1
            trace = Trace(**dict(zip(("arrival_s", "sizes"), _core.draw_queries(*drawn), strict=True)))
        elif not source.arrival_s.any():
            slower *= self.slowed if self.runs else 1.0
            assert set(source.sizes.tolist()) == {options["batch"]}
        else:
            slower *= self.slower
            self.runs.append({"pools": pools, "trace": trace, **options})
        assert isinstance(trace, Trace)
        noise = Law(kind="lognormal", sigma=0.2) if self.spread else None
        stations = [
            Station(
                name=pool.name,
                service=LinearService(
                    base_s=slower * LINES[pool.name][0], per_item_s=slower * LINES[pool.name][1], noise=noise
                ),
                threads=len(pool.workers),
                buffer=pool.buffer,
            )
            for pool in pools
        ]
        shares, turn = (self.rehearsal_preempted, ~number) if number < 0 else (self.preempted, number)
        preempted = shares[min(turn, len(shares) - 1)]
        system = System.chain(*stations, batch=options["batch"])
        run = synthetic_run(system, trace, batch=options["batch"], seed=abs(number), preempted=preempted, lag_s=2e-5)
        self.now_s += run.duration_s + (0.5 if number < 0 else 1.0)
        if number == self.interrupt_run:
            raise InterruptedRun("interrupted", run)
        return run


def _point(stage: str, threads: int, batch: int, ms: float) -> ServicePoint:
    return ServicePoint(
        stage=stage,
        operator_cores=1,
        threads=threads,
        batch=batch,
        wall_ms=ms,
        wall_cv=0.0,
        cpu_ms=ms,
        cpu_cv=0.0,
        calm_ms=ms,
        calm_cv=0.0,
        median_ms=ms,
        spread=0.0,
        drift=0.0,
        samples=9,
        rounds=3,
        preempted_share=0.0,
    )
