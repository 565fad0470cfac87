"""How many threads NumPy's BLAS may use, set in this process while it runs."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BlasCap", "cap_blas_threads"]

# (part of the library's file name, getter, setter); OpenBLAS is built with prefixes and suffixes of many kinds.
_OPENBLAS = [
    (f"{prefix}openblas_get_num_threads{suffix}", f"{prefix}openblas_set_num_threads{suffix}")
    for prefix in ("scipy_", "")
    for suffix in ("64_", "_64", "")
]
_KNOWN = {
    "openblas": _OPENBLAS,
    "mkl_rt": [("MKL_Get_Max_Threads", "MKL_Set_Num_Threads")],
    "blis": [("bli_thread_get_num_threads", "bli_thread_set_num_threads")],
}

_lock = threading.Lock()
_before: dict[str, int] = {}
_holders = 0


class BlasCap:
    """A cap in force. ``libraries``: names of the libraries that it holds for; empty if there was none to cap."""

    def __init__(self, threads: int, libraries: tuple[str, ...]) -> None:
        self.threads = threads
        self.libraries = libraries

    def __str__(self) -> str:
        if self.libraries:
            return f"{', '.join(self.libraries)}: {self.threads} thread"
        return "not capped: no OpenBLAS, MKL or BLIS is loaded, so its own threads may take part"


def hold() -> BlasCap:
    """Cap BLAS at one thread until :func:`release`; holders are counted, the first cap and the last release count."""
    global _holders
    import numpy as np

    np.zeros((1, 1)) @ np.zeros((1, 1))  # the library is loaded with NumPy at the latest now
    with _lock:
        found = dict(_libraries())
        if _holders == 0:
            _before.update({path: get() for path, (get, _) in found.items()})
        _holders += 1
        for _, (_, put) in found.items():
            put(1)
        return BlasCap(1, tuple(sorted(Path(path).name for path in found)))


def release() -> None:
    """Undo one :func:`hold`; the last one puts the old number of threads back."""
    global _holders
    with _lock:
        _holders -= 1
        if _holders == 0:
            for path, (_, put) in _libraries():
                if path in _before:
                    put(_before[path])
            _before.clear()


@contextmanager
def cap_blas_threads() -> Iterator[BlasCap]:
    """While the block runs, the BLAS libraries loaded in this process compute on the thread that calls them."""
    cap = hold()
    try:
        yield cap
    finally:
        release()


def _libraries() -> Iterator[tuple[str, tuple[Callable[[], int], Callable[[int], object]]]]:
    """BLAS libraries that are loaded, by path, with their getters and setters."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return
    for path in sorted(set(re.findall(r"^(?:\S+ +){5}(/.*)$", maps, re.MULTILINE))):
        kind = next((kind for kind in _KNOWN if kind in Path(path).name), None)
        if kind is None:
            continue
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for get, put in _KNOWN[kind]:
            if hasattr(library, get) and hasattr(library, put):
                yield path, (getattr(library, get), getattr(library, put))
                break
