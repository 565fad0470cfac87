"""The queues of the bench: each as the simulator takes it, with the answer that every contender must find.

Times are in seconds, which mean what the reader likes; a service takes 1 s in the mean unless said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from tests.small_systems import chain, linear, station, system

ORACLE = Path(__file__).parents[1] / "tests" / "oracle" / "queue-oracle.json"


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    qps: float
    stations: tuple[dict, ...]
    jobs_for_1_percent: float
    """Jobs after which a 95 % interval of p99 is 1 % wide to each side."""
    mean_s: float | None
    p99_s: float | None
    wanted: dict[str, float]
    """Contender: how many times as long as ours it should take at least."""
    batch: int | None = None
    size_pmf: np.ndarray = field(default_factory=lambda: np.ones(1))
    draws: tuple[tuple[str, list[float]], ...] = ()
    """Laws of the random numbers that a job needs."""

    @property
    def system(self) -> dict:
        return system(chain(*self.stations, batch=self.batch))

    @property
    def source(self) -> dict:
        return {"kind": "law", "law": "exponential", "params": [], "group": None}

    def check(self, who: str, jobs: float, mean_s: float, p99_s: float) -> None:
        """The figures against what is known, within four standard errors of so many jobs."""
        relative = 4 * 0.01 / 1.96 * (self.jobs_for_1_percent / jobs) ** 0.5
        for what, found, right in [("mean", mean_s, self.mean_s), ("p99", p99_s, self.p99_s)]:
            if right is not None:
                assert abs(found / right - 1) < relative, f"{who}: {what} {found} s, not {right} s +- {relative:.1%}"


def pool(threads: int, law: str = "exponential", params: tuple[float, ...] = (), mean_s: float = 1.0, **more) -> dict:
    """A station of whole queries with a law of service."""
    return station("query", threads, {"kind": "law", "law": law, "params": list(params), "mean_s": mean_s}, **more)


@cache
def _oracle() -> dict[str, dict]:
    return {case["name"]: case for case in json.loads(ORACLE.read_text())["cases"]}


def exact(name: str) -> dict:
    """Mean and p99 of the sojourn, as far as they are known exactly."""
    case = _oracle()[name]
    return {"mean_s": case["mean_sojourn"], "p99_s": (case["sojourn_q"] or {}).get("0.99")}


def lognormal_sizes(median: float, sigma: float, most: int) -> np.ndarray:
    size = np.arange(1, most + 1)
    pmf = np.exp(-0.5 * (np.log(size / median) / sigma) ** 2) / size
    return pmf / pmf.sum()


BATCH, SIZES, SUB_BATCH_S = 32, lognormal_sizes(140, 0.6, 1024), (0.2, 0.025)
PARTS = float(np.ceil(np.arange(1, 1025) / BATCH) @ SIZES)
WORK_S = float(SUB_BATCH_S[0] * PARTS + SUB_BATCH_S[1] * (np.arange(1, 1025) @ SIZES))
DRAWN = ("exponential", [])
WANTED = {"numba": 4.0, "simpy": 1000.0, "cimba": 30.0}

RECURSION = [
    Case("M/M/1", "pool", 0.9, (pool(1),), 5.3e7, **exact("mm1_r90"), wanted=WANTED, draws=(DRAWN, DRAWN)),
    Case("M/M/16", "pool", 14.4, (pool(16),), 6.6e7, **exact("mm16_r90"), wanted=WANTED, draws=(DRAWN, DRAWN)),
    # No closed form: means and percentiles of 2e9 jobs and more of `queue_numba` side by side, standard errors below
    # 0.04 %; its single line agrees.
    Case(
        *("M/LN/16", "pool", 14.4, (pool(16, "lognormal", (1.0,)),), 1.2e8, 1.466, 7.046),
        wanted=WANTED,
        draws=(DRAWN, ("lognormal", [1.0])),
    ),
    Case(
        *("M/M/1-M/M/1", "tandem", 0.9, (pool(1), pool(1)), 1e8),
        **exact("tandem_mm1_mm1_r90"),
        wanted=WANTED,
        draws=(DRAWN,) * 3,
    ),
    Case(
        *("M/M/4-M/M/16", "tandem", 3.4, (pool(4), pool(16, mean_s=4.0)), 5e7),
        **exact("tandem_mm4_mm16"),
        wanted=WANTED,
        draws=(DRAWN,) * 3,
    ),
    Case(
        *("split", "split", 0.8 * 16 / WORK_S, (station("sub_batch", 16, linear(*SUB_BATCH_S)),), 1.2e7, 1.896, 6.009),
        wanted={"numba": 3.0},
        batch=BATCH,
        size_pmf=SIZES,
        draws=(DRAWN,),
    ),
]

EVENTS = [
    Case(
        *("bounded-pipeline", "pipeline", 0.5, (pool(1), pool(1, buffer=2)), 1.5e6),
        **exact("pipeline_bas_k2"),
        wanted={"simpy": 200.0},
    ),
    Case(
        # 3.2e8 queries of the plain recursion: launch when free and the eighth is there or the first has waited.
        *(
            "fusion-with-timer",
            "fusion",
            4.0,
            (station("fused", 1, linear(0.5, 0.125), max_queries=8, max_wait_s=0.5),),
        ),
        *(5e5, 1.7568, 3.3631),
        wanted={"simpy": 200.0},
    ),
    Case(
        *("interference", "interference", 3.2),
        (pool(8, interference="dynamic_rate", speed=[0.9**n for n in range(8)]),),
        2e6,
        **exact("interf_m8"),
        wanted={"simpy": 200.0},
    ),
]
