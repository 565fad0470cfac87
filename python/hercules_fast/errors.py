"""The one error tree. Every class is also the built-in that a caller would expect to catch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

__all__ = [
    "ConfigError",
    "DTypeError",
    "ExecutorError",
    "Fault",
    "HerculesError",
    "IndexRangeError",
    "InputError",
    "InternalError",
    "InterruptedRun",
    "MissingFileError",
    "OutputError",
    "SizeError",
    "SolverError",
    "UnknownNameError",
]


class HerculesError(Exception):
    """Root of all errors that this package raises on purpose."""


class InputError(HerculesError, ValueError):
    """A value that was handed in is outside what is allowed; the message names field, value and range."""


class DTypeError(HerculesError, TypeError):
    """An array or value has a type that is not accepted; the message lists the accepted ones."""


class IndexRangeError(HerculesError, IndexError):
    """A lookup index is outside its table; the message names position, value and number of rows."""


class SizeError(HerculesError, OverflowError):
    """A size product does not fit in memory arithmetic."""


class UnknownNameError(InputError, LookupError):
    """A name that is not known; the message offers the nearest known one."""

    @classmethod
    def of(cls, what: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Build the message for ``name``, an unknown ``what`` (say ``"server"``), among ``known`` names."""
        names = sorted(known)
        near = get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.4)
        by_lower = {n.lower(): n for n in names}
        hint = f"; did you mean {by_lower[near[0]]!r}?" if near else ""
        return cls(f"unknown {what} {name!r}{hint} (known: {', '.join(names) or 'none'})")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file: where (``path`` of the field or line), what was seen, what is allowed."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(InputError):
    """A file does not meet its schema. ``faults`` holds *all* of its problems, each with its field path."""

    def __init__(self, source: str, faults: Sequence[Fault]):
        self.source = source
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        count = len(self.faults)
        super().__init__(f"{source}: {count} {'fault' if count == 1 else 'faults'}\n{lines}")


class MissingFileError(HerculesError, FileNotFoundError):
    """A file that was named does not exist or cannot be read."""


class OutputError(HerculesError, OSError):
    """A result cannot be written where it was asked for."""


class SolverError(HerculesError, RuntimeError):
    """The linear-programming solver ended in a state that is not an answer; the message names it."""


class ExecutorError(HerculesError, RuntimeError):
    """A task failed on an executor, or a worker of it died. ``partial`` holds what was finished, or None."""

    def __init__(self, message: str, partial: Any = None):
        super().__init__(message)
        self.partial = partial


class InternalError(HerculesError, RuntimeError):
    """A promise of this library was broken; please report it."""


class InterruptedRun(KeyboardInterrupt):
    """Ctrl-C during a long call. ``partial`` holds what was finished, or None."""

    def __init__(self, message: str, partial: Any = None):
        super().__init__(message)
        self.partial = partial
