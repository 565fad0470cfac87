"""Files and catalogue of the hardware room."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from hercules_fast.descriptors import (
    COUNT,
    EFFICIENCY,
    FILE_RULES,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    Bound,
    Catalog,
    FileKind,
    Variants,
    load,
)
from hercules_fast.errors import ConfigError, Fault
from hercules_fast.hardware.descriptors import Cpu, Gpu, Memory, Server

__all__ = [
    "KINDS",
    "cpu",
    "cpu_names",
    "gpu",
    "gpu_names",
    "load_cpu",
    "load_gpu",
    "load_memory",
    "load_server",
    "memory",
    "memory_names",
    "server",
    "server_names",
    "toml_text",
]

_CATALOG = Path(__file__).parent / "catalog"
_FREQUENCY_GHZ = Bound(0.0, 100.0, low_open=True)
_RESERVE = Bound(0.0, 1.0, high_open=True)
MAX_RANKS = 64
"""Most ranks of a channel."""


def _as_read(form: Any, _resolve: Callable[[str, str], Any]) -> Any:
    return form


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryForm(Memory):
    """A memory as its file writes it: the standard by name."""

    standard: str


def _memory_faults(memory: MemoryForm) -> Iterator[Fault]:
    if memory.ranks > MAX_RANKS or memory.ranks & (memory.ranks - 1):
        yield Fault(
            "ranks_per_dimm",
            f"{memory.dimms_per_channel} DIMMs of {memory.ranks_per_dimm} are {memory.ranks} ranks on a channel; "
            f"allowed is a power of two up to {MAX_RANKS}",
        )


def _build_memory(form: MemoryForm, resolve: Callable[[str, str], Any]) -> Memory:
    standard = resolve("dram", form.standard)
    held_gb = form.channels * form.ranks * standard.rank_bytes / 1e9
    if form.capacity_gb > held_gb:
        message = f"is {form.capacity_gb:g}; {form.channels * form.ranks} ranks of {standard.name} hold {held_gb:.1f}"
        raise ConfigError(form.name, [Fault("capacity_gb", message)])
    values = {spec.name: getattr(form, spec.name) for spec in fields(Memory)}
    return Memory(**{**values, "standard": standard})


CPU: FileKind[Cpu] = FileKind(
    name="cpu",
    form=Cpu,
    catalog=_CATALOG / "cpu",
    build=_as_read,
    bounds={
        "cores": Bound(1, 4096),
        "frequency_ghz": _FREQUENCY_GHZ,
        "simd_frequency_ghz": _FREQUENCY_GHZ,
        "fp32_flop_per_cycle": POSITIVE,
        "l2_kb": POSITIVE,
        "llc_mb": POSITIVE,
        "tdp_w": POSITIVE,
        "idle_fraction": FRACTION,
        "operator_overhead_us": NOT_NEGATIVE,
        "gather_core_gb_s": POSITIVE,
        "llc_core_gb_s": POSITIVE,
        "gemm_efficiency": EFFICIENCY,
    },
)

_PLAIN_MEMORY = frozenset[str]()
_NMP_MEMORY = frozenset({"nmp_mode", "nmp_packet", "nmp_issue_ns"})

MEMORY: FileKind[Memory] = FileKind(
    name="memory",
    form=MemoryForm,
    catalog=_CATALOG / "memory",
    build=_build_memory,
    bounds={
        "channels": COUNT,
        "dimms_per_channel": COUNT,
        "ranks_per_dimm": COUNT,
        "capacity_gb": POSITIVE,
        "tdp_w": POSITIVE,
        "idle_fraction": FRACTION,
        "nmp_packet": Bound(0, 2**20),
        "nmp_issue_ns": NOT_NEGATIVE,
    },
    references={"standard": "dram"},
    variants=(
        Variants(
            at="",
            by="kind",
            cases={"ddr4": (_PLAIN_MEMORY, _PLAIN_MEMORY), "nmp": (_NMP_MEMORY, _PLAIN_MEMORY)},
        ),
    ),
    rules=_memory_faults,
)

GPU: FileKind[Gpu] = FileKind(
    name="gpu",
    form=Gpu,
    catalog=_CATALOG / "gpu",
    build=_as_read,
    bounds={
        "fp32_tflop_s": POSITIVE,
        "memory_gb": POSITIVE,
        "memory_gb_s": POSITIVE,
        "memory_reserve": _RESERVE,
        "link_gb_s": POSITIVE,
        "tdp_w": POSITIVE,
        "idle_fraction": FRACTION,
        "operator_overhead_us": NOT_NEGATIVE,
        "compute_efficiency": EFFICIENCY,
        "gather_efficiency": EFFICIENCY,
        "max_instances": COUNT,
    },
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerForm:
    """A server as its file writes it: components by name."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    cpu: str
    memory: str
    gpu: str | None = None
    base_w: float
    memory_reserve: float
    sources: Mapping[str, str] = field(default_factory=dict)


