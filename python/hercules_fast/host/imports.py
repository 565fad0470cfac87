"""Descriptors of other machines out of what their own tools print: ``lscpu -J`` and ``nvidia-smi --query-gpu``.

Files are only parsed; no tool is run. What a file does not tell is taken from a part of the catalogue and marked so.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hercules_fast.errors import ConfigError, Fault, MissingFileError
from hercules_fast.hardware import Cpu, Gpu, Server, cpu, gpu, gpu_names
from hercules_fast.host.alike import Known, alike, check_name, flop_per_cycle

__all__ = ["read_lscpu_json", "read_nvidia_smi_csv", "server_of"]

MAX_BYTES = 1 << 20

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?B?)?(?:\s*\((\d+) instances?\))?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_UNTOLD = {"", "n/a", "[n/a]", "[not supported]", "not supported", "[unknown error]", "-"}
_AVX512 = {"avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"}
_AVX2 = {"avx2", "fma"}


def read_lscpu_json(path: str | Path, *, name: str | None = None, like: str = "Xeon-Gold-6138") -> Cpu:
    """A socket of the machine on which ``lscpu -J`` wrote the file: cores, caches, clock, vector units.

    Fields may lie side by side or inside one another (``children``), sizes may be of a cache or the sum of all of a
    level, as the versions of lscpu have it.

    Args:
        path: The file.
        name: Of the CPU. Default: the name of its model.
        like: CPU of the catalogue whose figures stand in for what lscpu does not tell; its power in proportion to the
            cores.

    Raises:
        MissingFileError: The file cannot be read.
        ConfigError: It is not what ``lscpu -J`` writes; all faults, each with its field.
        UnknownNameError: ``like`` is not in the catalogue.
    """
    stand_in = cpu(like)
    if name is not None:
        check_name(name)
    source = Path(path)
    told = _lscpu_fields(source)
    faults: list[Fault] = []

    def count(field: str) -> int:
        text = told.get(field, "")
        if re.fullmatch(r"0*[1-9]\d{0,3}", text):
            return int(text)
        said = f"is {text[:40]!r}; allowed is a whole number from 1 to 9999" if field in told else "missing"
        faults.append(Fault(field, said))
        return 1

    cores, sockets = count("Core(s) per socket"), count("Socket(s)")
    model = told.get("Model name", "")
    if not model and name is None:
        faults.append(Fault("Model name", "missing; without it, name= must give the CPU a name"))
    if name is None and ("," in model or not model.isprintable()):
        faults.append(
            Fault("Model name", f"is {model[:60]!r}; a name has no comma and can be printed; name= gives another")
        )
    known = {"cores": Known(cores, "user: lscpu, Core(s) per socket"), **_clock(told, faults)}
    known["fp32_flop_per_cycle"] = flop_per_cycle(_isa(told))
    for level, key, unit, instances in (("L2", "l2_kb", 1000, cores * sockets), ("L3", "llc_mb", 10**6, sockets)):
        size = _cache_bytes(told, f"{level} cache", instances, faults)
        if size:
            figure = float(f"{size / unit:.6g}")
            known[key] = Known(figure, f"user: lscpu, {level} cache, {size / 1024:,.0f} KiB each")
    if faults:
        raise ConfigError(str(source), faults)
    return alike(stand_in, name or model, known, size="cores")


def read_nvidia_smi_csv(path: str | Path, *, like: str = "V100") -> tuple[Gpu, ...]:
    """The kinds of cards in what ``nvidia-smi --query-gpu=name,memory.total,power.limit --format=csv`` wrote.

    The first line names the columns, as nvidia-smi writes it, with units or without; ``name`` and ``memory.total`` are
    needed, other columns of the tool may stand beside them. Cards of one name are one answer.

    Args:
        path: The file.
        like: Card of the catalogue whose figures stand in for what is not told. A card that is in the catalogue itself
            stands in for its own kind.

    Raises:
        MissingFileError: The file cannot be read.
        ConfigError: It is not such a file; all faults, each with its line and column.
        UnknownNameError: ``like`` is not in the catalogue.
    """
    stand_in = gpu(like)
    source = Path(path)
    lines = [(number, line) for number, line in enumerate(_text(source).splitlines(), start=1) if line.strip()]
    if not lines:
        raise ConfigError(str(source), [Fault("", "empty; the first line names the columns")])
    try:
        rows = [(number, [cell.strip() for cell in next(csv.reader([line]))]) for number, line in lines]
    except csv.Error as error:
        raise ConfigError(str(source), [Fault("", f"not valid CSV: {error}")]) from None
    header_line, header = rows[0][0], [re.sub(r"\s*\[.*\]$", "", cell) for cell in rows[0][1]]
    faults = [
        Fault(f"line {header_line}, {column}", "no such column; the first line names the columns (no noheader)")
        for column in ("name", "memory.total")
        if column not in header
    ]
    faults += [
        Fault(f"line {header_line}, {column}", f"stands there {header.count(column)} times; allowed is once")
        for column in dict.fromkeys(header)
        if header.count(column) > 1
    ]
    if faults:
        raise ConfigError(str(source), faults)
    cards: dict[str, tuple[int, dict[str, float]]] = {}
    for number, cells in rows[1:]:
        if len(cells) != len(header):
            faults.append(Fault(f"line {number}", f"has {len(cells)} entries; the first line names {len(header)}"))
            continue
        row = dict(zip(header, cells, strict=True))
        figures = {column: _figure(row, column, f"line {number}", faults) for column in _COLUMNS}
        card = row["name"]
        if card.lower() in _UNTOLD or not card.isprintable():
            faults.append(Fault(f"line {number}, name", f"is {card!r}; allowed is the name of a card"))
            continue
        earlier, others = cards.setdefault(card, (number, figures))
        faults += [
            Fault(f"line {number}, {column}", f"is {value:g}, and {others[column]:g} on line {earlier}; cards differ")
            for column, value in figures.items()
            if value and others[column] and value != others[column]
        ]
    if not cards and not faults:
        faults.append(Fault("", "names no card"))
    if faults:
        raise ConfigError(str(source), faults)
    return tuple(_card(name, figures, stand_in) for name, (_, figures) in cards.items())


def server_of(cpu: Cpu, gpu: Gpu | None = None, *, like: Server, base_w: float | None = None) -> Server:
    """A server with this CPU and card, called as the CPU; memory and the rest are those of ``like``, and say so."""
    assumed = f"assumed: as {like.name} has it"
    return replace(
        like,
        name=cpu.name,
        cpu=cpu,
        gpu=gpu,
        base_w=like.base_w if base_w is None else base_w,
        sources={"base_w": assumed if base_w is None else "user: given", "memory_reserve": assumed},
    )


# --- lscpu ---------------------------------------------------------------------------------------------------------


def _lscpu_fields(path: Path) -> dict[str, str]:
    """Text by field, without the colon; of fields that stand there twice (hybrid CPUs), the first."""
    try:
        document = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(path), [Fault("", f"not valid JSON: {error}")]) from None
    top = document.get("lscpu") if isinstance(document, dict) else None
    if not isinstance(top, list):
        raise ConfigError(str(path), [Fault("lscpu", "missing; expected what `lscpu -J` writes, a list of fields")])
    found: dict[str, str] = {}
    for entry in _entries(top):
        field, data = entry.get("field"), entry.get("data")
        if isinstance(field, str) and isinstance(data, str | int | float):
            found.setdefault(field.strip().removesuffix(":"), str(data).strip())
    return found


def _entries(top: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Fields in the order of the file, each before its children."""
    waiting = list(reversed(top))
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            yield entry
            children = entry.get("children")
            if isinstance(children, list):
                waiting += reversed(children)


