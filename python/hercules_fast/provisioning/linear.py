"""The linear program of provisioning, solved by HiGHS: one model, warm-started from interval to interval.

Minimise ``sum N[h,w] power_w[h,w] + sum penalty[w] shed[w]`` subject to
coverage ``sum_h N[h,w] qps[h,w] + shed[w] >= demand[w]`` for each workload w, and
stock ``sum_w N[h,w] <= stock[h]`` for each server type h; N, shed >= 0.

The first line without shed, and both constraints, are equations 1-3 of the Hercules paper. Shed is a last resort that
keeps the program feasible, so that an overload is answered by *which* workload is short and by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hercules_fast.errors import InternalError, SolverError
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.certificate import load_prices, price_bound
from hercules_fast.provisioning.problem import FloatArray, Problem, shortfall_qps
from hercules_fast.provisioning.relaxed import LinearSolution, shed_penalties

__all__ = ["largest_scales", "solve_linear"]

# ... and this many times more whenever the answer sheds although less shed is possible.
_RAISE_PENALTY = 16.0
_MAX_RAISES = 5
# Objective against certificate, relative, above which an interval is solved again without a warm start.
GAP_TOL = 1e-6
# Tighter than the solver's own 1e-7: coverage must hold in the original units.
_SOLVER_TOL = 1e-9


def solve_linear(problem: Problem) -> LinearSolution:
    """Solve every interval of ``problem``; HiGHS on one thread, the basis carried through time.

    The same problem gives the same bytes. Raises :class:`SolverError` naming interval and status when HiGHS ends
    anywhere but at an optimum.
    """
    model = _Model(problem, shed_penalties(problem)[0])
    least = _LeastShed(problem)
    answers = [model.solve(t, least) for t in range(problem.n_intervals)]
    solution = _assemble(problem, answers, ())

    doubtful = tuple(int(t) for t in np.flatnonzero(np.abs(solution.gap) > GAP_TOL))
    if not doubtful:
        return solution
    for t in doubtful:  # a warm start can end beside the optimum: start afresh
        answers[t] = _Model(problem, answers[t].penalty).solve(t, least)
    return _assemble(problem, answers, doubtful)


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    servers: FloatArray  # [H, W]
    stock_price_w: FloatArray  # [H]
    penalty: FloatArray  # [W]


def _assemble(problem: Problem, answers: list[_Answer], resolved: tuple[int, ...]) -> LinearSolution:
    servers = np.stack([a.servers for a in answers])
    penalty = np.stack([a.penalty for a in answers])
    u = np.stack([a.stock_price_w for a in answers])
    v = load_prices(problem.qps, problem.power_w, problem.stock, u, penalty)
    u = _price_missing_types(problem, u, v)
    power_w = problem.total_power_w(servers)
    shed_qps = problem.shortfall_qps(servers)
    return LinearSolution(
        assignment=Assignment.from_dense(servers),
        power_w=power_w,
        shed_qps=shed_qps,
        objective_w=power_w + (penalty * shed_qps).sum(axis=1),
        penalty_w_per_qps=penalty,
        stock_price_w=u,
        load_price_w=v,
        bound_w=price_bound(problem.qps, problem.power_w, problem.demand_qps, problem.stock, u, penalty),
        solver=("highs",) * len(answers),
        resolved=resolved,
    )


def _price_missing_types(problem: Problem, u: FloatArray, v: FloatArray) -> FloatArray:
    """Give a type without stock, which has no row in the program, the worth of its first machine."""
    u = u.copy()
    for h in np.flatnonzero(problem.stock == 0):
        able = problem.qps[h] > 0
        worth = problem.qps[h, able] * v[:, able] - problem.power_w[h, able]
        u[:, h] = np.maximum(worth.max(axis=1, initial=0.0), 0.0)
    return u


def _power_of_two(values: FloatArray) -> FloatArray:
    """The power of two next below each positive value: a scale that rounds nothing."""
    _, exponent = np.frexp(values)
    return np.asarray(np.ldexp(1.0, exponent - 1), dtype=np.float64)


def _quiet_highs() -> Any:
    """A HiGHS object that prints nothing, which would land in the documents that we print."""
    import highspy

    class Quiet(highspy.Highs):
        def enableCallbacks(self) -> None:
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()  # type: ignore[no-untyped-call]

    highs = Quiet()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)  # where the constructor does not
    return highs


class _Program:
    """The scaled coefficients and one HiGHS object; only the right-hand side changes between solves.

    Columns: the eligible pairs by workload, then type; after them one column per workload (shed, or other). Rows:
    coverage per workload, then stock per type. Rows are scaled by 1/largest demand and 1/stock, columns such that
    their two entries are reciprocal; all scales are powers of two, so the data stays exact and 1e-3..1e9 q/s meet
    1..1e6 machines without an entry so small that HiGHS would drop it.
    """

    def __init__(self, problem: Problem):
        import highspy

        self._highspy = highspy
        self.problem = problem
        self.pair_w, self.pair_h = np.nonzero(problem.eligible.T)
        peak = problem.demand_qps.max(axis=0)
        self.cover_scale = 1.0 / _power_of_two(np.where(peak > 0, peak, problem.qps.max(axis=0) + (peak == 0)))
        self.stock_scale = 1.0 / _power_of_two(np.maximum(problem.stock, 1).astype(np.float64))
        qps = problem.qps[self.pair_h, self.pair_w]
        ratio = qps * self.cover_scale[self.pair_w] * self.stock_scale[self.pair_h]
        self.pair_scale = 1.0 / _power_of_two(np.sqrt(ratio))
        self.highs = _quiet_highs()
        for option, value in (
            ("threads", 1),
            ("primal_feasibility_tolerance", _SOLVER_TOL),
            ("dual_feasibility_tolerance", _SOLVER_TOL),
            ("small_matrix_value", 1e-12),
        ):
            self._accept(self.highs.setOptionValue(option, value), f"option {option}={value}")

    def load(self, pair_cost: FloatArray, extra_cost: FloatArray, extra_entries: FloatArray) -> None:
        """Pass the model: the pair columns, then ``len(extra_cost)`` columns that act on coverage rows only.

        ``extra_entries`` [W] are their entries: one for each of W columns, or all for a single column.
        """
        highspy, problem = self._highspy, self.problem
        n_pairs, n_w, n_h = len(self.pair_w), problem.n_workloads, problem.n_servers
        entries = np.empty(2 * n_pairs)
        entries[0::2] = problem.qps[self.pair_h, self.pair_w] * self.cover_scale[self.pair_w] * self.pair_scale
        entries[1::2] = self.stock_scale[self.pair_h] * self.pair_scale
        rows = np.empty(2 * n_pairs, dtype=np.int32)
        rows[0::2] = self.pair_w
        rows[1::2] = n_w + self.pair_h

        cost = np.concatenate([pair_cost, extra_cost])
        extra_starts = 2 * n_pairs + np.arange(len(extra_cost) + 1) * (n_w // len(extra_cost))

        lp = highspy.HighsLp()
        lp.num_col_ = len(cost)
        lp.num_row_ = n_w + n_h
        lp.col_cost_ = cost
        lp.col_lower_ = np.zeros(len(cost))
        lp.col_upper_ = np.full(len(cost), highspy.kHighsInf)
        lp.row_lower_ = np.concatenate([np.zeros(n_w), np.full(n_h, -highspy.kHighsInf)])
        lp.row_upper_ = np.concatenate([np.full(n_w, highspy.kHighsInf), problem.stock * self.stock_scale])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.concatenate([np.arange(0, 2 * n_pairs, 2), extra_starts]).astype(np.int32)
        lp.a_matrix_.index_ = np.concatenate([rows, np.arange(n_w)]).astype(np.int32)
        lp.a_matrix_.value_ = np.concatenate([entries, extra_entries])
        for name, values in (("cost", cost), ("matrix", np.asarray(lp.a_matrix_.value_))):
            if not np.isfinite(values).all():  # HiGHS answers "Optimal" to NaN
                raise InternalError(f"provisioning model: a {name} entry is not finite")
        self._accept(self.highs.passModel(lp), "passModel")
        self._cover_rows = np.arange(n_w, dtype=np.int32)

    def set_demand(self, demand_qps: FloatArray) -> None:
        """Replace the right-hand side of the coverage rows; the basis stays."""
        lower = demand_qps * self.cover_scale
        upper = np.full(len(lower), self._highspy.kHighsInf)
        status = self.highs.changeRowsBounds(len(lower), self._cover_rows, lower, upper)
        self._accept(status, "changeRowsBounds")

    def run(self, what: str) -> Any:
        """Solve; return HiGHS' solution object."""
        highspy = self._highspy
        self._accept(self.highs.run(), f"run of {what}")
        status = self.highs.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise SolverError(
                f"{what}: HiGHS ended with status {self.highs.modelStatusToString(status)!r}, not 'Optimal'"
            )
        return self.highs.getSolution()

    def _accept(self, status: Any, what: str) -> None:
        # A warning counts as failure: HiGHS warns when it drops an entry, and then solves another program.
        if status != self._highspy.HighsStatus.kOk:
            raise SolverError(f"{what}: HiGHS answered {status!s} instead of kOk")


