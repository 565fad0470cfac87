"""A lower bound on the power of any plan, from stock prices alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hercules_fast.provisioning.problem import FloatArray

__all__ = ["load_prices", "price_bound"]

# Elements of the [intervals, types, workloads] array that one chunk may hold: 32 MiB.
_CHUNK_ELEMENTS = 4 << 20


def load_prices(
    qps: FloatArray, power_w: FloatArray, stock: npt.ArrayLike, u: FloatArray, penalty: FloatArray
) -> FloatArray:
    """Price of each workload's load, W per q/s, given the price of each machine.

    ``v[t, w] = min(penalty[t, w], min_h (power_w[h, w] + u[t, h]) / qps[h, w])`` over the types h that are eligible
    and in stock. Shapes: ``qps``, ``power_w`` [H, W]; ``stock`` [H]; ``u`` [T, H]; ``penalty`` [T, W]. Returns [T, W].
    """
    usable = (qps > 0) & (np.asarray(stock) > 0)[:, None]
    rate = np.where(usable, qps, 1.0)
    base = np.where(usable, power_w, np.inf)
    prices = np.empty((len(u), qps.shape[1]))
    step = max(1, _CHUNK_ELEMENTS // qps.size)
    for start in range(0, len(u), step):
        part = slice(start, start + step)
        dearest = ((base + u[part, :, None]) / rate).min(axis=1)
        prices[part] = np.minimum(dearest, penalty[part])
    return prices


def price_bound(
    qps: FloatArray,
    power_w: FloatArray,
    demand_qps: FloatArray,
    stock: npt.ArrayLike,
    u: FloatArray,
    penalty: FloatArray,
) -> FloatArray:
    """Lower bound [T], in watts, on every plan of every interval, fractional or whole.

    With stock prices u >= 0 the workloads decouple, and weak duality gives
    ``g(u) = sum_w demand[w] v[w] - sum_h stock[h] u[h]``, v as in :func:`load_prices`. It holds for *any* u, so it
    certifies an answer whatever produced it; the objective it bounds is ``power + penalty . shed``.

    Shapes: ``qps``, ``power_w`` [H, W]; ``demand_qps`` [T, W]; ``stock`` [H]; ``u`` [T, H], W per machine, negative
    entries are read as 0; ``penalty`` [T, W], W per q/s that is shed.
    """
    u = np.maximum(u, 0.0)
    v = load_prices(qps, power_w, stock, u, penalty)
    return np.asarray((demand_qps * v).sum(axis=1) - (np.asarray(stock) * u).sum(axis=1), dtype=np.float64)
