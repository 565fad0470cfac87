"""Power of one server at a load, from the utilisation that the simulator found.

Mode ``component`` (default): ``base + sum over components of idle + (tdp - idle) utilisation``, where the memory's
share is the energy of its traffic. Mode ``tdp``: the sum of the components' TDPs, whatever the load; it does not
depend on the workload. Both rest on assumed idle shares (0.4 of TDP); the mode is printed with every result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.tables import SchedulingConfig, ServiceTable

__all__ = ["PowerMode", "ServerPower", "core_power", "server_power"]

PowerMode = Literal["component", "tdp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerPower:
    """Power of one server: the total and what it is made of; ``utilisation`` is per component, 0 to 1."""

    power_w: float
    mode: PowerMode
    components_w: Mapping[str, float]
    utilisation: Mapping[str, float]


def server_power(
    table: ServiceTable,
    config: SchedulingConfig,
    *,
    qps: float,
    stage_utilisation: Sequence[float],
    energy_j_per_query: float,
    mode: PowerMode = "component",
) -> ServerPower:
    """Power of a server that runs ``config`` at ``qps``.

    Args:
        table: service table that ``config`` was made for.
        config: scheduling configuration.
        qps: load in queries per second.
        stage_utilisation: busy share of each stage's threads, one per stage of the table.
        energy_j_per_query: dynamic energy of the memory per query, joules; NaN, unknown, counts as full use of it.
        mode: ``component`` or ``tdp``.

    Raises:
        InputError: unknown mode, or a component without a group or energy to give its utilisation.
    """
    if mode not in ("component", "tdp"):
        raise InputError(f"power_mode: is {mode!r}; allowed are 'component', 'tdp'")
    used = dict.fromkeys(table.tdp_w, 0.0)
    for group in table.groups:
        shares = []
        threads_in_group = 0
        for s, stage in enumerate(table.stages):
            if stage.group == group.name and config.threads[s]:
                cores = max(1, config.operator_cores[s])
                shares.append(stage_utilisation[s] * config.threads[s] * cores)
                threads_in_group += config.threads[s]
        if group.component not in used:
            raise InputError(f"groups.{group.name}.component: is {group.component!r}; allowed are {sorted(used)}")
        # Co-located instances of an accelerator share all of it: its use is their mean, not their share of the slots.
        slots = threads_in_group if group.component == "gpu" else group.capacity
        used[group.component] += min(1.0, sum(shares) / slots) if slots else 0.0
    if "memory" in used:
        span = table.tdp_w["memory"] - table.idle_w["memory"]
        share = qps * energy_j_per_query / span if span > 0 else 0.0
        used["memory"] = share if share < 1.0 else 1.0  # unknown energy (NaN) counts as full use
    if mode == "tdp":
        watts = dict(table.tdp_w)
        return ServerPower(power_w=sum(watts.values()), mode=mode, components_w=watts, utilisation=used)
    watts = {name: table.idle_w[name] + (table.tdp_w[name] - table.idle_w[name]) * used[name] for name in used}
    watts["base"] = table.base_w
    return ServerPower(power_w=sum(watts.values()), mode=mode, components_w=watts, utilisation=used)


def core_power(table: ServiceTable, mode: PowerMode = "component") -> _core.PowerModel:
    """The core's copy of :func:`server_power` for ``table``, for the search; that function is its slow twin.

    In mode ``tdp`` every component draws its TDP at rest.

    Raises:
        InputError: unknown mode, or a component without a group or energy to give its utilisation.
    """
    if mode not in ("component", "tdp"):
        raise InputError(f"power_mode: is {mode!r}; allowed are 'component', 'tdp'")
    components = list(table.tdp_w)
    for group in table.groups:
        if group.component not in components:
            raise InputError(f"groups.{group.name}.component: is {group.component!r}; allowed are {sorted(components)}")
    tdp = mode == "tdp"
    names = [group.name for group in table.groups]
    return _core.PowerModel(
        base_w=0.0 if tdp else table.base_w,
        idle_w=[table.tdp_w[name] if tdp else table.idle_w[name] for name in components],
        span_w=[0.0 if tdp else table.tdp_w[name] - table.idle_w[name] for name in components],
        component_of=[components.index(group.component) for group in table.groups],
        slots=[0 if group.component == "gpu" else group.capacity for group in table.groups],
        group_of=[names.index(stage.group) for stage in table.stages],
        cores=np.array([variant.operator_cores for variant in table.variants], dtype=np.int64),
        energy_of=components.index("memory") if "memory" in components else None,
    )
