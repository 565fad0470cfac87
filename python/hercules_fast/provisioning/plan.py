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
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.baselines import Baseline, OrderSpread
from hercules_fast.provisioning.operations import Costs
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem, shortfall_qps
from hercules_fast.provisioning.relaxed import relative_gap
from hercules_fast.provisioning.solution import Constrained
from hercules_fast.tables import write_atomically

__all__ = ["SCHEMA", "Plan", "Savings"]

SCHEMA = "hercules_fast.plan/2"
_SCHEMA_1 = "hercules_fast.plan/1"

# A stock price below this part of the dearest machine's cost is rounding, not scarcity.
_PRICE_DUST = 1e-9
_SECONDS_PER_HOUR = 3600.0
_FLOATS = (
    *("load_qps", "demand_qps", "headroom", "qps", "qps_lo", "server_power_w"),
    *("bound_w", "stock_price_w", "load_price_w", "penalty_w_per_qps"),
)
_COUNTS = ("stock", "row_type", "group", "minimum")
_NAMES = ("servers", "workloads", "drained", "relaxations", "notes")
_SAID_FLOATS = ("objective_w", "exposed_qps", "served_share", "cap_price")
_SAID_NAMES = ("cap_names", "status", "binding")
_COST_FLOATS = ("price_per_kwh", "carbon_g_per_kwh", "machine_per_hour", "embodied_g_per_hour")


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

    T intervals, H server types, W workloads; R rows, the ways to use a type (one per type is the rule, a type with
    several configurations for a workload has more). Arrays are read-only float64 unless said otherwise.

    Objective, bound and prices are in watts, or, where ``costs`` is given, in its currency per interval.
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
    headroom: FloatArray
    """[W]."""
    estimate: str
    """The QPS that count: "value", or "lower" for the lower ends of their intervals."""
    qps: FloatArray
    """[R, W] latency-bounded throughput of one server; 0 = not eligible."""
    qps_lo: FloatArray
    """[R, W] lower end of its 95 % interval."""
    server_power_w: FloatArray
    """[R, W] power of that server."""
    row_type: IntArray
    """int64 [R], the server type of each row; rows 0..H-1 are the types in order."""
    group: IntArray
    """int64 [R, W], machines come in multiples of it: one copy of the model is spread over so many."""
    stock: IntArray
    """int64 [T, H], maintenance taken off."""
    minimum: IntArray
    """int64 [R, W], machines that are on in every interval, needed or not."""
    drained: tuple[str, ...]
    """In words, what was not to be used."""
    costs: Costs | None
    """Prices of energy, machines and carbon; None: watts are minimised."""
    assignment: Assignment
    """[T, R, W] servers to switch on, int64: the answer."""
    lp_assignment: Assignment
    """[T, R, W] the fractional optimum."""
    bound_w: FloatArray
    """[T] certificate: no plan has a lower ``objective_w``."""
    stock_price_w: FloatArray
    """[T, H] what one more server of the type would save (of the linear optimum)."""
    load_price_w: FloatArray
    """[T, W] what one more q/s costs."""
    penalty_w_per_qps: FloatArray
    """[T, W] cost of shedding in the objective; large, so that load is shed only where stock ends."""
    fit_scale: float | None
    """Where demand is not covered: the factor on all of it at which fractional machines within the stock cover it."""
    relaxations: tuple[str, ...]
    """Where demand is not covered: in words, the cheapest ways to cover it after all."""
    baselines: Mapping[str, Baseline]
    """"greedy" and "oblivious"."""
    greedy_order_spread: OrderSpread | None
    """Greedy at the peak over many workload orders; None if no orders were asked for."""
    oblivious_spread: OrderSpread | None
    """Oblivious at the peak over many draws; None if none were asked for, or it does not draw."""
    notes: tuple[str, ...] = ()
    """What was chosen on the way: headroom, scaling of the load, intervals solved twice."""
    constrained: Constrained | None = None
    """What the constraints say; None without any."""

    def __post_init__(self) -> None:
        for name in (*_FLOATS, *_COUNTS, "times"):
            getattr(self, name).setflags(write=False)

    # -- machines, load and power --------------------------------------------------------------------------------

    @property
    def servers_on(self) -> IntArray:
        """int64 [T, H, W] servers of each type to switch on, dense. Read-only."""
        return self._by_type(self.assignment)

    @property
    def lp_servers(self) -> FloatArray:
        """[T, H, W] the fractional optimum, dense. Read-only."""
        return self._by_type(self.lp_assignment)

    def _by_type(self, assignment: Assignment) -> npt.NDArray[Any]:
        rows, n_types = assignment.dense(), len(self.servers)
        dense = rows[:, :n_types]
        for r in range(n_types, len(self.row_type)):
            dense[:, self.row_type[r]] += rows[:, r]
        dense.setflags(write=False)
        return dense

    @property
    def capacity(self) -> IntArray:
        """int64 [T] servers switched on."""
        return np.asarray(self.per_type.sum(axis=1))

    @property
    def per_type(self) -> IntArray:
        """int64 [T, H] servers switched on."""
        return self.assignment.per_type(self.row_type, len(self.servers))

    @property
    def free_stock(self) -> IntArray:
        """int64 [T, H] servers left off."""
        return self.stock - self.per_type

    @property
    def capacity_qps(self) -> FloatArray:
        """[T, W] throughput of the servers on."""
        return self.assignment.per_workload(self.qps)

    @property
    def surplus_qps(self) -> FloatArray:
        """[T, W] capacity above demand."""
        return np.maximum(self.capacity_qps - self.demand_qps, 0.0)

    @property
    def unmet_qps(self) -> FloatArray:
        """[T, W] demand that is not covered: ``shed_qps + headroom_short_qps``."""
        return shortfall_qps(self.demand_qps, self.capacity_qps)

    @property
    def shed_qps(self) -> FloatArray:
        """[T, W] load that is not served."""
        return shortfall_qps(self.load_qps, self.capacity_qps)

    @property
    def headroom_short_qps(self) -> FloatArray:
        """[T, W] headroom that is not there, above what is missing of the load itself."""
        return np.maximum(self.unmet_qps - self.shed_qps, 0.0)

    @property
    def exposed_qps(self) -> FloatArray:
        """[T, W] demand that would be uncovered after the worst failure of k domains; 0 without such a rule."""
        return np.zeros(self.demand_qps.shape) if self.constrained is None else self.constrained.exposed_qps

    @property
    def switched_on(self) -> IntArray:
        """int64 [T, H] servers on now and not before; 0 in an interval that nothing precedes."""
        if self.constrained is not None:
            return self.constrained.switched_on
        on = self.per_type
        return np.maximum(np.diff(on, axis=0, prepend=on[:1]), 0)

    @property
    def lp_unmet_qps(self) -> FloatArray:
        """[T, W] demand that even fractional machines leave uncovered."""
        return shortfall_qps(self.demand_qps, self.lp_assignment.per_workload(self.qps))

    @property
    def power_w(self) -> FloatArray:
        """[T] provisioned power of the servers on."""
        return self.assignment.total(self.server_power_w)

    @property
    def lp_power_w(self) -> FloatArray:
        """[T] provisioned power of the fractional optimum; no penalties in it."""
        return self.lp_assignment.total(self.server_power_w)

    # -- cost ----------------------------------------------------------------------------------------------------

    @property
    def hours(self) -> float:
        """Length of an interval."""
        return self.interval_s / _SECONDS_PER_HOUR

    @property
    def energy_kwh(self) -> FloatArray:
        """[T] provisioned power times the length of the interval."""
        return self.power_w * self.hours / 1000.0

    @property
    def money(self) -> FloatArray | None:
        """[T] what energy and machines cost, in ``costs.currency``; None without prices. No price of carbon in it."""
        return None if self.costs is None else self.costs.money(*self._by_type_figures(), self.hours)

    @property
    def carbon_kg(self) -> FloatArray | None:
        """[T] carbon of energy and machines, kg CO2 equivalent; None without prices."""
        return None if self.costs is None else self.costs.carbon_kg(*self._by_type_figures(), self.hours)

    def _by_type_figures(self) -> tuple[FloatArray, IntArray]:
        """[T, H] watts and machines."""
        part = self.assignment
        place = part.interval * len(self.servers) + self.row_type[part.row]
        watts = np.bincount(
            place, part.machines * self.server_power_w[part.row, part.workload], minlength=self.stock.size
        )
        return np.asarray(watts.reshape(self.stock.shape), dtype=np.float64), self.per_type

    @property
    def cost(self) -> FloatArray:
        """[T] what was minimised, without penalties: ``power_w``, or money with the price of carbon."""
        if self.costs is None:
            return self.power_w
        watts, machines = self._by_type_figures()
        watt_cost, machine_cost = self.costs.watt_cost(self.hours), self.costs.machine_cost(self.hours)
        return np.asarray((watt_cost * watts + machine_cost * machines).sum(axis=1))

    @property
    def objective_w(self) -> FloatArray:
        """[T] ``cost + sum(penalty * unmet)``: what ``bound_w`` bounds. Under constraints see :class:`Constrained`."""
        if self.constrained is not None:
            return self.constrained.objective_w
        return np.asarray(self.cost + (self.penalty_w_per_qps * self.unmet_qps).sum(axis=1))

    @property
    def gap(self) -> FloatArray:
        """[T] (objective - bound) / objective: the price of whole machines; of all time where intervals are tied."""
        if self.constrained is not None:
            return self.constrained.gap(self.bound_w)
        return relative_gap(self.objective_w, self.bound_w)

    def problem(self) -> Problem:
        """The problem that this plan answers, ``minimum`` apart; for the inverse questions."""
        return Problem(
            qps=self.qps,
            power_w=self.server_power_w,
            demand_qps=self.demand_qps,
            stock=self.stock,
            row_type=self.row_type if len(self.row_type) > len(self.servers) else None,
            watt_cost=None if self.costs is None else self.costs.watt_cost(self.hours),
            machine_cost=None if self.costs is None else self.costs.machine_cost(self.hours),
            group=self.group if (self.group > 1).any() else None,
            servers=self.servers,
            workloads=self.workloads,
        )

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def peak(self) -> int:
        """Interval whose demand takes most: the largest penalty for what cannot be covered, else the largest power."""
        missing = (self.penalty_w_per_qps * self.lp_unmet_qps).sum(axis=1)
        return int((missing if missing.any() else self.lp_power_w).argmax())

    @property
    def trough(self) -> int:
        """Interval whose demand takes least power."""
        return int(self.lp_power_w.argmin())

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """bool [T]: all demand of the interval is covered, its headroom too."""
        return np.asarray(~(self.unmet_qps > 0).any(axis=1))

    @property
    def is_covered(self) -> bool:
        """Whether all demand of all intervals is covered, and stays so after failures where a rule asks for it."""
        return bool(self.covered.all()) and not self.exposed_qps.any()

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
        """In words, for each workload that is short: load or headroom, how much, when, how often; then what helps."""
        lines, after = [], []
        unmet, shed, lp_unmet = self.unmet_qps, self.shed_qps, self.lp_unmet_qps
        for w, name in enumerate(self.workloads):
            if unmet[:, w].any():
                whole = "" if lp_unmet[:, w].any() else "; only because machines are whole"
                lines += [line + whole for line in self._short_lines(name, w, shed[:, w], unmet[:, w])]
        if lines and self.fit_scale is not None:
            lines.append(
                f"the stock would cover {self.fit_scale:.4g} times the demand of every workload (fractional machines)"
            )
        exposed = self.exposed_qps
        for w in np.flatnonzero(exposed.any(axis=0)).tolist():
            t = int(exposed[:, w].argmax())
            after.append(
                f"{self.workloads[w]}: exposed to the worst failure in {int((exposed[:, w] > 0).sum())} of "
                f"{len(exposed)} intervals, at worst {exposed[t, w]:.6g} q/s "
                f"({100 * exposed[t, w] / self.demand_qps[t, w]:.3g} % of its demand) at {self.times[t]}"
            )
        return (*lines, *(self.relaxations if lines else ()), *after)

    def _short_lines(self, name: str, w: int, shed: FloatArray, unmet: FloatArray) -> list[str]:
        """What workload w misses of its load [T], and where only its headroom is cut."""
        lines = []
        if shed.any():
            t = int(shed.argmax())
            lines.append(
                f"{name}: load is shed in {int((shed > 0).sum())} of {len(shed)} intervals, at worst {shed[t]:.6g} q/s "
                f"({100 * shed[t] / self.load_qps[t, w]:.3g} % of its load) at {self.times[t]}"
            )
        cut = (unmet > 0) & (shed == 0)
        if cut.any():
            # Least headroom left, as a part of the load; the load is above 0 where demand is.
            left = np.where(cut, (self.demand_qps[:, w] - unmet) / np.where(cut, self.load_qps[:, w], 1.0) - 1, np.inf)
            t = int(left.argmin())
            lines.append(
                f"{name}: headroom is short in {int(cut.sum())} of {len(shed)} intervals, at worst {100 * left[t]:.3g} "
                f"% instead of {100 * self.headroom[w]:.3g} % at {self.times[t]}"
            )
        return lines

    def lower_end(self) -> tuple[str, ...]:
        """In words, the workloads that fall short if every server does only the lower end of its QPS interval."""
        if self.estimate == "lower":
            return ()
        capacity = self.assignment.per_workload(self.qps_lo)
        shed, unmet = shortfall_qps(self.load_qps, capacity), shortfall_qps(self.demand_qps, capacity)
        lines = [
            line
            for w, name in enumerate(self.workloads)
            if (shed[:, w] > self.shed_qps[:, w]).any()
            for line in self._short_lines(name, w, shed[:, w], shed[:, w])
        ]
        cut = (unmet > self.unmet_qps) & (shed == 0)
        if cut.any():
            left = np.where(cut, (self.demand_qps - unmet) / np.where(cut, self.load_qps, 1.0) - 1.0, np.inf)
            t, w = np.unravel_index(left.argmin(), left.shape)
            lines.append(
                f"headroom of {int(cut.any(axis=0).sum())} workloads is less than planned, at worst "
                f"{100 * left[t, w]:.3g} % instead of {100 * self.headroom[w]:.3g} % ({self.workloads[w]} at "
                f"{self.times[t]})"
            )
        return tuple(lines)

    @property
    def _dust(self) -> float:
        """A price below this is rounding."""
        machine = float(self.server_power_w.max(initial=0.0))
        if self.costs is not None:
            machine = machine * float(self.costs.watt_cost(self.hours).max()) + float(
                self.costs.machine_cost(self.hours).max()
            )
        return _PRICE_DUST * machine

    def binding_stock(self) -> tuple[str, ...]:
        """In words, the server types whose stock limits the plan, the dearest at peak first."""
        peak, free = self.peak, self.free_stock
        worth = self.stock_price_w > self._dust
        types = [h for h in range(len(self.servers)) if worth[:, h].any()]
        lines = []
        for h in sorted(types, key=lambda h: (-self.stock_price_w[peak, h], h)):
            stock = self.stock[:, h]
            least, most = int(stock.min()), int(stock.max())
            there = f"all {most}" if least == most else f"all that are there ({least} to {most}, maintenance)"
            in_use = f"{there} in use" if most else "none in stock, one would be used"
            when = ((free[:, h] == 0) & (stock > 0)) if most else worth[:, h]
            lines.append(
                f"{self.servers[h]}: {in_use} in {int(when.sum())} of {len(worth)} intervals; {self._worth(h, peak)}"
            )
        return tuple(lines)

    def _worth(self, h: int, t: int) -> str:
        price = self.stock_price_w[t, h]
        if price <= self._dust:
            t = int(self.stock_price_w[:, h].argmax())
            most = self._amount(float(self.stock_price_w[t, h]))
            return f"one more would save nothing at peak, up to {most} at {self.times[t]}"
        if self.lp_unmet_qps[t].any():
            return "one more would serve load that is not covered at peak"
        return f"one more would save {self._amount(float(price))} at peak"

    def binding_minimum(self) -> tuple[str, ...]:
        """In words, the minimum footprints that cost something, and how much where it is most.

        A machine more of the pair costs ``cost + u - v qps``: more than 0 where the plan would not want it.
        """
        if self.constrained is not None:  # said there, with the prices of the constraints
            return ()
        lines = []
        problem = self.problem() if self.minimum.any() else None
        for r, w in np.argwhere(self.minimum > 0).tolist():
            assert problem is not None
            h = int(self.row_type[r])
            cost = np.array([problem.cost(t)[r, w] for t in range(problem.n_intervals)])
            worth = self.load_price_w[:, w] * self.qps[r, w]
            extra = self.minimum[r, w] * (cost + self.stock_price_w[:, h] - worth)
            t = int(extra.argmax())
            if extra[t] > self._dust:
                lines.append(
                    f"{self.minimum[r, w]} {self.servers[h]} for {self.workloads[w]} at least: costs up to "
                    f"{self._amount(float(extra[t]))} more than need be, at {self.times[t]}"
                )
        return tuple(lines)

    def _amount(self, value: float) -> str:
        return f"{value:.0f} W" if self.costs is None else f"{value:.4g} {self.costs.currency} an interval"

    def binding_constraints(self) -> tuple[str, ...]:
        """In words: which constraints bind and what they cost, how many servers are switched on, what fairness left."""
        if self.constrained is None:
            return ()
        lines = list(self.constrained.binding)
        switched = int(self.constrained.switched_on.sum())
        if self.constrained.tied or "kept" in self.constrained.status:
            kept = self.constrained.status.count("kept")
            rest = f", {kept} of {len(self.times)} intervals keep the plan of the one before" if kept else ""
            lines.append(f"servers are switched on {switched} times{rest}")
        share = self.constrained.served_share
        if (share < 1.0).any():
            t, w = np.unravel_index(share.argmin(), share.shape)
            lines.append(
                f"load is shared in {int((share < 1.0).any(axis=1).sum())} of {len(self.times)} intervals; the "
                f"smallest share is {100 * share[t, w]:.3g} % of the demand ({self.workloads[w]} at {self.times[t]})"
            )
        return tuple(lines)

    def headroom_words(self) -> str:
        """ "10 %", or the least and most where workloads differ."""
        low, high = 100 * float(self.headroom.min()), 100 * float(self.headroom.max())
        return f"{low:.3g} %" if low == high else f"{low:.3g} to {high:.3g} %"

    def cost_words(self) -> str:
        """What all intervals take together: energy, and with prices money and carbon."""
        words = f"{self.energy_kwh.sum():,.0f} kWh"
        if self.costs is None:
            return words
        money, carbon = self.money, self.carbon_kg
        assert money is not None
        assert carbon is not None
        return f"{words}, {money.sum():,.2f} {self.costs.currency}, {carbon.sum():,.1f} kg CO2"

    def explain(self) -> str:
        """The plan in a few lines of text."""
        peak, trough = self.peak, self.trough
        lines = [
            f"Plan for {self.load_name}: {len(self.times)} intervals, {len(self.servers)} server types "
            f"({int(self.stock.sum(axis=1).max())} servers), {len(self.workloads)} workloads, "
            f"headroom {self.headroom_words()}"
        ]
        capacity, power_w, lp_power_w, gap = self.capacity, self.power_w, self.lp_power_w, self.gap
        over = " over all intervals" if self.constrained is not None and self.constrained.tied else ""
        for label, t in (("peak", peak), ("trough", trough)):
            lines.append(
                f"  {label} ({self.times[t]}): {int(capacity[t])} servers, {power_w[t] / 1000:.2f} kW "
                f"provisioned (linear optimum {lp_power_w[t] / 1000:.2f} kW, gap {100 * gap[t]:.2f} %{over})"
            )
        lines.append(f"  in all: {self.cost_words()}")
        for saving in self.savings().values():
            lines.append(f"  against {saving.baseline}: {_saving_words(saving, len(self.times))}")
        for name, spread in (("greedy", self.greedy_order_spread), ("oblivious", self.oblivious_spread)):
            if spread is not None:
                lines.append(f"  {_spread_words(name, spread)}")
        lines += [f"  constraint: {line}" for line in self.binding_constraints()]
        lines += [f"  stock: {line}" for line in self.binding_stock()]
        lines += [f"  minimum: {line}" for line in self.binding_minimum()]
        lines += [f"  drained: {line}" for line in self.drained]
        lines += [f"  SHORT: {line}" for line in self.shortfall()]
        lines += [f"  at the lower ends of the QPS: {line}" for line in self.lower_end()]
        lines += [f"  note: {line}" for line in self.notes]
        return "\n".join(lines)

    # -- files ---------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; everything that :meth:`from_dict` needs, and under ``figures`` what follows."""
        data: dict[str, Any] = {name: getattr(self, name).tolist() for name in (*_FLOATS, *_COUNTS)}
        for name in ("load_name", "interval_s", "fit_scale", "estimate"):
            data[name] = getattr(self, name)
        for name in _NAMES:
            data[name] = list(getattr(self, name))
        data["schema"] = SCHEMA
        data["times"] = np.datetime_as_string(self.times, unit="s").tolist()
        for name in ("assignment", "lp_assignment"):
            part = getattr(self, name)
            data[name] = {key: getattr(part, key).tolist() for key in ("starts", "row", "workload", "machines")}
        data["costs"] = None
        if self.costs is not None:
            data["costs"] = {name: getattr(self.costs, name).tolist() for name in _COST_FLOATS}
            data["costs"] |= {name: getattr(self.costs, name) for name in ("currency", "carbon_price_per_kg")}
        said = self.constrained
        data["constrained"] = None
        if said is not None:
            data["constrained"] = {name: getattr(said, name).tolist() for name in (*_SAID_FLOATS, "switched_on")}
            data["constrained"] |= {name: list(getattr(said, name)) for name in _SAID_NAMES}
            data["constrained"]["tied"] = said.tied
        data["baselines"] = {
            name: {
                "rule": base.rule,
                "capacity": base.capacity.tolist(),
                "power_w": base.power_w.tolist(),
                "unmet_qps": base.unmet_qps.tolist(),
            }
            for name, base in self.baselines.items()
        }
        for name in ("greedy_order_spread", "oblivious_spread"):
            spread = getattr(self, name)
            data[name] = spread and {
                "interval": spread.interval,
                "orders": spread.orders,
                "covering": spread.covering,
                "power_w": spread.power_w and list(spread.power_w),
                "capacity": spread.capacity and list(spread.capacity),
            }
        figures = (
            "capacity",
            "power_w",
            "switched_on",
            "lp_power_w",
            "objective_w",
            "gap",
            "shed_qps",
            "headroom_short_qps",
        )
        data["figures"] = {name: getattr(self, name).tolist() for name in (*figures, "surplus_qps", "free_stock")}
        data["figures"]["energy_kwh"] = self.energy_kwh.tolist()
        for name in ("money", "carbon_kg"):
            value = getattr(self, name)
            data["figures"][name] = None if value is None else value.tolist()
        return data

    def to_json(self) -> str:
        """JSON text: keys sorted, floats that read back to the same bits; the same plan gives the same bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "plan") -> Plan:
        """Back from :meth:`to_dict`, also of plans of schema 1.

        Raises :class:`ConfigError` naming every field that does not meet the schema. ``figures`` are not read: they
        follow from the rest.
        """
        schema = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
        if schema not in (SCHEMA, _SCHEMA_1):
            raise ConfigError(source, [Fault("schema", f"is {schema!r}; allowed are {SCHEMA!r} and {_SCHEMA_1!r}")])
        values: dict[str, Any] = {}
        faults: list[Fault] = []
        for name, read in (_readers() if schema == SCHEMA else _readers_1()).items():
            try:
                values[name] = read(data[name])
            except KeyError as error:
                faults.append(Fault(name, "is missing" if error.args == (name,) else f"lacks {error}"))
            except (TypeError, ValueError, AttributeError, OverflowError) as error:
                faults.append(Fault(name, f"does not meet the schema: {error}"))
        try:
            values["constrained"] = _read_constrained(data.get("constrained"))  # not there in plans without any
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            faults.append(Fault("constrained", f"does not meet the schema: {error}"))
        if not faults and schema == _SCHEMA_1:
            faults = _shape_faults_1(values)
            values = values if faults else _from_version_1(values)
        faults = faults or _shape_faults(values)
        if faults:
            raise ConfigError(source, faults)
        n_t, (n_r, n_w) = len(values["times"]), values["qps"].shape
        for name in ("assignment", "lp_assignment"):
            values[name] = Assignment(shape=(n_t, n_r, n_w), **values[name])
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
        """Long form: one line per interval, row and workload with servers on. UTC, UTF-8.

        Columns: timestamp, server, workload, servers, lp_servers, capacity_qps, power_w, configuration (0: the pair's
        row of most QPS in the table). Names that a spreadsheet would run as a formula are quoted.
        """
        buffer = io.StringIO()
        out = csv.writer(buffer, lineterminator="\n")
        out.writerow(
            ["timestamp", "server", "workload", "servers", "lp_servers", "capacity_qps", "power_w", "configuration"]
        )
        stamps = np.datetime_as_string(self.times, unit="s").tolist()
        servers = [_cell(name) for name in self.servers]
        workloads = [_cell(name) for name in self.workloads]
        rank = [int((self.row_type[:r] == h).sum()) for r, h in enumerate(self.row_type)]
        for (t, r, w), (count, fraction) in self._entries():
            h = int(self.row_type[r])
            capacity, power = count * float(self.qps[r, w]), count * float(self.server_power_w[r, w])
            figures = (repr(fraction), repr(capacity), repr(power))
            out.writerow([f"{stamps[t]}Z", servers[h], workloads[w], count, *figures, rank[r]])
        return buffer.getvalue()

    def _entries(self) -> list[tuple[tuple[int, int, int], tuple[int, float]]]:
        """(interval, row, workload) with whole and fractional machines, in that order, where either is above 0."""
        _, n_r, n_w = self.assignment.shape
        found: dict[int, list[Any]] = {}
        for k, part in enumerate((self.assignment, self.lp_assignment)):
            keys = (part.interval * n_r + part.row) * n_w + part.workload
            for key, machines in zip(keys.tolist(), part.machines.tolist(), strict=True):
                found.setdefault(key, [0, 0.0])[k] = machines
        return [
            ((key // (n_r * n_w), key // n_w % n_r, key % n_w), (both[0], both[1]))
            for key, both in sorted(found.items())
        ]

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


def _spread_words(name: str, spread: OrderSpread) -> str:
    failing = f"{100 * spread.failing_share:.0f} % fail to cover the load"
    words = f"{name} at peak over {spread.orders} {'workload orders' if name == 'greedy' else 'draws'}: {failing}"
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
    readers |= dict.fromkeys(_NAMES, _read_names)
    readers |= {"load_name": str, "interval_s": float, "fit_scale": _read_scale, "estimate": str}
    readers |= {"assignment": _assignment_reader(_read_counts), "lp_assignment": _assignment_reader(_read_floats)}
    readers |= {"times": _read_times, "baselines": _read_baselines, "costs": _read_costs}
    readers |= dict.fromkeys(("greedy_order_spread", "oblivious_spread"), _read_spread)
    return readers


_VERSION_1_FLOATS = (
    *("load_qps", "demand_qps", "qps", "server_power_w", "lp_servers", "bound_w"),
    *("stock_price_w", "load_price_w", "penalty_w_per_qps"),
)


def _readers_1() -> dict[str, Callable[[Any], Any]]:
    """As :func:`_readers`, of what schema 1 holds and still counts."""
    readers: dict[str, Callable[[Any], Any]] = dict.fromkeys(_VERSION_1_FLOATS, _read_floats)
    readers |= dict.fromkeys(("servers_on", "stock"), _read_counts)
    readers |= dict.fromkeys(("servers", "workloads", "notes"), _read_names)
    readers |= {"load_name": str, "interval_s": float, "headroom": float, "fit_scale": _read_scale}
    readers |= {"times": _read_times, "baselines": _read_baselines, "greedy_order_spread": _read_spread}
    return readers


def _from_version_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of this schema from those of schema 1: one row per type, one headroom, one stock, watts."""
    new = {name: value for name, value in values.items() if name not in ("servers_on", "lp_servers")}
    n_t, n_h, n_w = values["servers_on"].shape
    for name, dense in (("assignment", "servers_on"), ("lp_assignment", "lp_servers")):
        made = Assignment.from_dense(values[dense])
        new[name] = {key: getattr(made, key) for key in ("starts", "row", "workload", "machines")}
    new |= {"headroom": np.full(n_w, values["headroom"]), "stock": np.tile(values["stock"], (n_t, 1))}
    new |= {"qps_lo": values["qps"], "row_type": np.arange(n_h), "group": np.ones((n_h, n_w), dtype=np.int64)}
    new |= {"minimum": np.zeros((n_h, n_w), dtype=np.int64), "estimate": "value", "costs": None}
    return new | {"drained": (), "relaxations": (), "oblivious_spread": None}


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


