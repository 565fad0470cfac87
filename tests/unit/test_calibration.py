"""Calibration: the published curves, recovery of known constants, cross-validation, files, faults of users' CSV."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hercules_fast as hf
from hercules_fast import hardware, models
from hercules_fast.cli import main
from hercules_fast.errors import ConfigError, InputError, MissingFileError
from hercules_fast.profiling import Curve, published_curves, read_curves_csv
from hercules_fast.report import calibration_text
from hercules_fast.serving import Terms, lone_seconds

HOSTS = ("c5n.2xlarge", "r5n.large", "g4dn.xlarge")
MODELS = ("dlrm-rmc2", "ncf", "wnd", "mt-wnd")
BATCHES = np.array([10, 20, 50, 100, 200, 400, 700, 1000])
RUN = Terms().without("gpu_input")
HEADER = "model,host,batch,run_ms_median,n\n"


@pytest.fixture(scope="module")
def published() -> hf.Calibration:
    return hf.calibrate()


def curve(model: str, host: hardware.Server, *, noise=None, terms: Terms = RUN, batches=BATCHES) -> Curve:
    run_ms = lone_seconds(host, models.model(model), batches, terms) * 1e3
    return Curve(
        model=models.model(model),
        host=host,
        items=batches,
        run_ms=run_ms if noise is None else run_ms * noise,
        source="made up",
    )


# -- the published curves --------------------------------------------------------------------------------------------


def test_published_curves_restate_the_shared_medians(shared) -> None:
    """To three digits, at the batches that the package holds."""
    theirs = {(c.model.name, c.host.name): c for c in read_curves_csv(shared / "hercules-latency.csv")}
    assert [(c.model.name, c.host.name) for c in published_curves()] == list(theirs)
    for ours in published_curves():
        curve = theirs[ours.model.name, ours.host.name]
        assert set(ours.items) <= set(curve.items) and 5 <= len(ours.items) <= 12
        where = np.searchsorted(curve.items, ours.items)
        assert ours.run_ms == pytest.approx(curve.run_ms[where], rel=0.005)


def test_all_batches_of_the_published_curves(shared) -> None:
    """The target out of sample; and the catalogue holds what this fit gives."""
    everything = hf.calibrate(read_curves_csv(shared / "hercules-latency.csv"))
    assert everything.median < 0.04 and everything.batch_out < 0.04 and everything.model_out < 0.10
    for c in everything.curves:
        assert c.median <= 0.08 and c.batch_out <= 0.10 and c.model_out <= 0.10, c
    for host in everything.hosts:
        server = hardware.server(host.server.name)
        part = server.gpu or server.cpu
        assert {name: getattr(part, name) for name in host.constants} == pytest.approx(dict(host.constants), rel=0.01)


def test_errors_of_the_published_curves(published) -> None:
    """What the validation page promises: medians within 10 % with a batch left out, for every curve."""
    assert {(c.model, c.host) for c in published.curves} == {(m, h) for m in MODELS for h in HOSTS}
    assert published.median < 0.04 and published.batch_out < 0.05 and published.model_out < 0.10
    for c in published.curves:
        assert c.median <= 0.08 and c.batch_out <= 0.10 and c.model_out <= 0.15, c
        assert c.median <= c.worst and c.batch_out <= c.batch_out_worst and abs(c.model_out_bias) <= c.model_out_worst


def test_the_catalogue_is_near_what_the_fit_gives(published) -> None:
    for host in published.hosts:
        server = hardware.server(host.server.name)
        part = server.gpu or server.cpu
        assert {name: getattr(part, name) for name in host.constants} == pytest.approx(dict(host.constants), rel=0.04)
        marks = [t for key, t in part.sources.items() if set(key.split(", ")) & set(host.constants)]
        assert marks and all(text.startswith("derived: calibrated on medians of 100 run times") for text in marks)


def test_the_page_prints_this_table(published) -> None:
    """To half a point: the last digit may depend on the machine's linear algebra."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "validation.md").read_text()
    for line in calibration_text(published).splitlines():
        words = line.split()
        if words[:1] and words[0] in MODELS and words[1] in HOSTS:
            printed = next(x.split() for x in page.splitlines() if x.split()[:2] == words[:2] and "%" in x)
            assert len(printed) == len(words)
            for ours, theirs in zip(words, printed, strict=True):
                if "%" in ours:
                    assert float(ours.strip("%")) == pytest.approx(float(theirs.strip("%")), abs=0.5)


