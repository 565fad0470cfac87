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
from hercules_fast.traffic.files import (
    arrivals,
    arrivals_names,
    load,
    load_arrivals,
    load_names,
    load_sizes,
    load_trace,
    load_workload,
    sizes,
    sizes_names,
    workload,
    workload_names,
)
from hercules_fast.traffic.size_law import size_mean, size_pmf, size_quantile, size_units
from hercules_fast.traffic.trace import read_load_csv

__all__ = [
    "Arrivals",
    "LoadTrace",
    "Repairs",
    "SizeComponent",
    "SizeLaw",
    "Sla",
    "Workload",
    "arrivals",
    "arrivals_names",
    "load",
    "load_arrivals",
    "load_names",
    "load_sizes",
    "load_trace",
    "load_workload",
    "read_load_csv",
    "size_mean",
    "size_pmf",
    "size_quantile",
    "size_units",
    "sizes",
    "sizes_names",
    "workload",
    "workload_names",
]
