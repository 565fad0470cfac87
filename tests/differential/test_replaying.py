"""A replay of a run beside the slow twin that made the run: the same latencies, to rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hercules_fast.errors import InputError
from hercules_fast.measure import Pool, Spin, replay, replaying, run_load
from hercules_fast.queueing import Law, LinearService, Queries, Station, System, Trace
from hercules_fast.traffic import sizes
from tests.small_validations import synthetic_run

NOISE = Law(kind="lognormal", sigma=0.2)


def trace(count: int, qps: float, seed: int = 1) -> Trace:
    rng = np.random.default_rng(seed)
    return Trace(arrival_s=np.cumsum(rng.exponential(1 / qps, count)), sizes=rng.integers(1, 600, count))


@pytest.mark.parametrize("batch", [None, 64, 300])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("load", [0.4, 0.9, 1.3])
def test_a_pool_with_splitting(threads: int, batch: int | None, load: float) -> None:
    service = LinearService(base_s=1e-4, per_item_s=1e-5, noise=NOISE)
    run = synthetic_run(
        System.pool(service, threads, batch=batch), trace(400, load * threads / 3.2e-3), batch=batch, seed=7
    )
    assert np.allclose(replay(run), run.latency_s, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("buffer", [None, 0, 1, 5])
@pytest.mark.parametrize("threads", [(1, 1), (2, 1), (1, 3), (2, 2)])
def test_a_pipeline_with_a_buffer(threads: tuple[int, int], buffer: int | None) -> None:
    sparse = Station(
        service=LinearService(base_s=1e-4, per_item_s=1e-5, noise=NOISE), threads=threads[0], name="sparse"
    )
    dense = Station(
        service=LinearService(base_s=2e-4, per_item_s=9e-6, noise=NOISE),
        threads=threads[1],
        name="dense",
        buffer=buffer,
    )
    run = synthetic_run(System.chain(sparse, dense, batch=128), trace(300, 280.0), batch=128, seed=3)
    assert np.allclose(replay(run, buffer=buffer), run.latency_s, rtol=1e-9, atol=1e-12)
    if buffer == 0 and threads[0] >= threads[1]:
        assert not np.allclose(replay(run), run.latency_s, rtol=1e-3), "the buffer must matter here"


def test_a_run_that_did_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = synthetic_run(System.pool(LinearService(base_s=1e-3)), trace(50, 100.0), batch=None)
    open_end = run.end_s.copy()
    open_end[0, -3:] = np.nan
    with pytest.raises(InputError, match="3 of 50 sub-batches did not end"):
        replay(replace(run, end_s=open_end))
    monkeypatch.setattr(replaying, "MOST_PARTS", 49)
    with pytest.raises(InputError, match="has 50 sub-batches; allowed are at most 49"):
        replay(run)


def test_real_threads_are_never_faster_than_their_replay() -> None:
    """What real threads take beyond the discipline is hand-over, and that is not negative."""
    source = Queries(qps=300.0, sizes=sizes("kairos"))
    run = run_load([Pool("model", (Spin(1e-4, 2e-6),))], source, queries=200, batch=256, seed=5)
    replayed = replay(run)
    assert np.all(run.latency_s >= replayed - 1e-6)
    assert np.median(run.latency_s - replayed) < 0.05, "seconds, on a machine as busy as it likes"
