"""Descriptor files: catalogues load, every fault is named with its place, nothing but our errors escapes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hercules_fast
from hercules_fast import fleets, hardware, models, traffic
from hercules_fast.descriptors import check, json_schema, kinds, load, validate
from hercules_fast.descriptors.units import parse_quantity
from hercules_fast.errors import ConfigError, Fault, HerculesError, MissingFileError, UnknownNameError

PACKAGE = Path(hercules_fast.__file__).parent
CATALOGUE = sorted(PACKAGE.rglob("catalog/**/*.toml"))

CPU = """\
schema = "hercules_fast.cpu/1"
name = "mine"
cores = 8
frequency_ghz = "2500MHz"
simd_frequency_ghz = 2.0
fp32_flop_per_cycle = 32
l2_kb = 1024
llc_mb = 16
tdp_w = 65
idle_fraction = 0.3
operator_overhead_us = 10
gather_core_gb_s = "6000 MB/s"
llc_core_gb_s = 10
gemm_efficiency = 0.7

[sources]
"cores, frequency_ghz, simd_frequency_ghz, fp32_flop_per_cycle, l2_kb, llc_mb, tdp_w" = "user: data sheet"
"idle_fraction, operator_overhead_us, gather_core_gb_s, llc_core_gb_s, gemm_efficiency" = "user: guessed"
"""
SERVER = """\
schema = "hercules_fast.server/1"
name = "box"
cpu = "mine"
memory = "DDR4-T1"
base_w = 40
memory_reserve = 0.1
[sources]
"base_w, memory_reserve" = "user: guessed"
"""


def faults_of(path: Path) -> dict[str, str]:
    ((_, faults),) = check([path])
    return {fault.path: fault.message for fault in faults}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- catalogues -------------------------------------------------------------------------------------------------------


def test_every_catalogue_file_is_right_and_named_after_itself() -> None:
    assert len(CATALOGUE) > 40
    assert [(path.name, faults) for path, faults in check(CATALOGUE) if faults] == []
    for kind in kinds().values():
        for path in kind.catalog.glob("*.toml"):
            assert load(path, kind).name.lower() == path.stem


def test_every_figure_has_a_mark() -> None:
    texts = [s for n in hardware.cpu_names() for s in hardware.cpu(n).sources.values()]
    assert all(text.split(":")[0] in hardware.MARKS for text in texts)
    assert hardware.cpu("Xeon-Gold-6138").sources["cores"].startswith("stated: ")
    assert hardware.cpu("Xeon-Gold-6138").sources["operator_overhead_us"].startswith("assumed: ")


# Sum of component TDPs, as public; stock.
ZOO = {
    "T1": (114, 100),
    "T2": (175, 100),
    "T2-NMPx2": (175, 15),
    "T2-NMPx4": (225, 10),
    "T2-NMPx8": (325, 5),
    "T1-P100": (414, 10),
    "T2-V100": (475, 5),
    "NMPx2-V100": (475, 6),
    "NMPx4-V100": (525, 4),
    "NMPx8-V100": (625, 2),
}


def test_zoo10() -> None:
    zoo = fleets.fleet("ZOO10")
    assert zoo.label == "a preset of ours, not the paper's"
    assert {s.name: (s.component_tdp_w, zoo.stock[s.name]) for s in zoo.servers} == ZOO
    sizes_gb = {w.name: round(w.model.embedding_bytes / 1e9, 1) for w in zoo.workloads}
    assert sizes_gb == {
        "rmc1": 41.0,
        "rmc2": 98.3,
        "rmc3": 10.2,
        "mt-wnd": 15.6,
        "din": 5.9,
        "dien": 3.9,
        "wnd": 3.5,
        "dlrm-v2": 104.5,
    }
    scaled = {w.name for w in zoo.workloads if w.model.label == "scaled, not the paper's"}
    assert scaled == {"rmc1", "rmc2", "rmc3", "mt-wnd"}
    assert str(zoo.workloads[-1].slas[0]) == "p99 <= 60 ms"
    assert all(w.sizes.name == "kairos" and w.arrivals.kind == "poisson" for w in zoo.workloads)


def test_envelope() -> None:
    envelope = fleets.fleet("envelope")
    assert [s.name for s in envelope.servers] == ["T1", "T2", "T2-NMPx8", "T2-V100"]
    assert [w.slas[0].latency_ms for w in envelope.workloads] == [20, 100, 50, 25, 100, 35]


def test_hardware_figures() -> None:
    assert hardware.cpu("xeon-d-2191").core_gflop_s == pytest.approx(51.2)
    assert [hardware.memory(f"nmp-x{r}").capacity_gb for r in (2, 4, 8)] == [128, 256, 512]
    assert [hardware.memory(f"nmp-x{r}").ranks for r in (2, 4, 8)] == [2, 4, 8]
    assert hardware.gpu("p100").memory_gb_s == 720
    assert "slide" in hardware.gpu("P100").sources["memory_gb_s"]


def test_hyperexponential_example_has_the_stated_variation() -> None:
    process = traffic.arrivals("hyperexponential")
    mean = sum(p / r for p, r in zip(process.probabilities, process.rates, strict=True))
    square = sum(2 * p / r**2 for p, r in zip(process.probabilities, process.rates, strict=True))
    assert (mean, square / mean**2 - 1) == (pytest.approx(1), pytest.approx(4))


def test_week() -> None:
    week = traffic.load("week", workloads=("a", "b"))
    assert week.qps.shape == (168, 2)
    assert week.relative
    assert (week.qps.max(), week.workloads) == (1.0, ("a", "b"))
    assert np.array_equal(week.qps[:, 0], week.qps[:, 1])
    assert (str(week.times[0]), week.times[0].item().weekday()) == ("2024-01-01T00:00:00", 0)
    assert set(np.diff(week.times).astype(int)) == {3600}
    assert "not a recommendation trace" in week.origin


def test_week_is_derived_from_the_trace(shared: Path, tmp_path: Path) -> None:
    tool = Path(__file__).resolve().parents[2] / "tools" / "derive_week.py"
    source = shared / "load-traces" / "elb_request_count_5min.csv"
    done = subprocess.run([sys.executable, str(tool), str(source)], capture_output=True, text=True, check=True)
    assert done.stdout == (PACKAGE / "traffic" / "catalog" / "load" / "week.toml").read_text()


@pytest.mark.parametrize(
    ("get", "wrong", "right"),
    [
        (hardware.server, "T2-NPMx8", "T2-NMPx8"),
        (hardware.cpu, "xeon-gold-6139", "Xeon-Gold-6138"),
        (hardware.memory, "ddr4t2", "ddr4-t2"),
        (hardware.gpu, "v10", "V100"),
        (traffic.arrivals, "posson", "poisson"),
        (traffic.load, "weak", "week"),
        (traffic.workload, "rmc-1", "rmc1"),
        (fleets.fleet, "zoo", "zoo10"),
    ],
)
def test_unknown_names_are_corrected(get: Callable[[str], object], wrong: str, right: str) -> None:
    with pytest.raises(UnknownNameError, match=re.escape(f"did you mean {right!r}")):
        get(wrong)


def test_no_path_escapes_the_catalogue() -> None:
    with pytest.raises(UnknownNameError):
        hardware.cpu("../memory/ddr4-t1")


def test_importing_the_rooms_does_not_import_pydantic() -> None:
    code = (
        "import sys; from hercules_fast import hardware, models, traffic; import hercules_fast.fleets; "
        "sys.exit('pydantic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- user files -------------------------------------------------------------------------------------------------------


def test_units_in_strings(tmp_path: Path) -> None:
    cpu = hardware.load_cpu(write(tmp_path, "mine.toml", CPU))
    assert (cpu.frequency_ghz, cpu.gather_core_gb_s) == (2.5, 6.0)
    assert cpu.sources["llc_mb"] == "user: data sheet"


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("25ms", "ms", 25.0),
        ("0.025 s", "ms", 25.0),
        ("1.5GB/s", "GB/s", 1.5),
        ("1024 KiB", "kB", 1048.576),
        ("1e3 us", "ms", 1.0),
        ("2 kW", "W", 2000.0),
        ("15700GFLOP/s", "TFLOP/s", 15.7),
        ("25", "ms", None),
        ("25 parsec", "ms", None),
        ("25GB", "GB/s", None),
        ("1e999999999s", "ms", None),
        ("nan s", "ms", None),
        ("", "s", None),
    ],
)
def test_quantities(text: str, unit: str, value: float | None) -> None:
    assert parse_quantity(text, unit) == value


def test_references_are_looked_up_beside_then_given_then_in_the_catalogue(tmp_path: Path) -> None:
    write(tmp_path, "mine.toml", CPU)
    path = write(tmp_path, "box.toml", SERVER)
    server = hardware.load_server(path)
    assert (server.cpu.name, server.memory) == ("mine", hardware.memory("ddr4-t1"))

    other = tmp_path / "other"
    other.mkdir()
    given = write(other, "given.toml", CPU.replace("cores = 8", "cores = 12"))
    assert hardware.load_server(path, files=[given]).cpu.cores == 12

    by_path = write(tmp_path, "by-path.toml", SERVER.replace('"mine"', '"other/given.toml"'))
    assert hardware.load_server(by_path).cpu.cores == 12


def test_a_fleet_of_user_files(tmp_path: Path) -> None:
    write(tmp_path, "mine.toml", CPU)
    write(tmp_path, "box.toml", SERVER)
    path = write(
        tmp_path,
        "fleet.toml",
        """\
