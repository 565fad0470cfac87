"""How quiet this machine is: the time that threads which do nothing but read the clock do not get.

A thread that spins on a CPU sees others at work there as gaps between its readings: other threads, interrupts, the
hypervisor. Times measured on a CPU that loses more than :data:`LOST_SHARE_LIMIT` of its time are not certified.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.host.cores import usable_cores
from hercules_fast.host.groups import text_of
from hercules_fast.host.numbers import number, whole_numbers

__all__ = ["GAP_US", "LOST_SHARE_LIMIT", "Noise", "noise_probe", "steal_ticks"]

GAP_US = 50.0
"""Gaps longer than this are lost time: a spinning thread reads the clock every few dozen nanoseconds."""
LOST_SHARE_LIMIT = 0.01
"""Most time lost on a quiet machine, as a share."""
_MOST_CPU = 8191


@dataclass(frozen=True, slots=True)
class Noise:
    """What :func:`noise_probe` saw. ``str()`` is one line."""

    cpus: tuple[int, ...]
    seconds: float
    """How long each of them was watched."""
    lost_share: tuple[float, ...]
    """For each CPU: the share of its thread's time that was lost in gaps of more than 50 us, 0 to 1."""
    longest_gap_us: tuple[float, ...]
    """For each CPU: the longest time between two readings of the clock."""
    steal_share: float | None
    """Share of these CPUs' time that the hypervisor surely gave to others: the system counts hundredths of a second, so
    one of them for each CPU is left out. None where the system does not tell."""
    unpinned: tuple[int, ...] = ()
    """CPUs that no thread could be bound to; theirs spun where the system put them."""

    @property
    def worst(self) -> float:
        """The largest share lost, by a CPU or to the hypervisor."""
        return max(*self.lost_share, self.steal_share or 0.0)

    @property
    def quiet(self) -> bool:
        """Whether no more than :data:`LOST_SHARE_LIMIT` of the time was lost."""
        return self.worst <= LOST_SHARE_LIMIT

    def cause(self) -> str:
        """One sentence: which CPU lost how much, its longest gap, and what was stolen."""
        place = max(range(len(self.cpus)), key=self.lost_share.__getitem__)
        text = (
            f"CPU {self.cpus[place]} lost {self.lost_share[place]:.2%} of {self.seconds:g} s in gaps over {GAP_US:g} us"
            f" (longest {self.longest_gap_us[place]:,.0f} us)"
        )
        if self.steal_share is not None:
            text += f", {self.steal_share:.2%} stolen by the hypervisor"
        if self.unpinned:
            text += f"; no thread could be bound to CPU {', '.join(map(str, self.unpinned))}"
        return f"{text}; a quiet machine loses at most {LOST_SHARE_LIMIT:.0%}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the fields, ``worst`` and ``quiet``."""
        return {**asdict(self), "worst": self.worst, "quiet": self.quiet}

    def __str__(self) -> str:
        return f"{'quiet' if self.quiet else 'noisy'}: {self.cause()}"


def noise_probe(cpus: Sequence[int] | None = None, *, seconds: float = 0.5) -> Noise:
    """Watch ``cpus`` for ``seconds``, each by a spinning thread bound to it, all at the same time.

    Args:
        cpus: Numbers of CPUs, each once. Default: the first of those that this process may use, as many as
            :func:`usable_cores` counts.
        seconds: How long, 0.001 to 60.

    Raises:
        InputError: An argument is outside what is said above.
        KeyboardInterrupt: Ctrl-C.
    """
    if cpus is None:
        cores = usable_cores()
        cpus = cores.cpus[: cores.count]
    cpus = whole_numbers("cpus", cpus, 0, _MOST_CPU)
    seconds = number("seconds", seconds, 0.001, 60)
    if len(cpus) > 1024:
        raise InputError(f"cpus: names {len(cpus)}; allowed are 1 to 1024 of them")
    before = steal_ticks(cpus)
    found = _core.spin_gaps(cpus, seconds, GAP_US * 1e-6)
    after = steal_ticks(cpus)
    steal = None
    if before is not None and after is not None:
        stolen, all_ticks = after[0] - before[0], after[1] - before[1]
        steal = max(0, stolen - len(cpus)) / max(all_ticks, 1)
    return Noise(
        cpus=cpus,
        seconds=seconds,
        lost_share=tuple(lost for lost, _, _ in found),
        longest_gap_us=tuple(longest_s * 1e6 for _, longest_s, _ in found),
        steal_share=steal,
        unpinned=tuple(cpu for cpu, (_, _, pinned) in zip(cpus, found, strict=True) if not pinned),
    )


def steal_ticks(cpus: Sequence[int], root: Path = Path("/")) -> tuple[int, int] | None:
    """(stolen, all) ticks of these CPUs since the machine started, a tick being 10 ms; None where it is not told.

    Args:
        cpus: Numbers of CPUs.
        root: Where ``/proc`` lies.
    """
    stolen = total = 0
    text = text_of(root / "proc/stat")
    for cpu in cpus:
        line = re.search(rf"^cpu{cpu}((?: \d+)+)$", text, re.MULTILINE)
        ticks = [int(part) for part in line.group(1).split()] if line else []
        if len(ticks) < 8:
            return None
        # user nice system idle iowait irq softirq steal; the guests after them are counted in user and nice already.
        stolen += ticks[7]
        total += sum(ticks[:8])
    return stolen, total