def test_a_fit_does_not_depend_on_what_the_hosts_were(published) -> None:
    worse = [
        replace(c, host=replace(c.host, cpu=replace(c.host.cpu, gemm_efficiency=0.1, gather_core_gb_s=1.0)))
        for c in published_curves()
        if c.host.name == "r5n.large"
    ]
    assert dict(hf.calibrate(worse).hosts[0].constants) == dict(published.hosts[1].constants)


def test_two_runs_give_the_same_bytes(published) -> None:
    again = hf.calibrate([c for c in published_curves() if c.host.name == "g4dn.xlarge"])
    ours = [c for c in published.curves if c.host == "g4dn.xlarge"]
    assert again.curves == tuple(ours) and again.hosts == published.hosts[2:]


# -- recovery --------------------------------------------------------------------------------------------------------

CPU_TRUTH = {
    "operator_overhead_us": 6.0,
    "gather_core_gb_s": 4.0,
    "llc_core_gb_s": 14.0,
    "gemm_efficiency": 0.55,
}
GPU_TRUTH = {"operator_overhead_us": 9.0, "compute_efficiency": 0.6, "gather_efficiency": 0.25}


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(("host", "truth"), [("c5n.2xlarge", CPU_TRUTH), ("g4dn.xlarge", GPU_TRUTH)])
def test_known_constants_come_back(host, truth, noisy) -> None:
    """Curves of the model itself give its constants; outliers of 2x in a tenth of the points hardly move them."""
    server = hardware.server(host)
    if server.gpu:
        server = replace(server, gpu=replace(server.gpu, **truth))
    else:
        server = replace(server, cpu=replace(server.cpu, **truth))
    noise = np.ones(BATCHES.size)
    if noisy:
        noise[3] = 2.0
    found = hf.calibrate([curve(m, server, noise=noise) for m in MODELS])
    assert dict(found.hosts[0].constants) == pytest.approx(truth, rel=0.08 if noisy else 0.03)
    assert found.median < 0.01


def test_lone_seconds_are_those_of_the_service_table() -> None:
    """The model that is fitted is the model that predicts."""
    workload = hf.fleet("zoo10").workloads[0]
    for name in ("T2", "T2-V100", "c5n.2xlarge"):
        server = hardware.server(name)
        for model in (models.model("wnd"), models.model("dlrm-rmc1")):
            table = hf.service_table(server, replace(workload, model=model), RUN)
            kind, stage = ("gpu", "gpu") if server.gpu else ("cpu", "model")
            v = next(k for k, variant in enumerate(table.variants) if variant.kind == kind)
            entries = table.seconds[v, table.stage_index(stage), :, 0]
            assert entries == pytest.approx(lone_seconds(server, model, table.items, RUN), rel=1e-12)


def test_one_curve_alone_is_fitted_and_says_that_nothing_was_left_out() -> None:
    found = hf.calibrate([curve("wnd", hardware.server("r5n.large"))])
    assert math.isnan(found.model_out) and math.isnan(found.curves[0].model_out) and found.curves[0].cause == ""
    assert found.median < 0.03
    json.dumps(found.to_dict())


def test_refusals_of_curves() -> None:
    one = curve("ncf", hardware.server("r5n.large"))
    with pytest.raises(InputError, match=r"curves: are none"):
        hf.calibrate([])
    with pytest.raises(InputError, match=r"ncf on r5n.large twice"):
        hf.calibrate([one, one])
    with pytest.raises(InputError, match=r"calibrated are r5n.large"):
        hf.calibrate([one]).server("T2")


# -- files -----------------------------------------------------------------------------------------------------------


def rows_of(*curves: Curve) -> list[str]:
    return [
        f"{c.model.name},{c.host.name},{b},{ms!r},100"
        for c in curves
        for b, ms in zip(c.items.tolist(), c.run_ms.tolist(), strict=True)
    ]


