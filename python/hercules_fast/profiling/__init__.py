"""Offline profiling: the configuration space, its search, and the efficiency table."""

from hercules_fast.profiling.lattice import Space, space
from hercules_fast.profiling.many import profile
from hercules_fast.profiling.settings import Cost, Effort, Goal
from hercules_fast.profiling.single import SearchResult, SearchStep, search

__all__ = ["Cost", "Effort", "Goal", "SearchResult", "SearchStep", "Space", "profile", "search", "space"]
