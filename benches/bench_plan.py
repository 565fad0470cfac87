"""The main job, `hercules-fast plan` on the built-in fleet, as a whole process (target under 60 s, goal under 10 s)."""

from __future__ import annotations

import json
import subprocess
import sys


def plan(folder: str) -> dict:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "hercules_fast",
            "plan",
            "--out",
            folder,
            "--overwrite",
            "--json",
            "--quiet",
            "--no-plots",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(run.stdout)


def test_plan_of_the_built_in_fleet(benchmark, tmp_path) -> None:
    first = plan(str(tmp_path / "plan"))
    again = benchmark.pedantic(plan, args=(str(tmp_path / "plan"),), rounds=3)
    assert again == first, "same seed, same plan"
    print(f"\nplan on the built-in fleet: median {benchmark.stats.stats.median:.1f} s (target 60 s, goal 10 s)")
