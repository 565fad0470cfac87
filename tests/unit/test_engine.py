"""The engine around its forward pass: wiring faults, sizes, seeds, workers, backends that are missing."""

from __future__ import annotations

import builtins
import ctypes
import gc
import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hercules_fast.errors import ConfigError, InputError
from hercules_fast.measure import Engine, blas, cap_blas_threads, wire
from hercules_fast.measure import engine as engine_module
from hercules_fast.measure.inputs import start_hash
from hercules_fast.measure.weights import embedding_bytes
from hercules_fast.models import Model, Stage, TableGroup, model, model_names
from hercules_fast.traffic import hit_share, popularity
from hercules_fast.traffic.popularity_law import popular_rows


@pytest.fixture(autouse=True)
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_pool_bytes", lambda: 1 << 16)


def small(name: str = "dlrm-rmc1", **options: Any) -> Engine:
    return Engine.build(model(name), **{"rows_scale": 1e-4, "max_items": 32, "backend": "numpy"} | options)


def with_stage(name: str, index: int, **changes: Any) -> Model:
    described = model(name)
    stages = list(described.stages)
    stages[index] = replace(stages[index], **changes)
    return replace(described, stages=tuple(stages))


# -- wiring ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", model_names())
def test_every_catalogue_model_is_wired_without_rest(name: str) -> None:
    network = wire(model(name))
    read = {other for operation in network.operations for other in operation.inputs}
    made = {operation.output for operation in network.operations}
    assert set(network.inputs) <= read
    assert made - read == {network.output}
    for operation in network.operations:  # in an order that can run
        assert set(operation.inputs) <= {*network.inputs, *(other.output for other in network.operations)}


FAULTS: dict[str, tuple[Model, dict[str, str]]] = {
    "an MLP behind a concat": (with_stage("dlrm-rmc1", 2, dims=(300, 64, 1)), {"stages[2].dims": "288"}),
    "a bottom MLP": (with_stage("dlrm-rmc1", 0, dims=(100, 64, 32)), {"stages[0].dims": "128"}),
    "a concat": (with_stage("wnd", 0, out_dim=1377), {"stages[0].out_dim": "1376", "stages[1].dims": "1377"}),
    "an MLP behind an MLP": (with_stage("mt-wnd", 2, dims=(500, 1)), {"stages[2].dims": "512"}),
    "a cross network": (with_stage("dlrm-v2", 2, dim=3000), {"stages[2].dim": "3456", "stages[3].dims": "3000"}),
    "DIN's units": (with_stage("din", 0, out_dim=100), {"stages[0].out_dim": "64", "stages[1].dims": "100"}),
    "DIN's copies": (with_stage("din", 0, copies=250), {"stages[0].copies": "250"}),
    "a sum's vectors": (with_stage("din", 2, vectors=250), {"stages[2].vectors": "251"}),
    "a sum's width": (with_stage("din", 2, dim=31), {"stages[2].dim": "32"}),
    "steps": (with_stage("dien", 0, steps=39), {"stages[0].steps": "40"}),
    "a recurrence's input": (with_stage("dien", 0, input_dim=33), {"stages[0].input_dim": "32"}),
    "an attention": (with_stage("dien", 1, dims=(64, 32)), {"stages[1].dims": "64"}),
}


@pytest.mark.parametrize("case", FAULTS)
def test_widths_that_do_not_chain_are_named(case: str) -> None:
    described, wanted = FAULTS[case]
    with pytest.raises(ConfigError) as caught:
        wire(described)
    found = {fault.path: fault.message for fault in caught.value.faults}
    for path, part in wanted.items():
        assert part in found.get(path, ""), (path, found)


def test_all_faults_come_at_once() -> None:
    described = model("dlrm-rmc1")
    bottom, join, top = described.stages
    faulty = replace(
        described,
        stages=(replace(bottom, dims=(127, 64, 32)), replace(join, out_dim=289), replace(top, dims=(290, 1))),
    )
    with pytest.raises(ConfigError) as caught:
        wire(faulty)
    assert {"stages[0].dims", "stages[1].out_dim", "stages[2].dims"} <= {fault.path for fault in caught.value.faults}


