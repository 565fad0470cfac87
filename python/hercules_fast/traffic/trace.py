"""Load traces from CSV: what monitoring exported becomes the load of every interval, and nothing is guessed.

Two layouts: wide, ``timestamp,<workload>,...``, and long, ``timestamp,model,qps``. A value is the mean rate over the
step that starts at its timestamp and lasts until the next one (the last: as long as the usual step, the median).
Timestamps are ISO 8601 (without offset: UTC) or seconds since 1970, strictly increasing.

Intervals begin at whole multiples of their length, UTC. An interval's load is the *largest* mean rate of the steps
that touch it: the fleet must hold in each of them. The first and last interval may be covered only in part; they are
kept.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil, isfinite
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import ConfigError, Fault, InputError, MissingFileError, UnknownNameError
from hercules_fast.traffic.descriptors import LoadTrace, Repairs

__all__ = ["MAX_CARRIED", "MAX_FAULTS", "MAX_INTERVALS", "read_load_csv"]

MAX_FAULTS = 20
"""Problems listed one by one; the rest are counted."""
MAX_CARRIED = 2
"""Missing steps in a row that are filled with the value before them."""
MAX_INTERVALS = 10_000_000
_DEFAULT_INTERVAL_S = 900
_BLOCK_ROWS = 10_000
_EPOCH = datetime(1970, 1, 1)
_FIRST_EPOCH_S = -62_135_596_800  # year 1
_LAST_EPOCH_S = 253_402_300_799  # year 9999
_MICRO = 1_000_000

_Times = npt.NDArray[np.int64]  # microseconds since 1970
_Lines = npt.NDArray[np.int64]
_Rates = npt.NDArray[np.float64]


def read_load_csv(path: str | Path, *, workloads: Sequence[str], interval_s: float | None = None) -> LoadTrace:
    """Read the load of ``workloads`` from a CSV file.

    The result's ``times`` are datetime64[s] [T] and its ``qps`` float64 [T, W] in the order of ``workloads``; column
    names match in any case. ``interval_s`` is a whole number of seconds, by default the usual step, at least 15
    minutes. Steps of irregular length are allowed and up to ``MAX_CARRIED`` missing steps in a row are carried
    forward; both are counted in ``repairs``.

    Raises :class:`MissingFileError`; :class:`InputError` for ``workloads`` or ``interval_s``; :class:`ConfigError` with
    all problems of the file and their lines (the first ``MAX_FAULTS``, then how many more): unknown, missing or
    repeated columns, ragged rows, timestamps that are malformed, repeated or out of order, offsets on some only,
    rates that are negative, NaN, infinite or no number, longer gaps, no rows.
    """
    names = _checked_names(workloads)
    if interval_s is not None and not (
        isinstance(interval_s, int | float)
        and isfinite(interval_s)
        and interval_s >= 1
        and interval_s == int(interval_s)
    ):
        raise InputError(f"interval_s is {interval_s!r}; allowed: a whole number of seconds, at least 1")
    path = Path(path)
    faults = _Faults(str(path))
    table = _read_table(path, names, faults)
    series = _wide(table, names, faults) if not table.is_long else _long(table, names, faults)
    faults.raise_if_any()
    step = _usual_step(series, interval_s, faults)
    irregular, missing = _gaps(series, step, faults)
    faults.raise_if_any()
    interval = int(interval_s) if interval_s is not None else max(_DEFAULT_INTERVAL_S, ceil(step / _MICRO))
    starts, qps = _largest_per_interval(series, step, interval, faults)
    return LoadTrace(
        name=path.stem,
        workloads=names,
        times=starts,
        interval_s=float(interval),
        qps=qps,
        origin=f"user: {path.name}",
        repairs=Repairs(rows=table.row_count, carried_steps=missing + series.carried, irregular_steps=irregular),
    )


def _checked_names(workloads: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(workloads, str) else tuple(workloads)
    lower = [name.lower() for name in names if isinstance(name, str) and name]
    if not names or len(lower) != len(names) or len(set(lower)) != len(lower):
        raise InputError(f"workloads is {workloads!r}; allowed: different names, at least one, case ignored")
    return names


class _Faults:
    """Problems of one file; lists ``MAX_FAULTS`` and counts the rest."""

    def __init__(self, source: str):
        self.source = source
        self._listed: list[Fault] = []
        self._more = 0

    def add(self, where: str, message: str) -> None:
        if len(self._listed) < MAX_FAULTS:
            self._listed.append(Fault(where, message))
        else:
            self._more += 1

    def add_lines(self, lines: Iterable[int], messages: Iterator[str], total: int) -> None:
        """Add ``total`` problems of which only the first few are spelled out."""
        room = min(total, MAX_FAULTS - len(self._listed))
        for line, message, _ in zip(lines, messages, range(room), strict=False):
            self.add(f"line {line}", message)
        self._more += total - room

    def raise_if_any(self) -> None:
        self._listed.sort(key=_line_of)
        if self._more:
            self._listed.append(Fault("", f"... and {self._more} more"))
        if self._listed:
            raise ConfigError(self.source, self._listed)


def _line_of(fault: Fault) -> int:
    word, _, number = fault.path.partition(" ")
    return int(number) if word == "line" else 0


@dataclass(slots=True)
class _Table:
    """The file as numbers: one entry per row in each array."""

    is_long: bool
    lines: _Lines
    times: _Times
    usable: npt.NDArray[np.bool_]
    """Rows whose timestamp could be read."""
    columns: dict[str, npt.NDArray[Any]]
    """Wide: lower-case workload -> rates. Long: ``name`` -> index of the workload or -1, ``qps`` -> rates."""

    @property
    def row_count(self) -> int:
        return len(self.lines)


@dataclass(slots=True)
class _Series:
    """Rates [rows, W] at strictly increasing ``times``; ``lines`` for messages."""

    times: _Times
    rates: _Rates
    lines: _Lines
    carried: int = field(default=0)


# --- text -------------------------------------------------------------------------------------------------------------


def _read_table(path: Path, names: tuple[str, ...], faults: _Faults) -> _Table:
    """Parse the file; ragged rows are faults and left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return _parse(stream, names, faults)
    except UnicodeDecodeError as error:
        faults.add("", f"not UTF-8: {error.reason}")
        faults.raise_if_any()
        raise  # not reached: there is a fault
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise MissingFileError(f"cannot read {str(path)!r}: {reason}") from None