schema = "hercules_fast.fleet/1"
name = "two"
[stock]
box = 3
T2 = 4
[[workloads]]
name = "a"
model = "ncf"
slas = [{ percentile = 99, latency_ms = "0.01s" }]
[[workloads]]
name = "b"
model = "wnd"
rows_scale = 2
sizes = "mlperf"
[sources]
"stock, workloads" = "user: me"
""",
    )
    fleet = fleets.load_fleet(path)
    assert fleet.stock == {"box": 3, "T2": 4}
    assert fleet.servers[0].cpu.cores == 8
    assert [str(w.slas[0]) for w in fleet.workloads] == ["p99 <= 10 ms", "p95 <= 25 ms"]
    assert fleet.workloads[1].model.label == "rows x2, scaled"
    assert check([path, tmp_path / "box.toml", tmp_path / "mine.toml"]) == [
        (path, ()),
        (tmp_path / "box.toml", ()),
        (tmp_path / "mine.toml", ()),
    ]


def test_two_files_of_one_name_are_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, "box.toml", SERVER)
    first = write(tmp_path, "a.toml", CPU)
    second = write(tmp_path, "b.toml", CPU.replace('"mine"', '"MINE"'))
    message = faults_of(path)["cpu"]
    assert "'mine' is the name of 2 cpu files: a.toml, b.toml; allowed is one" in message
    with pytest.raises(ConfigError, match=r"a\.toml, .*b\.toml"):
        hardware.load_server(path, files=[first, second])
    assert hardware.load_server(path, files=[first, first]).cpu.cores == 8
    path.write_text(SERVER.replace('"mine"', '"b.toml"'))
    assert hardware.load_server(path).cpu.name == "MINE"


def test_checked_folders_keep_to_their_own_files(tmp_path: Path) -> None:
    """The same name in two folders is no conflict: each file means the one beside it, as when it is loaded."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write(folder, "box.toml", SERVER)
        write(folder, "cpu.toml", CPU)
    assert [faults for _, faults in check(sorted(tmp_path.rglob("*.toml")))] == [()] * 4


