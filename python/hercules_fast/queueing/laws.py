"""How long a service takes: a law, a line in the number of items, or a table, the latter two times noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from math import fsum
from typing import Any, ClassVar, Literal

from hercules_fast.descriptors import FILE_RULES, Bound
from hercules_fast.queueing.checks import MAX_SECONDS, Checks, as_tuple, is_whole

__all__ = ["LAW_FIELDS", "Law", "LawFields", "LawService", "LinearService", "Service", "TableService", "law_to_core"]

LAW_FIELDS: dict[str, tuple[str, ...]] = {
    "exponential": (),
    "deterministic": (),
    "erlang": ("k",),
    "gamma": ("shape",),
    "lognormal": ("sigma",),
    "uniform": ("low", "high"),
    "hyperexponential": ("probabilities", "rates"),
    "empirical": ("values", "probabilities"),
    "deeprecsys-gap": ("mean_ticks",),
    "replay": ("values",),
}
"""Kind of law -> its parameters, in the order of the core."""

SECONDS = Bound(1e-12, MAX_SECONDS)
_PART = Bound(0.0, MAX_SECONDS)
_POSITIVE = Bound(1e-12, 1e12)
_NOT_NEGATIVE = Bound(0.0, 1e12)
_SHARE = Bound(0.0, 1.0)
_SUM_SLACK = 1e-9
_BOUNDS = {
    "shape": Bound(0.01, 1e4),
    "sigma": Bound(0.0, 5.0, low_open=True),
    "mean_ticks": Bound(0.1, 1e6),
    "low": _NOT_NEGATIVE,
    "high": _POSITIVE,
    "rates": _POSITIVE,
    "values": _NOT_NEGATIVE,
    "probabilities": _SHARE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LawFields:
    """The fields of a :class:`Law`, not yet checked: what a file says."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = FILE_RULES

    kind: Literal[
        "exponential",
        "deterministic",
        "erlang",
        "gamma",
        "lognormal",
        "uniform",
        "hyperexponential",
        "empirical",
        "deeprecsys-gap",
        "replay",
    ]
    k: int | None = None
    shape: float | None = None
    sigma: float | None = None
    low: float | None = None
    high: float | None = None
    probabilities: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    mean_ticks: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Law(LawFields):
    """A law of positive numbers, scaled to mean 1.

    ``exponential``, ``deterministic`` · ``erlang``: ``k`` phases · ``gamma``: ``shape`` · ``lognormal``: ``sigma`` of
    the logarithm · ``uniform``: ``low`` to ``high`` · ``hyperexponential``: ``probabilities`` and relative ``rates`` of
    its branches · ``empirical``: ``values`` with ``probabilities`` · ``replay``: ``values`` in their order, again and
    again, no randomness · ``deeprecsys-gap``: a Poisson count of mean ``mean_ticks``.

    Raises:
        ConfigError: with every fault: unknown kind, a parameter missing, out of range or not of this kind.
    """

    def __post_init__(self) -> None:
        as_tuple(self, "probabilities", "rates", "values")
        checks = Checks("law")
        if checks.choice("kind", self.kind, LAW_FIELDS):
            self._check_parameters(checks)
        checks.done()

    def _check_parameters(self, checks: Checks) -> None:
        wanted = LAW_FIELDS[self.kind]
        for name in (spec.name for spec in fields(LawFields) if spec.name != "kind"):
            value = getattr(self, name)
            if name not in wanted:
                checks.need(value in (None, ()), name, value, f"nothing, it does not apply to kind {self.kind!r}")
            elif name == "k":
                checks.need(is_whole(value) and 1 <= value <= 1000, name, value, "a whole number from 1 to 1000")
            elif isinstance(value, tuple):
                checks.need(bool(value), name, value, "at least one number")
                checks.numbers(name, value, _BOUNDS[name])
            else:
                checks.number(name, value, _BOUNDS[name])
        if "probabilities" in wanted:
            beside = self.values if self.kind == "empirical" else self.rates
            total = fsum(p for p in self.probabilities if isinstance(p, int | float))
            ok = len(self.probabilities) == len(beside) and abs(total - 1.0) <= _SUM_SLACK
            checks.need(ok, "probabilities", self.probabilities, f"{len(beside)} numbers whose sum is 1")
        if self.kind == "uniform" and isinstance(self.low, int | float) and isinstance(self.high, int | float):
            checks.need(self.low < self.high, "low", self.low, f"below high = {self.high!r}")
        if "values" in wanted:
            checks.need(any(v != 0 for v in self.values), "values", self.values, "at least one number above 0")


