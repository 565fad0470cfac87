"""Recommendation models as data, with their operator graph."""

from hercules_fast.models.descriptors import LatencyTarget, Model, Operator, Stage, TableGroup
from hercules_fast.models.files import load_model, model, model_names
from hercules_fast.models.graph import operators

__all__ = [
    "LatencyTarget",
    "Model",
    "Operator",
    "Stage",
    "TableGroup",
    "load_model",
    "model",
    "model_names",
    "operators",
]