LOCAL_FLEET = """\
schema = "hercules_fast.fleet/1"
name = "mine"
label = "ours"
[stock]
T1 = 3
[[workloads]]
name = "a"
model = "ncf"
[sources]
"stock, workloads" = "user: me"
"""


def test_local_files_that_shadow_the_catalogue_are_visible(tmp_path: Path) -> None:
    path = write(tmp_path, "fleet.toml", LOCAL_FLEET)
    fleet = fleets.load_fleet(path)
    assert (fleet.label, fleets.LOCAL_FILES in fleet.sources) == ("ours", False)
    write(tmp_path, "server.toml", SERVER.replace('"box"', '"T1"'))
    write(tmp_path, "mine.toml", CPU)
    write(tmp_path, "memory.toml", (PACKAGE / "hardware/catalog/memory/ddr4-t1.toml").read_text())
    fleet = fleets.load_fleet(path)
    assert fleet.servers[0].cpu.name == "mine"
    shadows = "in place of the catalogue's: memory ddr4-t1 (memory.toml), server T1 (server.toml)"
    assert fleet.label == f"ours; {shadows}"
    assert fleet.sources["local files"] == f"user: {shadows}"


def test_names_beside_the_file_are_suggested(tmp_path: Path) -> None:
    write(tmp_path, "cpu.toml", CPU)
    path = write(tmp_path, "box.toml", SERVER.replace('"mine"', '"mime"'))
    message = faults_of(path)["cpu"]
    assert "did you mean 'mine'? (known: " in message
    assert "Xeon" in message