def test_what_no_stage_reads_is_a_fault() -> None:
    described = model("ncf")
    with pytest.raises(ConfigError) as caught:
        wire(replace(described, stages=described.stages[:1], dense_input_dim=7))
    assert [fault.path for fault in caught.value.faults] == ["dense_input_dim", "tables[0]"]


def test_fields_outside_files_ranges_are_faults() -> None:
    described = replace(model("ncf"), tables=(TableGroup(count=2, rows=0, dim=64, pooling=1),))
    with pytest.raises(ConfigError, match=r"tables\[0\].rows"):
        wire(described)
    with pytest.raises(ConfigError, match="str is not a Model"):
        wire("dlrm-rmc1")  # type: ignore[arg-type]


def test_a_dot_that_does_not_fit() -> None:
    stages = (
        Stage(name="bottom_mlp", kind="mlp", dims=(4, 8)),
        Stage(name="dot", kind="dot", vectors=4, dim=8, out_dim=17),
    )
    table = TableGroup(count=3, rows=5, dim=8, pooling=1)
    described = Model(
        name="x", family="dlrm", label="x", dense_input_dim=4, tables=(table,), stages=stages, latency_targets=()
    )
    with pytest.raises(ConfigError, match=r"stages\[1\].out_dim: is 17; allowed is 14 .* or 18"):
        wire(described)
    wrong = replace(described, stages=(stages[0], replace(stages[1], vectors=5, out_dim=18)))
    with pytest.raises(ConfigError, match=r"stages\[1\].vectors: is 5; allowed is 4"):
        wire(wrong)


def test_stages_without_widths_are_faults_of_the_file() -> None:
    with pytest.raises(ConfigError, match=r"stages\[2\].dims"):
        wire(with_stage("dlrm-rmc1", 2, dims=()))
    with pytest.raises(ConfigError, match=r"stages\[2\].dims: has 1 widths"):
        wire(with_stage("dlrm-rmc1", 2, dims=(288,)))


@pytest.mark.parametrize("backend", ["numpy", "onnxruntime"])
def test_stages_may_have_any_name(backend: str) -> None:
    described = model("dlrm-rmc1")
    options = {"rows_scale": 1e-4, "max_items": 4, "backend": backend}
    wanted = Engine.build(described, **options).worker()(1, 3)
    for names in (("dense", "pooled.0", "scores"), ("a", "a.0", "a.0.weight"), ("v0", "i1", "dense_")):
        stages = tuple(replace(stage, name=name) for stage, name in zip(described.stages, names, strict=True))
        assert np.array_equal(Engine.build(replace(described, stages=stages), **options).worker()(1, 3), wanted)
    stages = (
        Stage(name="a", kind="mlp", dims=(4, 4)),
        Stage(name="a.0", kind="rnn", steps=3, input_dim=4, hidden_dim=4),
        Stage(name="join", kind="concat", out_dim=8),
    )
    table = TableGroup(count=3, rows=5, dim=4, pooling=1)
    clash = Model(
        name="x", family="x", label="x", dense_input_dim=4, tables=(table,), stages=stages, latency_targets=()
    )
    with pytest.raises(ConfigError, match=r"stages\[1\].name: .* a.0.bias"):
        wire(clash)


@pytest.mark.parametrize("backend", ["numpy", "onnxruntime"])
def test_models_of_tables_alone_and_of_stages_alone(backend: str) -> None:
    tables = replace(model("ncf"), stages=())
    engine = Engine.build(tables, rows_scale=1e-3, max_items=4, backend=backend)
    inputs = engine.inputs(1, 3)
    first = engine.table_values(0)[0][inputs.indices[0][:3]]
    assert np.array_equal(engine.worker()(1, 3)[:, :64], first)
    stages = replace(model("dlrm-rmc3"), tables=(), stages=model("dlrm-rmc3").stages[:1])
    engine = Engine.build(stages, max_items=4, backend=backend)
    assert (engine.rows_scale, engine.embedding_bytes) == (1.0, 0)
    assert engine.worker()(1, 4).shape == (4, 32)
    assert engine.describe()["huge_page_share"] == 0


