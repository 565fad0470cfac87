"""What the committed lattice loses: its best configuration against that of a lattice several times as large.

``python -m pytest benches/bench_space.py --benchmark-enable -s`` (minutes). Both lattices are searched exhaustively, on
the same run of queries, for every pair of the fleet ``zoo10`` with nine workloads.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.profiling.lattice import ANY, EACH, UNBOUNDED, Space, space
from hercules_fast.serving import Terms, fits
from hercules_fast.serving.simulation import core_grid, core_traffic
from hercules_fast.tables import ServiceTable

LEAST = 0.995
"""Share of the larger lattice's best QPS that must be kept on every pair."""
SHARES = (3, 6, 9, 12, 15, 18, 21, 24)
COPIES = (1, 2, 3, 4)
FUSE = (1, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
FINE_BATCHES = (
    *(12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128),
    *(160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024),
)
FINE = {
    "cpu": ({"operator_cores": ANY, "threads": EACH, "batch": FINE_BATCHES},),
    "cpu-sd": (
        {
            "sparse_cores": ANY,
            "dense_cores": ANY,
            "sparse_threads": EACH,
            "dense_share": (24,),
            "batch": (16, 24, 32, 48, 64, 80, 96, 112, 128, 192, 256, 384, 512, 768, 1024),
            "buffer": (UNBOUNDED,),
        },
    ),
    "gpu": (
        {
            "instances": COPIES,
            "fuse_items": (*FUSE, 128, 384, 768, 1280, 1792, 2560, 3584, 5120, 7168),
            "max_wait_us": (0, 250, 500, 1000, 1500, 2000, 3000, 5000, 8000),
        },
    ),
    "gpu-host-pooling": (
        {
            "sparse_cores": ANY,
            "sparse_threads": SHARES,
            "batch": (32, 64, 128, 192, 256, 512, 1024),
            "instances": COPIES,
            "fuse_items": FUSE,
        },
    ),
    "gpu-hot-rows": (
        {
            "hot_share_ppm": ANY,
            "sparse_cores": ANY,
            "sparse_threads": SHARES,
            "batch": (32, 64, 192, 512, 1024),
            "instances": COPIES,
            "fuse_items": FUSE,
        },
    ),
    "cpu-gpu-offload": (
        {
            "operator_cores": ANY,
            "threads": (18, 24),
            "batch": (32, 64, 128, 256, 512, 1024),
            "offload_items": (*range(32, 256, 8), *range(256, 1024, 64)),
            "instances": COPIES,
            "fuse_items": (1, 1024, 2048, 4096, 6144, 8192),
        },
    ),
}


def tables() -> dict[tuple[str, str], tuple[hf.Workload, ServiceTable]]:
    fleet = hf.fleet("zoo10")
    workloads = (*fleet.workloads, hf.traffic.workload("ncf"))
    return {
        (server.name, workload.name): (workload, hf.service_table(server, workload, Terms()))
        for server in fleet.servers
        for workload in workloads
        if fits(server, workload.model).anywhere
    }


def problem(workload: hf.Workload, table: ServiceTable, lattice: Space) -> _core.SearchProblem:
    slas = [(sla.percentile / 100, sla.latency_ms / 1e3) for sla in workload.slas]
    traffic = core_traffic(workload.sizes, workload.arrivals, 0)
    return _core.SearchProblem(core_grid(table), traffic, lattice.candidates, lattice.coords, lattice.starts, slas)


def best(found: dict[tuple[str, str], tuple[hf.Workload, ServiceTable]], kinds: dict | None) -> tuple[list, int]:
    """(QPS, configuration) of each pair, and all points."""
    spaces = {pair: space(table, kinds) for pair, (_, table) in found.items()}
    problems = [problem(*found[pair], lattice) for pair, lattice in spaces.items()]
    results, _ = _core.search(problems, method="exhaustive", final_queries=2048, replications=2)
    ends = []
    for (pair, lattice), result in zip(spaces.items(), results, strict=True):
        config = lattice.config(found[pair][1], result["best"]) if result["best"] >= 0 else None
        ends.append((result.get("search_qps", 0.0), config))
    return ends, sum(len(lattice.candidates) for lattice in spaces.values())


@pytest.mark.timeout(1800)
def test_what_the_lattice_loses(benchmark, monkeypatch) -> None:
    pairs = tables()
    committed, points = benchmark.pedantic(best, args=(pairs, None), rounds=1)
    service = sys.modules["hercules_fast.serving.service"]
    monkeypatch.setattr(service, "operator_cores", lambda cores: tuple(range(1, cores + 1)))
    monkeypatch.setattr(service, "PIPELINE_CORES", tuple((s, d) for s in (1, 2, 3) for d in (1, 2, 3, 4, 6)))
    finer, more_points = best(tables(), FINE)
    assert len(finer) == len(committed)
    kept = np.array([a[0] / b[0] if b[0] > 0 else 1.0 for a, b in zip(committed, finer, strict=True)])
    print(f"\n{points} points on {len(pairs)} pairs against {more_points}")
    print(
        f"worst {1 - kept.min():.2%}, mean {1 - kept.mean():.3%}, more than 0.2 % on {int((kept < 0.998).sum())} pairs"
    )
    rows = sorted(zip(kept, pairs, committed, finer, strict=True), key=lambda row: row[0])
    for share, (server, workload), (_, ours), (_, other) in rows[:6]:
        print(f"  {1 - share:6.2%} {workload} on {server}: {ours and ours.describe()} | {other and other.describe()}")
    assert kept.min() >= LEAST


def test_time_outside_the_core(benchmark) -> None:
    """Milliseconds of Python for each pair: service table and lattice, the memories' simulations being done."""
    pairs = tables()

    def build() -> float:
        began = time.process_time()
        for _, table in tables().values():
            space(table)
        return (time.process_time() - began) / len(pairs)

    each = min(benchmark.pedantic(build, rounds=1) if k == 0 else build() for k in range(3))
    print(f"\n{each * 1e3:.2f} ms of a core for each of {len(pairs)} pairs")
    assert each < 0.005
