"""What was built, what this machine can use of it, and how the environment caps it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import HerculesError, InputError

PACKAGE = Path(hf.__file__).parent


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.endswith(("NUM_THREADS", "FAST_ISA"))}
    return subprocess.run([sys.executable, "-c", code], env=clean | env, capture_output=True, text=True, timeout=60)


def test_build_info_is_the_package() -> None:
    info = hf.build_info()
    assert info["version"] == importlib.metadata.version("hercules-fast")
    assert info["profile"] == ("debug" if info["debug_assertions"] else "release")
    assert info["random_stream_version"] >= 1


def test_tiers_come_in_order_and_portable_is_always_there() -> None:
    found = hf.capabilities()
    assert found["isa_available"][0] == "portable"
    assert found["isa_detected"] == found["isa_available"][-1]
    assert found["isa_used"] in found["isa_available"]
    assert found["threads_used"] >= 1


@pytest.mark.parametrize("cap", ["portable", "avx2", "avx512"])
def test_a_cap_never_raises_the_tier(cap) -> None:
    code = "import hercules_fast as hf; print(hf.capabilities()['isa_used'])"
    used = run(code, HERCULES_FAST_ISA=cap).stdout.strip()
    tiers = ["portable", "avx2", "avx512"]
    assert tiers.index(used) == min(tiers.index(cap), tiers.index(hf.capabilities()["isa_detected"]))


def test_a_wrong_cap_is_an_error_that_says_what_is_allowed() -> None:
    done = run("import hercules_fast as hf; hf.capabilities()", HERCULES_FAST_ISA="sse9")
    assert 'InputError: HERCULES_FAST_ISA: is "sse9"; allowed are portable, avx2, avx512' in done.stderr


@pytest.mark.parametrize(
    ("variables", "want"),
    [
        ({"HERCULES_FAST_NUM_THREADS": "3"}, "3"),
        ({"RAYON_NUM_THREADS": "5"}, "5"),
        ({"HERCULES_FAST_NUM_THREADS": "3", "RAYON_NUM_THREADS": "5"}, "3"),
        ({"HERCULES_FAST_NUM_THREADS": ""}, str(len(os.sched_getaffinity(0)))),
    ],
)
def test_threads_from_the_environment(variables, want) -> None:
    code = "import hercules_fast as hf; print(hf.capabilities()['threads_used'])"
    assert run(code, **variables).stdout.strip() == want


@pytest.mark.parametrize("value", ["0", "-1", "many", "1025", "1.5"])
def test_wrong_thread_counts_are_errors(value) -> None:
    done = run("import hercules_fast as hf; hf.capabilities()", HERCULES_FAST_NUM_THREADS=value)
    assert "InputError: HERCULES_FAST_NUM_THREADS: is" in done.stderr
    assert "allowed is a whole number from 1 to 1024" in done.stderr


def test_every_public_name_is_there_and_listed() -> None:
    for name in hf.__all__:
        assert getattr(hf, name) is not None
        assert name in dir(hf)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hf.nothing  # noqa: B018


def test_import_is_cheap() -> None:
    """Nothing heavy is loaded before it is used; the bench shows the cost in time."""
    code = "import sys, hercules_fast; print(sorted({'numpy', 'pydantic', 'highspy', 'matplotlib'} & set(sys.modules)))"
    assert run(code).stdout.strip() == "[]"
    code = (
        "import sys, numpy as np, hercules_fast as hf\n"
        "hf.embedding_bag(np.ones((2, 2), 'f4'), np.array([0]), np.array([0]))\n"
        "print(sorted({'pydantic', 'highspy', 'matplotlib'} & set(sys.modules)))"
    )
    assert run(code).stdout.strip() == "[]"


def test_the_package_is_typed_and_carries_its_catalogues() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert len(list(PACKAGE.rglob("catalog/**/*.toml"))) >= 40


def test_errors_are_also_the_built_ins_that_callers_expect() -> None:
    from hercules_fast import errors

    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type) and issubclass(cls, HerculesError) and cls is not HerculesError:
            assert any(
                issubclass(cls, b) for b in (ValueError, TypeError, IndexError, OverflowError, OSError, RuntimeError)
            )
    with pytest.raises(ValueError, match="queries"):
        _core.search([], "gradient", 0)
    assert issubclass(InputError, ValueError)


def test_no_path_of_the_build_machine_in_the_package() -> None:
    """Text files of the package name no absolute path outside of it."""
    for path in PACKAGE.rglob("*"):
        if path.suffix in {".py", ".pyi", ".toml", ".json"}:
            text = path.read_text()
            assert "/home/" not in text and "/root/" not in text and "/work/" not in text, path