# -- sizes and arguments -----------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was allocated before sizes were checked")

    for name in ("tables", "InputPool", "dense_weights"):
        monkeypatch.setattr(engine_module, name, refuse)
    monkeypatch.setattr(engine_module, "available_memory_bytes", lambda: 1 << 30)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "beyond memory": ({"rows_scale": 1e6}, r"rows_scale: 1e\+06 takes \d+ bytes .* the memory that is available"),
    "beyond max_bytes": ({"rows_scale": 1.0, "max_bytes": 10**6}, "takes 4096000000 bytes .* 1000000, max_bytes"),
    "no scale fits": ({"max_bytes": 1000}, "with a row each they take 1024"),
    "beyond numbers": ({"rows_scale": 1.7e308}, r"rows_scale is 1.7e\+308; allowed: tables of less than 2\*\*63 rows"),
    "zero scale": ({"rows_scale": 0}, "rows_scale"),
    "scale nan": ({"rows_scale": float("nan")}, "rows_scale"),
    "seed": ({"seed": -1}, "seed: is -1"),
    "seed too": ({"seed": 1.5}, "seed: is 1.5"),
    "items": ({"max_items": 0}, "max_items: is 0"),
    "inputs beyond memory": ({"max_items": 1 << 20}, r"max_items: 1048576 takes \d+ bytes of inputs"),
    "bytes": ({"max_bytes": -5}, "max_bytes: is -5"),
    "backend": ({"backend": "tvm"}, "backend: is 'tvm'"),
    "popularity": ({"popularity": "zipf"}, "str is not a Popularity"),
    "dtype": ({"dtype": "int3"}, "dtype: is 'int3'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_are_refused_before_anything_is_allocated(case: str, nothing_allocated: None) -> None:
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        Engine.build(model("dlrm-rmc1"), **options)


def test_a_faulty_model_is_refused_before_anything_is_allocated(nothing_allocated: None) -> None:
    with pytest.raises(ConfigError):
        Engine.build(with_stage("dlrm-rmc1", 2, dims=(300, 1)))


def test_layers_beyond_memory_are_refused(nothing_allocated: None) -> None:
    wide = with_stage("dlrm-rmc1", 2, dims=(288, 10_000_000, 1))
    with pytest.raises(InputError, match=r"stages: take \d+ bytes of weights; allowed is 134217728"):
        Engine.build(wide)


def test_a_graph_too_large_for_onnxruntime_is_numpys() -> None:
    pytest.importorskip("onnxruntime")
    backend, why = engine_module._backend("auto", 3 << 30)
    assert (backend, "2 GiB" in why) == ("numpy", True)
    with pytest.raises(InputError, match="2 GiB"):
        engine_module._backend("onnxruntime", 3 << 30)


def test_the_largest_scale_that_fits_is_taken() -> None:
    limit = 3_000_000
    engine = Engine.build(model("dlrm-rmc1"), max_bytes=limit, max_items=4, backend="numpy")
    assert limit * 0.99 < engine.embedding_bytes <= limit
    assert engine.embedding_bytes == engine.model.embedding_bytes
    assert engine.rows_scale == pytest.approx(limit / 4_096_000_000, rel=0.01)
    assert "of its rows" in engine.model.label
    halves = Engine.build(model("dlrm-rmc1"), max_bytes=limit, max_items=4, backend="numpy", dtype="float16")
    assert halves.rows_scale == pytest.approx(2 * engine.rows_scale, rel=0.01)
    whole = Engine.build(model("ncf"), max_bytes=10**9, max_items=4, backend="numpy")
    assert (whole.rows_scale, whole.model) == (1.0, model("ncf"))


@pytest.mark.parametrize("dtype", ["float32", "int8", "int2"])
@pytest.mark.parametrize("max_bytes", [None, 1 << 40])
def test_a_scale_leaves_room_to_make_the_tables(dtype: Any, max_bytes: int | None, nothing_allocated: None) -> None:
    """A table is made as float32 beside those that are there."""
    described = replace(model("dlrm-rmc1"), tables=(replace(model("dlrm-rmc1").tables[0], count=1, rows=10**9),))
    scaled = described.scaled(engine_module._scale(described, None, max_bytes, dtype), "scaled")
    (group,) = scaled.tables
    room = 1 << 30
    assert 0.1 * room < embedding_bytes(scaled, dtype) + 4 * group.rows * group.dim <= room


def test_a_later_run_finds_the_same_scale(nothing_allocated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal goes on with the same engine only, and no two runs find the same memory available."""

    def scale(available: int) -> float:
        monkeypatch.setattr(engine_module, "available_memory_bytes", lambda: available)
        return engine_module._scale(model("dlrm-rmc1"), None, None, None)

    tables = model("dlrm-rmc1").embedding_bytes
    assert scale(3 * 10**9) == scale(int(3.1 * 10**9)) < 1
    assert scale(4 * tables) == 1.0 > scale(4 * tables - 4)


def test_rows_have_the_bytes_that_the_model_says() -> None:
    described = model("ncf")
    mixed = replace(described, tables=(replace(described.tables[0], dtype_bytes=2), described.tables[1]))
    engine = Engine.build(mixed, rows_scale=1e-2, max_items=4, backend="numpy")
    assert engine.dtypes == ("float16", "float32")
    assert engine.embedding_bytes == engine.model.embedding_bytes
    assert engine.describe()["dtypes"] == ["float16", "float32"]
    odd = replace(described, tables=(described.tables[0], replace(described.tables[1], dtype_bytes=8)))
    with pytest.raises(InputError, match=r"tables\[1\].dtype_bytes: is 8"):
        Engine.build(odd)
    assert Engine.build(odd, rows_scale=1e-2, max_items=4, dtype="int8").dtypes == ("int8", "int8")


DRILL = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from hercules_fast.measure import Engine
from hercules_fast.models import model
engine = Engine.build(model("din"), backend="{backend}")
print(engine.worker()(0, 256).shape, 0 < engine.rows_scale < 1)
"""


@pytest.mark.parametrize("backend", ["numpy", "onnxruntime"])
def test_a_gibibyte_of_address_space_is_enough(backend: str) -> None:
    code = DRILL.format(backend=backend)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout == "(256, 2) True\n", run.stderr


@pytest.mark.parametrize("options", [{"operator_cores": 0}, {"operator_cores": 1.5}, {"stage": "both"}])
def test_workers_refuse_what_they_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        small().worker(**options)


def test_calls_refuse_other_sizes_and_payloads() -> None:
    engine = small()
    worker, sparse, dense = engine.worker(), engine.worker(stage="sparse"), engine.worker(stage="dense")
    for items in (0, -1, 33):
        with pytest.raises(InputError, match=f"items: is {items}; allowed is 1 to max_items = 32"):
            worker(0, items)
        with pytest.raises(InputError, match="items"):
            engine.inputs(0, items)
    for payload in (None, "pooled", sparse(0, 5)):
        with pytest.raises(InputError, match="payload"):
            dense(0, 4, payload)
    payload = sparse(0, 4)
    first = dense(0, 4, payload.again()).copy()
    assert np.array_equal(dense(0, 4, payload), first)
    assert payload.used
    with pytest.raises(InputError, match="once"):
        dense(0, 4, payload)
    with pytest.raises(InputError, match="is used"):
        payload.again()


def test_payloads_in_flight_do_not_share_memory() -> None:
    engine = small()
    sparse, dense = engine.worker(stage="sparse"), engine.worker(stage="dense")
    wanted = [engine.worker()(query, 8).copy() for query in range(5)]
    payloads = [sparse(query, 8) for query in range(5)]
    for query in (3, 0, 4, 1, 2):
        assert np.array_equal(dense(query, 8, payloads[query]), wanted[query])
    again = [sparse(query, 8) for query in range(5)]  # in the memory that came back
    assert all(np.array_equal(dense(query, 8, again[query]), wanted[query]) for query in range(5))


# -- seeds -------------------------------------------------------------------------------------------------------------


def content(engine: Engine) -> list[np.ndarray]:
    inputs = engine.inputs(11, 7)
    arrays = [*engine.weights.values(), *inputs.indices, *inputs.offsets]
    arrays += [values for group in range(len(engine.model.tables)) for values in engine.table_values(group)]
    return arrays if inputs.dense is None else [*arrays, inputs.dense]


@pytest.mark.parametrize("name", ["dlrm-rmc1", "din", "dien"])
def test_same_seed_same_bytes(name: str) -> None:
    one, same, other = small(name, seed=5, threads=1), small(name, seed=5, threads=3), small(name, seed=6)
    assert [a.tobytes() for a in content(one)] == [a.tobytes() for a in content(same)]
    assert np.array_equal(one.worker()(2, 9), same.worker(2)(2, 9))
    differing = [a.tobytes() != b.tobytes() for a, b in zip(content(one), content(other), strict=True)]
    assert sum(differing) >= len(differing) - len(one.model.tables)  # all but the offsets
    assert not np.array_equal(one.worker()(2, 9), other.worker()(2, 9))


def test_known_bytes() -> None:
    """The streams are frozen: other numbers would be other models."""
    engine = small(seed=1)
    # The first is SplitMix64's first output of seed 0, as published.
    assert [start_hash(0, 0), start_hash(1, 2)] == [0xE220A8397B1DCDAF, 0xD424F2654F316EE0]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in content(engine))).hexdigest()
    assert digest[:16] == "1dd50c0adbd9e7bb"
    weight = engine.weights["bottom_mlp.0.weight"]
    assert weight.shape == (128, 64)
    assert weight.std() == pytest.approx(np.sqrt(2 / 128), rel=0.05)
    assert abs(weight.mean()) < 0.01


