"""Query-size laws, slowly: one size at a time with the C library's functions, and by drawing.

``probabilities`` adds up, for each whole number that a draw can be truncated to, where it ends: kept, redrawn or
clipped. ``draw`` does literally what the papers' load generators do.
"""

from __future__ import annotations

import math
import random

from hercules_fast.traffic import SizeComponent, SizeLaw


def probabilities(law: SizeLaw) -> list[float]:
    """P(size = i + 1)."""
    result = [0.0] * law.max_items
    for part in law.components:
        keep = part.keep or (-(10**9), 10**9)
        chance_out = 1.0
        for whole in range(-1000, law.max_items + 2000):
            chance = _chance_of_whole(part, whole)
            if keep[0] <= whole <= keep[1]:
                result[min(max(whole, 1), law.max_items) - 1] += part.weight * chance
                chance_out -= chance
        if part.redraw is not None:
            low, high = part.redraw
            for whole in range(low, high + 1):
                result[min(whole, law.max_items) - 1] += part.weight * chance_out / (high - low + 1)
    return result


def _chance_of_whole(part: SizeComponent, whole: int) -> float:
    """P(the draw, truncated towards zero, is ``whole``)."""
    if part.kind == "uniform":
        return (part.low <= whole <= part.high) / (part.high - part.low + 1)
    if part.kind == "fixed":
        return float(whole == part.value)
    if part.kind == "empirical":
        return dict(zip(part.values, part.probabilities, strict=True)).get(whole, 0.0)
    below, above = (whole, whole + 1) if whole > 0 else ((-1, 1) if whole == 0 else (whole - 1, whole))
    return _cumulative(part, above) - _cumulative(part, below)


def _cumulative(part: SizeComponent, x: float) -> float:
    if part.kind == "normal":
        return _phi((x - part.mean) / part.sd)
    return 0.0 if x <= 0 else _phi((math.log(x) - part.mu) / part.sigma)


def _phi(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def draw(law: SizeLaw, stream: random.Random) -> int:
    """One query size, as a load generator draws it."""
    part = stream.choices(law.components, weights=[c.weight for c in law.components])[0]
    size = _draw_whole(part, stream)
    if part.keep is not None and part.redraw is not None and not part.keep[0] <= size <= part.keep[1]:
        size = stream.randint(*part.redraw)
    return min(max(size, 1), law.max_items)


def _draw_whole(part: SizeComponent, stream: random.Random) -> int:
    if part.kind == "uniform":
        return stream.randint(part.low, part.high)
    if part.kind == "lognormal":
        return int(stream.lognormvariate(part.mu, part.sigma))
    if part.kind == "normal":
        return int(stream.gauss(part.mean, part.sd))
    if part.kind == "fixed":
        return part.value
    return stream.choices(part.values, weights=part.probabilities)[0]
