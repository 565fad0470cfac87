"""Recommendation models as data, with their operator graph."""

from hercules_fast.models.descriptors import LatencyTarget, Model, Operator, Stage, TableGroup

__all__ = ["LatencyTarget", "Model", "Operator", "Stage", "TableGroup"]
