"""Simulations as TOML files: a system, its queries and its promises. Times stand in milliseconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from hercules_fast.descriptors import (
    FILE_RULES,
    LATENCY_MS,
    NOT_NEGATIVE,
    PERCENTILE,
    Bound,
    FileKind,
    Resolver,
    Variants,
    load,
)
from hercules_fast.errors import ConfigError, Fault
from hercules_fast.queueing.checks import MAX_COUNT
from hercules_fast.queueing.laws import LAW_FIELDS, Law, LawFields, LawService, LinearService, Service, TableService
from hercules_fast.queueing.sources import POISSON, QPS, Queries
from hercules_fast.queueing.systems import Interference, Route, Station, System, Unit
from hercules_fast.traffic import Arrivals, Sla
from hercules_fast.traffic.files import ARRIVALS, SlaForm, sla_faults

__all__ = ["KINDS", "Simulation", "load_simulation"]

T = TypeVar("T")

_MS = Bound(1e-9, 1e12)
_EXPONENTIAL = LawFields(kind="exponential")


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """What a file describes: a system, its queries and its promises."""

    name: str
    system: System
    queries: Queries
    slas: tuple[Sla, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceForm:
    """A service as files write it. ``times_ms``: a row per number of items, a column per number of busy threads."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    kind: Literal["law", "linear", "table"]
    law: LawFields = _EXPONENTIAL
    mean_ms: float = 0.0
    base_ms: float = 0.0
    per_item_ms: float = 0.0
    items: tuple[int, ...] = ()
    busy: tuple[int, ...] = (1,)
    times_ms: tuple[tuple[float, ...], ...] = ()
    noise: LawFields | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StationForm:
    """A :class:`Station` as files write it."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    service: ServiceForm
    name: str = ""
    threads: int = 1
    unit: Unit = "sub_batch"
    buffer: int | None = None
    interference: Interference = "none"
    slowed_by: int | None = None
    speed: tuple[float, ...] = ()
    max_queries: int | None = None
    max_items: int | None = None
    max_wait_ms: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteForm:
    """A :class:`Route` as files write it."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    station: tuple[StationForm, ...]
    batch: int | None = None
    min_size: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemForm:
    """The limits of a :class:`System` as files write them."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    capacity: int | None = None
    drop_after_ms: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationForm:
    """A simulation as files write it; ``sizes`` is the name of a size law, empty for one item."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    qps: float
    route: tuple[RouteForm, ...]
    system: SystemForm = SystemForm()
    arrivals: Arrivals = POISSON
    sizes: str = ""
    slas: tuple[SlaForm, ...] = ()


