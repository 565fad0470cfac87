"""What a search is asked for: the method, and how much simulation an answer is worth; checks of arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

from hercules_fast.errors import DTypeError, InputError
from hercules_fast.hardware import Server
from hercules_fast.serving import Terms
from hercules_fast.serving.simulation import TAIL_QUERIES, WARMUP_SHARE
from hercules_fast.traffic import Workload

__all__ = ["METHODS", "Effort", "Method", "Progress", "check_arguments", "check_type"]

Method = Literal["gradient", "exhaustive"]
Progress = Callable[[int, int], None]
METHODS = ("gradient", "exhaustive")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much simulation an answer is worth.

    ``queries`` per probe of the search; the winner is then measured with ``replications`` independent runs of
    ``final_queries`` each, from which the interval of its QPS comes. Both grow to what the highest percentile of the
    SLAs needs (ten queries above it, after a tenth of the run is dropped as warm-up). A probe passes only if every CPU
    stage is busy for at most ``utilisation_cap`` of the time: a loose SLA would otherwise be met at loads that no
    operator runs.
    """

    queries: int = 4096
    final_queries: int = 16384
    replications: int = 5
    utilisation_cap: float = 0.95

    def __post_init__(self) -> None:
        for name, least, why in (
            ("queries", 100, ""),
            ("final_queries", 100, ""),
            ("replications", 2, ", for there to be an interval"),
        ):
            count = getattr(self, name)
            if type(count) is not int or count < least:
                raise InputError(f"effort.{name}: is {count!r}; allowed is a whole number >= {least}{why}")
        cap = self.utilisation_cap
        if isinstance(cap, bool) or not isinstance(cap, int | float) or not 0 < cap <= 1:
            raise InputError(f"effort.utilisation_cap: is {cap!r}; allowed is 0 < cap <= 1")

    def enough_for(self, workloads: Sequence[Workload]) -> Effort:
        """This effort, or the least longer one that determines every percentile of the workloads' SLAs."""
        highest = max((sla.percentile for w in workloads for sla in w.slas), default=0.0)
        needed = math.ceil(TAIL_QUERIES / (1 - highest / 100) / (1 - WARMUP_SHARE)) + 2
        return replace(self, queries=max(self.queries, needed), final_queries=max(self.final_queries, needed))


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
