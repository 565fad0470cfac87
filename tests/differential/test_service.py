"""Vectorised service times against the scalar twin, and the effects one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast import fleets, hardware
from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.serving import SWITCHES, Terms, fits, service_table
from hercules_fast.tables import ServiceTable
from hercules_fast.traffic import Popularity, hot_rows
from tests.reference import service as slow

ZOO = fleets.fleet("zoo10")
PAIRS = [(s, w) for s in ZOO.servers for w in ZOO.workloads if fits(s, w.model).anywhere]


def hot_shares(server, workload, variant):
    """Share of each table group's lookups on the accelerator."""
    tables = workload.model.tables
    if variant.kind != "gpu-hot-rows":
        return (float(variant.kind in ("gpu", "cpu-gpu-offload")),) * len(tables)
    room = variant.memory_bytes["gpu"] - workload.model.dense_weight_bytes
    hot = hot_rows(workload.popularity, tables, room)  # has a twin of its own
    assert hot.bytes == room and hot.share == variant.hot_share
    return hot.shares


def twin(server, workload, variant, cores, stage, items, busy):
    model = workload.model
    hot = hot_shares(server, workload, variant)
    if stage == "model":
        return slow.whole_model_s(server, model, items, min(busy, server.cpu.cores // cores["model"]), cores["model"])
    if stage == "sparse":
        return slow.sparse_s(server, model, items, busy, cores["sparse"], hot)
    if stage == "nmp":
        return slow.near_s(server.memory, model, items, hot)
    if stage == "dense":
        return slow.dense_s(server, model, items, busy, cores["sparse"], cores["dense"])
    return slow.gpu_s(server, model, items, busy, hot)


@pytest.mark.parametrize(("server", "workload"), PAIRS, ids=[f"{s.name}/{w.name}" for s, w in PAIRS])
def test_every_stage_agrees_with_the_twin(server, workload) -> None:
    table = service_table(server, workload)
    rng = np.random.default_rng(1)
    used = np.argwhere(~np.isnan(table.seconds[:, :, 0, 0]))
    kinds = np.array([table.variants[v].kind for v, _ in used])
    some = [rng.permutation(used[kinds == kind])[:4] for kind in dict.fromkeys(kinds)]
    # All kinds of variants, a few stages and grid points of each: the twin is slow.
    for v, s in np.concatenate(some):
        for i, b in zip(rng.integers(table.items.size, size=2), rng.integers(table.busy.size, size=2), strict=True):
            variant, stage = table.variants[v], table.stages[s].name
            cores = {x.name: variant.operator_cores[k] for k, x in enumerate(table.stages)}
            want = twin(server, workload, variant, cores, stage, int(table.items[i]), int(table.busy[b]))
            assert table.seconds[v, s, i, b] == pytest.approx(want, rel=1e-9), (variant.name, stage, i, b)


@pytest.mark.parametrize(("server", "workload"), PAIRS[::7], ids=[f"{s.name}/{w.name}" for s, w in PAIRS[::7]])
def test_more_work_or_more_neighbours_never_run_faster(server, workload) -> None:
    table = service_table(server, workload)
    seconds = table.seconds
    with np.errstate(invalid="ignore"):
        assert not np.any(np.diff(seconds, axis=2) < 0), "more items"
        assert not np.any(np.diff(seconds, axis=3) < -1e-12 * seconds[..., 1:]), "more busy threads"
    assert np.all(np.diff(table.energy_j, axis=2) >= 0)


# Effects that make a service slower when they are on; the rest make it faster. What popularity takes off the host
# it puts on the accelerator, so it is the host's stage that is looked at.
SLOWING = [s for s in SWITCHES if s not in ("operator_parallelism", "near_memory", "popularity", "hot_bags")]


@pytest.mark.parametrize("effect", SWITCHES)
def test_each_effect_can_be_switched_off_and_matters_somewhere(effect) -> None:
    changed = False
    for server, workload in PAIRS[::5] + PAIRS[-3:]:
        on = service_table(server, workload)
        off = service_table(server, workload, Terms().without(effect))
        used = ~np.isnan(on.seconds) & ~np.isnan(off.seconds)  # near memory is a stage of its own
        used[:, :, on.items < 128] &= effect != "near_memory"  # small batches may take longer there
        if effect == "popularity":
            used[:, [s.name not in ("model", "sparse") for s in on.stages]] = False
        a, b = on.seconds[used], off.seconds[used]
        if effect in SLOWING:
            assert np.all(b <= a * (1 + 1e-10)), f"{effect} off made {workload.name} on {server.name} slower"
        else:
            assert np.all(b >= a * (1 - 1e-10)), f"{effect} off made {workload.name} on {server.name} faster"
        changed |= not np.array_equal(a, b)
        assert f"{effect}: switched off" in off.assumptions
        if changed and effect not in SLOWING:
            break
    assert changed, f"{effect} changes nothing anywhere"


GPU_PAIRS = [(s, w) for s, w in PAIRS if s.gpu]


@pytest.mark.parametrize(("server", "workload"), GPU_PAIRS[::3], ids=[f"{s.name}/{w.name}" for s, w in GPU_PAIRS[::3]])
def test_hot_rows_lie_between_pooling_on_the_host_and_the_whole_model_on_the_card(server, workload) -> None:
    """With no room the partition is host pooling; rows that are never looked up change nothing."""
    law = Popularity(name="few", kind="histogram", rows=(1,), shares=(1.0,))
    table = service_table(server, replace(workload, popularity=law))
    assert not [v for v in table.variants if v.kind == "gpu-hot-rows"], "one row of each table answers everything"
    table = service_table(server, workload)
    sparse, gpu = table.stage_index("sparse"), table.stage_index("gpu")
    pooling = next(v for v, x in enumerate(table.variants) if x.kind == "gpu-host-pooling")
    shares, link = [0.0], [table.seconds[pooling, sparse]]
    for v, variant in enumerate(table.variants):
        if variant.kind == "gpu-hot-rows" and variant.operator_cores[sparse] == 1:
            assert 0 < variant.hot_share < 1
            fit = fits(server, workload.model)
            assert variant.max_instances * variant.memory_bytes["gpu"] <= fit.gpu_limit_bytes
            assert variant.memory_bytes["host"] + variant.memory_bytes["gpu"] == pytest.approx(fit.host_bytes)
            shares.append(variant.hot_share)
            link.append(table.seconds[v, sparse])
            assert np.all(table.seconds[v, gpu] > 0)
    order = np.argsort(shares)
    for less, more in pairwise(order):
        assert np.all(link[more] <= link[less] * (1 + 1e-12)), "more hot rows leave the host less to gather"


def test_each_memory_limit_takes_its_variants_away() -> None:
    server = hardware.server("T2-V100")
    workload = next(w for w in ZOO.workloads if w.name == "dien")

    def kinds(memory_gb: float, gpu_gb: float) -> set[str]:
        assert server.gpu is not None
        small = replace(
            server,
            memory=replace(server.memory, capacity_gb=memory_gb),
            gpu=replace(server.gpu, memory_gb=gpu_gb),
        )
        fit = fits(small, workload.model)
        if not fit.anywhere:
            with pytest.raises(InputError, match=r"does not fit: needs .* GB of host memory"):
                service_table(small, workload)
            return set()
        return {v.kind for v in service_table(small, workload).variants}

    host = {"cpu", "cpu-sd", "gpu-host-pooling"}
    assert kinds(8, 16) == {*host, "gpu", "gpu-hot-rows", "cpu-gpu-offload"}
    assert kinds(8, 4) == {*host, "gpu-hot-rows"}
    dense_gb = workload.model.dense_weight_bytes / 0.9e9  # a tenth of the card is reserved
    assert kinds(8, 1.00001 * dense_gb) == host, "room for the dense weights alone"
    assert kinds(8, 0.99999 * dense_gb) == {"cpu", "cpu-sd"}
    assert kinds(2, 16) == {"gpu", "gpu-hot-rows"}
    assert kinds(2, 4) == {"gpu-hot-rows"}, "neither holds the model, both together do"
    assert kinds(2, 2) == set()


def test_unknown_effect_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'pollution'"):
        Terms().without("polution")


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_terms_refuse_bad_parameters(value) -> None:
    with pytest.raises(InputError, match=r"terms\.pollution_chi: is .*; allowed is finite and >= 0"):
        Terms(pollution_chi=value)


def test_a_model_that_fits_nowhere_is_refused_with_its_size() -> None:
    workload = next(w for w in ZOO.workloads if w.model.embedding_bytes > 60e9)
    with pytest.raises(InputError, match=r"does not fit: needs .* GB of host memory, 57\.6 GB may be used"):
        service_table(hardware.server("T1"), workload)


def test_a_model_that_host_and_card_together_do_not_hold_says_so() -> None:
    workload = next(w for w in ZOO.workloads if w.name == "rmc2")
    reason = fits(hardware.server("T1-P100"), workload.model).reason()
    assert reason == (
        "does not fit: needs 98.3 GB of host memory, 57.6 GB may be used; needs 98.3 GB of accelerator memory, "
        "14.4 GB may be used; nor do both hold it together"
    )


def test_one_hot_tables_gain_about_nothing_near_memory() -> None:
    """With one lookup per bag the whole row crosses the channel anyway (all cores busy, one core per thread)."""
    for name, least in (("wnd", 0.9), ("rmc2", 0.0)):
        workload = next(w for w in ZOO.workloads if w.name == name)
        plain = service_table(hardware.server("T2"), workload).seconds[0, 0, :, -1]
        near = service_table(hardware.server("T2-NMPx8"), workload).seconds[0, 0, :, -1]
        assert np.all(near >= plain * least)
    assert near[-1] < plain[-1] / 4, "pooled tables gain a lot"


@given(st.sampled_from(PAIRS[::5]))
def test_tables_survive_a_round_trip(tmp_path_factory, pair) -> None:
    table = service_table(*pair)
    path = tmp_path_factory.mktemp("table") / "t.npz"
    table.save(path)
    back = ServiceTable.load(path)
    assert back.digest() == table.digest()
    assert back.header() == table.header()
