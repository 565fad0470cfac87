"""Recommendation models as data, with their operator graph."""

from hercules_fast.models.descriptors import LatencyTarget, Model, Operator, Stage, TableGroup
from hercules_fast.models.files import load_model, model, model_names
from hercules_fast.models.graph import operators
from hercules_fast.models.imports import (
    load_any_model,
    load_deeprecsys_model,
    load_torchrec_tables,
    model_from_dlrm_flags,
    model_from_embedding_bag_configs,
)

__all__ = [
    "LatencyTarget",
    "Model",
    "Operator",
    "Stage",
    "TableGroup",
    "load_any_model",
    "load_deeprecsys_model",
    "load_model",
    "load_torchrec_tables",
    "model",
    "model_from_dlrm_flags",
    "model_from_embedding_bag_configs",
    "model_names",
    "operators",
]
