"""``kill -9`` at random moments of a profile: what was told is kept, and the table gets the same bytes in the end."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from pathlib import Path

import pytest

from tests.small_profiles import PAIRS, small_profile


@pytest.fixture(scope="module")
def whole() -> str:
    return small_profile().to_json()


def start(path: Path) -> tuple[int, int]:
    """A child that profiles into the journal: its process id and the end of a pipe that gets a byte per told pair."""
    here, there = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads, from Python 3.12 on
        child = os.fork()
    if child == 0:
        try:
            small_profile(journal=path, threads=2, progress=lambda done, total: os.write(there, b"."))
        finally:
            os._exit(0)
    os.close(there)
    return child, here


def kill_at_random(path: Path, draw: random.Random) -> int:
    """Kill a profile some time after one of its pairs, or before the first; return how many it had told."""
    child, pipe = start(path)
    told = 0
    for _ in range(draw.randrange(len(PAIRS))):
        told += len(os.read(pipe, 1))
    time.sleep(draw.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while left := os.read(pipe, 64):
        told += len(left)
    os.close(pipe)
    return told


def kill_and_resume(path: Path, whole: str, seed: int) -> bool:
    """Two kills and a resume; whether a kill came while the journal was being written."""
    draw = random.Random(seed)
    told = 0
    for _ in range(2):
        told = max(told, kill_at_random(path, draw))
    lines = path.read_bytes().count(b"\n") if path.exists() else 0
    table = small_profile(journal=path)
    assert len(table.kept) >= told, f"seed {seed}: a pair that was told is lost"
    assert len(table.kept) == max(0, lines - 1), f"seed {seed}: every whole line counts"
    assert table.to_json() == whole, f"seed {seed}"
    written = path.read_bytes().splitlines()
    assert len(written) == len(set(written)) == 1 + len(PAIRS), f"seed {seed}: no finished pair was done twice"
    return 0 < len(table.kept) < len(PAIRS)


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.long)])
def test_killed_profiles_go_on_to_the_same_bytes(tmp_path, whole, count) -> None:
    """Each round kills twice: 10 kills in the suite, 200 as a long test."""
    amid = [kill_and_resume(tmp_path / f"{seed}.jsonl", whole, seed) for seed in range(count)]
    assert sum(amid) >= count // 4, "kills came before or after the work only"
