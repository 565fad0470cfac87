"""Rows of a user's CSV file, each with its line, and the faults found on the way."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from hercules_fast.errors import ConfigError, Fault, MissingFileError

__all__ = ["MAX_FAULTS", "MAX_WHOLE", "CsvRows", "raise_faults", "read_csv_rows"]

MAX_FAULTS = 20
"""Faults listed one by one; the rest are counted."""
MAX_BYTES = 64_000_000
MAX_WHOLE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Rows as (line, column -> text), without ragged ones, which are among the ``faults``."""

    source: str
    rows: list[tuple[int, Mapping[str, str]]]
    faults: list[Fault]

    def whole(self, row: Mapping[str, str], column: str, line: int, faults: list[Fault]) -> int | None:
        """The whole number >= 1 in ``column``, or None and a fault."""
        text = row[column]
        value = _number(text)
        if value is not None and value == value // 1 and 1 <= value <= MAX_WHOLE:
            return int(value)
        faults.append(Fault(f"line {line}", f"{column} is {text!r}; allowed is a whole number from 1 to {MAX_WHOLE}"))
        return None

    def positive(
        self, row: Mapping[str, str], column: str, line: int, faults: list[Fault], *, zero: bool = False
    ) -> float | None:
        """The finite number > 0 (or >= 0) in ``column``, or None and a fault."""
        text = row[column]
        value = _number(text)
        if value is not None and (value > 0 or (zero and value == 0)):
            return value
        faults.append(Fault(f"line {line}", f"{column} is {text!r}; allowed is finite and {'>=' if zero else '>'} 0"))
        return None

    def raise_if_any(self, faults: Sequence[Fault]) -> None:
        """Raise them in the order of their lines, see :func:`raise_faults`."""
        raise_faults(self.source, sorted(faults, key=_line_of))


def raise_faults(source: str, faults: Sequence[Fault]) -> None:
    """Raise ConfigError with the first ``MAX_FAULTS``, and how many more there are; nothing without any."""
    if not faults:
        return
    more = len(faults) - MAX_FAULTS
    raise ConfigError(source, [*faults[:MAX_FAULTS], *([Fault("", f"... and {more} more")] if more > 0 else [])])


def read_csv_rows(path: str | Path, *, required: Sequence[str], optional: Sequence[str] = ()) -> CsvRows:
    """Read a CSV file whose header has the ``required`` columns and perhaps ``optional`` ones, in any order and case.

    Lines that begin with ``#`` and blank lines are passed over.

    Raises:
        MissingFileError: it cannot be read.
        ConfigError: it is no CSV in UTF-8, is larger than 64 MB, or its header has other columns.
    """
    path = Path(path)
    source = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise MissingFileError(f"cannot read {source!r}: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(source, [Fault("", f"larger than {MAX_BYTES} bytes")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(source, [Fault(f"line {line}", f"not UTF-8: byte {raw[error.start]:#04x}")]) from None
    lines = ["" if line.startswith("#") else line for line in text.splitlines()]
    reader = csv.reader(lines, strict=True)
    rows: list[tuple[int, Mapping[str, str]]] = []
    faults: list[Fault] = []
    header: list[str] = []
    try:
        for row in reader:
            if not row:
                continue
            if not header:
                header = [cell.strip().lower() for cell in row]
                _check_header(source, header, reader.line_num, required, optional)
            elif len(row) != len(header):
                faults.append(Fault(f"line {reader.line_num}", f"{len(row)} cells; the header has {len(header)}"))
            else:
                rows.append((reader.line_num, dict(zip(header, map(str.strip, row), strict=True))))
    except csv.Error as error:
        raise ConfigError(source, [Fault(f"line {reader.line_num}", f"not CSV: {error}")]) from None
    if not header:
        raise ConfigError(source, [Fault("", f"empty; expected a header {','.join(required)}")])
    return CsvRows(source, rows, faults)


def _check_header(source: str, header: list[str], line: int, required: Sequence[str], optional: Sequence[str]) -> None:
    allowed = [*required, *optional]
    listed = f"allowed are {', '.join(required)}" + (f" and, where known, {', '.join(optional)}" if optional else "")
    faults = [Fault(f"line {line}", f"no column {name!r}; {listed}") for name in required if name not in header]
    faults += [Fault(f"line {line}", f"unknown column {name!r}; {listed}") for name in header if name not in allowed]
    twice = sorted({name for name in header if header.count(name) > 1})
    faults += [Fault(f"line {line}", f"column {name!r} appears twice") for name in twice]
    if faults:
        raise ConfigError(source, faults)


def _number(text: str) -> float | None:
    """``text`` as a finite number, or None. Python's underscores and digits of other scripts are no CSV."""
    if not text.isascii() or "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _line_of(fault: Fault) -> int:
    word, _, number = fault.path.partition(" ")
    return int(number) if word == "line" else 0