def test_all_faults_of_a_file_at_once_with_their_lines(tmp_path: Path) -> None:
    text = CPU.replace("cores = 8", "cores = 0").replace("tdp_w = 65", 'tdp_w = "65 horses"\ntpd_w = 3')
    text = text.replace("llc_mb = 16\n", "").replace("idle_fraction = 0.3", "idle_fraction = nan")
    text = text.replace("l2_kb = 1024", "l2_kb = true").replace('"user: guessed"', '"trust me"')
    path = write(tmp_path, "bad.toml", text)
    with pytest.raises(ConfigError) as caught:
        hardware.load_cpu(path)
    faults = {fault.path: fault.message for fault in caught.value.faults}
    assert "finite >= 1" in faults["cores"]
    assert faults["cores"].endswith("(line 3)")
    assert "one of ns" not in faults["tdp_w"]
    assert "mW, W, kW" in faults["tdp_w"]
    assert "did you mean 'tdp_w'" in faults["tpd_w"]
    assert faults["llc_mb"] == "missing"
    assert "nan is outside" in faults["idle_fraction"]
    assert "is True; allowed is a number > 0" in faults["l2_kb"]
    assert "a mark among stated, published" in faults["sources.gemm_efficiency"]
    assert str(caught.value).startswith(f"{path}: ")


def test_figures_need_sources(tmp_path: Path) -> None:
    text = CPU.replace("cores, frequency_ghz, simd", "frequency_ghz, simd").replace("llc_core_gb_s, gemm", "gemm")
    text += 'color = "user: blue"\n'
    assert faults_of(write(tmp_path, "cpu.toml", text)).keys() == {"cores", "llc_core_gb_s", "sources.color"}


MODEL = """\
schema = "hercules_fast.model/1"
name = "m"
family = "mine"
label = "mine"
dense_input_dim = 16
[[tables]]
count = 1
rows = 1000
dim = 16
pooling = 2
[[stages]]
name = "mlp"
kind = "mlp"
dims = [16, 8]
[[latency_targets]]
percentile = 95
latency_ms = 10
status = "assumed"
source = "me"
[sources]
"dense_input_dim, tables, stages" = "user: me"
"""


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("rows = 1000", "rows = 0", "tables[0].rows", "0 is outside what is allowed"),
        ("rows = 1000", "rows = 1.5", "tables[0].rows", "is 1.5; allowed is a whole number >= 1 and <= 1e+12 (line "),
        ("rows = 1000", 'rows = "many"', "tables[0].rows", "is 'many'; allowed is a whole number >= 1"),
        ("rows = 1000", "row = 1000", "tables[0].row", "did you mean 'rows'"),
        ('kind = "mlp"', 'kind = "mpl"', "stages[0].kind", "did you mean 'mlp'"),
        ("dims = [16, 8]", "dims = [16, 8]\nrank = 4", "stages[0].rank", "does not apply to kind = 'mlp'"),
        ("dims = [16, 8]", "", "stages[0].dims", "missing; kind = 'mlp' needs it"),
        ("dims = [16, 8]", "dims = [16]", "stages[0].dims", "at least an input and an output width"),
        ("dims = [16, 8]", "dims = []", "stages[0].dims", "has 0 widths; allowed is two or more"),
        ("dims = [16, 8]", "dims = [16, -8]", "stages[0].dims[1]", "-8 is outside"),
        ("percentile = 95", "percentile = 100", "latency_targets[0].percentile", ">= 1 and < 100"),
        ("percentile = 95", "percentile = 0.99", "latency_targets[0].percentile", "in percent; did you mean 99?"),
        ("latency_ms = 10", "latency_ms = 1.1e7", "latency_targets[0].latency_ms", "<= 1e+07"),
        ('name = "m"', 'name = " "', "name", "not blank"),
        ('name = "m"', 'name = "a\\u001bb"', "name", "without control characters"),
        ('name = "m"', 'name = "a,b"', "name", "without comma"),
        ('name = "m"', 'name = "Timestamp"', "name", "any other name"),
        ("latency_ms = 10", "latency_ms = inf", "latency_targets[0].latency_ms", "inf is outside"),
        (
            'status = "assumed"',
            'status = "certain"',
            "latency_targets[0].status",
            "allowed is one of stated, published, inferred, assumed, user",
        ),
        ("dense_input_dim = 16", "dense_input_dim = 9223372036854775808", "dense_input_dim", "64 bits"),
        ("model/1", "modle/1", "schema", "did you mean 'hercules_fast.model/1'"),
    ],
)
def test_faults_of_a_model(tmp_path: Path, old: str, new: str, path: str, message: str) -> None:
    assert old in MODEL
    assert faults_of(write(tmp_path, "good.toml", MODEL)) == {}
    faults = faults_of(write(tmp_path, "bad.toml", MODEL.replace(old, new)))
    assert message in faults[path], faults


