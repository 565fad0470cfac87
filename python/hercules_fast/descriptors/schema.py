"""What a kind of descriptor file must look like, and the search for everything that is wrong with one."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from math import inf, isfinite
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from unicodedata import category

from hercules_fast.descriptors.units import parse_quantity, unit_of_key, units_like
from hercules_fast.errors import ConfigError, Fault

__all__ = [
    "COUNT",
    "EFFICIENCY",
    "FILE_RULES",
    "FRACTION",
    "LATENCY_MS",
    "MARKS",
    "NOT_NEGATIVE",
    "PERCENTILE",
    "POSITIVE",
    "Bound",
    "FileKind",
    "Resolver",
    "Variants",
    "content_faults",
    "form_of",
    "nearest",
    "select",
    "type_adapter",
    "validate",
]

MARKS = ("stated", "published", "vendor", "derived", "simulated", "measured", "assumed", "user")
"""Where a figure comes from: stated in the Hercules slides or abstract · read in another publication or public
repository · a vendor's specification · arithmetic on public figures · a simulation · a measurement · assumed by us
(listed on the validation page) · given by the user of the library."""

FILE_RULES: Mapping[str, Any] = {"extra": "forbid", "strict": True}
"""How pydantic reads a descriptor: unknown keys and silent conversions are refused."""

T = TypeVar("T")

_SHOULD_BE = "Input should be "  # how pydantic begins most of its messages

# Unicode categories of characters that break a line of print or a CSV row.
_CONTROL = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Bound:
    """An interval of finite numbers."""

    low: float = -inf
    high: float = inf
    low_open: bool = False
    high_open: bool = False
    hint: Callable[[float], str] | None = None
    """What to add to the message for a value outside; empty for nothing."""

    def fault(self, path: str, value: float) -> Fault:
        """Return the fault of a ``value`` outside."""
        hint = self.hint(value) if self.hint is not None else ""
        return Fault(path, f"{value!r} is outside what is allowed: {self}{hint}")

    def holds(self, value: float) -> bool:
        """Whether ``value`` is finite and inside."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and (isinstance(value, int) or isfinite(value))

    def __str__(self) -> str:
        low = "" if self.low == -inf else f"{'>' if self.low_open else '>='} {self.low:g}"
        high = "" if self.high == inf else f"{'<' if self.high_open else '<='} {self.high:g}"
        return f"finite {' and '.join(part for part in (low, high) if part)}".rstrip()


def _in_percent(value: float) -> str:
    return f", in percent; did you mean {100 * value:.12g}?" if 0 < value < 1 else ""


