"""Recommendation models as data, and the operator graph that the service-time model reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, ClassVar, Literal

from hercules_fast.descriptors.schema import FILE_RULES
from hercules_fast.errors import InputError

__all__ = ["LatencyTarget", "Model", "Operator", "Stage", "TableGroup"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableGroup:
    """``count`` embedding tables of one shape."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    count: int
    rows: int
    dim: int
    pooling: int
    """Lookups per item and table (the pooling factor)."""
    dtype_bytes: int = 4
    role: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dim * self.dtype_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One part of the dense network. Which fields apply depends on ``kind``:

    ``mlp``: ``dims`` (first = input) and ``copies`` independent networks with their own weights ·
    ``concat``: ``out_dim``, ``copies`` times ·
    ``dot``: ``vectors`` of ``dim`` are multiplied pairwise, then ``out_dim`` ·
    ``sum``: ``vectors`` of ``dim`` are added · ``rnn``: ``steps`` of a tanh cell ``input_dim`` -> ``hidden_dim`` ·
    ``attention``: ``steps`` of a layer ``dims`` and a softmax over the steps ·
    ``cross``: ``layers`` of a low-rank cross network of width ``dim`` and rank ``rank`` (DCN-v2).
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    kind: Literal["mlp", "concat", "dot", "sum", "rnn", "attention", "cross"]
    dims: tuple[int, ...] = ()
    copies: int = 1
    out_dim: int = 0
    vectors: int = 0
    dim: int = 0
    steps: int = 1
    input_dim: int = 0
    hidden_dim: int = 0
    layers: int = 0
    rank: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyTarget:
    """A tail-latency target and how far it can be traced."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    percentile: float
    """In percent, 95 means p95."""
    latency_ms: float
    status: Literal["stated", "published", "inferred", "assumed", "user"]
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """A node of the operator graph, as a framework would dispatch it.

    ``copies`` are independent of each other (they can run on different operator cores); ``steps`` follow each other.
    Work is per item, copy and step.
    """

    name: str
    kind: Literal["sls", "gemm", "elementwise"]
    copies: int
    steps: int
    flop_per_item: float
    weight_bytes: float
    """Bytes of dense weights that one copy reads per step, whatever the batch (0 for SLS)."""
    width: int
    """For ``gemm``: the smaller of input and output width, which sets its efficiency."""
    lookups_per_item: float = 0.0
    """For ``sls``: rows gathered per item from one copy (= table)."""
    row_bytes: float = 0.0

    @property
    def dispatches(self) -> int:
        """Operators that the framework dispatches for one batch."""
        return self.copies * self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A recommendation model: embedding tables, then a dense network."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    name: str
    family: str
    label: str
    """What this configuration is, for example 'public configuration' or 'scaled, not the paper's'."""
    dense_input_dim: int
    tables: tuple[TableGroup, ...]
    stages: tuple[Stage, ...]
    latency_targets: tuple[LatencyTarget, ...]
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def embedding_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(t.count * t.rows * t.row_bytes for t in self.tables)

    @property
    def lookups_per_item(self) -> int:
        """Rows gathered to rank one item."""
        return sum(t.count * t.pooling for t in self.tables)

    @property
    def embedding_read_bytes_per_item(self) -> int:
        """Bytes of rows gathered to rank one item."""
        return sum(t.count * t.pooling * t.row_bytes for t in self.tables)

    @property
    def total_rows(self) -> int:
        """Rows of all tables."""
        return sum(t.count * t.rows for t in self.tables)

    @property
    def index_bytes_per_item(self) -> int:
        """Bytes of the int32 row indices of one item."""
        return 4 * self.lookups_per_item

    @property
    def pooled_bytes_per_item(self) -> int:
        """Bytes that reach an accelerator per item when the host has pooled: one vector per table, dense features."""
        return sum(t.count * t.row_bytes for t in self.tables) + 4 * self.dense_input_dim

    @property
    def input_bytes_per_item(self) -> int:
        """Bytes that one item brings along: an int32 index per lookup, an int32 offset per bag, fp32 dense features."""
        bags = sum(t.count for t in self.tables)
        return self.index_bytes_per_item + 4 * bags + 4 * self.dense_input_dim

    @property
    def dense_flop_per_item(self) -> float:
        """Floating-point operations of the matrix multiplications for one item (two per multiply-add)."""
        return sum(op.copies * op.steps * op.flop_per_item for op in self.operators() if op.kind == "gemm")

    @property
    def dense_weight_bytes(self) -> float:
        """Bytes of the dense network's fp32 weights and biases; steps of a recurrence share theirs."""
        return sum(op.copies * op.weight_bytes for op in self.operators())

    def operators(self) -> tuple[Operator, ...]:
        """Return the operator graph, see :mod:`hercules_fast.models.graph`."""
        from hercules_fast.models.graph import operators

        return operators(self)

    def scaled(self, rows_scale: float, label: str) -> Model:
        """Return this model with ``rows_scale`` times the rows in every table, called ``label``.

        Row numbers are rounded to the nearest whole number, at least 1. Raises ``InputError`` for a scale that is not
        a positive finite number, or makes tables of 2**63 rows or more.
        """
        if not (isinstance(rows_scale, int | float) and 0 < rows_scale < inf):
            raise InputError(f"rows_scale is {rows_scale!r}; allowed: a finite number > 0")
        if max((t.rows * rows_scale for t in self.tables), default=0) >= 1 << 63:
            raise InputError(f"rows_scale is {rows_scale!r}; allowed: tables of less than 2**63 rows")
        tables = tuple(replace(t, rows=max(1, round(t.rows * rows_scale))) for t in self.tables)
        return replace(self, tables=tables, label=label)
