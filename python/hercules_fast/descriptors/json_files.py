"""JSON files of other programs, read within limits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from hercules_fast.descriptors.toml import MAX_DEPTH, limit_faults, read_text, refused
from hercules_fast.errors import ConfigError, Fault

__all__ = ["read_json"]


class _Object(dict[str, Any]):
    """A JSON object that remembers the keys which its text gives more than once."""

    repeated: tuple[str, ...] = ()


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object in the JSON file ``path``: str, int, float, bool, None, lists and dicts.

    Raises:
        MissingFileError: it cannot be opened.
        ConfigError: it is too large, not UTF-8, not JSON (RFC 8259, so without NaN), not an object, or nested deeper
            than ``MAX_DEPTH``; every key that is given twice and every whole number beyond 64 bits.
    """
    path = Path(path)
    text = read_text(path)
    try:
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise refused(path, f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # JSONDecodeError, and numbers of too many digits
        raise refused(path, f"not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise refused(path, f'is a JSON {type(data).__name__}; allowed is an object, as in {{"key": value}}')
    faults = list(limit_faults(data)) or list(_repeats("", data))
    if faults:
        raise ConfigError(str(path), faults)
    return data


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        found.repeated = tuple(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _repeats(path: str, node: Any) -> Iterator[Fault]:
    """Depth is limited by now."""
    if isinstance(node, _Object):
        yield from (Fault(f"{path}.{key}".lstrip("."), "is given more than once") for key in node.repeated)
        for key, value in node.items():
            yield from _repeats(f"{path}.{key}".lstrip("."), value)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _repeats(f"{path}[{index}]", item)
