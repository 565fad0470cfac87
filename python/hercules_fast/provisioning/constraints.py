"""What operators ask beyond load and stock: caps on power, failure domains, switching over time, fair shortage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from hercules_fast.descriptors import FILE_RULES
from hercules_fast.errors import ConfigError, Fault
from hercules_fast.provisioning.footprint import without_footprint
from hercules_fast.provisioning.problem import STOCK_MAX, FloatArray, IntArray, Problem

__all__ = ["Constraint", "FailureDomains", "FairShare", "Hysteresis", "PowerCap", "Rules", "Switching", "resolve"]

COST_MAX = 1e12
HORIZON_MAX = 1_000
LIMIT_RANGE_W = (1e-6, 1e15)
TOLERANCE_MAX = 10.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PowerCap:
    """The provisioned power of some server types (a rack, a row, a site) stays below a limit in every interval."""

    name: str
    servers: Sequence[str]
    """Types under the cap. Machines of one type in two racks are two types."""
    limit_w: float | Sequence[float] | FloatArray
    """W, one figure or one per interval."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FailureDomains:
    """The demand is still covered when any ``k`` domains (racks, rooms, sites) have failed at once: N+k.

    ``mode="exact"``: each workload's loss is the sum of its k largest domains, as in Bertsimas and Sim, "The price of
    robustness" (2004), for any k. ``mode="safe"``: each of the F domains that can run a workload covers
    ``demand / (F - k)`` of it, so the plan holds the demand and k times the largest loss. Dearer, and still a
    transportation problem.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    domain_of: Mapping[str, str]
    """The domain of each server type, by name."""
    k: int = 1
    mode: Literal["exact", "safe"] = "exact"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Switching:
    """Machines are switched on at a cost, at a pace, and for a while; planned over a rolling horizon.

    What is counted is machines on *per server type*: giving a machine that is on to another workload loads a model,
    which takes seconds, where switching one on takes minutes and the wear of a cold start. One figure holds for all
    types; a mapping has it by type (types not named: no cost, any pace, one interval), a sequence one per type, in the
    problem's order.
    """

    cost_on: float | Mapping[str, float] | Sequence[float] | FloatArray = 0.0
    """Cost of switching a machine on, in the unit of the objective (W for one interval, where there are no costs)."""
    ramp: int | Mapping[str, int] | Sequence[int] | None = None
    """Most machines of a type that are switched on from one interval to the next; None: any number."""
    min_up_intervals: int | Mapping[str, int] | Sequence[int] = 1
    """A machine stays on for at least so many intervals."""
    horizon: int = 12
    """Intervals planned at once; the first of them is kept, then the horizon moves on. At least the longest
    ``min_up_intervals``, so that no plan is begun that cannot be kept. As long as the day: one exact plan."""
    initial: Mapping[str, int] | None = None
    """Machines on before the first interval, by type (0 where not named); None: the first interval is free."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hysteresis:
    """Keep the previous plan, mended, while its cost is within ``tolerance`` of the bound of the interval.

    Or while it costs no more than a new one: small fleets in whole machines may never come so near to the bound.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    tolerance: float = 0.02


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FairShare:
    """Under overload the smallest served share is as large as possible, then the next smallest, and so on.

    Without it shed is weighted by penalty, which may starve one workload.
    """


Constraint = PowerCap | FailureDomains | Switching | Hysteresis | FairShare


def breaking(constraints: Sequence[Constraint]) -> list[Constraint]:
    """Those that a network cannot hold: all but safe failure domains."""
    return [c for c in constraints if not (isinstance(c, FailureDomains) and c.mode == "safe")]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rules:
    """The constraints as arrays over a problem's H types and T intervals."""

    cap_names: tuple[str, ...]
    cap_member: FloatArray
    """[G, H], 1 where the type is under the cap."""
    cap_limit_w: FloatArray
    """[T, G]."""
    domain_names: tuple[str, ...] = ()
    domain: IntArray | None = None
    """int64 [H]."""
    k: int = 0
    """Domains that may fail at once; 0 = no such rule."""
    safe_domains: bool = False
    switching: bool = False
    cost_on: FloatArray
    """[H]."""
    ramp: FloatArray
    """[H], infinite = no limit."""
    min_up: IntArray
    """int64 [H], intervals."""
    horizon: int = 1
    initial: IntArray | None = None
    """int64 [H]."""
    hysteresis: float | None = None
    fair: bool = False
    minimum: IntArray | None = None
    """int64 [R, W], machines that are on in every interval; None: none."""

    @classmethod
    def none(cls, problem: Problem) -> Rules:
        """No constraint beyond demand and stock."""
        n_h = problem.n_servers
        return cls(
            cap_names=(),
            cap_member=np.zeros((0, n_h)),
            cap_limit_w=np.zeros((problem.n_intervals, 0)),
            cost_on=np.zeros(n_h),
            ramp=np.full(n_h, np.inf),
            min_up=np.ones(n_h, np.int64),
        )

    @property
    def footprint(self) -> tuple[IntArray, IntArray]:
        """Rows and workloads of the machines that are on in every interval."""
        row, workload = np.nonzero(np.zeros((0, 0)) if self.minimum is None else self.minimum)
        return row.astype(np.int64), workload.astype(np.int64)

    @property
    def n_domains(self) -> int:
        """F; 1 without failure domains."""
        return max(1, len(self.domain_names))


