"""Offline profiling: the configuration space, its search, and the efficiency table."""

from hercules_fast.profiling.calibration import Calibration, CurveFit, HostFit, calibrate
from hercules_fast.profiling.comparison import Change, Comparison, compare
from hercules_fast.profiling.curves import Curve, published_curves, read_curves_csv
from hercules_fast.profiling.lattice import Space, space
from hercules_fast.profiling.many import ProfiledTable, profile
from hercules_fast.profiling.settings import Cost, Effort, Goal
from hercules_fast.profiling.single import SearchResult, SearchStep, search
from hercules_fast.profiling.slices import Slice

__all__ = [
    "Calibration",
    "Change",
    "Comparison",
    "Cost",
    "Curve",
    "CurveFit",
    "Effort",
    "Goal",
    "HostFit",
    "ProfiledTable",
    "SearchResult",
    "SearchStep",
    "Slice",
    "Space",
    "calibrate",
    "compare",
    "profile",
    "published_curves",
    "read_curves_csv",
    "search",
    "space",
]
