"""A model on an accelerator, in PyTorch: tables and MLPs on the device, fed by the host (extra ``gpu``).

Weights and rows are those of :class:`~hercules_fast.measure.Engine` for the same seed, so scores can be compared.
Tables are filled one after another, so the host needs room for the largest only. One worker is one instance: it has a
stream and pinned buffers of its own; instances share tables and weights. A call copies a query's indices and dense
features into the pinned buffers, sends them, runs, brings the scores back and waits for them: what a server's queue
would see.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError, InterruptedRun
from hercules_fast.host import EnergyMeter, energy_meter, usable_cores
from hercules_fast.host.power import card_of
from hercules_fast.host.system import available_memory_bytes
from hercules_fast.measure.engine import largest_scale, making_bytes
from hercules_fast.measure.inputs import InputPool, QueryInputs
from hercules_fast.measure.network import Network, Operation, wire
from hercules_fast.measure.service import ServiceMeasurement, measure_service
from hercules_fast.measure.visits import Progress, measured, time_services
from hercules_fast.measure.weights import BLOCK, TABLES, dense_weights, embedding_bytes, table_values, uniform
from hercules_fast.models import Model
from hercules_fast.tables import ServiceTable, TableGroupSpec, TableStage, TableVariant, measured_table
from hercules_fast.traffic import Popularity

if TYPE_CHECKING:
    import torch

__all__ = ["Accelerator", "TorchModel", "measure_accelerator"]

BATCHES = (1, 16, 64, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
INSTANCES = (1, 2, 4)
SHARE = 0.8
"""Share of the free memory that tables, weights and buffers may take."""
REST_S = 1.0
"""How long the card rests to learn what it draws then, and how long it works for the other figure."""
BUSY_S = 2.0
LIMIT_S = 120.0


def load_torch(device: str) -> Any:
    """Return PyTorch, once it is there and has ``device`` (``"cuda"``, ``"cuda:1"``, ``"cpu"``).

    Raises:
        InputError: PyTorch is not installed, or does not find the device; one line that says so.
    """
    try:
        import torch
    except ImportError:
        raise InputError(f"device {device!r}: PyTorch is not installed (pip install 'hercules-fast[gpu]')") from None
    kind, _, number = str(device).partition(":")
    if kind not in ("cuda", "cpu") or (number and not number.isdecimal()):
        raise InputError(f"device: is {device!r}; allowed are 'cuda', 'cuda:0' and so on, or 'cpu'")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            found = f"finds {count} CUDA devices" if count else "finds no CUDA device"
            raise InputError(f"device: is {device!r}, but PyTorch {torch.__version__} {found} on this machine")
    return torch


class TorchModel:
    """Tables and dense network of a model as tensors on one device.

    Args:
        torch_: the module, see :func:`load_torch`.
        model, network: what runs, and its wiring.
        seed: of rows and weights.
        device: where it runs.
    """

    def __init__(self, torch_: Any, model: Model, network: Network, seed: int, device: str) -> None:
        self.torch = torch_
        self.network = network
        self.groups = model.tables
        weights = dense_weights(network, seed)
        self.bags: list[torch.Tensor] = []
        """Per table group, float32 ``[count * rows, dim]``: its tables one after another."""
        self.bases: list[torch.Tensor] = []
        """Per table group, ``[count, 1]``: first row of each table; int32 where that is enough."""
        block = uniform(seed, TABLES, 0, BLOCK, 1.0)
        number = 0
        with torch_.inference_mode():
            self.weights = dict(self._placed(weights, device))
            for group in self.groups:
                rows = torch_.empty((group.count * group.rows, group.dim), dtype=torch_.float32, device=device)
                for table in range(group.count):
                    values = torch_.from_numpy(table_values(group, number, block))
                    rows[table * group.rows : (table + 1) * group.rows].copy_(values)
                    number += 1
                self.bags.append(rows)
                kind = torch_.int32 if len(rows) < 1 << 31 else torch_.int64
                bases = torch_.arange(group.count, dtype=torch_.int64, device=device) * group.rows
                self.bases.append(bases.to(kind)[:, None])
        self.cells = {op.output: self._cell(op, weights, device) for op in network.operations if op.kind == "rnn"}
        self.triangles = {
            op.output: torch_.tril_indices(n, n, 0 if op.diagonal else -1, device=device)
            for op in network.operations
            if op.kind == "dot"
            for n in [sum(network.tensors[name].count for name in op.inputs)]
        }
        if device != "cpu":
            torch_.cuda.synchronize(device)  # workers have streams of their own, which do not wait for this one

    def _cell(self, op: Operation, weights: Mapping[str, npt.NDArray[np.float32]], device: str) -> Any:
        """A recurrence as PyTorch's module, whose weights lie together where the device wants that."""
        torch_ = self.torch
        into, hidden, bias = (torch_.from_numpy(weights[name]) for name in op.weights)
        cell = torch_.nn.RNN(*into.shape, batch_first=True)
        with torch_.no_grad():
            cell.weight_ih_l0.copy_(into.T)
            cell.weight_hh_l0.copy_(hidden.T)
            cell.bias_ih_l0.copy_(bias)
            cell.bias_hh_l0.zero_()
        return cell.to(device).eval()

    def _placed(self, weights: Mapping[str, npt.NDArray[np.float32]], device: str) -> Iterator[tuple[str, Any]]:
        """Weights as PyTorch's layers want them: ``[out, in]`` but for the batched ones of copies."""
        turned = {op.weights[0] for op in self.network.operations if op.kind == "linear"}
        turned |= {name for op in self.network.operations if op.kind == "cross" for name in op.weights[:2]}
        in_cells = {name for op in self.network.operations if op.kind == "rnn" for name in op.weights}
        for name, value in weights.items():
            if name in in_cells:
                continue
            turn = name in turned and value.ndim == 2
            yield name, self.torch.from_numpy(np.ascontiguousarray(value.T if turn else value)).to(device)

    def pool(self, indices: Sequence[torch.Tensor], items: int) -> list[torch.Tensor]:
        """Sum the rows of each table group, one call per group.

        Args:
            indices: per group, ``[count * items * pooling]`` as :class:`QueryInputs` has them, on the device.
            items: of the query.

        Returns:
            Per group, ``[items, count, dim]``.
        """
        pooled = []
        bag = self.torch.nn.functional.embedding_bag
        for group, rows, bases, index in zip(self.groups, self.bags, self.bases, indices, strict=True):
            at = index.view(group.count, items * group.pooling)
            at = at.to(bases.dtype) + bases if group.count > 1 else at
            sums = bag(at.view(group.count * items, group.pooling), rows, mode="sum")
            pooled.append(sums.view(group.count, items, group.dim).transpose(0, 1))
        return pooled

    def dense(self, features: torch.Tensor | None, pooled: Sequence[torch.Tensor]) -> torch.Tensor:
        """Run the dense network: features ``[items, dense_input_dim]``, pooled rows -> scores ``[items, outputs]``."""
        tensors = {f"pooled.{g}": value for g, value in enumerate(pooled)}
        if features is not None:
            tensors["dense"] = features[:, None, :]
        for op in self.network.operations:
            tensors[op.output] = _OPERATIONS[op.kind](self, op, *(tensors[name] for name in op.inputs))
        return tensors[self.network.output].flatten(1)

    # One method for each kind of operation; tensors are [items, count, dim], see :class:`Operation`.

    def _linear(self, op: Operation, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (self.weights[name] for name in op.weights)
        if weight.ndim == 2:
            y = self.torch.nn.functional.linear(x, weight, bias)
        else:
            x = x.transpose(0, 1).expand(len(weight), -1, -1)  # one copy after another
            y = self.torch.baddbmm(bias[:, None, :], x, weight).transpose(0, 1)
        return {"none": lambda: y, "relu": y.relu_, "sigmoid": y.sigmoid_}[op.activation]()

    def _concat(self, op: Operation, *parts: torch.Tensor) -> torch.Tensor:
        return self.torch.cat([part.flatten(1) for part in parts], 1)[:, None, :]

    def _pairs(self, op: Operation, u: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        three = self.network.tensors[op.output].dim == 3 * u.shape[2]
        beside = a.expand(-1, u.shape[1], -1)
        return self.torch.cat([u, beside, u + a] if three else [u, beside], 2)

    def _dot(self, op: Operation, *parts: torch.Tensor) -> torch.Tensor:
        x = self.torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        row, column = self.triangles[op.output]
        return self.torch.bmm(x, x.transpose(1, 2))[:, None, row, column]

    def _sum(self, op: Operation, *parts: torch.Tensor) -> torch.Tensor:
        x = self.torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return x.sum(1, keepdim=True)

    def _rnn(self, op: Operation, x: torch.Tensor) -> torch.Tensor:
        steps, last = self.cells[op.output](x)
        return last.transpose(0, 1) if op.last else steps

    def _attention(self, op: Operation, scores: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.torch.softmax(scores, 1) + x

    def _cross(self, op: Operation, x0: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        down, up, bias = (self.weights[name] for name in op.weights)
        linear = self.torch.nn.functional.linear
        return self.torch.addcmul(x, x0, linear(linear(x, down), up, bias))


_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "linear": TorchModel._linear,
    "concat": TorchModel._concat,
    "pairs": TorchModel._pairs,
    "dot": TorchModel._dot,
    "sum": TorchModel._sum,
    "rnn": TorchModel._rnn,
    "attention": TorchModel._attention,
    "cross": TorchModel._cross,
}


class Accelerator:
    """A model on a device, ready to run; see :meth:`build`."""

    def __init__(
        self, model: Model, compute: TorchModel, pool: InputPool, max_items: int, device: str, rows_scale: float
    ) -> None:
        self.model = model
        """With the rows that it has here."""
        self.compute = compute
        self.pool = pool
        self.max_items = max_items
        self.device = device
        self.rows_scale = rows_scale
        self.embedding_bytes = embedding_bytes(model, "float32")
        self.torch = compute.torch

    @classmethod
    def build(
        cls,
        model: Model,
        *,
        device: str = "cuda",
        rows_scale: float | None = None,
        max_bytes: int | None = None,
        max_items: int = BATCHES[-1],
        seed: int = 0,
        popularity: Popularity | None = None,
    ) -> Accelerator:
        """Place ``model`` on ``device`` with random rows and weights.

        Args:
            model: any model whose stages can be wired.
            device: ``"cuda"``, ``"cuda:1"`` and so on; ``"cpu"`` runs the same code on the host, for tests.
            rows_scale: factor on the rows of every table; None: 1 where the tables fit, else the largest that does.
            max_bytes: most bytes of tables; None: 0.8 of the device's free memory, less the dense weights.
            max_items: largest batch.
            seed: of rows, weights and inputs.
            popularity: how often each row is looked up; None: every row alike.

        Raises:
            InputError: PyTorch or the device is missing, or the tables do not fit; nothing was allocated then.
            ConfigError: stages of the model do not fit each other.
        """
        torch_ = load_torch(device)
        if type(max_items) is not int or not 1 <= max_items <= 1 << 20:
            raise InputError(f"max_items: is {max_items!r}; allowed is a whole number from 1 to {1 << 20}")
        if type(seed) is not int or not 0 <= seed < 1 << 64:
            raise InputError(f"seed: is {seed!r}; allowed is a whole number from 0 to 2**64 - 1")
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 1):
            raise InputError(f"max_bytes: is {max_bytes!r}; allowed is a whole number >= 1")
        network = wire(model)
        free = int(SHARE * _free_bytes(torch_, device)) - network.weight_bytes
        limit = free if max_bytes is None else min(free, max_bytes)
        on_host = int(SHARE * available_memory_bytes())
        if rows_scale is None:

            def fits(scaled: Model) -> bool:
                return embedding_bytes(scaled, "float32") <= limit and making_bytes(scaled) <= on_host

            rows_scale = largest_scale(model, fits) or 1e-300
        if rows_scale != 1:
            model = model.scaled(rows_scale, f"{model.label}, rows x{rows_scale:g}")
        needed, making = embedding_bytes(model, "float32"), making_bytes(model)
        if needed > limit:
            raise InputError(
                f"{model.name}: its tables need {needed / 1e9:.2f} GB at rows_scale {rows_scale:g}; allowed on "
                f"{device!r} are {max(0, limit) / 1e9:.2f} GB"
            )
        if making > on_host:
            raise InputError(
                f"{model.name}: its largest table needs {making / 1e9:.2f} GB of the host at rows_scale "
                f"{rows_scale:g}, where it is made; allowed are {on_host / 1e9:.2f} GB"
            )
        pool = InputPool(model, max_items=max_items, seed=seed, popularity=popularity, pool_bytes=0)
        return cls(model, TorchModel(torch_, model, network, seed, device), pool, max_items, device, rows_scale)

    def inputs(self, query: int, items: int) -> QueryInputs:
        """Inputs of a query, as a worker takes them."""
        return self.pool.of(query, items)

    def worker(
        self, operator_cores: int = 1, *, stage: Literal["gpu"] = "gpu", cpus: Sequence[int] | None = None
    ) -> Callable[[int, int, Any], npt.NDArray[np.float32]]:
        """One instance, for one thread: ``worker(query, items, payload=None)`` -> scores, float32 ``[items, outputs]``.

        ``operator_cores`` and ``cpus`` are there for the protocol of :class:`~hercules_fast.measure.Engine`: on a
        device neither has a meaning. Raises ``InputError`` for another stage.
        """
        if stage != "gpu":
            raise InputError(f"stage: is {stage!r}; allowed is 'gpu'")
        return _Instance(self)

    def describe(self) -> dict[str, Any]:
        """Where the figures come from, plain data."""
        torch_ = self.torch
        on_card = self.device != "cpu"
        return {
            "backend": "torch",
            "torch": torch_.__version__,
            "device": torch_.cuda.get_device_name(self.device) if on_card else "cpu",
            "cuda": torch_.version.cuda if on_card else None,
            "rows_scale": self.rows_scale,
            "embedding_bytes": self.embedding_bytes,
            "max_items": self.max_items,
            "seed": self.pool.seed,
            "popularity": self.pool.popularity,
        }


class _Instance:
    """A stream, and buffers on both sides of the link."""

    def __init__(self, accelerator: Accelerator) -> None:
        torch_ = self.torch = accelerator.torch
        self.compute, self.pool = accelerator.compute, accelerator.pool
        on_card = accelerator.device != "cpu"
        self.device = accelerator.device
        self.stream = torch_.cuda.Stream(self.device) if on_card else None
        items = accelerator.max_items
        largest = self.pool.of(0, items)

        def staged(like: npt.NDArray[Any]) -> tuple[Any, npt.NDArray[Any]]:
            kind = {"f": torch_.float32, "i": torch_.int32 if like.itemsize == 4 else torch_.int64}[like.dtype.kind]
            buffer = torch_.empty(like.shape, dtype=kind, pin_memory=on_card)
            return buffer, buffer.numpy()

        self.indices = [staged(index) for index in largest.indices]
        self.features = staged(largest.dense) if largest.dense is not None else None
        outputs = self.compute.network.output_dim
        self.scores = torch_.empty((items, outputs), dtype=torch_.float32, pin_memory=on_card)

    def __call__(self, query: int, items: int, payload: object = None) -> npt.NDArray[np.float32]:
        inputs = self.pool.of(query, items)
        with self.torch.inference_mode(), self.torch.cuda.stream(self.stream) if self.stream else nullcontext():
            features = None
            if self.features is not None and inputs.dense is not None:
                features = self._sent(self.features, inputs.dense)
            indices = [self._sent(buffer, index) for buffer, index in zip(self.indices, inputs.indices, strict=True)]
            scores = self.scores[:items]
            scores.copy_(self.compute.dense(features, self.compute.pool(indices, items)), non_blocking=True)
        if self.stream:
            self.stream.synchronize()
        answer: npt.NDArray[np.float32] = scores.numpy().copy()
        return answer

    def _sent(self, buffer: tuple[Any, npt.NDArray[Any]], values: npt.NDArray[Any]) -> Any:
        """``values`` on the device, by way of the pinned ``buffer``."""
        tensor, view = buffer
        view[: len(values)] = values
        return tensor[: len(values)].to(self.device, non_blocking=True)


def measure_accelerator(
    accelerator: Accelerator,
    *,
    batches: Sequence[int] | None = None,
    instances: Sequence[int] | None = None,
    seconds: float = 30.0,
    server: str = "this-host",
    workload: str | None = None,
    idle_w: float | None = None,
    tdp_w: float | None = None,
    base_w: float = 0.0,
    noise_limit: float = 0.01,
    journal: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ServiceMeasurement:
    """Measure the whole model on the device: a service table of kind ``gpu``, whose one stage serves fused queries.

    It is measured as :func:`~hercules_fast.measure.measure_service` does, with an instance for each thread: a
    service is the time from the host's copy of the inputs to the arrival of the scores there. The table always holds
    wall time, since the host's thread mostly waits; on a noisy machine it is not certified.

    Args:
        accelerator: what is measured.
        batches: items; default: a grid up to the accelerator's ``max_items``. A search needs the largest to hold the
            largest query.
        instances: that run at the same time, each fed by a CPU of its own; default: 1, 2, 4 as far as the CPUs go.
        idle_w, tdp_w: watts of the card at rest and in use, both or neither. Default: by its energy counter, in use by
            most instances with the largest batch.
        base_w: watts that are always drawn beside, say those of the host.
        seconds, server, workload, noise_limit, journal, progress: as for
            :func:`~hercules_fast.measure.measure_service`.

    Raises:
        InputError: an argument is outside what is allowed, or the card has no energy counter and no watts are given.
        ConfigError, OutputError: the journal cannot be used.
        InterruptedRun: Ctrl-C; ``partial`` is a :class:`ServiceMeasurement` of what was visited.
    """
    if instances is None:
        instances = [n for n in INSTANCES if n <= usable_cores().count]
    if batches is None:
        batches = [b for b in BATCHES if b <= accelerator.max_items]
    for name, given in (("batches", batches), ("instances", instances)):
        if not isinstance(given, Iterable) or not given:
            raise InputError(f"{name}: is {given!r}; allowed are different whole numbers, at least one")
    meter, part = _meter(accelerator.torch, accelerator.device)
    origin: Literal["measured", "user"] = "user"
    source = "as given"
    if idle_w is None and tdp_w is None:
        if meter is None:
            raise InputError(
                f"idle_w, tdp_w: not given, and {accelerator.device!r} has no energy counter; give both in watts"
            )
        largest = max(batches, default=1), max(instances, default=1)
        idle_w = _watts(meter, part, lambda: time.sleep(REST_S))
        tdp_w = max(idle_w, _watts(meter, part, _busy(accelerator, *largest)))
        origin, source = "measured", f"{meter.source} ({part}), at rest and with most instances at the largest batch"

    def on_card(found: ServiceMeasurement) -> ServiceMeasurement:
        points = tuple(replace(point, stage="gpu") for point in found.points)
        table = None if found.table is None else _card_table(accelerator, found)
        return replace(
            found, table=table, points=points, clock="wall", energy=replace(found.energy, origin=origin, source=source)
        )

    try:
        found = measure_service(
            _AsEngine(accelerator),
            batches=batches,
            operator_cores=(1,),
            threads=instances,
            seconds=seconds,
            server=server,
            workload=workload,
            idle_w=idle_w,
            tdp_w=tdp_w,
            base_w=base_w,
            noise_limit=noise_limit,
            journal=journal,
            progress=progress,
        )
    except InterruptedRun as stop:
        if stop.partial is not None:
            stop.partial = on_card(stop.partial)
        raise
    return on_card(found)


@dataclass(frozen=True, slots=True)
class _AsEngine:
    """An accelerator as what is measured takes it: a whole model on one core, which feeds it."""

    accelerator: Accelerator

    @property
    def model(self) -> Model:
        return self.accelerator.model

    @property
    def max_items(self) -> int:
        return self.accelerator.max_items

    def worker(self, operator_cores: int, *, stage: str, cpus: Sequence[int] | None) -> Any:
        return self.accelerator.worker()

    def describe(self) -> dict[str, Any]:
        return self.accelerator.describe()


def _card_table(accelerator: Accelerator, found: ServiceMeasurement) -> ServiceTable:
    """The measured wall times as those of an accelerator's stage."""
    table = found.table
    assert table is not None
    whole = measured_table(
        measured(found.points, "wall"),
        server=table.server,
        workload=table.workload,
        idle_w=found.energy.idle_w,
        tdp_w=found.energy.tdp_w,
        base_w=found.energy.base_w,
        large_dips="pool",
        notes=(
            f"measured on {accelerator.describe()['device']} with PyTorch {accelerator.torch.__version__}, eager: wall "
            "time from the host's copy of the inputs to the arrival of the scores",
            *([] if found.certified else [f"not certified: {found.cause}"]),
        ),
    )
    instances = int(whole.busy[-1])
    memory = {"gpu": float(accelerator.embedding_bytes + accelerator.compute.network.weight_bytes)}
    variant = TableVariant(
        name="gpu", kind="gpu", operator_cores=(0,), max_instances=instances, memory_bytes=memory, hot_share=1.0
    )
    return replace(
        whole,
        variants=(variant,),
        stages=(TableStage(name="gpu", group="gpu", unit="fused", busy_of="gpu"),),
        groups=(TableGroupSpec(name="gpu", component="gpu", capacity=instances, interference="at_start"),),
        idle_w={"gpu": whole.idle_w["cpu"]},
        tdp_w={"gpu": whole.tdp_w["cpu"]},
    )


def _busy(accelerator: Accelerator, items: int, instances: int) -> Callable[[], object]:
    """What keeps ``instances`` of the card busy for about ``BUSY_S`` seconds, with all made ready."""
    workers = [accelerator.worker() for _ in range(instances)]
    for worker in workers:
        worker(0, items, None)
    began = time.monotonic()
    workers[0](0, items, None)
    each = int(min(10_000, max(3, BUSY_S / (time.monotonic() - began))))
    cpus = tuple((cpu,) for cpu in usable_cores().cpus[:instances])
    return lambda: time_services(workers, cpus, np.full(each * instances, items), LIMIT_S)


def _meter(torch_: Any, device: str) -> tuple[EnergyMeter | None, str]:
    """The counter of the card, if it has one; on the host there is none of it alone."""
    meter = energy_meter() if device != "cpu" else None
    cards = [part for part in meter.parts if part.startswith("gpu-")] if meter is not None else []
    if not cards:
        return None, ""
    part = cards[0] if len(cards) == 1 else _counted_as(torch_, device)
    return (meter, part) if part in cards else (None, part)


def _counted_as(torch_: Any, device: str) -> str:
    """A card's name among the counters: CUDA numbers cards by speed, and only those that are visible."""
    number = int(device.partition(":")[2] or torch_.cuda.current_device())
    return card_of(str(getattr(torch_.cuda.get_device_properties(number), "uuid", "")))


def _watts(meter: EnergyMeter, part: str, work: Callable[[], object]) -> float:
    began, start_j = time.monotonic(), meter.read_j()[part]
    work()
    return max(0.0, meter.read_j()[part] - start_j) / (time.monotonic() - began)


def _free_bytes(torch_: Any, device: str) -> int:
    return int(torch_.cuda.mem_get_info(device)[0]) if device != "cpu" else available_memory_bytes()