def _parse(stream: TextIO, names: tuple[str, ...], faults: _Faults) -> _Table:
    reader = csv.reader(stream, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = [cell.strip().lower() for cell in next((row for row in reader if row), [])]
        _header_faults(header, reader.line_num, faults)
        parser = _Parser(header, names, faults)
        for row in reader:
            if len(row) == len(header):
                rows.append(row)
                lines.append(reader.line_num)
            elif row:  # a blank line says nothing
                faults.add(f"line {reader.line_num}", f"{len(row)} cells; the header has {len(header)}")
            if len(rows) == _BLOCK_ROWS:  # text of a million rows at once would cost more than parsing it
                parser.take(rows, lines)
    except csv.Error as error:
        faults.add(f"line {reader.line_num}", f"not CSV: {error}")
        faults.raise_if_any()
    parser.take(rows, lines)
    return parser.table()


def _header_faults(header: list[str], line: int, faults: _Faults) -> None:
    if not header:
        faults.add("", "empty; expected a header 'timestamp,<workload>,...' or 'timestamp,model,qps'")
    elif header[0] != "timestamp":
        faults.add(f"line {line}", f"first column is {header[0]!r}; expected 'timestamp'")
    faults.raise_if_any()


class _Parser:
    """Turns blocks of rows into arrays, column by column."""

    def __init__(self, header: list[str], names: tuple[str, ...], faults: _Faults):
        self._faults = faults
        self._names = names
        self._is_long = set(header[1:]) in ({"model", "qps"}, {"workload", "qps"})
        self._stamps = _Stamps(faults)
        self._columns = self._long_columns(header) if self._is_long else self._wide_columns(header)
        self._lines: list[_Lines] = []
        self._times: list[tuple[_Times, npt.NDArray[np.bool_]]] = []
        self._values: dict[str, list[npt.NDArray[Any]]] = {key: [] for key in self._columns}

    def _long_columns(self, header: list[str]) -> dict[str, int]:
        rates = header.index("qps")
        return {"name": 3 - rates, "qps": rates}

    def _wide_columns(self, header: list[str]) -> dict[str, int]:
        """Return the position of every workload's column."""
        position: dict[str, int] = {}
        by_lower = {name.lower(): name for name in self._names}
        for index, cell in enumerate(header[1:], start=1):
            if cell in position:
                self._faults.add("header", f"column {cell!r} appears twice")
            elif cell not in by_lower:
                self._faults.add("header", str(UnknownNameError.of("column", cell, self._names)))
            position.setdefault(cell, index)
        for lower, name in by_lower.items():
            if lower not in position:
                self._faults.add("header", f"no column for workload {name!r}")
        return {lower: position[lower] for lower in by_lower if lower in position}

    def take(self, rows: list[list[str]], lines: list[int]) -> None:
        """Parse the rows that stand on ``lines``, and empty both lists."""
        if not rows:
            return
        cells = list(zip(*rows, strict=True))
        block = np.array(lines, dtype=np.int64)
        self._lines.append(block)
        self._times.append(self._stamps.parse(cells[0], block))
        for key, index in self._columns.items():
            if self._is_long and key == "name":
                values: npt.NDArray[Any] = _workload_indices(cells[index], self._names, block, self._faults)
            else:
                values = _rates_of(cells[index], key, block, self._faults)
            self._values[key].append(values)
        rows.clear()
        lines.clear()

    def table(self) -> _Table:
        """Return everything taken."""
        if not self._lines:
            self._faults.add("", "no rows below the header")
            self._faults.raise_if_any()
        return _Table(
            is_long=self._is_long,
            lines=np.concatenate(self._lines),
            times=np.concatenate([times for times, _ in self._times]),
            usable=np.concatenate([usable for _, usable in self._times]),
            columns={key: np.concatenate(blocks) for key, blocks in self._values.items()},
        )


class _Stamps:
    """Parser of timestamps; the first one decides between seconds and ISO 8601, with or without offset."""

    def __init__(self, faults: _Faults):
        self._faults = faults
        self._in_seconds: bool | None = None
        self._with_offset: bool | None = None

    def parse(self, cells: Sequence[str], lines: _Lines) -> tuple[_Times, npt.NDArray[np.bool_]]:
        """Return microseconds since 1970 and which cells are timestamps."""
        if self._in_seconds is None:
            self._in_seconds = _is_number(cells[0])
        if self._in_seconds:
            wanted = "seconds since 1970, as in the first row"
            seconds, readable = _numbers(cells, lines, self._faults, what="timestamp ", wanted=wanted)
        else:
            seconds, readable = self._plain_iso_seconds(cells) or self._iso_seconds(cells, lines)
        inside = (seconds >= _FIRST_EPOCH_S) & (seconds <= _LAST_EPOCH_S)  # false for NaN
        bad = np.flatnonzero(readable & ~inside).tolist()
        said = (f"timestamp {cells[i]!r} is outside the years 1 to 9999 (numbers are seconds since 1970)" for i in bad)
        self._faults.add_lines(lines[bad].tolist(), said, len(bad))
        usable = readable & inside
        return np.rint(np.where(usable, seconds, 0.0) * _MICRO).astype(np.int64), usable

    def _plain_iso_seconds(self, cells: Sequence[str]) -> tuple[_Rates, npt.NDArray[np.bool_]] | None:
        """Parse a block in which nothing is wrong and nothing has an offset, several times quicker; else None."""
        if self._with_offset:
            return None
        try:
            moments = list(map(datetime.fromisoformat, map(str.strip, cells)))
            since = [moment - _EPOCH for moment in moments]  # refuses those with an offset
        except (ValueError, TypeError):
            return None
        self._with_offset = False
        seconds = np.fromiter(map(timedelta.total_seconds, since), dtype=np.float64, count=len(cells))
        return seconds, np.ones(len(cells), dtype=bool)

    def _iso_seconds(self, cells: Sequence[str], lines: _Lines) -> tuple[_Rates, npt.NDArray[np.bool_]]:
        seconds = np.zeros(len(cells))
        readable = np.ones(len(cells), dtype=bool)
        for row, cell in enumerate(cells):
            try:
                moment = datetime.fromisoformat(cell.strip())
            except ValueError:
                wanted = "ISO 8601 such as 2024-01-01T00:15:00 is wanted"
                self._faults.add(f"line {lines[row]}", f"timestamp {cell!r}; {wanted}")
                readable[row] = False
                continue
            has_offset = moment.tzinfo is not None
            if self._with_offset is None:
                self._with_offset = has_offset
            if has_offset != self._with_offset:
                self._mixed_offsets(cell, int(lines[row]), has_offset)
                readable[row] = False
            seconds[row] = (moment if has_offset else moment.replace(tzinfo=UTC)).timestamp()
        return seconds, readable

    def _mixed_offsets(self, cell: str, line: int, has_offset: bool) -> None:
        kinds = ("without a UTC offset", "with a UTC offset")
        self._faults.add(
            f"line {line}", f"timestamp {cell!r} is {kinds[has_offset]}, earlier ones are {kinds[not has_offset]}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(
    cells: Sequence[str], lines: _Lines, faults: _Faults, *, what: str, wanted: str
) -> tuple[_Rates, npt.NDArray[np.bool_]]:
    """Parse a column; returns values (0 where it is no number) and which cells are numbers."""
    try:
        return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells)), np.ones(len(cells), dtype=bool)
    except ValueError:
        is_number = np.fromiter(map(_is_number, cells), dtype=bool, count=len(cells))
    bad = np.flatnonzero(~is_number).tolist()
    faults.add_lines(lines[bad].tolist(), (f"{what}{cells[i]!r} is not a number; {wanted}" for i in bad), len(bad))
    values = (float(cell) if ok else 0.0 for cell, ok in zip(cells, is_number, strict=True))
    return np.fromiter(values, dtype=np.float64, count=len(cells)), is_number