def _clock(told: Mapping[str, str], faults: list[Fault]) -> dict[str, Known]:
    """Nominal clock; the model's name has it, or it is the highest, or the one of the moment."""
    named = re.search(r"@ ?(\d+(?:\.\d+)?) ?GHz", told.get("Model name", ""))
    ghz, field = (float(named.group(1)), "Model name") if named else (0.0, "")
    for candidate in ("CPU max MHz", "CPU MHz"):
        text = told.get(candidate, "").replace(",", ".")  # some locales write a comma
        if ghz or not text or text.lower() in _UNTOLD:
            continue
        if re.fullmatch(r"\d{1,6}(\.\d+)?", text) and 0 < float(text) < 100_000:
            ghz, field = float(text) / 1000, candidate
        else:
            faults.append(Fault(candidate, f"is {text[:40]!r}; allowed is a number of MHz"))
    if not ghz:
        return {}
    ghz = float(f"{ghz:.4g}")
    return {
        "frequency_ghz": Known(ghz, f"user: lscpu, {field}"),
        "simd_frequency_ghz": Known(ghz, f"assumed: the clock of lscpu, {field}; the vector units' was not told"),
    }


def _isa(told: Mapping[str, str]) -> str:
    flags = set(told.get("Flags", "").split())
    if flags >= _AVX512:
        return "avx512"
    if flags >= _AVX2:
        return "avx2"
    return "neon" if {"asimd", "neon"} & flags else "portable"


