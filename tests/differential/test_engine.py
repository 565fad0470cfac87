"""The engine against plain forward passes, for every model of the catalogue and for random ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hercules_fast.measure import Engine, wire
from hercules_fast.measure import engine as engine_module
from hercules_fast.models import Model, Stage, TableGroup, model, model_names
from tests.reference import forward as reference

BACKENDS = ("numpy", "onnxruntime")
MAX_ITEMS = 33


@pytest.fixture(autouse=True)
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_pool_bytes", lambda: 1 << 16)


def build(described: Model, backend: str, **options: object) -> Engine:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    options = {"rows_scale": 1e-4, "max_items": MAX_ITEMS, "seed": 3} | options
    return Engine.build(described, backend=backend, **options)


def tolerance(described: Model) -> float:
    """Of float32 against float64, relative to the values on the way, which are about 1.

    A sum of n products is off by at most n u of the sum of their sizes, u = 2**-24. Layers pass errors on about as they
    come, since weights keep sizes at 1; so the bound is u times all sums on the way. Never looser than 1e-4.
    """
    terms = max((group.pooling for group in described.tables), default=0)
    for stage in described.stages:
        terms += stage.steps * sum(stage.dims) + stage.steps * (stage.input_dim + stage.hidden_dim)
        terms += stage.vectors * max(1, stage.dim) + stage.layers * (stage.dim + stage.rank)
    return min(1e-4, terms * 2.0**-24)


def expected(engine: Engine, query: int, items: int) -> np.ndarray:
    values = [engine.table_values(group) for group in range(len(engine.model.tables))]
    return reference.forward(engine.model, values, engine.weights, engine.inputs(query, items))


def assert_close(scores: np.ndarray, wanted: np.ndarray, described: Model) -> None:
    assert scores.dtype == np.float32
    assert scores.shape == wanted.shape
    assert np.abs(scores - wanted).max() <= tolerance(described) * max(np.abs(wanted).max(), 1.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", model_names())
def test_catalogue_models_are_their_forward_pass(name: str, backend: str) -> None:
    engine = build(model(name), backend)
    worker, sparse, dense = engine.worker(), engine.worker(stage="sparse"), engine.worker(stage="dense")
    for query, items in ((0, 1), (1, 3), (2, 17), (3, MAX_ITEMS), (4, 3)):
        scores = worker(query, items).copy()
        assert_close(scores, expected(engine, query, items), engine.model)
        # The pipeline gives the same bytes.
        assert np.array_equal(dense(query, items, sparse(query, items)), scores)
    whole = worker(3, MAX_ITEMS)
    assert np.ptp(whole, axis=0).max() > 0.01, "scores do not tell items apart, so they would hide a fault"
    assert 1e-3 < np.abs(whole).max() < 100


@pytest.mark.parametrize("backend", BACKENDS)
def test_tasks_are_heads_side_by_side(backend: str) -> None:
    described = model("mt-wnd")
    heads = replace(described.stages[-1], copies=3, dims=(512, 256, 1))
    engine = build(replace(described, stages=(*described.stages[:-1], heads)), backend)
    scores = engine.worker()(7, 5)
    assert scores.shape == (5, 3)
    assert_close(scores, expected(engine, 7, 5), engine.model)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("diagonal", [False, True])
def test_dot_interaction(backend: str, diagonal: bool) -> None:
    n, dim = 6, 8
    products = n * (n + 1) // 2 if diagonal else n * (n - 1) // 2
    described = Model(
        name="dot",
        family="dlrm",
        label="test",
        dense_input_dim=13,
        tables=(TableGroup(count=3, rows=50, dim=dim, pooling=4), TableGroup(count=2, rows=9, dim=dim, pooling=1)),
        stages=(
            Stage(name="bottom_mlp", kind="mlp", dims=(13, dim)),
            Stage(name="interaction", kind="dot", vectors=n, dim=dim, out_dim=dim + products),
            Stage(name="predict_mlp", kind="mlp", dims=(dim + products, 7, 1)),
        ),
        latency_targets=(),
    )
    engine = build(described, backend, rows_scale=1.0)
    weights = {name: array.astype(np.float64) for name, array in engine.weights.items()}
    for items in (1, 3, MAX_ITEMS):
        inputs = engine.inputs(5, items)
        pooled = [reference.pool_group(described, g, engine.table_values(g), inputs) for g in range(2)]
        bottom = reference.mlp(described.stages[0], inputs.dense.astype(np.float64), weights)
        joined = reference.dot_interaction(bottom, pooled, diagonal=diagonal)
        wanted = reference.mlp(described.stages[2], joined, weights, end=reference.sigmoid)
        assert_close(engine.worker()(5, items), wanted, described)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["dlrm-rmc1", "din"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int4"])
def test_tables_of_any_format(name: str, dtype: str, backend: str) -> None:
    """The reference reads the values that the kernels see; sums over quantised rows keep to a bound of their own."""
    engine = build(model(name), backend, dtype=dtype)
    assert_close(engine.worker()(9, 8), expected(engine, 9, 8), engine.model)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dims", [(4, 5, 3), (4, 1, 3), (4, 1), (4, 6, 1)])
def test_towers_of_their_own_and_an_attention_of_several_layers(backend: str, dims: tuple[int, ...]) -> None:
    """A user's model: an MLP per table, an attention and a recurrence over what these put out."""
    n, out = 3, dims[-1]
    described = Model(
        name="towers", family="own", label="test", dense_input_dim=2, latency_targets=(),
        tables=(TableGroup(count=n, rows=20, dim=4, pooling=2),),
        stages=(
            Stage(name="tower", kind="mlp", dims=dims, copies=n),
            Stage(name="focus", kind="attention", steps=n, dims=(out, 7, out)),
            Stage(name="walk", kind="rnn", steps=n, input_dim=out, hidden_dim=5),
            Stage(name="join", kind="concat", out_dim=7),
            Stage(name="top", kind="mlp", dims=(7, 4)),
        ),
    )  # fmt: skip
    engine = build(described, backend, rows_scale=1.0)
    tower, focus, walk, _, top = described.stages
    weights = {name: array.astype(np.float64) for name, array in engine.weights.items()}
    for items in (1, 3, MAX_ITEMS):
        inputs = engine.inputs(5, items)
        pooled = reference.pool_group(described, 0, engine.table_values(0), inputs)
        steps = [reference.mlp(tower, pooled[:, i], weights, copy=i) for i in range(n)]
        scores = [reference.mlp(focus, step, weights, end=lambda x: x) for step in steps]
        total = sum(np.exp(score) for score in scores)
        attended = [np.exp(score) / total + step for score, step in zip(scores, steps, strict=True)]
        last = reference.rnn(walk, attended, weights)[-1]
        wanted = reference.mlp(top, np.concatenate([last, inputs.dense], axis=1), weights)
        assert_close(engine.worker()(5, items), wanted, described)