def _rates_of(column: Sequence[str], name: str, lines: _Lines, faults: _Faults) -> _Rates:
    wanted = "a rate >= 0 is wanted"
    rates, is_number = _numbers(column, lines, faults, what=f"{name}: ", wanted=wanted)
    bad = np.flatnonzero(is_number & ~(np.isfinite(rates) & (rates >= 0.0))).tolist()
    faults.add_lines(lines[bad].tolist(), (f"{name}: {column[i]} is not allowed; {wanted}" for i in bad), len(bad))
    return rates


def _workload_indices(
    cells: Sequence[str], names: tuple[str, ...], lines: _Lines, faults: _Faults
) -> npt.NDArray[np.int64]:
    index_of = {name.lower(): index for index, name in enumerate(names)}
    distinct = {cell: index_of.get(cell.strip().lower(), -1) for cell in set(cells)}
    index = np.fromiter(map(distinct.__getitem__, cells), dtype=np.int64, count=len(cells))
    bad = np.flatnonzero(index < 0).tolist()
    said = (str(UnknownNameError.of("workload", cells[i], names)) for i in bad)
    faults.add_lines(lines[bad].tolist(), said, len(bad))
    return index


# --- layouts ----------------------------------------------------------------------------------------------------------


def _wide(table: _Table, names: tuple[str, ...], faults: _Faults) -> _Series:
    times, lines = table.times[table.usable], table.lines[table.usable]
    bad = (np.flatnonzero(np.diff(times) <= 0) + 1).tolist()
    said = (f"timestamp {'repeats' if times[i] == times[i - 1] else 'is before'} line {lines[i - 1]}" for i in bad)
    faults.add_lines(lines[bad].tolist(), said, len(bad))
    faults.raise_if_any()
    return _Series(table.times, np.stack([table.columns[name.lower()] for name in names], axis=1), table.lines)


