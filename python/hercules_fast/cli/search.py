"""``search``: the best scheduling configuration of one workload on one server, with the path to it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hercules_fast.cli.common import (
    ExitCode,
    Progress,
    Verbs,
    add_output_options,
    add_seed_option,
    add_threads_option,
    check_output_file,
    emit,
    emit_json,
    not_negative,
    positive_int,
    say,
)
from hercules_fast.cli.inputs import (
    add_goal_options,
    add_pair_options,
    add_sla_option,
    fleet_files,
    goal_from,
    pair_from,
)
from hercules_fast.errors import InputError

if TYPE_CHECKING:
    from hercules_fast.hardware import Server
    from hercules_fast.profiling.settings import Tables
    from hercules_fast.traffic import Workload


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "search",
        help="search the configuration of one workload on one server",
        description="Search the scheduling configuration with the most QPS within the SLA, or the most for a watt or "
        "for money. Exits 1 when no configuration meets the SLA.",
        allow_abbrev=False,
    )
    add_pair_options(parser)
    add_sla_option(parser)
    add_goal_options(parser, method="--method")
    parser.add_argument("--top", type=positive_int, default=1, metavar="K", help="measure the K best finally (1)")
    parser.add_argument("--exhaustive", action="store_true", help="also the best of every configuration")
    own = parser.add_argument_group("service times of one's own, instead of the model's")
    own.add_argument("--table", metavar="FILE", help="a saved service table (.npz), or measurements (.csv)")
    own.add_argument("--idle-w", type=not_negative, metavar="W", help="with a .csv: watts of the server at rest")
    own.add_argument("--tdp-w", type=not_negative, metavar="W", help="with a .csv: watts with all cores busy")
    parser.add_argument(
        "--explain", action="store_true", help="the path, each step with why, and QPS against each axis"
    )
    parser.add_argument("--plot", metavar="FILE", help="with --explain: draw QPS against each axis (.svg or .png)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --plot names")
    add_seed_option(parser)
    add_threads_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search, print the result, and draw it."""
    from hercules_fast.profiling import search
    from hercules_fast.report import search_text

    target = _plot_file(args)
    server, workload = pair_from(args)
    goal = goal_from(args, [server])
    tables = _tables(args, server, workload)
    with Progress("searching", quiet=args.quiet, color=not args.no_color) as progress:
        result = search(
            server,
            workload,
            method=args.method,
            top=args.top,
            exhaustive=args.exhaustive,
            slices=args.explain,
            tables=tables,
            seed=args.seed,
            threads=args.threads,
            progress=progress,
            **goal,
        )
    if args.json:
        emit_json(result.to_dict())
    else:
        emit(search_text(result, explain=args.explain))
    if target is not None and result.slices:
        from hercules_fast.plotting import plot_search

        plot_search(result, target)
    if target is not None and not args.quiet:
        say(f"written to {target}" if result.slices else f"{target} is not written: there is no axis to draw")
    return ExitCode.DONE if result.row.status == "ok" else ExitCode.NOT_MET


def _plot_file(args: argparse.Namespace) -> Path | None:
    """The place of ``--plot``, proven before the search."""
    if args.plot is None:
        return None
    if not args.explain:
        raise InputError("--plot: draws what --explain measures, which is not given")
    inputs = [*fleet_files(args.fleet), *([args.table] if args.table else [])]
    target = check_output_file(args.plot, suffixes=(".svg", ".png"), inputs=inputs, overwrite=args.overwrite)
    from hercules_fast.plotting.style import require_matplotlib

    require_matplotlib()
    return target


def _tables(args: argparse.Namespace, server: Server, workload: Workload) -> Tables | None:
    """The user's own service table of the pair."""
    from hercules_fast.tables import ServiceTable

    watts = {"--idle-w": args.idle_w, "--tdp-w": args.tdp_w}
    if args.table is None or not args.table.endswith(".csv"):
        if given := [name for name, value in watts.items() if value is not None]:
            raise InputError(f"{', '.join(given)}: given without a --table of measurements (.csv)")
        return None if args.table is None else {(server.name, workload.name): ServiceTable.load(args.table)}
    if missing := [name for name, value in watts.items() if value is None]:
        raise InputError(f"{', '.join(missing)}: not given; a --table of measurements (.csv) says nothing of power")
    table = ServiceTable.from_csv(
        args.table, server=server.name, workload=workload.name, idle_w=args.idle_w, tdp_w=args.tdp_w
    )
    return {(server.name, workload.name): table}
