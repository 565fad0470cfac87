"""Two efficiency tables beside each other: what became better or worse, beyond the noise of both."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal

from hercules_fast.errors import DTypeError, InputError
from hercules_fast.tables import EfficiencyRow, EfficiencyTable

__all__ = ["Change", "Comparison", "compare"]

Verdict = Literal["same", "better", "worse", "added", "removed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One pair in both tables; ``before`` or ``after`` is None where a table lacks it.

    ``qps``, ``qps_per_watt`` and ``power`` are relative changes, such as -0.05 for 5 % less; NaN where the pair is not
    served in both tables. ``why`` holds what the verdict rests on.
    """

    server: str
    workload: str
    before: EfficiencyRow | None
    after: EfficiencyRow | None
    verdict: Verdict
    why: tuple[str, ...]
    qps: float
    qps_per_watt: float
    power: float

    @property
    def differences(self) -> tuple[str, ...]:
        """What else differs, each as ``name: before -> after``: configuration, SLAs, origin, what limits the load."""
        if self.before is None or self.after is None:
            return ()
        return tuple(
            f"{name}: {old} -> {new}"
            for (name, old), (_, new) in zip(_facts(self.before), _facts(self.after), strict=True)
            if old != new
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All pairs of two tables, in the order of the second one; pairs that only the first one has come last."""

    changes: tuple[Change, ...]
    fail_over: float

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Pairs that became worse, or that were served and are gone."""
        return tuple(c for c in self.changes if c.verdict == "worse" or (c.verdict == "removed" and _served(c.before)))

    @property
    def improvements(self) -> tuple[Change, ...]:
        """Pairs that became better."""
        return tuple(change for change in self.changes if change.verdict == "better")

    def explain(self) -> str:
        """A line for each pair that is not the same, with its reasons, and a summary."""
        lines = [line for change in self.changes for line in _lines(change)]
        counts = {
            name: sum(c.verdict == name for c in self.changes) for name in ("worse", "removed", "better", "added")
        }
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        lines.append(f"{len(self.changes)} pairs: {told}; fails over {self.fail_over:.4g} of QPS or QPS per watt")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        changes = []
        for change in self.changes:
            data = asdict(change)
            for name in ("qps", "qps_per_watt", "power"):
                data[name] = None if math.isnan(data[name]) else data[name]
            for name in ("before", "after"):
                data[name] = data[name] and {key: data[name][key] for key in _SHOWN}
            changes.append(data | {"why": list(change.why), "differences": list(change.differences)})
        return {"fail_over": self.fail_over, "regressions": len(self.regressions), "changes": changes}


_SHOWN = ("status", "qps", "qps_lo", "qps_hi", "power_w", "reason")


def compare(
    a: EfficiencyTable | str | os.PathLike[str],
    b: EfficiencyTable | str | os.PathLike[str],
    *,
    fail_over: float = 0.05,
) -> Comparison:
    """What changed from table ``a`` to table ``b``, pair by pair (server type, workload).

    A pair is worse where its QPS, or its QPS per watt, fell by more than the share ``fail_over`` *and* the whole 95 %
    interval of ``b`` lies below that of ``a``; better the other way round. The interval of QPS per watt is that of QPS
    at the row's power. A pair that was served and is infeasible now is worse, the reverse better. A pair that was
    served and is gone counts as a regression: a gate must not open because a row went missing. Of several rows per pair
    the first counts.

    Args:
        a, b: tables, or paths of saved ones.
        fail_over: share of QPS or QPS per watt, 0 <= fail_over < 1.

    Raises:
        InputError: ``fail_over`` is outside what is allowed.
        DTypeError: ``a`` or ``b`` is neither a table nor a path.
        MissingFileError, ConfigError: a file is not there, or is no table.
    """
    if isinstance(fail_over, bool) or not isinstance(fail_over, Real) or not 0 <= fail_over < 1:
        raise InputError(f"fail_over: is {fail_over!r}; allowed is 0 <= fail_over < 1, such as 0.05 for 5 %")
    old, new = _first_rows("a", a), _first_rows("b", b)
    pairs = [*new, *(pair for pair in old if pair not in new)]
    changes = tuple(_change(pair, old.get(pair), new.get(pair), float(fail_over)) for pair in pairs)
    return Comparison(changes=changes, fail_over=float(fail_over))


def _first_rows(name: str, table: EfficiencyTable | str | os.PathLike[str]) -> dict[tuple[str, str], EfficiencyRow]:
    if isinstance(table, str | os.PathLike):
        table = EfficiencyTable.load(table)
    if not isinstance(table, EfficiencyTable):
        raise DTypeError(f"{name}: is of type {type(table).__name__}; allowed is an EfficiencyTable or a path")
    rows: dict[tuple[str, str], EfficiencyRow] = {}
    for row in table.rows:
        rows.setdefault((row.server, row.workload), row)
    return rows


def _change(
    pair: tuple[str, str], before: EfficiencyRow | None, after: EfficiencyRow | None, fail_over: float
) -> Change:
    verdict: Verdict = "same"
    why: tuple[str, ...] = ()
    shares = (math.nan, math.nan, math.nan)
    if before is None:
        verdict = "added"
    elif after is None:
        verdict = "removed"
        why = (f"it was {before.status} and is gone",)
    elif before.status != after.status:
        verdict = "worse" if after.status == "infeasible" else "better"
        why = (f"it was {before.status} and is {after.status}: {after.reason}",)
    elif before.status == "ok":
        shares = (
            after.qps / before.qps - 1,
            after.qps_per_watt / before.qps_per_watt - 1,
            after.power_w / before.power_w - 1,
        )
        worse = tuple(_fallen(before, after, fail_over, "worse"))
        better = tuple(_fallen(after, before, fail_over, "better"))
        verdict = "worse" if worse else "better" if better else "same"
        why = worse or better
    server, workload = pair
    return Change(
        server=server,
        workload=workload,
        before=before,
        after=after,
        verdict=verdict,
        why=why,
        qps=shares[0],
        qps_per_watt=shares[1],
        power=shares[2],
    )


def _fallen(high: EfficiencyRow, low: EfficiencyRow, fail_over: float, verdict: str) -> Iterator[str]:
    """Figures in which ``low`` is below ``high``, beyond the threshold and both intervals."""
    for name, old, new in (
        ("QPS", (high.qps_lo, high.qps), (low.qps, low.qps_hi)),
        (
            "QPS per watt",
            (high.qps_lo / high.power_w, high.qps / high.power_w),
            (low.qps / low.power_w, low.qps_hi / low.power_w),
        ),
    ):
        if new[0] < old[1] * (1 - fail_over) and new[1] < old[0]:
            first, last = (old[1], new[0]) if verdict == "worse" else (new[0], old[1])
            yield f"{name} {first:.6g} -> {last:.6g} ({last / first - 1:+.1%}), and the intervals do not touch"


def _served(row: EfficiencyRow | None) -> bool:
    return row is not None and row.status == "ok"


def _facts(row: EfficiencyRow) -> Iterator[tuple[str, str]]:
    yield "configuration", row.config.describe() if row.config else "none"
    yield "sla", ", ".join(f"p{p:g} <= {ms:g} ms" for p, ms in row.sla) or "none"
    yield "origin", row.origin
    yield "power mode", row.power_mode
    yield "reason", row.reason


def _lines(change: Change) -> Iterator[str]:
    if change.verdict == "same":
        return
    yield f"{change.verdict}: {change.workload} on {change.server}"
    yield from (f"    {reason}" for reason in change.why)
    yield from (f"    {difference}" for difference in change.differences)
