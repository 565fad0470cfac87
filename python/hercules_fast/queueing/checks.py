"""Checks of what is described in Python: every fault of an object at once, with field, value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from hercules_fast.descriptors import Bound
from hercules_fast.errors import ConfigError, Fault

__all__ = ["MAX_SECONDS", "Checks", "as_tuple", "is_whole"]

MAX_SECONDS = 1e9
"""Longest time that the core takes; the shortest service is 1e-12."""
MAX_COUNT = 2**31 - 1


class Checks:
    """Collects faults; :meth:`done` raises them together."""

    def __init__(self, what: str):
        self._what = what
        self._faults: list[Fault] = []

    def need(self, holds: bool, path: str, value: object, allowed: object) -> bool:
        """Note a fault of the field at ``path`` unless it ``holds``."""
        if not holds:
            self._faults.append(Fault(path, f"is {value!r}; allowed is {allowed}"))
        return holds

    def number(self, path: str, value: object, bound: Bound) -> bool:
        """A finite number inside ``bound``."""
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        return self.need(is_number and bound.holds(float(value)), path, value, f"a number, {bound}")  # type: ignore[arg-type]

    def numbers(self, path: str, values: Sequence[object], bound: Bound) -> None:
        """Numbers inside ``bound``."""
        for i, value in enumerate(values):
            self.number(f"{path}[{i}]", value, bound)

    def whole(self, path: str, value: object, low: int, high: int = MAX_COUNT, *, optional: bool = False) -> bool:
        """A whole number from ``low`` to ``high``, or None where it is ``optional``."""
        allowed = f"a whole number from {low} to {high}" + (" or None" if optional else "")
        holds = is_whole(value) and low <= value <= high  # type: ignore[operator]
        return self.need(holds or (optional and value is None), path, value, allowed)

    def choice(self, path: str, value: object, allowed: Iterable[str]) -> bool:
        """One of the words ``allowed``."""
        words = tuple(allowed)
        return self.need(isinstance(value, str) and value in words, path, value, "one of " + ", ".join(words))

    def done(self) -> None:
        """Raise :class:`ConfigError` if anything was wrong."""
        if self._faults:
            raise ConfigError(self._what, self._faults)


def is_whole(value: object) -> bool:
    """Whether ``value`` is a whole number of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_tuple(instance: object, *names: str) -> None:
    """Turn lists and arrays in the fields ``names`` of a frozen object into tuples of plain Python values."""
    for name in names:
        object.__setattr__(instance, name, _plain(getattr(instance, name)))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
