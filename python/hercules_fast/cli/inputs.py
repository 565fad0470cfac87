"""Inputs that several verbs take: a fleet by name or file, its servers and workloads, a load."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hercules_fast.cli.common import name_list, named

if TYPE_CHECKING:
    from hercules_fast.fleets import Fleet
    from hercules_fast.hardware import Server
    from hercules_fast.traffic import Workload

__all__ = [
    "add_fleet_option",
    "add_pair_options",
    "add_part_options",
    "add_sla_option",
    "fleet_files",
    "fleet_from",
    "pair_from",
    "part_of",
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
    return text.endswith(".toml") or "/" in text or Path(text).is_file()


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
