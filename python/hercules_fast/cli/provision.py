"""``provision``: a profiled table, a load and a stock in, the plan out. Needs no descriptors and no simulation."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
    save_partial,
    say,
)
from hercules_fast.cli.inputs import fleet_files, fleet_from
from hercules_fast.errors import InputError, InterruptedRun

if TYPE_CHECKING:
    from hercules_fast.provisioning import Plan, Policy

V = TypeVar("V")


def add_parser(verbs: Verbs) -> None:
    """Declare the options of the verb."""
    parser = verbs.add_parser(
        "provision",
        help="plan from a profiled table, a load and a stock",
        description="Choose how many servers of each type to switch on for each workload in each interval, from a "
        "table that `profile` saved or one of your own. Exits 1 when demand is not covered.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE.json", help="efficiency table")
    parser.add_argument("--load", required=True, metavar="FILE", help="load per workload as CSV")
    stock = parser.add_mutually_exclusive_group(required=True)
    stock.add_argument("--stock", type=name_list, metavar="NAME=N,...", help="machines of each server type")
    stock.add_argument("--fleet", metavar="FILE|NAME", help="take the stock from a fleet")
    add_seed_option(parser)

    wishes = parser.add_argument_group("what operators decide")
    wishes.add_argument(
        "--headroom",
        type=_headroom,
        metavar="R|WORKLOAD=R,...|day-over-day",
        help="spare capacity, 0.1 for 10 %%; by workload (0 for others); or from how far loads are from those of the "
        "day before (default: the largest growth over one interval)",
    )
    wishes.add_argument(
        "--estimate", choices=("value", "lower"), default="value", help="QPS to plan with, or their lower ends"
    )
    wishes.add_argument(
        "--drain", type=name_list, default=[], metavar="SERVER[:WORKLOAD],...", help="what is not to be used"
    )
    wishes.add_argument(
        "--minimum", type=name_list, metavar="SERVER:WORKLOAD=N,...", help="machines that are on, needed or not"
    )
    wishes.add_argument("--maintenance", metavar="FILE", help="windows in which servers are out of use (TOML)")
    wishes.add_argument("--no-baselines", action="store_true", help="compare with nothing: quicker for large fleets")
    wishes.add_argument(
        "--constraints", metavar="FILE", help="power caps, failure domains, switching, fair shares (TOML)"
    )
    wishes.add_argument("--prices", metavar="FILE", help="energy, carbon and machines: cost instead of watts (TOML)")

    ask = parser.add_argument_group("inverse questions, answered instead of printing the plan")
    ask.add_argument(
        "--what-if",
        choices=("purchase", "growth", "one-more"),
        help="the cheapest servers to buy for this load; how far load may grow; what one more server is worth",
    )
    ask.add_argument(
        "--machine-price",
        type=name_list,
        metavar="NAME=X,...",
        help="with purchase: price of a machine, types not named are not for sale (default: 1 for every type)",
    )
    ask.add_argument("--grow", metavar="WORKLOAD", help="with growth: only this workload grows (default: all alike)")

    files = parser.add_argument_group("files")
    files.add_argument(
        "--out",
        metavar="PLAN.json|PLAN.csv|REPLICAS.yaml",
        help="save the plan; as YAML, the replicas of one interval for Kubernetes",
    )
    files.add_argument("--at", metavar="TIME", help="the interval of --out REPLICAS.yaml (default: the peak)")
    files.add_argument("--plot", metavar="FILE", help="draw load and servers on (.svg or .png)")
    add_overwrite_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Provision, save if asked, print the plan or the answer to the inverse question."""
    from hercules_fast.provisioning import load_constraints, provision
    from hercules_fast.report import provision_text
    from hercules_fast.tables import EfficiencyTable
    from hercules_fast.traffic import read_load_csv

    _check_questions(args)
    inputs = [args.table, args.load, *fleet_files(args.fleet)]
    inputs += [path for path in (args.maintenance, args.prices, args.constraints) if path is not None]
    out = check_output_file(
        args.out, suffixes=(".json", ".csv", ".yaml", ".yml"), inputs=inputs, overwrite=args.overwrite
    )
    plot = check_output_file(args.plot, suffixes=(".svg", ".png"), inputs=inputs, overwrite=args.overwrite)
    if plot is not None:
        from hercules_fast.plotting.style import require_matplotlib

        require_matplotlib()
    table = EfficiencyTable.load(args.table)
    stock = _numbers("--stock", args.stock, _count) if args.stock else dict(fleet_from(args.fleet).stock)
    policy = _policy(args)
    constraints = () if args.constraints is None else load_constraints(args.constraints)
    prices = None if args.machine_price is None else _numbers("--machine-price", args.machine_price, _price)
    load = read_load_csv(args.load, workloads=table.workloads)
    try:
        plan = provision(table, load, stock, policy=policy, constraints=constraints)
    except InterruptedRun as stop:
        if out is not None and out.suffix in (".json", ".csv"):
            save_partial(stop.partial, out.with_name(f"{out.stem}.partial{out.suffix}"))
        raise
    answer = None if args.what_if is None else _answer(plan, args.what_if, args.grow, prices)
    _write(plan, out, args.at, plot)
    if args.json:
        emit_json(plan.to_dict() if answer is None else answer[1])
    else:
        emit(provision_text(plan) if answer is None else answer[0])
    if not args.quiet:
        for path in filter(None, (out, plot)):
            say(f"written to {path}")
    return ExitCode.DONE if plan.is_covered or answer is not None else ExitCode.NOT_MET


