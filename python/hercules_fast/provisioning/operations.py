"""What operators say beside the load: servers out for maintenance, what energy costs and emits, constraints.

Each is a file of its own (TOML: ``maintenance``, ``prices``, ``constraints``) or made in Python; times are UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hercules_fast.descriptors import FILE_RULES, Bound, FileKind, load, validate
from hercules_fast.errors import Fault, InputError, UnknownNameError
from hercules_fast.provisioning.constraints import (
    COST_MAX,
    HORIZON_MAX,
    LIMIT_RANGE_W,
    TOLERANCE_MAX,
    Constraint,
    FailureDomains,
    FairShare,
    Hysteresis,
    PowerCap,
    Switching,
)
from hercules_fast.provisioning.problem import STOCK_MAX, FloatArray, IntArray

__all__ = [
    "KINDS",
    "Costs",
    "Maintenance",
    "Prices",
    "SiteEnergy",
    "Window",
    "load_constraints",
    "load_maintenance",
    "load_prices",
    "utc_moment",
]

_GRAMS_PER_KG = 1000.0
_WATTS_PER_KW = 1000.0
_SECONDS_PER_HOUR = 3600.0

Times = npt.NDArray[np.datetime64]


# -- maintenance -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """``machines`` servers of a type that are out of use from ``start`` until ``end`` (ISO 8601; UTC)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    server: str
    machines: int
    start: str
    end: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Maintenance:
    """Windows in which part of the stock is out of use; windows of one type add up.

    Raises :class:`ConfigError` with every fault.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    windows: tuple[Window, ...]
    name: str = "maintenance"
    sources: Mapping[str, str] = field(default_factory=dict)

    def stock_over(self, stock: IntArray, servers: Sequence[str], times: Times, interval_s: float) -> IntArray:
        """[T, H] machines that are there in each whole interval, of ``stock`` [H] in the order of ``servers``.

        An interval loses the machines of every window that touches it.

        Raises:
            UnknownNameError: a window's server is not in ``servers``.
            InputError: the windows take more machines of a type than there are.
        """
        validate(MAINTENANCE, self)
        starts, length = times.astype("datetime64[s]"), np.timedelta64(round(interval_s), "s")
        left = np.repeat(stock[None, :], len(times), axis=0)
        for window in self.windows:
            if window.server not in servers:
                raise UnknownNameError.of(f"server of {self.name!r}", window.server, servers)
            begin, end = utc_moment(window.start), utc_moment(window.end)
            left[(starts < end) & (starts + length > begin), servers.index(window.server)] -= window.machines
        if (left < 0).any():
            t, h = np.argwhere(left < 0)[0].tolist()
            raise InputError(
                f"{self.name!r}: interval {times[t]} takes {stock[h] - left[t, h]} {servers[h]}; "
                f"allowed: up to its stock of {stock[h]}"
            )
        return left


def utc_moment(text: str) -> np.datetime64:
    """An ISO 8601 time, with an offset or in UTC. Raises :class:`ValueError`, :class:`OverflowError`."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "s")


def _time_fault(path: str, text: str) -> Iterator[Fault]:
    try:
        utc_moment(text)
    except (ValueError, OverflowError):
        yield Fault(path, f"is {text!r}; allowed is a time such as '2026-01-05T00:00' (UTC) or with an offset")


def _window_faults(form: Maintenance) -> Iterator[Fault]:
    for i, window in enumerate(form.windows):
        faults = [f for name in ("start", "end") for f in _time_fault(f"windows[{i}].{name}", getattr(window, name))]
        yield from faults
        if not faults and not utc_moment(window.start) < utc_moment(window.end):
            yield Fault(f"windows[{i}].end", f"is {window.end!r}; allowed is a time after start, {window.start!r}")


MAINTENANCE: FileKind[Maintenance] = FileKind(
    name="maintenance",
    form=Maintenance,
    catalog=Path(__file__).parent / "catalog" / "maintenance",
    build=lambda form, _: form,
    bounds={"windows[].machines": Bound(1, 10_000_000)},
    rules=_window_faults,
    unsourced=frozenset({"windows"}),
    filled=("windows",),
)


def load_maintenance(path: str | Path) -> Maintenance:
    """Read maintenance windows from a TOML file. Raises :class:`ConfigError`, :class:`MissingFileError`."""
    return load(path, MAINTENANCE)


