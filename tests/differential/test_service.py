"""Vectorised service times against the scalar twin, and the effects one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast import fleets, hardware
from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.serving import SWITCHES, Terms, fits, service_table
from hercules_fast.tables import ServiceTable
from tests.reference import service as slow

ZOO = fleets.fleet("zoo10")
PAIRS = [(s, w) for s in ZOO.servers for w in ZOO.workloads if fits(s, w.model).anywhere]


def twin(server, model, variant, cores, stage, items, busy):
    if stage == "model":
        return slow.whole_model_s(server, model, items, busy, cores["model"])
    if stage == "sparse":
        return slow.sparse_s(server, model, items, busy, cores["sparse"])
    if stage == "nmp":
        return slow.near_s(server.memory, model, items)
    if stage == "dense":
        return slow.dense_s(server, model, items, busy, cores["sparse"], cores["dense"])
    return slow.gpu_s(server, model, items, busy, pooled=variant.kind == "gpu-host-pooling")


@pytest.mark.parametrize(("server", "workload"), PAIRS, ids=[f"{s.name}/{w.name}" for s, w in PAIRS])
def test_every_stage_agrees_with_the_twin(server, workload) -> None:
    table = service_table(server, workload)
    rng = np.random.default_rng(1)
    used = np.argwhere(~np.isnan(table.seconds[:, :, 0, 0]))
    # All kinds of stages, a few of their variants, a few grid points of each: the twin is slow.
    for v, s in [*used[:2], *used[-6:], *rng.permutation(used)[:6]]:
        for i, b in zip(rng.integers(table.items.size, size=2), rng.integers(table.busy.size, size=2), strict=True):
            variant, stage = table.variants[v], table.stages[s].name
            cores = {x.name: variant.operator_cores[k] for k, x in enumerate(table.stages)}
            want = twin(server, workload.model, variant, cores, stage, int(table.items[i]), int(table.busy[b]))
            assert table.seconds[v, s, i, b] == pytest.approx(want, rel=1e-9), (variant.name, stage, i, b)


@pytest.mark.parametrize(("server", "workload"), PAIRS[::7], ids=[f"{s.name}/{w.name}" for s, w in PAIRS[::7]])
def test_more_work_or_more_neighbours_never_run_faster(server, workload) -> None:
    table = service_table(server, workload)
    seconds = table.seconds
    with np.errstate(invalid="ignore"):
        assert not np.any(np.diff(seconds, axis=2) < 0), "more items"
        assert not np.any(np.diff(seconds, axis=3) < -1e-12 * seconds[..., 1:]), "more busy threads"
    assert np.all(np.diff(table.energy_j, axis=2) >= 0)


# Effects that make a service slower when they are on; the rest (parallelism, near memory) make it faster.
SLOWING = [s for s in SWITCHES if s not in ("operator_parallelism", "near_memory")]


@pytest.mark.parametrize("effect", SWITCHES)
def test_each_effect_can_be_switched_off_and_matters_somewhere(effect) -> None:
    changed = False
    for server, workload in PAIRS[::5] + PAIRS[-3:]:
        on = service_table(server, workload)
        off = service_table(server, workload, Terms().without(effect))
        used = ~np.isnan(on.seconds) & ~np.isnan(off.seconds)  # near memory is a stage of its own
        used[:, :, on.items < 128] &= effect != "near_memory"  # small batches may take longer there
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
