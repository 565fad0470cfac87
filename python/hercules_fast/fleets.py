"""A fleet: server types, how many of each are in stock, and the workloads to serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hercules_fast.descriptors import FILE_RULES, Bound, Catalog, FileKind, Resolver, load
from hercules_fast.errors import ConfigError, Fault
from hercules_fast.hardware import Server
from hercules_fast.traffic import Workload
from hercules_fast.traffic.files import (
    SlaForm,
    WorkloadForm,
    build_workload,
    sla_faults,
    workload_bounds,
    workload_references,
)

__all__ = ["KINDS", "Fleet", "fleet", "fleet_names", "load_fleet"]

LOCAL_FILES = "local files"
"""Key of ``Fleet.sources`` that tells which local files stand in for catalogue entries of the same name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """``stock`` maps each server's name to the number of machines that may be switched on.

    Where local files stand in for catalogue entries of the same name, ``label`` ends with them and
    ``sources["local files"]`` names them.

    ``reference_server`` is the type in whose equivalents a relative load is spread over the workloads.
    """

    name: str
    label: str
    reference_server: str
    servers: tuple[Server, ...]
    stock: Mapping[str, int]
    workloads: tuple[Workload, ...]
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkloadEntry:
    """A ``[[workloads]]`` table of a fleet file: a workload file without sources of its own."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    model: str
    rows_scale: float = 1.0
    label: str = ""
    sizes: str = "kairos"
    arrivals: str = "poisson"
    popularity: str = "zipf"
    slas: tuple[SlaForm, ...] = ()

    def form(self) -> WorkloadForm:
        """Return this entry as the form of a workload file."""
        return WorkloadForm(
            name=self.name,
            model=self.model,
            rows_scale=self.rows_scale,
            label=self.label,
            sizes=self.sizes,
            arrivals=self.arrivals,
            popularity=self.popularity,
            slas=self.slas,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetForm:
    """A fleet as its file writes it: ``stock`` names the server types, in order."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    label: str = ""
    reference_server: str = ""
    """Default: the first server type."""
    stock: Mapping[str, int]
    workloads: tuple[WorkloadEntry, ...]
    sources: Mapping[str, str] = field(default_factory=dict)


def _fleet_faults(form: FleetForm) -> Iterator[Fault]:
    if not form.stock:
        yield Fault("stock", "empty; at least one server type is needed")
    if not form.workloads:
        yield Fault("workloads", "empty; at least one workload is needed")
    if form.reference_server and form.reference_server.lower() not in [name.lower() for name in form.stock]:
        known = ", ".join(repr(name) for name in form.stock)
        yield Fault("reference_server", f"{form.reference_server!r} is not in stock; allowed are {known}")
    yield from _repeats("stock.{1}", list(form.stock))
    yield from _repeats("workloads[{0}].name", [entry.name for entry in form.workloads])
    for index, entry in enumerate(form.workloads):
        yield from sla_faults(entry.slas, at=f"workloads[{index}].")


def _repeats(at: str, names: Sequence[str]) -> Iterator[Fault]:
    first: dict[str, str] = {}
    for index, name in enumerate(names):
        if name.lower() in first:
            yield Fault(at.format(index, name), f"{name!r} repeats {first[name.lower()]!r}")
        first.setdefault(name.lower(), name)


def _build_fleet(form: FleetForm, resolve: Resolver) -> Fleet:
    servers = [resolve("server", name) for name in form.stock]
    faults: list[Fault] = list(_repeats("stock.{1}", [server.name for server in servers]))
    workloads = []
    for index, entry in enumerate(form.workloads):
        try:
            workloads.append(build_workload(entry.form(), resolve, at=f"workloads[{index}]."))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(form.name, faults)
    # Said in the label as well: that is what every report prints.
    local = f"in place of the catalogue's: {', '.join(resolve.shadows)}" if resolve.shadows else ""
    stock = {server.name: count for server, count in zip(servers, form.stock.values(), strict=True)}
    return Fleet(
        name=form.name,
        label="; ".join(filter(None, (form.label, local))),
        reference_server=next(
            (s.name for s in servers if s.name.lower() == form.reference_server.lower()), servers[0].name
        ),
        servers=tuple(servers),
        stock=stock,
        workloads=tuple(workloads),
        sources={**form.sources, LOCAL_FILES: f"user: {local}"} if local else form.sources,
    )


FLEET: FileKind[Fleet] = FileKind(
    name="fleet",
    form=FleetForm,
    catalog=Path(__file__).parent / "catalog" / "fleet",
    build=_build_fleet,
    bounds={"stock{}": Bound(0, 1_000_000), **workload_bounds("workloads[].")},
    references={"stock{key}": "server", **workload_references("workloads[].")},
    rules=_fleet_faults,
    columns=("workloads[].name",),
    filled=("workloads[].slas",),
)

KINDS: tuple[FileKind[Any], ...] = (FLEET,)

_FLEETS = Catalog(FLEET)


def fleet(name: str) -> Fleet:
    """Return the built-in fleet ``name``; case does not matter. Raises ``UnknownNameError`` with the nearest name."""
    return _FLEETS.get(name)


def fleet_names() -> tuple[str, ...]:
    """Return the built-in fleets."""
    return _FLEETS.names()


def load_fleet(path: str | Path, *, files: Sequence[str | Path] = ()) -> Fleet:
    """Read a fleet from a TOML file.

    The names in it (servers, models, size laws, arrivals, popularity laws) are looked up in ``files``, beside ``path``,
    then in the catalogues. Raises ``ConfigError`` with all faults, or ``MissingFileError``.
    """
    return load(path, FLEET, files=files)