WORKLOAD = """\
schema = "hercules_fast.workload/1"
name = "w"
model = "ncf"
slas = [{ percentile = 99, latency_ms = 5 }, { percentile = 95, latency_ms = 5 }]
[sources]
slas = "user: me"
"""


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ('"w"', '""', "name", "not blank"),
        ('"w"', '"a\\nb"', "name", "without control characters"),
        ('"w"', '"a,b"', "name", "without comma"),
        ('"w"', '"timestamp"', "name", "any other name"),
        ("percentile = 95", "percentile = 99.0", "slas[1]", "is p99 <= 5 ms, as slas[0]; allowed is each promise once"),
        ("percentile = 99", "percentile = 0.99", "slas[0].percentile", "did you mean 99?"),
        (
            "slas = [{ percentile = 99, latency_ms = 5 }, { percentile = 95, latency_ms = 5 }]",
            "slas = []",
            "slas",
            "is []",
        ),
    ],
)
def test_faults_of_a_workload(tmp_path: Path, old: str, new: str, path: str, message: str) -> None:
    assert old in WORKLOAD
    assert faults_of(write(tmp_path, "good.toml", WORKLOAD)) == {}
    faults = faults_of(write(tmp_path, "bad.toml", WORKLOAD.replace(old, new)))
    assert message in faults[path], faults
    alone = tmp_path / "alone"
    alone.mkdir()
    entry = "\n".join(WORKLOAD.replace(old, new).splitlines()[1:4])
    fleet = LOCAL_FLEET.replace('name = "a"\nmodel = "ncf"', entry)
    faults = faults_of(write(alone, "fleet.toml", fleet))
    assert message in faults[f"workloads[0].{path}"].replace("workloads[0].", ""), faults


@pytest.mark.parametrize(
    ("template", "old", "new", "path"),
    [
        (SERVER, '"box"', '"a,b"', "name"),
        (SERVER, '"box"', '"timestamp"', "name"),
        (CPU, '"mine"', '""', "name"),
        (CPU, "cores = 8", "cores = 4097", "cores"),
        (CPU, '"2500MHz"', '"101GHz"', "frequency_ghz"),
        (CPU, "simd_frequency_ghz = 2.0", "simd_frequency_ghz = 2000", "simd_frequency_ghz"),
    ],
)
def test_faults_of_hardware(tmp_path: Path, template: str, old: str, new: str, path: str) -> None:
    assert old in template
    write(tmp_path, "cpu.toml", CPU)
    assert faults_of(write(tmp_path, "bad.toml", template.replace(old, new))).keys() == {path}


