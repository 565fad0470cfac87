"""ServiceTable, the first narrow waist: stages with seconds, and nothing of the hardware that they came from."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import ConfigError, Fault, InputError
from hercules_fast.tables.config import SchedulingConfig
from hercules_fast.tables.files import read_arrays, write_atomically

__all__ = ["SCHEMA", "ServiceTable", "TableGroupSpec", "TableStage", "TableVariant"]

SCHEMA = "hercules_fast.service_table/1"
MAX_BYTES = 1 << 30
"""Largest table file, unpacked, that is read."""

Origin = Literal["measured", "modelled", "published"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableStage:
    """A station of the queue. ``unit`` says what it serves: sub-batches, whole queries, or fused queries."""

    name: str
    group: str
    unit: Literal["sub_batch", "query", "fused"]
    busy_of: str
    """Stage whose busy threads index the ``busy`` axis: itself, or one that slows it."""
    after: tuple[str, ...] = ()
    """Stages that may come before it; a configuration leaves out stages by giving them no threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableGroupSpec:
    """A shared resource. Threads times operator cores of its stages may not exceed ``capacity``."""

    name: str
    component: str
    """The component whose utilisation, and so power, this group's busy share is."""
    capacity: int
    interference: Literal["none", "at_start", "dynamic_rate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableVariant:
    """One way to lay the model out; ``operator_cores`` is per stage, 0 where the stage is not used or has no cores."""

    name: str
    kind: str
    operator_cores: tuple[int, ...]
    max_instances: int
    """Most accelerator instances that fit (0 without accelerator)."""
    memory_bytes: Mapping[str, float] = field(default_factory=dict)
    """Bytes needed per memory pool, such as ``host`` and ``gpu`` (per instance)."""
    pool_on_host: bool = False
    hot_share: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ServiceTable:
    """Seconds and dynamic energy of every stage of one workload on one server type.

    Attributes:
        items: int64 [I], batch sizes of the grid in items, from 1, increasing.
        busy: int64 [B], busy threads, from 1, increasing.
        seconds: float64 [V, S, I, B], service time; linear in items and busy between grid points, never beyond the
            last number of items; NaN where a variant does not use a stage.
        energy_j: float64 [V, S, I], dynamic energy of one service beyond what ``busy`` utilisation of its group's
            component accounts for (memory traffic); NaN = unknown.
        noise_cv: float64 [S], coefficient of variation of a service time around the table.
        idle_w, tdp_w: power of each component at rest and at full use. base_w: always drawn.
        assumptions: every modelling assumption that entered, in words.
    """

    server: str
    workload: str
    origin: Origin
    assumptions: tuple[str, ...]
    items: npt.NDArray[np.int64]
    busy: npt.NDArray[np.int64]
    variants: tuple[TableVariant, ...]
    stages: tuple[TableStage, ...]
    groups: tuple[TableGroupSpec, ...]
    seconds: npt.NDArray[np.float64]
    energy_j: npt.NDArray[np.float64]
    noise_cv: npt.NDArray[np.float64]
    idle_w: Mapping[str, float]
    tdp_w: Mapping[str, float]
    base_w: float

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise ConfigError(f"service table of {self.workload!r} on {self.server!r}", faults)
        for name in ("items", "busy", "seconds", "energy_j", "noise_cv"):
            array = np.ascontiguousarray(getattr(self, name))
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def max_items(self) -> int:
        """Largest batch that the table answers for."""
        return int(self.items[-1])

    def stage_index(self, name: str) -> int:
        """Position of stage ``name``."""
        return [s.name for s in self.stages].index(name)

    def uses(self, variant: int, stage: int) -> bool:
        """Whether a variant uses a stage, both by position."""
        return not np.isnan(self.seconds[variant, stage, 0, 0])

    def config(
        self,
        variant: int,
        threads: tuple[int, ...],
        *,
        batch: int,
        fuse_items: int = 1,
        max_wait_us: int = 0,
        buffer: int | None = None,
        offload_items: int = 0,
    ) -> SchedulingConfig:
        """A configuration of this table, checked: threads fit their groups, stages exist in the variant.

        ``buffer`` needs two pools that hand sub-batches on, ``offload_items`` exactly two stages, the first for small
        queries and the second for large ones.

        Raises:
            InputError: naming what does not fit.
        """
        if not 0 <= variant < len(self.variants):
            raise InputError(f"variant: is {variant}; allowed is 0 to {len(self.variants) - 1}")
        v = self.variants[variant]
        if len(threads) != len(self.stages):
            raise InputError(f"threads: has {len(threads)} entries; allowed is one per stage, {len(self.stages)}")
        if batch < 1:
            raise InputError(f"batch: is {batch}; allowed is >= 1 item")
        if batch > self.max_items:
            raise InputError(f"batch: is {batch}; the table ends at {self.max_items} items and is not extrapolated")
        if fuse_items < 1:
            raise InputError(f"fuse_items: is {fuse_items}; allowed is >= 1 item")
        used: dict[str, int] = {}
        for s, stage in enumerate(self.stages):
            if threads[s] < 0:
                raise InputError(f"threads[{s}]: is {threads[s]}; allowed is >= 0")
            if threads[s] and not self.uses(variant, s):
                raise InputError(f"threads[{s}]: variant {v.name!r} does not use stage {stage.name!r}")
            used[stage.group] = used.get(stage.group, 0) + threads[s] * max(1, v.operator_cores[s])
        for group in self.groups:
            limit = v.max_instances if group.component == "gpu" else group.capacity
            if used.get(group.name, 0) > limit:
                raise InputError(f"threads: use {used[group.name]} of group {group.name!r}; allowed is <= {limit}")
        if not any(threads):
            raise InputError("threads: all are 0; at least one stage must run")
        self._check_paths(v, [s for s, count in enumerate(threads) if count], buffer, offload_items)
        return SchedulingConfig(
            kind=v.kind,
            variant=variant,
            stages=tuple(s.name for s in self.stages),
            threads=tuple(threads),
            operator_cores=v.operator_cores,
            batch=batch,
            fuse_items=fuse_items,
            max_wait_us=max_wait_us,
            buffer=buffer,
            offload_items=offload_items,
        )

    def _check_paths(self, variant: TableVariant, used: list[int], buffer: int | None, offload_items: int) -> None:
        """Refuse a buffer without a pipeline, and an offload without two ways through the server."""
        if buffer is not None and buffer < 0:
            raise InputError(f"buffer: is {buffer}; allowed is >= 0 sub-batches, or None for no bound")
        if offload_items < 0:
            raise InputError(f"offload_items: is {offload_items}; allowed is >= 0 items (0: no offload)")
        names = [self.stages[s].name for s in used]
        hands_on = any(self.stages[a].unit == self.stages[b].unit == "sub_batch" for a, b in pairwise(used))
        if buffer is not None and (offload_items or not hands_on):
            raise InputError(f"buffer: is {buffer} for stages {names}; allowed is None without a pipeline of two pools")
        if offload_items and len(used) != 2:
            message = f"is {offload_items} for stages {names}; allowed is 0 except with exactly two stages"
            raise InputError(f"offload_items: {message}")
        if variant.kind == "cpu-gpu-offload" and len(used) == 2 and not offload_items:
            message = f"is 0 for stages {names} of a variant of kind {variant.kind!r}; allowed is >= 1 item"
            raise InputError(f"offload_items: {message}")

    def header(self) -> dict[str, Any]:
        """Everything but the arrays, as plain data."""
        return {
            "schema": SCHEMA,
            "server": self.server,
            "workload": self.workload,
            "origin": self.origin,
            "assumptions": list(self.assumptions),
            "variants": [asdict(v) for v in self.variants],
            "stages": [asdict(s) for s in self.stages],
            "groups": [asdict(g) for g in self.groups],
            "idle_w": dict(self.idle_w),
            "tdp_w": dict(self.tdp_w),
            "base_w": self.base_w,
        }

    def digest(self) -> str:
        """SHA-256 of header and arrays: what an efficiency row says it was made from."""
        h = hashlib.sha256(json.dumps(self.header(), sort_keys=True).encode())
        for name in _ARRAYS:
            h.update(getattr(self, name).tobytes())
        return h.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``path`` (.npz with a JSON header, no pickle), all or nothing.

        Raises:
            OutputError: the file cannot be written; what stood there is untouched.
        """
        header = np.frombuffer(json.dumps(self.header(), sort_keys=True).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, header=header, **{name: getattr(self, name) for name in _ARRAYS})
        write_atomically(Path(path), buffer.getvalue())

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        *,
        server: str,
        workload: str,
        idle_w: float,
        tdp_w: float,
        base_w: float = 0.0,
    ) -> ServiceTable:
        """A table of a user's measurements, see :func:`hercules_fast.tables.read_service_csv`."""
        from hercules_fast.tables.measurements import read_service_csv

        return read_service_csv(Path(path), server=server, workload=workload, idle_w=idle_w, tdp_w=tdp_w, base_w=base_w)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ServiceTable:
        """Read a table that :meth:`save` wrote, or one of a user's own of the same schema.

        Raises:
            MissingFileError: there is no such file.
            ConfigError: the file is no service table, or its content breaks the schema.
        """
        source = os.fspath(path)
        header, arrays = read_arrays(source, SCHEMA, _ARRAYS, MAX_BYTES)
        try:
            header["variants"] = tuple(
                TableVariant(**{**v, "operator_cores": tuple(v["operator_cores"])}) for v in header["variants"]
            )
            header["stages"] = tuple(TableStage(**{**s, "after": tuple(s["after"])}) for s in header["stages"])
            header["groups"] = tuple(TableGroupSpec(**g) for g in header["groups"])
            header["assumptions"] = tuple(header["assumptions"])
            return cls(**(header | arrays))
        except (TypeError, KeyError) as error:
            raise ConfigError(source, [Fault("header", f"does not meet the schema: {error}")]) from error


_ARRAYS = ("items", "busy", "seconds", "energy_j", "noise_cv")


def _faults(t: ServiceTable) -> list[Fault]:
    """All that is wrong with a table, each with its field path."""
    out: list[Fault] = []
    v, s, i, b = len(t.variants), len(t.stages), t.items.size, t.busy.size
    shapes = {"seconds": (v, s, i, b), "energy_j": (v, s, i), "noise_cv": (s,)}
    for name, shape in shapes.items():
        array = getattr(t, name)
        if array.dtype != np.float64 or array.shape != shape:
            out.append(Fault(name, f"is {array.dtype} {array.shape}; allowed is float64 {shape}"))
    for name in ("items", "busy"):
        axis = getattr(t, name)
        ok = axis.ndim == 1 and axis.size > 0 and axis.dtype == np.int64
        if not ok or axis[0] != 1 or np.any(axis[1:] <= axis[:-1]):
            out.append(Fault(name, "must be int64, start at 1 and increase"))
    if out:
        return out
    stages = {stage.name for stage in t.stages}
    groups = {group.name for group in t.groups}
    for k, stage in enumerate(t.stages):
        if stage.group not in groups:
            out.append(Fault(f"stage[{k}].group", f"is {stage.group!r}; allowed are {sorted(groups)}"))
        for name in (stage.busy_of, *stage.after):
            if name not in stages:
                out.append(Fault(f"stage[{k}]", f"names stage {name!r}; allowed are {sorted(stages)}"))
        position = [x.name for x in t.stages]
        if any(name in stages and position.index(name) >= k for name in stage.after):
            out.append(Fault(f"stage[{k}].after", "may only name stages that stand before it"))
    used = ~np.isnan(t.seconds)
    partly = used.any(axis=(2, 3)) & ~used.all(axis=(2, 3))
    for a, c in np.argwhere(partly):
        out.append(Fault(f"seconds[{a},{c}]", "is NaN in part; a stage is used by a variant or it is not"))
    bad = used & ~((t.seconds > 0) & np.isfinite(np.where(used, t.seconds, 0.0)))
    for a, c in np.argwhere(bad.any(axis=(2, 3))):
        out.append(Fault(f"seconds[{a},{c}]", "must be finite and > 0"))
    if np.any(t.energy_j < 0) or np.any(np.isinf(t.energy_j)):
        out.append(Fault("energy_j", "must be >= 0 and finite, or NaN for unknown"))
    if not np.all(np.isfinite(t.noise_cv) & (t.noise_cv >= 0)):
        out.append(Fault("noise_cv", "must be finite and >= 0"))
    for name in ("idle_w", "tdp_w"):
        for component, value in getattr(t, name).items():
            if not np.isfinite(value) or value < 0:
                out.append(Fault(f"{name}.{component}", f"is {value}; allowed is finite and >= 0"))
    if set(t.idle_w) != set(t.tdp_w):
        out.append(Fault("idle_w", f"names {sorted(t.idle_w)}, tdp_w names {sorted(t.tdp_w)}"))
    for k, group in enumerate(t.groups):
        if group.capacity < 1:
            out.append(Fault(f"group[{k}].capacity", f"is {group.capacity}; allowed is >= 1"))
    for k, variant in enumerate(t.variants):
        if len(variant.operator_cores) != s:
            out.append(Fault(f"variant[{k}].operator_cores", f"must have one entry per stage, {s}"))
    return out
