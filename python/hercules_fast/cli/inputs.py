"""Inputs that several verbs take: a fleet by name or file, its servers and workloads, a load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hercules_fast.cli.common import name_list, named, not_negative, positive, positive_int
from hercules_fast.errors import InputError

if TYPE_CHECKING:
    from hercules_fast.fleets import Fleet
    from hercules_fast.hardware import Server
    from hercules_fast.models import Model
    from hercules_fast.traffic import Sla, Workload

__all__ = [
    "add_fleet_option",
    "add_goal_options",
    "add_pair_options",
    "add_part_options",
    "add_sla_option",
    "fleet_files",
    "fleet_from",
    "goal_from",
    "model_files",
    "model_from",
    "pair_from",
    "part_of",
    "slas_from",
]

DEFAULT_FLEET = "zoo10"


def add_fleet_option(parser: argparse._ActionsContainer) -> None:
    """``--fleet``: a built-in fleet or a fleet file."""
    parser.add_argument(
        "--fleet", default=DEFAULT_FLEET, metavar="FILE|NAME", help=f"fleet file or built-in fleet ({DEFAULT_FLEET})"
    )


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """``--server``, ``--workload`` and the fleet that they belong to."""
    parser.add_argument("--server", required=True, metavar="S", help="server type of the fleet")
    parser.add_argument("--workload", required=True, metavar="W", help="workload of the fleet")
    add_fleet_option(parser)


def add_sla_option(parser: argparse._ActionsContainer) -> None:
    """``--sla``: another promise than the fleet's."""
    parser.add_argument(
        "--sla", metavar="pNN[:MS]", help="SLA of every workload, such as p99 (same latency) or p99:25ms"
    )


def fleet_from(text: str) -> Fleet:
    """The fleet in the file ``text``, or the built-in one of that name.

    Raises:
        UnknownNameError, MissingFileError, ConfigError: as the fleet room says.
    """
    from hercules_fast.fleets import fleet, load_fleet

    return load_fleet(text) if _is_path(text) else fleet(text)


def fleet_files(text: str | None) -> list[str]:
    """The file that ``--fleet`` names, if it names one and not a built-in fleet."""
    return [text] if text is not None and _is_path(text) else []


def _is_path(text: str) -> bool:
    return text.endswith((".toml", ".json")) or "/" in text or Path(text).is_file()


def model_from(text: str) -> Model:
    """The model in the file ``text`` (TOML of ours, JSON of other programs), or the catalogue's of that name.

    Raises:
        UnknownNameError, MissingFileError, ConfigError: as the models room says.
    """
    from hercules_fast.models import load_any_model, model

    return load_any_model(text) if _is_path(text) else model(text)


def model_files(text: str) -> list[str]:
    """The file that ``--model`` names, if it names one and not a model of the catalogue."""
    return [text] if _is_path(text) else []


def slas_from(model: Model, text: str | None) -> list[Sla] | None:
    """What ``--sla`` asks for; a percentile alone keeps the model's latencies."""
    from hercules_fast.planning import parse_sla
    from hercules_fast.traffic import Sla

    if text is None:
        return None
    percentile, latency_ms = parse_sla(text)
    latencies_ms = [latency_ms] if latency_ms is not None else [t.latency_ms for t in model.latency_targets]
    if not latencies_ms:
        raise InputError(f"--sla: is {text!r}, and {model.name!r} has no latency target; allowed is {text}:20ms")
    return [Sla(percentile=percentile, latency_ms=ms, status="as asked") for ms in dict.fromkeys(latencies_ms)]


def pair_from(args: argparse.Namespace) -> tuple[Server, Workload]:
    """The server and the workload that ``--server`` and ``--workload`` name."""
    fleet = fleet_from(args.fleet)
    server = named("server of the fleet", args.server, fleet.servers)
    workload = named("workload of the fleet", args.workload, fleet.workloads)
    if getattr(args, "sla", None):
        from hercules_fast.planning import with_sla

        workload = with_sla(workload, args.sla)
    return server, workload


