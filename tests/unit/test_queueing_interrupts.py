"""Ctrl-C in the middle of simulations that would take hours: they stop, and the process goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

BEGIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner may have started us with SIGINT ignored
from hercules_fast import _core
from tests.unit.test_core_errors import ONE_ITEM, POISSON, np, station, system

def simulate(described, engine, queries=2**40, pmf=ONE_ITEM, qps=150.0, warmup=0):
    return _core.simulate_system(described, POISSON, pmf, qps, queries, warmup, 16, [0.5], 0, 2, engine)

print("ready", flush=True)
try:
    CALL
except KeyboardInterrupt:
    print("stopped", simulate(system(), "auto", 20_000)["queries"], flush=True)
"""
CALLS = {
    "pool": 'simulate(system(), "recursion")',
    "tandem": 'simulate(system(station(), station()), "recursion")',
    # Each query is a million sub-batches.
    "split": """
    whole = system(station(unit="sub_batch"))
    whole["routes"][0]["batch"] = 1
    simulate(whole, "recursion", 2**30, np.eye(1, 2**20, 2**20 - 1)[0], 1e-4)""",
    "split in events": """
    whole = system(station(unit="sub_batch"))
    whole["routes"][0]["batch"] = 1
    simulate(whole, "events", 2**30, np.eye(1, 2**20, 2**20 - 1)[0], 1e-4)""",
    "events": 'simulate(system(), "events")',
    "sweep": """
    row = (system(), POISSON, ONE_ITEM, 150.0, 2**40, 0, 16, [0.5], 0)
    _core.sweep_systems([row] * 10, 2)""",
    "max_load": "_core.max_load_system(system(), POISSON, ONE_ITEM, [(0.99, 0.1)], 0.95, 1e-5, 0, 2, 2**40)",
    "draws": """
    numbers = np.zeros(2**27, np.int64)
    _core.service_draws("erlang", [1000], 0, 0, 0, numbers, numbers)""",
    "queries": '_core.draw_queries({**POISSON, "law": "erlang", "params": [1000]}, ONE_ITEM, 1.0, 2**26, 0)',
}


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_stops_a_simulation(call: str) -> None:
    program = [sys.executable, "-c", BEGIN.replace("CALL", CALLS[call].strip())]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        try:
            said, _ = child.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            child.kill()
            pytest.fail("it did not stop within a minute")
    assert (child.returncode, said) == (0, "stopped 20000\n")
