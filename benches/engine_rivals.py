"""The same model in PyTorch eager and in ONNX Runtime end to end: our weights, rows and inputs, prepared before the
clock runs in whatever form suits the rival best.

A rival that is not installed is left out, and named at the end of the bench.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Idle OpenMP threads spin for a while, which slows whoever comes next in the turn. Read when the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import numpy as np

from hercules_fast.measure import Engine
from hercules_fast.measure.accelerator import TorchModel
from hercules_fast.measure.dense_onnx import onnx_graph

MISSING: set[str] = set()

Answer = Callable[[int], np.ndarray]
"""Scores of set ``i``, ``[items, outputs]``."""


@dataclass(frozen=True)
class Rows:
    """Tables of an engine as plain float32: per group ``[count * rows, dim]``, shared by all rivals."""

    engine: Engine
    groups: list[np.ndarray]
    compute: TorchModel | None
    """The model in PyTorch over these rows; None without PyTorch."""

    @classmethod
    def of(cls, engine: Engine) -> Rows:
        try:
            import torch
        except ImportError:
            MISSING.add("torch")
            return cls(engine, [np.concatenate(engine.table_values(g)) for g in range(len(engine.model.tables))], None)
        compute = TorchModel(torch, engine.model, engine.network, engine.seed, "cpu")
        return cls(engine, [bag.numpy() for bag in compute.bags], compute)


@dataclass(frozen=True)
class Sets:
    """Inputs of queries 0, 1, ...: as the engine draws them."""

    features: list[np.ndarray | None]
    indices: list[list[np.ndarray]]
    """Per query and group, int32 ``[count, items, pooling]``, rows of each table for itself."""

    @classmethod
    def of(cls, engine: Engine, count: int, items: int) -> Sets:
        features, indices = [], []
        for query in range(count):
            inputs = engine.inputs(query, items)
            features.append(inputs.dense)
            groups = zip(engine.model.tables, inputs.indices, strict=True)
            indices.append([index.reshape(g.count, items, g.pooling) for g, index in groups])
        return cls(features, indices)


def rivals(rows: Rows, sets: Sets, items: int, threads: int) -> dict[str, Answer]:
    """All that can run this model here, by name."""
    return {**_torch(rows, sets, items, threads), **_onnxruntime(rows, sets, items, threads)}


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def _torch(rows: Rows, sets: Sets, items: int, threads: int) -> dict[str, Answer]:
    """Eager, ``inference_mode``: a bag per group over its tables as one, or a bag per table (``nn.EmbeddingBag``)."""
    compute = rows.compute
    if compute is None:
        return {}
    torch = compute.torch
    torch.set_num_threads(threads)
    groups = rows.engine.model.tables
    features = [None if f is None else torch.tensor(f) for f in sets.features]
    bases = [np.arange(g.count, dtype=np.int32)[:, None, None] * np.int32(g.rows) for g in groups]
    fused = [
        [torch.from_numpy((index + base).reshape(-1)) for index, base in zip(indices, bases, strict=True)]
        for indices in sets.indices
    ]
    ends = [torch.arange(0, g.count * items * g.pooling, g.pooling, dtype=torch.int32) for g in groups]
    bag = torch.nn.functional.embedding_bag

    def by_group(i: int) -> np.ndarray:
        with torch.inference_mode():
            pooled = [
                bag(index, table, end, mode="sum").view(g.count, items, g.dim).transpose(0, 1)
                for g, index, table, end in zip(groups, fused[i], compute.bags, ends, strict=True)
            ]
            return compute.dense(features[i], pooled).numpy()

    with torch.inference_mode():
        modules = [
            [torch.nn.EmbeddingBag.from_pretrained(one, mode="sum") for one in table.split(g.rows)]
            for g, table in zip(groups, compute.bags, strict=True)
        ]
    apart = [
        [torch.tensor(index.reshape(g.count, -1)) for g, index in zip(groups, s, strict=True)] for s in sets.indices
    ]
    starts = [torch.arange(0, items * g.pooling, g.pooling, dtype=torch.int32) for g in groups]

    def by_table(i: int) -> np.ndarray:
        with torch.inference_mode():
            pooled = [
                torch.stack([one(index, start) for one, index in zip(bags, indices, strict=True)], 1)
                for bags, indices, start in zip(modules, apart[i], starts, strict=True)
            ]
            return compute.dense(features[i], pooled).numpy()

    return {"PyTorch, bag per group": by_group, "PyTorch, bag per table": by_table}


# --- ONNX Runtime -----------------------------------------------------------------------------------------------------


def _onnxruntime(rows: Rows, sets: Sets, items: int, threads: int) -> dict[str, Answer]:
    """One graph: ``Gather`` of a group's rows, their sum by ``ReduceSum`` or by a product with ones, or ``Gather`` and
    ``ReduceSum`` per table; then the dense graph that our own backend runs. Inputs are bound before the clock runs."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        MISSING.add("onnxruntime, onnx")
        return {}
    engine = rows.engine
    groups = engine.model.tables
    found: dict[str, Answer] = {}
    bases = [np.arange(g.count, dtype=np.int32)[:, None, None] * np.int32(g.rows) for g in groups]
    by_item = [
        [np.ascontiguousarray((s + base).transpose(1, 0, 2)) for s, base in zip(indices, bases, strict=True)]
        for indices in sets.indices
    ]
    by_table = [[np.ascontiguousarray(s.transpose(1, 0, 2)) for s in indices] for indices in sets.indices]
    dense = onnx_graph(engine.network, engine.weights)
    for form in ("ReduceSum", "MatMul", "ReduceSum per table"):
        if form == "MatMul" and all(g.pooling == 1 for g in groups):
            continue
        graph = _whole_graph(onnx, dense, groups, form)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as with OpenMP's threads
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        tables = {f"rows.{g}": onnxruntime.OrtValue.ortvalue_from_numpy(table) for g, table in enumerate(rows.groups)}
        bindings = []
        for features, indices in zip(sets.features, by_table if "per table" in form else by_item, strict=True):
            binding = session.io_binding()
            for name, value in tables.items():
                binding.bind_ortvalue_input(name, value)
            for g, index in enumerate(indices):
                binding.bind_cpu_input(f"index.{g}", index)
            if features is not None:
                binding.bind_cpu_input("dense", np.ascontiguousarray(features))
            binding.bind_output("scores")
            bindings.append(binding)
        found[f"ONNX Runtime, {form}"] = _bound(session, bindings)
    return found


