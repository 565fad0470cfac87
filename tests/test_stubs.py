"""The hand-written stub and the built extension must agree."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_stub_matches_the_built_module() -> None:
    pytest.importorskip("mypy", reason="mypy (lint group) is not installed")
    run = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "hercules_fast._core", "--mypy-config-file", "pyproject.toml"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout + run.stderr
