"""Load traces from CSV: intervals against the slow twin, repairs counted, every problem named with its line."""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast.errors import ConfigError, DTypeError, InputError, MissingFileError
from hercules_fast.traffic import LoadTrace, Repairs, read_load_csv
from tests.reference import load_csv as slow

HOUR = 3600


def write(folder: Path, text: str) -> Path:
    path = folder / "load.csv"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(path: Path, workloads: tuple[str, ...] = ("a", "b"), interval_s: float | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_load_csv(path, workloads=workloads, interval_s=interval_s)
    return [str(fault) for fault in caught.value.faults]


WIDE = """\
timestamp,a,B
2024-03-01T00:00,1,10
2024-03-01T00:05,3,20
2024-03-01T00:10,2,0
2024-03-01T00:15,5,7.5
2024-03-01T00:20,0,1e1
"""
LONG = """\
timestamp,model,qps
2024-03-01T00:00,a,1
2024-03-01T00:00,b,10
2024-03-01T00:05,b,20
2024-03-01T00:05,a,3
2024-03-01T00:10,a,2
2024-03-01T00:10,b,0
2024-03-01T00:15,a,5
2024-03-01T00:15,b,7.5
2024-03-01T00:20,A,0
2024-03-01T00:20,b,10
"""


@pytest.mark.parametrize("text", [WIDE, LONG, WIDE.replace("\n", "\r\n"), "\ufeff" + WIDE, WIDE.replace("\n", "\n\n")])
def test_wide_and_long(tmp_path: Path, text: str) -> None:
    trace = read_load_csv(write(tmp_path, text), workloads=("a", "b"))
    assert trace.interval_s == 900
    assert trace.times.astype(str).tolist() == ["2024-03-01T00:00:00", "2024-03-01T00:15:00"]
    assert trace.qps.tolist() == [[3, 20], [5, 10]]
    assert (trace.relative, trace.name, trace.origin) == (False, "load", "user: load.csv")
    assert (trace.repairs.carried_steps, trace.repairs.irregular_steps) == (0, 0)
    assert not trace.qps.flags.writeable


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    trace = read_load_csv(write(tmp_path, WIDE), workloads=("b", "A"))
    assert trace.workloads == ("b", "A")
    assert trace.qps.tolist() == [[20, 3], [10, 5]]


@pytest.mark.parametrize(
    "stamps",
    [
        ("2024-03-01T01:00:00+01:00", "2024-03-01T01:05:00+01:00"),
        ("2024-03-01 00:00:00Z", "2024-02-29T19:05:00-05:00"),
        ("1709251200", "1709251500.0"),
    ],
)
def test_kinds_of_timestamps(tmp_path: Path, stamps: tuple[str, str]) -> None:
    trace = read_load_csv(write(tmp_path, f"timestamp,a\n{stamps[0]},1\n{stamps[1]},2\n"), workloads=["a"])
    assert trace.times.astype(str).tolist() == ["2024-03-01T00:00:00"]
    assert trace.qps.tolist() == [[2]]


def test_offsets_carry_over_a_change_of_summer_time(tmp_path: Path) -> None:
    rows = ("2024-10-27T02:30:00+02:00,1", "2024-10-27T02:00:00+01:00,2", "2024-10-27T02:30:00+01:00,3")
    trace = read_load_csv(write(tmp_path, "timestamp,a\n" + "\n".join(rows)), workloads=["a"], interval_s=1800)
    assert trace.times.astype(str).tolist() == [f"2024-10-27T{t}:00" for t in ("00:30", "01:00", "01:30")]


def test_partial_first_and_last_interval_are_kept(tmp_path: Path) -> None:
    trace = read_load_csv(
        write(tmp_path, "timestamp,a\n840,4\n900,1\n960,2\n1800,9\n".replace("1800", "1020")), workloads=["a"]
    )
    assert trace.times.astype(int).tolist() == [0, 900]
    assert trace.qps.tolist() == [[4], [9]]


def test_short_gaps_are_carried_and_counted(tmp_path: Path) -> None:
    rows = [(0, 1), (300, 5), (1200, 2), (1500, 3), (1560, 4), (1860, 6)]
    text = "timestamp,a\n" + "".join(f"{t},{v}\n" for t, v in rows)
    trace = read_load_csv(write(tmp_path, text), workloads=["a"], interval_s=300)
    assert trace.qps[:, 0].tolist() == [1, 5, 5, 5, 2, 4, 6, 6]
    assert trace.repairs == Repairs(rows=6, carried_steps=2, irregular_steps=2)


def test_long_gaps_are_errors(tmp_path: Path) -> None:
    text = "timestamp,a\n0,1\n300,1\n600,1\n1800,1\n2100,1\n"
    assert faults_of(write(tmp_path, text), ("a",)) == [
        "line 5: 3 steps of 300 s are missing since line 4; at most 2 are carried"
    ]


def test_absent_values_of_the_long_layout(tmp_path: Path) -> None:
    text = "timestamp,model,qps\n" + "".join(f"{300 * i},a,1\n" for i in range(6))
    b = "0,b,7\n"
    trace = read_load_csv(
        write(
            tmp_path,
            text.replace("0,a,1\n", "0,a,1\n" + b, 1)
            .replace("\n900,", "\n900,b,8\n900,")
            .replace("1200,", "1200,b,9\n1200,")
            .replace("1500,", "1500,b,9\n1500,"),
        ),
        workloads=["a", "b"],
        interval_s=300,
    )
    assert trace.qps[:, 1].tolist() == [7, 7, 7, 8, 9, 9]
    assert trace.repairs.carried_steps == 2
    assert faults_of(write(tmp_path, text + "1500,b,1\n"))[0] == "line 2: no rate of 'b' at the first timestamp"
    faults = faults_of(write(tmp_path, text.replace("0,a,1\n", "0,a,1\n" + b, 1)))
    assert faults == ["line 6: more than 2 steps in a row without a rate of 'b'"]


def test_all_problems_at_once_in_order_of_lines(tmp_path: Path) -> None:
    text = """\
timestamp,a,bb,a
2024-01-01T00:00,1,2,1
2024-01-01T00:05,-1,2,1
2024-01-01T00:05,1,2
2024-01-01T00:05,nan,2,1
2024-01-01T00:04,inf,2,1
2024-01-01T00:15Z,many,2,1
yesterday,,2,1
"""
    assert faults_of(write(tmp_path, text)) == [
        "header: unknown column 'bb'; did you mean 'b'? (known: a, b)",
        "header: column 'a' appears twice",
        "header: no column for workload 'b'",
        "line 3: a: -1 is not allowed; a rate >= 0 is wanted",
        "line 4: 3 cells; the header has 4",
        "line 5: a: nan is not allowed; a rate >= 0 is wanted",
        "line 5: timestamp repeats line 3",
        "line 6: a: inf is not allowed; a rate >= 0 is wanted",
        "line 6: timestamp is before line 5",
        "line 7: timestamp '2024-01-01T00:15Z' is with a UTC offset, earlier ones are without a UTC offset",
        "line 7: a: 'many' is not a number; a rate >= 0 is wanted",
        "line 8: timestamp 'yesterday'; ISO 8601 such as 2024-01-01T00:15:00 is wanted",
        "line 8: a: '' is not a number; a rate >= 0 is wanted",
    ]


def test_long_layout_names_unknown_repeated_and_missing_workloads(tmp_path: Path) -> None:
    text = "timestamp,model,qps\n0,aa,1\n0,a,1\n300,a,1\n0,a,2\n300,a,3\n"
    assert faults_of(write(tmp_path, text), ("a", "b")) == [
        "no rows for workload 'b'",
        "line 2: unknown workload 'aa'; did you mean 'a'? (known: a, b)",
        "line 5: timestamp is before line 4",
        "line 5: a second rate of 'a', as on line 3",
        "line 6: a second rate of 'a', as on line 4",
    ]


def test_many_problems_are_counted(tmp_path: Path) -> None:
    faults = faults_of(write(tmp_path, "timestamp,a\n" + "".join(f"{300 * i},-1\n" for i in range(1000))), ("a",))
    assert len(faults) == 21
    assert faults[-1] == "... and 980 more"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty; expected a header"),
        ("\n\n", "empty; expected a header"),
        ("timestamp,a\n", "no rows below the header"),
        ("time,a\n0,1\n", "line 1: first column is 'time'; expected 'timestamp'"),
        ("timestamp,a\n0,1\n", "one timestamp; the length of its step is unknown"),
        (
            "timestamp,a\n1709251200000,1\n1709251500000,2\n",
            "line 2: timestamp '1709251200000' is outside the years 1 to 9999",
        ),
        ('timestamp,a\n0,"1\n', "not CSV: unexpected end of data"),
        ("timestamp,a\nnan,1\n0,2\n", "line 2: timestamp 'nan' is outside"),
        ("timestamp,a\n0001-01-01T00:00+14:00,1\n", "line 2: timestamp '0001-01-01T00:00+14:00' is outside"),
        ("timestamp,a\n0,1\n1e9,1\n2e9,1\n", "3000000000 intervals of 1 s; at most"),
    ],
)
def test_refused_files(tmp_path: Path, text: str, fault: str) -> None:
    interval = 1 if "2e9" in text else None
    assert fault in faults_of(write(tmp_path, text), ("a",), interval)[0]


