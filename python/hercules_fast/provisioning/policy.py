"""What the operator decides: headroom, what may not and what must run where, prices, the rules of the baselines."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.provisioning.operations import Maintenance, Prices
from hercules_fast.provisioning.problem import FloatArray
from hercules_fast.tables import Estimate

__all__ = ["DAY_OVER_DAY", "DEFAULT_HEADROOM", "Policy", "headroom_from_errors", "headroom_from_trace"]

DEFAULT_HEADROOM = 0.05
DAY_OVER_DAY = "day-over-day"
"""Headroom from how far yesterday's load at this hour is from today's."""
LEAST_BASE = 0.05
"""Share of a workload's peak below which its growth or forecast error is not taken for headroom."""
MOST_HEADROOM = 1.0
"""Largest headroom that is taken from a load without asking."""
BASELINES = ("greedy", "oblivious")
RANKS = ("efficiency", "qps")
NAMED_ORDERS = ("given", "largest")
STARTS = ("scratch", "previous")
LAST_MACHINES = ("whole", "fractional")
DRAWS = ("random", "proportional")
DRAWN_TYPES = ("eligible", "all")
ESTIMATES = ("value", "lower")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The operator's choices; checked when made. Raises :class:`InputError` naming the field.

    Names of servers and workloads are checked when a table is there to check them against, in :func:`provision`.
    """

    headroom: float | str | Mapping[str, float] | None = None
    """R of ``demand = load * (1 + R)``: one for all workloads, one by workload (those not named: 0), "day-over-day"
    (see :func:`headroom_from_errors`), or None: the largest growth over one interval of the trace, see
    :func:`headroom_from_trace`."""
    headroom_z: float = 1.645
    """Standard deviations of the forecast error that "day-over-day" headroom covers; 1.645 is 95 % of a normal law."""
    estimate: Estimate = "value"
    """QPS of a pair: "value", or "lower" for the lower end of its interval."""
    drain: Sequence[str | tuple[str, str]] = ()
    """Server types ("T1") and pairs ("T1", "rmc2") that are not to be used."""
    minimum: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(server, workload) -> machines that run it in every interval, needed or not."""
    maintenance: Maintenance | None = None
    prices: Prices | None = None
    """What is minimised in place of watts."""
    baselines: Sequence[str] = BASELINES
    """What the plan is compared with; () for nothing, which saves time on large fleets."""
    seed: int = 0
    """Of the oblivious baseline and of the sampled workload orders."""
    greedy_rank: str = "efficiency"
    """How greedy ranks server types: "efficiency" (q/s per watt) or "qps"."""
    greedy_order: str | tuple[str, ...] = "given"
    """In which order greedy serves workloads: "given", "largest" (demand first), or the names in order."""
    greedy_start: str = "scratch"
    """Greedy in each interval begins from "scratch", or keeps what it can use of the "previous" interval."""
    last_machine: str = "whole"
    """The last machine that a baseline takes for a workload is "whole" or "fractional"."""
    oblivious_draw: str = "random"
    """Oblivious draws machines at "random", or gives every workload its share of every type ("proportional")."""
    oblivious_types: str = "eligible"
    """Oblivious takes "eligible" types only, or "all": a machine that cannot serve its workload is on for nothing."""
    order_samples: int = 200
    """Workload orders tried for the spread of greedy's result, all of them when there are no more; also the seeds of
    the spread of oblivious."""
    peak_share: float = 0.70
    """For a relative load: its peak as a share of the largest load that the stock can serve."""
    reference_server: str | None = None
    """For a relative load: the type in whose q/s the workloads are made comparable; None: see
    :func:`hercules_fast.provisioning.scale.scale_load`."""

    def __post_init__(self) -> None:
        self._check_headroom()
        _finite("headroom_z", self.headroom_z, 0.0, 100.0)
        _finite("peak_share", self.peak_share, 1e-6, 1000.0)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 64:
            raise InputError(f"policy.seed: {self.seed!r}; allowed: whole numbers from 0 to 2**64 - 1")
        for name, allowed in (
            ("estimate", ESTIMATES),
            ("greedy_rank", RANKS),
            ("greedy_start", STARTS),
            ("last_machine", LAST_MACHINES),
            ("oblivious_draw", DRAWS),
            ("oblivious_types", DRAWN_TYPES),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"policy.{name}: {getattr(self, name)!r}; allowed: {', '.join(map(repr, allowed))}")
        if isinstance(self.greedy_order, str):
            if self.greedy_order not in NAMED_ORDERS:
                words = f"{', '.join(map(repr, NAMED_ORDERS))}, or a tuple of workload names"
                raise InputError(f"policy.greedy_order: {self.greedy_order!r}; allowed: {words}")
        elif not isinstance(self.greedy_order, Sequence):
            raise InputError(f"policy.greedy_order: {self.greedy_order!r}; allowed: a tuple of workload names")
        else:
            object.__setattr__(self, "greedy_order", tuple(self.greedy_order))
        if isinstance(self.baselines, str) or not set(self.baselines) <= set(BASELINES):
            words = ", ".join(map(repr, BASELINES))
            raise InputError(f"policy.baselines: {self.baselines!r}; allowed: any of {words}")
        object.__setattr__(self, "baselines", tuple(dict.fromkeys(self.baselines)))
        _whole("order_samples", self.order_samples, 100_000)
        self._check_drain()
        self._check_minimum()
        for name, kind in (("maintenance", Maintenance), ("prices", Prices)):
            if not isinstance(getattr(self, name), kind | None):
                seen = type(getattr(self, name)).__name__
                raise InputError(f"policy.{name}: {seen}; allowed: {kind.__name__}, or None")

    def _check_headroom(self) -> None:
        headroom = self.headroom
        if isinstance(headroom, Mapping):
            for workload, value in headroom.items():
                _finite(f"headroom[{workload!r}]", value, 0.0, 1000.0)
        elif isinstance(headroom, str):
            if headroom != DAY_OVER_DAY:
                allowed = f"0 to 1000, {DAY_OVER_DAY!r}, or one of them by workload"
                raise InputError(f"policy.headroom: {headroom!r}; allowed: {allowed}")
        elif headroom is not None:
            _finite("headroom", headroom, 0.0, 1000.0)

    def _check_drain(self) -> None:
        if isinstance(self.drain, str) or not isinstance(self.drain, Collection):
            raise InputError(f"policy.drain: {self.drain!r}; allowed: a list of server types and (server, workload)")
        pairs = []
        for item in self.drain:
            pair = tuple(item) if isinstance(item, Sequence) and not isinstance(item, str) else (item,)
            if not 1 <= len(pair) <= 2 or not all(isinstance(name, str) for name in pair):
                raise InputError(f"policy.drain: {item!r}; allowed: a server type, or (server, workload)")
            pairs.append(item if isinstance(item, str) else (pair[0], pair[-1]))
        object.__setattr__(self, "drain", tuple(pairs))

    def _check_minimum(self) -> None:
        if not isinstance(self.minimum, Mapping):
            raise InputError(f"policy.minimum: {self.minimum!r}; allowed: (server, workload) -> machines")
        for pair, count in self.minimum.items():
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise InputError(f"policy.minimum: {pair!r}; allowed: (server, workload) -> machines")
            _whole(f"minimum[{pair!r}]", count, 10_000_000)


