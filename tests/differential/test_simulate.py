"""The public simulate and max_load: figures as the core gives them, in the units of the face, and clear refusals."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from hercules_fast import _core
from hercules_fast.errors import InputError
from hercules_fast.serving import max_load, simulate
from hercules_fast.serving.simulation import core_grid, core_traffic
from hercules_fast.tables import TableGroupSpec
from hercules_fast.traffic import Arrivals, SizeComponent, SizeLaw, Sla
from tests.unit.test_tables import make_table

SIZES = SizeLaw(name="flat", max_items=8, components=(SizeComponent(weight=1.0, kind="uniform", low=1, high=8),))
POISSON = Arrivals(name="poisson", kind="poisson")
TRAFFIC = {"sizes": SIZES, "arrivals": POISSON}
TABLE = make_table()
THREADS = tuple(int(not np.isnan(TABLE.seconds[0, s, 0, 0])) for s in range(len(TABLE.stages)))
CONFIG = TABLE.config(0, THREADS, batch=min(4, TABLE.max_items))
BOTTLENECK = _core.bottleneck_qps(core_grid(TABLE), core_traffic(SIZES, POISSON, 0), np.array(CONFIG.row))


def test_units_and_names_of_a_simulation() -> None:
    result = simulate(TABLE, CONFIG, **TRAFFIC, qps=0.5 * BOTTLENECK, queries=4000, keep_latencies=True)
    raw = _core.simulate(
        core_grid(TABLE), core_traffic(SIZES, POISSON, 0), np.array(CONFIG.row), 0.5 * BOTTLENECK, 4000, 400, [0.95]
    )
    assert result.latency_ms[1] == 1e3 * raw["percentiles_s"][0]
    assert result.latencies_ms is not None and len(result.latencies_ms) == 3600
    assert list(result.utilisation) == [name for name, m in zip(CONFIG.stages, CONFIG.threads, strict=True) if m]
    assert all(0.0 < u < 1.0 for u in result.utilisation.values())
    json.dumps(result.to_dict(), allow_nan=False)


def test_max_load_reaches_its_sla() -> None:
    unloaded = max_load(TABLE, CONFIG, **TRAFFIC, slas=[Sla(percentile=95, latency_ms=1e9)], queries=4000)
    assert unloaded.limit == "utilisation cap"
    sla = Sla(percentile=95, latency_ms=2.0 * unloaded.unloaded_ms[0])
    result = max_load(TABLE, CONFIG, **TRAFFIC, slas=[sla], queries=4000)
    assert result.limit == f"sla: {sla}"
    assert 0.0 < result.qps < unloaded.qps
    assert result.latency_ms[0] <= sla.latency_ms
    again = simulate(TABLE, CONFIG, **TRAFFIC, qps=result.qps, queries=4000, percentiles=[95])
    assert again.latency_ms == result.latency_ms
    nothing = max_load(TABLE, CONFIG, **TRAFFIC, slas=[Sla(percentile=95, latency_ms=1e-9)], queries=4000)
    assert nothing.qps == 0.0 and nothing.limit.startswith("unloaded latency")
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"percentiles\[0\]: is 99.9, but only 900 queries.* at least 10000"):
        simulate(TABLE, CONFIG, **TRAFFIC, qps=0.1 * BOTTLENECK, queries=1000, percentiles=[99.9])
    with pytest.raises(InputError, match="allowed is less than the bottleneck"):
        simulate(TABLE, CONFIG, **TRAFFIC, qps=BOTTLENECK, queries=4000)
    with pytest.raises(InputError, match="qps: is nan"):
        simulate(TABLE, CONFIG, **TRAFFIC, qps=float("nan"), queries=4000)
    with pytest.raises(InputError, match="warmup: is 1000"):
        simulate(TABLE, CONFIG, **TRAFFIC, qps=1.0, queries=1000, warmup=1000)
    with pytest.raises(InputError, match="seed: is -1"):
        simulate(TABLE, CONFIG, **TRAFFIC, qps=1.0, queries=1000, seed=-1)
    with pytest.raises(InputError, match="slas: is empty"):
        max_load(TABLE, CONFIG, **TRAFFIC, slas=[], queries=1000)


@pytest.mark.parametrize(
    "arrivals",
    [
        Arrivals(name="d", kind="deterministic"),
        Arrivals(name="e", kind="erlang", k=3),
        Arrivals(name="h", kind="hyperexponential", probabilities=(0.3, 0.7), rates=(0.5, 2.0)),
        Arrivals(name="t", kind="deeprecsys-gap", mean_ticks=25.0),
    ],
    ids=lambda a: a.kind,
)
def test_every_arrival_law_reaches_the_core(arrivals: Arrivals) -> None:
    result = simulate(TABLE, CONFIG, sizes=SIZES, arrivals=arrivals, qps=0.3 * BOTTLENECK, queries=4000)
    assert result.throughput_qps == pytest.approx(0.3 * BOTTLENECK, rel=0.1)


def with_interference(kind: str) -> tuple[TableGroupSpec, ...]:
    return tuple(dataclasses.replace(group, interference=kind) for group in TABLE.groups)


def test_what_the_engine_cannot_do_is_refused_not_passed_over() -> None:
    """A user's table may hold noise or changing rates: an answer without them would be silently wrong."""
    noisy = make_table(noise_cv=np.array([0.2, 0.0]))
    with pytest.raises(InputError, match=r"noise_cv of stage 'model': is 0\.2; allowed is 0"):
        simulate(noisy, CONFIG, **TRAFFIC, qps=0.5 * BOTTLENECK, queries=4000)
    changing = make_table(groups=with_interference("dynamic_rate"))
    with pytest.raises(InputError, match="interference of group 'cpu': is 'dynamic_rate'; allowed are 'none'"):
        max_load(changing, CONFIG, **TRAFFIC, slas=[Sla(percentile=95, latency_ms=50.0)], queries=4000)


def test_without_interference_a_service_takes_the_time_of_a_thread_alone() -> None:
    alone = make_table(groups=with_interference("none"))
    flat = TABLE.seconds.copy()
    flat[:] = flat[..., :1]
    config = TABLE.config(0, (2, 0), batch=4)
    found, wanted, slowed = (
        simulate(table, config, **TRAFFIC, qps=0.5 * BOTTLENECK, queries=4000).latency_ms
        for table in (alone, make_table(seconds=flat), TABLE)
    )
    assert found == wanted
    assert found < slowed
    assert np.array_equal(alone.seconds, TABLE.seconds, equal_nan=True), "the table itself is untouched"