# -- random models: a family's shape with widths of any size -----------------------------------------------------------

widths = st.integers(1, 12)


@st.composite
def dlrms(draw: st.DrawFn) -> Model:
    groups = draw(
        st.lists(st.builds(_group, st.integers(1, 4), st.integers(1, 40), widths, widths), min_size=1, max_size=3)
    )
    dense, bottom = draw(widths), draw(st.lists(widths, min_size=1, max_size=3))
    joined = bottom[-1] + sum(group.count * group.dim for group in groups)
    stages = [
        Stage(name="bottom_mlp", kind="mlp", dims=(dense, *bottom)),
        Stage(name="interaction", kind="concat", out_dim=joined),
    ]
    if draw(st.booleans()):
        stages.append(
            Stage(name="cross_net", kind="cross", layers=draw(st.integers(1, 3)), dim=joined, rank=draw(widths))
        )
    stages.append(Stage(name="predict_mlp", kind="mlp", dims=(joined, *draw(st.lists(widths, max_size=3)), 1)))
    return _model("dlrm", dense, groups, stages)


@st.composite
def dins(draw: st.DrawFn) -> Model:
    n, dim, units = draw(st.integers(2, 6)), draw(widths), draw(st.lists(widths, max_size=2))
    groups = [_group(count, 20, dim, draw(st.integers(1, 3))) for count in (1, n, 1, 1)]
    stages = [
        Stage(name="activation_input", kind="concat", out_dim=3 * dim, copies=n),
        Stage(name="activation_unit", kind="mlp", dims=(3 * dim, *units, dim), copies=n),
        Stage(name="behaviour_sum", kind="sum", vectors=n, dim=dim),
        Stage(name="interaction", kind="concat", out_dim=4 * dim),
        Stage(name="predict_mlp", kind="mlp", dims=(4 * dim, draw(widths), 2)),
    ]
    return _model("din", 0, groups, stages)


