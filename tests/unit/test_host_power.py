"""Energy counters: made-up RAPL zones, a made-up NVML, and words for what is not there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hercules_fast as hf
from hercules_fast.host import energy_meter, power_sources
from tests.small_hosts import write_files

POWERCAP = "sys/class/powercap"
ZONES = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl:1": "psys"}


def rapl(root: Path, zones: dict[str, str] = ZONES) -> Path:
    for zone, name in zones.items():
        folder = f"{POWERCAP}/{zone}"
        write_files(root, {f"{folder}/name": f"{name}\n", f"{folder}/max_energy_range_uj": "262143328850\n"})
        write_files(root, {f"{folder}/energy_uj": "1000000\n"})
    return root


def set_uj(root: Path, zone: str, value: int) -> None:
    (root / POWERCAP / zone / "energy_uj").write_text(f"{value}\n")


@pytest.fixture(autouse=True)
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it fails


class NVMLError(Exception):
    pass


def fake_nvml(monkeypatch: pytest.MonkeyPatch, energy_mj: list[Any], init: Exception | None = None) -> None:
    """A pynvml with a card for each entry: its counter, or the error that reading it raises."""

    def start() -> None:
        if init is not None:
            raise init

    def read(card: int) -> int:
        if isinstance(energy_mj[card], Exception):
            raise energy_mj[card]
        return int(energy_mj[card])

    module = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=start,
        nvmlDeviceGetCount=lambda: len(energy_mj),
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=read,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)


def test_packages_and_dram_are_counted_from_the_start_and_through_a_wrap(tmp_path: Path) -> None:
    rapl(tmp_path, {**ZONES, "intel-rapl:2": "package-1", "intel-rapl-mmio:0": "package-0"})
    meter = energy_meter(tmp_path)
    assert meter is not None
    assert (meter.source, meter.parts) == ("RAPL", ("package-0", "dram-0", "package-1"))
    assert meter.read_j() == {"package-0": 0, "dram-0": 0, "package-1": 0}
    set_uj(tmp_path, "intel-rapl:0", 3_500_000)
    set_uj(tmp_path, "intel-rapl:0:1", 1_250_000)
    assert meter.read_j() == {"package-0": 2.5, "dram-0": 0.25, "package-1": 0}
    set_uj(tmp_path, "intel-rapl:0", 500_000)  # 262143.328850 J after 0, it began again
    assert meter.read_j()["package-0"] == pytest.approx(262_143.328850 - 1.0 + 0.5, abs=1e-9)
    set_uj(tmp_path, "intel-rapl:0", 600_000)
    assert meter.read_j()["package-0"] == pytest.approx(262_143.328850 - 1.0 + 0.6, abs=1e-9)
    (tmp_path / POWERCAP / "intel-rapl:0/energy_uj").unlink()
    with pytest.raises(OSError, match="energy_uj"):
        meter.read_j()


def test_nothing_found_is_said(tmp_path: Path) -> None:
    assert energy_meter(tmp_path) is None
    found = {source.name: source for source in power_sources(tmp_path)}
    assert list(found) == ["RAPL", "NVML"]
    assert found["RAPL"].words == f"not found: no package in {tmp_path / POWERCAP}"
    assert found["NVML"].words == "not found: pynvml is not installed (pip install 'hercules-fast[gpu]')"
    assert found["RAPL"].parts == () and str(found["NVML"]).startswith("NVML: not found")


def test_counters_that_may_not_be_read_are_found_but_not_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rapl(tmp_path, {"intel-rapl:0": "package-0"})
    plain = Path.read_text

    def refuse(path: Path, *rest: Any, **options: Any) -> str:
        if path.name == "energy_uj":  # mode 0400 and owned by root, but the tests may run as root
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *rest, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert energy_meter(tmp_path) is None
    zone = tmp_path / POWERCAP / "intel-rapl:0/energy_uj"
    assert power_sources(tmp_path)[0].words == f"found but not readable: package-0 (no permission to read {zone})"


def test_a_zone_with_nonsense_is_left_out_and_named(tmp_path: Path) -> None:
    rapl(tmp_path)
    (tmp_path / POWERCAP / "intel-rapl:0:1/energy_uj").write_text("many\n")
    source = power_sources(tmp_path)[0]
    assert source.parts == ("package-0",)
    assert source.words.startswith("counts package-0, but not dram-0 (invalid literal")


def test_cards_are_counted_beside_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy_mj: list[Any] = [5_000, NVMLError("Not Supported")]
    fake_nvml(monkeypatch, energy_mj)
    assert power_sources(tmp_path)[1].words == "counts gpu-0, but not gpu-1 (NVML: Not Supported)"
    meter = energy_meter(tmp_path)
    assert meter is not None and meter.source == "NVML"
    energy_mj[0] = 7_500
    assert meter.read_j() == {"gpu-0": 2.5}
    both = energy_meter(rapl(tmp_path))
    assert both is not None and both.source == "RAPL and NVML"
    assert both.parts == ("package-0", "dram-0", "gpu-0")


@pytest.mark.parametrize(
    ("energy_mj", "init", "words"),
    [
        ([], None, "not found: no card"),
        ([NVMLError("Not Supported")], None, "found but not readable: gpu-0 (NVML: Not Supported)"),
        ([1], NVMLError("Driver Not Loaded"), "not found: Driver Not Loaded"),
    ],
)
def test_an_nvml_without_counters_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, energy_mj: list[Any], init: Exception | None, words: str
) -> None:
    fake_nvml(monkeypatch, energy_mj, init)
    source = power_sources(tmp_path)[1]
    assert source.parts == ()
    assert source.words == words
    assert energy_meter(tmp_path) is None


def test_this_machine_answers() -> None:
    meter = hf.host.energy_meter()
    parts = [part for source in hf.host.power_sources() for part in source.parts]
    assert parts == ([] if meter is None else list(meter.parts))
