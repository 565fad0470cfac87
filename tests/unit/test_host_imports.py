"""Descriptors out of the files of lscpu and nvidia-smi: old and new forms, marks of the figures, all faults at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hercules_fast as hf
from hercules_fast import hardware
from hercules_fast.errors import ConfigError, MissingFileError, UnknownNameError
from hercules_fast.hardware import toml_text
from hercules_fast.host import read_lscpu_json, read_nvidia_smi_csv

FLAGS = "fpu sse2 avx avx2 fma f16c avx512f avx512dq avx512bw avx512vl"


def flat(**changes: str | None) -> list[dict[str, Any]]:
    """What lscpu of util-linux 2.31 writes, with changes by field (underscores for blanks); None: no such field."""
    told = {
        "Architecture": "x86_64",
        "CPU(s)": "80",
        "Thread(s) per core": "2",
        "Core(s) per socket": "20",
        "Socket(s)": "2",
        "Model name": "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz",
        "CPU MHz": "1000.000",
        "CPU max MHz": "3700,0000",
        "L1d cache": "32K",
        "L2 cache": "1024K",
        "L3 cache": "28160K",
        "Flags": FLAGS,
    } | {key.replace("_", " "): text for key, text in changes.items()}
    return [{"field": f"{key}:", "data": text} for key, text in told.items() if text is not None]


def nested() -> list[dict[str, Any]]:
    """The same machine as util-linux 2.38 writes it: fields inside fields, sizes as sums."""
    return [
        {"field": "CPU(s):", "data": "80"},
        {
            "field": "Vendor ID:",
            "data": "GenuineIntel",
            "children": [
                {
                    "field": "Model name:",
                    "data": "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz",
                    "children": [
                        {"field": "Thread(s) per core:", "data": "2"},
                        {"field": "Core(s) per socket:", "data": "20"},
                        {"field": "Socket(s):", "data": "2"},
                        {"field": "Flags:", "data": FLAGS},
                    ],
                }
            ],
        },
        {
            "field": "Caches (sum of all):",
            "data": None,
            "children": [
                {"field": "L2 cache:", "data": "40 MiB (40 instances)"},
                {"field": "L3 cache:", "data": "55 MiB (2 instances)"},
            ],
        },
    ]


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    "fields", [flat(), nested(), flat(L2_cache="40 MiB", L3_cache="55 MiB")], ids=["flat", "nested", "sums"]
)
def test_a_socket_is_read_from_every_form(tmp_path: Path, fields: list[dict[str, Any]]) -> None:
    cpu = read_lscpu_json(write(tmp_path / "lscpu.json", {"lscpu": fields}))
    assert cpu.name == "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz"
    assert (cpu.cores, cpu.frequency_ghz, cpu.fp32_flop_per_cycle) == (20, 2.4, 64)
    assert cpu.l2_kb == 1048.58
    assert cpu.llc_mb == pytest.approx(27.5 * 2**20 / 1e6, rel=1e-5)
    like = hardware.cpu("Xeon-Gold-6138")
    assert cpu.tdp_w == pytest.approx(like.tdp_w * 20 / like.cores, rel=1e-3)
    assert cpu.sources["tdp_w"].startswith(f"assumed: the {like.tdp_w:g} W of Xeon-Gold-6138")
    assert cpu.gemm_efficiency == like.gemm_efficiency
    assert cpu.sources["gemm_efficiency"] == "assumed: as Xeon-Gold-6138 has it, for want of a figure"
    assert cpu.sources["cores"] == "user: lscpu, Core(s) per socket"
    (tmp_path / "cpu.toml").write_text(toml_text(cpu))
    assert hardware.load_cpu(tmp_path / "cpu.toml") == cpu


@pytest.mark.parametrize(
    ("changes", "ghz", "flop"),
    [
        ({"Model_name": "AMD EPYC 7742", "Flags": "avx2 fma"}, 3.7, 32),
        ({"Model_name": "AMD EPYC 7742", "CPU_max_MHz": None, "Flags": "sse2"}, 1.0, 8),
        ({"Model_name": "Neoverse-N1", "CPU_max_MHz": None, "CPU_MHz": None, "Flags": "fp asimd"}, 2.0, 16),
        ({"Model_name": "X @ 3 GHz", "Flags": "avx512f avx512vl avx2 fma"}, 3.0, 32),
    ],
)
def test_clock_and_vectors_come_from_what_is_told(
    tmp_path: Path, changes: dict[str, str | None], ghz: float, flop: float
) -> None:
    cpu = read_lscpu_json(write(tmp_path / "x.json", {"lscpu": flat(**changes)}), name="other")
    assert cpu.name == "other"
    assert (cpu.frequency_ghz, cpu.fp32_flop_per_cycle) == (ghz, flop)


def test_what_is_not_told_is_that_of_the_cpu_named(tmp_path: Path) -> None:
    fields = flat(L2_cache=None, L3_cache="", CPU_MHz="-", CPU_max_MHz=None, Model_name="Y")
    cpu = read_lscpu_json(write(tmp_path / "x.json", {"lscpu": fields}), like="Xeon-D-2191")
    like = hardware.cpu("Xeon-D-2191")
    assert (cpu.l2_kb, cpu.llc_mb, cpu.frequency_ghz) == (like.l2_kb, like.llc_mb, like.frequency_ghz)
    for field in ("l2_kb", "llc_mb", "frequency_ghz"):
        assert cpu.sources[field].startswith("assumed: as Xeon-D-2191")
    with pytest.raises(UnknownNameError, match="unknown cpu 'Xeon-9'"):
        read_lscpu_json(tmp_path / "x.json", like="Xeon-9")


def test_all_faults_of_an_lscpu_file_come_at_once(tmp_path: Path) -> None:
    changes = {"Core(s)_per_socket": "-", "Socket(s)": None, "Model_name": None}
    changes |= {"L2_cache": "big", "L3_cache": "0K", "CPU_max_MHz": "fast"}
    with pytest.raises(ConfigError) as caught:
        read_lscpu_json(write(tmp_path / "x.json", {"lscpu": flat(**changes)}))
    assert [str(fault) for fault in caught.value.faults] == [
        "Core(s) per socket: is '-'; allowed is a whole number from 1 to 9999",
        "Socket(s): missing",
        "Model name: missing; without it, name= must give the CPU a name",
        "CPU max MHz: is 'fast'; allowed is a number of MHz",
        "L2 cache: is 'big'; allowed is a size such as '32 MiB (2 instances)' or '1024K'",
        "L3 cache: is '0K'; allowed is a size such as '32 MiB (2 instances)' or '1024K'",
    ]
    assert caught.value.source == str(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not UTF-8: byte 0xff on line 1"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "lscpu: missing"),
        (b'{"lscpu": 5}', "lscpu: missing"),
        (b'{"lscpu": [5, null, {"field": 3}, {"field": "Socket(s):", "data": []}]}', "Socket\\(s\\): missing"),
        (b" " * (2 << 20), "larger than 1048576 bytes"),
    ],
)
def test_files_that_lscpu_did_not_write_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_lscpu_json(tmp_path / "x.json")
    with pytest.raises(MissingFileError, match="cannot read"):
        read_lscpu_json(tmp_path / "nothing.json")
    with pytest.raises(MissingFileError):
        read_lscpu_json("\0")


CARDS = """\
index, name, memory.total [MiB], power.limit [W], clocks.max.sm [MHz], uuid
0, NVIDIA H200, 143771 MiB, 700.00 W, 1980 MHz, GPU-1
1, NVIDIA H200, 143771 MiB, 700.00 W, 1980 MHz, GPU-2
2, Tesla T4, 15360 MiB, [N/A], [N/A], GPU-3
"""


@pytest.mark.parametrize("units", [True, False])
def test_cards_are_read_with_units_or_without(tmp_path: Path, units: bool) -> None:
    text = CARDS
    if not units:
        for unit in (" MiB,", " W,", " MHz,"):
            text = text.replace(unit, ",")
    (tmp_path / "cards.csv").write_text(text)
    new, old = read_nvidia_smi_csv(tmp_path / "cards.csv")
    assert (new.name, new.tdp_w, new.memory_gb) == ("NVIDIA H200", 700, 150.8)
    assert new.sources["memory_gb"] == "user: nvidia-smi, memory.total, 143771 MiB"
    assert new.sources["fp32_tflop_s"] == ("assumed: as V100 has it, for want of a figure; its clock is up to 1980 MHz")
    assert new.sources["link_gb_s"] == "assumed: as V100 has it, for want of a figure"
    known = hardware.gpu("T4")
    assert (old.name, old.fp32_tflop_s, old.tdp_w) == ("Tesla T4", known.fp32_tflop_s, known.tdp_w)
    assert old.sources["fp32_tflop_s"] == known.sources["fp32_tflop_s"], "a card of the catalogue keeps its sources"
    assert old.memory_gb == 16.11
    for card in (new, old):
        (tmp_path / "gpu.toml").write_text(toml_text(card))
        assert hardware.load_gpu(tmp_path / "gpu.toml") == card


def test_all_faults_of_a_csv_come_at_once(tmp_path: Path) -> None:
    text = (
        "name, memory.total [MiB], power.limit [W]\n\nA, [N/A], 300 W\nB, 16 GB, -5\nC, 1\n, 5, 5\nD, 8, 9\nD, 8, 7\n"
    )
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_nvidia_smi_csv(tmp_path / "x.csv")
    assert [str(fault) for fault in caught.value.faults] == [
        "line 3, memory.total: is '[N/A]'; a card without it cannot be described",
        "line 4, memory.total: is '16 GB'; allowed is a number above 0, perhaps with MiB",
        "line 4, power.limit: is '-5'; allowed is a number above 0, perhaps with W",
        "line 5: has 2 entries; the first line names 3",
        "line 6, name: is ''; allowed is the name of a card",
        "line 8, power.limit: is 7, and 9 on line 7; cards differ",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; the first line names the columns"),
        ("NVIDIA H200, 143771 MiB\n", "line 1, name: no such column.*\n.*line 1, memory.total: no such column"),
        ("name, memory.total, name\n", "line 1, name: stands there 2 times"),
        ("name, memory.total [MiB]\n", "names no card"),
    ],
)
def test_files_that_nvidia_smi_did_not_write_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_nvidia_smi_csv(tmp_path / "x.csv")


@pytest.mark.parametrize("name", hardware.server_names())
def test_every_part_of_the_catalogue_is_written_as_it_is_read(tmp_path: Path, name: str) -> None:
    server = hardware.server(name)
    loaders: list[tuple[Any, Any]] = [
        (server.cpu, hardware.load_cpu),
        (server.memory, hardware.load_memory),
        (server, hardware.load_server),
    ]
    if server.gpu is not None:
        loaders.append((server.gpu, hardware.load_gpu))
    for part, load in loaders:
        (tmp_path / "part.toml").write_text(hf.hardware.toml_text(part))
        assert load(tmp_path / "part.toml") == part


FIELDS = [
    "Core(s) per socket:",
    "Socket(s):",
    "Model name:",
    "CPU MHz:",
    "CPU max MHz:",
    "L2 cache:",
    "L3 cache:",
    "Flags:",
]
DATA = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from(["2", "1 MiB", "9" * 400]))


@given(st.dictionaries(st.sampled_from(FIELDS), DATA))
def test_any_fields_give_a_cpu_that_a_file_can_hold_or_faults(
    tmp_path_factory: pytest.TempPathFactory, told: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    document = {"lscpu": [{"field": field, "data": data} for field, data in told.items()]}
    try:
        cpu = read_lscpu_json(write(folder / "x.json", document))
    except ConfigError as error:
        assert error.faults
    else:
        (folder / "cpu.toml").write_text(toml_text(cpu))
        assert hardware.load_cpu(folder / "cpu.toml") == cpu


@given(st.text(alphabet="0123456789.,-\"'\nabcMiBW[] N/A\0\x7fé", max_size=80))
def test_any_text_gives_cards_that_a_file_can_hold_or_faults(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "x.csv").write_text(f"name, memory.total [MiB], power.limit [W]\n{text}\n")
    try:
        cards = read_nvidia_smi_csv(folder / "x.csv")
    except ConfigError as error:
        assert error.faults
    else:
        for card in cards:
            (folder / "gpu.toml").write_text(toml_text(card))
            assert hardware.load_gpu(folder / "gpu.toml") == card
