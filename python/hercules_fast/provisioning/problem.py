"""The provisioning problem as arrays: what one server can do, what is asked for, what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import DTypeError, InputError

__all__ = ["COVER_TOL", "Problem"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# A workload counts as covered when its capacity reaches demand * (1 - COVER_TOL): room for the rounding of
# `count * qps`, far below what a load forecast knows.
COVER_TOL = 1e-9

# Beyond these the coefficients of the linear program would leave the range in which a solver keeps every entry.
QPS_RANGE = (1e-4, 1e10)
POWER_RANGE_W = (1e-6, 1e9)
DEMAND_RANGE_QPS = (1e-6, 1e12)
STOCK_MAX = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Problem:
    """One fleet and its demand over T intervals; checked when it is made, read-only afterwards.

    ``qps``: float64 [H, W], latency-bounded throughput of one server of type h on workload w; 0 = not eligible.
    ``power_w``: float64 [H, W], provisioned power of that server; read only where ``qps`` > 0.
    ``demand_qps``: float64 [T, W], load to be covered, headroom included. ``stock``: int64 [H], machines there are.
    ``servers``, ``workloads``: the names of the H types and W workloads; positions ("T2", "0") when left out.

    Raises :class:`InputError` (field, place by name, value, what is allowed) and :class:`DTypeError`.
    """

    qps: FloatArray
    power_w: FloatArray
    demand_qps: FloatArray
    stock: IntArray
    servers: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    eligible: npt.NDArray[np.bool_] = field(init=False)
    """bool [H, W]: the server can run the workload within its SLA and at least one is in stock."""

    def __post_init__(self) -> None:
        qps = _as_float("qps", self.qps, 2)
        power_w = _as_float("power_w", self.power_w, 2)
        demand_qps = _as_float("demand_qps", self.demand_qps, 2)
        stock = _as_counts("stock", self.stock)
        n_servers, n_workloads = qps.shape
        if not n_servers or not n_workloads or not len(demand_qps):
            raise InputError(
                f"qps {qps.shape}, demand_qps {demand_qps.shape}: "
                "at least one server type, workload and interval is needed"
            )
        _same_shape("power_w", power_w.shape, (n_servers, n_workloads), "[servers, workloads], like qps")
        _same_shape("demand_qps", demand_qps.shape, (len(demand_qps), n_workloads), "[intervals, workloads]")
        _same_shape("stock", stock.shape, (n_servers,), "[servers]")
        servers = _names("servers", self.servers, n_servers)
        workloads = _names("workloads", self.workloads, n_workloads)

        def pair(place: tuple[int, ...]) -> str:
            return f"server {servers[place[0]]!r}, workload {workloads[place[1]]!r}"

        def at(place: tuple[int, ...]) -> str:
            return f"interval {place[0]}, workload {workloads[place[1]]!r}"

        _in_range("qps", qps, QPS_RANGE, "q/s (0 = not eligible)", pair)
        _in_range("power_w", np.where(qps > 0, power_w, POWER_RANGE_W[0]), POWER_RANGE_W, "W", pair, zero=False)
        _in_range("demand_qps", demand_qps, DEMAND_RANGE_QPS, "q/s (0 = no load)", at)
        for server, count in zip(servers, stock.tolist(), strict=True):
            if not 0 <= count <= STOCK_MAX:
                raise InputError(f"stock: server {server!r} has {count}; allowed: 0 to {STOCK_MAX} machines")

        power_w = np.where(qps > 0, power_w, 0.0)  # what stood there for pairs that cannot run is not data
        eligible = (qps > 0) & (stock > 0)[:, None]
        arrays: dict[str, npt.NDArray[Any]] = {
            "qps": qps,
            "power_w": power_w,
            "demand_qps": demand_qps,
            "stock": stock,
            "eligible": eligible,
        }
        for name, value in arrays.items():
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "servers", servers)
        object.__setattr__(self, "workloads", workloads)

    @property
    def n_intervals(self) -> int:
        """T."""
        return len(self.demand_qps)

    @property
    def n_servers(self) -> int:
        """H."""
        return len(self.stock)

    @property
    def n_workloads(self) -> int:
        """W."""
        return int(self.qps.shape[1])

    def capacity_qps(self, servers_on: IntArray | FloatArray) -> FloatArray:
        """Throughput [..., W] of ``servers_on`` [..., H, W] machines, in the units of ``qps``."""
        return np.asarray((servers_on * self.qps).sum(axis=-2), dtype=np.float64)

    def total_power_w(self, servers_on: IntArray | FloatArray) -> FloatArray:
        """Provisioned power [...] of ``servers_on`` [..., H, W] machines."""
        return np.asarray((servers_on * self.power_w).sum(axis=(-2, -1)), dtype=np.float64)

    def shortfall_qps(self, servers_on: IntArray | FloatArray) -> FloatArray:
        """Demand [T, W] that ``servers_on`` [T, H, W] leaves uncovered; exactly 0 within ``COVER_TOL``."""
        return shortfall_qps(self.demand_qps, self.capacity_qps(servers_on))


def shortfall_qps(demand_qps: FloatArray, capacity_qps: FloatArray) -> FloatArray:
    """``demand - capacity`` where it is more than rounding (``COVER_TOL`` of the demand), else exactly 0."""
    short = demand_qps - capacity_qps
    return np.where(short > COVER_TOL * demand_qps, short, 0.0)


def _as_float(name: str, value: object, ndim: int) -> FloatArray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise DTypeError(f"{name}: dtype {array.dtype} is not numeric; accepted: float64 and what converts to it")
    if array.ndim != ndim:
        raise InputError(f"{name}: has {array.ndim} dimensions, shape {array.shape}; {ndim} are needed")
    return np.array(array, dtype=np.float64, order="C")


def _as_counts(name: str, value: object) -> IntArray:
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{name}: dtype {array.dtype} does not count machines; accepted: integers")
    return np.array(array, dtype=np.int64)


def _same_shape(name: str, got: tuple[int, ...], wanted: tuple[int, ...], meaning: str) -> None:
    if got != wanted:
        raise InputError(f"{name}: shape {got}; needed: {wanted} = {meaning}")


def _names(field_name: str, names: Sequence[str], count: int) -> tuple[str, ...]:
    if not names:
        return tuple(str(i) for i in range(count))
    if len(names) != count:
        raise InputError(f"{field_name}: {len(names)} names for {count} rows or columns of qps")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{field_name}: {name!r} stands there twice; names must differ")
        seen.add(name)
    return tuple(names)


def _in_range(
    name: str,
    values: FloatArray,
    bounds: tuple[float, float],
    unit: str,
    where: Callable[[tuple[int, ...]], str],
    zero: bool = True,
) -> None:
    low, high = bounds
    good = (values >= low) & (values <= high)  # NaN is in no range
    if zero:
        good |= values == 0.0
    if not good.all():
        place = tuple(int(i) for i in np.argwhere(~good)[0])
        allowed = f"{low:g} to {high:g}" if not zero else f"0, or {low:g} to {high:g}"
        raise InputError(f"{name}: {where(place)} is {values[place]:g}; allowed: {allowed} {unit}")
