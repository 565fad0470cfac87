"""Files and catalogue of the traffic room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from math import fsum
from pathlib import Path
from sys import float_info
from typing import Any, ClassVar

import numpy as np

from hercules_fast.descriptors import (
    FILE_RULES,
    FRACTION,
    LATENCY_MS,
    NOT_NEGATIVE,
    PERCENTILE,
    POSITIVE,
    Bound,
    Catalog,
    FileKind,
    Variants,
)
from hercules_fast.descriptors import load as read_file
from hercules_fast.errors import ConfigError, Fault, InputError
from hercules_fast.models import Model
from hercules_fast.traffic.descriptors import Arrivals, LoadTrace, Popularity, SizeLaw, Sla, Workload

__all__ = [
    "KINDS",
    "POPULARITY",
    "SlaForm",
    "WorkloadForm",
    "arrivals",
    "arrivals_names",
    "build_workload",
    "load",
    "load_arrivals",
    "load_names",
    "load_popularity",
    "load_sizes",
    "load_trace",
    "load_workload",
    "popularity",
    "popularity_names",
    "sizes",
    "sizes_names",
    "workload",
    "workload_names",
    "workload_references",
]

_CATALOG = Path(__file__).parent / "catalog"
_ITEMS = Bound(1, 1_000_000)
_WEIGHT_SLACK = 1e-9
_MAX_STATES = 64


def _as_read(form: Any, _resolve: Callable[[str, str], Any]) -> Any:
    return form


def _case(required: str, optional: str = "") -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(required.split()), frozenset(optional.split())


# --- query sizes ------------------------------------------------------------------------------------------------------


def _size_faults(law: SizeLaw) -> Iterator[Fault]:
    if not law.components:
        yield Fault("components", "empty; at least one component is needed")
        return
    total = fsum(component.weight for component in law.components)
    if not abs(total - 1.0) <= _WEIGHT_SLACK:
        yield Fault("components", f"weights sum to {total!r}; allowed: 1 within {_WEIGHT_SLACK:g}")
    for index, component in enumerate(law.components):
        at = f"components[{index}]"
        if component.kind == "uniform" and component.low > component.high:
            yield Fault(f"{at}.low", f"{component.low} is above high = {component.high}")
        if component.kind == "empirical":
            yield from _empirical_faults(at, component.values, component.probabilities)
        for key, interval in (("keep", component.keep), ("redraw", component.redraw)):
            if interval is not None and interval[0] > interval[1]:
                yield Fault(f"{at}.{key}", f"{interval[0]} is above {interval[1]}")
        if (component.keep is None) != (component.redraw is None):
            yield Fault(f"{at}.keep", "keep and redraw go together")


def _empirical_faults(at: str, values: Sequence[int], probabilities: Sequence[float]) -> Iterator[Fault]:
    if len(values) != len(probabilities):
        yield Fault(f"{at}.probabilities", f"{len(probabilities)} probabilities for {len(values)} values")
    if any(a >= b for a, b in pairwise(values)):
        yield Fault(f"{at}.values", "values must increase")
    yield from _sum_faults(f"{at}.probabilities", probabilities)


SIZES: FileKind[SizeLaw] = FileKind(
    name="sizes",
    form=SizeLaw,
    catalog=_CATALOG / "sizes",
    build=_as_read,
    bounds={
        "max_items": _ITEMS,
        "components[].weight": Bound(0.0, 1.0, low_open=True),
        "components[].low": _ITEMS,
        "components[].high": _ITEMS,
        "components[].mu": Bound(-50.0, 50.0),
        "components[].sigma": Bound(0.0, 50.0, low_open=True),
        "components[].mean": Bound(-1e9, 1e9),
        "components[].sd": Bound(0.0, 1e9, low_open=True),
        "components[].value": _ITEMS,
        "components[].values[]": _ITEMS,
        "components[].probabilities[]": FRACTION,
        "components[].keep[]": Bound(1, 10**9),
        "components[].redraw[]": _ITEMS,
    },
    variants=(
        Variants(
            at="components[]",
            by="kind",
            cases={
                "uniform": _case("low high", "keep redraw"),
                "lognormal": _case("mu sigma", "keep redraw"),
                "normal": _case("mean sd", "keep redraw"),
                "fixed": _case("value"),
                "empirical": _case("values probabilities", "keep redraw"),
            },
        ),
    ),
    rules=_size_faults,
)


# --- arrivals ---------------------------------------------------------------------------------------------------------


def _arrival_faults(process: Arrivals) -> Iterator[Fault]:
    match process.kind:
        case "hyperexponential":
            if len(process.probabilities) != len(process.rates):
                yield Fault("rates", f"{len(process.rates)} rates for {len(process.probabilities)} probabilities")
            if 0.0 in process.rates:
                yield Fault("rates", f"{process.rates} has a 0; allowed are rates > 0")
            yield from _sum_faults("probabilities", process.probabilities)
        case "mmpp":
            yield from _rate_faults(process.rates)
            yield from _switch_faults(len(process.rates), process.switch_per_s)
        case "rates":
            pieces = len(process.rates)
            yield from _rate_faults((*process.rates, *process.end_rates))
            if len(process.durations_s) != pieces:
                yield Fault("durations_s", f"{len(process.durations_s)} durations for {pieces} rates")
            if len(process.end_rates) not in (0, pieces):
                yield Fault("end_rates", f"{len(process.end_rates)} end rates for {pieces} rates")
    if process.group:
        yield from _sum_faults("group", process.group)


def _sum_faults(path: str, probabilities: Sequence[float]) -> Iterator[Fault]:
    total = fsum(probabilities)
    if not abs(total - 1.0) <= _WEIGHT_SLACK:
        yield Fault(path, f"sum to {total!r}; allowed: 1 within {_WEIGHT_SLACK:g}")


def _rate_faults(rates: Sequence[float]) -> Iterator[Fault]:
    if not rates or not max(rates) > 0:
        yield Fault("rates", "at least one rate above 0 is needed")


def _switch_faults(states: int, switch_per_s: Sequence[Sequence[float]]) -> Iterator[Fault]:
    """Every state must lead to every other, else the share of time in a state has no limit."""
    if not 2 <= states <= _MAX_STATES:
        yield Fault("rates", f"{states} states; allowed are 2 to {_MAX_STATES}")
    if [len(row) for row in switch_per_s] != [states] * states:
        yield Fault("switch_per_s", f"is not square; allowed is {states} rows of {states} numbers, as there are rates")
        return
    for i, row in enumerate(switch_per_s):
        for j, rate in enumerate(row):
            if not NOT_NEGATIVE.holds(rate):
                yield NOT_NEGATIVE.fault(f"switch_per_s[{i}][{j}]", rate)
    for start in range(states):
        reached, edge = {start}, [start]
        while edge:
            row = switch_per_s[edge.pop()]
            new = {j for j, rate in enumerate(row) if rate > 0} - reached
            reached |= new
            edge += new
        if len(reached) < states:
            missing = min(set(range(states)) - reached)
            yield Fault("switch_per_s", f"state {start} never leads to state {missing}; each must lead to all others")
            return


ARRIVALS: FileKind[Arrivals] = FileKind(
    name="arrivals",
    form=Arrivals,
    catalog=_CATALOG / "arrivals",
    build=_as_read,
    bounds={
        "k": Bound(1, 1000),
        "shape": Bound(0.01, 1e4),
        "sigma": Bound(0.0, 5.0, low_open=True),
        "probabilities[]": Bound(0.0, 1.0, low_open=True),
        "rates[]": NOT_NEGATIVE,
        "mean_ticks": POSITIVE,
        "durations_s[]": Bound(1e-9, 1e12),
        "end_rates[]": NOT_NEGATIVE,
        "amplitude": FRACTION,
        "period_s": Bound(1e-6, 1e12),
        "group[]": FRACTION,
    },
    variants=(
        Variants(
            at="",
            by="kind",
            cases={
                "poisson": _case("", "group"),
                "deterministic": _case("", "group"),
                "erlang": _case("k", "group"),
                "gamma": _case("shape", "group"),
                "lognormal": _case("sigma", "group"),
                "hyperexponential": _case("probabilities rates", "group"),
                "deeprecsys-gap": _case("mean_ticks", "group"),
                "mmpp": _case("rates switch_per_s", "group"),
                "rates": _case("durations_s rates", "end_rates group"),
                "diurnal": _case("amplitude period_s", "group"),
            },
        ),
    ),
    rules=_arrival_faults,
)


# --- popularity of rows -----------------------------------------------------------------------------------------------


_SHARE_ROUNDING = 4 * float_info.epsilon
"""By how much a share for one row may be off that is the difference of two sums of counts near 1."""


def _popularity_faults(law: Popularity) -> Iterator[Fault]:
    if law.kind != "histogram":
        return
    if len(law.rows) != len(law.shares) or not law.rows:
        yield Fault("shares", f"{len(law.shares)} shares for {len(law.rows)} rows; needed are as many, at least one")
        return
    if any(a >= b for a, b in pairwise(law.rows)):
        yield Fault("rows", "must increase")
        return
    if law.shares[-1] != 1.0:
        yield Fault(f"shares[{len(law.shares) - 1}]", f"is {law.shares[-1]!r}; allowed for the last one is 1")
    points = [(0, 0.0), *zip(law.rows, law.shares, strict=True)]
    slopes = [(share - before) / (row - left) for (left, before), (row, share) in pairwise(points)]
    for index, (slope, following) in enumerate(pairwise(slopes)):
        if following > slope * (1 + _WEIGHT_SLACK) + _SHARE_ROUNDING:
            yield Fault(f"shares[{index + 1}]", "rows must be ordered by popularity: these are looked up more often")
            return
    if slopes[-1] < 0:
        yield Fault(f"shares[{len(slopes) - 1}]", "shares must not decrease")


POPULARITY: FileKind[Popularity] = FileKind(
    name="popularity",
    form=Popularity,
    catalog=_CATALOG / "popularity",
    build=_as_read,
    bounds={"exponent": Bound(0.0, 4.0), "rows[]": Bound(1, 1 << 40), "shares[]": FRACTION},
    variants=(
        Variants(
            at="",
            by="kind",
            cases={"uniform": _case(""), "zipf": _case("exponent"), "histogram": _case("rows shares")},
        ),
    ),
    rules=_popularity_faults,
)


# --- load -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadForm:
    """A load profile as its file writes it: relative figures, one per interval, shared by all workloads."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    start: str
    """ISO 8601 time of the first interval, UTC unless it says otherwise."""
    interval_s: float
    shape: tuple[float, ...]
    sources: Mapping[str, str] = field(default_factory=dict)


