"""The command line: one file per verb, each a thin wrapper over one public function.

stdout carries the result, stderr progress and errors. Exit codes: 0 done; 1 answered, but a requirement is not met;
2 bad input or usage; 3 internal error; 4 measurement too noisy; 130 interrupted; 141 the reader of stdout went away.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from hercules_fast.cli import (
    calibrate,
    capabilities,
    check,
    compare,
    host,
    measure,
    memory,
    plan,
    profile,
    provision,
    search,
    simulate,
    validate,
)
from hercules_fast.cli.common import emit, guarded

__all__ = ["main"]

_VERBS = (
    *(plan, profile, compare, provision, search, simulate, validate),
    *(calibrate, measure, memory, host, check, capabilities),
)

_EPILOG = """\
exit codes: 0 done; 1 answered, but a requirement is not met (load shed, SLA out of reach); 2 bad input or usage;
            3 internal error; 4 measurement too noisy; 130 interrupted; 141 the reader of stdout went away"""


class _Version(argparse.Action):
    """Ask the extension for its version only when the version is wanted."""

    def __init__(self, **options: Any):
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from hercules_fast._core import build_info

        emit(f"hercules-fast {build_info()['version']}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hercules-fast",
        description="Profile, simulate and provision recommendation-model serving on mixed hardware.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in _VERBS:
        verb.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no exception and no traceback leaves this function."""

    def work() -> int:
        try:
            args = _parser().parse_args(argv)
        except SystemExit as stop:  # argparse ends the process on --help, --version and usage errors
            return stop.code if isinstance(stop.code, int) else 2
        code: int = args.run(args)
        return code

    return guarded(work)
