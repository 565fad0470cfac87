"""Figures: right files, same bytes, edge cases, and a clear word where matplotlib is missing."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from hercules_fast.errors import InputError, OutputError
from hercules_fast.plotting import (
    PlotsUnavailableError,
    plot_efficiency,
    plot_power,
    plot_search,
    plot_week,
    save_plots,
)
from hercules_fast.provisioning import FailureDomains, provision
from hercules_fast.tables import EfficiencyTable
from tests import small_plans, small_profiles

MAGIC = {".svg": b"<?xml", ".png": b"\x89PNG"}


def test_without_matplotlib_nothing_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotsUnavailableError, match=r"plots skipped: matplotlib is not installed \(pip install"):
        save_plots(small_plans.run(), tmp_path)
    with pytest.raises(OutputError):
        plot_week(small_plans.plan(), tmp_path / "week.svg")
    assert list(tmp_path.iterdir()) == []


pytest.importorskip("matplotlib")


def test_all_figures_in_all_formats_with_the_same_bytes_twice(tmp_path) -> None:
    run = small_plans.run()
    names = [f"{stem}.{suffix}" for stem in ("week", "power", "efficiency") for suffix in ("svg", "png")]
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        paths = save_plots(run, folder)
        assert [path.name for path in paths] == names
        contents.append([path.read_bytes() for path in paths])
        for path, content in zip(paths, contents[-1], strict=True):
            assert content.startswith(MAGIC[path.suffix])
    assert contents[0] == contents[1]


def test_figures_do_not_depend_on_the_users_settings_and_do_not_change_them(tmp_path) -> None:
    import matplotlib as mpl

    plain = plot_power(small_plans.plan(), tmp_path / "a.svg").read_bytes()
    with mpl.rc_context({"font.size": 31.0, "axes.grid": True}):
        styled = plot_power(small_plans.plan(), tmp_path / "b.svg").read_bytes()
        assert mpl.rcParams["font.size"] == 31.0
    assert plain == styled


def texts(drawing) -> str:
    """All text of an SVG; glyphs are paths, but matplotlib leaves each string as a comment."""
    return "\n".join(line.strip() for line in drawing.read_text().splitlines() if line.strip().startswith("<!--"))


def test_week_names_workloads_servers_and_units(tmp_path) -> None:
    plan = small_plans.plan()
    seen = texts(plot_week(plan, tmp_path / "week.svg"))
    for word in (*plan.servers, *plan.workloads, "load (queries/s)", "servers on", "Mon 05 Jan", "Tue 06 Jan"):
        assert word in seen
    assert "load is shed" not in seen
    assert "load is shed" in texts(plot_week(small_plans.plan(scale=3.0), tmp_path / "week.svg"))
    assert "exposed to a failure" not in seen
    halls = FailureDomains(domain_of={"old": "a", "new": "b", "gpu": "b"})
    exposed = provision(small_plans.table(), small_plans.load(), small_plans.STOCK, constraints=[halls])
    assert "exposed to a failure" in texts(plot_week(exposed, tmp_path / "week.svg"))


def test_power_marks_baselines_that_do_not_cover(tmp_path) -> None:
    seen = texts(plot_power(small_plans.plan(), tmp_path / "p.svg"))
    for word in ("greedy", "oblivious", "LP lower bound", "provisioned power (kW)"):
        assert word in seen
    assert "load not covered" not in seen
    assert "greedy, load not covered" in texts(plot_power(small_plans.plan(scale=3.0), tmp_path / "p.svg"))


def test_efficiency_prints_every_able_cell(tmp_path) -> None:
    table = small_plans.table()
    seen = texts(plot_efficiency(table, tmp_path / "e.svg"))
    for row in table.rows:
        assert (f"<!-- {row.qps_per_watt:#.3g} -->" in seen) == (row.status == "ok")


def test_a_search_has_a_panel_for_every_slice(tmp_path) -> None:
    found = small_profiles.small_search(slices=True)
    seen = texts(plot_search(found, tmp_path / "s.svg"))
    assert found.row.config is not None and found.row.config.describe() in seen
    for piece in found.slices:
        assert f"<!-- {piece.title} -->" in seen
        assert f"<!-- {piece.label(piece.values[0])} -->" in seen
    assert seen.count("queries per second") == -(-len(found.slices) // 3), "one label for a row of panels"
    assert texts(plot_search(found, tmp_path / "again.svg")) == seen
    with pytest.raises(InputError, match=r"result\.slices: is empty; .* search\(\.\.\., slices=True\)"):
        plot_search(replace(found, slices=()), tmp_path / "none.svg")


@pytest.mark.parametrize("plan", [small_plans.plan(hours=1), small_plans.plan(scale=0.0)], ids=["one", "zero"])
def test_tiny_plans_can_be_drawn(plan, tmp_path) -> None:
    for draw in (plot_week, plot_power):
        assert draw(plan, tmp_path / "x.png").stat().st_size > 1000


def test_tables_with_nothing_or_one_value_can_be_drawn(tmp_path) -> None:
    for qps in (0.0, 5.0):
        table = EfficiencyTable.from_matrices(["s"], ["w"], [[qps]], [[2.0]])
        assert plot_efficiency(table, tmp_path / "x.png").stat().st_size > 1000


def test_wrong_formats_and_places_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"'pdf'; allowed are svg, png"):
        save_plots(small_plans.run(), tmp_path, formats=("pdf",))
    with pytest.raises(InputError, match=r"ends in '.gif'"):
        plot_week(small_plans.plan(), tmp_path / "week.gif")
    with pytest.raises(OutputError, match="cannot write"):
        plot_week(small_plans.plan(), tmp_path / "absent" / "week.png")