# -- prices ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteEnergy:
    """Price and carbon intensity of energy at one site, in steps of ``interval_s`` from ``start`` on.

    Without ``start`` the first step begins with the load. One step holds always; more steps must reach to the end of
    the load unless ``repeat`` lets them start over.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    site: str
    price_per_kwh: tuple[float, ...]
    carbon_g_per_kwh: tuple[float, ...] = ()
    """Grams of CO2 equivalent; as many as prices, or none."""
    interval_s: float = 3600.0
    start: str = ""
    repeat: bool = False

    def means(self, times: Times, interval_s: float, what: str) -> FloatArray:
        """[2, T] price and carbon intensity, each the mean over the interval."""
        price = np.array(self.price_per_kwh, dtype=np.float64)
        carbon = np.array(self.carbon_g_per_kwh or np.zeros(len(price)), dtype=np.float64)
        first = utc_moment(self.start) if self.start else times[0].astype("datetime64[s]")
        begin = (times.astype("datetime64[s]") - first).astype(np.float64) / self.interval_s
        end = begin + interval_s / self.interval_s
        steps = len(price)
        if steps == 1:
            return np.repeat([price, carbon], len(times), axis=1)
        if not self.repeat and (begin.min() < 0 or end.max() > steps * (1 + 1e-12)):
            last = first + np.timedelta64(round(steps * self.interval_s), "s")
            raise InputError(
                f"{what}: its {steps} steps last from {first} to {last}, the load from {times[0]} to "
                f"{times[-1] + np.timedelta64(round(interval_s), 's')}; allowed: steps for all of the load, or repeat"
            )
        return np.stack([_mean_of_steps(values, begin, end) for values in (price, carbon)])


def _mean_of_steps(values: FloatArray, begin: FloatArray, end: FloatArray) -> FloatArray:
    """Mean over ``begin``..``end`` (in steps) of a step function that starts over after its last step."""
    total = np.concatenate([[0.0], np.cumsum(values)])

    def integral(at: FloatArray) -> FloatArray:
        lap, rest = np.divmod(at, len(values))
        return np.asarray(lap * total[-1] + np.interp(rest, np.arange(len(total)), total))

    return (integral(end) - integral(begin)) / (end - begin)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What is minimised in place of watts: money for energy, machines and carbon.

    Cost of an interval of dt hours: ``sum machines * dt * (power_kw * (price + lambda * carbon) + machine + lambda *
    embodied)``, with lambda = ``carbon_price_per_kg`` and the site's price and carbon intensity of the interval.
    Raises :class:`ConfigError` with every fault.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    energy: tuple[SiteEnergy, ...]
    sites: Mapping[str, str] = field(default_factory=dict)
    """Server type -> site; may be left out where there is one site."""
    currency: str = "EUR"
    carbon_price_per_kg: float = 0.0
    machine_cost_per_hour: Mapping[str, float] = field(default_factory=dict)
    """Server type -> amortised cost of a machine that is on, beside its energy."""
    embodied_carbon_g_per_hour: Mapping[str, float] = field(default_factory=dict)
    """Server type -> carbon of making a machine, amortised over the hours it is on."""
    name: str = "prices"
    sources: Mapping[str, str] = field(default_factory=dict)

    def over(self, servers: Sequence[str], times: Times, interval_s: float) -> Costs:
        """The prices of every server type in every interval of ``interval_s`` seconds from ``times`` [T] on.

        Raises:
            UnknownNameError: a server type without site, a site without energy, or a name that is no server type.
            InputError: a series that does not last as long as the load, or energy that costs nothing or less in some
                interval (then no plan would be the cheapest).
        """
        validate(PRICES, self)
        sites = [series.site for series in self.energy]
        for what, named in (
            ("sites", self.sites),
            ("machine_cost_per_hour", self.machine_cost_per_hour),
            ("embodied_carbon_g_per_hour", self.embodied_carbon_g_per_hour),
        ):
            for server in named:
                if server not in servers:
                    raise UnknownNameError.of(f"server in {what} of {self.name!r}", server, servers)
        series = [s.means(times, interval_s, f"{self.name!r}, energy of site {s.site!r}") for s in self.energy]
        place = []
        for server in servers:
            site = self.sites.get(server, sites[0] if len(sites) == 1 else None)
            if site is None:
                raise UnknownNameError.of(f"site in {self.name!r} of server", server, self.sites)
            if site not in sites:
                raise UnknownNameError.of(f"site in {self.name!r} of server {server!r}:", site, sites)
            place.append(sites.index(site))
        price, carbon = np.stack([series[k] for k in place], axis=2)
        costs = Costs(
            currency=self.currency,
            carbon_price_per_kg=float(self.carbon_price_per_kg),
            price_per_kwh=price,
            carbon_g_per_kwh=carbon,
            machine_per_hour=np.array([self.machine_cost_per_hour.get(s, 0.0) for s in servers], dtype=np.float64),
            embodied_g_per_hour=np.array(
                [self.embodied_carbon_g_per_hour.get(s, 0.0) for s in servers], dtype=np.float64
            ),
        )
        worth = costs.watt_cost(1.0)
        if (worth <= 0).any():
            t, h = np.argwhere(worth <= 0)[0].tolist()
            raise InputError(
                f"{self.name!r}: energy for {servers[h]} costs {_WATTS_PER_KW * worth[t, h]:g} {self.currency} "
                f"per kWh, carbon included, at {times[t]}; allowed: more than 0"
            )
        return costs


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Costs:
    """Prices of H server types over T intervals; read-only."""

    currency: str
    carbon_price_per_kg: float
    price_per_kwh: FloatArray
    """[T, H]."""
    carbon_g_per_kwh: FloatArray
    """[T, H]."""
    machine_per_hour: FloatArray
    """[H]."""
    embodied_g_per_hour: FloatArray
    """[H]."""

    def watt_cost(self, hours: float) -> FloatArray:
        """[T, H] cost of a watt for ``hours``, its carbon included."""
        per_kwh = self.price_per_kwh + self.carbon_price_per_kg * self.carbon_g_per_kwh / _GRAMS_PER_KG
        return hours / _WATTS_PER_KW * per_kwh

    def machine_cost(self, hours: float) -> FloatArray:
        """[T, H] cost of a machine that is on for ``hours``, beside its energy."""
        per_hour = self.machine_per_hour + self.carbon_price_per_kg * self.embodied_g_per_hour / _GRAMS_PER_KG
        return np.broadcast_to(hours * per_hour, self.price_per_kwh.shape).copy()

    def money(self, watts: FloatArray, machines: npt.NDArray[Any], hours: float) -> FloatArray:
        """[T] money for ``watts`` and ``machines`` [T, H] over ``hours``; the price of carbon is not in it."""
        spent = watts / _WATTS_PER_KW * self.price_per_kwh + machines * self.machine_per_hour
        return np.asarray(hours * spent.sum(axis=1))

    def carbon_kg(self, watts: FloatArray, machines: npt.NDArray[Any], hours: float) -> FloatArray:
        """[T] carbon, of energy and of the making of machines."""
        grams = watts / _WATTS_PER_KW * self.carbon_g_per_kwh + machines * self.embodied_g_per_hour
        return np.asarray(hours * grams.sum(axis=1) / _GRAMS_PER_KG)

    def at(self, intervals: npt.NDArray[np.int64]) -> Costs:
        """Some of the intervals."""
        return replace(
            self, price_per_kwh=self.price_per_kwh[intervals], carbon_g_per_kwh=self.carbon_g_per_kwh[intervals]
        )


def _price_faults(form: Prices) -> Iterator[Fault]:
    for i, series in enumerate(form.energy):
        at = f"energy[{i}]"
        if not series.price_per_kwh:
            yield Fault(f"{at}.price_per_kwh", "is empty; allowed is at least one price")
        if series.carbon_g_per_kwh and len(series.carbon_g_per_kwh) != len(series.price_per_kwh):
            yield Fault(
                f"{at}.carbon_g_per_kwh",
                f"has {len(series.carbon_g_per_kwh)} entries; allowed are as many as prices, "
                f"{len(series.price_per_kwh)}, or none",
            )
        if series.start:
            yield from _time_fault(f"{at}.start", series.start)
    names = [series.site for series in form.energy]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Fault(f"energy[{i}].site", f"repeats {name!r}")


PRICES: FileKind[Prices] = FileKind(
    name="prices",
    form=Prices,
    catalog=Path(__file__).parent / "catalog" / "prices",
    build=lambda form, _: form,
    bounds={
        "energy[].price_per_kwh[]": Bound(-1e6, 1e6),
        "energy[].carbon_g_per_kwh[]": Bound(0.0, 1e6),
        "energy[].interval_s": Bound(1.0, 1e9),
        "carbon_price_per_kg": Bound(0.0, 1e6),
        "machine_cost_per_hour{}": Bound(0.0, 1e6),
        "embodied_carbon_g_per_hour{}": Bound(0.0, 1e9),
    },
    rules=_price_faults,
    unsourced=frozenset(
        {"energy", "sites", "carbon_price_per_kg", "machine_cost_per_hour", "embodied_carbon_g_per_hour"}
    ),
    filled=("energy",),
)


def load_prices(path: str | Path) -> Prices:
    """Read prices from a TOML file. Raises :class:`ConfigError`, :class:`MissingFileError`."""
    return load(path, PRICES)


# -- constraints -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class CapForm:
    """A :class:`PowerCap` in a file."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    servers: tuple[str, ...]
    limit_w: tuple[float, ...]
    """One, or one per interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchingForm:
    """:class:`Switching` in a file: figures by server type."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    cost_on: Mapping[str, float] = field(default_factory=dict)
    ramp: Mapping[str, int] = field(default_factory=dict)
    min_up_intervals: Mapping[str, int] = field(default_factory=dict)
    horizon: int = 12
    initial: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstraintsForm:
    """The content of a file of constraints."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str = "constraints"
    power_caps: tuple[CapForm, ...] = ()
    failure_domains: FailureDomains | None = None
    switching: SwitchingForm | None = None
    hysteresis: Hysteresis | None = None
    fair_share: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)

    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints, caps first."""
        found: list[Constraint | None] = [
            PowerCap(
                name=cap.name, servers=cap.servers, limit_w=cap.limit_w if len(cap.limit_w) > 1 else cap.limit_w[0]
            )
            for cap in self.power_caps
        ]
        switching = None if self.switching is None else Switching(**_fields_of(self.switching))
        found += [self.failure_domains, switching, self.hysteresis, FairShare() if self.fair_share else None]
        return tuple(one for one in found if one is not None)


