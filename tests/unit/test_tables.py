"""The two waists: what they refuse, and that files bring back what was saved."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile

import numpy as np
import pytest

from hercules_fast.errors import ConfigError, DTypeError, InputError, MissingFileError, OutputError, UnknownNameError
from hercules_fast.tables import (
    EfficiencyRow,
    EfficiencyTable,
    ServiceTable,
    TableGroupSpec,
    TableStage,
    TableVariant,
    write_atomically,
)


def make_table(**changes) -> ServiceTable:
    """Two stages: a CPU pool of up to 4 cores in two variants, and an accelerator only the second one uses."""
    items = np.array([1, 8, 64], dtype=np.int64)
    busy = np.array([1, 2, 4], dtype=np.int64)
    seconds = np.full((2, 2, 3, 3), np.nan)
    seconds[:, 0] = 1e-3 * items[:, None] * (1 + 0.1 * busy[None, :])
    seconds[1, 1] = 1e-4 * items[:, None] * busy[None, :]
    fields = {
        "server": "S",
        "workload": "W",
        "origin": "measured",
        "assumptions": ("made up",),
        "items": items,
        "busy": busy,
        "variants": (
            TableVariant(name="a", kind="cpu", operator_cores=(2, 0), max_instances=0, memory_bytes={"host": 1e9}),
            TableVariant(name="b", kind="gpu", operator_cores=(1, 0), max_instances=2),
        ),
        "stages": (
            TableStage(name="model", group="cpu", unit="sub_batch", busy_of="model"),
            TableStage(name="gpu", group="gpu", unit="fused", busy_of="gpu", after=("model",)),
        ),
        "groups": (
            TableGroupSpec(name="cpu", component="cpu", capacity=4, interference="at_start"),
            TableGroupSpec(name="gpu", component="gpu", capacity=2, interference="at_start"),
        ),
        "seconds": seconds,
        "energy_j": np.zeros((2, 2, 3)),
        "noise_cv": np.zeros(2),
        "idle_w": {"cpu": 40.0, "gpu": 100.0, "memory": 10.0},
        "tdp_w": {"cpu": 100.0, "gpu": 300.0, "memory": 30.0},
        "base_w": 40.0,
    }
    return ServiceTable(**(fields | changes))


def make_row(**changes) -> EfficiencyRow:
    fields = {
        "server": "S",
        "workload": "W",
        "sla": ((95.0, 20.0),),
        "qps": 100.0,
        "qps_lo": 99.0,
        "qps_hi": 101.0,
        "achieved_ms": (19.5,),
        "power_w": 200.0,
        "power_mode": "component",
        "energy_j_per_query": 2.0,
        "utilisation": {"cpu": 0.9},
        "memory_bytes": {"host": 1e9},
        "config": make_table().config(0, (2, 0), batch=64),
        "status": "ok",
        "reason": "limited by sla",
        "origin": "modelled",
        "seed": 1,
        "source_digest": "x",
    }
    if "qps" in changes:  # the interval follows, unless it is what a test is about
        fields |= {"qps_lo": changes["qps"], "qps_hi": changes["qps"]}
    return EfficiencyRow(**(fields | changes))


def test_service_table_round_trip(tmp_path) -> None:
    table = make_table()
    table.save(tmp_path / "t.npz")
    back = ServiceTable.load(tmp_path / "t.npz")
    assert back.digest() == table.digest()
    assert np.array_equal(back.seconds, table.seconds, equal_nan=True)
    assert back.variants == table.variants


def test_same_table_same_bytes(tmp_path) -> None:
    for name in ("a.npz", "b.npz"):
        make_table().save(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "a.npz") as a, zipfile.ZipFile(tmp_path / "b.npz") as b:
        assert [a.read(n) for n in a.namelist()] == [b.read(n) for n in b.namelist()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": np.ones((2, 2, 3, 2))}, r"seconds: is float64 \(2, 2, 3, 2\); allowed is float64 \(2, 2, 3, 3\)"),
        ({"items": np.array([1, 8, 8], dtype=np.int64)}, "items: must be int64, start at 1 and increase"),
        ({"busy": np.array([2, 3, 4], dtype=np.int64)}, "busy: must be int64, start at 1 and increase"),
        ({"seconds": np.zeros((2, 2, 3, 3))}, r"seconds\[0,0\]: must be finite and > 0"),
        ({"energy_j": np.full((2, 2, 3), -1.0)}, "energy_j: must be >= 0"),
        ({"noise_cv": np.array([0.0, np.inf])}, "noise_cv: must be finite and >= 0"),
        ({"idle_w": {"cpu": 1.0}}, "idle_w: names"),
        ({"tdp_w": {"cpu": math.nan, "gpu": 1.0, "memory": 1.0}}, r"tdp_w\.cpu: is nan; allowed is finite"),
        (
            {"groups": (TableGroupSpec(name="cpu", component="cpu", capacity=0, interference="none"),)},
            r"stage\[1\]\.group: is 'gpu'; allowed are \['cpu'\]",
        ),
    ],
)
def test_service_table_refuses(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_table(**changes)


def test_service_table_reports_all_faults_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_table(energy_j=np.full((2, 2, 3), -1.0), noise_cv=np.array([0.0, np.inf]))
    assert [f.path for f in caught.value.faults] == ["energy_j", "noise_cv"]


def test_partly_nan_seconds_are_a_fault() -> None:
    seconds = make_table().seconds.copy()
    seconds[0, 0, 1, 1] = np.nan
    with pytest.raises(ConfigError, match=r"seconds\[0,0\]: is NaN in part"):
        make_table(seconds=seconds)


@pytest.mark.parametrize(
    ("variant", "threads", "batch", "message"),
    [
        (2, (1, 0), 8, "variant: is 2; allowed is 0 to 1"),
        (0, (1,), 8, "threads: has 1 entries; allowed is one per stage, 2"),
        (0, (3, 0), 8, "threads: use 6 of group 'cpu'; allowed is <= 4"),
        (0, (1, 1), 8, r"threads\[1\]: variant 'a' does not use stage 'gpu'"),
        (1, (0, 3), 8, "threads: use 3 of group 'gpu'; allowed is <= 2"),
        (0, (-1, 0), 8, r"threads\[0\]: is -1; allowed is >= 0"),
        (0, (0, 0), 8, "threads: all are 0"),
        (0, (1, 0), 0, "batch: is 0; allowed is >= 1"),
    ],
)
def test_configurations_are_checked(variant, threads, batch, message) -> None:
    with pytest.raises(InputError, match=message):
        make_table().config(variant, threads, batch=batch)


def pipeline_table() -> ServiceTable:
    """Three pools that hand sub-batches on; the first may be left out."""
    stages = tuple(TableStage(name=n, group="cpu", unit="sub_batch", busy_of=n) for n in ("model", "sparse", "dense"))
    variant = TableVariant(name="a", kind="cpu-sd", operator_cores=(1, 1, 1), max_instances=0)
    cells = {"seconds": np.full((1, 3, 3, 3), 1e-3), "energy_j": np.zeros((1, 3, 3)), "noise_cv": np.zeros(3)}
    groups = (TableGroupSpec(name="cpu", component="cpu", capacity=4, interference="at_start"),)
    return make_table(stages=stages, variants=(variant,), groups=groups, **cells)


def test_a_buffer_needs_a_pipeline_and_an_offload_two_ways() -> None:
    table = pipeline_table()
    config = table.config(0, (0, 1, 2), batch=8, buffer=4)
    assert config.describe() == "cpu-sd: sparse 1x1, dense 2x1, batch 8, buffer 4"
    assert config.row == (0, 8, 1, 0, 4, 0, 0, 1, 2)
    assert table.config(0, (0, 1, 2), batch=8).row == (0, 8, 1, 0, -1, 0, 0, 1, 2)
    both = make_table().config(1, (2, 1), batch=8, fuse_items=16, offload_items=32)
    assert both.row == (1, 8, 16, 0, -1, 32, 2, 1)
    assert both.describe() == "gpu: model 2x1, gpu x1, batch 8, fuse 16, from 32 items on the GPU"
    for wrong, message in [
        ({"threads": (0, 1, 2), "buffer": -1}, "buffer: is -1; allowed is >= 0 sub-batches"),
        ({"threads": (1, 0, 0), "buffer": 4}, r"buffer: is 4 for stages \['model'\]; allowed is None"),
        ({"threads": (0, 1, 2), "buffer": 4, "offload_items": 8}, "buffer: is 4 for stages"),
        ({"threads": (1, 1, 1), "offload_items": 8}, "offload_items: is 8 for stages .*exactly two"),
        ({"threads": (1, 0, 0), "offload_items": 8}, r"offload_items: is 8 for stages \['model'\]"),
        ({"threads": (0, 1, 1), "offload_items": -1}, "offload_items: is -1; allowed is >= 0"),
    ]:
        with pytest.raises(InputError, match=message):
            table.config(0, batch=8, **wrong)
    offload = dataclasses.replace(make_table().variants[1], kind="cpu-gpu-offload")
    split = make_table(variants=(make_table().variants[0], offload))
    assert split.config(1, (2, 1), batch=8, offload_items=8).kind == "cpu-gpu-offload"
    with pytest.raises(InputError, match=r"offload_items: is 0 for stages \['model', 'gpu'\]"):
        split.config(1, (2, 1), batch=8)


def test_buffer_and_offload_go_through_files_and_may_be_missing(tmp_path) -> None:
    config = pipeline_table().config(0, (0, 1, 2), batch=8, buffer=0)
    table = EfficiencyTable(servers=("S",), workloads=("W",), rows=(make_row(config=config),))
    table.save(tmp_path / "t.json")
    assert EfficiencyTable.load(tmp_path / "t.json").rows[0].config == config
    raw = json.loads((tmp_path / "t.json").read_text())
    for name in ("buffer", "offload_items"):
        del raw["rows"][0]["config"][name]
    (tmp_path / "old.json").write_text(json.dumps(raw))
    assert EfficiencyTable.load(tmp_path / "old.json").rows[0].config == dataclasses.replace(config, buffer=None)
    raw["rows"][0]["config"]["buffer"] = -1
    (tmp_path / "bad.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"config\.buffer: is -1; allowed is a whole number from 0"):
        EfficiencyTable.load(tmp_path / "bad.json")


def test_loading_what_is_no_table(tmp_path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        ServiceTable.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ConfigError, match="is not a service table"):
        ServiceTable.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ConfigError, match="header: array is missing"):
        ServiceTable.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", header=np.array([{}], dtype=object))
    with pytest.raises(ConfigError):
        ServiceTable.load(tmp_path / "pickle.npz")


def test_a_table_that_declares_too_much_is_refused_unread(tmp_path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("items.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(1025):
            member.write(bytes(1 << 20))
    with pytest.raises(ConfigError, match="allowed is at most"):
        ServiceTable.load(tmp_path / "bomb.npz")


def test_efficiency_table_round_trip(tmp_path) -> None:
    rows = (make_row(), make_row(server="B", status="infeasible", qps=0.0, power_w=0.0, energy_j_per_query=math.nan))
    table = EfficiencyTable(rows=rows, servers=("S", "B"), workloads=("W",), meta={"seed": 1})
    table.save(tmp_path / "e.json")
    back = EfficiencyTable.load(tmp_path / "e.json")
    assert back.to_json() == table.to_json()
    assert back.rows[0] == rows[0]
    assert math.isnan(back.rows[1].energy_j_per_query)
    assert "NaN" not in table.to_json()


def test_matrices_follow_the_asked_order_and_offer_names() -> None:
    table = EfficiencyTable.from_matrices(["a", "b"], ["x", "y"], [[1, 2], [0, 4]], [[10, 20], [0, 40]])
    qps, power = table.matrices(["b", "a"], ["y", "x"])
    assert qps.tolist() == [[4, 0], [2, 1]]
    assert power.tolist() == [[40, 0], [20, 10]]
    with pytest.raises(UnknownNameError, match="unknown workload in the efficiency table 'X1'; did you mean 'x'"):
        table.matrices(None, ["X1"])


def test_ranking_is_by_qps_per_watt() -> None:
    table = EfficiencyTable.from_matrices(["a", "b", "c"], ["x"], [[10], [0], [30]], [[1], [0], [6]])
    assert [row.server for row in table.ranking("x")] == ["a", "c"], "not by QPS alone"


def test_the_best_of_several_rows_counts() -> None:
    rows = (make_row(qps=50.0, power_w=50.0), make_row(qps=100.0, power_w=200.0))
    table = EfficiencyTable(rows=rows, servers=("S",), workloads=("W",))
    assert table.matrices()[0].tolist() == [[100.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qps": -1.0}, r"rows\[0\]\.qps: is -1.0; allowed is finite and >= 0"),
        ({"power_w": math.inf}, r"rows\[0\]\.power_w: is inf"),
        ({"qps": 0.0}, r"rows\[0\]: is ok with qps 0.0"),
        ({"server": "Z"}, r"rows\[0\]\.server: is 'Z', which is not in servers"),
        ({"status": "maybe"}, r"rows\[0\]\.status: is 'maybe'"),
        ({"status": "infeasible"}, r"rows\[0\]\.qps: is 100.0 in an infeasible row"),
        ({"qps": True}, r"rows\[0\]\.qps: is True; allowed is finite and >= 0"),
        ({"qps": 1.1e12}, r"rows\[0\]\.qps: is 1100000000000\.0; allowed is finite and >= 0 and <= 1e\+12"),
        ({"power_w": 10**400}, r"rows\[0\]\.power_w: is 1000.*; allowed is finite and >= 0 and <= 1e\+09"),
        ({"qps_lo": 100.5}, r"rows\[0\]\.qps_lo: is 100.5; allowed is <= qps, 100.0"),
        ({"qps_hi": 99.5}, r"rows\[0\]\.qps_hi: is 99.5; allowed is >= qps, 100.0"),
        ({"origin": "guessed"}, r"rows\[0\]\.origin: is 'guessed'; allowed are 'measured', 'modelled', 'published'"),
        ({"sla": ((True, 20.0),)}, r"rows\[0\]\.sla\[0\]\[0\]: is True; allowed is 0 < percentile < 100"),
        ({"achieved_ms": ("19",)}, r"rows\[0\]\.achieved_ms\[0\]: is '19'"),
        ({"utilisation": {"cpu": True}}, r"rows\[0\]\.utilisation\.cpu: is True"),
        ({"energy_j_per_query": "much"}, r"rows\[0\]\.energy_j_per_query: is 'much'"),
        ({"seed": True}, r"rows\[0\]\.seed: is True; allowed is a whole number"),
    ],
)
def test_efficiency_rows_are_checked(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        EfficiencyTable(rows=(make_row(**changes),), servers=("S",), workloads=("W",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ("[" * 65 + "]" * 65, "is nested too deeply; allowed are 64 levels"),
        ("[]", "schema: is 'list'"),
        ('{"schema": "other"}', "schema: is 'other'; allowed is 'hercules_fast.efficiency_table/1'"),
        (
            json.dumps({"schema": "hercules_fast.efficiency_table/1", "rows": [{}, 3]}),
            r"(?s)3 faults.*lacks .servers., .workloads..*rows\[0\].*rows\[1\]",
        ),
    ],
)
def test_loading_what_is_no_efficiency_table(tmp_path, text, message) -> None:
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        EfficiencyTable.load(tmp_path / "e.json")


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (lambda d: d["rows"][0].update(foo=1), ["rows[0]: unknown key 'foo'"]),
        (lambda d: d["rows"][0]["config"].update(foo=1), ["rows[0].config: unknown key 'foo'"]),
        (lambda d: d.update(foo=1), ["unknown key 'foo'"]),
        (lambda d: d["rows"][0].pop("qps"), ["rows[0]: lacks 'qps'"]),
        (lambda d: d.update(rows=[]), ["rows: is empty; at least one row is needed"]),
        (lambda d: d.update(rows=3), ["rows: is 3; allowed is a list"]),
        (lambda d: d.update(servers="S"), ["servers: is 'S'; allowed is a list"]),
        (lambda d: d.update(servers=["S", ["T"]]), ["servers: is ['S', ['T']]; allowed are names, none of them empty"]),
        (
            lambda d: d["rows"][0].update(sla=[95]),
            ["rows[0].sla: is [95]; allowed is a list of [percentile, latency in ms]"],
        ),
        (lambda d: d["rows"][0].update(config=7), ["rows[0].config: is 7; allowed is an object or null"]),
        (
            lambda d: d["rows"][0]["config"].update(threads=[True, 0]),
            ["rows[0].config.threads[0]: is True; allowed is a whole number from 0"],
        ),
        (
            lambda d: d["rows"][0].update(qps=True, origin="me"),
            [
                "rows[0].qps: is True; allowed is finite and >= 0 and <= 1e+12",
                "rows[0].origin: is 'me'; allowed are 'measured', 'modelled', 'published'",
            ],
        ),
    ],
)
def test_every_fault_of_an_efficiency_file_has_its_path(tmp_path, change, faults) -> None:
    data = EfficiencyTable(rows=(make_row(),), servers=("S",), workloads=("W",)).to_dict()
    data = json.loads(json.dumps(data))
    change(data)
    (tmp_path / "e.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError) as caught:
        EfficiencyTable.load(tmp_path / "e.json")
    assert [str(fault) for fault in caught.value.faults] == faults


def test_from_matrices_refuses_what_are_no_figures() -> None:
    one = (["a"], ["x"])
    with pytest.raises(InputError, match="origin: is 'me'; allowed are 'measured', 'modelled', 'published'"):
        EfficiencyTable.from_matrices(*one, [[1]], [[1]], origin="me")
    with pytest.raises(DTypeError, match="qps: is of dtype bool; allowed are numbers"):
        EfficiencyTable.from_matrices(*one, [[True]], [[1]])
    with pytest.raises(InputError, match="power_w: has rows of different lengths"):
        EfficiencyTable.from_matrices(*one, [[1]], [[1], [1, 2]])


def test_spreadsheets_run_nothing() -> None:
    table = EfficiencyTable.from_matrices(["=1+1"], ["x"], [[1]], [[1]])
    assert "'=1+1" in table.to_csv()


def test_from_matrices_names_the_shape() -> None:
    with pytest.raises(InputError, match=r"qps: has shape \(1, 1\); allowed is \(2, 1\)"):
        EfficiencyTable.from_matrices(["a", "b"], ["x"], [[1]], [[1]])


def test_files_are_whole_or_absent(tmp_path, monkeypatch) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*result: No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["result"], "no litter"
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "missing" / "x", b"")


def test_descriptions_read_well() -> None:
    table = make_table()
    assert table.config(0, (2, 0), batch=64).describe() == "cpu: model 2x2, batch 64"
    config = table.config(1, (0, 2), batch=64, fuse_items=512)
    assert config.describe() == "gpu: gpu x2, fuse 512"
    assert dataclasses.replace(config, max_wait_us=500).describe() == "gpu: gpu x2, fuse 512, wait 500 us"
    assert dataclasses.replace(config, fuse_items=1).describe() == "gpu: gpu x2, unfused"
