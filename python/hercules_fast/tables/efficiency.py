"""EfficiencyTable, the second narrow waist: what each server type can do for each workload, at what power."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import ConfigError, Fault, InputError, MissingFileError, UnknownNameError
from hercules_fast.tables.config import SchedulingConfig
from hercules_fast.tables.files import write_atomically

__all__ = ["SCHEMA", "EfficiencyRow", "EfficiencyTable"]

SCHEMA = "hercules_fast.efficiency_table/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class EfficiencyRow:
    """One server type serving one workload at the highest load that meets its SLAs.

    ``qps`` is the latency-bounded throughput with its 95 % interval ``qps_lo``..``qps_hi``; ``achieved_ms`` are the
    percentiles of ``sla`` reached there; ``power_w`` the power of one server at that load. ``status`` is
    ``infeasible`` (then ``qps`` is 0 and ``reason`` says why) or ``ok`` (then ``reason`` says what binds).
    """

    server: str
    workload: str
    sla: tuple[tuple[float, float], ...]
    """(percentile in percent, latency in ms)."""
    qps: float
    qps_lo: float
    qps_hi: float
    achieved_ms: tuple[float, ...]
    power_w: float
    power_mode: str
    energy_j_per_query: float
    utilisation: Mapping[str, float]
    """Busy share per group, 0 to 1."""
    memory_bytes: Mapping[str, float]
    config: SchedulingConfig | None
    status: Literal["ok", "infeasible"]
    reason: str
    origin: Literal["measured", "modelled", "published"]
    seed: int
    source_digest: str
    evaluations: int = 0
    """Configurations that the search evaluated for this row."""

    @property
    def qps_per_watt(self) -> float:
        """Energy efficiency; 0 where infeasible."""
        return self.qps / self.power_w if self.status == "ok" and self.power_w > 0 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EfficiencyTable:
    """Rows, in the order of ``servers`` x ``workloads``. Several rows per pair are allowed (QPS against power).

    ``meta`` holds what the rows were made with: seed, versions, settings, assumptions.
    """

    rows: tuple[EfficiencyRow, ...]
    servers: tuple[str, ...]
    workloads: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = []
        for k, row in enumerate(self.rows):
            faults += _row_faults(k, row, self.servers, self.workloads)
        for name in ("servers", "workloads"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                faults.append(Fault(name, "holds a name twice"))
        if faults:
            raise ConfigError("efficiency table", faults)

    def best(self, server: str, workload: str) -> EfficiencyRow | None:
        """The row with the most QPS of a pair, or None where the pair was not profiled."""
        found = [r for r in self.rows if r.server == server and r.workload == workload]
        return max(found, key=lambda r: r.qps, default=None)

    def matrices(
        self, servers: Sequence[str] | None = None, workloads: Sequence[str] | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """QPS and power as float64 [H, W] over the given names; 0 QPS where a pair is not eligible.

        Raises:
            UnknownNameError: a name without any row in this table; the nearest known one is offered.
        """
        servers = self.servers if servers is None else servers
        workloads = self.workloads if workloads is None else workloads
        for what, names, known in (
            ("server", servers, self.servers),
            ("workload", workloads, self.workloads),
        ):
            for name in names:
                if name not in known:
                    raise UnknownNameError.of(f"{what} in the efficiency table", name, known)
        qps = np.zeros((len(servers), len(workloads)))
        power = np.zeros_like(qps)
        for h, server in enumerate(servers):
            for w, workload in enumerate(workloads):
                row = self.best(server, workload)
                if row is not None:
                    qps[h, w], power[h, w] = row.qps, row.power_w
        return qps, power

    def ranking(self, workload: str) -> list[EfficiencyRow]:
        """The servers that can serve ``workload``, best QPS per watt first (the workload classification)."""
        rows = [row for server in self.servers if (row := self.best(server, workload)) and row.status == "ok"]
        return sorted(rows, key=lambda r: (-r.qps_per_watt, r.server))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; floats survive the round trip exactly."""
        rows = []
        for row in self.rows:
            data = asdict(row)
            data["config"] = row.config.to_dict() if row.config else None
            rows.append({k: _no_nan(v) for k, v in data.items()})
        return {
            "schema": SCHEMA,
            "servers": list(self.servers),
            "workloads": list(self.workloads),
            "meta": dict(self.meta),
            "rows": rows,
        }

    def to_json(self) -> str:
        """Deterministic JSON text: same table, same bytes."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """One line per row, for spreadsheets. Names that a spreadsheet would run as a formula are quoted."""
        buffer = io.StringIO()
        out = csv.writer(buffer, lineterminator="\n")
        out.writerow(
            [
                "server",
                "workload",
                "status",
                "qps",
                "qps_lo",
                "qps_hi",
                "power_w",
                "qps_per_watt",
                "sla",
                "achieved_ms",
                "config",
                "reason",
            ]
        )
        for r in self.rows:
            out.writerow(
                [
                    _safe(r.server),
                    _safe(r.workload),
                    r.status,
                    repr(r.qps),
                    repr(r.qps_lo),
                    repr(r.qps_hi),
                    repr(r.power_w),
                    repr(r.qps_per_watt),
                    " ".join(f"p{p:g}<={ms:g}ms" for p, ms in r.sla),
                    " ".join(f"{x:.3f}" for x in r.achieved_ms),
                    r.config.describe() if r.config else "",
                    _safe(r.reason),
                ]
            )
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, all or nothing.

        Raises:
            OutputError: the file cannot be written; what stood there is untouched.
        """
        write_atomically(Path(path), self.to_json().encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EfficiencyTable:
        """Read a table that :meth:`save` wrote, or one of a user's own of the same schema.

        Raises:
            MissingFileError: there is no such file.
            ConfigError: every fault of the file, each with its path.
        """
        source = os.fspath(path)
        try:
            text = Path(source).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise MissingFileError(f"{source}: no such file") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(source, [Fault("", f"cannot be read: {error}")]) from error
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(source, [Fault("", f"is not JSON: {error}")]) from error
        return cls.from_dict(data, source=source)

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "efficiency table") -> EfficiencyTable:
        """Back from :meth:`to_dict`. Raises ConfigError with every fault."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            seen = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise ConfigError(source, [Fault("schema", f"is {seen!r}; allowed is {SCHEMA!r}")])
        faults: list[Fault] = []
        rows = []
        for k, raw in enumerate(data.get("rows", ())):
            try:
                rows.append(_row_from_dict(raw))
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                faults.append(Fault(f"rows[{k}]", f"does not meet the schema: {error}"))
        if faults:
            raise ConfigError(source, faults)
        try:
            return cls(
                rows=tuple(rows),
                servers=tuple(data["servers"]),
                workloads=tuple(data["workloads"]),
                meta=data.get("meta", {}),
            )
        except ConfigError as error:
            raise ConfigError(source, error.faults) from None
        except (TypeError, KeyError) as error:
            raise ConfigError(source, [Fault("", f"does not meet the schema: {error}")]) from error

    @classmethod
    def from_matrices(
        cls,
        servers: Sequence[str],
        workloads: Sequence[str],
        qps: npt.ArrayLike,
        power_w: npt.ArrayLike,
        *,
        origin: Literal["measured", "modelled", "published"] = "measured",
    ) -> EfficiencyTable:
        """A table of a user's own figures: ``qps`` and ``power_w`` are [H, W]; 0 QPS = not eligible.

        Raises:
            InputError: a shape that does not match the names, or a figure that is negative or not finite.
        """
        q, p = np.asarray(qps, dtype=np.float64), np.asarray(power_w, dtype=np.float64)
        shape = (len(servers), len(workloads))
        for name, array in (("qps", q), ("power_w", p)):
            if array.shape != shape:
                raise InputError(f"{name}: has shape {array.shape}; allowed is {shape} (servers, workloads)")
        rows = []
        for h, server in enumerate(servers):
            for w, workload in enumerate(workloads):
                ok = bool(q[h, w] != 0)
                rows.append(
                    EfficiencyRow(
                        server=server,
                        workload=workload,
                        sla=(),
                        qps=float(q[h, w]),
                        qps_lo=float(q[h, w]),
                        qps_hi=float(q[h, w]),
                        achieved_ms=(),
                        power_w=float(p[h, w]),
                        power_mode="given",
                        energy_j_per_query=float(p[h, w] / q[h, w]) if ok else math.nan,
                        utilisation={},
                        memory_bytes={},
                        config=None,
                        status="ok" if ok else "infeasible",
                        reason="" if ok else "given as not eligible",
                        origin=origin,
                        seed=0,
                        source_digest="",
                    )
                )
        return cls(rows=tuple(rows), servers=tuple(servers), workloads=tuple(workloads))


def _row_from_dict(raw: Mapping[str, Any]) -> EfficiencyRow:
    data = dict(raw)
    data["sla"] = tuple((float(p), float(ms)) for p, ms in data["sla"])
    data["achieved_ms"] = tuple(float(x) for x in data["achieved_ms"])
    data["config"] = SchedulingConfig.from_dict(data["config"]) if data["config"] else None
    if data["energy_j_per_query"] is None:
        data["energy_j_per_query"] = math.nan
    return EfficiencyRow(**data)


def _row_faults(k: int, row: EfficiencyRow, servers: Iterable[str], workloads: Iterable[str]) -> list[Fault]:
    out = []
    where = f"rows[{k}]"
    if row.server not in servers:
        out.append(Fault(f"{where}.server", f"is {row.server!r}, which is not in servers"))
    if row.workload not in workloads:
        out.append(Fault(f"{where}.workload", f"is {row.workload!r}, which is not in workloads"))
    for name in ("qps", "qps_lo", "qps_hi", "power_w"):
        value = getattr(row, name)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            out.append(Fault(f"{where}.{name}", f"is {value!r}; allowed is finite and >= 0"))
    if not out and row.status == "ok" and not (row.qps > 0 and row.power_w > 0):
        out.append(Fault(where, f"is ok with qps {row.qps} and power_w {row.power_w}; both must be > 0"))
    if row.status not in ("ok", "infeasible"):
        out.append(Fault(f"{where}.status", f"is {row.status!r}; allowed are 'ok', 'infeasible'"))
    elif row.status == "infeasible" and row.qps != 0:
        out.append(Fault(f"{where}.qps", f"is {row.qps} in an infeasible row; allowed is 0"))
    return out


def _no_nan(value: Any) -> Any:
    """NaN is not JSON: unknown figures become null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _safe(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text
