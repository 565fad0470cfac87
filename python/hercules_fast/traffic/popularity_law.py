"""How often each row of an embedding table is looked up, and which rows to keep where room is scarce.

A law becomes a curve: the share of lookups that the most popular rows answer, linear between breakpoints. The first
``EXACT`` rows are breakpoints; beyond them there are ``PARTS`` in each doubling, so the curve of a law lies within
1e-5 of its sum over all rows (held by a test).

The law of Zipf gives rank r the weight ``r**-exponent``. Powers are products of square roots, one for each binary digit
of the exponent: IEEE 754 rounds ``+ - * /`` and square roots correctly, so a curve is the same bytes on every machine,
which a libm's ``pow`` is not. A sum over the ranks from a to b is the integral by Simpson's rule with the first two
corrections of Euler and Maclaurin.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import gcd, isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hercules_fast.descriptors import validate
from hercules_fast.errors import ConfigError, Fault, InputError, MissingFileError
from hercules_fast.models import TableGroup
from hercules_fast.traffic.descriptors import Popularity
from hercules_fast.traffic.files import POPULARITY

__all__ = ["HotRows", "hit_share", "hot_rows", "popular_rows", "popularity_from_counts", "read_popularity_csv"]

EXACT = 256
"""Ranks up to this one are breakpoints."""
PARTS = 64
"""Breakpoints in a doubling of the rank, beyond ``EXACT``."""
DOUBLINGS = 32
"""Doublings beyond ``EXACT``: tables of up to 2**40 rows."""
EXPONENT_BITS = 30
"""Binary digits of an exponent after the point; what lies beyond them is rounded."""
MAX_FAULTS = 20
_SCATTER = 0x9E3779B1

_Float = npt.NDArray[np.float64]
_Int = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """Pieces of a table's rows, most popular first: ``edges`` int64 [K + 1] from 0 on, ``mass`` float64 [K]."""

    edges: _Int
    mass: _Float
    """Share of the lookups that the rows of a piece answer together."""

    def share(self, kept: int) -> float:
        """Share of the lookups that the ``kept`` most popular rows answer."""
        if kept >= self.edges[-1]:
            return 1.0
        piece = int(np.searchsorted(self.edges, kept, side="right")) - 1
        whole = float(np.cumsum(self.mass[:piece])[-1]) if piece else 0.0
        part = (kept - int(self.edges[piece])) / int(self.edges[piece + 1] - self.edges[piece])
        return min(1.0, whole + part * float(self.mass[piece]))


def hit_share(law: Popularity, rows: int, kept: int) -> float:
    """Share of the lookups into a table of ``rows`` rows that its ``kept`` most popular rows answer.

    Raises:
        InputError: a number of rows below 1, or ``kept`` outside 0 to ``rows``.
        ConfigError: a law that files would be refused for.
    """
    validate(POPULARITY, law)
    if not 1 <= rows <= EXACT << DOUBLINGS:
        raise InputError(f"rows: is {rows}; allowed is 1 to {EXACT << DOUBLINGS}")
    if not 0 <= kept <= rows:
        raise InputError(f"kept: is {kept}; allowed is 0 to rows = {rows}")
    return _curve(law, rows).share(kept)


@dataclass(frozen=True, kw_only=True, slots=True)
class HotRows:
    """The rows of a model's tables that are kept, and the lookups that they answer; tuples run over table groups."""

    rows: tuple[int, ...]
    """Most popular rows kept of each table of a group."""
    shares: tuple[float, ...]
    """Share of the lookups of a group that they answer."""
    bytes: int
    """Bytes of all kept rows."""
    share: float
    """Share of all lookups that they answer."""


