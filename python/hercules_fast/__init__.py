"""hercules-fast: profile, simulate and provision recommendation-model serving on mixed hardware.

``import hercules_fast as hf`` is cheap: each public name is loaded from its room at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hercules_fast._core import build_info, capabilities
    from hercules_fast.errors import HerculesError
    from hercules_fast.provisioning import Plan, Policy, provision

# Public name -> module that holds it.
_HOMES = {
    "HerculesError": "errors",
    "Plan": "provisioning",
    "Policy": "provisioning",
    "build_info": "_core",
    "capabilities": "_core",
    "provision": "provisioning",
}
_ROOMS = frozenset({"errors", "hardware", "models", "provisioning", "tables", "traffic"})

__all__ = ["HerculesError", "Plan", "Policy", "build_info", "capabilities", "provision"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})
