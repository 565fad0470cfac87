"""MLPerf's rule for a valid run of its Server scenario, for comparability."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import InputError

__all__ = ["mlperf_server_valid"]


def mlperf_server_valid(latencies: npt.ArrayLike, target: float, p: float = 0.99, c: float = 0.99) -> bool:
    """Whether MLPerf's early stopping would call the run valid: with confidence ``c``, a share ``p`` is in time.

    With t of n latencies above the target the run passes when P(Bin(n, 1 - p) <= t) <= 1 - c
    (``loadgen/early_stopping.cc`` of mlcommons/inference, with its tolerance d = 0).

    The rule takes queries for independent. Under load they are not, so it is optimistic: use the intervals of
    :func:`hercules_fast.simulate` to decide, and this to compare. MLPerf also asks for 600 s of run time.

    Args:
        latencies: float [N], N >= 1.
        target: in the unit of ``latencies``; a latency equal to it is in time.
        p: between 0 and 1. c: between 0 and 1.

    Raises:
        InputError: an argument is outside what is allowed; the message names it.
    """
    values = np.asarray(latencies)
    if values.dtype.kind not in "iuf" or values.ndim != 1 or not values.size:
        raise InputError(f"latencies: is {values.dtype} {values.shape}; allowed are numbers [N], N >= 1")
    for name, value, allowed, ok in (
        ("target", target, "a finite number above 0", 0.0 < target < math.inf),
        ("p", p, "a number between 0 and 1", 0.0 < p < 1.0),
        ("c", c, "a number between 0 and 1", 0.0 < c < 1.0),
    ):
        if not ok:
            raise InputError(f"{name}: is {value!r}; allowed is {allowed}")
    if np.isnan(values).any():
        raise InputError(f"latencies[{int(np.argmax(np.isnan(values)))}]: is nan; allowed are numbers")
    over = int(np.count_nonzero(values > target))
    return _binomial_below(over, values.size, 1.0 - p) <= 1.0 - c


def _binomial_below(t: int, n: int, q: float) -> float:
    """P(Bin(n, q) <= t): the term at t, then the terms below it by their ratios, until they no longer count."""
    if t >= n:
        return 1.0
    if t > n * q:
        return 1.0 - _binomial_below(n - t - 1, n, 1.0 - q)
    term = total = _binomial_term(t, n, q)
    for k in range(t, 0, -1):
        term *= k * (1.0 - q) / ((n - k + 1) * q)
        total += term
        if term < 1e-18 * total:
            break
    return total


def _binomial_term(k: int, n: int, q: float) -> float:
    """P(Bin(n, q) = k) by Stirling's formula with its error terms: log-gamma itself loses ten digits at n = 1e9.

    Loader, "Fast and accurate computation of binomial probabilities" (2000), without its series for the deviances.
    """
    if k in (0, n):
        return math.exp(n * (math.log1p(-q) if k == 0 else math.log(q)))
    deviance = _deviance(k, n * q) + _deviance(n - k, n * (1.0 - q))
    error = _stirling_error(n) - _stirling_error(k) - _stirling_error(n - k)
    return math.exp(error - deviance) * math.sqrt(n / (2.0 * math.pi * k * (n - k)))


def _deviance(x: float, mean: float) -> float:
    """x ln(x / mean) + mean - x."""
    u = (x - mean) / mean
    return mean * ((1.0 + u) * math.log1p(u) - u)


def _stirling_error(n: int) -> float:
    """ln n! less Stirling's formula."""
    if n < 16:
        return math.lgamma(n + 1.0) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2.0 * math.pi)
    square = 1.0 / (n * n)
    return (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / n