def popular_rows(law: Popularity, rows: int, shares: _Float) -> _Int:
    """The rows that lookups ask for, int64, given ``shares``: float64 [lookups], uniform in [0, 1).

    The share is taken along the curve, the most popular rank first; ranks are scattered over the table by a
    multiplicative permutation, as hashing of features does.

    Raises:
        InputError: a number of rows below 1.
        ConfigError: a law that files would be refused for.
    """
    validate(POPULARITY, law)
    if not 1 <= rows < 1 << 31:
        raise InputError(f"rows: is {rows}; allowed is 1 to {(1 << 31) - 1}")
    curve = _curve(law, rows)
    below = np.concatenate(([0.0], np.cumsum(curve.mass)))
    # The last sum may be just below 1; pieces without mass answer nothing.
    wanted = shares * below[-1]
    piece = np.minimum(np.searchsorted(below, wanted, side="right") - 1, int(np.flatnonzero(curve.mass)[-1]))
    within = (wanted - below[piece]) / curve.mass[piece]
    first, last = curve.edges[piece], curve.edges[piece + 1]
    rank = np.minimum(first + (within * (last - first)).astype(np.int64), last - 1)
    step = _SCATTER
    while gcd(step, rows) != 1:
        step += 1
    scattered: _Int = rank * (step % rows) % rows
    return scattered


def hot_rows(law: Popularity, tables: Sequence[TableGroup], limit_bytes: float) -> HotRows:
    """The rows to keep within ``limit_bytes`` so that as many lookups as possible find theirs.

    Rows are taken by lookups per byte, the densest first; tables of a group keep the same rows. That is the best there
    is but for the last step: the rest, less than one row of each table of a group, stays empty.

    Raises:
        InputError: ``limit_bytes`` is negative or not finite.
        ConfigError: a law that files would be refused for.
    """
    validate(POPULARITY, law)
    if not (isfinite(limit_bytes) and limit_bytes >= 0):
        raise InputError(f"limit_bytes: is {limit_bytes!r}; allowed is finite and >= 0")
    curves = [_curve(law, group.rows) for group in tables]
    density, size, owner = [], [], []
    for g, (group, curve) in enumerate(zip(tables, curves, strict=True)):
        widths = np.diff(curve.edges)
        per_byte = group.pooling * curve.mass / (widths * group.row_bytes)
        density.append(np.minimum.accumulate(per_byte))  # rounding must not put a rank before the one above it
        size.append(widths * (group.count * group.row_bytes))
        owner.append(np.full(widths.size, g))
    order = np.argsort(-np.concatenate(density), kind="stable")
    sizes, owners = np.concatenate(size)[order], np.concatenate(owner)[order]
    limit = int(limit_bytes)
    whole = int(np.searchsorted(np.cumsum(sizes), limit, side="right"))
    taken = np.bincount(owners[:whole], minlength=len(curves))
    kept = [int(curve.edges[pieces]) for curve, pieces in zip(curves, taken, strict=True)]
    if whole < sizes.size:
        g = int(owners[whole])
        kept[g] += (limit - int(sizes[:whole].sum())) // (tables[g].count * tables[g].row_bytes)
    shares = [curve.share(rows) for curve, rows in zip(curves, kept, strict=True)]
    lookups = [group.count * group.pooling for group in tables]
    found = sum(n * share for n, share in zip(lookups, shares, strict=True))
    return HotRows(
        rows=tuple(kept),
        shares=tuple(shares),
        bytes=sum(group.count * rows * group.row_bytes for group, rows in zip(tables, kept, strict=True)),
        share=found / sum(lookups) if lookups else 0.0,
    )


# -- curves ------------------------------------------------------------------------------------------------------------


def _curve(law: Popularity, rows: int) -> _Curve:
    if law.kind == "uniform":
        return _Curve(np.array([0, rows]), np.ones(1))
    edges, mass = _zipf(law.exponent) if law.kind == "zipf" else _points(law.rows, law.shares)
    inside = int(np.searchsorted(edges, rows, side="left"))  # edges below `rows`
    if inside >= edges.size:
        last = mass[:0]
        inside = edges.size
    else:
        part = (rows - int(edges[inside - 1])) / int(edges[inside] - edges[inside - 1])
        last = mass[inside - 1 : inside] * part
    cut = np.concatenate((mass[: inside - 1], last))
    whole = float(np.cumsum(cut)[-1])
    if inside >= edges.size and edges[-1] < rows:  # rows that nobody looks up
        cut = np.append(cut, 0.0)
    return _Curve(np.append(edges[:inside], rows), cut / whole)


def _points(rows: tuple[int, ...], shares: tuple[float, ...]) -> tuple[_Int, _Float]:
    return np.array((0, *rows), dtype=np.int64), np.diff(np.array((0.0, *shares)))


