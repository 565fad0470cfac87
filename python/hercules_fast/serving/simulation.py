"""Service tables and traffic as the engine under the search takes them."""

from __future__ import annotations

from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.tables import ServiceTable
from hercules_fast.traffic import Arrivals, SizeLaw, size_pmf

__all__ = ["TAIL_QUERIES", "WARMUP_SHARE", "core_grid", "core_traffic"]

TAIL_QUERIES = 10
"""Queries that must lie above a percentile before it is worth printing."""
WARMUP_SHARE = 0.1
"""Share of the queries dropped from the front, since a run starts empty."""


def core_grid(table: ServiceTable) -> _core.ServiceGrid:
    """The core's copy of a service table, for the search. What its engine cannot do is refused, not passed over.

    Raises:
        InputError: the table has a group whose interference changes during a service.
    """
    groups = {group.name: group for group in table.groups}
    seconds = table.seconds
    for s, stage in enumerate(table.stages):
        interference = groups[stage.group].interference
        if interference == "dynamic_rate":
            raise InputError(
                f"interference of group {stage.group!r}: is 'dynamic_rate'; allowed are 'none' and 'at_start': the "
                "search has no rates that change during a service"
            )
        if interference == "none":  # the time of a thread alone, whoever else is busy
            seconds = seconds.copy() if seconds is table.seconds else seconds
            seconds[:, s] = seconds[:, s, :, :1]
    return _core.ServiceGrid(
        table.items,
        table.busy,
        seconds,
        table.energy_j,
        [stage.unit for stage in table.stages],
        [table.stage_index(stage.busy_of) for stage in table.stages],
        table.noise_cv.tolist(),
    )


def core_traffic(sizes: SizeLaw, arrivals: Arrivals, seed: int) -> _core.Traffic:
    """The core's copy of the laws of a workload, for the search.

    Raises:
        InputError: queries that arrive in groups, or arrivals that are no renewal process.
    """
    params: dict[str, tuple[float, ...]] = {
        "poisson": (),
        "deterministic": (),
        "erlang": (arrivals.k,),
        "lognormal": (arrivals.sigma,),
        "hyperexponential": (*arrivals.probabilities, *arrivals.rates),
        "deeprecsys-gap": (arrivals.mean_ticks,),
    }
    if arrivals.kind not in params:
        raise InputError(f"arrivals.kind: is {arrivals.kind!r}; allowed in the search is one of {', '.join(params)}")
    if arrivals.group:
        raise InputError(f"arrivals.group: is {arrivals.group}; allowed in the search is nothing: single arrivals")
    return _core.Traffic(arrivals.kind, list(params[arrivals.kind]), size_pmf(sizes), seed)
