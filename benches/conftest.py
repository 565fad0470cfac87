"""Benches refuse debug builds and leave no host name in saved records."""

from __future__ import annotations

import pytest

import hercules_fast as hf


def pytest_collection_modifyitems() -> None:
    info = hf.build_info()
    if info["profile"] != "release":
        pytest.exit(f"benches need a release build, this is {info['profile']}: run `make build`", returncode=2)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    machine_info.pop("node", None)
    machine_info["isa"] = hf.capabilities()["isa_used"]
    machine_info["threads"] = hf.capabilities()["threads_used"]
