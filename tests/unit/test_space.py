"""The configuration lattice: complete, within its limits, connected to where searches start."""

from __future__ import annotations

import numpy as np
import pytest

from hercules_fast import fleets
from hercules_fast.errors import InputError
from hercules_fast.profiling import space
from hercules_fast.serving import fits, service_table
from hercules_fast.tables import TableVariant
from tests.unit.test_tables import make_table

ZOO = fleets.fleet("zoo10")
PAIRS = [(s, w) for s in ZOO.servers for w in ZOO.workloads if fits(s, w.model).anywhere]
IDS = [f"{s.name}/{w.name}" for s, w in PAIRS]


@pytest.mark.parametrize(("server", "workload"), PAIRS, ids=IDS)
def test_every_candidate_is_a_valid_configuration(server, workload) -> None:
    table = service_table(server, workload)
    lattice = space(table)
    assert 1 <= len(lattice.candidates) <= 2300
    assert len({tuple(c) for c in lattice.coords.tolist()}) == len(lattice.coords), "coordinates are unique"
    assert len({tuple(c) for c in lattice.candidates.tolist()}) == len(lattice.candidates), "candidates are unique"
    for index in range(0, len(lattice.candidates), 7):
        config = lattice.config(table, index)  # raises where it does not fit
        assert config.row == tuple(lattice.candidates[index].tolist())
    assert set(lattice.coords[lattice.starts, 0]) == set(lattice.coords[:, 0]), "every kind has a start"


def test_whole_model_lattice_is_all_splits_of_the_cores() -> None:
    """58 and 66 pairs (m, o) with m o <= cores, for 18 and 20 cores."""
    for name, pairs in (("T1", 58), ("T2", 66)):
        server = next(s for s in ZOO.servers if s.name == name)
        lattice = space(service_table(server, next(w for w in ZOO.workloads if w.name == "din")))
        cpu = lattice.coords[lattice.coords[:, 0] == 0]
        assert len(np.unique(cpu[:, 1:3], axis=0)) == pairs


def test_a_table_of_unknown_kinds_is_refused() -> None:
    variants = tuple(TableVariant(name=n, kind="fpga", operator_cores=(1, 0), max_instances=1) for n in ("a", "b"))
    with pytest.raises(InputError, match=r"variants: kinds are \['fpga'\]; allowed are \['cpu'"):
        space(make_table(variants=variants))
