"""Every Python block of the README and of the docs runs, every TOML block is right, and every example script runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hercules_fast.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """Return ("page:line", text) of every block."""
    block = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in block.finditer(text):
            line = text[: match.start()].count("\n") + 2
            found.append((f"{page.name}:{line}", match.group(1)))
    return found


@pytest.mark.parametrize("code", [c for _, c in blocks("python")], ids=[name for name, _ in blocks("python")])
def test_python_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})


def test_there_are_descriptor_files_to_check() -> None:
    assert blocks("toml")


@pytest.mark.parametrize("text", [t for _, t in blocks("toml")], ids=[name for name, _ in blocks("toml")])
def test_toml_block_passes_check(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(text)
    assert main(["check", str(path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_example_runs(script: Path, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_reference_names_everything_public() -> None:
    import hercules_fast as hf

    page = (ROOT / "docs" / "reference.md").read_text()
    for name in hf.__all__:
        assert re.search(rf"`[^`]*\b{name}\b", page), f"docs/reference.md lacks {name}"