def test_queries_start_at_places_of_their_own_and_stay_inside() -> None:
    engine = small()
    inputs = [engine.inputs(query, 32) for query in range(200)]
    starts = {given.indices[0].__array_interface__["data"][0] for given in inputs}
    assert len(starts) > 150
    for given in inputs:
        assert len(given.indices[0]) == 8 * 32 * 80
        assert given.indices[0].min() >= 0
        assert given.indices[0].max() < engine.model.tables[0].rows
        assert not given.indices[0].flags.writeable
        assert given.dense is not None
        assert given.dense.shape == (32, 128)
    worker = engine.worker()
    assert np.array_equal(worker(np.int64(3), np.int32(4)).copy(), worker(3, 4))
    with pytest.raises(TypeError):
        worker(3, 2.5)
    few, many = engine.inputs(3, 2), engine.inputs(3, 32)
    assert few.dense is not None
    assert many.dense is not None
    assert np.array_equal(few.dense, many.dense[:2])


def test_popular_rows_follow_their_law() -> None:
    law, rows = popularity("zipf"), 1000
    shares = (np.arange(200_000) + 0.5) / 200_000
    drawn = popular_rows(law, rows, shares)
    assert drawn.min() >= 0
    assert drawn.max() < rows
    counts = np.sort(np.bincount(drawn, minlength=rows))[::-1]
    for kept in (1, 10, 100, 999):
        assert counts[:kept].sum() / len(shares) == pytest.approx(hit_share(law, rows, kept), abs=2e-3)
    assert np.array_equal(np.sort(popular_rows(popularity("uniform"), 10, np.arange(10) / 10 + 0.05)), np.arange(10))
    with pytest.raises(InputError, match="rows"):
        popular_rows(law, 0, shares)
    skewed, even = (
        np.bincount(small(popularity=law).inputs(0, 32).indices[0]).max() for law in (popularity("zipf"), None)
    )
    assert skewed > 5 * even


