"""Exit codes, argument types, output places, progress: what the verbs share."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hercules_fast.cli import common, main
from hercules_fast.errors import (
    ConfigError,
    Fault,
    InputError,
    InternalError,
    InterruptedRun,
    OutputError,
    SolverError,
    UnknownNameError,
)


def raising(error: BaseException):
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("qps: is -1"), 2, "error: qps: is -1"),
        (UnknownNameError.of("server", "T9", ["T1"]), 2, "did you mean 'T1'?"),
        (ConfigError("f.toml", [Fault("a[0]", "is 1"), Fault("b", "is 2")]), 2, "a[0]: is 1"),
        (OutputError("cannot write x"), 2, "cannot write x"),
        (SolverError("time limit"), 3, "SolverError: time limit"),
        (InternalError("broken"), 3, "broken"),
        (ZeroDivisionError("oops\nsecond line"), 3, "ZeroDivisionError: oops second line"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (InterruptedRun("after 2 of 8 pairs"), 130, "interrupted"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_every_error_has_an_exit_code_and_no_traceback(error, code, text, capsys, monkeypatch) -> None:
    monkeypatch.setattr(common, "_silence_stdout", lambda: None)
    monkeypatch.delenv(common.DEBUG_VARIABLE, raising=False)
    assert common.guarded(raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert "Traceback" not in err
    assert (common.DEBUG_VARIABLE in err) == (code == 3)


def test_internal_errors_show_their_traceback_on_request(capsys, monkeypatch) -> None:
    monkeypatch.setenv(common.DEBUG_VARIABLE, "1")
    assert common.guarded(raising(KeyError("x"))) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_name_cannot_drive_the_terminal(capsys) -> None:
    common.emit("name \x1b[31mred\x07 ü\n")
    assert capsys.readouterr().out == "name \\x1b[31mred\\x07 ü\n"
    common.guarded(raising(InputError("\x1b[2J")))
    assert "\x1b" not in capsys.readouterr().err


def test_json_is_strict_and_sorted() -> None:
    document = {"b": float("nan"), "a": [np.float64(1.5), np.int64(2), (True, None)], "c": np.array([1.0, np.inf])}
    assert json.loads(common.json_text(document)) == {"a": [1.5, 2, [True, None]], "b": None, "c": [1.0, None]}
    assert common.json_text(document).index('"a"') < common.json_text(document).index('"b"')


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-0.1", "x", "", "1e999"])
def test_numbers_that_are_refused(text) -> None:
    for kind in (common.positive, common.headroom):
        with pytest.raises(argparse.ArgumentTypeError, match=r"allowed is"):
            kind(text)


def test_zero_is_a_number_of_its_own() -> None:
    assert common.headroom("0") == 0.0
    with pytest.raises(argparse.ArgumentTypeError, match="> 0"):
        common.positive("0")
    assert common.whole_number("0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="from 1"):
        common.positive_int("0")


@pytest.mark.parametrize("text", ["-1", "1.5", "", "9223372036854775808", "one"])
def test_whole_numbers_that_are_refused(text) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="allowed is a whole number from 0"):
        common.whole_number(text)


def test_name_lists() -> None:
    assert common.name_list("T1, T2") == ["T1", "T2"]
    with pytest.raises(argparse.ArgumentTypeError, match="commas"):
        common.name_list("T1,,T2")
    with pytest.raises(argparse.ArgumentTypeError, match="T1 twice"):
        common.name_list("T1,T2,T1")


class Item:
    def __init__(self, name: str):
        self.name = name


def test_named_offers_the_nearest() -> None:
    items = [Item("T2-V100"), Item("T1")]
    assert common.named("server", "t2-v100", items) is items[0]
    with pytest.raises(UnknownNameError, match="did you mean 'T2-V100'"):
        common.named("server", "T2-V10", items)


# --- output places


def test_numbered_directories_count_on(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("plan-0001", "plan-0002"):
        with common.output_directory(None) as directory:
            (directory / "x").write_text("kept")
        assert directory == Path("runs") / expected
    (tmp_path / "runs" / "plan-0041").mkdir()
    (tmp_path / "runs" / "plan-notes").mkdir()
    with common.output_directory(None) as directory:
        pass
    assert directory.name == "plan-0042"


def test_a_failed_run_leaves_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for requested in (None, "a/b/c"):
        with pytest.raises(InputError), common.output_directory(requested):
            raise InputError("late")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_keeps_what_was_written_and_what_was_there(tmp_path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyboardInterrupt), common.output_directory(str(tmp_path / "old" / "new")) as directory:
        (directory / "partial").write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "old" / "new" / "partial").read_text() == "half"
    with pytest.raises(InputError), common.output_directory(str(tmp_path / "old" / "other")):
        raise InputError("late")
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["new"]


def test_output_directories_that_are_refused(tmp_path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "run.json").write_text("{}")
    file = tmp_path / "file"
    file.write_text("mine")
    for path, text in ((full, "--overwrite"), (file, "is a file"), (file / "sub", "cannot write")):
        with pytest.raises(OutputError, match=text), common.output_directory(str(path)):
            pytest.fail("the work must not start")
    with common.output_directory(str(full), overwrite=True) as directory:
        assert directory == full
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]
    assert (full / "run.json").read_text() == "{}"
    assert file.read_text() == "mine"


def test_output_files_are_probed(tmp_path) -> None:
    assert common.check_output_file(None) is None
    assert common.check_output_file(str(tmp_path / "t.json")) == tmp_path / "t.json"
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file / "t.json", tmp_path / "absent" / "t.json", tmp_path, tmp_path / ("x" * 254)):
        with pytest.raises(OutputError, match="cannot write"):
            common.check_output_file(str(path))


# --- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("rich", [True, False])
def test_progress_is_drawn_on_a_terminal_only(rich, monkeypatch) -> None:
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    else:
        pytest.importorskip("rich")
    for stream, quiet, drawn in ((Terminal(), False, True), (Terminal(), True, False), (io.StringIO(), False, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with common.Progress("profiling", quiet=quiet, color=False) as progress:
            progress(1, 4)
            progress(4, 4)
        assert bool(stream.getvalue()) == drawn
        if drawn:
            assert "profiling" in stream.getvalue()


# --- the command itself


def test_usage_errors_are_2(capsys) -> None:
    for argv in (
        [],
        ["fly"],
        ["plan", "--headroom", "nan"],
        ["plan", "--headroom", "-0.5"],
        ["plan", "--seed", "-1"],
        ["plan", "--threads", "0"],
        ["plan", "--head", "0.1"],
        ["search", "--server", "T1"],
        ["simulate", "--server", "T1", "--workload", "RMC1", "--qps", "inf", "--threads", "1"],
        ["provision", "t.json", "--load", "l.csv"],
    ):
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "usage:" in err
        assert "error:" in err


def test_help_and_version(capsys) -> None:
    assert main(["--help"]) == 0
    assert "exit codes" in capsys.readouterr().out
    for verb in ("plan", "profile", "compare", "provision", "search", "simulate", "check", "capabilities"):
        assert main([verb, "--help"]) == 0
        assert verb in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hercules-fast 0.")


def test_capabilities(capsys) -> None:
    assert main(["capabilities"]) == 0
    assert "isa_used" in capsys.readouterr().out
    assert main(["capabilities", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"build", "machine"}
    assert found["machine"]["threads_used"] >= 1


COMMAND = [sys.executable, "-m", "hercules_fast"]


def test_full_disk_under_stdout_is_named() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        run = subprocess.run([*COMMAND, "capabilities"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == "error: cannot write to standard output: No space left on device\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        run = subprocess.run([*COMMAND, "capabilities"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr) == (141, "")


def test_closed_stdout_is_named() -> None:
    script = f'exec "{sys.executable}" -m hercules_fast capabilities >&-'
    run = subprocess.run(["/bin/sh", "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 2
    assert "standard output is closed" in run.stderr


def test_plain_locale_and_no_home() -> None:
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    run = subprocess.run([*COMMAND, "capabilities"], env=env, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_ctrl_c_between_imports_is_130(tmp_path) -> None:
    """A signal that arrives outside any engine ends the process the same way."""
    script = "import os, signal, sys\nfrom hercules_fast.cli import common\n"
    # A runner may have started us with SIGINT ignored, which children inherit.
    script += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "sys.exit(common.guarded(lambda: os.kill(os.getpid(), signal.SIGINT) or signal.pause()))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=20)
    assert (run.returncode, run.stderr) == (130, "interrupted\n")
