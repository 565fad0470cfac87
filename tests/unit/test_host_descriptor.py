"""This machine as a server type: figures against the service-time model that reads them, marks, files, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import hercules_fast as hf
from hercules_fast import _core, hardware
from hercules_fast.descriptors import check
from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.host import Noise, save_descriptors
from hercules_fast.measure import descriptor
from hercules_fast.models import Model, Stage, TableGroup
from hercules_fast.serving import lone_seconds
from tests.small_hosts import memory_speed

THREADS = _core.capabilities()["threads_used"]
LAYER_S = {descriptor.NARROW: 3e-6, descriptor.STREAMED: 60e-6, descriptor.WIDE: 3e-3}
QUIET = Noise((0,), 0.5, (0.0,), (10.0,), None)


@pytest.fixture
def given_times(monkeypatch: pytest.MonkeyPatch) -> dict[int, float | None]:
    """Seconds of a layer by width, instead of measured ones; a quiet machine with a clock of 4 GHz and no RAPL."""
    times: dict[int, float | None] = {**LAYER_S}
    monkeypatch.setattr(descriptor._Dense, "_layer_s", lambda _, width, *__: times[width])
    monkeypatch.setattr(descriptor, "noise_probe", lambda: QUIET)
    monkeypatch.setattr(descriptor, "package_limit_w", lambda: None)
    monkeypatch.setattr(_core, "clock_ghz", lambda _: 4.0)
    return times


def describe(gb_s: Mapping[int, float] | None = None, **options: Any) -> hardware.Server:
    limits = memory_speed(gb_s or {1: 9.0, THREADS: 14.0})
    return hf.measure.server_descriptor(**{"limits": limits, "backend": "numpy", **options})


def tower(width: int, layers: int) -> Model:
    return Model(
        name="tower",
        family="probe",
        label="for tests",
        dense_input_dim=width,
        tables=(TableGroup(count=1, rows=1, dim=4, pooling=1),),
        stages=(Stage(name="layers", kind="mlp", dims=(width,) * (layers + 1)),),
        latency_targets=(),
    )


@pytest.mark.parametrize(
    ("width", "batch", "tolerance"),
    [(descriptor.NARROW, 1, 0.02), (descriptor.STREAMED, 1, 0.02), (descriptor.WIDE, 256, 1e-3)],
)
def test_the_model_tells_the_times_that_the_figures_come_from(
    given_times: dict[int, float | None], width: int, batch: int, tolerance: float
) -> None:
    """What a layer more takes by the service-time model is what was measured."""
    server = describe()
    if not server.cpu.sources["llc_core_gb_s"].startswith("measured"):
        pytest.skip("the caches of this machine are unknown")
    deep, shallow = (lone_seconds(server, tower(width, layers), [batch])[0] for layers in (12, 4))
    assert (deep - shallow) / 8 == pytest.approx(LAYER_S[width], rel=tolerance)


def test_measured_figures_are_marked_and_noise_is_said(
    given_times: dict[int, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = describe().cpu
    assert cpu.gather_core_gb_s == 9.0
    assert cpu.sources["gather_core_gb_s"] == (
        "measured: random rows of 256 bytes by one thread, best of many prefetches"
    )
    assert cpu.operator_overhead_us == 1.5 and "numpy" in cpu.sources["operator_overhead_us"]
    assert cpu.simd_frequency_ghz == 4.0
    assert cpu.sources["tdp_w"].startswith("assumed: the 125 W of Xeon-Gold-6138, in proportion to cores")
    assert cpu.cores == min(hf.host.usable_cores().count, cpu.cores)
    noisy = Noise((0,), 0.5, (0.25,), (900.0,), None)
    monkeypatch.setattr(descriptor, "noise_probe", lambda: noisy)
    server = describe()
    for field in ("gather_core_gb_s", "operator_overhead_us", "gemm_efficiency"):
        assert server.cpu.sources[field].endswith("; noisy, up to 25% of the time was lost to others")
    assert server.memory.sources["channels"].endswith("; noisy, up to 25% of the time was lost to others")


def test_what_noise_drowned_is_assumed(given_times: dict[int, float | None]) -> None:
    given_times.update(dict.fromkeys(LAYER_S, None))
    cpu, like = describe().cpu, hardware.cpu("Xeon-Gold-6138")
    for field in ("operator_overhead_us", "llc_core_gb_s", "gemm_efficiency"):
        assert getattr(cpu, field) == getattr(like, field)
        assert cpu.sources[field].startswith("assumed: as Xeon-Gold-6138")


@pytest.mark.parametrize("width", [descriptor.STREAMED, descriptor.WIDE])
def test_layers_that_take_less_than_their_dispatch_tell_nothing(
    given_times: dict[int, float | None], width: int
) -> None:
    given_times[width] = LAYER_S[descriptor.NARROW]
    cpu, like = describe().cpu, hardware.cpu("Xeon-Gold-6138")
    field = "llc_core_gb_s" if width == descriptor.STREAMED else "gemm_efficiency"
    assert getattr(cpu, field) == getattr(like, field) and cpu.sources[field].startswith("assumed: ")


def test_an_efficiency_beyond_the_peak_is_held(given_times: dict[int, float | None]) -> None:
    given_times[descriptor.WIDE] = 2.3e-3
    cpu = describe().cpu
    assert cpu.gemm_efficiency == 1.0 and cpu.sources["gemm_efficiency"].endswith("; held at 1")


@pytest.mark.parametrize("gb_s", [0.5, 14.0, 60.0, 300.0])
def test_channels_are_the_fewest_that_are_fast_enough(given_times: dict[int, float | None], gb_s: float) -> None:
    memory = describe({1: 5.0, THREADS: gb_s} if THREADS > 1 else {1: gb_s}).memory
    rate = descriptor._model_gb_s(memory)
    assert rate >= gb_s
    assert memory.channels * memory.ranks * memory.standard.rank_bytes / 1e9 >= memory.capacity_gb
    if memory.channels > 1:
        assert rate < 3 * gb_s, "half of them would do"


def test_rapl_tells_power_where_it_is_read(
    given_times: dict[int, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meter:
        parts = ("package-0", "dram-0")
        joules = 0.0

        def read_j(self) -> dict[str, float]:
            self.joules += 1.0
            return {"package-0": self.joules, "dram-0": 99 * self.joules}

    monkeypatch.setattr(descriptor, "package_limit_w", lambda: 200.0)
    monkeypatch.setattr(descriptor, "energy_meter", Meter)
    monkeypatch.setattr(descriptor, "IDLE_S", 0.05)  # 1 J in it: 20 W
    cpu = describe().cpu
    assert cpu.tdp_w == 200 and cpu.sources["tdp_w"].startswith("vendor: RAPL")
    assert 0.03 < cpu.idle_fraction <= 0.1 and cpu.sources["idle_fraction"].startswith("measured: RAPL")
    cpu = describe(tdp_w=90).cpu
    assert cpu.tdp_w == 90 and cpu.sources["tdp_w"] == "user: given"


def test_files_are_read_back_and_pass_check(given_times: dict[int, float | None], tmp_path: Path) -> None:
    server = describe(name="ours", standard="DDR5-3200AN", base_w=75)
    files = save_descriptors(tmp_path, [server])
    assert [path.name for path in files] == ["cpu-ours.toml", "memory-ours.toml", "server-ours.toml"]
    assert hardware.load_server(files[-1]) == server
    assert [faults for _, faults in check(files)] == [(), (), ()]
    assert server.memory.standard.name == "DDR5-3200AN" and server.memory.sources["standard"] == "user: given"
    assert server.base_w == 75 and server.sources["base_w"] == "user: given"
    assert lone_seconds(hardware.load_server(files[-1]), hf.models.model("dlrm-rmc1"), [64])[0] > 0


def test_a_real_measurement_gives_figures_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of any machine of our time, however busy: CPU times are measured."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(descriptor, "package_limit_w", lambda: None)
    cpu = describe(seconds=0.02, progress=lambda *at: told.append(at)).cpu
    assert told == [(i, 6) for i in range(1, 7)]
    assert 0.01 < cpu.operator_overhead_us < 200
    assert 0.2 < cpu.frequency_ghz < 10
    assert 0.5 < cpu.llc_core_gb_s < 1000
    assert 0.001 < cpu.gemm_efficiency <= 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"like": "T2-NMPx2"}, InputError, "like: T2-NMPx2 has near-memory processing"),
        ({"like": "T9"}, UnknownNameError, "unknown server 'T9'"),
        ({"standard": "DDR9"}, UnknownNameError, "unknown dram 'DDR9'"),
        ({"tdp_w": 0}, InputError, "tdp_w: is 0; allowed is a number of W"),
        ({"base_w": float("nan")}, InputError, "base_w: is nan"),
        ({"name": "a,b"}, InputError, "name: is 'a,b'; allowed is text that can be printed, without comma"),
        ({"name": " "}, InputError, "name: is ' '"),
    ],
)
def test_odd_arguments_are_refused_before_any_work(
    options: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptor, "noise_probe", lambda: pytest.fail("measured"))
    with pytest.raises(error, match=message):
        describe(**options)
