"""Calibration: the constants of a host fitted to measured run times, and how far the fit can be trusted.

The formulas that are fitted are those that predict (:func:`hercules_fast.serving.lone_seconds`); only constants of the
host move, never a term of the model:

* a CPU host, whole model by one thread of one core: ``operator_overhead_us``, ``gather_core_gb_s``,
  ``llc_core_gb_s``, ``gemm_efficiency``;
* an accelerator, one instance: ``operator_overhead_us``, ``compute_efficiency``, ``gather_efficiency``. Run times are
  of the card, so the transfer of inputs (``gpu_input``) is off.

Every constant stands for a time, and predictions are convex and nearly linear in these times. The fit minimises the sum
over points of ``sqrt(e^2 + 0.01^2)`` with e the relative error (near the absolute error, so that outliers do not
rule), plus ``s n sum((u - 1)^2) / (2 0.4^2)``: a pull to a neutral host, with u the times relative to it, s the median
error of the fit and n the points of a curve (which err together, so that a curve counts once). It decides what no
curve tells and fades where the curves agree. Steps are Gauss-Newton on reweighted squares, with bounds; constants are
rounded to three digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError
from hercules_fast.hardware import Cpu, Gpu, Server
from hercules_fast.models import Model
from hercules_fast.profiling.curves import Curve, published_curves, read_curves_csv
from hercules_fast.serving import Terms, lone_seconds

__all__ = ["Calibration", "CurveFit", "HostFit", "calibrate"]

Array = npt.NDArray[np.float64]

SOFT = 0.01
"""Relative error below which the loss is square rather than absolute."""
NEUTRAL = 0.4
"""Relative change within which the neutral host is trusted: the faint pull to it decides what no curve tells."""
SPREAD = 0.03
"""Errors that are expected before the first fit; later rounds take the median error of the fit before."""
ROUNDS = 5
STEPS = 60
SETTLED = 1e-5
"""Largest last change of a time."""
SHORTEST = 1 / 64
"""Least share of a step that is tried."""
PROBE = 0.05
"""Relative change of a time, to either side, that tells the slope: wide enough to see past a kink."""


@dataclass(frozen=True, slots=True)
class _Knob:
    """A constant: the part of the server that has it, its value on the neutral host and the allowed range."""

    name: str
    neutral: float
    low: float
    high: float
    is_time: bool = False
    """Larger is slower; of the others, larger is faster."""

    def value(self, time: float) -> float:
        """The constant that makes its share of the run ``time`` times as long as on the neutral host."""
        return self.neutral * time if self.is_time else self.neutral / time

    @property
    def times(self) -> tuple[float, float]:
        """Range of ``time``."""
        ends = self.low / self.neutral, self.high / self.neutral
        return ends if self.is_time else (1 / ends[1], 1 / ends[0])


CPU_KNOBS = (
    _Knob("operator_overhead_us", 10.0, 0.01, 1000.0, is_time=True),
    _Knob("gather_core_gb_s", 7.0, 0.05, 500.0),  # 10 lines of 64 B on their way, each for 90 ns
    _Knob("llc_core_gb_s", 10.0, 0.1, 1000.0),
    _Knob("gemm_efficiency", 0.8, 0.01, 1.0),
)
GPU_KNOBS = (
    _Knob("operator_overhead_us", 20.0, 0.01, 1000.0, is_time=True),
    _Knob("compute_efficiency", 0.4, 0.005, 1.0),
    _Knob("gather_efficiency", 0.4, 0.005, 1.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveFit:
    """How well one curve is met. Errors are relative, ``predicted / measured - 1``: medians and worst of their size.

    ``batch_out``: each batch predicted by a fit to all other batches. ``model_out``: this model predicted by a fit to
    the host's other models (NaN where there are none); ``model_out_bias`` is the median with its sign.
    """

    model: str
    host: str
    points: int
    median: float
    worst: float
    worst_batch: int
    batch_out: float
    batch_out_worst: float
    model_out: float
    model_out_worst: float
    model_out_bias: float
    cause: str
    """The constant that the other models misjudge most for this one; empty without other models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostFit:
    """One host: its server with the fitted constants, and them by name."""

    server: Server
    constants: Mapping[str, float]
    points: int

    @property
    def part(self) -> Cpu | Gpu:
        """The component that has the constants: the accelerator, where there is one."""
        return self.server.gpu or self.server.cpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Fitted hosts, and each curve's errors in sample and out of it."""

    source: str
    hosts: tuple[HostFit, ...]
    curves: tuple[CurveFit, ...]
    median: float
    """Median size of the relative error over all points, in sample."""
    batch_out: float
    """The same, each batch left out."""
    model_out: float
    """The same, each model left out; NaN where no host has two."""

    def server(self, name: str) -> Server:
        """The calibrated server ``name``; raises ``InputError`` if it was not calibrated."""
        for host in self.hosts:
            if host.server.name.lower() == name.lower():
                return host.server
        raise InputError(f"host: is {name!r}; calibrated are {', '.join(h.server.name for h in self.hosts)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "source": self.source,
            "hosts": [
                {"server": h.server.name, "part": h.part.name, "points": h.points, "constants": dict(h.constants)}
                for h in self.hosts
            ],
            "curves": [asdict(curve) for curve in self.curves],
            "median": self.median,
            "batch_out": self.batch_out,
            "model_out": self.model_out,
        }


