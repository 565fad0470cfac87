"""The provisioning problem as arrays: what one server can do, what is asked for, what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
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
# Cost of a watt and of a machine: any currency, any scale, but no entry that would be lost beside the others.
COST_RANGE = (1e-9, 1e9)
GROUP_MAX = 100_000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Problem:
    """One fleet and its demand over T intervals; checked when it is made, read-only afterwards.

    A *row* is a way to use a server type. One row per type is the rule; a type whose configurations differ in rate and
    power may have several, told by ``row_type``, which share its stock.

    ``qps``: float64 [R, W], latency-bounded throughput of one server of row r on workload w; 0 = not eligible.
    ``power_w``: float64 [R, W], provisioned power of that server; read only where ``qps`` > 0.
    ``demand_qps``: float64 [T, W], load to be covered, headroom included.
    ``stock``: int64 [H], machines there are of each type, or [T, H] where that changes (maintenance, deliveries).
    ``row_type``: int64 [R], the type of each row; left out: row r is type r.
    ``watt_cost``: float64 [T, H], cost of a watt (an energy price, a carbon intensity); left out: 1.
    ``machine_cost``: float64 [T, H], cost of a machine that is on, beside its watts; left out: 0.
    ``group``: int64 [R, W], machines come in multiples of it (a model spread over several servers; ``qps`` and
    ``power_w`` stay those of one machine); left out: 1.
    ``servers``, ``workloads``: the names of the H types and W workloads; positions ("T2", "0") when left out.

    What is minimised is ``sum (watt_cost * power_w + machine_cost) * machines`` plus penalties for load that is shed.

    Raises :class:`InputError` (field, place by name, value, what is allowed) and :class:`DTypeError`.
    """

    qps: FloatArray
    power_w: FloatArray
    demand_qps: FloatArray
    stock: IntArray
    row_type: IntArray | None = None
    watt_cost: FloatArray | None = None
    machine_cost: FloatArray | None = None
    group: IntArray | None = None
    servers: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        qps = _as_float("qps", self.qps, 2)
        power_w = _as_float("power_w", self.power_w, 2)
        demand_qps = _as_float("demand_qps", self.demand_qps, 2)
        stock = _as_counts("stock", self.stock)
        n_rows, n_workloads = qps.shape
        if not n_rows or not n_workloads or not len(demand_qps):
            raise InputError(
                f"qps {qps.shape}, demand_qps {demand_qps.shape}: "
                "at least one server type, workload and interval is needed"
            )
        _same_shape("power_w", power_w.shape, qps.shape, "[servers, workloads], like qps")
        _same_shape("demand_qps", demand_qps.shape, (len(demand_qps), n_workloads), "[intervals, workloads]")
        if self.row_type is None:
            row_type, n_servers = np.arange(n_rows), n_rows
        else:
            row_type = _as_counts("row_type", self.row_type)
            _same_shape("row_type", row_type.shape, (n_rows,), "[rows of qps]")
            n_servers = int(stock.shape[-1]) if stock.ndim else 0
            _counts_in("row_type", row_type, 0, n_servers - 1, "types, in the order of stock")
        if stock.ndim == 2:
            _same_shape("stock", stock.shape, (len(demand_qps), n_servers), "[intervals, servers]")
        else:
            _same_shape("stock", stock.shape, (n_servers,), "[servers]")
        servers = _names("servers", self.servers, n_servers)
        workloads = _names("workloads", self.workloads, n_workloads)

        def pair(place: tuple[int, ...]) -> str:
            server = servers[int(row_type[place[0]])]
            where = "" if self.row_type is None else f" (row {place[0]})"
            return f"server {server!r}{where}, workload {workloads[place[1]]!r}"

        def at(place: tuple[int, ...]) -> str:
            return f"interval {place[0]}, workload {workloads[place[1]]!r}"

        def of_type(place: tuple[int, ...]) -> str:
            return f"interval {place[0]}, server {servers[place[1]]!r}"

        if _in_range("qps", qps, QPS_RANGE, "q/s (0 = not eligible)", pair):
            _in_range("power_w", power_w, POWER_RANGE_W, "W", pair, zero=False)
        else:  # what stands there for pairs that cannot run is not data
            cannot = qps == 0.0
            power_w[cannot] = POWER_RANGE_W[0]
            _in_range("power_w", power_w, POWER_RANGE_W, "W", pair, zero=False)
            power_w[cannot] = 0.0
        _in_range("demand_qps", demand_qps, DEMAND_RANGE_QPS, "q/s (0 = no load)", at)
        if stock.min() < 0 or stock.max() > STOCK_MAX:
            place = np.argwhere((stock < 0) | (stock > STOCK_MAX))[0].tolist()
            when = f"interval {place[0]}, " if stock.ndim == 2 else ""
            raise InputError(
                f"stock: {when}server {servers[place[-1]]!r} has {stock[tuple(place)]}; "
                f"allowed: 0 to {STOCK_MAX} machines"
            )
        per_type = (len(demand_qps), n_servers)
        watt_cost = _as_cost("watt_cost", self.watt_cost, per_type, of_type, zero=False)
        machine_cost = _as_cost("machine_cost", self.machine_cost, per_type, of_type, zero=True)
        group = None
        if self.group is not None:
            group = _as_counts("group", self.group)
            _same_shape("group", group.shape, qps.shape, "[servers, workloads], like qps")
            _counts_in("group", group, 1, GROUP_MAX, "machines")

        arrays: dict[str, npt.NDArray[Any] | None] = {
            "qps": qps,
            "power_w": power_w,
            "demand_qps": demand_qps,
            "stock": stock,
            "row_type": None if self.row_type is None else row_type,
            "watt_cost": watt_cost,
            "machine_cost": machine_cost,
            "group": group,
        }
        for name, value in arrays.items():
            if value is not None:
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
        return int(self.stock.shape[-1])

    @property
    def n_rows(self) -> int:
        """R; H where ``row_type`` is left out."""
        return len(self.qps)

    @property
    def n_workloads(self) -> int:
        """W."""
        return int(self.qps.shape[1])

    @property
    def types(self) -> IntArray:
        """int64 [R], the type of each row."""
        return np.arange(self.n_rows) if self.row_type is None else self.row_type

    @property
    def stocks(self) -> IntArray:
        """int64 [T, H], the stock of each interval."""
        return np.broadcast_to(self.stock, (self.n_intervals, self.n_servers))

    @property
    def eligible(self) -> npt.NDArray[np.bool_]:
        """bool [R, W]: the server can run the workload within its SLA and there is one in some interval."""
        return np.asarray((self.qps > 0) & (self.stocks.max(axis=0) > 0)[self.types][:, None])

    def cost(self, t: int) -> FloatArray:
        """[R, W] cost of one machine on each pair in interval t: what is minimised."""
        cost = self.power_w
        if self.watt_cost is not None:
            cost = cost * self.watt_cost[t, self.types][:, None]
        if self.machine_cost is not None:
            cost = cost + self.machine_cost[t, self.types][:, None]
        return np.where(self.qps > 0, cost, 0.0)

    def pair_cost(self, t: int | IntArray, row: npt.NDArray[Any], workload: npt.NDArray[Any]) -> FloatArray:
        """[K] the same of some pairs, in interval t or each in its own."""
        cost, h = self.power_w[row, workload], self.types[row]
        if self.watt_cost is not None:
            cost = cost * self.watt_cost[t, h]
        if self.machine_cost is not None:
            cost = cost + self.machine_cost[t, h]
        return np.asarray(cost, dtype=np.float64)

    def at(self, intervals: slice | IntArray) -> Problem:
        """Some of the intervals. They are checked already: it costs no second look at the fleet."""
        part = copy(self)
        for name in ("demand_qps", "stock", "watt_cost", "machine_cost"):
            value = getattr(self, name)
            if value is not None and value.ndim == 2:
                object.__setattr__(part, name, value[intervals])
        return part

    def interval(self, t: int) -> Problem:
        """Interval t alone."""
        return self.at(slice(t, t + 1))

    def first(self, n: int) -> Problem:
        """The first ``n`` intervals."""
        return self if n == self.n_intervals else self.at(slice(n))

    def less(self, qps: FloatArray) -> Problem:
        """The demand that is left when ``qps`` [T, W] or [W] of it are seen to; rounding is no demand."""
        left = self.demand_qps - qps
        left[left <= np.maximum(COVER_TOL * self.demand_qps, DEMAND_RANGE_QPS[0])] = 0.0
        return replace(self, demand_qps=left)

    def capacity_qps(self, servers_on: IntArray | FloatArray) -> FloatArray:
        """Throughput [..., W] of ``servers_on`` [..., R, W] machines, in the units of ``qps``."""
        return np.asarray((servers_on * self.qps).sum(axis=-2), dtype=np.float64)

    def total_power_w(self, servers_on: IntArray | FloatArray) -> FloatArray:
        """Provisioned power [...] of ``servers_on`` [..., R, W] machines."""
        return np.asarray((servers_on * self.power_w).sum(axis=(-2, -1)), dtype=np.float64)

    def shortfall_qps(self, servers_on: IntArray | FloatArray) -> FloatArray:
        """Demand [T, W] that ``servers_on`` [T, R, W] leaves uncovered; exactly 0 within ``COVER_TOL``."""
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
    return np.array(array, dtype=np.int64, order="C")


def _as_cost(
    name: str, value: object, shape: tuple[int, int], where: Callable[[tuple[int, ...]], str], zero: bool
) -> FloatArray | None:
    if value is None:
        return None
    cost = _as_float(name, value, 2)
    _same_shape(name, cost.shape, shape, "[intervals, servers]")
    _in_range(name, cost, COST_RANGE, "per W" if name == "watt_cost" else "per machine", where, zero=zero)
    return cost


def _counts_in(name: str, counts: IntArray, low: int, high: int, unit: str) -> None:
    bad = np.argwhere((counts < low) | (counts > high))
    if len(bad):
        place = tuple(bad[0].tolist())
        raise InputError(f"{name}: {list(place)} is {counts[place]}; allowed: {low} to {high} {unit}")


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
) -> bool:
    """Whether all ``values`` lie within ``bounds``; False where some are 0 and that is allowed, else an error."""
    low, high = bounds
    if values.min(initial=high) >= low and values.max(initial=low) <= high:
        return True
    good = (values >= low) & (values <= high)  # NaN is in no range
    if zero:
        good |= values == 0.0
    if not good.all():
        place = tuple(int(i) for i in np.argwhere(~good)[0])
        allowed = f"{low:g} to {high:g}" if not zero else f"0, or {low:g} to {high:g}"
        raise InputError(f"{name}: {where(place)} is {values[place]:g}; allowed: {allowed} {unit}")
    return False
