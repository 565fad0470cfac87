"""Whole machines from the fractional optimum: round down, repair by prices, then improve by exact moves.

Every interval is a *lane*: all lanes advance in lock-step through NumPy, each by its own best move, so a week costs
little more than one interval and the answer of an interval does not depend on its neighbours. Ties go to the lowest
index. The stock holds after every step; nothing here can overdraw it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast.provisioning.linear import LinearSolution
from hercules_fast.provisioning.problem import COVER_TOL, FloatArray, IntArray, Problem, shortfall_qps

__all__ = ["whole_machines"]

BoolArray = npt.NDArray[np.bool_]

# A fractional count this close below a whole one is that whole one.
_SNAP = 1e-7
# Elements of the largest temporary array; longer horizons go through in chunks of lanes.
_CHUNK_ELEMENTS = 4 << 20
# Two-machine moves look at every pair of places in use: only for fleets up to this many (type, workload) pairs.
_PAIR_MOVES_LIMIT = 200
# A move must save more than this part of the interval's objective: no cycling on rounding noise.
_MIN_SAVING = 1e-12


def whole_machines(problem: Problem, linear: LinearSolution) -> IntArray:
    """Whole machines int64 [T, H, W] close to ``linear``: stock always holds; what stays uncovered is the least found.

    Weighted shortfall goes first, watts second. The cost above the bound is at most that of W + H of the dearest
    servers unless the stock binds in whole machines, since a basic optimum has at most W + H fractional counts.
    """
    counts = np.empty(linear.servers.shape, dtype=np.int64)
    pairs = problem.n_servers + problem.n_workloads
    lane_elements = max(pairs * (problem.n_servers + 1), problem.qps.size)
    if problem.qps.size <= _PAIR_MOVES_LIMIT:
        lane_elements *= pairs
    step = max(1, _CHUNK_ELEMENTS // lane_elements)
    for start in range(0, len(counts), step):
        counts[start : start + step] = _Lanes(problem, linear, slice(start, start + step)).solve()
    return counts


@dataclass(frozen=True, slots=True, eq=False)
class _Slots:
    """Places at which a move may start: a machine in use, or (``server`` = H) nothing yet, for a short workload.

    Sorted by lane, then workload, then server.
    """

    lane: IntArray
    workload: IntArray
    server: IntArray


class _Lanes:
    """Some intervals of one problem, with the machine counts that are being improved."""

    def __init__(self, problem: Problem, linear: LinearSolution, part: slice):
        self.problem = problem
        n_h, n_w = problem.n_servers, problem.n_workloads
        self.nothing = n_h
        # A last row for "no machine" lets adding, dropping and swapping be one kind of move.
        self.qps = np.vstack([problem.qps, np.zeros(n_w)])
        self.power_w = np.vstack([problem.power_w, np.zeros(n_w)])
        self.allowed = np.vstack([problem.eligible, np.ones(n_w, dtype=bool)])
        self.demand = problem.demand_qps[part]
        self.target = np.where(linear.shed_qps[part] > 0, self.demand - linear.shed_qps[part], self.demand)
        self.weight = linear.penalty_w_per_qps[part]
        self.u = linear.stock_price_w[part]
        self.counts = np.floor(linear.servers[part] + _SNAP).astype(np.int64)
        self.tol_w = _MIN_SAVING * (linear.objective_w[part] + 1.0)
        self.tol_shed = COVER_TOL * (self.weight * self.demand).max(axis=1)

    def solve(self) -> IntArray:
        # First what the linear optimum serves, then, with the machines left over, what it had to shed.
        self.repair(self.target)
        self.repair(self.demand)
        pair_moves = self.problem.qps.size <= _PAIR_MOVES_LIMIT
        while self.improve_single() or (pair_moves and self.improve_pairs()):
            pass
        return self.counts

    # -- state ---------------------------------------------------------------------------------------------------

    def capacity(self) -> FloatArray:
        return self.problem.capacity_qps(self.counts)

    def free(self) -> IntArray:
        """[L, H + 1] machines left per type; there is always some "nothing" left."""
        left = self.problem.stock - self.counts.sum(axis=2)
        return np.concatenate([left, np.ones((len(left), 1), dtype=np.int64)], axis=1)

    # -- repair --------------------------------------------------------------------------------------------------

    def repair(self, target: FloatArray) -> None:
        """Add machines, one per lane and step, until ``target`` [L, W] is covered or nothing useful is free.

        The workload that misses the largest part of its target is next; it takes the machine with the least
        (power + stock price) per q/s of shortfall covered.
        """
        capacity = self.capacity()
        free = self.free()[:, :-1]
        scale = np.where(target > 0, target, 1.0)
        open_ = np.ones(target.shape, dtype=bool)  # not yet given up
        while True:
            short = np.where(open_, shortfall_qps(target, capacity), 0.0)
            lanes = np.flatnonzero(short.any(axis=1))
            if not len(lanes):
                return
            w = (short[lanes] / scale[lanes]).argmax(axis=1)
            qps = self.problem.qps[:, w].T
            usable = (qps > 0) & (free[lanes] > 0)
            price = self.problem.power_w[:, w].T + self.u[lanes]
            covered = np.where(usable, np.minimum(qps, short[lanes, w][:, None]), 1.0)
            h = np.where(usable, price / covered, np.inf).argmin(axis=1)
            found = usable.any(axis=1)
            open_[lanes[~found], w[~found]] = False
            lanes, w, h = lanes[found], w[found], h[found]
            self.counts[lanes, h, w] += 1
            free[lanes, h] -= 1
            capacity[lanes, w] = (self.counts[lanes, :, w] * self.problem.qps[:, w].T).sum(axis=1)

    # -- moves ---------------------------------------------------------------------------------------------------

    def slots(self, short: BoolArray) -> _Slots:
        used = np.concatenate([self.counts > 0, short[:, None, :]], axis=1)
        lane, workload, server = np.nonzero(used.transpose(0, 2, 1))
        return _Slots(lane, workload, server)

    def replace_effect(self, slots: _Slots, capacity: FloatArray, short: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Change of weighted shortfall and of watts, both [S, H + 1], when a slot's machine becomes each other type."""
        lane, w = slots.lane, slots.workload
        new_capacity = capacity[lane, w][:, None] - self.qps[slots.server, w][:, None] + self.qps[:, w].T
        new_short = shortfall_qps(self.demand[lane, w][:, None], new_capacity)
        shed = self.weight[lane, w][:, None] * (new_short - short[lane, w][:, None])
        watts = self.power_w[:, w].T - self.power_w[slots.server, w][:, None]
        return np.where(self.allowed[:, w].T, shed, np.inf), watts

    def improve_single(self) -> bool:
        """Replace, add or drop one machine per workload while that pays; True if anything changed."""
        changed = False
        while True:
            capacity, free = self.capacity(), self.free()
            short = shortfall_qps(self.demand, capacity)
            slots = self.slots(short > 0)
            if not len(slots.lane):
                return changed
            shed, watts = self.replace_effect(slots, capacity, short)
            score = _score(shed, watts, self.tol_shed[slots.lane][:, None], self.tol_w[slots.lane][:, None])
            score = np.where(free[slots.lane] > 0, score, 0.0)
            to = score.argmin(axis=1)
            gain = score[np.arange(len(to)), to]
            moved = False
            for i in _best_per_group(gain, slots.lane * self.problem.n_workloads + slots.workload):
                moved |= self._move(free, int(slots.lane[i]), int(slots.workload[i]), int(slots.server[i]), int(to[i]))
            if not moved:
                return changed
            changed = True

    def _move(self, free: IntArray, lane: int, w: int, old: int, new: int) -> bool:
        if free[lane, new] <= 0:  # another workload of this lane was quicker
            return False
        for server, step in ((old, -1), (new, +1)):
            if server != self.nothing:
                self.counts[lane, server, w] += step
                free[lane, server] -= step
        return True

    def improve_pairs(self) -> bool:
        """One chained move per lane: slot i takes over slot j's machine, slot j another one; True if any was made.

        This is what frees a scarce type: i may be a short workload with nothing yet, and j may take the machine that
        i gives up.
        """
        capacity, free = self.capacity(), self.free()
        short = shortfall_qps(self.demand, capacity)
        changed = False
        slots = self.slots(short > 0)
        shed, watts = self.replace_effect(slots, capacity, short)
        bounds = np.searchsorted(slots.lane, np.arange(len(self.counts) + 1))
        for lane, (first, last) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            if last - first >= 2:
                part = slice(first, last)
                changed |= self._best_chain(
                    lane, slots.workload[part], slots.server[part], shed[part], watts[part], free[lane]
                )
        return changed

    def _best_chain(
        self, lane: int, workload: IntArray, server: IntArray, shed: FloatArray, watts: FloatArray, free: IntArray
    ) -> bool:
        n = len(workload)
        # [i, j]: i becomes j's type; [i, j, to]: and j becomes `to`, free in stock or given up by i.
        first_shed, first_watts = shed[:, server], watts[:, server]
        available = np.broadcast_to(free > 0, (n, len(free))).copy()
        available[np.arange(n), server] = True
        possible = available[:, None, :] & (workload[:, None] != workload[None, :])[:, :, None]
        possible &= (server != self.nothing)[None, :, None]
        total_shed = np.where(possible, first_shed[:, :, None] + shed[None, :, :], np.inf)
        total_watts = first_watts[:, :, None] + watts[None, :, :]
        score = _score(total_shed, total_watts, self.tol_shed[lane], self.tol_w[lane])
        best = int(score.argmin())
        if score.flat[best] >= 0.0:
            return False
        i, j, to = (int(k) for k in np.unravel_index(best, score.shape))
        for w, old, new in ((workload[i], server[i], server[j]), (workload[j], server[j], to)):
            if old != self.nothing:
                self.counts[lane, old, w] -= 1
            if new != self.nothing:
                self.counts[lane, new, w] += 1
        return True


# Any gain in shortfall ranks before any gain in watts; both stay finite and comparable among themselves.
_SHED_FIRST = 1e30


def _score(shed: FloatArray, watts: FloatArray, tol_shed: FloatArray, tol_w: FloatArray) -> FloatArray:
    """Negative = worth doing, lowest = best: less weighted shortfall first; at equal shortfall, fewer watts."""
    less_shed = shed < -tol_shed
    fewer_watts = (shed <= 0.0) & (watts < -tol_w)
    return np.where(less_shed, shed * _SHED_FIRST, np.where(fewer_watts, watts, 0.0))


def _best_per_group(gain: FloatArray, group: IntArray) -> Iterator[int]:
    """Index of the lowest negative gain of each run of equal ``group``, best first."""
    worth = np.flatnonzero(gain < 0.0)
    order = worth[np.lexsort((worth, gain[worth], group[worth]))]
    leaders = order[np.concatenate([[True], np.diff(group[order]) > 0])] if len(order) else order
    yield from leaders[np.argsort(gain[leaders], kind="stable")].tolist()
