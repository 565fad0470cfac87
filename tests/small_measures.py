"""A model whose service times are known, on a machine whose noise is: for tests of what is measured on this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hercules_fast import models
from hercules_fast.measure import Spin, service, visits

Law = Callable[[str, int, int, int], float]
"""Seconds by stage, operator cores, threads, batch."""


def law(stage: str, cores: int, threads: int, batch: int) -> float:
    """Grows with the batch and the threads, falls with the cores."""
    base, per_item = {"model": (4e-4, 3e-5), "sparse": (2e-4, 2e-5), "dense": (1e-4, 1e-5)}[stage]
    return (base + per_item * batch / cores) * (1 + 0.05 * (threads - 1))


@dataclass(frozen=True)
class SmallWorker:
    """A worker of :class:`SmallEngine`."""

    stage: str
    cores: int

    def __call__(self, query: int, items: int, payload: Any) -> object:
        return ("rows", query, items)


@dataclass(frozen=True)
class SmallEngine:
    """What ``measure_service`` asks of an engine."""

    max_items: int = 64
    model: Any = field(default_factory=lambda: models.model("dlrm-rmc1"))

    def worker(self, operator_cores: int, *, stage: Any, cpus: Any) -> SmallWorker:
        assert len(cpus) == operator_cores
        return SmallWorker(stage, operator_cores)

    def describe(self) -> Mapping[str, Any]:
        return {"backend": "small"}


@dataclass(frozen=True)
class SpinEngine:
    """Real services: a core kept busy for as long as :func:`law` says of one thread, whatever else runs."""

    max_items: int = 16
    model: Any = field(default_factory=lambda: models.model("dlrm-rmc1"))

    def worker(self, operator_cores: int, *, stage: Any, cpus: Any) -> Spin:
        empty = law(stage, operator_cores, 1, 0)
        return Spin(empty, law(stage, operator_cores, 1, 1) - empty)

    def describe(self) -> Mapping[str, Any]:
        return {"backend": "spin"}


@dataclass(frozen=True)
class SmallNoise:
    """What a probe saw."""

    worst: float

    def cause(self) -> str:
        return f"CPU 0 lost {self.worst:.0%}"

    def to_dict(self) -> dict[str, Any]:
        return {"worst": self.worst}


@dataclass
class Machine:
    """A machine without a clock of its own: time passes only in services. ``stalls``: share of services that lose 9
    times their time to others; ``noise``: what each probe sees, the last for good."""

    cores: int = 2
    law: Law = law
    jitter: float = 0.0
    stalls: float = 0.0
    noise: tuple[float, ...] = (0.0,)
    meter: Any = None
    now_s: float = 0.0
    visits: list[tuple[str, int, int, int]] = field(default_factory=list)
    interrupt_after: int | None = None
    disturbed: Callable[[int, tuple[str, int, int, int]], float] = lambda visit, place: 1.0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Machine:
        """Make it this machine."""
        cores = SimpleNamespace(count=self.cores, cpus=tuple(range(self.cores)), quota=None)
        monkeypatch.setattr(service, "usable_cores", lambda: cores)
        monkeypatch.setattr(service, "energy_meter", lambda: self.meter)
        monkeypatch.setattr(visits, "noise_probe", self._probe)
        monkeypatch.setattr(visits, "time_services", self._time_services)
        clock = SimpleNamespace(monotonic=lambda: self.now_s, sleep=self._sleep)
        monkeypatch.setattr(service, "time", clock)
        monkeypatch.setattr(visits, "time", clock)
        self._probes = list(self.noise)
        return self

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def _probe(self, cpus: Any, *, seconds: float) -> SmallNoise:
        self.now_s += seconds
        return SmallNoise(self._probes.pop(0) if len(self._probes) > 1 else self._probes[0])

    def _time_services(self, workers: Any, cpus: Any, sizes: Any, limit_s: float) -> Any:
        inner, rows = workers[0].worker, workers[0].rows
        assert {items: row[2] for items, row in rows.items()} == {
            items: items for items in sizes.tolist() if inner.stage == "dense"
        }
        threads, batch, count = len(workers), int(sizes[0]), len(sizes)
        assert len(set(sum(cpus, ()))) == threads * inner.cores <= self.cores
        place = inner.stage, inner.cores, threads, batch
        if self.interrupt_after is not None and len(self.visits) >= self.interrupt_after:
            raise KeyboardInterrupt
        rng = np.random.default_rng(len(self.visits))
        factor = self.disturbed(len(self.visits), place)
        self.visits.append(place)
        seconds = {items: self.law(*place[:3], items) for items in set(sizes.tolist())}
        cpu = np.array([seconds[items] for items in sizes.tolist()])
        cpu *= factor * (1 + self.jitter * rng.standard_normal(count))
        preempted = rng.random(count) < self.stalls
        wall = np.where(preempted, 10.0 * cpu, cpu)
        thread = (np.arange(count) // 2 % threads).astype(np.int32)  # a batch and its company
        end = np.zeros(count)
        for k in range(threads):
            end[thread == k] = np.cumsum(wall[thread == k])
        ended = end <= limit_s
        end[~ended] = np.nan
        self.now_s += float(np.nanmax(end)) if ended.any() else limit_s
        if self.meter is not None:
            self.meter.use(inner.cores * threads / self.cores)
        return SimpleNamespace(
            part_items=sizes,
            start_s=(end - wall)[None],
            end_s=end[None],
            cpu_s=cpu[None],
            thread=thread[None],
            preempted=preempted[None],
            steal_share=None,
            duration_s=float(np.nanmax(end)) if ended.any() else limit_s,
            service_s=lambda: (end - (end - wall))[None],
        )


@dataclass
class SmallMeter:
    """Power ``idle_w`` at rest, ``span_w`` more with all cores busy."""

    machine: Machine
    idle_w: float = 40.0
    span_w: float = 60.0
    source: str = "a small meter"
    parts: tuple[str, ...] = ("package-0", "gpu-0")
    read_s: float = 0.0
    joules: float = 0.0
    share: float = 0.0

    def use(self, share: float) -> None:
        """How much of the cores the services used that just ended."""
        self.share = share

    def read_j(self) -> Mapping[str, float]:
        passed = self.machine.now_s - self.read_s
        self.joules += passed * (self.idle_w + self.share * self.span_w)
        self.read_s, self.share = self.machine.now_s, 0.0
        return {"package-0": self.joules, "gpu-0": 7 * self.joules}
