"""Simulations as files: the examples, what a file may say, and every fault of a file at once."""

from __future__ import annotations

from pathlib import Path

import pytest

import hercules_fast as hf
from hercules_fast.descriptors import check
from hercules_fast.errors import ConfigError
from hercules_fast.queueing import load_simulation

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

PLAIN = """
schema = "hercules_fast.simulation/1"
name = "pool"
qps = 100

[[route]]
[[route.station]]
threads = 2
service = { kind = "law", mean_ms = 5 }
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "simulation.toml"
    path.write_text(text)
    return path


def test_the_pipeline_example() -> None:
    found = load_simulation(EXAMPLES / "pipeline.toml")
    sparse, dense = found.system.stations
    assert (sparse.interference, sparse.threads, sparse.speed[:2]) == ("dynamic_rate", 6, (1.0, 0.97))
    assert (dense.name, dense.buffer, dense.service.per_item_s) == ("dense", 4, pytest.approx(15e-6))
    assert sparse.service.noise == hf.Law(kind="lognormal", sigma=0.3)
    assert found.system.routes[0].batch == 64
    assert (found.queries.qps, found.queries.arrivals.kind, found.queries.sizes.name) == (800.0, "poisson", "kairos")
    assert [(sla.percentile, sla.latency_ms) for sla in found.slas] == [(99.0, 40.0)]


def test_the_offload_example() -> None:
    found = load_simulation(EXAMPLES / "offload.toml")
    assert [route.min_size for route in found.system.routes] == [1, 256]
    cpu, accelerator = found.system.stations
    assert cpu.service.seconds[1] == pytest.approx((0.0009, 0.001, 0.0012))
    assert (accelerator.unit, accelerator.max_items, accelerator.max_wait_s) == ("fused", 4096, 0.001)
    assert found.system.capacity == 2000
    assert found.queries.to_core()["switch"] == [[0.0, 0.5], [4.5, 0.0]]


def test_a_file_says_no_more_than_it_must(tmp_path) -> None:
    found = load_simulation(written(tmp_path, PLAIN))
    assert found.system == hf.System.pool(hf.LawService(mean_s=0.005), 2)
    assert found.queries == hf.Queries(qps=100.0)
    assert found.slas == ()


def test_times_may_carry_their_unit(tmp_path) -> None:
    found = load_simulation(written(tmp_path, PLAIN.replace("mean_ms = 5", 'mean_ms = "0.005s"')))
    assert found.system.stations[0].service == hf.LawService(mean_s=0.005)


def test_sizes_are_found_beside_the_file(tmp_path) -> None:
    law = '[[components]]\nkind = "fixed"\nweight = 1.0\nvalue = 3\n[sources]\n"max_items, components" = "user: mine"\n'
    (tmp_path / "three.toml").write_text(f'schema = "hercules_fast.sizes/1"\nname = "three"\nmax_items = 4\n{law}')
    found = load_simulation(written(tmp_path, PLAIN.replace("qps = 100", 'qps = 100\nsizes = "three"')))
    assert found.queries.size_pmf().tolist() == [0.0, 0.0, 1.0, 0.0]


FAULTY = """
schema = "hercules_fast.simulation/1"
name = "all wrong"
qps = -1
sizes = "kairo"
slas = [{ percentile = 0.99, latency_ms = 10 }]

[system]
capacity = 0

[arrivals]
kind = "mmpp"
rates = [0.0]
switch_per_s = [[0.0], [1.0]]

[[route]]
[[route.station]]
threads = 0
service = { kind = "linear", base_ms = -1, noise = { kind = "lognormal", sigma = 0 } }
[[route.station]]
service = { kind = "table", items = [1], times_ms = [[-2.0]] }
slowed_by = 2

[[route]]
min_size = 1
[[route.station]]
buffer = 3
service = { kind = "law", mean_ms = 1, law = { kind = "erlang", shape = 2 } }
[[route.station]]
unit = "fused"
max_wait_ms = -1
service = { kind = "law", mean_ms = 1 }
"""


def test_every_fault_of_a_file_is_told_with_its_place(tmp_path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_simulation(written(tmp_path, FAULTY))
    assert sorted({fault.path for fault in raised.value.faults}) == [
        "arrivals.rates",
        "arrivals.switch_per_s",
        "qps",
        "route[0].station[0].service.base_ms",
        "route[0].station[0].service.noise.sigma",
        "route[0].station[0].threads",
        "route[0].station[1].service.times_ms[0][0]",
        "route[0].station[1].slowed_by",
        "route[1].min_size",
        "route[1].station[0].buffer",
        "route[1].station[0].service.law.k",
        "route[1].station[0].service.law.shape",
        "route[1].station[1].max_queries",
        "route[1].station[1].max_wait_ms",
        "sizes",
        "slas[0].percentile",
        "system.capacity",
    ]
    by_path = {fault.path: fault.message for fault in raised.value.faults}
    assert by_path["qps"].endswith("(line 4)")
    assert "did you mean 'kairos'" in by_path["sizes"]
    assert "did you mean 99?" in by_path["slas[0].percentile"]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("mean_ms = 5", "mean_s = 5", "route[0].station[0].service.mean_s: unknown key; did you mean 'mean_ms'"),
        ("mean_ms = 5", "base_ms = 5", "service.base_ms: does not apply to kind = 'law'"),
        ("threads = 2", 'unit = "fuse"', "route[0].station[0].unit: is 'fuse'; allowed is one of"),
        ("threads = 2", "threads = 2.5", "route[0].station[0].threads: is 2.5"),
        ("[[route]]\n[[route.station]]", "[[route]]\nbatch = 4\n[[station]]", "station: unknown key"),
    ],
)
def test_misspelt_files(tmp_path, before: str, after: str, says: str) -> None:
    path = written(tmp_path, PLAIN.replace(before, after))
    with pytest.raises(ConfigError) as raised:
        load_simulation(path)
    assert says in str(raised.value)


def test_check_knows_the_kind() -> None:
    files = sorted(EXAMPLES.glob("*.toml"))
    assert {"offload.toml", "pipeline.toml"} <= {path.name for path in files}
    assert [faults for _, faults in check(files)] == [()] * len(files)
