"""What a search is asked for: method, objective, and how much simulation an answer is worth; checks of arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal

from hercules_fast.errors import DTypeError, InputError
from hercules_fast.hardware import Server
from hercules_fast.serving import PowerMode, Terms
from hercules_fast.serving.simulation import TAIL_QUERIES, WARMUP_SHARE
from hercules_fast.tables import ServiceTable
from hercules_fast.traffic import Workload

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "Cost",
    "Effort",
    "Goal",
    "Method",
    "Objective",
    "Progress",
    "Tables",
    "check_arguments",
    "check_tables",
    "check_type",
]

Method = Literal["gradient", "exhaustive", "hill", "deeprecsys", "random"]
Progress = Callable[[int, int], None]
METHODS = ("gradient", "exhaustive", "hill", "deeprecsys", "random")
Objective = Literal["qps", "qps_per_watt", "qps_per_cost"]
OBJECTIVES = ("qps", "qps_per_watt", "qps_per_cost")
Tables = Mapping[tuple[str, str], ServiceTable]
"""A user's own service tables by (server name, workload name), in place of modelled ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What an hour of a server costs, in any currency: a fixed part, and the energy that it draws."""

    server_per_hour: float | Mapping[str, float]
    """Purchase and upkeep of one server for an hour; one figure, or by server name."""
    energy_per_kwh: float

    def __post_init__(self) -> None:
        by_name = self.server_per_hour if isinstance(self.server_per_hour, Mapping) else {}
        figures = {f"server_per_hour[{name!r}]": value for name, value in by_name.items()}
        if not isinstance(self.server_per_hour, Mapping):
            figures["server_per_hour"] = self.server_per_hour
        for name, value in (figures | {"energy_per_kwh": self.energy_per_kwh}).items():
            if not _is_number(value) or not 0 <= value < math.inf:
                raise InputError(f"cost.{name}: is {value!r}; allowed is a finite number >= 0")
        fixed: Mapping[str, float] | float = {name: float(value) for name, value in by_name.items()}
        if not isinstance(self.server_per_hour, Mapping):
            fixed = float(self.server_per_hour)
        _set(self, server_per_hour=fixed, energy_per_kwh=float(self.energy_per_kwh))

    def of(self, server: str) -> float:
        """Fixed cost of a server per hour. Raises InputError for a name that was given none."""
        if not isinstance(self.server_per_hour, Mapping):
            return self.server_per_hour
        if server not in self.server_per_hour:
            raise InputError(f"cost.server_per_hour: has no {server!r}; allowed is a mapping with every server")
        return self.server_per_hour[server]


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a search looks for, and how far it may go.

    The score of a configuration is its highest load within the SLA, in QPS, per nothing (``qps``), per watt
    (``qps_per_watt``) or per cost of an hour (``qps_per_cost``). Loads that draw more than ``power_budget_w`` do not
    count. ``top`` of the best configurations are measured finally; ``front`` asks for the Pareto set of QPS against
    power. ``evaluations`` is the most configurations that are simulated under load.
    """

    objective: Objective = "qps"
    cost: Cost | None = None
    power_budget_w: float | None = None
    power_mode: PowerMode = "component"
    evaluations: int | None = None
    top: int = 1
    front: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective: is {self.objective!r}; allowed are {', '.join(map(repr, OBJECTIVES))}")
        if self.objective == "qps_per_cost" and self.cost is None:
            raise InputError("cost: is None; allowed with objective 'qps_per_cost' is a Cost")
        if self.cost is not None:
            check_type("cost", self.cost, Cost, "hf.profiling.Cost(server_per_hour=1.0, energy_per_kwh=0.1)")
            if self.objective != "qps_per_cost":
                raise InputError(f"cost: is given with objective {self.objective!r}; allowed with 'qps_per_cost' only")
        if self.power_mode not in ("component", "tdp"):
            raise InputError(f"power_mode: is {self.power_mode!r}; allowed are 'component', 'tdp'")
        budget = self.power_budget_w
        if budget is not None:
            if not (_is_number(budget) and 0 < budget < math.inf):
                raise InputError(f"power_budget_w: is {budget!r}; allowed is a finite number > 0, or None")
            _set(self, power_budget_w=float(budget))
        for name, value in (("evaluations", self.evaluations), ("top", self.top)):
            if (value is not None or name == "top") and (type(value) is not int or not 1 <= value < 2**63):
                raise InputError(f"{name}: is {value!r}; allowed is a whole number >= 1")
        if type(self.front) is not bool:
            raise InputError(f"front: is {self.front!r}; allowed are True, False")

    def weights(self, server: str) -> tuple[float, float]:
        """(fixed, per watt) of the score ``qps / (fixed + per_watt * power_w)`` on a server."""
        if self.objective == "qps":
            return (1.0, 0.0)
        if self.objective == "qps_per_watt":
            return (0.0, 1.0)
        assert self.cost is not None
        fixed, per_watt = self.cost.of(server), self.cost.energy_per_kwh / 1e3
        if fixed + per_watt == 0:
            raise InputError(f"cost: of {server!r} is 0; allowed is a server or energy that costs something")
        return (fixed, per_watt)


def _set(settings: object, **values: object) -> None:
    """Plain numbers in place of what was given, which may be NumPy's: journals and tables hold them as JSON."""
    for name, value in values.items():
        object.__setattr__(settings, name, value)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


