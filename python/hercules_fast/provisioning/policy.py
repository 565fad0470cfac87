"""What the operator decides: headroom, the rules of the baselines, how a relative load is scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hercules_fast.errors import InputError
from hercules_fast.provisioning.problem import FloatArray

__all__ = ["DEFAULT_HEADROOM", "Policy", "headroom_from_trace"]

DEFAULT_HEADROOM = 0.05
LEAST_BASE = 0.05
"""Share of a workload's peak below which its growth is not taken for headroom."""
MOST_HEADROOM = 1.0
"""Largest headroom that is taken from a load without asking."""
RANKS = ("efficiency", "qps")
NAMED_ORDERS = ("given", "largest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The operator's choices; checked when made. Raises :class:`InputError` naming the field."""

    headroom: float | None = None
    """R of ``demand = load * (1 + R)``; None: the largest growth over one interval of the trace, see
    :func:`headroom_from_trace`."""
    seed: int = 0
    """Of the oblivious baseline and of the sampled workload orders."""
    greedy_rank: str = "efficiency"
    """How greedy ranks server types: "efficiency" (q/s per watt) or "qps"."""
    greedy_order: str | tuple[str, ...] = "given"
    """In which order greedy serves workloads: "given", "largest" (demand first), or the names in order."""
    order_samples: int = 200
    """Workload orders tried for the spread of greedy's result; all of them when there are no more."""
    peak_share: float = 0.70
    """For a relative load: its peak as a share of the largest load that the stock can serve."""
    reference_server: str | None = None
    """For a relative load: the type in whose q/s the workloads are made comparable; None: see
    :func:`hercules_fast.provisioning.scale.scale_load`."""

    def __post_init__(self) -> None:
        if self.headroom is not None:
            _finite("headroom", self.headroom, 0.0, 1000.0)
        _finite("peak_share", self.peak_share, 1e-6, 1000.0)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 64:
            raise InputError(f"policy.seed: {self.seed!r}; allowed: whole numbers from 0 to 2**64 - 1")
        if self.greedy_rank not in RANKS:
            raise InputError(f"policy.greedy_rank: {self.greedy_rank!r}; allowed: {', '.join(map(repr, RANKS))}")
        if isinstance(self.greedy_order, str):
            if self.greedy_order not in NAMED_ORDERS:
                allowed = f"{', '.join(map(repr, NAMED_ORDERS))}, or a tuple of workload names"
                raise InputError(f"policy.greedy_order: {self.greedy_order!r}; allowed: {allowed}")
        else:
            object.__setattr__(self, "greedy_order", tuple(self.greedy_order))
        if (
            isinstance(self.order_samples, bool)
            or not isinstance(self.order_samples, int)
            or not 0 <= self.order_samples <= 100_000
        ):
            raise InputError(f"policy.order_samples: {self.order_samples!r}; allowed: whole numbers from 0 to 100000")


def headroom_from_trace(qps: FloatArray | Sequence[Sequence[float]]) -> float:
    """Headroom that covers the growth inside one interval: ``max_t,w qps[t+1, w] / qps[t, w] - 1``, at least 0.

    ``qps``: [T, W], q/s. Growth from less than ``LEAST_BASE`` of a workload's own peak is passed over: it says nothing
    about how fast a load grows that needs many servers. Without two intervals to compare: ``DEFAULT_HEADROOM``. This
    rule covers what the planner cannot see until the next interval begins; the paper names R but not its value.
    """
    return steepest_growth(qps)[0]


def steepest_growth(qps: FloatArray | Sequence[Sequence[float]]) -> tuple[float, int, int]:
    """:func:`headroom_from_trace`, and the interval and workload in which that growth ends (-1 where there is none)."""
    import numpy as np

    load = np.asarray(qps, dtype=np.float64)
    before, after = load[:-1], load[1:]
    started = before > LEAST_BASE * load.max(axis=0, initial=0.0)
    if not started.any():
        return DEFAULT_HEADROOM, -1, -1
    growth = np.where(started, after / np.where(started, before, 1.0) - 1.0, 0.0)
    t, w = np.unravel_index(growth.argmax(), growth.shape)
    return max(0.0, float(growth[t, w])), int(t) + 1, int(w)


def _finite(name: str, value: float, low: float, high: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        raise InputError(f"policy.{name}: {value!r}; allowed: {low:g} to {high:g}")
