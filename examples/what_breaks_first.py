"""Load grows by 10 % steps: at which step is the stock short, and which workload first?"""

from __future__ import annotations

import dataclasses

import hercules_fast as hf

table = hf.EfficiencyTable.from_matrices(
    ["cpu", "gpu"],
    ["feed", "ads"],
    qps=[[500.0, 90.0], [1500.0, 700.0]],
    power_w=[[180.0, 190.0], [420.0, 430.0]],
)
stock = {"cpu": 60, "gpu": 12}
today = hf.LoadTrace.from_arrays(
    "day",
    ["feed", "ads"],
    start="2026-01-05T00:00",
    interval_s=3600,
    qps=[[8000 + 500 * abs(12 - h), 3000 + 100 * abs(12 - h)] for h in range(24)],
)
for step in range(10):
    grown = dataclasses.replace(today, qps=today.qps * (1 + 0.1 * step))
    plan = hf.provision(table, grown, stock, hf.Policy(headroom=0.05))
    print(f"+{10 * step:3} %: {int(plan.capacity.max()):3} servers, {plan.power_w.max() / 1e3:5.1f} kW at peak")
    if not plan.is_covered:
        print("\n".join(plan.shortfall()))
        break
