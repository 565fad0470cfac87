"""The mix of workloads changes, the number of queries does not: by hand, and what must hold."""

from __future__ import annotations

import numpy as np
import pytest

from hercules_fast.errors import InputError, UnknownNameError
from hercules_fast.provisioning import workload_evolution
from hercules_fast.tables import EfficiencyTable

# A machine of "cpu" does 100 q/s of either light workload at 100 W, or 40 of the heavy one at 150 W.
TABLE = EfficiencyTable.from_matrices(
    ["cpu", "gpu"],
    ["light", "slim", "heavy"],
    [[100.0, 100.0, 40.0], [0.0, 0.0, 900.0]],
    [[100.0, 100.0, 150.0], [0.0, 0.0, 500.0]],
)


def test_the_same_queries_asked_of_a_heavier_model() -> None:
    change = workload_evolution(TABLE, {"cpu": 100}, ["light", "slim"], ["heavy"], steps=3, share=0.8)
    assert change.share.tolist() == [0.0, 0.5, 1.0]
    # All of the 100 machines do 4000 q/s of heavy: 80 % are 3200, or 32 machines of light.
    assert change.plan.load_qps.sum(axis=1) == pytest.approx([3200.0] * 3)
    assert change.plan.load_qps[0].tolist() == pytest.approx([1600.0, 1600.0, 0.0])
    assert change.plan.capacity.tolist() == [32, 56, 80]
    assert change.capacity_growth == 2.5
    assert change.power_growth == pytest.approx(80 * 150 / 3200)
    assert change.explain() == ("from 32 to 80 servers (2.50x) and from 3.20 to 12.00 kW (3.75x) at peak")


def test_there_and_back_is_the_inverse() -> None:
    there = workload_evolution(TABLE, {"cpu": 100, "gpu": 2}, ["light"], ["heavy"], steps=5)
    back = workload_evolution(TABLE, {"cpu": 100, "gpu": 2}, ["heavy"], ["light"], steps=5)
    assert back.plan.capacity.tolist() == there.plan.capacity.tolist()[::-1]
    assert back.power_growth == pytest.approx(1 / there.power_growth)
    assert np.all(np.diff(there.share) > 0)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"steps": 1}, InputError, "steps: 1; allowed: whole numbers from 2"),
        ({"share": 0.0}, InputError, "share: 0.0; allowed: above 0, up to 1"),
        ({"after": ["heavvy"]}, UnknownNameError, "workload of the evolution 'heavvy'; did you mean 'heavy'"),
        ({"after": ["light"]}, InputError, "allowed: different names, at least one each"),
        ({"after": []}, InputError, "allowed: different names, at least one each"),
        ({"stock": {"gpu": 4}}, InputError, "cannot run every one of light, heavy"),
    ],
)
def test_evolutions_that_cannot_be(change, error, says) -> None:
    arguments = {"stock": {"cpu": 10}, "before": ["light"], "after": ["heavy"]} | change
    with pytest.raises(error, match=says):
        workload_evolution(TABLE, **arguments)
