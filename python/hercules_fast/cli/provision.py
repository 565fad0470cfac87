"""``provision``: a profiled table, a load and a stock in, the plan out. Needs no descriptors and no simulation."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from hercules_fast.cli.common import (
    ExitCode,
    Verbs,
    add_output_options,
    add_overwrite_option,
    add_seed_option,
    check_output_file,
    emit,
    emit_json,
    headroom,
    name_list,
    say,
)
from hercules_fast.cli.inputs import fleet_files, fleet_from
from hercules_fast.errors import InputError


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "provision",
        help="plan from a profiled table, a load and a stock",
        description="Choose how many servers of each type to switch on for each workload in each interval, from a "
        "table that `profile` saved or one of your own. Exits 1 when load is shed.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE.json", help="efficiency table")
    parser.add_argument("--load", required=True, metavar="FILE", help="load per workload as CSV")
    stock = parser.add_mutually_exclusive_group(required=True)
    stock.add_argument("--stock", type=name_list, metavar="NAME=N,...", help="machines of each server type")
    stock.add_argument("--fleet", metavar="FILE|NAME", help="take the stock from a fleet")
    parser.add_argument(
        "--headroom", type=headroom, metavar="R", help="spare capacity, 0.1 for 10 %% (default: from the load)"
    )
    add_seed_option(parser)
    parser.add_argument("--out", metavar="PLAN.json|PLAN.csv", help="save the plan")
    add_overwrite_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Provision, save if asked, print the plan."""
    from hercules_fast.provisioning import Policy, provision
    from hercules_fast.report import provision_text
    from hercules_fast.tables import EfficiencyTable, write_atomically
    from hercules_fast.traffic import read_load_csv

    out = check_output_file(
        args.out,
        suffixes=(".json", ".csv"),
        inputs=[args.table, args.load, *fleet_files(args.fleet)],
        overwrite=args.overwrite,
    )
    table = EfficiencyTable.load(args.table)
    stock = _stock_of(args.stock) if args.stock else dict(fleet_from(args.fleet).stock)
    load = read_load_csv(args.load, workloads=table.workloads)
    plan = provision(table, load, stock, policy=Policy(headroom=args.headroom, seed=args.seed))
    if out is not None:
        content = plan.to_csv() if out.suffix == ".csv" else plan.to_json()
        write_atomically(out, content.encode())
    if args.json:
        emit_json(plan.to_dict())
    else:
        emit(provision_text(plan))
    if out is not None and not args.quiet:
        say(f"written to {out}")
    return ExitCode.DONE if plan.is_covered else ExitCode.NOT_MET


def _stock_of(items: list[str]) -> Mapping[str, int]:
    """``["T1=100", "T2=50"]`` as a mapping.

    Raises:
        InputError: naming every item that is not of that form.
    """
    stock: dict[str, int] = {}
    faults = []
    for item in items:
        name, _, count = item.rpartition("=")
        if not name or not (count.isascii() and count.isdecimal()) or int(count) >= 2**31:
            faults.append(f"{item!r}: allowed is NAME=N with a whole N from 0 to 2**31 - 1")
        elif name in stock:
            faults.append(f"{item!r}: {name} is given twice")
        else:
            stock[name] = int(count)
    if faults:
        raise InputError("--stock: " + "; ".join(faults))
    return stock