SIZES = """\
schema = "hercules_fast.sizes/1"
name = "s"
max_items = 100
[[components]]
kind = "empirical"
weight = 1
values = [1, 2]
probabilities = [0.5, 0.5]
[sources]
"max_items, components" = "user: me"
"""


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("weight = 1", "weight = 0.9", "components", "weights sum to 0.9"),
        ("[0.5, 0.5]", "[0.5, 0.4]", "components[0].probabilities", "sum to 0.9"),
        ("[0.5, 0.5]", "[1.0]", "components[0].probabilities", "1 probabilities for 2 values"),
        ("[1, 2]", "[2, 1]", "components[0].values", "must increase"),
        ("weight = 1\n", "weight = 1\nmu = 3\n", "components[0].mu", "does not apply"),
        ("weight = 1\n", "weight = 1\nkeep = [5, 4]\nredraw = [1, 2]\n", "components[0].keep", "5 is above 4"),
        ("weight = 1\n", "weight = 1\nkeep = [1, 2]\n", "components[0].keep", "go together"),
        ("weight = 1\n", "weight = 1\nkeep = [1, 2, 3]\n", "components[0].keep", "at most 2"),
    ],
)
def test_faults_of_a_size_law(tmp_path: Path, old: str, new: str, path: str, message: str) -> None:
    assert faults_of(write(tmp_path, "good.toml", SIZES)) == {}
    faults = faults_of(write(tmp_path, "bad.toml", SIZES.replace(old, new)))
    assert any(key.startswith(path) and message in text for key, text in faults.items()), faults


def test_nmp_fields_belong_to_nmp(tmp_path: Path) -> None:
    text = (PACKAGE / "hardware/catalog/memory/nmp-x2.toml").read_text()
    faults = faults_of(write(tmp_path, "plain.toml", text.replace('"nmp"', '"ddr4"', 1)))
    assert faults.keys() == {"nmp_mode", "nmp_packet", "nmp_issue_ns"}


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        (
            "ranks_per_dimm = 2",
            "ranks_per_dimm = 3",
            "ranks_per_dimm",
            "3 ranks on a channel; allowed is a power of two",
        ),
        ("capacity_gb = 128", "capacity_gb = 256", "capacity_gb", "is 256; 8 ranks of DDR4-2400R-x4 hold 137.4"),
        ('"DDR4-2400R-x4"', '"DDR4-2400-x4"', "standard", "did you mean 'DDR4-2400R-x4'"),
        ('nmp_mode = "nmp"', 'nmp_mode = "row-split"', "nmp_mode", "allowed is one of nmp, column-split"),
        ("nmp_packet = 640", "nmp_packet = -1", "nmp_packet", "-1 is outside what is allowed"),
    ],
)
def test_faults_of_a_memory(tmp_path: Path, old: str, new: str, path: str, message: str) -> None:
    text = (PACKAGE / "hardware/catalog/memory/nmp-x2.toml").read_text()
    assert faults_of(write(tmp_path, "good.toml", text)) == {}
    faults = faults_of(write(tmp_path, "bad.toml", text.replace(old, new)))
    assert message in faults[path], faults


def test_a_memory_of_a_standard_of_ones_own(tmp_path: Path) -> None:
    """A standard beside the memory's file stands in for the catalogue's; the server carries it."""
    standard = (PACKAGE / "memory/catalog/dram/ddr4-2400r-x4.toml").read_text()
    write(
        tmp_path, "slow.toml", standard.replace('"DDR4-2400R-x4"', '"slow"').replace("tck_ns = 0.833", "tck_ns = 1.666")
    )
    memory = (PACKAGE / "hardware/catalog/memory/ddr4-t2.toml").read_text().replace('"DDR4-2400R-x4"', '"slow"')
    found = hardware.load_memory(write(tmp_path, "memory.toml", memory))
    assert found.standard.tck_ns == 1.666 and found.name == "ddr4-t2"