def _cache_bytes(told: Mapping[str, str], field: str, instances: int, faults: list[Fault]) -> float:
    """Bytes of one cache; 0 where it is not told.

    Old versions tell the size of one ("1024K"), newer the sum over the machine ("32 MiB"), newest how many it is of.
    """
    text = told.get(field, "")
    if not text or text.lower() in _UNTOLD:
        return 0.0
    found = _SIZE.fullmatch(text)
    size = float(found.group(1)) * _UNITS[(found.group(2) or "")[:1]] if found else 0.0
    if found is None or not 0 < size < 2**50:
        faults.append(Fault(field, f"is {text[:40]!r}; allowed is a size such as '32 MiB (2 instances)' or '1024K'"))
        return 0.0
    if found.group(3):
        return size / max(1, int(found.group(3)))
    return size / instances if (found.group(2) or "").endswith("iB") else size


# --- nvidia-smi ----------------------------------------------------------------------------------------------------

_COLUMNS = {"memory.total": "MiB", "power.limit": "W", "power.max_limit": "W", "clocks.max.sm": "MHz"}
"""Columns that are used, and the units that values may carry."""


def _figure(row: Mapping[str, str], column: str, line: str, faults: list[Fault]) -> float:
    """The number in ``column``; 0 where it is not told and need not be."""
    text = row.get(column, "")
    unit = _COLUMNS[column]
    if text.lower() in _UNTOLD:
        if column == "memory.total":
            faults.append(Fault(f"{line}, {column}", f"is {text!r}; a card without it cannot be described"))
        return 0.0
    found = re.fullmatch(rf"(\d{{1,12}}(?:\.\d{{1,6}})?)\s*(?:{unit})?", text)
    if found is None or not float(found.group(1)) > 0:
        faults.append(Fault(f"{line}, {column}", f"is {text[:40]!r}; allowed is a number above 0, perhaps with {unit}"))
        return 0.0
    return float(found.group(1))


def _card(name: str, figures: Mapping[str, float], stand_in: Gpu) -> Gpu:
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    own = next((known for known in gpu_names() if known.lower() in words), None)
    like = gpu(own) if own else stand_in
    gigabytes = float(f"{figures['memory.total'] * 2**20 / 1e9:.4g}")
    known = {"memory_gb": Known(gigabytes, f"user: nvidia-smi, memory.total, {figures['memory.total']:g} MiB")}
    for column in ("power.max_limit", "power.limit"):
        if figures[column]:
            known["tdp_w"] = Known(figures[column], f"user: nvidia-smi, {column}")
    clock = f"; its clock is up to {figures['clocks.max.sm']:g} MHz" if figures["clocks.max.sm"] else ""
    if own:
        same = {field: Known(getattr(like, field), text) for field, text in like.sources.items()}
        known = {**same, **known}
    elif clock:
        known["fp32_tflop_s"] = Known(like.fp32_tflop_s, f"assumed: as {like.name} has it, for want of a figure{clock}")
    return alike(like, name, known)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise MissingFileError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(str(path), [Fault("", f"larger than {MAX_BYTES} bytes")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), [Fault("", f"not UTF-8: byte {raw[error.start]:#04x} on line {line}")]) from None
