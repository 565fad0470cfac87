"""What the search hands to its engine: tables and traffic that it cannot do are refused, not passed over."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.serving.simulation import core_grid, core_traffic
from hercules_fast.tables import ServiceTable, TableGroupSpec
from hercules_fast.traffic import Arrivals, SizeComponent, SizeLaw
from tests.unit.test_tables import make_table

SIZES = SizeLaw(name="flat", max_items=8, components=(SizeComponent(weight=1.0, kind="uniform", low=1, high=8),))
POISSON = Arrivals(kind="poisson")


def with_interference(kind: str) -> tuple[TableGroupSpec, ...]:
    return tuple(dataclasses.replace(group, interference=kind) for group in make_table().groups)


def test_noise_reaches_the_core() -> None:
    traffic = core_traffic(SIZES, POISSON, 0)
    row = np.array(make_table().config(0, (2, 0), batch=8).row)
    calm, noisy = (core_grid(make_table(noise_cv=np.array([cv, 0.0]))) for cv in (0.0, 0.9))
    p50, p99 = zip(
        *(_core.simulate(g, traffic, row, 40.0, 20_000, 0, [0.5, 0.99])["percentiles_s"] for g in (calm, noisy)),
        strict=True,
    )
    assert p50[1] < p50[0] and p99[1] > 1.5 * p99[0]
    assert _core.bottleneck_qps(calm, traffic, row) == _core.bottleneck_qps(noisy, traffic, row)


def test_changing_rates_are_refused() -> None:
    with pytest.raises(InputError, match="interference of group 'cpu': is 'dynamic_rate'; allowed are 'none'"):
        core_grid(make_table(groups=with_interference("dynamic_rate")))


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [
        (Arrivals(kind="poisson", group=(0.5, 0.5)), "arrivals.group: is"),
        (Arrivals(kind="diurnal", amplitude=0.5, period_s=10.0), "arrivals.kind: is 'diurnal'; allowed in the search"),
        (Arrivals(kind="gamma", shape=2.0), "arrivals.kind: is 'gamma'"),
    ],
)
def test_arrivals_that_the_search_cannot_do_are_refused(arrivals: Arrivals, message: str) -> None:
    with pytest.raises(InputError, match=message):
        core_traffic(SIZES, arrivals, 0)


@pytest.mark.parametrize(
    "arrivals",
    [
        Arrivals(kind="deterministic"),
        Arrivals(kind="erlang", k=3),
        Arrivals(kind="lognormal", sigma=0.5),
        Arrivals(kind="hyperexponential", probabilities=(0.3, 0.7), rates=(0.5, 2.0)),
        Arrivals(kind="deeprecsys-gap", mean_ticks=25.0),
    ],
    ids=lambda a: a.kind,
)
def test_every_renewal_law_reaches_the_core(arrivals: Arrivals) -> None:
    table = make_table()
    row = np.array(table.config(0, (1, 0), batch=4).row)
    grid, traffic = core_grid(table), core_traffic(SIZES, arrivals, 0)
    qps = 0.3 * _core.bottleneck_qps(grid, traffic, row)
    assert _core.simulate(grid, traffic, row, qps, 4000, 0, [0.5])["throughput_qps"] == pytest.approx(qps, rel=0.1)


def test_without_interference_a_service_takes_the_time_of_a_thread_alone() -> None:
    table = make_table()
    flat = table.seconds.copy()
    flat[:] = flat[..., :1]
    row = np.array(table.config(0, (2, 0), batch=4).row)

    def latencies(t: ServiceTable) -> list[float]:
        traffic = core_traffic(SIZES, POISSON, 0)
        return list(_core.simulate(core_grid(t), traffic, row, 50.0, 4000, 0, [0.5, 0.99])["percentiles_s"])

    alone = make_table(groups=with_interference("none"))
    assert latencies(alone) == latencies(make_table(seconds=flat)) < latencies(table)
    assert np.array_equal(alone.seconds, table.seconds, equal_nan=True), "the table itself is untouched"
