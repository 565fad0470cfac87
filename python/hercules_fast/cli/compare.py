"""``compare``: two efficiency tables beside each other, for a gate in continuous integration."""

from __future__ import annotations

import argparse

from hercules_fast.cli.common import ExitCode, Verbs, add_output_options, emit, emit_json


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "compare",
        help="compare two saved profiles; fails when a pair became worse",
        description="Compare profile B with profile A, pair by pair. Exits 1 when the QPS or QPS per watt of a pair "
        "fell by more than --fail-over and its 95 %% interval lies below the old one, or when a served pair is "
        "infeasible or gone.",
        allow_abbrev=False,
    )
    parser.add_argument("before", metavar="A.json", help="table to compare with")
    parser.add_argument("after", metavar="B.json", help="table to judge")
    parser.add_argument(
        "--fail-over", type=_share, default=0.05, metavar="SHARE", help="share that counts, such as 5%% or 0.05 (5%%)"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed is a share below 1, such as 5% or 0.05")
    return share


def run(args: argparse.Namespace) -> int:
    """Compare and print; the exit code tells whether anything became worse."""
    from hercules_fast.profiling import compare

    comparison = compare(args.before, args.after, fail_over=args.fail_over)
    if args.json:
        emit_json(comparison.to_dict())
    else:
        emit(comparison.explain())
    return ExitCode.NOT_MET if comparison.regressions else ExitCode.DONE
