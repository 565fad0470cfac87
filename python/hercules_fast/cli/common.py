"""What the verbs share: exit codes, error reporting, argument types, progress, checked output places."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from hercules_fast.errors import (
    HerculesError,
    InputError,
    InternalError,
    OutputError,
    SolverError,
    UnknownNameError,
)

__all__ = [
    "DEBUG_VARIABLE",
    "ExitCode",
    "Progress",
    "Verbs",
    "add_output_options",
    "add_overwrite_option",
    "add_seed_option",
    "add_threads_option",
    "check_output_file",
    "emit",
    "emit_json",
    "guarded",
    "headroom",
    "json_text",
    "name_list",
    "named",
    "not_negative",
    "output_directory",
    "positive",
    "positive_int",
    "save_partial",
    "say",
    "thread_count",
    "whole_number",
]

DEBUG_VARIABLE = "HERCULES_FAST_DEBUG"
"""Set to 1, internal errors show their traceback."""

MAX_HEADROOM = 1000
"""Most that ``provisioning.Policy`` takes."""
MAX_THREADS = 1024
"""Most that the core takes."""

Verbs = Any
"""What ``ArgumentParser.add_subparsers`` returns; argparse keeps its name private."""


class ExitCode(IntEnum):
    """What the process tells its caller."""

    DONE = 0
    NOT_MET = 1
    """Answered, but a requirement is not met."""
    BAD_INPUT = 2
    INTERNAL = 3
    NOISY = 4
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    """The reader of stdout went away; what shells report for programs that SIGPIPE ended."""


# --- text out ----------------------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    """``text`` with control characters escaped, so that a name in a file cannot drive the terminal."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def emit(text: str) -> None:
    """Write a result to stdout, now.

    Raises:
        BrokenPipeError: the reader went away.
        OutputError: stdout cannot be written, say on a full disk.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed; the result has nowhere to go")
    try:
        print(_printable(text).rstrip("\n"), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence_stdout()
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error


def emit_json(document: Any) -> None:
    """Write the one JSON document of a ``--json`` run."""
    emit(json_text(document))


def json_text(document: Any) -> str:
    """``document`` as strict JSON with sorted keys; figures that are not finite become null."""
    return json.dumps(_strict(document), indent=1, sort_keys=True, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return _strict(value.tolist())
    return value


def say(text: str) -> None:
    """Write a line to stderr; a closed stderr is no reason to fail."""
    with suppress(OSError, ValueError, AttributeError):
        print(_printable(text), file=sys.stderr, flush=True)


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the flush at exit cannot fail once more."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


# --- errors to exit codes ----------------------------------------------------------------------------------------


def guarded(work: Callable[[], int]) -> int:
    """Run ``work``; whatever it raises becomes one message on stderr and an exit code."""
    with suppress(AttributeError):  # a replaced stdout may not have reconfigure
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = work()
        if sys.stdout is not None:
            sys.stdout.flush()
        return int(code)
    except BrokenPipeError:
        _silence_stdout()
        return ExitCode.CLOSED_PIPE
    except KeyboardInterrupt:
        say("interrupted")
        return ExitCode.INTERRUPTED
    except (SolverError, InternalError) as error:
        return _internal(error)
    except HerculesError as error:
        say(f"error: {error}")
        return ExitCode.BAD_INPUT
    except MemoryError as error:  # asked for more than there is; not ours to repair
        say(f"error: not enough memory{f': {error}' if str(error) else ''}")
        return ExitCode.BAD_INPUT
    except Exception as error:
        return _internal(error)


def _internal(error: Exception) -> ExitCode:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        import traceback

        say(traceback.format_exc())
    text = " ".join(str(error).split())
    say(f"internal error: {type(error).__name__}: {text} (rerun with {DEBUG_VARIABLE}=1 for the traceback)")
    return ExitCode.INTERNAL


# --- argument types ----------------------------------------------------------------------------------------------


def _number(text: str, low: float, allowed: str, *, strict: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed is a number {allowed}") from None
    if not math.isfinite(value) or value < low or (strict and value == low):
        raise argparse.ArgumentTypeError(f"is {text}; allowed is finite and {allowed}")
    return value


def positive(text: str) -> float:
    """Argument type: a finite number above 0."""
    return _number(text, 0.0, "> 0", strict=True)


def not_negative(text: str) -> float:
    """Argument type: a finite number from 0."""
    return _number(text, 0.0, ">= 0", strict=False)


def headroom(text: str) -> float:
    """Argument type: spare capacity as a share of the load, 0 to 1000, as ``Policy`` takes it."""
    allowed = f"a number from 0 to {MAX_HEADROOM}"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_HEADROOM:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed is {allowed}")
    return value


def thread_count(text: str) -> int:
    """Argument type: 1 to 1024 threads, as the core takes them."""
    return _whole(text, 1, MAX_THREADS)


def whole_number(text: str) -> int:
    """Argument type: 0, 1, 2, ... below 2**63."""
    return _whole(text, 0)


def positive_int(text: str) -> int:
    """Argument type: 1, 2, 3, ... below 2**63."""
    return _whole(text, 1)


def _whole(text: str, low: int, high: int | None = None) -> int:
    allowed = f"a whole number from {low} to {'2**63 - 1' if high is None else high}"
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed is {allowed}") from None
    if not low <= value <= (2**63 - 1 if high is None else high):
        raise argparse.ArgumentTypeError(f"is {text}; allowed is {allowed}")
    return value


def name_list(text: str) -> list[str]:
    """Argument type: names with commas between them, none of them empty or given twice."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed are names with commas between them")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise argparse.ArgumentTypeError(f"names {', '.join(twice)} twice")
    return names


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def named(what: str, name: str, items: Iterable[_N]) -> _N:
    """The one of ``items`` that is called ``name``, whatever the case of its letters.

    Raises:
        UnknownNameError: there is none; the nearest name is offered.
    """
    by_name = {item.name.lower(): item for item in items}
    try:
        return by_name[name.lower()]
    except KeyError:
        raise UnknownNameError.of(what, name, [item.name for item in by_name.values()]) from None


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--json``, ``--quiet`` and ``--no-color``, which every verb understands."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print exactly one JSON document on stdout")
    group.add_argument("--quiet", action="store_true", help="no progress and no notes on stderr")
    group.add_argument("--no-color", action="store_true", help="no colour (NO_COLOR in the environment does the same)")


