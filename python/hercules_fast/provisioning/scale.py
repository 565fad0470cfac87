"""How much load a stock can carry, and loads scaled to a share of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.provisioning.inverse import largest_growth
from hercules_fast.provisioning.problem import FloatArray, IntArray, Problem
from hercules_fast.traffic import LoadTrace

__all__ = ["largest_scale", "scale_load"]


def largest_scale(qps: npt.ArrayLike, demand_qps: npt.ArrayLike, stock: npt.ArrayLike) -> float:
    """The largest f such that fractional machines within ``stock`` cover ``f * demand_qps`` of every interval.

    ``qps``: float64 [H, W], 0 = not eligible; ``demand_qps``: float64 [W] or [T, W]; ``stock``: int64 [H] or [T, H].
    0 when a workload that asks for load has no eligible type in stock, infinite when none asks for any.
    Raises :class:`InputError` and :class:`SolverError`.
    """
    rates = np.asarray(qps)
    demand = np.atleast_2d(np.asarray(demand_qps))
    problem = Problem(qps=rates, power_w=np.ones(rates.shape), demand_qps=demand, stock=np.asarray(stock))
    return largest_growth(problem).factor


def scale_load(
    load: LoadTrace,
    qps: FloatArray,
    stock: IntArray,
    servers: tuple[str, ...],
    share: float,
    headroom: float | FloatArray,
    reference_server: str | None = None,
) -> tuple[LoadTrace, str]:
    """Give a relative load its q/s: equal shapes ask for equally many reference servers, the peak for ``share`` of all.

    Column w of ``load.qps`` counts in units of what one ``reference_server`` serves of workload w (its best server
    where the reference cannot serve it; no load where none can). All is then scaled so that the load with
    ``headroom`` (one, or [W]) is ``share`` times the largest that fractional machines within ``stock`` can serve.
    ``qps`` [H, W], ``stock`` [H], in the order of ``servers`` and ``load.workloads``. Without a reference, the type in
    stock that can run most workloads is taken; among those the one with most machines, then the first.

    Returns the absolute load and what was done, in words. Raises :class:`InputError` where there is nothing to scale,
    :class:`UnknownNameError` for the reference.
    """
    in_stock = np.where((stock > 0)[:, None], qps, 0.0)
    if reference_server is None:
        able = (in_stock > 0).sum(axis=1)
        h = max(range(len(servers)), key=lambda i: (able[i], stock[i], -i))
    elif reference_server in servers:
        h = servers.index(reference_server)
    else:
        raise UnknownNameError.of("reference server", reference_server, servers)
    equivalents = np.where(in_stock[h] > 0, in_stock[h], in_stock.max(axis=0))
    unit = np.asarray(load.qps, dtype=np.float64) * equivalents
    fit = largest_scale(qps, unit * (1.0 + headroom), stock)
    if not equivalents.any():
        words = "relative load: no server in stock can run any of its workloads, so it asks for nothing"
        return dataclasses.replace(load, qps=unit, relative=False), words
    if not math.isfinite(fit):
        raise InputError(f"load {load.name!r} is relative and cannot be scaled: it asks for nothing")
    words = (
        f"relative load: every workload asks for equally many {servers[h]} servers, and the peak with headroom is "
        f"{share:g} of the largest load that the stock can serve"
    )
    return dataclasses.replace(load, qps=unit * (fit * share), relative=False), words
