"""Server hardware as data: CPUs, memories, accelerators, server types."""

from hercules_fast.hardware.descriptors import MARKS, Cpu, Gpu, Memory, Server

__all__ = ["MARKS", "Cpu", "Gpu", "Memory", "Server"]