def test_faults_of_references(tmp_path: Path) -> None:
    path = write(tmp_path, "box.toml", SERVER)
    assert "unknown cpu 'mine'" in faults_of(path)["cpu"]
    write(tmp_path, "mine.toml", CPU.replace("cores = 8", "cores = -8"))
    assert "'mine' has faults of its own: cores: -8" in faults_of(path)["cpu"]
    write(tmp_path, "mine.toml", "cores = [[")
    assert "could not read mine.toml" in faults_of(path)["cpu"]
    faults = faults_of(write(tmp_path, "gone.toml", SERVER.replace('"mine"', '"gone/cpu.toml"')))
    assert "cannot read" in faults["cpu"]


def test_fleet_repeats_and_missing_slas(tmp_path: Path) -> None:
    before, _, after = MODEL.partition("[[latency_targets]]")
    without_targets = (
        before.replace("[[tables]]", "latency_targets = []\n[[tables]]") + after[after.index("[sources]") :]
    )
    write(tmp_path, "m.toml", without_targets)
    path = write(
        tmp_path,
        "fleet.toml",
        """\
schema = "hercules_fast.fleet/1"
name = "two"
stock = { T1 = 1, T2 = -1 }
[[workloads]]
name = "a"
model = "m"
[[workloads]]
name = "A"
model = "ncf"
rows_scale = 0
[sources]
"stock, workloads" = "user: me"
""",
    )
    faults = faults_of(path)
    assert faults.keys() == {"stock.T2", "workloads[1].name", "workloads[1].rows_scale"}
    path.write_text(path.read_text().replace("-1", "1").replace('"A"', '"b"').replace("rows_scale = 0", ""))
    assert "no latency target" in faults_of(path)["workloads[0].slas"]
    slas = "slas = [{ percentile = 100, latency_ms = -1 }, { percentile = 'p', latency_ms = 5 }]"
    path.write_text(path.read_text().replace('model = "m"', f'model = "m"\n{slas}').replace("T2 = 1", "T2 = -1"))
    assert faults_of(path).keys() == {
        "stock.T2",
        "workloads[0].slas[0].percentile",
        "workloads[0].slas[0].latency_ms",
        "workloads[0].slas[1].percentile",
    }


# --- hostile files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xfe",
        b"a = [" * 100_000,
        b"a = " + b"[" * 60 + b"]" * 60 + b"\n" + b"b = " + b"[" * 70 + b"]" * 70,
        b".".join([b"a"] * 100_000) + b" = 1",
        b"[" + b".".join([b"a"] * 100_000) + b"]",
        b"a = {" + b".".join([b"a"] * 100_000) + b" = 1}",
        b"a = " + b"9" * 5_000,
        b"a = 0x" + b"f" * 5_000,
        b"schema = 1979-05-27T07:32:00Z",
        b"schema = 'hercules_fast.cpu/1'\ncores = 1979-05-27",
        b"schema = 'hercules_fast.cpu/1'\nname = []\nsources = 3",
        b"schema = 'hercules_fast.fleet/1'\nstock = [1]\nworkloads = {a = 1}",
        b"schema = 'hercules_fast.load/1'\nstart = '0001-01-01T00:00:00+23:59'\ninterval_s = 1e308",
        b"",
        b"\0",
    ],
    ids=range(15),
)
def test_hostile_files_are_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(raw)
    ((_, faults),) = check([path])
    assert faults
    assert all(isinstance(fault, Fault) for fault in faults)


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "cpu.toml"
    path.write_bytes(b"\xef\xbb\xbf" + CPU.encode())
    assert hardware.load_cpu(path).cores == 8
    path.write_bytes(b"\xef\xbb\xbf" + b"a = 1\nb = '\xff'")
    assert faults_of(path)[""] == "not UTF-8: byte 0xff on line 2"


def test_the_type_of_stock_is_told_with_its_range(tmp_path: Path) -> None:
    path = write(tmp_path, "fleet.toml", LOCAL_FLEET.replace("T1 = 3", "T1 = 64.5"))
    assert "is 64.5; allowed is a whole number >= 0 and <= 1e+06" in faults_of(path)["stock.T1"]


def test_latency_targets_of_users(tmp_path: Path) -> None:
    path = write(tmp_path, "m.toml", MODEL.replace('status = "assumed"', 'status = "user"'))
    assert models.load_model(path).latency_targets[0].status == "user"


