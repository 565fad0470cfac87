"""The queue simulator against Numba, cimba, SimPy and Ciw.

    make bench-queue                       (some minutes)
    make bench-queue ARGS="-k 'M/M/16'"

Contenders take turns in one run, each on as many jobs as it can bear, each call with random numbers of its own; medians
of the CPU time per job are compared, percentiles included. Each answer is checked before it is timed, against the exact
one where there is one. The limit is the time to draw a job's random numbers and do nothing with them.

Four ways of Numba: ``plain`` is what one writes without a thought; ``heap`` and ``sorted`` follow one line with a
generator, logarithm and histogram made for speed: the rival of the target; ``lanes`` is our own design in Numba.

With benchmarks disabled only the answers are checked.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import queue_rivals
from queue_cases import EVENTS, RECURSION, Case, exact
from sls_timing import BUSY, interleaved_medians, quietest

from hercules_fast import _core

ROUNDS, SEEDS = 9, 1 << 20
MAX_LOAD_ERROR, MAX_LOAD_S = 0.003, 2.0
MEMORY_GROWTH = 4 << 20
NAMED = {"numba": ("numba heap", "numba sorted")}
MM16 = next(case for case in RECURSION if case.name == "M/M/16")


@dataclass(frozen=True)
class Row:
    case: Case
    job_s: dict[str, float]
    """Median CPU seconds per job of each contender."""
    job_events: dict[str, float]
    """Starts and ends of service per job, of those who have events."""
    others_cpus: float
    """CPUs that other processes took meanwhile."""

    def best(self, *kinds: str) -> float | None:
        return min((seconds for name, seconds in self.job_s.items() if name.startswith(kinds)), default=None)

    def __str__(self) -> str:
        busy = f"  (others took {self.others_cpus:.1f} CPUs)" if self.others_cpus >= BUSY else ""
        lines, own = [f"\n{self.case.name}{busy}"], self.job_s["ours"]
        for name, seconds in self.job_s.items():
            line = f"  {name:<14}{seconds * 1e9:>12.2f} ns a job"
            if self.job_events.get(name):
                line += f" {self.job_events[name] / seconds / 1e6:>9.3f} M stage events/s"
            else:
                line += f" {1e-6 / seconds:>9.3f} M jobs/s"
            lines.append(line + (f" {seconds / own:>10.2f} of ours" if name != "ours" else ""))
        if draws := self.best("draws"):
            lines.append(f"  limit: drawing its numbers, the fastest way here, takes {draws / own:.0%} of ours")
        for rival, wanted in self.case.wanted.items():
            if best := self.best(*NAMED.get(rival, (rival,))):
                below = "" if best >= wanted * own else "  BELOW"
                lines.append(f"  best of {rival} over ours: {best / own:.2f} (wanted {wanted:.0f}){below}")
        return "\n".join(lines)


@dataclass
class Account:
    """What was found; printed when all is done."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    kept = Account()
    yield kept
    if queue_rivals.MISSING:
        kept.notes.append(f"not here, so not compared: {', '.join(sorted(queue_rivals.MISSING))}")
    print(*kept.rows, *kept.notes, sep="\n")


@pytest.mark.parametrize("case", RECURSION + EVENTS, ids=lambda case: case.name)
def test_case(benchmark, account: Account, case: Case) -> None:
    own = queue_rivals.ours(case, 40_000_000 if case in RECURSION else 1_000_000)
    lower = queue_rivals.ours(case, 20_000_000, "avx2") if case in RECURSION else None
    contenders = [own, *([lower] if lower else []), *queue_rivals.rivals(case)]
    first = {contender.name: contender.call(1) for contender in contenders}
    for name, run in first.items():
        case.check(name, run.jobs, run.mean_s, run.p99_s)
    if not benchmark.disabled:

        def timed(contender: queue_rivals.Contender) -> Callable[[int], float]:
            def job_s(at: int) -> float:
                run = contender.call(at + 2)
                return run.cpu_s / run.jobs

            return job_s

        draws = queue_rivals.drawing(case) if case in RECURSION else []
        calls = {contender.name: timed(contender) for contender in (*contenders, *draws)}
        medians, others_cpus = quietest(lambda: interleaved_medians(calls, SEEDS, ROUNDS))
        events = {name: run.events / run.jobs for name, run in first.items() if case in EVENTS}
        account.rows.append(Row(case, medians, events, others_cpus))
        benchmark.extra_info.update(job_s=medians)
    benchmark.pedantic(lambda: contenders[0].call(1), rounds=1)


def test_two_threads(benchmark, account: Account) -> None:
    """The same bits, in wall time over that of one thread."""
    one, two = (queue_rivals.simulated(MM16, 1_000_000, 1, threads) for threads in (1, 2))
    assert pickle.dumps(one) == pickle.dumps(two)

    def elapsed(threads: int) -> Callable[[int], object]:
        return lambda at: queue_rivals.simulated(MM16, 200_000_000, at, threads)

    if not benchmark.disabled:
        medians, others_cpus = quietest(
            lambda: interleaved_medians({"one": elapsed(1), "two": elapsed(2)}, SEEDS, ROUNDS)
        )
        ratio = medians["one"] / medians["two"]
        account.notes.append(f"two threads over one: {ratio:.2f} (wanted 1.80), others took {others_cpus:.1f} CPUs")
    benchmark.pedantic(lambda: queue_rivals.simulated(MM16, 1_000_000, 1, 2), rounds=1)


def test_max_load(benchmark, account: Account) -> None:
    """The rate at which p99 is that of M/M/16 with 14.4 arrivals per mean service."""

    def search(at: int) -> float:
        found = _core.max_load_system(
            MM16.system,
            MM16.source,
            MM16.size_pmf,
            [(0.99, exact("mm16_r90")["p99_s"])],
            cap=0.95,
            precision=MAX_LOAD_ERROR,
            seed=at,
            threads=1,
            max_queries=10**9,
            loss=0.0,
        )
        return found["qps"]

    start = time.perf_counter()
    errors = [abs(search(at) / MM16.qps - 1) for at in range(1, 6)]
    seconds = (time.perf_counter() - start) / len(errors)
    assert max(errors) < 4 * MAX_LOAD_ERROR
    account.notes.append(
        f"max_load of M/M/16: within {max(errors):.2%} of {MM16.qps} in 5 searches (wanted {MAX_LOAD_ERROR:.1%}),"
        f" {seconds:.2f} s each (wanted {MAX_LOAD_S:.0f})"
    )
    benchmark.pedantic(lambda: search(1), rounds=1)


GROWTH = """
from resource import RUSAGE_SELF, getrusage
import sys
sys.path.insert(0, sys.argv[1])
from bench_queue import MM16, queue_rivals
peaks = []
for queries in (10**6, 10**8):
    queue_rivals.simulated(MM16, queries, 1, 1)
    peaks.append(getrusage(RUSAGE_SELF).ru_maxrss * 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_is_constant(benchmark, account: Account) -> None:
    """Peak memory of 1e8 queries over that of 1e6, in a process of its own."""
    command = [sys.executable, "-c", GROWTH, str(Path(__file__).parent)]
    run = lambda: int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: E731
    growth = benchmark.pedantic(run, rounds=1)
    assert growth <= MEMORY_GROWTH
    account.notes.append(f"peak memory of 1e8 queries over 1e6: {growth / 2**20:.1f} MiB more")
