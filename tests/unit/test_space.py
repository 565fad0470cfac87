"""The configuration lattice: complete, within its limits, connected to where searches start."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast import fleets, hardware, traffic
from hercules_fast.errors import InputError
from hercules_fast.profiling import Space, space
from hercules_fast.profiling.lattice import DEEPRECSYS_BATCHES, DEEPRECSYS_THRESHOLDS, KINDS, UNBOUNDED
from hercules_fast.serving import fits, service_table
from hercules_fast.serving.service import operator_cores
from hercules_fast.tables import ServiceTable, TableVariant
from tests.unit.test_tables import make_table

ZOO = fleets.fleet("zoo10")
WORKLOADS = (*ZOO.workloads, traffic.workload("ncf"))
PAIRS = [(s, w) for s in ZOO.servers for w in WORKLOADS if fits(s, w.model).anywhere]
IDS = [f"{s.name}/{w.name}" for s, w in PAIRS]
MOST = 2000
"""Candidates of a pair."""


def of_kind(lattice: Space, kind: str) -> np.ndarray:
    """Rows of a kind with coordinates by axis: a record array."""
    rows = lattice.coords[lattice.coords[:, 0] == lattice.kinds.index(kind)]
    axes = lattice.axes(kind)
    return np.rec.fromarrays(rows[:, 1 : 1 + len(axes)].T, names=axes)


@pytest.mark.parametrize(("server", "workload"), PAIRS, ids=IDS)
def test_every_candidate_is_a_valid_configuration(server, workload) -> None:
    table = service_table(server, workload)
    lattice = space(table)
    assert 1 <= len(lattice.candidates) <= MOST
    assert len(np.unique(lattice.coords, axis=0)) == len(lattice.coords), "coordinates are unique"
    assert len(np.unique(lattice.candidates, axis=0)) == len(lattice.candidates), "candidates are unique"
    for index in range(0, len(lattice.candidates), 7):
        config = lattice.config(table, index)  # raises where it does not fit
        assert config.row == tuple(lattice.candidates[index].tolist())
        assert config.kind == lattice.kinds[lattice.coords[index, 0]]
    kinds = {v.kind for v in table.variants}
    assert {lattice.kinds[k] for k in lattice.coords[:, 0]} == kinds, "no kind that fits is left out"
    first = lattice.coords[lattice.starts[: len(kinds)], 0].tolist()
    assert sorted(first) == sorted({lattice.kinds.index(kind) for kind in kinds}), "first a start of each kind"
    assert len(set(lattice.starts.tolist())) == len(lattice.starts)


@pytest.mark.parametrize(("server", "workload"), PAIRS[::6], ids=IDS[::6])
def test_coordinates_say_what_the_candidate_is(server, workload) -> None:
    table = service_table(server, workload)
    lattice = space(table)
    for index in range(0, len(lattice.candidates), 13):
        config = lattice.config(table, index)
        variant = table.variants[config.variant]
        kind = lattice.kinds[lattice.coords[index, 0]]
        stages = {stage.name: (config.threads[k], config.operator_cores[k]) for k, stage in enumerate(table.stages)}
        for axis, value in zip(lattice.axes(kind), lattice.coords[index, 1:].tolist(), strict=False):
            if axis in ("batch", "fuse_items", "max_wait_us", "offload_items"):
                assert getattr(config, axis) == value
            elif axis == "buffer":
                assert config.buffer == (None if value == UNBOUNDED else value)
            elif axis == "hot_share_ppm":
                assert variant.hot_share == pytest.approx(value / 1e6, abs=1e-6)
            elif axis == "dense_share":
                left = server.cpu.cores - stages["sparse"][0] * stages["sparse"][1]
                assert stages["dense"][0] == left * value // (24 * stages["dense"][1])
            else:
                stage, which = {
                    "threads": ("model", 0),
                    "operator_cores": ("model", 1),
                    "sparse_threads": ("sparse", 0),
                    "sparse_cores": ("sparse", 1),
                    "dense_cores": ("dense", 1),
                    "instances": ("gpu", 0),
                }[axis]
                assert stages[stage][which] == value
        assert config.threads[table.stage_index("nmp")] in (0, 1) if "nmp" in stages else True


def test_operator_cores_leave_no_core_idle() -> None:
    assert operator_cores(20) == (1, 2, 3, 4, 5, 6, 10, 20)
    assert operator_cores(18) == (1, 2, 3, 4, 6, 9, 18)
    assert operator_cores(1) == (1,)
    for cores in (18, 20, 64, 192):
        widths = operator_cores(cores)
        for threads in range(1, 7):
            assert cores // threads in widths


def t2_v100(workload: str = "wnd", **changes: float) -> tuple[ServiceTable, Space]:
    """Table and lattice on T2-V100 with other cores, or another memory of the card."""
    server = hardware.server("T2-V100")
    assert server.gpu is not None
    cpu = replace(server.cpu, cores=int(changes.get("cores", server.cpu.cores)))
    gpu = replace(server.gpu, memory_gb=changes.get("gpu_gb", server.gpu.memory_gb))
    found = next(w for w in WORKLOADS if w.name == workload)
    table = service_table(replace(server, cpu=cpu, gpu=gpu), found)
    return table, space(table)


def test_cores_prune_threads() -> None:
    for cores in (1, 2, 3, 7, 20, 33):
        table, lattice = t2_v100(cores=cores)
        cpu = of_kind(lattice, "cpu")
        assert (cpu.operator_cores * cpu.threads).max() == cores
        used = (
            lattice.candidates[:, 6:] * np.array([v.operator_cores for v in table.variants])[lattice.candidates[:, 0]]
        )
        assert used.sum(axis=1).max() <= cores
        kinds = {v.kind for v in table.variants}
        assert ("cpu-sd" in kinds) == (cores >= 2), "a pipeline needs two cores"
        if cores <= 24 and cores > 1:
            splits = of_kind(lattice, "cpu-sd")
            one = splits[(splits.sparse_cores == 1) & (splits.dense_cores == 1) & (splits.dense_share == 24)]
            assert set(one.sparse_threads.tolist()) == set(range(1, cores)), "every split of the cores"


def test_large_sockets_have_few_more_points() -> None:
    for cores in (24, 48, 96, 192):
        _, lattice = t2_v100("dien", cores=cores)
        assert len(lattice.candidates) <= 1.25 * MOST, cores
        server = hardware.server("T2")
        plain = replace(server, cpu=replace(server.cpu, cores=cores))
        assert len(space(service_table(plain, WORKLOADS[-1])).candidates) <= 1.25 * MOST, cores


def test_memory_of_the_accelerator_prunes_instances() -> None:
    for gpu_gb, most in ((16, 4), (12, 3), (8, 2), (4, 1)):
        _, lattice = t2_v100(gpu_gb=gpu_gb)
        assert of_kind(lattice, "gpu").instances.max() == most
        assert of_kind(lattice, "cpu-gpu-offload").instances.max() == most
    _, lattice = t2_v100(gpu_gb=3)
    assert not len(of_kind(lattice, "gpu")) and not len(of_kind(lattice, "cpu-gpu-offload"))
    assert len(of_kind(lattice, "gpu-hot-rows"))


def test_batches_end_with_the_table() -> None:
    table, whole = t2_v100()
    small = replace(table, items=table.items[:12], seconds=table.seconds[:, :, :12], energy_j=table.energy_j[:, :, :12])
    lattice = space(small)
    assert small.max_items == 128
    assert (
        lattice.candidates[:, 1].max() == lattice.candidates[:, 2].max() == 128 or lattice.candidates[:, 2].max() == 1
    )
    assert len(lattice.candidates) < len(whole.candidates)


def test_the_lines_of_deeprecsys() -> None:
    table, lattice = t2_v100()
    first = [lattice.config(table, row) for row in lattice.lines[0]]
    assert [c.batch for c in first] == list(DEEPRECSYS_BATCHES)
    for config, line in zip(first, lattice.lines[1:], strict=True):
        assert config.describe() == f"cpu: model 20x1, batch {config.batch}"
        steps = [lattice.config(table, row) for row in line]
        assert [c.offload_items for c in steps] == list(DEEPRECSYS_THRESHOLDS)
        for step in steps:
            assert (step.kind, step.batch, step.fuse_items) == ("cpu-gpu-offload", config.batch, 1)
            assert step.threads[table.stage_index("model")] == 20 and step.threads[table.stage_index("gpu")] == 1
    plain = space(service_table(hardware.server("T1"), WORKLOADS[-1]))
    assert len(plain.lines[0]) == len(DEEPRECSYS_BATCHES) == len(plain.lines) - 1
    assert not any(plain.lines[1:]), "no accelerator"


def test_the_lattice_is_the_same_bytes_every_time() -> None:
    digests = set()
    for _ in range(2):
        _, lattice = t2_v100()
        arrays = (lattice.candidates, lattice.coords, lattice.starts)
        digests.add(hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
    assert len(digests) == 1


@given(
    st.sampled_from(ZOO.servers),
    st.sampled_from(WORKLOADS),
    st.integers(1, 40),
    st.floats(0.01, 100),
    st.floats(0.1, 200),
)
def test_whatever_the_server_all_candidates_fit_it(server, workload, cores, gpu_gb, host_gb) -> None:
    gpu = replace(server.gpu, memory_gb=gpu_gb) if server.gpu else None
    memory = replace(server.memory, capacity_gb=host_gb)
    changed = replace(server, cpu=replace(server.cpu, cores=cores), memory=memory, gpu=gpu)
    fit = fits(changed, workload.model)
    if not fit.anywhere:
        with pytest.raises(InputError, match="does not fit"):
            service_table(changed, workload)
        return
    table = service_table(changed, workload)
    for variant in table.variants:
        assert variant.memory_bytes.get("host", 0) <= fit.host_limit_bytes
        assert variant.memory_bytes.get("gpu", 0) * max(1, variant.max_instances) <= fit.gpu_limit_bytes
    lattice = space(table)
    for index in np.linspace(0, len(lattice.candidates) - 1, 40).astype(int):
        lattice.config(table, int(index))


def test_a_table_of_unknown_kinds_is_refused() -> None:
    variants = tuple(TableVariant(name=n, kind="fpga", operator_cores=(1, 0), max_instances=1) for n in ("a", "b"))
    with pytest.raises(InputError, match=r"variants: kinds are \['fpga'\]; allowed are \['cpu'"):
        space(make_table(variants=variants))


def test_two_variants_in_one_place_are_refused() -> None:
    table = service_table(hardware.server("T1"), WORKLOADS[-1])
    twice = replace(table, variants=(*table.variants[:1], table.variants[0], *table.variants[2:]))
    with pytest.raises(InputError, match=r"variants\[1\]: 'cpu-o1' has the cores and hot share of variants\[0\]"):
        space(twice)


def test_a_table_of_ones_own_needs_the_stages_of_its_kinds() -> None:
    lattice = space(make_table())
    assert {lattice.kinds[k] for k in lattice.coords[:, 0]} == {"cpu", "gpu"}
    assert of_kind(lattice, "cpu").threads.max() == 2, "two cores each, of four"
    assert set(of_kind(lattice, "gpu").instances.tolist()) == {1, 2}
    for kind, stage in (("cpu-sd", "sparse"), ("cpu-gpu-offload", "gpu")):
        variants = (TableVariant(name="a", kind=kind, operator_cores=(2, 0), max_instances=0), make_table().variants[1])
        with pytest.raises(InputError, match=rf"variants\[0\]: 'a' of kind '{kind}' does not use stage '{stage}'"):
            space(make_table(variants=variants))


def test_axes_of_unknown_kinds_are_refused() -> None:
    _, lattice = t2_v100()
    assert lattice.axes("gpu") == ("instances", "fuse_items", "max_wait_us")
    assert lattice.kinds == tuple(KINDS)
    with pytest.raises(InputError, match="kind: is 'fpga'; allowed are 'cpu'"):
        lattice.axes("fpga")
