"""Control groups of this process, versions 1 and 2, where systems and containers mount them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["levels", "text_of"]

_LINE = re.compile(r"^(\d+):([^:\n]*):/(.*)$", re.MULTILINE)


def levels(root: Path, controller: str, version: int) -> Iterator[Path]:
    """Folders that limit this process, nearest first and on to the topmost; each limit of them holds.

    Inside a container the group's own path may not exist below the mount, which then shows the group itself: its
    topmost folder is always among the answers.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
        controller: ``"cpu"`` or ``"memory"``.
        version: 1 or 2.
    """
    for number, names, path in _LINE.findall(text_of(root / "proc/self/cgroup")):
        if version == 2 and number == "0" and not names:
            mounts = ("sys/fs/cgroup/unified", "sys/fs/cgroup")  # the first beside version 1
        elif version == 1 and controller in names.split(","):
            mounts = (f"sys/fs/cgroup/{names}", f"sys/fs/cgroup/{controller}")
        else:
            continue
        top = next((root / mount for mount in mounts if (root / mount).is_dir()), None)
        if top is None:
            continue
        folder = top / path
        for level in (folder, *folder.parents):
            yield level
            if level == top:
                break


def text_of(path: Path) -> str:
    """What the file says, without the blanks around it; nothing where it cannot be read or is no text."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
