"""Loading descriptor files, resolving the names inside them, and the catalogues that come with the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from hercules_fast.descriptors.schema import FileKind, content_faults, nearest, select, type_adapter
from hercules_fast.descriptors.toml import Document, read_toml
from hercules_fast.descriptors.units import unit_of_key, units_like
from hercules_fast.errors import ConfigError, Fault, HerculesError, InputError, UnknownNameError

__all__ = ["Catalog", "check", "json_schema", "kinds", "load"]

T = TypeVar("T")

_Shelved = dict[tuple[str, str], list[Document]]
"""Documents of one place by (kind, name in lower case)."""

# Modules that declare kinds of files, in a tuple KINDS.
_DECLARED_IN = (
    "hercules_fast.hardware.files",
    "hercules_fast.models.files",
    "hercules_fast.traffic.files",
    "hercules_fast.fleets",
    "hercules_fast.memory.standards",
    "hercules_fast.queueing.files",
    "hercules_fast.provisioning.operations",
)


@cache
def kinds() -> dict[str, FileKind[Any]]:
    """Return every kind of descriptor file by its name (``"cpu"``, ``"fleet"``, ...)."""
    return {kind.name: kind for module in _DECLARED_IN for kind in import_module(module).KINDS}


def load(path: str | Path, kind: FileKind[T], *, files: Sequence[str | Path] = ()) -> T:
    """Read the descriptor file ``path``.

    Names of other descriptors inside it (a server's CPU, a fleet's models) are looked up in ``files``, then among the
    ``*.toml`` files beside ``path``, then in the catalogue; a name that ends in ``.toml`` is a path, relative to the
    file. Two files of one kind and name in one place are a fault. Raises :class:`MissingFileError`, or
    :class:`ConfigError` with every fault of the file.
    """
    given = tuple(Path(file) for file in files)
    value: T = _read(read_toml(Path(path)), kind, _Shelf(given, Path(path)))
    return value


def check(
    paths: Sequence[str | Path], *, files: Sequence[str | Path] | None = None
) -> list[tuple[Path, tuple[Fault, ...]]]:
    """Validate descriptor files of any kind, which their ``schema`` names; return each path with its faults.

    Never raises for what is in a file. Names are looked up as for :func:`load`. Without ``files`` the ``paths`` also
    serve as each other's references, after what stands beside each.
    """
    given = tuple(Path(p) for p in (paths if files is None else files))
    return [(Path(path), _faults_of(Path(path), given, beside_first=files is None)) for path in paths]


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of a kind of file, for editors; only :func:`check` knows ranges and references."""
    if kind not in kinds():
        raise UnknownNameError.of("kind of file", kind, kinds())
    wanted = kinds()[kind]
    schema: dict[str, Any] = _with_quantities(type_adapter(wanted.form).json_schema())
    schema["properties"]["schema"] = {"const": wanted.schema}
    schema["required"] = ["schema", *schema.get("required", [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": wanted.schema}


class Catalog(Generic[T]):
    """The descriptors of one kind that come with the package: one file each, named after it in lower case."""

    def __init__(self, kind: FileKind[T]):
        self.kind = kind
        self._cache: dict[str, T] = {}

    def names(self) -> tuple[str, ...]:
        """Return the names, in alphabetical order of their files."""
        return tuple(read_toml(path).data["name"] for path in sorted(self.kind.catalog.glob("*.toml")))

    def get(self, name: str) -> T:
        """Return the descriptor called ``name``, in any case; else :class:`UnknownNameError` with the nearest."""
        key = name.lower() if isinstance(name, str) else ""
        if key not in self._cache:
            if key not in {path.stem for path in self.kind.catalog.glob("*.toml")}:
                raise UnknownNameError.of(self.kind.name, str(name), self.names())
            self._cache[key] = _read(read_toml(self.kind.catalog / f"{key}.toml"), self.kind, _Shelf((), None))
        return self._cache[key]


@cache
def _catalog(kind: str) -> Catalog[Any]:
    return Catalog(kinds()[kind])


class _Shelf:
    """Where names inside one file are looked up: files given, files beside it, catalogue.

    ``beside_first`` puts the files beside it before those given. ``shadows`` collects the files that stand in for an
    entry of the catalogue, also for the shelves of the files found here.
    """

    def __init__(
        self,
        given: tuple[Path, ...],
        path: Path | None,
        *,
        beside_first: bool = False,
        shadows: dict[tuple[str, str], str] | None = None,
    ):
        self._given = given
        self._path = path
        self._beside_first = beside_first
        self._shadows: dict[tuple[str, str], str] = {} if shadows is None else shadows
        self._found: tuple[_Shelved, ...] | None = None
        self._unreadable: list[str] = []
        self._built: dict[tuple[str, str], Any] = {}

    def __call__(self, kind: str, name: str) -> Any:
        """Return the descriptor; raises a :class:`HerculesError` where there is none or it has faults."""
        key = (kind, name.lower())
        if key not in self._built:
            self._built[key] = self._load(kind, name)
        return self._built[key]

    @property
    def shadows(self) -> tuple[str, ...]:
        """Files used so far in place of a catalogue entry of their name, as ``"model wnd (wide.toml)"``."""
        return tuple(f"{kind} {name} ({file})" for (kind, name), file in sorted(self._shadows.items()))

    def _load(self, kind: str, name: str) -> Any:
        document = self._document(kind, name)
        if document is not None:
            shelf = _Shelf(self._given, document.path, beside_first=self._beside_first, shadows=self._shadows)
            value = _read(document, kinds()[kind], shelf)
            self._note_shadow(kind, document)
            return value
        try:
            return _catalog(kind).get(name)
        except UnknownNameError:
            unreadable = f"; beside it, could not read {', '.join(self._unreadable)}" if self._unreadable else ""
            known = (*_catalog(kind).names(), *self._local_names(kind))
            raise UnknownNameError(f"{UnknownNameError.of(kind, name, known)}{unreadable}") from None

    def _document(self, kind: str, name: str) -> Document | None:
        if self._path is None:
            return None
        if name.endswith(".toml"):
            return read_toml(self._path.parent / name)
        for shelved in self._tiers():
            documents = shelved.get((kind, name.lower()), [])
            if len(documents) > 1:
                files = ", ".join(_short(document.path, self._path) for document in documents)
                raise InputError(
                    f"{name!r} is the name of {len(documents)} {kind} files: {files}; allowed is one "
                    "(give the others another name, or write the path of the file, which ends in .toml)"
                )
            if documents:
                return documents[0]
        return None

    def _local_names(self, kind: str) -> list[str]:
        return [
            documents[0].data["name"]
            for shelved in (self._tiers() if self._path is not None else ())
            for (own_kind, _), documents in shelved.items()
            if own_kind == kind
        ]

    def _note_shadow(self, kind: str, document: Document) -> None:
        name = document.data["name"]
        entry = kinds()[kind].catalog / f"{name.lower()}.toml"
        if name.lower() in {path.stem for path in entry.parent.glob("*.toml")} and not _same(entry, document.path):
            self._shadows[kind, name] = document.path.name

    def _tiers(self) -> tuple[_Shelved, ...]:
        """Return the documents of each place, in the order in which places are searched."""
        assert self._path is not None
        if self._found is None:
            beside = [path for path in sorted(self._path.parent.glob("*.toml")) if not _same(path, self._path)]
            places = (beside, self._given) if self._beside_first else (self._given, beside)
            self._found = tuple(self._shelved(place) for place in places)
        return self._found

    def _shelved(self, paths: Sequence[Path]) -> _Shelved:
        found: _Shelved = {}
        for path in {path.resolve(): path for path in paths}.values():
            try:
                document = read_toml(path)
            except HerculesError:
                self._unreadable.append(path.name)
                continue
            name, kind = document.data.get("name"), _kind_name(document)
            if isinstance(name, str) and kind is not None:
                found.setdefault((kind, name.lower()), []).append(document)
        return found


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def _short(path: Path, file: Path) -> str:
    """Name ``path`` for a reader of ``file``."""
    return path.name if _same(path.parent, file.parent) else str(path)


def _kind_name(document: Document) -> str | None:
    schema = document.data.get("schema")
    return next((kind.name for kind in kinds().values() if kind.schema == schema), None)


def _read(document: Document, kind: FileKind[Any], shelf: _Shelf) -> Any:
    faults = list(_schema_faults(document, kind))
    if faults:
        raise ConfigError(str(document.path), faults)
    form, faults = content_faults(kind, document.data)
    faults += _reference_faults(document, kind, shelf)
    if not faults:
        try:
            return kind.build(form, shelf)
        except ConfigError as error:  # what only the resolved references show
            faults = list(error.faults)
    raise ConfigError(str(document.path), [document.located(fault) for fault in dict.fromkeys(faults)])


def _schema_faults(document: Document, kind: FileKind[Any]) -> Iterator[Fault]:
    seen = document.data.get("schema")
    if seen is None:
        yield Fault("schema", f"missing; expected {kind.schema!r}")
    elif seen != kind.schema:
        yield Fault("schema", f"is {seen!r}; allowed is {kind.schema!r}")


def _reference_faults(document: Document, kind: FileKind[Any], shelf: _Shelf) -> Iterator[Fault]:
    for pattern, wanted in kind.references.items():
        for path, name in select(document.data, pattern):
            if not isinstance(name, str):
                continue  # reported by the type check
            try:
                shelf(wanted, name)
            except ConfigError as error:
                yield Fault(path, f"{name!r} has faults of its own: " + "; ".join(map(str, error.faults)))
            except HerculesError as error:
                yield Fault(path, str(error))


def _faults_of(path: Path, given: tuple[Path, ...], *, beside_first: bool) -> tuple[Fault, ...]:
    try:
        document = read_toml(path)
        name = _kind_name(document)
        if name is None:
            schemas = [kind.schema for kind in kinds().values()]
            seen = document.data.get("schema")
            hint = nearest(str(seen), schemas)
            return (Fault("schema", f"is {seen!r}; allowed is one of {', '.join(schemas)}{hint}"),)
        others = tuple(other for other in given if not _same(other, path))
        _read(document, kinds()[name], _Shelf(others, path, beside_first=beside_first))
    except ConfigError as error:
        return error.faults
    except HerculesError as error:
        return (Fault("", str(error)),)
    return ()


def _with_quantities(node: Any) -> Any:
    """Let numbers whose key ends in a unit also be strings such as "25ms"."""
    if isinstance(node, list):
        return [_with_quantities(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _with_quantity(key, value) for key, value in node.items()}


def _with_quantity(key: str, value: Any) -> Any:
    unit = unit_of_key(key)
    if unit is None or not (isinstance(value, dict) and value.get("type") == "number"):
        return _with_quantities(value)
    pattern = rf"^\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*({'|'.join(units_like(unit))})\s*$"
    return {**value, "type": ["number", "string"], "pattern": pattern}
