"""Whole machines from fractional ones under constraints: round down, add, make room, replace."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from hercules_fast.provisioning.certificate import effective_prices
from hercules_fast.provisioning.constraints import Rules, surviving_qps
from hercules_fast.provisioning.master import Point, State, owed_machines
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem, shortfall_qps

__all__ = ["Rounding", "pair_keys"]

# A fractional count this close below a whole one is that whole one.
_SNAP = 1e-7
# Passes over the workloads, and moves of one workload in a pass.
_PASSES, _MOVES = 6, 20


class Rounding:
    """Whole machines from the fractional ones: round down, then add and drop single groups. Keeps every constraint."""

    def __init__(
        self,
        problem: Problem,
        rules: Rules,
        t: int,
        state: State | None,
        point: Point,
        row: IntArray,
        workload: IntArray,
    ) -> None:
        """``row``, ``workload`` [K]: columns to use, sorted by workload, then row, with those of ``point``."""
        self.row, self.workload, self.h = row, workload, problem.types[row]
        self.qps, self.power = problem.qps[row, workload], problem.power_w[row, workload]
        self.group = np.ones(len(row)) if problem.group is None else problem.group[row, workload].astype(np.float64)
        self.demand, self.k = problem.demand_qps[t], 0 if rules.safe_domains else rules.k
        self.domain = np.zeros(len(row), np.int64) if rules.domain is None or not self.k else rules.domain[self.h]
        self.n_f = rules.n_domains if self.k else 1
        machine, watt = effective_prices(rules, point.duals, None)
        self.cost = problem.pair_cost(t, row, workload)
        self.price = np.maximum(self.cost + machine[self.h] + watt[self.h] * self.power, 1e-12 * self.cost)

        self.most = problem.stocks[t].astype(np.float64)
        self.owed = np.zeros(problem.n_servers)
        if rules.switching and state is not None:
            if state.on is not None:
                self.most = np.minimum(self.most, state.on + rules.ramp)
            self.owed = owed_machines(rules, state, 0)
        self.member, self.limit = rules.cap_member[:, self.h], rules.cap_limit_w[t]

        self.least = np.zeros(len(row)) if rules.minimum is None else rules.minimum[row, workload].astype(np.float64)
        self.ends = np.searchsorted(workload, np.arange(len(self.demand) + 1))
        self.machines = np.zeros(len(row))
        place = np.searchsorted(pair_keys(problem, row, workload), pair_keys(problem, point.row, point.workload))
        self.machines[place] = point.machines
        self.machines = np.maximum(np.floor(self.machines / self.group + _SNAP) * self.group, self.least)
        self._pay_up()
        self._cover()
        self._improve()

    def _fits(self) -> npt.NDArray[np.bool_]:
        """[K] columns of which one more group keeps stock, ramp and caps."""
        on = np.bincount(self.h, self.machines, minlength=len(self.most))
        good = on[self.h] + self.group <= self.most[self.h]
        drawn = self.member @ (self.machines * self.power)
        for member, used, limit in zip(self.member, drawn, self.limit, strict=True):
            good &= (member == 0) | (used + self.group * self.power <= limit)
        return np.asarray(good, dtype=np.bool_)

    def _pay_up(self) -> None:
        """Machines that must stay on and that rounding has lost: cheapest first."""
        while True:
            on = np.bincount(self.h, self.machines, minlength=len(self.most))
            wanted = (on[self.h] < self.owed[self.h]) & self._fits()
            if not wanted.any():
                return
            best = int(np.where(wanted, self.price, np.inf).argmin())
            self.machines[best] += self.group[best]

    def _capacity(self) -> FloatArray:
        """[F, W]."""
        n_w = len(self.demand)
        place = self.domain * n_w + self.workload
        rate = np.bincount(place, self.machines * self.qps, minlength=self.n_f * n_w)
        return np.asarray(rate.reshape(self.n_f, n_w), dtype=np.float64)

    def _cover(self) -> None:
        """Add groups, to the workload that misses the largest part of its demand, where they cost least per q/s."""
        given_up = np.zeros(len(self.demand), dtype=bool)
        scale = np.where(self.demand > 0, self.demand, 1.0)
        while True:
            capacity = self._capacity()
            missing = self._missing(capacity, self.demand)
            waiting = np.where(given_up, 0.0, missing / scale)
            if not waiting.any():
                return
            w = int(waiting.argmax())
            here = np.flatnonzero((self.workload == w) & self._fits())
            after = np.repeat(capacity[:, w][:, None], len(here), axis=1)
            after[self.domain[here], np.arange(len(here))] += self.qps[here] * self.group[here]
            gain = missing[w] - self._missing(after, self.demand[w])
            useful = gain > 0.0
            if not useful.any():
                given_up[w] = not self._make_room(w, capacity, missing)
                continue
            here, gain = here[useful], gain[useful]
            best = here[int((self.price[here] * self.group[here] / gain).argmin())]
            self.machines[best] += self.group[best]

    def _make_room(self, w: int, capacity: FloatArray, missing: FloatArray) -> bool:
        """Free a machine that workload w can use: its user takes one of another type, and misses no more than before.

        ``capacity`` [F, W], ``missing`` [W]. Of all such moves the cheapest; False where there is none.
        """
        fits, best, move = self._fits(), np.inf, (-1, -1)
        for j in range(self.ends[w], self.ends[w + 1]):
            with_j = capacity[:, w : w + 1].copy()
            with_j[self.domain[j]] += self.qps[j] * self.group[j]
            if self._missing(with_j, self.demand[w])[0] >= missing[w]:
                continue
            same = (
                (self.h == self.h[j])
                & (self.machines > self.least)
                & (self.workload != w)
                & (self.group >= self.group[j])
            )
            for k in np.flatnonzero(same).tolist():
                other = self.workload[k]
                instead = np.arange(self.ends[other], self.ends[other + 1])
                instead = instead[fits[instead] & (self.h[instead] != self.h[k])]
                after = np.repeat(capacity[:, other][:, None], len(instead), axis=1)
                after[self.domain[k]] -= self.qps[k] * self.group[k]
                after[self.domain[instead], np.arange(len(instead))] += self.qps[instead] * self.group[instead]
                instead = instead[self._missing(after, self.demand[other]) <= missing[other]]
                if len(instead):
                    cost = (self.price * self.group)[instead] + self.price[j] * self.group[j]
                    cheapest = int(cost.argmin())
                    if cost[cheapest] - self.price[k] * self.group[k] < best and self._swap(
                        k, int(instead[cheapest]), j
                    ):
                        best = cost[cheapest] - self.price[k] * self.group[k]
                        move = k, int(instead[cheapest])
        if move[0] < 0:
            return False
        self.machines[move[0]] -= self.group[move[0]]
        self.machines[move[1]] += self.group[move[1]]
        return True

    def _swap(self, k: int, instead: int, j: int) -> bool:
        """Whether a group of column j fits once one of k has become one of ``instead``; changes nothing."""
        self.machines[k] -= self.group[k]
        self.machines[instead] += self.group[instead]
        fits = bool(self._fits()[j])
        self.machines[k] += self.group[k]
        self.machines[instead] -= self.group[instead]
        return fits

    def _missing(self, capacity: FloatArray, demand: FloatArray | np.float64) -> FloatArray:
        """[N] load that is short plus load that is exposed, from capacity [F, N]."""
        wanted = np.broadcast_to(np.asarray(demand), capacity.shape[1:])
        missing = shortfall_qps(wanted, capacity.sum(axis=0))
        return missing + shortfall_qps(wanted, surviving_qps(capacity, self.k)) if self.k else missing

    def _improve(self) -> None:
        """Drop a group, or replace it by one of another column of its workload, while that saves cost.

        Load that is missing never grows. Workload after workload, until none finds anything.
        """
        ends = self.ends
        step = np.append(self.qps * self.group, 0.0)  # the last column is nothing: a drop
        price, domain, group = (
            np.append(self.cost * self.group, 0.0),
            np.append(self.domain, 0),
            np.append(self.group, 0),
        )
        on = np.bincount(self.h, self.machines, minlength=len(self.most))
        capacity, fits = self._capacity(), self._fits()
        waiting = np.diff(ends) > 0
        for w in itertools.chain.from_iterable(itertools.repeat(range(len(self.demand)), _PASSES)):
            if not waiting[w]:
                continue
            waiting[w] = False
            columns = np.arange(ends[w], ends[w + 1])
            for _ in range(_MOVES):
                leave = columns[
                    (self.machines[columns] > self.least[columns])
                    & (on[self.h[columns]] - self.group[columns] >= self.owed[self.h[columns]])
                ]
                enter = np.append(columns[fits[columns]], len(self.h))
                if not len(leave):
                    break
                saved = price[leave][:, None] - price[enter]
                case, to = np.nonzero(saved > 1e-12 * price[leave][:, None])
                case, to = leave[case], enter[to]
                after = np.repeat(capacity[:, w][:, None], len(case), axis=1)
                here = np.arange(len(case))
                after[domain[case], here] -= step[case]
                after[domain[to], here] += step[to]
                good = self._missing(after, self.demand[w]) <= self._missing(capacity[:, w : w + 1], self.demand[w])
                if not good.any():
                    break
                best = int(np.where(good, price[case] - price[to], -np.inf).argmax())
                i, j = case[best], to[best]
                self.machines[i] -= group[i]
                if j < len(self.h):
                    self.machines[j] += group[j]
                capacity[:, w] = after[:, best]
                on = np.bincount(self.h, self.machines, minlength=len(self.most))
                fits = self._fits()
                waiting[w] = True


def pair_keys(problem: Problem, row: IntArray, workload: IntArray) -> IntArray:
    """One number per pair that sorts by workload, then row."""
    return np.asarray(workload.astype(np.int64) * problem.n_rows + row, dtype=np.int64)
