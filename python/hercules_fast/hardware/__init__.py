"""Server hardware as data: CPUs, memories, accelerators, server types."""

from hercules_fast.hardware.descriptors import MARKS, Cpu, Gpu, Memory, Server
from hercules_fast.hardware.files import (
    cpu,
    cpu_names,
    gpu,
    gpu_names,
    load_cpu,
    load_gpu,
    load_memory,
    load_server,
    memory,
    memory_names,
    server,
    server_names,
    toml_text,
)

__all__ = [
    "MARKS",
    "Cpu",
    "Gpu",
    "Memory",
    "Server",
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
