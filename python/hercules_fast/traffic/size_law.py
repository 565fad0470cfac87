"""Exact query-size laws: the probability of every size, the same bits on every machine.

A real draw is truncated to a whole number, redrawn where ``keep`` says so, and clipped to 1..``max_items``, so the
probability of size n is a difference of cumulative probabilities at n + 1 and n. Those are computed with + - * /
only (own exponential, logarithm and error function) and rounded to multiples of 2^-40; sums of probabilities are
then exact in float64, whatever their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isfinite

import numpy as np
import numpy.typing as npt

from hercules_fast.descriptors import validate
from hercules_fast.errors import InputError
from hercules_fast.traffic.descriptors import SizeComponent, SizeLaw
from hercules_fast.traffic.files import SIZES

__all__ = ["UNITS", "size_mean", "size_pmf", "size_quantile", "size_units"]

UNITS = 2**40
"""Probabilities are whole multiples of 1/UNITS."""

_Float = npt.NDArray[np.float64]


def size_units(law: SizeLaw) -> npt.NDArray[np.int64]:
    """Return the cumulative law as int64 [max_items]: P(size <= i + 1) in multiples of 1 / ``UNITS``; last = UNITS.

    This is what a sampler compares a 40-bit random number with. Raises :class:`ConfigError` for a law that files
    would be refused for.
    """
    validate(SIZES, law)
    # Whole number n is drawn below k + 1 exactly when n <= k, so row i holds P(draw < i + 2).
    bounds = np.arange(2, law.max_items + 2, dtype=np.float64)
    cumulative = np.zeros(law.max_items)
    for component in law.components:  # in file order: float addition does not commute with itself
        cumulative += component.weight * _below(component, bounds)
    rounded = np.rint(np.clip(cumulative, 0.0, 1.0) * UNITS).astype(np.int64)
    rounded = np.maximum.accumulate(rounded)  # rounding errors of the tails must not make a negative probability
    rounded[-1] = UNITS
    return rounded


def size_pmf(law: SizeLaw) -> _Float:
    """Return P(size = i + 1) as float64 [max_items]; multiples of 2^-40 whose sum is exactly 1."""
    shares: _Float = np.diff(size_units(law), prepend=0) / float(UNITS)
    return shares


def size_mean(law: SizeLaw) -> float:
    """Return the mean size in items."""
    share = np.diff(size_units(law), prepend=0)
    sizes = np.arange(1, law.max_items + 1)
    return int(np.dot(share, sizes)) / UNITS  # at most 2^40 * 10^6: no overflow, and exact


def size_quantile(law: SizeLaw, fraction: float) -> int:
    """Return the smallest size s with P(size <= s) >= ``fraction``, which must be in (0, 1]."""
    if not (isinstance(fraction, int | float) and isfinite(fraction) and 0 < fraction <= 1):
        raise InputError(f"fraction is {fraction!r}; allowed: a number > 0 and <= 1")
    return int(np.searchsorted(size_units(law), fraction * UNITS, side="left")) + 1


def _below(component: SizeComponent, bounds: _Float) -> _Float:
    """P(size < bound) of one component before clipping, ``bounds`` being whole numbers."""
    plain = _below_plain(component, bounds)
    if component.keep is None or component.redraw is None:
        return plain
    low, high = component.keep
    outside_low, kept_below = _below_plain(component, np.array([float(low), float(high + 1)]))
    kept = kept_below - outside_low
    inside = np.clip(plain - outside_low, 0.0, kept)
    below: _Float = inside + (1.0 - kept) * _uniform_below(component.redraw, bounds)
    return below


def _below_plain(component: SizeComponent, bounds: _Float) -> _Float:
    match component.kind:
        case "uniform":
            return _uniform_below((component.low, component.high), bounds)
        case "fixed":
            return (bounds > component.value).astype(np.float64)
        case "empirical":
            return _empirical_below(component.values, component.probabilities, bounds)
        case "normal":
            return _normal_below((bounds - component.mean) / component.sd)
        case "lognormal":
            # Truncation cannot tell 0 from below: a bound of 0 has nothing below it.
            logs = _log(np.maximum(bounds, 1.0))
            below = _normal_below((logs - component.mu) / component.sigma)
            return np.where(bounds < 1.0, 0.0, below)


def _uniform_below(interval: tuple[int, int], bounds: _Float) -> _Float:
    low, high = interval
    return np.clip((bounds - low) / float(high - low + 1), 0.0, 1.0)


def _empirical_below(values: Sequence[int], probabilities: Sequence[float], bounds: _Float) -> _Float:
    cumulative = np.array([0.0, *accumulate(probabilities)])
    return cumulative[np.searchsorted(np.asarray(values), bounds, side="left")]


# --- elementary functions from + - * / (NumPy's own change their last bits with the instruction set) ------------------

_LN2 = 0.6931471805599453
_LN2_HIGH = 0.6931471803691238  # 32 leading bits, so that whole multiples are exact
_LN2_LOW = 1.9082149292705877e-10
_SQRT_HALF = 0.7071067811865476
_TWO_OVER_SQRT_PI = 1.1283791670955126


def _log(x: _Float) -> _Float:
    """Natural logarithm of positive numbers, |relative error| < 1e-15: x = m * 2^e, log m by its atanh series."""
    mantissa, exponent = np.frexp(x)  # exact; mantissa in [0.5, 1)
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    exponent = exponent - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = np.zeros_like(s)
    for odd in range(25, 0, -2):  # |s| <= 0.1716: the first term left out is below 1e-21
        series = series * square + 1.0 / odd
    return exponent * _LN2_HIGH + (2.0 * s * series + exponent * _LN2_LOW)


def _exp(x: _Float) -> _Float:
    """Exponential for -700 <= x <= 0, relative error < 1e-15: x = k ln 2 + r, then Taylor."""
    k = np.rint(x / _LN2)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    series = np.ones_like(r)
    for n in range(14, 0, -1):  # |r| <= 0.35: the first term left out is below 1e-19
        series = series * r / n + 1.0
    return np.ldexp(series, k.astype(np.int64))


def _erf_positive(x: _Float) -> _Float:
    """Error function for 0 <= x <= 6, absolute error < 1e-14.

    2/sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (1*3*..*(2n+1)): all terms are positive, so nothing cancels.
    """
    square = x * x
    term = x.copy()
    total = x.copy()
    for n in range(1, 161):  # at x = 6 the last ratio of terms is 0.22 and the rest below 1e-17 of the sum
        term = term * (2.0 * square) / (2 * n + 1)
        total = total + term
    return _TWO_OVER_SQRT_PI * _exp(-square) * total


def _normal_below(z: _Float) -> _Float:
    """Cumulative standard normal law, absolute error < 1e-14."""
    x = np.minimum(np.abs(z) * _SQRT_HALF, 6.0)  # 1 - erf(6) is 2e-17
    erf = np.minimum(_erf_positive(x), 1.0)
    return np.where(z < 0.0, 0.5 * (1.0 - erf), 0.5 * (1.0 + erf))
