"""A journal of a long run: one line per finished piece, so that no end of the process, however rude, loses more than
the pieces that were on their way.

The file is JSON lines, only ever appended to. Each line holds one record and the SHA-256 of the record's bytes:
``{"sha256":"...","record":{...}}``. The first record says what all others depend on (seed, versions, ...).

A line is written by one call and flushed to the disk (``fsync``) before the next. So ``kill -9`` leaves whole lines and
at most the beginning of one more, a crash of the machine no more than that in addition to a damaged last line; that
last one is dropped. Damage in any other line is refused: it is no trace of a sudden end.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hercules_fast.errors import ConfigError, Fault, OutputError

__all__ = ["RecordFile"]

MAX_BYTES = 1 << 30
"""Largest journal that is read."""

_OPENING = b'{"sha256":"'
_MIDDLE = b'","record":'
_RECORD_AT = len(_OPENING) + 64 + len(_MIDDLE)


class RecordFile:
    """An open journal. Holds the lock of its file until it is closed or its process ends.

    ``records`` are those of the file after its header, in order. Raises :class:`OutputError` where the path cannot be
    written or another process writes there, and :class:`ConfigError`, with every fault, for a file that is no journal
    of this ``schema``, is damaged before its last line, or was made with another ``header`` (each difference by name).
    A file that is refused is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str], schema: str, header: Mapping[str, Any]):
        self.path = Path(path)
        self.records: list[dict[str, Any]] = []
        self._schema = schema
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot write the journal {self.path}: {_cause(error)}") from error
        try:
            self._lock()
            self._end = self._read(header)
            os.ftruncate(self._file, self._end)
            if self._end == 0:
                self._append({"schema": schema, **header})
                _flush_folder(self.path.parent)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write the journal {self.path}: {_cause(error)}") from error
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give its lock back."""
        os.close(self._file)

    def append(self, record: Mapping[str, Any]) -> None:
        """Append ``record``, and return when it is on the disk.

        Raises:
            OutputError: it cannot be written; the journal is as it was before.
        """
        try:
            self._append(record)
        except OSError as error:
            message = f"cannot write the journal {self.path}: {_cause(error)}; what it held before is intact"
            raise OutputError(message) from error

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
        if not lines and _begins_like_a_header(torn, self._schema):
            return 0
        records = [_record(line) for line in lines]
        if len(records) > 1 and records[-1] is None:
            records.pop()
        first = records[0] if records else None
        if first is None or first.pop("schema", None) != self._schema:
            raise ConfigError(
                source, [Fault("line 1", f"does not begin a journal ({self._schema}); give another path")]
            )
        damaged = [k for k, record in enumerate(records, 1) if record is None]
        if damaged:
            raise ConfigError(
                source, [Fault(f"line {k}", "is damaged: its bytes and its digest differ") for k in damaged]
            )
        differences = list(_differences("", first, json.loads(json.dumps(header))))
        if differences:
            raise ConfigError(source, differences)
        self.records = [record for record in records[1:] if record is not None]
        return sum(len(line) + 1 for line in lines[: len(records)])


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


def _begins_like_a_header(torn: bytes, schema: str) -> bool:
    """Whether a file without a whole line is empty or the beginning of a journal's first line."""
    record = torn[_RECORD_AT:]
    first = b'{"schema":"' + schema.encode()  # how the first record begins; ``schema`` is its first key
    return (
        torn[: len(_OPENING)] == _OPENING[: len(torn)]
        and all(byte in b"0123456789abcdef" for byte in torn[len(_OPENING) : len(_OPENING) + 64])
        and _MIDDLE.startswith(torn[len(_OPENING) + 64 : _RECORD_AT])
        and record[: len(first)] == first[: len(record)]
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