def _read_machines(value: Any) -> npt.NDArray[Any]:
    """Whole or fractional machines of a baseline."""
    array = np.asarray(value)
    return _read_counts(value) if array.dtype.kind in "iu" else _read_floats(value)


def _read_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("is not a list of texts")
    return tuple(value)


def _read_times(value: Any) -> npt.NDArray[np.datetime64]:
    return np.array(_read_names(value), dtype="datetime64[s]")


def _read_scale(value: Any) -> float | None:
    return None if value is None else float(value)


def _assignment_reader(machines: Callable[[Any], npt.NDArray[Any]]) -> Callable[[Any], dict[str, npt.NDArray[Any]]]:
    def read(value: Any) -> dict[str, npt.NDArray[Any]]:
        counts = {name: _read_counts(value[name]) for name in ("starts", "row", "workload")}
        counts |= {name: counts[name].astype(np.int32) for name in ("row", "workload")}
        arrays = {**counts, "machines": machines(value["machines"])}
        for name, array in arrays.items():
            if array.ndim != 1:
                raise ValueError(f"{name} is not a list of numbers")
        return arrays

    return read


def _read_costs(value: Any) -> Costs | None:
    if value is None:
        return None
    return Costs(
        currency=str(value["currency"]),
        carbon_price_per_kg=float(value["carbon_price_per_kg"]),
        **{name: _read_floats(value[name]) for name in _COST_FLOATS},
    )