def _check_questions(args: argparse.Namespace) -> None:
    """Refuse options that would say nothing."""
    if args.grow is not None and args.what_if != "growth":
        raise InputError("--grow: names what grows in --what-if growth, which is not asked")
    if args.machine_price is not None and args.what_if != "purchase":
        raise InputError("--machine-price: is for --what-if purchase, which is not asked")
    if args.constraints is not None and args.what_if is not None:
        raise InputError(
            "--constraints: the inverse questions of --what-if know no constraints; allowed is one of both"
        )
    if args.at is not None and not (args.out or "").endswith((".yaml", ".yml")):
        raise InputError("--at: names the interval of --out REPLICAS.yaml, which is not asked")


def _policy(args: argparse.Namespace) -> Policy:
    from hercules_fast.provisioning import Policy, load_maintenance, load_prices
    from hercules_fast.provisioning.policy import BASELINES

    drain = [_pair(item) if ":" in item else item for item in args.drain]
    minimum = {}
    for name, count in _numbers("--minimum", args.minimum or [], _count).items():
        if ":" not in name:
            raise InputError(f"--minimum: {name!r}; allowed is SERVER:WORKLOAD=N")
        minimum[_pair(name)] = count
    return Policy(
        headroom=args.headroom,
        estimate=args.estimate,
        drain=drain,
        minimum=minimum,
        maintenance=None if args.maintenance is None else load_maintenance(args.maintenance),
        prices=None if args.prices is None else load_prices(args.prices),
        baselines=() if args.no_baselines else BASELINES,
        seed=args.seed,
    )


def _answer(
    plan: Plan, question: str, grow: str | None, prices: Mapping[str, float] | None
) -> tuple[str, dict[str, Any]]:
    """The answer as text and as one JSON document."""
    from hercules_fast.provisioning import cheapest_purchase, largest_growth, one_more_server

    problem, minimum = plan.problem(), plan.minimum
    document: dict[str, Any] = {"schema": "hercules_fast.what_if/1", "question": question}
    if question == "growth":
        growth = largest_growth(problem, grow, minimum)
        at = None if growth.interval < 0 else f"{plan.times[growth.interval]}Z"
        document |= {"workload": growth.workload, "factor": growth.factor, "rest_fits": growth.rest_fits}
        document |= {"at": at, "binding": list(growth.binding)}
        return growth.explain([str(t) for t in plan.times]), document
    if question == "purchase":
        bought = cheapest_purchase(problem, prices, minimum)
        document |= {"machines": dict(bought.machines), "cost": bought.cost, "bound": bought.bound}
        document |= {"fractional": dict(bought.fractional)}
        document |= {"intervals": [f"{plan.times[t]}Z" for t in bought.intervals]}
        return bought.explain(), document
    currency = None if plan.costs is None else plan.costs.currency
    worth = one_more_server(problem, minimum=minimum)
    document |= {"unit": currency or "W", "hours": plan.hours, "peak": f"{plan.times[plan.peak]}Z"}
    document["servers"] = {
        more.server: {
            "price_at_peak": more.price[plan.peak],
            "saved_at_peak": more.saved[plan.peak],
            "price_sum": more.price.sum(),
            "saved_sum": more.saved.sum(),
            "served_qps_most": more.served_qps.sum(axis=1).max(),
        }
        for more in worth
    }
    return "\n".join(more.explain(plan.peak, plan.hours, currency) for more in worth), document


def _write(plan: Plan, out: Path | None, at: str | None, plot: Path | None) -> None:
    from hercules_fast.provisioning.replicas import interval_at, replicas_yaml
    from hercules_fast.tables import write_atomically

    if out is not None:
        if out.suffix == ".csv":
            content = plan.to_csv()
        elif out.suffix == ".json":
            content = plan.to_json()
        else:
            content = replicas_yaml(plan, plan.peak if at is None else interval_at(plan, at))
        write_atomically(out, content.encode())
    if plot is not None:
        from hercules_fast.plotting import plot_week

        plot_week(plan, plot)


# -- arguments -------------------------------------------------------------------------------------------------------


def _headroom(text: str) -> float | str | dict[str, float]:
    """Argument type: one headroom, "day-over-day", or WORKLOAD=R,..."""
    if text == "day-over-day":
        return text
    if "=" not in text:
        return headroom(text)
    found: dict[str, float] = {}
    for item in name_list(text):
        name, _, value = item.rpartition("=")
        if not name or name in found:
            raise argparse.ArgumentTypeError(f"is {item!r}; allowed is WORKLOAD=R, each workload once")
        found[name] = headroom(value)
    return found


def _pair(text: str) -> tuple[str, str]:
    server, _, workload = text.partition(":")
    return server, workload


def _count(text: str) -> int | None:
    short = text.isascii() and text.isdecimal() and len(text) <= 10  # int() itself refuses thousands of digits
    return int(text) if short and int(text) < 2**31 else None


def _price(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _numbers(option: str, items: list[str], read: Callable[[str], V | None]) -> dict[str, V]:
    """``["T1=100", "T2=50"]`` as a mapping.

    Raises:
        InputError: naming every item that is not of that form.
    """
    numbers: dict[str, V] = {}
    faults = []
    allowed = "NAME=N with a whole N from 0 to 2**31 - 1" if read is _count else "NAME=X with a number X"
    for item in items:
        name, _, text = item.rpartition("=")
        value = read(text) if name else None
        if value is None:
            faults.append(f"{item!r}: allowed is {allowed}")
        elif name in numbers:
            faults.append(f"{item!r}: {name} is given twice")
        else:
            numbers[name] = value
    if faults:
        raise InputError(f"{option}: " + "; ".join(faults))
    return numbers
