"""The gradient search against the exhaustive one, for any thread count, and when it is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from hercules_fast import _core
from hercules_fast.errors import InputError

CORES = 12
BATCHES = (16, 32, 64, 128, 256)
ITEMS = np.array([1, 16, 32, 64, 128, 256])
BUSY = np.array([1, 4, 12])
ANSWER = ("best", "qps", "qps_lo", "qps_hi", "achieved_s", "utilisation", "executions_per_query", "path", "probes")


POINTS = [(d, m, c) for d in BATCHES for m in range(1, CORES + 1) for c in range(1, CORES // m + 1)]
LINES = [[POINTS.index((d, CORES, 1)) for d in reversed(BATCHES)]] + [
    [POINTS.index((d, m, 1)) for m in range(1, CORES)] for d in reversed(BATCHES)
]


def cpu_problem(seed: int, sla_s: float, *, compute_s: float = 4e-5, memory_s: float = 1e-5) -> _core.SearchProblem:
    """m copies of o cores: compute spreads over the cores with losses, memory bandwidth is shared."""
    o = np.arange(1, CORES + 1)[:, None, None, None]
    items, busy = ITEMS[None, None, :, None], BUSY[None, None, None, :]
    seconds = 2e-4 + 2e-5 * o + compute_s * items * (0.15 + 0.85 / o) + memory_s * items * np.maximum(1 / o, busy / 6)
    grid = _core.ServiceGrid(ITEMS, BUSY, seconds, np.zeros(seconds.shape[:3]), ["sub_batch"], [0])
    pmf = 1.0 / (20.0 + np.arange(256.0)) ** 2
    traffic = _core.Traffic("poisson", [], pmf / pmf.sum(), seed)
    candidates = np.array([[c - 1, d, 1, 0, -1, 0, m] for d, m, c in POINTS])
    coords = np.array([[0, d, m, c] for d, m, c in POINTS])
    starts = np.array([POINTS.index(p) for p in ((64, CORES, 1), (256, 1, CORES))])
    return _core.SearchProblem(grid, traffic, candidates, coords, starts, [(0.95, sla_s)], LINES)


PROBLEMS = [cpu_problem(1, 0.004), cpu_problem(2, 0.02), cpu_problem(3, 0.02, memory_s=4e-5), cpu_problem(4, 0.2)]
EFFORT = {"queries": 2048, "final_queries": 2048, "replications": 3}


def test_gradient_finds_what_exhaustive_finds() -> None:
    gradient, interrupted = _core.search(PROBLEMS, **EFFORT)
    exhaustive, _ = _core.search(PROBLEMS, method="exhaustive-unpruned", **EFFORT)
    assert not interrupted
    for problem, fast, slow in zip(PROBLEMS, gradient, exhaustive, strict=True):
        assert fast["search_qps"] >= 0.99 * slow["search_qps"]
        assert fast["evaluations"] <= 0.25 * problem.candidates
        assert fast["qps_lo"] <= fast["qps"] <= fast["qps_hi"]
        assert fast["path"][0][2] in ("bound", "start")
    work = [sum(found["simulated_queries"] for found in results) for results in (gradient, exhaustive)]
    assert work[0] < work[1] / 3, "the final judgement, the same for both, is in it"


METHODS = ("gradient", "exhaustive", "exhaustive-unpruned", "hill", "deeprecsys", "random")


@pytest.mark.parametrize("method", METHODS)
def test_same_bytes_for_any_number_of_threads(method: str) -> None:
    effort = EFFORT | {"method": method, "evaluations": 40}
    one = _core.search(PROBLEMS, threads=1, **effort)[0]
    for threads in (2, 3):
        for a, b in zip(one, _core.search(PROBLEMS, threads=threads, **effort)[0], strict=True):
            assert a.keys() == b.keys()
            for key in a.keys() & set(ANSWER):
                assert np.asarray(a[key], dtype=object).tolist() == np.asarray(b[key], dtype=object).tolist(), key


def test_no_method_spends_more_evaluations_than_it_may_or_beats_the_landscape() -> None:
    for problem in PROBLEMS:
        rates = _core.candidate_rates(problem, queries=EFFORT["queries"])
        for method in METHODS:
            for allowed in (1, 10, 60):
                (found,), _ = _core.search([problem], method=method, evaluations=allowed, **EFFORT)
                assert found["evaluations"] <= allowed
                if found["best"] >= 0:
                    assert found["search_qps"] <= rates.max() * (1 + 0.0025)
                    assert found["search_qps"] == pytest.approx(rates[found["best"]], rel=0.011)


def test_the_landscape_is_what_exhaustive_search_sees() -> None:
    for problem in PROBLEMS:
        rates = _core.candidate_rates(problem, queries=EFFORT["queries"])
        assert rates.shape == (problem.candidates,)
        (found,), _ = _core.search([problem], method="exhaustive-unpruned", **EFFORT)
        assert (found["best"], found["search_qps"]) == (rates.argmax(), rates.max())
        some = [7, 3, 7]
        assert _core.candidate_rates(problem, some, queries=EFFORT["queries"]).tolist() == rates[some].tolist()
        (pruned,), _ = _core.search([problem], method="exhaustive", **EFFORT)
        assert pruned["search_qps"] == rates.max()
        assert pruned["evaluations"] < problem.candidates


def test_deeprecsys_walks_its_lines_and_stops_at_the_first_worse() -> None:
    problem = PROBLEMS[0]
    rates = _core.candidate_rates(problem, queries=EFFORT["queries"])
    (found,), _ = _core.search([problem], method="deeprecsys", **EFFORT)
    walked = [candidate for candidate, _, _ in found["path"]]
    first, *rest = LINES
    expected = walk(rates, first)
    best = max(expected, key=lambda c: rates[c])
    expected += walk(rates, rest[first.index(best)])
    assert walked == expected
    assert found["best"] == max(expected, key=lambda c: rates[c])


def walk(rates: np.ndarray, line: list[int]) -> list[int]:
    seen: list[int] = []
    for candidate in line:
        seen.append(candidate)
        if len(seen) > 1 and rates[candidate] < rates[seen[:-1]].max():
            break
    return seen


def test_hill_stops_where_no_neighbour_along_an_axis_is_better() -> None:
    for problem in PROBLEMS:
        (found,), _ = _core.search([problem], method="hill", **EFFORT)
        qps = [step[1] for step in found["path"]]
        assert qps == sorted(qps)
        assert {step[2] for step in found["path"]} <= {"start", "axis"}


def test_an_impossible_sla_names_the_best_empty_system() -> None:
    (found,), _ = _core.search([cpu_problem(1, 1e-4)], **EFFORT)
    assert found["best"] == -1
    assert found["unloaded_s"][0] > 1e-4
    assert found["probes"] == 0


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    _core.search(PROBLEMS, progress=lambda done, total: told.append((done, total)), **EFFORT)
    assert told[-1] == (len(PROBLEMS), len(PROBLEMS))


def test_each_result_is_told_when_it_is_found() -> None:
    told: dict[int, dict] = {}
    counts: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        counts.append((done, len(told)))

    results, _ = _core.search(PROBLEMS, finished=told.__setitem__, progress=progress, **EFFORT)
    assert sorted(told) == list(range(len(PROBLEMS)))
    for index, result in enumerate(results):
        assert {key: np.asarray(told[index][key], dtype=object).tolist() for key in ANSWER} == {
            key: np.asarray(result[key], dtype=object).tolist() for key in ANSWER
        }
    assert counts[-1] == (len(PROBLEMS), len(PROBLEMS))


def test_an_error_of_the_listener_ends_the_search() -> None:
    def full(index: int, result: dict) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        _core.search(PROBLEMS, finished=full, **EFFORT)


def test_a_deadline_leaves_the_rest_unfinished() -> None:
    problems = PROBLEMS * 50
    results, interrupted = _core.search(problems, method="exhaustive-unpruned", deadline_s=0.3, **EFFORT)
    assert not interrupted
    assert sum(result is None for result in results) > len(problems) // 2
    assert _core.search(PROBLEMS[:1], deadline_s=float("inf"), **EFFORT)[0][0] is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deadline_s": -1.0}, "deadline_s: is -1; allowed is >= 0 seconds"),
        ({"deadline_s": float("nan")}, "deadline_s: is NaN; allowed is >= 0 seconds"),
        ({"method": "luck"}, 'method: is "luck"'),
        ({"queries": 100}, r"slas\[0\].percentile: is 0.95: 90 queries after warm-up are too few; at least 200"),
        ({"final_queries": 0}, "queries: is 0"),
        ({"replications": 0}, "replications: is 0"),
        ({"cap": 1.0}, "cap: is 1"),
        ({"evaluations": 0}, "evaluations: is 0"),
        ({"tolerance": 0.0}, "tolerance: is 0"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _core.search(PROBLEMS[:1], **(EFFORT | change))


INTERRUPTED = """
    import time
    from hercules_fast import _core
    from tests.differential.test_search import cpu_problem
    problems = [cpu_problem(1, 0.02), *[cpu_problem(s, 0.02) for s in range(2, 300)]]
    print("ready", flush=True)
    results, interrupted = _core.search(problems, method="exhaustive-unpruned", threads=2,
                                        queries=4096, final_queries=4096, replications=2,
                                        progress=lambda done, total: print("done", done, flush=True))
    print("end", interrupted, sum(r is not None for r in results), sum(r is None for r in results), flush=True)
"""


def test_ctrl_c_returns_what_is_finished() -> None:
    # A runner may have started us with SIGINT ignored, which children inherit.
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program = [sys.executable, "-c", heeded + textwrap.dedent(INTERRUPTED)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready")
        assert child.stdout.readline().startswith("done")
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        last = child.stdout.read().strip().splitlines()[-1].split()
        elapsed_s = time.monotonic() - began
    assert child.returncode == 0
    assert last[:2] == ["end", "True"]
    assert int(last[2]) >= 1 and int(last[3]) >= 1
    assert elapsed_s < 1.0, f"{elapsed_s:.2f} s from Ctrl-C to the end of the process"