def add_overwrite_option(parser: argparse.ArgumentParser) -> None:
    """``--overwrite``: without it, ``--out`` never replaces a file."""
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --out names")


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """``--seed``: same seed, same bytes."""
    parser.add_argument("--seed", type=whole_number, default=0, metavar="N", help="seed of every random draw")


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """``--threads`` of the work itself; results do not depend on it."""
    parser.add_argument(
        "--threads", type=thread_count, metavar="N", help="threads to work with; results do not depend on it"
    )


# --- places to write, checked before the work ----------------------------------------------------------------------


def _probe(directory: Path, name: str = "probe") -> None:
    """Prove that a file can be made in ``directory``, and leave none behind; long names are tried at their length."""
    with tempfile.NamedTemporaryFile(prefix=f".{name}.", dir=directory):
        pass


def check_output_file(
    path: str | None, *, suffixes: Sequence[str] = (), inputs: Iterable[str] = (), overwrite: bool = False
) -> Path | None:
    """Prove before the work that a result file can be written, and that nothing of value stands in its place.

    Args:
        path: what ``--out`` says.
        suffixes: how the name may end; none: anyhow.
        inputs: files that the run reads. The result never takes the place of one, ``overwrite`` or not.
        overwrite: whether another file of that name may be replaced.

    Raises:
        InputError: the name ends in something else.
        OutputError: it cannot be written, is an input, or exists and ``overwrite`` is off; nothing was written.
    """
    if path is None:
        return None
    target = Path(path)
    try:
        if target.is_dir():
            raise OutputError(f"cannot write {target}: it is a directory; give the name of a file")
        if suffixes and target.suffix not in suffixes:
            raise InputError(f"--out: {path!r} ends in {target.suffix!r}; allowed are {', '.join(suffixes)}")
        for name in inputs:
            if _same_file(target, Path(name)):
                raise OutputError(f"cannot write {target}: it is an input of this run; give another name")
        if os.path.lexists(target) and not overwrite:
            raise OutputError(f"cannot write {target}: it exists; give another name, or --overwrite to replace it")
        _probe(target.parent, target.name)
    except HerculesError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {target}: {_cause(error)}") from error
    return target


