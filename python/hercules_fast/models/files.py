"""Files and catalogue of the models room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from hercules_fast.descriptors import COUNT, LATENCY_MS, PERCENTILE, Bound, Catalog, FileKind, Variants, load
from hercules_fast.errors import Fault
from hercules_fast.models.descriptors import Model, Stage

__all__ = ["KINDS", "load_model", "model", "model_names"]

_WIDTH = Bound(1, 10_000_000)

# Stages that join vectors -> width of what they put out.
_OUTPUT_WIDTH: Mapping[str, Callable[[Stage], int]] = {
    "concat": lambda stage: stage.out_dim,
    "dot": lambda stage: stage.out_dim,
    "sum": lambda stage: stage.dim,
    "cross": lambda stage: stage.dim,
}


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
        if stage.kind in ("mlp", "attention") and len(stage.dims) < 2:
            allowed = "two or more: at least an input and an output width are needed"
            yield Fault(f"stages[{index}].dims", f"has {len(stage.dims)} widths; allowed is {allowed}")
    yield from _dense_input_faults(model)
    yield from _chain_faults(model.stages)


def _dense_input_faults(model: Model) -> Iterator[Fault]:
    """The bottom MLP consumes the dense features; in models of the DLRM family it is the first MLP."""
    if model.dense_input_dim <= 0:
        return
    before = takewhile(lambda item: item[1].kind not in _OUTPUT_WIDTH, enumerate(model.stages))
    first = next((index for index, stage in before if stage.kind == "mlp"), None)
    for index, stage in enumerate(model.stages):
        is_bottom = stage.name == "bottom_mlp" or (index == first and model.family.lower().startswith("dlrm"))
        if is_bottom and stage.kind == "mlp" and stage.dims and stage.dims[0] != model.dense_input_dim:
            allowed = f"{model.dense_input_dim}, the dense_input_dim that this stage consumes"
            yield Fault(f"stages[{index}].dims", f"begins with {stage.dims[0]}; allowed is {allowed}")


def _chain_faults(stages: Sequence[Stage]) -> Iterator[Fault]:
    """An MLP right behind an interaction reads what that puts out; other joints depend on what feeds them."""
    for index, (source, stage) in enumerate(pairwise(stages), start=1):
        width = _OUTPUT_WIDTH[source.kind](source) if source.kind in _OUTPUT_WIDTH else 0
        if stage.kind == "mlp" and stage.dims and width > 0 and stage.dims[0] != width:
            allowed = f"{width}, the width that {source.kind} stage {source.name!r} before it puts out"
            yield Fault(f"stages[{index}].dims", f"begins with {stage.dims[0]}; allowed is {allowed}")


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
        "latency_targets[].latency_ms": LATENCY_MS,
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
    columns=("name",),
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
