"""The dense part of a model in ONNX Runtime: one graph, its operators chosen by measurement.

- Layers are ``Gemm`` and ``Relu``, which ONNX Runtime fuses, with weights packed once.
- Recurrences are unrolled, a ``Gemm`` and a ``Tanh`` per step: against its ``RNN`` operator (40 steps of 32 -> 64, one
  thread) that took 42 to 29 us for 1 item, but 0.3 to 2.0 ms for 64.
- Copies of a layer are one batched ``MatMul``; those with one input or one output (DIN's activation units) are products
  by element and a sum, 0.4 ms where the batched products took 0.8 ms (251 units, 64 items).
- A layer behind ``pairs`` has its weights folded, ``[u, a, u + a] W = u (W1 + W3) + a (W2 + W3)``, so the pairs are
  never written.

Tensors of several vectors lie as ``[items, count * dim]`` ("items") or ``[count * items, dim]`` ("steps"), whichever
their maker gives; a reader that needs the other turns them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.measure.network import Network, Operation

__all__ = ["OnnxDense", "onnx_graph", "require"]

Floats = npt.NDArray[np.float32]
Layout = Literal["items", "steps"]

OPSET = 18
IR_VERSION = 8
"""Of ONNX files: both are read by every ONNX Runtime from 1.20 on."""


def require() -> None:
    """Raise ``InputError`` with a remedy where ONNX Runtime or ONNX is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"backend: 'onnxruntime' needs {error.name or 'onnxruntime'}, which is not installed;"
            " pip install 'hercules-fast[dense]', or backend='numpy'"
        ) from error