def test_dates_are_text(tmp_path: Path) -> None:
    text = SIZES.replace('"s"', "1979-05-27")
    assert "write it as text in quotes" in faults_of(write(tmp_path, "date.toml", text))["name"]


def test_large_and_absent_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hercules_fast.descriptors.toml.MAX_BYTES", 100)
    with pytest.raises(ConfigError, match="larger than 100 bytes"):
        hardware.load_cpu(write(tmp_path, "cpu.toml", CPU))
    for absent in (tmp_path / "absent.toml", tmp_path, "a\0b"):
        with pytest.raises(MissingFileError, match="cannot read"):
            hardware.load_cpu(absent)
        assert issubclass(MissingFileError, FileNotFoundError)


def test_the_line_of_a_fault_in_an_array_of_tables(tmp_path: Path) -> None:
    text = MODEL.replace("[[stages]]", "[[tables]]\ncount = 1\nrows = -5\ndim = 16\npooling = 2\n[[stages]]")
    fault = faults_of(write(tmp_path, "m.toml", text))["tables[1].rows"]
    assert fault.endswith(f"(line {text[: text.index('rows = -5')].count(chr(10)) + 1})")


TEMPLATES = [CPU, SERVER, MODEL, SIZES, (PACKAGE / "catalog/fleet/zoo10.toml").read_text()]
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


def toml_of(item: object) -> str:
    if item is None:
        return "1979-05-27"
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, dict):
        return "{" + ", ".join(f"{k} = {toml_of(v)}" for k, v in item.items()) + "}"
    if isinstance(item, list):
        return "[" + ", ".join(map(toml_of, item)) + "]"
    if isinstance(item, str):
        return '"' + re.sub(r"[^ -~]|[\"\\]", "?", item) + '"'
    return repr(item)


@given(st.sampled_from(TEMPLATES), st.integers(0, 60), value, st.booleans())
def test_any_wrong_value_ends_in_a_fault_or_a_descriptor(
    tmp_path_factory: pytest.TempPathFactory, template: str, line: int, item: object, drop: bool
) -> None:
    lines = template.splitlines()
    line %= len(lines)
    key, equals, _ = lines[line].partition("=")
    lines[line] = "" if drop else f"{key}= {toml_of(item)}" if equals else toml_of(item)
    check_never_raises(tmp_path_factory.getbasetemp() / "fuzz-values.toml", "\n".join(lines).encode())


@given(st.sampled_from(TEMPLATES), st.integers(0, 2000), st.binary(max_size=6))
def test_any_bytes_end_in_a_fault_or_a_descriptor(
    tmp_path_factory: pytest.TempPathFactory, template: str, at: int, extra: bytes
) -> None:
    raw = template.encode()
    at %= len(raw)
    check_never_raises(tmp_path_factory.getbasetemp() / "fuzz-bytes.toml", raw[:at] + extra + raw[at + len(extra) :])


def check_never_raises(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    ((_, faults),) = check([path])
    for kind in kinds().values():
        try:
            load(path, kind)
        except (ConfigError, MissingFileError) as error:
            assert str(error)
        else:
            assert not faults


# --- Python objects and schemas ---------------------------------------------------------------------------------------


def test_catalogue_objects_pass_the_rules_of_files() -> None:
    for name in models.model_names():
        validate(kinds()["model"], models.model(name))
    for name in hardware.gpu_names():
        validate(kinds()["gpu"], hardware.gpu(name))
    for name in traffic.arrivals_names():
        validate(kinds()["arrivals"], traffic.arrivals(name))
    with pytest.raises(ConfigError, match="Model is not a Cpu"):
        validate(kinds()["cpu"], models.model("ncf"))


def test_json_schemas() -> None:
    for name in kinds():
        schema = json_schema(name)
        assert schema["properties"]["schema"] == {"const": f"hercules_fast.{name}/1"}
        assert schema["additionalProperties"] is False
    assert json_schema("cpu")["properties"]["frequency_ghz"]["type"] == ["number", "string"]
    with pytest.raises(UnknownNameError, match="did you mean 'server'"):
        json_schema("servers")
    assert issubclass(UnknownNameError, HerculesError)
