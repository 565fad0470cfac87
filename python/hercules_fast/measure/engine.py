"""A recommendation model that runs on this machine: our kernels for the embeddings, a backend for the dense part."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hercules_fast import _core
from hercules_fast.descriptors import validate
from hercules_fast.errors import InputError
from hercules_fast.host.system import available_memory_bytes, read_system
from hercules_fast.measure import blas
from hercules_fast.measure.dense_numpy import NumpyDense
from hercules_fast.measure.dense_onnx import OnnxDense, onnx_graph, require
from hercules_fast.measure.inputs import InputPool, QueryInputs, item_bytes, start_hash
from hercules_fast.measure.network import Network, wire
from hercules_fast.measure.weights import dense_weights, embedding_bytes, row_formats, tables
from hercules_fast.models import Model
from hercules_fast.sls import EmbeddingBagCollection, EmbeddingTable, TableDType
from hercules_fast.traffic import Popularity
from hercules_fast.traffic.files import POPULARITY

__all__ = ["Engine", "Pooled", "Worker", "largest_scale", "making_bytes"]

Floats = npt.NDArray[np.float32]
Backend = Literal["auto", "onnxruntime", "numpy"]
Dense = NumpyDense | OnnxDense
StageOf = Literal["model", "sparse", "dense"]

_LEAST_POOL_BYTES = 64 << 20
_MOST_GRAPH_BYTES = (2 << 30) - (1 << 24)
"""A serialised graph has at most 2 GiB, nodes included."""


class Pooled:
    """What a sparse worker hands to a dense one: pooled vectors per table group, float32 ``[items, count * dim]``.

    Its memory goes back to the sparse worker when a dense worker has read it: it is used once.
    """

    __slots__ = ("_gather", "_home", "items", "vectors")

    def __init__(self, items: int, vectors: tuple[Floats, ...], gather: _Gather | None, home: deque[_Gather]):
        self.items = items
        self.vectors: tuple[Floats, ...] | None = vectors
        self._gather = gather
        self._home = home

    @property
    def used(self) -> bool:
        """Whether a dense worker has read it."""
        return self.vectors is None

    def again(self) -> Pooled:
        """The same vectors for one more reader, before this one is used; their memory goes back with this one only."""
        if self.vectors is None:
            raise InputError("payload: is used; allowed is one that no dense worker has read")
        return Pooled(self.items, self.vectors, None, self._home)

    def give_back(self) -> None:
        """Let the sparse worker write over the vectors."""
        self.vectors = None
        if self._gather is not None:
            self._home.append(self._gather)
            self._gather = None


class Worker:
    """One model thread: buffers and a backend session of its own. For one thread at a time.

    ``worker(query, items)`` runs a query of ``items`` items; made by :meth:`Engine.worker`.
    """

    __slots__ = ("_run", "engine", "operator_cores", "stage")

    def __init__(self, engine: Engine, operator_cores: int, stage: StageOf, cpus: tuple[int, ...] | None):
        self.engine = engine
        self.operator_cores = operator_cores
        self.stage = stage
        self._run: Callable[[int, int, object], Floats | Pooled]
        if stage == "model":
            self._run = _model(engine, _Gather(engine, operator_cores), engine._dense(operator_cores, cpus))
        elif stage == "sparse":
            self._run = _sparse(engine, operator_cores)
        else:
            self._run = _rank(engine, engine._dense(operator_cores, cpus))

    def __call__(self, query: int, items: int, payload: object = None) -> Any:
        """Run query number ``query`` of ``items`` items.

        Args:
            query: Number of the query; its inputs are a pure function of (seed, query, items).
            items: 1 to ``max_items``.
            payload: For a dense worker: what a sparse worker gave for the same query.

        Returns:
            Scores, float32 ``[items, output_dim]``, valid until the next call; of a sparse worker :class:`Pooled`.

        Raises:
            InputError: ``items`` or ``payload`` is not as said above.
            TypeError: ``query`` or ``items`` is no whole number.
        """
        items = index(items)
        if not 1 <= items <= self.engine.max_items:
            raise InputError(f"items: is {items}; allowed is 1 to max_items = {self.engine.max_items}")
        return self._run(index(query), items, payload)


def _model(engine: Engine, gather: _Gather, dense: Dense) -> Callable[[int, int, object], Floats]:
    seed, features = engine.seed, engine._pool.features

    def run(query: int, items: int, _: object) -> Floats:
        place = start_hash(seed, query)
        vectors = gather.run(place, items)
        given = features(place, items)
        return dense.run(vectors if given is None else (given, *vectors), items)

    return run


def _sparse(engine: Engine, threads: int) -> Callable[[int, int, object], Pooled]:
    seed = engine.seed
    home: deque[_Gather] = deque()

    def run(query: int, items: int, _: object) -> Pooled:
        try:
            gather = home.pop()
        except IndexError:
            gather = _Gather(engine, threads)
        return Pooled(items, gather.run(start_hash(seed, query), items), gather, home)

    return run


def _rank(engine: Engine, dense: Dense) -> Callable[[int, int, object], Floats]:
    seed, features = engine.seed, engine._pool.features

    def run(query: int, items: int, payload: object) -> Floats:
        if not isinstance(payload, Pooled) or payload.items != items or payload.vectors is None:
            raise InputError(f"payload: is {payload!r}; allowed is what a sparse worker gave for {items} items, once")
        given = features(start_hash(seed, query), items)
        scores = dense.run(payload.vectors if given is None else (given, *payload.vectors), items)
        payload.give_back()
        return scores

    return run


class _Gather:
    """Pools the rows of a query into buffers of its own."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._tables = [(collection._rows, sum(collection.dims)) for collection in engine._tables]
        self._buffers = [np.empty(engine.max_items * width, np.float32) for _, width in self._tables]
        self._pool = engine._pool
        self._threads = threads
        self._ready: dict[int, tuple[list[tuple[Any, ...]], tuple[Floats, ...]]] = {}

    def run(self, place: int, items: int) -> tuple[Floats, ...]:
        """Pooled vectors per table group, valid until the next run; the same arrays for the same ``items``."""
        ready = self._ready.get(items)
        if ready is None:
            ready = self._ready[items] = self._prepare(items)
        calls, pooled = ready
        threads = self._threads
        for bags, rows, span, n, offsets, out in calls:
            start = place * span >> 64
            _embedding_bags(bags, rows[start : start + n], offsets, "sum", None, False, out, threads, False)
        return pooled

    def _prepare(self, items: int) -> tuple[list[tuple[Any, ...]], tuple[Floats, ...]]:
        pooled = tuple(
            buffer[: items * width].reshape(items, width)
            for buffer, (_, width) in zip(self._buffers, self._tables, strict=True)
        )
        slices = self._pool.slices(items)
        calls = [(rows, *part, out) for (rows, _), part, out in zip(self._tables, slices, pooled, strict=True)]
        return calls, pooled


