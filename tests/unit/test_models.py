"""Model catalogue and operator graph: the published derived figures, and counts by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hercules_fast import models
from hercules_fast.descriptors import kinds, validate
from hercules_fast.errors import ConfigError, InputError, UnknownNameError
from hercules_fast.models import Model, Stage

# rows, bytes of tables, lookups, embedding bytes, SLS additions (all but the first two per item),
# dense operations per item, dense weights and biases.
DERIVED = {
    "dlrm-rmc1": (32_000_000, 4_096_000_000, 640, 81_920, 20_480, 200_832, 100_833),
    "dlrm-rmc2": (16_000_000, 4_096_000_000, 3_840, 983_040, 245_760, 639_104, 319_937),
    "dlrm-rmc3": (20_000_000, 2_560_000_000, 200, 25_600, 6_400, 6_406_656, 3_205_409),
    "ncf": (336_000, 86_016_000, 4, 1_024, 256, 294_912, 148_224),
    "wnd": (27_000_000, 3_456_000_000, 27, 3_456, 864, 4_129_280, 2_066_433),
    "mt-wnd": (30_500_000, 3_904_000_000, 43, 5_504, 1_376, 5_242_880, 2_623_360),
    "din": (46_100_000, 5_900_800_000, 762, 97_536, 24_384, 147_776, 82_453),
    "dien": (30_500_000, 3_904_000_000, 43, 5_504, 1_376, 1_570_880, 67_194),
    "dlrm-v2": (204_184_588, 104_542_509_056, 214, 109_568, 27_392, 32_060_928, 16_044_545),
}
IN_SHEET = {
    "dlrm-rmc1": "DLRM-RMC1",
    "dlrm-rmc2": "DLRM-RMC2",
    "dlrm-rmc3": "DLRM-RMC3",
    "ncf": "NCF",
    "wnd": "Wide&Deep",
    "mt-wnd": "MT-Wide&Deep",
    "din": "DIN-intended",
    "dien": "DIEN",
    "dlrm-v2": "DLRM-v2-DCN-multihot",
}
# Percentile, milliseconds, how far the target can be traced.
TARGETS = {
    "dlrm-rmc1": (95, 20, "assumed"),
    "dlrm-rmc2": (95, 100, "assumed"),
    "dlrm-rmc3": (95, 50, "assumed"),
    "ncf": (95, 5, "inferred"),
    "wnd": (95, 25, "published"),
    "mt-wnd": (95, 25, "inferred"),
    "din": (95, 100, "assumed"),
    "dien": (95, 35, "inferred"),
    "dlrm-v2": (99, 60, "published"),
}


def figures(model: Model) -> tuple[float, ...]:
    sls = [op for op in model.operators() if op.kind == "sls"]
    return (
        model.total_rows,
        model.embedding_bytes,
        model.lookups_per_item,
        model.embedding_read_bytes_per_item,
        sum(op.copies * op.flop_per_item for op in sls),
        model.dense_flop_per_item,
        model.dense_weight_bytes / 4,
    )


def test_catalogue_is_complete() -> None:
    assert set(models.model_names()) == set(DERIVED)


@pytest.mark.parametrize("name", DERIVED)
def test_derived_figures(name: str) -> None:
    model = models.model(name)
    assert figures(model) == DERIVED[name]
    assert model.index_bytes_per_item == 4 * DERIVED[name][2]
    validate(kinds()["model"], model)


@pytest.mark.parametrize("name", IN_SHEET)
def test_derived_figures_of_the_reference_file(name: str, shared: Path) -> None:
    sheet = {entry["name"]: entry for entry in json.loads((shared / "models.json").read_text())["models"]}
    entry = sheet[IN_SHEET[name]]
    derived = entry["derived"]
    keys = (
        *("total_rows", "embedding_bytes", "lookups_per_item", "embedding_read_bytes_per_item"),
        *("sls_fp_adds_per_item", "dense_flops_per_item", "dense_params"),
    )
    assert figures(models.model(name)) == tuple(derived[key] for key in keys)
    model = models.model(name)
    assert model.index_bytes_per_item == derived["index_bytes_per_item_int32"]
    assert model.dense_input_dim == entry["dense_input_dim"]
    ratio = model.dense_flop_per_item / model.embedding_read_bytes_per_item
    assert ratio == pytest.approx(derived["dense_flops_per_embedding_byte"], rel=5e-5)


@pytest.mark.parametrize("name", TARGETS)
def test_latency_targets(name: str) -> None:
    (target,) = models.model(name).latency_targets
    assert (target.percentile, target.latency_ms, target.status) == TARGETS[name]
    assert target.source


def test_other_candidate_targets_are_mentioned() -> None:
    assert "350 ms" in models.model("dlrm-rmc2").latency_targets[0].source


@pytest.mark.parametrize(
    ("name", "sparse", "dense"),
    [
        # Five layers, each with its activation, and one concat.
        ("dlrm-rmc1", 8, 11),
        ("dlrm-rmc2", 32, 11),
        ("wnd", 27, 9),
        ("mt-wnd", 43, 9),
        # 251 units of concat + 2 x (layer, activation); then sum, concat and three layers.
        ("din", 254, 251 * 5 + 1 + 1 + 6),
        # Two recurrences of 40 (input, hidden, tanh); attention: 40 layers, softmax, 40 sums; concat; three layers.
        ("dien", 43, 2 * 120 + 81 + 1 + 6),
        # Bottom and top MLP, concat, three cross layers of three operators.
        ("dlrm-v2", 26, 6 + 10 + 1 + 9),
    ],
)
def test_dispatches(name: str, sparse: int, dense: int) -> None:
    operators = models.operators(models.model(name))
    assert sum(op.dispatches for op in operators if op.kind == "sls") == sparse
    assert sum(op.dispatches for op in operators if op.kind != "sls") == dense


def test_operator_time_agrees_with_four_gpu_intercepts() -> None:
    """Intercepts of public latency curves on one GPU, in ms, over our operator counts: 20-22 us each."""
    intercepts_ms = {"dlrm-rmc2": 0.93, "ncf": 0.32, "wnd": 0.78, "mt-wnd": 1.11}
    for name, intercept in intercepts_ms.items():
        count = sum(op.dispatches for op in models.model(name).operators())
        assert 1000 * intercept / count == pytest.approx(21, abs=2)


def test_independent_and_serial_parts() -> None:
    din = {op.name: op for op in models.model("din").operators()}
    assert (din["activation_unit.fc0"].copies, din["activation_unit.fc0"].steps) == (251, 1)
    dien = {op.name: op for op in models.model("dien").operators()}
    step = dien["interest_rnn_1.input"], dien["interest_rnn_1.hidden"]
    assert [(op.copies, op.steps, op.width) for op in step] == [(1, 40, 32), (1, 40, 64)]
    assert step[0].weight_bytes == 4 * (32 * 64 + 64)


def test_names_of_operators_are_unique() -> None:
    for name in models.model_names():
        operators = models.model(name).operators()
        assert len({op.name for op in operators}) == len(operators)


def test_pairwise_dot() -> None:
    """A public benchmark model: 9 vectors of 64 multiplied pairwise; 5,001,344 operations in all."""
    stages = (
        Stage(name="bottom", kind="mlp", dims=(512, 512, 64)),
        Stage(name="interaction", kind="dot", vectors=9, dim=64, out_dim=100),
        Stage(name="top", kind="mlp", dims=(100, 1024, 1024, 1024, 1)),
    )
    model = replace(models.model("dlrm-rmc1"), name="bench", dense_input_dim=512, stages=stages)
    validate(kinds()["model"], model)
    assert model.dense_flop_per_item == 5_001_344
    assert model.dense_weight_bytes == 4 * 2_499_137


def test_input_bytes() -> None:
    model = models.model("mt-wnd")
    assert model.input_bytes_per_item == 172 + 4 * 43 + 2048


def test_scaled() -> None:
    model = models.model("dlrm-rmc2")
    big = model.scaled(24, "scaled, not the paper's")
    assert (big.embedding_bytes, big.label) == (24 * model.embedding_bytes, "scaled, not the paper's")
    assert big.operators() == model.operators()
    assert model.scaled(1e-9, "tiny").total_rows == 32


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "2"])
def test_scaled_refuses(scale: float) -> None:
    with pytest.raises(InputError, match=r"rows_scale is .*allowed"):
        models.model("ncf").scaled(scale, "x")


def test_unknown_name_is_corrected() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'dlrm-rmc1'"):
        models.model("dlrm-rm1")


def mlp(*dims: int, name: str = "mlp") -> Stage:
    return Stage(name=name, kind="mlp", dims=dims)


JOINTS = [
    Stage(name="join", kind="concat", out_dim=96),
    Stage(name="join", kind="dot", vectors=9, dim=60, out_dim=96),
    Stage(name="join", kind="sum", vectors=3, dim=96),
    Stage(name="join", kind="cross", layers=2, dim=96, rank=8),
]


@pytest.mark.parametrize("joint", JOINTS, ids=lambda stage: stage.kind)
def test_an_mlp_takes_what_the_stage_before_it_puts_out(joint: Stage) -> None:
    model = replace(models.model("ncf"), stages=(joint, mlp(96, 1)))
    validate(kinds()["model"], model)
    words = rf"stages\[1\]\.dims: begins with 95; allowed is 96, .* {joint.kind} stage 'join'"
    with pytest.raises(ConfigError, match=words):
        validate(kinds()["model"], replace(model, stages=(joint, mlp(95, 1))))


@pytest.mark.parametrize(
    ("family", "name", "dense", "allowed"),
    [
        ("dlrm", "mlp", 13, False),
        ("DLRM-like", "mlp", 13, False),
        ("mine", "bottom_mlp", 13, False),
        ("mine", "mlp", 13, True),  # may read pooled rows
        ("dlrm", "mlp", 0, True),
        ("dlrm", "mlp", 512, True),
    ],
)
def test_the_bottom_mlp_takes_the_dense_features(family: str, name: str, dense: int, allowed: bool) -> None:
    stages = (mlp(512, 64, name=name), mlp(100, 1, name="behind"))
    model = replace(models.model("ncf"), family=family, dense_input_dim=dense, stages=stages)
    if allowed:
        validate(kinds()["model"], model)
        return
    with pytest.raises(
        ConfigError, match=r"stages\[0\]\.dims: begins with 512; allowed is 13, .*dense_input_dim"
    ) as caught:
        validate(kinds()["model"], model)
    assert len(caught.value.faults) == 1


def test_the_first_mlp_behind_an_interaction_is_no_bottom_mlp() -> None:
    model = replace(models.model("dlrm-rmc1"), stages=(JOINTS[0], mlp(96, 1)))
    validate(kinds()["model"], model)


@pytest.mark.parametrize("dims", [(), (16,)])
@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_layers_need_two_widths(kind: str, dims: tuple[int, ...]) -> None:
    model = replace(models.model("ncf"), stages=(Stage(name="a", kind=kind, dims=dims),))
    with pytest.raises(ConfigError, match=rf"stages\[0\]\.dims: has {len(dims)} widths; allowed is two or more"):
        validate(kinds()["model"], model)