def law_to_core(kind: str, holder: Any) -> dict[str, Any]:
    """The law ``kind``, whose parameters are fields of ``holder``, as plain data for the core."""
    params: list[float] = []
    for name in LAW_FIELDS[kind]:
        value = getattr(holder, name)
        params += map(float, value) if isinstance(value, tuple) else [float(value)]
    return {"law": kind, "params": params}


@dataclass(frozen=True, kw_only=True, slots=True)
class LawService:
    """Service times of a law, whatever the number of items: ``law`` times ``mean_s`` seconds."""

    mean_s: float
    law: Law = Law(kind="exponential")

    def __post_init__(self) -> None:
        checks = Checks("law service")
        checks.number("mean_s", self.mean_s, SECONDS)
        checks.need(isinstance(self.law, Law), "law", self.law, "a Law")
        checks.done()

    def to_core(self) -> dict[str, Any]:
        """Plain data for the core."""
        return {"kind": "law", **law_to_core(self.law.kind, self.law), "mean_s": float(self.mean_s)}


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearService:
    """``base_s`` + ``per_item_s`` x items, times ``noise`` (a law of mean 1)."""

    base_s: float = 0.0
    per_item_s: float = 0.0
    noise: Law | None = None

    def __post_init__(self) -> None:
        checks = Checks("linear service")
        known = [checks.number(name, getattr(self, name), _PART) for name in ("base_s", "per_item_s")]
        if all(known):
            one_s = self.base_s + self.per_item_s
            checks.need(SECONDS.holds(one_s), "base_s + per_item_s", one_s, f"a number, {SECONDS}")
        _check_noise(checks, self.noise)
        checks.done()

    def to_core(self) -> dict[str, Any]:
        """Plain data for the core."""
        line = {"base_s": float(self.base_s), "per_item_s": float(self.per_item_s)}
        return {"kind": "linear", **line, "noise": _noise(self.noise)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableService:
    """Measured service times over the number of items and of busy threads, times ``noise`` (a law of mean 1).

    ``seconds[i][b]`` belongs to ``items[i]`` and ``busy[b]``; linear between grid points, constant beyond the last
    number of busy threads; more items than the last are refused. Lists and arrays become tuples.
    """

    items: tuple[int, ...]
    seconds: tuple[tuple[float, ...], ...]
    busy: tuple[int, ...] = (1,)
    noise: Law | None = None

    def __post_init__(self) -> None:
        as_tuple(self, "items", "busy", "seconds")
        checks = Checks("table service")
        for name in ("items", "busy"):
            axis = getattr(self, name)
            ok = bool(axis) and all(map(is_whole, axis)) and axis[0] == 1 and all(a < b for a, b in pairwise(axis))
            checks.need(ok, name, axis, "whole numbers that start at 1 and increase")
        shape = [len(row) if isinstance(row, tuple) else row for row in self.seconds]
        wanted = [len(self.busy)] * len(self.items)
        if checks.need(shape == wanted, "seconds", shape, f"{wanted} numbers in the rows, by items and busy"):
            for i, row in enumerate(self.seconds):
                checks.numbers(f"seconds[{i}]", row, SECONDS)
        _check_noise(checks, self.noise)
        checks.done()

    def to_core(self) -> dict[str, Any]:
        """Plain data for the core."""
        seconds = [[float(s) for s in row] for row in self.seconds]
        axes = {"items": list(self.items), "busy": list(self.busy)}
        return {"kind": "table", **axes, "seconds": seconds, "noise": _noise(self.noise)}


Service = LawService | LinearService | TableService


def _check_noise(checks: Checks, noise: object) -> None:
    checks.need(noise is None or isinstance(noise, Law), "noise", noise, "a Law or None")


def _noise(noise: Law | None) -> dict[str, Any] | None:
    return None if noise is None else law_to_core(noise.kind, noise)
