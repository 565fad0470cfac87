"""What the stages of a model mean when it runs: which vectors feed which stage, as a list of operations.

A :class:`~hercules_fast.models.Model` names its stages with their widths; :func:`wire` turns it into a
:class:`Network`, operations over named tensors that each backend walks in order. Every tensor is ``[items, count,
dim]`` in float32; a backend lays it out as it likes.

Stages take what lies loose: the dense features, one tensor of pooled vectors per table group, and results that no
stage has read.

- ``mlp`` reads the tables whose role carries its name (``mlp branch``), else the stage before it, else the dense
  features, else whatever is loose; the first of these whose width fits. With copies, copy i reads vector i of as many,
  or all copies read the same vector (heads of a model with several tasks). A ReLU follows every layer, but a sigmoid
  where the model ends in one score.
- ``concat`` joins all that is loose: results of stages first, then pooled vectors, in the order of the tables.
- ``concat`` with copies is the input of DIN's activation units: each of so many pooled vectors (the behaviours) beside
  the candidate ad, and beside their sum where ``out_dim`` has room for three. The behaviours are used up; the
  candidate, by its role or else the first vector behind them, stays for the stages after.
- ``sum`` adds up the stage before where that has ``vectors``, else a table group of that count, else all that is loose.
- ``dot`` takes products of all pairs of vectors and joins the lower triangle (with its diagonal where ``out_dim`` says
  so) behind the dense vector.
- ``rnn`` is ``h' = tanh(x W + h U + b)`` over the vectors of the sequence before it, from zero. The next stage reads
  all states if it walks the same steps, else the last one.
- ``attention`` passes each step through ``dims`` (ReLU between layers), takes the softmax over the steps, column by
  column, and adds it to the steps.
- ``cross`` is DCN-v2: ``x' = x0 * (x V W + b) + x``.

Sources: DLRM-RMC, Wide&Deep, MT-W&D and NCF as GitHub harvard-acc/DeepRecSys builds them (``models/*.py``), ``dot`` and
``cross`` as facebookresearch/dlrm does. DIN as in ``models/din.py``: ``[behaviour, ad, behaviour + ad]``, one unit with
its own weights per behaviour table, their outputs added. DIEN as in ``models/dien.py``: recurrence, attention,
recurrence, last state; there the softmax runs over the columns of a step, here over the steps, as attention means (and
:class:`~hercules_fast.models.Stage` says); the work is the same. There the tasks of MT-W&D end in a sigmoid, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

from hercules_fast.descriptors import validate
from hercules_fast.errors import ConfigError, Fault
from hercules_fast.models import Model, Stage
from hercules_fast.models.files import MODEL

__all__ = ["Network", "Operation", "Tensor", "WeightSpec", "wire"]

OperationKind = Literal["linear", "concat", "pairs", "dot", "sum", "rnn", "attention", "cross"]
Activation = Literal["none", "relu", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """``count`` vectors of width ``dim`` per item."""

    name: str
    count: int
    dim: int
    rms: float = 1.0
    """Rough size of its values, from which weights are scaled so that all stay about 1."""

    @property
    def width(self) -> int:
        """Values per item."""
        return self.count * self.dim


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """A weight array: uniform in ``+-std * sqrt(3)``."""

    name: str
    shape: tuple[int, ...]
    std: float

    @property
    def size(self) -> int:
        """Number of values."""
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a network, ``output = kind(inputs, weights)``; shapes per item, ``[count, dim]``.

    ``linear`` ``activation(x W + b)``: weights W ``[in, out]``, b ``[out]`` for every vector of x; or ``[copies, in,
    out]``, ``[copies, out]``: copy i for vector i, or all copies for the only vector · ``concat`` joins inputs to one
    vector · ``pairs`` (u ``[n, d]``, a ``[1, d]``): ``[u, a]`` or ``[u, a, u + a]`` per vector of u · ``dot`` lower
    triangle of products of all vectors, row by row, as one vector · ``sum`` of all vectors · ``rnn`` weights W ``[in,
    hidden]``, U ``[hidden, hidden]``, b ``[hidden]``; states of all steps, or the last if ``last`` · ``attention``
    (scores ``[steps, w]``, x ``[steps, d]``): softmax of the scores over the steps, plus x · ``cross`` (x0, x):
    weights V ``[dim, rank]``, W ``[rank, dim]``, b ``[dim]``.
    """

    kind: OperationKind
    inputs: tuple[str, ...]
    output: str
    weights: tuple[str, ...] = ()
    activation: Activation = "none"
    last: bool = False
    """``rnn``: put out the last state only."""
    diagonal: bool = False
    """``dot``: products of vectors with themselves, too."""


