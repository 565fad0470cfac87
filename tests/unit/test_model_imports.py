"""Models of other programs: the catalogue's from their own descriptions, and every fault of a bad one with its path."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast import models
from hercules_fast.cli import main
from hercules_fast.errors import ConfigError, InputError, MissingFileError
from hercules_fast.models import (
    Model,
    load_any_model,
    load_deeprecsys_model,
    load_torchrec_tables,
    model_from_dlrm_flags,
    model_from_embedding_bag_configs,
)


def deeprecsys(rows: list[int], **keys: Any) -> dict[str, Any]:
    """A configuration as DeepRecSys writes them: widths and rows joined by dashes."""
    return {
        "arch_embedding_size": "-".join(map(str, rows)),
        "num_indices_per_lookup_fixed": True,
        "arch_interaction_op": "cat",
        **{key.removesuffix("_"): value for key, value in keys.items()},
    }


# Catalogue's name -> the configuration, written by hand from the figures in the catalogue's source.
PUBLISHED = {
    "dlrm-rmc1": deeprecsys(
        8 * [4_000_000],
        arch_mlp_bot="128-64-32",
        arch_mlp_top="256-64-1",
        arch_sparse_feature_size=32,
        num_indices_per_lookup=80,
        model_type="dlrm",
    ),
    "dlrm-rmc2": deeprecsys(
        32 * [500_000],
        arch_mlp_bot="256-128-64",
        arch_mlp_top="128-64-1",
        arch_sparse_feature_size=64,
        num_indices_per_lookup=120,
    ),
    "dlrm-rmc3": deeprecsys(
        10 * [2_000_000],
        arch_mlp_bot="2560-1024-256-32",
        arch_mlp_top="512-256-1",
        arch_sparse_feature_size=32,
        num_indices_per_lookup=20,
    ),
    "wnd": deeprecsys(
        27 * [1_000_000],
        arch_mlp_bot="512",
        arch_mlp_top="1024-512-256-1",
        arch_sparse_feature_size=32,
        num_indices_per_lookup=1,
        model_type="wnd",
    ),
    "mt-wnd": deeprecsys(
        41 * [500_000] + 2 * [5_000_000],
        arch_mlp_bot="512",
        arch_mlp_top="1024-512",
        arch_mlp_tasks="512-256-128",
        arch_sparse_feature_size=32,
        num_indices_per_lookup=1,
        model_type="mtwnd",
    ),
    "ncf": deeprecsys(
        2 * [140_000] + 2 * [28_000],
        arch_mlp_bot="512",
        arch_mlp_top="256-256-128-64-64",
        arch_sparse_feature_size=64,
        num_indices_per_lookup=1,
        model_type="ncf",
    ),
    "din": deeprecsys(
        [1_000_000, 100_000, 10_000_000, 10_000_000],
        arch_mlp_bot="1",
        arch_mlp_top="200-80-2",
        arch_sparse_feature_size=32,
        num_indices_per_lookup=3,
        model_type="din",
        user_behavior_tables=250,
    ),
    "dien": deeprecsys(
        41 * [500_000] + 2 * [5_000_000],
        arch_mlp_bot="512",
        arch_mlp_top="200-80-2",
        arch_sparse_feature_size=32,
        num_indices_per_lookup=1,
        model_type="dien",
    ),
}
RMC1 = PUBLISHED["dlrm-rmc1"]

CRITEO = (
    "python dlrm_s_pytorch.py --arch-sparse-feature-size=16 --arch-embedding-size=1460-583-10131227 "
    '--arch-mlp-bot "13-512-16" --arch-mlp-top="512-1" --num-indices-per-lookup 4 '
    "--num-indices-per-lookup-fixed=True --mini-batch-size=128 --print-time --test-freq 10"
)


def same_shape(ours: Model, theirs: Model) -> bool:
    """Equal but for what a configuration does not say: name, label, targets and sources."""
    unsaid = {"label": "", "latency_targets": (), "sources": {}, "name": ""}
    return replace(ours, **unsaid) == replace(theirs, **unsaid)


def written(folder: Path, content: Any, name: str = "model.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def faults_of(call: Any, *args: Any, **keys: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as error:
        call(*args, **keys)
    return {fault.path: fault.message for fault in error.value.faults}


@pytest.mark.parametrize("name", PUBLISHED)
def test_configurations_of_deeprecsys_are_the_catalogues(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, PUBLISHED[name])
    model = load_deeprecsys_model(path)
    assert same_shape(model, models.model(name))
    assert model.operators() == models.model(name).operators()
    assert model.name == "model"
    assert load_any_model(path) == model
    assert main(["check", str(path)]) == 0


def test_a_configuration_names_its_model(tmp_path: Path) -> None:
    assert load_deeprecsys_model(written(tmp_path, {**RMC1, "model_name": "rm1"})).name == "rm1"


def test_flags_of_dlrm_make_the_same_model(tmp_path: Path) -> None:
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in RMC1.items() if key != "model_type"]
    model = model_from_dlrm_flags(flags, name="rm1")
    assert same_shape(model, models.model("dlrm-rmc1"))
    assert model.name == "rm1"
    assert model_from_dlrm_flags(" ".join(flags), name="rm1") == model


@pytest.mark.parametrize(("itself", "pairs"), [("", 6), ("--arch-interaction-itself", 10)])
def test_a_dot_interaction_has_the_programs_width(itself: str, pairs: int) -> None:
    """Three tables and the bottom's output: 4 vectors, 4 * 3 / 2 products and with themselves 4 * 5 / 2."""
    model = model_from_dlrm_flags(f"{CRITEO} {itself}", name="criteo")
    bottom, dot, top = model.stages
    assert bottom.dims == (13, 512, 16)
    assert (dot.kind, dot.vectors, dot.dim, dot.out_dim) == ("dot", 4, 16, pairs + 16)
    assert top.dims == (pairs + 16, 512, 1)
    assert [(t.rows, t.dim, t.pooling) for t in model.tables] == [(1460, 16, 4), (583, 16, 4), (10131227, 16, 4)]
    assert model.dense_input_dim == 13