def _start_of(text: str) -> np.datetime64 | None:
    try:
        moment = datetime.fromisoformat(text)
        utc = moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return np.datetime64(utc.replace(microsecond=0), "s")


def _load_faults(form: LoadForm) -> Iterator[Fault]:
    if _start_of(form.start) is None:
        yield Fault("start", f"is {form.start!r}; allowed is an ISO 8601 time such as 2024-01-01T00:00:00")
    if not form.shape or not max(form.shape) > 0:
        yield Fault("shape", "at least one figure above 0 is needed")


def _build_load(form: LoadForm, _resolve: Callable[[str, str], Any]) -> LoadTrace:
    """Build the trace of one unnamed column; :func:`_for_workloads` repeats it."""
    start = _start_of(form.start)
    steps = np.arange(len(form.shape)) * int(form.interval_s)
    times = np.asarray(start + steps.astype("timedelta64[s]"), dtype="datetime64[s]")
    shape = np.asarray(form.shape, dtype=np.float64)[:, None]
    times.flags.writeable = shape.flags.writeable = False
    return LoadTrace(
        name=form.name,
        workloads=("all",),
        times=times,
        interval_s=form.interval_s,
        qps=shape,
        relative=True,
        origin=form.sources.get("shape", ""),
    )


def _for_workloads(trace: LoadTrace, workloads: Sequence[str]) -> LoadTrace:
    if isinstance(workloads, str) or len(set(workloads)) != len(workloads):
        raise InputError(f"workloads is {workloads!r}; allowed: a sequence of different names")
    if not workloads:
        return trace
    qps = np.repeat(trace.qps, len(workloads), axis=1)
    qps.flags.writeable = False
    return LoadTrace(
        name=trace.name,
        workloads=tuple(workloads),
        times=trace.times,
        interval_s=trace.interval_s,
        qps=qps,
        relative=True,
        origin=trace.origin,
    )