def resolve(problem: Problem, constraints: Sequence[Constraint], minimum: IntArray | None = None) -> Rules:
    """The constraints as arrays, beside ``minimum`` [R, W] machines that are on in every interval.

    Raises :class:`ConfigError` with all faults at once, :class:`InputError` for a minimum that stock, groups or
    eligibility do not allow.
    """
    if minimum is not None:
        without_footprint(problem, minimum)  # refuses one that is not allowed
        minimum = minimum if minimum.any() else None
    checks = _Checks(problem)
    seen: dict[str, int] = {}
    values: dict[str, object] = {}
    caps: list[PowerCap] = []
    for i, constraint in enumerate(constraints):
        kind = type(constraint).__name__
        place = f"constraints[{i}] {kind}"
        if isinstance(constraint, PowerCap):
            caps.append(constraint)
            place = f"constraints[{i}] PowerCap {constraint.name!r}"
            checks.servers(f"{place}.servers", constraint.servers)
            if sum(c.name == constraint.name for c in caps) > 1:
                checks.fault(f"{place}.name", "stands there twice; names must differ")
            continue
        if not isinstance(constraint, FailureDomains | Switching | Hysteresis | FairShare):
            allowed = "PowerCap, FailureDomains, Switching, Hysteresis, FairShare"
            checks.fault(f"constraints[{i}]", f"is a {kind}; allowed: {allowed}")
            continue
        if kind in seen:
            checks.fault(place, f"is the second of its kind, after constraints[{seen[kind]}]; allowed: one")
        seen[kind] = i
        if isinstance(constraint, FailureDomains):
            values |= checks.failure_domains(place, constraint)
        elif isinstance(constraint, Switching):
            values |= checks.switching(place, constraint)
        elif isinstance(constraint, Hysteresis):
            values["hysteresis"] = checks.number(f"{place}.tolerance", constraint.tolerance, 0.0, TOLERANCE_MAX)
        else:
            values["fair"] = True
    if "Switching" in seen and "Hysteresis" in seen:
        checks.fault("constraints", "Switching and Hysteresis are two answers to one question; allowed: one of them")
    limits = [checks.limits(f"PowerCap {cap.name!r}.limit_w", cap.limit_w) for cap in caps]
    if not checks.faults and minimum is not None:
        checks.room_for(minimum, caps, limits, values)
    if checks.faults:
        raise ConfigError("constraints", checks.faults)
    member = np.array([[float(s in set(cap.servers)) for s in problem.servers] for cap in caps])
    values |= {
        "minimum": minimum,
        "cap_names": tuple(cap.name for cap in caps),
        "cap_member": member.reshape(len(caps), problem.n_servers),
        "cap_limit_w": np.stack(limits, axis=1) if caps else np.zeros((problem.n_intervals, 0)),
    }
    free = Rules.none(problem)
    values = {"cost_on": free.cost_on, "ramp": free.ramp, "min_up": free.min_up} | values
    return Rules(**values)  # type: ignore[arg-type]


