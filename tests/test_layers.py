"""Who may import whom. A module may import only layers below its own, and siblings where named here.

The table is the house's plan (docs/architecture.md); a breach is an error in the plan or in the code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "hercules_fast"
CORE = ROOT / "rust" / "hercules-core" / "src"

# Room -> rooms that it may import (itself always). Third-party modules are listed separately.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "_core": {"errors"},
    # 1 data
    "descriptors": {"errors"},
    "hardware": {"errors", "descriptors"},
    "models": {"errors", "descriptors"},
    "traffic": {"errors", "descriptors", "models"},
    "fleets": {"errors", "descriptors", "hardware", "models", "traffic"},
    "tables": {"errors"},
    # 2 engines
    "sls": {"errors", "_core", "tables"},
    "host": {"errors", "_core", "tables", "descriptors", "hardware"},
    "memory": {"errors", "_core", "descriptors"},
    "queueing": {"errors", "_core", "descriptors", "traffic", "tables"},
    # 3 serving
    "serving": {"errors", "_core", "hardware", "models", "traffic", "tables", "memory"},
    # 4 offline and online
    "profiling": {"errors", "_core", "hardware", "models", "traffic", "fleets", "tables", "serving"},
    "provisioning": {"errors", "_core", "descriptors", "hardware", "models", "traffic", "fleets", "tables"},
    # 5 the whole road
    "planning": {
        *("errors", "_core", "hardware", "models", "traffic", "fleets", "tables"),
        *("serving", "profiling", "provisioning"),
    },
}
# 5 reality
ALLOWED["measure"] = {*ALLOWED["planning"], "descriptors", "sls", "host", "memory", "queueing"} - {"provisioning"}
DATA = {"errors", "descriptors", "hardware", "models", "traffic", "fleets", "tables"}
# 6 views: result objects and data, never an engine. 7 shell: anything.
RESULT_OBJECTS = {"planning", "provisioning", "profiling", "queueing", "measure"}
ALLOWED |= dict.fromkeys(("report", "plotting"), DATA | RESULT_OBJECTS | {"memory"})
SHELL = {"cli", "__main__", "__init__"}

# Modules that may be imported at the top of a room's files, and those only inside functions.
EVERYWHERE = {"numpy"}
INSIDE_FUNCTIONS: dict[str, set[str]] = {
    "descriptors": {"pydantic", "pydantic_core"},
    "provisioning": {"highspy"},
    "plotting": {"matplotlib"},
    "host": {"pynvml"},
    "measure": {"onnx", "onnxruntime", "pynvml", "torch"},
    "cli": {"rich"},
}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").removesuffix(".pyi")


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(tree: ast.Module) -> list[tuple[str, bool, ast.stmt]]:
    """(dotted module, at top level?, node) of every import; `if TYPE_CHECKING` counts as inside a function."""
    found = []
    guarded = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.walk(node)
        if child is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in guarded, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only, so that the rooms stay readable"
            module = node.module or ""
            of_package = module == "hercules_fast"
            names = [f"{module}.{alias.name}" for alias in node.names] if of_package else [module]
            found += [(name, id(node) not in guarded, node) for name in names]
    return found


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_rooms_import_downwards_only(path: Path) -> None:
    room = room_of(path)
    if room in SHELL:
        return
    assert room in ALLOWED, f"room {room!r} has no row in the import table"
    for module, _, node in imports(ast.parse(path.read_text())):
        if module.split(".")[0] != "hercules_fast":
            continue
        target = module.split(".")[1] if "." in module else "__init__"
        where = f"{path.name}:{node.lineno}"
        assert target == room or target in ALLOWED[room], f"{where}: {room} may not import {target}"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_party_modules_stay_where_they_belong(path: Path) -> None:
    import sys

    room = room_of(path)
    for module, top, node in imports(ast.parse(path.read_text())):
        name = module.split(".")[0]
        if name in sys.stdlib_module_names or name in {"hercules_fast"} | EVERYWHERE:
            continue
        where = f"{path.name}:{node.lineno}"
        assert name in INSIDE_FUNCTIONS.get(room, set()), f"{where}: {room} may not import {name}"
        assert not top, f"{where}: {name} may only be imported inside functions"


# What a view may take from rooms that compute: classes for annotations, nothing that can be called to compute.
ROOMS_THAT_COMPUTE = RESULT_OBJECTS | {"sls", "host", "memory", "_core"}


def view_breaches(tree: ast.Module) -> list[str]:
    """Imports of computing rooms by a view other than of classes under TYPE_CHECKING."""
    found = []
    for module, top, node in imports(tree):
        parts = module.split(".")
        if parts[0] != "hercules_fast" or len(parts) < 2 or parts[1] not in ROOMS_THAT_COMPUTE:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        if module.count(".") and top:
            found.append(f"line {node.lineno}: imports {module} outside TYPE_CHECKING")
        found += [f"line {node.lineno}: takes {name}" for name in names if not name[:1].isupper()]
    return found


@pytest.mark.parametrize("room", ["report", "plotting"])
def test_views_never_compute(room: str) -> None:
    for path in files():
        if room_of(path) == room:
            assert not view_breaches(ast.parse(path.read_text())), path


# Rust: any room may use these; beyond that these arrows.
SHARED_RUST = {"error", "rng", "pool", "helpers", "cpu", "control"}
ARROWS = {("search", "queue"), ("nmp", "dram")}


ROOMS_RUST = sorted(p.name for p in CORE.iterdir() if p.is_dir())


def rust_uses(text: str) -> set[str]:
    """Names directly below `crate`, also from braced `use crate::{a, b::c}` and through `super::super`."""
    found = set(re.findall(r"\b(?:crate|super::super)::(\w+)", text))
    for group in re.findall(r"\b(?:crate|super::super)::\{((?:[^{}]|\{[^{}]*\})*)\}", text):
        found |= set(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group)))
    return found


def rust_breaches(room: str, text: str) -> set[str]:
    rooms = set(ROOMS_RUST) - {room}
    return {target for target in rust_uses(text) & rooms if (room, target) not in ARROWS}


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.rs")), ids=lambda p: str(p.relative_to(CORE)))
def test_rust_rooms_use_only_what_they_may(path: Path) -> None:
    if path.name == "lib.rs":
        return
    room = path.relative_to(CORE).parts[0].removesuffix(".rs")  # shared files are rooms that may use no other
    assert room in {*ROOMS_RUST, *SHARED_RUST}, f"{room} is in neither list"
    assert not rust_breaches(room, path.read_text())


def test_the_core_knows_no_python() -> None:
    assert "pyo3" not in (CORE.parent / "Cargo.toml").read_text()
    for path in CORE.rglob("*.rs"):
        assert "pyo3" not in path.read_text().lower(), path


def test_breaches_are_found() -> None:
    """The rules can fail: made-up breaches of each kind are seen."""
    tree = ast.parse("from hercules_fast.queueing import simulate\ndef f():\n    import highspy\n")
    found = [(module, top) for module, top, _ in imports(tree)]
    assert found == [("hercules_fast.queueing", True), ("highspy", False)]
    assert "serving" not in ALLOWED["provisioning"]
    for line in (
        "from hercules_fast.provisioning.linear import solve_linear",
        "from hercules_fast import provisioning",
        "import hercules_fast.provisioning",
    ):
        assert view_breaches(ast.parse(line)), line
    assert not view_breaches(ast.parse("if TYPE_CHECKING:\n    from hercules_fast.provisioning import Plan\n"))
    for text in ("use crate::{queue, error::Error};", "use crate::search::run;", "super::super::queue::x()"):
        assert rust_breaches("sls", text), text
    assert not rust_breaches("search", "use crate::queue::{Grid, Rules};")
    assert rust_breaches("rng", "use crate::queue::Grid;")