LOAD: FileKind[LoadTrace] = FileKind(
    name="load",
    form=LoadForm,
    catalog=_CATALOG / "load",
    build=_build_load,
    bounds={"interval_s": Bound(1.0, 1e9), "shape[]": NOT_NEGATIVE},
    rules=_load_faults,
)


# --- workloads --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SlaForm:
    """An SLA as files write it: not yet in range, so that a file's faults come all at once."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    percentile: float
    latency_ms: float
    status: str = "assumed"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkloadForm:
    """A workload as files write it: model, size law, arrivals and popularity of rows by name."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    model: str
    rows_scale: float = 1.0
    label: str = ""
    """Label of the scaled model."""
    sizes: str = "kairos"
    arrivals: str = "poisson"
    popularity: str = "zipf"
    slas: tuple[SlaForm, ...] = ()
    """Empty: the model's latency targets."""
    sources: Mapping[str, str] = field(default_factory=dict)


def build_workload(form: WorkloadForm, resolve: Callable[[str, str], Any], at: str = "") -> Workload:
    """Make a workload of its form; raises ``ConfigError`` (path below ``at``) where no SLA can be found."""
    model: Model = resolve("model", form.model)
    slas = tuple(
        Sla(percentile=target.percentile, latency_ms=target.latency_ms, status=target.status)
        for target in form.slas or model.latency_targets
    )
    if not slas:
        raise ConfigError("", [Fault(f"{at}slas", f"missing, and model {model.name!r} has no latency target")])
    if form.rows_scale != 1.0:
        model = model.scaled(form.rows_scale, form.label or f"rows x{form.rows_scale:g}, scaled")
    return Workload(
        name=form.name,
        model=model,
        sizes=resolve("sizes", form.sizes),
        arrivals=resolve("arrivals", form.arrivals),
        slas=slas,
        popularity=resolve("popularity", form.popularity),
    )