MAX_QUERIES = 1 << 28
MAX_REPLICATIONS = 1 << 12
LEAST_CAP = 1e-3
"""What the core takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much simulation an answer is worth.

    ``queries`` per probe of the search, ``polish_queries`` for the choice among its best; the winner is then measured
    with ``replications`` independent runs of ``final_queries`` each, from which the interval of its QPS comes. All grow
    to what the highest percentile of the SLAs needs (ten queries above it, after a tenth of the run is dropped as
    warm-up). A probe passes only if every CPU stage is busy for at most ``utilisation_cap`` of the time: a loose SLA
    would otherwise be met at loads that no operator runs. Replications are doubled until the half-width of the 95 %
    interval is at most ``precision`` of the QPS, or there are ``most_replications`` of them; the row then says so.
    """

    queries: int = 4096
    polish_queries: int = 32768
    final_queries: int = 16384
    replications: int = 5
    utilisation_cap: float = 0.95
    precision: float = 0.01
    most_replications: int = 640

    def __post_init__(self) -> None:
        for name, least, most, why in (
            ("queries", 100, MAX_QUERIES, ""),
            ("polish_queries", 100, MAX_QUERIES, ""),
            ("final_queries", 100, MAX_QUERIES, ""),
            ("replications", 2, MAX_REPLICATIONS, ", for there to be an interval"),
            ("most_replications", 2, MAX_REPLICATIONS, ""),
        ):
            count = getattr(self, name)
            if type(count) is not int or count < least:
                raise InputError(f"effort.{name}: is {count!r}; allowed is a whole number >= {least}{why}")
            if count > most:
                raise InputError(f"effort.{name}: is {count}; allowed is a whole number <= {most}")
        cap = self.utilisation_cap
        if isinstance(cap, bool) or not isinstance(cap, int | float) or not LEAST_CAP <= cap < 1:
            raise InputError(f"effort.utilisation_cap: is {cap!r}; allowed is {LEAST_CAP} <= cap < 1")
        if not _is_number(self.precision) or not 0 < self.precision < math.inf:
            raise InputError(f"effort.precision: is {self.precision!r}; allowed is a finite number > 0")
        _set(self, precision=float(self.precision), utilisation_cap=float(cap))

    def enough_for(self, workloads: Sequence[Workload]) -> Effort:
        """This effort, or the least longer one that determines every percentile of the workloads' SLAs.

        Raises:
            InputError: no run is long enough for one of them.
        """
        highest = max((sla.percentile for w in workloads for sla in w.slas), default=0.0)
        needed = math.ceil(TAIL_QUERIES / (1 - highest / 100) / (1 - WARMUP_SHARE)) + 2
        if needed > MAX_QUERIES:
            raise InputError(
                f"sla.percentile: is {highest!r}, which takes runs of {needed} queries; allowed is what runs of "
                f"{MAX_QUERIES} determine"
            )
        names = ("queries", "polish_queries", "final_queries")
        return replace(self, **{name: max(getattr(self, name), needed) for name in names})


