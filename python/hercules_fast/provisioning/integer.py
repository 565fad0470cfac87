"""Whole machines from the fractional optimum: round down, repair by prices, then improve by exact moves.

Every interval is a *lane*: all lanes advance in lock-step through NumPy, each by its own best move, so a week costs
little more than one interval and the answer of an interval does not depend on its neighbours. Ties go to the lowest
index. The stock holds after every step; nothing here can overdraw it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.problem import COVER_TOL, FloatArray, IntArray, Problem, shortfall_qps
from hercules_fast.provisioning.relaxed import LinearSolution
from hercules_fast.provisioning.streams import below, random_bits

__all__ = ["whole_machines"]

BoolArray = npt.NDArray[np.bool_]

# A fractional count this close below a whole one is that whole one.
_SNAP = 1e-7
# Elements of the largest temporary array; longer horizons go through in chunks of lanes.
_CHUNK_ELEMENTS = 4 << 20
# Two-machine moves look at every pair of places in use: only for fleets up to this many (type, workload) pairs.
_SMALL = 200
# Disturbance, for those fleets: rounds, variants per round, workloads touched by one; each of their places loses 0 to
# _OUT - 1 machines, and machines come back at prices raised by up to _NOISE / 256. Chosen on fleets of 10 x 8 against
# the integer optimum: without it 1-3 % above, with it mostly equal off peak and below 1 % above at peak; further
# rounds change little.
_ROUNDS, _VARIANTS, _TOUCHED, _OUT, _NOISE = 8, 12, 4, 4, 256
_SEED = 0
# Rounds of moves before an interval's plan is taken as it is: only fleets of very unlike servers come near.
_MAX_PASSES = 200
# A move must save more than this part of the dearest server's power: no cycling on rounding noise.
_MIN_SAVING = 1e-12


def whole_machines(problem: Problem, linear: LinearSolution) -> IntArray:
    """:func:`_whole_machines`, in turn for each stretch of intervals with one stock and one cost."""
    if problem.stock.ndim == 1 and problem.watt_cost is None and problem.machine_cost is None:
        return _whole_machines(problem, linear)
    costs = np.stack([problem.cost(t) for t in range(problem.n_intervals)])
    key = np.concatenate([problem.stocks, costs.reshape(len(costs), -1)], axis=1)
    _, stretch = np.unique(key, axis=0, return_inverse=True)
    counts = np.empty((problem.n_intervals, *problem.qps.shape), dtype=np.int64)
    for k in range(int(stretch.max()) + 1):
        at = np.flatnonzero(stretch.ravel() == k)
        part = Problem(
            qps=problem.qps,
            power_w=np.maximum(costs[at[0]], 1e-6),
            demand_qps=problem.demand_qps[at],
            stock=problem.stocks[at[0]],
        )
        fields = {f.name: getattr(linear, f.name) for f in dataclasses.fields(linear)}
        chosen = {name: v[at] if isinstance(v, np.ndarray) else v for name, v in fields.items()}
        chosen["assignment"] = Assignment.from_dense(linear.servers[at])
        counts[at] = _whole_machines(part, LinearSolution(**chosen))
    return counts


def _whole_machines(problem: Problem, linear: LinearSolution) -> IntArray:
    """Whole machines int64 [T, H, W] close to ``linear``: stock always holds; what stays uncovered is the least found.

    Weighted shortfall goes first, watts second. Where the counts of ``linear``, all rounded up, fit into the stock,
    the power above the bound is at most that of its fractional places, of which a basic optimum has at most W + H.
    Where they do not, whole machines may have to be replaced by any number of worse ones, and there is no such bound.
    """
    counts = np.empty(linear.servers.shape, dtype=np.int64)
    rounds, variants = _effort(problem)
    pairs = problem.n_servers + problem.n_workloads
    lane_elements = variants * max(pairs * (problem.n_servers + 1), problem.qps.size)
    if problem.qps.size <= _SMALL:
        lane_elements = max(lane_elements, pairs * pairs * problem.n_servers)
    step = max(1, _CHUNK_ELEMENTS // lane_elements)
    for start in range(0, len(counts), step):
        part = slice(start, start + step)
        down = np.floor(linear.servers[part] + _SNAP).astype(np.int64)
        up = np.ceil(linear.servers[part] - _SNAP).astype(np.int64)
        fits = up.sum(axis=2) <= problem.stock
        lanes = _Lanes.from_linear(problem, linear, part, down)
        # The second start is what makes the promise on the cost good; the first is nearly always the better one.
        lanes.keep_better(_Lanes.from_linear(problem, linear, part, np.where(fits[:, :, None], up, down)))
        for i in range(rounds):
            lanes.keep_better(lanes.disturbed(i, variants))
        lanes.improve()
        counts[part] = lanes.counts
    return counts


def _effort(problem: Problem) -> tuple[int, int]:
    """Rounds of disturbance and variants per round: whole machines are the coarser, the smaller the fleet."""
    return (_ROUNDS, _VARIANTS) if problem.qps.size <= _SMALL else (0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Slots:
    """Places at which a move may start: a machine in use, or (``server`` = H) nothing yet, for a short workload.

    Sorted by lane, then workload, then server.
    """

    row: IntArray
    """Position of the lane among the active ones."""
    lane: IntArray
    workload: IntArray
    server: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class _ByWorkload:
    """The problem's tables as [W, H + 1]; the last column, "no machine", makes adding and dropping replacements."""

    qps: FloatArray
    power_w: FloatArray
    allowed: BoolArray

    @classmethod
    def of(cls, problem: Problem) -> _ByWorkload:
        nothing = np.zeros((problem.n_workloads, 1))
        return cls(
            qps=np.hstack([problem.qps.T, nothing]),
            power_w=np.hstack([problem.power_w.T, nothing]),
            allowed=np.hstack([problem.eligible.T, nothing == 0.0]),
        )


