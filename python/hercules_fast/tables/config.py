"""A scheduling configuration, as data: what the search returns and the simulator runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SchedulingConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulingConfig:
    """How one server runs one model. Tuples run over the stages of the service table that it was made for.

    ``threads`` are model threads (or co-located instances of an accelerator stage); a stage with none is not used.
    ``operator_cores`` are the cores inside one thread. ``batch`` is the most items of a sub-batch. ``fuse_items`` is
    the most items that an accelerator launches together (1: one query at a time; without accelerator stage it is 1).
    ``buffer`` is the most sub-batches that wait between two pools of a pipeline; a thread whose result finds no place
    is blocked until there is one (blocking after service; None: no bound). With ``offload_items``, queries of at least
    so many items go whole to the accelerator and all others to the CPU pool (0: no offload).
    """

    kind: str
    variant: int
    stages: tuple[str, ...]
    threads: tuple[int, ...]
    operator_cores: tuple[int, ...]
    batch: int
    fuse_items: int = 1
    max_wait_us: int = 0
    buffer: int | None = None
    offload_items: int = 0

    @property
    def row(self) -> tuple[int, ...]:
        """The row of integers that the core takes.

        variant, batch, fuse_items, max_wait_us, buffer (-1: no bound), offload_items, threads...
        """
        buffer = -1 if self.buffer is None else self.buffer
        return (self.variant, self.batch, self.fuse_items, self.max_wait_us, buffer, self.offload_items, *self.threads)

    def describe(self) -> str:
        """One line in the words of the field, such as ``cpu: model 18x1, batch 64``."""
        parts = []
        for name, threads, cores in zip(self.stages, self.threads, self.operator_cores, strict=True):
            if threads:
                parts.append(f"{name} {threads}x{cores}" if cores else f"{name} x{threads}")
        text = f"{self.kind}: " + ", ".join(parts)
        used = [cores for threads, cores in zip(self.threads, self.operator_cores, strict=True) if threads]
        if any(used):
            text += f", batch {self.batch}"
        if self.buffer is not None:
            text += f", buffer {self.buffer}"
        if "gpu" in self.kind:
            text += f", fuse {self.fuse_items}" if self.fuse_items > 1 else ", unfused"
        if self.max_wait_us:
            text += f", wait {self.max_wait_us} us"
        if self.offload_items:
            text += f", from {self.offload_items} items on the GPU"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SchedulingConfig:
        """Back from :meth:`to_dict`."""
        fields: dict[str, Any] = dict(data)
        for name in ("stages", "threads", "operator_cores"):
            fields[name] = tuple(fields[name])
        return cls(**fields)
