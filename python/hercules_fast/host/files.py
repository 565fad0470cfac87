"""Descriptor files of a machine, in a folder of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from hercules_fast.hardware import Cpu, Gpu, Memory, Server, toml_text
from hercules_fast.tables.files import write_atomically

__all__ = ["save_descriptors"]


def save_descriptors(folder: str | os.PathLike[str], parts: Iterable[Cpu | Memory | Gpu | Server]) -> tuple[Path, ...]:
    """Write each part to ``<kind>-<name>.toml`` in ``folder``; a server's components are written with it.

    ``hardware.load_server`` and ``hercules-fast check`` read the files back: they refer to each other by name.

    Returns:
        The files, in the order of the parts.

    Raises:
        OutputError: A file cannot be written.
    """
    written: dict[Path, None] = {}
    for given in parts:
        components = (given.cpu, given.memory, given.gpu) if isinstance(given, Server) else ()
        for part in (*components, given):
            if part is not None:
                slug = re.sub(r"[^a-z0-9.]+", "-", part.name.lower()).strip("-.") or "unnamed"
                path = Path(folder) / f"{type(part).__name__.lower()}-{slug}.toml"
                write_atomically(path, toml_text(part).encode())
                written[path] = None
    return tuple(written)