class OnnxDense:
    """Runs the dense network in a session of its own, for up to ``max_items`` items. One thread at a time.

    Args:
        network: What to run.
        graph: Its graph, from :func:`onnx_graph`.
        threads: Threads inside an operator, the caller's included.
        cpus: CPUs of the caller's thread, which is left alone, then of the others; None: where the system puts them.
        max_items: Items of the largest run.
    """

    def __init__(
        self, network: Network, graph: bytes, *, threads: int, cpus: Sequence[int] | None, max_items: int
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors: warnings are about unused initialisers
        # Threads that spin between queries would take the cores of others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if cpus and threads > 1:
            # Numbered from 1, a set for each thread beside the caller's.
            places = [str(cpus[i % len(cpus)] + 1) for i in range(1, threads)]
            options.add_session_config_entry("session.intra_op_thread_affinities", ";".join(places))
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._names = network.inputs
        self._width = network.output_dim
        self._out = np.zeros(max_items * self._width, np.float32)
        self._bound: dict[int, tuple[Any, list[Floats | None], Floats]] = {}

    def run(self, inputs: Sequence[Floats], items: int) -> Floats:
        """Scores ``[items, output_dim]`` of ``inputs`` in the order of ``network.inputs``; valid until the next run.

        Arrays that are the same objects as in the run before of so many items are not bound again.
        """
        ready = self._bound.get(items)
        if ready is None:
            ready = self._bound[items] = self._bind(items)
        binding, bound, scores = ready
        for i, array in enumerate(inputs):
            if bound[i] is not array:
                binding.bind_cpu_input(self._names[i], array)
                bound[i] = array
        self._session.run_with_iobinding(binding)
        return scores

    def _bind(self, items: int) -> tuple[Any, list[Floats | None], Floats]:
        scores = self._out[: items * self._width].reshape(items, self._width)
        binding = self._session.io_binding()
        binding.bind_output("scores", "cpu", 0, np.float32, scores.shape, scores.ctypes.data)
        return binding, [None] * len(self._names), scores


def onnx_graph(network: Network, weights: Mapping[str, Floats]) -> bytes:
    """The network as a serialised ONNX model with its weights: inputs by their names, output ``"scores"``."""
    return _Graph(network, weights).serialised()


class _Graph:
    def __init__(self, network: Network, weights: Mapping[str, Floats]) -> None:
        from onnx import helper, numpy_helper

        self._make_node = helper.make_node
        self._from_array = numpy_helper.from_array
        self.network = network
        self.weights = weights
        self.nodes: list[Any] = []
        self.initialisers: dict[str, Any] = {}
        self.made: dict[tuple[str, Layout], str] = {(name, "items"): name for name in network.inputs}
        """(tensor, layout) -> value of the graph."""
        self.folded: dict[str, tuple[str, str]] = {}
        """Output of ``pairs`` -> its inputs."""
        for operation in network.operations:
            _NODES[operation.kind](self, operation)

    def serialised(self) -> bytes:
        from onnx import TensorProto, helper

        network = self.network
        self.node("Identity", self.items(network.output), to="scores")

        def value(name: str, width: int) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["items", width])

        graph = helper.make_graph(
            self.nodes,
            "dense",
            [value(name, network.tensors[name].width) for name in network.inputs],
            [value("scores", network.output_dim)],
            list(self.initialisers.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())

    # -- nodes and constants ---------------------------------------------------------------------------------------

    def node(self, kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        name = to or f"v{len(self.nodes)}"
        self.nodes.append(self._make_node(kind, list(inputs), [name], **attributes))
        return name

    def floats(self, name: str, values: Floats) -> str:
        if name not in self.initialisers:
            self.initialisers[name] = self._from_array(np.ascontiguousarray(values, np.float32), name)
        return name

    def ints(self, *values: int) -> str:
        name = "i" + "_".join(map(str, values))
        if name not in self.initialisers:
            self.initialisers[name] = self._from_array(np.array(values, np.int64), name)
        return name

    def reshape(self, value: str, *shape: int) -> str:
        """``shape`` as ONNX reads it: 0 keeps a dimension, -1 is what is left."""
        return self.node("Reshape", value, self.ints(*shape))

    def activate(self, value: str, operation: Operation) -> str:
        kinds = {"relu": "Relu", "sigmoid": "Sigmoid"}
        return self.node(kinds[operation.activation], value) if operation.activation != "none" else value

    # -- layouts ---------------------------------------------------------------------------------------------------

    def put(self, operation: Operation, value: str, layout: Layout = "items") -> None:
        self.made[operation.output, layout] = value

    def items(self, name: str) -> str:
        """``[items, count * dim]``."""
        if (name, "items") not in self.made:
            tensor = self.network.tensors[name]
            by_step = self.reshape(self.made[name, "steps"], tensor.count, -1, tensor.dim)
            self.made[name, "items"] = self.reshape(self.node("Transpose", by_step, perm=[1, 0, 2]), -1, tensor.width)
        return self.made[name, "items"]

    def steps(self, name: str) -> str:
        """``[count * items, dim]``."""
        tensor = self.network.tensors[name]
        if tensor.count == 1:
            return self.items(name)
        if (name, "steps") not in self.made:
            by_item = self.reshape(self.made[name, "items"], -1, tensor.count, tensor.dim)
            self.made[name, "steps"] = self.reshape(self.node("Transpose", by_item, perm=[1, 0, 2]), -1, tensor.dim)
        return self.made[name, "steps"]

    # -- operations ------------------------------------------------------------------------------------------------

    def linear(self, operation: Operation) -> None:
        x = operation.inputs[0]
        weight_name, bias_name = operation.weights
        weight, bias = self.weights[weight_name], self.weights[bias_name]
        if weight.ndim == 2:
            many = self.network.tensors[x].count > 1
            value = self.node(
                "Gemm",
                self.steps(x) if many else self.items(x),
                self.floats(weight_name, weight),
                self.floats(bias_name, bias),
            )
            self.put(operation, self.activate(value, operation), "steps" if many else "items")
        elif x in self.folded:
            u, a = self.folded[x]
            dim = self.network.tensors[u].dim
            parts = [weight[:, i : i + dim] for i in range(0, weight.shape[1], dim)]
            of_u, of_a = parts if len(parts) == 2 else (parts[0] + parts[2], parts[1] + parts[2])
            beside = self.heads(a, operation, of_a, bias, f"{weight_name}.candidate")
            self.copies(operation, u, of_u, f"{weight_name}.vectors", beside)
        elif self.network.tensors[x].count == 1:
            value = self.heads(x, operation, weight, bias, weight_name)
            self.put(operation, self.activate(value, operation))
        else:
            self.copies(operation, x, weight, weight_name, self.floats(bias_name, bias.reshape(-1)))

    def heads(self, x: str, operation: Operation, weight: Floats, bias: Floats, name: str) -> str:
        """All copies read the one vector: one product, ``[items, copies * out]``."""
        side_by_side = weight.transpose(1, 0, 2).reshape(weight.shape[1], -1)
        bias_name = self.floats(f"{operation.weights[1]}.all", bias.reshape(-1))
        return self.node("Gemm", self.items(x), self.floats(f"{name}.all", side_by_side), bias_name)

    def copies(self, operation: Operation, x: str, weight: Floats, name: str, beside: str) -> None:
        """Copy i reads vector i; ``beside`` is added, ``[copies * out]`` or ``[items, copies * out]``."""
        n, fan_in, fan_out = weight.shape
        if fan_in == 1:
            by_item = self.reshape(self.items(x), -1, n, 1)
            product = self.node("Mul", by_item, self.floats(f"{name}.row", weight[:, 0]))
            value = self.reshape(product, -1, n * fan_out)
        elif fan_out == 1:
            by_item = self.reshape(self.items(x), -1, n, fan_in)
            product = self.node("Mul", by_item, self.floats(f"{name}.column", weight[:, :, 0]))
            value = self.node("ReduceSum", product, self.ints(2), keepdims=0)
        else:
            by_copy = self.reshape(self.steps(x), n, -1, fan_in)
            product = self.node("MatMul", by_copy, self.floats(name, weight))
            value = self.reshape(self.node("Transpose", product, perm=[1, 0, 2]), -1, n * fan_out)
        self.put(operation, self.activate(self.node("Add", value, beside), operation))

    def concat(self, operation: Operation) -> None:
        values = [self.items(name) for name in operation.inputs]
        self.put(operation, self.node("Concat", *values, axis=1) if len(values) > 1 else values[0])

    def pairs(self, operation: Operation) -> None:
        self.folded[operation.output] = (operation.inputs[0], operation.inputs[1])
        readers = [other for other in self.network.operations if operation.output in other.inputs]
        if all(other.kind == "linear" for other in readers) and self.network.output != operation.output:
            return
        del self.folded[operation.output]
        u, a = (self.network.tensors[name] for name in operation.inputs)
        vectors = self.reshape(self.items(u.name), -1, u.count, u.dim)
        candidate = self.reshape(self.items(a.name), -1, 1, a.dim)
        parts = [vectors, self.node("Expand", candidate, self.node("Shape", vectors))]
        if self.network.tensors[operation.output].dim == 3 * u.dim:
            parts.append(self.node("Add", vectors, candidate))
        joined = self.node("Concat", *parts, axis=2)
        self.put(operation, self.reshape(joined, -1, self.network.tensors[operation.output].width))

    def dot(self, operation: Operation) -> None:
        tensors = [self.network.tensors[name] for name in operation.inputs]
        n, dim = sum(tensor.count for tensor in tensors), tensors[0].dim
        values = [self.items(tensor.name) for tensor in tensors]
        joined = self.node("Concat", *values, axis=1) if len(values) > 1 else values[0]
        vectors = self.reshape(joined, -1, n, dim)
        products = self.node("MatMul", vectors, self.node("Transpose", vectors, perm=[0, 2, 1]))
        rows, columns = np.tril_indices(n, 0 if operation.diagonal else -1)
        places = self.ints(*(rows * n + columns).tolist())
        self.put(operation, self.node("Gather", self.reshape(products, -1, n * n), places, axis=1))

    def sum(self, operation: Operation) -> None:
        sums = []
        for name in operation.inputs:
            tensor = self.network.tensors[name]
            if (name, "steps") in self.made:
                by_step = self.reshape(self.steps(name), tensor.count, -1, tensor.dim)
                sums.append(self.node("ReduceSum", by_step, self.ints(0), keepdims=0))
            else:
                by_item = self.reshape(self.items(name), -1, tensor.count, tensor.dim)
                sums.append(self.node("ReduceSum", by_item, self.ints(1), keepdims=0))
        self.put(operation, self.node("Sum", *sums) if len(sums) > 1 else sums[0])

    def rnn(self, operation: Operation) -> None:
        into, hidden, bias = (self.floats(name, self.weights[name]) for name in operation.weights)
        steps = self.network.tensors[operation.inputs[0]].count
        projected = self.node("Gemm", self.steps(operation.inputs[0]), into, bias)
        drives = [f"{operation.output}.drive.{t}" for t in range(steps)]
        if steps > 1:
            self.nodes.append(self._make_node("Split", [projected], drives, axis=0, num_outputs=steps))
        else:
            drives = [projected]
        states: list[str] = []
        for drive in drives:
            drive = self.node("Gemm", states[-1], hidden, drive) if states else drive
            states.append(self.node("Tanh", drive))
        if operation.last:
            self.put(operation, states[-1])
        elif steps == 1:
            self.put(operation, states[0])
        else:
            self.put(operation, self.node("Concat", *states, axis=0), "steps")

    def attention(self, operation: Operation) -> None:
        scores, x = operation.inputs
        steps, width = self.network.tensors[scores].count, self.network.tensors[scores].dim
        dim = self.network.tensors[x].dim
        # Softmax over the first axis of [steps, items * width].
        weights = self.node("Softmax", self.reshape(self.steps(scores), steps, -1), axis=0)
        value = self.node("Add", self.reshape(weights, -1, width), self.steps(x))
        self.put(operation, self.reshape(value, -1, dim), "steps" if steps > 1 else "items")

    def cross(self, operation: Operation) -> None:
        x0, x = (self.items(name) for name in operation.inputs)
        down, up, bias = (self.floats(name, self.weights[name]) for name in operation.weights)
        value = self.node("Gemm", self.node("MatMul", x, down), up, bias)
        self.put(operation, self.node("Add", self.node("Mul", value, x0), x))


_NODES: Mapping[str, Callable[[_Graph, Operation], None]] = {
    "linear": _Graph.linear,
    "concat": _Graph.concat,
    "pairs": _Graph.pairs,
    "dot": _Graph.dot,
    "sum": _Graph.sum,
    "rnn": _Graph.rnn,
    "attention": _Graph.attention,
    "cross": _Graph.cross,
}
