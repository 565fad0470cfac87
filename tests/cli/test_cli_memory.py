"""``memory``: the sweep as text, JSON and figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hercules_fast import memory
from hercules_fast.cli import main
from hercules_fast.errors import InputError
from hercules_fast.memory import sweep_memory, variants

SMALL = ("--ranks", "1,4", "--vector-bytes", "64", "--bags", "2", "--pooling", "20")


def test_memory_prints_text_and_json_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", *SMALL, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(p["ranks"], p["stage"]) for p in document["points"]] == [
        *((1, "no cache"), (1, "128 KiB"), (4, "no cache"), (4, "128 KiB")),
    ]
    pytest.importorskip("matplotlib")
    figure = tmp_path / "speedup.svg"
    assert main(["memory", *SMALL, "--out", str(figure)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("DDR4-2400R, one channel: 8 tables of 1,048,576 rows, Zipf 0.9; 2 bags of 20 each")
    assert err == f"written to {figure}\n"
    assert max(map(len, out.splitlines())) <= 100
    for point in document["points"]:
        assert f"{point['speedup']:.2f}" in out
    first = figure.read_bytes()
    assert b"speedup over the host" in first
    assert main(["memory", *SMALL, "--out", str(figure), "--overwrite", "--quiet", "--threads", "2"]) == 0
    assert figure.read_bytes() == first


def test_memory_takes_a_standard_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(memory.__file__).parent / "catalog" / "dram" / "ddr5-3200an.toml").read_text()
    path = tmp_path / "ours.toml"
    path.write_text(text.replace('"DDR5-3200AN"', '"ours"'))
    assert main(["memory", *SMALL, "--standard", str(path), "--cache-kb", "0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ours, one channel")
    assert out.splitlines()[2].endswith("-"), "a standard without currents tells no energy"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--ranks", "0"], "is 0; allowed is a whole number from 1"),
        (["--ranks", "3"], "ranks: is 3"),
        (["--vector-bytes", "6"], "vector_bytes[0]: is 6; allowed is a multiple of 4"),
        (["--cache-kb", "-1"], "is -1; allowed is a whole number from 0"),
        (["--exponent", "11"], "allowed is a number from 0 to 10"),
        (["--standard", "DDR4"], "unknown dram"),
        (["--standard", "none.toml"], "none.toml"),
        (["--out", "x.csv"], "--out: 'x.csv' ends in '.csv'; allowed are .svg, .png"),
    ],
)
def test_bad_options_are_named(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "--bags", "2", *argv]) == 2
    assert says in capsys.readouterr().err


def test_a_sweep_reports_progress_and_every_point() -> None:
    seen: list[tuple[int, int]] = []
    sweep = sweep_memory(ranks=(2,), vector_bytes=(64, 256), bags=1, pooling=20, progress=lambda *at: seen.append(at))
    assert seen == [(i, 8) for i in range(1, 9)]
    assert [point.stage for point in sweep.points] == [variant.name for variant in variants()] * 2
    assert sweep.points[0].cache_kb == sweep.points[0].hit_rate == 0


@pytest.mark.parametrize(("name", "value"), [("ranks", ()), ("vector_bytes", ()), ("stages", ()), ("bags", 0)])
def test_an_empty_sweep_is_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name}: is"):
        sweep_memory(**{name: value})  # type: ignore[arg-type]
