"""A small fleet file for the verbs that profile."""

from __future__ import annotations

from pathlib import Path

import pytest

FLEET = """
schema = "hercules_fast.fleet/1"
name = "duo"
label = "two types, for tests"
reference_server = "T2"

[stock]
T1 = 60
T2 = 40

[[workloads]]
name = "wnd"
model = "wnd"

[[workloads]]
name = "rmc2"
model = "dlrm-rmc2"
rows_scale = 24
label = "does not fit T1"

[sources]
stock = "assumed: for tests"
workloads = "assumed: for tests"
"""


@pytest.fixture(scope="session")
def fleet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "duo.toml"
    path.write_text(FLEET)
    return path
