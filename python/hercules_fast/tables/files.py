"""Files that are all there or not there at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hercules_fast.errors import OutputError

__all__ = ["write_atomically"]


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write ``content``, piece after piece, beside ``path``, flush it to the disk, then rename.

    A reader sees the old file or the new one.

    Raises:
        OutputError: the folder does not exist or cannot be written; an old file stays as it was.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            for piece in content:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp makes private files; results follow the user's umask
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
