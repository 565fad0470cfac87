"""For which models are near-memory DIMMs worth their power? Ranks the CPU servers of `zoo10` by QPS per watt."""

from __future__ import annotations

import hercules_fast as hf

fleet = hf.fleet("zoo10")
servers = [s for s in fleet.servers if s.gpu is None and s.cpu.name.lower().startswith("xeon-gold")]
table = hf.profile(servers, fleet.workloads, effort=hf.Effort(queries=1024, final_queries=2048, replications=2))
for workload in table.workloads:
    ranking = table.ranking(workload)
    plain = next((row for row in ranking if row.server == "T2"), None)
    best = ranking[0]
    gain = best.qps_per_watt / plain.qps_per_watt if plain else float("inf")
    print(f"{workload:8} best {best.server:9} {best.qps_per_watt:6.2f} QPS/W, {gain:.2f}x plain DDR4")
