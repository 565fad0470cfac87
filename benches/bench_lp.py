"""Provisioning's linear programs against HiGHS, GLOP, SciPy, CVXPY and PuLP.

    make bench-lp                                     (minutes)
    make bench-lp ARGS="-k '300x1000 and cold'"
    make bench-lp ARGS="-m long"                      (1000 x 3000 dense beside its rivals: minutes)

Instances come from ``lp_instances``: H types x M workloads, dense or with a tenth of the pairs eligible, the peak at
0.72 to 0.75 of what the stock can carry. Contenders take turns in one run on one thread; medians of CPU time are
compared, from arrays to machines; ours with its checks of the input and its certificate, the rivals without the time in
which their columns were picked. A rival that takes ``ONCE_S`` or more runs once; one that is stopped after ``LIMIT_S``
is said to take at least that long. Every answer is checked in the same run: power within 1e-7 of ours, certificate
within 1e-9.

With benchmarks disabled only the answers are checked.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lp_rivals
import numpy as np
import pytest
from lp_instances import INTERVALS_A_DAY, Instance, instance, perturbed
from sls_timing import BUSY, interleaved_medians, quietest

from hercules_fast import provisioning

ROUNDS, MANY_ROUNDS, ATTEMPT_S, ONCE_S, LIMIT_S = 7, 51, 1.0, 3.0, 1200.0
POWER_TOL, GAP_TOL = 1e-7, 1e-9
WARM_STEPS = 32
DAY_S, EXPONENT, INPUTS, THREADS = 3.0, 1.1, 2.0, 1.7
EXPONENT_SIZES = ((100, 100), (200, 300), (300, 1000), (600, 2000), (1000, 3000))
WHOLE_OVER_LINEAR, SEARCH_OVER_WHOLE = 2.0, 20.0


@dataclass(frozen=True)
class Case:
    n_types: int
    n_workloads: int
    eligible: float = 1.0
    cold: float = 0.0
    """How many times as long as ours the better of HiGHS and GLOP should take at least."""
    warm: float | None = None
    """The same of HiGHS warm; None where nothing is asked for."""
    rivals: tuple[str, ...] = ("HiGHS", "GLOP")

    def __str__(self) -> str:
        return f"{self.n_types}x{self.n_workloads}" + ("" if self.eligible == 1.0 else f"-{self.eligible:.0%}")

    def made(self, intervals: int = 1) -> Instance:
        return instance(self.n_types, self.n_workloads, self.eligible, intervals)


ALL = tuple(lp_rivals.RIVALS)
CASES = [
    Case(10, 6, cold=10, rivals=ALL),
    Case(100, 100, cold=12, warm=50, rivals=ALL),
    Case(300, 1000, cold=50, warm=60),
    Case(300, 1000, 0.1, cold=8, warm=10, rivals=ALL),
    Case(1000, 3000, 0.1, cold=25),
]
LARGEST = Case(1000, 3000, cold=200)
POOLED = [Case(300, 1000, cold=10), Case(600, 2000, cold=10)]
WHOLE = [
    (Case(10, 6), 0.002),
    (Case(100, 100), 0.0025),
    (Case(300, 1000), 0.009),
]
"""Whole machines over the linear bound, at most."""
FINER = 5
"""The same fleets with so many times the machines and the load: how much of a gap is that machines are whole."""


@dataclass
class Table:
    """What was found on one row of the account; printed when all is done."""

    title: str
    own_s: float
    others_s: dict[str, float] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    build_s: dict[str, float] = field(default_factory=dict)
    wanted: tuple[tuple[str, ...], float] | None = None
    """The contenders of the target, and how many times as long as ours the better of them should take."""
    others_cpus: float = 0.0
    """CPUs that other processes took meanwhile."""
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        busy = f"  (others took {self.others_cpus:.1f} CPUs)" if self.others_cpus >= BUSY else ""
        lines = [f"\n{self.title}{busy}", f"  {'ours':<12}{self.own_s * 1e3:>14.3f} ms"]
        for name, seconds in self.others_s.items():
            over = "at least " if name in self.stopped else ""
            line = f"  {name:<12}{seconds * 1e3:>14.3f} ms {over}{seconds / self.own_s:>10.1f} of ours"
            if name in self.build_s:
                line += f"   ({self.build_s[name] * 1e3:.3f} ms to build)"
            lines.append(line)
        if self.wanted:
            names, ratio = self.wanted
            seconds, best = min((self.others_s[name], name) for name in names if name in self.others_s)
            below = "" if seconds >= ratio * self.own_s else "  MISSED"
            lines.append(f"  {best} over ours: {seconds / self.own_s:.1f} (wanted {ratio:.0f}){below}")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


@dataclass
class Account:
    rows: list[object] = field(default_factory=list)

    def note(self, what: str, found: float, wanted: float, most: bool, unit: str = "", **more: str) -> None:
        """A line of a figure and its target; ``most``: it should be at most that, else at least."""
        good = found <= wanted if most else found >= wanted
        line = f"{what}: {found:.3g}{unit} (wanted {'<=' if most else '>='} {wanted:g}{unit})"
        self.rows.append(line + "".join(f", {text}" for text in more.values()) + ("" if good else "  MISSED"))


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    kept = Account()
    yield kept
    if lp_rivals.MISSING:
        kept.rows.append(f"not here, so not compared: {', '.join(sorted(lp_rivals.MISSING))}")
    print(*kept.rows, sep="\n")


def ours(one: Instance, solver: str = "network", integer: bool = False, threads: int = 1):
    """The answer of every interval, T = 1 included."""
    return provisioning.solve(*one, solver=solver, integer=integer, threads=threads)


def worst_gap(answer) -> float:
    """Of an answer that must be certified and serve all load."""
    gap = float(np.abs(answer.gap).max())
    assert gap <= GAP_TOL, f"certificate gap {gap}"
    assert not np.asarray(answer.shed_qps).any(), "load is shed"
    return gap


def agree(who: str, power_w: float, own_w: float) -> None:
    assert abs(power_w / own_w - 1) <= POWER_TOL, f"{who}: {power_w} W, ours {own_w} W"


def cpu_s(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def compared(
    title: str,
    own: Callable[[], object],
    own_w: float,
    rivals: dict[str, Callable[[], lp_rivals.Answer]],
    disabled: bool,
) -> Table:
    """Ours beside the rivals, each checked first; the slow ones are not asked again."""
    table, quick, turn_s = Table(title, 0.0), {"ours": lambda _: cpu_s(own)}, cpu_s(own)
    for name, call in rivals.items():
        start = time.process_time()
        try:
            first = call()
        except lp_rivals.Stopped as stop:
            table.notes.append(f"stopped: {stop}")
            table.stopped.add(name)
            table.others_s[name] = time.process_time() - start
            continue
        agree(name, first.power_w, own_w)
        table.build_s[name] = first.build_s
        if first.seconds >= ONCE_S:
            table.others_s[name] = first.seconds
            table.notes.append(f"{name} ran once")
        else:
            turn_s += first.seconds

            def seconds(_: int, name: str = name, call: Callable[[], lp_rivals.Answer] = call) -> float:
                answer = call()
                table.build_s[name] = answer.build_s
                return answer.seconds

            quick[name] = seconds
    if not disabled:
        rounds = int(np.clip(ATTEMPT_S / turn_s, ROUNDS, MANY_ROUNDS))
        medians, table.others_cpus = quietest(lambda: interleaved_medians(quick, 1, rounds))
        table.own_s = medians.pop("ours")
        table.others_s |= medians
    return table


def cold(benchmark, account: Account, case: Case) -> None:
    one = case.made()
    answer = ours(one)
    program = lp_rivals.Program.of(one)
    rivals = {
        name: lambda call=call: call(program, LIMIT_S) for name, call in lp_rivals.installed(*case.rivals).items()
    }
    title = f"{case}, cold, certified (gap {worst_gap(answer):.0e})"
    table = compared(title, lambda: ours(one), float(answer.power_w[0]), rivals, benchmark.disabled)
    if not benchmark.disabled:
        table.wanted = (("HiGHS", "GLOP"), case.cold)
        account.rows.append(table)
        benchmark.extra_info.update(ours_s=table.own_s, **table.others_s)
    benchmark.pedantic(lambda: ours(one), rounds=1)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cold(benchmark, account: Account, case: Case) -> None:
    cold(benchmark, account, case)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_cold_largest(benchmark, account: Account) -> None:
    cold(benchmark, account, LARGEST)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", [case for case in CASES if case.warm], ids=str)
def test_warm(benchmark, account: Account, case: Case) -> None:
    """``WARM_STEPS`` further loads, 2 % apart: ours as a timeline, less its first interval; HiGHS on a held object."""
    first = case.made()
    loads = [first.demand_qps[0]]
    for step in range(WARM_STEPS):
        loads.append(perturbed(first.demand_qps[0], step))
    timeline = first._replace(demand_qps=np.stack(loads))
    answer, warm = ours(timeline), lp_rivals.HighsWarm(lp_rivals.Program.of(first))
    gap = worst_gap(answer)
    for power_w, load in zip(answer.power_w[1:], loads[1:], strict=True):
        agree("HiGHS warm", warm.solve(load).power_w, float(power_w))
    if not benchmark.disabled:
        calls = {
            "ours": lambda _: (cpu_s(lambda: ours(timeline)) - cpu_s(lambda: ours(first))) / WARM_STEPS,
            "HiGHS warm": lambda _: float(np.mean([warm.solve(load).seconds for load in loads[1:]])),
        }
        medians, busy = quietest(lambda: interleaved_medians(calls, 1, ROUNDS))
        table = Table(f"{case}, warm re-solve, certified (gap {gap:.0e})", medians.pop("ours"), medians)
        table.wanted, table.others_cpus = (("HiGHS warm",), case.warm), busy
        account.rows.append(table)
    benchmark.pedantic(lambda: ours(timeline), rounds=1)


@pytest.mark.timeout(1800)
def test_day(benchmark, account: Account) -> None:
    """A day of 5-minute intervals at 1000 x 3000 dense; three of them against solutions of their own."""
    day = LARGEST.made(INTERVALS_A_DAY)
    answer = ours(day)
    gap = worst_gap(answer)
    for t in (0, INTERVALS_A_DAY // 2, INTERVALS_A_DAY - 1):
        alone = ours(day._replace(demand_qps=day.demand_qps[t : t + 1]))
        assert answer.power_w[t] == pytest.approx(alone.power_w[0], rel=GAP_TOL)
    if not benchmark.disabled:
        seconds = float(np.median([cpu_s(lambda: ours(day)) for _ in range(3)]))
        account.note(
            f"{LARGEST}, a day of {INTERVALS_A_DAY} intervals", seconds, DAY_S, True, " s", gap=f"gap {gap:.0e}"
        )
    benchmark.pedantic(lambda: ours(day), rounds=1)


def test_growth(benchmark, account: Account) -> None:
    """Exponent of cold time in H x M, by least squares over dense sizes."""
    instances = [instance(*size) for size in EXPONENT_SIZES]
    for one in instances:
        worst_gap(ours(one))
    if not benchmark.disabled:
        seconds = [float(np.median([cpu_s(lambda one=one: ours(one)) for _ in range(ROUNDS)])) for one in instances]
        exponent = np.polyfit(np.log([h * w for h, w in EXPONENT_SIZES]), np.log(seconds), 1)[0]
        spread = ", ".join(f"{h}x{w} {s * 1e3:.3g} ms" for (h, w), s in zip(EXPONENT_SIZES, seconds, strict=True))
        account.note("exponent of cold time in H x M", float(exponent), EXPONENT, True, sizes=spread)
    benchmark.pedantic(lambda: ours(instances[0]), rounds=1)


PEAK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bench_lp import LARGEST, instance, ours

def status(key):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024

ours(instance(10, 6))  # what is loaded at first use
one = LARGEST.made()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
before = status("VmRSS")
answer = ours(one)
print((status("VmHWM") - before) / sum(array.nbytes for array in one))
"""


