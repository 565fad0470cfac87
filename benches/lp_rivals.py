"""Who else solves the linear program of provisioning, each by the fastest way in that its package documents.

HiGHS by arrays, cold and warm; OR-tools' GLOP through the sparse matrices of its model builder; SciPy; CVXPY; PuLP with
the CBC that it brings. All get the same columns (eligible pairs, by workload, then type) and the same rows (coverage by
workload, stock by type), on one thread, and none is asked to shed: the instances can be served. A rival that is not
installed is left out, and named at the end of the bench.
"""

from __future__ import annotations

import functools
import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
from lp_instances import Instance

MISSING: set[str] = set()
"""Packages of rivals that were asked for and are not installed."""


@dataclass(frozen=True)
class Answer:
    power_w: float
    build_s: float
    """CPU seconds from arrays to a model."""
    solve_s: float
    """CPU seconds from there to machines as an array."""
    bound_w: float | None = None
    """What a search of whole machines that ran out of time has proved; None for a linear program."""

    @property
    def seconds(self) -> float:
        return self.build_s + self.solve_s


class Stopped(Exception):
    """A solver ended elsewhere than at an optimum."""


@dataclass(frozen=True)
class Program:
    """The program as arrays; two entries per column."""

    cost: np.ndarray
    """float64 [N], watts."""
    rows: np.ndarray
    """int32 [2 N]: of each column, its coverage row, then its stock row."""
    values: np.ndarray
    """float64 [2 N]: q/s, then 1."""
    demand_qps: np.ndarray
    """float64 [W]."""
    stock: np.ndarray
    """float64 [H]."""

    @classmethod
    def of(cls, one: Instance, t: int = 0) -> Program:
        w, h = np.nonzero((one.qps > 0).T)
        rows = np.stack([w, len(one.qps[0]) + h], axis=1).astype(np.int32).ravel()
        values = np.stack([one.qps[h, w], np.ones(len(w))], axis=1).ravel()
        return cls(one.power_w[h, w], rows, values, one.demand_qps[t], one.stock.astype(np.float64))

    @property
    def starts(self) -> np.ndarray:
        return np.arange(0, len(self.rows) + 1, 2, dtype=np.int32)

    @property
    def row_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        lower = np.concatenate([self.demand_qps, np.full(len(self.stock), -np.inf)])
        upper = np.concatenate([np.full(len(self.demand_qps), np.inf), self.stock])
        return lower, upper

    def matrix(self) -> Any:
        """Coverage above stock, ``scipy.sparse.csc_array``."""
        from scipy.sparse import csc_array

        shape = (len(self.demand_qps) + len(self.stock), len(self.cost))
        return csc_array((self.values, self.rows, self.starts), shape=shape)