def _breakpoints() -> _Int:
    parts = np.arange(PARTS + 1, 2 * PARTS + 1, dtype=np.int64)
    scale = EXACT // PARTS
    return np.concatenate((np.arange(EXACT + 1), *(parts * (scale << k) for k in range(DOUBLINGS))))


@cache
def _zipf(exponent: float) -> tuple[_Int, _Float]:
    """Edges and masses, the first rank's being 1."""
    edges = _breakpoints()
    a, b = edges[EXACT:-1].astype(np.float64), edges[EXACT + 1 :].astype(np.float64)
    first = 1.0 / _power(edges[1 : EXACT + 1].astype(np.float64), exponent)
    f_a, f_mid, f_b = (1.0 / _power(x, exponent) for x in (a, (a + b) / 2.0, b))
    integral = (b - a) * (f_a + 4.0 * f_mid + f_b) / 6.0
    slopes = exponent * (f_a / a - f_b / b)  # f'(b) - f'(a)
    return edges, np.concatenate((first, integral + (f_b - f_a) / 2.0 + slopes / 12.0))


def _power(base: _Float, exponent: float) -> _Float:
    """``base ** exponent`` for ``base`` >= 1 and ``exponent`` >= 0, rounded to ``EXPONENT_BITS`` binary digits."""
    digits = round(exponent * (1 << EXPONENT_BITS))
    whole, root = np.ones_like(base), base
    for _ in range(digits >> EXPONENT_BITS):
        whole = whole * base
    for bit in range(EXPONENT_BITS - 1, -1, -1):
        root = np.sqrt(root)
        if digits >> bit & 1:
            whole = whole * root
    return whole


# -- a user's own ------------------------------------------------------------------------------------------------------


def popularity_from_counts(counts: npt.ArrayLike, *, name: str = "counted") -> Popularity:
    """The law of counted accesses: ``counts`` [rows], in any order, of the rows of a table.

    Tables with fewer rows have the same law over their own; those with more have rows that nobody looks up.

    Raises:
        InputError: no counts, counts that are negative or not finite, or all 0.
    """
    array = np.asarray(counts)
    if array.dtype.kind not in "iuf" or array.ndim != 1 or not array.size:
        raise InputError(f"counts: is {array.dtype} of shape {array.shape}; allowed are numbers of shape [rows >= 1]")
    given = array.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
    if bad.size:
        raise InputError(f"counts[{bad[0]}]: is {given[bad[0]]}; allowed is finite and >= 0")
    total = np.cumsum(np.sort(given)[::-1])
    if not 0 < total[-1] < np.inf:
        raise InputError(f"counts: sum to {total[-1]}; allowed is a finite sum > 0")
    used = int(np.searchsorted(total, total[-1], side="left")) + 1
    points = _breakpoints()[1:]
    rows = np.append(points[points < used], used)
    shares = total[rows - 1] / total[-1]
    return Popularity(name=name, kind="histogram", rows=tuple(rows.tolist()), shares=tuple(shares.tolist()))


def read_popularity_csv(path: str | Path) -> Popularity:
    """The law of counted accesses in a CSV file with a column ``accesses``, one line for each row of a table.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: the first 20 problems of the file, with their lines.
    """
    path = Path(path)
    counts: list[float] = []
    faults: list[Fault] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "accesses" not in (reader.fieldnames or ()):
                raise ConfigError(
                    str(path), [Fault("line 1", f"columns are {reader.fieldnames}; needed is 'accesses'")]
                )
            for row in reader:
                try:
                    count = float(row["accesses"] or "")
                except ValueError:
                    count = -1.0
                if not (isfinite(count) and count >= 0):
                    seen = row["accesses"]
                    faults.append(Fault(f"line {reader.line_num}", f"accesses is {seen!r}; allowed is a number >= 0"))
                    if len(faults) == MAX_FAULTS:
                        break
                counts.append(count)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(str(path), [Fault("", f"cannot be read: {error}")]) from error
    if not faults and not any(counts):
        faults.append(Fault("accesses", "at least one count above 0 is needed"))
    if faults:
        raise ConfigError(str(path), faults)
    return popularity_from_counts(np.array(counts), name=path.stem)
