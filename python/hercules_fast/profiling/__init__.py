"""Offline profiling: the configuration space, its search, and the efficiency table."""

from hercules_fast.profiling.comparison import Change, Comparison, compare
from hercules_fast.profiling.lattice import Space, space
from hercules_fast.profiling.many import ProfiledTable, profile
from hercules_fast.profiling.settings import Effort
from hercules_fast.profiling.single import SearchResult, SearchStep, search

__all__ = [
    "Change",
    "Comparison",
    "Effort",
    "ProfiledTable",
    "SearchResult",
    "SearchStep",
    "Space",
    "compare",
    "profile",
    "search",
    "space",
]