class _Collected:
    """Makes the parts of a description and keeps the faults of those that cannot be made."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def make(self, at: str, build: Callable[..., T], **values: Any) -> T | None:
        """``build(**values)``, or None and its faults, at the path ``at`` of the file and in its words."""
        try:
            return build(**values)
        except ConfigError as error:
            for fault in error.faults:
                path = re.sub(r"(mean|base|per_item|max_wait|drop_after)_s\b", r"\1_ms", fault.path)
                path = path.replace("seconds", "times_ms").replace("stations[", "station[").replace("routes[", "route[")
                self.faults.append(Fault(f"{at}.{path}".removeprefix("."), fault.message))
            return None


def _system(form: SimulationForm, parts: _Collected) -> System | None:
    """The system, or None. What cannot be made is stood in for, so that the faults around it come along."""
    after_ms = form.system.drop_after_ms
    limits: dict[str, Any] = {
        "capacity": form.system.capacity,
        "drop_after_s": None if after_ms is None else after_ms / 1e3,
    }
    parts.make("system", System, routes=(_NOWHERE,), **limits)
    routes = [
        _route(f"route[{r}]", route, parts) or replace(_NOWHERE, min_size=min(max(route.min_size, 1), MAX_COUNT))
        for r, route in enumerate(form.route)
    ]
    system = parts.make("", System, routes=tuple(routes))
    return None if parts.faults or system is None else replace(system, **limits)


def _route(at: str, form: RouteForm, parts: _Collected) -> Route | None:
    stations = [_station(f"{at}.station[{k}]", station, parts) for k, station in enumerate(form.station)]
    usable = tuple(station or _NOWHERE.stations[0] for station in stations)
    return parts.make(at, Route, stations=usable, batch=form.batch, min_size=form.min_size)


def _station(at: str, form: StationForm, parts: _Collected) -> Station | None:
    service = _service(f"{at}.service", form.service, parts) or _STAND_INS[form.service.kind]
    same = ("name", "threads", "unit", "buffer", "interference", "slowed_by", "speed", "max_queries", "max_items")
    values: dict[str, Any] = {name: getattr(form, name) for name in same}
    return parts.make(at, Station, service=service, max_wait_s=form.max_wait_ms / 1e3, **values)


def _service(at: str, form: ServiceForm, parts: _Collected) -> Service | None:
    before = len(parts.faults)
    law = parts.make(f"{at}.law", Law, **asdict(form.law))
    noise = None if form.noise is None else parts.make(f"{at}.noise", Law, **asdict(form.noise))
    for i, row in enumerate(form.times_ms):
        parts.faults += (
            _MS.fault(f"{at}.times_ms[{i}][{b}]", time) for b, time in enumerate(row) if not _MS.holds(time)
        )
    if len(parts.faults) > before:
        return None
    match form.kind:
        case "law":
            return parts.make(at, LawService, mean_s=form.mean_ms / 1e3, law=law)
        case "linear":
            line = {"base_s": form.base_ms / 1e3, "per_item_s": form.per_item_ms / 1e3}
            return parts.make(at, LinearService, **line, noise=noise)
    seconds = tuple(tuple(time / 1e3 for time in row) for row in form.times_ms)
    return parts.make(at, TableService, items=form.items, busy=form.busy, seconds=seconds, noise=noise)


_STAND_INS: dict[str, Service] = {
    "law": LawService(mean_s=1.0),
    "linear": LinearService(base_s=1.0),
    "table": TableService(items=(1,), seconds=((1.0,),)),
}
_NOWHERE = Route(stations=(Station(service=_STAND_INS["law"]),))


def _faults(form: SimulationForm) -> Iterator[Fault]:
    parts = _Collected()
    _system(form, parts)
    yield from parts.faults
    if ARRIVALS.rules is not None:
        for fault in ARRIVALS.rules(form.arrivals):
            yield Fault(f"arrivals.{fault.path}", fault.message)
    yield from sla_faults(form.slas)


def _build(form: SimulationForm, resolve: Resolver) -> Simulation:
    system = _system(form, _Collected())
    assert system is not None, "called only for a form without faults"
    sizes = resolve("sizes", form.sizes) if form.sizes else None
    slas = (Sla(percentile=sla.percentile, latency_ms=sla.latency_ms, status=sla.status) for sla in form.slas)
    queries = Queries(qps=form.qps, arrivals=form.arrivals, sizes=sizes)
    return Simulation(name=form.name, system=system, queries=queries, slas=tuple(slas))


_STATION = "route[].station[]"
_LAW_CASES = {kind: (frozenset(names), frozenset[str]()) for kind, names in LAW_FIELDS.items()}

SIMULATION: FileKind[Simulation] = FileKind(
    name="simulation",
    form=SimulationForm,
    catalog=Path(__file__).parent / "catalog",  # none comes with the package; examples/ has two
    build=_build,
    references={"sizes": "sizes"},
    bounds={
        "qps": QPS,
        "system.drop_after_ms": Bound(0.0, 1e12),
        f"{_STATION}.max_wait_ms": Bound(0.0, 3.6e6),
        f"{_STATION}.service.mean_ms": _MS,
        f"{_STATION}.service.base_ms": NOT_NEGATIVE,
        f"{_STATION}.service.per_item_ms": NOT_NEGATIVE,
        "slas[].percentile": PERCENTILE,
        "slas[].latency_ms": LATENCY_MS,
        **{f"arrivals.{path}": bound for path, bound in ARRIVALS.bounds.items()},
    },
    variants=(
        Variants(
            at=f"{_STATION}.service",
            by="kind",
            cases={
                "law": (frozenset({"mean_ms"}), frozenset({"law"})),
                "linear": (frozenset(), frozenset({"base_ms", "per_item_ms", "noise"})),
                "table": (frozenset({"items", "times_ms"}), frozenset({"busy", "noise"})),
            },
        ),
        Variants(at=f"{_STATION}.service.law", by="kind", cases=_LAW_CASES),
        Variants(at=f"{_STATION}.service.noise", by="kind", cases=_LAW_CASES),
        *(replace(variants, at="arrivals") for variants in ARRIVALS.variants),
    ),
    rules=_faults,
    unsourced=frozenset({"qps", "route", "system", "arrivals", "sizes", "slas"}),
    filled=("route", "route[].station", "slas"),
)

KINDS: tuple[FileKind[Any], ...] = (SIMULATION,)


def load_simulation(path: str | Path) -> Simulation:
    """Read a simulation from a TOML file (see ``docs/simulator.md``).

    Raises ``ConfigError`` with all of the file's faults, or ``MissingFileError``.
    """
    return load(path, SIMULATION)