def test_a_users_file_and_the_descriptor_that_comes_back(tmp_path, capsys) -> None:
    host = hardware.server("c5n.2xlarge")
    path = tmp_path / "mine.csv"
    path.write_text("# a comment\n" + HEADER + "\n".join(rows_of(curve("wnd", host), curve("ncf", host))) + "\n")
    assert main(["calibrate", str(path), "--out", str(tmp_path / "out"), "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    cpu = hardware.load_cpu(tmp_path / "out" / "c5n.2xlarge.toml")
    assert {name: getattr(cpu, name) for name in told["hosts"][0]["constants"]} == told["hosts"][0]["constants"]
    assert told["source"] == "mine.csv" and "measured: calibrated on mine.csv" in set(cpu.sources.values())
    assert main(["calibrate", str(path), "--quiet"]) == 0
    assert "each batch left out" in capsys.readouterr().out


@pytest.mark.parametrize("part", [hardware.cpu("xeon-d-2191"), hardware.gpu("v100")])
def test_descriptors_as_toml_come_back(tmp_path, part) -> None:
    path = tmp_path / "part.toml"
    path.write_text(hardware.toml_text(part))
    load = hardware.load_cpu if isinstance(part, hardware.Cpu) else hardware.load_gpu
    assert load(path) == part


def test_every_fault_of_a_file_at_once(tmp_path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        HEADER
        + "\n".join(
            [
                "rm2,c5n.2xlarge,10,2.2,100",
                "RM2,C5N.2xlarge,10,2.3,100",
                "rm9,c5n.2xlarge,10,2.2,100",
                "ncf,c6n.2xlarge,10,2.2,100",
                "ncf,r5n.large,10,nan,100",
                "ncf,r5n.large,20,-1,100",
                "ncf,r5n.large,2.5,0.3,100",
                "ncf,r5n.large,30,0.4,many",
                "ncf,r5n.large,40",
                "wnd,r5n.large,10,0.0016,100",
                "mtwnd,g4dn.xlarge,10,1297,100",
            ]
        )
    )
    with pytest.raises(ConfigError) as caught:
        hf.calibrate(path)
    faults = {fault.path: fault.message for fault in caught.value.faults}
    assert list(faults) == [f"line {k}" for k in range(3, 13)]
    assert "already on line 2" in faults["line 3"] and "did you mean" in faults["line 4"]
    assert "unknown host 'c6n.2xlarge'; did you mean 'c5n.2xlarge'" in faults["line 5"]
    assert "run_ms_median is 'nan'" in faults["line 6"] and "'-1'" in faults["line 7"]
    assert "batch is '2.5'" in faults["line 8"] and "n is 'many'" in faults["line 9"]
    assert "3 cells" in faults["line 10"]
    assert "are these seconds?" in faults["line 11"] and "are these microseconds?" in faults["line 12"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("model,host,batch,run_us\n", "no column 'run_ms_median'"),
        (HEADER, "no rows"),
        ("model,host,batch,run_ms_median,run_ms_median\n", "twice"),
        ('model,host,batch,run_ms_median\n"wnd,r5n.large,10,1.6', "not CSV"),
    ],
)
def test_files_that_are_no_curves(tmp_path, text, words) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_curves_csv(path)


def test_missing_and_binary_files(tmp_path) -> None:
    with pytest.raises(MissingFileError):
        hf.calibrate(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"model,host\n\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        hf.calibrate(tmp_path / "b.csv")


@given(lines=st.lists(st.text(alphabet="wndcf,0123456789.-e# \"\t'", max_size=30), max_size=8))
def test_any_text_is_curves_or_a_list_of_faults(tmp_path_factory, lines) -> None:
    path = tmp_path_factory.mktemp("csv") / "any.csv"
    path.write_text(HEADER + "\n".join(lines))
    try:
        curves = read_curves_csv(path)
    except ConfigError as error:
        assert error.faults
    else:
        assert all(np.all(np.diff(c.items) > 0) and np.all(c.run_ms > 0) for c in curves)