@dataclass(frozen=True, slots=True)
class Network:
    """The dense part of a model: operations in an order in which they can run."""

    model: str
    inputs: tuple[str, ...]
    """``"dense"`` if the model has dense features, then ``"pooled.0"``, ... for each table group."""
    operations: tuple[Operation, ...]
    output: str
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, WeightSpec]

    @property
    def output_dim(self) -> int:
        """Scores per item."""
        return self.tensors[self.output].width

    @property
    def weight_bytes(self) -> int:
        """Bytes of all float32 weights."""
        return 4 * sum(spec.size for spec in self.weights.values())


def wire(model: Model) -> Network:
    """Wire the stages of ``model``.

    Raises:
        ConfigError: Fields outside what files allow, widths that do not chain, or vectors that no stage reads; with
            every fault and its path.
    """
    faults: list[Fault] = []
    try:
        validate(MODEL, model)
    except ConfigError as error:
        faults += error.faults
    if not all(fault.message.startswith("begins with") for fault in faults):
        raise ConfigError(f"model {getattr(model, 'name', '')!r}", faults)  # widths mean nothing yet
    wiring = _Wiring(model)
    network = wiring.run()
    known = {fault.path for fault in faults}
    faults += (fault for fault in wiring.faults if fault.path not in known)
    if faults:
        raise ConfigError(f"model {model.name!r}", faults)
    return network