class _Checks:
    """Collects what is wrong."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.faults: list[Fault] = []

    def fault(self, path: str, message: str) -> None:
        self.faults.append(Fault(path, message))

    def number(self, path: str, value: object, low: float, high: float) -> float:
        good = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
            self.fault(path, f"is {value!r}; allowed: {low:g} to {high:g}")
            return low
        return float(value)  # type: ignore[arg-type]

    def whole(self, path: str, value: object, low: int, high: int) -> int:
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
            self.fault(path, f"is {value!r}; allowed: whole numbers from {low} to {high}")
            return low
        return int(value)

    def servers(self, path: str, names: object) -> None:
        if isinstance(names, str) or not isinstance(names, Sequence) or not len(names):
            self.fault(path, f"is {names!r}; needed: a sequence with at least one server type")
            return
        for name in names:
            self.known(path, name)

    def known(self, path: str, name: object) -> bool:
        """Whether there is such a server type; else it is a fault."""
        if name not in self.problem.servers:
            self.fault(path, f"unknown server {name!r} (known: {', '.join(self.problem.servers)})")
        return name in self.problem.servers

    def limits(self, path: str, value: object) -> FloatArray:
        """[T] watts."""
        n_t = self.problem.n_intervals
        return self._each(path, value, n_t, "intervals", lambda p, x: self.number(p, x, *LIMIT_RANGE_W))

    def per_type(self, path: str, value: object, rest: float, check: Callable[[str, object], float]) -> FloatArray:
        """[H] from one figure, H of them, or some by type and ``rest`` for the others."""
        if isinstance(value, Mapping):
            figures = np.full(self.problem.n_servers, rest)
            for name, x in value.items():
                if self.known(path, name):
                    figures[self.problem.servers.index(name)] = check(f"{path}[{name!r}]", x)
            return figures
        return self._each(path, value, self.problem.n_servers, "server types", check)

    def _each(
        self, path: str, value: object, n: int, meaning: str, check: Callable[[str, object], float]
    ) -> FloatArray:
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if not isinstance(value, Sequence) or isinstance(value, str):
            return np.full(n, check(path, value))
        if len(value) != n:
            self.fault(path, f"has {len(value)} figures; needed: one, or {n} = {meaning}")
            return np.zeros(n)
        return np.array([check(f"{path}[{i}]", x) for i, x in enumerate(value)], dtype=np.float64)

    def failure_domains(self, place: str, given: FailureDomains) -> dict[str, object]:
        servers = self.problem.servers
        if not isinstance(given.domain_of, Mapping):
            self.fault(f"{place}.domain_of", f"is a {type(given.domain_of).__name__}; needed: a mapping by server type")
            return {}
        for name in servers:
            if name not in given.domain_of:
                self.fault(f"{place}.domain_of", f"server {name!r} has no domain; needed: one for every type")
        for name in given.domain_of:
            self.known(f"{place}.domain_of", name)
        names = tuple(dict.fromkeys(given.domain_of[s] for s in servers if s in given.domain_of))
        k = self.whole(f"{place}.k", given.k, 1, max(1, len(names) - 1))
        if given.mode not in ("exact", "safe"):
            self.fault(f"{place}.mode", f"is {given.mode!r}; allowed: 'exact', 'safe'")
        domain = np.array([names.index(given.domain_of[s]) if s in given.domain_of else 0 for s in servers])
        return {"domain_names": names, "domain": domain, "k": k, "safe_domains": given.mode == "safe"}

    def switching(self, place: str, given: Switching) -> dict[str, object]:
        paces = {} if given.ramp is None else given.ramp
        ramp = self.per_type(f"{place}.ramp", paces, np.inf, lambda p, x: self.whole(p, x, 0, STOCK_MAX))
        min_up = self.per_type(
            f"{place}.min_up_intervals", given.min_up_intervals, 1, lambda p, x: self.whole(p, x, 1, HORIZON_MAX)
        ).astype(np.int64)
        cost_on = self.per_type(f"{place}.cost_on", given.cost_on, 0.0, lambda p, x: self.number(p, x, 0.0, COST_MAX))
        horizon = self.whole(f"{place}.horizon", given.horizon, 1, HORIZON_MAX)
        if horizon < min_up.max():
            self.fault(
                f"{place}.horizon",
                f"is {horizon} intervals; allowed: at least the longest min_up_intervals, {min_up.max()}",
            )
        initial = None
        if given.initial is not None and not isinstance(given.initial, Mapping):
            self.fault(f"{place}.initial", f"is {given.initial!r}; needed: a mapping by server type, or None")
        elif given.initial is not None:
            initial = np.zeros(self.problem.n_servers, np.int64)
            for name, count in given.initial.items():
                if self.known(f"{place}.initial", name):
                    count = self.whole(f"{place}.initial[{name!r}]", count, 0, STOCK_MAX)
                    initial[self.problem.servers.index(name)] = count
        return {
            "switching": True,
            "cost_on": cost_on,
            "ramp": ramp,
            "min_up": min_up,
            "horizon": min(horizon, self.problem.n_intervals),
            "initial": initial,
        }

    def room_for(
        self, minimum: IntArray, caps: Sequence[PowerCap], limits: Sequence[FloatArray], values: Mapping[str, object]
    ) -> None:
        """The machines that are on in any case must fit under every cap, and be there after the first interval."""
        problem = self.problem
        watts = np.bincount(problem.types, (minimum * problem.power_w).sum(axis=1), minlength=problem.n_servers)
        for cap, limit in zip(caps, limits, strict=True):
            drawn = float(sum(watts[problem.servers.index(name)] for name in set(cap.servers)))
            t = int(limit.argmin())
            if drawn > limit[t]:
                self.fault(
                    f"PowerCap {cap.name!r}.limit_w",
                    f"is {limit[t]:g} W in interval {t}; allowed: at least the {drawn:g} W of the minimum footprint",
                )
        initial, ramp = values.get("initial"), values.get("ramp")
        if isinstance(initial, np.ndarray) and isinstance(ramp, np.ndarray):
            on = np.bincount(problem.types, minimum.sum(axis=1), minlength=problem.n_servers)
            for h in np.flatnonzero(on > initial + ramp):
                self.fault(
                    f"Switching.initial[{problem.servers[h]!r}]",
                    f"is {initial[h]}, with a ramp of {ramp[h]:g}; needed: {on[h]:g} machines in the first interval, "
                    "the minimum footprint",
                )


def surviving_qps(capacity_qps: FloatArray, k: int) -> FloatArray:
    """[..., W] capacity that is left of ``capacity_qps`` [..., F, W] when the k largest domains of a workload fail."""
    kept = np.sort(capacity_qps, axis=-2)[..., : max(0, capacity_qps.shape[-2] - k), :]
    return np.asarray(kept.sum(axis=-2), dtype=np.float64)
