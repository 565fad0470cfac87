"""Files and catalogue of the models room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hercules_fast.descriptors import COUNT, PERCENTILE, POSITIVE, Bound, Catalog, FileKind, Variants, load
from hercules_fast.errors import Fault
from hercules_fast.models.descriptors import Model

__all__ = ["KINDS", "load_model", "model", "model_names"]

_WIDTH = Bound(1, 10_000_000)


def _as_read(form: Model, _resolve: Callable[[str, str], Any]) -> Model:
    return form


def _model_faults(model: Model) -> Iterator[Fault]:
    if not model.tables and not model.stages:
        yield Fault("tables", "a model needs tables or stages")
    seen: dict[str, int] = {}
    for index, stage in enumerate(model.stages):
        if stage.name in seen:
            yield Fault(f"stages[{index}].name", f"{stage.name!r} is already the name of stages[{seen[stage.name]}]")
        seen.setdefault(stage.name, index)
        if stage.kind in ("mlp", "attention") and len(stage.dims) == 1:
            yield Fault(f"stages[{index}].dims", "one width; at least an input and an output width are needed")


def _case(required: str, optional: str = "") -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(required.split()), frozenset(optional.split())


MODEL: FileKind[Model] = FileKind(
    name="model",
    form=Model,
    catalog=Path(__file__).parent / "catalog",
    build=_as_read,
    bounds={
        "dense_input_dim": Bound(0, 10_000_000),
        "tables[].count": COUNT,
        "tables[].rows": Bound(1, 10**12),
        "tables[].dim": Bound(1, 65_536),
        "tables[].pooling": COUNT,
        "tables[].dtype_bytes": Bound(1, 8),
        "stages[].dims[]": _WIDTH,
        "stages[].copies": COUNT,
        "stages[].out_dim": _WIDTH,
        "stages[].vectors": COUNT,
        "stages[].dim": _WIDTH,
        "stages[].steps": COUNT,
        "stages[].input_dim": _WIDTH,
        "stages[].hidden_dim": _WIDTH,
        "stages[].layers": COUNT,
        "stages[].rank": _WIDTH,
        "latency_targets[].percentile": PERCENTILE,
        "latency_targets[].latency_ms": POSITIVE,
    },
    variants=(
        Variants(
            at="stages[]",
            by="kind",
            cases={
                "mlp": _case("dims", "copies"),
                "concat": _case("out_dim", "copies"),
                "dot": _case("vectors dim out_dim"),
                "sum": _case("vectors dim"),
                "rnn": _case("steps input_dim hidden_dim"),
                "attention": _case("steps dims"),
                "cross": _case("layers dim rank"),
            },
        ),
    ),
    rules=_model_faults,
    unsourced=frozenset({"latency_targets"}),  # each target carries its own
)

KINDS: tuple[FileKind[Any], ...] = (MODEL,)

_MODELS = Catalog(MODEL)


def model(name: str) -> Model:
    """Return the catalogue's model ``name``; case does not matter. Raises ``UnknownNameError``."""
    return _MODELS.get(name)


def model_names() -> tuple[str, ...]:
    """Return the models of the catalogue."""
    return _MODELS.names()


def load_model(path: str | Path) -> Model:
    """Read a model from a TOML file; raises ``ConfigError`` with all of its faults, or ``MissingFileError``."""
    return load(path, MODEL)