class _Wiring:
    """The stages of a model, read one after another; faults are collected on the way."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.faults: list[Fault] = []
        self.operations: list[Operation] = []
        self.tensors: dict[str, Tensor] = {}
        self.weights: dict[str, WeightSpec] = {}
        self.paths: dict[str, str] = {}
        """Tensor -> field of the model that it comes from."""
        self.roles: dict[str, str] = {}
        self.given: list[Tensor] = []
        """Inputs that no stage has read."""
        self.results: list[Tensor] = []
        """Results that no stage has read."""
        if model.dense_input_dim > 0:
            self.given.append(self.new("dense", 1, model.dense_input_dim, path="dense_input_dim"))
        for g, group in enumerate(model.tables):
            self.given.append(self.new(f"pooled.{g}", group.count, group.dim, path=f"tables[{g}]"))
            self.roles[f"pooled.{g}"] = group.role
        self.inputs = tuple(tensor.name for tensor in self.given)
        self.before: Tensor | None = None
        """What the stage before put out, while no stage has read it."""
        self.path = ""
        self.following: Stage | None = None

    def run(self) -> Network:
        stages = self.model.stages
        for index, stage in enumerate(stages):
            self.path = f"stages[{index}]"
            self.following = stages[index + 1] if index + 1 < len(stages) else None
            out = _STAGES[stage.kind](self, stage)
            self.results.append(out)
            self.before = out
        if not stages:
            pooled = self.take(self.loose)
            self.before = self.operate("concat", pooled, "scores", 1, sum(tensor.width for tensor in pooled))
        assert self.before is not None, "files have tables or stages"
        for tensor in self.loose:
            if tensor is not self.before:
                self.fault("", f"puts out {tensor.width} values that no stage reads", path=self.paths[tensor.name])
        return Network(
            self.model.name, self.inputs, tuple(self.operations), self.before.name, self.tensors, self.weights
        )

    # -- what a stage does to the list of loose tensors ------------------------------------------------------------

    @property
    def loose(self) -> list[Tensor]:
        return [*self.results, *self.given]

    def take(self, tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
        taken = tuple(tensors)
        self.given = [tensor for tensor in self.given if tensor not in taken]
        self.results = [tensor for tensor in self.results if tensor not in taken]
        return taken

    def fault(self, key: str, message: str, *, path: str | None = None) -> None:
        self.faults.append(Fault(path or f"{self.path}.{key}", message))

    def new(self, name: str, count: int, dim: int, rms: float = 1.0, *, path: str | None = None) -> Tensor:
        while name in self.tensors:  # a stage may be called as an input is, or as another's layer
            name += "_"
        tensor = self.tensors[name] = Tensor(name, count, dim, rms)
        self.paths[name] = path or self.path
        return tensor

    def operate(
        self,
        kind: OperationKind,
        inputs: Iterable[Tensor],
        output: str,
        count: int,
        dim: int,
        *,
        rms: float = 1.0,
        weights: Iterable[WeightSpec] = (),
        activation: Activation = "none",
        last: bool = False,
        diagonal: bool = False,
    ) -> Tensor:
        specs = {spec.name: spec for spec in weights}
        if clash := specs.keys() & self.weights.keys():
            self.fault("name", f"gives its weights names that another stage's have: {', '.join(sorted(clash))}")
        self.weights |= specs
        made = self.new(output, count, dim, rms)
        names = tuple(tensor.name for tensor in inputs)
        self.operations.append(Operation(kind, names, made.name, tuple(specs), activation, last, diagonal))
        return made

    # -- stages ----------------------------------------------------------------------------------------------------

    def mlp(self, stage: Stage) -> Tensor:
        x = self.mlp_input(stage)
        copies = stage.copies
        layers = list(enumerate(pairwise(stage.dims)))
        # Outputs that will be added up come the smaller, the more they are.
        summed = copies if self.following is not None and self.following.kind == "sum" else 1
        for layer, (fan_in, fan_out) in layers:
            is_score = self.following is None and layer == len(layers) - 1 and fan_out == 1
            gain = 1.0 / summed if layer == len(layers) - 1 else 1.0
            spec = f"{stage.name}.{layer}"
            shape = (fan_in, fan_out) if copies == 1 else (copies, fan_in, fan_out)
            x = self.operate(
                "linear",
                (x,),
                stage.name if layer == len(layers) - 1 else spec,
                copies,
                fan_out,
                rms=gain,
                weights=(
                    WeightSpec(f"{spec}.weight", shape, gain * sqrt(2.0 / fan_in) / x.rms),
                    WeightSpec(f"{spec}.bias", shape[:-2] + shape[-1:], 0.1 * gain),
                ),
                activation="sigmoid" if is_score else "relu",
            )
        return x

    def mlp_input(self, stage: Stage) -> Tensor:
        width, copies = stage.dims[0], stage.copies

        def fits(tensor: Tensor) -> bool:
            return width in (tensor.width, tensor.dim if tensor.count == copies else 0)

        named = [tensor for tensor in self.given if _words(self.roles.get(tensor.name, "")) == _words(stage.name)]
        before = [self.before] if self.before is not None else []
        order = [*named, *before, *(t for t in self.given if t.name == "dense"), *reversed(self.results), *self.given]
        for tensor in order:
            if fits(tensor):
                return self.flat(self.take([tensor])[0], width)
        if order:
            source = self.take(order[:1])[0]
            self.fault("dims", f"begins with {width}; allowed is {source.width}, {self.who(source)}")
        else:
            self.fault("dims", f"begins with {width}, but nothing is left for this stage to read")
        return Tensor("", copies, width)

    def flat(self, tensor: Tensor, width: int) -> Tensor:
        """``tensor`` as one vector, where it is to be read as one."""
        if tensor.dim == width or tensor.count == 1:
            return tensor
        return self.operate("concat", (tensor,), f"{tensor.name}.joined", 1, tensor.width, rms=tensor.rms)

    def who(self, tensor: Tensor) -> str:
        if tensor.name == "dense":
            return "the width of the dense features"
        return f"the width that {self.paths[tensor.name]} puts out"

    def concat(self, stage: Stage) -> Tensor:
        if stage.copies > 1:
            return self.pairs(stage)
        sources = self.take(self.loose)
        width = sum(tensor.width for tensor in sources)
        if width != stage.out_dim:
            parts = " + ".join(f"{tensor.width} of {self.paths[tensor.name]}" for tensor in sources)
            self.fault("out_dim", f"is {stage.out_dim}; allowed is {width}, what it joins ({parts or 'nothing'})")
        return self.operate("concat", sources, stage.name, 1, stage.out_dim, rms=_rms(sources))

    def pairs(self, stage: Stage) -> Tensor:
        """DIN's activation input."""
        n, out_dim = stage.copies, stage.out_dim
        u = next((tensor for tensor in self.loose if tensor.count == n), None)
        if u is None:
            self.fault("copies", f"is {n}; allowed is the number of vectors of a table group that no stage has read")
            return self.new(stage.name, n, out_dim)
        self.take([u])
        singles = [tensor for tensor in self.loose if tensor.count == 1 and tensor.dim == u.dim]
        place = list(self.tensors)
        behind = [tensor for tensor in singles if place.index(tensor.name) > place.index(u.name)]
        by_role = [tensor for tensor in singles if "candidate" in _words(self.roles.get(tensor.name, ""))]
        candidates = [*by_role, *behind, *singles]
        if not candidates:
            self.fault("copies", f"need one more vector of width {u.dim}, the candidate; there is none")
            return self.new(stage.name, n, out_dim)
        if out_dim not in (2 * u.dim, 3 * u.dim):
            allowed = f"{2 * u.dim} (two vectors) or {3 * u.dim} (these and their sum)"
            self.fault("out_dim", f"is {out_dim}; allowed is {allowed}")
        return self.operate("pairs", (u, candidates[0]), stage.name, n, out_dim, rms=u.rms)

    def vectors(self, stage: Stage, sources: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Take ``sources``, which must have the stage's ``vectors`` of its ``dim`` together."""
        taken = self.take(sources)
        for tensor in taken:
            if tensor.dim != stage.dim:
                self.fault("dim", f"is {stage.dim}; allowed is {tensor.dim}, {self.who(tensor)}")
                return taken
        count = sum(tensor.count for tensor in taken)
        if count != stage.vectors:
            parts = " + ".join(f"{tensor.count} of {self.paths[tensor.name]}" for tensor in taken)
            self.fault("vectors", f"is {stage.vectors}; allowed is {count}, what it reads ({parts or 'nothing'})")
        return taken

    def sum(self, stage: Stage) -> Tensor:
        shape = (stage.vectors, stage.dim)
        before = [self.before] if self.before is not None else []
        fitting = [tensor for tensor in (*before, *self.given) if (tensor.count, tensor.dim) == shape]
        sources = self.vectors(stage, fitting[:1] or self.loose)
        # Results of an MLP are scaled for this; vectors of tables are independent.
        rms = 1.0 if fitting[:1] == before else sqrt(stage.vectors)
        return self.operate("sum", sources, stage.name, 1, stage.dim, rms=rms)

    def dot(self, stage: Stage) -> Tensor:
        sources = self.vectors(stage, self.loose)
        dense = [tensor for tensor in sources if tensor.name not in self.roles]
        beside = sum(tensor.width for tensor in dense)
        n = stage.vectors
        plain, full = n * (n - 1) // 2, n * (n + 1) // 2
        if stage.out_dim not in (plain + beside, full + beside):
            allowed = f"{plain + beside} (products of {n} vectors and {beside} dense values) or {full + beside}"
            self.fault("out_dim", f"is {stage.out_dim}; allowed is {allowed} (with the diagonal)")
        diagonal = stage.out_dim == full + beside
        rms = sqrt(stage.dim)
        name = f"{stage.name}.products" if dense else stage.name
        products = self.operate("dot", sources, name, 1, full if diagonal else plain, rms=rms, diagonal=diagonal)
        if not dense:
            return products
        return self.operate("concat", (*dense, products), stage.name, 1, stage.out_dim, rms=rms)

    def sequence(self, stage: Stage, key: str, width: int) -> Tensor:
        """Take ``steps`` vectors of ``width``: the stage before, else a table group."""
        before = [self.before] if self.before is not None else []
        order = [*before, *self.results, *self.given]
        fitting = [tensor for tensor in order if (tensor.count, tensor.dim) == (stage.steps, width)]
        if fitting:
            return self.take(fitting[:1])[0]
        source = next((tensor for tensor in order if tensor.count > 1), None)
        if source is None:
            self.fault("steps", f"is {stage.steps}, but there is no sequence of vectors for this stage to read")
            return Tensor("", stage.steps, width)
        self.take([source])
        if source.count != stage.steps:
            allowed = f"{source.count}, the vectors that {self.paths[source.name]} puts out"
            self.fault("steps", f"is {stage.steps}; allowed is {allowed}")
        if source.dim != width:
            what = "begins with" if key == "dims" else "is"
            self.fault(key, f"{what} {width}; allowed is {source.dim}, {self.who(source)}")
        return source

    def rnn(self, stage: Stage) -> Tensor:
        x = self.sequence(stage, "input_dim", stage.input_dim)
        after = self.following
        last = after is None or after.kind not in ("rnn", "attention") or after.steps != stage.steps
        fan_in, hidden = stage.input_dim, stage.hidden_dim
        weights = (
            WeightSpec(f"{stage.name}.input.weight", (fan_in, hidden), sqrt(0.5 / fan_in) / x.rms),
            WeightSpec(f"{stage.name}.hidden.weight", (hidden, hidden), sqrt(0.5 / hidden)),
            WeightSpec(f"{stage.name}.bias", (hidden,), 0.1),
        )
        count = 1 if last else stage.steps
        return self.operate("rnn", (x,), stage.name, count, hidden, rms=0.6, weights=weights, last=last)

    def attention(self, stage: Stage) -> Tensor:
        x = scores = self.sequence(stage, "dims", stage.dims[0])
        width = stage.dims[-1]
        if width not in (1, stage.dims[0]):
            self.fault("dims", f"ends with {width}; allowed is 1 or {stage.dims[0]}, the width of the steps it adds to")
        layers = list(enumerate(pairwise(stage.dims)))
        for layer, (fan_in, fan_out) in layers:
            spec = f"{stage.name}.{layer}"
            scores = self.operate(
                "linear",
                (scores,),
                spec,
                stage.steps,
                fan_out,
                weights=(
                    WeightSpec(f"{spec}.weight", (fan_in, fan_out), sqrt(2.0 / fan_in) / scores.rms),
                    WeightSpec(f"{spec}.bias", (fan_out,), 0.1),
                ),
                activation="none" if layer == len(layers) - 1 else "relu",
            )
        return self.operate("attention", (scores, x), stage.name, stage.steps, stage.dims[0], rms=x.rms)

    def cross(self, stage: Stage) -> Tensor:
        fitting = [tensor for tensor in reversed(self.loose) if tensor.width == stage.dim]
        before = [self.before] if self.before is not None else []
        source = next(iter([tensor for tensor in before if tensor in fitting] or fitting), None)
        if source is None:
            natural = next(iter([*before, *self.loose]), None)
            self.take([natural] if natural else [])
            allowed = f"allowed is {natural.width}, {self.who(natural)}" if natural else "nothing is left to read"
            self.fault("dim", f"is {stage.dim}; {allowed}")
            source = Tensor("", 1, stage.dim)
        x0 = x = self.flat(self.take([source])[0], stage.dim)
        for layer in range(stage.layers):
            spec = f"{stage.name}.{layer}"
            x = self.operate(
                "cross",
                (x0, x),
                stage.name if layer == stage.layers - 1 else spec,
                1,
                stage.dim,
                rms=x.rms,
                weights=(
                    WeightSpec(f"{spec}.down", (stage.dim, stage.rank), sqrt(1.0 / stage.dim) / x.rms),
                    WeightSpec(f"{spec}.up", (stage.rank, stage.dim), 0.5 * sqrt(1.0 / stage.rank)),
                    WeightSpec(f"{spec}.bias", (stage.dim,), 0.1),
                ),
            )
        return x


_STAGES = {
    "mlp": _Wiring.mlp,
    "concat": _Wiring.concat,
    "dot": _Wiring.dot,
    "sum": _Wiring.sum,
    "rnn": _Wiring.rnn,
    "attention": _Wiring.attention,
    "cross": _Wiring.cross,
}


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", text.lower()))


def _rms(tensors: Iterable[Tensor]) -> float:
    """Of the values of all tensors together."""
    values = [(tensor.width, tensor.rms) for tensor in tensors]
    total = sum(width for width, _ in values)
    return sqrt(sum(width * rms * rms for width, rms in values) / total) if total else 1.0
