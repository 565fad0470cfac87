"""``capabilities``: what this build is and what it can use of this machine."""

from __future__ import annotations

import argparse

from hercules_fast.cli.common import ExitCode, Verbs, add_output_options, emit, emit_json


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "capabilities",
        help="show the build, the instruction sets and the threads in use",
        description="Show how the extension was built and what it uses of this machine.",
        allow_abbrev=False,
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print both dictionaries of the core."""
    from hercules_fast._core import build_info, capabilities
    from hercules_fast.report import mapping_text

    found = {"build": build_info(), "machine": capabilities()}
    if args.json:
        emit_json(found)
    else:
        emit("\n".join(f"{name}\n{mapping_text(values)}" for name, values in found.items()))
    return ExitCode.DONE
