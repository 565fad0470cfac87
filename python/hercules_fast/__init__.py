"""hercules-fast: profile, simulate and provision recommendation-model serving on mixed hardware.

``import hercules_fast as hf`` is cheap: each public name is loaded from its room at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hercules_fast._core import build_info, capabilities
    from hercules_fast.errors import HerculesError
    from hercules_fast.fleets import Fleet, fleet, load_fleet
    from hercules_fast.measure import ServiceMeasurement, Validation, measure_service, validate
    from hercules_fast.planning import PlanRun, plan
    from hercules_fast.profiling import (
        Calibration,
        Comparison,
        Cost,
        Effort,
        ProfiledTable,
        SearchResult,
        calibrate,
        compare,
        profile,
        search,
    )
    from hercules_fast.provisioning import Plan, Policy, provision
    from hercules_fast.queueing import (
        Law,
        LawService,
        LinearService,
        Queries,
        Route,
        Station,
        System,
        TableService,
        Trace,
        max_load,
        mlperf_server_valid,
        simulate,
        sweep,
    )
    from hercules_fast.serving import Terms, server_power, service_table
    from hercules_fast.sls import EmbeddingBagCollection, EmbeddingTable, embedding_bag, sparse_lengths_sum
    from hercules_fast.tables import EfficiencyTable, SchedulingConfig, ServiceTable
    from hercules_fast.traffic import Arrivals, LoadTrace, Sla, Workload, read_load_csv

# Public name -> module that holds it.
_HOMES = {
    "Arrivals": "traffic",
    "Calibration": "profiling",
    "Comparison": "profiling",
    "Cost": "profiling",
    "Effort": "profiling",
    "EfficiencyTable": "tables",
    "EmbeddingBagCollection": "sls",
    "EmbeddingTable": "sls",
    "Fleet": "fleets",
    "HerculesError": "errors",
    "Law": "queueing",
    "LawService": "queueing",
    "LinearService": "queueing",
    "LoadTrace": "traffic",
    "Plan": "provisioning",
    "PlanRun": "planning",
    "Policy": "provisioning",
    "ProfiledTable": "profiling",
    "Queries": "queueing",
    "Route": "queueing",
    "SchedulingConfig": "tables",
    "SearchResult": "profiling",
    "ServiceMeasurement": "measure",
    "ServiceTable": "tables",
    "Sla": "traffic",
    "Station": "queueing",
    "System": "queueing",
    "TableService": "queueing",
    "Terms": "serving",
    "Trace": "queueing",
    "Validation": "measure",
    "Workload": "traffic",
    "build_info": "_core",
    "calibrate": "profiling",
    "capabilities": "_core",
    "compare": "profiling",
    "embedding_bag": "sls",
    "fleet": "fleets",
    "load_fleet": "fleets",
    "max_load": "queueing",
    "measure_service": "measure",
    "mlperf_server_valid": "queueing",
    "plan": "planning",
    "profile": "profiling",
    "provision": "provisioning",
    "read_load_csv": "traffic",
    "search": "profiling",
    "server_power": "serving",
    "service_table": "serving",
    "simulate": "queueing",
    "sparse_lengths_sum": "sls",
    "sweep": "queueing",
    "validate": "measure",
}
_ROOMS = frozenset(
    {
        *("descriptors", "errors", "fleets", "hardware", "host", "measure", "memory", "models", "planning", "plotting"),
        *("profiling", "provisioning", "queueing", "report", "serving", "sls", "tables", "traffic"),
    }
)

__all__ = [
    "Arrivals",
    "Calibration",
    "Comparison",
    "Cost",
    "EfficiencyTable",
    "Effort",
    "EmbeddingBagCollection",
    "EmbeddingTable",
    "Fleet",
    "HerculesError",
    "Law",
    "LawService",
    "LinearService",
    "LoadTrace",
    "Plan",
    "PlanRun",
    "Policy",
    "ProfiledTable",
    "Queries",
    "Route",
    "SchedulingConfig",
    "SearchResult",
    "ServiceMeasurement",
    "ServiceTable",
    "Sla",
    "Station",
    "System",
    "TableService",
    "Terms",
    "Trace",
    "Validation",
    "Workload",
    "build_info",
    "calibrate",
    "capabilities",
    "compare",
    "embedding_bag",
    "fleet",
    "load_fleet",
    "max_load",
    "measure_service",
    "mlperf_server_valid",
    "plan",
    "profile",
    "provision",
    "read_load_csv",
    "search",
    "server_power",
    "service_table",
    "simulate",
    "sparse_lengths_sum",
    "sweep",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})
