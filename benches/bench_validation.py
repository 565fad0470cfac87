"""What each effect of the service-time model is worth: QPS of the fleet `envelope` with it and without it."""

from __future__ import annotations

import pytest

import hercules_fast as hf
from hercules_fast.serving import ASSUMPTIONS, SWITCHES

QUICK = hf.Effort(queries=2048, final_queries=4096, replications=2)
PARAMETERS = {
    "operator_overhead": "12 us per operator on a CPU, 21 us on a GPU (derived)",
    "operator_parallelism": "a GEMM on p cores gains p / (1 + 0.05 (p - 1))",
    "memory_bandwidth": "6 GB/s per core (derived); 0.70-0.75 of peak in all",
    "gemm_batch": "half at 8 items",
    "gemm_width": "half at width 64; at least 0.15",
    "simd_clock": "1.6 and 1.9 GHz",
    "weight_streaming": "10 GB/s per core",
    "pollution": "chi = 0.2",
    "near_memory": "rank rates (simulated), 2 ns issue",
    "gpu_sharing": "overlap of transfer and work",
    "gpu_input": "10 GB/s",
}


@pytest.fixture(scope="module")
def full() -> hf.EfficiencyTable:
    fleet = hf.fleet("envelope")
    return hf.profile(fleet.servers, fleet.workloads, effort=QUICK)


@pytest.mark.parametrize("effect", SWITCHES)
def test_worth(benchmark, full, effect) -> None:
    fleet = hf.fleet("envelope")
    terms = hf.Terms().without(effect)
    off = benchmark.pedantic(
        hf.profile, args=(fleet.servers, fleet.workloads), kwargs={"effort": QUICK, "terms": terms}, rounds=1
    )
    changes = [
        (b.qps / a.qps, f"{a.workload} on {a.server}") for a, b in zip(full.rows, off.rows, strict=True) if a.qps > 0
    ]
    ratio, where = max(changes, key=lambda c: max(c[0], 1 / c[0]))
    assert ratio > 0
    print(f"\n| {effect} | {ASSUMPTIONS[effect]} | {PARAMETERS[effect]} | {ratio:.2f}x, {where} |")
