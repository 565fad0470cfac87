"""The answer on arrays: machines, prices, certificate, and what the constraints made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.inverse import relaxations
from hercules_fast.provisioning.linear import assignment_cost
from hercules_fast.provisioning.problem import FloatArray, Problem, shortfall_qps
from hercules_fast.provisioning.relaxed import LinearSolution, relative_gap

if TYPE_CHECKING:
    from hercules_fast.provisioning.solvers import CrossCheck

__all__ = ["Constrained", "Solution", "price_dust", "stock_words"]

# A price below this part of a typical cost says nothing.
PRICE_DUST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Constrained:
    """What constraints add to an answer over T intervals."""

    objective_w: FloatArray
    """[T] cost, penalties for load that is shed or exposed, and under :class:`Switching` its cost."""
    exposed_qps: FloatArray
    """[T, W] demand that would be uncovered after the worst failure of k domains; 0 without such a rule."""
    served_share: FloatArray
    """[T, W] part of the demand that was planned for: below 1 only under :class:`FairShare` and overload."""
    switched_on: npt.NDArray[Any]
    """[T, H] machines of each type on now and not before; 0 in an interval that nothing precedes."""
    cap_names: tuple[str, ...]
    cap_price: FloatArray
    """[T, G] objective saved per further W under each cap, in the order in which they were given."""
    tied: bool
    """Whether intervals depend on each other. Then only the sum of ``bound_w`` over all of them is a bound."""
    status: tuple[str, ...]
    """[T] "optimal" (the linear optimum, or whole machines within ``mip_gap`` of the best), "limit" (the search ended
    at one of nodes or time), "rounded" (it found nothing better than the rounding, or there was no search), "kept"
    (hysteresis)."""
    binding: tuple[str, ...]
    """What binds, in words: caps, failure rules, ramps, minimum up-times, minimum footprints."""

    def gap(self, bound_w: FloatArray) -> FloatArray:
        """[T] relative distance of objective and bound; the same figure, over all time, where intervals are tied."""
        if self.tied:
            total = relative_gap(self.objective_w.sum(keepdims=True), bound_w.sum(keepdims=True))
            return np.repeat(total, len(bound_w))
        return relative_gap(self.objective_w, bound_w)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Solution:
    """Machines for every interval, their prices and their certificate.

    Arrays have a leading axis of T intervals where the demand had one, and none where it was [W]. "Watts" of objective,
    bound and prices are cost where ``watt_cost`` or ``machine_cost`` was given.
    """

    problem: Problem
    linear: LinearSolution
    """The fractional optimum. Under :class:`Switching` that of each interval after the whole machines of those before
    it, with the bound of all of them."""
    whole: Assignment | None
    """Whole machines, where they were asked for."""
    load_qps: FloatArray
    """[T, W] demand without its headroom."""
    constrained: Constrained | None = None
    """What the constraints say; None without any."""
    cross_check: CrossCheck | None = None
    """What HiGHS says of the dearest interval; None unless ``solver="auto"`` and the core answered."""
    single: bool = False
    """Whether the demand was that of one interval."""
    choices: int | None = None
    """C where rates were given as [C, H, W]."""

    def _cut(self, values: Any) -> Any:
        return values[0] if self.single else values

    @property
    def sparse(self) -> Assignment:
        """The machines as a table of the pairs in use."""
        return self.linear.assignment if self.whole is None else self.whole

    @property
    def servers(self) -> npt.NDArray[Any]:
        """[H, W], [T, H, W] or, for rates [C, H, W], [(T,) C, H, W]: machines; int64 where whole, else float64.

        Raises :class:`InputError` where that would have more than 2**27 entries.
        """
        dense = self.sparse.dense()
        if self.choices is not None:
            dense = dense.reshape(len(dense), self.choices, -1, dense.shape[2])
        return np.asarray(self._cut(dense))

    @property
    def power_w(self) -> Any:
        """[T] provisioned power; a float for one interval."""
        return self._cut(self.sparse.total(self.problem.power_w))

    @property
    def _short_qps(self) -> FloatArray:
        if self.whole is None:
            return self.linear.shed_qps
        return shortfall_qps(self.problem.demand_qps, self.whole.per_workload(self.problem.qps))

    @property
    def objective_w(self) -> Any:
        """[T] what is minimised: cost and the penalties of all demand that is not covered."""
        if self.constrained is not None:
            return self._cut(self.constrained.objective_w)
        if self.whole is None:
            return self._cut(self.linear.objective_w)
        penalty = (self.linear.penalty_w_per_qps * self._short_qps).sum(axis=1)
        return self._cut(assignment_cost(self.problem, self.whole) + penalty)

    @property
    def bound_w(self) -> Any:
        """[T] certificate g(u): no plan, fractional or whole, has a lower objective; see also ``tied``."""
        return self._cut(self.linear.bound_w)

    @property
    def gap(self) -> Any:
        """[T] (objective - bound) / objective: the price of whole machines, or what the solver leaves open.

        One figure for all time where constraints tie the intervals.
        """
        if self.constrained is not None:
            return self._cut(self.constrained.gap(self.linear.bound_w))
        return self._cut(relative_gap(np.atleast_1d(self.objective_w), self.linear.bound_w))

    @property
    def shed_qps(self) -> FloatArray:
        """[T, W] load that is not served; headroom does not count."""
        short = self._short_qps
        return np.asarray(self._cut(np.maximum(short - (self.problem.demand_qps - self.load_qps), 0.0)))

    @property
    def headroom_short_qps(self) -> FloatArray:
        """[T, W] headroom that is not there: demand that is not covered, less the load in it."""
        short = self._short_qps
        return np.asarray(self._cut(np.minimum(short, self.problem.demand_qps - self.load_qps)))

    @property
    def surplus_qps(self) -> FloatArray:
        """[T, W] capacity above demand."""
        capacity = self.sparse.per_workload(self.problem.qps)
        return np.asarray(self._cut(np.maximum(capacity - self.problem.demand_qps, 0.0)))

    @property
    def free_stock(self) -> npt.NDArray[Any]:
        """[T, H] machines left off; int64 where whole, else float64."""
        used = self.sparse.per_type(self.problem.types, self.problem.n_servers)
        return np.asarray(self._cut(np.maximum(self.problem.stocks - used, 0)))

    @property
    def stock_price_w(self) -> FloatArray:
        """[T, H] u: objective saved per further machine of the type, at the fractional optimum."""
        return np.asarray(self._cut(self.linear.stock_price_w))

    @property
    def load_price_w(self) -> FloatArray:
        """[T, W] v: objective added per further q/s, at the fractional optimum."""
        return np.asarray(self._cut(self.linear.load_price_w))

    @property
    def exposed_qps(self) -> FloatArray:
        """[T, W] demand that would be uncovered after the worst failure of k domains; 0 without such a rule."""
        if self.constrained is None:
            return np.asarray(self._cut(np.zeros(self.problem.demand_qps.shape)))
        return np.asarray(self._cut(self.constrained.exposed_qps))

    @property
    def switched_on(self) -> npt.NDArray[Any]:
        """[T, H] machines of each type on now and not before; 0 in an interval that nothing precedes."""
        if self.constrained is not None:
            return np.asarray(self._cut(self.constrained.switched_on))
        on = self.sparse.per_type(self.problem.types, self.problem.n_servers)
        return np.asarray(self._cut(np.maximum(np.diff(on, axis=0, prepend=on[:1]), 0)))

    @property
    def status(self) -> Any:
        """[T] texts: "optimal" (all demand is covered), "short" (some is not, and it is the least that can be).

        Under constraints: how the search ended, see :class:`Constrained`.
        """
        if self.constrained is not None:
            return self._cut(self.constrained.status)
        short = np.asarray(self._short_qps.any(axis=1))
        return self._cut(tuple("short" if s else "optimal" for s in short))

    @property
    def binding(self) -> tuple[str, ...]:
        """What binds, in words: constraints, then the stock of server types, the dearest first."""
        rules = () if self.constrained is None else self.constrained.binding
        short = np.asarray(self._short_qps.any(axis=1))
        return (*rules, *stock_words(self.problem, self.linear.stock_price_w, short))

    def shortfall(self) -> tuple[str, ...]:
        """In words: which workloads are short, by how much and when; then the cheapest ways to cover them after all.

        Those ways are ones that machines or less load open; they say so where the constraints would still be in the
        way.
        """
        lines = [*self._short_lines("not served", self.shed_qps, self.load_qps)]
        lines += self._short_lines("headroom that is missing", self.headroom_short_qps, self.load_qps)
        if self._short_qps.any():
            lines += relaxations(self.problem, rules=self.constrained is not None)
        lines += self._short_lines("exposed to the worst failure", self.exposed_qps, self.problem.demand_qps)
        return tuple(lines)

    def _short_lines(self, what: str, short: FloatArray, of: FloatArray) -> Iterator[str]:
        short = np.atleast_2d(short)
        for w in np.flatnonzero(short.any(axis=0)):
            t = int(short[:, w].argmax())
            when = "" if len(short) == 1 else f" in {np.count_nonzero(short[:, w])} of {len(short)} intervals, at worst"
            where = "" if len(short) == 1 else f" in interval {t}"
            share = "" if not of[t, w] else f" ({100 * short[t, w] / of[t, w]:.3g} %)"
            yield f"workload {self.problem.workloads[w]!r}: {what}{when} {short[t, w]:.6g} q/s{share}{where}"

    def explain(self) -> str:
        """The answer in a few lines of text: size and gap, what binds, what is short and what would help."""
        problem = self.problem
        on = self.sparse.per_type(problem.types, problem.n_servers).sum(axis=1)
        power_w, gap = np.atleast_1d(self.power_w), np.atleast_1d(self.gap)
        t = int(power_w.argmax())
        watts = problem.watt_cost is None and problem.machine_cost is None
        lines = [
            ", ".join(
                f"{n} {what}{'' if n == 1 else 's'}"
                for n, what in (
                    (problem.n_intervals, "interval"),
                    (problem.n_servers, "server type"),
                    (problem.n_workloads, "workload"),
                )
            ),
            f"  most power in interval {t}: {on[t]:.6g} servers, {power_w[t]:.6g} W; gap to the bound "
            f"{100 * gap[t]:.2g} %{'' if watts else ' of cost'}",
        ]
        lines += [f"  binding: {line}" for line in self.binding]
        lines += [f"  SHORT: {line}" for line in self.shortfall()]
        return "\n".join(lines)


def price_dust(problem: Problem) -> tuple[float, float]:
    """Prices of a watt and of a machine below which they are rounding, in the unit of the problem's costs."""
    watt = 1.0 if problem.watt_cost is None else float(problem.watt_cost.max())
    machine = 0.0 if problem.machine_cost is None else float(problem.machine_cost.max())
    return PRICE_DUST * watt, PRICE_DUST * (float(problem.power_w.max()) * watt + machine)


def stock_words(problem: Problem, price: FloatArray, short: npt.NDArray[np.bool_]) -> Iterator[str]:
    """The server types whose stock binds, the dearest first; ``price`` [T, H], ``short`` bool [T]."""
    _, dust = price_dust(problem)
    for h in sorted(range(problem.n_servers), key=lambda h: (-price[:, h].max(), h)):
        t = int(price[:, h].argmax())
        if price[t, h] > dust:
            often = f"binds in {np.count_nonzero(price[:, h] > dust)} of {problem.n_intervals} intervals"
            worth = "serve load that is not covered" if short[t] else f"save {price[t, h]:.3g}"
            yield f"stock of {problem.servers[h]!r} {often}; one more would {worth} in interval {t}"