def sla_faults(slas: Sequence[SlaForm], at: str = "") -> Iterator[Fault]:
    """Yield promises that a workload makes twice."""
    first: dict[tuple[float, float], int] = {}
    for index, sla in enumerate(slas):
        same = first.setdefault((sla.percentile, sla.latency_ms), index)
        if same != index:
            promise = f"p{sla.percentile:g} <= {sla.latency_ms:g} ms"
            yield Fault(f"{at}slas[{index}]", f"is {promise}, as {at}slas[{same}]; allowed is each promise once")


def _workload_faults(form: WorkloadForm) -> Iterator[Fault]:
    return sla_faults(form.slas)


def workload_references(prefix: str = "") -> dict[str, str]:
    """Return the fields of a :class:`WorkloadForm` that name other descriptors, with their kind."""
    return {f"{prefix}{kind}": kind for kind in ("model", "sizes", "arrivals", "popularity")}


def workload_bounds(prefix: str = "") -> dict[str, Bound]:
    """Return the ranges of a :class:`WorkloadForm`."""
    return {
        f"{prefix}rows_scale": Bound(0.0, 1e6, low_open=True),
        f"{prefix}slas[].percentile": PERCENTILE,
        f"{prefix}slas[].latency_ms": LATENCY_MS,
    }