A_SERVER = "hf.hardware.server('T2') or one of hf.fleet('zoo10').servers"
A_WORKLOAD = "one of hf.fleet('zoo10').workloads"


def check_type(name: str, value: object, wanted: type, source: str) -> None:
    """Raise ``DTypeError`` unless ``value`` is a ``wanted``; ``source`` tells where to get one."""
    if not isinstance(value, wanted):
        shown = f"{value!r}, " if isinstance(value, str) else "of type "
        raise DTypeError(f"{name}: is {shown}{type(value).__name__}; allowed is {wanted.__name__}, such as {source}")


def check_arguments(
    servers: Sequence[Server], workloads: Sequence[Workload], method: str, seed: int, terms: Terms, effort: Effort
) -> None:
    """Raise for the first argument of a profile or search that is outside what is allowed."""
    for what, items, kind, source in (
        ("servers", servers, Server, A_SERVER),
        ("workloads", workloads, Workload, A_WORKLOAD),
    ):
        if isinstance(items, str) or not isinstance(items, Sequence):
            shown = f"{items!r}, " if isinstance(items, str) else "of type "
            raise DTypeError(
                f"{what}: is {shown}{type(items).__name__}; allowed is a list of {kind.__name__}, "
                f"such as hf.fleet('zoo10').{what}"
            )
        for k, item in enumerate(items):
            check_type(f"{what}[{k}]", item, kind, source)
    check_type("terms", terms, Terms, "hf.Terms()")
    check_type("effort", effort, Effort, "hf.Effort()")
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise InputError(f"seed: is {seed!r}; allowed is a whole number, 0 <= seed < 2**63")
    if method not in METHODS:
        raise InputError(f"search: is {method!r}; allowed are {', '.join(map(repr, METHODS))}")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: is {seed}; allowed is 0 <= seed < 2**63")
    for what, names in (("servers", [s.name for s in servers]), ("workloads", [w.name for w in workloads])):
        if not names:
            raise InputError(f"{what}: is empty; at least one is needed")
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{what}: {name!r} is named twice")
    for workload in workloads:
        if not workload.slas:
            raise InputError(f"workloads.{workload.name}.slas: is empty; at least one SLA is needed")
    effort.enough_for(workloads)


def check_tables(tables: Tables | None, servers: Sequence[Server], workloads: Sequence[Workload]) -> Tables:
    """The user's tables, each of which must be of the pair that it is given for."""
    if tables is None:
        return {}
    if not isinstance(tables, Mapping):
        raise DTypeError(
            f"tables: is of type {type(tables).__name__}; allowed is a mapping of (server, workload) names"
        )
    pairs = {(server.name, workload.name) for server in servers for workload in workloads}
    for key, table in tables.items():
        check_type(f"tables[{key!r}]", table, ServiceTable, "hf.ServiceTable.load(path)")
        if key not in pairs:
            raise InputError(f"tables[{key!r}]: is no pair of the call; allowed are {_shown(sorted(pairs))}")
        if (table.server, table.workload) != key:
            raise InputError(
                f"tables[{key!r}]: is a table of {table.workload!r} on {table.server!r}; allowed is one of this pair"
            )
    return tables


def _shown(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(map(repr, pairs[:3])) + (", ..." if len(pairs) > 3 else "")