def test_one_row_with_a_given_interval(tmp_path: Path) -> None:
    trace = read_load_csv(write(tmp_path, "timestamp,a\n900,0\n"), workloads=["a"], interval_s=900)
    assert (trace.times.astype(int).tolist(), trace.qps.tolist()) == ([900], [[0]])


def test_unreadable_files(tmp_path: Path) -> None:
    for absent in (tmp_path / "absent.csv", tmp_path, "a\0b"):
        with pytest.raises(MissingFileError, match="cannot read"):
            read_load_csv(absent, workloads=["a"])
    path = tmp_path / "load.csv"
    path.write_bytes(b"timestamp,a\n0,\xff\n")
    assert "not UTF-8" in faults_of(path)[0]


@pytest.mark.parametrize("interval", [0, -900, 0.5, 900.5, float("nan"), float("inf"), "900"])
def test_interval_is_checked(tmp_path: Path, interval: float) -> None:
    with pytest.raises(InputError, match=r"interval_s is .*allowed"):
        read_load_csv(write(tmp_path, WIDE), workloads=["a", "b"], interval_s=interval)


@pytest.mark.parametrize("names", [(), "ab", ("a", "A"), ("",), (1,)])
def test_workloads_are_checked(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"workloads is .*allowed"):
        read_load_csv(write(tmp_path, WIDE), workloads=names)


