"""What a change of the workload mix does to a fleet: the same number of queries, asked of other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.provisioning.inverse import largest_growth
from hercules_fast.provisioning.plan import Plan
from hercules_fast.provisioning.policy import Policy
from hercules_fast.provisioning.problem import FloatArray
from hercules_fast.provisioning.timeline import EfficiencySource, provision
from hercules_fast.traffic import LoadTrace

__all__ = ["Evolution", "workload_evolution"]

# The steps of an evolution are not moments; a plan wants times for them.
_START, _STEP_S = np.datetime64("2000-01-01T00:00:00", "s"), 86_400


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evolution:
    """The fleet at peak while the mix goes from one set of workloads to another."""

    share: FloatArray
    """[K] part of the queries that the new workloads get, 0 to 1."""
    plan: Plan
    """One interval per step; ``capacity`` and ``power_w`` are those at peak."""

    @property
    def capacity_growth(self) -> float:
        """Servers on at the end over those at the beginning."""
        return float(self.plan.capacity[-1] / self.plan.capacity[0])

    @property
    def power_growth(self) -> float:
        """Provisioned power at the end over that at the beginning."""
        return float(self.plan.power_w[-1] / self.plan.power_w[0])

    def explain(self) -> str:
        """One line of text."""
        return (
            f"from {int(self.plan.capacity[0])} to {int(self.plan.capacity[-1])} servers ({self.capacity_growth:.2f}x) "
            f"and from {self.plan.power_w[0] / 1000:.2f} to {self.plan.power_w[-1] / 1000:.2f} kW "
            f"({self.power_growth:.2f}x) at peak"
        )


def workload_evolution(
    table: EfficiencySource,
    stock: Mapping[str, int],
    before: Sequence[str],
    after: Sequence[str],
    *,
    steps: int = 11,
    share: float = 0.7,
) -> Evolution:
    """Plan the peak of ``steps`` days between one on which only ``before`` are asked and one of ``after`` only.

    The paper's study names a linear change of the mix on a cluster of CPUs; the rest is this library's: the number of
    queries stays the same, each set shares its part in equal parts, and the queries are as many as make the dearest
    step ask for ``share`` of the largest load that ``stock`` (server type -> machines) serves. All of ``before`` and
    ``after`` follow one daily curve, so the peak tells all.

    Raises :class:`InputError` for steps, share, a workload on both sides, or one that no server in stock can run;
    :class:`UnknownNameError` for names.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 2 <= steps <= 10_000:
        raise InputError(f"steps: {steps!r}; allowed: whole numbers from 2 to 10000")
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(f"share: {share!r}; allowed: above 0, up to 1")
    workloads = (*before, *after)
    for name in workloads:
        if name not in table.workloads:
            raise UnknownNameError.of("workload of the evolution", name, table.workloads)
    if not before or not after or len(set(workloads)) != len(workloads):
        raise InputError(f"before, after: {list(before)}, {list(after)}; allowed: different names, at least one each")
    new = np.linspace(0.0, 1.0, steps)
    mix = np.hstack(
        [
            np.repeat((1.0 - new)[:, None] / len(before), len(before), axis=1),
            np.repeat(new[:, None] / len(after), len(after), axis=1),
        ]
    )
    load = LoadTrace(
        name=f"{'+'.join(before)} to {'+'.join(after)}",
        workloads=workloads,
        times=_START + _STEP_S * np.arange(steps),
        interval_s=float(_STEP_S),
        qps=mix,
    )
    policy = Policy(headroom=0.0, order_samples=0)
    fit = largest_growth(provision(table, load, stock, policy).problem()).factor
    if fit <= 0.0:
        raise InputError(f"stock: {dict(stock)} cannot run every one of {', '.join(workloads)}; allowed: one that can")
    return Evolution(share=new, plan=provision(table, replace(load, qps=mix * (fit * share)), stock, policy))