class _Lanes:
    """Some intervals of one problem, with the machine counts that are being improved."""

    def __init__(self, problem: Problem, demand: FloatArray, weight: FloatArray, u: FloatArray, counts: IntArray):
        self.problem = problem
        self.demand, self.weight, self.u, self.counts = demand, weight, u, counts
        self.nothing = problem.n_servers
        self.by_workload = _ByWorkload.of(problem)
        self.tol_w = np.full(len(demand), _MIN_SAVING * (float(problem.power_w.max()) + 1.0))
        self.tol_shed = COVER_TOL * (weight * demand).max(axis=1)

    @classmethod
    def from_linear(cls, problem: Problem, linear: LinearSolution, part: slice, counts: IntArray) -> _Lanes:
        """Lanes that start at ``counts`` within stock, repaired and improved."""
        weight, u = linear.penalty_w_per_qps[part], linear.stock_price_w[part]
        lanes = cls(problem, problem.demand_qps[part], weight, u, counts)
        # First what the linear optimum serves, then, with the machines left over, what it had to shed.
        lanes.repair(lanes.demand - linear.shed_qps[part])
        lanes.repair(lanes.demand)
        lanes.improve()
        return lanes

    def improve(self) -> None:
        """Single moves until none pays, then one chained move; again in the lanes where that found something."""
        active = np.arange(len(self.counts))
        for _ in range(_MAX_PASSES):
            self.improve_single(active)
            if self.problem.qps.size > _SMALL:
                return
            active = self.improve_pairs(active)
            if not len(active):
                return

    def disturbed(self, round_: int, variants: int) -> _Lanes:
        """``variants`` copies of every lane (lane-major), each with a few machines taken out and put back otherwise."""
        n_lanes = len(self.counts)
        pick = np.repeat(np.arange(n_lanes), variants)
        copy = _Lanes(self.problem, self.demand[pick], self.weight[pick], self.u[pick], self.counts[pick])
        n_h, n_w = self.problem.n_servers, self.problem.n_workloads
        variant = np.tile(np.arange(variants), n_lanes)
        # The numbers depend on round and variant only, so an interval's answer is its own.
        workloads = np.argsort(random_bits(_SEED, 1, round_, variant[:, None], np.arange(n_w)), axis=1, kind="stable")
        touched = np.zeros((len(pick), n_w), dtype=bool)
        np.put_along_axis(touched, workloads[:, :_TOUCHED], True, axis=1)
        place = (variant[:, None, None], np.arange(n_h)[:, None], np.arange(n_w))
        out = below(random_bits(_SEED, 2, round_, *place), _OUT)
        noise = below(random_bits(_SEED, 3, round_, *place), _NOISE)
        copy.counts -= np.minimum(copy.counts, np.where(touched[:, None, :], out, 0))
        copy.repair(copy.demand, 1.0 + noise / 256.0)
        copy.improve_single(np.arange(len(pick)))
        return copy

    def keep_better(self, others: _Lanes) -> None:
        """Take over from ``others``, lane-major variants of these lanes, the best of each where it is better."""
        n_lanes = len(self.counts)
        shed, watts = (x.reshape(n_lanes, -1) for x in others.cost())
        own_shed, own_watts = self.cost()
        score = _score(
            shed - own_shed[:, None], watts - own_watts[:, None], self.tol_shed[:, None], self.tol_w[:, None]
        )
        best = score.argmin(axis=1)
        better = np.flatnonzero(score[np.arange(n_lanes), best] < 0.0)
        self.counts[better] = others.counts.reshape(n_lanes, -1, *self.counts.shape[1:])[better, best[better]]

    def cost(self) -> tuple[FloatArray, FloatArray]:
        """Weighted shortfall and watts of each lane."""
        short = shortfall_qps(self.demand, self.capacity())
        return (self.weight * short).sum(axis=1), self.problem.total_power_w(self.counts)

    # -- state ---------------------------------------------------------------------------------------------------

    def capacity(self, lanes: IntArray | slice = slice(None)) -> FloatArray:
        return self.problem.capacity_qps(self.counts[lanes])

    def free(self, lanes: IntArray | slice = slice(None)) -> IntArray:
        """[L, H + 1] machines left per type; there is always some "nothing" left."""
        left = self.problem.stock - self.counts[lanes].sum(axis=2)
        return np.concatenate([left, np.ones((len(left), 1), dtype=np.int64)], axis=1)

    # -- repair --------------------------------------------------------------------------------------------------

    def repair(self, target: FloatArray, noise: FloatArray | None = None) -> None:
        """Add machines of one type per lane and step until ``target`` [L, W] is covered or nothing useful is free.

        The workload that misses the largest part of its target is next; it takes the type with the least
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
            if noise is not None:
                price = price * noise[lanes, :, w]
            covered = np.where(usable, np.minimum(qps, short[lanes, w][:, None]), 1.0)
            h = np.where(usable, price / covered, np.inf).argmin(axis=1)
            found = usable.any(axis=1)
            open_[lanes[~found], w[~found]] = False
            lanes, w, h = lanes[found], w[found], h[found]
            # As many as fit below the shortfall: until it is less than one machine, the same type stays the cheapest.
            fitting = np.floor(short[lanes, w] / self.problem.qps[h, w]).astype(np.int64)
            take = np.minimum(np.maximum(fitting, 1), free[lanes, h])
            self.counts[lanes, h, w] += take
            free[lanes, h] -= take
            capacity[lanes, w] = (self.counts[lanes, :, w] * self.problem.qps[:, w].T).sum(axis=1)

    # -- moves ---------------------------------------------------------------------------------------------------

    def slots(self, active: IntArray, short: BoolArray) -> _Slots:
        used = np.concatenate([self.counts[active] > 0, short[:, None, :]], axis=1)
        row, workload, server = np.nonzero(used.transpose(0, 2, 1))
        return _Slots(row, active[row], workload, server)

    def replace_effect(self, slots: _Slots, capacity: FloatArray, short: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Change of weighted shortfall and of watts, both [S, H + 1], when a slot's machine becomes each other type.

        ``capacity`` and ``short`` [active, W] are those of the active lanes.
        """
        row, lane, w = slots.row, slots.lane, slots.workload
        kept = capacity[row, w] - self.by_workload.qps[w, slots.server]
        new_short = shortfall_qps(self.demand[lane, w][:, None], kept[:, None] + self.by_workload.qps[w])
        shed = self.weight[lane, w][:, None] * (new_short - short[row, w][:, None])
        watts = self.by_workload.power_w[w] - self.by_workload.power_w[w, slots.server][:, None]
        return np.where(self.by_workload.allowed[w], shed, np.inf), watts

    def improve_single(self, active: IntArray) -> None:
        """Replace, add or drop one machine per workload of the ``active`` lanes while that pays."""
        for _ in range(_MAX_PASSES):
            capacity, free = self.capacity(active), self.free(active)
            short = shortfall_qps(self.demand[active], capacity)
            slots = self.slots(active, short > 0)
            if not len(slots.lane):
                return
            shed, watts = self.replace_effect(slots, capacity, short)
            score = _score(shed, watts, self.tol_shed[slots.lane][:, None], self.tol_w[slots.lane][:, None])
            score = np.where(free[slots.row] > 0, score, 0.0)
            to = score.argmin(axis=1)
            gain = score[np.arange(len(to)), to]
            best = _first_per_group(gain, slots.lane * self.problem.n_workloads + slots.workload)
            rank = _rank_in_group(gain[best], slots.lane[best] * (self.nothing + 1) + to[best])
            best = best[rank < free[slots.row[best], to[best]]]  # no more takers than there are machines
            if not len(best):
                return
            row, lane, w = slots.row[best], slots.lane[best], slots.workload[best]
            old, new = slots.server[best], to[best]
            times = self.drop_size(lane, w, old, new, capacity[row, w])
            for server, step in ((old, -times), (new, times)):
                real = server != self.nothing  # each (lane, workload) stands there once: plain indexing is safe
                self.counts[lane[real], server[real], w[real]] += step[real]
            active = np.unique(lane)  # a lane without a move has none left

    def drop_size(self, lane: IntArray, w: IntArray, old: IntArray, new: IntArray, capacity: FloatArray) -> IntArray:
        """How often each chosen move is made: a drop as often as the surplus allows, any other move once."""
        surplus = capacity - self.demand[lane, w]
        drops = (new == self.nothing) & (old != self.nothing)
        fitting = (
            np.floor(surplus / np.where(drops, self.by_workload.qps[w, old], 1.0)).clip(1, 1 << 40).astype(np.int64)
        )
        in_use = self.counts[lane, np.minimum(old, self.nothing - 1), w]
        return np.where(drops, np.minimum(fitting, in_use), 1)

    def improve_pairs(self, active: IntArray) -> IntArray:
        """One chained move per active lane: slot i takes over slot j's machine, slot j another; lanes that had one.

        This is what frees a scarce type: i may be a short workload with nothing yet, and j may take the machine that
        i gives up.
        """
        capacity, free = self.capacity(active), self.free(active)
        short = shortfall_qps(self.demand[active], capacity)
        slots = self.slots(active, short > 0)
        shed, watts = self.replace_effect(slots, capacity, short)
        bounds = np.searchsorted(slots.row, np.arange(len(active) + 1)).tolist()
        moved = []
        for row, lane in enumerate(active.tolist()):
            part = slice(bounds[row], bounds[row + 1])
            workload, server = slots.workload[part], slots.server[part]
            if len(workload) >= 2 and self._best_chain(lane, workload, server, shed[part], watts[part], free[row]):
                moved.append(lane)
        return np.array(moved, dtype=np.int64)

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


def _first_per_group(gain: FloatArray, group: IntArray) -> IntArray:
    """Indices of the lowest negative gain of each group; the lowest index wins a tie."""
    worth = np.flatnonzero(gain < 0.0)
    order = worth[np.lexsort((gain[worth], group[worth]))]
    first = np.ones(len(order), dtype=bool)
    first[1:] = group[order[1:]] != group[order[:-1]]
    return order[first]


def _rank_in_group(gain: FloatArray, group: IntArray) -> IntArray:
    """Position of each element among those of its group, by gain: 0 for the best."""
    order = np.lexsort((gain, group))
    sorted_group = group[order]
    start = np.searchsorted(sorted_group, sorted_group)
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - start
    return rank
