"""Traffic as data: query sizes, arrivals, service-level agreements, workloads, load traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hercules_fast.descriptors.schema import FILE_RULES
from hercules_fast.errors import InputError
from hercules_fast.models import Model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Arrivals", "LoadTrace", "Repairs", "SizeComponent", "SizeLaw", "Sla", "Workload"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeComponent:
    """One part of a query-size law, drawn with probability ``weight``.

    ``uniform``: whole numbers ``low``..``high`` · ``lognormal``: exp N(``mu``, ``sigma``) · ``normal``:
    N(``mean``, ``sd``) · ``fixed``: ``value`` · ``empirical``: ``values`` with ``probabilities``.
    Real draws are truncated to whole numbers. With ``keep`` = (a, b), draws outside a..b are replaced by a uniform
    draw from ``redraw`` = (c, d).
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    weight: float
    kind: Literal["uniform", "lognormal", "normal", "fixed", "empirical"]
    low: int = 0
    high: int = 0
    mu: float = 0.0
    sigma: float = 0.0
    mean: float = 0.0
    sd: float = 0.0
    value: int = 0
    values: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    keep: tuple[int, int] | None = None
    redraw: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeLaw:
    """A query-size law: a mixture, clipped to 1..``max_items``."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    max_items: int
    components: tuple[SizeComponent, ...]
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """An open-loop arrival process of unit mean gap, scaled by the rate at hand.

    ``poisson``, ``deterministic`` · ``erlang``: shape ``k`` · ``hyperexponential``: ``probabilities`` and relative
    ``rates`` of its branches · ``deeprecsys-gap``: gaps are whole ticks drawn from a Poisson count of mean
    ``mean_ticks``, what DeepRecSys' load generator does; not a Poisson process, for comparisons only.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    kind: Literal["poisson", "deterministic", "erlang", "hyperexponential", "deeprecsys-gap"]
    k: int = 1
    probabilities: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    mean_ticks: float = 0.0
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sla:
    """The promise: ``percentile`` percent of queries end within ``latency_ms`` of their arrival."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    percentile: float
    latency_ms: float
    status: str = "assumed"

    def __str__(self) -> str:
        return f"p{self.percentile:g} <= {self.latency_ms:g} ms"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A model with its traffic and its promises."""

    name: str
    model: Model
    sizes: SizeLaw
    arrivals: Arrivals
    slas: tuple[Sla, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repairs:
    """What was done to a raw trace to make intervals of it; printed with every result that rests on it."""

    rows: int = 0
    carried_steps: int = 0
    """Missing steps (gaps of at most two) that were filled with the value before them."""
    irregular_steps: int = 0
    """Steps whose length differs from the usual one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadTrace:
    """Load of every workload in every interval.

    ``times``: datetime64[s] [T], start of each interval, UTC. ``qps``: float64 [T, W], or a relative shape when
    ``relative`` is true (then the planner sets the scale).
    """

    name: str
    workloads: tuple[str, ...]
    times: npt.NDArray[np.datetime64]
    interval_s: float
    qps: npt.NDArray[np.float64]
    relative: bool = False
    origin: str = ""
    repairs: Repairs = Repairs()

    @classmethod
    def from_arrays(
        cls, name: str, workloads: Sequence[str], *, start: str, interval_s: float, qps: npt.ArrayLike
    ) -> LoadTrace:
        """A load from rates at hand: ``qps`` [T, W] in intervals of ``interval_s`` seconds from ``start`` (UTC).

        Raises:
            InputError: a shape, time or rate that is out of range; the message names it.
        """
        import numpy as np

        rates = np.array(qps, dtype=np.float64)
        if rates.ndim != 2 or not len(rates) or rates.shape[1] != len(workloads):
            raise InputError(f"qps: has shape {rates.shape}; allowed is [intervals >= 1, {len(workloads)} workloads]")
        bad = np.argwhere(~(np.isfinite(rates) & (rates >= 0)))
        if len(bad):
            t, w = bad[0].tolist()
            raise InputError(f"qps[{t}, {w}]: is {rates[t, w]}; allowed is finite and >= 0")
        if len(set(workloads)) != len(workloads):
            raise InputError(f"workloads: {list(workloads)} names one twice")
        if not (np.isfinite(interval_s) and interval_s >= 1 and interval_s == int(interval_s)):
            raise InputError(f"interval_s: is {interval_s}; allowed is a whole number of seconds, >= 1")
        try:
            first = np.datetime64(start, "s")
        except ValueError as error:
            raise InputError(f"start: is {start!r}; allowed is a UTC time such as '2026-01-05T00:00'") from error
        times = first + np.arange(len(rates)) * np.timedelta64(int(interval_s), "s")
        rates.setflags(write=False)
        return cls(
            name=name,
            workloads=tuple(workloads),
            times=times,
            interval_s=float(interval_s),
            qps=rates,
            origin="given as arrays",
        )
