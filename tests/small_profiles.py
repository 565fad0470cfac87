"""A profile of a few pairs that takes a fraction of a second, for the tests of what happens around it."""

from __future__ import annotations

from typing import Any

import hercules_fast as hf

ZOO = hf.fleet("zoo10")
SERVERS = tuple(s for s in ZOO.servers if s.name in ("T1", "T2"))
WORKLOADS = tuple(w for w in ZOO.workloads if w.name in ("rmc1", "rmc2", "dien"))
PAIRS = [(s.name, w.name) for s in SERVERS for w in WORKLOADS]
"""One of them, rmc2 on T1, does not fit."""
TINY = hf.Effort(queries=256, polish_queries=256, final_queries=256, replications=2, precision=1.0)


def small_profile(**changes: Any) -> hf.ProfiledTable:
    """The table of all pairs, with what a test changes."""
    arguments = {"servers": SERVERS, "workloads": WORKLOADS, "effort": TINY, "seed": 5} | changes
    return hf.profile(arguments.pop("servers"), arguments.pop("workloads"), **arguments)


def small_search(server: str = "T1", workload: str = "rmc1", **changes: Any) -> hf.SearchResult:
    """The search of one pair of the zoo, with what a test changes."""
    servers, workloads = {s.name: s for s in ZOO.servers}, {w.name: w for w in ZOO.workloads}
    return hf.search(servers[server], workloads[workload], **({"effort": TINY, "seed": 5} | changes))
