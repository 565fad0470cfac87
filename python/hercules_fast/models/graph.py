"""The operator graph of a model: what a framework dispatches for one batch.

Counted as an eager framework counts: every table is one SLS operator, every fully connected layer one ``gemm`` (bias
included) followed by one ``elementwise`` activation; joining vectors is one ``elementwise`` operator. With this count
four public latency intercepts on one GPU agree on the time per operator within 2 us; with activations fused into
their layers they spread over 20 %.

``gemm`` work is two operations per multiply-add, without bias. ``elementwise`` work is one operation per output and
input pair that is combined; operators that only move data (``concat``) have none. A recurrent step is two ``gemm``
(input, hidden) and a ``tanh`` of their sum; steps share their weights and follow each other. The layers of an
attention are dispatched once per step, also in sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hercules_fast.models.descriptors import Model, Operator, Stage, TableGroup

__all__ = ["operators"]

_FP32_BYTES = 4


def operators(model: Model) -> tuple[Operator, ...]:
    """Return the operators of ``model``: SLS of every table group, then the dense stages in their order."""
    sparse = tuple(_sls(table, index) for index, table in enumerate(model.tables))
    return sparse + tuple(op for stage in model.stages for op in _STAGES[stage.kind](stage))


def _sls(table: TableGroup, index: int) -> Operator:
    return Operator(
        name=f"sls.{index}",
        kind="sls",
        copies=table.count,
        steps=1,
        flop_per_item=float(table.pooling * table.dim),
        weight_bytes=0.0,
        width=table.dim,
        lookups_per_item=float(table.pooling),
        row_bytes=float(table.row_bytes),
    )


def _gemm(
    name: str, fan_in: int, fan_out: int, *, copies: int = 1, steps: int = 1, biases: int | None = None
) -> Operator:
    """Return a layer ``fan_in`` -> ``fan_out`` with ``biases`` bias values (default: one per output)."""
    values = fan_in * fan_out + (fan_out if biases is None else biases)
    return Operator(
        name=name,
        kind="gemm",
        copies=copies,
        steps=steps,
        flop_per_item=2.0 * fan_in * fan_out,
        weight_bytes=float(_FP32_BYTES * values),
        width=min(fan_in, fan_out),
    )


def _elementwise(name: str, width: int, flop: float, *, copies: int = 1, steps: int = 1) -> Operator:
    return Operator(
        name=name, kind="elementwise", copies=copies, steps=steps, flop_per_item=flop, weight_bytes=0.0, width=width
    )


def _mlp(stage: Stage, *, steps: int = 1) -> Iterator[Operator]:
    for layer, (fan_in, fan_out) in enumerate(pairwise(stage.dims)):
        yield _gemm(f"{stage.name}.fc{layer}", fan_in, fan_out, copies=stage.copies, steps=steps)
        yield _elementwise(f"{stage.name}.act{layer}", fan_out, float(fan_out), copies=stage.copies, steps=steps)


def _concat(stage: Stage) -> Iterator[Operator]:
    yield _elementwise(stage.name, stage.out_dim, 0.0, copies=stage.copies)


def _dot(stage: Stage) -> Iterator[Operator]:
    """Multiply every vector with every other as one batched matrix product, then join the useful triangle."""
    yield Operator(
        name=f"{stage.name}.bmm",
        kind="gemm",
        copies=1,
        steps=1,
        flop_per_item=2.0 * stage.vectors * stage.vectors * stage.dim,
        weight_bytes=0.0,
        width=min(stage.vectors, stage.dim),
    )
    yield _elementwise(f"{stage.name}.concat", stage.out_dim, 0.0)


def _sum(stage: Stage) -> Iterator[Operator]:
    yield _elementwise(stage.name, stage.dim, float((stage.vectors - 1) * stage.dim))


def _rnn(stage: Stage) -> Iterator[Operator]:
    steps, hidden = stage.steps, stage.hidden_dim
    yield _gemm(f"{stage.name}.input", stage.input_dim, hidden, steps=steps)
    yield _gemm(f"{stage.name}.hidden", hidden, hidden, steps=steps)
    yield _elementwise(f"{stage.name}.tanh", hidden, 2.0 * hidden, steps=steps)  # add, then tanh


def _attention(stage: Stage) -> Iterator[Operator]:
    """Score every step with a layer, softmax over the steps, add to the steps."""
    width = stage.dims[-1]
    for layer, (fan_in, fan_out) in enumerate(pairwise(stage.dims)):
        yield _gemm(f"{stage.name}.fc{layer}", fan_in, fan_out, steps=stage.steps)
    # Per score: exponential, running sum, division.
    yield _elementwise(f"{stage.name}.softmax", stage.steps * width, 3.0 * stage.steps * width)
    yield _elementwise(f"{stage.name}.add", width, float(width), steps=stage.steps)


def _cross(stage: Stage) -> Iterator[Operator]:
    """DCN-v2, low rank: x' = x0 * (W (V x) + b) + x."""
    for layer in range(stage.layers):
        yield _gemm(f"{stage.name}.v{layer}", stage.dim, stage.rank, biases=0)
        yield _gemm(f"{stage.name}.w{layer}", stage.rank, stage.dim)
        yield _elementwise(f"{stage.name}.muladd{layer}", stage.dim, 2.0 * stage.dim)


_STAGES = {
    "mlp": _mlp,
    "concat": _concat,
    "dot": _dot,
    "sum": _sum,
    "rnn": _rnn,
    "attention": _attention,
    "cross": _cross,
}
