"""The cost of a search over configurations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.differential.test_search import cpu_problem

from hercules_fast import _core


@pytest.mark.parametrize("method", ["gradient", "exhaustive", "exhaustive-unpruned"])
def test_search_of_one_pair(benchmark: Callable, method: str) -> None:
    """175 configurations of a CPU at the default effort, final answer included, on one thread."""
    problem = cpu_problem(1, 0.004)
    (found,), _ = benchmark.pedantic(lambda: _core.search([problem], method=method, threads=1), rounds=3)
    (truth,), _ = _core.search([problem], method="exhaustive", threads=1)
    assert found["search_qps"] >= 0.99 * truth["search_qps"]
