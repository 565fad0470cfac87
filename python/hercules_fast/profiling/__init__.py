"""Offline profiling: the configuration space, its search, and the efficiency table."""

from hercules_fast.profiling.lattice import Space, space
from hercules_fast.profiling.pairs import Effort, SearchResult, SearchStep, profile, search

__all__ = ["Effort", "SearchResult", "SearchStep", "Space", "profile", "search", "space"]
