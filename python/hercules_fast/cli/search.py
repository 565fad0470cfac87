"""``search``: the best scheduling configuration of one workload on one server, with the path to it."""

from __future__ import annotations

import argparse

from hercules_fast.cli.common import (
    ExitCode,
    Progress,
    Verbs,
    add_output_options,
    add_seed_option,
    add_threads_option,
    emit,
    emit_json,
)
from hercules_fast.cli.inputs import add_pair_options, add_sla_option, pair_from


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "search",
        help="search the configuration of one workload on one server",
        description="Search the scheduling configuration with the most QPS within the SLA and show the path. Exits 1 "
        "when no configuration meets the SLA.",
        allow_abbrev=False,
    )
    add_pair_options(parser)
    add_sla_option(parser)
    parser.add_argument(
        "--method", choices=("gradient", "exhaustive"), default="gradient", help="how to search (gradient)"
    )
    add_seed_option(parser)
    add_threads_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search and print the path and the result."""
    from hercules_fast.profiling import search
    from hercules_fast.report import search_text

    server, workload = pair_from(args)
    with Progress("searching", quiet=args.quiet, color=not args.no_color) as progress:
        result = search(server, workload, method=args.method, seed=args.seed, threads=args.threads, progress=progress)
    if args.json:
        emit_json(result.to_dict())
    else:
        emit(search_text(result))
    return ExitCode.DONE if result.row.status == "ok" else ExitCode.NOT_MET
