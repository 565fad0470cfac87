"""``plan``: a fleet and its load in, the week's plan out."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hercules_fast.cli.common import (
    ExitCode,
    Progress,
    Verbs,
    add_output_options,
    add_seed_option,
    add_threads_option,
    emit,
    emit_json,
    headroom,
    output_directory,
    save_partial,
    say,
)
from hercules_fast.cli.inputs import add_fleet_option, add_sla_option, fleet_from
from hercules_fast.errors import InputError, InterruptedRun

if TYPE_CHECKING:
    from hercules_fast.planning import PlanRun


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "plan",
        help="plan which servers to switch on through a week",
        description="Profile every workload of a fleet on every server type, then plan which servers to switch on "
        "for each workload in each interval. Exits 1 when load is shed or a workload has no server that meets its SLA.",
        allow_abbrev=False,
    )
    add_fleet_option(parser)
    parser.add_argument("--load", metavar="FILE", help="load per workload as CSV (default: the built-in week)")
    add_sla_option(parser)
    parser.add_argument(
        "--headroom", type=headroom, metavar="R", help="spare capacity, 0.1 for 10 %% (default: from the load)"
    )
    parser.add_argument(
        "--case",
        choices=("today", "growth"),
        help="how high the built-in week peaks: 0.70 (today, the default) or 0.85 of what the stock can serve",
    )
    parser.add_argument(
        "--search",
        choices=("gradient", "exhaustive"),
        default="gradient",
        help="how configurations are searched (gradient)",
    )
    add_seed_option(parser)
    add_threads_option(parser)
    parser.add_argument("--out", metavar="DIR", help="run directory (default: the next of runs/plan-0001, ...)")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run in --out")
    parser.add_argument("--no-plots", action="store_true", help="write no figures")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan, save the run directory, print the week."""
    from hercules_fast.planning import parse_sla, plan
    from hercules_fast.provisioning import Policy
    from hercules_fast.traffic import read_load_csv

    if args.case and args.load:
        raise InputError("--case: scales the built-in week only; --load FILE is already in queries per second")
    fleet = fleet_from(args.fleet)
    if args.sla is not None:
        parse_sla(args.sla)
    load = read_load_csv(args.load, workloads=[w.name for w in fleet.workloads]) if args.load else None
    policy = Policy(headroom=args.headroom, seed=args.seed)
    with ExitStack() as stack:
        directory = stack.enter_context(output_directory(args.out, overwrite=args.overwrite))
        progress = stack.enter_context(Progress("profiling", quiet=args.quiet, color=not args.no_color))
        try:
            result = plan(
                fleet,
                load,
                policy=policy,
                sla=args.sla,
                case=args.case,
                search=args.search,
                seed=args.seed,
                threads=args.threads,
                progress=progress,
            )
        except InterruptedRun as stop:
            save_partial(stop.partial, directory / "efficiency.partial.json")
            raise
        text = _write(result, directory, plots=not args.no_plots, quiet=args.quiet)
    if args.json:
        emit_json(_document(result, directory))
    else:
        emit(f"{text}\n\nwritten to {directory}")
    return ExitCode.DONE if result.requirements_met else ExitCode.NOT_MET


def _write(result: PlanRun, directory: Path, *, plots: bool, quiet: bool) -> str:
    """Write all files of the run and return the text of the report."""
    from hercules_fast.plotting import PlotsUnavailableError, save_plots
    from hercules_fast.report import plan_text
    from hercules_fast.tables import write_atomically

    text = plan_text(result)
    result.save(directory)
    write_atomically(directory / "report.txt", (text + "\n").encode())
    if plots:
        try:
            save_plots(result, directory)
        except PlotsUnavailableError as error:
            if not quiet:
                say(str(error))
    return text


def _document(result: PlanRun, directory: Path) -> dict[str, Any]:
    return {
        "run": result.resolved(),
        "requirements_met": result.requirements_met,
        "workloads_without_server": list(result.unserved),
        "shortfall": list(result.plan.shortfall()),
        "plan": result.plan.to_dict(),
        "efficiency": result.table.to_dict(),
        "directory": str(directory),
    }
