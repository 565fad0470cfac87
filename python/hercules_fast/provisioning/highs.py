"""HiGHS behind a narrow door: arrays in, arrays out, every number finite, every status by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InternalError, SolverError
from hercules_fast.provisioning.problem import FloatArray

__all__ = ["Columns", "Solver", "power_of_two"]

# Tighter than the solver's own 1e-7: coverage must hold in the original units.
_TOLERANCE = 1e-9
# Rows from which a solve may take long enough for Ctrl-C to be heard while it runs.
_LONG_ROWS = 2_000
_POLL_S = 0.05

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Columns by their cost, bounds and entries, which come in any order."""

    cost: FloatArray
    upper: FloatArray
    entry_column: npt.NDArray[np.int64]
    """Position, in this batch, of the column of each entry."""
    entry_row: npt.NDArray[np.int64]
    entry_value: FloatArray
    lower: FloatArray | float = 0.0


def power_of_two(values: FloatArray) -> FloatArray:
    """The power of two next below each positive value: a scale that rounds nothing."""
    _, exponent = np.frexp(values)
    return np.asarray(np.ldexp(1.0, exponent - 1), dtype=np.float64)


class Solver:
    """One HiGHS object; model and basis stay between solves. Minimises; one thread, so the same bytes every time."""

    def __init__(self, row_lower: FloatArray, row_upper: FloatArray) -> None:
        import highspy

        class Quiet(highspy.Highs):
            def enableCallbacks(self) -> None:
                self.setOptionValue("output_flag", False)  # HiGHS would print into the documents that we print
                super().enableCallbacks()  # type: ignore[no-untyped-call]

        self._highspy = highspy
        self.highs: Any = Quiet()  # type: ignore[no-untyped-call]
        self.n_rows, self.n_columns = len(row_lower), 0
        self.option("output_flag", False)  # where the constructor does not
        self.option("threads", 1)
        self.option("primal_feasibility_tolerance", _TOLERANCE)
        self.option("dual_feasibility_tolerance", _TOLERANCE)
        self.option("small_matrix_value", 1e-12)
        lp = highspy.HighsLp()
        lp.num_row_ = self.n_rows
        lp.row_lower_, lp.row_upper_ = row_lower, row_upper
        lp.a_matrix_.start_ = np.zeros(1, dtype=np.int32)
        self._accept(self.highs.passModel(lp), "passModel")

    def option(self, name: str, value: bool | int | float | str) -> None:
        """Set an option of HiGHS."""
        self._accept(self.highs.setOptionValue(name, value), f"option {name}={value}")

    def add(self, columns: Columns) -> None:
        """Append columns; they start at their lower bounds, beside the basis that is held."""
        order = np.argsort(columns.entry_column, kind="stable")
        n = len(columns.cost)
        starts = np.searchsorted(columns.entry_column[order], np.arange(n)).astype(np.int32)
        index, value = columns.entry_row[order].astype(np.int32), columns.entry_value[order]
        _finite("cost", columns.cost)
        _finite("matrix", value)
        lower = np.zeros(n) + columns.lower
        status = self.highs.addCols(n, columns.cost, lower, columns.upper, len(value), starts, index, value)
        self._accept(status, "addCols")
        self.n_columns += n

    def set_rows(self, first: int, lower: FloatArray, upper: FloatArray) -> None:
        """Bounds of the rows ``first ..``."""
        rows = np.arange(first, first + len(lower), dtype=np.int32)
        self._accept(self.highs.changeRowsBounds(len(rows), rows, lower, upper), "changeRowsBounds")

    def set_costs(self, columns: npt.NDArray[np.int64], cost: FloatArray) -> None:
        """Costs of some columns."""
        _finite("cost", cost)
        self._accept(self.highs.changeColsCost(len(cost), columns.astype(np.int32), cost), "changeColsCost")

    def set_upper(self, columns: npt.NDArray[np.int64], upper: FloatArray) -> None:
        """Upper bounds of some columns; the lower ones are 0."""
        status = self.highs.changeColsBounds(len(upper), columns.astype(np.int32), np.zeros(len(upper)), upper)
        self._accept(status, "changeColsBounds")

    def set_entry(self, row: int, column: int, value: float) -> None:
        """One entry of the matrix."""
        self._accept(self.highs.changeCoeff(row, column, value), "changeCoeff")

    def make_integer(self, columns: npt.NDArray[np.int64]) -> None:
        """Columns that take whole values only."""
        kinds = np.full(len(columns), int(self._highspy.HighsVarType.kInteger), dtype=np.uint8)
        status = self.highs.changeColsIntegrality(len(columns), columns.astype(np.int32), kinds)
        self._accept(status, "changeColsIntegrality")

    def start_at(self, columns: npt.NDArray[np.int64], values: FloatArray) -> None:
        """Where the search of an integer program starts; other columns are completed."""
        if len(values):  # HiGHS warns of none
            self._accept(self.highs.setSolution(len(values), columns.astype(np.int32), values), "setSolution")

    def run(self, what: str, *, primal: bool = False, interior: bool = False) -> tuple[FloatArray, FloatArray]:
        """Solve; values of the columns and prices of the rows, at a vertex.

        ``primal``: columns or costs have changed, not the right-hand side. ``interior``: by interior points first.
        Raises :class:`SolverError` naming ``what`` and the status, :class:`KeyboardInterrupt` on Ctrl-C.
        """
        self.option("simplex_strategy", 4 if primal else 1)
        if interior:
            self.option("solver", "ipx")
            self._run(self.n_rows >= _LONG_ROWS)
            self.option("solver", "choose")  # from its vertex on: certain, and nothing to do where that is the optimum
        self._accept(self._run(self.n_rows >= _LONG_ROWS), f"run of {what}")
        status = self.highs.getModelStatus()
        if status != self._highspy.HighsModelStatus.kOptimal:
            raise SolverError(
                f"{what}: HiGHS ended with status {self.highs.modelStatusToString(status)!r}, not 'Optimal'"
            )
        solution = self.highs.getSolution()
        values = np.asarray(solution.col_value, dtype=np.float64)
        prices = np.asarray(solution.row_dual, dtype=np.float64)
        if not (np.isfinite(values).all() and np.isfinite(prices).all()):
            raise SolverError(f"{what}: HiGHS reported 'Optimal' with values that are not finite")
        return values, prices

    def run_integer(self, what: str) -> tuple[FloatArray | None, str]:
        """Solve with whole columns: their values, None where none were found; and "optimal", "limit", "infeasible".

        Raises as :meth:`run` does, for any status but these.
        """
        outcome = self._run(True)
        if not self._agrees():
            # Seen in 1.16.0: where presolve alone improves on the start, the start comes back beside the objective of
            # the better answer. Without the start it is found again.
            self.highs.clearSolver()
            outcome = self._run(True)
        status, names = self.highs.getModelStatus(), self._highspy.HighsModelStatus
        limit = status in (names.kTimeLimit, names.kSolutionLimit)
        if status == names.kInfeasible:
            return None, "infeasible"
        if outcome == self._highspy.HighsStatus.kError or not (limit or status == names.kOptimal):
            raise SolverError(
                f"{what}: HiGHS ended with status {self.highs.modelStatusToString(status)!r}, not 'Optimal' or a limit"
            )
        word = "limit" if limit else "optimal"
        if self.highs.getInfo().primal_solution_status != int(self._highspy.SolutionStatus.kSolutionStatusFeasible):
            return None, word
        values = np.asarray(self.highs.getSolution().col_value, dtype=np.float64)
        if not np.isfinite(values).all():
            raise SolverError(f"{what}: HiGHS reported an answer with values that are not finite")
        return values, word

    def _agrees(self) -> bool:
        """Whether HiGHS' columns have the objective that it reports."""
        said = self.highs.getInfo().objective_function_value
        values = np.asarray(self.highs.getSolution().col_value, dtype=np.float64)
        if not len(values) or not np.isfinite(said):
            return True  # no answer: the status says why
        return bool(np.isclose(np.asarray(self.highs.getLp().col_cost_) @ values, said, rtol=1e-6, atol=1e-9))

    def _run(self, long: bool) -> Any:
        status = self._run_once(long)
        # The number of threads belongs to the process; whoever used HiGHS first has fixed it. And where penalties are
        # 1e9 times the least cost, the simplex method may stop short: it does not with all costs made smaller.
        for option, value in (("threads", 0), ("user_objective_scale", -10), ("user_objective_scale", -20)):
            if status != self._highspy.HighsStatus.kError:
                break
            self.option(option, value)
            status = self._run_once(long)
        return status

    def _run_once(self, long: bool) -> Any:
        if not long:
            return self.highs.run()
        # HiGHS' own handling of Ctrl-C prints; this one cancels, waits and raises.
        self.highs.HandleUserInterrupt = True
        self.highs.startSolve()
        try:
            while True:
                done, status = self.highs.wait(_POLL_S)
                if done:
                    return status
        except KeyboardInterrupt:
            self.highs.cancelSolve()
            self.highs.wait()
            raise

    def _accept(self, status: Any, what: str) -> None:
        # A warning counts as failure: HiGHS warns when it drops an entry, and then solves another program.
        if status != self._highspy.HighsStatus.kOk:
            raise SolverError(f"{what}: HiGHS answered {status!s} instead of kOk")


def _finite(name: str, values: FloatArray) -> None:
    if not np.isfinite(values).all():  # HiGHS answers "Optimal" to NaN
        raise InternalError(f"provisioning model: a {name} entry is not finite")
