"""Small plans for the tests of views and command line: three server types, two workloads, two days."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from hercules_fast.provisioning import Plan, Policy, provision
from hercules_fast.tables import EfficiencyTable
from hercules_fast.traffic import LoadTrace

SERVERS = ("old", "new", "gpu")
WORKLOADS = ("rank", "=feed")
STOCK = {"old": 40, "new": 12, "gpu": 3}


def table() -> EfficiencyTable:
    """``gpu`` cannot serve the second workload; QPS per watt differ in every row."""
    qps = [[100.0, 50.0], [220.0, 130.0], [900.0, 0.0]]
    power_w = [[150.0, 140.0], [210.0, 200.0], [500.0, 0.0]]
    made = EfficiencyTable.from_matrices(SERVERS, WORKLOADS, qps, power_w)
    rows = [replace(r, sla=((95.0, 25.0),), reason=r.reason and "does not fit: needs 90.0 GB") for r in made.rows]
    return replace(made, rows=tuple(rows))


def load(scale: float = 1.0, hours: int = 48) -> LoadTrace:
    """A triangle per day that peaks at noon, of ``scale`` x 3,000 and 900 q/s."""
    clock = np.arange(hours) % 24
    shape = 0.25 + 0.75 * (1 - np.abs(clock - 12) / 12)
    return LoadTrace(
        name="two days",
        workloads=WORKLOADS,
        times=np.datetime64("2026-01-05", "s") + np.arange(hours) * np.timedelta64(3600, "s"),
        interval_s=3600.0,
        qps=scale * shape[:, None] * np.array([[3000.0, 900.0]]),
    )


def plan(scale: float = 1.0, hours: int = 48) -> Plan:
    return provision(table(), load(scale, hours), STOCK, Policy(headroom=0.1))


def run(scale: float = 1.0, **changes: Any) -> Any:
    """What a view reads of a PlanRun, without profiling."""
    values = {
        "fleet": SimpleNamespace(name="toy", label="not the paper's"),
        "table": table(),
        "load": load(scale),
        "plan": plan(scale),
        "policy": Policy(headroom=0.1),
        "seed": 7,
        "largest_scale": 1.25,
        "scaled": False,
        "unserved": (),
        "inputs": {"load": "made up for this test", "load repairs": "48 rows read, 2 missing steps carried forward"},
    }
    return SimpleNamespace(**values | changes)
