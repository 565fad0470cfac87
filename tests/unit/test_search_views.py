"""What a search shows: its path in words, the rates around its answer, and the answer's terms."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hercules_fast as hf
from hercules_fast import _core
from hercules_fast.errors import InterruptedRun
from hercules_fast.profiling import Cost, Effort, SearchResult
from hercules_fast.profiling.lattice import UNBOUNDED
from hercules_fast.profiling.pairs import core_problem, make_pair
from hercules_fast.profiling.single import MOVES
from hercules_fast.profiling.slices import value_words
from hercules_fast.report import WIDTH, search_text
from hercules_fast.serving import Terms
from hercules_fast.traffic import SizeComponent, SizeLaw, Sla
from tests.small_profiles import TINY, ZOO, small_search

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [("T1", "rmc1"), ("T2-V100", "wnd"), ("T2-V100", "rmc1")]


@pytest.fixture(scope="module", params=PAIRS, ids=" ".join)
def found(request) -> SearchResult:
    """A search with all that it can show."""
    return small_search(*request.param, slices=True, top=2, front=True, exhaustive=True)


def lattice(found: SearchResult) -> list[tuple[str, dict[str, int], tuple[int, ...]]]:
    """(kind, coordinates by axis, row) of every candidate of the pair."""
    space = pair_of(found).space
    assert space is not None
    kinds = [space.kinds[k] for k in space.coords[:, 0]]
    return [
        (kind, dict(zip(space.axes(kind), map(int, at[1:]), strict=False)), tuple(map(int, row)))
        for kind, at, row in zip(kinds, space.coords, space.candidates, strict=True)
    ]


def pair_of(found: SearchResult):
    server = next(s for s in ZOO.servers if s.name == found.row.server)
    workload = next(w for w in ZOO.workloads if w.name == found.row.workload)
    return make_pair(server, workload, Terms())


def test_slices_hold_every_value_that_one_more_axis_reaches(found: SearchResult) -> None:
    """Held against a walk over all candidates, with their loads measured one by one."""
    points = lattice(found)
    rows = [row for _, _, row in points]
    assert found.row.config is not None
    kind, here, _ = points[rows.index(found.row.config.row)]
    of_kind = [(place, row) for k, place, row in points if k == kind]
    problem = core_problem(pair_of(found), 5)
    shown = {piece.axis: piece for piece in found.slices}
    for axis in here:
        others = {
            value: [sum(place[a] != here[a] for a in here if a != axis) for place, _ in of_kind if place[axis] == value]
            for value in {place[axis] for place, _ in of_kind}
        }
        reached = sorted(value for value, changed in others.items() if min(changed) <= 1)
        if len(reached) == 1:
            assert axis not in shown
            continue
        piece = shown.pop(axis)
        assert list(piece.values) == reached
        assert [piece.exact[k] for k in range(len(reached))] == [min(others[value]) == 0 for value in reached]
        assert piece.values[piece.at] == here[axis] and piece.configs[piece.at] == found.row.config
        index = [rows.index(config.row) for config in piece.configs]
        queries = found_effort_queries(found)
        alone = [_core.candidate_rates(problem, [k], queries=queries, cap=TINY.utilisation_cap)[0] for k in index]
        np.testing.assert_array_equal(piece.qps, alone)
    assert not shown


def found_effort_queries(found: SearchResult) -> int:
    workload = next(w for w in ZOO.workloads if w.name == found.row.workload)
    return TINY.enough_for([workload]).queries


def test_slices_do_not_depend_on_threads() -> None:
    one, three = (small_search(slices=True, threads=threads) for threads in (1, 3))
    assert one.slices and one.to_dict() == three.to_dict()
    assert small_search().slices == ()


def test_ctrl_c_ends_the_slices_as_it_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_core, "candidate_rates", stop)
    with pytest.raises(InterruptedRun, match="interrupted before the slices were measured"):
        small_search(slices=True)


def test_every_step_stands_where_its_configuration_does(found: SearchResult) -> None:
    by_row = {row: place for _, place, row in lattice(found)}
    for step in found.path:
        assert step.place == by_row[step.config.row]


@pytest.mark.parametrize("method", ["gradient", "hill", "deeprecsys", "random"])
def test_the_path_says_why(method: str) -> None:
    found = small_search("T2-V100", "wnd", method=method, objective="qps_per_watt", evaluations=120)
    assert found.path
    for before, step in zip((None, *found.path), found.path, strict=False):
        assert step.why.startswith(MOVES[step.move])
        if step.move in ("axis", "diagonal", "far"):
            assert before is not None and before.config.kind == step.config.kind
            changed = [axis for axis, value in step.place.items() if before.place[axis] != value]
            assert step.move != "axis" or len(changed) == 1
            for axis in changed:
                old, new = (value_words(axis, s.place[axis]) for s in (before, step))
                assert f" {old} to {new}" in step.why
        else:
            assert step.why == MOVES[step.move]


def test_every_move_of_the_core_has_words() -> None:
    source = (ROOT / "rust" / "hercules-py" / "src" / "search.rs").read_text()
    names = re.findall(r'Step::\w+ => "(\w+)"', source)
    assert sorted(names) == sorted(MOVES)


def test_values_in_words() -> None:
    assert value_words("buffer", UNBOUNDED) == "unbounded"
    assert value_words("buffer", 8) == value_words("batch", 8) == "8"
    assert value_words("hot_share_ppm", 741848) == "74.2%"
    assert value_words("dense_share", 12) == "12/24"


COST = Cost(server_per_hour=1.5, energy_per_kwh=0.25)


@pytest.mark.parametrize("objective", ["qps", "qps_per_watt", "qps_per_cost"])
def test_the_score_is_what_the_objective_counts(objective: str) -> None:
    cost = COST if objective == "qps_per_cost" else None
    found = small_search(objective=objective, cost=cost, power_budget_w=120)
    row = found.row
    by_hand = {
        "qps": row.qps,
        "qps_per_watt": row.qps / row.power_w,
        "qps_per_cost": row.qps / (1.5 + 0.25 * row.power_w / 1000),
    }
    assert found.score == pytest.approx(by_hand[objective], rel=1e-9)
    facts = "\n".join(found.facts())
    assert f"objective: {objective}, at most 120 W\n" in facts
    assert (f"score: {found.score:.5g} " in facts) == (objective != "qps")
    assert row.power_w <= 120 and f"{row.power_w:.1f} W (power mode component)" in facts


def test_explain_and_text_say_the_same(found: SearchResult) -> None:
    row, facts = found.row, found.facts()
    assert row.config is not None and found.optimum is not None
    assert f"best: {row.config.describe()}" in facts
    assert any(fact.endswith(row.reason) for fact in facts)
    share = f"{row.qps / found.bottleneck_qps:.0%}"
    assert any(fact.startswith(f"load step: {share} of the {found.bottleneck_qps:,.1f} qps") for fact in facts)
    starts = [fact.partition(":")[0] for fact in facts]
    assert starts.count("front") == len(found.front) and starts.count("next") == len(found.top) - 1
    assert f"exhaustive optimum: {found.optimum.qps:,.1f} qps" in "\n".join(facts)
    explained = found.explain().splitlines()
    assert len(explained) == 1 + len(found.path) + len(facts)
    text = search_text(found, explain=True)
    assert max(map(len, text.splitlines())) <= WIDTH
    flat = " ".join(text.split())
    for fact in facts:
        assert " ".join(fact.split()) in flat
    for number, step in enumerate(found.path, start=1):
        assert f" {number} {step.qps:,.1f} {step.config.describe()}: {step.why}" in flat
    for piece in found.slices:
        assert f"QPS against {piece.title} ([found]" in text
        assert f"[{piece.label(piece.values[piece.at])}]" in text
    brief = search_text(found)
    assert "QPS against" not in brief and len(brief) < len(text)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_score_has_a_column_where_it_is_not_the_qps() -> None:
    found = small_search(objective="qps_per_watt")
    lines = search_text(found, explain=True).splitlines()
    assert lines[1].split() == ["step", "QPS", "score", "configuration:", "why"]
    assert lines[2].split()[:3] == ["1", f"{found.path[0].qps:,.1f}", f"{found.path[0].score:.5g}"]


def test_what_cannot_be_served_has_no_slices() -> None:
    found = small_search("T1", "rmc2", slices=True)
    assert found.slices == () and found.score == 0.0
    assert any(fact.startswith("infeasible: does not fit") for fact in found.facts())
    assert "infeasible: does not fit" in search_text(found, explain=True)


@pytest.mark.parametrize("objective", ["qps", "qps_per_watt"])
@pytest.mark.parametrize("pair", [("T2-NMPx2", "mt-wnd"), ("T2-NMPx2", "dien"), ("T1", "dien")], ids=" ".join)
def test_the_top_has_as_many_as_asked_for_and_none_twice(pair, objective) -> None:
    for front in (False, True):
        found = small_search(*pair, top=3, front=front, objective=objective)
        assert found.evaluations > 3 and len(found.top) == 3
        assert len({row.config for row in found.top}) == 3
        assert found.top[0] == found.row


def test_a_lucky_draw_ends_in_words() -> None:
    """One query in a hundred is late at any load: the first replications may meet the target where all do not."""
    sizes = SizeComponent(weight=1.0, kind="empirical", values=(10, 2000), probabilities=(0.99001, 0.00999))
    law = SizeLaw(name="rare", max_items=2000, components=(sizes,))
    server = next(s for s in ZOO.servers if s.name == "T2")
    workload = next(w for w in ZOO.workloads if w.name == "rmc1")
    workload = replace(workload, sizes=law, slas=(Sla(percentile=99, latency_ms=2.0),))
    queries = dict.fromkeys(("polish_queries", "final_queries"), 2400)
    effort = Effort(queries=1200, replications=2, precision=0.02, most_replications=64, **queries)
    for seed in range(4):
        row = hf.search(server, workload, effort=effort, seed=seed, top=3).row
        if row.status == "ok":
            assert 0 <= row.qps_lo <= row.qps <= row.qps_hi and row.qps > 0
            assert row.achieved_ms[0] <= 2.0
        else:
            assert "keeps all of it under load, on independent runs too" in row.reason
