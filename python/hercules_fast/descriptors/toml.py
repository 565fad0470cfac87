"""TOML files read within limits, with the lines on which their fields stand."""

from __future__ import annotations

import re
import tomllib
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from hercules_fast.errors import ConfigError, Fault, MissingFileError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Document", "limit_faults", "read_text", "read_toml", "refused"]

MAX_BYTES = 64_000_000
MAX_DEPTH = 64

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+)\s*=""")
_NOT_KEY = re.compile(r'"[^"]*"|[,={}\[\]#]')
_INT64 = 2**63


@dataclass(slots=True)
class Document:
    """A parsed file. ``data`` holds str, int, float, bool, lists and dicts, at most ``MAX_DEPTH`` deep."""

    path: Path
    data: dict[str, Any]
    text: str = field(repr=False)
    _lines: dict[str, int] | None = field(default=None, repr=False)

    def located(self, fault: Fault) -> Fault:
        """Add the line of the field (or of what contains it) to a fault's message."""
        if self._lines is None:
            self._lines = dict(_field_lines(self.text))
        where = fault.path
        while where and where not in self._lines:
            where = where[: max(where.rfind("."), where.rfind("["), 0)]
        line = self._lines.get(where)
        return fault if line is None else Fault(fault.path, f"{fault.message} (line {line})")


def read_toml(path: Path) -> Document:
    """Parse ``path``.

    Raises :class:`MissingFileError` where it cannot be opened and :class:`ConfigError` where it is too large, not
    UTF-8, not TOML, nested deeper than ``MAX_DEPTH``, or holds a date or a whole number beyond 64 bits.
    """
    text = read_text(path)
    try:
        _refuse_long_keys(text)
        data = tomllib.loads(text)
    except RecursionError:
        raise refused(path, f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # TOMLDecodeError, and numbers that Python itself refuses
        raise refused(path, f"not valid TOML: {error}") from None
    faults = list(limit_faults(data))
    if faults:
        raise ConfigError(str(path), faults)
    return Document(path, data, text)


def read_text(path: Path) -> str:
    """Return the text of ``path``; raises :class:`MissingFileError`, or :class:`ConfigError` (too large, not UTF-8)."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise MissingFileError(f"cannot read {str(path)!r}: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise refused(path, f"larger than {MAX_BYTES} bytes")
    raw = raw.removeprefix(BOM_UTF8)  # some editors write one; TOML has no word for it
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refused(path, f"not UTF-8: byte {raw[error.start]:#04x} on line {line}") from None


def refused(path: Path, message: str) -> ConfigError:
    """Return the error of a file that cannot be read at all."""
    return ConfigError(str(path), [Fault("", message)])


def _refuse_long_keys(text: str) -> None:
    """Refuse dotted keys of more than ``MAX_DEPTH`` parts, on which the parser would spend quadratic time."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > MAX_DEPTH and max(part.count(".") for part in _NOT_KEY.split(line)) > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} dots in one key on line {number}")


def limit_faults(data: dict[str, Any]) -> Iterator[Fault]:
    """Yield what is nested too deep, whole numbers beyond 64 bits, and dates."""
    stack: list[tuple[str, Any, int]] = [("", data, 1)]
    while stack:
        path, node, depth = stack.pop()
        if isinstance(node, int) and not -_INT64 <= node < _INT64:
            yield Fault(path, "whole number outside 64 bits")
        elif isinstance(node, date | time):
            yield Fault(path, f"a TOML date or time, {node}; write it as text in quotes")
        elif depth > MAX_DEPTH + 1:
            yield Fault("", f"nested deeper than {MAX_DEPTH} levels")
            return
        elif isinstance(node, dict):
            stack.extend((f"{path}.{key}" if path else key, value, depth + 1) for key, value in node.items())
        elif isinstance(node, list):
            stack.extend((f"{path}[{i}]", value, depth + 1) for i, value in enumerate(node))


def _field_lines(text: str) -> Iterator[tuple[str, int]]:
    """Field path -> line, in reverse so that the first mention wins in a dict.

    Line based: good enough to point at a field, never used to decide anything.
    """
    found: list[tuple[str, int]] = []
    prefix = ""
    last_index: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            prefix = _header_path(header[2], array=header[1] == "[[", last_index=last_index)
            found.append((prefix, number))
        elif key := _KEY.match(line):
            name = key[1].strip("\"'")
            found.append((f"{prefix}.{name}" if prefix else name, number))
    return reversed(found)


def _header_path(dotted: str, *, array: bool, last_index: dict[str, int]) -> str:
    path = ""
    parts = [part.strip().strip("\"'") for part in dotted.split(".")]
    for position, part in enumerate(parts):
        path = f"{path}.{part}" if path else part
        if array and position == len(parts) - 1:
            last_index[path] = last_index.get(path, -1) + 1
        if path in last_index:
            path = f"{path}[{last_index[path]}]"
    return path