def test_lookups_that_are_drawn_become_their_mean() -> None:
    drawn = model_from_dlrm_flags(CRITEO.replace("-fixed=True", "-fixed=False"), name="criteo")
    assert {t.pooling for t in drawn.tables} == {2}
    assert "mean of 1 to 4 lookups" in drawn.label


def test_faults_of_flags_name_the_option() -> None:
    flags = (
        "--arch-sparse-feature-size=16 --arch-embedding-size=100-0-x --arch-mlp-bot=13-512-8 --arch-mlp-topp=1 "
        "--arch-interaction-op=dott --qr-flag --num-indices-per-lookup-fixed=perhaps --qr-flag"
    )
    found = faults_of(model_from_dlrm_flags, flags, name="bad")
    assert set(found) == {
        "--arch-embedding-size[1]",
        "--arch-embedding-size[2]",
        "--arch-mlp-bot[2]",
        "--arch-mlp-top",
        "--arch-mlp-topp",
        "--arch-interaction-op",
        "--num-indices-per-lookup-fixed",
        "--qr-flag",
    }
    assert "did you mean 'arch_mlp_top'" in found["--arch-mlp-topp"]
    assert "did you mean 'dot'" in found["--arch-interaction-op"]
    assert (
        found["--arch-mlp-bot[2]"] == "is 8; allowed is 16, the arch_sparse_feature_size that its output is joined with"
    )
    assert (
        "no such model is described" in faults_of(model_from_dlrm_flags, f"{CRITEO} --qr-flag", name="x")["--qr-flag"]
    )
    assert "No closing quotation" in faults_of(model_from_dlrm_flags, "--arch-mlp-top '1", name="x")[""]
    assert "belongs to no option" in faults_of(model_from_dlrm_flags, f"{CRITEO} 1 2", name="x")[""]
    with pytest.raises(InputError, match="sequence of words"):
        model_from_dlrm_flags([1, 2], name="x")  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("name", "changes", "path", "words"),
    [
        ("dlrm-rmc1", {"arch_mlp_top": "256-64-0"}, "arch_mlp_top[2]", "is '0'; allowed is finite >= 1"),
        ("dlrm-rmc1", {"arch_mlp_top": "256--1"}, "arch_mlp_top[1]", "allowed is a whole number"),
        ("dlrm-rmc1", {"arch_mlp_bot": "128-64-48"}, "arch_mlp_bot[2]", "is 48; allowed is 32"),
        ("dlrm-rmc1", {"arch_mlp_bot": 32}, "arch_mlp_bot", "two or more"),
        ("dlrm-rmc1", {"arch_embedding_size": "100-0-100"}, "arch_embedding_size[1]", "is '0'"),
        ("dlrm-rmc1", {"arch_sparse_feature_size": 1e9}, "arch_sparse_feature_size", "is 1000000000.0"),
        ("dlrm-rmc1", {"arch_sparse_feature_size": True}, "arch_sparse_feature_size", "is True"),
        ("dlrm-rmc1", {"arch_interaction_op": "sum"}, "arch_interaction_op", "allowed is one of dot, cat"),
        ("dlrm-rmc1", {"model_type": "dlrn"}, "model_type", "did you mean 'dlrm'"),
        ("dlrm-rmc1", {"arch_mlp_tpo": "1"}, "arch_mlp_tpo", "did you mean 'arch_mlp_top'"),
        ("dlrm-rmc1", {"num_indices_per_lookup": 0}, "num_indices_per_lookup", "is 0"),
        ("dlrm-rmc1", {"model_name": "a\nb"}, "name", "control characters"),
        ("dlrm-rmc1", {"data_generation": "dataset"}, "data_generation", "no such model"),
        ("wnd", {"arch_mlp_bot": "512-64"}, "arch_mlp_bot", "allowed is one"),
        ("wnd", {"arch_interaction_op": "dot"}, "arch_interaction_op", "allowed is 'cat'"),
        ("mt-wnd", {"arch_mlp_tasks": "256-128"}, "arch_mlp_tasks[0]", "is 256; allowed is 512"),
        ("mt-wnd", {"arch_mlp_tasks": "512"}, "arch_mlp_tasks", "two or more"),
        ("mt-wnd", {"num_multi_tasks": 0}, "num_multi_tasks", "is 0"),
        ("ncf", {"arch_embedding_size": "1-2-3"}, "arch_embedding_size", "has 3 tables"),
        ("ncf", {"num_indices_per_lookup": 2}, "num_indices_per_lookup", "allowed is 1"),
        ("ncf", {"arch_mlp_top": "64"}, "arch_mlp_top", "two or more"),
        ("din", {"user_behavior_tables": -1}, "user_behavior_tables", "is -1"),
        ("din", {"arch_embedding_size": "1-2-3"}, "arch_embedding_size", "4 or more"),
        ("dien", {"hidden_size": "wide"}, "hidden_size", "is 'wide'"),
    ],
)
def test_a_fault_has_its_path(name: str, changes: dict[str, Any], path: str, words: str, tmp_path: Path) -> None:
    found = faults_of(load_deeprecsys_model, written(tmp_path, {**PUBLISHED[name], **changes}))
    assert list(found) == [path]
    assert words in found[path]