POSITIVE = Bound(0.0, low_open=True)
NOT_NEGATIVE = Bound(0.0)
FRACTION = Bound(0.0, 1.0)
EFFICIENCY = Bound(0.0, 1.0, low_open=True)
PERCENTILE = Bound(1.0, 100.0, high_open=True, hint=_in_percent)
LATENCY_MS = Bound(0.0, 1e7, low_open=True)
COUNT = Bound(1, 1_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variants:
    """Tables whose key ``by`` decides which other keys apply. ``cases``: value -> (required keys, optional keys)."""

    at: str
    """Pattern of the tables, as for :func:`select`; empty for the file itself."""
    by: str
    cases: Mapping[str, tuple[frozenset[str], frozenset[str]]]

    def faults(self, data: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield keys that are missing or do not apply."""
        for path, node, case in self._nodes(data):
            required, optional = self.cases[case]
            for key in sorted(required - node.keys()):
                yield Fault(_join(path, key), f"missing; {self.by} = {case!r} needs it")
            for key in sorted((node.keys() & self._known()) - required - optional):
                allowed = ", ".join(sorted(required | optional)) or "none"
                yield Fault(_join(path, key), f"does not apply to {self.by} = {case!r} (which takes: {allowed})")

    def drop_defaults(self, data: dict[str, Any], form: type) -> None:
        """Take out, from the fields of a descriptor, those that hold their default and that its case can do without."""
        owner = form_of(
            form, tuple(0 if part == "[]" else part for part in self.at.replace("[]", ".[]").split(".") if part)
        )
        assert owner is not None, self.at
        defaults = {spec.name: spec.default for spec in fields(owner)}
        for _, node, case in self._nodes(data):
            for key in (self._known() - self.cases[case][0]) & node.keys():
                if node[key] == defaults[key]:
                    del node[key]

    def _known(self) -> frozenset[str]:
        return frozenset[str]().union(*(required | optional for required, optional in self.cases.values()))

    def _nodes(self, data: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        """Yield (path, table, case); tables without a known case are reported by the type check."""
        for path, node in select(data, self.at) if self.at else [("", data)]:
            case = node.get(self.by) if isinstance(node, Mapping) else None
            if isinstance(case, str) and case in self.cases:
                yield path, node, case


class Resolver(Protocol):
    """Looks up the names inside a file."""

    def __call__(self, kind: str, name: str, /) -> Any:
        """Return the descriptor called ``name``."""

    @property
    def shadows(self) -> tuple[str, ...]:
        """Files used in place of a catalogue entry of their name, as ``"model wnd (wide.toml)"``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileKind(Generic[T]):
    """One kind of descriptor file: ``schema = "hercules_fast.<name>/1"``.

    ``form`` is the dataclass that mirrors the file. ``build`` makes the descriptor of it, with a function that
    resolves (kind, name); it is called only when nothing is wrong.
    """

    name: str
    form: type
    catalog: Path
    bounds: Mapping[str, Bound]
    build: Callable[[Any, Resolver], T]
    references: Mapping[str, str] = field(default_factory=dict)
    """Pattern of the fields that name other descriptors -> their kind."""
    variants: tuple[Variants, ...] = ()
    rules: Callable[[Any], Iterable[Fault]] | None = None
    """Checks that compare fields; run once every field has its type."""
    unsourced: frozenset[str] = frozenset()
    """Fields that need no entry in ``[sources]``."""
    columns: tuple[str, ...] = ()
    """Patterns of names that become columns of CSV files and items of comma-separated lists."""
    filled: tuple[str, ...] = ()
    """Patterns of arrays that a file may leave out, but not write empty."""

    @property
    def schema(self) -> str:
        """Value of the ``schema`` key."""
        return f"hercules_fast.{self.name}/1"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` or nothing."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def select(data: Mapping[str, Any], pattern: str) -> list[tuple[str, Any]]:
    """Return (path, value) of what a pattern names.

    ``a.b`` keys of tables · ``a[]`` items of an array · ``a{}`` values of a table · ``a{key}`` keys of a table. Parts
    that are missing or of another type are passed over: the type check reports them.
    """
    nodes: list[tuple[str, Any]] = [("", data)]
    for segment in pattern.split("."):
        key = segment.partition("[")[0].partition("{")[0]
        nodes = [(_join(path, key), node[key]) for path, node in nodes if isinstance(node, Mapping) and key in node]
        if segment.endswith("[]"):
            nodes = [
                (f"{p}[{i}]", v) for p, node in nodes if isinstance(node, list | tuple) for i, v in enumerate(node)
            ]
        elif segment.endswith("}"):
            pick = 0 if segment.endswith("{key}") else 1
            nodes = [
                (_join(p, kv[0]), kv[pick]) for p, node in nodes if isinstance(node, Mapping) for kv in node.items()
            ]
    return nodes


def content_faults(kind: FileKind[Any], data: dict[str, Any]) -> tuple[Any, list[Fault]]:
    """Return (form or None, faults) of a file's content; references are checked elsewhere."""
    data = {key: value for key, value in data.items() if key != "schema"}
    faults: list[Fault] = []
    data = _plain_units(data, faults)
    spread = _spread_sources(data, faults)
    faults += _source_faults(kind, data, spread)
    faults += (
        Fault(path, "is []; allowed is at least one entry, or no such key")
        for pattern in kind.filled
        for path, value in select(data, pattern)
        if value == []
    )
    form, shape_faults = _shape(kind, {**data, "sources": spread} if "sources" in data else data)
    return form, faults + shape_faults + _field_faults(kind, data, form)


def validate(kind: FileKind[T], descriptor: T) -> None:
    """Apply the ranges and rules of files to a descriptor made in Python, of a kind without references.

    Raises :class:`ConfigError` with every fault. Sources are not asked for.
    """
    if not isinstance(descriptor, kind.form):
        raise ConfigError(kind.name, [Fault("", f"{type(descriptor).__name__} is not a {kind.form.__name__}")])
    data = asdict(descriptor)  # type: ignore[call-overload]
    for variants in kind.variants:
        variants.drop_defaults(data, kind.form)
    faults = _field_faults(kind, data, descriptor)
    if faults:
        raise ConfigError(f"{kind.name} {data.get('name', '')!r}", faults)


def _field_faults(kind: FileKind[Any], data: dict[str, Any], form: Any) -> list[Fault]:
    faults = []
    for pattern, bound in kind.bounds.items():
        for path, value in select(data, pattern):
            if isinstance(value, int | float) and not isinstance(value, bool) and not bound.holds(value):
                faults.append(bound.fault(path, value))
    for pattern in dict.fromkeys(("name", *kind.columns)):
        for path, name in select(data, pattern):
            if isinstance(name, str):
                faults += _name_faults(path, name, is_column=pattern in kind.columns)
    for variants in kind.variants:
        faults += variants.faults(data)
    if form is not None and kind.rules is not None:
        reported = {fault.path for fault in faults}  # a field that is missing is not also too short
        faults += (fault for fault in kind.rules(form) if fault.path not in reported)
    return faults


def _name_faults(path: str, name: str, *, is_column: bool) -> Iterator[Fault]:
    if not name.strip():
        yield Fault(path, f"is {name!r}; allowed is a name that is not blank")
    if any(category(character) in _CONTROL for character in name):
        yield Fault(path, f"is {_shown(name)}; allowed is a name without control characters")
    if is_column and "," in name:
        yield Fault(path, f"is {_shown(name)}; allowed is a name without comma")
    if is_column and name.strip().lower() == "timestamp":
        yield Fault(path, f"is {name!r}; allowed is any other name: this one heads the times of a load file")


# --- units ------------------------------------------------------------------------------------------------------------


def _plain_units(node: Any, faults: list[Fault], path: str = "") -> Any:
    """Copy ``node`` with quantities such as "25ms" turned into numbers of their key's unit. Depth is limited by now."""
    if isinstance(node, list):
        return [_plain_units(item, faults, f"{path}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    return {key: _plain_value(key, value, faults, _join(path, key)) for key, value in node.items()}


def _plain_value(key: str, value: Any, faults: list[Fault], path: str) -> Any:
    unit = unit_of_key(key)
    if unit is None or not isinstance(value, str) or path.startswith("sources."):
        return _plain_units(value, faults, path)
    number = parse_quantity(value, unit)
    if number is None:
        known = ", ".join(units_like(unit))
        faults.append(
            Fault(path, f"is {_shown(value)}; allowed is a number in {unit}, or a number followed by one of {known}")
        )
        return 1.0  # the fault is on record: let the other checks go on
    return number


# --- sources ----------------------------------------------------------------------------------------------------------


def _spread_sources(data: dict[str, Any], faults: list[Fault]) -> Any:
    """``{"a, b": text}`` -> ``{"a": text, "b": text}``."""
    sources = data.get("sources")
    if not isinstance(sources, dict):
        return sources
    spread: dict[str, Any] = {}
    for key, text in sources.items():
        for name in (part.strip() for part in key.split(",")):
            if name in spread:
                faults.append(Fault(f"sources.{key}", f"a second source for {name!r}"))
            spread[name] = text
    return spread


def _source_faults(kind: FileKind[Any], data: dict[str, Any], sources: Any) -> Iterator[Fault]:
    if not isinstance(sources, dict):
        sources = {}
    known = {spec.name for spec in fields(kind.form)} - {"name", "sources"}
    for name, text in sources.items():
        if name not in known:
            yield Fault(f"sources.{name}", f"a source for an unknown field{nearest(name, known)}")
        if isinstance(text, str):
            mark, colon, rest = text.partition(":")
            if mark not in MARKS or not colon or not rest.strip():
                yield Fault(
                    f"sources.{name}",
                    f"is {_shown(text)}; allowed is '<mark>: <text>' with a mark among {', '.join(MARKS)}",
                )
    for name in data:
        needs_one = not isinstance(data[name], str | bool) and name not in kind.unsourced and name in known
        if needs_one and name not in sources:
            yield Fault(name, "a figure without source; add it to [sources]")


# --- types ------------------------------------------------------------------------------------------------------------


@cache
def type_adapter(form: type) -> Any:
    """Return pydantic's reader of ``form``."""
    from pydantic import TypeAdapter

    return TypeAdapter(form)


def form_of(form: type, loc: tuple[str | int, ...]) -> type | None:
    """Return the dataclass that stands at ``loc`` of a form, or None."""
    here: Any = form
    for part in loc:
        if isinstance(part, str):
            if not is_dataclass(here):
                return None
            here = typing.get_type_hints(here).get(part)
        options = typing.get_args(here)
        if isinstance(part, int) or (options and not is_dataclass(here)):
            here = next((t for t in options if is_dataclass(t)), here)
    return here if isinstance(here, type) and is_dataclass(here) else None


def _shape(kind: FileKind[Any], data: dict[str, Any]) -> tuple[Any, list[Fault]]:
    """Read ``data`` as ``kind.form``. By way of JSON, where a strict reader still takes arrays for tuples."""
    from pydantic import ValidationError

    try:
        return type_adapter(kind.form).validate_json(json.dumps(data)), []
    except ValidationError as error:
        return None, [_shape_fault(kind, item) for item in error.errors(include_url=False)]


def _shape_fault(kind: FileKind[Any], error: Any) -> Fault:
    loc = tuple(error["loc"])
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    owner = form_of(kind.form, loc[:-1])
    match error["type"]:
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return Fault(path, "missing")
        case "unexpected_keyword_argument" if owner is not None:
            allowed = sorted(spec.name for spec in fields(owner))
            return Fault(path, f"unknown key{nearest(str(loc[-1]), allowed)} (allowed: {', '.join(allowed)})")
        case "literal_error":
            allowed = [part.strip(" '") for part in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
            hint = nearest(str(error["input"]), allowed)
            return Fault(path, f"is {_shown(error['input'])}; allowed is one of {', '.join(allowed)}{hint}")
    seen, wanted = _shown(error["input"]), error["msg"]
    if not wanted.startswith(_SHOULD_BE):
        return Fault(path, f"is {seen}: {wanted}")
    wanted = wanted.removeprefix(_SHOULD_BE).partition(",")[0]
    wanted = wanted.replace("a valid integer", "a whole number").replace("a valid ", "a ")
    return Fault(path, f"is {seen}; allowed is {wanted}{_interval(kind, loc)}")


def _interval(kind: FileKind[Any], loc: tuple[str | int, ...]) -> str:
    """Return what the range of the number at ``loc`` adds to its type, as ``" >= 1"``, or nothing."""
    pattern = "".join("[]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    entry = pattern.rpartition(".")[0] + "{}"
    bound = kind.bounds.get(pattern, kind.bounds.get(entry))
    return "" if bound is None else str(bound).removeprefix("finite")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
