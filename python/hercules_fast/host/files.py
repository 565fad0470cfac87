"""Descriptor files of a machine, in a folder of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from hercules_fast import hardware
from hercules_fast.errors import UnknownNameError
from hercules_fast.hardware import Cpu, Gpu, Memory, Server, toml_text
from hercules_fast.tables.files import write_atomically

__all__ = ["save_descriptors"]


def save_descriptors(folder: str | os.PathLike[str], parts: Iterable[Cpu | Memory | Gpu | Server]) -> tuple[Path, ...]:
    """Write each part to ``<kind>-<name>.toml`` in ``folder``, and a server's components with it.

    ``hardware.load_server`` and ``hercules-fast check`` read the files back: they refer to each other, and to what the
    catalogue has, by name.

    Returns:
        The files, each after those that it refers to. A component as the catalogue has it needs none.

    Raises:
        OutputError: A file cannot be written.
    """
    written: dict[Path, None] = {}
    for given in parts:
        components = (given.cpu, given.memory, given.gpu) if isinstance(given, Server) else ()
        for part in (*components, given):
            if part is not None and not (part in components and _in_catalogue(part)):
                slug = re.sub(r"[^a-z0-9.]+", "-", part.name.lower()).strip("-.") or "unnamed"
                path = Path(folder) / f"{type(part).__name__.lower()}-{slug}.toml"
                write_atomically(path, toml_text(part).encode())
                written[path] = None
    return tuple(written)


def _in_catalogue(part: Cpu | Memory | Gpu | Server) -> bool:
    try:
        return bool(getattr(hardware, type(part).__name__.lower())(part.name) == part)
    except UnknownNameError:
        return False