WORKLOAD: FileKind[Workload] = FileKind(
    name="workload",
    form=WorkloadForm,
    catalog=_CATALOG / "workload",
    build=build_workload,
    bounds=workload_bounds(),
    references=workload_references(),
    rules=_workload_faults,
    columns=("name",),
    filled=("slas",),
)

KINDS: tuple[FileKind[Any], ...] = (SIZES, ARRIVALS, POPULARITY, LOAD, WORKLOAD)

_SIZES, _ARRIVALS, _LOADS, _WORKLOADS = Catalog(SIZES), Catalog(ARRIVALS), Catalog(LOAD), Catalog(WORKLOAD)
_POPULARITIES = Catalog(POPULARITY)


def sizes(name: str) -> SizeLaw:
    """Return the catalogue's size law ``name``; case does not matter. Raises ``UnknownNameError`` with the nearest."""
    return _SIZES.get(name)


def arrivals(name: str) -> Arrivals:
    """Return the catalogue's arrival process ``name``, as :func:`sizes`."""
    return _ARRIVALS.get(name)


def popularity(name: str) -> Popularity:
    """Return the catalogue's law ``name`` of the popularity of rows, as :func:`sizes`."""
    return _POPULARITIES.get(name)


def load(name: str = "week", *, workloads: Sequence[str] = ()) -> LoadTrace:
    """Return the catalogue's load profile ``name`` (default: a week by the hour), relative, peak 1.

    Every one of ``workloads`` gets the same shape; without names there is one column called ``all``.
    """
    return _for_workloads(_LOADS.get(name), workloads)


def workload(name: str) -> Workload:
    """Return the catalogue's workload ``name`` (a model at its public size), as :func:`sizes`."""
    return _WORKLOADS.get(name)


def workload_of(model: Model, slas: Sequence[Sla] | None = None) -> Workload:
    """Return a workload of ``model``: sizes ``kairos``, Poisson arrivals, and ``slas``, or else its own targets."""
    if slas is None:
        slas = [Sla(percentile=t.percentile, latency_ms=t.latency_ms, status=t.status) for t in model.latency_targets]
    return Workload(name=model.name, model=model, sizes=sizes("kairos"), arrivals=arrivals("poisson"), slas=tuple(slas))


def sizes_names() -> tuple[str, ...]:
    """Return the size laws of the catalogue."""
    return _SIZES.names()


def arrivals_names() -> tuple[str, ...]:
    """Return the arrival processes of the catalogue."""
    return _ARRIVALS.names()


def popularity_names() -> tuple[str, ...]:
    """Return the popularity laws of the catalogue."""
    return _POPULARITIES.names()


def load_names() -> tuple[str, ...]:
    """Return the load profiles of the catalogue."""
    return _LOADS.names()


def workload_names() -> tuple[str, ...]:
    """Return the workloads of the catalogue."""
    return _WORKLOADS.names()


def load_sizes(path: str | Path) -> SizeLaw:
    """Read a size law from a TOML file; raises ``ConfigError`` with all of its faults, or ``MissingFileError``."""
    return read_file(path, SIZES)


def load_arrivals(path: str | Path) -> Arrivals:
    """Read an arrival process from a TOML file, as :func:`load_sizes`."""
    return read_file(path, ARRIVALS)


def load_popularity(path: str | Path) -> Popularity:
    """Read a law of the popularity of rows from a TOML file, as :func:`load_sizes`."""
    return read_file(path, POPULARITY)


def load_trace(path: str | Path, *, workloads: Sequence[str] = ()) -> LoadTrace:
    """Read a relative load profile from a TOML file, as :func:`load_sizes`; ``workloads`` as for :func:`load`."""
    return _for_workloads(read_file(path, LOAD), workloads)


def load_workload(path: str | Path, *, files: Sequence[str | Path] = ()) -> Workload:
    """Read a workload from a TOML file.

    The names in it are looked up in ``files``, beside ``path``, then in the catalogue. Raises as :func:`load_sizes`.
    """
    return read_file(path, WORKLOAD, files=files)
