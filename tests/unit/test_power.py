"""Power of one server: the two modes, component by component."""

from __future__ import annotations

import pytest

from hercules_fast.errors import InputError
from hercules_fast.serving import server_power
from tests.unit.test_tables import make_table


def power(config, **changes):
    arguments = {"qps": 100.0, "stage_utilisation": [0.5, 0.25], "energy_j_per_query": 0.1} | changes
    return server_power(make_table(), config, **arguments)


def test_component_mode_adds_idle_and_use() -> None:
    table = make_table()
    cpu = power(table.config(0, (2, 0), batch=8))
    # Two threads of two cores on four cores, half busy; memory 10 J/s of its 20 W span; the idle card still draws.
    assert cpu.utilisation == {"cpu": 0.5, "gpu": 0.0, "memory": 0.5}
    assert cpu.components_w == {"cpu": 70.0, "gpu": 100.0, "memory": 20.0, "base": 40.0}
    assert cpu.power_w == 230.0
    one_thread = power(table.config(0, (1, 0), batch=8))
    assert one_thread.utilisation["cpu"] == 0.25


def test_instances_of_a_card_share_all_of_it() -> None:
    config = make_table().config(1, (0, 1), batch=8, fuse_items=8)
    assert power(config).utilisation["gpu"] == 0.25


def test_tdp_mode_is_the_sum_of_components_whatever_the_load() -> None:
    config = make_table().config(0, (2, 0), batch=8)
    assert power(config, mode="tdp").power_w == 430.0
    assert power(config, mode="tdp", qps=1.0).power_w == 430.0


def test_memory_never_draws_more_than_its_tdp() -> None:
    config = make_table().config(0, (2, 0), batch=8)
    assert power(config, qps=1e9).components_w["memory"] == 30.0


def test_a_memory_of_unknown_energy_counts_as_fully_used() -> None:
    config = make_table().config(0, (2, 0), batch=8)
    assert power(config, energy_j_per_query=float("nan")).components_w["memory"] == 30.0


def test_unknown_mode() -> None:
    with pytest.raises(InputError, match="power_mode: is 'x'; allowed are 'component', 'tdp'"):
        power(make_table().config(0, (2, 0), batch=8), mode="x")