class _Model:
    """Power with penalised shed."""

    def __init__(self, problem: Problem, penalty: FloatArray):
        self.problem = problem
        self.penalty = penalty
        self.program = program = _Program(problem)
        pair_cost = problem.power_w[program.pair_h, program.pair_w] * program.pair_scale
        self.cost_scale = 1.0 / float(_power_of_two(np.asarray(pair_cost.max(initial=0.0) or 1.0)))
        n_w = problem.n_workloads
        program.load(pair_cost * self.cost_scale, self._shed_cost(), np.ones(n_w))
        self.shed_columns = np.arange(len(pair_cost), len(pair_cost) + n_w, dtype=np.int32)

    def _shed_cost(self) -> FloatArray:
        return self.penalty / self.program.cover_scale * self.cost_scale

    def solve(self, t: int, least: _LeastShed) -> _Answer:
        """The optimum of interval t, among the plans whose penalised shed is the least possible."""
        demand = self.problem.demand_qps[t]
        answer = self._solve_once(t, demand)
        for _ in range(_MAX_RAISES):
            shed = shortfall_qps(demand, self.problem.capacity_qps(answer.servers))
            if not shed.any() or not least.is_exceeded(t, shed):
                break
            self.penalty = self.penalty * _RAISE_PENALTY
            highs, columns = self.program.highs, self.shed_columns
            self.program._accept(highs.changeColsCost(len(columns), columns, self._shed_cost()), "changeColsCost")
            answer = self._solve_once(t, demand)
        return answer

    def _solve_once(self, t: int, demand: FloatArray) -> _Answer:
        problem, program = self.problem, self.program
        program.set_demand(demand)
        solution = program.run(f"interval {t}")
        x = np.asarray(solution.col_value)[: len(program.pair_w)]
        servers = np.zeros((problem.n_servers, problem.n_workloads))
        servers[program.pair_h, program.pair_w] = np.maximum(x * program.pair_scale, 0.0)
        y = -np.asarray(solution.row_dual)[problem.n_workloads :]
        u = np.maximum(y * program.stock_scale / self.cost_scale, 0.0)
        if not (np.isfinite(servers).all() and np.isfinite(u).all()):
            raise SolverError(f"interval {t}: HiGHS reported 'Optimal' with values that are not finite")
        return _Answer(servers, u, self.penalty)