def _long(table: _Table, names: tuple[str, ...], faults: _Faults) -> _Series:
    """Pivot (timestamp, workload, rate) rows; a pair that is absent is a missing step of that workload."""
    present = set(np.unique(table.columns["name"]).tolist())
    for name in (name for index, name in enumerate(names) if index not in present):
        faults.add("", f"no rows for workload {name!r}")
    keep = (table.columns["name"] >= 0) & table.usable
    times, lines = table.times[keep], table.lines[keep]
    rates, workload = table.columns["qps"][keep], table.columns["name"][keep]
    bad = (np.flatnonzero(np.diff(times) < 0) + 1).tolist()
    faults.add_lines(lines[bad].tolist(), (f"timestamp is before line {lines[i - 1]}" for i in bad), len(bad))
    moments, first, moment = np.unique(times, return_index=True, return_inverse=True)
    _repeat_faults(moment * len(names) + workload, lines, names, faults)
    matrix = np.full((len(moments), len(names)), np.nan)
    matrix[moment, workload] = rates
    return _carried(_Series(moments, matrix, lines[first]), names, faults)


def _repeat_faults(cell: npt.NDArray[np.int64], lines: _Lines, names: tuple[str, ...], faults: _Faults) -> None:
    order = np.argsort(cell, kind="stable")
    bad = np.flatnonzero(np.diff(cell[order]) == 0) + 1
    said = (
        f"a second rate of {names[cell[order[i]] % len(names)]!r}, as on line {lines[order[i - 1]]}"
        for i in bad.tolist()
    )
    faults.add_lines(lines[order[bad]], said, len(bad))


