"""Descriptor files: TOML in, frozen dataclasses out, every fault of a file at once.

The rooms ``hardware``, ``models``, ``traffic`` and ``fleet`` each declare their kinds of file (:class:`FileKind`);
what they share is here: reading TOML within limits, units, ranges, sources, references and catalogues.
pydantic is imported only by the functions that read files.
"""

from hercules_fast.descriptors.catalog import Catalog, check, json_schema, kinds, load
from hercules_fast.descriptors.json_files import read_json
from hercules_fast.descriptors.schema import (
    COUNT,
    EFFICIENCY,
    FILE_RULES,
    FRACTION,
    LATENCY_MS,
    MARKS,
    NOT_NEGATIVE,
    PERCENTILE,
    POSITIVE,
    Bound,
    FileKind,
    Resolver,
    Variants,
    nearest,
    validate,
)

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
    "Catalog",
    "FileKind",
    "Resolver",
    "Variants",
    "check",
    "json_schema",
    "kinds",
    "load",
    "nearest",
    "read_json",
    "validate",
]