def add_part_options(parser: argparse.ArgumentParser) -> None:
    """``--servers`` and ``--workloads``: only a part of the fleet."""
    parser.add_argument("--servers", type=name_list, metavar="A,B", help="only these server types of the fleet")
    parser.add_argument("--workloads", type=name_list, metavar="A,B", help="only these workloads of the fleet")


def part_of(fleet: Fleet, servers: list[str] | None, workloads: list[str] | None) -> Fleet:
    """``fleet`` with only the named servers and workloads, in the order named."""
    if servers is not None:
        chosen = tuple(named("server of the fleet", name, fleet.servers) for name in servers)
        names = [s.name for s in chosen]
        fleet = replace(
            fleet,
            servers=chosen,
            stock={name: fleet.stock[name] for name in names},
            reference_server=fleet.reference_server if fleet.reference_server in names else names[0],
        )
    if workloads is not None:
        fleet = replace(
            fleet, workloads=tuple(named("workload of the fleet", name, fleet.workloads) for name in workloads)
        )
    return fleet


METHODS = ("gradient", "exhaustive", "hill", "deeprecsys", "random")
OBJECTIVES = ("qps", "qps_per_watt", "qps_per_cost")
"""Those of ``profiling.settings``, which only a run imports."""


def add_goal_options(parser: argparse.ArgumentParser, *, method: str) -> None:
    """What a search looks for and how: ``method`` (the option's name), objective, costs, budget, front, effort."""
    group = parser.add_argument_group("the search")
    group.add_argument(method, choices=METHODS, default="gradient", help="how configurations are chosen (gradient)")
    group.add_argument(
        "--objective", choices=OBJECTIVES, default="qps", help="what is made as large as it can be (qps)"
    )
    group.add_argument(
        "--server-cost",
        type=_costs,
        metavar="COST|S=COST,...",
        help="of a server for an hour, in any currency, one figure or by server type (qps_per_cost)",
    )
    group.add_argument("--energy-price", type=not_negative, metavar="COST", help="of a kWh (qps_per_cost)")
    group.add_argument("--power-budget", type=positive, metavar="W", help="loads that draw more do not count")
    group.add_argument("--front", action="store_true", help="also the rows that trade QPS against power")
    group.add_argument(
        "--evaluations", type=positive_int, metavar="N", help="most configurations simulated under load (no limit)"
    )
    group.add_argument(
        "--precision",
        type=positive,
        metavar="SHARE",
        help="half-width of the 95 %% interval of QPS, as a share of it, that the final runs are for (0.01)",
    )


def goal_from(args: argparse.Namespace, servers: Sequence[Server]) -> dict[str, Any]:
    """The arguments of ``search`` and ``profile`` that :func:`add_goal_options` declares, but for the method."""
    from hercules_fast.profiling import Cost, Effort

    costs = {"--server-cost": args.server_cost, "--energy-price": args.energy_price}
    priced = args.objective == "qps_per_cost"
    if not priced and (given := [name for name, value in costs.items() if value is not None]):
        raise InputError(f"{', '.join(given)}: given with --objective {args.objective}; allowed with qps_per_cost only")
    if priced and (missing := [name for name, value in costs.items() if value is None]):
        raise InputError(f"{', '.join(missing)}: not given; --objective qps_per_cost needs both costs")
    server_cost = args.server_cost
    if isinstance(server_cost, dict):
        server_cost = {named("server of the fleet", name, servers).name: cost for name, cost in server_cost.items()}
    return {
        "objective": args.objective,
        "cost": Cost(server_per_hour=server_cost, energy_per_kwh=args.energy_price) if priced else None,
        "power_budget_w": args.power_budget,
        "front": args.front,
        "evaluations": args.evaluations,
        "effort": Effort() if args.precision is None else Effort(precision=args.precision),
    }


def _costs(text: str) -> float | dict[str, float]:
    """Argument type: a number from 0, or one for each of some names."""
    if "=" not in text:
        return not_negative(text)
    parts = [part.partition("=") for part in text.split(",")]
    names = name_list(",".join(name for name, _, _ in parts))
    return {name: not_negative(cost) for name, (_, _, cost) in zip(names, parts, strict=True)}
