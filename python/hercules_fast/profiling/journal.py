"""A journal of a profile: one line per finished pair, so that no end of the process, however rude, loses more than the
pairs that were on their way.

The file is JSON lines, only ever appended to. Each line holds one record and the SHA-256 of the record's bytes:
``{"sha256":"...","record":{...}}``. The first record says what all rows depend on (seed, effort, versions, ...), each
later one holds the rows of one pair and digests of what only they depend on.

A line is written by one call and flushed to the disk (``fsync``) before the next. So ``kill -9`` leaves whole lines and
at most the beginning of one more, a crash of the machine no more than that in addition to a damaged last line; that
last one is dropped. Damage in any other line is refused: it is no trace of a sudden end.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hercules_fast.errors import ConfigError, Fault, OutputError
from hercules_fast.tables import EfficiencyRow, EfficiencyTable
from hercules_fast.tables.efficiency import SCHEMA as TABLE_SCHEMA

__all__ = ["SCHEMA", "Inputs", "Journal"]

SCHEMA = "hercules_fast.profile_journal/1"
MAX_BYTES = 1 << 30
"""Largest journal that is read."""

Inputs = Mapping[str, str]
"""What only the rows of one pair depend on, by name: digests."""

_OPENING = b'{"sha256":"'
_MIDDLE = b'","record":'
_RECORD_AT = len(_OPENING) + 64 + len(_MIDDLE)
_FIRST = b'{"schema":"' + SCHEMA.encode()
"""How the first record begins; ``schema`` is its first key."""


class Journal:
    """An open journal. Holds the lock of its file until it is closed or its process ends.

    Raises :class:`OutputError` where the path cannot be written or another process writes there, and
    :class:`ConfigError`, with every fault, for a file that is no journal, is damaged before its last line, or was made
    with another ``header`` (each difference by name). A file that is refused is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]):
        self.path = Path(path)
        self._known: dict[tuple[str, str], list[tuple[Inputs, tuple[EfficiencyRow, ...]]]] = {}
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot write the journal {self.path}: {_cause(error)}") from error
        try:
            self._lock()
            self._end = self._read(header)
            os.ftruncate(self._file, self._end)
            if self._end == 0:
                self._append({"schema": SCHEMA, **header})
                _flush_folder(self.path.parent)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write the journal {self.path}: {_cause(error)}") from error
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self._known

    def rows(self, pair: tuple[str, str], inputs: Inputs) -> tuple[EfficiencyRow, ...] | None:
        """The rows of ``pair`` (server, workload) that were made from just these ``inputs``."""
        return next((rows for known, rows in self._known.get(pair, ()) if known == inputs), None)

    def changes(self, pair: tuple[str, str], inputs: Inputs) -> tuple[str, ...]:
        """Names of the inputs in which the newest rows of ``pair`` differ from ``inputs``."""
        known, _ = self._known[pair][-1]
        return tuple(name for name in inputs if known.get(name) != inputs[name])

    def add(self, pair: tuple[str, str], inputs: Inputs, rows: Sequence[EfficiencyRow]) -> None:
        """Append the rows of one pair, and return when they are on the disk.

        Raises:
            OutputError: they cannot be written; the journal is as it was before.
        """
        server, workload = pair
        table = EfficiencyTable(rows=tuple(rows), servers=(server,), workloads=(workload,)).to_dict()
        record = {"server": server, "workload": workload, "inputs": dict(inputs), "rows": table["rows"]}
        try:
            self._append(record)
        except OSError as error:
            message = f"cannot write the journal {self.path}: {_cause(error)}; what it held before is intact"
            raise OutputError(message) from error
        self._known.setdefault(pair, []).append((dict(inputs), tuple(rows)))

    def _append(self, record: Mapping[str, Any]) -> None:
        body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
        line = _OPENING + hashlib.sha256(body).hexdigest().encode() + _MIDDLE + body + b"}\n"
        try:
            if os.pwrite(self._file, line, self._end) != len(line):
                raise OSError("the disk took a part of a line only")
            os.fsync(self._file)
        except BaseException:  # Ctrl-C too: a half line must not stand before the next one
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(line)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(os.fstat(self._file).st_ino)
            who = f"process {owner}" if owner else "another process"
            raise OutputError(f"cannot write the journal {self.path}: {who} writes to it") from None

    def _read(self, header: Mapping[str, Any]) -> int:
        """Take in what the file holds; bytes of its undamaged part."""
        source, size = str(self.path), os.fstat(self._file).st_size
        if size > MAX_BYTES:
            raise ConfigError(source, [Fault("", f"has {size} bytes; allowed is at most {MAX_BYTES}")])
        content = b""
        while len(content) < size and (piece := os.pread(self._file, size - len(content), len(content))):
            content += piece
        *lines, torn = content.split(b"\n")
        if not lines and _begins_like_a_header(torn):
            return 0
        records = [_record(line) for line in lines]
        if len(records) > 1 and records[-1] is None:
            records.pop()
        first = records[0] if records else None
        if first is None or first.pop("schema", None) != SCHEMA:
            raise ConfigError(source, [Fault("line 1", f"does not begin a journal ({SCHEMA}); give another path")])
        damaged = [k for k, record in enumerate(records, 1) if record is None]
        if damaged:
            raise ConfigError(
                source, [Fault(f"line {k}", "is damaged: its bytes and its digest differ") for k in damaged]
            )
        differences = list(_differences("", first, json.loads(json.dumps(header))))
        if differences:
            raise ConfigError(source, differences)
        for k, record in enumerate(records[1:], 2):
            self._take(f"{source}, line {k}", record)
        return sum(len(line) + 1 for line in lines[: len(records)])

    def _take(self, where: str, record: Any) -> None:
        try:
            server, workload, inputs, rows = (record[name] for name in ("server", "workload", "inputs", "rows"))
            names = {"servers": [server], "workloads": [workload]}
            table = EfficiencyTable.from_dict({"schema": TABLE_SCHEMA, "rows": rows, **names}, source=where)
            known = {str(name): str(digest) for name, digest in inputs.items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ConfigError(where, [Fault("record", f"does not meet the schema: {error!r}")]) from error
        self._known.setdefault((server, workload), []).append((known, table.rows))


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line, None where the line is damaged."""
    digest, body = line[len(_OPENING) : len(_OPENING) + 64], line[_RECORD_AT:-1]
    if line != _OPENING + hashlib.sha256(body).hexdigest().encode() + _MIDDLE + body + b"}" or len(digest) != 64:
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _begins_like_a_header(torn: bytes) -> bool:
    """Whether a file without a whole line is empty or the beginning of a journal's first line."""
    record = torn[_RECORD_AT:]
    return (
        torn[: len(_OPENING)] == _OPENING[: len(torn)]
        and all(byte in b"0123456789abcdef" for byte in torn[len(_OPENING) : len(_OPENING) + 64])
        and _MIDDLE.startswith(torn[len(_OPENING) + 64 : _RECORD_AT])
        and record[: len(_FIRST)] == _FIRST[: len(record)]
    )


def _differences(where: str, journal: Any, call: Any) -> Iterator[Fault]:
    """What differs between two headers, by the path of the field."""
    if isinstance(journal, dict) and isinstance(call, dict):
        for name in [*call, *(name for name in journal if name not in call)]:
            path = f"{where}.{name}" if where else name
            yield from _differences(path, journal.get(name), call.get(name))
    elif journal != call:
        yield Fault(where, f"the journal has {_shown(journal)}, the call asks for {_shown(call)}")


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)


def _owner(inode: int) -> int | None:
    """Process that holds the lock of a file, as far as the kernel tells."""
    try:
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    held = [line.split() for line in locks if "FLOCK" in line]
    owners = [int(part[4]) for part in held if len(part) > 5 and part[5].endswith(f":{inode}")]
    return next((owner for owner in owners if owner > 0), None)


def _flush_folder(folder: Path) -> None:
    """Make the name of a new file last, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cause(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