def test_memory(benchmark, account: Account) -> None:
    """Peak memory beyond the inputs, as a multiple of them, in a process of its own."""
    command = [sys.executable, "-c", PEAK, str(Path(__file__).parent)]
    run = lambda: float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: E731
    account.note(f"{LARGEST}, peak extra memory", benchmark.pedantic(run, rounds=1), INPUTS, True, " of the inputs")


def test_two_threads(benchmark, account: Account) -> None:
    """A day at 300 x 1000 dense: the same bytes, in wall time over that of one thread."""
    day = instance(300, 1000, intervals=INTERVALS_A_DAY)
    one, two = (ours(day, threads=threads) for threads in (1, 2))
    for name in ("power_w", "bound_w", "shed_qps", "stock_price_w", "load_price_w"):
        assert np.asarray(getattr(one, name)).tobytes() == np.asarray(getattr(two, name)).tobytes(), name
    if not benchmark.disabled:
        calls = {name: lambda _, n=n: ours(day, threads=n) and None for n, name in ((1, "one"), (2, "two"))}
        medians, busy = quietest(lambda: interleaved_medians(calls, 1, ROUNDS))
        ratio = medians["one"] / medians["two"]
        account.note("two threads over one", ratio, THREADS, False, busy=f"others took {busy:.1f} CPUs")
    benchmark.pedantic(lambda: ours(day, threads=2), rounds=1)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [1, FINER])
