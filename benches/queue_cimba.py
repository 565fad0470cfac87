"""A pool in cimba, a C library of discrete events whose Python package compiles the processes.

As its documentation writes a queue: a process per server, inputs as declared sources, sojourns captured by a data set.
(No postponed annotations here: cimba resolves them by name.)
"""

import cimba
from cimba import inputs


def pool(servers: int, gap_s: float) -> cimba.Model:
    """Poisson arrivals, exponential service of mean 1; ``jobs`` is to be set."""

    class Pool(cimba.Model):
        jobs: cimba.Param[int] = 1
        gap: cimba.Input[float] = inputs.dist.exponential(mean=gap_s)
        service: cimba.Input[float] = inputs.dist.exponential(mean=1.0)
        line: cimba.Store[float]
        sojourns: cimba.Dataset = cimba.Dataset()

        @cimba.process
        def arrivals(self):
            for _ in range(self.jobs):
                cimba.hold(self.gap.next())
                self.line.put(cimba.now())

        @cimba.process(copies=servers)
        def server(self):
            while True:
                came = self.line.get()
                cimba.hold(self.service.next())
                self.sojourns.record(cimba.now() - came)

    model = Pool()
    model.sojourns.capture()
    return model


def experiment(model: cimba.Model, seed: int) -> cimba.Experiment:
    return cimba.Experiment(model, window=cimba.Window.until_idle(), seed=seed)