def test_every_fault_comes_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, {"arch_embedding_size": "0-5-x", "arch_mlp_bot": "4-", "colour": "red"})
    paths = set(faults_of(load_any_model, path))
    wanted = {"arch_embedding_size[0]", "arch_embedding_size[2]", "arch_mlp_bot[1]", "colour", "arch_mlp_top"}
    assert paths == {*wanted, "arch_sparse_feature_size"}
    assert main(["check", str(path)]) == 2
    assert "6 faults" in capsys.readouterr().out


# --- TorchRec ---------------------------------------------------------------------------------------------------------

TABLES = {
    "t_cat_0": {"num_embeddings": 1000, "embedding_dim": 16, "pooling_factor": 3, "data_type": "FP16"},
    "t_cat_1": {"num_embeddings": 50, "embedding_dim": 16, "pooling_factor": 1.0},
}


def test_tables_of_torchrec(tmp_path: Path) -> None:
    path = written(tmp_path, TABLES)
    model = load_torchrec_tables(path, bottom_mlp=(13, 64, 16), top_mlp=(19, 8, 1), interaction_op="dot")
    assert [(t.role, t.rows, t.dim, t.pooling, t.dtype_bytes) for t in model.tables] == [
        ("t_cat_0", 1000, 16, 3, 2),
        ("t_cat_1", 50, 16, 1, 4),
    ]
    assert [(s.kind, s.dims or s.out_dim) for s in model.stages] == [
        ("mlp", (13, 64, 16)),
        ("dot", 19),
        ("mlp", (19, 8, 1)),
    ]
    wrapped = {
        "tables": TABLES,
        "bottom_mlp": [13, 64, 16],
        "top_mlp": "19-8-1",
        "interaction_op": "dot",
        "name": "model",
    }
    assert same_shape(load_any_model(written(tmp_path, wrapped, "wrapped.json")), model)
    bare = load_any_model(path)
    assert (bare.stages, bare.name, bare.lookups_per_item) == ((), "model", 4)
    joined = load_torchrec_tables(path, top_mlp=(32, 1))
    assert [stage.kind for stage in joined.stages] == ["concat", "mlp"]


