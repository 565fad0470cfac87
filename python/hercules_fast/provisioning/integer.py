"""Whole machines from the fractional optimum: the Rust core's `provision::whole`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hercules_fast import _core
from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.problem import Problem
from hercules_fast.provisioning.relaxed import LinearSolution

__all__ = ["whole_machines"]


def whole_machines(
    problem: Problem,
    linear: LinearSolution,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Assignment:
    """Whole machines (int64, sparse) close to ``linear``: stock always holds; what stays uncovered is the least found.

    Counts are multiples of ``problem.group``. Weighted shortfall (``linear.penalty_w_per_qps`` times q/s) goes first,
    cost second. Where the counts of ``linear``, all rounded up, fit into the stock, the cost above the bound is at most
    that of its fractional places, of which a basic optimum has at most W + H. Where they do not, whole machines may have
    to be replaced by any number of worse ones, and there is no such bound.

    The answer of an interval is a function of that interval alone: the same bytes for any ``threads``.
    ``progress(done, total)`` counts intervals. Raises ``KeyboardInterrupt`` on Ctrl-C.
    """
    places = linear.assignment
    columns, interrupted = _core.provision_whole(
        problem.qps,
        problem.power_w,
        problem.types,
        problem.n_servers,
        problem.demand_qps,
        np.atleast_2d(problem.stock),
        linear.penalty_w_per_qps,
        places.starts,
        places.row,
        places.workload,
        places.machines,
        linear.stock_price_w,
        problem.watt_cost,
        problem.machine_cost,
        problem.group,
        threads,
        progress,
    )
    if interrupted:
        raise KeyboardInterrupt
    del columns["solved"]  # all
    return Assignment(shape=places.shape, **columns)
