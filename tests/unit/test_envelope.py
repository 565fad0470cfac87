"""The profile of the public-size models against a plausibility envelope: a factor of two must have a reason.

The envelope was simulated independently, with a throwaway model of the same formulas. It is no target; deviations of
more than 2x are listed here and explained in docs/validation.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import hercules_fast as hf

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ("T1", "T2", "T2-NMPx8", "T2-V100")
ENVELOPE_QPS = {
    "rmc1": (2390, 2730, 10250, 11040),
    "rmc2": (198, 216, 1620, 1120),
    "rmc3": (300, 930, 970, 3210),
    "mt-wnd": (276, 1050, 1050, 3790),
    "din": (480, 720, 760, 3120),
    "dien": (250, 920, 920, 2540),
}
EXPLAINED = {("din", "T2-V100")}
"""Pairs that differ by more than 2x, each with its reason on the validation page."""


@pytest.fixture(scope="module")
def table() -> hf.EfficiencyTable:
    fleet = hf.fleet("envelope")
    assert tuple(s.name for s in fleet.servers) == SERVERS
    return hf.profile(
        fleet.servers, fleet.workloads, effort=hf.Effort(queries=2048, final_queries=4096, replications=2)
    )


@pytest.mark.parametrize("workload", ENVELOPE_QPS)
def test_within_a_factor_of_two_or_explained(table, workload) -> None:
    page = (ROOT / "docs" / "validation.md").read_text()
    for server, expected in zip(SERVERS, ENVELOPE_QPS[workload], strict=True):
        row = table.best(server, workload)
        assert row is not None
        ratio = row.qps / expected
        if (workload, server) in EXPLAINED:
            assert not 0.5 <= ratio <= 2, "no longer in need of an explanation: take it off the list and the page"
            assert f"**{workload} on {server}**" in page
        else:
            assert 0.5 <= ratio <= 2, f"{workload} on {server}: {row.qps:.0f} against {expected}"


def test_the_page_prints_these_figures(table) -> None:
    """The table on the page is this table, to 4 % (the page has longer runs)."""
    page = (ROOT / "docs" / "validation.md").read_text().split("## Against a plausibility envelope")[1]
    for workload, expected in ENVELOPE_QPS.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| {workload} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
        for server, cell, envelope in zip(SERVERS, cells, expected, strict=True):
            ours, theirs = (float(x.replace(",", "")) for x in cell.split("/"))
            assert theirs == envelope
            row = table.best(server, workload)
            assert row is not None and ours == pytest.approx(row.qps, rel=0.04)


def test_near_memory_helps_pooled_tables_and_only_those(table) -> None:
    qps = {(r.server, r.workload): r.qps for r in table.rows}
    assert qps["T2-NMPx8", "rmc2"] > 4 * qps["T2", "rmc2"]
    assert qps["T2-NMPx8", "mt-wnd"] < 1.1 * qps["T2", "mt-wnd"]
