"""Offline profiling: the configuration space, its search, and the efficiency table."""

from hercules_fast.profiling.lattice import Space, space
from hercules_fast.profiling.many import profile
from hercules_fast.profiling.settings import Effort
from hercules_fast.profiling.single import SearchResult, SearchStep, search

__all__ = ["Effort", "SearchResult", "SearchStep", "Space", "profile", "search", "space"]
