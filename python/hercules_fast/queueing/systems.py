"""The system that is simulated, as data: stations in a chain, routes by query size, limits of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from hercules_fast.descriptors import Bound
from hercules_fast.errors import InputError
from hercules_fast.queueing.checks import MAX_SECONDS, Checks, as_tuple, is_whole
from hercules_fast.queueing.laws import Law, LawService, LinearService, Service, TableService
from hercules_fast.tables import SchedulingConfig, ServiceTable

__all__ = ["Interference", "Route", "Station", "System", "Unit"]

Unit = Literal["sub_batch", "query", "fused"]
Interference = Literal["none", "at_start", "dynamic_rate"]

_SPEED = Bound(1e-6, 1e6)
_LATE = Bound(0.0, MAX_SECONDS)
_WAIT = Bound(0.0, 3600.0)
_MAX_THREADS = 4096
_MAX_PARTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Station:
    """One line of jobs, served in order of arrival by ``threads`` identical threads (or devices that fuse queries).

    Raises:
        ConfigError: with every fault, each with its field, value and what is allowed.
    """

    service: Service
    threads: int = 1
    unit: Unit = "sub_batch"
    """What it serves: sub-batches one by one, whole queries one by one, or whole queries together (``fused``)."""
    name: str = ""
    buffer: int | None = None
    """Waiting places; None: no limit. A thread of the station before whose result finds no place keeps it and stays
    blocked. Not for the first station of a route."""
    interference: Interference = "none"
    """``at_start``: a service takes as long as its start says. ``dynamic_rate``: all running work changes its speed
    whenever the number of busy threads changes."""
    slowed_by: int | None = None
    """Station of the route whose busy threads count, from 0: this one (None) or an earlier one."""
    speed: tuple[float, ...] = ()
    """Relative speed while 1, 2, ... threads are busy, from 1; constant beyond its end. Tables hold theirs."""
    max_queries: int | None = None
    """``fused``: most queries of a launch; a device waits for as many, for ``max_items``, or for ``max_wait_s``."""
    max_items: int | None = None
    """``fused``: most items of a launch; a larger query goes alone."""
    max_wait_s: float = 0.0
    """``fused``: longest wait of the head of the line for others; 0: a free device takes what is there."""

    def __post_init__(self) -> None:
        as_tuple(self, "speed")
        checks = Checks(f"station {self.name!r}" if self.name else "station")
        is_service = isinstance(self.service, LawService | LinearService | TableService)
        checks.need(is_service, "service", self.service, "a LawService, LinearService or TableService")
        checks.whole("threads", self.threads, 1, _MAX_THREADS)
        checks.choice("unit", self.unit, ("sub_batch", "query", "fused"))
        checks.need(isinstance(self.name, str), "name", self.name, "text")
        checks.whole("buffer", self.buffer, 0, optional=True)
        if checks.choice("interference", self.interference, ("none", "at_start", "dynamic_rate")):
            self._check_interference(checks)
        checks.whole("slowed_by", self.slowed_by, 0, optional=True)
        self._check_fusion(checks)
        checks.done()

    def _check_interference(self, checks: Checks) -> None:
        if self.interference == "none":
            checks.need(self.slowed_by is None, "slowed_by", self.slowed_by, "None without interference")
            checks.need(not self.speed, "speed", self.speed, "nothing without interference")
        elif isinstance(self.service, TableService):
            checks.need(not self.speed, "speed", self.speed, "nothing, the table's busy axis says it")
        elif checks.need(bool(self.speed), "speed", self.speed, "the speed while 1, 2, ... threads are busy"):
            checks.numbers("speed", self.speed, _SPEED)
            checks.need(self.speed[0] == 1, "speed[0]", self.speed[0], "1, a thread alone")

    def _check_fusion(self, checks: Checks) -> None:
        if self.unit == "fused":
            checks.whole("max_queries", self.max_queries, 1, optional=True)
            checks.whole("max_items", self.max_items, 1, optional=True)
            limited = self.max_queries is not None or self.max_items is not None
            checks.need(limited, "max_queries", None, "a limit of a launch in queries or, as max_items, in items")
            checks.number("max_wait_s", self.max_wait_s, _WAIT)
            return
        for spec in fields(Station):
            if spec.name in ("max_queries", "max_items", "max_wait_s"):
                value = getattr(self, spec.name)
                checks.need(value == spec.default, spec.name, value, "nothing, only fused stations launch together")

    def to_core(self, place: int) -> dict[str, Any]:
        """Plain data for the core; ``place`` in the route, from 0."""
        return {
            "unit": self.unit,
            "threads": int(self.threads),
            "service": self.service.to_core(),
            "buffer": self.buffer,
            "interference": self.interference,
            "slowed_by": place if self.slowed_by is None else int(self.slowed_by),
            "speed": [float(s) for s in self.speed],
            "max_queries": self.max_queries,
            "max_items": self.max_items,
            "max_wait_s": float(self.max_wait_s),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A chain of stations for queries of ``min_size`` items and more (up to the next route's).

    ``batch``: most items of a sub-batch; None: queries are not split. Raises :class:`ConfigError` with every fault.
    """

    stations: tuple[Station, ...]
    batch: int | None = None
    min_size: int = 1

    def __post_init__(self) -> None:
        as_tuple(self, "stations")
        checks = Checks("route")
        checks.whole("batch", self.batch, 1, optional=True)
        checks.whole("min_size", self.min_size, 1)
        is_chain = isinstance(self.stations, tuple) and 1 <= len(self.stations) <= _MAX_PARTS
        if checks.need(is_chain, "stations", self.stations, f"1 to {_MAX_PARTS} Stations"):
            for k, station in enumerate(self.stations):
                at = f"stations[{k}]"
                if not checks.need(isinstance(station, Station), at, station, "a Station"):
                    continue
                if k == 0:
                    no_limit = "None, nothing stands before the first station (System.capacity limits queries)"
                    checks.need(station.buffer is None, f"{at}.buffer", station.buffer, no_limit)
                by = station.slowed_by
                checks.need(not is_whole(by) or by <= k, f"{at}.slowed_by", by, f"a station up to this one, {k}")  # type: ignore[operator]
        checks.done()

    def to_core(self) -> dict[str, Any]:
        """Plain data for the core."""
        stations = [station.to_core(k) for k, station in enumerate(self.stations)]
        return {"min_size": int(self.min_size), "batch": self.batch, "stations": stations}


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """Routes, and limits of the whole. :meth:`pool` and :meth:`chain` make the usual ones.

    Raises:
        ConfigError: with every fault, each with its field, value and what is allowed.
    """

    routes: tuple[Route, ...]
    """By ``min_size``, the first 1; a query takes the last route whose ``min_size`` it reaches."""
    capacity: int | None = None
    """Most queries in the system; a query that finds as many is refused."""
    drop_after_s: float | None = None
    """A query whose first service would start later than this after its arrival is dropped."""

    def __post_init__(self) -> None:
        as_tuple(self, "routes")
        checks = Checks("system")
        checks.whole("capacity", self.capacity, 1, optional=True)
        if self.drop_after_s is not None:
            checks.number("drop_after_s", self.drop_after_s, _LATE)
        is_list = isinstance(self.routes, tuple) and 1 <= len(self.routes) <= _MAX_PARTS
        if checks.need(is_list, "routes", self.routes, f"1 to {_MAX_PARTS} Routes"):
            least = 0
            for r, route in enumerate(self.routes):
                if checks.need(isinstance(route, Route), f"routes[{r}]", route, "a Route"):
                    ok = route.min_size == 1 if r == 0 else route.min_size > least
                    allowed = "1 in the first route" if r == 0 else f"more than in the route before, {least}"
                    checks.need(ok, f"routes[{r}].min_size", route.min_size, allowed)
                    least = route.min_size
        checks.done()

    @classmethod
    def pool(
        cls,
        service: Service,
        threads: int = 1,
        *,
        batch: int | None = None,
        capacity: int | None = None,
        drop_after_s: float | None = None,
        **station: Any,
    ) -> System:
        """One line and ``threads`` threads; ``station`` are further fields of :class:`Station`."""
        pool = Station(service=service, threads=threads, **station)
        return cls.chain(pool, batch=batch, capacity=capacity, drop_after_s=drop_after_s)

    @classmethod
    def chain(
        cls,
        *stations: Station,
        batch: int | None = None,
        capacity: int | None = None,
        drop_after_s: float | None = None,
    ) -> System:
        """Stations one after another, one route for every query."""
        return cls(routes=(Route(stations=stations, batch=batch),), capacity=capacity, drop_after_s=drop_after_s)

    @classmethod
    def from_table(cls, table: ServiceTable, config: SchedulingConfig) -> System:
        """One server under one configuration: a station for each stage that the configuration gives threads.

        Noise of the table becomes lognormal noise of its coefficient of variation, a buffer that of each pool that
        takes sub-batches from the pool before, and an offload a route of its own for large queries.

        Raises:
            InputError: ``config`` belongs to another table, or offloads to a stage that the other one slows down.
            ConfigError: the table asks for what no system is, say a stage slowed by a later one.
        """
        stages = tuple(stage.name for stage in table.stages)
        if config.stages != stages or not 0 <= config.variant < len(table.variants):
            raise InputError(f"config: is of stages {config.stages}, variant {config.variant}; allowed are {stages}")
        used = [s for s, threads in enumerate(config.threads) if threads]
        if not config.offload_items:
            return cls.chain(*(_station(table, config, s, used) for s in used), batch=config.batch)
        if len(used) != 2:
            message = f"is {config.offload_items} with {len(used)} stages in use; allowed is 0 except with two"
            raise InputError(f"config.offload_items: {message}")
        small, large = (Route(stations=(_station(table, config, s, [s]),), batch=config.batch) for s in used)
        if config.offload_items == 1:  # no query is small
            return cls(routes=(large,))
        return cls(routes=(small, replace(large, min_size=config.offload_items)))

    @property
    def stations(self) -> tuple[Station, ...]:
        """Stations of all routes, one after another, as results list them."""
        return tuple(station for route in self.routes for station in route.stations)

    @property
    def station_names(self) -> tuple[str, ...]:
        """A different name for each of :attr:`stations`; a station without name, or of a name in use, has its place."""
        names: list[str] = []
        for r, route in enumerate(self.routes):
            for k, station in enumerate(route.stations):
                place = f"station {k}" if len(self.routes) == 1 else f"route {r} station {k}"
                plain = station.name or place
                names.append(plain if plain not in names else f"{plain} ({place})")
        return tuple(names)

    def to_core(self) -> dict[str, Any]:
        """Plain data for the core: the description that all engines share."""
        routes = [route.to_core() for route in self.routes]
        return {"capacity": self.capacity, "drop_after_s": self.drop_after_s, "routes": routes}