def _same_file(one: Path, other: Path) -> bool:
    """Whether two names lead to one file, through links too."""
    with suppress(OSError):
        if one.samefile(other):
            return True
    return one.resolve() == other.resolve()


def _cause(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


@contextmanager
def output_directory(requested: str | None, *, overwrite: bool = False, stem: str = "plan") -> Iterator[Path]:
    """A directory for the files of one run, made and proven writable before the work starts.

    Without ``requested`` it is the next of ``runs/<stem>-0001``, ``-0002``, ... in the working folder. If the work
    ends in an error before it wrote a file, the directories made here are removed again.

    Raises:
        OutputError: it cannot be made or written, or it holds files and ``overwrite`` is off.
    """
    made: list[Path] = []
    try:
        try:
            target = _numbered(stem, made) if requested is None else _requested(Path(requested), overwrite, made)
            _probe(target)
        except OutputError:
            raise
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot write to {requested or 'runs'}: {_cause(error)}") from error
        yield target
    except BaseException:
        for directory in reversed(made):
            with suppress(OSError):
                directory.rmdir()  # only ever removes an empty one
        raise


def _make(directory: Path, made: list[Path]) -> None:
    """``mkdir -p``, remembering what was not there before."""
    for part in [*reversed(directory.parents), directory]:
        with suppress(FileExistsError):
            part.mkdir()
            made.append(part)
    if not directory.is_dir():
        raise NotADirectoryError(0, "a file of that name is in the way")


def _requested(target: Path, overwrite: bool, made: list[Path]) -> Path:
    if target.is_file():
        raise OutputError(f"cannot write to {target}: it is a file; give the name of a directory")
    _make(target, made)
    if not overwrite and any(target.iterdir()):
        raise OutputError(
            f"{target} is not empty; give another directory, or --overwrite to replace the files of an earlier run"
        )
    return target


def _numbered(stem: str, made: list[Path]) -> Path:
    base = Path("runs")
    _make(base, made)
    taken = [int(p.name[len(stem) + 1 :]) for p in base.glob(f"{stem}-*") if p.name[len(stem) + 1 :].isdecimal()]
    number = max(taken, default=0) + 1
    while True:
        target = base / f"{stem}-{number:04d}"
        try:
            target.mkdir()  # exclusive: of two runs that start together, one gets the next number
        except FileExistsError:
            number += 1
            continue
        made.append(target)
        return target


def save_partial(partial: Any, path: Path) -> None:
    """Save what an interrupted run had finished, and say so."""
    if partial is None or not hasattr(partial, "save"):
        return
    try:
        partial.save(path)
    except HerculesError as error:
        say(f"the partial result could not be saved: {error}")
    else:
        say(f"what was finished is saved in {path}")


# --- progress ------------------------------------------------------------------------------------------------------


class Progress:
    """A bar on stderr while it is a terminal, silence otherwise. Call it with (done, total)."""

    def __init__(self, label: str, *, quiet: bool = False, color: bool = True):
        self._label = label
        self._bar: _Bar | None = None
        if not quiet and _is_terminal(sys.stderr):
            self._bar = _rich_bar(label, color) or _PlainBar(label)

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` pieces are finished."""
        if self._bar is not None:
            with suppress(OSError):  # the terminal went away; the work goes on
                self._bar.update(done, total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()


class _Bar(Protocol):
    def update(self, done: int, total: int) -> None: ...
    def close(self) -> None: ...


def _is_terminal(stream: Any) -> bool:
    with suppress(AttributeError, ValueError):
        return bool(stream.isatty())
    return False


class _PlainBar:
    """One line, redrawn in place."""

    WIDTH = 30

    def __init__(self, label: str):
        self._label = label

    def update(self, done: int, total: int) -> None:
        filled = self.WIDTH * done // max(total, 1)
        bar = "#" * filled + "." * (self.WIDTH - filled)
        print(f"\r{self._label} [{bar}] {done}/{total}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


class _RichBar:
    def __init__(self, label: str, progress: Any):
        self._progress = progress
        self._task = progress.add_task(label, total=None)
        progress.start()

    def update(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        self._progress.stop()


def _rich_bar(label: str, color: bool) -> _RichBar | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        return None
    wanted = color and "NO_COLOR" not in os.environ
    console = Console(file=sys.stderr, no_color=not wanted)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return _RichBar(label, Progress(*columns, console=console, transient=True))