def is_here(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        MISSING.add(package)
        return False
    return True


def ignore_deprecations(call: Callable[..., Answer]) -> Callable[..., Answer]:
    """PuLP announces its next major release at every variable."""

    @functools.wraps(call)
    def quiet(*arguments: Any) -> Answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return call(*arguments)

    return quiet


def highs_model(program: Program, limit_s: float | None = None, whole: bool = False) -> Any:
    """A HiGHS object that holds the program, with default options but one thread and, maybe, a limit."""
    import highspy

    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(program.cost), len(program.demand_qps) + len(program.stock)
    lp.col_cost_, lp.col_lower_ = program.cost, np.zeros(lp.num_col_)
    lp.col_upper_ = np.full(lp.num_col_, highspy.kHighsInf)
    lp.row_lower_, lp.row_upper_ = program.row_bounds
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = program.starts, program.rows, program.values
    if whole:
        lp.integrality_ = [highspy.HighsVarType.kInteger] * lp.num_col_
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.setOptionValue("threads", 1)
    if limit_s is not None:
        model.setOptionValue("time_limit", limit_s)
    model.passModel(lp)
    return model


def highs_run(model: Any) -> float:
    """Solve; watts. The machines are read, as a user would."""
    import highspy

    model.run()
    status = model.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise Stopped(f"HiGHS: {model.modelStatusToString(status)}")
    np.asarray(model.getSolution().col_value)
    return float(model.getInfo().objective_function_value)


def highs(program: Program, limit_s: float) -> Answer:
    start = time.process_time()
    model = highs_model(program, limit_s)
    built = time.process_time()
    power_w = highs_run(model)
    return Answer(power_w, built - start, time.process_time() - built)


class HighsWarm:
    """One object of HiGHS that keeps its basis; only the demand changes."""

    def __init__(self, program: Program) -> None:
        self.model, self.rows = highs_model(program), np.arange(len(program.demand_qps), dtype=np.int32)
        highs_run(self.model)

    def solve(self, demand_qps: np.ndarray) -> Answer:
        """``demand_qps``: float64 [W]."""
        start = time.process_time()
        self.model.changeRowsBounds(len(self.rows), self.rows, demand_qps, np.full(len(self.rows), np.inf))
        power_w = highs_run(self.model)
        return Answer(power_w, 0.0, time.process_time() - start)


def highs_whole(program: Program, limit_s: float) -> Answer | None:
    """The best plan in whole machines that branch and bound finds in ``limit_s``; None where it finds none."""
    import highspy

    start = time.process_time()
    model = highs_model(program, limit_s, whole=True)
    built = time.process_time()
    model.run()
    solved = time.process_time()
    info = model.getInfo()
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    return Answer(info.objective_function_value, built - start, solved - built, info.mip_dual_bound)


def glop(program: Program, limit_s: float) -> Answer:
    from ortools.linear_solver.python import model_builder_helper as builder

    start = time.process_time()
    model, n = builder.ModelBuilderHelper(), len(program.cost)
    lower, upper = program.row_bounds
    matrix = program.matrix().tocsr()
    model.fill_model_from_sparse_data(np.zeros(n), np.full(n, np.inf), program.cost, lower, upper, matrix)
    solver = builder.ModelSolverHelper("glop")
    solver.set_time_limit_in_seconds(limit_s)
    built = time.process_time()
    solver.solve(model)
    if solver.status() != builder.SolveStatus.OPTIMAL:
        raise Stopped(f"GLOP: {solver.status()}")
    solver.variable_values()
    return Answer(solver.objective_value(), built - start, time.process_time() - built)


def scipy(program: Program, limit_s: float) -> Answer:
    from scipy.optimize import linprog

    start = time.process_time()
    matrix, n_workloads = program.matrix().tocsr(), len(program.demand_qps)
    matrix.data[: matrix.indptr[n_workloads]] *= -1.0
    right = np.concatenate([-program.demand_qps, program.stock])
    built = time.process_time()
    options = {"time_limit": limit_s}
    found = linprog(program.cost, A_ub=matrix, b_ub=right, bounds=(0, None), method="highs", options=options)
    if found.status != 0:
        raise Stopped(f"SciPy: {found.message}")
    return Answer(float(found.fun), built - start, time.process_time() - built)


def cvxpy(program: Program, limit_s: float) -> Answer:
    import cvxpy as cp

    start = time.process_time()
    matrix, n_workloads = program.matrix().tocsr(), len(program.demand_qps)
    machines = cp.Variable(len(program.cost), nonneg=True)
    covered = matrix[:n_workloads] @ machines >= program.demand_qps
    in_stock = matrix[n_workloads:] @ machines <= program.stock
    problem = cp.Problem(cp.Minimize(program.cost @ machines), [covered, in_stock])
    built = time.process_time()
    problem.solve(solver=cp.HIGHS, threads=1, time_limit=limit_s)
    if problem.status != cp.OPTIMAL:
        raise Stopped(f"CVXPY: {problem.status}")
    return Answer(float(problem.value), built - start, time.process_time() - built)


@ignore_deprecations
def pulp(program: Program, limit_s: float) -> Answer:
    """Its solver is a process of its own, whose CPU time counts too."""
    import pulp as pl

    def cpu_s() -> float:
        spent = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        return sum(one.ru_utime + one.ru_stime for one in spent)

    start = cpu_s()
    model, n = pl.LpProblem("provisioning", pl.LpMinimize), len(program.cost)
    machines = [pl.LpVariable(f"x{i}", 0) for i in range(n)]
    model += pl.LpAffineExpression(zip(machines, program.cost.tolist(), strict=True))
    covers: list[list[tuple[Any, float]]] = [[] for _ in program.demand_qps]
    uses: list[list[tuple[Any, float]]] = [[] for _ in program.stock]
    pairs = zip(
        machines, program.rows[::2].tolist(), program.rows[1::2].tolist(), program.values[::2].tolist(), strict=True
    )
    for machine, w, row, qps in pairs:
        covers[w].append((machine, qps))
        uses[row - len(covers)].append((machine, 1.0))
    for terms, demand in zip(covers, program.demand_qps.tolist(), strict=True):
        model += pl.LpAffineExpression(terms) >= demand
    for terms, stock in zip(uses, program.stock.tolist(), strict=True):
        model += pl.LpAffineExpression(terms) <= stock
    built = cpu_s()
    model.solve(pl.PULP_CBC_CMD(msg=False, threads=1, timeLimit=limit_s))
    if model.sol_status != pl.LpSolutionOptimal:
        raise Stopped(f"PuLP: {pl.LpSolution[model.sol_status]}")
    return Answer(float(pl.value(model.objective)), built - start, cpu_s() - built)


RIVALS: dict[str, tuple[str, Callable[..., Answer]]] = {
    "HiGHS": ("highspy", highs),
    "GLOP": ("ortools", glop),
    "SciPy": ("scipy", scipy),
    "CVXPY": ("cvxpy", cvxpy),
    "PuLP": ("pulp", pulp),
}


def installed(*names: str) -> dict[str, Callable[..., Answer]]:
    """The rivals of these names that are here."""
    return {name: RIVALS[name][1] for name in names if is_here(RIVALS[name][0])}
