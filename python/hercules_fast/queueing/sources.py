"""Where queries come from: laws at a rate, or a recorded trace."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.descriptors import Bound, validate
from hercules_fast.errors import ConfigError, DTypeError, Fault, InputError
from hercules_fast.queueing.checks import Checks
from hercules_fast.queueing.laws import law_to_core
from hercules_fast.tables import read_arrays, write_atomically
from hercules_fast.traffic import Arrivals, SizeLaw, size_pmf
from hercules_fast.traffic.files import ARRIVALS

__all__ = ["POISSON", "QPS", "Queries", "Source", "Trace"]

SCHEMA = "hercules_fast.query_trace/1"
MAX_BYTES = 1 << 36
"""Largest trace file, unpacked, that is read: some four thousand million queries."""
MAX_ITEMS = 1_000_000
MAX_ARRIVAL_S = 1e10
"""float64 resolves two microseconds there. Unix seconds fit; milliseconds are a mistake."""
QPS = Bound(1e-12, 1e15)

POISSON = Arrivals(name="poisson", kind="poisson")

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Queries:
    """Queries at a mean rate of ``qps``, drawn from laws. The same seed gives the same queries to every system.

    Raises:
        ConfigError: with every fault, each with its field, value and what is allowed.
    """

    qps: float
    arrivals: Arrivals = POISSON
    sizes: SizeLaw | None = None
    """Items of a query; None: one."""

    def __post_init__(self) -> None:
        checks = Checks("queries")
        checks.number("qps", self.qps, QPS)
        checks.need(isinstance(self.arrivals, Arrivals), "arrivals", self.arrivals, "an Arrivals")
        checks.need(self.sizes is None or isinstance(self.sizes, SizeLaw), "sizes", self.sizes, "a SizeLaw or None")
        checks.done()
        validate(ARRIVALS, self.arrivals)
        self.size_pmf()

    def size_pmf(self) -> _Floats:
        """P(k + 1 items), float64 [most items]."""
        return np.ones(1) if self.sizes is None else size_pmf(self.sizes)

    def to_core(self) -> dict[str, Any]:
        """Plain data for the core."""
        a = self.arrivals
        group = list(a.group) or None
        match a.kind:
            case "mmpp":
                chain = {"rates": list(a.rates), "switch": [list(row) for row in a.switch_per_s]}
                return {"kind": "mmpp", **chain, "group": group}
            case "rates":
                ends = {"from": list(a.rates), "to": list(a.end_rates or a.rates)}
                return {"kind": "rates", "durations_s": list(a.durations_s), **ends, "group": group}
            case "diurnal":
                return {"kind": "diurnal", "amplitude": a.amplitude, "period_s": a.period_s, "group": group}
        law = law_to_core("exponential" if a.kind == "poisson" else a.kind, a)
        return {"kind": "law", **law, "group": group}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trace:
    """Recorded queries, replayed without a random number for their times.

    Attributes:
        arrival_s: float64 [N], seconds, from 0, not decreasing within a part. Not copied: leave it alone while in use.
        sizes: int64 [N], items of each query, or None: drawn from ``size_law``.
        starts: int64 [parts], first query of each part, 0 first. Each part begins with an empty system at time 0.
        size_law: law of the sizes where there are none; None: one item.
        rate_scale: the trace is replayed so many times as fast.
        cycles: how often it is repeated. cycle_s: seconds from one beginning to the next, before ``rate_scale``, at
            least the last arrival; needed, and one part, where ``cycles`` > 1.

    Raises:
        DTypeError: an array has another type.
        InputError: a time is NaN, negative or before the one before it, or a size is below 1 (the index is named); or a
            number is outside what is allowed.
    """

    arrival_s: _Floats
    sizes: _Ints | None = None
    starts: _Ints = field(default_factory=lambda: np.zeros(1, np.int64))
    size_law: SizeLaw | None = None
    rate_scale: float = 1.0
    cycles: int = 1
    cycle_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrival_s", _readable("arrival_s", self.arrival_s, np.float64))
        object.__setattr__(self, "starts", _readable("starts", self.starts, np.int64))
        n = len(self.arrival_s)
        _check_starts(self.starts, n)
        _check_times(self.arrival_s, self.starts)
        if self.sizes is not None:
            object.__setattr__(self, "sizes", _readable("sizes", self.sizes, np.int64))
            if len(self.sizes) != n:
                raise InputError(f"sizes: has {len(self.sizes)} entries; allowed is one per arrival, {n}")
            if n and not (self.sizes.min() >= 1 and self.sizes.max() <= MAX_ITEMS):
                i = int(np.argmax((self.sizes < 1) | (self.sizes > MAX_ITEMS)))
                raise InputError(f"sizes[{i}]: is {self.sizes[i]}; allowed is 1 to {MAX_ITEMS} items")
        checks = Checks("trace")
        checks.need(self.sizes is None or self.size_law is None, "size_law", self.size_law, "None beside sizes")
        checks.number("rate_scale", self.rate_scale, Bound(1e-9, 1e9))
        if checks.whole("cycles", self.cycles, 1) and self.cycles > 1:
            allowed = "one part where cycles > 1"
            if checks.need(len(self.starts) == 1, "starts", self.starts, allowed):
                bound = Bound(max(float(self.arrival_s[-1]), 1e-9), MAX_ARRIVAL_S)
                checks.number("cycle_s", self.cycle_s, bound)
        else:
            checks.need(self.cycle_s is None, "cycle_s", self.cycle_s, "None where the trace is not repeated")
        checks.done()

    @property
    def queries(self) -> int:
        """Queries of a whole replay."""
        return len(self.arrival_s) * self.cycles

    @property
    def qps(self) -> float:
        """Mean rate of the replay: queries over the time from 0 to the last arrival of each part (or over a cycle)."""
        if self.cycle_s is not None:
            span_s = self.cycle_s
        else:
            span_s = float(self.arrival_s[np.append(self.starts[1:], len(self.arrival_s)) - 1].sum())
        return len(self.arrival_s) / span_s * self.rate_scale if span_s > 0 else float("inf")

    def size_pmf(self) -> _Floats:
        """P(k + 1 items), float64 [most items]; of a trace with sizes, their shares."""
        if self.sizes is not None:
            return np.bincount(self.sizes)[1:] / len(self.sizes)
        return np.ones(1) if self.size_law is None else size_pmf(self.size_law)

    def to_core(self) -> dict[str, Any]:
        """Plain data for the core; the arrays are ours, not copies."""
        parts = {"starts": self.starts.tolist(), "cycles": self.cycles, "cycle_s": self.cycle_s}
        arrays = {"arrival_s": self.arrival_s, "sizes": self.sizes}
        return {"kind": "trace", **arrays, **parts, "rate_scale": float(self.rate_scale)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write times, sizes, parts and repetition to ``path`` (.npz with a JSON header, no pickle), all or nothing.

        Raises:
            InputError: the sizes are a law, which the file cannot hold.
            OutputError: the file cannot be written; what stood there is untouched.
        """
        if self.size_law is not None:
            raise InputError("size_law: is given; allowed is a trace whose sizes are recorded, or one item each")
        numbers = {"rate_scale": self.rate_scale, "cycles": self.cycles, "cycle_s": self.cycle_s}
        header = json.dumps({"schema": SCHEMA, **numbers}, sort_keys=True).encode()
        sizes = np.zeros(0, np.int64) if self.sizes is None else self.sizes
        buffer = io.BytesIO()
        arrays = {"arrival_s": self.arrival_s, "sizes": sizes, "starts": self.starts}
        np.savez(buffer, header=np.frombuffer(header, np.uint8), **arrays)  # type: ignore[arg-type]
        write_atomically(Path(path), buffer.getbuffer())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace that :meth:`save` wrote.

        Raises:
            MissingFileError: there is no such file.
            ConfigError: the file is no trace, or what it holds is not allowed.
        """
        source = os.fspath(path)
        header, arrays = read_arrays(source, SCHEMA, ("arrival_s", "sizes", "starts"), MAX_BYTES)
        sizes = arrays.pop("sizes")
        try:
            return cls(**(header | arrays), sizes=sizes if len(sizes) else None)
        except (TypeError, InputError) as error:
            raise ConfigError(source, [Fault("", f"is not a query trace: {error}")]) from error


Source = Queries | Trace


def _readable(field: str, array: object, dtype: Any) -> npt.NDArray[Any]:
    """A view of ``array`` through which nobody writes; a copy only where it is not contiguous."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        seen = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DTypeError(f"{field}: is {seen}; allowed is a NumPy array of {np.dtype(dtype)} [N]")
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


def _check_starts(starts: _Ints, n: int) -> None:
    if not n:
        raise InputError("arrival_s: is empty; allowed is at least one query")
    if not len(starts) or starts[0] != 0 or starts[-1] >= n or np.any(starts[1:] <= starts[:-1]):
        raise InputError(f"starts: is {starts}; allowed are positions below {n} that start at 0 and increase")


def _check_times(times: _Floats, starts: _Ints) -> None:
    """The only array made is one of bytes, unless something is wrong."""
    if not (times.min() >= 0.0 and times.max() <= MAX_ARRIVAL_S):  # NaN is neither
        i = int(np.argmin((times >= 0.0) & (times <= MAX_ARRIVAL_S)))
        raise InputError(f"arrival_s[{i}]: is {times[i]}; allowed is 0 to {MAX_ARRIVAL_S:g} seconds")
    falls = times[1:] < times[:-1]
    falls[starts[1:] - 1] = False
    if falls.any():
        i = int(np.argmax(falls)) + 1
        raise InputError(f"arrival_s[{i}]: is {times[i]}, before arrival_s[{i - 1}] = {times[i - 1]}; sort the trace")
