"""The dense part of a model in NumPy: each operation of the network as a few calls on buffers made ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hercules_fast.measure.network import Network, Operation

__all__ = ["NumpyDense"]

Floats = npt.NDArray[np.float32]
Slots = list[Floats]
Step = Callable[[Slots], object]


class NumpyDense:
    """Runs the dense network for up to ``max_items`` items. One thread at a time.

    Inputs are ``[items, width]``. Inside, a tensor of one vector is ``[items, dim]``, one of several ``[count, items,
    dim]``, so that the steps of a sequence and the copies of a layer are matrices of their own, without a copy.
    """

    def __init__(self, network: Network, weights: Mapping[str, Floats], max_items: int) -> None:
        self.network = network
        self._names = {name: slot for slot, name in enumerate(network.inputs)}
        self._buffers: list[Callable[[int], Floats]] = []
        self._max_items = max_items
        self._steps: list[Step] = []
        for operation in network.operations:
            self._steps.append(_BUILDERS[operation.kind](self, operation, weights))
        out = network.tensors[network.output]
        self._out = self._names[network.output]
        if out.count > 1:
            self._out = self._slot("", 1, out.width)
            self._steps.append(_join([self._vectors(network.output)], [out.count], self._out))
        self._ready: dict[int, Slots] = {}

    def run(self, inputs: Sequence[Floats], items: int) -> Floats:
        """Scores ``[items, output_dim]`` of ``inputs`` in the order of ``network.inputs``; valid until the next run."""
        slots = self._ready.get(items)
        if slots is None:
            slots = self._ready[items] = [np.empty(0, np.float32)] * len(inputs)
            slots += [buffer(items) for buffer in self._buffers]
        slots[: len(inputs)] = inputs
        for step in self._steps:
            step(slots)
        return slots[self._out]

    # -- where tensors lie -----------------------------------------------------------------------------------------

    def _slot(self, name: str, count: int, dim: int) -> int:
        """A new buffer for ``name``: a slot whose array has the size of the run."""
        memory = np.zeros(count * self._max_items * dim, np.float32)
        # The rows of a small run lie together, not where those of a large one would.
        shape: Callable[[int], tuple[int, ...]] = (lambda n: (n, dim)) if count == 1 else (lambda n: (count, n, dim))
        self._buffers.append(lambda n: memory[: count * n * dim].reshape(shape(n)))
        slot = len(self.network.inputs) + len(self._buffers) - 1
        if name:
            self._names[name] = slot
        return slot

    def _new(self, operation: Operation) -> int:
        tensor = self.network.tensors[operation.output]
        return self._slot(operation.output, tensor.count, tensor.dim)

    def _flat(self, name: str) -> Callable[[Slots], Floats]:
        """Gives the tensor of one vector, ``[items, dim]``."""
        slot = self._names[name]
        return lambda slots: slots[slot]

    def _vectors(self, name: str) -> Callable[[Slots], Floats]:
        """Gives ``[count, items, dim]``, perhaps with strides."""
        slot, tensor = self._names[name], self.network.tensors[name]
        if name in self.network.inputs:
            shape = (-1, tensor.count, tensor.dim)
            return lambda slots: slots[slot].reshape(shape).transpose(1, 0, 2)
        if tensor.count == 1:
            return lambda slots: slots[slot][None]
        return lambda slots: slots[slot]

    def _natural(self, name: str) -> Callable[[Slots], Floats]:
        """Gives ``[items, dim]`` for one vector and ``[count, items, dim]`` for several."""
        return self._flat(name) if self.network.tensors[name].count == 1 else self._vectors(name)

    # -- operations ------------------------------------------------------------------------------------------------

    def _linear(self, operation: Operation, weights: Mapping[str, Floats]) -> Step:
        x, out = self._natural(operation.inputs[0]), self._new(operation)
        weight, bias = (weights[name] for name in operation.weights)
        if bias.ndim == 2:
            bias = bias[:, None, :]
        activation = operation.activation

        def step(slots: Slots) -> None:
            y = slots[out]
            np.matmul(x(slots), weight, out=y)
            np.add(y, bias, out=y)
            if activation == "relu":
                np.maximum(y, _ZERO, out=y)
            elif activation == "sigmoid":
                _sigmoid(y)

        return step

    def _concat(self, operation: Operation, _: Mapping[str, Floats]) -> Step:
        counts = [self.network.tensors[name].count for name in operation.inputs]
        sources = [self._vectors(name) for name in operation.inputs]
        for i, name in enumerate(operation.inputs):
            if name in self.network.inputs:  # [items, width] as it is
                counts[i], sources[i] = 1, _leading(self._flat(name))
        return _join(sources, counts, self._new(operation))

    def _pairs(self, operation: Operation, _: Mapping[str, Floats]) -> Step:
        u, a = self._vectors(operation.inputs[0]), self._flat(operation.inputs[1])
        dim = self.network.tensors[operation.inputs[0]].dim
        with_sum = self.network.tensors[operation.output].dim == 3 * dim
        out = self._new(operation)

        def step(slots: Slots) -> None:
            y, behaviours, candidate = slots[out], u(slots), a(slots)
            y[:, :, :dim] = behaviours
            y[:, :, dim : 2 * dim] = candidate
            if with_sum:
                np.add(behaviours, candidate, out=y[:, :, 2 * dim :])

        return step

    def _dot(self, operation: Operation, _: Mapping[str, Floats]) -> Step:
        tensors = [self.network.tensors[name] for name in operation.inputs]
        n, dim = sum(tensor.count for tensor in tensors), tensors[0].dim
        vectors = self._slot("", 1, n * dim)
        products = self._slot("", 1, n * n)
        join = _join([self._vectors(name) for name in operation.inputs], [tensor.count for tensor in tensors], vectors)
        out = self._new(operation)
        rows, columns = np.tril_indices(n, 0 if operation.diagonal else -1)
        triangle = rows * n + columns

        def step(slots: Slots) -> None:
            join(slots)
            z = slots[vectors].reshape(-1, n, dim)
            np.matmul(z, z.transpose(0, 2, 1), out=slots[products].reshape(-1, n, n))
            # Not "raise", which would go through a buffer.
            np.take(slots[products], triangle, axis=1, out=slots[out], mode="clip")

        return step

    def _sum(self, operation: Operation, _: Mapping[str, Floats]) -> Step:
        sources = [self._vectors(name) for name in operation.inputs]
        out = self._new(operation)

        def step(slots: Slots) -> None:
            y = slots[out]
            np.add.reduce(sources[0](slots), axis=0, out=y)
            for source in sources[1:]:
                for vector in source(slots):
                    np.add(y, vector, out=y)

        return step

    def _rnn(self, operation: Operation, weights: Mapping[str, Floats]) -> Step:
        x = self._vectors(operation.inputs[0])
        steps = self.network.tensors[operation.inputs[0]].count
        into, hidden, bias = (weights[name] for name in operation.weights)
        projected = self._slot("", steps, len(bias))
        out = self._new(operation)
        last = operation.last

        def step(slots: Slots) -> None:
            drive, y = slots[projected], slots[out]
            np.matmul(x(slots), into, out=drive)
            np.add(drive, bias, out=drive)
            state = y if last else y[0]
            np.tanh(drive[0], out=state)
            for t in range(1, steps):
                now, before = drive[t], state
                state = now if last else y[t]
                np.add(before @ hidden, now, out=now)
                np.tanh(now, out=state)
            if last and steps > 1:
                y[:] = state

        return step

    def _attention(self, operation: Operation, _: Mapping[str, Floats]) -> Step:
        scores, x = (self._vectors(name) for name in operation.inputs)
        out = self._new(operation)

        def step(slots: Slots) -> None:
            weight = scores(slots)
            np.subtract(weight, np.maximum.reduce(weight, axis=0), out=weight)
            np.exp(weight, out=weight)
            np.divide(weight, np.add.reduce(weight, axis=0), out=weight)
            np.add(weight, x(slots), out=slots[out])

        return step

    def _cross(self, operation: Operation, weights: Mapping[str, Floats]) -> Step:
        x0, x = (self._flat(name) for name in operation.inputs)
        down, up, bias = (weights[name] for name in operation.weights)
        narrow = self._slot("", 1, down.shape[1])
        out = self._new(operation)

        def step(slots: Slots) -> None:
            y, now = slots[out], x(slots)
            np.matmul(np.matmul(now, down, out=slots[narrow]), up, out=y)
            np.add(y, bias, out=y)
            np.multiply(y, x0(slots), out=y)
            np.add(y, now, out=y)

        return step


_ZERO = np.float32(0)
_ONE = np.float32(1)

_BUILDERS: Mapping[str, Callable[[NumpyDense, Operation, Mapping[str, Floats]], Step]] = {
    "linear": NumpyDense._linear,
    "concat": NumpyDense._concat,
    "pairs": NumpyDense._pairs,
    "dot": NumpyDense._dot,
    "sum": NumpyDense._sum,
    "rnn": NumpyDense._rnn,
    "attention": NumpyDense._attention,
    "cross": NumpyDense._cross,
}


def _leading(source: Callable[[Slots], Floats]) -> Callable[[Slots], Floats]:
    return lambda slots: source(slots)[None]


def _join(sources: Sequence[Callable[[Slots], Floats]], counts: Sequence[int], out: int) -> Step:
    """Write vectors side by side: ``[count, items, dim]`` each to ``[items, sum of count * dim]``."""
    pairs = list(zip(sources, counts, strict=True))

    def step(slots: Slots) -> None:
        y = slots[out]
        start = 0
        for source, count in pairs:
            x = source(slots)
            end = start + count * x.shape[2]
            if count == 1:
                y[:, start:end] = x[0]
            else:
                y[:, start:end].reshape(-1, count, x.shape[2]).transpose(1, 0, 2)[...] = x
            start = end

    return step


def _sigmoid(y: Floats) -> None:
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.add(y, _ONE, out=y)
    np.divide(_ONE, y, out=y)