def test_faults_of_tables_have_their_paths(tmp_path: Path) -> None:
    bad = {
        "t_cat_0": {"num_embeddings": 0, "embedding_dim": 16, "pooling_factor": 2.5, "data_type": "FP17"},
        "t_cat_1": {"num_embedding": 5, "embedding_dim": "wide", "pooling_factor": 1, "pooling": "MEAN"},
        "t_cat_2": 7,
        "t_cat_3": {"num_embeddings": 5, "embedding_dim": 4, "pooling_factor": 1, "feature_names": ["a", "b"]},
    }
    paths = {
        *("t_cat_0.num_embeddings", "t_cat_0.pooling_factor", "t_cat_0.data_type"),
        *("t_cat_1.num_embeddings", "t_cat_1.num_embedding", "t_cat_1.embedding_dim", "t_cat_1.pooling"),
        *("t_cat_2", "t_cat_3.feature_names"),
    }
    bare = faults_of(load_any_model, written(tmp_path, bad))
    assert set(bare) == paths
    assert "did you mean 'FP16'" in bare["t_cat_0.data_type"]
    assert "did you mean 'num_embeddings'" in bare["t_cat_1.num_embedding"]
    wrapped = faults_of(load_any_model, written(tmp_path, {"tables": bad, "bottom_mlp": [3], "colour": 1}))
    assert set(wrapped) == {*(f"tables.{path}" for path in paths), "bottom_mlp", "colour"}


def test_widths_beside_tables_must_chain(tmp_path: Path) -> None:
    path = written(tmp_path, TABLES)
    found = faults_of(load_torchrec_tables, path, bottom_mlp=(13, 16), top_mlp=(40, 1))
    assert found == {"top_mlp[0]": "is 40; allowed is 48, the width that the interaction 'cat' puts out"}
    found = faults_of(load_torchrec_tables, path, bottom_mlp=(13, 8), top_mlp=(40, 1), interaction_op="dot")
    assert "allowed is 8" in found["interaction_op"]
    assert (
        "bottom_mlp" in faults_of(load_torchrec_tables, path, top_mlp=(40, 1), interaction_op="dot")["interaction_op"]
    )
    assert "holds no table" in faults_of(load_torchrec_tables, written(tmp_path, {}))[""]
    assert "holds no table" in faults_of(load_any_model, written(tmp_path, {"tables": {}}))["tables"]


class DataType(Enum):
    FP16 = "FP16"


@dataclass
class Config:
    """What a TorchRec configuration has."""

    name: str
    num_embeddings: int
    embedding_dim: int
    data_type: Any = DataType.FP16
    feature_names: tuple[str, ...] = ()


def test_live_configurations(tmp_path: Path) -> None:
    model = model_from_embedding_bag_configs(
        [Config("a", 10, 4), Config("b", 20, 4)], pooling_factor={"b": 7}, name="live"
    )
    assert [(t.role, t.rows, t.pooling, t.dtype_bytes) for t in model.tables] == [("a", 10, 1, 2), ("b", 20, 7, 2)]
    assert model.name == "live"
    configs = [Config("a", 0, 4), Config("a", 20, 4, data_type="FP3"), object()]
    found = faults_of(model_from_embedding_bag_configs, configs, pooling_factor={"c": 7})
    assert set(found) == {
        "configs[0].num_embeddings",
        "configs[1].name",
        "configs[1].data_type",
        "configs[2].num_embeddings",
        "configs[2].embedding_dim",
        "pooling_factor.c",
    }
    assert "configs" in faults_of(model_from_embedding_bag_configs, [])
    assert "configs" in faults_of(model_from_embedding_bag_configs, 7)