# -- backends ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_onnxruntime_numpy_takes_over_and_says_so(without_onnxruntime: None) -> None:
    engine = small(backend="auto")
    assert engine.backend == "numpy"
    assert "onnxruntime, which is not installed" in engine.describe()["fallback"]
    assert engine.worker()(0, 3).shape == (3, 1)


def test_without_onnxruntime_asking_for_it_is_one_clear_line(
    without_onnxruntime: None, nothing_allocated: None
) -> None:
    with pytest.raises(InputError, match=r"pip install 'hercules-fast\[dense\]'") as caught:
        small(backend="onnxruntime")
    assert "\n" not in str(caught.value)


def test_onnxruntime_is_taken_where_it_is() -> None:
    pytest.importorskip("onnxruntime")
    engine = small(backend="auto")
    about = engine.describe()
    assert (engine.backend, about["fallback"]) == ("onnxruntime", "")
    assert about["versions"].keys() >= {"numpy", "onnxruntime"}


@pytest.mark.parametrize("backend", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("name", ["dlrm-rmc2", "din", "dien"])
def test_workers_in_threads_give_the_scores_of_one(name: str, backend: str) -> None:
    engine = small(name, backend=backend)
    alone = engine.worker()
    wanted = [alone(query, 1 + query % 32).copy() for query in range(60)]
    found: dict[int, np.ndarray] = {}

    def run(part: int) -> None:
        worker = engine.worker()
        for query in range(part, 60, 3):
            found[query] = worker(query, 1 + query % 32).copy()

    threads = [threading.Thread(target=run, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[query], wanted[query]) for query in range(60))


@pytest.mark.parametrize("backend", ["numpy", "onnxruntime"])
def test_operator_cores_change_no_score_beyond_rounding(backend: str) -> None:
    engine = small("mt-wnd", backend=backend)
    one, two = engine.worker(), engine.worker(2, cpus=[0, 0])
    np.testing.assert_allclose(two(1, 32), one(1, 32), rtol=0, atol=1e-5)


# -- BLAS --------------------------------------------------------------------------------------------------------------


def threads_of_blas() -> list[int]:
    return [get() for _, (get, _) in blas._libraries()]


def test_blas_is_capped_while_an_engine_lives_and_restored_after() -> None:
    gc.collect()
    before = threads_of_blas()
    if not before:
        pytest.skip("NumPy's BLAS is of a kind whose threads cannot be set")
    engine = small()
    assert set(threads_of_blas()) == {1}
    assert "1 thread" in engine.describe()["blas"]
    second = small()
    del engine
    gc.collect()
    assert set(threads_of_blas()) == {1}
    del second
    gc.collect()
    assert threads_of_blas() == before
    with cap_blas_threads() as cap:
        assert set(threads_of_blas()) == {1}
        assert cap.libraries
    assert threads_of_blas() == before


def test_a_blas_in_a_folder_with_a_blank_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/home/me/my tools/numpy.libs/libscipy_openblas64_-1.so"
    maps = f"7f00-7f01 r-xp 00000000 fe:01 1234567          {path}\n7f02-7f03 rw-p 00000000 00:00 0    [heap]\n"
    monkeypatch.setattr(Path, "read_text", lambda _: maps)
    library = SimpleNamespace(scipy_openblas_get_num_threads64_=lambda: 2, scipy_openblas_set_num_threads64_=print)
    monkeypatch.setattr(ctypes, "CDLL", {path: library}.__getitem__)
    assert [found for found, _ in blas._libraries()] == [path]


def test_a_blas_that_cannot_be_capped_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(blas, "_libraries", lambda: iter(()))
    with cap_blas_threads() as cap:
        assert not cap.libraries
        assert "not capped" in str(cap)