def _carried(series: _Series, names: tuple[str, ...], faults: _Faults) -> _Series:
    """Fill absent values of single workloads from the row before, at most ``MAX_CARRIED`` in a row."""
    absent = np.isnan(series.rates)
    absent[:, absent.all(axis=0)] = False  # a workload without any row: already a fault
    run = np.zeros(absent.shape[1], dtype=np.int64)
    for row in np.flatnonzero(absent.any(axis=1)):
        previous_complete = row == 0 or ~absent[row - 1]
        run = np.where(absent[row], np.where(previous_complete, 1, run + 1), 0)
        for column in np.flatnonzero(absent[row]):
            if row == 0:
                faults.add(f"line {series.lines[row]}", f"no rate of {names[column]!r} at the first timestamp")
            elif run[column] == MAX_CARRIED + 1:
                faults.add(
                    f"line {series.lines[row]}",
                    f"more than {MAX_CARRIED} steps in a row without a rate of {names[column]!r}",
                )
            else:
                series.rates[row, column] = series.rates[row - 1, column]
    series.carried = int(absent.sum())
    return series


# --- steps and intervals ----------------------------------------------------------------------------------------------


def _usual_step(series: _Series, interval_s: float | None, faults: _Faults) -> int:
    """Return the usual step in microseconds: the median, the shorter one of two in the middle."""
    steps = np.sort(np.diff(series.times))
    if len(steps):
        return int(steps[(len(steps) - 1) // 2])
    if interval_s is None:
        faults.add("", "one timestamp; the length of its step is unknown: give interval_s, or two rows")
        faults.raise_if_any()
    return int(interval_s or 1) * _MICRO


def _gaps(series: _Series, step: int, faults: _Faults) -> tuple[int, int]:
    """Return how many steps are of unusual length and how many are missing; long gaps are faults."""
    steps = np.diff(series.times)
    missing = np.maximum((2 * steps + step) // (2 * step) - 1, 0)  # steps rounded to whole usual ones
    bad = np.flatnonzero(missing > MAX_CARRIED)
    said = (
        f"{missing[i]} steps of {step / _MICRO:g} s are missing since line {series.lines[i]}; "
        f"at most {MAX_CARRIED} are carried"
        for i in bad.tolist()
    )
    faults.add_lines(series.lines[bad + 1], said, len(bad))
    return int(np.count_nonzero(steps != step)), int(missing.sum())


def _largest_per_interval(
    series: _Series, step: int, interval: int, faults: _Faults
) -> tuple[npt.NDArray[np.datetime64], _Rates]:
    """Return interval starts and the largest rate of the steps that touch each; every step lasts until the next."""
    length = interval * _MICRO
    ends = np.append(series.times[1:], series.times[-1] + step)
    first = series.times // length
    last = (ends - 1) // length
    count = int(last[-1] - first[0]) + 1
    if count > MAX_INTERVALS:
        faults.add("", f"{count} intervals of {interval} s; at most {MAX_INTERVALS}")
        faults.raise_if_any()
    # One entry per (step, interval touched). Steps follow each other, so the intervals never decrease.
    touched = last - first + 1
    offset = np.arange(int(touched.sum())) - np.repeat(np.cumsum(touched) - touched, touched)
    of_interval = np.repeat(first, touched) + offset
    of_step = np.repeat(np.arange(len(first)), touched)
    begins = np.flatnonzero(np.diff(of_interval, prepend=of_interval[0] - 1))
    qps = np.maximum.reduceat(series.rates[of_step], begins, axis=0)
    starts = (np.arange(first[0], first[0] + count) * interval).astype("datetime64[s]")
    qps.flags.writeable = starts.flags.writeable = False
    return starts, qps