def test_imported_models_can_be_wired(tmp_path: Path) -> None:
    """What they say is enough to run them: :mod:`hercules_fast.measure.network` joins the same widths."""
    from hercules_fast.measure import wire

    path = written(tmp_path, TABLES)
    for flags in (CRITEO, f"{CRITEO} --arch-interaction-itself", f"{CRITEO} --arch-interaction-op=cat"):
        assert wire(model_from_dlrm_flags(flags, name="criteo")).output_dim == 1
    assert wire(load_torchrec_tables(path, bottom_mlp=(13, 16), top_mlp=(48, 2))).output_dim == 2
    assert wire(load_torchrec_tables(path, bottom_mlp=(13, 16), interaction_op="dot")).output_dim == 19
    assert wire(load_torchrec_tables(path)).output_dim == 32
    for name, config in PUBLISHED.items():
        assert wire(load_any_model(written(tmp_path, config))).output_dim == wire(models.model(name)).output_dim


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "path", "words"),
    [
        ("", "", "not valid JSON"),
        ("[1, 2]", "", "is a JSON list; allowed is an object"),
        ('{"a": NaN}', "", "NaN is no JSON number"),
        (f'{{"a": {"9" * 5000}}}', "", "not valid JSON"),
        ('{"arch_mlp_top": 99999999999999999999}', "arch_mlp_top", "64 bits"),
        ("[" * 100_000, "", "nested deeper"),
        (f'{{"a": {"[" * 80}1{"]" * 80}}}', "", "nested deeper"),
        ('{"arch_mlp_top": "1", "arch_mlp_top": "2"}', "arch_mlp_top", "more than once"),
        ('{"tables": {"a": {"num_embeddings": 1, "num_embeddings": 2}}}', "tables.a.num_embeddings", "more than once"),
        ('{"colour": "red"}', "", "has the keys ['colour']; allowed is a DeepRecSys configuration"),
        ("{}", "", "has the keys []"),
    ],
)
def test_files_that_are_no_model(content: str, path: str, words: str, tmp_path: Path) -> None:
    found = faults_of(load_any_model, written(tmp_path, content))
    assert list(found) == [path]
    assert words in found[path]


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFileError):
        load_any_model(tmp_path / "absent.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    assert "not UTF-8" in faults_of(load_any_model, tmp_path / "latin.json")[""]
    monkeypatch.setattr("hercules_fast.descriptors.toml.MAX_BYTES", 100)
    assert "larger than 100 bytes" in faults_of(load_any_model, written(tmp_path, RMC1))[""]


def test_a_flood_of_faults_is_counted(tmp_path: Path) -> None:
    found = faults_of(load_any_model, written(tmp_path, {**RMC1, "arch_embedding_size": "-".join(["0"] * 5000)}))
    assert len(found) == 1001
    assert found[""] == "and 4000 more faults"


def test_any_other_file_is_read_as_toml(tmp_path: Path) -> None:
    source = next(Path(models.__file__).parent.glob("catalog/wnd.toml"))
    assert load_any_model(source) == models.model("wnd")


KEYS = st.sampled_from(
    sorted({key for config in PUBLISHED.values() for key in config} | {"tables", "bottom_mlp", "num_embeddings", "t"})
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.from_regex(r"[0-9-]{0,9}")
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4)
)


@given(document=VALUES)
def test_garbage_gives_a_model_or_a_config_error(document: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.getbasetemp(), document, "garbage.json")
    for load in (load_any_model, load_deeprecsys_model, load_torchrec_tables):
        try:
            assert isinstance(load(path), Model)
        except ConfigError as error:
            assert error.faults
            assert str(error).isprintable() or "\n" in str(error)


@given(changes=st.dictionaries(KEYS, VALUES, max_size=3), name=st.sampled_from(sorted(PUBLISHED)))
def test_a_configuration_spoilt_gives_a_model_or_a_config_error(
    changes: dict[str, Any], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.getbasetemp(), {**PUBLISHED[name], **changes}, "spoilt.json")
    try:
        model = load_any_model(path)
    except ConfigError as error:
        assert all("\n" not in fault.path for fault in error.faults)
    else:
        assert model.operators()


@given(content=st.binary(max_size=60))
def test_garbage_bytes_give_a_config_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_any_model(path)


@given(words=st.lists(st.text(max_size=12) | st.sampled_from(CRITEO.split()), max_size=8))
def test_garbage_flags_give_a_model_or_a_config_error(words: list[str]) -> None:
    try:
        model_from_dlrm_flags(words, name="x")
    except ConfigError as error:
        assert error.faults


@pytest.mark.parametrize("end", ["\\\n", "\\\r\n"])
def test_a_command_of_several_lines_is_read_as_a_shell_does(end: str) -> None:
    options = "--arch-sparse-feature-size=2 --arch-embedding-size 4-3 --arch-mlp-bot=5-2 --arch-mlp-top=3-1"
    lines = options.replace(" ", f" {end}    ").replace("embedding-", f"embedd{end}ing-")
    assert model_from_dlrm_flags(lines, name="m") == model_from_dlrm_flags(options, name="m")
