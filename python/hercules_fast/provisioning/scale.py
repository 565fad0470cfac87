"""How much load a stock can carry, and loads scaled to a share of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.provisioning.linear import largest_scales
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem
from hercules_fast.traffic import LoadTrace

__all__ = ["largest_scale", "scale_load"]


def largest_scale(qps: npt.ArrayLike, demand_qps: npt.ArrayLike, stock: npt.ArrayLike) -> float:
    """The largest f such that fractional machines within ``stock`` cover ``f * demand_qps`` of every interval.

    ``qps``: float64 [H, W], 0 = not eligible; ``demand_qps``: float64 [W] or [T, W]; ``stock``: int64 [H].
    0 when a workload that asks for load has no eligible type in stock, infinite when none asks for any.
    Raises :class:`InputError` and :class:`SolverError`.
    """
    rates = np.asarray(qps)
    demand = np.atleast_2d(np.asarray(demand_qps))
    problem = Problem(qps=rates, power_w=np.ones(rates.shape), demand_qps=demand, stock=np.asarray(stock))
    return fleet_scale(problem)


def fleet_scale(problem: Problem) -> float:
    """:func:`largest_scale` of a problem: only intervals that no other one exceeds everywhere need solving."""
    demand = np.unique(problem.demand_qps, axis=0)
    demand = demand[np.argsort(-demand.sum(axis=1), kind="stable")]
    kept = np.empty_like(demand)
    n_kept = 0
    for row in demand:
        if not (kept[:n_kept] >= row).all(axis=1).any():
            kept[n_kept] = row
            n_kept += 1
    top = dataclasses.replace(problem, demand_qps=kept[:n_kept])
    return float(largest_scales(top, range(n_kept)).min())


def scale_load(
    load: LoadTrace,
    qps: FloatArray,
    stock: IntArray,
    servers: tuple[str, ...],
    share: float,
    reference_server: str | None = None,
) -> tuple[LoadTrace, str]:
    """Give a relative load its q/s: equal shapes ask for equally many reference servers.

    Column w of ``load.qps`` counts in units of what one ``reference_server`` serves of workload w; all is then scaled
    so that the load is ``share`` times the largest that fractional machines within ``stock`` can serve. ``qps``
    [H, W], ``stock`` [H], in the order of ``servers`` and ``load.workloads``. Without a reference, the type in stock
    that can run most workloads is taken; among those the one with most machines, then the first.

    Returns the absolute load and what was done, in words. Raises :class:`InputError` where no type can be the
    reference.
    """
    able = ((qps > 0) & (stock > 0)[:, None]).sum(axis=1)
    if reference_server is None:
        h = max(range(len(servers)), key=lambda i: (able[i], stock[i], -i))
    elif reference_server in servers:
        h = servers.index(reference_server)
    else:
        raise UnknownNameError.of("reference server", reference_server, servers)
    for w, name in enumerate(load.workloads):
        if not qps[h, w] > 0:
            raise InputError(
                f"load {load.name!r} is relative and needs a reference server for every workload, but {servers[h]!r} "
                f"cannot run {name!r}; name another policy.reference_server or give the load in q/s"
            )
    unit = np.asarray(load.qps, dtype=np.float64) * qps[h]
    fit = largest_scale(qps, unit, stock)
    if not math.isfinite(fit) or fit <= 0.0:
        why = "asks for nothing" if fit else "has a workload that no server in stock can run"
        raise InputError(f"load {load.name!r} is relative and cannot be scaled: it {why}")
    words = f"relative load scaled to {share:g} of the largest that the stock can serve, in units of {servers[h]}"
    return dataclasses.replace(load, qps=unit * (fit * share), relative=False), words
