"""Traffic as data: query sizes, arrivals, SLAs, workloads, load traces."""

from hercules_fast.traffic.descriptors import (
    Arrivals,
    LoadTrace,
    Repairs,
    SizeComponent,
    SizeLaw,
    Sla,
    Workload,
)

__all__ = ["Arrivals", "LoadTrace", "Repairs", "SizeComponent", "SizeLaw", "Sla", "Workload"]