class _LeastShed:
    """The least weighted shed of an interval, whatever its power: the yardstick for the penalties.

    Built only when an answer sheds. The weights are the penalties before any raise.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.weights = shed_penalties(problem)[0]
        self.program: _Program | None = None

    def is_exceeded(self, t: int, shed: FloatArray) -> bool:
        """Whether ``shed`` [W] weighs more than what interval t cannot avoid."""
        return float((self.weights * shed).sum()) > (1.0 + GAP_TOL) * self._weight(t) + self._rounding(t)

    def _rounding(self, t: int) -> float:
        return 1e-8 * float((self.weights * self.problem.demand_qps[t]).sum())

    def _weight(self, t: int) -> float:
        n_w = self.problem.n_workloads
        if self.program is None:
            self.program = _Program(self.problem)
            shed_cost = self.weights / self.program.cover_scale
            cost_scale = 1.0 / float(_power_of_two(np.asarray(shed_cost.max())))
            self.program.load(np.zeros(len(self.program.pair_w)), shed_cost * cost_scale, np.ones(n_w))
        self.program.set_demand(self.problem.demand_qps[t])
        solution = self.program.run(f"interval {t}, least shed")
        shed = np.maximum(np.asarray(solution.col_value)[-n_w:], 0.0) / self.program.cover_scale
        return float((self.weights * shed).sum())


def largest_scales(problem: Problem, intervals: Sequence[int]) -> FloatArray:
    """For each of ``intervals`` the largest factor by which all its demand may grow and still be covered.

    Maximise f subject to ``sum_h N qps >= f demand[t]`` and stock. Infinite where the interval asks for nothing.
    """
    scales = np.full(len(intervals), np.inf)
    for i, t in enumerate(intervals):
        demand = problem.demand_qps[t]
        asked = demand > 0
        if asked.any():
            part = Problem(
                qps=problem.qps[:, asked],
                power_w=problem.power_w[:, asked],
                demand_qps=demand[None, asked],
                stock=problem.stock,
            )
            scales[i] = _largest_scale(part)
    return scales


def _largest_scale(problem: Problem) -> float:
    if not problem.eligible.any(axis=0).all():
        return 0.0
    program = _Program(problem)
    # In units of the scale at which the workload alone on the whole fleet would fit: the answer is then 1/W..1.
    alone = (problem.qps * problem.stock[:, None]).sum(axis=0) / problem.demand_qps[0]
    unit = float(alone.min())
    column = -problem.demand_qps[0] * program.cover_scale * unit
    program.load(np.zeros(len(program.pair_w)), np.array([-1.0]), column)
    solution = program.run("largest load scale")
    return float(np.asarray(solution.col_value)[-1]) * unit
