"""Measured run times over batch sizes: curves from CSV files, with every fault and its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hercules_fast import hardware
from hercules_fast import models as model_room
from hercules_fast.errors import Fault, UnknownNameError
from hercules_fast.hardware import Server
from hercules_fast.models import Model
from hercules_fast.serving import Terms, lone_seconds
from hercules_fast.tables import read_csv_rows

__all__ = ["ALIASES", "PUBLISHED", "Curve", "published_curves", "read_curves_csv"]

T = TypeVar("T")

PUBLISHED = Path(__file__).parent / "catalog" / "published-run-times.csv"
"""Twelve curves of public measurements; the file says whose."""
PUBLISHED_SOURCE = "medians of 100 run times each, published in GitHub boringlee24/hpdc23-kairos"

ALIASES = {
    **{f"{prefix}{k}": f"dlrm-rmc{k}" for k in (1, 2, 3) for prefix in ("rm", "rmc", "dlrm-rm")},
    **dict.fromkeys(("mtwnd", "mt-wide-and-deep", "multi-task-wnd"), "mt-wnd"),
    **dict.fromkeys(("wide-and-deep", "wide-deep"), "wnd"),
}
"""Names that other projects use -> names of the catalogue."""

COLUMNS = ("model", "host", "batch", "run_ms_median")
OPTIONAL = ("n", "load_ms_median")
"""Repetitions behind a median, and the time to load inputs, which belongs to no host; both are only checked for."""
IMPLAUSIBLE = 30.0
"""A curve this many times above or below the model's own guess is taken for another unit."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Curve:
    """Run times of one model on one host.

    Attributes:
        model: the model that ran.
        host: where; a CPU host ran it on one core, a server with an accelerator on that.
        items: int64 [P], batches in items, increasing.
        run_ms: float64 [P], median milliseconds of a run, inputs already there.
        source: where the figures come from; ``is_published``: from a publication, not from the user.
    """

    model: Model
    host: Server
    items: npt.NDArray[np.int64]
    run_ms: npt.NDArray[np.float64]
    source: str
    is_published: bool = False

    @property
    def mark(self) -> str:
        """What a descriptor says of a constant that was fitted to such curves."""
        return f"{'derived' if self.is_published else 'measured'}: calibrated on {self.source}"


def published_curves() -> tuple[Curve, ...]:
    """The twelve public curves that come with the package: four models on three hosts of a cloud."""
    curves = read_curves_csv(PUBLISHED)
    return tuple(replace(curve, source=PUBLISHED_SOURCE, is_published=True) for curve in curves)


def read_curves_csv(
    path: str | Path, *, servers: Sequence[Server] = (), models: Sequence[Model] = ()
) -> tuple[Curve, ...]:
    """Read curves from a CSV file with the columns ``model, host, batch, run_ms_median`` and, if known, ``n``.

    Names are looked up in ``models`` and ``servers``, then in the catalogue, in any case; models also by
    :data:`ALIASES`. Lines that begin with ``#`` are comments.

    Raises:
        MissingFileError: the file cannot be read.
        ConfigError: with all faults and their lines: columns that are missing or unknown, ragged rows, unknown names,
            batches that are no whole number >= 1, times that are not finite and > 0, duplicates, other units.
    """
    path = Path(path)
    table = read_csv_rows(path, required=COLUMNS, optional=OPTIONAL)
    faults = list(table.faults)
    find_model = _finder(
        "model", {m.name.lower(): m for m in models}, model_room.model, model_room.model_names, ALIASES
    )
    find_host = _finder("host", {s.name.lower(): s for s in servers}, hardware.server, hardware.server_names, {})
    seen: dict[tuple[str, str, int], int] = {}
    points: dict[tuple[str, str], list[tuple[int, float, int]]] = {}
    found: dict[tuple[str, str], tuple[Model, Server]] = {}
    for line, row in table.rows:
        model = _caught(find_model, row["model"], line, faults)
        host = _caught(find_host, row["host"], line, faults)
        batch = table.whole(row, "batch", line, faults)
        run_ms = table.positive(row, "run_ms_median", line, faults)
        if row.get("n"):
            table.whole(row, "n", line, faults)
        if model is None or host is None or batch is None:
            continue
        pair = model.name, host.name
        first = seen.setdefault((*pair, batch), line)
        if first != line:
            faults.append(Fault(f"line {line}", f"{model.name} on {host.name}, batch {batch}: already on line {first}"))
        elif run_ms is not None:
            found[pair] = model, host
            points.setdefault(pair, []).append((batch, run_ms, line))
    curves = []
    for pair, own in points.items():
        own.sort()
        model, host = found[pair]
        items = np.array([batch for batch, _, _ in own], dtype=np.int64)
        times = np.array([ms for _, ms, _ in own])
        faults += _unit_faults(model, host, items, times, min(line for _, _, line in own))
        curves.append(Curve(model=model, host=host, items=items, run_ms=times, source=path.name))
    if not table.rows and not faults:
        faults.append(Fault("", "no rows below the header"))
    table.raise_if_any(faults)
    return tuple(curves)


def _finder(
    what: str,
    own: Mapping[str, T],
    catalogue: Callable[[str], T],
    names: Callable[[], tuple[str, ...]],
    aliases: Mapping[str, str],
) -> Callable[[str], T]:
    def find(name: str) -> T:
        key = name.lower()
        if key in own:
            return own[key]
        key = key.replace("_", "-")
        try:
            return catalogue(aliases.get(key, key))
        except UnknownNameError:
            raise UnknownNameError.of(what, name, {*own, *names(), *aliases}) from None

    return find


def _caught(find: Callable[[str], T], name: str, line: int, faults: list[Fault]) -> T | None:
    try:
        return find(name)
    except UnknownNameError as error:
        faults.append(Fault(f"line {line}", str(error)))
        return None


def _unit_faults(
    model: Model, host: Server, items: npt.NDArray[np.int64], run_ms: npt.NDArray[np.float64], line: int
) -> list[Fault]:
    guess_ms = lone_seconds(host, model, items, Terms().without("gpu_input")) * 1e3
    ratio = float(np.median(run_ms / guess_ms))
    if 1 / IMPLAUSIBLE <= ratio <= IMPLAUSIBLE:
        return []
    unit = "microseconds" if ratio > 1 else "seconds"
    return [
        Fault(
            f"line {line}",
            f"{model.name} on {host.name} takes {ratio:.3g} times what the model expects; allowed are milliseconds, "
            f"are these {unit}?",
        )
    ]
