"""The journal of a profile: what is lost (nothing but the pair on its way), what is refused, and in which words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hercules_fast.errors import ConfigError, DTypeError, InterruptedRun, OutputError
from hercules_fast.profiling import Cost
from hercules_fast.profiling.journal import Journal
from hercules_fast.serving import Terms
from hercules_fast.traffic import Sla
from tests.small_profiles import PAIRS, SERVERS, TINY, WORKLOADS, small_profile


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Journal and table of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "journal.jsonl"
    table = small_profile(journal=path)
    return path.read_bytes(), table


def header_of(content: bytes) -> dict:
    record = json.loads(content.splitlines()[0])["record"]
    return {name: value for name, value in record.items() if name != "schema"}


def line_of(record: dict) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()
    return b'{"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'","record":' + body + b"}\n"


def test_a_journal_changes_no_byte(whole) -> None:
    assert whole[1].to_json() == small_profile().to_json()
    assert whole[1].kept == ()


def test_a_second_run_keeps_every_pair(whole, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[0])
    told: list[tuple[int, int]] = []
    table = small_profile(journal=path, progress=lambda done, total: told.append((done, total)))
    assert table.to_json() == whole[1].to_json()
    assert table.kept == tuple(PAIRS) and not table.changed
    assert told == [(len(PAIRS), len(PAIRS))]
    assert path.read_bytes() == whole[0]


def test_lines_are_json_with_a_digest_each(whole) -> None:
    lines = whole[0].splitlines()
    assert len(lines) == 1 + len(PAIRS)
    for line in lines:
        data = json.loads(line)
        body = json.dumps(data["record"], separators=(",", ":")).encode()
        assert data["sha256"] == hashlib.sha256(body).hexdigest()


def pairs_of(content: bytes) -> list[tuple[str, str]]:
    records = [json.loads(line)["record"] for line in content.splitlines()[1:]]
    return [(record["server"], record["workload"]) for record in records]


def rows_in(content: bytes, header: dict, path: Path) -> dict[tuple[str, str], list]:
    """Rows of each pair that a journal with that content gives, whatever their inputs."""
    path.write_bytes(content)
    with Journal(path, header) as journal:
        return {pair: [rows for _, rows in known] for pair, known in journal._known.items()}


@given(st.data())
def test_a_journal_cut_at_any_byte_gives_right_rows_or_none(whole, tmp_path_factory, data) -> None:
    content, table = whole
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    found = rows_in(content[:cut], header_of(content), path)
    complete = content[:cut].count(b"\n") - 1
    assert len(found) == max(0, complete), "every whole line counts"
    for pair, rows in found.items():
        assert repr(rows) == repr([(table.best(*pair),)])
    kept = path.read_bytes()
    assert kept.endswith(b"\n") and content.startswith(kept), "the torn end is gone, and nothing else"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_a_profile_goes_on_from_a_cut_journal_to_the_same_bytes(whole, tmp_path, share) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[0][: int(share * len(whole[0]))])
    table = small_profile(journal=path, threads=2)
    assert table.to_json() == whole[1].to_json()
    assert sorted(path.read_bytes().splitlines()) == sorted(whole[0].splitlines())


@given(st.data())
def test_a_changed_byte_is_refused_or_dropped_with_its_line(whole, tmp_path_factory, data) -> None:
    content, _ = whole
    at = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    try:
        found = rows_in(bytes(damaged), header_of(content), path)
    except ConfigError as error:
        assert path.read_bytes() == bytes(damaged), "a journal that is refused is left as it is"
        assert all(fault.path.startswith("line ") for fault in error.faults)
    else:
        assert at >= content.rindex(b"\n", 0, -1), "only the last line may go"
        assert list(found) == pairs_of(content)[:-1]


def test_a_damaged_line_in_the_middle_is_named(whole, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[0].replace(b'"qps":', b'"qpz":', 2))
    with pytest.raises(ConfigError, match="line 2: is damaged: its bytes and its digest differ"):
        small_profile(journal=path)


def test_lines_may_stand_in_any_order(whole, tmp_path) -> None:
    head, *lines = whole[0].splitlines(keepends=True)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(head + b"".join(reversed(lines)))
    assert small_profile(journal=path).to_json() == whole[1].to_json()


@pytest.mark.parametrize(
    "content", [b"name,qps\n", b"{}\n", b"{}", b'{"sha256":"zz', b"\0" * 9, b'schema = "x"\n', b"\n", b"\xff\xfe"]
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, content) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"line 1: does not begin a journal .*; give another path"):
        small_profile(journal=path)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_journal(whole, tmp_path) -> None:
    path = tmp_path / "empty"
    path.touch()
    small_profile(journal=path)
    assert sorted(path.read_bytes().splitlines()) == sorted(whole[0].splitlines())


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"seed": 6}, ["seed: the journal has 5, the call asks for 6"]),
        ({"search": "exhaustive"}, ["search: the journal has 'gradient', the call asks for 'exhaustive'"]),
        ({"power_mode": "tdp"}, ["power_mode: the journal has 'component', the call asks for 'tdp'"]),
        (
            {"effort": replace(TINY, queries=300, replications=3)},
            [
                "effort.queries: the journal has 256, the call asks for 300",
                "effort.replications: the journal has 2, the call asks for 3",
            ],
        ),
        ({"terms": Terms().without("pollution")}, ["terms.pollution: the journal has True, the call asks for False"]),
    ],
)
def test_another_question_is_refused_by_its_name(whole, tmp_path, changes, differences) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[0])
    with pytest.raises(ConfigError) as refused:
        small_profile(journal=path, **changes)
    assert [str(fault) for fault in refused.value.faults] == differences
    assert path.read_bytes() == whole[0]


def test_another_version_is_refused_by_its_name(whole, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[0])
    with pytest.raises(ConfigError, match=r"version: the journal has '.*', the call asks for '99\.0'"):
        Journal(path, header_of(whole[0]) | {"version": "99.0"})


def test_a_changed_server_leaves_the_other_rows_alone(whole, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[0])
    faster = replace(SERVERS[1], cpu=replace(SERVERS[1].cpu, gemm_efficiency=0.9))
    table = small_profile(servers=(SERVERS[0], faster), journal=path)
    assert table.kept == tuple(pair for pair in PAIRS if pair[0] == "T1")
    assert table.changed == {pair: ("service table",) for pair in PAIRS if pair[0] == "T2"}
    assert table.to_json() == small_profile(servers=(SERVERS[0], faster)).to_json()
    # And back: rows of both are there now.
    assert small_profile(journal=path).kept == tuple(PAIRS)


def test_a_changed_promise_leaves_the_other_rows_alone(whole, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[0])
    looser = replace(WORKLOADS[0], slas=(Sla(percentile=95, latency_ms=75.0),))
    workloads = (looser, *WORKLOADS[1:])
    table = small_profile(workloads=workloads, journal=path)
    assert table.changed == {(server.name, looser.name): ("workload",) for server in SERVERS}
    assert table.to_json() == small_profile(workloads=workloads).to_json()


def test_a_workload_that_needs_longer_runs_changes_no_other_row(whole) -> None:
    strict = replace(WORKLOADS[0], name="strict", slas=(Sla(percentile=99, latency_ms=60.0),))
    table = small_profile(workloads=(*WORKLOADS, strict))
    assert [repr(row) for row in table.rows if row.workload != "strict"] == [repr(row) for row in whole[1].rows]


def test_a_journal_may_grow(whole, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    small_profile(journal=path, servers=SERVERS[:1])
    table = small_profile(journal=path)
    assert table.kept == tuple(pair for pair in PAIRS if pair[0] == "T1")
    assert table.to_json() == whole[1].to_json()


def test_a_second_process_is_refused_and_told_by_whom(tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    code = (
        "import sys\n"
        "from hercules_fast.profiling.journal import Journal\n"
        "with Journal(sys.argv[1], {}):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    program = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"cannot write the journal .*: process {owner.pid} writes to it"):
            small_profile(journal=path)
        owner.kill()
        owner.wait()
        Journal(path, {}).__exit__(None, None, None)  # the lock died with its owner


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path) -> None:
    for path, cause in ((tmp_path, "Is a directory"), (tmp_path / "no" / "such", "No such file or directory")):
        with pytest.raises(OutputError, match=f"cannot write the journal {re.escape(str(path))}: {cause}"):
            small_profile(journal=path)
    with pytest.raises(OutputError, match="cannot write the journal"):
        small_profile(journal="a\0b")
    with pytest.raises(DTypeError, match="journal: is 5, int; allowed is a path"):
        small_profile(journal=5)


@pytest.mark.parametrize("room", [0, 700, 2000])
def test_a_full_disk_is_named_and_costs_nothing_that_was_saved(whole, tmp_path, room) -> None:
    path = tmp_path / "journal.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # no file may grow beyond: the kernel's word is EFBIG
    try:
        with pytest.raises(
            OutputError, match=f"cannot write the journal .*({os.strerror(errno.EFBIG)}|a part of a line)"
        ):
            small_profile(journal=path, threads=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    saved = path.read_bytes()
    assert saved == b"" or saved.endswith(b"\n")
    table = small_profile(journal=path)
    assert len(table.kept) == max(0, saved.count(b"\n") - 1)
    assert table.to_json() == whole[1].to_json()


def test_ctrl_c_between_two_bytes_leaves_no_half_line(whole, tmp_path, monkeypatch) -> None:
    path = tmp_path / "journal.jsonl"
    pwrite = os.pwrite

    def interrupted(file: int, line: bytes, at: int) -> int:
        if b"rmc1" not in line:
            return pwrite(file, line, at)
        pwrite(file, line[:50], at)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(InterruptedRun, match=r"interrupted after \d of 6 pairs"):
        small_profile(journal=path, threads=1)
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert path.read_bytes().endswith(b"\n")
    assert small_profile(journal=path).to_json() == whole[1].to_json()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"server": "T1"}, r"line 8: 1 fault\n.*does not meet the schema: KeyError"),
        ({"server": "T1", "workload": "w", "inputs": [], "rows": []}, "line 8"),
        ({"server": "T1", "workload": "w", "inputs": {}, "rows": [{}]}, r"line 8.*\n.*rows\[0\]: lacks"),
        ({"server": ["T1"], "workload": "w", "inputs": {}, "rows": []}, "line 8"),
    ],
)
def test_a_record_of_another_form_is_named(whole, tmp_path, record, message) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole[0] + line_of(record))
    with pytest.raises(ConfigError, match=message):
        small_profile(journal=path)
    assert path.read_bytes().startswith(whole[0])


def test_numbers_of_any_type_are_written_plainly(tmp_path) -> None:
    figures = {name: np.float32(1.5) for name, _ in PAIRS}
    settings = {
        "objective": "qps_per_cost",
        "cost": Cost(server_per_hour=MappingProxyType(figures), energy_per_kwh=Fraction(1, 2)),
        "power_budget_w": np.int64(400),
        "effort": replace(TINY, precision=np.float32(1)),
    }
    table = small_profile(journal=tmp_path / "journal.jsonl", **settings)
    plain = Cost(server_per_hour={name: 1.5 for name, _ in PAIRS}, energy_per_kwh=0.5)
    settings |= {"cost": plain, "power_budget_w": 400, "effort": TINY}
    again = small_profile(journal=tmp_path / "journal.jsonl", **settings)
    assert again.to_json() == table.to_json() and list(again.kept) == PAIRS