_embedding_bags = _core.embedding_bag_collection


class Engine:
    """A model built with random weights at a scale that fits this machine, ready to run.

    Make one with :meth:`build`. Tables and weights are shared by all workers and never change.
    """

    def __init__(self) -> None:
        raise TypeError("an Engine is made by Engine.build")

    model: Model
    """The model as built: with ``rows_scale`` times the rows."""
    network: Network
    rows_scale: float
    backend: Literal["onnxruntime", "numpy"]
    fallback: str
    """Why ``"auto"`` did not take ONNX Runtime; empty if it did, or was not asked to."""
    embedding_bytes: int
    max_items: int
    seed: int
    dtypes: tuple[TableDType, ...]
    """Format of the rows of each table group."""
    weights: dict[str, Floats]
    """The dense network's weights by name; shapes as in ``network.weights``."""
    _tables: tuple[EmbeddingBagCollection, ...]
    _pool: InputPool
    _cap: blas.BlasCap | None
    _graph: bytes

    @classmethod
    def build(
        cls,
        model: Model,
        *,
        rows_scale: float | None = None,
        max_bytes: int | None = None,
        backend: Backend = "auto",
        max_items: int = 1024,
        seed: int = 0,
        popularity: Popularity | None = None,
        dtype: TableDType | None = None,
        threads: int | None = None,
    ) -> Engine:
        """Build ``model`` with random weights.

        Args:
            model: Of the catalogue, or a user's.
            rows_scale: Rows per row of the model. Default: 1 where the tables fit ``max_bytes``, else the largest that
                fits.
            max_bytes: Bytes of all tables at most. Default: a quarter of the memory that is available, and where tables
                must be scaled the power of two below it, so that a later run finds the same scale (all of the memory
                for a ``rows_scale`` that is given).
            backend: What runs the dense part. ``"auto"``: ONNX Runtime where it is installed, else NumPy.
            max_items: Items of the largest query.
            seed: Of weights, tables and inputs: same seed, same bytes (of inputs: for pools of one size, which follows
                ``max_items``, the caches and the memory that is available).
            popularity: How often each row is looked up; None: every row alike.
            dtype: Format of the tables' rows. Default: by the ``dtype_bytes`` of each group, float32 for 4, float16 for
                2, int8 for 1.
            threads: Threads that encode the tables.

        Raises:
            ConfigError: The model's stages do not chain, or ``popularity`` is no law; with every fault.
            InputError: An argument is outside what is said above, or the tables do not fit: sizes are named before
                anything is allocated. Or ``backend="onnxruntime"`` and it is not installed.
            MemoryError: The system refused memory that it had said is available.
        """
        network = wire(model)
        most = (1 << 63) - 1
        if type(seed) is not int or not 0 <= seed < 1 << 64:
            raise InputError(f"seed: is {seed!r}; allowed is a whole number from 0 to 2**64 - 1")
        if type(max_items) is not int or not 1 <= max_items <= 1 << 20:
            raise InputError(f"max_items: is {max_items!r}; allowed is a whole number from 1 to {1 << 20}")
        if max_bytes is not None and (type(max_bytes) is not int or not 1 <= max_bytes <= most):
            raise InputError(f"max_bytes: is {max_bytes!r}; allowed is a whole number from 1 to {most}")
        if popularity is not None:
            validate(POPULARITY, popularity)
        if backend not in ("auto", "onnxruntime", "numpy"):
            raise InputError(f"backend: is {backend!r}; allowed are 'auto', 'onnxruntime', 'numpy'")
        _check_room(model, network, max_items)
        engine = object.__new__(cls)
        engine.rows_scale = _scale(model, rows_scale, max_bytes, dtype)
        engine.model = model
        if engine.rows_scale != 1:
            engine.model = model.scaled(engine.rows_scale, f"{model.label}, {engine.rows_scale:.4g} of its rows")
        engine.network = network
        engine.embedding_bytes = embedding_bytes(engine.model, dtype)
        engine.max_items, engine.seed, engine.dtypes = max_items, seed, row_formats(model, dtype)
        engine.backend, engine.fallback = _backend(backend, network.weight_bytes)
        engine._tables = tables(engine.model, dtype, seed, threads)
        engine._pool = InputPool(
            engine.model,
            max_items=max_items,
            seed=seed,
            popularity=popularity,
            pool_bytes=_pool_bytes(),
        )
        engine.weights = dict(dense_weights(network, seed))
        engine._cap, engine._graph = None, b""
        if engine.backend == "onnxruntime":
            engine._graph = onnx_graph(network, engine.weights)
        if engine.backend == "numpy":
            engine._cap = blas.hold()
            weakref.finalize(engine, blas.release)
        return engine

    def worker(self, operator_cores: int = 1, *, stage: StageOf = "model", cpus: Sequence[int] | None = None) -> Worker:
        """A model thread with ``operator_cores`` cores inside, for one thread at a time.

        Args:
            operator_cores: Cores that one query may use. The NumPy backend uses them for the embeddings only.
            stage: ``"model"``, or half of an S-D pipeline: ``"sparse"`` gathers, ``"dense"`` does the rest.
            cpus: CPUs of this worker, the calling thread's first: ONNX Runtime's own threads are bound to the others.
                The calling thread is its caller's to bind; threads of the kernels serve all workers and are not bound.

        Raises:
            InputError: An argument is not as said above.
        """
        if type(operator_cores) is not int or not 1 <= operator_cores <= 1024:
            raise InputError(f"operator_cores: is {operator_cores!r}; allowed is a whole number from 1 to 1024")
        if stage not in ("model", "sparse", "dense"):
            raise InputError(f"stage: is {stage!r}; allowed are 'model', 'sparse', 'dense'")
        return Worker(self, operator_cores, stage, None if cpus is None else tuple(cpus))

    def inputs(self, query: int, items: int) -> QueryInputs:
        """The inputs that workers use for this query."""
        if type(items) is not int or not 1 <= items <= self.max_items:
            raise InputError(f"items: is {items!r}; allowed is 1 to max_items = {self.max_items}")
        return self._pool.of(query, items)

    def table_values(self, group: int) -> list[Floats]:
        """The tables of a group as their kernels see them, float32 ``[rows, dim]`` each: copies, for checks."""
        return [table.dequantize() for table in self._bags(group)]

    def _bags(self, group: int) -> list[EmbeddingTable]:
        return [table for table in self._tables[group].tables if isinstance(table, EmbeddingTable)]

    def describe(self) -> dict[str, Any]:
        """Where the figures of this engine come from: versions, instruction set, pages, caps."""
        bags = [table for group in range(len(self._tables)) for table in self._bags(group)]
        huge = sum(table.huge_page_share * table.nbytes for table in bags)
        return {
            "model": self.model.name,
            "label": self.model.label,
            "rows_scale": self.rows_scale,
            "embedding_bytes": self.embedding_bytes,
            "dtypes": sorted(set(self.dtypes)),
            "dense_weight_bytes": self.network.weight_bytes,
            "input_pool_bytes": self._pool.nbytes,
            "max_items": self.max_items,
            "seed": self.seed,
            "popularity": self._pool.popularity,
            "backend": self.backend,
            "fallback": self.fallback,
            "versions": _versions(self.backend),
            "blas": str(self._cap) if self._cap is not None else "",
            "isa": _core.capabilities()["isa_used"],
            "huge_page_share": huge / self.embedding_bytes if self.embedding_bytes else 0.0,
        }

    def _dense(self, operator_cores: int, cpus: tuple[int, ...] | None) -> Dense:
        if self.backend == "onnxruntime":
            return OnnxDense(self.network, self._graph, threads=operator_cores, cpus=cpus, max_items=self.max_items)
        return NumpyDense(self.network, self.weights, self.max_items)