def calibrate(
    curves: str | Path | Sequence[Curve] | None = None,
    *,
    servers: Sequence[Server] = (),
    models: Sequence[Model] = (),
    terms: Terms = Terms(),
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Fit the constants of every host of ``curves`` and cross-validate the fit.

    Args:
        curves: a CSV file as :func:`read_curves_csv` takes it, curves, or None for the published ones that come along.
        servers: hosts that the catalogue does not have, or has otherwise. Their own constants do not matter.
        models: models that the catalogue does not have, or has otherwise.
        terms: switches and parameters of the service-time model.
        progress: called with fits done and fits in all.

    Raises:
        MissingFileError, ConfigError: as :func:`read_curves_csv`.
        InputError: no curves, or two of one model and host.
    """
    if curves is None:
        found = published_curves()
    elif isinstance(curves, str | Path):
        found = read_curves_csv(curves, servers=servers, models=models)
    else:
        found = tuple(curves)
    if not found:
        raise InputError("curves: are none; allowed is at least one")
    pairs = [(c.host.name, c.model.name) for c in found]
    twice = sorted({pair for pair in pairs if pairs.count(pair) > 1})
    if twice:
        raise InputError(
            f"curves: {', '.join(f'{m} on {h}' for h, m in twice)} twice; allowed is one of a model and host"
        )
    terms = terms.without("gpu_input")
    names = list(dict.fromkeys(host for host, _ in pairs))
    groups = [_Host([c for c in found if c.host.name == name], terms) for name in names]
    total = sum(group.fits for group in groups)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    hosts, fitted, errors = [], [], []
    for group in groups:
        host, lines, found_errors = group.calibrated(count)
        hosts.append(host)
        fitted += lines
        errors.append(found_errors)
    inside, batch_out, model_out = (np.concatenate([e[k] for e in errors]) for k in range(3))
    return Calibration(
        source=found[0].source,
        hosts=tuple(hosts),
        curves=tuple(fitted),
        median=_median(inside),
        batch_out=_median(batch_out),
        model_out=_median(model_out),
    )


def _median(errors: Array) -> float:
    known = np.abs(errors[~np.isnan(errors)])
    return float(np.median(known)) if known.size else float("nan")


class _Host:
    """The curves of one host, and the fits of its constants to parts of them."""

    def __init__(self, curves: Sequence[Curve], terms: Terms):
        self.curves = curves
        self.terms = terms
        self.server = curves[0].host
        self.knobs = GPU_KNOBS if self.server.gpu else CPU_KNOBS
        self.items = np.concatenate([c.items for c in curves])
        self.of = np.concatenate([np.full(c.items.size, k) for k, c in enumerate(curves)])
        self.measured = np.concatenate([c.run_ms for c in curves]) * 1e-3
        self.batches = np.unique(self.items)
        self.known: dict[tuple[float, ...], Array] = {}

    @property
    def fits(self) -> int:
        """Fits that :meth:`calibrated` makes."""
        return (
            1 + (self.batches.size if self.batches.size > 1 else 0) + (len(self.curves) if len(self.curves) > 1 else 0)
        )

    def with_constants(self, values: Mapping[str, float]) -> Server:
        """The server with these constants."""
        changes: dict[str, Any] = dict(values)
        if self.server.gpu:
            return replace(self.server, gpu=replace(self.server.gpu, **changes))
        return replace(self.server, cpu=replace(self.server.cpu, **changes))

    def described(self, values: Mapping[str, float]) -> Server:
        """The same, whose constants name the curves as their source."""
        server = self.with_constants(values)
        part = server.gpu or server.cpu
        sources = {}
        for key, text in part.sources.items():
            kept = [name for name in map(str.strip, key.split(",")) if name not in values]
            if kept:
                sources[", ".join(kept)] = text
        sources[", ".join(values)] = self.curves[0].mark
        if server.gpu:
            return replace(server, gpu=replace(server.gpu, sources=sources))
        return replace(server, cpu=replace(server.cpu, sources=sources))

    def values(self, times: Array) -> dict[str, float]:
        return {knob.name: knob.value(float(t)) for knob, t in zip(self.knobs, times, strict=True)}

    def errors(self, times: Array) -> Array:
        """Relative errors of all points, [P]."""
        key = tuple(times.tolist())
        if key not in self.known:
            self.known[key] = self.errors_of(self.values(times))
        return self.known[key]

    def errors_of(self, values: Mapping[str, float]) -> Array:
        server = self.with_constants(values)
        seconds = [lone_seconds(server, c.model, c.items, self.terms) for c in self.curves]
        errors: Array = np.concatenate(seconds) / self.measured - 1
        return errors

    def slopes(self, times: Array) -> Array:
        """Change of the relative errors with each time, [P, K]."""
        columns = []
        for k in range(times.size):
            low, high = times.copy(), times.copy()
            low[k] *= 1 - PROBE
            high[k] *= 1 + PROBE
            columns.append((self.errors(high) - self.errors(low)) / (high[k] - low[k]))
        return np.stack(columns, axis=1)

    def loss(self, times: Array, use: npt.NDArray[np.bool_], pull: float) -> float:
        e = self.errors(times)[use]
        return float(np.sqrt(e * e + SOFT * SOFT).sum() + pull / 2 * ((times - 1) ** 2).sum())

    def fit(self, use: npt.NDArray[np.bool_], start: Array | None = None) -> Array:
        """The times that meet the points ``use`` best."""
        times = np.ones(len(self.knobs)) if start is None else start
        per_curve = use.sum() / np.unique(self.of[use]).size
        spread = SPREAD if start is None else _median(self.errors(start)[use])
        for _ in range(ROUNDS if start is None else 1):
            times = self._descend(times, use, spread * per_curve / NEUTRAL**2)
            spread = _median(self.errors(times)[use])
        return times

    def _descend(self, times: Array, use: npt.NDArray[np.bool_], pull: float) -> Array:
        low, high = (np.array(ends) for ends in zip(*(knob.times for knob in self.knobs), strict=True))
        best = self.loss(times, use, pull)
        for _ in range(STEPS):
            e, slope = self.errors(times)[use], self.slopes(times)[use]
            weight = 1 / np.sqrt(e * e + SOFT * SOFT)
            normal = (slope * weight[:, None]).T @ slope + np.eye(times.size) * pull
            downhill = -((slope * weight[:, None]).T @ e + pull * (times - 1))
            free = ~(((times <= low) & (downhill < 0)) | ((times >= high) & (downhill > 0)))
            step = np.zeros_like(times)
            step[free] = np.linalg.solve(normal[np.ix_(free, free)], downhill[free])
            share = 1.0
            while share >= SHORTEST:
                there = np.minimum(high, np.maximum(low, times + share * step))
                loss = self.loss(there, use, pull)
                if loss < best:
                    break
                share /= 2
            else:
                break
            moved = np.abs(there - times).max()
            times, best = there, loss
            if moved <= SETTLED:
                break
        return times

    def calibrated(self, count: Callable[[], None]) -> tuple[HostFit, list[CurveFit], tuple[Array, Array, Array]]:
        """The host, a line for every curve, and all errors: in sample, each batch out, each model out."""
        everything = np.ones(self.items.size, dtype=bool)
        times = self.fit(everything)
        count()
        constants = {name: float(f"{value:.3g}") for name, value in self.values(times).items()}
        inside = self.errors_of(constants)
        batch_out = np.full(self.items.size, np.nan)
        if self.batches.size > 1:
            for batch in self.batches:
                left = self.items == batch
                batch_out[left] = self.errors(self.fit(~left, times))[left]
                count()
        model_out = np.full(self.items.size, np.nan)
        causes = [""] * len(self.curves)
        if len(self.curves) > 1:
            for k in range(len(self.curves)):
                left = self.of == k
                without = self.fit(~left)
                model_out[left] = self.errors(without)[left]
                causes[k] = self._cause(times, without, left)
                count()
        lines = []
        for k, curve in enumerate(self.curves):
            own = self.of == k
            size = np.abs(inside[own])
            lines.append(
                CurveFit(
                    model=curve.model.name,
                    host=self.server.name,
                    points=int(own.sum()),
                    median=_median(inside[own]),
                    worst=float(size.max()),
                    worst_batch=int(curve.items[size.argmax()]),
                    batch_out=_median(batch_out[own]),
                    batch_out_worst=float(np.abs(batch_out[own]).max()),
                    model_out=_median(model_out[own]),
                    model_out_worst=float(np.abs(model_out[own]).max()),
                    model_out_bias=float(np.median(model_out[own])),
                    cause=causes[k],
                )
            )
        host = HostFit(server=self.described(constants), constants=constants, points=self.items.size)
        return host, lines, (inside, batch_out, model_out)

    def _cause(self, times: Array, without: Array, left: npt.NDArray[np.bool_]) -> str:
        """The constant that, taken alone from the fit without the model, moves the model's times most."""
        here = self.errors(times)[left]
        moves = []
        for k in range(times.size):
            swapped = times.copy()
            swapped[k] = without[k]
            moves.append(float(np.median(np.abs(self.errors(swapped)[left] - here))))
        k = int(np.argmax(moves))
        knob = self.knobs[k]
        return f"{knob.name} {knob.value(float(without[k])):.3g} without it, {knob.value(float(times[k])):.3g} with"
