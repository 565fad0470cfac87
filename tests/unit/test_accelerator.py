"""The accelerator's engine: PyTorch's scores against NumPy's on PyTorch's CPU device, its service table in the search,
and one clear line where PyTorch or the device is missing."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hercules_fast import models
from hercules_fast.errors import InputError
from hercules_fast.measure import Engine
from hercules_fast.measure import accelerator as room
from hercules_fast.measure.accelerator import Accelerator, measure_accelerator
from hercules_fast.models import Model


def torch_or_skip() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed (extra gpu)")


DOT = (
    "--arch-sparse-feature-size=16 --arch-embedding-size=300-300-50 --arch-mlp-bot=13-32-16 --arch-mlp-top=32-1 "
    "--num-indices-per-lookup=4 --num-indices-per-lookup-fixed=True"
)
SMALL = {
    **{name: models.model(name).scaled(1e-4, "few rows") for name in models.model_names()},
    "dot": models.model_from_dlrm_flags(DOT, name="dot"),
    "dot, itself": models.model_from_dlrm_flags(f"{DOT} --arch-interaction-itself", name="dot"),
}
"""The catalogue's models and two with products, with few rows, so that they are quick to make."""


def small(name: str) -> Model:
    return SMALL[name]


# --- where something is missing ---------------------------------------------------------------------------------------


def test_without_pytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"PyTorch is not installed \(pip install 'hercules-fast\[gpu\]'\)$"):
        Accelerator.build(small("wnd"))


def fake_torch(cards: int) -> ModuleType:
    """As much of PyTorch as is asked before anything is placed."""
    fake = ModuleType("torch")
    fake.__version__ = "9.9"  # type: ignore[attr-defined]
    fake.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        is_available=lambda: cards > 0,
        device_count=lambda: cards,
        mem_get_info=lambda device: (10**6, 10**9),
    )
    return fake