def _pool_bytes() -> int:
    """Bytes of input pools to aim at: beyond the last-level cache, within a sixteenth of the memory."""
    return min(max(_LEAST_POOL_BYTES, 2 * read_system().last_level_cache_bytes), available_memory_bytes() // 16)


def _versions(backend: str) -> dict[str, str]:
    versions = {"numpy": np.__version__}
    if backend == "onnxruntime":
        import onnx
        import onnxruntime

        versions |= {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}
    return versions


def _backend(asked: Backend, weight_bytes: int) -> tuple[Literal["onnxruntime", "numpy"], str]:
    """The backend to use, and why it is not ONNX Runtime where it could have been."""
    if asked == "numpy":
        return "numpy", ""
    try:
        require()
        if weight_bytes > _MOST_GRAPH_BYTES:
            raise InputError(
                f"backend: 'onnxruntime' has no graphs of more than 2 GiB; weights take {weight_bytes} bytes"
            )
    except InputError as error:
        if asked == "onnxruntime":
            raise
        return "numpy", str(error)
    return "onnxruntime", ""


def _check_room(model: Model, network: Network, max_items: int) -> None:
    """Refuse inputs and weights that have no place in memory beside the tables."""
    available = available_memory_bytes()
    pools, for_pools = 2 * max_items * item_bytes(model), available // 2
    if pools > for_pools:
        raise InputError(
            f"max_items: {max_items} takes {pools} bytes of inputs; allowed is {for_pools}, half of what is available"
        )
    weights, for_weights = network.weight_bytes, available // 8  # kept here, in the graph and in each session
    if weights > for_weights:
        raise InputError(
            f"stages: take {weights} bytes of weights; allowed is {for_weights}, an eighth of what is available"
        )


def _scale(model: Model, rows_scale: float | None, max_bytes: int | None, dtype: TableDType | None) -> float:
    """The scale of rows to build with; sizes are checked here, before anything is allocated."""
    available = available_memory_bytes()
    if rows_scale is None:
        limit = available // 4 if max_bytes is None else min(max_bytes, available)
        if max_bytes is None and embedding_bytes(model, dtype) > limit:
            limit = 1 << max(limit.bit_length() - 1, 0)  # what is available is never twice the same

        def fits(scaled: Model) -> bool:
            needed = embedding_bytes(scaled, dtype)
            return needed <= limit and needed + making_bytes(scaled) <= available

        if found := largest_scale(model, fits):
            return found
        least = embedding_bytes(model.scaled(1e-300, model.label), dtype)
        raise InputError(f"max_bytes: {limit} bytes hold no table of {model.name!r}; with a row each they take {least}")
    scaled = model.scaled(rows_scale, model.label)
    needed = embedding_bytes(scaled, dtype)
    if max_bytes is not None and needed > max_bytes:
        raise InputError(
            f"rows_scale: {rows_scale:g} takes {needed} bytes of tables; allowed is {max_bytes}, max_bytes"
        )
    beside = making_bytes(scaled)
    if needed + beside > available:
        raise InputError(
            f"rows_scale: {rows_scale:g} takes {needed} bytes of tables and {beside} to make one;"
            f" allowed is {available}, the memory that is available"
        )
    return rows_scale


def making_bytes(model: Model) -> int:
    """Bytes of the largest table as float32, as which it is made beside what is there already."""
    return max((4 * group.rows * group.dim for group in model.tables), default=0)


def largest_scale(model: Model, fits: Callable[[Model], bool]) -> float:
    """1 if ``model`` fits, else the largest scale of its rows that does; 0 if not even a row each."""
    if fits(model):
        return 1.0
    if not fits(model.scaled(1e-300, model.label)):
        return 0.0
    small, too_large = 0.0, 1.0
    for _ in range(40):  # rows are whole, so the size is a step function: halve
        middle = (small + too_large) / 2
        if fits(model.scaled(middle, model.label)):
            small = middle
        else:
            too_large = middle
    return small
