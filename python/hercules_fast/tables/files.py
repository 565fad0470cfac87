"""Files that are all there or not there at all, and archives of arrays read within limits."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hercules_fast.errors import ConfigError, Fault, MissingFileError, OutputError

__all__ = ["read_arrays", "write_atomically"]


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


def read_arrays(
    source: str, schema: str, names: Sequence[str], max_bytes: int
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read an ``.npz`` file: its JSON ``header``, without the schema, and the arrays ``names``. Never unpickles.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: it is no such archive, of another schema, larger than ``max_bytes``, or lacks an array.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > max_bytes:
            raise ConfigError(source, [Fault("", f"declares {size} bytes; allowed is at most {max_bytes}")])
        with np.load(source, allow_pickle=False) as data:
            missing = [n for n in ("header", *names) if n not in data]
            if missing:
                raise ConfigError(source, [Fault(n, "array is missing") for n in missing])
            header = json.loads(data["header"].tobytes())
            arrays = {name: data[name] for name in names}
    except FileNotFoundError as error:
        raise MissingFileError(f"{source}: no such file") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        what = schema.partition(".")[2].partition("/")[0].replace("_", " ")
        raise ConfigError(source, [Fault("", f"is not a {what}: {error}")]) from error
    if not isinstance(header, dict) or header.get("schema") != schema:
        seen = header.get("schema") if isinstance(header, dict) else type(header).__name__
        raise ConfigError(source, [Fault("schema", f"is {seen!r}; allowed is {schema!r}")])
    del header["schema"]
    return header, arrays