def _station(table: ServiceTable, config: SchedulingConfig, s: int, used: list[int]) -> Station:
    """Stage ``s`` in a route of the stages ``used``."""
    stage = table.stages[s]
    seconds = table.seconds[config.variant, s]
    if np.isnan(seconds[0, 0]):
        name = table.variants[config.variant].name
        raise InputError(f"config.threads[{s}]: is {config.threads[s]}; variant {name!r} does not use {stage.name!r}")
    interference = next(group.interference for group in table.groups if group.name == stage.group)
    by = table.stage_index(stage.busy_of)
    slowed = interference != "none" and by in used  # without it: the time of a thread alone, whoever else is busy
    is_slowed = interference != "none" and by != s and config.threads[by] > 1 and np.any(seconds != seconds[:, :1])
    if config.offload_items and is_slowed:
        message = f"is {config.offload_items}; allowed is 0, since {stage.busy_of!r} slows {stage.name!r} down"
        raise InputError(f"config.offload_items: {message}")
    busy, seconds = (table.busy, seconds) if slowed else (table.busy[:1], seconds[:, :1])
    cv = float(table.noise_cv[s])
    noise = Law(kind="lognormal", sigma=math.sqrt(math.log1p(cv * cv))) if cv > 0 else None
    fused = stage.unit == "fused"
    place = used.index(s)
    takes_parts = place > 0 and table.stages[used[place - 1]].unit == stage.unit == "sub_batch"
    return Station(
        name=stage.name,
        service=TableService(items=table.items, busy=busy, seconds=seconds, noise=noise),  # type: ignore[arg-type]
        threads=config.threads[s],
        unit=stage.unit,
        interference=interference if slowed else "none",
        slowed_by=used.index(by) if slowed else None,
        buffer=config.buffer if takes_parts else None,
        max_items=config.fuse_items if fused else None,
        max_wait_s=config.max_wait_us * 1e-6 if fused else 0.0,
    )