def _bound(session: Any, bindings: Sequence[Any]) -> Answer:
    def run(i: int) -> np.ndarray:
        session.run_with_iobinding(bindings[i])
        return bindings[i].get_outputs()[0].numpy()

    return run


def _whole_graph(onnx: Any, dense: bytes, groups: Sequence[Any], form: str) -> bytes:
    """The dense graph with pooling in front; it reads ``rows.g`` and ``index.g``, int32 ``[items, count, pooling]``."""
    helper, floats, whole = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    model = onnx.load_from_string(dense)
    nodes, constants, inputs = [], [], []

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(onnx.numpy_helper.from_array(values, name))
        return name

    for g, group in enumerate(groups):
        pooled, width = f"pooled.{g}", group.count * group.dim
        inputs += [
            helper.make_tensor_value_info(f"rows.{g}", floats, [group.count * group.rows, group.dim]),
            helper.make_tensor_value_info(f"index.{g}", whole, ["items", group.count, group.pooling]),
        ]
        flat = constant(f"flat.{g}", np.array([-1, width], np.int64))
        if form == "ReduceSum per table":
            sums = []
            axis = constant(f"axis.{g}", np.array([1], np.int64))
            for t in range(group.count):
                name = f"{g}.{t}"
                span = [t * group.rows, (t + 1) * group.rows]
                # A slice of the rows would be a copy: the table's first row is added to its indices instead.
                base = constant(f"base.{name}", np.array(span[0], np.int32))
                place = constant(f"place.{name}", np.array(t, np.int64))
                nodes += [
                    helper.make_node("Gather", [f"index.{g}", place], [f"own.{name}"], axis=1),
                    helper.make_node("Add", [f"own.{name}", base], [f"at.{name}"]),
                    helper.make_node("Gather", [f"rows.{g}", f"at.{name}"], [f"got.{name}"], axis=0),
                    helper.make_node("ReduceSum", [f"got.{name}", axis], [f"sum.{name}"], keepdims=0),
                ]
                sums.append(f"sum.{name}")
            nodes.append(helper.make_node("Concat", sums, [pooled], axis=1))
            continue
        nodes.append(helper.make_node("Gather", [f"rows.{g}", f"index.{g}"], [f"got.{g}"], axis=0))
        summed = f"got.{g}"
        if group.pooling > 1 and form == "ReduceSum":
            axis = constant(f"axis.{g}", np.array([2], np.int64))
            nodes.append(helper.make_node("ReduceSum", [summed, axis], [f"sum.{g}"], keepdims=0))
            summed = f"sum.{g}"
        elif group.pooling > 1:
            ones = constant(f"ones.{g}", np.ones((1, group.pooling), np.float32))
            nodes.append(helper.make_node("MatMul", [ones, summed], [f"sum.{g}"]))
            summed = f"sum.{g}"
        nodes.append(helper.make_node("Reshape", [summed, flat], [pooled]))
    own = [value for value in model.graph.input if not value.name.startswith("pooled.")]
    graph = helper.make_graph(
        [*nodes, *model.graph.node],
        "whole",
        [*inputs, *own],
        list(model.graph.output),
        [*constants, *model.graph.initializer],
    )
    whole_model = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(whole_model.SerializeToString())
