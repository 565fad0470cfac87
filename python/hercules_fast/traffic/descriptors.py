"""Traffic as data: query sizes, arrivals, service-level agreements, workloads, load traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hercules_fast.descriptors.schema import FILE_RULES
from hercules_fast.errors import DTypeError, InputError
from hercules_fast.models import Model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "DEFAULT_POPULARITY",
    "Arrivals",
    "LoadTrace",
    "Popularity",
    "Repairs",
    "SizeComponent",
    "SizeLaw",
    "Sla",
    "Workload",
]


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
    """An open-loop arrival process, scaled to the rate at hand.

    Renewal processes: ``poisson``, ``deterministic`` · ``erlang``: ``k`` phases · ``gamma``: ``shape`` · ``lognormal``:
    ``sigma`` of the logarithm · ``hyperexponential``: ``probabilities`` and relative ``rates`` of its branches ·
    ``deeprecsys-gap``: gaps are whole ticks drawn from a Poisson count of mean ``mean_ticks``, what DeepRecSys' load
    generator does; not a Poisson process, for comparisons only.

    Poisson processes whose rate changes: ``mmpp``: relative ``rates`` of the states of a Markov chain that moves from
    state i to j ``switch_per_s[i][j]`` times per second (diagonal ignored) · ``rates``: a cycle of pieces
    of ``durations_s`` with relative ``rates`` at their start, linear to ``end_rates`` (default: constant) ·
    ``diurnal``: 1 + ``amplitude`` sin(2 pi t / ``period_s``).

    ``group``: P(k + 1 queries arrive together); empty: always one. The rate counts queries.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    kind: Literal[
        "poisson",
        "deterministic",
        "erlang",
        "gamma",
        "lognormal",
        "hyperexponential",
        "deeprecsys-gap",
        "mmpp",
        "rates",
        "diurnal",
    ]
    name: str = "arrivals"
    k: int = 1
    shape: float = 0.0
    sigma: float = 0.0
    probabilities: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    mean_ticks: float = 0.0
    switch_per_s: tuple[tuple[float, ...], ...] = ()
    durations_s: tuple[float, ...] = ()
    end_rates: tuple[float, ...] = ()
    amplitude: float = 0.0
    period_s: float = 0.0
    group: tuple[float, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Popularity:
    """How often each row of an embedding table is looked up; the same law for every table, over its own rows.

    ``uniform``: every row alike · ``zipf``: rank r as often as r ** -``exponent`` · ``histogram``: the ``rows[k]`` most
    popular rows answer the share ``shares[k]`` of the lookups, linear between these points; no row beyond the last
    one is looked up (a table with fewer rows has the same law, cut off).
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    kind: Literal["uniform", "zipf", "histogram"]
    exponent: float = 0.0
    rows: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)


DEFAULT_POPULARITY = Popularity(name="zipf", kind="zipf", exponent=0.9)
"""The catalogue's law ``zipf``: assumed, between two published hit rates of a cache (docs/validation.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sla:
    """The promise: ``percentile`` percent of queries end within ``latency_ms`` of their arrival.

    Raises :class:`InputError` naming the field: the percentile must lie between 0 and 100, the latency be finite and
    above 0.
    """

    percentile: float
    latency_ms: float
    status: str = "assumed"

    def __post_init__(self) -> None:
        if not _is_number(self.percentile) or not 0 < self.percentile < 100:
            raise InputError(f"sla.percentile: is {self.percentile!r}; allowed is a number, 0 < percentile < 100")
        if not _is_number(self.latency_ms) or not 0 < self.latency_ms < inf:
            raise InputError(f"sla.latency_ms: is {self.latency_ms!r}; allowed is a finite number > 0")

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
    popularity: Popularity = DEFAULT_POPULARITY


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
        cls,
        name: str,
        workloads: Sequence[str],
        *,
        start: str | datetime | np.datetime64,
        interval_s: float,
        qps: npt.ArrayLike,
    ) -> LoadTrace:
        """A load from rates at hand: ``qps`` [T, W] in intervals of ``interval_s`` seconds from ``start``.

        ``start`` is a time, as ISO 8601 text or an object; UTC where it has no offset.

        Raises:
            InputError: a shape, time or rate that is out of range; the message names it.
        """
        import numpy as np

        if isinstance(workloads, str) or not all(isinstance(w, str) and w for w in workloads):
            raise InputError(f"workloads: is {workloads!r}; allowed is a list of names, none of them empty")
        rates = _rates(qps)
        if rates.ndim != 2 or not len(rates) or rates.shape[1] != len(workloads):
            raise InputError(f"qps: has shape {rates.shape}; allowed is [intervals >= 1, {len(workloads)} workloads]")
        bad = np.argwhere(~(np.isfinite(rates) & (rates >= 0)))
        if len(bad):
            t, w = bad[0].tolist()
            raise InputError(f"qps[{t}, {w}]: is {rates[t, w]}; allowed is finite and >= 0")
        if len(set(workloads)) != len(workloads):
            raise InputError(f"workloads: {list(workloads)} names one twice")
        if not (_is_number(interval_s) and 1 <= interval_s <= 1e9 and interval_s == int(interval_s)):
            raise InputError(f"interval_s: is {interval_s!r}; allowed is a whole number of seconds, 1 to 1e9")
        times = _utc(start) + np.arange(len(rates)) * np.timedelta64(int(interval_s), "s")
        rates.setflags(write=False)
        return cls(
            name=name,
            workloads=tuple(workloads),
            times=times,
            interval_s=float(interval_s),
            qps=rates,
            origin="given as arrays",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _rates(qps: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A float64 copy of ``qps``; text is no rate, even where NumPy could read it as one."""
    import numpy as np

    try:
        array = np.asarray(qps)
    except ValueError as error:
        raise InputError("qps: has rows of different lengths; allowed is [intervals, workloads]") from error
    if array.dtype.kind not in "iuf":
        raise InputError(f"qps: is of dtype {array.dtype}; allowed are numbers")
    return np.array(array, dtype=np.float64)


def _utc(start: str | datetime | np.datetime64) -> np.datetime64:
    """``start`` in UTC to the second. NumPy drops offsets with a warning; here they count."""
    import numpy as np

    allowed = "a time such as '2026-01-05T00:00' (UTC) or '2026-01-05T01:00+01:00'"
    if isinstance(start, np.datetime64):
        if np.isnat(start):
            raise InputError(f"start: is NaT; allowed is {allowed}")
        second: np.datetime64 = start.astype("datetime64[s]")
        return second
    if not isinstance(start, str | datetime):
        raise DTypeError(f"start: is {start!r}, {type(start).__name__}; allowed is {allowed}")
    try:
        moment = datetime.fromisoformat(start) if isinstance(start, str) else start
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        first = np.datetime64(moment, "s")
    except (ValueError, OverflowError) as error:
        raise InputError(f"start: is {start!r}; allowed is {allowed}") from error
    if np.isnat(first):  # pandas' NaT is a datetime
        raise InputError(f"start: is NaT; allowed is {allowed}")
    return first