def _fields_of(form: SwitchingForm) -> dict[str, Any]:
    return {spec.name: getattr(form, spec.name) for spec in fields(form)}


def _constraint_faults(form: ConstraintsForm) -> Iterator[Fault]:
    names = [cap.name for cap in form.power_caps]
    for i, cap in enumerate(form.power_caps):
        if cap.name in names[:i]:
            yield Fault(f"power_caps[{i}].name", f"repeats {cap.name!r}")
    if form.switching is not None and form.hysteresis is not None:
        yield Fault("hysteresis", "is the second answer to one question, after switching; allowed is one of them")


CONSTRAINTS: FileKind[tuple[Constraint, ...]] = FileKind(
    name="constraints",
    form=ConstraintsForm,
    catalog=Path(__file__).parent / "catalog" / "constraints",
    build=lambda form, _: form.constraints(),
    bounds={
        "power_caps[].limit_w[]": Bound(*LIMIT_RANGE_W),
        "failure_domains.k": Bound(1, HORIZON_MAX),
        "switching.cost_on{}": Bound(0.0, COST_MAX),
        "switching.ramp{}": Bound(0, STOCK_MAX),
        "switching.min_up_intervals{}": Bound(1, HORIZON_MAX),
        "switching.horizon": Bound(1, HORIZON_MAX),
        "switching.initial{}": Bound(0, STOCK_MAX),
        "hysteresis.tolerance": Bound(0.0, TOLERANCE_MAX),
    },
    rules=_constraint_faults,
    unsourced=frozenset({"power_caps", "failure_domains", "switching", "hysteresis"}),
    filled=("power_caps", "power_caps[].servers", "power_caps[].limit_w"),
)


def load_constraints(path: str | Path) -> tuple[Constraint, ...]:
    """Read constraints from a TOML file. Raises :class:`ConfigError`, :class:`MissingFileError`."""
    return load(path, CONSTRAINTS)


KINDS: tuple[FileKind[Any], ...] = (MAINTENANCE, PRICES, CONSTRAINTS)