@given(
    st.integers(0, 5000),
    st.lists(st.tuples(st.sampled_from([60, 60, 60, 61, 45, 120, 100]), st.integers(0, 99)), min_size=2, max_size=40),
    st.sampled_from([1, 7, 60, 90, 900]),
)
def test_matches_the_slow_twin(
    tmp_path_factory: pytest.TempPathFactory, start: int, steps: list[tuple[int, int]], interval: int
) -> None:
    starts = np.cumsum([start, *(length for length, _ in steps[:-1])]).tolist()
    rates = [[float(rate), float(rate % 7)] for _, rate in steps]
    text = "timestamp,a,b\n" + "".join(f"{t},{a},{b}\n" for t, (a, b) in zip(starts, rates, strict=True))
    path = tmp_path_factory.getbasetemp() / "twin.csv"
    path.write_text(text)
    try:
        trace = read_load_csv(path, workloads=["a", "b"], interval_s=interval)
    except ConfigError as error:
        assert "missing since" in str(error)  # 120 s after steps of 45 s is a long gap only if 45 s is usual
        return
    expected = slow.largest_per_interval(starts, rates, interval)
    assert dict(zip(trace.times.astype(int).tolist(), trace.qps.tolist(), strict=True)) == expected


@given(st.binary(max_size=80))
def test_any_bytes_end_in_a_trace_or_in_faults(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    for head in (b"", b"timestamp,a\n", b"timestamp,a\n0,1\n", b"timestamp,model,qps\n0,a,1\n"):
        path.write_bytes(head + raw)
        try:
            assert isinstance(read_load_csv(path, workloads=["a"]), LoadTrace)
        except ConfigError as error:
            assert error.faults


def test_public_trace(shared: Path, tmp_path: Path) -> None:
    """Two weeks of five-minute values, eight of whose steps are ten minutes long."""
    text = (shared / "load-traces" / "elb_request_count_5min.csv").read_text().replace("value", "a", 1)
    trace = read_load_csv(write(tmp_path, text), workloads=["a"])
    assert trace.repairs == Repairs(rows=4032, carried_steps=8, irregular_steps=8)
    assert (len(trace.times), trace.qps.max(), trace.interval_s) == (1347, 656, 900)


# --- loads from arrays


def from_arrays(**changes) -> LoadTrace:
    arguments = {"start": "2026-01-05", "interval_s": 3600, "qps": [[1, 2], [3, 4]]} | changes
    return LoadTrace.from_arrays("mine", arguments.pop("workloads", ["a", "b"]), **arguments)


@pytest.mark.parametrize(
    "start",
    [
        "2026-01-05T00:00",
        "2026-01-05T00:00Z",
        "2026-01-05T02:00+02:00",
        np.datetime64("2026-01-05"),
        datetime(2026, 1, 5),
        datetime(2026, 1, 5, 2, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_the_start_of_arrays_is_in_utc_and_offsets_count(start) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = from_arrays(start=start)
    assert trace.times.tolist() == [datetime(2026, 1, 5, 0), datetime(2026, 1, 5, 1)]
    assert trace.times.dtype == "datetime64[s]"
    assert trace.qps.dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "NaT"}, "start: is 'NaT'; allowed is a time"),
        ({"start": np.datetime64("NaT")}, "start: is NaT; allowed is a time"),
        ({"start": ""}, "start: is ''; allowed is a time"),
        ({"start": "0001-01-01T00:00+05:00"}, "start: is '0001-01-01T00:00"),
        ({"interval_s": 1e10}, "interval_s: is 10000000000.0; allowed is a whole number of seconds, 1 to 1e9"),
        ({"interval_s": True}, "interval_s: is True; allowed"),
        ({"interval_s": "900"}, "interval_s: is '900'; allowed"),
        ({"interval_s": float("nan")}, "interval_s: is nan; allowed"),
        ({"qps": [[1, 2], [3]]}, "qps: has rows of different lengths"),
        ({"qps": [["1", "2"]]}, "qps: is of dtype <U1; allowed are numbers"),
        ({"qps": [[True, False]]}, "qps: is of dtype bool; allowed are numbers"),
        ({"workloads": "ab"}, "workloads: is 'ab'; allowed is a list of names"),
    ],
)
def test_arrays_that_are_no_load(changes, message) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays(**changes)


def test_a_start_of_another_type_is_refused() -> None:
    with pytest.raises(DTypeError, match="start: is 5, int; allowed is a time"):
        from_arrays(start=5)
