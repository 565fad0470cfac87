"""EfficiencyTable, the second narrow waist: what each server type can do for each workload, at what power."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import ConfigError, DTypeError, Fault, InputError, MissingFileError, UnknownNameError
from hercules_fast.tables.config import SchedulingConfig
from hercules_fast.tables.files import write_atomically

__all__ = ["SCHEMA", "Choices", "EfficiencyRow", "EfficiencyTable", "Estimate"]

SCHEMA = "hercules_fast.efficiency_table/1"
MAX_DEPTH = 64
"""Levels of a table's JSON; figures need four, the rest is for ``meta``."""
MAX_QPS = 1e12
MAX_POWER_W = 1e9

MAX_GROUP = 100_000

Origin = Literal["measured", "modelled", "published"]
Estimate = Literal["value", "lower"]
"""Which end of a row's QPS counts: ``qps`` or ``qps_lo``."""


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
    origin: Origin
    seed: int
    source_digest: str
    evaluations: int = 0
    """Configurations that the search evaluated for this row."""
    group: int = 1
    """Servers over which one copy of the model is spread; QPS and power stay those of one of them."""

    @property
    def qps_per_watt(self) -> float:
        """Energy efficiency; 0 where infeasible."""
        return self.qps / self.power_w if self.status == "ok" and self.power_w > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choices:
    """The ways to use each server type, as arrays for planning. Row r belongs to type ``row_type[r]``.

    Rows 0..H-1 are the types, each pair with its row of most QPS; rows beyond hold further rows of a pair, as long as
    they are worth having. R rows, W workloads; 0 QPS = not eligible.
    """

    qps: npt.NDArray[np.float64]
    """[R, W], of the estimate asked for."""
    qps_lo: npt.NDArray[np.float64]
    """[R, W], lower end of its 95 % interval."""
    power_w: npt.NDArray[np.float64]
    """[R, W]."""
    row_type: npt.NDArray[np.int64]
    """[R]."""
    group: npt.NDArray[np.int64]
    """[R, W] servers over which one copy of the model is spread."""


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
        faults = [] if self.rows else [Fault("rows", "is empty; at least one row is needed")]
        for k, row in enumerate(self.rows):
            faults += _row_faults(f"rows[{k}]", row, self.servers, self.workloads)
        for name in ("servers", "workloads"):
            values = getattr(self, name)
            if not all(isinstance(value, str) and value for value in values):
                faults.append(Fault(name, f"is {list(values)!r}; allowed are names, none of them empty"))
            elif len(set(values)) != len(values):
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
        servers, workloads = self._known_names(servers, workloads)
        qps = np.zeros((len(servers), len(workloads)))
        power = np.zeros_like(qps)
        for h, server in enumerate(servers):
            for w, workload in enumerate(workloads):
                row = self.best(server, workload)
                if row is not None:
                    qps[h, w], power[h, w] = row.qps, row.power_w
        return qps, power

    def choices(
        self,
        servers: Sequence[str] | None = None,
        workloads: Sequence[str] | None = None,
        estimate: Estimate = "value",
    ) -> Choices:
        """All rows of the named servers and workloads that a plan may want, as arrays.

        A row is left out where another of its pair has no less QPS, no less QPS per watt, and no larger group.
        Raises :class:`UnknownNameError` as :meth:`matrices`, :class:`InputError` for another ``estimate``.
        """
        if estimate not in get_args(Estimate):
            raise InputError(f"estimate: is {estimate!r}; allowed are {_choices(get_args(Estimate))}")
        servers, workloads = self._known_names(servers, workloads)
        column = {name: w for w, name in enumerate(workloads)}
        kept: dict[tuple[str, int], list[tuple[float, EfficiencyRow]]] = {}
        wanted = set(servers)
        for row in self.rows:
            rate = row.qps if estimate == "value" else row.qps_lo
            if row.server in wanted and row.workload in column and rate > 0:
                kept.setdefault((row.server, column[row.workload]), []).append((rate, row))
        pairs = {pair: _undominated(rows) for pair, rows in kept.items()}
        depth = [max([1, *(len(pairs.get((name, w), ())) for w in range(len(workloads)))]) for name in servers]
        place = [(h, 0) for h in range(len(servers))]
        place += [(h, k) for h in range(len(servers)) for k in range(1, depth[h])]
        figures = np.zeros((3, len(place), len(workloads)))
        group = np.ones((len(place), len(workloads)), dtype=np.int64)
        for r, (h, k) in enumerate(place):
            for w in range(len(workloads)):
                rows = pairs.get((servers[h], w), [])
                if k < len(rows):
                    rate, row = rows[k]
                    figures[:, r, w] = rate, row.qps_lo, row.power_w
                    group[r, w] = row.group
        return Choices(
            qps=figures[0],
            qps_lo=figures[1],
            power_w=figures[2],
            row_type=np.array([h for h, _ in place], dtype=np.int64),
            group=group,
        )

    def _known_names(
        self, servers: Sequence[str] | None, workloads: Sequence[str] | None
    ) -> tuple[Sequence[str], Sequence[str]]:
        servers = self.servers if servers is None else servers
        workloads = self.workloads if workloads is None else workloads
        for what, names, known in (("server", servers, self.servers), ("workload", workloads, self.workloads)):
            for name in names:
                if name not in known:
                    raise UnknownNameError.of(f"{what} in the efficiency table", name, known)
        return servers, workloads

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
        except RecursionError:
            raise ConfigError(source, [Fault("", "is nested too deeply")]) from None
        except ValueError as error:  # JSONDecodeError, and numbers of too many digits
            raise ConfigError(source, [Fault("", f"is not JSON: {error}")]) from error
        if _is_deep(data):
            raise ConfigError(source, [Fault("", f"is nested too deeply; allowed are {MAX_DEPTH} levels")])
        return cls.from_dict(data, source=source)

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "efficiency table") -> EfficiencyTable:
        """Back from :meth:`to_dict`. Raises ConfigError with every fault."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            seen = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise ConfigError(source, [Fault("schema", f"is {seen!r}; allowed is {SCHEMA!r}")])
        faults = list(_key_faults("", data, {"schema", "rows", "servers", "workloads"}, {"meta"}))
        for name in ("rows", "servers", "workloads"):
            if not isinstance(data.get(name, []), list):
                faults.append(Fault(name, f"is {_shown(data[name])}; allowed is a list"))
        if not isinstance(data.get("meta", {}), dict):
            faults.append(Fault("meta", f"is {_shown(data['meta'])}; allowed is an object"))
        rows = []
        raw_rows = data.get("rows")
        for k, raw in enumerate(raw_rows if isinstance(raw_rows, list) else ()):
            found = list(_form_faults(f"rows[{k}]", raw))
            faults += found
            if not found:
                rows.append(_row_from_dict(raw))
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

    @classmethod
    def from_matrices(
        cls,
        servers: Sequence[str],
        workloads: Sequence[str],
        qps: npt.ArrayLike,
        power_w: npt.ArrayLike,
        *,
        origin: Origin = "measured",
    ) -> EfficiencyTable:
        """A table of a user's own figures: ``qps`` and ``power_w`` are [H, W]; 0 QPS = not eligible.

        Raises:
            InputError: an unknown ``origin``, a shape that does not match the names, or a figure that is negative,
                not finite or absurd.
            DTypeError: ``qps`` or ``power_w`` are no numbers.
        """
        if origin not in get_args(Origin):
            raise InputError(f"origin: is {origin!r}; allowed are {_choices(get_args(Origin))}")
        q, p = _figures("qps", qps), _figures("power_w", power_w)
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


def _undominated(rows: list[tuple[float, EfficiencyRow]]) -> list[tuple[float, EfficiencyRow]]:
    """The rows of one pair that no other one makes useless, by falling QPS; the first of equals stays."""
    kept: list[tuple[float, EfficiencyRow]] = []
    for rate, row in sorted(rows, key=lambda item: (-item[0], item[1].power_w)):
        watts = row.power_w / rate
        if not any(other.power_w / r <= watts and row.group % other.group == 0 for r, other in kept):
            kept.append((rate, row))
    return kept


_ROW_KEYS = frozenset(f.name for f in fields(EfficiencyRow))
_CONFIG_KEYS = frozenset(f.name for f in fields(SchedulingConfig))
_TEXTS = ("power_mode", "reason", "source_digest")


def _figures(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: has rows of different lengths; allowed is [servers, workloads]") from error
    if array.dtype.kind not in "iuf":
        raise DTypeError(f"{name}: is of dtype {array.dtype}; allowed are numbers")
    return array.astype(np.float64)


def _row_from_dict(raw: Mapping[str, Any]) -> EfficiencyRow:
    """The row that ``raw`` holds; its form was checked by :func:`_form_faults`, its figures are not yet."""
    data = dict(raw)
    data["sla"] = tuple((_float(p), _float(ms)) for p, ms in data["sla"])
    data["achieved_ms"] = tuple(_float(x) for x in data["achieved_ms"])
    data["config"] = SchedulingConfig.from_dict(data["config"]) if data["config"] else None
    if data["energy_j_per_query"] is None:
        data["energy_j_per_query"] = math.nan
    return EfficiencyRow(**data)


def _float(value: Any) -> Any:
    """A whole number as float; what is no number stays, to be refused under its path."""
    return float(value) if type(value) is int and abs(value) < 2**63 else value


# --- what can be wrong with a table ------------------------------------------------------------------------------


def _is_deep(data: Any) -> bool:
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return bool(level)


def _key_faults(
    where: str, raw: Mapping[str, Any], required: Collection[str], optional: Collection[str]
) -> list[Fault]:
    missing = sorted(set(required) - raw.keys())
    unknown = sorted(raw.keys() - set(required) - set(optional))
    faults = [Fault(where, f"lacks {', '.join(map(repr, missing))}")] if missing else []
    return faults + [Fault(where, f"unknown key {key!r}") for key in unknown]


def _form_faults(where: str, raw: Any) -> Iterator[Fault]:
    """Keys that are missing or unknown, and lists and objects that are something else."""
    if not isinstance(raw, dict):
        yield Fault(where, f"is {_shown(raw)}; allowed is an object")
        return
    yield from _key_faults(where, raw, _ROW_KEYS - {"evaluations", "group"}, {"evaluations", "group"})
    sla = raw.get("sla", [])
    if not isinstance(sla, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in sla):
        yield Fault(f"{where}.sla", f"is {_shown(sla)}; allowed is a list of [percentile, latency in ms]")
    if not isinstance(raw.get("achieved_ms", []), list):
        yield Fault(f"{where}.achieved_ms", f"is {_shown(raw['achieved_ms'])}; allowed is a list")
    config = raw.get("config")
    if config is None:
        return
    if not isinstance(config, dict):
        yield Fault(f"{where}.config", f"is {_shown(config)}; allowed is an object or null")
        return
    optional = {"fuse_items", "max_wait_us", "buffer", "offload_items"}
    yield from _key_faults(f"{where}.config", config, _CONFIG_KEYS - optional, optional)
    for name in ("stages", "threads", "operator_cores"):
        if not isinstance(config.get(name, []), list):
            yield Fault(f"{where}.config.{name}", f"is {_shown(config[name])}; allowed is a list")


def _row_faults(where: str, row: EfficiencyRow, servers: Sequence[str], workloads: Sequence[str]) -> list[Fault]:
    if not isinstance(row, EfficiencyRow):
        return [Fault(where, f"is {_shown(row)}; allowed is an EfficiencyRow")]
    out = []
    if row.server not in servers:
        out.append(Fault(f"{where}.server", f"is {row.server!r}, which is not in servers"))
    if row.workload not in workloads:
        out.append(Fault(f"{where}.workload", f"is {row.workload!r}, which is not in workloads"))
    figures = [
        fault
        for name, high in (("qps", MAX_QPS), ("qps_lo", MAX_QPS), ("qps_hi", MAX_QPS), ("power_w", MAX_POWER_W))
        for fault in _figure_faults(f"{where}.{name}", getattr(row, name), high)
    ]
    out += figures
    if not figures:
        out += _relation_faults(where, row)
    if row.status not in ("ok", "infeasible"):
        out.append(Fault(f"{where}.status", f"is {row.status!r}; allowed are 'ok', 'infeasible'"))
    if row.origin not in get_args(Origin):
        out.append(Fault(f"{where}.origin", f"is {row.origin!r}; allowed are {_choices(get_args(Origin))}"))
    return [*out, *_detail_faults(where, row)]


def _relation_faults(where: str, row: EfficiencyRow) -> Iterator[Fault]:
    """Figures that are fine alone and not together."""
    if row.status == "ok" and not (row.qps > 0 and row.power_w > 0):
        yield Fault(where, f"is ok with qps {row.qps} and power_w {row.power_w}; both must be > 0")
    if row.status == "infeasible" and row.qps != 0:
        yield Fault(f"{where}.qps", f"is {row.qps} in an infeasible row; allowed is 0")
    if row.qps_lo > row.qps:
        yield Fault(f"{where}.qps_lo", f"is {row.qps_lo}; allowed is <= qps, {row.qps}")
    if row.qps_hi < row.qps:
        yield Fault(f"{where}.qps_hi", f"is {row.qps_hi}; allowed is >= qps, {row.qps}")


def _detail_faults(where: str, row: EfficiencyRow) -> Iterator[Fault]:
    """What is wrong with the fields that planning does not read."""
    for k, (percentile, latency_ms) in enumerate(row.sla):
        if not _is_number(percentile) or not 0 < percentile < 100:
            yield Fault(f"{where}.sla[{k}][0]", f"is {_shown(percentile)}; allowed is 0 < percentile < 100")
        if not _is_number(latency_ms) or not 0 < latency_ms < math.inf:
            yield Fault(f"{where}.sla[{k}][1]", f"is {_shown(latency_ms)}; allowed is finite and > 0 ms")
    for k, value in enumerate(row.achieved_ms):
        yield from _figure_faults(f"{where}.achieved_ms[{k}]", value)
    energy = row.energy_j_per_query
    if not (isinstance(energy, float) and math.isnan(energy)):  # NaN: not known
        yield from _figure_faults(f"{where}.energy_j_per_query", energy)
    for name in ("utilisation", "memory_bytes"):
        values = getattr(row, name)
        if not isinstance(values, Mapping):
            yield Fault(f"{where}.{name}", f"is {_shown(values)}; allowed is an object")
            continue
        for key, value in values.items():
            yield from _figure_faults(f"{where}.{name}.{key}", value)
    for name in ("seed", "evaluations"):
        value = getattr(row, name)
        if type(value) is not int or not 0 <= value < 2**64:
            yield Fault(f"{where}.{name}", f"is {_shown(value)}; allowed is a whole number from 0")
    if type(row.group) is not int or not 1 <= row.group <= MAX_GROUP:
        yield Fault(f"{where}.group", f"is {_shown(row.group)}; allowed is a whole number from 1 to {MAX_GROUP}")
    for name in _TEXTS:
        if not isinstance(getattr(row, name), str):
            yield Fault(f"{where}.{name}", f"is {_shown(getattr(row, name))}; allowed is text")
    if row.config is not None:
        yield from _config_faults(f"{where}.config", row.config)


def _config_faults(where: str, config: SchedulingConfig) -> Iterator[Fault]:
    counts: list[tuple[str, Any]] = [
        (name, getattr(config, name)) for name in ("variant", "batch", "fuse_items", "max_wait_us", "offload_items")
    ]
    if config.buffer is not None:
        counts.append(("buffer", config.buffer))
    for name in ("threads", "operator_cores"):
        values = getattr(config, name)
        counts += [(f"{name}[{k}]", value) for k, value in enumerate(values)]
        if len(values) != len(config.stages):
            yield Fault(f"{where}.{name}", f"has {len(values)} entries; allowed is one per stage, {len(config.stages)}")
    for name, value in counts:
        if type(value) is not int or not 0 <= value < 2**63:
            yield Fault(f"{where}.{name}", f"is {_shown(value)}; allowed is a whole number from 0")
    for name, text in (("kind", config.kind), *((f"stages[{k}]", stage) for k, stage in enumerate(config.stages))):
        if not isinstance(text, str):
            yield Fault(f"{where}.{name}", f"is {_shown(text)}; allowed is text")


def _figure_faults(where: str, value: Any, high: float = math.inf) -> Iterator[Fault]:
    if not _is_number(value) or not 0 <= value <= high or value == math.inf:
        limit = "" if high == math.inf else f" and <= {high:g}"
        yield Fault(where, f"is {_shown(value)}; allowed is finite and >= 0{limit}")


def _is_number(value: Any) -> bool:
    """Whether ``value`` is a figure; ``True`` is not one, whatever Python says."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _choices(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _no_nan(value: Any) -> Any:
    """NaN is not JSON: unknown figures become null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _safe(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text