@st.composite
def diens(draw: st.DrawFn) -> Model:
    steps, dim, first, last = draw(st.integers(2, 5)), draw(widths), draw(widths), draw(widths)
    groups = [_group(count, 20, dim, draw(st.integers(1, 3))) for count in (1, steps, 1, 1)]
    stages = [
        Stage(name="first", kind="rnn", steps=steps, input_dim=dim, hidden_dim=first),
        Stage(name="attention", kind="attention", steps=steps, dims=(first, draw(st.sampled_from([1, first])))),
        Stage(name="second", kind="rnn", steps=steps, input_dim=first, hidden_dim=last),
        Stage(name="interaction", kind="concat", out_dim=last + 3 * dim),
        Stage(name="predict_mlp", kind="mlp", dims=(last + 3 * dim, draw(widths), 2)),
    ]
    return _model("dien", 0, groups, stages, {"first": "interest_rnn_1", "second": "interest_rnn_2"})


def _group(count: int, rows: int, dim: int, pooling: int) -> TableGroup:
    return TableGroup(count=count, rows=rows, dim=dim, pooling=pooling)


def _model(family, dense, groups, stages, names=None) -> Model:  # type: ignore[no-untyped-def]
    stages = tuple(replace(stage, name=(names or {}).get(stage.name, stage.name)) for stage in stages)
    return Model(
        name=family, family=family, label="random", dense_input_dim=dense, tables=tuple(groups), stages=stages,
        latency_targets=(),
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@given(described=st.one_of(dlrms(), dins(), diens()), items=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_random_models_are_their_forward_pass(backend: str, described: Model, items: int, seed: int) -> None:
    engine = build(described, backend, rows_scale=1.0, max_items=9, seed=seed)
    scores = engine.worker()(seed, items)
    wanted = expected(engine, seed, items)
    assert_close(scores, wanted, described)


@pytest.mark.parametrize("name", model_names())
def test_the_wiring_computes_what_the_operator_graph_counts(name: str) -> None:
    """Multiply-adds of the wiring, against the graph that service times are made from."""
    described = model(name)
    network = wire(described)
    flop = 0
    for operation in network.operations:
        inputs = [network.tensors[other] for other in operation.inputs]
        shapes = [network.weights[weight].shape for weight in operation.weights]
        if operation.kind == "linear":
            vectors = inputs[0].count if len(shapes[0]) == 2 else 1
            flop += 2 * vectors * int(np.prod(shapes[0]))
        elif operation.kind == "rnn":
            flop += 2 * inputs[0].count * (shapes[0][0] * shapes[0][1] + shapes[1][0] * shapes[1][1])
        elif operation.kind == "cross":
            flop += 4 * shapes[0][0] * shapes[0][1]
    assert flop == described.dense_flop_per_item
    # The graph gives both products of a recurrence a bias; here it is one.
    second_biases = sum(4 * stage.hidden_dim for stage in described.stages)
    assert network.weight_bytes == described.dense_weight_bytes - second_biases
