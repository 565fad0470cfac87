"""Popularity of rows: curves and the best rows to keep, against one row at a time."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast import fleets, traffic
from hercules_fast.errors import ConfigError, InputError, MissingFileError
from hercules_fast.models import TableGroup
from hercules_fast.traffic import Popularity, hit_share, hot_rows, popularity_from_counts, read_popularity_csv
from tests.reference import popularity as slow

UNIFORM, ZIPF = traffic.popularity("uniform"), traffic.popularity("zipf")


def zipf(exponent: float) -> Popularity:
    return Popularity(name="test", kind="zipf", exponent=exponent)


LAWS = st.one_of(
    st.just(UNIFORM),
    st.floats(0, 4).map(zipf),
    st.lists(st.integers(0, 50), min_size=1, max_size=300).filter(any).map(popularity_from_counts),
)


@given(LAWS, st.integers(1, 700), st.data())
def test_shares_agree_with_the_twin(law, rows, data) -> None:
    kept = data.draw(st.integers(0, rows))
    assert hit_share(law, rows, kept) == pytest.approx(slow.hit_share(law, rows, kept), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("exponent", [0.5, 0.9, 1.0, 1.05, 2.0])
def test_long_tables_agree_with_the_sum_over_all_rows(exponent) -> None:
    rows = 3_000_000
    exact = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -exponent)
    for kept in (1, 255, 257, 8192, 65_536, 100_003, 2_999_999, rows):
        assert hit_share(zipf(exponent), rows, kept) == pytest.approx(exact[kept - 1] / exact[-1], rel=1e-5)


TABLES = st.lists(
    st.builds(
        TableGroup,
        count=st.integers(1, 4),
        rows=st.integers(1, 200),
        dim=st.sampled_from((4, 16, 32)),
        pooling=st.integers(1, 40),
    ),
    min_size=1,
    max_size=4,
)


@given(LAWS, TABLES, st.floats(0, 1.1))
def test_the_rows_kept_are_those_of_the_greedy_twin(law, tables, part) -> None:
    limit = int(part * sum(t.count * t.rows * t.row_bytes for t in tables))
    found, want = hot_rows(law, tables, limit), slow.hot_rows(law, tables, limit)
    assert found.bytes == sum(t.count * t.row_bytes * k for t, k in zip(tables, found.rows, strict=True)) <= limit
    lookups = [t.count * t.pooling for t in tables]
    shares = [slow.hit_share(law, t.rows, k) for t, k in zip(tables, want, strict=True)]
    expected = sum(n * s for n, s in zip(lookups, shares, strict=True)) / sum(lookups)
    # Where rows are equally dense, which ones fill the last gap is a matter of rounding: less than one row of each.
    gap = max(n * slow.hit_share(law, t.rows, 1) for n, t in zip(lookups, tables, strict=True)) / sum(lookups)
    assert found.share == pytest.approx(expected, abs=1e-5 + (0 if found.rows == tuple(want) else gap))
    own = sum(n * s for n, s in zip(lookups, found.shares, strict=True)) / sum(lookups)
    assert found.share == pytest.approx(own, rel=1e-12)


@given(LAWS, TABLES, st.floats(0, 1), st.floats(0, 1))
def test_more_room_never_answers_fewer_lookups(law, tables, a, b) -> None:
    whole = sum(t.count * t.rows * t.row_bytes for t in tables)
    less, more = (hot_rows(law, tables, part * whole) for part in sorted((a, b)))
    assert all(x <= y for x, y in zip(less.rows, more.rows, strict=True))
    assert less.share <= more.share <= 1
    assert hot_rows(law, tables, 0).share == 0
    assert hot_rows(law, tables, whole).share == pytest.approx(1, rel=1e-12)


def test_the_default_law_lies_between_two_published_hit_rates() -> None:
    """28.4 % of lookups with 8,192 rows and 46.8 % with 65,536: above one and below the other, over 34 million rows."""
    shares = [hit_share(ZIPF, 33_762_577, kept) for kept in (8192, 65_536)]
    assert shares == [pytest.approx(0.322, abs=5e-4), pytest.approx(0.443, abs=5e-4)]
    assert shares[0] > 0.284 and shares[1] < 0.468
    assert ZIPF.exponent == traffic.workload("rmc1").popularity.exponent == 0.9


def test_curves_are_the_same_bytes_everywhere() -> None:
    """The bits of one run, kept; powers by a libm would differ in the last ones from machine to machine."""
    shares = [hit_share(zipf(s), 1_000_003, 4097) for s in (0.3, 0.9, 1.0, 1.7)]
    kept = [
        "0x1.5ca56b2a1cfbfp-6",
        "0x1.c8888d740998bp-2",
        "0x1.3c7054384941dp-1",
        "0x1.fef7f914a5868p-1",
    ]
    assert [share.hex() for share in shares] == kept


def test_counts_in_any_order_are_one_law() -> None:
    law = popularity_from_counts([0, 5, 1, 0, 4])
    assert law.rows == (1, 2, 3) and law.shares == (0.5, 0.9, 1.0)
    assert hit_share(law, 10, 3) == 1
    assert hit_share(law, 2, 1) == pytest.approx(5 / 9)
    many = popularity_from_counts(np.arange(100_000))
    assert len(many.rows) < 1000
    assert hit_share(many, 100_000, 50_000) == pytest.approx(0.75, abs=1e-4)


@pytest.mark.parametrize("counts", [[], [1.0, -1.0], [float("nan")], [0, 0], [[1]], ["a"]])
def test_bad_counts_are_refused(counts) -> None:
    with pytest.raises(InputError, match="counts"):
        popularity_from_counts(counts)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        ({"kind": "zipf", "exponent": -1.0}, "exponent: -1.0 is outside"),
        ({"kind": "zipf", "exponent": float("nan")}, "exponent: nan is outside"),
        ({"kind": "histogram", "rows": (1, 2), "shares": (0.5,)}, "shares: 1 shares for 2 rows"),
        ({"kind": "histogram", "rows": (2, 2), "shares": (0.5, 1.0)}, "rows: must increase"),
        ({"kind": "histogram", "rows": (1, 2), "shares": (0.5, 0.9)}, "shares[1]: is 0.9; allowed for the last"),
        ({"kind": "histogram", "rows": (1, 2), "shares": (0.2, 1.0)}, "shares[1]: rows must be ordered by popularity"),
        ({"kind": "histogram", "rows": (1, 2, 3), "shares": (0.9, 1.01, 1.0)}, "shares[1]: 1.01 is outside"),
    ],
)
def test_bad_laws_are_refused(law, message) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        hit_share(Popularity(name="bad", **law), 10, 1)


def test_bad_arguments_are_refused() -> None:
    for rows, kept, name in ((0, 0, "rows"), (10, 11, "kept"), (10, -1, "kept")):
        with pytest.raises(InputError, match=name):
            hit_share(ZIPF, rows, kept)
    for limit in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="limit_bytes"):
            hot_rows(ZIPF, [TableGroup(count=1, rows=5, dim=4, pooling=1)], limit)


def test_a_csv_of_counts(tmp_path) -> None:
    path = tmp_path / "accesses.csv"
    path.write_text("row,accesses\n0,3\n1,0\n2,9\n")
    law = read_popularity_csv(path)
    assert (law.name, law.rows, law.shares) == ("accesses", (1, 2), (0.75, 1.0))
    path.write_text("row,accesses\n0,3\n1,-2\n2,x\n")
    with pytest.raises(ConfigError, match=r"line 3: accesses is '-2'.*\n.*line 4: accesses is 'x'"):
        read_popularity_csv(path)
    path.write_text("row,count\n0,3\n")
    with pytest.raises(ConfigError, match="needed is 'accesses'"):
        read_popularity_csv(path)
    path.write_text("accesses\n0\n")
    with pytest.raises(ConfigError, match="at least one count above 0"):
        read_popularity_csv(path)
    with pytest.raises(MissingFileError):
        read_popularity_csv(tmp_path / "none.csv")


def test_a_workload_file_names_its_law(tmp_path) -> None:
    path = tmp_path / "w.toml"
    text = 'schema = "hercules_fast.workload/1"\nname = "w"\nmodel = "dlrm-rmc1"\npopularity = "{}"\n'
    path.write_text(text.format("uniform"))
    assert traffic.load_workload(path).popularity == UNIFORM
    path.write_text(text.format("unifrm"))
    with pytest.raises(ConfigError, match="did you mean 'uniform'"):
        traffic.load_workload(path)


def test_a_fleet_file_names_its_laws(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text(
        'schema = "hercules_fast.popularity/1"\nname = "mine"\nkind = "histogram"\n'
        "rows = [10, 1000]\nshares = [0.6, 1.0]\n"
        '[sources]\n"rows, shares" = "user: counted for a day"\n'
    )
    (tmp_path / "fleet.toml").write_text(
        'schema = "hercules_fast.fleet/1"\nname = "f"\n[stock]\nT2-V100 = 1\n'
        '[[workloads]]\nname = "a"\nmodel = "dlrm-rmc1"\npopularity = "mine"\n'
        '[[workloads]]\nname = "b"\nmodel = "dlrm-rmc1"\n'
        '[sources]\n"stock, workloads" = "user: a test"\n'
    )
    mine, default = (w.popularity for w in fleets.load_fleet(tmp_path / "fleet.toml").workloads)
    assert (mine.name, mine.shares, default) == ("mine", (0.6, 1.0), ZIPF)
    assert hit_share(mine, 500, 10) == pytest.approx(0.6 / (0.6 + 0.4 * 490 / 990))


def test_counts_of_many_magnitudes_are_a_law() -> None:
    """The rarest rows' shares are differences of sums near 1, which rounding must not put out of order."""
    draw = np.random.default_rng(1)
    for rows in range(1000, 5000, 100):
        law = popularity_from_counts(draw.pareto(0.3, rows))
        assert hit_share(law, rows, rows) == 1.0
