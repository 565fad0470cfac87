"""The simulator against exact results of queueing theory (``queue-oracle.json``).

Statistics come from independent replications: a figure must lie within four standard errors of the oracle's, and the
standard error must be small enough for that to mean something.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hercules_fast import _core

CASES = {c["name"]: c for c in json.loads((Path(__file__).parent / "queue-oracle.json").read_text())["cases"]}
NOT_COVERED = {
    "mm4_12_r110": "no limit on the queries in the system",
    "erlangB_mln8_8": "no limit on the queries in the system",
    "mmpp2_m1": "no Markov-modulated arrivals",
    "diurnal_m4": "no time-varying arrivals",
    "pipeline_bas_k2": "no bounded buffers",
    "interf_m8": "no interference that changes during a service",
    "trace_offload": "no routing by size to a second chain",
    "trace_sd_pipeline": "no bounded buffers",
}
REPLICATIONS = 16
PERCENTILES = (0.5, 0.9, 0.95, 0.99)
UNLIMITED = 2**32 - 1


def law(params: dict[str, Any]) -> tuple[str, list[float], float]:
    """(name, parameters, mean) of a law of the oracle."""
    match params["dist"]:
        case "exponential":
            return "exponential", [], params["mean"] if "mean" in params else 1.0 / params["rate"]
        case "deterministic":
            return "deterministic", [], params["value"]
        case "erlang":
            return "erlang", [params["k"]], params["mean"]
        case "hyperexponential":
            mean = sum(p / r for p, r in zip(params["p"], params["rates"], strict=True))
            return "hyperexponential", [*params["p"], *params["rates"]], mean
        case "lognormal":
            return "lognormal", [params["sigma"]], params["mean"]
        case "poisson_count":
            return "deeprecsys-gap", [params["mean_ticks"]], params["mean_ticks"] * params["tick"]
        case "affine":
            return "affine", [params["base"], params["per_item"]], 1.0
    raise AssertionError(params)


def station(unit: str, servers: int, service: dict[str, Any], queries: int = UNLIMITED, wait_s: float = 0.0) -> tuple:
    name, params, mean = law(service)
    return (unit, servers, name, params, mean, queries, wait_s)


def chain(case: dict[str, Any]) -> tuple[list[tuple], list[float]]:
    """Stations and the law of sizes (in sub-batches of one item)."""
    p = case["params"]
    match case["model"]:
        case "ggc":
            return [station("query", p["servers"], p["service"])], [1.0]
        case "tandem":
            return [station("query", s["servers"], s["service"]) for s in p["stages"]], [1.0]
        case "split":
            if "sub_batches_pmf" in p:
                pmf = p["sub_batches_pmf"]
            else:
                stop = p["sub_batches"]["p"]
                pmf = stop * (1 - stop) ** np.arange(120)
                pmf = (pmf / pmf.sum()).tolist()
            return [station("sub_batch", p["servers"], p["service"])], pmf
        case "fusion":
            return [station("fused", p["servers"], p["service"], p["max_batch"], p["max_wait"])], [1.0]
    raise AssertionError(case["model"])


def figures(case: dict[str, Any], run: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Figure -> (simulated, exact), for all that the oracle gives."""
    out = {}
    for p, x in zip(PERCENTILES, run["percentiles_s"], strict=True):
        out[f"sojourn p{100 * p:g}"] = (x, (case["sojourn_q"] or {}).get(str(p)))
    out["mean sojourn"] = (run["mean_latency_s"], case["mean_sojourn"])
    out["mean wait"] = (run["mean_wait_s"].sum(), case["mean_wait"])
    if len(run["mean_wait_s"]) == 1:
        for p, x in zip(PERCENTILES, run["wait_percentiles_s"][0], strict=True):
            out[f"wait p{100 * p:g}"] = (x, (case["wait_q"] or {}).get(str(p)))
    if "mean_batch" in case:
        out["mean batch"] = (run["items_per_execution"][0], case["mean_batch"])
        out["utilisation"] = (run["utilisation"][0], case["utilisation"])
    return {name: pair for name, pair in out.items() if pair[1] is not None}


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["model"] != "trace"])
def test_theory(name: str) -> None:
    if name in NOT_COVERED:
        pytest.skip(NOT_COVERED[name])
    case = CASES[name]
    stations, pmf = chain(case)
    arrivals, params, gap = law(case["params"]["arrival"])
    queries = 120_000
    seen: dict[str, list[float]] = {}
    exact = {}
    for replication in range(REPLICATIONS):
        run = _core.simulate_stations(
            stations, arrivals, params, 1.0 / gap, pmf, 1, queries, queries // 5, list(PERCENTILES), 2024, replication
        )
        for figure, (x, truth) in figures(case, run).items():
            seen.setdefault(figure, []).append(x)
            exact[figure] = truth
    assert len(seen) >= 5
    for figure, values in seen.items():
        mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(REPLICATIONS)
        # 0.02 %: quantiles of deterministic parts have hardly any spread but the bias of a finite run.
        slack = 4.0 * error + 2e-4 * abs(exact[figure])
        assert abs(mean - exact[figure]) <= slack, f"{figure}: {mean:.5g} +- {error:.2g}, exact {exact[figure]:.5g}"
        assert error <= 0.1 * abs(exact[figure]) + 1e-2, f"{figure}: too noisy to test anything"


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["model"] == "trace"])
def test_traces(name: str) -> None:
    if name in NOT_COVERED:
        pytest.skip(NOT_COVERED[name])
    trace, expected = CASES[name]["trace"], CASES[name]["expect"]["latency"]
    arrival_s, sizes = np.array(trace["arrivals"], dtype=float), np.array(trace["sizes"])
    part = trace.get("cpu") or trace["accel"]
    top = int(sizes.sum())
    seconds = np.array([part["base"] + part["per_item"], part["base"] + part["per_item"] * top]).reshape(1, 1, 2, 1)
    unit = "sub_batch" if "cpu" in trace else "fused"
    grid = _core.ServiceGrid(np.array([1, top]), np.array([1]), seconds, np.zeros((1, 1, 2)), [unit], [0])
    if unit == "sub_batch":
        found = _core.simulate_trace(grid, np.array([0, part["batch"], 1, 0, part["threads"]]), arrival_s, sizes)
        assert found["latency_s"] == pytest.approx(expected, abs=1e-12)
        return
    # The oracle's device counts queries, so replay the gaps of the trace through the chain of laws. Sizes there are
    # drawn, not given: with every query of one size the rule shows as well; the Rust suite runs the trace as it is.
    gaps = np.diff(arrival_s, prepend=0.0)
    stations = [("fused", 1, "affine", [1.0, 0.05], 1.0, part["max_batch"], part["max_wait"])]
    pmf = [0.0] * 9 + [1.0]
    run = _core.simulate_stations(
        stations, "replay", gaps.tolist(), 1 / gaps.mean(), pmf, 1, len(gaps), 0, [], 0, keep_latencies=True
    )
    # By hand, ten items each: batches {0,1} at 2.0 (2.0 s), {2,3,4} at 4.0 (2.5 s), {5} at 6.5, {6} at 11, {7} at 32.
    by_hand = [4.0, 3.5, 3.5, 3.3, 3.1, 4.5, 3.5, 3.5]
    assert run["latencies_s"] == pytest.approx(by_hand, abs=1e-9)