@pytest.mark.parametrize(("case", "gap"), WHOLE, ids=[str(case) for case, _ in WHOLE])
def test_whole_machines(benchmark, account: Account, case: Case, gap: float, times: int) -> None:
    """Peak in whole machines: over the linear bound, its time over the linear program's, and branch and bound."""
    one = case.made()
    one = one._replace(demand_qps=times * one.demand_qps, stock=times * one.stock)
    linear, whole = ours(one), ours(one, integer=True)
    machines = np.asarray(whole.servers[0])
    assert np.array_equal(machines, np.round(machines))
    assert (machines.sum(axis=1) <= one.stock).all()
    assert ((machines * one.qps).sum(axis=0) >= one.demand_qps[0] * (1 - 1e-9)).all()
    power_w, least_w = float((machines * one.power_w).sum()), float(linear.bound_w[0])
    assert power_w == pytest.approx(float(whole.power_w[0]), rel=1e-12)
    proved_w = float(provisioning.whole_bound(whole.problem, whole.linear, threads=1)[0])
    assert proved_w <= power_w * (1 + 1e-12)
    if not benchmark.disabled:
        calls = {
            "ours": lambda _: cpu_s(lambda: ours(one, integer=True)),
            "linear": lambda _: cpu_s(lambda: ours(one)),
            "rounding": lambda _: cpu_s(lambda: provisioning.whole_machines(whole.problem, whole.linear, threads=1)),
        }
        medians, _ = quietest(lambda: interleaved_medians(calls, 1, ROUNDS))
        linear_s = medians["linear"]
        limit_s = SEARCH_OVER_WHOLE * medians["ours"]
        found = lp_rivals.highs_whole(lp_rivals.Program.of(one), limit_s)
        searched = f"HiGHS' search in {limit_s:.3g} s: " + (
            f"{found.power_w / power_w - 1:+.3%}" if found else "nothing"
        )
        name = f"{case}" if times == 1 else f"{case} with {times} times the machines"
        proved = f"no plan is below {100 * (proved_w / least_w - 1):.3g} %"
        above = 100 * (power_w / least_w - 1)
        account.note(f"{name}, whole machines over the bound", above, 100 * gap, True, " %", a=proved, b=searched)
        ratio, title = medians["rounding"] / linear_s, f"{name}, time of whole machines over that of the linear program"
        both = f"both together {medians['ours'] / linear_s:.3g} x"
        account.note(title, ratio, WHOLE_OVER_LINEAR, True, " x", both=both)
        if case.n_types >= 100 and found:
            assert power_w <= found.power_w, "branch and bound found better"
    benchmark.pedantic(lambda: ours(one, integer=True), rounds=1)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", POOLED, ids=str)
def test_highs_on_a_pool(benchmark, account: Account, case: Case) -> None:
    """``solver="highs"`` against plain HiGHS."""
    one = case.made()
    answer, program = ours(one, "highs"), lp_rivals.Program.of(one)
    title = f'{case}, solver="highs" (gap {worst_gap(answer):.0e})'
    rivals = {"HiGHS": lambda: lp_rivals.highs(program, LIMIT_S)}
    table = compared(title, lambda: ours(one, "highs"), float(answer.power_w[0]), rivals, benchmark.disabled)
    if not benchmark.disabled:
        table.wanted = (("HiGHS",), case.cold)
        account.rows.append(table)
    benchmark.pedantic(lambda: ours(one, "highs"), rounds=1)
