"""Who else simulates these queues: Numba (``queue_numba``), SimPy, Ciw and cimba, each on as many jobs as it can bear.

Each is timed by the CPU time of the process, percentiles included. A rival that is not installed is left out, and named
at the end of the bench.
"""

from __future__ import annotations

import importlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import choices, expovariate, lognormvariate, seed

import numpy as np
from queue_cases import Case

from hercules_fast import _core

MISSING: set[str] = set()


@dataclass
class Run:
    """What a contender found, in how much CPU time."""

    jobs: float = 0.0
    mean_s: float = 0.0
    p99_s: float = 0.0
    cpu_s: float = 0.0
    events: float = 0.0
    """Starts and ends of service, where an event engine did them."""

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.process_time()
        yield
        self.cpu_s = time.process_time() - start

    def of(self, sojourn_s) -> None:
        """Mean and p99 of the sojourns in order of time, without the first tenth."""
        kept = np.asarray(sojourn_s)[len(sojourn_s) // 10 :]
        self.jobs, self.mean_s, self.p99_s = len(kept), float(kept.mean()), float(np.quantile(kept, 0.99))


@dataclass(frozen=True)
class Contender:
    name: str
    call: Callable[[int], Run] = field(repr=False)
    """One run with the random numbers of this seed."""


def load(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        MISSING.add(name.removeprefix("queue_"))
        return None


def ours(case: Case, jobs: int, isa: str | None = None) -> Contender:
    def call(at: int) -> Run:
        run = Run()
        with run.timed():
            found = simulated(case, jobs, at, 1, isa)
        run.jobs, run.mean_s, run.p99_s = jobs, found["mean_latency_s"], found["percentiles_s"][-1]
        run.events = 2 * jobs * sum(one["executions_per_query"] for one in found["stations"])
        return run

    return Contender("ours" if isa is None else f"ours, {isa}", call)


def simulated(case: Case, jobs: int, at: int, threads: int, isa: str | None = None) -> dict:
    return _core.simulate_system(
        case.system,
        case.source,
        case.size_pmf,
        case.qps,
        jobs,
        warmup=None,
        segments=None,
        percentiles=[0.5, 0.95, 0.99],
        seed=at,
        threads=threads,
        isa=isa,
    )


def rivals(case: Case) -> list[Contender]:
    return [*_numba(case), *_cimba(case), *_simpy(case), *_ciw(case)]


def drawing(case: Case) -> list[Contender]:
    """Only the random numbers that a job of the case needs: the limit of any recursion over them."""
    found = []
    if (q := load("queue_numba")) is not None:
        block, fill = q.zeros(q.BLOCK), {"exponential": q.exponentials, "lognormal": q.lognormals}

        def numba_call(at: int) -> Run:
            run, counter = Run(jobs=256 * q.BLOCK), np.uint64(at)
            with run.timed():
                for _ in range(256):
                    for law, _params in case.draws:
                        counter = np.uint64(fill[law](counter, block, 1.0))
            return run

        found.append(Contender("draws, numba", numba_call))
    return found


def _numba(case: Case) -> list[Contender]:
    if case.kind not in ("pool", "tandem", "split") or (q := load("queue_numba")) is None:
        return []
    threads, services = zip(*((one["threads"], one["service"]) for one in case.stations), strict=True)
    gap_s, per_job = 1 / case.qps, 1.0
    if case.kind == "pool":
        (service,), law = services, q.lognormals if services[0]["law"] == "lognormal" else q.exponentials
        arguments = (gap_s, service["mean_s"], *(service["params"] or [0.0]))
        programs = {how: q.pool(*threads, law, how) for how in q.PUTS} | {"lanes": q.pool_lanes(*threads, law)}
    elif case.kind == "tandem":
        arguments = (gap_s, *(one["mean_s"] for one in services))
        programs = {how: q.tandem(*threads, how) for how in q.PUTS} | {"lanes": q.tandem_lanes(*threads)}
    else:
        (service,), sizes = services, case.size_pmf
        arguments = (gap_s, service["base_s"], service["per_item_s"], case.batch, *q.alias_table(sizes))
        programs = {how: q.split(*threads, how) for how in q.PUTS} | {"lanes": q.split_lanes(*threads)}
        per_job = float(np.ceil(np.arange(1, len(sizes) + 1) / case.batch) @ sizes)

    def contender(how: str) -> Contender:
        jobs = {"lanes": 4e7, "sorted": 1e7, "heap": 5e6}[how] / per_job

        def call(at: int) -> Run:
            run, histogram = Run(), np.zeros(q.BUCKETS, np.int64)
            blocks = q.WARM_UP_BLOCKS + round(jobs * (per_job if how == "lanes" else 1) / q.BLOCK)
            with run.timed():
                programs[how](blocks, *arguments, at << 40, histogram)
                run.mean_s, (run.p99_s,) = q.mean(histogram), q.percentiles(histogram, [0.99])
            run.jobs = float(histogram.sum())
            return run

        return Contender(f"numba {how}", call)

    found = [contender(how) for how in programs]
    if case.kind == "pool":
        plain = q.pool_plain(*threads, law is q.lognormals)

        def plain_call(at: int) -> Run:
            run = Run()
            with run.timed():
                run.of(plain(2_000_000, gap_s, service["mean_s"], *(service["params"] or [0.0]), at))
            run.jobs = 2_000_000
            return run

        found.append(Contender("numba plain", plain_call))
    return found


def _cimba(case: Case) -> list[Contender]:
    pool = case.kind == "pool" and case.stations[0]["service"]["law"] == "exponential"
    if not pool or (cimba := load("queue_cimba")) is None:
        return []
    model = cimba.pool(case.stations[0]["threads"], 1 / case.qps)

    def call(at: int) -> Run:
        run, model.jobs = Run(), 500_000
        experiment = cimba.experiment(model, at)
        with run.timed():
            result = experiment.run(workers=1)[model].sojourns.trial(0, 0)
            run.of(result[1])
        run.jobs = model.jobs
        return run

    return [Contender("cimba", call)]


def drawer(service: dict) -> Callable[[], float]:
    if service["law"] == "lognormal":
        (sigma,) = service["params"]
        return lambda: service["mean_s"] * lognormvariate(-sigma * sigma / 2, sigma)
    return lambda: expovariate(1 / service["mean_s"])


def _simpy(case: Case) -> list[Contender]:
    if (simpy := load("simpy")) is None:
        return []
    jobs = 20_000
    model = {"split": _simpy_split, "fusion": _simpy_fusion, "interference": _simpy_interference}.get(
        case.kind, _simpy_chain
    )

    def call(at: int) -> Run:
        seed(at)
        run = Run()
        with run.timed():
            sojourn_s, executions = model(simpy, case, jobs)
            run.of(sojourn_s)
        run.jobs, run.events = jobs, 2 * executions
        return run

    return [Contender("simpy", call)]


def _simpy_chain(simpy, case: Case, jobs: int) -> tuple[list[float], int]:
    """A process for each thread, a store before each pool. A thread whose result finds the store full waits."""
    env, sojourn_s = simpy.Environment(), []
    lines = [simpy.Store(env, np.inf if (room := one.get("buffer")) is None else room) for one in case.stations]

    def thread(line, then, draw):
        while True:
            came = yield line.get()
            yield env.timeout(draw())
            if then is None:
                sojourn_s.append(env.now - came)
            else:
                yield then.put(came)

    def arrivals():
        for _ in range(jobs):
            yield env.timeout(expovariate(case.qps))
            lines[0].put(env.now)

    for line, then, one in zip(lines, [*lines[1:], None], case.stations, strict=True):
        for _ in range(one["threads"]):
            env.process(thread(line, then, drawer(one["service"])))
    env.process(arrivals())
    env.run()
    return sojourn_s, jobs * len(lines)


def _simpy_split(simpy, case: Case, jobs: int) -> tuple[list[float], int]:
    env, sojourn_s, executions = simpy.Environment(), [0.0] * jobs, 0
    (one,), line, batch = case.stations, simpy.Store(env), case.batch
    base_s, per_item_s = one["service"]["base_s"], one["service"]["per_item_s"]
    sizes = choices(range(1, len(case.size_pmf) + 1), case.size_pmf.tolist(), k=jobs)

    def thread():
        nonlocal executions
        while True:
            query, items, came = yield line.get()
            yield env.timeout(base_s + per_item_s * items)
            sojourn_s[query] = env.now - came  # the last part to end has the last word
            executions += 1

    def arrivals():
        for query, size in enumerate(sizes):
            yield env.timeout(expovariate(case.qps))
            for begin in range(0, size, batch):
                line.put((query, min(batch, size - begin), env.now))

    for _ in range(one["threads"]):
        env.process(thread())
    env.process(arrivals())
    env.run()
    return sojourn_s, executions


def _simpy_fusion(simpy, case: Case, jobs: int) -> tuple[list[float], int]:
    env, sojourn_s, executions = simpy.Environment(), [], 0
    (one,), waiting = case.stations, deque()
    base_s, per_item_s = one["service"]["base_s"], one["service"]["per_item_s"]
    most, max_wait_s = one["max_queries"], one["max_wait_s"]
    came, filled = env.event(), env.event()

    def device():
        nonlocal came, filled, executions
        while True:
            if not waiting:
                came = env.event()
                yield came
            left_s = waiting[0] + max_wait_s - env.now
            if len(waiting) < most and left_s > 0:
                filled = env.event()
                yield filled | env.timeout(left_s)
            batch = [waiting.popleft() for _ in range(min(most, len(waiting)))]
            yield env.timeout(base_s + per_item_s * len(batch))
            sojourn_s.extend(env.now - one for one in batch)
            executions += 1

    def arrivals():
        for _ in range(jobs):
            yield env.timeout(expovariate(case.qps))
            waiting.append(env.now)
            if len(waiting) == 1 and not came.triggered:
                came.succeed()
            if len(waiting) == most and not filled.triggered:
                filled.succeed()

    env.process(device())
    env.process(arrivals())
    env.run()
    return sojourn_s, executions


def _simpy_interference(simpy, case: Case, jobs: int) -> tuple[list[float], int]:
    """All that run proceed at one speed, so they end in order of the work that is done when they do: one timer."""
    env, sojourn_s = simpy.Environment(), []
    (one,), waiting, running = case.stations, deque(), []
    draw, threads, speed = drawer(one["service"]), one["threads"], [1.0, *one["speed"]]
    done, since, timer = 0.0, 0.0, None

    def advance():
        nonlocal done, since
        done += (env.now - since) * speed[len(running)]
        since = env.now

    def reset():
        nonlocal timer
        if running:
            timer = env.timeout((running[0][0] - done) / speed[len(running)])
            timer.callbacks.append(end)

    def end(event):
        nonlocal done
        if event is not timer:
            return  # the speed has changed since
        advance()
        done, came = heappop(running)
        sojourn_s.append(env.now - came)
        if waiting:
            heappush(running, (done + draw(), waiting.popleft()))
        reset()

    def arrivals():
        for _ in range(jobs):
            yield env.timeout(expovariate(case.qps))
            if len(running) == threads:
                waiting.append(env.now)
            else:
                advance()
                heappush(running, (done + draw(), env.now))
                reset()

    env.process(arrivals())
    env.run()
    return sojourn_s, jobs


def _ciw(case: Case) -> list[Contender]:
    if case.kind not in ("pool", "tandem", "pipeline") or (ciw := load("ciw")) is None:
        return []
    jobs, stations = 4_000, case.stations

    def law(service: dict):
        if service["law"] == "lognormal":
            (sigma,) = service["params"]
            return ciw.dists.Lognormal(-sigma * sigma / 2, sigma)
        return ciw.dists.Exponential(1 / service["mean_s"])

    def call(at: int) -> Run:
        ciw.seed(at)
        run = Run()
        with run.timed():
            simulation = ciw.Simulation(
                ciw.create_network(
                    arrival_distributions=[ciw.dists.Exponential(case.qps), *[None] * (len(stations) - 1)],
                    service_distributions=[law(one["service"]) for one in stations],
                    number_of_servers=[one["threads"] for one in stations],
                    queue_capacities=[np.inf if (room := one.get("buffer")) is None else room for one in stations],
                    routing=[[float(j == i + 1) for j in range(len(stations))] for i in range(len(stations))],
                )
            )
            simulation.simulate_until_max_customers(jobs)
            whole = [
                (person.data_records[0].arrival_date, person.data_records[-1].exit_date)
                for person in simulation.nodes[-1].all_individuals
            ]
            run.of([left - came for came, left in sorted(whole)])
        run.jobs, run.events = len(whole), 2 * len(whole) * len(stations)
        return run

    return [Contender("ciw", call)]
