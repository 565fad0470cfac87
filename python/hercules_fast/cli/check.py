"""``check``: validate input files and do no work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hercules_fast.cli.common import ExitCode, Verbs, add_output_options, emit, emit_json
from hercules_fast.errors import ConfigError, Fault, HerculesError


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "check",
        help="validate input files, naming every fault",
        description="Validate descriptor files (.toml), efficiency tables, models of DeepRecSys and TorchRec (.json). "
        "Exits 0 when all are fine, else 2 with every fault and its field path.",
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="file to validate")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Validate each file and print what is wrong with it."""
    found = _check(args.files)
    if args.json:
        emit_json({path: [{"path": f.path, "message": f.message} for f in faults] for path, faults in found})
    else:
        emit("\n".join(line for path, faults in found for line in _lines(path, faults)))
    return ExitCode.BAD_INPUT if any(faults for _, faults in found) else ExitCode.DONE


def _check(files: Sequence[str]) -> list[tuple[str, tuple[Fault, ...]]]:
    """Each file with its faults, in the order given; descriptor files serve as each other's references."""
    from hercules_fast.descriptors import check

    others = {".json": _json_faults, ".csv": _load_faults}
    descriptors = [file for file in files if Path(file).suffix.lower() not in others]
    found = dict(zip(descriptors, (faults for _, faults in check(descriptors)), strict=True))
    return [(file, found[file] if file in found else others[Path(file).suffix.lower()](file)) for file in files]


def _json_faults(file: str) -> tuple[Fault, ...]:
    """Faults of a table of ours, which says its schema, or else of another program's model."""
    from hercules_fast.descriptors import read_json
    from hercules_fast.models import load_any_model
    from hercules_fast.tables import EfficiencyTable

    try:
        if "schema" in read_json(file):
            EfficiencyTable.load(file)
        else:
            load_any_model(file)
    except ConfigError as error:
        return error.faults
    except HerculesError as error:
        return (Fault("", str(error)),)
    return ()


def _load_faults(file: str) -> tuple[Fault, ...]:
    """Columns of a load are right or wrong only beside the workloads of a fleet."""
    words = f"a load of a fleet's workloads: `plan --fleet FLEET --load {file}` checks it before any work"
    return (Fault("", f"is a .csv file; allowed are descriptor files (.toml), tables and models (.json); {words}"),)


def _lines(path: str, faults: Sequence[Fault]) -> list[str]:
    if not faults:
        return [f"{path}: ok"]
    return [f"{path}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}", *(f"  {fault}" for fault in faults)]