@pytest.mark.parametrize(
    ("device", "cards", "words"),
    [
        ("cuda", 0, "PyTorch 9.9 finds no CUDA device on this machine"),
        ("cuda:2", 2, "PyTorch 9.9 finds 2 CUDA devices on this machine"),
        ("tpu", 1, "allowed are 'cuda', 'cuda:0' and so on, or 'cpu'"),
        ("cuda:x", 1, "allowed are 'cuda'"),
    ],
)
def test_without_the_device_it_is_named(device: str, cards: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(cards))
    with pytest.raises(InputError) as error:
        Accelerator.build(small("wnd"), device=device)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_capacity_is_checked_before_anything_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake has 1 MB free and nothing to place tables with: whoever tried would fail otherwise."""
    monkeypatch.setitem(sys.modules, "torch", fake_torch(1))
    with pytest.raises(InputError, match=r"dlrm-rmc1: its tables need 4.10 GB at rows_scale 1; allowed on 'cuda' are"):
        Accelerator.build(models.model("dlrm-rmc1"), rows_scale=1.0)
    torch = sys.modules["torch"]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 40, 1 << 40))
    monkeypatch.setattr(room, "available_memory_bytes", lambda: 10**8)
    with pytest.raises(InputError, match=r"its largest table needs 0.51 GB of the host .* allowed are 0.08 GB"):
        Accelerator.build(models.model("dlrm-rmc1"), rows_scale=1.0)
    for keys, words in (
        ({"max_items": 0}, "max_items: is 0"),
        ({"seed": -1}, "seed: is -1"),
        ({"max_bytes": 0}, "is 0"),
    ):
        with pytest.raises(InputError, match=words):
            Accelerator.build(models.model("dlrm-rmc1"), **keys)


# --- on PyTorch's CPU device ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_scores_are_the_engines(name: str) -> None:
    """Same seed, same rows and weights: on the engine's inputs PyTorch gives NumPy's scores."""
    torch = torch_or_skip()
    accelerator = Accelerator.build(small(name), device="cpu", max_items=64, seed=0)
    engine = Engine.build(small(name), rows_scale=1.0, backend="numpy", max_items=64, seed=0)
    for query, items in ((5, 1), (6, 7)):
        inputs = engine.inputs(query, items)
        right = engine.worker()(query, items)
        indices = [torch.tensor(index) for index in inputs.indices]
        features = None if inputs.dense is None else torch.tensor(inputs.dense)
        with torch.inference_mode():
            scores = accelerator.compute.dense(features, accelerator.compute.pool(indices, items)).numpy()
        assert scores.shape == right.shape
        np.testing.assert_allclose(scores, right, rtol=1e-3, atol=1e-4 * np.abs(right).max())
    assert right.std() > 0


def test_a_worker_answers_alike_whatever_came_before() -> None:
    torch_or_skip()
    accelerator = Accelerator.build(small("dlrm-rmc1"), device="cpu", max_items=32)
    worker, other = accelerator.worker(), accelerator.worker()
    first = worker(1, 32)
    worker(2, 5)
    assert np.array_equal(worker(1, 32), first)
    assert np.array_equal(other(1, 32), first)
    with pytest.raises(InputError, match="stage: is 'model'"):
        accelerator.worker(stage="model")  # type: ignore[arg-type]


def test_rows_are_scaled_to_what_fits() -> None:
    torch_or_skip()
    accelerator = Accelerator.build(models.model("wnd"), device="cpu", max_bytes=10**6, max_items=8)
    assert accelerator.embedding_bytes <= 10**6
    assert 0 < accelerator.rows_scale < 1
    assert accelerator.describe()["rows_scale"] == accelerator.rows_scale


def test_the_table_goes_through_the_search() -> None:
    torch_or_skip()
    import hercules_fast as hf
    from hercules_fast import traffic

    accelerator = Accelerator.build(small("dlrm-rmc1"), device="cpu", max_items=1024)
    seen: list[tuple[int, int]] = []
    keys: dict[str, Any] = {"batches": (64, 1024), "instances": (1,), "seconds": 0.1, "noise_limit": 1.0}
    with pytest.raises(InputError, match="idle_w, tdp_w: not given, and 'cpu' has no energy counter"):
        measure_accelerator(accelerator, **keys)
    found = measure_accelerator(
        accelerator, **keys, workload="rmc1", idle_w=50.0, tdp_w=250.0, progress=lambda *step: seen.append(step)
    )
    assert seen
    table = found.table
    assert table is not None
    assert (table.origin, found.clock, found.energy.origin) == ("measured", "wall", "user")
    assert [(s.name, s.unit) for s in table.stages] == [("gpu", "fused")]
    assert [(v.kind, v.max_instances) for v in table.variants] == [("gpu", 1)]
    assert (np.diff(table.seconds[0, 0], axis=0) >= 0).all()
    assert (table.idle_w, table.tdp_w) == ({"gpu": 50.0}, {"gpu": 250.0})
    assert {p.stage for p in found.points} == {"gpu"}
    walls = {p.batch: p.wall_ms for p in found.points}
    assert table.seconds[0, 0, -1, 0] * 1e3 == pytest.approx(walls[1024], rel=0.5)
    workload = replace(traffic.workload("rmc1"), slas=(hf.Sla(percentile=95.0, latency_ms=5000.0),))
    row = found.search(workload, seed=1).row
    assert row.qps > 0
    assert row.config is not None
    assert row.config.kind == "gpu"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"batches": (0,)}, "batches: has 0"),
        ({"batches": (9,)}, "allowed are whole numbers from 1 to 8"),
        ({"instances": (1.5,)}, "threads: has 1.5"),
        ({"instances": ()}, r"instances: is \(\); allowed are"),
        ({"batches": 8}, "batches: is 8; allowed are"),
        ({"tdp_w": None}, "idle_w, tdp_w: one is given"),
    ],
)
def test_grids_and_watts_are_checked(keys: dict[str, Any], words: str) -> None:
    torch_or_skip()
    accelerator = Accelerator.build(small("ncf"), device="cpu", max_items=8)
    with pytest.raises(InputError, match=words):
        measure_accelerator(accelerator, **{"idle_w": 1.0, "tdp_w": 2.0, **keys})


class Meter:
    """A card whose joules are told by hand."""

    source = "NVML"
    parts = ("gpu-1",)

    def __init__(self) -> None:
        self.joules = 0.0

    def read_j(self) -> dict[str, float]:
        return {"gpu-1": self.joules}


def test_power_is_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter()
    monkeypatch.setattr(room, "energy_meter", lambda: meter)
    assert room._meter(fake_torch(1), "cuda") == (meter, "gpu-1"), "there is no other"
    assert room._meter(fake_torch(1), "cpu")[0] is None
    # CUDA's first card is NVML's third, and its second has no counter.
    monkeypatch.setattr(Meter, "parts", ("package-0", "gpu-0", "gpu-2"))
    torch = fake_torch(2)
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_properties = lambda number: SimpleNamespace(uuid=("c", "b")[number])
    nvml = ModuleType("pynvml")
    nvml.NVMLError = OSError  # type: ignore[attr-defined]
    nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetCount = lambda: 3  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByIndex = lambda k: k  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetUUID = ("GPU-a", b"GPU-b", "GPU-c").__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert room._meter(torch, "cuda") == room._meter(torch, "cuda:0") == (meter, "gpu-2")
    assert room._meter(torch, "cuda:1") == (None, "gpu-1")

    def work() -> None:
        time.sleep(0.02)
        meter.joules += 2.0

    assert 50.0 < room._watts(meter, "gpu-1", work) <= 100.0  # type: ignore[arg-type]


def test_power_is_measured_where_the_card_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a counter of the card, which a fake adds to at each reading."""
    torch_or_skip()
    meter = Meter()
    monkeypatch.setattr(room, "_meter", lambda _, device: (meter, "gpu-1"))
    monkeypatch.setattr(room, "REST_S", 0.01)
    monkeypatch.setattr(room, "BUSY_S", 0.01)
    monkeypatch.setattr(
        room, "_busy", lambda *_: lambda: (time.sleep(0.01), setattr(meter, "joules", meter.joules + 1.0))
    )
    accelerator = Accelerator.build(small("ncf"), device="cpu", max_items=8)
    found = measure_accelerator(accelerator, batches=(1, 8), instances=(1,), seconds=0.01)
    assert found.energy.origin == "measured"
    assert found.energy.source.startswith("NVML (gpu-1)")
    assert found.energy.idle_w == 0.0
    assert 0.0 < found.energy.tdp_w <= 100.0
    assert found.table is not None
    assert found.table.tdp_w["gpu"] == found.energy.tdp_w