def headroom_from_trace(qps: FloatArray | Sequence[Sequence[float]]) -> float:
    """Headroom that covers the growth inside one interval: ``max_t,w qps[t+1, w] / qps[t, w] - 1``, at least 0.

    ``qps``: [T, W], q/s. Growth from less than ``LEAST_BASE`` of a workload's own peak is passed over: it says nothing
    about how fast a load grows that needs many servers. Without two intervals to compare: ``DEFAULT_HEADROOM``. This
    rule covers what the planner cannot see until the next interval begins; the paper names R but not its value.
    """
    return steepest_growth(qps)[0]


def steepest_growth(qps: FloatArray | Sequence[Sequence[float]]) -> tuple[float, int, int]:
    """:func:`headroom_from_trace`, and the interval and workload in which that growth ends (-1 where there is none)."""
    load = np.asarray(qps, dtype=np.float64)
    before, after = load[:-1], load[1:]
    started = before > LEAST_BASE * load.max(axis=0, initial=0.0)
    if not started.any():
        return DEFAULT_HEADROOM, -1, -1
    growth = np.where(started, after / np.where(started, before, 1.0) - 1.0, 0.0)
    t, w = np.unravel_index(growth.argmax(), growth.shape)
    return max(0.0, float(growth[t, w])), int(t) + 1, int(w)


def headroom_from_errors(forecast_qps: npt.ArrayLike, actual_qps: npt.ArrayLike, z: float = 1.645) -> FloatArray:
    """Headroom [W] that covers a forecast's errors: ``max(0, mu + z sigma)`` of ``actual / forecast - 1``.

    ``forecast_qps``, ``actual_qps``: float64 [T, W]. ``mu`` and ``sigma`` are mean and standard deviation over the
    intervals in which the forecast is above ``LEAST_BASE`` of the workload's largest; ``DEFAULT_HEADROOM`` where there
    are less than two. Demand is then ``load * (1 + mu + z sigma)``, the quantile of a normal law.

    Raises :class:`InputError` for shapes that differ and loads that are negative or not finite.
    """
    _finite("z", z, 0.0, 100.0)
    forecast, actual = (np.asarray(x, dtype=np.float64) for x in (forecast_qps, actual_qps))
    if forecast.ndim != 2 or forecast.shape != actual.shape:
        raise InputError(
            f"actual_qps: shape {actual.shape}; needed: that of forecast_qps, {forecast.shape} = [intervals, workloads]"
        )
    for name, load in (("forecast_qps", forecast), ("actual_qps", actual)):
        if not (np.isfinite(load) & (load >= 0)).all():
            t, w = np.argwhere(~(np.isfinite(load) & (load >= 0)))[0].tolist()
            raise InputError(f"{name}: [{t}, {w}] is {load[t, w]}; allowed: finite, 0 or more q/s")
    counted = forecast > LEAST_BASE * forecast.max(axis=0, initial=0.0)
    error = np.where(counted, actual / np.where(counted, forecast, 1.0) - 1.0, 0.0)
    n = counted.sum(axis=0)
    mean = error.sum(axis=0) / np.maximum(n, 1)
    spread = np.sqrt((np.where(counted, error - mean, 0.0) ** 2).sum(axis=0) / np.maximum(n - 1, 1))
    return np.where(n >= 2, np.maximum(0.0, mean + z * spread), DEFAULT_HEADROOM)


def day_over_day(qps: FloatArray, interval_s: float, z: float) -> FloatArray | None:
    """:func:`headroom_from_errors` of the forecast "as a day before"; None where a day is no number of intervals or
    the load lasts no longer than one."""
    steps = round(86_400 / interval_s)
    if steps < 1 or abs(steps * interval_s - 86_400) > 1e-6 or len(qps) <= steps:
        return None
    return headroom_from_errors(qps[:-steps], qps[steps:], z)


def _finite(name: str, value: object, low: float, high: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        raise InputError(f"policy.{name}: {value!r}; allowed: {low:g} to {high:g}")


def _whole(name: str, value: object, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise InputError(f"policy.{name}: {value!r}; allowed: whole numbers from 0 to {high}")
