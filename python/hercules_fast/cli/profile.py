"""``profile``: latency-bounded throughput and power of each workload on each server type."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hercules_fast.cli.common import (
    ExitCode,
    Progress,
    Verbs,
    add_output_options,
    add_overwrite_option,
    add_seed_option,
    add_threads_option,
    check_output_file,
    emit,
    emit_json,
    positive,
    save_partial,
    say,
)
from hercules_fast.cli.inputs import (
    add_fleet_option,
    add_goal_options,
    add_part_options,
    add_sla_option,
    fleet_files,
    fleet_from,
    goal_from,
    part_of,
)
from hercules_fast.errors import InputError, InterruptedRun

if TYPE_CHECKING:
    from hercules_fast.profiling import ProfiledTable


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "profile",
        help="profile workloads on server types: QPS within the SLA, and power",
        description="Search the best scheduling configuration of each workload on each server type. Exits 1 when a "
        "workload has no server that meets its SLA.",
        allow_abbrev=False,
    )
    add_fleet_option(parser)
    add_part_options(parser)
    add_sla_option(parser)
    add_goal_options(parser, method="--search")
    add_seed_option(parser)
    add_threads_option(parser)
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="keep each finished pair in FILE; the same command goes on where an earlier one ended, however it ended",
    )
    parser.add_argument(
        "--time-budget",
        type=positive,
        metavar="SECONDS",
        help="a coarse answer for every pair, then full searches in order until the time is used",
    )
    parser.add_argument("--out", metavar="TABLE.json", help="save the table, for `provision`")
    add_overwrite_option(parser)
    parser.add_argument("--csv", action="store_true", help="print the table as CSV")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Profile, save if asked, print the table."""
    from hercules_fast.planning import with_sla
    from hercules_fast.profiling import profile
    from hercules_fast.report import table_text

    if args.csv and args.json:
        raise InputError("--csv, --json: both are given; stdout carries one of them")
    inputs = [*fleet_files(args.fleet), *([args.journal] if args.journal else [])]
    out = check_output_file(args.out, suffixes=(".json",), inputs=inputs, overwrite=args.overwrite)
    fleet = part_of(fleet_from(args.fleet), args.servers, args.workloads)
    workloads = [with_sla(workload, args.sla) for workload in fleet.workloads]
    goal = goal_from(args, fleet.servers)
    with Progress("profiling", quiet=args.quiet, color=not args.no_color) as progress:
        try:
            table = profile(
                fleet.servers,
                workloads,
                search=args.search,
                seed=args.seed,
                threads=args.threads,
                progress=progress,
                journal=args.journal,
                time_budget_s=args.time_budget,
                **goal,
            )
        except InterruptedRun as stop:
            if args.journal:
                say(f"the finished pairs are in {args.journal}; the same command goes on from there")
            if out is not None:
                save_partial(stop.partial, out.with_name(f"{out.stem}.partial{out.suffix}"))
            raise
    if out is not None:
        table.save(out)
    if args.json:
        emit_json(table.to_dict())
    else:
        emit(table.to_csv() if args.csv else table_text(table))
    if not args.quiet:
        _tell_how(table)
        if out is not None:
            say(f"written to {out}")
    served = all(table.ranking(workload) for workload in table.workloads)
    return ExitCode.DONE if served else ExitCode.NOT_MET


def _tell_how(table: ProfiledTable) -> None:
    """What came from the journal, what had changed since, and what is not final."""
    if table.kept:
        say(f"{len(table.kept)} of {len(table.servers) * len(table.workloads)} pairs are from the journal")
    for (server, workload), changed in table.changed.items():
        say(f"profiled anew: {workload} on {server} ({', '.join(changed)} changed)")
    if left := table.meta.get("not_final"):
        say(f"not final, the time was used up: {', '.join(f'{workload} on {server}' for server, workload in left)}")