def _read_constrained(value: Any) -> Constrained | None:
    if value is None:
        return None
    if not isinstance(value["tied"], bool):
        raise ValueError(f"tied is {value['tied']!r}, not true or false")
    read: dict[str, Any] = {name: _read_floats(value[name]) for name in _SAID_FLOATS}
    read |= {name: _read_names(value[name]) for name in _SAID_NAMES}
    return Constrained(**read, switched_on=_read_counts(value["switched_on"]), tied=value["tied"])


def _read_baselines(value: Any) -> dict[str, Baseline]:
    return {
        name: Baseline(
            name=name,
            rule=str(raw["rule"]),
            capacity=_read_machines(raw["capacity"]),
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


def _shape_faults_1(values: Mapping[str, Any]) -> list[Fault]:
    shapes = _COMMON_SHAPES | {"qps": "hw", "server_power_w": "hw", "servers_on": "thw", "lp_servers": "thw"}
    return _wrong_shapes(values, shapes | {"stock": "h"})


def _shape_faults(values: Mapping[str, Any]) -> list[Fault]:
    shapes = _COMMON_SHAPES | dict.fromkeys(("qps", "qps_lo", "server_power_w", "group", "minimum"), "rw")
    faults = _wrong_shapes(values, shapes | {"headroom": "w", "row_type": "r", "stock": "th"})
    if faults:
        return faults
    n_h = len(values["servers"])
    n_t, (n_r, n_w) = len(values["times"]), values["qps"].shape
    if n_r < n_h or (values["row_type"][:n_h] != np.arange(n_h)).any() or (values["row_type"] >= n_h).any():
        faults.append(Fault("row_type", f"allowed are 0 to {n_h - 1}, in order, then further rows of these types"))
    for name in ("assignment", "lp_assignment"):
        part = values[name]
        n = len(part["machines"])
        ends = part["starts"][[0, -1]].tolist() if part["starts"].shape == (n_t + 1,) else None
        if ends != [0, n] or (np.diff(part["starts"]) < 0).any():
            faults.append(Fault(f"{name}.starts", f"allowed are {n_t + 1} rising positions from 0 to {n}"))
        for key, limit in (("row", n_r), ("workload", n_w)):
            if part[key].shape != (n,) or (part[key] >= limit).any():
                faults.append(Fault(f"{name}.{key}", f"allowed are {n} positions from 0 to {limit - 1}"))
    costs = values["costs"]
    if costs is not None:
        for key in _COST_FLOATS:
            shape = (n_t, n_h) if key.endswith("per_kwh") else (n_h,)
            if getattr(costs, key).shape != shape:
                faults.append(Fault(f"costs.{key}", f"has shape {getattr(costs, key).shape}; allowed is {shape}"))
    said = values["constrained"]
    if said is not None:
        sizes: dict[str, tuple[int, ...]] = {
            "objective_w": (n_t,),
            "exposed_qps": (n_t, n_w),
            "served_share": (n_t, n_w),
        }
        sizes |= {"switched_on": (n_t, n_h), "cap_price": (n_t, len(said.cap_names))}
        for key, size in sizes.items():
            if getattr(said, key).shape != size:
                faults.append(Fault(f"constrained.{key}", f"has shape {getattr(said, key).shape}; allowed is {size}"))
        if len(said.status) != n_t:
            faults.append(Fault("constrained.status", f"has {len(said.status)} entries; allowed are {n_t}"))
    return faults


_COMMON_SHAPES = {
    **dict.fromkeys(("load_qps", "demand_qps", "load_price_w", "penalty_w_per_qps"), "tw"),
    "stock_price_w": "th",
    "bound_w": "t",
}


def _wrong_shapes(values: Mapping[str, Any], shapes: Mapping[str, str]) -> list[Fault]:
    rows = values["row_type"].shape[0] if values.get("row_type") is not None and values["row_type"].ndim else 0
    n = {"t": len(values["times"]), "h": len(values["servers"]), "w": len(values["workloads"]), "r": rows}
    got = {name: (values[name].shape, dims) for name, dims in shapes.items()}
    for name, base in values["baselines"].items():
        for part, dims in (("capacity", "t"), ("power_w", "t"), ("unmet_qps", "tw")):
            got[f"baselines.{name}.{part}"] = (getattr(base, part).shape, dims)
    wanted = {name: tuple(n[d] for d in dims) for name, (_, dims) in got.items()}
    if not n["t"] * n["h"] * n["w"]:
        return [Fault("times", "a plan needs at least one interval, server type and workload")]
    return [
        Fault(name, f"has shape {shape}; allowed is {wanted[name]}")
        for name, (shape, _) in got.items()
        if shape != wanted[name]
    ]
