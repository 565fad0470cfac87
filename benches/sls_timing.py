"""Taking turns, and the account of it: a line per point, a table per class."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import geometric_mean, median

from sls_points import Point

WARM_UP = 2
HOPELESS_AFTER, HOPELESS = 5, 3.0
ATTEMPTS, BUSY = 3, 0.1


def interleaved_medians(contenders: dict[str, Callable[[int], object]], sets: int, rounds: int) -> dict[str, float]:
    """Median seconds of each contender, taking turns, each call on the next set; a float given is its own time.

    The order of the turn moves on, so that nobody always follows the same one. Whoever takes three times as long as the
    best after five turns is asked no more.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names, next_set = list(contenders), itertools.cycle(range(sets))
    for turn in range(rounds + WARM_UP):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            i = next(next_set)
            start = time.perf_counter()
            own = contenders[name](i)
            elapsed = time.perf_counter() - start
            if turn >= WARM_UP:
                times[name].append(own if isinstance(own, float) else elapsed)
        if turn == WARM_UP + HOPELESS_AFTER:
            so_far = {name: median(times[name]) for name in names}
            names = [name for name in names if so_far[name] <= HOPELESS * min(so_far.values()) or name == "ours"]
    return {name: median(values) for name, values in times.items()}


@dataclass
class Result:
    point: Point
    ours_s: float
    rivals_s: dict[str, float]
    limit_s: float | None
    huge_page_share: float
    others_cpus: float
    """CPUs that other processes took meanwhile."""

    @property
    def best(self) -> str:
        return min(self.rivals_s, key=lambda name: self.rivals_s[name])

    @property
    def ratio(self) -> float | None:
        """Best rival's time over ours; None without a rival."""
        return self.rivals_s[self.best] / self.ours_s if self.rivals_s else None

    @property
    def percent(self) -> float | None:
        return 100 * self.limit_s / self.ours_s if self.limit_s else None

    def gb_s(self, seconds: float) -> float:
        return self.point.useful_bytes / seconds / 1e9

    def __str__(self) -> str:
        line = f"{self.point!s:<34}{self.ours_s * 1e6:>10.1f} us {self.gb_s(self.ours_s):>6.1f} GB/s"
        if self.ratio is not None:
            others = ", ".join(f"{name} {seconds / self.ours_s:.2f}" for name, seconds in self.rivals_s.items())
            line += f"  ratio {self.ratio:>5.2f} ({self.best})  [{others}]"
        if self.limit_s is not None:
            line += f"  limit {self.gb_s(self.limit_s):.1f} GB/s, {self.percent:.0f} %"
        if not self.point.small_pages and not self.point.cached and self.huge_page_share < 0.95:
            line += f"  only {100 * self.huge_page_share:.0f} % on 2 MiB pages"
        if self.others_cpus >= BUSY:
            line += f"  others took {self.others_cpus:.1f} CPUs"
        return line + f"  {self.point.target.name}"


class Others:
    """How busy other processes keep the CPUs from here on."""

    def __init__(self) -> None:
        self._began, self._start = time.monotonic(), self._seconds()

    def cpus(self) -> float:
        """CPUs that they took since then, on average."""
        every, own = (now - then for now, then in zip(self._seconds(), self._start, strict=True))
        return max(0.0, every - own) / (time.monotonic() - self._began)

    @staticmethod
    def _seconds() -> tuple[float, float]:
        """CPU seconds of all processes (user, nice, system), and of this one."""
        ticks = Path("/proc/stat").read_text().split()[1:4]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), time.process_time()


def quietest(measure: Callable[[], dict[str, float]]) -> tuple[dict[str, float], float]:
    """The medians that were measured while others took the fewest CPUs, and how many those were."""
    attempts = []
    for _ in range(ATTEMPTS):
        others = Others()
        attempts.append((measure(), others.cpus()))
        if attempts[-1][1] < BUSY:
            break
    return min(attempts, key=lambda attempt: attempt[1])


@dataclass
class Account:
    results: list[Result] = field(default_factory=list)
    modes: list[tuple[str, float, float]] = field(default_factory=list)
    """(what, time over that of the plain sum, what is allowed)."""
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A table per class, then all points together."""
        compared = [r for r in self.results if r.ratio is not None]
        lines = [
            f"\n{'class':<34}{'points':>7}{'worst':>8}{'median':>8}{'wanted':>8}   % of limit: worst, median, wanted"
        ]
        key = lambda r: r.point.target.name  # noqa: E731
        for name, group in itertools.groupby(sorted(compared, key=key), key):
            members = list(group)
            target, ratios = members[0].point.target, [r.ratio for r in members]
            line = f"{name:<34}{len(members):>7}{min(ratios):>8.2f}{median(ratios):>8.2f}{target.ratio:>8.2f}"
            if target.percent is not None:
                percents = [r.percent for r in members]
                line += f"   {min(percents):>5.0f}{median(percents):>7.0f}{target.percent:>7.0f}"
            below = sum(ratio < target.ratio for ratio in ratios)
            lines.append(line + (f"   {below} below" if below else ""))
        by_point = {r.point: r for r in self.results}
        for r in self.results:
            one = by_point.get(replace(r.point, threads=1))
            if r.point.tables > 1 and r.point.threads == 2 and one is not None:
                lines.append(f"{r.point!s:<34} 1 thread over 2 threads: {one.ours_s / r.ours_s:.2f} (wanted 1.60)")
        for what, ratio, allowed in self.modes:
            lines.append(f"{what:<34} over the plain sum: {ratio:.2f} (allowed {allowed:.2f})")
        lines += self.notes
        if compared:
            worst = min(compared, key=lambda r: r.ratio)
            mean = geometric_mean([r.ratio for r in compared])
            busy = sum(r.others_cpus >= BUSY for r in compared)
            lines.append(f"other processes took {BUSY} CPUs or more during {busy} of {len(compared)} points")
            lines.append(
                f"{len(compared)} points: geometric mean {mean:.2f} (wanted 2.00);"
                f" worst {worst.ratio:.2f} (wanted 0.97) at {worst.point}"
            )
        return "\n".join(lines)
