"""The plan: how many servers of each type run which workload in each interval, what it costs, and why."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import ConfigError, Fault, MissingFileError
from hercules_fast.provisioning.baselines import Baseline, OrderSpread
from hercules_fast.provisioning.problem import FloatArray, IntArray
from hercules_fast.tables import write_atomically

__all__ = ["SCHEMA", "Plan", "Savings"]

SCHEMA = "hercules_fast.plan/1"

# A stock price below this many watts per machine is rounding, not scarcity.
_PRICE_DUST_W = 1e-6
_FLOATS = (
    *("load_qps", "demand_qps", "qps", "server_power_w", "lp_servers", "power_w", "lp_power_w", "bound_w", "gap"),
    *("shed_qps", "lp_shed_qps", "surplus_qps", "stock_price_w", "load_price_w", "penalty_w_per_qps"),
)
_COUNTS = ("servers_on", "free_stock", "stock")


@dataclass(frozen=True, kw_only=True, slots=True)
class Savings:
    """What the plan saves against one baseline, as parts of the baseline (0.25 = a quarter less; negative = more).

    At peak: 1 - our largest value over the baseline's largest, each at its own maximum over the intervals. Mean:
    1 - our sum over the baseline's, over the ``intervals_compared`` in which both cover the demand; None without any.
    ``comparable``: both cover every interval. Otherwise the baseline's peak is that of an answer that drops load, and
    the figures at peak understate the plan.
    """

    baseline: str
    peak_capacity: float | None
    peak_power: float | None
    mean_capacity: float | None
    mean_power: float | None
    intervals_compared: int
    comparable: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """Whole machines for every interval, with the linear optimum beside them and the prices behind them.

    T intervals, H server types, W workloads. Arrays are read-only float64 unless said otherwise.
    """

    load_name: str
    times: npt.NDArray[np.datetime64]
    """datetime64[s] [T], start of each interval, UTC."""
    interval_s: float
    servers: tuple[str, ...]
    workloads: tuple[str, ...]
    load_qps: FloatArray
    """[T, W]."""
    demand_qps: FloatArray
    """[T, W] ``load_qps * (1 + headroom)``: what is covered."""
    headroom: float
    qps: FloatArray
    """[H, W] latency-bounded throughput of one server; 0 = not eligible."""
    server_power_w: FloatArray
    """[H, W] power of that server."""
    stock: IntArray
    """int64 [H]."""
    servers_on: IntArray
    """int64 [T, H, W] servers to switch on: the answer."""
    lp_servers: FloatArray
    """[T, H, W] the fractional optimum."""
    power_w: FloatArray
    """[T] provisioned power of ``servers_on``."""
    lp_power_w: FloatArray
    """[T] provisioned power of ``lp_servers``; no penalties in it."""
    bound_w: FloatArray
    """[T] certificate: no plan has a lower ``power + sum(penalty * shed)``."""
    gap: FloatArray
    """[T] (that objective of ``servers_on`` - bound) / objective; the price of whole machines."""
    shed_qps: FloatArray
    """[T, W] demand that ``servers_on`` leaves uncovered."""
    lp_shed_qps: FloatArray
    """[T, W] demand that even fractional machines leave uncovered."""
    surplus_qps: FloatArray
    """[T, W] capacity of ``servers_on`` above demand."""
    free_stock: IntArray
    """int64 [T, H] servers left off."""
    stock_price_w: FloatArray
    """[T, H] watts (of the linear optimum) that one more server of the type would save."""
    load_price_w: FloatArray
    """[T, W] watts that one more q/s costs, W per q/s."""
    penalty_w_per_qps: FloatArray
    """[T, W] cost of shedding in the objective, W per q/s; large, so that load is shed only where stock ends."""
    fit_scale: float | None
    """Where load is shed: the factor on all demand at which fractional machines within the stock would cover it."""
    baselines: Mapping[str, Baseline]
    """"greedy" and "oblivious"."""
    greedy_order_spread: OrderSpread | None
    """Greedy at the peak over many workload orders; None if no orders were asked for."""
    notes: tuple[str, ...] = ()
    """What was chosen on the way: headroom, scaling of the load, intervals solved twice."""

    def __post_init__(self) -> None:
        for name in (*_FLOATS, *_COUNTS, "times"):
            getattr(self, name).setflags(write=False)

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def capacity(self) -> IntArray:
        """int64 [T] servers switched on."""
        return np.asarray(self.servers_on.sum(axis=(1, 2)))

    @property
    def peak(self) -> int:
        """Interval in which the load is dearest to serve (largest ``bound_w``; the first of equals)."""
        return int(self.bound_w.argmax())

    @property
    def trough(self) -> int:
        """Interval in which the load is cheapest to serve."""
        return int(self.bound_w.argmin())

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """bool [T]: all demand of the interval is covered."""
        return np.asarray(~(self.shed_qps > 0).any(axis=1))

    @property
    def is_covered(self) -> bool:
        """Whether all demand of all intervals is covered."""
        return bool(self.covered.all())

    def savings(self) -> dict[str, Savings]:
        """Capacity and power saved against each baseline."""
        return {name: self._savings(base) for name, base in self.baselines.items()}

    def _savings(self, base: Baseline) -> Savings:
        both = base.covers & self.covered
        pairs = ((self.capacity, base.capacity), (self.power_w, base.power_w))
        peaks = [_saving(float(ours.max()), float(theirs.max())) for ours, theirs in pairs]
        means = [_saving(float(ours[both].sum()), float(theirs[both].sum())) for ours, theirs in pairs]
        return Savings(
            baseline=base.name,
            peak_capacity=peaks[0],
            peak_power=peaks[1],
            mean_capacity=means[0],
            mean_power=means[1],
            intervals_compared=int(both.sum()),
            comparable=bool(both.all()),
        )

    def shortfall(self) -> tuple[str, ...]:
        """In words, for each workload that is short: how much, when at worst, how often; then what load would fit."""
        lines = []
        for w, name in enumerate(self.workloads):
            short = self.shed_qps[:, w]
            if short.any():
                t = int(short.argmax())
                share = short[t] / self.demand_qps[t, w]
                whole = "" if self.lp_shed_qps[:, w].any() else "; only because machines are whole"
                lines.append(
                    f"{name}: short in {int((short > 0).sum())} of {len(short)} intervals, at worst by "
                    f"{short[t]:.6g} q/s ({100 * share:.3g} % of its demand) at {self.times[t]}{whole}"
                )
        if lines and self.fit_scale is not None:
            lines.append(
                f"the stock would cover {self.fit_scale:.4g} times the demand of every workload (fractional machines)"
            )
        return tuple(lines)

    def binding_stock(self) -> tuple[str, ...]:
        """In words, the server types whose stock limits the plan, the dearest at peak first."""
        peak = self.peak
        worth = self.stock_price_w > _PRICE_DUST_W
        types = [h for h in range(len(self.servers)) if worth[:, h].any()]
        lines = []
        for h in sorted(types, key=lambda h: (-self.stock_price_w[peak, h], h)):
            in_use = f"all {self.stock[h]} in use" if self.stock[h] else "none in stock, one would be used"
            when = (self.free_stock[:, h] == 0) if self.stock[h] else worth[:, h]
            lines.append(
                f"{self.servers[h]}: {in_use} in {int(when.sum())} of {len(worth)} intervals; {self._worth(h, peak)}"
            )
        return tuple(lines)

    def _worth(self, h: int, t: int) -> str:
        price = self.stock_price_w[t, h]
        if price <= _PRICE_DUST_W:
            t = int(self.stock_price_w[:, h].argmax())
            return f"one more would save nothing at peak, up to {self.stock_price_w[t, h]:.0f} W at {self.times[t]}"
        if self.lp_shed_qps[t].any():
            return "one more would serve load that is shed at peak"
        return f"one more would save {price:.0f} W at peak"

    def explain(self) -> str:
        """The plan in a few lines of text."""
        peak, trough = self.peak, self.trough
        lines = [
            f"Plan for {self.load_name}: {len(self.times)} intervals, {len(self.servers)} server types "
            f"({int(self.stock.sum())} servers), {len(self.workloads)} workloads, headroom {100 * self.headroom:.3g} %"
        ]
        for label, t in (("peak", peak), ("trough", trough)):
            lines.append(
                f"  {label} ({self.times[t]}): {int(self.capacity[t])} servers, {self.power_w[t] / 1000:.2f} kW "
                f"provisioned (linear optimum {self.lp_power_w[t] / 1000:.2f} kW, gap {100 * self.gap[t]:.2f} %)"
            )
        for saving in self.savings().values():
            lines.append(f"  against {saving.baseline}: {_saving_words(saving, len(self.times))}")
        spread = self.greedy_order_spread
        if spread is not None:
            lines.append(f"  {_spread_words(spread)}")
        lines += [f"  stock: {line}" for line in self.binding_stock()]
        lines += [f"  SHORT: {line}" for line in self.shortfall()]
        lines += [f"  note: {line}" for line in self.notes]
        return "\n".join(lines)

    # -- files ---------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; everything that :meth:`from_dict` needs."""
        data: dict[str, Any] = {name: getattr(self, name).tolist() for name in (*_FLOATS, *_COUNTS)}
        for name in ("load_name", "interval_s", "headroom", "fit_scale"):
            data[name] = getattr(self, name)
        for name in ("servers", "workloads", "notes"):
            data[name] = list(getattr(self, name))
        data["schema"] = SCHEMA
        data["times"] = np.datetime_as_string(self.times, unit="s").tolist()
        data["baselines"] = {
            name: {
                "rule": base.rule,
                "capacity": base.capacity.tolist(),
                "power_w": base.power_w.tolist(),
                "unmet_qps": base.unmet_qps.tolist(),
            }
            for name, base in self.baselines.items()
        }
        spread = self.greedy_order_spread
        data["greedy_order_spread"] = spread and {
            "interval": spread.interval,
            "orders": spread.orders,
            "covering": spread.covering,
            "power_w": spread.power_w and list(spread.power_w),
            "capacity": spread.capacity and list(spread.capacity),
        }
        return data

    def to_json(self) -> str:
        """JSON text: keys sorted, floats that read back to the same bits; the same plan gives the same bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "plan") -> Plan:
        """Back from :meth:`to_dict`. Raises :class:`ConfigError` naming every field that does not meet the schema."""
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            seen = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
            raise ConfigError(source, [Fault("schema", f"is {seen!r}; allowed is {SCHEMA!r}")])
        values: dict[str, Any] = {}
        faults: list[Fault] = []
        for name, read in _readers().items():
            try:
                values[name] = read(data[name])
            except KeyError as error:
                faults.append(Fault(name, "is missing" if error.args == (name,) else f"lacks {error}"))
            except (TypeError, ValueError, AttributeError, OverflowError) as error:
                faults.append(Fault(name, f"does not meet the schema: {error}"))
        faults = faults or _shape_faults(values)
        if faults:
            raise ConfigError(source, faults)
        return cls(**values)

    @classmethod
    def from_json(cls, text: str, *, source: str = "plan") -> Plan:
        """Back from :meth:`to_json`. Raises :class:`ConfigError`."""
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(source, [Fault("", f"is not JSON: {error}")]) from error
        return cls.from_dict(data, source=source)

    def to_csv(self) -> str:
        """Long form: one line per interval, server type and workload with servers on. UTC, UTF-8.

        Columns: timestamp, server, workload, servers, lp_servers, capacity_qps, power_w. Names that a spreadsheet
        would run as a formula are quoted.
        """
        buffer = io.StringIO()
        out = csv.writer(buffer, lineterminator="\n")
        out.writerow(["timestamp", "server", "workload", "servers", "lp_servers", "capacity_qps", "power_w"])
        stamps = np.datetime_as_string(self.times, unit="s").tolist()
        servers = [_cell(name) for name in self.servers]
        workloads = [_cell(name) for name in self.workloads]
        for t, h, w in np.argwhere((self.servers_on > 0) | (self.lp_servers > 0)).tolist():
            count = int(self.servers_on[t, h, w])
            fraction = float(self.lp_servers[t, h, w])
            capacity, power = count * float(self.qps[h, w]), count * float(self.server_power_w[h, w])
            out.writerow(
                [f"{stamps[t]}Z", servers[h], workloads[w], count, repr(fraction), repr(capacity), repr(power)]
            )
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, or CSV where the name ends in .csv; all or nothing. Raises :class:`OutputError`."""
        target = Path(path)
        text = self.to_csv() if target.suffix.lower() == ".csv" else self.to_json()
        write_atomically(target, text.encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read what :meth:`save` wrote as JSON. Raises :class:`MissingFileError`, :class:`ConfigError`."""
        source = os.fspath(path)
        try:
            text = Path(source).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise MissingFileError(f"{source}: no such file") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(source, [Fault("", f"cannot be read: {error}")]) from error
        return cls.from_json(text, source=source)


def _saving(ours: float, theirs: float) -> float | None:
    return 1.0 - ours / theirs if theirs > 0 else None


def _saving_words(saving: Savings, intervals: int) -> str:
    if saving.peak_power is None or saving.peak_capacity is None:
        return "the baseline switches nothing on"
    words = f"{_less(saving.peak_power)} power and {_less(saving.peak_capacity)} servers at peak"
    if saving.mean_power is not None and saving.mean_capacity is not None:
        words += f"; {_less(saving.mean_power)} power and {_less(saving.mean_capacity)} servers on average"
    if not saving.comparable:
        words += (
            f" (only {saving.intervals_compared} of {intervals} intervals are covered by both: not comparable at peak)"
        )
    return words


def _less(share: float) -> str:
    return f"{100 * abs(share):.1f} % {'less' if share >= 0 else 'more'}"


def _spread_words(spread: OrderSpread) -> str:
    failing = f"{100 * spread.failing_share:.0f} % fail to cover the load"
    words = f"greedy at peak over {spread.orders} workload orders: {failing}"
    if spread.power_w is not None and spread.capacity is not None:
        low, middle, high = (value / 1000 for value in spread.power_w)
        words += f"; the others take {low:.2f} to {high:.2f} kW (median {middle:.2f}) and {spread.capacity[0]:.0f} to "
        words += f"{spread.capacity[2]:.0f} servers"
    return words


def _cell(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


# -- reading back ------------------------------------------------------------------------------------------------


def _readers() -> dict[str, Callable[[Any], Any]]:
    """How each field of a plan is read from plain data; also the list of fields."""
    readers: dict[str, Callable[[Any], Any]] = dict.fromkeys(_FLOATS, _read_floats)
    readers |= dict.fromkeys(_COUNTS, _read_counts)
    readers |= dict.fromkeys(("servers", "workloads", "notes"), _read_names)
    readers |= {"load_name": str, "interval_s": float, "headroom": float, "fit_scale": _read_scale}
    readers |= {"times": _read_times, "baselines": _read_baselines, "greedy_order_spread": _read_spread}
    return readers


def _read_floats(value: Any) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("holds a value that is not finite")
    return array


def _read_counts(value: Any) -> IntArray:
    array = np.asarray(value)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError("holds a value that is not a whole number")
    array = array.astype(np.int64)
    if (array < 0).any():
        raise ValueError("holds a negative count")
    return array


def _read_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("is not a list of texts")
    return tuple(value)


def _read_times(value: Any) -> npt.NDArray[np.datetime64]:
    return np.array(_read_names(value), dtype="datetime64[s]")


def _read_scale(value: Any) -> float | None:
    return None if value is None else float(value)


def _read_baselines(value: Any) -> dict[str, Baseline]:
    return {
        name: Baseline(
            name=name,
            rule=str(raw["rule"]),
            capacity=_read_counts(raw["capacity"]),
            power_w=_read_floats(raw["power_w"]),
            unmet_qps=_read_floats(raw["unmet_qps"]),
        )
        for name, raw in value.items()
    }


def _read_spread(value: Any) -> OrderSpread | None:
    def triple(raw: Any) -> tuple[float, float, float] | None:
        if raw is None:
            return None
        low, middle, high = (float(x) for x in raw)
        if not math.isfinite(low + middle + high):
            raise ValueError("holds a value that is not finite")
        return low, middle, high

    if value is None:
        return None
    return OrderSpread(
        interval=int(value["interval"]),
        orders=int(value["orders"]),
        covering=int(value["covering"]),
        power_w=triple(value["power_w"]),
        capacity=triple(value["capacity"]),
    )


def _shape_faults(values: Mapping[str, Any]) -> list[Fault]:
    n = {"t": len(values["times"]), "h": len(values["servers"]), "w": len(values["workloads"])}
    shapes = dict.fromkeys(("load_qps", "demand_qps", "shed_qps", "lp_shed_qps", "surplus_qps"), "tw")
    shapes |= {"load_price_w": "tw", "penalty_w_per_qps": "tw", "stock_price_w": "th", "free_stock": "th", "stock": "h"}
    shapes |= {"qps": "hw", "server_power_w": "hw", "servers_on": "thw", "lp_servers": "thw"}
    shapes |= dict.fromkeys(("power_w", "lp_power_w", "bound_w", "gap"), "t")
    got = {name: (values[name].shape, dims) for name, dims in shapes.items()}
    for name, base in values["baselines"].items():
        for part, dims in (("capacity", "t"), ("power_w", "t"), ("unmet_qps", "tw")):
            got[f"baselines.{name}.{part}"] = (getattr(base, part).shape, dims)
    wanted = {name: tuple(n[d] for d in dims) for name, (_, dims) in got.items()}
    faults = [
        Fault(name, f"has shape {shape}; allowed is {wanted[name]}")
        for name, (shape, _) in got.items()
        if shape != wanted[name]
    ]
    return (
        faults if all(n.values()) else [Fault("times", "a plan needs at least one interval, server type and workload")]
    )