def _build_server(form: ServerForm, resolve: Callable[[str, str], Any]) -> Server:
    return Server(
        name=form.name,
        cpu=resolve("cpu", form.cpu),
        memory=resolve("memory", form.memory),
        gpu=None if form.gpu is None else resolve("gpu", form.gpu),
        base_w=form.base_w,
        memory_reserve=form.memory_reserve,
        sources=form.sources,
    )


SERVER: FileKind[Server] = FileKind(
    name="server",
    form=ServerForm,
    catalog=_CATALOG / "server",
    build=_build_server,
    bounds={"base_w": NOT_NEGATIVE, "memory_reserve": _RESERVE},
    references={"cpu": "cpu", "memory": "memory", "gpu": "gpu"},
    columns=("name",),
)

KINDS: tuple[FileKind[Any], ...] = (CPU, MEMORY, GPU, SERVER)

_CPUS, _MEMORIES, _GPUS, _SERVERS = Catalog(CPU), Catalog(MEMORY), Catalog(GPU), Catalog(SERVER)


def cpu(name: str) -> Cpu:
    """Return the catalogue's CPU ``name``; case does not matter. Raises ``UnknownNameError`` with the nearest name."""
    return _CPUS.get(name)


def memory(name: str) -> Memory:
    """Return the catalogue's memory ``name``, as :func:`cpu`."""
    return _MEMORIES.get(name)


def gpu(name: str) -> Gpu:
    """Return the catalogue's accelerator ``name``, as :func:`cpu`."""
    return _GPUS.get(name)


def server(name: str) -> Server:
    """Return the catalogue's server type ``name``, as :func:`cpu`."""
    return _SERVERS.get(name)


def cpu_names() -> tuple[str, ...]:
    """Return the CPUs of the catalogue."""
    return _CPUS.names()


def memory_names() -> tuple[str, ...]:
    """Return the memories of the catalogue."""
    return _MEMORIES.names()


def gpu_names() -> tuple[str, ...]:
    """Return the accelerators of the catalogue."""
    return _GPUS.names()


def server_names() -> tuple[str, ...]:
    """Return the server types of the catalogue."""
    return _SERVERS.names()


def toml_text(part: Cpu | Memory | Gpu | Server) -> str:
    """Return ``part`` as its file would write it; the loader of its kind reads it back.

    What it is made of (a server's components, a memory's standard) is written by name.
    """
    kind = next(kind for kind in KINDS if kind.name == type(part).__name__.lower())
    unused = _NMP_MEMORY if isinstance(part, Memory) and part.kind == "ddr4" else frozenset()
    names = [spec.name for spec in fields(part) if spec.name != "sources" and spec.name not in unused]
    figures = {name: getattr(part, name) for name in names if getattr(part, name) is not None}
    lines = [f'schema = "{kind.schema}"', *(f"{name} = {_toml_value(value)}" for name, value in figures.items())]
    sources = {key: text for key, text in part.sources.items() if key not in unused}
    lines += ["", "[sources]", *(f"{_toml_key(key)} = {_toml_value(text)}" for key, text in sources.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    """TOML's strings and numbers, which are JSON's; what is no such thing by its name."""
    return json.dumps(value if isinstance(value, str | int | float) else value.name, ensure_ascii=False)


def _toml_key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else _toml_value(key)


def load_cpu(path: str | Path) -> Cpu:
    """Read a CPU from a TOML file; raises ``ConfigError`` with all of its faults, or ``MissingFileError``."""
    return load(path, CPU)


def load_memory(path: str | Path) -> Memory:
    """Read a memory from a TOML file, as :func:`load_cpu`."""
    return load(path, MEMORY)


def load_gpu(path: str | Path) -> Gpu:
    """Read an accelerator from a TOML file, as :func:`load_cpu`."""
    return load(path, GPU)


def load_server(path: str | Path, *, files: Sequence[str | Path] = ()) -> Server:
    """Read a server type from a TOML file.

    The names of its components are looked up in ``files``, beside ``path``, then in the catalogue. Raises as
    :func:`load_cpu` does.
    """
    return load(path, SERVER, files=files)
